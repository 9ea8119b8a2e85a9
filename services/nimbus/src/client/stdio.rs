//! A process on the other side: its input, output, terminal and end over one WebSocket.

use std::io::Write;

use bytes::Bytes;
use futures::{Sink, SinkExt, Stream, StreamExt};
use reqwest::header::{
    CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

use super::api::Api;
use super::terminal;
use crate::problem::{Outcome, Problem};

const PROTOCOL: &str = "nimbus.session.v1";
/// The streams that a frame's first byte names.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const CONTROL: u8 = 3;
/// Most payload of a frame.
const PAYLOAD: usize = 32 * 1024;
/// A session whose time is over; it can be opened again.
const EXPIRED: u16 = 4001;
/// So many requests to end, and the command ends whatever the other side does.
const ENOUGH: u32 = 3;

/// How to take part in a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mode {
    /// It has a terminal, and so do we.
    pub(crate) tty: bool,
    /// Our stdin is its stdin.
    pub(crate) input: bool,
}

/// How it ended for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The process ended with this code.
    Exit(u8),
    /// The session's time is over; the process goes on.
    Expired,
    /// The other side ended the connection without saying how the process ended.
    Closed(String),
    /// Somebody here asked to end three times.
    Forced,
}

/// What survives a session that has to be opened again: the reader of stdin, and how far we have read.
pub(crate) struct Seat {
    mode: Mode,
    input: Option<mpsc::Receiver<Vec<u8>>>,
    _raw: Option<terminal::Raw>,
    /// The offset of the output that comes next, once it is known.
    offset: Option<u64>,
    urged: u32,
}

impl Seat {
    /// Takes the terminal, if there is to be one. Without an offset the output begins with a part of what
    /// was written before.
    pub(crate) fn take(mode: Mode, offset: Option<u64>) -> Outcome<Self> {
        Ok(Self {
            mode,
            _raw: if mode.tty {
                Some(terminal::Raw::enter()?)
            } else {
                None
            },
            input: mode.input.then(terminal::input),
            offset,
            urged: 0,
        })
    }

    /// Takes part until the process, the session or the connection ends.
    pub(crate) async fn sit(
        &mut self,
        api: &Api,
        session: &str,
        query: &[(&str, String)],
        what: &str,
    ) -> Outcome<End> {
        let mut query = query.to_vec();
        query.extend(self.offset.map(|offset| ("from", offset.to_string())));
        let socket = connect(api, session, &query, what).await?;
        let (mut sink, stream) = socket.split();
        let mut signals = Signals::catch()?;
        let output = read(stream, &mut self.offset);
        let write = write(
            &mut sink,
            self.mode,
            &mut self.input,
            &mut signals,
            &mut self.urged,
        );
        tokio::select! {
            end = output => end,
            forced = write => Ok(forced),
        }
    }
}

/// Opens the WebSocket over the same client as every request, so that its refusals are told as theirs are.
async fn connect(
    api: &Api,
    session: &str,
    query: &[(&str, String)],
    what: &str,
) -> Outcome<WebSocketStream<reqwest::Upgraded>> {
    let request = api
        .unlimited(Method::GET, &["sessions", session, "channels", "stdio"])
        .query(query)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, generate_key())
        .header(SEC_WEBSOCKET_PROTOCOL, PROTOCOL);
    let response = api.reach(request, what).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(Problem::failed(what).why("the server did not open a WebSocket"));
    }
    let socket = response
        .upgrade()
        .await
        .map_err(|error| api.unreachable(what, &error))?;
    Ok(WebSocketStream::from_raw_socket(socket, Role::Client, None).await)
}

fn frame(stream: u8, payload: &[u8]) -> Message {
    let mut bytes = Vec::with_capacity(payload.len() + 1);
    bytes.push(stream);
    bytes.extend_from_slice(payload);
    Message::Binary(bytes.into())
}

fn control(value: &Value) -> Message {
    frame(CONTROL, value.to_string().as_bytes())
}

