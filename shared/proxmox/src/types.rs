//! What PVE answers. Every key that PVE does not promise is an `Option`; unknown keys are ignored.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Deserializer};

use crate::encode::{parse_ipconfig_ip, parse_lxc_net_ip};
use crate::lenient;
use crate::upid::Upid;
use crate::vmid::Vmid;

/// The release of a node.
#[derive(Clone, Debug, Deserialize)]
pub struct Version {
    /// For instance `9.2.11`.
    pub version: String,
    /// For instance `9.2`.
    pub release: String,
    /// Hexadecimal name of the build.
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub repoid: Option<String>,
}

/// A row of `/nodes`. An offline node has no figures.
#[derive(Clone, Debug, Deserialize)]
pub struct Node {
    /// Its name.
    pub node: String,
    /// `online`, `offline` or `unknown`.
    pub status: String,
    /// Load, 0 to 1 of `maxcpu`.
    #[serde(default, deserialize_with = "lenient::opt_f64")]
    pub cpu: Option<f64>,
    /// Threads.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub maxcpu: Option<u64>,
    /// Bytes in use.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub mem: Option<u64>,
    /// Bytes.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub maxmem: Option<u64>,
    /// Seconds.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub uptime: Option<u64>,
    /// SHA-256 of its certificate.
    #[serde(default)]
    pub ssl_fingerprint: Option<String>,
}

impl Node {
    /// Whether it is a working part of the cluster.
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.status == "online"
    }
}

/// A row of `/cluster/status`: the cluster itself (absent on a lone node) or one node.
#[derive(Clone, Debug, Deserialize)]
pub struct ClusterStatusEntry {
    /// `cluster` or `node`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Name of the cluster or node.
    pub name: String,
    /// Address of a node.
    #[serde(default)]
    pub ip: Option<IpAddr>,
    /// Whether a node is up.
    #[serde(default, deserialize_with = "lenient::opt_flag")]
    pub online: Option<bool>,
    /// Whether this is the node that answered.
    #[serde(default, deserialize_with = "lenient::opt_flag")]
    pub local: Option<bool>,
    /// Whether the cluster has a quorum.
    #[serde(default, deserialize_with = "lenient::opt_flag")]
    pub quorate: Option<bool>,
    /// Number of nodes of the cluster.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub nodes: Option<u64>,
}

/// Machine or container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestKind {
    /// A virtual machine.
    Qemu,
    /// A container.
    Lxc,
}

/// A guest in `/cluster/resources`, which PVE refreshes every 10 s: a new guest is there at once, but
/// without name, template flag and sizes.
#[derive(Clone, Debug, Deserialize)]
pub struct ClusterVm {
    /// Its number.
    pub vmid: Vmid,
    /// Where it is.
    pub node: String,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: GuestKind,
    /// `running`, `stopped` or, when the node is away or the guest new, `unknown`.
    #[serde(default)]
    pub status: String,
    /// Its name.
    #[serde(default)]
    pub name: Option<String>,
    /// Whether it is a template; `None` when PVE did not say.
    #[serde(default, deserialize_with = "lenient::opt_flag")]
    pub template: Option<bool>,
    /// What it is locked for.
    #[serde(default)]
    pub lock: Option<String>,
    /// Its tags.
    #[serde(default, deserialize_with = "lenient::tags")]
    pub tags: Vec<String>,
    /// Load, 0 to 1 of `maxcpu`.
    #[serde(default, deserialize_with = "lenient::opt_f64")]
    pub cpu: Option<f64>,
    /// Virtual processors.
    #[serde(default, deserialize_with = "lenient::opt_f64")]
    pub maxcpu: Option<f64>,
    /// Bytes in use.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub mem: Option<u64>,
    /// Bytes.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub maxmem: Option<u64>,
    /// Bytes.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub maxdisk: Option<u64>,
    /// Seconds.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub uptime: Option<u64>,
}

/// A storage on a node. A shared one has a row for every node, all with the same figures.
#[derive(Clone, Debug, Deserialize)]
pub struct StorageResource {
    /// Its name.
    pub storage: String,
    /// The node of this row.
    pub node: String,
    /// `available` or `unknown`.
    #[serde(default)]
    pub status: String,
    /// Whether all nodes see the same storage.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub shared: bool,
    /// Bytes in use.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub disk: Option<u64>,
    /// Bytes.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub maxdisk: Option<u64>,
    /// For instance `lvmthin`.
    #[serde(default)]
    pub plugintype: Option<String>,
    /// What it may hold, joined by commas.
    #[serde(default)]
    pub content: Option<String>,
}

