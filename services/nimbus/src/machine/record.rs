//! What is written down about a machine: its settings and its state.

use nimbus_model::Hostname;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Place;
use crate::problem::{Outcome, Problem};

/// The machine that is meant if none is named.
pub(super) const DEFAULT_NAME: &str = "default";
/// The heading of the table.
pub(super) const HEADING: [&str; 8] = [
    "NAME",
    "LIFECYCLE",
    "MANAGER",
    "PROVIDER",
    "CPUS",
    "MEMORY(MiB)",
    "DISK(GiB)",
    "API",
];

/// Checks the name of a machine: it becomes the name of a folder.
pub(super) fn name(text: &str) -> Result<String, String> {
    match text.parse::<Hostname>() {
        Ok(_) if !text.contains('.') => Ok(text.to_owned()),
        _ => Err("expected letters, digits and dashes, such as default".to_owned()),
    }
}

/// Where records are.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Roots {
    config: Place,
    state: Place,
    data: Place,
    cache: Place,
    runtime: Place,
}

impl Roots {
    /// The folders of this account; none for one without a home.
    pub(super) fn new(environment: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let named = |name: &str| {
            environment(name)
                .filter(|path| path.starts_with('/'))
                .map(Place::from)
        };
        let home = named("HOME")?;
        let or = |name: &str, otherwise: &str| {
            named(name)
                .unwrap_or_else(|| home.join(otherwise))
                .join("nimbus/machine")
        };
        Some(Self {
            config: or("XDG_CONFIG_HOME", ".config"),
            state: or("XDG_STATE_HOME", ".local/state"),
            data: or("XDG_DATA_HOME", ".local/share"),
            cache: or("XDG_CACHE_HOME", ".cache"),
            runtime: named("NIMBUS_MACHINE_RUNTIME_ROOT").unwrap_or_else(|| "/tmp/nimbus".into()),
        })
    }
}

/// How far a machine has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Lifecycle {
    Uninitialized,
    Stopped,
    Starting,
    Running,
    Failed,
}

/// How far the programs have come that run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Manager {
    Unconfigured,
    HelpersResolved,
    Launching,
    Ready,
    Failed,
    Stale,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Resources {
    cpus: u32,
    memory_mib: u64,
    disk_gib: u64,
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            cpus: 2,
            memory_mib: 2048,
            disk_gib: 20,
        }
    }
}

#[derive(Debug, Deserialize)]
struct Config {
    provider: String,
    #[serde(default)]
    guest: Value,
    #[serde(default)]
    resources: Resources,
    #[serde(default)]
    volumes: Value,
}

#[derive(Debug, Deserialize)]
struct Status {
    lifecycle: Lifecycle,
    manager: Manager,
    #[serde(default)]
    runtime: Value,
    #[serde(default)]
    last_error: Option<String>,
}

/// Everything that is known of a machine.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    result: &'static str,
    /// Whether it was ever made.
    pub(super) initialized: bool,
    name: String,
    lifecycle: Lifecycle,
    manager: Manager,
    provider: Option<String>,
    guest: Value,
    resources: Resources,
    volumes: Value,
    roots: Roots,
    runtime: Value,
    machine_api: &'static str,
    last_error: Option<String>,
}

/// Reads what is known of a machine.
pub(super) fn read(roots: &Roots, name: &str) -> Outcome<Machine> {
    let config: Option<Config> = parse(&roots.config.join(name).join("config.json"))?;
    let status: Option<Status> = parse(&roots.state.join(name).join("status.json"))?;
    let initialized = config.is_some();
    // A state without settings is left over: the machine is gone.
    let status = status.filter(|_| initialized);
    let fallback = if initialized {
        Lifecycle::Stopped
    } else {
        Lifecycle::Uninitialized
    };
    Ok(Machine {
        result: "status",
        initialized,
        name: name.to_owned(),
        lifecycle: status.as_ref().map_or(fallback, |status| status.lifecycle),
        manager: status
            .as_ref()
            .map_or(Manager::Unconfigured, |status| status.manager),
        provider: config.as_ref().map(|config| config.provider.clone()),
        guest: config.as_ref().map_or(Value::Null, |config| config.guest.clone()),
        resources: config
            .as_ref()
            .map(|config| config.resources.clone())
            .unwrap_or_default(),
        volumes: config.map_or(Value::Null, |config| config.volumes),
        roots: roots.clone(),
        runtime: status
            .as_ref()
            .map_or(Value::Null, |status| status.runtime.clone()),
        // Forwarded from the guest by a manager, of which Linux has none.
        machine_api: "unreachable",
        last_error: status.and_then(|status| status.last_error),
    })
}

fn parse<T: serde::de::DeserializeOwned>(path: &Place) -> Outcome<Option<T>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Problem::failed(format!("could not read {path}")).because(&error)),
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| Problem::failed(format!("{path} is no record of a machine")).because(&error))
}

fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        _ => "-".to_owned(),
    }
}

impl Machine {
    /// As a row of the table.
    pub(super) fn row(&self) -> [String; 8] {
        [
            self.name.clone(),
            word(&self.lifecycle),
            word(&self.manager),
            crate::output::or_dash(self.provider.as_ref()),
            self.resources.cpus.to_string(),
            self.resources.memory_mib.to_string(),
            self.resources.disk_gib.to_string(),
            self.machine_api.to_owned(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots(home: &str) -> Roots {
        let home = home.to_owned();
        Roots::new(move |name| (name == "HOME").then(|| home.clone())).unwrap()
    }

    #[test]
    fn a_machine_that_was_never_made_is_uninitialized() {
        let dir = camino_tempfile::tempdir().unwrap();
        let machine = read(&roots(dir.path().as_str()), "default").unwrap();
        assert_eq!(
            machine.row().join(" "),
            "default uninitialized unconfigured - 2 2048 20 unreachable"
        );
        assert!(Roots::new(|_| None).is_none());
    }

    #[test]
    fn records_are_read_whole_or_refused() {
        let dir = camino_tempfile::tempdir().unwrap();
        let roots = roots(dir.path().as_str());
        let (config, state) = (roots.config.join("big"), roots.state.join("big"));
        std::fs::create_dir_all(&config).unwrap();
        std::fs::create_dir_all(&state).unwrap();
        let text = r#"{"version":1,"name":"big","provider":"krunkit","guest":{},"resources":{"cpus":8,"memory_mib":4096,"disk_gib":50}}"#;
        std::fs::write(config.join("config.json"), text).unwrap();
        assert_eq!(
            read(&roots, "big").unwrap().row().join(" "),
            "big stopped unconfigured krunkit 8 4096 50 unreachable"
        );
        let text = r#"{"version":1,"lifecycle":"running","manager":"ready"}"#;
        std::fs::write(state.join("status.json"), text).unwrap();
        assert!(
            read(&roots, "big")
                .unwrap()
                .row()
                .join(" ")
                .contains("running ready")
        );
        std::fs::write(state.join("status.json"), "{").unwrap();
        assert!(
            read(&roots, "big")
                .unwrap_err()
                .to_string()
                .contains("status.json")
        );
    }

    #[test]
    fn names_are_no_paths() {
        assert!(name("default").is_ok());
        for wrong in ["", "..", "a/b", "a b", "-a"] {
            assert!(name(wrong).is_err(), "{wrong}");
        }
    }
}
