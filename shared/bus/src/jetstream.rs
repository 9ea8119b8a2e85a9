//! What the server keeps: the streams, and asking its storage.
//!
//! The requests are written out here rather than made through the client library's types, because
//! each of those asks for more than it needs (`STREAM.INFO` before every use), and every subject
//! asked for is a right that every service must hold.

use std::sync::PoisonError;
use std::time::Duration;

use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::info;

use crate::bus::Bus;
use crate::error::BusError;
use crate::exchange::{Question, Repeat};

/// The stream of domain events.
pub(crate) const EVENTS: &str = "EVENTS";
/// The key-value bucket of leases.
pub(crate) const LEASES: &str = "leases";
/// The stream underneath it.
pub(crate) const LEASES_STREAM: &str = "KV_leases";
/// The consumer that every worker of a queue shares.
pub(crate) const WORKERS: &str = "workers";

/// How long storing or asking may take: a server that restarts meanwhile is back well before.
pub(crate) const STORAGE_LIMIT: Duration = Duration::from_secs(10);
/// Repeats of a message id within this are one message.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(600);
/// A queue holds at most this; more is refused, never dropped.
const WORK_MAX_BYTES: u64 = 256 << 20;
/// Pause before asking again a server whose storage is still coming up.
const STORAGE_PAUSE: Duration = Duration::from_millis(50);

/// nats-server: the stream exists with another configuration.
const EXISTS_DIFFERENTLY: u64 = 10058;
/// nats-server: the subject's last sequence is not the expected one.
pub(crate) const WRONG_LAST_SEQUENCE: u64 = 10071;

/// The stream of a work queue.
pub(crate) fn work_stream(queue: &str) -> String {
    format!("WORK_{}", queue.replace('.', "_"))
}

/// How much of the events is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamSettings {
    /// Copies of every stream: 1 on a single server, 3 in a cluster.
    pub replicas: u8,
    /// The oldest event that is kept.
    pub events_max_age: Duration,
    /// The most bytes of events that are kept; the oldest go first.
    pub events_max_bytes: u64,
}

impl Default for StreamSettings {
    fn default() -> Self {
        Self {
            replicas: 1,
            events_max_age: Duration::from_secs(7 * 24 * 3600),
            events_max_bytes: 256 << 20,
        }
    }
}

/// What storing a message gives.
#[derive(Debug, Deserialize)]
pub(crate) struct Stored {
    #[serde(rename = "seq")]
    pub sequence: u64,
}

/// The part of a stream's state that followers need.
#[derive(Debug, Deserialize)]
pub(crate) struct StreamInfo {
    pub state: StreamState,
}

#[derive(Debug, Deserialize)]
pub(crate) struct StreamState {
    pub first_seq: u64,
    pub last_seq: u64,
}

#[derive(Deserialize)]
struct Answer {
    error: Option<AnswerError>,
}

#[derive(Deserialize)]
struct AnswerError {
    code: u16,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

impl Bus {
    /// Makes sure that the stream of events exists. One that exists stays as it is. Queues and the
    /// bucket of leases are made on first use, by those who may use them.
    ///
    /// # Errors
    /// A server without JetStream, or a credential without the right.
    pub async fn ensure_streams(&self) -> Result<(), BusError> {
        self.ensure_events().await
    }

    /// Makes the stream of events and the bucket of leases, or changes them to these settings. For
    /// the process that administers the bus: services have no right to alter a stream.
    ///
    /// # Errors
    /// A server without JetStream, or a credential without the right.
    pub async fn configure_streams(&self, settings: &StreamSettings) -> Result<(), BusError> {
        for (name, config) in [
            (EVENTS, events_config(settings)),
            (LEASES_STREAM, leases_config(settings.replicas)),
        ] {
            if !self.create_stream(name, &config).await? {
                self.storage::<Value>(&format!("$JS.API.STREAM.UPDATE.{name}"), &config)
                    .await?;
            }
        }
        Ok(())
    }

    pub(crate) async fn ensure_events(&self) -> Result<(), BusError> {
        self.ensure(EVENTS, &events_config(&StreamSettings::default()))
            .await
    }

    pub(crate) async fn ensure_leases(&self) -> Result<(), BusError> {
        self.ensure(LEASES_STREAM, &leases_config(1)).await
    }

    pub(crate) async fn ensure_queue(&self, queue: &str, subject: &str) -> Result<(), BusError> {
        let name = work_stream(queue);
        let config = json!({
            "name": name, "description": "Durable work of Nimbus", "subjects": [subject],
            "retention": "workqueue", "storage": "file", "discard": "new",
            "max_msgs": -1, "max_bytes": WORK_MAX_BYTES, "max_consumers": -1, "num_replicas": 1,
            "duplicate_window": nanos(DUPLICATE_WINDOW)
        });
        self.ensure(&name, &config).await
    }

    pub(crate) async fn ensure(&self, name: &str, config: &Value) -> Result<(), BusError> {
        if self
            .inner
            .ensured
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(name)
        {
            return Ok(());
        }
        if !self.create_stream(name, config).await? {
            info!(
                bus.stream = name,
                "the stream {name} exists with settings of its own, which stay"
            );
        }
        self.inner
            .ensured
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned());
        Ok(())
    }

    /// Forgets that a stream was made sure of, after the server has said that it is not there.
    pub(crate) fn forget(&self, name: &str) {
        self.inner
            .ensured
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
    }

