//! The short syntaxes that have a grammar of their own: ports, mounts, dependencies and the like.

use crate::canonical::{Here, absolute, list, pairs};
use crate::error::ComposeError;
use crate::path;
use crate::yaml::{Map, Node, Value};

/// Most ports that one range may hold: what a person may have meant.
const MOST_PORTS: u32 = 1024;

type Read = Result<Node, ComposeError>;

fn items(node: Node, here: &Here<'_>) -> Result<Vec<Node>, ComposeError> {
    match list(node, here)?.value {
        Value::Seq(items) => Ok(items),
        _ => Ok(Vec::new()),
    }
}

/// `build: ./dir` is its context.
pub(crate) fn build(node: Node, here: &Here<'_>) -> Read {
    let at = node.at.clone();
    let mut map = match node.value {
        Value::Scalar(_) => Map::from_iter([("context".to_owned(), node)]),
        Value::Map(map) => map,
        _ => return Err(here.wrong(&at, "expected a directory or a map")),
    };
    if let Some(context) = map.get_mut("context") {
        // Git and HTTP contexts are addresses, not paths.
        let is_remote = context.as_str().is_some_and(|text| {
            text.contains("://") || text.starts_with("git@") || text.starts_with("github.com/")
        });
        if !is_remote {
            absolute(context, &here.below("context"))?;
        }
    }
    for key in ["args", "labels"] {
        if let Some(node) = map.get_mut(key) {
            *node = pairs(std::mem::take(node), &here.below(key))?;
        }
    }
    Ok(Node::map(map, &at))
}

/// A path, a list of them, or a list of maps.
pub(crate) fn env_file(node: Node, here: &Here<'_>) -> Read {
    let at = node.at.clone();
    let mut files = Vec::new();
    for item in items(node, here)? {
        let at = item.at.clone();
        let mut map = match item.value {
            Value::Scalar(_) => Map::from_iter([("path".to_owned(), item)]),
            Value::Map(map) => map,
            _ => return Err(here.wrong(&at, "expected a path")),
        };
        match map.get_mut("path") {
            Some(path) => absolute(path, here)?,
            None => return Err(here.wrong(&at, "expected a path")),
        }
        map.entry("required".to_owned())
            .or_insert_with(|| Node::plain("true", &at));
        files.push(Node::map(map, &at));
    }
    Ok(Node::seq(files, &at))
}

/// A list of services, or what is waited for by service.
pub(crate) fn depends_on(node: Node, here: &Here<'_>) -> Read {
    let at = node.at.clone();
    let Node {
        value: Value::Map(mut map),
        ..
    } = super::names(node, here)?
    else {
        return Err(here.wrong(&at, "expected services"));
    };
    for (name, dependency) in &mut map {
        let at = dependency.at.clone();
        let mut wanted = match std::mem::take(&mut dependency.value) {
            Value::Null => Map::new(),
            Value::Map(map) => map,
            _ => return Err(here.below(name).wrong(&at, "expected a map with a condition")),
        };
        wanted
            .entry("condition".to_owned())
            .or_insert_with(|| Node::text("service_started", &at));
        dependency.value = Value::Map(wanted);
    }
    Ok(Node::map(map, &at))
}

/// `host:address` or `host=address`, as a list or a map.
pub(crate) fn extra_hosts(node: Node, here: &Here<'_>) -> Read {
    let at = node.at.clone();
    let entries: Vec<Node> = match node.value {
        Value::Map(map) => {
            // The same name may have several addresses.
            let mut entries = Vec::new();
            for (name, addresses) in map {
                for address in items(addresses, here)? {
                    let at = address.at.clone();
                    let text = address.as_str().unwrap_or_default().to_owned();
                    entries.push(Node::text(format!("{name}={text}"), &at));
                }
            }
            entries
        }
        _ => items(node, here)?,
    };
    let mut hosts = Vec::new();
    for entry in entries {
        let pair = entry.as_str().and_then(|text| {
            text.split_once('=')
                .or_else(|| text.split_once(':'))
                .filter(|(name, address)| !name.is_empty() && !address.is_empty())
        });
        let Some((name, address)) = pair else {
            return Err(here.wrong(&entry.at, "expected host=address"));
        };
        let address = address.trim_start_matches('[').trim_end_matches(']');
        hosts.push(Node::text(format!("{name}={address}"), &entry.at));
    }
    Ok(Node::seq(hosts, &at))
}

