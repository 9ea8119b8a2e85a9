//! `ippool`: static addresses.

use std::net::Ipv4Addr;

use nimbus_model::{MachineId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{method, sample};

/// Reserves the lowest free address that no guest of the cluster holds.
///
/// Asking again for the same machine gives the same lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReserveRequest {
    /// For whom.
    pub machine: MachineId,
    /// Shown in the list of addresses.
    pub hostname: String,
}

/// Looks again at a reserved address after the machine's VM was told it.
///
/// Two installations that share a cluster can reserve the same address at the same moment: neither sees
/// the other's promise. Their VMs show it, so whoever looks after writing sees the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmRequest {
    /// Whose address.
    pub machine: MachineId,
    /// Shown in the list of addresses.
    pub hostname: String,
    /// The address that the VM was told.
    pub ip: Ipv4Addr,
    /// The machine's VM.
    pub vmid: u32,
}

/// A reserved address and what a guest needs beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The address.
    pub ip: Ipv4Addr,
    /// Length of the network's prefix, 1 to 32.
    pub prefix: u8,
    /// The network's gateway.
    pub gateway: Ipv4Addr,
}

/// Marks a reserved address as in use by a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocateRequest {
    /// Whose address.
    pub machine: MachineId,
    /// Which; `op.conflict` when it is not this machine's.
    pub ip: Ipv4Addr,
    /// The VM that uses it.
    pub vmid: u32,
}

/// Gives a machine's address back; nothing to give back is fine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRequest {
    /// Whose address.
    pub machine: MachineId,
}

/// State of an address.
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
pub enum AddressStatus {
    /// Nobody has it.
    Free,
    /// Promised to a machine that is being made.
    Reserved,
    /// In use.
    Allocated,
}

/// How Nimbus learnt that an address is in use.
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
pub enum AddressSource {
    /// Handed out by this pool.
    Local,
    /// Found on a guest of the cluster.
    Adopted,
    /// Found on a host that is not in the cluster.
    External,
}

/// One address of the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address.
    pub ip: Ipv4Addr,
    /// Its state.
    pub status: AddressStatus,
    /// How its use became known.
    pub source: AddressSource,
    /// The machine that holds it, when Nimbus handed it out.
    pub machine: Option<MachineId>,
    /// The VM that uses it.
    pub vmid: Option<u32>,
    /// The name of its user.
    pub hostname: Option<String>,
    /// Since when it is promised.
    pub reserved_at: Option<Timestamp>,
    /// Since when it is in use.
    pub allocated_at: Option<Timestamp>,
    /// When the cluster last showed it.
    pub last_seen_at: Option<Timestamp>,
    /// Reconciles in a row that did not find it in use.
    pub missed_cycles: u32,
    /// Whether it lies outside the pool's present range.
    pub stranded: bool,
}

/// How full the pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Addresses in the range.
    pub total: u32,
    /// Free ones.
    pub free: u32,
    /// Promised ones.
    pub reserved: u32,
    /// Used ones.
    pub allocated: u32,
}

/// An address that was found on a guest and taken into the pool's books.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// The address.
    pub ip: Ipv4Addr,
    /// The guest.
    pub vmid: u32,
    /// Its name.
    pub hostname: Option<String>,
    /// What the books said before.
    pub prior_status: AddressStatus,
}

/// An address that the books give to another guest than the one that holds it; left for a person to decide.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The address.
    pub ip: Ipv4Addr,
    /// Whom the books say.
    pub local_vmid: u32,
    /// Who holds it.
    pub proxmox_vmid: u32,
    /// On which node.
    pub node: String,
}

/// What one reconcile did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReconcileReport {
    /// Taken into the books.
    pub adopted: Vec<Adopted>,
    /// Left for a person.
    pub conflicts: Vec<Conflict>,
    /// Reservations that had expired.
    pub freed: Vec<Ipv4Addr>,
    /// Allocations whose guest is gone.
    pub vacated: Vec<Ipv4Addr>,
    /// Addresses that were as the books say.
    pub no_ops: u32,
    /// When the cluster was looked at.
    pub snapshot_at: Timestamp,
}

fn reserve() -> ReserveRequest {
    ReserveRequest {
        machine: sample::machine(),
        hostname: "web-1".into(),
    }
}

fn lease() -> Lease {
    Lease {
        ip: Ipv4Addr::new(10, 0, 0, 9),
        prefix: 24,
        gateway: Ipv4Addr::new(10, 0, 0, 1),
    }
}

fn address() -> Address {
    Address {
        ip: Ipv4Addr::new(10, 0, 0, 9),
        status: AddressStatus::Allocated,
        source: AddressSource::Local,
        machine: Some(sample::machine()),
        vmid: Some(101),
        hostname: Some("web-1".into()),
        reserved_at: Some(sample::at()),
        allocated_at: Some(sample::at()),
        last_seen_at: None,
        missed_cycles: 1,
        stranded: false,
    }
}

method!(/// Reserves the lowest free address.
    Reserve = ippool.reserve, 20000 ms, SameKey, Service, ReserveRequest => Lease, samples reserve() => lease());
method!(/// Looks again after the VM was told its address; another lease when another guest has it too.
    Confirm = ippool.confirm, 20000 ms, SameKey, Service, ConfirmRequest => Lease,
    samples ConfirmRequest { machine: sample::machine(), hostname: "web-1".into(), ip: Ipv4Addr::new(10, 0, 0, 9), vmid: 101 } => lease());
method!(/// Marks a reserved address as in use.
    Allocate = ippool.allocate, 5000 ms, SameKey, Service, AllocateRequest => (),
    samples AllocateRequest { machine: sample::machine(), ip: Ipv4Addr::new(10, 0, 0, 9), vmid: 101 } => ());
method!(/// Gives an address back.
    Release = ippool.release, 5000 ms, SameKey, Service, ReleaseRequest => (), samples ReleaseRequest { machine: sample::machine() } => ());
method!(/// Every address of the pool, in numeric order.
    List = ippool.list, 5000 ms, Read, Admin, () => Vec<Address>, samples () => vec![address()]);
method!(/// How full the pool is.
    Status = ippool.status, 3000 ms, Read, Service, () => PoolStatus, samples () => PoolStatus { total: 100, free: 97, reserved: 1, allocated: 2 });
method!(/// Compares the books with the cluster now.
    Reconcile = ippool.reconcile, 60000 ms, SameKey, Admin, () => ReconcileReport,
    samples () => ReconcileReport {
        adopted: vec![Adopted { ip: Ipv4Addr::new(10, 0, 0, 9), vmid: 101, hostname: None, prior_status: AddressStatus::Free }],
        conflicts: vec![Conflict { ip: Ipv4Addr::new(10, 0, 0, 8), local_vmid: 1, proxmox_vmid: 2, node: "pve1".into() }],
        freed: vec![Ipv4Addr::new(10, 0, 0, 7)], vacated: vec![], no_ops: 3, snapshot_at: sample::at() });
