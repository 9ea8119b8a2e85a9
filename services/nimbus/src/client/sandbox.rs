//! `nimbus sandbox`: isolated worlds for one task each.

pub(crate) mod copy;
pub(crate) mod exec;
pub(crate) mod run;
pub(crate) mod spec;
pub(crate) mod wait;

use std::process::ExitCode;

use reqwest::Method;
use serde_json::{Value, json};

use super::logs::{self, LogArgs};
use super::workloads::{WorkloadArgs, Workloads, cell, complaint, endpoints, labels, moment, text};
use crate::output::{self, Format};
use crate::problem::Outcome;

/// Run commands in sandboxes.
#[derive(Debug, clap::Args)]
pub(crate) struct SandboxArgs {
    #[command(flatten)]
    pub(crate) workloads: WorkloadArgs,
    #[command(subcommand)]
    command: SandboxCommand,
}

#[derive(Debug, clap::Subcommand)]
enum SandboxCommand {
    Run(Box<run::RunArgs>),
    Create(Box<run::CreateArgs>),
    Exec(exec::ExecArgs),
    Shell(exec::ShellArgs),
    Cp(copy::CopyArgs),
    /// Print the log of a sandbox' main process.
    Logs {
        /// The sandbox.
        id: String,
        #[command(flatten)]
        lines: LogArgs,
    },
    /// List sandboxes.
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Show everything about a sandbox.
    #[command(visible_alias = "inspect")]
    Describe {
        /// The sandbox.
        id: String,
    },
    /// Make a link to a port of a sandbox that works for a while without signing in.
    Preview {
        /// The sandbox.
        id: String,
        /// The port inside.
        port: u16,
        /// How long it works.
        #[arg(long, default_value = "15m", value_parser = nimbus_config::seconds_or_text)]
        ttl: std::time::Duration,
    },
    /// Stop sandboxes.
    Stop {
        /// The sandboxes.
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Remove sandboxes with their logs and files.
    #[command(visible_alias = "delete")]
    Rm {
        /// The sandboxes.
        #[arg(required = true)]
        ids: Vec<String>,
        /// Also those that run.
        #[arg(long, short)]
        force: bool,
    },
}

/// Which sandboxes.
#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Only those with this label.
    #[arg(long, short, value_name = "KEY[=VALUE]")]
    label: Option<String>,
    /// Only those in this state.
    #[arg(long, value_name = "STATE", value_parser = ["starting", "ready", "not_ready", "stopping", "stopped", "failed"])]
    status: Option<String>,
    /// Also those that have ended.
    #[arg(long, short)]
    all: bool,
    /// Print only the ids.
    #[arg(long, short)]
    quiet: bool,
}

