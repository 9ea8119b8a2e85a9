//! The boxes that run GPU jobs, how they are set up, and the inference endpoint.

use nimbus_gpu_wire::{Registered, Registration};
use nimbus_proto::auth::Secret;
use nimbus_proto::gpu::{Inference, InferenceStatus, PutSettingsRequest, Settings, Standing, Usage, Worker};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::At;
use crate::envelope::{Answer, ApiError};

/// One GPU of a box.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct GpuView {
    /// Such as `NVIDIA GB10`.
    pub name: String,
    /// The driver's version.
    pub driver: String,
    /// Bytes of its memory; 0 where it shares the box' own.
    pub memory_bytes: u64,
    /// Bytes of it in use.
    pub memory_used_bytes: Option<u64>,
    /// Percent of the time that it computes.
    pub utilisation_percent: Option<f32>,
    /// Degrees Celsius.
    pub temperature_celsius: Option<f32>,
    /// Watts.
    pub power_watts: Option<f32>,
}

/// A box that runs jobs.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct GpuWorkerView {
    /// Its name.
    pub id: String,
    /// Whose jobs it runs.
    pub pool: String,
    /// Whether it is heard: `online`, `silent`, `lost`, or `new` before the first time.
    pub state: &'static str,
    /// Whether it shall take jobs: `active`, `paused` or `draining`.
    pub standing: &'static str,
    /// Whether it has a job.
    pub busy: bool,
    /// What it runs; for administrators.
    pub job_id: Option<String>,
    /// Why it cannot take jobs now.
    pub trouble: Option<String>,
    /// Its address; for administrators.
    pub address: Option<String>,
    /// Its inference endpoint; for administrators.
    pub base_url: Option<String>,
    /// The model it serves.
    pub model: Option<String>,
    /// Its GPUs.
    pub gpus: Vec<GpuView>,
    /// Such as `aarch64`.
    pub arch: Option<String>,
    /// Its processors.
    pub cpus: Option<u32>,
    /// Bytes of its memory.
    pub memory_bytes: Option<u64>,
    /// Bytes free where its engine keeps its data.
    pub disk_free_bytes: Option<u64>,
    /// Version of the worker on it.
    pub version: Option<String>,
    /// How it reaches Nimbus: `nats` or `http`.
    pub link: Option<String>,
    /// When it was heard last.
    pub seen_at: Option<At>,
    /// When it was paired.
    pub paired_at: At,
}

impl GpuWorkerView {
    /// The box, as an administrator or as others see it.
    pub(crate) fn of(worker: Worker, admin: bool) -> Self {
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        let beat = worker.last_beat;
        let fact = beat.as_ref();
        Self {
            id: worker.name.to_string(),
            pool: worker.pool,
            state: worker.state.into(),
            standing: worker.standing.into(),
            busy: worker.job.is_some(),
            job_id: worker.job.filter(|_| admin).map(|job| job.to_string()),
            trouble: fact.and_then(|beat| beat.trouble.clone()),
            address: some(worker.address).filter(|_| admin),
            base_url: some(worker.base_url).filter(|_| admin),
            model: some(worker.model),
            arch: fact.map(|beat| beat.arch.clone()).and_then(some),
            cpus: fact.map(|beat| beat.cpus),
            memory_bytes: fact.map(|beat| beat.memory_bytes),
            disk_free_bytes: fact.map(|beat| beat.disk_free_bytes),
            version: fact.map(|beat| beat.version.clone()).and_then(some),
            link: fact.map(|beat| beat.link.clone()).and_then(some),
            gpus: beat
                .into_iter()
                .flat_map(|beat| beat.gpus)
                .map(|gpu| GpuView {
                    name: gpu.name,
                    driver: gpu.driver,
                    memory_bytes: gpu.memory_bytes,
                    memory_used_bytes: gpu.usage.map(|usage| usage.memory_used_bytes),
                    utilisation_percent: gpu.usage.map(|usage| usage.busy_percent),
                    temperature_celsius: gpu.usage.and_then(|usage| usage.temperature_c),
                    power_watts: gpu.usage.and_then(|usage| usage.power_w),
                })
                .collect(),
            seen_at: worker.last_beat_at.map(At),
            paired_at: worker.paired_at.into(),
        }
    }
}

/// What a box shall do about jobs.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StandingName {
    /// Take them.
    Active,
    /// Take none, until it is resumed.
    Paused,
    /// End the one it has, and pause then.
    Draining,
}

impl From<StandingName> for Standing {
    fn from(name: StandingName) -> Self {
        match name {
            StandingName::Active => Self::Active,
            StandingName::Paused => Self::Paused,
            StandingName::Draining => Self::Draining,
        }
    }
}

/// Changes what is wanted of a box.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WorkerBody {
    /// Whether it shall take jobs.
    #[serde(default)]
    pub standing: Option<StandingName>,
    /// Whose jobs it runs.
    #[serde(default)]
    #[schema(pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
    pub pool: Option<String>,
}

/// How GPUs are set up.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct GpuSettingsView {
    /// Whether people may use them.
    pub enabled: bool,
    /// The inference endpoint, without `/v1`; empty when there is none.
    pub base_url: String,
    /// The model it serves.
    pub inference_model: String,
    /// Whether a box is paired or an endpoint is set.
    pub configured: bool,
    /// Jobs that a member may have queued and running.
    pub job_quota: u32,
    /// The boxes that are paired.
    pub workers: Vec<String>,
    /// The one that was paired last.
    pub gx10_hostname: Option<String>,
}

impl From<Settings> for GpuSettingsView {
    fn from(settings: Settings) -> Self {
        let workers: Vec<String> = settings.workers.iter().map(ToString::to_string).collect();
        Self {
            enabled: settings.enabled,
            base_url: settings.base_url,
            inference_model: settings.inference_model,
            configured: settings.configured,
            job_quota: settings.job_quota,
            gx10_hostname: workers.last().cloned(),
            workers,
        }
    }
}

