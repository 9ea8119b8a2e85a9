//! The calls the simulator serves: one row each, with the parameters it takes.
//!
//! Names, types and ranges of parameters are those of the public API documentation of Proxmox VE, as
//! far as these calls need them.

mod access;
mod agent;
mod cluster;
mod lxc;
mod node;
mod power;
mod qemu;
mod storage;
mod tasks;

use std::sync::LazyLock;

use serde_json::Value;

use crate::auth::{Caller, Credentials};
use crate::error::ApiError;
use crate::formats;
use crate::guest::{Guest, GuestKind};
use crate::options::OPTIONS;
use crate::params::{Kind, Param, Params, opt, req};
use crate::task::NewTask;
use crate::work::Work;
use crate::world::World;

/// A call on its way.
pub(crate) struct Call<'a> {
    pub(crate) world: &'a mut World,
    pub(crate) credentials: &'a Credentials,
    pub(crate) caller: &'a Caller,
    pub(crate) params: Params,
    /// How the task of this call has to end, when a fault was ordered.
    pub(crate) doom: Option<String>,
    /// Whether a guest started by this call runs its agent.
    pub(crate) agent: bool,
}

pub(crate) type Handler = fn(&mut Call<'_>) -> Result<Value, ApiError>;

/// One call.
pub(crate) struct Route {
    pub(crate) method: &'static str,
    pub(crate) template: &'static str,
    pub(crate) params: &'static [&'static [Param]],
    pub(crate) handler: Handler,
}

impl Call<'_> {
    /// A parameter that is there, because it is required or part of the path.
    pub(crate) fn text(&self, name: &str) -> String {
        self.params.get(name).unwrap_or_default().to_owned()
    }

    pub(crate) fn vmid(&self) -> u32 {
        self.params.number("vmid").unwrap_or_default()
    }

    /// The machine in the path.
    pub(crate) fn machine(&self) -> Result<&Guest, ApiError> {
        let (node, vmid) = (self.text("node"), self.vmid());
        let found = self
            .world
            .guests
            .get(&vmid)
            .filter(|guest| guest.node == node && guest.kind == GuestKind::Qemu);
        found.ok_or_else(|| ApiError::no_such_config(&node, vmid))
    }

    /// The machine in the path, if its config is not locked.
    pub(crate) fn unlocked(&self) -> Result<&Guest, ApiError> {
        let guest = self.machine()?;
        match guest.lock() {
            Some(lock) => Err(ApiError::died(format!("VM is locked ({lock})"))),
            None => Ok(guest),
        }
    }

    /// Starts a worker on the node of the path.
    pub(crate) fn spawn(&mut self, kind: &'static str, id: &str, about: Option<u32>, work: Work) -> Value {
        let new = NewTask {
            node: self.text("node"),
            kind,
            id: id.to_owned(),
            user: self.caller.user.clone(),
            token: self.caller.token.clone(),
            about,
            work,
            doom: self.doom.take(),
        };
        Value::String(self.world.spawn(new))
    }

    /// Starts a worker on the machine of the path.
    pub(crate) fn spawn_for_machine(&mut self, kind: &'static str, work: Work) -> Value {
        let vmid = self.vmid();
        self.spawn(kind, &vmid.to_string(), Some(vmid), work)
    }
}

pub(crate) const VMID: Kind = Kind::Int(100, 999_999_999);
const NODE: Kind = Kind::Format(formats::node);
const STORAGE: Kind = Kind::Format(formats::storage);
const ANY: Kind = Kind::Int(0, i64::MAX);

/// Parameters that are parts of paths.
pub(crate) static PATH: &[Param] = &[
    opt("node", NODE),
    opt("vmid", VMID),
    opt("storage", STORAGE),
    opt("upid", Kind::Text),
    opt("volume", Kind::Text),
];

const TYPES: &[&str] = &["vm", "storage", "node", "sdn"];
const CONTENTS: &[&str] = &["iso", "vztmpl", "import"];
const HASHES: &[&str] = &["md5", "sha1", "sha224", "sha256", "sha384", "sha512"];

