//! What boxes fetch and say: the installer, registration, and the worker's verbs over HTTP.
//!
//! A worker shows the token it was given at registration; the scheduler knows whose it is. Older workers say less:
//! no signs of life, no offsets, and they take a job as `{id, image, command, env}`.

use axum::Json;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use nimbus_bus::Key;
use nimbus_errors::{Code, Fault};
use nimbus_gpu_wire::{
    Assignment, Beat, BeatReply, Command, OFFSET_HEADER, Outcome, StatusReport, WORKER_HEADER,
};
use nimbus_gx10_worker::bundle;
use nimbus_model::JobId;
use nimbus_proto::auth::Secret;
use nimbus_proto::gpu::{
    CheckPairing, ChunkRequest, ClaimRequest, Register, WorkerArtifact, WorkerBeat, WorkerBeatRequest,
    WorkerClaim, WorkerCredential, WorkerFinish, WorkerFinishRequest, WorkerLog,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Refused;
use crate::access::{Origin, box_token};
use crate::envelope::{Answer, ApiError, request_id, wants_text};
use crate::extract::{Body, Id, Params, bytes_of};
use crate::public;
use crate::state::App;
use crate::views::gpu::{RegisteredView, RegistrationBody};

/// How long a claim waits for a job: below the 30 s after which workers give up.
const CLAIM_WAIT_MS: u32 = 20_000;
/// Header by which a worker says that it knows the protocol; its value is the version.
const PROTOCOL_HEADER: &str = "nimbus-protocol";

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(install))
        .routes(routes!(script))
        .routes(routes!(register))
        .routes(routes!(beat))
        .routes(routes!(claim))
        .routes(routes!(log))
        .routes(routes!(artifact))
        .routes(routes!(status))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct InstallQuery {
    /// The pairing token.
    #[param(value_type = String)]
    token: Secret,
}

/// The script that makes a box a worker.
///
/// It carries the pairing token and the digest of everything that it fetches.
#[utoipa::path(get, path = "/api/gpu/install.sh", operation_id = "gpu_installer", tag = "GPU", params(InstallQuery),
    responses((status = 200, body = String, content_type = "text/x-shellscript"), Refused))]
async fn install(
    State(app): State<App>,
    origin: Origin,
    headers: HeaderMap,
    Params(query): Params<InstallQuery>,
) -> Answer<Response> {
    app.ask::<CheckPairing>(&query.token).await?;
    let base = public::base(&app, origin, &headers)?;
    let script =
        bundle::install_script(&public::text(&base), query.token.reveal()).map_err(|error| match error {
            bundle::BundleError::Address(_) => ApiError::new(Code::GpuPairingUnreachable, error.to_string()),
            bundle::BundleError::Token => ApiError::new(Code::GpuPairingInvalid, error.to_string()),
        })?;
    let headers = [
        (CONTENT_TYPE, "text/x-shellscript; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, script).into_response())
}

/// A file that the installer fetches: a script, or the worker for a processor.
#[utoipa::path(get, path = "/api/gpu/scripts/{name}", operation_id = "gpu_script", tag = "GPU",
    params(("name" = String, Path, description = "Such as `install-worker.sh` or `gx10-worker-aarch64`.")),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"), Refused))]
async fn script(Path(name): Path<String>) -> Answer<Response> {
    let asset = bundle::asset(&name)
        .ok_or_else(|| ApiError::new(Code::OpNotFound, format!("there is no file {name:?} for boxes")))?;
    let headers = [
        (CONTENT_TYPE, asset.content_type),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    let bytes = match &asset.bytes {
        std::borrow::Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        std::borrow::Cow::Owned(bytes) => Bytes::from_static(bytes),
    };
    Ok((headers, bytes).into_response())
}

/// Makes a box a worker, in exchange for a pairing token.
///
/// The token is used up by it. The credentials in the answer are shown this once. With `Accept: text/plain` the answer
/// is lines of `KEY=VALUE`: `WORKER_ID`, `WORKER_TOKEN`, `BASE_URL`, `INFERENCE_API_KEY`, and where the bus can be reached
/// `BUS_URL`, `BUS_CREDENTIALS_B64` and perhaps `BUS_CA_B64`.
#[utoipa::path(post, path = "/api/gpu/register", operation_id = "register_gpu_box", tag = "GPU", request_body = RegistrationBody,
    responses((status = 200, content((RegisteredView = "application/json"), (String = "text/plain"))), Refused))]
async fn register(
    State(app): State<App>,
    headers: HeaderMap,
    Body(body): Body<RegistrationBody>,
) -> Answer<Response> {
    let registered: RegisteredView = app.ask::<Register>(&body.request()?).await?.into();
    if wants_text(&headers) {
        return Ok(lines(&registered).into_response());
    }
    Ok(Json(registered).into_response())
}

fn lines(registered: &RegisteredView) -> String {
    let mut lines = vec![
        ("WORKER_ID", registered.worker_id.clone()),
        ("WORKER_TOKEN", registered.worker_token.clone()),
        ("BASE_URL", registered.base_url.clone()),
        ("INFERENCE_API_KEY", registered.inference_api_key.clone()),
    ];
    if let Some(bus) = &registered.bus {
        lines.push(("BUS_URL", bus.url.clone()));
        lines.push(("BUS_CREDENTIALS_B64", STANDARD.encode(&bus.credentials)));
        if let Some(ca) = &bus.ca_pem {
            lines.push(("BUS_CA_B64", STANDARD.encode(ca)));
        }
    }
    lines
        .into_iter()
        .map(|(key, value)| format!("{key}={value}\n"))
        .collect()
}

/// A worker, by what it shows.
struct Worker {
    credential: WorkerCredential,
    judge: Judge,
    /// Whether it knows the protocol.
    is_current: bool,
}

/// Remembers whether the scheduler took a credential for good.
#[derive(Clone, Copy)]
struct Judge([u8; 32]);

impl Judge {
    fn of<T>(self, app: &App, answer: Result<T, Fault>) -> Result<T, Fault> {
        match &answer {
            Ok(_) => app.throttle.judged(&self.0, true),
            Err(fault) if fault.is(Code::GpuWorkerUnknown) => app.throttle.judged(&self.0, false),
            Err(_) => {}
        }
        answer
    }
}

impl FromRequestParts<App> for Worker {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, ApiError> {
        let text = |name: &str| {
            parts
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
        };
        let (token, digest) =
            box_token(&parts.headers).ok_or_else(|| ApiError::unauthorized("missing bearer token"))?;
        Ok(Self {
            credential: WorkerCredential {
                worker: text(WORKER_HEADER).chars().take(64).collect(),
                token: Secret::new(token),
            },
            judge: Judge(digest),
            is_current: parts.headers.contains_key(PROTOCOL_HEADER),
        })
    }
}

/// A worker's sign of life.
///
/// The answer says what to stop and when to come again.
#[utoipa::path(post, path = "/api/gpu/worker/beat", operation_id = "gpu_worker_beat", tag = "GPU workers",
    params(("X-Worker-ID" = Option<String>, Header, description = "The worker's name.")),
    security(("worker" = [])), request_body(content = Object, description = "What it holds and how the box is."),
    responses((status = 200, body = Object, description = "What to stop, and when to come again."), Refused))]
