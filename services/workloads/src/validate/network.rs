//! Ports, allow lists and URLs.

use std::net::IpAddr;

use nimbus_proto::workloads::{EgressRule, Port, Protocol};
use url::Url;

use super::Scene;
use crate::error::WorkError;

const PORTS: usize = 32;
const RULES: usize = 64;

pub(super) fn ports(ports: &[Port], scene: Scene<'_>) -> Result<(), WorkError> {
    if ports.len() > PORTS {
        return Err(scene.wrong("ports", format!("there may be at most {PORTS}")));
    }
    let (mut names, mut hosts) = (Vec::new(), Vec::new());
    for (index, port) in ports.iter().enumerate() {
        let at = |field: &str| format!("ports[{index}].{field}");
        if port.guest_port == 0 {
            return Err(scene.wrong(&at("guestPort"), "it must be within 1 and 65535"));
        }
        let name = match &port.name {
            None => format!("tcp-{}", port.guest_port),
            Some(name) if is_word(name) => name.clone(),
            Some(_) => {
                return Err(scene.wrong(
                    &at("name"),
                    "it must have 1 to 63 letters, digits, '.', '_' or '-'",
                ));
            }
        };
        if names.contains(&name) {
            return Err(scene.wrong(&at("name"), format!("{name} is the name of another port")));
        }
        names.push(name);
        if let Some(host) = port.host_port {
            if host == 0 {
                return Err(scene.wrong(&at("hostPort"), "it must be within 1 and 65535"));
            }
            if hosts.contains(&host) {
                return Err(scene.wrong(&at("hostPort"), format!("{host} is asked for twice")));
            }
            hosts.push(host);
        }
    }
    Ok(())
}

fn is_word(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

pub(super) fn egress(rules: &[EgressRule], scene: Scene<'_>) -> Result<(), WorkError> {
    if rules.len() > RULES {
        return Err(scene.wrong("network.egress.allow", format!("there may be at most {RULES}")));
    }
    let mut names = Vec::with_capacity(rules.len());
    for (index, rule) in rules.iter().enumerate() {
        let at = |field: &str| format!("network.egress.allow[{index}].{field}");
        let name = rule.name.as_str();
        if name.is_empty()
            || name == "*"
            || name.chars().count() > 128
            || name.chars().any(|c| c.is_whitespace() || c.is_control())
        {
            return Err(scene.wrong(&at("name"), "it must be one word, and not *"));
        }
        if names.contains(&name) {
            return Err(scene.wrong(&at("name"), format!("{name} is the name of another rule")));
        }
        names.push(name);
        if !is_host(&rule.host) {
            return Err(scene.wrong(
                &at("host"),
                "it must be one DNS name or IP address, without wildcard, scheme, path or user",
            ));
        }
        if rule.port == 0 {
            return Err(scene.wrong(&at("port"), "it must be within 1 and 65535"));
        }
        for (field, empty) in [
            ("methods", rule.methods.is_empty()),
            ("pathPrefixes", rule.path_prefixes.is_empty()),
        ] {
            match rule.protocol {
                _ if empty => {}
                Protocol::Http => {}
                Protocol::Tcp => {
                    return Err(scene.wrong(&at(field), "it is for http; tcp has no requests"));
                }
                Protocol::Https => {
                    return Err(scene.wrong(&at(field), "it is for http; https hides its requests"));
                }
            }
        }
        let method =
            |text: &String| !text.is_empty() && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
        if !rule.methods.iter().all(method) {
            return Err(scene.wrong(&at("methods"), "a method is a word in capitals, such as GET"));
        }
        let prefix = |text: &String| {
            text.starts_with('/') && !text.chars().any(|c| c.is_control() || c.is_whitespace())
        };
        if !rule.path_prefixes.iter().all(prefix) {
            return Err(scene.wrong(&at("pathPrefixes"), "each must begin with / and be one word"));
        }
    }
    Ok(())
}

/// One DNS name or IP literal.
fn is_host(host: &str) -> bool {
    if host.parse::<IpAddr>().is_ok() {
        return true;
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    (1..=253).contains(&host.len())
        && host.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
        // What looks like an address and is none would be resolved by some and not by others.
        && !host.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// Where an external service is, and where its health is asked for.
pub(super) fn external(url: &str, health_path: &str) -> Result<(), WorkError> {
    let field = "spec.backend.endpoint.url";
    if url.chars().any(|c| c.is_control() || c.is_whitespace()) || url.len() > 2048 {
        return Err(WorkError::invalid(field, "it must be one line without spaces"));
    }
    let parsed = Url::parse(url).map_err(|error| WorkError::invalid(field, error.to_string()))?;
    if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none_or(str::is_empty) {
        return Err(WorkError::invalid(
            field,
            "it must be an absolute http or https URL with a host",
        ));
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(WorkError::invalid(
            field,
            "it must not carry a user or a password",
        ));
    }
    if !health_path.starts_with('/')
        || health_path.len() > 2048
        || health_path.chars().any(|c| c.is_control() || c.is_whitespace())
    {
        return Err(WorkError::invalid(
            "spec.backend.health.path",
            "it must begin with / and be one word",
        ));
    }
    Ok(())
}
