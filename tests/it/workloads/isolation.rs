//! What a sandbox can and cannot do, asked from inside of it.

use nimbus_tests::compose::reachable;
use nimbus_tests::{Lab, Tenant, eventually};
use serde_json::json;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const SUITE: &str = "workloads";

#[tokio::test]
async fn inside_there_is_nobody_else() {
    let lab = Lab::start(SUITE, "inside").await;
    let tenant = lab.tenant("demo").await;
    let id = tenant.idle().await;
    let neighbour = tenant.idle().await;

    let status = tenant.prints(&id, &["cat", "/proc/self/status"]).await;
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(
            status.contains(&format!("{name}:\t0000000000000000")),
            "{name}: {status}"
        );
    }
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    assert!(status.contains("Seccomp:\t2"), "{status}");

    assert_eq!(tenant.prints(&id, &["ls", "/sys/class/net"]).await, "lo\n");
    let routes = tenant.prints(&id, &["cat", "/proc/net/route"]).await;
    assert_eq!(routes.lines().count(), 1, "only the heading: {routes}");
    // The host, the bus, a metadata service: there is no way to any address.
    let server = lab.server.url();
    let nats = lab.server.facts["nats_url"].as_str().unwrap_or(&server);
    let nats = nats.rsplit_once(':').unwrap().1;
    for (address, port) in [
        ("169.254.169.254", "80"),
        ("172.17.0.1", "22"),
        ("1.1.1.1", "53"),
        ("127.0.0.1", nats),
    ] {
        let ran = tenant.exec(&id, &["nc", "-w", "2", address, port]).await;
        assert_ne!(ran["exitCode"], 0, "{address}:{port}: {ran}");
    }

    let mounts = tenant.prints(&id, &["cat", "/proc/self/mountinfo"]).await;
    assert!(!mounts.contains("docker.sock"), "{mounts}");
    for mount in mounts.lines().filter(|line| line.contains("/.nimbus")) {
        let options = mount.split(' ').nth(5).unwrap();
        assert!(options.split(',').any(|option| option == "ro"), "{mount}");
    }
    let devices = tenant.prints(&id, &["ls", "/dev"]).await;
    for device in devices.split_whitespace() {
        let known = [
            "console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr",
            "stdin", "stdout", "tty", "urandom", "zero",
        ];
        assert!(known.contains(&device), "{device}");
    }
    // What the kernel refuses by the profile.
    for argv in [
        &["mount", "-t", "tmpfs", "none", "/mnt"][..],
        &["mknod", "/tmp/disk", "b", "8", "0"],
        &["unshare", "-r", "true"],
        &["chroot", "/", "true"],
    ] {
        let ran = tenant.exec(&id, argv).await;
        assert_ne!(ran["exitCode"], 0, "{argv:?}: {ran}");
    }
    // Process 1 is not for touching, and the neighbour's processes are not there.
    let _ = tenant
        .prints(&neighbour, &["sh", "-c", "sleep 4242 >/dev/null 2>&1 & true"])
        .await;
    let seen = tenant.prints(&id, &["ps"]).await;
    assert!(!seen.contains("4242"), "{seen}");
    let ran = tenant.exec(&id, &["cat", "/proc/1/environ"]).await;
    assert_ne!(ran["exitCode"], 0, "{ran}");
    lab.end().await;
}

#[tokio::test]
async fn limits_are_hit_and_reported() {
    let lab = Lab::start(SUITE, "limits").await;
    let tenant = lab.tenant("demo").await;
    let mut body = Tenant::body(&["sleep", "3600"]);
    body["spec"]["resources"] = json!({"memoryBytes": 64 << 20, "pids": 40, "vcpus": 0.5});
    body["spec"]["readOnlyRoot"] = json!(true);
    body["spec"]["mounts"] = json!([{"kind": "tmpfs", "target": "/small", "sizeBytes": 1 << 20}]);
    let id = tenant.ready(&body).await;

    let full = tenant
        .exec(
            &id,
            &["dd", "if=/dev/zero", "of=/small/file", "bs=64k", "count=64"],
        )
        .await;
    assert_ne!(full["exitCode"], 0, "{full}");
    assert!(
        full["stderr"].as_str().unwrap().contains("No space left"),
        "{full}"
    );
    let refused = tenant.exec(&id, &["touch", "/etc/file"]).await;
    assert!(
        refused["stderr"].as_str().unwrap().contains("Read-only"),
        "{refused}"
    );
    assert_eq!(
        tenant
            .prints(&id, &["sh", "-c", "echo x > /tmp/f && cat /tmp/f"])
            .await,
        "x\n"
    );

    // A fork bomb meets the limit and does no harm: the sandbox answers afterwards.
    let bomb = json!({"argv": ["sh", "-c", "f() { f | f & }; f; sleep 1"], "timeoutMs": 5000});
    let _ = tenant.exec_with(&id, &bomb).await;
    let _ = eventually(
        "commands run again",
        Duration::from_secs(30),
        async || tenant.exec_with(&id, &json!({"argv": ["echo", "alive"]})).await,
        |answer| answer.status == 200 && answer.body["stdout"] == "alive\n",
    )
    .await;

    let mut greedy = Tenant::body(&[
        "sh",
        "-c",
        "x=$(head -c 200000000 /dev/zero | tr '\\0' a); echo ${#x}",
    ]);
    greedy["spec"]["resources"] = json!({"memoryBytes": 32 << 20});
    let made = tenant.create_sandbox(&greedy).await.is(201).body;
    let failed = tenant
        .reaches(made["metadata"]["id"].as_str().unwrap(), "failed")
        .await;
    assert!(failed.to_string().contains("OOMKilled"), "{failed}");
    lab.end().await;
}

/// Answers every connection with one line of HTTP.
async fn web() -> u16 {
    let listener = TcpListener::bind((reachable(), 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                let _ = stream
                    .write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nfound\n")
                    .await;
            });
        }
    });
    port
}

#[tokio::test]
async fn egress_is_denied_and_then_allowed_by_rule() {
    let lab = Lab::start(SUITE, "egress").await;
    let tenant = lab.tenant("demo").await;
    let (open, shut) = (web().await, web().await);
    let host = reachable();
    let mut body = Tenant::body(&["sleep", "3600"]);
    body["spec"]["network"] = json!({"egress": {"allow": [
        {"name": "web", "protocol": "http", "host": host, "port": open, "allowInternalIps": true, "methods": ["GET"]},
        {"name": "raw", "protocol": "tcp", "host": "localhost", "port": shut, "allowInternalIps": true},
    ]}});
    let id = tenant.ready(&body).await;
    let sealed = tenant.idle().await;

    let url = format!("http://{host}:{open}/page");
    assert_eq!(
        tenant
            .prints(&id, &["wget", "-q", "-O", "-", "-Y", "on", &url])
            .await,
        "found\n"
    );
    let denied = format!("http://{host}:{shut}/page");
    let ran = tenant
        .exec(&id, &["wget", "-q", "-O", "-", "-Y", "on", &denied])
        .await;
    assert_ne!(ran["exitCode"], 0, "{ran}");
    // Without rules there is not even a proxy.
    let proxies = tenant
        .prints(&sealed, &["sh", "-c", "echo $HTTP_PROXY$http_proxy"])
        .await;
    assert_eq!(proxies, "\n");
    let ran = tenant
        .exec(&sealed, &["nc", "-w", "2", "127.0.0.1", "3128"])
        .await;
    assert_ne!(ran["exitCode"], 0, "{ran}");
    lab.end().await;
}
