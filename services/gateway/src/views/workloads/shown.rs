//! A sandbox' specification as it is shown: launch input redacted, defaults filled in.

use nimbus_proto::workloads as w;
use serde::Serialize;
use utoipa::ToSchema;

use super::RedactedView;
use super::spec::{
    EgressView, HealthCheckView, MountView, NetworkView, OwnerView, PortView, RestartView, RuleView,
    SecretUseView,
};
use super::words::IsolationWord;

/// What a sandbox shall be.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ShownSpecView {
    /// The tenant.
    pub tenant_id: String,
    /// Whom it belongs to.
    pub owner: OwnerView,
    /// What isolates it.
    pub backend: IsolationWord,
    /// Its root file system.
    pub root: RootView,
    /// Its main process.
    pub process: ProcessView,
    /// Its limits.
    pub resources: ResourcesView,
    /// Its published ports, where they were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<PortView>>,
    /// What it may reach.
    pub network: NetworkView,
    /// What is mounted into it.
    pub mounts: Vec<MountView>,
    /// When it is restarted and how it is stopped.
    pub lifecycle: LifecycleView,
    /// How its health is found out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCheckView>,
    /// When it is stopped, after its creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// After how long without use it is stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout_ms: Option<u64>,
    /// Whether its root file system is read-only.
    pub read_only_root: bool,
}

/// Where the root file system comes from.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum RootView {
    /// An OCI image.
    OciImage {
        /// Where the image comes from.
        source: SourceView,
    },
    /// Something that only operators give.
    Redacted {
        /// Always true.
        redacted: bool,
        /// Why.
        reason: &'static str,
    },
}

/// Where an image comes from.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum SourceView {
    /// A registry.
    Reference {
        /// The image.
        reference: String,
    },
}

/// The main process.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ProcessView {
    /// Its arguments.
    pub argv: RedactedView,
    /// Its variables.
    pub environment: RedactedView,
    /// Arguments that replace the image's entrypoint, where they were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<RedactedView>,
    /// Arguments that replace the image's command, where they were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<RedactedView>,
    /// Secrets of the tenant that it is given.
    pub secrets: Vec<SecretUseView>,
    /// Working directory.
    pub cwd: String,
    /// User, where one was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Whether it has a terminal.
    pub terminal: bool,
}

/// Limits in force.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ResourcesView {
    /// CPUs.
    pub vcpus: f64,
    /// Memory.
    pub memory_bytes: u64,
    /// Writable layer.
    pub disk_bytes: u64,
    /// Kept log.
    pub log_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
}

/// When a sandbox is restarted and how it is stopped.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LifecycleView {
    /// When its process is started again.
    pub restart_policy: RestartView,
    /// How long a polite stop may take.
    pub stop_timeout_ms: u32,
}

impl From<w::Resources> for ResourcesView {
    fn from(resources: w::Resources) -> Self {
        Self {
            vcpus: f64::from(resources.cpu_milli) / 1000.0,
            memory_bytes: resources.memory_bytes,
            disk_bytes: resources.disk_bytes,
            log_bytes: resources.log_bytes,
            pids: resources.pids,
        }
    }
}

impl From<w::ShownProcess> for ProcessView {
    fn from(process: w::ShownProcess) -> Self {
        Self {
            argv: process.argv.into(),
            environment: process.environment.into(),
            entrypoint: process.entrypoint.map(RedactedView::from),
            command: process.command.map(RedactedView::from),
            secrets: process
                .secrets
                .into_iter()
                .map(|used| SecretUseView {
                    secret: used.secret,
                    variable: used.variable,
                })
                .collect(),
            cwd: process.cwd,
            user: process.user,
            terminal: process.terminal,
        }
    }
}

impl From<w::ShownSpec> for ShownSpecView {
    fn from(spec: w::ShownSpec) -> Self {
        let root = match spec.root {
            w::Root::Image { reference } => RootView::OciImage {
                source: SourceView::Reference { reference },
            },
            w::Root::Operator { .. } => RootView::Redacted {
                redacted: true,
                reason: "operatorOnlyLaunchInput",
            },
        };
        Self {
            tenant_id: spec.tenant,
            owner: spec.owner.into(),
            backend: spec.backend.into(),
            root,
            process: spec.process.into(),
            resources: spec.resources.into(),
            ports: spec
                .ports
                .map(|ports| ports.into_iter().map(PortView::from).collect()),
            network: NetworkView {
                egress: Some(EgressView {
                    allow: spec.egress.into_iter().map(RuleView::from).collect(),
                }),
            },
            mounts: spec.mounts.into_iter().map(MountView::from).collect(),
            lifecycle: LifecycleView {
                restart_policy: spec.restart.into(),
                stop_timeout_ms: spec.stop_timeout_ms,
            },
            health: spec.health.map(HealthCheckView::from),
            ttl_ms: spec.ttl_ms,
            idle_timeout_ms: spec.idle_timeout_ms,
            read_only_root: spec.read_only_root,
        }
    }
}
