//! Settings of the provisioner.

use std::time::Duration;

use nimbus_config::{Csv, csv, seconds_or_text};
use url::Url;

/// Machines: placement, cloud-init and pacing. Flag over environment over file over default.
#[derive(Clone, Debug, clap::Args)]
pub struct ProvisionerConfig {
    /// Nodes that take no machines, separated by commas.
    #[arg(id = "excluded_nodes", long = "excluded-nodes", env = "NIMBUS_EXCLUDED_NODES", value_parser = csv, default_value = "")]
    pub excluded_nodes: Csv,

    /// CPU model of machines. Proxmox' own default lacks AVX2; hosts older than Haswell need `x86-64-v2-AES`.
    #[arg(
        id = "vm_cpu_type",
        long = "vm-cpu-type",
        env = "VM_CPU_TYPE",
        default_value = "x86-64-v3"
    )]
    pub cpu_type: String,

    /// DNS servers of machines, separated by blanks.
    #[arg(
        id = "nameserver",
        long = "nameserver",
        env = "NAMESERVER",
        default_value = "1.1.1.1 8.8.8.8"
    )]
    pub nameserver: String,

    /// DNS search domain of machines.
    #[arg(
        id = "search_domain",
        long = "search-domain",
        env = "SEARCH_DOMAIN",
        default_value = "local"
    )]
    pub search_domain: String,

    /// Storage whose free space limits placement; set to the empty text, placement does not look at disks.
    #[arg(
        id = "vm_disk_storage",
        long = "vm-disk-storage",
        env = "NIMBUS_VM_DISK_STORAGE",
        default_value = "local-lvm"
    )]
    pub disk_storage: String,

    /// Memory that stays free on every node, MiB.
    #[arg(
        id = "mem_buffer_mib",
        long = "mem-buffer-mib",
        env = "NIMBUS_MEM_BUFFER_MIB",
        default_value_t = 256
    )]
    pub mem_buffer_mib: u64,

    /// How much of its vCPUs a new machine is expected to load, 0.25 to 1.
    #[arg(
        id = "cpu_load_factor",
        long = "cpu-load-factor",
        env = "NIMBUS_CPU_LOAD_FACTOR",
        default_value_t = 0.5
    )]
    pub cpu_load_factor: f64,

    /// vCPUs that may be promised per CPU thread.
    #[arg(
        id = "cpu_ratio",
        long = "cpu-ratio",
        env = "NIMBUS_CPU_RATIO",
        default_value_t = 4.0
    )]
    pub cpu_ratio: f64,

    /// Memory that may be promised per byte of memory.
    #[arg(
        id = "ram_ratio",
        long = "ram-ratio",
        env = "NIMBUS_RAM_RATIO",
        default_value_t = 1.0
    )]
    pub ram_ratio: f64,

    /// Disk that may be promised per byte of disk.
    #[arg(
        id = "disk_ratio",
        long = "disk-ratio",
        env = "NIMBUS_DISK_RATIO",
        default_value_t = 1.0
    )]
    pub disk_ratio: f64,

    /// Machines that a member may have; administrators have no limit.
    #[arg(
        id = "member_max_vms",
        long = "member-max-vms",
        env = "NIMBUS_MEMBER_MAX_VMS",
        default_value_t = 5
    )]
    pub member_max_machines: u32,

    /// How long to wait for the guest to report its address. After that the machine is kept, with a warning.
    #[arg(id = "ready_timeout", long = "ready-timeout", env = "NIMBUS_READY_TIMEOUT_SECONDS", default_value = "300s", value_parser = seconds_or_text)]
    pub ready_timeout: Duration,

    /// Pause between two questions to the guest agent. Proxmox itself holds an answer of "not yet" back for three seconds.
    #[arg(id = "ready_poll", long = "ready-poll", env = "NIMBUS_READY_POLL", default_value = "500ms", value_parser = seconds_or_text)]
    pub ready_poll: Duration,

    /// Whether a guest without an agent counts as ready once its SSH port answers with a banner.
    /// Needs a network path from this process to the machines.
    #[arg(id = "ready_ssh_probe", long = "ready-ssh-probe", env = "NIMBUS_READY_SSH_PROBE", default_value_t = true, action = clap::ArgAction::Set)]
    pub ready_ssh_probe: bool,

    /// How long one task of Proxmox may take.
    #[arg(id = "task_timeout", long = "task-timeout", env = "NIMBUS_TASK_TIMEOUT_SECONDS", default_value = "900s", value_parser = seconds_or_text)]
    pub task_timeout: Duration,

    /// Pause between two comparisons of the machines with the cluster; 0 turns them off.
    #[arg(id = "machine_reconcile", long = "machine-reconcile-interval", env = "NIMBUS_MACHINE_RECONCILE_SECONDS", default_value = "60s", value_parser = seconds_or_text)]
    pub reconcile_interval: Duration,

    /// Pause between two looks at the power state of the machines.
    #[arg(id = "machine_watch", long = "machine-watch-interval", env = "NIMBUS_MACHINE_WATCH_SECONDS", default_value = "5s", value_parser = seconds_or_text)]
    pub watch_interval: Duration,

    /// How long preparing a machine for GPUs may take, once it is ready. After that it is kept, with a warning.
    #[arg(id = "gpu_inject_timeout", long = "gpu-inject-timeout", env = "NIMBUS_GPU_INJECT_TIMEOUT_SECONDS", default_value = "60s", value_parser = seconds_or_text)]
    pub gpu_inject_timeout: Duration,

    /// Pause between two looks for machines that are to be told of GPUs later than when they were made; 0 turns them off.
    #[arg(id = "gpu_prepare", long = "gpu-prepare-interval", env = "NIMBUS_GPU_PREPARE_SECONDS", default_value = "10s", value_parser = seconds_or_text)]
    pub gpu_prepare_interval: Duration,

    /// Where machines reach the portal; told by the process, which has it from the same setting as the edge.
    #[arg(skip)]
    pub public_url: Option<Url>,
}
