//! What services share: networks, volumes, the pod, and the files they are given.

use std::net::IpAddr;

use super::container::origin;
use super::directive::Section::{Container, Install, Network, Pod, Service as Manager, Unit, Volume};
use super::writer::{From, Writer, header};
use super::{Artifact, Export, ExportError, Plan};
use crate::model::{Material, Mount, MountKind, Port, Service, Source};
use crate::notice::{Notice, Origin};

/// The socket of Docker, which many dashboards and proxies want to see.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";

fn key_of(plan: &Plan<'_>, kind: &str, name: &str, at: &Origin) -> From {
    From {
        // What nobody has written down, such as the default network, is the whole file's.
        at: if at.file.is_empty() {
            plan.whole_file()
        } else {
            at.clone()
        },
        key: format!("{kind}.{name}"),
    }
}

/// Writes the mounts of a service.
pub(super) fn mounts(plan: &Plan<'_>, service: &Service, writer: &mut Writer<'_>) -> Result<(), ExportError> {
    for mount in &service.mounts {
        let from = From {
            at: mount.at.clone(),
            key: format!("services.{}.volumes", service.name),
        };
        match (mount.kind, &mount.source) {
            (MountKind::Tmpfs, _) => {
                let size = mount.size.map(|size| format!("size={size}"));
                let mode = mount.mode.as_ref().map(|mode| format!("mode={mode}"));
                let options: Vec<String> = size.into_iter().chain(mode).collect();
                let mut value = mount.target.clone();
                if !options.is_empty() {
                    value.push_str(&format!(":{}", options.join(",")));
                }
                writer.put(Container, "Tmpfs", &value, &from)?;
            }
            (MountKind::Other, _) => {
                writer.warn(
                    &from,
                    "is a kind of mount that units do not have",
                    "use a bind or a volume",
                );
            }
            (_, None) => {
                writer.warn(
                    &from,
                    format!(
                        "what is written to {} is lost whenever the unit stops",
                        mount.target
                    ),
                    "give the volume a name",
                );
                writer.put(Container, "Volume", &mount.target, &from)?;
            }
            (MountKind::Bind, Some(source)) => {
                if source == DOCKER_SOCKET || source == "/run/docker.sock" {
                    writer.warn(
                        &from,
                        "hands out Docker's socket, which is not Podman's",
                        "mount /run/podman/podman.sock, or %t/podman/podman.sock of a user, from a drop-in",
                    );
                }
                volume(&plan.host_path(source), mount, writer, &from)?;
            }
            (MountKind::Volume, Some(source)) => {
                let is_foreign = plan
                    .project
                    .volumes
                    .get(source)
                    .is_some_and(|volume| volume.external);
                let name = match plan.project.volumes.get(source) {
                    Some(volume) if is_foreign => volume.name.clone(),
                    _ => format!("{}.volume", plan.unit(source)),
                };
                if let Some(folder) = &mount.subpath {
                    let mut value = format!(
                        "type=volume,source={name},destination={},subpath={folder}",
                        mount.target
                    );
                    if mount.read_only {
                        value.push_str(",readonly=true");
                    }
                    writer.put(Container, "Mount", &value, &from)?;
                } else {
                    volume(&name, mount, writer, &from)?;
                }
            }
        }
    }
    for target in &service.tmpfs {
        writer.put(Container, "Tmpfs", target, &origin(service, "tmpfs"))?;
    }
    Ok(())
}

fn volume(source: &str, mount: &Mount, writer: &mut Writer<'_>, from: &From) -> Result<(), ExportError> {
    if source.contains(':') || mount.target.contains(':') {
        writer.warn(
            from,
            "has a colon in its path, it is left out",
            "rename the folder",
        );
        return Ok(());
    }
    let mut options: Vec<&str> = Vec::new();
    if mount.read_only {
        options.push("ro");
    }
    options.extend(mount.selinux.as_deref());
    options.extend(mount.propagation.as_deref());
    if mount.nocopy {
        options.push("nocopy");
    }
    let mut value = format!("{source}:{}", mount.target);
    if !options.is_empty() {
        value.push(':');
        value.push_str(&options.join(","));
    }
    writer.put(Container, "Volume", &value, from)
}

