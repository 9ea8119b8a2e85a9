//! States, conditions and the resources as they are shown.

use nimbus_model::Timestamp;
use serde::{Deserialize, Serialize};

use super::spec::{Isolation, Labels, Profile, Protocol, SandboxSpec, ShownSpec};

/// Where a sandbox or service is in its life.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::IntoStaticStr,
    strum::EnumString,
    strum::VariantArray,
)]
#[strum(serialize_all = "snake_case")]
pub enum Lifecycle {
    /// Admitted; pulling, creating, waiting in a back-off, or running and not yet reachable.
    Starting,
    /// Runs and passes its probe.
    Ready,
    /// Runs and fails its probe.
    NotReady,
    /// Asked to stop.
    Stopping,
    /// Ended by request, or by itself with exit code 0.
    Stopped,
    /// Ended otherwise, or never began.
    Failed,
    /// A definition that nothing of ours runs.
    Declared,
}

impl Lifecycle {
    /// Whether it will not change any more by itself.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Stopped | Self::Failed)
    }
}

/// Whether it can be used now.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr, strum::EnumString,
)]
#[strum(serialize_all = "snake_case")]
pub enum Readiness {
    /// It can.
    Ready,
    /// Not now.
    NotReady,
    /// It has been stopped, or nothing runs.
    Stopped,
    /// It has failed.
    Failed,
    /// Nobody looks.
    Unknown,
}

/// What its health check says.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr, strum::EnumString,
)]
#[strum(serialize_all = "snake_case")]
pub enum Health {
    /// The last check passed.
    Healthy,
    /// Too many checks in a row failed.
    Unhealthy,
    /// There is no answer yet.
    Unknown,
}

/// Whether a sandbox came from the warm pool.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr, strum::EnumString,
)]
#[strum(serialize_all = "snake_case")]
pub enum Start {
    /// A waiting container was claimed.
    Warm,
    /// A container was made for it.
    Cold,
}

/// What a condition speaks of.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    strum::IntoStaticStr,
    strum::EnumString,
)]
pub enum ConditionKind {
    /// The definition is valid.
    Admitted,
    /// It can be used.
    Ready,
    /// Its health.
    Healthy,
    /// Something is being changed.
    Progressing,
    /// A session's lease holds.
    Open,
}

/// True, false or not known.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr, strum::EnumString,
)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody knows.
    Unknown,
}

/// One statement about a resource; one per kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// What it speaks of.
    pub kind: ConditionKind,
    /// What it says.
    pub status: Truth,
    /// Why, one word in camel case, such as `ImagePulling`.
    pub reason: String,
    /// Why, for people; never an argument, a value or a file's content.
    pub message: String,
    /// The generation it speaks of.
    pub observed_generation: u64,
    /// When `status` changed last.
    pub last_transition: Timestamp,
}

/// Where a published port can be reached, on the sandbox' host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The port's name.
    pub name: String,
    /// What is spoken.
    pub protocol: Protocol,
    /// The address, a loopback one.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// How a main process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its exit code; 128 + signal when a signal ended it.
    pub code: i32,
    /// Whether the kernel ended it for its memory.
    pub out_of_memory: bool,
}

/// A sandbox' state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxStatus {
    /// Where it is in its life.
    pub lifecycle: Lifecycle,
    /// Whether it can be used.
    pub readiness: Readiness,
    /// What its health check says.
    pub health: Health,
    /// Where its ports are; empty unless it is ready.
    pub endpoints: Vec<Endpoint>,
    /// How its main process ended, if it has.
    pub exit: Option<Exit>,
    /// When it will be stopped, if there is such a time.
    pub expires_at: Option<Timestamp>,
    /// The image's digest, once it is known.
    pub image_digest: Option<String>,
    /// Whether it was warm; none while it is not running yet.
    pub start: Option<Start>,
    /// Milliseconds from the request to the running process, thousandths included.
    pub started_after_us: Option<u64>,
    /// The host it is on.
    pub host: Option<String>,
    /// How often its process was restarted.
    pub restarts: u32,
    /// What can be said about it, one per kind.
    pub conditions: Vec<Condition>,
}

/// A sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// Its tenant.
    pub tenant: String,
    /// Its id, `<slug>-<ulid>`.
    pub id: String,
    /// Changes at every write; only equality means something.
    pub resource_version: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it changed last.
    pub updated_at: Timestamp,
    /// Its labels.
    pub labels: Labels,
    /// What it is for.
    pub profile: Profile,
    /// What it shall be, redacted.
    pub spec: ShownSpec,
    /// What it is.
    pub status: SandboxStatus,
}

