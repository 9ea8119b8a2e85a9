//! Settings, pairing and inference.

use nimbus_model::{Hostname, MachineId, Timestamp, UserId};
use serde::{Deserialize, Serialize};

use super::worker::WorkerState;
use crate::auth::Secret;

/// How GPUs are set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Whether people may use them.
    pub enabled: bool,
    /// The inference endpoint, without `/v1`; empty when there is none.
    pub base_url: String,
    /// The model it serves.
    pub inference_model: String,
    /// Whether a box is paired or an endpoint is set.
    pub configured: bool,
    /// How many jobs a member may have queued and running; administrators have no such limit.
    pub job_quota: u32,
    /// The boxes that are paired.
    pub workers: Vec<Hostname>,
}

/// Changes how GPUs are set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutSettingsRequest {
    /// Whether people may use them.
    pub enabled: bool,
    /// The inference endpoint, without `/v1`; empty for none.
    pub base_url: String,
    /// The model it serves.
    pub inference_model: String,
    /// The key that the endpoint asks for; `None` leaves it.
    pub api_key: Option<Secret>,
    /// Jobs a member may have queued and running; `None` leaves it.
    pub job_quota: Option<u32>,
}

/// Asks for a pairing token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairingRequest {
    /// The box whose credentials are to be replaced; `None` for any box.
    pub worker: Option<Hostname>,
}

/// A pairing token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pairing {
    /// 48 hexadecimal digits, good for one registration.
    pub token: Secret,
    /// How long it is good.
    pub expires_in_s: u32,
}

/// What was forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpaired {
    /// Jobs that were cancelled.
    pub cancelled_jobs: u32,
    /// The boxes.
    pub workers: Vec<Hostname>,
}

/// Whether the inference endpoint answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InferenceStatus {
    /// It does.
    Up,
    /// It does not.
    Down,
    /// There is none.
    Unconfigured,
}

/// The inference endpoint, as people may know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inference {
    /// Whether GPUs may be used.
    pub enabled: bool,
    /// Whether it answers.
    pub status: InferenceStatus,
    /// The model to ask for.
    pub model: Option<String>,
    /// What it says it serves.
    pub models: Vec<String>,
    /// When it was asked.
    pub checked_at: Option<Timestamp>,
}

/// Where to pass requests on to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Without `/v1`.
    pub base_url: String,
    /// The key it asks for.
    pub api_key: Option<Secret>,
    /// The model to ask for.
    pub model: String,
}

/// What one request, or several of the same kind, used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRecord {
    /// Unique; a repeat does not count.
    pub id: String,
    /// Who asked.
    pub user: UserId,
    /// From which machine.
    pub machine: Option<MachineId>,
    /// Which model.
    pub model: String,
    /// How many requests.
    pub requests: u32,
    /// Tokens they sent.
    pub prompt_tokens: u64,
    /// Tokens they got.
    pub completion_tokens: u64,
    /// Whether tokens were counted by the pieces of a stream that told no usage.
    pub estimated: bool,
    /// When.
    pub at: Timestamp,
}

/// Asks for what was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRequest {
    /// How many days back, today included; 1 to 366.
    pub days: u32,
    /// Of everybody; for administrators.
    pub everybody: bool,
}

/// What somebody used of a model on a day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The day in UTC, `2026-06-10`.
    pub day: String,
    /// Who.
    pub user: UserId,
    /// Which model.
    pub model: String,
    /// How many requests.
    pub requests: u64,
    /// Tokens they sent.
    pub prompt_tokens: u64,
    /// Tokens they got.
    pub completion_tokens: u64,
    /// Whether some of it is an estimate.
    pub estimated: bool,
}

/// What a machine is told about GPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Injection {
    /// The model to ask for, if one is served.
    pub model: Option<String>,
}

/// How much there is, for the figures that operators watch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Boxes by state.
    pub boxes: Vec<(WorkerState, u32)>,
    /// Jobs that wait.
    pub queued: u64,
    /// Jobs that run.
    pub running: u64,
}
