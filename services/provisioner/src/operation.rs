//! An operation: what its owner sees of a saga.

pub(crate) mod store;

use nimbus_errors::Fault;
use nimbus_model::{MachineId, OperationId, Timestamp, UserId};
use nimbus_proto::machine::{Operation, OperationKind, OperationState, ProvisionResult, StepState, StepView};

use crate::error::MachineError;

/// A step's stable name and its name for people, in order.
type StepNames = &'static [(&'static str, &'static str)];

const PROVISION: StepNames = &[
    ("reserve_ip", "Reserve address"),
    ("pick_node", "Pick node"),
    ("clone_template", "Clone template"),
    ("configure_vm", "Configure cloud-init"),
    ("resize_disk", "Resize disk"),
    ("start_vm", "Start VM"),
    ("wait_guest_agent", "Wait for guest"),
    ("commit_ip", "Commit address"),
    ("prepare_gpu", "Prepare GPU access"),
    ("save_vm", "Finish"),
];
const DELETE: StepNames = &[
    ("stop_vm", "Stop VM"),
    ("destroy_vm", "Destroy VM"),
    ("release_ip", "Release address"),
    ("remove_vm", "Remove machine"),
];
const START: StepNames = &[("power_vm", "Start VM")];
const SHUTDOWN: StepNames = &[("power_vm", "Shut down VM")];
const STOP: StepNames = &[("power_vm", "Stop VM")];
const REBOOT: StepNames = &[("power_vm", "Reboot VM")];

fn names(kind: OperationKind) -> StepNames {
    match kind {
        OperationKind::Provision => PROVISION,
        OperationKind::Delete => DELETE,
        OperationKind::Start => START,
        OperationKind::Shutdown => SHUTDOWN,
        OperationKind::Stop => STOP,
        OperationKind::Reboot => REBOOT,
    }
}

/// The steps of an operation that has not begun.
pub(crate) fn steps(kind: OperationKind) -> Vec<StepView> {
    names(kind)
        .iter()
        .map(|(key, label)| StepView {
            key: (*key).to_owned(),
            label: (*label).to_owned(),
            state: StepState::Pending,
            started_at: None,
            finished_at: None,
        })
        .collect()
}

/// Brings one step into a state.
pub(crate) fn mark(steps: &mut [StepView], key: &str, state: StepState, at: Timestamp) {
    let Some(step) = steps.iter_mut().find(|step| step.key == key) else {
        return;
    };
    // The step that failed stays the one that failed, although it is taken back too: people look for it.
    if step.state == StepState::Failed && matches!(state, StepState::Undoing | StepState::Undone) {
        return;
    }
    // Going on with the undo of a step after a restart is no doing of it.
    if step.state == StepState::Undoing && state == StepState::Running {
        return;
    }
    match state {
        // A step that is tried again, or goes on after a restart, keeps its beginning.
        StepState::Running => {
            step.started_at.get_or_insert(at);
        }
        StepState::Done | StepState::Failed => step.finished_at = Some(at),
        StepState::Pending | StepState::Undoing | StepState::Undone => {}
    }
    step.state = state;
}

/// A row of `provisioner_operation`.
#[derive(Clone, Debug, sqlx_macros::FromRow)]
pub(crate) struct OperationRow {
    pub(crate) id: OperationId,
    pub(crate) kind: String,
    pub(crate) state: String,
    pub(crate) owner: UserId,
    pub(crate) machine: MachineId,
    pub(crate) hostname: String,
    pub(crate) steps: String,
    pub(crate) result: Option<String>,
    pub(crate) fault: Option<String>,
    pub(crate) key_name: Option<String>,
    pub(crate) private_key: Option<String>,
    pub(crate) created_at: Timestamp,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Option<Timestamp>,
    pub(crate) trace_parent: Option<String>,
}

fn json<T: serde::de::DeserializeOwned>(what: &'static str, text: &str) -> Result<T, MachineError> {
    serde_json::from_str(text).map_err(|error| MachineError::Damaged {
        what,
        reason: error.to_string(),
    })
}

impl OperationRow {
    pub(crate) fn kind(&self) -> Result<OperationKind, MachineError> {
        self.kind.parse().map_err(|_| MachineError::Damaged {
            what: "an operation's kind",
            reason: format!("{:?} is not known", self.kind),
        })
    }

    pub(crate) fn steps(&self) -> Result<Vec<StepView>, MachineError> {
        json("an operation's steps", &self.steps)
    }

    /// The row as it crosses the bus.
    pub(crate) fn view(&self) -> Result<Operation, MachineError> {
        let result: Option<ProvisionResult> = self
            .result
            .as_deref()
            .map(|text| json("an operation's result", text))
            .transpose()?;
        let fault: Option<Fault> = self
            .fault
            .as_deref()
            .map(|text| json("an operation's fault", text))
            .transpose()?;
        Ok(Operation {
            id: self.id,
            kind: self.kind()?,
            state: self
                .state
                .parse::<OperationState>()
                .map_err(|_| MachineError::Damaged {
                    what: "an operation's state",
                    reason: format!("{:?} is not known", self.state),
                })?,
            owner: self.owner,
            machine: self.machine,
            hostname: self.hostname.clone(),
            steps: self.steps()?,
            result: result.map(|result| ProvisionResult {
                has_private_key: self.private_key.is_some(),
                ..result
            }),
            fault,
            created_at: self.created_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
            trace_id: self
                .trace_parent
                .as_deref()
                .and_then(|parent| parent.split('-').nth(1))
                .map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_is_tried_again_keeps_its_beginning() {
        let mut list = steps(OperationKind::Provision);
        assert_eq!(list.len(), 10);
        let (first, later) = (Timestamp::from_micros(1), Timestamp::from_micros(5));
        mark(&mut list, "clone_template", StepState::Running, first);
        mark(&mut list, "clone_template", StepState::Running, later);
        mark(&mut list, "clone_template", StepState::Done, later);
        let step = list.iter().find(|step| step.key == "clone_template").unwrap();
        assert_eq!(
            (step.started_at, step.finished_at, step.state),
            (Some(first), Some(later), StepState::Done)
        );
    }
}
