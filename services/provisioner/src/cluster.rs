//! What the cluster looks like, fetched at most once for everybody who asks at the same time.

use std::sync::Arc;
use std::time::Duration;

use nimbus_errors::Fault;
use nimbus_model::{Clock, Os, Timestamp};
use nimbus_proxmox::{Client, ClusterStatusEntry, ClusterVm, GuestKind, Node, StorageResource, Vmid};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::error::{MachineError, fault};
use crate::machine::MachineRow;
use crate::placement::{DiskFacts, NodeFacts, promise};

/// The tag that says a template is complete: the guest agent is in it and cloud-init's state is not.
pub(crate) const BAKED: &str = "nimbus-baked-v1";

/// One look at the cluster.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) nodes: Vec<Node>,
    pub(crate) guests: Vec<ClusterVm>,
    pub(crate) storages: Vec<StorageResource>,
    pub(crate) status: Vec<ClusterStatusEntry>,
    pub(crate) taken_at: Timestamp,
}

/// A template of an operating system on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Template<'a> {
    pub(crate) node: &'a str,
    pub(crate) os: Os,
    pub(crate) vmid: Vmid,
    pub(crate) baked: bool,
}

impl View {
    /// Every template of an operating system that Nimbus offers: tagged `nimbus-os-<os>` or, as other
    /// tools name them, with a name that ends in the operating system.
    pub(crate) fn templates(&self) -> impl Iterator<Item = Template<'_>> {
        self.guests
            .iter()
            .filter(|guest| guest.template == Some(true))
            .filter_map(|guest| {
                let os = Os::all().iter().copied().find(|os| {
                    guest
                        .tags
                        .iter()
                        .any(|tag| tag.strip_prefix("nimbus-os-") == Some(os.key()))
                        || guest.name.as_deref().is_some_and(|name| {
                            name.ends_with(os.key()) || name.ends_with(&os.key().replace('.', "-"))
                        })
                })?;
                Some(Template {
                    node: &guest.node,
                    os,
                    vmid: guest.vmid,
                    baked: guest.tags.iter().any(|tag| tag == BAKED),
                })
            })
    }

    /// The template to clone: a complete one before an incomplete one, then the lowest number.
    pub(crate) fn template(&self, node: &str, os: Os) -> Option<Template<'_>> {
        self.templates()
            .filter(|template| template.node == node && template.os == os)
            .min_by_key(|template| (!template.baked, template.vmid.get()))
    }

    /// The guest with this number.
    pub(crate) fn guest(&self, vmid: u32) -> Option<&ClusterVm> {
        self.guests.iter().find(|guest| guest.vmid.get() == vmid)
    }

    /// Whether a node is online, as far as the cluster knows.
    pub(crate) fn online(&self, node: &str) -> bool {
        self.nodes.iter().any(|n| n.node == node && n.status == "online")
    }

    /// What placement needs, with the machines in the making counted where the cluster does not show them yet.
    pub(crate) fn facts(&self, disk_storage: &str, making: &[MachineRow]) -> Vec<NodeFacts> {
        let mut facts: Vec<NodeFacts> = self
            .nodes
            .iter()
            .map(|node| self.facts_of(node, disk_storage))
            .collect();
        for machine in making {
            let shown = machine
                .vmid
                .and_then(|vmid| u32::try_from(vmid).ok())
                .and_then(|vmid| self.guest(vmid))
                .is_some_and(|guest| guest.maxmem.is_some_and(|bytes| bytes > 0));
            let (Some(node), Ok(tier), false) = (&machine.node, machine.tier.parse(), shown) else {
                continue;
            };
            if let Some(fact) = facts.iter_mut().find(|fact| fact.name == *node) {
                promise(fact, tier);
            }
        }
        facts
    }

    fn facts_of(&self, node: &Node, disk_storage: &str) -> NodeFacts {
        let guests: Vec<&ClusterVm> = self
            .guests
            .iter()
            .filter(|guest| guest.node == node.node && guest.template != Some(true))
            .collect();
        let storage = self
            .storages
            .iter()
            .filter(|storage| storage.storage == disk_storage)
            .find(|storage| storage.shared || storage.node == node.node);
        let mut templates: Vec<Os> = self
            .templates()
            .filter(|template| template.node == node.node)
            .map(|template| template.os)
            .collect();
        templates.sort_unstable();
        templates.dedup();
        NodeFacts {
            name: node.node.clone(),
            online: node.status == "online",
            cpu: node.cpu.unwrap_or(0.0),
            threads: node
                .maxcpu
                .and_then(|threads| u32::try_from(threads).ok())
                .unwrap_or(0),
            mem_used: node.mem.unwrap_or(0),
            mem_total: node.maxmem.unwrap_or(0),
            mem_committed: guests.iter().filter_map(|guest| guest.maxmem).sum(),
            cpu_committed: guests.iter().filter_map(|guest| guest.maxcpu).map(whole).sum(),
            disk: storage.and_then(|storage| {
                Some(DiskFacts {
                    used: storage.disk?,
                    total: storage.maxdisk?,
                    promised: 0,
                })
            }),
            guests: u32::try_from(guests.len()).unwrap_or(u32::MAX),
            templates,
        }
    }

    /// Bytes of disk of all guests of a node.
    pub(crate) fn disk_allocated(&self, node: &str) -> u64 {
        self.guests
            .iter()
            .filter(|guest| guest.node == node && guest.template != Some(true))
            .filter_map(|guest| guest.maxdisk)
            .sum()
    }

    /// Running and all guests of a node.
    pub(crate) fn counts(&self, node: &str) -> (u32, u32) {
        let guests = || {
            self.guests
                .iter()
                .filter(|guest| guest.node == node && guest.template != Some(true))
        };
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        (
            count(guests().filter(|guest| guest.status == "running").count()),
            count(guests().count()),
        )
    }

    /// Used and all bytes of the cluster's storages; shared ones once.
    pub(crate) fn storage_totals(&self) -> (u64, u64) {
        let mut seen = std::collections::BTreeSet::new();
        self.storages
            .iter()
            .filter(|storage| !storage.shared || seen.insert(storage.storage.as_str()))
            .fold((0, 0), |(used, total), storage| {
                (
                    used + storage.disk.unwrap_or(0),
                    total + storage.maxdisk.unwrap_or(0),
                )
            })
    }

    /// Virtual machines that are not templates.
    pub(crate) fn machines(&self) -> impl Iterator<Item = &ClusterVm> {
        self.guests
            .iter()
            .filter(|guest| guest.kind == GuestKind::Qemu && guest.template != Some(true))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of vCPUs, clamped to the type's range"
)]
fn whole(vcpus: f64) -> u32 {
    vcpus.clamp(0.0, f64::from(u32::MAX)).ceil() as u32
}

