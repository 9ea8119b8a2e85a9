//! `nimbus config`: which settings are in force, and the page that lists all of them.

use camino::Utf8PathBuf;
use clap::CommandFactory;
use nimbus_config::{Layers, Section, Setting};

use crate::cli::{Cli, FileOf, environment};
use crate::output::{self, Format};
use crate::problem::{Outcome, Problem};

/// Show the settings of the server.
#[derive(Debug, clap::Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ConfigCommand {
    /// Show the values that `nimbus start` would use here, and where each comes from; secrets as stars.
    Show {
        /// TOML or JSON file with settings.
        #[arg(long, env = "NIMBUS_CONFIG", value_name = "FILE")]
        config: Option<Utf8PathBuf>,
        /// Only what is not left at its default.
        #[arg(long)]
        changed: bool,
        /// How results are printed.
        #[arg(long, short, value_enum, default_value_t, env = "NIMBUS_OUTPUT")]
        output: Format,
    },
    /// Print the page that lists every setting, as Markdown.
    Reference,
}

pub(crate) fn run(args: ConfigArgs) -> Outcome {
    match args.command {
        ConfigCommand::Show {
            config,
            changed,
            output,
        } => show(config, changed, output),
        ConfigCommand::Reference => output::line(reference().trim_end()),
    }
}

impl ConfigArgs {
    /// The form of the results.
    pub(crate) fn format(&self) -> Format {
        match &self.command {
            ConfigCommand::Show { output, .. } => *output,
            ConfigCommand::Reference => Format::Table,
        }
    }
}

fn show(config: Option<Utf8PathBuf>, changed: bool, format: Format) -> Outcome {
    let layers = Layers::new(crate::cli::read_file(
        config.map(|path| FileOf { path, by: "--config" }),
    )?);
    let start = crate::cli::subcommand(&Cli::command(), "start")?;
    let laid = layers
        .apply(start.clone(), environment)
        .map_err(|error| Problem::usage("the settings cannot be used").because(&error))?;
    let matches = laid.clone().try_get_matches_from(["start"]).map_err(|error| {
        Problem::usage("the settings cannot be used").why(error.to_string().trim().to_owned())
    })?;
    layers
        .refuse_empty(&laid, &matches)
        .map_err(|error| Problem::usage("the settings cannot be used").because(&error))?;
    let mut settings = nimbus_config::settings(&start, &matches, &layers, environment);
    if changed {
        use nimbus_config::Origin;
        settings.retain(|setting| !matches!(setting.origin, Origin::Default | Origin::Unset));
    }
    if format == Format::Json {
        return output::json(&settings);
    }
    let row = |setting: Setting| {
        [
            setting.name,
            output::or_dash(setting.value),
            setting.origin.to_string(),
            output::or_dash(setting.variable),
        ]
    };
    output::table(
        ["SETTING", "VALUE", "FROM", "VARIABLE"],
        settings.into_iter().map(row).collect(),
        "Every setting is at its default.",
    )
}

const INTRO: &str = "\
# Configuration

Generated from the definitions that read the settings by `make generate`; `nimbus config reference` prints
the same page, and `nimbus config show` the values that are in force here and where each comes from.

A setting can be given in four places. The first that has it wins:

1. a flag on the command line;
2. a variable of the environment. A secret may instead be the content of a file whose path is in the
   variable of that name with `_FILE` added;
3. the file named by `--config` or `NIMBUS_CONFIG`, TOML or (when its name ends in `.json`) JSON. Keys are
   the names of the flags; `proxmox-host = \"…\"`, `proxmox_host = \"…\"` and `[proxmox] host = \"…\"` say the
   same. A key that is no setting is an error;
4. the default.

A time is a number of seconds or has a unit: `600`, `90s`, `10m`, `1h 30m`. An empty value is not the same
as none: it is refused, except for `NIMBUS_VM_DISK_STORAGE`, where it says that placement does not look at
disks.
";

/// The page of every setting.
pub(crate) fn reference() -> String {
    let root = Cli::command();
    let find = |name: &str| root.find_subcommand(name).cloned().unwrap_or_default();
    let (start, dev, sim, login) = (find("start"), find("dev"), find("pve-sim"), find("login"));
    let of_start: Vec<&str> = start.get_arguments().filter_map(clap::Arg::get_long).collect();
    let sections = [
        Section {
            title: "Server",
            about: "For `nimbus start`, `nimbus serve` and `nimbus dev`; `backup` and `restore` know those of the data.",
            command: &start,
            without: &[],
        },
        Section {
            title: "Development server",
            about: "`nimbus dev` has all of the above and these. Its data folder is `.nimbus/dev` by default, and it \
                    brings its own cluster and address pool.",
            command: &dev,
            without: &of_start,
        },
        Section {
            title: "Simulator",
            about: "For `nimbus pve-sim`.",
            command: &sim,
            without: &[],
        },
        Section {
            title: "Client",
            about: "For every command that talks to a server. `NIMBUS_TOKEN` holds a personal access token and wins over the \
                    one that `nimbus login` keeps in `$XDG_CONFIG_HOME/nimbus/credentials.toml`.",
            command: &login,
            without: &[],
        },
    ];
    nimbus_config::reference(INTRO, &sections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_page_is_the_one_that_is_checked_in() {
        let now = reference();
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
        if std::env::var_os("NIMBUS_GENERATE").is_some() {
            std::fs::write(&path, &now).expect("the source tree is writable");
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == now,
            "docs/configuration.md is not what the code says: run `make generate`"
        );
    }

    #[test]
    fn no_setting_has_the_name_or_variable_of_another_meaning() {
        let start = Cli::command().find_subcommand("start").cloned().unwrap();
        let mut names = std::collections::BTreeSet::new();
        for argument in start.get_arguments() {
            assert!(names.insert(argument.get_long().map(str::to_owned)), "{argument}");
        }
    }
}
