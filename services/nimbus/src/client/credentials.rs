//! Where `nimbus login` keeps tokens: `$XDG_CONFIG_HOME/nimbus/credentials.toml`, readable by its owner only.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

use camino::{Utf8Path, Utf8PathBuf};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::problem::{Outcome, Problem};

/// The file, read.
#[derive(Debug)]
pub(crate) struct Store {
    path: Utf8PathBuf,
    file: File,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// The server of the last login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    current: Option<Url>,
    #[serde(default)]
    servers: BTreeMap<String, Entry>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Entry {
    token: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    email: Option<String>,
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("File")
            .field("current", &self.current)
            .field("servers", &self.servers.keys())
            .finish()
    }
}

/// One name for one server, however its address is written.
fn key(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

impl Store {
    /// Reads the file of the environment; a missing one is empty.
    pub(crate) fn open() -> Outcome<Self> {
        let home = || {
            std::env::var("HOME")
                .ok()
                .filter(|path| !path.is_empty())
                .map(|home| Utf8PathBuf::from(home).join(".config"))
        };
        let folder = std::env::var("XDG_CONFIG_HOME")
            .ok()
            .filter(|path| !path.is_empty())
            .map(Utf8PathBuf::from)
            .or_else(home);
        // Without a home nothing is stored, and commands work with NIMBUS_TOKEN alone.
        Self::at(folder.map_or_else(Utf8PathBuf::new, |folder| {
            folder.join("nimbus").join("credentials.toml")
        }))
    }

    fn at(path: Utf8PathBuf) -> Outcome<Self> {
        let file = match std::fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text).map_err(|error| {
                Problem::failed(format!("{path} is damaged"))
                    .why(error.message().to_owned())
                    .next("remove the file, then `nimbus login`")
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => File::default(),
            Err(error) => return Err(Problem::failed(format!("could not read {path}")).because(&error)),
        };
        Ok(Self { path, file })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// The server of the last login.
    pub(crate) fn current(&self) -> Option<Url> {
        self.file.current.clone()
    }

    /// The token for a server.
    pub(crate) fn token(&self, url: &Url) -> Option<SecretString> {
        self.file
            .servers
            .get(&key(url))
            .map(|entry| entry.token.as_str().into())
    }

    /// The id of the token for a server.
    pub(crate) fn token_id(&self, url: &Url) -> Option<String> {
        self.file
            .servers
            .get(&key(url))
            .and_then(|entry| entry.token_id.clone())
    }

    /// Keeps a token.
    pub(crate) fn put(
        &mut self,
        url: &Url,
        token: &str,
        token_id: Option<String>,
        email: Option<String>,
    ) -> Outcome {
        self.file.current = Some(url.clone());
        self.file.servers.insert(
            key(url),
            Entry {
                token: token.to_owned(),
                token_id,
                email,
            },
        );
        self.save()
    }

    /// Forgets the token for a server; whether there was one.
    pub(crate) fn remove(&mut self, url: &Url) -> Outcome<bool> {
        let had = self.file.servers.remove(&key(url)).is_some();
        if self
            .file
            .current
            .as_ref()
            .is_some_and(|current| key(current) == key(url))
        {
            self.file.current = None;
        }
        self.save()?;
        Ok(had)
    }

    fn save(&self) -> Outcome {
        let failed =
            |error: std::io::Error| Problem::failed(format!("could not write {}", self.path)).because(&error);
        let folder = self
            .path
            .parent()
            .filter(|folder| !folder.as_str().is_empty())
            .ok_or_else(|| {
                Problem::failed("there is no place to keep the token")
                    .why("neither XDG_CONFIG_HOME nor HOME is set")
            })?;
        let text = toml::to_string(&self.file)
            .map_err(|error| Problem::failed("could not write the credentials as TOML").because(&error))?;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed)?;
        // A new file each time, so that its mode is right from its first byte.
        let fresh = self.path.with_extension(format!("{}.new", std::process::id()));
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)
            .map_err(failed)?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(failed)?;
        std::fs::rename(&fresh, &self.path).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn tokens_are_kept_by_server_and_only_for_their_owner() {
        let dir = camino_tempfile::tempdir().unwrap();
        let path = dir.path().join("nimbus/credentials.toml");
        let url: Url = "http://127.0.0.1:8080".parse().unwrap();
        let mut store = Store::at(path.clone()).unwrap();
        assert!(store.token(&url).is_none());
        store.put(&url, "nbp_1", Some("tok_1".into()), None).unwrap();
        let mut store = Store::at(path.clone()).unwrap();
        assert_eq!(
            store
                .token(&"http://127.0.0.1:8080/".parse().unwrap())
                .unwrap()
                .expose_secret(),
            "nbp_1"
        );
        assert_eq!(store.current(), Some(url.clone()));
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(!format!("{store:?}").contains("nbp_1"));
        assert!(store.remove(&url).unwrap());
        assert!(!store.remove(&url).unwrap());
        assert!(Store::at(path).unwrap().current().is_none());
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_it() {
        let dir = camino_tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, "servers = 3").unwrap();
        assert!(
            Store::at(path.clone())
                .unwrap_err()
                .to_string()
                .contains(path.as_str())
        );
    }
}
