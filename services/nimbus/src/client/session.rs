//! `nimbus session`: leases on what runs.

use std::process::ExitCode;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::api::{Api, strange};
use super::stdio::{End, Mode, Seat};
use super::workloads::{WorkloadArgs, cell, collect, moment, text};
use crate::output::{self, Format};
use crate::problem::{Outcome, Problem};

/// The longest lease.
const LONGEST: Duration = Duration::from_secs(3600);

/// Open, use and close sessions.
#[derive(Debug, clap::Args)]
pub(crate) struct SessionArgs {
    #[command(flatten)]
    pub(crate) workloads: WorkloadArgs,
    #[command(subcommand)]
    command: SessionCommand,
}

#[derive(Debug, clap::Subcommand)]
enum SessionCommand {
    /// Open a session on a sandbox or a service, and print its id.
    Open {
        /// The sandbox.
        #[arg(required_unless_present = "service", conflicts_with = "service")]
        sandbox: Option<String>,
        /// The service instead.
        #[arg(long)]
        service: Option<String>,
        /// What it carries; may be repeated.
        #[arg(long = "channel", short, default_values = ["stdio", "files"], value_parser = ["stdio", "files", "cdp", "page"])]
        channels: Vec<String>,
        /// How long it lives, at most an hour.
        #[arg(long, default_value = "15m", value_parser = nimbus_config::seconds_or_text)]
        ttl: Duration,
    },
    /// List sessions.
    #[command(visible_alias = "list")]
    Ls {
        /// Only those in this state.
        #[arg(long, value_parser = ["open", "closed", "expired"], default_value = "open")]
        state: String,
        /// In any state.
        #[arg(long, short)]
        all: bool,
        /// Print only the ids.
        #[arg(long, short)]
        quiet: bool,
    },
    /// Take part in the main process of a session's target, or in one that is started for it.
    Attach {
        /// The session.
        id: String,
        /// Do not pass stdin on.
        #[arg(long)]
        no_stdin: bool,
        /// Give the process a terminal; only with a command.
        #[arg(long, short, requires = "argv")]
        tty: bool,
        /// What to start; the main process when it is left out.
        #[arg(last = true, value_name = "COMMAND")]
        argv: Vec<String>,
    },
    /// Close a session.
    Close {
        /// The session.
        id: String,
        /// Why.
        #[arg(long)]
        reason: Option<String>,
    },
}

/// What a session is opened on.
pub(crate) enum Target<'a> {
    Sandbox(&'a str),
    Service(&'a str),
}

/// Opens a session.
pub(crate) async fn open(
    api: &Api,
    tenant: &str,
    target: Target<'_>,
    channels: &[&str],
    ttl: Duration,
) -> Outcome<Value> {
    let (name, target) = match target {
        Target::Sandbox(id) => (id, json!({ "sandbox": { "id": id } })),
        Target::Service(name) => (name, json!({ "service": { "name": name } })),
    };
    let ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    let body = json!({ "tenantId": tenant, "target": target, "channels": channels, "requestedTtlMs": ms });
    let request = api.request(Method::POST, &["sessions"]).json(&body);
    api.resource(request, &format!("could not open a session on {name}"))
        .await
}

/// The id of a session.
pub(crate) fn id_of(session: &Value) -> Outcome<String> {
    text(session, "/metadata/id")
        .ok_or_else(|| strange("could not open a session", "the server's answer has no id"))
}

/// A session of its own for one command: opened, used, closed.
pub(crate) struct Lease<'a> {
    api: &'a Api,
    id: String,
}

