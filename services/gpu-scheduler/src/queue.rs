//! Jobs as people see them: submit, look, cancel, put in front.
//!
//! ```text
//!  queued ──assigned──▶ running ──reported──▶ succeeded | failed
//!    │ ▲                  │ │
//!    │ └──lost, rerun─────┘ └──lost──▶ failed
//!    └──────cancelled──────┴──▶ cancelled
//! ```

mod validate;

use nimbus_bus::{Identity, Scope};
use nimbus_model::{JobId, Timestamp};
use nimbus_proto::gpu::{Job, JobPage, JobState, ListJobsRequest, PrioritizeRequest, SubmitRequest};
use nimbus_store::{StoreError, Tx, both, execute, reading, sqlx};
use sha2::{Digest, Sha256};

use crate::error::GpuError;
use crate::plane::{After, Plane};
use crate::rows::{JobRow, bus_name, env_of, job_columns, lock_job, next, read_job, signed, to_json};

pub(crate) use self::validate::is_label;

/// The pool of jobs that name none.
pub(crate) const DEFAULT_POOL: &str = "default";
/// The most jobs of one page.
const PAGE: u32 = 200;
/// The answer to a submit counts no further, so that it takes as long in a long queue as in a short one.
const FAR: i64 = 1000;

/// What somebody may see.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Viewer<'i> {
    identity: &'i Identity,
}

impl<'i> Viewer<'i> {
    pub(crate) const fn new(identity: &'i Identity) -> Self {
        Self { identity }
    }

    /// Whether they see everybody's jobs. The token in a machine never does, whoever owns the machine.
    pub(crate) fn is_admin(self) -> bool {
        self.identity.machine.is_none() && self.identity.may(Scope::Admin)
    }

    fn sees(self, job: &JobRow) -> bool {
        self.is_admin()
            || (job.owner == self.identity.user
                && (self.identity.machine.is_none() || self.identity.machine == job.machine))
    }
}

const BY_KEY: &str = concat!("SELECT ", job_columns!(), " FROM gpu_job WHERE dedupe = $1");
const READY: &str = "SELECT s.enabled, s.job_quota,
        (SELECT COUNT(*) FROM gpu_worker), (SELECT COUNT(*) FROM gpu_worker WHERE pool = $1)
    FROM gpu_settings s WHERE s.id = 1";
const ACTIVE: &str = "SELECT COUNT(*) FROM gpu_job WHERE owner = $1 AND state IN ('queued', 'running')";
const INSERT: &str = "INSERT INTO gpu_job (id, seq, owner, machine, dedupe, state, pool, priority, image, command, env, datasets,
        time_s, memory_bytes, log_cap, artifact_cap, rerun, queued_at)
    VALUES ($1, $2, $3, $4, $5, 'queued', $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)";

/// How many go before a job. Their order is that of the index.
pub(crate) const AHEAD: &str = "SELECT COUNT(*) FROM (SELECT 1 AS one FROM gpu_job
    WHERE state = 'queued' AND pool = $1 AND (priority > $2 OR (priority = $2 AND seq < $3)) LIMIT $4) AS jobs";

/// A checked job that is not in the queue yet.
struct Wanted {
    dedupe: Option<String>,
    admin: bool,
    row: JobRow,
}

impl Plane {
    /// Puts a job at the end of the queue, and gives it to a box at once if one is idle. The same key
    /// of the same person is the same job.
    pub(crate) async fn submit(
        &self,
        identity: &Identity,
        key: Option<&str>,
        request: SubmitRequest,
    ) -> Result<Job, GpuError> {
        let admin = Viewer::new(identity).is_admin();
        let wanted = Wanted {
            dedupe: key.map(|key| dedupe(identity, key)),
            admin,
            row: self.check(identity, admin, request)?,
        };
        let pool = wanted.row.pool.clone();
        let plane = self.clone();
        let (row, made) = self
            .store
            .write(move |tx| Box::pin(async move { plane.submit_in(tx, wanted).await }))
            .await?;
        if made {
            self.follow_up(After::default());
            self.assign(&pool).await;
        }
        let row = read_job(&self.store, row.id)
            .await?
            .ok_or_else(|| GpuError::no_job(row.id))?;
        let ahead = self.ahead(&row, FAR).await?;
        row.view(Some(&self.sealer), ahead)
    }

