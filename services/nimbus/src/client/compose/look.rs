//! `nimbus compose ps`, `inspect` and `top`.

use std::collections::BTreeSet;

use nimbus_compose::json_as_yaml;
use nimbus_compose::workload::PROJECT_LABEL;
use reqwest::Method;
use serde_json::{Value, json};

use super::{FileArgs, is_absent, is_json};
use crate::client::ClientArgs;
use crate::client::logs::data;
use crate::client::workloads::{Workloads, cell, endpoints, text};
use crate::output::{self, Format};
use crate::problem::{Outcome, Problem};

/// Prints the processes: of `ps` where there is one, else of what the kernel says.
const PROCESSES: &str = r#"ps -eo pid,user,time,args 2>/dev/null || ps 2>/dev/null || { echo PID COMMAND
for p in /proc/[0-9]*; do [ -r "$p/cmdline" ] && echo "${p#/proc/} $(tr '\0' ' ' <"$p/cmdline")"; done; }"#;

/// Which services.
#[derive(Debug, clap::Args)]
pub(super) struct PsArgs {
    /// Print no heading.
    #[arg(long, short)]
    noheading: bool,
    /// Those of every project and tenant that the credential reaches.
    #[arg(long)]
    all_tenants: bool,
}

pub(super) async fn ps(client: &ClientArgs, files: &FileArgs, args: &PsArgs) -> Outcome {
    let what = "could not list the services";
    let mut items = Vec::new();
    if args.all_tenants {
        let api = client.api()?;
        let answer = api.resource(api.request(Method::GET, &["tenants"]), what).await?;
        let tenants = answer.get("tenants").and_then(Value::as_array);
        for tenant in tenants.into_iter().flatten().filter_map(Value::as_str) {
            let workloads = Workloads {
                api: api.clone(),
                tenant: tenant.to_owned(),
            };
            items.extend(list(&workloads, None).await?);
        }
    } else {
        let project = files.load(&[])?.project;
        let workloads = files.open(client, &project)?;
        items = list(&workloads, Some(&project.key())).await?;
        let there: BTreeSet<String> = items
            .iter()
            .filter_map(|item| text(item, "/metadata/name"))
            .collect();
        for name in project.services.keys().filter(|name| !there.contains(*name)) {
            items.push(json!({
                "metadata": { "name": name, "tenantId": workloads.tenant },
                "status": { "lifecycleState": "absent" },
            }));
        }
    }
    if is_json(client.output) {
        return output::json(&items);
    }
    let rows = items.iter().map(|item| {
        [
            cell(item, "/metadata/name"),
            cell(item, "/metadata/tenantId"),
            status(item),
            cell(item, "/status/sandboxId"),
            cell(item, "/status/restartCount"),
            cell(item, "/status/exitCode"),
            endpoints(item),
        ]
    });
    if args.noheading {
        return rows
            .map(|row| row.join("  "))
            .try_for_each(|line| output::line(&line));
    }
    output::table(
        [
            "SERVICE",
            "TENANT",
            "STATUS",
            "SANDBOX",
            "RESTARTS",
            "EXIT",
            "ENDPOINTS",
        ],
        rows.collect(),
        "There are no services. Start some with `nimbus compose up`.",
    )
}

/// The services of a tenant that came from a Compose file; of one project, if it is named.
async fn list(workloads: &Workloads, project: Option<&str>) -> Outcome<Vec<Value>> {
    let mut query = vec![("labelKey", PROJECT_LABEL.to_owned())];
    query.extend(project.map(|key| ("labelValue", key.to_owned())));
    match workloads
        .all(&["services"], &query, "could not list the services")
        .await
    {
        Err(problem) if is_absent(&problem) => Ok(Vec::new()),
        listed => listed,
    }
}

/// The state, and the health where somebody looks.
fn status(item: &Value) -> String {
    let state = cell(item, "/status/lifecycleState");
    match cell(item, "/status/health").as_str() {
        health @ ("healthy" | "unhealthy") => format!("{state} ({health})"),
        _ => state,
    }
}

pub(super) async fn inspect(workloads: &Workloads, name: &str, format: Format) -> Outcome {
    let item = workloads
        .get(&["services", name], &format!("could not show {name}"))
        .await?;
    if is_json(format) {
        return output::json(&item);
    }
    output::line(json_as_yaml(&item).trim_end())
}

pub(super) async fn top(workloads: &Workloads, name: &str) -> Outcome {
    let what = format!("could not list the processes of {name}");
    let item = workloads.get(&["services", name], &what).await?;
    let Some(sandbox) = text(&item, "/status/sandboxId") else {
        return Err(Problem::failed(what)
            .why(format!("it is {}", cell(&item, "/status/lifecycleState")))
            .next("nimbus compose up"));
    };
    let body = json!({ "argv": ["/bin/sh", "-c", PROCESSES], "timeoutMs": 10_000 });
    let done = workloads
        .send(Method::POST, &["sandboxes", &sandbox, "exec"], Some(&body), &what)
        .await?;
    let stdout = match done.get("stdout") {
        Some(Value::String(text)) => text.clone(),
        Some(frame) => String::from_utf8_lossy(&data(frame)).into_owned(),
        None => String::new(),
    };
    output::line(stdout.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_shown_where_somebody_looks() {
        let item = |health: &str| json!({ "status": { "lifecycleState": "ready", "health": health } });
        assert_eq!(status(&item("healthy")), "ready (healthy)");
        assert_eq!(status(&item("unknown")), "ready");
    }
}