/// A guest in the live list of one node.
#[derive(Clone, Debug, Deserialize)]
pub struct GuestListEntry {
    /// Its number.
    pub vmid: Vmid,
    /// `running` or `stopped`.
    pub status: String,
    /// Its name.
    #[serde(default)]
    pub name: Option<String>,
    /// Whether it is a template.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub template: bool,
    /// What it is locked for.
    #[serde(default)]
    pub lock: Option<String>,
    /// Its tags.
    #[serde(default, deserialize_with = "lenient::tags")]
    pub tags: Vec<String>,
    /// Virtual processors.
    #[serde(default, deserialize_with = "lenient::opt_f64")]
    pub cpus: Option<f64>,
    /// Bytes.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub maxmem: Option<u64>,
    /// Bytes.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub maxdisk: Option<u64>,
}

/// The live state of one machine.
#[derive(Clone, Debug, Deserialize)]
pub struct VmCurrent {
    /// Its number.
    pub vmid: Vmid,
    /// `running` or `stopped`.
    pub status: String,
    /// What QEMU says, for instance `paused`.
    #[serde(default)]
    pub qmpstatus: Option<String>,
    /// Its name.
    #[serde(default)]
    pub name: Option<String>,
    /// Whether it is a template.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub template: bool,
    /// Whether the agent's device is there.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub agent: bool,
    /// What it is locked for.
    #[serde(default)]
    pub lock: Option<String>,
    /// Its tags.
    #[serde(default, deserialize_with = "lenient::tags")]
    pub tags: Vec<String>,
    /// Load, 0 to 1 of `cpus`.
    #[serde(default, deserialize_with = "lenient::opt_f64")]
    pub cpu: Option<f64>,
    /// Virtual processors.
    #[serde(default, deserialize_with = "lenient::opt_f64")]
    pub cpus: Option<f64>,
    /// Bytes in use.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub mem: Option<u64>,
    /// Bytes.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub maxmem: Option<u64>,
    /// Bytes.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub maxdisk: Option<u64>,
    /// Seconds.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub uptime: Option<u64>,
}

impl VmCurrent {
    /// Whether it is on.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.status == "running"
    }
}

/// A machine's options as texts, pending changes included.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct VmConfig(#[serde(deserialize_with = "lenient::text_map")] pub BTreeMap<String, String>);

impl VmConfig {
    /// One option.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.get("name")
    }

    /// Its description, without the newline PVE adds.
    #[must_use]
    pub fn description(&self) -> Option<&str> {
        self.get("description").map(str::trim_end)
    }

    /// Its tags.
    #[must_use]
    pub fn tags(&self) -> Vec<String> {
        self.get("tags").map(lenient::split_tags).unwrap_or_default()
    }

    /// What it is locked for.
    #[must_use]
    pub fn lock(&self) -> Option<&str> {
        self.get("lock")
    }

    /// Whether it is a template.
    #[must_use]
    pub fn is_template(&self) -> bool {
        self.get("template") == Some("1")
    }

    /// The SMBIOS uuid, which PVE makes anew for each clone: it tells a machine from a later one that
    /// was given the same VMID.
    #[must_use]
    pub fn smbios_uuid(&self) -> Option<&str> {
        self.get("smbios1")?
            .split(',')
            .find_map(|part| part.strip_prefix("uuid="))
    }

    /// The static address cloud-init was told.
    #[must_use]
    pub fn static_ip(&self) -> Option<IpAddr> {
        self.get("ipconfig0").and_then(parse_ipconfig_ip)
    }

    /// The static addresses of a container's interfaces.
    #[must_use]
    pub fn lxc_ips(options: &BTreeMap<String, String>) -> Vec<IpAddr> {
        (0..10)
            .filter_map(|n| parse_lxc_net_ip(options.get(&format!("net{n}"))?))
            .collect()
    }

    /// Whether the agent's device is switched on.
    #[must_use]
    pub fn agent_enabled(&self) -> bool {
        self.get("agent").is_some_and(|agent| {
            agent
                .split(',')
                .any(|part| matches!(part, "1" | "enabled=1" | "enabled=on"))
        })
    }
}

/// An interface as the guest agent sees it; it may have no address.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct GuestInterface {
    /// Its name in the guest.
    pub name: String,
    /// Its MAC address.
    #[serde(default, rename = "hardware-address")]
    pub hardware_address: Option<String>,
    /// Its addresses; those that cannot be read are left out.
    #[serde(default, rename = "ip-addresses", deserialize_with = "addresses")]
    pub addresses: Vec<GuestAddress>,
}

impl GuestInterface {
    /// Whether it is the loopback.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.name.starts_with("lo")
    }
}

/// An address of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestAddress {
    /// The address.
    pub ip: IpAddr,
    /// Length of its network's prefix.
    pub prefix: Option<u8>,
}

fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<GuestAddress>, D::Error> {
    #[derive(Deserialize)]
    struct Raw {
        #[serde(default, rename = "ip-address")]
        ip: Option<String>,
        #[serde(default, deserialize_with = "lenient::opt_u64")]
        prefix: Option<u64>,
    }
    let raw = Option::<Vec<Raw>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(raw
        .into_iter()
        .filter_map(|address| {
            // Link-local addresses can carry a zone ("fe80::1%eth0").
            let ip = address.ip?.split('%').next()?.parse().ok()?;
            Some(GuestAddress {
                ip,
                prefix: address.prefix.and_then(|p| u8::try_from(p).ok()),
            })
        })
        .collect())
}

