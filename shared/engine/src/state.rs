//! What an engine tells about itself and what it runs.

use std::collections::BTreeMap;
use std::time::Duration;

use nimbus_model::{Digest, Timestamp};

/// Labels of a container or volume.
pub type Labels = BTreeMap<String, String>;

/// A container's id, as its engine gave it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ContainerId(String);

impl ContainerId {
    /// An id that an engine gave earlier.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for ContainerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an engine is and can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// `docker` or `podman`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Version of its API.
    pub api: String,
    /// It runs without root.
    pub rootless: bool,
    /// Root of a container is nobody outside.
    pub user_namespaces: bool,
    /// System calls can be filtered.
    pub seccomp: bool,
    /// AppArmor confines containers.
    pub apparmor: bool,
    /// SELinux confines containers.
    pub selinux: bool,
    /// 1 or 2.
    pub cgroup_version: u8,
    /// Such as `overlay2`.
    pub storage_driver: String,
    /// A container's writable layer can be limited.
    pub disk_quota: bool,
    /// Where it keeps images and containers.
    pub root: String,
    /// Processors.
    pub cpus: u32,
    /// Memory of the host.
    pub memory_bytes: u64,
    /// `amd64`, `arm64`, …
    pub arch: String,
    /// OCI runtimes it knows.
    pub runtimes: Vec<String>,
    /// What sandboxes need and this engine does not have; empty when all is well.
    pub missing: Vec<String>,
}

/// What a container is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerState {
    /// Its id.
    pub id: ContainerId,
    /// Its name.
    pub name: String,
    /// Its labels, with those of its image.
    pub labels: Labels,
    /// Its image.
    pub image: Option<Digest>,
    /// Whether its first process lives.
    pub running: bool,
    /// That process' id on the host, while it lives.
    pub pid: Option<u32>,
    /// How it ended, once it has run and ended.
    pub exit_code: Option<i64>,
    /// The memory limit was reached, and a process was killed for it.
    pub oom_killed: bool,
    /// When it was started last.
    pub started_at: Option<Timestamp>,
    /// When it ended last.
    pub finished_at: Option<Timestamp>,
    /// Why it could not be started.
    pub error: Option<String>,
}

/// A container in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerEntry {
    /// Its id.
    pub id: ContainerId,
    /// Its name.
    pub name: String,
    /// Its labels, with those of its image.
    pub labels: Labels,
    /// Whether its first process lives.
    pub running: bool,
    /// When it was made.
    pub created_at: Option<Timestamp>,
}

/// How to remove a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remove {
    /// Kill it first.
    pub force: bool,
    /// With the unnamed volumes that its image declared.
    pub volumes: bool,
}

impl Remove {
    /// Killed if need be, and with its unnamed volumes.
    pub const ALL: Self = Self {
        force: true,
        volumes: true,
    };
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineEvent {
    /// The engine answers; events before this may have been lost, so list once.
    Back,
    /// The engine does not answer.
    Gone {
        /// Why, as far as known.
        reason: String,
    },
    /// Something happened to a container.
    Container {
        /// Which one.
        id: ContainerId,
        /// What.
        kind: EventKind,
        /// When, by the engine's clock.
        at: Timestamp,
        /// Its labels, with those of its image.
        labels: Labels,
    },
}

/// What happened to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Its first process runs.
    Started,
    /// Its first process has ended.
    Died {
        /// How.
        exit_code: Option<i64>,
    },
    /// The memory limit was reached, and a process was killed for it.
    OutOfMemory,
    /// It was removed.
    Destroyed,
}

/// A named volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Where it is on the host.
    pub mountpoint: String,
    /// Its labels.
    pub labels: Labels,
}

/// What a running container uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Memory, without the page cache that can be given back at once.
    pub memory_bytes: u64,
    /// The memory limit.
    pub memory_limit_bytes: u64,
    /// Processor time since its start.
    pub cpu_time: Duration,
    /// Processes and threads.
    pub pids: u64,
}
