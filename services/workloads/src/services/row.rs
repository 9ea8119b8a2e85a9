//! A service as it is stored, and all SQL of it.

use nimbus_model::{KeyId, Timestamp};
use nimbus_proto::workloads::{
    Condition, ConditionKind, Health, Labels, Lifecycle, Readiness, Sandbox, Service, ServiceStatus,
    ShownBackend, Truth,
};
use nimbus_store::{Store, StoreError, Tx, both, execute, reading, sqlx};
use serde::{Deserialize, Serialize};

use crate::error::WorkError;
use crate::kept::Versioned;
use crate::state::{condition, plain, put, ready_condition};
use crate::tenants::row::big;

/// A service.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ServiceRow {
    pub(crate) tenant: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) generation: u64,
    pub(crate) is_static: bool,
    pub(crate) made_by: Option<KeyId>,
    /// `sandbox`, `builtIn` or `external`.
    pub(crate) kind: String,
    pub(crate) labels: Labels,
    pub(crate) backend: ShownBackend,
    /// Sealed.
    pub(crate) definition: String,
    /// Whether it shall run.
    pub(crate) wanted: bool,
    /// The sandbox behind it, also one that has ended.
    pub(crate) sandbox: Option<String>,
    /// The generation that sandbox was made from.
    pub(crate) sandbox_generation: u64,
    /// The sandbox before it, which has to end first.
    pub(crate) drain: Option<String>,
    /// Why it could not be started.
    pub(crate) failure: Option<Condition>,
    /// What was found out about an external one.
    pub(crate) probe: Option<Probed>,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    /// Begins with the time of creation, so that it grows over incarnations of one name.
    pub(crate) version: i64,
}

/// What was found out about an external service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Probed {
    pub(crate) healthy: bool,
    pub(crate) message: String,
    pub(crate) since: Timestamp,
}

impl Versioned for ServiceRow {
    fn version(&self) -> i64 {
        self.version
    }
}

impl ServiceRow {
    pub(crate) fn is_sandbox(&self) -> bool {
        self.kind == "sandbox"
    }

    /// Whether a sandbox is wanted that is not there yet.
    pub(crate) fn is_pending(&self) -> bool {
        self.is_sandbox() && self.wanted && self.sandbox.is_none()
    }

    /// As it is shown, with the sandbox behind it.
    pub(crate) fn shown(&self, sandbox: Option<&Sandbox>) -> Service {
        let status = self.status(sandbox);
        let part = sandbox.map_or("0", |sandbox| {
            sandbox.resource_version.rsplit('-').next().unwrap_or("0")
        });
        Service {
            tenant: self.tenant.clone(),
            name: self.name.clone(),
            uid: self.uid.to_ascii_uppercase(),
            generation: self.generation,
            // The number of the row stands last: see `record::version_of`.
            resource_version: format!("service-{part}-{}", self.version),
            created_at: self.created_at,
            updated_at: sandbox.map_or(self.updated_at, |sandbox| self.updated_at.max(sandbox.updated_at)),
            labels: self.labels.clone(),
            is_static: self.is_static,
            backend: self.backend.clone(),
            status,
        }
    }

    /// Its state. Pure.
    pub(crate) fn status(&self, sandbox: Option<&Sandbox>) -> ServiceStatus {
        let mut conditions = vec![condition(
            ConditionKind::Admitted,
            Truth::True,
            "DefinitionValidated",
            "the definition is valid",
            self.generation,
            self.created_at,
        )];
        let mut status = ServiceStatus {
            lifecycle: Lifecycle::Declared,
            readiness: Readiness::Unknown,
            health: Health::Unknown,
            sandbox: None,
            isolation: None,
            restarts: 0,
            observed_generation: self.generation,
            endpoints: Vec::new(),
            conditions: Vec::new(),
        };
        let mut be = |status: &mut ServiceStatus, lifecycle| {
            status.lifecycle = lifecycle;
            (status.readiness, status.health) = plain(lifecycle);
            let said = ready_condition(lifecycle, self.updated_at);
            put(
                &mut conditions,
                Condition {
                    observed_generation: self.generation,
                    ..said
                },
            );
        };
        match (self.kind.as_str(), sandbox) {
            ("sandbox", _) if self.is_pending() => {
                be(&mut status, Lifecycle::Starting);
                let message = if self.drain.is_some() {
                    "the instance before it is being stopped"
                } else {
                    "a host is being looked for"
                };
                put(
                    &mut conditions,
                    condition(
                        ConditionKind::Progressing,
                        Truth::True,
                        "BackendState",
                        message,
                        self.generation,
                        self.updated_at,
                    ),
                );
            }
            ("sandbox", Some(sandbox)) if self.sandbox.is_some() => {
                let seen = &sandbox.status;
                status.lifecycle = seen.lifecycle;
                (status.readiness, status.health) = (seen.readiness, seen.health);
                status.restarts = seen.restarts;
                status.endpoints.clone_from(&seen.endpoints);
                if seen.lifecycle != Lifecycle::Stopped {
                    status.sandbox = Some(sandbox.id.clone());
                    status.isolation = Some(sandbox.spec.backend);
                    status.observed_generation = self.sandbox_generation;
                }
                for said in &seen.conditions {
                    if said.kind != ConditionKind::Admitted {
                        let mut said = said.clone();
                        said.observed_generation = self.sandbox_generation;
                        put(&mut conditions, said);
                    }
                }
            }
            ("sandbox", _) if self.failure.is_some() => be(&mut status, Lifecycle::Failed),
            ("sandbox", _) => be(&mut status, Lifecycle::Stopped),
            ("external", _) => {
                let (truth, reason, message) = match &self.probe {
                    None => (Truth::Unknown, "DeclaredOnly", "its health was not asked for yet"),
                    Some(probe) => {
                        if probe.healthy {
                            (status.readiness, status.health) = (Readiness::Ready, Health::Healthy);
                            (Truth::True, "BackendState", probe.message.as_str())
                        } else {
                            (status.readiness, status.health) = (Readiness::NotReady, Health::Unhealthy);
                            (Truth::False, "EndpointUnreachable", probe.message.as_str())
                        }
                    }
                };
                let since = self.probe.as_ref().map_or(self.created_at, |probe| probe.since);
                put(
                    &mut conditions,
                    condition(
                        ConditionKind::Ready,
                        truth,
                        reason,
                        message,
                        self.generation,
                        since,
                    ),
                );
            }
            _ => put(
                &mut conditions,
                condition(
                    ConditionKind::Ready,
                    Truth::Unknown,
                    "DeclaredOnly",
                    "nothing of it is run here",
                    self.generation,
                    self.created_at,
                ),
            ),
        }
        if let Some(failure) = &self.failure {
            put(&mut conditions, failure.clone());
        }
        status.conditions = conditions;
        status
    }
}

