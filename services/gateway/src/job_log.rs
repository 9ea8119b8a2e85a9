//! The log of a GPU job as it grows, as Server-Sent Events (HTML Living Standard).
//!
//! The scheduler holds each question for bytes until there are some; meanwhile the hub tells how the job changes.
//! Text is cut between characters, so that each event is valid by itself, and bytes that are no text go as base64.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, stream};
use http::HeaderName;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use nimbus_errors::{Code, Fault};
use nimbus_model::JobId;
use nimbus_proto::gpu::{Chunk, GetJob, Job, ReadLog, ReadLogRequest};
use nimbus_telemetry::OpenStream;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::time::{Duration, sleep};

use crate::envelope::{Answer, ApiError};
use crate::extract::Signed;
use crate::hub::Shown;
use crate::principals::ends;
use crate::state::App;

/// How long a question for bytes is held: also the time between two signs of life.
const WAIT_MS: u32 = 15_000;
/// What is read at a time: an event is a line of JSON, which should stay small.
const PIECE: u32 = 64 * 1024;
/// Before asking again after a question that had no answer.
const PAUSE: Duration = Duration::from_secs(1);

/// The stream of a job's log from `offset` on.
pub(crate) fn follow(app: App, signed: Signed, job: Job, offset: u64) -> Answer<Response> {
    let slot = app.streams.take(signed.principal.identity.user).ok_or_else(|| {
        ApiError::new(
            Code::RateResourceExhausted,
            format!(
                "there are {} open streams of this user",
                app.config.streams_per_user
            ),
        )
    })?;
    let mut follow = Follow {
        live: app.hub.subscribe(None).live,
        _open: app.metrics.stream(),
        _slot: slot,
        asking: None,
        ready: VecDeque::from([": open\nretry: 2000\n\n".to_owned()]),
        carry: Vec::new(),
        told: None,
        is_over: false,
        job: job.id,
        offset,
        signed,
        app,
    };
    follow.tell_state(&StateView::of(&job));
    let body = Body::from_stream(stream::unfold(follow, |mut follow| async move {
        let text = follow.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(text)), follow))
    }));
    let headers = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-cache, no-transform"),
        // nginx would hold events back.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, body).into_response())
}

/// Where the job stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct StateView {
    state: String,
    phase: Option<String>,
    exit_code: Option<i64>,
    error_msg: Option<String>,
    log_truncated: bool,
}

impl StateView {
    fn of(job: &Job) -> Self {
        let view = crate::views::gpu::GpuJobView::of_event(job.clone());
        Self {
            state: view.state.to_owned(),
            phase: view.phase.map(str::to_owned),
            exit_code: view.exit_code.map(i64::from),
            error_msg: view.error_msg,
            log_truncated: view.log_truncated,
        }
    }

    /// From an event about a job, if it is about this one.
    fn of_event(event: &Shown, job: JobId) -> Option<Self> {
        if event.name != crate::hub::GPU_JOB {
            return None;
        }
        let view: Value = serde_json::from_str(&event.data).ok()?;
        let text = |name: &str| view.get(name).and_then(Value::as_str).map(str::to_owned);
        (text("id")? == job.to_string()).then_some(())?;
        Some(Self {
            state: text("state")?,
            phase: text("phase"),
            exit_code: view.get("exit_code").and_then(Value::as_i64),
            error_msg: text("error_msg"),
            log_truncated: view
                .get("log_truncated")
                .and_then(Value::as_bool)
                .unwrap_or(false),
        })
    }
}

struct Follow {
    app: App,
    signed: Signed,
    job: JobId,
    /// Bytes up to here were read.
    offset: u64,
    /// The last of them, when they are the beginning of a character.
    carry: Vec<u8>,
    ready: VecDeque<String>,
    /// The state that was told last.
    told: Option<StateView>,
    asking: Option<BoxFuture<'static, Result<Chunk, Fault>>>,
    live: Receiver<Arc<Shown>>,
    is_over: bool,
    _slot: OwnedSemaphorePermit,
    _open: OpenStream,
}

/// What happened while we waited.
enum News {
    Log(Result<Chunk, Fault>),
    Event(Result<Arc<Shown>, RecvError>),
    Stop,
}

