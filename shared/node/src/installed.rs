//! What runs here as a unit: a node, or only the agent of a deployment elsewhere.

use camino::Utf8PathBuf;

use crate::agent::AGENT_UNIT;
use crate::error::NodeError;
use crate::files;
use crate::layout::{Layout, Target};
use crate::manifest::{AgentRecord, CopiedBinary, Manifest};

/// The name of a node's unit.
const NODE_UNIT: &str = "nimbus.service";

/// The unit that commands about this host mean: the node's, unless the host has joined a deployment elsewhere
/// and runs no node of its own.
///
/// # Errors
/// Files that cannot be read.
pub fn unit(layout: &Layout, target: Target) -> Result<&'static str, NodeError> {
    Ok(Installed::read(layout, target)?.map_or(NODE_UNIT, |installed| installed.unit()))
}

/// What is installed, by what was written down when it was.
pub(crate) enum Installed {
    /// A node; it brings an agent of its own.
    Node(Manifest),
    /// An agent alone.
    Agent(AgentRecord),
}

impl Installed {
    pub(crate) fn read(layout: &Layout, target: Target) -> Result<Option<Self>, NodeError> {
        let manifest = Manifest::read(layout)?.filter(|manifest| manifest.request.target == target);
        if let Some(manifest) = manifest {
            return Ok(Some(Self::Node(manifest)));
        }
        Ok(match target {
            Target::Systemd => AgentRecord::read(layout)?.map(Self::Agent),
            Target::Container => None,
        })
    }

    pub(crate) fn unit(&self) -> &'static str {
        match self {
            Self::Node(_) => NODE_UNIT,
            Self::Agent(_) => AGENT_UNIT,
        }
    }

    /// The request of a node.
    pub(crate) fn node(&self) -> Option<&Manifest> {
        match self {
            Self::Node(manifest) => Some(manifest),
            Self::Agent(_) => None,
        }
    }

    /// The program, if installing put it there.
    pub(crate) fn copied(&self) -> Option<&CopiedBinary> {
        match self {
            Self::Node(manifest) => manifest.binary.as_ref(),
            Self::Agent(record) => record.binary.as_ref(),
        }
    }

    /// Where its program is, whoever put it there.
    pub(crate) fn place(&self, layout: &Layout) -> Utf8PathBuf {
        let named = match self {
            Self::Node(manifest) => manifest.request.binary.clone(),
            Self::Agent(record) => record.place.clone(),
        };
        named.unwrap_or_else(|| layout.binary.clone())
    }

    /// Writes down that another program is in its place. One that somebody else put there stays theirs:
    /// uninstalling leaves it.
    pub(crate) fn replaced(&mut self, layout: &Layout) -> Result<(), NodeError> {
        let copied = match self {
            Self::Node(manifest) => &mut manifest.binary,
            Self::Agent(record) => &mut record.binary,
        };
        let Some(copied) = copied else {
            return Ok(());
        };
        if let Some(sha256) = files::digest(&copied.path)? {
            copied.sha256 = sha256;
        }
        match self {
            Self::Node(manifest) => manifest.write(layout),
            Self::Agent(record) => record.write(layout),
        }
    }
}
