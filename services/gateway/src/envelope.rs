//! The shapes of answers.
//!
//! Machines and everything around them answer `{"success":true,"data":…}`, or
//! `{"success":false,"error":…,"fault":…}`. Tenants and what is in them answer the bare resource, or
//! `{"error":{…}}`; which of the two it is follows from the address, [`Face::of`]. What is asked of models fails in
//! the words of the OpenAI API, and scripts that ask for text get a line of it.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use nimbus_errors::{Code, Fault};
use nimbus_model::{Clock, RequestId, Timestamp};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::views::At;

tokio::task_local! {
    /// The request that this task answers.
    static REQUEST: (RequestId, Face);
}

/// Which shape answers have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Face {
    /// Wrapped, with `success`.
    Machines,
    /// Bare resources, failures under `error`.
    Workloads,
    /// What clients of the OpenAI API expect.
    OpenAi,
    /// A line of text, for shell scripts.
    Text,
}

/// Below which addresses answers are those of the OpenAI API.
pub(crate) const OPENAI_ROOT: &str = "/api/gpu/v1";
/// Below which addresses a client may ask for text.
const TEXT_ROOT: &str = "/api/gpu/";
/// Header of a line of text with the code that other faces have in the body.
const ERROR_CODE: HeaderName = HeaderName::from_static("nimbus-error-code");

impl Face {
    /// The shape of the answer to this request.
    pub(crate) fn of_request(path: &str, headers: &HeaderMap) -> Self {
        match Self::of(path) {
            Self::Machines if path.starts_with(TEXT_ROOT) && wants_text(headers) => Self::Text,
            face => face,
        }
    }

    /// The shape of answers below this address.
    pub(crate) fn of(path: &str) -> Self {
        let is_below = |root: &&str| {
            path.strip_prefix(*root)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if is_below(&OPENAI_ROOT) {
            return Self::OpenAi;
        }
        let is_workloads = ["/api/tenants", "/api/sessions", "/api/hosts", "/p"]
            .iter()
            .any(is_below);
        if is_workloads {
            Self::Workloads
        } else {
            Self::Machines
        }
    }
}

/// Whether the client asks for text before anything else.
pub(crate) fn wants_text(headers: &HeaderMap) -> bool {
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    accepted.is_some_and(|text| {
        let first = text.split([',', ';']).next().unwrap_or_default();
        first.trim().eq_ignore_ascii_case("text/plain")
    })
}

/// Runs `work` as the answer to the request `id`, which failures then name.
pub(crate) async fn answering<F: Future>(id: RequestId, face: Face, work: F) -> F::Output {
    REQUEST.scope((id, face), work).await
}

/// The id of the request that this task answers; a fresh one outside of a request.
pub(crate) fn request_id() -> RequestId {
    REQUEST
        .try_with(|(id, _)| *id)
        .unwrap_or_else(|_| RequestId::fresh())
}

/// A success.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Data<T> {
    /// Always true.
    pub success: bool,
    /// What was asked for.
    pub data: T,
}

impl<T> Data<T> {
    pub(crate) const fn of(data: T) -> Self {
        Self { success: true, data }
    }
}

impl<T: Serialize> IntoResponse for Data<T> {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}

/// One page of a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Page<T> {
    /// Always true.
    pub success: bool,
    /// The entries of this page.
    pub data: Vec<T>,
    /// What to give as `cursor` for the next page; null on the last one.
    pub next_cursor: Option<String>,
}

impl<T: Serialize> IntoResponse for Page<T> {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}

/// A failure.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Failure {
    /// Always false.
    pub success: bool,
    /// What went wrong, for people.
    pub error: String,
    /// What went wrong, for programs.
    pub fault: FaultView,
}

/// A failure of tenants and what is in them.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ErrorEnvelope {
    /// What went wrong.
    pub error: FaultView,
}

/// A failure as clients of the OpenAI API expect it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct OpenAiEnvelope {
    /// What went wrong.
    pub error: OpenAiError,
}

