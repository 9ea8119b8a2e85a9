//! A host as it is stored, and all SQL of it.

use nimbus_model::Timestamp;
use nimbus_proto::workloads::{BeatRequest, Host, HostFacts, Resources};
use nimbus_store::{Store, StoreError, Tx, both, execute, reading, sqlx};

use crate::config::WorkloadsConfig;
use crate::error::WorkError;
use crate::tenants::row::big;

/// A host.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HostRow {
    pub(crate) name: String,
    pub(crate) boot: String,
    pub(crate) facts: HostFacts,
    /// Digests and references.
    pub(crate) images: Vec<String>,
    pub(crate) warm: Vec<(String, u32)>,
    pub(crate) seen_at: Timestamp,
    pub(crate) lost: bool,
    pub(crate) used_cpu: u64,
    pub(crate) used_memory: u64,
    pub(crate) used_disk: u64,
    pub(crate) sandboxes: u64,
}

impl HostRow {
    pub(crate) fn shown(&self) -> Host {
        Host {
            name: self.name.clone(),
            facts: self.facts.clone(),
            seen_at: self.seen_at,
            lost: self.lost,
            used_cpu_milli: u32::try_from(self.used_cpu).unwrap_or(u32::MAX),
            used_memory_bytes: self.used_memory,
            sandboxes: u32::try_from(self.sandboxes).unwrap_or(u32::MAX),
            warm: self.warm.clone(),
        }
    }

    /// What may be given out of it.
    pub(crate) fn room(&self, config: &WorkloadsConfig) -> Room {
        Room {
            cpu: scaled(u64::from(self.facts.cpu_milli), config.cpu_overcommit),
            memory: scaled(self.facts.memory_bytes, config.memory_overcommit),
        }
    }
}

/// Bounds on what sandboxes of one host may have together. Disk is what the host's own quota says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) cpu: u64,
    pub(crate) memory: u64,
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a capacity, rounded to what a float can tell apart"
)]
fn scaled(amount: u64, factor: f64) -> u64 {
    // `as` stops at the ends of the type.
    (amount as f64 * factor) as u64
}

macro_rules! columns {
    () => {
        "name, boot, facts, images, warm, seen_at, lost, used_cpu, used_memory, used_disk, sandboxes"
    };
}

#[derive(sqlx_macros::FromRow)]
struct Stored {
    name: String,
    boot: String,
    facts: String,
    images: String,
    warm: String,
    seen_at: Timestamp,
    lost: i64,
    used_cpu: i64,
    used_memory: i64,
    used_disk: i64,
    sandboxes: i64,
}

impl TryFrom<Stored> for HostRow {
    type Error = StoreError;

    fn try_from(stored: Stored) -> Result<Self, StoreError> {
        let damaged = |error: serde_json::Error| StoreError::from(sqlx::Error::Decode(Box::new(error)));
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        Ok(Self {
            name: stored.name,
            boot: stored.boot,
            facts: serde_json::from_str(&stored.facts).map_err(damaged)?,
            images: serde_json::from_str(&stored.images).map_err(damaged)?,
            warm: serde_json::from_str(&stored.warm).map_err(damaged)?,
            seen_at: stored.seen_at,
            lost: stored.lost != 0,
            used_cpu: count(stored.used_cpu),
            used_memory: count(stored.used_memory),
            used_disk: count(stored.used_disk),
            sandboxes: count(stored.sandboxes),
        })
    }
}

const LIST: &str = concat!("SELECT ", columns!(), " FROM workloads_host ORDER BY name");

pub(crate) async fn list(store: &Store) -> Result<Vec<HostRow>, StoreError> {
    let rows: Vec<Stored> = reading!(store, |c| sqlx::query_as(LIST).fetch_all(c).await)?;
    rows.into_iter().map(HostRow::try_from).collect()
}

const FIND: &str = concat!("SELECT ", columns!(), " FROM workloads_host WHERE name = $1");

