//! The books: which address belongs to whom. Nothing here looks at the cluster.
//!
//! Each step reads a row, makes the new one with the rules of [`crate::state`], and writes it where the
//! row is still as it was read; the event that tells of it goes into the same transaction.

use nimbus_bus::CloudEvent;
use nimbus_model::{Clock, MachineId};
use nimbus_proto::event::AddressChanged;
use nimbus_proto::ippool::{Address, AddressSource, AddressStatus, PoolStatus};
use nimbus_service::Outbox;
use nimbus_store::{Store, Tx};

use crate::config::Network;
use crate::error::PoolError;
use crate::range::Range;
use crate::snapshot::Guest;
use crate::state::{Event, Row};

pub(crate) mod store;

/// How often a step is tried again when others change the row in between.
const RACES: usize = 8;

/// The books of one pool. Clones share.
#[derive(Clone)]
pub(crate) struct Pool {
    store: Store,
    outbox: Outbox,
    clock: Clock,
    network: Option<Network>,
}

/// An address that a machine has been promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) row: Row,
    /// Whether the promise was made just now; otherwise the machine had it before.
    pub(crate) fresh: bool,
}

/// What became of a promise that cannot be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PassedOver {
    /// The row has changed since; start again.
    Raced,
    /// The guest has the address, and the machine has another one.
    Next(Taken),
    /// The guest has the address, and the machine has none.
    Nothing,
}

