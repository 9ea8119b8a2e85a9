//! The routes, one file per group.

mod account;
mod api_keys;
mod auth;
mod catalog;
mod cluster;
mod commands;
mod deployment;
mod events;
mod files;
mod gpu;
mod knowledge;
mod operations;
mod preview;
mod sandboxes;
mod services;
mod session_files;
pub(crate) mod sessions;
mod system;
mod tenants;
mod traces;
mod vms;

use std::collections::BTreeMap;

use axum::Router;
use axum::handler::HandlerWithoutStateExt;
use axum::middleware::from_fn_with_state;
use tower::Layer;
use tower_http::compression::CompressionLayer;
use utoipa::IntoResponses;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;

use crate::state::App;
use crate::{assets, edge, grpc, openapi};

/// One JSON value per line.
pub(crate) const NDJSON: &str = "application/x-ndjson";

/// The limit of a list of resources as the contract takes it: numbers outside are taken for the nearest.
fn page_limit(limit: Option<i64>) -> Option<u32> {
    limit.and_then(|limit| u32::try_from(limit.clamp(1, 100)).ok())
}

/// Every route with its documentation.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::frame())
        .merge(system::router())
        .merge(knowledge::router())
        .merge(auth::router())
        .merge(account::router())
        .merge(tenants::router())
        .merge(api_keys::router())
        .merge(services::router())
        .merge(sandboxes::router())
        .merge(commands::router())
        .merge(files::router())
        .merge(sessions::router())
        .merge(session_files::router())
        .merge(preview::router())
        .merge(catalog::router())
        .merge(vms::router())
        .merge(gpu::router())
        .merge(operations::router())
        .merge(events::router())
        .merge(cluster::router())
        .merge(deployment::router())
        .merge(traces::router())
}

/// Every route, the portal behind them, and the stack around both.
pub(crate) fn service(app: &App) -> Router {
    let (routes, _) = router().split_for_parts();
    let portal = CompressionLayer::new().layer(assets::fallback.into_service());
    routes
        .method_not_allowed_fallback(assets::method_not_allowed)
        .fallback_service(portal)
        .with_state(app.clone())
        .merge(grpc::router(app).reset_fallback())
        .layer(from_fn_with_state(app.clone(), edge::pass))
}

/// The documentation of every answer that is not a success.
pub(crate) struct Refused;

impl IntoResponses for Refused {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let failure = ContentBuilder::new()
            .schema(Some(Ref::from_schema_name("Failure")))
            .build();
        let response = ResponseBuilder::new()
            .description("Refused or failed; its code says why, `GET /api/errors` lists the codes.")
            .content("application/json", failure)
            .build();
        BTreeMap::from([("default".to_owned(), response.into())])
    }
}
