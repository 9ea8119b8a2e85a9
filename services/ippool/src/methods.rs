//! The bus methods: decode, ask, answer.

use nimbus_bus::{Bus, BusError, Incoming, Serving};
use nimbus_errors::Fault;
use nimbus_proto::ippool::{Allocate, Confirm, List, Reconcile, Release, Reserve, Status};

use crate::error::PoolError;
use crate::pool::Pool;
use crate::reconcile::run::{Reconciler, Trigger};
use crate::reserve::{confirm, reserve};
use crate::snapshot::Cluster;

pub(crate) async fn serve(
    bus: &Bus,
    pool: &Pool,
    cluster: Option<&Cluster>,
    reconciler: Option<&Reconciler>,
) -> Result<Serving, BusError> {
    let (reserving, confirming, allocating, releasing, listing, telling) = (
        pool.clone(),
        pool.clone(),
        pool.clone(),
        pool.clone(),
        pool.clone(),
        pool.clone(),
    );
    let (cluster, looking, reconciler) = (cluster.cloned(), cluster.cloned(), reconciler.cloned());
    bus.serve("ippool", env!("CARGO_PKG_VERSION"), "Static addresses")
        .method::<Reserve, _, _>(move |call: Incoming<Reserve>| {
            let (pool, cluster) = (reserving.clone(), cluster.clone());
            async move {
                let request = call.request;
                Ok(reserve(&pool, cluster.as_ref(), request.machine, &request.hostname).await?)
            }
        })
        .method::<Confirm, _, _>(move |call: Incoming<Confirm>| {
            let (pool, cluster) = (confirming.clone(), looking.clone());
            async move { Ok(confirm(&pool, cluster.as_ref(), call.request).await?) }
        })
        .method::<Allocate, _, _>(move |call: Incoming<Allocate>| {
            let pool = allocating.clone();
            async move {
                Ok(pool
                    .allocate(call.request.machine, call.request.ip, call.request.vmid)
                    .await?)
            }
        })
        .method::<Release, _, _>(move |call: Incoming<Release>| {
            let pool = releasing.clone();
            async move { Ok(pool.release(call.request.machine).await?) }
        })
        .method::<List, _, _>(move |_: Incoming<List>| {
            let pool = listing.clone();
            async move { Ok(pool.list().await?) }
        })
        .method::<Status, _, _>(move |_: Incoming<Status>| {
            let pool = telling.clone();
            async move { Ok(pool.status().await?) }
        })
        .method::<Reconcile, _, _>(move |_: Incoming<Reconcile>| {
            let reconciler = reconciler.clone();
            async move {
                let reconciler = reconciler.ok_or(PoolError::NotConfigured {
                    missing: "PROXMOX_HOST",
                })?;
                // A run that is asked for is never left out.
                reconciler
                    .run(Trigger::Request)
                    .await?
                    .ok_or_else(|| Fault::of(&PoolError::Busy))
            }
        })
        .start()
        .await
}
