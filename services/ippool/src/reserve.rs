//! Handing out an address: promise it in the books, check it in the cluster, give it or try the next.
//!
//! ```text
//!  books: lowest free, or what the machine has ──▶ cluster: who has it?
//!     ▲                                              ├─ nobody ─────────▶ the lease
//!     │                                              ├─ its own VM ─────▶ the lease
//!     └── the next one (the guest keeps this one) ◀──┼─ another guest   (three times, then contested)
//!                                                    └─ cannot tell ────▶ promise taken back, partial
//! ```

use std::time::Duration;

use nimbus_model::MachineId;
use nimbus_proto::ippool::{AddressSource, AddressStatus, ConfirmRequest, Lease};

use crate::config::Network;
use crate::error::PoolError;
use crate::pool::{PassedOver, Pool, Taken};
use crate::snapshot::{Cluster, Guest};
use crate::state::Row;

/// Addresses that are tried before the pool is called contested.
const TRIES: usize = 3;
/// How often the whole is begun again because others changed the row.
const RACES: usize = 8;
/// Over how many milliseconds those spread who give way at the same time.
const SPREAD_MS: u128 = 400;

/// Gives `machine` an address that nobody in the cluster has.
///
/// Repeats give the same lease and renew the promise, so a saga that takes longer than the
/// reservation's time keeps its address by asking again. A repeat whose address another guest has
/// taken in between gets the next one.
pub(crate) async fn reserve(
    pool: &Pool,
    cluster: Option<&Cluster>,
    machine: MachineId,
    hostname: &str,
) -> Result<Lease, PoolError> {
    let network = pool.network()?;
    let cluster = cluster.ok_or(PoolError::NotConfigured {
        missing: "PROXMOX_HOST",
    })?;
    let lease = |row: &Row| lease(network, row);
    let mut tried = Vec::new();
    let mut races = 0;
    let mut taken = pool.take(machine, hostname).await?;
    loop {
        let holder = match verify(cluster, &taken, hostname).await {
            Ok(None) => return Ok(lease(&taken.row)),
            Ok(Some(holder)) => holder,
            Err(error) => {
                // A promise from before stays: the machine's saga may be using it, and gives it back itself.
                if taken.fresh {
                    pool.take_back(&taken.row).await?;
                }
                return Err(error);
            }
        };
        let again = (tried.len() + 1 < TRIES).then_some((machine, hostname));
        taken = match pool.pass_over(&taken.row, &holder, again).await? {
            PassedOver::Next(next) => {
                tried.push(taken.row.ip);
                next
            }
            PassedOver::Nothing => {
                tried.push(taken.row.ip);
                return Err(if again.is_some() {
                    PoolError::Exhausted { range: network.range }
                } else {
                    PoolError::Contested { tried }
                });
            }
            PassedOver::Raced if races < RACES => {
                races += 1;
                pool.take(machine, hostname).await?
            }
            PassedOver::Raced => return Err(PoolError::Raced { machine }),
        };
    }
}

/// Looks at an address again after the machine's VM was told it, and gives another one when another
/// guest has it too. The caller tells its VM that one and asks again.
///
/// Whoever sees another guest gives way, also when the other does the same: one of two that write and
/// then look sees the other for certain, but which one is chance.
pub(crate) async fn confirm(
    pool: &Pool,
    cluster: Option<&Cluster>,
    request: ConfirmRequest,
) -> Result<Lease, PoolError> {
    let ConfirmRequest {
        machine,
        hostname,
        ip,
        vmid,
    } = request;
    let network = pool.network()?;
    let looking = cluster.ok_or(PoolError::NotConfigured {
        missing: "PROXMOX_HOST",
    })?;
    for _ in 0..RACES {
        let taken = pool.take(machine, &hostname).await?;
        if taken.fresh || taken.row.ip != ip {
            // An earlier look moved it on, or the promise ran out: what it has now is what the VM shall be told.
            return reserve(pool, cluster, machine, &hostname).await;
        }
        if taken.row.status == AddressStatus::Allocated && taken.row.source == AddressSource::Local {
            return Ok(lease(network, &taken.row));
        }
        let snapshot = looking.fresh().await?;
        let seen = snapshot
            .held
            .get(&ip)
            .and_then(|guests| guests.iter().find(|guest| guest.vmid != vmid));
        let Some(other) = seen.cloned().or_else(|| booked(&taken.row, vmid)) else {
            return Ok(lease(network, &taken.row));
        };
        // The other installation may be choosing at this moment, too, and would choose the same next one.
        let spread = u64::try_from(machine.uuid().as_u128() % SPREAD_MS).unwrap_or_default();
        tokio::time::sleep(Duration::from_millis(spread)).await;
        match pool
            .pass_over(&taken.row, &other, Some((machine, &hostname)))
            .await?
        {
            PassedOver::Next(_) => return reserve(pool, cluster, machine, &hostname).await,
            PassedOver::Nothing => return Err(PoolError::Exhausted { range: network.range }),
            // A reconcile has found the other one, too.
            PassedOver::Raced => {}
        }
    }
    Err(PoolError::Raced { machine })
}

/// Another guest that a reconcile found with the address in the meantime; it may be gone again, but the
/// books have it.
fn booked(row: &Row, vmid: u32) -> Option<Guest> {
    Some(Guest {
        vmid: row.vmid.filter(|booked| *booked != vmid)?,
        name: row.hostname.clone(),
        node: row.node.clone().unwrap_or_default(),
    })
}

fn lease(network: Network, row: &Row) -> Lease {
    Lease {
        ip: row.ip,
        prefix: network.prefix,
        gateway: network.gateway,
    }
}

/// The guest that keeps the machine from its address.
async fn verify(cluster: &Cluster, taken: &Taken, hostname: &str) -> Result<Option<Guest>, PoolError> {
    // In use according to the books: the holder is the machine's own VM, or a conflict for a person.
    if taken.row.status == AddressStatus::Allocated {
        return Ok(None);
    }
    let holder = cluster.holder(taken.row.ip).await?;
    // The machine's VM may be there already when the request is a repeat. Its name tells: hostnames
    // are unique, and a VM that was made between two requests for one machine is hardly a stranger's.
    let own = |guest: &Guest| !taken.fresh && guest.name.as_deref() == Some(hostname);
    Ok(holder.filter(|guest| !own(guest)))
}

#[cfg(test)]
mod tests;
