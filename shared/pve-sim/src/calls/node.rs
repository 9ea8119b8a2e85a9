//! Nodes.

use serde_json::{Map, Value, json};

use super::Call;
use crate::error::ApiError;
use crate::world::{Node, World};

const RELEASE: &str = "9.2";
const VERSION: &str = "9.2.11";
/// PVE shows the name of the build; this one is made up.
const BUILD: &str = "51a6c0d1e5000000";

pub(super) fn api_index(_: &mut Call<'_>) -> Result<Value, ApiError> {
    Ok(["access", "cluster", "nodes", "pools", "storage", "version"]
        .iter()
        .map(|name| json!({"subdir": name}))
        .collect())
}

pub(super) fn version(_: &mut Call<'_>) -> Result<Value, ApiError> {
    Ok(json!({"version": VERSION, "release": RELEASE, "repoid": BUILD}))
}

pub(super) fn list(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let world = &call.world;
    Ok(world.nodes.iter().map(|node| row(world, node, false)).collect())
}

/// A row of `/nodes` or `/cluster/resources`. An offline node has no figures.
pub(super) fn row(world: &World, node: &Node, with_disk: bool) -> Value {
    let mut row = Map::new();
    let mut put = |name: &str, value: Value| {
        row.insert(name.to_owned(), value);
    };
    put("id", json!(format!("node/{}", node.name)));
    put("type", json!("node"));
    put("node", json!(node.name));
    put("level", json!(""));
    put("status", json!(if node.online { "online" } else { "offline" }));
    if node.online {
        put("cpu", json!(world.load(node)));
        put("maxcpu", json!(node.maxcpu));
        put("mem", json!(world.memory_used(node)));
        put("maxmem", json!(node.maxmem));
        put("uptime", json!(1_000_000 + world.now / 1000));
        put("disk", json!(8u64 << 30));
        put("maxdisk", json!(100u64 << 30));
    }
    if with_disk {
        put("cgroup-mode", json!(2));
    } else {
        put("ssl_fingerprint", json!(fingerprint(&node.name)));
    }
    Value::Object(row)
}

/// A made-up fingerprint, the same for the same node.
fn fingerprint(name: &str) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(name);
    digest
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect::<Vec<_>>()
        .join(":")
}

pub(super) fn index(_: &mut Call<'_>) -> Result<Value, ApiError> {
    Ok(
        ["lxc", "network", "qemu", "status", "storage", "tasks", "version"]
            .iter()
            .map(|name| json!({"name": name}))
            .collect(),
    )
}

pub(super) fn status(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let world = &call.world;
    let Some(node) = world.node(&call.text("node")) else {
        return Err(ApiError::died("no such node"));
    };
    let used = world.memory_used(node);
    let load = world.load(node);
    let average = format!("{:.2}", load * f64::from(u32::try_from(node.maxcpu).unwrap_or(1)));
    let sockets = 1;
    Ok(json!({
        "cpu": load, "wait": 0.0, "idle": 0, "uptime": 1_000_000 + world.now / 1000,
        "loadavg": [average, average, average],
        "pveversion": format!("pve-manager/{VERSION}/{BUILD}"),
        "kversion": "Linux 6.17.4-2-pve #1 SMP PREEMPT_DYNAMIC",
        "current-kernel": {"sysname": "Linux", "release": "6.17.4-2-pve", "version": "#1 SMP PREEMPT_DYNAMIC", "machine": "x86_64"},
        "boot-info": {"mode": "efi", "secureboot": 0},
        "cpuinfo": {
            "model": "Simulated x86-64-v3 Processor", "cpus": node.maxcpu, "cores": node.maxcpu / 2, "sockets": sockets,
            "mhz": "2400.000", "hvm": "1", "user_hz": 100, "flags": "avx avx2",
        },
        "memory": {"total": node.maxmem, "used": used, "free": node.maxmem - used, "available": node.maxmem - used},
        "swap": {"total": 0, "used": 0, "free": 0},
        "rootfs": {"total": 100u64 << 30, "used": 8u64 << 30, "free": 92u64 << 30, "avail": 87u64 << 30},
        "ksm": {"shared": 0},
    }))
}

pub(super) fn network(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let bridge = json!({
        "iface": "vmbr0", "type": "bridge", "active": 1, "autostart": 1, "method": "static", "families": ["inet"],
        "bridge_ports": "eno1", "cidr": "10.77.0.2/24", "address": "10.77.0.2", "netmask": "24", "gateway": "10.77.0.1",
    });
    let card = json!({"iface": "eno1", "type": "eth", "active": 1, "exists": 1, "method": "manual", "families": ["inet"]});
    Ok(match call.params.get("type") {
        Some("bridge" | "any_bridge" | "any_local_bridge" | "include_sdn") => json!([bridge]),
        Some("eth") => json!([card]),
        Some(_) => json!([]),
        None => json!([card, bridge]),
    })
}
