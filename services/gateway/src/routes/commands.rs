//! Commands inside sandboxes: run, read again, signal, feed.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use nimbus_bus::{AccessToken, Key};
use nimbus_errors::Code;
use nimbus_guest::protocol::{Hello, Reply, Request, Since};
use nimbus_proto::workloads::{Exec, ExecReply, ExecRequest, Through};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{NDJSON, Refused};
use crate::channel::{failure, unexpected};
use crate::envelope::{Answer, ApiError};
use crate::extract::{Body, Params, Signed};
use crate::state::App;
use crate::views::workloads::Items;
use crate::views::workloads::command::{
    AttachQuery, COLLECTED_MS, CommandView, ExecBody, ExecView, FrameView, InputBody, InputView, SignalBody,
    bytes_of, signal_number,
};
use crate::{feed, input};

/// How much of each output a collected command keeps.
const KEPT: u32 = 1024 * 1024;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(exec))
        .routes(routes!(list))
        .routes(routes!(attach))
        .routes(routes!(signal))
        .routes(routes!(give))
}

/// Runs a command.
///
/// Answers when it has ended, with the first MiB of each output. With `Accept: application/x-ndjson` its
/// output comes line by line as it is written, each piece with its offset; should that break, read on
/// with `GET …/commands/{command}?from=`.
#[utoipa::path(post, path = "/api/tenants/{tenant}/sandboxes/{id}/exec", operation_id = "sandboxes.exec", tag = "Commands",
    params(("tenant" = String, Path, description = "The tenant."), ("id" = String, Path, description = "The sandbox.")),
    security(("session" = []), ("token" = [])), request_body = ExecBody,
    responses((status = 200, content((ExecView = "application/json"), (FrameView = "application/x-ndjson"))), Refused))]
async fn exec(
    State(app): State<App>,
    signed: Signed,
    Path((tenant, id)): Path<(String, String)>,
    headers: HeaderMap,
    Body(body): Body<ExecBody>,
) -> Answer<Response> {
    let through = Through::Sandbox { tenant, id };
    let streamed = feed::wants_lines(&headers);
    let (command, stdin) = body.checked(streamed)?;
    let short = command.timeout_ms.is_some_and(|limit| limit <= COLLECTED_MS);
    if !streamed && short {
        let key = Key::of(&command.id);
        let request = ExecRequest {
            through,
            command,
            stdin: stdin.map(Vec::from).unwrap_or_default(),
            keep_bytes: KEPT,
        };
        let reply = app.ask_once::<Exec>(&signed.principal, key, &request).await?;
        return Ok(Json(ExecView::from(reply)).into_response());
    }
    let id = command.id.clone();
    let hello = Hello::Run {
        spec: command,
        since: Since::Offset(0),
        input: stdin.is_some(),
    };
    let attached = app.attach(&signed.principal.token, through, hello).await?;
    if streamed {
        return Ok(feed::command(app, attached, id, None, stdin));
    }
    // One call of the bus is not long enough for it.
    let limit = usize::try_from(KEPT).unwrap_or(usize::MAX);
    let collected = attached
        .attachment
        .collect(stdin, limit)
        .await
        .map_err(|error| failure(error, &attached.handle))?;
    Ok(Json(ExecView::from(ExecReply {
        command: id,
        code: collected.exit.code,
        signal: collected.exit.signal,
        timed_out: collected.exit.timed_out,
        stdout: collected.stdout,
        stderr: collected.stderr,
        truncated: collected.truncated,
    }))
    .into_response())
}

/// The commands of a sandbox that are known, oldest first.
///
/// `main` is its own process.
#[utoipa::path(get, path = "/api/tenants/{tenant}/sandboxes/{id}/commands", operation_id = "commands.list", tag = "Commands",
    params(("tenant" = String, Path, description = "The tenant."), ("id" = String, Path, description = "The sandbox.")),
    security(("session" = []), ("token" = [])), responses((status = 200, body = Items<CommandView>), Refused))]
async fn list(
    State(app): State<App>,
    signed: Signed,
    Path((tenant, id)): Path<(String, String)>,
) -> Answer<Json<Items<CommandView>>> {
    let through = Through::Sandbox { tenant, id };
    match app
        .control(&signed.principal.token, through, Request::Commands)
        .await?
    {
        Reply::Commands(commands) => Ok(Json(Items::of(commands))),
        _ => Err(unexpected().into()),
    }
}

