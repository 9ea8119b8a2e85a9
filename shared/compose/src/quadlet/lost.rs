//! Keys that have no counterpart in a unit, and what to do without them.

use super::writer::{From, Writer};
use crate::model::Service;
use crate::notice::Notice;

/// Keys that are never exported, because they take away what isolates a container. `--strict` refuses them.
const REFUSED: &[(&str, &str)] = &[
    ("privileged", "grants every right"),
    ("cap_add", "grants capabilities"),
    ("devices", "grants devices"),
    ("device_cgroup_rules", "grants devices"),
    ("pid", "shares processes"),
    ("ipc", "shares memory"),
    ("uts", "shares the host's name"),
    ("userns_mode", "changes the user namespace"),
    ("cgroup", "shares control groups"),
    ("volumes_from", "takes the mounts of others"),
    ("use_api_socket", "hands out the engine"),
];

/// Keys for which units have no word.
const MISSING: &[(&str, &str)] = &[
    (
        "blkio_config",
        "set IOWeight= and its like in a drop-in of the service",
    ),
    ("cgroup_parent", "set Slice= in a drop-in of the service"),
    ("cpu_count", "use `cpus`"),
    ("cpu_percent", "use `cpus`"),
    ("cpu_period", "use `cpus`"),
    ("cpu_quota", "use `cpus`"),
    ("cpu_rt_period", "leave it out"),
    ("cpu_rt_runtime", "leave it out"),
    ("cpu_shares", "set CPUWeight= in a drop-in of the service"),
    ("cpuset", "set AllowedCPUs= in a drop-in of the service"),
    ("credential_spec", "leave it out: it is for Windows"),
    ("deploy.endpoint_mode", "leave it out: there is one host"),
    ("deploy.placement", "leave it out: there is one host"),
    ("deploy.resources.limits.devices", "see `devices`"),
    (
        "deploy.resources.reservations.cpus",
        "set CPUWeight= in a drop-in of the service",
    ),
    (
        "deploy.resources.reservations.memory",
        "set MemoryLow= in a drop-in of the service",
    ),
    (
        "deploy.restart_policy.delay",
        "set RestartSec= in a drop-in of the service",
    ),
    (
        "deploy.restart_policy.window",
        "set StartLimitIntervalSec= in a drop-in of the service",
    ),
    ("deploy.rollback_config", "keep the last units to go back to"),
    (
        "deploy.update_config",
        "export again and restart the services one by one",
    ),
    ("domainname", "write the whole name as `hostname`"),
    ("external_links", "put both into one external network"),
    ("healthcheck.start_interval", "use `start_period`"),
    ("isolation", "leave it out: it is for Windows"),
    ("label_file", "write the labels into the Compose file"),
    (
        "mac_address",
        "set it for the network: `networks.<name>.mac_address`",
    ),
    ("mem_reservation", "set MemoryLow= in a drop-in of the service"),
    ("mem_swappiness", "set MemorySwapMax= in a drop-in of the service"),
    ("memswap_limit", "set MemorySwapMax= in a drop-in of the service"),
    ("models", "run the model as a service of its own"),
    ("oom_kill_disable", "set OOMPolicy= in a drop-in of the service"),
    ("oom_score_adj", "set OOMScoreAdjust= in a drop-in of the service"),
    ("platform", "pull the image for this platform before"),
    ("post_start", "set ExecStartPost= in a drop-in of the service"),
    ("pre_stop", "set ExecStop= in a drop-in of the service"),
    ("provider", "make what it provides by hand"),
    (
        "pull_refresh_after",
        "set the label io.containers.autoupdate=registry",
    ),
    ("runtime", "set the runtime in containers.conf"),
    ("stdin_open", "leave it out: a unit has no input"),
    ("storage_opt", "limit the file system below"),
    ("tty", "leave it out: a unit has no terminal"),
];

/// Tells everything of a service that a unit cannot hold. `unit` is the file it would stand in, `units` how
/// many of it are written.
pub(super) fn tell(service: &Service, unit: &str, units: usize, writer: &mut Writer<'_>) {
    let from = |path: &str| From {
        at: service.at(path),
        key: format!("services.{}.{path}", service.name),
    };
    for (key, does) in REFUSED {
        if service.has(key) {
            writer.warn(
                &from(key),
                format!("{does} and is never exported"),
                format!("write what is needed into {unit}.d/10-local.conf"),
            );
        }
    }
    for (key, advice) in MISSING {
        if service.has(key) {
            writer.warn(&from(key), "has no counterpart, it is left out", *advice);
        }
    }
    if !service.gpus.is_empty() {
        let path = if service.has("gpus") {
            "gpus"
        } else {
            "deploy.resources.reservations.devices"
        };
        writer.warn(
            &from(path),
            "grants devices and is never exported",
            format!("write `[Container]` and `AddDevice=nvidia.com/gpu=all` into {unit}.d/10-gpu.conf"),
        );
    }
    if usize::try_from(service.replicas) != Ok(units) {
        let path = if service.has("scale") {
            "scale"
        } else {
            "deploy.replicas"
        };
        writer.warn(
            &from(path),
            format!("asks for {} of it, {units} is exported", service.replicas),
            "publish no port of it, or write a service for each",
        );
    }
    for link in service
        .node
        .get("links")
        .and_then(|node| node.as_seq())
        .unwrap_or_default()
    {
        let text = link.as_str().unwrap_or_default();
        if let Some((name, alias)) = text.split_once(':')
            && name != alias
        {
            writer.warn(
                &From {
                    at: link.at.clone(),
                    key: format!("services.{}.links", service.name),
                },
                format!("the name {alias} for {name} is left out"),
                format!("add it to `services.{name}.networks.<name>.aliases`"),
            );
        }
    }
    if service.nimbus.backend.is_some() || service.nimbus.idle_timeout.is_some() || service.nimbus.snapshot {
        writer.notice(Notice::info(
            &service.at("x-nimbus"),
            format!("services.{}.x-nimbus", service.name),
            "is read by `nimbus compose up` only",
            "nothing needs to be done",
        ));
    }
}
