//! `nimbus node`: this host as a node, a unit of its service manager.

mod inspect;
mod install;
mod join;

use std::process::ExitCode;

use camino::Utf8PathBuf;
use nimbus_node::{Kind, Layout, NodeError, Scope, Target};

pub(crate) use install::{InstallHereArgs, UninstallHereArgs, install_here, uninstall_here};

use crate::cli::environment;
use crate::output::Format;
use crate::problem::{Outcome, Problem};

/// Variable with further repositories that a node's image may come from.
const REPOSITORIES: &str = "NIMBUS_NODE_IMAGE_REPOSITORIES";

/// Run Nimbus as a unit of this host's service manager, and look after it.
#[derive(Debug, clap::Args)]
pub(crate) struct NodeArgs {
    #[command(subcommand)]
    command: NodeCommand,
}

#[derive(Debug, clap::Subcommand)]
enum NodeCommand {
    Install(Box<install::InstallArgs>),
    Uninstall(install::UninstallArgs),
    Join(join::JoinArgs),
    Status(inspect::StatusArgs),
    Logs(inspect::LogsArgs),
    Doctor(inspect::DoctorArgs),
    Verify(inspect::VerifyArgs),
}

/// Which node of this host.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct WhichArgs {
    /// The program as a service of systemd; the default.
    #[arg(long, conflicts_with = "container")]
    systemd: bool,

    /// Its image as a container of Podman, through a Quadlet file.
    #[arg(long)]
    container: bool,

    /// The host's own service manager; the default. Needs root.
    #[arg(long, conflicts_with = "user")]
    system: bool,

    /// The service manager of this account.
    #[arg(long)]
    user: bool,
}

impl WhichArgs {
    /// The service of the system.
    const SYSTEM: Self = Self {
        systemd: true,
        container: false,
        system: true,
        user: false,
    };

    fn target(self) -> Target {
        if self.container {
            Target::Container
        } else {
            Target::Systemd
        }
    }

    fn layout(self) -> Outcome<Layout> {
        let scope = if self.user { Scope::User } else { Scope::System };
        Layout::new(scope, environment).map_err(|error| problem(&error))
    }

    /// Flags that say the same.
    fn flags(self) -> String {
        let mut text = String::new();
        if self.container {
            text.push_str(" --container");
        }
        if self.user {
            text.push_str(" --user");
        }
        text
    }
}

pub(crate) async fn run(args: NodeArgs) -> Outcome<ExitCode> {
    match args.command {
        NodeCommand::Install(args) => install::install(*args).map(|()| ExitCode::SUCCESS),
        NodeCommand::Uninstall(args) => install::uninstall(&args).map(|()| ExitCode::SUCCESS),
        NodeCommand::Join(args) => Box::pin(join::join(args)).await.map(|()| ExitCode::SUCCESS),
        NodeCommand::Status(args) => inspect::status(args),
        NodeCommand::Logs(args) => inspect::logs(args),
        NodeCommand::Doctor(args) => inspect::doctor(args),
        NodeCommand::Verify(args) => inspect::verify(args),
    }
}

impl NodeArgs {
    /// The form of the results.
    pub(crate) fn format(&self) -> Format {
        match &self.command {
            NodeCommand::Doctor(args) => args.output,
            NodeCommand::Verify(args) => args.output,
            _ => Format::Table,
        }
    }
}

/// Repositories besides our own.
fn mirrors() -> String {
    environment(REPOSITORIES).unwrap_or_default()
}

/// A failure of the node as the command says it; what would change comes before it.
fn problem(error: &NodeError) -> Problem {
    if let NodeError::Exists(found) = error {
        for conflict in found.iter().filter(|conflict| !conflict.diff.is_empty()) {
            crate::output::say(format_args!("{}:\n{}", conflict.path, conflict.diff.trim_end()));
        }
    }
    let what = error.to_string();
    let problem = match error.kind() {
        Kind::Usage => Problem::usage(what),
        Kind::Refused => Problem::refused(what),
        Kind::Failed => Problem::failed(what),
    };
    let problem = match std::error::Error::source(error) {
        Some(source) => problem.because(source),
        None => problem,
    };
    match error.next() {
        Some(next) => problem.next(next),
        None => problem,
    }
}

/// The program that runs this command.
fn this_program() -> Outcome<Utf8PathBuf> {
    let failed = |why: String| Problem::failed("could not tell which program this is").why(why);
    let path = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    Utf8PathBuf::from_path_buf(path).map_err(|path| failed(format!("{} is no UTF-8", path.display())))
}
