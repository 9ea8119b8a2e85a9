//! Following events in order, without a gap that goes unnoticed.
//!
//! A consumer on the server numbers what it delivers. A number that is missing, silence longer than
//! two heartbeats or a new connection mean that something may have been lost: the consumer is
//! replaced by one that begins after the last event seen. Consumers live in the server's memory and
//! vanish a minute after nobody asks; nothing has to be cleaned up.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_nats::{Message, StatusCode, Subscriber};
use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::bus::Bus;
use crate::error::BusError;
use crate::event::CloudEvent;
use crate::jetstream::{Delivery, EVENTS, StreamInfo, StreamState, nanos};
use crate::link::LinkState;

/// Events asked for at a time.
const BATCH: u32 = 256;
/// How long one request for events stands.
const EXPIRES: Duration = Duration::from_secs(30);
/// How often the server shows that it is there.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// When the server removes a consumer that nobody asks.
const INACTIVE: Duration = Duration::from_secs(60);
/// nats-server: there is no such stream.
const STREAM_NOT_FOUND: u64 = 10059;

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventStart {
    /// With what happens from now on.
    New,
    /// After the event with this sequence.
    After(u64),
    /// With the oldest event that is kept.
    All,
}

/// Which events.
#[derive(Clone, Debug)]
pub struct EventFilter {
    /// Patterns such as `nimbus.v1.event.machine.>`; at least one.
    pub subjects: Vec<String>,
    /// Where to begin.
    pub start: EventStart,
}

/// An event with its place in the stream.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// Where to resume: [`EventStart::After`] this.
    pub sequence: u64,
    /// The event.
    pub event: CloudEvent,
}

