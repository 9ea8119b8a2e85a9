//! From what is wanted and what is there to what is done. Everything that can refuse does so here.

use std::fmt::Write;

use camino::{Utf8Path, Utf8PathBuf};
use nimbus_units::{Drift, State, compare, inspect};

use crate::account::{self, ACCOUNT, Account};
use crate::artifacts::{self, Artifact, Facts};
use crate::commands::{Commands, owned};
use crate::error::{Conflict, NodeError};
use crate::files;
use crate::layout::{Layout, Scope, Target};
use crate::manifest::{CopiedBinary, Manifest};
use crate::request::Install;

/// The settings file of a fresh node.
pub(crate) const ENV_STUB: &str =
    "# Settings of the Nimbus node, one NAME=value a line; `nimbus start --help` lists them.\n";

/// One file, and what stands in its place now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStep {
    /// What is written.
    pub artifact: Artifact,
    /// What is there.
    pub drift: Drift,
}

/// Everything that installing does, in its order.
#[derive(Clone, Debug)]
pub struct Plan {
    install: Install,
    layout: Layout,
    /// The command that makes the account, if the host lacks it.
    account: Option<Vec<String>>,
    /// The program to copy to its place.
    copy: Option<Utf8PathBuf>,
    /// The files.
    pub files: Vec<FileStep>,
    /// Files of an earlier installation that this one does without.
    obsolete: Vec<Utf8PathBuf>,
    before: Vec<Vec<String>>,
    after: Vec<Vec<String>>,
    old: Option<Manifest>,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Files that were written.
    pub written: Vec<Utf8PathBuf>,
    /// Files of an earlier installation that were removed.
    pub removed: Vec<Utf8PathBuf>,
    /// The program, if it was copied.
    pub copied: Option<Utf8PathBuf>,
    /// Commands that were run.
    pub ran: Vec<String>,
}

impl Plan {
    /// Looks at the host and plans. `program` is the one to install if none is in its place.
    ///
    /// # Errors
    /// Files that cannot be read. Nothing is refused yet: a dry run shows everything.
    pub fn new(
        install: Install,
        layout: Layout,
        program: &Utf8Path,
        commands: &dyn Commands,
    ) -> Result<Self, NodeError> {
        let target = install.request.target;
        let facts = Facts {
            engine_group: account::engine_group(commands),
            podman: match target {
                Target::Container => podman(commands),
                Target::Systemd => None,
            },
        };
        let mut steps = Vec::new();
        for artifact in artifacts::render(&install, &layout, &facts)? {
            let found = files::read(&artifact.path)?;
            let drift = compare(found.as_deref(), &artifact.text);
            steps.push(FileStep { artifact, drift });
        }
        let mut obsolete = Vec::new();
        for name in artifacts::names(target) {
            let path = layout.artifacts(target).join(name);
            let wanted = steps.iter().any(|step| step.artifact.path == path);
            if !wanted && files::read(&path)?.is_some_and(|text| inspect(&text).is_some()) {
                obsolete.push(path);
            }
        }
        let native_system = target == Target::Systemd && layout.scope == Scope::System;
        let account =
            (native_system && Account::find(commands).is_none()).then(|| account::creation(&layout.base));
        let copy = (target == Target::Systemd && !install.binary.exists()).then(|| program.to_owned());
        let mut plan = Self {
            old: Manifest::read(&layout)?,
            install,
            layout,
            account,
            copy,
            files: steps,
            obsolete,
            before: Vec::new(),
            after: Vec::new(),
        };
        plan.order(commands);
        Ok(plan)
    }

