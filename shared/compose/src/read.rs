//! From the merged tree to the typed project: kinds checked, names resolved, unknown keys told.

mod service;
mod value;

use camino::Utf8PathBuf;
use indexmap::IndexMap;

use crate::error::ComposeError;
use crate::load::{Load, Loaded, Surroundings};
use crate::model::{Material, Network, Project, Source, Subnet, Volume, names};
use crate::notice::Notice;
use crate::yaml::{Map, Node};
use value::Reader;

/// What the loader has put together.
pub(crate) struct Parts<'a> {
    pub(crate) tree: Node,
    pub(crate) name: String,
    pub(crate) root: Utf8PathBuf,
    pub(crate) wanted: &'a Load,
    pub(crate) variables: &'a Surroundings,
    pub(crate) notices: Vec<Notice>,
}

/// Keys at the top of a file.
const TOP: &[&str] = &[
    "name", "version", "services", "volumes", "networks", "configs", "secrets", "include", "models",
];

/// Reads a project.
pub(crate) fn project(parts: Parts<'_>) -> Result<Loaded, ComposeError> {
    let Parts {
        tree,
        name,
        root,
        wanted,
        variables,
        mut notices,
    } = parts;
    let first = wanted.files.first().cloned().unwrap_or_default();
    let Some(map) = tree.as_map() else {
        return Err(ComposeError::NoServices { path: first });
    };
    for (key, node) in map {
        if !TOP.contains(&key.as_str()) && !key.starts_with("x-") {
            notices.push(Notice::warning(
                &node.at,
                key,
                "is not a key of Compose, it is left out",
                "check its spelling and how far it is indented, or begin it with x-",
            ));
        }
    }
    let empty = Map::new();
    let services = tree.get("services").and_then(Node::as_map).unwrap_or(&empty);
    if services.is_empty() {
        return Err(ComposeError::NoServices { path: first });
    }
    for wanted in &wanted.services {
        if !services.contains_key(wanted) {
            return Err(ComposeError::UnknownService {
                name: wanted.clone(),
                there: names(services.keys().map(String::as_str)),
            });
        }
    }
    let mut project = Project {
        name,
        root,
        files: wanted.files.clone(),
        services: IndexMap::new(),
        volumes: IndexMap::new(),
        networks: IndexMap::new(),
        configs: materials(&tree, "configs")?,
        secrets: materials(&tree, "secrets")?,
    };
    let mut profiles = wanted.profiles.clone();
    profiles.extend(
        variables
            .get("COMPOSE_PROFILES")
            .iter()
            .flat_map(|list| list.split(','))
            .map(|profile| profile.trim().to_owned()),
    );
    for (name, node) in services {
        if is_on(node, name, &profiles, &wanted.services)? {
            let service = service::read(name, node, &project, variables, &mut notices)?;
            project.services.insert(name.clone(), service);
        }
    }
    if project.services.is_empty() {
        return Err(ComposeError::NoServices { path: first });
    }
    check_dependencies(&mut project, services, &mut notices)?;
    volumes(&mut project, &tree)?;
    networks(&mut project, &tree)?;
    check_grants(&project)?;
    project.order(&[])?;
    Ok(Loaded {
        project,
        notices,
        variables: variables.clone(),
    })
}

/// Whether a service's profiles are wanted, or it has none, or it was asked for by name.
fn is_on(node: &Node, name: &str, profiles: &[String], asked: &[String]) -> Result<bool, ComposeError> {
    let key = format!("services.{name}");
    let own = Reader::new(node, &key).strings("profiles")?;
    let is_wanted = |own: &String| profiles.iter().any(|profile| profile == own || profile == "*");
    Ok(own.is_empty() || own.iter().any(is_wanted) || asked.iter().any(|asked| asked == name))
}

fn check_dependencies(
    project: &mut Project,
    all: &Map,
    notices: &mut Vec<Notice>,
) -> Result<(), ComposeError> {
    let there: Vec<String> = project.services.keys().cloned().collect();
    for service in project.services.values_mut() {
        let key = format!("services.{}.depends_on", service.name);
        let missing: Vec<(String, bool)> = service
            .depends_on
            .iter()
            .filter(|(name, _)| !there.contains(name))
            .map(|(name, dependency)| (name.clone(), dependency.required))
            .collect();
        for (name, required) in missing {
            let at = service.at(&format!("depends_on.{name}"));
            let is_off = all.contains_key(&name);
            if required && !is_off {
                return Err(ComposeError::invalid(
                    &at,
                    key,
                    format!(
                        "there is no service {name}; there are {}",
                        names(there.iter().map(String::as_str))
                    ),
                ));
            }
            if required {
                notices.push(Notice::warning(
                    &at,
                    &key,
                    format!("{name} is in a profile that is off, it is not waited for"),
                    "switch the profile on with --profile, or write `required: false`",
                ));
            }
            service.depends_on.shift_remove(&name);
        }
    }
    Ok(())
}

fn check_grants(project: &Project) -> Result<(), ComposeError> {
    for service in project.services.values() {
        for (kind, grants, there) in [
            ("configs", &service.configs, &project.configs),
            ("secrets", &service.secrets, &project.secrets),
        ] {
            for grant in grants {
                if !there.contains_key(&grant.source) {
                    return Err(ComposeError::invalid(
                        &grant.at,
                        format!("services.{}.{kind}", service.name),
                        format!("{} is not among the {kind} of the project", grant.source),
                    ));
                }
            }
        }
    }
    Ok(())
}

