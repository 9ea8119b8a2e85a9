//! Byte streams from the bus into a sandbox, and the leases that they need.
//!
//! ```text
//! caller ◀── bus stream ──▶ agent ◀── one connection ──▶ guest
//! ```
//! After the guest's answer to the hello, bytes are carried both ways untouched. A lease that ends, a
//! session that is closed and a sandbox that ends, end the stream with a reason.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nimbus_bus::stream::splice;
use nimbus_bus::{BusStream, EndReason, Side, StreamHandle};
use nimbus_errors::Coded;
use nimbus_guest::protocol::{Hello, Opened};
use nimbus_proto::agent::{AgentOpen, EndSession, Lease};
use nimbus_proto::workloads::{Lifecycle, OpenReply, Wanted};
use tokio::io::AsyncWriteExt;

use crate::agent::Agent;
use crate::desktop::DEVTOOLS_PORT;
use crate::error::AgentError;
use crate::logs::{Reader, Step};
use crate::plan::is_own;
use crate::sandbox::{Sandbox, View};

/// The generation of a sandbox, which never changes.
const GENERATION: u64 = 1;
/// After a sandbox has ended its last bytes may still be on their way.
const LAST_BYTES: Duration = Duration::from_secs(2);
/// How often a lease is looked at, at least: the wall clock may be set while it waits.
const LEASE_LOOK: Duration = Duration::from_secs(1);

/// The streams of sessions.
#[derive(Default)]
pub(crate) struct Sessions {
    open: Mutex<HashMap<String, Vec<StreamHandle>>>,
}

impl Sessions {
    fn add(&self, session: &str, stream: StreamHandle) {
        let mut open = self.lock();
        // Those that ended by themselves are found when there is something to do anyway.
        for streams in open.values_mut() {
            streams.retain(|stream| stream.ended().is_none());
        }
        open.retain(|_, streams| !streams.is_empty());
        open.entry(session.to_owned()).or_default().push(stream);
    }

