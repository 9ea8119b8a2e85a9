//! What is there: the instances that answer, the streams with what waits in them, the leases.
//!
//! For people and their tools; nothing inside Nimbus decides by it. Instances are asked all at once
//! and nobody knows how many there are, so the answers of [`Bus::survey`] are those that came in time.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::service::{Info, Stats};
use bytes::Bytes;
use futures::StreamExt;
use nimbus_model::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use crate::bus::Bus;
use crate::error::BusError;
use crate::exchange::{Question, Repeat};
use crate::header;
use crate::jetstream::{LEASES, LEASES_STREAM, STORAGE_LIMIT};
use crate::lease;

/// After this long without another answer, those that came are all.
const QUIET: Duration = Duration::from_millis(150);
/// Streams and consumers asked for at once; what nats-server gives per page.
const PAGE: usize = 256;

/// The state of the bus and of everybody on it.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Instances that answered, by service.
    pub instances: Vec<Instance>,
    /// Streams, by name.
    pub streams: Vec<StreamReport>,
    /// Leases that are held, by name.
    pub leases: Vec<LeaseReport>,
}

/// One instance of a service.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its service, as it is called on the bus.
    pub service: String,
    /// Its id, new with each start.
    pub id: String,
    /// Its version.
    pub version: String,
    /// Host and process it runs in.
    pub host: Option<String>,
    /// Process id on that host.
    pub pid: Option<u32>,
    /// When it started, in RFC 3339.
    pub started: String,
    /// Requests it answered.
    pub requests: u64,
    /// How many of them with a fault.
    pub errors: u64,
}

/// One stream.
#[derive(Clone, Debug)]
pub struct StreamReport {
    /// Its name.
    pub name: String,
    /// Messages in it.
    pub messages: u64,
    /// Bytes in it.
    pub bytes: u64,
    /// Copies it shall have.
    pub replicas: u64,
    /// The server that leads it; `None` where there is only one server.
    pub leader: Option<String>,
    /// Servers whose copy is behind or away.
    pub behind: Vec<String>,
    /// Who reads it.
    pub consumers: Vec<ConsumerReport>,
}

/// One consumer of a stream.
#[derive(Clone, Debug)]
pub struct ConsumerReport {
    /// Its name.
    pub name: String,
    /// Messages not delivered yet.
    pub pending: u64,
    /// Messages delivered and not acknowledged yet.
    pub unacknowledged: u64,
}

/// One lease that is held.
#[derive(Clone, Debug)]
pub struct LeaseReport {
    /// Its name.
    pub name: String,
    /// Name of the client that holds it.
    pub holder: String,
    /// When it was taken or renewed.
    pub renewed_at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Streams {
    #[serde(default)]
    streams: Option<Vec<StreamInfo>>,
}

#[derive(Deserialize)]
struct StreamInfo {
    config: StreamConfig,
    state: StreamCounts,
    cluster: Option<Placed>,
}

#[derive(Deserialize)]
struct StreamConfig {
    name: String,
    #[serde(default)]
    num_replicas: u64,
}

#[derive(Deserialize)]
struct StreamCounts {
    messages: u64,
    bytes: u64,
    #[serde(default)]
    subjects: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct Placed {
    leader: Option<String>,
    #[serde(default)]
    replicas: Option<Vec<Copy>>,
}

#[derive(Deserialize)]
struct Copy {
    name: String,
    #[serde(default)]
    current: bool,
    #[serde(default)]
    offline: bool,
}

#[derive(Deserialize)]
struct Consumers {
    #[serde(default)]
    consumers: Option<Vec<ConsumerInfo>>,
}

#[derive(Deserialize)]
struct ConsumerInfo {
    name: String,
    num_pending: u64,
    num_ack_pending: u64,
}

impl Bus {
    /// Asks everybody and the server's storage. Takes as long as answers keep coming, `patience` at most.
    ///
    /// # Errors
    /// A bus that stays away, or a credential without [`Grants::surveys`](crate::Grants::surveys).
    pub async fn survey(&self, patience: Duration) -> Result<Survey, BusError> {
        let (stats, infos, streams, leases) = tokio::try_join!(
            self.gather::<Stats>("$SRV.STATS", patience),
            self.gather::<Info>("$SRV.INFO", patience),
            self.stream_reports(),
            self.lease_reports(),
        )?;
        let mut places: BTreeMap<String, (Option<String>, Option<u32>)> = infos
            .into_iter()
            .map(|info| {
                let pid = info.metadata.get("pid").and_then(|pid| pid.parse().ok());
                (info.id, (info.metadata.get("host").cloned(), pid))
            })
            .collect();
        let sum = |counts: &mut dyn Iterator<Item = usize>| counts.map(|n| n as u64).sum();
        let mut instances: Vec<Instance> = stats
            .into_iter()
            .map(|stats| {
                let (host, pid) = places.remove(&stats.id).unwrap_or_default();
                Instance {
                    started: serde_json::to_value(&stats)
                        .ok()
                        .and_then(|value| Some(value.get("started")?.as_str()?.to_owned()))
                        .unwrap_or_default(),
                    requests: sum(&mut stats.endpoints.iter().map(|one| one.requests)),
                    errors: sum(&mut stats.endpoints.iter().map(|one| one.errors)),
                    service: stats.name,
                    id: stats.id,
                    version: stats.version,
                    host,
                    pid,
                }
            })
            .collect();
        instances.sort_by(|a, b| (&a.service, &a.host, &a.id).cmp(&(&b.service, &b.host, &b.id)));
        Ok(Survey {
            instances,
            streams,
            leases,
        })
    }

