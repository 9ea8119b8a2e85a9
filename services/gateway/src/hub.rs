//! The one subscription of this process to domain events: what event streams show, what waiting
//! requests wake up for, what ends cached credentials, and what metrics count.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use nimbus_bus::{BusError, CloudEvent, Delivered, EventFilter, EventStart};
use nimbus_model::{OperationId, UserId};
use nimbus_proto::event::{
    AddressChanged, CredentialRevoked, GpuJobChanged, GpuSettingsChanged, GpuWorkerChanged, GpuWorkerRemoved,
    MachineChanged, MachineCreated, MachineDeleted, OperationProgressed, SandboxChanged, SandboxDeleted,
    ServiceChanged, ServiceDeleted, SessionChanged, TenantChanged,
};
use nimbus_proto::machine::{Operation, OperationKind, OperationState, StepState};
use nimbus_service::RunError;
use serde::Serialize;
use tokio::sync::{broadcast, watch};

use crate::state::App;
use crate::views::cluster::{AddressView, MachineEventView};
use crate::views::gpu::{GpuJobView, GpuWorkerView};
use crate::views::operation::{OperationView, duration_ms};
use crate::views::workloads::sandbox::SandboxView;
use crate::views::workloads::service::ServiceView;
use crate::views::workloads::session::WorkSessionView;

/// Events that a client that comes back can be told.
const RING: usize = 1000;
/// Events that a client may lag behind before it is told to start over.
const QUEUE: usize = 256;
/// Name of events about GPU jobs.
pub(crate) const GPU_JOB: &str = "gpu_job";
/// What is listened to.
const ALL: &str = "nimbus.v1.event.>";

/// Who may see an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// One user.
    User(UserId),
    /// Administrators.
    Admins,
    /// One user, and administrators.
    Owner(UserId),
    /// Those who reach a tenant.
    Tenant(String),
    /// Everybody with an open stream.
    Everybody,
    /// Nobody sees it; the tenant may be new.
    Tenants(String),
}

/// One event as streams show it.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) sequence: u64,
    pub(crate) audience: Audience,
    pub(crate) name: &'static str,
    pub(crate) data: String,
    /// Set when it ends the streams of a credential; then it is not shown.
    pub(crate) revoked: Option<CredentialRevoked>,
}

/// Fans events out; one per process.
pub(crate) struct Hub {
    ring: Mutex<Ring>,
    live: broadcast::Sender<Arc<Shown>>,
    waiting: Arc<Mutex<Waiting>>,
}

type Waiting = HashMap<OperationId, watch::Sender<Option<Arc<Operation>>>>;

