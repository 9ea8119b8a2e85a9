//! `nimbus compose`: a Compose file's services under Nimbus, or as units for Podman.

mod down;
mod export;
mod look;
mod secrets;
mod up;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use camino::Utf8PathBuf;
use nimbus_compose::quadlet::ExportError;
use nimbus_compose::{ComposeError, Load, Loaded, Notice, Project, discover, load};
use nimbus_errors::Code;
use reqwest::Method;
use serde_json::json;

use super::ClientArgs;
use super::logs::{self, LogArgs};
use super::workloads::Workloads;
use crate::output::{self, Format};
use crate::problem::{Outcome, Problem};

/// Run the services of a Compose file, or export them as Quadlet units.
///
/// The file is the one of --file, of COMPOSE_FILE, or the nearest compose.yaml, compose.yml,
/// docker-compose.yaml or docker-compose.yml up to the repository's root.
#[derive(Debug, clap::Args)]
pub(crate) struct ComposeArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    #[command(flatten)]
    files: FileArgs,
    #[command(subcommand)]
    command: ComposeCommand,
}

#[derive(Debug, clap::Args)]
struct FileArgs {
    /// A Compose file; may be repeated, the later over the earlier.
    // No -f: that is to follow a log.
    #[arg(long, value_name = "FILE", global = true, help_heading = "Project")]
    file: Vec<Utf8PathBuf>,
    /// A profile to switch on; may be repeated.
    #[arg(long, value_name = "NAME", global = true, help_heading = "Project")]
    profile: Vec<String>,
    /// A file of variables instead of the project's .env; may be repeated.
    #[arg(long, value_name = "FILE", global = true, help_heading = "Project")]
    env_file: Vec<Utf8PathBuf>,
    /// The name of the project [default: the file's, or that of its folder].
    #[arg(long, short, value_name = "NAME", global = true, help_heading = "Project")]
    project_name: Option<String>,
    /// The tenant [default: one of the project's own].
    #[arg(
        long,
        short = 'T',
        env = "NIMBUS_TENANT",
        value_name = "ID",
        global = true,
        help_heading = "Server"
    )]
    tenant: Option<String>,
}

#[derive(Debug, clap::Subcommand)]
enum ComposeCommand {
    /// Print the project as it is understood: one file, everything filled in.
    Config {
        /// Print only the names of the services.
        #[arg(long)]
        services: bool,
    },
    /// Start services in the order in which they depend on each other.
    ///
    /// Stays to print their logs, and stops them on Ctrl-C, unless told to detach.
    Up(up::UpArgs),
    /// Stop services, those first that depend on others.
    Down {
        /// Only these, and nothing they depend on.
        services: Vec<String>,
        /// Also remove their definitions, and of the whole project its secrets. Volumes stay.
        #[arg(long)]
        remove: bool,
    },
    /// List the services of the project.
    Ps(look::PsArgs),
    /// Show everything about a service.
    Inspect {
        /// The service.
        service: String,
    },
    /// Print the log of a service.
    Logs {
        /// The service.
        service: String,
        #[command(flatten)]
        lines: LogArgs,
    },
    /// List the processes of a service.
    Top {
        /// The service.
        service: String,
    },
    /// Write the project for another system.
    Export {
        #[command(subcommand)]
        to: ExportCommand,
    },
}

#[derive(Debug, clap::Subcommand)]
enum ExportCommand {
    /// As Quadlet units, which Podman turns into services of systemd.
    ///
    /// Nothing is installed. What cannot be kept is a warning with file, line, key and what to do.
    Quadlet(export::QuadletArgs),
}

