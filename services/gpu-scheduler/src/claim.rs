//! Boxes that ask for their next job over HTTP.
//!
//! A box that beats is given jobs like one on the bus; it fetches here what lies ready for it, and gets
//! the same again until a beat shows that it has it. A box that never beats, as older workers do not, is
//! given a job only while it asks: asking means that it has none. If the tables say that it has one,
//! that one is lost, because it may have begun and must not begin twice.

use std::time::Duration;

use nimbus_gpu_wire::Assignment;
use nimbus_store::{Tx, execute, sqlx};
use tokio::time::{Instant, timeout_at};

use crate::error::GpuError;
use crate::plane::{After, Plane};
use crate::rows::{WorkerRow, free_worker, lock_job, lock_worker};

/// The longest a claim may wait.
const LONGEST: Duration = Duration::from_secs(20);
/// How often a waiting claim looks by itself, should nobody wake it.
const LOOK: Duration = Duration::from_secs(2);

impl Plane {
    pub(crate) async fn claim(&self, worker: &str, wait_ms: u32) -> Result<Option<Assignment>, GpuError> {
        let until = Instant::now() + Duration::from_millis(u64::from(wait_ms)).min(LONGEST);
        let waiting = self.wakes.wait_for_worker(worker);
        loop {
            let next = waiting.next();
            let (plane, name) = (self.clone(), worker.to_owned());
            let (claimed, pool, after) = self
                .store
                .write(move |tx| Box::pin(async move { plane.claim_in(tx, &name).await }))
                .await?;
            self.follow_up(after);
            if claimed.is_some() {
                return Ok(claimed);
            }
            self.assign(&pool).await;
            if Instant::now() >= until {
                return Ok(None);
            }
            // Elapsed is as good as woken: both mean look again.
            let _ = timeout_at(until.min(Instant::now() + LOOK), next).await;
        }
    }

    async fn claim_in(
        &self,
        tx: &mut Tx,
        name: &str,
    ) -> Result<(Option<Assignment>, String, After), GpuError> {
        let mut after = After::default();
        let mut worker = lock_worker(tx, name).await?.ok_or(GpuError::UnknownWorker)?;
        let claimed = match worker.link.as_str() {
            "" | "old" => self.claim_old(tx, &mut worker, &mut after).await?,
            _ => match worker.slot() {
                Some((job, attempt)) => lock_job(tx, job)
                    .await?
                    .filter(|row| row.held == 0 && row.runs_on(name, attempt))
                    .map(|row| self.assignment(&row))
                    .transpose()?,
                None => None,
            },
        };
        Ok((claimed, worker.pool, after))
    }

    async fn claim_old(
        &self,
        tx: &mut Tx,
        worker: &mut WorkerRow,
        after: &mut After,
    ) -> Result<Option<Assignment>, GpuError> {
        let before = worker.clone();
        self.heard_old(tx, worker).await?;
        if let Some((job, attempt)) = worker.slot() {
            if let Some(row) = lock_job(tx, job).await?
                && row.runs_on(&worker.name, attempt)
            {
                self.lose(
                    tx,
                    row,
                    "the box asked for another job while it had this one",
                    after,
                )
                .await?;
            }
            free_worker(tx, worker).await?;
        }
        let given = if worker.standing == "active" {
            self.give_first(tx, worker, after).await?
        } else {
            None
        };
        if given.is_none() && (before.state != worker.state || before.job != worker.job) {
            self.tell_worker(tx, worker).await?;
        }
        given.map(|job| self.assignment(&job)).transpose()
    }

    /// Counts a sign of life of a box that does not beat.
    pub(crate) async fn heard_old(&self, tx: &mut Tx, worker: &mut WorkerRow) -> Result<(), GpuError> {
        const HEARD: &str = "UPDATE gpu_worker SET state = 'online', link = 'old', beats = beats + 1, last_beat_at = $2 WHERE name = $1";
        let at = self.clock.now();
        worker.state = "online".into();
        worker.link = "old".into();
        worker.last_beat_at = Some(at);
        execute!(tx, sqlx::query(HEARD).bind(&worker.name).bind(at))?;
        Ok(())
    }
}
