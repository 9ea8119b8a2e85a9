//! Which images a node may run: those of a repository we know, of one release.

use crate::error::NodeError;

/// Repositories that a node's image may come from; mirrors are added through the environment.
const REPOSITORIES: &[&str] = &["ghcr.io/nimbus/nimbus"];

/// Whether the reference names its bytes, and not only a name that can move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pin {
    Tag,
    Digest,
}

/// Checks an image reference. `mirrors` are further repositories, separated by commas.
pub(crate) fn check(image: &str, mirrors: &str) -> Result<Pin, NodeError> {
    if image.is_empty()
        || image.starts_with('-')
        || image.contains(|sign: char| sign.is_whitespace() || sign.is_control() || "%;\"'\\$".contains(sign))
    {
        return Err(NodeError::Usage {
            reason: format!("{image:?} is no image reference"),
        });
    }
    let refuse = |reason: &str| {
        Err(NodeError::Image {
            image: image.to_owned(),
            reason: reason.to_owned(),
        })
    };
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    // A colon after the last slash begins a tag; one before is that of a port.
    let (repository, tag) = match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (name, None),
    };
    let known = mirrors
        .split(',')
        .map(str::trim)
        .filter(|mirror| !mirror.is_empty())
        .chain(REPOSITORIES.iter().copied())
        .any(|known| known == repository);
    if !known {
        return refuse("is of another repository; NIMBUS_NODE_IMAGE_REPOSITORIES names mirrors");
    }
    if tag == Some("latest") {
        return refuse("moves with every release");
    }
    let hexadecimal =
        |digest: &str| digest.len() == 64 && digest.chars().all(|sign| matches!(sign, '0'..='9' | 'a'..='f'));
    match (tag, digest) {
        (_, Some(digest))
            if digest
                .strip_prefix("sha256:")
                .is_none_or(|digest| !hexadecimal(digest)) =>
        {
            refuse("has no SHA-256 of 64 digits")
        }
        (_, Some(_)) => Ok(Pin::Digest),
        (Some(""), None) | (None, None) => refuse("names no release"),
        (Some(_), None) => Ok(Pin::Tag),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_release_of_a_known_repository_is_run() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let ours = "ghcr.io/nimbus/nimbus";
        assert_eq!(check(&format!("{ours}:1.2.3"), "").unwrap(), Pin::Tag);
        assert_eq!(check(&format!("{ours}:1.2.3@{digest}"), "").unwrap(), Pin::Digest);
        assert_eq!(check(&format!("{ours}@{digest}"), "").unwrap(), Pin::Digest);
        assert_eq!(
            check("mirror:5000/n:1", "a.example/x, mirror:5000/n").unwrap(),
            Pin::Tag
        );
        for refused in [
            ours.to_owned(),
            format!("{ours}:latest"),
            format!("{ours}:latest@{digest}"),
            format!("{ours}:"),
            format!("{ours}@sha256:12"),
            "docker.io/library/busybox:1".to_owned(),
            "mirror:5000/n".to_owned(),
        ] {
            assert!(
                matches!(check(&refused, ""), Err(NodeError::Image { .. })),
                "{refused}"
            );
        }
        for wrong in ["", "-v", "a b", "a\nb", "a%h"] {
            assert!(
                matches!(check(wrong, ""), Err(NodeError::Usage { .. })),
                "{wrong:?}"
            );
        }
    }
}
