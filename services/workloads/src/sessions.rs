//! Sessions: expiring leases on running targets.

pub(crate) mod open;
pub(crate) mod preview;
pub(crate) mod row;
pub(crate) mod ticket;

use std::collections::BTreeMap;
use std::sync::Arc;

use nimbus_bus::{Action, Caller, Identity, Key, On};
use nimbus_proto::agent;
use nimbus_proto::event::SessionChanged;
use nimbus_proto::workloads::{
    CloseSessionRequest, ListRequest, Listing, SessionRef, SessionState, WorkSession,
};
use nimbus_store::Tx;

use crate::error::WorkError;
use crate::page::Wanted;
use crate::sessions::row::SessionRow;
use crate::tenants;
use crate::tenants::row::TenantRow;
use crate::works::{Works, audit};

/// The longest reason that is kept.
const REASON: usize = 256;

impl Works {
    pub(crate) async fn kept_session(&self, id: &str) -> Result<Option<Arc<SessionRow>>, WorkError> {
        if let Some(row) = self.sessions.get(id) {
            return Ok(Some(row));
        }
        let epoch = self.sessions.epoch();
        let found = row::find(&self.store, id).await?.map(Arc::new);
        if let Some(row) = found.as_ref().filter(|row| row.state == SessionState::Open) {
            self.sessions.fill(epoch, id.to_owned(), Arc::clone(row));
        }
        Ok(found)
    }

    /// The session, if `identity` may do `action` to it; with its tenant.
    pub(crate) async fn session_for(
        &self,
        identity: &Identity,
        action: Action,
        of: &SessionRef,
    ) -> Result<(Arc<SessionRow>, Arc<TenantRow>), WorkError> {
        let unknown = || WorkError::no_session(&of.id);
        if let Some(tenant) = &of.tenant {
            self.tenant(identity, tenant).await?;
        }
        let row = self.kept_session(&of.id).await?.ok_or_else(unknown)?;
        if of.tenant.as_ref().is_some_and(|tenant| *tenant != row.tenant) {
            return Err(unknown());
        }
        let tenant = self.find_tenant(&row.tenant).await?.ok_or_else(unknown)?;
        if !identity.reaches(tenant.tenancy()) {
            return Err(unknown());
        }
        if !identity.allows(action, tenant.tenancy(), on(&row)) {
            return Err(WorkError::Denied { action });
        }
        Ok((row, tenant))
    }

    pub(crate) async fn get_session(
        &self,
        caller: &Caller,
        of: &SessionRef,
    ) -> Result<WorkSession, WorkError> {
        let (row, _) = self
            .session_for(&caller.identity, Action::SessionsGet, of)
            .await?;
        let row = row::find(&self.store, &row.id).await?;
        audit(
            caller,
            "sessions.get",
            of.tenant.as_deref().unwrap_or_default(),
            &of.id,
        );
        Ok(row
            .ok_or_else(|| WorkError::no_session(&of.id))?
            .shown(self.now()))
    }

    pub(crate) async fn list_sessions(
        &self,
        caller: &Caller,
        of: &ListRequest,
    ) -> Result<Listing<WorkSession>, WorkError> {
        let identity = &caller.identity;
        let tenant = self.tenant(identity, &of.tenant).await?;
        tenants::visible(identity, Action::SessionsList, &tenant)?;
        let wanted = Wanted::read("sessions", &of.tenant, &of.page)?;
        if wanted.label.is_some() {
            return Err(WorkError::invalid("labelKey", "sessions have no labels"));
        }
        if let Some(state) = &wanted.state
            && state.parse::<SessionState>().is_err()
        {
            return Err(WorkError::invalid("state", "it must be open, closed or expired"));
        }
        let now = self.now();
        let ids: Vec<String> = row::glimpse(
            &self.store,
            &tenant.id,
            &wanted.after,
            wanted.state.as_deref(),
            now,
        )
        .await?
        .into_iter()
        .filter(|seen| {
            let on = match &seen.service {
                Some(service) => On::service(service),
                None => On::sandbox(seen.made_by),
            };
            identity.allows(Action::SessionsList, tenant.tenancy(), on)
        })
        .map(|seen| seen.id)
        .collect();
        let limit = usize::try_from(wanted.limit).unwrap_or(usize::MAX);
        let remaining = u64::try_from(ids.len().saturating_sub(limit)).unwrap_or(0);
        let mut items = Vec::with_capacity(limit.min(ids.len()));
        for id in ids.into_iter().take(limit) {
            items.extend(row::find(&self.store, &id).await?.map(|row| row.shown(now)));
        }
        Ok(wanted.listing(items, remaining, |one| &one.id, |one| &one.resource_version))
    }

