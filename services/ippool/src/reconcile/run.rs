//! When a reconcile runs, and how it looks and acts.
//!
//! One at a time in the whole deployment, by a lease on the bus. Replicas have a timer each; whether
//! a run is due is asked of the database, so N replicas do not count N misses per interval.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use nimbus_bus::{Bus, Event as _, EventFilter, EventStart};
use nimbus_proto::event::UserSignedIn;
use nimbus_proto::ippool::{Adopted, ReconcileReport};
use nimbus_service::RunError;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{Action, Plan, Policy, Real, plan};
use crate::config::IppoolConfig;
use crate::error::PoolError;
use crate::pool::{Change, Pool};
use crate::snapshot::{Cluster, Snapshot, Whereabouts};
use crate::state::Event;

const LEASE: &str = "ippool.reconcile";
/// Longest time for one run, and how long the lease of a replica that died stays: the limit of the
/// bus method, less what the answer needs.
const LIMIT: Duration = Duration::from_secs(50);
/// How long a run that somebody asked for waits for one that is under way.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it looks whether that one has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Sign-ins within this time share one run.
const DEBOUNCE: Duration = Duration::from_secs(1);
/// A sign-in starts no run when the last one began less than this ago.
const SIGN_IN_GAP: Duration = Duration::from_secs(10);
/// The port of the PVE API, and how long a node has to take a connection on it.
const NODE_PORT: u16 = 8006;
const NODE_LIMIT: Duration = Duration::from_secs(1);

/// Why a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// It is time.
    Timer,
    /// Somebody signed in and may want to see the truth.
    SignIn,
    /// An administrator asked.
    Request,
}

/// Runs reconciles. Clones share.
#[derive(Clone)]
pub(crate) struct Reconciler {
    pool: Pool,
    cluster: Cluster,
    bus: Bus,
    interval: Duration,
    policy: Policy,
    running: Arc<Mutex<()>>,
}

impl Reconciler {
    pub(crate) fn new(pool: Pool, cluster: Cluster, bus: Bus, config: &IppoolConfig) -> Self {
        Self {
            pool,
            cluster,
            bus,
            interval: config.reconcile_interval,
            policy: Policy {
                reservation_ttl: config.reservation_ttl,
                vacate_after: config.vacate_miss_threshold,
                count_misses: true,
            },
            running: Arc::default(),
        }
    }

    /// Runs at start and then once per interval; never when that is zero.
    pub(crate) async fn keep_time(self) -> Result<(), RunError> {
        if self.interval.is_zero() {
            return Ok(());
        }
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.run_quietly(Trigger::Timer).await;
        }
    }

    /// Runs after sign-ins.
    pub(crate) async fn follow_sign_ins(self) -> Result<(), RunError> {
        let subject = format!(
            "nimbus.v1.event.{}.{}.>",
            UserSignedIn::DOMAIN,
            UserSignedIn::KIND
        );
        let mut events = Box::pin(self.bus.events(EventFilter {
            subjects: vec![subject],
            start: EventStart::New,
        }));
        while let Some(event) = events.next().await {
            event?;
            // Whoever else signs in meanwhile has this run, too.
            let until = Instant::now() + DEBOUNCE;
            while let Ok(Some(event)) = tokio::time::timeout_at(until, events.next()).await {
                event?;
            }
            self.run_quietly(Trigger::SignIn).await;
        }
        Ok(())
    }

    async fn run_quietly(&self, trigger: Trigger) {
        match self.run(trigger).await {
            Ok(Some(report)) if !report.conflicts.is_empty() => {
                tracing::warn!(conflicts = ?report.conflicts, "{} addresses are in use by other guests than the books say", report.conflicts.len());
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(cause = %nimbus_errors::chain(&error), "could not reconcile the addresses")
            }
        }
    }

    /// Runs now. `None` when there is no need: another replica does it, or did it just now.
    pub(crate) async fn run(&self, trigger: Trigger) -> Result<Option<ReconcileReport>, PoolError> {
        let give_up = Instant::now() + PATIENCE;
        let Ok(_running) = tokio::time::timeout_at(give_up, self.running.lock()).await else {
            return Err(PoolError::Busy);
        };
        let lease = loop {
            match self.bus.lease(LEASE, LIMIT + Duration::from_secs(10)).await? {
                Some(lease) => break lease,
                None if trigger != Trigger::Request => return Ok(None),
                None if Instant::now() >= give_up => return Err(PoolError::Busy),
                None => tokio::time::sleep(LOOK_AGAIN).await,
            }
        };
        let outcome = tokio::time::timeout(LIMIT, self.run_alone(trigger)).await;
        lease.release().await;
        outcome.unwrap_or(Err(PoolError::TooSlow {
            limit_s: LIMIT.as_secs(),
        }))
    }

    async fn run_alone(&self, trigger: Trigger) -> Result<Option<ReconcileReport>, PoolError> {
        let gap = match trigger {
            // A little less than the interval: timers are not exact.
            Trigger::Timer => self.interval.mul_f64(0.9),
            Trigger::SignIn => SIGN_IN_GAP,
            Trigger::Request => Duration::ZERO,
        };
        if !self.pool.claim_reconcile(gap).await? {
            return Ok(None);
        }
        // The books are read first: an address that is handed out after that is not in them, and one
        // that changes after that has another version, so nothing is done to it.
        let rows = self.pool.rows().await?;
        let (snapshot, whereabouts) = tokio::try_join!(self.cluster.fresh(), self.cluster.whereabouts())?;
        let away = away(&snapshot, &whereabouts, NODE_PORT).await;
        let policy = Policy {
            count_misses: trigger != Trigger::SignIn,
            ..self.policy
        };
        let real = Real {
            snapshot: &snapshot,
            whereabouts: &whereabouts,
            away: &away,
        };
        let plan = plan(&rows, real, policy, self.pool.clock().now());
        self.act(plan, &snapshot).await.map(Some)
    }

    async fn act(&self, plan: Plan, snapshot: &Snapshot) -> Result<ReconcileReport, PoolError> {
        let now = self.pool.clock().now();
        let mut report = ReconcileReport {
            adopted: vec![],
            conflicts: plan.conflicts,
            freed: vec![],
            vacated: vec![],
            no_ops: plan.no_ops,
            snapshot_at: snapshot.taken_at,
        };
        let mut changes = Vec::new();
        for (old, action) in &plan.actions {
            let (new, loud) = match action {
                Action::Seen(guest) => (old.seen(guest, now), false),
                Action::Adopt(guest) => (old.adopt(guest, now)?, true),
                Action::Expire => (old.give_back(Event::Expire)?, true),
                Action::Vacate => (old.give_back(Event::Vacate)?, true),
                Action::Miss => (
                    crate::state::Row {
                        missed_cycles: old.missed_cycles + 1,
                        ..old.clone()
                    },
                    false,
                ),
                Action::Spare => (
                    crate::state::Row {
                        missed_cycles: 0,
                        ..old.clone()
                    },
                    false,
                ),
            };
            changes.push(Change {
                old: old.clone(),
                new,
                loud,
            });
        }
        let done = self.pool.change_all(changes).await?;
        for ((old, action), _) in plan.actions.into_iter().zip(done).filter(|(_, done)| *done) {
            match action {
                Action::Adopt(guest) => report.adopted.push(Adopted {
                    ip: old.ip,
                    vmid: guest.vmid,
                    hostname: guest.name,
                    prior_status: old.status,
                }),
                Action::Expire => report.freed.push(old.ip),
                Action::Vacate => report.vacated.push(old.ip),
                Action::Seen(_) | Action::Miss | Action::Spare => {}
            }
        }
        tracing::info!(
            ippool.adopted = report.adopted.len(),
            ippool.conflicts = report.conflicts.len(),
            ippool.freed = report.freed.len(),
            ippool.vacated = report.vacated.len(),
            "compared the addresses with the cluster"
        );
        Ok(report)
    }
}

