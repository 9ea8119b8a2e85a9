//! Every method of the bus, as data: for the snapshot, the docs and the grants.

use nimbus_bus::{Access, Method, Retry};
use serde::Serialize;

use crate::{agent, auth, gpu, ippool, machine, node, workloads};

/// One method, as `proto/bus.json` lists it.
#[derive(Clone, Debug, Serialize)]
pub struct MethodInfo {
    /// Where requests go.
    pub subject: String,
    /// Who answers.
    pub service: &'static str,
    /// The caller's limit in milliseconds.
    pub timeout_ms: u128,
    /// Whether a lost answer may be asked for again.
    pub retry: String,
    /// Who may call it.
    pub access: String,
    /// Rust name of the request.
    pub request: &'static str,
    /// Rust name of the reply.
    pub reply: &'static str,
    /// The sample request's bytes, in hexadecimal.
    pub request_bytes: String,
    /// The sample reply's bytes, in hexadecimal.
    pub reply_bytes: String,
}

fn info<M: Method>() -> MethodInfo {
    let retry = match M::RETRY {
        Retry::Never => "never",
        Retry::Read => "read",
        Retry::SameKey => "same key",
    };
    let access = match M::ACCESS {
        Access::Service => "service",
        Access::User => "user",
        Access::Admin => "admin",
    };
    let bytes = |encoded: Result<Vec<u8>, postcard::Error>| {
        encoded.map_or_else(|error| error.to_string(), hex::encode)
    };
    MethodInfo {
        subject: M::subject(),
        service: M::SERVICE,
        timeout_ms: M::TIMEOUT.as_millis(),
        retry: retry.to_owned(),
        access: access.to_owned(),
        request: std::any::type_name::<M::Request>(),
        reply: std::any::type_name::<M::Reply>(),
        request_bytes: bytes(postcard::to_stdvec(&M::sample_request())),
        reply_bytes: bytes(postcard::to_stdvec(&M::sample_reply())),
    }
}

macro_rules! registry {
    ($($method:ty),* $(,)?) => {
        /// Every method, in the order of the services.
        #[must_use]
        pub fn methods() -> Vec<MethodInfo> {
            vec![$(info::<$method>()),*]
        }

        #[cfg(test)]
        fn decode_samples() {
            $({
                let name = <$method as Method>::subject();
                let request = postcard::to_stdvec(&<$method as Method>::sample_request()).expect("samples encode");
                let (_, rest) = postcard::take_from_bytes::<<$method as Method>::Request>(&request).unwrap_or_else(|e| panic!("{name}: {e}"));
                assert!(rest.is_empty(), "{name}: {} bytes left over", rest.len());
                let reply = postcard::to_stdvec(&<$method as Method>::sample_reply()).expect("samples encode");
                let (_, rest) = postcard::take_from_bytes::<<$method as Method>::Reply>(&reply).unwrap_or_else(|e| panic!("{name}: {e}"));
                assert!(rest.is_empty(), "{name}: {} bytes left over", rest.len());
            })*
        }
    };
}