    async fn submit_in(&self, tx: &mut Tx, wanted: Wanted) -> Result<(JobRow, bool), GpuError> {
        let Wanted {
            dedupe,
            admin,
            mut row,
        } = wanted;
        // First: whoever submits too waits here, so that the count below is not overtaken.
        row.seq = next(tx, "seq").await?;
        if let Some(dedupe) = &dedupe {
            let found: Option<JobRow> = both!(tx, |c| sqlx::query_as(BY_KEY)
                .bind(dedupe)
                .fetch_optional(c)
                .await)?;
            if let Some(found) = found {
                return Ok((found, false));
            }
        }
        let (enabled, quota, workers, in_pool): (i64, i64, i64, i64) =
            both!(tx, |c| sqlx::query_as(READY).bind(&row.pool).fetch_one(c).await)?;
        if workers == 0 {
            return Err(GpuError::NotConfigured {
                reason: "no GPU box is paired",
            });
        }
        if enabled == 0 {
            return Err(GpuError::NotConfigured {
                reason: "GPUs are turned off",
            });
        }
        if in_pool == 0 {
            return Err(GpuError::invalid(
                "pool",
                format!("no GPU box is in the pool {}", row.pool),
            ));
        }
        if !admin {
            let active: i64 = both!(tx, |c| sqlx::query_scalar(ACTIVE)
                .bind(row.owner)
                .fetch_one(c)
                .await)?;
            if active >= quota {
                return Err(GpuError::Quota { active, quota });
            }
        }
        execute!(
            tx,
            sqlx::query(INSERT)
                .bind(row.id)
                .bind(row.seq)
                .bind(row.owner)
                .bind(row.machine)
                .bind(dedupe)
                .bind(&row.pool)
                .bind(row.priority)
                .bind(&row.image)
                .bind(&row.command)
                .bind(&row.env)
                .bind(&row.datasets)
                .bind(row.time_s)
                .bind(row.memory_bytes)
                .bind(row.log_cap)
                .bind(row.artifact_cap)
                .bind(row.rerun)
                .bind(row.queued_at)
        )?;
        self.tell_job(tx, &row).await?;
        Ok((row, true))
    }

    /// The row of a request, or what is wrong with it.
    fn check(&self, identity: &Identity, admin: bool, request: SubmitRequest) -> Result<JobRow, GpuError> {
        let request = validate::validate(request, admin)?;
        let id = JobId::fresh();
        let env = serde_json::to_vec(&request.env).map_err(GpuError::damaged)?;
        Ok(JobRow {
            id,
            seq: 0,
            owner: identity.user,
            machine: identity.machine.or(request.machine),
            state: "queued".into(),
            pool: request.pool.unwrap_or_else(|| DEFAULT_POOL.to_owned()),
            priority: i64::from(request.priority),
            image: request.image,
            command: to_json(&request.command)?,
            env: self.sealer.seal(&env, &env_of(id))?,
            datasets: to_json(&request.datasets)?,
            time_s: signed(request.time_s.unwrap_or(self.config.time_limit.as_secs()).max(1)),
            memory_bytes: request.memory_bytes.map(signed),
            log_cap: signed(self.config.log_limit),
            artifact_cap: signed(self.config.artifact_limit),
            rerun: i64::from(request.rerun),
            attempt: 0,
            worker: None,
            held: 0,
            missed: 0,
            stored: None,
            phase: None,
            phase_note: None,
            exit_code: None,
            code: None,
            error: None,
            log_base: 0,
            log_end: 0,
            log_bytes: 0,
            log_truncated: 0,
            artifact_end: 0,
            artifact_bytes: None,
            artifact_sha256: None,
            artifact_note: None,
            queued_at: self.clock.now(),
            started_at: None,
            finished_at: None,
        })
    }

    /// A job that the viewer may see.
    pub(crate) async fn visible(&self, viewer: Viewer<'_>, job: JobId) -> Result<JobRow, GpuError> {
        read_job(&self.store, job)
            .await?
            .filter(|row| viewer.sees(row))
            .ok_or_else(|| GpuError::no_job(job))
    }

    pub(crate) async fn get(&self, viewer: Viewer<'_>, job: JobId) -> Result<Job, GpuError> {
        let row = self.visible(viewer, job).await?;
        self.with_place(&row).await
    }

    async fn shown(&self, job: JobId) -> Result<Job, GpuError> {
        let row = read_job(&self.store, job)
            .await?
            .ok_or_else(|| GpuError::no_job(job))?;
        self.with_place(&row).await
    }

    async fn with_place(&self, row: &JobRow) -> Result<Job, GpuError> {
        let ahead = self.ahead(row, i64::MAX).await?;
        row.view(Some(&self.sealer), ahead)
    }

    /// How many go before a job, counted up to `most`.
    async fn ahead(&self, row: &JobRow, most: i64) -> Result<u64, GpuError> {
        if row.state != "queued" {
            return Ok(0);
        }
        let ahead: i64 = reading!(&self.store, |c| sqlx::query_scalar(AHEAD)
            .bind(&row.pool)
            .bind(row.priority)
            .bind(row.seq)
            .bind(most)
            .fetch_one(c)
            .await)?;
        Ok(crate::rows::unsigned(ahead))
    }

