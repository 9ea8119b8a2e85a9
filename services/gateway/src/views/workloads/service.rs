//! Services.

use nimbus_proto::workloads as w;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::shown::ShownSpecView;
use super::spec::SandboxSpecBody;
use super::words::{HealthWord, IsolationWord, LifecycleWord, ProviderWord, ReadinessWord};
use super::{ConditionView, EndpointView, at, conditions, endpoints};
use crate::envelope::Answer;
use crate::views::At;

/// A service's definition.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServiceBody {
    /// What it is called.
    #[serde(default)]
    pub metadata: ServiceMetadataBody,
    /// What it is.
    pub spec: ServiceSpecBody,
}

/// What a service is called.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ServiceMetadataBody {
    /// Repeats the tenant of the address, if it is given.
    pub tenant_id: Option<String>,
    /// Its name; required to create it, else it repeats the name of the address.
    #[schema(examples("worker"))]
    pub name: Option<String>,
    /// To replace it: the generation that was read.
    pub generation: Option<u64>,
    /// Its labels; left out, they stay as they are.
    pub labels: Option<w::Labels>,
}

/// What a service is.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServiceSpecBody {
    /// What is behind the name.
    pub backend: BackendBody,
}

/// What is behind a service's name.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
pub(crate) enum BackendBody {
    /// A sandbox that Nimbus runs.
    Sandbox {
        /// What it shall be.
        sandbox: Box<SandboxSpecBody>,
    },
    /// Something built in.
    BuiltIn {
        /// What.
        provider: ProviderWord,
    },
    /// Something elsewhere.
    External {
        /// Where.
        endpoint: ExternalEndpointView,
        /// How to sign in there.
        #[expect(dead_code, reason = "there is one kind, and reading it has checked it")]
        auth: ExternalAuthView,
        /// How its health is found out.
        health: ExternalHealthView,
    },
}

/// Where something external is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExternalEndpointView {
    /// An absolute `http` or `https` URL without user and password.
    pub url: String,
}

/// How to sign in at something external.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
pub(crate) enum ExternalAuthView {
    /// Not at all.
    None,
}

/// How the health of something external is found out.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
pub(crate) enum ExternalHealthView {
    /// By a request.
    Http {
        /// The path, beginning with `/`.
        path: String,
    },
}

impl BackendBody {
    pub(crate) fn checked(self) -> Answer<w::Backend> {
        Ok(match self {
            Self::Sandbox { sandbox } => {
                w::Backend::Sandbox(Box::new(sandbox.checked("spec.backend.sandbox")?))
            }
            Self::BuiltIn { provider } => w::Backend::BuiltIn(provider.into()),
            Self::External { endpoint, health, .. } => {
                let ExternalHealthView::Http { path } = health;
                w::Backend::External {
                    url: endpoint.url,
                    health_path: path,
                }
            }
        })
    }
}

/// Which services.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ServicesQuery {
    /// At most this many: 1 to 100, 100 when it is left out; other numbers are taken for the nearest.
    pub limit: Option<i64>,
    /// `nextPageToken` of the page before.
    pub page_token: Option<String>,
    /// Only those with this label …
    pub label_key: Option<String>,
    /// … and this value of it.
    pub label_value: Option<String>,
}

/// How a service is replaced.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct UpdateQuery {
    /// The generation that was read, unless the body says it.
    pub if_match_generation: Option<u64>,
    /// `reject`: refuse to replace the definition of an active service.
    #[param(value_type = Option<String>)]
    pub on_active: Option<OnActive>,
}

/// What happens to an active service whose definition is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnActive {
    /// It is refused.
    Reject,
    /// It is brought to the new definition.
    Apply,
}

/// How a service is deleted.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeleteServiceQuery {
    /// The generation that was read; required, unless `If-Match` says it.
    pub if_match_generation: Option<u64>,
    /// Also when it runs or has open sessions.
    #[serde(default)]
    pub force: bool,
}

/// A restart.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RestartBody {
    /// The generation that was read; another one is refused.
    pub source_generation: Option<u64>,
    /// A repeat within ten minutes gives the first outcome.
    pub request_id: Option<String>,
}

