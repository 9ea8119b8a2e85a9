//! A tenant as it is stored, and all SQL of it.

use nimbus_bus::Tenancy;
use nimbus_model::{Timestamp, UserId};
use nimbus_proto::workloads::{Policy, Quota, Resources, Settings, Tenant};
use nimbus_store::{Store, StoreError, Tx, both, execute, reading, sqlx};

use crate::config::WorkloadsConfig;
use crate::error::WorkError;
use crate::kept::Versioned;

/// A tenant with the defaults of the installation filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TenantRow {
    pub(crate) id: String,
    pub(crate) owner: Option<UserId>,
    pub(crate) created_at: Timestamp,
    pub(crate) deleting: bool,
    pub(crate) quota: Quota,
    pub(crate) policy: Policy,
}

/// Rows are forgotten by name, not by number: they seldom change.
impl Versioned for TenantRow {
    fn version(&self) -> i64 {
        0
    }
}

const NOTHING: Resources = Resources {
    cpu_milli: 0,
    memory_bytes: 0,
    disk_bytes: 0,
    log_bytes: 0,
    pids: 0,
};

impl TenantRow {
    pub(crate) fn fresh(id: &str, owner: Option<UserId>, now: Timestamp, config: &WorkloadsConfig) -> Self {
        Self {
            id: id.to_owned(),
            owner,
            created_at: now,
            deleting: false,
            quota: Quota {
                limit: config.tenant_defaults(),
                sandboxes: config.tenant_sandboxes,
                used: NOTHING,
                used_sandboxes: 0,
            },
            policy: config.default_policy(),
        }
    }

    pub(crate) fn tenancy(&self) -> Tenancy<'_> {
        Tenancy {
            id: &self.id,
            owner: self.owner,
        }
    }

    pub(crate) fn shown(&self) -> Tenant {
        Tenant {
            id: self.id.clone(),
            created_at: self.created_at,
            deleting: self.deleting,
            quota: self.quota,
            policy: self.policy,
        }
    }
}

/// The refusal of new things in a tenant that is being deleted.
pub(crate) fn fenced(id: &str) -> WorkError {
    WorkError::conflict("tenant_deleting", format!("the tenant {id} is being deleted"))
}

macro_rules! columns {
    () => {
        "id, owner, created_at, deleting, limit_cpu, limit_memory, limit_disk, limit_log, limit_pids, limit_sandboxes,
         policy, used_cpu, used_memory, used_disk, used_log, used_pids, used_sandboxes"
    };
}

#[derive(sqlx_macros::FromRow)]
struct Stored {
    id: String,
    owner: Option<UserId>,
    created_at: Timestamp,
    deleting: i64,
    limit_cpu: Option<i64>,
    limit_memory: Option<i64>,
    limit_disk: Option<i64>,
    limit_log: Option<i64>,
    limit_pids: Option<i64>,
    limit_sandboxes: Option<i64>,
    policy: Option<String>,
    used_cpu: i64,
    used_memory: i64,
    used_disk: i64,
    used_log: i64,
    used_pids: i64,
    used_sandboxes: i64,
}

