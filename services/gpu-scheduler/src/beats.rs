//! Signs of life. A beat says what the box holds; the answer says what of that it is to drop.
//!
//! What a box holds and what the tables say are brought together here:
//!
//! | tables | box | |
//! |---|---|---|
//! | the job runs there | holds it | all is well |
//! | the job runs there | not yet | after five beats the assignment is stored again |
//! | the job runs there | held it, and twice not | it is lost: the box was made anew |
//! | the job has ended or runs elsewhere | holds it | it is told to cancel it, until it holds it no more |
//! | the job has ended | does not hold it | the box is free |

use nimbus_gpu_wire::{Beat, BeatReply, HeldJob, Phase};
use nimbus_model::Timestamp;
use nimbus_store::{Tx, execute, sqlx};

use crate::assign::job_id;
use crate::error::GpuError;
use crate::plane::{After, Plane};
use crate::rows::{JobRow, WorkerRow, free_worker, lock_job, lock_worker, phase_word, to_json};

/// Beats without a job that was never seen, until its assignment is stored again: 10 s.
const FORGOTTEN: i64 = 5;
/// Beats without a job that was seen, until it is lost. One could be an older beat that came late.
const VANISHED: i64 = 2;
/// Longest note that is kept.
const NOTE: usize = 256;

/// The path that a beat came over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Nats,
    Http,
}

impl Link {
    const fn word(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::Http => "http",
        }
    }
}

/// What a beat led to.
struct Heard {
    row: WorkerRow,
    /// What the box is to drop.
    cancel: Vec<String>,
    /// Whether a job lies ready that it has not fetched.
    waits: bool,
    after: After,
}

impl Plane {
    pub(crate) async fn beat(&self, worker: &str, mut beat: Beat, link: Link) -> Result<BeatReply, GpuError> {
        beat.link = link.word().to_owned();
        let (plane, name) = (self.clone(), worker.to_owned());
        let Heard {
            row,
            cancel,
            waits,
            after,
        } = self
            .store
            .write(move |tx| Box::pin(async move { plane.beat_in(tx, &name, beat, link).await }))
            .await?;
        self.follow_up(after);
        let idle = row.job.is_none() && row.standing == "active" && row.trouble == 0;
        if idle {
            self.assign(&row.pool).await;
        }
        Ok(BeatReply {
            cancel,
            // What it was given before it was paused it still has to fetch.
            drain: row.standing != "active" && !waits,
            beat_ms: 0,
            pool: row.pool,
        })
    }

    async fn beat_in(&self, tx: &mut Tx, name: &str, beat: Beat, link: Link) -> Result<Heard, GpuError> {
        const BEAT: &str = "UPDATE gpu_worker SET state = 'online', link = $2, trouble = $3, beats = beats + 1, last_beat = $4,
                last_beat_at = $5
            WHERE name = $1";
        let mut worker = lock_worker(tx, name).await?.ok_or(GpuError::UnknownWorker)?;
        let before = worker.clone();
        let at = self.clock.now();
        worker.state = "online".into();
        worker.link = link.word().into();
        worker.trouble = i64::from(beat.trouble.is_some());
        worker.last_beat = Some(to_json(&beat)?);
        worker.last_beat_at = Some(at);
        execute!(
            tx,
            sqlx::query(BEAT)
                .bind(name)
                .bind(&worker.link)
                .bind(worker.trouble)
                .bind(&worker.last_beat)
                .bind(at)
        )?;
        let mut after = After::default();
        let mut waits = false;
        if let Some((job, attempt)) = worker.slot() {
            let held = beat
                .held
                .iter()
                .find(|held| job_id(&held.job) == Some(job) && i64::from(held.attempt) == attempt);
            let row = lock_job(tx, job).await?;
            match (row, held) {
                (Some(row), Some(held)) if row.runs_on(name, attempt) => {
                    self.holds(tx, row, held, at, &mut after).await?;
                }
                // It holds what it is to hold no more; see below.
                (_, Some(_)) => {}
                (Some(row), None) if row.runs_on(name, attempt) => {
                    waits = row.held == 0;
                    if self.misses(tx, row, &worker, &mut after).await? {
                        free_worker(tx, &mut worker).await?;
                    }
                }
                (_, None) => free_worker(tx, &mut worker).await?,
            }
        } else if worker.standing == "draining" {
            free_worker(tx, &mut worker).await?;
        }
        let cancel = unwanted(tx, name, &beat.held).await?;
        let seen = |row: &WorkerRow| {
            (
                row.state.clone(),
                row.standing.clone(),
                row.trouble,
                row.job,
                row.link.clone(),
            )
        };
        if seen(&before) != seen(&worker) {
            self.tell_worker(tx, &worker).await?;
        }
        Ok(Heard {
            row: worker,
            cancel,
            waits,
            after,
        })
    }

