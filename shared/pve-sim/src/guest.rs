//! A virtual machine or container.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::formats;
use crate::options::{Change, is_drive, is_immediate, shown};

/// Machine or container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestKind {
    /// A virtual machine.
    Qemu,
    /// A container.
    Lxc,
}

impl GuestKind {
    /// The word of the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Lxc => "lxc",
        }
    }
}

/// What there is only while a guest is on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Boot {
    pub(crate) since: u64,
    pub(crate) pid: u32,
    /// When the agent answers; `None` if it never will.
    pub(crate) agent_at: Option<u64>,
    /// When the interface has its address.
    pub(crate) address_at: u64,
    /// From the options at the time of the start, address and prefix.
    pub(crate) addresses: Vec<(String, u8)>,
    pub(crate) paused: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Guest {
    pub(crate) vmid: u32,
    pub(crate) kind: GuestKind,
    pub(crate) node: String,
    pub(crate) config: BTreeMap<String, String>,
    /// Changes that wait for the next start; `None` deletes.
    pub(crate) pending: BTreeMap<String, Option<String>>,
    pub(crate) boot: Option<Boot>,
    pub(crate) created: u64,
    /// A worker holds the lock of the config file until then.
    pub(crate) busy_until: u64,
    /// Made through the control endpoint or there from the start.
    pub(crate) foreign: bool,
}

impl Guest {
    pub(crate) fn option(&self, name: &str) -> Option<&str> {
        self.config.get(name).map(String::as_str)
    }

    pub(crate) fn name(&self) -> &str {
        let key = if self.kind == GuestKind::Qemu {
            "name"
        } else {
            "hostname"
        };
        self.option(key).unwrap_or_default()
    }

    pub(crate) fn is_template(&self) -> bool {
        self.option("template") == Some("1")
    }

    pub(crate) fn lock(&self) -> Option<&str> {
        self.option("lock")
    }

