//! Services started, stopped, restarted.

use std::sync::Arc;
use std::time::Duration;

use nimbus_bus::{Action, Caller, Key, On};
use nimbus_proto::workloads::{
    Backend, Condition, ConditionKind, Named, RestartServiceRequest, Service, Truth,
};

use super::Saved;
use super::define::free;
use super::row::ServiceRow;
use crate::done::Keyed;
use crate::error::WorkError;
use crate::resolve::resolve;
use crate::sandboxes::{Birth, Born, Purpose};
use crate::state::condition;
use crate::tenants::row::TenantRow;
use crate::works::{RACES, Works, allow, audit};

/// For how long the id of a restart is known.
const RESTART_KNOWN: Duration = Duration::from_secs(600);

impl Works {
    pub(crate) async fn start_service(&self, caller: &Caller, of: &Named) -> Result<Service, WorkError> {
        let identity = &caller.identity;
        let tenant = self.open_tenant(identity, &of.tenant).await?;
        allow(identity, Action::ServicesStart, &tenant, On::service(&of.name))?;
        for _ in 0..RACES {
            let row = self.service_now(&of.tenant, &of.name).await?;
            launchable(&row)?;
            let active = self.active(&row).await?;
            if row.drain.is_none()
                && (row.is_pending() || active.as_ref().is_some_and(|a| a.stop_reason.is_none()))
            {
                return self.present(identity, &tenant, &row).await;
            }
            free(&row, active.as_deref())?;
            if self.start(&tenant, &row).await? {
                audit(caller, "services.start", &of.tenant, &of.name);
                let row = self.service_now(&of.tenant, &of.name).await?;
                return self.present(identity, &tenant, &row).await;
            }
        }
        Err(raced(&of.name))
    }

