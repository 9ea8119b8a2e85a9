//! Waiting until a guest can be reached.

use std::net::Ipv4Addr;
use std::time::Duration;

use nimbus_proxmox::ProxmoxError;
use tokio::time::{Instant, sleep};

use super::{Spot, Vm};
use crate::error::MachineError;

/// How long the agent has the word alone before the SSH port is tried.
const SSH_AFTER: Duration = Duration::from_secs(30);
const SSH_DIAL: Duration = Duration::from_secs(2);

impl Vm<'_> {
    /// Waits until the guest reports its address. `Some` is a warning: the VM runs, but did not report in time.
    pub(crate) async fn wait_ready(&self, spot: &Spot, ip: Ipv4Addr) -> Result<Option<String>, MachineError> {
        let began = Instant::now();
        let deadline = began + self.config.ready_timeout;
        let mut spot = spot.clone();
        loop {
            let last = match self.client.agent_interfaces(&spot.node, spot.vmid).await {
                Ok(interfaces) => {
                    let addresses: Vec<_> = interfaces
                        .iter()
                        .filter(|interface| !interface.is_loopback())
                        .flat_map(|interface| interface.addresses.iter().map(|address| address.ip))
                        .collect();
                    if addresses.contains(&ip.into()) {
                        return Ok(None);
                    }
                    if addresses.is_empty() {
                        "the guest agent reports no address yet".to_owned()
                    } else {
                        format!("the guest agent reports {addresses:?}, expected {ip}")
                    }
                }
                // Moved to another node, or gone.
                Err(error @ ProxmoxError::NotFound { .. }) => {
                    (spot, _) = self.must_be_ours(&spot).await?;
                    nimbus_errors::chain(&error)
                }
                Err(error @ ProxmoxError::Unauthorized) => {
                    return Err(MachineError::proxmox("asking the guest agent")(error));
                }
                // Waiting for a privilege that is missing would end in the same warning, minutes later.
                Err(ProxmoxError::Forbidden { message }) => {
                    return Ok(Some(format!("the guest agent may not be asked: {message}")));
                }
                Err(error) => nimbus_errors::chain(&error),
            };
            if self.config.ready_ssh_probe && began.elapsed() >= SSH_AFTER && ssh_banner(ip).await {
                return Ok(None);
            }
            if Instant::now() >= deadline {
                let seconds = self.config.ready_timeout.as_secs();
                return Ok(Some(format!("not verified reachable within {seconds} s: {last}")));
            }
            sleep(self.config.ready_poll).await;
        }
    }
}

/// Whether something that speaks SSH answers (RFC 4253, section 4.2: a line that starts with `SSH-`).
async fn ssh_banner(ip: Ipv4Addr) -> bool {
    use tokio::io::AsyncReadExt;
    let dial = async {
        let mut stream = tokio::net::TcpStream::connect((ip, 22)).await.ok()?;
        let mut banner = [0u8; 4];
        stream.read_exact(&mut banner).await.ok()?;
        Some(banner == *b"SSH-")
    };
    matches!(tokio::time::timeout(SSH_DIAL, dial).await, Ok(Some(true)))
}
