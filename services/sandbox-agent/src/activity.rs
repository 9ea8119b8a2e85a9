//! When a sandbox was used last: commands, connections, open sessions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use nimbus_model::{Clock, Timestamp};

/// The use of one sandbox.
#[derive(Debug)]
pub(crate) struct Activity {
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    open: u32,
    last: Timestamp,
    /// Sessions that were seen, and until when they may be used.
    leases: HashMap<String, Timestamp>,
}

/// Something that uses the sandbox as long as this lives.
#[derive(Debug)]
pub(crate) struct Used(Arc<Activity>);

impl Activity {
    pub(crate) fn new(clock: Clock) -> Self {
        let last = clock.now();
        Self {
            clock,
            state: Mutex::new(State {
                open: 0,
                last,
                leases: HashMap::new(),
            }),
        }
    }

    /// Begins a use.
    pub(crate) fn enter(self: &Arc<Self>) -> Used {
        let mut state = self.lock();
        state.open += 1;
        state.last = self.clock.now();
        Used(Arc::clone(self))
    }

    /// Notes a session's lease: until its end the sandbox is in use.
    pub(crate) fn lease(&self, session: &str, until: Timestamp) {
        let now = self.clock.now();
        let mut state = self.lock();
        state.leases.retain(|_, until| *until > now);
        state.leases.insert(session.to_owned(), until);
    }

    /// Notes that a session was closed.
    pub(crate) fn end_lease(&self, session: &str) {
        let now = self.clock.now();
        let mut state = self.lock();
        if state.leases.remove(session).is_some() {
            state.last = now;
        }
    }

    /// When it was used last: now, if it is being used.
    pub(crate) fn last(&self) -> Timestamp {
        let now = self.clock.now();
        let state = self.lock();
        if state.open > 0 {
            return now;
        }
        // A lease that ran out was a use until then.
        state
            .leases
            .values()
            .map(|until| (*until).min(now))
            .fold(state.last, Timestamp::max)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        let now = self.0.clock.now();
        let mut state = self.0.lock();
        state.open = state.open.saturating_sub(1);
        state.last = now;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_use_and_a_lease_count_until_they_end() {
        let (clock, jump) = Clock::movable();
        let activity = Arc::new(Activity::new(clock.clone()));
        let minute = Duration::from_secs(60);
        let unused = |activity: &Activity| clock.now().since(activity.last()).as_secs();
        jump.forward(minute);
        assert_eq!(unused(&activity), 60);
        let used = activity.enter();
        jump.forward(minute);
        assert_eq!(unused(&activity), 0);
        drop(used);
        jump.forward(minute);
        assert_eq!(unused(&activity), 60);
        activity.lease("ses_1", clock.now().after(minute));
        jump.forward(minute * 3);
        assert_eq!(unused(&activity), 120);
        activity.lease("ses_2", clock.now().after(minute * 10));
        jump.forward(minute);
        assert_eq!(unused(&activity), 0);
        activity.end_lease("ses_2");
        jump.forward(minute);
        assert_eq!(unused(&activity), 60);
    }
}
