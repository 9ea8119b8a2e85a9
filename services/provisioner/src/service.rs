//! What the parts of the provisioner share.

use std::sync::Arc;

use nimbus_bus::{Bus, CloudEvent, Event};
use nimbus_errors::Fault;
use nimbus_model::Clock;
use nimbus_proto::node::MissingSetting;
use nimbus_proxmox::Client;
use nimbus_saga::SagaStore;
use nimbus_service::Outbox;
use nimbus_store::{Sealer, Store, Tx};
use tokio::sync::Mutex;

use crate::cluster::Cluster;
use crate::config::ProvisionerConfig;
use crate::error::MachineError;
use crate::pages::Pages;
use crate::placement::Rules;

/// The cluster, if this installation has been told of one.
#[derive(Clone)]
pub struct ClusterAccess {
    /// The client; none while settings are missing.
    pub client: Option<Client>,
    /// Which.
    pub missing: Vec<MissingSetting>,
}

/// The provisioner. Clones share.
#[derive(Clone)]
pub(crate) struct Provisioner(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) bus: Bus,
    pub(crate) clock: Clock,
    pub(crate) sealer: Sealer,
    pub(crate) config: ProvisionerConfig,
    pub(crate) rules: Rules,
    pub(crate) news: News,
    pub(crate) sagas: SagaStore,
    pub(crate) access: ClusterAccess,
    pub(crate) cluster: Option<Cluster>,
    /// Two placements of this process do not choose from the same figures. Never held across a remote call.
    pub(crate) placing: Mutex<()>,
    /// Lists of machines that were read lately.
    pub(crate) pages: Pages,
}

impl Provisioner {
    pub(crate) fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    /// The client.
    pub(crate) fn client(&self) -> Result<&Client, MachineError> {
        self.0.access.client.as_ref().ok_or_else(|| self.not_configured())
    }

    /// The shared look at the cluster.
    pub(crate) fn cluster(&self) -> Result<&Cluster, MachineError> {
        self.0.cluster.as_ref().ok_or_else(|| self.not_configured())
    }

    fn not_configured(&self) -> MachineError {
        let names: Vec<&str> = self
            .0
            .access
            .missing
            .iter()
            .map(|missing| missing.setting.as_str())
            .collect();
        MachineError::NotConfigured {
            missing: names.join(", "),
        }
    }
}

/// What tells others of changes. Clones share.
#[derive(Clone)]
pub(crate) struct News {
    pub(crate) outbox: Outbox,
    pub(crate) clock: Clock,
}

impl News {
    /// Writes an event beside the change it tells of.
    pub(crate) async fn tell<E: Event>(&self, tx: &mut Tx, event: &E) -> Result<(), MachineError> {
        let event = CloudEvent::of(event, "provisioner", &self.clock);
        Ok(self.outbox.push(tx, &event).await?)
    }
}

impl From<Fault> for MachineError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}
