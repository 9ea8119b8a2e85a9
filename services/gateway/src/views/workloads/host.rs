//! Hosts that run sandboxes.

use nimbus_proto::workloads as w;
use serde::Serialize;
use utoipa::ToSchema;

use super::at;
use crate::views::At;

/// A host.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HostView {
    /// Its name.
    pub name: String,
    /// The container engine and its version.
    pub engine: String,
    /// `x86_64` or `aarch64`.
    pub arch: String,
    /// CPUs that may be given out.
    pub vcpus: f64,
    /// Memory that may be given out.
    pub memory_bytes: u64,
    /// Disk that may be given out.
    pub disk_bytes: u64,
    /// What works here: `container`, `krun`, `desktop`.
    pub backends: Vec<String>,
    /// What does not work here and what to do about it.
    pub missing: Vec<String>,
    /// When it was heard of last.
    pub seen_at: At,
    /// Whether it counts as lost.
    pub lost: bool,
    /// What is given out.
    pub used: UsedView,
    /// Active sandboxes.
    pub sandboxes: u32,
    /// Warm containers that wait.
    pub warm: Vec<WarmView>,
}

/// What of a host is given out.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UsedView {
    /// CPUs.
    pub vcpus: f64,
    /// Memory.
    pub memory_bytes: u64,
}

/// Warm containers of one image.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct WarmView {
    /// The image.
    pub image: String,
    /// How many wait.
    pub count: u32,
}

impl From<w::Host> for HostView {
    fn from(host: w::Host) -> Self {
        let vcpus = |milli: u32| f64::from(milli) / 1000.0;
        Self {
            name: host.name,
            engine: host.facts.engine,
            arch: host.facts.arch,
            vcpus: vcpus(host.facts.cpu_milli),
            memory_bytes: host.facts.memory_bytes,
            disk_bytes: host.facts.disk_bytes,
            backends: host.facts.backends,
            missing: host.facts.missing,
            seen_at: at(host.seen_at),
            lost: host.lost,
            used: UsedView {
                vcpus: vcpus(host.used_cpu_milli),
                memory_bytes: host.used_memory_bytes,
            },
            sandboxes: host.sandboxes,
            warm: host
                .warm
                .into_iter()
                .map(|(image, count)| WarmView { image, count })
                .collect(),
        }
    }
}
