//! All commands of the sandbox.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use nimbus_guest::protocol::{CommandInfo, CommandSpec, GuestFault};
use rustix::process::{Pid, Signal, WaitOptions};
use tokio::sync::Notify;

use super::command::Command;
use super::fault::{conflict, invalid};
use super::spawn;
use super::spill::Spill;

/// Ended commands that are kept; an id that is older may run again.
const ENDED: usize = 256;

/// Output of all commands on disk, if nobody says.
const LOG_BYTES: u64 = 512 << 20;

/// All commands of the sandbox.
#[derive(Debug)]
pub(crate) struct Commands {
    // Oldest first; a few hundred at most.
    known: RefCell<VecDeque<Rc<Command>>>,
    pub(crate) spill: Rc<Spill>,
    /// One has ended.
    pub(crate) ended: Rc<Notify>,
}

/// What every command gets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) cwd: Option<String>,
}

impl Commands {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            known: RefCell::default(),
            spill: Rc::new(Spill::new(LOG_BYTES)),
            ended: Rc::default(),
        })
    }

    /// The command of this id.
    pub(crate) fn find(&self, id: &str) -> Option<Rc<Command>> {
        let known = self.known.borrow();
        // A client comes back for what it started last.
        known.iter().rev().find(|command| command.id == id).cloned()
    }

    /// The command of this id, or the fault that there is none.
    pub(crate) fn get(&self, id: &str) -> Result<Rc<Command>, GuestFault> {
        self.find(id)
            .ok_or_else(|| GuestFault::new("op.not_found", "there is no such command").with("command", id))
    }

    /// Starts it, or finds it started; says which.
    pub(crate) fn run(
        self: &Rc<Self>,
        spec: &CommandSpec,
        around: &Surroundings,
    ) -> Result<(Rc<Command>, bool), GuestFault> {
        check(spec)?;
        let digest = digest(spec);
        if let Some(command) = self.find(&spec.id) {
            if command.digest != digest {
                return Err(conflict("another command has this id").with("command", &spec.id));
            }
            return Ok((command, false));
        }
        let mut env = around.env.clone();
        env.extend(spec.env.iter().cloned());
        if spec.terminal.is_some() {
            env.entry("TERM".to_owned())
                .or_insert_with(|| "xterm-256color".to_owned());
        }
        let cwd = spec.cwd.as_deref().or(around.cwd.as_deref());
        let started = spawn::spawn(spec, &env, cwd)?;
        let all = Rc::downgrade(self);
        let make_room = move || {
            if let Some(all) = all.upgrade() {
                all.make_room();
            }
        };
        let spill = Rc::clone(&self.spill);
        let ended = Rc::clone(&self.ended);
        let (command, pump) = Command::new(spec, digest, started, spill, make_room, ended);
        tokio::task::spawn_local(pump);
        self.known.borrow_mut().push_back(Rc::clone(&command));
        self.forget_old();
        Ok((command, true))
    }

    /// Reaps whatever has ended: commands, and the orphans they left.
    pub(crate) fn reap(&self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let known = self.known.borrow();
            let mut running = known.iter().filter(|command| command.exit().is_none());
            if let Some(command) = running.find(|command| is(command, pid)) {
                command.on_reaped(status.exit_status(), status.terminating_signal());
            }
        }
    }

    /// Drops an ended command.
    pub(crate) fn forget(&self, id: &str) -> Result<(), GuestFault> {
        match self.find(id) {
            Some(command) if command.exit().is_none() => {
                Err(conflict("the command runs").with("command", id))
            }
            _ => {
                self.known.borrow_mut().retain(|command| command.id != id);
                Ok(())
            }
        }
    }

    pub(crate) fn list(&self) -> Vec<CommandInfo> {
        self.known.borrow().iter().map(|command| command.info()).collect()
    }

    /// Output in memory, bytes.
    pub(crate) fn log_memory(&self) -> u64 {
        let known = self.known.borrow();
        known.iter().map(|command| command.log.borrow().memory()).sum()
    }

    /// Whether any runs.
    pub(crate) fn any_running(&self) -> bool {
        self.known.borrow().iter().any(|command| command.exit().is_none())
    }

    /// Signals the group of each.
    pub(crate) fn signal_each(&self, signal: Signal) {
        for command in self.known.borrow().iter() {
            // Only a bad number is refused.
            let _ = command.signal(signal.as_raw());
        }
    }

    /// Kills everything that each of them started.
    pub(crate) fn kill_each(&self) {
        for command in self.known.borrow().iter() {
            command.kill();
        }
    }

    fn forget_old(&self) {
        let mut known = self.known.borrow_mut();
        let ended = known.iter().filter(|command| command.exit().is_some()).count();
        for _ in ENDED..ended {
            let oldest = known
                .iter()
                .position(|command| command.exit().is_some() && !command.has_readers());
            if let Some(oldest) = oldest {
                known.remove(oldest);
            }
        }
    }

    /// The disk has no room for a running command: the oldest ended one that nobody reads loses its
    /// output.
    fn make_room(&self) {
        let known = self.known.borrow();
        let mut idle = known.iter().filter(|command| {
            let log = command.log.borrow();
            command.exit().is_some() && !command.has_readers() && log.start() < log.end()
        });
        if let Some(command) = idle.next() {
            command.log.borrow_mut().clear();
        }
    }
}

fn is(command: &Command, pid: Pid) -> bool {
    command.pid() == pid.as_raw_nonzero().get()
}

fn check(spec: &CommandSpec) -> Result<(), GuestFault> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if spec.id.is_empty() || spec.id.len() > 128 || !spec.id.chars().all(fine) {
        return Err(invalid(
            "id",
            "a command's id is 1 to 128 letters, digits, dots, dashes",
        ));
    }
    let wrong = |name: &str| name.is_empty() || name.contains(['=', '\0']);
    if spec.env.iter().any(|(name, _)| wrong(name)) {
        return Err(invalid("env", "a variable has no name, or one with = in it"));
    }
    Ok(())
}

fn digest(spec: &CommandSpec) -> u64 {
    let mut hasher = DefaultHasher::new();
    // Encoding plain data to memory does not fail; if it did, repeats would merely be refused.
    postcard::to_stdvec(spec).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}
