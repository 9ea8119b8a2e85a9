//! Bytes of logs and artifacts, in the order they were printed, each once.
//!
//! A box numbers them from zero and sends what follows the end it was told. What arrives is kept if it
//! touches that end: a part that is there already is cut, a piece beyond a gap is not taken. Either way
//! the answer is the end as it is now. A repeated or late piece therefore changes nothing.

use std::time::Duration;

use bytes::Bytes;
use nimbus_gpu_wire::ChunkAck;
use nimbus_model::JobId;
use nimbus_proto::gpu::{Chunk, JobState, ReadArtifactRequest, ReadLogRequest};
use nimbus_store::{StoreError, Tx, both, execute, reading, sqlx};
use tokio::time::{Instant, timeout_at};

use crate::assign::job_id;
use crate::error::GpuError;
use crate::plane::{After, Plane};
use crate::queue::Viewer;
use crate::rows::{JobRow, lock_job, lock_worker, signed, unsigned};

/// The most bytes read at once.
const READ: u32 = 1 << 20;
/// The longest a read may wait.
const LONGEST: Duration = Duration::from_secs(30);
/// How often a waiting read looks by itself, should nobody wake it.
const LOOK: Duration = Duration::from_secs(2);

/// What the bytes are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Log,
    Artifact,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Artifact => "artifact",
        }
    }
}

/// What to do with a piece.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fit {
    /// Bytes of it to leave out, and to keep after that.
    skip: usize,
    keep: usize,
    /// Whether the cap is reached.
    capped: bool,
    /// Whether some of it did not fit under the cap.
    cut: bool,
}

/// Where a piece of `length` at `offset` goes when `end` bytes are there and `room` more are allowed.
fn fit(end: u64, room: u64, offset: Option<u64>, length: usize) -> Fit {
    let offset = offset.unwrap_or(end);
    let length_64 = u64::try_from(length).unwrap_or(u64::MAX);
    let new = offset.saturating_add(length_64).saturating_sub(end);
    if offset > end || new == 0 {
        return Fit {
            skip: 0,
            keep: 0,
            capped: room == 0,
            cut: false,
        };
    }
    let skip = usize::try_from(end - offset).unwrap_or(length);
    let kept = new.min(room);
    Fit {
        skip,
        keep: usize::try_from(kept).unwrap_or(0),
        capped: kept == room,
        cut: kept < new,
    }
}

impl Plane {
    /// Keeps a piece that a box has sent.
    pub(crate) async fn store_chunk(
        &self,
        worker: &str,
        job: &str,
        kind: Kind,
        offset: Option<u64>,
        bytes: Bytes,
    ) -> Result<ChunkAck, GpuError> {
        // A job that is none, has ended or went elsewhere: taken and thrown away, so that the box goes on.
        let ignored = ChunkAck {
            end: offset
                .unwrap_or(0)
                .saturating_add(u64::try_from(bytes.len()).unwrap_or(0)),
            capped: true,
        };
        let Some(id) = job_id(job) else {
            return Ok(ignored);
        };
        let (plane, name) = (self.clone(), worker.to_owned());
        let (ack, after) = self
            .store
            .write(move |tx| {
                Box::pin(async move { plane.store_in(tx, &name, id, kind, offset, &bytes).await })
            })
            .await?;
        if !after.jobs.is_empty() {
            self.follow_up(after);
        }
        Ok(ack.unwrap_or(ignored))
    }