/// What came of the last look, and when.
type Kept = (Instant, Result<Arc<View>, Fault>);

/// The shared look at the cluster. Clones share.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: Client,
    clock: Clock,
    kept: Arc<Mutex<Option<Kept>>>,
}

impl Cluster {
    pub(crate) fn new(client: Client, clock: Clock) -> Self {
        Self {
            client,
            clock,
            kept: Arc::default(),
        }
    }

    /// A look that is at most `max_age` old. Callers at the same time share one.
    pub(crate) async fn view(&self, max_age: Duration) -> Result<Arc<View>, MachineError> {
        let asked = Instant::now();
        // Held across the fetch on purpose: that is what makes others wait for this one's answer.
        let mut kept = self.kept.lock().await;
        match kept.as_ref() {
            Some((at, Ok(view))) if at.elapsed() <= max_age => return Ok(Arc::clone(view)),
            // Otherwise those who wait for a cluster that hangs would time out one after the other.
            Some((at, Err(fault))) if *at >= asked => return Err(MachineError::Fault(fault.clone())),
            _ => {}
        }
        let looked = self.look().await.map_err(fault);
        *kept = Some((Instant::now(), looked.clone()));
        looked.map_err(MachineError::Fault)
    }

    async fn look(&self) -> Result<Arc<View>, MachineError> {
        // Before the questions: what changes while they are asked may not be in the answers.
        let (doing, taken_at) = ("looking at the cluster", self.clock.now());
        let (nodes, guests, storages, status) = tokio::try_join!(
            self.client.nodes(),
            self.client.cluster_vms(),
            self.client.cluster_storage(),
            self.client.cluster_status()
        )
        .map_err(MachineError::proxmox(doing))?;
        Ok(Arc::new(View {
            nodes,
            guests,
            storages,
            status,
            taken_at,
        }))
    }
}

#[cfg(test)]
mod tests {
    use nimbus_proxmox::ProxmoxConfig;
    use nimbus_pve_sim::{Fault as Wrong, FaultMode, Simulator};

    use super::*;

    // A simulator that nobody else asks: what is counted is this.
    #[tokio::test]
    async fn those_who_wait_for_a_look_share_its_failure() {
        let sim = Simulator::builder()
            .latency_scale(0.0)
            .start("127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        let settings = ProxmoxConfig::new(sim.url.parse().unwrap(), &sim.token_id, sim.token_secret.clone());
        let cluster = Cluster::new(Client::new(settings).unwrap(), Clock::system());
        let asked = || {
            sim.state()["requests"]["GET /cluster/status"]
                .as_u64()
                .unwrap_or(0)
        };

        let mut wrong = Wrong::once("GET /cluster/status", FaultMode::Garbage);
        wrong.count = 0;
        sim.inject(wrong);
        let looks = futures::future::join_all((0..10).map(|_| cluster.view(Duration::ZERO))).await;
        for look in looks {
            let error = look.unwrap_err();
            assert!(error.is_transient(), "{error:?}");
        }
        assert_eq!(asked(), 1);

        // Who asks afterwards gets a look of their own.
        sim.clear_faults();
        cluster.view(Duration::from_secs(60)).await.unwrap();
        assert_eq!(asked(), 2);
    }
}
