//! Definitions: created, replaced, deleted.

use std::sync::Arc;

use nimbus_bus::{Action, Caller, Key, On};
use nimbus_model::ImageRef;
use nimbus_proto::event::{ServiceChanged, ServiceDeleted};
use nimbus_proto::workloads::{Backend, DeleteServiceRequest, Profile, Service, WriteService};

use super::row::{self, ServiceRow};
use super::{MOST, Saved};
use crate::done::{Keyed, Known};
use crate::error::WorkError;
use crate::ids;
use crate::resolve::{For, kind, normal, show_backend};
use crate::sandboxes::DRAIN;
use crate::sandboxes::record::Record;
use crate::sessions;
use crate::tenants::row::TenantRow;
use crate::validate::{self, Scene};
use crate::works::{RACES, Works, allow, audit};

impl Works {
    /// Checks a backend; gives it in its normal form with its image.
    pub(super) fn check_backend(
        &self,
        tenant: &TenantRow,
        name: &str,
        backend: Backend,
    ) -> Result<(Backend, Option<ImageRef>), WorkError> {
        let scene = Scene {
            tenant: &tenant.id,
            service: Some(name),
            policy: tenant.policy,
            cap: tenant.quota.limit,
            at: "spec.backend.sandbox",
        };
        let image = validate::backend(&backend, scene)?;
        Ok((normal(backend, image.as_ref(), name), image))
    }

    pub(super) fn place<'a>(&self, tenant: &'a str, name: &'a str) -> For<'a> {
        For {
            tenant,
            service: Some(name),
            profile: Profile::Worker,
            defaults: self.config.sandbox_defaults(Profile::Worker),
        }
    }

