//! The caller's own account, tokens and sessions.

use axum::extract::State;
use http::StatusCode;
use nimbus_bus::Scope;
use nimbus_model::{SessionId, TokenId};
use nimbus_proto::auth::{
    ChangePassword, ChangePasswordRequest, CreateToken, CreateTokenRequest, ListSessions, ListTokens, Me,
    RevokeSession, RevokeToken,
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Refused;
use crate::envelope::{Answer, Data};
use crate::extract::{Body, Id, Signed};
use crate::state::App;
use crate::views::account::{
    AccountView, CreateTokenBody, MeView, NewTokenView, OkView, PasswordBody, SessionView, TokenView,
};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(me))
        .routes(routes!(account))
        .routes(routes!(change_password))
        .routes(routes!(list_tokens, create_token))
        .routes(routes!(revoke_token))
        .routes(routes!(list_sessions))
        .routes(routes!(revoke_session))
}

/// The caller.
#[utoipa::path(get, path = "/api/me", operation_id = "me", tag = "Account", security(("session" = []), ("token" = [])),
    responses((status = 200, body = Data<MeView>), Refused))]
async fn me(State(app): State<App>, signed: Signed) -> Answer<Data<MeView>> {
    Ok(Data::of(app.ask_for::<Me>(&signed.principal, &()).await?.into()))
}

/// The caller's account.
#[utoipa::path(get, path = "/api/account", operation_id = "account", tag = "Account", security(("session" = []), ("token" = [])),
    responses((status = 200, body = Data<AccountView>), Refused))]
async fn account(State(app): State<App>, signed: Signed) -> Answer<Data<AccountView>> {
    Ok(Data::of(app.ask_for::<Me>(&signed.principal, &()).await?.into()))
}

/// Changes the caller's password.
///
/// Their other sessions end.
#[utoipa::path(put, path = "/api/account/password", operation_id = "change_password", tag = "Account",
    security(("session" = []), ("token" = [])), request_body = PasswordBody,
    responses((status = 200, body = Data<OkView>), Refused))]
async fn change_password(
    State(app): State<App>,
    signed: Signed,
    Body(body): Body<PasswordBody>,
) -> Answer<Data<OkView>> {
    signed.require(Scope::Account)?;
    let request = ChangePasswordRequest {
        current: body.current_password,
        new: body.new_password,
    };
    app.ask_for::<ChangePassword>(&signed.principal, &request).await?;
    Ok(Data::of(OkView { ok: true }))
}

/// The caller's tokens, newest first.
#[utoipa::path(get, path = "/api/tokens", operation_id = "list_tokens", tag = "Account", security(("session" = []), ("token" = [])),
    responses((status = 200, body = Data<Vec<TokenView>>), Refused))]
async fn list_tokens(State(app): State<App>, signed: Signed) -> Answer<Data<Vec<TokenView>>> {
    let tokens = app.ask_for::<ListTokens>(&signed.principal, &()).await?;
    Ok(Data::of(tokens.into_iter().map(TokenView::from).collect()))
}

/// Makes a personal access token.
///
/// Its secret is in this answer and nowhere else.
#[utoipa::path(post, path = "/api/tokens", operation_id = "create_token", tag = "Account",
    security(("session" = []), ("token" = [])), request_body = CreateTokenBody,
    responses((status = 201, body = Data<NewTokenView>), Refused))]
async fn create_token(
    State(app): State<App>,
    signed: Signed,
    Body(body): Body<CreateTokenBody>,
) -> Answer<(StatusCode, Data<NewTokenView>)> {
    signed.require(Scope::Account)?;
    let request = CreateTokenRequest {
        scopes: body.scopes(),
        name: body.name,
        expires_in_days: body.expires_in_days,
    };
    let created = app.ask_for::<CreateToken>(&signed.principal, &request).await?;
    let view = NewTokenView {
        view: created.token.into(),
        token: created.secret.reveal().to_owned(),
    };
    Ok((StatusCode::CREATED, Data::of(view)))
}

/// Revokes a token.
#[utoipa::path(delete, path = "/api/tokens/{id}", operation_id = "revoke_token", tag = "Account",
    params(("id" = String, Path, description = "The token, `tok_…`.")), security(("session" = []), ("token" = [])),
    responses((status = 204, description = "Revoked."), Refused))]
async fn revoke_token(State(app): State<App>, signed: Signed, Id(id): Id<TokenId>) -> Answer<StatusCode> {
    signed.require(Scope::Account)?;
    app.ask_for::<RevokeToken>(&signed.principal, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The caller's sessions, newest first.
#[utoipa::path(get, path = "/api/account/sessions", operation_id = "list_sessions", tag = "Account", security(("session" = []), ("token" = [])),
    responses((status = 200, body = Data<Vec<SessionView>>), Refused))]
async fn list_sessions(State(app): State<App>, signed: Signed) -> Answer<Data<Vec<SessionView>>> {
    let sessions = app.ask_for::<ListSessions>(&signed.principal, &()).await?;
    Ok(Data::of(sessions.into_iter().map(SessionView::from).collect()))
}

/// Ends a session.
#[utoipa::path(delete, path = "/api/account/sessions/{id}", operation_id = "revoke_session", tag = "Account",
    params(("id" = String, Path, description = "The session, `ses_…`.")), security(("session" = []), ("token" = [])),
    responses((status = 204, description = "Ended."), Refused))]
async fn revoke_session(State(app): State<App>, signed: Signed, Id(id): Id<SessionId>) -> Answer<StatusCode> {
    signed.require(Scope::Account)?;
    app.ask_for::<RevokeSession>(&signed.principal, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
