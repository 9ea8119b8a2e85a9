//! Images and how they are pulled.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nimbus_model::{Digest, ImageRef};
use secrecy::SecretString;

use crate::Signal;

/// Time for a pull unless the caller says otherwise.
const PULL_TIMEOUT: Duration = Duration::from_secs(300);

/// An image that is present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// What was asked for.
    pub reference: ImageRef,
    /// The registry's digest of the manifest, or of the configuration for an image that came from no registry.
    pub digest: Digest,
    /// What [`ContainerSpec::image`](crate::ContainerSpec::image) takes; it means these bytes even after a tag has moved.
    pub id: Digest,
    /// What the image says about the process to run.
    pub config: ImageConfig,
    /// Bytes on disk.
    pub size: u64,
}

/// What an image says about the process to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// First words of the command line.
    pub entrypoint: Vec<String>,
    /// What follows them.
    pub cmd: Vec<String>,
    /// `KEY=value` each.
    pub env: Vec<String>,
    /// Absolute, or empty for `/`.
    pub workdir: String,
    /// `uid`, `name`, `uid:gid` or `name:group`; empty for root.
    pub user: String,
    /// `port/protocol` each, as in the image.
    pub exposed_ports: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `HEALTHCHECK`.
    pub healthcheck: Option<Healthcheck>,
    /// `STOPSIGNAL`.
    pub stop_signal: Option<Signal>,
    /// Paths that the image declares as volumes.
    pub volumes: Vec<String>,
}

/// An image's `HEALTHCHECK`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Healthcheck {
    /// The command: as it is (`CMD`), or for the image's shell (`CMD-SHELL`) as `["/bin/sh", "-c", …]`.
    pub argv: Vec<String>,
    /// Time between checks; `None`: the reader's default.
    pub interval: Option<Duration>,
    /// Time for one check.
    pub timeout: Option<Duration>,
    /// Failures in a row that make it unhealthy.
    pub retries: Option<u32>,
    /// Time after the start in which failures do not count.
    pub start_period: Option<Duration>,
}

/// One image of the engine's store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresentImage {
    /// Its id.
    pub id: Digest,
    /// Its names, with tag or digest, as far as they are well formed.
    pub references: Vec<ImageRef>,
    /// The digests under which registries know it.
    pub digests: Vec<Digest>,
    /// Bytes on disk.
    pub size: u64,
}

/// When to ask the registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Only when the image is not present.
    #[default]
    IfMissing,
    /// In any case, which also checks the credentials; bytes that are present are not sent again.
    Always,
    /// Never.
    Never,
}

/// How to pull.
#[derive(Clone, Default)]
pub struct Pull {
    /// When to ask the registry.
    pub policy: PullPolicy,
    /// Who asks.
    pub auth: Option<RegistryAuth>,
    /// Time for all of it; `None`: 300 s.
    pub timeout: Option<Duration>,
    /// Is told how far it is.
    pub progress: Option<Progress>,
}

/// Is told how far a pull is; called from the task that waits for it.
pub type Progress = Arc<dyn Fn(PullProgress) + Send + Sync>;

/// How far a pull is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// Layers that are there.
    pub layers_done: u32,
    /// Layers known so far.
    pub layers: u32,
    /// Bytes received.
    pub bytes_done: u64,
    /// Bytes of the layers whose size is known.
    pub bytes: u64,
}

/// A registry's user name and password.
#[derive(Clone, Debug)]
pub struct RegistryAuth {
    /// User name.
    pub username: String,
    /// Password or token.
    pub password: SecretString,
}

impl Pull {
    /// The time for all of it.
    #[must_use]
    pub fn time_limit(&self) -> Duration {
        self.timeout.unwrap_or(PULL_TIMEOUT)
    }
}

impl std::fmt::Debug for Pull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pull")
            .field("policy", &self.policy)
            .field("auth", &self.auth)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
