//! A project as one `.kube` unit and the Pod it plays.

use super::container::{check_variable, looks_secret, origin};
use super::directive::Section::{Install, Kube, Service as Manager, Unit};
use super::writer::{From, Writer, header};
use super::{Artifact, Export, ExportError, Plan, image};
use crate::model::{Restart, Service};
use crate::notice::{Notice, Origin};
use crate::yaml::emit::emit;
use crate::yaml::{Map, Node};

/// Keys that units have a word for and a Pod, as it is written here, has not.
const NOT_HERE: &[&str] = &[
    "annotations",
    "cap_drop",
    "configs",
    "depends_on",
    "dns",
    "dns_opt",
    "dns_search",
    "group_add",
    "healthcheck",
    "hostname",
    "init",
    "labels",
    "logging",
    "network_mode",
    "pids_limit",
    "read_only",
    "secrets",
    "security_opt",
    "shm_size",
    "stop_signal",
    "sysctls",
    "tmpfs",
    "ulimits",
    "user",
    "volumes",
    "working_dir",
];

pub(super) fn write(plan: &Plan<'_>, out: &mut Export) -> Result<(), ExportError> {
    let own = plan.own();
    let from = From {
        at: plan.whole_file(),
        key: "name".to_owned(),
    };
    let mut writer = Writer::new(plan.options.podman, &mut out.notices);
    writer.put(
        Unit,
        "Description",
        &format!("Pod of {}", plan.project.name),
        &from,
    )?;
    writer.put(Unit, "Wants", "network-online.target", &from)?;
    writer.put(Unit, "After", "network-online.target", &from)?;
    writer.put(Kube, "Yaml", &format!("{own}.yaml"), &from)?;
    if writer.knows(Kube, "SetWorkingDirectory") {
        writer.put(Kube, "SetWorkingDirectory", "unit", &from)?;
    }
    writer.put(Manager, "Restart", "on-failure", &from)?;
    writer.put(Manager, "TimeoutStartSec", "900", &from)?;
    writer.put(Install, "WantedBy", "default.target", &from)?;
    writer.notice(Notice::info(
        &plan.whole_file(),
        "--mode kube",
        "is meant for review: a Pod has no words for much of what Compose says",
        "prefer --mode containers to run it",
    ));
    let pod = pod(plan, &mut writer)?;
    let text = writer.seal(&header(plan, "kube", "-")?)?;
    let file = format!("{own}.kube");
    out.artifacts.push(Artifact { name: file, text });
    out.artifacts.push(Artifact {
        name: format!("{own}.yaml"),
        text: header(plan, "kube-yaml", "-")?.seal(&emit(&pod)),
    });
    Ok(())
}

fn text(text: &str) -> Node {
    Node::text(text, &Origin::default())
}

fn plain(text: impl ToString) -> Node {
    Node::plain(text.to_string(), &Origin::default())
}

fn map<const N: usize>(pairs: [(&str, Node); N]) -> Node {
    let pairs = pairs.map(|(key, node)| (key.to_owned(), node));
    Node::map(Map::from_iter(pairs), &Origin::default())
}

fn seq(items: Vec<Node>) -> Node {
    Node::seq(items, &Origin::default())
}

fn words(list: &[String]) -> Node {
    seq(list.iter().map(|word| text(word)).collect())
}

fn pod(plan: &Plan<'_>, writer: &mut Writer<'_>) -> Result<Node, ExportError> {
    let mut containers = Vec::new();
    for service in &plan.services {
        containers.push(container(plan, service, writer)?);
        lost(plan, service, writer);
    }
    let mut spec = Map::new();
    spec.insert("restartPolicy".to_owned(), text(policy(plan, writer)));
    let grace = plan
        .services
        .iter()
        .filter_map(|service| service.stop_grace_period)
        .max();
    if let Some(grace) = grace {
        let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        spec.insert("terminationGracePeriodSeconds".to_owned(), plain(seconds));
    }
    // All containers of a Pod are at one address; the names that Compose gives lead there.
    let names = plan.services.iter().map(|service| text(&service.name)).collect();
    let here = map([("ip", text("127.0.0.1")), ("hostnames", seq(names))]);
    let further = plan.services.iter().flat_map(|service| &service.extra_hosts);
    let hosts = further
        .filter(|(_, address)| address.parse::<std::net::IpAddr>().is_ok())
        .map(|(name, address)| map([("ip", text(address)), ("hostnames", seq(vec![text(name)]))]));
    spec.insert(
        "hostAliases".to_owned(),
        seq([here].into_iter().chain(hosts).collect()),
    );
    spec.insert("containers".to_owned(), seq(containers));
    Ok(map([
        ("apiVersion", text("v1")),
        ("kind", text("Pod")),
        (
            "metadata",
            map([
                ("name", text(&plan.own())),
                (
                    "labels",
                    map([
                        ("app.kubernetes.io/managed-by", text("nimbus")),
                        ("app.kubernetes.io/name", text(&plan.own())),
                    ]),
                ),
            ]),
        ),
        ("spec", Node::map(spec, &Origin::default())),
    ]))
}

