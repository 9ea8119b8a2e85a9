//! What is said on a connection to the init.
//!
//! Every connection is for one thing and begins with one [`First`] frame; the init answers with one
//! [`HelloReply`]. What follows depends on the [`Hello`]:
//!
//! | Hello | client sends | init sends |
//! |---|---|---|
//! | `Control` | [`Request`] frames | one [`Answer`] frame each, in order |
//! | `Run`, `Attach` | [`ToCommand`] frames | [`FromCommand`] frames; the last is `Exit` or `Fault` |
//! | `ReadFile`, `TarOut` | nothing | [`Chunk`] frames; the last is `End` or `Fault` |
//! | `WriteFile`, `TarIn` | [`Chunk`] frames; the last is `End` | one [`Finished`] frame |
//! | `Connect`, `Egress` | raw bytes | raw bytes |
//!
//! A frame is its length (u32, little endian) and a postcard value of at most [`MAX_FRAME`] bytes.
//! postcard is positional: append variants and never change a type; else raise [`VERSION`]. A sandbox
//! lives on while the agent above it is replaced by a newer one, so the init of yesterday is normal.

mod control;

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use control::{Answer, Claim, Claimed, CommandInfo, Forward, ListeningPort, Reply, Request, Stats};

/// The version of this page. An init refuses versions it does not know with `bus.schema_mismatch`.
pub const VERSION: u16 = 1;

/// The largest frame, without its length.
pub const MAX_FRAME: usize = 1 << 20;

/// The most payload in one frame of output, input or file content.
pub const MAX_CHUNK: usize = 64 << 10;

/// How much input a client may send beyond what was accepted. One that sends more is not read until
/// the process has caught up, and then a signal or a resize waits behind its input.
pub const INPUT_WINDOW: u64 = 256 << 10;

/// The port inside the sandbox on which the init takes connections for the egress proxy.
pub const PROXY_PORT: u16 = 3128;

/// The first frame of a connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct First {
    /// [`VERSION`] of the client.
    pub version: u16,
    /// What the connection is for.
    pub hello: Hello,
}

/// What a connection is for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Hello {
    /// Questions and small orders.
    Control,
    /// Start a command and attach to it. A command of this id that runs or ran already is attached to
    /// and not started again; if it was another command (`spec` differs) that is `op.conflict`.
    Run {
        /// The command.
        spec: CommandSpec,
        /// Where its output is wanted from.
        since: Since,
        /// Whether this connection is to give the input. The one that did before loses it.
        input: bool,
    },
    /// Attach to a command.
    Attach {
        /// Its id.
        command: String,
        /// Where its output is wanted from.
        since: Since,
        /// Whether this connection is to give the input. The one that did before loses it.
        input: bool,
    },
    /// The content of a regular file.
    ReadFile {
        /// Absolute.
        path: String,
        /// The part of it.
        range: Range,
    },
    /// A regular file is made or replaced as a whole, once all of its content has arrived.
    WriteFile {
        /// Absolute.
        path: String,
        /// Permission bits; without, those of the file that is replaced, else 0644.
        mode: Option<u32>,
        /// Whether missing parent directories are made.
        create_parents: bool,
        /// What must be true of the file that is there.
        must: Precondition,
    },
    /// A directory or file as a tar stream; names are relative to it.
    TarOut {
        /// Absolute.
        path: String,
    },
    /// A tar stream is unpacked into a directory, which is made if missing.
    TarIn {
        /// Absolute.
        path: String,
    },
    /// A TCP connection to 127.0.0.1 (or ::1) inside.
    Connect {
        /// The port.
        port: u16,
    },
    /// Waits for a process inside to connect to the proxy or to a forwarded address. The reply
    /// arrives with that connection; keep a few of these waiting. Connections that nobody waits for
    /// stay in the kernel's queue.
    Egress,
}

/// The answer to [`Hello`].
pub type HelloReply = Result<Opened, GuestFault>;

/// What was opened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Opened {
    /// `Control`: ask.
    Control,
    /// `Run`, `Attach`.
    Command(OpenedCommand),
    /// `ReadFile`.
    Content(OpenedContent),
    /// `WriteFile`, `TarIn`: send. `TarOut`: follows.
    Ready,
    /// `Connect`: raw bytes from here.
    Connected,
    /// `Egress`: raw bytes from here.
    Egress(OpenedEgress),
}

/// An attachment to a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenedCommand {
    /// Whether this very connection started it.
    pub started: bool,
    /// Offset of the first byte of output that will be sent.
    pub from: u64,
    /// End of the output so far: what lies between `from` and here is replay.
    pub end: u64,
    /// How much input was accepted so far: the offset of the next input.
    pub input: u64,
    /// Process id inside the sandbox.
    pub pid: i32,
    /// How it ended, if it did.
    pub exit: Option<ExitStatus>,
}

/// Content of a file that follows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenedContent {
    /// The file.
    pub entry: Entry,
    /// Where the content that is sent begins.
    pub offset: u64,
    /// How much of it will be sent.
    pub length: u64,
}

/// A connection that a process inside made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenedEgress {
    /// Where it connected to.
    pub to: EgressTarget,
    /// Its own port.
    pub source_port: u16,
}

/// Where a process inside connected to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EgressTarget {
    /// The proxy at 127.0.0.1:[`PROXY_PORT`].
    Proxy,
    /// A forwarded address; the name of its [`Forward`].
    Forward(String),
}