    /// Cancels a job. A box that has it is told at once, and with every beat until it has it no more.
    pub(crate) async fn cancel(&self, viewer: Viewer<'_>, job: JobId) -> Result<Job, GpuError> {
        self.visible(viewer, job).await?;
        let plane = self.clone();
        let after = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    let row = lock_job(tx, job).await?.ok_or_else(|| GpuError::no_job(job))?;
                    let mut after = After::default();
                    plane.cancel_in(tx, row, None, &mut after).await?;
                    Ok::<_, GpuError>(after)
                })
            })
            .await?;
        self.follow_up(after);
        self.shown(job).await
    }

    /// Cancels a job in a transaction.
    pub(crate) async fn cancel_in(
        &self,
        tx: &mut Tx,
        mut row: JobRow,
        why: Option<&str>,
        after: &mut After,
    ) -> Result<(), GpuError> {
        const CANCEL: &str = "UPDATE gpu_job SET state = 'cancelled', error = $2, finished_at = $3, phase = NULL, phase_note = NULL
            WHERE id = $1";
        let state = row.state()?;
        if state.is_final() {
            return Err(GpuError::Terminal { job: row.id, state });
        }
        let at = self.clock.now();
        execute!(tx, sqlx::query(CANCEL).bind(row.id).bind(why).bind(at))?;
        if let (JobState::Running, Some(worker)) = (state, &row.worker) {
            if let Some(bus_name) = bus_name(tx, worker).await? {
                after.cancel.push((bus_name, row.id));
            }
            if let Some(place) = row.stored {
                after.unstore.push((row.id, place));
            }
        }
        row.state = JobState::Cancelled.to_string();
        row.finished_at = Some(at);
        row.error = why.map(str::to_owned);
        after.jobs.push(row.id);
        self.tell_job(tx, &row).await
    }

    /// Moves a queued job before or behind others.
    pub(crate) async fn prioritize(
        &self,
        viewer: Viewer<'_>,
        request: PrioritizeRequest,
    ) -> Result<Job, GpuError> {
        const SET: &str = "UPDATE gpu_job SET priority = $2 WHERE id = $1";
        validate::priority(request.priority, viewer.is_admin())?;
        let plane = self.clone();
        self.store
            .write(move |tx| {
                Box::pin(async move {
                    let mut row = lock_job(tx, request.job)
                        .await?
                        .ok_or_else(|| GpuError::no_job(request.job))?;
                    if row.state()? != JobState::Queued {
                        return Err(GpuError::NotQueued { job: row.id });
                    }
                    row.priority = i64::from(request.priority);
                    execute!(tx, sqlx::query(SET).bind(row.id).bind(row.priority))?;
                    plane.tell_job(tx, &row).await
                })
            })
            .await?;
        self.follow_up(After::default());
        self.shown(request.job).await
    }

    /// A page of jobs: those that wait, in the order in which they go, then the others, newest first.
    pub(crate) async fn list(
        &self,
        viewer: Viewer<'_>,
        request: &ListJobsRequest,
    ) -> Result<JobPage, GpuError> {
        let limit = request.limit.clamp(1, PAGE);
        let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
        let place = request
            .after
            .as_deref()
            .map(|text| {
                Place::parse(text).ok_or_else(|| GpuError::invalid("after", "not a place that a page gave"))
            })
            .transpose()?
            .unwrap_or(Place::Queued {
                priority: i64::MAX,
                seq: -1,
            });
        let mut rows = Vec::new();
        let mut rest = i64::MAX;
        if let Place::Queued { priority, seq } = place {
            if request.state.is_none_or(|state| state == JobState::Queued) {
                rows = self.queued(viewer, priority, seq, i64::from(limit) + 1).await?;
            }
        } else if let Place::Others { seq } = place {
            rest = seq;
        }
        if rows.len() <= wanted && request.state.is_none_or(|state| state != JobState::Queued) {
            let more = i64::from(limit) + 1 - i64::try_from(rows.len()).unwrap_or(0);
            rows.extend(self.others(viewer, request.state, rest, more).await?);
        }
        let more = rows.len() > wanted;
        rows.truncate(wanted);
        let next = rows.last().filter(|_| more).map(|last| {
            if last.state == "queued" {
                Place::Queued {
                    priority: last.priority,
                    seq: last.seq,
                }
                .text()
            } else {
                Place::Others { seq: last.seq }.text()
            }
        });
        let mut jobs = Vec::with_capacity(rows.len());
        let mut before: Option<Job> = None;
        for row in &rows {
            // Where one sees every job, the next one of the same pool has one more ahead.
            let job = match &before {
                Some(last) if row.state == "queued" && viewer.is_admin() && last.pool == row.pool => {
                    row.view(Some(&self.sealer), last.ahead + 1)?
                }
                _ => self.with_place(row).await?,
            };
            before = Some(job.clone()).filter(|job| job.state == JobState::Queued);
            jobs.push(job);
        }
        Ok(JobPage { jobs, next })
    }

    async fn queued(
        &self,
        viewer: Viewer<'_>,
        priority: i64,
        seq: i64,
        limit: i64,
    ) -> Result<Vec<JobRow>, StoreError> {
        const SQL: &str = concat!(
            "SELECT ",
            job_columns!(),
            " FROM gpu_job WHERE state = 'queued' AND (priority < $1 OR (priority = $1 AND seq > $2))
                AND ($3 = 1 OR (owner = $4 AND ($5 = '' OR machine = $5)))
              ORDER BY priority DESC, seq LIMIT $6"
        );
        let (all, machine) = scope(viewer);
        reading!(&self.store, |c| sqlx::query_as(SQL)
            .bind(priority)
            .bind(seq)
            .bind(all)
            .bind(viewer.identity.user)
            .bind(machine)
            .bind(limit)
            .fetch_all(c)
            .await)
    }

    async fn others(
        &self,
        viewer: Viewer<'_>,
        state: Option<JobState>,
        before: i64,
        limit: i64,
    ) -> Result<Vec<JobRow>, StoreError> {
        const SQL: &str = concat!(
            "SELECT ",
            job_columns!(),
            " FROM gpu_job WHERE state <> 'queued' AND seq < $1
                AND ($2 = 1 OR (owner = $3 AND ($4 = '' OR machine = $4))) AND ($5 = '' OR state = $5)
              ORDER BY seq DESC LIMIT $6"
        );
        let (all, machine) = scope(viewer);
        let state = state.map(|state| state.to_string()).unwrap_or_default();
        reading!(&self.store, |c| sqlx::query_as(SQL)
            .bind(before)
            .bind(all)
            .bind(viewer.identity.user)
            .bind(machine)
            .bind(state)
            .bind(limit)
            .fetch_all(c)
            .await)
    }
}

