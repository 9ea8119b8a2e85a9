//! One service.

use camino::Utf8Path;
use indexmap::IndexMap;

use super::value::Reader;
use crate::canonical::SERVICE;
use crate::error::ComposeError;
use crate::load::{Surroundings, variables_of};
use crate::model::{
    Attachment, Build, Condition, Dependency, Gpu, Grant, Health, Logging, Mount, MountKind, NimbusKeys,
    Port, Project, Restart, Service, Test, Texts,
};
use crate::notice::{Notice, Origin};
use crate::yaml::{Node, Value};

pub(super) fn read(
    name: &str,
    node: &Node,
    project: &Project,
    variables: &Surroundings,
    notices: &mut Vec<Notice>,
) -> Result<Service, ComposeError> {
    let key = format!("services.{name}");
    let reader = Reader::new(node, &key);
    unknown_keys(node, &key, notices);
    let build = build(&reader)?;
    let image = match (reader.filled("image")?, &build) {
        (Some(image), _) => image,
        (None, Some(_)) => format!("nimbus-{}-{name}", project.name),
        (None, None) => {
            return Err(ComposeError::invalid(
                &node.at,
                key,
                "expected an image, or how to build one",
            ));
        }
    };
    let network_mode = reader.filled("network_mode")?;
    Ok(Service {
        name: name.to_owned(),
        image,
        build,
        command: reader.words("command")?,
        entrypoint: reader.words("entrypoint")?,
        environment: environment(&reader, variables, notices)?,
        working_dir: reader.filled("working_dir")?,
        user: reader.filled("user")?,
        container_name: reader.filled("container_name")?,
        hostname: reader.filled("hostname")?,
        labels: reader.texts("labels")?,
        annotations: reader.texts("annotations")?,
        ports: ports(&reader)?,
        mounts: mounts(&reader)?,
        tmpfs: reader.strings("tmpfs")?,
        networks: networks(&reader, network_mode.as_deref())?,
        network_mode,
        depends_on: depends_on(&reader)?,
        health: health(&reader)?,
        restart: restart(&reader)?,
        stop_grace_period: reader.duration("stop_grace_period")?,
        stop_signal: reader.filled("stop_signal")?,
        init: reader.flag("init")?,
        read_only: reader.flag("read_only")?,
        shm_size: reader.bytes("shm_size")?,
        sysctls: reader.texts("sysctls")?,
        ulimits: ulimits(&reader)?,
        cap_drop: reader.strings("cap_drop")?,
        dns: reader.strings("dns")?,
        dns_opt: reader.strings("dns_opt")?,
        dns_search: reader.strings("dns_search")?,
        extra_hosts: extra_hosts(&reader)?,
        group_add: reader.strings("group_add")?,
        security_opt: reader.strings("security_opt")?,
        pids_limit: match reader.number("deploy.resources.limits.pids")? {
            Some(limit) => Some(limit),
            None => reader.number("pids_limit")?,
        },
        logging: logging(&reader)?,
        memory: match reader.bytes("deploy.resources.limits.memory")? {
            Some(bytes) => Some(bytes),
            None => reader.bytes("mem_limit")?,
        },
        cpus: match reader.number("deploy.resources.limits.cpus")? {
            Some(cpus) => Some(cpus),
            None => reader.number("cpus")?,
        },
        gpus: gpus(&reader)?,
        replicas: match reader.number("deploy.replicas")? {
            Some(replicas) => replicas,
            None => reader.number("scale")?.unwrap_or(1),
        },
        secrets: grants(&reader, "secrets")?,
        configs: grants(&reader, "configs")?,
        pull_policy: reader.filled("pull_policy")?,
        nimbus: nimbus(node, &key, notices)?,
        node: node.clone(),
    })
}

