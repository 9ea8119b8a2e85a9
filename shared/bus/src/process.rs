//! One nats-server process: where its program comes from, how it starts and how it is told to end.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{FlockOperation, MemfdFlags, SealFlags};
use rustix::io::FdFlags;
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::error::BusError;

/// The nats-server that was compressed into this crate; empty when there was none at build time.
const COMPRESSED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/nats-server.zst"));

/// A program that can be started.
#[derive(Debug)]
pub(crate) enum Program {
    /// A file.
    File(Utf8PathBuf),
    /// The embedded one, unpacked into memory: nothing on disk to be found missing or changed.
    Memory(OwnedFd),
}

impl Program {
    /// The program at `path`, or the embedded one.
    pub(crate) fn find(path: Option<Utf8PathBuf>) -> Result<Self, BusError> {
        if let Some(path) = path {
            return match std::fs::metadata(&path) {
                Ok(_) => Ok(Self::File(path)),
                Err(source) => Err(BusError::File {
                    what: "use the nats-server",
                    path,
                    source,
                }),
            };
        }
        if COMPRESSED.is_empty() {
            return Err(BusError::NoServer);
        }
        unpack().map(Self::Memory).map_err(|error| BusError::Server {
            what: "unpack",
            reason: error.to_string(),
        })
    }

    fn path(&self) -> String {
        match self {
            Self::File(path) => path.to_string(),
            // Resolved by the child itself, before its copy of the descriptor closes on exec.
            Self::Memory(memory) => format!("/proc/self/fd/{}", memory.as_raw_fd()),
        }
    }
}

/// About ten seconds on a machine that is very busy.
const SEAL_TRIES: u32 = 50;

fn unpack() -> std::io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Linux 6.3 and later want to hear that it will be executed; older ones do not know the flag.
    let memory = rustix::fs::memfd_create("nats-server", flags | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create("nats-server", flags))?;
    let mut file = File::from(memory);
    zstd::stream::copy_decode(COMPRESSED, &mut file)?;
    let memory = OwnedFd::from(file);
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    let mut tries = 0;
    // A page that the kernel is still at work with makes it busy (memfd_wait_for_pins: after 150 ms of waiting).
    while let Err(error) = rustix::fs::fcntl_add_seals(&memory, seals) {
        tries += 1;
        if error != rustix::io::Errno::BUSY || tries == SEAL_TRIES {
            return Err(error.into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(memory)
}

/// Holds the folder: kept by the server's process too, so that a new server cannot open the files
/// of one that is still dying.
pub(crate) fn lock(path: &Utf8Path) -> std::io::Result<OwnedFd> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
    Ok(file.into())
}

/// Starts the program with this configuration. It dies with the calling *thread*.
pub(crate) fn spawn(program: &Program, config: &Utf8Path, lock: &OwnedFd) -> std::io::Result<Child> {
    let parent = rustix::process::getpid();
    let lock = lock.as_raw_fd();
    let mut command = Command::new(program.path());
    command
        .arg0("nats-server")
        .arg("--config")
        .arg(config)
        .arg("--logtime=false");
    command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    // A Ctrl-C in the terminal is for Nimbus, which ends the server when everybody has left it.
    command.process_group(0);
    let prepare = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        if rustix::process::getppid() != Some(parent) {
            return Err(rustix::io::Errno::SRCH.into());
        }
        // SAFETY: the descriptor belongs to the caller, who keeps it open until the child has started.
        #[expect(unsafe_code, reason = "naming an inherited descriptor in the child")]
        let lock = unsafe { BorrowedFd::borrow_raw(lock) };
        rustix::io::fcntl_setfd(lock, FdFlags::empty())?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes three system calls and allocates nothing.
    #[expect(unsafe_code, reason = "only the child can ask to die with its parent")]
    unsafe {
        command.pre_exec(prepare);
    }
    command.spawn()
}

/// A handle that signals exactly this process, also when its id was given to another meanwhile.
pub(crate) fn handle(child: &Child) -> std::io::Result<OwnedFd> {
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(std::io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// Sends a signal; a process that is gone is fine.
pub(crate) fn signal(handle: &OwnedFd, signal: Signal) {
    let _ = rustix::process::pidfd_send_signal(handle.as_fd(), signal);
}