pub(crate) async fn find_in(tx: &mut Tx, name: &str) -> Result<Option<HostRow>, StoreError> {
    let found: Option<Stored> = both!(tx, |c| sqlx::query_as(FIND).bind(name).fetch_optional(c).await)?;
    found.map(HostRow::try_from).transpose()
}

const SEE: &str =
    "INSERT INTO workloads_host (name, boot, facts, images, warm, seen_at) VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (name) DO UPDATE SET boot = excluded.boot, facts = excluded.facts, images = excluded.images,
        warm = excluded.warm, seen_at = excluded.seen_at, lost = 0";

/// Writes down a sign of life; gives the host as it was before and as it is.
pub(crate) async fn see(
    tx: &mut Tx,
    beat: &BeatRequest,
    now: Timestamp,
) -> Result<(Option<HostRow>, HostRow), WorkError> {
    let before = find_in(tx, &beat.host).await?;
    let json = |value: Result<String, serde_json::Error>| value.map_err(WorkError::damaged("a host"));
    execute!(
        tx,
        sqlx::query(SEE)
            .bind(&beat.host)
            .bind(&beat.boot)
            .bind(json(serde_json::to_string(&beat.facts))?)
            .bind(json(serde_json::to_string(&beat.images))?)
            .bind(json(serde_json::to_string(&beat.warm))?)
            .bind(now)
    )?;
    let after = find_in(tx, &beat.host).await?;
    // It was written a moment ago, in this transaction.
    let after = after.ok_or_else(|| WorkError::Raced {
        what: format!("the host {}", beat.host),
    })?;
    Ok((before, after))
}

const LOSE: &str = "UPDATE workloads_host SET lost = 1 WHERE name = $1 AND lost = 0 AND seen_at = $2";

/// Writes down that a host is lost, if it has not been heard of since; gives the host then.
pub(crate) async fn lose(tx: &mut Tx, row: &HostRow) -> Result<Option<HostRow>, StoreError> {
    let lost = execute!(tx, sqlx::query(LOSE).bind(&row.name).bind(row.seen_at))?;
    if lost == 1 {
        find_in(tx, &row.name).await
    } else {
        Ok(None)
    }
}

const FORGET: &str = "DELETE FROM workloads_host WHERE name = $1 AND lost = 1 AND sandboxes = 0";

/// Forgets a host; false: it is not lost, not empty, or not there.
pub(crate) async fn forget(tx: &mut Tx, name: &str) -> Result<bool, StoreError> {
    Ok(execute!(tx, sqlx::query(FORGET).bind(name))? == 1)
}

const CHARGE: &str = "UPDATE workloads_host SET used_cpu = used_cpu + $2, used_memory = used_memory + $3,
        used_disk = used_disk + $4, sandboxes = sandboxes + 1
    WHERE name = $1 AND lost = 0 AND used_cpu + $2 <= $5 AND used_memory + $3 <= $6";

/// Charges a host with one sandbox; false: it has no room, or is lost.
pub(crate) async fn charge(
    tx: &mut Tx,
    name: &str,
    with: &Resources,
    room: Room,
) -> Result<bool, StoreError> {
    let charged = execute!(
        tx,
        sqlx::query(CHARGE)
            .bind(name)
            .bind(i64::from(with.cpu_milli))
            .bind(big(with.memory_bytes))
            .bind(big(with.disk_bytes))
            .bind(big(room.cpu))
            .bind(big(room.memory))
    )?;
    Ok(charged == 1)
}

const GIVE_BACK: &str = "UPDATE workloads_host SET used_cpu = used_cpu - $2, used_memory = used_memory - $3,
        used_disk = used_disk - $4, sandboxes = sandboxes - 1
    WHERE name = $1";

pub(crate) async fn give_back(tx: &mut Tx, name: &str, what: &Resources) -> Result<(), StoreError> {
    execute!(
        tx,
        sqlx::query(GIVE_BACK)
            .bind(name)
            .bind(i64::from(what.cpu_milli))
            .bind(big(what.memory_bytes))
            .bind(big(what.disk_bytes))
    )
    .map(|_| ())
}
