//! Where a request comes from, which credential it carries, and whether its page may send it.

use std::net::{IpAddr, SocketAddr};

use http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, Method};
use nimbus_errors::Code;
use nimbus_proto::auth::Secret;
use sha2::{Digest, Sha256};

use crate::config::GatewayConfig;
use crate::envelope::{Answer, ApiError};

/// Name of the session cookie.
pub(crate) const COOKIE_NAME: &str = "nimbus_sid";
/// What personal access tokens begin with.
const TOKEN_PREFIX: &str = "nbp_";
/// What the tokens inside machines begin with.
const MACHINE_PREFIX: &str = "nbv_";
/// What API keys begin with.
const KEY_PREFIX: &str = "nimbus_ak_";
/// What the admin token begins with.
const ADMIN_PREFIX: &str = "nimbus_at_";
/// Header of the admin token, beside `Authorization`.
const ADMIN_HEADER: &str = "x-nimbus-admin-token";
/// Header of an API key, beside `Authorization`.
const KEY_HEADER: &str = "x-nimbus-api-key";
/// Longest credential that is looked at.
const LONGEST: usize = 256;

/// The other side of a connection, as the server's socket knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    /// Its address.
    pub(crate) address: SocketAddr,
    /// Whether we speak TLS with it.
    pub(crate) tls: bool,
}

/// Who sends a request and how, proxies that we trust looked through.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    /// The client's address.
    pub(crate) client: IpAddr,
    /// Whether the client's side is encrypted.
    pub(crate) https: bool,
}

impl Origin {
    /// The last address of `X-Forwarded-For` that is not one of our proxies; the socket's own when
    /// it is not a proxy.
    pub(crate) fn of(peer: Peer, headers: &HeaderMap, config: &GatewayConfig) -> Self {
        let direct = Self {
            client: peer.address.ip().to_canonical(),
            https: peer.tls,
        };
        if !config.trusts(direct.client) {
            return direct;
        }
        let hops = headers
            .get_all("x-forwarded-for")
            .into_iter()
            .filter_map(|v| v.to_str().ok());
        let mut hops: Vec<&str> = hops.flat_map(|line| line.split(',')).map(str::trim).collect();
        let mut client = direct.client;
        while let Some(hop) = hops.pop() {
            // Something that is no address was not written by a proxy of ours.
            let Some(address) = forwarded(hop) else { break };
            client = address;
            if !config.trusts(address) {
                break;
            }
        }
        let proto = headers.get("x-forwarded-proto").and_then(|v| v.to_str().ok());
        Self {
            client,
            https: proto.map_or(peer.tls, |p| p.trim().eq_ignore_ascii_case("https")),
        }
    }
}

fn forwarded(hop: &str) -> Option<IpAddr> {
    let bare = hop.trim_start_matches('[').trim_end_matches(']');
    bare.parse()
        .ok()
        .or_else(|| hop.parse::<SocketAddr>().ok().map(|a| a.ip()))
        .map(|a: IpAddr| a.to_canonical())
}

/// What kind of credential it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// The portal's cookie.
    Session,
    /// A personal access token.
    Token,
    /// The token inside a machine.
    Machine,
    /// An API key.
    Key,
    /// The installation's admin token.
    Admin,
}

impl Kind {
    /// Of a secret that was shown as a bearer token, by what it begins with.
    fn of_bearer(secret: &str) -> Option<Self> {
        let kinds = [
            (TOKEN_PREFIX, Self::Token),
            (MACHINE_PREFIX, Self::Machine),
            (KEY_PREFIX, Self::Key),
            (ADMIN_PREFIX, Self::Admin),
        ];
        kinds
            .into_iter()
            .find_map(|(prefix, kind)| secret.starts_with(prefix).then_some(kind))
    }
}

/// A credential as a request carries it. Debug does not show it.
#[derive(Clone, Debug)]
pub(crate) struct Credential {
    pub(crate) kind: Kind,
    pub(crate) secret: Secret,
    /// SHA-256 of the secret: what the cache is keyed by, so that it does not hold secrets.
    pub(crate) digest: [u8; 32],
}

/// What a request says about its sender.
#[derive(Clone, Debug)]
pub(crate) enum Presented {
    /// Nothing.
    Nothing,
    /// Something that cannot be a credential.
    Malformed,
    /// A credential, not yet checked.
    Credential(Credential),
}

