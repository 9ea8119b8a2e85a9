//! How a VM in the cluster is known to be a machine of ours.
//!
//! Proxmox gives freed VM numbers to the next guest, so a number alone proves nothing. A machine's VM
//! carries the machine's id in its description (an HTML comment, invisible in Proxmox' pages) from the
//! moment it is cloned, and the same UUID as its SMBIOS uuid once it is configured. Both must match
//! before anything is done to it.

use nimbus_model::{MachineId, Os, Tier};

/// The tag on every VM that Nimbus made.
pub(crate) const TAG: &str = "nimbus";

/// What the description says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marker {
    pub(crate) machine: Option<MachineId>,
    pub(crate) tier: Option<Tier>,
    pub(crate) os: Option<Os>,
}

/// The marker as it is written.
pub(crate) fn write(machine: MachineId, tier: Tier, os: Os) -> String {
    format!("<!-- nimbus: machine={machine} tier={tier} os={os} -->")
}

/// Finds the marker in a description; `None` when there is none.
pub(crate) fn read(description: &str) -> Option<Marker> {
    let (_, rest) = description.split_once("<!-- nimbus:")?;
    let (body, _) = rest.split_once("-->")?;
    let mut marker = Marker::default();
    for (key, value) in body.split_whitespace().filter_map(|word| word.split_once('=')) {
        match key {
            "machine" => marker.machine = value.parse().ok(),
            "tier" => marker.tier = value.parse().ok(),
            "os" => marker.os = value.parse().ok(),
            _ => {}
        }
    }
    Some(marker)
}

/// The `uuid` of an `smbios1` property string.
pub(crate) fn smbios_uuid(smbios1: &str) -> Option<uuid::Uuid> {
    smbios1
        .split(',')
        .find_map(|part| part.strip_prefix("uuid="))
        .and_then(|text| text.parse().ok())
}

/// Whether a VM is this machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ours {
    /// Marker and uuid match.
    Yes,
    /// The marker matches and the VM has not been configured yet.
    Fresh,
    /// Somebody else's.
    No,
}

/// Compares a VM's configuration with a machine.
pub(crate) fn ours(
    machine: MachineId,
    description: Option<&str>,
    smbios1: Option<&str>,
    tagged: bool,
) -> Ours {
    if description.and_then(read).and_then(|marker| marker.machine) != Some(machine) {
        return Ours::No;
    }
    match smbios1.and_then(smbios_uuid) {
        Some(uuid) if uuid == machine.uuid() => Ours::Yes,
        _ if !tagged => Ours::Fresh,
        _ => Ours::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_read_back_whatever_stands_around_it() {
        let machine = MachineId::fresh();
        let text = format!("notes\n{}\n", write(machine, Tier::Large, Os::Ubuntu2404));
        assert_eq!(
            read(&text),
            Some(Marker {
                machine: Some(machine),
                tier: Some(Tier::Large),
                os: Some(Os::Ubuntu2404)
            })
        );
        assert_eq!(
            read("<!-- nimbus: tier=small os=debian-12 -->").unwrap().machine,
            None
        );
        assert_eq!(read("nimbus"), None);
    }

    #[test]
    fn both_marks_must_match_once_the_vm_is_configured() {
        let machine = MachineId::fresh();
        let text = write(machine, Tier::Small, Os::Debian12);
        let own = format!("uuid={}", machine.uuid());
        let other = format!("uuid={},manufacturer=x", MachineId::fresh().uuid());
        assert_eq!(ours(machine, Some(&text), Some(&own), true), Ours::Yes);
        assert_eq!(ours(machine, Some(&text), Some(&other), false), Ours::Fresh);
        assert_eq!(ours(machine, Some(&text), Some(&other), true), Ours::No);
        assert_eq!(ours(machine, None, Some(&own), true), Ours::No);
        assert_eq!(ours(MachineId::fresh(), Some(&text), Some(&own), true), Ours::No);
    }
}
