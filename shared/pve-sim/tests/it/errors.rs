//! Every refusal that the client tells apart, as the simulator words it.

use nimbus_proxmox::{
    Client, CloneSpec, ConfigPatch, PowerOp, ProxmoxError as E, TaskOutcome, Upid, encode_sshkeys,
};
use nimbus_pve_sim::ForeignGuest;

use crate::support::*;

async fn failed(client: &Client, upid: Upid) -> E {
    wait(client, &upid).await.unwrap_err()
}

fn text(error: &E) -> String {
    error.to_string()
}

#[tokio::test]
async fn guests_that_are_not_there() {
    let (_sim, client) = start(immediate()).await;
    let none = vmid(4711);
    for error in [
        client.vm_config("pve1", none).await.unwrap_err(),
        client.vm_current("pve1", none).await.unwrap_err(),
        client.lxc_config("pve1", none).await.unwrap_err(),
        client.power("pve1", none, PowerOp::Start).await.unwrap_err(),
        client.destroy("pve1", none).await.unwrap_err(),
        client.clone_vm("pve1", none, &spec(100, "x")).await.unwrap_err(),
        client.agent_interfaces("pve1", none).await.unwrap_err(),
        // A machine of another node is not there either.
        client.vm_config("pve2", vmid(TEMPLATE)).await.unwrap_err(),
    ] {
        assert!(matches!(error, E::NotFound { .. }), "{error}");
    }
    let unknown = client.vm_config("pve9", none).await.unwrap_err();
    assert!(
        matches!(unknown, E::Rejected { status: 500, .. })
            && text(&unknown).contains("hostname lookup 'pve9' failed")
    );
}

#[tokio::test]
async fn numbers_that_are_taken() {
    let (sim, client) = start(immediate()).await;
    cloned(&client, 100).await;
    let here = client
        .clone_vm("pve1", vmid(TEMPLATE), &spec(100, "x"))
        .await
        .unwrap_err();
    assert!(matches!(here, E::AlreadyExists { .. }), "{here}");
    sim.add_guest(ForeignGuest {
        vmid: Some(101),
        node: Some("pve2".to_owned()),
        ..ForeignGuest::default()
    })
    .unwrap();
    let upid = client
        .clone_vm("pve1", vmid(TEMPLATE), &spec(101, "x"))
        .await
        .unwrap();
    let elsewhere = failed(&client, upid).await;
    assert!(
        matches!(elsewhere, E::AlreadyExists { .. }) && text(&elsewhere).contains("File exists"),
        "{elsewhere}"
    );
    let created = client
        .create_vm("pve3", vmid(101), &ConfigPatch::new().set("name", "x"))
        .await
        .unwrap_err();
    assert!(matches!(created, E::AlreadyExists { .. }), "{created}");
}

#[tokio::test]
async fn two_clones_that_want_one_number() {
    let (sim, client) = start(immediate().latency_scale(1.0).manual_clock()).await;
    let clone = async |name: &str| client.clone_vm("pve1", vmid(TEMPLATE), &spec(100, name)).await;
    // Neither worker has started when both calls are answered.
    let (first, second) = (clone("a").await.unwrap(), clone("b").await.unwrap());
    sim.pass(std::time::Duration::from_secs(60));
    wait(&client, &first).await.unwrap();
    let error = wait(&client, &second).await.unwrap_err();
    assert!(matches!(error, E::AlreadyExists { .. }), "{error}");
    assert_eq!(
        client.vm_config("pve1", vmid(100)).await.unwrap().name(),
        Some("a")
    );
}

#[tokio::test]
async fn jobs_on_one_machine_wait_for_each_other() {
    let (sim, client) = start(immediate().latency_scale(1.0).manual_clock()).await;
    let clone = client
        .clone_vm("pve1", vmid(TEMPLATE), &spec(100, "a"))
        .await
        .unwrap();
    sim.pass(std::time::Duration::from_secs(60));
    wait(&client, &clone).await.unwrap();
    let patch = ConfigPatch::new().set("cores", 2);
    let config = client
        .set_config("pve1", vmid(100), &patch)
        .await
        .unwrap()
        .unwrap();
    let started = client.power("pve1", vmid(100), PowerOp::Start).await.unwrap();
    sim.pass(std::time::Duration::from_millis(1000));
    assert_eq!(
        client.task_status(&config).await.unwrap().exitstatus.as_deref(),
        Some("OK")
    );
    assert_eq!(client.task_status(&started).await.unwrap().status, "running");
    sim.pass(std::time::Duration::from_secs(5));
    assert_eq!(wait(&client, &started).await.unwrap(), TaskOutcome::Ok);
    assert_eq!(
        client.vm_current("pve1", vmid(100)).await.unwrap().cpus,
        Some(2.0)
    );
}