/// What a list is limited to: 1 for everybody's, and the machine or nothing.
fn scope(viewer: Viewer<'_>) -> (i64, String) {
    let machine = viewer.identity.machine.map(|machine| machine.to_string());
    (i64::from(viewer.is_admin()), machine.unwrap_or_default())
}

/// Names the request of a person without storing what they chose as a key.
fn dedupe(identity: &Identity, key: &str) -> String {
    let machine = identity.machine.map(|machine| machine.to_string());
    let digest = Sha256::new()
        .chain_update(identity.user.to_string())
        .chain_update(machine.unwrap_or_default())
        .chain_update([0])
        .chain_update(key)
        .finalize();
    hex::encode(digest)
}

/// Where a page ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Queued { priority: i64, seq: i64 },
    Others { seq: i64 },
}

impl Place {
    fn text(self) -> String {
        match self {
            Self::Queued { priority, seq } => format!("q{priority}.{seq}"),
            Self::Others { seq } => format!("o{seq}"),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix('q') {
            let (priority, seq) = rest.split_once('.')?;
            return Some(Self::Queued {
                priority: priority.parse().ok()?,
                seq: seq.parse().ok()?,
            });
        }
        let seq = text.strip_prefix('o')?.parse().ok()?;
        Some(Self::Others { seq })
    }
}

/// Of a box' report, when by this server's clock the job began: boxes' clocks may be anywhere, so only
/// the span between their two times is used.
pub(crate) fn began(now: Timestamp, started: Option<i64>, finished: Option<i64>) -> Option<Timestamp> {
    let (started, finished) = (started?, finished?);
    let span = u64::try_from(finished.saturating_sub(started)).unwrap_or(0);
    Some(now.before(std::time::Duration::from_micros(span)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_survive_their_text_and_nonsense_does_not() {
        for place in [
            Place::Queued {
                priority: -100,
                seq: 7,
            },
            Place::Others { seq: 12 },
        ] {
            assert_eq!(Place::parse(&place.text()), Some(place));
        }
        for bad in ["", "q", "q1", "o", "ox", "x1"] {
            assert_eq!(Place::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_job_began_by_our_clock_however_wrong_the_boxes_is() {
        let now = Timestamp::from_micros(1_000_000_000);
        assert_eq!(
            began(now, Some(5), Some(2_000_005)),
            Some(Timestamp::from_micros(998_000_000))
        );
        assert_eq!(began(now, Some(9), Some(5)), Some(now));
        assert_eq!(began(now, None, Some(5)), None);
    }
}
