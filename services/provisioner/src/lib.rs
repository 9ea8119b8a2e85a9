//! The provisioner: machines, the sagas that make, power and delete them, where they are placed, and
//! how their rows follow the cluster.
//!
//! ```text
//! methods ─▶ orders ──one transaction──▶ machine row + quota slot + operation + saga + outbox
//!                                             │ wake-up (work queue)
//!                                        sagas::driver ─▶ provision / delete / power ─▶ hypervisor ─▶ Proxmox
//!                                             │ observer: operation, machine, events, in the saga's own transactions
//! reconcile, watch ◀── cluster view ──────────┘
//! ```
//!
//! It owns the tables `provisioner_*`. Proxmox is the truth for which VM exists.

mod cluster;
mod config;
mod error;
mod gpu;
mod hypervisor;
mod keys;
mod machine;
mod marker;
mod methods;
mod observe;
mod operation;
mod orders;
mod pages;
mod placement;
mod reconcile;
mod sagas;
mod service;

// The tests' world is shared with the tests outside, and names this crate as they do.
#[cfg(test)]
extern crate self as nimbus_provisioner;
#[cfg(test)]
#[allow(dead_code, reason = "the tests outside use the rest")]
#[path = "../tests/it/world.rs"]
mod world;

use std::sync::Arc;
use std::time::Duration;

use nimbus_proto::verify::JwtVerifier;
use nimbus_saga::SagaStore;
use nimbus_service::{Ctx, OnError, Outbox, RunError};
use nimbus_store::{Migration, migrations};

pub use config::ProvisionerConfig;
pub use service::ClusterAccess;

use crate::cluster::Cluster;
use crate::error::MachineError;
use crate::pages::Pages;
use crate::placement::Rules;
use crate::sagas::observer::Watch;
use crate::service::{Inner, News, Provisioner};

const SERVICE: &str = "provisioner";
/// How long a lease of periodic work lasts without being renewed.
const LEASE: Duration = Duration::from_secs(15);
/// How long private keys that nobody claims, and idempotency keys, are kept.
const KEEP: Duration = Duration::from_secs(24 * 60 * 60);
/// How long the history of a saga that ended is kept; the operation itself stays.
const KEEP_HISTORY: Duration = Duration::from_secs(7 * 24 * 60 * 60);

const MIGRATIONS: &[Migration] = migrations![
    "0001_init" => include_str!("../migrations/0001_init.sql"),
    "0002_saga" => nimbus_saga::ddl!("provisioner"),
    "0003_stuck" => include_str!("../migrations/0003_stuck.sql"),
    "0004_gpu" => include_str!("../migrations/0004_gpu.sql"),
];

/// Serves until `ctx.stop` fires. Ready once every subscription is live.
///
/// # Errors
/// When the tables cannot be opened or the bus refuses.
pub async fn run(ctx: Ctx, config: ProvisionerConfig, access: ClusterAccess) -> Result<(), RunError> {
    let provisioner = assemble(&ctx, config, access).await?;
    let inner = provisioner.inner();
    inner
        .sagas
        .forget_leases()
        .await
        .map_err(|error| RunError::other("taking over unfinished operations", error))?;
    ctx.bus.ensure_streams().await?;
    inner
        .news
        .outbox
        .relay(&ctx.tasks, &ctx.bus, "provisioner.outbox");
    let verifier = Arc::new(JwtVerifier::new(ctx.bus.clone(), ctx.clock.clone()));
    let bus = ctx.bus.with_verifier(verifier.clone());
    ctx.tasks
        .spawn("provisioner.revocations", OnError::Restart, move || {
            let verifier = Arc::clone(&verifier);
            async move { Ok(verifier.follow_revocations().await?) }
        });
    let serving = methods::serve(&bus, &provisioner).await?;
    if provisioner.client().is_ok() {
        sagas::driver::start(&ctx, &provisioner);
        periodic(&ctx, &provisioner);
    }
    ctx.ready().await;
    serving.stop().await;
    Ok(())
}

