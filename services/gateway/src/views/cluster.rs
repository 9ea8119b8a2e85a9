//! Nodes, addresses and guests, for operators.

use nimbus_model::Tier;
use nimbus_proto::ippool::{Address, ReconcileReport};
use nimbus_proto::machine::Machine;
use nimbus_proto::node::{ClusterGuest, ClusterStats, Node, Score};
use serde::Serialize;
use utoipa::ToSchema;

use super::At;

/// One node of the cluster.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct NodeView {
    /// Its name in the cluster.
    pub name: String,
    /// `online` or `offline`.
    pub status: &'static str,
    /// Always `none`: nodes cannot be locked yet.
    pub lock_state: &'static str,
    /// Tags that operators gave it.
    pub tags: Vec<String>,
    /// Tags that were found out.
    pub auto_tags: Vec<String>,
    /// CPU load, 0 to 1.
    pub cpu: f64,
    /// CPU threads.
    pub max_cpu: u32,
    /// Memory in use, bytes.
    pub mem_used: u64,
    /// Memory, bytes.
    pub mem_total: u64,
    /// Memory of all its guests, bytes.
    pub mem_allocated: u64,
    /// Used bytes of the storage that machines' disks go to.
    pub disk_used: u64,
    /// Bytes of it.
    pub disk_total: u64,
    /// Disk of all its guests, bytes.
    pub disk_allocated: u64,
    /// Name of it, where one is set.
    pub disk_pool_name: Option<String>,
    /// Running guests.
    pub vm_count: u32,
    /// All guests.
    pub vm_count_total: u32,
    /// Its address, where known.
    pub ip: Option<String>,
    /// Whether this server runs on it.
    pub is_self_host: bool,
    /// Operating systems whose template it has.
    pub templates: Vec<&'static str>,
    /// Its score for `preview_tier`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<ScoreView>,
    /// The size the score is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preview_tier: Option<&'static str>,
    /// Sizes whose next machine would go here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub next_for: Vec<&'static str>,
}

impl NodeView {
    pub(crate) fn of(node: Node, tier: Option<Tier>) -> Self {
        Self {
            name: node.name,
            status: if node.online { "online" } else { "offline" },
            lock_state: "none",
            tags: Vec::new(),
            auto_tags: Vec::new(),
            cpu: node.cpu,
            max_cpu: node.max_cpu,
            mem_used: node.mem_used,
            mem_total: node.mem_total,
            mem_allocated: node.mem_allocated,
            disk_used: node.disk_used,
            disk_total: node.disk_total,
            disk_allocated: node.disk_allocated,
            disk_pool_name: node.disk_pool,
            vm_count: node.vm_count,
            vm_count_total: node.vm_count_total,
            ip: node.ip,
            is_self_host: false,
            templates: node.templates.iter().map(|os| os.key()).collect(),
            preview_tier: node.score.is_some().then_some(tier).flatten().map(Tier::key),
            score: node.score.map(ScoreView::from),
            next_for: node.next_for.iter().map(|tier| tier.key()).collect(),
        }
    }
}

/// A node's score for one size.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ScoreView {
    /// 0 to 1; 0 when refused.
    pub score: f64,
    /// What it is made of.
    pub components: ComponentsView,
    /// `cpu`, `memory` or `balanced`, by memory per thread.
    pub spec: String,
    /// Every reason against it; none means eligible.
    pub reasons: Vec<&'static str>,
}

/// What a score is made of; each 0 to 1.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct ComponentsView {
    /// Free memory after the machine, over all memory.
    pub mem_headroom: f64,
    /// Idle CPU after the machine.
    pub cpu_headroom: f64,
    /// Free disk after the machine, over all disk.
    pub disk_headroom: f64,
    /// Weighted part of memory.
    pub mem_weighted: f64,
    /// Weighted part of CPU.
    pub cpu_weighted: f64,
    /// Weighted part of disk.
    pub disk_weighted: f64,
    /// The weighted sum.
    pub total: f64,
}

impl From<Score> for ScoreView {
    fn from(score: Score) -> Self {
        Self {
            score: score.score,
            components: ComponentsView {
                mem_headroom: score.mem_headroom,
                cpu_headroom: score.cpu_headroom,
                disk_headroom: score.disk_headroom,
                mem_weighted: score.mem_weighted,
                cpu_weighted: score.cpu_weighted,
                disk_weighted: score.disk_weighted,
                total: score.mem_weighted + score.cpu_weighted + score.disk_weighted,
            },
            spec: score.spec,
            reasons: score.reasons.into_iter().map(Into::into).collect(),
        }
    }
}

/// One address of the pool.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct AddressView {
    /// The address.
    pub ip: String,
    /// `free`, `reserved` or `allocated`.
    pub status: &'static str,
    /// `local`, `adopted` or `external`: how its use became known.
    pub source: &'static str,
    /// The VM that uses it.
    pub vmid: Option<u32>,
    /// The name of its user.
    pub hostname: Option<String>,
    /// Since when it is promised.
    pub reserved_at: Option<At>,
    /// Since when it is in use.
    pub allocated_at: Option<At>,
    /// When the cluster last showed it.
    pub last_seen_at: Option<At>,
    /// Reconciles in a row that did not find it in use.
    pub missed_cycles: u32,
    /// Whether it lies outside the pool's present range.
    pub stranded: bool,
}