/// What went wrong, in the words of the OpenAI API.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct OpenAiError {
    /// For people.
    pub message: String,
    /// What kind of failure it is.
    #[serde(rename = "type")]
    #[schema(examples("invalid_request_error"))]
    pub kind: &'static str,
    /// The field that is wrong, if it is one.
    pub param: Option<String>,
    /// The code of the catalogue, `GET /api/errors`.
    pub code: String,
    /// To find the request in the server's log.
    #[serde(rename = "requestId")]
    pub request_id: String,
}

impl OpenAiError {
    fn of(fault: &Fault) -> Self {
        let detail = fault.detail_json();
        let field = detail.as_ref().and_then(|detail| detail.get("field")?.as_str());
        Self {
            message: fault.message.clone(),
            kind: match fault.entry().http_status {
                401 => "authentication_error",
                403 => "permission_error",
                429 => "rate_limit_error",
                400..=499 => "invalid_request_error",
                _ => "server_error",
            },
            param: field.map(str::to_owned),
            code: fault.code.clone(),
            request_id: request_id().to_string(),
        }
    }
}

/// A failure with its place in the catalogue (`GET /api/errors`).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct FaultView {
    /// Stable name.
    #[schema(examples("op.conflict"))]
    pub code: String,
    /// For people; may change between releases.
    pub message: String,
    /// To find the request in the server's log.
    #[serde(rename = "requestId")]
    pub request_id: String,
    /// When it happened.
    pub timestamp: At,
    /// `warning`, `error` or `fatal`.
    pub severity: String,
    /// Whether the same request can succeed later.
    pub retryable: bool,
    /// Facts for programs.
    #[schema(value_type = Option<Object>)]
    pub detail: Option<Value>,
    /// What can be done.
    pub remediation: Remediation,
}

/// What can be done about a failure.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Remediation {
    /// For programs.
    #[schema(examples("fix_request"))]
    pub action: String,
    /// For people.
    pub message: String,
}

impl FaultView {
    pub(crate) fn of(fault: &Fault, request_id: impl Into<String>, at: Timestamp) -> Self {
        let entry = fault.entry();
        Self {
            code: fault.code.clone(),
            message: fault.message.clone(),
            request_id: request_id.into(),
            timestamp: At(at),
            severity: entry.severity.as_str().to_owned(),
            retryable: fault.retryable,
            detail: fault.detail_json(),
            remediation: Remediation {
                action: entry.action.as_str().to_owned(),
                message: entry.remedy.to_owned(),
            },
        }
    }

    /// The fault as the answer to the request of this task.
    pub(crate) fn now(fault: &Fault) -> Self {
        Self::of(fault, request_id().to_string(), Clock::system().now())
    }
}

/// A failure on its way out. Boxed, so that results stay small.
#[derive(Debug)]
pub(crate) struct ApiError {
    fault: Box<Fault>,
    headers: HeaderMap,
}

pub(crate) type Answer<T> = Result<T, ApiError>;

