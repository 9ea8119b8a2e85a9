//! `provisioner`: machines and the operations that make, change and delete them.

use std::net::Ipv4Addr;

use nimbus_errors::Fault;
use nimbus_model::{Hostname, MachineId, OperationId, Os, TenantId, Tier, Timestamp, UserId};
use serde::{Deserialize, Serialize};

use crate::auth::Secret;
use crate::{method, sample};

/// How the machine's owner gets in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyChoice {
    /// An OpenSSH public key line that the caller brings.
    Public(String),
    /// A fresh Ed25519 pair; the private half is handed out once.
    Generate,
}

/// Orders a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateRequest {
    /// Its name, unique in this installation.
    pub hostname: Hostname,
    /// Its size.
    pub tier: Tier,
    /// Its operating system.
    pub os: Os,
    /// How its owner gets in.
    pub key: KeyChoice,
    /// Whether a public SSH endpoint was asked for.
    pub public_tunnel: bool,
}

/// State of a machine.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum MachineStatus {
    /// Being made.
    Provisioning,
    /// Running.
    Running,
    /// Powered off.
    Stopped,
    /// Paused in Proxmox.
    Paused,
    /// Proxmox does not say.
    Unknown,
    /// Being deleted.
    Deleting,
    /// Something an operator has to look at.
    Failed,
}

/// One machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its id.
    pub id: MachineId,
    /// Whose it is.
    pub owner: UserId,
    /// In which tenant.
    pub tenant: TenantId,
    /// Its name.
    pub hostname: String,
    /// Its size.
    pub tier: Tier,
    /// Its operating system.
    pub os: Os,
    /// Its login user.
    pub username: String,
    /// Its state, with what Proxmox says laid over it.
    pub status: MachineStatus,
    /// Its number in Proxmox, once there is one.
    pub vmid: Option<u32>,
    /// Its address, once there is one.
    pub ip: Option<Ipv4Addr>,
    /// Its node, once chosen.
    pub node: Option<String>,
    /// Name of the key file in SSH commands, when the key was generated.
    pub key_name: Option<String>,
    /// The public key that was put into it.
    pub ssh_pubkey: String,
    /// Why the public SSH endpoint is not there.
    pub tunnel_error: Option<String>,
    /// A warning or the last failure.
    pub error_msg: Option<String>,
    /// The operation that is running on it.
    pub operation: Option<OperationId>,
    /// When it was ordered.
    pub created_at: Timestamp,
    /// When its row changed last.
    pub updated_at: Timestamp,
}

/// A page of the caller's machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListRequest {
    /// At most this many, 1 to 1000.
    pub limit: u32,
    /// Only those older than this one, which ended the page before.
    pub before: Option<MachineId>,
}

/// What to do with a machine's power.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum PowerAction {
    /// Power on; fine when it is on.
    Start,
    /// Ask the guest to power off; fine when it is off.
    Shutdown,
    /// Power off at once; fine when it is off.
    Stop,
    /// Ask the guest to restart; refused when it is off.
    Reboot,
}

/// A power action on one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerRequest {
    /// Which machine.
    pub machine: MachineId,
    /// What to do.
    pub action: PowerAction,
}

/// What an operation does.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
)]
pub enum OperationKind {
    /// Makes a machine.
    #[serde(rename = "vm.provision")]
    #[strum(serialize = "vm.provision")]
    Provision,
    /// Deletes a machine.
    #[serde(rename = "vm.delete")]
    #[strum(serialize = "vm.delete")]
    Delete,
    /// Powers on.
    #[serde(rename = "vm.start")]
    #[strum(serialize = "vm.start")]
    Start,
    /// Powers off by the guest.
    #[serde(rename = "vm.shutdown")]
    #[strum(serialize = "vm.shutdown")]
    Shutdown,
    /// Powers off.
    #[serde(rename = "vm.stop")]
    #[strum(serialize = "vm.stop")]
    Stop,
    /// Restarts by the guest.
    #[serde(rename = "vm.reboot")]
    #[strum(serialize = "vm.reboot")]
    Reboot,
}

