//! `nimbus compose up`: define, start in order, wait, and stay to watch.

use std::process::ExitCode;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use nimbus_compose::workload::{Defined, HASH_LABEL, Needs, definition};
use nimbus_compose::{Condition, Loaded, Notice, Origin, Project, Service};
use nimbus_errors::Code;
use reqwest::Method;
use reqwest::header::ACCEPT;
use serde_json::{Value, json};

use super::{down, ensure_tenant, limit, refused, secrets, tell};
use crate::client::logs::{Lines, data};
use crate::client::sandbox::wait;
use crate::client::workloads::{Workloads, cell, complaint, text};
use crate::output;
use crate::problem::{Outcome, Problem};

/// Which services, and whether to stay.
#[derive(Debug, clap::Args)]
pub(super) struct UpArgs {
    /// Only these, and what they depend on.
    pub(super) services: Vec<String>,
    /// Return once everything is started, instead of printing logs.
    #[arg(long, short)]
    detach: bool,
    /// How long one service may take until it is ready, healthy or done.
    #[arg(long, value_name = "TIME", value_parser = nimbus_config::seconds_or_text)]
    timeout: Option<Duration>,
}

/// A service on its way.
struct Started<'a> {
    service: &'a Service,
    /// What others wait for.
    wanted: Condition,
}

pub(super) async fn up(workloads: &Workloads, loaded: &Loaded, args: &UpArgs) -> Outcome<ExitCode> {
    let project = &loaded.project;
    let order = project.order(&args.services).map_err(|error| refused(&error))?;
    let mut defined: Vec<Defined> = order.iter().map(|service| definition(project, service)).collect();
    let values = secrets::read(loaded, &defined)?;
    for made in &mut defined {
        made.bind(|name| secrets::bytes(&values, name));
        tell(&made.notices);
    }
    if order.len() > 1 {
        tell(&[Notice::info(
            &Origin::default(),
            "networks",
            "a sandbox has no network, so these services do not see each other, neither by name nor by address",
            "what has to be reached is published as a port; export with `nimbus compose export quadlet` where they have to meet",
        )]);
    }
    let needs = defined.iter().fold(Needs::default(), |all, made| Needs {
        resources: all.resources || made.needs.resources,
        ports: all.ports || made.needs.ports,
        mounts: all.mounts || made.needs.mounts,
    });
    ensure_tenant(workloads, needs).await?;
    secrets::put(workloads, loaded, &values).await?;
    for volume in defined.iter().flat_map(|made| &made.volumes) {
        let what = format!("could not make the volume {volume}");
        workloads
            .send(Method::PUT, &["volumes", volume], None, &what)
            .await?;
    }
    output::line(&format!("{} in {}", project.name, workloads.tenant))?;
    let limit = args.timeout.unwrap_or_else(limit);
    let mut started: Vec<&Service> = Vec::new();
    for (service, made) in order.iter().copied().zip(&defined) {
        for (name, dependency) in &service.depends_on {
            let Some(other) = project.services.get(name) else {
                continue;
            };
            let waited = reached(workloads, other, dependency.condition, limit).await;
            match waited {
                Err(problem) if dependency.required => return Err(problem),
                Err(problem) => output::say(format_args!("{problem}")),
                Ok(_) => {}
            }
        }
        one(workloads, service, made).await?;
        started.push(service);
    }
    let goals = started.iter().map(|service| Started {
        service,
        wanted: goal(project, service),
    });
    for goal in goals {
        reached(workloads, goal.service, goal.wanted, limit).await?;
    }
    if args.detach {
        return Ok(ExitCode::SUCCESS);
    }
    watch(workloads, &started).await
}

/// What a service has to get to for `up` to be over: its end, if others wait for that.
fn goal(project: &Project, service: &Service) -> Condition {
    let mut others = project.services.values();
    let is_awaited = others.any(|other| {
        other
            .depends_on
            .get(&service.name)
            .is_some_and(|dependency| dependency.condition == Condition::Completed)
    });
    if is_awaited {
        Condition::Completed
    } else {
        Condition::Started
    }
}