/// Writes the secrets and configs of a service.
pub(super) fn grants(plan: &Plan<'_>, service: &Service, writer: &mut Writer<'_>) -> Result<(), ExportError> {
    for grant in &service.secrets {
        let from = From {
            at: grant.at.clone(),
            key: format!("services.{}.secrets", service.name),
        };
        let name = match plan
            .project
            .secrets
            .get(&grant.source)
            .map(|secret| &secret.source)
        {
            Some(Source::External(name)) => name.clone(),
            _ => plan.unit(&grant.source),
        };
        let target = match grant.target.as_deref() {
            Some(path) if path.starts_with('/') => path.to_owned(),
            Some(file) => format!("/run/secrets/{file}"),
            None => format!("/run/secrets/{}", grant.source),
        };
        let mut value = format!("{name},type=mount,target={target}");
        for (key, said) in [("uid", &grant.uid), ("gid", &grant.gid), ("mode", &grant.mode)] {
            if let Some(said) = said {
                value.push_str(&format!(",{key}={said}"));
            }
        }
        writer.put(Container, "Secret", &value, &from)?;
    }
    for grant in &service.configs {
        let from = From {
            at: grant.at.clone(),
            key: format!("services.{}.configs", service.name),
        };
        let target = match grant.target.as_deref() {
            Some(path) if path.starts_with('/') => path.to_owned(),
            Some(path) => format!("/{path}"),
            None => format!("/{}", grant.source),
        };
        let source = match plan.project.configs.get(&grant.source) {
            Some(Material {
                source: Source::File(path),
                ..
            }) => plan.host_path(path),
            Some(Material {
                source: Source::Content(_),
                ..
            }) => format!("./{}", config_file(plan, &grant.source)),
            _ => {
                writer.warn(
                    &from,
                    format!("the content of {} is not in a file, it is left out", grant.source),
                    "write it into a file and name that with `file`",
                );
                continue;
            }
        };
        writer.put(Container, "Volume", &format!("{source}:{target}:ro"), &from)?;
    }
    Ok(())
}

fn config_file(plan: &Plan<'_>, name: &str) -> String {
    format!("{}.config", plan.unit(name))
}

/// Writes contents that stand in the Compose file into files beside the units.
pub(super) fn configs(plan: &Plan<'_>, out: &mut Export) {
    for (name, config) in &plan.project.configs {
        let is_used = plan
            .services
            .iter()
            .any(|service| service.configs.iter().any(|grant| grant.source == *name));
        if let (true, Source::Content(content)) = (is_used, &config.source) {
            out.artifacts.push(Artifact {
                name: config_file(plan, name),
                text: content.clone(),
            });
        }
    }
}

