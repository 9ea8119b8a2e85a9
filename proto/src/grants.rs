//! Who may use what on the bus. One table; credentials are minted from it.

use nimbus_bus::{Event, Grants, Method, Streams, Work};
use nimbus_gpu_wire::{JOBS_STREAM, subject};
use nimbus_model::Hostname;

use crate::{agent, auth, event, gpu, ippool, machine, node, work, workloads};

/// The services that speak on the bus.
pub const SERVICES: &[&str] = &[
    "gateway",
    "auth",
    "ippool",
    "provisioner",
    "workloads",
    "gpu-scheduler",
];

fn published<E: Event>() -> String {
    format!("nimbus.v1.event.{}.{}.>", E::DOMAIN, E::KIND)
}

/// What `service` may do on the bus; `None` for a name that is not a service.
///
/// | service | calls | publishes | listens to |
/// |---|---|---|---|
/// | gateway | the whole public surface of auth, ippool, provisioner and workloads | – | all events |
/// | auth | – | user, credential | credential revoked |
/// | ippool | auth's verifying keys | address | user signed in, credential revoked |
/// | workloads | every agent's methods; auth's verifying keys | tenant, sandbox, service, session, egress, host | credential revoked, its own |
/// | provisioner | ippool's reserve, confirm, allocate, release, status; auth's verifying keys and machine tokens; gpu's injection | operation, machine | credential revoked |
/// | gpu-scheduler | auth's verifying keys and credentials for the bus | gpu-job, gpu-worker, gpu-settings; assignments, words to boxes | credential revoked; requests of boxes |
#[must_use]
pub fn of(service: &str) -> Option<Grants> {
    let keys = auth::VerifyingKeys::subject();
    Some(match service {
        "gateway" => Grants {
            serves: vec![],
            calls: vec![
                auth::Register::subject(),
                auth::Login::subject(),
                auth::Logout::subject(),
                auth::ExchangeSession::subject(),
                auth::ExchangeToken::subject(),
                auth::Me::subject(),
                auth::ChangePassword::subject(),
                auth::ListTokens::subject(),
                auth::CreateToken::subject(),
                auth::RevokeToken::subject(),
                auth::ListSessions::subject(),
                auth::RevokeSession::subject(),
                auth::Setup::subject(),
                auth::ExchangeKey::subject(),
                auth::ExchangeAdmin::subject(),
                auth::RotateAdmin::subject(),
                auth::ListKeys::subject(),
                auth::CreateKey::subject(),
                auth::RevokeKey::subject(),
                auth::ForgetTenant::subject(),
                auth::CreateJoinToken::subject(),
                auth::JoinHost::subject(),
                keys,
                ippool::List::subject(),
                ippool::Status::subject(),
                ippool::Reconcile::subject(),
                machine::Create::subject(),
                machine::List::subject(),
                machine::Get::subject(),
                machine::Delete::subject(),
                machine::Power::subject(),
                machine::GetOperation::subject(),
                machine::ListOperations::subject(),
                machine::ClaimKey::subject(),
                machine::Reconcile::subject(),
                node::ListNodes::subject(),
                node::GetCatalog::subject(),
                node::Preview::subject(),
                node::ListGuests::subject(),
                node::GetStats::subject(),
                node::Health::subject(),
                workloads::CreateTenant::subject(),
                workloads::GetTenant::subject(),
                workloads::ListTenants::subject(),
                workloads::DeleteTenant::subject(),
                workloads::ConfigureTenant::subject(),
                workloads::CreateService::subject(),
                workloads::GetService::subject(),
                workloads::ListServices::subject(),
                workloads::UpdateService::subject(),
                workloads::DeleteService::subject(),
                workloads::StartService::subject(),
                workloads::StopService::subject(),
                workloads::RestartService::subject(),
                workloads::CreateSandbox::subject(),
                workloads::GetSandbox::subject(),
                workloads::ListSandboxes::subject(),
                workloads::StopSandbox::subject(),
                workloads::DeleteSandbox::subject(),
                workloads::ExtendSandbox::subject(),
                workloads::OpenSession::subject(),
                workloads::GetSession::subject(),
                workloads::ListSessions::subject(),
                workloads::CloseSession::subject(),
                workloads::PutSecret::subject(),
                workloads::ListSecrets::subject(),
                workloads::DeleteSecret::subject(),
                workloads::EnsureVolume::subject(),
                workloads::ListVolumes::subject(),
                workloads::DeleteVolume::subject(),
                workloads::Exec::subject(),
                workloads::Control::subject(),
                workloads::Open::subject(),
                workloads::OpenPreview::subject(),
                workloads::CreatePreview::subject(),
                workloads::CreateTicket::subject(),
                workloads::RedeemTicket::subject(),
                workloads::ListHosts::subject(),
                workloads::ForgetHost::subject(),
                workloads::Offers::subject(),
                workloads::Count::subject(),
                gpu::Submit::subject(),
                gpu::ListJobs::subject(),
                gpu::GetJob::subject(),
                gpu::CancelJob::subject(),
                gpu::Prioritize::subject(),
                gpu::ReadLog::subject(),
                gpu::ReadArtifact::subject(),
                gpu::ListWorkers::subject(),
                gpu::SetWorker::subject(),
                gpu::GetSettings::subject(),
                gpu::PutSettings::subject(),
                gpu::CreatePairing::subject(),
                gpu::Unpair::subject(),
                gpu::CheckPairing::subject(),
                gpu::Register::subject(),
                gpu::WorkerBeat::subject(),
                gpu::WorkerClaim::subject(),
                gpu::WorkerLog::subject(),
                gpu::WorkerArtifact::subject(),
                gpu::WorkerFinish::subject(),
                gpu::GetInference::subject(),
                gpu::GetEndpoint::subject(),
                gpu::RecordUsage::subject(),
                gpu::GetUsage::subject(),
                gpu::Count::subject(),
            ],
            events_publish: vec![],
            events_subscribe: vec!["nimbus.v1.event.>".to_owned()],
            work_push: vec![],
            work_pull: vec![],
            leases: false,
            streams: Streams::Client,
            surveys: true,
            ..Grants::default()
        },
        "auth" => Grants {
            serves: vec!["auth".to_owned()],
            calls: vec![keys],
            events_publish: vec![
                published::<event::UserRegistered>(),
                published::<event::UserSignedIn>(),
                published::<event::CredentialRevoked>(),
            ],
            events_subscribe: vec![published::<event::CredentialRevoked>()],
            work_push: vec![],
            work_pull: vec![],
            leases: true,
            ..Grants::default()
        },
        "ippool" => Grants {
            serves: vec!["ippool".to_owned()],
            calls: vec![keys],
            events_publish: vec![published::<event::AddressChanged>()],
            events_subscribe: vec![
                published::<event::UserSignedIn>(),
                published::<event::CredentialRevoked>(),
            ],
            work_push: vec![],
            work_pull: vec![],
            leases: true,
            ..Grants::default()
        },
        "provisioner" => Grants {
            serves: vec!["provisioner".to_owned()],
            calls: vec![
                keys,
                ippool::Reserve::subject(),
                ippool::Confirm::subject(),
                ippool::Allocate::subject(),
                ippool::Release::subject(),
                ippool::Status::subject(),
                auth::CreateMachineToken::subject(),
                auth::RevokeMachineToken::subject(),
                gpu::GetInjection::subject(),
            ],
            events_publish: vec![
                published::<event::OperationProgressed>(),
                published::<event::MachineCreated>(),
                published::<event::MachineChanged>(),
                published::<event::MachineDeleted>(),
            ],
            events_subscribe: vec![published::<event::CredentialRevoked>()],
            work_push: vec![work::Operate::QUEUE.to_owned()],
            work_pull: vec![work::Operate::QUEUE.to_owned()],
            leases: true,
            ..Grants::default()
        },
        "workloads" => Grants {
            serves: vec!["workloads".to_owned()],
            calls: vec![
                keys,
                agent::Launch::subject(),
                agent::Stop::subject(),
                agent::Remove::subject(),
                agent::Extend::subject(),
                agent::Exec::subject(),
                agent::Control::subject(),
                agent::Open::subject(),
                agent::End::subject(),
                agent::Prepare::subject(),
                agent::RemoveVolume::subject(),
            ],
            events_publish: vec![
                "nimbus.v1.event.tenant.>".to_owned(),
                "nimbus.v1.event.sandbox.>".to_owned(),
                "nimbus.v1.event.service.>".to_owned(),
                "nimbus.v1.event.session.>".to_owned(),
                "nimbus.v1.event.egress.>".to_owned(),
                "nimbus.v1.event.host.>".to_owned(),
            ],
            events_subscribe: vec![
                published::<event::CredentialRevoked>(),
                "nimbus.v1.event.tenant.>".to_owned(),
                "nimbus.v1.event.service.>".to_owned(),
                "nimbus.v1.event.sandbox.>".to_owned(),
                "nimbus.v1.event.session.>".to_owned(),
            ],
            leases: true,
            ..Grants::default()
        },
        "gpu-scheduler" => Grants {
            serves: vec!["gpu".to_owned()],
            calls: vec![keys, auth::MintBus::subject()],
            events_publish: vec![
                "nimbus.v1.event.gpu-job.>".to_owned(),
                "nimbus.v1.event.gpu-worker.>".to_owned(),
                "nimbus.v1.event.gpu-settings.>".to_owned(),
            ],
            events_subscribe: vec![published::<event::CredentialRevoked>()],
            leases: true,
            // Replicas tell each other by wakes that a job has more to read, or a box a job to fetch.
            says: vec![subject::control("*"), "nimbus.v1.gpu.wake.>".to_owned()],
            hears: subject::REQUESTS
                .into_iter()
                .chain(["nimbus.v1.gpu.wake.>"])
                .map(str::to_owned)
                .collect(),
            ..Grants::default().managing(JOBS_STREAM, subject::JOBS)
        },
        _ => return None,
    })
}

