//! What a GPU worker and Nimbus say to each other.
//!
//! The same messages travel over NATS (requests on the subjects of [`subject`]) and over HTTP
//! (`POST /api/gpu/worker/…`), as JSON: a worker on a box may be older than the server. So fields are
//! only ever added, and each one added later has a default. Between services the same types travel as
//! postcard, which is why nothing here is untagged, flattened or left out.
//!
//! Bytes of logs and artifacts are the body as it is; their place is in the header [`OFFSET_HEADER`].

mod message;
pub mod subject;

pub use message::{
    Assignment, Beat, BeatReply, BusAccess, ChunkAck, Command, Dataset, DeviceUse, EnvVar, FinishAck, Gpu,
    HeldJob, Limits, Outcome, OutcomeState, Phase, Registered, Registration, StatusReport,
};

/// Version of this protocol, in [`Beat::protocol`] and [`Assignment::protocol`].
pub const PROTOCOL: u16 = 1;

/// Header with the place of a chunk's first byte in its log or artifact, in decimal.
pub const OFFSET_HEADER: &str = "Nimbus-Offset";

/// Header by which a worker names itself over HTTP.
pub const WORKER_HEADER: &str = "X-Worker-ID";

/// The JetStream work-queue stream that assignments lie in.
pub const JOBS_STREAM: &str = "GPU_JOBS";

/// The most bytes of one chunk of a log or an artifact.
pub const MAX_CHUNK: usize = 256 * 1024;

/// Where a job finds the folder whose content is kept when it ends; also the value of `NIMBUS_ARTIFACTS`.
pub const ARTIFACTS_DIR: &str = "/artifacts";

/// How often a worker beats unless it is told otherwise, in milliseconds.
pub const BEAT_EVERY_MS: u32 = 2_000;
