//! What can go wrong with GPU jobs.

use nimbus_bus::BusError;
use nimbus_errors::{Code, Coded};
use nimbus_model::JobId;
use nimbus_proto::gpu::JobState;
use nimbus_store::{SealError, StoreError};

/// A failure of the GPU plane.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GpuError {
    /// No box, or turned off.
    #[error("{reason}")]
    NotConfigured {
        /// Which.
        reason: &'static str,
    },
    /// A value that cannot be.
    #[error("{field}: {reason}")]
    Invalid {
        /// Of which field.
        field: &'static str,
        /// Why not.
        reason: String,
    },
    /// More jobs than allowed.
    #[error("{active} jobs are queued and running, {quota} are allowed")]
    Quota {
        /// How many there are.
        active: i64,
        /// How many may be.
        quota: i64,
    },
    /// Not there, or not the caller's.
    #[error("there is no {what}")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// The job has ended.
    #[error("{job} has {state} already")]
    Terminal {
        /// Which job.
        job: JobId,
        /// How.
        state: JobState,
    },
    /// The job is past the point where this makes sense.
    #[error("{job} is not queued any more")]
    NotQueued {
        /// Which job.
        job: JobId,
    },
    /// Only administrators may.
    #[error("only administrators {what}")]
    AdminOnly {
        /// What they may do.
        what: &'static str,
    },
    /// The token is not the one to pair with.
    #[error("{reason}")]
    Pairing {
        /// Why.
        reason: &'static str,
    },
    /// No such worker, or not its token.
    #[error("this box is not paired, or its credential was replaced")]
    UnknownWorker,
    /// The system has no random numbers.
    #[error("the system gives no random numbers")]
    Random,
    /// A body that is not what it should be.
    #[error("could not read what the box said")]
    Body {
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A secret could not be sealed or opened.
    #[error("a secret could not be used")]
    Seal {
        /// Why.
        #[source]
        source: SealError,
    },
    /// The bus failed.
    #[error("the bus failed")]
    Bus {
        /// How.
        #[source]
        source: BusError,
    },
    /// The database failed.
    #[error("the database failed")]
    Store {
        /// How.
        #[source]
        source: StoreError,
    },
}

impl GpuError {
    pub(crate) fn invalid(field: &'static str, reason: impl Into<String>) -> Self {
        Self::Invalid {
            field,
            reason: reason.into(),
        }
    }

    pub(crate) fn no_job(job: impl std::fmt::Display) -> Self {
        Self::NotFound {
            what: format!("job {job}"),
        }
    }

    pub(crate) fn no_worker(worker: impl std::fmt::Display) -> Self {
        Self::NotFound {
            what: format!("GPU box {worker}"),
        }
    }

    /// Of a row that this version cannot have written.
    pub(crate) fn damaged(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Store {
            source: StoreError::from(sqlx::Error::Decode(Box::new(error))),
        }
    }
}

impl From<StoreError> for GpuError {
    fn from(source: StoreError) -> Self {
        Self::Store { source }
    }
}

impl From<BusError> for GpuError {
    fn from(source: BusError) -> Self {
        Self::Bus { source }
    }
}

impl From<SealError> for GpuError {
    fn from(source: SealError) -> Self {
        Self::Seal { source }
    }
}

impl Coded for GpuError {
    fn code(&self) -> Code {
        match self {
            Self::NotConfigured { .. } => Code::GpuNotConfigured,
            Self::Invalid { .. } | Self::Body { .. } => Code::OpInvalidInput,
            Self::Quota { .. } => Code::GpuQuotaExceeded,
            Self::NotFound { .. } => Code::OpNotFound,
            Self::Terminal { .. } => Code::GpuJobTerminal,
            Self::NotQueued { .. } => Code::OpConflict,
            Self::AdminOnly { .. } => Code::AuthForbidden,
            Self::Pairing { .. } => Code::GpuPairingInvalid,
            Self::UnknownWorker => Code::GpuWorkerUnknown,
            Self::Random => Code::ServiceInternal,
            Self::Seal { source } => source.code(),
            Self::Bus { source } => source.code(),
            Self::Store { source } => source.code(),
        }
    }

    fn detail(&self) -> Option<serde_json::Value> {
        match self {
            Self::Invalid { field, .. } => Some(serde_json::json!({ "field": field })),
            Self::Quota { active, quota } => Some(serde_json::json!({ "active": active, "quota": quota })),
            _ => None,
        }
    }
}
