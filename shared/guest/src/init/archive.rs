//! A directory as a tar stream, out and in.
//!
//! The tar library is synchronous: it has a thread while the archive lasts, and a short queue to the
//! connection.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use bytes::{Buf, Bytes, BytesMut};
use nimbus_guest::frame::{self, FrameError, FrameReader};
use nimbus_guest::protocol::{Chunk, Finished, GuestFault, HelloReply, MAX_CHUNK, Opened, Written};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;
use tar::{Archive, Builder, EntryType, Header};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::control::apart;
use super::fault::{at, conflict, invalid, lost};
use super::files::entry;
use super::resolve;
use super::world::refuse;

/// Chunks between thread and connection.
const QUEUE: usize = 4;

/// The init's own place, which is not the sandbox' content.
const OURS: &str = ".nimbus";

/// Sends an archive.
pub(crate) async fn send(mut stream: UnixStream, path: String) -> Result<(), FrameError> {
    let root = path.clone();
    let opened = apart(move || {
        let fd = resolve::open(&root, OFlags::PATH)?;
        let stat = rustix::fs::fstat(&fd).map_err(|error| at(&root, "look at", error))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if !resolve::is_kernels(&fd) => Ok((fd, true)),
            _ => resolve::open_file(&root).map(|(fd, _)| (fd, false)),
        }
    });
    let (root, is_dir) = match opened.await {
        Ok(opened) => opened,
        Err(fault) => return refuse(stream, fault).await,
    };
    frame::write(&mut stream, &HelloReply::Ok(Opened::Ready)).await?;
    let (chunks, mut ready) = mpsc::channel(QUEUE);
    let work = tokio::task::spawn_blocking(move || {
        let mut builder = Builder::new(Outgoing {
            chunks,
            buffer: BytesMut::with_capacity(MAX_CHUNK),
        });
        let packed = if is_dir {
            pack_dir(&root, &mut builder)
        } else {
            let name = path.rsplit('/').next().unwrap_or(&path);
            pack_file(root, Path::new(name), &mut builder)
        };
        packed
            .and_then(|()| builder.into_inner()?.flush())
            .map_err(|error| at(&path, "pack", error))
    });
    while let Some(bytes) = ready.recv().await {
        frame::write(&mut stream, &Chunk::Data(bytes)).await?;
    }
    let last = match work.await.map_err(lost).and_then(|done| done) {
        Ok(()) => Chunk::End,
        Err(fault) => Chunk::Fault(fault),
    };
    frame::write(&mut stream, &last).await
}

struct Outgoing {
    chunks: mpsc::Sender<Bytes>,
    buffer: BytesMut,
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = MAX_CHUNK - self.buffer.len().min(MAX_CHUNK);
        let now = bytes.get(..bytes.len().min(room)).unwrap_or_default();
        self.buffer.extend_from_slice(now);
        if self.buffer.len() >= MAX_CHUNK {
            self.flush()?;
        }
        Ok(now.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(MAX_CHUNK));
        let sent = self.chunks.blocking_send(full.freeze());
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// By names relative to the root, each resolved again: no descriptor per level, and nothing that is
/// exchanged for a link meanwhile leads out.
fn pack_dir(root: &OwnedFd, to: &mut Builder<Outgoing>) -> io::Result<()> {
    let mut left = VecDeque::from([PathBuf::new()]);
    while let Some(dir) = left.pop_front() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let opened = match resolve::open_in(root, &dir, flags) {
            Ok(opened) => opened,
            // It went away, or the user may not look into it: as `tar` does, the rest is worth having.
            Err(Errno::NOENT | Errno::ACCESS | Errno::LOOP | Errno::NOTDIR) => continue,
            Err(error) => return Err(error.into()),
        };
        if resolve::is_kernels(&opened) {
            continue;
        }
        let stat = rustix::fs::fstat(&opened)?;
        if !dir.as_os_str().is_empty() {
            let mut header = header(&stat, EntryType::Directory, 0);
            to.append_data(&mut header, &dir, io::empty())?;
        }
        let mut names = Vec::new();
        for found in Dir::read_from(&opened)? {
            use std::os::unix::ffi::OsStringExt;
            let name = found?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(std::ffi::OsString::from_vec(name));
            }
        }
        names.sort();
        for name in names {
            let path = dir.join(&name);
            if path == Path::new(OURS) {
                continue;
            }
            let Ok(stat) = rustix::fs::statat(&opened, &name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => left.push_back(path),
                FileType::Symlink => {
                    if let Ok(target) = rustix::fs::readlinkat(&opened, &name, Vec::new()) {
                        use std::os::unix::ffi::OsStrExt;
                        let target = Path::new(std::ffi::OsStr::from_bytes(target.to_bytes()));
                        let mut header = header(&stat, EntryType::Symlink, 0);
                        to.append_link(&mut header, &path, target)?;
                    }
                }
                FileType::RegularFile => {
                    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
                    if let Ok(file) = resolve::open_in(root, &path, flags) {
                        pack_file(file, &path, to)?;
                    }
                }
                // Devices, pipes and sockets mean nothing elsewhere.
                _ => {}
            }
        }
    }
    to.finish()
}

