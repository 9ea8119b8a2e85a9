//! The hosts as this replica knows them, for placing without a read.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nimbus_model::Timestamp;
use nimbus_proto::workloads::Resources;

use super::row::HostRow;

/// The hosts, in memory. The database's own bounds decide; this only chooses well.
#[derive(Debug, Default)]
pub(crate) struct Hosts(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    rows: HashMap<String, HostRow>,
    epoch: u64,
    /// When they were last read.
    read_at: Option<Timestamp>,
}

impl Hosts {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Call before reading what will be given to [`Hosts::replace`].
    pub(crate) fn epoch(&self) -> u64 {
        self.lock().epoch
    }

    /// All hosts as they were read at `at`, since `epoch`; what was heard in between is newer.
    pub(crate) fn replace(&self, epoch: u64, at: Timestamp, rows: Vec<HostRow>) {
        let mut inner = self.lock();
        if inner.epoch == epoch {
            inner.rows = rows.into_iter().map(|row| (row.name.clone(), row)).collect();
            inner.read_at = Some(at);
        }
    }

    /// Whether a host is lost, or was not heard of for `limit` when the hosts were last read. One that
    /// only other replicas have heard of so far is not. Told by that moment and not by now: a replica
    /// that was cut off itself for a while has heard of nobody, and comes back with old news of all.
    pub(crate) fn is_silent(&self, host: &str, limit: Duration) -> bool {
        let inner = self.lock();
        inner.rows.get(host).is_some_and(|row| {
            row.lost
                || inner
                    .read_at
                    .is_some_and(|read_at| read_at.since(row.seen_at) > limit)
        })
    }

    /// A host as it is now.
    pub(crate) fn put(&self, row: HostRow) {
        let mut inner = self.lock();
        inner.epoch += 1;
        inner.rows.insert(row.name.clone(), row);
    }

    /// A host is no more.
    pub(crate) fn forget(&self, host: &str) {
        let mut inner = self.lock();
        inner.epoch += 1;
        inner.rows.remove(host);
    }

    /// Looks at all of them without copying.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut dyn Iterator<Item = &HostRow>) -> T) -> T {
        look(&mut self.lock().rows.values())
    }

    /// A sandbox was placed: the next one is to see it.
    pub(crate) fn charged(&self, host: &str, with: &Resources, image: &str) {
        if let Some(row) = self.lock().rows.get_mut(host) {
            row.used_cpu += u64::from(with.cpu_milli);
            row.used_memory += with.memory_bytes;
            row.used_disk += with.disk_bytes;
            row.sandboxes += 1;
            if let Some((_, waiting)) = row.warm.iter_mut().find(|(of, _)| of == image) {
                *waiting = waiting.saturating_sub(1);
            }
        }
    }

    /// A sandbox has ended.
    pub(crate) fn given_back(&self, host: &str, what: &Resources) {
        if let Some(row) = self.lock().rows.get_mut(host) {
            row.used_cpu = row.used_cpu.saturating_sub(u64::from(what.cpu_milli));
            row.used_memory = row.used_memory.saturating_sub(what.memory_bytes);
            row.used_disk = row.used_disk.saturating_sub(what.disk_bytes);
            row.sandboxes = row.sandboxes.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use nimbus_bus::Method;
    use nimbus_proto::workloads::Beat;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn seen(name: &str, seconds: i64) -> HostRow {
        HostRow {
            name: name.into(),
            boot: "b".into(),
            facts: Beat::sample_request().facts,
            images: vec![],
            warm: vec![],
            seen_at: at(seconds),
            lost: false,
            used_cpu: 0,
            used_memory: 0,
            used_disk: 0,
            sandboxes: 0,
        }
    }

    #[test]
    fn who_was_cut_off_calls_nobody_silent_before_it_has_looked() {
        let limit = Duration::from_secs(10);
        let hosts = Hosts::default();
        hosts.replace(hosts.epoch(), at(101), vec![seen("a", 100), seen("b", 100)]);
        assert!(!hosts.is_silent("a", limit));
        // A minute without bus and database later, the first word is of another host.
        hosts.put(seen("b", 160));
        assert!(!hosts.is_silent("a", limit));
        hosts.replace(hosts.epoch(), at(161), vec![seen("a", 100), seen("b", 160)]);
        assert!(hosts.is_silent("a", limit));
        assert!(!hosts.is_silent("b", limit));
    }
}
