//! Checks of single values, and the property strings PVE builds options from.

use std::net::IpAddr;

/// Splits `a=1,b,c=2`; a part without `=` belongs to `default_key`.
pub(crate) fn props<'a>(value: &'a str, default_key: &'a str) -> Vec<(&'a str, &'a str)> {
    value
        .split(',')
        .filter(|part| !part.is_empty())
        .map(|part| part.split_once('=').unwrap_or((default_key, part)))
        .collect()
}

/// One property of such a string.
pub(crate) fn prop<'a>(value: &'a str, key: &str) -> Option<&'a str> {
    value
        .split(',')
        .find_map(|part| part.strip_prefix(key)?.strip_prefix('='))
}

fn label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

pub(crate) fn dns_name(value: &str) -> Result<(), String> {
    if value.split('.').all(label) {
        Ok(())
    } else {
        Err("value does not look like a valid DNS name".to_owned())
    }
}

pub(crate) fn node(value: &str) -> Result<(), String> {
    if label(value) {
        Ok(())
    } else {
        Err("value does not look like a valid node name".to_owned())
    }
}

pub(crate) fn storage(value: &str) -> Result<(), String> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let good = value.len() >= 2
        && value.starts_with(|c: char| c.is_ascii_alphabetic())
        && value.ends_with(|c: char| c.is_ascii_alphanumeric())
        && value.bytes().all(inner);
    if good {
        Ok(())
    } else {
        Err(format!("storage ID '{value}' contains illegal characters"))
    }
}

/// Tags as they are stored: lower case, sorted, each once.
pub(crate) fn normal_tags(value: &str) -> Result<String, String> {
    let mut tags = Vec::new();
    for tag in value.split([';', ',', ' ']).filter(|tag| !tag.is_empty()) {
        let tag = tag.to_ascii_lowercase();
        let first = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let rest = |c: char| first(c) || matches!(c, '+' | '.' | '-');
        if !tag.starts_with(first) || !tag.chars().all(rest) {
            return Err(format!("invalid characters in tag '{tag}'"));
        }
        tags.push(tag);
    }
    tags.sort_unstable();
    tags.dedup();
    Ok(tags.join(";"))
}

pub(crate) fn tags(value: &str) -> Result<(), String> {
    normal_tags(value).map(drop)
}

pub(crate) fn urlencoded(value: &str) -> Result<(), String> {
    let bytes = value.as_bytes();
    let good = bytes.iter().enumerate().all(|(at, byte)| match byte {
        b'%' => bytes
            .get(at + 1..at + 3)
            .is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)),
        other => other.is_ascii_alphanumeric() || b"-_.!~*'()".contains(other),
    });
    if good {
        Ok(())
    } else {
        Err(format!("invalid urlencoded string: {value}"))
    }
}

/// Whether every line is an SSH public key. Only the shape is looked at.
pub(crate) fn ssh_keys(decoded: &str) -> bool {
    decoded
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .all(|line| {
            let mut words = line.split_whitespace();
            let (Some(kind), Some(body)) = (words.next(), words.next()) else {
                return false;
            };
            let known =
                kind.starts_with("ssh-") || kind.starts_with("ecdsa-sha2-") || kind.starts_with("sk-");
            known
                && body.len() >= 4
                && body
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b))
        })
}

fn cidr(value: &str, v4: bool) -> bool {
    value.split_once('/').is_some_and(|(address, prefix)| {
        let most = if v4 { 32 } else { 128 };
        let prefix = prefix.parse::<u8>().is_ok_and(|p| p > 0 && p <= most);
        prefix && address.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4() == v4)
    })
}

pub(crate) fn ipconfig(value: &str) -> Result<(), String> {
    let parts = props(value, "");
    let has = |key: &str| parts.iter().any(|(k, _)| *k == key);
    for (key, text) in &parts {
        let good = match *key {
            "ip" => *text == "dhcp" || cidr(text, true),
            "ip6" => matches!(*text, "dhcp" | "auto") || cidr(text, false),
            "gw" => text.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4()),
            "gw6" => text.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()),
            _ => {
                return Err(format!(
                    "format error\n{key}: property is not defined in schema and the schema does not allow additional properties"
                ));
            }
        };
        if !good {
            return Err(format!(
                "format error\n{key}: invalid format - value does not look like a valid address: {text}"
            ));
        }
    }
    match (has("gw") && !has("ip"), has("gw6") && !has("ip6")) {
        (false, false) => Ok(()),
        (true, _) => Err("format error\ngw: missing property - 'gw' requires this property: 'ip'".to_owned()),
        (_, true) => {
            Err("format error\ngw6: missing property - 'gw6' requires this property: 'ip6'".to_owned())
        }
    }
}

