//! What the engine tells by itself: memory that ran out, containers that ended, its own absence.

use std::sync::Arc;

use futures::StreamExt;
use nimbus_engine::{EngineEvent, EventKind};
use nimbus_service::RunError;

use crate::host::Host;
use crate::sandbox::Message;
use crate::sweep;

/// Follows the engine's events.
///
/// # Errors
/// When the stream ends, which it does not.
pub(crate) async fn follow(host: Arc<Host>) -> Result<(), RunError> {
    let agent = host.has_agent().await;
    let mut events = agent.engine.events(&agent.slots.labels());
    let mut away = false;
    while let Some(event) = events.next().await {
        match event {
            EngineEvent::Gone { reason } => {
                tracing::warn!(reason, "the container engine is gone");
                away = true;
                agent.engine_losses.send_modify(|losses| *losses += 1);
                agent.pool.pause();
                host.engine_changed(Some(reason)).await;
            }
            EngineEvent::Back => {
                if away {
                    tracing::info!("the container engine is back");
                    away = false;
                    host.engine_changed(None).await;
                }
                agent.pool.go_on();
                sweep::once(&agent).await;
            }
            EngineEvent::Container { id, kind, .. } => match kind {
                EventKind::OutOfMemory => {
                    let all = agent.registry.all();
                    let hit = all.iter().find(|sandbox| {
                        let view = sandbox.view.borrow();
                        view.running.as_ref().is_some_and(|one| one.container == id)
                    });
                    if let Some(sandbox) = hit {
                        sandbox.tell(Message::OutOfMemory).await;
                    }
                }
                EventKind::Died { .. } | EventKind::Destroyed => agent.pool.died(&id),
                EventKind::Started => {}
            },
        }
    }
    Err(RunError::other(
        "the engine's events ended",
        "the stream of events has an end",
    ))
}
