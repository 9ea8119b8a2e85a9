//! The options of a virtual machine: which there are, and how PVE stores and shows them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::error::ApiError;
use crate::formats;
use crate::params::{Kind, Param, Params, family, opt};
use crate::world::World;

const OS_TYPES: &[&str] = &[
    "other", "wxp", "w2k", "w2k3", "w2k8", "wvista", "win7", "win8", "win10", "win11", "l24", "l26",
    "solaris",
];
const SCSI_CONTROLLERS: &[&str] = &[
    "lsi",
    "lsi53c810",
    "virtio-scsi-pci",
    "virtio-scsi-single",
    "megasas",
    "pvscsi",
];
const LOCKS: &[&str] = &[
    "backup",
    "clone",
    "create",
    "migrate",
    "rollback",
    "snapshot",
    "snapshot-delete",
    "suspending",
    "suspended",
];

/// Options of the `config` and `create` calls.
pub(crate) const OPTIONS: &[Param] = &[
    opt("acpi", Kind::Flag),
    opt("affinity", Kind::Text),
    opt("agent", Kind::Format(formats::agent)),
    opt("arch", Kind::OneOf(&["x86_64", "aarch64"])),
    opt("args", Kind::Text),
    opt("audio0", Kind::Text),
    opt("autostart", Kind::Flag),
    opt("balloon", Kind::Int(0, i64::MAX)),
    opt("bios", Kind::OneOf(&["seabios", "ovmf"])),
    opt("boot", Kind::Format(formats::boot)),
    opt("bootdisk", Kind::Text),
    opt("cdrom", Kind::Format(formats::drive)),
    opt("cicustom", Kind::Text),
    opt("cipassword", Kind::Text),
    opt("citype", Kind::OneOf(&["configdrive2", "nocloud", "opennebula"])),
    opt("ciupgrade", Kind::Flag),
    opt("ciuser", Kind::Text),
    opt("cores", Kind::Int(1, 8192)),
    opt("cpu", Kind::Text),
    opt("cpulimit", Kind::Number(0.0, 128.0)),
    opt("cpuunits", Kind::Int(1, 262_144)),
    opt("description", Kind::Text).max_len(8192),
    opt("efidisk0", Kind::Format(formats::drive)),
    opt("freeze", Kind::Flag),
    opt("hookscript", Kind::Text),
    family("hostpci", 16, Kind::Text),
    opt("hotplug", Kind::Text),
    opt("hugepages", Kind::OneOf(&["any", "2", "1024"])),
    family("ide", 4, Kind::Format(formats::drive)),
    family("ipconfig", 32, Kind::Format(formats::ipconfig)),
    opt("ivshmem", Kind::Text),
    opt("keephugepages", Kind::Flag),
    opt("keyboard", Kind::Text),
    opt("kvm", Kind::Flag),
    opt("localtime", Kind::Flag),
    opt("lock", Kind::OneOf(LOCKS)),
    opt("machine", Kind::Text).max_len(40),
    opt("memory", Kind::Format(formats::memory)),
    opt("migrate_downtime", Kind::Number(0.0, f64::MAX)),
    opt("migrate_speed", Kind::Int(0, i64::MAX)),
    opt("name", Kind::Format(formats::dns_name)),
    opt("nameserver", Kind::Format(formats::address_list)),
    family("net", 32, Kind::Format(formats::network_device)),
    opt("numa", Kind::Flag),
    family("numa", 8, Kind::Text),
    opt("onboot", Kind::Flag),
    opt("ostype", Kind::OneOf(OS_TYPES)),
    family("parallel", 3, Kind::Text),
    opt("protection", Kind::Flag),
    opt("reboot", Kind::Flag),
    opt("rng0", Kind::Text),
    family("sata", 6, Kind::Format(formats::drive)),
    family("scsi", 31, Kind::Format(formats::drive)),
    opt("scsihw", Kind::OneOf(SCSI_CONTROLLERS)),
    opt("searchdomain", Kind::Text),
    family("serial", 4, Kind::Format(formats::serial)),
    opt("shares", Kind::Int(0, 50_000)),
    opt("smbios1", Kind::Text).max_len(512),
    opt("sockets", Kind::Int(1, 64)),
    opt("spice_enhancements", Kind::Text),
    opt("sshkeys", Kind::Format(formats::urlencoded)),
    opt("startdate", Kind::Text),
    opt("startup", Kind::Text),
    opt("tablet", Kind::Flag),
    opt("tags", Kind::Format(formats::tags)),
    opt("tdf", Kind::Flag),
    opt("template", Kind::Flag),
    opt("tpmstate0", Kind::Format(formats::drive)),
    family("unused", 256, Kind::Text),
    family("usb", 14, Kind::Text),
    opt("vcpus", Kind::Int(1, 8192)),
    opt("vga", Kind::Text),
    family("virtio", 16, Kind::Format(formats::drive)),
    opt("vmgenid", Kind::Text),
    opt("vmstatestorage", Kind::Format(formats::storage)),
    opt("watchdog", Kind::Text),
];

/// Options PVE shows as numbers; `memory` is a text since 8.0.8.
const NUMBERS: &[&str] = &[
    "acpi",
    "autostart",
    "balloon",
    "ciupgrade",
    "cores",
    "cpuunits",
    "freeze",
    "keephugepages",
    "kvm",
    "localtime",
    "numa",
    "onboot",
    "protection",
    "reboot",
    "shares",
    "sockets",
    "tablet",
    "tdf",
    "template",
    "vcpus",
];

