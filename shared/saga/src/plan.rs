//! What comes next, from the events alone: no clock, no database, no luck.

use nimbus_errors::{Code, Fault};
use serde_json::Value;

use crate::history::{History, StepState, Track};
use crate::{Event, Policy, State, Step, What};

/// What a driver does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next<S> {
    /// Write this down, then plan again.
    Record {
        /// About which step.
        step: S,
        /// What.
        what: What,
        /// With which data.
        data: Value,
    },
    /// Do the step.
    Act {
        /// Which.
        step: S,
        /// The first attempt is 1.
        attempt: u32,
    },
    /// Take the step back.
    Undo {
        /// Which.
        step: S,
        /// The first attempt is 1.
        attempt: u32,
    },
    /// Nothing.
    End(End),
    /// Refuse: the events name a step that this version does not have.
    Unknown {
        /// Its name.
        step: String,
    },
}

/// How a saga ended.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// Every step is done.
    Done,
    /// Every started step is undone, because of this.
    Undone(Fault),
    /// An undo does not work.
    Stuck {
        /// Of which step.
        step: String,
        /// Why.
        fault: Fault,
    },
}

impl<S: Step> History<S> {
    /// What to do next.
    #[must_use]
    pub fn next(&self, policy: &Policy) -> Next<S> {
        if let Some(step) = &self.unknown {
            return Next::Unknown { step: step.clone() };
        }
        if let Some((step, fault)) = &self.stuck {
            return Next::End(End::Stuck {
                step: step.clone(),
                fault: fault.clone(),
            });
        }
        match &self.failure {
            Some(failure) => self.backward(failure, policy),
            None => self.forward(policy),
        }
    }

    fn forward(&self, policy: &Policy) -> Next<S> {
        let Some(track) = self.tracks.iter().find(|track| track.state != StepState::Done) else {
            return Next::End(End::Done);
        };
        let step = track.step;
        if track.state == StepState::Pending {
            return Next::Record {
                step,
                what: What::Started,
                data: Value::Null,
            };
        }
        let give_up = |fault: &Fault| Next::Record {
            step,
            what: What::Failed,
            data: fault_data(fault),
        };
        match &track.last_fault {
            Some(fault) if track.failures >= policy.act_attempts => give_up(fault),
            _ if track.resumptions > policy.resumptions => give_up(&Self::interrupted(track)),
            _ => Next::Act {
                step,
                attempt: track.failures.saturating_add(1),
            },
        }
    }

    fn backward(&self, failure: &Fault, policy: &Policy) -> Next<S> {
        let newest = self
            .order
            .iter()
            .rev()
            .filter_map(|step| self.tracks.iter().find(|track| track.step == *step));
        let Some(track) = newest.into_iter().find(|track| track.state != StepState::Undone) else {
            return Next::End(End::Undone(failure.clone()));
        };
        let step = track.step;
        if track.state != StepState::Undoing {
            return Next::Record {
                step,
                what: What::Undoing,
                data: Value::Null,
            };
        }
        let give_up = |fault: &Fault| Next::Record {
            step,
            what: What::Stuck,
            data: fault_data(fault),
        };
        match &track.last_fault {
            Some(fault) if track.undo_failures >= policy.undo_attempts => give_up(fault),
            _ if track.resumptions > policy.resumptions => give_up(&Self::interrupted(track)),
            _ => Next::Undo {
                step,
                attempt: track.undo_failures.saturating_add(1),
            },
        }
    }

    fn interrupted(track: &Track<S>) -> Fault {
        let step: &'static str = track.step.into();
        Fault::new(
            Code::ServiceInternal,
            format!("step {step} was interrupted {} times", track.resumptions),
        )
    }

    /// Where the saga is.
    #[must_use]
    pub fn state(&self, policy: &Policy) -> State {
        match self.next(policy) {
            Next::End(End::Done) => State::Done,
            Next::End(End::Undone(_)) => State::Undone,
            Next::End(End::Stuck { .. }) => State::Stuck,
            _ if self.failure.is_some() => State::Undoing,
            _ => State::Running,
        }
    }
}

