//! Every short way to write something becomes the long one, so that files can be merged key by key.

pub(crate) mod short;

use camino::Utf8Path;

use crate::error::ComposeError;
use crate::notice::Origin;
use crate::path;
use crate::yaml::{Map, Node, Value};

/// How a key of a service is written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    /// As it is: a value, or a map of its own.
    Own,
    /// A list, or one value of it.
    List,
    /// A map, or a list of `key=value`.
    Pairs,
    /// A map, or a list of names.
    Names,
    /// One of the short syntaxes of their own.
    Short(fn(Node, &Here<'_>) -> Result<Node, ComposeError>),
}

/// Where a service stands, for messages and relative paths.
#[derive(Clone, Debug)]
pub(crate) struct Here<'a> {
    /// The key, such as `services.web.ports`.
    pub(crate) key: String,
    /// What relative paths start from.
    pub(crate) base: &'a Utf8Path,
    /// What `~` stands for.
    pub(crate) home: Option<&'a str>,
}

impl Here<'_> {
    pub(crate) fn below(&self, key: &str) -> Self {
        Self {
            key: format!("{}.{key}", self.key),
            ..self.clone()
        }
    }

    pub(crate) fn wrong(&self, at: &Origin, why: impl Into<String>) -> ComposeError {
        ComposeError::invalid(at, &self.key, why)
    }

    pub(crate) fn path(&self, text: &str) -> String {
        let joined = path::join(self.base, text);
        match (self.home, joined.as_str().strip_prefix('~')) {
            (Some(home), Some(rest)) => format!("{home}{rest}"),
            _ => joined.into_string(),
        }
    }
}

/// The keys of a service, as the Compose specification has them in 2026.
pub(crate) const SERVICE: &[(&str, Form)] = &[
    ("annotations", Form::Pairs),
    ("attach", Form::Own),
    ("blkio_config", Form::Own),
    ("build", Form::Short(short::build)),
    ("cap_add", Form::List),
    ("cap_drop", Form::List),
    ("cgroup", Form::Own),
    ("cgroup_parent", Form::Own),
    ("command", Form::Own),
    ("configs", Form::Short(short::grants)),
    ("container_name", Form::Own),
    ("cpu_count", Form::Own),
    ("cpu_percent", Form::Own),
    ("cpu_period", Form::Own),
    ("cpu_quota", Form::Own),
    ("cpu_rt_period", Form::Own),
    ("cpu_rt_runtime", Form::Own),
    ("cpu_shares", Form::Own),
    ("cpus", Form::Own),
    ("cpuset", Form::Own),
    ("credential_spec", Form::Own),
    ("depends_on", Form::Short(short::depends_on)),
    ("deploy", Form::Own),
    ("develop", Form::Own),
    ("device_cgroup_rules", Form::List),
    ("devices", Form::List),
    ("dns", Form::List),
    ("dns_opt", Form::List),
    ("dns_search", Form::List),
    ("domainname", Form::Own),
    ("entrypoint", Form::Own),
    ("env_file", Form::Short(short::env_file)),
    ("environment", Form::Pairs),
    ("expose", Form::List),
    ("extends", Form::Own),
    ("external_links", Form::List),
    ("extra_hosts", Form::Short(short::extra_hosts)),
    ("gpus", Form::Own),
    ("group_add", Form::List),
    ("healthcheck", Form::Own),
    ("hostname", Form::Own),
    ("image", Form::Own),
    ("init", Form::Own),
    ("ipc", Form::Own),
    ("isolation", Form::Own),
    ("label_file", Form::List),
    ("labels", Form::Pairs),
    ("links", Form::List),
    ("logging", Form::Own),
    ("mac_address", Form::Own),
    ("mem_limit", Form::Own),
    ("mem_reservation", Form::Own),
    ("mem_swappiness", Form::Own),
    ("memswap_limit", Form::Own),
    ("models", Form::Own),
    ("network_mode", Form::Own),
    ("networks", Form::Names),
    ("oom_kill_disable", Form::Own),
    ("oom_score_adj", Form::Own),
    ("pid", Form::Own),
    ("pids_limit", Form::Own),
    ("platform", Form::Own),
    ("ports", Form::Short(short::ports)),
    ("post_start", Form::Own),
    ("pre_stop", Form::Own),
    ("privileged", Form::Own),
    ("profiles", Form::List),
    ("provider", Form::Own),
    ("pull_policy", Form::Own),
    ("pull_refresh_after", Form::Own),
    ("read_only", Form::Own),
    ("restart", Form::Own),
    ("runtime", Form::Own),
    ("scale", Form::Own),
    ("secrets", Form::Short(short::grants)),
    ("security_opt", Form::List),
    ("shm_size", Form::Own),
    ("stdin_open", Form::Own),
    ("stop_grace_period", Form::Own),
    ("stop_signal", Form::Own),
    ("storage_opt", Form::Own),
    ("sysctls", Form::Pairs),
    ("tmpfs", Form::List),
    ("tty", Form::Own),
    ("ulimits", Form::Short(short::ulimits)),
    ("use_api_socket", Form::Own),
    ("user", Form::Own),
    ("userns_mode", Form::Own),
    ("uts", Form::Own),
    ("volumes", Form::Short(short::volumes)),
    ("volumes_from", Form::List),
    ("working_dir", Form::Own),
];

