//! What becomes of a sandbox, and what is said about it. Pure.
//!
//! ```text
//!            ┌────────────── restart ──────────────┐
//!            ▼                                     │
//!  create ▶ starting ──probe passes──▶ ready ◀──▶ not_ready
//!            │  └────────────┬──────────┴────────────┤
//!            │           stop asked              exit, lost
//!            │               ▼                       │
//!            │           stopping ──▶ stopped ◀──────┤ code 0
//!            └── launch failed ─▶ failed ◀───────────┘
//! ```
//! `stopped` and `failed` are final: a service gets a new sandbox, never an old one.

use nimbus_model::Timestamp;
use nimbus_proto::workloads::{
    Condition, ConditionKind, Health, Lifecycle, Observation, Readiness, SandboxStatus, SessionState, Truth,
};

/// What happens to a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Its agent has seen it so.
    Observed(Lifecycle),
    /// Somebody wants it to end.
    StopAsked,
    /// Its host is gone.
    Lost,
    /// Its host did not take it.
    LaunchFailed,
}

/// An event that cannot happen to a sandbox in this state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sandbox that is {from:?} cannot take {event:?}")]
pub(crate) struct IllegalTransition {
    pub(crate) from: Lifecycle,
    pub(crate) event: Event,
}

/// Where a sandbox is after `event`.
pub(crate) fn next(from: Lifecycle, event: Event) -> Result<Lifecycle, IllegalTransition> {
    use Lifecycle::{Declared, Failed, NotReady, Ready, Starting, Stopped, Stopping};
    Ok(match (from, event) {
        (Stopped | Failed | Declared, _) | (_, Event::Observed(Declared)) => {
            return Err(IllegalTransition { from, event });
        }
        // Its agent may not have heard of the stop yet.
        (Stopping, Event::Observed(Starting | Ready | NotReady)) => Stopping,
        (_, Event::Observed(seen)) => seen,
        (_, Event::StopAsked) => Stopping,
        (_, Event::Lost | Event::LaunchFailed) => Failed,
    })
}

/// Readiness and health that go with a state nobody has observed more closely.
pub(crate) fn plain(lifecycle: Lifecycle) -> (Readiness, Health) {
    match lifecycle {
        Lifecycle::Ready => (Readiness::Ready, Health::Healthy),
        Lifecycle::Starting | Lifecycle::NotReady | Lifecycle::Stopping => {
            (Readiness::NotReady, Health::Unknown)
        }
        Lifecycle::Stopped => (Readiness::Stopped, Health::Unknown),
        Lifecycle::Failed => (Readiness::Failed, Health::Unhealthy),
        Lifecycle::Declared => (Readiness::Unknown, Health::Unknown),
    }
}

/// The last observation that counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The start of the agent that made it; none for one that came as the answer to a launch.
    pub(crate) boot: Option<String>,
    pub(crate) sequence: u64,
    pub(crate) at: Timestamp,
}

impl Seen {
    /// Whether an observation is newer than this one. Within one start of the agent its numbers say
    /// so; across two only the host's clock can.
    pub(crate) fn is_before(&self, boot: Option<&str>, observation: &Observation) -> bool {
        match (self.boot.as_deref(), boot) {
            (Some(before), Some(now)) if before == now => observation.sequence > self.sequence,
            _ => (observation.at, observation.sequence) > (self.at, self.sequence),
        }
    }
}

/// Puts `new` in its place; its time changes only when its status does.
pub(crate) fn put(conditions: &mut Vec<Condition>, mut new: Condition) {
    match conditions.iter_mut().find(|old| old.kind == new.kind) {
        None => conditions.push(new),
        Some(old) => {
            if old.status == new.status {
                new.last_transition = old.last_transition;
            }
            *old = new;
        }
    }
    conditions.sort_by_key(|condition| condition.kind);
}

/// A condition as it is said now.
pub(crate) fn condition(
    kind: ConditionKind,
    status: Truth,
    reason: &str,
    message: impl Into<String>,
    generation: u64,
    now: Timestamp,
) -> Condition {
    Condition {
        kind,
        status,
        reason: reason.to_owned(),
        message: message.into(),
        observed_generation: generation,
        last_transition: now,
    }
}

/// The condition `Ready` that goes with a state.
pub(crate) fn ready_condition(lifecycle: Lifecycle, now: Timestamp) -> Condition {
    let (status, message) = match lifecycle {
        Lifecycle::Ready => (Truth::True, "the process runs and can be reached"),
        Lifecycle::Starting => (Truth::False, "the sandbox is being started"),
        Lifecycle::NotReady => (Truth::False, "the process runs and cannot be reached"),
        Lifecycle::Stopping => (Truth::False, "the sandbox is being stopped"),
        Lifecycle::Stopped => (Truth::False, "the process has ended"),
        Lifecycle::Failed => (Truth::False, "the sandbox has failed"),
        Lifecycle::Declared => (Truth::Unknown, "nothing of it is run here"),
    };
    condition(ConditionKind::Ready, status, "BackendState", message, 1, now)
}

