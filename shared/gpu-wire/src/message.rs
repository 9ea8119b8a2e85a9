//! The messages.

use serde::{Deserialize, Serialize};

/// What a job runs in its container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// What the image says.
    #[default]
    Image,
    /// A line for the image's `sh -c`.
    Shell(String),
    /// Exactly these arguments, after the image's entry point if it has one.
    Argv(Vec<String>),
}

/// One variable of a job's environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvVar {
    /// Its name, `^[A-Za-z_][A-Za-z0-9_]*$`.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A volume of the box that a job sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dataset {
    /// `^[a-z0-9][a-z0-9_-]{0,62}$`; it is at `/datasets/<name>` in the job.
    pub name: String,
    /// Whether the job may write to it.
    pub writable: bool,
}

/// What a job may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Seconds from the start of its container until it is stopped.
    pub time_s: u64,
    /// Bytes of memory; `None` for what the box has.
    pub memory_bytes: Option<u64>,
    /// Bytes of its log that are kept; the rest is counted.
    pub log_bytes: u64,
    /// Bytes of its packed artifacts; more is not kept.
    pub artifact_bytes: u64,
}

/// A job for one worker, to be run once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// [`PROTOCOL`](crate::PROTOCOL) of the server.
    pub protocol: u16,
    /// The job's id, `job_…`.
    pub job: String,
    /// 1, and one more each time a lost worker's job was queued again because its owner asked for that.
    pub attempt: u32,
    /// Reference of the image.
    pub image: String,
    /// What runs in it.
    pub command: Command,
    /// The job's own environment; it wins over what the worker sets.
    pub env: Vec<EnvVar>,
    /// Volumes of the box.
    pub datasets: Vec<Dataset>,
    /// What it may use.
    pub limits: Limits,
}

/// How far a worker is with a job it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Taken, nothing done yet.
    Assigned,
    /// Its image is being pulled.
    Pulling,
    /// Its container runs.
    Running,
    /// Its container has ended; logs, artifact and outcome are being sent.
    Ending,
}

/// A job that a worker holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldJob {
    /// The job's id.
    pub job: String,
    /// Which attempt.
    pub attempt: u32,
    /// How far it is.
    pub phase: Phase,
    /// When its container started, microseconds since 1970 by the box' clock.
    pub started_at: Option<i64>,
    /// In words, such as how much of the image is there.
    pub note: Option<String>,
}

/// One GPU of the box, as `nvidia-smi` tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gpu {
    /// Such as `NVIDIA GB10`.
    pub name: String,
    /// Bytes of its memory; 0 where it shares the box' own.
    pub memory_bytes: u64,
    /// The driver's version.
    pub driver: String,
    /// How busy it is.
    pub usage: Option<DeviceUse>,
}

/// How busy a GPU is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceUse {
    /// Percent of the time that it computes.
    pub busy_percent: f32,
    /// Bytes of its memory in use.
    pub memory_used_bytes: u64,
    /// Degrees Celsius.
    pub temperature_c: Option<f32>,
    /// Watts.
    pub power_w: Option<f32>,
}

/// A worker's sign of life.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beat {
    /// [`PROTOCOL`](crate::PROTOCOL) of the worker.
    pub protocol: u16,
    /// The worker's version.
    pub version: String,
    /// Changes each time the worker starts.
    pub boot: String,
    /// How it reaches Nimbus: `nats` or `http`.
    pub link: String,
    /// What it holds, at most one that is not [`Phase::Ending`].
    pub held: Vec<HeldJob>,
    /// Why it cannot take jobs now, such as an engine that does not answer.
    pub trouble: Option<String>,
    /// Its GPUs; empty where there are none.
    pub gpus: Vec<Gpu>,
    /// Such as `aarch64`.
    pub arch: String,
    /// Processors of the box.
    pub cpus: u32,
    /// Bytes of memory of the box.
    pub memory_bytes: u64,
    /// Bytes free where the engine keeps its data.
    pub disk_free_bytes: u64,
}

/// What the server wants of a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeatReply {
    /// Jobs to stop and forget: cancelled, or nobody's any more.
    pub cancel: Vec<String>,
    /// Whether to take no further job.
    pub drain: bool,
    /// Milliseconds until the next beat; 0 for [`BEAT_EVERY_MS`](crate::BEAT_EVERY_MS).
    pub beat_ms: u32,
    /// Pool whose jobs it runs.
    #[serde(default)]
    pub pool: String,
}

