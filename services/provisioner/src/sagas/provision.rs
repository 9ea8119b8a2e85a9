//! Making a machine: ten steps, each safe to repeat, each taken back when a later one fails.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::time::Duration;

use async_trait::async_trait;
use nimbus_bus::Key;
use nimbus_model::{MachineId, Os, Tier};
use nimbus_proto::event::MachineChanged;
use nimbus_proto::ippool::{self, AllocateRequest, ConfirmRequest, Lease, ReleaseRequest, ReserveRequest};
use nimbus_proto::machine::{Machine, ProvisionResult};
use nimbus_proxmox::Vmid;
use nimbus_saga::{OrNotFound, Outputs, Saga, StepError, UndoError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Mutex;

use super::{placed, row, spot, step_error, undo_error};
use crate::cluster::BAKED;
use crate::error::MachineError;
use crate::hypervisor::{Cloned, GuestFacts, Vm};
use crate::machine::{MachineRow, store as machines};
use crate::placement;
use crate::service::Provisioner;

/// How old the figures may be that a placement is made from.
const FRESH: Duration = Duration::from_secs(1);
/// Pause between two renewals of the reserved address; far below the shortest sensible TTL.
const KEEP_ADDRESS: Duration = Duration::from_secs(60);
/// Addresses tried when other installations take them at the same time.
const ADDRESS_TRIES: usize = 8;
/// Numbers tried when others take them at the same time.
const VMID_TRIES: u32 = 16;

/// The steps, in the order of work. Their names are stored and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::EnumString, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum Step {
    ReserveIp,
    PickNode,
    CloneTemplate,
    ConfigureVm,
    ResizeDisk,
    StartVm,
    WaitGuestAgent,
    CommitIp,
    PrepareGpu,
    SaveVm,
}

/// What `pick_node` found.
#[derive(Serialize, Deserialize)]
struct Picked {
    node: String,
    template: u32,
}

/// What `wait_guest_agent` found.
#[derive(Serialize, Deserialize)]
struct Waited {
    warning: Option<String>,
}

/// What `prepare_gpu` could not do.
#[derive(Serialize, Deserialize)]
struct Prepared {
    warning: Option<String>,
}

/// Making one machine.
pub(crate) struct Provision<'a> {
    pub(crate) provisioner: &'a Provisioner,
    pub(crate) machine: MachineId,
    pub(crate) vm: Vm<'a>,
    /// Whether the reservation is to be renewed. Held during a renewal, so that none follows the release.
    pub(crate) renewing: Mutex<bool>,
}

