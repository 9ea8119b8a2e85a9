//! Waiting for a sandbox to get somewhere.

use std::io::IsTerminal;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::client::workloads::{Workloads, text};
use crate::output;
use crate::problem::{Outcome, Problem};

/// Pulling an image may take this long, and a little more.
pub(crate) const START: Duration = Duration::from_secs(330);
/// A stop, polite and then not.
pub(crate) const END: Duration = Duration::from_secs(30);
const FIRST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_millis(250);

/// Where a service or sandbox is in its life.
pub(crate) fn state(resource: &Value) -> &str {
    resource
        .pointer("/status/lifecycleState")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Whether it has ended for good.
pub(crate) fn is_over(resource: &Value) -> bool {
    matches!(state(resource), "stopped" | "failed")
}

/// Asks again until `done` says yes; the first answer may be there already.
pub(crate) async fn until(
    workloads: &Workloads,
    path: &[&str],
    first: Option<Value>,
    limit: Duration,
    mut done: impl FnMut(&Value) -> bool,
) -> Outcome<Value> {
    let begun = Instant::now();
    let mut pause = FIRST;
    let name = path.last().copied().unwrap_or_default();
    let what = format!("could not wait for {name}");
    let mut latest = match first {
        Some(first) => first,
        None => workloads.get(path, &what).await?,
    };
    while !done(&latest) {
        if begun.elapsed() >= limit {
            return Err(Problem::failed(what).why(format!(
                "after {} s it is {}{}",
                limit.as_secs(),
                state(&latest),
                text(&latest, "/status/readiness").map_or_else(String::new, |state| format!(", {state}"))
            )));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(LONGEST);
        latest = workloads.get(path, &what).await?;
    }
    Ok(latest)
}

/// Waits until a sandbox runs or has ended. Somebody who watches is told what takes so long.
pub(crate) async fn started(workloads: &Workloads, id: &str, first: Option<Value>) -> Outcome<Value> {
    let mut told = !std::io::stderr().is_terminal();
    until(workloads, &["sandboxes", id], first, START, |resource| {
        if !told && is_pulling(resource) {
            told = true;
            output::say("Pulling the image…");
        }
        state(resource) != "starting"
    })
    .await
}

fn is_pulling(resource: &Value) -> bool {
    let conditions = resource.pointer("/status/conditions").and_then(Value::as_array);
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.get("reason").and_then(Value::as_str) == Some("ImagePulling"))
}
