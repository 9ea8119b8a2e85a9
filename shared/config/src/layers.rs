//! The layers below the environment: files with secrets, and the configuration file.

use std::collections::BTreeMap;

use camino::{Utf8Path, Utf8PathBuf};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

/// Settings for which the empty value says something; everywhere else it is refused.
///
/// An empty `NIMBUS_VM_DISK_STORAGE` turns the disk gate of node scoring off.
pub const EMPTY_HAS_A_MEANING: &[&str] = &["NIMBUS_VM_DISK_STORAGE"];

/// Why settings could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file could not be read.
    #[error("{path}, named by {by}, could not be read")]
    Unreadable {
        /// The file.
        path: String,
        /// Who named it.
        by: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The configuration file is neither TOML nor JSON.
    #[error("{path} is not {format}: {reason}")]
    Malformed {
        /// The file.
        path: Utf8PathBuf,
        /// What it was read as.
        format: &'static str,
        /// What is wrong, and where.
        reason: String,
    },
    /// The configuration file has a key that is no setting.
    #[error("{path} has the unknown setting {key}{hint}")]
    UnknownKey {
        /// The file.
        path: Utf8PathBuf,
        /// The key as it was understood.
        key: String,
        /// A setting of a similar name, as a sentence.
        hint: String,
    },
    /// The configuration file gives a setting something that is not a value.
    #[error("{path}: {key} is {found}, expected text, a number, true or false, or a list of these")]
    NotAValue {
        /// The file.
        path: Utf8PathBuf,
        /// The key.
        key: String,
        /// What stands there.
        found: &'static str,
    },
    /// A setting is there and empty.
    #[error("{name} is empty: give it a value, or do not set it")]
    Empty {
        /// Flag, variable or key.
        name: String,
    },
    /// A secret is given twice.
    #[error("{name} and {name}_FILE are both set: keep one")]
    Both {
        /// The variable.
        name: String,
    },
}

/// What the configuration file says: settings by the name of their long flag.
#[derive(Clone, Debug)]
pub struct FileLayer {
    path: Utf8PathBuf,
    values: BTreeMap<String, String>,
}

impl FileLayer {
    /// Reads the file: JSON when its name ends in `.json`, else TOML.
    ///
    /// Keys are the names of the long flags. `_` counts as `-`, and a table is a prefix, so
    /// `proxmox-host = "…"`, `proxmox_host = "…"` and `[proxmox] host = "…"` say the same.
    ///
    /// # Errors
    /// The file cannot be read or understood.
    pub fn read(path: &Utf8Path, named_by: &str) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_string(),
            by: named_by.to_owned(),
            source,
        })?;
        Self::parse(path, &text)
    }

    fn parse(path: &Utf8Path, text: &str) -> Result<Self, ConfigError> {
        let malformed = |format, reason: String| ConfigError::Malformed {
            path: path.to_owned(),
            format,
            reason,
        };
        let json = path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        let root: serde_json::Value = if json {
            serde_json::from_str(text).map_err(|error| malformed("JSON", error.to_string()))?
        } else {
            toml::from_str(text).map_err(|error| malformed("TOML", error.to_string().trim().to_owned()))?
        };
        let serde_json::Value::Object(root) = root else {
            return Err(malformed("JSON", "expected an object".to_owned()));
        };
        let mut values = BTreeMap::new();
        flatten(path, "", root, &mut values)?;
        Ok(Self {
            path: path.to_owned(),
            values,
        })
    }

    /// Where it was read from.
    #[must_use]
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// Whether the file sets this flag.
    #[must_use]
    pub fn sets(&self, long: &str) -> bool {
        self.values.contains_key(long)
    }

    /// Refuses a key that none of the commands has a flag for.
    ///
    /// # Errors
    /// There is such a key; the error names it.
    pub fn check_keys<'a>(&self, commands: impl IntoIterator<Item = &'a Command>) -> Result<(), ConfigError> {
        let known: Vec<&str> = commands
            .into_iter()
            .flat_map(Command::get_arguments)
            .filter_map(Arg::get_long)
            .collect();
        for key in self.values.keys() {
            if !known.contains(&key.as_str()) {
                let near = known
                    .iter()
                    .find(|name| name.contains(key.as_str()) || key.contains(**name));
                let hint = near.map_or_else(String::new, |name| format!("; is {name} meant?"));
                return Err(ConfigError::UnknownKey {
                    path: self.path.clone(),
                    key: key.clone(),
                    hint,
                });
            }
        }
        Ok(())
    }
}

