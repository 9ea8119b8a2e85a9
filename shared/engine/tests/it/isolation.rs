//! Each setting that keeps a sandbox in, as the engine has it and as the process inside sees it.

use nimbus_engine::{Bind, Tmpfs};
use serde_json::json;

use crate::world::{LIMITS, with_world};

#[tokio::test]
async fn the_engine_has_every_setting() {
    with_world(|world| async move {
        let mut spec = world.script("exit 0");
        spec.read_only_root = true;
        spec.hostname = Some("box".into());
        spec.user = Some("1000:1000".into());
        spec.binds = vec![Bind {
            source: world.dir.path().to_string(),
            target: "/.nimbus/run".into(),
        }];
        spec.shm_bytes = Some(1 << 20);
        let made = world.raw(&world.create(&spec).await).await;
        let host = &made["HostConfig"];
        for (key, wanted) in [
            ("NetworkMode", json!("none")),
            ("Privileged", json!(false)),
            ("ReadonlyRootfs", json!(true)),
            ("Memory", json!(LIMITS.memory_bytes)),
            ("MemorySwap", json!(LIMITS.memory_bytes)),
            ("NanoCpus", json!(500_000_000)),
            ("PidsLimit", json!(64)),
            ("OomScoreAdj", json!(500)),
            ("ShmSize", json!(1 << 20)),
            ("AutoRemove", json!(false)),
        ] {
            assert_eq!(host[key], wanted, "{key}");
        }
        assert_ne!(host["Init"], json!(true));
        // Podman's own namespace is one that others may be let into by name.
        let ipc = if world.podman { "shareable" } else { "private" };
        assert_eq!(host["IpcMode"], ipc);
        // Podman says nothing of it on cgroup 1.
        assert!(
            world.podman || host["CgroupnsMode"] == "private",
            "{}",
            host["CgroupnsMode"]
        );
        // Podman lists what ALL has taken away.
        let dropped = host["CapDrop"].as_array().expect("a list");
        assert!(
            dropped.contains(&json!("ALL")) || dropped.contains(&json!("SETUID")),
            "{dropped:?}"
        );
        assert_eq!(host["LogConfig"]["Type"], "none");
        assert_eq!(host["RestartPolicy"]["Name"], "no");
        for empty in [
            "CapAdd",
            "Devices",
            "PortBindings",
            "Binds",
            "VolumesFrom",
            "GroupAdd",
        ] {
            let value = &host[empty];
            let nothing = value.is_null()
                || value.as_array().is_some_and(Vec::is_empty)
                || value.as_object().is_some_and(serde_json::Map::is_empty);
            assert!(nothing, "{empty}: {value}");
        }
        let options: Vec<&str> = host["SecurityOpt"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|option| option.as_str())
            .collect();
        assert!(
            options
                .iter()
                .any(|option| option.starts_with("no-new-privileges")),
            "{options:?}"
        );
        assert!(
            options
                .iter()
                .any(|option| option.starts_with("seccomp=") && !option.contains("unconfined")),
            "{options:?}"
        );
        assert!(
            host["MaskedPaths"]
                .as_array()
                .is_some_and(|paths| paths.contains(&json!("/proc/kcore")))
        );
        assert!(
            host["ReadonlyPaths"]
                .as_array()
                .is_some_and(|paths| paths.contains(&json!("/proc/sys")))
        );
        let mounts = host["Mounts"].as_array().expect("a list");
        assert!(
            mounts.iter().all(|mount| mount["ReadOnly"] == json!(true)),
            "{mounts:?}"
        );
        assert_eq!(made["Config"]["Hostname"], "box");
        assert_eq!(made["Config"]["User"], "1000:1000");
        assert_eq!(made["Config"]["Healthcheck"]["Test"], json!(["NONE"]));
    })
    .await;
}

#[tokio::test]
async fn the_process_inside_has_nothing_to_climb_with() {
    with_world(|world| async move {
        let (_, said) = world
            .says(
                world.command(&[]),
                "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status
                echo links: $(ls /sys/class/net)
                echo devices: $(ls /dev)
                ulimit -Hc
                mount -t tmpfs none /mnt; unshare -U true; chroot / true; mknod /x c 1 3; nsenter -t 1 -n true
                dmesg; hostname other; echo 1 >/proc/sys/kernel/panic
                head -c1 /proc/kcore | wc -c; cat /proc/1/oom_score_adj",
            )
            .await;
        for line in [
            "CapInh:\t0000000000000000",
            "CapPrm:\t0000000000000000",
            "CapEff:\t0000000000000000",
            "CapBnd:\t0000000000000000",
            "CapAmb:\t0000000000000000",
            "NoNewPrivs:\t1",
            "Seccomp:\t2",
            "links: lo",
            "500",
        ] {
            assert!(said.lines().any(|found| found == line), "{line:?} in {said}");
        }
        let devices = said
            .lines()
            .find_map(|line| line.strip_prefix("devices: "))
            .expect("a list of devices");
        for device in devices.split(' ') {
            let known = [
                "console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr",
                "stdin", "stdout", "tty", "urandom", "zero",
            ];
            assert!(known.contains(&device), "{device} in {devices}");
        }
        for refused in [
            "mount:",
            "unshare:",
            "chroot:",
            "mknod:",
            "nsenter:",
            "dmesg:",
            "hostname:",
            "/proc/sys/kernel/panic",
        ] {
            assert!(said.contains(refused), "{refused} was not refused: {said}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_read_only_root_leaves_scratch_space_only() {
    with_world(|world| async move {
        std::fs::write(world.dir.path().join("given"), "from the host").expect("a file");
        let mut spec = world.command(&[]);
        spec.read_only_root = true;
        spec.user = Some("user".into());
        spec.binds = vec![Bind {
            source: world.dir.path().to_string(),
            target: "/.nimbus/run".into(),
        }];
        spec.tmpfs = vec![Tmpfs {
            target: "/scratch".into(),
            size_bytes: Some(1 << 20),
        }];
        std::fs::set_permissions(
            world.dir.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .expect("ours");
        // What it says has to stay readable after its end, so it is the exit code here.
        spec.argv = ["/bin/sh", "-c"].map(str::to_owned).to_vec();
        spec.argv.push(
            "[ $(id -u) = 1000 ] || exit 10
            echo x >/x && exit 11
            echo x >/etc/x && exit 12
            echo x >/.nimbus/run/x && exit 13
            [ \"$(cat /.nimbus/run/given)\" = 'from the host' ] || exit 14
            grep -q ' /run tmpfs rw' /proc/mounts || exit 18
            for dir in /tmp /var/tmp /scratch /dev/shm; do echo x >$dir/x || exit 15; done
            head -c 2000000 /dev/zero >/scratch/big && exit 16
            cp /bin/busybox /tmp/true && /tmp/true true || exit 17
            exit 0"
                .to_owned(),
        );
        let (_, state) = world.outcome(&spec).await;
        assert_eq!(state.exit_code, Some(0));
    })
    .await;
}

#[tokio::test]
async fn a_health_check_of_the_image_is_not_run_by_the_engine() {
    with_world(|world| async move {
        let id = world.run(&world.script("sleep 600")).await;
        let health = &world.raw(&id).await["State"]["Health"]["Status"];
        assert!(health.is_null() || health == "", "{health}");
    })
    .await;
}
