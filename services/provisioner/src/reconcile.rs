//! Keeps the machines' rows to what the cluster shows. Looks at settled machines only; never touches a VM.
//!
//! | cluster | row | action |
//! |---|---|---|
//! | VM with our marks | same node and name | nothing |
//! | VM with our marks, on another node | | the row follows |
//! | VM with our marks, another name | | the hostname follows |
//! | no such VM, or a stranger with its number | | missed + 1; at the third miss the row goes and the address is released |
//! | node not reachable | | nothing: its guests vanish from listings while it is away |
//!
//! Identity is the marker and the uuid, never the number alone: Proxmox gives freed numbers away.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use nimbus_bus::Key;
use nimbus_model::{Hostname, MachineId};
use nimbus_proto::event::{MachineChanged, MachineDeleted};
use nimbus_proto::ippool;
use nimbus_proto::machine::{MachineStatus, Migrated, Missed, ReconcileReport, Renamed};
use nimbus_proxmox::{ProxmoxError, Vmid};

use crate::cluster::View;
use crate::error::MachineError;
use crate::machine::{self, MachineRow, store};
use crate::marker::{self, Ours};
use crate::service::Provisioner;

/// Misses after which a machine is given up.
const MISSES: i64 = 3;
/// Configurations read at the same time.
const PARALLEL: usize = 8;

/// What the cluster says about one machine's VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// It is there, with our marks.
    Ours {
        node: String,
        name: Option<String>,
        status: MachineStatus,
    },
    /// There is no such VM, or it is somebody else's.
    Absent,
    /// Its node cannot be asked.
    Unreachable,
}

/// What is to be done about one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Nothing,
    Follow {
        node: String,
        rename: Option<Hostname>,
        status: MachineStatus,
    },
    Miss,
    GiveUp,
}

/// Decides for one machine.
pub(crate) fn plan(row: &MachineRow, sight: &Sight) -> Action {
    if row.operation.is_some() || row.vmid.is_none() {
        return Action::Nothing;
    }
    match sight {
        Sight::Unreachable => Action::Nothing,
        Sight::Absent if row.missed_cycles + 1 >= MISSES => Action::GiveUp,
        Sight::Absent => Action::Miss,
        Sight::Ours { node, name, status } => {
            // A name that is not a hostname cannot be ours; the row keeps what it has.
            let rename = name
                .as_deref()
                .filter(|name| *name != row.hostname)
                .and_then(|name| name.parse::<Hostname>().ok());
            // A machine that failed stays so: its owner has to delete it, whatever its VM does.
            let status = row
                .status()
                .map(|before| machine::on(before, machine::Event::Seen(*status)).unwrap_or(before))
                .unwrap_or(*status);
            let same = row.node.as_deref() == Some(node)
                && rename.is_none()
                && row.missed_cycles == 0
                && row.status == <&str>::from(status);
            if same {
                Action::Nothing
            } else {
                Action::Follow {
                    node: node.clone(),
                    rename,
                    status,
                }
            }
        }
    }
}

/// Looks at every settled machine and does what the plan says.
pub(crate) async fn run(provisioner: &Provisioner) -> Result<ReconcileReport, MachineError> {
    let inner = provisioner.inner();
    let cluster = provisioner.cluster()?;
    let view = cluster.view(std::time::Duration::ZERO).await?;
    let rows = store::all(&inner.store).await?;
    if view.guests.is_empty() && !rows.is_empty() {
        return Err(MachineError::EmptySnapshot);
    }
    let settled: Vec<MachineRow> = rows
        .into_iter()
        .filter(|row| row.operation.is_none() && row.vmid.is_some())
        .collect();
    let sights: BTreeMap<MachineId, Sight> = futures::stream::iter(settled.clone())
        .map(|row| {
            let (provisioner, view) = (provisioner.clone(), Arc::clone(&view));
            async move { Ok::<_, MachineError>((row.id, look(&provisioner, &view, &row).await?)) }
        })
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await?;
    let mut report = ReconcileReport {
        migrated: vec![],
        renamed: vec![],
        missed: vec![],
        deleted: vec![],
        no_ops: 0,
        snapshot_at: view.taken_at,
    };
    for row in settled {
        let (id, action) = (
            row.id,
            sights
                .get(&row.id)
                .map_or(Action::Nothing, |sight| plan(&row, sight)),
        );
        // One machine that cannot be followed must not keep the others from it.
        if let Err(error) = act(provisioner, row, action, &mut report).await {
            tracing::warn!(machine.id = %id, cause = %nimbus_errors::chain(&error), "could not reconcile a machine");
        }
    }
    inner.news.outbox.nudge();
    Ok(report)
}

