//! What a provision does, from clone to destroy.

use nimbus_proxmox::{
    Client, ClusterVm, ConfigPatch, DownloadSpec, GuestKind, PowerOp, TaskFilter, TaskOutcome, VmConfig,
    encode_sshkeys,
};
use nimbus_pve_sim::ForeignGuest;

use crate::support::*;

#[tokio::test]
async fn a_machine_from_clone_to_destroy() {
    let (sim, client) = start(immediate()).await;
    let id = client.next_vmid().await.unwrap();
    assert_eq!(id.get(), 100);
    let upid = client
        .clone_vm("pve1", vmid(TEMPLATE), &spec(100, "web-1"))
        .await
        .unwrap();
    assert_eq!(
        (upid.node(), upid.kind(), upid.id(), upid.user()),
        ("pve1", "qmclone", "9000", "root@pam!nimbus")
    );
    assert_eq!(wait(&client, &upid).await.unwrap(), TaskOutcome::Ok);
    let log = client.task_log(&upid, 3).await.unwrap();
    assert_eq!(log.last().unwrap().t, "TASK OK");
    assert_eq!(log.len(), 3);

    let template = client.vm_config("pve1", vmid(TEMPLATE)).await.unwrap();
    let fresh = client.vm_config("pve1", id).await.unwrap();
    assert!(template.is_template() && !fresh.is_template() && fresh.lock().is_none());
    assert_ne!(fresh.smbios_uuid().unwrap(), template.smbios_uuid().unwrap());
    assert_ne!(fresh.get("net0"), template.get("net0"));
    assert_eq!(fresh.get("scsi0"), Some("local-lvm:vm-100-disk-0,size=3584M"));
    assert_eq!(fresh.tags(), template.tags(), "a clone copies tags");

    let keys = encode_sshkeys(KEY);
    let patch = ConfigPatch::new()
        .set("ciuser", "ubuntu")
        .set("cipassword", "hunter2;a=b&c")
        .set("sshkeys", &keys)
        .set("ipconfig0", "ip=10.77.0.50/24,gw=10.77.0.1")
        .set("nameserver", "1.1.1.1 8.8.8.8")
        .set("searchdomain", "local")
        .set("cores", 2)
        .set("memory", 2048)
        .set("cpu", "x86-64-v3")
        .set("tags", "Nimbus;app nimbus")
        .set("description", "<!-- nimbus: tier=medium os=ubuntu-24.04 -->");
    let upid = client.set_config("pve1", id, &patch).await.unwrap().unwrap();
    wait(&client, &upid).await.unwrap();
    let config = client.vm_config("pve1", id).await.unwrap();
    assert_eq!(
        config.get("sshkeys"),
        Some(keys.as_str()),
        "comes back encoded once"
    );
    assert_eq!(config.get("cipassword"), Some("**********"));
    assert_eq!(
        (config.get("cores"), config.get("memory")),
        (Some("2"), Some("2048"))
    );
    assert_eq!(config.tags(), ["app", "nimbus"]);
    assert_eq!(
        config.get("description"),
        Some("<!-- nimbus: tier=medium os=ubuntu-24.04 -->\n")
    );
    assert_eq!(config.static_ip(), Some("10.77.0.50".parse().unwrap()));

    let upid = client
        .resize_disk("pve1", id, "scsi0", 30)
        .await
        .unwrap()
        .unwrap();
    wait(&client, &upid).await.unwrap();
    assert!(
        client
            .vm_config("pve1", id)
            .await
            .unwrap()
            .get("scsi0")
            .unwrap()
            .ends_with("size=30G")
    );

    let upid = client.power("pve1", id, PowerOp::Start).await.unwrap();
    wait(&client, &upid).await.unwrap();
    let current = client.vm_current("pve1", id).await.unwrap();
    assert!(current.is_running() && current.agent);
    assert_eq!(
        (current.name.as_deref(), current.maxmem),
        (Some("web-1"), Some(2048 << 20))
    );
    let interfaces = client.agent_interfaces("pve1", id).await.unwrap();
    let outside = interfaces.iter().filter(|i| !i.is_loopback());
    let ips: Vec<String> = outside
        .flat_map(|i| &i.addresses)
        .map(|a| a.ip.to_string())
        .collect();
    assert!(ips.contains(&"10.77.0.50".to_owned()), "{ips:?}");

    let pid = client
        .agent_exec("pve1", id, &["/bin/echo", "a b", "c;d=e"], None)
        .await
        .unwrap();
    let status = client.agent_exec_status("pve1", id, pid).await.unwrap();
    assert!(status.exited && status.exitcode == Some(0));
    assert_eq!(status.out_data.as_deref(), Some("a b c;d=e\n"));

    let upid = client.power("pve1", id, PowerOp::Stop).await.unwrap();
    wait(&client, &upid).await.unwrap();
    let upid = client.destroy("pve1", id).await.unwrap();
    wait(&client, &upid).await.unwrap();
    assert!(
        client
            .qemu_list("pve1")
            .await
            .unwrap()
            .iter()
            .all(|vm| vm.vmid != id)
    );
    let done = client
        .tasks(
            "pve1",
            &TaskFilter {
                vmid: Some(id),
                ..TaskFilter::default()
            },
        )
        .await
        .unwrap();
    let kinds: Vec<&str> = done.iter().map(|task| task.upid.kind()).collect();
    assert_eq!(kinds, ["qmdestroy", "qmstop", "qmstart", "resize", "qmconfig"]);
    assert!(done.iter().all(|task| task.status.as_deref() == Some("OK")));
    sim.shutdown().await;
}

