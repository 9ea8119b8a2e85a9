//! What can go wrong on a host.

use nimbus_engine::EngineError;
use nimbus_errors::{Code, Coded};
use nimbus_guest::GuestError;
use nimbus_proto::workloads::Lifecycle;

/// A failure of the agent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    /// Nobody here has it.
    #[error("there is no sandbox {sandbox} on this host")]
    Unknown {
        /// Which.
        sandbox: String,
    },
    /// It does not run.
    #[error("sandbox {sandbox} is {}", <&str>::from(*.lifecycle))]
    NotRunning {
        /// Which.
        sandbox: String,
        /// What it is.
        lifecycle: Lifecycle,
    },
    /// The lease was given until a time that has passed.
    #[error("the session has expired")]
    LeaseOver,
    /// The request cannot be meant.
    #[error("{0}")]
    Invalid(String),
    /// What the sandbox needs is not there.
    #[error("sandboxes of this kind cannot run here: {}", missing.join("; "))]
    Unavailable {
        /// What isolates them.
        backend: &'static str,
        /// What is missing.
        missing: Vec<String>,
    },
    /// No port is left.
    #[error("no port of {range} is free")]
    NoPort {
        /// Of which.
        range: crate::config::PortRange,
    },
    /// A port that was asked for is taken.
    #[error("port {port} of this host cannot be used")]
    PortTaken {
        /// Which.
        port: u16,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The container did not come up.
    #[error("the sandbox did not start within {limit_s} s")]
    SlowStart {
        /// The limit.
        limit_s: u64,
    },
    /// The engine failed.
    #[error("{0}")]
    Engine(#[source] EngineError),
    /// The guest failed or refused.
    #[error("{0}")]
    Guest(#[source] GuestError),
    /// The host's file system failed.
    #[error("could not {what}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// How it failed.
        #[source]
        source: std::io::Error,
    },
    /// What was kept cannot be read or written.
    #[error("could not keep what is known of {sandbox}")]
    Keep {
        /// Of which sandbox.
        sandbox: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The bus failed.
    #[error("the bus failed")]
    Bus(#[source] nimbus_bus::BusError),
}

impl AgentError {
    pub(crate) fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

impl From<EngineError> for AgentError {
    fn from(source: EngineError) -> Self {
        Self::Engine(source)
    }
}

impl From<GuestError> for AgentError {
    fn from(source: GuestError) -> Self {
        Self::Guest(source)
    }
}

impl Coded for AgentError {
    fn code(&self) -> Code {
        match self {
            Self::Unknown { .. } => Code::OpNotFound,
            Self::NotRunning { .. } => Code::OpConflict,
            Self::LeaseOver => Code::OpConflict,
            Self::Invalid(_) => Code::OpInvalidInput,
            Self::Unavailable { .. } => Code::ServiceSandboxBackendUnavailable,
            Self::NoPort { .. } => Code::RateResourceExhausted,
            Self::PortTaken { .. } => Code::OpConflict,
            Self::SlowStart { .. } => Code::ServiceTimeout,
            Self::Engine(error) => error.code(),
            Self::Guest(error) => error.code(),
            Self::Io { .. } | Self::Keep { .. } => Code::ServiceStorageIo,
            Self::Bus(error) => error.code(),
        }
    }

    fn detail(&self) -> Option<serde_json::Value> {
        Some(match self {
            Self::Unknown { sandbox } => serde_json::json!({"kind": "sandbox", "id": sandbox}),
            Self::NotRunning { lifecycle, .. } => {
                serde_json::json!({"lifecycleState": <&str>::from(*lifecycle)})
            }
            Self::LeaseOver => serde_json::json!({"reason": "expired"}),
            Self::Unavailable { backend, missing } => {
                serde_json::json!({"backend": backend, "missing": missing})
            }
            Self::Engine(error) => return error.detail(),
            Self::Guest(GuestError::Fault(fault)) if !fault.detail.is_empty() => {
                serde_json::json!(fault.detail)
            }
            _ => return None,
        })
    }
}
