//! A connection that is attached to a command.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use nimbus_guest::frame::{self, FrameError, FrameReader};
use nimbus_guest::protocol::{
    FromCommand, GuestFault, HelloReply, INPUT_WINDOW, MAX_CHUNK, Opened, Since, ToCommand,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Notify;

use super::bytelog::Cursor;
use super::command::{Command, Reader, input_taken, out_of_retention};
use super::fault::{conflict, invalid};

/// What the two directions of an attachment tell each other.
#[derive(Debug, Default)]
struct Shared {
    fault: RefCell<Option<GuestFault>>,
    changed: Notify,
    accepted: Cell<u64>,
}

/// Serves until the client leaves or the command has ended and everything was sent.
pub(crate) async fn serve(
    mut stream: UnixStream,
    command: Rc<Command>,
    since: Since,
    input: bool,
    started: bool,
) -> Result<(), FrameError> {
    let (reader, opened) = match command.attach(since, started) {
        Ok(attached) => attached,
        Err(fault) => return frame::write(&mut stream, &HelloReply::Err(fault)).await,
    };
    let holder = input.then(|| command.take_input());
    let cursor = Cursor::at(opened.from);
    let shared = Shared::default();
    shared.accepted.set(opened.input);
    frame::write(&mut stream, &HelloReply::Ok(Opened::Command(opened))).await?;

    let (from, to) = stream.split();
    tokio::select! {
        // In this order: what is sent begins with what was accepted so far, before any more is.
        biased;
        // The last frame was sent, or nobody takes it.
        sent = send(to, &command, &reader, cursor, &shared) => sent,
        received = receive(from, &command, holder, &shared) => received,
    }
}

async fn send(
    mut to: impl AsyncWrite + Unpin,
    command: &Command,
    reader: &Reader,
    mut cursor: Cursor,
    shared: &Shared,
) -> Result<(), FrameError> {
    let mut acknowledged = shared.accepted.get();
    let mut batch = BytesMut::new();
    loop {
        let mut last = false;
        let accepted = shared.accepted.get();
        if accepted > acknowledged {
            acknowledged = accepted;
            frame::append(&mut batch, &FromCommand::InputAccepted(accepted))?;
        }
        let fault = shared.fault.borrow_mut().take();
        if let Some(fault) = fault {
            frame::append(&mut batch, &FromCommand::Fault(fault))?;
            last = true;
        }
        while !last && batch.len() < MAX_CHUNK {
            let next = command.log.borrow().next(&mut cursor);
            match (next, command.exit()) {
                (Ok(Some(piece)), _) => frame::append(
                    &mut batch,
                    &FromCommand::Output {
                        stream: piece.stream,
                        offset: piece.offset,
                        at_ms: piece.at_ms,
                        bytes: piece.bytes,
                    },
                )?,
                (Ok(None), Some(exit)) => {
                    frame::append(&mut batch, &FromCommand::Exit(exit))?;
                    last = true;
                }
                (Ok(None), None) => break,
                (Err(dropped), _) => {
                    let fault = out_of_retention(dropped.start);
                    frame::append(&mut batch, &FromCommand::Fault(fault))?;
                    last = true;
                }
            }
        }
        if batch.is_empty() {
            // Both were looked at since the last wait, and nothing else has run in between.
            batch = BytesMut::new();
            tokio::select! {
                () = command.grown.notified() => {}
                () = shared.changed.notified() => {}
            }
            continue;
        }
        to.write_all_buf(&mut batch).await.map_err(FrameError::Io)?;
        reader.reached(cursor.offset());
        if last {
            return to.shutdown().await.map_err(FrameError::Io);
        }
    }
}

/// Input that was sent and not taken yet.
#[derive(Default)]
struct Queue {
    parts: VecDeque<Bytes>,
    length: u64,
    end: bool,
}

async fn receive(
    from: impl AsyncRead + Unpin,
    command: &Command,
    holder: Option<u64>,
    shared: &Shared,
) -> Result<(), FrameError> {
    let mut frames = FrameReader::new(from);
    let mut queue = Queue::default();
    let mut holder = holder;
    loop {
        let read = async {
            if queue.length < INPUT_WINDOW {
                frames.next::<ToCommand>().await
            } else {
                std::future::pending().await
            }
        };
        let lost = async {
            match holder {
                Some(number) => command.input_lost(number).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = lost => {
                holder = None;
                queue = Queue::default();
                fail(shared, input_taken());
            }
            taken = take(command, &queue) => {
                queue.taken(taken);
                shared.accepted.set(command.accepted());
                shared.changed.notify_one();
            }
            frame = read => match frame? {
                None => return Ok(()),
                Some(frame) => {
                    if let Err(fault) = on(frame, command, holder, &mut queue) {
                        fail(shared, fault);
                    }
                }
            },
        }
        if queue.end && queue.parts.is_empty() && holder.is_some() {
            queue.end = false;
            command.end_input().await;
        }
    }
}

async fn take(command: &Command, queue: &Queue) -> usize {
    match queue.parts.front() {
        Some(part) => command.write_input(part).await,
        None => std::future::pending().await,
    }
}

/// Ends the attachment; what is said after is not listened to.
fn fail(shared: &Shared, fault: GuestFault) {
    *shared.fault.borrow_mut() = Some(fault);
    shared.changed.notify_one();
}

fn on(frame: ToCommand, command: &Command, holder: Option<u64>, queue: &mut Queue) -> Result<(), GuestFault> {
    match frame {
        ToCommand::Resize(size) => {
            command.resize(size);
            Ok(())
        }
        ToCommand::Signal(number) => command.signal(number),
        ToCommand::Input { .. } | ToCommand::InputEnd { .. } if holder.is_none() => Err(input_taken()),
        ToCommand::Input { offset, bytes } => {
            let at = command.accepted() + queue.length;
            let skip = at.checked_sub(offset).ok_or_else(|| gap(at, offset))?;
            let skip = usize::try_from(skip).unwrap_or(usize::MAX);
            if bytes.len() <= skip {
                return Ok(());
            }
            if queue.end || command.input_ended() {
                return Err(conflict("the end of the input was said already"));
            }
            if command.exit().is_none() && !command.takes_input() {
                return Err(conflict("the command takes no input"));
            }
            queue.push(bytes.slice(skip..));
            Ok(())
        }
        ToCommand::InputEnd { offset } => {
            let at = command.accepted() + queue.length;
            if offset > at {
                return Err(gap(at, offset));
            }
            if offset < at {
                return Err(invalid("offset", "the input is longer than its end").with("accepted", at));
            }
            queue.end = true;
            Ok(())
        }
    }
}

fn gap(at: u64, offset: u64) -> GuestFault {
    conflict("there is a gap in the input")
        .with("accepted", at)
        .with("offset", offset)
}

impl Queue {
    fn push(&mut self, bytes: Bytes) {
        self.length += u64::try_from(bytes.len()).unwrap_or(0);
        self.parts.push_back(bytes);
    }

    fn taken(&mut self, taken: usize) {
        self.length = self.length.saturating_sub(u64::try_from(taken).unwrap_or(0));
        if let Some(first) = self.parts.front_mut() {
            if taken < first.len() {
                let _ = first.split_to(taken);
            } else {
                self.parts.pop_front();
            }
        }
    }
}
