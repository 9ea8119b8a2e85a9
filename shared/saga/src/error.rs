//! What can go wrong with a saga as such; failures of steps are [`Fault`](nimbus_errors::Fault)s.

use nimbus_errors::{Code, Coded};
use nimbus_store::StoreError;

/// A failure of the machinery.
#[derive(Debug, thiserror::Error)]
pub enum SagaError {
    /// The database.
    #[error("could not read or write a saga")]
    Store {
        /// Why.
        #[source]
        source: StoreError,
    },
    /// Another replica has claimed the saga.
    #[error("the lease on saga {id} is lost")]
    Fenced {
        /// The saga.
        id: String,
    },
    /// The saga is of another kind or version than the code that should drive it.
    #[error("saga {id} is {found}, not {expected}")]
    WrongName {
        /// The saga.
        id: String,
        /// What the code is.
        expected: &'static str,
        /// What the row says.
        found: String,
    },
    /// The events name a step that the code does not have: an older version must not drive it.
    #[error("saga {id} has a step {step} that this version does not know")]
    UnknownStep {
        /// The saga.
        id: String,
        /// The step.
        step: String,
    },
    /// A word in a row that this version does not have.
    #[error("saga {id} has {found:?} as its {column}, which this version does not know")]
    UnknownWord {
        /// The saga.
        id: String,
        /// Where it stands.
        column: &'static str,
        /// The word.
        found: String,
    },
    /// A kind of work without steps.
    #[error("saga {name} has no steps")]
    NoSteps {
        /// The kind.
        name: &'static str,
    },
    /// Parameters that do not turn into JSON, or stored JSON that is not of the wanted shape.
    #[error("the parameters of saga {id} do not fit")]
    Params {
        /// The saga.
        id: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl From<StoreError> for SagaError {
    fn from(source: StoreError) -> Self {
        Self::Store { source }
    }
}

impl Coded for SagaError {
    fn code(&self) -> Code {
        match self {
            Self::Store { source } => source.code(),
            Self::Fenced { .. } => Code::OpConflict,
            Self::WrongName { .. } | Self::UnknownStep { .. } | Self::NoSteps { .. } => Code::ServiceInternal,
            Self::Params { .. } | Self::UnknownWord { .. } => Code::ServiceStorageCorruption,
        }
    }
}
