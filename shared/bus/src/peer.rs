//! Peers of another make: programs that speak JSON and bytes on named subjects because they may be
//! older or newer than this build, such as the worker on a GPU box.
//!
//! ```text
//!  peer ──request, JSON or bytes──▶ nimbus.v1.gpu.beat.<worker> ──queue group──▶ Peers::answer
//!  peer ◀──pull── work-queue stream ◀──store_once── service
//!  peer ◀──core message── say ── service
//! ```
//! What travels is described by the peers' own contract; this module adds what is the same for all of
//! them: every request gets an answer, a failure is a [`Fault`] as JSON beside the two headers of the
//! NATS services API, and a message with an id is stored once.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{HeaderMap, HeaderName, Message, Subject, Subscriber};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use nimbus_errors::{Code, Fault};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::field::Empty;
use tracing::{Instrument, Span, error, info, info_span, warn};

use crate::bus::Bus;
use crate::call::DEADLINE;
use crate::error::BusError;
use crate::exchange::{Question, Repeat};
use crate::intake::Intake;
use crate::jetstream::{STORAGE_LIMIT, nanos};
use crate::{header, trace};

/// How long a handler may take; peers ask again after less.
const HANDLER_LIMIT: Duration = Duration::from_secs(25);
/// A stream of assignments holds at most this; more is refused, never dropped.
const STREAM_MAX_BYTES: u64 = 64 << 20;
/// Repeats of a message id within this are one message.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(600);
/// How long a peer may think about a message before it is delivered to it again.
const ACK_WAIT: Duration = Duration::from_secs(30);

/// nats-server: there is no such consumer.
const CONSUMER_NOT_FOUND: u64 = 10014;
/// nats-server: there is no such message.
const MESSAGE_NOT_FOUND: u64 = 10043;
/// nats-server: the message could not be deleted, as it is gone.
const MESSAGE_DELETE_FAILED: u64 = 10057;
/// nats-server: there is no such stream.
const STREAM_NOT_FOUND: u64 = 10059;

/// A request of a peer.
#[derive(Clone, Debug)]
pub struct PeerRequest {
    subject: Subject,
    headers: Option<HeaderMap>,
    /// Its body, as sent.
    pub payload: Bytes,
}

impl PeerRequest {
    /// Where it was sent.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The part of the subject at `index`, counted from zero.
    #[must_use]
    pub fn token(&self, index: usize) -> Option<&str> {
        self.subject.split('.').nth(index)
    }

    /// A header's text; the name is matched as it is written.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let name: HeaderName = name.parse().ok()?;
        header::text(self.headers.as_ref(), name)
    }
}

type Handler = Arc<dyn Fn(PeerRequest) -> BoxFuture<'static, Result<Bytes, Fault>> + Send + Sync>;

struct Endpoint {
    pattern: String,
    permits: Arc<Semaphore>,
    handler: Handler,
}

/// Answers to peers, being described; live with [`Peers::start`].
#[must_use = "peers are answered only after start"]
pub struct Peers {
    bus: Bus,
    group: String,
    endpoints: Vec<Endpoint>,
}

/// Running answers. Dropped, they stop; [`PeerServing::stop`] also waits for those under way.
pub struct PeerServing {
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What storing a message once gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct StoredOnce {
    /// Its place in the stream; of the first, if it was a repeat.
    #[serde(rename = "seq")]
    pub sequence: u64,
    /// Whether the stream knew its id already.
    #[serde(default)]
    pub duplicate: bool,
}

impl Bus {
    /// Begins to describe answers to peers, shared by every replica that names the same `group`.
    pub fn peers(&self, group: &str) -> Peers {
        Peers {
            bus: self.clone(),
            group: group.to_owned(),
            endpoints: Vec::new(),
        }
    }

