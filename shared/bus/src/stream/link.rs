//! The task behind one end of a stream: the only one that publishes and receives for it.

use std::sync::Arc;

use async_nats::{Message, Subject, Subscriber};
use futures::StreamExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::frame::Frame;
use super::reason::{EndReason, StreamId};
use super::shared::{Shared, Step};
use super::{Side, StreamOptions};
use crate::bus::Bus;
use crate::error::BusError;
use crate::link::LinkState;

/// Longest name of a channel.
const LONGEST_CHANNEL: usize = 32;

struct Task {
    bus: Bus,
    shared: Arc<Shared>,
    listen: Subject,
    speak: Subject,
    options: StreamOptions,
    /// The connection as it was when the stream began.
    begun: LinkState,
    state: watch::Receiver<LinkState>,
    /// The number that the next message in must have.
    expected: u64,
    /// When something was last sent.
    sent: Instant,
    /// When something was last heard; a client has heard nothing before the server appears.
    heard: Option<Instant>,
    opened: Instant,
}

/// Subscribes and starts the task.
pub(super) async fn open(
    bus: &Bus,
    id: StreamId,
    channel: &str,
    side: Side,
    options: StreamOptions,
) -> Result<Arc<Shared>, BusError> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if channel.is_empty() || channel.len() > LONGEST_CHANNEL || !channel.chars().all(fits) {
        return Err(BusError::Invalid {
            text: channel.chars().take(64).collect(),
            wanted: "the name of a channel: a-z, 0-9 and '-', at most 32 characters",
        });
    }
    let inward = format!("nimbus.v1.session.{id}.{channel}.in");
    let outward = format!("nimbus.v1.session.{id}.{channel}.out");
    let (listen, speak) = match side {
        Side::Client => (outward, inward),
        Side::Server => (inward, outward),
    };
    let mut state = bus.inner.link.watch();
    let begun = *state.borrow_and_update();
    let listen = Subject::from(listen);
    let subscription = bus
        .inner
        .client
        .subscribe(listen.clone())
        .await
        .map_err(|_| BusError::Closed)?;
    let shared = Arc::new(Shared::new(side));
    let now = Instant::now();
    let task = Task {
        bus: bus.clone(),
        shared: Arc::clone(&shared),
        listen,
        speak: Subject::from(speak),
        options,
        begun,
        state,
        expected: 0,
        sent: now,
        heard: (side == Side::Server).then_some(now),
        opened: now,
    };
    tokio::spawn(task.run(subscription));
    Ok(shared)
}

impl Task {
    async fn run(mut self, mut subscription: Subscriber) {
        let shared = Arc::clone(&self.shared);
        if !self.begun.connected {
            shared.end(self.lost());
        }
        let timer = sleep_until(self.due());
        tokio::pin!(timer);
        loop {
            match shared.next() {
                Step::Over => break,
                Step::Send(bytes) => {
                    if let Err(reason) = self.send(bytes).await {
                        shared.end(reason);
                        break;
                    }
                    continue;
                }
                Step::Wait => {}
            }
            tokio::select! {
                biased;
                message = subscription.next() => match message {
                    Some(message) => {
                        let first = self.heard.is_none();
                        if let Err(reason) = self.take(message) {
                            shared.end(reason);
                        }
                        if first {
                            // From now on there are signs of life to send.
                            timer.as_mut().reset(self.due());
                        }
                    }
                    None => shared.end(EndReason::broken("the connection to the bus was closed")),
                },
                () = shared.work.notified() => {}
                reason = self.trouble() => {
                    shared.end(reason);
                    break;
                }
                () = &mut timer => {
                    if let Err(reason) = self.tick().await {
                        shared.end(reason);
                    }
                    timer.as_mut().reset(self.due());
                }
            }
        }
        if let Some(reason) = shared.ended() {
            debug!(bus.subject = %self.listen, code = %reason.code, "{reason}");
        }
        shared.over.cancel();
        self.farewell().await;
    }

    /// After a lost connection the reason has not been sent: the other end may still be there.
    async fn farewell(&self) {
        let sending = async {
            while let Step::Send(bytes) = self.shared.next() {
                if self.bus.send(self.speak.clone(), None, bytes).await.is_err() {
                    break;
                }
            }
        };
        // Whether it arrives is not known either way; the other end notices our silence, too.
        let _ = tokio::time::timeout(self.options.silent_after, sending).await;
    }

    async fn send(&mut self, bytes: bytes::Bytes) -> Result<(), EndReason> {
        let (bus, speak) = (self.bus.clone(), self.speak.clone());
        tokio::select! {
            biased;
            sent = bus.send(speak, None, bytes) => sent
                .map_err(|error| EndReason::broken(format!("could not send: {error}")))?,
            reason = self.trouble() => return Err(reason),
        }
        self.sent = Instant::now();
        Ok(())
    }

    /// Takes one message; out of order it is one too many or too few.
    fn take(&mut self, message: Message) -> Result<(), EndReason> {
        let Some((number, frame)) = Frame::decode(message.payload) else {
            return Err(EndReason::broken(
                "the other end sent what is no message of a stream",
            ));
        };
        if number != self.expected {
            return Err(EndReason::broken(format!(
                "message {number} came where {} was due",
                self.expected
            )));
        }
        self.expected = self.expected.wrapping_add(1);
        self.heard = Some(Instant::now());
        self.shared.take(frame)
    }

    /// Waits for the connection to be lost or the credential to be refused.
    async fn trouble(&mut self) -> EndReason {
        loop {
            if self.state.changed().await.is_err() {
                return self.lost();
            }
            let now = *self.state.borrow_and_update();
            if !now.connected || now.connects != self.begun.connects {
                return self.lost();
            }
            let refused = |subject: &Subject| {
                now.refusals > self.begun.refusals
                    && self.bus.inner.link.refused_since(self.begun.refusals, subject)
            };
            if refused(&self.listen) || refused(&self.speak) {
                return EndReason::broken(format!(
                    "the bus credential of {} does not allow this end of the stream",
                    self.bus.inner.name
                ));
            }
        }
    }

    fn lost(&self) -> EndReason {
        EndReason::broken(format!(
            "{} has lost its connection to the bus",
            self.bus.inner.name
        ))
    }

    /// When to look at the clock again.
    fn due(&self) -> Instant {
        match self.heard {
            Some(heard) => (heard + self.options.silent_after).min(self.sent + self.options.alive_every),
            None => self.opened + self.options.open_within,
        }
    }

    async fn tick(&mut self) -> Result<(), EndReason> {
        let now = Instant::now();
        let Some(heard) = self.heard else {
            let waited = now.duration_since(self.opened);
            return if waited < self.options.open_within {
                Ok(())
            } else {
                Err(EndReason::broken("nobody took the other end"))
            };
        };
        if now.duration_since(heard) >= self.options.silent_after {
            return Err(EndReason::broken("the other end is silent"));
        }
        if now.duration_since(self.sent) >= self.options.alive_every {
            let alive = self.shared.alive();
            self.send(alive).await?;
        }
        Ok(())
    }
}
