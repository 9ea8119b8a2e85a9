//! One command: its processes, its input and its output.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use nimbus_guest::protocol::{
    CommandInfo, CommandSpec, ExitStatus, GuestFault, OpenedCommand, Since, Stream, TerminalSize,
};
use rustix::process::{Pid, Signal};
use tokio::io::Interest;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::bytelog::ByteLog;
use super::fault::{conflict, invalid};
use super::processes;
use super::spawn::{self, End, Ends, Started};
use super::spill::Spill;

/// How much output of a command is kept if nobody says.
const LOG_BYTES: u64 = 64 << 20;

/// Between hanging up and killing.
const HANG_UP_GRACE: Duration = Duration::from_secs(1);

/// One read. What a pipe holds.
const READ: usize = 64 << 10;

/// A command that runs or ran.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) id: String,
    /// Tells a repeat from another command of the same id.
    pub(crate) digest: u64,
    pid: Pid,
    started_ms: u64,
    lossless: bool,
    timeout: Option<Duration>,
    linger: Option<Duration>,
    pub(crate) log: RefCell<ByteLog>,
    /// The log has grown, or the command has ended.
    pub(crate) grown: Notify,
    readers: RefCell<Readers>,
    /// A reader has moved, come or gone.
    readers_changed: Notify,
    /// Set by the reaper.
    reaped: Cell<Option<(Option<i32>, Option<i32>)>>,
    reaped_now: Notify,
    timed_out: Cell<bool>,
    /// Set once all output is in the log, too.
    exit: Cell<Option<ExitStatus>>,
    input: RefCell<Input>,
    /// Another attachment gives the input now.
    input_taken: Notify,
}

#[derive(Debug, Default)]
struct Readers {
    next: u64,
    offsets: Vec<(u64, u64)>,
    last_left: Option<Instant>,
}

#[derive(Debug)]
struct Input {
    to: Option<Rc<End>>,
    terminal: bool,
    accepted: u64,
    ended: bool,
    holder: u64,
}

/// An attachment's place among the readers of a command, until it is dropped.
#[derive(Debug)]
pub(crate) struct Reader {
    command: Rc<Command>,
    key: u64,
}

impl Reader {
    /// It has sent everything before this offset.
    pub(crate) fn reached(&self, offset: u64) {
        let mut readers = self.command.readers.borrow_mut();
        if let Some((_, at)) = readers.offsets.iter_mut().find(|(key, _)| *key == self.key) {
            *at = offset;
        }
        self.command.readers_changed.notify_waiters();
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut readers = self.command.readers.borrow_mut();
        readers.offsets.retain(|(key, _)| *key != self.key);
        if readers.offsets.is_empty() {
            readers.last_left = Some(Instant::now());
        }
        self.command.readers_changed.notify_waiters();
    }
}

impl Command {
    /// What was started, and the task that has to be driven for it.
    pub(crate) fn new(
        spec: &CommandSpec,
        digest: u64,
        started: Started,
        spill: Rc<Spill>,
        make_room: impl Fn() + 'static,
        ended: Rc<Notify>,
    ) -> (Rc<Self>, impl Future<Output = ()> + 'static) {
        let (outputs, to, terminal) = match started.ends {
            Ends::Pipes {
                stdin,
                stdout,
                stderr,
            } => {
                let outputs = [Some(stdout), Some(stderr)].map(|end| end.map(Rc::new));
                (outputs, stdin.map(Rc::new), false)
            }
            Ends::Terminal(master) => {
                let master = Rc::new(master);
                ([Some(Rc::clone(&master)), None], Some(master), true)
            }
        };
        let command = Rc::new(Self {
            id: spec.id.clone(),
            digest,
            pid: started.pid,
            started_ms: now_ms(),
            lossless: spec.lossless,
            timeout: spec.timeout_ms.map(Duration::from_millis),
            linger: spec.linger_ms.map(Duration::from_millis),
            log: RefCell::new(ByteLog::new(spec.log_bytes.unwrap_or(LOG_BYTES), spill)),
            grown: Notify::new(),
            readers: RefCell::default(),
            readers_changed: Notify::new(),
            reaped: Cell::new(None),
            reaped_now: Notify::new(),
            timed_out: Cell::new(false),
            exit: Cell::new(None),
            input: RefCell::new(Input {
                to,
                terminal,
                accepted: 0,
                ended: false,
                holder: 0,
            }),
            input_taken: Notify::new(),
        });
        let pump = Pump {
            command: Rc::clone(&command),
            outputs,
            make_room,
            ended,
            buffer: Vec::new(),
        };
        (command, pump.run())
    }

