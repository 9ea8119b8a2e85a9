//! Machines.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderName, StatusCode};
use nimbus_bus::Key;
use nimbus_errors::{Code, Fault};
use nimbus_model::MachineId;
use nimbus_proto::machine::{
    ClaimKey, Create, CreateRequest, Delete, Get, KeyChoice, List, ListRequest, Operation, OperationState,
    Power, PowerAction, PowerRequest, Reconcile, StepState,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tracing::Instrument;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Refused;
use crate::envelope::{Answer, ApiError, Data, Face, FaultView, Page, answering, request_id};
use crate::extract::{Admin, Body, Id, Params, Signed};
use crate::follow::{Follow, failure};
use crate::state::App;
use crate::views::machine::{CreateBody, MachineReconcileView, MachineView, ProvisionView};
use crate::views::operation::{OperationView, duration_ms};

const NDJSON: &str = "application/x-ndjson";
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(reconcile))
        .routes(routes!(get, delete))
        .routes(routes!(start))
        .routes(routes!(shutdown))
        .routes(routes!(stop))
        .routes(routes!(reboot))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// At most this many, 1 to 500; 100 when absent.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// The caller's machines, newest first.
#[utoipa::path(get, path = "/api/vms", operation_id = "list_vms", tag = "Machines", params(ListQuery),
    security(("session" = []), ("token" = [])), responses((status = 200, body = Page<MachineView>), Refused))]
async fn list(
    State(app): State<App>,
    signed: Signed,
    Params(query): Params<ListQuery>,
) -> Answer<Page<MachineView>> {
    let limit = query.limit.unwrap_or(100);
    if !(1..=500).contains(&limit) {
        return Err(ApiError::field(
            "limit",
            format!("limit: expected 1 to 500, got {limit}"),
        ));
    }
    let before = query.cursor.map(|c| c.parse::<MachineId>()).transpose();
    let before = before
        .map_err(|_| ApiError::field("cursor", "cursor: expected the next_cursor of an earlier answer"))?;
    // One more than asked for tells whether there is another page.
    let mut machines = app
        .ask_for::<List>(
            &signed.principal,
            &ListRequest {
                limit: limit + 1,
                before,
            },
        )
        .await?;
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let next_cursor = if machines.len() > wanted {
        machines.truncate(wanted);
        machines.last().map(|machine| machine.id.to_string())
    } else {
        None
    };
    Ok(Page {
        success: true,
        data: machines.into_iter().map(MachineView::from).collect(),
        next_cursor,
    })
}

/// One of the caller's machines.
#[utoipa::path(get, path = "/api/vms/{id}", operation_id = "get_vm", tag = "Machines",
    params(("id" = String, Path, description = "The machine, `vm_…`.")), security(("session" = []), ("token" = [])),
    responses((status = 200, body = Data<MachineView>), Refused))]
async fn get(State(app): State<App>, signed: Signed, Id(id): Id<MachineId>) -> Answer<Data<MachineView>> {
    Ok(Data::of(app.ask_for::<Get>(&signed.principal, &id).await?.into()))
}

/// One line of the stream that `POST /api/vms` answers with on `Accept: application/x-ndjson`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line {
    /// The first line: what to ask for, should the stream break.
    OperationId {
        /// The operation, `op_…`.
        operation_id: String,
    },
    /// A step is done.
    Progress {
        /// Its stable name.
        step: String,
        /// Its name for people.
        label: String,
        /// How long it took.
        duration_ms: u64,
    },
    /// The last line of a success.
    Result {
        /// The machine.
        data: Box<ProvisionView>,
    },
    /// The last line of a failure.
    Error {
        /// `validation`, `conflict`, `not_found` or `internal`.
        code: &'static str,
        /// What went wrong, for people.
        message: String,
        /// What went wrong, for programs.
        fault: Box<FaultView>,
    },
}

