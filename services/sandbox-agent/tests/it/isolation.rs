//! What a sandbox can and cannot do, asked from inside.

use nimbus_proto::workloads::{Lifecycle, Mount};

use crate::world::{World, reason, sandbox};

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_has_no_rights_no_network_and_no_host() {
    let world = World::start().await;
    let request = sandbox("sleep 1000");
    world.ready(&request).await;
    let ask = async |line: &str| world.shell(&request.sandbox, line).await;

    let status = ask("cat /proc/self/status").await;
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(status.contains(&format!("{set}:\t0000000000000000")), "{status}");
    }
    assert!(
        status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"),
        "{status}"
    );

    assert_eq!(ask("ls /sys/class/net").await.trim(), "lo");
    let mounts = ask("cat /proc/self/mounts").await;
    let host_dir = world.dir.path().as_str();
    assert!(!mounts.contains(host_dir), "{mounts}");
    for line in mounts.lines().filter(|line| line.contains(" /.nimbus/")) {
        let options = line.split(' ').nth(3).unwrap();
        assert!(options.split(',').any(|option| option == "ro"), "{line}");
    }
    assert!(
        ask("ls -A /.nimbus/run").await.is_empty(),
        "nothing to connect to is left"
    );
    let refused = ask("mount -t tmpfs none /mnt; mknod /tmp/x b 8 0; kill -9 1; echo $?").await;
    assert!(
        refused.contains("Operation not permitted") || refused.contains("denied"),
        "{refused}"
    );
    assert_eq!(ask("echo alive").await, "alive\n");
    let first = ask("tr '\\0' ' ' < /proc/1/cmdline").await;
    assert!(first.starts_with("/.nimbus/init"), "{first}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_root_is_one() {
    let world = World::start().await;
    let mut request = sandbox("sleep 1000");
    request.read_only_root = true;
    request.mounts = vec![Mount::Tmpfs {
        target: "/scratch".into(),
        size_bytes: Some(1 << 20),
    }];
    world.ready(&request).await;
    let ask = async |line: &str| world.shell(&request.sandbox, line).await;
    assert!(ask("touch /x").await.contains("Read-only"));
    assert_eq!(ask("touch /tmp/x /run/x /var/tmp/x && echo yes").await, "yes\n");
    let full = ask("dd if=/dev/zero of=/scratch/x bs=1M count=4 2>&1; ls -l /scratch/x").await;
    assert!(full.contains("No space left"), "{full}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_are_limited_and_the_sandbox_survives_it() {
    let world = World::start().await;
    let mut request = sandbox("sleep 1000");
    request.resources.pids = 32;
    world.ready(&request).await;
    let bomb = "for i in $(seq 200); do sleep 5 & done 2>&1; wait";
    let said = world.shell(&request.sandbox, bomb).await;
    assert!(
        said.contains("can't fork") || said.contains("temporarily unavailable"),
        "{said}"
    );
    assert_eq!(world.shell(&request.sandbox, "echo alive").await, "alive\n");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_runs_out_is_the_reason_that_is_told() {
    let world = World::start().await;
    // tail keeps its input in memory until it ends, which it does not.
    let mut request = sandbox("exec tail /dev/zero");
    request.resources.memory_bytes = 32 << 20;
    world.launch(&request).await.unwrap();
    let seen = world.until_over(&request.sandbox).await;
    assert_eq!(
        (seen.lifecycle, reason(&seen).as_str()),
        (Lifecycle::Failed, "OOMKilled"),
        "{seen:?}"
    );
    let exit = seen.exit.unwrap();
    assert!(exit.out_of_memory && exit.code == 137, "{exit:?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_the_image_is_nobody_special() {
    let world = World::start().await;
    let mut request = sandbox("sleep 1000");
    request.process.user = Some("1000".into());
    world.ready(&request).await;
    let said = world
        .shell(&request.sandbox, "id -u; touch /etc/x; touch /tmp/x && echo yes")
        .await;
    assert!(
        said.starts_with("1000\n") && said.contains("denied") && said.contains("yes"),
        "{said}"
    );
    world.end().await;
}
