//! The worker routes of Nimbus' HTTP interface.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use nimbus_gpu_wire::{
    Assignment, Beat, BeatReply, ChunkAck, FinishAck, OFFSET_HEADER, Outcome, PROTOCOL, StatusReport,
    WORKER_HEADER,
};
use reqwest::{Certificate, Client, RequestBuilder, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;

use super::{Kind, Link, LinkError, Offer};
use crate::config::Config;

pub(super) const NAME: &str = "http";

const CONNECT: Duration = Duration::from_secs(5);
/// Less than the silence after which a worker counts as silent.
const BEAT: Duration = Duration::from_secs(5);
/// The server answers after 20 s at most when there is no job.
const CLAIM: Duration = Duration::from_secs(30);
const SEND: Duration = Duration::from_secs(30);

/// Header that says how much of the protocol the worker knows.
const PROTOCOL_HEADER: &str = "Nimbus-Protocol";

pub(super) struct Http {
    client: Client,
    base: String,
    worker: String,
    token: SecretString,
}

impl Http {
    pub(super) fn new(config: &Config) -> Result<Self, LinkError> {
        let unusable = |detail: String| LinkError::Away { link: NAME, detail };
        let mut builder = Client::builder()
            .connect_timeout(CONNECT)
            .user_agent(concat!("gx10-worker/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &config.ca_file {
            let pem =
                std::fs::read(path).map_err(|error| unusable(format!("{}: {error}", path.display())))?;
            let authorities =
                Certificate::from_pem_bundle(&pem).map_err(|error| unusable(error.to_string()))?;
            builder = builder.tls_certs_only(authorities);
        } else if config.nimbus_url.starts_with("http://") {
            // A box without any authorities would get no client at all.
            builder = builder.tls_certs_only([]);
        }
        Ok(Self {
            client: builder.build().map_err(|error| unusable(error.to_string()))?,
            base: format!("{}/api/gpu/worker", config.nimbus_url),
            worker: config.worker_id.clone(),
            token: config.worker_token.clone(),
        })
    }

    fn post(&self, path: &str, limit: Duration) -> RequestBuilder {
        self.client
            .post(format!("{}/{path}", self.base))
            .bearer_auth(self.token.expose_secret())
            .header(WORKER_HEADER, &self.worker)
            .header(PROTOCOL_HEADER, PROTOCOL)
            .timeout(limit)
    }

    fn post_json<T: serde::Serialize>(&self, path: &str, limit: Duration, body: &T) -> RequestBuilder {
        let body = serde_json::to_vec(body).expect("the messages have no maps with odd keys");
        self.post(path, limit)
            .header("content-type", "application/json")
            .body(body)
    }
}

/// The answer, if it is a good one.
async fn answer(request: RequestBuilder) -> Result<Response, LinkError> {
    let response = request.send().await.map_err(|error| away(&error))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = response.text().await.unwrap_or_default();
    let detail = body.chars().take(400).collect();
    Err(LinkError::of_status(NAME, status.as_u16(), detail))
}

async fn read<T: DeserializeOwned>(response: Response) -> Result<T, LinkError> {
    let bytes = response.bytes().await.map_err(|error| away(&error))?;
    serde_json::from_slice(&bytes).map_err(|error| LinkError::Away {
        link: NAME,
        detail: format!("the answer cannot be read: {error}"),
    })
}

/// An error with its causes: the first of them alone says little.
fn away(error: &reqwest::Error) -> LinkError {
    let mut detail = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        detail = format!("{detail}: {inner}");
        cause = inner.source();
    }
    LinkError::Away { link: NAME, detail }
}

#[async_trait]
impl Link for Http {
    async fn beat(&self, beat: &Beat) -> Result<BeatReply, LinkError> {
        read(answer(self.post_json("beat", BEAT, beat)).await?).await
    }

    async fn next(&self) -> Result<Option<Offer>, LinkError> {
        let response = answer(self.post("claim", CLAIM)).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let assignment: Assignment = read(response).await?;
        Ok(Some(Offer {
            assignment,
            receipt: None,
        }))
    }

    async fn chunk(&self, kind: Kind, job: &str, offset: u64, bytes: Bytes) -> Result<ChunkAck, LinkError> {
        let last = match kind {
            Kind::Log => "logs",
            Kind::Artifact => "artifact",
        };
        let request = self
            .post(&format!("jobs/{job}/{last}"), SEND)
            .header(OFFSET_HEADER, offset)
            .header("content-type", "application/octet-stream")
            .body(bytes);
        read(answer(request).await?).await
    }

    async fn finish(&self, job: &str, outcome: &Outcome) -> Result<FinishAck, LinkError> {
        let report = StatusReport {
            status: outcome.state,
            exit_code: outcome.exit_code,
            artifact_path: None,
            error_msg: outcome.error.clone(),
            outcome: Some(outcome.clone()),
        };
        let response = answer(self.post_json(&format!("jobs/{job}/status"), SEND, &report)).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(FinishAck { counted: true });
        }
        read(response).await
    }
}
