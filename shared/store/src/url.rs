//! Where the data is.

use camino::Utf8PathBuf;
use secrecy::{ExposeSecret, SecretString};

/// Which database a process uses.
#[derive(Clone, Debug)]
pub enum DatabaseUrl {
    /// A SQLite file.
    Sqlite(Utf8PathBuf),
    /// A PostgreSQL URL; it may hold a password.
    Postgres(SecretString),
}

/// Why a text does not name a database. Never holds the text, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseUrlError {
    /// Another scheme, or no URL at all.
    #[error("expected postgres://user@host/database or sqlite:/path/to/nimbus.db{}", scheme.as_ref().map(|s| format!(", not {s}:")).unwrap_or_default())]
    Scheme {
        /// What stands before the colon.
        scheme: Option<String>,
    },
    /// `sqlite:` without a path.
    #[error("sqlite: needs the path of a file behind it")]
    NoPath,
    /// Not a well-formed URL.
    #[error("the postgres URL is malformed")]
    Malformed {
        /// What is wrong with it.
        #[source]
        source: url::ParseError,
    },
}

impl std::str::FromStr for DatabaseUrl {
    type Err = DatabaseUrlError;

    fn from_str(text: &str) -> Result<Self, DatabaseUrlError> {
        match text.split_once(':') {
            Some(("postgres" | "postgresql", _)) => {
                url::Url::parse(text).map_err(|source| DatabaseUrlError::Malformed { source })?;
                Ok(Self::Postgres(SecretString::from(text)))
            }
            Some(("sqlite", rest)) => match rest.strip_prefix("//").unwrap_or(rest) {
                "" => Err(DatabaseUrlError::NoPath),
                path => Ok(Self::Sqlite(path.into())),
            },
            Some((scheme, _)) if scheme.chars().all(|c| c.is_ascii_alphanumeric()) && scheme.len() <= 16 => {
                Err(DatabaseUrlError::Scheme {
                    scheme: Some(scheme.to_owned()),
                })
            }
            _ => Err(DatabaseUrlError::Scheme { scheme: None }),
        }
    }
}

/// For people and logs: without user and password.
impl std::fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{path}"),
            Self::Postgres(secret) => match url::Url::parse(secret.expose_secret()) {
                Ok(url) => {
                    write!(f, "postgres://{}", url.host_str().unwrap_or_default())?;
                    if let Some(port) = url.port() {
                        write!(f, ":{port}")?;
                    }
                    f.write_str(url.path())
                }
                Err(_) => f.write_str("postgres:"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_engines_have_urls_and_no_face_shows_the_password() {
        let url: DatabaseUrl = "postgres://nimbus:geheim@db.example:5433/prod?sslmode=require"
            .parse()
            .unwrap();
        assert_eq!(url.to_string(), "postgres://db.example:5433/prod");
        assert!(!format!("{url:?}").contains("geheim"));
        for (text, path) in [
            ("sqlite:///var/lib/n.db", "/var/lib/n.db"),
            ("sqlite:/n.db", "/n.db"),
            ("sqlite:n.db", "n.db"),
        ] {
            assert!(
                matches!(text.parse().unwrap(), DatabaseUrl::Sqlite(p) if p == path),
                "{text}"
            );
        }
    }

    #[test]
    fn a_wrong_url_is_refused_without_being_quoted() {
        for bad in [
            "mysql://root:geheim@h/d",
            "geheim",
            "",
            "sqlite:",
            "postgres://u:geheim@h:port/x",
        ] {
            let error = bad.parse::<DatabaseUrl>().unwrap_err();
            assert!(!error.to_string().contains("geheim"), "{error}");
        }
    }
}
