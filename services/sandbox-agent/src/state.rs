//! What the agent keeps of a sandbox on disk, so that a new agent can go on with it.
//!
//! ```text
//! <state dir>/sandboxes/<id>/launch     sealed: the launch request, secrets included, and where it runs
//!                            log/…      what its main process wrote
//! <state dir>/slots/<slot>              the sockets of its container
//! ```
//! A file is replaced as a whole. It is not forced to the disk: after a power failure the containers
//! are gone, too.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

use camino::{Utf8Path, Utf8PathBuf};
use nimbus_proto::agent::LaunchRequest;
use nimbus_proto::workloads::{Endpoint, Observation, Start};
use nimbus_store::Sealer;
use serde::{Deserialize, Serialize};

use crate::error::AgentError;

const FILE: &str = "launch";
const LOG: &str = "log";

/// What is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Counts the agents that have held it; the upper half of an observation's sequence.
    pub(crate) epoch: u32,
    /// What was asked for; gone once it has ended.
    pub(crate) request: Option<LaunchRequest>,
    /// Its container's slot and id, if it has one.
    pub(crate) place: Option<KeptPlace>,
    /// Which run of the main process this is.
    pub(crate) run: u32,
    /// How often it was restarted.
    pub(crate) restarts: u32,
    /// Its published ports.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Whether it was warm.
    pub(crate) start: Option<Start>,
    /// Microseconds from the launch's arrival to the running process.
    pub(crate) started_after_us: Option<u64>,
    /// Why it was asked to stop, if it was.
    pub(crate) stopping: Option<String>,
    /// How it ended, once it has.
    pub(crate) ended: Option<Observation>,
}

impl Kept {
    /// What is kept of a launch that has just arrived, with its sandbox' id.
    pub(crate) fn new(request: LaunchRequest) -> (String, Self) {
        let id = request.sandbox.clone();
        let kept = Self {
            epoch: 0,
            request: Some(request),
            place: None,
            run: 0,
            restarts: 0,
            endpoints: Vec::new(),
            start: None,
            started_after_us: None,
            stopping: None,
            ended: None,
        };
        (id, kept)
    }
}

/// Where it runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct KeptPlace {
    pub(crate) slot: String,
    pub(crate) container: String,
}

/// The directory of all that is kept. Clones share.
#[derive(Clone)]
pub(crate) struct Keep {
    dir: Utf8PathBuf,
    sealer: Sealer,
}

impl Keep {
    /// # Errors
    /// When the directory cannot be made.
    pub(crate) fn open(state_dir: &Utf8Path, sealer: Sealer) -> Result<Self, AgentError> {
        let dir = state_dir.join("sandboxes");
        make_private(&dir).map_err(AgentError::io("make the directory of the sandboxes"))?;
        Ok(Self { dir, sealer })
    }

    /// Where a sandbox' log is.
    pub(crate) fn log_dir(&self, sandbox: &str) -> Utf8PathBuf {
        self.dir.join(sandbox).join(LOG)
    }

