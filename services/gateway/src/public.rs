//! The address of this server, as others reach it.

use http::HeaderMap;
use http::header::HOST;
use url::{Host, Url};

use crate::access::Origin;
use crate::envelope::{Answer, ApiError};
use crate::state::App;

/// Where this server is reached, without a slash at its end: what was configured, else where this request was sent.
///
/// It ends up in lines for shells, so that nothing of `Host` is let through but a name or address and a port.
pub(crate) fn base(app: &App, origin: Origin, headers: &HeaderMap) -> Answer<Url> {
    if let Some(url) = &app.config.public_url {
        return Ok(url.clone());
    }
    let host = headers.get(HOST).and_then(|value| value.to_str().ok());
    host.and_then(|host| of_host(host, origin.https))
        .ok_or_else(|| ApiError::field("Host", "Host: expected a name or an address, and perhaps a port"))
}

fn of_host(host: &str, https: bool) -> Option<Url> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    if host.is_empty() || !host.chars().all(is_plain) {
        return None;
    }
    let scheme = if https { "https" } else { "http" };
    let url: Url = format!("{scheme}://{host}").parse().ok()?;
    url.host().is_some().then_some(url)
}

/// The address as text, without a slash at its end.
pub(crate) fn text(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

/// Whether only this computer reaches that address.
pub(crate) fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost")
        }
        Some(Host::Ipv4(address)) => address.is_loopback() || address.is_unspecified(),
        Some(Host::Ipv6(address)) => {
            let mapped = address.to_ipv4_mapped();
            address.is_loopback()
                || address.is_unspecified()
                || mapped.is_some_and(|address| address.is_loopback() || address.is_unspecified())
        }
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_and_a_port() {
        let of = |host: &str| of_host(host, false).map(|url| text(&url));
        for (host, url) in [
            ("nimbus.lan:8080", Some("http://nimbus.lan:8080")),
            ("10.0.0.1", Some("http://10.0.0.1")),
            ("[fd00::1]:80", Some("http://[fd00::1]")),
            ("a b", None),
            ("$(reboot)", None),
            ("x\"; reboot #", None),
            ("user@evil", None),
            ("h/path", None),
            ("", None),
            (":80", None),
        ] {
            assert_eq!(of(host).as_deref(), url, "{host}");
        }
        assert_eq!(of_host("h", true).unwrap().scheme(), "https");
    }

    #[test]
    fn addresses_that_end_at_this_computer_are_known() {
        for (url, local) in [
            ("http://localhost:8080", true),
            ("http://LOCALHOST.", true),
            ("http://x.localhost", true),
            ("http://127.0.0.1", true),
            ("http://127.9.9.9", true),
            ("http://0.0.0.0", true),
            ("http://[::1]", true),
            ("http://[::ffff:127.0.0.1]", true),
            ("http://10.0.0.1", false),
            ("http://nimbus.lan", false),
        ] {
            assert_eq!(is_local(&url.parse().unwrap()), local, "{url}");
        }
    }
}
