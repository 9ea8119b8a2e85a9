//! The kept log of a sandbox' main process: lines in rotated files, readable by the agent only.
//!
//! ```text
//! byte log of the guest ─▶ lines (per stream) ─▶ 00000001, 00000002, …     the oldest goes when it is too much
//!                                                 └▶ readers: a position, never a copy
//! ```
//! A line is stored with its place in the guest's byte log, so that a new agent goes on exactly where
//! the old one ended, and with the run of the main process that wrote it. A reader that is so slow
//! that its next line was dropped is told so; it does not skip in silence.

mod line;
mod read;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, PoisonError};

use camino::Utf8PathBuf;
use nimbus_guest::protocol::Stream;
use tokio::sync::watch;

pub(crate) use line::Line;
pub(crate) use read::{Reader, Step};

/// A log is cut into so many files at most.
const FILES: u64 = 8;
/// A file is not smaller than this.
const SMALLEST: u64 = 64 << 10;
/// A line that is longer becomes several.
const LONGEST: usize = 16 << 10;

/// The log of one sandbox. Clones share.
#[derive(Clone)]
pub(crate) struct Log {
    inner: Arc<Inner>,
}

struct Inner {
    dir: Utf8PathBuf,
    per_file: u64,
    state: Mutex<State>,
    changed: watch::Sender<Shape>,
}

/// What readers need to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    first: u64,
    last: u64,
    /// Bytes in the last file.
    size: u64,
    /// Nothing more will come.
    closed: bool,
}

struct State {
    file: Option<File>,
    files: VecDeque<u64>,
    size: u64,
    closed: bool,
    /// The run that writes now.
    run: u32,
    /// Where the last stored line of each stream ends, in the guest's log of this run.
    stored: [u64; 2],
    /// Bytes of a line that is not complete, and where it begins.
    pending: [Pending; 2],
}

#[derive(Default)]
struct Pending {
    start: u64,
    bytes: Vec<u8>,
    at_us: i64,
}

