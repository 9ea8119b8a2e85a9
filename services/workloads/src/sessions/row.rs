//! A session as it is stored, and all SQL of it.

use nimbus_model::{Hostname, KeyId, Timestamp};
use nimbus_proto::workloads::{
    Channel, Condition, ConditionKind, SessionState, Target, TargetSnapshot, Truth, WorkSession,
};
use nimbus_store::{Store, StoreError, Tx, both, execute, reading, sqlx};
use serde::{Deserialize, Serialize};

use crate::error::WorkError;
use crate::kept::Versioned;
use crate::state;

/// A session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionRow {
    pub(crate) id: String,
    pub(crate) tenant: String,
    /// The sandbox that its channels lead to.
    pub(crate) sandbox: String,
    pub(crate) host: Hostname,
    /// The API key that made that sandbox.
    pub(crate) made_by: Option<KeyId>,
    pub(crate) body: Body,
    pub(crate) state: SessionState,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) closed_at: Option<Timestamp>,
    pub(crate) close_reason: Option<String>,
    pub(crate) version: i64,
}

/// What never changes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Body {
    pub(crate) target: Target,
    pub(crate) snapshot: TargetSnapshot,
    pub(crate) channels: Vec<Channel>,
}

impl Versioned for SessionRow {
    fn version(&self) -> i64 {
        self.version
    }
}

/// Why a session ended by its time.
pub(crate) const EXPIRED: &str = "expired";

impl SessionRow {
    pub(crate) fn service(&self) -> Option<&str> {
        match &self.body.target {
            Target::Service(name) => Some(name),
            Target::Sandbox(_) => None,
        }
    }

    /// The generation of the target that it was opened on.
    pub(crate) fn generation(&self) -> u64 {
        match &self.body.snapshot {
            TargetSnapshot::Service { generation, .. } | TargetSnapshot::Sandbox { generation, .. } => {
                *generation
            }
        }
    }

    /// As it is shown at `now`: one whose time is over is expired, whether or not that was written.
    pub(crate) fn shown(&self, now: Timestamp) -> WorkSession {
        let state = state::session(self.state, self.expires_at, now);
        let just_expired = state != self.state;
        let closed_at = if just_expired {
            Some(self.expires_at)
        } else {
            self.closed_at
        };
        let close_reason = if just_expired {
            Some(EXPIRED.to_owned())
        } else {
            self.close_reason.clone()
        };
        let (status, reason, message) = match (state, close_reason.as_deref()) {
            (SessionState::Open, _) => (Truth::True, "LeaseActive", "the lease holds".to_owned()),
            (SessionState::Expired, _) => (Truth::False, "LeaseExpired", "its time is over".to_owned()),
            (SessionState::Closed, Some(why)) if is_target_gone(why) => {
                (Truth::False, "TargetGone", format!("its target is gone: {why}"))
            }
            (SessionState::Closed, why) => (
                Truth::False,
                "ClientClosed",
                format!("it was closed: {}", why.unwrap_or_default()),
            ),
        };
        let generation = if state == SessionState::Open { 1 } else { 2 };
        WorkSession {
            tenant: self.tenant.clone(),
            id: self.id.clone(),
            generation,
            resource_version: format!("session-{}", self.version + i64::from(just_expired)),
            created_at: self.created_at,
            updated_at: closed_at.unwrap_or(self.updated_at),
            target: self.body.target.clone(),
            snapshot: self.body.snapshot.clone(),
            channels: self.body.channels.clone(),
            expires_at: self.expires_at,
            state,
            closed_at,
            close_reason,
            conditions: vec![Condition {
                kind: ConditionKind::Open,
                status,
                reason: reason.to_owned(),
                message,
                observed_generation: generation,
                last_transition: closed_at.unwrap_or(self.created_at),
            }],
        }
    }
}

fn is_target_gone(reason: &str) -> bool {
    matches!(
        reason,
        "target_stopped" | "target_failed" | "target_replaced" | "tenant_deleted" | "service_force_deleted"
    )
}

macro_rules! columns {
    () => {
        "id, tenant, sandbox, host, made_by, state, body, created_at, updated_at, expires_at, closed_at, close_reason, version"
    };
}

#[derive(sqlx_macros::FromRow)]
struct Stored {
    id: String,
    tenant: String,
    sandbox: String,
    host: String,
    made_by: Option<KeyId>,
    state: String,
    body: String,
    created_at: Timestamp,
    updated_at: Timestamp,
    expires_at: Timestamp,
    closed_at: Option<Timestamp>,
    close_reason: Option<String>,
    version: i64,
}

