//! Sessions: expiring leases on one running service or sandbox, and the channels they carry.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use http::header::LOCATION;
use nimbus_errors::{Code, Fault};
use nimbus_guest::protocol::{Reply, Request};
use nimbus_proto::workloads::{
    Channel, CloseSession, CloseSessionRequest, CreateTicket, GetSession, ListRequest, ListSessions,
    OpenSession, OpenSessionRequest, Page, SessionRef, Through,
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::commands::take_input;
use super::{NDJSON, Refused, page_limit};
use crate::browser::{self, BrowserQuery};
use crate::channel::unexpected;
use crate::envelope::{Answer, ApiError};
use crate::extract::{Body, Lenient, Nothing, Once, Params, Signed};
use crate::feed;
use crate::state::App;
use crate::terminal::{self, StdioQuery, Upgrading};
use crate::views::workloads::command::{FrameView, InputBody, InputView};
use crate::views::workloads::session::{
    CloseBody, InputQuery, OpenSessionBody, SessionsQuery, TenantQuery, TicketView, WorkSessionView,
};
use crate::views::workloads::{Collection, at};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, open))
        .routes(routes!(get))
        .routes(routes!(close))
        .routes(routes!(ticket))
        .routes(routes!(cdp))
        .routes(routes!(page))
        .routes(routes!(stdio))
        .routes(routes!(stream))
        .routes(routes!(input))
}

/// A tenant's sessions, by id.
#[utoipa::path(get, path = "/api/sessions", operation_id = "sessions.list", tag = "Sessions", params(SessionsQuery),
    security(("session" = []), ("token" = [])), responses((status = 200, body = Collection<WorkSessionView>), Refused))]
async fn list(
    State(app): State<App>,
    signed: Signed,
    Params(query): Params<SessionsQuery>,
) -> Answer<Json<Collection<WorkSessionView>>> {
    let request = ListRequest {
        tenant: query.tenant_id.clone(),
        page: Page {
            limit: page_limit(query.limit),
            page_token: query.page_token,
            label_key: None,
            label_value: None,
            state: query.state,
        },
    };
    let listing = app.ask_for::<ListSessions>(&signed.principal, &request).await?;
    Ok(Json(Collection::of(query.tenant_id, listing)))
}

/// Opens a session on something that runs.
#[utoipa::path(post, path = "/api/sessions", operation_id = "sessions.open", tag = "Sessions",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat harmless for a day.")),
    security(("session" = []), ("token" = [])), request_body = OpenSessionBody,
    responses((status = 201, body = WorkSessionView), Refused))]
async fn open(
    State(app): State<App>,
    signed: Signed,
    Once(key): Once,
    Body(body): Body<OpenSessionBody>,
) -> Answer<(StatusCode, [(http::HeaderName, String); 1], Json<WorkSessionView>)> {
    let target = body
        .target
        .one()
        .ok_or_else(|| ApiError::field("target", "target: expected either service or sandbox"))?;
    let ttl = body.requested_ttl_ms.map(|ttl| {
        u64::try_from(ttl).ok().filter(|ttl| *ttl > 0).ok_or_else(|| {
            ApiError::field(
                "requestedTtlMs",
                format!("requestedTtlMs: expected more than 0, got {ttl}"),
            )
        })
    });
    let request = OpenSessionRequest {
        tenant: body.tenant_id,
        target,
        channels: body.channels.into_iter().map(Channel::from).collect(),
        ttl_ms: ttl.transpose()?,
    };
    let session = app
        .ask_once::<OpenSession>(&signed.principal, key, &request)
        .await?;
    let place = format!("/api/sessions/{}", session.id);
    Ok((StatusCode::CREATED, [(LOCATION, place)], Json(session.into())))
}

/// One session.
#[utoipa::path(get, path = "/api/sessions/{id}", operation_id = "sessions.get", tag = "Sessions",
    params(("id" = String, Path, description = "The session."), TenantQuery), security(("session" = []), ("token" = [])),
    responses((status = 200, body = WorkSessionView), Refused))]
async fn get(
    State(app): State<App>,
    signed: Signed,
    Path(id): Path<String>,
    Params(query): Params<TenantQuery>,
) -> Answer<Json<WorkSessionView>> {
    let request = SessionRef {
        tenant: query.tenant_id,
        id,
    };
    let session = app.ask_for::<GetSession>(&signed.principal, &request).await?;
    Ok(Json(session.into()))
}

/// Closes a session.
///
/// Its channels end. Closing it again changes nothing.
#[utoipa::path(post, path = "/api/sessions/{id}/close", operation_id = "sessions.close", tag = "Sessions",
    params(("id" = String, Path, description = "The session."), TenantQuery), security(("session" = []), ("token" = [])),
    request_body = Option<CloseBody>, responses((status = 200, body = WorkSessionView), Refused))]
async fn close(
    State(app): State<App>,
    signed: Signed,
    Path(id): Path<String>,
    Params(query): Params<TenantQuery>,
    Once(key): Once,
    Lenient(body): Lenient<CloseBody>,
) -> Answer<Json<WorkSessionView>> {
    let request = CloseSessionRequest {
        session: SessionRef {
            tenant: query.tenant_id,
            id,
        },
        reason: body.reason,
    };
    let session = app
        .ask_once::<CloseSession>(&signed.principal, key, &request)
        .await?;
    Ok(Json(session.into()))
}

/// A ticket for one WebSocket of a session.
///
/// For browsers, which cannot send a header with it. Good once, within 60 seconds.
#[utoipa::path(post, path = "/api/sessions/{id}/tickets", operation_id = "sessions.ticket", tag = "Sessions",
    params(("id" = String, Path, description = "The session."), TenantQuery), security(("session" = []), ("token" = [])),
    request_body = Option<Nothing>, responses((status = 201, body = TicketView), Refused))]
