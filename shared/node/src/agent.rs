//! A host that runs sandboxes for a deployment elsewhere: the agent alone, as a unit of its own.
//!
//! It shares account, folders and program with a node; where to find the deployment stands in a settings file
//! that only root and the service manager read.

use camino::{Utf8Path, Utf8PathBuf};
use nimbus_units::{State, UnitFile, compare, exec_line, literal};

use crate::account::{self, Account};
use crate::artifacts::{self, Artifact};
use crate::commands::Commands;
use crate::error::{Conflict, NodeError};
use crate::files;
use crate::layout::{Layout, Scope, Target};
use crate::manifest::{AgentRecord, CopiedBinary};
use crate::plan::{Applied, allowed, folders, give};

/// The name of the unit.
pub const AGENT_UNIT: &str = "nimbus-sandbox-agent.service";

/// The file with an agent's settings.
pub(crate) fn env_file(layout: &Layout) -> Utf8PathBuf {
    layout.config.join("agent.env")
}

/// The folder with an agent's credentials for the bus.
pub(crate) fn bus_folder(layout: &Layout) -> Utf8PathBuf {
    layout.config.join("bus")
}

/// An agent to install.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Where things are.
    pub layout: Layout,
    /// Where the program is or goes.
    pub binary: Utf8PathBuf,
    /// The command that does the same again, without secrets: it stands in the unit.
    pub command: String,
}

impl Agent {
    /// The file with the agent's settings, one `NAME=value` a line.
    #[must_use]
    pub fn env_file(&self) -> Utf8PathBuf {
        env_file(&self.layout)
    }

    /// The unit, to the byte.
    ///
    /// # Errors
    /// A path that cannot stand in a unit.
    pub fn artifact(&self, commands: &dyn Commands) -> Result<Artifact, NodeError> {
        let layout = &self.layout;
        let mut file = UnitFile::new();
        let unit = file.section("Unit")?;
        unit.set("Description", "Nimbus sandbox agent")?
            .set("Documentation", artifacts::DOCUMENTATION)?;
        if layout.scope == Scope::System {
            unit.set("After", "network-online.target local-fs.target docker.service")?
                .set("Wants", "network-online.target")?;
        }
        let service = file.section("Service")?;
        artifacts::begin(service, layout, &self.env_file())?;
        let data = layout.data();
        let words = [
            self.binary.as_str(),
            "serve",
            "sandbox-agent",
            "--data-dir",
            data.as_str(),
        ];
        service.set("ExecStart", exec_line(words)?)?;
        if let (Scope::System, Some(group)) = (layout.scope, account::engine_group(commands)) {
            service
                .comment(
                    "Sandboxes run in the container engine of this host: its socket belongs to this group.",
                )
                .set("SupplementaryGroups", literal(&group))?;
        }
        artifacts::end(service, layout)?;
        let wanted_by = match layout.scope {
            Scope::System => "multi-user.target",
            Scope::User => "default.target",
        };
        file.section("Install")?.set("WantedBy", wanted_by)?;
        artifacts::seal(
            layout.artifacts(Target::Systemd),
            AGENT_UNIT,
            "native-systemd-sandbox-agent/v1",
            &self.command,
            &file,
        )
    }

    /// What forbids it.
    ///
    /// # Errors
    /// An account that may not; a unit in the way without `overwrite`.
    pub fn check(&self, overwrite: bool, commands: &dyn Commands) -> Result<(), NodeError> {
        allowed(self.layout.scope)?;
        let artifact = self.artifact(commands)?;
        let drift = compare(files::read(&artifact.path)?.as_deref(), &artifact.text);
        if drift.state == State::Absent || overwrite {
            return Ok(());
        }
        Err(NodeError::Exists(vec![Conflict {
            path: artifact.path,
            state: drift.state,
            diff: drift.diff,
        }]))
    }

    /// The folder with what proves who the agent is on the bus. Only root changes what is in it, only the
    /// service's account reads the files.
    #[must_use]
    pub fn bus_folder(&self) -> Utf8PathBuf {
        bus_folder(&self.layout)
    }

    /// Makes account and folders, copies `program` if nothing is in its place, writes settings, unit and the
    /// files of [`bus_folder`](Self::bus_folder), each by name and text, and starts it, now and with the host.
    /// [`check`](Self::check) comes before.
    ///
    /// # Errors
    /// What the host refuses; what was done until then stays.
    pub fn apply(
        &self,
        program: &Utf8Path,
        settings: &str,
        bus: &[(&str, &str)],
        commands: &dyn Commands,
    ) -> Result<Applied, NodeError> {
        let scope = self.layout.scope;
        let mut done = Applied::default();
        let mut run = |words: Vec<String>| {
            done.ran.push(words.join(" "));
            commands.must(&words).map(drop)
        };
        if scope == Scope::System && Account::find(commands).is_none() {
            run(account::creation(&self.layout.base))?;
        }
        let mut record = AgentRecord::read(&self.layout)?.unwrap_or_default();
        record.place = Some(self.binary.clone());
        for (folder, mode, owned) in folders(&self.layout) {
            record.folders.extend(files::make_folder(&folder, mode)?);
            if owned {
                give(&folder, commands)?;
            }
        }
        if !self.binary.exists() {
            if let Some(folder) = self.binary.parent() {
                record.folders.extend(files::make_folder(folder, 0o755)?);
            }
            files::swap(&files::stage(program, &self.binary)?, &self.binary)?;
            record.binary = files::digest(&self.binary)?.map(|sha256| CopiedBinary {
                path: self.binary.clone(),
                sha256,
            });
            done.copied = Some(self.binary.clone());
        }
        record
            .folders
            .extend(files::make_folder(&self.layout.units, 0o755)?);
        if !bus.is_empty() {
            let mode = if scope == Scope::System { 0o755 } else { 0o700 };
            record
                .folders
                .extend(files::make_folder(&self.bus_folder(), mode)?);
        }
        record
            .folders
            .sort_by_key(|folder| std::cmp::Reverse(folder.components().count()));
        record.folders.dedup();
        record.write(&self.layout)?;
        if !bus.is_empty() {
            let folder = self.bus_folder();
            for (name, text) in bus {
                let path = folder.join(name);
                files::write(&path, text, 0o600)?;
                if scope == Scope::System {
                    give(&path, commands)?;
                }
                done.written.push(path);
            }
        }
        // The service manager reads it before it becomes the service's account.
        files::write(&self.env_file(), settings, 0o600)?;
        done.written.push(self.env_file());
        let artifact = self.artifact(commands)?;
        files::write(&artifact.path, &artifact.text, 0o644)?;
        done.written.push(artifact.path);
        for words in [
            scope.systemctl(&["daemon-reload"]),
            scope.systemctl(&["enable", AGENT_UNIT]),
            // Starts it too if it does not run.
            scope.systemctl(&["restart", AGENT_UNIT]),
        ] {
            done.ran.push(words.join(" "));
            commands.must(&words)?;
        }
        Ok(done)
    }
}
