//! What all parts of the service share.

use std::sync::Arc;

use nimbus_bus::{Action, Bus, Caller, CloudEvent, Event, Identity, On};
use nimbus_errors::chain;
use nimbus_model::{Clock, Timestamp};
use nimbus_service::{Outbox, Tasks};
use nimbus_store::{Sealer, Store, StoreError, Tx};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::config::WorkloadsConfig;
use crate::error::WorkError;
use crate::hosts::view::Hosts;
use crate::kept::Kept;
use crate::sandboxes::record::Record;
use crate::services::row::ServiceRow;
use crate::sessions::row::SessionRow;
use crate::sign::Signer;
use crate::tenants::row::TenantRow;

/// How often a step is tried again when others change the row in between.
pub(crate) const RACES: usize = 16;
/// Changes that a waiter may be behind.
const BEHIND: usize = 1024;

/// The service. Clones share.
#[derive(Clone)]
pub(crate) struct Works {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) outbox: Outbox,
    pub(crate) sealer: Sealer,
    pub(crate) clock: Clock,
    pub(crate) bus: Bus,
    pub(crate) config: WorkloadsConfig,
    pub(crate) signer: Signer,
    pub(crate) tasks: Tasks,
    pub(crate) stop: CancellationToken,
    pub(crate) hosts: Hosts,
    pub(crate) tenants: Kept<String, TenantRow>,
    pub(crate) sandboxes: Kept<String, Record>,
    pub(crate) services: Kept<(String, String), ServiceRow>,
    pub(crate) sessions: Kept<String, SessionRow>,
    /// Ids of sandboxes that have changed.
    pub(crate) changes: broadcast::Sender<String>,
}

impl std::ops::Deref for Works {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.inner
    }
}

/// What [`Works::new`] is made of.
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) outbox: Outbox,
    pub(crate) sealer: Sealer,
    pub(crate) clock: Clock,
    pub(crate) bus: Bus,
    pub(crate) config: WorkloadsConfig,
    pub(crate) signer: Signer,
    pub(crate) tasks: Tasks,
    pub(crate) stop: CancellationToken,
}

impl Works {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            inner: Arc::new(Inner {
                store: parts.store,
                outbox: parts.outbox,
                sealer: parts.sealer,
                clock: parts.clock,
                bus: parts.bus,
                config: parts.config,
                signer: parts.signer,
                tasks: parts.tasks,
                stop: parts.stop,
                hosts: Hosts::default(),
                tenants: Kept::default(),
                sandboxes: Kept::default(),
                services: Kept::default(),
                sessions: Kept::default(),
                changes: broadcast::Sender::new(BEHIND),
            }),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Writes an event beside its change; [`Outbox::nudge`] after the commit.
    pub(crate) async fn tell<E: Event>(&self, tx: &mut Tx, event: &E) -> Result<(), StoreError> {
        self.outbox
            .push(tx, &CloudEvent::of(event, "workloads", &self.clock))
            .await
    }

    /// Does `work` besides, until it ends or the service stops. What it leaves undone is found by
    /// the supervision.
    pub(crate) fn aside(
        &self,
        what: &'static str,
        work: impl Future<Output = Result<(), WorkError>> + Send + 'static,
    ) {
        let stop = self.stop.clone();
        self.tasks.finish(async move {
            tokio::select! {
                done = work => {
                    if let Err(error) = done {
                        tracing::warn!(cause = %chain(&error), "{what} failed");
                    }
                }
                () = stop.cancelled() => {}
            }
        });
    }
}

/// Whether `identity` may do `action` to `on` in `tenant`.
pub(crate) fn allow(
    identity: &Identity,
    action: Action,
    tenant: &TenantRow,
    on: On<'_>,
) -> Result<(), WorkError> {
    if identity.allows(action, tenant.tenancy(), on) {
        Ok(())
    } else {
        Err(WorkError::Denied { action })
    }
}

/// Whether `identity` may do `action` to some sandbox of `tenant`: asked before it is looked for, so
/// that a credential without the action learns nothing of what exists.
pub(crate) fn allow_some(identity: &Identity, action: Action, tenant: &TenantRow) -> Result<(), WorkError> {
    let own = identity.key.as_ref().map(|key| key.id);
    allow(identity, action, tenant, On::sandbox(own))
}

/// Records who has done what. Never with launch input, tokens or secrets.
pub(crate) fn audit(caller: &Caller, action: &'static str, tenant: &str, target: &str) {
    let identity = &caller.identity;
    tracing::info!(
        target: "audit",
        action,
        tenant,
        on = target,
        user = %identity.user,
        operator = identity.is_operator(),
        key = identity.key.as_ref().map(|key| tracing::field::display(key.id)),
        "{action} {target} in {tenant}"
    );
}
