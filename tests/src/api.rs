//! A client of the HTTP API.

use std::time::Duration;

use http::{HeaderMap, Method};
use serde_json::{Value, json};

use crate::events::Events;
use crate::wait::eventually;

/// The longest that an operation may take in a test.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// An HTTP client without a proxy, with time limits.
///
/// # Panics
/// When there is no TLS in the system.
#[must_use]
pub fn http_client() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .connect_timeout(Duration::from_secs(5))
        .timeout(Duration::from_secs(120))
        // A gateway ends a connection that it has heard nothing on for longer, and a request may meet that end.
        .pool_idle_timeout(Duration::from_secs(5))
        .build()
        .unwrap()
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body; null when it is not JSON.
    pub body: Value,
    /// Its body as it came.
    pub text: String,
}

impl Answer {
    /// Checks the status.
    ///
    /// # Panics
    /// When it is another one.
    #[must_use]
    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    /// The data of a success.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    #[track_caller]
    pub fn data(self) -> Value {
        assert!(
            (200..300).contains(&self.status) && self.body["success"] == true,
            "status {}: {}",
            self.status,
            self.text
        );
        self.body["data"].clone()
    }

    /// The code of a failure.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    #[track_caller]
    pub fn code(&self) -> &str {
        if let Some(code) = self.body["error"]["code"].as_str() {
            return code;
        }
        assert_eq!(
            self.body["success"], false,
            "status {}: {}",
            self.status, self.text
        );
        self.body["fault"]["code"].as_str().unwrap()
    }
}

/// A caller of the API.
#[derive(Clone, Debug)]
pub struct Api {
    base: String,
    http: reqwest::Client,
    token: Option<String>,
    cookie: Option<String>,
}

impl Api {
    /// Nobody in particular.
    #[must_use]
    pub fn anonymous(base: &str) -> Self {
        Self {
            base: base.to_owned(),
            http: http_client(),
            token: None,
            cookie: None,
        }
    }

