//! Files and directories by path.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use nimbus_guest::protocol::{Entry, EntryKind, GuestFault};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RawMode, RenameFlags, Stat};
use rustix::io::Errno;

use super::fault::{at, conflict, invalid};
use super::resolve::{self, look, place};

/// The most entries of one page.
const PAGE: u32 = 1000;

/// How deep a removal goes; every level holds a descriptor.
const DEPTH: usize = 500;

/// An entry as others see it.
pub(crate) fn entry(name: &str, stat: &Stat) -> Entry {
    let nanos = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let mtime_ns = stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(nanos);
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    Entry {
        name: name.to_owned(),
        kind: kind(stat.st_mode),
        size,
        mode: stat.st_mode & 0o7777,
        mtime_ns,
        etag: format!("{:x}-{size:x}-{mtime_ns:x}", stat.st_ino),
    }
}

fn kind(mode: RawMode) -> EntryKind {
    match FileType::from_raw_mode(mode) {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Dir,
        FileType::Symlink => EntryKind::Symlink,
        _ => EntryKind::Other,
    }
}

fn name_of(path: &str) -> &str {
    let name = path.trim_end_matches('/').rsplit('/').next();
    name.filter(|name| !name.is_empty()).unwrap_or("/")
}

pub(crate) fn stat(path: &str, follow: bool) -> Result<Entry, GuestFault> {
    let flags = if follow {
        OFlags::PATH
    } else {
        OFlags::PATH | OFlags::NOFOLLOW
    };
    let file = resolve::open(path, flags)?;
    let stat = rustix::fs::fstat(&file).map_err(|error| at(path, "look at", error))?;
    Ok(entry(name_of(path), &stat))
}

/// One page, and whether there is more. Keeps a page in memory however large the directory is.
pub(crate) fn list(path: &str, after: Option<&str>, limit: u32) -> Result<(Vec<Entry>, bool), GuestFault> {
    if !(1..=PAGE).contains(&limit) {
        return Err(invalid("limit", format!("a page has 1 to {PAGE} entries")));
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let dir = resolve::open(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut page = BTreeMap::new();
    let mut more = false;
    for found in Dir::read_from(&dir).map_err(|error| at(path, "list", error))? {
        let found = found.map_err(|error| at(path, "list", error))?;
        let name = found.file_name().to_string_lossy().into_owned();
        if name == "." || name == ".." || after.is_some_and(|after| name.as_str() <= after) {
            continue;
        }
        page.insert(name, found.file_name().to_owned());
        if page.len() > limit {
            page.pop_last();
            more = true;
        }
    }
    let entries = page.iter().filter_map(|(name, raw)| {
        // One that went away meanwhile is not there.
        let stat = rustix::fs::statat(&dir, raw.as_c_str(), AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(entry(name, &stat))
    });
    Ok((entries.collect(), more))
}

pub(crate) fn mkdir(path: &str, mode: Option<u32>, parents: bool) -> Result<Entry, GuestFault> {
    let mode = resolve::mode(mode.unwrap_or(0o755))?;
    let path = path.trim_end_matches('/');
    let place = place(path, parents)?;
    match rustix::fs::mkdirat(&place.dir, &place.name, mode) {
        // Past the umask.
        Ok(()) => rustix::fs::chmodat(&place.dir, &place.name, mode, AtFlags::empty())
            .map_err(|error| at(path, "set the permissions of", error))?,
        Err(Errno::EXIST) if parents => {
            let is_dir = |stat: &Stat| kind(stat.st_mode) == EntryKind::Dir;
            if !look(&place)?.as_ref().is_some_and(is_dir) {
                return Err(at(path, "make", Errno::EXIST));
            }
        }
        Err(error) => return Err(at(path, "make", error)),
    }
    stat(path, false)
}

pub(crate) fn rename(from: &str, to: &str, replace: bool) -> Result<Entry, GuestFault> {
    let old = place(from.trim_end_matches('/'), false)?;
    let new = place(to.trim_end_matches('/'), false)?;
    if look(&old)?.is_none() {
        return Err(at(from, "move", Errno::NOENT));
    }
    let flags = if replace {
        RenameFlags::empty()
    } else {
        RenameFlags::NOREPLACE
    };
    match rustix::fs::renameat_with(&old.dir, &old.name, &new.dir, &new.name, flags) {
        Ok(()) => stat(to.trim_end_matches('/'), false),
        Err(error) => Err(at(to, "move", error)),
    }
}

pub(crate) fn remove(path: &str, recursive: bool) -> Result<(), GuestFault> {
    let trimmed = path.trim_end_matches('/');
    let place = place(trimmed, false)?;
    let Some(stat) = look(&place)? else {
        return Err(at(path, "remove", Errno::NOENT));
    };
    let removed = if kind(stat.st_mode) != EntryKind::Dir {
        rustix::fs::unlinkat(&place.dir, &place.name, AtFlags::empty())
    } else if recursive {
        remove_dir(&place.dir, place.name.as_ref(), DEPTH)
    } else {
        rustix::fs::unlinkat(&place.dir, &place.name, AtFlags::REMOVEDIR)
    };
    match removed {
        Err(Errno::MLINK) => Err(conflict("the directories are nested too deep").with("path", path)),
        removed => removed.map_err(|error| at(path, "remove", error)),
    }
}

/// By descriptors all the way down, so that a directory exchanged for a link leads nowhere.
fn remove_dir(parent: &OwnedFd, name: &std::ffi::OsStr, depth: usize) -> Result<(), Errno> {
    if depth == 0 {
        return Err(Errno::MLINK);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    for found in Dir::read_from(&dir)? {
        let found = found?;
        let name = found.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        match rustix::fs::unlinkat(&dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) => {
                use std::os::unix::ffi::OsStrExt;
                remove_dir(&dir, std::ffi::OsStr::from_bytes(name.to_bytes()), depth - 1)?;
            }
            Err(error) => return Err(error),
        }
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}
