//! Names and labels.

use nimbus_bus::Identity;
use nimbus_model::TenantId;
use nimbus_proto::workloads::Labels;

use crate::error::WorkError;

const LABELS: usize = 32;
const LABEL_VALUE: usize = 256;

/// A tenant's id, as anybody may write it.
pub(crate) fn tenant_id(field: &str, id: &str) -> Result<(), WorkError> {
    let fits = (1..=128).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if fits {
        Ok(())
    } else {
        Err(WorkError::invalid(
            field,
            "a tenant id has 1 to 128 letters, digits, _ or -",
        ))
    }
}

/// The id of a tenant that `identity` wants to make.
pub(crate) fn new_tenant_id(id: &str, identity: &Identity) -> Result<(), WorkError> {
    tenant_id("id", id)?;
    if id.starts_with('_') {
        return Err(WorkError::invalid("id", "ids that begin with _ are the system's"));
    }
    if id.parse::<TenantId>().is_ok() && id != identity.personal_tenant() {
        return Err(WorkError::invalid(
            "id",
            "ids of this form are personal tenants of users",
        ));
    }
    Ok(())
}

/// `^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`
fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn name(field: &str, text: &str, what: &str) -> Result<(), WorkError> {
    if is_name(text) {
        Ok(())
    } else {
        Err(WorkError::invalid(
            field,
            format!(
                "a {what}'s name has 1 to 63 letters, digits, '.', '_' or '-' and begins with a letter or digit"
            ),
        ))
    }
}

/// A service's name.
pub(crate) fn service_name(field: &str, text: &str) -> Result<(), WorkError> {
    name(field, text, "service")
}

/// A secret's name.
pub(crate) fn secret_name(field: &str, text: &str) -> Result<(), WorkError> {
    name(field, text, "secret")
}

/// A volume's name.
pub(crate) fn volume_name(field: &str, text: &str) -> Result<(), WorkError> {
    name(field, text, "volume")
}

/// Labels of anything.
pub(crate) fn labels(field: &str, labels: &Labels) -> Result<(), WorkError> {
    if labels.len() > LABELS {
        return Err(WorkError::invalid(
            field,
            format!("there may be at most {LABELS} labels"),
        ));
    }
    for (key, value) in labels {
        if !is_label(key) {
            return Err(WorkError::invalid(
                format!("{field}.{key}"),
                "a label has 1 to 63 letters, digits, '.', '_', '/' or '-', with a letter or digit at both ends",
            ));
        }
        if value.chars().count() > LABEL_VALUE || value.chars().any(char::is_control) {
            return Err(WorkError::invalid(
                format!("{field}.{key}"),
                format!("a label's value has at most {LABEL_VALUE} characters and no control characters"),
            ));
        }
    }
    Ok(())
}

fn is_label(key: &str) -> bool {
    let ends = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    (1..=63).contains(&key.len())
        && ends(key.bytes().next())
        && ends(key.bytes().last())
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._/-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_at_their_edges() {
        for good in ["a", "A.b_c-9", &"x".repeat(63)] {
            assert!(service_name("n", good).is_ok(), "{good}");
        }
        for bad in ["", ".a", "-a", "a/b", "a b", " a", "ä", &"x".repeat(64)] {
            assert!(service_name("n", bad).is_err(), "{bad}");
        }
        for good in ["a", "_a", "A-b_9", &"x".repeat(128)] {
            assert!(tenant_id("t", good).is_ok(), "{good}");
        }
        for bad in ["", "a.b", "a/b", "ä", &"x".repeat(129)] {
            assert!(tenant_id("t", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn system_ids_and_other_peoples_tenants_cannot_be_made() {
        let me = Identity::operator();
        assert!(new_tenant_id("demo", &me).is_ok());
        assert!(new_tenant_id("_system", &me).is_err());
        assert!(new_tenant_id(&TenantId::fresh().to_string(), &me).is_err());
        assert!(new_tenant_id(&me.personal_tenant(), &me).is_ok());
    }

    #[test]
    fn labels_at_their_edges() {
        let one = |key: &str, value: &str| Labels::from([(key.to_owned(), value.to_owned())]);
        for key in ["a", "a/b", "app.kubernetes.io/name", "a-b_c"] {
            assert!(labels("labels", &one(key, "")).is_ok(), "{key}");
        }
        for key in ["", "/a", "a/", "-a", "a b", &"x".repeat(64)] {
            assert!(labels("labels", &one(key, "")).is_err(), "{key}");
        }
        assert!(labels("labels", &one("a", &"v".repeat(256))).is_ok());
        assert!(labels("labels", &one("a", &"v".repeat(257))).is_err());
        assert!(labels("labels", &one("a", "x\ny")).is_err());
        let many = |n: usize| {
            (0..n)
                .map(|i| (format!("k{i}"), String::new()))
                .collect::<Labels>()
        };
        assert!(labels("labels", &many(32)).is_ok() && labels("labels", &many(33)).is_err());
    }
}
