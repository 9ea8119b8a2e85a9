//! Processes of the binary: started with a clean environment, logged, ended by their id.

use std::ffi::OsStr;
use std::fs::File;
use std::net::TcpListener;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::wait::within;

/// The root of the checkout.
#[must_use]
pub fn root() -> Utf8PathBuf {
    Utf8Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// The binary under test: `NIMBUS_BIN`, or the one that was built beside the test.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn binary() -> Utf8PathBuf {
    let named = std::env::var("NIMBUS_BIN").ok().filter(|path| !path.is_empty());
    let path = named.map_or_else(
        || {
            let test = Utf8PathBuf::from_path_buf(std::env::current_exe().unwrap()).unwrap();
            test.parent().unwrap().parent().unwrap().join("nimbus")
        },
        Utf8PathBuf::from,
    );
    assert!(
        path.exists(),
        "there is no binary at {path}: run `cargo build -p nimbus`, or set NIMBUS_BIN"
    );
    path
}

/// A folder for what a test leaves, emptied.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn output(suite: &str, test: &str) -> Utf8PathBuf {
    let path = root().join("tests/output").join(suite).join(test);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// A port that was free a moment ago. For servers that have to come back under the same one.
///
/// # Panics
/// When loopback has none left.
#[must_use]
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A command with an environment that holds nothing of the caller's settings.
#[must_use]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    for name in ["PATH", "HOME", "TMPDIR", "NIMBUS_NATS_SERVER", "RUST_BACKTRACE"] {
        if let Ok(value) = std::env::var(name) {
            command.env(name, value);
        }
    }
    command
}

/// A running process. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    pid: u32,
    log: Utf8PathBuf,
}

impl Process {
    /// Starts a process that writes to the file `log`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(name: &str, command: &mut Command, log: &Utf8Path) -> Self {
        let out = File::options().create(true).append(true).open(log).unwrap();
        let errors = out.try_clone().unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::from(out))
            .stderr(Stdio::from(errors))
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("could not start {name}: {error}"));
        let pid = child.id().unwrap();
        Self {
            name: name.to_owned(),
            child,
            pid,
            log: log.to_owned(),
        }
    }

    /// Its id.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Kills it without a warning and waits until it is gone.
    ///
    /// # Panics
    /// When the system refuses.
    pub async fn kill(&mut self) {
        self.child.start_kill().ok();
        self.child.wait().await.unwrap();
    }

    /// Asks it to end and waits for that.
    ///
    /// # Panics
    /// When it does not end in time.
    pub async fn terminate(&mut self, bound: Duration) -> ExitStatus {
        signal(self.pid, Signal::TERM);
        within(&format!("the end of {}", self.name), bound, self.child.wait())
            .await
            .unwrap()
    }

    /// How it ended, if it did.
    ///
    /// # Panics
    /// When the system refuses to say.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// The end of its log.
    #[must_use]
    pub fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    /// Waits until it has written the file that says it is ready.
    ///
    /// # Panics
    /// When it ends, or takes longer than `bound`; with the end of its log.
    pub async fn ready(&mut self, file: &Utf8Path, bound: Duration) -> serde_json::Value {
        let until = std::time::Instant::now() + bound;
        loop {
            if let Some(value) = std::fs::read(file)
                .ok()
                .and_then(|text| serde_json::from_slice(&text).ok())
            {
                return value;
            }
            if let Some(status) = self.ended() {
                panic!(
                    "{} ended with {status} instead of getting ready:\n{}",
                    self.name,
                    self.tail()
                );
            }
            assert!(
                std::time::Instant::now() < until,
                "{} is not ready after {bound:?}:\n{}",
                self.name,
                self.tail()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The processes it has started.
    #[must_use]
    pub fn children(&self) -> Vec<u32> {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", self.pid)) else {
            return vec![];
        };
        threads
            .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("children")).ok())
            .flat_map(|text| {
                text.split_whitespace()
                    .filter_map(|pid| pid.parse().ok())
                    .collect::<Vec<u32>>()
            })
            .collect()
    }
}

/// Sends a signal to one process.
///
/// # Panics
/// When there is no such process.
pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Kills a process that is not a child of the test.
///
/// # Panics
/// When there is no such process.
pub fn kill(pid: u32) {
    signal(pid, Signal::KILL);
}
