//! Reads what an inference server says it has used, from the bytes of its answer as they pass.
//!
//! Nothing is changed and little is kept: of each document (the whole of a JSON answer, or one `data:` line of
//! an event stream) its beginning, where the model is usually named, and its end, where `usage` stands.

use serde::Deserialize;

/// Kept of the beginning of a document.
const HEAD: usize = 4 * 1024;
/// Kept of its end, at least.
const TAIL: usize = 16 * 1024;
/// Longest name of a model that is counted under its own name.
const LONGEST_MODEL: usize = 128;

/// How many tokens went each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tokens {
    /// To the model.
    pub(crate) prompt: u64,
    /// From it.
    pub(crate) completion: u64,
}

/// What an answer has used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The model, as the server names it.
    pub(crate) model: Option<String>,
    /// What the server says it has used.
    pub(crate) tokens: Option<Tokens>,
    /// Pieces of text that a stream brought; servers send one for each token.
    pub(crate) pieces: u64,
}

/// The meter of one answer.
#[derive(Debug)]
pub(crate) struct Meter {
    is_stream: bool,
    document: Document,
    reading: Reading,
}

impl Meter {
    /// A meter for an event stream, or for one JSON document.
    pub(crate) fn new(is_stream: bool) -> Self {
        Self {
            is_stream,
            document: Document::default(),
            reading: Reading::default(),
        }
    }

    /// Takes note of the next bytes of the answer.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        if !self.is_stream {
            self.document.push(bytes);
            return;
        }
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.document.push(part);
            if part.ends_with(b"\n") {
                self.line();
            }
        }
    }

    /// What was read so far.
    pub(crate) fn read(&mut self) -> &Reading {
        if self.is_stream {
            self.line();
        } else {
            self.model();
            self.reading.tokens = self.document.tokens().or(self.reading.tokens);
        }
        &self.reading
    }

    /// A line of an event stream is complete.
    fn line(&mut self) {
        if self.document.head.starts_with(b"data:") {
            self.model();
            // The last one is the sum: some servers tell the usage so far in every event.
            self.reading.tokens = self.document.tokens().or(self.reading.tokens);
            if self.document.is_piece() {
                self.reading.pieces = self.reading.pieces.saturating_add(1);
            }
        }
        self.document = Document::default();
    }

    fn model(&mut self) {
        if self.reading.model.is_none() {
            self.reading.model = self.document.model();
        }
    }
}

/// The two ends of a document.
#[derive(Debug, Default)]
struct Document {
    head: Vec<u8>,
    /// Everything after the head, or the end of it.
    tail: Vec<u8>,
}

/// `usage` of the three shapes there are: of completions, of embeddings and of responses.
#[derive(Deserialize)]
struct Usage {
    #[serde(alias = "input_tokens", default)]
    prompt_tokens: Option<u64>,
    #[serde(alias = "output_tokens", default)]
    completion_tokens: Option<u64>,
}

impl Document {
    fn push(&mut self, bytes: &[u8]) {
        let room = HEAD.saturating_sub(self.head.len()).min(bytes.len());
        let (first, rest) = bytes.split_at(room);
        self.head.extend_from_slice(first);
        // What is beyond both ends of a long piece need not be copied at all.
        let rest = rest.get(rest.len().saturating_sub(2 * TAIL)..).unwrap_or(rest);
        self.tail.extend_from_slice(rest);
        if self.tail.len() > 2 * TAIL {
            self.tail.drain(..self.tail.len().saturating_sub(TAIL));
        }
    }

    /// The value of the last `"name":` in the document. Inside of a string its quotes would be escaped.
    fn last<T: serde::de::DeserializeOwned>(&self, name: &str) -> Option<T> {
        // A name that lies across the border of head and tail is found, too.
        let border = self.head.get(self.head.len().saturating_sub(name.len() + 8)..)?;
        let after = [border, &self.tail].concat();
        value(&after, name, true).or_else(|| {
            // The value may reach into the tail.
            let whole = [self.head.as_slice(), &self.tail].concat();
            value(&whole, name, true)
        })
    }

    fn tokens(&self) -> Option<Tokens> {
        let usage: Usage = self.last("usage")?;
        Some(Tokens {
            prompt: usage.prompt_tokens.unwrap_or(0),
            completion: usage.completion_tokens.unwrap_or(0),
        })
    }

    fn model(&self) -> Option<String> {
        value::<String>(&self.head, "model", false)
            .or_else(|| self.last("model"))
            .filter(|model| !model.is_empty() && model.len() <= LONGEST_MODEL)
    }

