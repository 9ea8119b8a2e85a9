//! Drives sagas: woken by the work queue, and by a sweep for what a dead replica left behind.

use std::sync::Arc;
use std::time::Duration;

use nimbus_bus::{Done, trace};
use nimbus_errors::chain;
use nimbus_model::OperationId;
use nimbus_proto::machine::{OperationKind, PowerAction};
use nimbus_proto::work::Operate;
use nimbus_saga::{Claimed, Outcome, SagaError, drive};
use nimbus_service::{Ctx, OnError, RunError, Tasks};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use tracing::field::Empty;

use super::{Params, delete::Delete, power::Power, provision::Provision, saga_error};
use crate::error::MachineError;
use crate::hypervisor::Vm;
use crate::operation::OperationRow;
use crate::operation::store as operations;
use crate::service::Provisioner;

/// Wake-ups taken at the same time; taking one is short, the work goes on beside it.
const WAKE_UPS: usize = 8;
/// Operations that one replica works on at the same time; they mostly wait for Proxmox.
const AT_ONCE: usize = 256;
/// Pause between two looks for operations whose replica died.
const SWEEP: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Driver {
    provisioner: Provisioner,
    owner: Arc<str>,
    places: Arc<Semaphore>,
    tasks: Tasks,
    stop: CancellationToken,
}

/// Starts the worker and the sweep.
pub(crate) fn start(ctx: &Ctx, provisioner: &Provisioner) {
    let driver = Driver {
        provisioner: provisioner.clone(),
        owner: ctx.instance.as_str().into(),
        places: Arc::new(Semaphore::new(AT_ONCE)),
        tasks: ctx.tasks.clone(),
        stop: ctx.stop.clone(),
    };
    let (bus, worker) = (ctx.bus.clone(), driver.clone());
    ctx.tasks.spawn("provisioner.worker", OnError::Restart, move || {
        let (bus, driver) = (bus.clone(), worker.clone());
        async move {
            let stop = driver.stop.clone();
            bus.work::<Operate, _, _>(WAKE_UPS, stop, move |operation, _progress| {
                let driver = driver.clone();
                async move {
                    driver.take(operation).await;
                    // Whatever came of it is in the tables; the sweep looks at what is unfinished.
                    Ok(Done::Ack)
                }
            })
            .await?;
            Ok(())
        }
    });
    ctx.tasks.spawn("provisioner.sweep", OnError::Restart, move || {
        let driver = driver.clone();
        async move {
            loop {
                driver.sweep().await?;
                tokio::time::sleep(SWEEP).await;
            }
        }
    });
}

impl Driver {
    /// Takes up what nobody works on.
    async fn sweep(&self) -> Result<(), RunError> {
        let looking = |error| RunError::other("looking for unfinished operations", error);
        super::stuck::reopen(&self.provisioner)
            .await
            .map_err(|error| RunError::other("looking for stuck operations", error))?;
        for id in self
            .provisioner
            .inner()
            .sagas
            .abandoned(64)
            .await
            .map_err(looking)?
        {
            if let Ok(operation) = id.parse::<OperationId>() {
                self.take(operation).await;
            }
        }
        Ok(())
    }

    /// Claims an operation and works on it beside the caller, unless another replica does.
    async fn take(&self, id: OperationId) {
        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
            return;
        };
        match self
            .provisioner
            .inner()
            .sagas
            .claim(&id.to_string(), &self.owner)
            .await
        {
            Ok(Some(claimed)) => {
                let driver = self.clone();
                self.tasks
                    .finish(async move { driver.operate(id, claimed, place).await });
            }
            // Somebody is at it, or it is done.
            Ok(None) => {}
            Err(error) => {
                tracing::error!(operation.id = %id, cause = %chain(&error), "could not claim an operation");
            }
        }
    }

    async fn operate(&self, id: OperationId, claimed: Claimed, _place: OwnedSemaphorePermit) {
        let row = match operations::find(&self.provisioner.inner().store, id).await {
            Ok(Some(row)) => row,
            Ok(None) => return,
            Err(error) => {
                tracing::error!(operation.id = %id, cause = %chain(&error), "could not read an operation");
                return;
            }
        };
        let span = tracing::info_span!(
            "operation", otel.name = %row.kind, operation.id = %id, machine.id = %row.machine, outcome = Empty
        );
        trace::resume(&span, row.trace_parent.as_deref());
        let outcome = Box::pin(self.drive(&row, claimed)).instrument(span.clone()).await;
        let what = format!("{} of {}", row.kind, row.hostname);
        match outcome {
            Ok(Outcome::Done(_)) => {
                span.record("outcome", "ok");
                tracing::info!(operation.id = %id, "{what} succeeded");
            }
            Ok(Outcome::Undone(fault)) => {
                span.record("outcome", fault.code.as_str());
                tracing::warn!(operation.id = %id, fault.code = %fault.code, "{what} failed: {}", fault.message);
            }
            Ok(Outcome::Stuck { step, fault }) => {
                span.record("outcome", "stuck");
                tracing::error!(operation.id = %id, step, "{what} could not be taken back and is tried again later, look at its VM: {}", fault.message);
            }
            Ok(Outcome::Lost | Outcome::Stopped) => {
                span.record("outcome", "handed over");
                tracing::info!(operation.id = %id, "{what} goes on in another replica, or after the restart");
            }
            Err(error) => {
                span.record("outcome", "error");
                tracing::error!(operation.id = %id, cause = %chain(&error), "{what} could not be driven");
            }
        }
    }

    async fn drive(&self, row: &OperationRow, claimed: Claimed) -> Result<Outcome, MachineError> {
        let (provisioner, inner) = (&self.provisioner, self.provisioner.inner());
        let kind = row.kind()?;
        let Params { machine } = claimed.params().map_err(saga_error)?;
        let vm = Vm::new(provisioner.client()?, &inner.config, machine);
        let (sagas, stop) = (&inner.sagas, &self.stop);
        let power = |action, vm| Power {
            provisioner,
            machine,
            action,
            vm,
        };
        let outcome: Result<Outcome, SagaError> = match kind {
            OperationKind::Provision => {
                let saga = Provision {
                    provisioner,
                    machine,
                    vm,
                    renewing: Mutex::new(true),
                };
                tokio::select! {
                    outcome = drive(&saga, sagas, claimed, stop) => outcome,
                    never = saga.keep_address() => match never {},
                }
            }
            OperationKind::Delete => {
                drive(
                    &Delete {
                        provisioner,
                        machine,
                        vm,
                    },
                    sagas,
                    claimed,
                    stop,
                )
                .await
            }
            OperationKind::Start => drive(&power(PowerAction::Start, vm), sagas, claimed, stop).await,
            OperationKind::Shutdown => drive(&power(PowerAction::Shutdown, vm), sagas, claimed, stop).await,
            OperationKind::Stop => drive(&power(PowerAction::Stop, vm), sagas, claimed, stop).await,
            OperationKind::Reboot => drive(&power(PowerAction::Reboot, vm), sagas, claimed, stop).await,
        };
        outcome.map_err(saga_error)
    }
}