/// Events as they come. It does not end by itself.
///
/// An `Err` is one of: events that were dropped before they could be read (what follows is later);
/// an event that cannot be understood (the next one may be); a missing right, after which it ends.
pub struct Events(BoxStream<'static, Result<Delivered, BusError>>);

impl Stream for Events {
    type Item = Result<Delivered, BusError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl Bus {
    /// Follows events; begins when the stream is first polled. See [`Bus::follow`].
    pub fn events(&self, filter: EventFilter) -> Events {
        Follower::new(self.clone(), filter).into_stream()
    }

    /// Follows events, beginning before this returns: with [`EventStart::New`], everything published
    /// afterwards is seen.
    ///
    /// # Errors
    /// A bus that stays away, or a credential without the right.
    pub async fn follow(&self, filter: EventFilter) -> Result<Events, BusError> {
        let mut follower = Follower::new(self.clone(), filter);
        match follower.begin().await {
            Ok(()) => {}
            // Told again by the stream, which the caller reads.
            Err(dropped @ BusError::EventsDropped { .. }) => follower.pending = Some(dropped),
            Err(error) => return Err(error),
        }
        Ok(follower.into_stream())
    }
}

struct Follower {
    bus: Bus,
    subjects: Vec<String>,
    start: EventStart,
    live: Option<Live>,
    pending: Option<BusError>,
    ended: bool,
}

/// A consumer that delivers.
struct Live {
    consumer: String,
    inbox: String,
    messages: Subscriber,
    link: watch::Receiver<LinkState>,
    connects: u64,
    /// Refusals before it began.
    refusals: u64,
    /// The consumer's number of the last event seen.
    seen: u64,
    /// Events still to come from the last request.
    asked: u32,
}

#[derive(Deserialize)]
struct ConsumerInfo {
    delivered: ConsumerPlace,
}

#[derive(Deserialize)]
struct ConsumerPlace {
    stream_seq: u64,
}

/// What came from a consumer.
enum Step {
    Event(Message, Delivery),
    /// Ask for more.
    Again,
    /// It cannot be relied on any more.
    Replace(&'static str),
}

impl Follower {
    fn new(bus: Bus, filter: EventFilter) -> Self {
        Self {
            bus,
            subjects: filter.subjects,
            start: filter.start,
            live: None,
            pending: None,
            ended: false,
        }
    }

    fn into_stream(self) -> Events {
        let stream = futures::stream::unfold(self, |mut follower| async move {
            if follower.ended {
                return None;
            }
            let item = follower.next().await;
            Some((item, follower))
        });
        Events(stream.boxed())
    }

    async fn next(&mut self) -> Result<Delivered, BusError> {
        if let Some(error) = self.pending.take() {
            return Err(error);
        }
        let mut pauses = ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(Duration::from_millis(20))
            .with_max_delay(Duration::from_secs(5))
            .without_max_times()
            .build();
        loop {
            let Some(live) = &mut self.live else {
                match self.begin().await {
                    Ok(()) => {}
                    Err(error @ BusError::EventsDropped { .. }) => return Err(error),
                    Err(
                        error @ (BusError::Permission { .. } | BusError::Invalid { .. } | BusError::Closed),
                    ) => {
                        self.ended = true;
                        return Err(error);
                    }
                    Err(error) => {
                        let pause = pauses.next().unwrap_or_default();
                        warn!(
                            bus.client = self.bus.name(),
                            "cannot follow events, trying again in {pause:?}: {error}"
                        );
                        tokio::time::sleep(pause).await;
                    }
                }
                continue;
            };
            match live.step(&self.bus).await {
                Ok(Step::Event(message, place)) => {
                    self.start = EventStart::After(place.stream);
                    let event =
                        serde_json::from_slice(&message.payload).map_err(|source| BusError::Decode {
                            subject: message.subject.to_string(),
                            source: Box::new(source),
                        })?;
                    return Ok(Delivered {
                        sequence: place.stream,
                        event,
                    });
                }
                Ok(Step::Again) => {}
                Ok(Step::Replace(why)) => {
                    debug!(bus.client = self.bus.name(), "following events anew: {why}");
                    self.live = None;
                }
                Err(error @ BusError::Permission { .. }) => {
                    self.ended = true;
                    return Err(error);
                }
                Err(error) => {
                    debug!(bus.client = self.bus.name(), "following events anew: {error}");
                    self.live = None;
                }
            }
        }
    }

    /// Makes a consumer that begins where we are.
    async fn begin(&mut self) -> Result<(), BusError> {
        let bus = &self.bus;
        bus.ensure_events().await?;
        if let EventStart::After(after) = self.start {
            let info: StreamInfo = bus
                .storage(&format!("$JS.API.STREAM.INFO.{EVENTS}"), &Value::Null)
                .await?;
            let StreamState {
                first_seq: first,
                last_seq: last,
            } = info.state;
            if first > after + 1 || last < after {
                // A stream that is shorter than what we have seen is another one.
                self.start = if last < after {
                    EventStart::All
                } else {
                    EventStart::After(first - 1)
                };
                return Err(BusError::EventsDropped { after, first });
            }
        }
        let consumer = format!("{}-{}", bus.name(), uuid::Uuid::new_v4().simple());
        let (deliver_policy, opt_start_seq) = match self.start {
            EventStart::New => ("new", None),
            EventStart::All => ("all", None),
            EventStart::After(after) => ("by_start_sequence", Some(after + 1)),
        };
        let mut subject = format!("$JS.API.CONSUMER.CREATE.{EVENTS}.{consumer}");
        let (filter_subject, filter_subjects) = match self.subjects.as_slice() {
            [one] => {
                subject = format!("{subject}.{one}");
                (one.as_str(), &[][..])
            }
            several => ("", several),
        };
        let config = json!({
            "name": consumer, "ack_policy": "none", "replay_policy": "instant", "max_deliver": 1,
            "mem_storage": true, "num_replicas": 1, "inactive_threshold": nanos(INACTIVE),
            "deliver_policy": deliver_policy, "opt_start_seq": opt_start_seq,
            "filter_subject": filter_subject, "filter_subjects": filter_subjects
        });

        let link = bus.inner.link.watch();
        let LinkState {
            connects, refusals, ..
        } = *link.borrow();
        let inbox = bus.inner.client.new_inbox();
        let messages = bus
            .inner
            .client
            .subscribe(inbox.clone())
            .await
            .map_err(|_| BusError::Closed)?;
        let request = json!({ "stream_name": EVENTS, "config": config, "action": "create" });
        let info: ConsumerInfo = match bus.storage(&subject, &request).await {
            Err(BusError::Storage {
                code: 404 | STREAM_NOT_FOUND,
                ..
            }) => {
                bus.forget(EVENTS);
                return Err(BusError::Unavailable { subject });
            }
            other => other?,
        };
        if self.start == EventStart::New {
            // So that a consumer lost before the first event does not lose what comes meanwhile.
            self.start = EventStart::After(info.delivered.stream_seq);
        }
        let mut live = Live {
            consumer,
            inbox,
            messages,
            link,
            connects,
            refusals,
            seen: 0,
            asked: 0,
        };
        live.ask(bus).await?;
        self.live = Some(live);
        Ok(())
    }
}

/// Where a consumer is asked for events.
fn next_subject(consumer: &str) -> String {
    format!("$JS.API.CONSUMER.MSG.NEXT.{EVENTS}.{consumer}")
}

impl Live {
    /// Asks for the next events.
    async fn ask(&mut self, bus: &Bus) -> Result<(), BusError> {
        let request =
            json!({ "batch": BATCH, "expires": nanos(EXPIRES), "idle_heartbeat": nanos(HEARTBEAT) });
        let subject = next_subject(&self.consumer);
        let sent = bus
            .inner
            .client
            .publish_with_reply(subject, self.inbox.clone(), Bytes::from(request.to_string()))
            .await;
        sent.map_err(|_| BusError::Closed)?;
        self.asked = BATCH;
        Ok(())
    }

    async fn step(&mut self, bus: &Bus) -> Result<Step, BusError> {
        if self.asked == 0 {
            self.ask(bus).await?;
        }
        let message = tokio::select! {
            biased;
            message = tokio::time::timeout(HEARTBEAT * 2 + HEARTBEAT / 2, self.messages.next()) => match message {
                Ok(Some(message)) => message,
                Ok(None) => return Err(BusError::Closed),
                Err(_) => return Ok(Step::Replace("the server was silent")),
            },
            changed = self.link.changed() => {
                changed.map_err(|_| BusError::Closed)?;
                let now = *self.link.borrow_and_update();
                let asks = next_subject(&self.consumer);
                if bus.inner.link.refused_since(self.refusals, &asks) {
                    return Err(BusError::Permission { name: bus.name().to_owned(), subject: asks });
                }
                return Ok(if now.connected && now.connects != self.connects {
                    Step::Replace("the connection is a new one")
                } else {
                    Step::Again
                });
            }
        };
        match message.status {
            None => {}
            Some(StatusCode::IDLE_HEARTBEAT) => return Ok(Step::Again),
            Some(StatusCode::TIMEOUT) => {
                self.asked = 0;
                return Ok(Step::Again);
            }
            Some(_) => return Ok(Step::Replace("the consumer is gone")),
        }
        let Some(place) = Delivery::of(&message) else {
            return Ok(Step::Replace("a message without a place"));
        };
        if place.consumer != self.seen + 1 {
            return Ok(Step::Replace("an event was missed"));
        }
        self.seen = place.consumer;
        self.asked -= 1;
        Ok(Step::Event(message, place))
    }
}