    /// Whether a line of an event stream brings text.
    fn is_piece(&self) -> bool {
        contains(&self.head, br#""choices":[{"#)
            || contains(&self.head, br#""choices": [{"#)
            || contains(&self.head, b"response.output_text.delta")
    }
}

fn contains(text: &[u8], what: &[u8]) -> bool {
    text.windows(what.len()).any(|window| window == what)
}

/// The value of the first or last `"name":` in `text` that has one of this type.
fn value<T: serde::de::DeserializeOwned>(text: &[u8], name: &str, last: bool) -> Option<T> {
    let key = format!("\"{name}\"");
    let at = |position: usize| -> Option<T> {
        let rest = text.get(position.checked_add(key.len())?..)?.trim_ascii_start();
        let rest = rest.strip_prefix(b":")?;
        // What follows the value is the rest of the document.
        let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<T>();
        values.next()?.ok()
    };
    let mut positions = text
        .windows(key.len())
        .enumerate()
        .filter(|(_, window)| *window == key.as_bytes())
        .map(|(position, _)| position);
    if last {
        let positions: Vec<usize> = positions.collect();
        positions.into_iter().rev().find_map(at)
    } else {
        positions.find_map(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(prompt: u64, completion: u64) -> Option<Tokens> {
        Some(Tokens { prompt, completion })
    }

    /// Reads `text` in pieces of every length up to 7, and as a whole: the reading is always the same.
    fn read(is_stream: bool, text: &str) -> Reading {
        let mut readings = (1..=7).chain([text.len().max(1)]).map(|length| {
            let mut meter = Meter::new(is_stream);
            for piece in text.as_bytes().chunks(length) {
                meter.feed(piece);
            }
            meter.read().clone()
        });
        let first = readings.next().unwrap();
        for other in readings {
            assert_eq!(other, first, "{text}");
        }
        first
    }

    #[test]
    fn a_document_tells_its_model_and_its_usage() {
        let completion = r#"{"id":"c","object":"chat.completion","model":"m-1","choices":[{"message":{"content":"say \"usage\": {\"prompt_tokens\":9}"}}],
            "usage" : {"prompt_tokens":21,"total_tokens":26,"completion_tokens":5,"prompt_tokens_details":null},"timings":{}}"#;
        let reading = read(false, completion);
        assert_eq!(
            (reading.model.as_deref(), reading.tokens),
            (Some("m-1"), tokens(21, 5))
        );
        let embedding = r#"{"data":[],"usage":{"prompt_tokens":3,"total_tokens":3},"model":"e"}"#;
        assert_eq!(read(false, embedding).tokens, tokens(3, 0));
        let response = r#"{"id":"r","model":"m","usage":{"input_tokens":7,"output_tokens":8,"total_tokens":15},"user":null}"#;
        assert_eq!(read(false, response).tokens, tokens(7, 8));
        for nothing in ["", "{}", r#"{"usage":null}"#, r#"{"usage":"#, "not json"] {
            assert_eq!(read(false, nothing).tokens, None, "{nothing}");
        }
    }

    #[test]
    fn a_long_document_is_read_at_its_ends() {
        let long = format!(
            r#"{{"model":"m","choices":[{{"text":"{}"}}],"usage":{{"prompt_tokens":1,"completion_tokens":2}}}}"#,
            "x".repeat(300_000)
        );
        let mut meter = Meter::new(false);
        for piece in long.as_bytes().chunks(1000) {
            meter.feed(piece);
        }
        assert_eq!(meter.read().tokens, tokens(1, 2));
        assert_eq!(meter.read().model.as_deref(), Some("m"));
        assert!(meter.document.tail.len() <= 2 * TAIL && meter.document.head.len() <= HEAD);
        // Wherever the border of the two ends falls.
        for pad in HEAD - 60..HEAD + 10 {
            let text = format!(
                r#"{{"model":"m","x":"{}","usage":{{"prompt_tokens":1}}}}"#,
                "x".repeat(pad)
            );
            let mut meter = Meter::new(false);
            meter.feed(text.as_bytes());
            assert_eq!(meter.read().tokens, tokens(1, 0), "{pad}");
        }
    }

    #[test]
    fn a_stream_tells_it_in_its_last_chunk_and_else_its_pieces_are_counted() {
        let chunk = |text: &str| {
            format!("data: {{\"model\":\"m\",\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
        };
        let with = format!(
            ": hello\n{}{}data: {{\"choices\":[],\"usage\":{{\"completion_tokens\":2,\"prompt_tokens\":4}}}}\n\ndata: [DONE]\n\n",
            chunk("a"),
            chunk("b")
        );
        let reading = read(true, &with);
        assert_eq!(
            (reading.model.as_deref(), reading.tokens, reading.pieces),
            (Some("m"), tokens(4, 2), 2)
        );
        let without = format!("{}{}data: [DONE]\n\n", chunk("a"), chunk("b"));
        let reading = read(true, &without);
        assert_eq!((reading.tokens, reading.pieces), (None, 2));
        let nulls = "data: {\"choices\":[{}],\"usage\":null}\r\n\r\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}";
        assert_eq!(
            read(true, nulls).tokens,
            tokens(1, 0),
            "cut off before the end of the line"
        );
        let response = "event: response.completed\ndata: {\"response\":{\"model\":\"m\",\"usage\":{\"input_tokens\":1,\"output_tokens\":2}}}\n\n";
        assert_eq!(read(true, response).tokens, tokens(1, 2));
    }
}
