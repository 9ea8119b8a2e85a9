//! A process' input and output as a WebSocket.
//!
//! ```text
//! browser ◀─ WebSocket ─▶ here ◀─ stream on the bus ─▶ the guest's attachment
//!  0 input ─────────────▶ CommandInput, which waits while the process takes none
//!  1 2 output ◀────────── CommandEvents, which wait while the browser takes none
//!  3 control, both ways
//! ```
//! The channel is opened before the upgrade, so a refusal is an HTTP answer like any other.

use axum::extract::FromRequestParts;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::request::Parts;
use nimbus_bus::{AccessToken, BusStream, EndReason, StreamHandle};
use nimbus_errors::{Code, Fault};
use nimbus_guest::protocol::{CommandSpec, FromCommand, Hello, OpenedCommand, Since, Stream, TerminalSize};
use nimbus_guest::{CommandEvents, CommandInput, GuestError};
use nimbus_proto::Secret;
use nimbus_proto::workloads::{Channel, OpenReply, RedeemTicket};
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, interval_at};
use utoipa::IntoParams;

use crate::access::{Presented, same_origin};
use crate::channel::Attached;
use crate::config::limits::HEARTBEAT;
use crate::envelope::{Answer, ApiError};
use crate::extract::Signed;
use crate::routes::sessions::lease;
use crate::state::App;
use crate::views::workloads::command::{fresh_command, signal_number};
use crate::views::workloads::file::flag;

/// The id of a sandbox' own process.
pub(crate) const MAIN: &str = "main";
/// What is spoken here.
const PROTOCOL: &str = "nimbus.session.v1";
/// Largest payload of one message in either direction.
const PAYLOAD: usize = 32 * 1024;
/// How much of the past is shown first where no offset is named.
const REPLAY: u64 = 64 * 1024;
/// How long a process that was started for a terminal waits for it to come back.
const LINGER_MS: u64 = 60_000;

/// What is attached to.
#[derive(Clone, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct StdioQuery {
    /// The tenant; among all that the caller may reach when it is left out.
    pub tenant_id: Option<String>,
    /// A process to be started: a JSON array of program and arguments. It ends a minute after the last
    /// one has detached.
    pub argv: Option<String>,
    /// `1`: with a terminal.
    pub tty: Option<String>,
    /// Columns of the terminal, 80 when they are left out.
    pub cols: Option<u16>,
    /// Rows of the terminal, 24 when they are left out.
    pub rows: Option<u16>,
    /// With `argv` the id of the process, chosen by the caller: an id that is sent twice runs once, and
    /// the second attaches. Alone the process to attach to.
    pub command: Option<String>,
    /// The offset of the output to begin at; its last 64 KiB when it is left out.
    pub from: Option<u64>,
    /// A ticket, instead of a credential.
    #[param(value_type = Option<String>)]
    pub ticket: Option<Secret>,
}

impl StdioQuery {
    /// The process and how it is attached to.
    pub(crate) fn hello(&self, input: bool) -> Answer<(String, Hello)> {
        let since = self.from.map_or(Since::Tail(REPLAY), Since::Offset);
        let Some(argv) = &self.argv else {
            let command = self.command.clone().unwrap_or_else(|| MAIN.to_owned());
            let hello = Hello::Attach {
                command: command.clone(),
                since,
                input,
            };
            return Ok((command, hello));
        };
        let argv: Vec<String> = serde_json::from_str(argv)
            .ok()
            .filter(|argv: &Vec<String>| !argv.is_empty())
            .ok_or_else(|| ApiError::field("argv", "argv: expected a JSON array of strings"))?;
        let command = self.command.clone().unwrap_or_else(fresh_command);
        let terminal = flag(self.tty.as_deref(), "tty")?.then(|| TerminalSize {
            cols: self.cols.unwrap_or(80),
            rows: self.rows.unwrap_or(24),
        });
        let spec = CommandSpec {
            terminal,
            stdin: true,
            linger_ms: Some(LINGER_MS),
            lossless: true,
            ..CommandSpec::new(command.clone(), argv)
        };
        Ok((command, Hello::Run { spec, since, input }))
    }
}

/// A request for a WebSocket, and who may have sent it.
pub(crate) struct Upgrading {
    socket: WebSocketUpgrade,
    signed: Option<Signed>,
}

impl FromRequestParts<App> for Upgrading {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let has_ticket = parts.uri.query().is_some_and(|query| {
            url::form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == "ticket")
        });
        let signed = if has_ticket {
            None
        } else {
            // A browser lets any page open a WebSocket and adds the cookie.
            let ambient = parts
                .extensions
                .get::<Presented>()
                .is_none_or(Presented::is_ambient);
            if ambient && !same_origin(&parts.headers) {
                return Err(ApiError::new(
                    Code::AuthForbidden,
                    "the request comes from a page of another origin",
                ));
            }
            Some(Signed::from_request_parts(parts, app).await?)
        };
        let socket = WebSocketUpgrade::from_request_parts(parts, app)
            .await
            .map_err(|_| {
                ApiError::new(
                    Code::OpInvalidInput,
                    "this address is a WebSocket's; use …/stream for lines of JSON",
                )
            })?;
        Ok(Self { socket, signed })
    }
}

