//! The loop: plan, act or undo, write down, again.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicI64, Ordering};

use futures::FutureExt;
use nimbus_errors::{Code, Fault};
use nimbus_model::Timestamp;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::plan::fault_data;
use crate::{
    Claimed, End, Event, History, Next, Outputs, Policy, Saga, SagaError, SagaStore, StepError, What,
};

/// How driving ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Every step is done.
    Done(Outputs),
    /// Everything was taken back, because of this.
    Undone(Fault),
    /// Taking back does not work; an operator has to look, then [`SagaStore::reopen`].
    Stuck {
        /// The step whose undo fails.
        step: String,
        /// Why.
        fault: Fault,
    },
    /// Another replica has the saga.
    Lost,
    /// This process stops; the lease is given back and another replica goes on.
    Stopped,
}

/// Drives a claimed saga to its end.
///
/// Cancel safe: a future that is dropped leaves the saga as a crash would, to be claimed again when
/// its lease has run out.
///
/// # Errors
/// [`SagaError::WrongName`] and [`SagaError::UnknownStep`] if this is not the code for the saga;
/// [`SagaError::Store`] for failures of the database that waiting does not mend.
pub async fn drive<S: Saga>(
    saga: &S,
    sagas: &SagaStore,
    claimed: Claimed,
    stop: &CancellationToken,
) -> Result<Outcome, SagaError> {
    if claimed.key.name != S::NAME {
        return Err(SagaError::WrongName {
            id: claimed.key.id,
            expected: S::NAME,
            found: claimed.key.name,
        });
    }
    let until = AtomicI64::new(claimed.until.micros());
    let mut driver = Driver {
        saga,
        sagas,
        policy: saga.policy(),
        until,
        stop,
        pending: 0,
        claimed,
    };
    driver.begin();
    match driver.run().await {
        Err(Cut::Lost) => {
            tracing::warn!(
                saga.id = driver.claimed.key.id,
                "lost the lease on saga {}",
                driver.claimed.key.id
            );
            Ok(Outcome::Lost)
        }
        Err(Cut::Stopped) => {
            // Without it the others wait for the lease to run out; that is all.
            let _ = sagas.release(&driver.claimed.key).await;
            Ok(Outcome::Stopped)
        }
        Err(Cut::Failed(error)) => Err(error),
        // Handled where it arises.
        Err(Cut::Cancelled) => Ok(Outcome::Stopped),
        Ok(outcome) => Ok(outcome),
    }
}

/// Why work ends before it is done.
enum Cut {
    Stopped,
    Cancelled,
    Lost,
    Failed(SagaError),
}

struct Driver<'d, S> {
    saga: &'d S,
    sagas: &'d SagaStore,
    policy: Policy,
    /// When the lease runs out, in microseconds.
    until: AtomicI64,
    stop: &'d CancellationToken,
    /// How many of the last events are not written yet.
    pending: usize,
    claimed: Claimed,
}