/// A number for both, or a soft and a hard one.
pub(crate) fn ulimits(node: Node, here: &Here<'_>) -> Read {
    let at = node.at.clone();
    let Value::Map(mut map) = node.value else {
        return Err(here.wrong(&at, "expected a map of limits"));
    };
    for limit in map.values_mut() {
        if let Value::Scalar(_) = limit.value {
            let both = ["soft", "hard"].map(|key| (key.to_owned(), limit.clone()));
            limit.value = Value::Map(Map::from_iter(both));
        }
    }
    Ok(Node::map(map, &at))
}

/// Names of secrets or configs, or maps with where they go.
pub(crate) fn grants(node: Node, here: &Here<'_>) -> Read {
    let at = node.at.clone();
    let mut grants = Vec::new();
    for item in items(node, here)? {
        let at = item.at.clone();
        let map = match item.value {
            Value::Scalar(_) => Map::from_iter([("source".to_owned(), item)]),
            Value::Map(map) => map,
            _ => return Err(here.wrong(&at, "expected a name or a map with a source")),
        };
        grants.push(Node::map(map, &at));
    }
    Ok(Node::seq(grants, &at))
}

/// `[[address:]host:]container[/protocol]`, ranges among them.
pub(crate) fn ports(node: Node, here: &Here<'_>) -> Read {
    let at = node.at.clone();
    let mut ports = Vec::new();
    for item in items(node, here)? {
        match &item.value {
            Value::Map(_) => ports.push(item),
            Value::Scalar(scalar) => {
                let short = short_ports(&scalar.text).map_err(|why| here.wrong(&item.at, why))?;
                ports.extend(short.into_iter().map(|port| {
                    let mut map = Map::new();
                    let mut put = |key: &str, value: Node| map.insert(key.to_owned(), value);
                    if let Some(address) = port.address {
                        put("host_ip", Node::text(address, &item.at));
                    }
                    if let Some(published) = port.published {
                        put("published", Node::text(published, &item.at));
                    }
                    put("target", Node::plain(port.target.to_string(), &item.at));
                    put("protocol", Node::text(port.protocol, &item.at));
                    Node::map(map, &item.at)
                }));
            }
            _ => return Err(here.wrong(&item.at, "expected HOST:CONTAINER or a map with a target")),
        }
    }
    Ok(Node::seq(ports, &at))
}

#[derive(Debug, PartialEq, Eq)]
struct ShortPort {
    address: Option<String>,
    published: Option<String>,
    target: u16,
    protocol: String,
}

fn short_ports(text: &str) -> Result<Vec<ShortPort>, String> {
    let wrong =
        || format!("`{text}` is no port; expected HOST:CONTAINER, ADDRESS:HOST:CONTAINER or CONTAINER");
    let (body, protocol) = match text.split_once('/') {
        Some((body, protocol)) => (body, protocol.to_ascii_lowercase()),
        None => (text, "tcp".to_owned()),
    };
    // From behind, because an IPv6 address has colons itself.
    let mut parts = body.rsplitn(3, ':');
    let target = parts.next().ok_or_else(wrong)?;
    let published = parts.next().filter(|part| !part.is_empty());
    let address = parts
        .next()
        .map(|part| part.trim_start_matches('[').trim_end_matches(']').to_owned())
        .filter(|part| !part.is_empty());
    let (first, last) = range(target).ok_or_else(wrong)?;
    let count = u32::from(last - first) + 1;
    if count > MOST_PORTS {
        return Err(format!(
            "`{text}` has {count} ports; at most {MOST_PORTS} are taken"
        ));
    }
    let hosts = match published {
        None => None,
        Some(published) => Some(range(published).ok_or_else(wrong)?),
    };
    let mut ports = Vec::new();
    for offset in 0..=(last - first) {
        let published = match hosts {
            None => None,
            // One for each, or any of them for the only one.
            Some((low, high)) if u32::from(high - low) + 1 == count => {
                Some(low.checked_add(offset).ok_or_else(wrong)?.to_string())
            }
            Some((low, high)) if count == 1 => Some(format!("{low}-{high}")),
            Some(_) => return Err(format!("`{text}`: the ranges have different lengths")),
        };
        ports.push(ShortPort {
            address: address.clone(),
            published,
            target: first.checked_add(offset).ok_or_else(wrong)?,
            protocol: protocol.clone(),
        });
    }
    Ok(ports)
}

