//! Tasks: their names, their logs, the list of them.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use crate::work::Work;

/// Ended tasks that are kept.
const KEPT: usize = 2_000;

#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) upid: String,
    pub(crate) node: String,
    pub(crate) kind: &'static str,
    pub(crate) id: String,
    pub(crate) user: String,
    pub(crate) token: Option<String>,
    pid: u64,
    pstart: u64,
    /// Seconds since 1970.
    pub(crate) started_unix: u64,
    /// Milliseconds of the simulator.
    pub(crate) started: u64,
    pub(crate) ended: Option<u64>,
    pub(crate) exit: Option<String>,
    /// Lines with the time from which they are visible.
    pub(crate) lines: Vec<(u64, String)>,
    pub(crate) work: Option<Work>,
    /// The guest it is about: for a clone the new one, though PVE names the task after the old one.
    pub(crate) about: Option<u32>,
    /// Ends with this sentence instead of doing its work.
    pub(crate) doom: Option<String>,
    /// Whether the work has been begun, so that an end has something to undo.
    pub(crate) begun: bool,
}

impl Task {
    pub(crate) fn is_running(&self) -> bool {
        self.ended.is_none()
    }

    pub(crate) fn log(&mut self, at: u64, line: impl Into<String>) {
        self.lines.push((at, line.into()));
    }

    /// Ends it. Lines that would have come later are dropped.
    pub(crate) fn end(&mut self, now: u64, exit: String) {
        self.lines.retain(|(at, _)| *at <= now);
        let last = match exit.as_str() {
            "OK" => "TASK OK".to_owned(),
            warnings if warnings.starts_with("WARNINGS") => format!("TASK {warnings}"),
            error => format!("TASK ERROR: {error}"),
        };
        self.log(now, last);
        self.ended = Some(now);
        self.exit = Some(exit);
    }

    fn head(&self) -> Map<String, Value> {
        let mut row = Map::new();
        row.insert("upid".to_owned(), json!(self.upid));
        row.insert("node".to_owned(), json!(self.node));
        row.insert("pid".to_owned(), json!(self.pid));
        row.insert("pstart".to_owned(), json!(self.pstart));
        row.insert("starttime".to_owned(), json!(self.started_unix));
        row.insert("type".to_owned(), json!(self.kind));
        row.insert("id".to_owned(), json!(self.id));
        row.insert("user".to_owned(), json!(self.user));
        if let Some(token) = &self.token {
            row.insert("tokenid".to_owned(), json!(token));
        }
        row
    }

    /// A row of a list, where `status` is how it ended.
    pub(crate) fn row(&self) -> Value {
        let mut row = self.head();
        if let (Some(ended), Some(exit)) = (self.ended, &self.exit) {
            row.insert(
                "endtime".to_owned(),
                json!(self.started_unix + (ended - self.started) / 1000),
            );
            row.insert("status".to_owned(), json!(exit));
        }
        Value::Object(row)
    }

    pub(crate) fn status(&self) -> Value {
        let mut row = self.head();
        row.insert(
            "status".to_owned(),
            json!(if self.is_running() { "running" } else { "stopped" }),
        );
        if let Some(exit) = &self.exit {
            row.insert("exitstatus".to_owned(), json!(exit));
        }
        Value::Object(row)
    }
}

/// What is known of a task before it has a name.
pub(crate) struct NewTask {
    pub(crate) node: String,
    pub(crate) kind: &'static str,
    pub(crate) id: String,
    /// `user@realm`.
    pub(crate) user: String,
    /// Name of the token, without the user.
    pub(crate) token: Option<String>,
    pub(crate) about: Option<u32>,
    pub(crate) work: Work,
    pub(crate) doom: Option<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Tasks {
    by_number: BTreeMap<u64, Task>,
    by_upid: HashMap<String, u64>,
    next: u64,
}

impl Tasks {
    pub(crate) fn add(&mut self, new: NewTask, now: u64, unix: u64) -> u64 {
        let number = self.next;
        self.next += 1;
        // Process ids of a machine that has run for a while; unique for as long as tasks are kept.
        let (pid, pstart) = (0x1000 + number % 0x3f_0000, 0x10_0000 + now / 10);
        let token = new
            .token
            .as_deref()
            .map(|token| format!("!{token}"))
            .unwrap_or_default();
        let upid = format!(
            "UPID:{}:{pid:08X}:{pstart:08X}:{unix:08X}:{}:{}:{}{token}:",
            new.node, new.kind, new.id, new.user
        );
        let task = Task {
            upid: upid.clone(),
            node: new.node,
            kind: new.kind,
            id: new.id,
            user: new.user,
            token: new.token,
            pid,
            pstart,
            started_unix: unix,
            started: now,
            ended: None,
            exit: None,
            lines: Vec::new(),
            work: Some(new.work),
            about: new.about,
            doom: new.doom,
            begun: false,
        };
        self.by_upid.insert(upid, number);
        self.by_number.insert(number, task);
        self.prune();
        number
    }

    /// Forgets the oldest, unless it still runs.
    fn prune(&mut self) {
        if self.by_number.len() <= KEPT {
            return;
        }
        let oldest = self
            .by_number
            .iter()
            .find(|(_, task)| !task.is_running())
            .map(|(number, _)| *number);
        if let Some(task) = oldest.and_then(|number| self.by_number.remove(&number)) {
            self.by_upid.remove(&task.upid);
        }
    }

    pub(crate) fn get(&self, number: u64) -> Option<&Task> {
        self.by_number.get(&number)
    }

    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut Task> {
        self.by_number.get_mut(&number)
    }

    pub(crate) fn find(&self, upid: &str) -> Option<(u64, &Task)> {
        let number = *self.by_upid.get(upid)?;
        Some((number, self.by_number.get(&number)?))
    }

    /// The latest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Task> {
        self.by_number.values().rev()
    }
}

/// Whether a text has the nine fields of a task's name.
pub(crate) fn is_upid(text: &str) -> bool {
    let fields: Vec<&str> = text.split(':').collect();
    let &["UPID", node, pid, pstart, started, kind, _, user, ""] = fields.as_slice() else {
        return false;
    };
    let hex = |field: &str, len: usize| field.len() >= len && field.bytes().all(|b| b.is_ascii_hexdigit());
    !node.is_empty()
        && hex(pid, 8)
        && hex(pstart, 8)
        && hex(started, 8)
        && !kind.is_empty()
        && !user.is_empty()
}