impl Upgrading {
    /// Whom the request is from: its credential, or a ticket that is used up by this.
    pub(crate) async fn token(
        &self,
        app: &App,
        ticket: Option<Secret>,
        session: &str,
    ) -> Answer<AccessToken> {
        match (&self.signed, ticket) {
            (Some(signed), _) => Ok(signed.principal.token.clone()),
            (None, Some(ticket)) => redeem(app, ticket, session).await,
            (None, None) => Err(ApiError::unauthorized("Not authenticated")),
        }
    }

    /// The WebSocket, in our subprotocol where the client offers it.
    pub(crate) fn into_socket(self) -> WebSocketUpgrade {
        self.socket.protocols([PROTOCOL])
    }
}

/// Opens the channel, then the WebSocket.
pub(crate) async fn upgrade(
    app: App,
    session: String,
    query: StdioQuery,
    upgrading: Upgrading,
) -> Answer<Response> {
    let token = upgrading.token(&app, query.ticket.clone(), &session).await?;
    let (command, hello) = query.hello(true)?;
    let through = lease(session, query.tenant_id, Channel::Stdio);
    let attached = app.attach(&token, through, hello).await?;
    let replays = query.from.is_none();
    let response =
        upgrading
            .into_socket()
            .max_message_size(2 * PAYLOAD)
            .on_upgrade(move |socket| async move {
                Terminal::new(app, attached, command, replays).run(socket).await;
            });
    Ok(response.into_response())
}

/// Whom a ticket stands for; it must be one of this session.
async fn redeem(app: &App, ticket: Secret, session: &str) -> Answer<AccessToken> {
    let redeemed = app.ask::<RedeemTicket>(&ticket).await?;
    if redeemed.session == session {
        Ok(AccessToken::new(redeemed.access_token.reveal().to_owned()))
    } else {
        Err(ApiError::unauthorized("the ticket is not one of this session"))
    }
}

struct Terminal {
    app: App,
    command: String,
    opened: OpenedCommand,
    replays: bool,
    reply: OpenReply,
    events: CommandEvents<BusStream>,
    input: CommandInput<BusStream>,
    handle: StreamHandle,
}

/// How it ends, as the WebSocket says it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) code: u16,
    pub(crate) reason: String,
}

impl End {
    pub(crate) fn new(code: u16, reason: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
        }
    }
}

impl Terminal {
    fn new(app: App, attached: Attached, command: String, replays: bool) -> Self {
        let opened = attached.attachment.opened().clone();
        let (events, input) = attached.attachment.split();
        Self {
            app,
            command,
            opened,
            replays,
            reply: attached.reply,
            events,
            input,
            handle: attached.handle,
        }
    }

    async fn run(self, socket: WebSocket) {
        let Self {
            app,
            command,
            opened,
            replays,
            reply,
            events,
            input,
            handle,
        } = self;
        let (mut sink, source) = socket.split();
        let mut first = vec![control(&json!({
            "type": "opened", "targetGeneration": reply.target_generation, "command": command,
            "started": opened.started, "offset": opened.from, "end": opened.end,
        }))];
        if replays && opened.end > opened.from {
            first.push(control(
                &json!({ "type": "replay", "bytes": opened.end - opened.from }),
            ));
        }
        let end = async {
            for message in first {
                if sink.send(message).await.is_err() {
                    return None;
                }
            }
            // Whichever side ends first ends both; dropped, the attachment lets go of the process.
            tokio::select! {
                end = show(events, &mut sink, &handle) => end,
                end = take(source, input, &handle) => end,
                () = app.stop.cancelled() => Some(End::new(1012, "the server stops")),
            }
        }
        .await;
        if let Some(End { code, reason }) = end {
            let reason = Utf8Bytes::from(reason);
            // The other side may be gone.
            let _ = sink.send(Message::Close(Some(CloseFrame { code, reason }))).await;
            let _ = sink.close().await;
        }
    }
}

fn tagged(tag: u8, payload: &[u8]) -> Message {
    let mut out = BytesMut::with_capacity(1 + payload.len());
    out.put_u8(tag);
    out.put_slice(payload);
    Message::Binary(out.freeze())
}

fn control(value: &serde_json::Value) -> Message {
    tagged(3, value.to_string().as_bytes())
}

/// Sends what the process writes. None when the client is gone.
async fn show(
    mut events: CommandEvents<BusStream>,
    sink: &mut SplitSink<WebSocket, Message>,
    handle: &StreamHandle,
) -> Option<End> {
    let mut heartbeat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            _ = heartbeat.tick() => {
                sink.send(Message::Ping(Bytes::new())).await.ok()?;
                continue;
            }
        };
        match event {
            Ok(Some(FromCommand::Output { stream, bytes, .. })) => {
                let tag = match stream {
                    Stream::Stdout => 1,
                    Stream::Stderr => 2,
                };
                for piece in bytes.chunks(PAYLOAD) {
                    sink.send(tagged(tag, piece)).await.ok()?;
                }
            }
            Ok(Some(FromCommand::Exit(exit))) => {
                let message = json!({
                    "type": "exit", "code": exit.shell_code(), "signal": exit.signal, "timedOut": exit.timed_out,
                });
                sink.send(control(&message)).await.ok()?;
                return Some(End::new(1000, "exit"));
            }
            Ok(Some(FromCommand::InputAccepted(_) | FromCommand::Fault(_))) => {}
            Ok(None) => return Some(End::new(1000, "exit")),
            Err(error) => return Some(ended(&error, handle)),
        }
    }
}