macro_rules! columns {
    () => {
        "tenant, name, uid, generation, is_static, made_by, kind, labels, shown, definition, wanted, sandbox,
         sandbox_generation, drain, failure, probe, created_at, updated_at, version"
    };
}

#[derive(sqlx_macros::FromRow)]
struct Stored {
    tenant: String,
    name: String,
    uid: String,
    generation: i64,
    is_static: i64,
    made_by: Option<KeyId>,
    kind: String,
    labels: String,
    shown: String,
    definition: String,
    wanted: i64,
    sandbox: Option<String>,
    sandbox_generation: i64,
    drain: Option<String>,
    failure: Option<String>,
    probe: Option<String>,
    created_at: Timestamp,
    updated_at: Timestamp,
    version: i64,
}

impl TryFrom<Stored> for ServiceRow {
    type Error = StoreError;

    fn try_from(stored: Stored) -> Result<Self, StoreError> {
        let damaged = |error: serde_json::Error| StoreError::from(sqlx::Error::Decode(Box::new(error)));
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        Ok(Self {
            tenant: stored.tenant,
            name: stored.name,
            uid: stored.uid,
            generation: count(stored.generation),
            is_static: stored.is_static != 0,
            made_by: stored.made_by,
            kind: stored.kind,
            labels: serde_json::from_str(&stored.labels).map_err(damaged)?,
            backend: serde_json::from_str(&stored.shown).map_err(damaged)?,
            definition: stored.definition,
            wanted: stored.wanted != 0,
            sandbox: stored.sandbox,
            sandbox_generation: count(stored.sandbox_generation),
            drain: stored.drain,
            failure: stored
                .failure
                .as_deref()
                .map(serde_json::from_str)
                .transpose()
                .map_err(damaged)?,
            probe: stored
                .probe
                .as_deref()
                .map(serde_json::from_str)
                .transpose()
                .map_err(damaged)?,
            created_at: stored.created_at,
            updated_at: stored.updated_at,
            version: stored.version,
        })
    }
}

fn json<T: Serialize>(value: &T) -> Result<String, WorkError> {
    serde_json::to_string(value).map_err(WorkError::damaged("a service"))
}

const INSERT: &str =
    "INSERT INTO workloads_service (tenant, name, uid, generation, is_static, made_by, kind, labels, shown,
        definition, created_at, updated_at, version)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11, $12) ON CONFLICT (tenant, name) DO NOTHING";

/// False: the name is taken.
pub(crate) async fn insert(tx: &mut Tx, row: &ServiceRow) -> Result<bool, WorkError> {
    let made = execute!(
        tx,
        sqlx::query(INSERT)
            .bind(&row.tenant)
            .bind(&row.name)
            .bind(&row.uid)
            .bind(big(row.generation))
            .bind(i64::from(row.is_static))
            .bind(row.made_by)
            .bind(&row.kind)
            .bind(json(&row.labels)?)
            .bind(json(&row.backend)?)
            .bind(&row.definition)
            .bind(row.created_at)
            .bind(row.version)
    )?;
    Ok(made == 1)
}