pub(crate) async fn run(args: ComposeArgs) -> Outcome<ExitCode> {
    let ComposeArgs {
        client,
        files,
        command,
    } = args;
    let format = client.output;
    match command {
        ComposeCommand::Config { services } => {
            let project = files.project(&[])?;
            if services {
                for name in project.services.keys() {
                    output::line(name)?;
                }
                return Ok(ExitCode::SUCCESS);
            }
            output::line(project.to_yaml().trim_end())?;
        }
        ComposeCommand::Export {
            to: ExportCommand::Quadlet(wanted),
        } => return export::quadlet(&files, &wanted),
        ComposeCommand::Up(wanted) => {
            let loaded = files.load(&wanted.services)?;
            tell(&loaded.notices);
            let workloads = files.open(&client, &loaded.project)?;
            return Box::pin(up::up(&workloads, &loaded, &wanted)).await;
        }
        ComposeCommand::Down { services, remove } => {
            let loaded = files.load(&services)?;
            tell(&loaded.notices);
            let workloads = files.open(&client, &loaded.project)?;
            down::down(&workloads, &loaded.project, &services, remove).await?;
            if remove && services.is_empty() {
                secrets::remove(&workloads, &loaded).await?;
            }
        }
        ComposeCommand::Ps(wanted) => Box::pin(look::ps(&client, &files, &wanted)).await?,
        ComposeCommand::Inspect { service } => {
            let (workloads, service) = files.one(&client, service)?;
            look::inspect(&workloads, &service, format).await?;
        }
        ComposeCommand::Logs { service, lines } => {
            let (workloads, service) = files.one(&client, service)?;
            logs::print(&workloads, &["services", &service, "logs"], &lines, format).await?;
        }
        ComposeCommand::Top { service } => {
            let (workloads, service) = files.one(&client, service)?;
            look::top(&workloads, &service).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl FileArgs {
    /// Reads the project; naming a service switches its profile on.
    fn load(&self, services: &[String]) -> Outcome<Loaded> {
        let cwd = std::env::current_dir()
            .ok()
            .and_then(|path| Utf8PathBuf::try_from(path).ok())
            .ok_or_else(|| Problem::failed("the current directory has no name that can be used"))?;
        let environment: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let variable = |name: &str| environment.get(name).cloned();
        let files = discover(&cwd, &self.file, &variable).map_err(|error| refused(&error))?;
        load(&Load {
            files,
            environment,
            env_files: self.env_file.iter().map(|file| cwd.join(file)).collect(),
            name: self.project_name.clone(),
            profiles: self.profile.clone(),
            services: services.to_vec(),
        })
        .map_err(|error| refused(&error))
    }

    /// The same, and says what there is to say.
    fn project(&self, services: &[String]) -> Outcome<Project> {
        let loaded = self.load(services)?;
        tell(&loaded.notices);
        Ok(loaded.project)
    }

    fn open(&self, client: &ClientArgs, project: &Project) -> Outcome<Workloads> {
        let tenant = self.tenant.clone().filter(|tenant| !tenant.is_empty());
        Ok(Workloads {
            api: client.api()?,
            tenant: tenant.unwrap_or_else(|| project.default_tenant()),
        })
    }

    /// A service of the project, by a name that is one.
    fn one(&self, client: &ClientArgs, service: String) -> Outcome<(Workloads, String)> {
        let loaded = self.load(std::slice::from_ref(&service))?;
        Ok((self.open(client, &loaded.project)?, service))
    }
}

/// Says what is not as asked for; not data, so to stderr.
fn tell(notices: &[Notice]) {
    for notice in notices {
        output::say(notice);
    }
}

/// A Compose file that cannot be used is wrong usage, like a wrong flag.
fn refused(error: &ComposeError) -> Problem {
    let problem = Problem::usage("the Compose file cannot be used").because(error);
    match error {
        ComposeError::NotFound { .. } => problem.next("name one with --file"),
        ComposeError::UnknownService { .. } => problem.next("nimbus compose config --services"),
        _ => problem,
    }
}

fn not_exported(error: &ExportError) -> Problem {
    match error {
        ExportError::Compose(error) => refused(error),
        error => Problem::usage("the project cannot be exported").because(error),
    }
}

/// Makes the tenant if there is none, and lets it have what the project needs.
async fn ensure_tenant(workloads: &Workloads, needs: nimbus_compose::workload::Needs) -> Outcome {
    let tenant = workloads.tenant.as_str();
    let what = format!("could not make the tenant {tenant}");
    let found = workloads.get(&[], &what).await;
    let current = match found {
        Ok(current) => current,
        Err(problem) if is_absent(&problem) => {
            let request = workloads.api.request(Method::POST, &["tenants"]);
            workloads
                .api
                .resource(request.json(&json!({ "id": tenant })), &what)
                .await?;
            workloads.get(&[], &what).await?
        }
        Err(problem) => return Err(problem),
    };
    let allows = |name: &str| current.pointer(&format!("/policy/{name}")) == Some(&json!(true));
    let policy = json!({
        "resources": allows("resources") || needs.resources,
        "ports": allows("ports") || needs.ports,
        "egress": allows("egress"),
        "mounts": allows("mounts") || needs.mounts,
    });
    if current.get("policy") == Some(&policy) {
        return Ok(());
    }
    let what = format!("could not open the tenant {tenant} for what the project needs");
    let request = workloads
        .request(Method::PATCH, &[])
        .json(&json!({ "policy": policy }));
    workloads.api.resource(request, &what).await?;
    Ok(())
}

/// Whether there is no such service, or not even its tenant.
fn is_absent(problem: &Problem) -> bool {
    problem.is(Code::OpNotFound) || problem.is(Code::SessionTenantNotFound)
}

/// How long one service may take to get somewhere.
fn limit() -> Duration {
    super::sandbox::wait::START
}

/// Whether JSON is wanted.
fn is_json(format: Format) -> bool {
    format == Format::Json
}
