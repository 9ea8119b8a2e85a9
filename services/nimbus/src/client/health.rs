//! `nimbus health`: is the server up? Usable as a container's health check.

use std::time::Duration;

use serde_json::Value;

use super::ClientArgs;
use crate::output::{self, Format};
use crate::problem::{Outcome, Problem};

/// Ask the server how it is; exits with 0 when it is up.
#[derive(Debug, clap::Args)]
pub(crate) struct HealthArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,

    /// How long to wait for the answer.
    #[arg(long, default_value = "5s", value_parser = nimbus_config::seconds_or_text)]
    timeout: Duration,
}

pub(crate) async fn run(args: HealthArgs) -> Outcome {
    let api = args.client.api()?;
    let mut url = api.base().clone();
    url.set_path("/health");
    let down = |why: String| Problem::failed(format!("{} is not healthy", api.base())).why(why);
    let http = reqwest::Client::builder()
        .timeout(args.timeout)
        .build()
        .map_err(|error| Problem::failed("could not set up HTTP").because(&error))?;
    let answer = async {
        let response = http.get(url).send().await?;
        let status = response.status();
        Ok::<_, reqwest::Error>((status, response.json::<Value>().await?))
    };
    let (status, health) = answer
        .await
        .map_err(|error| down(nimbus_errors::chain(&error)).next("nimbus start"))?;
    if health.get("ok") != Some(&Value::Bool(true)) {
        return Err(down(format!("it answered {status}: {health}")));
    }
    if args.client.output == Format::Json {
        return output::json(&health);
    }
    let word = |name: &str| health.get(name).and_then(Value::as_str).map(str::to_owned);
    let cluster = match (
        health.get("proxmox_ok").and_then(Value::as_bool),
        word("proxmox_version"),
        word("proxmox_error"),
    ) {
        (Some(true), version, _) => format!("reachable, Proxmox VE {}", output::or_dash(version)),
        (_, _, Some(error)) => format!("not reachable: {error}"),
        _ => "not configured or not reachable".to_owned(),
    };
    output::facts(&[
        ("Server", api.base().to_string()),
        ("Status", output::or_dash(word("status"))),
        ("Version", output::or_dash(word("version"))),
        ("Cluster", cluster),
    ])
}
