//! Logins, users, permissions, pools.

use serde_json::{Value, json};

use super::Call;
use crate::error::ApiError;

/// What a privileged token may do; the simulator has no narrower ones.
const PRIVILEGES: &[&str] = &[
    "Datastore.Allocate",
    "Datastore.AllocateSpace",
    "Datastore.AllocateTemplate",
    "Datastore.Audit",
    "Pool.Audit",
    "SDN.Audit",
    "SDN.Use",
    "Sys.Audit",
    "Sys.Modify",
    "VM.Allocate",
    "VM.Audit",
    "VM.Clone",
    "VM.Config.CDROM",
    "VM.Config.CPU",
    "VM.Config.Cloudinit",
    "VM.Config.Disk",
    "VM.Config.HWType",
    "VM.Config.Memory",
    "VM.Config.Network",
    "VM.Config.Options",
    "VM.Console",
    "VM.GuestAgent.Audit",
    "VM.GuestAgent.Unrestricted",
    "VM.Migrate",
    "VM.PowerMgmt",
];

pub(super) fn probe(_: &mut Call<'_>) -> Result<Value, ApiError> {
    Ok(Value::Null)
}

pub(super) fn login(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let (user, password) = (call.text("username"), call.text("password"));
    let now = call.world.unix();
    let (user, ticket, csrf) = call
        .credentials
        .login(&user, call.params.get("realm"), &password, now)?;
    Ok(json!({
        "username": user, "ticket": ticket, "CSRFPreventionToken": csrf, "clustername": super::cluster::NAME,
        "cap": {"vms": {}, "nodes": {}, "storage": {}, "access": {}, "dc": {}, "sdn": {}, "mapping": {}},
    }))
}

pub(super) fn permissions(_: &mut Call<'_>) -> Result<Value, ApiError> {
    let all: serde_json::Map<String, Value> = PRIVILEGES
        .iter()
        .map(|name| ((*name).to_owned(), json!(1)))
        .collect();
    let paths = ["/", "/access", "/nodes", "/sdn", "/storage", "/vms"];
    Ok(paths
        .iter()
        .map(|path| ((*path).to_owned(), Value::Object(all.clone())))
        .collect::<serde_json::Map<_, _>>()
        .into())
}

pub(super) fn users(_: &mut Call<'_>) -> Result<Value, ApiError> {
    Ok(json!([{"userid": "root@pam", "enable": 1, "expire": 0, "realm-type": "pam"}]))
}

pub(super) fn pools(_: &mut Call<'_>) -> Result<Value, ApiError> {
    Ok(json!([]))
}