/// Changes how GPUs are set up.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GpuSettingsBody {
    /// Whether people may use them.
    pub enabled: bool,
    /// The inference endpoint, without `/v1`; empty for none.
    pub base_url: String,
    /// The model it serves.
    pub inference_model: String,
    /// The key that the endpoint asks for; it is kept sealed and never shown.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub api_key: Option<Secret>,
    /// Jobs that a member may have queued and running.
    #[serde(default)]
    pub job_quota: Option<u32>,
}

impl From<GpuSettingsBody> for PutSettingsRequest {
    fn from(body: GpuSettingsBody) -> Self {
        Self {
            enabled: body.enabled,
            base_url: body.base_url,
            inference_model: body.inference_model,
            api_key: body.api_key,
            job_quota: body.job_quota,
        }
    }
}

/// What an administrator pastes on a box.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct PairingView {
    /// The token, good for one box.
    pub token: String,
    /// How long it is good.
    pub expires_in_seconds: u32,
    /// The line to paste on the box.
    #[schema(examples("curl -fsSL \"https://nimbus.example.org/api/gpu/install.sh?token=…\" | sudo bash"))]
    pub curl: String,
}

/// Which box to forget; all when it is left out.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UnpairBody {
    /// Its name.
    #[serde(default)]
    pub worker: Option<String>,
}

/// What was forgotten.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct UnpairedView {
    /// Jobs that were cancelled.
    pub cancelled_jobs: u32,
    /// The boxes.
    pub workers: Vec<String>,
    /// The line that removes everything from a box.
    pub cleanup_cmd: String,
}

/// The inference endpoint.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct InferenceView {
    /// Whether GPUs may be used.
    pub enabled: bool,
    /// What to give clients of the OpenAI API as their base URL.
    pub base_url: String,
    /// `up`, `down` or `unconfigured`.
    pub status: &'static str,
    /// The model to ask for.
    pub model: Option<String>,
    /// What the endpoint says it serves.
    pub models: Vec<String>,
    /// When it was asked.
    pub checked_at: Option<At>,
}

impl InferenceView {
    pub(crate) fn of(inference: Inference, base_url: String) -> Self {
        Self {
            enabled: inference.enabled,
            base_url,
            status: match inference.status {
                InferenceStatus::Up => "up",
                InferenceStatus::Down => "down",
                InferenceStatus::Unconfigured => "unconfigured",
            },
            model: inference.model,
            models: inference.models,
            checked_at: inference.checked_at.map(At),
        }
    }
}

/// What somebody used of a model on a day.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct UsageView {
    /// The day in UTC.
    #[schema(examples("2026-06-10"))]
    pub day: String,
    /// Who, `usr_…`.
    pub user_id: String,
    /// Which model.
    pub model: String,
    /// How many requests.
    pub requests: u64,
    /// Tokens they sent.
    pub prompt_tokens: u64,
    /// Tokens they got.
    pub completion_tokens: u64,
    /// Whether some of it was counted by the pieces of streams, because the endpoint told no usage.
    pub estimated: bool,
}

impl From<Usage> for UsageView {
    fn from(usage: Usage) -> Self {
        Self {
            day: usage.day,
            user_id: usage.user.to_string(),
            model: usage.model,
            requests: usage.requests,
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            estimated: usage.estimated,
        }
    }
}

/// A box that wants to become a worker.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct RegistrationBody {
    /// What the administrator was shown.
    #[schema(value_type = String)]
    pub pairing_token: Secret,
    /// The box' name.
    pub hostname: String,
    /// Address under which Nimbus reaches the box.
    #[serde(default)]
    pub ip: String,
    /// Model that the box serves; empty when it serves none.
    #[serde(default)]
    pub model: String,
    /// Port of its inference endpoint; 8000 when it is left out.
    #[serde(default)]
    pub port: Option<u16>,
}

impl RegistrationBody {
    pub(crate) fn request(self) -> Answer<Registration> {
        if self.ip.is_empty() {
            return Err(ApiError::field(
                "ip",
                "ip: the address under which Nimbus reaches the box",
            ));
        }
        Ok(Registration {
            pairing_token: self.pairing_token.reveal().to_owned(),
            hostname: self.hostname,
            ip: self.ip,
            model: self.model,
            port: self.port.unwrap_or(8000),
        })
    }
}

/// How a box reaches the bus.
#[derive(Clone, Serialize, ToSchema)]
pub(crate) struct BusAccessView {
    /// Its address.
    pub url: String,
    /// Certificate authority of the server, PEM; null for those that everybody trusts.
    pub ca_pem: Option<String>,
    /// Text of a NATS credentials file.
    pub credentials: String,
}

/// What a box that was paired is given, this once.
#[derive(Clone, Serialize, ToSchema)]
pub(crate) struct RegisteredView {
    /// Its name.
    pub worker_id: String,
    /// What it shows over HTTP as a bearer token.
    pub worker_token: String,
    /// Its inference endpoint.
    pub base_url: String,
    /// The key that the endpoint must ask for.
    pub inference_api_key: String,
    /// How to reach the bus, if it can be reached from outside.
    pub bus: Option<BusAccessView>,
}

impl From<Registered> for RegisteredView {
    fn from(registered: Registered) -> Self {
        Self {
            worker_id: registered.worker_id,
            worker_token: registered.worker_token,
            base_url: registered.base_url,
            inference_api_key: registered.inference_api_key,
            bus: registered.bus.map(|bus| BusAccessView {
                url: bus.url,
                ca_pem: bus.ca_pem,
                credentials: bus.credentials,
            }),
        }
    }
}
