//! What on this host keeps a node from running, and what to do about it.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use camino::Utf8Path;
use nimbus_units::State;
use serde::Serialize;

use crate::account;
use crate::agent::AGENT_UNIT;
use crate::commands::Commands;
use crate::installed::Installed;
use crate::layout::{Layout, Scope, Target};
use crate::manifest::Manifest;
use crate::plan::podman;
use crate::upgrade::version;
use crate::verify;

/// Podman's first release with Quadlet.
const QUADLET: (u32, u32) = (4, 4);
const GENERATORS: [&str; 2] = [
    "/usr/lib/systemd/system-generators/podman-system-generator",
    "/usr/libexec/podman/quadlet",
];

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
        Target::Container => quadlet(&mut probes, commands),
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
        engine(&mut probes, layout, joined, commands);
    }
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

fn quadlet(probes: &mut Probes, commands: &dyn Commands) {
    let found = podman(commands);
    let detail = found.map_or_else(
        || "missing".to_owned(),
        |(major, minor)| format!("Podman {major}.{minor}"),
    );
    probes.add(
        "podman",
        Level::Required,
        found.is_some(),
        detail.clone(),
        "install Podman 4.4 or later",
    );
    probes.add(
        "podman_version",
        Level::Required,
        found.is_some_and(|version| version >= QUADLET),
        detail,
        "Quadlet needs Podman 4.4; with an older one use --systemd",
    );
    let generator = GENERATORS.iter().find(|path| Utf8Path::new(path).exists());
    probes.add(
        "quadlet_generator",
        Level::Required,
        generator.is_some(),
        generator.map_or_else(|| "no generator of Podman".to_owned(), |path| (*path).to_owned()),
        "install Podman with its systemd generator",
    );
    let volume = commands.yes(&["podman", "volume", "exists", "nimbus-data"]);
    probes.add(
        "volume",
        Level::Advice,
        volume,
        if volume { "nimbus-data is there" } else { "nimbus-data will be made at the first start" },
        "a server that other computers reach needs a rotated admin token: podman run --rm -v nimbus-data:/var/lib/nimbus IMAGE auth rotate-admin",
    );
}

fn engine(probes: &mut Probes, layout: &Layout, joined: bool, commands: &dyn Commands) {
    let group = account::engine_group(commands);
    let granted = if joined {
        let unit = std::fs::read_to_string(layout.units.join(AGENT_UNIT)).unwrap_or_default();
        unit.lines().any(|line| line.starts_with("SupplementaryGroups="))
    } else {
        layout.units.join(crate::artifacts::ENGINE_DROP_IN).exists()
    };
    let (ok, detail) = match (&group, layout.scope) {
        (Some(group), Scope::System) if granted => (true, format!("the service is in the group {group}")),
        (Some(group), Scope::System) => (false, format!("the service is not in the group {group}")),
        (Some(group), Scope::User) => {
            let member = commands
                .says(&["id", "-nG"])
                .is_some_and(|groups| groups.split_whitespace().any(|name| name == group));
            (
                member,
                format!(
                    "this account is {}in the group {group}",
                    if member { "" } else { "not " }
                ),
            )
        }
        (None, _) => (
            false,
            "no container engine that another account than root may use".to_owned(),
        ),
    };
    probes.add(
        "engine",
        Level::Advice,
        ok,
        detail,
        if joined {
            "sandboxes need Docker or Podman: install one, then run join again with another token and --overwrite"
        } else {
            "sandboxes need Docker or Podman: install one, then run install again with --overwrite"
        },
    );
    let cgroup = Utf8Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    probes.add(
        "cgroup_v2",
        Level::Advice,
        cgroup,
        if cgroup { "cgroup v2" } else { "cgroup v1" },
        "limits of sandboxes are stricter on cgroup v2: boot with systemd.unified_cgroup_hierarchy=1",
    );
}
