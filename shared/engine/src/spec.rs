//! What a container is asked to be.

use std::str::FromStr;

use nimbus_model::Digest;

use crate::Labels;

/// A container to make.
///
/// It has no network, no capabilities and no new privileges whatever stands here; there is no field
/// for a device, a port or a writable host path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerSpec {
    /// Unique on this engine: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`.
    pub name: String,
    /// [`Image::id`](crate::Image::id).
    pub image: Digest,
    /// How its maker finds it again.
    pub labels: Labels,
    /// The first process: its absolute path and arguments. The image's entrypoint and command are not used.
    pub argv: Vec<String>,
    /// `KEY=value` over the image's own. Whoever may inspect containers reads them: no secrets here.
    pub env: Vec<String>,
    /// Where it starts; `None`: the image's.
    pub workdir: Option<String>,
    /// `uid[:gid]` or names of the image; `None`: the image's.
    pub user: Option<String>,
    /// Its host name; `None`: the engine's choice.
    pub hostname: Option<String>,
    /// Host paths, read-only.
    pub binds: Vec<Bind>,
    /// Named volumes.
    pub volumes: Vec<VolumeMount>,
    /// Memory file systems; their pages count as the container's memory.
    pub tmpfs: Vec<Tmpfs>,
    /// Limits.
    pub limits: Limits,
    /// The root file system cannot be written; `/tmp`, `/run` and `/var/tmp` are memory then.
    pub read_only_root: bool,
    /// Size of `/dev/shm`; `None`: 64 MiB.
    pub shm_bytes: Option<u64>,
    /// What [`Engine::stop`](crate::Engine::stop) sends; `None`: the image's.
    pub stop_signal: Option<Signal>,
}

impl ContainerSpec {
    /// A container of `image` that runs `argv` as the image's user.
    #[must_use]
    pub fn new(name: impl Into<String>, image: Digest, argv: Vec<String>, limits: Limits) -> Self {
        Self {
            name: name.into(),
            image,
            labels: Labels::new(),
            argv,
            env: Vec::new(),
            workdir: None,
            user: None,
            hostname: None,
            binds: Vec::new(),
            volumes: Vec::new(),
            tmpfs: Vec::new(),
            limits,
            read_only_root: false,
            shm_bytes: None,
            stop_signal: None,
        }
    }
}

/// A host path that a container sees, read-only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Absolute path on the host; must exist.
    pub source: String,
    /// Absolute path inside.
    pub target: String,
}

/// A named volume that a container sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeMount {
    /// The volume's name; made when there is none.
    pub name: String,
    /// Absolute path inside.
    pub target: String,
    /// It cannot be written through this mount.
    pub read_only: bool,
}

/// A memory file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tmpfs {
    /// Absolute path inside.
    pub target: String,
    /// Its size; `None`: half of the container's memory.
    pub size_bytes: Option<u64>,
}

/// What a container may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Limits {
    /// Thousandths of a processor; more than the host has counts as all of it.
    pub millicpus: u32,
    /// Memory; there is no swap on top. Engines have a floor (Docker 6 MiB): less counts as that.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
    /// The writable layer. Kept only where [`Facts::disk_quota`](crate::Facts::disk_quota) says so.
    pub disk_bytes: Option<u64>,
}

/// A signal's name, such as `SIGTERM`, or its number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct Signal(String);

/// Why a text is not a signal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a signal: expected a name such as SIGTERM, or a number from 1 to 64")]
pub struct SignalError(String);

impl Signal {
    /// Asks to end.
    #[must_use]
    pub fn term() -> Self {
        Self("SIGTERM".to_owned())
    }

    /// Ends at once.
    #[must_use]
    pub fn kill() -> Self {
        Self("SIGKILL".to_owned())
    }

    /// The name or number, as engines take it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Signal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The names of signal(7), without `SIG`; the real-time ones are counted from either end.
const NAMES: &[&str] = &[
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "IOT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "POLL", "PWR", "SYS",
];

impl FromStr for Signal {
    type Err = SignalError;
    fn from_str(text: &str) -> Result<Self, SignalError> {
        if text.parse::<u8>().is_ok_and(|number| (1..=64).contains(&number)) {
            return Ok(Self(text.to_owned()));
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let real_time = |prefix: &str, sign: char| {
            name.strip_prefix(prefix).is_some_and(|rest| {
                rest.is_empty()
                    || rest
                        .strip_prefix(sign)
                        .is_some_and(|n| n.parse::<u8>().is_ok_and(|n| n <= 15))
            })
        };
        if NAMES.contains(&name) || real_time("RTMIN", '+') || real_time("RTMAX", '-') {
            Ok(Self(format!("SIG{name}")))
        } else {
            Err(SignalError(text.to_owned()))
        }
    }
}

impl<'de> serde::Deserialize<'de> for Signal {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_one_spelling() {
        for (text, wanted) in [
            ("SIGTERM", "SIGTERM"),
            ("term", "SIGTERM"),
            ("9", "9"),
            ("SIGRTMIN+3", "SIGRTMIN+3"),
            ("rtmax-1", "SIGRTMAX-1"),
        ] {
            assert_eq!(text.parse::<Signal>().map(|s| s.0), Ok(wanted.to_owned()));
        }
        for text in [
            "", "0", "65", "SIG", "TERM ", "RTMIN-1", "RTMIN+", "-9", "SIGNOPE",
        ] {
            assert_eq!(text.parse::<Signal>(), Err(SignalError(text.to_owned())));
        }
    }
}
