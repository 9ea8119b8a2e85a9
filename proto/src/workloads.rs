//! `workloads`: tenants, services, sandboxes, sessions, secrets, volumes and hosts.

mod agents;
mod data;
mod spec;
mod state;

use nimbus_model::Timestamp;
use serde::{Deserialize, Serialize};

pub use agents::*;
pub use data::*;
pub use spec::*;
pub use state::*;

use crate::{Secret, method, sample};

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing<T> {
    /// Changes whenever one of the items may have.
    pub resource_version: String,
    /// The limit in force.
    pub limit: u32,
    /// What to give as `page_token` for the next page; none on the last one.
    pub next_page_token: Option<String>,
    /// Matching items after this page.
    pub remaining: u64,
    /// The items.
    pub items: Vec<T>,
}

/// Which part of a list is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// At most this many; clamped into 1..=100, 100 when it is left out.
    pub limit: Option<u32>,
    /// From an earlier page with the same filters.
    pub page_token: Option<String>,
    /// Only what has this label …
    pub label_key: Option<String>,
    /// … with this value.
    pub label_value: Option<String>,
    /// Only sandboxes, or sessions, in this state, by its name.
    pub state: Option<String>,
}

/// An isolation boundary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its id, `^[A-Za-z0-9_-]{1,128}$`.
    pub id: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// What it may use and uses.
    pub quota: Quota,
    /// Which by-policy fields a public create may set.
    pub policy: Policy,
}

/// Upper bounds of a tenant and what is charged now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Bounds on sums over active sandboxes.
    pub limit: Resources,
    /// Bound on the number of active sandboxes.
    pub sandboxes: u32,
    /// What is charged.
    pub used: Resources,
    /// Active sandboxes.
    pub used_sandboxes: u32,
}

/// Which fields a create may set that a sealed sandbox does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// `resources`.
    pub resources: bool,
    /// `ports`.
    pub ports: bool,
    /// `network.egress`.
    pub egress: bool,
    /// `mounts`.
    pub mounts: bool,
}

/// Changes a tenant's bounds; for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// New bounds on sums.
    pub limit: Option<Resources>,
    /// New bound on the number of active sandboxes.
    pub sandboxes: Option<u32>,
    /// New policy.
    pub policy: Option<Policy>,
}

/// [`Settings`] of one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigureTenantRequest {
    /// The tenant.
    pub tenant: String,
    /// What shall change.
    pub settings: Settings,
}

/// Names one thing of one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// The tenant.
    pub tenant: String,
    /// A service's, secret's or volume's name, or a sandbox' id.
    pub name: String,
}

/// Asks for a part of a list of one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListRequest {
    /// The tenant.
    pub tenant: String,
    /// Which part.
    pub page: Page,
}

/// Creates or replaces a service's definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteService {
    /// The tenant.
    pub tenant: String,
    /// The service's name.
    pub name: String,
    /// Its labels; none keeps those in force.
    pub labels: Option<Labels>,
    /// What is behind it.
    pub backend: Backend,
    /// The generation that shall be replaced; not at a creation.
    pub if_generation: Option<u64>,
    /// Refuse to replace the definition of an active service.
    pub reject_active: bool,
}

/// Deletes a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteServiceRequest {
    /// The tenant.
    pub tenant: String,
    /// The service's name.
    pub name: String,
    /// The generation that shall be deleted.
    pub if_generation: u64,
    /// Stop what runs and close its sessions.
    pub force: bool,
}

/// Restarts a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartServiceRequest {
    /// The tenant.
    pub tenant: String,
    /// The service's name.
    pub name: String,
    /// The generation the caller has seen.
    pub source_generation: Option<u64>,
    /// A repeat within ten minutes gives the first outcome.
    pub request_id: Option<String>,
}

/// Creates a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateSandboxRequest {
    /// The tenant.
    pub tenant: String,
    /// What it is for.
    pub profile: Profile,
    /// What it shall be.
    pub spec: SandboxSpec,
    /// Its labels.
    pub labels: Labels,
}