const SAVE: &str = "UPDATE workloads_service SET generation = $4, made_by = $5, kind = $6, labels = $7, shown = $8,
        definition = $9, wanted = $10, sandbox = $11, sandbox_generation = $12, drain = $13, failure = $14, probe = $15,
        updated_at = $16, version = $17
    WHERE tenant = $1 AND name = $2 AND version = $3";

/// Writes `new` where the row is still `old`, and numbers it; false: somebody was faster.
pub(crate) async fn save(tx: &mut Tx, old: &ServiceRow, new: &mut ServiceRow) -> Result<bool, WorkError> {
    new.version = old.version + 1;
    let failure = new.failure.as_ref().map(json).transpose()?;
    let probe = new.probe.as_ref().map(json).transpose()?;
    let changed = execute!(
        tx,
        sqlx::query(SAVE)
            .bind(&old.tenant)
            .bind(&old.name)
            .bind(old.version)
            .bind(big(new.generation))
            .bind(new.made_by)
            .bind(&new.kind)
            .bind(json(&new.labels)?)
            .bind(json(&new.backend)?)
            .bind(&new.definition)
            .bind(i64::from(new.wanted))
            .bind(new.sandbox.as_deref())
            .bind(big(new.sandbox_generation))
            .bind(new.drain.as_deref())
            .bind(failure)
            .bind(probe)
            .bind(new.updated_at)
            .bind(new.version)
    )?;
    Ok(changed == 1)
}

/// False: it is not at this version any more.
pub(crate) async fn delete(tx: &mut Tx, row: &ServiceRow) -> Result<bool, StoreError> {
    let deleted = execute!(
        tx,
        sqlx::query("DELETE FROM workloads_service WHERE tenant = $1 AND name = $2 AND version = $3")
            .bind(&row.tenant)
            .bind(&row.name)
            .bind(row.version)
    )?;
    Ok(deleted == 1)
}

const FIND: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM workloads_service WHERE tenant = $1 AND name = $2"
);

pub(crate) async fn find(store: &Store, tenant: &str, name: &str) -> Result<Option<ServiceRow>, StoreError> {
    let found: Option<Stored> = reading!(store, |c| sqlx::query_as(FIND)
        .bind(tenant)
        .bind(name)
        .fetch_optional(c)
        .await)?;
    found.map(ServiceRow::try_from).transpose()
}

/// The row within a transaction, not locked.
pub(crate) async fn find_in(tx: &mut Tx, tenant: &str, name: &str) -> Result<Option<ServiceRow>, StoreError> {
    let found: Option<Stored> = both!(tx, |c| sqlx::query_as(FIND)
        .bind(tenant)
        .bind(name)
        .fetch_optional(c)
        .await)?;
    found.map(ServiceRow::try_from).transpose()
}

/// Holds the row at its version until the transaction ends; false: it is at another.
pub(crate) async fn hold(tx: &mut Tx, store: &Store, row: &ServiceRow) -> Result<bool, StoreError> {
    let sql = format!(
        "SELECT version FROM workloads_service WHERE tenant = $1 AND name = $2{}",
        store.select_for_update_suffix()
    );
    let found: Option<(i64,)> = both!(tx, |c| sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(&row.tenant)
        .bind(&row.name)
        .fetch_optional(c)
        .await)?;
    Ok(found == Some((row.version,)))
}

pub(crate) async fn count(tx: &mut Tx, tenant: &str) -> Result<u64, StoreError> {
    let (count,): (i64,) = both!(tx, |c| sqlx::query_as(
        "SELECT COUNT(*) FROM workloads_service WHERE tenant = $1"
    )
    .bind(tenant)
    .fetch_one(c)
    .await)?;
    Ok(u64::try_from(count).unwrap_or(0))
}

const OF_TENANT: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM workloads_service WHERE tenant = $1 ORDER BY name"
);

pub(crate) async fn of_tenant(store: &Store, tenant: &str) -> Result<Vec<ServiceRow>, StoreError> {
    let rows: Vec<Stored> = reading!(store, |c| sqlx::query_as(OF_TENANT)
        .bind(tenant)
        .fetch_all(c)
        .await)?;
    rows.into_iter().map(ServiceRow::try_from).collect()
}

const OPEN: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM workloads_service WHERE drain IS NOT NULL OR (wanted = 1 AND sandbox IS NULL) ORDER BY tenant, name LIMIT 256"
);

/// Those on their way from one state to another.
pub(crate) async fn open(store: &Store) -> Result<Vec<ServiceRow>, StoreError> {
    let rows: Vec<Stored> = reading!(store, |c| sqlx::query_as(OPEN).fetch_all(c).await)?;
    rows.into_iter().map(ServiceRow::try_from).collect()
}

const EXTERNAL: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM workloads_service WHERE kind = 'external'"
);

pub(crate) async fn external(store: &Store) -> Result<Vec<ServiceRow>, StoreError> {
    let rows: Vec<Stored> = reading!(store, |c| sqlx::query_as(EXTERNAL).fetch_all(c).await)?;
    rows.into_iter().map(ServiceRow::try_from).collect()
}
