//! `nimbus machine`: the virtual machine that runs sandboxes where the host cannot, and the image of its
//! operating system.
//!
//! On Linux sandboxes run on the host itself, so there is no such machine. What is left of these commands
//! there is its status, and the image of a host that was booted from one of ours (bootc).

mod os;
mod record;

use camino::Utf8PathBuf;
use nimbus_node::Host;

use crate::cli::environment;
use crate::output::{self, Format};
use crate::problem::{Outcome, Problem};

/// The machine that runs sandboxes on hosts which are not Linux, and its operating system.
#[derive(Debug, clap::Args)]
pub(crate) struct MachineArgs {
    #[command(subcommand)]
    command: MachineCommand,
}

#[derive(Debug, clap::Subcommand)]
enum MachineCommand {
    /// Show the machine. One that was never made is no failure.
    Status {
        /// Which.
        #[arg(default_value = record::DEFAULT_NAME, value_parser = record::name)]
        name: String,
        /// How results are printed.
        #[arg(long, short, value_enum, default_value_t, env = "NIMBUS_OUTPUT")]
        output: Format,
        /// Only the name.
        #[arg(long, short, conflicts_with = "output")]
        quiet: bool,
        /// No heading.
        #[arg(long, short)]
        noheading: bool,
    },
    /// The image that the machine's operating system is booted from.
    Os {
        #[command(subcommand)]
        command: OsCommand,
    },
    /// Make a machine. Linux hosts need none.
    Init,
    /// Start the machine. Linux hosts need none.
    Start,
}

#[derive(Debug, clap::Subcommand)]
enum OsCommand {
    /// Stage the image that belongs to this release; the next boot takes it.
    Upgrade {
        /// Only say what would be done.
        #[arg(long)]
        dry_run: bool,
        /// Boot it now.
        #[arg(long)]
        restart: bool,
    },
    /// Stage an image of your own.
    Apply {
        /// An image of a registry, best with its digest.
        image: String,
        /// Boot it now.
        #[arg(long)]
        restart: bool,
    },
}

impl MachineArgs {
    /// The form of the results.
    pub(crate) fn format(&self) -> Format {
        match &self.command {
            MachineCommand::Status { output, .. } => *output,
            _ => Format::Table,
        }
    }
}

pub(crate) fn run(args: MachineArgs) -> Outcome {
    match args.command {
        MachineCommand::Status {
            name,
            output,
            quiet,
            noheading,
        } => status(&name, output, quiet, noheading),
        MachineCommand::Os { command } => {
            let text = match command {
                OsCommand::Upgrade { dry_run, restart } => os::upgrade(&Host, dry_run, restart)?,
                OsCommand::Apply { image, restart } => os::apply(&Host, &image, restart)?,
            };
            output::line(&text)
        }
        MachineCommand::Init | MachineCommand::Start => Err(Problem::refused("this host needs no machine")
            .why("Linux runs sandboxes itself; a machine is for hosts that cannot")
            .next("nimbus start, or nimbus node install --systemd --enable --now")),
    }
}

fn status(name: &str, format: Format, quiet: bool, noheading: bool) -> Outcome {
    let roots = record::Roots::new(environment)
        .ok_or_else(|| Problem::failed("there is no place for machines").why("HOME is not set"))?;
    let machine = record::read(&roots, name)?;
    if !machine.initialized {
        output::say("Linux hosts run sandboxes directly: no machine is needed here.");
    }
    if quiet {
        return output::line(name);
    }
    if format == Format::Json {
        return output::json(&machine);
    }
    let row = machine.row();
    if noheading {
        return output::line(&row.join("  "));
    }
    output::table(record::HEADING, vec![row], "")
}

/// A path of a machine's record.
type Place = Utf8PathBuf;
