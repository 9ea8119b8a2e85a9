//! Containers: there to be read only.

use serde_json::{Value, json};

use super::Call;
use crate::error::ApiError;
use crate::guest::{Guest, GuestKind};

fn row(call: &Call<'_>, guest: &Guest) -> Value {
    let on = guest.boot.is_some();
    let mut row = json!({
        "vmid": guest.vmid, "type": "lxc", "status": guest.status(), "name": guest.name(), "cpus": guest.cpus(), "cpu": 0.0,
        "maxmem": guest.memory(), "mem": if on { guest.memory() / 2 } else { 0 }, "maxswap": 512u64 << 20, "swap": 0,
        "maxdisk": guest.boot_disk(), "disk": guest.boot_disk() / 4,
        "uptime": guest.boot.as_ref().map_or(0, |boot| (call.world.now - boot.since.min(call.world.now)) / 1000),
        "diskread": 0, "diskwrite": 0, "netin": 0, "netout": 0,
    });
    if let (Some(tags), Some(fields)) = (guest.option("tags"), row.as_object_mut()) {
        fields.insert("tags".to_owned(), json!(tags));
    }
    row
}

pub(super) fn list(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let node = call.text("node");
    let guests = call
        .world
        .guests
        .values()
        .filter(|guest| guest.node == node && guest.kind == GuestKind::Lxc);
    Ok(guests.map(|guest| row(call, guest)).collect())
}

fn find<'a>(call: &'a Call<'_>) -> Result<&'a Guest, ApiError> {
    let (node, vmid) = (call.text("node"), call.vmid());
    let found = call
        .world
        .guests
        .get(&vmid)
        .filter(|guest| guest.node == node && guest.kind == GuestKind::Lxc);
    found.ok_or_else(|| {
        ApiError::died(format!(
            "Configuration file 'nodes/{node}/lxc/{vmid}.conf' does not exist"
        ))
    })
}

pub(super) fn config(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let guest = find(call)?;
    let mut config = guest.config_json(true);
    // Unlike a machine's, a container's memory is a number.
    if let Some(fields) = config.as_object_mut() {
        for name in ["memory", "swap", "unprivileged"] {
            if let Some(number) = fields
                .get(name)
                .and_then(Value::as_str)
                .and_then(|text| text.parse::<u64>().ok())
            {
                fields.insert(name.to_owned(), json!(number));
            }
        }
    }
    Ok(config)
}

pub(super) fn current(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let guest = find(call)?;
    let mut row = row(call, guest);
    if let Some(fields) = row.as_object_mut() {
        fields.insert("ha".to_owned(), json!({"managed": 0}));
    }
    Ok(row)
}