    /// Sends one question and takes every answer to it.
    async fn gather<T: DeserializeOwned>(
        &self,
        subject: &'static str,
        patience: Duration,
    ) -> Result<Vec<T>, BusError> {
        let inbox = self.client().new_inbox();
        let mut answers = self
            .client()
            .subscribe(inbox.clone())
            .await
            .map_err(|_| BusError::Closed)?;
        let end = Instant::now() + patience;
        self.client()
            .publish_with_reply(subject, inbox, Bytes::new())
            .await
            .map_err(|_| BusError::Closed)?;
        let mut found = Vec::new();
        // The first answer may take a while, the others come right behind it.
        let mut until = end;
        while let Ok(Some(message)) = timeout_at(until, answers.next()).await {
            until = end.min(Instant::now() + QUIET);
            match serde_json::from_slice(&message.payload) {
                Ok(answer) => found.push(answer),
                Err(error) => tracing::debug!(%error, "an answer to {subject} cannot be read"),
            }
        }
        Ok(found)
    }

    async fn stream_reports(&self) -> Result<Vec<StreamReport>, BusError> {
        let mut reports = Vec::new();
        let mut offset = 0;
        loop {
            let page: Streams = self
                .storage("$JS.API.STREAM.LIST", &json!({ "offset": offset }))
                .await?;
            let page = page.streams.unwrap_or_default();
            let count = page.len();
            for info in page {
                let consumers = self.consumer_reports(&info.config.name).await?;
                let (leader, behind) = info.cluster.map_or((None, Vec::new()), |placed| {
                    let behind = placed.replicas.unwrap_or_default();
                    let behind = behind.into_iter().filter(|copy| !copy.current || copy.offline);
                    (placed.leader, behind.map(|copy| copy.name).collect())
                });
                reports.push(StreamReport {
                    name: info.config.name,
                    messages: info.state.messages,
                    bytes: info.state.bytes,
                    replicas: info.config.num_replicas,
                    leader,
                    behind,
                    consumers,
                });
            }
            if count < PAGE {
                break;
            }
            offset += count;
        }
        reports.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(reports)
    }

    /// The first page of a stream's consumers: more than that many are followers who come and go.
    async fn consumer_reports(&self, stream: &str) -> Result<Vec<ConsumerReport>, BusError> {
        let page: Consumers = self
            .storage(
                &format!("$JS.API.CONSUMER.LIST.{stream}"),
                &json!({ "offset": 0 }),
            )
            .await?;
        Ok(page
            .consumers
            .unwrap_or_default()
            .into_iter()
            .map(|info| ConsumerReport {
                name: info.name,
                pending: info.num_pending,
                unacknowledged: info.num_ack_pending,
            })
            .collect())
    }

    async fn lease_reports(&self) -> Result<Vec<LeaseReport>, BusError> {
        self.ensure_leases().await?;
        let filter = json!({ "subjects_filter": format!("$KV.{LEASES}.>") });
        let info: StreamInfo = self
            .storage(&format!("$JS.API.STREAM.INFO.{LEASES_STREAM}"), &filter)
            .await?;
        let mut reports = Vec::new();
        for subject in info.state.subjects.into_keys() {
            let question = Question {
                subject: format!("$JS.API.DIRECT.GET.{LEASES_STREAM}.{subject}").into(),
                headers: async_nats::HeaderMap::new(),
                payload: Bytes::new(),
                repeat: Repeat::Harmless,
                limit: STORAGE_LIMIT,
            };
            let message = self.ask(&question).await?;
            let Some(holder) = lease::holder_client(&message) else {
                continue;
            };
            let name = subject.trim_start_matches(&lease::subject("")).to_owned();
            let renewed_at = header::text(message.headers.as_ref(), header::TIME_STAMP)
                .and_then(|text| text.parse::<Timestamp>().ok());
            reports.push(LeaseReport {
                name,
                holder,
                renewed_at,
            });
        }
        reports.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(reports)
    }
}