fn large(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn small(number: i64) -> u32 {
    u32::try_from(number.max(0)).unwrap_or(u32::MAX)
}

/// A number for a BIGINT column.
pub(crate) fn big(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Stored {
    fn row(self, config: &WorkloadsConfig) -> TenantRow {
        let cap = config.tenant_defaults();
        TenantRow {
            owner: self.owner,
            created_at: self.created_at,
            deleting: self.deleting != 0,
            quota: Quota {
                limit: Resources {
                    cpu_milli: self.limit_cpu.map_or(cap.cpu_milli, small),
                    memory_bytes: self.limit_memory.map_or(cap.memory_bytes, large),
                    disk_bytes: self.limit_disk.map_or(cap.disk_bytes, large),
                    log_bytes: self.limit_log.map_or(cap.log_bytes, large),
                    pids: self.limit_pids.map_or(cap.pids, small),
                },
                sandboxes: self.limit_sandboxes.map_or(config.tenant_sandboxes, small),
                used: Resources {
                    cpu_milli: small(self.used_cpu),
                    memory_bytes: large(self.used_memory),
                    disk_bytes: large(self.used_disk),
                    log_bytes: large(self.used_log),
                    pids: small(self.used_pids),
                },
                used_sandboxes: small(self.used_sandboxes),
            },
            policy: self
                .policy
                .as_deref()
                .map_or_else(|| config.default_policy(), policy_of),
            id: self.id,
        }
    }
}

fn policy_of(words: &str) -> Policy {
    let has = |word: &str| words.split(',').any(|one| one == word);
    Policy {
        resources: has("resources"),
        ports: has("ports"),
        egress: has("egress"),
        mounts: has("mounts"),
    }
}

fn words_of(policy: Policy) -> String {
    [
        ("resources", policy.resources),
        ("ports", policy.ports),
        ("egress", policy.egress),
        ("mounts", policy.mounts),
    ]
    .into_iter()
    .filter(|(_, is_set)| *is_set)
    .map(|(word, _)| word)
    .collect::<Vec<_>>()
    .join(",")
}

/// False: there is one of this id already.
pub(crate) async fn insert(tx: &mut Tx, row: &TenantRow) -> Result<bool, StoreError> {
    let made = execute!(
        tx,
        sqlx::query(
            "INSERT INTO workloads_tenant (id, owner, created_at) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING"
        )
        .bind(&row.id)
        .bind(row.owner)
        .bind(row.created_at)
    )?;
    Ok(made == 1)
}

const FIND: &str = concat!("SELECT ", columns!(), " FROM workloads_tenant WHERE id = $1");

pub(crate) async fn find(
    store: &Store,
    id: &str,
    config: &WorkloadsConfig,
) -> Result<Option<TenantRow>, StoreError> {
    let found: Option<Stored> = reading!(store, |c| sqlx::query_as(FIND).bind(id).fetch_optional(c).await)?;
    Ok(found.map(|stored| stored.row(config)))
}

async fn find_in(tx: &mut Tx, id: &str, config: &WorkloadsConfig) -> Result<Option<TenantRow>, StoreError> {
    let found: Option<Stored> = both!(tx, |c| sqlx::query_as(FIND).bind(id).fetch_optional(c).await)?;
    Ok(found.map(|stored| stored.row(config)))
}

const LIST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM workloads_tenant WHERE $1 IS NULL OR owner = $1 OR id = $2 ORDER BY id"
);

/// Every tenant, or those of one owner and their own.
pub(crate) async fn list(
    store: &Store,
    owner: Option<UserId>,
    personal: &str,
    config: &WorkloadsConfig,
) -> Result<Vec<TenantRow>, StoreError> {
    let rows: Vec<Stored> = reading!(store, |c| sqlx::query_as(LIST)
        .bind(owner.map(|owner| owner.to_string()))
        .bind(personal)
        .fetch_all(c)
        .await)?;
    Ok(rows.into_iter().map(|stored| stored.row(config)).collect())
}

const CONFIGURE: &str = "UPDATE workloads_tenant SET
        limit_cpu = COALESCE($2, limit_cpu), limit_memory = COALESCE($3, limit_memory),
        limit_disk = COALESCE($4, limit_disk), limit_log = COALESCE($5, limit_log),
        limit_pids = COALESCE($6, limit_pids), limit_sandboxes = COALESCE($7, limit_sandboxes),
        policy = COALESCE($8, policy)
    WHERE id = $1";

/// What is in use already stays, also above the new bounds.
pub(crate) async fn configure(
    tx: &mut Tx,
    id: &str,
    settings: &Settings,
    config: &WorkloadsConfig,
) -> Result<Option<TenantRow>, StoreError> {
    let limit = settings.limit;
    execute!(
        tx,
        sqlx::query(CONFIGURE)
            .bind(id)
            .bind(limit.map(|l| i64::from(l.cpu_milli)))
            .bind(limit.map(|l| big(l.memory_bytes)))
            .bind(limit.map(|l| big(l.disk_bytes)))
            .bind(limit.map(|l| big(l.log_bytes)))
            .bind(limit.map(|l| i64::from(l.pids)))
            .bind(settings.sandboxes.map(i64::from))
            .bind(settings.policy.map(words_of))
    )?;
    find_in(tx, id, config).await
}

/// `$7` and on are the defaults for bounds that the row does not have.
const CHARGE: &str = "UPDATE workloads_tenant SET used_cpu = used_cpu + $2, used_memory = used_memory + $3,
        used_disk = used_disk + $4, used_log = used_log + $5, used_pids = used_pids + $6, used_sandboxes = used_sandboxes + 1
    WHERE id = $1 AND deleting = 0
        AND used_cpu + $2 <= COALESCE(limit_cpu, $7) AND used_memory + $3 <= COALESCE(limit_memory, $8)
        AND used_disk + $4 <= COALESCE(limit_disk, $9) AND used_log + $5 <= COALESCE(limit_log, $10)
        AND used_pids + $6 <= COALESCE(limit_pids, $11) AND used_sandboxes + 1 <= COALESCE(limit_sandboxes, $12)";

/// Charges the tenant with one sandbox, or says which bound that would break.
pub(crate) async fn charge(
    tx: &mut Tx,
    id: &str,
    with: &Resources,
    config: &WorkloadsConfig,
) -> Result<(), WorkError> {
    let cap = config.tenant_defaults();
    let charged = execute!(
        tx,
        sqlx::query(CHARGE)
            .bind(id)
            .bind(i64::from(with.cpu_milli))
            .bind(big(with.memory_bytes))
            .bind(big(with.disk_bytes))
            .bind(big(with.log_bytes))
            .bind(i64::from(with.pids))
            .bind(i64::from(cap.cpu_milli))
            .bind(big(cap.memory_bytes))
            .bind(big(cap.disk_bytes))
            .bind(big(cap.log_bytes))
            .bind(i64::from(cap.pids))
            .bind(i64::from(config.tenant_sandboxes))
    )?;
    if charged == 1 {
        return Ok(());
    }
    let row = find_in(tx, id, config)
        .await?
        .ok_or_else(|| WorkError::NoTenant {
            tenant: id.to_owned(),
        })?;
    if row.deleting {
        return Err(fenced(id));
    }
    Err(exceeded(&row.quota, with).unwrap_or_else(|| WorkError::Raced {
        what: format!("the tenant {id}"),
    }))
}

/// The first bound that one more sandbox would break.
fn exceeded(quota: &Quota, with: &Resources) -> Option<WorkError> {
    let (limit, used) = (quota.limit, quota.used);
    [
        (
            "sandboxes",
            u64::from(quota.sandboxes),
            u64::from(quota.used_sandboxes),
            1,
        ),
        (
            "vcpus",
            u64::from(limit.cpu_milli),
            u64::from(used.cpu_milli),
            u64::from(with.cpu_milli),
        ),
        (
            "memoryBytes",
            limit.memory_bytes,
            used.memory_bytes,
            with.memory_bytes,
        ),
        ("diskBytes", limit.disk_bytes, used.disk_bytes, with.disk_bytes),
        ("logBytes", limit.log_bytes, used.log_bytes, with.log_bytes),
        (
            "pids",
            u64::from(limit.pids),
            u64::from(used.pids),
            u64::from(with.pids),
        ),
    ]
    .into_iter()
    .find(|(_, limit, used, requested)| used.saturating_add(*requested) > *limit)
    .map(|(dimension, limit, used, requested)| WorkError::Quota {
        dimension,
        limit,
        used,
        requested,
    })
}

const GIVE_BACK: &str = "UPDATE workloads_tenant SET used_cpu = used_cpu - $2, used_memory = used_memory - $3,
        used_disk = used_disk - $4, used_log = used_log - $5, used_pids = used_pids - $6, used_sandboxes = used_sandboxes - 1
    WHERE id = $1";

pub(crate) async fn give_back(tx: &mut Tx, id: &str, what: &Resources) -> Result<(), StoreError> {
    execute!(
        tx,
        sqlx::query(GIVE_BACK)
            .bind(id)
            .bind(i64::from(what.cpu_milli))
            .bind(big(what.memory_bytes))
            .bind(big(what.disk_bytes))
            .bind(big(what.log_bytes))
            .bind(i64::from(what.pids))
    )
    .map(|_| ())
}

/// Counts `sessions` more open ones, within the bound.
pub(crate) async fn count_session(tx: &mut Tx, id: &str, limit: u32) -> Result<(), WorkError> {
    let counted = execute!(
        tx,
        sqlx::query(
            "UPDATE workloads_tenant SET open_sessions = open_sessions + 1
             WHERE id = $1 AND deleting = 0 AND open_sessions < $2"
        )
        .bind(id)
        .bind(i64::from(limit))
    )?;
    if counted == 1 {
        return Ok(());
    }
    let found: Option<(i64, i64)> = both!(tx, |c| sqlx::query_as(
        "SELECT deleting, open_sessions FROM workloads_tenant WHERE id = $1"
    )
    .bind(id)
    .fetch_optional(c)
    .await)?;
    Err(match found {
        None => WorkError::NoTenant {
            tenant: id.to_owned(),
        },
        Some((0, open)) => WorkError::Quota {
            dimension: "sessions",
            limit: u64::from(limit),
            used: large(open),
            requested: 1,
        },
        Some(_) => fenced(id),
    })
}

/// Counts `sessions` open ones less.
pub(crate) async fn uncount_sessions(tx: &mut Tx, id: &str, sessions: usize) -> Result<(), StoreError> {
    if sessions == 0 {
        return Ok(());
    }
    execute!(
        tx,
        sqlx::query("UPDATE workloads_tenant SET open_sessions = open_sessions - $2 WHERE id = $1")
            .bind(id)
            .bind(i64::try_from(sessions).unwrap_or(i64::MAX))
    )
    .map(|_| ())
}

/// Refuses whatever is new from now on.
pub(crate) async fn fence(tx: &mut Tx, id: &str) -> Result<(), StoreError> {
    execute!(
        tx,
        sqlx::query("UPDATE workloads_tenant SET deleting = 1 WHERE id = $1").bind(id)
    )
    .map(|_| ())
}

/// Removes the rows of a tenant that nothing runs in any more; false when something does.
pub(crate) async fn remove(tx: &mut Tx, id: &str) -> Result<bool, StoreError> {
    let removed = execute!(
        tx,
        sqlx::query(
            "DELETE FROM workloads_tenant WHERE id = $1 AND deleting = 1 AND used_sandboxes = 0
             AND NOT EXISTS (SELECT 1 FROM workloads_sandbox WHERE tenant = $1)"
        )
        .bind(id)
    )?;
    if removed == 0 {
        return Ok(false);
    }
    for table in ["service", "session", "secret", "volume", "mount", "label", "done"] {
        let sql = format!("DELETE FROM workloads_{table} WHERE tenant = $1");
        execute!(tx, sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id))?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_that_is_broken_first_is_named() {
        let cap = Resources {
            cpu_milli: 2000,
            memory_bytes: 100,
            disk_bytes: 100,
            log_bytes: 100,
            pids: 100,
        };
        let quota = Quota {
            limit: cap,
            sandboxes: 2,
            used: Resources {
                memory_bytes: 90,
                ..NOTHING
            },
            used_sandboxes: 1,
        };
        let one = |memory_bytes| Resources {
            memory_bytes,
            ..NOTHING
        };
        assert!(exceeded(&quota, &one(10)).is_none());
        assert!(matches!(
            exceeded(&quota, &one(11)),
            Some(WorkError::Quota {
                dimension: "memoryBytes",
                limit: 100,
                used: 90,
                requested: 11
            })
        ));
        let full = Quota {
            used_sandboxes: 2,
            ..quota
        };
        assert!(matches!(
            exceeded(&full, &one(0)),
            Some(WorkError::Quota {
                dimension: "sandboxes",
                ..
            })
        ));
    }

    #[test]
    fn a_policy_survives_its_words() {
        for bits in 0..16_u8 {
            let policy = Policy {
                resources: bits & 1 != 0,
                ports: bits & 2 != 0,
                egress: bits & 4 != 0,
                mounts: bits & 8 != 0,
            };
            assert_eq!(policy_of(&words_of(policy)), policy);
        }
    }
}
