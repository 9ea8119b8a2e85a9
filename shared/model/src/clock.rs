//! The wall clock as an argument, so that tests can move it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::Timestamp;

/// Where a service gets the time from. Clones share the same clock.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    jump: Option<Arc<AtomicI64>>,
}

/// The handle that moves a test's [`Clock`].
#[derive(Clone, Debug)]
pub struct Jump(Arc<AtomicI64>);

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// The system's clock with an offset that the handle changes.
    #[must_use]
    pub fn movable() -> (Self, Jump) {
        let offset = Arc::new(AtomicI64::new(0));
        (
            Self {
                jump: Some(Arc::clone(&offset)),
            },
            Jump(offset),
        )
    }

    /// The time now, as this clock tells it.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the wall clock"
    )]
    pub fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        let micros = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        let offset = self.jump.as_ref().map_or(0, |jump| jump.load(Ordering::Relaxed));
        Timestamp::from_micros(micros.saturating_add(offset))
    }
}

impl Jump {
    /// Moves the clock forward.
    pub fn forward(&self, span: Duration) {
        self.0.fetch_add(
            i64::try_from(span.as_micros()).unwrap_or(i64::MAX),
            Ordering::Relaxed,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_clock_is_ahead_of_the_systems() {
        let (clock, jump) = Clock::movable();
        let before = clock.now();
        jump.forward(Duration::from_secs(3600));
        assert!(clock.now().since(before) >= Duration::from_secs(3600));
    }
}
