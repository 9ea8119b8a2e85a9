//! Whether the inference endpoint answers, and which models it serves.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nimbus_model::Timestamp;
use nimbus_proto::gpu::{Endpoint, Inference, InferenceStatus};
use nimbus_service::RunError;
use serde::Deserialize;
use tokio::time::Instant;
use tracing::debug;

use crate::error::GpuError;
use crate::plane::Plane;
use crate::settings::read_settings;

/// How long the endpoint may take to list its models.
const LIMIT: Duration = Duration::from_secs(2);
/// How long an answer is good for everybody who asks.
const KEPT: Duration = Duration::from_secs(5);
/// The most bytes of a list of models.
const LIST: usize = 1 << 20;

/// Asks the endpoint, for many at once.
#[derive(Debug)]
pub(crate) struct Probe {
    client: reqwest::Client,
    last: Mutex<Option<Answer>>,
    /// One asks at a time; the others get its answer.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug)]
struct Answer {
    base_url: String,
    until: Instant,
    at: Timestamp,
    models: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
}

impl Probe {
    pub(crate) fn new() -> Result<Self, RunError> {
        let builder = || {
            reqwest::Client::builder()
                .connect_timeout(LIMIT)
                .timeout(LIMIT)
                .redirect(reqwest::redirect::Policy::none())
                // The box is a neighbour; a proxy for the world is not the way to it.
                .no_proxy()
        };
        // An image without certificates still reaches endpoints without TLS.
        let client = builder()
            .build()
            .or_else(|_| builder().tls_certs_only([]).build())
            .map_err(|error| RunError::other("could not set up requests to the inference endpoint", error))?;
        Ok(Self {
            client,
            last: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        })
    }

    /// The next question is asked anew.
    pub(crate) fn forget(&self) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn kept(&self, base_url: &str) -> Option<Answer> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone()
            .filter(|answer| answer.base_url == base_url && Instant::now() < answer.until)
    }

    async fn ask(&self, endpoint: &Endpoint, now: impl Fn() -> Timestamp) -> Answer {
        if let Some(kept) = self.kept(&endpoint.base_url) {
            return kept;
        }
        let _turn = self.turn.lock().await;
        if let Some(kept) = self.kept(&endpoint.base_url) {
            return kept;
        }
        let models = self.models(endpoint).await;
        let answer = Answer {
            base_url: endpoint.base_url.clone(),
            until: Instant::now() + KEPT,
            at: now(),
            models,
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer.clone());
        answer
    }

    /// The models; `None` when the endpoint does not answer as one does.
    async fn models(&self, endpoint: &Endpoint) -> Option<Vec<String>> {
        let mut request = self.client.get(format!("{}/v1/models", endpoint.base_url));
        if let Some(key) = &endpoint.api_key {
            request = request.bearer_auth(key.reveal());
        }
        let failed =
            |error: reqwest::Error| debug!("the inference endpoint does not answer: {}", error.without_url());
        let mut response = request
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .map_err(failed)
            .ok()?;
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(failed).ok()? {
            body.extend_from_slice(&piece);
            if body.len() > LIST {
                return None;
            }
        }
        let list: List = serde_json::from_slice(&body).ok()?;
        Some(list.data.into_iter().map(|model| model.id).collect())
    }
}

impl Plane {
    pub(crate) async fn inference(&self) -> Result<Inference, GpuError> {
        let enabled = read_settings(&self.store).await?.enabled != 0;
        let Some(endpoint) = self.endpoint().await? else {
            return Ok(Inference {
                enabled,
                status: InferenceStatus::Unconfigured,
                model: None,
                models: vec![],
                checked_at: None,
            });
        };
        let answer = self.probe.ask(&endpoint, || self.clock.now()).await;
        Ok(Inference {
            enabled,
            status: match &answer.models {
                Some(_) => InferenceStatus::Up,
                None => InferenceStatus::Down,
            },
            model: Some(endpoint.model).filter(|model| !model.is_empty()),
            models: answer.models.unwrap_or_default(),
            checked_at: Some(answer.at),
        })
    }
}
