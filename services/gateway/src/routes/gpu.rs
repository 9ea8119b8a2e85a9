//! GPU jobs: submitting them, looking at them, cancelling them. What they print and leave is in [`output`].

mod boxes;
mod openai;
mod output;
mod plane;
mod worker;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::LOCATION;
use http::{HeaderMap, StatusCode};
use nimbus_model::JobId;
use nimbus_proto::gpu::{
    CancelJob, GetJob, Job, JobState, ListJobs, ListJobsRequest, Prioritize, PrioritizeRequest, Submit,
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Refused;
use super::vms::idempotency_key;
use crate::envelope::{Answer, ApiError, Data, Page, wants_text};
use crate::extract::{Admin, Body, Gpu, Id, Params};
use crate::state::App;
use crate::views::gpu::{GpuJobView, PrioritizeBody, SubmitBody, heading};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, submit))
        .routes(routes!(get, prioritize))
        .routes(routes!(cancel))
        .merge(output::router())
        .merge(plane::router())
        .merge(boxes::router())
        .merge(worker::router())
        .merge(openai::router())
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Only jobs in this state: `queued`, `running`, `succeeded`, `failed` or `cancelled`.
    state: Option<String>,
    /// Another name of `state`; give one of the two.
    status: Option<String>,
    /// At most this many, 1 to 200; 50 when absent.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// The caller's jobs, or everybody's for administrators.
///
/// Queued ones first, in the order in which they will run, then the newest. The token of a machine sees the jobs of
/// that machine. With `Accept: text/plain` the answer is a table.
#[utoipa::path(get, path = "/api/gpu/jobs", operation_id = "list_gpu_jobs", tag = "GPU", params(ListQuery),
    security(("session" = []), ("token" = [])),
    responses((status = 200, content((Page<GpuJobView> = "application/json"), (String = "text/plain"))), Refused))]
async fn list(
    State(app): State<App>,
    Gpu(signed): Gpu,
    headers: HeaderMap,
    Params(query): Params<ListQuery>,
) -> Answer<Response> {
    let limit = query.limit.unwrap_or(50);
    if !(1..=200).contains(&limit) {
        return Err(ApiError::field(
            "limit",
            format!("limit: expected 1 to 200, got {limit}"),
        ));
    }
    let (name, state) = match (query.state, query.status) {
        (Some(_), Some(_)) => {
            return Err(ApiError::field(
                "status",
                "status: means the same as state, give one of them",
            ));
        }
        (None, Some(status)) => ("status", Some(status)),
        (state, None) => ("state", state),
    };
    let state = state.map(|state| state.parse::<JobState>()).transpose();
    let request = ListJobsRequest {
        state: state.map_err(|_| {
            ApiError::field(
                name,
                format!("{name}: expected queued, running, succeeded, failed or cancelled"),
            )
        })?,
        limit,
        after: query.cursor,
    };
    let page = app.ask_for::<ListJobs>(&signed.principal, &request).await?;
    let data: Vec<GpuJobView> = page.jobs.into_iter().map(GpuJobView::from).collect();
    if wants_text(&headers) {
        let rows: String = data.iter().map(GpuJobView::row).collect();
        return Ok(format!("{}{rows}", heading()).into_response());
    }
    let page = Page {
        success: true,
        data,
        next_cursor: page.next,
    };
    Ok(page.into_response())
}

/// Submits a job.
///
/// It runs when a box of its pool is free, in the order of submission. A repeat with the same `Idempotency-Key` gives
/// the same job. With `Accept: text/plain` the answer is its id.
#[utoipa::path(post, path = "/api/gpu/jobs", operation_id = "submit_gpu_job", tag = "GPU", request_body = SubmitBody,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters.")),
    security(("session" = []), ("token" = [])),
    responses((status = 201, description = "Queued; `Location` names it.",
        content((Data<GpuJobView> = "application/json"), (String = "text/plain"))), Refused))]
async fn submit(
    State(app): State<App>,
    Gpu(signed): Gpu,
    headers: HeaderMap,
    Body(body): Body<SubmitBody>,
) -> Answer<Response> {
    let key = idempotency_key(&signed, "gpu-submit", &headers)?;
    let job = app
        .ask_once::<Submit>(&signed.principal, key, &body.request()?)
        .await?;
    let location = [(LOCATION, format!("/api/gpu/jobs/{}", job.id))];
    if wants_text(&headers) {
        return Ok((StatusCode::CREATED, location, format!("{}\n", job.id)).into_response());
    }
    Ok((StatusCode::CREATED, location, Data::of(GpuJobView::from(job))).into_response())
}

/// The job as this client wants it.
fn shown(job: Job, headers: &HeaderMap) -> Response {
    let view = GpuJobView::from(job);
    if wants_text(headers) {
        view.text().into_response()
    } else {
        Data::of(view).into_response()
    }
}

/// One job.
///
/// With `Accept: text/plain` the answer is one line for each fact.
#[utoipa::path(get, path = "/api/gpu/jobs/{id}", operation_id = "get_gpu_job", tag = "GPU",
    params(("id" = String, Path, description = "The job, `job_…`.")), security(("session" = []), ("token" = [])),
    responses((status = 200, content((Data<GpuJobView> = "application/json"), (String = "text/plain"))), Refused))]
async fn get(
    State(app): State<App>,
    Gpu(signed): Gpu,
    headers: HeaderMap,
    Id(id): Id<JobId>,
) -> Answer<Response> {
    let job = app.ask_for::<GetJob>(&signed.principal, &id).await?;
    Ok(shown(job, &headers))
}

/// Changes the place of a queued job.
#[utoipa::path(patch, path = "/api/gpu/jobs/{id}", operation_id = "prioritize_gpu_job", tag = "GPU",
    params(("id" = String, Path, description = "The job, `job_…`.")), security(("session" = []), ("token" = [])),
    request_body = PrioritizeBody, responses((status = 200, body = Data<GpuJobView>), Refused))]
async fn prioritize(
    State(app): State<App>,
    Admin(signed): Admin,
    headers: HeaderMap,
    Id(job): Id<JobId>,
    Body(body): Body<PrioritizeBody>,
) -> Answer<Data<GpuJobView>> {
    let key = idempotency_key(&signed, "gpu-prioritize", &headers)?;
    let request = PrioritizeRequest {
        job,
        priority: body.priority,
    };
    let job = app
        .ask_once::<Prioritize>(&signed.principal, key, &request)
        .await?;
    Ok(Data::of(job.into()))
}

/// Cancels a job that has not ended.
///
/// A running one is stopped: its container is gone within seconds. With `Accept: text/plain` the answer is one line
/// for each fact.
#[utoipa::path(post, path = "/api/gpu/jobs/{id}/cancel", operation_id = "cancel_gpu_job", tag = "GPU",
    params(("id" = String, Path, description = "The job, `job_…`.")), security(("session" = []), ("token" = [])),
    responses((status = 200, content((Data<GpuJobView> = "application/json"), (String = "text/plain"))), Refused))]
async fn cancel(
    State(app): State<App>,
    Gpu(signed): Gpu,
    headers: HeaderMap,
    Id(id): Id<JobId>,
) -> Answer<Response> {
    let key = idempotency_key(&signed, "gpu-cancel", &headers)?;
    let job = app.ask_once::<CancelJob>(&signed.principal, key, &id).await?;
    Ok(shown(job, &headers))
}