/// Sends keys, sizes and signals. Ends only when somebody insists.
async fn write<S: Sink<Message> + Unpin>(
    sink: &mut S,
    mode: Mode,
    input: &mut Option<mpsc::Receiver<Vec<u8>>>,
    signals: &mut Signals,
    urged: &mut u32,
) -> End {
    // A connection that takes nothing any more is noticed by the reader, who says why.
    if mode.tty
        && let Some((cols, rows)) = terminal::size()
    {
        let _ = sink
            .send(control(&json!({ "type": "resize", "cols": cols, "rows": rows })))
            .await;
    }
    if !mode.input {
        let _ = sink.send(control(&json!({ "type": "eof" }))).await;
    }
    loop {
        tokio::select! {
            chunk = next(input) => match chunk {
                Some(chunk) => {
                    for part in chunk.chunks(PAYLOAD) {
                        let _ = sink.send(frame(STDIN, part)).await;
                    }
                }
                None => {
                    *input = None;
                    let _ = sink.send(control(&json!({ "type": "eof" }))).await;
                }
            },
            received = signals.next() => match received {
                Received::Resize => {
                    if let (true, Some((cols, rows))) = (mode.tty, terminal::size()) {
                        let _ = sink.send(control(&json!({ "type": "resize", "cols": cols, "rows": rows }))).await;
                    }
                }
                Received::Signal(name) => {
                    if matches!(name, "INT" | "TERM") {
                        *urged += 1;
                        if *urged >= ENOUGH {
                            return End::Forced;
                        }
                    }
                    let _ = sink.send(control(&json!({ "type": "signal", "name": name }))).await;
                }
            },
        }
    }
}

async fn next(input: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match input {
        Some(input) => input.recv().await,
        None => std::future::pending().await,
    }
}

/// Shows what comes until the end, and counts it.
async fn read<S, E>(mut stream: S, offset: &mut Option<u64>) -> Outcome<End>
where
    S: Stream<Item = Result<Message, E>> + Unpin,
    E: std::error::Error + 'static,
{
    while let Some(message) = stream.next().await {
        match message {
            Ok(Message::Binary(bytes)) => {
                if let Some(end) = take(&bytes, offset)? {
                    return Ok(end);
                }
            }
            Ok(Message::Close(Some(close))) if u16::from(close.code) == EXPIRED => return Ok(End::Expired),
            Ok(Message::Close(close)) => {
                let why = close.map(|close| close.reason.as_str().to_owned());
                return Ok(End::Closed(
                    why.filter(|why| !why.is_empty())
                        .unwrap_or_else(|| "closed".to_owned()),
                ));
            }
            Ok(_) => {}
            Err(error) => return Ok(End::Closed(nimbus_errors::chain(&error))),
        }
    }
    Ok(End::Closed("the connection broke".to_owned()))
}

/// Shows one frame; how the process ended, if it was the last.
fn take(frame: &Bytes, offset: &mut Option<u64>) -> Outcome<Option<End>> {
    let Some((stream, payload)) = frame.split_first() else {
        return Ok(None);
    };
    match *stream {
        STDOUT | STDERR => {
            show(*stream == STDOUT, payload)?;
            // Both outputs are counted together.
            if let Some(offset) = offset {
                *offset += u64::try_from(payload.len()).unwrap_or(0);
            }
        }
        CONTROL => {
            let said: Value = serde_json::from_slice(payload).unwrap_or_default();
            match said.get("type").and_then(Value::as_str) {
                Some("opened") => {
                    *offset = said.get("offset").and_then(Value::as_u64).or(*offset);
                }
                Some("exit") => return Ok(Some(End::Exit(exit_code(&said)))),
                _ => {}
            }
        }
        _ => {}
    }
    Ok(None)
}

/// Writes bytes of the process as they are. A reader that has gone away is not an error.
pub(crate) fn show(is_stdout: bool, bytes: &[u8]) -> Outcome {
    if bytes.is_empty() {
        return Ok(());
    }
    let written = if is_stdout {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush())
    } else {
        std::io::stderr().lock().write_all(bytes)
    };
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Problem::failed("could not write the output").because(&error))
        }
        _ => Ok(()),
    }
}

