//! What every capability works with, and what is done after a change is committed.

use std::sync::Arc;

use bytes::Bytes;
use nimbus_bus::{Bus, BusError, CloudEvent, Event};
use nimbus_gpu_wire::{Assignment, BeatReply, JOBS_STREAM, PROTOCOL, subject};
use nimbus_model::{Clock, JobId};
use nimbus_proto::event::{GpuJobChanged, GpuWorkerChanged};
use nimbus_service::{Outbox, Tasks};
use nimbus_store::{Sealer, Store, StoreError, Tx, execute, sqlx};
use tracing::{debug, warn};

use crate::config::GpuConfig;
use crate::error::GpuError;
use crate::inference::Probe;
use crate::rows::{JobRow, WorkerRow, read_worker};
use crate::wake::Wakes;

/// The service's name in events and leases.
pub(crate) const SERVICE: &str = "gpu-scheduler";

/// nats-server: no stream takes this subject, told as "no responders".
const NO_STREAM: u64 = 10059;

/// The GPU plane of this process. Clones share.
#[derive(Clone)]
pub(crate) struct Plane {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub store: Store,
    pub outbox: Outbox,
    pub sealer: Sealer,
    pub clock: Clock,
    pub bus: Bus,
    pub tasks: Tasks,
    pub config: GpuConfig,
    pub wakes: Wakes,
    pub probe: Probe,
}

impl std::ops::Deref for Plane {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.inner
    }
}

/// What is to be done once a transaction is committed. None of it is needed for the truth of the
/// tables: what a crash swallows here, beats and the periodic pass make good.
#[derive(Debug, Default)]
pub(crate) struct After {
    /// Assignments to put into the stream: worker, its pool, the job.
    pub publish: Vec<(String, String, Assignment)>,
    /// Assignments to take out of the stream: the job and its place.
    pub unstore: Vec<(JobId, i64)>,
    /// Boxes, as the bus calls them, that are to stop a job.
    pub cancel: Vec<(String, JobId)>,
    /// Jobs whose followers have something to see.
    pub jobs: Vec<JobId>,
    /// Boxes that wait for a job and have one.
    pub workers: Vec<String>,
}

