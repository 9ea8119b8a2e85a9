//! Reaching into a sandbox and out of it: ports, health, volumes, the proxy, sessions.

use std::time::Duration;

use nimbus_bus::{Side, StreamId};
use nimbus_proto::agent::{self, AgentOpen, EndSession, Lease};
use nimbus_proto::workloads::{
    EgressRule, Health, HealthCheck, Lifecycle, Mount, Named, Port, Probe, Protocol, Readiness, Start, Wanted,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{World, eventually, sandbox, within};

const SERVER: &str = "mkdir -p /tmp/www; echo hello > /tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www";

fn http() -> Option<Vec<Port>> {
    Some(vec![Port {
        name: Some("web".into()),
        guest_port: 8080,
        protocol: Protocol::Http,
        host_port: None,
    }])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_port_is_reached_once_it_answers() {
    let mut world = World::start().await;
    let mut request = sandbox(&format!("sleep 0.3; {SERVER}"));
    request.ports = http();
    let early = world.launch(&request).await.unwrap();
    assert!(early.endpoints.is_empty());
    let seen = world.ready(&request).await;
    let [endpoint] = seen.endpoints.as_slice() else {
        panic!("{seen:?}");
    };
    assert_eq!(
        (endpoint.name.as_str(), endpoint.host.as_str()),
        ("web", "127.0.0.1")
    );
    assert!(get(endpoint.port).await.contains("hello"));

    // The port stays what it was under the next agent.
    world.kill_agent().await;
    world.start_agent().await;
    let again = world.until(&request.sandbox, |seen| {
        seen.sequence >> 32 == 2 && seen.lifecycle == Lifecycle::Ready
    });
    assert_eq!(again.await.endpoints, seen.endpoints);
    assert!(get(endpoint.port).await.contains("hello"));

    let said = world.shell(&request.sandbox, "kill -STOP $(pidof httpd)").await;
    assert!(said.is_empty(), "{said}");
    let seen = world
        .until(&request.sandbox, |seen| seen.lifecycle == Lifecycle::NotReady)
        .await;
    assert_eq!((seen.readiness, seen.endpoints.len()), (Readiness::NotReady, 0));
    world.shell(&request.sandbox, "kill -CONT $(pidof httpd)").await;
    world
        .until(&request.sandbox, |seen| {
            seen.lifecycle == Lifecycle::Ready && seen.endpoints.len() == 1
        })
        .await;
    world.end().await;
}

async fn get(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut text = String::new();
    within(stream.read_to_string(&mut text)).await.unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_what_its_check_says() {
    let world = World::start().await;
    let mut request = sandbox("touch /tmp/well; sleep 1000");
    request.health = Some(HealthCheck {
        probe: Probe::Exec {
            argv: vec!["test".into(), "-e".into(), "/tmp/well".into()],
        },
        interval_ms: 100,
        timeout_ms: 1000,
        retries: 2,
        start_period_ms: 0,
        restart_on_unhealthy: false,
    });
    world.ready(&request).await;
    world
        .until(&request.sandbox, |seen| seen.health == Health::Healthy)
        .await;
    world.shell(&request.sandbox, "rm /tmp/well").await;
    let seen = world
        .until(&request.sandbox, |seen| seen.health == Health::Unhealthy)
        .await;
    assert_eq!((seen.lifecycle, seen.restarts), (Lifecycle::Ready, 0));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_outlives_its_sandbox_also_in_a_warm_one() {
    let world = World::start().await;
    let mount = |read_only| Mount::Volume {
        name: "data".into(),
        target: "/data".into(),
        read_only,
    };
    let mut first = sandbox("sleep 1000");
    first.mounts = vec![mount(false)];
    first.process.user = Some("1000".into());
    world.ready(&first).await;
    let said = world
        .shell(&first.sandbox, "echo kept > /data/file && echo yes")
        .await;
    assert_eq!(said, "yes\n");
    world.prepare(1).await;
    let mut second = sandbox("sleep 1000");
    second.mounts = vec![
        mount(true),
        Mount::Tmpfs {
            target: "/scratch".into(),
            size_bytes: Some(1 << 20),
        },
    ];
    let seen = world.ready(&second).await;
    assert_eq!(
        seen.start,
        Some(Start::Warm),
        "{:?}",
        world.beat().map(|beat| beat.facts.missing)
    );
    let said = world
        .shell(
            &second.sandbox,
            "cat /data/file; touch /data/x; touch /scratch/x && echo yes",
        )
        .await;
    assert!(
        said.contains("kept\n") && said.contains("Read-only") && said.contains("yes"),
        "{said}"
    );
    let full = world
        .shell(
            &second.sandbox,
            "dd if=/dev/zero of=/scratch/big bs=1M count=4 2>&1; true",
        )
        .await;
    assert!(full.contains("No space left"), "{full}");
    world.remove(&first.sandbox).await.unwrap();
    world.remove(&second.sandbox).await.unwrap();
    let volume = Named {
        tenant: "demo".into(),
        name: "data".into(),
    };
    let removed = world
        .workloads
        .call::<agent::RemoveVolume>(&volume)
        .at(&world.host)
        .await;
    removed.unwrap();
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_allowed_out_is_refused_and_told() {
    let world = World::start().await;
    let mut request = sandbox("sleep 1000");
    request.egress = vec![
        EgressRule {
            name: "web".into(),
            protocol: Protocol::Http,
            host: "allowed.invalid".into(),
            port: 80,
            methods: vec![],
            path_prefixes: vec![],
            allow_internal_ips: false,
        },
        EgressRule {
            name: "db".into(),
            protocol: Protocol::Tcp,
            host: "db.invalid".into(),
            port: 5432,
            methods: vec![],
            path_prefixes: vec![],
            allow_internal_ips: false,
        },
    ];
    // Not root: the names have to be written from outside.
    request.process.user = Some("1000".into());
    world.ready(&request).await;
    let ask = async |line: &str| world.shell(&request.sandbox, line).await;
    assert!(ask("env").await.contains("http_proxy=http://127.0.0.1:3128"));
    assert!(ask("cat /etc/hosts").await.contains("db.invalid"));
    let said = ask("wget -q -O - http://denied.invalid/x 2>&1; echo code $?").await;
    assert!(said.contains("403"), "{said}");
    let denials = eventually(async || world.denials(), |denials| !denials.is_empty()).await;
    assert_eq!(
        (denials[0].sandbox.as_str(), denials[0].host.as_str()),
        (request.sandbox.as_str(), "denied.invalid")
    );
    let said = ask("wget -q -O - http://127.0.0.1:1/ 2>&1; nc -w 1 10.0.0.1 80 2>&1; echo over").await;
    assert!(said.contains("over"), "{said}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_ends_its_streams() {
    let world = World::start().await;
    let request = sandbox("sleep 1000");
    world.ready(&request).await;
    let lease = |session: &str, seconds: u64| {
        Some(Lease {
            session: session.to_owned(),
            expires_at: world.clock.now().after(Duration::from_secs(seconds)),
        })
    };
    let open = async |lease: Option<Lease>| {
        let id = StreamId::fresh();
        let stream = world.gateway.stream(id, "logs", Side::Client).await.unwrap();
        let open = AgentOpen {
            stream: id,
            word: "logs".into(),
            sandbox: request.sandbox.clone(),
            lease,
            wanted: Wanted::Logs {
                tail: None,
                since: None,
                follow: true,
            },
        };
        let opened = world.workloads.call::<agent::Open>(&open).at(&world.host).await;
        opened.map(|_| stream)
    };
    let short = open(lease("ses_a", 1000)).await.unwrap();
    let long = open(lease("ses_b", 100_000)).await.unwrap();
    let over = open(lease("ses_c", 0)).await.unwrap_err();
    assert_eq!(over.code, "op.conflict");
    assert!(short.ended().is_none());
    world.jump.forward(Duration::from_secs(1000));
    let ended = within(short.handle().finished()).await.unwrap();
    assert_eq!(ended.code, "expired");
    assert!(long.ended().is_none());
    let close = EndSession {
        session: "ses_b".into(),
        reason: "client_close".into(),
    };
    world
        .workloads
        .call::<agent::End>(&close)
        .at(&world.host)
        .await
        .unwrap();
    let ended = within(long.handle().finished()).await.unwrap();
    assert_eq!(ended.code, "client_close");
    world.end().await;
}
