//! Durable work: put into a queue once, delivered until somebody has done it.
//!
//! An item that a worker has taken is the worker's for [`Work::ACK_WAIT`]; while the handler runs,
//! that is renewed every third of it. A worker that dies is silent, and the item goes to another. So
//! an item may be worked on twice, and handlers stand that.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{HeaderMap, Message, StatusCode, Subject, Subscriber};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use nimbus_errors::{Code, Fault};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::field::Empty;
use tracing::{Instrument, Span, error, info_span, warn};

use crate::bus::Bus;
use crate::error::BusError;
use crate::exchange::{Question, Repeat};
use crate::jetstream::{Delivery, STORAGE_LIMIT, Stored, WORKERS, nanos, work_stream};
use crate::link::LinkState;
use crate::method::Work;
use crate::{header, trace, wire};

/// How long one request for an item stands.
const EXPIRES: Duration = Duration::from_secs(20);
/// How much longer the answer "there was none" may take.
const EXPIRES_GRACE: Duration = Duration::from_secs(5);
/// Pause after a pull that failed.
const FAILED_PAUSE: Duration = Duration::from_millis(200);
/// How long an item rests that this version cannot read: another version may be on its way.
const UNREADABLE_REST: Duration = Duration::from_secs(30);
/// First and longest rest of an item whose handler failed.
const FAILED_REST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What became of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// It is done and leaves the queue.
    Ack,
    /// It is to be delivered again after this long.
    Again(Duration),
}

/// What a handler knows about the delivery of its item.
#[derive(Clone, Debug)]
pub struct Progress {
    bus: Bus,
    reply: Subject,
    deliveries: u64,
}

impl Progress {
    /// How often the item was delivered, this time included.
    #[must_use]
    pub fn deliveries(&self) -> u64 {
        self.deliveries
    }

    /// Says now that the item is being worked on. Not needed for this to be so: it is said regularly.
    pub async fn touch(&self) {
        if let Err(error) = self
            .bus
            .send(self.reply.clone(), None, Bytes::from_static(b"+WPI"))
            .await
        {
            warn!("could not say that an item is being worked on: {error}");
        }
    }
}

impl Bus {
    /// Puts an item into its queue and waits until it is stored. The same `dedupe_id` within ten
    /// minutes is the same item.
    ///
    /// # Errors
    /// A full queue, a bus that stays away, a credential without the right. Whether it was stored
    /// may then not be known: enqueue it again, with the same id.
    pub async fn enqueue<W: Work>(&self, item: &W::Item, dedupe_id: &str) -> Result<(), BusError> {
        let subject = W::subject();
        self.ensure_queue(W::QUEUE, &subject).await?;
        let body = wire::encode(item).map_err(|source| BusError::Encode {
            subject: subject.clone(),
            source: Box::new(source),
        })?;
        let mut headers = HeaderMap::new();
        header::put(&mut headers, header::MSG_ID, dedupe_id)?;
        trace::inject(&Span::current(), &mut headers);
        self.stored::<Stored>(&subject, headers, body, STORAGE_LIMIT)
            .await?;
        Ok(())
    }

    /// Works on a queue, on `concurrency` items at a time, until `stop`; then finishes those it has.
    ///
    /// # Errors
    /// A queue that cannot be made sure of at the start. Later troubles are logged and outlived.
    pub async fn work<W, F, R>(
        &self,
        concurrency: usize,
        stop: CancellationToken,
        handler: F,
    ) -> Result<(), BusError>
    where
        W: Work,
        F: Fn(W::Item, Progress) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Done, Fault>> + Send + 'static,
    {
        self.ensure_workers::<W>().await?;
        let handler = Arc::new(handler);
        let mut workers = JoinSet::new();
        for _ in 0..concurrency.max(1) {
            let (bus, stop, handler) = (self.clone(), stop.clone(), Arc::clone(&handler));
            workers.spawn(async move { bus.worker::<W, F, R>(&stop, handler.as_ref()).await });
        }
        while workers.join_next().await.is_some() {}
        Ok(())
    }

