//! Powering a machine: one step.

use std::time::Duration;

use async_trait::async_trait;
use nimbus_model::MachineId;
use nimbus_proto::machine::PowerAction;
use nimbus_saga::{Outputs, Saga, StepError, UndoError};
use serde_json::Value;

use super::{placed, row, step_error};
use crate::error::MachineError;
use crate::hypervisor::Vm;
use crate::machine::store as machines;
use crate::service::Provisioner;

/// The only step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::EnumString, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum Step {
    PowerVm,
}

/// Powering one machine.
pub(crate) struct Power<'a> {
    pub(crate) provisioner: &'a Provisioner,
    pub(crate) machine: MachineId,
    pub(crate) action: PowerAction,
    pub(crate) vm: Vm<'a>,
}

#[async_trait]
impl Saga for Power<'_> {
    const NAME: &'static str = "power/1";
    type Step = Step;

    async fn act(&self, _step: Step, _done: &Outputs) -> Result<Value, StepError> {
        let row = row(self.provisioner, self.machine).await.map_err(step_error)?;
        let spot = placed(&row).map_err(step_error)?;
        let now = self.vm.power(&spot, self.action).await.map_err(step_error)?;
        if now != spot {
            self.follow(now.node).await.map_err(step_error)?;
        }
        Ok(Value::Null)
    }

    async fn undo(&self, _step: Step, _done: &Outputs) -> Result<(), UndoError> {
        Ok(())
    }

    fn time_limit(&self, _step: Step) -> Duration {
        self.provisioner.inner().config.task_timeout + Duration::from_secs(60)
    }
}

impl Power<'_> {
    /// Records that the VM was found on another node.
    async fn follow(&self, node: String) -> Result<(), MachineError> {
        let inner = self.provisioner.inner();
        let (machine, at) = (self.machine, inner.clock.now());
        inner
            .store
            .write(move |tx| {
                Box::pin(async move {
                    machines::set_node(tx, machine, &node, at)
                        .await
                        .map_err(MachineError::from)
                })
            })
            .await
    }
}
