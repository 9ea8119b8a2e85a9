//! Where a sandbox is in its life, and what moves it.
//!
//! ```text
//! starting ─passed▶ ready ─failed▶ not_ready ─passed▶ ready
//! starting, ready, not_ready ─stop▶ stopping ─ended▶ stopped
//! starting, ready, not_ready ─ended, again▶ starting      ─ended, clean▶ stopped      ─ended otherwise▶ failed
//! stopping ─will not end▶ failed
//! ```

use nimbus_proto::workloads::Lifecycle;

/// What happened to a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It can be used, or there is nothing to try.
    ProbePassed,
    /// It cannot be used.
    ProbeFailed,
    /// Somebody asked it to stop, or its time is over.
    Stop,
    /// Its main process has ended and will be run again.
    EndsAgain,
    /// Its main process has ended with exit code 0, for good.
    EndsClean,
    /// Its main process has ended otherwise, or it could not be started, for good.
    EndsFailed,
    /// It has been killed and does not end.
    WillNotEnd,
}

/// A step that the rules do not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sandbox that is {from:?} cannot see {event:?}")]
pub(crate) struct IllegalTransition {
    from: Lifecycle,
    event: Event,
}

/// The state after `event`.
pub(crate) fn on(from: Lifecycle, event: Event) -> Result<Lifecycle, IllegalTransition> {
    use Event::{EndsAgain, EndsClean, EndsFailed, ProbeFailed, ProbePassed, Stop, WillNotEnd};
    use Lifecycle::{Declared, Failed, NotReady, Ready, Starting, Stopped, Stopping};
    Ok(match (from, event) {
        (Starting | Ready | NotReady, ProbePassed) => Ready,
        (Starting, ProbeFailed) => Starting,
        (Ready | NotReady, ProbeFailed) => NotReady,
        // A probe that was under way when the stop came.
        (Stopping, ProbePassed | ProbeFailed | Stop) => Stopping,
        (Starting | Ready | NotReady, Stop) => Stopping,
        (Starting | Ready | NotReady, EndsAgain) => Starting,
        (Starting | Ready | NotReady, EndsClean) => Stopped,
        (Starting | Ready | NotReady, EndsFailed) => Failed,
        // What was asked to stop has stopped, however it ended.
        (Stopping, EndsAgain | EndsClean | EndsFailed) => Stopped,
        (Stopping, WillNotEnd) => Failed,
        (Stopped | Failed, Stop) => from,
        (Stopped | Failed | Declared, _) | (Starting | Ready | NotReady, WillNotEnd) => {
            return Err(IllegalTransition { from, event });
        }
    })
}

#[cfg(test)]
mod tests {
    use Lifecycle::{Declared, Failed, NotReady, Ready, Starting, Stopped, Stopping};

    use super::*;

    const EVENTS: [Event; 7] = [
        Event::ProbePassed,
        Event::ProbeFailed,
        Event::Stop,
        Event::EndsAgain,
        Event::EndsClean,
        Event::EndsFailed,
        Event::WillNotEnd,
    ];

    #[test]
    fn every_pair_has_its_rule() {
        // Columns as in EVENTS; None: illegal.
        let table = [
            (
                Starting,
                [
                    Some(Ready),
                    Some(Starting),
                    Some(Stopping),
                    Some(Starting),
                    Some(Stopped),
                    Some(Failed),
                    None,
                ],
            ),
            (
                Ready,
                [
                    Some(Ready),
                    Some(NotReady),
                    Some(Stopping),
                    Some(Starting),
                    Some(Stopped),
                    Some(Failed),
                    None,
                ],
            ),
            (
                NotReady,
                [
                    Some(Ready),
                    Some(NotReady),
                    Some(Stopping),
                    Some(Starting),
                    Some(Stopped),
                    Some(Failed),
                    None,
                ],
            ),
            (
                Stopping,
                [
                    Some(Stopping),
                    Some(Stopping),
                    Some(Stopping),
                    Some(Stopped),
                    Some(Stopped),
                    Some(Stopped),
                    Some(Failed),
                ],
            ),
            (Stopped, [None, None, Some(Stopped), None, None, None, None]),
            (Failed, [None, None, Some(Failed), None, None, None, None]),
            (Declared, [None; 7]),
        ];
        for (from, row) in table {
            for (event, wanted) in EVENTS.into_iter().zip(row) {
                assert_eq!(on(from, event).ok(), wanted, "{from:?} {event:?}");
            }
        }
    }

    #[test]
    fn nothing_leaves_a_final_state() {
        for from in [Stopped, Failed] {
            for event in EVENTS {
                assert!(on(from, event).is_err() || on(from, event) == Ok(from));
            }
        }
    }
}
