//! One request: the order of checks, the words and the manners of PVE's web server.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, SERVER, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use serde_json::{Value, json};

use crate::auth::Caller;
use crate::calls::{self, Call, Route};
use crate::control;
use crate::error::ApiError;
use crate::faults::{Fault, FaultMode};
use crate::params::{Params, Raw};
use crate::sim::{Exchange, Sim};
use crate::timing::Step;

/// Longest body PVE reads.
const MAX_BODY: usize = 512 << 10;
/// Requests after which PVE closes a connection.
const MAX_REQUESTS: u32 = 100;

pub(crate) type Answer = Response<Full<Bytes>>;

/// Ends the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection is cut as ordered")]
pub(crate) struct Cut;

/// What is known of a connection.
#[derive(Default)]
pub(crate) struct Peer {
    requests: AtomicU32,
}

/// Answers one request.
pub(crate) async fn serve(sim: Arc<Sim>, peer: Arc<Peer>, request: Request<Incoming>) -> Result<Answer, Cut> {
    let path = request.uri().path().to_owned();
    let mut answer = if let Some(path) = path.strip_prefix("/api2/json") {
        let path = path.to_owned();
        api(&sim, &path, request).await?
    } else if path.starts_with("/sim/") {
        control::serve(&sim, request).await
    } else if path == "/" {
        plain(
            StatusCode::OK,
            "Proxmox VE API simulator of Nimbus. The API is at /api2/json.\n",
        )
    } else {
        plain(StatusCode::NOT_FOUND, "no such file\n")
    };
    let served = peer.requests.fetch_add(1, Ordering::Relaxed) + 1;
    if answer.status().as_u16() >= 400 || served >= MAX_REQUESTS {
        answer
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(answer)
}

fn plain(status: StatusCode, text: &'static str) -> Answer {
    let mut answer = Response::new(Full::from(text));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain;charset=UTF-8"));
    answer
}

/// A JSON answer.
pub(crate) fn json_answer(status: StatusCode, body: &Value) -> Answer {
    let mut answer = Response::new(Full::from(body.to_string()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/json;charset=UTF-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=0"));
    headers.insert(SERVER, HeaderValue::from_static("pve-api-daemon/3.0"));
    answer
}

fn refusal(error: &ApiError) -> Answer {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let message = error.message.trim_end();
    let mut answer = if error.status == 401 {
        let mut bare = Response::new(Full::default());
        *bare.status_mut() = status;
        bare
    } else {
        let mut body = json!({"data": null, "message": format!("{message}\n")});
        if let (false, Some(fields)) = (error.errors.is_empty(), body.as_object_mut()) {
            fields.insert("errors".to_owned(), json!(error.errors));
        }
        json_answer(status, &body)
    };
    // A phrase is one line.
    if let Ok(phrase) = ReasonPhrase::try_from(message.replace(['\r', '\n'], " ").into_bytes()) {
        answer.extensions_mut().insert(phrase);
    }
    answer
}

async fn pause(sim: &Sim, step: Option<Step>) {
    let Some(step) = step else { return };
    if sim.is_manual() {
        return;
    }
    let millis = sim.with_world(|world| world.timing.fixed(step));
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

async fn api(sim: &Arc<Sim>, path: &str, request: Request<Incoming>) -> Result<Answer, Cut> {
    match admit(sim, path, &request) {
        Ok((route, values, caller)) => call(sim, route, values, &caller, path, request).await,
        Err(error) => {
            pause(sim, error.after).await;
            Ok(refusal(&error))
        }
    }
}

type Admitted = (&'static Route, Vec<(String, String)>, Caller);

/// Everything PVE looks at before it reads the body.
fn admit(sim: &Sim, path: &str, request: &Request<Incoming>) -> Result<Admitted, ApiError> {
    let (method, headers) = (request.method(), request.headers());
    if ![Method::GET, Method::POST, Method::PUT, Method::DELETE].contains(method) {
        return Err(ApiError::new(501, format!("method '{method}' not available")));
    }
    let changes = method != Method::GET;
    let caller = if path == "/access/ticket" {
        Caller {
            user: "root@pam".to_owned(),
            token: None,
        }
    } else {
        let now = sim.with_world(|world| world.unix());
        sim.credentials.caller(headers, changes, now)?
    };
    if headers.contains_key(TRANSFER_ENCODING) {
        return Err(ApiError::new(501, "chunked transfer encoding not supported"));
    }
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok())
        .unwrap_or(0);
    if length > 0 && !matches!(*method, Method::POST | Method::PUT) {
        return Err(ApiError::new(
            501,
            format!("Unexpected content for method '{method}'"),
        ));
    }
    if length > MAX_BODY {
        return Err(ApiError::new(501, "for data too large"));
    }
    let not_there = || ApiError::new(501, format!("Method '{method} {path}' not implemented"));
    let (route, values) = calls::find(method.as_str(), path).ok_or_else(not_there)?;
    Ok((route, values, caller))
}

async fn call(
    sim: &Arc<Sim>,
    route: &'static Route,
    values: Vec<(String, String)>,
    caller: &Caller,
    path: &str,
    request: Request<Incoming>,
) -> Result<Answer, Cut> {
    sim.count(route.method, route.template);
    let fault = sim.take_fault(route.method, route.template, path);
    if let Some(Fault {
        mode: FaultMode::Delay { ms },
        ..
    }) = &fault
    {
        tokio::time::sleep(Duration::from_millis(*ms)).await;
    }
    if let Some(fault) = fault.as_ref().filter(|fault| !fault.after)
        && let Some(answer) = broken(fault).await?
    {
        return Ok(answer);
    }
    let mut params = Params::default();
    let result = match read(request).await.and_then(|raw| check(sim, route, values, raw)) {
        Ok(checked) => {
            params = checked;
            Ok(carry_out(sim, route, caller, &params, fault.as_ref()))
        }
        Err(error) => Err(error),
    }
    .flatten();
    if let Err(error) = &result {
        tracing::debug!(
            method = route.method,
            path,
            status = error.status,
            message = error.message,
            "refused"
        );
        pause(sim, error.after).await;
    }
    if let Some(fault) = fault.as_ref().filter(|fault| fault.after)
        && let Some(answer) = broken(fault).await?
    {
        return Ok(answer);
    }
    if let Some(observer) = &sim.observer {
        let status = result.as_ref().map_or_else(|error| error.status, |_| 200);
        let data = result.as_ref().cloned().unwrap_or_default();
        observer(&Exchange {
            method: route.method,
            template: route.template,
            params: params.to_json(),
            status,
            data,
        });
    }
    Ok(match result {
        Ok(data) => json_answer(StatusCode::OK, &json!({"data": data})),
        Err(error) => refusal(&error),
    })
}

async fn read(request: Request<Incoming>) -> Result<Raw, ApiError> {
    let (parts, body) = request.into_parts();
    let mut raw = Raw::form(parts.uri.query().unwrap_or_default());
    let body = Limited::new(body, MAX_BODY)
        .collect()
        .await
        .map_err(|_| ApiError::new(501, "for data too large"))?
        .to_bytes();
    if body.is_empty() {
        return Ok(raw);
    }
    let kind = parts
        .headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    let more = if kind.starts_with("application/json") {
        Raw::json(&body)?
    } else {
        Raw::form(&String::from_utf8_lossy(&body))
    };
    raw.0.extend(more.0);
    Ok(raw)
}

/// The node of the path first, then all parameters together.
fn check(sim: &Sim, route: &Route, values: Vec<(String, String)>, raw: Raw) -> Result<Params, ApiError> {
    if let Some((_, node)) = values.iter().find(|(name, _)| name == "node") {
        let online = sim.with_world(|world| world.node(node).map(|node| node.online));
        match online {
            Some(true) => {}
            Some(false) => return Err(ApiError::new(595, "No route to host")),
            None => {
                return Err(ApiError::died(format!(
                    "hostname lookup '{node}' failed - failed to get address info for: {node}: Name or service not known"
                )));
            }
        }
    }
    if route.method != "GET"
        && route.template != "/access/ticket"
        && !sim.with_world(|world| world.has_quorum())
    {
        return Err(ApiError::died("cluster not ready - no quorum?"));
    }
    let path = Params::check(Raw(values), &[calls::PATH]);
    let rest = Params::check(raw, route.params);
    match (path, rest) {
        (Ok(path), Ok(rest)) => Ok(rest.with_path(path)),
        (Err(mut a), Err(b)) => {
            a.errors.extend(b.errors);
            Err(a)
        }
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
    }
}

fn carry_out(
    sim: &Sim,
    route: &Route,
    caller: &Caller,
    params: &Params,
    fault: Option<&Fault>,
) -> Result<Value, ApiError> {
    let mode = fault.map(|fault| &fault.mode);
    let doom = match mode {
        Some(FaultMode::TaskFail { exitstatus }) => Some(exitstatus.clone()),
        _ => None,
    };
    let agent = mode != Some(&FaultMode::AgentNever);
    let params = params.clone();
    sim.with_world(|world| {
        let mut call = Call {
            world,
            credentials: &sim.credentials,
            caller,
            params,
            doom,
            agent,
        };
        (route.handler)(&mut call)
    })
}

/// The answer of a fault, if the fault is about the answer.
async fn broken(fault: &Fault) -> Result<Option<Answer>, Cut> {
    match &fault.mode {
        FaultMode::Fail { status, message } => Ok(Some(refusal(&ApiError::new(*status, message.clone())))),
        FaultMode::Garbage => {
            let mut answer = plain(StatusCode::OK, "<html><body>502 Bad Gateway</body></html>");
            answer
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
            Ok(Some(answer))
        }
        FaultMode::Reset => Err(Cut),
        FaultMode::Hang => match std::future::pending::<Infallible>().await {},
        FaultMode::TaskFail { .. } | FaultMode::Delay { .. } | FaultMode::AgentNever => Ok(None),
    }
}
