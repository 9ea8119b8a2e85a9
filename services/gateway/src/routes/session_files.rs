//! Files inside sandboxes, by the lease of a session.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use nimbus_proto::workloads::Channel;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Refused;
use super::sessions::lease;
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

/// Through the session's channel `files`.
fn files(app: App, signed: &Signed, id: String) -> Files {
    Files {
        app,
        token: signed.principal.token.clone(),
        through: lease(id, None, Channel::Files),
    }
}

/// What is in a directory, by name.
#[utoipa::path(get, path = "/api/sessions/{id}/channels/files/list", operation_id = "sessions.files.list", tag = "Files",
    params(("id" = String, Path, description = "The session."), EntriesQuery),
    security(("session" = []), ("token" = [])), 
    responses((status = 200, body = EntriesView), Refused))]
async fn list(
    State(app): State<App>,
    signed: Signed,
    Path(id): Path<String>,
    Params(query): Params<EntriesQuery>,
) -> Answer<Json<EntriesView>> {
    files(app, &signed, id).list(query).await
}

/// What stands at a path. Links are not followed.
#[utoipa::path(get, path = "/api/sessions/{id}/channels/files/stat", operation_id = "sessions.files.stat", tag = "Files",
    params(("id" = String, Path, description = "The session."), PathQuery),
    security(("session" = []), ("token" = [])), 
    responses((status = 200, body = EntryView), Refused))]
async fn stat(
    State(app): State<App>,
    signed: Signed,
    Path(id): Path<String>,
    Params(query): Params<PathQuery>,
) -> Answer<Json<EntryView>> {
    files(app, &signed, id).stat(query).await
}

/// The content of a file.
///
/// One part can be asked for with `Range`; `If-None-Match` saves the transfer.
#[utoipa::path(get, path = "/api/sessions/{id}/channels/files/content", operation_id = "sessions.files.read", tag = "Files",
    params(("id" = String, Path, description = "The session."), PathQuery),
    security(("session" = []), ("token" = [])), 
    responses((status = 200, body = [u8], content_type = "application/octet-stream"),
        (status = 206, body = [u8], content_type = "application/octet-stream"), Refused))]
async fn read(
    State(app): State<App>,
    signed: Signed,
    Path(id): Path<String>,
    Params(query): Params<PathQuery>,
    headers: HeaderMap,
) -> Answer<Response> {
    files(app, &signed, id).read(query, &headers).await
}

/// Makes or replaces a file, as a whole.
///
/// At most 256 MiB. `If-Match` and `If-None-Match` guard what is there.
#[utoipa::path(put, path = "/api/sessions/{id}/channels/files/content", operation_id = "sessions.files.write", tag = "Files",
    params(("id" = String, Path, description = "The session."), WriteQuery),
    security(("session" = []), ("token" = [])), request_body(content = [u8], content_type = "application/octet-stream"),
    responses((status = 200, body = EntryView), (status = 201, body = EntryView), Refused))]
async fn write(
    State(app): State<App>,
    signed: Signed,
    Path(id): Path<String>,
    Params(query): Params<WriteQuery>,
    headers: HeaderMap,
    body: Body,
) -> Answer<Response> {
    files(app, &signed, id).write(query, &headers, body).await
}

/// Removes a file, a link, or a directory.
#[utoipa::path(delete, path = "/api/sessions/{id}/channels/files/content", operation_id = "sessions.files.remove", tag = "Files",
    params(("id" = String, Path, description = "The session."), RemoveQuery),
    security(("session" = []), ("token" = [])), 
    responses((status = 204, description = "Removed."), Refused))]
async fn remove(
    State(app): State<App>,
    signed: Signed,
    Path(id): Path<String>,
    Params(query): Params<RemoveQuery>,
) -> Answer<StatusCode> {
    files(app, &signed, id).remove(query).await
}

/// Makes a directory.
#[utoipa::path(post, path = "/api/sessions/{id}/channels/files/mkdir", operation_id = "sessions.files.mkdir", tag = "Files",
    params(("id" = String, Path, description = "The session.")),
    security(("session" = []), ("token" = [])), request_body = MkdirBody,
    responses((status = 201, body = EntryView), Refused))]
async fn mkdir(
    State(app): State<App>,
    signed: Signed,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<MkdirBody>,
) -> Answer<(StatusCode, Json<EntryView>)> {
    files(app, &signed, id).mkdir(body).await
}

/// Moves something.
#[utoipa::path(post, path = "/api/sessions/{id}/channels/files/move", operation_id = "sessions.files.rename", tag = "Files",
    params(("id" = String, Path, description = "The session.")),
    security(("session" = []), ("token" = [])), request_body = MoveBody,
    responses((status = 200, body = EntryView), Refused))]
async fn rename(
    State(app): State<App>,
    signed: Signed,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<MoveBody>,
) -> Answer<Json<EntryView>> {
    files(app, &signed, id).rename(body).await
}

/// A file or directory as a tar archive.
#[utoipa::path(get, path = "/api/sessions/{id}/channels/files/archive", operation_id = "sessions.files.pack", tag = "Files",
    params(("id" = String, Path, description = "The session."), PathQuery),
    security(("session" = []), ("token" = [])), 
    responses((status = 200, body = [u8], content_type = "application/x-tar"), Refused))]
async fn pack(
    State(app): State<App>,
    signed: Signed,
    Path(id): Path<String>,
    Params(query): Params<PathQuery>,
) -> Answer<Response> {
    files(app, &signed, id).pack(query).await
}

/// Unpacks a tar archive into a directory, which is made if it is missing.
///
/// At most 256 MiB.
#[utoipa::path(put, path = "/api/sessions/{id}/channels/files/archive", operation_id = "sessions.files.unpack", tag = "Files",
    params(("id" = String, Path, description = "The session."), PathQuery),
    security(("session" = []), ("token" = [])), request_body(content = [u8], content_type = "application/x-tar"),
    responses((status = 200, body = EntryView), Refused))]
async fn unpack(
    State(app): State<App>,
    signed: Signed,
    Path(id): Path<String>,
    Params(query): Params<PathQuery>,
    headers: HeaderMap,
    body: Body,
) -> Answer<Json<EntryView>> {
    files(app, &signed, id).unpack(query, &headers, body).await
}
