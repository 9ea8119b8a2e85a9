//! What is streamed line by line: logs, and what commands write.
//!
//! An empty line every 15 seconds shows that the stream lives. A stream that breaks ends the body
//! before its time, which every HTTP client notices; one that is ended on purpose says so in its last
//! line.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName};
use nimbus_bus::{BusStream, EndReason, StreamHandle};
use nimbus_errors::Fault;
use nimbus_guest::protocol::{FromCommand, OpenedCommand, Stream};
use nimbus_guest::{CommandEvents, CommandInput, GuestError};
use nimbus_model::RequestId;
use nimbus_proto::workloads::{Through, Wanted};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, Interval, interval_at};

use crate::channel::{Attached, refusal};
use crate::config::limits::HEARTBEAT;
use crate::envelope::{Answer, FaultView, request_id};
use crate::extract::Signed;
use crate::routes::NDJSON;
use crate::state::App;
use crate::views::workloads::LogsQuery;
use crate::views::workloads::command::{FrameView, OutputView, text_of};

/// Lines of a log where nothing else is said.
const TAIL: u32 = 200;
/// What is read of a log at a time.
const PIECE: usize = 64 * 1024;

/// Whether the client asks for lines rather than one answer.
pub(crate) fn wants_lines(headers: &HeaderMap) -> bool {
    let accepted = headers
        .get_all(http::header::ACCEPT)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    accepted
        .flat_map(|line| line.split(','))
        .any(|one| one.split(';').next().unwrap_or_default().trim() == NDJSON)
}

/// A body of lines.
fn lines(body: Body) -> Response {
    let headers = [
        (CONTENT_TYPE, NDJSON),
        (CACHE_CONTROL, "no-store"),
        // nginx would hold lines back.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, body).into_response()
}

fn heartbeat() -> Interval {
    interval_at(Instant::now() + HEARTBEAT, HEARTBEAT)
}

/// The log of a main process.
pub(crate) async fn logs(app: App, signed: &Signed, through: Through, query: LogsQuery) -> Answer<Response> {
    let wanted = Wanted::Logs {
        tail: Some(query.tail.unwrap_or(TAIL)),
        since: query.since,
        follow: query.follow,
    };
    let channel = app
        .open_channel(&signed.principal.token, through, "logs", wanted)
        .await?;
    let log = Log {
        app,
        stream: channel.stream,
        heartbeat: heartbeat(),
        between_lines: true,
    };
    Ok(lines(Body::from_stream(stream::try_unfold(
        log,
        |mut log| async move { Ok::<_, io::Error>(log.next().await?.map(|piece| (piece, log))) },
    ))))
}

/// The agent makes the lines; here they only pass.
struct Log {
    app: App,
    stream: BusStream,
    heartbeat: Interval,
    between_lines: bool,
}

impl Log {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut piece = BytesMut::with_capacity(PIECE);
        loop {
            tokio::select! {
                read = self.stream.read_buf(&mut piece) => {
                    if read? == 0 {
                        return Ok(None);
                    }
                    self.between_lines = piece.last() == Some(&b'\n');
                    return Ok(Some(piece.freeze()));
                }
                _ = self.heartbeat.tick() => if self.between_lines {
                    return Ok(Some(Bytes::from_static(b"\n")));
                },
                () = self.app.stop.cancelled() => return Err(stopping()),
            }
        }
    }
}

fn stopping() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the server stops")
}

/// What a command writes, from where it was attached at to its end. `stdin` is all of its input.
pub(crate) fn command(
    app: App,
    attached: Attached,
    id: String,
    channel: Option<&'static str>,
    stdin: Option<Bytes>,
) -> Response {
    let opened = attached.attachment.opened().clone();
    let (events, input) = attached.attachment.split();
    let first = FrameView::Opened {
        channel,
        target_generation: attached.reply.target_generation,
        command_id: id,
        started: opened.started,
        offset: opened.from,
        end: opened.end,
        input: opened.input,
    };
    let feed = CommandFeed {
        ready: VecDeque::from([line(&first)]),
        offset: opened.from,
        writing: stdin.map(|stdin| give(input, &opened, stdin)),
        request: request_id(),
        handle: attached.handle,
        heartbeat: heartbeat(),
        ended: false,
        events,
        app,
    };
    lines(Body::from_stream(stream::try_unfold(
        feed,
        |mut feed| async move { Ok::<_, io::Error>(feed.next().await?.map(|piece| (piece, feed))) },
    )))
}

/// Sends all of the input that the command does not have yet, then its end.
fn give(mut input: CommandInput<BusStream>, opened: &OpenedCommand, stdin: Bytes) -> BoxFuture<'static, ()> {
    let taken = usize::try_from(opened.input).unwrap_or(usize::MAX);
    let rest = stdin.slice(taken.min(stdin.len())..);
    Box::pin(async move {
        // A command may well end without reading its input, which its end then tells.
        let _ = input.send(rest).await;
        let _ = input.end().await;
    })
}

fn line(frame: &FrameView) -> Bytes {
    let mut text = serde_json::to_vec(frame).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

struct CommandFeed {
    app: App,
    events: CommandEvents<BusStream>,
    writing: Option<BoxFuture<'static, ()>>,
    handle: StreamHandle,
    request: RequestId,
    ready: VecDeque<Bytes>,
    offset: u64,
    heartbeat: Interval,
    ended: bool,
}

impl CommandFeed {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(ready) = self.ready.pop_front() {
            return Ok(Some(ready));
        }
        if self.ended {
            return Ok(None);
        }
        loop {
            let writing = async {
                match &mut self.writing {
                    Some(writing) => writing.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = self.events.next() => match event {
                    Ok(Some(event)) => if let Some(line) = self.shown(event) {
                        return Ok(Some(line));
                    },
                    Ok(None) => return Ok(None),
                    Err(error) => return self.failed(error).map(Some),
                },
                () = writing => self.writing = None,
                _ = self.heartbeat.tick() => return Ok(Some(Bytes::from_static(b"\n"))),
                () = self.app.stop.cancelled() => return Err(stopping()),
            }
        }
    }

    fn shown(&mut self, event: FromCommand) -> Option<Bytes> {
        match event {
            FromCommand::Output {
                stream,
                offset,
                bytes,
                ..
            } => {
                let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                self.offset = offset.saturating_add(length);
                let (data, encoding) = text_of(&bytes);
                let output = OutputView {
                    offset,
                    data,
                    encoding,
                };
                Some(line(&match stream {
                    Stream::Stdout => FrameView::Stdout(output),
                    Stream::Stderr => FrameView::Stderr(output),
                }))
            }
            FromCommand::Exit(exit) => {
                self.ended = true;
                Some(line(&FrameView::Exit(exit.into())))
            }
            FromCommand::InputAccepted(_) | FromCommand::Fault(_) => None,
        }
    }

    /// The last line, or the error that breaks the body off: a client then attaches again.
    fn failed(&mut self, error: GuestError) -> io::Result<Bytes> {
        self.ended = true;
        if let GuestError::Fault(fault) = error {
            let fault: Fault = refusal(fault);
            let error = FaultView::of(&fault, self.request.to_string(), self.app.clock.now());
            return Ok(line(&FrameView::Error {
                error: Box::new(error),
            }));
        }
        match self.handle.ended() {
            Some(reason) if !reason.is_broken() && reason.code != EndReason::DROPPED => {
                Ok(line(&FrameView::Closed {
                    reason: reason.code,
                    offset: self.offset,
                }))
            }
            _ => Err(io::Error::new(io::ErrorKind::ConnectionAborted, Arc::new(error))),
        }
    }
}
