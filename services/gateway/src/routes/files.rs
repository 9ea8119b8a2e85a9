//! Files inside sandboxes, straight by the sandbox.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use nimbus_proto::workloads::Through;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Refused;
use crate::envelope::Answer;
use crate::extract::{Body as JsonBody, Params, Signed};
use crate::files::Files;
use crate::state::App;
use crate::views::workloads::file::{
    EntriesQuery, EntriesView, EntryView, MkdirBody, MoveBody, PathQuery, RemoveQuery, WriteQuery,
};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(stat))
        .routes(routes!(read, write, remove))
        .routes(routes!(mkdir))
        .routes(routes!(rename))
        .routes(routes!(pack, unpack))
}

/// Of a sandbox.
fn files(app: App, signed: &Signed, (tenant, id): (String, String)) -> Files {
    Files {
        app,
        token: signed.principal.token.clone(),
        through: Through::Sandbox { tenant, id },
    }
}

/// What is in a directory, by name.
#[utoipa::path(get, path = "/api/tenants/{tenant}/sandboxes/{id}/files/list", operation_id = "files.list", tag = "Files",
    params(("tenant" = String, Path, description = "The tenant."), ("id" = String, Path, description = "The sandbox."), EntriesQuery),
    security(("session" = []), ("token" = [])), 
    responses((status = 200, body = EntriesView), Refused))]
async fn list(
    State(app): State<App>,
    signed: Signed,
    Path(place): Path<(String, String)>,
    Params(query): Params<EntriesQuery>,
) -> Answer<Json<EntriesView>> {
    files(app, &signed, place).list(query).await
}

/// What stands at a path. Links are not followed.
#[utoipa::path(get, path = "/api/tenants/{tenant}/sandboxes/{id}/files/stat", operation_id = "files.stat", tag = "Files",
    params(("tenant" = String, Path, description = "The tenant."), ("id" = String, Path, description = "The sandbox."), PathQuery),
    security(("session" = []), ("token" = [])), 
    responses((status = 200, body = EntryView), Refused))]
async fn stat(
    State(app): State<App>,
    signed: Signed,
    Path(place): Path<(String, String)>,
    Params(query): Params<PathQuery>,
) -> Answer<Json<EntryView>> {
    files(app, &signed, place).stat(query).await
}

/// The content of a file.
///
/// One part can be asked for with `Range`; `If-None-Match` saves the transfer.
#[utoipa::path(get, path = "/api/tenants/{tenant}/sandboxes/{id}/files/content", operation_id = "files.read", tag = "Files",
    params(("tenant" = String, Path, description = "The tenant."), ("id" = String, Path, description = "The sandbox."), PathQuery),
    security(("session" = []), ("token" = [])), 
    responses((status = 200, body = [u8], content_type = "application/octet-stream"),
        (status = 206, body = [u8], content_type = "application/octet-stream"), Refused))]
async fn read(
    State(app): State<App>,
    signed: Signed,
    Path(place): Path<(String, String)>,
    Params(query): Params<PathQuery>,
    headers: HeaderMap,
) -> Answer<Response> {
    files(app, &signed, place).read(query, &headers).await
}

/// Makes or replaces a file, as a whole.
///
/// At most 256 MiB. `If-Match` and `If-None-Match` guard what is there.
#[utoipa::path(put, path = "/api/tenants/{tenant}/sandboxes/{id}/files/content", operation_id = "files.write", tag = "Files",
    params(("tenant" = String, Path, description = "The tenant."), ("id" = String, Path, description = "The sandbox."), WriteQuery),
    security(("session" = []), ("token" = [])), request_body(content = [u8], content_type = "application/octet-stream"),
    responses((status = 200, body = EntryView), (status = 201, body = EntryView), Refused))]
async fn write(
    State(app): State<App>,
    signed: Signed,
    Path(place): Path<(String, String)>,
    Params(query): Params<WriteQuery>,
    headers: HeaderMap,
    body: Body,
) -> Answer<Response> {
    files(app, &signed, place).write(query, &headers, body).await
}

/// Removes a file, a link, or a directory.
#[utoipa::path(delete, path = "/api/tenants/{tenant}/sandboxes/{id}/files/content", operation_id = "files.remove", tag = "Files",
    params(("tenant" = String, Path, description = "The tenant."), ("id" = String, Path, description = "The sandbox."), RemoveQuery),
    security(("session" = []), ("token" = [])), 
    responses((status = 204, description = "Removed."), Refused))]
async fn remove(
    State(app): State<App>,
    signed: Signed,
    Path(place): Path<(String, String)>,
    Params(query): Params<RemoveQuery>,
) -> Answer<StatusCode> {
    files(app, &signed, place).remove(query).await
}

/// Makes a directory.
#[utoipa::path(post, path = "/api/tenants/{tenant}/sandboxes/{id}/files/mkdir", operation_id = "files.mkdir", tag = "Files",
    params(("tenant" = String, Path, description = "The tenant."), ("id" = String, Path, description = "The sandbox.")),
    security(("session" = []), ("token" = [])), request_body = MkdirBody,
    responses((status = 201, body = EntryView), Refused))]
async fn mkdir(
    State(app): State<App>,
    signed: Signed,
    Path(place): Path<(String, String)>,
    JsonBody(body): JsonBody<MkdirBody>,
) -> Answer<(StatusCode, Json<EntryView>)> {
    files(app, &signed, place).mkdir(body).await
}

/// Moves something.
#[utoipa::path(post, path = "/api/tenants/{tenant}/sandboxes/{id}/files/move", operation_id = "files.rename", tag = "Files",
    params(("tenant" = String, Path, description = "The tenant."), ("id" = String, Path, description = "The sandbox.")),
    security(("session" = []), ("token" = [])), request_body = MoveBody,
    responses((status = 200, body = EntryView), Refused))]
async fn rename(
    State(app): State<App>,
    signed: Signed,
    Path(place): Path<(String, String)>,
    JsonBody(body): JsonBody<MoveBody>,
) -> Answer<Json<EntryView>> {
    files(app, &signed, place).rename(body).await
}

/// A file or directory as a tar archive.
#[utoipa::path(get, path = "/api/tenants/{tenant}/sandboxes/{id}/files/archive", operation_id = "files.pack", tag = "Files",
    params(("tenant" = String, Path, description = "The tenant."), ("id" = String, Path, description = "The sandbox."), PathQuery),
    security(("session" = []), ("token" = [])), 
    responses((status = 200, body = [u8], content_type = "application/x-tar"), Refused))]
async fn pack(
    State(app): State<App>,
    signed: Signed,
    Path(place): Path<(String, String)>,
    Params(query): Params<PathQuery>,
) -> Answer<Response> {
    files(app, &signed, place).pack(query).await
}

/// Unpacks a tar archive into a directory, which is made if it is missing.
///
/// At most 256 MiB.
#[utoipa::path(put, path = "/api/tenants/{tenant}/sandboxes/{id}/files/archive", operation_id = "files.unpack", tag = "Files",
    params(("tenant" = String, Path, description = "The tenant."), ("id" = String, Path, description = "The sandbox."), PathQuery),
    security(("session" = []), ("token" = [])), request_body(content = [u8], content_type = "application/x-tar"),
    responses((status = 200, body = EntryView), Refused))]
async fn unpack(
    State(app): State<App>,
    signed: Signed,
    Path(place): Path<(String, String)>,
    Params(query): Params<PathQuery>,
    headers: HeaderMap,
    body: Body,
) -> Answer<Json<EntryView>> {
    files(app, &signed, place).unpack(query, &headers, body).await
}
