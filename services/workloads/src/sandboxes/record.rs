//! A sandbox as it is stored, and all SQL of it.

use std::time::Duration;

use nimbus_model::{Hostname, KeyId, Timestamp};
use nimbus_proto::workloads::{Labels, Owner, Profile, Resources, Sandbox, SandboxStatus, ShownSpec};
use nimbus_store::{Store, StoreError, Tx, both, execute, reading, sqlx};

use crate::error::WorkError;
use crate::kept::Versioned;
use crate::page::Wanted;
use crate::state::Seen;
use crate::tenants::Visible;
use crate::tenants::row::big;

/// A sandbox with what is not shown of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) shown: Sandbox,
    pub(crate) made_by: Option<KeyId>,
    pub(crate) host: Hostname,
    /// Whether it counts against its tenant and host: until it has ended.
    pub(crate) charged: bool,
    /// Why it shall end, if it shall.
    pub(crate) stop_reason: Option<String>,
    /// Whether its host has taken it.
    pub(crate) launched: bool,
    /// Until then its launch is the business of the replica that began it.
    pub(crate) launch_until: Timestamp,
    pub(crate) seen: Seen,
    pub(crate) ended_at: Option<Timestamp>,
    pub(crate) version: i64,
}

impl Versioned for Record {
    fn version(&self) -> i64 {
        self.version
    }
}

impl Record {
    pub(crate) fn id(&self) -> &str {
        &self.shown.id
    }

    pub(crate) fn tenant(&self) -> &str {
        &self.shown.tenant
    }

    /// The service it belongs to, if it is one's.
    pub(crate) fn service(&self) -> Option<&str> {
        match &self.shown.spec.owner {
            Owner::Service { name } => name.as_deref(),
            Owner::Standalone { .. } => None,
        }
    }

    pub(crate) fn resources(&self) -> &Resources {
        &self.shown.spec.resources
    }

    /// The word that changes with each write.
    pub(crate) fn word(version: i64) -> String {
        format!("sandbox-{version}")
    }
}

/// The number in a resource version.
pub(crate) fn version_of(word: &str) -> i64 {
    word.rsplit('-')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(i64::MAX)
}

macro_rules! columns {
    () => {
        "id, tenant, made_by, host, charged, stop_reason, launched, launch_until, boot, sequence, observed_at,
         profile, labels, spec, status, created_at, updated_at, ended_at, version"
    };
}

#[derive(sqlx_macros::FromRow)]
struct Stored {
    id: String,
    tenant: String,
    made_by: Option<KeyId>,
    host: String,
    charged: i64,
    stop_reason: Option<String>,
    launched: i64,
    launch_until: Timestamp,
    boot: Option<String>,
    sequence: i64,
    observed_at: Timestamp,
    profile: String,
    labels: String,
    spec: String,
    status: String,
    created_at: Timestamp,
    updated_at: Timestamp,
    ended_at: Option<Timestamp>,
    version: i64,
}

fn damaged(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::from(sqlx::Error::Decode(Box::new(error)))
}

impl TryFrom<Stored> for Record {
    type Error = StoreError;

    fn try_from(stored: Stored) -> Result<Self, StoreError> {
        let labels: Labels = serde_json::from_str(&stored.labels).map_err(damaged)?;
        let spec: ShownSpec = serde_json::from_str(&stored.spec).map_err(damaged)?;
        let status: SandboxStatus = serde_json::from_str(&stored.status).map_err(damaged)?;
        Ok(Self {
            made_by: stored.made_by,
            host: stored.host.parse().map_err(damaged)?,
            charged: stored.charged != 0,
            stop_reason: stored.stop_reason,
            launched: stored.launched != 0,
            launch_until: stored.launch_until,
            seen: Seen {
                boot: stored.boot,
                sequence: u64::try_from(stored.sequence).unwrap_or(0),
                at: stored.observed_at,
            },
            ended_at: stored.ended_at,
            version: stored.version,
            shown: Sandbox {
                tenant: stored.tenant,
                id: stored.id,
                resource_version: Self::word(stored.version),
                created_at: stored.created_at,
                updated_at: stored.updated_at,
                labels,
                profile: stored.profile.parse::<Profile>().map_err(damaged)?,
                spec,
                status,
            },
        })
    }
}