/// The tables, and everything that works on them.
async fn assemble(
    ctx: &Ctx,
    config: ProvisionerConfig,
    access: ClusterAccess,
) -> Result<Provisioner, RunError> {
    let store = ctx.store(SERVICE, MIGRATIONS).await?;
    let outbox = Outbox::new(store.clone(), "provisioner_outbox");
    let news = News {
        outbox,
        clock: ctx.clock.clone(),
    };
    let watch = Arc::new(Watch { news: news.clone() });
    let sagas = SagaStore::new(store.clone(), SERVICE, ctx.clock.clone()).with_observer(watch);
    Ok(Provisioner::new(Inner {
        sagas,
        store,
        bus: ctx.bus.clone(),
        clock: ctx.clock.clone(),
        sealer: ctx.sealer(SERVICE)?,
        rules: Rules::of(&config),
        cluster: access
            .client
            .clone()
            .map(|client| Cluster::new(client, ctx.clock.clone())),
        access,
        config,
        news,
        placing: tokio::sync::Mutex::default(),
        pages: Pages::default(),
    }))
}

/// Work that one replica does for all, under a lease.
fn periodic(ctx: &Ctx, provisioner: &Provisioner) {
    let config = &provisioner.inner().config;
    let reconcile = config.reconcile_interval;
    if !reconcile.is_zero() {
        every(
            ctx,
            provisioner,
            "provisioner.reconcile",
            reconcile,
            |this| async move {
                let report = reconcile::run(&this).await?;
                let changes =
                    report.migrated.len() + report.renamed.len() + report.missed.len() + report.deleted.len();
                if changes > 0 {
                    tracing::info!(changes, "reconciled the machines with the cluster");
                }
                Ok(())
            },
        );
    }
    let watch = config.watch_interval;
    if !watch.is_zero() {
        every(ctx, provisioner, "provisioner.watch", watch, |this| async move {
            reconcile::watch(&this).await
        });
    }
    let prepare = config.gpu_prepare_interval;
    if !prepare.is_zero() {
        every(ctx, provisioner, "provisioner.gpu", prepare, |this| async move {
            this.follow_gpu().await
        });
    }
    every(
        ctx,
        provisioner,
        "provisioner.expire",
        Duration::from_secs(600),
        |this| async move {
            let inner = this.inner();
            let before = inner.clock.now().before(KEEP);
            inner
                .store
                .write(move |tx| {
                    Box::pin(async move {
                        operation::store::expire(tx, before)
                            .await
                            .map_err(MachineError::from)
                    })
                })
                .await?;
            let before = inner.clock.now().before(KEEP_HISTORY);
            inner.sagas.prune(before).await.map_err(sagas::saga_error)?;
            Ok(())
        },
    );
}

fn every<F, Fut>(ctx: &Ctx, provisioner: &Provisioner, name: &'static str, pause: Duration, work: F)
where
    F: Fn(Provisioner) -> Fut + Send + Sync + Clone + 'static,
    Fut: Future<Output = Result<(), MachineError>> + Send + 'static,
{
    let (bus, stop, provisioner) = (ctx.bus.clone(), ctx.stop.clone(), provisioner.clone());
    let work = Arc::new(work);
    ctx.tasks.spawn_graceful(name, OnError::Restart, move || {
        let (bus, stop, provisioner, work) =
            (bus.clone(), stop.clone(), provisioner.clone(), Arc::clone(&work));
        async move {
            bus.singleton(name, LEASE, stop, move || {
                let (provisioner, work) = (provisioner.clone(), Arc::clone(&work));
                async move {
                    loop {
                        tokio::time::sleep(pause).await;
                        if let Err(error) = work(provisioner.clone()).await {
                            tracing::warn!(cause = %nimbus_errors::chain(&error), "{name} did not succeed");
                        }
                    }
                }
            })
            .await;
            Ok(())
        }
    });
}
