//! Work that only one of several replicas does.

use std::time::Duration;

use async_nats::Subscriber;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::bus::Bus;
use crate::header;
use crate::lease::{Lease, subject};

/// A lease is renewed, and a taken one is looked at, this often in its time.
const LOOKS: u32 = 3;
/// How long a lease may be asked for or given back at the stop; it would run out anyway.
const GIVING_BACK: Duration = Duration::from_secs(2);

impl Bus {
    /// Runs what `work` makes while this process holds the lease `name`; drops it when the lease is
    /// lost, and makes it anew when it is held again. Returns when `stop` fires, or when the work
    /// ends by itself; the lease is then given back. So the task must not be cut at the stop.
    ///
    /// A holder that dies is replaced within `ttl` and a third, one that stops at once.
    pub async fn singleton<F, R>(&self, name: &str, ttl: Duration, stop: CancellationToken, mut work: F)
    where
        F: FnMut() -> R,
        R: Future<Output = ()>,
    {
        let mut changes = self.inner.client.subscribe(subject(name)).await.ok();
        while !stop.is_cancelled() {
            let asked = tokio::select! {
                asked = self.lease(name, ttl) => asked,
                () = overdue(&stop) => return,
            };
            match asked {
                Ok(Some(lease)) => {
                    info!(lease = name, "{} does {name} from now on", self.name());
                    if self.hold(lease, ttl, &stop, work()).await {
                        return;
                    }
                    warn!(lease = name, "{} has lost {name}", self.name());
                }
                Ok(None) => wait(&mut changes, ttl / LOOKS, &stop).await,
                Err(error) => {
                    warn!(lease = name, "could not ask for {name}: {error}");
                    wait(&mut None, ttl / LOOKS, &stop).await;
                }
            }
        }
    }

    /// Runs the work and renews; whether it ended because it should.
    async fn hold(
        &self,
        lease: Lease,
        ttl: Duration,
        stop: &CancellationToken,
        work: impl Future<Output = ()>,
    ) -> bool {
        let lost = lease.lost();
        let renewals = async {
            let mut pause = ttl / LOOKS;
            loop {
                tokio::time::sleep(pause).await;
                pause = match lease.renew().await {
                    Ok(()) => ttl / LOOKS,
                    Err(error) => {
                        warn!(lease = lease.name(), "could not renew {}: {error}", lease.name());
                        // Each try has a limit of its own; this only keeps refusals from spinning.
                        ttl / (LOOKS * 10)
                    }
                };
            }
        };
        let ended = tokio::select! {
            biased;
            () = lost.cancelled() => false,
            () = stop.cancelled() => true,
            () = work => true,
            () = renewals => false,
        };
        // A bus that is away must not keep the process from ending.
        if ended && tokio::time::timeout(GIVING_BACK, lease.release()).await.is_err() {
            info!("nobody answers: the lease runs out instead of being given back");
        }
        ended
    }
}

/// Waits until the process has been about to end for so long that nothing more is waited for.
async fn overdue(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(GIVING_BACK).await;
}

/// Waits until it is worth asking again: the holder gave the lease back, or it may have run out.
async fn wait(changes: &mut Option<Subscriber>, pause: Duration, stop: &CancellationToken) {
    let released = async {
        match changes {
            Some(changes) => {
                while let Some(change) = changes.next().await {
                    if header::text(change.headers.as_ref(), header::KV_OPERATION).is_some() {
                        return;
                    }
                }
                std::future::pending().await
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = released => {}
        () = tokio::time::sleep(pause) => {}
        () = stop.cancelled() => {}
    }
}