pub(crate) fn fault_data(fault: &Fault) -> Value {
    serde_json::to_value(fault).unwrap_or(Value::Null)
}

/// What a driver of a saga with these events does next.
#[must_use]
pub fn plan<S: Step>(events: &[Event], policy: &Policy) -> Next<S> {
    History::of(events).next(policy)
}

#[cfg(test)]
mod tests {
    use nimbus_model::Timestamp;
    use proptest::prelude::*;
    use strum::VariantArray;

    use super::*;

    #[derive(
        Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::EnumString, strum::VariantArray,
    )]
    #[strum(serialize_all = "snake_case")]
    enum Tea {
        Boil,
        Pour,
        Drink,
    }

    const POLICY: Policy = Policy {
        act_attempts: 3,
        undo_attempts: 2,
        resumptions: 2,
        first_wait: std::time::Duration::ZERO,
        longest_wait: std::time::Duration::ZERO,
    };

    fn event(step: Option<Tea>, what: What) -> Event {
        let data = match what {
            What::Done => Value::from(7),
            What::Retrying | What::Failed | What::Cancelled | What::UndoFailed | What::Stuck => {
                fault_data(&Fault::new(Code::OpConflict, "broken"))
            }
            _ => Value::Null,
        };
        Event {
            seq: 0,
            step: step.map(|s| Into::<&'static str>::into(s).to_owned()),
            what,
            data,
            at: Timestamp::from_micros(0),
        }
    }

    fn next(events: &[(Tea, What)]) -> Next<Tea> {
        let events: Vec<Event> = events
            .iter()
            .map(|(step, what)| event(Some(*step), *what))
            .collect();
        plan(&events, &POLICY)
    }

    fn recorded(next: &Next<Tea>) -> Option<(Tea, What)> {
        match next {
            Next::Record { step, what, .. } => Some((*step, *what)),
            _ => None,
        }
    }

    #[test]
    fn the_table_of_what_follows() {
        use Tea::{Boil, Drink, Pour};
        use What::{Done, Failed, Resumed, Retrying, Started, UndoFailed, Undoing, Undone};
        assert_eq!(recorded(&next(&[])), Some((Boil, Started)));
        assert_eq!(
            next(&[(Boil, Started)]),
            Next::Act {
                step: Boil,
                attempt: 1
            }
        );
        assert_eq!(
            recorded(&next(&[(Boil, Started), (Boil, Done)])),
            Some((Pour, Started))
        );
        assert_eq!(
            next(&[(Boil, Started), (Boil, Retrying)]),
            Next::Act {
                step: Boil,
                attempt: 2
            }
        );
        let tired = [
            (Boil, Started),
            (Boil, Retrying),
            (Boil, Retrying),
            (Boil, Retrying),
        ];
        assert_eq!(recorded(&next(&tired)), Some((Boil, Failed)));
        let deadly = [(Boil, Started), (Boil, Resumed), (Boil, Resumed), (Boil, Resumed)];
        assert_eq!(recorded(&next(&deadly)), Some((Boil, Failed)));
        let done = [
            (Boil, Started),
            (Boil, Done),
            (Pour, Started),
            (Pour, Done),
            (Drink, Started),
            (Drink, Done),
        ];
        assert_eq!(next(&done), Next::End(End::Done));

        let failed = [(Boil, Started), (Boil, Done), (Pour, Started), (Pour, Failed)];
        assert_eq!(recorded(&next(&failed)), Some((Pour, Undoing)));
        let with = |more: &[(Tea, What)]| next(&[failed.as_slice(), more].concat());
        assert_eq!(
            with(&[(Pour, Undoing)]),
            Next::Undo {
                step: Pour,
                attempt: 1
            }
        );
        assert_eq!(
            with(&[(Pour, Undoing), (Pour, UndoFailed)]),
            Next::Undo {
                step: Pour,
                attempt: 2
            }
        );
        assert_eq!(
            recorded(&with(&[(Pour, Undoing), (Pour, UndoFailed), (Pour, UndoFailed)])),
            Some((Pour, What::Stuck))
        );
        assert_eq!(
            recorded(&with(&[(Pour, Undoing), (Pour, Undone)])),
            Some((Boil, Undoing))
        );
        assert!(matches!(
            with(&[(Pour, Undoing), (Pour, Undone), (Boil, Undoing), (Boil, Undone)]),
            Next::End(End::Undone(fault)) if fault.is(Code::OpConflict)
        ));
    }

    #[test]
    fn a_cancel_between_steps_takes_back_what_was_done() {
        let events = [
            event(Some(Tea::Boil), What::Started),
            event(Some(Tea::Boil), What::Done),
            event(None, What::Cancelled),
        ];
        assert_eq!(
            recorded(&plan(&events, &POLICY)),
            Some((Tea::Boil, What::Undoing))
        );
    }

    #[test]
    fn an_operator_reopens_what_is_stuck() {
        let mut events = vec![
            event(Some(Tea::Boil), What::Started),
            event(Some(Tea::Boil), What::Failed),
            event(Some(Tea::Boil), What::Undoing),
            event(Some(Tea::Boil), What::UndoFailed),
            event(Some(Tea::Boil), What::UndoFailed),
            event(Some(Tea::Boil), What::Stuck),
        ];
        assert!(
            matches!(plan::<Tea>(&events, &POLICY), Next::End(End::Stuck { step, .. }) if step == "boil")
        );
        events.push(event(None, What::Reopened));
        assert_eq!(
            plan(&events, &POLICY),
            Next::Undo {
                step: Tea::Boil,
                attempt: 1
            }
        );
    }

    #[test]
    fn a_step_of_another_version_is_refused() {
        let mut strange = event(None, What::Started);
        strange.step = Some("stir".into());
        assert_eq!(
            plan::<Tea>(&[strange], &POLICY),
            Next::Unknown { step: "stir".into() }
        );
    }

    fn any_event() -> impl Strategy<Value = Event> {
        let step = proptest::option::weighted(0.9, proptest::sample::select(Tea::VARIANTS));
        let what = proptest::sample::select(What::VARIANTS);
        (step, what).prop_map(|(step, what)| event(step, what))
    }

    proptest! {
        /// Whatever was written, and however each attempt goes, the plan comes to an end, and an end
        /// that says "undone" leaves no step standing.
        #[test]
        fn every_history_leads_to_an_end(
            mut events in proptest::collection::vec(any_event(), 0..30),
            luck in proptest::collection::vec(0_u8..4, 1..60),
        ) {
            let mut luck = luck.iter().cycle();
            let mut turns = 0;
            let end = loop {
                turns += 1;
                prop_assert!(turns < 200, "no end in sight: {events:?}");
                let more = match plan::<Tea>(&events, &POLICY) {
                    Next::Record { step, what, data } => Event { data, ..event(Some(step), what) },
                    Next::Act { step, .. } => event(Some(step), match luck.next() {
                        Some(0) => What::Retrying,
                        Some(1) => What::Failed,
                        Some(2) => What::Resumed,
                        _ => What::Done,
                    }),
                    Next::Undo { step, .. } => event(Some(step), match luck.next() {
                        Some(0) => What::UndoFailed,
                        Some(1) => What::Resumed,
                        _ => What::Undone,
                    }),
                    Next::End(end) => break end,
                    Next::Unknown { step } => return Err(TestCaseError::fail(format!("unknown {step}"))),
                };
                events.push(more);
            };
            let steps = History::<Tea>::of(&events).steps();
            match end {
                End::Done => prop_assert!(steps.iter().all(|s| s.state == StepState::Done)),
                End::Undone(_) => prop_assert!(steps.iter().all(|s| matches!(s.state, StepState::Pending | StepState::Undone)), "{steps:?}"),
                End::Stuck { .. } => {}
            }
        }

        /// Two replicas that read the same events decide alike.
        #[test]
        fn the_plan_depends_on_the_events_alone(events in proptest::collection::vec(any_event(), 0..30)) {
            prop_assert_eq!(plan::<Tea>(&events, &POLICY), plan::<Tea>(&events, &POLICY));
        }
    }
}
