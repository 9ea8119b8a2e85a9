//! All SQL of the pool.

use std::net::Ipv4Addr;

use nimbus_model::{MachineId, Timestamp};
use nimbus_proto::ippool::PoolStatus;
use nimbus_store::{Store, StoreError, Tx, both, reading, sqlx};

use crate::range::Range;
use crate::state::Row;

macro_rules! columns {
    () => {
        "ord, status, source, machine, vmid, hostname, node, reserved_at, allocated_at, last_seen_at, missed_cycles, version"
    };
}

#[derive(sqlx_macros::FromRow)]
struct Stored {
    ord: i64,
    status: String,
    source: String,
    machine: Option<MachineId>,
    vmid: Option<i64>,
    hostname: Option<String>,
    node: Option<String>,
    reserved_at: Option<Timestamp>,
    allocated_at: Option<Timestamp>,
    last_seen_at: Option<Timestamp>,
    missed_cycles: i64,
    version: i64,
}

impl TryFrom<Stored> for Row {
    type Error = StoreError;

    fn try_from(stored: Stored) -> Result<Self, StoreError> {
        fn damaged(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
            StoreError::from(sqlx::Error::Decode(Box::new(error)))
        }
        Ok(Self {
            ip: Ipv4Addr::from(u32::try_from(stored.ord).map_err(damaged)?),
            status: stored.status.parse().map_err(damaged)?,
            source: stored.source.parse().map_err(damaged)?,
            machine: stored.machine,
            vmid: stored.vmid.map(u32::try_from).transpose().map_err(damaged)?,
            hostname: stored.hostname,
            node: stored.node,
            reserved_at: stored.reserved_at,
            allocated_at: stored.allocated_at,
            last_seen_at: stored.last_seen_at,
            missed_cycles: u32::try_from(stored.missed_cycles).map_err(damaged)?,
            version: stored.version,
        })
    }
}

/// `WHERE TRUE` lets SQLite tell ON CONFLICT from a join's ON.
const ADD_RANGE: &str = "WITH RECURSIVE wanted (ord) AS (
        SELECT CAST($1 AS BIGINT) UNION ALL SELECT ord + 1 FROM wanted WHERE ord < $2)
    INSERT INTO ippool_address (ord) SELECT ord FROM wanted WHERE TRUE ON CONFLICT (ord) DO NOTHING";

pub(crate) async fn add_range(tx: &mut Tx, range: Range) -> Result<u64, StoreError> {
    both!(tx, |c| sqlx::query(ADD_RANGE)
        .bind(range.first())
        .bind(range.last())
        .execute(c)
        .await
        .map(|done| done.rows_affected()))
}

const DROP_FREE_OUTSIDE: &str = "DELETE FROM ippool_address WHERE status = 'free' AND (ord < $1 OR ord > $2)";

pub(crate) async fn drop_free_outside(tx: &mut Tx, range: Range) -> Result<u64, StoreError> {
    both!(tx, |c| sqlx::query(DROP_FREE_OUTSIDE)
        .bind(range.first())
        .bind(range.last())
        .execute(c)
        .await
        .map(|done| done.rows_affected()))
}

const LOWEST_FREE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM ippool_address WHERE status = 'free' AND ord BETWEEN $1 AND $2 ORDER BY ord LIMIT 1"
);

/// On PostgreSQL the row is locked and rows that others are taking are passed over: without that the
/// second of two writers waits, finds its row taken and sees no free address.
pub(crate) async fn lowest_free(tx: &mut Tx, store: &Store, range: Range) -> Result<Option<Row>, StoreError> {
    let sql = format!("{LOWEST_FREE}{}", store.skip_locked());
    let found: Option<Stored> = both!(tx, |c| sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(range.first())
        .bind(range.last())
        .fetch_optional(c)
        .await)?;
    found.map(Row::try_from).transpose()
}

const FIND_MACHINE: &str = concat!("SELECT ", columns!(), " FROM ippool_address WHERE machine = $1");

