//! The calls.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;

use crate::config::ProxmoxConfig;
use crate::encode;
use crate::error::ProxmoxError;
use crate::lenient;
use crate::pace::Pace;
use crate::request::{CloneSpec, ConfigPatch, DownloadSpec, PowerOp};
use crate::transport::{Call, Transport};
use crate::types::{
    ClusterStatusEntry, ClusterVm, ExecStatus, GuestInterface, GuestListEntry, Node, StorageContent,
    StorageResource, Version, VmConfig, VmCurrent,
};
use crate::upid::Upid;
use crate::vmid::Vmid;

/// A client of one cluster. Cloning it is cheap and shares the connections.
///
/// Every call can fail with [`ProxmoxError::Unauthorized`], [`ProxmoxError::Forbidden`],
/// [`ProxmoxError::Unreachable`], [`ProxmoxError::NodeUnreachable`], [`ProxmoxError::Timeout`],
/// [`ProxmoxError::Garbage`] and [`ProxmoxError::Rejected`]; calls on a guest also with
/// [`ProxmoxError::NotFound`], and changes with [`ProxmoxError::Locked`] and [`ProxmoxError::Unquorate`].
/// Dropping the future of a call abandons the answer, not the work.
#[derive(Clone)]
pub struct Client {
    pub(crate) transport: Arc<Transport>,
    pub(crate) task_poll: Duration,
    pub(crate) pace: Pace,
    pub(crate) poll_timeout: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Prepares a client; nothing is sent yet.
    ///
    /// # Errors
    /// [`ProxmoxError::Config`] if the address, token, certificate file or fingerprint cannot be used.
    pub fn new(config: ProxmoxConfig) -> Result<Self, ProxmoxError> {
        Ok(Self {
            transport: Arc::new(Transport::new(&config)?),
            task_poll: config.task_poll.max(Duration::from_millis(1)),
            pace: Pace::default(),
            // A poll that hangs must not cost the whole deadline of a task.
            poll_timeout: config.request_timeout.min(Duration::from_secs(10)),
        })
    }

    pub(crate) async fn get<T: serde::de::DeserializeOwned>(
        &self,
        template: &'static str,
        segments: &[&str],
    ) -> Result<T, ProxmoxError> {
        self.transport
            .send(Call::new(Method::GET, template, segments))
            .await
    }

    /// The release of the node that answers.
    pub async fn version(&self) -> Result<Version, ProxmoxError> {
        self.get("/version", &[]).await
    }

    /// All nodes, offline ones too.
    pub async fn nodes(&self) -> Result<Vec<Node>, ProxmoxError> {
        self.get("/nodes", &[]).await
    }

    /// The cluster and its nodes with their addresses.
    pub async fn cluster_status(&self) -> Result<Vec<ClusterStatusEntry>, ProxmoxError> {
        self.get("/cluster/status", &[]).await
    }

    /// All guests, templates and containers included, up to 10 s old.
    pub async fn cluster_vms(&self) -> Result<Vec<ClusterVm>, ProxmoxError> {
        self.transport
            .send(Call::new(Method::GET, "/cluster/resources", &[]).with("type", "vm"))
            .await
    }

    /// All storages, one row per node.
    pub async fn cluster_storage(&self) -> Result<Vec<StorageResource>, ProxmoxError> {
        self.transport
            .send(Call::new(Method::GET, "/cluster/resources", &[]).with("type", "storage"))
            .await
    }

    /// A VMID that was free a moment ago; nothing is reserved.
    pub async fn next_vmid(&self) -> Result<Vmid, ProxmoxError> {
        self.get("/cluster/nextid", &[]).await
    }

    /// The virtual machines of a node.
    pub async fn qemu_list(&self, node: &str) -> Result<Vec<GuestListEntry>, ProxmoxError> {
        self.get("/nodes/{node}/qemu", &[node]).await
    }

    /// The containers of a node.
    pub async fn lxc_list(&self, node: &str) -> Result<Vec<GuestListEntry>, ProxmoxError> {
        self.get("/nodes/{node}/lxc", &[node]).await
    }

