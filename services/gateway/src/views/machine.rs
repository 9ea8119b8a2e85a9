//! Machines, what can be ordered, and where it would go.

use nimbus_model::{Hostname, Os, Tier};
use nimbus_proto::machine::{Machine, PrivateKey, ProvisionResult, ReconcileReport};
use nimbus_proto::node::{Catalog, OsOffer, Placement, TierOffer};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{At, hostname_schema, os_schema, tier_schema};

/// Orders a machine. Exactly one of `ssh_pubkey` and `generate_key` is given.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateBody {
    /// Its name, unique in this installation.
    #[schema(schema_with = hostname_schema)]
    pub hostname: Hostname,
    /// Its size.
    #[schema(schema_with = tier_schema)]
    pub tier: Tier,
    /// Its operating system.
    #[schema(schema_with = os_schema)]
    pub os_template: Os,
    /// An OpenSSH public key that may log in.
    #[serde(default)]
    #[schema(max_length = 16384)]
    pub ssh_pubkey: Option<String>,
    /// Makes a fresh Ed25519 key; its private half is handed out once.
    #[serde(default)]
    pub generate_key: Option<bool>,
    /// Whether a public SSH endpoint is wanted; where there is none to be had, `tunnel_error` says so.
    #[serde(default)]
    pub public_tunnel: Option<bool>,
    /// Whether a GPU is wanted; only false is possible.
    #[serde(default)]
    pub enable_gpu: Option<bool>,
}

/// A machine that was made.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ProvisionView {
    /// Its id, `vm_…`.
    pub id: String,
    /// Its number in Proxmox.
    pub vmid: u32,
    /// Its name.
    pub hostname: String,
    /// Its address.
    pub ip: String,
    /// Its login user.
    pub username: String,
    /// Its operating system.
    pub os: &'static str,
    /// Its size.
    pub tier: &'static str,
    /// Its node.
    pub node: String,
    /// The private half of the key that was made, this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssh_private_key: Option<String>,
    /// What the key's file should be called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_name: Option<String>,
    /// Why it may not be reachable yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// Its public SSH endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel_url: Option<String>,
    /// Why there is no public SSH endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel_error: Option<String>,
}

impl ProvisionView {
    pub(crate) fn of(result: ProvisionResult, key: Option<PrivateKey>) -> Self {
        Self {
            id: result.machine.to_string(),
            vmid: result.vmid,
            hostname: result.hostname,
            ip: result.ip.to_string(),
            username: result.username,
            os: result.os.key(),
            tier: result.tier.key(),
            node: result.node,
            ssh_private_key: key.map(|key| key.private_key.reveal().to_owned()),
            key_name: result.key_name,
            warning: result.warning,
            tunnel_url: None,
            tunnel_error: result.tunnel_error,
        }
    }
}

/// A machine.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct MachineView {
    /// Its id, `vm_…`.
    #[serde(rename = "ID")]
    pub id: String,
    /// When it was ordered.
    #[serde(rename = "CreatedAt")]
    pub created_at: At,
    /// When it changed last.
    #[serde(rename = "UpdatedAt")]
    pub updated_at: At,
    /// Always null: a deleted machine is not listed.
    #[serde(rename = "DeletedAt")]
    pub deleted_at: Option<At>,
    /// Its number in Proxmox, once there is one.
    pub vmid: Option<u32>,
    /// Its name.
    pub hostname: String,
    /// Its address, once there is one.
    pub ip: Option<String>,
    /// Its node, once chosen.
    pub node: Option<String>,
    /// Its size.
    pub tier: &'static str,
    /// Its operating system.
    pub os_template: &'static str,
    /// Its login user.
    pub username: String,
    /// `provisioning`, `running`, `stopped`, `paused`, `unknown`, `deleting` or `failed`.
    pub status: &'static str,
    /// Whose it is, `usr_…`.
    pub owner_id: String,
    /// Name of the key file in SSH commands, when the key was generated.
    pub key_name: Option<String>,
    /// The public key that was put into it.
    pub ssh_pubkey: String,
    /// Its public SSH endpoint.
    pub tunnel_url: Option<String>,
    /// Why there is no public SSH endpoint.
    pub tunnel_error: Option<String>,
    /// A warning or the last failure.
    pub error_msg: Option<String>,
    /// The operation that is running on it, `op_…`.
    pub operation_id: Option<String>,
}

impl From<Machine> for MachineView {
    fn from(machine: Machine) -> Self {
        Self {
            id: machine.id.to_string(),
            created_at: machine.created_at.into(),
            updated_at: machine.updated_at.into(),
            deleted_at: None,
            vmid: machine.vmid,
            hostname: machine.hostname,
            ip: machine.ip.map(|ip| ip.to_string()),
            node: machine.node,
            tier: machine.tier.key(),
            os_template: machine.os.key(),
            username: machine.username,
            status: machine.status.into(),
            owner_id: machine.owner.to_string(),
            key_name: machine.key_name,
            ssh_pubkey: machine.ssh_pubkey,
            tunnel_url: None,
            tunnel_error: machine.tunnel_error,
            error_msg: machine.error_msg,
            operation_id: machine.operation.map(|id| id.to_string()),
        }
    }
}

/// What can be ordered now.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct CatalogView {
    /// Sizes, smallest first.
    pub tiers: Vec<TierView>,
    /// Operating systems, newest first.
    pub os: Vec<OsView>,
    /// How many machines the caller may have.
    pub quota: QuotaView,
    /// Whether the cluster can be asked.
    pub cluster: ReachableView,
}