async fn beat(State(app): State<App>, worker: Worker, Body(beat): Body<Beat>) -> Answer<Json<BeatReply>> {
    let request = WorkerBeatRequest {
        credential: worker.credential,
        beat,
    };
    let answer = app.ask_keyed::<WorkerBeat>(key(), &request).await;
    Ok(Json(worker.judge.of(&app, answer)?))
}

fn key() -> Key {
    Key::of(request_id())
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ClaimQuery {
    /// How long to wait for a job; 20 000 when absent, and at most.
    wait_ms: Option<u32>,
}

/// A job as older workers take it.
#[derive(Serialize, ToSchema)]
struct PlainJob {
    /// Its id.
    id: String,
    /// Reference of its image.
    image: String,
    /// A line for `sh -c`; left out for what the image says.
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    /// Its own environment.
    env: std::collections::BTreeMap<String, String>,
}

impl From<Assignment> for PlainJob {
    fn from(assignment: Assignment) -> Self {
        Self {
            id: assignment.job,
            image: assignment.image,
            command: match assignment.command {
                Command::Image => None,
                Command::Shell(line) => Some(line),
                Command::Argv(arguments) => Some(crate::views::gpu::shell_line(&arguments)),
            },
            env: assignment
                .env
                .into_iter()
                .map(|var| (var.name, var.value))
                .collect(),
        }
    }
}

/// The next job of a worker.
///
/// Waits for one, and answers 204 when there is none. A worker that knows the protocol says so with `Nimbus-Protocol: 1`
/// and is given an assignment; others get `{id, image, command, env}`.
#[utoipa::path(post, path = "/api/gpu/worker/claim", operation_id = "gpu_worker_claim", tag = "GPU workers", params(ClaimQuery,
    ("X-Worker-ID" = Option<String>, Header, description = "The worker's name."),
    ("Nimbus-Protocol" = Option<String>, Header, description = "Version of the protocol that the worker knows.")),
    security(("worker" = [])), responses((status = 200, body = Object, description = "The job."),
        (status = 204, description = "There is none."), Refused))]
async fn claim(
    State(app): State<App>,
    worker: Worker,
    Params(query): Params<ClaimQuery>,
) -> Answer<Response> {
    let request = ClaimRequest {
        credential: worker.credential,
        wait_ms: query.wait_ms.unwrap_or(CLAIM_WAIT_MS).min(CLAIM_WAIT_MS),
    };
    let answer = app.ask_keyed::<WorkerClaim>(key(), &request).await;
    let assignment = worker.judge.of(&app, answer)?;
    Ok(match assignment {
        None => StatusCode::NO_CONTENT.into_response(),
        Some(assignment) if worker.is_current => Json(assignment).into_response(),
        Some(assignment) => Json(PlainJob::from(assignment)).into_response(),
    })
}