fn unknown_keys(node: &Node, key: &str, notices: &mut Vec<Notice>) {
    for (name, value) in node.as_map().into_iter().flatten() {
        let is_known = SERVICE.iter().any(|(known, _)| known == name);
        if !is_known && name != "x_nimbus" && !name.starts_with("x-") {
            notices.push(Notice::warning(
                &value.at,
                format!("{key}.{name}"),
                "is not a key of Compose, it is left out",
                "check its spelling and how far it is indented, or begin it with x-",
            ));
        }
    }
}

fn nimbus(node: &Node, key: &str, notices: &mut Vec<Notice>) -> Result<NimbusKeys, ComposeError> {
    let (name, node) = match (node.get("x-nimbus"), node.get("x_nimbus")) {
        (Some(node), _) => ("x-nimbus", node),
        (None, Some(node)) => {
            notices.push(Notice::warning(
                &node.at,
                format!("{key}.x_nimbus"),
                "is read as x-nimbus",
                "write it with a dash: other tools refuse the underscore",
            ));
            ("x_nimbus", node)
        }
        (None, None) => return Ok(NimbusKeys::default()),
    };
    let key = format!("{key}.{name}");
    let reader = Reader::new(node, &key);
    let backend = reader.filled("backend")?;
    if let Some(backend) = &backend
        && !matches!(backend.as_str(), "container" | "krun")
    {
        return Err(reader.wrong(&node.at, "backend", "expected container or krun"));
    }
    Ok(NimbusKeys {
        backend,
        idle_timeout: reader.duration("idle_timeout")?,
        snapshot: reader.flag("snapshot")?,
    })
}

fn build(reader: &Reader<'_>) -> Result<Option<Build>, ComposeError> {
    if reader.node("build").is_none() {
        return Ok(None);
    }
    Ok(Some(Build {
        context: reader.filled("build.context")?.unwrap_or_default(),
        dockerfile: reader.filled("build.dockerfile")?,
        target: reader.filled("build.target")?,
    }))
}

/// Files of variables in their order, then what stands in the file itself.
fn environment(
    reader: &Reader<'_>,
    variables: &Surroundings,
    notices: &mut Vec<Notice>,
) -> Result<Texts, ComposeError> {
    let mut environment = Texts::new();
    for file in reader.node("env_file").and_then(Node::as_seq).unwrap_or_default() {
        let path = file.get("path").and_then(Node::as_str).unwrap_or_default();
        let is_optional = file.get("required").and_then(Node::as_str) == Some("false");
        if is_optional && !Utf8Path::new(path).is_file() {
            continue;
        }
        let raw = file.get("format").and_then(Node::as_str) == Some("raw");
        let known = |name: &str| environment.get(name).cloned().or_else(|| variables.get(name));
        for (key, value) in variables_of(Utf8Path::new(path), raw, &known)? {
            if let Some(value) = value {
                environment.insert(key, value);
            }
        }
    }
    let Some(node) = reader.node("environment") else {
        return Ok(environment);
    };
    let Some(map) = node.as_map() else {
        return Err(reader.wrong(&node.at, "environment", "expected a map or a list of KEY=value"));
    };
    for (key, value) in map {
        match &value.value {
            Value::Scalar(scalar) => {
                environment.insert(key.clone(), scalar.text.clone());
            }
            // A name alone: what the surroundings say, or nothing at all.
            Value::Null => match variables.get(key) {
                Some(value) => {
                    environment.insert(key.clone(), value);
                }
                None => notices.push(Notice::warning(
                    &value.at,
                    format!("{}.environment.{key}", reader.key()),
                    format!("{key} has no value and is not set, it is left out"),
                    format!("write {key}=value, or set it in .env"),
                )),
            },
            _ => return Err(reader.wrong(&value.at, &format!("environment.{key}"), "expected a text")),
        }
    }
    Ok(environment)
}

fn seq<'a>(reader: &Reader<'a>, path: &str) -> &'a [Node] {
    reader.node(path).and_then(Node::as_seq).unwrap_or_default()
}

