//! The commands of the host.

use std::io;
use std::process::{Command, Stdio};

use crate::error::NodeError;

/// What a command said and how it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Ran {
    /// Whether it ended well.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.code == Some(0)
    }

    fn status(&self) -> String {
        self.code
            .map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}"))
    }
}

/// Runs commands: the host's own, or a script of a test.
pub trait Commands {
    /// Runs a command to its end and keeps what it prints.
    ///
    /// # Errors
    /// It cannot be started.
    fn run(&self, words: &[String]) -> io::Result<Ran>;

    /// Runs a command that has the terminal; its exit code.
    ///
    /// # Errors
    /// It cannot be started.
    fn pass(&self, words: &[String]) -> io::Result<i32>;
}

impl dyn Commands + '_ {
    /// Runs a command that has to end well; what it printed.
    ///
    /// # Errors
    /// It cannot be started, or it failed.
    pub fn must(&self, words: &[String]) -> Result<String, NodeError> {
        let ran = self.run(words).map_err(|source| NodeError::NoCommand {
            command: words.join(" "),
            source,
        })?;
        if ran.ok() {
            return Ok(ran.stdout);
        }
        let said = if ran.stderr.trim().is_empty() {
            &ran.stdout
        } else {
            &ran.stderr
        };
        Err(NodeError::Command {
            command: words.join(" "),
            status: ran.status(),
            output: said.trim().to_owned(),
        })
    }

    /// Whether a command ends well.
    #[must_use]
    pub fn yes(&self, words: &[&str]) -> bool {
        self.run(&owned(words)).is_ok_and(|ran| ran.ok())
    }

    /// What a command prints, if it ends well.
    #[must_use]
    pub fn says(&self, words: &[&str]) -> Option<String> {
        let ran = self.run(&owned(words)).ok().filter(Ran::ok)?;
        Some(ran.stdout.trim().to_owned())
    }
}

pub(crate) fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// This host.
#[derive(Clone, Copy, Debug, Default)]
pub struct Host;

fn command(words: &[String]) -> io::Result<Command> {
    let (program, rest) = words
        .split_first()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut command = Command::new(program);
    // What is read has to be in one language.
    command
        .args(rest)
        .env("LC_ALL", "C.UTF-8")
        .env("SYSTEMD_PAGER", "");
    Ok(command)
}

impl Commands for Host {
    fn run(&self, words: &[String]) -> io::Result<Ran> {
        let output = command(words)?.stdin(Stdio::null()).output()?;
        Ok(Ran {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    fn pass(&self, words: &[String]) -> io::Result<i32> {
        let status = command(words)?.status()?;
        Ok(status.code().unwrap_or(1))
    }
}
