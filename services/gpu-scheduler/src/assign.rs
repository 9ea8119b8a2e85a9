//! Giving jobs to boxes: the first of the queue to the box that waits longest, both in one transaction.
//!
//! It is tried whenever one of the two appears: a job is submitted or queued again, a box is free,
//! comes online or is resumed. Every beat of an idle box tries too, which makes good whatever a crash
//! between two of these has swallowed.

use nimbus_model::JobId;
use nimbus_store::{Engine, StoreError, Tx, both, execute, reading, sqlx};
use tracing::{info, warn};

use crate::error::GpuError;
use crate::plane::{After, Plane};
use crate::rows::{JobRow, WorkerRow, job_columns, locking, next, worker_columns};

/// Tries when others were in between: on PostgreSQL a row that was waited for may have become unfit.
const TRIES: u32 = 3;

macro_rules! idle {
    () => {
        "state = 'online' AND standing = 'active' AND job IS NULL AND trouble = 0 AND link IN ('nats', 'http')"
    };
}

impl Plane {
    /// Gives out jobs of a pool until there are no more, or nobody takes them.
    pub(crate) async fn assign(&self, pool: &str) {
        let mut left = TRIES;
        while left > 0 {
            match self.assign_next(pool).await {
                Ok(true) => left = TRIES,
                Ok(false) => match self.may_assign(pool).await {
                    Ok(true) => left -= 1,
                    Ok(false) => return,
                    Err(error) => return complain(pool, &error.into()),
                },
                Err(error) => return complain(pool, &error),
            }
        }
    }

    /// Whether a job waits that somebody could take: a look without a lock, because most of the time
    /// there is nothing to do.
    async fn may_assign(&self, pool: &str) -> Result<bool, StoreError> {
        const SQL: &str = concat!(
            "SELECT COUNT(*) FROM (SELECT 1 AS one FROM gpu_worker WHERE pool = $1 AND ",
            idle!(),
            " AND EXISTS (SELECT 1 FROM gpu_job WHERE pool = $1 AND state = 'queued') LIMIT 1) AS pairs"
        );
        let pairs: i64 = reading!(&self.store, |c| sqlx::query_scalar(SQL)
            .bind(pool)
            .fetch_one(c)
            .await)?;
        Ok(pairs > 0)
    }

    async fn assign_next(&self, pool: &str) -> Result<bool, GpuError> {
        if !self.may_assign(pool).await? {
            return Ok(false);
        }
        let (plane, pool) = (self.clone(), pool.to_owned());
        let given = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    // Also the order of those who give out jobs: first in the queue is first to go.
                    let turn = next(tx, "turn").await?;
                    let Some(mut worker) = idle_worker(tx, &pool).await? else {
                        return Ok(None);
                    };
                    let Some(job) = first_job(tx, &pool).await? else {
                        return Ok(None);
                    };
                    let mut after = After::default();
                    plane.give(tx, job, &mut worker, turn, &mut after).await?;
                    Ok::<_, GpuError>(Some(after))
                })
            })
            .await?;
        let Some(after) = given else {
            return Ok(false);
        };
        self.follow_up(after);
        Ok(true)
    }

    /// Gives the first job of its pool to a box that asks for one itself, as those do that do not beat.
    pub(crate) async fn give_first(
        &self,
        tx: &mut Tx,
        worker: &mut WorkerRow,
        after: &mut After,
    ) -> Result<Option<JobRow>, GpuError> {
        let turn = next(tx, "turn").await?;
        match first_job(tx, &worker.pool).await? {
            Some(job) => Ok(Some(self.give(tx, job, worker, turn, after).await?)),
            None => Ok(None),
        }
    }

    async fn give(
        &self,
        tx: &mut Tx,
        mut job: JobRow,
        worker: &mut WorkerRow,
        turn: i64,
        after: &mut After,
    ) -> Result<JobRow, GpuError> {
        const JOB: &str = "UPDATE gpu_job SET state = 'running', worker = $2, attempt = $3, held = 0, missed = 0, stored = NULL,
                phase = 'assigned', phase_note = NULL
            WHERE id = $1 AND state = 'queued'";
        const WORKER: &str =
            "UPDATE gpu_worker SET job = $2, attempt = $3, turn = $4 WHERE name = $1 AND job IS NULL";
        job.attempt += 1;
        job.state = "running".into();
        job.worker = Some(worker.name.clone());
        (job.held, job.missed, job.stored) = (0, 0, None);
        (job.phase, job.phase_note) = (Some("assigned".into()), None);
        let taken = execute!(
            tx,
            sqlx::query(JOB).bind(job.id).bind(&worker.name).bind(job.attempt)
        )?;
        let given = execute!(
            tx,
            sqlx::query(WORKER)
                .bind(&worker.name)
                .bind(job.id)
                .bind(job.attempt)
                .bind(turn)
        )?;
        if (taken, given) != (1, 1) {
            // Both rows are locked, so this is a bug; nothing of it may stay.
            return Err(GpuError::NotQueued { job: job.id });
        }
        (worker.job, worker.attempt) = (Some(job.id), Some(job.attempt));
        if worker.link == "nats" {
            after
                .publish
                .push((worker.name.clone(), worker.pool.clone(), self.assignment(&job)?));
        }
        after.jobs.push(job.id);
        after.workers.push(worker.name.clone());
        self.tell_job(tx, &job).await?;
        self.tell_worker(tx, worker).await?;
        info!(gpu.job = %job.id, gpu.worker = worker.name, gpu.attempt = job.attempt, "{} goes to {}", job.id, worker.name);
        Ok(job)
    }

    /// Takes a job away from a box that is lost, or that has lost the job: it fails, or is queued again
    /// where its owner asked for that.
    pub(crate) async fn lose(
        &self,
        tx: &mut Tx,
        mut job: JobRow,
        reason: &str,
        after: &mut After,
    ) -> Result<(), GpuError> {
        // The artifact of an attempt goes with it; its log stays and the next attempt's follows it.
        const AGAIN: &str = "UPDATE gpu_job SET state = 'queued', worker = NULL, held = 0, missed = 0, stored = NULL, phase = NULL,
                phase_note = NULL, started_at = NULL, log_base = log_end, artifact_end = 0
            WHERE id = $1";
        const FORGET: &str = "DELETE FROM gpu_chunk WHERE job = $1 AND kind = 'artifact'";
        const FAIL: &str =
            "UPDATE gpu_job SET state = 'failed', code = 'gpu.worker_lost', error = $2, finished_at = $3,
                phase = NULL, phase_note = NULL
            WHERE id = $1";
        if let Some(place) = job.stored {
            after.unstore.push((job.id, place));
        }
        warn!(gpu.job = %job.id, gpu.worker = job.worker, gpu.rerun = job.rerun != 0, "{} has lost its box: {reason}", job.id);
        if job.rerun != 0 {
            execute!(tx, sqlx::query(AGAIN).bind(job.id))?;
            execute!(tx, sqlx::query(FORGET).bind(job.id))?;
            (job.worker, job.phase, job.phase_note) = (None, None, None);
            job.started_at = None;
            job.state = "queued".into();
        } else {
            let at = self.clock.now();
            execute!(tx, sqlx::query(FAIL).bind(job.id).bind(reason).bind(at))?;
            job.state = "failed".into();
            job.code = Some("gpu.worker_lost".into());
            job.error = Some(reason.to_owned());
            job.finished_at = Some(at);
        }
        after.jobs.push(job.id);
        self.tell_job(tx, &job).await
    }
}