impl Pool {
    pub(crate) fn new(store: Store, outbox: Outbox, clock: Clock, network: Option<Network>) -> Self {
        Self {
            store,
            outbox,
            clock,
            network,
        }
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The network that addresses are handed out of.
    pub(crate) fn network(&self) -> Result<Network, PoolError> {
        self.network.ok_or(PoolError::NotConfigured {
            missing: "IP_POOL_START, IP_POOL_END or GATEWAY_IP",
        })
    }

    fn range(&self) -> Option<Range> {
        self.network.map(|network| network.range)
    }

    /// Makes the rows fit the range: adds what is missing, deletes free ones outside, keeps others.
    pub(crate) async fn seed(&self) -> Result<(), PoolError> {
        let Some(range) = self.range() else { return Ok(()) };
        let mut tx = self.store.begin().await?;
        let added = store::add_range(&mut tx, range).await?;
        let dropped = store::drop_free_outside(&mut tx, range).await?;
        tx.commit().await?;
        if added + dropped > 0 {
            tracing::info!(
                pool.added = added,
                pool.dropped = dropped,
                "the pool is now {range}"
            );
        }
        Ok(())
    }

    /// The promise of `machine`, renewed if it has one, else the lowest free address.
    pub(crate) async fn take(&self, machine: MachineId, hostname: &str) -> Result<Taken, PoolError> {
        let range = self.network()?.range;
        for _ in 0..RACES {
            let mut tx = self.store.begin().await?;
            let taken = match store::find_machine(&mut tx, &self.store, machine).await? {
                Some(row) if row.status == AddressStatus::Allocated => {
                    return Ok(Taken { row, fresh: false });
                }
                Some(row) => {
                    let new = row.reserve(machine, hostname, self.clock.now())?;
                    self.change(&mut tx, &row, new)
                        .await
                        .map(|row| row.map(|row| Taken { row, fresh: false }))
                }
                None => match self.take_lowest(&mut tx, range, machine, hostname).await {
                    Ok(None) => return Err(PoolError::Exhausted { range }),
                    Ok(Some(row)) => Ok(Some(Taken { row, fresh: true })),
                    Err(error) => Err(error),
                },
            };
            match taken {
                Ok(Some(taken)) => {
                    self.commit(tx).await?;
                    return Ok(taken);
                }
                Ok(None) => tx.rollback().await?,
                // Two requests for one machine at once: the other one has its address now.
                Err(PoolError::Store { source }) if source.is_unique_violation() => tx.rollback().await?,
                Err(error) => return Err(error),
            }
        }
        Err(PoolError::Raced { machine })
    }

    async fn take_lowest(
        &self,
        tx: &mut Tx,
        range: Range,
        machine: MachineId,
        hostname: &str,
    ) -> Result<Option<Row>, PoolError> {
        let Some(row) = store::lowest_free(tx, &self.store, range).await? else {
            return Ok(None);
        };
        let new = row.reserve(machine, hostname, self.clock.now())?;
        // The row is locked by this transaction, so it is as it was read.
        self.change(tx, &row, new).await
    }

    /// Records that `guest` has the promised address. With `again`, promises `machine` the next one in
    /// the same transaction, so that nobody sees it without any.
    pub(crate) async fn pass_over(
        &self,
        promised: &Row,
        guest: &Guest,
        again: Option<(MachineId, &str)>,
    ) -> Result<PassedOver, PoolError> {
        let mut tx = self.store.begin().await?;
        let lost = promised.lose_to(guest, self.clock.now())?;
        if self.change(&mut tx, promised, lost).await?.is_none() {
            return Ok(PassedOver::Raced);
        }
        let next = match again {
            None => None,
            Some((machine, hostname)) => {
                self.take_lowest(&mut tx, self.network()?.range, machine, hostname)
                    .await?
            }
        };
        self.commit(tx).await?;
        tracing::warn!(ip = %promised.ip, vmid = guest.vmid, node = %guest.node, "{} is in use by guest {}", promised.ip, guest.vmid);
        Ok(next.map_or(PassedOver::Nothing, |row| {
            PassedOver::Next(Taken { row, fresh: true })
        }))
    }

    /// Takes a promise back if it is still the one that was made.
    pub(crate) async fn take_back(&self, promised: &Row) -> Result<(), PoolError> {
        let mut tx = self.store.begin().await?;
        let free = promised.give_back(Event::Release)?;
        if self.change(&mut tx, promised, free).await?.is_some() {
            self.commit(tx).await?;
        }
        Ok(())
    }

    /// Records that the VM `vmid` of `machine` uses `ip`. Saying it again is fine.
    pub(crate) async fn allocate(
        &self,
        machine: MachineId,
        ip: std::net::Ipv4Addr,
        vmid: u32,
    ) -> Result<(), PoolError> {
        for _ in 0..RACES {
            let mut tx = self.store.begin().await?;
            let row = store::find(&mut tx, &self.store, ip)
                .await?
                .ok_or(PoolError::NotTheirs { ip, machine })?;
            let theirs = row.machine == Some(machine);
            // The promise ran out, but a reconcile found the machine's VM with the address.
            let found =
                row.machine.is_none() && row.source == AddressSource::Adopted && row.vmid == Some(vmid);
            if !theirs && !found {
                return Err(PoolError::NotTheirs { ip, machine });
            }
            if let Some(used_by) = row.vmid.filter(|used_by| *used_by != vmid) {
                return Err(PoolError::OtherVm { ip, vmid, used_by });
            }
            let new = row.allocate(machine, vmid, self.clock.now())?;
            if new == row {
                return Ok(());
            }
            match self.change(&mut tx, &row, new).await {
                Ok(Some(_)) => return self.commit(tx).await,
                Ok(None) => tx.rollback().await?,
                Err(PoolError::Store { source }) if source.is_unique_violation() => {
                    return Err(PoolError::NotTheirs { ip, machine });
                }
                Err(error) => return Err(error),
            }
        }
        Err(PoolError::Raced { machine })
    }

    /// Frees what `machine` has; nothing is fine.
    pub(crate) async fn release(&self, machine: MachineId) -> Result<(), PoolError> {
        for _ in 0..RACES {
            let mut tx = self.store.begin().await?;
            let Some(row) = store::find_machine(&mut tx, &self.store, machine).await? else {
                return Ok(());
            };
            let free = row.give_back(Event::Release)?;
            if self.change(&mut tx, &row, free).await?.is_some() {
                return self.commit(tx).await;
            }
            tx.rollback().await?;
        }
        Err(PoolError::Raced { machine })
    }

    /// Every address, in numeric order.
    pub(crate) async fn list(&self) -> Result<Vec<Address>, PoolError> {
        Ok(self
            .rows()
            .await?
            .iter()
            .map(|row| row.view(self.range()))
            .collect())
    }

    pub(crate) async fn rows(&self) -> Result<Vec<Row>, PoolError> {
        Ok(store::list(&self.store).await?)
    }

    /// How full the range is.
    pub(crate) async fn status(&self) -> Result<PoolStatus, PoolError> {
        match self.range() {
            None => Ok(PoolStatus {
                total: 0,
                free: 0,
                reserved: 0,
                allocated: 0,
            }),
            Some(range) => Ok(store::status(&self.store, range).await?),
        }
    }

    /// Whether periodic work last begun longer than `gap` ago; if so, it begins now.
    pub(crate) async fn claim_reconcile(&self, gap: std::time::Duration) -> Result<bool, PoolError> {
        let now = self.clock.now();
        let mut tx = self.store.begin().await?;
        let claimed = store::claim_reconcile(&mut tx, now, now.before(gap)).await?;
        tx.commit().await?;
        Ok(claimed)
    }

    /// Writes many rows in one transaction; tells for each whether it was still as it was read.
    /// Only `loud` ones are told of by an event.
    pub(crate) async fn change_all(&self, changes: Vec<Change>) -> Result<Vec<bool>, PoolError> {
        let mut done = Vec::with_capacity(changes.len());
        let mut tx = self.store.begin().await?;
        for Change { old, new, loud } in changes {
            let changed = if loud {
                self.change(&mut tx, &old, new).await?.is_some()
            } else {
                store::save(&mut tx, &old, &new).await?
            };
            done.push(changed);
        }
        self.commit(tx).await?;
        Ok(done)
    }

    /// Writes `new` if the row is still `old`, with its event. A free address outside the range goes.
    async fn change(&self, tx: &mut Tx, old: &Row, new: Row) -> Result<Option<Row>, PoolError> {
        let stranded = !self.range().is_some_and(|range| range.contains(new.ip));
        let changed = if stranded && new.status == AddressStatus::Free {
            store::delete(tx, old).await?
        } else {
            store::save(tx, old, &new).await?
        };
        if !changed {
            return Ok(None);
        }
        let event = AddressChanged {
            address: new.view(self.range()),
        };
        self.outbox
            .push(tx, &CloudEvent::of(&event, "ippool", &self.clock))
            .await?;
        Ok(Some(Row {
            version: old.version + 1,
            ..new
        }))
    }

    async fn commit(&self, tx: Tx) -> Result<(), PoolError> {
        tx.commit().await?;
        self.outbox.nudge();
        Ok(())
    }
}

/// One row to write.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) old: Row,
    pub(crate) new: Row,
    pub(crate) loud: bool,
}

#[cfg(test)]
mod tests;