    /// Process id of the first process.
    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// How it ended, if it did and its output is complete.
    pub(crate) fn exit(&self) -> Option<ExitStatus> {
        self.exit.get()
    }

    /// The first process was reaped.
    pub(crate) fn on_reaped(&self, code: Option<i32>, signal: Option<i32>) {
        self.reaped.set(Some((code, signal)));
        self.reaped_now.notify_one();
    }

    pub(crate) fn info(&self) -> CommandInfo {
        let log = self.log.borrow();
        CommandInfo {
            id: self.id.clone(),
            pid: self.pid(),
            exit: self.exit.get(),
            log_start: log.start(),
            log_end: log.end(),
            input: self.input.borrow().accepted,
            attached: u32::try_from(self.readers.borrow().offsets.len()).unwrap_or(u32::MAX),
            started_ms: self.started_ms,
        }
    }

    pub(crate) fn has_readers(&self) -> bool {
        !self.readers.borrow().offsets.is_empty()
    }

    /// Adds a reader.
    pub(crate) fn attach(
        self: &Rc<Self>,
        since: Since,
        started: bool,
    ) -> Result<(Reader, OpenedCommand), GuestFault> {
        let (start, end) = {
            let log = self.log.borrow();
            (log.start(), log.end())
        };
        let from = match since {
            Since::Tail(bytes) => end.saturating_sub(bytes).max(start),
            Since::Offset(offset) if offset > end => {
                return Err(invalid("since", "the output is not that long yet").with("end", end));
            }
            Since::Offset(offset) if offset < start => return Err(out_of_retention(start)),
            Since::Offset(offset) => offset,
        };
        let mut readers = self.readers.borrow_mut();
        readers.next += 1;
        let key = readers.next;
        readers.offsets.push((key, from));
        readers.last_left = None;
        drop(readers);
        self.readers_changed.notify_waiters();
        let reader = Reader {
            command: Rc::clone(self),
            key,
        };
        let opened = OpenedCommand {
            started,
            from,
            end,
            input: self.input.borrow().accepted,
            pid: self.pid(),
            exit: self.exit.get(),
        };
        Ok((reader, opened))
    }

    /// Gives the input to a new holder; the one before has lost it.
    pub(crate) fn take_input(&self) -> u64 {
        let mut input = self.input.borrow_mut();
        input.holder += 1;
        self.input_taken.notify_waiters();
        input.holder
    }

    /// Returns once `holder` is not the one that gives the input any more.
    pub(crate) async fn input_lost(&self, holder: u64) {
        while self.input.borrow().holder == holder {
            // Nothing else runs between the look and the wait: one thread.
            self.input_taken.notified().await;
        }
    }

