//! `nimbus cluster`: the deployment itself.

use std::time::Duration;

use nimbus_errors::Code;
use nimbus_model::Hostname;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::ClientArgs;
use super::api::{Api, read};
use super::patience::until_well;
use crate::output::{self, Format};
use crate::problem::{Outcome, Problem};

/// See how the services of this installation stand, and let hosts join.
#[derive(Debug, clap::Args)]
pub(crate) struct ClusterArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ClusterCommand {
    /// Show instances with their versions, streams with what waits in them, and who holds which lease.
    ///
    /// Exits with 1 when a service has no instance, versions differ, or a copy of a stream is behind.
    Status {
        /// Ask again until the deployment is healthy, for this long at most.
        #[arg(long, value_name = "TIME", value_parser = nimbus_config::seconds_or_text)]
        wait: Option<Duration>,
    },
    /// Forget a host of sandboxes that is lost and will not come back.
    ForgetHost {
        /// Its name, as the portal's page of the cluster shows it.
        #[arg(value_name = "NAME")]
        host: Hostname,
    },
    /// Print a token with which one host can join within a quarter of an hour.
    JoinToken {
        /// The only host that may use it.
        #[arg(long, value_name = "NAME")]
        host: Option<Hostname>,
    },
}

#[derive(Debug, Deserialize)]
struct Deployment {
    healthy: bool,
    problems: Vec<String>,
    instances: Vec<Instance>,
    streams: Vec<Stream>,
    leases: Vec<Lease>,
}

#[derive(Debug, Deserialize)]
struct Instance {
    service: String,
    id: String,
    version: String,
    host: Option<String>,
    pid: Option<u32>,
    started_at: String,
    requests: u64,
    errors: u64,
}

#[derive(Debug, Deserialize)]
struct Stream {
    name: String,
    messages: u64,
    bytes: u64,
    replicas: u64,
    leader: Option<String>,
    behind: Vec<String>,
    lag: u64,
    unacknowledged: u64,
}

#[derive(Debug, Deserialize)]
struct Lease {
    name: String,
    holder: String,
    renewed_at: Option<String>,
}

pub(crate) async fn run(args: ClusterArgs) -> Outcome {
    let api = args.client.api()?;
    let format = args.client.output;
    match args.command {
        ClusterCommand::Status { wait } => {
            let mut shown = None;
            let asked = until_well(wait.unwrap_or_default(), async || {
                shown = None;
                let (answer, deployment) = look(&api).await?;
                let problems = deployment.problems.join("; ");
                let is_healthy = deployment.healthy;
                shown = Some((answer, deployment));
                if is_healthy {
                    Ok(())
                } else {
                    Err(Problem::failed("the deployment is not healthy").why(problems))
                }
            })
            .await;
            if let Some((answer, deployment)) = shown {
                if format == Format::Json {
                    output::json(&answer)?;
                } else {
                    print(&deployment)?;
                }
            }
            asked
        }
        ClusterCommand::ForgetHost { host } => {
            let what = format!("could not forget {host}");
            let request = api.request(Method::DELETE, &["hosts", host.as_str()]);
            api.answer(request, &what).await?;
            output::say(format_args!("Forgot {host}."));
            Ok(())
        }
        ClusterCommand::JoinToken { host } => {
            let what = "could not make a join token";
            let body = json!({ "host": host });
            let request = api.request(Method::POST, &["hosts", "join-tokens"]).json(&body);
            let (page, _) = api.answer(request, what).await.map_err(|problem| {
                if problem.is(Code::OpConflict) {
                    problem.next("let it listen to them first: NIMBUS_BUS_LISTEN of a node, ops/compose/hosts.yaml of a deployment")
                } else {
                    problem
                }
            })?;
            if format == Format::Json {
                return output::json(&page.data);
            }
            let token = page.data.get("token").and_then(Value::as_str);
            output::say(format_args!(
                "On the host that is to join, within a quarter of an hour:\n  sudo nimbus node join {} --token-file FILE\nThe token, for that file:",
                for_others(api.base())
            ));
            output::line(token.unwrap_or_default())
        }
    }
}

/// How the deployment stands, as it was said and as it is read.
async fn look(api: &Api) -> Outcome<(Value, Deployment)> {
    let what = "could not ask how the deployment stands";
    let answer = api.get(&["deployment"], what).await?;
    let deployment = read(&answer, what)?;
    Ok((answer, deployment))
}

/// The address of the portal on another host, as far as this one knows it.
fn for_others(base: &Url) -> String {
    if is_loopback(base) {
        let port = base.port().map_or_else(String::new, |port| format!(":{port}"));
        return format!("{}://ADDRESS-OF-THE-PORTAL{port}", base.scheme());
    }
    base.as_str().trim_end_matches('/').to_owned()
}

/// Whether an address is this host's own.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => true,
    }
}

fn print(deployment: &Deployment) -> Outcome {
    let short = |id: &str| id.chars().take(8).collect::<String>();
    output::table(
        [
            "SERVICE", "INSTANCE", "VERSION", "HOST", "PID", "SINCE", "REQUESTS", "ERRORS",
        ],
        deployment
            .instances
            .iter()
            .map(|one| {
                [
                    one.service.clone(),
                    short(&one.id),
                    one.version.clone(),
                    output::or_dash(one.host.as_ref()),
                    output::or_dash(one.pid),
                    output::moment(&one.started_at),
                    one.requests.to_string(),
                    one.errors.to_string(),
                ]
            })
            .collect(),
        "No instance answers.",
    )?;
    output::line("")?;
    output::table(
        [
            "STREAM", "MESSAGES", "BYTES", "COPIES", "LEADER", "BEHIND", "LAG", "UNACKED",
        ],
        deployment
            .streams
            .iter()
            .map(|one| {
                let behind = (!one.behind.is_empty()).then(|| one.behind.join(", "));
                [
                    one.name.clone(),
                    one.messages.to_string(),
                    one.bytes.to_string(),
                    one.replicas.to_string(),
                    output::or_dash(one.leader.as_ref()),
                    output::or_dash(behind),
                    one.lag.to_string(),
                    one.unacknowledged.to_string(),
                ]
            })
            .collect(),
        "There are no streams.",
    )?;
    output::line("")?;
    output::table(
        ["LEASE", "HELD BY", "RENEWED"],
        deployment
            .leases
            .iter()
            .map(|one| {
                [
                    one.name.clone(),
                    one.holder.clone(),
                    one.renewed_at
                        .as_deref()
                        .map_or_else(|| "-".to_owned(), output::moment),
                ]
            })
            .collect(),
        "Nobody holds a lease.",
    )
}
