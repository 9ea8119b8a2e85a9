//! All SQL on machines and quotas.

use nimbus_model::{MachineId, OperationId, TenantId, Timestamp, UserId};
use nimbus_proto::machine::MachineStatus;
use nimbus_store::{Store, StoreError, Tx, both, reading, sqlx};

use super::MachineRow;

/// What a new row says.
pub(crate) struct NewMachine {
    pub(crate) id: MachineId,
    pub(crate) owner: UserId,
    pub(crate) tenant: TenantId,
    pub(crate) hostname: String,
    pub(crate) tier: &'static str,
    pub(crate) os: &'static str,
    pub(crate) key_name: Option<String>,
    pub(crate) ssh_pubkey: String,
    pub(crate) tunnel_error: Option<String>,
    pub(crate) operation: OperationId,
    pub(crate) at: Timestamp,
}

const INSERT: &str = "INSERT INTO provisioner_machine
    (id, owner, tenant, hostname, tier, os, status, key_name, ssh_pubkey, tunnel_error, operation, created_at, updated_at)
    VALUES ($1, $2, $3, $4, $5, $6, 'provisioning', $7, $8, $9, $10, $11, $11)
    ON CONFLICT (hostname) DO NOTHING RETURNING *";

/// Writes the row; `None` when the hostname is taken.
pub(crate) async fn insert(tx: &mut Tx, new: &NewMachine) -> Result<Option<MachineRow>, StoreError> {
    both!(tx, |c| sqlx::query_as(INSERT)
        .bind(new.id)
        .bind(new.owner)
        .bind(new.tenant)
        .bind(&new.hostname)
        .bind(new.tier)
        .bind(new.os)
        .bind(&new.key_name)
        .bind(&new.ssh_pubkey)
        .bind(&new.tunnel_error)
        .bind(new.operation)
        .bind(new.at)
        .fetch_optional(c)
        .await)
}

const TAKE_SLOT: &str = "INSERT INTO provisioner_quota (owner, used) VALUES ($1, 1)
    ON CONFLICT (owner) DO UPDATE SET used = provisioner_quota.used + 1 WHERE provisioner_quota.used < $2 RETURNING used";
const GIVE_SLOT: &str = "UPDATE provisioner_quota SET used = used - 1 WHERE owner = $1 AND used > 0";
const USED: &str = "SELECT used FROM provisioner_quota WHERE owner = $1";

/// Takes one of the owner's slots; `false` when none is left.
pub(crate) async fn take_slot(tx: &mut Tx, owner: UserId, limit: i64) -> Result<bool, StoreError> {
    let used: Option<i64> = both!(tx, |c| sqlx::query_scalar(TAKE_SLOT)
        .bind(owner)
        .bind(limit)
        .fetch_optional(c)
        .await)?;
    Ok(used.is_some_and(|used| used <= limit))
}

/// How many slots the owner uses.
pub(crate) async fn slots_used(store: &Store, owner: UserId) -> Result<i64, StoreError> {
    let used: Option<i64> = reading!(store, |c| sqlx::query_scalar(USED)
        .bind(owner)
        .fetch_optional(c)
        .await)?;
    Ok(used.unwrap_or(0))
}

const BY_ID: &str = "SELECT * FROM provisioner_machine WHERE id = $1";
const BY_ID_LOCKED: &str = "SELECT * FROM provisioner_machine WHERE id = $1 FOR UPDATE";

/// One row.
pub(crate) async fn find(store: &Store, id: MachineId) -> Result<Option<MachineRow>, StoreError> {
    reading!(store, |c| sqlx::query_as(BY_ID).bind(id).fetch_optional(c).await)
}

/// One row, locked until the end of the transaction.
pub(crate) async fn lock(tx: &mut Tx, id: MachineId) -> Result<Option<MachineRow>, StoreError> {
    let sql = if tx.engine() == nimbus_store::Engine::Postgres {
        BY_ID_LOCKED
    } else {
        BY_ID
    };
    both!(tx, |c| sqlx::query_as(sql).bind(id).fetch_optional(c).await)
}

const OF_OWNER: &str =
    "SELECT * FROM provisioner_machine WHERE owner = $1 AND id < $2 ORDER BY id DESC LIMIT $3";

