//! What on this host keeps a node from running, and what to do about it.
//!
//! - `quadlet`: what makes a container's unit, and whether it can make ours
//! - `sandboxes`: the engine of sandboxes, and what the kernel lets an account do

mod quadlet;
mod sandboxes;

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use camino::Utf8Path;
use nimbus_units::State;
use serde::Serialize;

use crate::account;
use crate::commands::Commands;
use crate::installed::Installed;
use crate::layout::{Layout, Scope, Target};
use crate::manifest::Manifest;
use crate::upgrade::version;
use crate::verify;

/// What hangs on a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Without it there is no node.
    Required,
    /// Something will be missing.
    Advice,
}

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Pass,
    /// Not as it should be.
    Fail,
}

/// One probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Probe {
    /// Its name, which does not change.
    pub id: &'static str,
    /// What hangs on it.
    pub level: Level,
    /// What it found.
    pub result: Verdict,
    /// In words.
    pub detail: String,
    /// What to do, if it failed.
    pub remedy: Option<&'static str>,
}

struct Probes(Vec<Probe>);

impl Probes {
    fn add(
        &mut self,
        id: &'static str,
        level: Level,
        ok: bool,
        detail: impl Into<String>,
        remedy: &'static str,
    ) {
        self.0.push(Probe {
            id,
            level,
            result: if ok { Verdict::Pass } else { Verdict::Fail },
            detail: detail.into(),
            remedy: (!ok).then_some(remedy),
        });
    }
}

