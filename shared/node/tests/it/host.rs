//! A host that does what a test says.

use std::cell::RefCell;
use std::io;
use std::os::unix::fs::PermissionsExt;

use camino::{Utf8Path, Utf8PathBuf};
use camino_tempfile::Utf8TempDir;
use nimbus_node::{
    Applied, Commands, Install, Layout, NodeError, Plan, Ran, Removal, Request, Scope, Target,
};

type Answer = Box<dyn Fn(&str) -> Option<(i32, &'static str)>>;

/// An account's home, and the commands that are run on its behalf.
pub(crate) struct TestHost {
    dir: Utf8TempDir,
    answer: Answer,
    ran: RefCell<Vec<String>>,
}

impl TestHost {
    /// Every command of the service manager ends well, and nothing is active.
    pub(crate) fn new() -> Self {
        Self::answering(|_| None)
    }

    /// One that answers some commands with an exit code and an error.
    pub(crate) fn answering(answer: impl Fn(&str) -> Option<(i32, &'static str)> + 'static) -> Self {
        let host = Self {
            dir: camino_tempfile::tempdir().unwrap(),
            answer: Box::new(answer),
            ran: RefCell::default(),
        };
        host.program("new", "1.0.0");
        host
    }

    pub(crate) fn path(&self, name: &str) -> Utf8PathBuf {
        self.dir.path().join(name)
    }

    /// A program that says a version.
    pub(crate) fn program(&self, name: &str, version: &str) -> Utf8PathBuf {
        let path = self.path(name);
        // By a rename: one that runs at this moment cannot be written to.
        let fresh = self.path("fresh");
        std::fs::write(&fresh, format!("#!/bin/sh\necho nimbus {version}\n")).unwrap();
        std::fs::set_permissions(&fresh, PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::rename(&fresh, &path).unwrap();
        path
    }

    pub(crate) fn layout(&self) -> Layout {
        let home = self.path("home");
        Layout::new(Scope::User, |name| (name == "HOME").then(|| home.to_string())).unwrap()
    }

    pub(crate) fn request(&self) -> Request {
        Request::new(Target::Systemd, Scope::User)
    }

    pub(crate) fn plan(&self, request: Request) -> Plan {
        let install: Install = request.check(&self.layout(), "").unwrap();
        Plan::new(install, self.layout(), &self.path("new"), self).unwrap()
    }

    pub(crate) fn install(&self, request: Request, overwrite: bool) -> Result<Applied, NodeError> {
        let plan = self.plan(request);
        plan.check(overwrite, &self.path("new"))?;
        plan.apply(self)
    }

    pub(crate) fn removal(&self, purge: bool) -> Removal {
        Removal::new(self.layout(), Target::Systemd, purge, self).unwrap()
    }

    /// What was run since the last time, questions left out.
    pub(crate) fn ran(&self) -> Vec<String> {
        let ran = std::mem::take(&mut *self.ran.borrow_mut());
        ran.into_iter()
            .filter(|line| {
                let is_question = ["is-active", "is-enabled", " show "]
                    .iter()
                    .any(|word| line.contains(word));
                line.starts_with("systemctl") && !is_question
            })
            .collect()
    }

    /// What was run of this program since the last time.
    pub(crate) fn ran_of(&self, program: &str) -> Vec<String> {
        let ran = std::mem::take(&mut *self.ran.borrow_mut());
        ran.into_iter().filter(|line| line.starts_with(program)).collect()
    }

    /// Every file and folder of the home.
    pub(crate) fn tree(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut open = vec![self.path("home")];
        while let Some(folder) = open.pop() {
            let Ok(entries) = folder.read_dir_utf8() else {
                continue;
            };
            for entry in entries {
                let path = entry.unwrap().path().to_owned();
                found.push(path.strip_prefix(self.path("home")).unwrap().to_string());
                if path.is_dir() {
                    open.push(path);
                }
            }
        }
        found.sort();
        found
    }

    pub(crate) fn text(&self, path: &Utf8Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }
}

impl Commands for TestHost {
    fn run(&self, words: &[String]) -> io::Result<Ran> {
        let line = words.join(" ");
        self.ran.borrow_mut().push(line.clone());
        if words[0].starts_with(self.dir.path().as_str()) {
            return nimbus_node::Host.run(words);
        }
        let quiet = match () {
            () if line.contains("is-active") => 3,
            () if line.contains("is-enabled") => 1,
            () => 0,
        };
        let (code, stderr) = (self.answer)(&line).unwrap_or((quiet, ""));
        Ok(Ran {
            code: Some(code),
            stdout: String::new(),
            stderr: stderr.to_owned(),
        })
    }

    fn pass(&self, words: &[String]) -> io::Result<i32> {
        Ok(self.run(words)?.code.unwrap_or(1))
    }
}
