//! The life of one job on this box.
//!
//! ```text
//! accepted ─image, container─▶ starting ─runs, ends─▶ ended ─artifacts packed─▶ packed ─sent, finish
//!     │                                                                          answered─▶ forgotten
//!     └──────────── cancelled: container stopped and removed ──────────────────────────────────▲
//! ```
//! It can be left anywhere and gone on with from the record, by this process or the next.

use nimbus_gpu_wire::Phase;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::artifact;
use crate::attend::{GRACE, attend};
use crate::container;
use crate::create::container_name;
use crate::image;
use crate::link::Pause;
use crate::outcome::Fault;
use crate::state::{Record, Stage};
use crate::worker::Worker;

/// Runs a job to its end, from whatever its record says. When this returns, the box is free for the next;
/// what is left of this one may still be on its way out.
pub(crate) async fn run(worker: &Worker, mut record: Record, cancel: CancellationToken) {
    let job = record.assignment.job.clone();
    let ended = live(worker, &mut record, &cancel).await;
    let name = container_name(&job);
    match ended {
        Ended::Told => {
            let (worker, record) = (worker.clone(), record);
            // The server knows: the next job need not wait for a file system to be unmounted.
            tokio::spawn(async move { leave(&worker, &record, &name).await });
        }
        Ended::Cancelled => {
            info!(gpu.job = job, "cancelled: stopping {name}");
            worker.tell(&job, Phase::Ending, None, Some("being stopped".to_owned()));
            if let Err(error) = worker.engine.stop(&name, GRACE).await {
                warn!(
                    gpu.job = job,
                    "{name} does not stop, so it is removed as it is: {error}"
                );
            }
            leave(worker, &record, &name).await;
        }
    }
}

/// Takes away what is left of a job: first the container, whose name keeps the job from running again.
async fn leave(worker: &Worker, record: &Record, name: &str) {
    let job = &record.assignment.job;
    let mut pause = Pause::default();
    while let Err(error) = worker.engine.remove(name).await {
        warn!(gpu.job = job, "{name} cannot be removed yet: {error}");
        pause.wait().await;
    }
    while let Err(error) = worker.state.forget(record).await {
        warn!(gpu.job = job, "the job's record cannot be removed yet: {error}");
        pause.wait().await;
    }
    worker.release(job);
    info!(gpu.job = job, "nothing is left of {name}");
}

enum Ended {
    /// The server knows how.
    Told,
    /// The server wants it no more.
    Cancelled,
}

async fn live(worker: &Worker, record: &mut Record, cancel: &CancellationToken) -> Ended {
    let job = record.assignment.job.clone();
    let attempt = record.assignment.attempt;
    // Needed where the container is still to be made.
    let mut user = String::new();
    if record.stage == Stage::Accepted {
        let image = record.assignment.image.clone();
        let present = tokio::select! {
            biased;
            () = cancel.cancelled() => return Ended::Cancelled,
            present = image::ensure(worker, &job, &image) => present,
        };
        match present {
            Ok(found) => user = found,
            Err(fault) => end(worker, record, fault).await,
        }
    }
    // Not left half way by a cancel: what a call to the engine begins, it also ends.
    if record.stage < Stage::Ended
        && let Err(fault) = container::ensure(worker, record, &user).await
    {
        end(worker, record, fault).await;
    }
    if record.stage < Stage::Ended {
        worker.tell(&job, Phase::Running, None, None);
        let outcome = tokio::select! {
            biased;
            () = cancel.cancelled() => return Ended::Cancelled,
            outcome = attend(worker, record) => outcome,
        };
        record.outcome = Some(outcome);
        record.stage = Stage::Ended;
        worker.keep(record).await;
    }
    worker.tell(&job, Phase::Ending, None, None);
    tokio::select! {
        biased;
        () = cancel.cancelled() => return Ended::Cancelled,
        () = hand_over(worker, record) => {}
    }
    info!(gpu.job = job, attempt, "Nimbus knows how {job} ended");
    Ended::Told
}

/// The job is over without its container having run to an end.
async fn end(worker: &Worker, record: &mut Record, fault: Fault) {
    warn!(
        gpu.job = record.assignment.job,
        code = fault.code,
        "{}",
        fault.error
    );
    record.outcome = Some(fault.outcome(record.assignment.attempt));
    record.stage = Stage::Ended;
    worker.keep(record).await;
}

/// Sends the artifacts and tells how the job ended.
async fn hand_over(worker: &Worker, record: &mut Record) {
    let job = record.assignment.job.clone();
    let Some(mut outcome) = record.outcome.clone() else {
        return;
    };
    if record.stage == Stage::Ended {
        let limit = record.assignment.limits.artifact_bytes;
        artifact::pack(worker, &job, &container_name(&job), limit, &mut outcome).await;
        record.outcome = Some(outcome.clone());
        record.stage = Stage::Packed;
        // Without artifacts the stage before tells the same.
        if outcome.artifact_bytes.is_some() || outcome.artifact_note.is_some() {
            worker.keep(record).await;
        }
    }
    artifact::send(worker, &job, &mut outcome).await;
    match worker.links.insist_finish(&job, &outcome).await {
        Ok(ack) if ack.counted => {}
        Ok(_) => info!(gpu.job = job, "Nimbus knew of another end of {job}"),
        Err(error) => warn!(gpu.job = job, "Nimbus does not know {job}: {error}"),
    }
}
