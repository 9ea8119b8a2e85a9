//! The way to Nimbus: over the bus, and over HTTP where the bus cannot be reached.
//!
//! Both carry the same requests, and repeating one is harmless, so the way is chosen anew for each: the
//! bus while it is connected, else HTTP.

mod http;
mod nats;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use nimbus_gpu_wire::{Assignment, Beat, BeatReply, ChunkAck, FinishAck, Outcome};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::config::Config;

/// Which bytes of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Log,
    Artifact,
}

/// Why a request was not answered as wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkError {
    /// Nobody answered: try again.
    #[error("Nimbus cannot be reached over {link}: {detail}")]
    Away { link: &'static str, detail: String },
    /// Nimbus does not know this worker (any more).
    #[error("Nimbus does not take this worker's credential: {detail}")]
    Unpaired { detail: String },
    /// Nimbus does not want this: trying again is no use.
    #[error("Nimbus refused ({status}): {detail}")]
    Refused { status: u16, detail: String },
}

impl LinkError {
    /// What an answer with an HTTP status means.
    fn of_status(link: &'static str, status: u16, detail: String) -> Self {
        match status {
            401 | 403 => Self::Unpaired { detail },
            400 | 404 | 409 | 410 | 413 | 422 => Self::Refused { status, detail },
            _ => Self::Away {
                link,
                detail: format!("status {status}: {detail}"),
            },
        }
    }
}

/// A job that is offered.
pub(crate) struct Offer {
    pub(crate) assignment: Assignment,
    receipt: Option<nats::Receipt>,
}

impl Offer {
    /// Tells that the worker answers for the job now. Not arriving, it costs a delivery that is known.
    pub(crate) async fn taken(self) {
        if let Some(receipt) = self.receipt {
            receipt.acknowledge().await;
        }
    }
}

/// What a way to Nimbus does.
#[async_trait]
trait Link: Send + Sync {
    async fn beat(&self, beat: &Beat) -> Result<BeatReply, LinkError>;
    /// Waits some seconds for a job.
    async fn next(&self) -> Result<Option<Offer>, LinkError>;
    async fn chunk(&self, kind: Kind, job: &str, offset: u64, bytes: Bytes) -> Result<ChunkAck, LinkError>;
    async fn finish(&self, job: &str, outcome: &Outcome) -> Result<FinishAck, LinkError>;
}

/// All ways there are.
pub(crate) struct Links {
    nats: Option<nats::Nats>,
    http: http::Http,
}

impl Links {
    /// Sets out; the bus may be reached later. What it says unasked comes through `told`.
    pub(crate) async fn open(config: &Config, told: mpsc::Sender<BeatReply>) -> Result<Self, LinkError> {
        let http = http::Http::new(config)?;
        let nats = match (&config.bus_url, &config.bus_credentials) {
            (Some(url), Some(credentials)) => match nats::Nats::open(config, url, credentials, told).await {
                Ok(nats) => Some(nats),
                Err(error) => {
                    warn!("the bus cannot be used: {error}");
                    None
                }
            },
            _ => None,
        };
        Ok(Self { nats, http })
    }

    /// The way that the next request takes first.
    pub(crate) fn name(&self) -> &'static str {
        if self.bus().is_some() {
            nats::NAME
        } else {
            http::NAME
        }
    }

    fn bus(&self) -> Option<&nats::Nats> {
        self.nats.as_ref().filter(|nats| nats.is_connected())
    }

    pub(crate) async fn beat(&self, beat: &Beat) -> Result<BeatReply, LinkError> {
        if let Some(bus) = self.bus() {
            match bus.beat(beat).await {
                Err(LinkError::Away { detail, .. }) => debug!("a beat goes over HTTP: {detail}"),
                answered => return answered,
            }
        }
        self.http.beat(beat).await
    }

    pub(crate) async fn next(&self) -> Result<Option<Offer>, LinkError> {
        if let Some(bus) = self.bus() {
            match bus.next().await {
                Err(LinkError::Away { detail, .. }) => debug!("a job is asked for over HTTP: {detail}"),
                answered => return answered,
            }
        }
        self.http.next().await
    }

    pub(crate) async fn chunk(
        &self,
        kind: Kind,
        job: &str,
        offset: u64,
        bytes: Bytes,
    ) -> Result<ChunkAck, LinkError> {
        if let Some(bus) = self.bus() {
            match bus.chunk(kind, job, offset, bytes.clone()).await {
                Err(LinkError::Away { detail, .. }) => debug!("a chunk goes over HTTP: {detail}"),
                answered => return answered,
            }
        }
        self.http.chunk(kind, job, offset, bytes).await
    }

    pub(crate) async fn finish(&self, job: &str, outcome: &Outcome) -> Result<FinishAck, LinkError> {
        if let Some(bus) = self.bus() {
            match bus.finish(job, outcome).await {
                Err(LinkError::Away { detail, .. }) => debug!("an end goes over HTTP: {detail}"),
                answered => return answered,
            }
        }
        self.http.finish(job, outcome).await
    }

    /// Sends a chunk until it is answered.
    ///
    /// # Errors
    /// [`LinkError::Refused`] only.
    pub(crate) async fn insist_chunk(
        &self,
        kind: Kind,
        job: &str,
        offset: u64,
        bytes: Bytes,
    ) -> Result<ChunkAck, LinkError> {
        let mut pause = Pause::default();
        loop {
            match self.chunk(kind, job, offset, bytes.clone()).await {
                Err(error @ LinkError::Refused { .. }) => return Err(error),
                Err(error) => pause.after(&error).await,
                Ok(ack) => return Ok(ack),
            }
        }
    }

    /// Tells how a job ended until that is answered.
    ///
    /// # Errors
    /// [`LinkError::Refused`] only.
    pub(crate) async fn insist_finish(&self, job: &str, outcome: &Outcome) -> Result<FinishAck, LinkError> {
        let mut pause = Pause::default();
        loop {
            match self.finish(job, outcome).await {
                Err(error @ LinkError::Refused { .. }) => return Err(error),
                Err(error) => pause.after(&error).await,
                Ok(ack) => return Ok(ack),
            }
        }
    }
}

/// Growing pauses between attempts.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    attempts: u32,
}

impl Pause {
    const FIRST: Duration = Duration::from_millis(200);
    const LONGEST: Duration = Duration::from_secs(5);
    /// Paired again, the worker is started anew; until then asking often is no use.
    const UNPAIRED: Duration = Duration::from_secs(30);

    /// Waits, longer each time, and says why the first time.
    pub(crate) async fn after(&mut self, error: &LinkError) {
        if self.attempts == 0 {
            warn!("{error}; trying again");
        }
        if matches!(error, LinkError::Unpaired { .. }) {
            self.attempts += 1;
            tokio::time::sleep(Self::UNPAIRED).await;
        } else {
            self.wait().await;
        }
    }

    /// Waits, longer each time.
    pub(crate) async fn wait(&mut self) {
        let span = Self::FIRST.saturating_mul(1 << self.attempts.min(10));
        self.attempts += 1;
        tokio::time::sleep(span.min(Self::LONGEST)).await;
    }
}
