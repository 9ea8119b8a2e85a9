//! Whether what is installed is what should be, and runs.

use camino::Utf8PathBuf;
use nimbus_units::{Drift, State, compare, inspect};
use serde::Serialize;

use crate::account;
use crate::agent::AGENT_UNIT;
use crate::artifacts::{self, Facts, names};
use crate::commands::Commands;
use crate::error::NodeError;
use crate::files;
use crate::installed::Installed;
use crate::layout::{Layout, Target};
use crate::manifest::Manifest;
use crate::plan::podman;
use crate::probe::{self, Answer};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was found.
    pub detail: String,
}

impl Check {
    fn new(name: impl Into<String>, ok: bool, detail: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ok,
            detail: detail.into(),
        }
    }
}

/// Every file that is installed or should be, with what has become of it.
///
/// # Errors
/// Files that cannot be read.
pub fn drift(
    layout: &Layout,
    target: Target,
    mirrors: &str,
    commands: &dyn Commands,
) -> Result<Vec<(Utf8PathBuf, Drift)>, NodeError> {
    let manifest = Manifest::read(layout)?.filter(|manifest| manifest.request.target == target);
    let mut wanted = Vec::new();
    if let Some(manifest) = manifest {
        let facts = Facts {
            engine_group: account::engine_group(commands),
            podman: match target {
                Target::Container => podman(commands),
                Target::Systemd => None,
            },
        };
        let install = manifest.request.check(layout, mirrors)?;
        wanted = artifacts::render(&install, layout, &facts)?;
    }
    let mut found = Vec::new();
    for name in names(target) {
        let path = layout.artifacts(target).join(name);
        let text = files::read(&path)?;
        match (wanted.iter().find(|artifact| artifact.path == path), text) {
            (Some(artifact), text) => found.push((path, compare(text.as_deref(), &artifact.text))),
            (None, Some(text)) => {
                // Not wanted, or nobody knows with which flags it was written.
                let state = match inspect(&text) {
                    None => State::Foreign,
                    Some(read) if !read.untouched => State::Modified,
                    Some(_) => State::Outdated,
                };
                found.push((
                    path,
                    Drift {
                        state,
                        diff: String::new(),
                    },
                ));
            }
            (None, None) => {}
        }
    }
    if target == Target::Systemd {
        let path = layout.units.join(AGENT_UNIT);
        if let Some(text) = files::read(&path)? {
            // With which flags it was written stands in the file itself: what counts is that it is whole.
            let state = match inspect(&text) {
                None => State::Foreign,
                Some(read) if !read.untouched => State::Modified,
                Some(_) => State::InSync,
            };
            let diff = String::new();
            found.push((path, Drift { state, diff }));
        }
    }
    Ok(found)
}

/// Looks at everything. Nothing is changed.
///
/// # Errors
/// No node is installed; files that cannot be read.
pub fn verify(
    layout: &Layout,
    target: Target,
    mirrors: &str,
    commands: &dyn Commands,
) -> Result<Vec<Check>, NodeError> {
    let scope = layout.scope;
    let installed = Installed::read(layout, target)?.ok_or(NodeError::NotInstalled {
        scope: scope.as_str(),
    })?;
    let unit = installed.unit();
    let mut checks = Vec::new();
    let found = drift(layout, target, mirrors, commands)?;
    for (path, drift) in &found {
        checks.push(Check::new(
            path.as_str(),
            drift.state == State::InSync,
            drift.state.as_str(),
        ));
    }
    if let Some(copied) = installed.copied() {
        let digest = files::digest(&copied.path)?;
        let detail = match &digest {
            None => "there is none".to_owned(),
            Some(digest) if *digest == copied.sha256 => format!("sha256:{digest}"),
            Some(digest) => format!("sha256:{digest}, and sha256:{} was installed", copied.sha256),
        };
        checks.push(Check::new(
            copied.path.as_str(),
            digest.as_ref() == Some(&copied.sha256),
            detail,
        ));
    }
    if target == Target::Systemd {
        let units = found.iter().map(|(path, _)| path.as_str());
        let units = units.filter(|path| path.ends_with(".service") || path.ends_with(".socket"));
        // Man pages are missing on small hosts, and say nothing of the unit.
        let mut words = vec!["systemd-analyze", "--man=no", "--recursive-errors=no"];
        if scope == crate::layout::Scope::User {
            words.push("--user");
        }
        words.push("verify");
        words.extend(units);
        let words = crate::commands::owned(&words);
        match commands.run(&words) {
            Ok(ran) => {
                let said = ran.stderr.trim();
                let detail = if said.is_empty() { "no complaints" } else { said };
                checks.push(Check::new("systemd-analyze verify", ran.ok(), detail));
            }
            Err(error) => checks.push(Check::new(
                "systemd-analyze verify",
                true,
                format!("not run: {error}"),
            )),
        }
    }
    let show = scope.systemctl(&[
        "show",
        "--property=LoadState,ActiveState,SubState,NeedDaemonReload",
        unit,
    ]);
    let shown = commands.must(&show)?;
    let value = |name: &str| {
        shown
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .unwrap_or("unknown")
    };
    let loaded = value("LoadState") == "loaded" && value("NeedDaemonReload") == "no";
    let detail = match (value("LoadState"), value("NeedDaemonReload")) {
        (state, "yes") => format!("{state}, and its file has changed since: systemctl daemon-reload"),
        (state, _) => state.to_owned(),
    };
    checks.push(Check::new(format!("{unit} is loaded"), loaded, detail));
    let node = installed.node().map(|manifest| &manifest.request);
    let waiting = node.is_some_and(|request| request.socket_activation) && {
        let words = scope.systemctl(&["is-active", "--quiet", "nimbus.socket"]);
        commands.run(&words).is_ok_and(|ran| ran.ok())
    };
    let active = value("ActiveState") == "active";
    let detail = match (active, waiting) {
        (false, true) => "the socket waits for the first connection".to_owned(),
        _ => format!("{} ({})", value("ActiveState"), value("SubState")),
    };
    checks.push(Check::new(format!("{unit} runs"), active || waiting, detail));
    if let (true, Some(request)) = (active, node) {
        let address = crate::request::probe_address(request.listen);
        let (ok, detail) = match probe::ask(address) {
            Answer::Ready => (true, format!("http://{address}/ready answers 200")),
            Answer::Tls => (true, format!("{address} answers with TLS")),
            Answer::NotReady(reason) => (false, reason),
        };
        checks.push(Check::new(format!("{unit} is ready"), ok, detail));
    }
    Ok(checks)
}