/// The exit code that a shell would see: 128 and the signal, if one ended the process.
pub(crate) fn exit_code(said: &Value) -> u8 {
    let signal = match said.get("signal") {
        Some(Value::Number(number)) => number.as_i64(),
        Some(Value::String(name)) => number_of(name),
        _ => None,
    };
    let code = ["code", "exitCode"]
        .iter()
        .find_map(|name| said.get(*name).and_then(Value::as_i64))
        .or_else(|| signal.map(|signal| 128 + signal));
    code.map_or(1, |code| u8::try_from(code & 0xff).unwrap_or(1))
}

/// Signals by name, with or without `SIG` (Linux).
fn number_of(name: &str) -> Option<i64> {
    let known = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("ILL", 4),
        ("TRAP", 5),
        ("ABRT", 6),
        ("BUS", 7),
        ("FPE", 8),
        ("KILL", 9),
        ("USR1", 10),
        ("SEGV", 11),
        ("USR2", 12),
        ("PIPE", 13),
        ("ALRM", 14),
        ("TERM", 15),
    ];
    let name = name.strip_prefix("SIG").unwrap_or(name);
    known
        .into_iter()
        .find_map(|(known, number)| (known == name).then_some(number))
}

enum Received {
    Resize,
    Signal(&'static str),
}

/// Signals that are passed on.
struct Signals {
    resize: Signal,
    others: [(Signal, &'static str); 6],
}

impl Signals {
    fn catch() -> Outcome<Self> {
        let catch = |kind: SignalKind| {
            signal(kind).map_err(|error| Problem::failed("could not catch signals").because(&error))
        };
        Ok(Self {
            resize: catch(SignalKind::window_change())?,
            others: [
                (catch(SignalKind::interrupt())?, "INT"),
                (catch(SignalKind::terminate())?, "TERM"),
                (catch(SignalKind::hangup())?, "HUP"),
                (catch(SignalKind::quit())?, "QUIT"),
                (catch(SignalKind::user_defined1())?, "USR1"),
                (catch(SignalKind::user_defined2())?, "USR2"),
            ],
        })
    }

    async fn next(&mut self) -> Received {
        let others = self.others.iter_mut().map(|(signal, name)| {
            Box::pin(async move {
                signal.recv().await;
                Received::Signal(name)
            })
        });
        tokio::select! {
            _ = self.resize.recv() => Received::Resize,
            (received, _, _) = futures::future::select_all(others) => received,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::protocol::CloseFrame;

    use super::*;

    async fn ends(frames: &[Message], offset: &mut Option<u64>) -> End {
        let stream = futures::stream::iter(frames.iter().cloned().map(Ok::<_, std::io::Error>));
        read(stream, offset).await.unwrap()
    }

    #[tokio::test]
    async fn a_process_ends_with_its_own_code() {
        for (said, code) in [
            (json!({ "type": "exit", "code": 7 }), 7),
            (json!({ "type": "exit", "code": null, "signal": "KILL" }), 137),
            (json!({ "type": "exit", "signal": 15 }), 143),
            (json!({ "type": "exit", "code": 256 + 3 }), 3),
            (json!({ "type": "exit" }), 1),
        ] {
            let frames = [
                control(&json!({ "type": "opened" })),
                control(&said),
                frame(9, b"later"),
            ];
            assert_eq!(ends(&frames, &mut None).await, End::Exit(code), "{said}");
        }
        assert!(matches!(ends(&[], &mut None).await, End::Closed(_)));
    }

    #[tokio::test]
    async fn output_is_counted_so_that_the_next_session_begins_where_this_one_ended() {
        let mut offset = None;
        let frames = [
            control(&json!({ "type": "opened", "offset": 100 })),
            frame(STDOUT, b""),
            frame(STDERR, b"e"),
            Message::Close(Some(CloseFrame {
                code: EXPIRED.into(),
                reason: "expired".into(),
            })),
        ];
        assert_eq!(ends(&frames, &mut offset).await, End::Expired);
        assert_eq!(offset, Some(101));
    }
}
