//! What hosts tell `workloads`.

use nimbus_model::{Hostname, Timestamp};
use serde::{Deserialize, Serialize};

use super::state::{Condition, Endpoint, Exit, Health, Lifecycle, Readiness, Start};
use crate::{method, sample};

/// What a host has and offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// The engine and its version, such as `docker 20.10.24`.
    pub engine: String,
    /// `x86_64` or `aarch64`.
    pub arch: String,
    /// CPUs that may be given out, in thousandths.
    pub cpu_milli: u32,
    /// Memory that may be given out, in bytes.
    pub memory_bytes: u64,
    /// Disk that may be given out, in bytes.
    pub disk_bytes: u64,
    /// Isolation that works here: `container`, `krun`.
    pub backends: Vec<String>,
    /// What does not work here and what to do, one line each.
    pub missing: Vec<String>,
}

/// What an agent has seen of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// The sandbox.
    pub sandbox: String,
    /// Counts this agent's observations of this sandbox; a smaller one than the last is old news.
    pub sequence: u64,
    /// When it was made.
    pub at: Timestamp,
    /// Where the sandbox is in its life.
    pub lifecycle: Lifecycle,
    /// Whether it can be used.
    pub readiness: Readiness,
    /// What its health check says.
    pub health: Health,
    /// Where its ports are; empty unless it is ready.
    pub endpoints: Vec<Endpoint>,
    /// How its main process ended.
    pub exit: Option<Exit>,
    /// The image's digest.
    pub image_digest: Option<String>,
    /// Whether it was warm.
    pub start: Option<Start>,
    /// Microseconds from the launch's arrival to the running process.
    pub started_after_us: Option<u64>,
    /// How often its process was restarted.
    pub restarts: u32,
    /// Conditions that changed.
    pub conditions: Vec<Condition>,
}

/// A sign of life of a host, every two seconds, and at once when something of it changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeatRequest {
    /// The host's name, unique.
    pub host: String,
    /// New at every start of the agent.
    pub boot: String,
    /// What it has and offers.
    pub facts: HostFacts,
    /// Digests and references of images that are there.
    pub images: Vec<String>,
    /// Warm containers that wait, by image reference.
    pub warm: Vec<(String, u32)>,
    /// Every sandbox that it holds and has not been told to forget.
    pub sandboxes: Vec<Observation>,
}

/// What a host shall do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeatReply {
    /// Sandboxes that are not wanted here: stop them and remove what is left of them.
    pub remove: Vec<String>,
    /// Sandboxes that shall stop, and why (a condition's reason).
    pub stop: Vec<(String, String)>,
    /// Sandboxes placed here that the host did not list: it answers with `failed` for those it does not know.
    pub expected: Vec<String>,
}

/// News of sandboxes, as soon as there are any. Repeats are harmless.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportRequest {
    /// The host.
    pub host: String,
    /// The agent's start.
    pub boot: String,
    /// What was seen.
    pub observations: Vec<Observation>,
    /// Denied connections, for the audit.
    pub denials: Vec<Denial>,
}

/// A connection that an allow list refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// The sandbox.
    pub sandbox: String,
    /// When.
    pub at: Timestamp,
    /// `tcp`, `http` or `https`.
    pub protocol: String,
    /// The host that was asked for.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The method, if it was seen.
    pub method: Option<String>,
    /// The path without its query, if it was seen.
    pub path: Option<String>,
    /// Why: the default, or the rule that matched and refused.
    pub reason: String,
}

/// A host, as administrators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// What it has.
    pub facts: HostFacts,
    /// When it was heard of last.
    pub seen_at: Timestamp,
    /// Whether it counts as lost.
    pub lost: bool,
    /// Thousandths of CPUs given out.
    pub used_cpu_milli: u32,
    /// Memory given out, in bytes.
    pub used_memory_bytes: u64,
    /// Active sandboxes.
    pub sandboxes: u32,
    /// Warm containers that wait, by image reference.
    pub warm: Vec<(String, u32)>,
}

