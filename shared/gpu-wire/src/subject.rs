//! Subjects on the bus. `worker` and `pool` are single DNS labels, `job` is a job's id: none has a dot.

use crate::JOBS_STREAM;

/// Where the assignments for a worker are put; the filter of its consumer.
#[must_use]
pub fn job(pool: &str, worker: &str) -> String {
    format!("nimbus.v1.gpu.job.{pool}.{worker}")
}

/// Every assignment, for the stream.
pub const JOBS: &str = "nimbus.v1.gpu.job.>";

/// Where a worker asks for its next assignment: its consumer is named like it.
#[must_use]
pub fn next_job(worker: &str) -> String {
    format!("$JS.API.CONSUMER.MSG.NEXT.{JOBS_STREAM}.{worker}")
}

/// Request: a [`Beat`](crate::Beat), answered with a [`BeatReply`](crate::BeatReply).
#[must_use]
pub fn beat(worker: &str) -> String {
    format!("nimbus.v1.gpu.beat.{worker}")
}

/// Request: bytes of a job's log, answered with a [`ChunkAck`](crate::ChunkAck).
#[must_use]
pub fn log(worker: &str, job: &str) -> String {
    format!("nimbus.v1.gpu.log.{worker}.{job}")
}

/// Request: bytes of a job's artifact, answered with a [`ChunkAck`](crate::ChunkAck).
#[must_use]
pub fn artifact(worker: &str, job: &str) -> String {
    format!("nimbus.v1.gpu.artifact.{worker}.{job}")
}

/// Request: an [`Outcome`](crate::Outcome), answered with a [`FinishAck`](crate::FinishAck).
#[must_use]
pub fn finish(worker: &str, job: &str) -> String {
    format!("nimbus.v1.gpu.finish.{worker}.{job}")
}

/// Message without answer: a [`BeatReply`](crate::BeatReply) before the next beat would fetch it.
#[must_use]
pub fn control(worker: &str) -> String {
    format!("nimbus.v1.gpu.control.{worker}")
}

/// The requests that workers make, for those who answer them: beats, logs, artifacts, ends.
pub const REQUESTS: [&str; 4] = [
    "nimbus.v1.gpu.beat.*",
    "nimbus.v1.gpu.log.*.*",
    "nimbus.v1.gpu.artifact.*.*",
    "nimbus.v1.gpu.finish.*.*",
];
