//! Jobs that ended long ago go, with their logs and artifacts.

use std::time::Duration;

use nimbus_model::{JobId, Timestamp};
use nimbus_store::{both, execute, sqlx};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::error::GpuError;
use crate::plane::Plane;

const LEASE: &str = "gpu-scheduler.prune";
const TTL: Duration = Duration::from_secs(30);
/// How often it is looked for.
const EVERY: Duration = Duration::from_secs(600);
/// Jobs per transaction: their bytes go in it, too, and all other writes wait.
const BATCH: i64 = 4;
/// How long a repeated record of usage is recognised.
const SEEN: Duration = Duration::from_secs(2 * 24 * 3600);

impl Plane {
    /// Prunes from time to time while this replica has the lease; returns when the service stops.
    pub(crate) async fn keep_clean(&self, stop: CancellationToken) {
        self.bus
            .singleton(LEASE, TTL, stop, || async {
                loop {
                    if let Err(error) = self.prune().await {
                        warn!("could not remove old jobs: {}", nimbus_errors::chain(&error));
                    }
                    tokio::time::sleep(EVERY).await;
                }
            })
            .await;
    }

    pub(crate) async fn prune(&self) -> Result<(), GpuError> {
        const FORGET: &str = "DELETE FROM gpu_usage_seen WHERE at < $1";
        let now = self.clock.now();
        let seen = now.before(SEEN);
        self.store
            .write(move |tx| {
                Box::pin(async move {
                    execute!(tx, sqlx::query(FORGET).bind(seen))?;
                    Ok::<_, GpuError>(())
                })
            })
            .await?;
        if self.config.retention.is_zero() {
            return Ok(());
        }
        let before = now.before(self.config.retention);
        let mut gone = 0;
        loop {
            let batch = self.prune_batch(before).await?;
            gone += batch;
            if batch == 0 {
                break;
            }
        }
        if gone > 0 {
            info!(gpu.jobs = gone, "removed {gone} jobs that ended before {before}");
        }
        Ok(())
    }

    async fn prune_batch(&self, before: Timestamp) -> Result<usize, GpuError> {
        const OLD: &str = "SELECT id FROM gpu_job WHERE finished_at < $1 ORDER BY finished_at LIMIT $2";
        const CHUNKS: &str = "DELETE FROM gpu_chunk WHERE job = $1";
        const JOB: &str = "DELETE FROM gpu_job WHERE id = $1";
        self.store
            .write(move |tx| {
                Box::pin(async move {
                    let old: Vec<JobId> = both!(tx, |c| sqlx::query_scalar(OLD)
                        .bind(before)
                        .bind(BATCH)
                        .fetch_all(c)
                        .await)?;
                    for job in &old {
                        execute!(tx, sqlx::query(CHUNKS).bind(*job))?;
                        execute!(tx, sqlx::query(JOB).bind(*job))?;
                    }
                    Ok::<_, GpuError>(old.len())
                })
            })
            .await
    }
}
