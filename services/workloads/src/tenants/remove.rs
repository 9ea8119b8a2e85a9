//! Deleting a tenant: nothing new, then everything ends, then everything goes.
//!
//! Each step can be done again, so a deletion that failed half way goes on when it is asked for again.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use nimbus_bus::{Caller, Identity};
use nimbus_proto::event::{TenantChanged, TenantDeleted};
use nimbus_proto::workloads::Named;

use super::row::{self, TenantRow};
use crate::error::WorkError;
use crate::sandboxes::record;
use crate::services;
use crate::sessions;
use crate::works::{Works, audit};

/// How long what runs may take to end.
const DRAIN: Duration = Duration::from_secs(40);
/// Sandboxes that are ended at a time.
const TOGETHER: usize = 16;

impl Works {
    pub(crate) async fn delete_tenant(&self, caller: &Caller, id: &str) -> Result<(), WorkError> {
        let identity: &Identity = &caller.identity;
        let tenant = self.tenant(identity, id).await?;
        if !identity.owns(tenant.tenancy()) {
            return Err(WorkError::Refused {
                what: "only who owns a tenant may delete it".to_owned(),
            });
        }
        audit(caller, "tenants.delete", id, id);
        self.fence(&tenant).await?;
        self.end_everything(id).await?;
        self.forget_everything(id).await
    }

    async fn fence(&self, tenant: &Arc<TenantRow>) -> Result<(), WorkError> {
        if tenant.deleting {
            return Ok(());
        }
        let mut fenced = TenantRow::clone(tenant);
        fenced.deleting = true;
        let works = self.clone();
        self.store
            .write(move |tx| {
                Box::pin(async move {
                    row::fence(tx, &fenced.id).await?;
                    let tenant = fenced.shown();
                    works.tell(tx, &TenantChanged { tenant }).await?;
                    Ok::<_, WorkError>(())
                })
            })
            .await?;
        self.tenants.forget(&tenant.id);
        self.outbox.nudge();
        Ok(())
    }

    async fn end_everything(&self, tenant: &str) -> Result<(), WorkError> {
        // Services first, or one would be started again while its sandbox ends.
        for service in services::row::of_tenant(&self.store, tenant).await? {
            if service.wanted {
                let service = Arc::new(service);
                let mut new = services::row::ServiceRow::clone(&service);
                new.wanted = false;
                self.save_service(&service, new).await?;
            }
        }
        let (works, id, now) = (self.clone(), tenant.to_owned(), self.now());
        let closed = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    let closed = sessions::row::close_of_tenant(tx, &id, "tenant_deleted", now).await?;
                    works.tell_closed(tx, &closed).await?;
                    Ok::<_, WorkError>(closed)
                })
            })
            .await?;
        self.outbox.nudge();
        self.closed(closed);
        let active: Vec<String> = record::of_tenant(&self.store, tenant)
            .await?
            .into_iter()
            .filter(|record| record.charged)
            .map(|record| record.shown.id)
            .collect();
        let all = async {
            for some in active.chunks(TOGETHER) {
                let mut under_way: FuturesUnordered<_> = FuturesUnordered::new();
                for id in some {
                    under_way.push(self.end_whole(id));
                }
                while let Some(outcome) = under_way.next().await {
                    outcome?;
                }
            }
            Ok(())
        };
        match tokio::time::timeout(DRAIN, all).await {
            Ok(outcome) => outcome,
            Err(_) => Err(slow()),
        }
    }

    async fn end_whole(&self, id: &str) -> Result<(), WorkError> {
        self.end(id, "TenantDeleted", "its tenant is being deleted")
            .await?;
        if self.ended(id, DRAIN).await? {
            Ok(())
        } else {
            Err(slow())
        }
    }

    async fn forget_everything(&self, tenant: &str) -> Result<(), WorkError> {
        let left = record::of_tenant(&self.store, tenant).await?;
        for some in left.chunks(TOGETHER) {
            let mut under_way: FuturesUnordered<_> = FuturesUnordered::new();
            for record in some {
                under_way.push(self.remove_sandbox(record.id()));
            }
            while let Some(outcome) = under_way.next().await {
                outcome?;
            }
        }
        for name in self.volume_names(tenant).await? {
            let tenant = tenant.to_owned();
            self.remove_volume(&Named { tenant, name }).await?;
        }
        for service in services::row::of_tenant(&self.store, tenant).await? {
            self.forget_service(&Arc::new(service), true).await?;
        }
        let (works, id) = (self.clone(), tenant.to_owned());
        let removed = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    if !row::remove(tx, &id).await? {
                        return Ok(false);
                    }
                    works.tell(tx, &TenantDeleted { tenant: id }).await?;
                    Ok::<_, WorkError>(true)
                })
            })
            .await?;
        self.tenants.forget(tenant);
        self.outbox.nudge();
        if removed { Ok(()) } else { Err(slow()) }
    }
}

fn slow() -> WorkError {
    WorkError::Slow {
        what: "ending everything in the tenant",
        limit_s: DRAIN.as_secs(),
    }
}