/// Brings a whole file into its long form; paths become absolute, as seen from `here.base`.
pub(crate) fn project(root: &mut Node, here: &Here<'_>) -> Result<(), ComposeError> {
    let at = root.at.clone();
    let Value::Map(root) = &mut root.value else {
        return Err(here.wrong(&at, format!("expected a map of services, found {}", root.kind())));
    };
    if let Some(services) = root.get_mut("services") {
        let at = services.at.clone();
        match &mut services.value {
            Value::Map(services) => {
                for (name, service) in services.iter_mut() {
                    let here = Here {
                        key: format!("services.{name}"),
                        ..here.clone()
                    };
                    self::service(service, &here)?;
                }
            }
            Value::Null => services.value = Value::Map(Map::new()),
            _ => {
                return Err(ComposeError::invalid(
                    &at,
                    "services",
                    "expected a map of services",
                ));
            }
        }
    }
    for (kind, has_file) in [
        ("volumes", false),
        ("networks", false),
        ("configs", true),
        ("secrets", true),
    ] {
        let Some(node) = root.get_mut(kind) else { continue };
        let at = node.at.clone();
        let items = match &mut node.value {
            Value::Map(items) => items,
            Value::Null => continue,
            _ => {
                return Err(ComposeError::invalid(
                    &at,
                    kind,
                    format!("expected a map of {kind}"),
                ));
            }
        };
        for (name, item) in items.iter_mut() {
            let here = Here {
                key: format!("{kind}.{name}"),
                ..here.clone()
            };
            match &mut item.value {
                Value::Null => {}
                Value::Map(map) => {
                    if has_file && let Some(file) = map.get_mut("file") {
                        absolute(file, &here)?;
                    }
                    for key in ["labels", "driver_opts"] {
                        if let Some(node) = map.get_mut(key) {
                            *node = pairs(std::mem::take(node), &here.below(key))?;
                        }
                    }
                }
                _ => return Err(here.wrong(&item.at, format!("expected a map, found {}", item.kind()))),
            }
        }
    }
    Ok(())
}

/// Makes a path absolute where it stands.
pub(crate) fn absolute(node: &mut Node, here: &Here<'_>) -> Result<(), ComposeError> {
    match node.as_str().map(|text| here.path(text)) {
        Some(path) => {
            node.value = Node::text(path, &node.at).value;
            Ok(())
        }
        None => Err(here.wrong(&node.at, "expected a path")),
    }
}

