//! The one stack that every request passes, outermost first: id, trace, panic guard, head limits,
//! rate, origin, query names, time limit.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use nimbus_errors::{Code, Fault};
use nimbus_model::RequestId;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use crate::access::{Kind, Origin, Peer, Presented, box_token, check_origin, for_machines};
use crate::config::limits::{HEADER_BYTES, OPERATION, REQUEST};
use crate::envelope::{Answer, ApiError, Face, answering};
use crate::proxy::Foreign;
use crate::state::App;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Only what this server serves itself; pages are never framed.
const POLICY: &str = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
/// Routes that answer when an operation is done, or take a body of any length.
const WAITING: [&str; 14] = [
    "/api/vms",
    "/api/vms/{id}",
    "/api/vms/{id}/start",
    "/api/vms/{id}/shutdown",
    "/api/vms/{id}/stop",
    "/api/vms/{id}/reboot",
    "/api/tenants/{tenant}/sandboxes/{id}/exec",
    "/api/tenants/{tenant}/sandboxes/{id}/files/content",
    "/api/tenants/{tenant}/sandboxes/{id}/files/archive",
    "/api/tenants/{tenant}/sandboxes/{id}/proxy/{port}/{*path}",
    "/api/sessions/{id}/channels/files/content",
    "/api/sessions/{id}/channels/files/archive",
    "/p/{port}/{token}/{*path}",
    "/api/gpu/v1/{*path}",
];
/// What boxes with GPUs say.
const BOXES: &str = "/api/gpu/worker/";
/// Routes that say nothing about where time goes.
const UNTRACED: [&str; 5] = ["/health", "/ready", "/metrics", "/api/health", "/api/events"];

/// The stack as one middleware.
pub(crate) async fn pass(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let begin = Instant::now();
    let id = RequestId::fresh();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("", MatchedPath::as_str);
    let peer = request.extensions().get::<Peer>().copied();
    let origin = peer.map(|peer| Origin::of(peer, request.headers(), &app.config));
    let is_api = request.uri().path().starts_with("/api/") || request.uri().path() == "/api";
    let face = Face::of_request(request.uri().path(), request.headers());
    let span = span_of(&method, route, id);

    let presented = Presented::of(request.headers());
    let limit = if method != Method::GET && WAITING.contains(&route) {
        OPERATION + REQUEST
    } else {
        REQUEST
    };
    let work = async {
        let origin =
            origin.ok_or_else(|| ApiError::new(Code::ServiceInternal, "the connection has no address"))?;
        check_head(&request)?;
        check_machine(&presented, request.uri().path())?;
        if is_api {
            check_rate(&app, &presented, origin, &request)?;
            let (parts, body) = request.into_parts();
            check_origin(&parts, &presented)?;
            request = Request::from_parts(parts, body);
        }
        check_parameters(&app, &method, route, request.uri().query())?;
        request.extensions_mut().insert(presented);
        request.extensions_mut().insert(origin);
        within(limit, next.run(request)).await
    };
    let mut response = guarded(id, face, work).instrument(span.clone()).await;

    let https = origin.is_some_and(|origin| origin.https);
    if response.extensions().get::<Foreign>().is_some() {
        seal_foreign(response.headers_mut(), id);
    } else {
        seal(response.headers_mut(), id, is_api, https);
    }
    let (status, took) = (response.status().as_u16(), begin.elapsed());
    let template = if route.is_empty() { "other" } else { route };
    app.metrics.http(method.as_str(), template, status, took);
    finish(&span, &method, template, status, took);
    response
}

/// The answer, also when making it fails or panics.
async fn guarded(id: RequestId, face: Face, work: impl Future<Output = Answer<Response>>) -> Response {
    let outcome = AssertUnwindSafe(answering(id, face, work)).catch_unwind().await;
    match outcome.unwrap_or_else(|panic| Err(report(&*panic))) {
        Ok(response) => response,
        Err(error) => answering(id, face, async { error.into_response() }).await,
    }
}

fn span_of(method: &Method, route: &str, id: RequestId) -> Span {
    if route.is_empty() || UNTRACED.contains(&route) {
        return Span::none();
    }
    tracing::info_span!(
        "request", otel.kind = "server", otel.name = %format_args!("{method} {route}"), otel.status_code = Empty,
        http.request.method = %method, http.route = route, http.response.status_code = Empty,
        request.id = %id, user.id = Empty
    )
}

