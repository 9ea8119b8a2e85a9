//! Signs of life, and what is said in answer to them.

use std::time::Duration;

use nimbus_gpu_wire::{BEAT_EVERY_MS, Beat, BeatReply, PROTOCOL};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::host::free_bytes;
use crate::link::LinkError;
use crate::worker::Worker;

/// The server may ask for other beats, within reason.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);

/// Beats until it is dropped: at the pace the server asks for, and at once when something has changed.
pub(crate) async fn beat(worker: Worker) {
    let mut reached = None;
    let mut refused_since = None;
    let mut pace = Duration::from_millis(BEAT_EVERY_MS.into());
    loop {
        match worker.links.beat(&compose(&worker)).await {
            Ok(reply) => {
                refused_since = None;
                if reached != Some(true) {
                    info!("Nimbus answers over {}", worker.links.name());
                }
                reached = Some(true);
                if reply.beat_ms > 0 {
                    pace = Duration::from_millis(reply.beat_ms.into()).clamp(SHORTEST, LONGEST);
                }
                worker.met(reply.drain);
                obey(&worker, reply);
            }
            Err(error) => {
                if reached != Some(false) {
                    warn!("{error}");
                }
                reached = Some(false);
                if matches!(error, LinkError::Unpaired { .. }) {
                    let since = *refused_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= worker.config.unpaired_after {
                        give_up(&worker);
                    }
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pace) => {}
            () = worker.changed() => {}
        }
    }
}

/// Follows what the server says between beats.
pub(crate) async fn listen(worker: Worker, mut told: mpsc::Receiver<BeatReply>) {
    while let Some(reply) = told.recv().await {
        obey(&worker, reply);
    }
}

/// The server counts what this worker holds as cancelled or lost by now.
fn give_up(worker: &Worker) {
    for held in worker.held() {
        warn!(
            gpu.job = held.job,
            "this worker is not paired any more, so {} is stopped", held.job
        );
        worker.cancel(&held.job);
    }
}

fn obey(worker: &Worker, reply: BeatReply) {
    for job in reply.cancel {
        worker.cancel(&job);
    }
}

fn compose(worker: &Worker) -> Beat {
    let disk = free_bytes(&worker.facts().root_dir).or_else(|| free_bytes(&worker.config.state_dir));
    Beat {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        boot: worker.start_id.to_string(),
        link: worker.links.name().to_owned(),
        held: worker.held(),
        trouble: worker.trouble(),
        gpus: worker.gpus.borrow().clone(),
        arch: worker.host.arch.to_owned(),
        cpus: worker.host.cpus,
        memory_bytes: worker.host.memory_bytes,
        disk_free_bytes: disk.unwrap_or(0),
    }
}
