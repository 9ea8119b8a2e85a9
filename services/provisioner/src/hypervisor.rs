//! What is done to one machine's VM in Proxmox. Every function can be repeated.
//!
//! A VM that is not on the node where it was last seen is looked for in the whole cluster before it
//! counts as gone: operators migrate machines, and the row follows only at the next reconcile.

mod guest;
mod ready;

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nimbus_model::{MachineId, Os, Tier};
use nimbus_proto::machine::PowerAction;
use nimbus_proxmox::{
    Client, CloneSpec, ConfigPatch, PowerOp, ProxmoxError, TaskFilter, Upid, VmConfig, Vmid, encode_sshkeys,
};
use tokio::time::{Instant, sleep};

use crate::config::ProvisionerConfig;
use crate::error::MachineError;
use crate::marker::{self, Ours};

pub(crate) use guest::ScriptEnd;

/// Pause between two looks at a VM that another task is working on.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How long to look for a VM whose clone call was lost on the way. Proxmox writes the configuration
/// a moment after it answered.
const LOST_CALL: Duration = Duration::from_secs(3);
/// How often a call that met a lock is repeated. Proxmox itself waits 1 to 10 s for one.
const LOCK_TRIES: u32 = 20;

/// How often a VM is looked for where the list of guests says it is.
const MOVING: u32 = 3;

/// Where a machine's VM is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) node: String,
    pub(crate) vmid: Vmid,
}

/// What came of a clone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cloned {
    /// The VM is there and ours.
    Ours,
    /// Somebody else has this number: take another.
    Taken,
}

/// What the guest is told at its first boot.
pub(crate) struct GuestFacts<'a> {
    pub(crate) tier: Tier,
    pub(crate) os: Os,
    pub(crate) ip: Ipv4Addr,
    pub(crate) prefix: u8,
    pub(crate) gateway: Ipv4Addr,
    pub(crate) ssh_pubkey: &'a str,
}

/// One machine's VM.
pub(crate) struct Vm<'a> {
    client: &'a Client,
    config: &'a ProvisionerConfig,
    machine: MachineId,
    /// Whether a clone may be under way that is not visible yet.
    clone_in_doubt: AtomicBool,
}