/// Looks at the host. `token` is what the caller knows of the admin token: whether it is as it should be,
/// in words, what to do.
#[must_use]
pub fn diagnose(
    layout: &Layout,
    target: Target,
    mirrors: &str,
    token: (bool, String, &'static str),
    environment: impl Fn(&str) -> Option<String>,
    commands: &dyn Commands,
) -> Vec<Probe> {
    use Level::{Advice, Required};
    let mut probes = Probes(Vec::new());
    let systemd = Utf8Path::new("/run/systemd/system").exists();
    probes.add(
        "os",
        Required,
        cfg!(target_os = "linux") && systemd,
        if systemd {
            "Linux with systemd"
        } else {
            "systemd does not run here"
        },
        "use a host that was started by systemd, or run `nimbus start` under another supervisor",
    );
    for (id, program) in [("systemctl", "systemctl"), ("journalctl", "journalctl")] {
        let said = commands.says(&[program, "--version"]);
        let detail = said
            .as_ref()
            .and_then(|said| said.lines().next())
            .unwrap_or("missing")
            .to_owned();
        probes.add(id, Required, said.is_some(), detail, "install systemd");
    }
    if layout.scope == Scope::User {
        user(&mut probes, &environment, commands);
    }
    let manifest = Manifest::read(layout).ok().flatten();
    let installed = Installed::read(layout, target).ok().flatten();
    let joined = matches!(installed, Some(Installed::Agent(_)));
    match target {
        Target::Systemd => {
            let place = installed.map(|installed| installed.place(layout));
            binary(
                &mut probes,
                &place.unwrap_or_else(|| layout.binary.clone()),
                commands,
            );
        }
        Target::Container => {
            quadlet::look(&mut probes, layout, Utf8Path::new("/"), commands);
        }
    }
    let folder = layout.artifacts(target);
    let writable = rustix::fs::access(existing(folder).as_std_path(), rustix::fs::Access::WRITE_OK).is_ok();
    probes.add(
        "artifact_dir",
        Advice,
        writable,
        format!(
            "{folder} {}",
            if writable {
                "can be written"
            } else {
                "cannot be written by this account"
            }
        ),
        "run install and uninstall with sudo, or with --user",
    );
    match verify::drift(layout, target, mirrors, commands) {
        Ok(found) => {
            let changed: Vec<String> = found
                .iter()
                .filter(|(_, drift)| drift.state != State::InSync)
                .map(|(path, drift)| format!("{path} is {}", drift.state))
                .collect();
            let detail = match (found.len(), changed.len()) {
                (0, _) => "nothing is installed".to_owned(),
                (_, 0) => "as Nimbus writes them".to_owned(),
                _ => changed.join(", "),
            };
            probes.add(
                "artifacts",
                Advice,
                changed.is_empty(),
                detail,
                "run install again with --overwrite; its diff shows what is lost",
            );
        }
        Err(error) => probes.add(
            "artifacts",
            Advice,
            false,
            error.to_string(),
            "see nimbus node verify",
        ),
    }
    let listen = manifest.as_ref().map_or_else(
        || ([127, 0, 0, 1], crate::request::DEFAULT_PORT).into(),
        |manifest| manifest.request.listen,
    );
    let ours = ["nimbus.service", "nimbus.socket"].iter().any(|unit| {
        let words = layout.scope.systemctl(&["is-active", "--quiet", unit]);
        commands.run(&words).is_ok_and(|ran| ran.ok())
    });
    let free = TcpListener::bind(listen).is_ok();
    probes.add(
        "port",
        Advice,
        free || ours,
        match (free, ours) {
            (_, true) => format!("{listen} is the node's"),
            (true, _) => format!("{listen} is free"),
            _ => format!("{listen} is taken"),
        },
        "end what listens there, or install with another --port",
    );
    if target == Target::Systemd {
        let state = layout.base.exists();
        probes.add(
            "state_dir",
            Advice,
            state || writable,
            format!(
                "{} {}",
                layout.base,
                if state { "is there" } else { "will be made" }
            ),
            "run install with sudo, or with --user",
        );
        // The agent of a deployment elsewhere has none.
        let (ok, detail, remedy) = token;
        if !joined {
            probes.add("admin_token", Advice, ok, detail, remedy);
        }
    }
    let host = sandboxes::Look {
        layout,
        root: Utf8Path::new("/"),
        uid: rustix::process::geteuid().as_raw(),
        group: account::engine_group(commands),
        commands,
    };
    host.probe(&mut probes, target, joined);
    probes.0
}

/// The lowest folder above that is there.
fn existing(folder: &Utf8Path) -> &Utf8Path {
    folder
        .ancestors()
        .find(|folder| folder.exists())
        .unwrap_or(folder)
}

fn user(probes: &mut Probes, environment: &impl Fn(&str) -> Option<String>, commands: &dyn Commands) {
    let runtime = environment("XDG_RUNTIME_DIR");
    probes.add(
        "runtime_dir",
        Level::Required,
        runtime.is_some(),
        runtime.unwrap_or_else(|| "XDG_RUNTIME_DIR is not set".to_owned()),
        "sign in as this account (ssh, or machinectl shell), instead of sudo -u or su",
    );
    let state = commands
        .run(&Scope::User.systemctl(&["is-system-running"]))
        .map(|ran| ran.stdout.trim().to_owned())
        .unwrap_or_default();
    probes.add(
        "user_manager",
        Level::Required,
        matches!(
            state.as_str(),
            "running" | "degraded" | "starting" | "initializing"
        ),
        if state.is_empty() {
            "does not answer".to_owned()
        } else {
            state
        },
        "sign in as this account, or run `loginctl enable-linger` for it",
    );
    let uid = rustix::process::geteuid().as_raw().to_string();
    // Of an account that neither lingers nor is signed in, loginctl knows nothing.
    let linger = commands.says(&["loginctl", "show-user", &uid, "--property=Linger", "--value"]);
    probes.add(
        "linger",
        Level::Advice,
        linger.as_deref() == Some("yes"),
        match linger.as_deref() {
            Some("yes") => "the node runs while nobody is signed in",
            _ => "the node ends when the account signs out, and does not start with the host",
        },
        "loginctl enable-linger",
    );
}

fn binary(probes: &mut Probes, place: &Utf8Path, commands: &dyn Commands) {
    let mode = std::fs::metadata(place).map(|found| found.permissions().mode());
    let (ok, detail) = match mode {
        Err(_) => (false, format!("{place} is not there")),
        Ok(mode) if mode & 0o111 == 0 => (false, format!("{place} is not executable")),
        Ok(mode) if mode & 0o022 != 0 => (
            false,
            format!("others can change {place}: mode {:o}", mode & 0o777),
        ),
        Ok(_) => (true, place.to_string()),
    };
    probes.add(
        "binary",
        Level::Required,
        ok,
        detail,
        "nimbus node install --systemd puts it there; chmod 755 it if it is",
    );
    if ok {
        let ours = concat!("nimbus ", env!("CARGO_PKG_VERSION"));
        let found = version(commands, place).unwrap_or_else(|error| error.to_string());
        probes.add(
            "binary_version",
            Level::Advice,
            found == ours,
            found,
            "this program is another version: `nimbus node install --upgrade` replaces the installed one",
        );
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::commands::Ran;

    /// What a command ends with and prints; none: it is not there.
    type Answer = Option<(i32, &'static str, &'static str)>;

    /// A host whose commands answer as a test says.
    pub(super) struct Script(pub(super) Box<dyn Fn(&str) -> Answer>);

    impl Commands for Script {
        fn run(&self, words: &[String]) -> io::Result<Ran> {
            let answer = (self.0)(&words.join(" "));
            let (code, stdout, stderr) = answer.ok_or(io::ErrorKind::NotFound)?;
            Ok(Ran {
                code: Some(code),
                stdout: stdout.to_owned(),
                stderr: stderr.to_owned(),
            })
        }

        fn pass(&self, words: &[String]) -> io::Result<i32> {
            Ok(self.run(words)?.code.unwrap_or(1))
        }
    }

    #[track_caller]
    pub(super) fn found<'a>(probes: &'a [Probe], id: &str) -> &'a Probe {
        let probe = probes.iter().find(|probe| probe.id == id);
        probe.unwrap_or_else(|| panic!("no {id} in {probes:?}"))
    }

    #[test]
    fn an_account_that_lingers_has_a_node_that_stays() {
        let of = |linger: Answer, state: Answer, runtime: Option<&'static str>| {
            let script = Script(Box::new(move |line| match line {
                "systemctl --user is-system-running" => state,
                line if line.starts_with("loginctl show-user ") => linger,
                _ => None,
            }));
            let mut probes = Probes(Vec::new());
            user(&mut probes, &|_| runtime.map(str::to_owned), &script);
            ["runtime_dir", "user_manager", "linger"].map(|id| {
                let probe = found(&probes.0, id).clone();
                assert_eq!(probe.result == Verdict::Fail, probe.remedy.is_some());
                (probe.result, probe.level)
            })
        };
        let (required, advice) = (Level::Required, Level::Advice);
        let pass = |level| (Verdict::Pass, level);
        let fail = |level| (Verdict::Fail, level);
        assert_eq!(
            of(
                Some((0, "yes\n", "")),
                Some((1, "degraded\n", "")),
                Some("/run/user/1000")
            ),
            [pass(required), pass(required), pass(advice)]
        );
        assert_eq!(
            of(
                Some((0, "no\n", "")),
                Some((1, "offline\n", "")),
                Some("/run/user/1000")
            ),
            [pass(required), fail(required), fail(advice)]
        );
        // Neither signed in nor lingering, and without the tools.
        let unknown = Some((
            1,
            "",
            "Failed to get user: User ID 1000 is not logged in or lingering",
        ));
        assert_eq!(
            of(unknown, None, None),
            [fail(required), fail(required), fail(advice)]
        );
    }
}
