//! When to look at a task again.
//!
//! A task is seen to have ended half a pause late on average, so pauses that grow with the waiting
//! cost most on the longest task, the clone. Tasks of one kind take about as long as the last one,
//! so the client remembers that: it looks seldom until the task is due, often around that time, and
//! seldom again when it is overdue. A task of a kind never seen is looked at every tenth of the time
//! it has taken so far.
//!
//! Everybody who waits at the same time shares one rate of looks, because a PVE node answers its
//! whole API with three workers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Longest pause: a task that fails early is noticed within this.
const LONGEST: Duration = Duration::from_secs(2);
/// Shortest pause around the time a task is due.
const SHORTEST: Duration = Duration::from_millis(20);
/// Longest pause around the time a task is due.
const DUE: Duration = Duration::from_millis(100);
/// What each waiter adds to every pause around that time: together at most 125 looks a second.
const SHARE: Duration = Duration::from_millis(8);
/// From when on, and until when, a task is due, in parts of what the last one took.
const DUE_FROM: f64 = 0.8;
const DUE_UNTIL: f64 = 1.3;

/// What a client knows of tasks. Clones share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pace {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    took: HashMap<String, Duration>,
    waiting: u32,
}

/// One wait for one task.
pub(crate) struct Wait {
    pace: Pace,
    kind: String,
    expected: Option<Duration>,
}

impl Pace {
    fn with<T>(&self, look: impl FnOnce(&mut Inner) -> T) -> T {
        look(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Begins to wait for a task of this kind.
    pub(crate) fn wait(&self, kind: &str) -> Wait {
        let expected = self.with(|inner| {
            inner.waiting += 1;
            inner.took.get(kind).copied()
        });
        Wait {
            pace: self.clone(),
            kind: kind.to_owned(),
            expected,
        }
    }
}

impl Wait {
    /// The pause before the next look, after the task was waited for this long.
    pub(crate) fn pause(&self, elapsed: Duration, first: Duration) -> Duration {
        let waiting = self.pace.with(|inner| inner.waiting);
        pause(elapsed, self.expected, first, waiting)
    }

    /// Remembers how long the task took; the average leans to the latest.
    pub(crate) fn ended(&self, took: Duration) {
        self.pace.with(|inner| {
            inner
                .took
                .entry(self.kind.clone())
                .and_modify(|average| *average = (*average + took) / 2)
                .or_insert(took);
        });
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.pace
            .with(|inner| inner.waiting = inner.waiting.saturating_sub(1));
    }
}

fn pause(elapsed: Duration, expected: Option<Duration>, first: Duration, waiting: u32) -> Duration {
    let shared = SHARE * waiting.saturating_sub(1);
    let seldom = (elapsed / 10).clamp(first.min(LONGEST), LONGEST);
    let pause = match expected {
        None => seldom,
        Some(expected) => {
            let due = expected.mul_f64(DUE_FROM);
            if elapsed < due {
                (due - elapsed).max(SHORTEST)
            } else if elapsed <= expected.mul_f64(DUE_UNTIL) {
                (expected / 200).clamp(SHORTEST, DUE)
            } else {
                seldom
            }
        }
    };
    (pause + shared).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST: Duration = Duration::from_millis(100);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// When a task that takes `took` is seen to have ended, and after how many looks.
    fn seen(took: Duration, expected: Option<Duration>, waiting: u32) -> (Duration, u32) {
        let (mut at, mut looks) = (Duration::ZERO, 1);
        while at < took {
            at += pause(at, expected, FIRST, waiting);
            looks += 1;
        }
        (at, looks)
    }

    #[test]
    fn a_clone_like_the_last_one_is_seen_within_a_tenth_of_a_second() {
        let (at, looks) = seen(ms(25_300), Some(ms(25_000)), 1);
        assert!(
            at - ms(25_300) <= ms(100) && looks < 80,
            "seen at {at:?} after {looks} looks"
        );
        let (at, looks) = seen(ms(25_300), None, 1);
        assert!(
            at - ms(25_300) <= LONGEST && looks < 60,
            "seen at {at:?} after {looks} looks"
        );
    }

    #[test]
    fn fifty_waiters_share_the_looks() {
        let (_, looks) = seen(ms(25_000), Some(ms(25_000)), 50);
        assert!(looks < 25, "{looks} looks each");
    }

    #[test]
    fn what_a_kind_took_is_remembered_and_waiters_are_counted() {
        let pace = Pace::default();
        let wait = pace.wait("qmclone");
        assert_eq!(wait.expected, None);
        wait.ended(ms(1000));
        drop(wait);
        let next = pace.wait("qmclone");
        assert_eq!(next.expected, Some(ms(1000)));
        assert_eq!(pace.with(|inner| inner.waiting), 1);
    }

    proptest! {
        #[test]
        fn every_wait_ends_and_no_pause_is_too_long_or_none(
            elapsed in 0u64..10_000_000, expected in proptest::option::of(0u64..10_000_000), waiting in 0u32..1000,
        ) {
            let pause = pause(ms(elapsed), expected.map(ms), FIRST, waiting);
            prop_assert!(pause >= SHORTEST && pause <= LONGEST);
        }
    }
}
