//! Serving methods.
//!
//! ```text
//! subscription ──▶ receive loop ──▶ one task per message ──▶ reply
//!                  (never works)     deadline → identity → handler → encode
//! ```
//! Every request gets an answer, also one that cannot be decoded and one whose handler panics;
//! only work whose deadline has passed is dropped, because nobody waits for it any more.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{HeaderMap, Message, Subscriber};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use nimbus_errors::{Code, Fault};
use nimbus_model::{Hostname, Timestamp};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::field::Empty;
use tracing::{Instrument, Span, debug, error, info, info_span, warn};

use crate::bus::Bus;
use crate::call::DEADLINE;
use crate::caller::{AccessToken, Caller, Incoming, Key, lacks};
use crate::error::BusError;
use crate::identity::Scope;
use crate::intake::Intake;
use crate::method::{Access, Method, Place, Retry};
use crate::micro::{Counters, Micro};
use crate::{header, trace, wire};

/// What all agents are called in discovery, and their queue group.
pub(crate) const AGENT: &str = "agent";
/// Requests of one method that are worked on at a time, where nothing else is said.
const CONCURRENCY: usize = 256;

/// A service being described.
#[must_use = "a service answers nothing until it is started"]
pub struct Serve {
    bus: Bus,
    name: &'static str,
    version: &'static str,
    description: &'static str,
    host: Option<Hostname>,
    concurrency: usize,
    endpoints: Vec<Endpoint>,
    misplaced: Option<String>,
}

/// A running service. Dropped, it stops taking requests; [`Serving::stop`] also waits for those it has.
pub struct Serving {
    name: &'static str,
    stop: CancellationToken,
    tasks: TaskTracker,
}

type Handler = Arc<dyn Fn(Request) -> BoxFuture<'static, Result<Bytes, Fault>> + Send + Sync>;

/// A method without its types.
struct Endpoint {
    service: &'static str,
    name: &'static str,
    subject: String,
    timeout: Duration,
    access: Access,
    place: Place,
    permits: Arc<Semaphore>,
    counters: Arc<Counters>,
    handler: Handler,
}

/// A request without its types.
struct Request {
    payload: Bytes,
    caller: Option<Caller>,
    key: Option<Key>,
    deadline: Timestamp,
}

impl Serve {
    pub(crate) fn new(
        bus: Bus,
        name: &'static str,
        version: &'static str,
        description: &'static str,
        host: Option<Hostname>,
    ) -> Self {
        Self {
            bus,
            name,
            version,
            description,
            host,
            concurrency: CONCURRENCY,
            endpoints: Vec::new(),
            misplaced: None,
        }
    }

    /// How many requests each of the methods added *after* this works on at a time; more are
    /// answered with `rate.overloaded`.
    pub fn concurrency(mut self, requests: usize) -> Self {
        self.concurrency = requests;
        self
    }

    /// Adds a method. The handler runs in a task of its own and is dropped at the deadline.
    pub fn method<M, F, R>(mut self, handler: F) -> Self
    where
        M: Method,
        F: Fn(Incoming<M>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<M::Reply, Fault>> + Send + 'static,
    {
        let subject = match (M::PLACE, &self.host) {
            (Place::Host, Some(host)) => M::subject_at(host),
            (Place::Service, None) => M::subject(),
            (Place::Host, None) | (Place::Service, Some(_)) => {
                self.misplaced.get_or_insert_with(M::subject);
                M::subject()
            }
        };
        let handler = Arc::new(handler);
        let erased = move |request: Request| -> BoxFuture<'static, Result<Bytes, Fault>> {
            let handler = Arc::clone(&handler);
            Box::pin(async move {
                let Request {
                    payload,
                    caller,
                    key,
                    deadline,
                } = request;
                let request = wire::decode::<M::Request>(&payload).map_err(|error| {
                    Fault::new(
                        Code::BusSchemaMismatch,
                        format!("the request on {} is of another version: {error}", M::subject()),
                    )
                })?;
                let reply = handler(Incoming {
                    request,
                    caller,
                    key,
                    deadline,
                })
                .await?;
                wire::encode(&reply).map_err(|source| {
                    Fault::of(&BusError::Encode {
                        subject: M::subject(),
                        source: Box::new(source),
                    })
                })
            })
        };
        let metadata = HashMap::from([
            ("timeout_ms".to_owned(), M::TIMEOUT.as_millis().to_string()),
            (
                "retry".to_owned(),
                match M::RETRY {
                    Retry::Never => "never",
                    Retry::Read => "read",
                    Retry::SameKey => "same-key",
                }
                .to_owned(),
            ),
            ("encoding".to_owned(), "postcard".to_owned()),
        ]);
        self.endpoints.push(Endpoint {
            service: M::SERVICE,
            name: M::NAME,
            subject: subject.clone(),
            timeout: M::TIMEOUT,
            access: M::ACCESS,
            place: M::PLACE,
            permits: Arc::new(Semaphore::new(self.concurrency)),
            counters: Arc::new(Counters::new(M::NAME, subject, self.name, metadata)),
            handler: Arc::new(erased),
        });
        self
    }

