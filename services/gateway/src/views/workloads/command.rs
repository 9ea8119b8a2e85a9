//! Commands inside sandboxes.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use nimbus_guest::protocol::{CommandInfo, CommandSpec, ExitStatus, TerminalSize};
use nimbus_model::Timestamp;
use nimbus_proto::workloads::ExecReply;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::at;
use super::spec::variable;
use crate::envelope::{Answer, ApiError, FaultView};
use crate::views::At;

/// How long a collected command may run where nothing else is said, as one call of the bus carries it.
pub(crate) const COLLECTED_MS: u64 = 60_000;

/// A command to be run.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ExecBody {
    /// Program and arguments.
    #[schema(examples(json!(["sh", "-c", "uname -a"])))]
    pub argv: Vec<String>,
    /// Working directory; the sandbox' own when it is left out.
    pub cwd: Option<String>,
    /// Variables beside the sandbox' own: an object, or a list of `NAME=value`.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub env: EnvBody,
    /// After how long it is killed. Without it 60000 for a collected command, and no limit for a streamed one.
    pub timeout_ms: Option<u64>,
    /// What it reads; then its input ends.
    pub stdin: Option<String>,
    /// `base64` when `stdin` is not text.
    pub encoding: Option<EncodingWord>,
    /// Whether its input stays open for `POST …/input`. Only for a streamed one.
    #[serde(default)]
    pub stdin_open: bool,
    /// Its id, chosen by the caller: an id that is sent twice runs once.
    #[schema(examples("7f6c1e0d2b"))]
    pub command_id: Option<String>,
    /// A terminal of this size instead of pipes.
    pub terminal: Option<SizeView>,
}

/// Variables of a command.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum EnvBody {
    Map(BTreeMap<String, String>),
    List(Vec<String>),
}

impl Default for EnvBody {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

/// The size of a terminal.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SizeView {
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
}

impl From<SizeView> for TerminalSize {
    fn from(size: SizeView) -> Self {
        Self {
            cols: size.cols,
            rows: size.rows,
        }
    }
}

/// How bytes that are not text are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EncodingWord {
    /// RFC 4648, section 4.
    Base64,
}

/// The bytes of a text, or of its encoding.
pub(crate) fn bytes_of(text: String, encoding: Option<EncodingWord>, field: &str) -> Answer<Bytes> {
    match encoding {
        None => Ok(text.into()),
        Some(EncodingWord::Base64) => STANDARD
            .decode(text)
            .map(Bytes::from)
            .map_err(|_| ApiError::field(field, format!("{field}: expected base64"))),
    }
}

/// Bytes as text where they are text.
pub(crate) fn text_of(bytes: &[u8]) -> (String, Option<EncodingWord>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (STANDARD.encode(bytes), Some(EncodingWord::Base64)),
    }
}

/// A fresh id for a command whose caller chose none.
pub(crate) fn fresh_command() -> String {
    nimbus_bus::StreamId::fresh().to_string()
}

impl ExecBody {
    /// The command and its whole input.
    pub(crate) fn checked(self, streamed: bool) -> Answer<(CommandSpec, Option<Bytes>)> {
        if self.argv.is_empty() {
            return Err(ApiError::field("argv", "argv: expected a program"));
        }
        if self.stdin_open && (!streamed || self.stdin.is_some()) {
            return Err(ApiError::field(
                "stdinOpen",
                "stdinOpen: only for a streamed command, and not together with stdin",
            ));
        }
        let env = match self.env {
            EnvBody::Map(map) => map.into_iter().collect(),
            EnvBody::List(list) => list
                .iter()
                .map(|text| variable(text, "env"))
                .collect::<Answer<_>>()?,
        };
        let stdin = self
            .stdin
            .map(|text| bytes_of(text, self.encoding, "stdin"))
            .transpose()?;
        let spec = CommandSpec {
            id: self.command_id.unwrap_or_else(fresh_command),
            argv: self.argv,
            env,
            cwd: self.cwd,
            terminal: self.terminal.map(TerminalSize::from),
            stdin: self.stdin_open || stdin.is_some(),
            timeout_ms: self.timeout_ms.or((!streamed).then_some(COLLECTED_MS)),
            linger_ms: None,
            log_bytes: None,
            lossless: streamed,
        };
        Ok((spec, stdin))
    }
}

