//! Storages and what is on them.

use serde_json::{Value, json};

use super::Call;
use crate::error::ApiError;
use crate::guest::Guest;
use crate::work::Work;
use crate::world::{File, Node, World};

/// The storages of every node, as a fresh installation has them.
pub(super) const NAMES: &[&str] = &["local", "local-lvm"];

fn kind(storage: &str) -> &'static str {
    if storage == "local" { "dir" } else { "lvmthin" }
}

fn find<'a>(call: &'a Call<'_>) -> Result<(&'a Node, &'static str), ApiError> {
    let storage = call.text("storage");
    let content = call.world.storage_content(&storage);
    let content = content.ok_or_else(|| ApiError::died(format!("storage '{storage}' does not exist")))?;
    let node = call
        .world
        .node(&call.text("node"))
        .ok_or_else(|| ApiError::died("no such node"))?;
    Ok((node, content))
}

pub(super) fn resource(world: &World, node: &Node, storage: &str) -> Value {
    let mut row = json!({
        "id": format!("storage/{}/{storage}", node.name), "type": "storage", "node": node.name, "storage": storage,
        "status": if node.online { "available" } else { "unknown" }, "shared": 0, "plugintype": kind(storage),
        "content": world.storage_content(storage).unwrap_or_default(),
    });
    if let (true, Some(row)) = (node.online, row.as_object_mut()) {
        row.insert("disk".to_owned(), json!(world.storage_used(node, storage)));
        row.insert("maxdisk".to_owned(), json!(World::storage_total(node, storage)));
    }
    row
}

fn figures(world: &World, node: &Node, storage: &str, content: &str) -> Value {
    let (total, used) = (
        World::storage_total(node, storage),
        world.storage_used(node, storage),
    );
    json!({
        "type": kind(storage), "content": content, "active": 1, "enabled": 1, "shared": 0,
        "total": total, "used": used, "avail": total.saturating_sub(used),
    })
}

pub(super) fn list(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let world = &call.world;
    let node = world
        .node(&call.text("node"))
        .ok_or_else(|| ApiError::died("no such node"))?;
    let mut rows = Vec::new();
    for storage in NAMES {
        let content = world.storage_content(storage).unwrap_or_default();
        let wanted = call
            .params
            .get("content")
            .is_none_or(|kinds| kinds.split(',').any(|kind| content.split(',').any(|c| c == kind)));
        let named = call.params.get("storage").is_none_or(|name| name == *storage);
        let mut row = figures(world, node, storage, content);
        if let (true, true, Some(fields)) = (wanted, named, row.as_object_mut()) {
            let part = |name: &str| fields.get(name).and_then(Value::as_f64).unwrap_or(0.0);
            let fraction = part("used") / part("total").max(1.0);
            fields.insert("storage".to_owned(), json!(storage));
            fields.insert("used_fraction".to_owned(), json!(fraction));
            rows.push(row);
        }
    }
    Ok(rows.into())
}

pub(super) fn status(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let (node, content) = find(call)?;
    Ok(figures(call.world, node, &call.text("storage"), content))
}

pub(super) fn configured(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let wanted = |storage: &&&str| {
        call.params
            .get("type")
            .is_none_or(|wanted| wanted == kind(storage))
    };
    Ok(NAMES
        .iter()
        .filter(wanted)
        .map(|storage| settings(call.world, storage))
        .collect())
}

pub(super) fn configuration(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let storage = call.text("storage");
    match call.world.storage_content(&storage) {
        Some(_) => Ok(settings(call.world, &storage)),
        None => Err(ApiError::died(format!("storage '{storage}' does not exist"))),
    }
}

fn settings(world: &World, storage: &str) -> Value {
    let content = world.storage_content(storage).unwrap_or_default();
    if storage == "local" {
        json!({"storage": storage, "type": "dir", "path": "/var/lib/vz", "content": content, "digest": "0".repeat(40)})
    } else {
        json!({"storage": storage, "type": "lvmthin", "vgname": "pve", "thinpool": "data", "content": content, "digest": "0".repeat(40)})
    }
}

pub(super) fn content(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let (node, _) = find(call)?;
    let storage = call.text("storage");
    let wanted = |kind: &str| call.params.get("content").is_none_or(|wanted| wanted == kind);
    let of = |vmid: u32| {
        call.params
            .number::<u32>("vmid")
            .is_none_or(|wanted| wanted == vmid)
    };
    let mut rows = Vec::new();
    if storage == "local" {
        let files = call
            .world
            .files
            .iter()
            .filter(|file| file.node == node.name && wanted(&file.content));
        rows.extend(files.map(|file| {
            let format = file.volid.rsplit('.').next().unwrap_or("raw");
            json!({"volid": file.volid, "content": file.content, "format": format, "size": file.size, "ctime": call.world.epoch})
        }));
    } else if wanted("images") {
        let prefix = format!("{storage}:");
        for guest in call
            .world
            .guests
            .values()
            .filter(|guest: &&Guest| guest.node == node.name && of(guest.vmid))
        {
            let volumes = guest.disks().filter(|(_, volume, _)| volume.starts_with(&prefix));
            rows.extend(volumes.map(|(_, volume, size)| {
                json!({"volid": volume, "content": "images", "format": "raw", "size": size, "vmid": guest.vmid, "ctime": call.world.epoch})
            }));
        }
    }
    Ok(rows.into())
}

pub(super) fn download(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let (node, allowed) = find(call)?;
    let node = node.name.clone();
    let (storage, content, name) = (call.text("storage"), call.text("content"), call.text("filename"));
    if kind(&storage) != "dir" {
        return Err(ApiError::died(format!(
            "can't upload to storage type '{}', not a file based storage!",
            kind(&storage)
        )));
    }
    if !allowed.split(',').any(|kind| kind == content) {
        return Err(ApiError::died(format!(
            "storage '{storage}' is not configured for content-type '{content}'"
        )));
    }
    let ends = |endings: &[&str]| {
        endings
            .iter()
            .any(|ending| name.to_ascii_lowercase().ends_with(ending))
    };
    let (good, text) = match content.as_str() {
        "import" => (
            ends(&[".ova", ".qcow2", ".raw", ".vmdk"]),
            "invalid filename or wrong extension",
        ),
        "iso" => (ends(&[".iso", ".img"]), "wrong file extension"),
        _ => (ends(&[".tar.gz", ".tar.xz", ".tar.zst"]), "wrong file extension"),
    };
    if !good || name.contains('/') {
        return Err(ApiError::parameter("filename", text));
    }
    let file = File {
        node,
        volid: format!("{storage}:{content}/{name}"),
        content,
        size: 600 << 20,
    };
    Ok(call.spawn("download", &name, None, Work::Download { file }))
}

pub(super) fn delete(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let node = find(call)?.0.name.clone();
    let volume = call.text("volume");
    let volid = if volume.contains(':') {
        volume
    } else {
        format!("{}:{volume}", call.text("storage"))
    };
    if !call
        .world
        .files
        .iter()
        .any(|file| file.node == node && file.volid == volid)
    {
        return Err(ApiError::died(format!("volume '{volid}' does not exist")));
    }
    let id = volid.clone();
    Ok(call.spawn(
        "imgdel",
        &id.replace(':', "%3A"),
        None,
        Work::DeleteVolume { node, volid },
    ))
}