fn ports(reader: &Reader<'_>) -> Result<Vec<Port>, ComposeError> {
    let mut ports = Vec::new();
    for node in seq(reader, "ports") {
        let port = Reader::new(node, "ports");
        let target = port
            .number("target")?
            .ok_or_else(|| reader.wrong(&node.at, "ports", "expected a target"))?;
        let protocol = port.filled("protocol")?.unwrap_or_else(|| "tcp".to_owned());
        if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
            return Err(reader.wrong(
                &node.at,
                "ports",
                format!("`{protocol}` is none of tcp, udp and sctp"),
            ));
        }
        let published = port.filled("published")?.filter(|port| port != "0");
        let is_port = |text: &str| text.split('-').all(|port| port.parse::<u16>().is_ok());
        if let Some(published) = &published
            && !is_port(published)
        {
            return Err(reader.wrong(&node.at, "ports", format!("`{published}` is no port")));
        }
        let address = port.filled("host_ip")?;
        if let Some(address) = &address
            && address.parse::<std::net::IpAddr>().is_err()
        {
            return Err(reader.wrong(&node.at, "ports", format!("`{address}` is no address")));
        }
        ports.push(Port {
            target,
            published,
            address,
            protocol,
            at: node.at.clone(),
        });
    }
    Ok(ports)
}

fn mounts(reader: &Reader<'_>) -> Result<Vec<Mount>, ComposeError> {
    let mut mounts = Vec::new();
    for node in seq(reader, "volumes") {
        let mount = Reader::new(node, "volumes");
        let kind = match mount.filled("type")?.as_deref() {
            Some("bind") => MountKind::Bind,
            Some("volume") | None => MountKind::Volume,
            Some("tmpfs") => MountKind::Tmpfs,
            Some("npipe" | "cluster" | "image") => MountKind::Other,
            Some(other) => {
                let why = format!("`{other}` is none of bind, volume, tmpfs and image");
                return Err(reader.wrong(&node.at, "volumes", why));
            }
        };
        let target = mount
            .filled("target")?
            .ok_or_else(|| reader.wrong(&node.at, "volumes", "expected a target"))?;
        mounts.push(Mount {
            kind,
            source: mount.filled("source")?,
            target,
            read_only: mount.flag("read_only")?,
            selinux: mount.filled("bind.selinux")?,
            propagation: mount.filled("bind.propagation")?,
            nocopy: mount.flag("volume.nocopy")?,
            subpath: mount.filled("volume.subpath")?,
            size: mount.bytes("tmpfs.size")?,
            mode: octal(&mount, "tmpfs.mode", &node.at)?,
            at: node.at.clone(),
        });
    }
    Ok(mounts)
}

fn networks(reader: &Reader<'_>, mode: Option<&str>) -> Result<IndexMap<String, Attachment>, ComposeError> {
    let mut networks = IndexMap::new();
    let Some(map) = reader
        .node("networks")
        .and_then(Node::as_map)
        .filter(|map| !map.is_empty())
    else {
        if mode.is_none() {
            networks.insert("default".to_owned(), Attachment::default());
        }
        return Ok(networks);
    };
    for (name, node) in map {
        let path = format!("networks.{name}");
        let inner = Reader::new(node, &path);
        networks.insert(
            name.clone(),
            Attachment {
                aliases: inner.strings("aliases")?,
                ipv4: inner.filled("ipv4_address")?,
                ipv6: inner.filled("ipv6_address")?,
                mac: inner.filled("mac_address")?,
            },
        );
    }
    Ok(networks)
}

