//! Sessions.

use nimbus_proto::workloads as w;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::words::{ChannelWord, IsolationWord, ProfileWord, ProviderWord, SessionWord};
use super::{ConditionView, at, conditions};
use crate::views::At;

/// A session to be opened.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct OpenSessionBody {
    /// The tenant.
    pub tenant_id: String,
    /// What on: a service or a sandbox.
    pub target: TargetView,
    /// What it shall carry, 1 to 8 without repeats.
    pub channels: Vec<ChannelWord>,
    /// How long it shall live; 15 minutes when it is left out, at most one hour.
    pub requested_ttl_ms: Option<i64>,
}

/// What a session is opened on: exactly one of the two.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TargetView {
    /// A service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceTarget>,
    /// A sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxTarget>,
}

/// A service, by name.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServiceTarget {
    /// Its name.
    pub name: String,
}

/// A sandbox, by id.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SandboxTarget {
    /// Its id.
    pub id: String,
}

impl TargetView {
    /// The one that is named.
    pub(crate) fn one(self) -> Option<w::Target> {
        match (self.service, self.sandbox) {
            (Some(service), None) => Some(w::Target::Service(service.name)),
            (None, Some(sandbox)) => Some(w::Target::Sandbox(sandbox.id)),
            (None, None) | (Some(_), Some(_)) => None,
        }
    }
}

/// Which sessions.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SessionsQuery {
    /// The tenant.
    pub tenant_id: String,
    /// At most this many: 1 to 100, 100 when it is left out; other numbers are taken for the nearest.
    pub limit: Option<i64>,
    /// `nextPageToken` of the page before.
    pub page_token: Option<String>,
    /// Only those in this state: `open`, `closed` or `expired`.
    pub state: Option<String>,
}

/// Where a session is looked for.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct TenantQuery {
    /// The tenant; among all that the caller may reach when it is left out.
    pub tenant_id: Option<String>,
}

/// Which process gets the input.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct InputQuery {
    /// The tenant; among all that the caller may reach when it is left out.
    pub tenant_id: Option<String>,
    /// The command; the main process when it is left out.
    pub command: Option<String>,
}

/// Why a session is closed.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CloseBody {
    /// Why; `client_close` when it is left out or blank.
    pub reason: Option<String>,
}

/// A session: an expiring lease on one target.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct WorkSessionView {
    /// What it is called and when it changed.
    pub metadata: SessionMetadata,
    /// What it is.
    pub spec: SessionSpecView,
    /// How it is.
    pub status: SessionStatusView,
}

/// What a session is called and when it changed.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionMetadata {
    /// The tenant.
    pub tenant_id: String,
    /// Its id.
    #[schema(examples("ses_01jzzzzzzzzzzzzzzzzzzzzzzz"))]
    pub id: String,
    /// 1, then 2 once it has ended.
    pub generation: u64,
    /// Changes at every write; only equality means something.
    pub resource_version: String,
    /// When it was opened.
    pub created_at: At,
    /// When it changed last.
    pub updated_at: At,
}

/// What a session is.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionSpecView {
    /// What it was opened on.
    pub target: TargetView,
    /// That, as it was then.
    pub target_snapshot: SnapshotView,
    /// What it carries.
    pub channels: Vec<ChannelWord>,
    /// When it ends by itself.
    pub expires_at: At,
}

/// A target as it was when the session was opened.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum SnapshotView {
    /// A service.
    #[serde(rename_all = "camelCase")]
    Service {
        /// Its name.
        name: String,
        /// Its generation.
        generation: u64,
        /// The kind behind it: `sandbox`, `builtIn` or `external`.
        backend: String,
        /// What is built in.
        #[serde(skip_serializing_if = "Option::is_none")]
        provider: Option<ProviderWord>,
        /// The sandbox behind it.
        #[serde(skip_serializing_if = "Option::is_none")]
        sandbox_id: Option<String>,
    },
    /// A sandbox.
    #[serde(rename_all = "camelCase")]
    Sandbox {
        /// Its id.
        id: String,
        /// Always 1.
        generation: u64,
        /// What it is for.
        profile: ProfileWord,
        /// What isolates it.
        backend: IsolationWord,
    },
}

/// How a session is.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionStatusView {
    /// Where it is in its life.
    pub lifecycle_state: SessionWord,
    /// When it ends by itself.
    pub expires_at: At,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed_at: Option<At>,
    /// Why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close_reason: Option<String>,
    /// What can be said about it.
    pub conditions: Vec<ConditionView>,
}

impl From<w::Target> for TargetView {
    fn from(target: w::Target) -> Self {
        match target {
            w::Target::Service(name) => Self {
                service: Some(ServiceTarget { name }),
                sandbox: None,
            },
            w::Target::Sandbox(id) => Self {
                service: None,
                sandbox: Some(SandboxTarget { id }),
            },
        }
    }
}

impl From<w::TargetSnapshot> for SnapshotView {
    fn from(snapshot: w::TargetSnapshot) -> Self {
        match snapshot {
            w::TargetSnapshot::Service {
                name,
                generation,
                backend,
                provider,
                sandbox,
            } => Self::Service {
                name,
                generation,
                backend,
                provider: provider.map(ProviderWord::from),
                sandbox_id: sandbox,
            },
            w::TargetSnapshot::Sandbox {
                id,
                generation,
                profile,
                backend,
            } => Self::Sandbox {
                id,
                generation,
                profile: profile.into(),
                backend: backend.into(),
            },
        }
    }
}

impl From<w::WorkSession> for WorkSessionView {
    fn from(session: w::WorkSession) -> Self {
        Self {
            metadata: SessionMetadata {
                tenant_id: session.tenant,
                id: session.id,
                generation: session.generation,
                resource_version: format!("session-{}", session.resource_version),
                created_at: at(session.created_at),
                updated_at: at(session.updated_at),
            },
            spec: SessionSpecView {
                target: session.target.into(),
                target_snapshot: session.snapshot.into(),
                channels: session.channels.into_iter().map(ChannelWord::from).collect(),
                expires_at: at(session.expires_at),
            },
            status: SessionStatusView {
                lifecycle_state: session.state.into(),
                expires_at: at(session.expires_at),
                closed_at: session.closed_at.map(at),
                close_reason: session.close_reason,
                conditions: conditions(session.conditions),
            },
        }
    }
}

/// A credential for one WebSocket.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TicketView {
    /// What to give as `ticket`; good once.
    pub ticket: String,
    /// When it stops working.
    pub expires_at: At,
}
