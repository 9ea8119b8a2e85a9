//! What must outlive the worker: one record for each job it holds, and the names of those it had.
//!
//! A record is on disk, and so is the folder's entry for it, before anything is done that it tells of.
//! `jobs/<job>.json` is the record, `jobs/<job>.tar.gz` what is packed of its artifacts, `done` has a line
//! for each job that ended, so that one that is delivered again is known.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nimbus_gpu_wire::{Assignment, Outcome};
use rustix::fs::{FlockOperation, flock};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use tracing::warn;

/// Jobs that are remembered after their end; the server repeats an assignment for minutes, not for this many.
const REMEMBERED: usize = 1000;

/// How far a job has come. What follows a stage has at most begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// The worker answers for it.
    Accepted,
    /// Its container is there and is being started, or was.
    Starting,
    /// Its container has ended, or there will be none; the outcome is known.
    Ended,
    /// The artifacts are packed, and the outcome tells of them.
    Packed,
}

/// What the worker knows of a job that it holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) assignment: Assignment,
    pub(crate) stage: Stage,
    /// [`Host::boot_id`](crate::host::Host::boot_id) when the container was started.
    #[serde(default)]
    pub(crate) boot_id: Option<String>,
    /// [`since_boot`](crate::host::since_boot) then, in milliseconds.
    #[serde(default)]
    pub(crate) started_ms: u64,
    /// Whether the worker stopped it for its time limit.
    #[serde(default)]
    pub(crate) timed_out: bool,
    /// Whether the engine went away while it ran.
    #[serde(default)]
    pub(crate) engine_lost: bool,
    #[serde(default)]
    pub(crate) outcome: Option<Outcome>,
}

impl Record {
    pub(crate) fn new(assignment: Assignment) -> Self {
        Self {
            assignment,
            stage: Stage::Accepted,
            boot_id: None,
            started_ms: 0,
            timed_out: false,
            engine_lost: false,
            outcome: None,
        }
    }
}

/// Why something could not be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error("another worker runs on {}", .0.display())]
    Taken(PathBuf),
    #[error("{job:?} cannot be the id of a job")]
    Id { job: String },
    #[error("cannot use {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the record of {job} cannot be written: {detail}")]
    Unwritable { job: String, detail: String },
}

/// The worker's folder. One worker at a time has it.
#[derive(Clone, Debug)]
pub(crate) struct State {
    dir: Arc<PathBuf>,
    done: Arc<Mutex<VecDeque<(String, u32)>>>,
    _lock: Arc<File>,
}

