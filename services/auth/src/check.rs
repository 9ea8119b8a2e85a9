//! What names, mail addresses and passwords may look like.

use nimbus_bus::{Action, Grant};

use crate::error::AuthError;

/// Longest password; the hash reads all of it, so a limit only keeps its cost bounded.
pub(crate) const PASSWORD_MOST: usize = 256;
const PASSWORD_LEAST: usize = 8;
/// RFC 5321, 4.5.3.1, less the angle brackets of a path.
const EMAIL_MOST: usize = 254;
const NAME_MOST: usize = 100;
const TOKEN_NAME_MOST: usize = 64;
const GRANTS_MOST: usize = 16;
/// In JSON, as an access token carries them.
const GRANTS_LONGEST: usize = 8 * 1024;
const NAMES_MOST: usize = 64;
const SERVICE_NAME_MOST: usize = 63;
const CHANNELS: [&str; 4] = ["stdio", "files", "cdp", "page"];

const fn invalid(field: &'static str, reason: &'static str) -> AuthError {
    AuthError::Invalid { field, reason }
}

fn line(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// A mail address, trimmed and in lower case. Only its shape is checked: mail is not sent.
pub(crate) fn email(text: &str) -> Result<String, AuthError> {
    let email = normal_email(text);
    if email.is_empty() {
        return Err(invalid("email", "an email address is needed"));
    }
    let wrong = invalid("email", "this is not an email address");
    if email.len() > EMAIL_MOST || email.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(wrong);
    }
    match email.rsplit_once('@') {
        Some((local, domain))
            if !local.is_empty()
                && !local.contains('@')
                && !domain.is_empty()
                && !domain.starts_with('.')
                && !domain.ends_with('.') =>
        {
            Ok(email)
        }
        _ => Err(wrong),
    }
}

/// The form in which mail addresses are compared.
pub(crate) fn normal_email(text: &str) -> String {
    text.trim().to_lowercase()
}

/// A person's name, trimmed.
pub(crate) fn name(text: &str) -> Result<String, AuthError> {
    let name = text.trim();
    if name.is_empty() {
        return Err(invalid("name", "a name is needed"));
    }
    if name.chars().count() > NAME_MOST || !line(name) {
        return Err(invalid(
            "name",
            "a name has at most 100 characters and no line breaks",
        ));
    }
    Ok(name.to_owned())
}

/// A token's or key's name, trimmed.
pub(crate) fn token_name(text: &str) -> Result<String, AuthError> {
    let name = text.trim();
    if name.is_empty() || name.chars().count() > TOKEN_NAME_MOST || !line(name) {
        return Err(invalid(
            "name",
            "a name has 1 to 64 characters and no line breaks",
        ));
    }
    Ok(name.to_owned())
}

/// The grants of an API key for `tenant`: few enough to travel in every access token made from it.
pub(crate) fn grants(tenant: &str, grants: &[Grant]) -> Result<(), AuthError> {
    if grants.is_empty() {
        return Err(invalid("grants", "a key without grants allows nothing"));
    }
    if grants.len() > GRANTS_MOST {
        return Err(invalid("grants", "a key has at most 16 grants"));
    }
    let mut names = 0_usize;
    for grant in grants {
        if grant.tenant != tenant {
            return Err(invalid(
                "grants",
                "a key's grants are for the tenant it is made in",
            ));
        }
        if grant.actions.is_empty() || grant.actions.len() > Action::ALL.len() {
            return Err(invalid("grants.actions", "a grant names its actions, each once"));
        }
        for service in grant.services.iter().flatten() {
            names += 1;
            if service.is_empty() || service.len() > SERVICE_NAME_MOST || !line(service) {
                return Err(invalid("grants.services", "this is not the name of a service"));
            }
        }
        for channel in grant.channels.iter().flatten() {
            if !CHANNELS.contains(&channel.as_str()) {
                return Err(invalid(
                    "grants.channels",
                    "a channel is stdio, files, cdp or page",
                ));
            }
        }
        if grant
            .channels
            .as_ref()
            .is_some_and(|channels| channels.len() > CHANNELS.len())
        {
            return Err(invalid(
                "grants.channels",
                "a grant names its channels, each once",
            ));
        }
    }
    let length = serde_json::to_string(grants).map_or(usize::MAX, |text| text.len());
    if length > GRANTS_LONGEST {
        return Err(invalid(
            "grants",
            "the grants of a key are too long; use `*` for every action",
        ));
    }
    if names > NAMES_MOST {
        return Err(invalid("grants.services", "a key names at most 64 services"));
    }
    Ok(())
}

