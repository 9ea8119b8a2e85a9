//! A scheduler that does what the contract says, keeps what it was told, and can be told to fail.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::StreamExt;
use nimbus_gpu_wire::{
    Assignment, Beat, BeatReply, ChunkAck, FinishAck, OFFSET_HEADER, Outcome, StatusReport, WORKER_HEADER,
    subject,
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

pub(crate) const TOKEN: &str = "the-workers-token";

/// The longest a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// What the scheduler knows.
#[derive(Clone, Default)]
pub(crate) struct Book {
    pub(crate) queue: VecDeque<Assignment>,
    pub(crate) beats: Vec<Beat>,
    pub(crate) logs: BTreeMap<String, Vec<u8>>,
    pub(crate) artifacts: BTreeMap<String, Vec<u8>>,
    pub(crate) outcomes: Vec<(String, Outcome)>,
    pub(crate) cancelled: Vec<String>,
    pub(crate) caps: BTreeMap<String, u64>,
    /// Knows no worker any more.
    pub(crate) unpaired: bool,
    /// Answers 503 to everything.
    pub(crate) down: bool,
    /// So many reports of an end are not answered well.
    pub(crate) finishes_to_fail: u32,
    pub(crate) finishes: u32,
}

impl Book {
    pub(crate) fn log(&self, job: &str) -> &[u8] {
        self.logs.get(job).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn outcome(&self, job: &str) -> Option<&Outcome> {
        self.outcomes
            .iter()
            .find(|(id, _)| id == job)
            .map(|(_, outcome)| outcome)
    }

    /// The jobs in the worker's last sign of life.
    pub(crate) fn held(&self) -> Vec<String> {
        let last = self
            .beats
            .last()
            .map(|beat| beat.held.clone())
            .unwrap_or_default();
        last.into_iter().map(|held| held.job).collect()
    }
}

#[derive(Clone)]
pub(crate) struct Scheduler {
    book: Arc<Mutex<Book>>,
    changes: watch::Sender<u64>,
}

impl Scheduler {
    pub(crate) fn new() -> Self {
        Self {
            book: Arc::default(),
            changes: watch::channel(0).0,
        }
    }

    /// Looks at the book or changes it.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Book) -> T) -> T {
        let value = act(&mut self.book.lock().unwrap());
        self.changes.send_modify(|count| *count += 1);
        value
    }

    /// Waits until the book says so.
    pub(crate) async fn until<T>(&self, what: &str, mut look: impl FnMut(&Book) -> Option<T>) -> T {
        let mut changes = self.changes.subscribe();
        let wait = async {
            loop {
                if let Some(found) = look(&self.book.lock().unwrap()) {
                    return found;
                }
                changes.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(found) => found,
            Err(_) => {
                let book = self.book.lock().unwrap();
                let logs: Vec<_> = book.logs.iter().map(|(job, log)| (job, log.len())).collect();
                panic!(
                    "waited in vain for {what}: outcomes {:?}, logs {logs:?}, last beat {:?}",
                    book.outcomes,
                    book.beats.last()
                )
            }
        }
    }

    pub(crate) async fn outcome(&self, job: &str) -> Outcome {
        self.until("an outcome", |book| book.outcome(job).cloned()).await
    }

    fn beat(&self, beat: Beat) -> BeatReply {
        self.with(|book| {
            let held: Vec<String> = beat.held.iter().map(|held| held.job.clone()).collect();
            book.beats.push(beat);
            BeatReply {
                cancel: book
                    .cancelled
                    .iter()
                    .filter(|job| held.contains(job))
                    .cloned()
                    .collect(),
                drain: false,
                beat_ms: 200,
                pool: "default".into(),
            }
        })
    }

    fn chunk(&self, kind: &str, job: &str, offset: usize, bytes: &[u8]) -> ChunkAck {
        self.with(|book| {
            let cap = book.caps.get(job).copied().unwrap_or(u64::MAX);
            let all = if kind == "logs" {
                &mut book.logs
            } else {
                &mut book.artifacts
            };
            let kept = all.entry(job.to_owned()).or_default();
            if offset <= kept.len() {
                let known = kept.len() - offset;
                kept.extend_from_slice(bytes.get(known..).unwrap_or_default());
            }
            let capped = kind == "logs" && kept.len() as u64 >= cap;
            if capped {
                kept.truncate(cap.try_into().unwrap());
            }
            ChunkAck {
                end: kept.len() as u64,
                capped,
            }
        })
    }

    fn finish(&self, job: &str, outcome: Outcome) -> Option<FinishAck> {
        self.with(|book| {
            book.finishes += 1;
            if book.finishes_to_fail > 0 {
                book.finishes_to_fail -= 1;
                return None;
            }
            let counted = book.outcome(job).is_none() && !book.cancelled.iter().any(|id| id == job);
            if counted {
                book.outcomes.push((job.to_owned(), outcome));
            }
            Some(FinishAck { counted })
        })
    }

    /// Serves the worker routes; gives the address.
    pub(crate) async fn http(&self) -> String {
        let app = Router::new()
            .route("/api/gpu/worker/beat", post(beat))
            .route("/api/gpu/worker/claim", post(claim))
            .route("/api/gpu/worker/jobs/{job}/{verb}", post(verb))
            .with_state(self.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        format!("http://{address}")
    }

    /// Answers on the bus, and makes the stream and the worker's consumer.
    pub(crate) async fn nats(&self, url: &str, worker: &str) -> Bus {
        let client = async_nats::connect(url).await.unwrap();
        let bus = Bus {
            client: client.clone(),
            worker: worker.to_owned(),
        };
        bus.api("STREAM.CREATE.GPU_JOBS", r#"{"name":"GPU_JOBS","subjects":["nimbus.v1.gpu.job.>"],"retention":"workqueue","storage":"memory"}"#).await;
        let filter = subject::job("default", worker);
        let config = format!(
            r#"{{"stream_name":"GPU_JOBS","config":{{"durable_name":"{worker}","name":"{worker}","filter_subject":"{filter}","ack_policy":"explicit","ack_wait":5000000000,"max_ack_pending":1}}}}"#
        );
        bus.api(&format!("CONSUMER.CREATE.GPU_JOBS.{worker}.{filter}"), &config)
            .await;
        for pattern in subject::REQUESTS {
            let mut requests = client.subscribe(pattern).await.unwrap();
            let (scheduler, bus) = (self.clone(), bus.clone());
            tokio::spawn(async move {
                while let Some(request) = requests.next().await {
                    let Some(answer) = scheduler.answer(&request) else {
                        continue;
                    };
                    bus.publish(request.reply.unwrap().as_str(), answer).await;
                }
            });
        }
        client.flush().await.unwrap();
        bus
    }

    fn answer(&self, request: &async_nats::Message) -> Option<Vec<u8>> {
        if self.with(|book| book.down) {
            return None;
        }
        let parts: Vec<&str> = request.subject.split('.').collect();
        let job = parts.get(5).copied().unwrap_or_default();
        let offset = || {
            let headers = request.headers.as_ref().unwrap();
            headers.get(OFFSET_HEADER).unwrap().as_str().parse().unwrap()
        };
        Some(match parts[3] {
            "beat" => json(&self.beat(read(&request.payload))),
            "log" => json(&self.chunk("logs", job, offset(), &request.payload)),
            "artifact" => json(&self.chunk("artifact", job, offset(), &request.payload)),
            "finish" => json(&self.finish(job, read(&request.payload))?),
            other => panic!("{other}"),
        })
    }
}

/// The scheduler's side of the bus.
#[derive(Clone)]
pub(crate) struct Bus {
    client: async_nats::Client,
    worker: String,
}

#[expect(clippy::disallowed_methods, reason = "the test plays the other side by hand")]
impl Bus {
    async fn api(&self, verb: &str, body: &str) {
        let answer = self
            .client
            .request(format!("$JS.API.{verb}"), body.to_owned().into())
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&answer.payload).into_owned();
        assert!(!text.contains("\"error\""), "{verb}: {text}");
    }

    async fn publish(&self, subject: &str, bytes: Vec<u8>) {
        self.client
            .publish(subject.to_owned(), bytes.into())
            .await
            .unwrap();
    }

    /// Stores an assignment for the worker.
    pub(crate) async fn assign(&self, job: &Assignment) {
        let subject = subject::job("default", &self.worker);
        let stored = self.client.request(subject, json(job).into()).await.unwrap();
        assert!(
            !stored.payload.windows(7).any(|part| part == b"\"error\""),
            "{stored:?}"
        );
    }

    /// Tells the worker to stop a job before its next sign of life would.
    pub(crate) async fn cancel(&self, job: &str) {
        let reply = BeatReply {
            cancel: vec![job.to_owned()],
            ..BeatReply::default()
        };
        self.publish(&subject::control(&self.worker), json(&reply)).await;
    }
}

fn json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> T {
    serde_json::from_slice(bytes).unwrap()
}

/// Refuses strangers, and everybody while it is down.
fn gate(scheduler: &Scheduler, headers: &HeaderMap) -> Result<(), StatusCode> {
    let bearer = format!("Bearer {TOKEN}");
    let known = headers
        .get(header::AUTHORIZATION)
        .is_some_and(|value| *value == *bearer);
    if !known || !headers.contains_key(WORKER_HEADER) || scheduler.with(|book| book.unpaired) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    if scheduler.with(|book| book.down) {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    Ok(())
}

async fn beat(State(scheduler): State<Scheduler>, headers: HeaderMap, body: Bytes) -> Response {
    match gate(&scheduler, &headers) {
        Err(refused) => refused.into_response(),
        Ok(()) => json(&scheduler.beat(read(&body))).into_response(),
    }
}

async fn claim(State(scheduler): State<Scheduler>, headers: HeaderMap) -> Response {
    if let Err(refused) = gate(&scheduler, &headers) {
        return refused.into_response();
    }
    let mut changes = scheduler.changes.subscribe();
    for _ in 0..40 {
        if let Some(job) = scheduler.with(|book| book.queue.pop_front()) {
            return json(&job).into_response();
        }
        let _quiet = tokio::time::timeout(Duration::from_millis(50), changes.changed()).await;
    }
    StatusCode::NO_CONTENT.into_response()
}

async fn verb(
    State(scheduler): State<Scheduler>,
    Path((job, verb)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(refused) = gate(&scheduler, &headers) {
        return refused.into_response();
    }
    if verb == "status" {
        let report: StatusReport = read(&body);
        return match scheduler.finish(&job, report.outcome.unwrap()) {
            Some(ack) => json(&ack).into_response(),
            None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        };
    }
    let offset = headers
        .get(OFFSET_HEADER)
        .unwrap()
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    json(&scheduler.chunk(&verb, &job, offset, &body)).into_response()
}
