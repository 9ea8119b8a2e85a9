//! Where output goes that does not fit in memory: one unlinked file for all commands, in slots of one
//! segment each.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags};

/// Size of a slot.
pub(crate) const SLOT: usize = 64 << 10;

/// Where the file may be made: what a writable root or a read-only one with its usual tmpfs has.
const PLACES: [&str; 4] = ["/tmp", "/var/tmp", "/run", "/dev/shm"];

/// The file and who has which part of it.
#[derive(Debug)]
pub(crate) struct Spill {
    file: RefCell<Option<File>>,
    free: RefCell<Vec<u32>>,
    used: Cell<u32>,
    limit: Cell<u32>,
}

/// A part of the file; free again when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    index: u32,
    length: usize,
    spill: std::rc::Rc<Spill>,
}

impl Spill {
    /// Nothing is opened before it is needed.
    pub(crate) fn new(limit_bytes: u64) -> Self {
        let spill = Self {
            file: RefCell::new(None),
            free: RefCell::new(Vec::new()),
            used: Cell::new(0),
            limit: Cell::new(0),
        };
        spill.set_limit(limit_bytes);
        spill
    }

    /// How much may be kept; what is kept already stays.
    pub(crate) fn set_limit(&self, bytes: u64) {
        let slots = bytes / u64::try_from(SLOT).unwrap_or(u64::MAX);
        self.limit.set(u32::try_from(slots).unwrap_or(u32::MAX));
    }

    /// Bytes kept.
    pub(crate) fn used_bytes(&self) -> u64 {
        let used = u64::from(self.used.get()) - u64::try_from(self.free.borrow().len()).unwrap_or(0);
        used * u64::try_from(SLOT).unwrap_or(0)
    }

    /// Writes at most [`SLOT`] bytes.
    pub(crate) fn put(self: &std::rc::Rc<Self>, data: &[u8]) -> io::Result<Slot> {
        let mut file = self.file.borrow_mut();
        let file = match &mut *file {
            Some(file) => file,
            none => none.insert(open()?),
        };
        let index = match self.free.borrow_mut().pop() {
            Some(index) => index,
            None if self.used.get() < self.limit.get() => self.used.replace(self.used.get() + 1),
            None => return Err(io::ErrorKind::StorageFull.into()),
        };
        // From here on dropping it gives the place back.
        let slot = Slot {
            index,
            length: data.len(),
            spill: std::rc::Rc::clone(self),
        };
        file.write_all_at(data, slot.position())?;
        Ok(slot)
    }
}

impl Slot {
    fn position(&self) -> u64 {
        u64::from(self.index) * u64::try_from(SLOT).unwrap_or(0)
    }

    /// What was written.
    pub(crate) fn get(&self) -> io::Result<Bytes> {
        let mut data = vec![0; self.length];
        match &*self.spill.file.borrow() {
            Some(file) => file.read_exact_at(&mut data, self.position())?,
            None => return Err(io::ErrorKind::NotFound.into()),
        }
        Ok(data.into())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // try_borrow: a slot whose write failed is dropped while `put` still holds the file; its place
        // has no content worth giving back then.
        if let Ok(file) = self.spill.file.try_borrow()
            && let Some(file) = &*file
        {
            // Gives the disk back; where it cannot, the place is written again later.
            let _ = rustix::fs::fallocate(
                file,
                FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                self.position(),
                u64::try_from(SLOT).unwrap_or(0),
            );
        }
        self.spill.free.borrow_mut().push(self.index);
    }
}

fn open() -> io::Result<File> {
    for place in PLACES.map(Path::new) {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        if let Ok(file) = rustix::fs::open(place, flags, Mode::RUSR | Mode::WUSR) {
            return Ok(file.into());
        }
    }
    Ok(rustix::fs::memfd_create("nimbus-log", MemfdFlags::CLOEXEC)?.into())
}
