//! Names of machines: one DNS label (RFC 1123, section 2.1), lower case.

/// A machine's hostname: `^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub struct Hostname(String);

/// Why a text is not a hostname.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostnameError {
    /// Nothing was given.
    #[error("a hostname needs at least one character")]
    Empty,
    /// More than 63 characters, the longest DNS label.
    #[error("a hostname has at most 63 characters, this one has {0}")]
    TooLong(usize),
    /// A character that a hostname may not have.
    #[error("a hostname has only a-z, 0-9 and '-', not {0:?}")]
    Character(char),
    /// A hyphen at an end.
    #[error("a hostname neither starts nor ends with '-'")]
    Hyphen,
}

impl Hostname {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Hostname {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Hostname {
    type Err = HostnameError;
    fn from_str(text: &str) -> Result<Self, HostnameError> {
        if text.is_empty() {
            return Err(HostnameError::Empty);
        }
        let length = text.chars().count();
        if length > 63 {
            return Err(HostnameError::TooLong(length));
        }
        if let Some(wrong) = text
            .chars()
            .find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-'))
        {
            return Err(HostnameError::Character(wrong));
        }
        if text.starts_with('-') || text.ends_with('-') {
            return Err(HostnameError::Hyphen);
        }
        Ok(Self(text.to_owned()))
    }
}

impl<'de> serde::Deserialize<'de> for Hostname {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_taken_and_everything_else_is_refused_with_its_reason() {
        for good in ["a", "web-1", "0x", &"a".repeat(63)] {
            assert!(good.parse::<Hostname>().is_ok(), "{good}");
        }
        assert_eq!("".parse::<Hostname>(), Err(HostnameError::Empty));
        assert_eq!(
            "a".repeat(64).parse::<Hostname>(),
            Err(HostnameError::TooLong(64))
        );
        assert_eq!("Web".parse::<Hostname>(), Err(HostnameError::Character('W')));
        assert_eq!("a.b".parse::<Hostname>(), Err(HostnameError::Character('.')));
        assert_eq!("-a".parse::<Hostname>(), Err(HostnameError::Hyphen));
        assert_eq!("ä".parse::<Hostname>(), Err(HostnameError::Character('ä')));
    }
}
