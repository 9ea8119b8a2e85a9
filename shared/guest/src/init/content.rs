//! The content of one file, in and out.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use nimbus_guest::frame::{self, FrameError, FrameReader};
use nimbus_guest::protocol::{
    Chunk, Finished, GuestFault, HelloReply, MAX_CHUNK, Opened, OpenedContent, Precondition, Range, Written,
};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;
use tokio::net::UnixStream;

use super::control::apart;
use super::fault::{at, invalid};
use super::files::entry;
use super::resolve::{self, Place, look, place_of_file};
use super::world::refuse;

/// How much is read ahead of the client: one visit to the disk for four frames.
const AHEAD: usize = 4 * MAX_CHUNK;

/// Sends (a part of) a file.
pub(crate) async fn send(mut stream: UnixStream, path: String, range: Range) -> Result<(), FrameError> {
    let name = path.clone();
    let opened = apart(move || {
        let (file, stat) = resolve::open_file(&path)?;
        let name = path.rsplit('/').next().unwrap_or(&path);
        let content = part(entry(name, &stat), range)?;
        Ok((std::sync::Arc::new(File::from(file)), content))
    });
    let (file, content) = match opened.await {
        Ok(opened) => opened,
        Err(fault) => return refuse(stream, fault).await,
    };
    let (mut offset, mut left) = (content.offset, content.length);
    frame::write(&mut stream, &HelloReply::Ok(Opened::Content(content))).await?;
    while left > 0 {
        let file = std::sync::Arc::clone(&file);
        let most = usize::try_from(left).unwrap_or(AHEAD).min(AHEAD);
        let name = name.clone();
        let read = apart(move || {
            let mut buffer = vec![0; most];
            let length = file.read_at(&mut buffer, offset);
            let length = length.map_err(|error| at(&name, "read", error))?;
            if length == 0 {
                return Err(super::fault::conflict("the file became shorter").with("path", name));
            }
            buffer.truncate(length);
            Ok(Bytes::from(buffer))
        });
        let mut bytes = match read.await {
            Ok(bytes) => bytes,
            Err(fault) => return frame::write(&mut stream, &Chunk::Fault(fault)).await,
        };
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        offset += length;
        left = left.saturating_sub(length);
        while !bytes.is_empty() {
            let chunk = bytes.split_to(bytes.len().min(MAX_CHUNK));
            frame::write(&mut stream, &Chunk::Data(chunk)).await?;
        }
    }
    frame::write(&mut stream, &Chunk::End).await
}

fn part(entry: nimbus_guest::protocol::Entry, range: Range) -> Result<OpenedContent, GuestFault> {
    let size = entry.size;
    let (offset, length) = match range {
        Range::All => (0, size),
        Range::Last(bytes) => (size.saturating_sub(bytes), bytes.min(size)),
        Range::From { offset, length } => match size.checked_sub(offset) {
            Some(rest) => (offset, length.unwrap_or(rest).min(rest)),
            None => {
                return Err(invalid("range", "the range begins behind the end").with("size", size));
            }
        },
    };
    Ok(OpenedContent {
        entry,
        offset,
        length,
    })
}

/// What is to be written.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) path: String,
    pub(crate) mode: Option<u32>,
    pub(crate) create_parents: bool,
    pub(crate) must: Precondition,
}

/// A file that is being written, beside the one it will replace; gone unless it was put in place.
#[derive(Debug)]
struct Draft {
    target: Target,
    place: Place,
    file: File,
    name: Option<String>,
}