    async fn ensure_workers<W: Work>(&self) -> Result<(), BusError> {
        self.ensure_queue(W::QUEUE, &W::subject()).await?;
        let stream = work_stream(W::QUEUE);
        let request = json!({ "stream_name": stream, "action": "", "config": {
            "name": WORKERS, "durable_name": WORKERS, "ack_policy": "explicit", "deliver_policy": "all", "replay_policy": "instant",
            "ack_wait": nanos(W::ACK_WAIT), "max_deliver": -1, "max_ack_pending": 4096, "max_waiting": 4096
        } });
        self.storage::<serde_json::Value>(&format!("$JS.API.CONSUMER.CREATE.{stream}.{WORKERS}"), &request)
            .await?;
        Ok(())
    }

    async fn worker<W, F, R>(&self, stop: &CancellationToken, handler: &F)
    where
        W: Work,
        F: Fn(W::Item, Progress) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Done, Fault>> + Send + 'static,
    {
        let Ok(mut puller) = Puller::new(self, W::QUEUE).await else {
            return;
        };
        while !stop.is_cancelled() {
            let pulled = tokio::select! {
                pulled = puller.next() => pulled,
                () = stop.cancelled() => {
                    tokio::spawn(puller.give_back());
                    return;
                }
            };
            match pulled {
                Ok(Some(message)) => self.work_on::<W, F, R>(message, handler).await,
                Ok(None) => {}
                Err(error) => {
                    warn!(
                        work.queue = W::QUEUE,
                        "could not take work from {}: {error}",
                        W::QUEUE
                    );
                    self.forget(&work_stream(W::QUEUE));
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(FAILED_PAUSE) => {}
                    }
                    if let Err(error) = self.ensure_workers::<W>().await {
                        warn!(
                            work.queue = W::QUEUE,
                            "could not make sure of the queue {}: {error}",
                            W::QUEUE
                        );
                    }
                }
            }
        }
    }

    async fn work_on<W, F, R>(&self, message: Message, handler: &F)
    where
        W: Work,
        F: Fn(W::Item, Progress) -> R,
        R: Future<Output = Result<Done, Fault>>,
    {
        let (Some(reply), Some(place)) = (message.reply.clone(), Delivery::of(&message)) else {
            error!(
                work.queue = W::QUEUE,
                "an item of {} came without a place to acknowledge it",
                W::QUEUE
            );
            return;
        };
        let span = info_span!(
            "work", otel.kind = "consumer", otel.name = %format_args!("work {}", W::QUEUE),
            work.queue = W::QUEUE, work.deliveries = place.times, outcome = Empty
        );
        trace::link(&span, message.headers.as_ref());
        async {
            let progress = Progress {
                bus: self.clone(),
                reply: reply.clone(),
                deliveries: place.times,
            };
            let (outcome, word) = match wire::decode::<W::Item>(&message.payload) {
                Err(error) => {
                    error!(
                        work.queue = W::QUEUE,
                        "an item of {} is of another version and waits: {error}",
                        W::QUEUE
                    );
                    (
                        Done::Again(UNREADABLE_REST),
                        Code::BusSchemaMismatch.as_str().to_owned(),
                    )
                }
                Ok(item) => run::<W, F, R>(item, progress, handler, place.times).await,
            };
            Span::current().record("outcome", word);
            self.acknowledge::<W>(reply, outcome).await;
        }
        .instrument(span)
        .await;
    }

    async fn acknowledge<W: Work>(&self, reply: Subject, outcome: Done) {
        let payload = match outcome {
            Done::Ack => Bytes::from_static(b"+ACK"),
            Done::Again(after) => Bytes::from(format!("-NAK {}", json!({ "delay": nanos(after) }))),
        };
        // Asked rather than sent, so that the server's answer shows that it knows.
        let question = Question {
            subject: reply,
            headers: HeaderMap::new(),
            payload,
            repeat: Repeat::Reconnect,
            limit: STORAGE_LIMIT,
        };
        if let Err(error) = self.ask(&question).await {
            warn!(
                work.queue = W::QUEUE,
                "an item of {} will be delivered again, its acknowledgement failed: {error}",
                W::QUEUE
            );
        }
    }
}

/// Takes items, one at a time.
///
/// Over a subscription of its own: what a consumer delivers carries the queue's subject, so the
/// client's shared inbox for answers would not know whose it is.
struct Puller {
    bus: Bus,
    subject: String,
    inbox: String,
    messages: Subscriber,
    link: watch::Receiver<LinkState>,
}

