//! A simulator of one's own, and a client for it.

use std::time::Duration;

use nimbus_proxmox::{
    Client, CloneSpec, ConfigPatch, PowerOp, ProxmoxConfig, ProxmoxError, TaskOutcome, TlsPolicy, Upid, Vmid,
};
use nimbus_pve_sim::{RunningSim, SimBuilder, Simulator};
use tokio::time::Instant;

pub(crate) const SECRET: &str = "0123456789abcdef";
/// First template of `pve1`: Ubuntu 24.04.
pub(crate) const TEMPLATE: u32 = 9000;
pub(crate) const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ+/b== me@example.org";

pub(crate) fn immediate() -> SimBuilder {
    Simulator::builder()
        .latency_scale(0.0)
        .token("root@pam!nimbus", SECRET.to_owned().into())
        .root_password("hunter2".to_owned().into())
}

pub(crate) async fn start(builder: SimBuilder) -> (RunningSim, Client) {
    let sim = builder.start("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let client = client(&sim);
    (sim, client)
}

pub(crate) fn config(sim: &RunningSim) -> ProxmoxConfig {
    let mut config = ProxmoxConfig::new(
        sim.url.parse().unwrap(),
        "root@pam!nimbus",
        SECRET.to_owned().into(),
    );
    config.task_poll = Duration::from_millis(2);
    if let Some(fingerprint) = &sim.fingerprint {
        config.tls = TlsPolicy::Fingerprint(fingerprint.clone());
    }
    config
}

pub(crate) fn client(sim: &RunningSim) -> Client {
    Client::new(config(sim)).unwrap()
}

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

pub(crate) fn vmid(number: u32) -> Vmid {
    Vmid::new(number).unwrap()
}

pub(crate) fn spec(newid: u32, name: &str) -> CloneSpec {
    CloneSpec {
        newid: vmid(newid),
        name: Some(name.to_owned()),
        description: None,
        target: None,
        full: true,
    }
}

pub(crate) async fn wait(client: &Client, upid: &Upid) -> Result<TaskOutcome, ProxmoxError> {
    client.wait_task(upid, soon()).await
}

/// A clone of the first template, off.
pub(crate) async fn cloned(client: &Client, newid: u32) -> Vmid {
    let upid = client
        .clone_vm("pve1", vmid(TEMPLATE), &spec(newid, "web"))
        .await
        .unwrap();
    wait(client, &upid).await.unwrap();
    vmid(newid)
}

/// A clone that is on, with an address.
pub(crate) async fn running(client: &Client, newid: u32) -> Vmid {
    let vm = cloned(client, newid).await;
    let patch = ConfigPatch::new().set("ipconfig0", "ip=10.77.0.60/24,gw=10.77.0.1");
    let upid = client.set_config("pve1", vm, &patch).await.unwrap().unwrap();
    wait(client, &upid).await.unwrap();
    let upid = client.power("pve1", vm, PowerOp::Start).await.unwrap();
    wait(client, &upid).await.unwrap();
    vm
}
