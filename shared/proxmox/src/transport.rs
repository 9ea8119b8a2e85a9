//! One request: encoding, retries, limits, errors, tracing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use backon::{ExponentialBuilder, Retryable as _};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use secrecy::ExposeSecret as _;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tracing::{Instrument as _, Span, field};

use crate::config::ProxmoxConfig;
use crate::encode;
use crate::error::ProxmoxError;
use crate::tls;

/// Longest answer that is read. The resources of ten thousand guests are about 6 MB.
const MAX_ANSWER: usize = 32 << 20;
/// PVE closes a connection after 5 s without a request; ours goes first, so that a change never
/// travels on a connection that is about to die.
const IDLE: Duration = Duration::from_secs(3);

/// A call before it is sent.
pub(crate) struct Call {
    method: Method,
    template: &'static str,
    path: String,
    node: String,
    parameters: Vec<(String, String)>,
    timeout: Option<Duration>,
}

impl Call {
    /// Fills the `{}` of `template` in order with encoded segments.
    pub(crate) fn new(method: Method, template: &'static str, segments: &[&str]) -> Self {
        let mut path = String::new();
        let mut segments_left = segments.iter();
        for part in template.split('/').skip(1) {
            path.push('/');
            if part.starts_with('{') {
                path.push_str(&encode::component(
                    segments_left.next().copied().unwrap_or_default(),
                ));
            } else {
                path.push_str(part);
            }
        }
        let node = if template.starts_with("/nodes/{node}") {
            segments.first().copied()
        } else {
            None
        };
        let node = node.unwrap_or_default().to_owned();
        Self {
            method,
            template,
            path,
            node,
            parameters: Vec::new(),
            timeout: None,
        }
    }

