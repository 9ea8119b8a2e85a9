//! What jobs print and leave: bytes of logs, logs as they grow, and artifacts.

use std::io;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName,
    HeaderValue, IF_NONE_MATCH,
};
use http::{HeaderMap, StatusCode};
use nimbus_errors::{Code, Fault};
use nimbus_guest::protocol::Range;
use nimbus_model::JobId;
use nimbus_proto::gpu::{
    Artifact, Chunk, GetJob, Job, ReadArtifact, ReadArtifactRequest, ReadLog, ReadLogRequest,
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Refused;
use crate::envelope::{Answer, ApiError};
use crate::extract::{Gpu, Id, Params, Signed};
use crate::files::{matches_tag, wanted};
use crate::job_log::follow;
use crate::state::App;

/// What is read at a time.
const PIECE: u32 = 1024 * 1024;
/// The longest that a request for a log waits for more of it.
const LONGEST_WAIT_MS: u32 = 30_000;

const LOG_END: HeaderName = HeaderName::from_static("nimbus-log-end");
const LOG_TRUNCATED: HeaderName = HeaderName::from_static("nimbus-log-truncated");
const JOB_STATE: HeaderName = HeaderName::from_static("nimbus-job-state");
const JOB_EXIT_CODE: HeaderName = HeaderName::from_static("nimbus-job-exit-code");

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(logs))
        .routes(routes!(artifact))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct LogQuery {
    /// The first byte wanted; 0 when absent.
    offset: Option<u64>,
    /// At most this many bytes; all there are when absent. Not with `follow`.
    #[param(minimum = 1)]
    limit: Option<u64>,
    /// How long to wait for the first byte while the job goes on, at most 30 000. Not with `follow`.
    #[param(maximum = 30_000)]
    wait_ms: Option<u32>,
    /// Answer with a stream of events that ends when the job has.
    follow: Option<bool>,
}

/// What a job has printed: both of its outputs, in the order in which they came.
///
/// Answers with the bytes. `Nimbus-Log-End` says how many there are, `Nimbus-Job-State` where the job stands, and
/// `Nimbus-Log-Truncated: true` that more was printed than is kept. With `follow=true` it is a stream of events: `log`
/// with `{offset, text}`, or `{offset, base64}` where the bytes are no text, and `state`; a client that comes back with
/// `Last-Event-ID` misses nothing.
#[utoipa::path(get, path = "/api/gpu/jobs/{id}/logs", operation_id = "gpu_job_log", tag = "GPU",
    params(("id" = String, Path, description = "The job, `job_…`."), LogQuery,
        ("Last-Event-ID" = Option<u64>, Header, description = "`id` of the last `log` event that was seen.")),
    security(("session" = []), ("token" = [])),
    responses((status = 200, description = "The bytes, or events.",
        content((Vec<u8> = "application/octet-stream"), (String = "text/event-stream"))), Refused))]
async fn logs(
    State(app): State<App>,
    Gpu(signed): Gpu,
    headers: HeaderMap,
    Id(id): Id<JobId>,
    Params(query): Params<LogQuery>,
) -> Answer<Response> {
    let offset = query.offset.unwrap_or(0);
    let job = app.ask_for::<GetJob>(&signed.principal, &id).await?;
    if query.follow.unwrap_or(false) {
        let seen = headers
            .get("last-event-id")
            .and_then(|value| value.to_str().ok()?.trim().parse().ok());
        return follow(app, signed, job, seen.unwrap_or(offset));
    }
    let limit = query.limit.unwrap_or(u64::MAX);
    if limit == 0 {
        return Err(ApiError::field("limit", "limit: expected at least 1"));
    }
    let request = ReadLogRequest {
        job: id,
        offset,
        limit: u32::try_from(limit).unwrap_or(PIECE).min(PIECE),
        wait_ms: query.wait_ms.unwrap_or(0).min(LONGEST_WAIT_MS),
    };
    let first = app.ask_for::<ReadLog>(&signed.principal, &request).await?;
    // The job was read before its log: whoever is told that it has ended is given the end of the log, too. When the
    // log was waited for, what was known of the job is old.
    let job = if first.complete && !job.state.is_final() {
        app.ask_for::<GetJob>(&signed.principal, &id).await?
    } else {
        job
    };
    let total = first.end.saturating_sub(offset).min(limit);
    let mut answer = HeaderMap::new();
    let mut set = |name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            answer.insert(name, value);
        }
    };
    set(CONTENT_TYPE, "application/octet-stream".to_owned());
    set(CONTENT_LENGTH, total.to_string());
    set(LOG_END, first.end.to_string());
    set(LOG_TRUNCATED, first.truncated.to_string());
    set(JOB_STATE, job.state.to_string());
    if let Some(code) = job.exit_code {
        set(JOB_EXIT_CODE, code.to_string());
    }
    let source = Source {
        app,
        signed,
        job: id,
        kind: Kind::Log,
    };
    Ok((answer, source.body(offset, total, Some(first))).into_response())
}

/// What a job left in its folder for artifacts, as `.tar.gz`.
#[utoipa::path(get, path = "/api/gpu/jobs/{id}/artifact", operation_id = "gpu_job_artifact", tag = "GPU",
    params(("id" = String, Path, description = "The job, `job_…`."),
        ("Range" = Option<String>, Header, description = "One part of it, such as `bytes=1000-`.")),
    security(("session" = []), ("token" = [])),
    responses((status = 200, body = Vec<u8>, content_type = "application/gzip"),
        (status = 206, body = Vec<u8>, content_type = "application/gzip", description = "The part that was asked for."),
        (status = 416, description = "There is no such part."), Refused))]
