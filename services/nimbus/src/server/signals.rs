//! Signals: the first asks the process to end, the second makes it.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::problem::{Outcome, Problem};

/// The signals that end a server.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes the signals over from their defaults.
    pub(crate) fn catch() -> Outcome<Self> {
        let take = |kind| {
            signal(kind).map_err(|error| Problem::failed("could not watch for signals").because(&error))
        };
        Ok(Self {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one; its name.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