impl Presented {
    /// What the headers show, of which two must not differ; or else the session cookie, which a browser
    /// adds by itself.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut shown: Option<(Kind, &str)> = None;
        for (name, only) in [
            (ADMIN_HEADER, Some(Kind::Admin)),
            (KEY_HEADER, Some(Kind::Key)),
            (AUTHORIZATION.as_str(), None),
        ] {
            for value in headers.get_all(name) {
                let text = value.to_str().ok().map(str::trim);
                let secret = if only.is_some() {
                    text
                } else {
                    text.and_then(bearer)
                };
                let Some(found) = secret.and_then(|secret| Some((Kind::of_bearer(secret)?, secret))) else {
                    return Self::Malformed;
                };
                if only.is_some_and(|kind| kind != found.0) || shown.is_some_and(|known| known != found) {
                    return Self::Malformed;
                }
                shown = Some(found);
            }
        }
        match (shown, session_cookie(headers)) {
            (Some((kind, secret)), _) => Self::checked(kind, secret),
            (None, Some(secret)) => Self::checked(Kind::Session, secret),
            (None, None) => Self::Nothing,
        }
    }

    fn checked(kind: Kind, secret: &str) -> Self {
        if secret.is_empty() || secret.len() > LONGEST || !secret.bytes().all(|b| b.is_ascii_graphic()) {
            return Self::Malformed;
        }
        let digest = Sha256::digest(secret.as_bytes()).into();
        Self::Credential(Credential {
            kind,
            secret: Secret::new(secret),
            digest,
        })
    }

    /// Whether a browser added the credential by itself.
    pub(crate) fn is_ambient(&self) -> bool {
        match self {
            Self::Nothing | Self::Malformed => true,
            Self::Credential(credential) => credential.kind == Kind::Session,
        }
    }
}

fn bearer(text: &str) -> Option<&str> {
    let (scheme, token) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn session_cookie(headers: &HeaderMap) -> Option<&str> {
    let lines = headers
        .get_all(COOKIE)
        .into_iter()
        .filter_map(|v| v.to_str().ok());
    lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == COOKIE_NAME && !value.is_empty()).then_some(value))
}

/// The cookie that opens a session; without a secret, the one that ends it.
pub(crate) fn set_cookie(secret: Option<&Secret>, seconds: u64, https: bool) -> String {
    let secure = if https { "; Secure" } else { "" };
    let value = secret.map_or("", Secret::reveal);
    format!("{COOKIE_NAME}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}")
}

/// Refuses requests that change something and come from a page of another origin.
///
/// Browsers say where a request comes from in `Sec-Fetch-Site` (Fetch Metadata) or `Origin`
/// (RFC 6454); a page cannot change either. Programs that send neither have no ambient credential to
/// abuse, and requests with a bearer token are not sent by a page by accident.
pub(crate) fn check_origin(parts: &Parts, presented: &Presented) -> Answer<()> {
    if matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS) || !presented.is_ambient() {
        return Ok(());
    }
    if same_origin(&parts.headers) {
        Ok(())
    } else {
        Err(ApiError::new(
            Code::AuthForbidden,
            "the request comes from a page of another origin",
        ))
    }
}

/// The credential that a GPU box shows, and its digest. Who it is, only the scheduler knows.
pub(crate) fn box_token(headers: &HeaderMap) -> Option<(&str, [u8; 32])> {
    let text = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    let token = token.trim();
    let fits = scheme.eq_ignore_ascii_case("bearer") && (1..=LONGEST).contains(&token.len());
    fits.then(|| (token, Sha256::digest(token).into()))
}

/// Refuses the token inside a machine everywhere but where machines have something to do.
pub(crate) fn for_machines(path: &str) -> Answer<()> {
    if path.starts_with("/api/gpu/") {
        return Ok(());
    }
    Err(ApiError::new(
        Code::AuthPermissionDenied,
        "the token of a machine is for GPUs only",
    ))
}

/// Whether a request comes from a page of this server, or from no page at all.
pub(crate) fn same_origin(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    match (text("sec-fetch-site"), headers.get(ORIGIN)) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, None) => true,
        (None, Some(origin)) => origin
            .to_str()
            .ok()
            .is_some_and(|origin| is_host(origin, text(HOST.as_str()))),
    }
}

