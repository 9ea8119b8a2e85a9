//! Brings a job's container to life, once: whatever was begun before is found by its name.

use std::time::Duration;

use nimbus_gpu_wire::{Assignment, Phase};
use tracing::{info, warn};

use crate::create;
use crate::engine::EngineError;
use crate::host::since_boot;
use crate::link::Pause;
use crate::outcome::Fault;
use crate::state::{Record, Stage};
use crate::worker::Worker;

/// A start that an earlier worker asked for is done or lost by then.
const SETTLED: Duration = Duration::from_secs(10);

/// Makes sure that the job's container was started, by this worker or an earlier one. `user` is whom the
/// image's programs run as.
///
/// A job that has just come is taken to have none, and the engine says otherwise if it is so: of what
/// lies between a job's arrival and its start, calls to the engine are the largest part.
///
/// ```text
///            stage     no container     made, not started      started
///  accepted            make it          start it               -
///  starting            lost: fault      settle, start it       done
/// ```
pub(crate) async fn ensure(worker: &Worker, record: &mut Record, user: &str) -> Result<(), Fault> {
    let name = create::container_name(&record.assignment.job);
    let mut pause = Pause::default();
    let mut known = record.stage != Stage::Accepted;
    loop {
        let step = async {
            if known {
                look(worker, record, &name, user).await
            } else if make(worker, &record.assignment, &name, user).await? {
                start(worker, record, &name, user).await
            } else {
                Ok(false)
            }
        };
        let done = step.await;
        known = true;
        match done {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(Trouble::Job(fault)) => return Err(fault),
            Err(Trouble::Engine(EngineError::Away { .. })) => pause.wait().await,
            Err(Trouble::Engine(EngineError::NoSpace { .. })) => {
                return Err(Fault::engine(
                    "no space is left on the box for the job's container",
                ));
            }
            Err(Trouble::Engine(error)) => return Err(Fault::engine(error.detail())),
        }
    }
}

enum Trouble {
    Job(Fault),
    Engine(EngineError),
}

impl From<EngineError> for Trouble {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

/// One look and one act; whether the container was started.
async fn look(worker: &Worker, record: &mut Record, name: &str, user: &str) -> Result<bool, Trouble> {
    let attempt = record.assignment.attempt;
    match worker.engine.inspect(name).await? {
        None if record.stage == Stage::Starting => Err(Trouble::Job(Fault::engine(
            "its container is gone from the box; a job is not started twice",
        ))),
        None => {
            make(worker, &record.assignment, name, user).await?;
            Ok(false)
        }
        // Left by an attempt that was given up.
        Some(seen) if seen.attempt != attempt => {
            worker.engine.remove(name).await?;
            Ok(false)
        }
        Some(seen) if seen.created && seen.error.is_none() => {
            settle(record).await;
            if record.stage == Stage::Starting && worker.engine.inspect(name).await? != Some(seen) {
                return Ok(false);
            }
            start(worker, record, name, user).await
        }
        Some(_) => Ok(true),
    }
}

/// Starts a container that was made and never started; whether it was.
async fn start(worker: &Worker, record: &mut Record, name: &str, user: &str) -> Result<bool, Trouble> {
    let attempt = record.assignment.attempt;
    let job = record.assignment.job.clone();
    // Here and not where it is made: who made it may have died right after.
    if record.stage != Stage::Starting && !create::is_root(user) {
        worker.engine.put(name, create::artifacts_folder()).await?;
    }
    // Also where it was written down before: the time limit counts from this start.
    record.stage = Stage::Starting;
    record.boot_id = Some(worker.host.boot_id.clone());
    record.started_ms = millis(since_boot());
    // Waited for even on a full disk: what is not written down could be started twice.
    let mut pause = Pause::default();
    while let Err(error) = worker.state.save(record).await {
        warn!(gpu.job = job, "{job} cannot be started yet: {error}");
        worker.tell(&job, Phase::Assigned, None, Some(error.to_string()));
        pause.wait().await;
    }
    info!(gpu.job = job, attempt, "starting {name}");
    match worker.engine.start(name).await {
        Ok(()) => Ok(true),
        // The container itself says why it could not be started.
        Err(error @ (EngineError::Refused { .. } | EngineError::Missing { .. })) => {
            warn!(gpu.job = job, "{error}");
            match worker.engine.inspect(name).await? {
                Some(seen) if seen.error.is_some() => Ok(true),
                _ => Err(Trouble::Job(Fault::engine(error.detail()))),
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// An earlier worker may have asked for the start just before it died.
async fn settle(record: &Record) {
    if record.stage == Stage::Starting {
        let asked = Duration::from_millis(record.started_ms);
        tokio::time::sleep(SETTLED.saturating_sub(since_boot().saturating_sub(asked))).await;
    }
}

/// Makes the container. False if there is one of this name.
async fn make(worker: &Worker, job: &Assignment, name: &str, user: &str) -> Result<bool, Trouble> {
    for dataset in job.datasets.iter().filter(|dataset| !dataset.writable) {
        // The engine would make an empty one.
        if !worker.engine.has_volume(&create::volume_name(dataset)).await? {
            return Err(Trouble::Job(Fault::engine(format!(
                "the box has no dataset {}; a job that may write to it makes it",
                dataset.name
            ))));
        }
    }
    let facts = worker.known_facts().await;
    let has_gpu = !worker.gpus.borrow().is_empty();
    let requests = create::devices(&worker.config.devices, &facts, has_gpu);
    let ground = create::Ground {
        facts,
        requests,
        root: create::is_root(user),
    };
    let body = create::body(job, &worker.config, ground);
    match worker.engine.create(name, body).await {
        Ok(()) => Ok(true),
        // By an earlier worker, or by a call that seemed lost: a look tells.
        Err(EngineError::Conflict { .. }) => Ok(false),
        Err(EngineError::Missing { detail, .. }) => Err(Trouble::Job(Fault::image(detail))),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