impl TryFrom<Stored> for SessionRow {
    type Error = StoreError;

    fn try_from(stored: Stored) -> Result<Self, StoreError> {
        fn damaged(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
            StoreError::from(sqlx::Error::Decode(Box::new(error)))
        }
        Ok(Self {
            id: stored.id,
            tenant: stored.tenant,
            sandbox: stored.sandbox,
            host: stored.host.parse().map_err(damaged)?,
            made_by: stored.made_by,
            body: serde_json::from_str(&stored.body).map_err(damaged)?,
            state: stored.state.parse().map_err(damaged)?,
            created_at: stored.created_at,
            updated_at: stored.updated_at,
            expires_at: stored.expires_at,
            closed_at: stored.closed_at,
            close_reason: stored.close_reason,
            version: stored.version,
        })
    }
}

const INSERT: &str =
    "INSERT INTO workloads_session (id, tenant, service, sandbox, host, made_by, state, body, created_at,
        updated_at, expires_at, version)
    VALUES ($1, $2, $3, $4, $5, $6, 'open', $7, $8, $8, $9, 1)";

pub(crate) async fn insert(tx: &mut Tx, row: &SessionRow) -> Result<(), WorkError> {
    let body = serde_json::to_string(&row.body).map_err(WorkError::damaged("a session"))?;
    execute!(
        tx,
        sqlx::query(INSERT)
            .bind(&row.id)
            .bind(&row.tenant)
            .bind(row.service())
            .bind(&row.sandbox)
            .bind(row.host.as_str())
            .bind(row.made_by)
            .bind(body)
            .bind(row.created_at)
            .bind(row.expires_at)
    )?;
    Ok(())
}

const FIND: &str = concat!("SELECT ", columns!(), " FROM workloads_session WHERE id = $1");

pub(crate) async fn find(store: &Store, id: &str) -> Result<Option<SessionRow>, StoreError> {
    let found: Option<Stored> = reading!(store, |c| sqlx::query_as(FIND).bind(id).fetch_optional(c).await)?;
    found.map(SessionRow::try_from).transpose()
}

/// Who may see a session, without the session.
#[derive(Debug, sqlx_macros::FromRow)]
pub(crate) struct Glimpse {
    pub(crate) id: String,
    pub(crate) service: Option<String>,
    pub(crate) made_by: Option<KeyId>,
}

const GLIMPSE: &str =
    "SELECT id, service, made_by FROM workloads_session WHERE tenant = $1 AND id > $2 AND ($3 IS NULL
        OR ($3 = 'closed' AND state = 'closed') OR ($3 = 'open' AND state = 'open' AND expires_at > $4)
        OR ($3 = 'expired' AND (state = 'expired' OR (state = 'open' AND expires_at <= $4))))
    ORDER BY id";

/// The sessions of a tenant that are in a state at `now`, by id.
pub(crate) async fn glimpse(
    store: &Store,
    tenant: &str,
    after: &str,
    state: Option<&str>,
    now: Timestamp,
) -> Result<Vec<Glimpse>, StoreError> {
    reading!(store, |c| sqlx::query_as(GLIMPSE)
        .bind(tenant)
        .bind(after)
        .bind(state)
        .bind(now)
        .fetch_all(c)
        .await)
}

macro_rules! close {
    ($which:literal) => {
        concat!(
            "UPDATE workloads_session SET state = CASE WHEN expires_at <= $1 THEN 'expired' ELSE 'closed' END,
                close_reason = CASE WHEN expires_at <= $1 THEN 'expired' ELSE $2 END,
                closed_at = $1, updated_at = $1, version = version + 1
             WHERE state = 'open' AND ",
            $which,
            " RETURNING ",
            columns!()
        )
    };
}

fn rows(stored: Vec<Stored>) -> Result<Vec<SessionRow>, StoreError> {
    stored.into_iter().map(SessionRow::try_from).collect()
}

/// Ends the open sessions on a sandbox.
pub(crate) async fn close_of_sandbox(
    tx: &mut Tx,
    sandbox: &str,
    reason: &str,
    now: Timestamp,
) -> Result<Vec<SessionRow>, StoreError> {
    rows(both!(tx, |c| sqlx::query_as(close!("sandbox = $3"))
        .bind(now)
        .bind(reason)
        .bind(sandbox)
        .fetch_all(c)
        .await)?)
}