/// The owner's machines, newest first, before the given id.
pub(crate) async fn of_owner(
    store: &Store,
    owner: UserId,
    before: Option<MachineId>,
    limit: u32,
) -> Result<Vec<MachineRow>, StoreError> {
    // Sorts after every id: ids are `vm_` and hexadecimal digits.
    let before = before.map_or_else(|| "vm_~".to_owned(), |id| id.to_string());
    reading!(store, |c| sqlx::query_as(OF_OWNER)
        .bind(owner)
        .bind(before)
        .bind(i64::from(limit))
        .fetch_all(c)
        .await)
}

const FINGERPRINT: &str = "SELECT COUNT(*), CAST(COALESCE(SUM(updated_at % 4294967291), 0) AS BIGINT)
    FROM provisioner_machine WHERE owner = $1";

/// Two numbers that change whenever one of the owner's rows does: every change sets `updated_at`. The
/// remainder keeps the sum of many rows within a BIGINT.
pub(crate) async fn fingerprint(store: &Store, owner: UserId) -> Result<(i64, i64), StoreError> {
    reading!(store, |c| sqlx::query_as(FINGERPRINT)
        .bind(owner)
        .fetch_one(c)
        .await)
}

const ALL: &str = "SELECT * FROM provisioner_machine ORDER BY id";

/// Every machine.
pub(crate) async fn all(store: &Store) -> Result<Vec<MachineRow>, StoreError> {
    reading!(store, |c| sqlx::query_as(ALL).fetch_all(c).await)
}

const PLACE: &str =
    "UPDATE provisioner_machine SET node = $2, vmid = $3, updated_at = $4 WHERE id = $1 RETURNING *";
const TAKEN: &str = "SELECT vmid FROM provisioner_machine WHERE vmid IS NOT NULL";

/// Numbers that machines have or are about to have.
pub(crate) async fn vmids(tx: &mut Tx) -> Result<Vec<i64>, StoreError> {
    both!(tx, |c| sqlx::query_scalar(TAKEN).fetch_all(c).await)
}

/// Records where the machine goes. A number that another replica took meanwhile is a unique violation.
pub(crate) async fn place(
    tx: &mut Tx,
    id: MachineId,
    node: &str,
    vmid: i64,
    at: Timestamp,
) -> Result<Option<MachineRow>, StoreError> {
    both!(tx, |c| sqlx::query_as(PLACE)
        .bind(id)
        .bind(node)
        .bind(vmid)
        .bind(at)
        .fetch_optional(c)
        .await)
}

const SET_IP: &str = "UPDATE provisioner_machine SET ip = $2, updated_at = $3 WHERE id = $1 RETURNING *";

/// Records the machine's address.
pub(crate) async fn set_ip(
    tx: &mut Tx,
    id: MachineId,
    ip: &str,
    at: Timestamp,
) -> Result<Option<MachineRow>, StoreError> {
    both!(tx, |c| sqlx::query_as(SET_IP)
        .bind(id)
        .bind(ip)
        .bind(at)
        .fetch_optional(c)
        .await)
}

const SET_STATE: &str =
    "UPDATE provisioner_machine SET status = $2, operation = $3, error_msg = $4, updated_at = $5
    WHERE id = $1 RETURNING *";

/// Records a state, the operation that runs on it, and its message.
pub(crate) async fn set_state(
    tx: &mut Tx,
    id: MachineId,
    status: MachineStatus,
    operation: Option<OperationId>,
    message: Option<&str>,
    at: Timestamp,
) -> Result<Option<MachineRow>, StoreError> {
    let status: &'static str = status.into();
    both!(tx, |c| sqlx::query_as(SET_STATE)
        .bind(id)
        .bind(status)
        .bind(operation)
        .bind(message)
        .bind(at)
        .fetch_optional(c)
        .await)
}

const SET_MESSAGE: &str =
    "UPDATE provisioner_machine SET error_msg = $2, updated_at = $3 WHERE id = $1 RETURNING *";