/// What became of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkAck {
    /// Bytes the server has without a gap: where the next chunk begins.
    pub end: u64,
    /// Whether it keeps no more: further bytes are only counted by the worker.
    pub capped: bool,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeState {
    /// Exit code 0.
    Succeeded,
    /// Anything else.
    Failed,
}

/// The end of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Which attempt.
    pub attempt: u32,
    /// How it ended.
    pub state: OutcomeState,
    /// Exit code of its first process; -1 when it never ran.
    pub exit_code: i32,
    /// Code of the error catalogue when it was not the job's own doing, such as `gpu.time_limit`.
    pub code: Option<String>,
    /// Why, in a sentence.
    pub error: Option<String>,
    /// Bytes it printed, also those that were not kept.
    pub log_bytes: u64,
    /// Bytes of its packed artifacts; `None` when there are none.
    pub artifact_bytes: Option<u64>,
    /// SHA-256 of them, in hexadecimal.
    pub artifact_sha256: Option<String>,
    /// Why there are none although the job left some.
    pub artifact_note: Option<String>,
    /// When its container started, microseconds since 1970 by the box' clock.
    pub started_at: Option<i64>,
    /// When it ended.
    pub finished_at: Option<i64>,
}

/// The server knows how a job ended; the worker may forget it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishAck {
    /// Whether the report counted; not if the job had ended otherwise before.
    pub counted: bool,
}

/// The short report of workers that know nothing else: `POST …/jobs/{id}/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// `succeeded` or `failed`.
    pub status: OutcomeState,
    /// Exit code of its first process; -1 when it never ran.
    #[serde(default)]
    pub exit_code: i32,
    /// Not used; older workers send it empty.
    #[serde(default)]
    pub artifact_path: Option<String>,
    /// Why it failed.
    #[serde(default)]
    pub error_msg: Option<String>,
    /// Everything there is to say, from workers that can.
    #[serde(default)]
    pub outcome: Option<Outcome>,
}

/// A box that wants to become a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// What the administrator was shown.
    pub pairing_token: String,
    /// The box' name, which becomes the worker's: letters are made lower case and what is after a dot is cut.
    pub hostname: String,
    /// Address under which Nimbus reaches the box.
    pub ip: String,
    /// Model that the box serves; empty when it serves none.
    #[serde(default)]
    pub model: String,
    /// Port of its inference endpoint.
    #[serde(default = "inference_port")]
    pub port: u16,
}

/// Port of vLLM's endpoint.
const fn inference_port() -> u16 {
    8000
}

/// The answer to a [`Registration`]. It holds secrets, so it has no `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The worker's name.
    pub worker_id: String,
    /// What it shows over HTTP as a bearer token.
    pub worker_token: String,
    /// The box' inference endpoint.
    pub base_url: String,
    /// The key that the endpoint must ask for.
    pub inference_api_key: String,
    /// How to reach the bus, if it can be reached from outside.
    pub bus: Option<BusAccess>,
}

/// How to reach the bus. It holds a secret, so it has no `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusAccess {
    /// Such as `tls://nimbus.example.org:4222`.
    pub url: String,
    /// Certificate authority of the server, PEM; `None` for those that everybody trusts.
    pub ca_pem: Option<String>,
    /// Text of a NATS credentials file.
    pub credentials: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_worker_is_understood() {
        let report: StatusReport =
            serde_json::from_str(r#"{"status":"failed","exit_code":3,"artifact_path":"","error_msg":"no"}"#)
                .unwrap();
        assert_eq!(
            (report.status, report.exit_code, report.outcome),
            (OutcomeState::Failed, 3, None)
        );
        let box_: Registration =
            serde_json::from_str(r#"{"pairing_token":"t","hostname":"gx10","ip":"10.0.0.9"}"#).unwrap();
        assert_eq!((box_.port, box_.model.as_str()), (8000, ""));
    }

    #[test]
    fn fields_that_nobody_knows_yet_are_no_error() {
        let reply: BeatReply =
            serde_json::from_str(r#"{"cancel":["job_1"],"drain":false,"beat_ms":0,"later":{"a":1}}"#)
                .unwrap();
        assert_eq!(reply.cancel, ["job_1"]);
    }
}
