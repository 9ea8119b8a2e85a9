//! PID 1 of a sandbox: starts what it is told, reaps, and serves its socket.
//!
//! Nothing is trusted less than what runs beside it: it is the same user, so the init cannot be dumped
//! or traced (its memory holds the secrets of the claim), inherits no descriptor but its three, and
//! ends on no signal that a process inside can send but TERM and INT, which are the engine's way to
//! stop a container.

mod archive;
mod attach;
mod bytelog;
mod command;
mod commands;
mod content;
mod control;
mod egress;
mod fault;
mod files;
mod memory;
mod ports;
mod processes;
mod resolve;
mod spawn;
mod spill;
mod world;

use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;

use nimbus_guest::boot;
use nimbus_guest::protocol::PROXY_PORT;
use rustix::fs::{Dir, Mode, OFlags};
use rustix::process::{DumpableBehavior, Signal};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

use world::{Places, World};

/// Threads for file work. Archives keep one while they last.
const THREADS: usize = 64;

/// File work needs little stack.
const STACK: usize = 256 << 10;

/// After a connection that could not be taken: there are too many open files, and nothing says when one
/// of them is closed.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

fn main() -> ExitCode {
    match begin() {
        Ok(code) => code,
        Err(error) => {
            // The engine keeps what is said here; there is nobody else to tell.
            let _ = writeln!(io::stderr(), "nimbus-guest: {error}");
            ExitCode::FAILURE
        }
    }
}

fn begin() -> io::Result<ExitCode> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    close_inherited()?;
    let first = rustix::process::getpid().is_init();
    if !first {
        // So that it can be run without a container: orphans come here all the same.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    }
    let places = places(first, std::env::args().skip(1))?;
    let (mut agent, listener) = boot::take_listener(&places.slot.join(boot::BOOT_SOCKET))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(THREADS)
        .thread_stack_size(STACK)
        .thread_keep_alive(std::time::Duration::from_secs(2))
        .build()?;
    let local = tokio::task::LocalSet::new();
    let code = local.block_on(&runtime, async move {
        let world = World::new(places);
        let listener = UnixListener::from_std(listener)?;
        let mut children = signal(SignalKind::child())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        agent.write_all(&[boot::READY])?;
        drop(agent);
        loop {
            tokio::select! {
                _ = children.recv() => world.commands.reap(),
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                () = world.shutdown.notified() => {
                    kill_all(first, &world);
                    return Ok(ExitCode::SUCCESS);
                }
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        tokio::task::spawn_local(Rc::clone(&world).serve(stream));
                    }
                    Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                },
            }
        }
        // The engine's stop: everybody is told and has as long as the engine gives.
        if first {
            processes::signal_all(Signal::TERM);
        } else {
            world.commands.signal_each(Signal::TERM);
        }
        while world.commands.any_running() {
            tokio::select! {
                _ = children.recv() => world.commands.reap(),
                () = world.shutdown.notified() => break,
                // Its output is complete a moment after it was reaped.
                () = world.commands.ended.notified() => {}
            }
        }
        kill_all(first, &world);
        // As shells say it: ended by TERM.
        Ok(ExitCode::from(143))
    });
    // A thread may still wait for a disk.
    runtime.shutdown_background();
    code
}

fn kill_all(first: bool, world: &World) {
    if first {
        processes::signal_all(Signal::KILL);
    } else {
        world.commands.kill_each();
    }
}

fn places(first: bool, args: impl Iterator<Item = String>) -> io::Result<Places> {
    let mut places = Places {
        slot: PathBuf::from(boot::SLOT_IN_SANDBOX),
        hosts: first.then(|| PathBuf::from("/etc/hosts")),
        proxy_port: PROXY_PORT,
    };
    for arg in args {
        match arg.split_once('=') {
            Some(("--slot", path)) => places.slot = path.into(),
            Some(("--hosts", path)) => places.hosts = Some(path.into()),
            Some(("--proxy-port", port)) => {
                places.proxy_port = port.parse().map_err(io::Error::other)?;
            }
            _ => {
                let what = "arguments are --slot=, --hosts= and --proxy-port=";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
        }
    }
    Ok(places)
}

/// Descriptors of whoever started us are not for what we start.
fn close_inherited() -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut dir = Dir::new(rustix::fs::open("/proc/self/fd", flags, Mode::empty())?)?;
    let own = dir.fd()?.as_raw_fd();
    let mut open: Vec<RawFd> = Vec::new();
    while let Some(entry) = dir.read() {
        let number = entry?
            .file_name()
            .to_str()
            .ok()
            .and_then(|name| name.parse().ok());
        open.extend(number.filter(|fd: &RawFd| *fd > 2 && *fd != own));
    }
    for fd in open {
        // SAFETY: it was open a moment ago, and nothing here has opened it: this is the first thing that
        // the process does, and the directory that was read is left out.
        #[expect(unsafe_code, reason = "closing what was inherited has no owner to drop")]
        unsafe {
            rustix::io::close(fd);
        }
    }
    Ok(())
}
