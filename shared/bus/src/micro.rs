//! Discovery and statistics as the NATS services API describes them (NATS ADR-32), so that
//! `nats micro ls`, `info` and `stats` show every Nimbus service.
//!
//! The client library's own service type answers an error with an empty body and counts only what
//! is answered through it; faults here have a body, so the few answers are made here, with the
//! library's message types.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::Message;
use async_nats::datetime::{self, DateTime};
use async_nats::service::{Info, PingResponse, Stats, endpoint, error};
use bytes::Bytes;
use nimbus_errors::Fault;

/// What a service tells about itself.
#[derive(Debug)]
pub(crate) struct Micro {
    pub name: &'static str,
    pub version: &'static str,
    pub description: &'static str,
    pub id: String,
    started: DateTime,
    /// Which process it is in: `host` and `pid`.
    metadata: HashMap<String, String>,
    endpoints: Vec<Arc<Counters>>,
}

/// One method's numbers.
#[derive(Debug)]
pub(crate) struct Counters {
    name: &'static str,
    subject: String,
    queue: &'static str,
    metadata: HashMap<String, String>,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    requests: usize,
    errors: usize,
    busy: Duration,
    last: Option<error::Error>,
}

impl Counters {
    pub(crate) fn new(
        name: &'static str,
        subject: String,
        queue: &'static str,
        metadata: HashMap<String, String>,
    ) -> Self {
        Self {
            name,
            subject,
            queue,
            metadata,
            counts: Mutex::default(),
        }
    }

    /// Counts one request.
    pub(crate) fn count(&self, took: Duration, fault: Option<&Fault>) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.requests += 1;
        counts.busy += took;
        if let Some(fault) = fault {
            counts.errors += 1;
            counts.last = Some(error::Error {
                code: usize::from(fault.entry().http_status),
                status: fault.code.clone(),
            });
        }
    }

    fn stats(&self) -> endpoint::Stats {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let each = u32::try_from(counts.requests)
            .ok()
            .filter(|n| *n > 0)
            .map_or(Duration::ZERO, |n| counts.busy / n);
        endpoint::Stats {
            name: self.name.to_owned(),
            subject: self.subject.clone(),
            requests: counts.requests,
            errors: counts.errors,
            processing_time: counts.busy,
            average_processing_time: each,
            last_error: counts.last.clone(),
            data: None,
            queue_group: self.queue.to_owned(),
        }
    }

    fn info(&self) -> endpoint::Info {
        endpoint::Info {
            name: self.name.to_owned(),
            subject: self.subject.clone(),
            queue_group: self.queue.to_owned(),
            metadata: self.metadata.clone(),
        }
    }
}

impl Micro {
    pub(crate) fn new(
        name: &'static str,
        version: &'static str,
        description: &'static str,
        endpoints: Vec<Arc<Counters>>,
    ) -> Self {
        let id = uuid::Uuid::new_v4().simple().to_string();
        Self {
            name,
            version,
            description,
            id,
            started: datetime::now(),
            metadata: process(),
            endpoints,
        }
    }

    /// The subjects to answer on: everybody's, those of this name, those of this instance.
    pub(crate) fn subjects(&self) -> [String; 3] {
        [
            "$SRV.*".to_owned(),
            format!("$SRV.*.{}", self.name),
            format!("$SRV.*.{}.{}", self.name, self.id),
        ]
    }

    /// The answer to one question; `None` for a verb that is not known.
    pub(crate) fn answer(&self, question: &Message) -> Option<Bytes> {
        let (name, id, version) = (self.name.to_owned(), self.id.clone(), self.version.to_owned());
        let json = match question.subject.split('.').nth(1)? {
            "PING" => serde_json::to_vec(&PingResponse {
                kind: "io.nats.micro.v1.ping_response".to_owned(),
                name,
                id,
                version,
                metadata: self.metadata.clone(),
            }),
            "INFO" => serde_json::to_vec(&Info {
                kind: "io.nats.micro.v1.info_response".to_owned(),
                name,
                id,
                version,
                description: self.description.to_owned(),
                metadata: self.metadata.clone(),
                endpoints: self.endpoints.iter().map(|one| one.info()).collect(),
            }),
            "STATS" => serde_json::to_vec(&Stats {
                kind: "io.nats.micro.v1.stats_response".to_owned(),
                name,
                id,
                version,
                started: self.started,
                endpoints: self.endpoints.iter().map(|one| one.stats()).collect(),
            }),
            _ => return None,
        };
        json.ok().map(Bytes::from)
    }
}

/// By what operators know the process.
fn process() -> HashMap<String, String> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    HashMap::from([
        ("host".to_owned(), host.trim().to_owned()),
        ("pid".to_owned(), std::process::id().to_string()),
    ])
}
