//! Opening a session: every check, in the order in which its failure is told.

use std::sync::Arc;
use std::time::Duration;

use nimbus_bus::{Action, Caller, Key, On};
use nimbus_proto::event::SessionChanged;
use nimbus_proto::workloads::{
    Channel, Lifecycle, OpenSessionRequest, Profile, Provider, SessionState, ShownBackend, Target,
    TargetSnapshot, WorkSession,
};
use serde_json::json;

use crate::done::{Keyed, Known};
use crate::error::WorkError;
use crate::ids;
use crate::sandboxes::record::Record;
use crate::services;
use crate::services::row::ServiceRow;
use crate::sessions::row::{self, Body, SessionRow};
use crate::tenants;
use crate::tenants::row::TenantRow;
use crate::works::{Works, audit};

/// Channels of one session.
const CHANNELS: std::ops::RangeInclusive<usize> = 1..=8;

/// A target that is there.
struct Found {
    record: Arc<Record>,
    service: Option<Arc<ServiceRow>>,
    snapshot: TargetSnapshot,
}

impl Works {
    pub(crate) async fn open_session(
        &self,
        caller: &Caller,
        key: Option<&Key>,
        request: OpenSessionRequest,
    ) -> Result<WorkSession, WorkError> {
        let identity = &caller.identity;
        let tenant = self.open_tenant(identity, &request.tenant).await?;
        check_channels(&request.channels)?;
        let own = identity.key.as_ref().map(|key| key.id);
        let on = |made_by| match &request.target {
            Target::Service(name) => On::service(name),
            Target::Sandbox(_) => On::sandbox(made_by),
        };
        let may = |made_by| {
            request.channels.iter().all(|channel| {
                identity.allows(
                    Action::SessionsOpen,
                    tenant.tenancy(),
                    on(made_by).through((*channel).into()),
                )
            })
        };
        if !may(own) {
            return Err(WorkError::Denied {
                action: Action::SessionsOpen,
            });
        }
        let found = self
            .target(&tenant, &request.target, &request.channels, may)
            .await?;
        let ttl = self.ttl(request.ttl_ms)?;
        let keyed = Keyed::of(self, key, &tenant.id, "open_session", &request)?;
        let now = self.now();
        let new = SessionRow {
            id: ids::session(now),
            tenant: tenant.id.clone(),
            sandbox: found.record.id().to_owned(),
            host: found.record.host.clone(),
            made_by: found.record.made_by,
            body: Body {
                target: request.target,
                snapshot: found.snapshot,
                channels: request.channels,
            },
            state: SessionState::Open,
            created_at: now,
            updated_at: now,
            expires_at: now.after(ttl),
            closed_at: None,
            close_reason: None,
            version: 1,
        };
        let (works, service, sandbox) = (self.clone(), found.service, found.record);
        let written = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    if let Some(keyed) = &keyed
                        && let Known::Done(id) = keyed.take(tx, &new.id, now).await?
                    {
                        return Ok(Err(id));
                    }
                    // What was looked at is still so, and stays so until this is written.
                    let still = crate::sandboxes::record::find_in(tx, &works.store, sandbox.id()).await?;
                    if still.is_none_or(|now| {
                        now.shown.status.lifecycle != Lifecycle::Ready || now.stop_reason.is_some()
                    }) {
                        return Err(WorkError::conflict(
                            "target_changed",
                            "the target has changed while the session was being opened",
                        ));
                    }
                    if let Some(service) = &service
                        && !services::row::hold(tx, &works.store, service).await?
                    {
                        return Err(WorkError::conflict(
                            "target_changed",
                            "the service has changed while the session was being opened",
                        ));
                    }
                    tenants::row::count_session(tx, &new.tenant, works.config.tenant_sessions).await?;
                    row::insert(tx, &new).await?;
                    let session = new.shown(now);
                    works.tell(tx, &SessionChanged { session }).await?;
                    Ok::<_, WorkError>(Ok(new))
                })
            })
            .await?;
        match written {
            Ok(new) => {
                let shown = new.shown(now);
                self.sessions.put(new.id.clone(), Arc::new(new));
                self.outbox.nudge();
                audit(caller, "sessions.open", &tenant.id, &shown.id);
                Ok(shown)
            }
            Err(id) => {
                let before = row::find(&self.store, &id).await?;
                Ok(before.ok_or_else(|| WorkError::no_session(&id))?.shown(now))
            }
        }
    }

    /// How long it lives: a little when nothing is said, never more than allowed.
    fn ttl(&self, wanted: Option<u64>) -> Result<Duration, WorkError> {
        match wanted {
            None => Ok(self.config.session_ttl.min(self.config.session_ttl_max)),
            Some(0) => Err(WorkError::invalid("requestedTtlMs", "it must be at least 1")),
            Some(ms) => Ok(Duration::from_millis(ms).min(self.config.session_ttl_max)),
        }
    }

    async fn target(
        &self,
        tenant: &TenantRow,
        target: &Target,
        channels: &[Channel],
        may: impl Fn(Option<nimbus_model::KeyId>) -> bool,
    ) -> Result<Found, WorkError> {
        match target {
            Target::Sandbox(id) => {
                let record = self
                    .find_sandbox(id)
                    .await?
                    .filter(|record| record.tenant() == tenant.id && may(record.made_by))
                    .ok_or_else(|| WorkError::no_sandbox(&tenant.id, id))?;
                check_offered(channels, offered_by(record.shown.profile))?;
                ready(&record, id)?;
                let snapshot = TargetSnapshot::Sandbox {
                    id: id.clone(),
                    generation: 1,
                    profile: record.shown.profile,
                    backend: record.shown.spec.backend,
                };
                Ok(Found {
                    record,
                    service: None,
                    snapshot,
                })
            }
            Target::Service(name) => {
                let row = services::row::find(&self.store, &tenant.id, name)
                    .await?
                    .map(Arc::new)
                    .ok_or_else(|| WorkError::no_service(&tenant.id, name))?;
                let provider = match &row.backend {
                    ShownBackend::BuiltIn(provider) => Some(*provider),
                    _ => None,
                };
                let offered: &[Channel] = match (row.is_sandbox(), provider) {
                    (true, _) => offered_by(Profile::Worker),
                    (false, Some(Provider::Browser)) => &[Channel::Cdp, Channel::Page],
                    (false, _) => &[],
                };
                check_offered(channels, offered)?;
                if !row.is_sandbox() {
                    return Err(WorkError::conflict(
                        "backend_not_launchable",
                        format!("nothing of the service {name} is run here"),
                    ));
                }
                if row.drain.is_some() || row.is_pending() {
                    return Err(WorkError::Conflict {
                        reason: "lifecycle_in_progress",
                        why: format!("the service {name} is on its way to another state"),
                        lifecycle: Some(Lifecycle::Starting),
                    });
                }
                let record = match &row.sandbox {
                    Some(id) => self.find_sandbox(id).await?,
                    None => None,
                };
                let record = record.ok_or_else(|| WorkError::Conflict {
                    reason: "not_ready",
                    why: format!("the service {name} does not run"),
                    lifecycle: Some(Lifecycle::Stopped),
                })?;
                ready(&record, name)?;
                let snapshot = TargetSnapshot::Service {
                    name: name.clone(),
                    generation: row.generation,
                    backend: row.kind.clone(),
                    provider,
                    sandbox: Some(record.id().to_owned()),
                };
                Ok(Found {
                    record,
                    service: Some(row),
                    snapshot,
                })
            }
        }
    }
}

