//! Recent traces, for administrators.

use axum::extract::State;
use nimbus_errors::Code;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Refused;
use crate::envelope::{Answer, ApiError, Data};
use crate::extract::{Admin, Id, Params};
use crate::state::App;
use crate::views::trace::{TraceRowView, TraceView};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// At most this many, 1 to 500; 50 when absent.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<usize>,
}

/// Recent traces, newest first.
///
/// Those of the process that answers; with services in processes of their own, each has its part.
#[utoipa::path(get, path = "/api/traces", operation_id = "list_traces", tag = "Traces", params(ListQuery),
    security(("session" = []), ("token" = [])), responses((status = 200, body = Data<Vec<TraceRowView>>), Refused))]
async fn list(
    State(app): State<App>,
    Admin(_): Admin,
    Params(query): Params<ListQuery>,
) -> Answer<Data<Vec<TraceRowView>>> {
    let limit = query.limit.unwrap_or(50);
    if !(1..=500).contains(&limit) {
        return Err(ApiError::field(
            "limit",
            format!("limit: expected 1 to 500, got {limit}"),
        ));
    }
    Ok(Data::of(
        app.traces
            .newest(limit)
            .into_iter()
            .map(TraceRowView::from)
            .collect(),
    ))
}

/// One trace.
#[utoipa::path(get, path = "/api/traces/{id}", operation_id = "get_trace", tag = "Traces",
    params(("id" = String, Path, description = "The trace, 32 hexadecimal digits.")), security(("session" = []), ("token" = [])),
    responses((status = 200, body = Data<TraceView>), Refused))]
async fn get(State(app): State<App>, Admin(_): Admin, Id(id): Id<String>) -> Answer<Data<TraceView>> {
    let trace = app.traces.get(&id).ok_or_else(|| {
        ApiError::new(
            Code::OpNotFound,
            "there is no such trace, or it is not kept any more",
        )
    })?;
    Ok(Data::of(trace.into()))
}
