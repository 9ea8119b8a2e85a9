//! What a service writes: the steps of one kind of work.

use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use nimbus_errors::{Code, Fault};
use serde_json::Value;

use crate::Outputs;

/// The steps of a saga: an enum whose variants stand in the order of work.
///
/// `#[derive(Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::EnumString, strum::VariantArray)]`
/// with `#[strum(serialize_all = "snake_case")]`. The names are stored.
pub trait Step: Copy + Eq + Send + Sync + Into<&'static str> + FromStr + strum::VariantArray {}

impl<T> Step for T where T: Copy + Eq + Send + Sync + Into<&'static str> + FromStr + strum::VariantArray {}

/// One kind of work. The value holds what the steps need: parameters and clients.
#[async_trait]
pub trait Saga: Send + Sync {
    /// Stored with each saga: `provision/1`. Other steps, or another meaning of one: another number.
    const NAME: &'static str;
    /// Its steps.
    type Step: Step;

    /// Does one step; may run again after it has succeeded. Its value is kept for later steps.
    ///
    /// Cancel safe by necessity: the future is dropped when the lease is lost or the process stops.
    async fn act(&self, step: Self::Step, done: &Outputs) -> Result<Value, StepError>;

    /// Takes one step back; also if it never did anything, also twice.
    async fn undo(&self, step: Self::Step, done: &Outputs) -> Result<(), UndoError>;

    /// How patient to be.
    fn policy(&self) -> Policy {
        Policy::default()
    }

    /// How long one attempt of a step, or of its undo, may take.
    fn time_limit(&self, _step: Self::Step) -> Duration {
        Duration::from_secs(600)
    }

    /// Whether a request to cancel ends this step in the middle (a long wait) rather than after it.
    fn interruptible(&self, _step: Self::Step) -> bool {
        false
    }
}

/// How often and how fast a driver tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Attempts of a step whose error says that another try can help.
    pub act_attempts: u32,
    /// Attempts of an undo before the saga is stuck.
    pub undo_attempts: u32,
    /// Takeovers of one step before it counts as failed: a step that kills its process must not do so for ever.
    pub resumptions: u32,
    /// Wait before the second attempt; doubles each time.
    pub first_wait: Duration,
    /// Longest wait.
    pub longest_wait: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            act_attempts: 5,
            undo_attempts: 10,
            resumptions: 20,
            first_wait: Duration::from_millis(200),
            longest_wait: Duration::from_secs(20),
        }
    }
}

impl Policy {
    /// The wait before attempt number `attempt` (the first is 1): between half and all of the doubled
    /// wait. What is added depends on `salt`, so that sagas which fail together do not come back together.
    pub(crate) fn wait(&self, attempt: u32, salt: &str) -> Duration {
        let doubled = 2_u32.saturating_pow(attempt.saturating_sub(2).min(20));
        let longest = self.first_wait.saturating_mul(doubled).min(self.longest_wait);
        // FNV-1a: spread, not secrecy.
        let hash = salt
            .bytes()
            .chain(attempt.to_le_bytes())
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        let share = u32::try_from((hash >> 32) % 1000).unwrap_or(0);
        longest / 2 + (longest / 2) * share / 1000
    }
}

/// A step did not work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct StepError {
    /// Why, for the user.
    pub fault: Fault,
    /// Whether to act again after a wait. Otherwise everything is taken back.
    pub retry: bool,
}

impl StepError {
    /// Gives up: everything is taken back.
    pub fn give_up(fault: impl Into<Fault>) -> Self {
        Self {
            fault: fault.into(),
            retry: false,
        }
    }

    /// Acts again after a wait, up to [`Policy::act_attempts`].
    pub fn retry(fault: impl Into<Fault>) -> Self {
        Self {
            fault: fault.into(),
            retry: true,
        }
    }
}

/// `?` gives up. That a fault is `retryable` means that the *user* can try again; a step that should
/// be repeated says so with [`StepError::retry`].
impl From<Fault> for StepError {
    fn from(fault: Fault) -> Self {
        Self { fault, retry: false }
    }
}

/// An undo did not work; it is tried again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct UndoError {
    /// Why, for the operator.
    pub fault: Fault,
}

impl From<Fault> for UndoError {
    fn from(fault: Fault) -> Self {
        Self { fault }
    }
}

/// Undoing what is not there has succeeded.
pub trait OrNotFound {
    /// `op.not_found` becomes success.
    ///
    /// # Errors
    /// Every other fault.
    fn or_not_found(self) -> Result<(), UndoError>;
}

impl<T> OrNotFound for Result<T, Fault> {
    fn or_not_found(self) -> Result<(), UndoError> {
        match self {
            Ok(_) => Ok(()),
            Err(fault) if fault.is(Code::OpNotFound) => Ok(()),
            Err(fault) => Err(UndoError { fault }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_stay_bounded_and_differ_between_sagas() {
        let policy = Policy::default();
        for salt in ["op_a", "op_b"] {
            for attempt in 2..40 {
                let wait = policy.wait(attempt, salt);
                assert!(
                    wait >= policy.first_wait / 2 && wait <= policy.longest_wait,
                    "{attempt}: {wait:?}"
                );
            }
            assert!(policy.wait(30, salt) >= policy.longest_wait / 2);
        }
        assert_ne!(policy.wait(5, "op_a"), policy.wait(5, "op_b"));
    }

    #[test]
    fn only_not_found_is_forgiven() {
        assert!(Ok::<_, Fault>(1).or_not_found().is_ok());
        assert!(
            Err::<(), _>(Fault::new(Code::OpNotFound, "x"))
                .or_not_found()
                .is_ok()
        );
        assert!(
            Err::<(), _>(Fault::new(Code::OpConflict, "x"))
                .or_not_found()
                .is_err()
        );
    }
}