fn pack_file(file: OwnedFd, path: &Path, to: &mut Builder<Outgoing>) -> io::Result<()> {
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(());
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let mut header = header(&stat, EntryType::Regular, size);
    // What grows meanwhile is cut, what shrinks is filled up: the header has promised the size.
    let content = std::fs::File::from(file).chain(io::repeat(0)).take(size);
    to.append_data(&mut header, path, content)
}

fn header(stat: &Stat, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(u64::from(stat.st_uid));
    header.set_gid(u64::from(stat.st_gid));
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header
}

/// Receives an archive.
pub(crate) async fn receive(mut stream: UnixStream, path: String) -> Result<(), FrameError> {
    let dir = path.clone();
    let opened = apart(move || {
        let created = resolve::open(&dir, OFlags::PATH).is_err();
        let root = resolve::open("/", OFlags::PATH | OFlags::DIRECTORY)?;
        resolve::make_all(&root, Path::new(&dir), Mode::from_raw_mode(0o755))
            .map_err(|error| at(&dir, "make", error))?;
        Ok((resolve::open(&dir, OFlags::PATH | OFlags::DIRECTORY)?, created))
    });
    let (root, created) = match opened.await {
        Ok(opened) => opened,
        Err(fault) => return refuse(stream, fault).await,
    };
    frame::write(&mut stream, &HelloReply::Ok(Opened::Ready)).await?;
    let (chunks, arriving) = mpsc::channel(QUEUE);
    let work = tokio::task::spawn_blocking(move || {
        let incoming = Incoming {
            chunks: arriving,
            bytes: Bytes::new(),
            ended: false,
        };
        unpack(&root, incoming)?;
        let stat = rustix::fs::fstat(&root).map_err(|error| at(&path, "look at", error))?;
        let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or("/");
        let entry = entry(name, &stat);
        Ok(Written { entry, created })
    });
    let (from, mut to) = stream.split();
    let mut frames = FrameReader::new(from);
    let broken = loop {
        match frames.next::<Chunk>().await {
            Ok(Some(Chunk::Data(bytes))) => {
                // The thread has given up: it says why.
                if chunks.send(Some(bytes)).await.is_err() {
                    break Ok(());
                }
            }
            Ok(Some(Chunk::End)) => {
                let _ = chunks.send(None).await;
                break Ok(());
            }
            // Without the end, the thread knows that it was not all.
            Ok(Some(Chunk::Fault(_)) | None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    drop(chunks);
    let finished: Finished = work.await.map_err(lost).and_then(|done| done);
    broken?;
    frame::write(&mut to, &finished).await
}

struct Incoming {
    chunks: mpsc::Receiver<Option<Bytes>>,
    bytes: Bytes,
    ended: bool,
}

impl Read for Incoming {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.bytes.is_empty() && !self.ended {
            match self.chunks.blocking_recv() {
                Some(Some(bytes)) => self.bytes = bytes,
                Some(None) => self.ended = true,
                None => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        let length = self.bytes.len().min(to.len());
        if let Some(to) = to.get_mut(..length) {
            self.bytes.copy_to_slice(to);
        }
        Ok(length)
    }
}

fn unpack(root: &OwnedFd, mut incoming: Incoming) -> Result<(), GuestFault> {
    let bad = |error: io::Error| match error.raw_os_error() {
        Some(_) => at("", "unpack", error),
        None => invalid("body", format!("the archive cannot be read: {error}")),
    };
    // Set last: unpacking into a directory changes its time, and it may forbid writing.
    let mut dirs = Vec::new();
    let mut archive = Archive::new(&mut incoming);
    for item in archive.entries().map_err(bad)? {
        let mut item = item.map_err(bad)?;
        let named = item.path().map_err(bad)?.into_owned();
        let Some(path) = inside(&named)? else { continue };
        let fault = |what: &str, error: Errno| at(&path.to_string_lossy(), what, error);
        let kind = item.header().entry_type();
        let mode = Mode::from_raw_mode(item.header().mode().map_err(bad)? & 0o777);
        let mtime = item.header().mtime().map_err(bad)?;
        if kind == EntryType::Directory {
            resolve::make_all(root, &path, Mode::from_raw_mode(0o755))
                .map_err(|error| fault("make", error))?;
            dirs.push((path, mode, mtime));
            continue;
        }
        let (parent, name) = parent(root, &path).map_err(|error| fault("unpack", error))?;
        let replaced = match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        };
        replaced.map_err(|error| fault("replace", error))?;
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
                let file =
                    rustix::fs::openat(&parent, name, flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
                let mut file = std::fs::File::from(file.map_err(|error| fault("write", error))?);
                io::copy(&mut item, &mut file).map_err(bad)?;
                rustix::fs::fchmod(&file, mode).map_err(|error| fault("unpack", error))?;
                rustix::fs::futimens(&file, &times(mtime)).map_err(|error| fault("unpack", error))?;
            }
            EntryType::Symlink => {
                let target = link_name(&item, &path).map_err(bad)?;
                rustix::fs::symlinkat(&*target, &parent, name).map_err(|error| fault("link", error))?;
            }
            EntryType::Link => {
                let target = link_name(&item, &path).map_err(bad)?;
                let target = inside(&target)?.ok_or_else(|| outside(&target))?;
                let link = |()| {
                    let (from, old) = self::parent(root, &target)?;
                    rustix::fs::linkat(&from, old, &parent, name, AtFlags::empty())
                };
                link(()).map_err(|error| fault("link", error))?;
            }
            _ => {
                let why = "the archive holds a device, a pipe or something unknown";
                return Err(conflict(why).with("path", path.display()));
            }
        }
    }
    for (path, mode, mtime) in dirs.into_iter().rev() {
        let set = |()| {
            let dir = resolve::open_in(root, &path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            rustix::fs::fchmod(&dir, mode)?;
            rustix::fs::futimens(&dir, &times(mtime))
        };
        set(()).map_err(|error| at(&path.to_string_lossy(), "set the permissions of", error))?;
    }
    // What follows the archive's end is padding; a stream that breaks off in it is broken all the same.
    io::copy(&mut incoming, &mut io::sink()).map_err(bad)?;
    Ok(())
}

fn link_name<R: Read>(item: &tar::Entry<'_, R>, path: &Path) -> io::Result<PathBuf> {
    let target = item.link_name()?.map(std::borrow::Cow::into_owned);
    target.ok_or_else(|| io::Error::other(format!("{} is a link to nothing", path.display())))
}

/// The parent of an entry, made if missing.
fn parent<'a>(root: &OwnedFd, path: &'a Path) -> Result<(OwnedFd, &'a std::ffi::OsStr), Errno> {
    let parent = path.parent().unwrap_or(Path::new(""));
    resolve::make_all(root, parent, Mode::from_raw_mode(0o755))?;
    let dir = resolve::open_in(root, parent, OFlags::PATH | OFlags::DIRECTORY)?;
    Ok((dir, path.file_name().ok_or(Errno::INVAL)?))
}

/// A name that does not leave the archive, without its `./`; `None` for the root itself.
fn inside(path: &Path) -> Result<Option<PathBuf>, GuestFault> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(outside(path));
            }
        }
    }
    Ok((!clean.as_os_str().is_empty()).then_some(clean))
}

fn outside(path: &Path) -> GuestFault {
    invalid("body", "the archive holds a name that leads out of it").with("path", path.display())
}

fn times(mtime: u64) -> Timestamps {
    let time = Timespec {
        tv_sec: i64::try_from(mtime).unwrap_or(0),
        tv_nsec: 0,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        let clean = |path: &str| inside(Path::new(path)).map_err(|fault| fault.code);
        assert_eq!(clean("./a/./b"), Ok(Some("a/b".into())));
        assert_eq!(clean("./"), Ok(None));
        for bad in ["/etc/passwd", "../x", "a/../../x", "a/.."] {
            assert_eq!(clean(bad), Err("op.invalid_input".to_owned()), "{bad}");
        }
    }
}