#[tokio::test]
async fn no_quorum() {
    let (sim, client) = start(immediate()).await;
    sim.set_online("pve2", false).unwrap();
    sim.set_online("pve3", false).unwrap();
    assert!(client.cluster_vms().await.is_ok(), "reading goes on");
    let error = client
        .clone_vm("pve1", vmid(TEMPLATE), &spec(100, "a"))
        .await
        .unwrap_err();
    assert!(
        matches!(error, E::Unquorate { .. }) && error.is_transient(),
        "{error}"
    );
}

#[tokio::test]
async fn locks() {
    let (sim, client) = start(immediate()).await;
    let vm = cloned(&client, 100).await;
    sim.set_lock(100, Some("backup")).unwrap();
    let patch = ConfigPatch::new().set("cores", 2);
    let config = client.set_config("pve1", vm, &patch).await.unwrap_err();
    let clone = client.clone_vm("pve1", vm, &spec(101, "x")).await.unwrap_err();
    let started = client.power("pve1", vm, PowerOp::Start).await.unwrap();
    let resized = client
        .resize_disk("pve1", vm, "scsi0", 10)
        .await
        .unwrap()
        .unwrap();
    let destroyed = client.destroy("pve1", vm).await.unwrap();
    for error in [
        config,
        clone,
        failed(&client, started).await,
        failed(&client, resized).await,
        failed(&client, destroyed).await,
    ] {
        assert!(
            matches!(error, E::Locked { .. }) && error.is_transient(),
            "{error}"
        );
    }
    sim.set_lock(100, None).unwrap();
    assert!(client.set_config("pve1", vm, &patch).await.is_ok());
}

#[tokio::test]
async fn a_clone_is_locked_until_it_is_whole() {
    let (sim, client) = start(immediate().latency_scale(1.0).manual_clock()).await;
    let upid = client
        .clone_vm("pve1", vmid(TEMPLATE), &spec(100, "x"))
        .await
        .unwrap();
    let before = client.vm_config("pve1", vmid(100)).await.unwrap_err();
    assert!(
        matches!(before, E::NotFound { .. }),
        "the config appears when the worker has started: {before}"
    );
    sim.pass(std::time::Duration::from_secs(1));
    let config = client.vm_config("pve1", vmid(100)).await.unwrap();
    assert_eq!(config.lock(), Some("clone"));
    let early = client
        .set_config("pve1", vmid(100), &ConfigPatch::new().set("cores", 2))
        .await
        .unwrap_err();
    assert!(matches!(early, E::Locked { .. }), "{early}");
    sim.pass(std::time::Duration::from_secs(30));
    wait(&client, &upid).await.unwrap();
    assert_eq!(client.vm_config("pve1", vmid(100)).await.unwrap().lock(), None);
}