/// A new password. Nothing is trimmed and no kind of character is asked for (NIST SP 800-63B, 5.1.1.2).
pub(crate) fn password(text: &str, field: &'static str) -> Result<(), AuthError> {
    let length = text.chars().count();
    if length < PASSWORD_LEAST {
        return Err(invalid(field, "a password has at least 8 characters"));
    }
    if length > PASSWORD_MOST {
        return Err(invalid(field, "a password has at most 256 characters"));
    }
    Ok(())
}

/// What a client says of itself, cut to what a list shows.
pub(crate) fn shown(text: &str, most: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_addresses() {
        assert_eq!(email("  Ada@Example.ORG ").unwrap(), "ada@example.org");
        for good in ["a@b", "demo@nimbus.local", "a+b@c.d"] {
            assert!(email(good).is_ok(), "{good}");
        }
        let long = format!("{}@example.org", "a".repeat(250));
        for bad in [
            "",
            "  ",
            "ada",
            "@example.org",
            "ada@",
            "a@b@c",
            "a b@c",
            "a@.b",
            "a@b.",
            "a\n@b",
            long.as_str(),
        ] {
            assert!(email(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn passwords_are_counted_in_characters() {
        assert!(password("1234567", "password").is_err());
        assert!(password("12345678", "password").is_ok());
        assert!(password("ÄÖÜßäöüé", "password").is_ok());
        assert!(password(&"x".repeat(256), "password").is_ok());
        assert!(password(&"x".repeat(257), "password").is_err());
    }

    #[test]
    fn grants_are_bounded_and_for_one_tenant() {
        let good = Grant {
            tenant: "demo".into(),
            actions: vec![Action::Any],
            services: Some(vec!["worker".into()]),
            sandboxes: nimbus_bus::Sandboxes::Own,
            channels: Some(vec!["stdio".into()]),
        };
        assert!(grants("demo", std::slice::from_ref(&good)).is_ok());
        let many = |list: usize| Some(vec!["worker".to_owned(); list]);
        for (bad, field) in [
            (vec![], "grants"),
            (vec![good.clone(); 17], "grants"),
            (
                vec![Grant {
                    tenant: "other".into(),
                    ..good.clone()
                }],
                "grants",
            ),
            (
                vec![Grant {
                    actions: vec![],
                    ..good.clone()
                }],
                "grants.actions",
            ),
            (
                vec![Grant {
                    actions: vec![Action::Any; 23],
                    ..good.clone()
                }],
                "grants.actions",
            ),
            (
                vec![Grant {
                    services: Some(vec!["".into()]),
                    ..good.clone()
                }],
                "grants.services",
            ),
            (
                vec![Grant {
                    services: many(65),
                    ..good.clone()
                }],
                "grants.services",
            ),
            (
                vec![
                    Grant {
                        services: many(33),
                        ..good.clone()
                    };
                    2
                ],
                "grants.services",
            ),
            (
                vec![Grant {
                    channels: many(1),
                    ..good.clone()
                }],
                "grants.channels",
            ),
            (
                vec![Grant {
                    channels: Some(vec!["page".into(); 5]),
                    ..good.clone()
                }],
                "grants.channels",
            ),
        ] {
            let Err(AuthError::Invalid { field: named, .. }) = grants("demo", &bad) else {
                panic!("{bad:?} was taken")
            };
            assert_eq!(named, field, "{bad:?}");
        }
    }

    #[test]
    fn names() {
        assert_eq!(name(" Ada ").unwrap(), "Ada");
        assert!(name(" ").is_err() && name("a\nb").is_err() && name(&"a".repeat(101)).is_err());
        assert!(token_name("ci").is_ok() && token_name(&"a".repeat(65)).is_err());
        assert_eq!(shown("cu\u{7}rl/8", 4), "curl");
    }
}
