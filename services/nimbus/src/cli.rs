//! The command line: what there is, and which function does it.

#[cfg(test)]
mod page;

use std::ffi::OsString;
use std::process::ExitCode;

use camino::Utf8PathBuf;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use nimbus_config::{FileLayer, Layers};

use crate::admin::{backup, bus, settings};
use crate::client::{
    auth, cluster, compose, gpu, health, login, mcp, sandbox, service, session, tenant, token, vm,
};
use crate::output::Format;
use crate::problem::{Outcome, Problem};
use crate::server::{dev, start};
use crate::{machine, node};

/// Private clouds on Proxmox VE: sign in, order a machine, have it a minute later.
#[derive(Debug, Parser)]
#[command(
    name = "nimbus",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage or setting, 3 refused by a safety rule."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Dev(Box<dev::DevArgs>),
    Start(Box<start::StartArgs>),
    Serve(Box<start::ServeArgs>),
    PveSim(Box<dev::SimArgs>),
    Login(login::LoginArgs),
    Logout(login::LogoutArgs),
    Vm(vm::VmArgs),
    Token(token::TokenArgs),
    Auth(auth::AuthArgs),
    Tenant(tenant::TenantArgs),
    Sandbox(Box<sandbox::SandboxArgs>),
    Service(service::ServiceArgs),
    Session(session::SessionArgs),
    Compose(Box<compose::ComposeArgs>),
    Gpu(Box<gpu::GpuArgs>),
    Cluster(cluster::ClusterArgs),
    Mcp(mcp::McpArgs),
    Health(health::HealthArgs),
    Backup(backup::BackupArgs),
    Restore(backup::RestoreArgs),
    Config(settings::ConfigArgs),
    Bus(bus::BusArgs),
    Node(node::NodeArgs),
    Install(node::InstallHereArgs),
    Uninstall(node::UninstallHereArgs),
    Machine(machine::MachineArgs),
    /// Print the completions of a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Print the version.
    Version,
}

/// Commands that have the settings of a server.
const SERVERS: [&str; 5] = ["dev", "start", "serve", "backup", "restore"];

/// Reads a variable of the environment for the settings.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Parses, runs, and says how the process ends.
pub(crate) fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let (mut command, defaults) = match parse(&args) {
        Ok(parsed) => parsed,
        Err(Stop::Clap(error, lines)) => return complain(&error, &lines),
        Err(Stop::Problem(problem)) => return problem.report(false),
    };
    let json = command.format() == Format::Json;
    // Here, because there are no threads yet.
    if let Command::Start(args) = &mut command
        && let Err(problem) = args.inherit()
    {
        return problem.report(json);
    }
    let runtime = match runtime(&command) {
        Ok(runtime) => runtime,
        Err(error) => {
            return Problem::failed("could not start the runtime")
                .because(&error)
                .report(json);
        }
    };
    match runtime.block_on(dispatch(command, defaults)) {
        Ok(code) => code,
        Err(problem) => problem.report(json),
    }
}

/// Few threads: Nimbus waits more than it computes, and each thread costs memory.
fn runtime(command: &Command) -> std::io::Result<tokio::runtime::Runtime> {
    match command {
        Command::Dev(_) | Command::Start(_) | Command::Serve(_) | Command::PveSim(_) => {
            let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(cores.clamp(2, 4))
                .max_blocking_threads(32)
                .enable_all()
                .build()
        }
        _ => tokio::runtime::Builder::new_current_thread().enable_all().build(),
    }
}

enum Stop {
    /// The command line or a value is wrong, and what to add to clap's words.
    Clap(clap::Error, Vec<String>),
    Problem(Problem),
}