async fn look(provisioner: &Provisioner, view: &View, row: &MachineRow) -> Result<Sight, MachineError> {
    let (Some(vmid), Some(node)) = (row.vmid()?, row.node.as_deref()) else {
        return Ok(Sight::Absent);
    };
    let guest = view.guest(vmid);
    let node = guest.map_or(node, |guest| guest.node.as_str());
    if !view.online(node) {
        return Ok(Sight::Unreachable);
    }
    let Ok(number) = Vmid::new(vmid) else {
        return Ok(Sight::Absent);
    };
    // The list of guests can be ten seconds old; the configuration is the truth.
    let client = provisioner.client()?;
    match client.vm_config(node, number).await {
        Ok(config) => {
            let tagged = config.tags().iter().any(|tag| tag == marker::TAG);
            if marker::ours(row.id, config.description(), config.get("smbios1"), tagged) != Ours::Yes {
                return Ok(Sight::Absent);
            }
            let before = row.status()?;
            let listed = guest.map_or(before, |guest| machine::seen(&guest.status));
            let status = if listed == before {
                before
            } else {
                power_state(provisioner, node, number).await.unwrap_or(before)
            };
            Ok(Sight::Ours {
                node: node.to_owned(),
                name: config.name().map(str::to_owned),
                status,
            })
        }
        Err(ProxmoxError::NotFound { .. }) => Ok(Sight::Absent),
        Err(error @ (ProxmoxError::Unauthorized | ProxmoxError::Untrusted { .. })) => {
            Err(MachineError::proxmox(format!("reading VM {vmid}"))(error))
        }
        // Whatever keeps one VM from being read is no reason to leave the others alone.
        Err(error) => {
            tracing::debug!(machine.id = %row.id, cause = %nimbus_errors::chain(&error), "could not read a VM");
            Ok(Sight::Unreachable)
        }
    }
}

/// The power state now. Lists of guests show the one of up to ten seconds ago, for example what it was
/// before an operation; they are good enough to notice a change, and not to believe it.
async fn power_state(
    provisioner: &Provisioner,
    node: &str,
    vmid: Vmid,
) -> Result<MachineStatus, MachineError> {
    let current = provisioner
        .client()?
        .vm_current(node, vmid)
        .await
        .map_err(MachineError::proxmox(format!(
            "asking for the state of VM {vmid}"
        )))?;
    Ok(machine::seen(match current.qmpstatus.as_deref() {
        // Of a guest that runs, QEMU knows more.
        Some(state @ ("paused" | "suspended" | "prelaunch")) if current.status == "running" => state,
        _ => &current.status,
    }))
}

