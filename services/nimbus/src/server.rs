//! The commands that run services: all of them, some of them, or all of them with a simulated cluster.

pub(crate) mod args;
pub(crate) mod boot;
pub(crate) mod demo;
pub(crate) mod dev;
pub(crate) mod discovery;
pub(crate) mod listen;
pub(crate) mod process;
pub(crate) mod proxmox;
pub(crate) mod signals;
pub(crate) mod start;

use nimbus_bus::{User, service_user};
use nimbus_model::Hostname;

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
    /// Sandboxes, services and sessions.
    Workloads,
    /// The queue of GPU jobs, and the inference endpoint.
    GpuScheduler,
    /// What runs sandboxes on this host.
    SandboxAgent,
}

impl Service {
    /// Every service.
    pub(crate) const ALL: [Self; 7] = [
        Self::Gateway,
        Self::Auth,
        Self::Ippool,
        Self::Provisioner,
        Self::Workloads,
        Self::GpuScheduler,
        Self::SandboxAgent,
    ];

    /// Its name on the bus.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Auth => "auth",
            Self::Ippool => "ippool",
            Self::Provisioner => "provisioner",
            Self::Workloads => "workloads",
            Self::GpuScheduler => "gpu-scheduler",
            Self::SandboxAgent => "sandbox-agent",
        }
    }

    /// Whether it keeps tables in the database.
    pub(crate) fn has_tables(self) -> bool {
        !matches!(self, Self::Gateway | Self::SandboxAgent)
    }

    /// Who it is on the bus and what it may do there. There is an agent per host, and each is somebody else.
    pub(crate) fn user(self, host: &Hostname) -> Outcome<User> {
        if self == Self::SandboxAgent {
            let name = format!("{}-{host}", self.name());
            return Ok(service_user(&name, &nimbus_proto::grants::agent(host)));
        }
        let grants = nimbus_proto::grants::of(self.name())
            .ok_or_else(|| Problem::failed(format!("{} has no rights on the bus", self.name())))?;
        Ok(service_user(self.name(), &grants))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_is_known_to_the_bus_and_the_other_way_round() {
        let host: Hostname = "host-a".parse().expect("a name");
        let ours: Vec<&str> = Service::ALL
            .iter()
            .filter(|service| **service != Service::SandboxAgent)
            .map(|service| service.name())
            .collect();
        assert_eq!(ours, nimbus_proto::grants::SERVICES);
        for service in Service::ALL {
            assert!(service.user(&host).is_ok());
        }
    }
}
