//! Tenants: who may reach them, what they may use.

mod remove;
pub(crate) mod row;

use std::sync::Arc;

use nimbus_bus::{Action, Caller, Identity, Key, On, Scope, Tenancy};
use nimbus_proto::event::TenantChanged;
use nimbus_proto::workloads::{ConfigureTenantRequest, Tenant};

use crate::done::{Keyed, Known};
use crate::error::WorkError;
use crate::tenants::row::TenantRow;
use crate::validate;
use crate::works::{Works, audit};

impl Works {
    /// The tenant, if it is there for `identity`. A person's own is made when it is first asked for.
    pub(crate) async fn tenant(&self, identity: &Identity, id: &str) -> Result<Arc<TenantRow>, WorkError> {
        validate::tenant_id("tenantId", id)?;
        let unknown = || WorkError::NoTenant {
            tenant: id.to_owned(),
        };
        let row = match self.find_tenant(id).await? {
            Some(row) => row,
            None => {
                let nobodys = Tenancy { id, owner: None };
                if id != identity.personal_tenant() || !identity.reaches(nobodys) {
                    return Err(unknown());
                }
                let row = self.fresh_tenant(id, identity);
                self.store
                    .write(move |tx| Box::pin(async move { row::insert(tx, &row).await }))
                    .await?;
                self.find_tenant(id).await?.ok_or_else(unknown)?
            }
        };
        if identity.reaches(row.tenancy()) {
            Ok(row)
        } else {
            Err(unknown())
        }
    }

    /// [`Works::tenant`], for something new in it.
    pub(crate) async fn open_tenant(
        &self,
        identity: &Identity,
        id: &str,
    ) -> Result<Arc<TenantRow>, WorkError> {
        let row = self.tenant(identity, id).await?;
        if row.deleting {
            Err(row::fenced(id))
        } else {
            Ok(row)
        }
    }

    /// The tenant, whoever asks.
    pub(crate) async fn find_tenant(&self, id: &str) -> Result<Option<Arc<TenantRow>>, WorkError> {
        if let Some(row) = self.tenants.get(id) {
            return Ok(Some(row));
        }
        let epoch = self.tenants.epoch();
        let found = row::find(&self.store, id, &self.config).await?.map(Arc::new);
        if let Some(row) = &found {
            self.tenants.fill(epoch, id.to_owned(), Arc::clone(row));
        }
        Ok(found)
    }

    fn fresh_tenant(&self, id: &str, identity: &Identity) -> TenantRow {
        let owner = (!identity.is_operator()).then_some(identity.user);
        TenantRow::fresh(id, owner, self.now(), &self.config)
    }

    pub(crate) async fn create_tenant(
        &self,
        caller: &Caller,
        key: Option<&Key>,
        id: String,
    ) -> Result<Tenant, WorkError> {
        let identity = &caller.identity;
        if identity.key.is_some() || !identity.may(Scope::WorkloadsWrite) {
            return Err(WorkError::Refused {
                what: "only people with workloads:write and the operator make tenants".to_owned(),
            });
        }
        validate::new_tenant_id(&id, identity)?;
        let keyed = Keyed::of(self, key, &id, "create_tenant", &id)?;
        let row = self.fresh_tenant(&id, identity);
        let works = self.clone();
        let now = self.now();
        let shown = row.shown();
        let made = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    let known = match &keyed {
                        Some(keyed) => keyed.take(tx, &row.id, now).await?,
                        None => Known::New,
                    };
                    if let Known::Done(_) = known {
                        return Ok(false);
                    }
                    if !row::insert(tx, &row).await? {
                        return Err(WorkError::Exists {
                            kind: "tenant",
                            name: row.id.clone(),
                        });
                    }
                    works.tell(tx, &TenantChanged { tenant: row.shown() }).await?;
                    Ok::<_, WorkError>(true)
                })
            })
            .await;
        match made {
            Ok(true) => {
                self.outbox.nudge();
                audit(caller, "tenants.create", &id, &id);
                Ok(shown)
            }
            Ok(false) => self.get_tenant(caller, &id).await,
            // Whoever cannot reach it learns no more than that the id is taken.
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn get_tenant(&self, caller: &Caller, id: &str) -> Result<Tenant, WorkError> {
        self.tenant(&caller.identity, id).await?;
        let row = row::find(&self.store, id, &self.config).await?;
        Ok(row
            .ok_or_else(|| WorkError::NoTenant {
                tenant: id.to_owned(),
            })?
            .shown())
    }

    /// Those that the caller reaches, by id.
    pub(crate) async fn list_tenants(&self, caller: &Caller) -> Result<Vec<Tenant>, WorkError> {
        let identity = &caller.identity;
        if identity.key.is_none() {
            if !identity.may(Scope::WorkloadsRead) {
                return Err(WorkError::Denied {
                    action: Action::ServicesList,
                });
            }
            if !identity.is_operator() {
                self.tenant(identity, &identity.personal_tenant()).await?;
            }
        }
        let owner = (!identity.may(Scope::Admin) || identity.key.is_some()).then_some(identity.user);
        let rows = match &identity.key {
            None => row::list(&self.store, owner, &identity.personal_tenant(), &self.config).await?,
            Some(key) => {
                let mut ids: Vec<&str> = key.grants.iter().map(|grant| grant.tenant.as_str()).collect();
                ids.sort_unstable();
                ids.dedup();
                let mut rows = Vec::with_capacity(ids.len());
                for id in ids {
                    rows.extend(row::find(&self.store, id, &self.config).await?);
                }
                rows
            }
        };
        Ok(rows
            .into_iter()
            .filter(|row| !row.id.starts_with('_') && identity.reaches(row.tenancy()))
            .map(|row| row.shown())
            .collect())
    }

    pub(crate) async fn configure_tenant(
        &self,
        caller: &Caller,
        request: ConfigureTenantRequest,
    ) -> Result<Tenant, WorkError> {
        let ConfigureTenantRequest { tenant, settings } = request;
        self.open_tenant(&caller.identity, &tenant).await?;
        if settings.sandboxes == Some(0) {
            return Err(WorkError::invalid("sandboxes", "it must be at least 1"));
        }
        let (works, id) = (self.clone(), tenant.clone());
        let row = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    let row = row::configure(tx, &id, &settings, &works.config).await?;
                    let row = row.ok_or(WorkError::NoTenant { tenant: id })?;
                    works.tell(tx, &TenantChanged { tenant: row.shown() }).await?;
                    Ok::<_, WorkError>(row)
                })
            })
            .await?;
        self.outbox.nudge();
        self.tenants.forget(&tenant);
        audit(caller, "tenants.configure", &tenant, &tenant);
        Ok(row.shown())
    }
}

/// What the caller may see of a tenant's sandboxes in lists: all, or those that its key made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visible {
    All,
    MadeBy(nimbus_model::KeyId),
}

/// What `identity` sees of the sandboxes of `tenant`, for `action`.
pub(crate) fn visible(identity: &Identity, action: Action, tenant: &TenantRow) -> Result<Visible, WorkError> {
    if identity.allows(action, tenant.tenancy(), On::sandbox(None)) {
        return Ok(Visible::All);
    }
    match &identity.key {
        Some(key) if identity.allows(action, tenant.tenancy(), On::sandbox(Some(key.id))) => {
            Ok(Visible::MadeBy(key.id))
        }
        _ => Err(WorkError::Denied { action }),
    }
}
