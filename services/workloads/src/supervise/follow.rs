//! Hearing of what other replicas write, so that nothing is kept that is not so any more.

use futures::StreamExt;
use nimbus_bus::{Bus, CloudEvent, EventFilter, EventStart};
use nimbus_proto::event::{
    HostChanged, SandboxChanged, SandboxDeleted, ServiceChanged, ServiceDeleted, SessionChanged,
    TenantChanged, TenantDeleted,
};
use nimbus_service::{OnError, RunError, Tasks};

use crate::sandboxes::record::version_of;
use crate::works::Works;

const SUBJECTS: &[&str] = &[
    "nimbus.v1.event.tenant.>",
    "nimbus.v1.event.service.>",
    "nimbus.v1.event.sandbox.>",
    "nimbus.v1.event.session.>",
];

impl Works {
    /// Starts to listen.
    pub(crate) fn follow(&self, tasks: &Tasks, bus: &Bus) {
        let (works, bus) = (self.clone(), bus.clone());
        tasks.spawn("workloads.follow", OnError::Restart, move || {
            let (works, bus) = (works.clone(), bus.clone());
            async move {
                let mut events = bus
                    .follow(EventFilter {
                        subjects: SUBJECTS.iter().map(|&subject| subject.to_owned()).collect(),
                        start: EventStart::New,
                    })
                    .await?;
                // What was kept before this listened may be old.
                works.forget_all();
                while let Some(event) = events.next().await {
                    match event {
                        Ok(delivered) => works.hear(&delivered.event),
                        Err(error) => {
                            tracing::warn!("events were missed: {error}");
                            works.forget_all();
                        }
                    }
                }
                Err(RunError::other(
                    "could not follow events",
                    "the stream of events ended",
                ))
            }
        });
    }

    fn forget_all(&self) {
        self.tenants.clear();
        self.services.clear();
        self.sandboxes.clear();
        self.sessions.clear();
    }

    fn hear(&self, event: &CloudEvent) {
        if let Ok(Some(SandboxChanged { sandbox, .. })) = event.read() {
            self.sandboxes
                .hear(&sandbox.id, version_of(&sandbox.resource_version));
            let _ = self.changes.send(sandbox.id);
        } else if let Ok(Some(SandboxDeleted { id, .. })) = event.read() {
            self.sandboxes.forget(&id);
            let _ = self.changes.send(id);
        } else if let Ok(Some(ServiceChanged { service })) = event.read() {
            self.services.hear(
                &(service.tenant, service.name),
                version_of(&service.resource_version),
            );
        } else if let Ok(Some(ServiceDeleted { tenant, name })) = event.read() {
            self.services.forget(&(tenant, name));
        } else if let Ok(Some(SessionChanged { session })) = event.read() {
            self.sessions
                .hear(&session.id, version_of(&session.resource_version));
        } else if let Ok(Some(TenantChanged { tenant })) = event.read() {
            self.tenants.forget(&tenant.id);
        } else if let Ok(Some(TenantDeleted { tenant })) = event.read() {
            self.tenants.forget(&tenant);
        } else if !matches!(event.read::<HostChanged>(), Ok(Some(_))) {
            // Written by another version: better to know nothing than something old.
            self.forget_all();
        }
    }
}
