//! What a client proves its name with: a user JWT and the key it was issued to.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use camino::Utf8Path;
use secrecy::{ExposeSecret, SecretString};

use crate::error::BusError;

/// A user of the bus: a signed JWT with its rights, and the seed of its key.
#[derive(Clone, Debug)]
pub struct Credential {
    /// The user JWT; not secret.
    pub jwt: String,
    /// The seed of the user's nkey.
    pub seed: SecretString,
}

impl Credential {
    /// Reads a credentials file, as `nsc` and [`Self::to_creds_file`] write them.
    ///
    /// # Errors
    /// A file that cannot be read or has no JWT and seed.
    pub fn from_creds_file(path: impl AsRef<Utf8Path>) -> Result<Self, BusError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|source| BusError::File {
            what: "read the credentials file",
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, path.as_str())
    }

    /// Writes the credentials file, readable by its owner only.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn to_creds_file(&self, path: impl AsRef<Utf8Path>) -> Result<(), BusError> {
        let path = path.as_ref();
        write_private(path, self.text().expose_secret())
    }

    /// The text of a credentials file.
    #[must_use]
    pub fn text(&self) -> SecretString {
        format!(
            "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
             ************************* IMPORTANT *************************\n\
             The seed below signs for this user. Keep it secret.\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            self.jwt,
            self.seed.expose_secret()
        )
        .into()
    }

    fn parse(text: &str, place: &str) -> Result<Self, BusError> {
        let missing = |what| BusError::Identity {
            what,
            place: place.to_owned(),
        };
        let jwt = section(text, "NATS USER JWT").ok_or_else(|| missing("the user JWT"))?;
        let seed = section(text, "USER NKEY SEED").ok_or_else(|| missing("the user seed"))?;
        nkeys::KeyPair::from_seed(seed).map_err(|_| missing("the user seed"))?;
        Ok(Self {
            jwt: jwt.to_owned(),
            seed: seed.to_owned().into(),
        })
    }
}

/// The line after `BEGIN <title>`.
fn section<'a>(text: &'a str, title: &str) -> Option<&'a str> {
    let mut lines = text
        .lines()
        .map(str::trim)
        .skip_while(|line| !(line.contains("BEGIN") && line.contains(title)));
    lines.next()?;
    lines
        .next()
        .filter(|line| !line.is_empty() && !line.starts_with('-'))
}

/// Writes a file of mode 0600 as a whole: a crash leaves the old one or the new one.
pub(crate) fn write_private(path: &Utf8Path, text: &str) -> Result<(), BusError> {
    let failed = |source| BusError::File {
        what: "write",
        path: path.to_owned(),
        source,
    };
    let beside = path.with_extension(format!("tmp-{}", std::process::id()));
    let write = || {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    write().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credentials_file_survives_its_text_form() {
        let key = nkeys::KeyPair::new_user();
        let credential = Credential {
            jwt: "a.b.c".to_owned(),
            seed: key.seed().unwrap().into(),
        };
        let back = Credential::parse(credential.text().expose_secret(), "test").unwrap();
        assert_eq!(back.jwt, "a.b.c");
        assert_eq!(back.seed.expose_secret(), credential.seed.expose_secret());
        assert!(!format!("{credential:?}").contains(credential.seed.expose_secret()));
    }

    #[test]
    fn a_file_without_a_seed_says_so() {
        let error = Credential::parse("-----BEGIN NATS USER JWT-----\na.b.c\n", "x.creds").unwrap_err();
        assert_eq!(error.to_string(), "the user seed in x.creds is not valid");
    }
}
