//! What can be seen of the cluster: nodes with scores, the catalogue, a placement before it is made.

use std::time::Duration;

use nimbus_bus::Identity;
use nimbus_model::{Os, Tier};
use nimbus_proto::node::{
    Catalog, ClusterGuest, ClusterHealth, ClusterStats, GuestSource, ListNodesRequest, Node, OsOffer,
    Placement, PlacementRequest, TierOffer,
};

use crate::cluster::View;
use crate::error::{MachineError, fault};
use crate::machine::{MachineRow, store as machines};
use crate::marker;
use crate::placement::{self, NodeFacts};
use crate::service::Provisioner;

/// How old figures on a page may be.
const PAGE: Duration = Duration::from_secs(2);
/// How long a page or a health check waits for a cluster that does not answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// More than this many free places are not counted one by one.
const FITS_MOST: u32 = 200;

impl Provisioner {
    async fn recent(&self) -> Result<std::sync::Arc<View>, MachineError> {
        let view = self.cluster()?.view(PAGE);
        tokio::time::timeout(PATIENCE, view).await.unwrap_or_else(|_| {
            Err(MachineError::Fault(nimbus_errors::Fault::new(
                nimbus_errors::Code::MachineProxmoxUnreachable,
                format!("the cluster did not answer within {} s", PATIENCE.as_secs()),
            )))
        })
    }

    async fn facts(&self, view: &View) -> Result<(Vec<NodeFacts>, Vec<MachineRow>), MachineError> {
        let inner = self.inner();
        let rows = machines::all(&inner.store).await?;
        let making: Vec<MachineRow> = rows
            .iter()
            .filter(|row| row.operation.is_some())
            .cloned()
            .collect();
        Ok((view.facts(&inner.config.disk_storage, &making), rows))
    }

    /// The nodes, with scores when a tier is named.
    pub(crate) async fn nodes(&self, request: ListNodesRequest) -> Result<Vec<Node>, MachineError> {
        let inner = self.inner();
        let view = self.recent().await?;
        let (facts, _) = self.facts(&view).await?;
        let disk = &inner.config.disk_storage;
        Ok(facts
            .iter()
            .map(|fact| {
                let (running, all) = view.counts(&fact.name);
                let next_for = Tier::all()
                    .iter()
                    .copied()
                    .filter(|tier| {
                        placement::choose(&facts, *tier, request.os, &inner.rules)
                            .winner
                            .is_some_and(|(winner, _)| winner.name == fact.name)
                    })
                    .collect();
                Node {
                    name: fact.name.clone(),
                    online: fact.online,
                    ip: view
                        .status
                        .iter()
                        .find(|entry| entry.kind == "node" && entry.name == fact.name)
                        .and_then(|entry| entry.ip)
                        .map(|ip| ip.to_string()),
                    cpu: fact.cpu,
                    max_cpu: fact.threads,
                    cpu_allocated: fact.cpu_committed,
                    mem_used: fact.mem_used,
                    mem_total: fact.mem_total,
                    mem_allocated: fact.mem_committed,
                    disk_pool: (!disk.is_empty()).then(|| disk.clone()),
                    disk_used: fact.disk.map_or(0, |disk| disk.used),
                    disk_total: fact.disk.map_or(0, |disk| disk.total),
                    disk_allocated: view.disk_allocated(&fact.name),
                    vm_count: running,
                    vm_count_total: all,
                    templates: fact.templates.clone(),
                    score: request
                        .tier
                        .map(|tier| placement::score(fact, tier, request.os, &inner.rules)),
                    next_for,
                }
            })
            .collect())
    }

    /// What the caller can order now. A cluster that does not answer is said, and is no failure.
    pub(crate) async fn catalog(&self, identity: &Identity) -> Result<Catalog, MachineError> {
        let inner = self.inner();
        let used = machines::slots_used(&inner.store, identity.user).await?;
        let limit = (!identity.admin).then_some(inner.config.member_max_machines);
        let seen = match self.recent().await {
            Ok(view) => self.facts(&view).await.map(|(facts, _)| facts),
            Err(error) => Err(error),
        };
        let full = limit.is_some_and(|limit| used >= i64::from(limit));
        let tiers = Tier::all()
            .iter()
            .map(|tier| {
                let fits = seen
                    .as_ref()
                    .ok()
                    .map(|facts| placement::fits(facts, *tier, None, &inner.rules, FITS_MOST));
                let refused = if tier.admin_only() && !identity.admin {
                    Some("Only administrators may order this size.".to_owned())
                } else if full {
                    Some("You have as many machines as you may have.".to_owned())
                } else if fits == Some(0) {
                    Some("No node has room for this size now.".to_owned())
                } else {
                    None
                };
                TierOffer {
                    tier: *tier,
                    fits,
                    refused,
                }
            })
            .collect();
        let os = Os::all()
            .iter()
            .map(|os| {
                let nodes = seen.as_ref().map_or(0, |facts| {
                    facts
                        .iter()
                        .filter(|fact| fact.online && fact.templates.contains(os))
                        .count()
                });
                OsOffer {
                    os: *os,
                    nodes: u32::try_from(nodes).unwrap_or(u32::MAX),
                }
            })
            .collect();
        Ok(Catalog {
            tiers,
            os,
            quota_used: u32::try_from(used).unwrap_or(u32::MAX),
            quota_limit: limit,
            cluster_error: seen.err().map(|error| fault(error).message),
        })
    }

