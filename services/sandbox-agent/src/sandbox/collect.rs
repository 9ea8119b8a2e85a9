//! Reads what a main process writes into its log, until it ends.

use std::time::Duration;

use nimbus_errors::{Code, chain};
use nimbus_guest::protocol::{FromCommand, Since};
use nimbus_guest::{Attachment, Guest, GuestError};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::actor::GUEST_LIMIT;
use super::{End, Found, Message};
use crate::agent::Agent;
use crate::logs::Log;
use crate::plan::SIGKILL;
use crate::slot::Place;

/// A connection that broke is made again so often before the guest counts as gone.
const TRIES: u32 = 3;
const BETWEEN_TRIES: Duration = Duration::from_millis(50);
/// How often an engine that is away is asked again what became of a container.
const ENGINE_EVERY: Duration = Duration::from_millis(500);
/// An engine that is being stopped ends its containers first and falls silent then.
const ENGINE_MAY_GO: Duration = Duration::from_secs(2);

/// Writes all output of a run into the log and says how the run ended.
pub(crate) async fn collect(
    guest: Guest,
    mut attachment: Attachment<UnixStream>,
    command: String,
    run: u32,
    log: Log,
    tell: mpsc::Sender<Message>,
) {
    let mut next = attachment.opened().from;
    let end = loop {
        match attachment.next().await {
            Ok(Some(FromCommand::Output {
                stream,
                offset,
                at_ms,
                bytes,
            })) => {
                if let Err(error) = log.add(stream, offset, at_ms, &bytes) {
                    tracing::error!(command, cause = %error, "output could not be written to its log");
                }
                next = offset + u64::try_from(bytes.len()).unwrap_or(0);
            }
            Ok(Some(FromCommand::Exit(status))) => {
                let memory_kills = match status.signal {
                    Some(SIGKILL) => memory_kills(&guest).await,
                    _ => None,
                };
                break End::Exited { status, memory_kills };
            }
            Ok(Some(FromCommand::InputAccepted(_) | FromCommand::Fault(_))) => {}
            Ok(None) => break End::Lost,
            Err(error) => match again(&guest, &command, next, &error).await {
                Some(again) => {
                    next = again.opened().from;
                    attachment = again;
                }
                None => break End::Lost,
            },
        }
    };
    log.finish_lines();
    let _ = tell.send(Message::Ended { run, end }).await;
}

/// What the kernel says; nothing if the guest is too old to know, or is gone.
async fn memory_kills(guest: &Guest) -> Option<u64> {
    let ask = async { guest.control().await?.memory_kills().await };
    timeout(GUEST_LIMIT, ask).await.ok()?.ok()?
}

/// Attaches anew where the last attachment ended, if the guest is there.
async fn again(
    guest: &Guest,
    command: &str,
    next: u64,
    error: &GuestError,
) -> Option<Attachment<UnixStream>> {
    tracing::debug!(command, cause = %chain(error), "the view of a main process broke");
    let mut since = Since::Offset(next);
    if is_out_of_retention(error) {
        since = Since::Tail(u64::MAX);
    }
    for _ in 0..TRIES {
        match guest.attach(command, since, false).await {
            Ok(attachment) => return Some(attachment),
            Err(error) if is_out_of_retention(&error) => {
                tracing::warn!(command, "output was dropped by the guest before it could be kept");
                since = Since::Tail(u64::MAX);
            }
            Err(GuestError::Fault(_)) => return None,
            Err(_) => tokio::time::sleep(BETWEEN_TRIES).await,
        }
    }
    None
}

pub(crate) fn is_out_of_retention(error: &GuestError) -> bool {
    error
        .fault()
        .is_some_and(|fault| fault.code == Code::OpOutOfRetention.as_str())
}

/// Finds out what became of a container whose guest is gone.
pub(crate) async fn find_out(agent: &Agent, place: &Place, engine_losses: u64) -> Found {
    let mut away = false;
    loop {
        match agent.engine.inspect(&place.container).await {
            Ok(state) if state.running => {
                if answers(&place.guest).await {
                    return Found::Alive;
                }
                // Its init is gone or stuck: what still runs in there cannot be reached or stopped in order.
                let kill = nimbus_engine::Signal::kill();
                if let Err(error) = agent.engine.kill(&place.container, &kill).await {
                    tracing::warn!(container.id = %place.container, cause = %chain(&error), "a container without its init could not be ended");
                    tokio::time::sleep(ENGINE_EVERY).await;
                }
            }
            Ok(state) => {
                return Found::Dead {
                    out_of_memory: state.oom_killed,
                    engine_restarted: away || goes_away(agent, engine_losses).await,
                };
            }
            Err(error) if error.is_not_found() => {
                return Found::Dead {
                    out_of_memory: false,
                    engine_restarted: away || goes_away(agent, engine_losses).await,
                };
            }
            Err(error) => {
                if !away {
                    tracing::warn!(cause = %chain(&error), "the engine is away; waiting to learn what became of a sandbox");
                }
                away = true;
                tokio::time::sleep(ENGINE_EVERY).await;
            }
        }
    }
}

/// Whether the engine has been away, or goes now.
async fn goes_away(agent: &Agent, losses: u64) -> bool {
    let mut seen = agent.engine_losses.subscribe();
    tokio::time::timeout(ENGINE_MAY_GO, seen.wait_for(|now| *now > losses))
        .await
        .is_ok()
}

async fn answers(guest: &Guest) -> bool {
    for _ in 0..TRIES {
        let asked = async { guest.control().await?.ping().await };
        if let Ok(Ok(())) = tokio::time::timeout(Duration::from_secs(1), asked).await {
            return true;
        }
        tokio::time::sleep(BETWEEN_TRIES).await;
    }
    false
}