fn json<T: serde::Serialize>(what: &'static str, value: &T) -> Result<String, WorkError> {
    serde_json::to_string(value).map_err(WorkError::damaged(what))
}

const INSERT: &str = "INSERT INTO workloads_sandbox (id, tenant, service, made_by, host, lifecycle, charged, stop_reason, launched,
        launch_until, boot, sequence, observed_at, cpu, memory, disk, log, pids, profile, labels, spec, status, launch,
        created_at, updated_at, expires_at, version)
    VALUES ($1, $2, $3, $4, $5, $6, 1, NULL, 0, $7, NULL, 0, 0, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $18, $19, $20)";

const LABEL: &str =
    "INSERT INTO workloads_label (kind, tenant, name, label, value) VALUES ($1, $2, $3, $4, $5)";

/// Writes the labels of something, for filters.
pub(crate) async fn insert_labels(
    tx: &mut Tx,
    kind: &str,
    tenant: &str,
    name: &str,
    labels: &Labels,
) -> Result<(), StoreError> {
    for (label, value) in labels {
        execute!(
            tx,
            sqlx::query(LABEL)
                .bind(kind)
                .bind(tenant)
                .bind(name)
                .bind(label)
                .bind(value)
        )?;
    }
    Ok(())
}

pub(crate) async fn delete_labels(
    tx: &mut Tx,
    kind: &str,
    tenant: &str,
    name: &str,
) -> Result<(), StoreError> {
    execute!(
        tx,
        sqlx::query("DELETE FROM workloads_label WHERE kind = $1 AND tenant = $2 AND name = $3")
            .bind(kind)
            .bind(tenant)
            .bind(name)
    )
    .map(|_| ())
}

