//! Sandboxes: made, seen, changed, ended, forgotten.

mod birth;
mod change;
mod create;
mod launch;
pub(crate) mod record;

use std::sync::Arc;
use std::time::Duration;

use nimbus_bus::{Action, Caller, Identity, Key, On};
use nimbus_errors::Code;
use nimbus_proto::agent;
use nimbus_proto::event::SandboxDeleted;
use nimbus_proto::workloads::{
    DeleteSandboxRequest, ExtendSandboxRequest, Lifecycle, ListRequest, Listing, Named, Observation, Sandbox,
};

pub(crate) use birth::{Birth, Born, Purpose};
pub(crate) use change::HOST_LOST;

use crate::error::WorkError;
use crate::page::Wanted;
use crate::sandboxes::record::Record;
use crate::state::{self, Event};
use crate::tenants::row::TenantRow;
use crate::tenants::visible;
use crate::works::{Works, allow_some, audit};

/// How long a forced delete waits for the end of what runs.
pub(crate) const DRAIN: Duration = Duration::from_secs(10);
/// How long a stop may take to be heard.
const STOP: Duration = Duration::from_secs(5);

impl Works {
    /// A sandbox' record, from memory if it is there.
    pub(crate) async fn find_sandbox(&self, id: &str) -> Result<Option<Arc<Record>>, WorkError> {
        if let Some(record) = self.sandboxes.get(id) {
            return Ok(Some(record));
        }
        let epoch = self.sandboxes.epoch();
        let found = record::find(&self.store, id).await?.map(Arc::new);
        if let Some(record) = found.as_ref().filter(|record| record.charged) {
            self.sandboxes.fill(epoch, id.to_owned(), Arc::clone(record));
        }
        Ok(found)
    }

    /// The sandbox `id` of `tenant`, if `identity` may do `action` to it. One that may not be seen is
    /// answered as one that does not exist.
    pub(crate) async fn sandbox_for(
        &self,
        identity: &Identity,
        action: Action,
        tenant: &TenantRow,
        id: &str,
    ) -> Result<Arc<Record>, WorkError> {
        allow_some(identity, action, tenant)?;
        self.find_sandbox(id)
            .await?
            .filter(|record| {
                record.tenant() == tenant.id
                    && identity.allows(action, tenant.tenancy(), On::sandbox(record.made_by))
            })
            .ok_or_else(|| WorkError::no_sandbox(&tenant.id, id))
    }

    pub(crate) async fn get_sandbox(&self, caller: &Caller, of: &Named) -> Result<Sandbox, WorkError> {
        let tenant = self.tenant(&caller.identity, &of.tenant).await?;
        let record = self
            .sandbox_for(&caller.identity, Action::SandboxesGet, &tenant, &of.name)
            .await?;
        // What is in memory may be a moment old where there are several replicas.
        let record = record::find(&self.store, record.id()).await?;
        Ok(record
            .ok_or_else(|| WorkError::no_sandbox(&of.tenant, &of.name))?
            .shown)
    }

    pub(crate) async fn list_sandboxes(
        &self,
        caller: &Caller,
        of: &ListRequest,
    ) -> Result<Listing<Sandbox>, WorkError> {
        let tenant = self.tenant(&caller.identity, &of.tenant).await?;
        let visible = visible(&caller.identity, Action::SandboxesList, &tenant)?;
        let wanted = Wanted::read("sandboxes", &of.tenant, &of.page)?;
        if let Some(state) = &wanted.state
            && (state.parse::<Lifecycle>().is_err() || state == "declared")
        {
            return Err(WorkError::invalid(
                "status",
                "it is not a lifecycle state of a sandbox",
            ));
        }
        let (records, remaining) = record::list(&self.store, &tenant.id, visible, &wanted).await?;
        let items = records.into_iter().map(|record| record.shown).collect();
        Ok(wanted.listing(items, remaining, |one| &one.id, |one| &one.resource_version))
    }

    pub(crate) async fn stop_sandbox(&self, caller: &Caller, of: &Named) -> Result<Sandbox, WorkError> {
        let tenant = self.tenant(&caller.identity, &of.tenant).await?;
        let record = self
            .sandbox_for(&caller.identity, Action::SandboxesStop, &tenant, &of.name)
            .await?;
        if !record.charged {
            return Ok(record.shown.clone());
        }
        audit(caller, "sandboxes.stop", &of.tenant, &of.name);
        let record = self
            .end(record.id(), "StoppedByRequest", "somebody asked for it")
            .await?;
        Ok(record
            .ok_or_else(|| WorkError::no_sandbox(&of.tenant, &of.name))?
            .shown
            .clone())
    }

