//! Lines of a log as they come, and other answers that are read line by line.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use reqwest::header::ACCEPT;
use reqwest::{Method, Response};
use serde_json::Value;

use super::api::Api;
use super::stdio::show;
use super::workloads::{Workloads, text};
use crate::output::{self, Format};
use crate::problem::{Outcome, Problem};

/// Longest line that is taken from a server.
const LONGEST: usize = 8 * 1024 * 1024;

/// Which lines.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LogArgs {
    /// Go on with lines to come.
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// How many of the last lines; `all` for every one that is kept.
    #[arg(long, short = 'n', default_value = "200", value_name = "LINES", value_parser = tail)]
    pub(crate) tail: u32,
    /// Only lines from then on (RFC 3339).
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Say when each line was written.
    #[arg(long, short)]
    pub(crate) timestamps: bool,
}

fn tail(text: &str) -> Result<u32, String> {
    if text == "all" {
        return Ok(u32::MAX);
    }
    text.parse()
        .map_err(|_| "expected a number of lines, or all".to_owned())
}

/// Prints the log of the service or sandbox at `path`.
pub(crate) async fn print(workloads: &Workloads, path: &[&str], args: &LogArgs, format: Format) -> Outcome {
    let what = "could not read the log";
    let mut request = workloads
        .unlimited(Method::GET, path)
        .header(ACCEPT, "application/x-ndjson")
        .query(&[
            ("tail", args.tail.to_string()),
            ("follow", args.follow.to_string()),
        ]);
    if let Some(since) = &args.since {
        request = request.query(&[("since", since)]);
    }
    let mut lines = Lines::of(&workloads.api, workloads.api.reach(request, what).await?, what);
    while let Some(line) = lines.next().await? {
        if format == Format::Json {
            output::line(&line.to_string())?;
            continue;
        }
        let mut bytes = Vec::new();
        if args.timestamps
            && let Some(at) = text(&line, "/ts")
        {
            bytes.extend_from_slice(at.as_bytes());
            bytes.push(b' ');
        }
        bytes.extend(data(&line));
        bytes.push(b'\n');
        show(text(&line, "/stream").as_deref() != Some("stderr"), &bytes)?;
    }
    Ok(())
}

/// The bytes of a line or frame.
pub(crate) fn data(line: &Value) -> Vec<u8> {
    let data = line.get("data").and_then(Value::as_str).unwrap_or_default();
    if line.get("encoding").and_then(Value::as_str) == Some("base64") {
        return STANDARD.decode(data).unwrap_or_default();
    }
    data.as_bytes().to_vec()
}

/// JSON values, one a line.
pub(crate) struct Lines<'a> {
    api: &'a Api,
    what: &'a str,
    body: std::pin::Pin<Box<dyn futures::Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>,
    rest: Vec<u8>,
}

impl<'a> Lines<'a> {
    pub(crate) fn of(api: &'a Api, response: Response, what: &'a str) -> Self {
        Self {
            api,
            what,
            body: Box::pin(response.bytes_stream()),
            rest: Vec::new(),
        }
    }

    /// The next one; none at the end. Empty lines only keep the connection awake.
    pub(crate) async fn next(&mut self) -> Outcome<Option<Value>> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return serde_json::from_slice(&line)
                    .map(Some)
                    .map_err(|error| Problem::failed(self.what).because(&error));
            }
            if self.rest.len() > LONGEST {
                return Err(Problem::failed(self.what).why("the server sent a line without an end"));
            }
            match self.body.next().await {
                Some(Ok(bytes)) => self.rest.extend_from_slice(&bytes),
                Some(Err(error)) => return Err(self.api.unreachable(self.what, &error)),
                None if self.rest.trim_ascii().is_empty() => return Ok(None),
                None => self.rest.push(b'\n'),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn data_may_be_bytes() {
        assert_eq!(data(&json!({ "data": "hi" })), b"hi");
        assert_eq!(data(&json!({ "data": "/w==", "encoding": "base64" })), [0xff]);
        assert_eq!(data(&json!({})), b"");
    }

    #[test]
    fn tails() {
        assert_eq!(tail("7"), Ok(7));
        assert_eq!(tail("all"), Ok(u32::MAX));
        assert!(tail("-1").is_err() && tail("many").is_err());
    }
}
