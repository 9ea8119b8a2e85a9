//! Virtual machines.

use serde_json::{Map, Value, json};

use super::Call;
use crate::error::ApiError;
use crate::guest::{Guest, GuestKind};
use crate::options::{self, Change, shown};
use crate::work::Work;

fn figures(call: &Call<'_>, guest: &Guest) -> Map<String, Value> {
    let mut row = Map::new();
    let mut put = |name: &str, value: Value| {
        row.insert(name.to_owned(), value);
    };
    let on = guest.boot.is_some();
    put("vmid", json!(guest.vmid));
    put("name", json!(guest.name()));
    put("status", json!(guest.status()));
    put("cpus", json!(guest.cpus()));
    put("cpu", json!(if on { 0.02 } else { 0.0 }));
    put("maxmem", json!(guest.memory()));
    put("mem", json!(if on { guest.memory() / 2 } else { 0 }));
    put("maxdisk", json!(guest.boot_disk()));
    put("disk", json!(0));
    put("uptime", json!(0));
    for name in ["diskread", "diskwrite", "netin", "netout"] {
        put(name, json!(0));
    }
    if guest.is_template() {
        put("template", json!(1));
    }
    if let Some(lock) = guest.lock() {
        put("lock", json!(lock));
    }
    if let Some(tags) = guest.option("tags") {
        put("tags", json!(tags));
    }
    if guest.option("serial0").is_some() {
        put("serial", json!(1));
    }
    if let Some(boot) = &guest.boot {
        put("pid", json!(boot.pid));
        put(
            "uptime",
            json!((call.world.now - boot.since.min(call.world.now)) / 1000),
        );
    }
    row
}

pub(super) fn list(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let node = call.text("node");
    let guests = call
        .world
        .guests
        .values()
        .filter(|guest| guest.node == node && guest.kind == GuestKind::Qemu);
    Ok(guests.map(|guest| Value::Object(figures(call, guest))).collect())
}

pub(super) fn index(call: &mut Call<'_>) -> Result<Value, ApiError> {
    if !call.world.guests.contains_key(&call.vmid()) {
        return Err(ApiError::no_such_config(&call.text("node"), call.vmid()));
    }
    Ok([
        "agent", "clone", "config", "pending", "resize", "snapshot", "status",
    ]
    .iter()
    .map(|name| json!({"subdir": name}))
    .collect())
}

pub(super) fn current(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let guest = call.machine()?;
    let mut row = figures(call, guest);
    let mut put = |name: &str, value: Value| {
        row.insert(name.to_owned(), value);
    };
    put("ha", json!({"managed": 0}));
    if guest.option("agent").is_some_and(crate::formats::agent_enabled) {
        put("agent", json!(1));
    }
    let state = match &guest.boot {
        Some(boot) if boot.paused => "paused",
        Some(_) => "running",
        None => "stopped",
    };
    put("qmpstatus", json!(state));
    if guest.boot.is_some() {
        put("running-machine", json!("pc-i440fx-10.1+pve0"));
        put("running-qemu", json!("10.1.2"));
    }
    Ok(Value::Object(row))
}

pub(super) fn config(call: &mut Call<'_>) -> Result<Value, ApiError> {
    Ok(call.machine()?.config_json(!call.params.flag("current")))
}

pub(super) fn pending(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let guest = call.machine()?;
    let text = |name: &str, value: &str| match shown(name, value) {
        Value::String(text) => text,
        other => other.to_string(),
    };
    let mut rows = Vec::new();
    for (name, value) in &guest.config {
        let mut row = json!({"key": name, "value": text(name, value)});
        if let Some(fields) = row.as_object_mut() {
            match guest.pending.get(name) {
                Some(Some(later)) => fields.insert("pending".to_owned(), json!(text(name, later))),
                Some(None) => fields.insert("delete".to_owned(), json!(1)),
                None => None,
            };
        }
        rows.push(row);
    }
    let added = guest
        .pending
        .iter()
        .filter(|(name, _)| !guest.config.contains_key(*name));
    rows.extend(
        added.filter_map(|(name, value)| Some(json!({"key": name, "pending": text(name, value.as_ref()?)}))),
    );
    Ok(rows.into())
}

pub(super) fn snapshots(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let digest = call.machine()?.digest();
    Ok(json!([{"name": "current", "description": "You are here!", "digest": digest, "running": 0}]))
}

fn change(call: &mut Call<'_>) -> Result<(u32, Change), ApiError> {
    let vmid = call.machine()?.vmid;
    let mut params = std::mem::take(&mut call.params);
    let node = params.take("node").unwrap_or_default();
    params.take("vmid");
    let digest = params.take("digest");
    for name in ["skiplock", "force", "background_delay", "revert"] {
        params.take(name);
    }
    let change = options::change(params, call.world)?;
    if change.set.is_empty() && change.delete.is_empty() {
        return Err(ApiError::died("no options specified"));
    }
    let guest = call
        .world
        .guests
        .get(&vmid)
        .ok_or_else(|| ApiError::no_such_config(&node, vmid))?;
    if digest.is_some_and(|digest| digest != guest.digest()) {
        return Err(ApiError::died("checksum mismatch (file change by other user?)"));
    }
    if let Some(lock) = guest.lock() {
        return Err(ApiError::died(format!("VM is locked ({lock})")));
    }
    // `spawn` reads them again.
    let path = crate::params::Raw(vec![
        ("node".to_owned(), node),
        ("vmid".to_owned(), vmid.to_string()),
    ]);
    call.params = crate::params::Params::check(path, &[super::PATH])?;
    Ok((vmid, change))
}