    /// The commands of the service manager, before and after the files are written.
    fn order(&mut self, commands: &dyn Commands) {
        let request = &self.install.request;
        let systemctl = |words: &[&str]| self.layout.scope.systemctl(words);
        let active = |unit: &str| {
            let words = systemctl(&["is-active", "--quiet", unit]);
            commands.run(&words).is_ok_and(|ran| ran.ok())
        };
        let mut before = Vec::new();
        let had_socket = self
            .obsolete
            .iter()
            .any(|path| path.file_name() == Some("nimbus.socket"));
        if had_socket {
            before.push(systemctl(&["disable", "--now", "nimbus.socket"]));
        }
        // Else the next boot would start it without a connection.
        let enabled = systemctl(&["is-enabled", "--quiet", "nimbus.service"]);
        if request.socket_activation && commands.run(&enabled).is_ok_and(|ran| ran.ok()) {
            before.push(systemctl(&["disable", "nimbus.service"]));
        }
        let mut after = vec![systemctl(&["daemon-reload"])];
        let unit = if request.socket_activation {
            "nimbus.socket"
        } else {
            "nimbus.service"
        };
        if request.enable && request.target == Target::Systemd {
            after.push(systemctl(&["enable", unit]));
        }
        if request.now {
            let running = active("nimbus.service");
            if request.socket_activation {
                // A socket cannot be taken while its service holds the port, or was given the old one.
                if running {
                    after.push(systemctl(&["stop", "nimbus.socket", "nimbus.service"]));
                }
                let verb = if active("nimbus.socket") {
                    "restart"
                } else {
                    "start"
                };
                after.push(systemctl(&[verb, unit]));
            } else {
                after.push(systemctl(&[if running { "restart" } else { "start" }, unit]));
            }
        }
        self.before = before;
        self.after = after;
    }

    /// What would be done, to the last byte.
    #[must_use]
    pub fn dry_run(&self) -> String {
        let request = &self.install.request;
        let mut text = format!(
            "Nimbus node install dry-run\nmode: {}\nscope: {}\nenable: {}\nnow: {}\n",
            request.target.as_str(),
            request.scope.as_str(),
            request.enable,
            request.now
        );
        // Writing to a String cannot fail.
        for FileStep { artifact, .. } in &self.files {
            let _ = write!(
                text,
                "\n### {} -> {}\n{}",
                artifact.name, artifact.path, artifact.text
            );
        }
        text.push('\n');
        if let Some(from) = &self.copy {
            let _ = writeln!(text, "copy: {from} -> {}", self.install.binary);
        }
        if request.target == Target::Systemd {
            for (folder, mode, _) in self.folders() {
                if !folder.exists() {
                    let _ = writeln!(text, "folder: {folder} {mode:04o}");
                }
            }
            let env = self.layout.env_file();
            if !env.exists() {
                let _ = writeln!(text, "file: {env} 0600");
            }
        }
        for path in &self.obsolete {
            let _ = writeln!(text, "remove: {path}");
        }
        for command in self.account.iter().chain(&self.before).chain(&self.after) {
            let _ = writeln!(text, "run: {}", command.join(" "));
        }
        text
    }

    /// Folders besides those of the files: path, mode, whether they belong to the service's account.
    fn folders(&self) -> Vec<(Utf8PathBuf, u32, bool)> {
        folders(&self.layout)
    }

    /// What forbids it.
    ///
    /// # Errors
    /// An account that may not, files in the way without `overwrite`, another program in the place of ours.
    pub fn check(&self, overwrite: bool, program: &Utf8Path) -> Result<(), NodeError> {
        allowed(self.layout.scope)?;
        // Of two files for one unit the service manager takes the one of the service, and what removes the
        // other would not know of it.
        let other = match self.install.request.target {
            Target::Systemd => self.layout.quadlet.join("nimbus.container"),
            Target::Container => self.layout.units.join("nimbus.service"),
        };
        if files::read(&other)?.is_some_and(|text| inspect(&text).is_some()) {
            return Err(NodeError::OtherTarget { path: other });
        }
        if !overwrite {
            let conflicts: Vec<Conflict> = self
                .files
                .iter()
                .filter(|step| step.drift.state != State::Absent)
                .map(|step| Conflict {
                    path: step.artifact.path.clone(),
                    state: step.drift.state,
                    diff: step.drift.diff.clone(),
                })
                .collect();
            if !conflicts.is_empty() {
                return Err(NodeError::Exists(conflicts));
            }
        }
        // One that somebody else put there, such as a package, is used as it is; `doctor` compares versions.
        let binary = &self.install.binary;
        let copied = self.old.as_ref().and_then(|old| old.binary.as_ref());
        let ours = copied.is_some_and(|copied| copied.path == *binary);
        if ours && self.copy.is_none() && files::digest(binary)? != files::digest(program)? {
            return Err(NodeError::OtherBinary { path: binary.clone() });
        }
        Ok(())
    }