/// Options that act on a running machine at once; the others wait for its next start.
const IMMEDIATE: &[&str] = &[
    "name",
    "description",
    "tags",
    "onboot",
    "protection",
    "startup",
    "hookscript",
    "autostart",
];

const DISKS: &[(&str, u16)] = &[("ide", 4), ("sata", 6), ("scsi", 31), ("virtio", 16)];

pub(crate) fn is_option(name: &str) -> bool {
    OPTIONS.iter().any(|option| option.is(name))
}

pub(crate) fn is_immediate(name: &str) -> bool {
    IMMEDIATE.contains(&name)
}

/// Whether a name is a drive's slot.
pub(crate) fn is_drive(name: &str) -> bool {
    matches!(name, "efidisk0" | "tpmstate0")
        || DISKS
            .iter()
            .any(|(bus, count)| family(bus, *count, Kind::Text).is(name))
}

fn is_net(name: &str) -> bool {
    family("net", 32, Kind::Text).is(name)
}

/// An option as the API shows it.
pub(crate) fn shown(name: &str, value: &str) -> Value {
    if name == "cipassword" {
        return json!("**********");
    }
    match value.parse::<i64>() {
        Ok(number) if NUMBERS.contains(&name) => json!(number),
        _ => json!(value),
    }
}

/// What a call wants changed, checked and in the form it will be stored.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    pub(crate) set: BTreeMap<String, String>,
    pub(crate) delete: Vec<String>,
}

/// Reads the options of a `config` or `create` call: everything PVE refuses before it starts a worker.
pub(crate) fn change(params: Params, world: &mut World) -> Result<Change, ApiError> {
    let mut set = params.into_values();
    let mut delete = Vec::new();
    for name in set
        .remove("delete")
        .unwrap_or_default()
        .split([',', ';', ' '])
        .filter(|name| !name.is_empty())
    {
        if !is_option(name) {
            return Err(ApiError::parameter("delete", format!("unknown option '{name}'")));
        }
        if set.contains_key(name) {
            return Err(ApiError::parameter(
                "delete",
                format!("you can't use '-{name}' and -delete {name}' at the same time"),
            ));
        }
        delete.push(name.to_owned());
    }
    for (name, value) in &mut set {
        if name == "tags" {
            *value = formats::normal_tags(value).map_err(|e| ApiError::parameter("tags", e))?;
        } else if name == "sshkeys" {
            let keys = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
            if !formats::ssh_keys(&keys) {
                return Err(ApiError::died("SSH public key validation error"));
            }
        } else if name == "description" {
            value.push('\n');
        } else if name == "cipassword" {
            // PVE keeps a hash; nobody ever reads the password again.
            *value = "$5$".to_owned();
        } else if is_net(name) {
            *value = with_mac(value, world);
        } else if is_drive(name) {
            check_drive(name, value, world)?;
        }
    }
    Ok(Change { set, delete })
}

/// Puts the model and its address first, as PVE does, and makes an address if there is none.
fn with_mac(value: &str, world: &mut World) -> String {
    let parts = formats::props(value, "model");
    let explicit = parts
        .iter()
        .find(|(key, _)| *key == "macaddr")
        .map(|(_, mac)| (*mac).to_owned());
    let mut rest = String::new();
    let (mut model, mut mac) = (String::from("virtio"), None);
    for (key, text) in parts {
        match key {
            "model" => text.clone_into(&mut model),
            "macaddr" => {}
            _ if formats::is_mac(text) => {
                key.clone_into(&mut model);
                mac = Some(text.to_uppercase());
            }
            _ => rest.push_str(&format!(",{key}={text}")),
        }
    }
    let mac = mac.or(explicit).unwrap_or_else(|| world.new_mac());
    format!("{model}={mac}{rest}")
}

fn check_drive(name: &str, value: &str, world: &World) -> Result<(), ApiError> {
    let file = formats::prop(value, "file")
        .or_else(|| value.split(',').next())
        .unwrap_or_default();
    if file.starts_with('/') || formats::prop(value, "import-from").is_some_and(|from| from.starts_with('/'))
    {
        return Err(ApiError::died("Only root can pass arbitrary filesystem paths."));
    }
    let Some((storage, volume)) = file.split_once(':') else {
        return Ok(());
    };
    let Some(content) = world.storage_content(storage) else {
        return Err(ApiError::died(format!("storage '{storage}' does not exist")));
    };
    let makes_image = volume == "cloudinit" || volume.bytes().all(|b| b.is_ascii_digit());
    if makes_image && !content.contains("images") {
        return Err(ApiError::parameter(
            "storage",
            format!("storage '{storage}' does not support vm images"),
        ));
    }
    if let Some(from) = formats::prop(value, "import-from") {
        let kind = from.split_once(':').map(|(_, volume)| volume);
        if kind.is_some_and(|volume| volume.starts_with("iso/")) {
            let text = format!("{from} has wrong type 'iso' - needs to be 'images' or 'import'");
            return Err(ApiError::parameter(name, text));
        }
        if world.volume_size(from).is_none() {
            return Err(ApiError::died(format!("volume '{from}' does not exist")));
        }
    }
    Ok(())
}
