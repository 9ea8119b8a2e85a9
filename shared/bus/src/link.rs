//! What is known about the connection: up or down, how often it was made, what the server refused.
//!
//! The client reports a refused publish or subscription as an event, not as a failure of the call,
//! which would then run into its timeout. So refusals are kept here, and everything that waits for
//! an answer also watches the link.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use async_nats::{Event, ServerError};
use tokio::sync::watch;
use tracing::{debug, error, info, warn};

/// Refusals kept for those who wait; more than can be in flight between two looks.
const KEPT_REFUSALS: usize = 256;

/// A snapshot of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkState {
    /// Whether it is up.
    pub connected: bool,
    /// How often it came up.
    pub connects: u64,
    /// How many publishes and subscriptions were refused.
    pub refusals: u64,
}

/// The connection as its users see it.
#[derive(Debug)]
pub(crate) struct Link {
    name: String,
    state: watch::Sender<LinkState>,
    refused: Mutex<VecDeque<(u64, String)>>,
    slow: AtomicU64,
}

impl Link {
    pub(crate) fn new(name: &str) -> Self {
        let state = LinkState {
            connected: false,
            connects: 0,
            refusals: 0,
        };
        Self {
            name: name.to_owned(),
            state: watch::Sender::new(state),
            refused: Mutex::new(VecDeque::new()),
            slow: AtomicU64::new(0),
        }
    }

    /// Follows the state.
    pub(crate) fn watch(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    /// The state now.
    pub(crate) fn now(&self) -> LinkState {
        *self.state.borrow()
    }

    /// How many messages were dropped because a subscription's buffer was full.
    pub(crate) fn slow_consumers(&self) -> u64 {
        self.slow.load(Ordering::Relaxed)
    }

    /// Whether `subject` was refused after the first `seen` refusals.
    pub(crate) fn refused_since(&self, seen: u64, subject: &str) -> bool {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused
            .iter()
            .any(|(serial, one)| *serial > seen && one == subject)
    }

    /// Takes one event of the client. Quick: the client calls it in line.
    pub(crate) fn on(&self, event: &Event) {
        match event {
            Event::Connected => {
                self.state.send_modify(|state| {
                    state.connected = true;
                    state.connects += 1;
                });
                debug!(bus.client = %self.name, "{} is connected to the bus", self.name);
            }
            Event::Disconnected => {
                self.state.send_modify(|state| state.connected = false);
                warn!(bus.client = %self.name, "{} has lost the bus and reconnects", self.name);
            }
            Event::Closed => info!(bus.client = %self.name, "{} has left the bus", self.name),
            Event::SlowConsumer(subscription) => {
                let dropped = self.slow.fetch_add(1, Ordering::Relaxed) + 1;
                // One line per power of two: a flood of lines would make it slower still.
                if dropped.is_power_of_two() {
                    error!(bus.client = %self.name, subscription, dropped, "{} is too slow: {dropped} messages dropped", self.name);
                }
            }
            Event::ServerError(ServerError::Other(text)) => match refusal(text) {
                Some(subject) => self.refuse(subject, text),
                None => warn!(bus.client = %self.name, "the bus complains to {}: {text}", self.name),
            },
            Event::ServerError(other) => {
                error!(bus.client = %self.name, "the bus refuses {}: {other}", self.name)
            }
            other => debug!(bus.client = %self.name, "bus: {other}"),
        }
    }

    fn refuse(&self, subject: &str, text: &str) {
        error!(bus.client = %self.name, bus.subject = subject, "the bus credential of {} is missing a right: {text}", self.name);
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let serial = self.state.borrow().refusals + 1;
        if refused.len() == KEPT_REFUSALS {
            refused.pop_front();
        }
        refused.push_back((serial, subject.to_owned()));
        drop(refused);
        self.state.send_modify(|state| state.refusals = serial);
    }
}

/// The subject of `Permissions Violation for Publish to "x"`, `… for Subscription to "x"` and
/// `… for Publish with Reply of "x"`, the three texts of nats-server.
fn refusal(text: &str) -> Option<&str> {
    let (_, rest) = text.strip_prefix("Permissions Violation for ")?.split_once('"')?;
    rest.split_once('"').map(|(subject, _)| subject)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_seen_by_who_began_to_wait_before_it() {
        let link = Link::new("ippool");
        let before = link.now().refusals;
        let text =
            r#"Permissions Violation for Subscription to "nimbus.v1.rpc.auth.login" using queue "auth""#;
        link.on(&Event::ServerError(ServerError::Other(text.to_owned())));
        assert!(link.refused_since(before, "nimbus.v1.rpc.auth.login"));
        assert!(!link.refused_since(before, "nimbus.v1.rpc.auth.logout"));
        assert!(!link.refused_since(link.now().refusals, "nimbus.v1.rpc.auth.login"));
    }

    #[test]
    fn dropped_messages_are_counted() {
        let link = Link::new("gateway");
        link.on(&Event::SlowConsumer(7));
        link.on(&Event::SlowConsumer(7));
        assert_eq!(link.slow_consumers(), 2);
    }

    #[test]
    fn other_complaints_name_no_subject() {
        assert_eq!(refusal("User Authentication Expired"), None);
        assert_eq!(
            refusal(r#"Permissions Violation for Publish to "a.b""#),
            Some("a.b")
        );
    }
}