static LOGIN: &[Param] = &[
    req("username", Kind::Text).max_len(64),
    req("password", Kind::Text),
    opt("realm", Kind::Text).max_len(32),
    opt("otp", Kind::Text),
    opt("new-format", Kind::Flag),
];
static CHANGE: &[Param] = &[
    opt("delete", Kind::List),
    opt("revert", Kind::List),
    opt("digest", Kind::Text).max_len(40),
    opt("force", Kind::Flag),
    opt("skiplock", Kind::Flag),
];
static LATER: &[Param] = &[opt("background_delay", Kind::Int(1, 30))];
static CREATE: &[Param] = &[
    req("vmid", VMID),
    opt("start", Kind::Flag),
    opt("storage", STORAGE),
    opt("pool", Kind::Text),
    opt("unique", Kind::Flag),
    opt("bwlimit", ANY),
    opt("force", Kind::Flag),
];
static CLONE: &[Param] = &[
    req("newid", VMID),
    opt("name", Kind::Format(formats::dns_name)),
    opt("description", Kind::Text),
    opt("target", NODE),
    opt("full", Kind::Flag),
    opt("storage", STORAGE),
    opt("format", Kind::OneOf(&["raw", "qcow2", "vmdk"])),
    opt("pool", Kind::Text),
    opt("snapname", Kind::Text).max_len(40),
    opt("bwlimit", ANY),
];
static SKIPLOCK: &[Param] = &[opt("skiplock", Kind::Flag)];
static TIMEOUT: &[Param] = &[opt("timeout", ANY)];
static FORCE_STOP: &[Param] = &[opt("forceStop", Kind::Flag), opt("keepActive", Kind::Flag)];
static STOP: &[Param] = &[
    opt("overrule-shutdown", Kind::Flag),
    opt("keepActive", Kind::Flag),
];
static DESTROY: &[Param] = &[
    opt("purge", Kind::Flag),
    opt("destroy-unreferenced-disks", Kind::Flag),
];
static RESIZE: &[Param] = &[
    req("disk", Kind::Format(disk)),
    req("size", Kind::Format(formats::disk_size)),
    opt("digest", Kind::Text).max_len(40),
];
static TASKS: &[Param] = &[
    opt("vmid", VMID),
    opt("limit", ANY),
    opt("start", ANY),
    opt("source", Kind::OneOf(&["archive", "active", "all"])),
    opt("typefilter", Kind::Text),
    opt("userfilter", Kind::Text),
    opt("statusfilter", Kind::List),
    opt("errors", Kind::Flag),
    opt("since", ANY),
    opt("until", ANY),
];
static DOWNLOAD: &[Param] = &[
    req("url", Kind::Format(formats::url)),
    req("content", Kind::OneOf(CONTENTS)),
    req("filename", Kind::Text).max_len(255),
    opt("checksum", Kind::Text),
    opt("checksum-algorithm", Kind::OneOf(HASHES)),
    opt("compression", Kind::Text),
    opt("verify-certificates", Kind::Flag),
];
static STORAGES: &[Param] = &[
    opt("storage", STORAGE),
    opt("content", Kind::List),
    opt("enabled", Kind::Flag),
    opt("format", Kind::Flag),
    opt("target", NODE),
];
static EXEC: &[Param] = &[
    req("command", Kind::Words),
    opt("input-data", Kind::Text).max_len(65_536),
];

fn disk(value: &str) -> Result<(), String> {
    if crate::options::is_drive(value) {
        Ok(())
    } else {
        Err(format!(
            "value '{value}' does not have a value in the enumeration"
        ))
    }
}

macro_rules! routes {
    ($($method:ident $template:literal => $handler:path $([$($table:expr),*])?;)*) => {
        &[$(Route {
            method: stringify!($method),
            template: $template,
            params: &[$($($table),*)?],
            handler: $handler,
        }),*]
    };
}