    /// Makes a sandbox for a service that has none and launches it in the background; false: somebody
    /// was faster. What its definition does not allow any more is written down and told.
    pub(super) async fn start(&self, tenant: &TenantRow, row: &Arc<ServiceRow>) -> Result<bool, WorkError> {
        let backend = self.open_backend(row)?;
        let checked = self.check_backend(tenant, &row.name, backend);
        let (Backend::Sandbox(spec), Some(image)) = (match checked {
            Ok(checked) => checked,
            Err(error) => {
                self.fail(row, ConditionKind::Admitted, "DefinitionRefused", &error)
                    .await?;
                return Err(error);
            }
        }) else {
            return Err(not_launchable(&row.name));
        };
        let place = self.place(&row.tenant, &row.name);
        let birth = Birth {
            tenant: row.tenant.clone(),
            name: Some(row.name.clone()),
            profile: place.profile,
            labels: row.labels.clone(),
            made_by: None,
            resolved: resolve(&spec, &image, place),
            image: image.to_string(),
            purpose: Purpose::Service(Arc::clone(row)),
        };
        let born = self.bear(birth).await;
        self.services.forget(&(row.tenant.clone(), row.name.clone()));
        match born {
            Ok(Born::New(record, launch)) => {
                self.outbox.nudge();
                let works = self.clone();
                self.aside("launching a service's sandbox", async move {
                    works.launch(record, *launch, None).await?;
                    Ok(())
                });
                Ok(true)
            }
            Ok(Born::Before(_)) | Err(WorkError::Raced { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes down why a service could not be started; it is not wanted any more then.
    pub(super) async fn fail(
        &self,
        row: &Arc<ServiceRow>,
        kind: ConditionKind,
        reason: &str,
        error: &WorkError,
    ) -> Result<(), WorkError> {
        let mut new = ServiceRow::clone(row);
        let said: Condition = condition(
            kind,
            Truth::False,
            reason,
            error.to_string(),
            row.generation,
            self.now(),
        );
        (new.failure, new.wanted, new.sandbox, new.updated_at) = (Some(said), false, None, self.now());
        self.save_service(row, new).await?;
        Ok(())
    }

    pub(crate) async fn stop_service(&self, caller: &Caller, of: &Named) -> Result<Service, WorkError> {
        let identity = &caller.identity;
        let tenant = self.tenant(identity, &of.tenant).await?;
        allow(identity, Action::ServicesStop, &tenant, On::service(&of.name))?;
        for _ in 0..RACES {
            let row = self.service_now(&of.tenant, &of.name).await?;
            launchable(&row)?;
            if row.drain.is_some() {
                free(&row, None)?;
            }
            let row = if row.wanted {
                let mut new = ServiceRow::clone(&row);
                new.wanted = false;
                match self.save_service(&row, new).await? {
                    Some(row) => row,
                    None => continue,
                }
            } else {
                row
            };
            if let Some(active) = self.active(&row).await?
                && active.stop_reason.is_none()
            {
                audit(caller, "services.stop", &of.tenant, &of.name);
                self.end(active.id(), "StoppedByRequest", "somebody asked for it")
                    .await?;
            }
            let row = self.service_now(&of.tenant, &of.name).await?;
            return self.present(identity, &tenant, &row).await;
        }
        Err(raced(&of.name))
    }

    pub(crate) async fn restart_service(
        &self,
        caller: &Caller,
        request: &RestartServiceRequest,
    ) -> Result<Service, WorkError> {
        let identity = &caller.identity;
        let RestartServiceRequest {
            tenant,
            name,
            source_generation,
            request_id,
        } = request;
        let tenant = self.open_tenant(identity, tenant).await?;
        allow(identity, Action::ServicesRestart, &tenant, On::service(name))?;
        let id = request_id.as_ref().map(|id| Key::new(format!("{name}/{id}")));
        let keyed = Keyed::of(self, id.as_ref(), &tenant.id, "restart_service", request)?
            .map(|keyed| keyed.known_for(RESTART_KNOWN));
        for _ in 0..RACES {
            let row = self.service_now(&tenant.id, name).await?;
            launchable(&row)?;
            if let Some(keyed) = &keyed
                && self.is_done(keyed).await?
            {
                return self.present(identity, &tenant, &row).await;
            }
            if let Some(expected) = source_generation.filter(|seen| *seen != row.generation) {
                return Err(WorkError::Stale {
                    expected,
                    current: row.generation,
                });
            }
            let active = self.active(&row).await?;
            free(&row, active.as_deref())?;
            let mut new = ServiceRow::clone(&row);
            new.updated_at = self.now();
            (new.failure, new.wanted, new.sandbox) = (None, true, None);
            new.drain = active.as_ref().map(|record| record.id().to_owned());
            match self.save_service_keyed(&row, new, keyed.clone()).await? {
                Saved::Raced => {}
                Saved::Before => {
                    let row = self.service_now(&tenant.id, name).await?;
                    return self.present(identity, &tenant, &row).await;
                }
                Saved::To(row) => {
                    audit(caller, "services.restart", &tenant.id, name);
                    if row.drain.is_some() {
                        self.drain_aside(&row).await?;
                    } else if let Err(error) = self.start(&tenant, &row).await {
                        self.fail(&row, ConditionKind::Ready, "LaunchFailed", &error)
                            .await?;
                        return Err(error);
                    }
                    let row = self.service_now(&tenant.id, name).await?;
                    return self.present(identity, &tenant, &row).await;
                }
            }
        }
        Err(raced(name))
    }
}

fn not_launchable(name: &str) -> WorkError {
    WorkError::conflict(
        "backend_not_launchable",
        format!("nothing of the service {name} is run here"),
    )
}

fn launchable(row: &ServiceRow) -> Result<(), WorkError> {
    if row.is_sandbox() {
        Ok(())
    } else {
        Err(not_launchable(&row.name))
    }
}

fn raced(name: &str) -> WorkError {
    WorkError::Raced {
        what: format!("the service {name}"),
    }
}
