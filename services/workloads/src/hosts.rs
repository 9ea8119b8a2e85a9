//! Hosts: what they offer, what they tell, what they are told.

pub(crate) mod beat;
pub(crate) mod place;
pub(crate) mod row;
pub(crate) mod view;

use std::time::Duration;

use nimbus_model::Hostname;
use nimbus_proto::workloads::{Figures, Host, Offered};

use crate::error::WorkError;
use crate::works::Works;

/// A host tells of itself every two seconds; an agent that is replaced is back before this, and so is one
/// whose server of the bus has vanished, which it notices after six.
const SILENT: Duration = Duration::from_secs(12);

impl Works {
    /// Whether a host is silent for so long that asking it would only be waiting.
    pub(crate) fn is_away(&self, host: &Hostname) -> bool {
        self.hosts.is_silent(host.as_str(), SILENT)
    }

    /// Every host, by name.
    pub(crate) async fn list_hosts(&self) -> Result<Vec<Host>, WorkError> {
        let rows = row::list(&self.store).await?;
        Ok(rows.into_iter().map(|row| row.shown()).collect())
    }

    /// Forgets a host that is lost, with nothing left on it. One that speaks again is a host again.
    pub(crate) async fn forget_host(&self, host: &Hostname) -> Result<(), WorkError> {
        let name = host.to_string();
        let forgotten = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    match row::forget(tx, &name).await? {
                        true => Ok::<_, WorkError>(true),
                        false => Ok(row::find_in(tx, &name).await?.is_none()),
                    }
                })
            })
            .await?;
        if !forgotten {
            return Err(WorkError::Conflict {
                reason: "HostIsHeard",
                why: format!(
                    "the host {host} is heard, or is not empty yet; only a lost one can be forgotten"
                ),
                lifecycle: None,
            });
        }
        self.hosts.forget(host.as_str());
        tracing::info!(target: "audit", action = "host.forgotten", on = %host, "forgot the host {host}");
        Ok(())
    }

    /// What can be run here now.
    pub(crate) async fn offers(&self) -> Result<Offered, WorkError> {
        let mut offered = Offered::default();
        let collect = |into: &mut Vec<String>, from: &[String]| {
            for one in from {
                if !into.contains(one) {
                    into.push(one.clone());
                }
            }
        };
        let (now, limit) = (self.now(), self.config.host_lost_after);
        for row in row::list(&self.store).await? {
            if row.lost || now.since(row.seen_at) > limit {
                continue;
            }
            offered.hosts += 1;
            collect(&mut offered.backends, &row.facts.backends);
            collect(&mut offered.engines, std::slice::from_ref(&row.facts.engine));
            collect(&mut offered.missing, &row.facts.missing);
        }
        Ok(offered)
    }

    /// How much there is.
    pub(crate) async fn figures(&self) -> Result<Figures, WorkError> {
        let mut figures = Figures::default();
        let (now, limit) = (self.now(), self.config.host_lost_after);
        for row in row::list(&self.store).await? {
            figures.sandboxes += row.sandboxes;
            if row.lost || now.since(row.seen_at) > limit {
                figures.hosts_lost += 1;
                continue;
            }
            figures.hosts += 1;
            figures.memory_given += row.used_memory;
            figures.memory_total += row.room(&self.config).memory;
        }
        Ok(figures)
    }

    /// Reads the hosts anew: others may have heard of them.
    pub(crate) async fn refresh_hosts(&self) -> Result<(), WorkError> {
        let (epoch, at) = (self.hosts.epoch(), self.now());
        let rows = row::list(&self.store).await?;
        self.hosts.replace(epoch, at, rows);
        Ok(())
    }
}
