//! What a sandbox shall be, as its creator says it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Secret;

/// Free-form pairs for filtering; at most 32.
pub type Labels = BTreeMap<String, String>;

/// What isolates a sandbox from its host.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr, strum::EnumString,
)]
#[strum(serialize_all = "camelCase")]
pub enum Isolation {
    /// A container of the host's engine.
    Container,
    /// A microVM; refused where it cannot be had, never replaced by a container.
    Krun,
}

/// What a sandbox is for.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, strum::IntoStaticStr, strum::EnumString,
)]
#[strum(serialize_all = "camelCase")]
pub enum Profile {
    /// The process as specified.
    Worker,
    /// That, and a browser inside the same sandbox.
    Desktop,
}

/// Whom a sandbox belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Owner {
    /// A service; the name may be left to the server.
    Service {
        /// The service's name.
        name: Option<String>,
    },
    /// Nobody but its creator.
    Standalone {
        /// What it is called in lists and in its id.
        display_name: Option<String>,
    },
}

/// Where the root file system comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Root {
    /// An OCI image, by reference.
    Image {
        /// `registry/repository[:tag][@digest]`; short names mean Docker Hub.
        reference: String,
    },
    /// A form that only operators may use; read so that the refusal can name it.
    Operator {
        /// The form's name, such as `rootfs`.
        kind: String,
    },
}

/// One variable of the environment. The value may be a secret: it is never shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Secret,
}

/// A tenant's secret that becomes a variable at the claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretUse {
    /// The secret's name in the tenant.
    pub secret: String,
    /// The variable that holds it.
    pub variable: String,
}

/// The main process. Arguments and values are launch input: they are never shown again.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Replaces the image's entrypoint and command when it is not empty.
    pub argv: Vec<String>,
    /// Replaces the image's entrypoint; not together with `argv`.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command; not together with `argv`.
    pub command: Option<Vec<String>>,
    /// Merged over the image's environment, later ones win; at most 128.
    pub env: Vec<Variable>,
    /// Tenant secrets as variables.
    pub secrets: Vec<SecretUse>,
    /// Working directory; the image's or `/`.
    pub cwd: Option<String>,
    /// `uid[:gid]` or a name of the image's own user table; the image's or `0:0`.
    pub user: Option<String>,
    /// Whether the main process gets a terminal.
    pub terminal: bool,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process")
            .field("argv", &self.argv.len())
            .field("env", &self.env.len())
            .field("secrets", &self.secrets.len())
            .field("cwd", &self.cwd)
            .field("user", &self.user)
            .field("terminal", &self.terminal)
            .finish_non_exhaustive()
    }
}

/// Limits, where they differ from the tenant's defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourcesWanted {
    /// Thousandths of a CPU.
    pub cpu_milli: Option<u32>,
    /// Memory in bytes; swap is off.
    pub memory_bytes: Option<u64>,
    /// Writable layer in bytes.
    pub disk_bytes: Option<u64>,
    /// Kept log in bytes; older lines are dropped.
    pub log_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
}

/// Limits in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Thousandths of a CPU.
    pub cpu_milli: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Writable layer in bytes.
    pub disk_bytes: u64,
    /// Kept log in bytes.
    pub log_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
}

/// What is spoken on a port.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr, strum::EnumString,
)]
#[strum(serialize_all = "camelCase")]
pub enum Protocol {
    /// Anything over TCP.
    Tcp,
    /// HTTP in clear text.
    Http,
    /// HTTP over TLS.
    Https,
}

/// A port of the sandbox that is published on its host's loopback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Unique in the sandbox; `tcp-<guest port>` when it is left out.
    pub name: Option<String>,
    /// The port inside.
    pub guest_port: u16,
    /// What is spoken there.
    pub protocol: Protocol,
    /// The port on the host; the lowest free one of 15000–16000 when it is left out.
    pub host_port: Option<u16>,
}

/// One thing the sandbox may reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressRule {
    /// Unique in the sandbox.
    pub name: String,
    /// What is spoken.
    pub protocol: Protocol,
    /// One DNS name or IP address.
    pub host: String,
    /// The port there.
    pub port: u16,
    /// Methods that are allowed, for `http`; empty for all.
    pub methods: Vec<String>,
    /// Starts of paths that are allowed, for `http`; empty for all.
    pub path_prefixes: Vec<String>,
    /// Whether an address that is not of the public internet may be meant.
    pub allow_internal_ips: bool,
}

