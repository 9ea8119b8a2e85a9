//! Which guest of the cluster has which address: the truth that the books are checked against.
//!
//! A picture is complete or it is not used: a node that could not be asked may hold any address.
//! Guests of offline nodes and guests without a static address in their configuration do not show.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use nimbus_model::{Clock, Timestamp};
use nimbus_proxmox::{Client, GuestListEntry, ProxmoxError, VmConfig};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Requests to the cluster at a time.
const AT_A_TIME: usize = 8;
/// Longest time for one picture; less than a reservation may take, so that its caller hears why.
const LIMIT: Duration = Duration::from_secs(15);

/// A virtual machine or container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Guest {
    pub(crate) vmid: u32,
    pub(crate) name: Option<String>,
    pub(crate) node: String,
}

/// The addresses in use on all nodes that are online.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) taken_at: Timestamp,
    /// By address, in the order of the VMIDs.
    pub(crate) held: BTreeMap<Ipv4Addr, Vec<Guest>>,
    /// The nodes whose guests are in it.
    pub(crate) nodes: BTreeSet<String>,
}

/// Where guests and nodes are, offline ones too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Whereabouts {
    /// Name, address and whether the cluster sees it.
    pub(crate) nodes: Vec<(String, Option<IpAddr>, bool)>,
    /// The node of each guest.
    pub(crate) guests: BTreeMap<u32, String>,
}

/// Why there is no complete picture.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    /// A question about the whole cluster failed.
    #[error("the cluster did not answer")]
    Cluster {
        /// How.
        #[source]
        source: Arc<ProxmoxError>,
    },
    /// A node, or a guest of it, could not be asked.
    #[error("node {node} did not answer")]
    Node {
        /// Which.
        node: String,
        /// How.
        #[source]
        source: Arc<ProxmoxError>,
    },
    /// It took too long.
    #[error("the cluster did not answer within {} s", LIMIT.as_secs())]
    Timeout,
}

impl SnapshotError {
    /// The node that did not answer, when it was one.
    pub(crate) fn node(&self) -> Option<&str> {
        match self {
            Self::Node { node, .. } => Some(node),
            Self::Cluster { .. } | Self::Timeout => None,
        }
    }

    fn of(node: &str, source: ProxmoxError) -> Self {
        Self::Node {
            node: node.to_owned(),
            source: Arc::new(source),
        }
    }
}

impl From<ProxmoxError> for SnapshotError {
    fn from(source: ProxmoxError) -> Self {
        Self::Cluster {
            source: Arc::new(source),
        }
    }
}

/// Looks at the cluster. Implemented by the client of PVE and, in tests, by a script.
pub(crate) trait Look: Send + Sync + 'static {
    /// The addresses in use.
    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, SnapshotError>>;
    /// Where guests and nodes are.
    fn whereabouts(&self) -> BoxFuture<'_, Result<Whereabouts, SnapshotError>>;
}

/// The cluster through its API.
pub(crate) struct Pve {
    pub(crate) client: Client,
    pub(crate) clock: Clock,
}

#[derive(Clone, Copy)]
enum Kind {
    Vm,
    Container,
}

impl Look for Pve {
    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, SnapshotError>> {
        Box::pin(async {
            let taken_at = self.clock.now();
            let mut nodes: BTreeSet<String> = BTreeSet::new();
            for node in self.client.nodes().await? {
                if node.is_online() {
                    nodes.insert(node.node);
                }
            }
            let guests: Vec<Vec<(Kind, String, GuestListEntry)>> = futures::stream::iter(nodes.clone())
                .map(|node| self.guests(node))
                .buffer_unordered(AT_A_TIME)
                .try_collect()
                .await?;
            let found: Vec<Vec<(Ipv4Addr, Guest)>> = futures::stream::iter(guests.into_iter().flatten())
                .map(|(kind, node, entry)| self.addresses(kind, node, entry))
                .buffer_unordered(AT_A_TIME)
                .try_collect()
                .await?;
            let mut held: BTreeMap<Ipv4Addr, Vec<Guest>> = BTreeMap::new();
            for (ip, guest) in found.into_iter().flatten() {
                held.entry(ip).or_default().push(guest);
            }
            for guests in held.values_mut() {
                guests.sort();
                guests.dedup();
            }
            Ok(Snapshot {
                taken_at,
                held,
                nodes,
            })
        })
    }

