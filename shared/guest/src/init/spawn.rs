//! Starting a process.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nimbus_guest::protocol::{CommandSpec, GuestFault, TerminalSize};
use rustix::fs::OFlags;
use rustix::pipe::PipeFlags;
use rustix::process::Pid;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::fault::{self, invalid};

/// Where programs are looked for if nobody says; what the common images have.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Our end of a pipe or terminal.
pub(crate) type End = AsyncFd<OwnedFd>;

/// A process that was started, and our ends.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) pid: Pid,
    pub(crate) ends: Ends,
}

/// Our ends of what a process reads and writes.
#[derive(Debug)]
pub(crate) enum Ends {
    Pipes {
        stdin: Option<End>,
        stdout: End,
        stderr: End,
    },
    Terminal(End),
}

/// Starts it in a session of its own. Returns once the program was executed.
pub(crate) fn spawn(
    spec: &CommandSpec,
    env: &BTreeMap<String, String>,
    cwd: Option<&str>,
) -> Result<Started, GuestFault> {
    let Some((program, args)) = spec.argv.split_first() else {
        return Err(invalid("argv", "there is no program to run"));
    };
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(env);
    if !env.contains_key("PATH") {
        command.env("PATH", PATH);
    }
    if let Some(cwd) = cwd {
        // Told apart from a missing program, for which the kernel gives the same error.
        if !Path::new(cwd).is_dir() {
            return Err(invalid("cwd", "the working directory does not exist"));
        }
        command.current_dir(cwd);
    }
    let terminal = spec.terminal.is_some();
    let ends = match spec.terminal {
        Some(size) => open_terminal(size, &mut command),
        None => open_pipes(spec.stdin, &mut command),
    };
    let ends = ends.map_err(|error| fault::io_fault("make the command's pipes", error))?;
    let prepare = move || {
        rustix::process::setsid()?;
        if terminal {
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
    #[expect(unsafe_code, reason = "only the child itself can begin a session")]
    unsafe {
        command.pre_exec(prepare);
    }
    // The handle is let go: whoever ends is reaped in one place, by its pid.
    let child = command.spawn().map_err(|error| refused(program, error))?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| GuestFault::new("service.internal", "the process has no id"))?;
    Ok(Started { pid, ends })
}

fn open_pipes(input: bool, command: &mut Command) -> io::Result<Ends> {
    let stdin = if input {
        let (theirs, ours) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        command.stdin(Stdio::from(theirs));
        Some(end(ours, Interest::WRITABLE)?)
    } else {
        command.stdin(Stdio::null());
        None
    };
    let (stdout, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    command.stdout(Stdio::from(theirs));
    let (stderr, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    command.stderr(Stdio::from(theirs));
    Ok(Ends::Pipes {
        stdin,
        stdout: end(stdout, Interest::READABLE)?,
        stderr: end(stderr, Interest::READABLE)?,
    })
}

fn open_terminal(size: TerminalSize, command: &mut Command) -> io::Result<Ends> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags)?;
    rustix::pty::grantpt(&master)?;
    rustix::pty::unlockpt(&master)?;
    // Without its path, which may lead elsewhere if the image mounted something over /dev/pts.
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    resize(&master, size)?;
    command.stdin(Stdio::from(slave.try_clone()?));
    command.stdout(Stdio::from(slave.try_clone()?));
    command.stderr(Stdio::from(slave));
    Ok(Ends::Terminal(end(
        master,
        Interest::READABLE | Interest::WRITABLE,
    )?))
}

/// Sets the size of a terminal; its foreground processes are told.
pub(crate) fn resize(master: impl AsFd, size: TerminalSize) -> io::Result<()> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(rustix::termios::tcsetwinsize(master, size)?)
}

fn end(fd: OwnedFd, interest: Interest) -> io::Result<End> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
    // SAFETY: an `OwnedFd` is open, is the same one always and is closed by nobody else.
    #[expect(unsafe_code, reason = "registering a descriptor asks for a promise about it")]
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

fn refused(program: &str, error: io::Error) -> GuestFault {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::NotFound => invalid("argv", "there is no such program in the sandbox"),
        ErrorKind::PermissionDenied => invalid("argv", "the program may not be executed"),
        ErrorKind::ArgumentListTooLong => {
            invalid("argv", "the arguments and the environment are too long together")
        }
        ErrorKind::InvalidInput => invalid("argv", "an argument or a variable holds a zero byte"),
        _ => match error.raw_os_error() {
            Some(8) => invalid("argv", "the program is not of a format that can be executed"),
            _ => fault::io_fault("start the program", error),
        },
    }
    .with("program", program)
}
