//! `gpu-scheduler`: the queue of GPU jobs, the boxes that run them, and the inference endpoint.

mod job;
mod plane;
mod worker;

use nimbus_gpu_wire::{
    Beat, BeatReply, ChunkAck, FinishAck, Outcome, OutcomeState, Phase, Registered, Registration,
};
use nimbus_model::{Hostname, JobId};

pub use job::{
    Artifact, Chunk, Job, JobPage, JobState, ListJobsRequest, PrioritizeRequest, ReadArtifactRequest,
    ReadLogRequest, SubmitRequest,
};
pub use plane::{
    Endpoint, Figures, Inference, InferenceStatus, Injection, Pairing, PairingRequest, PutSettingsRequest,
    Settings, Unpaired, Usage, UsageRecord, UsageRequest,
};
pub use worker::{
    ChunkRequest, ClaimRequest, SetWorkerRequest, Standing, Worker, WorkerBeatRequest, WorkerCredential,
    WorkerFinishRequest, WorkerState,
};

use crate::auth::Secret;
use crate::{method, sample};

fn box_name() -> Hostname {
    "gx10".parse().expect("a DNS label")
}

fn job() -> Job {
    Job {
        id: sample::job(),
        owner: sample::user(),
        machine: Some(sample::machine()),
        state: JobState::Running,
        pool: "default".into(),
        image: "docker.io/library/python:3.13".into(),
        command: nimbus_gpu_wire::Command::Argv(vec!["python".into(), "train.py".into()]),
        env: vec![nimbus_gpu_wire::EnvVar {
            name: "EPOCHS".into(),
            value: "3".into(),
        }],
        datasets: vec![],
        limits: limits(),
        priority: 0,
        rerun: false,
        attempt: 1,
        worker: Some(box_name()),
        phase: Some(Phase::Running),
        phase_note: None,
        ahead: 0,
        exit_code: None,
        code: None,
        error: None,
        log_end: 120,
        log_bytes: 120,
        log_truncated: false,
        artifact: Some(Artifact {
            bytes: 4096,
            sha256: "00ff".into(),
        }),
        artifact_note: None,
        queued_at: sample::at(),
        started_at: Some(sample::at()),
        finished_at: None,
    }
}

const fn limits() -> nimbus_gpu_wire::Limits {
    nimbus_gpu_wire::Limits {
        time_s: 86_400,
        memory_bytes: None,
        log_bytes: 16 << 20,
        artifact_bytes: 256 << 20,
    }
}

fn beat() -> Beat {
    Beat {
        protocol: nimbus_gpu_wire::PROTOCOL,
        version: "0.1.0".into(),
        boot: "b1".into(),
        link: "nats".into(),
        held: vec![nimbus_gpu_wire::HeldJob {
            job: sample::job().to_string(),
            attempt: 1,
            phase: Phase::Running,
            started_at: Some(1),
            note: None,
        }],
        trouble: None,
        gpus: vec![nimbus_gpu_wire::Gpu {
            name: "NVIDIA GB10".into(),
            memory_bytes: 0,
            driver: "580.95".into(),
            usage: Some(nimbus_gpu_wire::DeviceUse {
                busy_percent: 97.0,
                memory_used_bytes: 1 << 30,
                temperature_c: Some(61.0),
                power_w: None,
            }),
        }],
        arch: "aarch64".into(),
        cpus: 20,
        memory_bytes: 128 << 30,
        disk_free_bytes: 1 << 40,
    }
}

fn worker() -> Worker {
    Worker {
        name: box_name(),
        pool: "default".into(),
        state: WorkerState::Online,
        standing: Standing::Active,
        job: Some(sample::job()),
        address: "10.0.0.9".into(),
        model: "microsoft/Phi-3-mini-4k-instruct".into(),
        base_url: "http://10.0.0.9:8000".into(),
        last_beat: Some(beat()),
        last_beat_at: Some(sample::at()),
        paired_at: sample::at(),
    }
}

fn settings() -> Settings {
    Settings {
        enabled: true,
        base_url: "http://10.0.0.9:8000".into(),
        inference_model: "microsoft/Phi-3-mini-4k-instruct".into(),
        configured: true,
        job_quota: 5,
        workers: vec![box_name()],
    }
}

fn outcome() -> Outcome {
    Outcome {
        attempt: 1,
        state: OutcomeState::Succeeded,
        exit_code: 0,
        code: None,
        error: None,
        log_bytes: 120,
        artifact_bytes: Some(4096),
        artifact_sha256: Some("00ff".into()),
        artifact_note: None,
        started_at: Some(1),
        finished_at: Some(2),
    }
}

