//! Rows as they are stored, and the statements that several capabilities share.
//!
//! Whoever locks both locks the worker first, then the job: on PostgreSQL two transactions in another
//! order would wait for each other.

use nimbus_gpu_wire::{Beat, Command, Dataset, EnvVar, Limits, Phase};
use nimbus_model::{Hostname, JobId, MachineId, Timestamp, UserId};
use nimbus_proto::gpu::{Artifact, Job, JobState, Standing, Worker, WorkerState};
use nimbus_store::{Sealer, Store, StoreError, Tx, both, execute, reading, sqlx};
use serde::de::DeserializeOwned;

use crate::error::GpuError;

macro_rules! job_columns {
    () => {
        "id, seq, owner, machine, state, pool, priority, image, command, env, datasets, time_s, memory_bytes, log_cap, artifact_cap, \
         rerun, attempt, worker, held, missed, stored, phase, phase_note, exit_code, code, error, log_base, log_end, log_bytes, \
         log_truncated, artifact_end, artifact_bytes, artifact_sha256, artifact_note, queued_at, started_at, finished_at"
    };
}
pub(crate) use job_columns;

macro_rules! worker_columns {
    () => {
        "name, pool, state, standing, address, model, base_url, link, trouble, beats, last_beat, last_beat_at, job, attempt, paired_at, bus_name"
    };
}
pub(crate) use worker_columns;

/// A job.
#[derive(Clone, Debug, sqlx_macros::FromRow)]
pub(crate) struct JobRow {
    pub id: JobId,
    pub seq: i64,
    pub owner: UserId,
    pub machine: Option<MachineId>,
    pub state: String,
    pub pool: String,
    pub priority: i64,
    pub image: String,
    pub command: String,
    pub env: String,
    pub datasets: String,
    pub time_s: i64,
    pub memory_bytes: Option<i64>,
    pub log_cap: i64,
    pub artifact_cap: i64,
    pub rerun: i64,
    pub attempt: i64,
    pub worker: Option<String>,
    pub held: i64,
    pub missed: i64,
    pub stored: Option<i64>,
    pub phase: Option<String>,
    pub phase_note: Option<String>,
    pub exit_code: Option<i64>,
    pub code: Option<String>,
    pub error: Option<String>,
    pub log_base: i64,
    pub log_end: i64,
    pub log_bytes: i64,
    pub log_truncated: i64,
    pub artifact_end: i64,
    pub artifact_bytes: Option<i64>,
    pub artifact_sha256: Option<String>,
    pub artifact_note: Option<String>,
    pub queued_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

/// A number that is never negative in its table.
pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A number of ours as tables have it.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn json<T: DeserializeOwned>(text: &str) -> Result<T, GpuError> {
    serde_json::from_str(text).map_err(GpuError::damaged)
}

pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Result<String, GpuError> {
    serde_json::to_string(value).map_err(GpuError::damaged)
}

/// What the sealed environment of a job belongs to.
pub(crate) fn env_of(job: JobId) -> String {
    format!("gpu_job/{job}/env")
}

/// The word that a phase is stored as.
pub(crate) const fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Assigned => "assigned",
        Phase::Pulling => "pulling",
        Phase::Running => "running",
        Phase::Ending => "ending",
    }
}

fn phase_of(word: &str) -> Option<Phase> {
    [Phase::Assigned, Phase::Pulling, Phase::Running, Phase::Ending]
        .into_iter()
        .find(|phase| phase_word(*phase) == word)
}

impl JobRow {
    pub(crate) fn state(&self) -> Result<JobState, GpuError> {
        self.state.parse().map_err(GpuError::damaged)
    }

    /// Whether this worker has this attempt of it now.
    pub(crate) fn runs_on(&self, worker: &str, attempt: i64) -> bool {
        self.state == "running" && self.attempt == attempt && self.worker.as_deref() == Some(worker)
    }

    pub(crate) fn command(&self) -> Result<Command, GpuError> {
        json(&self.command)
    }

    pub(crate) fn datasets(&self) -> Result<Vec<Dataset>, GpuError> {
        json(&self.datasets)
    }