fn is_host(origin: &str, host: Option<&str>) -> bool {
    let authority = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"));
    matches!((authority, host), (Some(a), Some(h)) if a.eq_ignore_ascii_case(h))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            let name: http::HeaderName = name.parse().unwrap();
            map.append(name, value.parse().unwrap());
        }
        map
    }

    fn origin_of(peer: &str, pairs: &[(&'static str, &'static str)]) -> Origin {
        let config = GatewayConfig {
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
            ..GatewayConfig::default()
        };
        Origin::of(
            Peer {
                address: format!("{peer}:1").parse().unwrap(),
                tls: false,
            },
            &headers(pairs),
            &config,
        )
    }

    #[test]
    fn only_our_own_proxies_are_believed() {
        let forged = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-proto", "https")];
        let direct = origin_of("203.0.113.9", &forged);
        assert_eq!(
            (direct.client.to_string().as_str(), direct.https),
            ("203.0.113.9", false)
        );
        let proxied = origin_of(
            "10.0.0.1",
            &[
                ("x-forwarded-for", "6.6.6.6, 203.0.113.9, 10.0.0.7"),
                ("x-forwarded-proto", "https"),
            ],
        );
        assert_eq!(
            (proxied.client.to_string().as_str(), proxied.https),
            ("203.0.113.9", true),
            "the client's own claim is left of the last stranger"
        );
        assert_eq!(
            origin_of("10.0.0.1", &[("x-forwarded-for", "nonsense")])
                .client
                .to_string(),
            "10.0.0.1"
        );
    }

    #[test]
    fn a_bearer_token_goes_before_the_cookie_and_other_schemes_are_no_credential() {
        let both = headers(&[
            ("authorization", "Bearer nbp_1"),
            ("cookie", "a=b; nimbus_sid=s1"),
        ]);
        assert!(matches!(
            Presented::of(&both),
            Presented::Credential(Credential {
                kind: Kind::Token,
                ..
            })
        ));
        let cookie = headers(&[("cookie", "a=b; nimbus_sid=s1")]);
        assert!(matches!(
            Presented::of(&cookie),
            Presented::Credential(Credential {
                kind: Kind::Session,
                ..
            })
        ));
        for bad in ["Basic YTpi", "Bearer abc", "Bearer", "nbp_1"] {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, bad.parse().unwrap())]);
            assert!(matches!(Presented::of(&headers), Presented::Malformed), "{bad}");
        }
        assert!(matches!(
            Presented::of(&headers(&[("cookie", "x=y")])),
            Presented::Nothing
        ));
    }

    #[test]
    fn each_credential_has_its_header_and_two_must_not_differ() {
        let kind = |pairs: &[(&'static str, &'static str)]| match Presented::of(&headers(pairs)) {
            Presented::Credential(credential) => {
                Some((credential.kind, credential.secret.reveal().to_owned()))
            }
            Presented::Malformed => None,
            Presented::Nothing => panic!("{pairs:?} shows something"),
        };
        let (admin, key) = (
            ("x-nimbus-admin-token", "nimbus_at_1"),
            ("x-nimbus-api-key", "nimbus_ak_1"),
        );
        let bearer = |token| ("authorization", token);
        for (pairs, expected) in [
            (&[admin][..], Some((Kind::Admin, "nimbus_at_1"))),
            (&[key], Some((Kind::Key, "nimbus_ak_1"))),
            (
                &[bearer("Bearer nimbus_at_2")],
                Some((Kind::Admin, "nimbus_at_2")),
            ),
            (&[bearer("bearer nimbus_ak_2")], Some((Kind::Key, "nimbus_ak_2"))),
            (
                &[key, bearer("Bearer nimbus_ak_1")],
                Some((Kind::Key, "nimbus_ak_1")),
            ),
            (
                &[admin, ("cookie", "nimbus_sid=s1")],
                Some((Kind::Admin, "nimbus_at_1")),
            ),
            // Two that differ, or one in another's place.
            (&[admin, key], None),
            (&[key, bearer("Bearer nimbus_ak_2")], None),
            (&[key, bearer("Bearer nbp_1")], None),
            (&[key, ("x-nimbus-api-key", "nimbus_ak_2")], None),
            (&[("x-nimbus-admin-token", "nimbus_ak_1")], None),
            (&[("x-nimbus-api-key", "nbp_1")], None),
            (&[("x-nimbus-api-key", "")], None),
        ] {
            let expected = expected.map(|(kind, text)| (kind, text.to_owned()));
            assert_eq!(kind(pairs), expected, "{pairs:?}");
        }
    }

    fn allowed(method: Method, pairs: &[(&'static str, &'static str)]) -> bool {
        let mut request = Request::builder()
            .method(method)
            .uri("/api/vms")
            .body(())
            .unwrap();
        *request.headers_mut() = headers(pairs);
        let presented = Presented::of(request.headers());
        check_origin(&request.into_parts().0, &presented).is_ok()
    }

    #[test]
    fn pages_of_other_origins_change_nothing() {
        let cookie = ("cookie", "nimbus_sid=s1");
        let host = ("host", "nimbus.lan:8080");
        assert!(allowed(
            Method::POST,
            &[cookie, host, ("sec-fetch-site", "same-origin")]
        ));
        assert!(allowed(
            Method::POST,
            &[cookie, host, ("origin", "http://nimbus.lan:8080")]
        ));
        assert!(allowed(Method::POST, &[cookie, host]), "no browser");
        assert!(allowed(
            Method::GET,
            &[cookie, host, ("sec-fetch-site", "cross-site")]
        ));
        assert!(allowed(
            Method::POST,
            &[
                ("authorization", "Bearer nbp_1"),
                host,
                ("origin", "http://evil.example")
            ]
        ));
        assert!(allowed(
            Method::POST,
            &[
                ("x-nimbus-api-key", "nimbus_ak_1"),
                cookie,
                host,
                ("origin", "http://evil.example")
            ]
        ));
        for foreign in [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("origin", "null"),
            ("origin", "http://evil.example"),
            ("origin", "http://nimbus.lan:8081"),
        ] {
            assert!(!allowed(Method::POST, &[cookie, host, foreign]), "{foreign:?}");
            assert!(
                !allowed(Method::POST, &[host, foreign]),
                "signing in from another page: {foreign:?}"
            );
        }
    }
}
