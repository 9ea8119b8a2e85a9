//! A connection to Chromium's `DevTools` over a byte stream.

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use nimbus_bus::{BusStream, StreamHandle};
use nimbus_errors::{Code, Fault};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message, protocol::WebSocketConfig};

/// How long the browser may take to answer while a connection is made.
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// How long it may take to answer one request.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// How much it may say about itself.
const VERSION_BYTES: usize = 64 << 10;
/// The largest message: a screenshot of a long page in base64.
const MESSAGE_BYTES: usize = 64 << 20;

/// Why a request to the browser failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum DevtoolsError {
    /// The connection is gone.
    #[error("the browser is gone")]
    Gone,
    /// It broke.
    #[error("the connection to the browser broke")]
    Broken(#[source] tungstenite::Error),
    /// It did not answer in time.
    #[error("the browser did not answer {0} in time")]
    Late(String),
    /// It refused.
    #[error("{0}")]
    Refused(String),
}

fn unavailable(message: &str) -> Fault {
    Fault::new(Code::ServiceUnavailable, message)
}

/// Where the browser's WebSocket is, as it says itself.
pub(super) async fn socket_path(stream: BusStream) -> Result<String, Fault> {
    let asked = async {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|_| unavailable("the browser does not answer"))?;
        // Chromium answers only to addresses and `localhost`, against pages that rebind names.
        let request = Request::get("/json/version")
            .header("host", "localhost")
            .body(Empty::<Bytes>::new())
            .map_err(|_| Fault::new(Code::ServiceInternal, "the request cannot be made"))?;
        let exchange = async {
            let response = sender.send_request(request).await.ok()?;
            if response.status() != StatusCode::OK {
                return None;
            }
            let body = Limited::new(response.into_body(), VERSION_BYTES)
                .collect()
                .await
                .ok()?;
            serde_json::from_slice::<Value>(&body.to_bytes()).ok()
        };
        // The answer comes while the connection is driven, and the connection ends when it is here.
        let driven = async {
            let _ = connection.await;
            std::future::pending::<()>().await;
        };
        let version = tokio::select! {
            version = exchange => version,
            () = driven => None,
        };
        version
            .as_ref()
            .and_then(|version| version.get("webSocketDebuggerUrl"))
            .and_then(Value::as_str)
            .and_then(|url| url.parse::<url::Url>().ok())
            .map(|url| url.path().to_owned())
            .ok_or_else(|| unavailable("the browser does not say where it is"))
    };
    timeout(OPEN_LIMIT, asked)
        .await
        .unwrap_or_else(|_| Err(unavailable("the browser did not answer in time")))
}

/// An open connection, browser-level.
pub(crate) struct Devtools {
    socket: WebSocketStream<BusStream>,
    handle: StreamHandle,
    next: u64,
    /// Messages that are not answers to what was asked, oldest first.
    pub(super) events: Vec<Value>,
}

impl Devtools {
    pub(super) async fn open(stream: BusStream, path: &str) -> Result<Self, Fault> {
        let handle = stream.handle();
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES))
            .max_frame_size(Some(MESSAGE_BYTES));
        let url = format!("ws://localhost{path}");
        let opened = tokio_tungstenite::client_async_with_config(url, stream, Some(config));
        match timeout(OPEN_LIMIT, opened).await {
            Ok(Ok((socket, _))) => Ok(Self {
                socket,
                handle,
                next: 1,
                events: Vec::new(),
            }),
            Ok(Err(_)) => Err(unavailable("the browser refused the connection")),
            Err(_) => Err(unavailable("the browser did not answer in time")),
        }
    }

    pub(super) fn handle(&self) -> StreamHandle {
        self.handle.clone()
    }

    pub(super) fn into_socket(self) -> WebSocketStream<BusStream> {
        self.socket
    }

    /// Asks, and waits for the answer; what arrives before it is kept.
    pub(super) async fn call(
        &mut self,
        session: Option<&str>,
        method: &str,
        params: Value,
    ) -> Result<Value, DevtoolsError> {
        let id = self.send(session, method, params).await?;
        let answer = async {
            loop {
                let mut message = self.next().await?;
                if message.get("id").and_then(Value::as_u64) != Some(id) {
                    self.events.push(message);
                    continue;
                }
                if let Some(error) = message.get("error") {
                    let text = error.get("message").and_then(Value::as_str).unwrap_or("refused");
                    return Err(DevtoolsError::Refused(text.to_owned()));
                }
                return Ok(message.get_mut("result").map(Value::take).unwrap_or_default());
            }
        };
        timeout(CALL_LIMIT, answer)
            .await
            .unwrap_or_else(|_| Err(DevtoolsError::Late(method.to_owned())))
    }

    /// Asks without waiting for the answer.
    pub(super) async fn send(
        &mut self,
        session: Option<&str>,
        method: &str,
        params: Value,
    ) -> Result<u64, DevtoolsError> {
        let id = self.next;
        self.next += 1;
        let mut request = json!({ "id": id, "method": method, "params": params });
        if let (Some(session), Some(object)) = (session, request.as_object_mut()) {
            object.insert("sessionId".to_owned(), session.into());
        }
        self.socket
            .send(Message::Text(request.to_string().into()))
            .await
            .map_err(DevtoolsError::Broken)?;
        Ok(id)
    }

    /// The next message. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Result<Value, DevtoolsError> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    if let Ok(message) = serde_json::from_str(&text) {
                        return Ok(message);
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(DevtoolsError::Broken(error)),
                None => return Err(DevtoolsError::Gone),
            }
        }
    }
}