fn depends_on(reader: &Reader<'_>) -> Result<IndexMap<String, Dependency>, ComposeError> {
    let mut wanted = IndexMap::new();
    for (name, node) in reader
        .node("depends_on")
        .and_then(Node::as_map)
        .into_iter()
        .flatten()
    {
        let inner = Reader::new(node, "depends_on");
        let condition = match inner.text("condition")?.as_deref() {
            Some("service_started") | None => Condition::Started,
            Some("service_healthy") => Condition::Healthy,
            Some("service_completed_successfully") => Condition::Completed,
            Some(other) => {
                let why = format!(
                    "`{other}` is none of service_started, service_healthy and service_completed_successfully"
                );
                return Err(reader.wrong(&node.at, &format!("depends_on.{name}"), why));
            }
        };
        let required = node.get("required").is_none() || inner.flag("required")?;
        wanted.insert(name.clone(), Dependency { condition, required });
    }
    // To Compose these are dependencies, too.
    let mut others: Vec<String> = Vec::new();
    for key in ["links", "volumes_from"] {
        others.extend(reader.strings(key)?);
    }
    for mode in ["network_mode", "pid", "ipc"] {
        others.extend(
            reader
                .filled(mode)?
                .and_then(|mode| Some(mode.strip_prefix("service:")?.to_owned())),
        );
    }
    for other in others.iter().filter(|other| !other.starts_with("container:")) {
        let name = other.split_once(':').map_or(other.as_str(), |(name, _)| name);
        wanted.entry(name.to_owned()).or_insert(Dependency {
            condition: Condition::Started,
            required: true,
        });
    }
    Ok(wanted)
}

fn health(reader: &Reader<'_>) -> Result<Option<Health>, ComposeError> {
    let Some(node) = reader.node("healthcheck") else {
        return Ok(None);
    };
    const KNOWN: [&str; 7] = [
        "test",
        "interval",
        "timeout",
        "retries",
        "start_period",
        "start_interval",
        "disable",
    ];
    for (key, inner) in node.as_map().into_iter().flatten() {
        if !KNOWN.contains(&key.as_str()) && !key.starts_with("x-") {
            let path = format!("healthcheck.{key}");
            return Err(reader.wrong(&inner.at, &path, format!("is none of {}", KNOWN.join(", "))));
        }
    }
    let mut health = Health {
        disable: reader.flag("healthcheck.disable")?,
        test: None,
        interval: reader.duration("healthcheck.interval")?,
        timeout: reader.duration("healthcheck.timeout")?,
        retries: reader.number("healthcheck.retries")?,
        start_period: reader.duration("healthcheck.start_period")?,
    };
    if let Some(test) = reader.node("healthcheck.test") {
        if let Some(line) = test.as_str() {
            health.test = Some(Test::Shell(line.to_owned()));
        } else {
            let words = reader.strings("healthcheck.test")?;
            let (kind, rest) = match words.split_first() {
                Some((kind, rest)) => (kind.as_str(), rest),
                None => ("", words.as_slice()),
            };
            match (kind, rest) {
                ("NONE", _) => health.disable = true,
                ("CMD", [_, ..]) => health.test = Some(Test::Command(rest.to_vec())),
                ("CMD-SHELL", [line]) => health.test = Some(Test::Shell(line.clone())),
                _ => {
                    let why = "expected [\"CMD\", program, …], [\"CMD-SHELL\", line] or [\"NONE\"]";
                    return Err(reader.wrong(&test.at, "healthcheck.test", why));
                }
            }
        }
    }
    Ok(Some(health))
}

fn restart(reader: &Reader<'_>) -> Result<Restart, ComposeError> {
    if let Some(text) = reader.filled("restart")? {
        let policy = match text.split_once(':') {
            None => match text.as_str() {
                // A plain `no` is a truth value to some readers of YAML.
                "no" | "false" => Some(Restart::No),
                "always" => Some(Restart::Always),
                "unless-stopped" => Some(Restart::UnlessStopped),
                "on-failure" => Some(Restart::OnFailure(None)),
                _ => None,
            },
            Some(("on-failure", count)) => count.parse().ok().map(|count| Restart::OnFailure(Some(count))),
            Some(_) => None,
        };
        return match (policy, reader.node("restart")) {
            (None, Some(node)) => Err(reader.wrong(
                &node.at,
                "restart",
                format!("`{text}` is none of no, always, unless-stopped and on-failure[:count]"),
            )),
            (policy, _) => Ok(policy.unwrap_or_default()),
        };
    }
    Ok(match reader.text("deploy.restart_policy.condition")?.as_deref() {
        Some("any") => Restart::Always,
        Some("on-failure") => Restart::OnFailure(reader.number("deploy.restart_policy.max_attempts")?),
        _ => Restart::No,
    })
}

