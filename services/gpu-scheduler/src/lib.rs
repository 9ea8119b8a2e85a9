//! The GPU plane: one queue of jobs, the boxes that run them, and the inference endpoint.
//!
//! ```text
//!  submit ─▶ queue.rs ─┐
//!  beats, ends ────────┴▶ assign.rs   the first job to the idle box, in one transaction
//!                          └▶ plane.rs  the assignment into the stream, after the commit
//!  boxes on the bus ─ peers.rs ─┐
//!  boxes over HTTP ─ methods.rs ┴▶ beats.rs, claim.rs, chunks.rs, finish.rs
//!  loss.rs (one replica)   boxes that are silent, and what becomes of their jobs
//!  pairing.rs, settings.rs, inference.rs, usage.rs, prune.rs
//! ```
//!
//! The tables are the truth: a job is given to a box, and has ended, when they say so. Messages only
//! carry that; each may be lost or come twice. A job is given to one box at a time and begins at most
//! once on it, so it runs at most once unless whoever submitted it allowed another run after a loss.

mod assign;
mod beats;
mod chunks;
mod claim;
mod config;
mod error;
mod finish;
mod inference;
mod loss;
mod methods;
mod pairing;
mod peers;
mod plane;
mod prune;
mod queue;
mod rows;
mod secret;
mod settings;
mod usage;
mod wake;
mod workers;

use std::sync::Arc;

use nimbus_proto::verify::JwtVerifier;
use nimbus_service::{Ctx, OnError, Outbox, RunError};
use nimbus_store::{Migration, migrations};

pub use config::GpuConfig;

use crate::inference::Probe;
use crate::plane::{Inner, Plane};
use crate::wake::Wakes;

const MIGRATIONS: &[Migration] = migrations![
    "0001_init" => include_str!("../migrations/0001_init.sql"),
    "0002_chunk" => {
        sqlite: include_str!("../migrations/0002_chunk.sqlite.sql"),
        postgres: include_str!("../migrations/0002_chunk.postgres.sql"),
    },
    "0003_endpoints" => include_str!("../migrations/0003_endpoints.sql"),
    "0004_bus_name" => include_str!("../migrations/0004_bus_name.sql"),
];

/// Serves until `ctx.stop` fires. Ready once every subscription is live; no box need be there.
///
/// # Errors
/// A process without database or encryption key; a database or bus that fails while starting.
pub async fn run(ctx: Ctx, config: GpuConfig) -> Result<(), RunError> {
    let store = ctx.store("gpu", MIGRATIONS).await?;
    let sealer = ctx.sealer("gpu-scheduler")?;
    ctx.bus.ensure_streams().await?;
    let outbox = Outbox::new(store.clone(), "gpu_outbox");
    outbox.relay(&ctx.tasks, &ctx.bus, "gpu.outbox");

    let wakes = Wakes::default();
    let plane = Plane::new(Inner {
        store,
        outbox,
        sealer,
        clock: ctx.clock.clone(),
        bus: ctx.bus.clone(),
        tasks: ctx.tasks.clone(),
        config,
        wakes: wakes.clone(),
        probe: Probe::new()?,
    });

    let verifier = Arc::new(JwtVerifier::new(ctx.bus.clone(), ctx.clock.clone()));
    let bus = ctx.bus.with_verifier(verifier.clone());
    ctx.tasks.spawn("gpu.revocations", OnError::Restart, move || {
        let verifier = Arc::clone(&verifier);
        async move { Ok(verifier.follow_revocations().await?) }
    });
    let hearing = ctx.bus.clone();
    ctx.tasks.spawn("gpu.wakes", OnError::Restart, move || {
        let (wakes, bus) = (wakes.clone(), hearing.clone());
        async move { wakes.follow(&bus).await }
    });
    let peers = peers::serve(&ctx.bus, &plane).await?;
    let serving = methods::serve(&bus, &plane).await?;
    let (watching, stop) = (plane.clone(), ctx.stop.clone());
    ctx.tasks.spawn_graceful("gpu.watch", OnError::Restart, move || {
        let (watching, stop) = (watching.clone(), stop.clone());
        async move {
            watching.watch(stop).await;
            Ok(())
        }
    });
    let (cleaning, stop) = (plane.clone(), ctx.stop.clone());
    ctx.tasks.spawn_graceful("gpu.prune", OnError::Restart, move || {
        let (cleaning, stop) = (cleaning.clone(), stop.clone());
        async move {
            cleaning.keep_clean(stop).await;
            Ok(())
        }
    });
    ctx.ready().await;
    peers.stop().await;
    serving.stop().await;
    Ok(())
}
