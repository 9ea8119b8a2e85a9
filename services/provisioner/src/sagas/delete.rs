//! Deleting a machine. In the order VM, address, token, row, so that whatever fails can be tried again.

use std::time::Duration;

use async_trait::async_trait;
use nimbus_bus::Key;
use nimbus_model::MachineId;
use nimbus_proto::ippool::{self, ReleaseRequest};
use nimbus_proto::machine::PowerAction;
use nimbus_saga::{Outputs, Saga, StepError, UndoError};
use serde_json::Value;

use super::{row, spot, step_error};
use crate::error::MachineError;
use crate::hypervisor::Vm;
use crate::service::Provisioner;

/// The steps, in the order of work. Their names are stored and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::EnumString, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum Step {
    StopVm,
    DestroyVm,
    ReleaseIp,
    RemoveVm,
}

/// Deleting one machine.
pub(crate) struct Delete<'a> {
    pub(crate) provisioner: &'a Provisioner,
    pub(crate) machine: MachineId,
    pub(crate) vm: Vm<'a>,
}

#[async_trait]
impl Saga for Delete<'_> {
    const NAME: &'static str = "delete/1";
    type Step = Step;

    async fn act(&self, step: Step, _done: &Outputs) -> Result<Value, StepError> {
        let row = row(self.provisioner, self.machine).await.map_err(step_error)?;
        let place = spot(&row).map_err(step_error)?;
        let acted = match (step, place) {
            (Step::StopVm, Some(spot)) => match self.vm.power(&spot, PowerAction::Stop).await {
                // Gone already, or somebody else's by now: nothing of ours to stop.
                Ok(_) | Err(MachineError::Gone { .. } | MachineError::NotOurs { .. }) => Ok(()),
                Err(error) => Err(error),
            },
            (Step::DestroyVm, Some(spot)) => self.vm.destroy_ours(&spot).await,
            (Step::ReleaseIp, _) => {
                let request = ReleaseRequest {
                    machine: self.machine,
                };
                let bus = &self.provisioner.inner().bus;
                bus.call::<ippool::Release>(&request)
                    .key(Key::of(self.machine))
                    .await
                    .map_err(MachineError::Fault)
            }
            // Not before: a machine that could not be destroyed goes on, and so does its token. The row goes with
            // the event that says so.
            (Step::RemoveVm, _) => self
                .provisioner
                .forget_gpu(self.machine)
                .await
                .map_err(MachineError::Fault),
            (Step::StopVm | Step::DestroyVm, None) => Ok(()),
        };
        acted.map(|()| Value::Null).map_err(step_error)
    }

    async fn undo(&self, _step: Step, _done: &Outputs) -> Result<(), UndoError> {
        Ok(())
    }

    fn time_limit(&self, _step: Step) -> Duration {
        self.provisioner.inner().config.task_timeout * 2
    }
}