fn finish(span: &Span, method: &Method, route: &str, status: u16, took: Duration) {
    span.record("http.response.status_code", status);
    if status >= 500 {
        span.record("otel.status_code", "ERROR");
    }
    let _entered = span.enter();
    let ms = took.as_secs_f64() * 1000.0;
    // What changes something is told; what only reads would drown it.
    if status >= 500 || !matches!(*method, Method::GET | Method::HEAD) {
        tracing::info!(
            http.status = status,
            duration_ms = ms,
            "{method} {route} answered {status}"
        );
    } else {
        tracing::debug!(
            http.status = status,
            duration_ms = ms,
            "{method} {route} answered {status}"
        );
    }
}

async fn within(limit: Duration, answer: impl Future<Output = Response>) -> Answer<Response> {
    match tokio::time::timeout(limit, answer).await {
        Ok(response) => Ok(response),
        Err(_) => Err(ApiError::new(
            Code::ServiceTimeout,
            format!("the request took longer than {} s", limit.as_secs()),
        )),
    }
}

fn report(panic: &(dyn Any + Send)) -> ApiError {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(cause = text.unwrap_or("unknown"), "a handler panicked");
    ApiError::new(Code::ServiceInternal, Code::ServiceInternal.entry().meaning)
}

fn check_head(request: &Request) -> Answer<()> {
    let headers = request
        .headers()
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum::<usize>();
    let target = request
        .uri()
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    if headers + target <= HEADER_BYTES {
        return Ok(());
    }
    let fault = Fault::new(
        Code::OpHeadersTooLarge,
        format!("address and headers have more than {HEADER_BYTES} bytes"),
    );
    Err(fault
        .with_detail(&serde_json::json!({ "limitBytes": HEADER_BYTES }))
        .into())
}

/// The token inside a machine opens what is for machines, whatever else its owner may do.
fn check_machine(presented: &Presented, path: &str) -> Answer<()> {
    match presented {
        Presented::Credential(credential) if credential.kind == Kind::Machine => for_machines(path),
        _ => Ok(()),
    }
}

/// A sender we know pays for themselves, everybody else for their address.
fn check_rate(app: &App, presented: &Presented, origin: Origin, request: &Request) -> Answer<()> {
    if request.uri().path().starts_with(BOXES)
        && let Some((_, digest)) = box_token(request.headers())
    {
        return Ok(app.throttle.gpu_box(&digest, origin.client)?);
    }
    let known = match presented {
        Presented::Credential(credential) => app.principals.known(credential),
        Presented::Nothing | Presented::Malformed => None,
    };
    match known {
        // The installation's own token: quotas of tenants bound what it can do, and benchmarks use it.
        Some(principal) if principal.identity.is_operator() => {}
        Some(principal) => app.throttle.user(principal.identity.user)?,
        None => app.throttle.address(origin.client)?,
    }
    Ok(())
}

/// Refuses query parameters that the route's documentation does not name.
fn check_parameters(app: &App, method: &Method, route: &str, query: Option<&str>) -> Answer<()> {
    let Some(query) = query.filter(|query| !query.is_empty()) else {
        return Ok(());
    };
    let documented = if method == Method::HEAD {
        Method::GET
    } else {
        method.clone()
    };
    let Some(names) = app.parameters.get(&(documented, route.to_owned())) else {
        return Ok(());
    };
    for (name, _) in url::form_urlencoded::parse(query.as_bytes()) {
        if !names.iter().any(|known| *known == name) {
            let name: String = name.chars().take(64).collect();
            return Err(ApiError::field(
                &name,
                format!("{name}: there is no such query parameter"),
            ));
        }
    }
    Ok(())
}

/// What even an answer of a sandbox gets: its address may hold the token of a link.
fn seal_foreign(headers: &mut HeaderMap, id: RequestId) {
    if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
}

fn seal(headers: &mut HeaderMap, id: RequestId, is_api: bool, https: bool) {
    if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
        headers.insert(REQUEST_ID, id);
    }
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if https {
        headers.insert(
            header::STRICT_TRANSPORT_SECURITY,
            HeaderValue::from_static("max-age=31536000"),
        );
    }
    if is_api && !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_internal_error_of_its_request_and_says_nothing_of_its_cause() {
        let id = RequestId::fresh();
        let response = guarded(id, Face::Machines, async { panic!("the password is hunter2") }).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(!text.contains("hunter2"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["fault"]["code"], "service.internal");
        assert_eq!(json["fault"]["requestId"], id.to_string());
    }
}