    async fn store_in(
        &self,
        tx: &mut Tx,
        name: &str,
        job: JobId,
        kind: Kind,
        offset: Option<u64>,
        bytes: &[u8],
    ) -> Result<(Option<ChunkAck>, After), GpuError> {
        const INSERT: &str = "INSERT INTO gpu_chunk (job, kind, start, bytes) VALUES ($1, $2, $3, $4)";
        const LOG: &str = "UPDATE gpu_job SET log_end = $2, log_bytes = CASE WHEN log_bytes < $2 THEN $2 ELSE log_bytes END,
                log_truncated = $3, held = 1
            WHERE id = $1";
        const ARTIFACT: &str = "UPDATE gpu_job SET artifact_end = $2, held = 1 WHERE id = $1";
        let mut after = After::default();
        self.hear_talk(tx, name).await?;
        let row = lock_job(tx, job)
            .await?
            .filter(|row| row.worker.as_deref() == Some(name) && row.state == "running");
        let Some(row) = row else {
            return Ok((None, after));
        };
        let (base, end, cap) = match kind {
            Kind::Log => (row.log_base, row.log_end, row.log_cap),
            Kind::Artifact => (0, row.artifact_end, row.artifact_cap),
        };
        let fit = fit(unsigned(end - base), unsigned(cap - end), offset, bytes.len());
        let piece = bytes
            .get(fit.skip..fit.skip.saturating_add(fit.keep))
            .unwrap_or_default();
        let new = end.saturating_add(signed(u64::try_from(piece.len()).unwrap_or(0)));
        if !piece.is_empty() {
            execute!(
                tx,
                sqlx::query(INSERT)
                    .bind(job)
                    .bind(kind.word())
                    .bind(end)
                    .bind(piece)
            )?;
        }
        let truncated = row.log_truncated.max(i64::from(fit.cut));
        if new != end || row.held == 0 || (kind == Kind::Log && truncated != row.log_truncated) {
            match kind {
                Kind::Log => execute!(tx, sqlx::query(LOG).bind(job).bind(new).bind(truncated))?,
                Kind::Artifact => execute!(tx, sqlx::query(ARTIFACT).bind(job).bind(new))?,
            };
            after.jobs.push(job);
        }
        let ack = ChunkAck {
            end: unsigned(new - base),
            capped: fit.capped,
        };
        Ok((Some(ack), after))
    }

    /// A box that is no longer paired must hear so, whatever it talks about. For one that does not beat,
    /// talking is a sign of life.
    async fn hear_talk(&self, tx: &mut Tx, name: &str) -> Result<(), GpuError> {
        const LINK: &str = "SELECT link FROM gpu_worker WHERE name = $1";
        let link: Option<String> = both!(tx, |c| sqlx::query_scalar(LINK)
            .bind(name)
            .fetch_optional(c)
            .await)?;
        if link.ok_or(GpuError::UnknownWorker)? == "old"
            && let Some(mut worker) = lock_worker(tx, name).await?
        {
            self.heard_old(tx, &mut worker).await?;
        }
        Ok(())
    }

    /// Bytes of a log; waits for the first one while the job goes on.
    pub(crate) async fn read_log(
        &self,
        viewer: Viewer<'_>,
        request: ReadLogRequest,
    ) -> Result<Chunk, GpuError> {
        let until = Instant::now() + Duration::from_millis(u64::from(request.wait_ms)).min(LONGEST);
        let waiting = self.wakes.wait_for_job(request.job);
        loop {
            let next = waiting.next();
            let row = self.visible(viewer, request.job).await?;
            let chunk = self.read(&row, Kind::Log, request.offset, request.limit).await?;
            // Also answered at the end, and where more was asked for than there will ever be.
            if !chunk.bytes.is_empty() || chunk.complete || Instant::now() >= until {
                return Ok(chunk);
            }
            // Elapsed is as good as woken: both mean look again.
            let _ = timeout_at(until.min(Instant::now() + LOOK), next).await;
        }
    }

    /// Bytes of what a job left.
    pub(crate) async fn read_artifact(
        &self,
        viewer: Viewer<'_>,
        request: ReadArtifactRequest,
    ) -> Result<Chunk, GpuError> {
        let row = self.visible(viewer, request.job).await?;
        if row.artifact_bytes.is_none() {
            return Err(GpuError::NotFound {
                what: match &row.artifact_note {
                    Some(note) => format!("artifact of {}: {note}", row.id),
                    None => format!("artifact of {}", row.id),
                },
            });
        }
        self.read(&row, Kind::Artifact, request.offset, request.limit)
            .await
    }

    async fn read(&self, row: &JobRow, kind: Kind, offset: u64, limit: u32) -> Result<Chunk, GpuError> {
        let state: JobState = row.state()?;
        let end = unsigned(match kind {
            Kind::Log => row.log_end,
            Kind::Artifact => row.artifact_end,
        });
        let limit = limit.clamp(1, READ);
        let upto = end.min(offset.saturating_add(u64::from(limit)));
        let bytes = if offset < upto {
            self.bytes(row.id, kind, offset, upto).await?
        } else {
            Vec::new()
        };
        let read = offset.saturating_add(u64::try_from(bytes.len()).unwrap_or(0));
        Ok(Chunk {
            offset,
            bytes,
            end,
            complete: state.is_final() && read >= end,
            truncated: kind == Kind::Log && row.log_truncated != 0,
        })
    }

