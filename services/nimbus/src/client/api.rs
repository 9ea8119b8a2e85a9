//! The HTTP client: envelope in, value or [`Problem`] out.

use std::time::Duration;

use nimbus_errors::Code;
use reqwest::header::{ACCEPT, COOKIE, HeaderMap, ORIGIN, SET_COOKIE};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use crate::problem::{Outcome, Problem};

/// Until the server must have taken the connection.
const CONNECT: Duration = Duration::from_secs(5);
/// For an ordinary request.
const SHORT: Duration = Duration::from_secs(60);
/// For a request that answers when work in the cluster is done.
pub(crate) const LONG: Duration = Duration::from_secs(35 * 60);

/// What a request shows to be let in.
#[derive(Clone, Debug)]
pub(crate) enum Credential {
    /// Nothing.
    None,
    /// A bearer token of any kind.
    Token(SecretString),
    /// An API key.
    Key(SecretString),
    /// A session's cookie, `name=value`.
    Session(SecretString),
}

/// A server.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    http: reqwest::Client,
    base: Url,
    credential: Credential,
}

/// One page of a list.
#[derive(Debug)]
pub(crate) struct Page {
    /// The rows.
    pub(crate) data: Value,
    /// Where the next page starts.
    pub(crate) next_cursor: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Envelope {
    success: bool,
    #[serde(default)]
    data: Value,
    #[serde(default)]
    next_cursor: Option<String>,
    #[serde(default)]
    error: Option<Told>,
    #[serde(default)]
    fault: Option<FaultView>,
}

#[derive(Debug, Deserialize)]
struct Failure {
    error: Option<Told>,
    #[serde(default)]
    fault: Option<FaultView>,
}

/// What a failure says: older routes a sentence beside the fault, newer ones the fault itself.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Told {
    Text(String),
    Fault(FaultView),
}

fn refusal(error: Option<Told>, fault: Option<FaultView>, status: StatusCode, what: &str) -> Problem {
    match (fault, error) {
        (None, Some(Told::Fault(fault))) => fault.into_problem(what),
        (Some(mut fault), error) => {
            if let Some(Told::Text(text)) = error
                && fault.message.is_empty()
            {
                fault.message = text;
            }
            fault.into_problem(what)
        }
        (None, Some(Told::Text(text))) => Problem::failed(what).why(text),
        (None, None) => Problem::failed(what).why(format!("the server answered {status}")),
    }
}

/// A failure as the API describes it.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct FaultView {
    /// The catalogue's name.
    #[serde(default)]
    pub(crate) code: String,
    /// For people.
    #[serde(default)]
    pub(crate) message: String,
    /// The request in the server's log.
    #[serde(default, rename = "requestId")]
    pub(crate) request_id: Option<String>,
    /// What to do.
    #[serde(default)]
    pub(crate) remediation: Option<Remediation>,
}

/// What the API advises.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Remediation {
    #[serde(default)]
    message: String,
}

impl FaultView {
    /// As a command prints it.
    pub(crate) fn into_problem(self, what: &str) -> Problem {
        let mut problem = Problem::failed(what).why(self.message);
        if let Some(next) = self
            .remediation
            .map(|remedy| remedy.message)
            .filter(|text| !text.is_empty())
        {
            problem = problem.next(next);
        }
        if self.code == Code::AuthUnauthorized.as_str() {
            problem = problem.next("nimbus login");
        }
        problem.code(&self.code).request(self.request_id)
    }
}