#[async_trait]
impl Saga for Provision<'_> {
    // A step was added without another number: what an older version began is finished by this one, which
    // does the step late, and an older one refuses what names a step that it does not know.
    const NAME: &'static str = "provision/1";
    type Step = Step;

    async fn act(&self, step: Step, done: &Outputs) -> Result<Value, StepError> {
        let row = row(self.provisioner, self.machine).await.map_err(step_error)?;
        let view = row.view().map_err(step_error)?;
        let value = match step {
            Step::ReserveIp => self.reserve(&row).await.and_then(value),
            Step::PickNode => self.pick(&row, view.tier, view.os).await.and_then(value),
            Step::CloneTemplate => {
                let picked: Picked = done.get(Step::PickNode)?;
                self.clone_template(row, &view, &picked)
                    .await
                    .map(|()| Value::Null)
            }
            Step::ConfigureVm => {
                let lease: Lease = done.get(Step::ReserveIp)?;
                self.configure(&row, &view, &lease).await.map(|()| Value::Null)
            }
            Step::ResizeDisk => match placed(&row) {
                Ok(spot) => self.vm.resize(&spot, view.tier).await.map(|()| Value::Null),
                Err(error) => Err(error),
            },
            Step::StartVm => match placed(&row) {
                Ok(spot) => self
                    .vm
                    .power(&spot, nimbus_proto::machine::PowerAction::Start)
                    .await
                    .map(|_| Value::Null),
                Err(error) => Err(error),
            },
            Step::WaitGuestAgent => match placed(&row).and_then(|spot| Ok((spot, address(&view)?))) {
                Ok((spot, ip)) => self
                    .vm
                    .wait_ready(&spot, ip)
                    .await
                    .and_then(|warning| value(Waited { warning })),
                Err(error) => Err(error),
            },
            Step::CommitIp => match address(&view) {
                Ok(ip) => self.commit(&row, ip).await.map(|()| Value::Null),
                Err(error) => Err(error),
            },
            Step::PrepareGpu => {
                let waited: Waited = done.get(Step::WaitGuestAgent)?;
                match placed(&row) {
                    Ok(spot) => {
                        let unready = waited.warning.is_some();
                        let warning = self
                            .provisioner
                            .prepare_gpu(&self.vm, &spot, &view, unready)
                            .await;
                        value(Prepared { warning })
                    }
                    Err(error) => Err(error),
                }
            }
            Step::SaveVm => {
                let waited: Waited = done.get(Step::WaitGuestAgent)?;
                let prepared: Prepared = done.get(Step::PrepareGpu)?;
                let warnings: Vec<String> = waited.warning.into_iter().chain(prepared.warning).collect();
                let warning = (!warnings.is_empty()).then(|| warnings.join("; "));
                address(&view)
                    .and_then(|ip| result(&view, ip, warning))
                    .and_then(value)
            }
        };
        value.map_err(step_error)
    }

    async fn undo(&self, step: Step, _done: &Outputs) -> Result<(), UndoError> {
        match step {
            Step::ReserveIp => {
                *self.renewing.lock().await = false;
                let request = ReleaseRequest {
                    machine: self.machine,
                };
                let bus = &self.provisioner.inner().bus;
                bus.call::<ippool::Release>(&request)
                    .key(Key::of(self.machine))
                    .await
                    .or_not_found()
            }
            Step::CloneTemplate => {
                let Some(row) = machines::find(&self.provisioner.inner().store, self.machine)
                    .await
                    .map_err(|e| undo_error(e.into()))?
                else {
                    return Ok(());
                };
                match spot(&row).map_err(undo_error)? {
                    Some(spot) => self.vm.destroy_ours(&spot).await.map_err(undo_error),
                    None => Ok(()),
                }
            }
            Step::PrepareGpu => self
                .provisioner
                .forget_gpu(self.machine)
                .await
                .map_err(|fault| UndoError { fault }),
            // The place is in the row, which goes when everything else has been undone; the rest
            // changed the VM, which goes as a whole.
            Step::PickNode
            | Step::ConfigureVm
            | Step::ResizeDisk
            | Step::StartVm
            | Step::WaitGuestAgent
            | Step::CommitIp
            | Step::SaveVm => Ok(()),
        }
    }

    fn time_limit(&self, step: Step) -> Duration {
        let config = &self.provisioner.inner().config;
        match step {
            Step::WaitGuestAgent => config.ready_timeout + Duration::from_secs(60),
            Step::PrepareGpu => config.gpu_inject_timeout + Duration::from_secs(60),
            Step::CloneTemplate => config.task_timeout * 2,
            _ => config.task_timeout + Duration::from_secs(60),
        }
    }
}