#[tokio::test]
async fn parameters() {
    let (_sim, client) = start(immediate()).await;
    let vm = cloned(&client, 100).await;
    for (key, value, field, says) in [
        (
            "sshkeys",
            KEY,
            "sshkeys",
            "invalid format - invalid urlencoded string",
        ),
        (
            "cores",
            "many",
            "cores",
            "type check ('integer') failed - got 'many'",
        ),
        (
            "onboot",
            "yes",
            "onboot",
            "type check ('boolean') failed - got 'yes'",
        ),
        ("tags", "a/b", "tags", "invalid format"),
        ("ipconfig0", "ip=10.0.0.1", "ipconfig0", "invalid format"),
        (
            "name",
            "under_score",
            "name",
            "does not look like a valid DNS name",
        ),
        (
            "ostype",
            "beos",
            "ostype",
            "does not have a value in the enumeration",
        ),
        ("colour", "red", "colour", "property is not defined in schema"),
        ("delete", "colour", "delete", "unknown option 'colour'"),
        (
            "scsi1",
            "local:8",
            "storage",
            "storage 'local' does not support vm images",
        ),
    ] {
        let error = client
            .set_config("pve1", vm, &ConfigPatch::new().set(key, value))
            .await
            .unwrap_err();
        let E::Rejected {
            status: 400, errors, ..
        } = &error
        else {
            panic!("{key}: {error}")
        };
        assert!(errors[field].contains(says), "{key}: {error}");
    }
    for (patch, says) in [
        (ConfigPatch::new(), "no options specified"),
        (
            ConfigPatch::new().set("sshkeys", encode_sshkeys("not a key")),
            "SSH public key validation error",
        ),
        (
            ConfigPatch::new().set("cores", 2).set("digest", "0".repeat(40)),
            "checksum mismatch",
        ),
        (
            ConfigPatch::new().set("ide0", "nowhere:cloudinit"),
            "storage 'nowhere' does not exist",
        ),
        (
            ConfigPatch::new().set("scsi1", "/etc/shadow"),
            "Only root can pass arbitrary filesystem paths",
        ),
    ] {
        let error = client.set_config("pve1", vm, &patch).await.unwrap_err();
        assert!(
            matches!(&error, E::Rejected { status: 500, .. }) && text(&error).contains(says),
            "{error}"
        );
    }
    // Refused by the worker.
    for (patch, says) in [
        (
            ConfigPatch::new().set("boot", "order=scsi7"),
            "invalid bootorder: device 'scsi7' does not exist",
        ),
        (
            ConfigPatch::new().set("ide0", "local-lvm:cloudinit"),
            "already exists in volume group",
        ),
    ] {
        let upid = client.set_config("pve1", vm, &patch).await.unwrap().unwrap();
        let error = failed(&client, upid).await;
        assert!(
            matches!(&error, E::TaskFailed { .. }) && text(&error).contains(says),
            "{error}"
        );
        let E::TaskFailed { log, .. } = &error else {
            unreachable!("matched above")
        };
        assert!(
            log.iter().any(|line| line.contains("TASK ERROR")),
            "the log comes along: {log:?}"
        );
    }
}

#[tokio::test]
async fn clones() {
    let (_sim, client) = start(immediate()).await;
    let target = |target: &str| CloneSpec {
        target: Some(target.to_owned()),
        ..spec(100, "x")
    };
    let error = client
        .clone_vm("pve1", vmid(TEMPLATE), &target("pve2"))
        .await
        .unwrap_err();
    assert!(
        text(&error).contains("can't clone VM to node 'pve2' (VM uses local storage)"),
        "{error}"
    );
    let error = client
        .clone_vm("pve1", vmid(TEMPLATE), &target("pve9"))
        .await
        .unwrap_err();
    assert!(text(&error).contains("no such cluster node 'pve9'"), "{error}");
    assert!(
        client
            .clone_vm("pve1", vmid(TEMPLATE), &target("pve1"))
            .await
            .is_ok()
    );
    let linked = CloneSpec {
        full: false,
        ..spec(101, "linked")
    };
    let upid = client.clone_vm("pve1", vmid(TEMPLATE), &linked).await.unwrap();
    wait(&client, &upid).await.unwrap();
    let upid = client.destroy("pve1", vmid(TEMPLATE)).await.unwrap();
    let error = failed(&client, upid).await;
    assert!(text(&error).contains("still in use by linked cloned"), "{error}");
}

#[tokio::test]
async fn disks() {
    let (_sim, client) = start(immediate()).await;
    let vm = cloned(&client, 100).await;
    for (disk, gib, says) in [
        ("scsi0", 1, "shrinking disks is not supported"),
        ("scsi5", 10, "disk 'scsi5' does not exist"),
        ("ide2", 10, "you can't resize a cdrom"),
    ] {
        let upid = client.resize_disk("pve1", vm, disk, gib).await.unwrap().unwrap();
        let error = failed(&client, upid).await;
        assert!(
            matches!(&error, E::TaskFailed { exitstatus, .. } if exitstatus == says),
            "{error}"
        );
    }
    for _ in 0..2 {
        let upid = client
            .resize_disk("pve1", vm, "scsi0", 10)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            wait(&client, &upid).await.unwrap(),
            TaskOutcome::Ok,
            "the same size is fine"
        );
    }
}

