//! Where things are: system-wide, or in one account's folders.

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use crate::error::NodeError;

/// Whose service manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The host's.
    System,
    /// That of the account which runs the command.
    User,
}

/// As what Nimbus runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// The program as a service.
    Systemd,
    /// Its image as a container of Podman, through Quadlet.
    Container,
}

impl Scope {
    /// As it is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
        }
    }

    /// `systemctl` with what makes it speak to this service manager, and more words.
    #[must_use]
    pub fn systemctl(self, words: &[&str]) -> Vec<String> {
        let manager = match self {
            Self::System => None,
            Self::User => Some("--user"),
        };
        ["systemctl"]
            .into_iter()
            .chain(manager)
            .chain(words.iter().copied())
            .map(str::to_owned)
            .collect()
    }
}

impl Target {
    /// As it is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Systemd => "native systemd",
            Self::Container => "container Quadlet",
        }
    }

    /// The flag that chooses it.
    #[must_use]
    pub const fn flag(self) -> &'static str {
        match self {
            Self::Systemd => "--systemd",
            Self::Container => "--container",
        }
    }
}

/// The folders of a scope. All of them are absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Whose.
    pub scope: Scope,
    /// Units.
    pub units: Utf8PathBuf,
    /// Quadlet files.
    pub quadlet: Utf8PathBuf,
    /// What the node keeps. It is its home in system scope.
    pub base: Utf8PathBuf,
    /// Settings and the manifest; what the service itself cannot change in system scope.
    pub config: Utf8PathBuf,
    /// Where the program goes unless somebody says otherwise.
    pub binary: Utf8PathBuf,
    /// What else the service writes to, in user scope.
    pub writable: Vec<Utf8PathBuf>,
}

impl Layout {
    /// The folders of a scope, from the environment where that is somebody's.
    ///
    /// # Errors
    /// User scope of an account without a home.
    pub fn new(scope: Scope, environment: impl Fn(&str) -> Option<String>) -> Result<Self, NodeError> {
        if scope == Scope::System {
            return Ok(Self {
                scope,
                units: "/etc/systemd/system".into(),
                quadlet: "/etc/containers/systemd".into(),
                base: "/var/lib/nimbus".into(),
                config: "/etc/nimbus".into(),
                binary: "/usr/local/bin/nimbus".into(),
                writable: Vec::new(),
            });
        }
        let named = |name: &str| {
            environment(name)
                .filter(|path| path.starts_with('/'))
                .map(Utf8PathBuf::from)
        };
        let home = named("HOME").ok_or(NodeError::NoHome)?;
        let or = |name: &str, otherwise: &str| named(name).unwrap_or_else(|| home.join(otherwise));
        let config = or("XDG_CONFIG_HOME", ".config");
        let base = or("XDG_DATA_HOME", ".local/share").join("nimbus");
        Ok(Self {
            scope,
            units: config.join("systemd/user"),
            quadlet: config.join("containers/systemd"),
            config: config.join("nimbus"),
            binary: home.join(".local/bin/nimbus"),
            // Logs and discovery of a server that has no runtime folder.
            writable: vec![home.join(".local/state/nimbus")],
            base,
        })
    }

    /// The data folder of the server.
    #[must_use]
    pub fn data(&self) -> Utf8PathBuf {
        self.base.join("data")
    }

    /// The file with settings for the service, one `NAME=value` a line.
    #[must_use]
    pub fn env_file(&self) -> Utf8PathBuf {
        self.config.join("nimbus.env")
    }

    /// Where it is written down what was made.
    #[must_use]
    pub fn manifest(&self) -> Utf8PathBuf {
        self.config.join("node.json")
    }

    /// The admin token of a server that runs as this node.
    #[must_use]
    pub fn token(&self) -> Utf8PathBuf {
        match self.scope {
            Scope::System => self.base.join(".local/share/nimbus/auth/token"),
            Scope::User => self.base.join("auth/token"),
        }
    }

    /// Where the artifacts of a target go.
    #[must_use]
    pub fn artifacts(&self, target: Target) -> &Utf8Path {
        match target {
            Target::Systemd => &self.units,
            Target::Container => &self.quadlet,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_follow_scope_and_environment() {
        let with = |pairs: &'static [(&str, &str)]| {
            Layout::new(Scope::User, move |name| {
                pairs
                    .iter()
                    .find(|(known, _)| *known == name)
                    .map(|(_, value)| (*value).to_owned())
            })
        };
        let plain = with(&[("HOME", "/home/a")]).unwrap();
        assert_eq!(plain.units, "/home/a/.config/systemd/user");
        assert_eq!(plain.data(), "/home/a/.local/share/nimbus/data");
        assert_eq!(plain.token(), "/home/a/.local/share/nimbus/auth/token");
        let moved = with(&[
            ("HOME", "/home/a"),
            ("XDG_CONFIG_HOME", "/c"),
            ("XDG_DATA_HOME", "d"),
        ])
        .unwrap();
        assert_eq!(moved.quadlet, "/c/containers/systemd");
        assert_eq!(
            moved.base, "/home/a/.local/share/nimbus",
            "a relative path is none"
        );
        assert!(matches!(with(&[]), Err(NodeError::NoHome)));
        let system = Layout::new(Scope::System, |_| None).unwrap();
        assert_eq!(system.manifest(), "/etc/nimbus/node.json");
        assert_eq!(
            Scope::User.systemctl(&["daemon-reload"]).join(" "),
            "systemctl --user daemon-reload"
        );
    }
}