    /// Wants a sandbox to end, and tells its host. Asking again is harmless.
    pub(crate) async fn end(
        &self,
        id: &str,
        reason: &str,
        message: &str,
    ) -> Result<Option<Arc<Record>>, WorkError> {
        let Some(record) = self.want_end(id, reason, message).await? else {
            return Ok(None);
        };
        if !record.charged {
            return Ok(Some(record));
        }
        self.tell_end(&record).await
    }

    /// Writes down that a sandbox shall end.
    pub(crate) async fn want_end(
        &self,
        id: &str,
        reason: &str,
        message: &str,
    ) -> Result<Option<Arc<Record>>, WorkError> {
        let now = self.now();
        self.change(id, |record| ending(record, reason, message, now))
            .await
    }

    /// Tells the host of a sandbox that it shall end. A host that does not answer hears of it at its
    /// next sign of life.
    pub(crate) async fn tell_end(&self, record: &Record) -> Result<Option<Arc<Record>>, WorkError> {
        let reason = record.stop_reason.clone().unwrap_or_default();
        let request = agent::StopRequest {
            sandbox: record.id().to_owned(),
            reason,
        };
        if self.is_away(&record.host) {
            return self.find_sandbox(record.id()).await;
        }
        let told = self
            .bus
            .call::<agent::Stop>(&request)
            .at(&record.host)
            .key(Key::of(record.id()))
            .timeout(STOP)
            .await;
        match told {
            Ok(seen) => self.observe(&record.host, None, &seen).await,
            // It never came there, or is gone.
            Err(fault) if fault.is(Code::OpNotFound) => {
                if record.launched {
                    self.settle_stopped(record.id(), "the host does not have it any more")
                        .await
                } else {
                    self.settle_stopped(record.id(), "it was stopped before it had begun")
                        .await
                }
            }
            Err(fault) => {
                tracing::warn!(sandbox = record.id(), host = %record.host, cause = %fault, "the host did not take the stop; it is told again at its next sign of life");
                self.find_sandbox(record.id()).await
            }
        }
    }

    async fn settle_stopped(&self, id: &str, message: &str) -> Result<Option<Arc<Record>>, WorkError> {
        let now = self.now();
        self.change(id, |record| {
            let reason = record.stop_reason.as_deref().unwrap_or("StoppedByRequest");
            let status = state::decide(
                &record.shown.status,
                Event::Observed(Lifecycle::Stopped),
                reason,
                message,
                now,
            )
            .ok()?;
            let mut new = record.clone();
            new.shown.status = status;
            Some(new)
        })
        .await
    }

    /// Waits until a sandbox has ended, at most until `limit`; false: it has not.
    pub(crate) async fn ended(&self, id: &str, limit: Duration) -> Result<bool, WorkError> {
        let mut changes = self.changes.subscribe();
        let wait = async {
            loop {
                match self.find_sandbox(id).await? {
                    Some(record) if record.charged => {}
                    _ => return Ok(()),
                }
                loop {
                    match changes.recv().await {
                        Ok(changed) if changed == id => break,
                        Ok(_) => {}
                        // Too far behind to know: look.
                        Err(_) => break,
                    }
                }
            }
        };
        match tokio::time::timeout(limit, wait).await {
            Ok(outcome) => outcome.map(|()| true),
            Err(_) => Ok(false),
        }
    }

    pub(crate) async fn delete_sandbox(
        &self,
        caller: &Caller,
        request: &DeleteSandboxRequest,
    ) -> Result<(), WorkError> {
        let (tenant, id) = (&request.tenant, &request.id);
        let row = self.tenant(&caller.identity, tenant).await?;
        let record = self
            .sandbox_for(&caller.identity, Action::SandboxesStop, &row, id)
            .await?;
        if record.charged {
            if !request.force {
                return Err(WorkError::Conflict {
                    reason: "running",
                    why: format!("{id} is active; stop it first, or delete it with force"),
                    lifecycle: Some(record.shown.status.lifecycle),
                });
            }
            self.end(id, "StoppedByRequest", "it is being deleted").await?;
            if !self.ended(id, DRAIN).await? {
                return Err(WorkError::Slow {
                    what: "stopping the sandbox",
                    limit_s: DRAIN.as_secs(),
                });
            }
        }
        audit(caller, "sandboxes.delete", tenant, id);
        self.remove_sandbox(id).await
    }

