//! Ports of sandboxes through the gateway: for signed-in callers, and for whoever has a link.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use nimbus_guest::protocol::Hello;
use nimbus_proto::Secret;
use nimbus_proto::workloads::{CreatePreview, PreviewRequest, Through, Wanted};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Refused;
use crate::access::{Origin, Presented, same_origin};
use crate::envelope::{Answer, ApiError};
use crate::extract::{Body, Signed};
use crate::proxy::{Destination, forward};
use crate::state::App;
use crate::views::At;
use crate::views::workloads::at;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(proxy))
        .routes(routes!(proxy_root))
        .routes(routes!(open))
        .routes(routes!(open_root))
}

/// A link to be made.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PreviewBody {
    /// The port inside.
    #[schema(examples(8080))]
    port: u16,
    /// How long it works; 15 minutes when it is left out, at most 24 hours.
    ttl_ms: Option<u64>,
}

/// A link.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct PreviewView {
    /// Opens the port without a credential; whoever has it has the port.
    url: String,
    /// When it stops working.
    expires_at: At,
}

/// A link to a port of a sandbox.
///
/// It needs no credential, so that it can be opened in a browser or given to somebody.
#[utoipa::path(post, path = "/api/tenants/{tenant}/sandboxes/{id}/preview-links", operation_id = "previews.create", tag = "Previews",
    params(("tenant" = String, Path, description = "The tenant."), ("id" = String, Path, description = "The sandbox.")),
    security(("session" = []), ("token" = [])), request_body = PreviewBody,
    responses((status = 201, body = PreviewView), Refused))]
async fn create(
    State(app): State<App>,
    signed: Signed,
    origin: Origin,
    Path((tenant, sandbox)): Path<(String, String)>,
    headers: HeaderMap,
    Body(body): Body<PreviewBody>,
) -> Answer<(StatusCode, Json<PreviewView>)> {
    let request = PreviewRequest {
        tenant,
        sandbox,
        port: body.port,
        ttl_ms: body.ttl_ms,
    };
    let reply = app.ask_for::<CreatePreview>(&signed.principal, &request).await?;
    let scheme = if origin.https { "https" } else { "http" };
    let host = headers
        .get(http::header::HOST)
        .and_then(|value| value.to_str().ok());
    let server = host.map_or_else(String::new, |host| format!("{scheme}://{host}"));
    let view = PreviewView {
        url: format!("{server}/p/{}/{}/", body.port, reply.token.reveal()),
        expires_at: at(reply.expires_at),
    };
    Ok((StatusCode::CREATED, Json(view)))
}

/// A port of a sandbox, for signed-in callers.
///
/// Any method, any path, WebSockets too. Credentials, cookies and headers of the connection are not handed on.
#[utoipa::path(method(get, post, put, patch, delete, options, head),
    path = "/api/tenants/{tenant}/sandboxes/{id}/proxy/{port}/{*path}", operation_id = "previews.proxy.", tag = "Previews",
    params(("tenant" = String, Path, description = "The tenant."), ("id" = String, Path, description = "The sandbox."),
        ("port" = u16, Path, description = "The port inside."), ("path" = String, Path, description = "The path there.")),
    security(("session" = []), ("token" = [])),
    responses((status = 200, description = "Whatever listens there answers."), Refused))]
async fn proxy(
    State(app): State<App>,
    signed: Signed,
    Path((tenant, id, port, _)): Path<(String, String, u16, String)>,
    request: Request,
) -> Answer<Response> {
    signed_proxy(&app, &signed, (tenant, id, port), request).await
}

/// The start of a port of a sandbox, for signed-in callers.
#[utoipa::path(method(get, post, put, patch, delete, options, head),
    path = "/api/tenants/{tenant}/sandboxes/{id}/proxy/{port}/", operation_id = "previews.proxyRoot.", tag = "Previews",
    params(("tenant" = String, Path, description = "The tenant."), ("id" = String, Path, description = "The sandbox."),
        ("port" = u16, Path, description = "The port inside.")),
    security(("session" = []), ("token" = [])),
    responses((status = 200, description = "Whatever listens there answers."), Refused))]
async fn proxy_root(
    State(app): State<App>,
    signed: Signed,
    Path((tenant, id, port)): Path<(String, String, u16)>,
    request: Request,
) -> Answer<Response> {
    signed_proxy(&app, &signed, (tenant, id, port), request).await
}

async fn signed_proxy(
    app: &App,
    signed: &Signed,
    (tenant, id, port): (String, String, u16),
    request: Request,
) -> Answer<Response> {
    // Any page can open a WebSocket with the cookie of somebody who is signed in.
    let ambient = request
        .extensions()
        .get::<Presented>()
        .is_none_or(Presented::is_ambient);
    let upgrades = request.headers().contains_key(http::header::UPGRADE);
    if ambient && upgrades && !same_origin(request.headers()) {
        return Err(ApiError::new(
            nimbus_errors::Code::AuthForbidden,
            "the request comes from a page of another origin",
        ));
    }
    let to = Destination {
        port,
        prefix: format!("/api/tenants/{tenant}/sandboxes/{id}/proxy/{port}"),
    };
    let wanted = Wanted::Guest(Hello::Connect { port });
    let through = Through::Sandbox { tenant, id };
    let channel = app
        .open_channel(&signed.principal.token, through, "port", wanted)
        .await?;
    forward(app, channel, &to, request).await
}

/// A port of a sandbox, by a link.
#[utoipa::path(method(get, post, put, patch, delete, options, head), path = "/p/{port}/{token}/{*path}",
    operation_id = "previews.open.", tag = "Previews",
    params(("port" = u16, Path, description = "The port inside."), ("token" = String, Path, description = "The link's token."),
        ("path" = String, Path, description = "The path there.")),
    responses((status = 200, description = "Whatever listens there answers."), Refused))]
async fn open(
    State(app): State<App>,
    Path((port, token, _)): Path<(u16, String, String)>,
    request: Request,
) -> Answer<Response> {
    by_link(&app, port, token, request).await
}

/// The start of a port of a sandbox, by a link.
#[utoipa::path(method(get, post, put, patch, delete, options, head), path = "/p/{port}/{token}/",
    operation_id = "previews.openRoot.", tag = "Previews",
    params(("port" = u16, Path, description = "The port inside."), ("token" = String, Path, description = "The link's token.")),
    responses((status = 200, description = "Whatever listens there answers."), Refused))]
async fn open_root(
    State(app): State<App>,
    Path((port, token)): Path<(u16, String)>,
    request: Request,
) -> Answer<Response> {
    by_link(&app, port, token, request).await
}

async fn by_link(app: &App, port: u16, token: String, request: Request) -> Answer<Response> {
    let to = Destination {
        port,
        prefix: format!("/p/{port}/{token}"),
    };
    let channel = app.open_preview(Secret::new(token), port).await?;
    forward(app, channel, &to, request).await
}