/// How a command in a guest is doing.
#[derive(Clone, Debug, Deserialize)]
pub struct ExecStatus {
    /// Whether it ended.
    #[serde(deserialize_with = "lenient::flag")]
    pub exited: bool,
    /// Its exit code.
    #[serde(default)]
    pub exitcode: Option<i64>,
    /// The signal that ended it.
    #[serde(default)]
    pub signal: Option<i64>,
    /// What it wrote to standard output.
    #[serde(default, rename = "out-data")]
    pub out_data: Option<String>,
    /// What it wrote to standard error.
    #[serde(default, rename = "err-data")]
    pub err_data: Option<String>,
}

/// How a task is doing.
#[derive(Clone, Debug, Deserialize)]
pub struct TaskStatus {
    /// The task.
    pub upid: Upid,
    /// `running` or `stopped`.
    pub status: String,
    /// How it ended: `OK`, `WARNINGS: n` or the error.
    #[serde(default)]
    pub exitstatus: Option<String>,
    /// The worker's type.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it works on.
    #[serde(default)]
    pub id: String,
}

/// A line of a task's log.
#[derive(Clone, Debug, Deserialize)]
pub struct TaskLogLine {
    /// Its number.
    #[serde(deserialize_with = "lenient::u64")]
    pub n: u64,
    /// The line.
    #[serde(default)]
    pub t: String,
}

/// A row of a list of tasks, where `status` says how the task ended.
#[derive(Clone, Debug, Deserialize)]
pub struct TaskListEntry {
    /// The task.
    pub upid: Upid,
    /// How it ended; absent while it runs.
    #[serde(default)]
    pub status: Option<String>,
    /// When it started, in seconds since 1970.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub starttime: Option<u64>,
    /// When it ended.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub endtime: Option<u64>,
}

/// A volume on a storage.
#[derive(Clone, Debug, Deserialize)]
pub struct StorageContent {
    /// Its name, for instance `local:import/debian-12.qcow2`.
    pub volid: String,
    /// For instance `qcow2`.
    pub format: String,
    /// What it is, for instance `images`.
    #[serde(default)]
    pub content: Option<String>,
    /// Bytes.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub size: Option<u64>,
    /// The guest it belongs to.
    #[serde(default)]
    pub vmid: Option<Vmid>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_with_strings_for_numbers_and_nothing_else() {
        let vm: ClusterVm = serde_json::from_value(json!({
            "id": "qemu/100", "type": "qemu", "node": "pve1", "vmid": "100", "status": "unknown",
        }))
        .unwrap();
        assert_eq!(
            (vm.vmid.get(), vm.template, vm.maxmem, vm.tags.len()),
            (100, None, None, 0)
        );
        let node: Node = serde_json::from_value(json!({
            "node": "pve1", "status": "online", "maxmem": "68719476736", "cpu": "0.1", "new-key": [],
        }))
        .unwrap();
        assert_eq!((node.maxmem, node.cpu), (Some(68_719_476_736), Some(0.1)));
    }

    #[test]
    fn a_config_of_mixed_types() {
        let config: VmConfig = serde_json::from_value(json!({
            "cores": 2, "memory": "2048", "template": 1, "tags": "a;b", "description": "x\n", "agent": "enabled=1,fstrim=1",
            "smbios1": "uuid=4c4c4544-0000-1000-8000-000000000001,manufacturer=x", "ipconfig0": "ip=10.0.0.5/24,gw=10.0.0.1",
        }))
        .unwrap();
        assert_eq!(
            (config.get("cores"), config.get("memory")),
            (Some("2"), Some("2048"))
        );
        assert!(config.is_template() && config.agent_enabled());
        assert_eq!(config.tags(), ["a", "b"]);
        assert_eq!(config.description(), Some("x"));
        assert_eq!(config.smbios_uuid(), Some("4c4c4544-0000-1000-8000-000000000001"));
        assert_eq!(config.static_ip(), Some("10.0.0.5".parse().unwrap()));
    }

    #[test]
    fn interfaces_without_addresses() {
        let list: Vec<GuestInterface> = serde_json::from_value(json!([
            {"name": "lo", "ip-addresses": [{"ip-address": "127.0.0.1", "ip-address-type": "ipv4", "prefix": 8}]},
            {"name": "sit0"},
            {"name": "eth0", "hardware-address": "bc:24:11:00:00:01", "ip-addresses": [
                {"ip-address": "fe80::1%eth0", "ip-address-type": "ipv6", "prefix": 64}, {"ip-address": "??"}]},
        ]))
        .unwrap();
        assert_eq!(
            list.iter().map(|i| i.addresses.len()).collect::<Vec<_>>(),
            [1, 0, 1]
        );
    }
}
