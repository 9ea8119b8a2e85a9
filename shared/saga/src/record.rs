//! Sagas as they come out of the tables.

use nimbus_model::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::lease::Slot;
use crate::{Event, SagaError, State};

/// A saga that this process may drive, as of its claim. Dropping it does not give the lease back.
#[derive(Debug)]
pub struct Claimed {
    pub(crate) key: Key,
    pub(crate) params: Value,
    /// Nobody drove it before.
    pub(crate) fresh: bool,
    pub(crate) until: Timestamp,
    pub(crate) events: Vec<Event>,
    pub(crate) slot: Slot,
}

/// What every write of a driver is checked against.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) owner: String,
    pub(crate) fence: i64,
}

/// A saga as it stands in the tables.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its id.
    pub id: String,
    /// Its kind.
    pub name: String,
    /// What it was created with.
    pub params: Value,
    /// Where it is.
    pub state: State,
    /// Who drives it; empty if nobody does.
    pub owner: String,
    /// Until when, unless renewed.
    pub owner_until: Timestamp,
    /// Whether somebody asked to cancel it.
    pub cancel: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// When something last happened.
    pub updated_at: Timestamp,
    /// Everything that happened.
    pub events: Vec<Event>,
}

impl Claimed {
    /// The saga's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.key.id
    }

    /// Its kind: says which [`Saga`] to make from the parameters.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.key.name
    }

    /// What it was created with.
    ///
    /// # Errors
    /// [`SagaError::Params`] if they are of another shape.
    pub fn params<T: DeserializeOwned>(&self) -> Result<T, SagaError> {
        T::deserialize(&self.params).map_err(|source| SagaError::Params {
            id: self.key.id.clone(),
            source,
        })
    }

    /// What has happened so far.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }
}
