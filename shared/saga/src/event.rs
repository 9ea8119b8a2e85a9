//! What is written down about a saga.

use std::collections::BTreeMap;

use nimbus_errors::{Code, Fault};
use nimbus_model::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Step;

/// What happened. The words are stored: never rename one.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::Display,
    strum::VariantArray,
)]
#[strum(serialize_all = "snake_case")]
pub enum What {
    /// A step is about to act.
    Started,
    /// A step has acted; data: its output.
    Done,
    /// A step failed and will act again; data: the fault.
    Retrying,
    /// A step failed for good, everything is taken back; data: the fault.
    Failed,
    /// Somebody asked to stop; everything is taken back; data: the fault.
    Cancelled,
    /// Another run of the driver takes over a step that was in the middle.
    Resumed,
    /// A step is about to be undone.
    Undoing,
    /// A step was undone.
    Undone,
    /// Undoing a step failed and will be tried again; data: the fault.
    UndoFailed,
    /// Undoing a step failed too often: an operator has to look; data: the fault.
    Stuck,
    /// An operator says: try undoing again.
    Reopened,
}

/// One line of a saga's history.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Position, from 1, without gaps.
    pub seq: i64,
    /// The step it is about.
    pub step: Option<String>,
    /// What happened.
    pub what: What,
    /// An output or a fault.
    pub data: Value,
    /// When.
    pub at: Timestamp,
}

impl Event {
    /// The fault of an event that has one.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        match self.what {
            What::Retrying | What::Failed | What::Cancelled | What::UndoFailed | What::Stuck => {
                Some(serde_json::from_value(self.data.clone()).unwrap_or_else(|_| {
                    Fault::new(
                        Code::ServiceStorageCorruption,
                        "the stored fault could not be read",
                    )
                }))
            }
            _ => None,
        }
    }
}

/// Where a saga is, as its row says it for queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::EnumString, strum::IntoStaticStr, strum::Display)]
#[strum(serialize_all = "snake_case")]
pub enum State {
    /// Acting.
    Running,
    /// Taking back.
    Undoing,
    /// Every step is done.
    Done,
    /// Every started step is undone.
    Undone,
    /// Waits for an operator.
    Stuck,
}

impl State {
    /// Whether nothing more happens by itself.
    #[must_use]
    pub fn is_end(self) -> bool {
        matches!(self, Self::Done | Self::Undone | Self::Stuck)
    }
}

/// The outputs of the steps that are done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outputs(pub(crate) BTreeMap<String, Value>);

impl Outputs {
    /// The output of a step that must be done by now.
    ///
    /// # Errors
    /// A fault (`service.internal`) if it is not, or is of another shape.
    pub fn get<S: Step, T: DeserializeOwned>(&self, step: S) -> Result<T, Fault> {
        let name: &'static str = step.into();
        let value = self.0.get(name).ok_or_else(|| {
            Fault::new(
                Code::ServiceInternal,
                format!("the output of step {name} is needed before the step is done"),
            )
        })?;
        T::deserialize(value).map_err(|error| {
            Fault::new(
                Code::ServiceInternal,
                format!("the output of step {name} does not fit: {error}"),
            )
        })
    }

    /// The output of a step, if it is done and of this shape; for undoing.
    #[must_use]
    pub fn find<S: Step, T: DeserializeOwned>(&self, step: S) -> Option<T> {
        let name: &'static str = step.into();
        self.0.get(name).and_then(|value| T::deserialize(value).ok())
    }

    /// The raw output of a step by its name.
    #[must_use]
    pub fn value(&self, step: &str) -> Option<&Value> {
        self.0.get(step)
    }
}