fn items<'a>(tree: &'a Node, kind: &str) -> impl Iterator<Item = (&'a String, &'a Node)> {
    tree.get(kind).and_then(Node::as_map).into_iter().flatten()
}

/// The name on the host, and whether somebody else made it.
fn host_name(
    project: &str,
    key: &str,
    node: &Node,
    reader: &Reader<'_>,
) -> Result<(String, bool), ComposeError> {
    let said = reader.text("name")?;
    let (external, old) = match node.get("external") {
        // An old form: `external: {name: …}`.
        Some(inner) if inner.as_map().is_some() => {
            (true, inner.get("name").and_then(Node::as_str).map(str::to_owned))
        }
        _ => (reader.flag("external")?, None),
    };
    let own = || {
        if external {
            key.to_owned()
        } else {
            format!("{project}_{key}")
        }
    };
    Ok((said.or(old).unwrap_or_else(own), external))
}

fn materials(tree: &Node, kind: &str) -> Result<IndexMap<String, Material>, ComposeError> {
    let mut materials = IndexMap::new();
    for (key, node) in items(tree, kind) {
        let path = format!("{kind}.{key}");
        let reader = Reader::new(node, &path);
        let (name, external) = host_name("", key, node, &reader)?;
        let source = if external {
            Source::External(name)
        } else if let Some(file) = reader.text("file")? {
            Source::File(file)
        } else if let Some(variable) = reader.text("environment")? {
            Source::Environment(variable)
        } else if let Some(content) = reader.text("content")? {
            Source::Content(content)
        } else {
            return Err(ComposeError::invalid(
                &node.at,
                path,
                "expected one of file, environment, content and external",
            ));
        };
        let at = node.at.clone();
        materials.insert(key.clone(), Material { source, at });
    }
    Ok(materials)
}

fn volumes(project: &mut Project, tree: &Node) -> Result<(), ComposeError> {
    for (key, node) in items(tree, "volumes") {
        let path = format!("volumes.{key}");
        let reader = Reader::new(node, &path);
        let (name, external) = host_name(&project.name, key, node, &reader)?;
        let volume = Volume {
            name,
            external,
            driver: reader.text("driver")?,
            driver_opts: reader.texts("driver_opts")?,
            labels: reader.texts("labels")?,
            node: node.clone(),
        };
        project.volumes.insert(key.clone(), volume);
    }
    for service in project.services.values() {
        for mount in &service.mounts {
            if let (crate::model::MountKind::Volume, Some(source)) = (mount.kind, &mount.source)
                && !project.volumes.contains_key(source)
            {
                return Err(ComposeError::invalid(
                    &mount.at,
                    format!("services.{}.volumes", service.name),
                    format!(
                        "the volume {source} is not among the volumes of the project; add it, or write ./{source} for a folder"
                    ),
                ));
            }
        }
    }
    Ok(())
}

fn networks(project: &mut Project, tree: &Node) -> Result<(), ComposeError> {
    for (key, node) in items(tree, "networks") {
        let network = network(&project.name, key, node)?;
        project.networks.insert(key.clone(), network);
    }
    let used = |project: &Project, key: &str| {
        let mut services = project.services.values();
        services.any(|service| service.networks.contains_key(key))
    };
    if used(project, "default") && !project.networks.contains_key("default") {
        let network = network(&project.name, "default", &Node::default())?;
        project.networks.insert("default".to_owned(), network);
    }
    for service in project.services.values() {
        for key in service.networks.keys() {
            if !project.networks.contains_key(key) {
                return Err(ComposeError::invalid(
                    &service.at(&format!("networks.{key}")),
                    format!("services.{}.networks", service.name),
                    format!("{key} is not among the networks of the project"),
                ));
            }
        }
    }
    // Declared and used by nobody: Compose does not make it either.
    let unused: Vec<String> = project
        .networks
        .keys()
        .filter(|key| !used(project, key))
        .cloned()
        .collect();
    for key in unused {
        project.networks.shift_remove(&key);
    }
    Ok(())
}

fn network(project: &str, key: &str, node: &Node) -> Result<Network, ComposeError> {
    let path = format!("networks.{key}");
    let reader = Reader::new(node, &path);
    let (name, external) = host_name(project, key, node, &reader)?;
    let mut subnets = Vec::new();
    for item in node
        .at_path("ipam.config")
        .and_then(Node::as_seq)
        .unwrap_or_default()
    {
        let reader = Reader::new(item, &path);
        subnets.push(Subnet {
            subnet: reader.text("subnet")?,
            gateway: reader.text("gateway")?,
            range: reader.text("ip_range")?,
        });
    }
    Ok(Network {
        name,
        external,
        driver: reader.text("driver")?,
        driver_opts: reader.texts("driver_opts")?,
        internal: reader.flag("internal")?,
        ipv6: reader.flag("enable_ipv6")?,
        subnets,
        labels: reader.texts("labels")?,
        node: node.clone(),
    })
}
