//! What a sandbox shall be, as clients say it.

use nimbus_proto::Secret;
use nimbus_proto::workloads as w;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::words::{IsolationWord, ProtocolWord};
use crate::envelope::{Answer, ApiError};

/// A sandbox to be.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SandboxSpecBody {
    /// Repeats the tenant of the address, if it is given.
    pub tenant_id: Option<String>,
    /// Whom it belongs to.
    pub owner: OwnerView,
    /// What isolates it.
    pub backend: IsolationWord,
    /// Its root file system.
    pub root: RootBody,
    /// Its main process; the image's when it is left out.
    #[serde(default)]
    pub process: ProcessBody,
    /// Its limits, where they differ from the tenant's defaults.
    pub resources: Option<ResourcesBody>,
    /// Its published ports; the image's TCP ports when they are left out.
    pub ports: Option<Vec<PortView>>,
    /// What it may reach; nothing when it is left out.
    pub network: Option<NetworkView>,
    /// What is mounted into it.
    pub mounts: Option<Vec<MountView>>,
    /// When it is restarted and how it is stopped.
    pub lifecycle: Option<LifecycleBody>,
    /// How its health is found out.
    pub health: Option<HealthCheckView>,
    /// When it is stopped, in milliseconds after its creation: 1000 to 86400000.
    pub ttl_ms: Option<u64>,
    /// After how long without a command, a connection or an open session it is stopped, in milliseconds.
    pub idle_timeout_ms: Option<u64>,
    /// Whether its root file system is read-only.
    #[serde(default)]
    pub read_only_root: bool,
}

/// Whom a sandbox belongs to.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(
    tag = "kind",
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub(crate) enum OwnerView {
    /// A service; its name may be left to the server.
    Service {
        /// The service.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        service_name: Option<String>,
    },
    /// Nobody but its creator.
    Standalone {
        /// What it is called in lists and in its id.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        display_name: Option<String>,
    },
}

impl From<OwnerView> for w::Owner {
    fn from(owner: OwnerView) -> Self {
        match owner {
            OwnerView::Service { service_name } => Self::Service { name: service_name },
            OwnerView::Standalone { display_name } => Self::Standalone { display_name },
        }
    }
}

impl From<w::Owner> for OwnerView {
    fn from(owner: w::Owner) -> Self {
        match owner {
            w::Owner::Service { name } => Self::Service { service_name: name },
            w::Owner::Standalone { display_name } => Self::Standalone { display_name },
        }
    }
}

/// Where the root file system comes from.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum RootBody {
    /// An OCI image.
    OciImage {
        /// Where the image comes from.
        source: SourceBody,
    },
    /// A directory of the host; only for operators.
    Rootfs {
        /// The directory.
        #[schema(value_type = String)]
        #[expect(dead_code, reason = "refused whatever it is")]
        rootfs: Value,
        /// Whether it may be written.
        #[serde(default)]
        #[schema(value_type = bool)]
        #[expect(dead_code, reason = "refused whatever it is")]
        readonly: Value,
    },
}

/// Where an image comes from.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(
    tag = "kind",
    rename_all = "snake_case",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub(crate) enum SourceBody {
    /// A registry.
    Reference {
        /// `registry/repository[:tag][@digest]`; short names mean Docker Hub.
        #[schema(examples("docker.io/library/alpine:3.22"))]
        reference: String,
    },
    /// A build; only for operators.
    Build {
        /// What the image is called.
        #[schema(value_type = String)]
        #[expect(dead_code, reason = "refused whatever it is")]
        image_name: Value,
        /// How it is built.
        #[serde(default)]
        #[schema(value_type = String)]
        #[expect(dead_code, reason = "refused whatever it is")]
        dockerfile_path: Value,
        /// From what it is built.
        #[serde(default)]
        #[schema(value_type = String)]
        #[expect(dead_code, reason = "refused whatever it is")]
        context_path: Value,
    },
}

impl From<RootBody> for w::Root {
    fn from(root: RootBody) -> Self {
        let operator = |kind: &str| Self::Operator {
            kind: kind.to_owned(),
        };
        match root {
            RootBody::OciImage {
                source: SourceBody::Reference { reference },
            } => Self::Image { reference },
            RootBody::OciImage {
                source: SourceBody::Build { .. },
            } => operator("build"),
            RootBody::Rootfs { .. } => operator("rootfs"),
        }
    }
}