fn flatten(
    path: &Utf8Path,
    prefix: &str,
    table: serde_json::Map<String, serde_json::Value>,
    values: &mut BTreeMap<String, String>,
) -> Result<(), ConfigError> {
    for (key, value) in table {
        let key = key.to_lowercase().replace('_', "-");
        let key = if prefix.is_empty() {
            key
        } else {
            format!("{prefix}-{key}")
        };
        let text = match value {
            serde_json::Value::Object(inner) => {
                flatten(path, &key, inner, values)?;
                continue;
            }
            serde_json::Value::Array(items) => {
                let parts: Option<Vec<String>> = items.iter().map(scalar).collect();
                parts.map(|parts| parts.join(","))
            }
            other => scalar(&other),
        };
        let text = text.ok_or_else(|| ConfigError::NotAValue {
            path: path.to_owned(),
            key: key.clone(),
            found: "nothing",
        })?;
        values.insert(key, text);
    }
    Ok(())
}

fn scalar(value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        serde_json::Value::Bool(switch) => Some(switch.to_string()),
        _ => None,
    }
}

/// Everything below flag and environment, ready to be laid under a command.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    file: Option<FileLayer>,
}

impl Layers {
    /// Only the environment, and a configuration file if there is one.
    #[must_use]
    pub fn new(file: Option<FileLayer>) -> Self {
        Self { file }
    }

    /// The configuration file.
    #[must_use]
    pub fn file(&self) -> Option<&FileLayer> {
        self.file.as_ref()
    }

