//! Which sagas this process drives at the moment.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// The sagas of this process, each with the signal that it was asked to cancel.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    driving: Mutex<HashMap<String, CancellationToken>>,
}

impl Registry {
    /// A place for the saga, unless it has one: a process must not take its own lease away.
    pub(crate) fn enter(self: &Arc<Self>, id: &str) -> Option<Slot> {
        let mut driving = self.driving.lock().unwrap_or_else(PoisonError::into_inner);
        if driving.contains_key(id) {
            return None;
        }
        let cancel = CancellationToken::new();
        driving.insert(id.to_owned(), cancel.clone());
        Some(Slot {
            registry: Arc::clone(self),
            id: id.to_owned(),
            cancel,
        })
    }

    /// Tells the driver, if it is here.
    pub(crate) fn cancel(&self, id: &str) {
        if let Some(cancel) = self
            .driving
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
        {
            cancel.cancel();
        }
    }
}

/// A saga's place; free again when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    registry: Arc<Registry>,
    id: String,
    pub(crate) cancel: CancellationToken,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.registry
            .driving
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.id);
    }
}