/// A Pod has one policy for all; the first service's wins.
fn policy(plan: &Plan<'_>, writer: &mut Writer<'_>) -> &'static str {
    let word = |service: &Service| match service.restart {
        Restart::No => "Never",
        Restart::OnFailure(_) => "OnFailure",
        Restart::Always | Restart::UnlessStopped => "Always",
    };
    let mut services = plan.services.iter();
    let first = services.next().map_or("Always", |service| word(service));
    for service in services {
        if word(service) != first {
            writer.warn(
                &origin(service, "restart"),
                format!("a Pod has one policy for all, here {first}"),
                "give all services the same one",
            );
        }
    }
    first
}

fn container(plan: &Plan<'_>, service: &Service, writer: &mut Writer<'_>) -> Result<Node, ExportError> {
    let mut spec = Map::new();
    let mut put = |key: &str, node: Node| spec.insert(key.to_owned(), node);
    put("name", text(&plan.unit(&service.name)));
    put("image", text(&image(service)));
    if service.build.is_some() {
        writer.warn(
            &origin(service, "build"),
            "an image is not built by its unit",
            format!("build it first and tag it {}", image(service)),
        );
    }
    if let Some(entrypoint) = &service.entrypoint {
        put("command", words(entrypoint));
    }
    if let Some(command) = &service.command {
        put("args", words(command));
    }
    if !service.environment.is_empty() {
        let mut variables = Vec::new();
        for (key, value) in &service.environment {
            let from = origin(service, &format!("environment.{key}"));
            check_variable(key, &from)?;
            if !value.is_empty() && looks_secret(key) {
                writer.warn(
                    &from,
                    "a secret, as it seems, stands in the file for everybody to read",
                    "make a Secret of it",
                );
            }
            // `$(NAME)` would be replaced; twice the dollar is how a Pod says one.
            let value = value.replace("$(", "$$(");
            variables.push(map([("name", text(key)), ("value", text(&value))]));
        }
        put("env", seq(variables));
    }
    if !service.ports.is_empty() {
        let mut ports = Vec::new();
        for port in &service.ports {
            let mut entry = Map::new();
            let mut put = |key: &str, node: Node| entry.insert(key.to_owned(), node);
            put("containerPort", plain(port.target));
            let host = port
                .published
                .as_deref()
                .and_then(|range| range.split('-').next());
            if let Some(host) = host {
                put("hostPort", plain(host));
                put("hostIP", text(port.address.as_deref().unwrap_or("127.0.0.1")));
            }
            if port.protocol != "tcp" {
                put("protocol", text(&port.protocol.to_ascii_uppercase()));
            }
            ports.push(Node::map(entry, &port.at));
        }
        put("ports", seq(ports));
    }
    let mut limits = Map::new();
    if let Some(bytes) = service.memory {
        limits.insert("memory".to_owned(), text(&bytes.to_string()));
    }
    if let Some(cpus) = service.cpus {
        limits.insert("cpu".to_owned(), text(&format!("{}m", (cpus * 1000.0).round())));
    }
    if !limits.is_empty() {
        put(
            "resources",
            map([("limits", Node::map(limits, &Origin::default()))]),
        );
    }
    Ok(Node::map(spec, &service.node.at))
}

fn lost(plan: &Plan<'_>, service: &Service, writer: &mut Writer<'_>) {
    for key in NOT_HERE {
        if service.has(key) {
            writer.warn(
                &origin(service, key),
                "is not exported with --mode kube",
                "export with --mode containers",
            );
        }
    }
    super::lost::tell(service, &format!("{}.kube", plan.own()), 1, writer);
}
