//! Settings of a host's agent.

use std::str::FromStr;

use camino::{Utf8Path, Utf8PathBuf};
use ipnet::IpNet;
use nimbus_config::{bytes, text};
use nimbus_model::{Hostname, HostnameError};

/// Socket paths hold at most 107 bytes (unix(7)); what the agent adds to its directory is this long.
const SOCKET_PATH: usize = 107;
const BELOW_STATE_DIR: usize = "/slots/".len() + 16 + ".guest.sock".len();

/// Sandboxes on this host. Flag over environment over file over default.
#[derive(Clone, Debug, clap::Args)]
pub struct SandboxAgentConfig {
    /// Name under which this host offers sandboxes, unique in the deployment; the machine's own name
    /// unless it is set.
    #[arg(id = "sandbox_host", long = "sandbox-host", env = "NIMBUS_SANDBOX_HOST", value_name = "NAME", value_parser = hostname)]
    pub host: Option<Hostname>,

    /// Socket of the container engine, `unix:///path`; unless it is set, `DOCKER_HOST` and the usual
    /// places of Docker and Podman are tried.
    #[arg(id = "sandbox_engine", long = "sandbox-engine", env = "NIMBUS_SANDBOX_ENGINE", value_name = "URL", value_parser = text)]
    pub engine: Option<String>,

    /// Directory for what the agent keeps of its sandboxes: sealed launch input, logs, sockets. The
    /// engine has to see it under the same path. `sandboxes` in the data directory unless it is set.
    #[arg(
        id = "sandbox_state_dir",
        long = "sandbox-state-dir",
        env = "NIMBUS_SANDBOX_STATE_DIR",
        value_name = "DIR"
    )]
    pub state_dir: Option<Utf8PathBuf>,

    /// Memory of the host that sandboxes do not get.
    #[arg(id = "sandbox_memory_reserve", long = "sandbox-memory-reserve", env = "NIMBUS_SANDBOX_MEMORY_RESERVE",
          value_name = "SIZE", default_value = "1GiB", value_parser = bytes)]
    pub memory_reserve: u64,

    /// How many warm containers wait per image and resource class that is in use; 0 turns the pool off.
    #[arg(
        id = "sandbox_warm",
        long = "sandbox-warm",
        env = "NIMBUS_SANDBOX_WARM",
        value_name = "COUNT",
        default_value_t = 2
    )]
    pub warm: u32,

    /// Memory that all warm containers together may use. One that waits counts as 8 MiB.
    #[arg(id = "sandbox_warm_memory", long = "sandbox-warm-memory", env = "NIMBUS_SANDBOX_WARM_MEMORY",
          value_name = "SIZE", default_value = "256MiB", value_parser = bytes)]
    pub warm_memory: u64,

    /// Ports of the host's loopback that published ports get, first and last.
    #[arg(id = "sandbox_ports", long = "sandbox-ports", env = "NIMBUS_SANDBOX_PORTS", value_name = "FIRST-LAST",
          default_value = "15000-16000", value_parser = PortRange::from_str)]
    pub ports: PortRange,

    /// Networks inside of yours that an egress rule with `allowInternalIps` may mean. Not the host's
    /// loopback, where the bus is, nor link-local addresses, where clouds keep their metadata.
    #[arg(
        id = "sandbox_egress_internal",
        long = "sandbox-egress-internal",
        env = "NIMBUS_SANDBOX_EGRESS_INTERNAL",
        value_name = "NETWORKS",
        value_delimiter = ',',
        default_value = "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7"
    )]
    pub egress_internal: Vec<IpNet>,

    /// File with credentials of registries, in the form of Docker's `config.json`.
    #[arg(
        id = "registry_auth_file",
        long = "registry-auth-file",
        env = "NIMBUS_REGISTRY_AUTH_FILE",
        value_name = "FILE"
    )]
    pub registry_auth: Option<Utf8PathBuf>,

    /// Registry (and path) that is asked for Docker Hub's images instead: `mirror.example:5000/hub`.
    #[arg(id = "image_mirror", long = "image-mirror", env = "NIMBUS_IMAGE_MIRROR", value_name = "REGISTRY", value_parser = text)]
    pub image_mirror: Option<String>,

    /// The static init that runs first in each sandbox; the one that came with this program unless it is set.
    #[arg(
        id = "guest_init",
        long = "guest-init",
        env = "NIMBUS_GUEST_INIT",
        value_name = "FILE"
    )]
    pub guest_init: Option<Utf8PathBuf>,
}

/// Ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No directory was named.
    #[error("the sandbox agent has no directory for its state")]
    NoStateDir,
    /// Sockets would have names that are too long.
    #[error(
        "{dir} is too long for the sockets of sandboxes: it may have {} characters",
        SOCKET_PATH - BELOW_STATE_DIR
    )]
    StateDirTooLong {
        /// The directory.
        dir: Utf8PathBuf,
    },
    /// The engine may run elsewhere and needs the whole path.
    #[error("{dir} is not an absolute path")]
    StateDirRelative {
        /// The directory.
        dir: Utf8PathBuf,
    },
    /// The machine's name is no host name.
    #[error("this machine is called {name:?}: set NIMBUS_SANDBOX_HOST")]
    Hostname {
        /// What it is called.
        name: String,
        /// What is wrong.
        #[source]
        source: HostnameError,
    },
}

fn hostname(text: &str) -> Result<Hostname, HostnameError> {
    text.parse()
}

impl SandboxAgentConfig {
    /// Fills in what lies below the data directory.
    #[must_use]
    pub fn under(mut self, data_dir: &Utf8Path) -> Self {
        self.state_dir.get_or_insert_with(|| data_dir.join("sandboxes"));
        self
    }

    /// The name under which this host offers sandboxes: the set one, else the machine's, made to fit.
    ///
    /// # Errors
    /// [`ConfigError::Hostname`] when nothing of the machine's name can be used.
    pub fn host_name(&self) -> Result<Hostname, ConfigError> {
        if let Some(host) = &self.host {
            return Ok(host.clone());
        }
        machine_name()
    }

    pub(crate) fn state_dir(&self) -> Result<&Utf8Path, ConfigError> {
        let dir = self.state_dir.as_deref().ok_or(ConfigError::NoStateDir)?;
        if !dir.is_absolute() {
            return Err(ConfigError::StateDirRelative { dir: dir.to_owned() });
        }
        if dir.as_str().len() > SOCKET_PATH - BELOW_STATE_DIR {
            return Err(ConfigError::StateDirTooLong { dir: dir.to_owned() });
        }
        Ok(dir)
    }
}

/// The machine's own name, made to fit.
///
/// # Errors
/// [`ConfigError::Hostname`] when nothing of it can be used.
pub fn machine_name() -> Result<Hostname, ConfigError> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    fitting(&name).map_err(|source| ConfigError::Hostname { name, source })
}

/// The first label of a machine's name, in lower case, with `-` for what a host name cannot hold.
fn fitting(name: &str) -> Result<Hostname, HostnameError> {
    let label = name.split('.').next().unwrap_or_default().to_lowercase();
    let kept: String = label
        .chars()
        .map(|c| {
            if c.is_ascii_lowercase() || c.is_ascii_digit() {
                c
            } else {
                '-'
            }
        })
        .take(63)
        .collect();
    kept.trim_matches('-').parse()
}

impl FromStr for PortRange {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("{text:?} is not a range of ports: expected the first and the last, such as 15000-16000")
        };
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        let (first, last) = (
            first.trim().parse().map_err(|_| wrong())?,
            last.trim().parse().map_err(|_| wrong())?,
        );
        if first == 0 || first > last {
            return Err(wrong());
        }
        Ok(Self { first, last })
    }
}

impl std::fmt::Display for PortRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        agent: SandboxAgentConfig,
    }

    fn parse(flags: &[&str]) -> Result<SandboxAgentConfig, clap::Error> {
        Line::try_parse_from(std::iter::once("test").chain(flags.iter().copied())).map(|line| line.agent)
    }

    #[test]
    fn defaults() {
        let config = parse(&[]).unwrap().under("/data".into());
        assert_eq!(config.state_dir().unwrap(), "/data/sandboxes");
        assert_eq!(
            config.ports,
            PortRange {
                first: 15000,
                last: 16000
            }
        );
        assert_eq!(config.memory_reserve, 1 << 30);
    }

    #[test]
    fn wrong_values_are_refused() {
        for flags in [
            ["--sandbox-ports", "16000-15000"],
            ["--sandbox-ports", "80"],
            ["--sandbox-host", "Not A Host"],
            ["--sandbox-warm-memory", "much"],
        ] {
            assert!(parse(&flags).is_err(), "{flags:?}");
        }
        let long = format!("/{}", "x".repeat(90));
        for dir in ["relative", &long] {
            let config = parse(&["--sandbox-state-dir", dir]).unwrap();
            assert!(config.state_dir().is_err(), "{dir}");
        }
    }

    #[test]
    fn a_machines_name_is_made_to_fit() {
        for (name, host) in [("Web-1.example.org", "web-1"), ("my_box", "my-box"), ("-x-", "x")] {
            assert_eq!(fitting(name).unwrap().as_str(), host);
        }
        assert!(fitting("...").is_err());
    }
}
