//! A process' input and output as a stream in both directions.

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use nimbus_bus::{BusStream, StreamHandle};
use nimbus_guest::protocol::{
    CommandSpec, FromCommand, Hello, OpenedCommand, Since, Stream as Output, TerminalSize,
};
use nimbus_guest::{CommandEvents, CommandInput, GuestError};
use nimbus_proto::workloads::{Channel, Through};
use tonic::{Status, Streaming};

use super::{invalid, status, wire};
use crate::channel::{failure, refusal};
use crate::envelope::request_id;
use crate::principals::Principal;
use crate::state::App;

/// Attaches as the first message says, then carries messages both ways until either side ends.
pub(super) async fn attach(
    app: &App,
    principal: &Principal,
    mut requests: Streaming<wire::AttachRequest>,
) -> Result<impl Stream<Item = Result<wire::AttachResponse, Status>> + Send + use<>, Status> {
    let start = match requests.message().await?.and_then(|request| request.message) {
        Some(wire::attach_request::Message::Start(start)) => start,
        _ => return Err(invalid("start", "the first message says what to attach to")),
    };
    let (hello, command) = hello(&start)?;
    let through = Through::Session {
        id: start.session,
        tenant: Some(start.tenant).filter(|tenant| !tenant.is_empty()),
        channel: Channel::Stdio,
    };
    let attached = app
        .attach(&principal.token, through, hello)
        .await
        .map_err(|fault| status(&fault))?;
    let first = opened_message(command, attached.attachment.opened());
    let (events, input) = attached.attachment.split();
    let answers = Answers {
        first: Some(first),
        events,
        input,
        handle: attached.handle,
        requests: Some(requests),
        ended: false,
    };
    let all = stream::unfold(answers, |mut answers| async move {
        let next = answers.next().await;
        Some((next, answers))
    });
    // Ends and still holds the client's side: let go before the trailers are sent, it would reset the stream
    // in their place when the client has not ended its side yet.
    Ok(all.scan((), |(), next| std::future::ready(next)))
}

fn hello(start: &wire::AttachStart) -> Result<(Hello, String), Status> {
    let since = Since::Offset(start.from_offset);
    if start.argv.is_empty() {
        let command = if start.command_id.is_empty() {
            "main".to_owned()
        } else {
            start.command_id.clone()
        };
        let hello = Hello::Attach {
            command: command.clone(),
            since,
            input: true,
        };
        return Ok((hello, command));
    }
    let command = if start.command_id.is_empty() {
        request_id().to_string()
    } else {
        start.command_id.clone()
    };
    let spec = CommandSpec {
        terminal: start.terminal.as_ref().map(size).transpose()?,
        stdin: true,
        lossless: true,
        ..CommandSpec::new(command.clone(), start.argv.iter().cloned())
    };
    let hello = Hello::Run {
        spec,
        since,
        input: true,
    };
    Ok((hello, command))
}

fn size(window: &wire::Window) -> Result<TerminalSize, Status> {
    let number = |field: &str, value: u32| {
        u16::try_from(value).map_err(|_| invalid(field, format_args!("{value} is too large")))
    };
    Ok(TerminalSize {
        cols: number("cols", window.cols)?,
        rows: number("rows", window.rows)?,
    })
}

struct Answers {
    first: Option<wire::AttachResponse>,
    events: CommandEvents<BusStream>,
    input: CommandInput<BusStream>,
    handle: StreamHandle,
    requests: Option<Streaming<wire::AttachRequest>>,
    ended: bool,
}

impl Answers {
    async fn next(&mut self) -> Option<Result<wire::AttachResponse, Status>> {
        if let Some(first) = self.first.take() {
            return Some(Ok(first));
        }
        if self.ended {
            return None;
        }
        loop {
            let event = tokio::select! {
                event = self.events.next() => event,
                request = message(&mut self.requests) => {
                    if let Err(refused) = self.pass(request).await {
                        self.ended = true;
                        return Some(Err(refused));
                    }
                    continue;
                }
            };
            return match event {
                Ok(Some(event)) => {
                    let answer = answer(event);
                    self.ended = !matches!(
                        &answer,
                        Ok(wire::AttachResponse {
                            message: Some(
                                wire::attach_response::Message::Output(_)
                                    | wire::attach_response::Message::InputAccepted(_)
                            )
                        })
                    );
                    Some(answer)
                }
                Ok(None) => None,
                Err(error) => {
                    self.ended = true;
                    Some(Err(self.broken(error)))
                }
            };
        }
    }

    /// Passes a message of the client on.
    async fn pass(&mut self, request: Option<Result<wire::AttachRequest, Status>>) -> Result<(), Status> {
        use wire::attach_request::Message;
        let message = match request {
            Some(Ok(request)) => request.message,
            // The client sends no more; output goes on.
            Some(Err(_)) | None => {
                self.requests = None;
                return Ok(());
            }
        };
        let sent = match message {
            Some(Message::Input(input)) => {
                if !input.data.is_empty() {
                    let sent = self.input.send(Bytes::from(input.data)).await;
                    sent.map_err(|error| self.broken(error))?;
                }
                if input.end { self.input.end().await } else { Ok(()) }
            }
            Some(Message::Resize(window)) => self.input.resize(size(&window)?).await,
            Some(Message::Signal(number)) => self.input.signal(number).await,
            Some(Message::Start(_)) => {
                return Err(invalid("start", "only the first message says what to attach to"));
            }
            None => Ok(()),
        };
        sent.map_err(|error| self.broken(error))
    }

    fn broken(&self, error: GuestError) -> Status {
        status(&failure(error, &self.handle))
    }
}

/// The next message of the client; never, once it has said its last.
async fn message(
    requests: &mut Option<Streaming<wire::AttachRequest>>,
) -> Option<Result<wire::AttachRequest, Status>> {
    match requests {
        Some(requests) => requests.message().await.transpose(),
        None => std::future::pending().await,
    }
}

fn opened_message(command_id: String, opened: &OpenedCommand) -> wire::AttachResponse {
    wire::AttachResponse {
        message: Some(wire::attach_response::Message::Opened(wire::AttachOpened {
            command_id,
            from_offset: opened.from,
            end_offset: opened.end,
            input_offset: opened.input,
        })),
    }
}

fn answer(event: FromCommand) -> Result<wire::AttachResponse, Status> {
    use wire::attach_response::Message;
    let message = match event {
        FromCommand::Output {
            stream,
            offset,
            bytes,
            ..
        } => Message::Output(wire::AttachOutput {
            stderr: stream == Output::Stderr,
            offset,
            data: bytes.to_vec(),
        }),
        FromCommand::InputAccepted(offset) => Message::InputAccepted(offset),
        FromCommand::Exit(exit) => Message::Exit(wire::AttachExit {
            code: exit.code,
            signal: exit.signal,
            timed_out: exit.timed_out,
        }),
        FromCommand::Fault(fault) => return Err(status(&refusal(fault))),
    };
    Ok(wire::AttachResponse {
        message: Some(message),
    })
}
