//! Taking a node away: exactly what installing made, and what it has kept only if that is asked for.

use std::collections::BTreeSet;
use std::fmt::Write;

use camino::{Utf8Path, Utf8PathBuf};
use nimbus_units::inspect;

use crate::account::{ACCOUNT, Account};
use crate::agent::{AGENT_UNIT, bus_folder, env_file};
use crate::artifacts::{ENGINE_DROP_IN, names};
use crate::commands::{Commands, owned};
use crate::error::{NodeError, io};
use crate::files;
use crate::layout::{Layout, Scope, Target};
use crate::manifest::{AgentRecord, Manifest};
use crate::plan::{ENV_STUB, allowed};

/// What a container keeps its data in, as Podman calls it.
const VOLUME: &str = "nimbus-data";

/// The data of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Volume {
    /// There is none.
    Absent,
    /// Podman has it.
    There,
    /// Podman cannot be asked.
    Unknown,
}

impl Volume {
    fn find(target: Target, commands: &dyn Commands) -> Self {
        if target == Target::Systemd {
            return Self::Absent;
        }
        let asked = commands.run(&owned(&["podman", "volume", "exists", VOLUME]));
        match asked.ok().and_then(|ran| ran.code) {
            Some(0) => Self::There,
            // Other codes are Podman's own failures.
            Some(1) => Self::Absent,
            _ => Self::Unknown,
        }
    }
}

/// What is removed.
#[derive(Clone, Debug)]
pub struct Removal {
    layout: Layout,
    target: Target,
    purge: bool,
    files: Vec<Utf8PathBuf>,
    foreign: Vec<Utf8PathBuf>,
    /// Files of ours that somebody has changed.
    pub modified: Vec<Utf8PathBuf>,
    /// Where it was written down what was made.
    records: Vec<Utf8PathBuf>,
    folders: Vec<Utf8PathBuf>,
    /// Programs that installing copied: the node's, and another one if the agent has its own.
    binaries: Vec<Utf8PathBuf>,
    /// Those in whose place somebody has put another one.
    replaced: Vec<Utf8PathBuf>,
    state: Vec<Utf8PathBuf>,
    volume: Volume,
    account: bool,
    /// Whether the service manager knows the service; one that a generator makes may never have been made.
    known: bool,
}

/// What was removed, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Files, folders and volumes that are gone.
    pub removed: Vec<String>,
    /// What the node kept, and the account it belongs to.
    pub kept: Vec<String>,
    /// What is not ours to remove, or could not be removed from here, with the reason.
    pub left: Vec<String>,
}

