//! The portal's files, embedded in the binary.

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use nimbus_errors::{Code, Fault};
use rust_embed::{EmbeddedFile, RustEmbed};

use crate::envelope::ApiError;

#[derive(RustEmbed)]
#[folder = "$CARGO_MANIFEST_DIR/../../web/portal/dist"]
#[allow_missing = true]
struct Portal;

const INDEX: &str = "index.html";
/// Where the portal's build puts files whose names carry a hash of their content.
const HASHED: &str = "assets/";

/// Answers what no route does: a file of the portal, its page for every other address, or 404 below `/api`.
pub(crate) async fn fallback(request: Request) -> Response {
    let path = request.uri().path();
    if path == "/api" || path.starts_with("/api/") {
        let path: String = path.chars().take(200).collect();
        return ApiError::new(Code::ServiceRouteNotFound, format!("there is no route {path}"))
            .into_response();
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = not_allowed("GET,HEAD").into_response();
        response
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static("GET,HEAD"));
        return response;
    }
    let name = path.trim_start_matches('/');
    let found = Portal::get(if name.is_empty() { INDEX } else { name });
    match found {
        Some(file) => serve(name, &file, request.headers()),
        // A missing file is missing; an address of the portal is the portal's to show.
        None if name.starts_with(HASHED) => {
            ApiError::new(Code::OpNotFound, "there is no such file").into_response()
        }
        None => match Portal::get(INDEX) {
            Some(file) => serve(INDEX, &file, request.headers()),
            None => ApiError::new(Code::OpNotFound, "the portal is not part of this build").into_response(),
        },
    }
}

/// Answers a method that a route does not have; the router adds `Allow`.
pub(crate) async fn method_not_allowed() -> Response {
    ApiError::from(Fault::new(
        Code::OpMethodNotAllowed,
        "the route does not have this method",
    ))
    .into_response()
}

fn not_allowed(allow: &str) -> ApiError {
    Fault::new(Code::OpMethodNotAllowed, "the portal's files can only be read")
        .with_detail(&serde_json::json!({ "allow": allow }))
        .into()
}

fn serve(name: &str, file: &EmbeddedFile, headers: &HeaderMap) -> Response {
    let tag = format!("\"{}\"", hex::encode(file.metadata.sha256_hash()));
    let cache = if name.starts_with(HASHED) {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let kind = mime_guess::from_path(if name.is_empty() { INDEX } else { name }).first_or_octet_stream();
    let known = headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    let is_known =
        known.is_some_and(|tags| tags.split(',').any(|t| t.trim().trim_start_matches("W/") == tag));
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Body::from(file.data.to_vec()).into_response()
    };
    let text = if kind.type_() == "text" || kind.subtype() == "javascript" {
        format!("{kind}; charset=utf-8")
    } else {
        kind.to_string()
    };
    for (name, value) in [
        (header::CONTENT_TYPE, text.as_str()),
        (header::CACHE_CONTROL, cache),
        (header::ETAG, &tag),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