    /// Where a machine would go.
    pub(crate) async fn preview(
        &self,
        identity: &Identity,
        request: PlacementRequest,
    ) -> Result<Placement, MachineError> {
        let inner = self.inner();
        let view = self.recent().await?;
        let (facts, _) = self.facts(&view).await?;
        let choice = placement::choose(&facts, request.tier, Some(request.os), &inner.rules);
        let rejected = if identity.admin { choice.rejected } else { vec![] };
        Ok(match choice.winner {
            Some((node, score)) => Placement {
                node: Some(node.name.clone()),
                score: score.score,
                why: placement::explain(&score, inner.rules.disk_gate),
                rejected,
            },
            None => Placement {
                node: None,
                score: 0.0,
                why: "No node can take this machine now.".to_owned(),
                rejected,
            },
        })
    }

    /// Every virtual machine of the cluster that is not a template.
    pub(crate) async fn guests(&self) -> Result<Vec<ClusterGuest>, MachineError> {
        let view = self.recent().await?;
        let (_, rows) = self.facts(&view).await?;
        view.machines()
            .map(|guest| {
                let row = rows
                    .iter()
                    .find(|row| row.vmid == Some(i64::from(guest.vmid.get())));
                let machine = row.map(MachineRow::view).transpose()?;
                let tagged = guest.tags.iter().any(|tag| tag == marker::TAG);
                Ok(ClusterGuest {
                    vmid: guest.vmid.get(),
                    name: guest.name.clone().unwrap_or_default(),
                    node: guest.node.clone(),
                    status: guest.status.clone(),
                    source: match (&machine, tagged) {
                        (Some(_), _) => GuestSource::Local,
                        (None, true) => GuestSource::Foreign,
                        (None, false) => GuestSource::External,
                    },
                    machine: machine.as_ref().map(|machine| machine.id),
                    ip: machine
                        .as_ref()
                        .and_then(|machine| machine.ip)
                        .map(|ip| ip.to_string()),
                    tier: machine.as_ref().map(|machine| machine.tier),
                    os: machine.as_ref().map(|machine| machine.os),
                    created_at: machine.as_ref().map(|machine| machine.created_at),
                })
            })
            .collect()
    }

    /// Storage of the whole cluster.
    pub(crate) async fn stats(&self) -> Result<ClusterStats, MachineError> {
        let (storage_used, storage_total) = self.recent().await?.storage_totals();
        Ok(ClusterStats {
            storage_used,
            storage_total,
        })
    }

    /// Whether the cluster can be used; never fails, and never takes longer than [`PATIENCE`].
    pub(crate) async fn health(&self) -> ClusterHealth {
        let missing = self.inner().access.missing.clone();
        let Ok(client) = self.client() else {
            return ClusterHealth {
                missing,
                version: None,
                error: None,
            };
        };
        match tokio::time::timeout(PATIENCE, client.version()).await {
            Ok(Ok(version)) => ClusterHealth {
                missing,
                version: Some(version.version),
                error: None,
            },
            Ok(Err(error)) => ClusterHealth {
                missing,
                version: None,
                error: Some(nimbus_errors::chain(&error)),
            },
            Err(_) => {
                let error = format!("no answer within {} s", PATIENCE.as_secs());
                ClusterHealth {
                    missing,
                    version: None,
                    error: Some(error),
                }
            }
        }
    }

    /// A page of the caller's machines.
    pub(crate) async fn list(
        &self,
        identity: &Identity,
        request: nimbus_proto::machine::ListRequest,
    ) -> Result<Vec<nimbus_proto::machine::Machine>, MachineError> {
        let inner = self.inner();
        let limit = request.limit.clamp(1, 1000);
        let page = (identity.user, request.before, limit);
        // Taken before the rows: a change in between is found by the next request.
        let fingerprint = machines::fingerprint(&inner.store, identity.user).await?;
        if let Some(kept) = inner.pages.find(&page, fingerprint) {
            return Ok(kept.as_ref().clone());
        }
        let rows = machines::of_owner(&inner.store, identity.user, request.before, limit).await?;
        let machines: Vec<_> = rows.iter().map(MachineRow::view).collect::<Result<_, _>>()?;
        inner.pages.keep(page, fingerprint, &machines);
        Ok(machines)
    }
}