    /// Whether the stream has this configuration now; `false` if it exists with another.
    async fn create_stream(&self, name: &str, config: &Value) -> Result<bool, BusError> {
        match self
            .storage::<Value>(&format!("$JS.API.STREAM.CREATE.{name}"), config)
            .await
        {
            Ok(_) => Ok(true),
            Err(BusError::Storage {
                code: EXISTS_DIFFERENTLY,
                ..
            }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Asks the server's storage.
    pub(crate) async fn storage<T: DeserializeOwned>(
        &self,
        subject: &str,
        request: &Value,
    ) -> Result<T, BusError> {
        let payload = if request.is_null() {
            Bytes::new()
        } else {
            Bytes::from(request.to_string())
        };
        self.stored(subject, HeaderMap::new(), payload, STORAGE_LIMIT)
            .await
    }

    /// Sends a message that the server stores or answers with JSON, and reads that answer. The
    /// message may be sent again, so it must be one whose repeat is harmless.
    pub(crate) async fn stored<T: DeserializeOwned>(
        &self,
        subject: &str,
        headers: HeaderMap,
        payload: Bytes,
        limit: Duration,
    ) -> Result<T, BusError> {
        let deadline = Instant::now() + limit;
        loop {
            let limit = deadline.saturating_duration_since(Instant::now());
            let question = Question {
                subject: subject.into(),
                headers: headers.clone(),
                payload: payload.clone(),
                repeat: Repeat::Harmless,
                limit,
            };
            let message = self.ask(&question).await?;
            match read(subject, &message) {
                // The server is up, but not its storage, or a cluster has no leader for the moment.
                Err(BusError::Storage { code, .. })
                    if is_passing(code) && Instant::now() + STORAGE_PAUSE < deadline =>
                {
                    tokio::time::sleep(STORAGE_PAUSE).await;
                }
                other => return other,
            }
        }
    }
}

/// Errors of nats-server that pass by themselves: cluster not available (10008), insufficient
/// resources while electing (10023), stream offline (10118), and the unnumbered 503.
fn is_passing(code: u64) -> bool {
    matches!(code, 503 | 10008 | 10023 | 10118)
}

fn read<T: DeserializeOwned>(subject: &str, message: &Message) -> Result<T, BusError> {
    let decode = |source: serde_json::Error| BusError::Decode {
        subject: subject.to_owned(),
        source: Box::new(source),
    };
    let answer: Answer = serde_json::from_slice(&message.payload).map_err(decode)?;
    if let Some(AnswerError {
        code,
        err_code,
        description,
    }) = answer.error
    {
        let code = if err_code == 0 { u64::from(code) } else { err_code };
        return Err(BusError::Storage {
            subject: subject.to_owned(),
            code,
            description,
        });
    }
    serde_json::from_slice(&message.payload).map_err(decode)
}

fn events_config(settings: &StreamSettings) -> Value {
    json!({
        "name": EVENTS, "description": "What has happened in Nimbus, as CloudEvents", "subjects": ["nimbus.v1.event.>"],
        "retention": "limits", "storage": "file", "discard": "old",
        "max_age": nanos(settings.events_max_age), "max_bytes": settings.events_max_bytes,
        "max_msgs": -1, "max_consumers": -1, "num_replicas": settings.replicas,
        "duplicate_window": nanos(DUPLICATE_WINDOW), "allow_direct": true
    })
}

/// As the NATS key-value store lays out a bucket (NATS ADR-8), with a time to live per key.
fn leases_config(replicas: u8) -> Value {
    json!({
        "name": LEASES_STREAM, "description": "Who does what only one may do", "subjects": [format!("$KV.{LEASES}.>")],
        "retention": "limits", "storage": "file", "discard": "new", "max_msgs_per_subject": 1,
        "max_msgs": -1, "max_bytes": 16 << 20, "max_consumers": -1, "num_replicas": replicas,
        "allow_rollup_hdrs": true, "deny_delete": true, "allow_direct": true, "allow_msg_ttl": true
    })
}

pub(crate) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// What the reply subject of a delivered message tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    /// How often it was delivered, this time included.
    pub times: u64,
    /// Its place in the stream.
    pub stream: u64,
    /// Its place among what the consumer has delivered.
    pub consumer: u64,
}

impl Delivery {
    /// Reads `$JS.ACK.<stream>.<consumer>.<times>.<stream seq>.<consumer seq>.<time>.<pending>`, or the
    /// longer form with domain and account before the stream (NATS ADR-15).
    pub(crate) fn of(message: &Message) -> Option<Self> {
        let reply = message.reply.as_ref()?;
        let skip = match reply.split('.').count() {
            9 => 4,
            11.. => 6,
            _ => return None,
        };
        let mut numbers = reply.split('.').skip(skip).map(str::parse);
        let mut number = || numbers.next()?.ok();
        Some(Self {
            times: number()?,
            stream: number()?,
            consumer: number()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(reply: &str) -> Message {
        Message {
            subject: "s".into(),
            reply: Some(reply.into()),
            payload: Bytes::new(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        }
    }

    #[test]
    fn both_forms_of_the_reply_subject_are_read() {
        let wanted = Some(Delivery {
            times: 2,
            stream: 40,
            consumer: 7,
        });
        assert_eq!(
            Delivery::of(&message("$JS.ACK.EVENTS.c1.2.40.7.1700000000.0")),
            wanted
        );
        assert_eq!(
            Delivery::of(&message("$JS.ACK._.hash.EVENTS.c1.2.40.7.1700000000.0")),
            wanted
        );
        assert_eq!(
            Delivery::of(&message("$JS.ACK.EVENTS.c1.2.x.7.1700000000.0")),
            None
        );
        assert_eq!(Delivery::of(&message("_INBOX_a.b")), None);
    }
}