    /// Makes the values of the file, and of files named by `…_FILE` variables, defaults of the
    /// command's arguments.
    ///
    /// An argument that hides its environment value is a secret: it may also be given as the path of a
    /// file in the variable of its name plus `_FILE`, which wins over the configuration file.
    ///
    /// # Errors
    /// A secret's file cannot be read, or a secret is given in both ways.
    pub fn apply(
        &self,
        command: Command,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Command, ConfigError> {
        let mut laid = command;
        let arguments: Vec<Arg> = laid.get_arguments().cloned().collect();
        for argument in arguments {
            let secret = argument.is_hide_env_values_set();
            let value = match secret_file(&argument, &environment)? {
                Some(value) => Some(value),
                None => argument
                    .get_long()
                    .and_then(|long| self.file.as_ref().and_then(|file| file.values.get(long)))
                    .cloned(),
            };
            if let Some(value) = value {
                laid = laid.mut_arg(argument.get_id().clone(), |arg| {
                    arg.default_value(value)
                        .hide_default_value(secret)
                        .required(false)
                });
            }
        }
        Ok(laid)
    }

    /// Refuses a setting that is there and empty.
    ///
    /// # Errors
    /// There is one; the error names it as the reader gave it.
    pub fn refuse_empty(&self, command: &Command, matches: &ArgMatches) -> Result<(), ConfigError> {
        for argument in command.get_arguments() {
            let id = argument.get_id().as_str();
            let variable = argument.get_env().map(|name| name.to_string_lossy().into_owned());
            if variable
                .as_deref()
                .is_some_and(|name| EMPTY_HAS_A_MEANING.contains(&name))
            {
                continue;
            }
            let long = argument.get_long().unwrap_or(id);
            let by_default = matches.value_source(id) == Some(ValueSource::DefaultValue);
            if by_default && !self.file.as_ref().is_some_and(|file| file.sets(long)) {
                continue;
            }
            let empty = matches
                .try_get_raw(id)
                .ok()
                .flatten()
                .is_some_and(|mut values| values.any(|value| value.to_string_lossy().trim().is_empty()));
            if empty {
                let flag = argument
                    .get_long()
                    .map_or_else(|| id.to_owned(), |long| format!("--{long}"));
                let name = match (matches.value_source(id), variable) {
                    (Some(clap::parser::ValueSource::EnvVariable), Some(name)) => name,
                    (Some(clap::parser::ValueSource::DefaultValue), _) => {
                        let long = argument.get_long().unwrap_or(id);
                        self.file
                            .as_ref()
                            .map_or_else(|| long.to_owned(), |file| format!("{long} in {}", file.path))
                    }
                    _ => flag,
                };
                return Err(ConfigError::Empty { name });
            }
        }
        Ok(())
    }
}

/// What the file named by the `…_FILE` variable of a secret holds.
pub(crate) fn secret_file(
    argument: &Arg,
    environment: &impl Fn(&str) -> Option<String>,
) -> Result<Option<String>, ConfigError> {
    let Some(name) = argument.get_env().filter(|_| argument.is_hide_env_values_set()) else {
        return Ok(None);
    };
    let name = name.to_string_lossy();
    let by = format!("{name}_FILE");
    let Some(path) = environment(&by) else {
        return Ok(None);
    };
    if environment(&name).is_some() {
        return Err(ConfigError::Both {
            name: name.into_owned(),
        });
    }
    let text =
        std::fs::read_to_string(&path).map_err(|source| ConfigError::Unreadable { path, by, source })?;
    Ok(Some(text.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        Command::new("start")
            .arg(Arg::new("pool_start").long("ip-pool-start"))
            .arg(
                Arg::new("interval")
                    .long("reconcile-interval")
                    .default_value("60")
                    .env("NIMBUS_TEST_NEVER_SET_A"),
            )
            .arg(
                Arg::new("secret")
                    .long("proxmox-token-secret")
                    .env("NIMBUS_TEST_NEVER_SET_B")
                    .hide_env_values(true),
            )
            .arg(
                Arg::new("insecure")
                    .long("proxmox-insecure")
                    .action(clap::ArgAction::SetTrue),
            )
    }

    fn none(_: &str) -> Option<String> {
        None
    }

    fn file(text: &str) -> FileLayer {
        FileLayer::parse(Utf8Path::new("nimbus.toml"), text).unwrap()
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let layers = Layers::new(Some(file(
            "ip_pool_start = \"10.0.0.1\"\nreconcile-interval = 5\n[proxmox]\ninsecure = true\ntoken_secret = 's'\n",
        )));
        layers.file().unwrap().check_keys([&command()]).unwrap();
        let laid = layers.apply(command(), none).unwrap();
        let matches = laid
            .clone()
            .get_matches_from(["start", "--ip-pool-start", "10.0.0.9"]);
        assert_eq!(matches.get_one::<String>("pool_start").unwrap(), "10.0.0.9");
        assert_eq!(matches.get_one::<String>("interval").unwrap(), "5");
        assert!(matches.get_flag("insecure"));
        assert_eq!(matches.get_one::<String>("secret").unwrap(), "s");
        assert!(
            !laid
                .clone()
                .render_long_help()
                .to_string()
                .contains("[default: s]"),
            "help shows a secret"
        );
    }

    #[test]
    fn json_and_toml_say_the_same() {
        let json = FileLayer::parse(
            Utf8Path::new("x.json"),
            r#"{"proxmox":{"host":"h"},"nodes":["a","b"],"n":3}"#,
        )
        .unwrap();
        let toml = file("nodes = ['a', 'b']\nn = 3\nproxmox.host = 'h'");
        assert_eq!(json.values, toml.values);
        assert_eq!(json.values.get("nodes").unwrap(), "a,b");
    }

    #[test]
    fn an_unknown_key_is_named_with_the_nearest_known_one() {
        let error = file("interval = 5")
            .check_keys([&command()])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("interval") && error.contains("reconcile-interval"),
            "{error}"
        );
        assert!(
            file("colour = 'blue'")
                .check_keys([&command()])
                .unwrap_err()
                .to_string()
                .ends_with("colour")
        );
    }

    #[test]
    fn broken_files_say_what_is_wrong() {
        let path = Utf8Path::new("nimbus.toml");
        assert!(matches!(
            FileLayer::parse(path, "a = "),
            Err(ConfigError::Malformed { .. })
        ));
        assert!(matches!(
            FileLayer::parse(Utf8Path::new("x.json"), "[1]"),
            Err(ConfigError::Malformed { .. })
        ));
        assert!(matches!(
            FileLayer::parse(Utf8Path::new("x.json"), r#"{"a":null}"#),
            Err(ConfigError::NotAValue { .. })
        ));
        assert!(matches!(
            FileLayer::read(Utf8Path::new("/nowhere"), "--config"),
            Err(ConfigError::Unreadable { .. })
        ));
    }

    #[test]
    fn empty_is_refused_by_name() {
        let layers = Layers::new(Some(file("ip-pool-start = ''")));
        let laid = layers.apply(command(), none).unwrap();
        let matches = laid.clone().get_matches_from(["start"]);
        let error = layers.refuse_empty(&laid, &matches).unwrap_err().to_string();
        assert!(error.contains("ip-pool-start in nimbus.toml"), "{error}");

        let layers = Layers::default();
        let matches = command().get_matches_from(["start", "--ip-pool-start", " "]);
        assert!(
            layers
                .refuse_empty(&command(), &matches)
                .unwrap_err()
                .to_string()
                .contains("--ip-pool-start")
        );
        let matches = command().get_matches_from(["start"]);
        layers.refuse_empty(&command(), &matches).unwrap();
    }

    #[test]
    fn a_secret_may_be_a_file_but_not_both() {
        let dir = camino_tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "hush\n").unwrap();
        let environment = |name: &str| (name == "NIMBUS_TEST_NEVER_SET_B_FILE").then(|| path.to_string());
        let laid = Layers::default().apply(command(), environment).unwrap();
        assert_eq!(
            laid.get_matches_from(["start"])
                .get_one::<String>("secret")
                .unwrap(),
            "hush"
        );

        let both = |_: &str| Some(path.to_string());
        assert!(matches!(
            Layers::default().apply(command(), both),
            Err(ConfigError::Both { .. })
        ));
        let missing = |name: &str| name.ends_with("_FILE").then(|| "/nowhere".to_owned());
        let error = Layers::default()
            .apply(command(), missing)
            .unwrap_err()
            .to_string();
        assert!(error.contains("NIMBUS_TEST_NEVER_SET_B_FILE"), "{error}");
    }
}
