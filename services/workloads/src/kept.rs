//! Rows that are kept in memory, so that a request on a running sandbox costs no read.
//!
//! What this process writes it keeps at once. What other replicas write it hears of by event, and
//! forgets; a read that was under way meanwhile is not kept.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A row with a number that grows at each write.
pub(crate) trait Versioned {
    fn version(&self) -> i64;
}

/// More than this many are forgotten and read again.
const MOST: usize = 65_536;

#[derive(Debug)]
pub(crate) struct Kept<K, V> {
    inner: Mutex<Inner<K, V>>,
}

#[derive(Debug)]
struct Inner<K, V> {
    rows: HashMap<K, Arc<V>>,
    epoch: u64,
}

/// When a read began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epoch(u64);

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self {
            inner: Mutex::new(Inner {
                rows: HashMap::new(),
                epoch: 0,
            }),
        }
    }
}

impl<K: Hash + Eq, V: Versioned> Kept<K, V> {
    fn lock(&self) -> MutexGuard<'_, Inner<K, V>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get<Q>(&self, key: &Q) -> Option<Arc<V>>
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.lock().rows.get(key).cloned()
    }

    /// Call before reading what will be given to [`Kept::fill`].
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.lock().epoch)
    }

    /// Keeps what this process has written.
    pub(crate) fn put(&self, key: K, row: Arc<V>) {
        self.lock().keep(key, row);
    }

    /// Keeps what was read since `epoch`, unless something was forgotten in between.
    pub(crate) fn fill(&self, epoch: Epoch, key: K, row: Arc<V>) {
        let mut inner = self.lock();
        if inner.epoch == epoch.0 {
            inner.keep(key, row);
        }
    }

    /// Forgets a row that somebody has changed or that is not worth keeping any more.
    pub(crate) fn forget<Q>(&self, key: &Q)
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut inner = self.lock();
        inner.rows.remove(key);
        inner.epoch += 1;
    }

    /// Hears that the row has `version` now.
    pub(crate) fn hear<Q>(&self, key: &Q, version: i64)
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut inner = self.lock();
        match inner.rows.get(key) {
            Some(row) if row.version() >= version => {}
            _ => {
                inner.rows.remove(key);
                inner.epoch += 1;
            }
        }
    }

    pub(crate) fn clear(&self) {
        let mut inner = self.lock();
        inner.rows.clear();
        inner.epoch += 1;
    }
}

impl<K: Hash + Eq, V: Versioned> Inner<K, V> {
    fn keep(&mut self, key: K, row: Arc<V>) {
        if self.rows.len() >= MOST {
            self.rows.clear();
        }
        let newer = self
            .rows
            .get(&key)
            .is_none_or(|old| old.version() < row.version());
        if newer {
            self.rows.insert(key, row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Row(i64);
    impl Versioned for Row {
        fn version(&self) -> i64 {
            self.0
        }
    }

    #[test]
    fn a_slow_read_does_not_bring_back_what_has_changed() {
        let kept = Kept::<String, Row>::default();
        let epoch = kept.epoch();
        kept.hear("a", 2);
        kept.fill(epoch, "a".into(), Arc::new(Row(1)));
        assert_eq!(kept.get("a"), None);

        kept.put("a".into(), Arc::new(Row(3)));
        kept.fill(kept.epoch(), "a".into(), Arc::new(Row(2)));
        assert_eq!(kept.get("a").as_deref(), Some(&Row(3)));

        let epoch = kept.epoch();
        kept.forget("a");
        kept.fill(epoch, "a".into(), Arc::new(Row(3)));
        assert_eq!(kept.get("a"), None);
    }

    #[test]
    fn an_event_of_our_own_write_changes_nothing() {
        let kept = Kept::<String, Row>::default();
        kept.put("a".into(), Arc::new(Row(3)));
        kept.hear("a", 3);
        assert_eq!(kept.get("a").as_deref(), Some(&Row(3)));
        kept.hear("a", 4);
        assert_eq!(kept.get("a"), None);
    }
}