async fn act(
    provisioner: &Provisioner,
    row: MachineRow,
    action: Action,
    report: &mut ReconcileReport,
) -> Result<(), MachineError> {
    let inner = provisioner.inner();
    let at = inner.clock.now();
    let vmid = row.vmid()?.unwrap_or_default();
    let node = row.node.clone().unwrap_or_default();
    match action {
        Action::Nothing => report.no_ops += 1,
        Action::Follow {
            node: seen_on,
            rename,
            status,
        } => {
            let mut tx = inner.store.begin().await?;
            let mut changed = store::set_seen(&mut tx, row.id, status, &seen_on, at).await?;
            if changed.is_some() && seen_on != node {
                report.migrated.push(Migrated {
                    machine: row.id,
                    vmid,
                    hostname: row.hostname.clone(),
                    from_node: node,
                    to_node: seen_on.clone(),
                });
            }
            if let Some(name) = rename
                && let Some(renamed) = store::rename(&mut tx, row.id, name.as_str(), at).await?
            {
                report.renamed.push(Renamed {
                    machine: row.id,
                    vmid,
                    from_name: row.hostname.clone(),
                    to_name: renamed.hostname.clone(),
                    node: seen_on,
                });
                changed = Some(renamed);
            }
            match changed {
                Some(changed) => {
                    inner
                        .news
                        .tell(
                            &mut tx,
                            &MachineChanged {
                                machine: changed.view()?,
                            },
                        )
                        .await?
                }
                None => report.no_ops += 1,
            }
            tx.commit().await?;
        }
        Action::Miss => {
            let mut tx = inner.store.begin().await?;
            if let Some(missed) = store::miss(&mut tx, row.id, row.missed_cycles, at).await? {
                let cycles = u32::try_from(missed.missed_cycles).unwrap_or(u32::MAX);
                inner
                    .news
                    .tell(
                        &mut tx,
                        &MachineChanged {
                            machine: missed.view()?,
                        },
                    )
                    .await?;
                report.missed.push(Missed {
                    machine: row.id,
                    vmid,
                    hostname: row.hostname,
                    node,
                    missed_cycles: cycles,
                });
            }
            tx.commit().await?;
        }
        Action::GiveUp => {
            // The address first: if the row went first, nobody would release it.
            inner
                .bus
                .call::<ippool::Release>(&ippool::ReleaseRequest { machine: row.id })
                .key(Key::of(format!("gone-{}", row.id)))
                .await
                .map_err(MachineError::Fault)?;
            provisioner
                .forget_gpu(row.id)
                .await
                .map_err(MachineError::Fault)?;
            let mut tx = inner.store.begin().await?;
            if let Some(gone) = store::remove_idle(&mut tx, row.id).await? {
                inner
                    .news
                    .tell(
                        &mut tx,
                        &MachineDeleted {
                            machine: gone.view()?,
                        },
                    )
                    .await?;
                tracing::warn!(machine.id = %row.id, vmid, "machine {} is gone from the cluster, its row was removed", row.hostname);
                let cycles = u32::try_from(MISSES).unwrap_or(u32::MAX);
                report.deleted.push(Missed {
                    machine: row.id,
                    vmid,
                    hostname: row.hostname,
                    node,
                    missed_cycles: cycles,
                });
            }
            tx.commit().await?;
        }
    }
    Ok(())
}

/// Follows power states between reconciles, from the list of guests alone.
pub(crate) async fn watch(provisioner: &Provisioner) -> Result<(), MachineError> {
    let inner = provisioner.inner();
    let rows = store::all(&inner.store).await?;
    if rows.iter().all(|row| row.operation.is_some()) {
        return Ok(());
    }
    let view = provisioner
        .cluster()?
        .view(inner.config.watch_interval / 2)
        .await?;
    for row in rows {
        let (None, Some(vmid), Some(node)) = (row.operation, row.vmid()?, row.node.as_deref()) else {
            continue;
        };
        // Only what is certain: the same number on the same node under the same name. The rest is for the reconcile.
        let Some(guest) = view
            .guest(vmid)
            .filter(|guest| guest.node == node && guest.name.as_deref() == Some(&row.hostname))
        else {
            continue;
        };
        let before = row.status()?;
        let Ok(number) = Vmid::new(vmid) else { continue };
        if machine::seen(&guest.status) == before {
            continue;
        }
        let status = match power_state(provisioner, node, number).await {
            Ok(status) if status != before => status,
            Ok(_) => continue,
            Err(error) => {
                tracing::debug!(machine.id = %row.id, cause = %nimbus_errors::chain(&error), "could not ask for a power state");
                continue;
            }
        };
        let Ok(next) = machine::on(before, machine::Event::Seen(status)) else {
            continue;
        };
        let mut tx = inner.store.begin().await?;
        if let Some(changed) = store::set_seen(&mut tx, row.id, next, node, inner.clock.now()).await? {
            inner
                .news
                .tell(
                    &mut tx,
                    &MachineChanged {
                        machine: changed.view()?,
                    },
                )
                .await?;
        }
        tx.commit().await?;
    }
    inner.news.outbox.nudge();
    Ok(())
}