/// A command to run. Its environment is that of the init, then of the claim, then its own; later wins.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CommandSpec {
    /// Chosen by the caller: 1–128 of letters, digits, `.`, `_`, `-`. Running an id twice runs it once.
    pub id: String,
    /// Program and arguments; a program without `/` is looked for in PATH.
    pub argv: Vec<String>,
    /// Names and values.
    pub env: Vec<(String, String)>,
    /// Working directory; without, the claim's, else the image's.
    pub cwd: Option<String>,
    /// A terminal of this size instead of three pipes; all output is then [`Stream::Stdout`].
    pub terminal: Option<TerminalSize>,
    /// Whether there is input; without, it reads /dev/null. A terminal always has input.
    pub stdin: bool,
    /// Everything it started is killed after this time.
    pub timeout_ms: Option<u64>,
    /// Hung up, then killed, when nobody has been attached for this long. Without: it is kept.
    pub linger_ms: Option<u64>,
    /// How much of its output is kept, else 64 MiB. Beyond it the oldest is dropped.
    pub log_bytes: Option<u64>,
    /// Whether a full log stops the command (it blocks in its write) while an attached client still
    /// has to read what would be dropped. It is not stopped when nobody is attached.
    pub lossless: bool,
}

impl CommandSpec {
    /// A command with pipes, no input and no time limit.
    pub fn new(id: impl Into<String>, argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            id: id.into(),
            argv: argv.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }
}

// Arguments and environment may be secret.
impl fmt::Debug for CommandSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandSpec")
            .field("id", &self.id)
            .field("argv", &self.argv.len())
            .field("env", &self.env.len())
            .field("terminal", &self.terminal)
            .field("timeout_ms", &self.timeout_ms)
            .finish_non_exhaustive()
    }
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
}

/// Where output is wanted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Since {
    /// Exactly this offset; `op.out_of_retention` if it was dropped, `op.invalid_input` if it lies ahead.
    Offset(u64),
    /// The last so many bytes, or as many of them as are kept; 0 means only what is new.
    Tail(u64),
}

/// One of the two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stream {
    /// Standard output, and everything from a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// To a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToCommand {
    /// Input. What lies below the accepted offset is skipped, so repeating it is harmless; a gap is
    /// `op.conflict`.
    Input {
        /// Offset of the first byte.
        offset: u64,
        /// At most [`MAX_CHUNK`].
        bytes: Bytes,
    },
    /// There is no input after this offset: closes the pipe, or types end-of-file on the terminal.
    InputEnd {
        /// Where the input ends.
        offset: u64,
    },
    /// The terminal has a new size.
    Resize(TerminalSize),
    /// A signal by number to its process group (on a terminal: to the one in the foreground); KILL is
    /// for everything it started.
    Signal(i32),
}

/// From a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromCommand {
    /// Output.
    Output {
        /// Which.
        stream: Stream,
        /// Offset of the first byte; both streams are counted together.
        offset: u64,
        /// When the init read it, milliseconds since 1970.
        at_ms: u64,
        /// At most [`MAX_CHUNK`].
        bytes: Bytes,
    },
    /// Input up to this offset was taken by the pipe.
    InputAccepted(u64),
    /// It ended, and all output was sent. The last frame.
    Exit(ExitStatus),
    /// This attachment ends, the command goes on. The last frame. `op.out_of_retention`: the client
    /// was too slow; `op.conflict`: another one gives the input now, or there was a gap in it.
    Fault(GuestFault),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// Its exit code, if it exited.
    pub code: Option<i32>,
    /// The signal that ended it, else.
    pub signal: Option<i32>,
    /// Whether that was its time limit.
    pub timed_out: bool,
}

impl ExitStatus {
    /// One number, as shells say it: the code, or 128 and the signal.
    #[must_use]
    pub fn shell_code(&self) -> i32 {
        self.code
            .unwrap_or_else(|| self.signal.map_or(128, |signal| 128 + signal))
    }
}

/// The part of a file that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Range {
    /// All of it.
    All,
    /// From an offset; `op.invalid_input` with the detail `size` if it lies behind the end.
    From {
        /// The first byte.
        offset: u64,
        /// At most so many.
        length: Option<u64>,
    },
    /// The last so many bytes.
    Last(u64),
}

/// What must be true before a file is written, else `op.precondition_failed`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precondition {
    /// Nothing.
    #[default]
    None,
    /// There is none (`If-None-Match: *`).
    Absent,
    /// There is one (`If-Match: *`).
    Present,
    /// There is one with one of these ETags.
    Match(Vec<String>),
    /// There is none with one of these ETags.
    NoneMatch(Vec<String>),
}

/// A part of a file or an archive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Chunk {
    /// At most [`MAX_CHUNK`].
    Data(Bytes),
    /// All of it was sent. A stream that ends without is broken.
    End,
    /// It cannot go on.
    Fault(GuestFault),
}

/// How a `WriteFile` or `TarIn` ended.
pub type Finished = Result<Written, GuestFault>;

/// What was written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Written {
    /// The file, or the directory that was unpacked into.
    pub entry: Entry,
    /// Whether it was not there before.
    pub created: bool,
}

/// What stands in a directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its last component.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Last change of the content, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Changes with the content: inode, size and time of change; without quotes.
    pub etag: String,
}

/// What an [`Entry`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A device, pipe or socket.
    Other,
}

/// Why something was refused or ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct GuestFault {
    /// A code of the error catalogue.
    pub code: String,
    /// One sentence.
    pub message: String,
    /// For programs.
    pub detail: BTreeMap<String, String>,
}

impl GuestFault {
    /// A fault without detail.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            detail: BTreeMap::new(),
        }
    }

    /// Adds a detail.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.detail.insert(name.to_owned(), value.to_string());
        self
    }
}
