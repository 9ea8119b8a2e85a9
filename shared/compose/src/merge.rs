//! Laying one file over another.

use crate::yaml::{Map, Mark, Node, Value};

/// Lays `over` over `base`: values are replaced, maps merged, lists appended, as the Compose specification says
/// for each key. Both have their long form.
pub(crate) fn merge(base: Node, over: Node) -> Node {
    at(base, over, &[])
}

/// The same for two services.
pub(crate) fn services(base: Node, over: Node) -> Node {
    at(base, over, &["services", "*"])
}

fn at(base: Node, over: Node, path: &[&str]) -> Node {
    match over.mark {
        Some(Mark::Override) => return Node { mark: None, ..over },
        Some(Mark::Reset) => return Node::new(Value::Null, &over.at),
        None => {}
    }
    if replaces(path) {
        return over;
    }
    match (base.value, over.value) {
        // Saying nothing changes nothing.
        (value, Value::Null) => Node { value, ..base },
        (Value::Map(base), Value::Map(over_map)) => {
            let mut merged = base;
            // Another driver has other options.
            if path.last() == Some(&"logging") && differs(&merged, &over_map, "driver") {
                merged.shift_remove("options");
            }
            for (key, node) in over_map {
                let mut inner: Vec<&str> = path.to_vec();
                // Names that a person gave are not keys.
                inner.push(if inner == ["services"] { "*" } else { &key });
                let node = match merged.get_mut(&key) {
                    Some(there) => at(std::mem::take(there), node, &inner),
                    None if node.mark == Some(Mark::Reset) => continue,
                    None => Node { mark: None, ..node },
                };
                merged.insert(key, node);
            }
            merged.retain(|_, node| node.mark != Some(Mark::Reset));
            Node::map(merged, &over.at)
        }
        (Value::Seq(base), Value::Seq(more)) => {
            let mut merged = base;
            for node in more {
                let same = merged.iter_mut().find(|there| is_same(there, &node, path));
                match same {
                    Some(there) => *there = at(std::mem::take(there), node, &["item"]),
                    None => merged.push(node),
                }
            }
            Node::seq(merged, &over.at)
        }
        (_, value) => Node { value, ..over },
    }
}

fn differs(base: &Map, over: &Map, key: &str) -> bool {
    match (base.get(key), over.get(key)) {
        (Some(base), Some(over)) => base.as_str() != over.as_str(),
        _ => false,
    }
}

/// Lists whose items only make sense together.
fn replaces(path: &[&str]) -> bool {
    matches!(
        path,
        ["services", "*", "command" | "entrypoint"] | ["services", "*", "healthcheck", "test"]
    )
}

/// Whether two items of a list are about the same thing.
fn is_same(one: &Node, other: &Node, path: &[&str]) -> bool {
    let same = |keys: &[&str]| {
        keys.iter()
            .all(|key| one.get(key).and_then(Node::as_str) == other.get(key).and_then(Node::as_str))
    };
    match path {
        ["services", "*", "volumes"] => one.get("target").is_some() && same(&["target"]),
        ["services", "*", "ports"] => same(&["host_ip", "published", "target", "protocol"]),
        ["services", "*", "secrets" | "configs"] => same(&["source", "target"]),
        ["services", "*", "env_file"] => same(&["path"]),
        _ => one.as_str().is_some() && one.as_str() == other.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::emit::emit;
    use crate::yaml::parse;

    fn merged(base: &str, over: &str) -> String {
        let read = |text: &str| parse(text, &"f".into()).unwrap().remove(0);
        emit(&services(read(base), read(over)))
    }

    #[test]
    fn the_rules_by_kind() {
        assert_eq!(
            merged(
                "image: a\nenvironment: {A: 1, B: 2}\ncommand: [x, y]\ndns: [p]\nhealthcheck: {test: [CMD, a], retries: 1}\n",
                "image: b\nenvironment: {B: 3}\ncommand: [z]\ndns: [p, q]\nhealthcheck: {test: [CMD, b]}\n"
            ),
            "image: b\nenvironment:\n  A: 1\n  B: 3\ncommand:\n  - z\ndns:\n  - p\n  - q\nhealthcheck:\n  test:\n    - CMD\n    - b\n  retries: 1\n"
        );
    }

    #[test]
    fn mounts_and_ports_are_known_by_what_they_are() {
        assert_eq!(
            merged(
                "volumes:\n  - {source: a, target: /t}\nports:\n  - {target: 80, published: 1}\n",
                "volumes:\n  - {source: b, target: /t}\n  - {source: c, target: /u}\nports:\n  - {target: 80, published: 2}\n"
            ),
            "volumes:\n  - source: b\n    target: /t\n  - source: c\n    target: /u\nports:\n  - target: 80\n    published: 1\n  - target: 80\n    published: 2\n"
        );
    }

    #[test]
    fn tags_of_compose() {
        assert_eq!(
            merged(
                "ports: [a]\ndns: [p]\nlogging: {driver: x, options: {a: b}}\n",
                "ports: !reset []\ndns: !override [q]\nlogging: {driver: y}\nuser: !reset null\n"
            ),
            "ports: null\ndns:\n  - q\nlogging:\n  driver: y\n"
        );
    }
}
