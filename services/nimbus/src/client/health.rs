//! `nimbus health`: is the server up? Usable as a container's health check.

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::Value;

use super::ClientArgs;
use super::patience::until_well;
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

    /// Ask no server: look whether the process that wrote this file at its start is ready and lives. For
    /// processes without a port, such as those of `nimbus serve auth`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["url", "timeout"])]
    ready_file: Option<Utf8PathBuf>,

    /// Ask again until it is up, for this long at most.
    #[arg(long, value_name = "TIME", value_parser = nimbus_config::seconds_or_text)]
    wait: Option<Duration>,
}

pub(crate) async fn run(args: HealthArgs) -> Outcome {
    until_well(args.wait.unwrap_or_default(), async || match &args.ready_file {
        Some(path) => process(path),
        None => server(&args).await,
    })
    .await
}

/// Whether the server says that it is up.
async fn server(args: &HealthArgs) -> Outcome {
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

/// Whether the process that a ready file names lives.
fn process(path: &Utf8Path) -> Outcome {
    let down = |why: String| Problem::failed(format!("the process of {path} is not healthy")).why(why);
    let text = std::fs::read(path).map_err(|error| down(format!("it is not ready: {error}")))?;
    let facts: Value = serde_json::from_slice(&text).map_err(|error| down(error.to_string()))?;
    let pid = facts
        .get("pid")
        .and_then(Value::as_u64)
        .ok_or_else(|| down("the file names no process".to_owned()))?;
    if Utf8Path::new(&format!("/proc/{pid}")).exists() {
        output::facts(&[("Process", pid.to_string()), ("Status", "ready".to_owned())])
    } else {
        Err(down(format!("process {pid} has ended")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_healthy_once_it_is_ready_and_while_it_lives() {
        let dir = camino_tempfile::tempdir().unwrap();
        let file = dir.path().join("ready.json");
        assert!(process(&file).is_err(), "not ready yet");
        std::fs::write(&file, format!(r#"{{"pid":{}}}"#, std::process::id())).unwrap();
        assert!(process(&file).is_ok());
        // Higher than the kernel gives out.
        std::fs::write(&file, r#"{"pid":4194305}"#).unwrap();
        assert!(process(&file).is_err(), "it has ended");
        std::fs::write(&file, "{}").unwrap();
        assert!(process(&file).is_err());
    }
}