    /// The bytes from `offset` to `upto`, which are there.
    async fn bytes(&self, job: JobId, kind: Kind, offset: u64, upto: u64) -> Result<Vec<u8>, StoreError> {
        const SQL: &str =
            "SELECT start, bytes FROM gpu_chunk WHERE job = $1 AND kind = $2 AND start < $4 AND start >=
                (SELECT COALESCE(MAX(start), 0) FROM gpu_chunk WHERE job = $1 AND kind = $2 AND start <= $3)
            ORDER BY start";
        let pieces: Vec<(i64, Vec<u8>)> = reading!(&self.store, |c| sqlx::query_as(SQL)
            .bind(job)
            .bind(kind.word())
            .bind(signed(offset))
            .bind(signed(upto))
            .fetch_all(c)
            .await)?;
        let mut bytes = Vec::with_capacity(usize::try_from(upto - offset).unwrap_or(0));
        for (start, piece) in pieces {
            let start = unsigned(start);
            let from = usize::try_from(offset.saturating_sub(start)).unwrap_or(usize::MAX);
            let to = usize::try_from(upto.saturating_sub(start))
                .unwrap_or(usize::MAX)
                .min(piece.len());
            bytes.extend_from_slice(piece.get(from..to).unwrap_or_default());
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_piece_goes_where_it_belongs() {
        let fits = |skip, keep, capped| Fit {
            skip,
            keep,
            capped,
            cut: false,
        };
        let cut = |skip, keep| Fit {
            cut: true,
            ..fits(skip, keep, true)
        };
        // At the end, before it, over it, beyond it, without a place.
        assert_eq!(fit(10, 100, Some(10), 5), fits(0, 5, false));
        assert_eq!(fit(10, 100, Some(5), 5), fits(0, 0, false));
        assert_eq!(fit(10, 100, Some(5), 8), fits(5, 3, false));
        assert_eq!(fit(10, 100, Some(11), 5), fits(0, 0, false));
        assert_eq!(fit(10, 100, None, 5), fits(0, 5, false));
        // Under the cap, up to it, over it, at it.
        assert_eq!(fit(10, 6, Some(10), 5), fits(0, 5, false));
        assert_eq!(fit(10, 5, Some(10), 5), fits(0, 5, true));
        assert_eq!(fit(10, 3, Some(8), 7), cut(2, 3));
        assert_eq!(fit(10, 0, Some(10), 5), cut(0, 0));
        assert_eq!(fit(10, 0, Some(5), 5), fits(0, 0, true));
        assert_eq!(fit(u64::MAX, 5, Some(u64::MAX), 9).keep, 0);
    }

    proptest! {
        /// Whatever is sent in whatever order and however often: what is kept is a prefix of what was
        /// printed, and sending on from each answer ends with all of it, up to the cap.
        #[test]
        fn what_is_kept_is_what_was_printed(
            printed in proptest::collection::vec(any::<u8>(), 0..200),
            cap in 0_usize..220,
            noise in proptest::collection::vec((0_usize..200, 0_usize..60), 0..40),
        ) {
            let mut kept: Vec<u8> = Vec::new();
            let mut take = |offset: usize, length: usize| {
                let piece = &printed[offset..(offset + length).min(printed.len())];
                let room = u64::try_from(cap - kept.len()).unwrap();
                let end = u64::try_from(kept.len()).unwrap();
                let fit = fit(end, room, Some(u64::try_from(offset).unwrap()), piece.len());
                kept.extend_from_slice(&piece[fit.skip..fit.skip + fit.keep]);
                assert!(kept.len() <= cap && printed.starts_with(&kept));
                (kept.len(), fit.capped)
            };
            for (offset, length) in noise {
                take(offset.min(printed.len()), length);
            }
            let (mut end, mut capped) = take(0, 0);
            while end < printed.len() && !capped {
                (end, capped) = take(end, 7);
            }
            let all = printed.len().min(cap);
            prop_assert_eq!(&kept, &printed[..all]);
        }
    }
}
