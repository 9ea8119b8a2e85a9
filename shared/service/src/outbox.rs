//! A change and its event are one transaction: the event is written beside the change, and a relay
//! publishes it afterwards.
//!
//! ```sql
//! CREATE TABLE <service>_outbox (id TEXT PRIMARY KEY, body TEXT NOT NULL, created_at BIGINT NOT NULL);
//! ```
//!
//! Event ids sort by time, so the relay sends them in the order they were written. Two replicas may
//! send the same event; the stream drops the second by its id.

use std::sync::Arc;
use std::time::Duration;

use nimbus_bus::{Bus, CloudEvent};
use nimbus_store::{Store, StoreError, Tx, both, reading, sqlx};
use tokio::sync::Notify;

use crate::{OnError, RunError, Tasks};

/// How long events of a replica that died may lie before another sends them.
const SWEEP: Duration = Duration::from_secs(2);
const BATCH: i64 = 128;

/// The outbox of one service. Clones share.
#[derive(Clone)]
pub struct Outbox {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    waiting: Notify,
    insert: String,
    select: String,
    delete: String,
}

impl Outbox {
    /// The outbox in `table`, which the service's migrations made.
    #[must_use]
    pub fn new(store: Store, table: &'static str) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                waiting: Notify::new(),
                insert: format!("INSERT INTO {table} (id, body, created_at) VALUES ($1, $2, $3)"),
                select: format!("SELECT id, body FROM {table} ORDER BY id LIMIT $1"),
                delete: format!("DELETE FROM {table} WHERE id = $1"),
            }),
        }
    }

    /// Writes an event beside the change that it tells of. Call [`Outbox::nudge`] after the commit.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn push(&self, tx: &mut Tx, event: &CloudEvent) -> Result<(), StoreError> {
        // An envelope of JSON values always encodes; should that ever fail, the change must not be lost with it.
        let Ok(body) = serde_json::to_string(event) else {
            return Ok(());
        };
        let (id, at) = (event.id, event.time);
        both!(tx, |c| sqlx::query(sqlx::AssertSqlSafe(
            self.inner.insert.clone()
        ))
        .bind(id)
        .bind(body)
        .bind(at)
        .execute(c)
        .await
        .map(|_| ()))
    }

    /// Wakes the relay; without it events wait up to two seconds.
    pub fn nudge(&self) {
        self.inner.waiting.notify_one();
    }

    /// Starts the relay.
    pub fn relay(&self, tasks: &Tasks, bus: &Bus, name: &'static str) {
        let (outbox, bus) = (self.clone(), bus.clone());
        tasks.spawn(name, OnError::Restart, move || {
            let (outbox, bus) = (outbox.clone(), bus.clone());
            async move {
                loop {
                    while outbox.send_batch(&bus).await? {}
                    // Elapsed is as good as notified: both mean look again.
                    let _ = tokio::time::timeout(SWEEP, outbox.inner.waiting.notified()).await;
                }
            }
        });
    }

    async fn send_batch(&self, bus: &Bus) -> Result<bool, RunError> {
        let rows: Vec<(String, String)> = reading!(&self.inner.store, |c| sqlx::query_as(
            sqlx::AssertSqlSafe(self.inner.select.clone())
        )
        .bind(BATCH)
        .fetch_all(c)
        .await)?;
        if rows.is_empty() {
            return Ok(false);
        }
        let mut sent = Vec::with_capacity(rows.len());
        for (id, body) in rows {
            match serde_json::from_str::<CloudEvent>(&body) {
                Ok(event) => bus.publish(&event).await?,
                // It was written by us; if it cannot be read it never will be, and must not block the rest.
                Err(error) => {
                    tracing::error!(event.id = %id, cause = %error, "dropped an event that cannot be read")
                }
            }
            sent.push(id);
        }
        let delete = self.inner.delete.clone();
        self.inner
            .store
            .write(move |tx| {
                Box::pin(async move {
                    for id in sent {
                        both!(tx, |c| sqlx::query(sqlx::AssertSqlSafe(delete.clone()))
                            .bind(id)
                            .execute(c)
                            .await
                            .map(|_| ()))?;
                    }
                    Ok::<_, StoreError>(())
                })
            })
            .await?;
        Ok(true)
    }
}