impl ApiError {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Fault::new(code, message).into()
    }

    /// A value that cannot be, by the name of its field.
    pub(crate) fn field(field: &str, message: impl Into<String>) -> Self {
        Fault::new(Code::OpInvalidInput, message)
            .with_detail(&serde_json::json!({ "field": field }))
            .into()
    }

    /// No credential, or one that is not valid.
    pub(crate) fn unauthorized(message: &str) -> Self {
        Self::new(Code::AuthUnauthorized, message)
    }

    /// What went wrong.
    pub(crate) fn fault(&self) -> &Fault {
        &self.fault
    }
}

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> Self {
        let mut headers = HeaderMap::new();
        // Whoever refuses for a while says how long in the detail; people's tools read the header.
        let wait_ms = fault
            .detail_json()
            .and_then(|detail| detail.get("retryAfterMs").and_then(Value::as_u64));
        if let Some(ms) = wait_ms {
            headers.insert(RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000).max(1)));
        } else if matches!(fault.entry().http_status, 429 | 503) {
            headers.insert(RETRY_AFTER, HeaderValue::from(1));
        }
        Self {
            fault: Box::new(fault),
            headers,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.fault.entry().http_status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let view = FaultView::now(&self.fault);
        match REQUEST.try_with(|(_, face)| *face) {
            Ok(Face::Workloads) => {
                (status, self.headers, Json(ErrorEnvelope { error: view })).into_response()
            }
            Ok(Face::OpenAi) => {
                let error = OpenAiError::of(&self.fault);
                (status, self.headers, Json(OpenAiEnvelope { error })).into_response()
            }
            Ok(Face::Text) => {
                let line = format!("{}\n", crate::views::gpu::one_line(&self.fault.message));
                let mut response = (status, self.headers, line).into_response();
                if let Ok(code) = HeaderValue::from_str(&self.fault.code) {
                    response.headers_mut().insert(ERROR_CODE, code);
                }
                response
            }
            Ok(Face::Machines) | Err(_) => {
                let failure = Failure {
                    success: false,
                    error: self.fault.message.clone(),
                    fault: view,
                };
                (status, self.headers, Json(failure)).into_response()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_says_how_long_to_wait_becomes_a_header_in_whole_seconds() {
        let fault =
            Fault::new(Code::RateLimited, "slowly").with_detail(&serde_json::json!({ "retryAfterMs": 1200 }));
        let response = ApiError::from(fault).into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[RETRY_AFTER], "2");
    }

    #[tokio::test]
    async fn tenants_have_the_failures_of_their_own_face() {
        use http_body_util::BodyExt;
        for (path, key) in [
            ("/api/tenants", "error"),
            ("/api/tenants/demo/services", "error"),
            ("/p/x", "error"),
            ("/api/tenantsx", "fault"),
            ("/api/vms", "fault"),
        ] {
            let answer = async { ApiError::new(Code::OpConflict, "no").into_response() };
            let response = answering(RequestId::fresh(), Face::of(path), answer).await;
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let json: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(json[key]["code"], "op.conflict", "{path}");
        }
    }

    #[tokio::test]
    async fn models_and_scripts_have_the_failures_they_understand() {
        use http_body_util::BodyExt;
        let text = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("text/plain, */*"))]);
        let refuse = async |path: &str, headers: &HeaderMap| {
            let answer = async { ApiError::field("model", "no such\nmodel").into_response() };
            let face = Face::of_request(path, headers);
            let response = answering(RequestId::fresh(), face, answer).await;
            let code = response.headers().get(ERROR_CODE).cloned();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (code, String::from_utf8(body.to_vec()).unwrap())
        };
        let (_, body) = refuse("/api/gpu/v1/models", &HeaderMap::new()).await;
        let json: Value = serde_json::from_str(&body).unwrap();
        let error = &json["error"];
        assert_eq!(
            (
                error["type"].as_str(),
                error["param"].as_str(),
                error["code"].as_str()
            ),
            (
                Some("invalid_request_error"),
                Some("model"),
                Some("op.invalid_input")
            ),
            "{body}"
        );
        let (code, body) = refuse("/api/gpu/jobs", &text).await;
        assert_eq!(
            (code.unwrap().to_str().unwrap(), body.as_str()),
            ("op.invalid_input", "no such model\n")
        );
        // Only scripts ask for it, and only there is it to be had.
        assert_eq!(Face::of_request("/api/vms", &text), Face::Machines);
        assert_eq!(Face::of_request("/api/gpu/v1/models", &text), Face::OpenAi);
        assert_eq!(
            Face::of_request("/api/gpu/jobs", &HeaderMap::new()),
            Face::Machines
        );
    }

    #[test]
    fn a_code_of_a_newer_peer_is_answered_as_an_internal_error_under_its_own_name() {
        let fault = Fault {
            code: "machine.from_the_future".into(),
            message: "?".into(),
            detail: None,
            retryable: false,
        };
        let view = FaultView::now(&fault);
        assert_eq!(view.code, "machine.from_the_future");
        assert_eq!(
            ApiError::from(fault).into_response().status(),
            StatusCode::INTERNAL_SERVER_ERROR
        );
    }
}