async fn artifact(
    State(app): State<App>,
    Gpu(signed): Gpu,
    headers: HeaderMap,
    Id(id): Id<JobId>,
) -> Answer<Response> {
    let job = app.ask_for::<GetJob>(&signed.principal, &id).await?;
    let left = job.artifact.clone().ok_or_else(|| nothing_left(&job))?;
    let tag = format!("\"{}\"", left.sha256);
    let mut answer = HeaderMap::new();
    let mut set = |name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            answer.insert(name, value);
        }
    };
    set(ETAG, tag.clone());
    if headers.contains_key(IF_NONE_MATCH) && matches_tag(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, answer).into_response());
    }
    set(ACCEPT_RANGES, "bytes".to_owned());
    let Some((offset, length)) = part(wanted(&headers), &left) else {
        set(CONTENT_RANGE, format!("bytes */{}", left.bytes));
        return Ok((StatusCode::RANGE_NOT_SATISFIABLE, answer).into_response());
    };
    let status = if length == left.bytes {
        StatusCode::OK
    } else {
        let last = offset.saturating_add(length).saturating_sub(1);
        set(CONTENT_RANGE, format!("bytes {offset}-{last}/{}", left.bytes));
        StatusCode::PARTIAL_CONTENT
    };
    set(CONTENT_TYPE, "application/gzip".to_owned());
    set(CONTENT_LENGTH, length.to_string());
    set(
        CONTENT_DISPOSITION,
        format!("attachment; filename=\"{id}.tar.gz\""),
    );
    let source = Source {
        app,
        signed,
        job: id,
        kind: Kind::Artifact,
    };
    Ok((status, answer, source.body(offset, length, None)).into_response())
}

fn nothing_left(job: &Job) -> ApiError {
    let why = match (&job.artifact_note, job.state.is_final()) {
        (Some(note), _) => note.clone(),
        (None, true) => "it left nothing".to_owned(),
        (None, false) => format!("it is {}", job.state),
    };
    ApiError::new(
        Code::OpNotFound,
        format!("there is no artifact of {}: {why}", job.id),
    )
}

/// Where the part begins and how long it is; none when there is no such part.
fn part(range: Range, left: &Artifact) -> Option<(u64, u64)> {
    match range {
        Range::All => Some((0, left.bytes)),
        Range::From { offset, length } => (offset < left.bytes).then(|| {
            let rest = left.bytes.saturating_sub(offset);
            (offset, length.map_or(rest, |length| length.min(rest)))
        }),
        Range::Last(0) => None,
        Range::Last(length) => {
            let length = length.min(left.bytes);
            Some((left.bytes.saturating_sub(length), length))
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Log,
    Artifact,
}

/// Bytes of a job, for as long as somebody reads them.
struct Source {
    app: App,
    signed: Signed,
    job: JobId,
    kind: Kind,
}

impl Source {
    /// Exactly `length` bytes from `offset`, of which `first` has been read already.
    fn body(self, offset: u64, length: u64, first: Option<Chunk>) -> Body {
        let state = (self, offset, length, first);
        Body::from_stream(stream::try_unfold(
            state,
            |(source, offset, left, first)| async move {
                if left == 0 {
                    return Ok(None);
                }
                let chunk = match first {
                    Some(chunk) => chunk,
                    // A body that breaks off before its length is noticed by every client.
                    None => source.read(offset, left).await.map_err(io::Error::other)?,
                };
                if chunk.bytes.is_empty() {
                    return Err(io::Error::other(format!("there is nothing at byte {offset}")));
                }
                let mut bytes = Bytes::from(chunk.bytes);
                bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                let read = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                let (offset, left) = (offset.saturating_add(read), left.saturating_sub(read));
                Ok(Some((bytes, (source, offset, left, None))))
            },
        ))
    }

    async fn read(&self, offset: u64, left: u64) -> Result<Chunk, Fault> {
        let limit = u32::try_from(left).unwrap_or(PIECE).min(PIECE);
        // Again for each piece: access tokens live for minutes, slow readers take longer.
        let principal = self.app.principals.find(&self.signed.credential).await?;
        let job = self.job;
        match self.kind {
            Kind::Log => {
                let request = ReadLogRequest {
                    job,
                    offset,
                    limit,
                    wait_ms: 0,
                };
                self.app.ask_for::<ReadLog>(&principal, &request).await
            }
            Kind::Artifact => {
                let request = ReadArtifactRequest { job, offset, limit };
                self.app.ask_for::<ReadArtifact>(&principal, &request).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_cut_to_what_there_is() {
        let left = Artifact {
            bytes: 100,
            sha256: String::new(),
        };
        let from = |offset, length| Range::From { offset, length };
        for (range, expected) in [
            (Range::All, Some((0, 100))),
            (from(0, Some(10)), Some((0, 10))),
            (from(90, Some(50)), Some((90, 10))),
            (from(99, None), Some((99, 1))),
            (from(100, None), None),
            (Range::Last(7), Some((93, 7))),
            (Range::Last(700), Some((0, 100))),
            (Range::Last(0), None),
        ] {
            assert_eq!(part(range, &left), expected, "{range:?}");
        }
    }
}
