//! Models behind the gateway: requests of the OpenAI API are passed on to the inference endpoint, which may be a
//! box without any protection of its own.
//!
//! The caller's credential ends here; the endpoint gets the key that Nimbus holds. Bodies pass as they come, both
//! ways, event streams byte for byte; who leaves ends the work there. What was used is read from the bytes as they
//! pass ([`meter`]) and counted per person and model ([`ledger`]).

pub(crate) mod ledger;
mod meter;

use std::error::Error as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue,
    RETRY_AFTER, USER_AGENT,
};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use nimbus_errors::{Code, Fault};
use nimbus_proto::gpu::{Endpoint, GetEndpoint};
use tokio::sync::{Mutex, OnceCell};
use url::Url;

use ledger::{Bill, Ledger};
use meter::Meter;

use crate::envelope::{Answer, ApiError, OPENAI_ROOT};
use crate::extract::Signed;
use crate::state::App;

/// How long the endpoint may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// How long it may be silent: before its answer begins, and between two pieces of it.
const IDLE: Duration = Duration::from_secs(300);
/// How old what is known of the endpoint may be, should an event be lost.
const KNOWN: Duration = Duration::from_secs(5);
/// Largest request: pictures travel inside of messages.
const LARGEST: u64 = 32 * 1024 * 1024;

/// What may be asked for with `GET`; models also one by one.
const READS: [&str; 1] = ["models"];
/// What may be asked for with `POST`.
const ASKS: [&str; 4] = ["chat/completions", "completions", "embeddings", "responses"];

/// Headers that reach the endpoint: nothing that says who asks.
const TOWARDS: [HeaderName; 4] = [ACCEPT, CONTENT_TYPE, CONTENT_LENGTH, USER_AGENT];
/// Headers of its answer that reach the caller.
const BACK: [HeaderName; 4] = [CONTENT_TYPE, CONTENT_LENGTH, CONTENT_ENCODING, RETRY_AFTER];

/// The way to the inference endpoint.
#[derive(Default)]
pub(crate) struct Inference {
    client: OnceCell<reqwest::Client>,
    known: Mutex<Option<Known>>,
    /// Set by an event: what is known may be wrong.
    is_stale: AtomicBool,
    /// What was used and not told yet.
    pub(crate) ledger: Ledger,
}

struct Known {
    at: Instant,
    endpoint: Option<Arc<Endpoint>>,
}

impl Inference {
    /// What is known of the endpoint may have changed.
    pub(crate) fn forget(&self) {
        self.is_stale.store(true, Ordering::Release);
    }

    async fn endpoint(&self, app: &App) -> Result<Arc<Endpoint>, Fault> {
        let mut known = self.known.lock().await;
        let is_stale = self.is_stale.swap(false, Ordering::AcqRel);
        let fresh = known
            .as_ref()
            .is_some_and(|known| !is_stale && known.at.elapsed() < KNOWN);
        if !fresh {
            match app.ask::<GetEndpoint>(&()).await {
                Ok(endpoint) => {
                    *known = Some(Known {
                        at: Instant::now(),
                        endpoint: endpoint.map(Arc::new),
                    });
                }
                // Models answer also while the scheduler is away; where they are rarely changes.
                Err(fault) => {
                    let Some(known) = known.as_mut() else {
                        return Err(fault);
                    };
                    // For a while: else everybody would wait for the scheduler, one behind the other.
                    known.at = Instant::now();
                    tracing::debug!("the inference endpoint is taken from memory: {fault}");
                }
            }
        }
        known
            .as_ref()
            .and_then(|known| known.endpoint.clone())
            .ok_or_else(|| Fault::new(Code::GpuNotConfigured, "there is no inference endpoint"))
    }

    async fn client(&self) -> Result<&reqwest::Client, Fault> {
        let build = async || {
            // Most endpoints speak plain HTTP to their own network, which needs no roots; a host may have none.
            client().build().or_else(|error| {
                tracing::warn!(
                    "inference endpoints with TLS cannot be reached: {}",
                    nimbus_errors::chain(&error)
                );
                client().tls_certs_only([]).build()
            })
        };
        self.client.get_or_try_init(build).await.map_err(|error| {
            tracing::error!(
                "no client for the inference endpoint: {}",
                nimbus_errors::chain(&error)
            );
            Fault::new(Code::ServiceInternal, "requests to models cannot be made")
        })
    }
}

fn client() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .connect_timeout(CONNECT)
        .read_timeout(IDLE)
        .tcp_nodelay(true)
        // Inference servers close idle connections after seconds, and a request whose body passes as it
        // comes cannot be sent again when it meets one. A fresh connection costs less than a token.
        .pool_max_idle_per_host(0)
        // The endpoint is on the same network: a proxy of the environment would only get to see the key.
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
}

