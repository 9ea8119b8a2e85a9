//! Which addresses are of the public internet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether `address` is globally reachable by the IANA special-purpose registries (RFC 6890), with the
/// address that an IPv6 form carries inside judged in its place.
pub(super) fn is_global(address: IpAddr) -> bool {
    match plain(address) {
        IpAddr::V4(v4) => is_global_v4(v4),
        IpAddr::V6(v6) => is_global_v6(v6),
    }
}

/// Whether `address` is link-local (RFC 3927, RFC 4291), where clouds keep their metadata.
pub(super) fn is_link_local(address: IpAddr) -> bool {
    match plain(address) {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// The IPv4 address inside of an IPv6 form of one: mapped (RFC 4291), NAT64 (RFC 6052), 6to4 (RFC 3056).
pub(super) fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return IpAddr::V4(v4);
    }
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let of = |high: u16, low: u16| {
        let [p, q] = high.to_be_bytes();
        let [r, s] = low.to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(p, q, r, s))
    };
    match (a, b) {
        (0x64, 0xff9b) if [c, d, e, f] == [0; 4] => of(g, h),
        (0x2002, _) => of(b, c),
        _ => address,
    }
}

fn is_global_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(a == 0
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        // shared by carriers, RFC 6598
        || (a == 100 && (64..128).contains(&b))
        // protocol assignments, RFC 6890
        || (a == 192 && b == 0 && c == 0)
        // 6to4 relays, RFC 7526
        || (a == 192 && b == 88 && c == 99)
        // benchmarks, RFC 2544
        || (a == 198 && (b == 18 || b == 19))
        // reserved, and broadcast
        || a >= 240)
}

fn is_global_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    // Global unicast is 2000::/3; everything else is special in some way.
    (0x2000..0x4000).contains(&a)
        // protocol assignments with Teredo, RFC 2928
        && !(a == 0x2001 && b < 0x200)
        // documentation, RFC 3849 and RFC 9637
        && !(a == 0x2001 && b == 0xdb8)
        && !(a == 0x3fff && b < 0x1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_are_not_global() {
        for text in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::1",
            "2001:db8::1",
            "2001::1",
            "3fff::1",
            "fc00::1",
            "fd00::1",
            "fe80::1",
            "ff02::1",
            "fec0::1",
        ] {
            let address = text.parse().expect("an address");
            assert!(!is_global(address), "{text}");
        }
    }

    #[test]
    fn ordinary_addresses_are_global() {
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "100.128.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2a00:1450::1",
            "64:ff9b::808:808",
            "::ffff:8.8.8.8",
        ] {
            let address = text.parse().expect("an address");
            assert!(is_global(address), "{text}");
        }
    }

    #[test]
    fn link_local_is_seen_through_its_disguises() {
        for text in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "fe80::1",
        ] {
            assert!(is_link_local(text.parse().expect("an address")), "{text}");
        }
        assert!(!is_link_local("10.0.0.1".parse().expect("an address")));
    }
}
