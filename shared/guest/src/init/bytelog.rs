//! The numbered output of one command.
//!
//! ```text
//!  start                                                              end
//!   │ segment on disk │ segment on disk │ in memory │ in memory │ open │
//! ```
//!
//! An offset counts payload bytes of both streams. A segment is a row of records (stream, time, length,
//! payload) of at most [`SLOT`] bytes together, so that what the log needs in memory is bounded whatever
//! the command writes: three sealed segments, the open one and a few words per segment on disk.

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use nimbus_guest::protocol::Stream;

use super::spill::{SLOT, Slot, Spill};

/// Stream (1), time (8), length (4).
const HEAD: usize = 13;

/// Sealed segments that stay in memory: with the open one, 256 KiB.
const IN_MEMORY: usize = 3;

/// A log keeps at least the open segment and another, whatever it is told.
const LEAST: usize = 2;

/// What follows within this time joins its predecessor's record.
const JOIN_MS: u64 = 50;

/// What is left in memory of an ended command: most have said less.
const REST: usize = 4 << 10;

/// The numbered output of one command.
#[derive(Debug)]
pub(crate) struct ByteLog {
    sealed: VecDeque<Segment>,
    open: Vec<u8>,
    /// Offset of the first byte in `open`.
    open_start: u64,
    /// Where in `open` its last record begins.
    last: Option<usize>,
    end: u64,
    /// The most segments, the open one included.
    most: usize,
    /// The same, while the disk has no room.
    squeezed: Option<usize>,
    spill: Rc<Spill>,
}

#[derive(Debug)]
struct Segment {
    start: u64,
    data: Data,
}

#[derive(Debug)]
enum Data {
    Memory(Bytes),
    Disk(Slot),
}

/// A part of the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) stream: Stream,
    pub(crate) offset: u64,
    pub(crate) at_ms: u64,
    pub(crate) bytes: Bytes,
}

/// Where a reader is.
#[derive(Debug)]
pub(crate) struct Cursor {
    offset: u64,
    /// The segment it is in, if it is not the open one.
    loaded: Option<(u64, Bytes)>,
    /// A record at or before the offset: start of its segment, place in it, offset.
    near: Option<(u64, usize, u64)>,
}

/// What a reader wants was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// What is kept begins here.
    pub(crate) start: u64,
}

impl Cursor {
    pub(crate) fn at(offset: u64) -> Self {
        Self {
            offset,
            loaded: None,
            near: None,
        }
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }
}

impl ByteLog {
    /// An empty log that keeps about `cap` bytes.
    pub(crate) fn new(cap: u64, spill: Rc<Spill>) -> Self {
        let most = usize::try_from(cap).unwrap_or(usize::MAX) / SLOT;
        Self {
            sealed: VecDeque::new(),
            open: Vec::new(),
            open_start: 0,
            last: None,
            end: 0,
            most: most.max(LEAST),
            squeezed: None,
            spill,
        }
    }

    /// The first offset that is kept.
    pub(crate) fn start(&self) -> u64 {
        self.sealed.front().map_or(self.open_start, |first| first.start)
    }

    /// The offset after the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Bytes in memory.
    pub(crate) fn memory(&self) -> u64 {
        let sealed = self.sealed.iter().map(|segment| match &segment.data {
            Data::Memory(data) => data.len(),
            Data::Disk(_) => 0,
        });
        u64::try_from(sealed.sum::<usize>() + self.open.capacity()).unwrap_or(u64::MAX)
    }

    /// How much can be appended without dropping what lies at `needed` or after it; `None`: anything.
    pub(crate) fn room_before_drop(&self, needed: u64) -> Option<usize> {
        let next = self.sealed.get(1).map_or(self.open_start, |second| second.start);
        if self.sealed.len() + 1 < self.limit() || needed >= next {
            return None;
        }
        Some(SLOT.saturating_sub(self.open.len() + HEAD))
    }

    /// Whether the disk had no room for it; asking forgets.
    pub(crate) fn take_squeezed(&mut self) -> bool {
        self.squeezed.take().is_some()
    }

    fn limit(&self) -> usize {
        self.squeezed.map_or(self.most, |less| less.min(self.most))
    }