/// What the hosts that are there can run, for the table of capabilities.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    /// Hosts that are not lost.
    pub hosts: u32,
    /// Isolation that works on at least one of them: `container`, `krun`.
    pub backends: Vec<String>,
    /// Their engines and versions, each once.
    pub engines: Vec<String>,
    /// What is missing on them, each once.
    pub missing: Vec<String>,
}

/// How much there is, for the figures that operators watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Hosts that are heard.
    pub hosts: u32,
    /// Hosts that are not heard any more.
    pub hosts_lost: u32,
    /// Active sandboxes of all hosts.
    pub sandboxes: u64,
    /// Memory given out on hosts that are heard, in bytes.
    pub memory_given: u64,
    /// Memory that may be given out there, in bytes; more than they have where that is configured.
    pub memory_total: u64,
}

fn facts() -> HostFacts {
    HostFacts {
        engine: "docker 20.10.24".into(),
        arch: "x86_64".into(),
        cpu_milli: 2000,
        memory_bytes: 8 << 30,
        disk_bytes: 40 << 30,
        backends: vec!["container".into()],
        missing: vec!["krun: /dev/kvm is missing".into()],
    }
}

pub(crate) fn observation() -> Observation {
    Observation {
        sandbox: "x-01jzzzzzzzzzzzzzzzzzzzzzzz".into(),
        sequence: 4,
        at: sample::at(),
        lifecycle: Lifecycle::Ready,
        readiness: Readiness::Ready,
        health: Health::Healthy,
        endpoints: vec![],
        exit: None,
        image_digest: Some("sha256:00".into()),
        start: Some(Start::Warm),
        started_after_us: Some(3800),
        restarts: 0,
        conditions: vec![],
    }
}

method!(/// A host's sign of life.
    Beat = workloads.beat, 5000 ms, SameKey, Service, BeatRequest => BeatReply,
    samples BeatRequest { host: "host-a".into(), boot: "b1".into(), facts: facts(), images: vec!["sha256:00".into()], warm: vec![("busybox".into(), 2)], sandboxes: vec![observation()] }
        => BeatReply { remove: vec![], stop: vec![("x".into(), "TtlExpired".into())], expected: vec![] });
method!(/// News of sandboxes.
    Report = workloads.report, 5000 ms, SameKey, Service, ReportRequest => (),
    samples ReportRequest { host: "host-a".into(), boot: "b1".into(), observations: vec![observation()], denials: vec![Denial {
        sandbox: "x".into(), at: sample::at(), protocol: "https".into(), host: "example.org".into(), port: 443, method: None, path: None, reason: "no rule allows it".into() }] } => ());
method!(/// Every host.
    ListHosts = workloads.list_hosts, 3000 ms, Read, Admin, () => Vec<Host>,
    samples () => vec![Host { name: "host-a".into(), facts: facts(), seen_at: sample::at(), lost: false, used_cpu_milli: 1000, used_memory_bytes: 512 << 20, sandboxes: 1, warm: vec![] }]);
method!(/// Forgets a lost host that will not come back.
    ForgetHost = workloads.forget_host, 5000 ms, SameKey, Admin, Hostname => (),
    samples "host-a".parse().expect("a host name") => ());
method!(/// What this installation can run now.
    Offers = workloads.offers, 3000 ms, Read, Service, () => Offered,
    samples () => Offered { hosts: 1, backends: vec!["container".into()], engines: vec!["docker 20.10.24".into()], missing: vec!["krun: /dev/kvm is missing".into()] });
method!(/// How many hosts and sandboxes there are; for the gateway's figures.
    Count = workloads.count, 3000 ms, Read, Service, () => Figures,
    samples () => Figures { hosts: 2, hosts_lost: 1, sandboxes: 7, memory_given: 3 << 30, memory_total: 16 << 30 });
