//! What one replica does for all: lost hosts, left launches, services on their way, time that is over.

mod follow;

use std::time::Duration;

use futures::{FutureExt, StreamExt};
use nimbus_errors::chain;
use nimbus_model::Timestamp;
use nimbus_proto::event::HostChanged;
use nimbus_service::{OnError, Tasks};

use crate::error::WorkError;
use crate::hosts::row::{self, HostRow};
use crate::sandboxes::{HOST_LOST, record};
use crate::services::external::Failures;
use crate::sessions;
use crate::state::{self, Event};
use crate::works::Works;
use crate::{done, sandboxes};

/// The lease that this is done under.
const LEASE: &str = "workloads.supervise";
const LEASE_TTL: Duration = Duration::from_secs(6);
/// How often it is looked whether something is over.
const TICK: Duration = Duration::from_secs(1);
/// How often what is kept too long is forgotten.
const SWEEP: Duration = Duration::from_secs(60);
/// How often hosts are read anew that other replicas have heard of.
const REFRESH: Duration = Duration::from_secs(2);
/// How long keys of requests are known.
const KEYS: Duration = Duration::from_secs(24 * 60 * 60);
/// Sandboxes that are written as lost at a time.
const TOGETHER: usize = 32;

impl Works {
    /// Starts the background work of this replica.
    pub(crate) fn supervise(&self, tasks: &Tasks) {
        let works = self.clone();
        tasks.spawn_graceful("workloads.supervise", OnError::Restart, move || {
            let works = works.clone();
            async move {
                let (bus, stop) = (works.bus.clone(), works.stop.clone());
                bus.singleton(LEASE, LEASE_TTL, stop, || {
                    // Boxed: the whole of it would be a large part of the task.
                    works.clone().keep_watch().boxed()
                })
                .await;
                Ok(())
            }
        });
        let works = self.clone();
        tasks.spawn("workloads.hosts", OnError::Restart, move || {
            let works = works.clone();
            async move {
                loop {
                    if let Err(error) = works.refresh_hosts().await {
                        tracing::warn!(cause = %chain(&error), "could not read the hosts");
                    }
                    tokio::time::sleep(REFRESH).await;
                }
            }
        });
    }

    async fn keep_watch(self) {
        // A host that could not be heard because nobody listened is not lost yet.
        let since = self.now();
        let health = async {
            let failures = Failures::default();
            let interval = self.config.external_check_interval;
            if interval.is_zero() {
                return std::future::pending().await;
            }
            loop {
                told("asking external services", self.check_external(&failures).await);
                tokio::time::sleep(interval).await;
            }
        };
        let ticking = async {
            let tick = TICK
                .min(self.config.host_lost_after / 4)
                .max(Duration::from_millis(50));
            loop {
                told("ending sessions", self.expire_sessions().await);
                told("looking for lost hosts", self.find_lost(since).await);
                told("resuming launches", self.resume_launches().await);
                told("bringing services to their state", self.converge_all().await);
                tokio::time::sleep(tick).await;
            }
        };
        let sweeping = async {
            loop {
                told("forgetting what is old", self.sweep().await);
                tokio::time::sleep(SWEEP).await;
            }
        };
        let _: ((), (), ()) = tokio::join!(health, ticking, sweeping);
    }

    /// Declares hosts lost that were not heard of for too long.
    async fn find_lost(&self, since: Timestamp) -> Result<(), WorkError> {
        let now = self.now();
        for host in row::list(&self.store).await? {
            let heard = host.seen_at.max(since);
            if !host.lost && now.since(heard) > self.config.host_lost_after {
                self.lose(&host).await?;
            }
            // Also those that were not got to when it was lost.
            if host.lost {
                self.fail_lost(&host.name).await?;
            }
        }
        Ok(())
    }

    async fn lose(&self, host: &HostRow) -> Result<(), WorkError> {
        let (works, seen) = (self.clone(), host.clone());
        let lost = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    let lost = row::lose(tx, &seen).await?;
                    if let Some(lost) = &lost {
                        works.tell(tx, &HostChanged { host: lost.shown() }).await?;
                    }
                    Ok::<_, WorkError>(lost)
                })
            })
            .await?;
        let Some(lost) = lost else { return Ok(()) };
        tracing::warn!(host = %lost.name, seen_at = %lost.seen_at, "the host {} is lost", lost.name);
        self.outbox.nudge();
        let name = lost.name.clone();
        self.hosts.put(lost);
        self.fail_lost(&name).await
    }

    /// What runs on a lost host has failed; services get another sandbox elsewhere.
    async fn fail_lost(&self, host: &str) -> Result<(), WorkError> {
        let records = record::of_host(&self.store, host).await?;
        futures::stream::iter(records)
            .for_each_concurrent(TOGETHER, |record| async move {
                let now = self.now();
                let message = format!("the host {host} was not heard of for too long");
                let failed = self
                    .change(record.id(), |record| {
                        if !record.charged || record.host.as_str() != host {
                            return None;
                        }
                        let mut new = record.clone();
                        new.shown.status =
                            state::decide(&record.shown.status, Event::Lost, HOST_LOST, &message, now)
                                .ok()?;
                        Some(new)
                    })
                    .await;
                told("failing a sandbox of a lost host", failed.map(|_| ()));
            })
            .await;
        Ok(())
    }

    /// Forgets what is kept too long.
    async fn sweep(&self) -> Result<(), WorkError> {
        let now = self.now();
        let retention = self.config.sandbox_retention;
        let until = now.before(retention);
        self.store
            .write(move |tx| {
                Box::pin(async move {
                    done::forget(tx, now.before(KEYS)).await?;
                    sessions::ticket::forget(tx, now).await?;
                    if !retention.is_zero() {
                        sessions::row::forget(tx, until).await?;
                    }
                    Ok::<_, WorkError>(())
                })
            })
            .await?;
        if retention.is_zero() {
            return Ok(());
        }
        loop {
            let old = sandboxes::record::ended_before(&self.store, until).await?;
            if old.is_empty() {
                return Ok(());
            }
            for record in &old {
                self.remove_sandbox(record.id()).await?;
            }
        }
    }

    /// What has to be put right before the first request: launches of a process that is gone belong to
    /// nobody.
    pub(crate) async fn begin(&self) -> Result<(), WorkError> {
        // A SQLite file has one process, so nobody else is launching.
        if self.store.engine() == nimbus_store::Engine::Sqlite {
            let now = self.now();
            self.store
                .write(move |tx| Box::pin(async move { record::abandon_launches(tx, now).await }))
                .await?;
        }
        self.refresh_hosts().await
    }
}

fn told(what: &'static str, outcome: Result<(), WorkError>) {
    if let Err(error) = outcome {
        tracing::warn!(cause = %chain(&error), "{what} failed");
    }
}