/// A service. `metadata`, `spec` and `status` say everything; what stands beside them repeats the status.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServiceView {
    /// What it is called and when it changed.
    pub metadata: ServiceMetadata,
    /// What it is.
    pub spec: ServiceSpecView,
    /// How it is.
    pub status: ServiceStatusView,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.tenantId`.
    pub tenant_id: String,
    /// `status.lifecycleState`.
    pub state: LifecycleWord,
    /// `status.lifecycleState`.
    pub lifecycle_state: LifecycleWord,
    /// `status.readiness`.
    pub readiness: ReadinessWord,
    /// `status.health`.
    pub health: HealthWord,
    /// `status.sandboxId`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox_id: Option<String>,
    /// What isolates what runs; left out when nothing runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<IsolationWord>,
    /// `status.endpoints`.
    pub endpoints: Vec<EndpointView>,
}

/// What a service is called and when it changed.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServiceMetadata {
    /// The tenant.
    pub tenant_id: String,
    /// Its name.
    pub name: String,
    /// New whenever the name is created anew.
    pub uid: String,
    /// Counts changes of the definition, from 1.
    pub generation: u64,
    /// Changes at every write; only equality means something.
    pub resource_version: String,
    /// When it was created.
    pub created_at: At,
    /// When it changed last.
    pub updated_at: At,
    /// Its labels.
    pub labels: w::Labels,
    /// `dynamic`, or `staticCatalog` for what the API cannot change.
    pub source: &'static str,
}

/// What a service is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ServiceSpecView {
    /// What is behind the name.
    pub backend: BackendView,
}

/// What is behind a service's name.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub(crate) enum BackendView {
    /// A sandbox that Nimbus runs.
    Sandbox {
        /// What it is, launch input redacted.
        sandbox: Box<ShownSpecView>,
    },
    /// Something built in.
    BuiltIn {
        /// What.
        provider: ProviderWord,
    },
    /// Something elsewhere.
    External {
        /// Where.
        endpoint: ExternalEndpointView,
        /// How to sign in there.
        auth: ExternalAuthView,
        /// How its health is found out.
        health: ExternalHealthView,
    },
    /// Something the caller may not see.
    Redacted {
        /// Its kind.
        backend: String,
        /// Always true.
        redacted: bool,
        /// Why.
        reason: &'static str,
    },
}

impl From<w::ShownBackend> for BackendView {
    fn from(backend: w::ShownBackend) -> Self {
        match backend {
            w::ShownBackend::Sandbox(spec) => Self::Sandbox {
                sandbox: Box::new((*spec).into()),
            },
            w::ShownBackend::BuiltIn(provider) => Self::BuiltIn {
                provider: provider.into(),
            },
            w::ShownBackend::External { url, health_path } => Self::External {
                endpoint: ExternalEndpointView { url },
                auth: ExternalAuthView::None,
                health: ExternalHealthView::Http { path: health_path },
            },
            w::ShownBackend::Redacted(backend) => Self::Redacted {
                backend,
                redacted: true,
                reason: "requiresInspectPermission",
            },
        }
    }
}

/// How a service is.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServiceStatusView {
    /// The kind behind it: `sandbox`, `builtIn` or `external`.
    pub backend: String,
    /// Where it is in its life.
    pub lifecycle_state: LifecycleWord,
    /// Whether it can be used.
    pub readiness: ReadinessWord,
    /// What its health check says.
    pub health: HealthWord,
    /// The sandbox behind it, if one runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox_id: Option<String>,
    /// How often its process was restarted by itself.
    pub restart_count: u32,
    /// The generation that runs.
    pub observed_generation: u64,
    /// Where its ports are.
    pub endpoints: Vec<EndpointView>,
    /// What can be said about it, one per `type`.
    pub conditions: Vec<ConditionView>,
}

impl From<w::Service> for ServiceView {
    fn from(service: w::Service) -> Self {
        let status = service.status;
        let kind = match &service.backend {
            w::ShownBackend::Sandbox(_) => "sandbox",
            w::ShownBackend::BuiltIn(_) => "builtIn",
            w::ShownBackend::External { .. } => "external",
            w::ShownBackend::Redacted(kind) => kind.as_str(),
        };
        let status_view = ServiceStatusView {
            backend: kind.to_owned(),
            lifecycle_state: status.lifecycle.into(),
            readiness: status.readiness.into(),
            health: status.health.into(),
            sandbox_id: status.sandbox,
            restart_count: status.restarts,
            observed_generation: status.observed_generation,
            endpoints: endpoints(status.endpoints),
            conditions: conditions(status.conditions),
        };
        Self {
            name: service.name.clone(),
            tenant_id: service.tenant.clone(),
            state: status_view.lifecycle_state,
            lifecycle_state: status_view.lifecycle_state,
            readiness: status_view.readiness,
            health: status_view.health,
            sandbox_id: status_view.sandbox_id.clone(),
            backend: status.isolation.map(IsolationWord::from),
            endpoints: status_view.endpoints.clone(),
            metadata: ServiceMetadata {
                tenant_id: service.tenant,
                name: service.name,
                uid: service.uid,
                generation: service.generation,
                resource_version: format!("svcdef-{}", service.resource_version),
                created_at: at(service.created_at),
                updated_at: at(service.updated_at),
                labels: service.labels,
                source: if service.is_static {
                    "staticCatalog"
                } else {
                    "dynamic"
                },
            },
            spec: ServiceSpecView {
                backend: service.backend.into(),
            },
            status: status_view,
        }
    }
}