/// What the agent of one host may do on the bus: answer for that host, take its streams, and tell `workloads`.
#[must_use]
pub fn agent(host: &Hostname) -> Grants {
    Grants {
        hosts: vec![host.clone()],
        calls: vec![workloads::Beat::subject(), workloads::Report::subject()],
        streams: Streams::Server,
        ..Grants::default()
    }
}

/// What the worker on one GPU box may do on the bus: take the jobs given to it and tell of them. Of other
/// boxes it hears nothing.
#[must_use]
pub fn worker(name: &Hostname) -> Grants {
    let name = name.as_str();
    Grants::default()
        .saying(&subject::beat(name))
        .saying(&subject::log(name, "*"))
        .saying(&subject::artifact(name, "*"))
        .saying(&subject::finish(name, "*"))
        .hearing(&subject::control(name))
        .pulling_from(JOBS_STREAM, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_has_grants_and_nobody_else() {
        for service in SERVICES {
            assert!(of(service).is_some(), "{service}");
        }
        assert!(of("stranger").is_none());
    }

    #[test]
    fn only_the_gateway_may_ask_auth_about_people() {
        for service in SERVICES.iter().filter(|s| **s != "gateway") {
            let calls = of(service).expect("listed").calls;
            assert!(
                calls
                    .iter()
                    .filter(|c| c.starts_with("nimbus.v1.rpc.auth."))
                    .all(|c| match *service {
                        "provisioner" if *c == auth::CreateMachineToken::subject() => true,
                        "provisioner" if *c == auth::RevokeMachineToken::subject() => true,
                        "gpu-scheduler" if *c == auth::MintBus::subject() => true,
                        _ => *c == auth::VerifyingKeys::subject(),
                    }),
                "{service}"
            );
        }
    }
}