    pub(crate) async fn close_session(
        &self,
        caller: &Caller,
        request: &CloseSessionRequest,
    ) -> Result<WorkSession, WorkError> {
        let of = &request.session;
        let (row, _) = self
            .session_for(&caller.identity, Action::SessionsClose, of)
            .await?;
        let reason: String = request
            .reason
            .as_deref()
            .unwrap_or_default()
            .trim()
            .chars()
            .filter(|c| !c.is_control())
            .take(REASON)
            .collect();
        let reason = if reason.is_empty() {
            "client_close".to_owned()
        } else {
            reason
        };
        let (works, id, now) = (self.clone(), row.id.clone(), self.now());
        let closed = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    let closed = row::close_one(tx, &id, &reason, now).await?;
                    works.tell_closed(tx, &closed).await?;
                    Ok::<_, WorkError>(closed)
                })
            })
            .await?;
        if !closed.is_empty() {
            audit(caller, "sessions.close", &row.tenant, &row.id);
            self.outbox.nudge();
            self.closed(closed);
        }
        let row = row::find(&self.store, &row.id).await?;
        Ok(row.ok_or_else(|| WorkError::no_session(&of.id))?.shown(now))
    }

    /// Writes the events of sessions that have ended, and that their tenants have fewer open.
    pub(crate) async fn tell_closed(&self, tx: &mut Tx, closed: &[SessionRow]) -> Result<(), WorkError> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for row in closed {
            *counts.entry(&row.tenant).or_default() += 1;
            let session = row.shown(self.now());
            self.tell(tx, &SessionChanged { session }).await?;
        }
        for (tenant, count) in counts {
            tenants::row::uncount_sessions(tx, tenant, count).await?;
        }
        Ok(())
    }

    /// After the commit: ends the streams of sessions that have ended.
    pub(crate) fn closed(&self, closed: Vec<SessionRow>) {
        for row in closed {
            self.sessions.forget(&row.id);
            let works = self.clone();
            self.aside("ending the streams of a session", async move {
                let order = agent::EndSession {
                    session: row.id.clone(),
                    reason: row.close_reason.unwrap_or_default(),
                };
                let told = works
                    .bus
                    .call::<agent::End>(&order)
                    .at(&row.host)
                    .key(Key::of(&row.id))
                    .await;
                // A host that is gone has no streams any more; its agent knows the lease's end, too.
                if let Err(fault) = told {
                    tracing::debug!(session = %row.id, host = %row.host, cause = %fault, "the host did not end the streams");
                }
                Ok(())
            });
        }
    }

    /// Ends the sessions whose time is over.
    pub(crate) async fn expire_sessions(&self) -> Result<(), WorkError> {
        let now = self.now();
        if !row::any_expired(&self.store, now).await? {
            return Ok(());
        }
        let works = self.clone();
        let closed = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    let closed = row::close_expired(tx, now).await?;
                    works.tell_closed(tx, &closed).await?;
                    Ok::<_, WorkError>(closed)
                })
            })
            .await?;
        self.outbox.nudge();
        self.closed(closed);
        Ok(())
    }
}

/// What a session is on, for whoever may use it.
pub(crate) fn on(row: &SessionRow) -> On<'_> {
    match row.service() {
        Some(service) => On::service(service),
        None => On::sandbox(row.made_by),
    }
}
