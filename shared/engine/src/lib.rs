//! Container engines, as sandboxes need them.
//!
//! [`Engine`] is what the agent of a host calls; it knows images, containers with everything locked
//! down, volumes and events, and nothing that only a daemon has. [`DockerEngine`] drives Docker and
//! Podman through their API on a Unix socket.
//!
//! A container made here has no network, no capabilities, no way to gain privileges, a system-call
//! filter stricter than the engine's own, limits on memory, processors and processes, and no host
//! path but the read-only ones of its [`ContainerSpec`]. None of that can be asked away: the spec has
//! no words for it.

mod docker;
mod engine;
mod error;
mod image;
pub mod seccomp;
mod spec;
mod state;

pub use docker::{DockerEngine, EngineConfig, discover};
pub use engine::Engine;
pub use error::{Cause, EngineError};
pub use image::{
    Healthcheck, Image, ImageConfig, PresentImage, Progress, Pull, PullPolicy, PullProgress, RegistryAuth,
};
pub use spec::{Bind, ContainerSpec, Limits, Signal, SignalError, Tmpfs, VolumeMount};
pub use state::{
    ContainerEntry, ContainerId, ContainerState, EngineEvent, EventKind, Facts, Labels, Remove, Stats, Volume,
};
