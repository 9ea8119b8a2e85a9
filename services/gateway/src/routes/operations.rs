//! Operations, and what they leave to be fetched.

use axum::extract::State;
use nimbus_errors::Code;
use nimbus_model::OperationId;
use nimbus_proto::machine::{ClaimKey, GetOperation, ListOperations};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Refused;
use crate::envelope::{Answer, ApiError, Data};
use crate::extract::{Id, Params, Signed};
use crate::state::App;
use crate::views::operation::{OperationView, PrivateKeyView};
use crate::views::trace::TraceView;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get))
        .routes(routes!(private_key))
        .routes(routes!(trace))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// At most this many, 1 to 500; 50 when absent.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
}

/// The caller's operations, newest first.
#[utoipa::path(get, path = "/api/operations", operation_id = "list_operations", tag = "Operations", params(ListQuery),
    security(("session" = []), ("token" = [])), responses((status = 200, body = Data<Vec<OperationView>>), Refused))]
async fn list(
    State(app): State<App>,
    signed: Signed,
    Params(query): Params<ListQuery>,
) -> Answer<Data<Vec<OperationView>>> {
    let limit = query.limit.unwrap_or(50);
    if !(1..=500).contains(&limit) {
        return Err(ApiError::field(
            "limit",
            format!("limit: expected 1 to 500, got {limit}"),
        ));
    }
    let operations = app.ask_for::<ListOperations>(&signed.principal, &limit).await?;
    Ok(Data::of(
        operations.into_iter().map(OperationView::from).collect(),
    ))
}

/// One of the caller's operations.
#[utoipa::path(get, path = "/api/operations/{id}", operation_id = "get_operation", tag = "Operations",
    params(("id" = String, Path, description = "The operation, `op_…`.")), security(("session" = []), ("token" = [])),
    responses((status = 200, body = Data<OperationView>), Refused))]
async fn get(State(app): State<App>, signed: Signed, Id(id): Id<OperationId>) -> Answer<Data<OperationView>> {
    Ok(Data::of(
        app.ask_for::<GetOperation>(&signed.principal, &id).await?.into(),
    ))
}

/// Hands out the private key that an operation has made, once.
#[utoipa::path(post, path = "/api/operations/{id}/private-key", operation_id = "claim_private_key", tag = "Operations",
    params(("id" = String, Path, description = "The operation, `op_…`.")), security(("session" = []), ("token" = [])),
    responses((status = 200, body = Data<PrivateKeyView>), Refused))]
async fn private_key(
    State(app): State<App>,
    signed: Signed,
    Id(id): Id<OperationId>,
) -> Answer<Data<PrivateKeyView>> {
    Ok(Data::of(
        app.ask_for::<ClaimKey>(&signed.principal, &id).await?.into(),
    ))
}

/// Where an operation's time went.
///
/// Traces are kept in memory and make way for newer ones.
#[utoipa::path(get, path = "/api/operations/{id}/trace", operation_id = "operation_trace", tag = "Operations",
    params(("id" = String, Path, description = "The operation, `op_…`.")), security(("session" = []), ("token" = [])),
    responses((status = 200, body = Data<TraceView>), Refused))]
async fn trace(State(app): State<App>, signed: Signed, Id(id): Id<OperationId>) -> Answer<Data<TraceView>> {
    let operation = app.ask_for::<GetOperation>(&signed.principal, &id).await?;
    let trace = operation.trace_id.and_then(|trace| app.traces.get(&trace));
    let trace = trace.ok_or_else(|| {
        ApiError::new(
            Code::OpNotFound,
            "the trace of this operation is not kept any more",
        )
    })?;
    Ok(Data::of(trace.into()))
}
