//! `agent`: what `workloads` tells the agent of one host, on `nimbus.v1.agent.<host>.<method>`.

use nimbus_bus::StreamId;
use nimbus_guest::protocol::{CommandSpec, Reply, Request};
use nimbus_model::Timestamp;
use serde::{Deserialize, Serialize};

use crate::workloads::{
    EgressRule, ExecReply, HealthCheck, Mount, Observation, OpenReply, Port, Profile, Resources,
    RestartPolicy, Variable, Wanted,
};
use crate::{method, sample};

/// Everything a host needs to run a sandbox; references resolved, defaults filled in, secrets in clear.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchRequest {
    /// The sandbox.
    pub sandbox: String,
    /// Its tenant.
    pub tenant: String,
    /// What it is for.
    pub profile: Profile,
    /// The image, a full reference.
    pub image: String,
    /// What runs.
    pub process: LaunchProcess,
    /// Its limits.
    pub resources: Resources,
    /// Its published ports; the image's TCP ports when they are left out.
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
    /// When it is stopped.
    pub expires_at: Option<Timestamp>,
    /// After how long without use it is stopped, in milliseconds.
    pub idle_timeout_ms: Option<u64>,
    /// Whether its root file system is read-only.
    pub read_only_root: bool,
}

/// What runs, resolved as far as the image allows.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchProcess {
    /// Replaces entrypoint and command when it is not empty.
    pub argv: Vec<String>,
    /// Replaces the image's entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command.
    pub command: Option<Vec<String>>,
    /// Variables and secrets, merged over the image's, later ones win.
    pub env: Vec<Variable>,
    /// Working directory.
    pub cwd: Option<String>,
    /// User.
    pub user: Option<String>,
    /// Whether it gets a terminal.
    pub terminal: bool,
}

impl std::fmt::Debug for LaunchProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaunchProcess")
            .field("argv", &self.argv.len())
            .field("env", &self.env.len())
            .field("cwd", &self.cwd)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Stops a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopRequest {
    /// Which.
    pub sandbox: String,
    /// Why, a condition's reason such as `StoppedByRequest`.
    pub reason: String,
}

/// Changes when a sandbox ends by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtendRequest {
    /// Which.
    pub sandbox: String,
    /// When it is stopped.
    pub expires_at: Option<Timestamp>,
    /// After how long without use, in milliseconds.
    pub idle_timeout_ms: Option<u64>,
}

/// Runs a command and collects what it writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentExec {
    /// Where.
    pub sandbox: String,
    /// The session whose lease allows it, if it is one.
    pub lease: Option<Lease>,
    /// What.
    pub command: CommandSpec,
    /// What it reads.
    pub stdin: Vec<u8>,
    /// At most so many bytes of each output are kept.
    pub keep_bytes: u32,
}

/// A session's lease, which the agent checks too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The session.
    pub session: String,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// One question to a sandbox' guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentControl {
    /// Where.
    pub sandbox: String,
    /// What.
    pub request: Request,
}

/// Opens a byte stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentOpen {
    /// The stream.
    pub stream: StreamId,
    /// Its channel word.
    pub word: String,
    /// Where.
    pub sandbox: String,
    /// The session whose lease allows it, if it is one.
    pub lease: Option<Lease>,
    /// What.
    pub wanted: Wanted,
}

/// Ends the streams of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndSession {
    /// Which.
    pub session: String,
    /// Why, such as `client_close`.
    pub reason: String,
}

/// Pulls an image and keeps warm containers of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareRequest {
    /// The image, a full reference.
    pub image: String,
    /// How many shall wait.
    pub warm: u32,
}

