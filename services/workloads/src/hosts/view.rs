//! The hosts as this replica knows them, for placing without a read.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
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
    hosts: HashMap<String, Known>,
    /// Counts what was heard and done here.
    epoch: u64,
    /// When they were last read.
    read_at: Option<Timestamp>,
}

/// What is known of one host.
#[derive(Debug)]
struct Known {
    /// None: it was forgotten.
    row: Option<HostRow>,
    /// When something was last heard of it or done with it.
    epoch: u64,
}

impl Inner {
    fn set(&mut self, name: &str, row: Option<HostRow>) {
        self.epoch += 1;
        let epoch = self.epoch;
        self.hosts.insert(name.to_owned(), Known { row, epoch });
    }

    /// Changes a host that is known.
    fn change(&mut self, name: &str, change: impl FnOnce(&mut HostRow)) {
        if let Some(known) = self.hosts.get_mut(name)
            && let Some(row) = &mut known.row
        {
            change(row);
            self.epoch += 1;
            known.epoch = self.epoch;
        }
    }
}

impl Hosts {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Call before reading what will be given to [`Hosts::replace`].
    pub(crate) fn epoch(&self) -> u64 {
        self.lock().epoch
    }

    /// All hosts as they were read at `at`, since `epoch`. Of those that something was heard of or done
    /// with in between, this replica knows better.
    pub(crate) fn replace(&self, epoch: u64, at: Timestamp, rows: Vec<HostRow>) {
        let mut inner = self.lock();
        inner.hosts.retain(|_, known| known.epoch > epoch);
        for row in rows {
            match inner.hosts.entry(row.name.clone()) {
                Entry::Vacant(unknown) => {
                    unknown.insert(Known {
                        row: Some(row),
                        epoch,
                    });
                }
                // One that sandboxes are placed on all the time is not silent for that.
                Entry::Occupied(mut known) => {
                    if let Some(kept) = &mut known.get_mut().row {
                        kept.seen_at = kept.seen_at.max(row.seen_at);
                    }
                }
            }
        }
        inner.read_at = Some(at);
    }

    /// Whether a host is lost, or was not heard of for `limit` when the hosts were last read. One that
    /// only other replicas have heard of so far is not. Told by that moment and not by now: a replica
    /// that was cut off itself for a while has heard of nobody, and comes back with old news of all.
    pub(crate) fn is_silent(&self, host: &str, limit: Duration) -> bool {
        let inner = self.lock();
        let row = inner.hosts.get(host).and_then(|known| known.row.as_ref());
        row.is_some_and(|row| {
            row.lost
                || inner
                    .read_at
                    .is_some_and(|read_at| read_at.since(row.seen_at) > limit)
        })
    }

    /// A host as it is now.
    pub(crate) fn put(&self, row: HostRow) {
        let name = row.name.clone();
        self.lock().set(&name, Some(row));
    }

    /// A host is no more.
    pub(crate) fn forget(&self, host: &str) {
        self.lock().set(host, None);
    }

    /// Looks at all of them without copying.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut dyn Iterator<Item = &HostRow>) -> T) -> T {
        let inner = self.lock();
        look(&mut inner.hosts.values().filter_map(|known| known.row.as_ref()))
    }

    /// A sandbox was placed: the next one is to see it.
    pub(crate) fn charged(&self, host: &str, with: &Resources, image: &str) {
        self.lock().change(host, |row| {
            row.used_cpu += u64::from(with.cpu_milli);
            row.used_memory += with.memory_bytes;
            row.used_disk += with.disk_bytes;
            row.sandboxes += 1;
            if let Some((_, waiting)) = row.warm.iter_mut().find(|(of, _)| of == image) {
                *waiting = waiting.saturating_sub(1);
            }
        });
    }

    /// A sandbox has ended.
    pub(crate) fn given_back(&self, host: &str, what: &Resources) {
        self.lock().change(host, |row| {
            row.used_cpu = row.used_cpu.saturating_sub(u64::from(what.cpu_milli));
            row.used_memory = row.used_memory.saturating_sub(what.memory_bytes);
            row.used_disk = row.used_disk.saturating_sub(what.disk_bytes);
            row.sandboxes = row.sandboxes.saturating_sub(1);
        });
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

    #[test]
    fn what_was_read_does_not_undo_what_happened_meanwhile_and_the_rest_is_taken() {
        let names = |hosts: &Hosts| {
            let mut names: Vec<(String, i64, u64)> = hosts.with(|rows| {
                rows.map(|row| (row.name.clone(), row.seen_at.micros() / 1_000_000, row.sandboxes))
                    .collect()
            });
            names.sort();
            names
        };
        let one = Beat::sample_request().facts;
        let resources = Resources {
            cpu_milli: 1000,
            memory_bytes: one.memory_bytes / 8,
            disk_bytes: 0,
            log_bytes: 0,
            pids: 1,
        };
        let hosts = Hosts::default();
        let all = || ["charged", "forgotten", "gone", "quiet"].map(|name| seen(name, 1));
        hosts.replace(hosts.epoch(), at(1), all().into());

        // While a read is under way, as always where many hosts speak every two seconds.
        let before = hosts.epoch();
        hosts.charged("charged", &resources, "image");
        hosts.forget("forgotten");
        hosts.put(seen("heard", 3));
        let read = vec![
            seen("charged", 2),
            seen("forgotten", 2),
            seen("heard", 2),
            seen("new", 2),
            seen("quiet", 2),
        ];
        hosts.replace(before, at(2), read.clone());
        let known = |name: &str, seconds, sandboxes| (name.to_owned(), seconds, sandboxes);
        assert_eq!(
            names(&hosts),
            [
                known("charged", 2, 1),
                known("heard", 3, 0),
                known("new", 2, 0),
                known("quiet", 2, 0)
            ]
        );
        // The next read sees all of it.
        hosts.replace(hosts.epoch(), at(4), read);
        assert_eq!(names(&hosts).len(), 5);
        assert!(
            names(&hosts)
                .iter()
                .all(|(_, seconds, sandboxes)| (*seconds, *sandboxes) == (2, 0))
        );
    }
}