/// What a service declares without our running it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr, strum::EnumString,
)]
#[strum(serialize_all = "camelCase")]
pub enum Provider {
    /// Spreads requests.
    LoadBalancer,
    /// Finds services.
    ServiceDiscovery,
    /// Gives browsers.
    Browser,
    /// Leads to language models.
    ModelGateway,
}

/// What is behind a service's name, as its creator says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backend {
    /// A sandbox that Nimbus runs.
    Sandbox(Box<SandboxSpec>),
    /// Something built in.
    BuiltIn(Provider),
    /// Something elsewhere.
    External {
        /// An absolute `http` or `https` URL.
        url: String,
        /// What is asked for its health, beginning with `/`.
        health_path: String,
    },
}

/// What is behind a service's name, as it may be shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShownBackend {
    /// A sandbox that Nimbus runs.
    Sandbox(Box<ShownSpec>),
    /// Something built in.
    BuiltIn(Provider),
    /// Something elsewhere.
    External {
        /// Its URL.
        url: String,
        /// What is asked for its health.
        health_path: String,
    },
    /// The caller may not see it; the kind only: `sandbox`, `builtIn` or `external`.
    Redacted(String),
}

/// A service's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Where it is in its life.
    pub lifecycle: Lifecycle,
    /// Whether it can be used.
    pub readiness: Readiness,
    /// Its health.
    pub health: Health,
    /// The sandbox behind it, if one runs.
    pub sandbox: Option<String>,
    /// What isolates that sandbox, if one runs.
    pub isolation: Option<Isolation>,
    /// How often its process was restarted by itself.
    pub restarts: u32,
    /// The generation that runs.
    pub observed_generation: u64,
    /// Where its ports are.
    pub endpoints: Vec<Endpoint>,
    /// What can be said about it.
    pub conditions: Vec<Condition>,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its tenant.
    pub tenant: String,
    /// Its name, stable.
    pub name: String,
    /// New for each incarnation of the name.
    pub uid: String,
    /// Counts changes of the definition.
    pub generation: u64,
    /// Changes at every write.
    pub resource_version: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it changed last.
    pub updated_at: Timestamp,
    /// Its labels.
    pub labels: Labels,
    /// Whether it came from a catalogue that the API cannot change.
    pub is_static: bool,
    /// What is behind it.
    pub backend: ShownBackend,
    /// What it is.
    pub status: ServiceStatus,
}

/// What a session can carry.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::IntoStaticStr,
    strum::EnumString,
    strum::VariantArray,
)]
#[strum(serialize_all = "snake_case")]
pub enum Channel {
    /// A process' input and output.
    Stdio,
    /// Files.
    Files,
    /// The browser's own protocol.
    Cdp,
    /// A small browser API.
    Page,
}

/// What a session is opened on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// A service, by name.
    Service(String),
    /// A sandbox, by id.
    Sandbox(String),
}

/// The target as it was when the session was opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TargetSnapshot {
    /// A service.
    Service {
        /// Its name.
        name: String,
        /// Its generation.
        generation: u64,
        /// The kind behind it: `sandbox`, `builtIn` or `external`.
        backend: String,
        /// The provider, if it is built in.
        provider: Option<Provider>,
        /// The sandbox behind it, if there is one.
        sandbox: Option<String>,
    },
    /// A sandbox.
    Sandbox {
        /// Its id.
        id: String,
        /// Its generation, always 1.
        generation: u64,
        /// What it is for.
        profile: Profile,
        /// What isolates it.
        backend: Isolation,
    },
}

/// Where a session is in its life.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr, strum::EnumString,
)]
#[strum(serialize_all = "snake_case")]
pub enum SessionState {
    /// Its lease holds.
    Open,
    /// It was closed.
    Closed,
    /// Its time is over.
    Expired,
}

/// An expiring lease on one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkSession {
    /// Its tenant.
    pub tenant: String,
    /// Its id, `ses_…`.
    pub id: String,
    /// 1, then 2 once it has ended.
    pub generation: u64,
    /// Changes at every write.
    pub resource_version: String,
    /// When it was opened.
    pub created_at: Timestamp,
    /// When it changed last.
    pub updated_at: Timestamp,
    /// What it was opened on.
    pub target: Target,
    /// That, as it was then.
    pub snapshot: TargetSnapshot,
    /// What it carries.
    pub channels: Vec<Channel>,
    /// When it ends by itself.
    pub expires_at: Timestamp,
    /// Where it is in its life.
    pub state: SessionState,
    /// When it ended.
    pub closed_at: Option<Timestamp>,
    /// Why it ended.
    pub close_reason: Option<String>,
    /// What can be said about it.
    pub conditions: Vec<Condition>,
}
