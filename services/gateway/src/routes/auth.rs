//! Registering, signing in and out.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{SET_COOKIE, USER_AGENT};
use http::{HeaderMap, StatusCode};
use nimbus_proto::auth::{Login, LoginReply, LoginRequest, Logout, LogoutRequest, Register, RegisterRequest};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Refused;
use crate::access::{Kind, Origin, Presented, set_cookie};
use crate::envelope::{Answer, Data};
use crate::extract::Body;
use crate::state::App;
use crate::views::account::{LoginBody, RegisterBody, UserView};
use crate::views::system::ProvidersView;

/// How much of a browser's name is kept.
const USER_AGENT_LENGTH: usize = 256;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(register))
        .routes(routes!(login))
        .routes(routes!(logout))
        .routes(routes!(providers))
}

pub(crate) fn user_agent(headers: &HeaderMap) -> String {
    let text = headers
        .get(USER_AGENT)
        .map(|value| String::from_utf8_lossy(value.as_bytes()));
    text.unwrap_or_default()
        .chars()
        .filter(|c| !c.is_control())
        .take(USER_AGENT_LENGTH)
        .collect()
}

/// Signs in; gives the cookie to set.
pub(crate) async fn open_session(
    app: &App,
    request: &LoginRequest,
    origin: Origin,
) -> Answer<(String, UserView)> {
    let LoginReply {
        user,
        secret,
        expires_at,
    } = app.ask::<Login>(request).await?;
    let seconds = expires_at.since(app.clock.now()).as_secs();
    Ok((set_cookie(Some(&secret), seconds, origin.https), user.into()))
}

/// Registers a person.
///
/// The first one administers the installation. No session is opened.
#[utoipa::path(post, path = "/api/auth/register", operation_id = "register", tag = "Signing in", request_body = RegisterBody,
    responses((status = 201, body = Data<UserView>), Refused))]
async fn register(
    State(app): State<App>,
    origin: Origin,
    Body(body): Body<RegisterBody>,
) -> Answer<(StatusCode, Data<UserView>)> {
    let request = RegisterRequest {
        name: body.name,
        email: body.email,
        password: body.password,
        address: origin.client.to_string(),
        only_first: false,
    };
    let user = app.ask::<Register>(&request).await?;
    Ok((StatusCode::CREATED, Data::of(user.into())))
}

/// Signs in.
///
/// Sets the session's cookie. After too many failures, `rate.limited` with `Retry-After`.
#[utoipa::path(post, path = "/api/auth/login", operation_id = "login", tag = "Signing in", request_body = LoginBody,
    responses((status = 200, body = Data<UserView>), Refused))]
async fn login(
    State(app): State<App>,
    origin: Origin,
    headers: HeaderMap,
    Body(body): Body<LoginBody>,
) -> Answer<Response> {
    let request = LoginRequest {
        email: body.email,
        password: body.password,
        address: origin.client.to_string(),
        user_agent: user_agent(&headers),
    };
    let (cookie, user) = open_session(&app, &request, origin).await?;
    Ok(([(SET_COOKIE, cookie)], Data::of(user)).into_response())
}

/// Signs out.
///
/// Ends the session of the cookie, if there is one.
#[utoipa::path(post, path = "/api/auth/logout", operation_id = "logout", tag = "Signing in",
    responses((status = 204, description = "Signed out; the cookie is removed."), Refused))]
async fn logout(State(app): State<App>, origin: Origin, headers: HeaderMap) -> Answer<Response> {
    if let Presented::Credential(credential) = Presented::of(&headers)
        && credential.kind == Kind::Session
    {
        app.ask::<Logout>(&LogoutRequest {
            secret: credential.secret.clone(),
        })
        .await?;
        app.principals.forget(&credential);
    }
    Ok((
        StatusCode::NO_CONTENT,
        [(SET_COOKIE, set_cookie(None, 0, origin.https))],
    )
        .into_response())
}

/// Ways to sign in.
#[utoipa::path(get, path = "/api/auth/providers", operation_id = "auth_providers", tag = "Signing in",
    responses((status = 200, body = Data<ProvidersView>)))]
async fn providers() -> Data<ProvidersView> {
    Data::of(ProvidersView {
        github: false,
        google: false,
        password: true,
        passwordless_goal: false,
    })
}
