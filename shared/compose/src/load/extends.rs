//! `extends`: a service that begins as another one.

use camino::{Utf8Path, Utf8PathBuf};

use super::{Loader, Surroundings, services, services_mut};
use crate::error::ComposeError;
use crate::merge;
use crate::path;
use crate::yaml::{Node, Value};

/// Longest chain of services that extend each other.
const LONGEST: usize = 32;

/// What a service extends.
struct Base {
    service: String,
    file: Option<String>,
}

impl Loader {
    /// Replaces every service that extends another by both together.
    pub(super) fn extend(
        &mut self,
        tree: &mut Node,
        base: &Utf8Path,
        variables: &Surroundings,
    ) -> Result<(), ComposeError> {
        let extending: Vec<String> = services(tree)
            .into_iter()
            .flatten()
            .filter(|(_, service)| service.get("extends").is_some())
            .map(|(name, _)| name.clone())
            .collect();
        for name in extending {
            let place = Place { tree, base };
            let whole = self.whole(&place, &name, variables, 0)?;
            if let Some(services) = services_mut(tree) {
                services.insert(name, whole);
            }
        }
        Ok(())
    }

    /// A service with all it extends.
    fn whole(
        &mut self,
        place: &Place<'_>,
        name: &str,
        variables: &Surroundings,
        depth: usize,
    ) -> Result<Node, ComposeError> {
        let key = format!("services.{name}.extends");
        let Some(service) = services(place.tree).and_then(|services| services.get(name)) else {
            return Err(ComposeError::UnknownService {
                name: name.to_owned(),
                there: crate::model::names(
                    services(place.tree)
                        .into_iter()
                        .flatten()
                        .map(|(name, _)| name.as_str()),
                ),
            });
        };
        let mut service = service.clone();
        let Some(extends) = take(&mut service, "extends") else {
            return Ok(service);
        };
        if depth >= LONGEST {
            return Err(ComposeError::invalid(
                &extends.at,
                key,
                "the services extend each other in a circle",
            ));
        }
        let from = read(&extends).ok_or_else(|| {
            ComposeError::invalid(
                &extends.at,
                &key,
                "expected a service, or a map with service and file",
            )
        })?;
        let begun = match from.file {
            None => self.whole(place, &from.service, variables, depth + 1)?,
            Some(file) => {
                let file = path::join(place.base, &file);
                // Relative paths in the other file start from where that one lies.
                let base = file.parent().map_or_else(Utf8PathBuf::new, Utf8Path::to_owned);
                let mut documents = self.parse(&file)?.into_iter();
                let mut tree = documents.next().unwrap_or_default();
                self.prepare(&mut tree, &base, variables)?;
                let there = Place {
                    tree: &tree,
                    base: &base,
                };
                self.whole(&there, &from.service, variables, depth + 1)?
            }
        };
        Ok(merge::services(begun, service))
    }
}

/// A file, and what relative paths in it start from.
struct Place<'a> {
    tree: &'a Node,
    base: &'a Utf8Path,
}

fn take(service: &mut Node, key: &str) -> Option<Node> {
    match &mut service.value {
        Value::Map(map) => map.shift_remove(key).filter(|node| !node.is_null()),
        _ => None,
    }
}

fn read(extends: &Node) -> Option<Base> {
    if let Some(service) = extends.as_str() {
        return Some(Base {
            service: service.to_owned(),
            file: None,
        });
    }
    Some(Base {
        service: extends.get("service")?.as_str()?.to_owned(),
        file: extends.get("file").and_then(Node::as_str).map(str::to_owned),
    })
}