impl Plane {
    pub(crate) fn new(inner: Inner) -> Self {
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Writes the event of a changed job beside the change.
    pub(crate) async fn tell_job(&self, tx: &mut Tx, job: &JobRow) -> Result<(), GpuError> {
        let job = job.view(None, 0)?;
        self.tell(tx, &GpuJobChanged { job }).await
    }

    /// Writes the event of a changed box beside the change.
    pub(crate) async fn tell_worker(&self, tx: &mut Tx, worker: &WorkerRow) -> Result<(), GpuError> {
        let worker = worker.view()?;
        self.tell(tx, &GpuWorkerChanged { worker }).await
    }

    pub(crate) async fn tell<E: Event>(&self, tx: &mut Tx, event: &E) -> Result<(), GpuError> {
        Ok(self
            .outbox
            .push(tx, &CloudEvent::of(event, SERVICE, &self.clock))
            .await?)
    }

    /// The assignment of a job to the worker it was given to.
    pub(crate) fn assignment(&self, job: &JobRow) -> Result<Assignment, GpuError> {
        Ok(Assignment {
            protocol: PROTOCOL,
            job: job.id.to_string(),
            attempt: u32::try_from(job.attempt).unwrap_or(0),
            image: job.image.clone(),
            command: job.command()?,
            env: job.env(&self.sealer)?,
            datasets: job.datasets()?,
            limits: job.limits(),
        })
    }

    /// Does what follows a commit, without keeping the caller waiting for the bus.
    pub(crate) fn follow_up(&self, after: After) {
        self.outbox.nudge();
        for job in &after.jobs {
            self.wakes.job(*job);
        }
        for worker in &after.workers {
            self.wakes.worker(worker);
        }
        let plane = self.clone();
        self.tasks.finish(async move { plane.settle(after).await });
    }

    async fn settle(&self, after: After) {
        for job in after.jobs {
            self.say(&format!("nimbus.v1.gpu.wake.job.{job}"), Bytes::new())
                .await;
        }
        for worker in after.workers {
            self.say(&format!("nimbus.v1.gpu.wake.worker.{worker}"), Bytes::new())
                .await;
        }
        for (bus_name, job) in after.cancel {
            let message = BeatReply {
                cancel: vec![job.to_string()],
                ..BeatReply::default()
            };
            let body = serde_json::to_vec(&message).unwrap_or_default();
            self.say(&subject::control(&bus_name), Bytes::from(body)).await;
        }
        for (job, place) in after.unstore {
            if let Err(error) = self.unstore(job, place).await {
                warn!(gpu.job = %job, "the assignment of {job} stays in the stream for now: {error}");
            }
        }
        for (worker, pool, assignment) in after.publish {
            // Beats without the job have it published again.
            if let Err(error) = self.publish(&worker, &pool, &assignment).await {
                warn!(
                    gpu.job = assignment.job,
                    gpu.worker = worker,
                    "could not hand {} to {worker}: {error}",
                    assignment.job
                );
            }
        }
    }

    async fn say(&self, subject: &str, body: Bytes) {
        if let Err(error) = self.bus.say(subject, body).await {
            debug!(bus.subject = subject, "could not say {subject}: {error}");
        }
    }

    /// Makes sure that the stream exists and that the consumer of a box takes its subject of this pool. `worker` is
    /// what the bus calls it.
    pub(crate) async fn ensure_consumer(&self, worker: &str, pool: &str) -> Result<(), BusError> {
        self.bus.ensure_work_stream(JOBS_STREAM, &[subject::JOBS]).await?;
        let made = self
            .bus
            .ensure_pull_consumer(JOBS_STREAM, worker, &subject::job(pool, worker))
            .await;
        if let Err(BusError::Storage { code: NO_STREAM, .. }) = made {
            // The server has lost its storage since the stream was made.
            self.bus.forget_work_stream(JOBS_STREAM);
            self.bus.ensure_work_stream(JOBS_STREAM, &[subject::JOBS]).await?;
            return self
                .bus
                .ensure_pull_consumer(JOBS_STREAM, worker, &subject::job(pool, worker))
                .await;
        }
        made
    }

    /// Puts an assignment into the stream and remembers where it lies.
    async fn publish(&self, worker: &str, pool: &str, assignment: &Assignment) -> Result<(), GpuError> {
        const STORED: &str = "UPDATE gpu_job SET stored = $3 WHERE id = $1 AND attempt = $2";
        let found = read_worker(&self.store, worker).await?;
        // Unpaired meanwhile, and its job cancelled.
        let Some(WorkerRow { bus_name, .. }) = found else {
            return Ok(());
        };
        self.ensure_consumer(&bus_name, pool).await?;
        let body = serde_json::to_vec(assignment).map_err(GpuError::damaged)?;
        // One that was stored for the pairing before is not the same.
        let id = format!("{}:{}:{bus_name}", assignment.job, assignment.attempt);
        let stored = self
            .bus
            .store_once(&subject::job(pool, &bus_name), &id, Bytes::from(body))
            .await?;
        let (job, attempt) = (assignment.job.clone(), i64::from(assignment.attempt));
        let place = crate::rows::signed(stored.sequence);
        self.store
            .write(move |tx| {
                Box::pin(async move {
                    execute!(tx, sqlx::query(STORED).bind(job).bind(attempt).bind(place))?;
                    Ok::<_, StoreError>(())
                })
            })
            .await?;
        Ok(())
    }

    /// Takes an assignment out of the stream, if it still lies there.
    async fn unstore(&self, job: JobId, place: i64) -> Result<(), GpuError> {
        const GONE: &str = "UPDATE gpu_job SET stored = NULL WHERE id = $1 AND stored = $2";
        self.bus
            .delete_stored(JOBS_STREAM, crate::rows::unsigned(place))
            .await?;
        self.store
            .write(move |tx| {
                Box::pin(async move {
                    execute!(tx, sqlx::query(GONE).bind(job).bind(place))?;
                    Ok::<_, StoreError>(())
                })
            })
            .await?;
        Ok(())
    }
}