pub(crate) fn address_list(value: &str) -> Result<(), String> {
    let bad = value
        .split([' ', ',', ';'])
        .filter(|a| !a.is_empty())
        .find(|a| a.parse::<IpAddr>().is_err() && dns_name(a).is_err());
    bad.map_or(Ok(()), |address| {
        Err(format!("value does not look like a valid address: {address}"))
    })
}

const MODELS: &[&str] = &["virtio", "e1000", "e1000e", "rtl8139", "vmxnet3"];

pub(crate) fn is_mac(text: &str) -> bool {
    text.len() == 17
        && text
            .split(':')
            .all(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))
}

pub(crate) fn network_device(value: &str) -> Result<(), String> {
    let parts = props(value, "model");
    let bad = |key: &str, text: &str| Err(format!("format error\n{key}: {text}"));
    let mut model = false;
    for (key, text) in parts {
        match key {
            "model" if MODELS.contains(&text) => model = true,
            "model" => {
                return bad(
                    "model",
                    &format!("value '{text}' does not have a value in the enumeration"),
                );
            }
            "bridge" | "firewall" | "tag" | "trunks" | "mtu" | "queues" | "rate" | "link_down" => {}
            "macaddr" if is_mac(text) => {}
            key if MODELS.contains(&key) && is_mac(text) => model = true,
            key => {
                return bad(
                    key,
                    "property is not defined in schema and the schema does not allow additional properties",
                );
            }
        }
    }
    if model {
        Ok(())
    } else {
        bad("model", "property is missing and it is not optional")
    }
}

pub(crate) fn memory(value: &str) -> Result<(), String> {
    let number = value.strip_prefix("current=").unwrap_or(value);
    if number
        .parse::<u64>()
        .is_ok_and(|mib| (16..=crate::guest::MAX_MEMORY).contains(&mib))
    {
        Ok(())
    } else {
        Err("format error\ncurrent: value must be from 16 to 4178944".to_owned())
    }
}

pub(crate) fn agent(value: &str) -> Result<(), String> {
    for (key, text) in props(value, "enabled") {
        let flag = matches!(text, "0" | "1" | "yes" | "no" | "on" | "off" | "true" | "false");
        let good = match key {
            "enabled" | "fstrim_cloned_disks" | "freeze-fs-on-backup" | "guest-fsfreeze" => flag,
            "type" => matches!(text, "virtio" | "isa"),
            _ => false,
        };
        if !good {
            return Err(format!("format error\n{key}: invalid value '{text}'"));
        }
    }
    Ok(())
}

/// Whether the agent's device is on.
pub(crate) fn agent_enabled(value: &str) -> bool {
    props(value, "enabled")
        .iter()
        .any(|(key, text)| *key == "enabled" && matches!(*text, "1" | "yes" | "on" | "true"))
}

pub(crate) fn boot(value: &str) -> Result<(), String> {
    let order = value.strip_prefix("order=");
    let good = match order {
        Some(devices) => devices
            .split([';', ','])
            .all(|device| device.is_empty() || device.bytes().all(|b| b.is_ascii_alphanumeric())),
        None => {
            value
                .strip_prefix("legacy=")
                .unwrap_or(value)
                .bytes()
                .all(|b| b"acdn".contains(&b))
                && value.len() <= 11
        }
    };
    if good {
        Ok(())
    } else {
        Err("format error\nlegacy: value does not match the regex pattern".to_owned())
    }
}

pub(crate) fn drive(value: &str) -> Result<(), String> {
    let file = prop(value, "file").or_else(|| value.split(',').next().filter(|first| !first.contains('=')));
    match file {
        Some("none" | "cdrom") => Ok(()),
        Some(volume)
            if volume.starts_with('/')
                || volume
                    .split_once(':')
                    .is_some_and(|(s, v)| storage(s).is_ok() && !v.is_empty()) =>
        {
            Ok(())
        }
        Some(volume) => Err(format!(
            "format error\nfile: invalid format - unable to parse volume ID '{volume}'"
        )),
        None => Err("format error\nfile: property is missing and it is not optional".to_owned()),
    }
}

pub(crate) fn serial(value: &str) -> Result<(), String> {
    if value == "socket" || value.starts_with("/dev/") {
        Ok(())
    } else {
        Err("value does not match the regex pattern".to_owned())
    }
}

