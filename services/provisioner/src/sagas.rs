//! The operations as sagas: which steps there are, and what each does and undoes.
//!
//! | saga | steps |
//! |---|---|
//! | `provision/1` | reserve_ip, pick_node, clone_template, configure_vm, resize_disk, start_vm, wait_guest_agent, commit_ip, prepare_gpu, save_vm |
//! | `delete/1` | stop_vm, destroy_vm, release_ip, remove_vm |
//! | `power/1` | power_vm |
//!
//! Provisioning is taken back when a step fails; deletion and power have nothing to take back: they
//! are tried again, then the machine keeps a message and its owner can try again. Where taking back
//! does not succeed either, the machine is shown as failed and taking back goes on at long intervals,
//! unless its owner deletes it.

pub(crate) mod delete;
pub(crate) mod driver;
pub(crate) mod observer;
pub(crate) mod power;
pub(crate) mod provision;
#[cfg(test)]
mod rounds;
pub(crate) mod stuck;

use nimbus_model::{MachineId, OperationId};
use nimbus_proto::machine::OperationKind;
use nimbus_proxmox::Vmid;
use nimbus_saga::{StepError, UndoError};
use nimbus_store::Tx;
use serde::{Deserialize, Serialize};

use crate::error::{MachineError, fault};
use crate::hypervisor::Spot;
use crate::machine::{MachineRow, store as machines};
use crate::service::{Inner, Provisioner};

/// What a saga knows from the start; everything else is in the machine's row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Params {
    pub(crate) machine: MachineId,
}

/// Starts the saga of an operation, in the transaction that writes the operation.
pub(crate) async fn begin(
    inner: &Inner,
    tx: &mut Tx,
    id: OperationId,
    kind: OperationKind,
    params: &Params,
) -> Result<(), MachineError> {
    let id = id.to_string();
    match kind {
        OperationKind::Provision => {
            inner
                .sagas
                .create::<provision::Provision<'_>>(tx, &id, params)
                .await
        }
        OperationKind::Delete => inner.sagas.create::<delete::Delete<'_>>(tx, &id, params).await,
        OperationKind::Start | OperationKind::Shutdown | OperationKind::Stop | OperationKind::Reboot => {
            inner.sagas.create::<power::Power<'_>>(tx, &id, params).await
        }
    }
    .map_err(saga_error)
}

pub(crate) fn saga_error(error: nimbus_saga::SagaError) -> MachineError {
    match error {
        nimbus_saga::SagaError::Store { source } => MachineError::Store(source),
        other => MachineError::Fault(nimbus_errors::Fault::of(&other)),
    }
}

/// JSON text of a value of ours.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<String, MachineError> {
    serde_json::to_string(value).map_err(|error| MachineError::Damaged {
        what: "a value to store",
        reason: error.to_string(),
    })
}

pub(crate) fn step_error(error: MachineError) -> StepError {
    if error.is_transient() {
        StepError::retry(fault(error))
    } else {
        StepError::give_up(fault(error))
    }
}

pub(crate) fn undo_error(error: MachineError) -> UndoError {
    UndoError { fault: fault(error) }
}

/// The row, which exists as long as the saga runs.
pub(crate) async fn row(provisioner: &Provisioner, machine: MachineId) -> Result<MachineRow, MachineError> {
    machines::find(&provisioner.inner().store, machine)
        .await?
        .ok_or(MachineError::NotFound(machine))
}

/// Where the machine's VM is; `None` before a place was chosen.
pub(crate) fn spot(row: &MachineRow) -> Result<Option<Spot>, MachineError> {
    let (Some(vmid), Some(node)) = (row.vmid()?, row.node.clone()) else {
        return Ok(None);
    };
    let vmid = Vmid::new(vmid).map_err(|error| MachineError::Damaged {
        what: "a machine's number",
        reason: error.to_string(),
    })?;
    Ok(Some(Spot { node, vmid }))
}

/// Where the machine's VM is, for steps that come after the choice.
pub(crate) fn placed(row: &MachineRow) -> Result<Spot, MachineError> {
    spot(row)?.ok_or_else(|| MachineError::Damaged {
        what: "a machine's place",
        reason: "it has none".into(),
    })
}