    fn take(&self, session: &str) -> Vec<StreamHandle> {
        self.lock().remove(session).unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Vec<StreamHandle>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the streams of a session.
pub(crate) fn end_session(agent: &Agent, request: &EndSession) {
    for stream in agent.sessions.take(&request.session) {
        stream.end(EndReason::new(request.reason.clone(), "the session was closed"));
    }
    for sandbox in agent.registry.all() {
        sandbox.activity.end_lease(&request.session);
    }
}

/// Checks a lease and notes the use of the sandbox.
///
/// # Errors
/// [`AgentError::LeaseOver`].
pub(crate) fn check_lease(agent: &Agent, sandbox: &Sandbox, lease: Option<&Lease>) -> Result<(), AgentError> {
    let Some(lease) = lease else { return Ok(()) };
    if lease.expires_at <= agent.clock.now() {
        return Err(AgentError::LeaseOver);
    }
    sandbox.activity.lease(&lease.session, lease.expires_at);
    Ok(())
}

/// Opens a stream: when this returns it leads to what was asked for.
///
/// # Errors
/// [`AgentError`]; the stream has ended then, too.
pub(crate) async fn open(agent: &Arc<Agent>, request: AgentOpen) -> Result<OpenReply, AgentError> {
    let stream = agent
        .bus
        .stream(request.stream, &request.word, Side::Server)
        .await
        .map_err(AgentError::Bus)?;
    let handle = stream.handle();
    let opened = lead(agent, request, stream).await;
    if let Err(error) = &opened {
        handle.end(EndReason::new(error.code().as_str(), error.to_string()));
    }
    opened
}

async fn lead(agent: &Arc<Agent>, request: AgentOpen, stream: BusStream) -> Result<OpenReply, AgentError> {
    let AgentOpen {
        sandbox,
        lease,
        wanted,
        ..
    } = request;
    let sandbox = agent.registry.get(&sandbox)?;
    check_lease(agent, &sandbox, lease.as_ref())?;
    let reply = |hello| OpenReply {
        sandbox: sandbox.id.clone(),
        target_generation: GENERATION,
        hello,
        expires_at: lease.as_ref().map(|lease| lease.expires_at),
    };
    let (opened, io) = match wanted {
        Wanted::Logs { tail, since, follow } => {
            let reader = Reader::new(sandbox.log.clone(), tail, since)
                .map_err(AgentError::io("read a sandbox' log"))?;
            let answer = reply(vec![]);
            let handle = stream.handle();
            let work = send_log(reader, stream, follow);
            guard(agent, &sandbox, lease, handle, false, work);
            return Ok(answer);
        }
        Wanted::Browser => {
            let guest = sandbox.running()?.guest;
            let io = guest.connect_port(DEVTOOLS_PORT).await?;
            (None, io)
        }
        Wanted::Guest(hello) => {
            check_hello(&hello)?;
            let (opened, io) = sandbox.running()?.guest.open(hello).await?;
            (Some(opened), io)
        }
    };
    let hello = match &opened {
        Some(opened) => encode(opened)?,
        None => vec![],
    };
    let answer = reply(hello);
    let handle = stream.handle();
    let work = async move {
        splice(stream, io).await;
    };
    guard(agent, &sandbox, lease, handle, true, work);
    Ok(answer)
}

fn encode(opened: &Opened) -> Result<Vec<u8>, AgentError> {
    nimbus_bus::encode(opened)
        .map(|bytes| bytes.to_vec())
        .map_err(|_| AgentError::Invalid("the guest's answer cannot be sent".to_owned()))
}

/// Some of what a guest can do is for the agent alone.
pub(crate) fn check_hello(hello: &Hello) -> Result<(), AgentError> {
    match hello {
        Hello::Egress => Err(AgentError::Invalid(
            "what leaves the sandbox is the agent's".to_owned(),
        )),
        Hello::Run { spec, .. } => check_command(&spec.id),
        _ => Ok(()),
    }
}

pub(crate) fn check_command(id: &str) -> Result<(), AgentError> {
    if is_own(id) {
        return Err(AgentError::Invalid(format!(
            "the command id {id:?} is the sandbox' own"
        )));
    }
    Ok(())
}

/// Runs a stream's work; ends the stream when its lease, its sandbox or the agent ends.
fn guard(
    agent: &Arc<Agent>,
    sandbox: &Arc<Sandbox>,
    lease: Option<Lease>,
    handle: StreamHandle,
    needs_target: bool,
    work: impl Future<Output = ()> + Send + 'static,
) {
    let used = sandbox.activity.enter();
    if let Some(lease) = &lease {
        agent.sessions.add(&lease.session, handle.clone());
    }
    let clock = agent.clock.clone();
    let mut view = sandbox.view.clone();
    agent.spawn(async move {
        let _used = used;
        // Said before the stream is let go of, or the far end only learns that it was dropped.
        let expires = async {
            match lease {
                Some(lease) => {
                    while lease.expires_at > clock.now() {
                        let left = lease.expires_at.since(clock.now());
                        tokio::time::sleep(left.min(LEASE_LOOK)).await;
                    }
                }
                None => std::future::pending().await,
            }
            handle.end(EndReason::new("expired", "the session has expired"));
        };
        let target_ends = async {
            if !needs_target {
                return std::future::pending().await;
            }
            let ended = view.wait_for(|view| view.observation.lifecycle.is_final()).await;
            let reason = ended.map_or("target_stopped", |view| target_reason(&view));
            tokio::time::sleep(LAST_BYTES).await;
            handle.end(EndReason::new(reason, "the sandbox has ended"));
        };
        tokio::select! {
            () = work => {}
            () = expires => {}
            () = target_ends => {}
        }
    });
}

fn target_reason(view: &View) -> &'static str {
    if view.observation.lifecycle == Lifecycle::Failed {
        "target_failed"
    } else {
        "target_stopped"
    }
}

/// Sends a log, line by line.
async fn send_log(mut reader: Reader, mut stream: BusStream, follow: bool) {
    loop {
        let mut text = String::new();
        let end = loop {
            match reader.step() {
                // Several lines at a time, as long as they come.
                Ok(Step::Line(line)) if text.len() < 32 << 10 => text.push_str(&line.show()),
                Ok(Step::Line(line)) => {
                    text.push_str(&line.show());
                    break None;
                }
                Ok(step) => break Some(step),
                Err(error) => {
                    let reason = format!("the log cannot be read: {error}");
                    return stream.end(EndReason::new("service.storage_io", reason));
                }
            }
        };
        if !text.is_empty() && stream.write_all(text.as_bytes()).await.is_err() {
            return;
        }
        match end {
            None | Some(Step::Line(_)) => {}
            Some(Step::Wait) if follow => {
                let handle = stream.handle();
                tokio::select! {
                    () = reader.changed() => {}
                    _ = handle.finished() => return,
                }
            }
            Some(Step::Dropped) => {
                let text = "lines were dropped before they could be read";
                return stream.end(EndReason::new("op.out_of_retention", text));
            }
            Some(Step::Wait | Step::End) => {
                // Whoever reads may have gone.
                let _ = stream.shutdown().await;
                return;
            }
        }
    }
}
