//! Health, readiness, metrics, set-up, documentation.

use axum::Json;
use axum::extract::State;
use axum::response::{Html, IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, SET_COOKIE};
use http::{HeaderMap, StatusCode};
use nimbus_proto::auth::{LoginRequest, RegisterRequest, Setup, SetupStatus};
use nimbus_proto::node::{ClusterHealth, Health};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Refused;
use super::auth::{open_session, user_agent};
use crate::access::Origin;
use crate::config::limits::HEALTH_WAIT;
use crate::docs_page;
use crate::envelope::{Answer, Data};
use crate::extract::Body;
use crate::state::App;
use crate::views::account::{RegisterBody, UserView};
use crate::views::system::{CatalogueView, HealthView, MissingView, ReadyView, SetupView};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(health))
        .routes(routes!(health_api))
        .routes(routes!(ready))
        .routes(routes!(metrics))
        .routes(routes!(setup_status))
        .routes(routes!(setup_admin))
        .routes(routes!(openapi))
        .routes(routes!(docs))
        .routes(routes!(docs_style))
        .routes(routes!(errors))
}

async fn current_health(app: &App) -> HealthView {
    // Whoever asks whether we live does not wait for others: a silent bus must not make us look dead.
    let deployment = tokio::time::timeout(HEALTH_WAIT, app.deployment()).await;
    let (status, version, error) = match deployment.as_ref().map(|deployment| &deployment.cluster) {
        Ok(Ok(ClusterHealth {
            missing,
            version,
            error,
        })) if missing.is_empty() => ("ok", version.clone(), error.clone()),
        Ok(Ok(ClusterHealth { error, .. })) => {
            let hint = || "not configured yet: GET /api/setup/status lists what is missing".to_owned();
            ("setup", None, Some(error.clone().unwrap_or_else(hint)))
        }
        Ok(Err(fault)) => ("ok", None, Some(fault.message.clone())),
        Err(_) => {
            let late = format!(
                "no word from the provisioner within {} ms",
                HEALTH_WAIT.as_millis()
            );
            ("ok", None, Some(late))
        }
    };
    HealthView {
        ok: true,
        status,
        timestamp: app.clock.now().into(),
        version: env!("CARGO_PKG_VERSION"),
        proxmox_ok: version.is_some() && error.is_none(),
        proxmox_version: version,
        proxmox_error: error,
    }
}

/// Whether the server lives.
///
/// Answers 200 whenever the server runs, also while the cluster is away.
#[utoipa::path(get, path = "/health", operation_id = "health", tag = "System", responses((status = 200, body = HealthView)))]
async fn health(State(app): State<App>) -> Json<HealthView> {
    Json(current_health(&app).await)
}

/// Whether the server lives, below /api.
#[utoipa::path(get, path = "/api/health", operation_id = "health_api", tag = "System", responses((status = 200, body = HealthView)))]
async fn health_api(State(app): State<App>) -> Json<HealthView> {
    Json(current_health(&app).await)
}

/// Whether requests can be served.
///
/// True when the bus is connected and every service answers on it.
#[utoipa::path(get, path = "/ready", operation_id = "ready", tag = "System",
    responses((status = 200, body = ReadyView), (status = 503, body = ReadyView, description = "Not yet, or not any more.")))]
async fn ready(State(app): State<App>) -> (StatusCode, Json<ReadyView>) {
    let deployment = app.deployment().await;
    let services = deployment.services(app.bus.is_connected());
    let ready = services.values().all(|answers| *answers);
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(ReadyView { ready, services }))
}

/// Metrics for Prometheus.
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "System",
    responses((status = 200, body = String, content_type = "application/openmetrics-text")))]
async fn metrics(State(app): State<App>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, kind)], app.fleet.page(&app).await).into_response()
}

/// What is still to be set up.
#[utoipa::path(get, path = "/api/setup/status", operation_id = "setup_status", tag = "Set-up",
    responses((status = 200, body = Data<SetupView>), Refused))]
async fn setup_status(State(app): State<App>) -> Answer<Data<SetupView>> {
    let (users, cluster) = tokio::join!(app.ask::<Setup>(&()), app.ask::<Health>(&()));
    let SetupStatus { has_users } = users?;
    let missing: Vec<_> = cluster?.missing.into_iter().map(MissingView::from).collect();
    Ok(Data::of(SetupView {
        configured: missing.is_empty(),
        needs_admin_setup: !has_users,
        missing,
    }))
}

/// Registers the first user and signs them in.
///
/// The first user administers the installation. Refused with 409 once there is one.
#[utoipa::path(post, path = "/api/setup/admin", operation_id = "setup_admin", tag = "Set-up", request_body = RegisterBody,
    responses((status = 200, body = Data<UserView>, description = "Registered; the session's cookie is set."), Refused))]
async fn setup_admin(
    State(app): State<App>,
    origin: Origin,
    headers: HeaderMap,
    Body(body): Body<RegisterBody>,
) -> Answer<Response> {
    let address = origin.client.to_string();
    let register = RegisterRequest {
        name: body.name,
        email: body.email.clone(),
        password: body.password.clone(),
        address: address.clone(),
        only_first: true,
    };
    app.ask::<nimbus_proto::auth::Register>(&register).await?;
    let login = LoginRequest {
        email: body.email,
        password: body.password,
        address,
        user_agent: user_agent(&headers),
    };
    let (cookie, user) = open_session(&app, &login, origin).await?;
    Ok(([(SET_COOKIE, cookie)], Data::of(user)).into_response())
}

/// This document.
#[utoipa::path(get, path = "/api/openapi.json", operation_id = "openapi", tag = "Documentation",
    responses((status = 200, body = Object, description = "OpenAPI 3.1.")))]
async fn openapi(State(app): State<App>) -> Response {
    document(&app)
}

/// The OpenAPI document as an answer.
pub(super) fn document(app: &App) -> Response {
    (
        [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-cache")],
        app.document.clone(),
    )
        .into_response()
}

/// This document, to read.
#[utoipa::path(get, path = "/api/docs", operation_id = "docs", tag = "Documentation",
    responses((status = 200, body = String, content_type = "text/html")))]
async fn docs() -> Response {
    (
        [(CACHE_CONTROL, "no-cache")],
        Html(docs_page::page(&crate::openapi::document())),
    )
        .into_response()
}

/// The style of the page above.
#[utoipa::path(get, path = "/api/docs.css", operation_id = "docs_style", tag = "Documentation",
    responses((status = 200, body = String, content_type = "text/css")))]
async fn docs_style() -> Response {
    (
        [
            (CONTENT_TYPE, "text/css; charset=utf-8"),
            (CACHE_CONTROL, "no-cache"),
        ],
        docs_page::STYLE,
    )
        .into_response()
}

/// The error catalogue.
#[utoipa::path(get, path = "/api/errors", operation_id = "errors", tag = "Documentation",
    responses((status = 200, body = Data<CatalogueView>)))]
async fn errors() -> Data<CatalogueView> {
    Data::of(CatalogueView::whole())
}
