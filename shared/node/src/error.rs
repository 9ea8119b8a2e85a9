//! Why a node is not what was asked for.

use std::io;

use camino::Utf8PathBuf;
use nimbus_units::{HeaderError, QuoteError, State, UnitError};

/// A file that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Which.
    pub path: Utf8PathBuf,
    /// How it stands to what would be written.
    pub state: State,
    /// What would change, as a unified diff.
    pub diff: String,
}

/// What a caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ask for something else.
    Usage,
    /// Lift the rule that forbids it, if that is meant.
    Refused,
    /// See what the host says.
    Failed,
}

/// Why a node is not what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Flags that do not go together, or a value that cannot stand in a unit.
    #[error("{reason}")]
    Usage {
        /// Which, and why.
        reason: String,
    },
    /// An image that is not pinned, or not from a repository that may be run.
    #[error("the image {image} {reason}")]
    Image {
        /// Which.
        image: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Not a Linux host.
    #[error("nodes are units of systemd, and this is not Linux")]
    NotLinux,
    /// An account that may not change the host.
    #[error("the system's units belong to root")]
    NotRoot,
    /// The account has no home.
    #[error("HOME is not set, so this account has no place for a node")]
    NoHome,
    /// Files are in the way.
    #[error("{} in the way: {}", if .0.len() == 1 { "a file is" } else { "files are" },
        .0.iter().map(|found| format!("{} ({})", found.path, found.state)).collect::<Vec<_>>().join(", "))]
    Exists(Vec<Conflict>),
    /// Files of somebody else would be removed.
    #[error("not written by Nimbus: {}", .0.iter().map(|path| path.as_str()).collect::<Vec<_>>().join(", "))]
    Foreign(Vec<Utf8PathBuf>),
    /// The program's place is taken by another one.
    #[error("{path} is another program than the one that would be installed")]
    OtherBinary {
        /// Where.
        path: Utf8PathBuf,
    },
    /// A node of the other kind has the name of the unit.
    #[error("{path} is there already: a service and a container would both be nimbus.service")]
    OtherTarget {
        /// Its file.
        path: Utf8PathBuf,
    },
    /// There is no node here.
    #[error("no node is installed in {scope} scope")]
    NotInstalled {
        /// Where it was looked for.
        scope: &'static str,
    },
    /// A file of the host.
    #[error("could not {what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: Utf8PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The manifest is not one.
    #[error("{path} does not say what was installed")]
    Manifest {
        /// Which file.
        path: Utf8PathBuf,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A command of the host cannot be run.
    #[error("could not run {command}")]
    NoCommand {
        /// Which.
        command: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A command of the host failed.
    #[error("`{command}` failed with {status}: {output}")]
    Command {
        /// Which.
        command: String,
        /// How it ended.
        status: String,
        /// What it said.
        output: String,
    },
    /// A text cannot stand in a unit.
    #[error("a unit cannot say this")]
    Unit(#[from] UnitError),
    /// Words cannot stand in a unit.
    #[error("a unit cannot say this command")]
    Quote(#[from] QuoteError),
    /// A field cannot stand in a header.
    #[error("a file cannot say where it comes from")]
    Header(#[from] HeaderError),
    /// The new program does not even say its version.
    #[error("{program} does not run here: {reason}")]
    Unusable {
        /// Which file.
        program: Utf8PathBuf,
        /// What happened.
        reason: String,
    },
    /// The new program did not get ready; the old one is back.
    #[error("{new} did not get ready: {reason}; {old} is back and answers")]
    RolledBack {
        /// The version that failed.
        new: String,
        /// The version that runs again.
        old: String,
        /// How it failed.
        reason: String,
    },
    /// Neither the new program nor the old one got ready.
    #[error("{new} did not get ready: {reason}; {old} was put back, and does not answer either: {after}")]
    Down {
        /// The version that failed.
        new: String,
        /// The version that was put back.
        old: String,
        /// How the new one failed.
        reason: String,
        /// How the old one fails now.
        after: String,
    },
}

impl NodeError {
    /// What a caller can do about it.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Usage { .. } | Self::Unit(_) | Self::Quote(_) | Self::Header(_) => Kind::Usage,
            Self::Image { .. }
            | Self::NotLinux
            | Self::NotRoot
            | Self::Exists(_)
            | Self::Foreign(_)
            | Self::OtherTarget { .. }
            | Self::OtherBinary { .. } => Kind::Refused,
            _ => Kind::Failed,
        }
    }

    /// What to do next.
    #[must_use]
    pub fn next(&self) -> Option<&'static str> {
        Some(match self {
            Self::Image { .. } => "name a release and its digest: ghcr.io/nimbus/nimbus:1.2.3@sha256:…",
            Self::NotLinux => "look at what would be written with --dry-run, or run `nimbus start`",
            Self::NotRoot => "run the same command with sudo, or with --user",
            Self::Exists(found) if found.iter().all(|found| found.state == State::InSync) => {
                "everything is as this command would write it; --overwrite writes it again"
            }
            Self::Exists(found) if found.iter().any(|found| found.state == State::Modified) => {
                "do not patch these files: settings go to nimbus.env, the rest to the flags of install; --overwrite puts back what Nimbus writes"
            }
            Self::Exists(_) => "add --overwrite to replace it",
            Self::OtherTarget { .. } => {
                "remove it first with `nimbus node uninstall`, and --container if it is one; what it keeps stays"
            }
            Self::Foreign(_) => "remove them by hand, or add --force",
            Self::OtherBinary { .. } => {
                "`nimbus node install --upgrade` replaces it and goes back if it fails; or name another --binary"
            }
            Self::NotInstalled { .. } => "nimbus node install --systemd --enable --now",
            Self::RolledBack { .. } | Self::Down { .. } => "nimbus node logs",
            Self::Command { .. } => "nimbus node logs, or nimbus node doctor",
            _ => return None,
        })
    }
}

/// For files: what was tried, with which, and what came of it.
pub(crate) fn io(what: &'static str, path: impl Into<Utf8PathBuf>) -> impl FnOnce(io::Error) -> NodeError {
    let path = path.into();
    move |source| NodeError::Io { what, path, source }
}