/// The status after an observation that is news; `None` when it says nothing that could be shown.
pub(crate) fn observe(status: &SandboxStatus, seen: &Observation, now: Timestamp) -> Option<SandboxStatus> {
    let lifecycle = next(status.lifecycle, Event::Observed(seen.lifecycle)).ok()?;
    let mut new = status.clone();
    new.lifecycle = lifecycle;
    if lifecycle == seen.lifecycle {
        (new.readiness, new.health) = (seen.readiness, seen.health);
    } else {
        (new.readiness, new.health) = plain(lifecycle);
    }
    new.endpoints = if lifecycle == Lifecycle::Ready {
        seen.endpoints.clone()
    } else {
        Vec::new()
    };
    new.exit = seen.exit.or(new.exit);
    new.image_digest = seen.image_digest.clone().or(new.image_digest);
    new.start = seen.start.or(new.start);
    new.started_after_us = new.started_after_us.or(seen.started_after_us);
    new.restarts = seen.restarts;
    if lifecycle != status.lifecycle && !seen.conditions.iter().any(|c| c.kind == ConditionKind::Ready) {
        put(&mut new.conditions, ready_condition(lifecycle, now));
    }
    // A launch is over when it has come to anything.
    let over = lifecycle != Lifecycle::Starting;
    if over
        && new
            .conditions
            .iter()
            .any(|c| c.kind == ConditionKind::Progressing && c.status == Truth::True)
    {
        let message = "the launch is over";
        let said = condition(
            ConditionKind::Progressing,
            Truth::False,
            "BackendState",
            message,
            1,
            now,
        );
        put(&mut new.conditions, said);
    }
    for condition in &seen.conditions {
        // An agent may repeat what it said while it was launching.
        if over && condition.kind == ConditionKind::Progressing && condition.status == Truth::True {
            continue;
        }
        // What is said of readiness must not contradict a stop that the agent has not heard of.
        if lifecycle == seen.lifecycle || condition.kind != ConditionKind::Ready {
            put(&mut new.conditions, condition.clone());
        }
    }
    Some(new)
}