fn check_channels(channels: &[Channel]) -> Result<(), WorkError> {
    if !CHANNELS.contains(&channels.len()) {
        return Err(WorkError::invalid("channels", "1 to 8 channels have to be named"));
    }
    for (index, channel) in channels.iter().enumerate() {
        if channels.iter().take(index).any(|before| before == channel) {
            return Err(WorkError::invalid("channels", "a channel is named twice"));
        }
    }
    Ok(())
}

const fn offered_by(profile: Profile) -> &'static [Channel] {
    match profile {
        Profile::Worker => &[Channel::Stdio, Channel::Files],
        Profile::Desktop => &[Channel::Stdio, Channel::Files, Channel::Cdp, Channel::Page],
    }
}

fn check_offered(channels: &[Channel], offered: &[Channel]) -> Result<(), WorkError> {
    if channels.iter().all(|channel| offered.contains(channel)) {
        return Ok(());
    }
    let names: Vec<&'static str> = offered.iter().map(|channel| (*channel).into()).collect();
    Err(WorkError::Invalid {
        field: "channels".to_owned(),
        why: "the target does not offer all of them".to_owned(),
        more: Some(("offered", json!(names))),
    })
}

/// Whether a target can be used now.
pub(crate) fn ready(record: &Record, name: &str) -> Result<(), WorkError> {
    let lifecycle = record.shown.status.lifecycle;
    if lifecycle == Lifecycle::Ready && record.stop_reason.is_none() {
        Ok(())
    } else {
        Err(WorkError::Conflict {
            reason: "not_ready",
            why: format!("{name} is {}", <&'static str>::from(lifecycle).replace('_', " ")),
            lifecycle: Some(lifecycle),
        })
    }
}