/// A collected command.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExecView {
    /// Its id.
    pub command_id: String,
    /// Its exit code; null when a signal ended it.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Whether it was ended for its time.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub timed_out: bool,
    /// The first MiB of its output.
    pub stdout: String,
    /// `base64` when the output is not text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout_encoding: Option<EncodingWord>,
    /// The first MiB of its error output.
    pub stderr: String,
    /// `base64` when the error output is not text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr_encoding: Option<EncodingWord>,
    /// Whether there was more.
    pub truncated: bool,
}

impl From<ExecReply> for ExecView {
    fn from(reply: ExecReply) -> Self {
        let (stdout, stdout_encoding) = text_of(&reply.stdout);
        let (stderr, stderr_encoding) = text_of(&reply.stderr);
        Self {
            command_id: reply.command,
            exit_code: reply.code,
            signal: reply.signal.map(signal_name),
            timed_out: reply.timed_out,
            stdout,
            stdout_encoding,
            stderr,
            stderr_encoding,
            truncated: reply.truncated,
        }
    }
}

/// One line of a streamed command. A line that is empty only says that the stream lives.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub(crate) enum FrameView {
    /// The first.
    Opened {
        /// The channel of the session, where it is one's.
        #[serde(skip_serializing_if = "Option::is_none")]
        channel: Option<&'static str>,
        /// The generation of what was opened.
        target_generation: u64,
        /// The command.
        command_id: String,
        /// Whether this request started it.
        started: bool,
        /// Where the output begins.
        offset: u64,
        /// Where the output ended when this began: up to there it is replay.
        end: u64,
        /// How much input it has taken.
        input: u64,
    },
    /// Output.
    Stdout(OutputView),
    /// Error output.
    Stderr(OutputView),
    /// It has ended, and this was all of its output.
    Exit(ExitView),
    /// The stream ends, the command goes on: attach again with `from`.
    Closed {
        /// Why.
        reason: String,
        /// Where the output goes on.
        offset: u64,
    },
    /// The stream cannot go on.
    Error {
        /// Why.
        error: Box<FaultView>,
    },
}

/// A piece of output.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct OutputView {
    /// Offset of the first byte; both outputs are counted together.
    pub offset: u64,
    /// The bytes.
    pub data: String,
    /// `base64` when they are not text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<EncodingWord>,
}

/// How a command ended.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExitView {
    /// Its exit code; null when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Whether that was its time limit.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub timed_out: bool,
}

impl From<ExitStatus> for ExitView {
    fn from(exit: ExitStatus) -> Self {
        Self {
            code: exit.code,
            signal: exit.signal.map(signal_name),
            timed_out: exit.timed_out,
        }
    }
}

/// A command that is known.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CommandView {
    /// Its id; `main` is the sandbox' own process.
    pub id: String,
    /// The same.
    pub command_id: String,
    /// `running` or `exited`.
    pub state: &'static str,
    /// Its exit code; null while it runs, and when a signal ended it.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Whether that was its time limit.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub timed_out: bool,
    /// The first offset of its output that is still kept.
    pub log_start: u64,
    /// Where its output ends so far.
    pub log_end: u64,
    /// How much input it has taken.
    pub input: u64,
    /// How many read it now.
    pub attached: u32,
    /// When it was started.
    pub started_at: At,
}