    /// Writes what is known of a sandbox.
    ///
    /// # Errors
    /// [`AgentError::Keep`].
    pub(crate) fn save(&self, sandbox: &str, kept: &Kept) -> Result<(), AgentError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| AgentError::Keep {
            sandbox: sandbox.to_owned(),
            source,
        };
        let plain = serde_json::to_vec(kept).map_err(|error| failed(error.into()))?;
        let sealed = self
            .sealer
            .seal(&plain, &associated(sandbox))
            .map_err(|error| failed(error.into()))?;
        let dir = self.dir.join(sandbox);
        let write = || {
            make_private(&dir)?;
            let fresh = dir.join("launch.new");
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&fresh)?;
            file.write_all(sealed.as_bytes())?;
            std::fs::rename(fresh, dir.join(FILE))
        };
        write().map_err(|error: std::io::Error| failed(error.into()))
    }

    /// Every sandbox of which something is kept, with what is known; what cannot be read any more is
    /// `None`.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub(crate) fn all(&self) -> Result<Vec<(String, Option<Kept>)>, AgentError> {
        let read = AgentError::io("read the directory of the sandboxes");
        let entries = self.dir.read_dir_utf8().map_err(read)?;
        let mut found = Vec::new();
        for entry in entries.flatten() {
            let sandbox = entry.file_name().to_owned();
            let kept = self.read(&sandbox);
            if let Err(error) = &kept {
                tracing::error!(sandbox.id = sandbox, cause = %nimbus_errors::chain(error), "what was kept of a sandbox cannot be read");
            }
            found.push((sandbox, kept.ok()));
        }
        Ok(found)
    }

    fn read(&self, sandbox: &str) -> Result<Kept, AgentError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| AgentError::Keep {
            sandbox: sandbox.to_owned(),
            source,
        };
        let sealed = std::fs::read_to_string(self.dir.join(sandbox).join(FILE))
            .map_err(|error| failed(error.into()))?;
        let plain = self
            .sealer
            .open(&sealed, &associated(sandbox))
            .map_err(|error| failed(error.into()))?;
        serde_json::from_slice(&plain).map_err(|error| failed(error.into()))
    }

    /// Forgets a sandbox, its log included.
    ///
    /// # Errors
    /// When files cannot be removed.
    pub(crate) fn remove(&self, sandbox: &str) -> Result<(), AgentError> {
        match std::fs::remove_dir_all(self.dir.join(sandbox)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(AgentError::io("remove what was kept of a sandbox")(error))
            }
            _ => Ok(()),
        }
    }
}

/// Binds a sealed file to its sandbox, so that one cannot be put in another's place.
fn associated(sandbox: &str) -> String {
    format!("sandbox-agent/{sandbox}")
}

/// Makes a directory that nobody else can look into; parents as usual.
pub(crate) fn make_private(dir: &Utf8Path) -> std::io::Result<()> {
    if let Some(parent) = dir.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Whether a sandbox' id is safe as a directory's name: what the contract promises, checked again
/// because a path is made of it.
pub(crate) fn is_safe(sandbox: &str) -> bool {
    (1..=128).contains(&sandbox.len())
        && sandbox
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use nimbus_bus::Method;
    use nimbus_proto::agent::Launch;

    use super::*;

    fn keep(dir: &Utf8Path) -> Keep {
        let sealer = Sealer::load(&dir.join("key"), None).unwrap();
        Keep::open(dir, sealer).unwrap()
    }

    fn kept() -> Kept {
        Kept {
            epoch: 3,
            request: Some(Launch::sample_request()),
            place: Some(KeptPlace {
                slot: "s".into(),
                container: "c".into(),
            }),
            run: 1,
            restarts: 1,
            endpoints: vec![],
            start: Some(Start::Warm),
            started_after_us: Some(1),
            stopping: None,
            ended: None,
        }
    }

    #[test]
    fn what_is_kept_comes_back_and_is_not_readable_on_disk() {
        let dir = camino_tempfile::tempdir().unwrap();
        let keep = keep(dir.path());
        keep.save("x-1", &kept()).unwrap();
        let text = std::fs::read_to_string(dir.path().join("sandboxes/x-1/launch")).unwrap();
        assert!(!text.contains("busybox"));
        let mut all = keep.all().unwrap();
        let (id, found) = all.pop().unwrap();
        assert_eq!((id.as_str(), all.len()), ("x-1", 0));
        assert_eq!(found.unwrap().request, kept().request);
        keep.remove("x-1").unwrap();
        keep.remove("x-1").unwrap();
        assert!(keep.all().unwrap().is_empty());
    }

    #[test]
    fn a_file_in_anothers_place_is_refused() {
        let dir = camino_tempfile::tempdir().unwrap();
        let keep = keep(dir.path());
        keep.save("x-1", &kept()).unwrap();
        std::fs::rename(dir.path().join("sandboxes/x-1"), dir.path().join("sandboxes/x-2")).unwrap();
        let all = keep.all().unwrap();
        assert!(matches!(all.as_slice(), [(id, None)] if id == "x-2"));
    }

    #[test]
    fn ids_that_are_no_file_names_are_refused() {
        for bad in ["", "..", "a/b", "A", "a.b"] {
            assert!(!is_safe(bad), "{bad}");
        }
        assert!(is_safe("worker-01jzzzzzzzzzzzzzzzzzzzzzzz"));
    }
}
