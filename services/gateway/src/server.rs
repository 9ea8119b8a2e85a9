//! Connections: accepting, TLS, HTTP/1.1 and HTTP/2 (which gRPC needs), and ending them in order.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use nimbus_service::{Ctx, OnError, RunError};
use nimbus_telemetry::{Metrics, Traces};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::access::Peer;
use crate::config::{GatewayConfig, limits};
use crate::hub;
use crate::inference::ledger;
use crate::prompt::Prompt;
use crate::state::App;

/// Serves HTTP on `listener` until [`Ctx::stop`] fires, then drains for at most ten seconds.
///
/// The port answers from the start; what needs a service that is not there yet answers
/// `service.unavailable`.
///
/// # Errors
/// A certificate or key that cannot be used, or a listener that is broken.
pub async fn run(
    ctx: Ctx,
    config: GatewayConfig,
    listener: TcpListener,
    traces: Traces,
    metrics: Metrics,
) -> Result<(), RunError> {
    let tls = match (&config.tls_cert, &config.tls_key) {
        (Some(certificate), Some(key)) => Some(acceptor(certificate, key)?),
        _ => None,
    };
    let slots = usize::try_from(config.max_connections)
        .unwrap_or(usize::MAX)
        .min(Semaphore::MAX_PERMITS);
    let app = App::new(
        ctx.bus.clone(),
        ctx.clock.clone(),
        config,
        traces,
        metrics,
        ctx.stop.clone(),
    );

    let (followed, ready) = (app.clone(), ctx.ready.clone());
    ctx.tasks.spawn("gateway.events", OnError::Restart, move || {
        let (app, ready) = (followed.clone(), ready.clone());
        async move { hub::run(app, move || ready.tell()).await }
    });

    let metered = app.clone();
    ctx.tasks.spawn("gateway.usage", OnError::Restart, move || {
        ledger::run(metered.clone())
    });

    let server = Server {
        router: crate::routes::service(&app),
        tls,
        stop: ctx.stop.clone(),
        cut: CancellationToken::new(),
        connections: TaskTracker::new(),
        slots: Arc::new(Semaphore::new(slots)),
    };
    server.accept(&listener).await?;
    drop(listener);
    server.drain().await;
    // What was used by the last answers.
    let _ = tokio::time::timeout(limits::LAST_WORDS, app.inference.ledger.tell(&app)).await;
    Ok(())
}

#[derive(Clone)]
struct Server {
    router: Router,
    tls: Option<TlsAcceptor>,
    /// No new requests.
    stop: CancellationToken,
    /// No requests at all.
    cut: CancellationToken,
    connections: TaskTracker,
    slots: Arc<Semaphore>,
}

impl Server {
    async fn accept(&self, listener: &TcpListener) -> Result<(), RunError> {
        loop {
            let next = async {
                let slot = Arc::clone(&self.slots).acquire_owned().await;
                (slot, listener.accept().await)
            };
            let (slot, accepted) = tokio::select! {
                next = next => next,
                () = self.stop.cancelled() => return Ok(()),
            };
            match accepted {
                Ok((stream, address)) => {
                    let server = self.clone();
                    self.connections.spawn(async move {
                        server.connection(stream, address).await;
                        drop(slot);
                    });
                }
                Err(error) if is_passing(&error) => {
                    tracing::warn!("a connection could not be accepted: {error}");
                    // Out of files or memory: the next attempt would fail at once.
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
                Err(error) => return Err(RunError::other("the HTTP port failed", error)),
            }
        }
    }

    async fn connection(&self, stream: TcpStream, address: SocketAddr) {
        // Neither matters enough to refuse the connection.
        let _ = stream.set_nodelay(true);
        let _ =
            SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(limits::TCP_KEEPALIVE));
        let Some(tls) = &self.tls else {
            return self.serve(stream, Peer { address, tls: false }).await;
        };
        match tokio::time::timeout(limits::HANDSHAKE, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.serve(stream, Peer { address, tls: true }).await,
            Ok(Err(error)) => tracing::debug!("no TLS with {address}: {error}"),
            Err(_) => tracing::debug!("no TLS with {address}: it was too slow"),
        }
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S, peer: Peer) {
        let router = self.router.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            let router = router.clone();
            request.extensions_mut().insert(peer);
            async move { Ok::<Response, Infallible>(answer(router, request).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(limits::HEADER_READ)
            .max_headers(limits::HEADER_COUNT)
            .max_buf_size(limits::HEAD_BUFFER);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(limits::TCP_KEEPALIVE)
            .keep_alive_timeout(limits::HEADER_READ)
            .max_concurrent_streams(limits::STREAMS)
            .max_header_list_size(limits::HEADER_LIST);
        // Which of the two it is shows in the first bytes, and waiting for those is bounded here.
        let stream = Prompt::new(stream, limits::HEADER_READ);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let outcome = tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    outcome = connection.as_mut() => outcome,
                    () = self.cut.cancelled() => return,
                }
            }
        };
        if let Err(error) = outcome {
            tracing::debug!("the connection of {} broke: {error}", peer.address);
        }
    }

    async fn drain(&self) {
        self.connections.close();
        if tokio::time::timeout(limits::DRAIN, self.connections.wait())
            .await
            .is_err()
        {
            tracing::warn!(connections = self.connections.len(), "open connections are cut");
            self.cut.cancel();
            self.connections.wait().await;
        }
    }
}

async fn answer(router: Router, request: Request<Incoming>) -> Response {
    match router.oneshot(request.map(Body::new)).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Whether accepting can succeed later: the peer left, or resources are short.
fn is_passing(error: &io::Error) -> bool {
    // EMFILE, ENFILE, ENOBUFS and ENOMEM have no stable ErrorKind; EBADF, EINVAL and ENOTSOCK are for good.
    !matches!(
        error.kind(),
        io::ErrorKind::InvalidInput | io::ErrorKind::NotConnected | io::ErrorKind::Unsupported
    ) && error.raw_os_error() != Some(9)
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, RunError> {
    let failed = |what: &str, path: &Path, error: rustls_pki_types::pem::Error| {
        RunError::other(format!("cannot read the {what} in {}", path.display()), error)
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(|error| failed("certificate", certificate, error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| failed("private key", key, error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|error| {
            RunError::other(
                format!("cannot use the certificate in {}", certificate.display()),
                error,
            )
        })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