/// The main process.
#[derive(Clone, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ProcessBody {
    /// Replaces the image's entrypoint and command.
    #[serde(default)]
    #[schema(examples(json!(["sleep", "600"])))]
    pub argv: Vec<String>,
    /// The same; `argv` wins.
    #[serde(default)]
    pub args: Vec<String>,
    /// Replaces the image's entrypoint; not together with `argv`.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command; not together with `argv`.
    pub command: Option<Vec<String>>,
    /// `NAME=value`, merged over the image's environment.
    #[serde(default)]
    #[schema(examples(json!(["MODE=fast"])))]
    pub env: Vec<String>,
    /// The tenant's secrets as variables.
    #[serde(default)]
    pub secrets: Vec<SecretUseView>,
    /// Working directory, absolute.
    pub cwd: Option<String>,
    /// `uid[:gid]` or a name of the image's own user table.
    pub user: Option<String>,
    /// Whether it gets a terminal.
    #[serde(default)]
    pub terminal: bool,
}

/// A secret of the tenant that becomes a variable.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SecretUseView {
    /// The secret's name.
    pub secret: String,
    /// The variable that holds it.
    pub variable: String,
}

/// Limits, where they differ from the tenant's defaults.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ResourcesBody {
    /// CPUs, in parts too.
    #[schema(examples(0.5))]
    pub vcpus: Option<f64>,
    /// Memory.
    pub memory_bytes: Option<u64>,
    /// Writable layer.
    pub disk_bytes: Option<u64>,
    /// Kept log.
    pub log_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
}

/// Thousandths of a CPU.
pub(crate) fn milli(vcpus: f64, field: &str) -> Answer<u32> {
    let milli = (vcpus * 1000.0).round();
    if !(1.0..=1_000_000.0).contains(&milli) {
        return Err(ApiError::field(
            field,
            format!("{field}: expected 0.001 to 1000 CPUs, got {vcpus}"),
        ));
    }
    #[expect(clippy::cast_possible_truncation, reason = "between 1 and a million")]
    Ok(milli as u32)
}

impl ResourcesBody {
    fn checked(self, at: &str) -> Answer<w::ResourcesWanted> {
        let field = format!("{at}.resources.vcpus");
        Ok(w::ResourcesWanted {
            cpu_milli: self.vcpus.map(|vcpus| milli(vcpus, &field)).transpose()?,
            memory_bytes: self.memory_bytes,
            disk_bytes: self.disk_bytes,
            log_bytes: self.log_bytes,
            pids: self.pids,
        })
    }
}

/// A port that is published on the host's loopback.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PortView {
    /// Unique in the sandbox; `tcp-<guestPort>` when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The port inside.
    #[schema(examples(8080))]
    pub guest_port: u16,
    /// What is spoken there.
    pub protocol: ProtocolWord,
    /// The port on the host; the lowest free one of 15000 to 16000 when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port: Option<u16>,
}

impl From<PortView> for w::Port {
    fn from(port: PortView) -> Self {
        Self {
            name: port.name,
            guest_port: port.guest_port,
            protocol: port.protocol.into(),
            host_port: port.host_port,
        }
    }
}

impl From<w::Port> for PortView {
    fn from(port: w::Port) -> Self {
        Self {
            name: port.name,
            guest_port: port.guest_port,
            protocol: port.protocol.into(),
            host_port: port.host_port,
        }
    }
}

/// What a sandbox may reach.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NetworkView {
    /// What goes out.
    pub egress: Option<EgressView>,
}

/// What may go out; everything else is denied.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EgressView {
    /// What is allowed; the first rule that fits decides.
    pub allow: Vec<RuleView>,
}

/// One thing that may be reached.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RuleView {
    /// Unique in the sandbox.
    pub name: String,
    /// What is spoken.
    pub protocol: ProtocolWord,
    /// One DNS name or IP address.
    #[schema(examples("pypi.org"))]
    pub host: String,
    /// The port there.
    #[schema(examples(443))]
    pub port: u16,
    /// Methods that are allowed, for `http`; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Starts of paths that are allowed, for `http`; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub path_prefixes: Vec<String>,
    /// Whether an address that is not of the public internet may be meant.
    #[serde(default)]
    pub allow_internal_ips: bool,
}

impl From<RuleView> for w::EgressRule {
    fn from(rule: RuleView) -> Self {
        Self {
            name: rule.name,
            protocol: rule.protocol.into(),
            host: rule.host,
            port: rule.port,
            methods: rule.methods,
            path_prefixes: rule.path_prefixes,
            allow_internal_ips: rule.allow_internal_ips,
        }
    }
}

impl From<w::EgressRule> for RuleView {
    fn from(rule: w::EgressRule) -> Self {
        Self {
            name: rule.name,
            protocol: rule.protocol.into(),
            host: rule.host,
            port: rule.port,
            methods: rule.methods,
            path_prefixes: rule.path_prefixes,
            allow_internal_ips: rule.allow_internal_ips,
        }
    }
}

