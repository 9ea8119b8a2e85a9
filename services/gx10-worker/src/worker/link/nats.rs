//! The bus: requests on the worker's own subjects, and its consumer of assignments.

use std::path::Path;
use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event, HeaderMap, Message, Request, StatusCode};
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures::StreamExt;
use nimbus_gpu_wire::{Assignment, Beat, BeatReply, ChunkAck, FinishAck, OFFSET_HEADER, Outcome, subject};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::{Kind, Link, LinkError, Offer};
use crate::config::Config;

pub(super) const NAME: &str = "nats";

/// Twice within the silence after which a worker counts as silent, so that the second can go over HTTP.
const BEAT: Duration = Duration::from_secs(3);
const SEND: Duration = Duration::from_secs(15);
/// How long the server holds a question for a job.
const PULL: Duration = Duration::from_secs(20);
/// On top of that, for the answer to arrive.
const PULL_GRACE: Duration = Duration::from_secs(3);
/// A connection that says nothing for this long is asked whether it is there.
const PING: Duration = Duration::from_secs(5);
const RECONNECT_LONGEST: Duration = Duration::from_secs(5);

/// Headers of the NATS services API that mark an answer as a failure.
const ERROR: &str = "Nats-Service-Error";
const ERROR_CODE: &str = "Nats-Service-Error-Code";

pub(super) struct Nats {
    client: Client,
    worker: String,
    connected: watch::Receiver<bool>,
}

/// What acknowledges an assignment.
pub(super) struct Receipt {
    client: Client,
    subject: async_nats::Subject,
}

impl Receipt {
    #[expect(
        clippy::disallowed_methods,
        reason = "the worker has no nimbus_bus, which carries a server"
    )]
    pub(super) async fn acknowledge(self) {
        // A request, so that the server has it when this returns: else the next pull finds nothing,
        // because one assignment at most may be open.
        if let Err(error) = self
            .client
            .request(self.subject, Bytes::from_static(b"+ACK"))
            .await
        {
            warn!("an assignment could not be acknowledged: {error}");
        }
    }
}

impl Nats {
    pub(super) async fn open(
        config: &Config,
        url: &str,
        credentials: &Path,
        told: mpsc::Sender<BeatReply>,
    ) -> Result<Self, LinkError> {
        let unusable = |detail: String| LinkError::Away { link: NAME, detail };
        let text = std::fs::read_to_string(credentials)
            .map_err(|error| unusable(format!("{}: {error}", credentials.display())))?;
        let inbox = inbox_prefix(&text).unwrap_or_else(|| format!("_INBOX_{}", config.worker_id));
        let (report, connected) = watch::channel(false);
        let mut options = ConnectOptions::with_credentials(&text)
            .map_err(|error| unusable(format!("{}: {error}", credentials.display())))?
            .name(format!("gx10-worker {}", config.worker_id))
            .custom_inbox_prefix(inbox)
            .retry_on_initial_connect()
            .max_reconnects(None)
            .ping_interval(PING)
            .request_timeout(Some(SEND))
            .reconnect_delay_callback(|attempt| {
                let millis = 100u64.saturating_mul(1 << attempt.min(10));
                Duration::from_millis(millis).min(RECONNECT_LONGEST)
            })
            .event_callback(move |event| {
                note(&event, &report);
                std::future::ready(())
            });
        if let Some(ca) = &config.bus_ca {
            options = options.add_root_certificates(ca.clone());
        }
        let client = options
            .connect(url)
            .await
            .map_err(|error| unusable(error.to_string()))?;
        let nats = Self {
            client,
            worker: bus_name(&text).unwrap_or_else(|| config.worker_id.clone()),
            connected,
        };
        nats.listen(told).await?;
        Ok(nats)
    }

    /// Passes on what the server says between beats.
    async fn listen(&self, told: mpsc::Sender<BeatReply>) -> Result<(), LinkError> {
        let mut messages = self
            .client
            .subscribe(subject::control(&self.worker))
            .await
            .map_err(|error| LinkError::Away {
                link: NAME,
                detail: error.to_string(),
            })?;
        tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                match serde_json::from_slice(&message.payload) {
                    Ok(reply) => {
                        if told.send(reply).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => warn!("what the server said cannot be read: {error}"),
                }
            }
        });
        Ok(())
    }

    pub(super) fn is_connected(&self) -> bool {
        *self.connected.borrow() && self.client.connection_state() == State::Connected
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        payload: Bytes,
        limit: Duration,
    ) -> Result<T, LinkError> {
        let mut request = Request::new().payload(payload).timeout(Some(limit));
        if let Some(headers) = headers {
            request = request.headers(headers);
        }
        let mut connected = self.connected.clone();
        let answered = tokio::select! {
            answered = self.client.send_request(subject, request) => answered,
            // The answer to what was sent before will not come on the next connection.
            _ = connected.wait_for(|up| !up) => return Err(away("the connection was lost")),
        };
        let message = answered.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => away("nobody answers there"),
            _ => away(&error.to_string()),
        })?;
        read(&message)
    }

    /// The next message for the worker's consumer.
    async fn pull(&self) -> Result<Option<Message>, LinkError> {
        let inbox = self.client.new_inbox();
        let mut answers = self
            .client
            .subscribe(inbox.clone())
            .await
            .map_err(|error| away(&error.to_string()))?;
        let question =
            serde_json::json!({ "batch": 1, "expires": u64::try_from(PULL.as_nanos()).unwrap_or(0) });
        self.client
            .publish_with_reply(
                subject::next_job(&self.worker),
                inbox,
                Bytes::from(question.to_string()),
            )
            .await
            .map_err(|error| away(&error.to_string()))?;
        let mut connected = self.connected.clone();
        let message = tokio::select! {
            message = tokio::time::timeout(PULL + PULL_GRACE, answers.next()) => message,
            _ = connected.wait_for(|up| !up) => return Err(away("the connection was lost")),
        };
        let message = match message {
            Ok(Some(message)) => message,
            Ok(None) => return Err(away("the subscription ended")),
            Err(_) => return Err(away("a question for a job was not answered")),
        };
        match message.status {
            None | Some(StatusCode::OK) => Ok(Some(message)),
            // Nothing came in time.
            Some(StatusCode::NOT_FOUND | StatusCode::TIMEOUT) => Ok(None),
            Some(status) => Err(away(&format!(
                "no jobs from the stream: {status} {}",
                message.description.unwrap_or_default()
            ))),
        }
    }
}