pub(super) fn set_config_later(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let (vmid, change) = change(call)?;
    Ok(call.spawn_for_machine("qmconfig", Work::Config { vmid, change }))
}

/// The synchronous way: no task, but the same effects.
pub(super) fn set_config_now(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let (vmid, change) = change(call)?;
    let Some(guest) = call.world.guests.get_mut(&vmid) else {
        return Ok(Value::Null);
    };
    let before = guest.clone();
    if let Err(text) = guest.apply(change) {
        *guest = before;
        return Err(ApiError::died(text));
    }
    call.world.version += 1;
    Ok(Value::Null)
}

pub(super) fn create(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let vmid = call.vmid();
    if let Some(other) = call.world.guests.get(&vmid) {
        return Err(ApiError::died(format!(
            "unable to create VM {vmid} - VM {vmid} already exists on node '{}'",
            other.node
        )));
    }
    let mut params = call.params.clone();
    let start = params.flag("start");
    for name in [
        "node", "vmid", "start", "storage", "pool", "unique", "bwlimit", "force",
    ] {
        params.take(name);
    }
    let change = options::change(params, call.world)?;
    let node = call.text("node");
    Ok(call.spawn_for_machine(
        "qmcreate",
        Work::Create {
            vmid,
            node,
            change,
            start,
        },
    ))
}

pub(super) fn clone(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let (node, source) = (call.text("node"), call.vmid());
    let Ok(template) = call.unlocked() else {
        // Clone looks for the file itself, and says it in its own words.
        call.machine().map_err(|_| {
            ApiError::died(format!(
                "unable to find configuration file for VM {source} on node '{node}'"
            ))
        })?;
        return Err(call
            .unlocked()
            .err()
            .unwrap_or_else(|| ApiError::died("VM is locked")));
    };
    let is_template = template.is_template();
    let full = call.params.get("full").map_or(!is_template, |flag| flag == "1");
    if !full && !is_template {
        return Err(ApiError::died(
            "Linked clone feature is not supported for drive 'scsi0'",
        ));
    }
    if !full {
        for name in ["storage", "format"] {
            if call.params.get(name).is_some() {
                return Err(ApiError::died(format!(
                    "parameter '{name}' not allowed for linked clones"
                )));
            }
        }
    }
    let target = call
        .params
        .get("target")
        .map_or_else(|| node.clone(), str::to_owned);
    if call.world.node(&target).is_none() {
        return Err(ApiError::died(format!("no such cluster node '{target}'")));
    }
    if let Some(storage) = call.params.get("storage") {
        if call.world.storage_content(storage).is_none() {
            return Err(ApiError::died(format!("storage '{storage}' does not exist")));
        }
        if target != node {
            return Err(ApiError::died(format!(
                "can't clone to non-shared storage '{storage}'"
            )));
        }
    }
    // Both storages are local to their node.
    if target != node {
        return Err(ApiError::died(format!(
            "can't clone VM to node '{target}' (VM uses local storage)"
        )));
    }
    let newid: u32 = call.params.number("newid").unwrap_or_default();
    if call
        .world
        .guests
        .get(&newid)
        .is_some_and(|other| other.node == node)
    {
        return Err(ApiError::died(format!(
            "unable to create VM {newid}: config file already exists"
        )));
    }
    let mut change = Change::default();
    let name = call
        .params
        .get("name")
        .map_or_else(|| format!("Copy-of-VM-{source}"), str::to_owned);
    change.set.insert("name".to_owned(), name);
    if let Some(description) = call.params.get("description") {
        change
            .set
            .insert("description".to_owned(), format!("{description}\n"));
    }
    let work = Work::Clone {
        source,
        newid,
        node,
        target,
        change,
        full,
    };
    Ok(call.spawn("qmclone", &source.to_string(), Some(newid), work))
}

pub(super) fn resize(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let vmid = call.machine()?.vmid;
    let (disk, size) = (call.text("disk"), call.text("size"));
    Ok(call.spawn_for_machine("resize", Work::Resize { vmid, disk, size }))
}

pub(super) fn template(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let guest = call.unlocked()?;
    if guest.boot.is_some() {
        return Err(ApiError::died(
            "you can't convert a VM to template if VM is running",
        ));
    }
    if guest.is_template() {
        return Err(ApiError::died("you can't convert a template to a template"));
    }
    let vmid = guest.vmid;
    Ok(call.spawn_for_machine("qmtemplate", Work::Template { vmid }))
}

pub(super) fn destroy(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let (node, vmid) = (call.text("node"), call.vmid());
    let guest = call.machine().map_err(|_| {
        ApiError::died(format!(
            "unable to find configuration file for VM {vmid} on node '{node}'"
        ))
    })?;
    if guest.boot.is_some() {
        return Err(ApiError::died(format!("VM {vmid} is running - destroy failed")));
    }
    if guest.option("protection") == Some("1") {
        return Err(ApiError::died(format!(
            "can't remove VM {vmid} - protection mode enabled"
        )));
    }
    let base = format!(":base-{vmid}-disk-0/");
    if guest.is_template()
        && call
            .world
            .guests
            .values()
            .any(|other| other.disks().any(|(_, volume, _)| volume.contains(&base)))
    {
        let doom = format!("base volume 'local-lvm:base-{vmid}-disk-0' is still in use by linked cloned");
        call.doom.get_or_insert(doom);
    }
    Ok(call.spawn_for_machine("qmdestroy", Work::Destroy { vmid }))
}
