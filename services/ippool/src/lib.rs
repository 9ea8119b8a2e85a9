//! Static addresses: who has which, checked against the cluster before one is handed out.
//!
//! ```text
//!  Reserve ─▶ reserve.rs ─┬▶ pool.rs      the books: atomic, lowest free first, idempotent per machine
//!                         └▶ snapshot.rs  the cluster: which guest has which address
//!  timer, sign-in, Reconcile ─▶ reconcile.rs  makes the books agree with the cluster
//! ```
//!
//! Without a range, a gateway or a cluster the service runs and answers `service.not_configured`
//! where it cannot do its work. A range that changes keeps addresses in use that lie outside it, as
//! *stranded*: they are shown, and go when they become free.
//!
//! # How long a promise holds
//!
//! A reservation lasts `RESERVATION_TTL_SECONDS`; making a VM can take longer. It is not lost then,
//! for two reasons: asking again for the same machine renews it, and as soon as the VM is configured
//! with the address a reconcile sees it there and books it as in use instead of letting it expire.

mod config;
mod error;
mod methods;
mod pool;
mod range;
mod reconcile;
mod reserve;
mod snapshot;
mod state;

use std::sync::Arc;

use nimbus_proto::verify::JwtVerifier;
use nimbus_proxmox::Client;
use nimbus_service::{Ctx, OnError, Outbox, RunError};
use nimbus_store::{Migration, migrations};

pub use config::IppoolConfig;
pub use range::{Range, RangeError};

use crate::pool::Pool;
use crate::reconcile::run::Reconciler;
use crate::snapshot::{Cluster, Pve};

const MIGRATIONS: &[Migration] = migrations![
    "0001_init" => include_str!("../migrations/0001_init.sql"),
    "0002_outbox" => "CREATE TABLE ippool_outbox (id TEXT PRIMARY KEY, body TEXT NOT NULL, created_at BIGINT NOT NULL);",
];

/// Serves until `ctx.stop` fires. Ready once every subscription is live; the cluster need not answer.
///
/// `proxmox` is the cluster; without it no address is handed out.
///
/// # Errors
/// Settings that do not make a pool; a database or bus that fails while starting.
pub async fn run(ctx: Ctx, config: IppoolConfig, proxmox: Option<Client>) -> Result<(), RunError> {
    let network = config
        .network()
        .map_err(|error| RunError::other("the address pool cannot be used", error))?;
    let store = ctx.store("ippool", MIGRATIONS).await?;
    ctx.bus.ensure_streams().await?;
    let outbox = Outbox::new(store.clone(), "ippool_outbox");
    outbox.relay(&ctx.tasks, &ctx.bus, "ippool.outbox");

    let pool = Pool::new(store, outbox, ctx.clock.clone(), network);
    pool.seed()
        .await
        .map_err(|error| RunError::other("could not fill the address pool", error))?;

    let cluster = proxmox.map(|client| {
        Cluster::new(
            Arc::new(Pve {
                client,
                clock: ctx.clock.clone(),
            }),
            config.verify_cache_ttl,
        )
    });
    let reconciler = cluster
        .clone()
        .map(|cluster| Reconciler::new(pool.clone(), cluster, ctx.bus.clone(), &config));

    let verifier = Arc::new(JwtVerifier::new(ctx.bus.clone(), ctx.clock.clone()));
    let bus = ctx.bus.with_verifier(verifier.clone());
    ctx.tasks.spawn("ippool.revocations", OnError::Restart, move || {
        let verifier = Arc::clone(&verifier);
        async move { Ok(verifier.follow_revocations().await?) }
    });
    let serving = methods::serve(&bus, &pool, cluster.as_ref(), reconciler.as_ref()).await?;

    if let Some(reconciler) = reconciler {
        let timed = reconciler.clone();
        ctx.tasks.spawn("ippool.reconcile", OnError::Restart, move || {
            timed.clone().keep_time()
        });
        ctx.tasks.spawn("ippool.sign_ins", OnError::Restart, move || {
            reconciler.clone().follow_sign_ins()
        });
    }
    ctx.ready().await;
    serving.stop().await;
    Ok(())
}
