//! What has happened, for everybody who listens: the portal, tools, other services.

use nimbus_bus::Event;
use nimbus_model::{Hostname, KeyId, MachineId, SessionId, TokenId, UserId};
use serde::{Deserialize, Serialize};

use crate::gpu::{Job, Worker};
use crate::ippool::Address;
use crate::machine::{Machine, Operation};
use crate::workloads::{Denial, Host, Sandbox, Service, Tenant, WorkSession};

macro_rules! event {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident : $ty:ty),* $(,)? } $domain:literal . $kind:literal, |$this:ident| $entity:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub struct $name { $($(#[$field_doc])* pub $field: $ty,)* }
        impl Event for $name {
            const DOMAIN: &'static str = $domain;
            const KIND: &'static str = $kind;
            fn entity(&self) -> String { let $this = self; $entity }
        }
    };
}

event!(/// An operation began, made a step, or ended.
    OperationProgressed { /// Its whole state after that.
        operation: Operation } "operation"."progressed", |e| e.operation.id.to_string());
event!(/// A machine's row came to be.
    MachineCreated { /// The row.
        machine: Machine } "machine"."created", |e| e.machine.id.to_string());
event!(/// A machine's row changed.
    MachineChanged { /// The row.
        machine: Machine } "machine"."changed", |e| e.machine.id.to_string());
event!(/// A machine and its row are gone.
    MachineDeleted { /// The row as it was.
        machine: Machine } "machine"."deleted", |e| e.machine.id.to_string());
event!(/// An address changed hands.
    AddressChanged { /// Its row.
        address: Address } "address"."changed", |e| e.address.ip.to_string().replace('.', "-"));
event!(/// Somebody registered.
    UserRegistered { /// Who.
        user: UserId } "user"."registered", |e| e.user.to_string());
event!(/// Somebody signed in.
    UserSignedIn { /// Who.
        user: UserId } "user"."signed_in", |e| e.user.to_string());
event!(/// A credential ended before its time; access tokens made from it must not be honoured any more.
    CredentialRevoked { /// Whose.
        user: UserId,
        /// The browser session, if it was one.
        session: Option<SessionId>,
        /// The personal access token, if it was one.
        token: Option<TokenId>,
        /// The API key, if it was one.
        #[serde(default)]
        key: Option<KeyId>,
        /// The machine, if it was the token inside one.
        #[serde(default)]
        machine: Option<MachineId> } "credential"."revoked", |e| e.user.to_string());

event!(/// A GPU job was queued, or its state or phase changed. Its environment is not shown.
    GpuJobChanged { /// The job.
        job: Job } "gpu-job"."changed", |e| e.job.id.to_string());
event!(/// A GPU box was paired, or its state, standing or job changed.
    GpuWorkerChanged { /// The box.
        worker: Worker } "gpu-worker"."changed", |e| e.worker.name.to_string());
event!(/// A GPU box was forgotten.
    GpuWorkerRemoved { /// Its name.
        worker: Hostname } "gpu-worker"."removed", |e| e.worker.to_string());
event!(/// How GPUs are set up has changed: the endpoint, the model, whether they may be used.
    GpuSettingsChanged { /// Whether they may be used.
        enabled: bool } "gpu-settings"."changed", |_e| "all".to_owned());
event!(/// A tenant was created, or its bounds, policy or use changed.
    TenantChanged { /// The tenant.
        tenant: Tenant } "tenant"."changed", |e| e.tenant.id.clone());
event!(/// A tenant and everything in it are gone.
    TenantDeleted { /// Its id.
        tenant: String } "tenant"."deleted", |e| e.tenant.clone());
event!(/// A service was defined, or its definition or state changed. The sandbox' process is shown by numbers only.
    ServiceChanged { /// The service.
        service: Service } "service"."changed", |e| e.service.name.clone());
event!(/// A service is gone.
    ServiceDeleted { /// Its tenant.
        tenant: String,
        /// Its name.
        name: String } "service"."deleted", |e| e.name.clone());
event!(/// A sandbox was created, or its state changed.
    SandboxChanged { /// The sandbox.
        sandbox: Sandbox,
        /// The API key that made it, if one did: keys may be limited to their own.
        #[serde(default)]
        made_by: Option<KeyId> } "sandbox"."changed", |e| e.sandbox.id.clone());
event!(/// A sandbox and its record are gone.
    SandboxDeleted { /// Its tenant.
        tenant: String,
        /// Its id.
        id: String } "sandbox"."deleted", |e| e.id.clone());
event!(/// A session was opened or has ended.
    SessionChanged { /// The session.
        session: WorkSession } "session"."changed", |e| e.session.id.clone());
event!(/// A connection out of a sandbox was refused.
    EgressDenied { /// The sandbox' tenant.
        tenant: String,
        /// What it was.
        denial: Denial } "egress"."denied", |e| e.denial.sandbox.clone());
event!(/// A host came, was lost, or offers something else than before.
    HostChanged { /// The host.
        host: Host } "host"."changed", |e| e.host.name.clone());

/// One kind of event, as `proto/events.json` lists it.
#[derive(Clone, Debug, Serialize)]
pub struct EventInfo {
    /// Subjects it is published on; the last token is what it happened to.
    pub subject: String,
    /// The `type` of its CloudEvents envelope.
    #[serde(rename = "type")]
    pub type_: String,
    /// The `data` of its envelope, by example.
    pub data: serde_json::Value,
}

fn info<E: Event>(sample: &E) -> EventInfo {
    let kind = format!("nimbus.v1.event.{}.{}", E::DOMAIN, E::KIND);
    EventInfo {
        subject: format!("{kind}.<id>"),
        type_: kind,
        data: serde_json::to_value(sample).unwrap_or_default(),
    }
}

/// Every kind of event, with samples that never change by themselves.
#[must_use]
pub fn events() -> Vec<EventInfo> {
    use nimbus_bus::Method;
    let operation = crate::machine::GetOperation::sample_reply();
    let machine = crate::machine::Get::sample_reply();
    let user = crate::sample::user();
    let mut list = vec![
        info(&OperationProgressed { operation }),
        info(&MachineCreated {
            machine: machine.clone(),
        }),
        info(&MachineChanged {
            machine: machine.clone(),
        }),
        info(&MachineDeleted { machine }),
        info(&UserRegistered { user }),
        info(&UserSignedIn { user }),
        info(&CredentialRevoked {
            user,
            session: Some(crate::sample::session()),
            token: None,
            key: None,
            machine: None,
        }),
        info(&TenantChanged {
            tenant: crate::workloads::GetTenant::sample_reply(),
        }),
        info(&TenantDeleted {
            tenant: "demo".to_owned(),
        }),
        info(&ServiceChanged {
            service: crate::workloads::GetService::sample_reply(),
        }),
        info(&ServiceDeleted {
            tenant: "demo".to_owned(),
            name: "worker".to_owned(),
        }),
        info(&SandboxChanged {
            sandbox: crate::workloads::GetSandbox::sample_reply(),
            made_by: Some(crate::sample::key()),
        }),
        info(&SandboxDeleted {
            tenant: "demo".to_owned(),
            id: "x-01jzzzzzzzzzzzzzzzzzzzzzzz".to_owned(),
        }),
        info(&GpuJobChanged {
            job: crate::gpu::GetJob::sample_reply(),
        }),
        info(&GpuWorkerRemoved {
            worker: crate::gpu::SetWorker::sample_request().worker,
        }),
        info(&GpuWorkerChanged {
            worker: crate::gpu::SetWorker::sample_reply(),
        }),
        info(&GpuSettingsChanged { enabled: true }),
        info(&SessionChanged {
            session: crate::workloads::GetSession::sample_reply(),
        }),
    ];
    list.extend(
        crate::workloads::Report::sample_request()
            .denials
            .into_iter()
            .map(|denial| {
                info(&EgressDenied {
                    tenant: "demo".to_owned(),
                    denial,
                })
            }),
    );
    list.extend(
        crate::workloads::ListHosts::sample_reply()
            .into_iter()
            .map(|host| info(&HostChanged { host })),
    );
    list.extend(
        crate::ippool::List::sample_reply()
            .into_iter()
            .map(|address| info(&AddressChanged { address })),
    );
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_events_is_checked_in() {
        let now = serde_json::to_string_pretty(&events()).expect("plain data") + "\n";
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("events.json");
        if std::env::var_os("NIMBUS_GENERATE").is_some() {
            std::fs::write(&path, &now).expect("the source tree is writable");
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == now,
            "proto/events.json is not what the code says: run `make generate`, and read the difference as a change of the contract"
        );
    }
}
