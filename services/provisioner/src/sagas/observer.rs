//! What becomes true together with each event of a saga: the operation as its owner sees it, the
//! machine's row at the end, and the events that tell of both.

use async_trait::async_trait;
use nimbus_errors::{Code, Fault};
use nimbus_model::OperationId;
use nimbus_proto::event::{MachineChanged, MachineDeleted, OperationProgressed};
use nimbus_proto::machine::{MachineStatus, OperationKind, OperationState, ProvisionResult, StepState};
use nimbus_saga::{Observer, SagaEvent, State, What};
use nimbus_store::{StoreError, Tx, sqlx};

use super::json;
use crate::error::MachineError;
use crate::machine::{Event, on, store as machines};
use crate::operation::OperationRow;
use crate::operation::mark;
use crate::operation::store::{self as operations, Progress};
use crate::service::News;

/// Watches every saga.
pub(crate) struct Watch {
    pub(crate) news: News,
}

#[async_trait]
impl Observer for Watch {
    async fn on_event(&self, tx: &mut Tx, event: &SagaEvent) -> Result<(), StoreError> {
        self.record(tx, event).await.map_err(|error| match error {
            MachineError::Store(error) => error,
            // Rows that cannot be read stop the saga where it is; an operator has to look.
            other => sqlx::Error::Decode(Box::new(other)).into(),
        })
    }

    fn committed(&self, _event: &SagaEvent) {
        self.news.outbox.nudge();
    }
}

impl Watch {
    async fn record(&self, tx: &mut Tx, happened: &SagaEvent) -> Result<(), MachineError> {
        let id: OperationId = happened
            .saga
            .parse()
            .map_err(|error: nimbus_model::id::IdError| MachineError::Damaged {
                what: "a saga's id",
                reason: error.to_string(),
            })?;
        let Some(row) = operations::find_in(tx, id).await? else {
            return Ok(());
        };
        let (event, at) = (&happened.event, happened.event.at);
        let mut steps = row.steps()?;
        let state = match event.what {
            What::Started | What::Resumed => Some(StepState::Running),
            What::Done => Some(StepState::Done),
            What::Failed | What::Cancelled | What::Stuck => Some(StepState::Failed),
            What::Undoing => Some(StepState::Undoing),
            What::Undone => Some(StepState::Undone),
            What::Retrying | What::UndoFailed | What::Reopened => None,
        };
        if let (Some(step), Some(state)) = (&event.step, state) {
            mark(&mut steps, step, state, at);
        }
        let mut change = Progress {
            steps: json(&steps)?,
            state: Some(OperationState::Running),
            started_at: Some(at),
            ..Progress::default()
        };
        if matches!(event.what, What::Failed | What::Cancelled) {
            change.fault = event.fault().map(|fault| json(&fault)).transpose()?;
        }
        if event.what == What::Stuck {
            change.fault = Some(json(&stuck(event.fault()))?);
        }
        let kind = row.kind()?;
        if event.what == What::Done && event.step.as_deref() == Some("save_vm") {
            change.result = Some(event.data.to_string());
        }
        let ended = happened.last && happened.state.is_end();
        if ended {
            let succeeded = happened.state == State::Done;
            change.state = Some(if succeeded {
                OperationState::Succeeded
            } else {
                OperationState::Failed
            });
            change.finished_at = Some(at);
            change.drop_key = !succeeded;
        }
        let Some(row) = operations::progress(tx, id, &change).await? else {
            return Ok(());
        };
        if ended {
            self.settle(tx, kind, happened.state, &row).await?;
        }
        self.news
            .tell(
                tx,
                &OperationProgressed {
                    operation: row.view()?,
                },
            )
            .await
    }

    /// What the end of an operation means for its machine.
    async fn settle(
        &self,
        tx: &mut Tx,
        kind: OperationKind,
        end: State,
        operation: &OperationRow,
    ) -> Result<(), MachineError> {
        let Some(row) = machines::lock(tx, operation.machine).await? else {
            return Ok(());
        };
        let view = operation.view()?;
        let failure = view.fault.as_ref().map(|fault| fault.message.as_str());
        let before = row.status()?;
        let at = self.news.clock.now();
        let gone = matches!(
            (kind, end),
            (OperationKind::Provision, State::Undone) | (OperationKind::Delete, State::Done)
        );
        if gone {
            if let Some(removed) = machines::remove(tx, row.id).await? {
                self.news
                    .tell(
                        tx,
                        &MachineDeleted {
                            machine: removed.view()?,
                        },
                    )
                    .await?;
            }
            return Ok(());
        }
        let (status, message) = match (kind, end) {
            (OperationKind::Provision, State::Done) => {
                let warning = view.result.and_then(|ProvisionResult { warning, .. }| warning);
                (
                    on(before, Event::Built).unwrap_or(MachineStatus::Running),
                    warning,
                )
            }
            (OperationKind::Start | OperationKind::Reboot, State::Done) => (MachineStatus::Running, None),
            (OperationKind::Stop | OperationKind::Shutdown, State::Done) => (MachineStatus::Stopped, None),
            (OperationKind::Delete, _) => (
                on(before, Event::DeleteFailed).unwrap_or(MachineStatus::Failed),
                failure.map(str::to_owned),
            ),
            (OperationKind::Provision, _) => (MachineStatus::Failed, failure.map(str::to_owned)),
            (_, _) => (before, failure.map(str::to_owned)),
        };
        if let Some(changed) = machines::set_state(tx, row.id, status, None, message.as_deref(), at).await? {
            self.news
                .tell(
                    tx,
                    &MachineChanged {
                        machine: changed.view()?,
                    },
                )
                .await?;
        }
        Ok(())
    }
}

fn stuck(cause: Option<Fault>) -> Fault {
    let why = cause.map(|fault| fault.message).unwrap_or_default();
    Fault::new(
        Code::MachineStuck,
        format!("taking the operation back did not succeed: {why}"),
    )
}
