//! Taking a node away: exactly what installing made, and what it has kept only if that is asked for.

use std::fmt::Write;

use camino::Utf8PathBuf;
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
    binary: Option<Utf8PathBuf>,
    state: Vec<Utf8PathBuf>,
    account: bool,
    /// Whether the service manager knows the service; one that a generator makes may never have been made.
    known: bool,
}

/// What was removed, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Files and folders that are gone.
    pub removed: Vec<Utf8PathBuf>,
    /// What the node kept, and the account it belongs to.
    pub kept: Vec<String>,
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
        let copied = copied.chain(record.iter().filter_map(|record| record.binary.as_ref()));
        let mut binary = None;
        for copied in copied {
            if files::digest(&copied.path)?.as_ref() == Some(&copied.sha256) {
                binary = Some(copied.path.clone());
            }
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
            binary,
            state,
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
        let gone = self
            .files
            .iter()
            .cloned()
            .chain(self.binary.clone())
            .chain(self.env_file()?);
        for path in gone.chain(self.records.iter().cloned()) {
            let _ = writeln!(text, "remove: {path}");
        }
        for folder in self.state.iter().filter(|_| self.purge) {
            let _ = writeln!(text, "remove: {folder}");
        }
        let _ = writeln!(
            text,
            "systemctl: {}",
            self.layout.scope.systemctl(&["daemon-reload"]).join(" ")
        );
        if self.purge && self.account {
            let _ = writeln!(text, "run: userdel {ACCOUNT}");
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
        for path in self
            .files
            .iter()
            .cloned()
            .chain(self.binary.clone())
            .chain(self.env_file()?)
        {
            if files::remove(&path)? {
                done.removed.push(path);
            }
        }
        if self
            .files
            .iter()
            .any(|path| path.as_str().ends_with(ENGINE_DROP_IN))
            && let Some(folder) = self.layout.units.join(ENGINE_DROP_IN).parent()
        {
            files::remove_empty(folder);
        }
        commands.must(&self.layout.scope.systemctl(&["daemon-reload"]))?;
        // A unit that failed is remembered until somebody says otherwise; one that did not is an error here.
        let _ = commands.run(&self.layout.scope.systemctl(&["reset-failed", "nimbus.service"]));
        if self.purge {
            for folder in &self.state {
                std::fs::remove_dir_all(folder).map_err(io("remove", folder))?;
                done.removed.push(folder.clone());
            }
            if self.account {
                commands.must(&owned(&["userdel", ACCOUNT]))?;
            }
        } else {
            done.kept.extend(self.state.iter().map(ToString::to_string));
            if self.account {
                done.kept.push(format!("the account {ACCOUNT}"));
            }
        }
        if self.layout.env_file().exists() {
            done.kept.push(self.layout.env_file().into_string());
        }
        for path in &self.records {
            if files::remove(path)? {
                done.removed.push(path.clone());
            }
        }
        for folder in &self.folders {
            if files::remove_empty(folder) {
                done.removed.push(folder.clone());
            }
        }
        // When settings were kept the last time, so was their folder, and nobody remembers who made it.
        if self.purge && files::remove_empty(&self.layout.config) {
            done.removed.push(self.layout.config.clone());
        }
        Ok(done)
    }
}
