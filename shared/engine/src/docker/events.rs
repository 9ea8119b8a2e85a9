//! The engine's events, without end.
//!
//! ```text
//!          answers                   stream ends, or no answer
//! (start) ────────▶ Back ─ events ──────────────────▶ Gone ─ waits, asks again ─▶ Back …
//! ```
//!
//! A subscription names the moment since which it wants events, taken before the engine is asked
//! whether it lives, so nothing that happens between `Back` and the first event is missed.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptions;
use futures::StreamExt;
use nimbus_model::{Clock, Timestamp};
use tokio::sync::mpsc;

use super::read;
use crate::{ContainerId, EngineEvent, EventKind, Labels};

/// How often an engine that is silent is asked whether it lives, and how long it may take to say so.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// First and last wait before an engine that is gone is asked again.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Events that wait for a slow reader; then the subscription waits, and the engine buffers.
const BUFFER: usize = 256;

/// Runs until nobody reads.
pub(super) fn follow(docker: Docker, labels: &Labels) -> mpsc::Receiver<EngineEvent> {
    let (sender, receiver) = mpsc::channel(BUFFER);
    let mut filters = read::label_filter(labels);
    filters.insert("type".to_owned(), vec!["container".to_owned()]);
    tokio::spawn(async move {
        tokio::select! {
            () = sender.closed() => {}
            () = run(&docker, filters, &sender) => {}
        }
    });
    receiver
}

/// Returns when nobody reads any more.
async fn run(docker: &Docker, filters: HashMap<String, Vec<String>>, to: &mpsc::Sender<EngineEvent>) {
    let clock = Clock::system();
    let mut since = clock.now();
    let mut wait = RETRY.0;
    let mut told_gone = false;
    loop {
        let reason = match alive(docker).await {
            Ok(()) => {
                told_gone = false;
                wait = RETRY.0;
                if to.send(EngineEvent::Back).await.is_err() {
                    return;
                }
                match subscribe(docker, &filters, since, to).await {
                    Some(reason) => reason,
                    None => return,
                }
            }
            Err(reason) => reason,
        };
        // What happened while it was away is found by listing, which `Back` asks for.
        since = clock.now();
        if !told_gone {
            told_gone = true;
            if to.send(EngineEvent::Gone { reason }).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY.1);
    }
}

/// Passes events on until the engine is gone, and says why; `None` when nobody reads any more.
async fn subscribe(
    docker: &Docker,
    filters: &HashMap<String, Vec<String>>,
    since: Timestamp,
    to: &mpsc::Sender<EngineEvent>,
) -> Option<String> {
    let micros = since.micros();
    let options = EventsOptions {
        since: Some(format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)),
        until: None,
        filters: Some(filters.clone()),
    };
    let mut events = Box::pin(docker.events(Some(options)));
    loop {
        match tokio::time::timeout(HEARTBEAT, events.next()).await {
            Ok(Some(Ok(message))) => {
                if let Some(event) = event(message)
                    && to.send(event).await.is_err()
                {
                    return None;
                }
            }
            Ok(Some(Err(error))) => return Some(error.to_string()),
            Ok(None) => return Some("the engine ended the stream of events".to_owned()),
            Err(_) => {
                if let Err(reason) = alive(docker).await {
                    return Some(reason);
                }
            }
        }
    }
}

async fn alive(docker: &Docker) -> Result<(), String> {
    match tokio::time::timeout(HEARTBEAT, docker.ping()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", HEARTBEAT.as_secs())),
    }
}

/// `None` for what nobody here needs to know.
fn event(message: EventMessage) -> Option<EngineEvent> {
    let actor = message.actor?;
    let attributes = actor.attributes.unwrap_or_default();
    // Docker's words first, Podman's own after them.
    let kind = match message.action.as_deref()? {
        "start" => EventKind::Started,
        "die" | "died" => EventKind::Died {
            exit_code: attributes
                .get("exitCode")
                .or_else(|| attributes.get("containerExitCode"))
                .and_then(|code| code.parse().ok()),
        },
        "oom" => EventKind::OutOfMemory,
        "destroy" | "remove" => EventKind::Destroyed,
        _ => return None,
    };
    let micros = message
        .time_nano
        .map(|nanos| nanos / 1000)
        .or_else(|| message.time.map(|seconds| seconds.saturating_mul(1_000_000)))?;
    Some(EngineEvent::Container {
        id: ContainerId::new(actor.id?),
        kind,
        at: Timestamp::from_micros(micros),
        labels: read::event_labels(&attributes),
    })
}

#[cfg(test)]
mod tests {
    use bollard::models::EventActor;

    use super::*;

    fn message(action: &str, attributes: &[(&str, &str)]) -> EventMessage {
        EventMessage {
            action: Some(action.to_owned()),
            actor: Some(EventActor {
                id: Some("c1".to_owned()),
                attributes: Some(
                    attributes
                        .iter()
                        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                        .collect(),
                ),
            }),
            time: Some(7),
            time_nano: Some(7_000_001_000),
            ..EventMessage::default()
        }
    }

    #[test]
    fn both_engines_words_mean_the_same() {
        for (action, code) in [("die", "exitCode"), ("died", "containerExitCode")] {
            let got = event(message(action, &[(code, "137"), ("name", "x"), ("mine", "1")]));
            assert_eq!(
                got,
                Some(EngineEvent::Container {
                    id: ContainerId::new("c1"),
                    kind: EventKind::Died { exit_code: Some(137) },
                    at: Timestamp::from_micros(7_000_001),
                    labels: Labels::from([("mine".to_owned(), "1".to_owned())]),
                })
            );
        }
        assert_eq!(event(message("exec_create: sh", &[])), None);
    }
}
