//! Noticing that a box is silent, and that it is lost.
//!
//! One replica watches. It counts by its own steady clock how long the number of a box' beats has not
//! grown since *it* began to look: a wall clock that jumps, a restart of this service, or a database or
//! bus that was away never makes a healthy box a lost one, because after each of them the watch begins
//! anew.

use std::collections::HashMap;
use std::time::Duration;

use nimbus_store::{Tx, execute, sqlx};
use tokio::time::Instant;
use tracing::warn;

use crate::error::GpuError;
use crate::plane::{After, Plane};
use crate::rows::{WorkerRow, lock_job, lock_worker, read_workers};

/// The watch's lease.
const LEASE: &str = "gpu-scheduler.watch";
/// How long a replica that has died keeps it.
const TTL: Duration = Duration::from_secs(5);
/// How often the boxes are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// A look that took longer than this was held up: what it saw is not evidence of silence.
const HELD_UP: Duration = Duration::from_secs(3);

/// Since when the beats of each box have stood still.
#[derive(Debug, Default)]
struct Stillness {
    seen: HashMap<String, (i64, Instant)>,
}

impl Stillness {
    /// How long a box has been still at `now`; a box that was not looked at before begins now.
    fn of(&mut self, worker: &str, beats: i64, now: Instant) -> Duration {
        let (last, since) = self.seen.entry(worker.to_owned()).or_insert((beats, now));
        if *last != beats {
            (*last, *since) = (beats, now);
        }
        now.saturating_duration_since(*since)
    }

    /// Forgets boxes that are there no more.
    fn keep(&mut self, workers: &[WorkerRow]) {
        self.seen
            .retain(|name, _| workers.iter().any(|worker| &worker.name == name));
    }
}

impl Plane {
    /// Watches for as long as this replica has the lease; returns when the service stops.
    pub(crate) async fn watch(&self, stop: tokio_util::sync::CancellationToken) {
        self.bus.singleton(LEASE, TTL, stop, || self.look_on()).await;
    }

    async fn look_on(&self) {
        let mut stillness = Stillness::default();
        let mut last = Instant::now();
        loop {
            tokio::time::sleep(LOOK).await;
            if last.elapsed() > HELD_UP || !self.bus.is_connected() {
                // This process slept, or no beat could reach it.
                stillness = Stillness::default();
            }
            match self.look(&mut stillness).await {
                Ok(()) => {}
                Err(error) => {
                    warn!(
                        "could not look at the GPU boxes: {}",
                        nimbus_errors::chain(&error)
                    );
                    stillness = Stillness::default();
                }
            }
            last = Instant::now();
        }
    }

    async fn look(&self, stillness: &mut Stillness) -> Result<(), GpuError> {
        let workers = read_workers(&self.store).await?;
        stillness.keep(&workers);
        for worker in workers {
            let still = stillness.of(&worker.name, worker.beats, Instant::now());
            // One that was paired again while it had a job may never come back with it.
            let wanted = if worker.state == "new" && worker.job.is_none() {
                continue;
            } else if still >= self.config.lost_after {
                "lost"
            } else if still >= self.config.silent_after {
                "silent"
            } else {
                continue;
            };
            let later = matches!(
                (worker.state.as_str(), wanted),
                ("online", _) | ("silent" | "new", "lost")
            );
            if later {
                self.fell_silent(&worker, wanted).await?;
            }
        }
        Ok(())
    }

    async fn fell_silent(&self, worker: &WorkerRow, state: &'static str) -> Result<(), GpuError> {
        let (plane, name, beats) = (self.clone(), worker.name.clone(), worker.beats);
        let (pool, after) = self
            .store
            .write(move |tx| Box::pin(async move { plane.fell_silent_in(tx, &name, beats, state).await }))
            .await?;
        self.follow_up(after);
        if let Some(pool) = pool {
            // A job that is queued again may go elsewhere.
            self.assign(&pool).await;
        }
        Ok(())
    }

    async fn fell_silent_in(
        &self,
        tx: &mut Tx,
        name: &str,
        beats: i64,
        state: &'static str,
    ) -> Result<(Option<String>, After), GpuError> {
        const SILENT: &str = "UPDATE gpu_worker SET state = $2 WHERE name = $1";
        let mut after = After::default();
        let Some(mut worker) = lock_worker(tx, name).await?.filter(|row| row.beats == beats) else {
            // It was heard meanwhile.
            return Ok((None, after));
        };
        warn!(gpu.worker = name, "{name} is {state}");
        execute!(tx, sqlx::query(SILENT).bind(name).bind(state))?;
        worker.state = state.into();
        // One that does not beat is silent while its job prints nothing: it says that it lives by asking
        // for the next one, and is told then.
        if state == "lost"
            && worker.link != "old"
            && let Some((job, attempt)) = worker.slot()
            && let Some(row) = lock_job(tx, job).await?
            && row.runs_on(name, attempt)
        {
            let silent = self.config.lost_after.as_secs();
            self.lose(tx, row, &format!("the box was silent for {silent} s"), &mut after)
                .await?;
        }
        self.tell_worker(tx, &worker).await?;
        Ok((Some(worker.pool), after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_watched_counts() {
        let mut stillness = Stillness::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(stillness.of("a", 7, at(100)), Duration::ZERO);
        assert_eq!(stillness.of("a", 7, at(109)), Duration::from_secs(9));
        assert_eq!(stillness.of("a", 8, at(110)), Duration::ZERO);
        assert_eq!(stillness.of("a", 8, at(231)), Duration::from_secs(121));
        stillness.keep(&[]);
        assert_eq!(stillness.of("a", 8, at(300)), Duration::ZERO);
    }
}