/// Orders a machine.
///
/// Answers when it is made (up to 30 minutes). With `Accept: application/x-ndjson` the answer is a stream of lines, one when
/// each step is done; with `Prefer: respond-async` it is the operation, at once. The work goes on when the client leaves.
/// A repeat with the same `Idempotency-Key` gives the same operation.
#[utoipa::path(post, path = "/api/vms", operation_id = "create_vm", tag = "Machines", request_body = CreateBody,
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters."),
        ("Prefer" = Option<String>, Header, description = "`respond-async` to not wait."),
    ),
    security(("session" = []), ("token" = [])),
    responses(
        (status = 200, description = "Made.", content((Data<ProvisionView> = "application/json"), (Line = "application/x-ndjson"))),
        (status = 202, body = Data<OperationView>, description = "Being made; `Location` names the operation."),
        Refused))]
async fn create(
    State(app): State<App>,
    signed: Signed,
    headers: HeaderMap,
    Body(body): Body<CreateBody>,
) -> Answer<Response> {
    let request = order(body)?;
    let generated = request.key == KeyChoice::Generate;
    let key = idempotency_key(&signed, "create", &headers)?;
    let operation = app.ask_once::<Create>(&signed.principal, key, &request).await?;
    if wants(&headers, ACCEPT, NDJSON) {
        return Ok(narrate(app, signed, operation, generated));
    }
    if wants_async(&headers) {
        return Ok(accepted(operation));
    }
    let operation = Follow::new(&app, &signed, operation.id).end().await?;
    Ok(Data::of(outcome(&app, &signed, &operation, generated).await?).into_response())
}

fn order(body: CreateBody) -> Answer<CreateRequest> {
    let public = body
        .ssh_pubkey
        .as_deref()
        .map(str::trim)
        .filter(|key| !key.is_empty());
    let key = match (public, body.generate_key.unwrap_or(false)) {
        (Some(key), false) => KeyChoice::Public(key.to_owned()),
        (None, true) => KeyChoice::Generate,
        (Some(_), true) => {
            return Err(ApiError::field(
                "generate_key",
                "generate_key: give either ssh_pubkey or generate_key, not both",
            ));
        }
        (None, false) => {
            return Err(ApiError::field(
                "ssh_pubkey",
                "ssh_pubkey: give an OpenSSH public key, or generate_key: true",
            ));
        }
    };
    if body.enable_gpu.unwrap_or(false) {
        return Err(ApiError::field(
            "enable_gpu",
            "enable_gpu: this installation has no GPUs to give",
        ));
    }
    Ok(CreateRequest {
        hostname: body.hostname,
        tier: body.tier,
        os: body.os_template,
        key,
        public_tunnel: body.public_tunnel.unwrap_or(false),
    })
}

/// What a finished operation gave, with the private key when it is there to be had.
async fn outcome(
    app: &App,
    signed: &Signed,
    operation: &Operation,
    generated: bool,
) -> Result<ProvisionView, Fault> {
    let result = match (&operation.result, operation.state) {
        (Some(result), OperationState::Succeeded) => result.clone(),
        _ => return Err(failure(operation)),
    };
    if !(generated && result.has_private_key) {
        return Ok(ProvisionView::of(result, None));
    }
    let claimed = async {
        let principal = app.principals.find(&signed.credential).await?;
        app.ask_for::<ClaimKey>(&principal, &operation.id).await
    };
    Ok(match claimed.await {
        Ok(key) => ProvisionView::of(result, Some(key)),
        // A repeat of the request: the key was in the first answer.
        Err(fault) if fault.is(Code::MachineKeyClaimed) => ProvisionView::of(result, None),
        Err(fault) => {
            let mut view = ProvisionView::of(result, None);
            let hint = format!(
                "the private key could not be fetched ({fault}); try POST /api/operations/{}/private-key",
                operation.id
            );
            view.warning = Some(
                view.warning
                    .map_or(hint.clone(), |warning| format!("{warning}; {hint}")),
            );
            view
        }
    })
}