pub(crate) fn url(value: &str) -> Result<(), String> {
    if value.starts_with("http://") || value.starts_with("https://") {
        Ok(())
    } else {
        Err("value does not match the regex pattern".to_owned())
    }
}

pub(crate) fn disk_size(value: &str) -> Result<(), String> {
    parse_size(value.strip_prefix('+').unwrap_or(value))
        .map(drop)
        .ok_or_else(|| "value does not match the regex pattern".to_owned())
}

/// Bytes of `30G`, `3584M`, `1.5T` or a plain number.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let (number, shift) = match text.as_bytes().last()? {
        b'K' => (text.strip_suffix('K')?, 10),
        b'M' => (text.strip_suffix('M')?, 20),
        b'G' => (text.strip_suffix('G')?, 30),
        b'T' => (text.strip_suffix('T')?, 40),
        _ => (text, 0),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty()
        || !digits(whole)
        || !digits(fraction)
        || (number.contains('.') && fraction.is_empty())
    {
        return None;
    }
    let unit = 1u64 << shift;
    let tenths = fraction.get(..1).and_then(|t| t.parse::<u64>().ok()).unwrap_or(0);
    whole
        .parse::<u64>()
        .ok()?
        .checked_mul(unit)?
        .checked_add(unit / 10 * tenths)
}

/// The shortest text of a size, as PVE writes it into a config.
pub(crate) fn format_size(bytes: u64) -> String {
    for (shift, unit) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")] {
        if bytes > 0 && u64::is_multiple_of(bytes, 1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tags_are_sorted_and_lower_cased() {
        assert_eq!(normal_tags("Web;app,_x  app").unwrap(), "_x;app;web");
        assert_eq!(
            normal_tags("nimbus-os-ubuntu-24.04").unwrap(),
            "nimbus-os-ubuntu-24.04"
        );
        assert!(normal_tags("-a").is_err() && normal_tags("a/b").is_err());
    }

    #[test]
    fn sshkeys_must_arrive_encoded() {
        assert!(urlencoded("ssh-ed25519%20AAAA%2Bb%2Fc%3D%20me%40x").is_ok());
        for bad in ["ssh-ed25519 AAAA", "a+b", "%2", "%zz", "a=b"] {
            assert!(urlencoded(bad).is_err(), "{bad}");
        }
        assert!(ssh_keys("ssh-ed25519 AAAA+b/c= me@x\n"));
        assert!(!ssh_keys("hello") && !ssh_keys("-----BEGIN OPENSSH PRIVATE KEY-----"));
    }

    #[test]
    fn property_strings() {
        assert!(ipconfig("ip=10.77.0.50/24,gw=10.77.0.1").is_ok() && ipconfig("ip=dhcp,ip6=auto").is_ok());
        for bad in [
            "ip=10.77.0.50",
            "gw=10.77.0.1",
            "ip=x/24",
            "ip=10.0.0.1/33",
            "foo=1",
        ] {
            assert!(ipconfig(bad).is_err(), "{bad}");
        }
        assert!(network_device("virtio,bridge=vmbr0").is_ok());
        assert!(network_device("virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=1").is_ok());
        assert!(network_device("bridge=vmbr0").is_err() && network_device("virtio,colour=red").is_err());
        assert!(
            drive("local-lvm:cloudinit").is_ok() && drive("none,media=cdrom").is_ok() && drive("32").is_err()
        );
        assert!(
            agent("1").is_ok() && agent("enabled=1,fstrim_cloned_disks=1").is_ok() && agent("maybe").is_err()
        );
        assert!(boot("order=scsi0;ide2").is_ok() && boot("c").is_ok() && boot("scsi0").is_err());
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("30G"), Some(30 << 30));
        assert_eq!(parse_size("3584M"), Some(3584 << 20));
        assert_eq!(format_size(3584 << 20), "3584M");
        assert_eq!(format_size(30 << 30), "30G");
        for bad in ["", "G", "-1G", "1.G", "1X", "99999999999T"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn sizes_round_trip(mib in 1u64..10_000_000) {
            prop_assert_eq!(parse_size(&format_size(mib << 20)), Some(mib << 20));
        }

        #[test]
        fn no_check_panics(text in ".*") {
            let _ = (dns_name(&text), tags(&text), urlencoded(&text), ipconfig(&text), network_device(&text), drive(&text), parse_size(&text));
        }
    }
}
