//! The context of a running service.

use std::error::Error;
use std::sync::Arc;

use nimbus_bus::{Bus, BusError};
use nimbus_model::Clock;
use nimbus_store::{Database, Migration, Sealer, Store, StoreError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Tasks;

/// Everything a service needs from the process it runs in. Clones share.
#[derive(Clone)]
pub struct Ctx {
    /// The service's own connection, with its own credential.
    pub bus: Bus,
    /// The database; none for services without state.
    pub database: Option<Database>,
    /// Encrypts what must not be readable in the database; none for services without secrets.
    pub sealer: Option<Sealer>,
    /// The wall clock.
    pub clock: Clock,
    /// Background work of this service.
    pub tasks: Tasks,
    /// Fires when the service shall end.
    pub stop: CancellationToken,
    /// Name of this replica, unique in the deployment; owner of leases.
    pub instance: String,
    /// Told once, when every subscription is live.
    pub ready: Ready,
}

impl Ctx {
    /// Opens the service's own tables and brings them up to date.
    ///
    /// # Errors
    /// When the process has no database, or a migration fails.
    pub async fn store(
        &self,
        service: &'static str,
        migrations: &'static [Migration],
    ) -> Result<Store, RunError> {
        let database = self
            .database
            .as_ref()
            .ok_or_else(|| RunError::missing(service, "a database"))?;
        Ok(database.store(service, migrations).await?)
    }

    /// The sealer.
    ///
    /// # Errors
    /// When the process has none.
    pub fn sealer(&self, service: &'static str) -> Result<Sealer, RunError> {
        self.sealer
            .clone()
            .ok_or_else(|| RunError::missing(service, "an encryption key"))
    }

    /// Says that the service answers, then waits until it shall end.
    pub async fn ready(&self) {
        self.ready.tell();
        self.stop.cancelled().await;
    }
}

/// Whether a service answers already. Clones share.
#[derive(Clone, Debug)]
pub struct Ready(Arc<watch::Sender<bool>>);

impl Default for Ready {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Ready {
    /// Says so.
    pub fn tell(&self) {
        self.0.send_replace(true);
    }

    /// Whether it was said.
    #[must_use]
    pub fn is_told(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is said.
    pub async fn wait(&self) {
        // The sender lives in `self`, so the only way out is the wanted value.
        let _ = self.0.subscribe().wait_for(|ready| *ready).await;
    }
}

/// Why a service, or one of its background tasks, ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The process does not have what the service needs.
    #[error("{service} needs {what}, which this process does not have")]
    Missing {
        /// Which service.
        service: &'static str,
        /// What it needs.
        what: &'static str,
    },
    /// The bus failed.
    #[error("the bus failed")]
    Bus(#[source] BusError),
    /// The database failed.
    #[error("the database failed")]
    Store(#[source] StoreError),
    /// Another service answered with a failure.
    #[error("another service failed")]
    Fault(#[source] nimbus_errors::Fault),
    /// Anything else, named.
    #[error("{what}")]
    Other {
        /// What was being done.
        what: String,
        /// What went wrong.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl RunError {
    const fn missing(service: &'static str, what: &'static str) -> Self {
        Self::Missing { service, what }
    }

    /// An error of another kind.
    pub fn other(what: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Other {
            what: what.into(),
            source: source.into(),
        }
    }
}

impl From<BusError> for RunError {
    fn from(error: BusError) -> Self {
        Self::Bus(error)
    }
}

impl From<StoreError> for RunError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<nimbus_errors::Fault> for RunError {
    fn from(fault: nimbus_errors::Fault) -> Self {
        Self::Fault(fault)
    }
}