/// Removes a sandbox with its record and logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteSandboxRequest {
    /// The tenant.
    pub tenant: String,
    /// The sandbox.
    pub id: String,
    /// Also when it runs.
    pub force: bool,
}

/// Gives a sandbox more time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtendSandboxRequest {
    /// The tenant.
    pub tenant: String,
    /// The sandbox.
    pub id: String,
    /// New time to live from now, in milliseconds.
    pub ttl_ms: Option<u64>,
    /// New idle timeout, in milliseconds.
    pub idle_timeout_ms: Option<u64>,
}

/// Opens a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSessionRequest {
    /// The tenant.
    pub tenant: String,
    /// What on.
    pub target: Target,
    /// What it shall carry, 1 to 8 without repeats.
    pub channels: Vec<Channel>,
    /// How long it shall live, in milliseconds; 15 minutes when it is left out, at most one hour.
    pub ttl_ms: Option<u64>,
}

/// Names a session; without a tenant among all that the caller may reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRef {
    /// The tenant, as a hint.
    pub tenant: Option<String>,
    /// The session.
    pub id: String,
}

/// Closes a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloseSessionRequest {
    /// Which.
    pub session: SessionRef,
    /// Why; `client_close` when it is left out or blank.
    pub reason: Option<String>,
}

/// A secret of a tenant, without its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretInfo {
    /// Its name.
    pub name: String,
    /// Counts its values.
    pub version: u64,
    /// When it was first set.
    pub created_at: Timestamp,
    /// When it was set last.
    pub updated_at: Timestamp,
}

/// Sets a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutSecretRequest {
    /// The tenant.
    pub tenant: String,
    /// Its name.
    pub name: String,
    /// Its value, at most 32 KiB.
    pub value: Secret,
}

/// A named volume of a tenant. Its data lies on one host; sandboxes that mount it are placed there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// The host it is on; none until it was first mounted.
    pub host: Option<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// Active sandboxes that mount it.
    pub used_by: Vec<String>,
}

fn named() -> Named {
    Named {
        tenant: "demo".into(),
        name: "worker".into(),
    }
}

fn resources() -> Resources {
    Resources {
        cpu_milli: 1000,
        memory_bytes: 512 << 20,
        disk_bytes: 5 << 30,
        log_bytes: 64 << 20,
        pids: 512,
    }
}

fn policy() -> Policy {
    Policy {
        resources: true,
        ports: true,
        egress: false,
        mounts: false,
    }
}

fn tenant() -> Tenant {
    Tenant {
        id: "demo".into(),
        created_at: sample::at(),
        deleting: false,
        quota: Quota {
            limit: resources(),
            sandboxes: 20,
            used: resources(),
            used_sandboxes: 1,
        },
        policy: policy(),
    }
}

fn labels() -> Labels {
    Labels::from([("team".to_owned(), "search".to_owned())])
}

fn listing<T>(item: T) -> Listing<T> {
    Listing {
        resource_version: "17".into(),
        limit: 100,
        next_page_token: Some("d29ya2Vy".into()),
        remaining: 3,
        items: vec![item],
    }
}

fn list_request() -> ListRequest {
    ListRequest {
        tenant: "demo".into(),
        page: Page {
            limit: Some(100),
            page_token: None,
            label_key: Some("team".into()),
            label_value: None,
            state: Some("ready".into()),
        },
    }
}

