//! What can be ordered, and where it would go.

use axum::extract::State;
use nimbus_bus::Scope;
use nimbus_model::{Os, Tier};
use nimbus_proto::node::{GetCatalog, PlacementRequest, Preview};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Refused;
use crate::envelope::{Answer, Data};
use crate::extract::{Params, Signed};
use crate::state::App;
use crate::views::machine::{CatalogView, PlacementView};
use crate::views::{os_schema, tier_schema};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(catalog))
        .routes(routes!(placement))
}

/// What the caller can order now.
#[utoipa::path(get, path = "/api/catalog", operation_id = "catalog", tag = "Machines", security(("session" = []), ("token" = [])),
    responses((status = 200, body = Data<CatalogView>), Refused))]
async fn catalog(State(app): State<App>, signed: Signed) -> Answer<Data<CatalogView>> {
    Ok(Data::of(
        app.ask_for::<GetCatalog>(&signed.principal, &()).await?.into(),
    ))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct PlacementQuery {
    /// The size.
    #[param(schema_with = tier_schema)]
    tier: Tier,
    /// The operating system.
    #[param(schema_with = os_schema)]
    os_template: Os,
}

/// Where a machine would go and why.
#[utoipa::path(get, path = "/api/placement", operation_id = "placement", tag = "Machines", params(PlacementQuery),
    security(("session" = []), ("token" = [])), responses((status = 200, body = Data<PlacementView>), Refused))]
async fn placement(
    State(app): State<App>,
    signed: Signed,
    Params(query): Params<PlacementQuery>,
) -> Answer<Data<PlacementView>> {
    let request = PlacementRequest {
        tier: query.tier,
        os: query.os_template,
    };
    let placement = app.ask_for::<Preview>(&signed.principal, &request).await?;
    Ok(Data::of(PlacementView::of(
        placement,
        signed.principal.identity.may(Scope::Admin),
    )))
}