    pub(crate) fn status(&self) -> &'static str {
        if self.boot.is_some() { "running" } else { "stopped" }
    }

    pub(crate) fn cpus(&self) -> u64 {
        let number = |name: &str| {
            self.option(name)
                .and_then(|text| text.parse::<u64>().ok())
                .unwrap_or(1)
        };
        number("cores") * number("sockets")
    }

    /// Bytes.
    pub(crate) fn memory(&self) -> u64 {
        let text = self.option("memory").unwrap_or("512");
        text.strip_prefix("current=")
            .unwrap_or(text)
            .parse::<u64>()
            .unwrap_or(512)
            .min(MAX_MEMORY)
            << 20
    }

    /// Slots with a volume on a storage, and its bytes.
    pub(crate) fn disks(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        self.config
            .iter()
            .filter(|(name, _)| is_drive(name) || *name == "rootfs" || name.starts_with("unused"))
            .filter_map(|(name, value)| {
                let volume = value.split(',').next()?;
                let size = formats::prop(value, "size")
                    .and_then(formats::parse_size)
                    .unwrap_or(0);
                volume.contains(':').then_some((name.as_str(), volume, size))
            })
    }

    /// Bytes of the first disk.
    pub(crate) fn boot_disk(&self) -> u64 {
        ["scsi0", "virtio0", "sata0", "ide0", "rootfs"]
            .iter()
            .find_map(|slot| formats::prop(self.option(slot)?, "size").and_then(formats::parse_size))
            .unwrap_or(0)
    }

    /// Changes with every change of the options.
    pub(crate) fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for (name, value) in &self.config {
            hash.update(name);
            hash.update([0]);
            hash.update(value);
            hash.update([0]);
        }
        for (name, value) in &self.pending {
            hash.update(name);
            hash.update(value.as_deref().unwrap_or("\u{1}"));
        }
        hex::encode(hash.finalize()).chars().take(40).collect()
    }

    /// The options as the API shows them, with or without pending changes.
    pub(crate) fn config_json(&self, with_pending: bool) -> Value {
        let mut all = self.config.clone();
        if with_pending {
            for (name, value) in &self.pending {
                match value {
                    Some(value) => all.insert(name.clone(), value.clone()),
                    None => all.remove(name),
                };
            }
        }
        let mut fields: Map<String, Value> = all
            .iter()
            .map(|(name, value)| (name.clone(), shown(name, value)))
            .collect();
        fields.insert("digest".to_owned(), json!(self.digest()));
        Value::Object(fields)
    }

    /// Carries out a change; on a running machine most of it waits.
    ///
    /// # Errors
    /// The sentence the task ends with.
    pub(crate) fn apply(&mut self, change: Change) -> Result<(), String> {
        for name in change.delete {
            if self.boot.is_some() && !is_immediate(&name) && self.config.contains_key(&name) {
                self.pending.insert(name, None);
            } else if let Some(old) = self.config.remove(&name) {
                self.pending.remove(&name);
                self.keep_unused(&name, &old);
            }
        }
        let mut later = BTreeMap::new();
        for (name, value) in change.set {
            if self.boot.is_some() && !is_immediate(&name) && self.config.get(&name) != Some(&value) {
                later.insert(name, Some(value));
                continue;
            }
            self.pending.remove(&name);
            let value = if is_drive(&name) {
                self.volume(&name, &value)?
            } else {
                value
            };
            self.config.insert(name, value);
        }
        self.pending.extend(later);
        self.check_boot_order()
    }

    /// Carries out what waited for the next start.
    pub(crate) fn apply_pending(&mut self) {
        for (name, value) in std::mem::take(&mut self.pending) {
            let Some(value) = value else {
                self.config.remove(&name);
                continue;
            };
            let value = if is_drive(&name) {
                self.volume(&name, &value)
            } else {
                Ok(value)
            };
            // A drive that cannot be made stays as it was, as with PVE.
            if let Ok(value) = value {
                self.config.insert(name, value);
            }
        }
    }

    /// A disk taken out of its slot is kept as unused, the cloud-init drive is removed.
    fn keep_unused(&mut self, name: &str, old: &str) {
        let volume = old.split(',').next().unwrap_or_default();
        if !is_drive(name)
            || !volume.contains(':')
            || volume.contains("cloudinit")
            || old.contains("media=cdrom")
        {
            return;
        }
        if let Some(slot) = (0..256)
            .map(|n| format!("unused{n}"))
            .find(|slot| !self.config.contains_key(slot))
        {
            self.config.insert(slot, volume.to_owned());
        }
    }

    /// Turns the wish for a volume into its name.
    fn volume(&self, slot: &str, value: &str) -> Result<String, String> {
        let file = formats::prop(value, "file")
            .or_else(|| value.split(',').next())
            .unwrap_or_default();
        let Some((storage, wish)) = file.split_once(':') else {
            return Ok(value.to_owned());
        };
        if wish == "cloudinit" {
            let volume = format!("vm-{}-cloudinit", self.vmid);
            let taken = self
                .disks()
                .any(|(other, name, _)| other != slot && name.ends_with(&volume));
            if taken {
                return Err(format!(
                    "lvcreate 'pve/{volume}' error:   Logical Volume \"{volume}\" already exists in volume group \"pve\""
                ));
            }
            return Ok(format!("{storage}:{volume},media=cdrom,size=4M"));
        }
        let Ok(gib) = wish.parse::<u64>() else {
            return Ok(value.to_owned());
        };
        let number = (0..)
            .find(|n| {
                let name = format!(":vm-{}-disk-{n}", self.vmid);
                !self
                    .disks()
                    .any(|(other, volume, _)| other != slot && volume.ends_with(&name))
            })
            .unwrap_or(0);
        // "0" with import-from takes the image's size; the simulated images are all as large as Ubuntu's.
        let size = if gib == 0 {
            CLOUD_IMAGE
        } else {
            gib.min(MAX_DISK >> 30) << 30
        };
        let keep = |key: &&(&str, &str)| !matches!(key.0, "file" | "import-from" | "size" | "");
        let parts = formats::props(value, "");
        let rest: String = parts
            .iter()
            .filter(keep)
            .map(|(key, text)| format!(",{key}={text}"))
            .collect();
        Ok(format!(
            "{storage}:vm-{}-disk-{number}{rest},size={}",
            self.vmid,
            formats::format_size(size)
        ))
    }

    fn check_boot_order(&self) -> Result<(), String> {
        let Some(order) = self.option("boot").and_then(|boot| boot.strip_prefix("order=")) else {
            return Ok(());
        };
        let missing = order
            .split([';', ','])
            .find(|device| !device.is_empty() && !self.config.contains_key(*device));
        missing.map_or(Ok(()), |device| {
            Err(format!("invalid bootorder: device '{device}' does not exist'"))
        })
    }
}

/// Most MiB a machine can have.
pub(crate) const MAX_MEMORY: u64 = 4_178_944;

/// Largest disk, in bytes: more than any storage here has.
pub(crate) const MAX_DISK: u64 = 128 << 40;

/// Bytes of an unpacked cloud image (Ubuntu 24.04's is 3.5 GiB).
pub(crate) const CLOUD_IMAGE: u64 = 3584 << 20;
