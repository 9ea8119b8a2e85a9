//! What an address goes through.
//!
//! ```text
//! free ─reserve▶ reserved ─allocate▶ allocated ─release, vacate▶ free
//!                reserved ─renew▶ reserved      reserved ─expire, release▶ free
//! free, reserved ─adopt▶ allocated              allocated ─allocate, identify▶ allocated
//! ```
//!
//! [`on`] says which step is legal. The methods of [`Row`] make the new row; the store writes it only
//! where the row still has the version that was read.

use std::net::Ipv4Addr;

use nimbus_model::{MachineId, Timestamp};
use nimbus_proto::ippool::{Address, AddressSource, AddressStatus};

use crate::range::Range;
use crate::snapshot::Guest;

/// What can happen to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::VariantArray)]
pub(crate) enum Event {
    /// It is promised to a machine.
    Reserve,
    /// The machine it is promised to asks again.
    Renew,
    /// Its machine uses it.
    Allocate,
    /// A guest of the cluster was found with it.
    Adopt,
    /// The unknown host that was found with it turns out to be a guest of the cluster.
    Identify,
    /// Its machine gives it back.
    Release,
    /// The promise was not used in time.
    Expire,
    /// Nobody in the cluster has it any more.
    Vacate,
}

/// A step that an address cannot make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an address that is {from} cannot take {event:?}")]
pub(crate) struct IllegalTransition {
    from: AddressStatus,
    event: Event,
}

/// The state after `event`.
pub(crate) fn on(from: AddressStatus, event: Event) -> Result<AddressStatus, IllegalTransition> {
    use AddressStatus::{Allocated, Free, Reserved};
    Ok(match (from, event) {
        (Free, Event::Reserve) | (Reserved, Event::Renew) => Reserved,
        (Reserved | Allocated, Event::Allocate)
        | (Free | Reserved, Event::Adopt)
        | (Allocated, Event::Identify) => Allocated,
        (Reserved, Event::Expire) | (Allocated, Event::Vacate) | (Reserved | Allocated, Event::Release) => {
            Free
        }
        (from, event) => return Err(IllegalTransition { from, event }),
    })
}

/// One address with everything that is known about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) ip: Ipv4Addr,
    pub(crate) status: AddressStatus,
    pub(crate) source: AddressSource,
    pub(crate) machine: Option<MachineId>,
    pub(crate) vmid: Option<u32>,
    pub(crate) hostname: Option<String>,
    /// Where its guest was last seen.
    pub(crate) node: Option<String>,
    pub(crate) reserved_at: Option<Timestamp>,
    pub(crate) allocated_at: Option<Timestamp>,
    pub(crate) last_seen_at: Option<Timestamp>,
    pub(crate) missed_cycles: u32,
    pub(crate) version: i64,
}

impl Row {
    /// An address that nobody has.
    pub(crate) fn free(ip: Ipv4Addr, version: i64) -> Self {
        Self {
            ip,
            status: AddressStatus::Free,
            source: AddressSource::Local,
            machine: None,
            vmid: None,
            hostname: None,
            node: None,
            reserved_at: None,
            allocated_at: None,
            last_seen_at: None,
            missed_cycles: 0,
            version,
        }
    }

    pub(crate) fn ord(&self) -> i64 {
        i64::from(u32::from(self.ip))
    }

    /// Promised to `machine`, for the first time or again.
    pub(crate) fn reserve(
        &self,
        machine: MachineId,
        hostname: &str,
        now: Timestamp,
    ) -> Result<Self, IllegalTransition> {
        let event = if self.machine == Some(machine) {
            Event::Renew
        } else {
            Event::Reserve
        };
        Ok(Self {
            status: on(self.status, event)?,
            machine: Some(machine),
            hostname: Some(hostname.to_owned()),
            reserved_at: Some(now),
            ..self.clone()
        })
    }

    /// In use by the VM of its machine.
    pub(crate) fn allocate(
        &self,
        machine: MachineId,
        vmid: u32,
        now: Timestamp,
    ) -> Result<Self, IllegalTransition> {
        Ok(Self {
            status: on(self.status, Event::Allocate)?,
            source: AddressSource::Local,
            machine: Some(machine),
            vmid: Some(vmid),
            allocated_at: self.allocated_at.or(Some(now)),
            missed_cycles: 0,
            ..self.clone()
        })
    }