/// Ends the open sessions on a service.
pub(crate) async fn close_of_service(
    tx: &mut Tx,
    tenant: &str,
    service: &str,
    reason: &str,
    now: Timestamp,
) -> Result<Vec<SessionRow>, StoreError> {
    rows(both!(tx, |c| sqlx::query_as(close!(
        "tenant = $3 AND service = $4"
    ))
    .bind(now)
    .bind(reason)
    .bind(tenant)
    .bind(service)
    .fetch_all(c)
    .await)?)
}

/// Ends every open session of a tenant.
pub(crate) async fn close_of_tenant(
    tx: &mut Tx,
    tenant: &str,
    reason: &str,
    now: Timestamp,
) -> Result<Vec<SessionRow>, StoreError> {
    rows(both!(tx, |c| sqlx::query_as(close!("tenant = $3"))
        .bind(now)
        .bind(reason)
        .bind(tenant)
        .fetch_all(c)
        .await)?)
}

/// Ends one session; none if it has ended already.
pub(crate) async fn close_one(
    tx: &mut Tx,
    id: &str,
    reason: &str,
    now: Timestamp,
) -> Result<Vec<SessionRow>, StoreError> {
    rows(both!(tx, |c| sqlx::query_as(close!("id = $3"))
        .bind(now)
        .bind(reason)
        .bind(id)
        .fetch_all(c)
        .await)?)
}

/// Ends what is over.
pub(crate) async fn close_expired(tx: &mut Tx, now: Timestamp) -> Result<Vec<SessionRow>, StoreError> {
    rows(both!(tx, |c| sqlx::query_as(close!("expires_at <= $1"))
        .bind(now)
        .bind(EXPIRED)
        .fetch_all(c)
        .await)?)
}

/// Whether there is something to end: a read, so that looking often costs no write.
pub(crate) async fn any_expired(store: &Store, now: Timestamp) -> Result<bool, StoreError> {
    let found: Option<(String,)> = reading!(store, |c| sqlx::query_as(
        "SELECT id FROM workloads_session WHERE state = 'open' AND expires_at <= $1 LIMIT 1"
    )
    .bind(now)
    .fetch_optional(c)
    .await)?;
    Ok(found.is_some())
}

/// Forgets sessions that ended before `until`.
pub(crate) async fn forget(tx: &mut Tx, until: Timestamp) -> Result<u64, StoreError> {
    execute!(
        tx,
        sqlx::query("DELETE FROM workloads_session WHERE state <> 'open' AND closed_at < $1").bind(until)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(state: SessionState, reason: Option<&str>) -> SessionRow {
        SessionRow {
            id: "ses_1".into(),
            tenant: "demo".into(),
            sandbox: "x".into(),
            host: "host-a".parse().unwrap(),
            made_by: None,
            body: Body {
                target: Target::Sandbox("x".into()),
                snapshot: TargetSnapshot::Sandbox {
                    id: "x".into(),
                    generation: 1,
                    profile: nimbus_proto::workloads::Profile::Worker,
                    backend: nimbus_proto::workloads::Isolation::Container,
                },
                channels: vec![Channel::Stdio],
            },
            state,
            created_at: Timestamp::from_micros(1),
            updated_at: Timestamp::from_micros(1),
            expires_at: Timestamp::from_micros(10),
            closed_at: reason.map(|_| Timestamp::from_micros(5)),
            close_reason: reason.map(str::to_owned),
            version: 1,
        }
    }

    #[test]
    fn the_condition_says_why_it_ended() {
        let before = Timestamp::from_micros(2);
        for (state, reason, said, generation) in [
            (SessionState::Open, None, "LeaseActive", 1),
            (SessionState::Closed, Some("client_close"), "ClientClosed", 2),
            (SessionState::Closed, Some("enough"), "ClientClosed", 2),
            (SessionState::Closed, Some("target_replaced"), "TargetGone", 2),
            (SessionState::Expired, Some("expired"), "LeaseExpired", 2),
        ] {
            let shown = row(state, reason).shown(before);
            assert_eq!(
                (shown.conditions[0].reason.as_str(), shown.generation),
                (said, generation)
            );
        }
    }

    #[test]
    fn one_whose_time_is_over_is_shown_as_expired_before_it_is_written() {
        let shown = row(SessionState::Open, None).shown(Timestamp::from_micros(10));
        assert_eq!(shown.state, SessionState::Expired);
        assert_eq!(shown.close_reason.as_deref(), Some("expired"));
        assert_eq!(shown.closed_at, Some(Timestamp::from_micros(10)));
    }
}