/// Passes a request on, and gives the answer.
pub(crate) async fn forward(app: &App, signed: &Signed, request: Request) -> Answer<Response> {
    let (parts, body) = request.into_parts();
    let path = allowed(&parts.method, parts.uri.path())?;
    let endpoint = app.inference.endpoint(app).await?;
    let url = target(&endpoint.base_url, path, parts.uri.query())?;
    let mut outgoing = app
        .inference
        .client()
        .await?
        .request(parts.method.clone(), url)
        .headers(only(&parts.headers, &TOWARDS));
    if let Some(key) = &endpoint.api_key {
        outgoing = outgoing.bearer_auth(key.reveal());
    }
    if parts.method == Method::POST {
        fits(&parts.headers)?;
        let limited = Limited::new(body, usize::try_from(LARGEST).unwrap_or(usize::MAX));
        outgoing = outgoing.body(reqwest::Body::wrap_stream(limited.into_data_stream()));
    }
    let answer = outgoing.send().await.map_err(|error| {
        if error.is_connect() {
            // It may have moved.
            app.inference.forget();
        }
        refused(error)
    })?;
    let status = answer.status();
    let headers = only(answer.headers(), &BACK);
    let is_json = is_kind(&headers, "application/json");
    if let Some(fault) = not_for_the_caller(status, is_json) {
        return Err(fault.into());
    }
    let is_stream = is_kind(&headers, "text/event-stream");
    let bill = (status.is_success() && parts.method == Method::POST).then(|| {
        let identity = &signed.principal.identity;
        Bill {
            user: identity.user,
            machine: identity.machine,
            model: endpoint.model.clone(),
        }
    });
    let pieces = Box::pin(answer.bytes_stream());
    let metered = Metered {
        pieces,
        bill: bill.map(|bill| (bill, Meter::new(is_stream))),
        app: app.clone(),
    };
    let mut response = (status, headers, metered.body()).into_response();
    if is_stream {
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
        // nginx would hold pieces back.
        headers.insert(
            HeaderName::from_static("x-accel-buffering"),
            HeaderValue::from_static("no"),
        );
    }
    Ok(response)
}

/// The path behind `/v1/`, if it is one that is passed on.
fn allowed<'a>(method: &Method, path: &'a str) -> Answer<&'a str> {
    let inner = path
        .strip_prefix(OPENAI_ROOT)
        .and_then(|rest| rest.strip_prefix('/'))
        .unwrap_or_default();
    let is_model = inner
        .strip_prefix("models/")
        .is_some_and(|model| !model.is_empty());
    let known = match *method {
        Method::GET | Method::HEAD => READS.contains(&inner) || is_model,
        Method::POST => ASKS.contains(&inner),
        _ => false,
    };
    if known {
        return Ok(inner);
    }
    Err(ApiError::new(
        Code::OpNotFound,
        format!(
            "{method} {OPENAI_ROOT}/{inner} is not passed on; there are {} and {}",
            READS.join(", "),
            ASKS.join(", ")
        ),
    ))
}

/// The address there.
fn target(base: &str, path: &str, query: Option<&str>) -> Answer<Url> {
    let wrong = || {
        ApiError::new(
            Code::GpuInferenceDown,
            "the address of the inference endpoint cannot be used",
        )
    };
    let base: Url = base.parse().map_err(|_| wrong())?;
    let root = format!("{}/v1/", base.path().trim_end_matches('/'));
    let mut url = base.clone();
    url.set_path(&format!("{root}{path}"));
    url.set_query(query);
    // A name of a model that climbs out of its folder would have been resolved here.
    if !matches!(url.scheme(), "http" | "https") || !url.path().starts_with(&root) {
        return Err(wrong());
    }
    if url.path() != format!("{root}{path}") {
        return Err(ApiError::field("path", "the path cannot be passed on"));
    }
    Ok(url)
}

fn only(headers: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    names
        .iter()
        .filter_map(|name| Some((name.clone(), headers.get(name)?.clone())))
        .collect()
}

fn is_kind(headers: &HeaderMap, kind: &str) -> bool {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    text.and_then(|text| text.split(';').next())
        .is_some_and(|text| text.trim().eq_ignore_ascii_case(kind))
}

fn fits(headers: &HeaderMap) -> Answer<()> {
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > LARGEST) {
        return Err(too_large());
    }
    Ok(())
}

fn too_large() -> ApiError {
    Fault::new(
        Code::OpPayloadTooLarge,
        format!("the body has more than {LARGEST} bytes"),
    )
    .with_detail(&serde_json::json!({ "limitBytes": LARGEST }))
    .into()
}

