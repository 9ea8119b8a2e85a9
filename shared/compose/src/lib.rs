//! Compose files: found, read as Compose reads them, ordered, and written as Quadlet units.
//!
//! [`discover`] finds the files, [`load`] makes one [`Project`] of them (variables, anchors, `extends`,
//! `include`, profiles, several files), [`quadlet::export`] writes it as units for Podman, and
//! [`workload::definition`] as services of Nimbus. What cannot be kept is a [`Notice`] with file, line, key and
//! what to do. Nothing here reads the environment or starts anything.

pub mod quadlet;
pub mod workload;

mod canonical;
mod discover;
mod dotenv;
mod error;
mod interpolate;
mod load;
mod measure;
mod merge;
mod model;
mod notice;
mod path;
mod read;
mod yaml;

pub use discover::{discover, slug};
pub use error::ComposeError;
pub use load::{Load, Loaded, Surroundings, load};
pub use model::{
    Attachment, Build, Condition, Dependency, Gpu, Grant, Health, Logging, Material, Mount, MountKind,
    Network, NimbusKeys, Port, Project, Restart, Service, Source, Subnet, Test, Texts, Volume,
};
pub use notice::{Level, Notice, Origin};
pub use yaml::emit::json_as_yaml;
