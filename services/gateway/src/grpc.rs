//! gRPC on the same port: the verbs of Workloads for programs that prefer typed stubs.
//!
//! Credentials, rules and failures are those of the HTTP routes: a call becomes the same call on the
//! bus, and a refusal's status carries `google.rpc.ErrorInfo` with the catalogue's code as its reason.

mod attach;
mod from_wire;
mod sandboxes;
mod services;
mod sessions;
mod to_wire;

use std::sync::Arc;

use axum::Router;
use nimbus_bus::Key;
use nimbus_errors::{Code, Fault};
use tonic::service::Routes;
use tonic::{Request, Status};
use tonic_types::{ErrorDetail, ErrorInfo, RetryInfo, StatusExt};

use crate::access::Presented;
use crate::envelope::request_id;
use crate::principals::Principal;
use crate::state::App;

/// The types and traits that the build makes of `proto/nimbus/v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::large_futures,
    reason = "generated"
)]
pub(crate) mod wire {
    tonic::include_proto!("nimbus.v1");
}

/// The same as descriptors, for reflection.
const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/nimbus.v1.bin"));

/// Who a domain of `google.rpc.ErrorInfo` belongs to.
const DOMAIN: &str = "nimbus";

/// The routes of every gRPC service, with health (grpc.health.v1) and reflection.
pub(crate) fn router(app: &App) -> Router {
    let server = Server { app: app.clone() };
    let (_, health) = tonic_health::server::health_reporter();
    let mut routes = Routes::builder();
    routes
        .add_service(wire::sandboxes_server::SandboxesServer::new(server.clone()))
        .add_service(wire::services_server::ServicesServer::new(server.clone()))
        .add_service(wire::sessions_server::SessionsServer::new(server))
        .add_service(health);
    // Both versions: tools of today ask for v1, most libraries still for v1alpha.
    let reflection =
        || tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS);
    match (reflection().build_v1(), reflection().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => {
            routes.add_service(v1).add_service(v1alpha);
        }
        // Stubs made from the files work without it.
        (Err(error), _) | (_, Err(error)) => tracing::warn!(%error, "there is no gRPC reflection"),
    }
    routes.routes().into_axum_router()
}

/// Answers gRPC calls by calls on the bus.
#[derive(Clone)]
pub(crate) struct Server {
    app: App,
}

impl Server {
    /// Who calls.
    async fn principal<T>(&self, request: &Request<T>) -> Result<Arc<Principal>, Status> {
        let headers = request.metadata().clone().into_headers();
        let Presented::Credential(credential) = Presented::of(&headers) else {
            return Err(status(&Fault::new(
                Code::AuthUnauthorized,
                "the call has no credential that can be read: send authorization or x-nimbus-api-key",
            )));
        };
        self.app
            .principals
            .find(&credential)
            .await
            .map_err(|fault| status(&fault))
    }
}

/// The key of a call that changes something: the caller's own, or one that is good for this call.
fn key(given: &str) -> Key {
    if given.is_empty() {
        Key::of(request_id())
    } else {
        Key::new(given)
    }
}

/// A failure as gRPC says it.
pub(crate) fn status(fault: &Fault) -> Status {
    let mut details = vec![ErrorDetail::from(ErrorInfo::new(
        fault.code.clone(),
        DOMAIN,
        facts(fault),
    ))];
    if fault.retryable {
        details.push(RetryInfo::new(Some(std::time::Duration::from_millis(250))).into());
    }
    Status::with_error_details_vec(grpc_code(fault), fault.message.clone(), details)
}

/// The detail's members as texts.
fn facts(fault: &Fault) -> std::collections::HashMap<String, String> {
    let detail = fault
        .detail
        .as_deref()
        .and_then(|text| serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).ok());
    detail
        .unwrap_or_default()
        .into_iter()
        .map(|(name, value)| match value {
            serde_json::Value::String(text) => (name, text),
            other => (name, other.to_string()),
        })
        .collect()
}

/// The code of google.rpc.Code that clients act on; the catalogue's HTTP status decides.
fn grpc_code(fault: &Fault) -> tonic::Code {
    match Code::find(&fault.code).map(|code| (code, code.entry().http_status)) {
        Some((Code::OpAlreadyExists, _)) => tonic::Code::AlreadyExists,
        Some((_, 400 | 413 | 415 | 422)) => tonic::Code::InvalidArgument,
        Some((_, 401)) => tonic::Code::Unauthenticated,
        Some((_, 403)) => tonic::Code::PermissionDenied,
        Some((_, 404)) => tonic::Code::NotFound,
        Some((_, 408)) => tonic::Code::Cancelled,
        Some((_, 409)) => tonic::Code::FailedPrecondition,
        Some((_, 412)) => tonic::Code::Aborted,
        Some((_, 429)) => tonic::Code::ResourceExhausted,
        Some((_, 503)) => tonic::Code::Unavailable,
        Some((_, 504)) => tonic::Code::DeadlineExceeded,
        Some((_, 501)) => tonic::Code::Unimplemented,
        Some(_) => tonic::Code::Internal,
        None => tonic::Code::Unknown,
    }
}

/// A value that cannot be what it should be.
fn invalid(field: &str, message: impl std::fmt::Display) -> Status {
    let fault = Fault::new(Code::OpInvalidInput, format!("{field}: {message}"))
        .with_detail(&serde_json::json!({ "field": field }));
    status(&fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_catalogue_has_a_grpc_code() {
        for code in Code::all() {
            let fault = Fault::new(code, "x");
            assert_ne!(grpc_code(&fault), tonic::Code::Unknown, "{}", fault.code);
            assert_ne!(grpc_code(&fault), tonic::Code::Ok, "{}", fault.code);
        }
    }

    #[test]
    fn a_status_carries_the_code_and_its_facts() {
        let fault = Fault::new(Code::OpPreconditionFailed, "stale")
            .with_detail(&serde_json::json!({ "currentGeneration": 2, "kind": "service" }));
        let status = status(&fault);
        assert_eq!(status.code(), tonic::Code::Aborted);
        let info = status.get_details_error_info().expect("an ErrorInfo");
        assert_eq!(info.reason, "op.precondition_failed");
        assert_eq!(
            info.metadata.get("currentGeneration").map(String::as_str),
            Some("2")
        );
        assert_eq!(info.metadata.get("kind").map(String::as_str), Some("service"));
    }

    #[test]
    fn reflection_knows_every_service() {
        let set = <prost_types::FileDescriptorSet as prost::Message>::decode(DESCRIPTORS)
            .expect("a descriptor set");
        let names: Vec<String> = set
            .file
            .iter()
            .flat_map(|file| file.service.iter().map(|service| service.name().to_owned()))
            .collect();
        assert_eq!(names, ["Sandboxes", "Services", "Sessions"]);
    }
}
