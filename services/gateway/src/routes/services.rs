//! Services: names that other code may rely on, and what is behind them.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use http::header::{IF_MATCH, LOCATION};
use http::{HeaderMap, StatusCode};
use nimbus_proto::workloads::{
    CreateService, DeleteService, DeleteServiceRequest, GetService, ListRequest, ListServices, Named, Page,
    RestartService, RestartServiceRequest, StartService, StopService, Through, UpdateService, WriteService,
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{NDJSON, Refused, page_limit};
use crate::envelope::{Answer, ApiError};
use crate::extract::{Body, Lenient, Nothing, Once, Params, Signed};
use crate::feed;
use crate::state::App;
use crate::views::workloads::service::{
    DeleteServiceQuery, OnActive, RestartBody, ServiceBody, ServiceView, ServicesQuery, UpdateQuery,
};
use crate::views::workloads::{Collection, LogsQuery};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, update, delete))
        .routes(routes!(start))
        .routes(routes!(stop))
        .routes(routes!(restart))
        .routes(routes!(logs))
}

/// A tenant's services, by name.
#[utoipa::path(get, path = "/api/tenants/{tenant}/services", operation_id = "services.list", tag = "Services",
    params(("tenant" = String, Path, description = "The tenant."), ServicesQuery), security(("session" = []), ("token" = [])),
    responses((status = 200, body = Collection<ServiceView>), Refused))]
async fn list(
    State(app): State<App>,
    signed: Signed,
    Path(tenant): Path<String>,
    Params(query): Params<ServicesQuery>,
) -> Answer<Json<Collection<ServiceView>>> {
    let request = ListRequest {
        tenant: tenant.clone(),
        page: Page {
            limit: page_limit(query.limit),
            page_token: query.page_token,
            label_key: query.label_key,
            label_value: query.label_value,
            state: None,
        },
    };
    let listing = app.ask_for::<ListServices>(&signed.principal, &request).await?;
    Ok(Json(Collection::of(tenant, listing)))
}

/// The tenant that is repeated in a body must be the one of the address.
fn same(field: &str, given: Option<&str>, wanted: &str) -> Answer<()> {
    match given {
        Some(given) if given != wanted => Err(ApiError::field(
            field,
            format!("{field}: the address says {wanted:?}, the body {given:?}"),
        )),
        _ => Ok(()),
    }
}

/// Defines a service.
///
/// Nothing is started.
#[utoipa::path(post, path = "/api/tenants/{tenant}/services", operation_id = "services.create", tag = "Services",
    params(("tenant" = String, Path, description = "The tenant."),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat harmless for a day.")),
    security(("session" = []), ("token" = [])), request_body = ServiceBody,
    responses((status = 201, body = ServiceView), Refused))]
async fn create(
    State(app): State<App>,
    signed: Signed,
    Path(tenant): Path<String>,
    Once(key): Once,
    Body(body): Body<ServiceBody>,
) -> Answer<(StatusCode, [(http::HeaderName, String); 1], Json<ServiceView>)> {
    let metadata = body.metadata;
    same("metadata.tenantId", metadata.tenant_id.as_deref(), &tenant)?;
    if metadata.generation.is_some_and(|generation| generation != 0) {
        return Err(ApiError::field(
            "metadata.generation",
            "metadata.generation: a service that does not exist has none",
        ));
    }
    let name = metadata
        .name
        .ok_or_else(|| ApiError::field("metadata.name", "metadata.name: is required"))?;
    let request = WriteService {
        tenant: tenant.clone(),
        name,
        labels: metadata.labels,
        backend: body.spec.backend.checked()?,
        if_generation: None,
        reject_active: false,
    };
    let service = app
        .ask_once::<CreateService>(&signed.principal, key, &request)
        .await?;
    let place = format!("/api/tenants/{tenant}/services/{}", service.name);
    Ok((StatusCode::CREATED, [(LOCATION, place)], Json(service.into())))
}

/// One service.
#[utoipa::path(get, path = "/api/tenants/{tenant}/services/{name}", operation_id = "services.get", tag = "Services",
    params(("tenant" = String, Path, description = "The tenant."), ("name" = String, Path, description = "The service.")),
    security(("session" = []), ("token" = [])), responses((status = 200, body = ServiceView), Refused))]
