//! Tenants with their bounds, secrets and volumes; and the hosts under all of them.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use http::header::LOCATION;
use nimbus_proto::auth::ForgetTenant;
use nimbus_proto::workloads::{
    ConfigureTenant, ConfigureTenantRequest, CreateTenant, DeleteSecret, DeleteTenant, DeleteVolume,
    EnsureVolume, ForgetHost, GetTenant, ListHosts, ListSecrets, ListTenants, ListVolumes, Named, PutSecret,
    PutSecretRequest,
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Refused;
use crate::envelope::Answer;
use crate::extract::{Admin, Body, Once, Signed, name_of};
use crate::state::App;
use crate::views::workloads::Items;
use crate::views::workloads::host::HostView;
use crate::views::workloads::tenant::{
    ConfigureTenantBody, CreateTenantBody, SecretBody, SecretView, TenantIdView, TenantView, TenantsView,
    VolumeView,
};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, configure, delete))
        .routes(routes!(list_secrets))
        .routes(routes!(put_secret, delete_secret))
        .routes(routes!(list_volumes))
        .routes(routes!(put_volume, delete_volume))
        .routes(routes!(list_hosts))
        .routes(routes!(forget_host))
}

/// The tenants that the caller may reach.
#[utoipa::path(get, path = "/api/tenants", operation_id = "tenants.list", tag = "Tenants",
    security(("session" = []), ("token" = [])), responses((status = 200, body = TenantsView), Refused))]
async fn list(State(app): State<App>, signed: Signed) -> Answer<Json<TenantsView>> {
    let tenants = app.ask_for::<ListTenants>(&signed.principal, &()).await?;
    let mut tenants: Vec<_> = tenants.into_iter().map(|tenant| tenant.id).collect();
    tenants.sort();
    Ok(Json(TenantsView { tenants }))
}

/// Makes a tenant.
#[utoipa::path(post, path = "/api/tenants", operation_id = "tenants.create", tag = "Tenants",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat harmless for a day.")),
    security(("session" = []), ("token" = [])), request_body = CreateTenantBody,
    responses((status = 201, body = TenantIdView), Refused))]
async fn create(
    State(app): State<App>,
    signed: Signed,
    Once(key): Once,
    Body(body): Body<CreateTenantBody>,
) -> Answer<(StatusCode, [(http::HeaderName, String); 1], Json<TenantIdView>)> {
    let tenant = app
        .ask_once::<CreateTenant>(&signed.principal, key, &body.id)
        .await?;
    let place = format!("/api/tenants/{}", tenant.id);
    Ok((
        StatusCode::CREATED,
        [(LOCATION, place)],
        Json(TenantIdView { id: tenant.id }),
    ))
}

/// One tenant.
#[utoipa::path(get, path = "/api/tenants/{tenant}", operation_id = "tenants.get", tag = "Tenants",
    params(("tenant" = String, Path, description = "The tenant.")), security(("session" = []), ("token" = [])),
    responses((status = 200, body = TenantView), Refused))]
async fn get(State(app): State<App>, signed: Signed, Path(tenant): Path<String>) -> Answer<Json<TenantView>> {
    let tenant = app.ask_for::<GetTenant>(&signed.principal, &tenant).await?;
    Ok(Json(tenant.into()))
}

/// Changes a tenant's bounds and policy. For administrators.
#[utoipa::path(patch, path = "/api/tenants/{tenant}", operation_id = "tenants.configure", tag = "Tenants",
    params(("tenant" = String, Path, description = "The tenant.")), security(("session" = []), ("token" = [])),
    request_body = ConfigureTenantBody, responses((status = 200, body = TenantView), Refused))]
async fn configure(
    State(app): State<App>,
    Admin(signed): Admin,
    Path(tenant): Path<String>,
    Body(body): Body<ConfigureTenantBody>,
) -> Answer<Json<TenantView>> {
    let now = app.ask_for::<GetTenant>(&signed.principal, &tenant).await?;
    let request = ConfigureTenantRequest {
        tenant,
        settings: body.checked(now.quota.limit)?,
    };
    let tenant = app
        .ask_for::<ConfigureTenant>(&signed.principal, &request)
        .await?;
    Ok(Json(tenant.into()))
}

/// Deletes a tenant and everything in it.
///
/// Its API keys end first. If it fails half way, ask again.
#[utoipa::path(delete, path = "/api/tenants/{tenant}", operation_id = "tenants.delete", tag = "Tenants",
    params(("tenant" = String, Path, description = "The tenant.")), security(("session" = []), ("token" = [])),
    responses((status = 204, description = "Deleted."), Refused))]
async fn delete(State(app): State<App>, signed: Signed, Path(tenant): Path<String>) -> Answer<StatusCode> {
    // Whether the caller reaches it is for workloads to say, before anything is taken away.
    app.ask_for::<GetTenant>(&signed.principal, &tenant).await?;
    app.ask_for::<ForgetTenant>(&signed.principal, &tenant).await?;
    app.ask_for::<DeleteTenant>(&signed.principal, &tenant).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A tenant's secrets, without their values.
#[utoipa::path(get, path = "/api/tenants/{tenant}/secrets", operation_id = "secrets.list", tag = "Tenants",
    params(("tenant" = String, Path, description = "The tenant.")), security(("session" = []), ("token" = [])),
    responses((status = 200, body = Items<SecretView>), Refused))]