/// A piece of a log or an artifact.
async fn chunk(worker: Worker, job: JobId, request: Request) -> Answer<(bool, ChunkRequest)> {
    let offset = request.headers().get(OFFSET_HEADER).map(|value| {
        value
            .to_str()
            .ok()
            .and_then(|text| text.trim().parse::<u64>().ok())
            .ok_or_else(|| {
                ApiError::field(
                    OFFSET_HEADER,
                    format!("{OFFSET_HEADER}: expected a number of bytes"),
                )
            })
    });
    let offset = offset.transpose()?;
    let bytes = bytes_of(request).await?;
    let request = ChunkRequest {
        credential: worker.credential,
        job: job.to_string(),
        offset,
        bytes: bytes.into(),
    };
    Ok((offset.is_some(), request))
}

/// A piece of a job's log.
///
/// With `Nimbus-Offset` the answer says how much of the log is here; without, as older workers send it, it is put at the end.
#[utoipa::path(post, path = "/api/gpu/worker/jobs/{id}/logs", operation_id = "gpu_worker_log", tag = "GPU workers",
    params(("id" = String, Path, description = "The job, `job_…`."),
        ("Nimbus-Offset" = Option<u64>, Header, description = "Place of the first byte in the log.")),
    security(("worker" = [])), request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = Object, description = "How much is here."), (status = 204, description = "Taken."), Refused))]
async fn log(
    State(app): State<App>,
    worker: Worker,
    Id(id): Id<JobId>,
    request: Request,
) -> Answer<Response> {
    let judge = worker.judge;
    let (counts, request) = chunk(worker, id, request).await?;
    let ack = judge.of(&app, app.ask_keyed::<WorkerLog>(key(), &request).await)?;
    Ok(if counts {
        Json(ack).into_response()
    } else {
        StatusCode::NO_CONTENT.into_response()
    })
}

/// A piece of what a job left, as `.tar.gz`.
#[utoipa::path(post, path = "/api/gpu/worker/jobs/{id}/artifact", operation_id = "gpu_worker_artifact", tag = "GPU workers",
    params(("id" = String, Path, description = "The job, `job_…`."),
        ("Nimbus-Offset" = Option<u64>, Header, description = "Place of the first byte.")),
    security(("worker" = [])), request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = Object, description = "How much is here."), Refused))]
async fn artifact(
    State(app): State<App>,
    worker: Worker,
    Id(id): Id<JobId>,
    request: Request,
) -> Answer<Response> {
    let judge = worker.judge;
    let (_, request) = chunk(worker, id, request).await?;
    let ack = judge.of(&app, app.ask_keyed::<WorkerArtifact>(key(), &request).await)?;
    Ok(Json(ack).into_response())
}

/// The end of a job.
///
/// `outcome` tells everything; older workers leave it out, and get 204.
#[utoipa::path(post, path = "/api/gpu/worker/jobs/{id}/status", operation_id = "gpu_worker_status", tag = "GPU workers",
    params(("id" = String, Path, description = "The job, `job_…`.")),
    security(("worker" = [])), request_body(content = Object, description = "`{status, exit_code, error_msg, outcome}`."),
    responses((status = 200, body = Object, description = "Whether it counted."), (status = 204, description = "Taken."), Refused))]
async fn status(
    State(app): State<App>,
    worker: Worker,
    Id(id): Id<JobId>,
    Body(report): Body<StatusReport>,
) -> Answer<Response> {
    let is_full = report.outcome.is_some();
    let outcome = report.outcome.unwrap_or(Outcome {
        attempt: 0,
        state: report.status,
        exit_code: report.exit_code,
        code: None,
        error: report.error_msg.filter(|text| !text.is_empty()),
        log_bytes: 0,
        artifact_bytes: None,
        artifact_sha256: None,
        artifact_note: None,
        started_at: None,
        finished_at: None,
    });
    let request = WorkerFinishRequest {
        credential: worker.credential,
        job: id.to_string(),
        outcome,
    };
    let ack = worker
        .judge
        .of(&app, app.ask_keyed::<WorkerFinish>(key(), &request).await)?;
    Ok(if is_full {
        Json(ack).into_response()
    } else {
        StatusCode::NO_CONTENT.into_response()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::gpu::BusAccessView;

    #[test]
    fn credentials_are_lines_that_a_shell_reads_with_nothing_to_unquote() {
        let registered = RegisteredView {
            worker_id: "gx10".into(),
            worker_token: "aa".into(),
            base_url: "http://10.0.0.9:8000".into(),
            inference_api_key: "bb".into(),
            bus: Some(BusAccessView {
                url: "tls://n:4222".into(),
                ca_pem: Some("-----BEGIN\nX=\n".into()),
                credentials: "line\nline\n".into(),
            }),
        };
        let text = lines(&registered);
        assert_eq!(text.lines().count(), 7, "{text}");
        assert!(
            text.contains("BUS_CREDENTIALS_B64=bGluZQpsaW5lCg==\n") && text.contains("BUS_CA_B64="),
            "{text}"
        );
        let alone = lines(&RegisteredView {
            bus: None,
            ..registered
        });
        assert_eq!(alone.lines().count(), 4, "{alone}");
    }
}