    fn whereabouts(&self) -> BoxFuture<'_, Result<Whereabouts, SnapshotError>> {
        Box::pin(async {
            let (status, guests) = tokio::try_join!(self.client.cluster_status(), self.client.cluster_vms())?;
            Ok(Whereabouts {
                nodes: status
                    .into_iter()
                    .filter(|entry| entry.kind == "node")
                    .map(|entry| (entry.name, entry.ip, entry.online == Some(true)))
                    .collect(),
                guests: guests
                    .into_iter()
                    .map(|guest| (guest.vmid.get(), guest.node))
                    .collect(),
            })
        })
    }
}

impl Pve {
    async fn guests(&self, node: String) -> Result<Vec<(Kind, String, GuestListEntry)>, SnapshotError> {
        let (vms, containers) = tokio::try_join!(self.client.qemu_list(&node), self.client.lxc_list(&node))
            .map_err(|source| SnapshotError::of(&node, source))?;
        let vms = vms.into_iter().map(|entry| (Kind::Vm, node.clone(), entry));
        let containers = containers
            .into_iter()
            .map(|entry| (Kind::Container, node.clone(), entry));
        Ok(vms
            .chain(containers)
            .filter(|(_, _, entry)| !entry.template)
            .collect())
    }

    async fn addresses(
        &self,
        kind: Kind,
        node: String,
        entry: GuestListEntry,
    ) -> Result<Vec<(Ipv4Addr, Guest)>, SnapshotError> {
        let found: Result<Vec<IpAddr>, ProxmoxError> = match kind {
            Kind::Vm => self
                .client
                .vm_config(&node, entry.vmid)
                .await
                .map(|config| config.static_ip().into_iter().collect()),
            Kind::Container => self
                .client
                .lxc_config(&node, entry.vmid)
                .await
                .map(|config| VmConfig::lxc_ips(&config)),
        };
        let addresses = match found {
            Ok(addresses) => addresses,
            // It was removed between the list and the question.
            Err(ProxmoxError::NotFound { .. }) => Vec::new(),
            Err(source) => return Err(SnapshotError::of(&node, source)),
        };
        let guest = Guest {
            vmid: entry.vmid.get(),
            name: entry.name,
            node,
        };
        Ok(addresses
            .into_iter()
            .filter_map(|ip| match ip {
                IpAddr::V4(ip) => Some((ip, guest.clone())),
                IpAddr::V6(_) => None,
            })
            .collect())
    }
}

/// The cluster with the last picture of it. Clones share; one picture is taken at a time.
#[derive(Clone)]
pub(crate) struct Cluster {
    look: Arc<dyn Look>,
    cache_ttl: Duration,
    last: Arc<Mutex<Option<Taken>>>,
}

struct Taken {
    begun: Instant,
    ended: Instant,
    result: Result<Arc<Snapshot>, SnapshotError>,
}

impl Cluster {
    pub(crate) fn new(look: Arc<dyn Look>, cache_ttl: Duration) -> Self {
        Self {
            look,
            cache_ttl,
            last: Arc::default(),
        }
    }

    /// A picture that was begun after this call.
    pub(crate) async fn fresh(&self) -> Result<Arc<Snapshot>, SnapshotError> {
        let asked = Instant::now();
        self.get(asked, |taken| taken.begun >= asked).await
    }

    /// A picture no older than the cache allows.
    pub(crate) async fn recent(&self) -> Result<Arc<Snapshot>, SnapshotError> {
        self.get(Instant::now(), |taken| {
            taken.result.is_ok() && taken.begun.elapsed() <= self.cache_ttl
        })
        .await
    }

    /// Who has `ip`. An address that an old picture shows in use is looked at again, because its guest
    /// may just have been deleted; that one was free a moment ago and is taken now is a race which no
    /// picture settles.
    pub(crate) async fn holder(&self, ip: Ipv4Addr) -> Result<Option<Guest>, SnapshotError> {
        let first = |snapshot: &Snapshot| snapshot.held.get(&ip).and_then(|guests| guests.first().cloned());
        if first(&*self.recent().await?).is_none() {
            return Ok(None);
        }
        Ok(first(&*self.fresh().await?))
    }

    pub(crate) async fn whereabouts(&self) -> Result<Whereabouts, SnapshotError> {
        within(self.look.whereabouts()).await
    }