async fn ticket(
    State(app): State<App>,
    signed: Signed,
    Path(id): Path<String>,
    Params(query): Params<TenantQuery>,
    Lenient(Nothing {}): Lenient<Nothing>,
) -> Answer<(StatusCode, Json<TicketView>)> {
    let request = SessionRef {
        tenant: query.tenant_id,
        id,
    };
    let ticket = app.ask_for::<CreateTicket>(&signed.principal, &request).await?;
    let view = TicketView {
        ticket: ticket.ticket.reveal().to_owned(),
        expires_at: at(ticket.expires_at),
    };
    Ok((StatusCode::CREATED, Json(view)))
}

/// A process' input and output as a WebSocket.
///
/// Subprotocol `nimbus.session.v1`. Binary messages, the first byte says what follows: 0 input, 1 output, 2 error
/// output, 3 control as JSON (`opened`, `replay`, `resize`, `eof`, `signal`, `exit`). Without `argv` and `command` it
/// attaches to the main process. Close codes: 4001 expired, 4002 closed, 4003 target gone, 4009 replaced by another.
#[utoipa::path(get, path = "/api/sessions/{id}/channels/stdio", operation_id = "sessions.stdio", tag = "Sessions",
    params(("id" = String, Path, description = "The session."), StdioQuery), security(("session" = []), ("token" = []), ()),
    responses((status = 101, description = "The WebSocket."), Refused))]
async fn stdio(
    State(app): State<App>,
    Path(id): Path<String>,
    Params(query): Params<StdioQuery>,
    upgrading: Upgrading,
) -> Answer<Response> {
    terminal::upgrade(app, id, query, upgrading).await
}

/// The browser's own protocol as a WebSocket, on profile `desktop`.
///
/// Text messages of the Chrome `DevTools` Protocol, browser-level. What would end the browser for others is refused.
#[utoipa::path(get, path = "/api/sessions/{id}/channels/cdp", operation_id = "sessions.cdp", tag = "Sessions",
    params(("id" = String, Path, description = "The session."), BrowserQuery), security(("session" = []), ("token" = []), ()),
    responses((status = 101, description = "The WebSocket."), Refused))]
async fn cdp(
    State(app): State<App>,
    Path(id): Path<String>,
    Params(query): Params<BrowserQuery>,
    upgrading: Upgrading,
) -> Answer<Response> {
    browser::upgrade(app, id, query, Channel::Cdp, upgrading).await
}

/// A page of the browser in a few verbs, as a WebSocket, on profile `desktop`.
///
/// Requests `{"id","method","params"}` with `goto`, `content`, `text`, `screenshot`, `click`, `fill`, `press`, `evaluate`,
/// `waitFor`, `back`, `forward`, `reload`, `close`; answers `{"id","result"}` or `{"id","error"}`; events `{"event",…}`.
#[utoipa::path(get, path = "/api/sessions/{id}/channels/page", operation_id = "sessions.page", tag = "Sessions",
    params(("id" = String, Path, description = "The session."), BrowserQuery), security(("session" = []), ("token" = []), ()),
    responses((status = 101, description = "The WebSocket."), Refused))]
async fn page(
    State(app): State<App>,
    Path(id): Path<String>,
    Params(query): Params<BrowserQuery>,
    upgrading: Upgrading,
) -> Answer<Response> {
    browser::upgrade(app, id, query, Channel::Page, upgrading).await
}

/// A process' input and output, line by line.
///
/// For clients without WebSockets; input goes through `POST …/input`.
#[utoipa::path(get, path = "/api/sessions/{id}/channels/stdio/stream", operation_id = "sessions.stream", tag = "Sessions",
    params(("id" = String, Path, description = "The session."), StdioQuery), security(("session" = []), ("token" = [])),
    responses((status = 200, body = FrameView, content_type = NDJSON), Refused))]
async fn stream(
    State(app): State<App>,
    signed: Signed,
    Path(id): Path<String>,
    Params(query): Params<StdioQuery>,
) -> Answer<Response> {
    let (command, hello) = query.hello(false)?;
    let through = lease(id, query.tenant_id, Channel::Stdio);
    let attached = app.attach(&signed.principal.token, through, hello).await?;
    Ok(feed::command(app, attached, command, Some("stdio"), None))
}

/// Input for a process that somebody is attached to.
#[utoipa::path(post, path = "/api/sessions/{id}/channels/stdio/input", operation_id = "sessions.input", tag = "Sessions",
    params(("id" = String, Path, description = "The session."), InputQuery), security(("session" = []), ("token" = [])),
    request_body = InputBody, responses((status = 202, body = InputView), Refused))]
async fn input(
    State(app): State<App>,
    signed: Signed,
    Path(id): Path<String>,
    Params(query): Params<InputQuery>,
    Body(body): Body<InputBody>,
) -> Answer<(StatusCode, Json<InputView>)> {
    let command = query.command.unwrap_or_else(|| terminal::MAIN.to_owned());
    let through = lease(id, query.tenant_id, Channel::Stdio);
    let token = &signed.principal.token;
    let Reply::Commands(commands) = app.control(token, through.clone(), Request::Commands).await? else {
        return Err(unexpected().into());
    };
    if !commands
        .iter()
        .any(|known| known.id == command && known.attached > 0)
    {
        return Err(Fault::new(Code::OpConflict, "nobody is attached to the process").into());
    }
    let accepted = take_input(&app, token, through, command, body).await?;
    Ok((StatusCode::ACCEPTED, Json(InputView { accepted })))
}

/// By the lease of a session.
pub(crate) fn lease(id: String, tenant: Option<String>, channel: Channel) -> Through {
    Through::Session { id, tenant, channel }
}