pub(crate) static ROUTES: &[Route] = routes! {
    GET "/" => node::api_index;
    GET "/version" => node::version;
    GET "/access/ticket" => access::probe;
    POST "/access/ticket" => access::login [LOGIN];
    GET "/access/permissions" => access::permissions [&[opt("path", Kind::Text), opt("userid", Kind::Text)]];
    GET "/access/users" => access::users [&[opt("enabled", Kind::Flag), opt("full", Kind::Flag)]];
    GET "/pools" => access::pools [&[opt("poolid", Kind::Text), opt("type", Kind::OneOf(&["qemu", "lxc", "storage"]))]];
    GET "/cluster" => cluster::index;
    GET "/cluster/status" => cluster::status;
    GET "/cluster/resources" => cluster::resources [&[opt("type", Kind::OneOf(TYPES))]];
    GET "/cluster/nextid" => cluster::next_id [&[opt("vmid", VMID)]];
    GET "/cluster/options" => cluster::options;
    GET "/cluster/tasks" => tasks::of_cluster;
    GET "/nodes" => node::list;
    GET "/nodes/{node}" => node::index;
    GET "/nodes/{node}/status" => node::status;
    GET "/nodes/{node}/version" => node::version;
    GET "/nodes/{node}/network" => node::network [&[opt("type", Kind::Text)]];
    GET "/nodes/{node}/tasks" => tasks::list [TASKS];
    GET "/nodes/{node}/tasks/{upid}/status" => tasks::status;
    GET "/nodes/{node}/tasks/{upid}/log" => tasks::log [&[opt("limit", ANY), opt("start", ANY), opt("download", Kind::Flag)]];
    DELETE "/nodes/{node}/tasks/{upid}" => tasks::stop;
    GET "/storage" => storage::configured [&[opt("type", Kind::Text)]];
    GET "/storage/{storage}" => storage::configuration;
    GET "/nodes/{node}/storage" => storage::list [STORAGES];
    GET "/nodes/{node}/storage/{storage}/status" => storage::status;
    GET "/nodes/{node}/storage/{storage}/content" => storage::content [&[opt("content", Kind::Text), opt("vmid", VMID)]];
    DELETE "/nodes/{node}/storage/{storage}/content/{volume}" => storage::delete [&[opt("delay", Kind::Int(1, 30))]];
    POST "/nodes/{node}/storage/{storage}/download-url" => storage::download [DOWNLOAD];
    GET "/nodes/{node}/lxc" => lxc::list;
    GET "/nodes/{node}/lxc/{vmid}" => qemu::index;
    GET "/nodes/{node}/lxc/{vmid}/config" => lxc::config [&[opt("current", Kind::Flag), opt("snapshot", Kind::Text)]];
    GET "/nodes/{node}/lxc/{vmid}/status/current" => lxc::current;
    GET "/nodes/{node}/qemu" => qemu::list [&[opt("full", Kind::Flag)]];
    POST "/nodes/{node}/qemu" => qemu::create [CREATE, OPTIONS];
    GET "/nodes/{node}/qemu/{vmid}" => qemu::index;
    DELETE "/nodes/{node}/qemu/{vmid}" => qemu::destroy [DESTROY, SKIPLOCK];
    GET "/nodes/{node}/qemu/{vmid}/config" => qemu::config [&[opt("current", Kind::Flag), opt("snapshot", Kind::Text)]];
    POST "/nodes/{node}/qemu/{vmid}/config" => qemu::set_config_later [CHANGE, LATER, OPTIONS];
    PUT "/nodes/{node}/qemu/{vmid}/config" => qemu::set_config_now [CHANGE, OPTIONS];
    GET "/nodes/{node}/qemu/{vmid}/pending" => qemu::pending;
    POST "/nodes/{node}/qemu/{vmid}/clone" => qemu::clone [CLONE];
    PUT "/nodes/{node}/qemu/{vmid}/resize" => qemu::resize [RESIZE, SKIPLOCK];
    POST "/nodes/{node}/qemu/{vmid}/template" => qemu::template [&[opt("disk", Kind::Format(disk))]];
    GET "/nodes/{node}/qemu/{vmid}/snapshot" => qemu::snapshots;
    GET "/nodes/{node}/qemu/{vmid}/status/current" => qemu::current;
    POST "/nodes/{node}/qemu/{vmid}/status/start" => power::start [SKIPLOCK, TIMEOUT];
    POST "/nodes/{node}/qemu/{vmid}/status/stop" => power::stop [SKIPLOCK, TIMEOUT, STOP];
    POST "/nodes/{node}/qemu/{vmid}/status/shutdown" => power::shutdown [SKIPLOCK, TIMEOUT, FORCE_STOP];
    POST "/nodes/{node}/qemu/{vmid}/status/reboot" => power::reboot [TIMEOUT];
    POST "/nodes/{node}/qemu/{vmid}/status/reset" => power::reset [SKIPLOCK];
    POST "/nodes/{node}/qemu/{vmid}/status/suspend" => power::suspend [SKIPLOCK, &[opt("todisk", Kind::Flag), opt("statestorage", STORAGE)]];
    POST "/nodes/{node}/qemu/{vmid}/status/resume" => power::resume [SKIPLOCK, &[opt("nocheck", Kind::Flag)]];
    GET "/nodes/{node}/qemu/{vmid}/agent/network-get-interfaces" => agent::interfaces;
    GET "/nodes/{node}/qemu/{vmid}/agent/get-osinfo" => agent::os_info;
    POST "/nodes/{node}/qemu/{vmid}/agent/ping" => agent::ping;
    POST "/nodes/{node}/qemu/{vmid}/agent/exec" => agent::exec [EXEC];
    GET "/nodes/{node}/qemu/{vmid}/agent/exec-status" => agent::exec_status [&[req("pid", ANY)]];
};

