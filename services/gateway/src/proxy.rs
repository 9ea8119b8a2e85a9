//! A reverse proxy into a sandbox: one request, or one WebSocket, over one stream to a port.
//!
//! What runs in a sandbox is not trusted, and its pages come from our own origin. So towards the sandbox
//! go no credentials, and towards the browser go no cookies and a policy that makes every page an origin
//! of its own (Content Security Policy Level 3, `sandbox`): its scripts run and reach nothing of ours.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::{self, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, StatusCode, Uri, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use nimbus_errors::{Code, Fault};
use tokio::io::copy_bidirectional;
use tracing::debug;

use crate::channel::Channel;
use crate::envelope::{Answer, ApiError};
use crate::state::App;

/// How long what listens inside may take to begin its answer.
const BEGIN: Duration = Duration::from_secs(60);

/// Headers that concern one connection (RFC 9110, section 7.6.1), and what was common before it.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// What must not reach the sandbox: credentials, and what only we can say.
const OURS: [&str; 9] = [
    "authorization",
    "cookie",
    "x-nimbus-api-key",
    "x-nimbus-admin-token",
    "host",
    "expect",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
];
/// What a sandbox must not say in our name.
const NOT_THEIRS: [&str; 8] = [
    "set-cookie",
    "strict-transport-security",
    "clear-site-data",
    "alt-svc",
    "www-authenticate",
    "service-worker-allowed",
    "cross-origin-resource-policy",
    "x-request-id",
];
/// What a sandbox' page may do; nothing of it is as a page of ours.
const POLICY: HeaderValue = HeaderValue::from_static(
    "sandbox allow-scripts allow-forms allow-popups allow-modals allow-downloads allow-pointer-lock",
);

/// Says that an answer is not ours: the edge leaves its headers alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Foreign;

/// Where a request goes.
#[derive(Clone, Debug)]
pub(crate) struct Destination {
    /// The port inside.
    pub(crate) port: u16,
    /// What stands before the path that the sandbox sees, without a slash at its end.
    pub(crate) prefix: String,
}

/// Sends the request on, and gives the answer.
pub(crate) async fn forward(
    app: &App,
    channel: Channel,
    to: &Destination,
    mut request: Request,
) -> Answer<Response> {
    let client = request.extensions_mut().remove::<OnUpgrade>();
    let wants_socket = is_websocket(request.headers());
    let is_opaque = request
        .headers()
        .get(header::ORIGIN)
        .is_some_and(|origin| origin.as_bytes() == b"null");
    let outgoing = towards(to, request, wants_socket)?;

    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(channel.stream))
        .await
        .map_err(|error| broken(&error))?;
    let stop = app.stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            outcome = connection.with_upgrades() => if let Err(error) = outcome {
                debug!("the connection into a sandbox broke: {error}");
            },
            () = stop.cancelled() => {}
        }
    });
    let answer = tokio::time::timeout(BEGIN, sender.send_request(outgoing))
        .await
        .map_err(|_| {
            ApiError::new(
                Code::ServiceTimeout,
                format!(
                    "what listens on port {} did not answer within {} s",
                    to.port,
                    BEGIN.as_secs()
                ),
            )
        })?
        .map_err(|error| broken(&error))?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return switched(app, client, answer, wants_socket);
    }
    let (mut parts, body) = answer.into_parts();
    parts.headers = back(parts.headers, to, is_opaque);
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    parts.extensions.insert(Foreign);
    Ok(Response::from_parts(parts, Body::new(body)))
}

fn broken(error: &hyper::Error) -> ApiError {
    Fault::new(
        Code::ServiceTransport,
        format!("what listens there broke off: {error}"),
    )
    .into()
}

/// Whether the client wants a WebSocket (RFC 6455, section 4.1).
fn is_websocket(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE).and_then(|v| v.to_str().ok());
    upgrade.is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket"))
        && tokens(headers).any(|token| token == "upgrade")
}

/// The words of `Connection`, in lower case.
fn tokens(headers: &HeaderMap) -> impl Iterator<Item = String> {
    headers
        .get_all(header::CONNECTION)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(|token| token.trim().to_ascii_lowercase())
}

