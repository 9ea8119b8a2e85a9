//! Tenants with their bounds, secrets and volumes.

use nimbus_proto::Secret;
use nimbus_proto::workloads as w;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::at;
use super::shown::ResourcesView;
use super::spec::{ResourcesBody, milli};
use crate::envelope::Answer;
use crate::views::At;

/// A tenant to be made.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateTenantBody {
    /// Its id: 1 to 128 letters, digits, `_` and `-`, not beginning with `_`.
    #[schema(examples("demo"))]
    pub id: String,
}

/// A tenant that was made.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct TenantIdView {
    /// Its id.
    pub id: String,
}

/// The tenants that the caller may reach.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct TenantsView {
    /// Their ids, sorted.
    pub tenants: Vec<String>,
}

/// A tenant.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TenantView {
    /// Its id.
    pub id: String,
    /// When it was created.
    pub created_at: At,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// What it may use and uses.
    pub quota: TenantQuotaView,
    /// Which fields a create may set.
    pub policy: PolicyView,
}

/// Bounds on what a tenant's active sandboxes use together, and what they use.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct TenantQuotaView {
    /// The bounds.
    pub limit: AmountsView,
    /// What is used.
    pub used: AmountsView,
}

/// Sums over active sandboxes.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct AmountsView {
    /// What they use.
    #[serde(flatten)]
    pub resources: ResourcesView,
    /// How many there are.
    pub sandboxes: u32,
}

/// Fields that a create may set only where the policy allows it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicyView {
    /// `resources`.
    pub resources: bool,
    /// `ports`.
    pub ports: bool,
    /// `network.egress`.
    pub egress: bool,
    /// `mounts`.
    pub mounts: bool,
}

/// New bounds and policy of a tenant; what is left out stays.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigureTenantBody {
    /// New bounds on sums; all five.
    pub limit: Option<ResourcesBody>,
    /// New bound on the number of active sandboxes.
    pub sandboxes: Option<u32>,
    /// New policy.
    pub policy: Option<PolicyView>,
}

impl ConfigureTenantBody {
    /// `now` is in force and fills in what is left out.
    pub(crate) fn checked(self, now: w::Resources) -> Answer<w::Settings> {
        let limit = self.limit.map(|limit| -> Answer<w::Resources> {
            let cpu = limit.vcpus.map(|vcpus| milli(vcpus, "limit.vcpus")).transpose()?;
            Ok(w::Resources {
                cpu_milli: cpu.unwrap_or(now.cpu_milli),
                memory_bytes: limit.memory_bytes.unwrap_or(now.memory_bytes),
                disk_bytes: limit.disk_bytes.unwrap_or(now.disk_bytes),
                log_bytes: limit.log_bytes.unwrap_or(now.log_bytes),
                pids: limit.pids.unwrap_or(now.pids),
            })
        });
        Ok(w::Settings {
            limit: limit.transpose()?,
            sandboxes: self.sandboxes,
            policy: self.policy.map(|policy| w::Policy {
                resources: policy.resources,
                ports: policy.ports,
                egress: policy.egress,
                mounts: policy.mounts,
            }),
        })
    }
}

impl From<w::Tenant> for TenantView {
    fn from(tenant: w::Tenant) -> Self {
        let quota = tenant.quota;
        Self {
            id: tenant.id,
            created_at: at(tenant.created_at),
            deleting: tenant.deleting,
            quota: TenantQuotaView {
                limit: AmountsView {
                    resources: quota.limit.into(),
                    sandboxes: quota.sandboxes,
                },
                used: AmountsView {
                    resources: quota.used.into(),
                    sandboxes: quota.used_sandboxes,
                },
            },
            policy: PolicyView {
                resources: tenant.policy.resources,
                ports: tenant.policy.ports,
                egress: tenant.policy.egress,
                mounts: tenant.policy.mounts,
            },
        }
    }
}

/// A secret's value.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SecretBody {
    /// The value, at most 32 KiB. It is never shown.
    #[schema(value_type = String)]
    pub value: Secret,
}

/// A secret, without its value.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SecretView {
    /// Its name.
    pub name: String,
    /// Counts its values.
    pub version: u64,
    /// When it was first set.
    pub created_at: At,
    /// When it was set last.
    pub updated_at: At,
}

impl From<w::SecretInfo> for SecretView {
    fn from(secret: w::SecretInfo) -> Self {
        Self {
            name: secret.name,
            version: secret.version,
            created_at: at(secret.created_at),
            updated_at: at(secret.updated_at),
        }
    }
}

/// A volume.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VolumeView {
    /// Its name.
    pub name: String,
    /// The host its data is on; null until it is first mounted.
    pub host: Option<String>,
    /// When it was created.
    pub created_at: At,
    /// Active sandboxes that mount it.
    pub used_by: Vec<String>,
}

impl From<w::Volume> for VolumeView {
    fn from(volume: w::Volume) -> Self {
        Self {
            name: volume.name,
            host: volume.host,
            created_at: at(volume.created_at),
            used_by: volume.used_by,
        }
    }
}