fn complain(pool: &str, error: &GpuError) {
    let cause = nimbus_errors::chain(error);
    warn!(
        gpu.pool = pool,
        cause, "could not give out jobs of {pool}, the next beat tries again"
    );
}

async fn idle_worker(tx: &mut Tx, pool: &str) -> Result<Option<WorkerRow>, StoreError> {
    const SQL: &str = concat!(
        "SELECT ",
        worker_columns!(),
        " FROM gpu_worker WHERE pool = $1 AND ",
        idle!(),
        " ORDER BY turn, name LIMIT 1"
    );
    let sql = locking(tx, SQL);
    both!(tx, |c| sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(pool)
        .fetch_optional(c)
        .await)
}

const FIRST: &str = concat!(
    "SELECT ",
    job_columns!(),
    " FROM gpu_job WHERE pool = $1 AND state = 'queued' ORDER BY priority DESC, seq LIMIT 1"
);

/// The first of the queue. On PostgreSQL one that somebody is cancelling is passed over.
async fn first_job(tx: &mut Tx, pool: &str) -> Result<Option<JobRow>, StoreError> {
    let sql = match tx.engine() {
        Engine::Sqlite => FIRST.to_owned(),
        Engine::Postgres => format!("{FIRST} FOR UPDATE SKIP LOCKED"),
    };
    both!(tx, |c| sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(pool)
        .fetch_optional(c)
        .await)
}

/// A job's id as a box says it.
pub(crate) fn job_id(text: &str) -> Option<JobId> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use nimbus_store::testing::sqlite;

    use super::*;
    use crate::queue::AHEAD;

    /// However long the queue is, its head is one step away, and counting walks an index and no row.
    #[tokio::test]
    async fn the_queue_is_read_through_its_index() {
        let world = sqlite().await;
        let store = world.db.store("gpu", crate::MIGRATIONS).await.unwrap();
        for (sql, wanted) in [
            (FIRST, "SEARCH gpu_job USING INDEX gpu_job_queue (pool=?"),
            (AHEAD, "SEARCH gpu_job USING COVERING INDEX gpu_job_queue (pool=?"),
        ] {
            let sql = format!("EXPLAIN QUERY PLAN {sql}");
            let plan: Vec<(i64, i64, i64, String)> =
                reading!(&store, |c| sqlx::query_as(sqlx::AssertSqlSafe(sql))
                    .bind("default")
                    .bind(0_i64)
                    .bind(0_i64)
                    .bind(1_i64)
                    .fetch_all(c)
                    .await)
                .unwrap();
            let plan: Vec<String> = plan.into_iter().map(|(.., step)| step).collect();
            assert!(plan.iter().any(|step| step.starts_with(wanted)), "{plan:?}");
            assert!(
                !plan.iter().any(|step| step.starts_with("SCAN gpu_job")),
                "{plan:?}"
            );
        }
    }
}
