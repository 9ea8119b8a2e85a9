//! References to container images: `[registry/]repository[:tag][@sha256:…]`.
//!
//! The grammar is that of the OCI distribution specification ("Pulling manifests") with the two
//! habits every engine shares: a name without a registry means Docker Hub, and one without a
//! namespace there means `library`. An [`ImageRef`] is always in full form, so that two spellings
//! of one image are equal.

use std::borrow::Cow;

/// Longest `registry/repository`, after the distribution specification.
const NAME_LIMIT: usize = 255;
/// Longest tag, after the distribution specification.
const TAG_LIMIT: usize = 128;
/// Where a name without a registry is.
const DEFAULT_REGISTRY: &str = "docker.io";
/// The namespace of Docker Hub's own images.
const DEFAULT_NAMESPACE: &str = "library";
/// The tag meant by a name that has neither tag nor digest.
const DEFAULT_TAG: &str = "latest";

/// A content digest: `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub struct Digest(String);

/// Why a text is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a digest is sha256: and 64 of 0-9a-f, not {0:?}")]
pub struct DigestError(String);

impl Digest {
    /// The text, `sha256:…`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve hexadecimal digits, for logs and names.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(7..19).unwrap_or(&self.0)
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Digest {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let hex = text
            .strip_prefix("sha256:")
            .ok_or_else(|| DigestError(text.to_owned()))?;
        if hex.len() == 64
            && hex
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        {
            Ok(Self(text.to_owned()))
        } else {
            Err(DigestError(text.to_owned()))
        }
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// An image reference in full form.
///
/// Parses what people write and prints the full form, which parses to the same value:
///
/// ```
/// use nimbus_model::ImageRef;
/// let short: ImageRef = "busybox".parse()?;
/// assert_eq!(short.to_string(), "docker.io/library/busybox:latest");
/// assert_eq!(short, "index.docker.io/library/busybox:latest".parse()?);
/// # Ok::<(), nimbus_model::ImageRefError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageRef {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not an image reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageRefError {
    /// Nothing was given.
    #[error("an image reference needs a name")]
    Empty,
    /// The name is too long.
    #[error("an image name has at most {NAME_LIMIT} characters, this one has {0}")]
    TooLong(usize),
    /// The registry is not `host[:port]`.
    #[error("{0:?} is not a registry: expected host or host:port")]
    Registry(String),
    /// A part of the repository is malformed.
    #[error(
        "{0:?} is not a part of an image name: expected a-z and 0-9, joined by one '.', one or two '_', or '-'"
    )]
    Repository(String),
    /// The name is 64 hexadecimal digits, which engines take for an image id.
    #[error("{0:?} is an image id, not a name: an image is named by repository, tag or digest")]
    Id(String),
    /// The tag is malformed.
    #[error(
        "{0:?} is not a tag: expected up to {TAG_LIMIT} of A-Z, a-z, 0-9, '_', '.' and '-', not starting with '.' or '-'"
    )]
    Tag(String),
    /// The digest is malformed.
    #[error(transparent)]
    Digest(DigestError),
}

impl ImageRef {
    /// The registry: `host` or `host:port`; `docker.io` for Docker Hub.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository without its registry, such as `library/busybox`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// `registry/repository`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The tag; `None` when only a digest was given.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if the reference is pinned to one.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What engines take as the tag of a pull: the digest when there is one, else the tag.
    #[must_use]
    pub fn version(&self) -> &str {
        self.digest
            .as_ref()
            .map(Digest::as_str)
            .or(self.tag.as_deref())
            .unwrap_or(DEFAULT_TAG)
    }

    /// The same image pinned to `digest`; the tag stays, for people.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self {
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// Whether both name the same repository of the same registry.
    #[must_use]
    pub fn same_name(&self, other: &Self) -> bool {
        self.registry == other.registry && self.repository == other.repository
    }
}