    pub(crate) fn env(&self, sealer: &Sealer) -> Result<Vec<EnvVar>, GpuError> {
        let text = sealer.open(&self.env, &env_of(self.id))?;
        serde_json::from_slice(&text).map_err(GpuError::damaged)
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            time_s: unsigned(self.time_s),
            memory_bytes: self.memory_bytes.map(unsigned),
            // What earlier attempts have printed counts: the log is of the job, not of the attempt.
            log_bytes: unsigned(self.log_cap - self.log_base),
            artifact_bytes: unsigned(self.artifact_cap),
        }
    }

    /// How it is shown; its environment only where there is a sealer to open it.
    pub(crate) fn view(&self, sealer: Option<&Sealer>, ahead: u64) -> Result<Job, GpuError> {
        let state = self.state()?;
        let env = sealer
            .map(|sealer| self.env(sealer))
            .transpose()?
            .unwrap_or_default();
        let artifact = self
            .artifact_bytes
            .zip(self.artifact_sha256.clone())
            .map(|(bytes, sha256)| Artifact {
                bytes: unsigned(bytes),
                sha256,
            });
        Ok(Job {
            id: self.id,
            owner: self.owner,
            machine: self.machine,
            state,
            pool: self.pool.clone(),
            image: self.image.clone(),
            command: self.command()?,
            env,
            datasets: self.datasets()?,
            limits: Limits {
                log_bytes: unsigned(self.log_cap),
                ..self.limits()
            },
            priority: i32::try_from(self.priority).unwrap_or(0),
            rerun: self.rerun != 0,
            attempt: u32::try_from(self.attempt).unwrap_or(0),
            worker: self.worker.as_deref().and_then(|name| name.parse().ok()),
            phase: self
                .phase
                .as_deref()
                .filter(|_| state == JobState::Running)
                .and_then(phase_of),
            phase_note: self.phase_note.clone().filter(|_| state == JobState::Running),
            ahead: if state == JobState::Queued { ahead } else { 0 },
            exit_code: self.exit_code.and_then(|code| i32::try_from(code).ok()),
            code: self.code.clone(),
            error: self.error.clone(),
            log_end: unsigned(self.log_end),
            log_bytes: unsigned(self.log_bytes.max(self.log_end)),
            log_truncated: self.log_truncated != 0,
            artifact,
            artifact_note: self.artifact_note.clone(),
            queued_at: self.queued_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
        })
    }
}

const FIND_JOB: &str = concat!("SELECT ", job_columns!(), " FROM gpu_job WHERE id = $1");

/// A job, to be changed in this transaction.
pub(crate) async fn lock_job(tx: &mut Tx, job: JobId) -> Result<Option<JobRow>, StoreError> {
    let sql = locking(tx, FIND_JOB);
    both!(tx, |c| sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(job)
        .fetch_optional(c)
        .await)
}

pub(crate) async fn read_job(store: &Store, job: JobId) -> Result<Option<JobRow>, StoreError> {
    reading!(store, |c| sqlx::query_as(FIND_JOB)
        .bind(job)
        .fetch_optional(c)
        .await)
}

/// The statement with what locks the rows it finds.
pub(crate) fn locking(tx: &Tx, sql: &str) -> String {
    match tx.engine() {
        nimbus_store::Engine::Sqlite => sql.to_owned(),
        nimbus_store::Engine::Postgres => format!("{sql} FOR UPDATE"),
    }
}

/// A box.
#[derive(Clone, Debug, sqlx_macros::FromRow)]
pub(crate) struct WorkerRow {
    pub name: String,
    pub pool: String,
    pub state: String,
    pub standing: String,
    pub address: String,
    pub model: String,
    pub base_url: String,
    pub link: String,
    pub trouble: i64,
    pub beats: i64,
    pub last_beat: Option<String>,
    pub last_beat_at: Option<Timestamp>,
    pub job: Option<JobId>,
    pub attempt: Option<i64>,
    pub paired_at: Timestamp,
    /// What the bus calls it since it was paired last.
    pub bus_name: String,
}

impl WorkerRow {
    pub(crate) fn name(&self) -> Result<Hostname, GpuError> {
        self.name.parse().map_err(GpuError::damaged)
    }

    pub(crate) fn state(&self) -> Result<WorkerState, GpuError> {
        self.state.parse().map_err(GpuError::damaged)
    }