/// Says which folders have to be there: Compose makes them, Podman refuses to start.
pub(super) fn folders(plan: &Plan<'_>, out: &mut Export) {
    let mut folders: Vec<String> = Vec::new();
    let mut first = None;
    for mount in plan.services.iter().flat_map(|service| &service.mounts) {
        let Some(source) = mount.source.as_deref().filter(|_| mount.kind == MountKind::Bind) else {
            continue;
        };
        let inside = crate::path::relative(&plan.project.root, source.into());
        if inside
            .is_some_and(|inside| !inside.as_str().is_empty() && !plan.project.root.join(inside).exists())
        {
            first.get_or_insert_with(|| mount.at.clone());
            let folder = plan.host_path(source);
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
    }
    if let Some(at) = first {
        out.notices.push(Notice::info(
            &at,
            "volumes",
            "Podman does not make the files and folders that are bound into a container",
            format!("see that they are there: {}", folders.join(" ")),
        ));
    }
}

/// Says how the secrets get to Podman.
pub(super) fn secrets(plan: &Plan<'_>, out: &mut Export) {
    for (name, secret) in &plan.project.secrets {
        let is_used = plan
            .services
            .iter()
            .any(|service| service.secrets.iter().any(|grant| grant.source == *name));
        if !is_used {
            continue;
        }
        let unit = plan.unit(name);
        let advice = match &secret.source {
            Source::File(path) => format!("run `podman secret create {unit} {}` once", plan.host_path(path)),
            Source::Environment(variable) => {
                format!("run `podman secret create --env {unit} {variable}` once")
            }
            Source::Content(_) => {
                format!("run `podman secret create {unit} -` once, with the content as input")
            }
            Source::External(name) => format!("see that `podman secret inspect {name}` finds it"),
        };
        let key = format!("secrets.{name}");
        let what = "is taken from Podman's own secrets";
        out.notices.push(Notice::info(&secret.at, key, what, advice));
    }
}

/// Writes the ports of a service.
pub(super) fn ports(service: &Service, writer: &mut Writer<'_>) -> Result<(), ExportError> {
    for port in &service.ports {
        let from = From {
            at: port.at.clone(),
            key: format!("services.{}.ports", service.name),
        };
        let value = published(port, writer, &from);
        writer.put(Container, "PublishPort", &value, &from)?;
    }
    Ok(())
}

fn published(port: &Port, writer: &mut Writer<'_>, from: &From) -> String {
    let address = match port.address.as_deref() {
        Some(address) if address.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6()) => {
            format!("[{address}]")
        }
        Some(address) => address.to_owned(),
        None => {
            let shown = port.published.clone().unwrap_or_default();
            writer.notice(Notice::info(
                &from.at,
                &from.key,
                format!("port {} is open to this host alone", port.target),
                format!("write 0.0.0.0:{shown}:{} to open it to others", port.target),
            ));
            "127.0.0.1".to_owned()
        }
    };
    let host = match port.published.as_deref() {
        Some(range) => match range.split_once('-') {
            Some((first, _)) => {
                writer.warn(
                    from,
                    format!("of the ports {range} the first one is taken"),
                    "name the one that is meant",
                );
                first.to_owned()
            }
            None => range.to_owned(),
        },
        None => String::new(),
    };
    let protocol = match port.protocol.as_str() {
        "tcp" => String::new(),
        other => format!("/{other}"),
    };
    format!("{address}:{host}:{}{protocol}", port.target)
}

/// Writes which networks a service is in, and how it is called there.
pub(super) fn attachments(
    plan: &Plan<'_>,
    service: &Service,
    writer: &mut Writer<'_>,
) -> Result<(), ExportError> {
    if let Some(mode) = service.network_mode.as_deref() {
        let from = origin(service, "network_mode");
        return match mode {
            "none" => writer.put(Container, "Network", "none", &from),
            "bridge" => Ok(()),
            _ => {
                writer.warn(
                    &from,
                    format!("`{mode}` shares the network of others and is never exported"),
                    "put the services into one network, or export with --mode pod",
                );
                Ok(())
            }
        };
    }
    for (name, attachment) in &service.networks {
        let from = origin(service, &format!("networks.{name}"));
        let network = network_name(plan, name);
        // Others reach it by the names that Compose gives it.
        let mut options: Vec<String> = Vec::new();
        for alias in [Some(&service.name), service.container_name.as_ref()]
            .into_iter()
            .flatten()
            .chain(&attachment.aliases)
        {
            let option = format!("alias={alias}");
            if !options.contains(&option) {
                options.push(option);
            }
        }
        for (key, said) in [
            ("ip", &attachment.ipv4),
            ("ip6", &attachment.ipv6),
            ("mac", &attachment.mac),
        ] {
            options.extend(said.as_ref().map(|said| format!("{key}={said}")));
        }
        let value = format!("{network}:{}", options.join(","));
        writer.put(Container, "Network", &value, &from)?;
    }
    Ok(())
}