/// What is mounted.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(
    tag = "kind",
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub(crate) enum MountView {
    /// A volume of the tenant.
    Volume {
        /// The volume's name.
        name: String,
        /// Where, an absolute path.
        target: String,
        /// Whether writing is refused.
        #[serde(default)]
        read_only: bool,
    },
    /// Memory.
    Tmpfs {
        /// Where, an absolute path.
        target: String,
        /// At most this much; 64 MiB when it is left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size_bytes: Option<u64>,
    },
}

impl From<MountView> for w::Mount {
    fn from(mount: MountView) -> Self {
        match mount {
            MountView::Volume {
                name,
                target,
                read_only,
            } => Self::Volume {
                name,
                target,
                read_only,
            },
            MountView::Tmpfs { target, size_bytes } => Self::Tmpfs { target, size_bytes },
        }
    }
}

impl From<w::Mount> for MountView {
    fn from(mount: w::Mount) -> Self {
        match mount {
            w::Mount::Volume {
                name,
                target,
                read_only,
            } => Self::Volume {
                name,
                target,
                read_only,
            },
            w::Mount::Tmpfs { target, size_bytes } => Self::Tmpfs { target, size_bytes },
        }
    }
}

/// When a sandbox is restarted and how it is stopped.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LifecycleBody {
    /// When its process is started again.
    pub restart_policy: Option<RestartView>,
    /// How long a polite stop may take; 5000 when it is left out.
    pub stop_timeout_ms: Option<u32>,
}

/// When a process that ended is started again.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(
    tag = "kind",
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub(crate) enum RestartView {
    /// Never.
    Never,
    /// After a failure.
    OnFailure {
        /// At most so many times.
        max_restarts: u32,
    },
    /// After any end that was not asked for.
    Always {
        /// At most so many times; without an end when it is left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_restarts: Option<u32>,
    },
}

impl From<RestartView> for w::RestartPolicy {
    fn from(policy: RestartView) -> Self {
        match policy {
            RestartView::Never => Self::Never,
            RestartView::OnFailure { max_restarts } => Self::OnFailure { max_restarts },
            RestartView::Always { max_restarts } => Self::Always { max_restarts },
        }
    }
}

impl From<w::RestartPolicy> for RestartView {
    fn from(policy: w::RestartPolicy) -> Self {
        match policy {
            w::RestartPolicy::Never => Self::Never,
            w::RestartPolicy::OnFailure { max_restarts } => Self::OnFailure { max_restarts },
            w::RestartPolicy::Always { max_restarts } => Self::Always { max_restarts },
        }
    }
}

/// How health is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ProbeWord {
    Http,
    Tcp,
    Exec,
}

/// A health check.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct HealthCheckView {
    /// What is tried: `http` a request, `tcp` a connection, `exec` a command.
    pub kind: ProbeWord,
    /// For `http`: the path, beginning with `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The port inside; for `http` the first published one when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// For `http`: the status that passes; 200 to 399 when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_status: Option<u16>,
    /// For `exec`: the command. Never shown.
    #[serde(default, skip_serializing)]
    pub argv: Option<Vec<String>>,
    /// How often; 10000 when it is left out.
    #[serde(default = "HealthCheckView::interval")]
    pub interval_ms: u32,
    /// For how long; 1000 when it is left out.
    #[serde(default = "HealthCheckView::timeout")]
    pub timeout_ms: u32,
    /// Failures in a row until it counts; 3 when it is left out.
    #[serde(default = "HealthCheckView::retries")]
    pub retries: u32,
    /// How long after the start failures do not count.
    #[serde(default)]
    pub start_period_ms: u32,
    /// Whether an unhealthy sandbox is restarted as if its process had failed.
    #[serde(default)]
    pub restart_on_unhealthy: bool,
}

impl HealthCheckView {
    const fn interval() -> u32 {
        10_000
    }
    const fn timeout() -> u32 {
        1000
    }
    const fn retries() -> u32 {
        3
    }