    /// The options of a machine, pending changes included.
    pub async fn vm_config(&self, node: &str, vmid: Vmid) -> Result<VmConfig, ProxmoxError> {
        self.get("/nodes/{node}/qemu/{vmid}/config", &[node, &vmid.to_string()])
            .await
    }

    /// The options of a container as texts.
    pub async fn lxc_config(&self, node: &str, vmid: Vmid) -> Result<BTreeMap<String, String>, ProxmoxError> {
        let config: VmConfig = self
            .get("/nodes/{node}/lxc/{vmid}/config", &[node, &vmid.to_string()])
            .await?;
        Ok(config.0)
    }

    /// The live state of a machine.
    pub async fn vm_current(&self, node: &str, vmid: Vmid) -> Result<VmCurrent, ProxmoxError> {
        self.get(
            "/nodes/{node}/qemu/{vmid}/status/current",
            &[node, &vmid.to_string()],
        )
        .await
    }

    /// Starts to clone `template` of `node`.
    ///
    /// # Errors
    /// [`ProxmoxError::AlreadyExists`], from here or from the task, when `newid` is taken.
    pub async fn clone_vm(&self, node: &str, template: Vmid, spec: &CloneSpec) -> Result<Upid, ProxmoxError> {
        let call = Call::new(
            Method::POST,
            "/nodes/{node}/qemu/{vmid}/clone",
            &[node, &template.to_string()],
        )
        .with("newid", spec.newid)
        .with_some("name", spec.name.as_deref())
        .with_some(
            "description",
            spec.description.as_deref().filter(|text| !text.is_empty()),
        )
        .with_some("target", spec.target.as_deref())
        .with("full", u8::from(spec.full));
        self.transport.send(call).await
    }

    /// Starts to change options. `None` when PVE did it at once.
    pub async fn set_config(
        &self,
        node: &str,
        vmid: Vmid,
        patch: &ConfigPatch,
    ) -> Result<Option<Upid>, ProxmoxError> {
        let call = Call::new(
            Method::POST,
            "/nodes/{node}/qemu/{vmid}/config",
            &[node, &vmid.to_string()],
        );
        self.transport.send(call.with_all(patch.pairs())).await
    }

    /// Starts to grow a disk (for instance `scsi0`) to `size_gib`. The same size is fine, a smaller one
    /// fails the task. `None` when PVE did it at once.
    pub async fn resize_disk(
        &self,
        node: &str,
        vmid: Vmid,
        disk: &str,
        size_gib: u32,
    ) -> Result<Option<Upid>, ProxmoxError> {
        let call = Call::new(
            Method::PUT,
            "/nodes/{node}/qemu/{vmid}/resize",
            &[node, &vmid.to_string()],
        )
        .with("disk", disk)
        .with("size", format_args!("{size_gib}G"));
        self.transport.send(call).await
    }

    /// Starts a power operation.
    ///
    /// # Errors
    /// [`ProxmoxError::AlreadyRunning`] and [`ProxmoxError::NotRunning`], from here or from the task.
    pub async fn power(&self, node: &str, vmid: Vmid, op: PowerOp) -> Result<Upid, ProxmoxError> {
        let template = match op {
            PowerOp::Start => "/nodes/{node}/qemu/{vmid}/status/start",
            PowerOp::Stop => "/nodes/{node}/qemu/{vmid}/status/stop",
            PowerOp::Shutdown => "/nodes/{node}/qemu/{vmid}/status/shutdown",
            PowerOp::Reboot => "/nodes/{node}/qemu/{vmid}/status/reboot",
        };
        self.transport
            .send(Call::new(Method::POST, template, &[node, &vmid.to_string()]))
            .await
    }

    /// Starts to remove a machine that is off, with its disks and its entries in jobs.
    pub async fn destroy(&self, node: &str, vmid: Vmid) -> Result<Upid, ProxmoxError> {
        let call = Call::new(
            Method::DELETE,
            "/nodes/{node}/qemu/{vmid}",
            &[node, &vmid.to_string()],
        )
        .with("purge", 1)
        .with("destroy-unreferenced-disks", 1);
        self.transport.send(call).await
    }