    /// Adds a parameter; it goes into the form of a POST or PUT and into the query otherwise.
    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.parameters.push((name.to_owned(), value.to_string()));
        self
    }

    /// Adds a parameter if there is a value.
    pub(crate) fn with_some(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Adds parameters.
    pub(crate) fn with_all(mut self, parameters: Vec<(String, String)>) -> Self {
        self.parameters.extend(parameters);
        self
    }

    /// Gives this call less time than the others.
    pub(crate) fn within(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    fn name(&self) -> String {
        format!("{} {}", self.method, self.template)
    }
}

/// The connection pool, the address and the token.
pub(crate) struct Transport {
    http: reqwest::Client,
    base: String,
    timeout: Duration,
}

impl Transport {
    pub(crate) fn new(config: &ProxmoxConfig) -> Result<Self, ProxmoxError> {
        let refuse = |what, reason: String| ProxmoxError::Config { what, reason };
        if !matches!(config.url.scheme(), "http" | "https") || config.url.host_str().is_none() {
            return Err(refuse(
                "address",
                format!("expected https://host:8006, got {}", config.url),
            ));
        }
        let base = config.url.as_str().trim_end_matches('/');
        let base = base.strip_suffix("/api2/json").unwrap_or(base);

        let token = format!(
            "PVEAPIToken={}={}",
            config.token_id,
            config.token_secret.expose_secret()
        );
        if !config.token_id.contains('!') {
            return Err(refuse(
                "token id",
                format!("expected user@realm!name, got {:?}", config.token_id),
            ));
        }
        let mut token = HeaderValue::from_str(&token)
            .map_err(|_| refuse("token", "it has characters a header cannot carry".to_owned()))?;
        token.set_sensitive(true);

        let builder = reqwest::Client::builder()
            .default_headers(HeaderMap::from_iter([(AUTHORIZATION, token)]))
            .user_agent(concat!("nimbus/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(config.request_timeout.min(Duration::from_secs(10)))
            .pool_idle_timeout(IDLE)
            .redirect(reqwest::redirect::Policy::none())
            // The token must not pass through a proxy meant for the internet.
            .no_proxy()
            .http1_only();
        let http = tls::apply(builder, &config.tls)?
            .build()
            .map_err(|source| refuse("connection settings", source.to_string()))?;
        Ok(Self {
            http,
            base: format!("{base}/api2/json"),
            timeout: config.request_timeout,
        })
    }

    /// Sends the call and reads `data` of the answer.
    ///
    /// A GET is repeated when the connection breaks or PVE's inner connection does, a change only when
    /// PVE says that it did not start.
    pub(crate) async fn send<T: DeserializeOwned>(&self, call: Call) -> Result<T, ProxmoxError> {
        let reads = call.method == Method::GET;
        let backoff = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(200))
            .with_factor(3.0)
            .with_max_times(2)
            .with_jitter();
        (|| self.once(&call))
            .retry(backoff)
            .when(|error| match error {
                // 596 comes after 30 s of waiting; another round would rather be the caller's choice.
                ProxmoxError::NodeUnreachable { status, .. } => reads && *status != 596,
                ProxmoxError::Unreachable { .. } => reads,
                other => other.nothing_started(),
            })
            .await
    }

    async fn once<T: DeserializeOwned>(&self, call: &Call) -> Result<T, ProxmoxError> {
        let span = tracing::info_span!(
            "pve", method = %call.method, path = call.template, node = call.node,
            status = field::Empty, duration_ms = field::Empty, error = field::Empty, otel.kind = "client",
        );
        async {
            let started = Instant::now();
            let result = self.exchange(call).await;
            let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            Span::current().record("duration_ms", millis);
            if let Err(error) = &result {
                Span::current().record("error", field::display(error));
            }
            result
        }
        .instrument(span)
        .await
    }

    async fn exchange<T: DeserializeOwned>(&self, call: &Call) -> Result<T, ProxmoxError> {
        let mut url = format!("{}{}", self.base, call.path);
        let form = encode::form(
            call.parameters
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        );
        let mut request = if matches!(call.method, Method::POST | Method::PUT) {
            let request = self.http.request(call.method.clone(), url);
            if form.is_empty() {
                request
            } else {
                request
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form)
            }
        } else {
            // PVE answers 501 to a body on GET and DELETE.
            if !form.is_empty() {
                url.push('?');
                url.push_str(&form);
            }
            self.http.request(call.method.clone(), url)
        };
        request = request.timeout(call.timeout.unwrap_or(self.timeout));

        let mut response = request.send().await.map_err(|e| broken(call, e))?;
        let status = response.status();
        Span::current().record("status", status.as_u16());
        let body = read(call, &mut response).await?;
        if status.is_success() {
            data(call, &body)
        } else {
            Err(refusal(&response, status, &body))
        }
    }
}

fn broken(call: &Call, error: reqwest::Error) -> ProxmoxError {
    if error.is_timeout() {
        ProxmoxError::Timeout { call: call.name() }
    } else if tls::is_distrust(&error) {
        ProxmoxError::Untrusted {
            source: error.without_url(),
        }
    } else {
        ProxmoxError::Unreachable {
            source: error.without_url(),
        }
    }
}

async fn read(call: &Call, response: &mut Response) -> Result<Vec<u8>, ProxmoxError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| broken(call, e))? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(ProxmoxError::Garbage {
                call: call.name(),
                what: format!("more than {MAX_ANSWER} bytes"),
            });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn data<T: DeserializeOwned>(call: &Call, body: &[u8]) -> Result<T, ProxmoxError> {
    let garbage = |what: String| ProxmoxError::Garbage {
        call: call.name(),
        what,
    };
    let mut envelope: serde_json::Map<String, Value> =
        serde_json::from_slice(body).map_err(|e| garbage(format!("not a JSON object ({e})")))?;
    let data = envelope
        .remove("data")
        .ok_or_else(|| garbage("no \"data\" in the answer".to_owned()))?;
    serde_json::from_value(data).map_err(|e| garbage(e.to_string()))
}

/// Reads an error: the sentence is in the body (since PVE 8) or in the reason phrase, and a 401 has no
/// body at all.
fn refusal(response: &Response, status: StatusCode, body: &[u8]) -> ProxmoxError {
    let envelope: serde_json::Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    let phrase = response.extensions().get::<hyper::ext::ReasonPhrase>();
    let phrase = phrase.map(|phrase| String::from_utf8_lossy(phrase.as_bytes()).into_owned());
    let message = match envelope.get("message") {
        Some(Value::String(message)) if !message.trim().is_empty() => message.clone(),
        _ => phrase.unwrap_or_else(|| status.canonical_reason().unwrap_or("no reason given").to_owned()),
    };
    let errors = match envelope.get("errors") {
        Some(Value::Object(fields)) => fields
            .iter()
            .map(|(field, text)| {
                let text = text
                    .as_str()
                    .map_or_else(|| text.to_string(), |text| text.trim().to_owned());
                (field.clone(), text)
            })
            .collect(),
        _ => BTreeMap::new(),
    };
    ProxmoxError::from_answer(status.as_u16(), &message, errors)
}