fn narrate(app: App, signed: Signed, operation: Operation, generated: bool) -> Response {
    let (send, receive) = mpsc::channel(16);
    let work = answering(request_id(), Face::Machines, async move {
        tell(&app, &signed, operation, generated, &send).await
    });
    tokio::spawn(work.in_current_span());
    let lines = ReceiverStream::new(receive).map(Ok::<Bytes, Infallible>);
    let headers = [(CONTENT_TYPE, NDJSON), (CACHE_CONTROL, "no-cache, no-transform")];
    (headers, axum::body::Body::from_stream(lines)).into_response()
}

async fn tell(app: &App, signed: &Signed, operation: Operation, generated: bool, out: &mpsc::Sender<Bytes>) {
    let mut follow = Follow::new(app, signed, operation.id);
    // Sending fails when the client has left; the work does not depend on us.
    if say(
        out,
        &Line::OperationId {
            operation_id: operation.id.to_string(),
        },
    )
    .await
    .is_err()
    {
        return;
    }
    let mut told = 0;
    let last = loop {
        let next = tokio::select! {
            next = follow.next() => next,
            () = out.closed() => return,
        };
        let operation: Arc<Operation> = match next {
            Ok(operation) => operation,
            Err(fault) => break Err(fault),
        };
        for step in operation
            .steps
            .iter()
            .skip(told)
            .take_while(|step| step.state == StepState::Done)
        {
            let duration_ms = duration_ms(step).unwrap_or(0);
            let line = Line::Progress {
                step: step.key.clone(),
                label: step.label.clone(),
                duration_ms,
            };
            if say(out, &line).await.is_err() {
                return;
            }
            told += 1;
        }
        if operation.state.is_final() {
            // Somebody who has left can still fetch the key later.
            break if out.is_closed() {
                return;
            } else {
                outcome(app, signed, &operation, generated).await
            };
        }
    };
    let line = match last {
        Ok(view) => Line::Result { data: Box::new(view) },
        Err(fault) => Line::Error {
            code: match fault.entry().http_status {
                400 | 413 | 415 | 422 => "validation",
                404 => "not_found",
                409 | 412 | 429 => "conflict",
                _ => "internal",
            },
            message: fault.message.clone(),
            fault: Box::new(FaultView::now(&fault)),
        },
    };
    let _ = say(out, &line).await;
}

async fn say(out: &mpsc::Sender<Bytes>, line: &Line) -> Result<(), mpsc::error::SendError<Bytes>> {
    // Plain values: nothing in a line can fail to become JSON.
    let mut bytes = serde_json::to_vec(line).unwrap_or_default();
    bytes.push(b'\n');
    out.send(bytes.into()).await
}

/// Deletes a machine.
///
/// Answers when it is gone. With `Prefer: respond-async` the answer is the operation, at once.
#[utoipa::path(delete, path = "/api/vms/{id}", operation_id = "delete_vm", tag = "Machines",
    params(("id" = String, Path, description = "The machine, `vm_…`."),
        ("Prefer" = Option<String>, Header, description = "`respond-async` to not wait.")),
    security(("session" = []), ("token" = [])),
    responses((status = 204, description = "Deleted."),
        (status = 202, body = Data<OperationView>, description = "Being deleted."), Refused))]
async fn delete(
    State(app): State<App>,
    signed: Signed,
    headers: HeaderMap,
    Id(id): Id<MachineId>,
) -> Answer<Response> {
    let key = idempotency_key(&signed, "delete", &headers)?;
    let operation = app.ask_once::<Delete>(&signed.principal, key, &id).await?;
    done(&app, &signed, &headers, operation).await
}

async fn power(
    app: &App,
    signed: &Signed,
    headers: &HeaderMap,
    machine: MachineId,
    action: PowerAction,
) -> Answer<Response> {
    let verb: &str = action.into();
    let key = idempotency_key(signed, verb, headers)?;
    let operation = app
        .ask_once::<Power>(&signed.principal, key, &PowerRequest { machine, action })
        .await?;
    done(app, signed, headers, operation).await
}

