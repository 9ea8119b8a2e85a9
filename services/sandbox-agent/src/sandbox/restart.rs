//! Whether a main process that has ended is run again, and when.

use std::time::Duration;

use nimbus_proto::workloads::RestartPolicy;

/// The pause before the first restart; it doubles with each.
const FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
const MOST: Duration = Duration::from_secs(60);
/// After so long without a break of being ready, restarts are counted from the start again.
pub(crate) const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

/// What follows an end that nobody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing; the policy does not restart it.
    Rest,
    /// Nothing; it was restarted as often as it may be.
    LimitReached,
    /// It is run again after a pause.
    Again(Duration),
}

/// What follows the end of a process that was restarted `restarts` times already.
pub(crate) fn next(policy: RestartPolicy, restarts: u32, clean: bool) -> Next {
    let most = match policy {
        RestartPolicy::Never => return Next::Rest,
        RestartPolicy::OnFailure { .. } if clean => return Next::Rest,
        RestartPolicy::OnFailure { max_restarts } => Some(max_restarts),
        RestartPolicy::Always { max_restarts } => max_restarts,
    };
    match most {
        Some(0) => Next::Rest,
        Some(most) if restarts >= most => Next::LimitReached,
        _ => Next::Again(pause(restarts)),
    }
}

fn pause(restarts: u32) -> Duration {
    2_u32
        .checked_pow(restarts)
        .and_then(|factor| FIRST.checked_mul(factor))
        .map_or(MOST, |pause| pause.min(MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        let always = RestartPolicy::Always { max_restarts: None };
        let seconds = |restarts| match next(always, restarts, false) {
            Next::Again(pause) => pause.as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            [0, 1, 2, 5, 6, 31, 32, u32::MAX].map(seconds),
            [1, 2, 4, 32, 60, 60, 60, 60]
        );
    }

    #[test]
    fn policies_differ_in_what_they_restart() {
        let on_failure = RestartPolicy::OnFailure { max_restarts: 2 };
        let always = RestartPolicy::Always {
            max_restarts: Some(1),
        };
        assert_eq!(next(RestartPolicy::Never, 0, false), Next::Rest);
        assert_eq!(next(on_failure, 0, true), Next::Rest);
        assert_eq!(next(on_failure, 1, false), Next::Again(Duration::from_secs(2)));
        assert_eq!(next(on_failure, 2, false), Next::LimitReached);
        assert_eq!(next(always, 0, true), Next::Again(Duration::from_secs(1)));
        assert_eq!(next(always, 1, true), Next::LimitReached);
    }
}