#[derive(Default)]
struct Ring {
    events: VecDeque<Arc<Shown>>,
    /// Everything after this sequence, and up to the newest, is in `events`.
    complete_after: Option<u64>,
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            ring: Mutex::default(),
            live: broadcast::Sender::new(QUEUE),
            waiting: Arc::default(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a new stream begins with.
pub(crate) struct Subscription {
    /// What the client has missed; none when that is not known any more.
    pub(crate) missed: Option<Vec<Arc<Shown>>>,
    /// The newest event that is known.
    pub(crate) newest: Option<u64>,
    /// What comes.
    pub(crate) live: broadcast::Receiver<Arc<Shown>>,
}

/// News of one operation, for as long as somebody waits.
pub(crate) struct News {
    id: OperationId,
    receiver: Option<watch::Receiver<Option<Arc<Operation>>>>,
    waiting: Arc<Mutex<Waiting>>,
}

impl News {
    /// The newest state that was told since the last call.
    pub(crate) async fn next(&mut self) -> Option<Arc<Operation>> {
        let receiver = self.receiver.as_mut()?;
        receiver.changed().await.ok()?;
        receiver.borrow_and_update().clone()
    }
}

impl Drop for News {
    fn drop(&mut self) {
        self.receiver = None;
        let mut waiting = lock(&self.waiting);
        if waiting
            .get(&self.id)
            .is_some_and(|sender| sender.receiver_count() == 0)
        {
            waiting.remove(&self.id);
        }
    }
}

impl Hub {
    /// Events after `last`, then those that come, without a gap between the two.
    pub(crate) fn subscribe(&self, last: Option<u64>) -> Subscription {
        let ring = lock(&self.ring);
        let missed = match last {
            None => Some(Vec::new()),
            Some(last) => ring.after(last),
        };
        Subscription {
            missed,
            newest: ring.newest(),
            live: self.live.subscribe(),
        }
    }

    /// News of an operation.
    pub(crate) fn watch(&self, id: OperationId) -> News {
        let mut waiting = lock(&self.waiting);
        let receiver = waiting
            .entry(id)
            .or_insert_with(|| watch::Sender::new(None))
            .subscribe();
        News {
            id,
            receiver: Some(receiver),
            waiting: Arc::clone(&self.waiting),
        }
    }

    fn show(&self, shown: Shown) {
        let shown = Arc::new(shown);
        let mut ring = lock(&self.ring);
        ring.push(Arc::clone(&shown));
        // Nobody listens: nothing is lost, the ring has it.
        let _ = self.live.send(shown);
    }

    /// Everybody has to start over: events were lost.
    fn reset(&self, sequence: u64) {
        let mut ring = lock(&self.ring);
        ring.events.clear();
        ring.complete_after = Some(sequence);
        let shown = Shown {
            sequence,
            audience: Audience::Everybody,
            name: "reset",
            data: "{}".to_owned(),
            revoked: None,
        };
        let _ = self.live.send(Arc::new(shown));
    }

    fn tell(&self, operation: &Operation) {
        let waiting = lock(&self.waiting);
        if let Some(sender) = waiting.get(&operation.id) {
            sender.send_replace(Some(Arc::new(operation.clone())));
        }
    }
}

impl Ring {
    fn push(&mut self, shown: Arc<Shown>) {
        if self.complete_after.is_none() {
            self.complete_after = Some(shown.sequence.saturating_sub(1));
        }
        self.events.push_back(shown);
        while self.events.len() > RING {
            if let Some(gone) = self.events.pop_front() {
                self.complete_after = Some(gone.sequence);
            }
        }
    }

    fn newest(&self) -> Option<u64> {
        self.events
            .back()
            .map(|event| event.sequence)
            .or(self.complete_after)
    }

    /// What came after `last`; none when that is not known any more, or never was.
    fn after(&self, last: u64) -> Option<Vec<Arc<Shown>>> {
        if last < self.complete_after? || last > self.newest()? {
            return None;
        }
        Some(
            self.events
                .iter()
                .filter(|event| event.sequence > last)
                .map(Arc::clone)
                .collect(),
        )
    }
}

/// Follows events until the connection is closed for good. `live` is called once it follows.
pub(crate) async fn run(app: App, live: impl Fn() + Send) -> Result<(), RunError> {
    let filter = EventFilter {
        subjects: vec![ALL.to_owned()],
        start: EventStart::New,
    };
    let mut events = app.bus.follow(filter).await?;
    // Whatever was revoked before we listened is not known here.
    app.principals.clear();
    live();
    while let Some(next) = events.next().await {
        match next {
            Ok(delivered) => take(&app, delivered),
            Err(error @ BusError::Decode { .. }) => {
                tracing::warn!("an event was not understood: {}", nimbus_errors::chain(&error));
            }
            Err(BusError::EventsDropped { first, .. }) => {
                tracing::warn!(
                    event.first = first,
                    "events were lost; every open stream starts over"
                );
                app.principals.clear();
                app.hub.reset(first.saturating_sub(1));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn take(app: &App, delivered: Delivered) {
    let Delivered { sequence, event } = delivered;
    app.metrics
        .event(event.type_.trim_start_matches("nimbus.v1.event."));
    match shown(app, sequence, &event) {
        Ok(Some(shown)) => app.hub.show(shown),
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(event.id = %event.id, "an event was not understood: {}", nimbus_errors::chain(&error))
        }
    }
}

fn shown(app: &App, sequence: u64, event: &CloudEvent) -> Result<Option<Shown>, BusError> {
    if let Some(OperationProgressed { operation }) = event.read()? {
        app.hub.tell(&operation);
        count(app, &operation);
        let owner = operation.owner;
        return Ok(Some(of(
            sequence,
            Audience::User(owner),
            "operation",
            &OperationView::from(operation),
        )));
    }
    let machine = if let Some(MachineCreated { machine }) = event.read()? {
        Some(("created", machine))
    } else if let Some(MachineChanged { machine }) = event.read()? {
        Some(("changed", machine))
    } else if let Some(MachineDeleted { machine }) = event.read()? {
        Some(("deleted", machine))
    } else {
        None
    };
    if let Some((kind, machine)) = machine {
        let owner = machine.owner;
        return Ok(Some(of(
            sequence,
            Audience::User(owner),
            "machine",
            &MachineEventView::of(kind, machine),
        )));
    }
    if let Some(AddressChanged { address }) = event.read()? {
        return Ok(Some(of(
            sequence,
            Audience::Admins,
            "address",
            &AddressView::from(address),
        )));
    }
    if let Some(shown) = of_gpu(app, sequence, event)? {
        return Ok(Some(shown));
    }
    if let Some(shown) = of_tenant(sequence, event)? {
        return Ok(Some(shown));
    }
    if let Some(revoked) = event.read::<CredentialRevoked>()? {
        app.principals.revoke(&revoked);
        let mut shown = of(sequence, Audience::User(revoked.user), "revoked", &());
        shown.revoked = Some(revoked);
        return Ok(Some(shown));
    }
    Ok(None)
}

/// A resource as `GET` gives it, with its tenant.
#[derive(Serialize)]
struct OfTenant<T> {
    tenant: String,
    #[serde(flatten)]
    resource: T,
}

/// What is left of a resource that was removed.
#[derive(Serialize)]
struct Removed {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    removed: bool,
}

/// Events of GPU jobs, and of the boxes that run them.
fn of_gpu(app: &App, sequence: u64, event: &CloudEvent) -> Result<Option<Shown>, BusError> {
    if let Some(GpuJobChanged { job }) = event.read()? {
        let owner = Audience::Owner(job.owner);
        return Ok(Some(of(sequence, owner, GPU_JOB, &GpuJobView::of_event(job))));
    }
    let shown = if let Some(GpuWorkerChanged { worker }) = event.read()? {
        of(
            sequence,
            Audience::Admins,
            "gpu_worker",
            &GpuWorkerView::of(worker, true),
        )
    } else if let Some(GpuWorkerRemoved { worker }) = event.read()? {
        let gone = Removed {
            id: Some(worker.to_string()),
            name: None,
            removed: true,
        };
        of(sequence, Audience::Admins, "gpu_worker", &gone)
    } else if let Some(GpuSettingsChanged { enabled }) = event.read()? {
        of(
            sequence,
            Audience::Everybody,
            "gpu_settings",
            &GpuSettings { enabled },
        )
    } else {
        return Ok(None);
    };
    // Where models are may have changed with it.
    app.inference.forget();
    Ok(Some(shown))
}

/// Whether GPUs may be used.
#[derive(Serialize)]
struct GpuSettings {
    enabled: bool,
}

/// Events of services, sandboxes and sessions.
fn of_tenant(sequence: u64, event: &CloudEvent) -> Result<Option<Shown>, BusError> {
    fn told<T: Serialize>(sequence: u64, name: &'static str, tenant: String, resource: T) -> Option<Shown> {
        let audience = Audience::Tenant(tenant.clone());
        Some(of(sequence, audience, name, &OfTenant { tenant, resource }))
    }
    Ok(if let Some(SandboxChanged { sandbox, .. }) = event.read()? {
        told(
            sequence,
            "sandbox",
            sandbox.tenant.clone(),
            SandboxView::from(sandbox),
        )
    } else if let Some(SandboxDeleted { tenant, id }) = event.read()? {
        let gone = Removed {
            id: Some(id),
            name: None,
            removed: true,
        };
        told(sequence, "sandbox", tenant, gone)
    } else if let Some(ServiceChanged { service }) = event.read()? {
        told(
            sequence,
            "service",
            service.tenant.clone(),
            ServiceView::from(service),
        )
    } else if let Some(ServiceDeleted { tenant, name }) = event.read()? {
        let gone = Removed {
            id: None,
            name: Some(name),
            removed: true,
        };
        told(sequence, "service", tenant, gone)
    } else if let Some(SessionChanged { session }) = event.read()? {
        told(
            sequence,
            "session",
            session.tenant.clone(),
            WorkSessionView::from(session),
        )
    } else if let Some(TenantChanged { tenant }) = event.read()? {
        Some(of(sequence, Audience::Tenants(tenant.id), "tenants", &()))
    } else {
        None
    })
}

fn of(sequence: u64, audience: Audience, name: &'static str, view: &impl Serialize) -> Shown {
    // Views are structs of plain values: nothing in them can fail to become JSON.
    let data = serde_json::to_string(view).unwrap_or_default();
    Shown {
        sequence,
        audience,
        name,
        data,
        revoked: None,
    }
}

fn count(app: &App, operation: &Operation) {
    if !operation.state.is_final() {
        return;
    }
    let kind: &str = operation.kind.into();
    if operation.kind == OperationKind::Provision {
        let outcome = operation
            .fault
            .as_ref()
            .map_or("unknown", |fault| fault.code.as_str());
        app.metrics
            .provision(if operation.state == OperationState::Succeeded {
                "ok"
            } else {
                outcome
            });
    }
    for step in operation
        .steps
        .iter()
        .filter(|step| step.state == StepState::Done)
    {
        if let Some(ms) = duration_ms(step) {
            app.metrics
                .step(kind, &step.key, std::time::Duration::from_millis(ms));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(sequence: u64) -> Shown {
        of(sequence, Audience::Everybody, "node", &())
    }

    fn missed(hub: &Hub, last: u64) -> Option<Vec<u64>> {
        hub.subscribe(Some(last))
            .missed
            .map(|events| events.iter().map(|e| e.sequence).collect())
    }

    #[test]
    fn who_comes_back_is_told_what_they_missed_or_to_start_over() {
        let hub = Hub::default();
        assert_eq!(missed(&hub, 5), None, "nothing is known yet");
        for sequence in [10, 12, 13] {
            hub.show(event(sequence));
        }
        assert_eq!(missed(&hub, 9), Some(vec![10, 12, 13]));
        assert_eq!(missed(&hub, 11), Some(vec![12, 13]));
        assert_eq!(missed(&hub, 13), Some(vec![]));
        assert_eq!(missed(&hub, 8), None, "older than what is known");
        assert_eq!(missed(&hub, 14), None, "of another stream");
        for sequence in 14..14 + 1000 {
            hub.show(event(sequence));
        }
        assert_eq!(missed(&hub, 12), None, "pushed out");
        assert_eq!(missed(&hub, 13).map(|m| m.len()), Some(RING));
    }

    #[test]
    fn after_lost_events_nothing_older_is_replayed() {
        let hub = Hub::default();
        hub.show(event(1));
        hub.reset(7);
        assert_eq!(missed(&hub, 1), None);
        assert_eq!(missed(&hub, 7), Some(vec![]));
        hub.show(event(8));
        assert_eq!(missed(&hub, 7), Some(vec![8]));
    }

    #[test]
    fn nobody_who_waits_is_remembered_after_they_left() {
        let hub = Hub::default();
        let id = OperationId::fresh();
        let (first, second) = (hub.watch(id), hub.watch(id));
        drop(first);
        assert_eq!(lock(&hub.waiting).len(), 1);
        drop(second);
        assert!(lock(&hub.waiting).is_empty());
    }
}
