//! The control endpoint, for tests and demonstrations: `/sim/…` with the header `X-Sim-Token`.
//!
//! | Call | Does |
//! | --- | --- |
//! | `GET /sim/state` | everything: guests, tasks, counters |
//! | `GET`, `POST`, `DELETE /sim/faults` | lists, orders, forgets faults |
//! | `POST /sim/vms` | a guest of somebody else |
//! | `POST /sim/vms/{vmid}` `{"lock": "backup"}` | locks a config, or unlocks it with `null` |
//! | `DELETE /sim/vms/{vmid}` | takes a guest away, behind everybody's back |
//! | `POST /sim/nodes/{node}` `{"online": false}` | switches a node off or on |

use std::sync::Arc;

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::auth::same;
use crate::faults::Fault;
use crate::http::{Answer, json_answer};
use crate::sim::{ControlError, ForeignGuest, Sim};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeChange {
    online: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GuestChange {
    lock: Option<String>,
}

pub(crate) async fn serve(sim: &Arc<Sim>, request: Request<Incoming>) -> Answer {
    let given = request
        .headers()
        .get("x-sim-token")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if !same(given, sim.credentials.token_secret.expose_secret()) {
        return refuse(
            StatusCode::UNAUTHORIZED,
            "expected the secret of the token in the header X-Sim-Token",
        );
    }
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, 64 << 10).collect().await else {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "expected a body of at most 64 KiB");
    };
    let body = body.to_bytes();
    let segments: Vec<&str> = parts.uri.path().split('/').skip(2).collect();
    let done = match (&parts.method, segments.as_slice()) {
        (&Method::GET, ["state"]) => Ok(sim.state()),
        (&Method::GET, ["faults"]) => Ok(sim.faults()),
        (&Method::POST, ["faults"]) => read::<Fault>(&body).map(|fault| json!({"id": sim.add_fault(fault)})),
        (&Method::DELETE, ["faults"]) => {
            sim.clear_faults();
            Ok(Value::Null)
        }
        (&Method::POST, ["vms"]) => read::<ForeignGuest>(&body)
            .and_then(|guest| sim.add_guest(guest))
            .map(|(vmid, node)| json!({"vmid": vmid, "node": node})),
        (&Method::POST, ["vms", vmid]) => number(vmid)
            .and_then(|vmid| sim.set_lock(vmid, read::<GuestChange>(&body)?.lock))
            .map(|()| Value::Null),
        (&Method::DELETE, ["vms", vmid]) => number(vmid)
            .and_then(|vmid| sim.remove_guest(vmid))
            .map(|()| Value::Null),
        (&Method::POST, ["nodes", node]) => read::<NodeChange>(&body)
            .and_then(|change| sim.set_online(node, change.online))
            .map(|()| Value::Null),
        _ => return refuse(StatusCode::NOT_FOUND, "no such call"),
    };
    match done {
        Ok(value) => json_answer(StatusCode::OK, &value),
        Err(ControlError(text)) => refuse(StatusCode::BAD_REQUEST, &text),
    }
}

fn refuse(status: StatusCode, text: &str) -> Answer {
    json_answer(status, &json!({"error": text}))
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ControlError> {
    serde_json::from_slice(body).map_err(|e| ControlError(e.to_string()))
}

fn number(text: &str) -> Result<u32, ControlError> {
    text.parse()
        .map_err(|_| ControlError(format!("expected a vmid, got {text:?}")))
}
