//! Who else learns of events.

use async_trait::async_trait;
use nimbus_store::{StoreError, Tx};

use crate::{Event, State};

/// An event with the saga it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct SagaEvent {
    /// The saga's id.
    pub saga: String,
    /// Its kind.
    pub name: String,
    /// Where the saga is once this event (and those written together with it) is committed.
    pub state: State,
    /// Whether this is the last event of those written together: [`SagaEvent::state`] holds from here.
    pub last: bool,
    /// The event.
    pub event: Event,
}

/// Learns of every event, in the transaction that writes it.
///
/// The place for what must be true exactly when the event is: the outbox row of a progress event, the
/// status of the row that the saga works on.
#[async_trait]
pub trait Observer: Send + Sync {
    /// Runs inside the transaction, which other sagas may share: only the database, and quickly.
    /// An error undoes the event; a lasting one stops the saga, so return only the database's own.
    async fn on_event(&self, tx: &mut Tx, event: &SagaEvent) -> Result<(), StoreError>;

    /// Runs after the commit: wake whoever waits. Not called when the process dies in between.
    fn committed(&self, _event: &SagaEvent) {}
}

/// Nobody listens.
pub(crate) struct Silent;

#[async_trait]
impl Observer for Silent {
    async fn on_event(&self, _tx: &mut Tx, _event: &SagaEvent) -> Result<(), StoreError> {
        Ok(())
    }
}
