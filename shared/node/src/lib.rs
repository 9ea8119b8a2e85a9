//! A host as a node: Nimbus as a unit of the service manager, written, installed, checked, upgraded and
//! removed by itself.
//!
//! ```text
//! Request ──check──▶ Install ──render──▶ artifacts ──compare with the disk──▶ Plan ──apply──▶ host
//!                                                                               └──dry run──▶ text
//! ```
//! Everything that can refuse does so before the first byte is written. What was made is kept in a
//! [`Manifest`], so that taking it away again is exact. Commands of the host go through [`Commands`],
//! which tests replace; files are the real ones.

mod account;
mod agent;
mod artifacts;
mod commands;
mod doctor;
mod error;
mod files;
mod image;
mod installed;
mod layout;
mod manifest;
mod plan;
mod probe;
mod request;
mod uninstall;
mod upgrade;
mod verify;

pub use account::{ACCOUNT, is_root};
pub use agent::{AGENT_UNIT, Agent};
pub use artifacts::Artifact;
pub use commands::{Commands, Host, Ran};
pub use doctor::{Level, Probe, Verdict, diagnose};
pub use error::{Conflict, Kind, NodeError};
pub use installed::unit;
pub use layout::{Layout, Scope, Target};
pub use manifest::{CopiedBinary, Manifest};
pub use plan::{Applied, FileStep, Plan};
pub use request::{DEFAULT_PORT, Install, Request};
pub use uninstall::{Removal, Removed};
pub use upgrade::{Upgrade, Upgraded};
pub use verify::{Check, drift, verify};
