//! From what the bus carries to what clients get.

use nimbus_model::Timestamp;
use nimbus_proto::workloads as bus;

use super::wire;

fn at(time: Timestamp) -> prost_types::Timestamp {
    let micros = time.micros();
    prost_types::Timestamp {
        seconds: micros.div_euclid(1_000_000),
        nanos: i32::try_from(micros.rem_euclid(1_000_000) * 1000).unwrap_or_default(),
    }
}

const fn lifecycle(state: bus::Lifecycle) -> wire::Lifecycle {
    match state {
        bus::Lifecycle::Starting => wire::Lifecycle::Starting,
        bus::Lifecycle::Ready => wire::Lifecycle::Ready,
        bus::Lifecycle::NotReady => wire::Lifecycle::NotReady,
        bus::Lifecycle::Stopping => wire::Lifecycle::Stopping,
        bus::Lifecycle::Stopped => wire::Lifecycle::Stopped,
        bus::Lifecycle::Failed => wire::Lifecycle::Failed,
        bus::Lifecycle::Declared => wire::Lifecycle::Declared,
    }
}

fn name(value: impl Into<&'static str>) -> String {
    value.into().to_owned()
}

fn conditions(list: Vec<bus::Condition>) -> Vec<wire::Condition> {
    list.into_iter()
        .map(|condition| wire::Condition {
            kind: name(condition.kind),
            status: name(condition.status),
            reason: condition.reason,
            message: condition.message,
            observed_generation: condition.observed_generation,
            last_transition: Some(at(condition.last_transition)),
        })
        .collect()
}

fn endpoints(list: Vec<bus::Endpoint>) -> Vec<wire::Endpoint> {
    list.into_iter()
        .map(|endpoint| wire::Endpoint {
            name: endpoint.name,
            protocol: name(endpoint.protocol),
            host: endpoint.host,
            port: u32::from(endpoint.port),
        })
        .collect()
}

impl From<bus::Sandbox> for wire::Sandbox {
    fn from(sandbox: bus::Sandbox) -> Self {
        let profile = match sandbox.profile {
            bus::Profile::Worker => wire::Profile::Worker,
            bus::Profile::Desktop => wire::Profile::Desktop,
        };
        let image = match sandbox.spec.root {
            bus::Root::Image { reference } => reference,
            bus::Root::Operator { .. } => String::new(),
        };
        let status = sandbox.status;
        Self {
            tenant: sandbox.tenant,
            id: sandbox.id,
            resource_version: sandbox.resource_version,
            created_at: Some(at(sandbox.created_at)),
            updated_at: Some(at(sandbox.updated_at)),
            labels: sandbox.labels.into_iter().collect(),
            profile: profile.into(),
            image,
            status: Some(wire::SandboxStatus {
                lifecycle: lifecycle(status.lifecycle).into(),
                readiness: name(status.readiness),
                health: name(status.health),
                endpoints: endpoints(status.endpoints),
                exit_code: status.exit.map(|exit| exit.code),
                out_of_memory: status.exit.is_some_and(|exit| exit.out_of_memory),
                expires_at: status.expires_at.map(at),
                image_digest: status.image_digest.unwrap_or_default(),
                start: status.start.map(name).unwrap_or_default(),
                started_after_us: status.started_after_us.unwrap_or_default(),
                host: status.host.unwrap_or_default(),
                restarts: status.restarts,
                conditions: conditions(status.conditions),
            }),
        }
    }
}

impl From<bus::Service> for wire::Service {
    fn from(service: bus::Service) -> Self {
        let backend = match service.backend {
            bus::ShownBackend::Sandbox(_) => "sandbox".to_owned(),
            bus::ShownBackend::BuiltIn(_) => "builtIn".to_owned(),
            bus::ShownBackend::External { .. } => "external".to_owned(),
            bus::ShownBackend::Redacted(kind) => kind,
        };
        let status = service.status;
        Self {
            tenant: service.tenant,
            name: service.name,
            uid: service.uid,
            generation: service.generation,
            resource_version: service.resource_version,
            created_at: Some(at(service.created_at)),
            updated_at: Some(at(service.updated_at)),
            labels: service.labels.into_iter().collect(),
            backend,
            status: Some(wire::ServiceStatus {
                lifecycle: lifecycle(status.lifecycle).into(),
                readiness: name(status.readiness),
                health: name(status.health),
                sandbox_id: status.sandbox.unwrap_or_default(),
                restarts: status.restarts,
                observed_generation: status.observed_generation,
                endpoints: endpoints(status.endpoints),
                conditions: conditions(status.conditions),
            }),
        }
    }
}

impl From<bus::WorkSession> for wire::Session {
    fn from(session: bus::WorkSession) -> Self {
        Self {
            tenant: session.tenant,
            id: session.id,
            generation: session.generation,
            created_at: Some(at(session.created_at)),
            expires_at: Some(at(session.expires_at)),
            channels: session.channels.into_iter().map(name).collect(),
            state: name(session.state),
            closed_at: session.closed_at.map(at),
            close_reason: session.close_reason.unwrap_or_default(),
            conditions: conditions(session.conditions),
        }
    }
}

impl From<bus::ExecReply> for wire::ExecResponse {
    fn from(reply: bus::ExecReply) -> Self {
        Self {
            command_id: reply.command,
            exit_code: reply.code,
            signal: reply.signal,
            timed_out: reply.timed_out,
            stdout: reply.stdout,
            stderr: reply.stderr,
            truncated: reply.truncated,
        }
    }
}
