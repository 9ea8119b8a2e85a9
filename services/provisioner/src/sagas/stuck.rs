//! Taking back that did not succeed, taken up again: what a machine left behind must not lie there
//! until somebody notices, because the usual cause, a cluster that is away, goes by itself.

use std::time::Duration;

use nimbus_model::{OperationId, Timestamp};
use nimbus_proto::machine::OperationKind;
use nimbus_saga::State;
use nimbus_store::{StoreError, Tx, both, reading, sqlx};

use super::saga_error;
use crate::error::MachineError;
use crate::service::Provisioner;

/// First and longest pause between two rounds; each round tries for about a minute.
const PAUSE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(30 * 60));
/// Operations looked at in one go.
const LIMIT: i64 = 64;

/// Those that nobody has taken over: a deletion that the owner ordered meanwhile does the same work.
const STUCK: &str = "SELECT s.id, s.updated_at,
        (SELECT count(*) FROM provisioner_saga_event e WHERE e.saga_id = s.id AND e.what = 'reopened')
    FROM provisioner_saga s
    JOIN provisioner_operation o ON o.id = s.id
    JOIN provisioner_machine m ON m.id = o.machine
    WHERE s.state = 'stuck' AND o.kind = $2 AND (m.operation IS NULL OR m.operation = s.id)
    ORDER BY s.updated_at LIMIT $1";

/// Opens those again whose pause is over; the sweep then finds them.
pub(crate) async fn reopen(provisioner: &Provisioner) -> Result<usize, MachineError> {
    let inner = provisioner.inner();
    let kind: &'static str = OperationKind::Provision.into();
    let rows: Vec<(String, Timestamp, i64)> = reading!(&inner.store, |c| sqlx::query_as(STUCK)
        .bind(LIMIT)
        .bind(kind)
        .fetch_all(c)
        .await)?;
    let now = inner.clock.now();
    let mut opened = 0;
    for (id, since, rounds) in rows {
        if now < since.after(pause(rounds)) {
            continue;
        }
        match inner.sagas.reopen(&id).await {
            Ok(true) => {
                tracing::info!(operation.id = %id, rounds, "taking a stuck operation back again");
                opened += 1;
            }
            // Another replica was faster.
            Ok(false) => {}
            // Also when the owner was: the machine is being deleted.
            Err(error) => {
                let error = saga_error(error);
                tracing::warn!(operation.id = %id, cause = %nimbus_errors::chain(&error), "could not take up a stuck operation");
            }
        }
    }
    Ok(opened)
}

/// The pause after this many rounds that did not succeed.
pub(crate) fn pause(rounds: i64) -> Duration {
    let (first, longest) = PAUSE;
    let doubled = 2_u32.saturating_pow(u32::try_from(rounds.clamp(0, 20)).unwrap_or(20));
    first.saturating_mul(doubled).min(longest)
}

const STATE: &str = "SELECT state FROM provisioner_saga WHERE id = $1";

/// Whether nobody works on an operation because taking it back did not succeed.
pub(crate) async fn is_stuck(tx: &mut Tx, id: OperationId) -> Result<bool, StoreError> {
    let state: Option<String> = both!(tx, |c| sqlx::query_scalar(STATE).bind(id).fetch_optional(c).await)?;
    Ok(state.is_some_and(|state| state == State::Stuck.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end_at_half_an_hour() {
        let seconds: Vec<u64> = (0..9).map(|rounds| pause(rounds).as_secs()).collect();
        assert_eq!(seconds, [30, 60, 120, 240, 480, 960, 1800, 1800, 1800]);
        assert_eq!(pause(i64::MAX), PAUSE.1);
        assert_eq!(pause(-1), PAUSE.0);
    }
}