    pub(crate) fn standing(&self) -> Result<Standing, GpuError> {
        self.standing.parse().map_err(GpuError::damaged)
    }

    /// The job and attempt that occupy it.
    pub(crate) fn slot(&self) -> Option<(JobId, i64)> {
        self.job.zip(self.attempt)
    }

    pub(crate) fn view(&self) -> Result<Worker, GpuError> {
        Ok(Worker {
            name: self.name()?,
            pool: self.pool.clone(),
            state: self.state()?,
            standing: self.standing()?,
            job: self.job,
            address: self.address.clone(),
            model: self.model.clone(),
            base_url: self.base_url.clone(),
            // One that this version cannot read is shown as none; it is replaced within seconds.
            last_beat: self
                .last_beat
                .as_deref()
                .and_then(|text| serde_json::from_str::<Beat>(text).ok()),
            last_beat_at: self.last_beat_at,
            paired_at: self.paired_at,
        })
    }
}

const FIND_WORKER: &str = concat!("SELECT ", worker_columns!(), " FROM gpu_worker WHERE name = $1");

/// A box, to be changed in this transaction.
pub(crate) async fn lock_worker(tx: &mut Tx, worker: &str) -> Result<Option<WorkerRow>, StoreError> {
    let sql = locking(tx, FIND_WORKER);
    both!(tx, |c| sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(worker)
        .fetch_optional(c)
        .await)
}

pub(crate) async fn read_worker(store: &Store, worker: &str) -> Result<Option<WorkerRow>, StoreError> {
    reading!(store, |c| sqlx::query_as(FIND_WORKER)
        .bind(worker)
        .fetch_optional(c)
        .await)
}

const BY_BUS_NAME: &str = "SELECT name FROM gpu_worker WHERE bus_name = $1";

/// The box that the bus calls so, if any does any more.
pub(crate) async fn find_by_bus_name(store: &Store, bus_name: &str) -> Result<Option<String>, StoreError> {
    reading!(store, |c| sqlx::query_scalar(BY_BUS_NAME)
        .bind(bus_name)
        .fetch_optional(c)
        .await)
}

const BUS_NAME: &str = "SELECT bus_name FROM gpu_worker WHERE name = $1";

/// What the bus calls a box.
pub(crate) async fn bus_name(tx: &mut Tx, worker: &str) -> Result<Option<String>, StoreError> {
    both!(tx, |c| sqlx::query_scalar(BUS_NAME)
        .bind(worker)
        .fetch_optional(c)
        .await)
}

const ALL_WORKERS: &str = concat!("SELECT ", worker_columns!(), " FROM gpu_worker ORDER BY name");

pub(crate) async fn read_workers(store: &Store) -> Result<Vec<WorkerRow>, StoreError> {
    reading!(store, |c| sqlx::query_as(ALL_WORKERS).fetch_all(c).await)
}

pub(crate) async fn lock_workers(tx: &mut Tx) -> Result<Vec<WorkerRow>, StoreError> {
    let sql = locking(tx, ALL_WORKERS);
    both!(tx, |c| sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .fetch_all(c)
        .await)
}

const FREE: &str = "UPDATE gpu_worker SET job = NULL, attempt = NULL,
        standing = CASE WHEN standing = 'draining' THEN 'paused' ELSE standing END
    WHERE name = $1";

/// The box is known to hold nothing. One that drains is paused by that.
pub(crate) async fn free_worker(tx: &mut Tx, worker: &mut WorkerRow) -> Result<(), StoreError> {
    execute!(tx, sqlx::query(FREE).bind(&worker.name))?;
    (worker.job, worker.attempt) = (None, None);
    if worker.standing == "draining" {
        worker.standing = "paused".into();
    }
    Ok(())
}

const COUNT: &str = "UPDATE gpu_counter SET value = value + 1 WHERE name = $1 RETURNING value";

/// The next number. Others that take one wait until this transaction has ended.
pub(crate) async fn next(tx: &mut Tx, counter: &'static str) -> Result<i64, StoreError> {
    both!(tx, |c| sqlx::query_scalar(COUNT).bind(counter).fetch_one(c).await)
}