/// Answers that concern Nimbus and the endpoint, and would mislead the caller.
fn not_for_the_caller(status: StatusCode, is_json: bool) -> Option<Fault> {
    let down = |text: String| Some(Fault::new(Code::GpuInferenceDown, text));
    match status.as_u16() {
        401 | 403 => down("the inference endpoint refuses the key that Nimbus has for it".to_owned()),
        100..=199 | 300..=399 => down(format!(
            "the inference endpoint answered {status}, which is not an answer"
        )),
        500..=599 if !is_json => down(format!("the inference endpoint answered {status}")),
        _ => None,
    }
}

/// Why there is no answer.
fn refused(error: reqwest::Error) -> ApiError {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if inner.is::<LengthLimitError>() {
            return too_large();
        }
        cause = inner.source();
    }
    if error.is_body() {
        return ApiError::new(Code::OpInvalidInput, "the body broke off");
    }
    let text = if error.is_timeout() && !error.is_connect() {
        format!("the inference endpoint said nothing for {} s", IDLE.as_secs())
    } else {
        // Where it is concerns administrators only, who find it in the log.
        tracing::warn!(
            "the inference endpoint did not answer: {}",
            nimbus_errors::chain(&error)
        );
        "the inference endpoint does not answer".to_owned()
    };
    ApiError::new(Code::GpuInferenceDown, text)
}

/// The body of an answer on its way, and what it costs.
struct Metered<S> {
    pieces: Pin<Box<S>>,
    bill: Option<(Bill, Meter)>,
    app: App,
}

impl<S: Stream<Item = reqwest::Result<Bytes>> + Send + 'static> Metered<S> {
    fn body(self) -> Body {
        Body::from_stream(stream::try_unfold(self, |mut metered| async move {
            let Some(piece) = metered.pieces.next().await else {
                return Ok(None);
            };
            // The body breaks off, which every client notices.
            let piece = piece.map_err(reqwest::Error::without_url)?;
            if let Some((_, meter)) = &mut metered.bill {
                meter.feed(&piece);
            }
            Ok::<_, reqwest::Error>(Some((piece, metered)))
        }))
    }
}

impl<S> Drop for Metered<S> {
    /// The answer has ended, or its reader has left: what was made until then was used.
    fn drop(&mut self) {
        if let Some((bill, mut meter)) = self.bill.take() {
            self.app.inference.ledger.add(bill, meter.read());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_listed_is_passed_on() {
        let of = |method: Method, path: &str| allowed(&method, path).ok().map(str::to_owned);
        for (method, path, inner) in [
            (Method::GET, "/api/gpu/v1/models", Some("models")),
            (
                Method::GET,
                "/api/gpu/v1/models/org/name",
                Some("models/org/name"),
            ),
            (
                Method::POST,
                "/api/gpu/v1/chat/completions",
                Some("chat/completions"),
            ),
            (Method::GET, "/api/gpu/v1/chat/completions", None),
            (Method::POST, "/api/gpu/v1/models", None),
            (Method::GET, "/api/gpu/v1/models/", None),
            (Method::POST, "/api/gpu/v1/audio/speech", None),
            (Method::POST, "/api/gpu/v1/load_lora_adapter", None),
            (Method::POST, "/api/gpu/v1//chat/completions", None),
            (Method::DELETE, "/api/gpu/v1/models", None),
        ] {
            assert_eq!(of(method, path).as_deref(), inner, "{path}");
        }
    }

    #[test]
    fn a_host_without_any_certificates_reaches_plain_endpoints() {
        assert!(client().tls_certs_only([]).build().is_ok());
    }

    #[test]
    fn a_path_stays_below_v1() {
        let of = |base: &str, path: &str| target(base, path, Some("x=1")).ok().map(String::from);
        assert_eq!(
            of("http://10.0.0.9:8000", "models").as_deref(),
            Some("http://10.0.0.9:8000/v1/models?x=1")
        );
        assert_eq!(
            of("http://h/vllm/", "models/a%2Fb").as_deref(),
            Some("http://h/vllm/v1/models/a%2Fb?x=1")
        );
        for path in [
            "models/../../admin",
            "models/..",
            "models/%2e%2e/%2e%2e/admin",
            "models/./x",
        ] {
            assert_eq!(of("http://h", path), None, "{path}");
        }
        assert_eq!(of("ftp://h", "models"), None);
        assert_eq!(of("nonsense", "models"), None);
    }

    #[test]
    fn what_is_between_nimbus_and_the_endpoint_is_not_shown_as_the_callers_fault() {
        for (status, is_json, passes) in [
            (200, true, true),
            (400, true, true),
            (404, true, true),
            (429, false, true),
            (500, true, true),
            (401, true, false),
            (403, true, false),
            (302, false, false),
            (502, false, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(not_for_the_caller(status, is_json).is_none(), passes, "{status}");
        }
    }
}
