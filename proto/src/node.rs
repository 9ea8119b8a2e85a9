//! What the cluster looks like, for operators and for the page that creates machines.

use nimbus_model::{MachineId, Os, Tier, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{method, sample};

/// Why a node cannot take a machine.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Refusal {
    /// The node is not online.
    Offline,
    /// The operator excluded it (`NIMBUS_EXCLUDED_NODES`).
    Excluded,
    /// It has no template of the operating system.
    NoTemplate,
    /// It reports no memory.
    NoCapacity,
    /// Too many vCPUs are committed.
    InsufficientCores,
    /// Too little memory is free.
    InsufficientMem,
    /// Too little disk is free.
    InsufficientDisk,
}

/// A node's score for one tier, with what it is made of; each between 0 and 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The weighted sum; 0 when refused.
    pub score: f64,
    /// Free memory after the machine, over all memory.
    pub mem_headroom: f64,
    /// Idle CPU after the machine.
    pub cpu_headroom: f64,
    /// Free disk after the machine, over all disk; 0 when the disk is not looked at.
    pub disk_headroom: f64,
    /// Weighted part of memory.
    pub mem_weighted: f64,
    /// Weighted part of CPU.
    pub cpu_weighted: f64,
    /// Weighted part of disk.
    pub disk_weighted: f64,
    /// `cpu`, `memory` or `balanced`, by GiB of memory per thread.
    pub spec: String,
    /// Every reason against it; none means eligible.
    pub reasons: Vec<Refusal>,
}

/// One node of the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its name in the cluster.
    pub name: String,
    /// Whether it is online.
    pub online: bool,
    /// Its address, where known.
    pub ip: Option<String>,
    /// CPU load, 0 to 1.
    pub cpu: f64,
    /// CPU threads.
    pub max_cpu: u32,
    /// vCPUs of all its guests.
    pub cpu_allocated: u32,
    /// Memory in use, bytes.
    pub mem_used: u64,
    /// Memory, bytes.
    pub mem_total: u64,
    /// Memory of all its guests, bytes.
    pub mem_allocated: u64,
    /// The storage that machines' disks go to, where one is set.
    pub disk_pool: Option<String>,
    /// Used bytes of it.
    pub disk_used: u64,
    /// Bytes of it.
    pub disk_total: u64,
    /// Disk of all its guests, bytes.
    pub disk_allocated: u64,
    /// Running guests.
    pub vm_count: u32,
    /// All guests.
    pub vm_count_total: u32,
    /// Operating systems whose template it has.
    pub templates: Vec<Os>,
    /// Its score for the tier that was asked for.
    pub score: Option<Score>,
    /// Tiers whose next machine would go here.
    pub next_for: Vec<Tier>,
}

/// What to add to the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListNodesRequest {
    /// The tier to score for.
    pub tier: Option<Tier>,
    /// The operating system whose template must be there; none checks no template.
    pub os: Option<Os>,
}

/// What of this size can be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierOffer {
    /// The size.
    pub tier: Tier,
    /// How many more the cluster takes now; none when it cannot be asked.
    pub fits: Option<u32>,
    /// Why the caller cannot have it.
    pub refused: Option<String>,
}

/// What of this operating system can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OsOffer {
    /// The operating system.
    pub os: Os,
    /// Nodes that have its template.
    pub nodes: u32,
}

/// What the caller can order now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    /// Sizes, smallest first.
    pub tiers: Vec<TierOffer>,
    /// Operating systems, newest first.
    pub os: Vec<OsOffer>,
    /// Machines that the caller has.
    pub quota_used: u32,
    /// Machines that the caller may have; none for no limit.
    pub quota_limit: Option<u32>,
    /// Why the cluster cannot be asked, if so.
    pub cluster_error: Option<String>,
}

/// Where a machine would go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementRequest {
    /// Size.
    pub tier: Tier,
    /// Operating system.
    pub os: Os,
}

/// Where a machine would go and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    /// The node; none when no node takes it.
    pub node: Option<String>,
    /// Its score.
    pub score: f64,
    /// The reason in words.
    pub why: String,
    /// The others and what is against them; only for administrators.
    pub rejected: Vec<(String, Vec<Refusal>)>,
}

/// Whose a guest of the cluster is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, strum::Display, strum::IntoStaticStr,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum GuestSource {
    /// A machine of this installation.
    Local,
    /// Carries Nimbus' tag, but is not in this installation's books.
    Foreign,
    /// Not made by Nimbus.
    External,
}

