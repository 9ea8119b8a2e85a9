//! Encodings of the PVE API, and the small property strings that hold addresses.

use std::fmt::Write as _;
use std::net::IpAddr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Everything but the unreserved characters of RFC 3986. PVE splits forms at `;` as well as `&` and
/// ends a value at a second `=`, so nothing else may pass unencoded.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Encodes public keys for the `sshkeys` option, which PVE wants percent-encoded *inside* the form.
///
/// A blank becomes `%20`: some releases take `+` literally. The form encoding of the request comes
/// on top of this one, and PVE returns the value as it is here.
#[must_use]
pub fn encode_sshkeys(keys: &str) -> String {
    component(keys)
}

/// Encodes one path segment, one name or one value.
pub(crate) fn component(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// Encodes a form or a query, in order.
pub(crate) fn form<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        if !text.is_empty() {
            text.push('&');
        }
        let _ = write!(
            text,
            "{}={}",
            utf8_percent_encode(name, RESERVED),
            utf8_percent_encode(value, RESERVED)
        );
    }
    text
}

/// The static address in an `ipconfigN` option (`ip=10.0.0.5/24,gw=10.0.0.1`), IPv4 before IPv6.
///
/// `None` for `dhcp`, `auto`, nothing and nonsense.
#[must_use]
pub fn parse_ipconfig_ip(value: &str) -> Option<IpAddr> {
    property_address(value, "ip").or_else(|| property_address(value, "ip6"))
}

/// The static address in a container's `netN` option (`name=eth0,bridge=vmbr0,ip=10.0.0.5/24`).
///
/// `None` for `dhcp`, `manual`, `auto`, nothing and nonsense.
#[must_use]
pub fn parse_lxc_net_ip(value: &str) -> Option<IpAddr> {
    parse_ipconfig_ip(value)
}

fn property_address(value: &str, key: &str) -> Option<IpAddr> {
    let found = value
        .split(',')
        .find_map(|part| part.trim().strip_prefix(key)?.strip_prefix('='))?;
    found.split('/').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sshkeys_are_encoded_twice_on_the_wire() {
        let inner = encode_sshkeys("ssh-ed25519 AAAA+b/c= me@x");
        assert_eq!(inner, "ssh-ed25519%20AAAA%2Bb%2Fc%3D%20me%40x");
        assert_eq!(
            form([("sshkeys", inner.as_str())]),
            "sshkeys=ssh-ed25519%2520AAAA%252Bb%252Fc%253D%2520me%2540x"
        );
    }

    #[test]
    fn values_that_split_a_form_are_encoded() {
        assert_eq!(
            form([("tags", "a;b"), ("net0", "virtio,bridge=vmbr0")]),
            "tags=a%3Bb&net0=virtio%2Cbridge%3Dvmbr0"
        );
    }

    #[test]
    fn addresses_of_guests() {
        let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        assert_eq!(
            parse_ipconfig_ip("ip=192.168.0.142/24,gw=192.168.0.1"),
            ip("192.168.0.142")
        );
        assert_eq!(
            parse_ipconfig_ip("gw=192.168.0.1,ip=192.168.0.142/24"),
            ip("192.168.0.142")
        );
        assert_eq!(parse_ipconfig_ip("ip6=fd00::5/64"), ip("fd00::5"));
        assert_eq!(parse_ipconfig_ip("ip=dhcp,ip6=fd00::5/64"), ip("fd00::5"));
        for none in [
            "ip=dhcp",
            "ip=auto",
            "",
            "ip=",
            "ip",
            "ipx=1.2.3.4",
            "ip=999.1.1.1/24",
            "gw=10.0.0.1",
        ] {
            assert_eq!(parse_ipconfig_ip(none), None, "{none}");
        }
        assert_eq!(
            parse_lxc_net_ip(
                "name=eth0,bridge=vmbr0,gw=192.168.0.1,hwaddr=BC:24:11:00:00:01,ip=192.168.0.50/24,type=veth"
            ),
            ip("192.168.0.50")
        );
        for none in [
            "name=eth0,ip=dhcp",
            "name=eth0,ip=manual",
            "name=eth0,ip6=auto",
            "name=eth0",
        ] {
            assert_eq!(parse_lxc_net_ip(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn encoding_is_reversible_and_has_no_separators(text in ".*") {
            let encoded = encode_sshkeys(&text);
            prop_assert!(encoded.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b)));
            let decoded = percent_encoding::percent_decode_str(&encoded).decode_utf8().unwrap();
            prop_assert_eq!(decoded.as_ref(), text.as_str());
            // The outer layer is taken off by PVE, the inner one stays.
            let wire = component(&encoded);
            let once = percent_encoding::percent_decode_str(&wire).decode_utf8().unwrap();
            prop_assert_eq!(once.as_ref(), encoded.as_str());
        }

        #[test]
        fn addresses_never_panic(text in ".*") {
            let _ = parse_ipconfig_ip(&text);
        }
    }
}
