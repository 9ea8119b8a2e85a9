//! Stays with a running container until it has ended: its log, its time limit, and how it came to an end.

use std::time::Duration;

use nimbus_gpu_wire::{Outcome, Phase};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::create::container_name;
use crate::engine::EngineError;
use crate::host::since_boot;
use crate::link::Pause;
use crate::log;
use crate::outcome::{Circumstances, Fault, Seen, judge};
use crate::state::Record;
use crate::worker::Worker;

/// Between SIGTERM and SIGKILL.
pub(crate) const GRACE: Duration = Duration::from_secs(3);

/// The time limit is looked at no later than this: sleep of the box counts, and timers do not know it.
const LOOK: Duration = Duration::from_secs(60);

/// An engine that is being stopped ends its containers first and is gone soon after.
const ENGINE_GOES: Duration = Duration::from_secs(3);

/// Returns with the outcome when the container has ended and its whole log is with the server.
pub(crate) async fn attend(worker: &Worker, record: &mut Record) -> Outcome {
    let job = record.assignment.job.clone();
    let attempt = record.assignment.attempt;
    let name = container_name(&job);
    let (over, ended) = watch::channel(false);
    let end = async {
        let seen = end_of(worker, record, &name).await;
        over.send_replace(true);
        seen
    };
    // A task of its own: each piece of a log wakes it and nothing else. It ends with what waits for it.
    let pump = AbortOnDropHandle::new(tokio::spawn(log::pump(
        worker.clone(),
        job.clone(),
        name.clone(),
        ended,
    )));
    let (seen, log_bytes) = tokio::join!(end, pump);
    let log_bytes = log_bytes.expect("a panic ends the worker, and nobody else ends the task");
    let Some(seen) = seen else {
        let fault = Fault::engine("its container was removed from the box by somebody else");
        let mut outcome = fault.outcome(attempt);
        outcome.log_bytes = log_bytes;
        return outcome;
    };
    let limits = &record.assignment.limits;
    let what = Circumstances {
        timed_out: record.timed_out,
        engine_lost: record.engine_lost,
        box_restarted: record
            .boot_id
            .as_ref()
            .is_some_and(|boot| *boot != worker.host.boot_id),
        time_limit: Duration::from_secs(limits.time_s),
        memory_bytes: limits.memory_bytes,
    };
    judge(&seen, &what, attempt, log_bytes)
}

/// Waits for the container's end; `None` if it is gone.
async fn end_of(worker: &Worker, record: &mut Record, name: &str) -> Option<Seen> {
    let job = record.assignment.job.clone();
    let limit = Duration::from_secs(record.assignment.limits.time_s);
    let mut pause = Pause::default();
    loop {
        match worker.engine.inspect(name).await {
            Ok(None) => return None,
            Ok(Some(seen)) if seen.is_over() => {
                worker.tell(&job, Phase::Ending, seen.started_at, None);
                let mut seen = seen;
                let killed = matches!(seen.exit_code, 137 | 143) && !seen.oom_killed;
                if killed && !record.timed_out && !record.engine_lost {
                    record.engine_lost = engine_goes(worker, name, &mut seen).await;
                }
                info!(
                    gpu.job = job,
                    exit_code = seen.exit_code,
                    "{name} has ended with {}",
                    seen.exit_code
                );
                return Some(seen);
            }
            Ok(Some(seen)) => worker.tell(&job, Phase::Running, seen.started_at, None),
            Err(error) => {
                lost(worker, record, &error).await;
                pause.wait().await;
                continue;
            }
        }
        let ran = since_boot().saturating_sub(Duration::from_millis(record.started_ms));
        let left = limit.saturating_sub(ran);
        if left.is_zero() && !record.timed_out {
            info!(gpu.job = job, "stopping {name} after {limit:?}");
            record.timed_out = true;
            worker.keep(record).await;
        }
        if record.timed_out {
            if let Err(error) = worker.engine.stop(name, GRACE).await {
                warn!(gpu.job = job, "{name} does not stop: {error}");
                pause.wait().await;
            }
            continue;
        }
        tokio::select! {
            ended = worker.engine.wait(name) => match ended {
                Ok(()) | Err(EngineError::Missing { .. }) => {}
                Err(error) => {
                    lost(worker, record, &error).await;
                    pause.wait().await;
                }
            },
            () = tokio::time::sleep(left.min(LOOK)) => {}
        }
    }
}

/// Notes that the engine went away while the container ran.
async fn lost(worker: &Worker, record: &mut Record, error: &EngineError) {
    if !record.engine_lost {
        warn!(gpu.job = record.assignment.job, "{error}");
        record.engine_lost = true;
        worker.keep(record).await;
    }
}

/// Whether the engine goes away now, which would be why the container was killed. Another reason may
/// come late: the engine learns of a lack of memory apart from the end.
async fn engine_goes(worker: &Worker, name: &str, seen: &mut Seen) -> bool {
    let until = since_boot() + ENGINE_GOES;
    let mut pause = Pause::default();
    while since_boot() < until && !seen.oom_killed {
        match worker.engine.inspect(name).await {
            Err(EngineError::Away { .. }) => return true,
            Ok(Some(again)) => *seen = again,
            _ => {}
        }
        pause.wait().await;
    }
    false
}
