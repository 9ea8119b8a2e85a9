//! Which values are in force, and where each comes from.

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};
use serde::Serialize;

use crate::Layers;
use crate::layers::secret_file;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", content = "name", rename_all = "snake_case")]
pub enum Origin {
    /// A flag on the command line.
    Flag(String),
    /// A variable of the environment.
    Environment(String),
    /// A file named by a variable of the environment.
    SecretFile(String),
    /// The configuration file.
    File(String),
    /// Nobody set it, and this is the default.
    Default,
    /// Nobody set it, and there is no default.
    Unset,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "flag --{name}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::SecretFile(name) => write!(f, "file named by {name}"),
            Self::File(path) => write!(f, "file {path}"),
            Self::Default => f.write_str("default"),
            Self::Unset => f.write_str("not set"),
        }
    }
}

/// One setting in force.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    /// The name of its long flag, which is its key in the configuration file.
    pub name: String,
    /// Its variable in the environment.
    pub variable: Option<String>,
    /// The value; stars for a secret.
    pub value: Option<String>,
    /// Where the value comes from.
    pub origin: Origin,
}

/// Every setting of the command, in its order. `matches` are those of the command with `layers` applied.
pub fn settings(
    command: &Command,
    matches: &ArgMatches,
    layers: &Layers,
    environment: impl Fn(&str) -> Option<String>,
) -> Vec<Setting> {
    let mut found = Vec::new();
    for argument in command.get_arguments() {
        let Some(long) = argument
            .get_long()
            .filter(|long| !["help", "version", "config"].contains(long))
        else {
            continue;
        };
        let id = argument.get_id().as_str();
        let variable = argument.get_env().map(|name| name.to_string_lossy().into_owned());
        let values: Option<Vec<String>> = matches
            .try_get_raw(id)
            .ok()
            .flatten()
            .map(|raw| raw.map(|value| value.to_string_lossy().into_owned()).collect());
        let origin = match matches.value_source(id) {
            Some(ValueSource::CommandLine) => Origin::Flag(long.to_owned()),
            Some(ValueSource::EnvVariable) => Origin::Environment(variable.clone().unwrap_or_default()),
            Some(_) => {
                let by_file = matches!(secret_file(argument, &environment), Ok(Some(_)));
                match layers.file().filter(|file| file.sets(long)) {
                    _ if by_file => {
                        Origin::SecretFile(format!("{}_FILE", variable.clone().unwrap_or_default()))
                    }
                    Some(file) => Origin::File(file.path().to_string()),
                    None => Origin::Default,
                }
            }
            None => Origin::Unset,
        };
        let secret = argument.is_hide_env_values_set();
        let value = values.map(|values| {
            if secret {
                "********".to_owned()
            } else {
                values.join(",")
            }
        });
        found.push(Setting {
            name: long.to_owned(),
            variable,
            value,
            origin,
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Arg;

    #[test]
    fn secrets_are_stars_and_origins_are_named() {
        let command = Command::new("start")
            .arg(Arg::new("a").long("alpha").default_value("1"))
            .arg(Arg::new("b").long("beta"))
            .arg(
                Arg::new("c")
                    .long("gamma")
                    .env("NIMBUS_TEST_NEVER_SET_C")
                    .hide_env_values(true),
            );
        let matches = command.clone().get_matches_from(["start", "--gamma", "hush"]);
        let shown = settings(&command, &matches, &Layers::default(), |_| None);
        let line: Vec<(&str, Option<&str>, String)> = shown
            .iter()
            .map(|s| (s.name.as_str(), s.value.as_deref(), s.origin.to_string()))
            .collect();
        assert_eq!(
            line,
            [
                ("alpha", Some("1"), "default".to_owned()),
                ("beta", None, "not set".to_owned()),
                ("gamma", Some("********"), "flag --gamma".to_owned()),
            ]
        );
    }
}