impl Follow {
    /// The next piece of the stream; none at its end.
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(ready);
            }
            if self.is_over {
                return None;
            }
            let asking = self
                .asking
                .get_or_insert_with(|| ask(self.app.clone(), self.signed.clone(), self.job, self.offset));
            let news = tokio::select! {
                chunk = asking => News::Log(chunk),
                event = self.live.recv() => News::Event(event),
                () = self.app.stop.cancelled() => News::Stop,
            };
            match news {
                News::Log(answer) => {
                    self.asking = None;
                    self.take(answer).await;
                }
                News::Event(Ok(event)) => {
                    if event
                        .revoked
                        .as_ref()
                        .is_some_and(|revoked| ends(revoked, &self.signed.principal.identity))
                    {
                        return None;
                    }
                    // The end is told after the last byte, which may still be on its way here.
                    if let Some(state) = StateView::of_event(&event, self.job)
                        && matches!(state.state.as_str(), "queued" | "running")
                    {
                        self.tell_state(&state);
                    }
                }
                // What was missed is found out with the next answer.
                News::Event(Err(RecvError::Lagged(_))) => {}
                News::Event(Err(RecvError::Closed)) | News::Stop => return None,
            }
        }
    }

    async fn take(&mut self, answer: Result<Chunk, Fault>) {
        match answer {
            Ok(chunk) => {
                let is_quiet = chunk.bytes.is_empty();
                let is_complete = chunk.complete;
                self.tell_bytes(chunk);
                if is_complete {
                    self.end().await;
                } else if is_quiet {
                    self.ready.push_back(": alive\n\n".to_owned());
                }
            }
            Err(fault) if fault.retryable => {
                tracing::debug!("a log is asked for again: {fault}");
                self.ready.push_back(": waiting\n\n".to_owned());
                sleep(PAUSE).await;
            }
            // The job is not the caller's any more, or its log is gone.
            Err(fault) => {
                let error = serde_json::json!({ "code": fault.code, "message": fault.message });
                self.ready.push_back(format!("event: error\ndata: {error}\n\n"));
                self.is_over = true;
            }
        }
    }

    /// There will be no more bytes: what remains to be told is how the job ended.
    async fn end(&mut self) {
        let job = async {
            let principal = self.app.principals.find(&self.signed.credential).await?;
            self.app.ask_for::<GetJob>(&principal, &self.job).await
        };
        match job.await {
            Ok(job) => {
                self.tell_state(&StateView::of(&job));
                self.is_over = job.state.is_final();
            }
            // Who listens comes back and is told then.
            Err(_) => self.is_over = true,
        }
        if !self.is_over {
            // A log that is complete before its job has ended: only its state is still to come.
            sleep(PAUSE).await;
        }
    }

    fn tell_state(&mut self, state: &StateView) {
        if self.told.as_ref() == Some(state) {
            return;
        }
        self.told = Some(state.clone());
        // Plain values: nothing in it can fail to become JSON.
        let data = serde_json::to_string(state).unwrap_or_default();
        self.ready.push_back(format!("event: state\ndata: {data}\n\n"));
    }

    fn tell_bytes(&mut self, chunk: Chunk) {
        let begin = self.offset.saturating_sub(length(&self.carry));
        self.offset = self.offset.saturating_add(length(&chunk.bytes));
        let mut bytes = std::mem::take(&mut self.carry);
        bytes.extend_from_slice(&chunk.bytes);
        if !chunk.complete && !chunk.bytes.is_empty() {
            self.carry = bytes.split_off(whole_characters(&bytes));
        }
        if bytes.is_empty() {
            return;
        }
        let end = begin.saturating_add(length(&bytes));
        let data = match std::str::from_utf8(&bytes) {
            Ok(text) => serde_json::json!({ "offset": begin, "text": text }),
            Err(_) => serde_json::json!({ "offset": begin, "base64": STANDARD.encode(&bytes) }),
        };
        self.ready
            .push_back(format!("id: {end}\nevent: log\ndata: {data}\n\n"));
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// How many bytes there are before a character that has only begun.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        // What is no text at all is not text either when the next byte has come.
        _ => bytes.len(),
    }
}

fn ask(app: App, signed: Signed, job: JobId, offset: u64) -> BoxFuture<'static, Result<Chunk, Fault>> {
    async move {
        // Again for each question: access tokens live for minutes, jobs run for days.
        let principal = app.principals.find(&signed.credential).await?;
        let request = ReadLogRequest {
            job,
            offset,
            limit: PIECE,
            wait_ms: WAIT_MS,
        };
        app.ask_for::<ReadLog>(&principal, &request).await
    }
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters_and_bytes_that_are_none_are_not_held_back() {
        let euro = "a€".as_bytes();
        assert_eq!(whole_characters(euro), 4);
        assert_eq!(whole_characters(&euro[..3]), 1);
        assert_eq!(whole_characters(&euro[..2]), 1);
        assert_eq!(whole_characters(b"a\xff"), 2);
        assert_eq!(whole_characters(b"\xff\xe2\x82"), 3, "no text anyway");
        assert_eq!(whole_characters(b""), 0);
    }
}