impl<S: Saga> Driver<'_, S> {
    /// Notes that a step in the middle is taken over, or tells of what the creator wrote.
    fn begin(&mut self) {
        let history = self.history();
        if self.claimed.fresh {
            self.sagas.tell(
                &self.claimed.key,
                history.state(&self.policy),
                &self.claimed.events,
            );
            return;
        }
        if let Next::Act { step, .. } | Next::Undo { step, .. } = history.next(&self.policy) {
            self.note(Some(step), What::Resumed, Value::Null);
        }
    }

    async fn run(&mut self) -> Result<Outcome, Cut> {
        loop {
            let history = self.history();
            match history.next(&self.policy) {
                Next::Record { step, what, data } => self.note(Some(step), what, data),
                Next::Act { .. } | Next::Undo { .. } if self.pending > 0 => self.flush(&history).await?,
                Next::Act { .. } if self.claimed.slot.cancel.is_cancelled() => self.note_cancel(),
                Next::Act { step, attempt } => self.act(step, attempt, &history).await?,
                Next::Undo { step, attempt } => self.undo(step, attempt, &history).await?,
                Next::End(end) => {
                    self.flush(&history).await?;
                    return Ok(self.ended(end, &history));
                }
                Next::Unknown { step } => {
                    return Err(Cut::Failed(SagaError::UnknownStep {
                        id: self.claimed.key.id.clone(),
                        step,
                    }));
                }
            }
        }
    }

    fn ended(&self, end: End, history: &History<S::Step>) -> Outcome {
        let id = &self.claimed.key.id;
        match end {
            End::Done => {
                tracing::info!(saga.id = id, saga.name = S::NAME, "saga {id} is done");
                Outcome::Done(history.outputs().clone())
            }
            End::Undone(fault) => {
                tracing::info!(
                    saga.id = id,
                    saga.name = S::NAME,
                    fault.code = fault.code,
                    "saga {id} was taken back: {fault}"
                );
                Outcome::Undone(fault)
            }
            End::Stuck { step, fault } => {
                tracing::error!(
                    saga.id = id,
                    saga.name = S::NAME,
                    saga.step = step,
                    fault.code = fault.code,
                    "saga {id} is stuck, an operator has to look: undoing {step} fails: {fault}"
                );
                Outcome::Stuck { step, fault }
            }
        }
    }

    async fn act(&mut self, step: S::Step, attempt: u32, history: &History<S::Step>) -> Result<(), Cut> {
        let name: &'static str = step.into();
        if !self.pause(attempt, true).await? {
            return Ok(());
        }
        let span = tracing::info_span!(
            "saga.act",
            otel.name = name,
            saga.id = self.claimed.key.id,
            saga.step = name,
            attempt
        );
        let work = tokio::time::timeout(
            self.saga.time_limit(step),
            AssertUnwindSafe(self.saga.act(step, history.outputs())).catch_unwind(),
        );
        let result = match self
            .guard(self.saga.interruptible(step), work.instrument(span))
            .await
        {
            Err(Cut::Cancelled) => {
                self.note_cancel();
                return Ok(());
            }
            Err(cut) => return Err(cut),
            Ok(Ok(Ok(result))) => result,
            Ok(Ok(Err(_panic))) => Err(StepError::give_up(panicked(name))),
            Ok(Err(_elapsed)) => Err(StepError::give_up(too_slow(name))),
        };
        match result {
            Ok(output) => self.note(Some(step), What::Done, output),
            Err(StepError { fault, retry }) => {
                tracing::warn!(
                    saga.id = self.claimed.key.id,
                    saga.step = name,
                    attempt,
                    fault.code = fault.code,
                    "step {name} of saga {} failed{}: {fault}",
                    self.claimed.key.id,
                    if retry { ", may be tried again" } else { "" }
                );
                self.note(
                    Some(step),
                    if retry { What::Retrying } else { What::Failed },
                    fault_data(&fault),
                );
            }
        }
        Ok(())
    }

    async fn undo(&mut self, step: S::Step, attempt: u32, history: &History<S::Step>) -> Result<(), Cut> {
        let name: &'static str = step.into();
        self.pause(attempt, false).await?;
        let span = tracing::info_span!(
            "saga.undo",
            otel.name = name,
            saga.id = self.claimed.key.id,
            saga.step = name,
            attempt
        );
        let work = tokio::time::timeout(
            self.saga.time_limit(step),
            AssertUnwindSafe(self.saga.undo(step, history.outputs())).catch_unwind(),
        );
        let result = match self.guard(false, work.instrument(span)).await? {
            Ok(Ok(result)) => result.map_err(|error| error.fault),
            Ok(Err(_panic)) => Err(panicked(name)),
            Err(_elapsed) => Err(too_slow(name)),
        };
        match result {
            Ok(()) => self.note(Some(step), What::Undone, Value::Null),
            Err(fault) => {
                tracing::warn!(
                    saga.id = self.claimed.key.id,
                    saga.step = name,
                    attempt,
                    fault.code = fault.code,
                    "undoing step {name} of saga {} failed: {fault}",
                    self.claimed.key.id
                );
                self.note(Some(step), What::UndoFailed, fault_data(&fault));
            }
        }
        Ok(())
    }

    /// Waits before a repeated attempt. `false`: a cancel came in between, and is noted.
    async fn pause(&mut self, attempt: u32, interruptible: bool) -> Result<bool, Cut> {
        if attempt < 2 {
            return Ok(true);
        }
        let wait = self.policy.wait(attempt, &self.claimed.key.id);
        match self.guard(interruptible, tokio::time::sleep(wait)).await {
            Ok(()) => Ok(true),
            Err(Cut::Cancelled) => {
                self.note_cancel();
                Ok(false)
            }
            Err(cut) => Err(cut),
        }
    }

    /// Runs `work` while the lease is kept alive; ends it when the lease is lost or the process stops.
    async fn guard<T>(&self, interruptible: bool, work: impl Future<Output = T>) -> Result<T, Cut> {
        tokio::select! {
            value = work => Ok(value),
            () = self.stop.cancelled() => Err(Cut::Stopped),
            () = self.claimed.slot.cancel.cancelled(), if interruptible => Err(Cut::Cancelled),
            () = self.keep_alive() => Err(Cut::Lost),
        }
    }

    /// Returns when the lease is lost.
    async fn keep_alive(&self) {
        loop {
            tokio::time::sleep(self.sagas.lease / 3).await;
            match self.sagas.beat(&self.claimed.key).await {
                Ok((cancel, until)) => {
                    self.until.store(until.micros(), Ordering::Relaxed);
                    if cancel {
                        self.claimed.slot.cancel.cancel();
                    }
                }
                Err(SagaError::Fenced { .. }) => return,
                // The database may come back before the lease runs out.
                Err(_) if !self.expired() => {}
                Err(_) => return,
            }
        }
    }

    fn expired(&self) -> bool {
        self.sagas.clock.now() >= Timestamp::from_micros(self.until.load(Ordering::Relaxed))
    }

    fn history(&self) -> History<S::Step> {
        History::of(&self.claimed.events)
    }

    fn note(&mut self, step: Option<S::Step>, what: What, data: Value) {
        let seq = self
            .claimed
            .events
            .last()
            .map_or(0, |event| event.seq)
            .saturating_add(1);
        let step = step.map(|step| Into::<&'static str>::into(step).to_owned());
        self.claimed.events.push(Event {
            seq,
            step,
            what,
            data,
            at: self.sagas.clock.now(),
        });
        self.pending += 1;
    }

    fn note_cancel(&mut self) {
        let fault = Fault::new(Code::OpCancelled, "the operation was cancelled");
        self.note(None, What::Cancelled, fault_data(&fault));
    }

    /// Writes what is pending, in one transaction; goes on trying while the lease runs.
    async fn flush(&mut self, history: &History<S::Step>) -> Result<(), Cut> {
        let state = history.state(&self.policy);
        let from = self.claimed.events.len().saturating_sub(self.pending);
        let mut attempt = 1;
        loop {
            let events = self.claimed.events.get(from..).unwrap_or_default();
            match self.sagas.append(&self.claimed.key, state, events).await {
                Ok((cancel, until)) => {
                    if cancel {
                        self.claimed.slot.cancel.cancel();
                    }
                    self.until.store(until.micros(), Ordering::Relaxed);
                    break;
                }
                Err(SagaError::Fenced { .. }) => return Err(Cut::Lost),
                Err(SagaError::Store { source })
                    if source.is_transient() || (attempt > 1 && source.is_unique_violation()) =>
                {
                    tracing::warn!(
                        saga.id = self.claimed.key.id,
                        attempt,
                        error = %source,
                        "could not write an event of saga {}, trying again: {source}",
                        self.claimed.key.id
                    );
                }
                Err(error) => return Err(Cut::Failed(error)),
            }
            if self.expired() {
                return Err(Cut::Lost);
            }
            attempt += 1;
            tokio::time::sleep(self.policy.wait(attempt, &self.claimed.key.id)).await;
            // A commit whose answer did not arrive may have been done.
            if let Some(first) = events.first()
                && self
                    .sagas
                    .was_written(&self.claimed.key, first.seq)
                    .await
                    .unwrap_or(false)
            {
                self.sagas.tell(&self.claimed.key, state, events);
                break;
            }
        }
        self.pending = 0;
        Ok(())
    }
}

fn panicked(step: &str) -> Fault {
    Fault::new(Code::ServiceInternal, format!("step {step} ended by a bug"))
}

fn too_slow(step: &str) -> Fault {
    Fault::new(
        Code::ServiceTimeout,
        format!("step {step} took longer than its time limit"),
    )
}