impl State {
    /// Takes the folder, making it if need be.
    pub(crate) fn open(dir: &Path) -> Result<Self, StateError> {
        let jobs = dir.join("jobs");
        fs::create_dir_all(&jobs).map_err(at(&jobs))?;
        let path = dir.join("lock");
        let mut lock = lock_file(&path)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(StateError::Taken(dir.to_owned()));
        }
        lock.set_len(0).map_err(at(&path))?;
        lock.rewind().map_err(at(&path))?;
        write!(lock, "{}", std::process::id()).map_err(at(&path))?;
        let done = read_done(&dir.join("done"))?;
        Ok(Self {
            dir: Arc::new(dir.to_owned()),
            done: Arc::new(Mutex::new(done)),
            _lock: Arc::new(lock),
        })
    }

    /// The process that has the folder now.
    pub(crate) fn owner(dir: &Path) -> Result<Option<Pid>, StateError> {
        let path = dir.join("lock");
        let mut lock = match File::open(&path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateError::Io { path, source }),
        };
        if flock(&lock, FlockOperation::NonBlockingLockShared).is_ok() {
            return Ok(None);
        }
        let mut text = String::new();
        lock.read_to_string(&mut text).map_err(at(&path))?;
        Ok(text.trim().parse().ok().and_then(Pid::from_raw))
    }

    /// Returns when nobody has the folder.
    pub(crate) fn wait_released(dir: &Path) -> Result<(), StateError> {
        let path = dir.join("lock");
        let lock = File::open(&path).map_err(at(&path))?;
        flock(&lock, FlockOperation::LockShared).map_err(|errno| StateError::Io {
            path,
            source: errno.into(),
        })
    }

    /// The records of all jobs held, oldest first.
    pub(crate) fn records(&self) -> Result<Vec<Record>, StateError> {
        let folder = self.dir.join("jobs");
        let mut found: Vec<Record> = Vec::new();
        for entry in fs::read_dir(&folder).map_err(at(&folder))? {
            let path = entry.map_err(at(&folder))?.path();
            if path.extension().is_none_or(|end| end != "json") {
                continue;
            }
            let bytes = fs::read(&path).map_err(at(&path))?;
            match serde_json::from_slice(&bytes) {
                Ok(record) => found.push(record),
                // The server will find that its job is lost; the others go on.
                Err(error) => {
                    warn!(
                        "{} is put aside, because it is no record: {error}",
                        path.display()
                    );
                    fs::rename(&path, path.with_extension("bad")).map_err(at(&path))?;
                }
            }
        }
        // Ids of jobs sort by time.
        found.sort_by(|a, b| a.assignment.job.cmp(&b.assignment.job));
        Ok(found)
    }

    /// Whether this job, or a later attempt of it, is held or was.
    pub(crate) fn knows(&self, job: &str, attempt: u32) -> bool {
        self.record_path(job).is_ok_and(|path| path.exists())
            || self
                .done
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .iter()
                .any(|(id, last)| id == job && *last >= attempt)
    }

    /// Writes a record; when this returns, it is on disk.
    pub(crate) async fn save(&self, record: &Record) -> Result<(), StateError> {
        let path = self.record_path(&record.assignment.job)?;
        let bytes = serde_json::to_vec(record).map_err(|error| StateError::Unwritable {
            job: record.assignment.job.clone(),
            detail: error.to_string(),
        })?;
        off_thread(move || write_whole(&path, &bytes)).await
    }

    /// Forgets a job that has ended, but for its name.
    pub(crate) async fn forget(&self, record: &Record) -> Result<(), StateError> {
        let job = &record.assignment.job;
        let (path, artifact) = (self.record_path(job)?, self.artifact_path(job)?);
        let list: Vec<(String, u32)> = {
            let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            done.push_back((job.clone(), record.assignment.attempt));
            while done.len() > REMEMBERED {
                done.pop_front();
            }
            done.iter().cloned().collect()
        };
        let done_path = self.dir.join("done");
        off_thread(move || {
            // First remembered, then forgotten: in between, both say that it is known.
            append_done(&done_path, &list)?;
            for path in [artifact, path] {
                match fs::remove_file(&path) {
                    Err(source) if source.kind() != io::ErrorKind::NotFound => {
                        return Err(StateError::Io { path, source });
                    }
                    _ => {}
                }
            }
            Ok(())
        })
        .await
    }

    /// Where a job's artifacts are packed.
    pub(crate) fn artifact_path(&self, job: &str) -> Result<PathBuf, StateError> {
        Ok(self.dir.join("jobs").join(format!("{}.tar.gz", plain(job)?)))
    }

    fn record_path(&self, job: &str) -> Result<PathBuf, StateError> {
        Ok(self.dir.join("jobs").join(format!("{}.json", plain(job)?)))
    }
}

/// An id that can be part of a path and of a container's name.
fn plain(job: &str) -> Result<&str, StateError> {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if job.is_empty() || job.len() > 80 || job.starts_with('-') || !job.chars().all(fine) {
        return Err(StateError::Id {
            job: job.chars().take(100).collect(),
        });
    }
    Ok(job)
}

fn at(path: &Path) -> impl Fn(io::Error) -> StateError + '_ {
    move |source| StateError::Io {
        path: path.to_owned(),
        source,
    }
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StateError> + Send + 'static,
) -> Result<T, StateError> {
    tokio::task::spawn_blocking(work)
        .await
        .expect("writing a file does not panic")
}

fn lock_file(path: &Path) -> Result<File, StateError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(at(path))
}

/// Replaces a file so that after a crash it is the old one or the new one.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    let new = path.with_extension("new");
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    if let Err(source) = written {
        // Half a file is of no use, and the disk may be full.
        if let Err(error) = fs::remove_file(&new) {
            warn!("{} stays behind: {error}", new.display());
        }
        return Err(StateError::Io { path: new, source });
    }
    fs::rename(&new, path).map_err(at(path))?;
    let folder = path.parent().unwrap_or(path);
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(at(folder))
}

fn read_done(path: &Path) -> Result<VecDeque<(String, u32)>, StateError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(VecDeque::new()),
        Err(source) => {
            return Err(StateError::Io {
                path: path.to_owned(),
                source,
            });
        }
    };
    // A line that was cut off by a crash is that of a job whose record is still there.
    let read = |line: &str| {
        let (job, attempt) = line.split_once(' ')?;
        Some((job.to_owned(), attempt.parse().ok()?))
    };
    Ok(text.lines().filter_map(read).collect())
}

