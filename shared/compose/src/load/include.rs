//! `include`: other projects as part of this one, each with its own folder and variables.

use camino::{Utf8Path, Utf8PathBuf};

use super::{Loader, Surroundings};
use crate::canonical::{Here, list};
use crate::error::ComposeError;
use crate::merge;
use crate::path;
use crate::yaml::{Node, Value};

/// What is included, and from where it is seen.
struct Included {
    files: Vec<Utf8PathBuf>,
    root: Utf8PathBuf,
    env_files: Vec<Utf8PathBuf>,
}

impl Loader {
    /// Takes `include` out of a file and lays what it names under it.
    pub(super) fn include(
        &mut self,
        mut tree: Node,
        base: &Utf8Path,
        variables: &Surroundings,
    ) -> Result<Node, ComposeError> {
        let Value::Map(map) = &mut tree.value else {
            return Ok(tree);
        };
        let Some(includes) = map.shift_remove("include").filter(|node| !node.is_null()) else {
            return Ok(tree);
        };
        let here = Here {
            key: "include".to_owned(),
            base,
            home: None,
        };
        let Value::Seq(items) = list(includes, &here)?.value else {
            return Ok(tree);
        };
        let mut below = Node::default();
        for item in items {
            let included = read(&item, base).ok_or_else(|| {
                here.wrong(&item.at, "expected a path on this computer, or a map with path")
            })?;
            let mut inner = variables.clone();
            // What is known outside wins over the variables of what is included.
            let outer = inner.files.clone();
            for file in &included.env_files {
                inner.add(file)?;
            }
            inner.files.extend(outer);
            let mut part = Node::default();
            for file in &included.files {
                let over = self.file(file, &included.root, &inner)?;
                part = if part.is_null() {
                    over
                } else {
                    merge::merge(part, over)
                };
            }
            if let Value::Map(map) = &mut part.value {
                map.shift_remove("name");
            }
            conflicts(&below, &part)?;
            below = if below.is_null() {
                part
            } else {
                merge::merge(below, part)
            };
        }
        if below.is_null() {
            return Ok(tree);
        }
        conflicts(&below, &tree)?;
        Ok(merge::merge(below, tree))
    }
}

/// Two files may not say different things about one name: which of them is meant nobody can tell.
fn conflicts(one: &Node, other: &Node) -> Result<(), ComposeError> {
    for kind in ["services", "volumes", "networks", "configs", "secrets"] {
        let (Some(one), Some(other)) = (
            one.get(kind).and_then(Node::as_map),
            other.get(kind).and_then(Node::as_map),
        ) else {
            continue;
        };
        for (name, node) in other {
            if let Some(there) = one.get(name)
                && !same(there, node)
            {
                return Err(ComposeError::invalid(
                    &node.at,
                    format!("{kind}.{name}"),
                    format!("is there already, at {}, with another content", there.at),
                ));
            }
        }
    }
    Ok(())
}

/// Whether two trees say the same, wherever they stand.
fn same(one: &Node, other: &Node) -> bool {
    match (&one.value, &other.value) {
        (Value::Map(one), Value::Map(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(key, node)| other.get(key).is_some_and(|there| same(node, there)))
        }
        (Value::Seq(one), Value::Seq(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Scalar(one), Value::Scalar(other)) => one.text == other.text,
        (one, other) => one == other,
    }
}

fn read(item: &Node, base: &Utf8Path) -> Option<Included> {
    let paths = |node: &Node| -> Option<Vec<Utf8PathBuf>> {
        let texts: Vec<&str> = match &node.value {
            Value::Scalar(scalar) => vec![scalar.text.as_str()],
            Value::Seq(items) => items.iter().map(Node::as_str).collect::<Option<_>>()?,
            _ => return None,
        };
        let local = |text: &&str| !text.contains("://") && !text.starts_with("git@");
        texts
            .iter()
            .all(local)
            .then(|| texts.iter().map(|text| path::join(base, text)).collect())
    };
    let files = match item.get("path") {
        Some(path) => paths(path)?,
        None if item.as_map().is_some() => return None,
        None => paths(item)?,
    };
    let root = match item.get("project_directory").and_then(Node::as_str) {
        Some(folder) => path::join(base, folder),
        None => files.first()?.parent()?.to_owned(),
    };
    let env_files = match item.get("env_file").filter(|node| !node.is_null()) {
        Some(node) => paths(node)?,
        None => Some(root.join(".env"))
            .filter(|file| file.is_file())
            .into_iter()
            .collect(),
    };
    Some(Included {
        files,
        root,
        env_files,
    })
}