    /// Input accepted so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.input.borrow().accepted
    }

    /// Whether there is a pipe or terminal for input at all.
    pub(crate) fn takes_input(&self) -> bool {
        let input = self.input.borrow();
        input.to.is_some() || input.ended
    }

    /// Whether the end of its input was said.
    pub(crate) fn input_ended(&self) -> bool {
        self.input.borrow().ended
    }

    /// Gives the pipe some of `bytes`, waiting until it takes any; returns how much. Counted when it
    /// returns, so it may be cancelled.
    pub(crate) async fn write_input(&self, bytes: &Bytes) -> usize {
        let to = self.input.borrow().to.clone();
        let taken = match to {
            Some(to) => write_some(&to, bytes).await,
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        // A process that does not read any more has taken it all: nobody can tell the difference.
        let taken = taken.unwrap_or_else(|_| bytes.len());
        self.input.borrow_mut().accepted += u64::try_from(taken).unwrap_or(0);
        taken
    }

    /// There is no more input.
    pub(crate) async fn end_input(&self) {
        let (to, terminal) = {
            let mut input = self.input.borrow_mut();
            if std::mem::replace(&mut input.ended, true) {
                return;
            }
            let to = if input.terminal {
                input.to.clone()
            } else {
                input.to.take()
            };
            (to, input.terminal)
        };
        if terminal && let Some(to) = to {
            // End-of-file as one types it.
            let _ = write_some(&to, &Bytes::from_static(&[4])).await;
        }
    }

    pub(crate) fn resize(&self, size: TerminalSize) {
        let input = self.input.borrow();
        if let Some(master) = input.to.as_ref().filter(|_| input.terminal) {
            // A terminal whose last process has gone does not mind.
            let _ = spawn::resize(master.get_ref(), size);
        }
    }

    /// Signals its process group, on a terminal the one in the foreground; KILL is for everything.
    pub(crate) fn signal(&self, number: i32) -> Result<(), GuestFault> {
        let signal = processes::signal(number)
            .ok_or_else(|| invalid("signal", "there is no such signal").with("signal", number))?;
        if self.reaped.get().is_some() {
            return Ok(());
        }
        if signal == Signal::KILL {
            processes::kill_tree(self.pid);
            return Ok(());
        }
        let foreground = {
            let input = self.input.borrow();
            let master = input.to.as_ref().filter(|_| input.terminal);
            master.and_then(|master| rustix::termios::tcgetpgrp(master.get_ref()).ok())
        };
        processes::signal_group(foreground.unwrap_or(self.pid), signal);
        Ok(())
    }

    /// Kills everything it started, also after its first process has ended.
    pub(crate) fn kill(&self) {
        processes::kill_tree(self.pid);
    }

    /// Where the hindmost reader is.
    fn hindmost(&self) -> Option<u64> {
        let readers = self.readers.borrow();
        readers.offsets.iter().map(|(_, offset)| *offset).min()
    }
}

/// What is told whoever wants dropped output.
pub(crate) fn out_of_retention(start: u64) -> GuestFault {
    GuestFault::new(
        "op.out_of_retention",
        "this output was dropped, because too much followed",
    )
    .with("start", start)
}

/// What is told an attachment that lost the input.
pub(crate) fn input_taken() -> GuestFault {
    conflict("another client gives the input now")
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1000 + u64::try_from(now.tv_nsec / 1_000_000).unwrap_or(0)
}

async fn write_some(to: &End, bytes: &[u8]) -> io::Result<usize> {
    loop {
        let mut ready = to.writable().await?;
        match ready.try_io(|fd| Ok(rustix::io::write(fd, bytes)?)) {
            Ok(done) => return done,
            Err(_would_block) => {}
        }
    }
}

/// Carries output into the log and sees to the limits of one command.
struct Pump<F> {
    command: Rc<Command>,
    outputs: [Option<Rc<End>>; 2],
    make_room: F,
    ended: Rc<Notify>,
    buffer: Vec<u8>,
}

const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

enum Read {
    Some,
    Later,
    End,
}

impl<F: Fn()> Pump<F> {
    async fn run(mut self) {
        let command = Rc::clone(&self.command);
        let timeout = deadline(command.timeout);
        tokio::pin!(timeout);
        let linger = lonely(&command);
        tokio::pin!(linger);
        let (mut in_time, mut wanted) = (true, true);
        while command.reaped.get().is_none() {
            let room = self.room();
            tokio::select! {
                biased;
                () = command.reaped_now.notified() => {}
                () = &mut timeout, if in_time => {
                    in_time = false;
                    command.timed_out.set(true);
                    command.kill();
                }
                () = &mut linger, if wanted => {
                    wanted = false;
                    command.kill();
                }
                () = command.readers_changed.notified(), if room == 0 => {}
                which = readable(&self.outputs), if room > 0 => { self.read(which, room); }
            }
        }
        self.drain().await;
        self.finish();
        self.discard().await;
    }

    /// How much may be read now.
    fn room(&self) -> usize {
        let needed = self.command.lossless.then(|| self.command.hindmost()).flatten();
        let log = self.command.log.borrow();
        needed
            .and_then(|needed| log.room_before_drop(needed))
            .map_or(READ, |room| room.min(READ))
    }