fn ulimits(reader: &Reader<'_>) -> Result<IndexMap<String, (String, String)>, ComposeError> {
    let mut limits = IndexMap::new();
    for (name, node) in reader
        .node("ulimits")
        .and_then(Node::as_map)
        .into_iter()
        .flatten()
    {
        let inner = Reader::new(node, "ulimits");
        let one = |key: &str| -> Result<String, ComposeError> {
            let number: Option<i64> = inner.number(key)?;
            number.map(|number| number.to_string()).ok_or_else(|| {
                reader.wrong(
                    &node.at,
                    &format!("ulimits.{name}"),
                    "expected a number, or soft and hard",
                )
            })
        };
        limits.insert(name.clone(), (one("soft")?, one("hard")?));
    }
    Ok(limits)
}

fn extra_hosts(reader: &Reader<'_>) -> Result<Vec<(String, String)>, ComposeError> {
    let hosts = reader.strings("extra_hosts")?;
    let pairs = hosts.iter().filter_map(|host| host.split_once('='));
    Ok(pairs
        .map(|(name, address)| (name.to_owned(), address.to_owned()))
        .collect())
}

fn logging(reader: &Reader<'_>) -> Result<Option<Logging>, ComposeError> {
    if reader.node("logging").is_none() {
        return Ok(None);
    }
    Ok(Some(Logging {
        driver: reader.filled("logging.driver")?,
        options: reader.texts("logging.options")?,
    }))
}

fn gpus(reader: &Reader<'_>) -> Result<Vec<Gpu>, ComposeError> {
    let mut gpus = Vec::new();
    if let Some(node) = reader.node("gpus")
        && let Some(all) = node.as_str()
    {
        gpus.push(Gpu {
            count: Some(all.to_owned()),
            ..Gpu::default()
        });
    }
    let reserved = seq(reader, "deploy.resources.reservations.devices");
    for node in seq(reader, "gpus").iter().chain(reserved) {
        let inner = Reader::new(node, "devices");
        gpus.push(Gpu {
            driver: inner.filled("driver")?,
            count: inner.filled("count")?,
            ids: inner.strings("device_ids")?,
        });
    }
    Ok(gpus)
}

/// A mode of a file, as `0440` however it was written.
fn octal(reader: &Reader<'_>, key: &str, at: &Origin) -> Result<Option<String>, ComposeError> {
    let Some(mode) = reader.filled(key)? else {
        return Ok(None);
    };
    let digits = mode.trim_start_matches("0o");
    if u32::from_str_radix(digits, 8).is_err() {
        return Err(reader.wrong(at, key, format!("`{mode}` is no octal mode such as 0440")));
    }
    Ok(Some(format!("0{}", digits.trim_start_matches('0'))))
}

fn grants(reader: &Reader<'_>, kind: &str) -> Result<Vec<Grant>, ComposeError> {
    let mut grants = Vec::new();
    for node in seq(reader, kind) {
        let inner = Reader::new(node, kind);
        let source = inner
            .filled("source")?
            .ok_or_else(|| reader.wrong(&node.at, kind, "expected a source"))?;
        let mode = octal(&inner, "mode", &node.at)?;
        grants.push(Grant {
            source,
            target: inner.filled("target")?,
            uid: inner.filled("uid")?,
            gid: inner.filled("gid")?,
            mode,
            at: node.at.clone(),
        });
    }
    Ok(grants)
}
