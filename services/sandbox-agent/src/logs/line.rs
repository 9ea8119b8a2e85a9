//! One line, as it is stored and as it is shown.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nimbus_guest::protocol::Stream;
use nimbus_model::Timestamp;

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Which run of the main process wrote it.
    pub(crate) run: u32,
    pub(crate) stream: Stream,
    /// Where it begins in the guest's byte log of that run.
    pub(crate) start: u64,
    /// Where it ends there, its newline included.
    pub(crate) end: u64,
    pub(crate) at: Timestamp,
    /// Its text as a JSON string, or its bytes in base64 as one.
    json: String,
    is_base64: bool,
}

impl Line {
    pub(crate) fn new(run: u32, stream: Stream, start: u64, end: u64, at_us: i64, bytes: &[u8]) -> Self {
        let content = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let (json, is_base64) = match std::str::from_utf8(content) {
            Ok(text) => (serde_json::Value::from(text).to_string(), false),
            Err(_) => (format!("\"{}\"", STANDARD.encode(content)), true),
        };
        Self {
            run,
            stream,
            start,
            end,
            at: Timestamp::from_micros(at_us),
            json,
            is_base64,
        }
    }

    /// Appends the stored form: `<micros> <run> <start> <end> <stream> <json>\n`.
    pub(crate) fn write(&self, to: &mut Vec<u8>) {
        let stream = match (self.stream, self.is_base64) {
            (Stream::Stdout, false) => 'o',
            (Stream::Stdout, true) => 'O',
            (Stream::Stderr, false) => 'e',
            (Stream::Stderr, true) => 'E',
        };
        let text = format!(
            "{} {} {} {} {stream} {}\n",
            self.at.micros(),
            self.run,
            self.start,
            self.end,
            self.json
        );
        to.extend_from_slice(text.as_bytes());
    }

    /// Reads the stored form.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut parts = text.trim_end_matches('\n').splitn(6, ' ');
        let at = Timestamp::from_micros(parts.next()?.parse().ok()?);
        let run = parts.next()?.parse().ok()?;
        let start = parts.next()?.parse().ok()?;
        let end = parts.next()?.parse().ok()?;
        let (stream, is_base64) = match parts.next()? {
            "o" => (Stream::Stdout, false),
            "O" => (Stream::Stdout, true),
            "e" => (Stream::Stderr, false),
            "E" => (Stream::Stderr, true),
            _ => return None,
        };
        Some(Self {
            run,
            stream,
            start,
            end,
            at,
            json: parts.next()?.to_owned(),
            is_base64,
        })
    }

    /// The form that is shown, with a newline.
    pub(crate) fn show(&self) -> String {
        let stream = match self.stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        let encoding = if self.is_base64 {
            ",\"encoding\":\"base64\""
        } else {
            ""
        };
        format!(
            "{{\"ts\":\"{}\",\"stream\":\"{stream}\",\"data\":{}{encoding}}}\n",
            self.at, self.json
        )
    }
}
