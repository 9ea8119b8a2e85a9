//! The box: what it has, and a clock that neither jumps nor ends with this process.

use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What does not change while the box is up.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// Such as `aarch64`.
    pub(crate) arch: &'static str,
    /// Processors.
    pub(crate) cpus: u32,
    /// Bytes of memory.
    pub(crate) memory_bytes: u64,
    /// Changes with each start of the box.
    pub(crate) boot_id: String,
}

impl Host {
    pub(crate) fn read() -> Self {
        let info = rustix::system::sysinfo();
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            arch: std::env::consts::ARCH,
            cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
            memory_bytes: u64::from(info.mem_unit).saturating_mul(info.totalram),
            boot_id: kernel_text("boot_id"),
        }
    }
}

/// An id that no other start of a worker has.
pub(crate) fn fresh_id() -> String {
    kernel_text("uuid")
}

fn kernel_text(name: &str) -> String {
    std::fs::read_to_string(Path::new("/proc/sys/kernel/random").join(name))
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// Time since the box started, sleep included. Comparable between processes with the same
/// [`Host::boot_id`]; setting the wall clock does not change it.
pub(crate) fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

/// Bytes that a user who is not root may still write on the file system of `path`.
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_has_something_of_everything() {
        let host = Host::read();
        assert!(
            host.cpus > 0 && host.memory_bytes > 1 << 20 && host.boot_id.len() == 36,
            "{host:?}"
        );
        assert_ne!(fresh_id(), fresh_id());
        assert!(free_bytes(Path::new("/")).is_some() && free_bytes(Path::new("/nothing/here")).is_none());
        let before = since_boot();
        assert!(since_boot() >= before);
    }
}
