//! One question and its answer, across whatever happens to the connection meanwhile.
//!
//! - "No responders" comes at once and means that nothing was delivered: ask again, with growing
//!   pauses, until the deadline. A service that restarts is therefore only slow.
//! - A lost connection, or half the time gone without an answer (seven seconds of a long time), means
//!   *unknown*: ask again only where the method says that this is harmless, and take whichever answer
//!   comes first.
//! - A refused subject ends it at once.

use std::time::Duration;

use async_nats::client::Request;
use async_nats::{Client, HeaderMap, Message, RequestErrorKind, Subject};
use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::error::BusError;
use crate::link::{Link, LinkState};

/// First and longest pause before asking again where nobody listens.
const ABSENT_PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(200));
/// The longest wait before asking again where that is harmless. A server or a replica that vanishes
/// takes what was sent to it along, and is known to be gone after six seconds: then a repeat arrives.
const PATIENCE: Duration = Duration::from_secs(7);

/// When a question may be asked again although the first might have been heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Never.
    Never,
    /// After a lost connection, with which the question itself was lost.
    Reconnect,
    /// After a lost connection, and once after half the time or some seconds.
    Harmless,
}

/// A question.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub subject: Subject,
    pub headers: HeaderMap,
    pub payload: Bytes,
    pub repeat: Repeat,
    /// How long the answer is of use.
    pub limit: Duration,
}

enum Round {
    Absent,
    Failed(BusError),
}

/// Asks until there is an answer, the deadline, or a reason to give up.
pub(crate) async fn exchange(
    client: &Client,
    link: &Link,
    name: &str,
    ask: &Question,
) -> Result<Message, BusError> {
    let start = Instant::now();
    let deadline = start + ask.limit;
    let mut state = link.watch();
    let mut pauses = None;
    loop {
        match round(client, link, name, ask, start, deadline, &mut state).await {
            Ok(message) => return Ok(message),
            Err(Round::Failed(error)) => return Err(error),
            Err(Round::Absent) => {
                let pause = pauses
                    .get_or_insert_with(absent_pauses)
                    .next()
                    .unwrap_or(ABSENT_PAUSE.1);
                if Instant::now() + pause >= deadline {
                    return Err(BusError::Unavailable {
                        subject: ask.subject.to_string(),
                    });
                }
                debug!(bus.subject = %ask.subject, "nothing listens on {}, asking again in {pause:?}", ask.subject);
                tokio::time::sleep(pause).await;
            }
        }
    }
}

fn absent_pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(ABSENT_PAUSE.0)
        .with_max_delay(ABSENT_PAUSE.1)
        .without_max_times()
        .build()
}

async fn round(
    client: &Client,
    link: &Link,
    name: &str,
    ask: &Question,
    start: Instant,
    deadline: Instant,
    state: &mut watch::Receiver<LinkState>,
) -> Result<Message, Round> {
    let seen = *state.borrow_and_update();
    // While the connection is down the client keeps what is sent until it is up.
    let mut sent_in = if seen.connected {
        seen.connects
    } else {
        seen.connects + 1
    };
    let mut impatient = ask.repeat == Repeat::Harmless;
    let timer = sleep_until(if impatient {
        (start + (ask.limit / 2).min(PATIENCE)).max(Instant::now())
    } else {
        deadline
    });
    tokio::pin!(timer);
    let mut answers = FuturesUnordered::new();
    answers.push(send(client, ask));
    loop {
        tokio::select! {
            biased;
            Some(answer) = answers.next() => match answer {
                Ok(message) => return Ok(message),
                Err(error) => match error.kind() {
                    RequestErrorKind::NoResponders if answers.is_empty() => return Err(Round::Absent),
                    RequestErrorKind::NoResponders => {}
                    _ => return Err(Round::Failed(failure(client, ask, error.kind()))),
                },
            },
            changed = state.changed() => {
                if changed.is_err() {
                    return Err(Round::Failed(BusError::Closed));
                }
                let now = *state.borrow_and_update();
                if now.refusals > seen.refusals && link.refused_since(seen.refusals, &ask.subject) {
                    return Err(Round::Failed(BusError::Permission { name: name.to_owned(), subject: ask.subject.to_string() }));
                }
                if now.connected && now.connects > sent_in && ask.repeat != Repeat::Never {
                    sent_in = now.connects;
                    debug!(bus.subject = %ask.subject, "asking {} again on the new connection", ask.subject);
                    answers.push(send(client, ask));
                }
            }
            () = &mut timer => {
                if !impatient || Instant::now() >= deadline {
                    return Err(Round::Failed(BusError::Timeout { subject: ask.subject.to_string(), limit_ms: ask.limit.as_millis() }));
                }
                impatient = false;
                timer.as_mut().reset(deadline);
                debug!(bus.subject = %ask.subject, "no answer on {} so far, asking again", ask.subject);
                answers.push(send(client, ask));
            }
        }
    }
}

async fn send(client: &Client, ask: &Question) -> Result<Message, async_nats::RequestError> {
    // The client's own time limit is off: the question has one.
    let request = Request::new()
        .payload(ask.payload.clone())
        .headers(ask.headers.clone())
        .timeout(None);
    client.send_request(ask.subject.clone(), request).await
}

fn failure(client: &Client, ask: &Question, kind: RequestErrorKind) -> BusError {
    let subject = ask.subject.to_string();
    match kind {
        RequestErrorKind::MaxPayloadExceeded => BusError::TooLarge {
            subject,
            size: ask.payload.len(),
            limit: client.max_payload(),
        },
        RequestErrorKind::InvalidSubject => BusError::Invalid {
            text: subject,
            wanted: "a subject",
        },
        RequestErrorKind::NoResponders => BusError::Unavailable { subject },
        RequestErrorKind::TimedOut => BusError::Timeout {
            subject,
            limit_ms: ask.limit.as_millis(),
        },
        RequestErrorKind::Other => BusError::Closed,
    }
}