pub(crate) fn spec() -> SandboxSpec {
    SandboxSpec {
        tenant: None,
        owner: Owner::Standalone {
            display_name: Some("batch-job".into()),
        },
        backend: Isolation::Container,
        root: Root::Image {
            reference: "docker.io/library/python:3.12-slim".into(),
        },
        process: Process {
            argv: vec!["python".into(), "-V".into()],
            env: vec![Variable {
                name: "A".into(),
                value: Secret::new("b"),
            }],
            secrets: vec![SecretUse {
                secret: "token".into(),
                variable: "TOKEN".into(),
            }],
            cwd: Some("/".into()),
            ..Process::default()
        },
        resources: None,
        ports: Some(vec![Port {
            name: None,
            guest_port: 8080,
            protocol: Protocol::Http,
            host_port: None,
        }]),
        egress: Some(vec![EgressRule {
            name: "pypi".into(),
            protocol: Protocol::Https,
            host: "pypi.org".into(),
            port: 443,
            methods: vec![],
            path_prefixes: vec![],
            allow_internal_ips: false,
        }]),
        mounts: Some(vec![Mount::Volume {
            name: "data".into(),
            target: "/data".into(),
            read_only: false,
        }]),
        restart: Some(RestartPolicy::OnFailure { max_restarts: 10 }),
        stop_timeout_ms: Some(5000),
        health: Some(HealthCheck {
            probe: Probe::Http {
                path: "/".into(),
                port: None,
                expect: (200, 399),
            },
            interval_ms: 10_000,
            timeout_ms: 1000,
            retries: 3,
            start_period_ms: 0,
            restart_on_unhealthy: false,
        }),
        ttl_ms: Some(60_000),
        idle_timeout_ms: None,
        read_only_root: false,
    }
}

fn shown() -> ShownSpec {
    ShownSpec {
        tenant: "demo".into(),
        owner: Owner::Standalone { display_name: None },
        backend: Isolation::Container,
        root: Root::Image {
            reference: "docker.io/library/python:3.12-slim".into(),
        },
        process: ShownProcess {
            argv: 2,
            environment: 1,
            entrypoint: None,
            command: None,
            secrets: vec![],
            cwd: "/".into(),
            user: None,
            terminal: false,
        },
        resources: resources(),
        ports: None,
        egress: vec![],
        mounts: vec![],
        restart: RestartPolicy::Never,
        stop_timeout_ms: 5000,
        health: None,
        ttl_ms: None,
        idle_timeout_ms: None,
        read_only_root: false,
    }
}

fn condition(kind: ConditionKind) -> Condition {
    Condition {
        kind,
        status: Truth::True,
        reason: "BackendState".into(),
        message: "the process runs".into(),
        observed_generation: 1,
        last_transition: sample::at(),
    }
}

pub(crate) fn sandbox() -> Sandbox {
    Sandbox {
        tenant: "demo".into(),
        id: "batch-job-01jzzzzzzzzzzzzzzzzzzzzzzz".into(),
        resource_version: "9".into(),
        created_at: sample::at(),
        updated_at: sample::at(),
        labels: labels(),
        profile: Profile::Worker,
        spec: shown(),
        status: SandboxStatus {
            lifecycle: Lifecycle::Ready,
            readiness: Readiness::Ready,
            health: Health::Healthy,
            endpoints: vec![Endpoint {
                name: "tcp-8080".into(),
                protocol: Protocol::Tcp,
                host: "127.0.0.1".into(),
                port: 15000,
            }],
            exit: None,
            expires_at: Some(sample::at()),
            image_digest: Some("sha256:00".into()),
            start: Some(Start::Warm),
            started_after_us: Some(3800),
            host: Some("host-a".into()),
            restarts: 0,
            conditions: vec![condition(ConditionKind::Ready)],
        },
    }
}

pub(crate) fn service() -> Service {
    Service {
        tenant: "demo".into(),
        name: "worker".into(),
        uid: "01JZZZZZZZZZZZZZZZZZZZZZZZ".into(),
        generation: 1,
        resource_version: "17".into(),
        created_at: sample::at(),
        updated_at: sample::at(),
        labels: labels(),
        is_static: false,
        backend: ShownBackend::Sandbox(Box::new(shown())),
        status: ServiceStatus {
            lifecycle: Lifecycle::Ready,
            readiness: Readiness::Ready,
            health: Health::Healthy,
            sandbox: Some("worker-01jzzzzzzzzzzzzzzzzzzzzzzz".into()),
            isolation: Some(Isolation::Container),
            restarts: 0,
            observed_generation: 1,
            endpoints: vec![],
            conditions: vec![condition(ConditionKind::Admitted)],
        },
    }
}