    /// Starts to create a machine from options.
    pub async fn create_vm(
        &self,
        node: &str,
        vmid: Vmid,
        options: &ConfigPatch,
    ) -> Result<Upid, ProxmoxError> {
        let call = Call::new(Method::POST, "/nodes/{node}/qemu", &[node]).with("vmid", vmid);
        self.transport.send(call.with_all(options.pairs())).await
    }

    /// Starts to turn a machine into a template. `None` when PVE did it at once.
    pub async fn make_template(&self, node: &str, vmid: Vmid) -> Result<Option<Upid>, ProxmoxError> {
        let call = Call::new(
            Method::POST,
            "/nodes/{node}/qemu/{vmid}/template",
            &[node, &vmid.to_string()],
        );
        self.transport.send(call).await
    }

    /// The interfaces the guest agent reports.
    ///
    /// # Errors
    /// [`ProxmoxError::AgentNotReady`] until the guest runs the agent (PVE takes 3 s to say so);
    /// [`ProxmoxError::NotRunning`] when the machine is off.
    pub async fn agent_interfaces(
        &self,
        node: &str,
        vmid: Vmid,
    ) -> Result<Vec<GuestInterface>, ProxmoxError> {
        #[derive(Deserialize)]
        struct Answer {
            result: Vec<GuestInterface>,
        }
        let template = "/nodes/{node}/qemu/{vmid}/agent/network-get-interfaces";
        Ok(self
            .get::<Answer>(template, &[node, &vmid.to_string()])
            .await?
            .result)
    }

    /// Starts a command in the guest, without a shell; answers its process id.
    ///
    /// # Errors
    /// As [`Self::agent_interfaces`].
    pub async fn agent_exec(
        &self,
        node: &str,
        vmid: Vmid,
        command: &[&str],
        input: Option<&str>,
    ) -> Result<u64, ProxmoxError> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(deserialize_with = "lenient::u64")]
            pid: u64,
        }
        let call = Call::new(
            Method::POST,
            "/nodes/{node}/qemu/{vmid}/agent/exec",
            &[node, &vmid.to_string()],
        )
        .with_all(
            command
                .iter()
                .map(|word| ("command".to_owned(), (*word).to_owned()))
                .collect(),
        )
        .with_some("input-data", input);
        Ok(self.transport.send::<Answer>(call).await?.pid)
    }

    /// How a command in the guest is doing.
    ///
    /// # Errors
    /// As [`Self::agent_interfaces`].
    pub async fn agent_exec_status(
        &self,
        node: &str,
        vmid: Vmid,
        pid: u64,
    ) -> Result<ExecStatus, ProxmoxError> {
        let template = "/nodes/{node}/qemu/{vmid}/agent/exec-status";
        let call = Call::new(Method::GET, template, &[node, &vmid.to_string()]).with("pid", pid);
        self.transport.send(call).await
    }

    /// The volumes of a storage, of one kind (`images`, `iso`, `import`, …) or all.
    pub async fn storage_content(
        &self,
        node: &str,
        storage: &str,
        content: Option<&str>,
    ) -> Result<Vec<StorageContent>, ProxmoxError> {
        let call = Call::new(
            Method::GET,
            "/nodes/{node}/storage/{storage}/content",
            &[node, storage],
        );
        self.transport.send(call.with_some("content", content)).await
    }

    /// Starts to fetch a file onto a storage; PVE does not overwrite.
    pub async fn download_url(
        &self,
        node: &str,
        storage: &str,
        spec: &DownloadSpec,
    ) -> Result<Upid, ProxmoxError> {
        let (algorithm, digest) = spec
            .checksum
            .as_ref()
            .map(|(a, d)| (a.as_str(), d.as_str()))
            .unzip();
        let call = Call::new(
            Method::POST,
            "/nodes/{node}/storage/{storage}/download-url",
            &[node, storage],
        )
        .with("url", &spec.url)
        .with("content", &spec.content)
        .with("filename", &spec.filename)
        .with_some("checksum-algorithm", algorithm)
        .with_some("checksum", digest);
        self.transport.send(call).await
    }

    /// The value of the `sshkeys` option for these keys; see [`encode::encode_sshkeys`].
    #[must_use]
    pub fn sshkeys(keys: &str) -> String {
        encode::encode_sshkeys(keys)
    }
}