/// Brings a service into its long form.
pub(crate) fn service(node: &mut Node, here: &Here<'_>) -> Result<(), ComposeError> {
    if node.is_null() {
        node.value = Value::Map(Map::new());
    }
    let Value::Map(map) = &mut node.value else {
        return Err(here.wrong(&node.at, format!("expected a map, found {}", node.kind())));
    };
    for (key, form) in SERVICE {
        let Some(node) = map.get_mut(*key) else { continue };
        if node.is_null() {
            continue;
        }
        let here = here.below(key);
        let mark = node.mark;
        let taken = std::mem::take(node);
        *node = match form {
            Form::Own => taken,
            Form::List => list(taken, &here)?,
            Form::Pairs => pairs(taken, &here)?,
            Form::Names => names(taken, &here)?,
            Form::Short(read) => read(taken, &here)?,
        };
        node.mark = mark;
    }
    Ok(())
}

/// A list, or the one value of it.
pub(crate) fn list(node: Node, here: &Here<'_>) -> Result<Node, ComposeError> {
    match node.value {
        Value::Seq(_) => Ok(node),
        Value::Scalar(_) => {
            let at = node.at.clone();
            Ok(Node::seq(vec![node], &at))
        }
        Value::Null => Ok(Node::seq(Vec::new(), &node.at)),
        Value::Map(_) => Err(here.wrong(&node.at, "expected a list")),
    }
}

/// A map, or a list of `key=value`; a key alone has no value.
pub(crate) fn pairs(node: Node, here: &Here<'_>) -> Result<Node, ComposeError> {
    let items = match node.value {
        Value::Map(_) => return Ok(node),
        Value::Null => return Ok(Node::map(Map::new(), &node.at)),
        Value::Seq(items) => items,
        Value::Scalar(_) => return Err(here.wrong(&node.at, "expected a map or a list of key=value")),
    };
    let mut map = Map::new();
    for item in items {
        let Some(text) = item.as_str() else {
            return Err(here.wrong(&item.at, "expected key=value"));
        };
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Node::text(value, &item.at)),
            None => (text, Node::new(Value::Null, &item.at)),
        };
        map.insert(key.to_owned(), value);
    }
    Ok(Node::map(map, &node.at))
}

/// A map, or a list of names.
pub(crate) fn names(node: Node, here: &Here<'_>) -> Result<Node, ComposeError> {
    let items = match node.value {
        Value::Map(_) => return Ok(node),
        Value::Null => return Ok(Node::map(Map::new(), &node.at)),
        Value::Seq(items) => items,
        Value::Scalar(_) => return Err(here.wrong(&node.at, "expected a map or a list of names")),
    };
    let mut map = Map::new();
    for item in items {
        match item.as_str() {
            Some(name) => {
                map.insert(name.to_owned(), Node::new(Value::Null, &item.at));
            }
            None => return Err(here.wrong(&item.at, "expected a name")),
        }
    }
    Ok(Node::map(map, &node.at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::emit::emit;
    use crate::yaml::parse;

    fn long(text: &str) -> Result<String, ComposeError> {
        let mut node = parse(text, &"f".into()).unwrap().remove(0);
        let here = Here {
            key: "services.s".into(),
            base: Utf8Path::new("/p"),
            home: Some("/root"),
        };
        service(&mut node, &here)?;
        Ok(emit(&node))
    }

    #[test]
    fn lists_and_maps_become_one_form() {
        assert_eq!(
            long("environment: [A=1, B, \"C=x=y\"]\ndns: 1.1.1.1\nnetworks: [a, b]\nlabels:\n  x: y\n")
                .unwrap(),
            "environment:\n  A: \"1\"\n  B: null\n  C: x=y\ndns:\n  - 1.1.1.1\nnetworks:\n  a: null\n  b: null\nlabels:\n  x: y\n"
        );
        assert!(long("environment: x\n").is_err() && long("dns: {a: b}\n").is_err());
    }

    #[test]
    fn keys_are_sorted_and_known_once() {
        let keys: Vec<_> = SERVICE.iter().map(|(key, _)| key).collect();
        assert!(keys.is_sorted(), "{keys:?}");
    }
}
