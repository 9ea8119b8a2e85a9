//! The boxes that run jobs.

use axum::extract::{Path, State};
use http::HeaderMap;
use nimbus_bus::{Key, Scope};
use nimbus_proto::gpu::{ListWorkers, PairingRequest, SetWorker, SetWorkerRequest, Unpair};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Refused;
use super::plane::{forgotten, pairing};
use crate::access::Origin;
use crate::envelope::{Answer, Data, request_id};
use crate::extract::{Admin, Body, Gpu, name_of};
use crate::public;
use crate::state::App;
use crate::views::gpu::{GpuWorkerView, PairingView, UnpairedView, WorkerBody};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(change, unpair))
        .routes(routes!(rotate))
}

/// The boxes that run jobs.
///
/// Where they are and what they run is for administrators.
#[utoipa::path(get, path = "/api/gpu/workers", operation_id = "list_gpu_workers", tag = "GPU",
    security(("session" = []), ("token" = [])), responses((status = 200, body = Data<Vec<GpuWorkerView>>), Refused))]
async fn list(State(app): State<App>, gpu: Gpu) -> Answer<Data<Vec<GpuWorkerView>>> {
    gpu.person()?;
    let Gpu(signed) = gpu;
    let workers = app.ask_for::<ListWorkers>(&signed.principal, &()).await?;
    let is_admin = signed.principal.identity.may(Scope::Admin);
    let views = workers
        .into_iter()
        .map(|worker| GpuWorkerView::of(worker, is_admin));
    Ok(Data::of(views.collect()))
}

/// Pauses, drains or resumes a box, or moves it to another pool.
#[utoipa::path(patch, path = "/api/gpu/workers/{id}", operation_id = "change_gpu_worker", tag = "GPU", request_body = WorkerBody,
    params(("id" = String, Path, description = "The box' name.")), security(("session" = []), ("token" = [])),
    responses((status = 200, body = Data<GpuWorkerView>), Refused))]
async fn change(
    State(app): State<App>,
    Admin(signed): Admin,
    Path(id): Path<String>,
    Body(body): Body<WorkerBody>,
) -> Answer<Data<GpuWorkerView>> {
    let request = SetWorkerRequest {
        worker: name_of("id", &id)?,
        standing: body.standing.map(Into::into),
        pool: body.pool,
    };
    let worker = app
        .ask_once::<SetWorker>(&signed.principal, Key::of(request_id()), &request)
        .await?;
    Ok(Data::of(GpuWorkerView::of(worker, true)))
}

/// Forgets a box. What it runs is cancelled.
#[utoipa::path(delete, path = "/api/gpu/workers/{id}", operation_id = "unpair_gpu_worker", tag = "GPU",
    params(("id" = String, Path, description = "The box' name.")), security(("session" = []), ("token" = [])),
    responses((status = 200, body = Data<UnpairedView>), Refused))]
async fn unpair(
    State(app): State<App>,
    Admin(signed): Admin,
    origin: Origin,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Answer<Data<UnpairedView>> {
    let worker = Some(name_of("id", &id)?);
    let unpaired = app
        .ask_once::<Unpair>(&signed.principal, Key::of(request_id()), &worker)
        .await?;
    app.inference.forget();
    let base = public::base(&app, origin, &headers)?;
    Ok(Data::of(forgotten(unpaired, &base)))
}

/// The line that gives a box new credentials; the old ones end when it is used.
#[utoipa::path(post, path = "/api/settings/gpu/workers/{id}/rotate", operation_id = "rotate_gpu_worker", tag = "GPU",
    params(("id" = String, Path, description = "The box' name.")), security(("session" = []), ("token" = [])),
    responses((status = 200, body = Data<PairingView>), Refused))]
async fn rotate(
    State(app): State<App>,
    Admin(signed): Admin,
    origin: Origin,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Answer<Data<PairingView>> {
    let worker = Some(name_of("id", &id)?);
    pairing(&app, &signed, origin, &headers, PairingRequest { worker }).await
}
