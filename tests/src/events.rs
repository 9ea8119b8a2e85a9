//! Reading Server-Sent Events, and streams of JSON lines.

use std::time::Duration;

use serde_json::Value;

use crate::wait::within;

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its number.
    pub id: Option<u64>,
    /// What kind it is.
    pub name: String,
    /// What it says.
    pub data: Value,
}

/// An open stream.
#[derive(Debug)]
pub struct Events {
    /// Status of the answer.
    pub status: u16,
    answer: reqwest::Response,
    rest: Vec<u8>,
}

impl Events {
    /// The stream of an answer.
    #[must_use]
    pub fn of(answer: reqwest::Response) -> Self {
        Self {
            status: answer.status().as_u16(),
            answer,
            rest: Vec::new(),
        }
    }

    /// The next line; none at the end of the stream, also when that comes too early.
    pub async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(String::from_utf8(line).unwrap().trim_end().to_owned());
            }
            let chunk = self.answer.chunk().await.ok()??;
            self.rest.extend_from_slice(&chunk);
        }
    }

    /// The next line as JSON.
    pub async fn json_line(&mut self) -> Option<Value> {
        Some(serde_json::from_str(&self.line().await?).unwrap())
    }

    /// The next event; comments are passed over.
    pub async fn next(&mut self) -> Option<Event> {
        let mut event = Event {
            id: None,
            name: String::new(),
            data: Value::Null,
        };
        loop {
            let line = self.line().await?;
            if let Some(id) = line.strip_prefix("id:") {
                event.id = id.trim().parse().ok();
            } else if let Some(name) = line.strip_prefix("event:") {
                name.trim().clone_into(&mut event.name);
            } else if let Some(data) = line.strip_prefix("data:") {
                event.data = serde_json::from_str(data).unwrap();
            } else if line.is_empty() && !event.name.is_empty() {
                return Some(event);
            }
        }
    }

    /// Reads until an event is as wanted; gives all that were read.
    ///
    /// # Panics
    /// When none comes in time.
    pub async fn until(&mut self, what: &str, good: impl Fn(&Event) -> bool) -> Vec<Event> {
        let mut seen = Vec::new();
        let read = async {
            loop {
                let event = self
                    .next()
                    .await
                    .unwrap_or_else(|| panic!("the stream ended before {what}"));
                seen.push(event);
                if seen.last().is_some_and(&good) {
                    return;
                }
            }
        };
        within(what, Duration::from_secs(60), read).await;
        seen
    }
}
