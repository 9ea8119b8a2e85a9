//! Where the commands of this computer find the server that runs on it.

use std::os::unix::fs::DirBuilderExt;

use camino::Utf8PathBuf;
use nimbus_model::Clock;
use serde::{Deserialize, Serialize};
use url::Url;

use super::process::write_whole;
use crate::cli::environment;
use crate::problem::{Outcome, Problem};

/// What is written while a server runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Found {
    /// Its process.
    pub(crate) pid: u32,
    /// Where it listens.
    pub(crate) address: Url,
    /// Since when.
    pub(crate) started_at: String,
    /// Its version.
    pub(crate) version: String,
}

/// Where it is written; none for an account without a home.
pub(crate) fn path(environment: impl Fn(&str) -> Option<String>) -> Option<Utf8PathBuf> {
    let named = |name: &str| {
        environment(name)
            .filter(|path| path.starts_with('/'))
            .map(Utf8PathBuf::from)
    };
    let folder = named("XDG_RUNTIME_DIR")
        .map(|folder| folder.join("nimbus"))
        .or_else(|| Some(named("HOME")?.join(".local/state/nimbus/run")))?;
    Some(folder.join("server.json"))
}

/// Written while it lives; the file goes with it, unless another server has written it since.
#[derive(Debug)]
pub(crate) struct Announced {
    path: Utf8PathBuf,
}

impl Announced {
    /// Writes the file. Commands can be told the address, so a failure is only logged by the caller.
    pub(crate) fn new(address: &Url, clock: &Clock) -> Outcome<Option<Self>> {
        let Some(path) = path(environment) else {
            return Ok(None);
        };
        if let Some(folder) = path.parent() {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(|error| Problem::failed(format!("could not make {folder}")).because(&error))?;
        }
        let found = Found {
            pid: std::process::id(),
            address: address.clone(),
            started_at: clock.now().to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let text = serde_json::to_string(&found)
            .map_err(|error| Problem::failed("could not describe this server").because(&error))?;
        write_whole(&path, &text)?;
        Ok(Some(Self { path }))
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        let ours = std::fs::read(&self.path)
            .ok()
            .and_then(|text| serde_json::from_slice::<Found>(&text).ok())
            .is_some_and(|found| found.pid == std::process::id());
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "could not remove {}", self.path);
        }
    }
}
