//! A host with systemd.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use nimbus_tests::process::{binary, root};

/// How long the host may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);
/// The program under test, where the host finds it.
pub(super) const PROGRAM: &str = "/opt/nimbus";

/// A container that booted. Removed when dropped.
pub(super) struct Host {
    name: String,
}

/// Whose command it is.
#[derive(Clone, Copy)]
pub(super) enum As {
    Root,
    User,
}

/// What a command said and how it ended.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) code: i32,
    pub(super) out: String,
    pub(super) err: String,
}

impl Said {
    #[track_caller]
    pub(super) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    #[track_caller]
    pub(super) fn refused(self, code: i32, word: &str) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.err.contains(word), "{word:?} is not in {self:?}");
        self
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Host {
    /// Boots one.
    pub(super) fn boot(test: &str) -> Self {
        Self::with(test, &[])
    }

    /// Boots one with more options of `docker run`.
    pub(super) fn with(test: &str, options: &[&str]) -> Self {
        let host = Self {
            name: format!("nimbus-test-node-{test}-{}", std::process::id()),
        };
        let program = format!("{}:{PROGRAM}:ro", binary());
        let booted = Command::new(root().join("ops/dev/systemd.sh"))
            .args(["start", &host.name, "-v", &program])
            .args(options)
            .output()
            .unwrap();
        assert!(
            booted.status.success(),
            "{}",
            String::from_utf8_lossy(&booted.stderr)
        );
        host
    }

    /// Runs a line of shell.
    pub(super) fn sh(&self, who: As, line: &str) -> Said {
        let mut command = Command::new("docker");
        command.arg("exec");
        if matches!(who, As::User) {
            command.args(["--user", "user", "--env", "XDG_RUNTIME_DIR=/run/user/1000"]);
            command.args(["--env", "HOME=/home/user", "--workdir", "/home/user"]);
        }
        command.args([&self.name, "bash", "-c", line]);
        command.output().unwrap().into()
    }

    /// Runs a line of shell as root.
    pub(super) fn root(&self, line: &str) -> Said {
        self.sh(As::Root, line)
    }

    /// Asks again until the answer is good.
    #[track_caller]
    pub(super) fn until(&self, who: As, line: &str, good: impl Fn(&Said) -> bool) -> Said {
        let until = Instant::now() + PATIENCE;
        loop {
            let said = self.sh(who, line);
            if good(&said) {
                return said;
            }
            assert!(
                Instant::now() < until,
                "not within {PATIENCE:?}: {line}: {said:?}"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Every file and folder that an installation could have made.
    pub(super) fn files(&self) -> Vec<String> {
        // Accounts that come and go leave their tools' own copies and locks.
        const TOOLS: [&str; 8] = [
            "/etc/passwd-",
            "/etc/shadow-",
            "/etc/group-",
            "/etc/gshadow-",
            "/etc/subuid-",
            "/etc/subgid-",
            "/etc/.pwd.lock",
            "/etc/machine-id",
        ];
        let all = self
            .root("find /etc /usr/local /opt /var/lib /home -not -path '/var/lib/systemd/*'")
            .ok();
        let mut files: Vec<String> = all.lines().map(str::to_owned).collect();
        files.retain(|path| !TOOLS.contains(&path.as_str()));
        files.sort();
        files
    }

    /// What `systemd-analyze security` makes of the service: 0 is safe, 10 is not.
    pub(super) fn exposure(&self, who: As) -> f64 {
        let manager = match who {
            As::Root => "",
            As::User => "--user",
        };
        let said = self
            .sh(
                who,
                &format!("systemd-analyze {manager} security --no-pager nimbus.service"),
            )
            .ok();
        let line = said
            .lines()
            .find(|line| line.contains("Overall exposure level"))
            .unwrap();
        let number = line
            .rsplit(": ")
            .next()
            .unwrap()
            .split_whitespace()
            .next()
            .unwrap();
        number.parse().unwrap()
    }

    /// Waits until the node says that it is ready.
    #[track_caller]
    pub(super) fn ready(&self) {
        self.until(As::Root, "curl -fsS http://127.0.0.1:8080/ready", |said| {
            said.code == 0
        });
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.root("journalctl --no-pager --lines 60");
            eprintln!("the end of the host's journal:\n{}", log.out);
        }
        let _ = Command::new(root().join("ops/dev/systemd.sh"))
            .args(["stop", &self.name])
            .output();
    }
}
