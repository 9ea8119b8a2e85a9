//! The agent of one host: runs its sandboxes on the host's container engine.
//!
//! ```text
//!             methods.rs ─▶ sandbox.rs   one task per sandbox owns its state      ─▶ report.rs, host.rs
//!                             ├▶ pool.rs     warm slots, claimed at the launch
//!                             ├▶ slot.rs     a container whose init waits for a claim
//!                             ├▶ probe.rs, ports.rs, egress.rs, logs.rs   through the guest's socket
//!                             └▶ state.rs    sealed on disk: a new agent goes on where this one ended
//!             streams.rs, exec.rs ─▶ the guest, without the sandbox' task
//! ```
//! A sandbox has no network. What goes in or out passes one Unix socket to its init and this agent: so
//! there is no neighbour, host or metadata address that it could reach.
//!
//! The agent keeps no tables. What runs is the engine's to say; what was asked for is kept sealed
//! beside it; `workloads` hears of both.

mod activity;
mod agent;
mod config;
mod desktop;
mod egress;
mod error;
mod events;
mod exec;
mod host;
mod images;
mod logs;
mod methods;
mod plan;
mod pool;
mod ports;
mod probe;
mod report;
mod sandbox;
mod slot;
mod state;
mod streams;
mod sweep;
mod volumes;

use std::sync::Arc;

use nimbus_service::{Ctx, OnError, RunError};

pub use config::{ConfigError, PortRange, SandboxAgentConfig, machine_name};

use crate::agent::Parts;
use crate::host::Host;
use crate::report::Reporter;
use crate::state::Keep;

/// Serves until `ctx.stop` fires. Ready once every subscription is live and, if an engine answers,
/// what an earlier agent left there was taken over; without an engine the host says what is missing.
///
/// Sandboxes live on when the agent ends, warm containers do not.
///
/// # Errors
/// Settings that cannot be used; a bus that fails while starting.
pub async fn run(ctx: Ctx, config: SandboxAgentConfig) -> Result<(), RunError> {
    let wrong = |error| RunError::other("the sandbox agent cannot be set up", error);
    let host = config.host_name().map_err(wrong)?;
    let state_dir = config.state_dir().map_err(wrong)?.to_owned();
    let unusable = |error| RunError::other(format!("{state_dir} cannot be used"), error);
    state::make_private(&state_dir).map_err(unusable)?;
    let keep = Keep::open(&state_dir, ctx.sealer("sandbox-agent")?)
        .map_err(|error| RunError::other("the sandbox agent cannot keep its state", error))?;
    let (reporter, inbox) = Reporter::new();
    let stop = ctx.stop.child_token();
    let _ends_with_us = stop.clone().drop_guard();
    let boot = uuid::Uuid::new_v4().simple().to_string();
    let parts = Parts {
        config,
        host,
        keep,
        reporter,
        clock: ctx.clock.clone(),
        bus: ctx.bus.clone(),
        stop,
    };
    let host = Host::new(parts, boot);

    // Before anybody can ask for what was there before.
    let found = host.look().await;
    let serving = methods::serve(&host).await?;
    if let Err(error) = found {
        tracing::info!(cause = %nimbus_errors::chain(&error), "sandboxes cannot run here yet");
        let host = Arc::clone(&host);
        ctx.tasks.spawn("agent.engine", OnError::Restart, move || {
            Arc::clone(&host).find_engine()
        });
    }
    spawn_tasks(&ctx, &host, inbox);
    ctx.ready().await;
    serving.stop().await;
    if let Ok(agent) = host.agent() {
        agent.pool.empty().await;
    }
    Ok(())
}

fn spawn_tasks(ctx: &Ctx, host: &Arc<Host>, inbox: report::Inbox) {
    let beating = Arc::clone(host);
    ctx.tasks.spawn("agent.beat", OnError::Restart, move || {
        Arc::clone(&beating).beat()
    });
    let (reporting, inbox) = (Arc::clone(host), Arc::new(inbox));
    ctx.tasks.spawn("agent.report", OnError::Restart, move || {
        let (host, inbox) = (Arc::clone(&reporting), Arc::clone(&inbox));
        async move {
            let parts = &host.parts;
            inbox
                .run(parts.bus.clone(), parts.host.clone(), host.boot().to_owned())
                .await
        }
    });
    let filling = Arc::clone(host);
    ctx.tasks.spawn("agent.pool", OnError::Restart, move || {
        let host = Arc::clone(&filling);
        async move { host.has_agent().await.pool.clone().refill().await }
    });
    let following = Arc::clone(host);
    ctx.tasks.spawn("agent.events", OnError::Restart, move || {
        events::follow(Arc::clone(&following))
    });
    let sweeping = Arc::clone(host);
    ctx.tasks.spawn("agent.sweep", OnError::Restart, move || {
        sweep::run(Arc::clone(&sweeping))
    });
}