impl Api {
    /// A client for the server at `base`.
    pub(crate) fn new(base: Url, credential: Credential) -> Outcome<Self> {
        if !matches!(base.scheme(), "http" | "https") || base.host().is_none() {
            return Err(Problem::usage(format!("{base} is not the address of a server"))
                .why("expected something like http://127.0.0.1:8080"));
        }
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .user_agent(concat!("nimbus/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Problem::failed("could not set up HTTP").because(&error))?;
        Ok(Self {
            http,
            base,
            credential,
        })
    }

    /// The same server with another credential.
    pub(crate) fn with(&self, credential: Credential) -> Self {
        Self {
            credential,
            ..self.clone()
        }
    }

    /// Its address.
    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    /// A request to `/api/<segments>`; segments are escaped.
    pub(crate) fn request(&self, method: Method, segments: &[&str]) -> RequestBuilder {
        self.unlimited(method, segments).timeout(SHORT)
    }

    /// The same without a time limit, for what is read or written for as long as it takes.
    pub(crate) fn unlimited(&self, method: Method, segments: &[&str]) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("api").extend(segments);
        }
        let unsafe_method = method != Method::GET;
        let request = self.http.request(method, url);
        match &self.credential {
            Credential::None => request,
            Credential::Token(token) => request.bearer_auth(token.expose_secret()),
            Credential::Key(key) => request.header("X-Nimbus-Api-Key", key.expose_secret()),
            Credential::Session(cookie) => {
                let request = request.header(COOKIE, cookie.expose_secret());
                // The server takes a changing request with a cookie only from its own pages.
                if unsafe_method {
                    request
                        .header(ORIGIN, self.base.origin().ascii_serialization())
                        .header("Sec-Fetch-Site", "same-origin")
                } else {
                    request
                }
            }
        }
    }

    /// Reads one value.
    pub(crate) async fn get(&self, segments: &[&str], what: &str) -> Outcome<Value> {
        Ok(self
            .answer(self.request(Method::GET, segments), what)
            .await?
            .0
            .data)
    }