    /// Somebody with a personal access token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            cookie: None,
            ..self.clone()
        }
    }

    /// Somebody with a session.
    #[must_use]
    pub fn with_cookie(&self, cookie: &str) -> Self {
        Self {
            cookie: Some(cookie.to_owned()),
            token: None,
            ..self.clone()
        }
    }

    /// The same caller on another server.
    #[must_use]
    pub fn at(&self, base: &str) -> Self {
        Self {
            base: base.to_owned(),
            ..self.clone()
        }
    }

    /// Where the server is.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// A request with the caller's credential.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(cookie) = &self.cookie {
            request = request.header("Cookie", cookie);
        }
        request
    }

    /// Sends a request; an error when the connection broke.
    ///
    /// # Errors
    /// No connection, or one that broke before the answer was complete.
    pub async fn try_send(request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
        let answer = request.send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let text = answer.text().await?;
        Ok(Answer {
            status,
            headers,
            body: serde_json::from_str(&text).unwrap_or_default(),
            text,
        })
    }

    /// Sends a request.
    ///
    /// # Panics
    /// When the connection breaks.
    pub async fn send(request: reqwest::RequestBuilder) -> Answer {
        Self::try_send(request)
            .await
            .unwrap_or_else(|error| panic!("no answer: {error:?}"))
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Answer {
        Self::send(self.request(Method::GET, path)).await
    }

    /// `POST` without a body.
    pub async fn touch(&self, path: &str) -> Answer {
        Self::send(self.request(Method::POST, path)).await
    }

    /// `POST`.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        Self::send(self.request(Method::POST, path).json(body)).await
    }

    /// `PUT`.
    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        Self::send(self.request(Method::PUT, path).json(body)).await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Answer {
        Self::send(self.request(Method::DELETE, path)).await
    }

    /// Signs in and gives the cookie.
    ///
    /// # Panics
    /// When that is refused.
    pub async fn login(&self, email: &str, password: &str) -> Self {
        let answer = self
            .post("/api/auth/login", &json!({"email": email, "password": password}))
            .await
            .is(200);
        self.with_cookie(&cookie_of(&answer))
    }

    /// Makes a token for whoever has a session.
    pub async fn token(&self, name: &str, scopes: Option<&[&str]>) -> String {
        let body = scopes.map_or_else(
            || json!({"name": name}),
            |scopes| json!({"name": name, "scopes": scopes}),
        );
        let made = self.post("/api/tokens", &body).await.is(201).data();
        made["token"].as_str().unwrap().to_owned()
    }

    /// Registers a member and gives them a token.
    pub async fn member(&self, name: &str) -> Self {
        let email = format!("{name}@example.org");
        let person = json!({"name": name, "email": email, "password": PASSWORD});
        let anonymous = Self {
            token: None,
            cookie: None,
            ..self.clone()
        };
        let _ = anonymous.post("/api/auth/register", &person).await.is(201);
        let session = anonymous.login(&email, PASSWORD).await;
        session.with_token(&session.token("tests", None).await)
    }

    /// Orders a small machine with a key of one's own; gives the operation.
    pub async fn order(&self, hostname: &str) -> String {
        let answer = Self::send(self.ordering(hostname)).await.is(202);
        answer.body["data"]["id"].as_str().unwrap().to_owned()
    }

    /// The request that [`Self::order`] sends.
    pub fn ordering(&self, hostname: &str) -> reqwest::RequestBuilder {
        self.request(Method::POST, "/api/vms")
            .header("Prefer", "respond-async")
            .json(&machine(hostname))
    }

    /// Begins to delete a machine; gives the operation.
    pub async fn begin_delete(&self, id: &str) -> String {
        let request = self
            .request(Method::DELETE, &format!("/api/vms/{id}"))
            .header("Prefer", "respond-async");
        Self::send(request).await.is(202).body["data"]["id"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// An operation.
    pub async fn operation(&self, id: &str) -> Value {
        self.get(&format!("/api/operations/{id}")).await.data()
    }

    /// Waits until an operation has ended.
    pub async fn ended(&self, id: &str) -> Value {
        eventually(
            &format!("the end of {id}"),
            PATIENCE,
            async || self.operation(id).await,
            has_ended,
        )
        .await
    }

    /// Waits until an operation has succeeded.
    ///
    /// # Panics
    /// When it fails.
    pub async fn succeeded(&self, id: &str) -> Value {
        let operation = self.ended(id).await;
        assert_eq!(operation["state"], "succeeded", "{operation:#}");
        operation
    }

    /// The caller's machines.
    pub async fn machines(&self) -> Vec<Value> {
        self.get("/api/vms?limit=500")
            .await
            .data()
            .as_array()
            .unwrap()
            .clone()
    }

    /// One of them, by name.
    pub async fn machine(&self, hostname: &str) -> Option<Value> {
        self.machines()
            .await
            .into_iter()
            .find(|row| row["hostname"] == hostname)
    }

    /// The addresses of the pool.
    pub async fn addresses(&self) -> Vec<Value> {
        self.get("/api/ips").await.data().as_array().unwrap().clone()
    }

    /// Follows the event stream.
    pub async fn events(&self, last: Option<u64>) -> Events {
        let mut request = self
            .request(Method::GET, "/api/events")
            .timeout(Duration::from_secs(600));
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        Events::of(request.send().await.unwrap())
    }
}

/// Everybody's password.
pub const PASSWORD: &str = "correct horse battery";

/// A public key that somebody brings.
pub const PUBLIC_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE6w2mHWRPZeQFlDXDvKDW0UDYGDdIdRzHKcfRl0pzOJ somebody@example.org";

/// The order of a small machine.
#[must_use]
pub fn machine(hostname: &str) -> Value {
    json!({"hostname": hostname, "tier": "small", "os_template": "debian-12", "ssh_pubkey": PUBLIC_KEY})
}

/// Whether an operation has ended.
#[must_use]
pub fn has_ended(operation: &Value) -> bool {
    matches!(operation["state"].as_str(), Some("succeeded" | "failed"))
}

/// The state of one step of an operation.
#[must_use]
pub fn step<'a>(operation: &'a Value, key: &str) -> &'a str {
    let steps = operation["steps"].as_array().unwrap();
    steps.iter().find(|step| step["key"] == key).unwrap()["state"]
        .as_str()
        .unwrap()
}

/// The session cookie that an answer sets.
///
/// # Panics
/// When it sets none.
#[must_use]
#[track_caller]
pub fn cookie_of(answer: &Answer) -> String {
    let line = answer
        .headers
        .get("set-cookie")
        .expect("a cookie")
        .to_str()
        .unwrap();
    line.split(';').next().unwrap().to_owned()
}