/// The status after something that no agent has observed.
pub(crate) fn decide(
    status: &SandboxStatus,
    event: Event,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Result<SandboxStatus, IllegalTransition> {
    let lifecycle = next(status.lifecycle, event)?;
    let mut new = status.clone();
    new.lifecycle = lifecycle;
    (new.readiness, new.health) = plain(lifecycle);
    new.endpoints = Vec::new();
    let said = Condition {
        reason: reason.to_owned(),
        message: message.to_owned(),
        ..ready_condition(lifecycle, now)
    };
    put(&mut new.conditions, said);
    for progressing in new
        .conditions
        .iter_mut()
        .filter(|c| c.kind == ConditionKind::Progressing && c.status == Truth::True)
    {
        progressing.status = Truth::False;
        progressing.last_transition = now;
    }
    Ok(new)
}

/// What a session is at `now`: time alone ends it, whether or not anybody has written so.
pub(crate) fn session(state: SessionState, expires_at: Timestamp, now: Timestamp) -> SessionState {
    match state {
        SessionState::Open if now >= expires_at => SessionState::Expired,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use nimbus_bus::Method;
    use nimbus_proto::workloads::{GetSandbox, Report};
    use strum::VariantArray;

    use super::*;
    use Lifecycle::{Declared, Failed, NotReady, Ready, Starting, Stopped, Stopping};

    fn observation(lifecycle: Lifecycle, sequence: u64, at: i64) -> Observation {
        let (readiness, health) = plain(lifecycle);
        Observation {
            sequence,
            at: Timestamp::from_micros(at),
            lifecycle,
            readiness,
            health,
            ..Report::sample_request().observations[0].clone()
        }
    }

    fn status(lifecycle: Lifecycle) -> SandboxStatus {
        SandboxStatus {
            lifecycle,
            ..GetSandbox::sample_reply().status
        }
    }

    #[test]
    fn every_pair_of_state_and_event() {
        for from in Lifecycle::VARIANTS.iter().copied() {
            let over = matches!(from, Stopped | Failed | Declared);
            for seen in Lifecycle::VARIANTS.iter().copied() {
                let expected = if over || seen == Declared {
                    None
                } else if from == Stopping && !matches!(seen, Stopped | Failed) {
                    Some(Stopping)
                } else {
                    Some(seen)
                };
                assert_eq!(
                    next(from, Event::Observed(seen)).ok(),
                    expected,
                    "{from:?} {seen:?}"
                );
            }
            for (event, to) in [
                (Event::StopAsked, Stopping),
                (Event::Lost, Failed),
                (Event::LaunchFailed, Failed),
            ] {
                assert_eq!(
                    next(from, event).ok(),
                    (!over).then_some(to),
                    "{from:?} {event:?}"
                );
            }
        }
    }

    #[test]
    fn numbers_order_the_news_of_one_boot_and_clocks_those_of_two() {
        let seen = |boot: Option<&str>| Seen {
            boot: boot.map(str::to_owned),
            sequence: 5,
            at: Timestamp::from_micros(100),
        };
        for (before, now, sequence, at, news) in [
            (Some("a"), Some("a"), 6, 1, true),
            (Some("a"), Some("a"), 5, 200, false),
            (Some("a"), Some("b"), 1, 200, true),
            (Some("a"), Some("b"), 9, 50, false),
            (None, Some("a"), 5, 100, false),
            (None, Some("a"), 6, 100, true),
            (Some("a"), None, 1, 99, false),
        ] {
            let observation = observation(Ready, sequence, at);
            assert_eq!(
                seen(before).is_before(now, &observation),
                news,
                "{before:?} {now:?} {sequence} {at}"
            );
        }
    }

    #[test]
    fn endpoints_are_shown_only_while_it_is_ready() {
        let now = Timestamp::from_micros(7);
        for lifecycle in Lifecycle::VARIANTS.iter().copied().filter(|l| *l != Declared) {
            let mut seen = observation(lifecycle, 1, 1);
            seen.endpoints = status(Ready).endpoints;
            let new = observe(&status(Ready), &seen, now).unwrap();
            assert_eq!(new.endpoints.is_empty(), lifecycle != Ready, "{lifecycle:?}");
        }
        assert_eq!(
            observe(&status(Stopping), &observation(Ready, 9, 9), now)
                .unwrap()
                .lifecycle,
            Stopping
        );
        assert!(observe(&status(Failed), &observation(Ready, 9, 9), now).is_none());
    }

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let at = |micros| Timestamp::from_micros(micros);
        let mut list = vec![ready_condition(Ready, at(1))];
        put(&mut list, ready_condition(Ready, at(2)));
        assert_eq!(list[0].last_transition, at(1));
        put(&mut list, ready_condition(NotReady, at(3)));
        assert_eq!((list.len(), list[0].last_transition), (1, at(3)));
        put(
            &mut list,
            condition(
                ConditionKind::Admitted,
                Truth::True,
                "DefinitionValidated",
                "",
                1,
                at(4),
            ),
        );
        assert_eq!(list[0].kind, ConditionKind::Admitted, "always in one order");
    }

    #[test]
    fn what_was_decided_says_why() {
        let now = Timestamp::from_micros(7);
        let new = decide(&status(Ready), Event::Lost, "HostLost", "host-a is gone", now).unwrap();
        assert_eq!(
            (new.lifecycle, new.readiness, new.health),
            (Failed, Readiness::Failed, Health::Unhealthy)
        );
        assert_eq!(new.conditions[0].reason, "HostLost");
        assert!(decide(&status(Stopped), Event::StopAsked, "x", "", now).is_err());
    }

    #[test]
    fn time_alone_ends_a_session() {
        let (before, at) = (Timestamp::from_micros(9), Timestamp::from_micros(10));
        assert_eq!(session(SessionState::Open, at, before), SessionState::Open);
        assert_eq!(session(SessionState::Open, at, at), SessionState::Expired);
        for over in [SessionState::Closed, SessionState::Expired] {
            assert_eq!(session(over, at, at), over);
        }
    }

    #[test]
    fn a_launch_that_is_over_is_not_in_progress() {
        let now = Timestamp::from_micros(7);
        let launching = condition(ConditionKind::Progressing, Truth::True, "Launching", "", 1, now);
        let mut starting = status(Starting);
        put(&mut starting.conditions, launching.clone());
        let mut seen = observation(Ready, 2, 2);
        seen.conditions = vec![launching];
        let new = observe(&starting, &seen, now).unwrap();
        let progressing = new
            .conditions
            .iter()
            .find(|c| c.kind == ConditionKind::Progressing);
        assert_eq!(progressing.map(|c| c.status), Some(Truth::False));
    }

    #[test]
    fn starting_again_withdraws_what_was_ready() {
        let new = observe(
            &status(Ready),
            &observation(Starting, 9, 9),
            Timestamp::from_micros(1),
        )
        .unwrap();
        assert_eq!(new.readiness, Readiness::NotReady);
    }
}