    /// Removes what is left of a sandbox that has ended: at its host first, so that nothing is
    /// forgotten that is still there. A host that is lost keeps what it has until it comes back and
    /// is told that the sandbox is not wanted.
    pub(crate) async fn remove_sandbox(&self, id: &str) -> Result<(), WorkError> {
        let Some(record) = record::find(&self.store, id).await? else {
            return Ok(());
        };
        if !self.is_away(&record.host) {
            let removed = self
                .bus
                .call::<agent::Remove>(&id.to_owned())
                .at(&record.host)
                .key(Key::of(id))
                .timeout(STOP)
                .await;
            match removed {
                Ok(()) => {}
                Err(fault) if fault.is(Code::OpNotFound) || fault.is(Code::ServiceUnavailable) => {}
                Err(fault) => return Err(fault.into()),
            }
        }
        let works = self.clone();
        let gone = record.clone();
        let deleted = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    if !record::delete(tx, &gone).await? {
                        return Ok(false);
                    }
                    let event = SandboxDeleted {
                        tenant: gone.tenant().to_owned(),
                        id: gone.id().to_owned(),
                    };
                    works.tell(tx, &event).await?;
                    Ok::<_, WorkError>(true)
                })
            })
            .await?;
        self.sandboxes.forget(id);
        if deleted {
            self.outbox.nudge();
            let _ = self.changes.send(id.to_owned());
        }
        Ok(())
    }

    pub(crate) async fn extend_sandbox(
        &self,
        caller: &Caller,
        request: &ExtendSandboxRequest,
    ) -> Result<Sandbox, WorkError> {
        let row = self.tenant(&caller.identity, &request.tenant).await?;
        let record = self
            .sandbox_for(&caller.identity, Action::SandboxesExec, &row, &request.id)
            .await?;
        crate::validate::times(request.ttl_ms, request.idle_timeout_ms, "")?;
        if request.ttl_ms.is_none() && request.idle_timeout_ms.is_none() {
            return Err(WorkError::invalid("ttlMs", "ttlMs or idleTimeoutMs is needed"));
        }
        if !record.charged || record.stop_reason.is_some() {
            return Err(WorkError::Conflict {
                reason: "not_running",
                why: format!("{} has ended or is ending", request.id),
                lifecycle: Some(record.shown.status.lifecycle),
            });
        }
        let expires_at = request
            .ttl_ms
            .map(|ms| self.now().after(Duration::from_millis(ms)))
            .or(record.shown.status.expires_at);
        // Its host first: what is written down here must not promise more than is kept there.
        let order = agent::ExtendRequest {
            sandbox: record.id().to_owned(),
            expires_at,
            idle_timeout_ms: request.idle_timeout_ms.or(record.shown.spec.idle_timeout_ms),
        };
        self.bus
            .call::<agent::Extend>(&order)
            .at(&record.host)
            .key(Key::of(record.id()))
            .await?;
        audit(caller, "sandboxes.extend", &request.tenant, &request.id);
        let changed = self
            .change(record.id(), |record| {
                let mut new = record.clone();
                new.shown.status.expires_at = expires_at;
                (record.charged && new != *record).then_some(new)
            })
            .await?;
        Ok(changed
            .ok_or_else(|| WorkError::no_sandbox(&request.tenant, &request.id))?
            .shown
            .clone())
    }

    /// Takes one observation, if it is news.
    pub(crate) async fn observe(
        &self,
        host: &nimbus_model::Hostname,
        boot: Option<&str>,
        seen: &Observation,
    ) -> Result<Option<Arc<Record>>, WorkError> {
        let now = self.now();
        self.change(&seen.sandbox, |record| observed(record, host, boot, seen, now))
            .await
    }
}

/// The record after an observation; `None` when it is not news, or not its host's.
fn observed(
    record: &Record,
    host: &nimbus_model::Hostname,
    boot: Option<&str>,
    seen: &Observation,
    now: nimbus_model::Timestamp,
) -> Option<Record> {
    if !record.charged || record.host != *host || !record.seen.is_before(boot, seen) {
        return None;
    }
    let status = state::observe(&record.shown.status, seen, now)?;
    let mut new = record.clone();
    new.shown.status = status;
    new.launched = true;
    new.seen = state::Seen {
        boot: boot.map(str::to_owned).or_else(|| record.seen.boot.clone()),
        sequence: seen.sequence,
        at: seen.at,
    };
    // Numbers alone are no reason to write.
    let same = new.shown.status == record.shown.status && record.launched;
    (!same).then_some(new)
}

/// The record once it shall end; `None` when it has ended or shall already.
fn ending(record: &Record, reason: &str, message: &str, now: nimbus_model::Timestamp) -> Option<Record> {
    if !record.charged || record.stop_reason.is_some() {
        return None;
    }
    let mut new = record.clone();
    new.shown.status = state::decide(&record.shown.status, Event::StopAsked, reason, message, now).ok()?;
    new.stop_reason = Some(reason.to_owned());
    Some(new)
}
