//! A GPU box that follows a script, on the bus or over HTTP as the gateway brings it.

use std::time::Duration;

use async_nats::{StatusCode, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use nimbus_bus::Bus;
use nimbus_errors::Fault;
use nimbus_gpu_wire::{
    Assignment, Beat, BeatReply, ChunkAck, FinishAck, HeldJob, OFFSET_HEADER, Outcome, OutcomeState,
    PROTOCOL, Phase, subject,
};
use nimbus_model::JobId;
use nimbus_proto::auth::Secret;
use nimbus_proto::gpu::{
    ChunkRequest, ClaimRequest, WorkerArtifact, WorkerBeat, WorkerBeatRequest, WorkerClaim, WorkerCredential,
    WorkerFinish, WorkerFinishRequest, WorkerLog,
};
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use crate::world::within;

const LIMIT: Duration = Duration::from_secs(20);

enum Link {
    Nats {
        bus: Bus,
        inbox: String,
        pulled: Mutex<Subscriber>,
        control: Mutex<Subscriber>,
    },
    Http {
        gateway: Bus,
        token: String,
    },
}

/// The box.
pub(crate) struct Gx {
    pub(crate) name: String,
    /// What the bus calls it; empty over HTTP.
    bus_name: String,
    link: Link,
}

fn read<T: DeserializeOwned>(body: &Bytes) -> T {
    serde_json::from_slice(body).unwrap()
}

pub(crate) fn held(job: &Assignment, phase: Phase) -> HeldJob {
    HeldJob {
        job: job.job.clone(),
        attempt: job.attempt,
        phase,
        started_at: None,
        note: None,
    }
}

pub(crate) fn id(job: &Assignment) -> JobId {
    job.job.parse().unwrap()
}

pub(crate) fn outcome(job: &Assignment, exit_code: i32) -> Outcome {
    Outcome {
        attempt: job.attempt,
        state: if exit_code == 0 {
            OutcomeState::Succeeded
        } else {
            OutcomeState::Failed
        },
        exit_code,
        code: None,
        error: None,
        log_bytes: 0,
        artifact_bytes: None,
        artifact_sha256: None,
        artifact_note: None,
        started_at: None,
        finished_at: None,
    }
}

pub(crate) fn sign(held: &[HeldJob]) -> Beat {
    Beat {
        protocol: PROTOCOL,
        version: "0.1.0".into(),
        boot: "b1".into(),
        link: String::new(),
        held: held.to_vec(),
        trouble: None,
        gpus: vec![],
        arch: "aarch64".into(),
        cpus: 20,
        memory_bytes: 1 << 37,
        disk_free_bytes: 1 << 40,
    }
}

impl Gx {
    pub(crate) async fn on_the_bus(bus: Bus, name: &str, bus_name: &str) -> Self {
        let inbox = bus.client().new_inbox();
        let pulled = bus.client().subscribe(inbox.clone()).await.unwrap();
        let control = bus.hear(&subject::control(bus_name)).await.unwrap();
        Self {
            name: name.to_owned(),
            bus_name: bus_name.to_owned(),
            link: Link::Nats {
                bus,
                inbox,
                pulled: Mutex::new(pulled),
                control: Mutex::new(control),
            },
        }
    }

    pub(crate) fn over_http(gateway: Bus, name: &str, token: &str) -> Self {
        Self {
            name: name.to_owned(),
            bus_name: String::new(),
            link: Link::Http {
                gateway,
                token: token.to_owned(),
            },
        }
    }

    fn credential(&self, token: &str) -> WorkerCredential {
        WorkerCredential {
            worker: self.name.clone(),
            token: Secret::new(token),
        }
    }

    pub(crate) async fn beat(&self, held: &[HeldJob]) -> Result<BeatReply, Fault> {
        self.beat_with(sign(held)).await
    }

    pub(crate) async fn beat_with(&self, beat: Beat) -> Result<BeatReply, Fault> {
        match &self.link {
            Link::Nats { bus, .. } => {
                let body = Bytes::from(serde_json::to_vec(&beat).unwrap());
                let answer = bus
                    .ask_peer(&subject::beat(&self.bus_name), &[], body, LIMIT)
                    .await?;
                Ok(read(&answer))
            }
            Link::Http { gateway, token } => {
                let credential = self.credential(token);
                let request = WorkerBeatRequest { credential, beat };
                gateway.call::<WorkerBeat>(&request).await
            }
        }
    }

    /// The next assignment, if one comes within the time; on the bus it is acknowledged.
    pub(crate) async fn next(&self, wait: Duration) -> Option<Assignment> {
        match &self.link {
            Link::Nats {
                bus, inbox, pulled, ..
            } => {
                let mut pulled = pulled.lock().await;
                let request = format!(r#"{{"batch":1,"expires":{}}}"#, wait.as_nanos());
                bus.client()
                    .publish_with_reply(
                        subject::next_job(&self.bus_name),
                        inbox.clone(),
                        Bytes::from(request),
                    )
                    .await
                    .unwrap();
                let message = within(pulled.next()).await.unwrap();
                match message.status {
                    None => {}
                    Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND | StatusCode::NO_RESPONDERS) => {
                        return None;
                    }
                    // The consumer was removed while we waited.
                    Some(other) => panic!("pulling answered {other} {:?}", message.description),
                }
                let reply = message.reply.clone().unwrap();
                bus.ask_peer(&reply, &[], Bytes::from_static(b"+ACK"), LIMIT)
                    .await
                    .unwrap();
                Some(read(&message.payload))
            }
            Link::Http { gateway, token } => {
                let request = ClaimRequest {
                    credential: self.credential(token),
                    wait_ms: u32::try_from(wait.as_millis()).unwrap(),
                };
                gateway.call::<WorkerClaim>(&request).await.unwrap()
            }
        }
    }

    /// The next assignment, which must come.
    pub(crate) async fn take(&self) -> Assignment {
        within(async {
            loop {
                if let Some(job) = self.next(Duration::from_secs(5)).await {
                    return job;
                }
            }
        })
        .await
    }

    /// The next assignment, told that it is held and runs.
    pub(crate) async fn run(&self) -> Assignment {
        let job = self.take().await;
        let reply = self.beat(&[held(&job, Phase::Running)]).await.unwrap();
        assert!(reply.cancel.is_empty(), "{reply:?}");
        job
    }

    /// What it is told between beats.
    pub(crate) async fn told(&self) -> BeatReply {
        let Link::Nats { control, .. } = &self.link else {
            panic!("over HTTP nothing is told between beats");
        };
        let message = within(control.lock().await.next()).await.unwrap();
        read(&message.payload)
    }

    pub(crate) async fn log(&self, job: &str, offset: Option<u64>, bytes: &[u8]) -> Result<ChunkAck, Fault> {
        self.chunk(job, offset, bytes, false).await
    }

    pub(crate) async fn artifact(&self, job: &str, offset: u64, bytes: &[u8]) -> Result<ChunkAck, Fault> {
        self.chunk(job, Some(offset), bytes, true).await
    }

    async fn chunk(
        &self,
        job: &str,
        offset: Option<u64>,
        bytes: &[u8],
        artifact: bool,
    ) -> Result<ChunkAck, Fault> {
        match &self.link {
            Link::Nats { bus, .. } => {
                let to = if artifact {
                    subject::artifact(&self.bus_name, job)
                } else {
                    subject::log(&self.bus_name, job)
                };
                let offset = offset.map(|offset| offset.to_string());
                let headers: Vec<_> = offset
                    .as_deref()
                    .map(|offset| (OFFSET_HEADER, offset))
                    .into_iter()
                    .collect();
                let answer = bus
                    .ask_peer(&to, &headers, Bytes::copy_from_slice(bytes), LIMIT)
                    .await?;
                Ok(read(&answer))
            }
            Link::Http { gateway, token } => {
                let request = ChunkRequest {
                    credential: self.credential(token),
                    job: job.to_owned(),
                    offset,
                    bytes: bytes.to_vec(),
                };
                if artifact {
                    gateway.call::<WorkerArtifact>(&request).await
                } else {
                    gateway.call::<WorkerLog>(&request).await
                }
            }
        }
    }

    pub(crate) async fn finish(&self, job: &Assignment, exit_code: i32) -> Result<FinishAck, Fault> {
        self.finish_with(&job.job, outcome(job, exit_code)).await
    }

    pub(crate) async fn finish_with(&self, job: &str, outcome: Outcome) -> Result<FinishAck, Fault> {
        match &self.link {
            Link::Nats { bus, .. } => {
                let body = Bytes::from(serde_json::to_vec(&outcome).unwrap());
                let to = subject::finish(&self.bus_name, job);
                Ok(read(&bus.ask_peer(&to, &[], body, LIMIT).await?))
            }
            Link::Http { gateway, token } => {
                let request = WorkerFinishRequest {
                    credential: self.credential(token),
                    job: job.to_owned(),
                    outcome,
                };
                gateway.call::<WorkerFinish>(&request).await
            }
        }
    }
}