fn network_name(plan: &Plan<'_>, name: &str) -> String {
    match plan.project.networks.get(name) {
        Some(network) if network.external => network.name.clone(),
        _ => format!("{}.network", plan.unit(name)),
    }
}

/// Writes the networks that the services are in.
pub(super) fn networks(plan: &Plan<'_>, out: &mut Export) -> Result<(), ExportError> {
    for (name, network) in &plan.project.networks {
        let is_used = plan
            .services
            .iter()
            .any(|service| service.networks.contains_key(name));
        if !is_used || network.external {
            continue;
        }
        let from = key_of(plan, "networks", name, &network.node.at);
        let mut writer = Writer::new(plan.options.podman, &mut out.notices);
        let description = format!("Network {name} of {}", plan.project.name);
        writer.put(Unit, "Description", &description, &from)?;
        writer.put(Network, "NetworkName", &network.name, &from)?;
        match network.driver.as_deref() {
            None | Some("bridge" | "default") => {}
            Some(driver @ ("macvlan" | "ipvlan")) => writer.put(Network, "Driver", driver, &from)?,
            Some(driver) => writer.warn(
                &from,
                format!("Podman has no network driver {driver}, it becomes a bridge"),
                "use bridge, macvlan or ipvlan",
            ),
        }
        if network.internal {
            writer.put(Network, "Internal", "true", &from)?;
        }
        if network.ipv6 {
            writer.put(Network, "IPv6", "true", &from)?;
        }
        for subnet in &network.subnets {
            for (key, said) in [
                ("Subnet", &subnet.subnet),
                ("Gateway", &subnet.gateway),
                ("IPRange", &subnet.range),
            ] {
                if let Some(said) = said {
                    writer.put(Network, key, said, &from)?;
                }
            }
        }
        for (key, value) in &network.driver_opts {
            if key.starts_with("com.docker.") {
                writer.warn(
                    &from,
                    format!("{key} is an option of Docker alone"),
                    "leave it out",
                );
            } else {
                writer.put(Network, "Options", &format!("{key}={value}"), &from)?;
            }
        }
        for (key, value) in &network.labels {
            writer.put(Network, "Label", &format!("{key}={value}"), &from)?;
        }
        let text = writer.seal(&header(plan, "network", "-")?)?;
        let file = format!("{}.network", plan.unit(name));
        out.artifacts.push(Artifact { name: file, text });
    }
    Ok(())
}

/// Writes the volumes that the services use.
pub(super) fn volumes(plan: &Plan<'_>, out: &mut Export) -> Result<(), ExportError> {
    for (name, volume) in &plan.project.volumes {
        let is_used = plan
            .services
            .iter()
            .flat_map(|service| &service.mounts)
            .any(|mount| mount.kind == MountKind::Volume && mount.source.as_ref() == Some(name));
        if !is_used || volume.external {
            continue;
        }
        let from = key_of(plan, "volumes", name, &volume.node.at);
        let mut writer = Writer::new(plan.options.podman, &mut out.notices);
        let description = format!("Volume {name} of {}", plan.project.name);
        writer.put(Unit, "Description", &description, &from)?;
        writer.put(Volume, "VolumeName", &volume.name, &from)?;
        match volume.driver.as_deref() {
            None | Some("local") => {}
            Some(driver) => writer.put(Volume, "Driver", driver, &from)?,
        }
        for (key, value) in &volume.driver_opts {
            match key.as_str() {
                "type" => writer.put(Volume, "Type", value, &from)?,
                "device" => writer.put(Volume, "Device", value, &from)?,
                "o" => writer.put(Volume, "Options", value, &from)?,
                "image" if volume.driver.as_deref() == Some("image") => {
                    writer.put(Volume, "Image", value, &from)?;
                }
                _ => writer.warn(
                    &from,
                    format!("the driver option {key} has no counterpart"),
                    "leave it out",
                ),
            }
        }
        for (key, value) in &volume.labels {
            writer.put(Volume, "Label", &format!("{key}={value}"), &from)?;
        }
        let text = writer.seal(&header(plan, "volume", "-")?)?;
        let file = format!("{}.volume", plan.unit(name));
        out.artifacts.push(Artifact { name: file, text });
    }
    Ok(())
}

