//! Nodes, addresses and guests, for administrators.

use axum::extract::State;
use nimbus_bus::Key;
use nimbus_model::Tier;
use nimbus_proto::ippool;
use nimbus_proto::node::{GetStats, ListGuests, ListNodes, ListNodesRequest};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Refused;
use crate::envelope::{Answer, Data, request_id};
use crate::extract::{Admin, Params};
use crate::state::App;
use crate::views::cluster::{AddressReconcileView, AddressView, GuestView, NodeView, StatsView};
use crate::views::tier_schema;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(nodes))
        .routes(routes!(addresses))
        .routes(routes!(reconcile))
        .routes(routes!(guests))
        .routes(routes!(stats))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct NodesQuery {
    /// Whether to score the nodes.
    include_scores: Option<bool>,
    /// The size to score for; `medium` when absent.
    #[param(schema_with = tier_schema, required = false)]
    preview_tier: Option<Tier>,
}

/// The cluster's nodes.
#[utoipa::path(get, path = "/api/nodes", operation_id = "list_nodes", tag = "Cluster", params(NodesQuery),
    security(("session" = []), ("token" = [])), responses((status = 200, body = Data<Vec<NodeView>>), Refused))]
async fn nodes(
    State(app): State<App>,
    Admin(signed): Admin,
    Params(query): Params<NodesQuery>,
) -> Answer<Data<Vec<NodeView>>> {
    let scored = query.include_scores.unwrap_or(query.preview_tier.is_some());
    let tier = scored.then(|| query.preview_tier.unwrap_or(Tier::Medium));
    let nodes = app
        .ask_for::<ListNodes>(&signed.principal, &ListNodesRequest { tier, os: None })
        .await?;
    Ok(Data::of(
        nodes.into_iter().map(|node| NodeView::of(node, tier)).collect(),
    ))
}

/// Every address of the pool, in numeric order.
#[utoipa::path(get, path = "/api/ips", operation_id = "list_addresses", tag = "Cluster",
    security(("session" = []), ("token" = [])), responses((status = 200, body = Data<Vec<AddressView>>), Refused))]
async fn addresses(State(app): State<App>, Admin(signed): Admin) -> Answer<Data<Vec<AddressView>>> {
    let addresses = app.ask_for::<ippool::List>(&signed.principal, &()).await?;
    Ok(Data::of(addresses.into_iter().map(AddressView::from).collect()))
}

/// Compares the pool's books with the cluster now.
#[utoipa::path(post, path = "/api/ips/reconcile", operation_id = "reconcile_addresses", tag = "Cluster",
    security(("session" = []), ("token" = [])), responses((status = 200, body = Data<AddressReconcileView>), Refused))]
async fn reconcile(State(app): State<App>, Admin(signed): Admin) -> Answer<Data<AddressReconcileView>> {
    let report = app
        .ask_once::<ippool::Reconcile>(&signed.principal, Key::of(request_id()), &())
        .await?;
    Ok(Data::of(report.into()))
}

/// Every virtual machine of the cluster.
#[utoipa::path(get, path = "/api/cluster/vms", operation_id = "list_guests", tag = "Cluster",
    security(("session" = []), ("token" = [])), responses((status = 200, body = Data<Vec<GuestView>>), Refused))]
async fn guests(State(app): State<App>, Admin(signed): Admin) -> Answer<Data<Vec<GuestView>>> {
    let guests = app.ask_for::<ListGuests>(&signed.principal, &()).await?;
    Ok(Data::of(guests.into_iter().map(GuestView::from).collect()))
}

/// Storage of the whole cluster.
#[utoipa::path(get, path = "/api/cluster/stats", operation_id = "cluster_stats", tag = "Cluster",
    security(("session" = []), ("token" = [])), responses((status = 200, body = Data<StatsView>), Refused))]
async fn stats(State(app): State<App>, Admin(signed): Admin) -> Answer<Data<StatsView>> {
    Ok(Data::of(
        app.ask_for::<GetStats>(&signed.principal, &()).await?.into(),
    ))
}