fn away(detail: &str) -> LinkError {
    LinkError::Away {
        link: NAME,
        detail: detail.to_owned(),
    }
}

fn note(event: &Event, connected: &watch::Sender<bool>) {
    match event {
        Event::Connected => {
            info!("connected to the bus");
            connected.send_replace(true);
        }
        Event::Disconnected | Event::Closed => {
            info!("the connection to the bus is lost");
            connected.send_replace(false);
        }
        other => warn!("bus: {other}"),
    }
}

fn read<T: DeserializeOwned>(message: &Message) -> Result<T, LinkError> {
    let header = |name: &str| {
        let headers = message.headers.as_ref()?;
        headers.get(name).map(|value| value.as_str().to_owned())
    };
    if let Some(detail) = header(ERROR) {
        let status = header(ERROR_CODE)
            .and_then(|code| code.parse().ok())
            .unwrap_or(500);
        return Err(LinkError::of_status(NAME, status, detail));
    }
    serde_json::from_slice(&message.payload)
        .map_err(|error| away(&format!("the answer cannot be read: {error}")))
}

fn json<T: serde::Serialize>(message: &T) -> Bytes {
    serde_json::to_vec(message)
        .expect("the messages have no maps with odd keys")
        .into()
}

#[async_trait]
impl Link for Nats {
    async fn beat(&self, beat: &Beat) -> Result<BeatReply, LinkError> {
        self.ask(subject::beat(&self.worker), None, json(beat), BEAT)
            .await
    }

    async fn next(&self) -> Result<Option<Offer>, LinkError> {
        let Some(message) = self.pull().await? else {
            return Ok(None);
        };
        let assignment: Assignment = serde_json::from_slice(&message.payload)
            .map_err(|error| away(&format!("an assignment cannot be read: {error}")))?;
        let receipt = message.reply.map(|subject| Receipt {
            client: self.client.clone(),
            subject,
        });
        Ok(Some(Offer { assignment, receipt }))
    }

    async fn chunk(&self, kind: Kind, job: &str, offset: u64, bytes: Bytes) -> Result<ChunkAck, LinkError> {
        let mut headers = HeaderMap::new();
        headers.insert(OFFSET_HEADER, offset.to_string());
        let subject = match kind {
            Kind::Log => subject::log(&self.worker, job),
            Kind::Artifact => subject::artifact(&self.worker, job),
        };
        self.ask(subject, Some(headers), bytes, SEND).await
    }

    async fn finish(&self, job: &str, outcome: &Outcome) -> Result<FinishAck, LinkError> {
        self.ask(subject::finish(&self.worker, job), None, json(outcome), SEND)
            .await
    }
}

/// What a credential allows.
#[derive(Deserialize)]
struct Rights {
    #[serde(default, rename = "pub")]
    says: Allowed,
    #[serde(default, rename = "sub")]
    hears: Allowed,
}

#[derive(Default, Deserialize)]
struct Allowed {
    #[serde(default)]
    allow: Vec<String>,
}

fn rights(credentials: &str) -> Option<Rights> {
    #[derive(Deserialize)]
    struct Claims {
        nats: Rights,
    }
    let token = credentials.lines().find(|line| line.starts_with("eyJ"))?;
    let claims = URL_SAFE_NO_PAD.decode(token.trim().split('.').nth(1)?).ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    Some(claims.nats)
}

/// The inbox that a credential allows: each has one of its own, so that nobody reads others' answers.
fn inbox_prefix(credentials: &str) -> Option<String> {
    let allowed = rights(credentials)?.hears.allow;
    allowed.iter().find_map(|subject| {
        subject
            .strip_suffix(".>")
            .filter(|prefix| prefix.starts_with("_INBOX"))
            .map(str::to_owned)
    })
}

/// What the bus calls this box since it was paired: the name for which it may beat.
fn bus_name(credentials: &str) -> Option<String> {
    let allowed = rights(credentials)?.says.allow;
    let prefix = subject::beat("");
    allowed
        .iter()
        .find_map(|subject| subject.strip_prefix(prefix.as_str()).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inbox_and_name_are_those_that_the_credential_allows() {
        let claims = URL_SAFE_NO_PAD.encode(
            r#"{"sub":"U","nats":{"type":"user","pub":{"allow":["x","nimbus.v1.gpu.beat.a-1"]},"sub":{"allow":["nimbus.v1.gpu.control.a-1","_INBOX_worker-a.>"]}}}"#,
        );
        let text =
            format!("-----BEGIN NATS USER JWT-----\neyJ0.{claims}.sig\n------END NATS USER JWT------\n");
        assert_eq!(inbox_prefix(&text).as_deref(), Some("_INBOX_worker-a"));
        assert_eq!(bus_name(&text).as_deref(), Some("a-1"));
        assert_eq!((inbox_prefix("nothing"), bus_name("nothing")), (None, None));
    }
}
