//! Sandboxes.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use http::header::LOCATION;
use nimbus_proto::workloads::{
    CreateSandbox, CreateSandboxRequest, DeleteSandbox, DeleteSandboxRequest, ExtendSandbox,
    ExtendSandboxRequest, GetSandbox, ListRequest, ListSandboxes, Named, Page, StopSandbox, Through,
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{NDJSON, Refused, page_limit};
use crate::envelope::Answer;
use crate::extract::{Body, Lenient, Nothing, Once, Params, Signed};
use crate::feed;
use crate::state::App;
use crate::views::workloads::sandbox::{
    CreateSandboxBody, ExtendBody, ForceQuery, SandboxView, SandboxesQuery,
};
use crate::views::workloads::{Collection, LogsQuery};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, delete))
        .routes(routes!(stop))
        .routes(routes!(extend))
        .routes(routes!(logs))
}

/// A tenant's sandboxes, by id.
#[utoipa::path(get, path = "/api/tenants/{tenant}/sandboxes", operation_id = "sandboxes.list", tag = "Sandboxes",
    params(("tenant" = String, Path, description = "The tenant."), SandboxesQuery), security(("session" = []), ("token" = [])),
    responses((status = 200, body = Collection<SandboxView>), Refused))]
async fn list(
    State(app): State<App>,
    signed: Signed,
    Path(tenant): Path<String>,
    Params(query): Params<SandboxesQuery>,
) -> Answer<Json<Collection<SandboxView>>> {
    let request = ListRequest {
        tenant: tenant.clone(),
        page: Page {
            limit: page_limit(query.limit),
            page_token: query.page_token,
            label_key: query.label_key,
            label_value: query.label_value,
            state: query.status,
        },
    };
    let listing = app.ask_for::<ListSandboxes>(&signed.principal, &request).await?;
    Ok(Json(Collection::of(tenant, listing)))
}

/// Makes a sandbox.
///
/// It is `ready` in the answer already when a warm one was claimed; else it is `starting`.
#[utoipa::path(post, path = "/api/tenants/{tenant}/sandboxes", operation_id = "sandboxes.create", tag = "Sandboxes",
    params(("tenant" = String, Path, description = "The tenant."),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat harmless for a day.")),
    security(("session" = []), ("token" = [])), request_body = CreateSandboxBody,
    responses((status = 201, body = SandboxView), Refused))]
async fn create(
    State(app): State<App>,
    signed: Signed,
    Path(tenant): Path<String>,
    Once(key): Once,
    Body(body): Body<CreateSandboxBody>,
) -> Answer<(StatusCode, [(http::HeaderName, String); 1], Json<SandboxView>)> {
    let request = CreateSandboxRequest {
        tenant: tenant.clone(),
        profile: body.profile.into(),
        spec: body.spec.checked("spec")?,
        labels: body.labels,
    };
    let sandbox = app
        .ask_once::<CreateSandbox>(&signed.principal, key, &request)
        .await?;
    let place = format!("/api/tenants/{tenant}/sandboxes/{}", sandbox.id);
    Ok((StatusCode::CREATED, [(LOCATION, place)], Json(sandbox.into())))
}

/// One sandbox.
#[utoipa::path(get, path = "/api/tenants/{tenant}/sandboxes/{id}", operation_id = "sandboxes.get", tag = "Sandboxes",
    params(("tenant" = String, Path, description = "The tenant."), ("id" = String, Path, description = "The sandbox.")),
    security(("session" = []), ("token" = [])), responses((status = 200, body = SandboxView), Refused))]
async fn get(
    State(app): State<App>,
    signed: Signed,
    Path((tenant, name)): Path<(String, String)>,
) -> Answer<Json<SandboxView>> {
    let sandbox = app
        .ask_for::<GetSandbox>(&signed.principal, &Named { tenant, name })
        .await?;
    Ok(Json(sandbox.into()))
}

/// Stops a sandbox.
///
/// It may be `stopping` in the answer. Stopping what has ended changes nothing.
#[utoipa::path(post, path = "/api/tenants/{tenant}/sandboxes/{id}/stop", operation_id = "sandboxes.stop", tag = "Sandboxes",
    params(("tenant" = String, Path, description = "The tenant."), ("id" = String, Path, description = "The sandbox.")),
    security(("session" = []), ("token" = [])), request_body = Option<Nothing>,
    responses((status = 200, body = SandboxView), Refused))]
async fn stop(
    State(app): State<App>,
    signed: Signed,
    Path((tenant, name)): Path<(String, String)>,
    Once(key): Once,
    Lenient(Nothing {}): Lenient<Nothing>,
) -> Answer<Json<SandboxView>> {
    let sandbox = app
        .ask_once::<StopSandbox>(&signed.principal, key, &Named { tenant, name })
        .await?;
    Ok(Json(sandbox.into()))
}

/// Gives a sandbox more time.
#[utoipa::path(post, path = "/api/tenants/{tenant}/sandboxes/{id}/extend", operation_id = "sandboxes.extend", tag = "Sandboxes",
    params(("tenant" = String, Path, description = "The tenant."), ("id" = String, Path, description = "The sandbox.")),
    security(("session" = []), ("token" = [])), request_body = ExtendBody,
    responses((status = 200, body = SandboxView), Refused))]
async fn extend(
    State(app): State<App>,
    signed: Signed,
    Path((tenant, id)): Path<(String, String)>,
    Once(key): Once,
    Body(body): Body<ExtendBody>,
) -> Answer<Json<SandboxView>> {
    let request = ExtendSandboxRequest {
        tenant,
        id,
        ttl_ms: body.ttl_ms,
        idle_timeout_ms: body.idle_timeout_ms,
    };
    let sandbox = app
        .ask_once::<ExtendSandbox>(&signed.principal, key, &request)
        .await?;
    Ok(Json(sandbox.into()))
}

/// Removes a sandbox with its record and logs.
///
/// Refused while it runs, unless `force` is set.
#[utoipa::path(delete, path = "/api/tenants/{tenant}/sandboxes/{id}", operation_id = "sandboxes.delete", tag = "Sandboxes",
    params(("tenant" = String, Path, description = "The tenant."), ("id" = String, Path, description = "The sandbox."), ForceQuery),
    security(("session" = []), ("token" = [])), responses((status = 204, description = "Removed."), Refused))]
async fn delete(
    State(app): State<App>,
    signed: Signed,
    Path((tenant, id)): Path<(String, String)>,
    Params(query): Params<ForceQuery>,
    Once(key): Once,
) -> Answer<StatusCode> {
    let request = DeleteSandboxRequest {
        tenant,
        id,
        force: query.force,
    };
    app.ask_once::<DeleteSandbox>(&signed.principal, key, &request)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a sandbox' main process has written.
///
/// One line of JSON each: `{"ts","stream","data","encoding"?}`.
#[utoipa::path(get, path = "/api/tenants/{tenant}/sandboxes/{id}/logs", operation_id = "sandboxes.logs", tag = "Sandboxes",
    params(("tenant" = String, Path, description = "The tenant."), ("id" = String, Path, description = "The sandbox."), LogsQuery),
    security(("session" = []), ("token" = [])), responses((status = 200, body = String, content_type = NDJSON), Refused))]
async fn logs(
    State(app): State<App>,
    signed: Signed,
    Path((tenant, id)): Path<(String, String)>,
    Params(query): Params<LogsQuery>,
) -> Answer<Response> {
    feed::logs(app, &signed, Through::Sandbox { tenant, id }, query).await
}