/// Prints what clap says, help and version among it, and what there is to add.
fn complain(error: &clap::Error, lines: &[String]) -> ExitCode {
    // Nobody is left to tell that nobody listens.
    let _ = error.print();
    for line in lines {
        crate::output::say(format_args!("  {line}"));
    }
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

fn unusable(error: &dyn std::error::Error) -> Stop {
    Stop::Problem(
        Problem::usage("the settings cannot be used")
            .because(error)
            .next("nimbus config show"),
    )
}

fn parse(args: &[OsString]) -> Result<(Command, dev::Defaults), Stop> {
    let mut root = Cli::command();
    let layers = Layers::new(read_file(config_file(&root, args)).map_err(Stop::Problem)?);
    if let Some(file) = layers.file() {
        let servers = SERVERS.iter().filter_map(|name| root.find_subcommand(name));
        file.check_keys(servers).map_err(|error| unusable(&error))?;
    }
    for name in SERVERS.into_iter().chain(["pve-sim"]) {
        let laid = subcommand(&root, name).map_err(Stop::Problem)?;
        // The simulator has flags of its own, which the file of a server does not speak of.
        let layers = if name == "pve-sim" {
            &Layers::default()
        } else {
            &layers
        };
        let laid = layers
            .apply(laid, environment)
            .map_err(|error| unusable(&error))?;
        root = root.mut_subcommand(name, |_| laid);
    }
    let matches = match root.try_get_matches_from_mut(args) {
        Ok(matches) => matches,
        Err(error) => {
            let words: Vec<String> = args
                .iter()
                .map(|word| word.to_string_lossy().into_owned())
                .collect();
            let command = words.iter().find_map(|word| root.find_subcommand(word));
            let lines = command.map(|command| layers.explain(&error, command, &words, environment));
            return Err(Stop::Clap(error, lines.unwrap_or_default()));
        }
    };
    let mut defaults = dev::Defaults::default();
    if let Some((name, chosen)) = matches.subcommand() {
        if SERVERS.contains(&name) {
            let command = subcommand(&root, name).map_err(Stop::Problem)?;
            layers
                .refuse_empty(&command, chosen)
                .map_err(|error| unusable(&error))?;
        }
        let by_default = |id: &str, long: &str| {
            chosen.try_contains_id(id).is_ok()
                && chosen.value_source(id) == Some(ValueSource::DefaultValue)
                && !layers.file().is_some_and(|file| file.sets(long))
        };
        defaults = dev::Defaults {
            data_dir: by_default("data_dir", "data-dir"),
            log: by_default("log", "log"),
        };
    }
    let cli = Cli::from_arg_matches(&matches).map_err(|error| Stop::Clap(error, Vec::new()))?;
    Ok((cli.command, defaults))
}

/// A configuration file and who named it.
#[derive(Debug)]
pub(crate) struct FileOf {
    pub(crate) path: Utf8PathBuf,
    pub(crate) by: &'static str,
}

/// The configuration file that a server command is given. Errors of the line are for the real parsing.
fn config_file(root: &clap::Command, args: &[OsString]) -> Option<FileOf> {
    let matches: ArgMatches = root.clone().ignore_errors(true).try_get_matches_from(args).ok()?;
    let (name, chosen) = matches.subcommand()?;
    if !["dev", "start", "serve"].contains(&name) {
        return None;
    }
    let path = chosen.try_get_one::<Utf8PathBuf>("config").ok()??.clone();
    let by = if chosen.value_source("config") == Some(ValueSource::CommandLine) {
        "--config"
    } else {
        "NIMBUS_CONFIG"
    };
    Some(FileOf { path, by })
}

/// Reads the configuration file, if there is one.
pub(crate) fn read_file(file: Option<FileOf>) -> Outcome<Option<FileLayer>> {
    file.map(|file| FileLayer::read(&file.path, file.by))
        .transpose()
        .map_err(|error| Problem::usage("the configuration file cannot be used").because(&error))
}

/// A subcommand, ready to be changed or parsed by itself.
pub(crate) fn subcommand(root: &clap::Command, name: &str) -> Outcome<clap::Command> {
    root.find_subcommand(name)
        .cloned()
        .ok_or_else(|| Problem::failed(format!("there is no command {name}")))
}

impl Command {
    fn format(&self) -> Format {
        match self {
            Self::Login(args) => args.client.output,
            Self::Logout(args) => args.client.output,
            Self::Vm(args) => args.client.output,
            Self::Token(args) => args.client.output,
            Self::Auth(args) => args.output,
            Self::Tenant(args) => args.client.output,
            Self::Sandbox(args) => args.workloads.client.output,
            Self::Service(args) => args.workloads.client.output,
            Self::Session(args) => args.workloads.client.output,
            Self::Compose(args) => args.client.output,
            Self::Gpu(args) => args.client.output,
            Self::Cluster(args) => args.client.output,
            Self::Health(args) => args.client.output,
            Self::Config(args) => args.format(),
            Self::Node(args) => args.format(),
            Self::Machine(args) => args.format(),
            _ => Format::Table,
        }
    }
}

/// Runs the command. Some end as a process does that they stand for.
async fn dispatch(command: Command, defaults: dev::Defaults) -> Outcome<ExitCode> {
    let done = match command {
        Command::Dev(args) => Box::pin(dev::dev(*args, defaults)).await,
        Command::Start(args) => Box::pin(start::start(*args)).await,
        Command::Serve(args) => Box::pin(start::serve(*args)).await,
        Command::PveSim(args) => Box::pin(dev::pve_sim(*args)).await,
        Command::Login(args) => Box::pin(login::login(args)).await,
        Command::Logout(args) => Box::pin(login::logout(args)).await,
        Command::Vm(args) => Box::pin(vm::run(args)).await,
        Command::Token(args) => Box::pin(token::run(args)).await,
        Command::Auth(args) => auth::run(args),
        Command::Tenant(args) => Box::pin(tenant::run(args)).await,
        Command::Sandbox(args) => return Box::pin(sandbox::run(*args)).await,
        Command::Service(args) => Box::pin(service::run(args)).await,
        Command::Session(args) => return Box::pin(session::run(args)).await,
        Command::Compose(args) => return Box::pin(compose::run(*args)).await,
        Command::Gpu(args) => return Box::pin(gpu::run(*args)).await,
        Command::Cluster(args) => Box::pin(cluster::run(args)).await,
        Command::Mcp(args) => Box::pin(mcp::run(args)).await,
        Command::Health(args) => Box::pin(health::run(args)).await,
        Command::Backup(args) => Box::pin(backup::backup(args)).await,
        Command::Restore(args) => Box::pin(backup::restore(args)).await,
        Command::Config(args) => settings::run(args),
        Command::Bus(args) => Box::pin(bus::run(args)).await,
        Command::Node(args) => return Box::pin(node::run(args)).await,
        Command::Install(args) => node::install_here(args),
        Command::Uninstall(args) => node::uninstall_here(args),
        Command::Machine(args) => machine::run(args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "nimbus", &mut script);
            crate::output::line(String::from_utf8_lossy(&script).trim_end())
        }
        Command::Version => crate::output::line(concat!("nimbus ", env!("CARGO_PKG_VERSION"))),
    };
    done.map(|()| ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_file_loses_to_flags_and_unknown_keys_are_refused() {
        let dir = camino_tempfile::tempdir().unwrap();
        let path = dir.path().join("nimbus.toml");
        let line = |extra: &[&str]| {
            let mut args = vec![
                "nimbus".into(),
                "start".into(),
                "--config".into(),
                path.clone().into_std_path_buf().into_os_string(),
            ];
            args.extend(extra.iter().map(OsString::from));
            parse(&args)
        };
        std::fs::write(&path, "port = 9001\n[proxmox]\ninsecure = true\n").unwrap();
        let Ok((Command::Start(args), _)) = line(&[]) else {
            panic!("the file is right")
        };
        assert_eq!(args.server.listen.port, 9001);
        assert!(args.server.proxmox.proxmox_insecure);
        let Ok((Command::Start(args), _)) = line(&["--port", "9002"]) else {
            panic!("the file is right")
        };
        assert_eq!(args.server.listen.port, 9002);

        std::fs::write(&path, "colour = 'blue'\n").unwrap();
        let Err(Stop::Problem(problem)) = line(&[]) else {
            panic!("the key is unknown")
        };
        assert!(problem.to_string().contains("colour"), "{problem}");
        std::fs::write(&path, "host = ''\n").unwrap();
        assert!(line(&[]).is_err());
    }

    #[test]
    fn wrong_values_name_what_was_expected() {
        let args = ["nimbus", "start", "--reconcile-interval", "soon"].map(OsString::from);
        let Err(Stop::Clap(error, _)) = parse(&args) else {
            panic!("soon is no time")
        };
        assert!(error.to_string().contains("such as 600"), "{error}");
    }
}
