//! A small scheduler: it keeps jobs and bytes, and answers as the real one does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use nimbus_bus::{Bus, Identity, Incoming, Method, Serving};
use nimbus_errors::{Code, Fault};
use nimbus_gpu_wire::{Assignment, BeatReply, ChunkAck, FinishAck};
use nimbus_model::{JobId, MachineId, UserId};
use nimbus_proto::auth::Secret;
use nimbus_proto::event::GpuJobChanged;
use nimbus_proto::gpu::{self, Artifact, Chunk, Endpoint, Job, JobState, Pairing, Unpaired, UsageRecord};
use tokio::sync::watch;

use crate::world::World;

/// The pairing token that is good.
pub(crate) const PAIRING: &str = "00ff00ff";
/// The worker's token that is good.
pub(crate) const WORKER: &str = "0a0b0c";

#[derive(Default)]
pub(crate) struct State {
    jobs: HashMap<JobId, Job>,
    logs: HashMap<JobId, Vec<u8>>,
    artifacts: HashMap<JobId, Vec<u8>>,
    pub(crate) submitted: Vec<gpu::SubmitRequest>,
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) endpoint_asked: u32,
    pub(crate) usage: Vec<UsageRecord>,
    pub(crate) chunks: Vec<gpu::ChunkRequest>,
    pub(crate) finished: Vec<gpu::WorkerFinishRequest>,
    pub(crate) claimable: Option<Assignment>,
    pub(crate) registered: Vec<nimbus_gpu_wire::Registration>,
}

/// Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Plane(Arc<watch::Sender<State>>);

