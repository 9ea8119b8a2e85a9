//! Services: definitions with a stable name, and the sandbox behind each.

mod converge;
mod define;
pub(crate) mod external;
pub(crate) mod row;
mod run;

use std::sync::Arc;

use nimbus_bus::{Action, Caller, Identity, On};
use nimbus_proto::event::ServiceChanged;
use nimbus_proto::workloads::{Backend, ListRequest, Listing, Named, Service, ShownBackend};
use zeroize::Zeroizing;

use crate::error::WorkError;
use crate::page::Wanted;
use crate::services::row::ServiceRow;
use crate::tenants::row::TenantRow;
use crate::works::Works;

/// Services that a tenant may have.
const MOST: u64 = 1000;

impl Works {
    /// A service's row, from memory if it is there.
    pub(crate) async fn kept_service(
        &self,
        tenant: &str,
        name: &str,
    ) -> Result<Option<Arc<ServiceRow>>, WorkError> {
        let key = (tenant.to_owned(), name.to_owned());
        if let Some(row) = self.services.get(&key) {
            return Ok(Some(row));
        }
        let epoch = self.services.epoch();
        let found = row::find(&self.store, tenant, name).await?.map(Arc::new);
        if let Some(row) = &found {
            self.services.fill(epoch, key, Arc::clone(row));
        }
        Ok(found)
    }

    /// A service's row as it is stored now.
    async fn service_now(&self, tenant: &str, name: &str) -> Result<Arc<ServiceRow>, WorkError> {
        row::find(&self.store, tenant, name)
            .await?
            .map(Arc::new)
            .ok_or_else(|| WorkError::no_service(tenant, name))
    }

    /// The service as `identity` may see it.
    async fn present(
        &self,
        identity: &Identity,
        tenant: &TenantRow,
        row: &ServiceRow,
    ) -> Result<Service, WorkError> {
        let sandbox = match &row.sandbox {
            Some(id) => self.find_sandbox(id).await?,
            None => None,
        };
        let mut service = row.shown(sandbox.as_ref().map(|record| &record.shown));
        if !identity.allows(Action::ServicesInspect, tenant.tenancy(), On::service(&row.name)) {
            service.backend = ShownBackend::Redacted(row.kind.clone());
        }
        Ok(service)
    }

    pub(crate) async fn get_service(&self, caller: &Caller, of: &Named) -> Result<Service, WorkError> {
        let identity = &caller.identity;
        let tenant = self.tenant(identity, &of.tenant).await?;
        let may = |action| identity.allows(action, tenant.tenancy(), On::service(&of.name));
        if !may(Action::ServicesInspect) && !may(Action::ServicesList) {
            return Err(WorkError::Denied {
                action: Action::ServicesInspect,
            });
        }
        let row = self.service_now(&of.tenant, &of.name).await?;
        self.present(identity, &tenant, &row).await
    }

    pub(crate) async fn list_services(
        &self,
        caller: &Caller,
        of: &ListRequest,
    ) -> Result<Listing<Service>, WorkError> {
        let identity = &caller.identity;
        let tenant = self.tenant(identity, &of.tenant).await?;
        let may = |on: On<'_>| identity.allows(Action::ServicesList, tenant.tenancy(), on);
        if !may(On::tenant()) {
            return Err(WorkError::Denied {
                action: Action::ServicesList,
            });
        }
        let wanted = Wanted::read("services", &of.tenant, &of.page)?;
        let labelled = |row: &ServiceRow| match (&wanted.label, &wanted.value) {
            (None, _) => true,
            (Some(label), None) => row.labels.contains_key(label),
            (Some(label), Some(value)) => row.labels.get(label) == Some(value),
        };
        // A tenant has few: what it may not see is left out before the page is cut.
        let mut rows: Vec<ServiceRow> = row::of_tenant(&self.store, &tenant.id)
            .await?
            .into_iter()
            .filter(|row| row.name > wanted.after && may(On::service(&row.name)) && labelled(row))
            .collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        let limit = usize::try_from(wanted.limit).unwrap_or(usize::MAX);
        let remaining = u64::try_from(rows.len().saturating_sub(limit)).unwrap_or(0);
        rows.truncate(limit);
        let mut items = Vec::with_capacity(rows.len());
        for row in &rows {
            items.push(self.present(identity, &tenant, row).await?);
        }
        Ok(wanted.listing(items, remaining, |one| &one.name, |one| &one.resource_version))
    }

    /// Writes `new` where the row is still `old`, with its event; `None`: somebody was faster.
    pub(crate) async fn save_service(
        &self,
        old: &Arc<ServiceRow>,
        new: ServiceRow,
    ) -> Result<Option<Arc<ServiceRow>>, WorkError> {
        self.save_service_keyed(old, new, None)
            .await
            .map(|saved| match saved {
                Saved::To(row) => Some(row),
                Saved::Raced | Saved::Before => None,
            })
    }

    async fn save_service_keyed(
        &self,
        old: &Arc<ServiceRow>,
        mut new: ServiceRow,
        keyed: Option<crate::done::Keyed>,
    ) -> Result<Saved, WorkError> {
        let sandbox = match &new.sandbox {
            Some(id) => self.find_sandbox(id).await?,
            None => None,
        };
        let (works, old, now) = (self.clone(), Arc::clone(old), self.now());
        let saved = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    if let Some(keyed) = &keyed
                        && let crate::done::Known::Done(_) = keyed.take(tx, &old.name, now).await?
                    {
                        return Ok(Saved::Before);
                    }
                    if !row::save(tx, &old, &mut new).await? {
                        // As an error, so that the key is not taken.
                        return Err(WorkError::Raced {
                            what: old.name.clone(),
                        });
                    }
                    let service = new.shown(sandbox.as_ref().map(|record| &record.shown));
                    works.tell(tx, &ServiceChanged { service }).await?;
                    Ok::<_, WorkError>(Saved::To(Arc::new(new)))
                })
            })
            .await;
        match saved {
            Ok(Saved::To(row)) => {
                self.services
                    .put((row.tenant.clone(), row.name.clone()), Arc::clone(&row));
                self.outbox.nudge();
                Ok(Saved::To(row))
            }
            Err(WorkError::Raced { .. }) => Ok(Saved::Raced),
            other => other,
        }
    }

    fn seal_backend(&self, tenant: &str, uid: &str, backend: &Backend) -> Result<String, WorkError> {
        let clear = Zeroizing::new(serde_json::to_vec(backend).map_err(WorkError::damaged("a definition"))?);
        Ok(self.sealer.seal(&clear, &associated(tenant, uid))?)
    }

    fn open_backend(&self, row: &ServiceRow) -> Result<Backend, WorkError> {
        let clear = self
            .sealer
            .open(&row.definition, &associated(&row.tenant, &row.uid))?;
        serde_json::from_slice(&clear).map_err(WorkError::damaged("a definition"))
    }
}

/// What became of a guarded write.
enum Saved {
    To(Arc<ServiceRow>),
    /// Somebody was faster.
    Raced,
    /// An earlier request with the same key has done it.
    Before,
}

fn associated(tenant: &str, uid: &str) -> String {
    format!("workloads_service/{tenant}/{uid}")
}