impl Provision<'_> {
    /// Keeps the reservation from expiring, however long the disk takes to copy.
    pub(crate) async fn keep_address(&self) -> Infallible {
        let inner = self.provisioner.inner();
        loop {
            tokio::time::sleep(KEEP_ADDRESS).await;
            let renewing = self.renewing.lock().await;
            let Ok(Some(row)) = machines::find(&inner.store, self.machine).await else {
                continue;
            };
            // Before the first step has reserved an address there is nothing to keep.
            if !*renewing || row.ip.is_none() {
                continue;
            }
            let request = ReserveRequest {
                machine: self.machine,
                hostname: row.hostname,
            };
            if let Err(fault) = inner
                .bus
                .call::<ippool::Reserve>(&request)
                .key(Key::of(self.machine))
                .await
            {
                tracing::warn!(machine.id = %self.machine, fault.code = %fault.code, "could not renew the reserved address");
            }
        }
    }

    async fn reserve(&self, row: &MachineRow) -> Result<Lease, MachineError> {
        let inner = self.provisioner.inner();
        let request = ReserveRequest {
            machine: self.machine,
            hostname: row.hostname.clone(),
        };
        let lease = inner
            .bus
            .call::<ippool::Reserve>(&request)
            .key(Key::of(self.machine))
            .await?;
        self.note_address(lease.ip).await?;
        Ok(lease)
    }

    /// Writes the address into the row, where later steps find it.
    async fn note_address(&self, ip: Ipv4Addr) -> Result<(), MachineError> {
        let inner = self.provisioner.inner();
        let (machine, ip, at) = (self.machine, ip.to_string(), inner.clock.now());
        let news = inner.news.clone();
        inner
            .store
            .write(move |tx| {
                Box::pin(async move {
                    match machines::set_ip(tx, machine, &ip, at).await? {
                        Some(row) => news.tell(tx, &MachineChanged { machine: row.view()? }).await,
                        None => Ok(()),
                    }
                })
            })
            .await?;
        inner.news.outbox.nudge();
        Ok(())
    }

    /// Chooses node and number and writes both into the row, so that the next choice counts them.
    async fn pick(&self, row: &MachineRow, tier: Tier, os: Os) -> Result<Picked, MachineError> {
        let inner = self.provisioner.inner();
        let client = self.provisioner.client()?;
        let view = self.provisioner.cluster()?.view(FRESH).await?;
        let node = match placed(row) {
            // An earlier attempt chose already; another choice would leave its number taken for nothing.
            Ok(spot) => spot.node,
            Err(_) => {
                let lowest = client
                    .next_vmid()
                    .await
                    .map_err(MachineError::proxmox("asking for a free VM number"))?;
                let _placing = inner.placing.lock().await;
                let making: Vec<MachineRow> = machines::all(&inner.store)
                    .await?
                    .into_iter()
                    .filter(|other| other.operation.is_some())
                    .collect();
                let facts = view.facts(&inner.config.disk_storage, &making);
                let choice = placement::choose(&facts, tier, Some(os), &inner.rules);
                let Some((winner, _)) = choice.winner else {
                    return Err(MachineError::NoEligibleNode {
                        tier,
                        os,
                        rejected: choice.rejected,
                    });
                };
                let name = winner.name.clone();
                self.take_number(&name, lowest, &view).await?;
                name
            }
        };
        let template = view
            .template(&node, os)
            .ok_or_else(|| MachineError::TemplateMissing {
                node: node.clone(),
                os,
                reason: "there is none".into(),
            })?;
        // The list can be ten seconds old; the configuration is not.
        let config = client
            .vm_config(&node, template.vmid)
            .await
            .map_err(MachineError::proxmox(format!(
                "reading template {}",
                template.vmid
            )))?;
        if !config.is_template() || !config.tags().iter().any(|tag| tag == BAKED) {
            let reason = format!(
                "VM {} does not carry the tag {BAKED}; an administrator has to rebuild the templates",
                template.vmid
            );
            return Err(MachineError::TemplateMissing { node, os, reason });
        }
        Ok(Picked {
            template: template.vmid.get(),
            node,
        })
    }

    /// Writes the lowest number that neither the cluster nor another machine has.
    async fn take_number(
        &self,
        node: &str,
        lowest: Vmid,
        view: &crate::cluster::View,
    ) -> Result<Vmid, MachineError> {
        let inner = self.provisioner.inner();
        for _ in 0..VMID_TRIES {
            let mut tx = inner.store.begin().await?;
            let taken = machines::vmids(&mut tx).await?;
            let mut candidate = lowest;
            while taken.contains(&i64::from(candidate.get())) || view.guest(candidate.get()).is_some() {
                candidate = candidate
                    .next()
                    .ok_or(MachineError::NoVmid { tries: VMID_TRIES })?;
            }
            let placed = machines::place(
                &mut tx,
                self.machine,
                node,
                i64::from(candidate.get()),
                inner.clock.now(),
            )
            .await;
            match placed {
                Ok(row) => {
                    if let Some(row) = row {
                        inner
                            .news
                            .tell(&mut tx, &MachineChanged { machine: row.view()? })
                            .await?;
                    }
                    tx.commit().await?;
                    inner.news.outbox.nudge();
                    return Ok(candidate);
                }
                // Another replica took it between our look and our write.
                Err(error) if error.is_unique_violation() => tx.rollback().await?,
                Err(error) => return Err(error.into()),
            }
        }
        Err(MachineError::NoVmid { tries: VMID_TRIES })
    }

    /// Clones, taking another number for as long as somebody else is faster with it.
    async fn clone_template(
        &self,
        mut row: MachineRow,
        view: &Machine,
        picked: &Picked,
    ) -> Result<(), MachineError> {
        let template = Vmid::new(picked.template).map_err(|error| MachineError::Damaged {
            what: "a template's number",
            reason: error.to_string(),
        })?;
        for _ in 0..VMID_TRIES {
            let spot = placed(&row)?;
            match self
                .vm
                .ensure_clone(&spot, template, &view.hostname, view.tier, view.os)
                .await?
            {
                Cloned::Ours => return Ok(()),
                Cloned::Taken => {
                    tracing::info!(
                        vmid = spot.vmid.get(),
                        "the number was taken by somebody else, choosing another"
                    );
                    let cluster = self.provisioner.cluster()?.view(Duration::ZERO).await?;
                    let after = spot
                        .vmid
                        .next()
                        .ok_or(MachineError::NoVmid { tries: VMID_TRIES })?;
                    self.take_number(&spot.node, after, &cluster).await?;
                    row = super::row(self.provisioner, self.machine).await?;
                }
            }
        }
        Err(MachineError::NoVmid { tries: VMID_TRIES })
    }

    /// Tells the VM who it is, then looks whether anybody else in the cluster was told the same address:
    /// another installation can have reserved it at the same moment. Gives way until nobody else has it.
    async fn configure(
        &self,
        row: &MachineRow,
        view: &Machine,
        reserved: &Lease,
    ) -> Result<(), MachineError> {
        let (inner, spot) = (self.provisioner.inner(), placed(row)?);
        // An earlier attempt may have given way already.
        let mut ip = address(view)?;
        let mut tried = Vec::new();
        while tried.len() < ADDRESS_TRIES {
            let facts = GuestFacts {
                tier: view.tier,
                os: view.os,
                ip,
                prefix: reserved.prefix,
                gateway: reserved.gateway,
                ssh_pubkey: &view.ssh_pubkey,
            };
            self.vm.configure(&spot, &facts).await?;
            let request = ConfirmRequest {
                machine: self.machine,
                hostname: view.hostname.clone(),
                ip,
                vmid: spot.vmid.get(),
            };
            let confirmed = inner
                .bus
                .call::<ippool::Confirm>(&request)
                .key(Key::of(format!("{}-{ip}", self.machine)))
                .await?;
            if confirmed.ip == ip {
                return Ok(());
            }
            tracing::info!(machine.id = %self.machine, "{ip} is in use by another guest, taking {}", confirmed.ip);
            tried.push(ip);
            ip = confirmed.ip;
            self.note_address(ip).await?;
        }
        Err(MachineError::Contested { tried })
    }

    async fn commit(&self, row: &MachineRow, ip: Ipv4Addr) -> Result<(), MachineError> {
        let request = AllocateRequest {
            machine: self.machine,
            ip,
            vmid: placed(row)?.vmid.get(),
        };
        let bus = &self.provisioner.inner().bus;
        Ok(bus
            .call::<ippool::Allocate>(&request)
            .key(Key::of(self.machine))
            .await?)
    }
}

/// The machine's address; it can have changed since the first step.
fn address(view: &Machine) -> Result<Ipv4Addr, MachineError> {
    view.ip.ok_or_else(|| MachineError::Damaged {
        what: "a machine's address",
        reason: "it has none".into(),
    })
}

fn value<T: Serialize>(output: T) -> Result<Value, MachineError> {
    serde_json::to_value(output).map_err(|error| MachineError::Damaged {
        what: "a step's output",
        reason: error.to_string(),
    })
}

fn result(view: &Machine, ip: Ipv4Addr, warning: Option<String>) -> Result<ProvisionResult, MachineError> {
    let missing = |what| MachineError::Damaged {
        what,
        reason: "it has none".into(),
    };
    Ok(ProvisionResult {
        machine: view.id,
        vmid: view.vmid.ok_or_else(|| missing("a machine's number"))?,
        hostname: view.hostname.clone(),
        ip,
        username: view.username.clone(),
        os: view.os,
        tier: view.tier,
        node: view.node.clone().ok_or_else(|| missing("a machine's node"))?,
        key_name: view.key_name.clone(),
        warning,
        tunnel_error: view.tunnel_error.clone(),
        has_private_key: view.key_name.is_some(),
    })
}