/// A call the simulator serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedCall {
    /// Method.
    pub method: &'static str,
    /// Path with names for its variable parts.
    pub template: &'static str,
    /// Names of its parameters in query or body; `net[n]` is a numbered family.
    pub params: Vec<String>,
}

/// All calls the simulator serves; everything else is answered with 501.
#[must_use]
pub fn served_calls() -> Vec<ServedCall> {
    let params = |route: &Route| {
        route
            .params
            .iter()
            .flat_map(|table| table.iter())
            .map(Param::shown)
            .collect()
    };
    ROUTES
        .iter()
        .map(|route| ServedCall {
            method: route.method,
            template: route.template,
            params: params(route),
        })
        .collect()
}

/// The templates, split once.
static SPLIT: LazyLock<Vec<Vec<&'static str>>> = LazyLock::new(|| {
    ROUTES
        .iter()
        .map(|route| route.template.split('/').skip(1).collect())
        .collect()
});

/// The call of a method and path, and the values in its path.
pub(crate) fn find(method: &str, path: &str) -> Option<(&'static Route, Vec<(String, String)>)> {
    let decode = |part: &str| {
        percent_encoding::percent_decode_str(part)
            .decode_utf8_lossy()
            .into_owned()
    };
    let path = path.trim_end_matches('/');
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let segments = if segments.is_empty() { vec![""] } else { segments };
    ROUTES
        .iter()
        .zip(SPLIT.iter())
        .filter(|(route, _)| route.method == method)
        .find_map(|(route, template)| {
            if template.len() != segments.len() {
                return None;
            }
            let mut values = Vec::new();
            for (part, segment) in template.iter().zip(&segments) {
                match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
                    Some(name) if !segment.is_empty() => values.push((name.to_owned(), decode(segment))),
                    Some(_) => return None,
                    None if part == segment => {}
                    None => return None,
                }
            }
            Some((route, values))
        })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_call_is_found_by_its_own_path() {
        let mut seen = HashSet::new();
        for route in ROUTES {
            assert!(
                seen.insert((route.method, route.template)),
                "{} {} twice",
                route.method,
                route.template
            );
            let path = route
                .template
                .replace("{node}", "pve1")
                .replace("{vmid}", "100")
                .replace("{storage}", "local");
            let path = path
                .replace("{upid}", "UPID%3Apve1")
                .replace("{volume}", "local%3Aiso%2Fx.iso");
            let (found, _) = find(route.method, &path).expect("every template matches its own path");
            assert_eq!(found.template, route.template);
        }
    }

    #[test]
    fn paths_are_decoded() {
        let (route, values) =
            find("GET", "/nodes/pve1/tasks/UPID%3Apve1%3A%40/status").expect("there is such a call");
        assert_eq!(route.template, "/nodes/{node}/tasks/{upid}/status");
        assert_eq!(
            values,
            [
                ("node".to_owned(), "pve1".to_owned()),
                ("upid".to_owned(), "UPID:pve1:@".to_owned())
            ]
        );
        for (method, path) in [
            ("GET", "/nope"),
            ("PATCH", "/version"),
            ("GET", "/nodes//qemu"),
            ("GET", "/nodes/a/b/c/d/e"),
        ] {
            assert!(find(method, path).is_none(), "{method} {path}");
        }
        assert!(find("GET", "/version/").is_some());
    }
}