#[cfg(test)]
mod tests {
    use nimbus_model::{OperationId, TenantId, Timestamp, UserId};

    use super::*;

    fn row() -> MachineRow {
        MachineRow {
            id: MachineId::fresh(),
            owner: UserId::fresh(),
            tenant: TenantId::fresh(),
            hostname: "web-1".into(),
            tier: "small".into(),
            os: "debian-12".into(),
            status: "running".into(),
            vmid: Some(101),
            ip: None,
            node: Some("pve1".into()),
            key_name: None,
            ssh_pubkey: String::new(),
            tunnel_error: None,
            error_msg: None,
            operation: None,
            missed_cycles: 0,
            created_at: Timestamp::from_micros(0),
            updated_at: Timestamp::from_micros(0),
        }
    }

    fn ours(node: &str, name: &str, status: &str) -> Sight {
        Sight::Ours {
            node: node.into(),
            name: Some(name.into()),
            status: machine::seen(status),
        }
    }

    #[test]
    fn the_table_is_followed() {
        let follow = |node: &str, rename: Option<&str>, status: &str| Action::Follow {
            node: node.into(),
            rename: rename.map(|name| name.parse().unwrap()),
            status: machine::seen(status),
        };
        let missed = |n: i64| MachineRow {
            missed_cycles: n,
            ..row()
        };
        let failed = |missed_cycles: i64| MachineRow {
            status: "failed".into(),
            missed_cycles,
            ..row()
        };
        let still_failed = Action::Follow {
            node: "pve1".into(),
            rename: None,
            status: MachineStatus::Failed,
        };
        for (row, sight, want) in [
            (failed(0), ours("pve1", "web-1", "running"), Action::Nothing),
            (failed(1), ours("pve1", "web-1", "running"), still_failed),
            (row(), ours("pve1", "web-1", "running"), Action::Nothing),
            (
                row(),
                ours("pve2", "web-1", "running"),
                follow("pve2", None, "running"),
            ),
            (
                row(),
                ours("pve1", "web-2", "running"),
                follow("pve1", Some("web-2"), "running"),
            ),
            (row(), ours("pve1", "Not A Hostname", "running"), Action::Nothing),
            (
                row(),
                ours("pve1", "web-1", "stopped"),
                follow("pve1", None, "stopped"),
            ),
            (
                missed(2),
                ours("pve1", "web-1", "running"),
                follow("pve1", None, "running"),
            ),
            (row(), Sight::Absent, Action::Miss),
            (missed(1), Sight::Absent, Action::Miss),
            (missed(2), Sight::Absent, Action::GiveUp),
            (missed(2), Sight::Unreachable, Action::Nothing),
            (
                MachineRow {
                    operation: Some(OperationId::fresh()),
                    ..missed(2)
                },
                Sight::Absent,
                Action::Nothing,
            ),
            (
                MachineRow {
                    vmid: None,
                    ..missed(2)
                },
                Sight::Absent,
                Action::Nothing,
            ),
        ] {
            assert_eq!(plan(&row, &sight), want, "{sight:?}");
        }
    }
}
