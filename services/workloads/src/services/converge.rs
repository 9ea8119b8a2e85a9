//! Bringing a service to the state that is wanted: what ran before ends first, then the new begins.
//!
//! A step is found out from the row alone, so whoever looks next goes on where another stopped.

use std::sync::Arc;

use nimbus_proto::workloads::ConditionKind;

use super::row::{self, ServiceRow};
use crate::error::WorkError;
use crate::works::{RACES, Works};

impl Works {
    /// Ends the sandbox that is in the way; what follows is done when it has ended. Its sessions are
    /// closed when this returns.
    pub(super) async fn drain_aside(&self, row: &ServiceRow) -> Result<(), WorkError> {
        let Some(drain) = row.drain.clone() else {
            return Ok(());
        };
        let ending = self
            .want_end(
                &drain,
                "Replaced",
                "its service has another definition or was restarted",
            )
            .await?;
        let (works, tenant, name) = (self.clone(), row.tenant.clone(), row.name.clone());
        self.aside("replacing a service's sandbox", async move {
            if let Some(record) = ending.filter(|record| record.charged) {
                works.tell_end(&record).await?;
            }
            works.converge(&tenant, &name).await
        });
        Ok(())
    }

    pub(crate) fn converge_aside(&self, tenant: &str, name: &str) {
        let (works, tenant, name) = (self.clone(), tenant.to_owned(), name.to_owned());
        self.aside("bringing a service to its state", async move {
            works.converge(&tenant, &name).await
        });
    }

    /// Takes the steps that can be taken now.
    pub(crate) async fn converge(&self, tenant: &str, name: &str) -> Result<(), WorkError> {
        for _ in 0..RACES {
            let Some(row) = row::find(&self.store, tenant, name).await?.map(Arc::new) else {
                return Ok(());
            };
            if let Some(drain) = &row.drain {
                match self.find_sandbox(drain).await?.filter(|record| record.charged) {
                    Some(record) if record.stop_reason.is_some() => return Ok(()),
                    // Whoever wanted it replaced did not get to saying so.
                    Some(_) => {
                        self.end(
                            drain,
                            "Replaced",
                            "its service has another definition or was restarted",
                        )
                        .await?;
                    }
                    None => {
                        let mut new = ServiceRow::clone(&row);
                        new.drain = None;
                        self.save_service(&row, new).await?;
                    }
                }
                continue;
            }
            if !row.is_pending() {
                return Ok(());
            }
            let Some(owner) = self.find_tenant(tenant).await?.filter(|owner| !owner.deleting) else {
                return Ok(());
            };
            match self.start(&owner, &row).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                // A host may come: it is tried again.
                Err(error @ WorkError::NoBackend { .. }) => {
                    tracing::warn!(tenant, service = name, "no host for the service {name}: {error}");
                    return Ok(());
                }
                Err(error @ (WorkError::Store { .. } | WorkError::Bus { .. } | WorkError::Host { .. })) => {
                    return Err(error);
                }
                Err(error) => {
                    let row = Arc::new(ServiceRow::clone(&row));
                    self.fail(&row, ConditionKind::Ready, "LaunchFailed", &error)
                        .await?;
                    return Ok(());
                }
            }
        }
        Err(WorkError::Raced {
            what: format!("the service {name}"),
        })
    }

    /// Goes on with every service that is on its way.
    pub(crate) async fn converge_all(&self) -> Result<(), WorkError> {
        for row in row::open(&self.store).await? {
            self.converge(&row.tenant, &row.name).await?;
        }
        Ok(())
    }
}