    pub(crate) async fn create_service(
        &self,
        caller: &Caller,
        key: Option<&Key>,
        request: WriteService,
    ) -> Result<Service, WorkError> {
        let identity = &caller.identity;
        let tenant = self.open_tenant(identity, &request.tenant).await?;
        validate::service_name("metadata.name", &request.name)?;
        allow(
            identity,
            Action::ServicesCreate,
            &tenant,
            On::service(&request.name),
        )?;
        if request.if_generation.is_some_and(|generation| generation != 0) {
            return Err(WorkError::invalid(
                "metadata.generation",
                "a new service has none yet; leave it out",
            ));
        }
        let keyed = Keyed::of(self, key, &tenant.id, "create_service", &request)?;
        let labels = request.labels.unwrap_or_default();
        validate::labels("metadata.labels", &labels)?;
        let name = request.name;
        let (backend, image) = self.check_backend(&tenant, &name, request.backend)?;
        let (now, place) = (self.now(), self.place(&tenant.id, &name));
        let uid = ids::ulid(now);
        let row = ServiceRow {
            tenant: tenant.id.clone(),
            generation: 1,
            is_static: false,
            made_by: identity.key.as_ref().map(|key| key.id),
            kind: kind(&backend).to_owned(),
            labels,
            backend: show_backend(&backend, image.as_ref(), place),
            definition: self.seal_backend(&tenant.id, &uid, &backend)?,
            wanted: false,
            sandbox: None,
            sandbox_generation: 0,
            drain: None,
            failure: None,
            probe: None,
            created_at: now,
            updated_at: now,
            version: now.micros(),
            uid,
            name: name.clone(),
        };
        let works = self.clone();
        let made = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    if let Some(keyed) = &keyed
                        && let Known::Done(_) = keyed.take(tx, &row.name, now).await?
                    {
                        return Ok(None);
                    }
                    let there = row::count(tx, &row.tenant).await?;
                    if there >= MOST {
                        return Err(WorkError::Quota {
                            dimension: "services",
                            limit: MOST,
                            used: there,
                            requested: 1,
                        });
                    }
                    if !row::insert(tx, &row).await? {
                        return Err(WorkError::Exists {
                            kind: "service",
                            name: row.name.clone(),
                        });
                    }
                    let service = row.shown(None);
                    works.tell(tx, &ServiceChanged { service }).await?;
                    Ok::<_, WorkError>(Some(Arc::new(row)))
                })
            })
            .await?;
        let row = match made {
            Some(row) => {
                self.outbox.nudge();
                self.services
                    .put((row.tenant.clone(), row.name.clone()), Arc::clone(&row));
                audit(caller, "services.create", &tenant.id, &name);
                row
            }
            None => self.service_now(&tenant.id, &name).await?,
        };
        self.present(identity, &tenant, &row).await
    }

    pub(crate) async fn update_service(
        &self,
        caller: &Caller,
        key: Option<&Key>,
        request: WriteService,
    ) -> Result<Service, WorkError> {
        let identity = &caller.identity;
        let tenant = self.open_tenant(identity, &request.tenant).await?;
        allow(
            identity,
            Action::ServicesUpdate,
            &tenant,
            On::service(&request.name),
        )?;
        let keyed = Keyed::of(self, key, &tenant.id, "update_service", &request)?;
        let name = request.name;
        self.service_now(&tenant.id, &name).await?;
        let expected = request.if_generation.ok_or_else(|| {
            WorkError::invalid("metadata.generation", "the generation to replace has to be said")
        })?;
        if let Some(labels) = &request.labels {
            validate::labels("metadata.labels", labels)?;
        }
        let (backend, image) = self.check_backend(&tenant, &name, request.backend)?;
        let shown = show_backend(&backend, image.as_ref(), self.place(&tenant.id, &name));
        for _ in 0..RACES {
            let old = self.service_now(&tenant.id, &name).await?;
            if old.is_static {
                return Err(fixed(&name));
            }
            if old.generation != expected {
                // Its own repeat is no stale one.
                if let Some(keyed) = &keyed
                    && self.is_done(keyed).await?
                {
                    return self.present(identity, &tenant, &old).await;
                }
                return Err(WorkError::Stale {
                    expected,
                    current: old.generation,
                });
            }
            let active = self.active(&old).await?;
            if request.reject_active
                && let Some(active) = &active
            {
                return Err(WorkError::Conflict {
                    reason: "running",
                    why: format!("the service {name} is active"),
                    lifecycle: Some(active.shown.status.lifecycle),
                });
            }
            free(&old, active.as_deref())?;
            let same = old.is_sandbox() && self.open_backend(&old)? == backend;
            let mut new = ServiceRow::clone(&old);
            new.generation += 1;
            new.updated_at = self.now();
            new.made_by = identity.key.as_ref().map(|key| key.id);
            if let Some(labels) = &request.labels {
                new.labels.clone_from(labels);
            }
            kind(&backend).clone_into(&mut new.kind);
            new.backend = shown.clone();
            new.definition = self.seal_backend(&tenant.id, &old.uid, &backend)?;
            new.failure = None;
            new.probe = None;
            match &active {
                Some(_) if same => new.sandbox_generation = new.generation,
                Some(active) => {
                    new.drain = Some(active.id().to_owned());
                    new.sandbox = None;
                    new.wanted = new.is_sandbox();
                }
                None => {
                    new.sandbox = None;
                    new.wanted = false;
                }
            }
            match self.save_service_keyed(&old, new, keyed.clone()).await? {
                Saved::Raced => {}
                Saved::Before => {
                    let row = self.service_now(&tenant.id, &name).await?;
                    return self.present(identity, &tenant, &row).await;
                }
                Saved::To(row) => {
                    audit(caller, "services.update", &tenant.id, &name);
                    if row.drain.is_some() {
                        self.drain_aside(&row).await?;
                    }
                    return self.present(identity, &tenant, &row).await;
                }
            }
        }
        Err(WorkError::Raced {
            what: format!("the service {name}"),
        })
    }

    /// The sandbox behind a service, if it has not ended.
    pub(crate) async fn active(&self, row: &ServiceRow) -> Result<Option<Arc<Record>>, WorkError> {
        Ok(match &row.sandbox {
            Some(id) => self.find_sandbox(id).await?.filter(|record| record.charged),
            None => None,
        })
    }

    pub(crate) async fn delete_service(
        &self,
        caller: &Caller,
        request: &DeleteServiceRequest,
    ) -> Result<(), WorkError> {
        let DeleteServiceRequest {
            tenant,
            name,
            if_generation,
            force,
        } = request;
        let tenant = self.tenant(&caller.identity, tenant).await?;
        allow(
            &caller.identity,
            Action::ServicesDelete,
            &tenant,
            On::service(name),
        )?;
        if *force {
            allow(
                &caller.identity,
                Action::ServicesForceDelete,
                &tenant,
                On::service(name),
            )?;
        }
        for _ in 0..RACES {
            let row = self.service_now(&tenant.id, name).await?;
            if row.is_static {
                return Err(fixed(name));
            }
            if row.generation != *if_generation {
                return Err(WorkError::Stale {
                    expected: *if_generation,
                    current: row.generation,
                });
            }
            if let Some(drain) = &row.drain {
                if !self.ended(drain, DRAIN).await? {
                    return Err(match force {
                        true => slow(),
                        false => WorkError::in_progress(format!("{drain} has not ended yet")),
                    });
                }
                // What runs next is not started for a service that is about to go.
                let mut new = ServiceRow::clone(&row);
                new.drain = None;
                if *force {
                    new.wanted = false;
                }
                self.save_service(&row, new).await?;
                continue;
            }
            match self.active(&row).await? {
                Some(active) if !force => {
                    return Err(WorkError::Conflict {
                        reason: if active.stop_reason.is_some() {
                            "lifecycle_in_progress"
                        } else {
                            "running"
                        },
                        why: format!("the service {name} is active; stop it first, or delete it with force"),
                        lifecycle: Some(active.shown.status.lifecycle),
                    });
                }
                Some(active) => {
                    if row.wanted {
                        let mut new = ServiceRow::clone(&row);
                        new.wanted = false;
                        self.save_service(&row, new).await?;
                        continue;
                    }
                    self.end(active.id(), "ServiceDeleted", "its service is being deleted")
                        .await?;
                    if !self.ended(active.id(), DRAIN).await? {
                        return Err(slow());
                    }
                    continue;
                }
                None if row.is_pending() && !force => {
                    return Err(WorkError::in_progress(format!(
                        "the service {name} is being started"
                    )));
                }
                None => {}
            }
            if self.forget_service(&row, *force).await? {
                audit(caller, "services.delete", &tenant.id, name);
                return Ok(());
            }
        }
        Err(WorkError::Raced {
            what: format!("the service {name}"),
        })
    }

    /// Removes a service that nothing runs for; false: somebody was faster.
    pub(crate) async fn forget_service(&self, row: &Arc<ServiceRow>, force: bool) -> Result<bool, WorkError> {
        let (works, gone, now) = (self.clone(), Arc::clone(row), self.now());
        let closed = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    if !row::delete(tx, &gone).await? {
                        return Ok(None);
                    }
                    let closed = sessions::row::close_of_service(
                        tx,
                        &gone.tenant,
                        &gone.name,
                        "service_force_deleted",
                        now,
                    )
                    .await?;
                    if !force && !closed.is_empty() {
                        // The transaction is undone.
                        return Err(WorkError::Conflict {
                            reason: "open_sessions",
                            why: format!("{} sessions on the service {} are open", closed.len(), gone.name),
                            lifecycle: None,
                        });
                    }
                    works.tell_closed(tx, &closed).await?;
                    let event = ServiceDeleted {
                        tenant: gone.tenant.clone(),
                        name: gone.name.clone(),
                    };
                    works.tell(tx, &event).await?;
                    Ok::<_, WorkError>(Some(closed))
                })
            })
            .await?;
        self.services.forget(&(row.tenant.clone(), row.name.clone()));
        let Some(closed) = closed else { return Ok(false) };
        self.outbox.nudge();
        self.closed(closed);
        Ok(true)
    }
}

fn fixed(name: &str) -> WorkError {
    WorkError::conflict(
        "static",
        format!("the service {name} comes from the catalogue of this server"),
    )
}

fn slow() -> WorkError {
    WorkError::Slow {
        what: "stopping what runs",
        limit_s: DRAIN.as_secs(),
    }
}

/// Refuses while something else is being done to the service.
pub(super) fn free(row: &ServiceRow, active: Option<&Record>) -> Result<(), WorkError> {
    let name = &row.name;
    if row.drain.is_some() || row.is_pending() {
        return Err(WorkError::in_progress(format!(
            "the service {name} is on its way to another state"
        )));
    }
    match active {
        Some(record) if record.stop_reason.is_some() => Err(WorkError::Conflict {
            reason: "lifecycle_in_progress",
            why: format!("the service {name} is being stopped"),
            lifecycle: Some(record.shown.status.lifecycle),
        }),
        _ => Ok(()),
    }
}
