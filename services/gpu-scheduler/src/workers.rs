//! The boxes: who they are, what is wanted of them.

use nimbus_proto::auth::Secret;
use nimbus_proto::gpu::{
    Figures, JobState, SetWorkerRequest, Standing, Worker, WorkerCredential, WorkerState,
};
use nimbus_store::{execute, reading, sqlx};
use strum::VariantArray;

use crate::error::GpuError;
use crate::plane::{After, Plane};
use crate::queue::is_label;
use crate::rows::{free_worker, lock_worker, read_workers};
use crate::secret::hash;

impl Plane {
    pub(crate) async fn workers(&self) -> Result<Vec<Worker>, GpuError> {
        read_workers(&self.store)
            .await?
            .iter()
            .map(crate::rows::WorkerRow::view)
            .collect()
    }

    /// How many boxes and jobs there are.
    pub(crate) async fn figures(&self) -> Result<Figures, GpuError> {
        const JOBS: &str =
            "SELECT state, COUNT(*) FROM gpu_job WHERE state IN ('queued', 'running') GROUP BY state";
        let jobs: Vec<(String, i64)> = reading!(&self.store, |c| sqlx::query_as(JOBS).fetch_all(c).await)?;
        let count = |state: JobState| {
            let found = jobs.iter().find(|(name, _)| *name == state.to_string());
            found.map_or(0, |(_, count)| u64::try_from(*count).unwrap_or(0))
        };
        let boxes = self.workers().await?;
        let of = |state: WorkerState| boxes.iter().filter(|one| one.state == state).count();
        Ok(Figures {
            boxes: WorkerState::VARIANTS
                .iter()
                .map(|state| (*state, u32::try_from(of(*state)).unwrap_or(u32::MAX)))
                .collect(),
            queued: count(JobState::Queued),
            running: count(JobState::Running),
        })
    }

    /// The name of the box whose token this is. What it calls itself does not count.
    pub(crate) async fn authenticate(&self, credential: &WorkerCredential) -> Result<String, GpuError> {
        self.owner_of(&credential.token)
            .await?
            .ok_or(GpuError::UnknownWorker)
    }

    async fn owner_of(&self, token: &Secret) -> Result<Option<String>, GpuError> {
        // Found by its hash: how long that takes tells nothing of the token.
        const SQL: &str = "SELECT name FROM gpu_worker WHERE token = $1";
        let Some(hash) = hash(token) else {
            return Ok(None);
        };
        Ok(reading!(&self.store, |c| sqlx::query_scalar(SQL)
            .bind(hash)
            .fetch_optional(c)
            .await)?)
    }

    /// Pauses, drains or resumes a box, or moves it to another pool. A job that it has stays.
    pub(crate) async fn set_worker(&self, request: SetWorkerRequest) -> Result<Worker, GpuError> {
        const SET: &str = "UPDATE gpu_worker SET standing = $2, pool = $3 WHERE name = $1";
        if let Some(pool) = request.pool.as_deref()
            && !is_label(pool)
        {
            return Err(GpuError::invalid("pool", "a pool is named by a-z, 0-9 and '-'"));
        }
        let plane = self.clone();
        let row = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    let mut row = lock_worker(tx, request.worker.as_str())
                        .await?
                        .ok_or_else(|| GpuError::no_worker(&request.worker))?;
                    if let Some(standing) = request.standing {
                        row.standing = standing.to_string();
                    }
                    if let Some(pool) = request.pool {
                        row.pool = pool;
                    }
                    execute!(
                        tx,
                        sqlx::query(SET)
                            .bind(&row.name)
                            .bind(&row.standing)
                            .bind(&row.pool)
                    )?;
                    if row.job.is_none() && row.standing()? == Standing::Draining {
                        // There is nothing to wait for.
                        free_worker(tx, &mut row).await?;
                    }
                    plane.tell_worker(tx, &row).await?;
                    Ok::<_, GpuError>(row)
                })
            })
            .await?;
        self.follow_up(After::default());
        self.assign(&row.pool).await;
        row.view()
    }
}