#[tokio::test]
async fn the_inventory() {
    let (sim, client) = start(immediate()).await;
    assert!(client.version().await.unwrap().version.starts_with("9."));
    let nodes = client.nodes().await.unwrap();
    let gib = |n: Option<u64>| n.unwrap() >> 30;
    assert_eq!(
        nodes.iter().map(|n| gib(n.maxmem)).collect::<Vec<_>>(),
        [64, 32, 16]
    );
    assert_eq!(nodes.iter().map(|n| gib(n.mem)).collect::<Vec<_>>(), [20, 14, 13]);
    let status = client.cluster_status().await.unwrap();
    assert_eq!(
        status
            .iter()
            .filter(|row| row.kind == "node" && row.ip.is_some())
            .count(),
        3
    );
    assert_eq!(status[0].quorate, Some(true));

    let vms = client.cluster_vms().await.unwrap();
    let templates: Vec<&ClusterVm> = vms.iter().filter(|vm| vm.template == Some(true)).collect();
    assert_eq!(templates.len(), 12);
    assert!(
        templates
            .iter()
            .all(|vm| vm.tags.contains(&"nimbus-baked-v1".to_owned()) && vm.vmid.get() >= 9000)
    );
    let committed = |node: &str| {
        let real = vms
            .iter()
            .filter(|vm| vm.node == node && vm.template == Some(false));
        gib(Some(real.filter_map(|vm| vm.maxmem).sum()))
    };
    assert_eq!(
        [committed("pve1"), committed("pve2"), committed("pve3")],
        [24, 10, 8]
    );
    let storage = client.cluster_storage().await.unwrap();
    let lvm: Vec<(u64, u64)> = storage
        .iter()
        .filter(|s| s.storage == "local-lvm")
        .map(|s| (gib(s.maxdisk), gib(s.disk)))
        .collect();
    assert_eq!(lvm, [(800, 200), (400, 100), (400, 385)]);

    let container = vms.iter().find(|vm| vm.kind == GuestKind::Lxc).unwrap();
    let options = client.lxc_config(&container.node, container.vmid).await.unwrap();
    assert_eq!(
        VmConfig::lxc_ips(&options),
        ["10.77.0.11".parse::<std::net::IpAddr>().unwrap()]
    );
    assert_eq!(client.lxc_list(&container.node).await.unwrap().len(), 1);
    let content = client
        .storage_content("pve1", "local", Some("import"))
        .await
        .unwrap();
    assert_eq!(content.len(), 4);
    drop(sim);
}

#[tokio::test]
async fn a_template_from_an_image() {
    let (_sim, client) = start(immediate()).await;
    let image = DownloadSpec {
        url: "https://cloud.example.org/debian-13.qcow2".to_owned(),
        content: "import".to_owned(),
        filename: "debian-13.qcow2".to_owned(),
        checksum: None,
    };
    let upid = client.download_url("pve2", "local", &image).await.unwrap();
    wait(&client, &upid).await.unwrap();
    let options = ConfigPatch::new()
        .set("name", "debian-13-template")
        .set("memory", 1024)
        .set("scsi0", "local-lvm:0,import-from=local:import/debian-13.qcow2")
        .set("ide2", "local-lvm:cloudinit")
        .set("net0", "virtio,bridge=vmbr0")
        .set("agent", "enabled=1")
        .set("boot", "order=scsi0");
    let upid = client.create_vm("pve2", vmid(9100), &options).await.unwrap();
    wait(&client, &upid).await.unwrap();
    let config = client.vm_config("pve2", vmid(9100)).await.unwrap();
    assert_eq!(config.get("scsi0"), Some("local-lvm:vm-9100-disk-0,size=3584M"));
    assert!(config.get("net0").unwrap().starts_with("virtio=BC:24:11:"));
    let upid = client.make_template("pve2", vmid(9100)).await.unwrap().unwrap();
    wait(&client, &upid).await.unwrap();
    let config = client.vm_config("pve2", vmid(9100)).await.unwrap();
    assert!(config.is_template());
    assert_eq!(config.get("scsi0"), Some("local-lvm:base-9100-disk-0,size=3584M"));
}