/// Runs the command; its exit code is that of a process inside where it stands for one.
pub(crate) async fn run(args: SandboxArgs) -> Outcome<ExitCode> {
    let format = args.workloads.client.output;
    match args.command {
        SandboxCommand::Run(run) => return Ok(Box::pin(run::run(&args.workloads, *run)).await),
        SandboxCommand::Exec(exec) => {
            return Ok(Box::pin(exec::exec(&args.workloads, exec)).await);
        }
        SandboxCommand::Shell(shell) => {
            return Ok(Box::pin(exec::shell(&args.workloads, shell)).await);
        }
        _ => {}
    }
    let workloads = args.workloads.open().await?;
    match args.command {
        SandboxCommand::Run(_) | SandboxCommand::Exec(_) | SandboxCommand::Shell(_) => {}
        SandboxCommand::Create(create) => Box::pin(run::create(&workloads, *create, format)).await?,
        SandboxCommand::Cp(copy) => Box::pin(copy::run(&workloads, copy)).await?,
        SandboxCommand::Logs { id, lines } => {
            logs::print(&workloads, &["sandboxes", &id, "logs"], &lines, format).await?;
        }
        SandboxCommand::Ls(list) => ls(&workloads, &list, format).await?,
        SandboxCommand::Describe { id } => describe(&workloads, &id, format).await?,
        SandboxCommand::Preview { id, port, ttl } => {
            let ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
            let made = workloads
                .send(
                    Method::POST,
                    &["sandboxes", &id, "preview-links"],
                    Some(&json!({ "port": port, "ttlMs": ms })),
                    &format!("could not make a link to port {port} of {id}"),
                )
                .await?;
            match format {
                Format::Json => output::json(&made)?,
                Format::Table => output::line(&text(&made, "/url").unwrap_or_default())?,
            }
        }
        SandboxCommand::Stop { ids } => {
            for id in ids {
                let what = format!("could not stop {id}");
                let stopped = workloads
                    .send(Method::POST, &["sandboxes", &id, "stop"], None, &what)
                    .await?;
                told(&id, &stopped, format)?;
            }
        }
        SandboxCommand::Rm { ids, force } => {
            for id in ids {
                remove(&workloads, &id, force).await?;
                output::line(&id)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn told(id: &str, resource: &Value, format: Format) -> Outcome {
    match format {
        Format::Json => output::json(resource),
        Format::Table => output::line(id),
    }
}

/// The command is there and cannot be run.
pub(crate) const NOT_RUNNABLE: u8 = 126;
/// The command is not there.
pub(crate) const NOT_FOUND: u8 = 127;

/// The exit code of a command that did not begin, if it is the command's own fault; as shells say it.
pub(crate) fn never_began(why: &str) -> Option<u8> {
    let why = why.to_lowercase();
    let says = |texts: &[&str]| texts.iter().any(|text| why.contains(text));
    if says(&["no such program", "no such file"]) {
        Some(NOT_FOUND)
    } else if says(&["may not be executed", "permission denied", "exec format"]) {
        Some(NOT_RUNNABLE)
    } else {
        None
    }
}

/// Removes a sandbox.
pub(crate) async fn remove(workloads: &Workloads, id: &str, force: bool) -> Outcome {
    let request = workloads
        .request(Method::DELETE, &["sandboxes", id])
        .query(&[("force", force.to_string())]);
    workloads
        .api
        .resource(request, &format!("could not remove {id}"))
        .await?;
    Ok(())
}

async fn ls(workloads: &Workloads, args: &ListArgs, format: Format) -> Outcome {
    let mut query = Vec::new();
    if let Some(label) = &args.label {
        let (key, value) = match label.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (label.as_str(), None),
        };
        query.push(("labelKey", key.to_owned()));
        query.extend(value.map(|value| ("labelValue", value.to_owned())));
    }
    query.extend(args.status.as_ref().map(|status| ("status", status.clone())));
    let mut items = workloads
        .all(&["sandboxes"], &query, "could not list the sandboxes")
        .await?;
    if !args.all && args.status.is_none() {
        items.retain(|item| {
            !matches!(
                item.pointer("/status/lifecycleState").and_then(Value::as_str),
                Some("stopped" | "failed")
            )
        });
    }
    if format == Format::Json {
        return output::json(&items);
    }
    if args.quiet {
        return items
            .iter()
            .try_for_each(|item| output::line(&cell(item, "/metadata/id")));
    }
    let rows = items.iter().map(|item| {
        [
            cell(item, "/metadata/id"),
            cell(item, "/spec/sandbox/root/source/reference"),
            cell(item, "/status/lifecycleState"),
            cell(item, "/status/exitCode"),
            endpoints(item),
            moment(item, "/metadata/createdAt"),
            labels(item),
        ]
    });
    output::table(
        ["ID", "IMAGE", "STATE", "EXIT", "ENDPOINTS", "CREATED", "LABELS"],
        rows.collect(),
        "There are no sandboxes. Make one with `nimbus sandbox create IMAGE`.",
    )
}

async fn describe(workloads: &Workloads, id: &str, format: Format) -> Outcome {
    let what = format!("could not show {id}");
    let item = workloads.get(&["sandboxes", id], &what).await?;
    if format == Format::Json {
        return output::json(&item);
    }
    let started = item
        .pointer("/status/startedAfterMs")
        .and_then(Value::as_f64)
        .map(|ms| format!("{}, {ms:.1} ms", cell(&item, "/status/start")));
    output::facts(&[
        ("Id", cell(&item, "/metadata/id")),
        ("Tenant", cell(&item, "/metadata/tenantId")),
        ("Name", cell(&item, "/spec/sandbox/owner/displayName")),
        ("Profile", cell(&item, "/spec/profile")),
        ("Backend", cell(&item, "/spec/sandbox/backend")),
        ("Image", cell(&item, "/spec/sandbox/root/source/reference")),
        ("Digest", cell(&item, "/status/imageDigest")),
        ("State", cell(&item, "/status/lifecycleState")),
        ("Readiness", cell(&item, "/status/readiness")),
        ("Health", cell(&item, "/status/health")),
        ("Why", output::or_dash(complaint(&item))),
        ("Exit code", cell(&item, "/status/exitCode")),
        ("Restarts", cell(&item, "/status/restartCount")),
        ("Started", output::or_dash(started)),
        ("Host", cell(&item, "/status/host")),
        ("Endpoints", endpoints(&item)),
        ("Created", moment(&item, "/metadata/createdAt")),
        ("Ends", moment(&item, "/status/expiresAt")),
        ("Labels", labels(&item)),
    ])
}