    /// The box holds the job that it was given.
    async fn holds(
        &self,
        tx: &mut Tx,
        mut job: JobRow,
        held: &HeldJob,
        at: Timestamp,
        after: &mut After,
    ) -> Result<(), GpuError> {
        const HELD: &str = "UPDATE gpu_job SET held = 1, missed = 0, phase = $2, phase_note = $3, started_at = $4 WHERE id = $1";
        let phase = phase_word(held.phase);
        let note = held
            .note
            .as_ref()
            .map(|note| note.chars().take(NOTE).collect::<String>());
        let started = matches!(held.phase, Phase::Running | Phase::Ending);
        let started_at = job.started_at.or(Some(at).filter(|_| started));
        if let Some(place) = job.stored {
            // It lies on the box' disk now. Should the box not have acknowledged it, it would get it again.
            after.unstore.push((job.id, place));
        }
        let told =
            job.phase.as_deref() == Some(phase) && job.phase_note == note && job.started_at == started_at;
        if told && job.held == 1 && job.missed == 0 {
            return Ok(());
        }
        execute!(
            tx,
            sqlx::query(HELD)
                .bind(job.id)
                .bind(phase)
                .bind(&note)
                .bind(started_at)
        )?;
        if !told {
            job.phase = Some(phase.into());
            job.phase_note = note;
            job.started_at = started_at;
            after.jobs.push(job.id);
            self.tell_job(tx, &job).await?;
        }
        Ok(())
    }

    /// The box does not hold the job that it was given; whether it is free by that.
    async fn misses(
        &self,
        tx: &mut Tx,
        job: JobRow,
        worker: &WorkerRow,
        after: &mut After,
    ) -> Result<bool, GpuError> {
        const MISSED: &str = "UPDATE gpu_job SET missed = $2 WHERE id = $1";
        let missed = job.missed + 1;
        if job.held == 1 && missed >= VANISHED {
            self.lose(tx, job, "the box came back without the job", after)
                .await?;
            return Ok(true);
        }
        execute!(tx, sqlx::query(MISSED).bind(job.id).bind(missed))?;
        if job.held == 0 && missed % FORGOTTEN == 0 {
            if worker.link == "nats" {
                after
                    .publish
                    .push((worker.name.clone(), worker.pool.clone(), self.assignment(&job)?));
            } else {
                after.workers.push(worker.name.clone());
            }
        }
        Ok(false)
    }
}

/// What a box holds and is to drop.
async fn unwanted(tx: &mut Tx, worker: &str, held: &[HeldJob]) -> Result<Vec<String>, GpuError> {
    let mut unwanted = Vec::new();
    for one in held {
        let row = match job_id(&one.job) {
            Some(job) => lock_job(tx, job).await?,
            None => None,
        };
        if !row.is_some_and(|row| row.runs_on(worker, i64::from(one.attempt))) {
            unwanted.push(one.job.clone());
        }
    }
    Ok(unwanted)
}