/// The close code of an attachment that ended before the process did.
fn ended(error: &GuestError, handle: &StreamHandle) -> End {
    if let GuestError::Fault(fault) = error {
        return if Code::find(&fault.code) == Some(Code::OpConflict) {
            End::new(4009, "replaced")
        } else {
            End::new(4002, fault.code.as_str())
        };
    }
    match handle.ended() {
        Some(reason) => closed(&reason),
        None => End::new(1011, "the sandbox ended the stream"),
    }
}

/// The close code of a stream that was ended for a reason.
pub(crate) fn closed(reason: &EndReason) -> End {
    let code = match reason.code.as_str() {
        "expired" => 4001,
        "target_stopped"
        | "target_failed"
        | "target_replaced"
        | "tenant_deleted"
        | "service_force_deleted" => 4003,
        EndReason::BROKEN | EndReason::DROPPED => 1011,
        _ => 4002,
    };
    End::new(code, reason.code.as_str())
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
enum Order {
    Resize { cols: u16, rows: u16 },
    Eof,
    Signal { name: String },
}

/// Hands on what the client sends. None when it is gone.
async fn take(
    mut source: SplitStream<WebSocket>,
    mut input: CommandInput<BusStream>,
    handle: &StreamHandle,
) -> Option<End> {
    while let Some(message) = source.next().await {
        let message = message.ok()?;
        let outcome = match message {
            Message::Binary(bytes) => match bytes.split_first() {
                Some((0, _)) if bytes.len() <= 1 + PAYLOAD => Ok(input.send(bytes.slice(1..)).await),
                Some((3, order)) => obey(&mut input, order).await,
                _ => Err(violation(
                    "expected 0 and up to 32 KiB of input, or 3 and a control message",
                )),
            },
            Message::Text(text) => obey(&mut input, text.as_bytes()).await,
            Message::Close(_) => return None,
            Message::Ping(_) | Message::Pong(_) => continue,
        };
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Some(ended(&error, handle)),
            Err(fault) => return Some(End::new(1007, clipped(&fault.message))),
        }
    }
    None
}

fn violation(message: &str) -> Fault {
    Fault::new(Code::OpInvalidInput, message)
}

/// The reason of a close frame has at most 123 bytes (RFC 6455, section 5.5).
fn clipped(text: &str) -> String {
    let mut end = text.len().min(120);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

async fn obey(input: &mut CommandInput<BusStream>, order: &[u8]) -> Result<Result<(), GuestError>, Fault> {
    let order = serde_json::from_slice::<Order>(order)
        .map_err(|error| violation(&format!("the control message cannot be read: {error}")))?;
    Ok(match order {
        Order::Resize { cols, rows } => input.resize(TerminalSize { cols, rows }).await,
        Order::Eof => input.end().await,
        Order::Signal { name } => {
            let number = signal_number(&name).map_err(|error| error.fault().clone())?;
            input.signal(number).await
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_close_code_tells_why_a_lease_is_over() {
        for (reason, code) in [
            ("expired", 4001),
            ("client_close", 4002),
            ("whatever the client said", 4002),
            ("target_stopped", 4003),
            ("tenant_deleted", 4003),
            (EndReason::BROKEN, 1011),
        ] {
            assert_eq!(closed(&EndReason::new(reason, "")).code, code, "{reason}");
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        assert_eq!(clipped(&"ä".repeat(100)).len(), 120);
        assert_eq!(clipped("short"), "short");
    }

    fn hello(query: &str) -> Answer<(String, Hello)> {
        let query: StdioQuery = serde_urlencoded::from_str(query).unwrap();
        query.hello(true)
    }

    #[test]
    fn without_a_process_the_main_one_is_meant() {
        let (command, hello_of_main) = hello("").unwrap();
        assert_eq!(command, MAIN);
        assert!(matches!(
            hello_of_main,
            Hello::Attach {
                since: Since::Tail(REPLAY),
                input: true,
                ..
            }
        ));
        let (command, run) = hello("argv=%5B%22sh%22%5D&tty=1&cols=100&command=c1&from=7").unwrap();
        assert_eq!(command, "c1");
        let Hello::Run { spec, since, .. } = run else {
            panic!("{run:?}");
        };
        assert_eq!(spec.terminal, Some(TerminalSize { cols: 100, rows: 24 }));
        assert_eq!((since, spec.linger_ms), (Since::Offset(7), Some(LINGER_MS)));
        assert!(hello("argv=sh").is_err() && hello("argv=%5B%5D").is_err());
        assert!(hello("argv=%5B%22sh%22%5D&tty=yes").is_err());
    }
}
