//! API keys of a tenant, and the rotation of the admin token.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use nimbus_bus::{Action, Grant, Sandboxes};
use nimbus_model::{KeyId, Timestamp};
use nimbus_proto::auth::{
    ApiKey, CreateKey, CreateKeyRequest, ListKeys, RevokeKey, RevokeKeyRequest, RotateAdmin,
};
use nimbus_proto::workloads::GetTenant;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Refused;
use crate::envelope::{Answer, ApiError};
use crate::extract::{Admin, Body, Signed};
use crate::state::App;
use crate::views::At;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_api_keys, create_api_key))
        .routes(routes!(delete_api_key))
        .routes(routes!(rotate_admin_token))
}

/// What a key may do in its tenant.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct GrantView {
    /// What may be done: `services.list`, `sandboxes.exec` and so on, or `*` for everything.
    #[schema(value_type = Vec<String>, examples(json!(["sandboxes.create", "sandboxes.exec"])))]
    pub actions: Vec<Action>,
    /// The services it is for, by their exact names; without this every service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<String>>,
    /// `own`: the sandboxes that the same key made; `all`: every sandbox of the tenant.
    #[serde(default)]
    #[schema(value_type = String, examples("own"))]
    pub sandboxes: Sandboxes,
    /// The channels of sessions it is for; without this every channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(examples(json!(["stdio", "files"])))]
    pub channels: Option<Vec<String>>,
}

impl GrantView {
    fn into_grant(self, tenant: &str) -> Grant {
        Grant {
            tenant: tenant.to_owned(),
            actions: self.actions,
            services: self.services,
            sandboxes: self.sandboxes,
            channels: self.channels,
        }
    }
}

impl From<Grant> for GrantView {
    fn from(grant: Grant) -> Self {
        Self {
            actions: grant.actions,
            services: grant.services,
            sandboxes: grant.sandboxes,
            channels: grant.channels,
        }
    }
}

/// An API key to be.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CreateApiKeyBody {
    /// What it is for; unique in the tenant.
    #[schema(examples("build agent"))]
    pub name: String,
    /// What it may do; at least one grant.
    pub grants: Vec<GrantView>,
    /// When it ends (RFC 3339); without this it does not.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
}

/// An API key, without its secret.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ApiKeyView {
    /// Its id.
    #[schema(value_type = String)]
    pub id: KeyId,
    /// What it is for.
    pub name: String,
    /// What it may do.
    pub grants: Vec<GrantView>,
    /// What it begins with, to recognise it.
    #[schema(examples("nimbus_ak_1a2b"))]
    pub prefix: String,
    /// When it was made.
    pub created_at: At,
    /// When it ends; null for never.
    pub expires_at: Option<At>,
    /// When it was last used, to the minute; null for never.
    pub last_used_at: Option<At>,
}

impl From<ApiKey> for ApiKeyView {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id,
            name: key.name,
            grants: key.grants.into_iter().map(GrantView::from).collect(),
            prefix: key.prefix,
            created_at: At(key.created_at),
            expires_at: key.expires_at.map(At),
            last_used_at: key.last_used_at.map(At),
        }
    }
}

/// A new API key with its secret.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct NewApiKeyView {
    /// The key.
    #[serde(flatten)]
    pub view: ApiKeyView,
    /// The secret; shown this once.
    #[schema(examples("nimbus_ak_…"))]
    pub key: String,
}

/// The API keys of a tenant.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ApiKeysView {
    /// Newest first.
    pub items: Vec<ApiKeyView>,
}

/// The admin token after a rotation.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct RotatedView {
    /// How many tokens there have been.
    pub generation: u64,
}

/// Whether the caller reaches the tenant is for `workloads` to say: 404 where they do not.
async fn require_tenant(app: &App, signed: &Signed, tenant: &str) -> Answer<()> {
    app.ask_for::<GetTenant>(&signed.principal, &tenant.to_owned())
        .await?;
    Ok(())
}

/// The API keys of a tenant, newest first.
#[utoipa::path(get, path = "/api/tenants/{tenant}/api-keys", operation_id = "apiKeys.list", tag = "Tenants",
    params(("tenant" = String, Path, description = "The tenant.")), security(("session" = []), ("token" = [])),
    responses((status = 200, body = ApiKeysView), Refused))]
async fn list_api_keys(
    State(app): State<App>,
    signed: Signed,
    Path(tenant): Path<String>,
) -> Answer<Json<ApiKeysView>> {
    require_tenant(&app, &signed, &tenant).await?;
    let keys = app.ask_for::<ListKeys>(&signed.principal, &tenant).await?;
    Ok(Json(ApiKeysView {
        items: keys.into_iter().map(ApiKeyView::from).collect(),
    }))
}

/// Makes an API key.
///
/// The key itself is in this answer and nowhere else. No API key can make another.
#[utoipa::path(post, path = "/api/tenants/{tenant}/api-keys", operation_id = "apiKeys.create", tag = "Tenants",
    params(("tenant" = String, Path, description = "The tenant.")), security(("session" = []), ("token" = [])),
    request_body = CreateApiKeyBody, responses((status = 201, body = NewApiKeyView), Refused))]
async fn create_api_key(
    State(app): State<App>,
    signed: Signed,
    Path(tenant): Path<String>,
    Body(body): Body<CreateApiKeyBody>,
) -> Answer<(StatusCode, Json<NewApiKeyView>)> {
    require_tenant(&app, &signed, &tenant).await?;
    let request = CreateKeyRequest {
        name: body.name,
        grants: body
            .grants
            .into_iter()
            .map(|grant| grant.into_grant(&tenant))
            .collect(),
        expires_at: body.expires_at,
        tenant,
    };
    let created = app.ask_for::<CreateKey>(&signed.principal, &request).await?;
    let view = NewApiKeyView {
        view: created.key.into(),
        key: created.secret.reveal().to_owned(),
    };
    Ok((StatusCode::CREATED, Json(view)))
}

/// Revokes an API key.
///
/// Whoever uses it is refused at once.
#[utoipa::path(delete, path = "/api/tenants/{tenant}/api-keys/{id}", operation_id = "apiKeys.delete", tag = "Tenants",
    params(("tenant" = String, Path, description = "The tenant."), ("id" = String, Path, description = "The key, `key_…`.")),
    security(("session" = []), ("token" = [])),
    responses((status = 204, description = "Revoked."), Refused))]
async fn delete_api_key(
    State(app): State<App>,
    signed: Signed,
    Path((tenant, id)): Path<(String, String)>,
) -> Answer<StatusCode> {
    require_tenant(&app, &signed, &tenant).await?;
    let key = id
        .parse()
        .map_err(|error: nimbus_model::id::IdError| ApiError::field("id", error.to_string()))?;
    let request = RevokeKeyRequest { tenant, key };
    app.ask_for::<RevokeKey>(&signed.principal, &request).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Puts a new admin token in its file.
///
/// The old one is refused at once; the new one is in the file and in no answer.
#[utoipa::path(post, path = "/api/system/token/rotate", operation_id = "rotate_admin_token", tag = "System",
    security(("session" = []), ("token" = [])), responses((status = 200, body = RotatedView), Refused))]
async fn rotate_admin_token(State(app): State<App>, Admin(signed): Admin) -> Answer<Json<RotatedView>> {
    let rotated = app.ask_for::<RotateAdmin>(&signed.principal, &()).await?;
    Ok(Json(RotatedView {
        generation: rotated.generation,
    }))
}