/// 204 when the operation is done, or 202 at once when the client does not want to wait.
async fn done(app: &App, signed: &Signed, headers: &HeaderMap, operation: Operation) -> Answer<Response> {
    if wants_async(headers) {
        return Ok(accepted(operation));
    }
    let operation = Follow::new(app, signed, operation.id).end().await?;
    match operation.state {
        OperationState::Succeeded => Ok(StatusCode::NO_CONTENT.into_response()),
        _ => Err(failure(&operation).into()),
    }
}

macro_rules! power_route {
    ($name:ident, $path:literal, $id:literal, $action:ident, $summary:literal) => {
        #[doc = $summary]
        #[doc = ""]
        #[doc = "Answers when it is done. With `Prefer: respond-async` the answer is the operation, at once."]
        #[utoipa::path(post, path = $path, operation_id = $id, tag = "Machines",
                    params(("id" = String, Path, description = "The machine, `vm_…`."),
                        ("Prefer" = Option<String>, Header, description = "`respond-async` to not wait.")),
                    security(("session" = []), ("token" = [])),
                    responses((status = 204, description = "Done."),
                        (status = 202, body = Data<OperationView>, description = "Being done."), Refused))]
        async fn $name(
            State(app): State<App>,
            signed: Signed,
            headers: HeaderMap,
            Id(id): Id<MachineId>,
        ) -> Answer<Response> {
            power(&app, &signed, &headers, id, PowerAction::$action).await
        }
    };
}

power_route!(
    start,
    "/api/vms/{id}/start",
    "start_vm",
    Start,
    "Powers a machine on."
);
power_route!(
    shutdown,
    "/api/vms/{id}/shutdown",
    "shutdown_vm",
    Shutdown,
    "Asks a machine's guest to power off."
);
power_route!(
    stop,
    "/api/vms/{id}/stop",
    "stop_vm",
    Stop,
    "Powers a machine off at once."
);
power_route!(
    reboot,
    "/api/vms/{id}/reboot",
    "reboot_vm",
    Reboot,
    "Asks a machine's guest to restart."
);

/// Compares the machines' rows with the cluster now.
#[utoipa::path(post, path = "/api/vms/reconcile", operation_id = "reconcile_vms", tag = "Cluster",
    security(("session" = []), ("token" = [])), responses((status = 200, body = Data<MachineReconcileView>), Refused))]
async fn reconcile(State(app): State<App>, Admin(signed): Admin) -> Answer<Data<MachineReconcileView>> {
    let report = app
        .ask_once::<Reconcile>(&signed.principal, Key::of(request_id()), &())
        .await?;
    Ok(Data::of(report.into()))
}

fn accepted(operation: Operation) -> Response {
    let location = format!("/api/operations/{}", operation.id);
    let headers = [
        (LOCATION, location),
        (PREFERENCE_APPLIED, "respond-async".to_owned()),
    ];
    (
        StatusCode::ACCEPTED,
        headers,
        Data::of(OperationView::from(operation)),
    )
        .into_response()
}

/// RFC 7240: preferences are separated by commas, each with parameters after a semicolon.
fn wants_async(headers: &HeaderMap) -> bool {
    wants(headers, HeaderName::from_static("prefer"), "respond-async")
}

fn wants(headers: &HeaderMap, name: HeaderName, value: &str) -> bool {
    let lines = headers
        .get_all(name)
        .into_iter()
        .filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|one| {
        one.split(';')
            .next()
            .is_some_and(|one| one.trim().eq_ignore_ascii_case(value))
    })
}

/// The client's key within its user's own, so that nobody can use up another's; without one, the
/// request itself, so that the bus may send it twice.
pub(super) fn idempotency_key(signed: &Signed, what: &str, headers: &HeaderMap) -> Answer<Key> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(Key::of(request_id()));
    };
    let text = value
        .to_str()
        .ok()
        .filter(|text| (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()));
    let text = text.ok_or_else(|| {
        ApiError::field(
            "Idempotency-Key",
            "Idempotency-Key: expected 1 to 255 visible ASCII characters",
        )
    })?;
    let digest = hex::encode(Sha256::digest(text.as_bytes()));
    Ok(Key::new(format!(
        "{}:{what}:{digest}",
        signed.principal.identity.user
    )))
}