/// State of an operation.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum OperationState {
    /// Nobody works on it yet.
    Queued,
    /// Being done, or being taken back.
    Running,
    /// Done.
    Succeeded,
    /// Not done, and taken back.
    Failed,
}

impl OperationState {
    /// Whether nothing will happen any more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// State of one step of an operation.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, strum::Display, strum::IntoStaticStr,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum StepState {
    /// Not begun.
    Pending,
    /// Being done.
    Running,
    /// Done.
    Done,
    /// Failed.
    Failed,
    /// Being taken back.
    Undoing,
    /// Taken back.
    Undone,
}

/// One step of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepView {
    /// Its stable name.
    pub key: String,
    /// Its name for people.
    pub label: String,
    /// Its state.
    pub state: StepState,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// What an operation that makes a machine gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvisionResult {
    /// The machine.
    pub machine: MachineId,
    /// Its number in Proxmox.
    pub vmid: u32,
    /// Its name.
    pub hostname: String,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its login user.
    pub username: String,
    /// Its operating system.
    pub os: Os,
    /// Its size.
    pub tier: Tier,
    /// Its node.
    pub node: String,
    /// Name of the key file, when the key was generated.
    pub key_name: Option<String>,
    /// Why it may not be reachable yet.
    pub warning: Option<String>,
    /// Why the public SSH endpoint is not there.
    pub tunnel_error: Option<String>,
    /// Whether a private key waits to be claimed.
    pub has_private_key: bool,
}

/// One long-running piece of work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// What it does.
    pub kind: OperationKind,
    /// How far it is.
    pub state: OperationState,
    /// Who asked for it.
    pub owner: UserId,
    /// On which machine.
    pub machine: MachineId,
    /// The machine's name.
    pub hostname: String,
    /// Its steps in order.
    pub steps: Vec<StepView>,
    /// What it gave, when it made a machine.
    pub result: Option<ProvisionResult>,
    /// Why it failed.
    pub fault: Option<Fault>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When work on it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// The trace that tells where its time went, 32 hexadecimal digits.
    pub trace_id: Option<String>,
}

/// The private half of a generated key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivateKey {
    /// What its file should be called.
    pub key_name: String,
    /// `OpenSSH` PEM.
    pub private_key: Secret,
}

/// A machine whose VM was found on another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migrated {
    /// The machine.
    pub machine: MachineId,
    /// Its number in Proxmox.
    pub vmid: u32,
    /// Its name.
    pub hostname: String,
    /// Where it was.
    pub from_node: String,
    /// Where it is.
    pub to_node: String,
}

/// A machine whose VM has another name in Proxmox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renamed {
    /// The machine.
    pub machine: MachineId,
    /// Its number in Proxmox.
    pub vmid: u32,
    /// The name it had.
    pub from_name: String,
    /// The name it has.
    pub to_name: String,
    /// Its node.
    pub node: String,
}

/// A machine whose VM was not found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// The machine.
    pub machine: MachineId,
    /// Its number in Proxmox.
    pub vmid: u32,
    /// Its name.
    pub hostname: String,
    /// Its node.
    pub node: String,
    /// How many times in a row.
    pub missed_cycles: u32,
}

/// What one reconcile of machines did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReconcileReport {
    /// Followed to another node.
    pub migrated: Vec<Migrated>,
    /// Followed to another name.
    pub renamed: Vec<Renamed>,
    /// Not found this time.
    pub missed: Vec<Missed>,
    /// Not found too often: the row is gone, the address free.
    pub deleted: Vec<Missed>,
    /// As the books say.
    pub no_ops: u32,
    /// When the cluster was looked at.
    pub snapshot_at: Timestamp,
}

fn machine() -> Machine {
    Machine {
        id: sample::machine(),
        owner: sample::user(),
        tenant: sample::tenant(),
        hostname: "web-1".into(),
        tier: Tier::Small,
        os: Os::Debian12,
        username: "debian".into(),
        status: MachineStatus::Running,
        vmid: Some(101),
        ip: Some(Ipv4Addr::new(10, 0, 0, 9)),
        node: Some("pve1".into()),
        key_name: None,
        ssh_pubkey: "ssh-ed25519 AAAA".into(),
        tunnel_error: None,
        error_msg: None,
        operation: None,
        created_at: sample::at(),
        updated_at: sample::at(),
    }
}

