//! Commands in a guest, through its agent.

use nimbus_proxmox::ProxmoxError;
use tokio::time::sleep;

use super::{Spot, Vm};
use crate::error::MachineError;

/// How a script in a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScriptEnd {
    /// Its exit code; none when a signal ended it.
    pub(crate) code: Option<i64>,
    /// What it wrote to standard error.
    pub(crate) said: String,
}

impl Vm<'_> {
    /// Whether the guest's agent answers now, as far as can be told without waiting for it.
    pub(crate) async fn agent_answers(&self, spot: &Spot) -> bool {
        match self.client.agent_interfaces(&spot.node, spot.vmid).await {
            Err(ProxmoxError::NotRunning { .. }) => false,
            Err(error) => !error.is_transient(),
            Ok(_) => true,
        }
    }

    /// Runs a shell script in the guest as root and waits for its end; the caller limits the time.
    ///
    /// It travels as the shell's standard input: nothing of it shows in a list of processes. Proxmox takes
    /// 64 KiB of ASCII (its own encoding of it fails on anything else). A script has to stand being run
    /// twice: an answer that was lost makes it run again.
    pub(crate) async fn run_script(&self, spot: &Spot, script: &str) -> Result<ScriptEnd, MachineError> {
        let doing = || MachineError::proxmox(format!("running a script in VM {}", spot.vmid));
        // Also that a secret is not told to a stranger that has the number by now.
        let (mut spot, _) = self.must_be_ours(spot).await?;
        let pid = loop {
            let started = self
                .client
                .agent_exec(&spot.node, spot.vmid, &["/bin/sh"], Some(script))
                .await;
            match started {
                Ok(pid) => break pid,
                Err(ProxmoxError::NotFound { .. }) => (spot, _) = self.must_be_ours(&spot).await?,
                Err(error) if error.is_transient() => {}
                Err(error) => return Err(doing()(error)),
            }
            sleep(self.config.ready_poll).await;
        };
        loop {
            match self.client.agent_exec_status(&spot.node, spot.vmid, pid).await {
                Ok(status) if status.exited => {
                    return Ok(ScriptEnd {
                        code: status.exitcode,
                        said: status.err_data.unwrap_or_default(),
                    });
                }
                Ok(_) => {}
                Err(error) if error.is_transient() => {}
                Err(error) => return Err(doing()(error)),
            }
            sleep(self.config.ready_poll).await;
        }
    }
}