/// Defines and starts one service.
async fn one(workloads: &Workloads, service: &Service, made: &Defined) -> Outcome {
    let name = service.name.as_str();
    let path = ["services", name];
    let what = format!("could not start {name}");
    let current = match workloads.get(&path, &what).await {
        Ok(current) => Some(current),
        Err(problem) if problem.is(Code::OpNotFound) => None,
        Err(problem) => return Err(problem),
    };
    match current {
        None => {
            workloads
                .send(Method::POST, &["services"], Some(&made.body), &what)
                .await?;
        }
        Some(current) if is_in_force(&current, &made.hash) => {
            if !wait::is_over(&current) {
                return say(name, "already_running", &current);
            }
        }
        Some(current) => {
            // Ended before it is replaced: what is on its way from one to the other cannot be started.
            if !wait::is_over(&current) {
                let asked = workloads
                    .send(Method::POST, &["services", name, "stop"], None, &what)
                    .await?;
                let grace = service.stop_grace_period.unwrap_or_default();
                wait::until(workloads, &path, Some(asked), wait::END + grace, wait::is_over).await?;
            }
            let mut body = made.body.clone();
            // The file wins over what is there, and over nobody who is faster than we are.
            if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
                let generation = current.pointer("/metadata/generation").cloned();
                metadata.insert("generation".into(), generation.unwrap_or_else(|| json!(0)));
            }
            workloads.send(Method::PUT, &path, Some(&body), &what).await?;
        }
    }
    let started = workloads
        .send(Method::POST, &["services", name, "start"], None, &what)
        .await?;
    say(name, "started", &started)
}

fn is_in_force(current: &Value, hash: &str) -> bool {
    // A label's name has a slash in it, which a pointer writes as ~1.
    let pointer = format!("/metadata/labels/{}", HASH_LABEL.replace('/', "~1"));
    text(current, &pointer).as_deref() == Some(hash)
}

fn say(name: &str, word: &str, service: &Value) -> Outcome {
    output::line(&format!(
        "{name}: {word} (sandbox {}, status {})",
        cell(service, "/status/sandboxId"),
        wait::state(service)
    ))
}

/// Waits until a service is as far as somebody needs it.
async fn reached(
    workloads: &Workloads,
    service: &Service,
    condition: Condition,
    limit: Duration,
) -> Outcome<Value> {
    let name = service.name.as_str();
    let has_check = service.health.as_ref().is_some_and(|health| !health.disable);
    let is_there = |item: &Value| match condition {
        Condition::Started => wait::state(item) != "starting",
        Condition::Healthy if has_check => cell(item, "/status/health") == "healthy",
        Condition::Healthy => wait::state(item) == "ready",
        Condition::Completed => wait::state(item) == "stopped",
    };
    let item = wait::until(workloads, &["services", name], None, limit, |item| {
        is_there(item) || wait::is_over(item)
    })
    .await?;
    let has_failed = wait::state(&item) == "failed";
    if is_there(&item) && !has_failed {
        return Ok(item);
    }
    let wanted = match condition {
        Condition::Started => "start",
        Condition::Healthy => "become healthy",
        Condition::Completed => "end well",
    };
    Err(Problem::failed(format!("{name} did not {wanted}"))
        .why(complaint(&item).unwrap_or_else(|| format!("it is {}", wait::state(&item))))
        .next(format!("nimbus compose logs {name}")))
}

/// Prints the logs of all services until Ctrl-C, and stops them then.
async fn watch(workloads: &Workloads, started: &[&Service]) -> Outcome<ExitCode> {
    let width = started
        .iter()
        .map(|service| service.name.len())
        .max()
        .unwrap_or_default();
    let mut logs: FuturesUnordered<_> = started
        .iter()
        .map(|service| follow(workloads, &service.name, width))
        .collect();
    let ended = async {
        while let Some(done) = logs.next().await {
            if let Err(problem) = done {
                output::say(format_args!("{problem}"));
            }
        }
    };
    tokio::select! {
        () = ended => return Ok(ExitCode::SUCCESS),
        asked = tokio::signal::ctrl_c() => {
            asked.map_err(|error| Problem::failed("could not wait for Ctrl-C").because(&error))?;
        }
    }
    output::say("Stopping; Ctrl-C again leaves them as they are.");
    let stopping = async {
        for service in started.iter().rev() {
            down::stop(workloads, service, false).await?;
        }
        Ok(ExitCode::SUCCESS)
    };
    tokio::select! {
        done = stopping => done,
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::FAILURE),
    }
}

/// Prints the log of one service, each line behind its name.
async fn follow(workloads: &Workloads, name: &str, width: usize) -> Outcome {
    let what = format!("could not read the log of {name}");
    let request = workloads
        .unlimited(Method::GET, &["services", name, "logs"])
        .header(ACCEPT, "application/x-ndjson")
        .query(&[("tail", "200"), ("follow", "true")]);
    let mut lines = Lines::of(&workloads.api, workloads.api.reach(request, &what).await?, &what);
    while let Some(line) = lines.next().await? {
        let text = String::from_utf8_lossy(&data(&line)).into_owned();
        output::line(&format!("{name:width$} | {text}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_is_known_by_its_label() {
        let current = json!({ "metadata": { "labels": { "compose/definition": "abc" } } });
        assert!(is_in_force(&current, "abc") && !is_in_force(&current, "abd"));
    }
}