impl Puller {
    async fn new(bus: &Bus, queue: &str) -> Result<Self, BusError> {
        let inbox = bus.inner.client.new_inbox();
        let messages = bus
            .inner
            .client
            .subscribe(inbox.clone())
            .await
            .map_err(|_| BusError::Closed)?;
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{WORKERS}", work_stream(queue));
        Ok(Self {
            bus: bus.clone(),
            subject,
            inbox,
            messages,
            link: bus.inner.link.watch(),
        })
    }

    /// One item, or none within the time that a request stands.
    async fn next(&mut self) -> Result<Option<Message>, BusError> {
        let seen = *self.link.borrow_and_update();
        let mut asked_in = if seen.connected {
            seen.connects
        } else {
            seen.connects + 1
        };
        self.ask().await?;
        let end = Instant::now() + EXPIRES + EXPIRES_GRACE;
        let message = loop {
            tokio::select! {
                biased;
                message = self.messages.next() => break message.ok_or(BusError::Closed)?,
                changed = self.link.changed() => {
                    changed.map_err(|_| BusError::Closed)?;
                    let now = *self.link.borrow_and_update();
                    if self.bus.inner.link.refused_since(seen.refusals, &self.subject) {
                        return Err(BusError::Permission { name: self.bus.name().to_owned(), subject: self.subject.clone() });
                    }
                    if now.connected && now.connects > asked_in {
                        asked_in = now.connects;
                        self.ask().await?;
                    }
                }
                () = tokio::time::sleep_until(end) => return Ok(None),
            }
        };
        match message.status {
            None => Ok(Some(message)),
            Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => Ok(None),
            Some(status) => Err(BusError::Storage {
                subject: self.subject.clone(),
                code: u64::from(status.as_u16()),
                description: message.description.unwrap_or_default(),
            }),
        }
    }

    async fn ask(&self) -> Result<(), BusError> {
        let request = Bytes::from(json!({ "batch": 1, "expires": nanos(EXPIRES) }).to_string());
        let sent = self
            .bus
            .inner
            .client
            .publish_with_reply(self.subject.clone(), self.inbox.clone(), request)
            .await;
        sent.map_err(|_| BusError::Closed)
    }

    /// Puts back an item that may be on its way, at once rather than after the worker's silence.
    async fn give_back(mut self) {
        let late = tokio::time::timeout(EXPIRES, self.messages.next()).await;
        if let Ok(Some(Message {
            reply: Some(reply),
            status: None,
            ..
        })) = late
        {
            // Fails only with the connection, and then the silence does the same.
            let _ = self.bus.send(reply, None, Bytes::from_static(b"-NAK")).await;
        }
    }
}

/// Runs the handler, saying all the while that it runs.
async fn run<W, F, R>(item: W::Item, progress: Progress, handler: &F, times: u64) -> (Done, String)
where
    W: Work,
    F: Fn(W::Item, Progress) -> R,
    R: Future<Output = Result<Done, Fault>>,
{
    let mut work = Box::pin(AssertUnwindSafe(async { handler(item, progress.clone()).await }).catch_unwind());
    let mut beat = tokio::time::interval(W::ACK_WAIT / 3);
    beat.reset();
    let outcome = loop {
        tokio::select! {
            outcome = &mut work => break outcome,
            _ = beat.tick() => progress.touch().await,
        }
    };
    match outcome {
        Ok(Ok(done)) => (done, "ok".to_owned()),
        Ok(Err(fault)) => {
            let rest = rest(times);
            warn!(
                work.queue = W::QUEUE,
                work.deliveries = times,
                "an item of {} failed and rests for {rest:?}: {fault}",
                W::QUEUE
            );
            (Done::Again(rest), fault.code)
        }
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied());
            error!(
                work.queue = W::QUEUE,
                "the handler of {} panicked: {}",
                W::QUEUE,
                text.unwrap_or("(no text)")
            );
            (
                Done::Again(rest(times)),
                Code::ServiceInternal.as_str().to_owned(),
            )
        }
    }
}

/// One second, doubled with every delivery.
fn rest(times: u64) -> Duration {
    let doublings = u32::try_from(times.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    (FAILED_REST.0 * 2_u32.pow(doublings)).min(FAILED_REST.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_grow_to_a_minute() {
        assert_eq!(rest(1), Duration::from_secs(1));
        assert_eq!(rest(3), Duration::from_secs(4));
        assert_eq!(rest(u64::MAX), Duration::from_secs(60));
    }
}