    /// Appends output.
    pub(crate) fn append(&mut self, stream: Stream, at_ms: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let joins = self.joins(stream, at_ms);
            let head = if joins.is_some() { 0 } else { HEAD };
            let room = SLOT.saturating_sub(self.open.len() + head);
            if room == 0 {
                self.seal();
                continue;
            }
            let (now, later) = bytes.split_at(bytes.len().min(room));
            match joins {
                Some((at, length)) => set_length(&mut self.open, at, length + now.len()),
                None => {
                    self.last = Some(self.open.len());
                    push_head(&mut self.open, stream, at_ms, now.len());
                }
            }
            self.open.extend_from_slice(now);
            self.end += u64::try_from(now.len()).unwrap_or(0);
            bytes = later;
        }
    }

    /// The last record, if these bytes can go into it: its place and length.
    fn joins(&self, stream: Stream, at_ms: u64) -> Option<(usize, usize)> {
        let at = self.last?;
        let record = record(&self.open, at)?;
        let near = at_ms.abs_diff(record.at_ms) <= JOIN_MS;
        (record.stream == stream && near && self.open.len() < SLOT).then_some((at, record.length))
    }

    fn seal(&mut self) {
        let data = std::mem::take(&mut self.open);
        self.sealed.push_back(Segment {
            start: self.open_start,
            data: Data::Memory(data.into()),
        });
        self.open_start = self.end;
        self.last = None;
        self.spill(IN_MEMORY);
        while self.sealed.len() + 1 > self.limit() {
            self.sealed.pop_front();
        }
    }

    /// Moves the oldest segments to disk until `keep` are in memory.
    fn spill(&mut self, keep: usize) {
        let until = self.sealed.len().saturating_sub(keep);
        let all = self.sealed.len();
        for segment in self.sealed.iter_mut().take(until) {
            let Data::Memory(data) = &segment.data else {
                continue;
            };
            match self.spill.put(data) {
                Ok(slot) => segment.data = Data::Disk(slot),
                // Lives from what it has: each new segment costs the oldest, whose place it takes.
                Err(_) => {
                    self.squeezed = Some(all.max(LEAST));
                    return;
                }
            }
        }
    }

    /// The command has ended: the memory is for others.
    pub(crate) fn rest(&mut self) {
        if self.open.len() > REST {
            self.seal();
        }
        self.open.shrink_to_fit();
        self.spill(0);
    }

    /// Drops everything; offsets go on.
    pub(crate) fn clear(&mut self) {
        self.sealed.clear();
        self.open = Vec::new();
        self.open_start = self.end;
        self.last = None;
    }

    /// The next piece at the cursor, which moves behind it; `None` at the end.
    pub(crate) fn next(&self, cursor: &mut Cursor) -> Result<Option<Piece>, Dropped> {
        if cursor.offset >= self.end {
            return Ok(None);
        }
        if cursor.offset >= self.open_start {
            let open_start = self.open_start;
            return Ok(piece(&self.open, open_start, cursor, Bytes::copy_from_slice));
        }
        if let Some((start, data)) = cursor.loaded.take() {
            // What was loaded may be read on, though it is dropped meanwhile.
            if let Some(found) = piece(&data, start, cursor, |part| data.slice_ref(part)) {
                cursor.loaded = Some((start, data));
                return Ok(Some(found));
            }
        }
        let dropped = Dropped { start: self.start() };
        let after = self
            .sealed
            .partition_point(|segment| segment.start <= cursor.offset);
        let segment = after
            .checked_sub(1)
            .and_then(|index| self.sealed.get(index))
            .ok_or(dropped)?;
        let data = match &segment.data {
            Data::Memory(data) => data.clone(),
            // A disk that cannot be read is as good as one that dropped it.
            Data::Disk(slot) => slot.get().map_err(|_| dropped)?,
        };
        let found = piece(&data, segment.start, cursor, |part| data.slice_ref(part));
        cursor.loaded = Some((segment.start, data));
        found.map(Some).ok_or(dropped)
    }
}

struct Record {
    stream: Stream,
    at_ms: u64,
    length: usize,
}

fn push_head(to: &mut Vec<u8>, stream: Stream, at_ms: u64, length: usize) {
    to.push(match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    });
    to.extend_from_slice(&at_ms.to_le_bytes());
    to.extend_from_slice(&u32::try_from(length).unwrap_or(0).to_le_bytes());
}

fn set_length(data: &mut [u8], at: usize, length: usize) {
    if let Some(place) = data.get_mut(at + 9..at + HEAD) {
        place.copy_from_slice(&u32::try_from(length).unwrap_or(0).to_le_bytes());
    }
}

fn record(data: &[u8], at: usize) -> Option<Record> {
    let head = data.get(at..)?.first_chunk::<HEAD>()?;
    let [stream, a, b, c, d, e, f, g, h, length @ ..] = *head;
    Some(Record {
        stream: if stream == 1 {
            Stream::Stdout
        } else {
            Stream::Stderr
        },
        at_ms: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        length: usize::try_from(u32::from_le_bytes(length)).ok()?,
    })
}

/// The rest of the record in which the cursor is; moves it behind.
fn piece(data: &[u8], segment: u64, cursor: &mut Cursor, take: impl FnOnce(&[u8]) -> Bytes) -> Option<Piece> {
    let (mut at, mut offset) = match cursor.near {
        Some((start, at, offset)) if start == segment && offset <= cursor.offset => (at, offset),
        _ => (0, segment),
    };
    loop {
        let record = record(data, at)?;
        let begin = at + HEAD;
        let end = offset + u64::try_from(record.length).ok()?;
        if cursor.offset < end {
            let skip = usize::try_from(cursor.offset.checked_sub(offset)?).ok()?;
            let bytes = take(data.get(begin + skip..begin + record.length)?);
            let found = Piece {
                stream: record.stream,
                offset: cursor.offset,
                at_ms: record.at_ms,
                bytes,
            };
            cursor.near = Some((segment, at, offset));
            cursor.offset = end;
            return Some(found);
        }
        at = begin + record.length;
        offset = end;
    }
}

#[cfg(test)]
mod tests;
