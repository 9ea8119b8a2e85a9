//! Boxes, and what they say.

use nimbus_gpu_wire::{Beat, Outcome};
use nimbus_model::{Hostname, JobId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::auth::Secret;

/// Whether a box can be heard.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum WorkerState {
    /// It beats.
    Online,
    /// Nothing for some seconds: it gets no job, what it runs goes on.
    Silent,
    /// Nothing for minutes: what it ran has failed, or is queued again.
    Lost,
    /// It has registered and not been heard yet.
    New,
}

/// What an administrator wants of a box.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Standing {
    /// It takes jobs.
    Active,
    /// It takes none, until it is resumed.
    Paused,
    /// It ends what it has, and is paused then.
    Draining,
}

/// A box that runs jobs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Its name.
    pub name: Hostname,
    /// Whose jobs it runs.
    pub pool: String,
    /// Whether it can be heard.
    pub state: WorkerState,
    /// What is wanted of it.
    pub standing: Standing,
    /// What it runs.
    pub job: Option<JobId>,
    /// Its address.
    pub address: String,
    /// The model it serves; empty when it serves none.
    pub model: String,
    /// Its inference endpoint.
    pub base_url: String,
    /// What it said last.
    pub last_beat: Option<Beat>,
    /// When.
    pub last_beat_at: Option<Timestamp>,
    /// When it was paired.
    pub paired_at: Timestamp,
}

/// Changes what is wanted of a box.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetWorkerRequest {
    /// Which.
    pub worker: Hostname,
    /// Pause, drain or resume.
    pub standing: Option<Standing>,
    /// Another pool, `^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`.
    pub pool: Option<String>,
}

/// By what a box is known over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerCredential {
    /// The name it gives itself; empty when it gives none. The token decides.
    pub worker: String,
    /// Its token.
    pub token: Secret,
}

/// A sign of life.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerBeatRequest {
    /// Whose.
    pub credential: WorkerCredential,
    /// The sign.
    pub beat: Beat,
}

/// Asks for a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRequest {
    /// For whom.
    pub credential: WorkerCredential,
    /// How long to wait for one; 20 000 is the most.
    pub wait_ms: u32,
}

/// A piece of a log or an artifact.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRequest {
    /// Whose.
    pub credential: WorkerCredential,
    /// The job.
    pub job: String,
    /// Where it begins; `None` for the end, as older workers do not count.
    pub offset: Option<u64>,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for ChunkRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChunkRequest")
            .field("job", &self.job)
            .field("offset", &self.offset)
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// The end of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerFinishRequest {
    /// Whose.
    pub credential: WorkerCredential,
    /// The job.
    pub job: String,
    /// How it ended. An older worker's report has attempt 0, which stands for whichever it holds.
    pub outcome: Outcome,
}