/// A size.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct TierView {
    /// Its name in requests.
    pub key: &'static str,
    /// Virtual CPUs.
    pub vcpu: u32,
    /// Memory in MiB.
    pub mem_mib: u64,
    /// Disk in GiB.
    pub disk_gib: u64,
    /// Whether only administrators may order it.
    pub admin_only: bool,
    /// How many more the cluster takes now; null when the cluster cannot be asked.
    pub fits: Option<u32>,
    /// Whether the caller may order it.
    pub allowed: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl From<TierOffer> for TierView {
    fn from(offer: TierOffer) -> Self {
        Self {
            key: offer.tier.key(),
            vcpu: offer.tier.vcpu(),
            mem_mib: offer.tier.memory_mib(),
            disk_gib: offer.tier.disk_gib(),
            admin_only: offer.tier.admin_only(),
            fits: offer.fits,
            allowed: offer.refused.is_none(),
            reason: offer.refused,
        }
    }
}

/// An operating system.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct OsView {
    /// Its name in requests.
    pub key: &'static str,
    /// Its name for people.
    pub label: &'static str,
    /// Its login user.
    pub user: &'static str,
    /// Nodes that have its template.
    pub nodes: u32,
}

impl From<OsOffer> for OsView {
    fn from(offer: OsOffer) -> Self {
        Self {
            key: offer.os.key(),
            label: offer.os.label(),
            user: offer.os.user(),
            nodes: offer.nodes,
        }
    }
}

/// Machines that the caller has and may have.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct QuotaView {
    /// Machines that the caller has.
    pub used: u32,
    /// Machines that the caller may have; null for no limit.
    pub limit: Option<u32>,
}

/// Whether the cluster can be asked.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ReachableView {
    /// Whether it answers.
    pub reachable: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl From<Catalog> for CatalogView {
    fn from(catalog: Catalog) -> Self {
        Self {
            tiers: catalog.tiers.into_iter().map(TierView::from).collect(),
            os: catalog.os.into_iter().map(OsView::from).collect(),
            quota: QuotaView {
                used: catalog.quota_used,
                limit: catalog.quota_limit,
            },
            cluster: ReachableView {
                reachable: catalog.cluster_error.is_none(),
                error: catalog.cluster_error,
            },
        }
    }
}

/// Where a machine would go.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct PlacementView {
    /// The node; null when no node takes it.
    pub node: Option<String>,
    /// Its score, 0 to 1.
    pub node_score: f64,
    /// Why this one, in words.
    pub reasons: String,
    /// What is against the others.
    pub rejected: Vec<RejectedView>,
}

/// A node that does not take the machine.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct RejectedView {
    /// The node; null unless the caller is an administrator.
    pub node: Option<String>,
    /// What is against it.
    pub reasons: Vec<&'static str>,
}

impl PlacementView {
    pub(crate) fn of(placement: Placement, admin: bool) -> Self {
        let rejected = placement
            .rejected
            .into_iter()
            .map(|(node, reasons)| RejectedView {
                node: admin.then_some(node),
                reasons: reasons.into_iter().map(Into::into).collect(),
            });
        Self {
            node: placement.node,
            node_score: placement.score,
            reasons: placement.why,
            rejected: rejected.collect(),
        }
    }
}

/// What one reconcile of machines did.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct MachineReconcileView {
    /// Followed to another node.
    pub migrated: Vec<MigratedView>,
    /// Followed to another name.
    pub renamed: Vec<RenamedView>,
    /// Not found this time.
    pub missed: Vec<MissedView>,
    /// Not found too often: the row is gone, the address free.
    pub deleted: Vec<MissedView>,
    /// As the books say.
    pub no_ops: u32,
    /// When the cluster was looked at.
    pub snapshot_at: At,
}

/// A machine that was found on another node.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct MigratedView {
    /// The machine, `vm_…`.
    pub id: String,
    /// Its number in Proxmox.
    pub vmid: u32,
    /// Its name.
    pub hostname: String,
    /// Where it was.
    pub from_node: String,
    /// Where it is.
    pub to_node: String,
}

/// A machine that has another name in Proxmox.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct RenamedView {
    /// The machine, `vm_…`.
    pub id: String,
    /// Its number in Proxmox.
    pub vmid: u32,
    /// The name it had.
    pub from_name: String,
    /// The name it has.
    pub to_name: String,
    /// Its node.
    pub node: String,
}

/// A machine that was not found.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct MissedView {
    /// The machine, `vm_…`.
    pub id: String,
    /// Its number in Proxmox.
    pub vmid: u32,
    /// Its name.
    pub hostname: String,
    /// Its node.
    pub node: String,
    /// How many times in a row.
    pub missed_cycles: u32,
}

impl From<ReconcileReport> for MachineReconcileView {
    fn from(report: ReconcileReport) -> Self {
        let missed = |m: nimbus_proto::machine::Missed| MissedView {
            id: m.machine.to_string(),
            vmid: m.vmid,
            hostname: m.hostname,
            node: m.node,
            missed_cycles: m.missed_cycles,
        };
        let migrated = report.migrated.into_iter().map(|m| MigratedView {
            id: m.machine.to_string(),
            vmid: m.vmid,
            hostname: m.hostname,
            from_node: m.from_node,
            to_node: m.to_node,
        });
        let renamed = report.renamed.into_iter().map(|r| RenamedView {
            id: r.machine.to_string(),
            vmid: r.vmid,
            from_name: r.from_name,
            to_name: r.to_name,
            node: r.node,
        });
        Self {
            migrated: migrated.collect(),
            renamed: renamed.collect(),
            missed: report.missed.into_iter().map(missed).collect(),
            deleted: report.deleted.into_iter().map(missed).collect(),
            no_ops: report.no_ops,
            snapshot_at: report.snapshot_at.into(),
        }
    }
}