/// The nodes whose guests may run although they do not show: those the cluster has lost, those that
/// came too late for the picture, and those that take no connection from here.
///
/// Where no node takes one, this process is not on their network (it reaches the API through a proxy,
/// say) and connections tell nothing.
async fn away(snapshot: &Snapshot, whereabouts: &Whereabouts, port: u16) -> BTreeSet<String> {
    let probes = whereabouts.nodes.iter().map(|(name, ip, online)| async move {
        let seen = *online && snapshot.nodes.contains(name);
        let answers = match ip {
            Some(ip) if seen => takes_connections(*ip, port).await,
            Some(_) | None => false,
        };
        (name, seen, answers)
    });
    let probed = futures::future::join_all(probes).await;
    let probes_tell = probed.iter().any(|(_, _, answers)| *answers);
    probed
        .into_iter()
        .filter(|(_, seen, answers)| !seen || (probes_tell && !answers))
        .map(|(name, _, _)| name.clone())
        .collect()
}

async fn takes_connections(ip: IpAddr, port: u16) -> bool {
    matches!(
        tokio::time::timeout(NODE_LIMIT, TcpStream::connect((ip, port))).await,
        Ok(Ok(_))
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nimbus_model::Timestamp;
    use tokio::net::TcpListener;

    use super::*;

    fn snapshot(nodes: &[&str]) -> Snapshot {
        Snapshot {
            taken_at: Timestamp::from_micros(0),
            held: BTreeMap::new(),
            nodes: nodes.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn node(name: &str, ip: &str, online: bool) -> (String, Option<IpAddr>, bool) {
        (name.to_owned(), Some(ip.parse().unwrap()), online)
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[tokio::test]
    async fn nodes_that_are_lost_unread_or_deaf_are_away() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // Nothing listens on 127.0.0.2, so the connection is refused.
        let nodes = vec![
            node("answers", "127.0.0.1", true),
            node("deaf", "127.0.0.2", true),
            node("lost", "127.0.0.1", false),
            node("unread", "127.0.0.1", true),
        ];
        let whereabouts = Whereabouts {
            nodes,
            guests: BTreeMap::new(),
        };
        let away = away(&snapshot(&["answers", "deaf", "lost"]), &whereabouts, port).await;
        assert_eq!(away, set(&["deaf", "lost", "unread"]));
    }

    #[tokio::test]
    async fn where_no_node_takes_a_connection_the_clusters_own_view_counts() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let nodes = vec![node("a", "127.0.0.2", true), node("b", "127.0.0.2", false)];
        let whereabouts = Whereabouts {
            nodes,
            guests: BTreeMap::new(),
        };
        assert_eq!(away(&snapshot(&["a"]), &whereabouts, port).await, set(&["b"]));
    }
}