/// Receives a whole file.
pub(crate) async fn receive(mut stream: UnixStream, target: Target) -> Result<(), FrameError> {
    let mut draft = match apart(move || Draft::begin(target)).await {
        Ok(draft) => draft,
        Err(fault) => return refuse(stream, fault).await,
    };
    frame::write(&mut stream, &HelloReply::Ok(Opened::Ready)).await?;
    let (from, mut to) = stream.split();
    let mut chunks = FrameReader::new(from);
    let finished: Finished = loop {
        match chunks.next::<Chunk>().await? {
            Some(Chunk::Data(bytes)) => {
                let written = apart(move || match draft.file.write_all(&bytes) {
                    Ok(()) => Ok(draft),
                    Err(error) => Err(at(&draft.target.path, "write", error)),
                });
                match written.await {
                    Ok(same) => draft = same,
                    Err(fault) => break Err(fault),
                }
            }
            Some(Chunk::End) => break apart(move || draft.finish()).await,
            // Broken off: the draft goes.
            Some(Chunk::Fault(_)) | None => {
                drop(draft);
                return Ok(());
            }
        }
    };
    frame::write(&mut to, &finished).await
}

impl Draft {
    fn begin(target: Target) -> Result<Self, GuestFault> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let path = &target.path;
        let place = place_of_file(path, target.create_parents)?;
        let old = look(&place)?;
        check(&place, old.as_ref(), &target)?;
        if let Some(mode) = target.mode {
            resolve::mode(mode)?;
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let name = format!(".nimbus-{}-{number}", super::command::now_ms());
            let mode = Mode::RUSR | Mode::WUSR;
            match rustix::fs::openat(&place.dir, &name, flags, mode) {
                Ok(file) => {
                    return Ok(Self {
                        target,
                        place,
                        file: file.into(),
                        name: Some(name),
                    });
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(at(path, "write", error)),
            }
        }
    }

    fn finish(mut self) -> Result<Written, GuestFault> {
        let path = &self.target.path;
        let old = look(&self.place)?;
        // Again: the file may have been changed while the content arrived.
        check(&self.place, old.as_ref(), &self.target)?;
        let mode = self.target.mode.or(old.as_ref().map(|stat| stat.st_mode & 0o777));
        let mode = resolve::mode(mode.unwrap_or(0o644))?;
        rustix::fs::fchmod(&self.file, mode).map_err(|error| at(path, "set the permissions of", error))?;
        let stat = rustix::fs::fstat(&self.file).map_err(|error| at(path, "look at", error))?;
        let flags = match self.target.must {
            Precondition::Absent => RenameFlags::NOREPLACE,
            _ => RenameFlags::empty(),
        };
        let Place { dir, name } = &self.place;
        let draft = self.name.as_deref().unwrap_or_default();
        match rustix::fs::renameat_with(dir, draft, dir, name, flags) {
            Ok(()) => {
                let entry = entry(name, &stat);
                self.name = None;
                let created = old.is_none();
                Ok(Written { entry, created })
            }
            Err(Errno::EXIST) => Err(changed(path)),
            Err(error) => Err(at(path, "put in place", error)),
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            let _ = rustix::fs::unlinkat(&self.place.dir, name, AtFlags::empty());
        }
    }
}

fn check(place: &Place, old: Option<&Stat>, target: &Target) -> Result<(), GuestFault> {
    let path = &target.path;
    let etag = old.map(|stat| entry(&place.name, stat).etag);
    let holds = match (&target.must, &etag) {
        (Precondition::None, _)
        | (Precondition::Absent | Precondition::NoneMatch(_), None)
        | (Precondition::Present, Some(_)) => true,
        (Precondition::Absent, Some(_)) | (Precondition::Present | Precondition::Match(_), None) => false,
        (Precondition::Match(tags), Some(etag)) => tags.contains(etag),
        (Precondition::NoneMatch(tags), Some(etag)) => !tags.contains(etag),
    };
    if !holds {
        let fault = changed(path);
        return Err(match etag {
            Some(etag) => fault.with("etag", etag),
            None => fault,
        });
    }
    let Some(stat) = old else { return Ok(()) };
    match entry(&place.name, stat).kind {
        nimbus_guest::protocol::EntryKind::File => Ok(()),
        nimbus_guest::protocol::EntryKind::Dir => Err(at(path, "write", Errno::ISDIR)),
        _ => Err(at(path, "write", Errno::NXIO)),
    }
}

fn changed(path: &str) -> GuestFault {
    let why = "the file is not as it has to be for this write";
    GuestFault::new("op.precondition_failed", why).with("path", path)
}
