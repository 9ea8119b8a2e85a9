//! An attachment to a command.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::Notify;

use super::{GuestError, GuestStream};
use crate::frame::{self, FrameReader};
use crate::protocol::{
    ExitStatus, FromCommand, INPUT_WINDOW, MAX_CHUNK, OpenedCommand, Stream, TerminalSize, ToCommand,
};

/// An attachment to a command. Dropping it detaches; the command goes on.
#[derive(Debug)]
pub struct Attachment<S> {
    opened: OpenedCommand,
    events: CommandEvents<S>,
    input: CommandInput<S>,
}

/// What comes from a command.
#[derive(Debug)]
pub struct CommandEvents<S> {
    reader: FrameReader<ReadHalf<S>>,
    window: Arc<Window>,
    ended: bool,
}

/// What goes to a command.
#[derive(Debug)]
pub struct CommandInput<S> {
    writer: WriteHalf<S>,
    offset: u64,
    window: Arc<Window>,
}

#[derive(Debug)]
struct Window {
    accepted: AtomicU64,
    moved: Notify,
}

/// All output of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collected {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Whether one of them was longer than the limit.
    pub truncated: bool,
    /// How it ended.
    pub exit: ExitStatus,
}

impl<S: GuestStream> Attachment<S> {
    /// Continues on a stream on which `Opened::Command` was answered.
    pub fn new(stream: S, opened: OpenedCommand) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        let window = Arc::new(Window {
            accepted: AtomicU64::new(opened.input),
            moved: Notify::new(),
        });
        Self {
            events: CommandEvents {
                reader: FrameReader::new(reader),
                window: Arc::clone(&window),
                ended: false,
            },
            input: CommandInput {
                writer,
                offset: opened.input,
                window,
            },
            opened,
        }
    }

    /// What was said at the attach.
    #[must_use]
    pub fn opened(&self) -> &OpenedCommand {
        &self.opened
    }

    /// The next event; see [`CommandEvents::next`]. Cancel safe.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn next(&mut self) -> Result<Option<FromCommand>, GuestError> {
        self.events.next().await
    }

    /// Both directions, for two tasks.
    #[must_use]
    pub fn split(self) -> (CommandEvents<S>, CommandInput<S>) {
        (self.events, self.input)
    }

    /// Gives all of `stdin`, if there is any, then the end of input; keeps up to `limit` bytes of each
    /// output and waits for the end.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn collect(self, stdin: Option<Bytes>, limit: usize) -> Result<Collected, GuestError> {
        let (mut events, mut input) = self.split();
        let mut all = Collected {
            stdout: Vec::new(),
            stderr: Vec::new(),
            truncated: false,
            exit: ExitStatus {
                code: None,
                signal: None,
                timed_out: false,
            },
        };
        let write = async {
            if let Some(stdin) = stdin {
                // A command may well end without reading its input.
                let _ = input.send(stdin).await;
                let _ = input.end().await;
            }
            std::future::pending::<()>().await;
        };
        let read = async {
            while let Some(event) = events.next().await? {
                match event {
                    FromCommand::Output { stream, bytes, .. } => {
                        let to = match stream {
                            Stream::Stdout => &mut all.stdout,
                            Stream::Stderr => &mut all.stderr,
                        };
                        let room = limit.saturating_sub(to.len());
                        all.truncated |= bytes.len() > room;
                        to.extend(bytes.iter().take(room));
                    }
                    FromCommand::Exit(exit) => {
                        all.exit = exit;
                        return Ok(());
                    }
                    FromCommand::InputAccepted(_) | FromCommand::Fault(_) => {}
                }
            }
            Err(GuestError::Ended)
        };
        tokio::select! {
            () = write => Err(GuestError::Ended),
            read = read => read.map(|()| all),
        }
    }
}

impl<S: GuestStream> CommandEvents<S> {
    /// The next event. The last one is `Exit`, then `None`; a `Fault` of the attachment is an error.
    /// Has to be awaited for input to go on, too. Cancel safe.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn next(&mut self) -> Result<Option<FromCommand>, GuestError> {
        if self.ended {
            return Ok(None);
        }
        match self.reader.next::<FromCommand>().await {
            Ok(Some(FromCommand::Fault(fault))) => Err(GuestError::Fault(fault)),
            Ok(Some(event)) => {
                match event {
                    FromCommand::InputAccepted(offset) => self.window.set(offset),
                    FromCommand::Exit(_) => self.ended = true,
                    FromCommand::Output { .. } | FromCommand::Fault(_) => {}
                }
                Ok(Some(event))
            }
            Ok(None) => Err(GuestError::Ended),
            Err(error) => Err(GuestError::Broken(error)),
        }
    }
}

impl<S: GuestStream> CommandInput<S> {
    /// Offset of the next input.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Offset up to which the command has taken its input. After a broken connection go on from what
    /// the next attach says.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.window.accepted.load(Ordering::Acquire)
    }

    /// Sends input of any size; waits while the command takes none, so the events have to be awaited
    /// elsewhere meanwhile. Not cancel safe.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn send(&mut self, mut bytes: Bytes) -> Result<(), GuestError> {
        while !bytes.is_empty() {
            let room = self.window.room(self.offset).await;
            let part = bytes.split_to(bytes.len().min(MAX_CHUNK).min(room));
            let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
            self.write(&ToCommand::Input {
                offset: self.offset,
                bytes: part,
            })
            .await?;
            self.offset += length;
        }
        Ok(())
    }

    /// Says that there is no more input.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn end(&mut self) -> Result<(), GuestError> {
        let offset = self.offset;
        self.write(&ToCommand::InputEnd { offset }).await
    }

    /// Changes the size of the terminal; without one it does nothing.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn resize(&mut self, size: TerminalSize) -> Result<(), GuestError> {
        self.write(&ToCommand::Resize(size)).await
    }

    /// Sends a signal by number.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn signal(&mut self, signal: i32) -> Result<(), GuestError> {
        self.write(&ToCommand::Signal(signal)).await
    }

    async fn write(&mut self, frame: &ToCommand) -> Result<(), GuestError> {
        frame::write(&mut self.writer, frame)
            .await
            .map_err(GuestError::Broken)
    }
}

impl Window {
    fn set(&self, accepted: u64) {
        self.accepted.fetch_max(accepted, Ordering::AcqRel);
        self.moved.notify_one();
    }

    /// How much may be sent at `offset`: at least 1.
    async fn room(&self, offset: u64) -> usize {
        loop {
            let end = self.accepted.load(Ordering::Acquire) + INPUT_WINDOW;
            match end.checked_sub(offset) {
                Some(room) if room > 0 => return usize::try_from(room).unwrap_or(usize::MAX),
                _ => self.moved.notified().await,
            }
        }
    }
}