/// Removes what concerns one connection, those named by `Connection` too.
fn end_to_end(headers: &mut HeaderMap) {
    let named: Vec<_> = tokens(headers)
        .filter_map(|token| HeaderName::try_from(token).ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// The request as the sandbox gets it.
fn towards(to: &Destination, request: Request, wants_socket: bool) -> Answer<http::Request<Body>> {
    let (mut parts, body) = request.into_parts();
    let host = parts.headers.get(header::HOST).cloned();
    let whole = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let inner = whole.strip_prefix(&to.prefix).unwrap_or(whole);
    let inner = if inner.starts_with('/') {
        inner.to_owned()
    } else {
        format!("/{inner}")
    };
    parts.uri = Uri::try_from(inner).map_err(|_| ApiError::field("path", "the path cannot be read"))?;
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    let headers = &mut parts.headers;
    end_to_end(headers);
    for name in OURS {
        headers.remove(name);
    }
    if wants_socket {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    let mut set = |name: &'static str, value: Option<HeaderValue>| {
        if let Some(value) = value {
            headers.insert(name, value);
        }
    };
    // Development servers refuse names they do not know.
    set(
        "host",
        HeaderValue::try_from(format!("localhost:{}", to.port)).ok(),
    );
    set("x-forwarded-host", host);
    set("x-forwarded-prefix", HeaderValue::try_from(&to.prefix).ok());
    Ok(http::Request::from_parts(parts, body))
}

/// The answer's headers as the client gets them.
fn back(mut headers: HeaderMap, to: &Destination, is_opaque: bool) -> HeaderMap {
    end_to_end(&mut headers);
    for name in NOT_THEIRS {
        headers.remove(name);
    }
    if let Some(place) = headers.get(header::LOCATION).and_then(|v| v.to_str().ok())
        && let Some(place) = relocated(place, to)
        && let Ok(place) = HeaderValue::try_from(place)
    {
        headers.insert(header::LOCATION, place);
    }
    // Beside a policy of their own: a browser obeys both.
    headers.append(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("cross-origin"),
    );
    if is_opaque && !headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
        // Its own pages are of no origin, and fetch their own modules and data.
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    }
    headers
}

/// Where a redirect leads from outside; none when it leads elsewhere already.
fn relocated(place: &str, to: &Destination) -> Option<String> {
    let here = [
        format!("http://localhost:{}", to.port),
        format!("http://127.0.0.1:{}", to.port),
    ];
    let path = here
        .iter()
        .find_map(|here| place.strip_prefix(here))
        .unwrap_or(place);
    match path {
        "" => Some(format!("{}/", to.prefix)),
        path if path.starts_with('/') && !path.starts_with("//") => Some(format!("{}{path}", to.prefix)),
        _ => None,
    }
}

/// Joins the two ends of a WebSocket.
fn switched(
    app: &App,
    client: Option<OnUpgrade>,
    mut answer: http::Response<hyper::body::Incoming>,
    wants_socket: bool,
) -> Answer<Response> {
    let (Some(client), true) = (client, wants_socket) else {
        return Err(ApiError::new(
            Code::ServiceTransport,
            "what listens there changed the protocol without being asked to",
        ));
    };
    let inside = hyper::upgrade::on(&mut answer);
    let stop = app.stop.clone();
    tokio::spawn(async move {
        let joined = async {
            let (client, inside) = tokio::try_join!(client, inside)?;
            let (mut client, mut inside) = (TokioIo::new(client), TokioIo::new(inside));
            let _ = copy_bidirectional(&mut client, &mut inside).await;
            Ok::<_, hyper::Error>(())
        };
        tokio::select! {
            outcome = joined => if let Err(error) = outcome {
                debug!("a WebSocket into a sandbox was not joined: {error}");
            },
            () = stop.cancelled() => {}
        }
    });
    let mut headers = answer.headers().clone();
    end_to_end(&mut headers);
    for name in NOT_THEIRS {
        headers.remove(name);
    }
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let mut response = (StatusCode::SWITCHING_PROTOCOLS, headers).into_response();
    response.extensions_mut().insert(Foreign);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to() -> Destination {
        Destination {
            port: 8080,
            prefix: "/p/8080/tok".to_owned(),
        }
    }

    #[test]
    fn the_sandbox_gets_its_own_path_and_no_credential() {
        let request = http::Request::get("http://nimbus.example/p/8080/tok/a/b?x=1")
            .header("host", "nimbus.example")
            .header("authorization", "Bearer nbp_1")
            .header("cookie", "nimbus_sid=1")
            .header("x-nimbus-api-key", "nimbus_ak_1")
            .header("connection", "close, x-secret")
            .header("x-secret", "1")
            .header("accept", "text/html")
            .body(Body::empty())
            .unwrap();
        let sent = towards(&to(), request, false).unwrap();
        assert_eq!(sent.uri(), "/a/b?x=1");
        let headers = sent.headers();
        assert_eq!(headers["host"], "localhost:8080");
        assert_eq!(headers["x-forwarded-host"], "nimbus.example");
        assert_eq!(headers["accept"], "text/html");
        for gone in [
            "authorization",
            "cookie",
            "x-nimbus-api-key",
            "connection",
            "x-secret",
        ] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
    }

    #[test]
    fn a_page_of_a_sandbox_is_an_origin_of_its_own_and_sets_no_cookie() {
        let theirs = HeaderMap::from_iter([
            (header::SET_COOKIE, HeaderValue::from_static("nimbus_sid=stolen")),
            (
                header::CONTENT_SECURITY_POLICY,
                HeaderValue::from_static("default-src 'self'"),
            ),
            (header::LOCATION, HeaderValue::from_static("/login?next=1")),
            (header::CONTENT_TYPE, HeaderValue::from_static("text/html")),
        ]);
        let headers = back(theirs, &to(), true);
        assert!(!headers.contains_key(header::SET_COOKIE));
        assert_eq!(headers.get_all(header::CONTENT_SECURITY_POLICY).iter().count(), 2);
        assert_eq!(headers[header::LOCATION], "/p/8080/tok/login?next=1");
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert_eq!(headers[header::CONTENT_TYPE], "text/html");
    }

    #[test]
    fn redirects_inside_stay_inside() {
        for (place, expected) in [
            ("/x", Some("/p/8080/tok/x")),
            ("http://localhost:8080", Some("/p/8080/tok/")),
            ("http://127.0.0.1:8080/y", Some("/p/8080/tok/y")),
            ("//evil.example/", None),
            ("https://example.org/", None),
            ("next", None),
        ] {
            assert_eq!(relocated(place, &to()).as_deref(), expected, "{place}");
        }
    }

    #[test]
    fn only_a_complete_request_is_one_for_a_websocket() {
        let of = |pairs: &[(HeaderName, &'static str)]| {
            is_websocket(
                &pairs
                    .iter()
                    .map(|(n, v)| (n.clone(), v.parse().unwrap()))
                    .collect(),
            )
        };
        assert!(of(&[
            (header::UPGRADE, "WebSocket"),
            (header::CONNECTION, "keep-alive, Upgrade")
        ]));
        assert!(!of(&[(header::UPGRADE, "websocket")]));
        assert!(!of(&[(header::UPGRADE, "h2c"), (header::CONNECTION, "upgrade")]));
    }
}
