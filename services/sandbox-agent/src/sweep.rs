//! Removes what no sandbox owns any more: containers that were made for somebody who was gone when
//! they came up, and their sockets. Only what carries this host's label is looked at.

use std::sync::Arc;
use std::time::Duration;

use nimbus_engine::{ContainerEntry, Remove};
use nimbus_errors::chain;
use nimbus_model::Timestamp;
use nimbus_service::RunError;

use crate::agent::Agent;
use crate::host::Host;
use crate::slot::SLOT_LABEL;

const EVERY: Duration = Duration::from_secs(60);
/// A container that is younger may be coming up.
const YOUNG: Duration = Duration::from_secs(120);

/// Sweeps from time to time.
///
/// # Errors
/// None: the signature is that of a task.
pub(crate) async fn run(host: Arc<Host>) -> Result<(), RunError> {
    let agent = host.has_agent().await;
    loop {
        tokio::time::sleep(EVERY).await;
        once(&agent).await;
    }
}

/// Sweeps now.
pub(crate) async fn once(agent: &Arc<Agent>) {
    let containers = match agent.engine.list(&agent.slots.labels()).await {
        Ok(containers) => containers,
        Err(error) => {
            tracing::debug!(cause = %chain(&error), "could not look for containers without an owner");
            return;
        }
    };
    let now = agent.clock.now();
    for container in &containers {
        if is_left_over(container, now, |slot| agent.is_known_slot(slot)) {
            tracing::info!(container.id = %container.id, "removing a container without an owner");
            if let Err(error) = agent.engine.remove(&container.id, Remove::ALL).await {
                tracing::warn!(container.id = %container.id, cause = %chain(&error), "a container could not be removed yet");
            }
        }
    }
}

fn is_left_over(container: &ContainerEntry, now: Timestamp, is_known: impl Fn(&str) -> bool) -> bool {
    let old = container
        .created_at
        .is_some_and(|created| now.since(created) > YOUNG);
    let slot = container.labels.get(SLOT_LABEL);
    old && slot.is_some_and(|slot| !is_known(slot))
}

#[cfg(test)]
mod tests {
    use nimbus_engine::{ContainerId, Labels};

    use super::*;

    #[test]
    fn only_old_containers_of_ours_that_nobody_knows_go() {
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
        let container = |slot: Option<&str>, created| ContainerEntry {
            id: ContainerId::new("c"),
            name: "n".into(),
            labels: slot.map_or_else(Labels::new, |slot| {
                Labels::from([(SLOT_LABEL.to_owned(), slot.to_owned())])
            }),
            running: true,
            created_at: created,
        };
        let gone = |container: &ContainerEntry| is_left_over(container, at(1000), |slot| slot == "known");
        assert!(gone(&container(Some("x"), Some(at(0)))));
        assert!(!gone(&container(Some("known"), Some(at(0)))));
        assert!(!gone(&container(Some("x"), Some(at(999)))));
        assert!(!gone(&container(Some("x"), None)));
        assert!(!gone(&container(None, Some(at(0)))));
    }
}
