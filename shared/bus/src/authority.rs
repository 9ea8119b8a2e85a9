//! Who may use the bus: the keys of this installation, and the credentials made with them.
//!
//! ```text
//! operator ──signs──▶ account NIMBUS ──signs──▶ users: services, agents, workers, people's tools
//!        └──signs──▶ account SYS (the server's own)
//! ```
//! The server knows only the operator and the accounts. A user that the account has signed is
//! accepted at once, so adding one touches no server.

use camino::{Utf8Path, Utf8PathBuf};
use nimbus_model::{Clock, Timestamp};
use nkeys::KeyPair;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::credential::{Credential, write_private};
use crate::error::BusError;
use crate::jwt;
use crate::server_config::{self, ServerConfigOptions};

/// The keys that make bus credentials. Whoever has them is every user of the bus.
pub struct Authority {
    operator: KeyPair,
    account: KeyPair,
    system: KeyPair,
    clock: Clock,
}

/// A user to make a credential for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its name; its inbox is `_INBOX_<name>`.
    pub name: String,
    /// Subjects it may send to, with wildcards.
    pub publish: Vec<String>,
    /// Subjects it may listen to, with wildcards.
    pub subscribe: Vec<String>,
    /// When the credential ends; never, if not said.
    pub expires: Option<Timestamp>,
}

impl User {
    /// A user that may do everything in the account, for operators and tests.
    #[must_use]
    pub fn unrestricted(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            publish: vec![">".to_owned()],
            subscribe: vec![">".to_owned()],
            expires: None,
        }
    }
}

/// The seeds as they are kept.
#[derive(Serialize, Deserialize)]
struct Seeds {
    operator: String,
    account: String,
    system: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("account", &self.account.public_key())
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// Reads the keys of `dir`, or makes them where there are none. The file is readable by its
    /// owner only.
    ///
    /// # Errors
    /// A file that cannot be read, written or understood. A damaged one is never replaced: new keys
    /// would shut out every credential that was handed out.
    pub fn open(dir: impl AsRef<Utf8Path>) -> Result<Self, BusError> {
        let dir = dir.as_ref();
        let path = dir.join("authority.json");
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&SecretString::from(text), &path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::create(dir, &path),
            Err(source) => Err(BusError::File {
                what: "read the bus keys in",
                path,
                source,
            }),
        }
    }

    fn parse(text: &SecretString, path: &Utf8Path) -> Result<Self, BusError> {
        let wrong = |what| BusError::Identity {
            what,
            place: path.to_string(),
        };
        let seeds: Seeds = serde_json::from_str(text.expose_secret()).map_err(|_| wrong("the JSON"))?;
        let pair = |seed: &str, what| KeyPair::from_seed(seed).map_err(|_| wrong(what));
        Ok(Self {
            operator: pair(&seeds.operator, "the operator's seed")?,
            account: pair(&seeds.account, "the account's seed")?,
            system: pair(&seeds.system, "the system account's seed")?,
            clock: Clock::system(),
        })
    }

    fn create(dir: &Utf8Path, path: &Utf8PathBuf) -> Result<Self, BusError> {
        std::fs::create_dir_all(dir).map_err(|source| BusError::File {
            what: "create the folder",
            path: dir.to_owned(),
            source,
        })?;
        let fresh = Self {
            operator: KeyPair::new_operator(),
            account: KeyPair::new_account(),
            system: KeyPair::new_account(),
            clock: Clock::system(),
        };
        let seed = |pair: &KeyPair| pair.seed().expect("a new key pair has its seed");
        let seeds = Seeds {
            operator: seed(&fresh.operator),
            account: seed(&fresh.account),
            system: seed(&fresh.system),
        };
        let text = serde_json::to_string_pretty(&seeds).expect("three strings are always JSON");
        write_private(path, &text)?;
        Ok(fresh)
    }

    /// Makes a credential with a new key; the server accepts it at once.
    #[must_use]
    pub fn mint(&self, user: &User) -> Credential {
        let key = KeyPair::new_user();
        let jwt = jwt::user(
            &self.account,
            &key.public_key(),
            &user.name,
            (&user.publish, &user.subscribe),
            self.clock.now(),
            user.expires,
        );
        Credential {
            jwt,
            seed: key.seed().expect("a new key pair has its seed").into(),
        }
    }

    /// The configuration of a nats-server that obeys this authority.
    ///
    /// It holds no secret of the authority; the TLS key, if there is one, is named by path.
    #[must_use]
    pub fn server_config(&self, options: &ServerConfigOptions) -> String {
        let now = self.clock.now();
        let (account, system) = (self.account.public_key(), self.system.public_key());
        let trust = server_config::Trust {
            operator: jwt::operator(&self.operator, &system, now),
            accounts: [
                (jwt::account(&self.operator, &system, "SYS", false, now), system),
                (
                    jwt::account(&self.operator, &account, "NIMBUS", true, now),
                    account,
                ),
            ],
        };
        server_config::render(options, &trust)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_keys_are_made_once_and_kept_private() {
        let dir = camino_tempfile::tempdir().unwrap();
        let first = Authority::open(dir.path()).unwrap();
        let second = Authority::open(dir.path()).unwrap();
        assert_eq!(first.account.public_key(), second.account.public_key());
        let file = std::fs::metadata(dir.path().join("authority.json")).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
        assert!(!format!("{first:?}").contains(&first.account.seed().unwrap()));
    }

    #[test]
    fn damaged_keys_are_refused_not_replaced() {
        let dir = camino_tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("authority.json"), "{}").unwrap();
        assert!(Authority::open(dir.path()).is_err());
        assert_eq!(
            std::fs::read_to_string(dir.path().join("authority.json")).unwrap(),
            "{}"
        );
    }
}