registry![
    auth::Register,
    auth::Login,
    auth::Logout,
    auth::ExchangeSession,
    auth::ExchangeToken,
    auth::Me,
    auth::ChangePassword,
    auth::ListTokens,
    auth::CreateToken,
    auth::RevokeToken,
    auth::ListSessions,
    auth::RevokeSession,
    auth::VerifyingKeys,
    auth::Setup,
    auth::ExchangeKey,
    auth::ExchangeAdmin,
    auth::RotateAdmin,
    auth::ListKeys,
    auth::CreateKey,
    auth::RevokeKey,
    auth::ForgetTenant,
    auth::CreateMachineToken,
    auth::RevokeMachineToken,
    auth::MintBus,
    auth::CreateJoinToken,
    auth::JoinHost,
    ippool::Reserve,
    ippool::Confirm,
    ippool::Allocate,
    ippool::Release,
    ippool::List,
    ippool::Status,
    ippool::Reconcile,
    machine::Create,
    machine::List,
    machine::Get,
    machine::Delete,
    machine::Power,
    machine::GetOperation,
    machine::ListOperations,
    machine::ClaimKey,
    machine::Reconcile,
    node::ListNodes,
    node::GetCatalog,
    node::Preview,
    node::ListGuests,
    node::GetStats,
    node::Health,
    workloads::CreateTenant,
    workloads::GetTenant,
    workloads::ListTenants,
    workloads::DeleteTenant,
    workloads::ConfigureTenant,
    workloads::CreateService,
    workloads::GetService,
    workloads::ListServices,
    workloads::UpdateService,
    workloads::DeleteService,
    workloads::StartService,
    workloads::StopService,
    workloads::RestartService,
    workloads::CreateSandbox,
    workloads::GetSandbox,
    workloads::ListSandboxes,
    workloads::StopSandbox,
    workloads::DeleteSandbox,
    workloads::ExtendSandbox,
    workloads::OpenSession,
    workloads::GetSession,
    workloads::ListSessions,
    workloads::CloseSession,
    workloads::PutSecret,
    workloads::ListSecrets,
    workloads::DeleteSecret,
    workloads::EnsureVolume,
    workloads::ListVolumes,
    workloads::DeleteVolume,
    workloads::Exec,
    workloads::Control,
    workloads::Open,
    workloads::OpenPreview,
    workloads::CreatePreview,
    workloads::CreateTicket,
    workloads::RedeemTicket,
    workloads::Beat,
    workloads::Report,
    workloads::ListHosts,
    workloads::ForgetHost,
    workloads::Offers,
    workloads::Count,
    gpu::Submit,
    gpu::ListJobs,
    gpu::GetJob,
    gpu::CancelJob,
    gpu::Prioritize,
    gpu::ReadLog,
    gpu::ReadArtifact,
    gpu::ListWorkers,
    gpu::SetWorker,
    gpu::GetSettings,
    gpu::PutSettings,
    gpu::CreatePairing,
    gpu::Unpair,
    gpu::CheckPairing,
    gpu::Register,
    gpu::WorkerBeat,
    gpu::WorkerClaim,
    gpu::WorkerLog,
    gpu::WorkerArtifact,
    gpu::WorkerFinish,
    gpu::GetInference,
    gpu::GetEndpoint,
    gpu::RecordUsage,
    gpu::GetUsage,
    gpu::GetInjection,
    gpu::Count,
    agent::Launch,
    agent::Stop,
    agent::Remove,
    agent::Extend,
    agent::Exec,
    agent::Control,
    agent::Open,
    agent::End,
    agent::Prepare,
    agent::RemoveVolume,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_is_read_back_whole() {
        decode_samples();
    }

    #[test]
    fn the_contract_is_the_one_that_is_checked_in() {
        let now = serde_json::to_string_pretty(&methods()).expect("plain data") + "\n";
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("bus.json");
        if std::env::var_os("NIMBUS_GENERATE").is_some() {
            std::fs::write(&path, &now).expect("the source tree is writable");
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == now,
            "proto/bus.json is not what the code says: run `make generate`, and read the difference as a change of the contract"
        );
    }

    fn page() -> String {
        use std::fmt::Write;
        let mut page = String::from(
            "# Methods of the bus\n\nGenerated from `proto` by `make generate`. Requests and replies are postcard; `proto/bus.json` pins their bytes.\n\n\
             | Subject | Limit | Repeat | For | Request | Reply |\n|---|---|---|---|---|---|\n",
        );
        let short = |name: &str| {
            let mut out = String::new();
            for part in name.split_inclusive(['<', '>', ',', '(', ')', ' ']) {
                out.push_str(part.rsplit("::").next().unwrap_or(part));
            }
            out
        };
        for method in methods() {
            let _ = writeln!(
                page,
                "| `{}` | {} ms | {} | {} | `{}` | `{}` |",
                method.subject,
                method.timeout_ms,
                method.retry,
                method.access,
                short(method.request),
                short(method.reply)
            );
        }
        page.push_str("\n## Who may call what\n\n| Service | Serves | Calls | Publishes | Listens to |\n|---|---|---|---|---|\n");
        for service in crate::grants::SERVICES {
            let grants = crate::grants::of(service).expect("listed services have grants");
            let list = |items: &[String]| {
                items
                    .iter()
                    .map(|item| format!("`{item}`"))
                    .collect::<Vec<_>>()
                    .join("<br>")
            };
            let _ = writeln!(
                page,
                "| {service} | {} | {} | {} | {} |",
                list(&grants.serves),
                list(&grants.calls),
                list(&grants.events_publish),
                list(&grants.events_subscribe)
            );
        }
        page
    }

    #[test]
    fn the_page_of_the_bus_is_checked_in() {
        let now = page();
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/bus.md");
        if std::env::var_os("NIMBUS_GENERATE").is_some() {
            std::fs::write(&path, &now).expect("the source tree is writable");
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == now,
            "docs/bus.md is not what the code says: run `make generate`"
        );
    }

    #[test]
    fn subjects_are_unique() {
        let mut subjects: Vec<_> = methods().into_iter().map(|m| m.subject).collect();
        subjects.sort();
        let before = subjects.len();
        subjects.dedup();
        assert_eq!(before, subjects.len());
    }
}
