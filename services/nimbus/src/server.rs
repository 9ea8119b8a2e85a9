//! The commands that run services: all of them, some of them, or all of them with a simulated cluster.

pub(crate) mod args;
pub(crate) mod boot;
pub(crate) mod demo;
pub(crate) mod dev;
pub(crate) mod listen;
pub(crate) mod process;
pub(crate) mod proxmox;
pub(crate) mod signals;
pub(crate) mod start;

use crate::problem::{Outcome, Problem};

/// A service of Nimbus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Service {
    /// The HTTP edge with the portal.
    Gateway,
    /// Users, sessions and tokens.
    Auth,
    /// Static addresses.
    Ippool,
    /// Machines.
    Provisioner,
}

impl Service {
    /// Every service.
    pub(crate) const ALL: [Self; 4] = [Self::Gateway, Self::Auth, Self::Ippool, Self::Provisioner];

    /// Its name on the bus.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Auth => "auth",
            Self::Ippool => "ippool",
            Self::Provisioner => "provisioner",
        }
    }

    /// What it may do on the bus.
    pub(crate) fn grants(self) -> Outcome<nimbus_bus::Grants> {
        nimbus_proto::grants::of(self.name())
            .ok_or_else(|| Problem::failed(format!("{} has no rights on the bus", self.name())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_is_known_to_the_bus_and_the_other_way_round() {
        let ours: Vec<&str> = Service::ALL.iter().map(|service| service.name()).collect();
        assert_eq!(ours, nimbus_proto::grants::SERVICES);
        for service in Service::ALL {
            assert!(service.grants().is_ok());
        }
    }
}
