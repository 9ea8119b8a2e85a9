//! `nimbus service`: dependencies by name.

use std::io::Read;
use std::time::Duration;

use camino::Utf8PathBuf;
use nimbus_errors::Code;
use reqwest::Method;
use serde_json::{Value, json};

use super::logs::{self, LogArgs};
use super::sandbox::wait;
use super::workloads::{WorkloadArgs, Workloads, cell, complaint, endpoints, labels, moment, text};
use crate::output::{self, Format};
use crate::problem::{Outcome, Problem};

/// Define, start and stop services.
#[derive(Debug, clap::Args)]
pub(crate) struct ServiceArgs {
    #[command(flatten)]
    pub(crate) workloads: WorkloadArgs,
    #[command(subcommand)]
    command: ServiceCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ServiceCommand {
    /// Make services what a file says: new ones are made, others changed.
    Apply {
        /// JSON or YAML: one definition `{metadata: {name, labels?}, spec: {backend}}` or a list; `-` for stdin.
        #[arg(long, short, value_name = "FILE")]
        file: Utf8PathBuf,
    },
    /// Start a service and wait until it is ready.
    Start(ChangeArgs),
    /// Stop a service and wait until it has ended.
    Stop(ChangeArgs),
    /// Stop a service, start it, and wait until it is ready.
    Restart(ChangeArgs),
    /// List services.
    #[command(visible_alias = "list")]
    Ls {
        /// Only those with this label.
        #[arg(long, short, value_name = "KEY[=VALUE]")]
        label: Option<String>,
        /// Print only the names.
        #[arg(long, short)]
        quiet: bool,
    },
    /// Show everything about a service.
    #[command(visible_alias = "inspect")]
    Describe {
        /// The service.
        name: String,
    },
    /// Print the log of a service.
    Logs {
        /// The service.
        name: String,
        #[command(flatten)]
        lines: LogArgs,
    },
    /// Remove a service's definition.
    #[command(visible_alias = "delete")]
    Rm {
        /// The service.
        name: String,
        /// Also one that runs or has open sessions.
        #[arg(long, short)]
        force: bool,
    },
}

#[derive(Debug, clap::Args)]
struct ChangeArgs {
    /// The service.
    name: String,
    /// Do not wait.
    #[arg(long)]
    no_wait: bool,
    /// How long to wait at most.
    #[arg(long, default_value = "5m", value_parser = nimbus_config::seconds_or_text)]
    timeout: Duration,
}

pub(crate) async fn run(args: ServiceArgs) -> Outcome {
    let format = args.workloads.client.output;
    let workloads = args.workloads.open().await?;
    match args.command {
        ServiceCommand::Apply { file } => apply(&workloads, &file, format).await,
        ServiceCommand::Start(change) => act(&workloads, &change, "start", format).await,
        ServiceCommand::Stop(change) => act(&workloads, &change, "stop", format).await,
        ServiceCommand::Restart(change) => act(&workloads, &change, "restart", format).await,
        ServiceCommand::Ls { label, quiet } => ls(&workloads, label.as_deref(), quiet, format).await,
        ServiceCommand::Describe { name } => describe(&workloads, &name, format).await,
        ServiceCommand::Logs { name, lines } => {
            logs::print(&workloads, &["services", &name, "logs"], &lines, format).await
        }
        ServiceCommand::Rm { name, force } => {
            let what = format!("could not remove {name}");
            let current = workloads.get(&["services", &name], &what).await?;
            let request = workloads.request(Method::DELETE, &["services", &name]).query(&[
                ("ifMatchGeneration", generation(&current).to_string()),
                ("force", force.to_string()),
            ]);
            workloads.api.resource(request, &what).await?;
            output::line(&name)
        }
    }
}

fn generation(service: &Value) -> u64 {
    service
        .pointer("/metadata/generation")
        .and_then(Value::as_u64)
        .unwrap_or_default()
}

/// The definitions that a text holds, JSON or YAML.
fn definitions(source: &str) -> Result<Vec<Value>, String> {
    let value: Value = match serde_json::from_str(source) {
        Ok(value) => value,
        Err(_) => serde_saphyr::from_str(source).map_err(|error| error.to_string())?,
    };
    let list = match value {
        Value::Array(list) => list,
        one => vec![one],
    };
    for definition in &list {
        if text(definition, "/metadata/name").is_none() {
            return Err("a definition has no metadata.name".into());
        }
    }
    Ok(list)
}

async fn apply(workloads: &Workloads, file: &Utf8PathBuf, format: Format) -> Outcome {
    let source = if file == "-" {
        let mut source = String::new();
        std::io::stdin()
            .take(1 << 20)
            .read_to_string(&mut source)
            .map(|_| source)
    } else {
        std::fs::read_to_string(file)
    };
    let source = source.map_err(|error| Problem::usage(format!("could not read {file}")).because(&error))?;
    let list =
        definitions(&source).map_err(|why| Problem::usage(format!("{file} cannot be used")).why(why))?;
    let mut made = Vec::new();
    for definition in list {
        let name = text(&definition, "/metadata/name").unwrap_or_default();
        let what = format!("could not apply {name}");
        let (word, service) = match workloads.get(&["services", &name], &what).await {
            Ok(current) => {
                let mut definition = definition;
                // The file wins over what is there, and over nobody who is faster than we are.
                if let Some(metadata) = definition.get_mut("metadata").and_then(Value::as_object_mut) {
                    metadata.insert("generation".into(), json!(generation(&current)));
                }
                let path = ["services", name.as_str()];
                let service = workloads
                    .send(Method::PUT, &path, Some(&definition), &what)
                    .await?;
                ("changed", service)
            }
            Err(problem) if problem.is(Code::OpNotFound) => {
                let service = workloads
                    .send(Method::POST, &["services"], Some(&definition), &what)
                    .await?;
                ("made", service)
            }
            Err(problem) => return Err(problem),
        };
        output::say(format_args!(
            "{name}: {word}, generation {}",
            generation(&service)
        ));
        made.push(service);
    }
    match format {
        Format::Json => output::json(&made),
        Format::Table => Ok(()),
    }
}

async fn act(workloads: &Workloads, args: &ChangeArgs, verb: &str, format: Format) -> Outcome {
    let name = args.name.as_str();
    let what = format!("could not {verb} {name}");
    let mut service = workloads
        .send(Method::POST, &["services", name, verb], None, &what)
        .await?;
    if !args.no_wait {
        let path = ["services", name];
        let stops = verb == "stop";
        service = wait::until(
            workloads,
            &path,
            Some(service),
            args.timeout,
            |service| match wait::state(service) {
                "failed" | "stopped" => true,
                "ready" => !stops,
                _ => false,
            },
        )
        .await?;
        let is_there = if stops {
            wait::is_over(&service)
        } else {
            wait::state(&service) == "ready"
        };
        if !is_there {
            return Err(Problem::failed(what)
                .why(complaint(&service).unwrap_or_else(|| format!("it is {}", wait::state(&service))))
                .next(format!("nimbus service logs {name}")));
        }
    }
    match format {
        Format::Json => output::json(&service),
        Format::Table => output::line(&format!("{name} {}", wait::state(&service))),
    }
}

async fn ls(workloads: &Workloads, label: Option<&str>, quiet: bool, format: Format) -> Outcome {
    let mut query = Vec::new();
    if let Some(label) = label {
        let (key, value) = match label.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (label, None),
        };
        query.push(("labelKey", key.to_owned()));
        query.extend(value.map(|value| ("labelValue", value.to_owned())));
    }
    let items = workloads
        .all(&["services"], &query, "could not list the services")
        .await?;
    if format == Format::Json {
        return output::json(&items);
    }
    if quiet {
        return items
            .iter()
            .try_for_each(|item| output::line(&cell(item, "/metadata/name")));
    }
    let rows = items.iter().map(|item| {
        [
            cell(item, "/metadata/name"),
            cell(item, "/status/backend"),
            cell(item, "/status/lifecycleState"),
            cell(item, "/status/health"),
            cell(item, "/metadata/generation"),
            cell(item, "/status/sandboxId"),
            endpoints(item),
            labels(item),
        ]
    });
    output::table(
        [
            "NAME",
            "BACKEND",
            "STATE",
            "HEALTH",
            "GENERATION",
            "SANDBOX",
            "ENDPOINTS",
            "LABELS",
        ],
        rows.collect(),
        "There are no services. Define one with `nimbus service apply -f FILE`.",
    )
}

