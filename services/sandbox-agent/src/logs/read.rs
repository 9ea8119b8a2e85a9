//! Readers: a position in the files.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};

use nimbus_model::Timestamp;
use tokio::sync::watch;

use super::{Line, Log, Shape, name};

/// Reads a log line by line.
pub(crate) struct Reader {
    log: Log,
    changed: watch::Receiver<Shape>,
    number: u64,
    file: Option<BufReader<File>>,
    /// Where to begin in the first file.
    skip: u64,
    /// What was read of a line that is not complete yet.
    partial: Vec<u8>,
    since: Option<Timestamp>,
}

/// What a reader found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The next line.
    Line(Line),
    /// There is none yet.
    Wait,
    /// There will be none.
    End,
    /// The next one was dropped before it could be read.
    Dropped,
}

impl Reader {
    /// Reads everything that is kept.
    pub(crate) fn from_start(log: Log) -> Self {
        let changed = log.inner.changed.subscribe();
        let number = changed.borrow().first;
        Self {
            log,
            changed,
            number,
            file: None,
            skip: 0,
            partial: Vec::new(),
            since: None,
        }
    }

    /// Reads at most `tail` of the last lines that are there now, and what follows them; only lines
    /// from `since` on.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn new(log: Log, tail: Option<u32>, since: Option<Timestamp>) -> io::Result<Self> {
        let mut reader = Self::from_start(log);
        if let Some(tail) = tail {
            let shape = *reader.changed.borrow();
            (reader.number, reader.skip) = reader.tail(shape, tail)?;
        }
        reader.since = since;
        Ok(reader)
    }

    /// Where the last `tail` lines begin: file and byte.
    fn tail(&self, shape: Shape, tail: u32) -> io::Result<(u64, u64)> {
        let mut left = usize::try_from(tail).unwrap_or(usize::MAX);
        let mut number = shape.last;
        loop {
            let mut starts = VecDeque::new();
            let mut position = 0;
            if let Some(file) = self.open(number)? {
                let mut file = BufReader::new(file);
                let mut line = Vec::new();
                loop {
                    line.clear();
                    let read = file.read_until(b'\n', &mut line)?;
                    if read == 0 || !line.ends_with(b"\n") {
                        break;
                    }
                    starts.push_back(position);
                    if starts.len() > left {
                        starts.pop_front();
                    }
                    position += u64::try_from(read).unwrap_or(0);
                }
            }
            if starts.len() >= left || number <= shape.first {
                return Ok((number, starts.front().copied().unwrap_or(position)));
            }
            left -= starts.len();
            number -= 1;
        }
    }

    fn open(&self, number: u64) -> io::Result<Option<File>> {
        match File::open(self.log.inner.dir.join(name(number))) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The next thing, without waiting.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn step(&mut self) -> io::Result<Step> {
        loop {
            // Before the file is read: what was the last file then is complete if it is not any more.
            let shape = *self.changed.borrow_and_update();
            if self.file.is_none() {
                match self.open(self.number)? {
                    Some(mut file) => {
                        file.seek(SeekFrom::Start(std::mem::take(&mut self.skip)))?;
                        self.file = Some(BufReader::new(file));
                    }
                    None if self.number < shape.first => return Ok(Step::Dropped),
                    None if shape.closed => return Ok(Step::End),
                    None => return Ok(Step::Wait),
                }
            }
            let Some(file) = &mut self.file else {
                return Ok(Step::Wait);
            };
            file.read_until(b'\n', &mut self.partial)?;
            if self.partial.ends_with(b"\n") {
                let bytes = std::mem::take(&mut self.partial);
                let line = std::str::from_utf8(&bytes).ok().and_then(Line::read);
                match line {
                    Some(line) if self.since.is_none_or(|since| line.at >= since) => {
                        return Ok(Step::Line(line));
                    }
                    // A line that was cut when the agent was killed, or one that is too old.
                    _ => continue,
                }
            }
            if self.number < shape.last {
                self.number += 1;
                self.file = None;
                self.partial.clear();
                continue;
            }
            return Ok(if shape.closed { Step::End } else { Step::Wait });
        }
    }

    /// Waits until there may be more.
    pub(crate) async fn changed(&mut self) {
        // The log lives as long as its reader: the sender cannot be gone.
        let _ = self.changed.changed().await;
    }
}
