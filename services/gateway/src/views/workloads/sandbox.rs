//! Sandboxes.

use nimbus_proto::workloads as w;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::shown::ShownSpecView;
use super::spec::SandboxSpecBody;
use super::words::{HealthWord, IsolationWord, LifecycleWord, ProfileWord, ReadinessWord, StartWord};
use super::{ConditionView, EndpointView, at, conditions, endpoints};
use crate::views::At;

/// A sandbox to be made.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateSandboxBody {
    /// What it is for.
    pub profile: ProfileWord,
    /// What it shall be.
    pub spec: SandboxSpecBody,
    /// Pairs to filter by, at most 32.
    #[serde(default)]
    pub labels: w::Labels,
}

/// More time for a sandbox.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ExtendBody {
    /// New time to live, from now.
    pub ttl_ms: Option<u64>,
    /// New idle timeout.
    pub idle_timeout_ms: Option<u64>,
}

/// Which sandboxes.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SandboxesQuery {
    /// At most this many: 1 to 100, 100 when it is left out; other numbers are taken for the nearest.
    pub limit: Option<i64>,
    /// `nextPageToken` of the page before.
    pub page_token: Option<String>,
    /// Only those in this `lifecycleState`.
    pub status: Option<String>,
    /// Only those with this label …
    pub label_key: Option<String>,
    /// … and this value of it.
    pub label_value: Option<String>,
}

/// Whether also what runs is removed.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ForceQuery {
    /// Also when it runs.
    #[serde(default)]
    pub force: bool,
}

/// A sandbox.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct SandboxView {
    /// What it is called and when it changed.
    pub metadata: SandboxMetadata,
    /// What it shall be.
    pub spec: SandboxSpecView,
    /// What it is.
    pub status: SandboxStatusView,
}

/// What a sandbox is called and when it changed.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SandboxMetadata {
    /// The tenant.
    pub tenant_id: String,
    /// Its id.
    #[schema(examples("batch-job-01jzzzzzzzzzzzzzzzzzzzzzzz"))]
    pub id: String,
    /// Always 1.
    pub generation: u64,
    /// Changes at every write; only equality means something.
    pub resource_version: String,
    /// When it was created.
    pub created_at: At,
    /// When it changed last.
    pub updated_at: At,
    /// Its labels.
    pub labels: w::Labels,
}

/// What a sandbox shall be.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct SandboxSpecView {
    /// What it is for.
    pub profile: ProfileWord,
    /// The specification, launch input redacted.
    pub sandbox: ShownSpecView,
}

/// What a sandbox is.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SandboxStatusView {
    /// Where it is in its life.
    pub lifecycle_state: LifecycleWord,
    /// Whether it can be used.
    pub readiness: ReadinessWord,
    /// What its health check says.
    pub health: HealthWord,
    /// What isolates it.
    pub backend: IsolationWord,
    /// Where its ports are; empty unless it is ready.
    pub endpoints: Vec<EndpointView>,
    /// How its main process ended; null while it has not.
    pub exit_code: Option<i32>,
    /// Whether it was ended for its memory.
    pub out_of_memory: bool,
    /// When it is stopped; null for never.
    pub expires_at: Option<At>,
    /// The image's digest, once it is known.
    pub image_digest: Option<String>,
    /// Whether it came from the warm pool; null before it runs.
    pub start: Option<StartWord>,
    /// From the request to the running process.
    pub started_after_ms: Option<f64>,
    /// The host it is on.
    pub host: Option<String>,
    /// How often its process was restarted.
    pub restart_count: u32,
    /// What can be said about it, one per `type`.
    pub conditions: Vec<ConditionView>,
}

/// Microseconds as milliseconds.
fn ms(us: u64) -> f64 {
    std::time::Duration::from_micros(us).as_secs_f64() * 1000.0
}

impl From<w::Sandbox> for SandboxView {
    fn from(sandbox: w::Sandbox) -> Self {
        let status = sandbox.status;
        Self {
            metadata: SandboxMetadata {
                tenant_id: sandbox.tenant,
                id: sandbox.id,
                generation: 1,
                resource_version: format!("sandbox-{}", sandbox.resource_version),
                created_at: at(sandbox.created_at),
                updated_at: at(sandbox.updated_at),
                labels: sandbox.labels,
            },
            status: SandboxStatusView {
                lifecycle_state: status.lifecycle.into(),
                readiness: status.readiness.into(),
                health: status.health.into(),
                backend: sandbox.spec.backend.into(),
                endpoints: endpoints(status.endpoints),
                exit_code: status.exit.map(|exit| exit.code),
                out_of_memory: status.exit.is_some_and(|exit| exit.out_of_memory),
                expires_at: status.expires_at.map(at),
                image_digest: status.image_digest,
                start: status.start.map(StartWord::from),
                started_after_ms: status.started_after_us.map(ms),
                host: status.host,
                restart_count: status.restarts,
                conditions: conditions(status.conditions),
            },
            spec: SandboxSpecView {
                profile: sandbox.profile.into(),
                sandbox: sandbox.spec.into(),
            },
        }
    }
}