impl<'a> Lease<'a> {
    /// Opens one for the stdio of a sandbox.
    pub(crate) async fn stdio(api: &'a Api, tenant: &str, sandbox: &str) -> Outcome<Self> {
        let session = open(api, tenant, Target::Sandbox(sandbox), &["stdio"], LONGEST).await?;
        Ok(Self {
            api,
            id: id_of(&session)?,
        })
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Closes it. One that has ended already, or cannot be closed, ends by its time.
    pub(crate) async fn close(self) {
        let _ = close(self.api, &self.id, None).await;
    }
}

async fn close(api: &Api, id: &str, reason: Option<&str>) -> Outcome<Value> {
    let body = reason.map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
    let request = api.request(Method::POST, &["sessions", id, "close"]).json(&body);
    api.resource(request, &format!("could not close {id}")).await
}

/// Runs the command; an attached process' exit code is the command's.
pub(crate) async fn run(args: SessionArgs) -> Outcome<ExitCode> {
    let format = args.workloads.client.output;
    match args.command {
        SessionCommand::Open {
            sandbox,
            service,
            channels,
            ttl,
        } => {
            let workloads = args.workloads.open().await?;
            let target = match (&sandbox, &service) {
                (Some(id), _) => Target::Sandbox(id),
                (None, Some(name)) => Target::Service(name),
                (None, None) => return Err(Problem::usage("name a sandbox or --service")),
            };
            let channels: Vec<&str> = channels.iter().map(String::as_str).collect();
            let session = open(&workloads.api, &workloads.tenant, target, &channels, ttl).await?;
            match format {
                Format::Json => output::json(&session)?,
                Format::Table => output::line(&id_of(&session)?)?,
            }
        }
        SessionCommand::Ls { state, all, quiet } => {
            let workloads = args.workloads.open().await?;
            let mut query = vec![("tenantId", workloads.tenant.clone())];
            if !all {
                query.push(("state", state));
            }
            let items = collect(
                &workloads.api,
                &["sessions"],
                &query,
                "could not list the sessions",
            )
            .await?;
            ls(&items, quiet, format)?;
        }
        SessionCommand::Attach {
            id,
            no_stdin,
            tty,
            argv,
        } => {
            let api = args.workloads.client.api()?;
            let mut query = Vec::new();
            if !argv.is_empty() {
                query.push(("argv", json!(argv).to_string()));
            }
            if tty {
                query.push(("tty", "1".to_owned()));
            }
            let what = format!("could not attach to {id}");
            let mode = Mode {
                tty,
                input: !no_stdin,
            };
            let end = Seat::take(mode, None)?.sit(&api, &id, &query, &what).await?;
            return match end {
                End::Exit(code) => Ok(ExitCode::from(code)),
                End::Forced => Ok(ExitCode::from(130)),
                End::Expired => Err(Problem::failed(what).why("the session's time is over")),
                End::Closed(why) => Err(Problem::failed(format!("the session {id} ended")).why(why)),
            };
        }
        SessionCommand::Close { id, reason } => {
            let api = args.workloads.client.api()?;
            let closed = close(&api, &id, reason.as_deref()).await?;
            match format {
                Format::Json => output::json(&closed)?,
                Format::Table => output::line(&id)?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn ls(items: &[Value], quiet: bool, format: Format) -> Outcome {
    if format == Format::Json {
        return output::json(&items);
    }
    if quiet {
        return items
            .iter()
            .try_for_each(|item| output::line(&cell(item, "/metadata/id")));
    }
    let rows = items.iter().map(|item| {
        let target = text(item, "/spec/target/service/name")
            .map(|name| format!("service {name}"))
            .or_else(|| text(item, "/spec/target/sandbox/id").map(|id| format!("sandbox {id}")));
        let channels: Vec<&str> = item
            .pointer("/spec/channels")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        [
            cell(item, "/metadata/id"),
            output::or_dash(target),
            channels.join(","),
            cell(item, "/status/lifecycleState"),
            moment(item, "/spec/expiresAt"),
            cell(item, "/status/closeReason"),
        ]
    });
    output::table(
        ["ID", "TARGET", "CHANNELS", "STATE", "EXPIRES", "WHY"],
        rows.collect(),
        "There are no sessions. Open one with `nimbus session open SANDBOX`.",
    )
}
