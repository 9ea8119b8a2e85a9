//! Credentials for the bus, for those on other hosts: GPU workers and agents.

use std::sync::Arc;

use nimbus_bus::{Authority, service_user};
use nimbus_proto::auth::{BusUser, MintedCredential, Secret};
use nimbus_proto::grants;
use secrecy::ExposeSecret;

/// What credentials for the bus are made with; empty where the bus is not reached from other hosts.
#[derive(Clone, Debug, Default)]
pub struct BusMint {
    /// The keys of the bus.
    pub authority: Option<Arc<Authority>>,
    /// Where other hosts reach it, such as `tls://nimbus.example.org:4222`.
    pub public_url: Option<String>,
    /// Certificate authority of its server, PEM; `None` for those that everybody trusts.
    pub ca_pem: Option<String>,
}

impl BusMint {
    /// Whether there are credentials for others at all.
    pub(crate) fn can(&self) -> bool {
        self.authority.is_some() && self.public_url.is_some()
    }

    /// A credential with exactly what the user needs; none where the bus is not reached from other hosts.
    pub(crate) fn mint(&self, user: &BusUser) -> Option<MintedCredential> {
        let (authority, url) = (self.authority.as_ref()?, self.public_url.clone()?);
        let user = match user {
            BusUser::GpuWorker(name) => service_user(&format!("gpu-worker-{name}"), &grants::worker(name)),
            BusUser::SandboxAgent(host) => {
                service_user(&format!("sandbox-agent-{host}"), &grants::agent(host))
            }
        };
        tracing::info!(bus.user = %user.name, "made a credential for {} on the bus", user.name);
        Some(MintedCredential {
            url,
            ca_pem: self.ca_pem.clone(),
            credentials: Secret::new(authority.mint(&user).text().expose_secret()),
        })
    }
}
