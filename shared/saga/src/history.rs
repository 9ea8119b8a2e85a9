//! Events, digested: where each step is, what was given, what went wrong.

use nimbus_errors::{Code, Fault};
use nimbus_model::Timestamp;

use crate::{Event, Outputs, Step, What};

/// Where one step is, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::Display)]
#[strum(serialize_all = "snake_case")]
pub enum StepState {
    /// Not begun.
    Pending,
    /// Acting.
    Running,
    /// Has acted.
    Done,
    /// Failed; not undone yet.
    Failed,
    /// Being undone.
    Undoing,
    /// Undone.
    Undone,
}

/// One step, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct StepView<S> {
    /// Which.
    pub step: S,
    /// Where it is.
    pub state: StepState,
    /// When it began to act.
    pub started_at: Option<Timestamp>,
    /// When it had acted, failed or was undone.
    pub finished_at: Option<Timestamp>,
}

/// Events, digested.
#[derive(Clone, Debug)]
pub struct History<S> {
    pub(crate) tracks: Vec<Track<S>>,
    /// Started steps, oldest first.
    pub(crate) order: Vec<S>,
    pub(crate) failure: Option<Fault>,
    pub(crate) stuck: Option<(String, Fault)>,
    pub(crate) unknown: Option<String>,
    outputs: Outputs,
}

#[derive(Clone, Debug)]
pub(crate) struct Track<S> {
    pub(crate) step: S,
    pub(crate) state: StepState,
    pub(crate) failures: u32,
    pub(crate) last_fault: Option<Fault>,
    pub(crate) undo_failures: u32,
    pub(crate) resumptions: u32,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Option<Timestamp>,
}

impl<S: Step> History<S> {
    /// Reads events in their order. Whatever they say, [`History::next`] leads to an end: what cannot
    /// have happened is read as the state that is safest to go on from.
    #[must_use]
    pub fn of(events: &[Event]) -> Self {
        let mut history = Self {
            tracks: S::VARIANTS.iter().map(|step| Track::new(*step)).collect(),
            order: Vec::new(),
            failure: None,
            stuck: None,
            unknown: None,
            outputs: Outputs::default(),
        };
        for event in events {
            history.add(event);
        }
        history
    }

    fn add(&mut self, event: &Event) {
        let step = match &event.step {
            None => None,
            Some(name) => match S::from_str(name) {
                Ok(step) => Some(step),
                Err(_) => {
                    self.unknown.get_or_insert_with(|| name.clone());
                    return;
                }
            },
        };
        match event.what {
            What::Cancelled | What::Failed => {
                self.failure = self.failure.take().or_else(|| event.fault());
            }
            What::Undoing | What::Undone if self.failure.is_none() => {
                self.failure = Some(Fault::new(
                    Code::ServiceInternal,
                    "steps were taken back without a reason on record",
                ));
            }
            What::Stuck => {
                let fault = event
                    .fault()
                    .unwrap_or_else(|| Fault::new(Code::ServiceInternal, "no reason on record"));
                self.stuck = Some((event.step.clone().unwrap_or_default(), fault));
            }
            What::Reopened => {
                self.stuck = None;
                for track in &mut self.tracks {
                    track.undo_failures = 0;
                    track.resumptions = 0;
                }
            }
            _ => {}
        }
        let Some(step) = step else { return };
        let Some(track) = self.tracks.iter_mut().find(|track| track.step == step) else {
            return;
        };
        if matches!(track.state, StepState::Pending | StepState::Undone) && event.what.means_started() {
            self.order.retain(|other| *other != step);
            self.order.push(step);
            track.state = StepState::Running;
            track.started_at = Some(event.at);
        }
        match event.what {
            What::Done => {
                track.state = StepState::Done;
                track.finished_at = Some(event.at);
                self.outputs
                    .0
                    .insert(Into::<&'static str>::into(step).to_owned(), event.data.clone());
            }
            What::Retrying => {
                track.failures = track.failures.saturating_add(1);
                track.last_fault = event.fault();
            }
            What::Failed => {
                track.state = StepState::Failed;
                track.finished_at = Some(event.at);
            }
            What::Resumed => track.resumptions = track.resumptions.saturating_add(1),
            What::Undoing => {
                track.state = StepState::Undoing;
                track.resumptions = 0;
            }
            What::Undone => {
                track.state = StepState::Undone;
                track.finished_at = Some(event.at);
            }
            What::UndoFailed => {
                track.undo_failures = track.undo_failures.saturating_add(1);
                track.last_fault = event.fault();
            }
            What::Started | What::Cancelled | What::Stuck | What::Reopened => {}
        }
    }

    /// Why it is taken back, once it is.
    #[must_use]
    pub fn failure(&self) -> Option<&Fault> {
        self.failure.as_ref()
    }

    /// What the done steps gave.
    #[must_use]
    pub fn outputs(&self) -> &Outputs {
        &self.outputs
    }

    /// Every step in the order of work.
    #[must_use]
    pub fn steps(&self) -> Vec<StepView<S>> {
        self.tracks
            .iter()
            .map(|track| StepView {
                step: track.step,
                state: track.state,
                started_at: track.started_at,
                finished_at: track.finished_at,
            })
            .collect()
    }
}

impl<S> Track<S> {
    fn new(step: S) -> Self {
        Self {
            step,
            state: StepState::Pending,
            failures: 0,
            last_fault: None,
            undo_failures: 0,
            resumptions: 0,
            started_at: None,
            finished_at: None,
        }
    }
}

impl What {
    /// Whether a step that this happened to has begun, even if nothing says so.
    fn means_started(self) -> bool {
        matches!(
            self,
            Self::Started
                | Self::Done
                | Self::Retrying
                | Self::Failed
                | Self::Resumed
                | Self::Undoing
                | Self::Undone
                | Self::UndoFailed
        )
    }
}