fn range(text: &str) -> Option<(u16, u16)> {
    let port = |text: &str| text.trim().parse::<u16>().ok();
    match text.split_once('-') {
        Some((low, high)) => {
            let (low, high) = (port(low)?, port(high)?);
            (low <= high).then_some((low, high))
        }
        None => port(text).map(|port| (port, port)),
    }
}

/// `[source:]target[:options]`.
pub(crate) fn volumes(node: Node, here: &Here<'_>) -> Read {
    let at = node.at.clone();
    let mut mounts = Vec::new();
    for item in items(node, here)? {
        let at = item.at.clone();
        match item.value {
            Value::Map(mut map) => {
                let is_bind = map.get("type").and_then(Node::as_str) == Some("bind");
                if is_bind && let Some(source) = map.get_mut("source") {
                    absolute(source, here)?;
                }
                mounts.push(Node::map(map, &at));
            }
            Value::Scalar(scalar) => mounts.push(short_mount(&scalar.text, &at, here)?),
            _ => return Err(here.wrong(&at, "expected SOURCE:TARGET or a map with a target")),
        }
    }
    Ok(Node::seq(mounts, &at))
}

fn short_mount(text: &str, at: &crate::notice::Origin, here: &Here<'_>) -> Read {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [target] => (None, *target, ""),
        [source, target] => (Some(*source), *target, ""),
        [source, target, options] => (Some(*source), *target, *options),
        _ => {
            return Err(here.wrong(at, format!("`{text}` is no mount; expected SOURCE:TARGET[:ro]")));
        }
    };
    if !target.starts_with('/') || source == Some("") {
        return Err(here.wrong(
            at,
            format!("`{text}`: what is mounted at has to be an absolute path in the container"),
        ));
    }
    let mut map = Map::new();
    let mut bind = Map::new();
    let mut volume = Map::new();
    let mut put = |key: &str, value: Node| map.insert(key.to_owned(), value);
    match source {
        Some(source) if path::is_path(source) => {
            put("type", Node::text("bind", at));
            put("source", Node::text(here.path(source), at));
            bind.insert("create_host_path".to_owned(), Node::plain("true", at));
        }
        Some(source) => {
            put("type", Node::text("volume", at));
            put("source", Node::text(source, at));
        }
        None => {
            put("type", Node::text("volume", at));
        }
    }
    put("target", Node::text(target, at));
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let text = |text: &str| Node::text(text, at);
        match option {
            "ro" => {
                put("read_only", Node::plain("true", at));
            }
            // How the file system of another operating system is cached; and what is so anyway.
            "rw" | "cached" | "delegated" | "consistent" => {}
            "z" | "Z" => {
                bind.insert("selinux".to_owned(), text(option));
            }
            "nocopy" => {
                volume.insert("nocopy".to_owned(), Node::plain("true", at));
            }
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => {
                bind.insert("propagation".to_owned(), text(option));
            }
            _ => {
                return Err(here.wrong(
                    at,
                    format!(
                        "`{option}` is no option of a mount; known are ro, rw, z, Z, nocopy and propagations"
                    ),
                ));
            }
        }
    }
    if !bind.is_empty() {
        put("bind", Node::map(bind, at));
    }
    if !volume.is_empty() {
        put("volume", Node::map(volume, at));
    }
    Ok(Node::map(map, at))
}