impl From<CommandInfo> for CommandView {
    fn from(command: CommandInfo) -> Self {
        let exit = command.exit;
        let started = i64::try_from(command.started_ms).unwrap_or(i64::MAX);
        Self {
            command_id: command.id.clone(),
            id: command.id,
            state: if exit.is_some() { "exited" } else { "running" },
            exit_code: exit.and_then(|exit| exit.code),
            signal: exit.and_then(|exit| exit.signal).map(signal_name),
            timed_out: exit.is_some_and(|exit| exit.timed_out),
            log_start: command.log_start,
            log_end: command.log_end,
            input: command.input,
            attached: command.attached,
            started_at: at(Timestamp::from_micros(started.saturating_mul(1000))),
        }
    }
}

/// Where a command is read from.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AttachQuery {
    /// The offset to begin at; everything that is kept when it is left out. An offset that was dropped is
    /// refused with `op.out_of_retention`.
    pub from: Option<u64>,
}

/// A signal.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignalBody {
    /// `INT`, `TERM`, `KILL`, … or its number on Linux.
    #[schema(examples("TERM"))]
    pub signal: String,
}

/// Input of a command.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct InputBody {
    /// How much input was sent before; makes a repeat harmless. Without it, this is appended.
    pub offset: Option<u64>,
    /// The bytes.
    #[serde(default)]
    pub data: String,
    /// `base64` when they are not text.
    pub encoding: Option<EncodingWord>,
    /// Whether the input ends here.
    #[serde(default)]
    pub eof: bool,
    /// A new size of the terminal.
    pub resize: Option<SizeView>,
    /// A signal.
    pub signal: Option<String>,
}

/// What became of input.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct InputView {
    /// How much input the command has taken in all.
    pub accepted: u64,
}

/// Signals of Linux on all machines we run on (signal(7)).
const SIGNALS: [(&str, i32); 22] = [
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
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("WINCH", 28),
];

/// The name of a signal, or its number.
pub(crate) fn signal_name(number: i32) -> String {
    SIGNALS
        .iter()
        .find(|(_, known)| *known == number)
        .map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

/// The number of a signal, by name or number.
pub(crate) fn signal_number(text: &str) -> Answer<i32> {
    let name = text.trim().to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    SIGNALS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, number)| *number)
        .or_else(|| name.parse().ok().filter(|number| (1..=64).contains(number)))
        .ok_or_else(|| {
            let text: String = text.chars().take(32).collect();
            ApiError::field(
                "signal",
                format!("signal: {text:?} is not a signal; expected one such as TERM"),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_go_by_name_and_number() {
        for (text, number) in [("TERM", 15), ("sigkill", 9), ("2", 2)] {
            assert_eq!(signal_number(text).unwrap(), number, "{text}");
        }
        for text in ["", "0", "65", "TERMINATE"] {
            assert!(signal_number(text).is_err(), "{text}");
        }
        assert_eq!((signal_name(9), signal_name(34)), ("KILL".into(), "34".into()));
    }

    #[test]
    fn bytes_that_are_no_text_survive_as_base64() {
        let (text, encoding) = text_of(&[0xff, 0x00]);
        assert_eq!(encoding, Some(EncodingWord::Base64));
        assert_eq!(&bytes_of(text, encoding, "data").unwrap()[..], &[0xff, 0x00]);
        assert_eq!(text_of("ä".as_bytes()), ("ä".to_owned(), None));
        assert!(bytes_of("?".to_owned(), Some(EncodingWord::Base64), "data").is_err());
    }

    #[test]
    fn variables_are_an_object_or_a_list() {
        for json in [
            r#"{"argv":["a"],"env":{"A":"1=2"}}"#,
            r#"{"argv":["a"],"env":["A=1=2"]}"#,
        ] {
            let body: ExecBody = serde_json::from_str(json).unwrap();
            let (spec, stdin) = body.checked(true).unwrap();
            assert_eq!(spec.env, [("A".to_owned(), "1=2".to_owned())]);
            assert!(stdin.is_none() && !spec.stdin && spec.timeout_ms.is_none());
        }
    }
}