impl Plane {
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut given = None;
        self.0.send_modify(|state| given = Some(change(state)));
        given.unwrap()
    }

    pub(crate) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.0.borrow())
    }

    /// Waits until it is so.
    pub(crate) async fn until(&self, what: impl FnMut(&State) -> bool) {
        crate::world::within(self.0.subscribe().wait_for(what))
            .await
            .unwrap();
    }

    /// A running job of this user.
    pub(crate) fn own(
        &self,
        owner: UserId,
        machine: Option<MachineId>,
        change: impl FnOnce(&mut Job),
    ) -> JobId {
        let mut job = gpu::GetJob::sample_reply();
        job.id = JobId::fresh();
        (job.owner, job.machine, job.artifact) = (owner, machine, None);
        change(&mut job);
        let id = job.id;
        self.change(|state| state.jobs.insert(id, job));
        id
    }

    pub(crate) fn print(&self, job: JobId, bytes: &[u8]) {
        self.change(|state| state.logs.entry(job).or_default().extend_from_slice(bytes));
    }

    pub(crate) fn leave(&self, id: JobId, bytes: &[u8]) {
        self.change(|state| {
            state.artifacts.insert(id, bytes.to_vec());
            state.jobs.get_mut(&id).unwrap().artifact = Some(Artifact {
                bytes: u64::try_from(bytes.len()).unwrap(),
                sha256: "aa".into(),
            });
        });
    }

    /// Changes a job, and says so as the scheduler does.
    pub(crate) async fn tell(&self, bus: &Bus, id: JobId, change: impl FnOnce(&mut Job)) {
        let job = self.change(|state| {
            let job = state.jobs.get_mut(&id).unwrap();
            change(job);
            job.clone()
        });
        World::publish(bus, "gpu-scheduler", &GpuJobChanged { job }).await;
    }

    fn job_of(&self, identity: &Identity, id: JobId) -> Result<Job, Fault> {
        let is_theirs = |job: &Job| {
            (identity.admin || job.owner == identity.user)
                && (identity.machine.is_none() || identity.machine == job.machine)
        };
        self.look(|state| state.jobs.get(&id).filter(|job| is_theirs(job)).cloned())
            .ok_or_else(|| Fault::new(Code::OpNotFound, format!("there is no job {id}")))
    }

    fn worker<M: Method>(credential: &gpu::WorkerCredential, _: &Incoming<M>) -> Result<(), Fault> {
        if credential.token.reveal() == WORKER {
            return Ok(());
        }
        Err(Fault::new(Code::GpuWorkerUnknown, "invalid worker token"))
    }

    async fn read(
        &self,
        id: JobId,
        offset: u64,
        limit: u32,
        wait_ms: u32,
        log: bool,
    ) -> Result<Chunk, Fault> {
        let from = usize::try_from(offset).unwrap();
        let held = |state: &State| {
            let held = if log { &state.logs } else { &state.artifacts };
            (
                held.get(&id).cloned().unwrap_or_default(),
                state.jobs[&id].state.is_final(),
            )
        };
        let mut changes = self.0.subscribe();
        let something = changes.wait_for(|state| {
            let (bytes, is_over) = held(state);
            bytes.len() > from || is_over
        });
        let _ = tokio::time::timeout(Duration::from_millis(wait_ms.into()), something).await;
        let (bytes, is_over) = self.look(held);
        if from > bytes.len() {
            return Err(Fault::new(Code::OpInvalidInput, "beyond the end"));
        }
        let until = bytes.len().min(from + usize::try_from(limit).unwrap());
        Ok(Chunk {
            offset,
            bytes: bytes[from..until].to_vec(),
            end: u64::try_from(bytes.len()).unwrap(),
            complete: is_over && until == bytes.len(),
            truncated: false,
        })
    }

    pub(crate) async fn serve(&self, bus: &Bus) -> Serving {
        macro_rules! serve {
            ($first:expr, $($method:ident($plane:ident, $call:ident) $body:expr;)*) => {{
                let serving = $first;
                $(let plane = self.clone();
                let serving = serving.method::<gpu::$method, _, _>(move |$call| {
                    let $plane = plane.clone();
                    async move { $body }
                });)*
                serving
            }};
        }
        serve!(bus.serve("gpu", "1.0.0", "GPU jobs"),
            Submit(plane, call) {
                let identity = call.user()?.clone();
                if call.request.image == "quota" {
                    return Err(Fault::new(Code::GpuQuotaExceeded, "5 jobs are queued or running"));
                }
                let request = call.request;
                plane.change(|state| state.submitted.push(request.clone()));
                let machine = identity.machine.or(request.machine);
                let id = plane.own(identity.user, machine, |job| {
                    job.state = JobState::Queued;
                    job.phase = None;
                    (job.image, job.command, job.env) = (request.image, request.command, request.env);
                });
                plane.job_of(&identity, id)
            };
            ListJobs(plane, call) {
                let identity = call.user()?.clone();
                let ids: Vec<JobId> = plane.look(|state| state.jobs.keys().copied().collect());
                let jobs = ids.into_iter().filter_map(|id| plane.job_of(&identity, id).ok());
                let jobs = jobs.filter(|job| call.request.state.is_none_or(|state| state == job.state));
                Ok(gpu::JobPage { jobs: jobs.collect(), next: call.request.after })
            };
            GetJob(plane, call) plane.job_of(call.user()?, call.request);
            CancelJob(plane, call) {
                let mut job = plane.job_of(call.user()?, call.request)?;
                if job.state.is_final() {
                    return Err(Fault::new(Code::GpuJobTerminal, "the job has ended"));
                }
                job.state = JobState::Cancelled;
                plane.change(|state| state.jobs.insert(job.id, job.clone()));
                Ok(job)
            };
            Prioritize(plane, call) {
                let mut job = plane.job_of(call.user()?, call.request.job)?;
                job.priority = call.request.priority;
                Ok(job)
            };
            ReadLog(plane, call) {
                let request = call.request;
                plane.job_of(call.user()?, request.job)?;
                plane.read(request.job, request.offset, request.limit, request.wait_ms, true).await
            };
            ReadArtifact(plane, call) {
                let request = call.request;
                plane.job_of(call.user()?, request.job)?;
                plane.read(request.job, request.offset, request.limit.min(1000), 0, false).await
            };
            ListWorkers(_plane, _call) Ok(gpu::ListWorkers::sample_reply());
            SetWorker(_plane, call) {
                let mut worker = gpu::SetWorker::sample_reply();
                worker.name = call.request.worker;
                worker.standing = call.request.standing.unwrap_or(worker.standing);
                Ok(worker)
            };
            GetSettings(_plane, _call) Ok(gpu::GetSettings::sample_reply());
            PutSettings(plane, call) {
                let request = call.request;
                plane.change(|state| {
                    state.endpoint = Some(Endpoint {
                        base_url: request.base_url.clone(),
                        api_key: request.api_key,
                        model: request.inference_model,
                    });
                });
                Ok(gpu::Settings { base_url: request.base_url, ..gpu::GetSettings::sample_reply() })
            };
            CreatePairing(_plane, call) Ok(Pairing {
                token: Secret::new(call.request.worker.map_or(PAIRING.to_owned(), |worker| format!("{PAIRING}{worker}"))),
                expires_in_s: 300,
            });
            Unpair(_plane, call) Ok(Unpaired { cancelled_jobs: 2, workers: call.request.into_iter().collect() });
            CheckPairing(_plane, call) if call.request.reveal() == PAIRING { Ok(()) } else {
                Err(Fault::new(Code::GpuPairingInvalid, "the pairing token is not valid"))
            };
            Register(plane, call) {
                if call.request.pairing_token != PAIRING {
                    return Err(Fault::new(Code::GpuPairingInvalid, "the pairing token is not valid"));
                }
                plane.change(|state| state.registered.push(call.request));
                Ok(gpu::Register::sample_reply())
            };
            WorkerBeat(_plane, call) {
                Self::worker(&call.request.credential, &call)?;
                Ok(BeatReply { cancel: vec!["job_x".into()], drain: false, beat_ms: 500, pool: "default".into() })
            };
            WorkerClaim(plane, call) {
                Self::worker(&call.request.credential, &call)?;
                Ok(plane.look(|state| state.claimable.clone()))
            };
            WorkerLog(plane, call) {
                Self::worker(&call.request.credential, &call)?;
                let end = call.request.offset.unwrap_or(0) + u64::try_from(call.request.bytes.len()).unwrap();
                plane.change(|state| state.chunks.push(call.request));
                Ok(ChunkAck { end, capped: false })
            };
            WorkerArtifact(plane, call) {
                Self::worker(&call.request.credential, &call)?;
                plane.change(|state| state.chunks.push(call.request));
                Ok(ChunkAck { end: 1, capped: false })
            };
            WorkerFinish(plane, call) {
                Self::worker(&call.request.credential, &call)?;
                plane.change(|state| state.finished.push(call.request));
                Ok(FinishAck { counted: true })
            };
            GetInference(_plane, _call) Ok(gpu::GetInference::sample_reply());
            GetEndpoint(plane, _call) Ok(plane.change(|state| {
                state.endpoint_asked += 1;
                state.endpoint.clone()
            }));
            RecordUsage(plane, call) {
                plane.change(|state| state.usage.extend(call.request));
                Ok(())
            };
            GetUsage(_plane, _call) Ok(gpu::GetUsage::sample_reply());
        )
        .start()
        .await
        .unwrap()
    }
}