/// Adds the last of `list` to the file; every now and then writes all of it anew, without what is forgotten.
fn append_done(path: &Path, list: &[(String, u32)]) -> Result<(), StateError> {
    let line = |(job, attempt): &(String, u32)| format!("{job} {attempt}\n");
    let size = fs::metadata(path).map_or(0, |meta| meta.len());
    let limit = u64::try_from(2 * REMEMBERED * 40).unwrap_or(u64::MAX);
    if size > limit {
        let all: String = list.iter().map(line).collect();
        return write_whole(path, all.as_bytes());
    }
    let Some(last) = list.last() else { return Ok(()) };
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .map_err(at(path))?;
    // A line that a crash cut off is ended first.
    file.write_all(format!("\n{}", line(last)).as_bytes())
        .map_err(at(path))?;
    file.sync_all().map_err(at(path))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use nimbus_gpu_wire::{Command, Limits};

    pub(crate) fn assignment(job: &str) -> Assignment {
        Assignment {
            protocol: 1,
            job: job.to_owned(),
            attempt: 1,
            image: "busybox".to_owned(),
            command: Command::Image,
            env: vec![],
            datasets: vec![],
            limits: Limits {
                time_s: 60,
                memory_bytes: None,
                log_bytes: 1 << 20,
                artifact_bytes: 1 << 20,
            },
        }
    }

    #[tokio::test]
    async fn a_record_is_there_for_the_next_worker_and_a_done_job_is_known() {
        let dir = camino_tempfile::tempdir().unwrap();
        let mut record = Record::new(assignment("job_1"));
        {
            let state = State::open(dir.path().as_std_path()).unwrap();
            assert!(!state.knows("job_1", 1));
            state.save(&record).await.unwrap();
            record.stage = Stage::Starting;
            state.save(&record).await.unwrap();
            assert!(matches!(
                State::open(dir.path().as_std_path()),
                Err(StateError::Taken(_))
            ));
        }
        let state = State::open(dir.path().as_std_path()).unwrap();
        assert_eq!(state.records().unwrap(), [record.clone()]);
        assert!(state.knows("job_1", 1));
        state.forget(&record).await.unwrap();
        drop(state);
        let state = State::open(dir.path().as_std_path()).unwrap();
        assert!(state.records().unwrap().is_empty());
        assert!(state.knows("job_1", 1) && !state.knows("job_1", 2) && !state.knows("job_2", 1));
    }

    #[tokio::test]
    async fn the_list_of_done_jobs_stays_short() {
        let dir = camino_tempfile::tempdir().unwrap();
        let path = dir.path().join("done");
        let list: Vec<(String, u32)> = (0..REMEMBERED).map(|n| (format!("job_{n:032}"), 1)).collect();
        for _ in 0..5 * REMEMBERED {
            append_done(path.as_std_path(), &list).unwrap();
            if fs::metadata(&path).unwrap().len() > 40 * 2000 {
                break;
            }
        }
        append_done(path.as_std_path(), &list).unwrap();
        assert_eq!(read_done(path.as_std_path()).unwrap().len(), REMEMBERED);
    }

    #[tokio::test]
    async fn an_id_that_leads_out_of_the_folder_is_refused() {
        let dir = camino_tempfile::tempdir().unwrap();
        let state = State::open(dir.path().as_std_path()).unwrap();
        for bad in ["", "../x", "a/b", "a.b", "-rf", &"a".repeat(81)] {
            let saved = state.save(&Record::new(assignment(bad))).await;
            assert!(matches!(saved, Err(StateError::Id { .. })), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_record_that_cannot_be_read_is_put_aside() {
        let dir = camino_tempfile::tempdir().unwrap();
        let state = State::open(dir.path().as_std_path()).unwrap();
        let record = Record::new(assignment("job_1"));
        state.save(&record).await.unwrap();
        fs::write(dir.path().join("jobs/job_0.json"), "{").unwrap();
        assert_eq!(state.records().unwrap(), std::slice::from_ref(&record));
        assert!(dir.path().join("jobs/job_0.bad").exists());
        assert_eq!(state.records().unwrap(), [record]);
    }

    #[test]
    fn a_worker_that_is_gone_owns_nothing() {
        let dir = camino_tempfile::tempdir().unwrap();
        assert_eq!(State::owner(dir.path().as_std_path()).unwrap(), None);
        let state = State::open(dir.path().as_std_path()).unwrap();
        let owner = State::owner(dir.path().as_std_path()).unwrap();
        assert_eq!(owner, Some(rustix::process::getpid()));
        drop(state);
        assert_eq!(State::owner(dir.path().as_std_path()).unwrap(), None);
    }
}