    fn checked(self, at: &str) -> Answer<w::HealthCheck> {
        let wrong = |name: &str, message: &str| {
            let field = format!("{at}.health.{name}");
            ApiError::field(&field, format!("{field}: {message}"))
        };
        let only = |is: bool, name: &str, kind: &str| {
            if is {
                Err(wrong(name, &format!("only for the kind {kind}")))
            } else {
                Ok(())
            }
        };
        only(
            self.kind != ProbeWord::Http && self.path.is_some(),
            "path",
            "http",
        )?;
        only(
            self.kind != ProbeWord::Http && self.expect_status.is_some(),
            "expectStatus",
            "http",
        )?;
        only(
            self.kind != ProbeWord::Exec && self.argv.is_some(),
            "argv",
            "exec",
        )?;
        let probe = match self.kind {
            ProbeWord::Http => w::Probe::Http {
                path: self
                    .path
                    .ok_or_else(|| wrong("path", "is required for the kind http"))?,
                port: self.port,
                expect: self.expect_status.map_or((200, 399), |status| (status, status)),
            },
            ProbeWord::Tcp => w::Probe::Tcp {
                port: self
                    .port
                    .ok_or_else(|| wrong("port", "is required for the kind tcp"))?,
            },
            ProbeWord::Exec => w::Probe::Exec {
                argv: self
                    .argv
                    .ok_or_else(|| wrong("argv", "is required for the kind exec"))?,
            },
        };
        Ok(w::HealthCheck {
            probe,
            interval_ms: self.interval_ms,
            timeout_ms: self.timeout_ms,
            retries: self.retries,
            start_period_ms: self.start_period_ms,
            restart_on_unhealthy: self.restart_on_unhealthy,
        })
    }
}

impl From<w::HealthCheck> for HealthCheckView {
    fn from(check: w::HealthCheck) -> Self {
        let mut view = Self {
            kind: ProbeWord::Exec,
            path: None,
            port: None,
            expect_status: None,
            argv: None,
            interval_ms: check.interval_ms,
            timeout_ms: check.timeout_ms,
            retries: check.retries,
            start_period_ms: check.start_period_ms,
            restart_on_unhealthy: check.restart_on_unhealthy,
        };
        match check.probe {
            w::Probe::Http { path, port, expect } => {
                view.kind = ProbeWord::Http;
                view.path = Some(path);
                view.port = port;
                view.expect_status = (expect.0 == expect.1).then_some(expect.0);
            }
            w::Probe::Tcp { port } => {
                view.kind = ProbeWord::Tcp;
                view.port = Some(port);
            }
            w::Probe::Exec { .. } => {}
        }
        view
    }
}

/// `NAME=value`, without showing the value in a refusal.
pub(crate) fn variable(text: &str, field: &str) -> Answer<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(ApiError::field(
            field,
            format!("{field}: expected NAME=value in every entry"),
        )),
    }
}

impl ProcessBody {
    fn checked(self, at: &str) -> Answer<w::Process> {
        let field = format!("{at}.process.env");
        let variables = self.env.iter().map(|text| {
            let (name, value) = variable(text, &field)?;
            Ok(w::Variable {
                name,
                value: Secret::new(value),
            })
        });
        Ok(w::Process {
            env: variables.collect::<Answer<_>>()?,
            argv: if self.argv.is_empty() {
                self.args
            } else {
                self.argv
            },
            entrypoint: self.entrypoint,
            command: self.command,
            secrets: self
                .secrets
                .into_iter()
                .map(|used| w::SecretUse {
                    secret: used.secret,
                    variable: used.variable,
                })
                .collect(),
            cwd: self.cwd,
            user: self.user,
            terminal: self.terminal,
        })
    }
}

impl SandboxSpecBody {
    /// What the contract says; refusals name fields below `at`.
    pub(crate) fn checked(self, at: &str) -> Answer<w::SandboxSpec> {
        let egress = self.network.and_then(|network| network.egress);
        Ok(w::SandboxSpec {
            tenant: self.tenant_id,
            owner: self.owner.into(),
            backend: self.backend.into(),
            root: self.root.into(),
            process: self.process.checked(at)?,
            resources: self.resources.map(|wanted| wanted.checked(at)).transpose()?,
            ports: self
                .ports
                .map(|ports| ports.into_iter().map(w::Port::from).collect()),
            egress: egress.map(|egress| egress.allow.into_iter().map(w::EgressRule::from).collect()),
            mounts: self
                .mounts
                .map(|mounts| mounts.into_iter().map(w::Mount::from).collect()),
            restart: self
                .lifecycle
                .and_then(|lifecycle| lifecycle.restart_policy)
                .map(w::RestartPolicy::from),
            stop_timeout_ms: self.lifecycle.and_then(|lifecycle| lifecycle.stop_timeout_ms),
            health: self.health.map(|health| health.checked(at)).transpose()?,
            ttl_ms: self.ttl_ms,
            idle_timeout_ms: self.idle_timeout_ms,
            read_only_root: self.read_only_root,
        })
    }
}