pub(crate) fn session() -> WorkSession {
    WorkSession {
        tenant: "demo".into(),
        id: "ses_01jzzzzzzzzzzzzzzzzzzzzzzz".into(),
        generation: 1,
        resource_version: "3".into(),
        created_at: sample::at(),
        updated_at: sample::at(),
        target: Target::Service("worker".into()),
        snapshot: TargetSnapshot::Sandbox {
            id: "worker-01jzzzzzzzzzzzzzzzzzzzzzzz".into(),
            generation: 1,
            profile: Profile::Worker,
            backend: Isolation::Container,
        },
        channels: vec![Channel::Stdio, Channel::Files],
        expires_at: sample::at(),
        state: SessionState::Open,
        closed_at: None,
        close_reason: None,
        conditions: vec![condition(ConditionKind::Open)],
    }
}

fn session_ref() -> SessionRef {
    SessionRef {
        tenant: Some("demo".into()),
        id: "ses_01jzzzzzzzzzzzzzzzzzzzzzzz".into(),
    }
}

fn secret_info() -> SecretInfo {
    SecretInfo {
        name: "token".into(),
        version: 2,
        created_at: sample::at(),
        updated_at: sample::at(),
    }
}

fn volume() -> Volume {
    Volume {
        name: "data".into(),
        host: Some("host-a".into()),
        created_at: sample::at(),
        used_by: vec![],
    }
}

fn write_service() -> WriteService {
    WriteService {
        tenant: "demo".into(),
        name: "worker".into(),
        labels: Some(labels()),
        backend: Backend::Sandbox(Box::new(spec())),
        if_generation: Some(1),
        reject_active: false,
    }
}

method!(/// Creates a tenant, owned by the caller.
    CreateTenant = workloads.create_tenant, 5000 ms, SameKey, User, String => Tenant, samples "demo".to_owned() => tenant());
method!(/// One tenant.
    GetTenant = workloads.get_tenant, 3000 ms, Read, User, String => Tenant, samples "demo".to_owned() => tenant());
method!(/// The tenants that the caller may reach, by id.
    ListTenants = workloads.list_tenants, 3000 ms, Read, User, () => Vec<Tenant>, samples () => vec![tenant()]);
method!(/// Deletes a tenant and everything in it.
    DeleteTenant = workloads.delete_tenant, 60000 ms, SameKey, User, String => (), samples "demo".to_owned() => ());
method!(/// Changes a tenant's bounds and policy.
    ConfigureTenant = workloads.configure_tenant, 5000 ms, SameKey, Admin, ConfigureTenantRequest => Tenant,
    samples ConfigureTenantRequest { tenant: "demo".into(), settings: Settings { limit: Some(resources()), sandboxes: Some(20), policy: Some(policy()) } } => tenant());

method!(/// Creates a service; nothing is started.
    CreateService = workloads.create_service, 5000 ms, SameKey, User, WriteService => Service, samples write_service() => service());
method!(/// One service.
    GetService = workloads.get_service, 3000 ms, Read, User, Named => Service, samples named() => service());
method!(/// Services, by name.
    ListServices = workloads.list_services, 3000 ms, Read, User, ListRequest => Listing<Service>, samples list_request() => listing(service()));
method!(/// Replaces a service's definition under a precondition.
    UpdateService = workloads.update_service, 20000 ms, SameKey, User, WriteService => Service, samples write_service() => service());
method!(/// Deletes a service under a precondition.
    DeleteService = workloads.delete_service, 20000 ms, SameKey, User, DeleteServiceRequest => (),
    samples DeleteServiceRequest { tenant: "demo".into(), name: "worker".into(), if_generation: 1, force: false } => ());
method!(/// Starts a service; joins a start that goes on.
    StartService = workloads.start_service, 10000 ms, SameKey, User, Named => Service, samples named() => service());
method!(/// Stops a service.
    StopService = workloads.stop_service, 20000 ms, SameKey, User, Named => Service, samples named() => service());
method!(/// Stops and starts a service; its sandbox is a new one.
    RestartService = workloads.restart_service, 30000 ms, SameKey, User, RestartServiceRequest => Service,
    samples RestartServiceRequest { tenant: "demo".into(), name: "worker".into(), source_generation: Some(1), request_id: None } => service());