    /// Subscribes; when this returns, requests arrive here, shared with other instances of the service.
    ///
    /// # Errors
    /// A credential that does not allow one of the subjects; a method for people on a bus without verifier.
    pub async fn start(self) -> Result<Serving, BusError> {
        let Self {
            bus,
            name,
            version,
            description,
            host: _,
            concurrency: _,
            endpoints,
            misplaced,
        } = self;
        if let Some(text) = misplaced {
            return Err(BusError::Invalid {
                text,
                wanted: "a method of this place: hosts answer the methods of agents, services all others",
            });
        }
        let personal = endpoints.iter().find(|one| one.access != Access::Service);
        if let (None, Some(personal)) = (&bus.verifier, personal) {
            return Err(BusError::NoVerifier {
                subject: personal.subject.clone(),
            });
        }
        let micro = Micro::new(
            name,
            version,
            description,
            endpoints.iter().map(|one| Arc::clone(&one.counters)).collect(),
        );
        let client = &bus.inner.client;
        let seen = bus.inner.link.now().refusals;
        let mut wanted = Vec::new();
        let mut requests = Vec::new();
        for endpoint in endpoints {
            wanted.push(endpoint.subject.clone());
            let subscription = client
                .queue_subscribe(endpoint.subject.clone(), name.to_owned())
                .await
                .map_err(|_| BusError::Closed)?;
            requests.push((Arc::new(endpoint), subscription));
        }
        let mut questions = Vec::new();
        for subject in micro.subjects() {
            wanted.push(subject.clone());
            questions.push(client.subscribe(subject).await.map_err(|_| BusError::Closed)?);
        }
        bus.prove_live().await?;
        if let Some(subject) = wanted
            .into_iter()
            .find(|subject| bus.inner.link.refused_since(seen, subject))
        {
            return Err(BusError::Permission {
                name: bus.inner.name.clone(),
                subject,
            });
        }

        let serving = Serving {
            name,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        info!(service = name, instance = %micro.id, methods = requests.len(), "{name} serves {} methods", requests.len());
        for (endpoint, subscription) in requests {
            let (bus, stop, tasks) = (bus.clone(), serving.stop.clone(), serving.tasks.clone());
            serving
                .tasks
                .spawn(receive(bus, endpoint, subscription, stop, tasks));
        }
        serving
            .tasks
            .spawn(discover(bus, micro, questions, serving.stop.clone()));
        serving.tasks.close();
        Ok(serving)
    }
}

impl Serving {
    /// Takes no more requests and waits for those that run; each ends at its deadline at the latest.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.wait().await;
        debug!(service = self.name, "{} has stopped", self.name);
    }

    /// Ends when the service stopped taking requests.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Hands each message to a task of its own.
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
                format!("{} has all the work it can do", endpoint.service),
            );
            endpoint.counters.count(Duration::ZERO, Some(&fault));
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
        reply,
        payload,
        headers,
        ..
    } = message;
    let clock = &bus.inner.clock;
    let deadline = header::deadline(headers.as_ref()).unwrap_or_else(|| clock.now().after(endpoint.timeout));
    let left = deadline.since(clock.now());
    if left.is_zero() {
        let late = Fault::new(
            Code::ServiceTimeout,
            "the deadline had passed before the work began",
        );
        endpoint.counters.count(Duration::ZERO, Some(&late));
        debug!(
            rpc.service = endpoint.service,
            rpc.method = endpoint.name,
            "dropped a request whose deadline had passed"
        );
        return;
    }
    let span = info_span!(
        "rpc", otel.kind = "server", otel.name = %format_args!("{}.{}", endpoint.service, endpoint.name),
        rpc.service = endpoint.service, rpc.method = endpoint.name, outcome = Empty
    );
    trace::adopt(&span, headers.as_ref());
    async {
        let began = Instant::now();
        let work = run(bus, endpoint, payload, headers.as_ref(), deadline);
        let outcome = match tokio::time::timeout(
            left,
            AssertUnwindSafe(DEADLINE.scope(deadline, work)).catch_unwind(),
        )
        .await
        {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panic)) => Err(panicked(endpoint, panic.as_ref())),
            Err(_) => Err(Fault::new(
                Code::ServiceTimeout,
                format!(
                    "{}.{} did not finish before the caller's deadline",
                    endpoint.service, endpoint.name
                ),
            )),
        };
        let fault = answer(bus, endpoint, reply, outcome).await;
        endpoint.counters.count(began.elapsed(), fault.as_ref());
        Span::current().record("outcome", fault.as_ref().map_or("ok", |fault| &fault.code));
    }
    .instrument(span)
    .await;
}