/// What is mounted into the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mount {
    /// A named volume of the tenant.
    Volume {
        /// The volume's name in the tenant.
        name: String,
        /// Where, an absolute path.
        target: String,
        /// Whether writing is refused.
        read_only: bool,
    },
    /// Memory.
    Tmpfs {
        /// Where, an absolute path.
        target: String,
        /// At most this much; 64 MiB when it is left out.
        size_bytes: Option<u64>,
    },
}

/// When a process that ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// Never.
    Never,
    /// After a failure, at most so many times.
    OnFailure {
        /// How many times.
        max_restarts: u32,
    },
    /// After any end that was not asked for.
    Always {
        /// How many times; without an end when it is left out.
        max_restarts: Option<u32>,
    },
}

/// How it is found out whether a sandbox works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Probe {
    /// An HTTP request inside.
    Http {
        /// The path, beginning with `/`.
        path: String,
        /// The port inside; the first published one when it is left out.
        port: Option<u16>,
        /// Statuses that pass, both ends included.
        expect: (u16, u16),
    },
    /// A TCP connection inside.
    Tcp {
        /// The port inside.
        port: u16,
    },
    /// A command inside that ends with 0.
    Exec {
        /// The command.
        argv: Vec<String>,
    },
}

/// A health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// What is tried.
    pub probe: Probe,
    /// How often, in milliseconds.
    pub interval_ms: u32,
    /// For how long, in milliseconds.
    pub timeout_ms: u32,
    /// Failures in a row until it counts.
    pub retries: u32,
    /// How long after the start failures do not count, in milliseconds.
    pub start_period_ms: u32,
    /// Whether an unhealthy sandbox is restarted as if its process had failed.
    pub restart_on_unhealthy: bool,
}

/// A sandbox as its creator wants it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Repeats the route's tenant, if it is given.
    pub tenant: Option<String>,
    /// Whom it belongs to.
    pub owner: Owner,
    /// What isolates it.
    pub backend: Isolation,
    /// Its root file system.
    pub root: Root,
    /// Its main process.
    pub process: Process,
    /// Its limits.
    pub resources: Option<ResourcesWanted>,
    /// Its published ports; the image's TCP ports when they are left out.
    pub ports: Option<Vec<Port>>,
    /// What it may reach; nothing when it is left out.
    pub egress: Option<Vec<EgressRule>>,
    /// What is mounted into it.
    pub mounts: Option<Vec<Mount>>,
    /// When it is restarted; the owner's default when it is left out.
    pub restart: Option<RestartPolicy>,
    /// How long a polite stop may take, in milliseconds; 5 s when it is left out.
    pub stop_timeout_ms: Option<u32>,
    /// How its health is found out.
    pub health: Option<HealthCheck>,
    /// When it is stopped, counted from its creation in milliseconds.
    pub ttl_ms: Option<u64>,
    /// After how long without a command, a connection or an open session it is stopped, in milliseconds.
    pub idle_timeout_ms: Option<u64>,
    /// Whether its root file system is read-only.
    pub read_only_root: bool,
}

/// The main process as it may be shown: how much there is, not what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownProcess {
    /// Number of arguments.
    pub argv: u32,
    /// Number of variables.
    pub environment: u32,
    /// Number of arguments of the entrypoint, if it was given.
    pub entrypoint: Option<u32>,
    /// Number of arguments of the command, if it was given.
    pub command: Option<u32>,
    /// Secrets that are used, by name.
    pub secrets: Vec<SecretUse>,
    /// Working directory.
    pub cwd: String,
    /// User, if one was named.
    pub user: Option<String>,
    /// Whether it has a terminal.
    pub terminal: bool,
}

/// A sandbox' specification as it may be shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownSpec {
    /// The tenant.
    pub tenant: String,
    /// Whom it belongs to.
    pub owner: Owner,
    /// What isolates it.
    pub backend: Isolation,
    /// Its root file system.
    pub root: Root,
    /// Its main process, redacted.
    pub process: ShownProcess,
    /// Its limits, defaults filled in.
    pub resources: Resources,
    /// Its published ports.
    pub ports: Option<Vec<Port>>,
    /// What it may reach.
    pub egress: Vec<EgressRule>,
    /// What is mounted into it.
    pub mounts: Vec<Mount>,
    /// When it is restarted.
    pub restart: RestartPolicy,
    /// How long a polite stop may take, in milliseconds.
    pub stop_timeout_ms: u32,
    /// How its health is found out.
    pub health: Option<HealthCheck>,
    /// When it is stopped, in milliseconds after its creation.
    pub ttl_ms: Option<u64>,
    /// After how long without use it is stopped, in milliseconds.
    pub idle_timeout_ms: Option<u64>,
    /// Whether its root file system is read-only.
    pub read_only_root: bool,
}
