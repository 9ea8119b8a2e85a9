//! The allow list, as a pure function of what is asked for and where that leads.
//!
//! ```text
//! protocol, host and port ──▶ rules that match ──▶ addresses ──▶ method and path ──▶ the first that passes
//!                              none: the default          refusals name their rule
//! ```

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use nimbus_proto::workloads::{EgressRule, Protocol};

use super::address;

/// The rules of one sandbox.
pub(super) struct Policy {
    rules: Vec<EgressRule>,
    internal: Vec<IpNet>,
}

/// What a process inside asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// What will be spoken, as far as the proxy sees.
    pub(super) protocol: Protocol,
    /// The canonical host.
    pub(super) host: String,
    /// The port.
    pub(super) port: u16,
    /// The method, where it is seen.
    pub(super) method: Option<String>,
    /// The path without its query, where it is seen.
    pub(super) path: Option<String>,
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No rule matches.
    Default,
    /// The rule matches, and its host leads to an address that it does not allow.
    Internal { rule: String, address: IpAddr },
    /// The rule matches, and does not allow this method.
    Method { rule: String },
    /// The rule matches, and does not allow this path.
    Path { rule: String },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("no rule allows it, and what no rule allows is denied"),
            Self::Internal { rule, address } => {
                write!(f, "rule {rule} does not allow the internal address {address}")
            }
            Self::Method { rule } => write!(f, "rule {rule} does not allow this method"),
            Self::Path { rule } => write!(f, "rule {rule} does not allow this path"),
        }
    }
}

/// The rules that match a request, of which at least one also allows its method and path.
#[derive(Debug)]
pub(super) struct Candidates<'a> {
    rules: Vec<&'a EgressRule>,
    internal: &'a [IpNet],
    /// What is said when no address passes and a rule refused for something else.
    other: Option<Refusal>,
    literal: bool,
}

/// A host in the form in which hosts are compared: lower case, ASCII, no final dot, addresses in
/// their usual notation. None for what is not a host.
pub(super) fn canonical(host: &str) -> Option<String> {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    if let Ok(v6) = bare.parse::<std::net::Ipv6Addr>() {
        return Some(v6.to_string());
    }
    match url::Host::parse(host.strip_suffix('.').unwrap_or(host)).ok()? {
        url::Host::Domain(name) => Some(name.strip_suffix('.').unwrap_or(&name).to_owned()),
        url::Host::Ipv4(v4) => Some(v4.to_string()),
        url::Host::Ipv6(v6) => Some(v6.to_string()),
    }
}

impl Policy {
    pub(super) fn new(mut rules: Vec<EgressRule>, internal: Vec<IpNet>) -> Self {
        // A rule whose host is none can match nothing; such rules are refused when a sandbox is created.
        rules.retain_mut(|rule| match canonical(&rule.host) {
            Some(host) => {
                rule.host = host;
                true
            }
            None => false,
        });
        Self { rules, internal }
    }

    /// Where the raw rule of this name leads.
    pub(super) fn raw(&self, name: &str) -> Option<(String, u16)> {
        self.rules
            .iter()
            .find(|rule| rule.name == name && rule.protocol == Protocol::Tcp)
            .map(|rule| (rule.host.clone(), rule.port))
    }

    /// The rules that could allow it, before anything is resolved: names that no rule mentions are
    /// not looked up, so they carry nothing out either.
    pub(super) fn candidates(&self, asked: &Asked) -> Result<Candidates<'_>, Refusal> {
        let mut rules = Vec::new();
        let mut other = None;
        for rule in self
            .rules
            .iter()
            .filter(|rule| rule.port == asked.port && rule.host == asked.host && speaks(rule, asked.protocol))
        {
            match content(rule, asked) {
                Ok(()) => rules.push(rule),
                Err(refusal) => {
                    other.get_or_insert(refusal);
                }
            }
        }
        if rules.is_empty() {
            return Err(other.unwrap_or(Refusal::Default));
        }
        Ok(Candidates {
            rules,
            internal: &self.internal,
            other,
            literal: asked.host.parse::<IpAddr>().is_ok(),
        })
    }
}

/// A tunnel serves rules for `https` and for `tcp`: what runs inside of it is not seen.
fn speaks(rule: &EgressRule, protocol: Protocol) -> bool {
    rule.protocol == protocol || (protocol == Protocol::Https && rule.protocol == Protocol::Tcp)
}

