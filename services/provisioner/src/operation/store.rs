//! All SQL on operations and idempotency keys.

use nimbus_model::{MachineId, OperationId, Timestamp, UserId};
use nimbus_proto::machine::{OperationKind, OperationState};
use nimbus_store::{Store, StoreError, Tx, both, reading, sqlx};

use super::OperationRow;

/// What a new row says.
pub(crate) struct NewOperation {
    pub(crate) id: OperationId,
    pub(crate) kind: OperationKind,
    pub(crate) owner: UserId,
    pub(crate) machine: MachineId,
    pub(crate) hostname: String,
    pub(crate) steps: String,
    pub(crate) key_name: Option<String>,
    /// Sealed.
    pub(crate) private_key: Option<String>,
    pub(crate) at: Timestamp,
    pub(crate) trace_parent: Option<String>,
}

const INSERT: &str = "INSERT INTO provisioner_operation
    (id, kind, state, owner, machine, hostname, steps, key_name, private_key, created_at, trace_parent)
    VALUES ($1, $2, 'queued', $3, $4, $5, $6, $7, $8, $9, $10) RETURNING *";

/// Writes the row.
pub(crate) async fn insert(tx: &mut Tx, new: &NewOperation) -> Result<OperationRow, StoreError> {
    let kind: &'static str = new.kind.into();
    both!(tx, |c| sqlx::query_as(INSERT)
        .bind(new.id)
        .bind(kind)
        .bind(new.owner)
        .bind(new.machine)
        .bind(&new.hostname)
        .bind(&new.steps)
        .bind(&new.key_name)
        .bind(&new.private_key)
        .bind(new.at)
        .bind(&new.trace_parent)
        .fetch_one(c)
        .await)
}

const BY_ID: &str = "SELECT * FROM provisioner_operation WHERE id = $1";

/// One row.
pub(crate) async fn find(store: &Store, id: OperationId) -> Result<Option<OperationRow>, StoreError> {
    reading!(store, |c| sqlx::query_as(BY_ID).bind(id).fetch_optional(c).await)
}

/// One row, as the transaction sees it.
pub(crate) async fn find_in(tx: &mut Tx, id: OperationId) -> Result<Option<OperationRow>, StoreError> {
    both!(tx, |c| sqlx::query_as(BY_ID).bind(id).fetch_optional(c).await)
}

const OF_OWNER: &str = "SELECT * FROM provisioner_operation WHERE owner = $1 ORDER BY id DESC LIMIT $2";

/// The owner's operations, newest first.
pub(crate) async fn of_owner(
    store: &Store,
    owner: UserId,
    limit: u32,
) -> Result<Vec<OperationRow>, StoreError> {
    reading!(store, |c| sqlx::query_as(OF_OWNER)
        .bind(owner)
        .bind(i64::from(limit))
        .fetch_all(c)
        .await)
}

/// What changes in a row.
#[derive(Default)]
pub(crate) struct Progress {
    pub(crate) steps: String,
    pub(crate) state: Option<OperationState>,
    pub(crate) result: Option<String>,
    pub(crate) fault: Option<String>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Option<Timestamp>,
    /// Whether a private key that was not claimed goes: what it opened is not there.
    pub(crate) drop_key: bool,
}

const PROGRESS: &str = "UPDATE provisioner_operation SET
    steps = $2, state = COALESCE($3, state), result = COALESCE($4, result), fault = COALESCE($5, fault),
    started_at = COALESCE(started_at, $6), finished_at = COALESCE($7, finished_at),
    private_key = CASE WHEN $8 = 1 THEN NULL ELSE private_key END
    WHERE id = $1 RETURNING *";

/// Records progress.
pub(crate) async fn progress(
    tx: &mut Tx,
    id: OperationId,
    change: &Progress,
) -> Result<Option<OperationRow>, StoreError> {
    let state: Option<&'static str> = change.state.map(Into::into);
    both!(tx, |c| sqlx::query_as(PROGRESS)
        .bind(id)
        .bind(&change.steps)
        .bind(state)
        .bind(&change.result)
        .bind(&change.fault)
        .bind(change.started_at)
        .bind(change.finished_at)
        .bind(i64::from(change.drop_key))
        .fetch_optional(c)
        .await)
}

const CLAIM: &str = "UPDATE provisioner_operation SET private_key = NULL
    WHERE id = $1 AND owner = $2 AND state = 'succeeded' AND private_key = $3 RETURNING *";

/// Takes the sealed private key out of the row; `None` when somebody was faster.
pub(crate) async fn claim_key(
    tx: &mut Tx,
    id: OperationId,
    owner: UserId,
    sealed: &str,
) -> Result<Option<OperationRow>, StoreError> {
    both!(tx, |c| sqlx::query_as(CLAIM)
        .bind(id)
        .bind(owner)
        .bind(sealed)
        .fetch_optional(c)
        .await)
}

const EXPIRE_KEYS: &str =
    "UPDATE provisioner_operation SET private_key = NULL WHERE private_key IS NOT NULL AND finished_at < $1";
const EXPIRE_REQUESTS: &str = "DELETE FROM provisioner_request WHERE created_at < $1";

/// Forgets private keys that nobody claimed and idempotency keys that nobody repeats any more.
pub(crate) async fn expire(tx: &mut Tx, before: Timestamp) -> Result<u64, StoreError> {
    let keys: u64 = both!(tx, |c| sqlx::query(EXPIRE_KEYS)
        .bind(before)
        .execute(&mut *c)
        .await
        .map(|r| r.rows_affected()))?;
    let requests: u64 = both!(tx, |c| sqlx::query(EXPIRE_REQUESTS)
        .bind(before)
        .execute(&mut *c)
        .await
        .map(|r| r.rows_affected()))?;
    Ok(keys + requests)
}

const INSERT_REQUEST: &str = "INSERT INTO provisioner_request (owner, key, hash, operation, created_at)
    VALUES ($1, $2, $3, $4, $5) ON CONFLICT (owner, key) DO NOTHING";
const BY_REQUEST: &str = "SELECT hash, operation FROM provisioner_request WHERE owner = $1 AND key = $2";

/// Remembers which operation a key made; `false` when the key is there already.
pub(crate) async fn remember(
    tx: &mut Tx,
    owner: UserId,
    key: &str,
    hash: &str,
    operation: OperationId,
    at: Timestamp,
) -> Result<bool, StoreError> {
    let rows: u64 = both!(tx, |c| sqlx::query(INSERT_REQUEST)
        .bind(owner)
        .bind(key)
        .bind(hash)
        .bind(operation)
        .bind(at)
        .execute(c)
        .await
        .map(|r| r.rows_affected()))?;
    Ok(rows == 1)
}

/// The hash and the operation of a key.
pub(crate) async fn remembered(
    store: &Store,
    owner: UserId,
    key: &str,
) -> Result<Option<(String, OperationId)>, StoreError> {
    reading!(store, |c| sqlx::query_as(BY_REQUEST)
        .bind(owner)
        .bind(key)
        .fetch_optional(c)
        .await)
}
