//! Tenants, services, sandboxes and sessions: what is wanted, where it runs, who may use it.
//!
//! ```text
//!  create, start ─▶ validate ─▶ resolve ─▶ sandboxes/birth   quota, host, record: one transaction
//!                                             └▶ sandboxes/launch ─▶ agent of the host
//!  agents ─ beat, report ─▶ hosts/beat ─▶ state ─▶ sandboxes/change   record, sessions, events, quota
//!  exec, open ─▶ data ─▶ agent of the host                            decided from memory
//!  supervise (one replica)   lost hosts, left launches, services on their way, time that is over
//! ```
//!
//! The tables say what is wanted and what was seen last; the hosts' agents run it and restart it. A
//! replica keeps running sandboxes in memory and hears by event what others have written.
//!
//! Launch input (arguments, variables, secrets) is sealed at rest, goes to the host that runs the
//! sandbox, and is gone from the tables when the sandbox has ended. Nothing gives it back.

mod config;
mod data;
mod done;
mod error;
mod hosts;
mod ids;
mod kept;
mod methods;
mod page;
mod resolve;
mod sandboxes;
mod secrets;
mod services;
mod sessions;
mod sign;
mod state;
mod supervise;
mod tenants;
mod validate;
mod volumes;
mod works;

use std::sync::Arc;

use nimbus_proto::verify::JwtVerifier;
use nimbus_service::{Ctx, OnError, Outbox, RunError};
use nimbus_store::{Migration, migrations};

pub use config::WorkloadsConfig;

use crate::sign::Signer;
use crate::works::{Parts, Works};

const MIGRATIONS: &[Migration] = migrations![
    "0001_init" => include_str!("../migrations/0001_init.sql"),
    "0002_byte_order" => {
        // SQLite compares bytes anyway.
        sqlite: "SELECT 1;",
        postgres: include_str!("../migrations/0002_byte_order.postgres.sql"),
    },
];

/// Serves until `ctx.stop` fires. Ready once every subscription is live; no host need be there.
///
/// # Errors
/// A process without database or encryption key; a database or bus that fails while starting.
pub async fn run(ctx: Ctx, config: WorkloadsConfig) -> Result<(), RunError> {
    let store = ctx.store("workloads", MIGRATIONS).await?;
    let sealer = ctx.sealer("workloads")?;
    ctx.bus.ensure_streams().await?;
    let outbox = Outbox::new(store.clone(), "workloads_outbox");
    outbox.relay(&ctx.tasks, &ctx.bus, "workloads.outbox");

    let failed = |error| RunError::other("could not open the workloads", error);
    let signer = Signer::open(&store, &sealer).await.map_err(failed)?;
    let works = Works::new(Parts {
        store,
        outbox,
        sealer,
        clock: ctx.clock.clone(),
        bus: ctx.bus.clone(),
        config,
        signer,
        tasks: ctx.tasks.clone(),
        stop: ctx.stop.clone(),
    });
    works.begin().await.map_err(failed)?;
    works.follow(&ctx.tasks, &ctx.bus);

    let verifier = Arc::new(JwtVerifier::new(ctx.bus.clone(), ctx.clock.clone()));
    let bus = ctx.bus.with_verifier(verifier.clone());
    ctx.tasks
        .spawn("workloads.revocations", OnError::Restart, move || {
            let verifier = Arc::clone(&verifier);
            async move { Ok(verifier.follow_revocations().await?) }
        });
    let serving = methods::serve(&bus, &works).await?;
    works.supervise(&ctx.tasks);
    ctx.ready().await;
    serving.stop().await;
    Ok(())
}