async fn get(
    State(app): State<App>,
    signed: Signed,
    Path((tenant, name)): Path<(String, String)>,
) -> Answer<Json<ServiceView>> {
    let service = app
        .ask_for::<GetService>(&signed.principal, &Named { tenant, name })
        .await?;
    Ok(Json(service.into()))
}

/// The generation of `If-Match: "3"`.
fn if_match(headers: &HeaderMap) -> Answer<Option<u64>> {
    let Some(value) = headers.get(IF_MATCH) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    text.strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .and_then(|text| text.parse().ok())
        .map(Some)
        .ok_or_else(|| ApiError::field("If-Match", "If-Match: expected a generation, such as \"3\""))
}

/// The one generation that is named, wherever it stands.
fn precondition(given: &[Option<u64>]) -> Answer<u64> {
    let mut named = given.iter().flatten();
    let first = named
        .next()
        .ok_or_else(|| ApiError::field("ifMatchGeneration", "ifMatchGeneration: is required"))?;
    if named.all(|other| other == first) {
        Ok(*first)
    } else {
        Err(ApiError::field(
            "ifMatchGeneration",
            "ifMatchGeneration: two generations are named, and they differ",
        ))
    }
}

/// Replaces a service's definition.
///
/// The generation that was read must still be the current one. What runs is brought to the new
/// definition where it has to be.
#[utoipa::path(put, path = "/api/tenants/{tenant}/services/{name}", operation_id = "services.update", tag = "Services",
    params(("tenant" = String, Path, description = "The tenant."), ("name" = String, Path, description = "The service."), UpdateQuery,
        ("If-Match" = Option<String>, Header, description = "The generation that was read, in quotes.")),
    security(("session" = []), ("token" = [])), request_body = ServiceBody,
    responses((status = 200, body = ServiceView), Refused))]
async fn update(
    State(app): State<App>,
    signed: Signed,
    Path((tenant, name)): Path<(String, String)>,
    Params(query): Params<UpdateQuery>,
    Once(key): Once,
    headers: HeaderMap,
    Body(body): Body<ServiceBody>,
) -> Answer<Json<ServiceView>> {
    let metadata = body.metadata;
    same("metadata.tenantId", metadata.tenant_id.as_deref(), &tenant)?;
    same("metadata.name", metadata.name.as_deref(), &name)?;
    let generation = precondition(&[
        metadata.generation,
        query.if_match_generation,
        if_match(&headers)?,
    ])?;
    let request = WriteService {
        tenant,
        name,
        labels: metadata.labels,
        backend: body.spec.backend.checked()?,
        if_generation: Some(generation),
        reject_active: query.on_active == Some(OnActive::Reject),
    };
    let service = app
        .ask_once::<UpdateService>(&signed.principal, key, &request)
        .await?;
    Ok(Json(service.into()))
}

/// Deletes a service.
///
/// Refused while it runs or has open sessions, unless `force` is set.
#[utoipa::path(delete, path = "/api/tenants/{tenant}/services/{name}", operation_id = "services.delete", tag = "Services",
    params(("tenant" = String, Path, description = "The tenant."), ("name" = String, Path, description = "The service."),
        DeleteServiceQuery, ("If-Match" = Option<String>, Header, description = "The generation that was read, in quotes.")),
    security(("session" = []), ("token" = [])), responses((status = 204, description = "Deleted."), Refused))]
async fn delete(
    State(app): State<App>,
    signed: Signed,
    Path((tenant, name)): Path<(String, String)>,
    Params(query): Params<DeleteServiceQuery>,
    Once(key): Once,
    headers: HeaderMap,
) -> Answer<StatusCode> {
    let request = DeleteServiceRequest {
        tenant,
        name,
        if_generation: precondition(&[query.if_match_generation, if_match(&headers)?])?,
        force: query.force,
    };
    app.ask_once::<DeleteService>(&signed.principal, key, &request)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Starts a service.
///
/// Answers at once; the start goes on. Starting what is active changes nothing.
#[utoipa::path(post, path = "/api/tenants/{tenant}/services/{name}/start", operation_id = "services.start", tag = "Services",
    params(("tenant" = String, Path, description = "The tenant."), ("name" = String, Path, description = "The service.")),
    security(("session" = []), ("token" = [])), request_body = Option<Nothing>,
    responses((status = 200, body = ServiceView), Refused))]