async fn describe(workloads: &Workloads, name: &str, format: Format) -> Outcome {
    let what = format!("could not show {name}");
    let item = workloads.get(&["services", name], &what).await?;
    if format == Format::Json {
        return output::json(&item);
    }
    let image = "/spec/backend/sandbox/root/source/reference";
    output::facts(&[
        ("Name", cell(&item, "/metadata/name")),
        ("Tenant", cell(&item, "/metadata/tenantId")),
        ("Generation", cell(&item, "/metadata/generation")),
        ("Backend", cell(&item, "/status/backend")),
        ("Image", cell(&item, image)),
        ("State", cell(&item, "/status/lifecycleState")),
        ("Readiness", cell(&item, "/status/readiness")),
        ("Health", cell(&item, "/status/health")),
        ("Why", output::or_dash(complaint(&item))),
        ("Sandbox", cell(&item, "/status/sandboxId")),
        ("Restarts", cell(&item, "/status/restartCount")),
        ("Endpoints", endpoints(&item)),
        ("Created", moment(&item, "/metadata/createdAt")),
        ("Changed", moment(&item, "/metadata/updatedAt")),
        ("Labels", labels(&item)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_one_definition_or_several_as_json_or_yaml() {
        let yaml = "metadata:\n  name: worker\nspec:\n  backend: { kind: builtIn, provider: browser }\n";
        let one = definitions(yaml).unwrap();
        assert_eq!(
            one,
            [
                json!({ "metadata": { "name": "worker" }, "spec": { "backend": { "kind": "builtIn", "provider": "browser" } } })
            ]
        );
        assert_eq!(definitions(&json!(one).to_string()).unwrap(), one);
        assert_eq!(
            definitions(&json!([one[0], one[0]]).to_string()).unwrap().len(),
            2
        );
        assert!(definitions("spec: {}").is_err() && definitions("{").is_err());
    }
}