    async fn get(
        &self,
        asked: Instant,
        good: impl Fn(&Taken) -> bool,
    ) -> Result<Arc<Snapshot>, SnapshotError> {
        let mut last = self.last.lock().await;
        if let Some(taken) = last.as_ref() {
            // Those who waited for a picture that failed share the failure: asking a dead node once for
            // each of them would keep all of them waiting.
            if good(taken) || (taken.result.is_err() && taken.ended >= asked) {
                return taken.result.clone();
            }
        }
        let begun = Instant::now();
        let result = within(self.look.snapshot()).await.map(Arc::new);
        if let Err(error) = &result {
            tracing::warn!(cause = %nimbus_errors::chain(error), "no complete picture of the cluster");
        }
        *last = Some(Taken {
            begun,
            ended: Instant::now(),
            result: result.clone(),
        });
        result
    }
}

async fn within<T>(look: BoxFuture<'_, Result<T, SnapshotError>>) -> Result<T, SnapshotError> {
    tokio::time::timeout(LIMIT, look)
        .await
        .unwrap_or(Err(SnapshotError::Timeout))
}

#[cfg(test)]
pub(crate) mod script {
    //! A cluster that shows what the test wants.

    use std::sync::Mutex as Lock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    pub(crate) struct Script {
        pub(crate) held: Lock<BTreeMap<Ipv4Addr, Vec<Guest>>>,
        pub(crate) broken: Lock<bool>,
        pub(crate) whereabouts: Lock<Whereabouts>,
        pub(crate) looks: AtomicUsize,
    }

    impl Script {
        pub(crate) fn hold(&self, ip: &str, vmid: u32, name: &str) {
            let guest = Guest {
                vmid,
                name: Some(name.to_owned()),
                node: "pve1".to_owned(),
            };
            self.held
                .lock()
                .unwrap()
                .entry(ip.parse().unwrap())
                .or_default()
                .push(guest);
        }
    }

    impl Look for Script {
        fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, SnapshotError>> {
            Box::pin(async {
                self.looks.fetch_add(1, Ordering::SeqCst);
                // Lets the others queue up behind this one.
                tokio::task::yield_now().await;
                if *self.broken.lock().unwrap() {
                    return Err(SnapshotError::of("pve2", ProxmoxError::Unauthorized));
                }
                Ok(Snapshot {
                    taken_at: Timestamp::from_micros(0),
                    held: self.held.lock().unwrap().clone(),
                    nodes: ["pve1".to_owned()].into(),
                })
            })
        }

        fn whereabouts(&self) -> BoxFuture<'_, Result<Whereabouts, SnapshotError>> {
            Box::pin(async { Ok(self.whereabouts.lock().unwrap().clone()) })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::script::Script;
    use super::*;

    fn cluster(ttl: Duration) -> (Arc<Script>, Cluster) {
        let script = Arc::new(Script::default());
        (Arc::clone(&script), Cluster::new(script, ttl))
    }

    #[tokio::test(start_paused = true)]
    async fn one_picture_serves_everybody_until_it_is_old() {
        let (script, cluster) = cluster(Duration::from_secs(5));
        let all = futures::future::join_all((0..50).map(|_| cluster.recent())).await;
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(script.looks.load(Ordering::SeqCst), 1);
        tokio::time::advance(Duration::from_secs(6)).await;
        cluster.recent().await.unwrap();
        assert_eq!(script.looks.load(Ordering::SeqCst), 2);
        tokio::time::advance(Duration::from_millis(1)).await;
        cluster.fresh().await.unwrap();
        assert_eq!(script.looks.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_shared_by_those_who_wait_and_not_kept() {
        let (script, cluster) = cluster(Duration::from_secs(5));
        *script.broken.lock().unwrap() = true;
        let all = futures::future::join_all((0..50).map(|_| cluster.recent())).await;
        assert!(all.iter().all(Result::is_err));
        assert_eq!(script.looks.load(Ordering::SeqCst), 1);
        tokio::time::advance(Duration::from_millis(1)).await;
        *script.broken.lock().unwrap() = false;
        assert!(cluster.recent().await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_whose_guest_was_just_deleted_is_free() {
        let (script, cluster) = cluster(Duration::from_secs(5));
        script.hold("10.0.0.9", 101, "old");
        let ip = Ipv4Addr::new(10, 0, 0, 9);
        assert_eq!(
            cluster.holder(ip).await.unwrap().map(|guest| guest.vmid),
            Some(101)
        );
        script.held.lock().unwrap().clear();
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(cluster.holder(ip).await.unwrap(), None);
    }
}