    /// Does it. [`check`](Self::check) comes before.
    ///
    /// # Errors
    /// What the host refuses; what was done until then stays.
    pub fn apply(&self, commands: &dyn Commands) -> Result<Applied, NodeError> {
        let mut done = Applied::default();
        let mut manifest = Manifest::new(self.install.request.clone());
        if let Some(old) = &self.old {
            manifest.binary.clone_from(&old.binary);
            manifest.account = old.account;
            manifest.folders.clone_from(&old.folders);
        }
        let mut run = |words: &Vec<String>| {
            done.ran.push(words.join(" "));
            commands.must(words).map(drop)
        };
        if let Some(creation) = &self.account {
            run(creation)?;
            manifest.account = true;
        }
        for command in &self.before {
            run(command)?;
        }
        let mut made = Vec::new();
        if self.install.request.target == Target::Systemd {
            for (folder, mode, account) in self.folders() {
                made.extend(files::make_folder(&folder, mode)?);
                if account {
                    give(&folder, commands)?;
                }
            }
            let env = self.layout.env_file();
            if !env.exists() {
                files::write(&env, ENV_STUB, 0o600)?;
            }
        } else {
            made.extend(files::make_folder(&self.layout.config, 0o755)?);
        }
        if let Some(from) = &self.copy {
            let place = &self.install.binary;
            if let Some(folder) = place.parent() {
                made.extend(files::make_folder(folder, 0o755)?);
            }
            let staged = files::stage(from, place)?;
            files::swap(&staged, place)?;
            manifest.binary = files::digest(place)?.map(|sha256| CopiedBinary {
                path: place.clone(),
                sha256,
            });
            done.copied = Some(place.clone());
        }
        for FileStep { artifact, .. } in &self.files {
            if let Some(folder) = artifact.path.parent() {
                made.extend(files::make_folder(folder, 0o755)?);
            }
        }
        // Deepest first, so that they can be removed in this order.
        made.extend(std::mem::take(&mut manifest.folders));
        made.sort_by_key(|folder| std::cmp::Reverse(folder.components().count()));
        made.dedup();
        manifest.folders = made;
        // Before the files: what a crash leaves can be taken away.
        manifest.write(&self.layout)?;
        for FileStep { artifact, .. } in &self.files {
            files::write(&artifact.path, &artifact.text, 0o644)?;
            done.written.push(artifact.path.clone());
        }
        for path in &self.obsolete {
            if files::remove(path)? {
                done.removed.push(path.clone());
            }
        }
        for command in &self.after {
            done.ran.push(command.join(" "));
            commands.must(command)?;
        }
        Ok(done)
    }
}

/// Folders besides those of the files: path, mode, whether they belong to the service's account.
pub(crate) fn folders(layout: &Layout) -> Vec<(Utf8PathBuf, u32, bool)> {
    match layout.scope {
        Scope::System => vec![
            (layout.config.clone(), 0o755, false),
            (layout.base.clone(), 0o700, true),
        ],
        Scope::User => {
            let own = [&layout.config, &layout.base].into_iter().chain(&layout.writable);
            own.map(|folder| (folder.clone(), 0o700, false)).collect()
        }
    }
}

/// Whether this process may change units of this scope.
pub(crate) fn allowed(scope: Scope) -> Result<(), NodeError> {
    if !cfg!(target_os = "linux") {
        return Err(NodeError::NotLinux);
    }
    if scope == Scope::System && !account::is_root() {
        return Err(NodeError::NotRoot);
    }
    Ok(())
}

/// Makes the service's account the owner of a folder.
pub(crate) fn give(folder: &Utf8Path, commands: &dyn Commands) -> Result<(), NodeError> {
    let Some(owner) = Account::find(commands) else {
        return Err(NodeError::Usage {
            reason: format!("the account {ACCOUNT} is missing although it was made"),
        });
    };
    std::os::unix::fs::lchown(folder, Some(owner.uid), Some(owner.gid))
        .map_err(crate::error::io("give away", folder))
}

/// Podman's version, major and minor.
pub(crate) fn podman(commands: &dyn Commands) -> Option<(u32, u32)> {
    let said = commands.run(&owned(&["podman", "--version"])).ok()?.stdout;
    let version = said.split_whitespace().last()?;
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