fn content(rule: &EgressRule, asked: &Asked) -> Result<(), Refusal> {
    if let Some(method) = &asked.method
        && !rule.methods.is_empty()
        && !rule
            .methods
            .iter()
            .any(|allowed| allowed.eq_ignore_ascii_case(method))
    {
        return Err(Refusal::Method {
            rule: rule.name.clone(),
        });
    }
    if let Some(path) = &asked.path
        && !rule.path_prefixes.is_empty()
        && (has_dots(path) || !rule.path_prefixes.iter().any(|prefix| begins(path, prefix)))
    {
        return Err(Refusal::Path {
            rule: rule.name.clone(),
        });
    }
    Ok(())
}

/// Whether `path` is below `prefix`: `/a` means `/a` and `/a/…`, not `/ab`; `/a/` means what is in it.
fn begins(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'))
}

/// Whether a server could read `path` as one outside of its beginning: dot segments, also escaped
/// ones, and the backslash that some take for a slash.
fn has_dots(path: &str) -> bool {
    let plain = path
        .to_ascii_lowercase()
        .replace("%2e", ".")
        .replace("%2f", "/")
        .replace("%5c", "/");
    plain.contains('\\') || plain.split('/').any(|segment| segment == ".." || segment == ".")
}

impl Candidates<'_> {
    /// The addresses that may be dialled, in their order.
    pub(super) fn allowed(&self, addresses: &[IpAddr]) -> Result<Vec<IpAddr>, Refusal> {
        let mut refused = self.other.clone();
        for rule in &self.rules {
            let passing: Vec<IpAddr> = addresses
                .iter()
                .copied()
                .filter(|address| self.passes(rule, *address))
                .collect();
            if !passing.is_empty() {
                return Ok(passing);
            }
            if let Some(address) = addresses.first() {
                refused.get_or_insert(Refusal::Internal {
                    rule: rule.name.clone(),
                    address: *address,
                });
            }
        }
        match refused {
            Some(refusal) if !addresses.is_empty() => Err(refusal),
            // A name without addresses: nothing is dialled, and that is not a matter of policy.
            _ => Ok(Vec::new()),
        }
    }

    fn passes(&self, rule: &EgressRule, address: IpAddr) -> bool {
        if address::is_global(address) {
            return true;
        }
        // A name that somebody else can point to a metadata service must not lead there.
        if address::is_link_local(address) && !self.literal {
            return false;
        }
        let plain = address::plain(address);
        rule.allow_internal_ips && self.internal.iter().any(|net| net.contains(&plain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, protocol: Protocol, host: &str, port: u16) -> EgressRule {
        EgressRule {
            name: name.into(),
            protocol,
            host: host.into(),
            port,
            methods: vec![],
            path_prefixes: vec![],
            allow_internal_ips: false,
        }
    }

    fn asked(protocol: Protocol, host: &str, port: u16) -> Asked {
        Asked {
            protocol,
            host: canonical(host).expect("a host"),
            port,
            method: None,
            path: None,
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn decide(policy: &Policy, asked: &Asked, addresses: &[&str]) -> Result<Vec<IpAddr>, Refusal> {
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| ip(text)).collect();
        policy.candidates(asked)?.allowed(&addresses)
    }

    #[test]
    fn what_no_rule_mentions_is_denied_and_not_resolved() {
        let policy = Policy::new(vec![rule("a", Protocol::Https, "example.org", 443)], vec![]);
        for (protocol, host, port) in [
            (Protocol::Https, "example.com", 443),
            (Protocol::Https, "example.org", 8443),
            (Protocol::Http, "example.org", 443),
            (Protocol::Https, "www.example.org", 443),
            (Protocol::Https, "example.org.evil.test", 443),
        ] {
            assert_eq!(
                policy.candidates(&asked(protocol, host, port)).err(),
                Some(Refusal::Default),
                "{host}:{port}"
            );
        }
    }

    #[test]
    fn hosts_are_compared_in_canonical_form() {
        let policy = Policy::new(vec![rule("a", Protocol::Https, "Exämple.ORG.", 443)], vec![]);
        for host in ["exämple.org", "EXÄMPLE.org.", "xn--exmple-cua.org"] {
            assert!(
                policy.candidates(&asked(Protocol::Https, host, 443)).is_ok(),
                "{host}"
            );
        }
        // Numbers that are addresses in disguise are addresses.
        assert_eq!(canonical("0x7f.1").as_deref(), Some("127.0.0.1"));
        assert_eq!(canonical("2130706433").as_deref(), Some("127.0.0.1"));
        assert_eq!(canonical("[::1]").as_deref(), Some("::1"));
        assert_eq!(canonical("a b"), None);
        assert_eq!(canonical(""), None);
    }

    #[test]
    fn a_name_that_leads_inside_is_refused_with_its_rule() {
        let policy = Policy::new(vec![rule("a", Protocol::Https, "example.org", 443)], vec![]);
        let asked = asked(Protocol::Https, "example.org", 443);
        for inside in [
            "127.0.0.1",
            "10.0.0.1",
            "169.254.169.254",
            "::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
        ] {
            let refused = decide(&policy, &asked, &[inside]).expect_err(inside);
            assert!(refused.to_string().contains("rule a"), "{refused}");
        }
        // Of a mixed answer only the public part is dialled.
        assert_eq!(
            decide(&policy, &asked, &["127.0.0.1", "1.1.1.1"]),
            Ok(vec![ip("1.1.1.1")])
        );
    }

    #[test]
    fn internal_addresses_need_the_rule_and_the_operator() {
        let mut open = rule("a", Protocol::Tcp, "db.internal", 5432);
        open.allow_internal_ips = true;
        let policy = Policy::new(vec![open.clone()], vec!["10.0.0.0/8".parse().expect("a network")]);
        let asked = asked(Protocol::Tcp, "db.internal", 5432);
        assert_eq!(decide(&policy, &asked, &["10.0.0.1"]), Ok(vec![ip("10.0.0.1")]));
        for never in ["127.0.0.1", "169.254.169.254", "fe80::1", "::ffff:127.0.0.1"] {
            assert!(decide(&policy, &asked, &[never]).is_err(), "{never}");
        }
        let strict = Policy::new(vec![open], vec![]);
        assert!(decide(&strict, &asked, &["10.0.0.1"]).is_err());
    }

    #[test]
    fn methods_and_paths_belong_to_the_rule_that_matched() {
        let mut read = rule("read", Protocol::Http, "example.org", 80);
        read.methods = vec!["GET".into()];
        read.path_prefixes = vec!["/public".into()];
        let policy = Policy::new(vec![read], vec![]);
        let ask = |method: &str, path: &str| {
            let asked = Asked {
                method: Some(method.into()),
                path: Some(path.into()),
                ..asked(Protocol::Http, "example.org", 80)
            };
            decide(&policy, &asked, &["1.1.1.1"])
        };
        for path in ["/public", "/public/a", "/public/a..b"] {
            assert!(ask("get", path).is_ok(), "{path}");
        }
        for path in [
            "/",
            "/publicity",
            "/public/../private",
            "/public/%2e%2e/private",
            "/public/..%2fprivate",
            "/public\\..\\private",
        ] {
            assert_eq!(
                ask("GET", path),
                Err(Refusal::Path { rule: "read".into() }),
                "{path}"
            );
        }
        assert_eq!(
            ask("POST", "/public"),
            Err(Refusal::Method { rule: "read".into() })
        );
    }

    #[test]
    fn the_first_rule_that_passes_wins_over_one_that_refuses() {
        let mut narrow = rule("narrow", Protocol::Http, "example.org", 80);
        narrow.methods = vec!["GET".into()];
        let wide = rule("wide", Protocol::Http, "example.org", 80);
        let policy = Policy::new(vec![narrow, wide], vec![]);
        let post = Asked {
            method: Some("POST".into()),
            ..asked(Protocol::Http, "example.org", 80)
        };
        assert!(decide(&policy, &post, &["1.1.1.1"]).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn nothing_passes_without_a_rule_for_its_host(host in "[a-z]{1,8}\\.(org|com)", port: u16) {
            let policy = Policy::new(vec![rule("a", Protocol::Https, "allowed.test", 443)], vec![]);
            proptest::prop_assert!(policy.candidates(&asked(Protocol::Https, &host, port)).is_err());
        }

        #[test]
        fn a_path_below_a_prefix_begins_with_it(path in "/[a-z/.%0-9]{0,20}") {
            if begins(&path, "/a") {
                proptest::prop_assert!(path == "/a" || path.starts_with("/a/"));
            }
        }
    }
}
