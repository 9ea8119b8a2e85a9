//! What programs read about this server: llms.txt, the pages of the documentation, the capabilities.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use nimbus_errors::Code;
use nimbus_proto::workloads::Offers;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Refused, system};
use crate::envelope::{Answer, ApiError};
use crate::knowledge::{CAPABILITIES, Capability, Page, Probes, Status, llms, llms_full};
use crate::state::App;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(index))
        .routes(routes!(full))
        .routes(routes!(page))
        .routes(routes!(openapi))
        .routes(routes!(capabilities))
}

/// The table of capabilities, for this installation.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct CapabilitiesView {
    /// The version of this server.
    version: &'static str,
    /// Where this server runs.
    host: PlatformView,
    /// What there is.
    capabilities: Vec<CapabilityView>,
    /// What the hosts of sandboxes are like.
    probes: Probes,
}

#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
struct PlatformView {
    /// The operating system.
    os: &'static str,
    /// The architecture.
    arch: &'static str,
}

#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
struct CapabilityView {
    /// Stable name.
    id: &'static str,
    /// The noun it belongs to.
    area: &'static str,
    /// What it is.
    title: &'static str,
    /// How far it goes.
    status: Status,
    /// Whether it can be used on this installation now.
    usable: bool,
    /// What to know.
    notes: &'static str,
    /// The page that tells more.
    docs: &'static str,
}

impl CapabilityView {
    fn of(capability: &Capability, probes: &Probes) -> Self {
        Self {
            id: capability.id,
            area: capability.area,
            title: capability.title,
            status: capability.status,
            usable: capability.usable(probes),
            notes: capability.notes,
            docs: capability.docs,
        }
    }
}

fn text(kind: &'static str, text: String) -> Response {
    ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache")], text).into_response()
}

/// Where to read what, for language models.
#[utoipa::path(get, path = "/llms.txt", operation_id = "llms", tag = "Documentation",
    responses((status = 200, body = String, content_type = "text/plain")))]
async fn index() -> Response {
    text("text/plain; charset=utf-8", llms())
}

/// Every page of the documentation in one text.
#[utoipa::path(get, path = "/llms-full.txt", operation_id = "llms_full", tag = "Documentation",
    responses((status = 200, body = String, content_type = "text/plain")))]
async fn full() -> Response {
    text("text/plain; charset=utf-8", llms_full())
}

/// One page of the documentation, as Markdown.
#[utoipa::path(get, path = "/docs/{page}", operation_id = "page", tag = "Documentation",
    params(("page" = String, Path, description = "The page's name with `.md`, as `/llms.txt` lists it.")),
    responses((status = 200, body = String, content_type = "text/markdown"), Refused))]
async fn page(Path(name): Path<String>) -> Answer<Response> {
    let found = name.strip_suffix(".md").and_then(Page::find);
    let page = found
        .ok_or_else(|| ApiError::new(Code::OpNotFound, "there is no such page: /llms.txt lists them"))?;
    Ok(text("text/markdown; charset=utf-8", page.text))
}

/// The OpenAPI document.
#[utoipa::path(get, path = "/openapi.json", operation_id = "openapi_root", tag = "Documentation",
    responses((status = 200, body = Object, description = "OpenAPI 3.1.")))]
async fn openapi(State(app): State<App>) -> Response {
    system::document(&app)
}

/// What this server can do, and what of it is usable on this installation now.
#[utoipa::path(get, path = "/api/capabilities", operation_id = "capabilities", tag = "Documentation",
    responses((status = 200, body = CapabilitiesView)))]
async fn capabilities(State(app): State<App>) -> Json<CapabilitiesView> {
    // Without workloads there are no hosts, and the table says so.
    let probes: Probes = app.ask::<Offers>(&()).await.unwrap_or_default().into();
    Json(CapabilitiesView {
        version: env!("CARGO_PKG_VERSION"),
        host: PlatformView {
            os: std::env::consts::OS,
            arch: std::env::consts::ARCH,
        },
        capabilities: CAPABILITIES
            .iter()
            .map(|capability| CapabilityView::of(capability, &probes))
            .collect(),
        probes,
    })
}