#[cfg(test)]
mod tests {
    use camino::Utf8Path;
    use proptest::prelude::*;

    use super::*;
    use crate::yaml::emit::emit;
    use crate::yaml::parse;

    fn long(read: fn(Node, &Here<'_>) -> Read, text: &str) -> Result<String, String> {
        let node = parse(text, &"f".into()).unwrap().remove(0);
        let here = Here {
            key: "k".into(),
            base: Utf8Path::new("/p"),
            home: Some("/root"),
        };
        read(node, &here)
            .map(|node| emit(&node))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn ports_in_every_form() {
        let told = |text: &str| {
            short_ports(text).map(|ports| {
                ports
                    .into_iter()
                    .map(|port| {
                        format!(
                            "{}|{}|{}|{}",
                            port.address.unwrap_or_default(),
                            port.published.unwrap_or_default(),
                            port.target,
                            port.protocol
                        )
                    })
                    .collect::<Vec<_>>()
                    .join(" ")
            })
        };
        assert_eq!(told("80").unwrap(), "||80|tcp");
        assert_eq!(told("8080:80/UDP").unwrap(), "|8080|80|udp");
        assert_eq!(told("127.0.0.1:8080:80").unwrap(), "127.0.0.1|8080|80|tcp");
        assert_eq!(told("127.0.0.1::80").unwrap(), "127.0.0.1||80|tcp");
        assert_eq!(told("[::1]:8080:80").unwrap(), "::1|8080|80|tcp");
        assert_eq!(told("9000-9001:80-81").unwrap(), "|9000|80|tcp |9001|81|tcp");
        assert_eq!(told("9000-9005:80").unwrap(), "|9000-9005|80|tcp");
        for text in [
            "",
            "x",
            "1:2:3:x",
            "90000:1",
            "1-3:1-2",
            "3-1:3-1",
            "1-5000:1-5000",
        ] {
            assert!(told(text).is_err(), "{text}");
        }
    }

    #[test]
    fn mounts_in_every_form() {
        assert_eq!(
            long(volumes, "[./a:/b:ro, data:/d:nocopy, /anon, ~/x:/y:z]").unwrap(),
            "- type: bind\n  source: /p/a\n  target: /b\n  read_only: true\n  bind:\n    create_host_path: true\n\
             - type: volume\n  source: data\n  target: /d\n  volume:\n    nocopy: true\n\
             - type: volume\n  target: /anon\n\
             - type: bind\n  source: /root/x\n  target: /y\n  bind:\n    create_host_path: true\n    selinux: z\n"
        );
        for text in ["[a:b]", "['a:/b:what']", "['a:/b:ro:x']", "[':/b']"] {
            assert!(long(volumes, text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_other_short_forms() {
        assert_eq!(
            long(depends_on, "[db]").unwrap(),
            "db:\n  condition: service_started\n"
        );
        assert_eq!(
            long(env_file, "a.env").unwrap(),
            "- path: /p/a.env\n  required: true\n"
        );
        assert_eq!(
            long(extra_hosts, "['h:1.2.3.4', 'v6=[::1]']").unwrap(),
            "- h=1.2.3.4\n- v6=::1\n"
        );
        assert_eq!(
            long(extra_hosts, "{h: host-gateway}").unwrap(),
            "- h=host-gateway\n"
        );
        assert_eq!(
            long(ulimits, "{nproc: 5}").unwrap(),
            "nproc:\n  soft: 5\n  hard: 5\n"
        );
        assert_eq!(long(grants, "[s]").unwrap(), "- source: s\n");
        assert_eq!(long(build, ".").unwrap(), "context: /p\n");
        assert_eq!(
            long(build, "https://example.org/x.git").unwrap(),
            "context: https://example.org/x.git\n"
        );
    }

    proptest! {
        #[test]
        fn no_port_brings_it_down(text in "[0-9:./a-z\\[\\]-]{0,24}") {
            let _ = short_ports(&text);
        }
    }
}