/// Writes a new record with its sealed launch.
pub(crate) async fn insert(tx: &mut Tx, record: &Record, launch: &str) -> Result<(), WorkError> {
    let shown = &record.shown;
    let limits = record.resources();
    execute!(
        tx,
        sqlx::query(INSERT)
            .bind(&shown.id)
            .bind(&shown.tenant)
            .bind(record.service())
            .bind(record.made_by)
            .bind(record.host.as_str())
            .bind(<&'static str>::from(shown.status.lifecycle))
            .bind(record.launch_until)
            .bind(i64::from(limits.cpu_milli))
            .bind(big(limits.memory_bytes))
            .bind(big(limits.disk_bytes))
            .bind(big(limits.log_bytes))
            .bind(i64::from(limits.pids))
            .bind(<&'static str>::from(shown.profile))
            .bind(json("labels", &shown.labels)?)
            .bind(json("a specification", &shown.spec)?)
            .bind(json("a status", &shown.status)?)
            .bind(launch)
            .bind(shown.created_at)
            .bind(shown.status.expires_at)
            .bind(record.version)
    )?;
    insert_labels(tx, "sandbox", &shown.tenant, &shown.id, &shown.labels).await?;
    Ok(())
}

const SAVE: &str = "UPDATE workloads_sandbox SET host = $3, lifecycle = $4, charged = $5, stop_reason = $6, launched = $7,
        launch_until = $8, boot = $9, sequence = $10, observed_at = $11, status = $12, updated_at = $13, expires_at = $14,
        ended_at = $15, launch = CASE WHEN $5 = 1 THEN launch ELSE '' END, version = version + 1
    WHERE id = $1 AND version = $2";

/// Writes `new` where the row is still at `version`; false: somebody was faster.
pub(crate) async fn save(tx: &mut Tx, version: i64, new: &Record) -> Result<bool, WorkError> {
    let shown = &new.shown;
    let changed = execute!(
        tx,
        sqlx::query(SAVE)
            .bind(&shown.id)
            .bind(version)
            .bind(new.host.as_str())
            .bind(<&'static str>::from(shown.status.lifecycle))
            .bind(i64::from(new.charged))
            .bind(new.stop_reason.as_deref())
            .bind(i64::from(new.launched))
            .bind(new.launch_until)
            .bind(new.seen.boot.as_deref())
            .bind(big(new.seen.sequence))
            .bind(new.seen.at)
            .bind(json("a status", &shown.status)?)
            .bind(shown.updated_at)
            .bind(shown.status.expires_at)
            .bind(new.ended_at)
    )?;
    Ok(changed == 1)
}

/// Removes a record; false: it is not at `version` any more.
pub(crate) async fn delete(tx: &mut Tx, record: &Record) -> Result<bool, StoreError> {
    let deleted = execute!(
        tx,
        sqlx::query("DELETE FROM workloads_sandbox WHERE id = $1 AND version = $2")
            .bind(record.id())
            .bind(record.version)
    )?;
    if deleted == 1 {
        delete_labels(tx, "sandbox", record.tenant(), record.id()).await?;
        release_mounts(tx, record.id()).await?;
    }
    Ok(deleted == 1)
}

/// Its volumes are free for others' removal.
pub(crate) async fn release_mounts(tx: &mut Tx, id: &str) -> Result<(), StoreError> {
    execute!(
        tx,
        sqlx::query("DELETE FROM workloads_mount WHERE sandbox = $1").bind(id)
    )
    .map(|_| ())
}

const FIND: &str = concat!("SELECT ", columns!(), " FROM workloads_sandbox WHERE id = $1");

pub(crate) async fn find(store: &Store, id: &str) -> Result<Option<Record>, StoreError> {
    let found: Option<Stored> = reading!(store, |c| sqlx::query_as(FIND).bind(id).fetch_optional(c).await)?;
    found.map(Record::try_from).transpose()
}

/// The sealed launch of a sandbox that has not ended.
pub(crate) async fn find_launch(store: &Store, id: &str) -> Result<Option<String>, StoreError> {
    let found: Option<(String,)> = reading!(store, |c| sqlx::query_as(
        "SELECT launch FROM workloads_sandbox WHERE id = $1 AND launch <> ''"
    )
    .bind(id)
    .fetch_optional(c)
    .await)?;
    Ok(found.map(|(launch,)| launch))
}

macro_rules! matching {
    () => {
        " FROM workloads_sandbox s WHERE s.tenant = $1 AND s.id > $2
            AND ($3 IS NULL OR s.lifecycle = $3) AND ($4 IS NULL OR s.made_by = $4)
            AND ($5 IS NULL OR EXISTS (SELECT 1 FROM workloads_label l WHERE l.kind = 'sandbox' AND l.tenant = s.tenant
                AND l.name = s.id AND l.label = $5 AND ($6 IS NULL OR l.value = $6)))"
    };
}

const LIST: &str = concat!("SELECT ", columns!(), matching!(), " ORDER BY s.id LIMIT $7");
const COUNT: &str = concat!("SELECT COUNT(*)", matching!());

/// A page of a tenant's sandboxes, and how many more match.
pub(crate) async fn list(
    store: &Store,
    tenant: &str,
    visible: Visible,
    wanted: &Wanted,
) -> Result<(Vec<Record>, u64), StoreError> {
    let made_by = match visible {
        Visible::All => None,
        Visible::MadeBy(key) => Some(key.to_string()),
    };
    let rows: Vec<Stored> = reading!(store, |c| sqlx::query_as(LIST)
        .bind(tenant)
        .bind(&wanted.after)
        .bind(wanted.state.as_deref())
        .bind(made_by.as_deref())
        .bind(wanted.label.as_deref())
        .bind(wanted.value.as_deref())
        .bind(i64::from(wanted.limit))
        .fetch_all(c)
        .await)?;
    let full = rows.len() >= usize::try_from(wanted.limit).unwrap_or(usize::MAX);
    let remaining = match rows.last() {
        Some(last) if full => {
            let (count,): (i64,) = reading!(store, |c| sqlx::query_as(COUNT)
                .bind(tenant)
                .bind(&last.id)
                .bind(wanted.state.as_deref())
                .bind(made_by.as_deref())
                .bind(wanted.label.as_deref())
                .bind(wanted.value.as_deref())
                .fetch_one(c)
                .await)?;
            u64::try_from(count).unwrap_or(0)
        }
        _ => 0,
    };
    let rows = rows.into_iter().map(Record::try_from).collect::<Result<_, _>>()?;
    Ok((rows, remaining))
}

const OF_HOST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM workloads_sandbox WHERE host = $1 AND charged = 1"
);

/// What counts against a host.
pub(crate) async fn of_host(store: &Store, host: &str) -> Result<Vec<Record>, StoreError> {
    let rows: Vec<Stored> = reading!(store, |c| sqlx::query_as(OF_HOST).bind(host).fetch_all(c).await)?;
    rows.into_iter().map(Record::try_from).collect()
}

const OF_TENANT: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM workloads_sandbox WHERE tenant = $1 ORDER BY id"
);

/// Everything of a tenant, also what has ended.
pub(crate) async fn of_tenant(store: &Store, tenant: &str) -> Result<Vec<Record>, StoreError> {
    let rows: Vec<Stored> = reading!(store, |c| sqlx::query_as(OF_TENANT)
        .bind(tenant)
        .fetch_all(c)
        .await)?;
    rows.into_iter().map(Record::try_from).collect()
}

const UNLAUNCHED: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM workloads_sandbox WHERE charged = 1 AND launched = 0 AND launch_until <= $1 ORDER BY launch_until LIMIT 256"
);

