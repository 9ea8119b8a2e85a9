//! The OpenAI API of the inference endpoint, for everybody who is signed in.

use axum::extract::{Request, State};
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Refused;
use crate::envelope::Answer;
use crate::extract::Gpu;
use crate::inference::forward;
use crate::state::App;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(openai))
}

/// The OpenAI API: models, chat completions, completions, embeddings and responses.
///
/// Give clients of that API `/api/gpu/v1` as their base URL and a personal access token, or the token of a machine, as
/// their key. Requests and answers are passed on as they are, event streams too.
#[utoipa::path(method(get, post), path = "/api/gpu/v1/{*path}", operation_id = "openai.", tag = "GPU",
    params(("path" = String, Path, description = "`models`, `models/{model}`, `chat/completions`, `completions`, `embeddings` or `responses`.")),
    security(("session" = []), ("token" = [])),
    responses((status = 200, description = "Whatever the endpoint answers."), Refused))]
async fn openai(State(app): State<App>, Gpu(signed): Gpu, request: Request) -> Answer<Response> {
    forward(&app, &signed, request).await
}
