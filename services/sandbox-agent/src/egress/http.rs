//! HTTP/1.1 as a proxy speaks it.

use std::convert::Infallible;
use std::time::Duration;

use ::http::header::{
    CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use ::http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nimbus_errors::Code;
use nimbus_proto::workloads::Protocol;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::time::timeout;

use super::policy::{Asked, canonical};
use super::{DialError, Proxy};

/// How long a client may take to send the head of a request.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// How long a server may take to send the head of its answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(300);

type Body = BoxBody<Bytes, hyper::Error>;

pub(super) async fn serve<S>(proxy: Proxy, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let sandbox = proxy.shared.sandbox.clone();
    let service = service_fn(move |request| {
        let proxy = proxy.clone();
        async move { Ok::<_, Infallible>(answer(proxy, request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(sandbox.id = %sandbox, cause = %nimbus_errors::chain(&error), "a connection to the proxy ended");
    }
}

async fn answer(proxy: Proxy, request: Request<Incoming>) -> Response<Body> {
    if request.method() == Method::CONNECT {
        connect(proxy, request).await
    } else {
        forward(proxy, request).await
    }
}

async fn connect(proxy: Proxy, request: Request<Incoming>) -> Response<Body> {
    let Some((host, port)) = authority(request.uri(), None) else {
        return refuse(
            StatusCode::BAD_REQUEST,
            Code::OpInvalidInput,
            "CONNECT needs host:port",
        );
    };
    let asked = Asked {
        protocol: Protocol::Https,
        host,
        port,
        method: None,
        path: None,
    };
    let mut upstream = match proxy.dial(&asked).await {
        Ok(upstream) => upstream,
        Err(error) => return failed(&error),
    };
    // Ends with the connection it serves: the guest closes that when the sandbox ends.
    tokio::spawn(async move {
        if let Ok(upgraded) = hyper::upgrade::on(request).await {
            let _ = copy_bidirectional(&mut TokioIo::new(upgraded), &mut upstream).await;
        }
    });
    Response::new(empty())
}

async fn forward(proxy: Proxy, request: Request<Incoming>) -> Response<Body> {
    let (mut head, body) = request.into_parts();
    if head.uri.scheme_str().is_some_and(|scheme| scheme != "http") {
        return refuse(
            StatusCode::BAD_REQUEST,
            Code::OpInvalidInput,
            "the proxy speaks http itself; for https use CONNECT",
        );
    }
    let Some((host, port)) = authority(&head.uri, Some(80)) else {
        return refuse(
            StatusCode::BAD_REQUEST,
            Code::OpInvalidInput,
            "this is a proxy: it needs an absolute target such as http://host/path",
        );
    };
    let asked = Asked {
        protocol: Protocol::Http,
        host,
        port,
        method: Some(head.method.as_str().to_owned()),
        path: Some(head.uri.path().to_owned()),
    };
    let upstream = match proxy.dial(&asked).await {
        Ok(upstream) => upstream,
        Err(error) => return failed(&error),
    };
    let Some(host_header) = head
        .uri
        .authority()
        .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok())
    else {
        return refuse(
            StatusCode::BAD_REQUEST,
            Code::OpInvalidInput,
            "the target has no host",
        );
    };
    let path = head.uri.path_and_query().map_or("/", |whole| whole.as_str());
    let Ok(target) = path.parse::<Uri>() else {
        return refuse(
            StatusCode::BAD_REQUEST,
            Code::OpInvalidInput,
            "the target's path cannot be read",
        );
    };
    head.uri = target;
    strip(&mut head.headers);
    // The rule was decided for this host: a server behind the same address must not be asked for another.
    head.headers.insert(HOST, host_header);
    head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let request = Request::from_parts(head, body);
    match timeout(ANSWER_LIMIT, exchange(upstream, request)).await {
        Ok(Ok(response)) => {
            let (mut head, body) = response.into_parts();
            strip(&mut head.headers);
            Response::from_parts(head, body.boxed())
        }
        Ok(Err(error)) => {
            tracing::debug!(sandbox.id = %proxy.shared.sandbox, cause = %nimbus_errors::chain(&error), "a server did not answer");
            refuse(
                StatusCode::BAD_GATEWAY,
                Code::ServiceTransport,
                "the server did not answer",
            )
        }
        Err(_) => refuse(
            StatusCode::GATEWAY_TIMEOUT,
            Code::ServiceTransport,
            "the server did not answer in time",
        ),
    }
}

async fn exchange(
    upstream: tokio::net::TcpStream,
    request: Request<Incoming>,
) -> Result<Response<Incoming>, hyper::Error> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(upstream)).await?;
    // Drives one answer, and ends with it.
    tokio::spawn(async move {
        // What goes wrong here reaches the answer's body as its error.
        let _ = connection.await;
    });
    sender.send_request(request).await
}

/// The canonical host and the port of a target.
fn authority(uri: &Uri, default_port: Option<u16>) -> Option<(String, u16)> {
    let authority = uri.authority()?;
    if authority.as_str().contains('@') {
        return None;
    }
    Some((
        canonical(authority.host())?,
        authority.port_u16().or(default_port)?,
    ))
}

/// Removes what is meant for the next hop only (RFC 9110, section 7.6.1).
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [
        CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection"] {
        headers.remove(name);
    }
}

fn failed(error: &DialError) -> Response<Body> {
    match error {
        DialError::Refused(refusal) => refuse(
            StatusCode::FORBIDDEN,
            Code::AuthPermissionDenied,
            &format!("the sandbox' egress rules refuse this: {refusal}"),
        ),
        DialError::Resolve { .. } | DialError::Connect { .. } => refuse(
            StatusCode::BAD_GATEWAY,
            Code::ServiceTransport,
            &error.to_string(),
        ),
    }
}

fn refuse(status: StatusCode, code: Code, message: &str) -> Response<Body> {
    let text = serde_json::json!({ "error": { "code": code.entry().code, "message": message } }).to_string();
    let body = Full::new(Bytes::from(text))
        .map_err(|never| match never {})
        .boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn empty() -> Body {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed()
}
