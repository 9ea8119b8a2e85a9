//! The deployment itself, for administrators; and hosts that join it.

use std::time::Duration;

use axum::extract::State;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use nimbus_bus::Key;
use nimbus_errors::{Code, Fault};
use nimbus_proto::auth::{CreateJoinToken, JoinHost, JoinHostRequest, JoinTokenRequest, Secret};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Refused;
use crate::envelope::{Answer, ApiError, Data, request_id};
use crate::extract::{Admin, Body, Lenient};
use crate::state::App;
use crate::views::deployment::{DeploymentView, JoinBody, JoinTokenBody, JoinTokenView, JoinedView};

/// How long instances may take to answer; those that hang are not waited for.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(deployment))
        .routes(routes!(create_join_token))
        .routes(routes!(join))
}

/// Everybody on the bus: instances with their versions, streams with what waits in them, leases.
#[utoipa::path(get, path = "/api/deployment", operation_id = "get_deployment", tag = "System",
    security(("session" = []), ("token" = [])), responses((status = 200, body = Data<DeploymentView>), Refused))]
async fn deployment(State(app): State<App>, Admin(_): Admin) -> Answer<Data<DeploymentView>> {
    let survey = app.bus.survey(PATIENCE).await.map_err(Fault::from)?;
    Ok(Data::of(DeploymentView::of(survey)))
}

/// Makes a token with which one host can join within a quarter of an hour.
///
/// Refused with 409 where the bus cannot be reached from other hosts.
#[utoipa::path(post, path = "/api/hosts/join-tokens", operation_id = "create_join_token", tag = "System", request_body = JoinTokenBody,
    security(("session" = []), ("token" = [])), responses((status = 200, body = Data<JoinTokenView>), Refused))]
async fn create_join_token(
    State(app): State<App>,
    Admin(signed): Admin,
    Lenient(body): Lenient<JoinTokenBody>,
) -> Answer<Data<JoinTokenView>> {
    let request = JoinTokenRequest { host: body.host };
    let made = app
        .ask_once::<CreateJoinToken>(&signed.principal, Key::of(request_id()), &request)
        .await?;
    Ok(Data::of(made.into()))
}

/// Lets a host join: its agent gets a credential for the bus in exchange for a join token.
///
/// The token is the bearer credential, and good no more afterwards.
#[utoipa::path(post, path = "/api/hosts/join", operation_id = "join_host", tag = "System", request_body = JoinBody,
    responses((status = 200, body = Data<JoinedView>), Refused))]
async fn join(
    State(app): State<App>,
    headers: HeaderMap,
    Body(body): Body<JoinBody>,
) -> Answer<Data<JoinedView>> {
    let token = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .filter(|token| token.starts_with("nimbus_jt_"))
        .ok_or_else(|| {
            ApiError::new(
                Code::AuthUnauthorized,
                "a join token is needed as the bearer token",
            )
        })?;
    let request = JoinHostRequest {
        token: Secret::new(token),
        host: body.host,
    };
    Ok(Data::of(app.ask::<JoinHost>(&request).await?.into()))
}