impl From<Address> for AddressView {
    fn from(address: Address) -> Self {
        Self {
            ip: address.ip.to_string(),
            status: address.status.into(),
            source: address.source.into(),
            vmid: address.vmid,
            hostname: address.hostname,
            reserved_at: address.reserved_at.map(At),
            allocated_at: address.allocated_at.map(At),
            last_seen_at: address.last_seen_at.map(At),
            missed_cycles: address.missed_cycles,
            stranded: address.stranded,
        }
    }
}

/// What one reconcile of addresses did.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct AddressReconcileView {
    /// Found on guests and taken into the books.
    pub adopted: Vec<AdoptedView>,
    /// Held by another guest than the books say; left for a person.
    pub conflicts: Vec<ConflictView>,
    /// Reservations that had expired.
    pub freed: Vec<String>,
    /// Allocations whose guest is gone.
    pub vacated: Vec<String>,
    /// As the books say.
    pub no_ops: u32,
    /// When the cluster was looked at.
    pub snapshot_at: At,
}

/// An address that was found on a guest.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct AdoptedView {
    /// The address.
    pub ip: String,
    /// The guest.
    pub vmid: u32,
    /// Its name.
    pub hostname: Option<String>,
    /// What the books said before.
    pub prior_status: &'static str,
}

/// An address that another guest holds than the books say.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ConflictView {
    /// The address.
    pub ip: String,
    /// Whom the books say.
    pub local_vmid: u32,
    /// Who holds it.
    pub proxmox_vmid: u32,
    /// On which node.
    pub node: String,
}

impl From<ReconcileReport> for AddressReconcileView {
    fn from(report: ReconcileReport) -> Self {
        let adopted = report.adopted.into_iter().map(|a| AdoptedView {
            ip: a.ip.to_string(),
            vmid: a.vmid,
            hostname: a.hostname,
            prior_status: a.prior_status.into(),
        });
        let conflicts = report.conflicts.into_iter().map(|c| ConflictView {
            ip: c.ip.to_string(),
            local_vmid: c.local_vmid,
            proxmox_vmid: c.proxmox_vmid,
            node: c.node,
        });
        Self {
            adopted: adopted.collect(),
            conflicts: conflicts.collect(),
            freed: report.freed.iter().map(ToString::to_string).collect(),
            vacated: report.vacated.iter().map(ToString::to_string).collect(),
            no_ops: report.no_ops,
            snapshot_at: report.snapshot_at.into(),
        }
    }
}

/// One virtual machine of the cluster.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct GuestView {
    /// Its number.
    pub vmid: u32,
    /// Its name in Proxmox.
    pub name: String,
    /// Its node.
    pub node: String,
    /// What Proxmox says.
    #[schema(examples("running"))]
    pub status: String,
    /// `local`, `foreign` (another installation's) or `external` (not made by Nimbus).
    pub source: &'static str,
    /// Whether it is a machine of this installation.
    pub nimbus_managed: bool,
    /// Its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// Where the address is known from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_source: Option<&'static str>,
    /// Its size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<&'static str>,
    /// Its operating system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os_template: Option<&'static str>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Its login user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<&'static str>,
    /// When the machine was ordered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<At>,
    /// The machine, `vm_…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

impl From<ClusterGuest> for GuestView {
    fn from(guest: ClusterGuest) -> Self {
        let managed = guest.machine.is_some();
        Self {
            vmid: guest.vmid,
            hostname: managed.then(|| guest.name.clone()),
            name: guest.name,
            node: guest.node,
            status: guest.status,
            source: guest.source.into(),
            nimbus_managed: managed,
            ip_source: guest
                .ip
                .as_ref()
                .map(|_| if managed { "pool" } else { "cluster" }),
            ip: guest.ip,
            tier: guest.tier.map(Tier::key),
            os_template: guest.os.map(|os| os.key()),
            username: guest.os.filter(|_| managed).map(|os| os.user()),
            created_at: guest.created_at.map(At),
            id: guest.machine.map(|id| id.to_string()),
        }
    }
}

/// Storage of the whole cluster; shared storages count once.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct StatsView {
    /// Used bytes.
    pub storage_used: u64,
    /// All bytes.
    pub storage_total: u64,
}

impl From<ClusterStats> for StatsView {
    fn from(stats: ClusterStats) -> Self {
        Self {
            storage_used: stats.storage_used,
            storage_total: stats.storage_total,
        }
    }
}

/// What a `machine` event carries.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct MachineEventView {
    /// `created`, `changed` or `deleted`.
    pub kind: &'static str,
    /// The machine; as it was, when deleted.
    pub vm: super::machine::MachineView,
}

impl MachineEventView {
    pub(crate) fn of(kind: &'static str, machine: Machine) -> Self {
        Self {
            kind,
            vm: machine.into(),
        }
    }
}
