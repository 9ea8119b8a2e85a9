//! A machine's row and its state.
//!
//! ```text
//! (order) ─▶ provisioning ─built─▶ running ⇄ stopped ⇄ paused ⇄ unknown      what Proxmox says, when nothing runs on it
//!                 │                    └──────── delete ────────▶ deleting ─gone─▶ (no row)
//!                 ├─taken back─▶ (no row)                             └─refused─▶ failed ─delete─▶ deleting
//!                 └─taking back fails─▶ failed ─taken back later─▶ (no row)
//! ```

pub(crate) mod store;

use std::net::Ipv4Addr;

use nimbus_model::{MachineId, OperationId, TenantId, Timestamp, UserId};
use nimbus_proto::machine::{Machine, MachineStatus};

use crate::error::MachineError;

/// What happens to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The order was carried out.
    Built,
    /// Proxmox shows this state.
    Seen(MachineStatus),
    /// Its owner deletes it.
    Delete,
    /// The deletion could not be carried out.
    DeleteFailed,
}

/// A state in which this cannot happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Illegal;

/// The state after an event.
pub(crate) fn on(state: MachineStatus, event: Event) -> Result<MachineStatus, Illegal> {
    use MachineStatus::{Deleting, Failed, Paused, Provisioning, Running, Stopped, Unknown};
    Ok(match (state, event) {
        (Provisioning, Event::Built) => Running,
        (
            Running | Stopped | Paused | Unknown,
            Event::Seen(seen @ (Running | Stopped | Paused | Unknown)),
        ) => seen,
        (Running | Stopped | Paused | Unknown | Failed | Deleting, Event::Delete) => Deleting,
        (Deleting, Event::DeleteFailed) => Failed,
        _ => return Err(Illegal),
    })
}

/// What Proxmox' word for a guest's state means.
pub(crate) fn seen(status: &str) -> MachineStatus {
    match status {
        "running" => MachineStatus::Running,
        "stopped" => MachineStatus::Stopped,
        "paused" | "suspended" | "prelaunch" => MachineStatus::Paused,
        _ => MachineStatus::Unknown,
    }
}

/// A row of `provisioner_machine`.
#[derive(Clone, Debug, sqlx_macros::FromRow)]
pub(crate) struct MachineRow {
    pub(crate) id: MachineId,
    pub(crate) owner: UserId,
    pub(crate) tenant: TenantId,
    pub(crate) hostname: String,
    pub(crate) tier: String,
    pub(crate) os: String,
    pub(crate) status: String,
    pub(crate) vmid: Option<i64>,
    pub(crate) ip: Option<String>,
    pub(crate) node: Option<String>,
    pub(crate) key_name: Option<String>,
    pub(crate) ssh_pubkey: String,
    pub(crate) tunnel_error: Option<String>,
    pub(crate) error_msg: Option<String>,
    pub(crate) operation: Option<OperationId>,
    pub(crate) missed_cycles: i64,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
}

fn read<T: std::str::FromStr>(what: &'static str, text: &str) -> Result<T, MachineError> {
    text.parse().map_err(|_| MachineError::Damaged {
        what,
        reason: format!("{text:?} is not known"),
    })
}

impl MachineRow {
    /// The row as it crosses the bus, with the number of reconciles that missed it.
    pub(crate) fn view(&self) -> Result<Machine, MachineError> {
        let os: nimbus_model::Os = read("a machine's os", &self.os)?;
        let status = self.status()?;
        Ok(Machine {
            id: self.id,
            owner: self.owner,
            tenant: self.tenant,
            hostname: self.hostname.clone(),
            tier: read("a machine's tier", &self.tier)?,
            os,
            username: os.user().to_owned(),
            status,
            vmid: self.vmid()?,
            ip: self
                .ip
                .as_deref()
                .map(|ip| read::<Ipv4Addr>("a machine's address", ip))
                .transpose()?,
            node: self.node.clone(),
            key_name: self.key_name.clone(),
            ssh_pubkey: self.ssh_pubkey.clone(),
            tunnel_error: self.tunnel_error.clone(),
            error_msg: self.error_msg.clone(),
            // The one that made a failed machine may still be taking it back; for the owner it has ended.
            operation: self.operation.filter(|_| status != MachineStatus::Failed),
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }

    pub(crate) fn status(&self) -> Result<MachineStatus, MachineError> {
        read("a machine's status", &self.status)
    }

    pub(crate) fn vmid(&self) -> Result<Option<u32>, MachineError> {
        self.vmid
            .map(|vmid| {
                u32::try_from(vmid).map_err(|_| MachineError::Damaged {
                    what: "a machine's number",
                    reason: format!("{vmid} is out of range"),
                })
            })
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use strum::VariantArray;

    use super::*;

    #[test]
    fn every_pair_of_state_and_event_is_decided() {
        use MachineStatus::*;
        let mut allowed = Vec::new();
        for state in MachineStatus::VARIANTS {
            for event in [
                Event::Built,
                Event::Seen(Running),
                Event::Seen(Deleting),
                Event::Delete,
                Event::DeleteFailed,
            ] {
                if let Ok(next) = on(*state, event) {
                    allowed.push((*state, event, next));
                }
            }
        }
        assert_eq!(
            allowed,
            [
                (Provisioning, Event::Built, Running),
                (Running, Event::Seen(Running), Running),
                (Running, Event::Delete, Deleting),
                (Stopped, Event::Seen(Running), Running),
                (Stopped, Event::Delete, Deleting),
                (Paused, Event::Seen(Running), Running),
                (Paused, Event::Delete, Deleting),
                (Unknown, Event::Seen(Running), Running),
                (Unknown, Event::Delete, Deleting),
                (Deleting, Event::Delete, Deleting),
                (Deleting, Event::DeleteFailed, Failed),
                (Failed, Event::Delete, Deleting),
            ]
        );
    }

    #[test]
    fn words_of_proxmox_are_understood_and_others_are_unknown() {
        assert_eq!(seen("running"), MachineStatus::Running);
        assert_eq!(seen("prelaunch"), MachineStatus::Paused);
        assert_eq!(seen("???"), MachineStatus::Unknown);
    }
}
