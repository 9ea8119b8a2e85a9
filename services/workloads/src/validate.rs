//! What a request may say. Pure; every refusal names the field by its path in the JSON form.

mod names;
mod network;
mod process;

use nimbus_model::ImageRef;
use nimbus_proto::workloads::{
    Backend, HealthCheck, Mount, Owner, Policy, Probe, Provider, Resources, ResourcesWanted, Root,
    SandboxSpec,
};

pub(crate) use names::{labels, new_tenant_id, secret_name, service_name, tenant_id, volume_name};

use crate::error::WorkError;

const TTL_MS: std::ops::RangeInclusive<u64> = 1000..=86_400_000;
const STOP_TIMEOUT_MS: u32 = 300_000;
const MEMORY_LEAST: u64 = 1 << 20;
const MOUNTS: usize = 16;

/// For whom a specification is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene<'a> {
    pub(crate) tenant: &'a str,
    /// The service that it belongs to; none for a standalone one.
    pub(crate) service: Option<&'a str>,
    pub(crate) policy: Policy,
    /// The tenant's bounds on sums.
    pub(crate) cap: Resources,
    /// What the paths begin with.
    pub(crate) at: &'a str,
}

impl Scene<'_> {
    fn wrong(&self, field: &str, why: impl Into<String>) -> WorkError {
        WorkError::invalid(format!("{}.{field}", self.at), why)
    }

    fn sealed(&self, field: &str, why: &str) -> WorkError {
        WorkError::Sealed {
            field: format!("{}.{field}", self.at),
            why: why.to_owned(),
        }
    }
}

/// A sandbox' specification; gives its image in full form.
pub(crate) fn sandbox(spec: &SandboxSpec, scene: Scene<'_>) -> Result<ImageRef, WorkError> {
    if let Some(tenant) = &spec.tenant
        && tenant != scene.tenant
    {
        return Err(scene.wrong(
            "tenantId",
            format!("it must be {}, the tenant of the route", scene.tenant),
        ));
    }
    owner(&spec.owner, scene)?;
    let image = match &spec.root {
        Root::Image { reference } => reference
            .parse::<ImageRef>()
            .map_err(|error| scene.wrong("root.source.reference", error.to_string()))?,
        Root::Operator { kind } => {
            return Err(scene.wrong(
                "root.kind",
                format!("{kind} is for operators only; use oci_image with a reference"),
            ));
        }
    };
    process::check(&spec.process, scene)?;
    resources(spec.resources.as_ref(), scene)?;
    if let Some(ports) = &spec.ports {
        if !scene.policy.ports && !ports.is_empty() {
            return Err(scene.sealed("ports", "ports may not be published"));
        }
        network::ports(ports, scene)?;
    }
    if let Some(egress) = &spec.egress {
        if !scene.policy.egress && !egress.is_empty() {
            return Err(scene.sealed("network.egress", "nothing outside may be reached"));
        }
        network::egress(egress, scene)?;
    }
    if let Some(list) = &spec.mounts {
        if !scene.policy.mounts && !list.is_empty() {
            return Err(scene.sealed("mounts", "nothing may be mounted"));
        }
        mounts(list, scene)?;
    }
    if spec.stop_timeout_ms.is_some_and(|ms| ms > STOP_TIMEOUT_MS) {
        return Err(scene.wrong(
            "lifecycle.stopTimeoutMs",
            format!("it must be at most {STOP_TIMEOUT_MS}"),
        ));
    }
    if let Some(health) = &spec.health {
        self::health(health, scene)?;
    }
    times(spec.ttl_ms, spec.idle_timeout_ms, scene.at)?;
    Ok(image)
}

/// How long a sandbox may live.
pub(crate) fn times(ttl_ms: Option<u64>, idle_timeout_ms: Option<u64>, at: &str) -> Result<(), WorkError> {
    for (field, value) in [("ttlMs", ttl_ms), ("idleTimeoutMs", idle_timeout_ms)] {
        if value.is_some_and(|ms| !TTL_MS.contains(&ms)) {
            let field = if at.is_empty() {
                field.to_owned()
            } else {
                format!("{at}.{field}")
            };
            return Err(WorkError::invalid(
                field,
                format!("it must be within {} and {}", TTL_MS.start(), TTL_MS.end()),
            ));
        }
    }
    Ok(())
}

fn owner(owner: &Owner, scene: Scene<'_>) -> Result<(), WorkError> {
    match (owner, scene.service) {
        (Owner::Service { name: None }, Some(_)) => Ok(()),
        (Owner::Service { name: Some(name) }, Some(service)) if name == service => Ok(()),
        (Owner::Service { .. }, Some(service)) => Err(scene.wrong(
            "owner.serviceName",
            format!("it must be {service}, the name of the service"),
        )),
        (Owner::Standalone { .. }, Some(_)) => Err(scene.wrong(
            "owner.kind",
            "a service's sandbox belongs to the service, it cannot be standalone",
        )),
        (Owner::Service { .. }, None) => Err(scene.wrong(
            "owner.kind",
            "sandboxes of services are made by starting the service; use standalone",
        )),
        (Owner::Standalone { display_name: None }, None) => Ok(()),
        (
            Owner::Standalone {
                display_name: Some(name),
            },
            None,
        ) => {
            if (1..=128).contains(&name.chars().count()) && !name.chars().any(char::is_control) {
                Ok(())
            } else {
                Err(scene.wrong(
                    "owner.displayName",
                    "it must have 1 to 128 characters and no control characters",
                ))
            }
        }
    }
}