    /// In use by a guest that was found with it. A promise stays with its machine: the guest may be
    /// the machine's own VM, which [`Self::allocate`] will tell.
    pub(crate) fn adopt(&self, guest: &Guest, now: Timestamp) -> Result<Self, IllegalTransition> {
        let event = if self.status == AddressStatus::Allocated {
            Event::Identify
        } else {
            Event::Adopt
        };
        Ok(Self {
            status: on(self.status, event)?,
            source: AddressSource::Adopted,
            vmid: Some(guest.vmid),
            hostname: guest.name.clone().or_else(|| self.hostname.clone()),
            node: Some(guest.node.clone()),
            allocated_at: Some(now),
            last_seen_at: Some(now),
            missed_cycles: 0,
            ..self.clone()
        })
    }

    /// In use by a guest that is known not to be the machine's it was promised to.
    pub(crate) fn lose_to(&self, guest: &Guest, now: Timestamp) -> Result<Self, IllegalTransition> {
        Ok(Self {
            machine: None,
            hostname: guest.name.clone(),
            reserved_at: None,
            ..self.adopt(guest, now)?
        })
    }

    /// Nobody's, because of `event`. Nothing of its past is kept.
    pub(crate) fn give_back(&self, event: Event) -> Result<Self, IllegalTransition> {
        let status = on(self.status, event)?;
        Ok(Self {
            status,
            ..Self::free(self.ip, self.version)
        })
    }

    /// Found with its own guest.
    pub(crate) fn seen(&self, guest: &Guest, now: Timestamp) -> Self {
        Self {
            last_seen_at: Some(now),
            node: Some(guest.node.clone()),
            missed_cycles: 0,
            ..self.clone()
        }
    }

    /// How it is shown.
    pub(crate) fn view(&self, range: Option<Range>) -> Address {
        Address {
            ip: self.ip,
            status: self.status,
            source: self.source,
            machine: self.machine,
            vmid: self.vmid,
            hostname: self.hostname.clone(),
            reserved_at: self.reserved_at,
            allocated_at: self.allocated_at,
            last_seen_at: self.last_seen_at,
            missed_cycles: self.missed_cycles,
            stranded: !range.is_some_and(|range| range.contains(self.ip)),
        }
    }
}

#[cfg(test)]
mod tests {
    use strum::VariantArray;

    use super::*;

    #[test]
    fn all_pairs_of_state_and_event() {
        use AddressStatus::{Allocated, Free, Reserved};
        use Event::{Adopt, Allocate, Expire, Identify, Release, Renew, Reserve, Vacate};
        let legal = [
            (Free, Reserve, Reserved),
            (Free, Adopt, Allocated),
            (Reserved, Renew, Reserved),
            (Reserved, Allocate, Allocated),
            (Reserved, Adopt, Allocated),
            (Reserved, Release, Free),
            (Reserved, Expire, Free),
            (Allocated, Allocate, Allocated),
            (Allocated, Identify, Allocated),
            (Allocated, Release, Free),
            (Allocated, Vacate, Free),
        ];
        for from in AddressStatus::VARIANTS {
            for event in Event::VARIANTS {
                let wanted = legal
                    .iter()
                    .find(|(f, e, _)| f == from && e == event)
                    .map(|(_, _, to)| *to);
                assert_eq!(on(*from, *event).ok(), wanted, "{from} {event:?}");
            }
        }
    }

    #[test]
    fn giving_back_leaves_nothing_behind() {
        let now = Timestamp::from_micros(7);
        let free = Row::free(Ipv4Addr::new(10, 0, 0, 9), 4);
        let guest = Guest {
            vmid: 101,
            name: Some("found".into()),
            node: "pve1".into(),
        };
        let machine = MachineId::fresh();
        let used = free
            .reserve(machine, "web", now)
            .unwrap()
            .adopt(&guest, now)
            .unwrap();
        assert_eq!(used.machine, Some(machine));
        let used = used.allocate(machine, 101, now).unwrap();
        assert_eq!((used.source, used.vmid), (AddressSource::Local, Some(101)));
        assert_eq!(used.give_back(Event::Release).unwrap(), free);
    }

    #[test]
    fn an_address_lost_to_a_stranger_forgets_its_machine() {
        let now = Timestamp::from_micros(7);
        let guest = Guest {
            vmid: 101,
            name: None,
            node: "pve1".into(),
        };
        let row = Row::free(Ipv4Addr::new(10, 0, 0, 9), 0)
            .reserve(MachineId::fresh(), "web", now)
            .unwrap();
        let lost = row.lose_to(&guest, now).unwrap();
        assert_eq!(
            (lost.machine, lost.hostname, lost.reserved_at),
            (None, None, None)
        );
        assert_eq!(
            (lost.status, lost.source, lost.vmid),
            (AddressStatus::Allocated, AddressSource::Adopted, Some(101))
        );
    }
}