method!(/// Creates a sandbox. The answer may be `ready` already, when a warm one was claimed.
    CreateSandbox = workloads.create_sandbox, 15000 ms, SameKey, User, CreateSandboxRequest => Sandbox,
    samples CreateSandboxRequest { tenant: "demo".into(), profile: Profile::Worker, spec: spec(), labels: labels() } => sandbox());
method!(/// One sandbox.
    GetSandbox = workloads.get_sandbox, 3000 ms, Read, User, Named => Sandbox, samples named() => sandbox());
method!(/// Sandboxes, by id.
    ListSandboxes = workloads.list_sandboxes, 3000 ms, Read, User, ListRequest => Listing<Sandbox>, samples list_request() => listing(sandbox()));
method!(/// Stops a sandbox; may answer while it is `stopping`.
    StopSandbox = workloads.stop_sandbox, 20000 ms, SameKey, User, Named => Sandbox, samples named() => sandbox());
method!(/// Removes a sandbox with its record and logs.
    DeleteSandbox = workloads.delete_sandbox, 20000 ms, SameKey, User, DeleteSandboxRequest => (),
    samples DeleteSandboxRequest { tenant: "demo".into(), id: "x-01jzzzzzzzzzzzzzzzzzzzzzzz".into(), force: true } => ());
method!(/// Gives a sandbox more time.
    ExtendSandbox = workloads.extend_sandbox, 5000 ms, SameKey, User, ExtendSandboxRequest => Sandbox,
    samples ExtendSandboxRequest { tenant: "demo".into(), id: "x-01jzzzzzzzzzzzzzzzzzzzzzzz".into(), ttl_ms: Some(60_000), idle_timeout_ms: None } => sandbox());

method!(/// Opens a session on a ready target.
    OpenSession = workloads.open_session, 5000 ms, SameKey, User, OpenSessionRequest => WorkSession,
    samples OpenSessionRequest { tenant: "demo".into(), target: Target::Sandbox("x-01jzzzzzzzzzzzzzzzzzzzzzzz".into()), channels: vec![Channel::Stdio], ttl_ms: None } => session());
method!(/// One session.
    GetSession = workloads.get_session, 3000 ms, Read, User, SessionRef => WorkSession, samples session_ref() => session());
method!(/// Sessions, by id.
    ListSessions = workloads.list_sessions, 3000 ms, Read, User, ListRequest => Listing<WorkSession>, samples list_request() => listing(session()));
method!(/// Closes a session; closing it again changes nothing.
    CloseSession = workloads.close_session, 5000 ms, SameKey, User, CloseSessionRequest => WorkSession,
    samples CloseSessionRequest { session: session_ref(), reason: Some("done".into()) } => session());

method!(/// Sets a secret.
    PutSecret = workloads.put_secret, 5000 ms, SameKey, User, PutSecretRequest => SecretInfo,
    samples PutSecretRequest { tenant: "demo".into(), name: "token".into(), value: Secret::new("s3cret") } => secret_info());
method!(/// A tenant's secrets, by name, without their values.
    ListSecrets = workloads.list_secrets, 3000 ms, Read, User, String => Vec<SecretInfo>, samples "demo".to_owned() => vec![secret_info()]);
method!(/// Removes a secret.
    DeleteSecret = workloads.delete_secret, 5000 ms, SameKey, User, Named => (), samples named() => ());

method!(/// Makes a volume, or gives the one of that name.
    EnsureVolume = workloads.ensure_volume, 5000 ms, SameKey, User, Named => Volume, samples named() => volume());
method!(/// A tenant's volumes, by name.
    ListVolumes = workloads.list_volumes, 3000 ms, Read, User, String => Vec<Volume>, samples "demo".to_owned() => vec![volume()]);
method!(/// Removes a volume with its data; refused while it is mounted.
    DeleteVolume = workloads.delete_volume, 20000 ms, SameKey, User, Named => (), samples named() => ());
