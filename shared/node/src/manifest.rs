//! What an installation made, kept so that removing it is exact.
//!
//! In system scope the file belongs to root and lies where the service cannot write: root acts on it.

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use crate::error::NodeError;
use crate::files;
use crate::layout::Layout;
use crate::request::Request;

const VERSION: u32 = 1;

/// What was asked for, and what was made of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    version: u32,
    /// The flags of the last installation.
    pub request: Request,
    /// The program, if installing put it there.
    pub binary: Option<CopiedBinary>,
    /// Whether installing made the service's account.
    pub account: bool,
    /// Folders that were not there before, deepest first.
    pub folders: Vec<Utf8PathBuf>,
}

/// A program that installing put in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiedBinary {
    /// Where.
    pub path: Utf8PathBuf,
    /// SHA-256 of its bytes.
    pub sha256: String,
}

impl Manifest {
    pub(crate) fn new(request: Request) -> Self {
        Self {
            version: VERSION,
            request,
            binary: None,
            account: false,
            folders: Vec::new(),
        }
    }

    /// What was installed in this scope; `None` if nothing was.
    ///
    /// # Errors
    /// A file that cannot be read, or does not say it.
    pub fn read(layout: &Layout) -> Result<Option<Self>, NodeError> {
        let path = layout.manifest();
        let Some(text) = files::read(&path)? else {
            return Ok(None);
        };
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|source| NodeError::Manifest { path, source })
    }

    pub(crate) fn write(&self, layout: &Layout) -> Result<(), NodeError> {
        let path = layout.manifest();
        let text = serde_json::to_string_pretty(self).map_err(|source| NodeError::Manifest {
            path: path.clone(),
            source,
        })?;
        files::write(&path, &format!("{text}\n"), 0o644)
    }
}

/// What installing an agent made; a node beside it has its own [`Manifest`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AgentRecord {
    /// The program, if installing put it there.
    pub(crate) binary: Option<CopiedBinary>,
    /// Where the program is, whoever put it there.
    #[serde(default)]
    pub(crate) place: Option<Utf8PathBuf>,
    /// Folders that were not there before, deepest first.
    pub(crate) folders: Vec<Utf8PathBuf>,
}

impl AgentRecord {
    pub(crate) fn path(layout: &Layout) -> Utf8PathBuf {
        layout.config.join("agent.json")
    }

    pub(crate) fn read(layout: &Layout) -> Result<Option<Self>, NodeError> {
        let path = Self::path(layout);
        let Some(text) = files::read(&path)? else {
            return Ok(None);
        };
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|source| NodeError::Manifest { path, source })
    }

    pub(crate) fn write(&self, layout: &Layout) -> Result<(), NodeError> {
        let path = Self::path(layout);
        let text = serde_json::to_string_pretty(self).map_err(|source| NodeError::Manifest {
            path: path.clone(),
            source,
        })?;
        files::write(&path, &format!("{text}\n"), 0o644)
    }
}