impl std::fmt::Display for ImageRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl std::str::FromStr for ImageRef {
    type Err = ImageRefError;
    fn from_str(text: &str) -> Result<Self, ImageRefError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(ImageRefError::Digest)?)),
            None => (text, None),
        };
        // A colon after the last slash begins the tag; one before it is the registry's port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if name.is_empty() {
            return Err(ImageRefError::Empty);
        }
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(ImageRefError::Tag(tag.to_owned()));
        }
        let (registry, path) = match name.split_once('/') {
            Some((first, path)) if looks_like_host(first) => (first, path),
            _ => (DEFAULT_REGISTRY, name),
        };
        if !is_host(registry) {
            return Err(ImageRefError::Registry(registry.to_owned()));
        }
        for part in path.split('/') {
            if !is_path_part(part) {
                return Err(ImageRefError::Repository(part.to_owned()));
            }
        }
        if name == path && path.len() == 64 && path.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ImageRefError::Id(path.to_owned()));
        }
        let registry = if registry == "index.docker.io" {
            DEFAULT_REGISTRY
        } else {
            registry
        };
        let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') {
            format!("{DEFAULT_NAMESPACE}/{path}")
        } else {
            path.to_owned()
        };
        let length = registry.len() + 1 + repository.len();
        if length > NAME_LIMIT {
            return Err(ImageRefError::TooLong(length));
        }
        let tag = match (tag, &digest) {
            (None, None) => Some(DEFAULT_TAG),
            (tag, _) => tag,
        };
        Ok(Self {
            registry: registry.to_owned(),
            repository,
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

impl serde::Serialize for ImageRef {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for ImageRef {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Whether the first part of a name is a registry rather than a namespace of Docker Hub.
fn looks_like_host(part: &str) -> bool {
    part == "localhost" || part.contains(['.', ':', '[']) || part.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, after)) => {
                if address.parse::<std::net::Ipv6Addr>().is_err() {
                    return false;
                }
                return after.is_empty() || after.strip_prefix(':').is_some_and(is_port);
            }
            None => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    port.is_none_or(is_port)
        && host.split('.').all(|label| {
            !label.is_empty()
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_tag(text: &str) -> bool {
    text.len() <= TAG_LIMIT
        && text
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_part(part: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = part.bytes().next().is_some_and(inner) && part.bytes().last().is_some_and(inner);
    ends && part
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|joint| matches!(joint, "" | "." | "_" | "__") || joint.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn full(text: &str) -> String {
        text.parse::<ImageRef>()
            .unwrap_or_else(|e| panic!("{text}: {e}"))
            .to_string()
    }

    #[test]
    fn short_names_get_registry_namespace_and_tag() {
        for (text, wanted) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1", "docker.io/library/busybox:1"),
            ("python:3.12-slim", "docker.io/library/python:3.12-slim"),
            ("acme/web", "docker.io/acme/web:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest"),
            ("index.docker.io/busybox", "docker.io/library/busybox:latest"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x", "localhost:5000/x:latest"),
            ("127.0.0.1:5000/a/b:v1", "127.0.0.1:5000/a/b:v1"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("ghcr.io/o/i__x/y.z_w--v", "ghcr.io/o/i__x/y.z_w--v:latest"),
        ] {
            assert_eq!(full(text), wanted);
        }
    }

    #[test]
    fn a_digest_needs_no_tag_and_wins_over_one() {
        let pinned = format!("busybox@sha256:{HEX}");
        assert_eq!(full(&pinned), format!("docker.io/library/busybox@sha256:{HEX}"));
        let both: ImageRef = format!("busybox:1@sha256:{HEX}").parse().expect("well formed");
        assert_eq!(both.tag(), Some("1"));
        assert_eq!(both.version(), format!("sha256:{HEX}"));
        assert_eq!(both.digest().map(Digest::short), Some("0123456789ab"),);
    }

    #[test]
    fn what_is_not_a_reference_is_refused_with_its_part() {
        let refused = |text: &str| text.parse::<ImageRef>().expect_err(text);
        assert_eq!(refused(""), ImageRefError::Empty);
        assert_eq!(refused(":1"), ImageRefError::Empty);
        assert_eq!(refused("Busybox"), ImageRefError::Repository("Busybox".into()));
        assert_eq!(refused("a//b"), ImageRefError::Repository(String::new()));
        assert_eq!(refused("a_"), ImageRefError::Repository("a_".into()));
        assert_eq!(refused("a___b"), ImageRefError::Repository("a___b".into()));
        assert_eq!(refused("a..b"), ImageRefError::Repository("a..b".into()));
        assert_eq!(
            refused("https://x.io/y"),
            ImageRefError::Registry("https:".into())
        );
        assert_eq!(refused("x.io:0/y"), ImageRefError::Registry("x.io:0".into()));
        assert_eq!(
            refused("x.io:70000/y"),
            ImageRefError::Registry("x.io:70000".into())
        );
        assert_eq!(refused("-x.io/y"), ImageRefError::Registry("-x.io".into()));
        assert_eq!(refused("a:-b"), ImageRefError::Tag("-b".into()));
        assert_eq!(refused("a b"), ImageRefError::Repository("a b".into()));
        assert_eq!(refused("../x"), ImageRefError::Registry("..".into()));
        assert_eq!(refused(HEX), ImageRefError::Id(HEX.into()));
        assert!(matches!(refused("a@sha256:12"), ImageRefError::Digest(_)));
        assert!(matches!(
            refused(&format!("a@sha512:{HEX}")),
            ImageRefError::Digest(_)
        ));
        assert_eq!(
            refused(&format!("x.io/{}", "a".repeat(300))),
            ImageRefError::TooLong(305)
        );
        assert_eq!(
            refused(&format!("a:{}", "b".repeat(129))),
            ImageRefError::Tag("b".repeat(129))
        );
    }

    #[test]
    fn json_is_the_full_form() {
        let image: ImageRef = serde_json::from_str("\"busybox\"").expect("well formed");
        assert_eq!(
            serde_json::to_string(&image).expect("a string"),
            "\"docker.io/library/busybox:latest\""
        );
        assert!(serde_json::from_str::<ImageRef>("\"Not An Image\"").is_err());
    }

    proptest! {
            #[test]
            fn the_full_form_parses_to_the_same_image(
                host in proptest::option::of("[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,3})?\\.[a-z]{2,5}(:[1-9][0-9]{0,3})?"),
    // Without a dot: a first part with one is a registry.
                path in "[a-z0-9]{1,8}((_|__|-{1,3})[a-z0-9]{1,5}){0,2}(/[a-z0-9]{1,8}((\\.|_|__|-{1,3})[a-z0-9]{1,5}){0,2}){0,3}",
                tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,40}"),
                digest in proptest::option::of("sha256:[0-9a-f]{64}"),
            ) {
                let mut text = host.map(|h| format!("{h}/")).unwrap_or_default() + &path;
                if let Some(tag) = &tag { text = format!("{text}:{tag}"); }
                if let Some(digest) = &digest { text = format!("{text}@{digest}"); }
                let image: ImageRef = text.parse().map_err(|e| TestCaseError::fail(format!("{text}: {e}")))?;
                prop_assert_eq!(image.to_string().parse::<ImageRef>(), Ok(image.clone()));
                prop_assert_eq!(image.tag().is_some(), tag.is_some() || digest.is_none());
                prop_assert!(image.name().ends_with(&path), "{}", image);
            }

            #[test]
            fn any_text_is_parsed_or_refused_and_never_yields_another_shape(text in "\\PC{0,60}") {
                if let Ok(image) = text.parse::<ImageRef>() {
                    let full = image.to_string();
                    prop_assert!(full.bytes().all(|b| b.is_ascii_graphic()), "{}", full);
                    prop_assert!(!full.contains("..") && !full.starts_with(['-', '/']), "{}", full);
                    prop_assert_eq!(full.parse::<ImageRef>(), Ok(image));
                }
            }
        }
}
