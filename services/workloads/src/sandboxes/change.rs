//! Changing a record: one guarded write with everything that goes with it.
//!
//! In one transaction: the record, its events, the sessions that end with it, and, when it has ended,
//! what its tenant and its host get back.

use std::sync::Arc;

use nimbus_proto::event::{SandboxChanged, ServiceChanged};
use nimbus_proto::workloads::Lifecycle;
use nimbus_store::Tx;

use crate::error::WorkError;
use crate::hosts;
use crate::sandboxes::record::{self, Record};
use crate::services;
use crate::sessions;
use crate::sessions::row::SessionRow;
use crate::tenants;
use crate::works::{RACES, Works};

/// The reason of a sandbox whose host is gone: its service gets another one.
pub(crate) const HOST_LOST: &str = "HostLost";

impl Works {
    /// Makes of the record what `step` says, and gives what it is then; `None`: there is no such
    /// record. `step` says nothing when nothing is to be changed, and is asked again when others were
    /// faster.
    pub(crate) async fn change(
        &self,
        id: &str,
        step: impl Fn(&Record) -> Option<Record> + Send + Sync,
    ) -> Result<Option<Arc<Record>>, WorkError> {
        for _ in 0..RACES {
            let Some(old) = self.find_sandbox(id).await? else {
                return Ok(None);
            };
            let Some(new) = step(&old) else {
                return Ok(Some(old));
            };
            match self.save(&old, new).await {
                Ok(Some(new)) => return Ok(Some(new)),
                Ok(None) | Err(WorkError::Raced { .. }) => self.sandboxes.forget(id),
                Err(error) => return Err(error),
            }
        }
        Err(WorkError::Raced { what: id.to_owned() })
    }

    async fn save(&self, old: &Record, mut new: Record) -> Result<Option<Arc<Record>>, WorkError> {
        let now = self.now();
        let ended = old.charged && new.shown.status.lifecycle.is_final();
        if ended {
            new.charged = false;
            new.ended_at = Some(now);
        }
        if new.shown.status != old.shown.status {
            new.shown.updated_at = now;
        }
        new.version = old.version + 1;
        new.shown.resource_version = Record::word(new.version);
        let closing = closing(old, &new);
        let new = Arc::new(new);
        let (works, version, written) = (self.clone(), old.version, Arc::clone(&new));
        let saved = self
            .store
            .write(move |tx| {
                Box::pin(async move { works.write(tx, version, &written, ended, closing).await })
            })
            .await?;
        let Some(closed) = saved else { return Ok(None) };
        if ended {
            self.sandboxes.forget(new.id());
            self.hosts.given_back(new.host.as_str(), new.resources());
        } else {
            self.sandboxes.put(new.id().to_owned(), Arc::clone(&new));
        }
        self.outbox.nudge();
        let _ = self.changes.send(new.id().to_owned());
        self.closed(closed);
        if let Some(service) = new.service().filter(|_| ended) {
            self.services
                .forget(&(new.tenant().to_owned(), service.to_owned()));
            self.converge_aside(new.tenant(), service);
        }
        Ok(Some(new))
    }

    async fn write(
        &self,
        tx: &mut Tx,
        version: i64,
        new: &Record,
        ended: bool,
        closing: Option<&'static str>,
    ) -> Result<Option<Vec<SessionRow>>, WorkError> {
        if !record::save(tx, version, new).await? {
            return Ok(None);
        }
        // Rows are taken in one order everywhere: sandbox, sessions, service, tenant, host.
        let mut closed = Vec::new();
        if let Some(reason) = closing {
            closed = sessions::row::close_of_sandbox(tx, new.id(), reason, self.now()).await?;
        }
        if let Some(name) = new.service()
            && let Some(mut row) = services::row::find_in(tx, new.tenant(), name).await?
            && row.sandbox.as_deref() == Some(new.id())
        {
            let lost = ended
                && new
                    .shown
                    .status
                    .conditions
                    .iter()
                    .any(|said| said.reason == HOST_LOST);
            if lost && row.wanted {
                let before = row.clone();
                row.sandbox = None;
                if !services::row::save(tx, &before, &mut row).await? {
                    return Err(WorkError::Raced {
                        what: format!("the service {name}"),
                    });
                }
            }
            let service = row.shown(Some(&new.shown));
            self.tell(tx, &ServiceChanged { service }).await?;
        }
        self.tell_closed(tx, &closed).await?;
        if ended {
            record::release_mounts(tx, new.id()).await?;
            tenants::row::give_back(tx, new.tenant(), new.resources()).await?;
            hosts::row::give_back(tx, new.host.as_str(), new.resources()).await?;
        }
        let event = SandboxChanged {
            sandbox: new.shown.clone(),
            made_by: new.made_by,
        };
        self.tell(tx, &event).await?;
        Ok(Some(closed))
    }
}

/// Why the sessions on a sandbox end with this change, if they do.
fn closing(old: &Record, new: &Record) -> Option<&'static str> {
    if old.stop_reason.is_none()
        && let Some(reason) = &new.stop_reason
    {
        return Some(match reason.as_str() {
            "Replaced" => "target_replaced",
            "TenantDeleted" => "tenant_deleted",
            "ServiceDeleted" => "service_force_deleted",
            _ => "target_stopped",
        });
    }
    match new.shown.status.lifecycle {
        Lifecycle::Failed => Some("target_failed"),
        Lifecycle::Stopped => Some("target_stopped"),
        _ => None,
    }
}