    /// Reads a whole list, page by page.
    pub(crate) async fn list(&self, segments: &[&str], what: &str) -> Outcome<Value> {
        let mut rows = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut request = self.request(Method::GET, segments);
            if let Some(cursor) = &cursor {
                request = request.query(&[("cursor", cursor)]);
            }
            let (page, _) = self.answer(request, what).await?;
            match page.data {
                Value::Array(more) => rows.extend(more),
                other => return Err(strange(what, &format!("expected a list, got {other}"))),
            }
            match page.next_cursor {
                Some(next) if cursor.as_ref() != Some(&next) => cursor = Some(next),
                _ => return Ok(Value::Array(rows)),
            }
        }
    }

    /// Sends a body and reads the answer.
    pub(crate) async fn send(
        &self,
        method: Method,
        segments: &[&str],
        body: Option<&Value>,
        what: &str,
    ) -> Outcome<Value> {
        let request = self.request(method, segments);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        Ok(self.answer(request, what).await?.0.data)
    }

    /// Signs in; the answer is the session's cookie.
    pub(crate) async fn sign_in(&self, email: &str, password: &SecretString) -> Outcome<Credential> {
        let body = serde_json::json!({ "email": email, "password": password.expose_secret() });
        let request = self.request(Method::POST, &["auth", "login"]).json(&body);
        let (_, headers) = self
            .answer(request, &format!("could not sign in as {email}"))
            .await?;
        headers
            .get_all(SET_COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .filter_map(|value| value.split(';').next())
            .find(|pair| pair.contains("nimbus_sid"))
            .map(|pair| Credential::Session(pair.trim().into()))
            .ok_or_else(|| strange("could not sign in", "the server opened no session"))
    }

    /// Sends a request and opens the envelope.
    pub(crate) async fn answer(&self, request: RequestBuilder, what: &str) -> Outcome<(Page, HeaderMap)> {
        let response = request
            .send()
            .await
            .map_err(|error| self.unreachable(what, &error))?;
        let headers = response.headers().clone();
        if response.status() == StatusCode::NO_CONTENT {
            return Ok((
                Page {
                    data: Value::Null,
                    next_cursor: None,
                },
                headers,
            ));
        }
        let envelope = self.open(response, what).await?;
        Ok((
            Page {
                data: envelope.data,
                next_cursor: envelope.next_cursor,
            },
            headers,
        ))
    }

    /// Sends a request whose answer is read line by line; a refusal is opened as usual.
    pub(crate) async fn stream(&self, request: RequestBuilder, what: &str) -> Outcome<Response> {
        let request = request.header(ACCEPT, "application/x-ndjson").timeout(LONG);
        let response = request
            .send()
            .await
            .map_err(|error| self.unreachable(what, &error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        self.open(response, what).await?;
        Err(strange(what, "an answer that is neither success nor failure"))
    }

    async fn open(&self, response: Response, what: &str) -> Outcome<Envelope> {
        let status = response.status();
        let bytes = response
            .bytes()
            .await
            .map_err(|error| self.unreachable(what, &error))?;
        // Some routes answer a failure without the envelope of the others.
        if !status.is_success()
            && let Ok(Failure { error, fault }) = serde_json::from_slice(&bytes)
            && (error.is_some() || fault.is_some())
        {
            return Err(refusal(error, fault, status, what));
        }
        let envelope: Envelope = serde_json::from_slice(&bytes).map_err(|_| {
            strange(
                what,
                &format!(
                    "{} answered {status} with something that is not Nimbus' API",
                    self.base
                ),
            )
            .next("check --url or NIMBUS_URL")
        })?;
        if envelope.success && status.is_success() {
            return Ok(envelope);
        }
        Err(refusal(envelope.error, envelope.fault, status, what))
    }

    /// Sends a request to a route that answers with the resource itself; nothing is null.
    pub(crate) async fn resource(&self, request: RequestBuilder, what: &str) -> Outcome<Value> {
        let bytes = self
            .reach(request, what)
            .await?
            .bytes()
            .await
            .map_err(|error| self.unreachable(what, &error))?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|_| self.stranger(what))
    }

    /// Sends a request to such a route, and leaves the answer to be read.
    pub(crate) async fn reach(&self, request: RequestBuilder, what: &str) -> Outcome<Response> {
        let response = request
            .send()
            .await
            .map_err(|error| self.unreachable(what, &error))?;
        let status = response.status();
        if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let bytes = response.bytes().await.unwrap_or_default();
        let failure: Failure = serde_json::from_slice(&bytes)
            .map_err(|_| Problem::failed(what).why(format!("{} answered {status}", self.base)))?;
        Err(refusal(failure.error, failure.fault, status, what))
    }

    fn stranger(&self, what: &str) -> Problem {
        strange(
            what,
            &format!("{} answered with something that is not Nimbus' API", self.base),
        )
        .next("check --url or NIMBUS_URL")
    }

    pub(crate) fn unreachable(&self, what: &str, error: &reqwest::Error) -> Problem {
        if error.is_timeout() {
            return Problem::failed(what)
                .why(format!("{} did not answer in time", self.base))
                .next("nimbus health");
        }
        Problem::failed(what)
            .why(format!(
                "no connection to {}: {}",
                self.base,
                nimbus_errors::chain(&error.without_url_ref())
            ))
            .next("start the server with `nimbus dev` or `nimbus start`, or name another with --url")
    }
}

trait WithoutUrl {
    fn without_url_ref(&self) -> Cause;
}

/// The innermost cause of a transport error: the outer ones only repeat the address.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Cause(String);

impl WithoutUrl for reqwest::Error {
    fn without_url_ref(&self) -> Cause {
        let mut innermost: &dyn std::error::Error = self;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        Cause(innermost.to_string())
    }
}

/// An answer that no Nimbus server gives.
pub(crate) fn strange(what: &str, why: &str) -> Problem {
    Problem::failed(what).why(why)
}

/// Reads a value of the API into its type.
pub(crate) fn read<T: DeserializeOwned>(value: &Value, what: &str) -> Outcome<T> {
    T::deserialize(value).map_err(|error| {
        strange(what, &format!("the server's answer is not understood: {error}"))
            .next("run the same version of `nimbus` as the server, see `nimbus health`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_escaped_and_a_base_path_is_kept() {
        let api = Api::new("http://h:1/nimbus/".parse().unwrap(), Credential::None).unwrap();
        let request = api.request(Method::GET, &["vms", "a/../b?c"]).build().unwrap();
        assert_eq!(request.url().as_str(), "http://h:1/nimbus/api/vms/a%2F..%2Fb%3Fc");
    }

    #[test]
    fn only_changing_requests_with_a_cookie_name_their_origin() {
        let api = Api::new(
            "http://h:1".parse().unwrap(),
            Credential::Session("nimbus_sid=x".into()),
        )
        .unwrap();
        let header = |method| {
            api.request(method, &["me"])
                .build()
                .unwrap()
                .headers()
                .get(ORIGIN)
                .cloned()
        };
        assert_eq!(header(Method::POST).unwrap(), "http://h:1");
        assert!(header(Method::GET).is_none());
    }

    #[test]
    fn an_address_that_is_none_is_refused() {
        assert!(Api::new("file:///etc".parse().unwrap(), Credential::None).is_err());
    }
}