async fn start(
    State(app): State<App>,
    signed: Signed,
    Path((tenant, name)): Path<(String, String)>,
    Once(key): Once,
    Lenient(Nothing {}): Lenient<Nothing>,
) -> Answer<Json<ServiceView>> {
    let service = app
        .ask_once::<StartService>(&signed.principal, key, &Named { tenant, name })
        .await?;
    Ok(Json(service.into()))
}

/// Stops a service.
#[utoipa::path(post, path = "/api/tenants/{tenant}/services/{name}/stop", operation_id = "services.stop", tag = "Services",
    params(("tenant" = String, Path, description = "The tenant."), ("name" = String, Path, description = "The service.")),
    security(("session" = []), ("token" = [])), request_body = Option<Nothing>,
    responses((status = 200, body = ServiceView), Refused))]
async fn stop(
    State(app): State<App>,
    signed: Signed,
    Path((tenant, name)): Path<(String, String)>,
    Once(key): Once,
    Lenient(Nothing {}): Lenient<Nothing>,
) -> Answer<Json<ServiceView>> {
    let service = app
        .ask_once::<StopService>(&signed.principal, key, &Named { tenant, name })
        .await?;
    Ok(Json(service.into()))
}

/// Stops and starts a service.
///
/// Its sandbox is a new one afterwards.
#[utoipa::path(post, path = "/api/tenants/{tenant}/services/{name}/restart", operation_id = "services.restart", tag = "Services",
    params(("tenant" = String, Path, description = "The tenant."), ("name" = String, Path, description = "The service.")),
    security(("session" = []), ("token" = [])), request_body = Option<RestartBody>,
    responses((status = 200, body = ServiceView), Refused))]
async fn restart(
    State(app): State<App>,
    signed: Signed,
    Path((tenant, name)): Path<(String, String)>,
    Once(key): Once,
    Lenient(body): Lenient<RestartBody>,
) -> Answer<Json<ServiceView>> {
    let request = RestartServiceRequest {
        tenant,
        name,
        source_generation: body.source_generation,
        request_id: body.request_id,
    };
    let service = app
        .ask_once::<RestartService>(&signed.principal, key, &request)
        .await?;
    Ok(Json(service.into()))
}

/// What a service's main process has written.
///
/// One line of JSON each: `{"ts","stream","data","encoding"?}`.
#[utoipa::path(get, path = "/api/tenants/{tenant}/services/{name}/logs", operation_id = "services.logs", tag = "Services",
    params(("tenant" = String, Path, description = "The tenant."), ("name" = String, Path, description = "The service."), LogsQuery),
    security(("session" = []), ("token" = [])), responses((status = 200, body = String, content_type = NDJSON), Refused))]
async fn logs(
    State(app): State<App>,
    signed: Signed,
    Path((tenant, name)): Path<(String, String)>,
    Params(query): Params<LogsQuery>,
) -> Answer<Response> {
    feed::logs(app, &signed, Through::Service { tenant, name }, query).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_precondition_is_named_once_or_alike() {
        assert_eq!(precondition(&[None, Some(3), Some(3)]).unwrap(), 3);
        for bad in [&[None, None][..], &[Some(1), Some(2)]] {
            let refused = precondition(bad).unwrap_err();
            assert_eq!(
                refused.fault().detail_json().unwrap()["field"],
                "ifMatchGeneration"
            );
        }
    }

    #[test]
    fn if_match_is_a_generation_in_quotes() {
        let headers = |text: &'static str| HeaderMap::from_iter([(IF_MATCH, text.parse().unwrap())]);
        assert_eq!(if_match(&headers("\"3\"")).unwrap(), Some(3));
        assert_eq!(if_match(&HeaderMap::new()).unwrap(), None);
        for bad in ["3", "\"x\"", "*"] {
            assert!(if_match(&headers(bad)).is_err(), "{bad}");
        }
    }
}
