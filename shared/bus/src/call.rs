//! Calling a method.

use std::future::IntoFuture;
use std::marker::PhantomData;
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use futures::future::BoxFuture;
use nimbus_errors::{Code, Fault};
use nimbus_model::{Hostname, Timestamp};
use tracing::field::Empty;
use tracing::{Instrument, Span, info_span};

use crate::bus::Bus;
use crate::caller::{AccessToken, Caller, Key};
use crate::error::BusError;
use crate::exchange::{Question, Repeat};
use crate::method::{Method, Place, Retry};
use crate::{header, trace, wire};

/// Share of the limit that is kept for the way back, so that the server's own "too late" is heard.
const WAY_BACK: u32 = 20;
/// The most that is kept for it.
const WAY_BACK_MOST: Duration = Duration::from_millis(50);

tokio::task_local! {
    /// When the caller of the handler that runs in this task stops waiting. Calls made by the
    /// handler in the same task do not outlive it.
    pub(crate) static DEADLINE: Timestamp;
}

/// A call that is sent when awaited.
#[must_use = "a call does nothing until it is awaited"]
pub struct Call<M: Method> {
    bus: Bus,
    body: Result<Bytes, Fault>,
    key: Option<Key>,
    token: Option<AccessToken>,
    limit: Duration,
    host: Option<Hostname>,
    method: PhantomData<fn() -> M>,
}

impl<M: Method> Call<M> {
    pub(crate) fn new(bus: Bus, request: &M::Request) -> Self {
        let body = wire::encode(request).map_err(|source| {
            Fault::of(&BusError::Encode {
                subject: M::subject(),
                source: Box::new(source),
            })
        });
        Self {
            bus,
            body,
            key: None,
            token: None,
            limit: M::TIMEOUT,
            host: None,
            method: PhantomData,
        }
    }

    /// Names what makes a repeat of this request the same request.
    pub fn key(mut self, key: Key) -> Self {
        self.key = Some(key);
        self
    }

    /// Calls for a person, with the token that came with their request.
    pub fn on_behalf_of(self, caller: &Caller) -> Self {
        self.with_token(&caller.token)
    }

    /// Calls for the person this token stands for.
    pub fn with_token(mut self, token: &AccessToken) -> Self {
        self.token = Some(token.clone());
        self
    }

    /// Names the host that is to answer. A method of a service cannot be called like this; that does
    /// not compile.
    pub fn at(mut self, host: &Hostname) -> Self {
        const {
            assert!(
                matches!(M::PLACE, Place::Host),
                "only methods of agents are answered by one host"
            );
        }
        self.host = Some(host.clone());
        self
    }

    /// Waits less long than the method allows; longer is not possible.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.limit = self.limit.min(limit);
        self
    }

    async fn run(self) -> Result<M::Reply, Fault> {
        let clock = &self.bus.inner.clock;
        let inherited = DEADLINE
            .try_with(|deadline| deadline.since(clock.now()))
            .unwrap_or(Duration::MAX);
        let limit = self.limit.min(inherited);
        let subject = match (M::PLACE, &self.host) {
            (Place::Service, _) => M::subject(),
            (Place::Host, Some(host)) => M::subject_at(host),
            (Place::Host, None) => {
                return Err(Fault::new(
                    Code::ServiceInternal,
                    format!(
                        "{}.{} is answered by one host, and the call names none",
                        M::SERVICE,
                        M::NAME
                    ),
                ));
            }
        };
        let question = Question {
            headers: headers(
                self.key.as_ref(),
                self.token.as_ref(),
                clock.now().after(limit - way_back(limit)),
            )
            .map_err(|error| Fault::new(Code::OpInvalidInput, error.to_string()))?,
            payload: self.body?,
            repeat: if M::RETRY == Retry::Never {
                Repeat::Never
            } else {
                Repeat::Harmless
            },
            limit,
            subject: subject.as_str().into(),
        };
        let message = self
            .bus
            .ask(&question)
            .await
            .map_err(|error| fault_of::<M>(self.host.as_ref(), &error))?;
        if header::text(message.headers.as_ref(), header::SERVICE_ERROR_CODE).is_some() {
            return Err(
                wire::decode(&message.payload).unwrap_or_else(|error| mismatch(&subject, "fault", &error))
            );
        }
        wire::decode(&message.payload).map_err(|error| mismatch(&subject, "reply", &error))
    }
}

impl<M: Method> IntoFuture for Call<M> {
    type Output = Result<M::Reply, Fault>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let span = info_span!(
            "rpc", otel.kind = "client", otel.name = %format_args!("{}.{}", M::SERVICE, M::NAME),
            rpc.service = M::SERVICE, rpc.method = M::NAME, outcome = Empty
        );
        Box::pin(
            async move {
                let outcome = self.run().await;
                Span::current().record(
                    "outcome",
                    outcome.as_ref().err().map_or("ok", |fault| &fault.code),
                );
                outcome
            }
            .instrument(span),
        )
    }
}

fn way_back(limit: Duration) -> Duration {
    (limit / WAY_BACK).min(WAY_BACK_MOST)
}

fn headers(
    key: Option<&Key>,
    token: Option<&AccessToken>,
    deadline: Timestamp,
) -> Result<HeaderMap, BusError> {
    let mut headers = HeaderMap::new();
    headers.insert(header::DEADLINE, deadline.micros().to_string());
    if let Some(key) = key {
        header::put(&mut headers, header::KEY, key.as_str())?;
    }
    if let Some(token) = token {
        // Never through `put`, whose error quotes the text.
        let value = token.reveal().parse().map_err(|_| BusError::Invalid {
            text: "the access token".to_owned(),
            wanted: "one line",
        })?;
        headers.insert::<_, async_nats::HeaderValue>(header::IDENTITY, value);
    }
    trace::inject(&Span::current(), &mut headers);
    Ok(headers)
}

fn fault_of<M: Method>(host: Option<&Hostname>, error: &BusError) -> Fault {
    let place = || host.map_or_else(String::new, |host| format!(" of {host}"));
    match error {
        BusError::Unavailable { .. } => Fault::new(
            Code::ServiceUnavailable,
            format!("the service {}{} is not running", M::SERVICE, place()),
        ),
        BusError::Timeout { limit_ms, .. } => Fault::new(
            Code::ServiceTimeout,
            format!(
                "{}.{}{} did not answer within {limit_ms} ms",
                M::SERVICE,
                M::NAME,
                place()
            ),
        ),
        other => Fault::of(other),
    }
}

fn mismatch(subject: &str, what: &str, error: &wire::DecodeError) -> Fault {
    Fault::new(
        Code::BusSchemaMismatch,
        format!("the {what} on {subject} is of another version: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_with_a_line_break_is_refused_without_being_shown() {
        let token = AccessToken::new("secret\r\nNimbus-Key: x".to_owned());
        let error = headers(None, Some(&token), Timestamp::from_micros(1)).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn the_way_back_is_small() {
        assert_eq!(way_back(Duration::from_secs(60)), WAY_BACK_MOST);
        assert_eq!(way_back(Duration::from_millis(100)), Duration::from_millis(5));
    }
}
