//! Processes of a command: finding and signalling all of them.

use std::collections::HashSet;

use rustix::process::{Pid, Signal};

/// A signal by its number.
pub(crate) fn signal(number: i32) -> Option<Signal> {
    Signal::from_named_raw(number)
}

/// Signals the process group of a command's first process. One that is gone is fine.
pub(crate) fn signal_group(leader: Pid, signal: Signal) {
    let _ = rustix::process::kill_process_group(leader, signal);
}

/// Kills a command's first process and everything that it started, as far as it can be told: its
/// session (it leads one), and the descendants that left it while their parents live. Looks again until
/// nothing new is found, as a process can fork while it is looked at.
pub(crate) fn kill_tree(leader: Pid) {
    let mut killed = HashSet::new();
    // A fork bomb could win for ever; the pids limit and the end of the sandbox are for that.
    for _ in 0..16 {
        let found = family(leader.as_raw_nonzero().get());
        let fresh: Vec<i32> = found.into_iter().filter(|pid| killed.insert(*pid)).collect();
        if fresh.is_empty() {
            return;
        }
        for pid in fresh.into_iter().filter_map(Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// Signals every process but this one; as PID 1 that is the whole sandbox.
pub(crate) fn signal_all(signal: Signal) {
    for process in list().filter(|process| process.pid > 1) {
        if let Some(pid) = Pid::from_raw(process.pid)
            && pid != rustix::process::getpid()
        {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

struct Process {
    pid: i32,
    parent: i32,
    group: i32,
    session: i32,
}

fn family(leader: i32) -> HashSet<i32> {
    let all: Vec<Process> = list().collect();
    let mut found: HashSet<i32> = all
        .iter()
        .filter(|p| p.pid == leader || p.session == leader || p.group == leader)
        .map(|p| p.pid)
        .collect();
    loop {
        let before = found.len();
        for process in &all {
            if found.contains(&process.parent) {
                found.insert(process.pid);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

fn list() -> impl Iterator<Item = Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| {
        let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        parse(pid, &stat)
    })
}

/// `pid (name) state ppid pgrp session …`; the name may hold anything, parentheses too.
fn parse(pid: i32, stat: &str) -> Option<Process> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(1).map(str::parse);
    Some(Process {
        pid,
        parent: fields.next()?.ok()?,
        group: fields.next()?.ok()?,
        session: fields.next()?.ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_pretend_to_be_somebody_else() {
        let process = parse(7, "7 (x) S 1 1 1 (y) R 3 4 5 0").unwrap();
        assert_eq!((process.parent, process.group, process.session), (3, 4, 5));
        assert!(parse(7, "7 (x").is_none());
    }

    #[test]
    fn this_process_is_listed() {
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(list().any(|process| process.pid == me));
        assert!(family(me).contains(&me));
    }
}
