//! A pool per service, each confined to the service's schema.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::StoreError;

/// Connections per service and process. Replicas × services × this must stay below the server's
/// `max_connections` (100 by default).
const CONNECTIONS: u32 = 8;

/// How long a transaction waits for a connection before it is `Busy`.
const CONNECTION_WAIT: Duration = Duration::from_secs(10);

/// What is known of the server, and the pools made so far.
#[derive(Debug)]
pub(crate) struct Server {
    options: PgConnectOptions,
    pools: Mutex<BTreeMap<String, PgPool>>,
}

impl Server {
    pub(crate) fn new(url: &SecretString) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url.expose_secret())?;
        Ok(Self {
            options,
            pools: Mutex::default(),
        })
    }

    /// The pool of one service. Connections are made when they are needed.
    ///
    /// A broken transaction must not hold its locks for ever when the network swallows its process,
    /// so the server ends what sits idle in a transaction: ours never wait for anything.
    pub(crate) fn pool(&self, service: &str) -> PgPool {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(service).filter(|pool| !pool.is_closed()) {
            return pool.clone();
        }
        let options = self
            .options
            .clone()
            .application_name(&format!("nimbus {service}"))
            .options([
                ("search_path", service),
                ("idle_in_transaction_session_timeout", "10000"),
            ]);
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .min_connections(0)
            .acquire_timeout(CONNECTION_WAIT)
            .idle_timeout(Duration::from_secs(300))
            .connect_lazy_with(options);
        pools.insert(service.to_owned(), pool.clone());
        pool
    }

    pub(crate) async fn close(&self) {
        let pools: Vec<PgPool> = {
            let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *pools).into_values().collect()
        };
        futures::future::join_all(pools.iter().map(PgPool::close)).await;
    }
}