    fn read(&mut self, which: usize, room: usize) -> Read {
        let Some(end) = self.outputs.get(which).and_then(Option::as_ref) else {
            return Read::End;
        };
        self.buffer.resize(READ, 0);
        let Some(buffer) = self.buffer.get_mut(..room) else {
            return Read::Later;
        };
        let read = match rustix::io::read(end.get_ref(), &mut *buffer) {
            Ok(read) => read,
            Err(rustix::io::Errno::AGAIN) => {
                empty(end);
                return Read::Later;
            }
            Err(rustix::io::Errno::INTR) => return Read::Some,
            // A terminal whose last process has gone says EIO.
            Err(_) => 0,
        };
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
            if let Some(output) = self.outputs.get_mut(which) {
                *output = None;
            }
            return Read::End;
        };
        let stream = STREAMS.get(which).copied().unwrap_or(Stream::Stdout);
        let squeezed = {
            let mut log = self.command.log.borrow_mut();
            log.append(stream, now_ms(), bytes);
            log.take_squeezed()
        };
        if squeezed {
            (self.make_room)();
        }
        self.command.grown.notify_waiters();
        Read::Some
    }

    /// Takes what the first process has written before it ended. What it left running may go on
    /// writing for ever and is not waited for.
    async fn drain(&mut self) {
        for which in 0..STREAMS.len() {
            loop {
                let room = self.room();
                if room == 0 {
                    self.command.readers_changed.notified().await;
                    continue;
                }
                match self.read(which, room) {
                    Read::Some => tokio::task::yield_now().await,
                    Read::Later | Read::End => break,
                }
            }
        }
    }

    fn finish(&mut self) {
        let command = &self.command;
        let (code, signal) = command.reaped.get().unwrap_or_default();
        // One that was killed does not leave half of itself; one that ended well may leave a server.
        if signal.is_some() || command.timed_out.get() {
            command.kill();
        }
        command.log.borrow_mut().rest();
        command.input.borrow_mut().to = None;
        command.exit.set(Some(ExitStatus {
            code,
            signal,
            timed_out: command.timed_out.get(),
        }));
        command.grown.notify_waiters();
        self.ended.notify_waiters();
        self.buffer = Vec::new();
    }

    /// What was left running may write on, to nobody: a closed pipe would end it.
    async fn discard(mut self) {
        let mut buffer = vec![0; 4 << 10];
        while self.outputs.iter().any(Option::is_some) {
            let which = readable(&self.outputs).await;
            let Some(output) = self.outputs.get_mut(which) else {
                return;
            };
            let Some(end) = output else { continue };
            match rustix::io::read(end.get_ref(), &mut *buffer) {
                Ok(1..) | Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => empty(end),
                _ => *output = None,
            }
            tokio::task::yield_now().await;
        }
    }
}

/// Says that a read found nothing, so that the next wait waits.
fn empty(end: &End) {
    let _ = end.try_io(Interest::READABLE, |_| {
        Err::<(), _>(io::ErrorKind::WouldBlock.into())
    });
}

/// Which output can be read.
async fn readable(outputs: &[Option<Rc<End>>; 2]) -> usize {
    async fn one(end: Option<&Rc<End>>) {
        match end {
            Some(end) => {
                // An error shows in the read, too.
                let _ = end.readable().await;
            }
            None => std::future::pending().await,
        }
    }
    let [out, err] = outputs;
    tokio::select! {
        () = one(out.as_ref()) => 0,
        () = one(err.as_ref()) => 1,
    }
}

async fn deadline(after: Option<Duration>) {
    match after {
        Some(after) => tokio::time::sleep(after).await,
        None => std::future::pending().await,
    }
}

/// Returns when nobody has been attached for too long and the command was hung up.
async fn lonely(command: &Rc<Command>) {
    let Some(linger) = command.linger else {
        return std::future::pending().await;
    };
    loop {
        let left = command.readers.borrow().last_left;
        let Some(left) = left else {
            command.readers_changed.notified().await;
            continue;
        };
        tokio::select! {
            () = command.readers_changed.notified() => {}
            () = tokio::time::sleep_until(left + linger) => {
                processes::signal_group(command.pid, Signal::HUP);
                tokio::time::sleep(HANG_UP_GRACE).await;
                return;
            }
        }
    }
}