/// One virtual machine of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterGuest {
    /// Its number.
    pub vmid: u32,
    /// Its name in Proxmox.
    pub name: String,
    /// Its node.
    pub node: String,
    /// `running`, `stopped`, ….
    pub status: String,
    /// Whose it is.
    pub source: GuestSource,
    /// The machine, if it is one of ours.
    pub machine: Option<MachineId>,
    /// Its address, where known.
    pub ip: Option<String>,
    /// Its size, where known.
    pub tier: Option<Tier>,
    /// Its operating system, where known.
    pub os: Option<Os>,
    /// When the machine was created.
    pub created_at: Option<Timestamp>,
}

/// Storage of the whole cluster; shared storages count once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStats {
    /// Used bytes.
    pub storage_used: u64,
    /// All bytes.
    pub storage_total: u64,
}

/// Whether the cluster can be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterHealth {
    /// Settings that are missing; empty when Nimbus is configured.
    pub missing: Vec<MissingSetting>,
    /// Version of Proxmox VE, when it answers.
    pub version: Option<String>,
    /// Why it does not.
    pub error: Option<String>,
}

/// A setting without which no machine can be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingSetting {
    /// Name of the environment variable.
    pub setting: String,
    /// What it has to be.
    pub expected: String,
}

fn node() -> Node {
    Node {
        name: "pve1".into(),
        online: true,
        ip: Some("10.0.0.2".into()),
        cpu: 0.25,
        max_cpu: 16,
        cpu_allocated: 3,
        mem_used: 1 << 30,
        mem_total: 64 << 30,
        mem_allocated: 2 << 30,
        disk_pool: Some("local-lvm".into()),
        disk_used: 1,
        disk_total: 2,
        disk_allocated: 3,
        vm_count: 1,
        vm_count_total: 2,
        templates: vec![Os::Ubuntu2404],
        score: Some(Score {
            score: 0.5,
            mem_headroom: 0.5,
            cpu_headroom: 0.5,
            disk_headroom: 0.5,
            mem_weighted: 0.225,
            cpu_weighted: 0.15,
            disk_weighted: 0.125,
            spec: "balanced".into(),
            reasons: vec![Refusal::NoTemplate],
        }),
        next_for: vec![Tier::Small],
    }
}

method!(/// The cluster's nodes.
    ListNodes = provisioner.list_nodes, 15000 ms, Read, Admin, ListNodesRequest => Vec<Node>,
    samples ListNodesRequest { tier: Some(Tier::Medium), os: None } => vec![node()]);
method!(/// What the caller can order now.
    GetCatalog = provisioner.get_catalog, 15000 ms, Read, User, () => Catalog,
    samples () => Catalog { tiers: vec![TierOffer { tier: Tier::Small, fits: Some(3), refused: None }], os: vec![OsOffer { os: Os::Debian12, nodes: 3 }], quota_used: 1, quota_limit: Some(5), cluster_error: None });
method!(/// Where a machine would go and why.
    Preview = provisioner.preview, 15000 ms, Read, User, PlacementRequest => Placement,
    samples PlacementRequest { tier: Tier::Small, os: Os::Debian12 } => Placement { node: Some("pve1".into()), score: 0.5, why: "most free memory".into(), rejected: vec![("pve2".into(), vec![Refusal::Offline])] });
method!(/// Every virtual machine of the cluster that is not a template.
    ListGuests = provisioner.list_guests, 30000 ms, Read, Admin, () => Vec<ClusterGuest>,
    samples () => vec![ClusterGuest { vmid: 101, name: "web-1".into(), node: "pve1".into(), status: "running".into(), source: GuestSource::Local, machine: Some(sample::machine()), ip: Some("10.0.0.9".into()), tier: Some(Tier::Small), os: Some(Os::Debian12), created_at: Some(sample::at()) }]);
method!(/// Storage of the whole cluster.
    GetStats = provisioner.get_stats, 15000 ms, Read, Admin, () => ClusterStats, samples () => ClusterStats { storage_used: 1, storage_total: 2 });
method!(/// Whether the cluster can be used; answers within three seconds.
    Health = provisioner.health, 5000 ms, Read, Service, () => ClusterHealth,
    samples () => ClusterHealth { missing: vec![MissingSetting { setting: "PROXMOX_HOST".into(), expected: "a URL".into() }], version: None, error: None });