impl Removal {
    /// Looks at what is there. `purge` takes the data along.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn new(
        layout: Layout,
        target: Target,
        purge: bool,
        commands: &dyn Commands,
    ) -> Result<Self, NodeError> {
        let (mut found, mut foreign, mut modified) = (Vec::new(), Vec::new(), Vec::new());
        let agent = (target == Target::Systemd).then_some(AGENT_UNIT);
        for name in names(target).iter().copied().chain(agent) {
            let path = layout.artifacts(target).join(name);
            let Some(text) = files::read(&path)? else {
                continue;
            };
            match inspect(&text) {
                None => foreign.push(path.clone()),
                Some(read) if !read.untouched => modified.push(path.clone()),
                Some(_) => {}
            }
            found.push(path);
        }
        let manifest = Manifest::read(&layout)?.filter(|manifest| manifest.request.target == target);
        let native = target == Target::Systemd;
        let record = match native {
            true => AgentRecord::read(&layout)?,
            false => None,
        };
        let copied = manifest.iter().filter_map(|manifest| manifest.binary.as_ref());
        let copied: Vec<_> = copied
            .chain(record.iter().filter_map(|record| record.binary.as_ref()))
            .collect();
        let (mut binaries, mut replaced) = (Vec::new(), Vec::new());
        for path in copied.iter().map(|copied| &copied.path).collect::<BTreeSet<_>>() {
            let Some(digest) = files::digest(path)? else {
                continue;
            };
            // Node and agent may share a program; an upgrade is written down by one of them.
            let ours = copied
                .iter()
                .any(|copied| copied.path == *path && copied.sha256 == digest);
            let list = if ours { &mut binaries } else { &mut replaced };
            list.push(path.clone());
        }
        if record.is_some() {
            // Installing wrote it, with the credential of the agent in it.
            found.extend(Some(env_file(&layout)).filter(|path| path.exists()));
            let credentials = bus_folder(&layout).read_dir_utf8().into_iter().flatten();
            found.extend(credentials.flatten().map(|entry| entry.into_path()));
        }
        let mut folders: Vec<Utf8PathBuf> = manifest
            .iter()
            .flat_map(|manifest| manifest.folders.clone())
            .collect();
        folders.extend(record.iter().flat_map(|record| record.folders.clone()));
        folders.sort_by_key(|folder| std::cmp::Reverse(folder.components().count()));
        let mut records = Vec::new();
        records.extend(manifest.as_ref().map(|_| layout.manifest()));
        records.extend(record.as_ref().map(|_| AgentRecord::path(&layout)));
        let mut state = Vec::new();
        if native {
            state.push(layout.base.clone());
            state.extend(layout.writable.iter().cloned());
            state.retain(|folder| folder.exists());
        }
        let volume = Volume::find(target, commands);
        let account = native
            && layout.scope == Scope::System
            && Account::find(commands).is_some_and(|account| account.is_ours(&layout.base));
        let show = layout
            .scope
            .systemctl(&["show", "--property=LoadState", "--value", "nimbus.service"]);
        let known = commands
            .run(&show)
            .is_ok_and(|ran| ran.stdout.trim() != "not-found");
        Ok(Self {
            known,
            layout,
            target,
            purge,
            files: found,
            foreign,
            modified,
            records,
            folders,
            binaries,
            replaced,
            state,
            volume,
            account,
        })
    }

    /// Stops and forgets, in the order that does not start it again.
    fn before(&self) -> Option<Vec<String>> {
        let is = |name: &str| self.files.iter().any(|path| path.file_name() == Some(name));
        let systemctl = |words: &[&str]| Some(self.layout.scope.systemctl(words));
        if self.target == Target::Container {
            return systemctl(&["stop", "nimbus.service"]).filter(|_| self.known && is("nimbus.container"));
        }
        let units = ["nimbus.socket", "nimbus.service", AGENT_UNIT]
            .into_iter()
            .filter(|unit| is(unit));
        let words: Vec<&str> = ["disable", "--now"].into_iter().chain(units).collect();
        (words.len() > 2).then(|| self.layout.scope.systemctl(&words))
    }

    fn env_file(&self) -> Result<Option<Utf8PathBuf>, NodeError> {
        let path = self.layout.env_file();
        let text = files::read(&path)?;
        Ok(text.filter(|text| self.purge || text == ENV_STUB).map(|_| path))
    }

    /// What nobody can bring back.
    #[must_use]
    pub fn loses(&self) -> Vec<String> {
        if !self.purge {
            return Vec::new();
        }
        let mut lost: Vec<String> = self.state.iter().map(ToString::to_string).collect();
        lost.extend((self.volume == Volume::There).then(|| format!("the volume {VOLUME}")));
        let settings = self.layout.env_file();
        lost.extend(settings.exists().then(|| settings.into_string()));
        lost.extend(self.account.then(|| format!("the account {ACCOUNT}")));
        lost
    }

    /// Files that go first, before the service manager is told.
    fn first(&self) -> Result<Vec<Utf8PathBuf>, NodeError> {
        let settings = self.env_file()?;
        let paths = self.files.iter().chain(&self.binaries).chain(&settings);
        Ok(paths.cloned().collect())
    }

    /// Folders that go if nothing else is in them, in this order.
    fn emptied(&self) -> Vec<Utf8PathBuf> {
        let drop_in = self.layout.units.join(ENGINE_DROP_IN);
        let drop_in = self.files.contains(&drop_in).then(|| drop_in.parent()).flatten();
        let mut folders: Vec<Utf8PathBuf> = drop_in.map(Utf8Path::to_owned).into_iter().collect();
        folders.extend(self.folders.iter().cloned());
        // When settings were kept the last time, so was their folder, and nobody remembers who made it.
        folders.extend(self.purge.then(|| self.layout.config.clone()));
        folders
    }

    /// What removes the volume, if it goes.
    fn volume_command(&self) -> Option<Vec<String>> {
        (self.purge && self.volume == Volume::There).then(|| owned(&["podman", "volume", "rm", VOLUME]))
    }

    fn left(&self) -> Vec<String> {
        let replaced = self.replaced.iter();
        let mut left: Vec<String> = replaced
            .map(|path| format!("{path}, which is not the program that was installed"))
            .collect();
        if self.purge && self.volume == Volume::Unknown {
            let sudo = match self.layout.scope {
                Scope::System => "sudo ",
                Scope::User => "",
            };
            left.push(format!(
                "the volume {VOLUME} if there is one, as podman cannot be asked here: {sudo}podman volume rm {VOLUME}"
            ));
        }
        left
    }

    /// Everything that would be removed, in the order in which it is.
    fn gone(&self) -> Result<Vec<Utf8PathBuf>, NodeError> {
        let mut gone = self.first()?;
        gone.extend(self.state.iter().filter(|_| self.purge).cloned());
        gone.extend(self.records.iter().cloned());
        let mut known: BTreeSet<Utf8PathBuf> = gone.iter().cloned().collect();
        for folder in self.emptied() {
            let real = folder.symlink_metadata().is_ok_and(|found| found.is_dir());
            let empty = real
                && folder.read_dir_utf8().is_ok_and(|mut entries| {
                    entries.all(|entry| entry.is_ok_and(|entry| known.contains(entry.path())))
                });
            if empty && known.insert(folder.clone()) {
                gone.push(folder);
            }
        }
        Ok(gone)
    }

    /// What would be done.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn dry_run(&self) -> Result<String, NodeError> {
        let mut text = format!(
            "Nimbus node uninstall dry-run\nmode: {}\nscope: {}\n",
            self.target.as_str(),
            self.layout.scope.as_str()
        );
        // Writing to a String cannot fail.
        if let Some(command) = self.before() {
            let _ = writeln!(text, "systemctl: {}", command.join(" "));
        }
        for path in self.gone()? {
            let _ = writeln!(text, "remove: {path}");
        }
        let _ = writeln!(
            text,
            "systemctl: {}",
            self.layout.scope.systemctl(&["daemon-reload"]).join(" ")
        );
        if let Some(command) = self.volume_command() {
            let _ = writeln!(text, "run: {}", command.join(" "));
        }
        if self.purge && self.account {
            let _ = writeln!(text, "run: userdel {ACCOUNT}");
        }
        for left in self.left() {
            let _ = writeln!(text, "left: {left}");
        }
        Ok(text)
    }

    /// What forbids it.
    ///
    /// # Errors
    /// An account that may not; files of somebody else without `force`.
    pub fn check(&self, force: bool) -> Result<(), NodeError> {
        allowed(self.layout.scope)?;
        if self.foreign.is_empty() || force {
            Ok(())
        } else {
            Err(NodeError::Foreign(self.foreign.clone()))
        }
    }

    /// Does it. [`check`](Self::check) comes before. What is not there is fine.
    ///
    /// # Errors
    /// What the host refuses; calling it again goes on.
    pub fn apply(&self, commands: &dyn Commands) -> Result<Removed, NodeError> {
        let mut done = Removed::default();
        if let Some(command) = self.before() {
            commands.must(&command)?;
        }
        for path in self.first()? {
            if files::remove(&path)? {
                done.removed.push(path.into_string());
            }
        }
        commands.must(&self.layout.scope.systemctl(&["daemon-reload"]))?;
        // A unit that failed is remembered until somebody says otherwise; one that did not is an error here.
        let _ = commands.run(&self.layout.scope.systemctl(&["reset-failed", "nimbus.service"]));
        if self.purge {
            for folder in &self.state {
                std::fs::remove_dir_all(folder).map_err(io("remove", folder))?;
                done.removed.push(folder.to_string());
            }
            if let Some(command) = self.volume_command() {
                commands.must(&command)?;
                done.removed.push(format!("the volume {VOLUME}"));
            }
            if self.account {
                commands.must(&owned(&["userdel", ACCOUNT]))?;
            }
        } else {
            done.kept.extend(self.state.iter().map(ToString::to_string));
            if self.volume == Volume::There {
                done.kept.push(format!("the volume {VOLUME}"));
            }
            if self.account {
                done.kept.push(format!("the account {ACCOUNT}"));
            }
        }
        if self.layout.env_file().exists() {
            done.kept.push(self.layout.env_file().into_string());
        }
        for path in &self.records {
            if files::remove(path)? {
                done.removed.push(path.to_string());
            }
        }
        for folder in self.emptied() {
            if files::remove_empty(&folder) {
                done.removed.push(folder.into_string());
            }
        }
        done.left = self.left();
        Ok(done)
    }
}