fn chunk() -> Chunk {
    Chunk {
        offset: 0,
        bytes: b"epoch 1\n".to_vec(),
        end: 120,
        complete: false,
        truncated: false,
    }
}

fn credential() -> WorkerCredential {
    WorkerCredential {
        worker: "gx10".into(),
        token: Secret::new("00ff"),
    }
}

// Jobs, for people and for the machines of theirs.

method!(/// Puts a job at the end of the queue. A machine's caller has its machine recorded.
    Submit = gpu.submit, 5000 ms, SameKey, User, SubmitRequest => Job,
    samples SubmitRequest { image: "docker.io/library/python:3.13".into(), command: nimbus_gpu_wire::Command::Shell("python train.py".into()), env: vec![], pool: None,
        machine: None, datasets: vec![nimbus_gpu_wire::Dataset { name: "mnist".into(), writable: false }], time_s: Some(3600), memory_bytes: None, priority: 0, rerun: false } => job());
method!(/// The caller's jobs, or everybody's for an administrator: queued first, then the newest.
    ListJobs = gpu.list_jobs, 5000 ms, Read, User, ListJobsRequest => JobPage,
    samples ListJobsRequest { state: Some(JobState::Queued), limit: 50, after: Some("c1".into()) } => JobPage { jobs: vec![job()], next: None });
method!(/// One job.
    GetJob = gpu.get_job, 3000 ms, Read, User, JobId => Job, samples sample::job() => job());
method!(/// Cancels a job that has not ended; its container is gone within seconds.
    CancelJob = gpu.cancel_job, 5000 ms, SameKey, User, JobId => Job, samples sample::job() => job());
method!(/// Changes the place of a queued job.
    Prioritize = gpu.prioritize, 5000 ms, SameKey, Admin, PrioritizeRequest => Job,
    samples PrioritizeRequest { job: sample::job(), priority: 10 } => job());
method!(/// Bytes of a job's log; waits for them if asked to.
    ReadLog = gpu.read_log, 35000 ms, Read, User, ReadLogRequest => Chunk,
    samples ReadLogRequest { job: sample::job(), offset: 0, limit: 65536, wait_ms: 20000 } => chunk());
method!(/// Bytes of what a job left.
    ReadArtifact = gpu.read_artifact, 10000 ms, Read, User, ReadArtifactRequest => Chunk,
    samples ReadArtifactRequest { job: sample::job(), offset: 0, limit: 1 << 20 } => chunk());

// The boxes.

method!(/// The boxes that run jobs.
    ListWorkers = gpu.list_workers, 3000 ms, Read, User, () => Vec<Worker>, samples () => vec![worker()]);
method!(/// Pauses, drains or resumes a box, or moves it to another pool.
    SetWorker = gpu.set_worker, 5000 ms, SameKey, Admin, SetWorkerRequest => Worker,
    samples SetWorkerRequest { worker: box_name(), standing: Some(Standing::Paused), pool: None } => worker());
method!(/// How GPUs are set up.
    GetSettings = gpu.get_settings, 3000 ms, Read, Admin, () => Settings, samples () => settings());
method!(/// Changes that.
    PutSettings = gpu.put_settings, 5000 ms, SameKey, Admin, PutSettingsRequest => Settings,
    samples PutSettingsRequest { enabled: true, base_url: "http://10.0.0.9:8000".into(), inference_model: "m".into(), api_key: Some(Secret::new("00ff")), job_quota: Some(5) } => settings());
method!(/// A new pairing token; the one before is good no more.
    CreatePairing = gpu.create_pairing, 5000 ms, Never, Admin, PairingRequest => Pairing,
    samples PairingRequest { worker: None } => Pairing { token: Secret::new("00ff"), expires_in_s: 300 });
method!(/// Forgets one box, or all, and cancels what they run; without any box left also what is queued.
    Unpair = gpu.unpair, 10000 ms, SameKey, Admin, Option<Hostname> => Unpaired,
    samples Some(box_name()) => Unpaired { cancelled_jobs: 2, workers: vec![box_name()] });
method!(/// Whether this pairing token is good now, for the installer's script.
    CheckPairing = gpu.check_pairing, 3000 ms, Read, Service, Secret => (), samples Secret::new("00ff") => ());
