//! Background work with a name, and a rule for what its failure means.

use std::future::Future;
use std::time::Duration;

use nimbus_errors::chain;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::RunError;

/// What the failure of a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// It is logged; the task is over.
    Log,
    /// It is logged and the task starts again, after 200 ms, doubling up to 30 s.
    Restart,
    /// It is logged and the process stops: it cannot do its work without this task.
    StopProcess,
}

/// What becomes of a task when the service stops.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    Cut,
    Wait,
}

const RESTART_FIRST: Duration = Duration::from_millis(200);
const RESTART_MOST: Duration = Duration::from_secs(30);

/// The background tasks of a service. Clones share.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    process: CancellationToken,
}

impl Tasks {
    /// Tasks that end when `stop` fires; a [`OnError::StopProcess`] failure fires `process`.
    #[must_use]
    pub fn new(stop: CancellationToken, process: CancellationToken) -> Self {
        Self {
            tracker: TaskTracker::new(),
            stop,
            process,
        }
    }

    /// Starts a task. `work` makes its future, again for each restart.
    ///
    /// The future is dropped at its next await when the service stops; work that must not be cut
    /// watches the stop token itself and is given to [`Tasks::spawn_graceful`].
    pub fn spawn<F, Fut>(&self, name: &'static str, on_error: OnError, work: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), RunError>> + Send + 'static,
    {
        self.start(name, on_error, Stop::Cut, work);
    }

    /// Starts a task that is not cut when the service stops: it watches the stop token, and is waited for
    /// while it gives back what it holds.
    pub fn spawn_graceful<F, Fut>(&self, name: &'static str, on_error: OnError, work: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), RunError>> + Send + 'static,
    {
        self.start(name, on_error, Stop::Wait, work);
    }

    fn start<F, Fut>(&self, name: &'static str, on_error: OnError, at_stop: Stop, work: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), RunError>> + Send + 'static,
    {
        let (stop, process) = (self.stop.clone(), self.process.clone());
        let span = tracing::info_span!("task", task.name = name);
        self.tracker.spawn(
            async move {
                let mut pause = RESTART_FIRST;
                loop {
                    // A task of its own, so that a panic is a failure like any other.
                    let mut running = tokio::spawn(work().in_current_span());
                    let outcome = tokio::select! {
                        outcome = &mut running => outcome,
                        () = stop.cancelled() => {
                            if at_stop == Stop::Cut {
                                running.abort();
                            }
                            let _ = running.await;
                            return;
                        }
                    };
                    let failure = match outcome {
                        Ok(Ok(())) => return,
                        Ok(Err(error)) => chain(&error),
                        Err(join) => join.to_string(),
                    };
                    match on_error {
                        OnError::Log => {
                            tracing::error!(cause = %failure, "{name} failed");
                            return;
                        }
                        OnError::StopProcess => {
                            tracing::error!(cause = %failure, "{name} failed, the process stops");
                            process.cancel();
                            return;
                        }
                        OnError::Restart => {
                            tracing::warn!(cause = %failure, pause_ms = pause.as_millis(), "{name} failed and starts again");
                            tokio::select! {
                                () = tokio::time::sleep(pause) => {}
                                () = stop.cancelled() => return,
                            }
                            pause = (pause * 2).min(RESTART_MOST);
                        }
                    }
                }
            }
            .instrument(span),
        );
    }

    /// Starts work that is not cut when the service stops: it watches the stop token and ends by itself.
    pub fn finish<Fut>(&self, work: Fut)
    where
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.tracker.spawn(work.in_current_span());
    }

    /// Waits until every task has ended. Call after the stop token was fired.
    pub async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn tasks() -> (Tasks, CancellationToken, CancellationToken) {
        let (stop, process) = (CancellationToken::new(), CancellationToken::new());
        (Tasks::new(stop.clone(), process.clone()), stop, process)
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_started_again() {
        let (tasks, stop, _) = tasks();
        let runs = Arc::new(AtomicUsize::new(0));
        let (counted, done) = (Arc::clone(&runs), CancellationToken::new());
        let told = done.clone();
        tasks.spawn("panics", OnError::Restart, move || {
            let (counted, told) = (Arc::clone(&counted), told.clone());
            async move {
                if counted.fetch_add(1, Ordering::SeqCst) == 0 {
                    panic!("first run");
                }
                told.cancel();
                Ok(())
            }
        });
        done.cancelled().await;
        stop.cancel();
        tasks.ended().await;
        assert_eq!(runs.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_graceful_task_has_its_last_word() {
        let (tasks, stop, _) = tasks();
        let (said, running) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let (saying, told, watched) = (Arc::clone(&said), running.clone(), stop.clone());
        tasks.spawn_graceful("holds", OnError::Restart, move || {
            let (saying, told, watched) = (Arc::clone(&saying), told.clone(), watched.clone());
            async move {
                told.cancel();
                watched.cancelled().await;
                // As an answer of somebody else would take.
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
                saying.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
        });
        running.cancelled().await;
        stop.cancel();
        tasks.ended().await;
        assert_eq!(said.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_vital_task_takes_the_process_with_it() {
        let (tasks, _stop, process) = tasks();
        tasks.spawn("vital", OnError::StopProcess, || async {
            Err(RunError::other("gone", "disk full"))
        });
        process.cancelled().await;
        tasks.ended().await;
    }
}
