//! What people have used of models, gathered and told in batches.
//!
//! Each batch has records with ids of their own, and is told until it was heard; a record that was heard twice
//! counts once.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nimbus_bus::Key;
use nimbus_model::{EventId, MachineId, RequestId, Timestamp, UserId};
use nimbus_proto::gpu::{RecordUsage, UsageRecord};
use nimbus_service::RunError;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::meter::Reading;
use crate::state::App;

/// How long use is gathered before it is told.
const EVERY: Duration = Duration::from_secs(2);
/// The most records in one batch.
const BATCH: usize = 500;
/// The most records that are kept while nobody hears them.
const MOST: usize = 50_000;

/// Who pays.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Bill {
    /// Who asked.
    pub(crate) user: UserId,
    /// From which machine.
    pub(crate) machine: Option<MachineId>,
    /// Which model, unless the answer names another.
    pub(crate) model: String,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    requests: u32,
    prompt: u64,
    completion: u64,
}

/// What was used and not told yet.
#[derive(Default)]
pub(crate) struct Ledger {
    /// By payer, and whether it is an estimate.
    open: Mutex<HashMap<(Bill, bool), Sum>>,
    /// Batches that were not heard yet; only one task tells.
    untold: tokio::sync::Mutex<Vec<UsageRecord>>,
}

impl Ledger {
    fn open(&self) -> MutexGuard<'_, HashMap<(Bill, bool), Sum>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one request.
    pub(crate) fn add(&self, mut bill: Bill, reading: &Reading) {
        if let Some(model) = &reading.model {
            bill.model.clone_from(model);
        }
        // Without a word of the server, each piece of a stream stands for a token, and the prompt is not known.
        let is_estimate = reading.tokens.is_none() && reading.pieces > 0;
        let tokens = reading.tokens.unwrap_or_default();
        let mut open = self.open();
        let sum = open.entry((bill, is_estimate)).or_default();
        sum.requests = sum.requests.saturating_add(1);
        sum.prompt = sum.prompt.saturating_add(tokens.prompt);
        sum.completion = sum.completion.saturating_add(if is_estimate {
            reading.pieces
        } else {
            tokens.completion
        });
    }

    fn take(&self, at: Timestamp) -> Vec<UsageRecord> {
        let open = std::mem::take(&mut *self.open());
        open.into_iter()
            .map(|((bill, estimated), sum)| UsageRecord {
                id: EventId::fresh().to_string(),
                user: bill.user,
                machine: bill.machine,
                model: bill.model,
                requests: sum.requests,
                prompt_tokens: sum.prompt,
                completion_tokens: sum.completion,
                estimated,
                at,
            })
            .collect()
    }

    /// Tells what was used.
    pub(crate) async fn tell(&self, app: &App) {
        let mut untold = self.untold.lock().await;
        untold.extend(self.take(app.clock.now()));
        let excess = untold.len().saturating_sub(MOST);
        if excess > 0 {
            tracing::error!(
                records = excess,
                "use of models is lost: nobody has heard of it for too long"
            );
            untold.drain(..excess);
        }
        while !untold.is_empty() {
            let batch: Vec<UsageRecord> = untold.iter().take(BATCH).cloned().collect();
            let call = app
                .bus
                .call::<RecordUsage>(&batch)
                .key(Key::of(RequestId::fresh()));
            if let Err(fault) = crate::state::timed(&app.metrics, call).await {
                tracing::warn!(
                    records = untold.len(),
                    "use of models was not heard, and is told again: {fault}"
                );
                return;
            }
            untold.drain(..batch.len());
        }
    }
}

/// Tells what was used every now and then, until the server stops.
pub(crate) async fn run(app: App) -> Result<(), RunError> {
    let mut ticks = interval_at(Instant::now() + EVERY, EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => app.inference.ledger.tell(&app).await,
            () = app.stop.cancelled() => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use nimbus_model::Clock;

    use super::super::meter::Tokens;
    use super::*;

    #[test]
    fn requests_are_summed_by_person_model_and_certainty() {
        let ledger = Ledger::default();
        let ada = Bill {
            user: UserId::fresh(),
            machine: None,
            model: "set".into(),
        };
        let exact = |model: Option<&str>| Reading {
            model: model.map(str::to_owned),
            tokens: Some(Tokens {
                prompt: 3,
                completion: 4,
            }),
            pieces: 9,
        };
        ledger.add(ada.clone(), &exact(None));
        ledger.add(ada.clone(), &exact(Some("set")));
        ledger.add(ada.clone(), &exact(Some("other")));
        let estimate = Reading {
            pieces: 5,
            ..Reading::default()
        };
        ledger.add(ada.clone(), &estimate);
        ledger.add(ada, &Reading::default());
        let mut told: Vec<_> = ledger
            .take(Clock::system().now())
            .into_iter()
            .map(|r| {
                (
                    r.model,
                    r.estimated,
                    r.requests,
                    r.prompt_tokens,
                    r.completion_tokens,
                )
            })
            .collect();
        told.sort();
        assert_eq!(
            told,
            [
                ("other".to_owned(), false, 1, 3, 4),
                ("set".to_owned(), false, 3, 6, 8),
                ("set".to_owned(), true, 1, 0, 5),
            ]
        );
        assert!(ledger.take(Clock::system().now()).is_empty());
    }
}