fn resources(wanted: Option<&ResourcesWanted>, scene: Scene<'_>) -> Result<(), WorkError> {
    let Some(wanted) = wanted.filter(|wanted| **wanted != ResourcesWanted::default()) else {
        return Ok(());
    };
    if !scene.policy.resources {
        return Err(scene.sealed("resources", "limits other than the default may not be asked for"));
    }
    let cap = scene.cap;
    let fields = [
        (
            "vcpus",
            wanted.cpu_milli.map(u64::from),
            1,
            u64::from(cap.cpu_milli),
        ),
        ("memoryBytes", wanted.memory_bytes, MEMORY_LEAST, cap.memory_bytes),
        ("diskBytes", wanted.disk_bytes, 1, cap.disk_bytes),
        ("logBytes", wanted.log_bytes, 1, cap.log_bytes),
        ("pids", wanted.pids.map(u64::from), 1, u64::from(cap.pids)),
    ];
    for (field, value, least, most) in fields {
        let Some(value) = value else { continue };
        let path = format!("resources.{field}");
        if value < least {
            return Err(scene.wrong(&path, format!("it must be at least {least}")));
        }
        if value > most {
            return Err(scene.sealed(
                &path,
                &format!("it is more than the tenant may have at all ({most})"),
            ));
        }
    }
    Ok(())
}

fn mounts(list: &[Mount], scene: Scene<'_>) -> Result<(), WorkError> {
    if list.len() > MOUNTS {
        return Err(scene.wrong("mounts", format!("there may be at most {MOUNTS}")));
    }
    let mut targets = Vec::with_capacity(list.len());
    for (index, mount) in list.iter().enumerate() {
        let at = |field: &str| format!("mounts[{index}].{field}");
        let target = match mount {
            Mount::Volume { name, target, .. } => {
                volume_name(&format!("{}.{}", scene.at, at("name")), name)?;
                target
            }
            Mount::Tmpfs { target, size_bytes } => {
                if *size_bytes == Some(0) {
                    return Err(scene.wrong(&at("sizeBytes"), "it must be at least 1"));
                }
                target
            }
        };
        if !process::is_plain_path(target) || target == "/" {
            return Err(scene.wrong(
                &at("target"),
                "it must be an absolute path below / without . or ..",
            ));
        }
        let inside = |root: &str| target == root || target.starts_with(&format!("{root}/"));
        if ["/proc", "/sys", "/dev", "/.nimbus"].into_iter().any(inside) {
            return Err(scene.wrong(&at("target"), "this part of the file system is not for mounts"));
        }
        if targets.contains(&target) {
            return Err(scene.wrong(&at("target"), "something else is mounted there already"));
        }
        targets.push(target);
    }
    Ok(())
}

fn health(health: &HealthCheck, scene: Scene<'_>) -> Result<(), WorkError> {
    let bounds = [
        ("intervalMs", health.interval_ms, 100, 3_600_000),
        ("timeoutMs", health.timeout_ms, 1, 60_000),
        ("retries", health.retries, 1, 100),
        ("startPeriodMs", health.start_period_ms, 0, 3_600_000),
    ];
    for (field, value, least, most) in bounds {
        if !(least..=most).contains(&value) {
            return Err(scene.wrong(
                &format!("health.{field}"),
                format!("it must be within {least} and {most}"),
            ));
        }
    }
    match &health.probe {
        Probe::Http { path, port, expect } => {
            if !path.starts_with('/') || path.chars().any(|c| c.is_control() || c.is_whitespace()) {
                return Err(scene.wrong("health.path", "it must begin with / and be one word"));
            }
            if *port == Some(0) {
                return Err(scene.wrong("health.port", "it must be within 1 and 65535"));
            }
            let valid = 100..=599;
            if !valid.contains(&expect.0) || !valid.contains(&expect.1) || expect.0 > expect.1 {
                return Err(scene.wrong("health.expectStatus", "it must be a range of statuses"));
            }
        }
        Probe::Tcp { port } => {
            if *port == 0 {
                return Err(scene.wrong("health.port", "it must be within 1 and 65535"));
            }
        }
        Probe::Exec { argv } => {
            if argv.first().is_none_or(String::is_empty) || argv.iter().any(|one| one.contains('\0')) {
                return Err(scene.wrong("health.argv", "it must name a program"));
            }
        }
    }
    Ok(())
}

/// A service's backend; gives the image of one that is a sandbox.
pub(crate) fn backend(backend: &Backend, scene: Scene<'_>) -> Result<Option<ImageRef>, WorkError> {
    match backend {
        Backend::Sandbox(spec) => sandbox(spec, scene).map(Some),
        Backend::BuiltIn(
            Provider::LoadBalancer | Provider::ServiceDiscovery | Provider::Browser | Provider::ModelGateway,
        ) => Ok(None),
        Backend::External { url, health_path } => {
            network::external(url, health_path)?;
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests;
