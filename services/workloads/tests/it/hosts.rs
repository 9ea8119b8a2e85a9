//! Hosts that come, differ, get lost; and the service that restarts above them.

use nimbus_proto::workloads::{
    Count, Denial, ForgetHost, Lifecycle, ListHosts, Offers, StartService, StopSandbox,
};
use nimbus_store::testing;

use crate::agent::Launching;
use crate::world::{World, code, detail, eventually, named, on_both};

on_both! {
    fn a_host_is_told_what_is_not_wanted(world, host, []) {
        world.tenant("demo").await;
        let made = world.create("demo").await.unwrap();
        host.set("stranger-01jzzzzzzzzzzzzzzzzzzzzzzz", Lifecycle::Ready);
        let orders = host.beat().await;
        assert_eq!(orders.remove, ["stranger-01jzzzzzzzzzzzzzzzzzzzzzzz"]);
        host.forget(&made.id);
        let orders = host.beat().await;
        assert_eq!(orders.expected.join(","), made.id);
        host.report(vec![host.seen(&made.id, Lifecycle::Failed)], vec![]).await;
        assert_eq!(world.sandbox("demo", &made.id).await.status.lifecycle, Lifecycle::Failed);

        let made = world.create("demo").await.unwrap();
        host.vanish().await;
        let stopping = world.ask::<StopSandbox>(&world.alice, &named("demo", &made.id)).await.unwrap();
        assert_eq!(stopping.status.lifecycle, Lifecycle::Stopping);
        let orders = host.beat().await;
        assert_eq!(orders.stop, [(made.id.clone(), "StoppedByRequest".to_owned())]);
        assert_eq!(world.sandbox("demo", &made.id).await.status.lifecycle, Lifecycle::Stopping, "not ready again");
        host.report(vec![host.set(&made.id, Lifecycle::Stopped)], vec![]).await;
        assert_eq!(world.sandbox("demo", &made.id).await.status.lifecycle, Lifecycle::Stopped);
        assert!(host.beat().await.remove.is_empty(), "its logs are kept");
    }

    fn hosts_are_listed_with_what_they_carry(world, host, []) {
        world.tenant("demo").await;
        world.create("demo").await.unwrap();
        let hosts = world.ask::<ListHosts>(&world.admin, &()).await.unwrap();
        assert_eq!((hosts.len(), hosts[0].sandboxes, hosts[0].used_cpu_milli), (1, 1, 1000));
        assert_eq!(code(&world.ask::<ListHosts>(&world.alice, &()).await), "auth.permission_denied");
        let offered = world.gateway.call::<Offers>(&()).await.unwrap();
        assert_eq!((offered.hosts, offered.backends), (1, vec!["container".to_owned()]));
        let denial = Denial {
            sandbox: "unknown".into(), at: host.seen("x", Lifecycle::Ready).at, protocol: "tcp".into(), host: "a".into(),
            port: 1, method: None, path: None, reason: "no".into(),
        };
        host.report(vec![], vec![denial]).await;
    }

    fn a_lost_host_fails_its_sandboxes_and_services_move(world, host, ["--host-lost-after", "1s"]) {
        world.tenant("demo").await;
        let alone = world.create("demo").await.unwrap();
        world.define("demo", "worker").await;
        world.ask::<StartService>(&world.alice, &named("demo", "worker")).await.unwrap();
        let before = world.service_until("demo", "worker", Lifecycle::Ready).await;
        host.vanish().await;
        let other = world.host("host-b").await;
        let beating = { let other = std::sync::Arc::clone(&other); tokio::spawn(async move {
            loop {
                other.beat().await;
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        }) };
        let failed = world.sandbox_until("demo", &alone.id, Lifecycle::Failed).await;
        assert!(failed.status.conditions.iter().any(|c| c.reason == "HostLost"), "{:?}", failed.status.conditions);
        let after = eventually(|| world.service("demo", "worker"), |service| {
            service.status.lifecycle == Lifecycle::Ready && service.status.sandbox != before.status.sandbox
        }).await;
        let moved = world.sandbox("demo", after.status.sandbox.as_deref().unwrap()).await;
        assert_eq!(moved.status.host.as_deref(), Some("host-b"));
        let hosts = world.ask::<ListHosts>(&world.admin, &()).await.unwrap();
        assert_eq!((hosts[0].lost, hosts[0].sandboxes, hosts[1].lost), (true, 0, false));
        let figures = world.gateway.call::<Count>(&()).await.unwrap();
        assert_eq!((figures.hosts, figures.hosts_lost, figures.sandboxes), (1, 1, 1));
        // One that is heard stays; a lost one goes, and is there again when it is heard.
        let forget = async |name: &str| world.ask::<ForgetHost>(&world.admin, &name.parse().unwrap()).await;
        assert_eq!(code(&forget("host-b").await), "op.conflict");
        assert_eq!(code(&world.ask::<ForgetHost>(&world.alice, &"host-a".parse().unwrap()).await), "auth.permission_denied");
        forget(&hosts[0].name).await.unwrap();
        forget(&hosts[0].name).await.unwrap();
        let names = world.ask::<ListHosts>(&world.admin, &()).await.unwrap();
        assert_eq!(names.iter().map(|host| host.name.as_str()).collect::<Vec<_>>(), ["host-b"]);
        // It comes back with what was given up.
        host.serve().await;
        let orders = host.beat().await;
        assert_eq!(orders.remove.len(), 2);
        beating.abort();
    }

    fn without_a_host_there_is_a_clear_refusal(world, host, ["--host-lost-after", "1s"]) {
        world.tenant("demo").await;
        host.vanish().await;
        let refused = eventually(|| world.create("demo"), |one| code(one) == "service.sandbox_backend_unavailable").await;
        assert_eq!(detail(refused, "missing"), serde_json::json!(["a host"]));
    }

    fn a_host_that_does_not_answer_is_passed_over(world, host, []) {
        world.tenant("demo").await;
        let other = world.host("host-b").await;
        // The first is preferred: it has less to do by name alone.
        host.vanish().await;
        other.beat().await;
        for _ in 0..3 {
            let made = world.create("demo").await.unwrap();
            assert_eq!((made.status.lifecycle, made.status.host.as_deref()), (Lifecycle::Ready, Some("host-b")));
        }
        let hosts = world.ask::<ListHosts>(&world.admin, &()).await.unwrap();
        assert_eq!((hosts[0].sandboxes, hosts[1].sandboxes), (0, 3));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_in_the_middle_of_creates_loses_none() {
    testing::on_both(|stored| async move {
        let world = World::start(&stored.db).await;
        let flags = ["--launch-lease", "2s"];
        let replica = world.replica(&flags).await;
        let host = world.host("host-a").await;
        world.tenant("demo").await;
        let before = world.create("demo").await.unwrap();
        *host.launching.lock().unwrap() = Launching::Silent;
        let creating: Vec<_> = (0..5)
            .map(|_| {
                let world = std::sync::Arc::clone(&world);
                tokio::spawn(async move { world.create("demo").await })
            })
            .collect();
        eventually(|| async { host.launched().len() }, |launched| *launched == 6).await;
        replica.stop().await;
        *host.launching.lock().unwrap() = Launching::Ready;
        let replica = world.replica(&flags).await;
        host.beat().await;
        let list = nimbus_proto::workloads::ListRequest {
            tenant: "demo".into(),
            page: nimbus_proto::workloads::Page {
                state: Some("ready".into()),
                ..nimbus_proto::workloads::Page::default()
            },
        };
        let ready = eventually(
            || world.ask::<nimbus_proto::workloads::ListSandboxes>(&world.alice, &list),
            |found| found.as_ref().is_ok_and(|found| found.items.len() == 6),
        )
        .await
        .unwrap();
        assert!(ready.items.iter().any(|one| one.id == before.id));
        assert_eq!(world.used("demo").await, 6);
        for one in creating {
            one.abort();
        }
        replica.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_see_one_world() {
    // A SQLite file has one process, but two replicas may share its connection.
    testing::on_both(|stored| async move {
        let world = World::start(&stored.db).await;
        let (one, other) = (world.replica(&[]).await, world.replica(&[]).await);
        let host = world.host("host-a").await;
        world.tenant("demo").await;
        for _ in 0..10 {
            let made = world.create("demo").await.unwrap();
            assert_eq!(
                world.sandbox("demo", &made.id).await.status.lifecycle,
                Lifecycle::Ready
            );
            world
                .ask::<StopSandbox>(&world.alice, &named("demo", &made.id))
                .await
                .unwrap();
            assert_eq!(
                world.sandbox("demo", &made.id).await.status.lifecycle,
                Lifecycle::Stopped
            );
        }
        assert_eq!(world.used("demo").await, 0);
        drop(host);
        one.stop().await;
        other.stop().await;
    })
    .await;
}
