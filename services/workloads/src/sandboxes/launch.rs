//! Handing a sandbox to its host.

use std::sync::Arc;
use std::time::Duration;

use nimbus_bus::Key;
use nimbus_errors::{Code, Fault};
use nimbus_proto::agent::{self, LaunchRequest};
use nimbus_proto::event::{SandboxChanged, SandboxDeleted};
use nimbus_proto::workloads::Observation;
use tokio::time::Instant;

use super::birth::associated;
use crate::error::WorkError;
use crate::hosts::place::{Moment, Need, choose};
use crate::hosts::{self};
use crate::sandboxes::record::{self, Record};
use crate::state::{self, Event};
use crate::tenants;
use crate::works::Works;

/// Pauses between tries.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MOST: Duration = Duration::from_secs(1);
/// How long a host may take to answer before it is asked again. One that is not there is noticed
/// then, too.
const TRY: Duration = Duration::from_millis(1500);
/// Kept of the time for the launch, so that its outcome is written while it is still ours.
const MARGIN: Duration = Duration::from_millis(500);

impl Works {
    /// Launches a sandbox at its host and writes down what came of it. Asking a host again for the
    /// same sandbox is harmless, so whatever may help is tried until the time for it is over.
    ///
    /// `received` is when its creator asked; a creator is also told of a refusal, and the record taken
    /// back, where otherwise the sandbox has failed.
    pub(crate) async fn launch(
        &self,
        record: Arc<Record>,
        request: LaunchRequest,
        received: Option<Instant>,
    ) -> Result<Arc<Record>, WorkError> {
        let mut record = record;
        let mut pause = PAUSE;
        let mut absent: Vec<String> = Vec::new();
        let left = record.launch_until.since(self.now()).saturating_sub(MARGIN);
        let until = Instant::now() + left;
        loop {
            let limit = until.saturating_duration_since(Instant::now()).min(TRY);
            let answer = self
                .bus
                .call::<agent::Launch>(&request)
                .at(&record.host)
                .key(Key::of(record.id()))
                .timeout(limit.max(PAUSE))
                .await;
            let fault = match answer {
                Ok(seen) => return self.launched(&record, &seen, received).await,
                Err(fault) => fault,
            };
            let late = Instant::now() + pause >= until;
            let again = [
                Code::ServiceUnavailable,
                Code::ServiceTimeout,
                Code::RateOverloaded,
            ]
            .into_iter()
            .any(|code| fault.is(code));
            if !again || late {
                return self.not_launched(&record, fault, received.is_some()).await;
            }
            tracing::debug!(sandbox = record.id(), host = %record.host, cause = %fault, "the launch is tried again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MOST);
            // Stopped or taken over meanwhile?
            match self.find_sandbox(record.id()).await? {
                Some(now) if now.charged && now.stop_reason.is_none() && !now.launched => record = now,
                Some(now) => return Ok(now),
                None => return Ok(record),
            }
            if fault.is(Code::ServiceUnavailable) {
                if !absent.contains(&record.host.to_string()) {
                    absent.push(record.host.to_string());
                }
                if let Some(moved) = self.move_on(&record, &request, &absent).await? {
                    record = moved;
                }
            }
        }
    }

    async fn launched(
        &self,
        record: &Record,
        seen: &Observation,
        received: Option<Instant>,
    ) -> Result<Arc<Record>, WorkError> {
        let (now, host) = (self.now(), record.host.clone());
        let waited = received.map(|at| u64::try_from(at.elapsed().as_micros()).unwrap_or(u64::MAX));
        let changed = self
            .change(record.id(), |record| {
                let mut new = super::observed(record, &host, None, seen, now).or_else(|| {
                    // Its host has told of it already.
                    (record.charged && !record.launched).then(|| Record {
                        launched: true,
                        ..record.clone()
                    })
                })?;
                if let (Some(waited), Some(_)) = (waited, seen.started_after_us) {
                    new.shown.status.started_after_us = Some(waited);
                }
                Some(new)
            })
            .await?;
        let now = changed.ok_or_else(|| WorkError::no_sandbox(record.tenant(), record.id()))?;
        // Somebody wanted it to end while it was on its way.
        if now.charged && now.stop_reason.is_some() {
            self.tell_end(&now).await?;
        }
        Ok(now)
    }

    async fn not_launched(
        &self,
        record: &Record,
        fault: Fault,
        has_creator: bool,
    ) -> Result<Arc<Record>, WorkError> {
        let refused = [
            Code::ServiceSandboxBackendUnavailable,
            Code::OpInvalidInput,
            Code::AuthPermissionDenied,
        ]
        .into_iter()
        .any(|code| fault.is(code));
        if has_creator && refused {
            self.unbear(record).await?;
            return Err(fault.into());
        }
        tracing::warn!(sandbox = record.id(), host = %record.host, cause = %fault, "the host did not launch it");
        let now = self.now();
        let reason = if fault.is(Code::ServiceUnavailable) {
            "HostUnreachable"
        } else {
            "LaunchFailed"
        };
        let changed = self
            .change(record.id(), |record| {
                let status = state::decide(
                    &record.shown.status,
                    Event::LaunchFailed,
                    reason,
                    &fault.message,
                    now,
                )
                .ok()?;
                let mut new = record.clone();
                new.shown.status = status;
                Some(new)
            })
            .await?;
        changed.ok_or_else(|| WorkError::no_sandbox(record.tenant(), record.id()))
    }

    /// Takes back a record as if it had never been.
    async fn unbear(&self, record: &Record) -> Result<(), WorkError> {
        let (works, id) = (self.clone(), record.id().to_owned());
        self.store
            .write(move |tx| {
                Box::pin(async move {
                    let Some(now) = record::find_in(tx, &works.store, &id).await? else {
                        return Ok(());
                    };
                    if now.charged && record::delete(tx, &now).await? {
                        tenants::row::give_back(tx, now.tenant(), now.resources()).await?;
                        hosts::row::give_back(tx, now.host.as_str(), now.resources()).await?;
                        let event = SandboxDeleted {
                            tenant: now.tenant().to_owned(),
                            id: id.clone(),
                        };
                        works.tell(tx, &event).await?;
                    }
                    nimbus_store::execute!(
                        tx,
                        nimbus_store::sqlx::query(
                            "DELETE FROM workloads_done WHERE tenant = $1 AND method = 'create_sandbox' AND outcome = $2"
                        )
                        .bind(now.tenant())
                        .bind(&id)
                    )?;
                    Ok::<_, WorkError>(())
                })
            })
            .await?;
        self.sandboxes.forget(record.id());
        self.hosts.given_back(record.host.as_str(), record.resources());
        self.outbox.nudge();
        Ok(())
    }

    /// Places a sandbox whose host does not answer somewhere else, if there is such a place. Should
    /// that host have it after all, it will be told that it is not wanted there.
    async fn move_on(
        &self,
        record: &Arc<Record>,
        request: &LaunchRequest,
        not: &[String],
    ) -> Result<Option<Arc<Record>>, WorkError> {
        let has_volume = request
            .mounts
            .iter()
            .any(|mount| matches!(mount, nimbus_proto::workloads::Mount::Volume { .. }));
        if has_volume {
            return Ok(None);
        }
        let need = Need {
            backend: record.shown.spec.backend,
            profile: record.shown.profile,
            image: &request.image,
            resources: *record.resources(),
            pinned: None,
            not,
        };
        let moment = Moment {
            now: self.now(),
            lost_after: self.config.host_lost_after,
        };
        let Ok(chosen) = self.hosts.with(|rows| choose(rows, &need, moment, &self.config)) else {
            return Ok(None);
        };
        let mut new = Record::clone(record);
        new.host = chosen.host.clone();
        new.shown.status.host = Some(chosen.host.to_string());
        new.version += 1;
        new.shown.resource_version = Record::word(new.version);
        let new = Arc::new(new);
        let (works, old, written) = (self.clone(), Arc::clone(record), Arc::clone(&new));
        let moved = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    if !record::save(tx, old.version, &written).await? {
                        return Ok(false);
                    }
                    let limits = written.resources();
                    if !hosts::row::charge(tx, written.host.as_str(), limits, chosen.room).await? {
                        return Err(WorkError::NoBackend {
                            backend: written.shown.spec.backend.into(),
                            missing: vec!["room".to_owned()],
                        });
                    }
                    hosts::row::give_back(tx, old.host.as_str(), limits).await?;
                    let event = SandboxChanged {
                        sandbox: written.shown.clone(),
                        made_by: written.made_by,
                    };
                    works.tell(tx, &event).await?;
                    Ok::<_, WorkError>(true)
                })
            })
            .await;
        match moved {
            Ok(true) => {
                tracing::warn!(sandbox = new.id(), from = %record.host, to = %new.host, "{} does not answer", record.host);
                self.hosts.given_back(record.host.as_str(), new.resources());
                self.hosts
                    .charged(new.host.as_str(), new.resources(), &request.image);
                self.sandboxes.put(new.id().to_owned(), Arc::clone(&new));
                self.outbox.nudge();
                Ok(Some(new))
            }
            Ok(false) => {
                self.sandboxes.forget(record.id());
                Ok(None)
            }
            Err(WorkError::NoBackend { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Goes on with launches that nobody attends to: their replica has ended.
    pub(crate) async fn resume_launches(&self) -> Result<(), WorkError> {
        let now = self.now();
        for record in record::unlaunched(&self.store, now).await? {
            let until = now.after(self.config.launch_lease);
            let id = record.id().to_owned();
            self.sandboxes.forget(&id);
            let claimed = self
                .change(&id, |record| {
                    (record.charged && !record.launched && record.launch_until <= now).then(|| Record {
                        launch_until: until,
                        ..record.clone()
                    })
                })
                .await?;
            let Some(record) = claimed.filter(|record| record.launch_until == until) else {
                continue;
            };
            if record.stop_reason.is_some() {
                self.tell_end(&record).await?;
                continue;
            }
            let works = self.clone();
            self.aside("resuming a launch", async move {
                if let Some(request) = works.launch_input(record.id()).await? {
                    works.launch(record, request, None).await?;
                }
                Ok(())
            });
        }
        Ok(())
    }

    /// The launch of a sandbox that has not ended.
    async fn launch_input(&self, id: &str) -> Result<Option<LaunchRequest>, WorkError> {
        let Some(sealed) = record::find_launch(&self.store, id).await? else {
            return Ok(None);
        };
        let clear = self.sealer.open(&sealed, &associated(id))?;
        serde_json::from_slice(&clear)
            .map(Some)
            .map_err(WorkError::damaged("a launch"))
    }
}