/// Writes the pod that all services are in.
pub(super) fn pod(plan: &Plan<'_>, out: &mut Export) -> Result<(), ExportError> {
    let mut writer = Writer::new(plan.options.podman, &mut out.notices);
    let own = From {
        at: Origin::default(),
        key: "name".to_owned(),
    };
    writer.put(
        Unit,
        "Description",
        &format!("Pod of {}", plan.project.name),
        &own,
    )?;
    writer.put(Unit, "Wants", "network-online.target", &own)?;
    writer.put(Unit, "After", "network-online.target", &own)?;
    writer.put(Pod, "PodName", &plan.own(), &own)?;
    let mut networks: Vec<&str> = Vec::new();
    let mut targets: Vec<(u16, &str, &str)> = Vec::new();
    for service in &plan.services {
        if let Some(mode) = service.network_mode.as_deref()
            && mode != "bridge"
        {
            writer.warn(
                &origin(service, "network_mode"),
                format!("`{mode}` is left out: all containers of a pod share its network"),
                "leave the service out with --service",
            );
        }
        for name in service
            .networks
            .keys()
            .filter(|name| !networks.contains(&name.as_str()))
            .collect::<Vec<_>>()
        {
            networks.push(name);
            let value = network_name(plan, name);
            let from = origin(service, &format!("networks.{name}"));
            writer.put(Pod, "Network", &value, &from)?;
        }
        for port in &service.ports {
            let from = From {
                at: port.at.clone(),
                key: format!("services.{}.ports", service.name),
            };
            if let Some((_, _, other)) = targets
                .iter()
                .find(|(target, protocol, name)| {
                    *target == port.target && *protocol == port.protocol && *name != service.name
                })
                .copied()
            {
                writer.warn(
                    &from,
                    format!(
                        "port {} is that of {other} too, and in a pod only one can have it",
                        port.target
                    ),
                    "export with --mode containers, or let one listen elsewhere",
                );
            }
            targets.push((port.target, &port.protocol, &service.name));
            let value = published(port, &mut writer, &from);
            writer.put(Pod, "PublishPort", &value, &from)?;
        }
    }
    // In a pod everybody is at home; the names that Compose gives lead there.
    for service in &plan.services {
        let from = origin(service, "networks");
        let aliases = service
            .networks
            .values()
            .flat_map(|attachment| &attachment.aliases);
        let mut told: Vec<&str> = Vec::new();
        for name in [Some(&service.name), service.container_name.as_ref()]
            .into_iter()
            .flatten()
            .chain(aliases)
        {
            if !told.contains(&name.as_str()) {
                told.push(name);
                writer.put(Pod, "AddHost", &format!("{name}:127.0.0.1"), &from)?;
            }
        }
        for (name, address) in &service.extra_hosts {
            let value = format!("{name}:{address}");
            writer.put(Pod, "AddHost", &value, &origin(service, "extra_hosts"))?;
        }
        for server in &service.dns {
            writer.put(Pod, "DNS", server, &origin(service, "dns"))?;
        }
    }
    let largest = plan
        .services
        .iter()
        .filter_map(|service| service.shm_size.map(|size| (size, service)));
    if let Some((size, service)) = largest.max_by_key(|(size, _)| *size) {
        writer.put(Pod, "ShmSize", &size.to_string(), &origin(service, "shm_size"))?;
    }
    writer.put(Manager, "Restart", "on-failure", &own)?;
    writer.put(Install, "WantedBy", "default.target", &own)?;
    let text = writer.seal(&header(plan, "pod", "-")?)?;
    let file = format!("{}.pod", plan.own());
    out.artifacts.push(Artifact { name: file, text });
    Ok(())
}