    /// Asks as a peer does, and gives the answer's body. The request may be sent again when the
    /// connection is lost or half of `limit` has passed, so its repeat must be harmless.
    ///
    /// # Errors
    /// The fault that was answered; `service.unavailable`, `service.timeout`, `bus.permission`.
    pub async fn ask_peer(
        &self,
        subject: &str,
        headers: &[(&str, &str)],
        payload: Bytes,
        limit: Duration,
    ) -> Result<Bytes, Fault> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().map_err(|_| {
                Fault::of(&BusError::Invalid {
                    text: (*name).to_owned(),
                    wanted: "a header's name",
                })
            })?;
            header::put(&mut map, name, value)?;
        }
        let question = Question {
            subject: subject.into(),
            headers: map,
            payload,
            repeat: Repeat::Harmless,
            limit,
        };
        let message = self.ask(&question).await?;
        if header::text(message.headers.as_ref(), header::SERVICE_ERROR).is_none() {
            return Ok(message.payload);
        }
        Err(serde_json::from_slice(&message.payload).unwrap_or_else(|error| {
            Fault::new(
                Code::BusSchemaMismatch,
                format!("the failure answered on {subject} cannot be read: {error}"),
            )
        }))
    }

    /// Sends to whoever listens now; nobody listening is no error.
    ///
    /// # Errors
    /// A connection that was closed for good, or a body the server does not take.
    pub async fn say(&self, subject: &str, payload: Bytes) -> Result<(), BusError> {
        self.send(subject.into(), None, payload).await
    }

    /// Listens along on a pattern; every replica that does hears everything. Live on the server when
    /// this returns.
    ///
    /// # Errors
    /// A bus that stays away, or a credential without the right.
    pub async fn hear(&self, pattern: &str) -> Result<Subscriber, BusError> {
        let seen = self.inner.link.now().refusals;
        let subscription = self
            .inner
            .client
            .subscribe(pattern.to_owned())
            .await
            .map_err(|_| BusError::Closed)?;
        self.prove_live().await?;
        if self.inner.link.refused_since(seen, pattern) {
            return Err(BusError::Permission {
                name: self.name().to_owned(),
                subject: pattern.to_owned(),
            });
        }
        Ok(subscription)
    }

    /// Makes sure that the work-queue stream `stream` of these subjects exists.
    ///
    /// # Errors
    /// A server without JetStream, or a credential without the right.
    pub async fn ensure_work_stream(&self, stream: &str, subjects: &[&str]) -> Result<(), BusError> {
        let config = json!({
            "name": stream, "description": "Work of Nimbus for peers", "subjects": subjects,
            "retention": "workqueue", "storage": "file", "discard": "new",
            "max_msgs": -1, "max_bytes": STREAM_MAX_BYTES, "max_consumers": -1, "num_replicas": 1,
            "duplicate_window": nanos(DUPLICATE_WINDOW)
        });
        self.ensure(stream, &config).await
    }

    /// Makes sure that the durable consumer `name` of `stream` exists, from which a peer pulls what is
    /// stored on `subject`, one message at a time. One with another subject is changed to this one.
    ///
    /// # Errors
    /// As [`Bus::ensure_work_stream`]; another consumer that takes the same subject.
    pub async fn ensure_pull_consumer(
        &self,
        stream: &str,
        name: &str,
        subject: &str,
    ) -> Result<(), BusError> {
        let request = json!({ "stream_name": stream, "action": "", "config": {
            "name": name, "durable_name": name, "filter_subject": subject, "ack_policy": "explicit",
            "deliver_policy": "all", "replay_policy": "instant", "ack_wait": nanos(ACK_WAIT),
            "max_deliver": -1, "max_ack_pending": 1, "max_waiting": 16
        } });
        self.storage::<Value>(
            &format!("$JS.API.CONSUMER.CREATE.{stream}.{name}.{subject}"),
            &request,
        )
        .await?;
        Ok(())
    }

    /// Removes a consumer, so that its peer gets nothing any more; whether there was one.
    ///
    /// # Errors
    /// As [`Bus::ensure_work_stream`].
    pub async fn delete_consumer(&self, stream: &str, name: &str) -> Result<bool, BusError> {
        let subject = format!("$JS.API.CONSUMER.DELETE.{stream}.{name}");
        match self.storage::<Value>(&subject, &Value::Null).await {
            Ok(_) => Ok(true),
            Err(BusError::Storage {
                code: CONSUMER_NOT_FOUND | STREAM_NOT_FOUND,
                ..
            }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Stores a message in the stream that takes `subject`; the same `id` within ten minutes is the
    /// same message.
    ///
    /// # Errors
    /// A full stream, none that takes the subject, a bus that stays away, a credential without the
    /// right. Whether it was stored may then not be known: store it again, with the same id.
    pub async fn store_once(&self, subject: &str, id: &str, payload: Bytes) -> Result<StoredOnce, BusError> {
        let mut headers = HeaderMap::new();
        header::put(&mut headers, header::MSG_ID, id)?;
        trace::inject(&Span::current(), &mut headers);
        self.stored(subject, headers, payload, STORAGE_LIMIT).await
    }

    /// Takes back one stored message by its place, whether or not it was delivered; whether it was
    /// still there. A message stored later is never hit.
    ///
    /// # Errors
    /// As [`Bus::ensure_work_stream`].
    pub async fn delete_stored(&self, stream: &str, sequence: u64) -> Result<bool, BusError> {
        let subject = format!("$JS.API.STREAM.MSG.DELETE.{stream}");
        // Not overwritten with random bytes first, which is slow and protects from nobody here.
        let request = json!({ "seq": sequence, "no_erase": true });
        match self.storage::<Value>(&subject, &request).await {
            Ok(_) => Ok(true),
            Err(BusError::Storage {
                code: MESSAGE_NOT_FOUND | MESSAGE_DELETE_FAILED | STREAM_NOT_FOUND,
                ..
            }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Forgets that a stream was made sure of, after the server has said that nothing takes its
    /// subjects: the next [`Bus::ensure_work_stream`] makes it anew.
    pub fn forget_work_stream(&self, stream: &str) {
        self.forget(stream);
    }
}

impl Peers {
    /// Answers requests on `pattern`, up to `concurrency` at a time; more are answered with
    /// `rate.overloaded`.
    pub fn answer<F, R>(mut self, pattern: &str, concurrency: usize, handler: F) -> Self
    where
        F: Fn(PeerRequest) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Bytes, Fault>> + Send + 'static,
    {
        self.endpoints.push(Endpoint {
            pattern: pattern.to_owned(),
            permits: Arc::new(Semaphore::new(concurrency)),
            handler: Arc::new(move |request| Box::pin(handler(request))),
        });
        self
    }

    /// Subscribes; when this returns, requests arrive here.
    ///
    /// # Errors
    /// A credential that does not allow one of the patterns.
    pub async fn start(self) -> Result<PeerServing, BusError> {
        let Self {
            bus,
            group,
            endpoints,
        } = self;
        let client = &bus.inner.client;
        let seen = bus.inner.link.now().refusals;
        let mut live = Vec::new();
        for endpoint in endpoints {
            let subscription = client
                .queue_subscribe(endpoint.pattern.clone(), group.clone())
                .await
                .map_err(|_| BusError::Closed)?;
            live.push((Arc::new(endpoint), subscription));
        }
        bus.prove_live().await?;
        if let Some((endpoint, _)) = live
            .iter()
            .find(|(endpoint, _)| bus.inner.link.refused_since(seen, &endpoint.pattern))
        {
            return Err(BusError::Permission {
                name: bus.name().to_owned(),
                subject: endpoint.pattern.clone(),
            });
        }
        let serving = PeerServing {
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        info!(
            patterns = live.len(),
            "{} answers peers on {} patterns",
            bus.name(),
            live.len()
        );
        for (endpoint, subscription) in live {
            let (bus, stop, tasks) = (bus.clone(), serving.stop.clone(), serving.tasks.clone());
            serving
                .tasks
                .spawn(receive(bus, endpoint, subscription, stop, tasks));
        }
        serving.tasks.close();
        Ok(serving)
    }
}

impl PeerServing {
    /// Takes no more requests and waits for those that run.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

impl Drop for PeerServing {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn receive(
    bus: Bus,
    endpoint: Arc<Endpoint>,
    subscription: Subscriber,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    let mut intake = Intake::new(subscription, stop);
    while let Some(message) = intake.next().await {
        let Ok(permit) = Arc::clone(&endpoint.permits).try_acquire_owned() else {
            let fault = Fault::new(
                Code::RateOverloaded,
                format!("{} has all the work it can do", bus.name()),
            );
            answer(&bus, &endpoint, message.reply, Err(fault)).await;
            continue;
        };
        let (bus, endpoint) = (bus.clone(), Arc::clone(&endpoint));
        tasks.spawn(async move {
            handle(&bus, &endpoint, message).await;
            drop(permit);
        });
    }
}

async fn handle(bus: &Bus, endpoint: &Endpoint, message: Message) {
    let Message {
        subject,
        reply,
        payload,
        headers,
        ..
    } = message;
    let span = info_span!(
        "peer", otel.kind = "server", otel.name = %endpoint.pattern, bus.subject = %subject, outcome = Empty
    );
    trace::adopt(&span, headers.as_ref());
    let deadline = bus.inner.clock.now().after(HANDLER_LIMIT);
    async {
        let request = PeerRequest {
            subject,
            headers,
            payload,
        };
        let work = AssertUnwindSafe(DEADLINE.scope(deadline, (endpoint.handler)(request))).catch_unwind();
        let outcome = match tokio::time::timeout(HANDLER_LIMIT, work).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => {
                error!("the handler of {} panicked", endpoint.pattern);
                Err(Fault::new(
                    Code::ServiceInternal,
                    Code::ServiceInternal.entry().meaning,
                ))
            }
            Err(_) => Err(Fault::new(
                Code::ServiceTimeout,
                format!("{} did not finish in time", endpoint.pattern),
            )),
        };
        Span::current().record(
            "outcome",
            outcome.as_ref().err().map_or("ok", |fault| fault.code.as_str()),
        );
        answer(bus, endpoint, reply, outcome).await;
    }
    .instrument(span)
    .await;
}

async fn answer(bus: &Bus, endpoint: &Endpoint, reply: Option<Subject>, outcome: Result<Bytes, Fault>) {
    // A peer that names no place to answer does not want one.
    let Some(reply) = reply else { return };
    let (headers, body) = match outcome {
        Ok(body) => (None, body),
        Err(fault) => {
            let mut headers = HeaderMap::new();
            let line: String = fault
                .message
                .chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .take(512)
                .collect();
            headers.insert(header::SERVICE_ERROR, line);
            headers.insert(header::SERVICE_ERROR_CODE, fault.entry().http_status.to_string());
            (
                Some(headers),
                Bytes::from(serde_json::to_vec(&fault).unwrap_or_default()),
            )
        }
    };
    if let Err(error) = bus.send(reply, headers, body).await {
        warn!("could not answer a peer on {}: {error}", endpoint.pattern);
    }
}