impl Log {
    /// The log in `dir`, which keeps about `limit` bytes; goes on with what is there.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn open(dir: Utf8PathBuf, limit: u64) -> io::Result<Self> {
        if let Some(parent) = dir.parent() {
            crate::state::make_private(parent)?;
        }
        crate::state::make_private(&dir)?;
        let mut files: Vec<u64> = dir
            .read_dir_utf8()?
            .flatten()
            .filter_map(|entry| entry.file_name().parse().ok())
            .collect();
        files.sort_unstable();
        let per_file = (limit / FILES).max(SMALLEST);
        let size = match files.last() {
            // An agent that was killed in the middle of a line: nothing may be added to that.
            Some(last) if !ends_with_newline(&dir.join(name(*last)))? => per_file,
            Some(last) => std::fs::metadata(dir.join(name(*last)))?.len(),
            None => 0,
        };
        let files: VecDeque<u64> = files.into();
        let shape = Shape {
            first: files.front().copied().unwrap_or(1),
            last: files.back().copied().unwrap_or(1),
            size,
            closed: false,
        };
        Ok(Self {
            inner: Arc::new(Inner {
                dir,
                per_file,
                state: Mutex::new(State {
                    file: None,
                    files,
                    size,
                    closed: false,
                    run: 0,
                    stored: [0, 0],
                    pending: Default::default(),
                }),
                changed: watch::Sender::new(shape),
            }),
        })
    }

    /// Goes on with a run of the main process; gives the offset from which the guest's log is needed.
    /// Lines of it that are stored already are not stored again.
    pub(crate) fn resume(&self, run: u32) -> u64 {
        let mut stored = [0, 0];
        let mut reader = Reader::from_start(self.clone());
        while let Ok(Step::Line(line)) = reader.step() {
            if line.run == run {
                let end = stored.get_mut(index(line.stream));
                if let Some(end) = end {
                    *end = line.end.max(*end);
                }
            }
        }
        let mut state = self.lock();
        state.run = run;
        state.stored = stored;
        state.pending = Default::default();
        state.closed = false;
        stored.into_iter().min().unwrap_or(0)
    }

    /// Begins a new run.
    pub(crate) fn begin(&self, run: u32) {
        self.finish_lines();
        let mut state = self.lock();
        state.run = run;
        state.stored = [0, 0];
        state.pending = Default::default();
    }

    /// Adds output of the present run.
    ///
    /// # Errors
    /// When the file cannot be written; the output is lost then.
    pub(crate) fn add(&self, stream: Stream, offset: u64, at_ms: u64, bytes: &[u8]) -> io::Result<()> {
        let at_us = i64::try_from(at_ms)
            .unwrap_or(i64::MAX / 1000)
            .saturating_mul(1000);
        let mut lines = Vec::new();
        let mut state = self.lock();
        let run = state.run;
        let which = index(stream);
        let stored = state.stored.get(which).copied().unwrap_or(0);
        let Some(pending) = state.pending.get_mut(which) else {
            return Ok(());
        };
        let mut position = offset;
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for part in piece.chunks(LONGEST) {
                if pending.bytes.is_empty() {
                    pending.start = position;
                    pending.at_us = at_us;
                }
                pending.bytes.extend_from_slice(part);
                position += u64::try_from(part.len()).unwrap_or(0);
                if part.ends_with(b"\n") || pending.bytes.len() >= LONGEST {
                    let done = std::mem::take(&mut pending.bytes);
                    // What a former agent stored already comes again when the other stream was behind.
                    if pending.start >= stored {
                        lines.push(Line::new(
                            run,
                            stream,
                            pending.start,
                            position,
                            pending.at_us,
                            &done,
                        ));
                    }
                }
            }
        }
        self.store(&mut state, &lines)
    }

    /// Stores what is left of lines without an end.
    pub(crate) fn finish_lines(&self) {
        let mut state = self.lock();
        let run = state.run;
        let mut lines = Vec::new();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let which = index(stream);
            let stored = state.stored.get(which).copied().unwrap_or(0);
            if let Some(pending) = state.pending.get_mut(which)
                && !pending.bytes.is_empty()
            {
                let bytes = std::mem::take(&mut pending.bytes);
                let end = pending.start + u64::try_from(bytes.len()).unwrap_or(0);
                if pending.start >= stored {
                    lines.push(Line::new(run, stream, pending.start, end, pending.at_us, &bytes));
                }
            }
        }
        if let Err(error) = self.store(&mut state, &lines) {
            tracing::error!(log.dir = %self.inner.dir, cause = %error, "the end of a log could not be written");
        }
    }

    /// Says that nothing more will come: readers that follow end.
    pub(crate) fn close(&self) {
        self.finish_lines();
        let mut state = self.lock();
        state.closed = true;
        state.file = None;
        self.tell(&state);
    }

    fn store(&self, state: &mut State, lines: &[Line]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let mut text = Vec::new();
        for line in lines {
            line.write(&mut text);
            if let Some(end) = state.stored.get_mut(index(line.stream)) {
                *end = line.end.max(*end);
            }
        }
        if state.file.is_none() || state.size >= self.inner.per_file {
            self.next_file(state)?;
        }
        if let Some(file) = &mut state.file {
            file.write_all(&text)?;
        }
        state.size += u64::try_from(text.len()).unwrap_or(0);
        self.tell(state);
        Ok(())
    }

    fn next_file(&self, state: &mut State) -> io::Result<()> {
        let reopened = state.file.is_none() && state.size < self.inner.per_file;
        let number = match state.files.back() {
            Some(last) if reopened => *last,
            Some(last) => last + 1,
            None => 1,
        };
        let file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(self.inner.dir.join(name(number)))?;
        if state.files.back() != Some(&number) {
            state.files.push_back(number);
            state.size = 0;
        }
        state.file = Some(file);
        while u64::try_from(state.files.len()).unwrap_or(0) > FILES {
            if let Some(oldest) = state.files.pop_front() {
                let _ = std::fs::remove_file(self.inner.dir.join(name(oldest)));
            }
        }
        Ok(())
    }

    fn tell(&self, state: &State) {
        self.inner.changed.send_replace(Shape {
            first: state.files.front().copied().unwrap_or(1),
            last: state.files.back().copied().unwrap_or(1),
            size: state.size,
            closed: state.closed,
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

fn ends_with_newline(file: &camino::Utf8Path) -> io::Result<bool> {
    let mut file = File::open(file)?;
    if file.metadata()?.len() == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

fn name(number: u64) -> String {
    format!("{number:08}")
}

#[cfg(test)]
mod tests;
