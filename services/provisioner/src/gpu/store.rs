//! All SQL on what machines know of GPUs.

use nimbus_model::{MachineId, Timestamp};
use nimbus_store::{Store, StoreError, Tx, both, execute, reading, sqlx};

/// A row of `provisioner_gpu`, without its machine.
#[derive(Clone, Debug, PartialEq, Eq, sqlx_macros::FromRow)]
pub(crate) struct Known {
    pub(crate) told: Option<String>,
    pub(crate) tries: i64,
    pub(crate) due_at: Timestamp,
}

/// Of a machine that nobody ever told anything.
impl Default for Known {
    fn default() -> Self {
        Self {
            told: None,
            tries: 0,
            due_at: Timestamp::from_micros(0),
        }
    }
}

impl Known {
    /// Of a machine that was told this.
    pub(crate) fn told(word: String) -> Self {
        Self {
            told: Some(word),
            ..Self::default()
        }
    }
}

const FIND: &str = "SELECT told, tries, due_at FROM provisioner_gpu WHERE machine = $1";

/// What a machine knows; whoever asks to change it holds the lock of the machine's row.
pub(crate) async fn find(tx: &mut Tx, machine: MachineId) -> Result<Known, StoreError> {
    let found: Option<Known> = both!(tx, |c| sqlx::query_as(FIND).bind(machine).fetch_optional(c).await)?;
    Ok(found.unwrap_or_default())
}

const PUT: &str = "INSERT INTO provisioner_gpu (machine, told, tries, due_at) VALUES ($1, $2, $3, $4)
    ON CONFLICT (machine) DO UPDATE SET told = excluded.told, tries = excluded.tries, due_at = excluded.due_at";

/// Writes what a machine knows.
pub(crate) async fn put(tx: &mut Tx, machine: MachineId, known: &Known) -> Result<(), StoreError> {
    execute!(
        tx,
        sqlx::query(PUT)
            .bind(machine)
            .bind(&known.told)
            .bind(known.tries)
            .bind(known.due_at)
    )?;
    Ok(())
}

const DUE: &str = "SELECT m.id FROM provisioner_machine m LEFT JOIN provisioner_gpu g ON g.machine = m.id
    WHERE m.status = 'running' AND m.operation IS NULL AND m.vmid IS NOT NULL
        AND (g.told IS NULL OR g.told <> $1) AND (g.due_at IS NULL OR g.due_at <= $2)
    ORDER BY COALESCE(g.due_at, 0), m.id LIMIT $3";

/// Machines that run, that nobody works on and that do not know this, those first that wait longest.
pub(crate) async fn due(
    store: &Store,
    word: &str,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<MachineId>, StoreError> {
    reading!(store, |c| sqlx::query_scalar(DUE)
        .bind(word)
        .bind(now)
        .bind(limit)
        .fetch_all(c)
        .await)
}

const GONE: &str = "SELECT g.machine FROM provisioner_gpu g WHERE g.due_at <= $1
    AND NOT EXISTS (SELECT 1 FROM provisioner_machine m WHERE m.id = g.machine) LIMIT $2";

/// Machines that are no more, and that nobody is telling anything.
pub(crate) async fn gone(store: &Store, now: Timestamp, limit: i64) -> Result<Vec<MachineId>, StoreError> {
    reading!(store, |c| sqlx::query_scalar(GONE)
        .bind(now)
        .bind(limit)
        .fetch_all(c)
        .await)
}

const FORGET: &str = "DELETE FROM provisioner_gpu WHERE machine = $1";

/// Forgets what a machine knew.
pub(crate) async fn forget(tx: &mut Tx, machine: MachineId) -> Result<(), StoreError> {
    execute!(tx, sqlx::query(FORGET).bind(machine))?;
    Ok(())
}