method!(/// Makes a box a worker, in exchange for a pairing token.
    Register = gpu.register, 10000 ms, Never, Service, Registration => Registered,
    samples Registration { pairing_token: "00ff".into(), hostname: "gx10".into(), ip: "10.0.0.9".into(), model: "m".into(), port: 8000 }
        => Registered { worker_id: "gx10".into(), worker_token: "00ff".into(), base_url: "http://10.0.0.9:8000".into(), inference_api_key: "00ff".into(), bus: None });

// What boxes say over HTTP, brought here by the gateway.

method!(/// A sign of life.
    WorkerBeat = gpu.worker_beat, 5000 ms, SameKey, Service, WorkerBeatRequest => BeatReply,
    samples WorkerBeatRequest { credential: credential(), beat: beat() } => BeatReply { cancel: vec![sample::job().to_string()], drain: false, beat_ms: 0, pool: "default".into() });
// Asked twice at once, the second would take the first one's job for one that its box has given up.
method!(/// The next job, if there is one within the time the worker waits. Asked again, it is the same job until its worker beats without it.
    WorkerClaim = gpu.worker_claim, 25000 ms, Never, Service, ClaimRequest => Option<nimbus_gpu_wire::Assignment>,
    samples ClaimRequest { credential: credential(), wait_ms: 20000 }
        => Some(nimbus_gpu_wire::Assignment { protocol: nimbus_gpu_wire::PROTOCOL, job: sample::job().to_string(), attempt: 1, image: "i".into(), command: nimbus_gpu_wire::Command::Image, env: vec![], datasets: vec![], limits: limits() }));
// Old workers name no offset, and a piece that came twice would be there twice.
method!(/// A piece of a log.
    WorkerLog = gpu.worker_log, 5000 ms, Never, Service, ChunkRequest => ChunkAck,
    samples ChunkRequest { credential: credential(), job: sample::job().to_string(), offset: Some(0), bytes: vec![1, 2] } => ChunkAck { end: 2, capped: false });
method!(/// A piece of an artifact.
    WorkerArtifact = gpu.worker_artifact, 5000 ms, SameKey, Service, ChunkRequest => ChunkAck,
    samples ChunkRequest { credential: credential(), job: sample::job().to_string(), offset: Some(0), bytes: vec![1, 2] } => ChunkAck { end: 2, capped: false });
method!(/// The end of a job.
    WorkerFinish = gpu.worker_finish, 5000 ms, SameKey, Service, WorkerFinishRequest => FinishAck,
    samples WorkerFinishRequest { credential: credential(), job: sample::job().to_string(), outcome: outcome() } => FinishAck { counted: true });

// Inference.

method!(/// Whether there is an inference endpoint, and what it serves.
    GetInference = gpu.get_inference, 5000 ms, Read, User, () => Inference,
    samples () => Inference { enabled: true, status: InferenceStatus::Up, model: Some("m".into()), models: vec!["m".into()], checked_at: Some(sample::at()) });
method!(/// Where to pass requests on to; for the gateway.
    GetEndpoint = gpu.get_endpoint, 3000 ms, Read, Service, () => Option<Endpoint>,
    samples () => Some(Endpoint { base_url: "http://10.0.0.9:8000".into(), api_key: Some(Secret::new("00ff")), model: "m".into() }));
method!(/// Adds to what people have used; each record once.
    RecordUsage = gpu.record_usage, 5000 ms, SameKey, Service, Vec<UsageRecord> => (),
    samples vec![UsageRecord { id: "u1".into(), user: sample::user(), machine: None, model: "m".into(), requests: 1, prompt_tokens: 10, completion_tokens: 20, estimated: false, at: sample::at() }] => ());
method!(/// What was used, by day, user and model: the caller's own, or everybody's for an administrator who asks.
    GetUsage = gpu.get_usage, 5000 ms, Read, User, UsageRequest => Vec<Usage>,
    samples UsageRequest { days: 30, everybody: false }
        => vec![Usage { day: "2026-06-10".into(), user: sample::user(), model: "m".into(), requests: 1, prompt_tokens: 10, completion_tokens: 20, estimated: false }]);
method!(/// How many boxes and jobs there are; for the gateway's figures.
    Count = gpu.count, 3000 ms, Read, Service, () => Figures,
    samples () => Figures { boxes: vec![(WorkerState::Online, 1)], queued: 3, running: 1 });
method!(/// What a machine is told about GPUs when it is made; none when no box is paired.
    GetInjection = gpu.get_injection, 3000 ms, Read, Service, () => Option<Injection>,
    samples () => Some(Injection { model: Some("m".into()) }));