pub(crate) async fn find_machine(
    tx: &mut Tx,
    store: &Store,
    machine: MachineId,
) -> Result<Option<Row>, StoreError> {
    let sql = format!("{FIND_MACHINE}{}", store.select_for_update_suffix());
    let found: Option<Stored> = both!(tx, |c| sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(machine)
        .fetch_optional(c)
        .await)?;
    found.map(Row::try_from).transpose()
}

const FIND: &str = concat!("SELECT ", columns!(), " FROM ippool_address WHERE ord = $1");

pub(crate) async fn find(tx: &mut Tx, store: &Store, ip: Ipv4Addr) -> Result<Option<Row>, StoreError> {
    let sql = format!("{FIND}{}", store.select_for_update_suffix());
    let ord = i64::from(u32::from(ip));
    let found: Option<Stored> = both!(tx, |c| sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(ord)
        .fetch_optional(c)
        .await)?;
    found.map(Row::try_from).transpose()
}

const LIST: &str = concat!("SELECT ", columns!(), " FROM ippool_address ORDER BY ord");

pub(crate) async fn list(store: &Store) -> Result<Vec<Row>, StoreError> {
    let rows: Vec<Stored> = reading!(store, |c| sqlx::query_as(LIST).fetch_all(c).await)?;
    rows.into_iter().map(Row::try_from).collect()
}

const SAVE: &str =
    "UPDATE ippool_address SET status = $3, source = $4, machine = $5, vmid = $6, hostname = $7, node = $8,
        reserved_at = $9, allocated_at = $10, last_seen_at = $11, missed_cycles = $12, version = version + 1
    WHERE ord = $1 AND version = $2";

/// Writes `new` where the row is still `old`; false: somebody was faster.
pub(crate) async fn save(tx: &mut Tx, old: &Row, new: &Row) -> Result<bool, StoreError> {
    let changed = both!(tx, |c| sqlx::query(SAVE)
        .bind(old.ord())
        .bind(old.version)
        .bind(<&'static str>::from(new.status))
        .bind(<&'static str>::from(new.source))
        .bind(new.machine)
        .bind(new.vmid.map(i64::from))
        .bind(new.hostname.as_deref())
        .bind(new.node.as_deref())
        .bind(new.reserved_at)
        .bind(new.allocated_at)
        .bind(new.last_seen_at)
        .bind(i64::from(new.missed_cycles))
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

const DELETE: &str = "DELETE FROM ippool_address WHERE ord = $1 AND version = $2";

pub(crate) async fn delete(tx: &mut Tx, old: &Row) -> Result<bool, StoreError> {
    let deleted = both!(tx, |c| sqlx::query(DELETE)
        .bind(old.ord())
        .bind(old.version)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(deleted == 1)
}

const STATUS: &str = "SELECT COUNT(*), COUNT(*) FILTER (WHERE status = 'free'),
        COUNT(*) FILTER (WHERE status = 'reserved'), COUNT(*) FILTER (WHERE status = 'allocated')
    FROM ippool_address WHERE ord BETWEEN $1 AND $2";

pub(crate) async fn status(store: &Store, range: Range) -> Result<PoolStatus, StoreError> {
    let (total, free, reserved, allocated): (i64, i64, i64, i64) =
        reading!(store, |c| sqlx::query_as(STATUS)
            .bind(range.first())
            .bind(range.last())
            .fetch_one(c)
            .await)?;
    // A pool has at most 65 536 rows.
    let count = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(PoolStatus {
        total: count(total),
        free: count(free),
        reserved: count(reserved),
        allocated: count(allocated),
    })
}

const CLAIM_RECONCILE: &str = "UPDATE ippool_run SET at = $1 WHERE name = 'reconcile' AND at <= $2";

pub(crate) async fn claim_reconcile(
    tx: &mut Tx,
    now: Timestamp,
    latest: Timestamp,
) -> Result<bool, StoreError> {
    let claimed = both!(tx, |c| sqlx::query(CLAIM_RECONCILE)
        .bind(now)
        .bind(latest)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(claimed == 1)
}
