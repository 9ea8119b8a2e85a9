//! Tenants' volumes: volumes of the engine with our labels, mounted when the container is made, or
//! into a warm container from outside.

use nimbus_engine::{Labels, Volume};
use nimbus_proto::agent::LaunchRequest;

use crate::agent::Agent;
use crate::error::AgentError;
use crate::plan::Plan;
use crate::slot::{Place, TENANT_LABEL};

/// Whether a claimed container can be given what this plan mounts.
pub(crate) fn can_be_warm(_agent: &Agent, plan: &Plan) -> bool {
    !plan.has_mounts()
}

/// A volume's name on the engine. A tenant's id has no dot, so no two volumes share a name.
fn engine_name(agent: &Agent, tenant: &str, name: &str) -> String {
    format!("nimbus.{}.{tenant}.{name}", agent.slots.installation())
}

/// The tenant's volume, made if it is new.
///
/// # Errors
/// The engine's.
pub(crate) async fn ensure(agent: &Agent, tenant: &str, name: &str) -> Result<Volume, AgentError> {
    let mut labels: Labels = agent.slots.labels();
    labels.insert(TENANT_LABEL.to_owned(), tenant.to_owned());
    let volume = agent
        .engine
        .ensure_volume(&engine_name(agent, tenant, name), &labels)
        .await?;
    open_to_users(&volume);
    Ok(volume)
}

/// Removes the tenant's volume; one that is not there is fine.
///
/// # Errors
/// The engine's, `op.conflict` while a sandbox uses it.
pub(crate) async fn remove(agent: &Agent, tenant: &str, name: &str) -> Result<(), AgentError> {
    Ok(agent
        .engine
        .remove_volume(&engine_name(agent, tenant, name))
        .await?)
}

/// A new volume belongs to root, and sandboxes run as anybody. The engine's own directory above keeps
/// others on the host out.
fn open_to_users(volume: &Volume) {
    use std::os::unix::fs::PermissionsExt;
    let everybody = std::fs::Permissions::from_mode(0o777);
    if let Err(error) = std::fs::set_permissions(&volume.mountpoint, everybody) {
        tracing::debug!(volume = volume.name, cause = %error, "a volume keeps its mode; only its owner can write to it");
    }
}

/// Mounts what the plan says into a container that runs.
///
/// # Errors
/// When this host does not allow it.
pub(crate) async fn mount(
    _agent: &Agent,
    _sandbox: &str,
    _place: &Place,
    _plan: &Plan,
    _request: Option<&LaunchRequest>,
) -> Result<(), AgentError> {
    Err(AgentError::Invalid("not on this host".to_owned()))
}
