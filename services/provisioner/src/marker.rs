//! How a VM in the cluster is known to be a machine of ours.
//!
//! Proxmox gives freed VM numbers to the next guest, so a number alone proves nothing. A machine's VM
//! carries the machine's id in its description (an HTML comment, invisible in Proxmox' pages) from the
//! moment it is cloned, with the word `fresh`; once it is configured that word is gone, and the VM has
//! the tag and the machine's UUID as its SMBIOS uuid.
//!
//! | description | uuid | |
//! |---|---|---|
//! | this machine, `fresh` | any | ours, half made: a clone gets a new uuid |
//! | this machine | the machine's | ours |
//! | notes without a marker, but the tag | the machine's | ours: somebody tidied the notes |
//! | this machine | another | a copy that somebody made of our VM: not ours |
//! | anything else | | not ours |

use nimbus_model::{MachineId, Os, Tier};

/// The tag on every VM that Nimbus made.
pub(crate) const TAG: &str = "nimbus";

/// What the description says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marker {
    pub(crate) machine: Option<MachineId>,
    pub(crate) tier: Option<Tier>,
    pub(crate) os: Option<Os>,
    /// Whether the VM was cloned and not configured yet.
    pub(crate) fresh: bool,
}

/// The marker as it is written.
pub(crate) fn write(machine: MachineId, tier: Tier, os: Os) -> String {
    format!("<!-- nimbus: machine={machine} tier={tier} os={os} -->")
}

/// The marker of a clone that is not configured yet.
pub(crate) fn write_fresh(machine: MachineId, tier: Tier, os: Os) -> String {
    format!("<!-- nimbus: machine={machine} tier={tier} os={os} fresh -->")
}

/// Finds the marker in a description; `None` when there is none.
pub(crate) fn read(description: &str) -> Option<Marker> {
    let (_, rest) = description.split_once("<!-- nimbus:")?;
    let (body, _) = rest.split_once("-->")?;
    let mut marker = Marker::default();
    for word in body.split_whitespace() {
        match word.split_once('=') {
            Some(("machine", value)) => marker.machine = value.parse().ok(),
            Some(("tier", value)) => marker.tier = value.parse().ok(),
            Some(("os", value)) => marker.os = value.parse().ok(),
            None if word == "fresh" => marker.fresh = true,
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
    let marker = description.and_then(read).unwrap_or_default();
    let uuid = smbios1.and_then(smbios_uuid) == Some(machine.uuid());
    match marker.machine {
        Some(named) if named != machine => Ours::No,
        Some(_) if uuid => Ours::Yes,
        // A template may carry our tag, and its clones with it; a clone without the tag is one that an
        // earlier version made.
        Some(_) if marker.fresh || !tagged => Ours::Fresh,
        None if uuid && tagged => Ours::Yes,
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
                os: Some(Os::Ubuntu2404),
                fresh: false,
            })
        );
        assert_eq!(
            read("<!-- nimbus: tier=small os=debian-12 -->").unwrap().machine,
            None
        );
        assert_eq!(read("nimbus"), None);
    }

    #[test]
    fn the_table_is_followed() {
        let machine = MachineId::fresh();
        let text = write(machine, Tier::Small, Os::Debian12);
        let fresh = write_fresh(machine, Tier::Small, Os::Debian12);
        let foreign = write(MachineId::fresh(), Tier::Small, Os::Debian12);
        let own = format!("uuid={}", machine.uuid());
        let other = format!("uuid={},manufacturer=x", MachineId::fresh().uuid());
        for (description, smbios1, tagged, want) in [
            (Some(&text), Some(&own), true, Ours::Yes),
            (Some(&fresh), Some(&other), false, Ours::Fresh),
            (Some(&fresh), Some(&other), true, Ours::Fresh),
            (Some(&fresh), None, true, Ours::Fresh),
            (Some(&text), Some(&other), false, Ours::Fresh),
            (Some(&text), Some(&other), true, Ours::No),
            (Some(&text), None, true, Ours::No),
            (None, Some(&own), true, Ours::Yes),
            (None, Some(&own), false, Ours::No),
            (None, None, true, Ours::No),
            (Some(&foreign), Some(&own), true, Ours::No),
        ] {
            let said = ours(
                machine,
                description.map(String::as_str),
                smbios1.map(String::as_str),
                tagged,
            );
            assert_eq!(said, want, "{description:?} {smbios1:?} {tagged}");
        }
    }
}