#[tokio::test]
async fn power() {
    let (_sim, client) = start(immediate()).await;
    let vm = cloned(&client, 100).await;
    for op in [PowerOp::Stop, PowerOp::Shutdown] {
        let upid = client.power("pve1", vm, op).await.unwrap();
        assert_eq!(
            wait(&client, &upid).await.unwrap(),
            TaskOutcome::Ok,
            "nothing to do"
        );
    }
    let error = client.power("pve1", vm, PowerOp::Reboot).await.unwrap_err();
    assert!(matches!(error, E::NotRunning { .. }), "{error}");
    let error = client.agent_interfaces("pve1", vm).await.unwrap_err();
    assert!(matches!(error, E::NotRunning { .. }), "{error}");
    let upid = client.power("pve1", vm, PowerOp::Start).await.unwrap();
    wait(&client, &upid).await.unwrap();
    let upid = client.power("pve1", vm, PowerOp::Start).await.unwrap();
    let error = failed(&client, upid).await;
    assert!(matches!(error, E::AlreadyRunning { .. }), "{error}");
    let error = client.destroy("pve1", vm).await.unwrap_err();
    assert!(
        text(&error).contains("VM 100 is running - destroy failed"),
        "{error}"
    );
    let error = client.make_template("pve1", vm).await.unwrap_err();
    assert!(text(&error).contains("if VM is running"), "{error}");
    let upid = client
        .power("pve1", vmid(TEMPLATE), PowerOp::Start)
        .await
        .unwrap();
    let error = failed(&client, upid).await;
    assert!(
        text(&error).contains("you can't start a vm if it's a template"),
        "{error}"
    );
}

#[tokio::test]
async fn protection_and_agents() {
    let (_sim, client) = start(immediate()).await;
    let vm = cloned(&client, 100).await;
    let patch = ConfigPatch::new().set("protection", 1).delete("agent");
    let upid = client.set_config("pve1", vm, &patch).await.unwrap().unwrap();
    wait(&client, &upid).await.unwrap();
    let error = client.destroy("pve1", vm).await.unwrap_err();
    assert!(text(&error).contains("protection mode enabled"), "{error}");
    let upid = client.power("pve1", vm, PowerOp::Start).await.unwrap();
    wait(&client, &upid).await.unwrap();
    let error = client.agent_interfaces("pve1", vm).await.unwrap_err();
    assert!(
        matches!(error, E::AgentNotReady { .. }) && text(&error).contains("No QEMU guest agent configured"),
        "{error}"
    );
}

#[tokio::test]
async fn credentials() {
    let (sim, _) = start(immediate()).await;
    let mut wrong = config(&sim);
    wrong.token_secret = "wrong".to_owned().into();
    let error = Client::new(wrong).unwrap().version().await.unwrap_err();
    assert!(matches!(error, E::Unauthorized), "{error}");
}

#[tokio::test]
async fn tasks_of_other_nodes() {
    let (_sim, client) = start(immediate()).await;
    let upid = client
        .clone_vm("pve1", vmid(TEMPLATE), &spec(100, "x"))
        .await
        .unwrap();
    let elsewhere: Upid = upid.as_str().replace("pve1", "pve2").parse().unwrap();
    let error = client.task_status(&elsewhere).await.unwrap_err();
    assert!(
        matches!(&error, E::Rejected { status: 400, .. }) && text(&error).contains("no such task"),
        "{error}"
    );
    let error = client.wait_task(&elsewhere, soon()).await.unwrap_err();
    assert!(
        matches!(error, E::Rejected { status: 400, .. }),
        "waiting does not go on for ever: {error}"
    );
}

#[tokio::test]
async fn nodes_that_are_off() {
    let (sim, client) = start(immediate()).await;
    sim.set_online("pve2", false).unwrap();
    let nodes = client.nodes().await.unwrap();
    assert!(!nodes[1].is_online() && nodes[1].maxmem.is_none());
    let error = client.qemu_list("pve2").await.unwrap_err();
    assert!(
        matches!(error, E::NodeUnreachable { status: 595, .. }) && error.is_transient(),
        "{error}"
    );
    let unknown = client
        .cluster_vms()
        .await
        .unwrap()
        .into_iter()
        .filter(|vm| vm.node == "pve2")
        .all(|vm| vm.status == "unknown");
    assert!(unknown);
    sim.set_online("pve2", true).unwrap();
    assert!(client.qemu_list("pve2").await.is_ok());
}