#[tokio::test]
async fn changes_of_a_running_machine_wait_for_its_reboot() {
    let (_sim, client) = start(immediate()).await;
    let vm = running(&client, 100).await;
    let patch = ConfigPatch::new().set("memory", 4096).set("tags", "b;a");
    let upid = client.set_config("pve1", vm, &patch).await.unwrap().unwrap();
    wait(&client, &upid).await.unwrap();
    assert_eq!(
        client.vm_config("pve1", vm).await.unwrap().get("memory"),
        Some("4096"),
        "pending values are shown"
    );
    assert_eq!(client.vm_current("pve1", vm).await.unwrap().maxmem, Some(1 << 30));
    assert_eq!(
        client.vm_current("pve1", vm).await.unwrap().tags,
        ["a", "b"],
        "tags act at once"
    );
    let upid = client.power("pve1", vm, PowerOp::Reboot).await.unwrap();
    wait(&client, &upid).await.unwrap();
    assert_eq!(client.vm_current("pve1", vm).await.unwrap().maxmem, Some(4 << 30));
}

#[tokio::test]
async fn fifty_clones_at_once() {
    let (sim, client) = start(immediate().latency_scale(0.01)).await;
    let mut jobs = tokio::task::JoinSet::new();
    for number in 0..50 {
        let client: Client = client.clone();
        jobs.spawn(async move {
            let upid = client
                .clone_vm(
                    "pve1",
                    vmid(TEMPLATE),
                    &spec(200 + number, &format!("vm-{number}")),
                )
                .await
                .unwrap();
            wait(&client, &upid).await.unwrap();
        });
    }
    while let Some(job) = jobs.join_next().await {
        job.unwrap();
    }
    let ours = client
        .qemu_list("pve1")
        .await
        .unwrap()
        .into_iter()
        .filter(|vm| vm.vmid.get() < 9000 && vm.vmid.get() >= 200);
    assert_eq!(ours.count(), 50);
    assert!(sim.state()["task_ms_total"].as_u64().unwrap() > 50 * 200);
}

#[tokio::test]
async fn a_new_machine_is_in_the_resources_without_its_name_for_a_while() {
    let (sim, client) = start(immediate().latency_scale(1.0).manual_clock()).await;
    let before = client.cluster_vms().await.unwrap();
    assert!(before.iter().all(|vm| vm.name.is_some() && vm.template.is_some()));
    sim.add_guest(ForeignGuest {
        vmid: Some(500),
        ..ForeignGuest::default()
    })
    .unwrap();
    let row = client
        .cluster_vms()
        .await
        .unwrap()
        .into_iter()
        .find(|vm| vm.vmid.get() == 500)
        .unwrap();
    assert_eq!(
        (row.status.as_str(), row.name, row.template, row.maxmem),
        ("unknown", None, None, None)
    );
    let live = client.vm_current("pve1", vmid(500)).await.unwrap();
    assert!(
        live.is_running() && live.name.is_some(),
        "the machine itself is live"
    );
    sim.pass(std::time::Duration::from_secs(10));
    let row = client
        .cluster_vms()
        .await
        .unwrap()
        .into_iter()
        .find(|vm| vm.vmid.get() == 500)
        .unwrap();
    assert_eq!((row.status.as_str(), row.template), ("running", Some(false)));
}

#[tokio::test]
async fn https_with_a_pinned_certificate() {
    let (sim, client) = start(immediate().tls(true)).await;
    assert!(client.version().await.is_ok());
    let mut other = config(&sim);
    other.tls = nimbus_proxmox::TlsPolicy::Fingerprint("ab".repeat(32));
    let error = Client::new(other).unwrap().version().await.unwrap_err();
    assert!(
        matches!(error, nimbus_proxmox::ProxmoxError::Untrusted { .. }),
        "{error:?}"
    );
    assert!(!error.is_transient());
    let mut system = config(&sim);
    system.tls = nimbus_proxmox::TlsPolicy::System;
    let error = Client::new(system).unwrap().version().await.unwrap_err();
    assert!(
        matches!(error, nimbus_proxmox::ProxmoxError::Untrusted { .. }),
        "nobody signed it: {error:?}"
    );
    let mut insecure = config(&sim);
    insecure.tls = nimbus_proxmox::TlsPolicy::Insecure;
    assert!(Client::new(insecure).unwrap().version().await.is_ok());
}

#[tokio::test]
async fn the_state_file_survives_a_restart() {
    let path = std::env::temp_dir().join(format!("nimbus-pve-sim-{}.json", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let (sim, client) = start(immediate().state_file(&path)).await;
    let vm = running(&client, 100).await;
    let uuid = client
        .vm_config("pve1", vm)
        .await
        .unwrap()
        .smbios_uuid()
        .unwrap()
        .to_owned();
    sim.shutdown().await;
    let (sim, client) = start(immediate().state_file(&path)).await;
    assert_eq!(
        client.vm_config("pve1", vm).await.unwrap().smbios_uuid(),
        Some(uuid.as_str())
    );
    assert!(client.vm_current("pve1", vm).await.unwrap().is_running());
    sim.shutdown().await;
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test]
async fn the_same_seed_makes_the_same_cluster() {
    let mut seen = Vec::new();
    for seed in [7, 7, 8] {
        let (_sim, client) = start(immediate().seed(seed)).await;
        let vm = cloned(&client, 100).await;
        seen.push(
            client
                .vm_config("pve1", vm)
                .await
                .unwrap()
                .smbios_uuid()
                .unwrap()
                .to_owned(),
        );
    }
    assert_eq!(seen[0], seen[1]);
    assert_ne!(seen[0], seen[2]);
}