/// Launches that nobody attends to any more.
pub(crate) async fn unlaunched(store: &Store, now: Timestamp) -> Result<Vec<Record>, StoreError> {
    let rows: Vec<Stored> = reading!(store, |c| sqlx::query_as(UNLAUNCHED).bind(now).fetch_all(c).await)?;
    rows.into_iter().map(Record::try_from).collect()
}

const ENDED: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM workloads_sandbox WHERE charged = 0 AND ended_at < $1 ORDER BY ended_at LIMIT 64"
);

/// Records that have been kept long enough.
pub(crate) async fn ended_before(store: &Store, until: Timestamp) -> Result<Vec<Record>, StoreError> {
    let rows: Vec<Stored> = reading!(store, |c| sqlx::query_as(ENDED).bind(until).fetch_all(c).await)?;
    rows.into_iter().map(Record::try_from).collect()
}

/// Every launch that has not been taken belongs to nobody: for a start with no other replica.
pub(crate) async fn abandon_launches(tx: &mut Tx, now: Timestamp) -> Result<u64, StoreError> {
    execute!(
        tx,
        sqlx::query("UPDATE workloads_sandbox SET launch_until = $1 WHERE charged = 1 AND launched = 0")
            .bind(now.before(Duration::from_micros(1)))
    )
}

/// Which of `ids` are records.
pub(crate) async fn known(
    store: &Store,
    host: &str,
    ids: &[String],
) -> Result<Vec<(String, bool)>, StoreError> {
    let mut out = Vec::with_capacity(ids.len());
    for id in ids {
        let found: Option<(String, i64)> = reading!(store, |c| sqlx::query_as(
            "SELECT host, charged FROM workloads_sandbox WHERE id = $1"
        )
        .bind(id)
        .fetch_optional(c)
        .await)?;
        if let Some((_, charged)) = found.filter(|(at, _)| at == host) {
            out.push((id.clone(), charged != 0));
        }
    }
    Ok(out)
}

/// Volumes that a new sandbox on `host` mounts are on that host from now on; an error names the one
/// that is not there, is elsewhere or goes.
pub(crate) async fn pin_volumes(tx: &mut Tx, record: &Record, volumes: &[String]) -> Result<(), WorkError> {
    for volume in volumes {
        let pinned = execute!(
            tx,
            sqlx::query(
                "UPDATE workloads_volume SET host = $3 WHERE tenant = $1 AND name = $2 AND deleting = 0
                 AND (host IS NULL OR host = $3)"
            )
            .bind(record.tenant())
            .bind(volume)
            .bind(record.host.as_str())
        )?;
        if pinned == 0 {
            return Err(WorkError::conflict(
                "volume_moved",
                format!("the volume {volume} is elsewhere or is being removed"),
            ));
        }
        execute!(
            tx,
            sqlx::query("INSERT INTO workloads_mount (tenant, volume, sandbox) VALUES ($1, $2, $3)")
                .bind(record.tenant())
                .bind(volume)
                .bind(record.id())
        )?;
    }
    Ok(())
}

/// The row within a transaction, locked for it.
pub(crate) async fn find_in(tx: &mut Tx, store: &Store, id: &str) -> Result<Option<Record>, StoreError> {
    let sql = format!("{FIND}{}", store.select_for_update_suffix());
    let found: Option<Stored> = both!(tx, |c| sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(id)
        .fetch_optional(c)
        .await)?;
    found.map(Record::try_from).transpose()
}
