//! Jobs, as people see them.

use nimbus_gpu_wire::{Command, Dataset, EnvVar, Limits, Phase};
use nimbus_model::{Hostname, JobId, MachineId, Timestamp, UserId};
use serde::{Deserialize, Serialize};

/// State of a job. The last three are final.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum JobState {
    /// Waits for a worker.
    Queued,
    /// Some worker has it.
    Running,
    /// Its process ended with 0.
    Succeeded,
    /// It ended otherwise.
    Failed,
    /// Somebody did not want it any more.
    Cancelled,
}

impl JobState {
    /// Whether it stays so.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// What a job left in its folder for artifacts, packed as `.tar.gz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Its size.
    pub bytes: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Who submitted it.
    pub owner: UserId,
    /// The machine it was submitted from or for.
    pub machine: Option<MachineId>,
    /// Where it stands.
    pub state: JobState,
    /// Workers that may run it.
    pub pool: String,
    /// Reference of its image.
    pub image: String,
    /// What runs in it.
    pub command: Command,
    /// Its own environment.
    pub env: Vec<EnvVar>,
    /// Volumes of the box that it sees.
    pub datasets: Vec<Dataset>,
    /// What it may use.
    pub limits: Limits,
    /// Higher goes first; 0 unless an administrator said otherwise.
    pub priority: i32,
    /// Whether it is queued again when its worker is lost.
    pub rerun: bool,
    /// How often it was given to a worker.
    pub attempt: u32,
    /// The worker that has or had it.
    pub worker: Option<Hostname>,
    /// How far its worker is with it.
    pub phase: Option<Phase>,
    /// The same in words.
    pub phase_note: Option<String>,
    /// How many jobs of its pool go before it; 0 unless it is queued.
    pub ahead: u64,
    /// Exit code of its first process; -1 when it never ran.
    pub exit_code: Option<i32>,
    /// Code of the error catalogue when it failed by more than its exit code.
    pub code: Option<String>,
    /// Why it failed, in a sentence.
    pub error: Option<String>,
    /// Bytes of its log that are kept.
    pub log_end: u64,
    /// Bytes that it printed.
    pub log_bytes: u64,
    /// Whether it printed more than is kept.
    pub log_truncated: bool,
    /// What it left.
    pub artifact: Option<Artifact>,
    /// Why there is none although it left some.
    pub artifact_note: Option<String>,
    /// When it was submitted.
    pub queued_at: Timestamp,
    /// When its container started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// Submits a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmitRequest {
    /// Reference of its image.
    pub image: String,
    /// What runs in it.
    pub command: Command,
    /// Its own environment; at most 256 variables and 128 KiB.
    pub env: Vec<EnvVar>,
    /// Workers that may run it; `None` for `default`.
    pub pool: Option<String>,
    /// The machine it is for; a machine's own token decides that itself.
    pub machine: Option<MachineId>,
    /// Volumes of the box; at most 16.
    pub datasets: Vec<Dataset>,
    /// Seconds it may run, 1 to 604 800 (7 days); `None` for a day.
    pub time_s: Option<u64>,
    /// Bytes of memory, at least 6 MiB (what engines accept); `None` for what the box has.
    pub memory_bytes: Option<u64>,
    /// -100 to 100; other than 0 only for administrators.
    pub priority: i32,
    /// Whether it is queued again when its worker is lost; else it fails then.
    pub rerun: bool,
}

/// Asks for a page of jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListJobsRequest {
    /// Only those in this state.
    pub state: Option<JobState>,
    /// 1 to 200.
    pub limit: u32,
    /// [`JobPage::next`] of the page before.
    pub after: Option<String>,
}

/// A page of jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}

/// Changes the place of a queued job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrioritizeRequest {
    /// Which.
    pub job: JobId,
    /// -100 to 100.
    pub priority: i32,
}

/// Asks for bytes of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadLogRequest {
    /// Whose.
    pub job: JobId,
    /// The first byte wanted.
    pub offset: u64,
    /// At most this many; 1 MiB is the most.
    pub limit: u32,
    /// How long to wait for the first byte while the job goes on; 30 000 is the most.
    pub wait_ms: u32,
}

/// Asks for bytes of an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadArtifactRequest {
    /// Whose.
    pub job: JobId,
    /// The first byte wanted.
    pub offset: u64,
    /// At most this many; 1 MiB is the most.
    pub limit: u32,
}

/// Bytes of a log or an artifact.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Where they begin.
    pub offset: u64,
    /// The bytes; none when there is nothing new.
    pub bytes: Vec<u8>,
    /// Bytes there are now.
    pub end: u64,
    /// Whether there will be no more.
    pub complete: bool,
    /// Whether more was printed than is kept.
    pub truncated: bool,
}

impl std::fmt::Debug for Chunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chunk")
            .field("offset", &self.offset)
            .field("bytes", &self.bytes.len())
            .field("end", &self.end)
            .field("complete", &self.complete)
            .field("truncated", &self.truncated)
            .finish()
    }
}
