//! How GPUs are set up, what models there are, and who used them.

use axum::extract::State;
use http::HeaderMap;
use nimbus_bus::{Key, Scope};
use nimbus_errors::Code;
use nimbus_proto::gpu::{
    CreatePairing, GetInference, GetSettings, GetUsage, PairingRequest, PutSettings, Unpair, Unpaired,
    UsageRequest,
};
use serde::Deserialize;
use url::Url;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Refused;
use crate::access::Origin;
use crate::envelope::{Answer, ApiError, Data, OPENAI_ROOT, request_id};
use crate::extract::{Admin, Body, Gpu, Lenient, Params, Signed, name_of};
use crate::public;
use crate::state::App;
use crate::views::gpu::{
    GpuSettingsBody, GpuSettingsView, InferenceView, PairingView, UnpairBody, UnpairedView, UsageView,
};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(inference))
        .routes(routes!(usage))
        .routes(routes!(settings, put_settings))
        .routes(routes!(pair))
        .routes(routes!(unpair))
}

/// The inference endpoint: whether it answers, and which models it has.
#[utoipa::path(get, path = "/api/gpu/inference", operation_id = "gpu_inference", tag = "GPU",
    security(("session" = []), ("token" = [])), responses((status = 200, body = Data<InferenceView>), Refused))]
async fn inference(
    State(app): State<App>,
    Gpu(signed): Gpu,
    origin: Origin,
    headers: HeaderMap,
) -> Answer<Data<InferenceView>> {
    let base = public::base(&app, origin, &headers)?;
    let inference = app.ask_for::<GetInference>(&signed.principal, &()).await?;
    let url = format!("{}{OPENAI_ROOT}", public::text(&base));
    Ok(Data::of(InferenceView::of(inference, url)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct UsageQuery {
    /// How many days back, today included, 1 to 366; 30 when absent.
    #[param(minimum = 1, maximum = 366)]
    days: Option<u32>,
    /// What everybody used; for administrators.
    all: Option<bool>,
}

/// What the caller used of models, by day and model.
#[utoipa::path(get, path = "/api/gpu/usage", operation_id = "gpu_usage", tag = "GPU", params(UsageQuery),
    security(("session" = []), ("token" = [])), responses((status = 200, body = Data<Vec<UsageView>>), Refused))]
async fn usage(
    State(app): State<App>,
    gpu: Gpu,
    Params(query): Params<UsageQuery>,
) -> Answer<Data<Vec<UsageView>>> {
    gpu.person()?;
    let Gpu(signed) = gpu;
    let days = query.days.unwrap_or(30);
    if !(1..=366).contains(&days) {
        return Err(ApiError::field(
            "days",
            format!("days: expected 1 to 366, got {days}"),
        ));
    }
    let everybody = query.all.unwrap_or(false);
    if everybody {
        signed.require(Scope::Admin)?;
    }
    let request = UsageRequest { days, everybody };
    let usage = app.ask_for::<GetUsage>(&signed.principal, &request).await?;
    Ok(Data::of(usage.into_iter().map(UsageView::from).collect()))
}

/// How GPUs are set up.
#[utoipa::path(get, path = "/api/settings/gpu", operation_id = "get_gpu_settings", tag = "GPU",
    security(("session" = []), ("token" = [])), responses((status = 200, body = Data<GpuSettingsView>), Refused))]
async fn settings(State(app): State<App>, Admin(signed): Admin) -> Answer<Data<GpuSettingsView>> {
    let settings = app.ask_for::<GetSettings>(&signed.principal, &()).await?;
    Ok(Data::of(settings.into()))
}

/// Changes how GPUs are set up.
#[utoipa::path(put, path = "/api/settings/gpu", operation_id = "put_gpu_settings", tag = "GPU", request_body = GpuSettingsBody,
    security(("session" = []), ("token" = [])), responses((status = 200, body = Data<GpuSettingsView>), Refused))]
async fn put_settings(
    State(app): State<App>,
    Admin(signed): Admin,
    Body(body): Body<GpuSettingsBody>,
) -> Answer<Data<GpuSettingsView>> {
    let settings = app
        .ask_once::<PutSettings>(&signed.principal, Key::of(request_id()), &body.into())
        .await?;
    app.inference.forget();
    Ok(Data::of(settings.into()))
}

/// The line that makes a box a worker.
///
/// It is good for five minutes and for one box; a newer one ends it.
#[utoipa::path(post, path = "/api/settings/gpu/pairing", operation_id = "pair_gpu_box", tag = "GPU",
    security(("session" = []), ("token" = [])), responses((status = 200, body = Data<PairingView>), Refused))]
async fn pair(
    State(app): State<App>,
    Admin(signed): Admin,
    origin: Origin,
    headers: HeaderMap,
) -> Answer<Data<PairingView>> {
    pairing(&app, &signed, origin, &headers, PairingRequest { worker: None }).await
}

pub(super) async fn pairing(
    app: &App,
    signed: &Signed,
    origin: Origin,
    headers: &HeaderMap,
    request: PairingRequest,
) -> Answer<Data<PairingView>> {
    let base = public::base(app, origin, headers)?;
    if public::is_local(&base) {
        return Err(ApiError::new(
            Code::GpuPairingUnreachable,
            format!("a box does not reach Nimbus under {}", public::text(&base)),
        ));
    }
    let pairing = app.ask_for::<CreatePairing>(&signed.principal, &request).await?;
    let token = pairing.token.reveal();
    Ok(Data::of(PairingView {
        token: token.to_owned(),
        expires_in_seconds: pairing.expires_in_s,
        curl: format!(
            "curl -fsSL \"{}/api/gpu/install.sh?token={token}\" | sudo bash",
            public::text(&base)
        ),
    }))
}

/// Forgets one box, or all.
///
/// What they run is cancelled; without any box left, what is queued, too.
#[utoipa::path(post, path = "/api/settings/gpu/unpair", operation_id = "unpair_gpu", tag = "GPU", request_body = UnpairBody,
    security(("session" = []), ("token" = [])), responses((status = 200, body = Data<UnpairedView>), Refused))]
async fn unpair(
    State(app): State<App>,
    Admin(signed): Admin,
    origin: Origin,
    headers: HeaderMap,
    Lenient(body): Lenient<UnpairBody>,
) -> Answer<Data<UnpairedView>> {
    let worker = body
        .worker
        .as_deref()
        .map(|name| name_of("worker", name))
        .transpose()?;
    let unpaired = app
        .ask_once::<Unpair>(&signed.principal, Key::of(request_id()), &worker)
        .await?;
    app.inference.forget();
    let base = public::base(&app, origin, &headers)?;
    Ok(Data::of(forgotten(unpaired, &base)))
}

pub(super) fn forgotten(unpaired: Unpaired, base: &Url) -> UnpairedView {
    UnpairedView {
        cancelled_jobs: unpaired.cancelled_jobs,
        workers: unpaired.workers.iter().map(ToString::to_string).collect(),
        cleanup_cmd: format!(
            "curl -fsSL \"{}/api/gpu/scripts/uninstall.sh\" | sudo bash",
            public::text(base)
        ),
    }
}