fn launch() -> LaunchRequest {
    let spec = crate::workloads::spec();
    LaunchRequest {
        sandbox: "x-01jzzzzzzzzzzzzzzzzzzzzzzz".into(),
        tenant: "demo".into(),
        profile: Profile::Worker,
        image: "docker.io/library/busybox:latest".into(),
        process: LaunchProcess {
            argv: vec!["sleep".into(), "60".into()],
            entrypoint: None,
            command: None,
            env: spec.process.env,
            cwd: None,
            user: Some("1000".into()),
            terminal: false,
        },
        resources: Resources {
            cpu_milli: 1000,
            memory_bytes: 512 << 20,
            disk_bytes: 5 << 30,
            log_bytes: 64 << 20,
            pids: 512,
        },
        ports: spec.ports,
        egress: spec.egress.unwrap_or_default(),
        mounts: spec.mounts.unwrap_or_default(),
        restart: RestartPolicy::Never,
        stop_timeout_ms: 5000,
        health: spec.health,
        expires_at: Some(sample::at()),
        idle_timeout_ms: None,
        read_only_root: true,
    }
}

fn lease() -> Option<Lease> {
    Some(Lease {
        session: "ses_01jzzzzzzzzzzzzzzzzzzzzzzz".into(),
        expires_at: sample::at(),
    })
}

method!(/// Runs a sandbox. Answers once a warm one runs, or once a cold launch has begun; a repeat joins.
    Launch = agent.launch, 10000 ms, SameKey, Service, LaunchRequest => Observation, samples launch() => crate::workloads::observation());
method!(/// Stops a sandbox; answers once it is `stopping` or ended.
    Stop = agent.stop, 15000 ms, SameKey, Service, StopRequest => Observation,
    samples StopRequest { sandbox: "x".into(), reason: "StoppedByRequest".into() } => crate::workloads::observation());
method!(/// Removes what is left of a sandbox: container, logs, kept launch input. What is unknown is gone already.
    Remove = agent.remove, 15000 ms, SameKey, Service, String => (), samples "x".to_owned() => ());
method!(/// Changes when a sandbox ends by itself.
    Extend = agent.extend, 3000 ms, SameKey, Service, ExtendRequest => (),
    samples ExtendRequest { sandbox: "x".into(), expires_at: Some(sample::at()), idle_timeout_ms: None } => ());
method!(/// Runs a command and collects what it writes.
    Exec = agent.exec, 65000 ms, SameKey, Service, AgentExec => ExecReply,
    samples AgentExec { sandbox: "x".into(), lease: lease(), command: CommandSpec::new("c1", ["true"]), stdin: vec![], keep_bytes: 1 << 20 }
        => ExecReply { command: "c1".into(), code: Some(0), signal: None, timed_out: false, stdout: b"hi\n".to_vec(), stderr: vec![], truncated: false });
method!(/// Asks the guest.
    Control = agent.control, 8000 ms, Never, Service, AgentControl => Reply,
    samples AgentControl { sandbox: "x".into(), request: Request::Ping } => Reply::Done);
method!(/// Opens a byte stream.
    Open = agent.open, 8000 ms, Never, Service, AgentOpen => OpenReply,
    samples AgentOpen { stream: sample::stream(), word: "stdio".into(), sandbox: "x".into(), lease: lease(), wanted: Wanted::Browser }
        => OpenReply { sandbox: "x".into(), target_generation: 1, hello: vec![], expires_at: None });
method!(/// Ends the streams of a session.
    End = agent.end_session, 3000 ms, SameKey, Service, EndSession => (),
    samples EndSession { session: "ses_01jzzzzzzzzzzzzzzzzzzzzzzz".into(), reason: "client_close".into() } => ());
method!(/// Pulls an image and keeps warm containers of it; answers with the image's digest.
    Prepare = agent.prepare, 310000 ms, SameKey, Service, PrepareRequest => String,
    samples PrepareRequest { image: "docker.io/library/busybox:latest".into(), warm: 2 } => "sha256:00".to_owned());
method!(/// Removes a tenant's volume.
    RemoveVolume = agent.remove_volume, 15000 ms, SameKey, Service, crate::workloads::Named => (),
    samples crate::workloads::Named { tenant: "demo".into(), name: "data".into() } => ());
