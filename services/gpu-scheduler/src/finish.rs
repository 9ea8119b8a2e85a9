//! The end of a job, as its box reports it. Reported until it is answered, so it may come twice.

use nimbus_gpu_wire::{FinishAck, Outcome, OutcomeState};
use nimbus_model::JobId;
use nimbus_store::{Tx, execute, sqlx};
use tracing::info;

use crate::assign::job_id;
use crate::error::GpuError;
use crate::plane::{After, Plane};
use crate::queue::began;
use crate::rows::{JobRow, WorkerRow, free_worker, lock_job, lock_worker, signed, unsigned};

/// Longest texts that are kept of a report.
const ERROR: usize = 2048;
const CODE: usize = 64;

impl Plane {
    /// Books the end of a job and gives its box the next one. A job that has ended stays as it is: the
    /// report is answered and does not count.
    pub(crate) async fn finish(
        &self,
        worker: &str,
        job: &str,
        outcome: Outcome,
    ) -> Result<FinishAck, GpuError> {
        let Some(job) = job_id(job) else {
            // Nothing of ours; whoever reports it may forget it.
            return Ok(FinishAck { counted: false });
        };
        let (plane, name) = (self.clone(), worker.to_owned());
        let (counted, pool, after) = self
            .store
            .write(move |tx| Box::pin(async move { plane.finish_in(tx, &name, job, outcome).await }))
            .await?;
        self.follow_up(after);
        self.assign(&pool).await;
        Ok(FinishAck { counted })
    }

    async fn finish_in(
        &self,
        tx: &mut Tx,
        name: &str,
        job: JobId,
        outcome: Outcome,
    ) -> Result<(bool, String, After), GpuError> {
        let mut after = After::default();
        let mut worker = lock_worker(tx, name).await?.ok_or(GpuError::UnknownWorker)?;
        let slot = worker.slot().filter(|(held, _)| *held == job);
        // An older worker does not know of attempts: it means the one it has.
        let attempt = match (outcome.attempt, slot) {
            (0, Some((_, attempt))) => attempt,
            (attempt, _) => i64::from(attempt),
        };
        let counted = match lock_job(tx, job).await? {
            Some(row) if row.runs_on(name, attempt) => {
                self.book(tx, row, outcome, &mut after).await?;
                true
            }
            _ => false,
        };
        if slot.is_some_and(|(_, held)| held == attempt) {
            self.release(tx, &mut worker).await?;
        }
        Ok((counted, worker.pool, after))
    }

    async fn release(&self, tx: &mut Tx, worker: &mut WorkerRow) -> Result<(), GpuError> {
        if worker.link == "old" {
            self.heard_old(tx, worker).await?;
        }
        free_worker(tx, worker).await?;
        self.tell_worker(tx, worker).await
    }

    async fn book(
        &self,
        tx: &mut Tx,
        mut job: JobRow,
        outcome: Outcome,
        after: &mut After,
    ) -> Result<(), GpuError> {
        const BOOK: &str = "UPDATE gpu_job SET state = $2, exit_code = $3, code = $4, error = $5, log_bytes = $6, log_truncated = $7,
                artifact_bytes = $8, artifact_sha256 = $9, artifact_note = $10, started_at = $11, finished_at = $12,
                phase = NULL, phase_note = NULL
            WHERE id = $1";
        let at = self.clock.now();
        job.state = match outcome.state {
            OutcomeState::Succeeded => "succeeded",
            OutcomeState::Failed => "failed",
        }
        .into();
        job.exit_code = Some(i64::from(outcome.exit_code));
        job.code = outcome.code.map(|code| code.chars().take(CODE).collect());
        job.error = outcome.error.map(|error| error.chars().take(ERROR).collect());
        job.log_bytes = job
            .log_bytes
            .max(job.log_end)
            .max(job.log_base.saturating_add(signed(outcome.log_bytes)));
        job.log_truncated = i64::from(job.log_bytes > job.log_end);
        match outcome.artifact_bytes.zip(outcome.artifact_sha256) {
            Some((bytes, sha256)) if signed(bytes) == job.artifact_end && bytes > 0 => {
                job.artifact_bytes = Some(signed(bytes));
                job.artifact_sha256 = Some(sha256.chars().take(CODE).collect());
            }
            Some((bytes, _)) => {
                let have = unsigned(job.artifact_end);
                job.artifact_note = Some(format!("{have} of {bytes} bytes have arrived"));
            }
            None => {
                job.artifact_note = outcome
                    .artifact_note
                    .map(|note| note.chars().take(ERROR).collect());
            }
        }
        job.started_at = began(at, outcome.started_at, outcome.finished_at).or(job.started_at);
        job.finished_at = Some(at);
        execute!(
            tx,
            sqlx::query(BOOK)
                .bind(job.id)
                .bind(&job.state)
                .bind(job.exit_code)
                .bind(&job.code)
                .bind(&job.error)
                .bind(job.log_bytes)
                .bind(job.log_truncated)
                .bind(job.artifact_bytes)
                .bind(&job.artifact_sha256)
                .bind(&job.artifact_note)
                .bind(job.started_at)
                .bind(job.finished_at)
        )?;
        if let Some(place) = job.stored {
            after.unstore.push((job.id, place));
        }
        after.jobs.push(job.id);
        info!(gpu.job = %job.id, gpu.worker = job.worker, gpu.exit_code = outcome.exit_code, "{} has {}", job.id, job.state);
        self.tell_job(tx, &job).await
    }
}
