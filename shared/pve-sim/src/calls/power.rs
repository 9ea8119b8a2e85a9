//! Power of machines.

use serde_json::Value;

use super::Call;
use crate::error::ApiError;
use crate::work::Work;

/// Refuses what PVE refuses before it starts a worker: the machine must be on.
fn running(call: &Call<'_>) -> Result<u32, ApiError> {
    let guest = call.machine()?;
    match guest.boot {
        Some(_) => Ok(guest.vmid),
        None => Err(ApiError::died(format!("VM {} not running", guest.vmid))),
    }
}

pub(super) fn start(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let (vmid, agent) = (call.machine()?.vmid, call.agent);
    Ok(call.spawn_for_machine("qmstart", Work::Start { vmid, agent }))
}

pub(super) fn stop(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let vmid = call.machine()?.vmid;
    Ok(call.spawn_for_machine("qmstop", Work::Stop { vmid }))
}

pub(super) fn shutdown(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let vmid = call.machine()?.vmid;
    Ok(call.spawn_for_machine("qmshutdown", Work::Shutdown { vmid }))
}

pub(super) fn reboot(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let (vmid, agent) = (running(call)?, call.agent);
    Ok(call.spawn_for_machine("qmreboot", Work::Reboot { vmid, agent }))
}

pub(super) fn reset(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let (vmid, agent) = (running(call)?, call.agent);
    Ok(call.spawn_for_machine("qmreset", Work::Reset { vmid, agent }))
}

pub(super) fn suspend(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let vmid = running(call)?;
    Ok(call.spawn_for_machine("qmpause", Work::Suspend { vmid }))
}

pub(super) fn resume(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let vmid = running(call)?;
    Ok(call.spawn_for_machine("qmresume", Work::Resume { vmid }))
}