impl<'a> Vm<'a> {
    pub(crate) fn new(client: &'a Client, config: &'a ProvisionerConfig, machine: MachineId) -> Self {
        // After a restart nobody knows whether the call before it arrived.
        Self {
            client,
            config,
            machine,
            clone_in_doubt: AtomicBool::new(true),
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.config.task_timeout
    }

    async fn wait(&self, upid: &Upid, doing: &str) -> Result<(), MachineError> {
        self.client
            .wait_task(upid, self.deadline())
            .await
            .map(|_| ())
            .map_err(MachineError::proxmox(doing))
    }

    /// The VM's configuration; `None` when there is no such VM on the node.
    async fn look(&self, spot: &Spot) -> Result<Option<VmConfig>, MachineError> {
        match self.client.vm_config(&spot.node, spot.vmid).await {
            Ok(config) => Ok(Some(config)),
            Err(ProxmoxError::NotFound { .. }) => Ok(None),
            Err(error) => Err(MachineError::proxmox(format!("reading VM {}", spot.vmid))(error)),
        }
    }

    fn ours(&self, config: &VmConfig) -> Ours {
        let tagged = config.tags().iter().any(|tag| tag == marker::TAG);
        marker::ours(self.machine, config.description(), config.get("smbios1"), tagged)
    }

    /// The VM's configuration once no clone is writing it; `None` when there is no such VM.
    async fn settled(&self, spot: &Spot) -> Result<Option<VmConfig>, MachineError> {
        let deadline = self.deadline();
        loop {
            match self.look(spot).await? {
                Some(config)
                    if matches!(config.lock(), Some("clone" | "create")) && Instant::now() < deadline =>
                {
                    sleep(LOOK_AGAIN).await;
                }
                other => return Ok(other),
            }
        }
    }

    /// Makes sure that the VM at `spot` is a clone of the template for this machine.
    ///
    /// A call whose answer was lost is not repeated before looking: the first one may have worked.
    pub(crate) async fn ensure_clone(
        &self,
        spot: &Spot,
        template: Vmid,
        hostname: &str,
        tier: Tier,
        os: Os,
    ) -> Result<Cloned, MachineError> {
        let doing = format!("cloning template {template} on {} to VM {}", spot.node, spot.vmid);
        if let Some(config) = self.settled(spot).await? {
            return Ok(self.verdict(&config));
        }
        let spec = CloneSpec {
            newid: spot.vmid,
            name: Some(hostname.to_owned()),
            description: Some(marker::write_fresh(self.machine, tier, os)),
            target: Some(spot.node.clone()),
            full: true,
        };
        self.clone_in_doubt.store(true, Ordering::Relaxed);
        let started = self
            .unlocked(|| self.client.clone_vm(&spot.node, template, &spec))
            .await;
        let ended = match started {
            Ok(upid) => {
                let ended = self.client.wait_task(&upid, self.deadline()).await.map(|_| ());
                self.clone_in_doubt.store(!over(&ended), Ordering::Relaxed);
                ended
            }
            Err(error) => {
                if !lost(&error) {
                    self.clone_in_doubt.store(false, Ordering::Relaxed);
                }
                Err(error)
            }
        };
        match ended {
            Ok(()) => match self.look(spot).await? {
                Some(config) => Ok(self.verdict(&config)),
                None => Err(MachineError::Gone {
                    vmid: spot.vmid.get(),
                }),
            },
            // On this node or on another one; if it is on this one it may be our own earlier attempt.
            Err(ProxmoxError::AlreadyExists { .. }) => match self.settled(spot).await? {
                Some(config) => Ok(self.verdict(&config)),
                None => Ok(Cloned::Taken),
            },
            Err(error) if lost(&error) => match self.appears(spot).await? {
                Some(config) => Ok(self.verdict(&config)),
                None => Err(MachineError::proxmox(doing)(error)),
            },
            Err(error) => Err(MachineError::proxmox(doing)(error)),
        }
    }

    fn verdict(&self, config: &VmConfig) -> Cloned {
        match self.ours(config) {
            Ours::Yes | Ours::Fresh => Cloned::Ours,
            Ours::No => Cloned::Taken,
        }
    }

    /// Looks for a VM whose clone call was lost.
    async fn appears(&self, spot: &Spot) -> Result<Option<VmConfig>, MachineError> {
        let until = Instant::now() + LOST_CALL;
        loop {
            // The cluster may still be away; what counts is what it says once it is back.
            match self.settled(spot).await {
                Ok(Some(config)) => return Ok(Some(config)),
                Ok(None) if Instant::now() >= until => return Ok(None),
                Err(error) if Instant::now() >= until => return Err(error),
                Ok(None) | Err(_) => sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// Repeats a call while the VM, or the template, is locked by another task.
    async fn unlocked<T, F, Fut>(&self, call: F) -> Result<T, ProxmoxError>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T, ProxmoxError>>,
    {
        let mut tries = 0;
        loop {
            match call().await {
                Err(ProxmoxError::Locked { message }) if tries < LOCK_TRIES => {
                    tries += 1;
                    tracing::debug!(tries, message, "locked, trying again");
                    sleep(LOOK_AGAIN).await;
                }
                other => return other,
            }
        }
    }

    /// Tells the VM who it is: size, network, user and key, tag and uuid.
    pub(crate) async fn configure(&self, spot: &Spot, facts: &GuestFacts<'_>) -> Result<(), MachineError> {
        let doing = format!("configuring VM {}", spot.vmid);
        let (spot, present) = self.must_be_ours(spot).await?;
        let mut patch = ConfigPatch::new()
            .set("ciuser", facts.os.user())
            .set("sshkeys", encode_sshkeys(facts.ssh_pubkey))
            .set(
                "ipconfig0",
                format!("ip={}/{},gw={}", facts.ip, facts.prefix, facts.gateway),
            )
            .set("nameserver", &self.config.nameserver)
            .set("searchdomain", &self.config.search_domain)
            .set("cores", facts.tier.vcpu())
            .set("memory", facts.tier.memory_mib())
            .set("cpu", &self.config.cpu_type)
            .set("agent", "enabled=1")
            .set("tags", marker::TAG)
            .set("description", marker::write(self.machine, facts.tier, facts.os))
            .set("smbios1", format!("uuid={}", self.machine.uuid()));
        if !has_cloudinit(&present)
            && let Some(storage) = boot_storage(&present)
        {
            patch = patch.set("ide2", format!("{storage}:cloudinit"));
        }
        let upid = self
            .unlocked(|| self.client.set_config(&spot.node, spot.vmid, &patch))
            .await
            .map_err(MachineError::proxmox(doing.as_str()))?;
        match upid {
            Some(upid) => self.wait(&upid, &doing).await,
            None => Ok(()),
        }
    }

    /// Brings the disk to the tier's size; absolute, because cloud images differ in size.
    pub(crate) async fn resize(&self, spot: &Spot, tier: Tier) -> Result<(), MachineError> {
        let doing = format!("resizing the disk of VM {} to {} GiB", spot.vmid, tier.disk_gib());
        let (spot, present) = self.must_be_ours(spot).await?;
        let disk = boot_disk(&present).unwrap_or("scsi0");
        let size = u32::try_from(tier.disk_gib()).unwrap_or(u32::MAX);
        let upid = self
            .unlocked(|| self.client.resize_disk(&spot.node, spot.vmid, disk, size))
            .await
            .map_err(MachineError::proxmox(doing.as_str()))?;
        match upid {
            Some(upid) => self.wait(&upid, &doing).await,
            None => Ok(()),
        }
    }

    /// Powers the VM; asking for the state it is in is fine, but for a reboot of a stopped one.
    /// Answers where the VM is.
    pub(crate) async fn power(&self, spot: &Spot, action: PowerAction) -> Result<Spot, MachineError> {
        let op = match action {
            PowerAction::Start => PowerOp::Start,
            PowerAction::Shutdown => PowerOp::Shutdown,
            PowerAction::Stop => PowerOp::Stop,
            PowerAction::Reboot => PowerOp::Reboot,
        };
        let mut tries = 0;
        loop {
            let (spot, _) = self.must_be_ours(spot).await?;
            let ended = match self
                .unlocked(|| self.client.power(&spot.node, spot.vmid, op))
                .await
            {
                Ok(upid) => self.client.wait_task(&upid, self.deadline()).await.map(|_| ()),
                Err(error) => Err(error),
            };
            match (action, ended) {
                // A power task meets the lock only once it runs; a VM can be moved between look and call.
                (_, Err(ProxmoxError::Locked { .. } | ProxmoxError::NotFound { .. }))
                    if tries < LOCK_TRIES =>
                {
                    tries += 1;
                    sleep(LOOK_AGAIN).await;
                }
                (PowerAction::Start, Err(ProxmoxError::AlreadyRunning { .. }))
                | (PowerAction::Stop | PowerAction::Shutdown, Err(ProxmoxError::NotRunning { .. }))
                | (_, Ok(())) => return Ok(spot),
                (_, Err(error)) => {
                    return Err(MachineError::proxmox(format!("{op} of VM {}", spot.vmid))(error));
                }
            }
        }
    }

    /// Destroys the VM if it is this machine's; a stranger's with the same number is left alone.
    pub(crate) async fn destroy_ours(&self, spot: &Spot) -> Result<(), MachineError> {
        let doing = format!("destroying VM {}", spot.vmid);
        let mut config = self.settled(spot).await?;
        if config.is_none() && self.clone_in_doubt.load(Ordering::Relaxed) {
            self.clones_ended(&spot.node).await?;
            config = self.settled(spot).await?;
        }
        let found = match config {
            Some(config) => Some((spot.clone(), config)),
            None => self.elsewhere(spot).await?,
        };
        let Some((spot, config)) = found else {
            return Ok(());
        };
        if self.ours(&config) == Ours::No {
            tracing::warn!(vmid = spot.vmid.get(), machine.id = %self.machine, "left a VM alone that does not carry the machine's marker");
            return Ok(());
        }
        match self.power(&spot, PowerAction::Stop).await {
            Ok(_) => {}
            Err(MachineError::Gone { .. }) => return Ok(()),
            // A VM that runs would only be refused for another reason.
            Err(error) if error.is_transient() => return Err(error),
            // The destruction says so if it matters.
            Err(error) => tracing::debug!(cause = %error, "could not stop before destroying"),
        }
        let mut tries = 0;
        loop {
            let ended = match self.unlocked(|| self.client.destroy(&spot.node, spot.vmid)).await {
                Ok(upid) => self.client.wait_task(&upid, self.deadline()).await.map(|_| ()),
                Err(error) => Err(error),
            };
            match ended {
                Ok(()) | Err(ProxmoxError::NotFound { .. }) => return Ok(()),
                Err(ProxmoxError::Locked { .. }) if tries < LOCK_TRIES => {
                    tries += 1;
                    sleep(LOOK_AGAIN).await;
                }
                Err(error) => return Err(MachineError::proxmox(doing)(error)),
            }
        }
    }

    /// Waits until no clone runs on the node: one of them may be the one whose answer was lost.
    async fn clones_ended(&self, node: &str) -> Result<(), MachineError> {
        let filter = TaskFilter {
            kind: Some("qmclone".to_owned()),
            all: true,
            ..TaskFilter::default()
        };
        let tasks = self
            .client
            .tasks(node, &filter)
            .await
            .map_err(MachineError::proxmox("listing tasks"))?;
        for task in tasks.iter().filter(|task| task.status.is_none()) {
            match self.client.wait_task(&task.upid, self.deadline()).await {
                Err(error) if error.is_transient() => {
                    return Err(MachineError::proxmox("waiting for clones")(error));
                }
                // How it ended is looked at in the configuration.
                _ => {}
            }
        }
        Ok(())
    }

    async fn must_be_ours(&self, spot: &Spot) -> Result<(Spot, VmConfig), MachineError> {
        let found = match self.look(spot).await? {
            Some(config) => Some((spot.clone(), config)),
            None => self.elsewhere(spot).await?,
        };
        let Some((spot, config)) = found else {
            return Err(MachineError::Gone {
                vmid: spot.vmid.get(),
            });
        };
        if self.ours(&config) == Ours::No {
            return Err(MachineError::NotOurs {
                vmid: spot.vmid.get(),
                node: spot.node,
            });
        }
        Ok((spot, config))
    }

    /// The VM with this number on another node; `None` when the cluster has none.
    async fn elsewhere(&self, spot: &Spot) -> Result<Option<(Spot, VmConfig)>, MachineError> {
        for _ in 0..MOVING {
            let guests = self
                .client
                .cluster_vms()
                .await
                .map_err(MachineError::proxmox(format!("looking for VM {}", spot.vmid)))?;
            let Some(guest) = guests.into_iter().find(|guest| guest.vmid == spot.vmid) else {
                return Ok(None);
            };
            let there = Spot {
                node: guest.node,
                vmid: spot.vmid,
            };
            if let Some(config) = self.look(&there).await? {
                return Ok(Some((there, config)));
            }
            // Listed and not there: it moves at this moment, or the list has not noticed that it is gone.
            sleep(LOOK_AGAIN).await;
        }
        Ok(None)
    }
}

/// Whether a task has ended for sure, and not only the waiting for it.
fn over(ended: &Result<(), ProxmoxError>) -> bool {
    match ended {
        Ok(()) => true,
        Err(error) => matches!(
            error,
            ProxmoxError::TaskFailed { .. }
                | ProxmoxError::AlreadyExists { .. }
                | ProxmoxError::Locked { .. }
                | ProxmoxError::Unquorate { .. }
        ),
    }
}

/// Whether the call may have arrived although its answer did not.
fn lost(error: &ProxmoxError) -> bool {
    matches!(
        error,
        ProxmoxError::Timeout { .. }
            | ProxmoxError::Unreachable { .. }
            | ProxmoxError::NodeUnreachable { .. }
            | ProxmoxError::Garbage { .. }
    )
}

fn boot_disk(config: &VmConfig) -> Option<&'static str> {
    ["scsi0", "virtio0", "sata0", "ide0"]
        .into_iter()
        .find(|slot| config.get(slot).is_some())
}

fn boot_storage(config: &VmConfig) -> Option<&str> {
    config
        .get(boot_disk(config)?)?
        .split_once(':')
        .map(|(storage, _)| storage)
}

fn has_cloudinit(config: &VmConfig) -> bool {
    config.0.iter().any(|(key, value)| {
        (key.starts_with("ide") || key.starts_with("scsi") || key.starts_with("sata"))
            && value.contains("cloudinit")
    })
}
