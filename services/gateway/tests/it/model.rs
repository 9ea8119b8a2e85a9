//! A small inference server, which says what the test wants and remembers what it was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use nimbus_proto::auth::Secret;
use nimbus_proto::gpu::Endpoint;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

/// The key it asks for.
pub(crate) const KEY: &str = "sk-of-the-box";

/// What a request looked like there.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// How to answer: status, kind, and pieces as they are sent, until their sender is dropped.
type Saying = (StatusCode, &'static str, mpsc::Receiver<Bytes>);

#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<watch::Sender<Vec<Seen>>>,
    next: Arc<Mutex<Vec<Saying>>>,
    /// Answers that were given up by their reader, or have ended.
    pub(crate) ended: Arc<watch::Sender<u32>>,
}

struct Counted(Arc<watch::Sender<u32>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|ended| *ended += 1);
    }
}

impl Model {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let model = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            next: Arc::default(),
            ended: Arc::new(watch::Sender::new(0)),
        };
        let router = Router::new().fallback(answer).with_state(model.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        model
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint {
            base_url: format!("http://{}", self.address),
            api_key: Some(Secret::new(KEY)),
            model: "small".into(),
        }
    }

    /// The next request is answered with this.
    pub(crate) fn say(&self, status: u16, kind: &'static str, text: impl Into<Bytes>) {
        let pieces = self.speak(status, kind);
        pieces.try_send(text.into()).unwrap();
    }

    /// The next request is answered piece by piece.
    pub(crate) fn speak(&self, status: u16, kind: &'static str) -> mpsc::Sender<Bytes> {
        let (send, receive) = mpsc::channel(16);
        let status = StatusCode::from_u16(status).unwrap();
        self.next.lock().unwrap().push((status, kind, receive));
        send
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }
}

async fn answer(State(model): State<Model>, request: Request) -> Response {
    let counted = Counted(Arc::clone(&model.ended));
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let seen = Seen {
        path: parts.uri.to_string(),
        headers: parts.headers,
        body: body.to_bytes(),
    };
    model.seen.send_modify(|all| all.push(seen));
    let next = model.next.lock().unwrap().pop();
    let Some((status, kind, pieces)) = next else {
        // Nobody said what to answer: it is being thought about.
        return std::future::pending().await;
    };
    let body = futures::stream::unfold((pieces, counted), |(mut pieces, counted)| async move {
        let piece = pieces.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), (pieces, counted)))
    });
    (
        status,
        [("content-type", kind), ("set-cookie", "box=1")],
        Body::from_stream(body),
    )
        .into_response()
}
