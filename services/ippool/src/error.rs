//! What can go wrong with an address.

use std::net::Ipv4Addr;

use nimbus_bus::BusError;
use nimbus_errors::{Code, Coded};
use nimbus_model::MachineId;
use nimbus_store::StoreError;

use crate::range::Range;
use crate::snapshot::SnapshotError;
use crate::state::IllegalTransition;

/// A failure of the pool.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PoolError {
    /// Settings are missing.
    #[error("there is no address pool yet: {missing} is not set")]
    NotConfigured {
        /// Which.
        missing: &'static str,
    },
    /// No address is left.
    #[error("no free address in {range}")]
    Exhausted {
        /// Of which pool.
        range: Range,
    },
    /// Every address that was tried is in use.
    #[error("{} are free in the books but in use in the cluster", List(.tried))]
    Contested {
        /// Which were tried.
        tried: Vec<Ipv4Addr>,
    },
    /// The cluster could not be looked at completely.
    #[error("could not look at the whole cluster")]
    SnapshotPartial {
        /// Why.
        #[source]
        source: SnapshotError,
    },
    /// The address is not this machine's.
    #[error("{ip} is not an address of {machine}")]
    NotTheirs {
        /// The address.
        ip: Ipv4Addr,
        /// The machine.
        machine: MachineId,
    },
    /// The address is in use by another VM than the one that was named.
    #[error("{ip} is in use by VM {used_by}, not by VM {vmid}")]
    OtherVm {
        /// The address.
        ip: Ipv4Addr,
        /// Who was named.
        vmid: u32,
        /// Who uses it.
        used_by: u32,
    },
    /// Others were faster, again and again.
    #[error("the address of {machine} was changed by others each time it was tried")]
    Raced {
        /// Whose address.
        machine: MachineId,
    },
    /// Another reconcile did not end in time.
    #[error("another reconcile is running")]
    Busy,
    /// A reconcile took longer than it may.
    #[error("looking at the cluster and the books took longer than {limit_s} s")]
    TooSlow {
        /// The limit.
        limit_s: u64,
    },
    /// A step that the rules do not have: a bug.
    #[error("the books of the pool are wrong")]
    Illegal {
        /// Which.
        #[source]
        source: IllegalTransition,
    },
    /// The bus failed.
    #[error("the bus failed")]
    Bus {
        /// How.
        #[source]
        source: BusError,
    },
    /// The database failed.
    #[error("the database failed")]
    Store {
        /// How.
        #[source]
        source: StoreError,
    },
}

struct List<'a>(&'a [Ipv4Addr]);

impl std::fmt::Display for List<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, ip) in self.0.iter().enumerate() {
            write!(f, "{}{ip}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl From<StoreError> for PoolError {
    fn from(source: StoreError) -> Self {
        Self::Store { source }
    }
}

impl From<BusError> for PoolError {
    fn from(source: BusError) -> Self {
        Self::Bus { source }
    }
}

impl From<IllegalTransition> for PoolError {
    fn from(source: IllegalTransition) -> Self {
        Self::Illegal { source }
    }
}

impl From<SnapshotError> for PoolError {
    fn from(source: SnapshotError) -> Self {
        Self::SnapshotPartial { source }
    }
}

impl Coded for PoolError {
    fn code(&self) -> Code {
        match self {
            Self::NotConfigured { .. } => Code::ServiceNotConfigured,
            Self::Exhausted { .. } => Code::IppoolExhausted,
            Self::Contested { .. } => Code::IppoolContested,
            Self::SnapshotPartial { .. } => Code::IppoolSnapshotPartial,
            Self::NotTheirs { .. } | Self::OtherVm { .. } => Code::OpConflict,
            Self::Raced { .. } | Self::Busy => Code::ServiceStorageBusy,
            Self::TooSlow { .. } => Code::ServiceTimeout,
            Self::Illegal { .. } => Code::ServiceInternal,
            Self::Bus { source } => source.code(),
            Self::Store { source } => source.code(),
        }
    }

    fn detail(&self) -> Option<serde_json::Value> {
        match self {
            Self::NotConfigured { missing } => Some(serde_json::json!({ "missing": missing })),
            Self::Contested { tried } => Some(serde_json::json!({ "tried": tried })),
            Self::SnapshotPartial { source } => {
                Some(serde_json::json!({ "node": source.node(), "cause": nimbus_errors::chain(source) }))
            }
            _ => None,
        }
    }
}
