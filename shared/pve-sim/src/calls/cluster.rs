//! The cluster as a whole.

use serde_json::{Map, Value, json};

use super::Call;
use crate::error::ApiError;
use crate::guest::{Guest, GuestKind};
use crate::timing::Step;
use crate::world::World;

pub(super) const NAME: &str = "nimbus-sim";

pub(super) fn index(_: &mut Call<'_>) -> Result<Value, ApiError> {
    Ok(["nextid", "options", "resources", "status", "tasks"]
        .iter()
        .map(|name| json!({"name": name}))
        .collect())
}

pub(super) fn status(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let world = &call.world;
    let mut rows = Vec::new();
    // A lone node has no cluster row.
    if world.nodes.len() > 1 {
        let count = world.nodes.len();
        rows.push(json!({
            "type": "cluster", "id": "cluster", "name": NAME, "version": count, "nodes": count,
            "quorate": u8::from(world.has_quorum()),
        }));
    }
    for (number, node) in world.nodes.iter().enumerate() {
        rows.push(json!({
            "type": "node", "id": format!("node/{}", node.name), "name": node.name, "nodeid": number + 1, "ip": node.ip,
            "online": u8::from(node.online), "local": u8::from(number == 0), "level": "",
        }));
    }
    Ok(rows.into())
}

pub(super) fn next_id(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let taken = |vmid: u32| call.world.guests.contains_key(&vmid);
    if let Some(vmid) = call.params.number::<u32>("vmid") {
        return if taken(vmid) {
            Err(ApiError::parameter("vmid", format!("VM {vmid} already exists")))
        } else {
            Ok(json!(vmid.to_string()))
        };
    }
    let free = (100u32..).find(|vmid| !taken(*vmid)).unwrap_or(100);
    Ok(json!(free.to_string()))
}

pub(super) fn options(_: &mut Call<'_>) -> Result<Value, ApiError> {
    Ok(json!({"allowed-tags": [], "keyboard": "en-us", "mac_prefix": "BC:24:11"}))
}

pub(super) fn resources(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let world = &call.world;
    let wanted = call.params.get("type");
    let has = |kind: &str| wanted.is_none_or(|wanted| wanted == kind);
    let mut rows = Vec::new();
    if has("vm") {
        rows.extend(world.guests.values().map(|guest| guest_row(world, guest)));
    }
    if has("node") {
        rows.extend(world.nodes.iter().map(|node| super::node::row(world, node, true)));
    }
    if has("storage") {
        for node in &world.nodes {
            for storage in super::storage::NAMES {
                rows.push(super::storage::resource(world, node, storage));
            }
        }
    }
    Ok(rows.into())
}

/// PVE refreshes this every 10 s; a guest is listed before its figures are.
fn guest_row(world: &World, guest: &Guest) -> Value {
    let mut row = Map::new();
    let mut put = |name: &str, value: Value| {
        row.insert(name.to_owned(), value);
    };
    put("id", json!(format!("{}/{}", guest.kind.as_str(), guest.vmid)));
    put("type", json!(guest.kind.as_str()));
    put("node", json!(guest.node));
    put("vmid", json!(guest.vmid));
    if let Some(lock) = guest.lock() {
        put("lock", json!(lock));
    }
    let online = world.node(&guest.node).is_some_and(|node| node.online);
    let refresh = world.timing.fixed(Step::Refresh);
    let seen = world
        .now
        .checked_div(refresh)
        .is_none_or(|round| guest.created == 0 || round * refresh >= guest.created);
    if world.stale && !seen {
        put("status", json!("unknown"));
        return Value::Object(row);
    }
    put("name", json!(guest.name()));
    put("status", json!(if online { guest.status() } else { "unknown" }));
    put("template", json!(u8::from(guest.is_template())));
    put("maxcpu", json!(guest.cpus()));
    put("maxmem", json!(guest.memory()));
    put("maxdisk", json!(guest.boot_disk()));
    let on = guest.boot.is_some();
    put("cpu", json!(if on { 0.02 } else { 0.0 }));
    put("mem", json!(if on { guest.memory() / 2 } else { 0 }));
    put(
        "disk",
        json!(if guest.kind == GuestKind::Lxc {
            guest.boot_disk() / 4
        } else {
            0
        }),
    );
    put(
        "uptime",
        json!(
            guest
                .boot
                .as_ref()
                .map_or(0, |boot| (world.now - boot.since.min(world.now)) / 1000)
        ),
    );
    for name in ["diskread", "diskwrite", "netin", "netout"] {
        put(name, json!(0));
    }
    if let Some(tags) = guest.option("tags") {
        put("tags", json!(tags));
    }
    Value::Object(row)
}