/// What a command has written, and goes on to write.
///
/// Line by line, as `POST …/exec` streams it; begin at any offset that is still kept.
#[utoipa::path(get, path = "/api/tenants/{tenant}/sandboxes/{id}/commands/{command}", operation_id = "commands.attach", tag = "Commands",
    params(("tenant" = String, Path, description = "The tenant."), ("id" = String, Path, description = "The sandbox."),
        ("command" = String, Path, description = "The command."), AttachQuery),
    security(("session" = []), ("token" = [])), responses((status = 200, body = FrameView, content_type = NDJSON), Refused))]
async fn attach(
    State(app): State<App>,
    signed: Signed,
    Path((tenant, id, command)): Path<(String, String, String)>,
    Params(query): Params<AttachQuery>,
) -> Answer<Response> {
    let through = Through::Sandbox { tenant, id };
    let hello = Hello::Attach {
        command: command.clone(),
        since: query.from.map_or(Since::Tail(u64::MAX), Since::Offset),
        input: false,
    };
    let attached = app.attach(&signed.principal.token, through, hello).await?;
    Ok(feed::command(app, attached, command, None, None))
}

/// Sends a signal to a command and everything it started.
#[utoipa::path(post, path = "/api/tenants/{tenant}/sandboxes/{id}/commands/{command}/signal", operation_id = "commands.signal", tag = "Commands",
    params(("tenant" = String, Path, description = "The tenant."), ("id" = String, Path, description = "The sandbox."),
        ("command" = String, Path, description = "The command.")),
    security(("session" = []), ("token" = [])), request_body = SignalBody,
    responses((status = 204, description = "Sent, or the command has ended already."), Refused))]
async fn signal(
    State(app): State<App>,
    signed: Signed,
    Path((tenant, id, command)): Path<(String, String, String)>,
    Body(body): Body<SignalBody>,
) -> Answer<StatusCode> {
    let through = Through::Sandbox { tenant, id };
    send_signal(&app, &signed.principal.token, through, command, &body.signal).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sends a signal by its name.
pub(crate) async fn send_signal(
    app: &App,
    token: &AccessToken,
    through: Through,
    command: String,
    signal: &str,
) -> Answer<()> {
    let signal = signal_number(signal)?;
    let request = Request::Signal { command, signal };
    app.control(token, through, request).await?;
    Ok(())
}

/// Gives input to a command.
///
/// Answers when the command has taken it. With `offset` a repeat is harmless.
#[utoipa::path(post, path = "/api/tenants/{tenant}/sandboxes/{id}/commands/{command}/input", operation_id = "commands.input", tag = "Commands",
    params(("tenant" = String, Path, description = "The tenant."), ("id" = String, Path, description = "The sandbox."),
        ("command" = String, Path, description = "The command.")),
    security(("session" = []), ("token" = [])), request_body = InputBody,
    responses((status = 202, body = InputView), Refused))]
async fn give(
    State(app): State<App>,
    signed: Signed,
    Path((tenant, id, command)): Path<(String, String, String)>,
    Body(body): Body<InputBody>,
) -> Answer<(StatusCode, Json<InputView>)> {
    let through = Through::Sandbox { tenant, id };
    let accepted = take_input(&app, &signed.principal.token, through, command, body).await?;
    Ok((StatusCode::ACCEPTED, Json(InputView { accepted })))
}

/// Everything that an input body can say, in the order: signal, size, bytes, end.
pub(crate) async fn take_input(
    app: &App,
    token: &AccessToken,
    through: Through,
    command: String,
    body: InputBody,
) -> Answer<u64> {
    let has_signal = body.signal.is_some();
    if let Some(signal) = &body.signal {
        send_signal(app, token, through.clone(), command.clone(), signal).await?;
    }
    let bytes: Bytes = bytes_of(body.data, body.encoding, "data")?;
    let given = input::Given {
        offset: body.offset,
        bytes,
        end: body.eof,
        resize: body.resize.map(Into::into),
    };
    match (given.is_nothing(), has_signal) {
        (true, true) => return Ok(0),
        (true, false) => {
            return Err(ApiError::new(
                Code::OpInvalidInput,
                "nothing is given: expected data, eof, resize or signal",
            ));
        }
        (false, _) => {}
    }
    input::give(app, token, through, command, given).await
}