async fn list_secrets(
    State(app): State<App>,
    signed: Signed,
    Path(tenant): Path<String>,
) -> Answer<Json<Items<SecretView>>> {
    let secrets = app.ask_for::<ListSecrets>(&signed.principal, &tenant).await?;
    Ok(Json(Items::of(secrets)))
}

/// Sets a secret.
///
/// Sandboxes that are created from then on get the new value.
#[utoipa::path(put, path = "/api/tenants/{tenant}/secrets/{name}", operation_id = "secrets.put", tag = "Tenants",
    params(("tenant" = String, Path, description = "The tenant."), ("name" = String, Path, description = "The secret.")),
    security(("session" = []), ("token" = [])), request_body = SecretBody,
    responses((status = 200, body = SecretView), Refused))]
async fn put_secret(
    State(app): State<App>,
    signed: Signed,
    Once(key): Once,
    Path((tenant, name)): Path<(String, String)>,
    Body(body): Body<SecretBody>,
) -> Answer<Json<SecretView>> {
    let request = PutSecretRequest {
        tenant,
        name,
        value: body.value,
    };
    let secret = app
        .ask_once::<PutSecret>(&signed.principal, key, &request)
        .await?;
    Ok(Json(secret.into()))
}

/// Removes a secret.
#[utoipa::path(delete, path = "/api/tenants/{tenant}/secrets/{name}", operation_id = "secrets.delete", tag = "Tenants",
    params(("tenant" = String, Path, description = "The tenant."), ("name" = String, Path, description = "The secret.")),
    security(("session" = []), ("token" = [])), responses((status = 204, description = "Removed."), Refused))]
async fn delete_secret(
    State(app): State<App>,
    signed: Signed,
    Path((tenant, name)): Path<(String, String)>,
) -> Answer<StatusCode> {
    app.ask_for::<DeleteSecret>(&signed.principal, &Named { tenant, name })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A tenant's volumes.
#[utoipa::path(get, path = "/api/tenants/{tenant}/volumes", operation_id = "volumes.list", tag = "Tenants",
    params(("tenant" = String, Path, description = "The tenant.")), security(("session" = []), ("token" = [])),
    responses((status = 200, body = Items<VolumeView>), Refused))]
async fn list_volumes(
    State(app): State<App>,
    signed: Signed,
    Path(tenant): Path<String>,
) -> Answer<Json<Items<VolumeView>>> {
    let volumes = app.ask_for::<ListVolumes>(&signed.principal, &tenant).await?;
    Ok(Json(Items::of(volumes)))
}

/// Makes a volume, or gives the one of that name.
#[utoipa::path(put, path = "/api/tenants/{tenant}/volumes/{name}", operation_id = "volumes.put", tag = "Tenants",
    params(("tenant" = String, Path, description = "The tenant."), ("name" = String, Path, description = "The volume.")),
    security(("session" = []), ("token" = [])), responses((status = 200, body = VolumeView), Refused))]
async fn put_volume(
    State(app): State<App>,
    signed: Signed,
    Path((tenant, name)): Path<(String, String)>,
) -> Answer<Json<VolumeView>> {
    let volume = app
        .ask_for::<EnsureVolume>(&signed.principal, &Named { tenant, name })
        .await?;
    Ok(Json(volume.into()))
}

/// Removes a volume with its data.
///
/// Refused while a sandbox mounts it.
#[utoipa::path(delete, path = "/api/tenants/{tenant}/volumes/{name}", operation_id = "volumes.delete", tag = "Tenants",
    params(("tenant" = String, Path, description = "The tenant."), ("name" = String, Path, description = "The volume.")),
    security(("session" = []), ("token" = [])), responses((status = 204, description = "Removed."), Refused))]
async fn delete_volume(
    State(app): State<App>,
    signed: Signed,
    Path((tenant, name)): Path<(String, String)>,
) -> Answer<StatusCode> {
    app.ask_for::<DeleteVolume>(&signed.principal, &Named { tenant, name })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The hosts that run sandboxes. For administrators.
#[utoipa::path(get, path = "/api/hosts", operation_id = "hosts.list", tag = "Tenants",
    security(("session" = []), ("token" = [])), responses((status = 200, body = Items<HostView>), Refused))]
async fn list_hosts(State(app): State<App>, Admin(signed): Admin) -> Answer<Json<Items<HostView>>> {
    let hosts = app.ask_for::<ListHosts>(&signed.principal, &()).await?;
    Ok(Json(Items::of(hosts)))
}

/// Forgets a host that is lost and will not come back. For administrators.
///
/// Refused with 409 while it is heard. One that speaks again is a host again.
#[utoipa::path(delete, path = "/api/hosts/{name}", operation_id = "hosts.forget", tag = "Tenants",
    params(("name" = String, Path, description = "The host.")),
    security(("session" = []), ("token" = [])), responses((status = 204, description = "Forgotten, or never known."), Refused))]
async fn forget_host(
    State(app): State<App>,
    Admin(signed): Admin,
    Path(name): Path<String>,
) -> Answer<StatusCode> {
    let host = name_of("name", &name)?;
    app.ask_for::<ForgetHost>(&signed.principal, &host).await?;
    Ok(StatusCode::NO_CONTENT)
}
