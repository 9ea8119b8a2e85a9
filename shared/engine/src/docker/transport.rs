//! HTTP over the engine's Unix socket, with connections kept for the next call.
//!
//! bollard's own transport opens a connection for each request, and encodes credentials in a base64
//! alphabet that engines decode as another one: a password that makes a `+` or `/` is taken for none.
//! Both are put right here.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::SystemVersion;
use bollard::{BollardRequest, ClientVersion, Docker};
use bytes::Bytes;
use http::{HeaderValue, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::UnixStream;

/// Where registry credentials travel, after the engine's API.
const CREDENTIALS: &str = "x-registry-auth";

/// Connections kept open between calls.
const IDLE_CONNECTIONS: usize = 8;

/// Given up before the engine does (Docker and Podman keep them for minutes).
const IDLE_TIME: Duration = Duration::from_secs(30);

/// bollard's limit for the headers of an answer, in seconds; every call here has a shorter one.
const HEADER_LIMIT_S: u64 = 3600;

/// Bytes of an answer to `/version`; it has about 1000.
const VERSION_LIMIT: usize = 64 * 1024;

/// The name in the `Host` header: engines look at the path only.
const HOST: &str = "http://engine";

/// A client that speaks `version` to the engine behind `socket`.
pub(super) fn client(socket: &Path, version: &ClientVersion) -> Result<Docker, Error> {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_: Uri| Box::pin(connect(socket.clone())));
    let pool = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIME)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .build(connector);
    let transport = move |mut request: BollardRequest| {
        correct_credentials(&mut request);
        let sent = pool.request(request);
        async move { sent.await.map_err(|error| Error::from(io::Error::other(error))) }
    };
    Docker::connect_with_custom_transport(transport, Some(HOST), HEADER_LIMIT_S, version)
}

/// Turns standard base64 into the URL-safe alphabet that the engine's API asks for.
fn correct_credentials(request: &mut BollardRequest) {
    let Some(value) = request.headers_mut().get_mut(CREDENTIALS) else {
        return;
    };
    let safe: Vec<u8> = value
        .as_bytes()
        .iter()
        .map(|byte| match byte {
            b'+' => b'-',
            b'/' => b'_',
            other => *other,
        })
        .collect();
    if let Ok(mut corrected) = HeaderValue::from_bytes(&safe) {
        corrected.set_sensitive(true);
        *value = corrected;
    }
}

async fn connect(socket: PathBuf) -> io::Result<UnixIo> {
    Ok(UnixIo(TokioIo::new(UnixStream::connect(socket).await?)))
}

/// What `/version` says. Asked without a version in the path, which engines of every age answer.
pub(super) async fn version(socket: &Path) -> io::Result<SystemVersion> {
    let stream = TokioIo::new(UnixStream::connect(socket).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
        .await
        .map_err(io::Error::other)?;
    let request = http::Request::get("/version")
        .header(http::header::HOST, "engine")
        .body(Full::<Bytes>::default())
        .map_err(io::Error::other)?;
    let ask = async move {
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        let limited = Limited::new(answer.into_body(), VERSION_LIMIT);
        let bytes = limited.collect().await.map_err(io::Error::other)?.to_bytes();
        serde_json::from_slice(&bytes).map_err(io::Error::other)
    };
    // The connection has to be driven while its answer is awaited.
    let (answer, _closed) = tokio::join!(ask, connection);
    answer
}

/// The process behind the socket, if the kernel tells.
pub(super) async fn peer_pid(socket: &Path) -> Option<u32> {
    let stream = UnixStream::connect(socket).await.ok()?;
    let pid = stream.peer_cred().ok()?.pid()?;
    u32::try_from(pid).ok()
}

/// A Unix socket as hyper's client wants it.
struct UnixIo(TokioIo<UnixStream>);

impl Connection for UnixIo {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for UnixIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl Write for UnixIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }
}
