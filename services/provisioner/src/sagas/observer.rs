//! What becomes true together with each event of a saga: the operation as its owner sees it, the
//! machine's row at the end, and the events that tell of both.

use async_trait::async_trait;
use nimbus_errors::{Code, Fault};
use nimbus_model::{MachineId, OperationId};
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
        if event.what == What::Reopened {
            self.take_up(tx, &row).await?;
        }
        // Taking back goes on after it got stuck; for the owner the operation has ended.
        let over = row.finished_at.is_some();
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
            state: (!over).then_some(OperationState::Running),
            started_at: Some(at),
            ..Progress::default()
        };
        if matches!(event.what, What::Failed | What::Cancelled) {
            change.fault = event.fault().map(|fault| json(&fault)).transpose()?;
        }
        if event.what == What::Stuck {
            change.fault = Some(json(&stuck(known_fault(&row), event.fault()))?);
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
            change.finished_at = (!over).then_some(at);
            change.drop_key = !succeeded;
            if happened.state == State::Undone
                && let Some(failure) = known_fault(&row).as_ref().and_then(behind)
            {
                change.fault = Some(json(&failure)?);
            }
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
            (OperationKind::Provision, _) => {
                // It keeps the machine: a reconcile must not give up what may still be there.
                let (failed, message) = (MachineStatus::Failed, failure.map(str::to_owned));
                return self.set(tx, row.id, failed, Some(operation.id), message).await;
            }
            (_, _) => (before, failure.map(str::to_owned)),
        };
        self.set(tx, row.id, status, None, message).await
    }

    async fn set(
        &self,
        tx: &mut Tx,
        machine: MachineId,
        status: MachineStatus,
        operation: Option<OperationId>,
        message: Option<String>,
    ) -> Result<(), MachineError> {
        let at = self.news.clock.now();
        let Some(changed) =
            machines::set_state(tx, machine, status, operation, message.as_deref(), at).await?
        else {
            return Ok(());
        };
        let machine = changed.view()?;
        self.news.tell(tx, &MachineChanged { machine }).await
    }

    /// Gives a stuck operation its machine back, unless somebody else works on it by now.
    async fn take_up(&self, tx: &mut Tx, operation: &OperationRow) -> Result<(), MachineError> {
        let row = machines::lock(tx, operation.machine)
            .await?
            .ok_or(MachineError::NotFound(operation.machine))?;
        match row.operation {
            Some(other) if other != operation.id => Err(MachineError::Busy { operation: other }),
            _ => {
                let (status, message) = (row.status()?, row.error_msg);
                self.set(tx, row.id, status, Some(operation.id), message).await
            }
        }
    }
}

fn known_fault(row: &OperationRow) -> Option<Fault> {
    row.fault
        .as_deref()
        .and_then(|text| serde_json::from_str(text).ok())
}

/// What failed before taking back got stuck.
fn behind(fault: &Fault) -> Option<Fault> {
    let detail = fault.is(Code::MachineStuck).then(|| fault.detail_json())??;
    serde_json::from_value(detail.get("failure")?.clone()).ok()
}

/// Says both what failed and why it could not be taken back.
fn stuck(known: Option<Fault>, cause: Option<Fault>) -> Fault {
    let failure = known
        .as_ref()
        .and_then(behind)
        .or(known.filter(|fault| !fault.is(Code::MachineStuck)));
    let why = cause.map(|fault| fault.message).unwrap_or_default();
    let text = format!("taking the operation back did not succeed yet and is tried again: {why}");
    match failure {
        Some(failure) => Fault::new(Code::MachineStuck, format!("{}; {text}", failure.message))
            .with_detail(&serde_json::json!({ "failure": failure })),
        None => Fault::new(Code::MachineStuck, text),
    }
}
