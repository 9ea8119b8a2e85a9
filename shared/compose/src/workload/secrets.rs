//! Secrets of a service: a sandbox has them as variables, and a Compose file as files.
//!
//! Images that read a variable `NAME` usually read `NAME_FILE` as well, the path of a file with the same value
//! (those of databases do). Where a file of Compose says so of a secret, the variable itself is given.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::name;
use crate::model::{Grant, Project, Service, Source};
use crate::notice::Notice;

/// What the name of a variable ends with that holds the path of a file.
const FILE: &str = "_FILE";
const FOLDER: &str = "/run/secrets";

/// Secrets of a service as Nimbus knows them.
#[derive(Default)]
pub(super) struct Used {
    /// `secret` and `variable` each, as a request has them.
    pub(super) variables: Vec<Value>,
    /// Variables with paths that are not there.
    pub(super) dropped: BTreeSet<String>,
    /// Secrets of the project that are needed, as the file calls them.
    pub(super) needed: Vec<String>,
}

impl Project {
    /// What a secret is called in the tenant; one of somebody else keeps its name.
    pub fn secret_name(&self, secret: &str) -> String {
        match self.secrets.get(secret).map(|secret| &secret.source) {
            Some(Source::External(name)) => name.clone(),
            _ => format!("{}_{secret}", self.name),
        }
    }
}

pub(super) fn used(project: &Project, service: &Service, notices: &mut Vec<Notice>) -> Used {
    let mut used = Used::default();
    for grant in &service.secrets {
        let path = path(grant);
        let named = service
            .environment
            .iter()
            .filter(|(_, value)| **value == path)
            .filter_map(|(key, _)| Some((key, key.strip_suffix(FILE).filter(|base| !base.is_empty())?)));
        let mut is_named = false;
        for (key, variable) in named {
            is_named = true;
            let secret = &grant.source;
            if service.environment.contains_key(variable) {
                notices.push(Notice::warning(
                    &grant.at,
                    name(service, "secrets"),
                    format!("{key} names the secret {secret}, and {variable} is there too"),
                    format!("write only one of {key} and {variable}"),
                ));
                continue;
            }
            // Two entries may name one path.
            if !used.dropped.insert(key.clone()) {
                continue;
            }
            notices.push(Notice::info(
                &grant.at,
                name(service, "secrets"),
                format!("{secret} is given as the variable {variable}, and {key} is left out"),
                format!("check that the image reads {variable} as well as {key}"),
            ));
            let entry = json!({ "secret": project.secret_name(secret), "variable": variable });
            used.variables.push(entry);
            if !used.needed.contains(secret) {
                used.needed.push(secret.clone());
            }
        }
        if !is_named {
            notices.push(Notice::warning(
                &grant.at,
                name(service, "secrets"),
                format!("{path} is not there under Nimbus: a sandbox has secrets as variables"),
                format!("add NAME{FILE}: {path} to the environment to have the secret in NAME"),
            ));
        }
    }
    used
}

/// Where Compose would put it.
fn path(grant: &Grant) -> String {
    match grant.target.as_deref() {
        Some(path) if path.starts_with('/') => path.to_owned(),
        Some(file) => format!("{FOLDER}/{file}"),
        None => format!("{FOLDER}/{}", grant.source),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::defined;
    use super::*;

    fn told(text: &str) -> (Value, Vec<String>, Vec<String>) {
        let made = defined(text);
        let notices = made.notices.iter();
        (
            made.body["spec"]["backend"]["sandbox"]["process"].clone(),
            made.secrets.clone(),
            notices
                .map(|notice| format!("{:?} {}", notice.level, notice.what))
                .collect(),
        )
    }

    const SECRETS: &str = "secrets: {root: {file: ./root.txt}, other: {external: true, name: shared}}\n";

    #[test]
    fn a_file_that_a_variable_names_becomes_that_variable() {
        let (process, needed, notices) = told(&format!(
            "services:\n  a:\n    image: x:1\n    secrets: [root, {{source: other, target: /etc/o}}]\n    \
             environment: {{PW_FILE: /run/secrets/root, OTHER_FILE: /etc/o, KEPT: b}}\n{SECRETS}"
        ));
        assert_eq!(process["env"], json!(["KEPT=b"]));
        assert_eq!(
            process["secrets"],
            json!([
                { "secret": "p_root", "variable": "PW" },
                { "secret": "shared", "variable": "OTHER" },
            ])
        );
        assert_eq!(needed, ["root", "other"]);
        assert!(
            notices.iter().all(|notice| notice.starts_with("Info ")),
            "{notices:?}"
        );
    }

    #[test]
    fn what_no_variable_names_is_left_out_with_a_word() {
        let (process, needed, notices) = told(&format!(
            "services:\n  a:\n    image: x:1\n    secrets: [root]\n    environment: {{_FILE: /run/secrets/root}}\n{SECRETS}"
        ));
        assert_eq!((&process["secrets"], needed.len()), (&Value::Null, 0));
        assert_eq!(process["env"], json!(["_FILE=/run/secrets/root"]));
        assert_eq!(
            notices,
            ["Warning /run/secrets/root is not there under Nimbus: a sandbox has secrets as variables"]
        );
    }

    #[test]
    fn a_variable_that_is_there_already_wins() {
        let (process, needed, notices) = told(&format!(
            "services:\n  a:\n    image: x:1\n    secrets: [root]\n    environment: {{PW: b, PW_FILE: /run/secrets/root}}\n{SECRETS}"
        ));
        assert_eq!((&process["secrets"], needed.len()), (&Value::Null, 0));
        assert!(
            notices.iter().any(|notice| notice.contains("PW is there too")),
            "{notices:?}"
        );
    }
}
