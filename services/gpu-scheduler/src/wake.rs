//! Whoever waits for a job's next byte, or for the next job, is woken here: by what this process has
//! committed, and by what other replicas say they have.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use nimbus_bus::Bus;
use nimbus_model::JobId;
use nimbus_service::RunError;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// What replicas tell each other.
const WAKES: &str = "nimbus.v1.gpu.wake.>";

/// Those who wait. Clones share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wakes {
    waiting: Arc<Mutex<HashMap<String, Arc<Notify>>>>,
}

/// A place among those who wait for one thing; given up when dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    wakes: Wakes,
    name: String,
    notify: Arc<Notify>,
}

fn job_name(job: JobId) -> String {
    format!("job.{job}")
}

impl Wakes {
    pub(crate) fn job(&self, job: JobId) {
        self.wake(&job_name(job));
    }

    pub(crate) fn worker(&self, worker: &str) {
        self.wake(&format!("worker.{worker}"));
    }

    pub(crate) fn wait_for_job(&self, job: JobId) -> Waiting {
        self.wait_for(job_name(job))
    }

    pub(crate) fn wait_for_worker(&self, worker: &str) -> Waiting {
        self.wait_for(format!("worker.{worker}"))
    }

    fn wake(&self, name: &str) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(notify) = waiting.get(name) {
            notify.notify_waiters();
        }
    }

    fn wait_for(&self, name: String) -> Waiting {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let notify = Arc::clone(waiting.entry(name.clone()).or_default());
        Waiting {
            wakes: self.clone(),
            name,
            notify,
        }
    }

    /// Passes on what other replicas say. What is said while the connection is lost is not heard:
    /// whoever waits also looks by itself every few seconds.
    pub(crate) async fn follow(&self, bus: &Bus) -> Result<(), RunError> {
        let mut said = bus.hear(WAKES).await?;
        while let Some(message) = said.next().await {
            if let Some(name) = message.subject.strip_prefix("nimbus.v1.gpu.wake.") {
                self.wake(name);
            }
        }
        Ok(())
    }
}

impl Waiting {
    /// What resolves at the next wake from now on. Look at the state after this, then await.
    pub(crate) fn next(&self) -> Notified<'_> {
        self.notify.notified()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waiting = self.wakes.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's and this one.
        if Arc::strong_count(&self.notify) <= 2 {
            waiting.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wake_between_looking_and_waiting_is_not_missed_and_nothing_is_left() {
        let wakes = Wakes::default();
        let job = JobId::fresh();
        let (one, other) = (wakes.wait_for_job(job), wakes.wait_for_job(job));
        let (next, too) = (one.next(), other.next());
        wakes.job(JobId::fresh());
        wakes.job(job);
        next.await;
        too.await;
        drop(one);
        wakes.job(job);
        assert_eq!(wakes.waiting.lock().unwrap().len(), 1);
        drop(other);
        assert!(wakes.waiting.lock().unwrap().is_empty());
    }
}