fn operation() -> Operation {
    Operation {
        id: sample::operation(),
        kind: OperationKind::Provision,
        state: OperationState::Succeeded,
        owner: sample::user(),
        machine: sample::machine(),
        hostname: "web-1".into(),
        steps: vec![StepView {
            key: "reserve_ip".into(),
            label: "Reserve address".into(),
            state: StepState::Done,
            started_at: Some(sample::at()),
            finished_at: Some(sample::at()),
        }],
        result: Some(ProvisionResult {
            machine: sample::machine(),
            vmid: 101,
            hostname: "web-1".into(),
            ip: Ipv4Addr::new(10, 0, 0, 9),
            username: "debian".into(),
            os: Os::Debian12,
            tier: Tier::Small,
            node: "pve1".into(),
            key_name: Some("nimbus-web-1".into()),
            warning: None,
            tunnel_error: None,
            has_private_key: true,
        }),
        fault: Some(Fault {
            code: "op.conflict".into(),
            message: "no".into(),
            detail: None,
            retryable: false,
        }),
        created_at: sample::at(),
        started_at: Some(sample::at()),
        finished_at: None,
        trace_id: Some("0af7651916cd43dd8448eb211c80319c".into()),
    }
}

fn create() -> CreateRequest {
    CreateRequest {
        hostname: "web-1".parse().unwrap_or_else(|_| unreachable!("a valid label")),
        tier: Tier::Small,
        os: Os::Debian12,
        key: KeyChoice::Generate,
        public_tunnel: false,
    }
}

method!(/// Orders a machine; the key makes a repeat give the same operation.
    Create = provisioner.create, 10000 ms, SameKey, User, CreateRequest => Operation, samples create() => operation());
method!(/// The caller's machines, newest first.
    List = provisioner.list, 5000 ms, Read, User, ListRequest => Vec<Machine>,
    samples ListRequest { limit: 100, before: Some(sample::machine()) } => vec![machine()]);
method!(/// One of the caller's machines.
    Get = provisioner.get, 5000 ms, Read, User, MachineId => Machine, samples sample::machine() => machine());
method!(/// Deletes one of the caller's machines; while it is being deleted, the same operation.
    Delete = provisioner.delete, 10000 ms, SameKey, User, MachineId => Operation, samples sample::machine() => operation());
method!(/// Powers one of the caller's machines.
    Power = provisioner.power, 10000 ms, SameKey, User, PowerRequest => Operation,
    samples PowerRequest { machine: sample::machine(), action: PowerAction::Reboot } => operation());
method!(/// One of the caller's operations.
    GetOperation = provisioner.get_operation, 5000 ms, Read, User, OperationId => Operation, samples sample::operation() => operation());
method!(/// The caller's operations, newest first, at most this many (1 to 500).
    ListOperations = provisioner.list_operations, 5000 ms, Read, User, u32 => Vec<Operation>, samples 50 => vec![operation()]);
method!(/// Hands out the private key that the operation generated, once.
    ClaimKey = provisioner.claim_key, 5000 ms, Never, User, OperationId => PrivateKey,
    samples sample::operation() => PrivateKey { key_name: "nimbus-web-1".into(), private_key: Secret::new("-----BEGIN OPENSSH PRIVATE KEY-----") });
method!(/// Compares the machines' rows with the cluster now.
    Reconcile = provisioner.reconcile, 60000 ms, SameKey, Admin, () => ReconcileReport,
    samples () => ReconcileReport {
        migrated: vec![Migrated { machine: sample::machine(), vmid: 101, hostname: "web-1".into(), from_node: "pve1".into(), to_node: "pve2".into() }],
        renamed: vec![Renamed { machine: sample::machine(), vmid: 101, from_name: "a".into(), to_name: "b".into(), node: "pve1".into() }],
        missed: vec![Missed { machine: sample::machine(), vmid: 101, hostname: "web-1".into(), node: "pve1".into(), missed_cycles: 1 }],
        deleted: vec![], no_ops: 4, snapshot_at: sample::at() });
