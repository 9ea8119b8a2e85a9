//! The conditions of one sandbox: one statement per kind.

use nimbus_model::Timestamp;
use nimbus_proto::workloads::{Condition, ConditionKind, Truth};

/// A sandbox has one generation for its whole life.
const GENERATION: u64 = 1;

/// What can be said about a sandbox.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conditions(Vec<Condition>);

impl Conditions {
    /// What was said before.
    pub(crate) fn of(conditions: Vec<Condition>) -> Self {
        Self(conditions)
    }

    /// Says something; the time of the last transition moves with the status only.
    pub(crate) fn set(
        &mut self,
        kind: ConditionKind,
        status: Truth,
        reason: &str,
        message: impl Into<String>,
        now: Timestamp,
    ) {
        let message = message.into();
        match self.0.iter_mut().find(|known| known.kind == kind) {
            Some(known) => {
                if known.status != status {
                    known.last_transition = now;
                }
                known.status = status;
                reason.clone_into(&mut known.reason);
                known.message = message;
            }
            None => self.0.push(Condition {
                kind,
                status,
                reason: reason.to_owned(),
                message,
                observed_generation: GENERATION,
                last_transition: now,
            }),
        }
    }

    /// Turns a statement that was made into one that does not hold any more; who keeps them by kind
    /// would not hear of one that is only left out.
    pub(crate) fn settle(&mut self, kind: ConditionKind, status: Truth, text: &str, now: Timestamp) {
        if self.0.iter().any(|known| known.kind == kind) {
            self.set(kind, status, "BackendState", text, now);
        }
    }

    pub(crate) fn to_vec(&self) -> Vec<Condition> {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transition_is_a_change_of_the_status() {
        let mut conditions = Conditions::default();
        let at = Timestamp::from_micros;
        conditions.set(ConditionKind::Ready, Truth::False, "A", "", at(1));
        conditions.set(ConditionKind::Ready, Truth::False, "B", "why", at(2));
        assert_eq!(conditions.to_vec()[0].last_transition, at(1));
        assert_eq!(conditions.to_vec()[0].reason, "B");
        conditions.set(ConditionKind::Ready, Truth::True, "C", "", at(3));
        assert_eq!(conditions.to_vec()[0].last_transition, at(3));
        let settle = |conditions: &mut Conditions, kind| {
            conditions.settle(kind, Truth::Unknown, "over", at(4));
        };
        settle(&mut conditions, ConditionKind::Progressing);
        assert_eq!(conditions.to_vec().len(), 1, "what was never said is not settled");
        settle(&mut conditions, ConditionKind::Ready);
        assert_eq!(conditions.to_vec()[0].status, Truth::Unknown);
    }
}
