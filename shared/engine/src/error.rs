//! What can go wrong, by what a caller can do about it.

use std::sync::Arc;
use std::time::Duration;

use nimbus_errors::{Code, Coded};

/// What a driver's own error becomes: several waiters of one pull get the same.
pub type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// Why an engine did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// No engine answers, or it lacks what every sandbox needs.
    #[error("no container engine: {}", missing.join("; "))]
    Unavailable {
        /// What was looked for and is not there, one fact each.
        missing: Vec<String>,
        /// The driver's error, if it was one.
        #[source]
        source: Option<Cause>,
    },
    /// The engine did not answer in time; whether it did the work is not known.
    #[error("the engine did not answer {call} within {} s", limit.as_secs_f64())]
    Timeout {
        /// What it was asked.
        call: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// Neither the engine nor the registry has the image.
    #[error("there is no image {image}")]
    ImageNotFound {
        /// The reference or id.
        image: String,
    },
    /// The registry wants other credentials.
    #[error("the registry does not let us pull {image}: {message}")]
    PullRefused {
        /// The reference.
        image: String,
        /// What the registry said.
        message: String,
    },
    /// The pull took longer than it may.
    #[error("{image} was not pulled within {} s", limit.as_secs())]
    PullTimeout {
        /// The reference.
        image: String,
        /// How long it had.
        limit: Duration,
    },
    /// The registry is not reachable, or what it sent is damaged.
    #[error("could not pull {image}: {message}")]
    PullFailed {
        /// The reference.
        image: String,
        /// What the engine said.
        message: String,
    },
    /// The image is for another system or processor.
    #[error("{image} is for {found}, and this host is {wanted}")]
    WrongPlatform {
        /// The reference.
        image: String,
        /// `os/architecture` of the image.
        found: String,
        /// `os/architecture` of the host.
        wanted: String,
    },
    /// There is no such container or volume.
    #[error("there is no {kind} {name}")]
    NotFound {
        /// `container` or `volume`.
        kind: &'static str,
        /// Its name or id.
        name: String,
    },
    /// The state does not allow it: a name is taken, a volume is in use, a container does not run.
    #[error("{call} is not possible now: {message}")]
    Conflict {
        /// What was asked.
        call: &'static str,
        /// What the engine said.
        message: String,
    },
    /// The engine does not accept what it was asked.
    #[error("the engine refuses {call}: {message}")]
    Refused {
        /// What was asked.
        call: &'static str,
        /// What the engine said.
        message: String,
    },
    /// The container's first process could not be run; nothing of it is left running.
    #[error("the container could not be started: {message}")]
    Launch {
        /// What the runtime said.
        message: String,
    },
    /// The disk under the engine is full.
    #[error("there is no space for {call}: {message}")]
    NoSpace {
        /// What was asked.
        call: &'static str,
        /// What the engine said.
        message: String,
    },
    /// This engine has no such function.
    #[error("{engine} cannot {call}")]
    Unsupported {
        /// What was asked.
        call: &'static str,
        /// The engine's name and version.
        engine: String,
    },
    /// The engine failed, or said something that is not its API.
    #[error("the engine failed in {call}: {message}")]
    Failed {
        /// What was asked.
        call: &'static str,
        /// What the engine said.
        message: String,
    },
}

impl EngineError {
    /// An engine of which one thing is missing.
    #[must_use]
    pub fn missing(what: impl Into<String>) -> Self {
        Self::Unavailable {
            missing: vec![what.into()],
            source: None,
        }
    }

    /// Whether the same call can succeed later without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. }
                | Self::Timeout { .. }
                | Self::PullTimeout { .. }
                | Self::PullFailed { .. }
        )
    }

    /// Whether the container or volume is not there (any more).
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

impl Coded for EngineError {
    fn code(&self) -> Code {
        match self {
            Self::Unavailable { .. } | Self::Unsupported { .. } => Code::ServiceSandboxBackendUnavailable,
            Self::Timeout { .. } | Self::PullTimeout { .. } => Code::ServiceTimeout,
            Self::ImageNotFound { .. } | Self::NotFound { .. } => Code::OpNotFound,
            Self::PullRefused { .. } | Self::WrongPlatform { .. } | Self::Refused { .. } => {
                Code::OpInvalidInput
            }
            Self::PullFailed { .. } | Self::NoSpace { .. } => Code::ServiceUnavailable,
            Self::Conflict { .. } | Self::Launch { .. } => Code::OpConflict,
            Self::Failed { .. } => Code::ServiceInternal,
        }
    }

    fn detail(&self) -> Option<serde_json::Value> {
        Some(match self {
            Self::Unavailable { missing, .. } => {
                serde_json::json!({"backend": "container", "missing": missing})
            }
            Self::Unsupported { call, .. } => serde_json::json!({"backend": "container", "missing": [call]}),
            Self::ImageNotFound { image } => serde_json::json!({"kind": "image", "image": image}),
            Self::PullRefused { image, .. }
            | Self::WrongPlatform { image, .. }
            | Self::PullFailed { image, .. } => {
                serde_json::json!({"image": image})
            }
            Self::NotFound { kind, name } => serde_json::json!({"kind": kind, "name": name}),
            Self::NoSpace { .. } => serde_json::json!({"dimension": "disk"}),
            _ => return None,
        })
    }
}
