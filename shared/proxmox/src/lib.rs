//! Typed client of the Proxmox VE API.
//!
//! One [`Client`] speaks to one cluster: it logs in with an API token, encodes every value the way
//! PVE splits it, reads numbers that are sometimes strings, and follows tasks to their end. Answers
//! that PVE expresses as a status 500 and a sentence become variants of [`ProxmoxError`] which a
//! caller can act on.
//!
//! ```text
//!  caller ── Client::clone_vm ──▶ POST …/clone ──▶ UPID
//!         ── Client::wait_task ─▶ GET  …/tasks/{upid}/status, on the UPID's node, until "stopped"
//! ```
//!
//! A GET is repeated when the connection breaks; anything that changes the cluster never is, except
//! where PVE says that nothing was started.

mod client;
mod config;
mod encode;
mod error;
mod lenient;
mod pace;
mod request;
mod tasks;
mod tls;
mod transport;
mod types;
mod upid;
mod vmid;

pub use client::Client;
pub use config::{ProxmoxConfig, TlsPolicy};
pub use encode::{encode_sshkeys, parse_ipconfig_ip, parse_lxc_net_ip};
pub use error::ProxmoxError;
pub use request::{CloneSpec, ConfigPatch, DownloadSpec, PowerOp, TaskFilter};
pub use tasks::TaskOutcome;
pub use types::{
    ClusterStatusEntry, ClusterVm, ExecStatus, GuestAddress, GuestInterface, GuestKind, GuestListEntry, Node,
    StorageContent, StorageResource, TaskListEntry, TaskLogLine, TaskStatus, Version, VmConfig, VmCurrent,
};
pub use upid::{ParseUpidError, Upid};
pub use vmid::{ParseVmidError, Vmid};