/// Records the machine's message alone.
pub(crate) async fn set_message(
    tx: &mut Tx,
    id: MachineId,
    message: Option<&str>,
    at: Timestamp,
) -> Result<Option<MachineRow>, StoreError> {
    both!(tx, |c| sqlx::query_as(SET_MESSAGE)
        .bind(id)
        .bind(message)
        .bind(at)
        .fetch_optional(c)
        .await)
}

const SEEN: &str = "UPDATE provisioner_machine SET status = $2, node = $3, missed_cycles = 0, updated_at = $4
    WHERE id = $1 AND operation IS NULL AND (status <> $2 OR node <> $3 OR missed_cycles <> 0) RETURNING *";

/// Records what the cluster shows, unless an operation is running on the machine.
pub(crate) async fn set_seen(
    tx: &mut Tx,
    id: MachineId,
    status: MachineStatus,
    node: &str,
    at: Timestamp,
) -> Result<Option<MachineRow>, StoreError> {
    let status: &'static str = status.into();
    both!(tx, |c| sqlx::query_as(SEEN)
        .bind(id)
        .bind(status)
        .bind(node)
        .bind(at)
        .fetch_optional(c)
        .await)
}

const RENAME: &str = "UPDATE provisioner_machine SET hostname = $2, updated_at = $3
    WHERE id = $1 AND operation IS NULL AND NOT EXISTS (SELECT 1 FROM provisioner_machine other WHERE other.hostname = $2)
    RETURNING *";

/// Follows a name in Proxmox, unless it is another machine's.
pub(crate) async fn rename(
    tx: &mut Tx,
    id: MachineId,
    hostname: &str,
    at: Timestamp,
) -> Result<Option<MachineRow>, StoreError> {
    both!(tx, |c| sqlx::query_as(RENAME)
        .bind(id)
        .bind(hostname)
        .bind(at)
        .fetch_optional(c)
        .await)
}

const SET_NODE: &str = "UPDATE provisioner_machine SET node = $2, updated_at = $3 WHERE id = $1";

/// Records that the machine's VM is on another node.
pub(crate) async fn set_node(
    tx: &mut Tx,
    id: MachineId,
    node: &str,
    at: Timestamp,
) -> Result<(), StoreError> {
    both!(tx, |c| sqlx::query(SET_NODE)
        .bind(id)
        .bind(node)
        .bind(at)
        .execute(c)
        .await
        .map(|_| ()))
}

const MISS: &str = "UPDATE provisioner_machine SET missed_cycles = missed_cycles + 1, updated_at = $3,
    status = CASE WHEN status = 'failed' THEN status ELSE 'unknown' END
    WHERE id = $1 AND operation IS NULL AND missed_cycles = $2 RETURNING *";

/// Counts a reconcile that did not find the machine; two at the same time count once.
pub(crate) async fn miss(
    tx: &mut Tx,
    id: MachineId,
    missed: i64,
    at: Timestamp,
) -> Result<Option<MachineRow>, StoreError> {
    both!(tx, |c| sqlx::query_as(MISS)
        .bind(id)
        .bind(missed)
        .bind(at)
        .fetch_optional(c)
        .await)
}

const DELETE: &str = "DELETE FROM provisioner_machine WHERE id = $1 RETURNING *";
const DELETE_IDLE: &str = "DELETE FROM provisioner_machine WHERE id = $1 AND operation IS NULL RETURNING *";

/// Removes the row and gives its slot back; `None` when it was gone.
pub(crate) async fn remove(tx: &mut Tx, id: MachineId) -> Result<Option<MachineRow>, StoreError> {
    take_out(tx, DELETE, id).await
}

/// As [`remove`], unless an operation is running on the machine.
pub(crate) async fn remove_idle(tx: &mut Tx, id: MachineId) -> Result<Option<MachineRow>, StoreError> {
    take_out(tx, DELETE_IDLE, id).await
}

async fn take_out(tx: &mut Tx, sql: &'static str, id: MachineId) -> Result<Option<MachineRow>, StoreError> {
    let row: Option<MachineRow> = both!(tx, |c| sqlx::query_as(sql).bind(id).fetch_optional(c).await)?;
    if let Some(row) = &row {
        both!(tx, |c| sqlx::query(GIVE_SLOT)
            .bind(row.owner)
            .execute(c)
            .await
            .map(|_| ()))?;
    }
    Ok(row)
}
