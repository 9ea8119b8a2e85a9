//! Paths inside of the sandbox, resolved by the kernel.

use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use nimbus_guest::protocol::GuestFault;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::fault::{self, at, conflict, invalid};

/// Links that may lead from one file to the next; as many as the kernel follows.
const LINKS: usize = 40;

/// Neither out of the root, nor through /proc/…/fd and its like, which lead to what the init holds.
const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// File systems whose "files" are the kernel's, some of them this process' memory.
const KERNELS: [i64; 3] = [0x9fa0, 0x6265_6572, 0x6367_7270];

/// The directory in which an entry is or will be, and its name there.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) dir: OwnedFd,
    pub(crate) name: String,
}

fn check(path: &str) -> Result<(), GuestFault> {
    if !path.starts_with('/') || path.contains('\0') || path.len() > 4095 {
        return Err(invalid("path", "the path is not absolute").with("path", path));
    }
    Ok(())
}

/// Opens what a path leads to. With [`OFlags::NOFOLLOW`] and [`OFlags::PATH`] a link itself.
pub(crate) fn open(path: &str, flags: OFlags) -> Result<OwnedFd, GuestFault> {
    check(path)?;
    open_in(&root()?, Path::new(path), flags).map_err(|error| at(path, "open", error))
}

/// Opens relative to `root`, out of which nothing leads.
pub(crate) fn open_in(root: &OwnedFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), INSIDE) {
            // A rename elsewhere came in between: the kernel wants it tried again.
            Err(Errno::AGAIN | Errno::INTR) => {}
            done => return done,
        }
    }
}

fn root() -> Result<OwnedFd, GuestFault> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, "/", flags, Mode::empty()).map_err(|error| at("/", "open", error))
}

/// Splits off the last component, which has to be a name.
pub(crate) fn place(path: &str, create_parents: bool) -> Result<Place, GuestFault> {
    check(path)?;
    let whole = Path::new(path);
    let name = match whole.components().next_back() {
        Some(Component::Normal(name)) if !path.ends_with("/.") => name.to_string_lossy().into_owned(),
        _ => return Err(invalid("path", "the path does not end with a name").with("path", path)),
    };
    let parent = whole.parent().unwrap_or(Path::new("/"));
    if create_parents {
        make_all(&root()?, parent, Mode::from_raw_mode(0o755))
            .map_err(|error| at(path, "make the parent directories", error))?;
    }
    let dir = open(&parent.to_string_lossy(), OFlags::PATH | OFlags::DIRECTORY)?;
    Ok(Place { dir, name })
}

/// The place of the file that a write to `path` is for: links are followed to their end, which need not
/// exist.
pub(crate) fn place_of_file(path: &str, create_parents: bool) -> Result<Place, GuestFault> {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let place = place(&path, create_parents)?;
        match rustix::fs::readlinkat(&place.dir, &place.name, Vec::new()) {
            Ok(target) => {
                let parent = Path::new(&path).parent().unwrap_or(Path::new("/"));
                path = parent
                    .join(&*target.to_string_lossy())
                    .to_string_lossy()
                    .into_owned();
            }
            // Not a link, or not there.
            Err(_) => return Ok(place),
        }
    }
    Err(at(&path, "follow the links", Errno::LOOP))
}

/// Makes a directory and its parents; what is there is fine.
pub(crate) fn make_all(root: &OwnedFd, path: &Path, mode: Mode) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    if open_in(root, path, flags).is_ok() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| *parent != path) {
        make_all(root, parent, mode)?;
        let parent = open_in(root, parent, flags)?;
        if let Some(name) = path.file_name() {
            match rustix::fs::mkdirat(&parent, name, mode) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
    }
    open_in(root, path, flags).map(drop)
}

/// What stands at a place, links not followed; `None` if nothing.
pub(crate) fn look(place: &Place) -> Result<Option<Stat>, GuestFault> {
    match rustix::fs::statat(&place.dir, &place.name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(at(&place.name, "look at", error)),
    }
}

/// Opens a regular file for reading; anything else is refused before it notices.
pub(crate) fn open_file(path: &str) -> Result<(OwnedFd, Stat), GuestFault> {
    let seen = open(path, OFlags::PATH)?;
    let stat = |fd: &OwnedFd| rustix::fs::fstat(fd).map_err(|error| at(path, "look at", error));
    regular(path, &seen, &stat(&seen)?)?;
    // It may have been exchanged since: neither waits for a pipe's other end nor becomes a terminal.
    let file = open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    let stat = stat(&file)?;
    regular(path, &file, &stat)?;
    Ok((file, stat))
}

/// Refuses what is not a regular file of a real file system.
pub(crate) fn regular(path: &str, file: &OwnedFd, stat: &Stat) -> Result<(), GuestFault> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile if !is_kernels(file) => Ok(()),
        FileType::Directory => Err(conflict("it is a directory").with("path", path)),
        _ => Err(conflict("it is a special file").with("path", path)),
    }
}

/// Whether it lies on /proc, /sys or the like.
pub(crate) fn is_kernels(file: &OwnedFd) -> bool {
    let kind = rustix::fs::fstatfs(file).map(|fs| fs.f_type);
    kind.is_ok_and(|kind| KERNELS.contains(&kind))
}

/// Permission bits from outside.
pub(crate) fn mode(mode: u32) -> Result<Mode, GuestFault> {
    if mode > 0o7777 {
        return Err(fault::invalid("mode", "these are not permission bits").with("mode", mode));
    }
    Ok(Mode::from_raw_mode(mode))
}