async fn run(
    bus: &Bus,
    endpoint: &Endpoint,
    payload: Bytes,
    headers: Option<&HeaderMap>,
    deadline: Timestamp,
) -> Result<Bytes, Fault> {
    let caller = match (endpoint.access, endpoint.place) {
        (Access::Service, Place::Service) => None,
        // A launch may outlast the token of who asked for it, so one that has ended is no refusal.
        (Access::Service, Place::Host) => identify(bus, Access::Service, headers).await.ok(),
        (Access::User | Access::Admin, _) => Some(identify(bus, endpoint.access, headers).await?),
    };
    let key = header::text(headers, header::KEY).map(Key::new);
    (endpoint.handler)(Request {
        payload,
        caller,
        key,
        deadline,
    })
    .await
}

/// Who the request is made for, if they may make it.
async fn identify(bus: &Bus, access: Access, headers: Option<&HeaderMap>) -> Result<Caller, Fault> {
    let token = header::text(headers, header::IDENTITY)
        .ok_or_else(|| Fault::new(Code::AuthUnauthorized, "the request names no caller"))?;
    let verifier = bus
        .verifier
        .as_ref()
        .ok_or_else(|| Fault::new(Code::AuthUnauthorized, "this service cannot tell who calls"))?;
    let identity = verifier.verify(token).await?;
    if access == Access::Admin && !identity.may(Scope::Admin) {
        return Err(lacks(Scope::Admin));
    }
    Ok(Caller {
        identity,
        token: AccessToken::new(token.to_owned()),
    })
}

/// Sends the outcome; gives back the fault that was sent, which a reply too large becomes, too.
async fn answer(
    bus: &Bus,
    endpoint: &Endpoint,
    reply: Option<async_nats::Subject>,
    outcome: Result<Bytes, Fault>,
) -> Option<Fault> {
    let Some(reply) = reply else {
        warn!(
            rpc.service = endpoint.service,
            rpc.method = endpoint.name,
            "a request on {} names no place to answer",
            endpoint.subject
        );
        return outcome.err();
    };
    let fault = match outcome {
        Ok(body) => match bus.send(reply.clone(), None, body).await {
            Ok(()) => return None,
            Err(BusError::TooLarge { size, limit, .. }) => Fault::new(
                Code::OpPayloadTooLarge,
                format!(
                    "the answer of {}.{} has {size} bytes, the bus takes {limit}",
                    endpoint.service, endpoint.name
                ),
            ),
            Err(error) => Fault::of(&error),
        },
        Err(fault) => fault,
    };
    let mut headers = HeaderMap::new();
    let line: String = fault
        .message
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(512)
        .collect();
    headers.insert(header::SERVICE_ERROR, line);
    headers.insert(header::SERVICE_ERROR_CODE, fault.entry().http_status.to_string());
    let body = wire::encode(&fault).unwrap_or_default();
    if let Err(error) = bus.send(reply, Some(headers), body).await {
        warn!(
            rpc.service = endpoint.service,
            rpc.method = endpoint.name,
            "could not answer on {}: {error}",
            endpoint.subject
        );
    }
    Some(fault)
}

fn panicked(endpoint: &Endpoint, panic: &(dyn std::any::Any + Send)) -> Fault {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    error!(
        rpc.service = endpoint.service,
        rpc.method = endpoint.name,
        "the handler of {} panicked: {}",
        endpoint.subject,
        text.unwrap_or("(no text)")
    );
    Fault::new(Code::ServiceInternal, Code::ServiceInternal.entry().meaning)
}

/// Answers discovery.
async fn discover(bus: Bus, micro: Micro, subscriptions: Vec<Subscriber>, stop: CancellationToken) {
    let mut questions = futures::stream::select_all(subscriptions);
    loop {
        let question = tokio::select! {
            question = questions.next() => question,
            () = stop.cancelled() => return,
        };
        let Some(question) = question else { return };
        if let (Some(reply), Some(body)) = (question.reply.clone(), micro.answer(&question))
            && let Err(error) = bus.send(reply, None, body).await
        {
            debug!(service = micro.name, "could not answer discovery: {error}");
        }
    }
}
