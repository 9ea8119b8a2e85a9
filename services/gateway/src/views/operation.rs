//! Operations: long work that one can watch.

use nimbus_proto::machine::{
    Operation, OperationKind, OperationState, PrivateKey, ProvisionResult, StepView as Step,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::At;
use crate::envelope::FaultView;

/// One long-running piece of work.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct OperationView {
    /// Its id, `op_…`.
    pub id: String,
    /// What it does.
    #[serde(rename = "type")]
    #[schema(examples("vm.provision"))]
    pub kind: &'static str,
    /// `queued`, `running`, `succeeded` or `failed`.
    pub state: &'static str,
    /// What it works on; always `vm`.
    pub target_type: &'static str,
    /// The machine, `vm_…`.
    pub target_id: String,
    /// The machine's name.
    pub target_label: String,
    /// Where it stands, for people.
    pub message: String,
    /// Its steps in order.
    pub steps: Vec<StepView>,
    /// What it gave, when it made a machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<OperationResultView>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<FaultView>,
    /// When it was asked for.
    pub created_at: At,
    /// When work on it began.
    pub started_at: Option<At>,
    /// When it ended.
    pub finished_at: Option<At>,
    /// The trace that tells where its time went.
    pub trace_id: Option<String>,
}

/// One step of an operation.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct StepView {
    /// Its stable name.
    #[schema(examples("clone_template"))]
    pub key: String,
    /// Its name for people.
    pub label: String,
    /// `pending`, `running`, `done`, `failed`, `undoing` or `undone`.
    pub state: &'static str,
    /// When it began.
    pub started_at: Option<At>,
    /// When it ended.
    pub finished_at: Option<At>,
    /// How long it took.
    pub duration_ms: Option<u64>,
}

impl From<Step> for StepView {
    fn from(step: Step) -> Self {
        let duration_ms = duration_ms(&step);
        Self {
            key: step.key,
            label: step.label,
            state: step.state.into(),
            started_at: step.started_at.map(At),
            finished_at: step.finished_at.map(At),
            duration_ms,
        }
    }
}

pub(crate) fn duration_ms(step: &Step) -> Option<u64> {
    let (begin, end) = (step.started_at?, step.finished_at?);
    u64::try_from(end.since(begin).as_millis()).ok()
}

/// What an operation that makes a machine gave. The private key is fetched once, on its own.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct OperationResultView {
    /// The machine, `vm_…`.
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
    /// What the key's file should be called, when the key was generated.
    pub key_name: Option<String>,
    /// Why it may not be reachable yet.
    pub warning: Option<String>,
    /// Why there is no public SSH endpoint.
    pub tunnel_error: Option<String>,
    /// Whether a private key waits to be fetched.
    pub has_private_key: bool,
}

impl From<ProvisionResult> for OperationResultView {
    fn from(result: ProvisionResult) -> Self {
        Self {
            id: result.machine.to_string(),
            vmid: result.vmid,
            hostname: result.hostname,
            ip: result.ip.to_string(),
            username: result.username,
            os: result.os.key(),
            tier: result.tier.key(),
            node: result.node,
            key_name: result.key_name,
            warning: result.warning,
            tunnel_error: result.tunnel_error,
            has_private_key: result.has_private_key,
        }
    }
}

impl From<Operation> for OperationView {
    fn from(operation: Operation) -> Self {
        let message = message(&operation);
        let id = operation.id.to_string();
        let failed_at = operation
            .finished_at
            .or(operation.started_at)
            .unwrap_or(operation.created_at);
        // Nobody's request failed here: the operation is what one looks for in the log.
        let fault = operation
            .fault
            .map(|fault| FaultView::of(&fault, id.clone(), failed_at));
        Self {
            id,
            kind: operation.kind.into(),
            state: operation.state.into(),
            target_type: "vm",
            target_id: operation.machine.to_string(),
            target_label: operation.hostname,
            message,
            steps: operation.steps.into_iter().map(StepView::from).collect(),
            result: operation.result.map(OperationResultView::from),
            fault,
            created_at: operation.created_at.into(),
            started_at: operation.started_at.map(At),
            finished_at: operation.finished_at.map(At),
            trace_id: operation.trace_id,
        }
    }
}

fn message(operation: &Operation) -> String {
    use nimbus_proto::machine::StepState;
    let current = |state: StepState| operation.steps.iter().find(|step| step.state == state);
    match operation.state {
        OperationState::Queued => "Waiting to begin".to_owned(),
        OperationState::Succeeded => match operation.kind {
            OperationKind::Provision => format!("{} is ready", operation.hostname),
            OperationKind::Delete => format!("{} is deleted", operation.hostname),
            OperationKind::Start => format!("{} is started", operation.hostname),
            OperationKind::Shutdown | OperationKind::Stop => format!("{} is stopped", operation.hostname),
            OperationKind::Reboot => format!("{} is restarted", operation.hostname),
        },
        OperationState::Failed => operation
            .fault
            .as_ref()
            .map_or_else(|| "Failed".to_owned(), |fault| fault.message.clone()),
        OperationState::Running => match (current(StepState::Undoing), current(StepState::Running)) {
            (Some(step), _) => format!("Taking back: {}", step.label),
            (None, Some(step)) => step.label.clone(),
            (None, None) => "Running".to_owned(),
        },
    }
}

/// The private half of a generated key.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct PrivateKeyView {
    /// What its file should be called.
    pub key_name: String,
    /// OpenSSH PEM.
    pub private_key: String,
}

impl From<PrivateKey> for PrivateKeyView {
    fn from(key: PrivateKey) -> Self {
        Self {
            key_name: key.key_name,
            private_key: key.private_key.reveal().to_owned(),
        }
    }
}
