//! Sandboxes from their creation to their end.

use nimbus_bus::Key;
use nimbus_errors::Code;
use nimbus_proto::Secret;
use nimbus_proto::workloads::{
    CreateSandbox, DeleteSandbox, DeleteSandboxRequest, DeleteVolume, EnsureVolume, ExtendSandbox,
    ExtendSandboxRequest, GetSandbox, GetTenant, Isolation, Lifecycle, ListSecrets, ListVolumes, Mount,
    Owner, PutSecret, PutSecretRequest, Resources, ResourcesWanted, SecretUse, Settings, Start, StopSandbox,
    Variable,
};

use crate::agent::Launching;
use crate::world::{code, creation, detail, eventually, named, on_both};

on_both! {
    fn a_warm_sandbox_is_ready_when_its_creation_is_answered(world, host, []) {
        world.tenant("demo").await;
        let secret = PutSecretRequest { tenant: "demo".into(), name: "token".into(), value: Secret::new("s3cret") };
        let info = world.ask::<PutSecret>(&world.alice, &secret).await.unwrap();
        assert_eq!(info.version, 1);
        assert_eq!(world.ask::<PutSecret>(&world.alice, &secret).await.unwrap().version, 2);
        assert_eq!(world.ask::<ListSecrets>(&world.alice, &"demo".to_owned()).await.unwrap().len(), 1);

        let mut request = creation("demo");
        request.spec.process.env = vec![Variable { name: "A".into(), value: Secret::new("plain") }];
        request.spec.process.secrets = vec![SecretUse { secret: "token".into(), variable: "TOKEN".into() }];
        request.spec.ttl_ms = Some(60_000);
        request.labels.insert("team".into(), "search".into());
        let made = world.ask::<CreateSandbox>(&world.alice, &request).await.unwrap();
        assert_eq!(made.status.lifecycle, Lifecycle::Ready);
        assert_eq!(made.status.start, Some(Start::Warm));
        assert!(made.status.started_after_us.is_some());
        assert_eq!(made.status.host.as_deref(), Some("host-a"));
        assert!(made.status.expires_at.is_some());
        assert!(made.id.starts_with("batch-job-"), "{}", made.id);
        assert_eq!((made.spec.process.argv, made.spec.process.environment), (2, 2));

        let launch = host.launches.lock().unwrap()[0].clone();
        let values: Vec<_> = launch.process.env.iter().map(|v| (v.name.as_str(), v.value.reveal())).collect();
        assert_eq!(values, [("A", "plain"), ("TOKEN", "s3cret")]);
        assert_eq!(launch.image, "docker.io/library/busybox:latest");
        assert_eq!(launch.expires_at, made.status.expires_at);
        assert_eq!(world.sandbox("demo", &made.id).await, made);
        assert_eq!(world.used("demo").await, 1);

        let extend = ExtendSandboxRequest { tenant: "demo".into(), id: made.id.clone(), ttl_ms: Some(3_600_000), idle_timeout_ms: None };
        let extended = world.ask::<ExtendSandbox>(&world.alice, &extend).await.unwrap();
        assert!(extended.status.expires_at > made.status.expires_at);
        assert_ne!(extended.resource_version, made.resource_version);

        let delete = |force| DeleteSandboxRequest { tenant: "demo".into(), id: made.id.clone(), force };
        let refused = world.ask::<DeleteSandbox>(&world.alice, &delete(false)).await;
        assert_eq!(code(&refused), "op.conflict");
        let stopped = world.ask::<StopSandbox>(&world.alice, &named("demo", &made.id)).await.unwrap();
        assert_eq!(stopped.status.lifecycle, Lifecycle::Stopped);
        assert_eq!(world.used("demo").await, 0);
        let again = world.ask::<StopSandbox>(&world.alice, &named("demo", &made.id)).await.unwrap();
        assert_eq!(again, stopped, "stopping twice changes nothing");

        world.ask::<DeleteSandbox>(&world.alice, &delete(false)).await.unwrap();
        assert_eq!(host.removed.lock().unwrap().join(","), made.id);
        let gone = world.ask::<GetSandbox>(&world.alice, &named("demo", &made.id)).await;
        assert_eq!(code(&gone), "op.not_found");
        assert_eq!(detail(gone, "kind"), "sandbox");
    }

    fn what_may_not_be_asked_for_is_refused_by_name(world, _host, []) {
        world.ask::<nimbus_proto::workloads::CreateTenant>(&world.alice, &"sealed".to_owned()).await.unwrap();
        let mut request = creation("sealed");
        request.spec.resources = Some(ResourcesWanted { pids: Some(10), ..ResourcesWanted::default() });
        let refused = world.ask::<CreateSandbox>(&world.alice, &request).await;
        assert_eq!((code(&refused), detail(refused.clone(), "field")), ("auth.permission_denied", "spec.resources".into()));

        let mut request = creation("sealed");
        request.spec.owner = Owner::Service { name: None };
        let refused = world.ask::<CreateSandbox>(&world.alice, &request).await;
        assert_eq!((code(&refused), detail(refused.clone(), "field")), ("op.invalid_input", "spec.owner.kind".into()));

        let mut request = creation("sealed");
        request.spec.backend = Isolation::Krun;
        let refused = world.ask::<CreateSandbox>(&world.alice, &request).await;
        assert_eq!(code(&refused), "service.sandbox_backend_unavailable");
        assert_eq!(detail(refused, "missing"), serde_json::json!(["krun: /dev/kvm is missing"]));

        let mut request = creation("sealed");
        request.spec.process.secrets = vec![SecretUse { secret: "none".into(), variable: "A".into() }];
        assert_eq!(code(&world.ask::<CreateSandbox>(&world.alice, &request).await), "op.invalid_input");
        assert_eq!(code(&world.create("nowhere").await), "session.tenant_not_found");
        assert_eq!(world.used("sealed").await, 0);
    }

    fn a_cap_of_twenty_gives_exactly_twenty(world, host, []) {
        world.tenant("demo").await;
        let tenant = world.configure("demo", Settings { limit: None, sandboxes: Some(20), policy: None }).await;
        assert_eq!(tenant.quota.sandboxes, 20);
        let creates = (0..50).map(|_| world.create("demo"));
        let outcomes = futures::future::join_all(creates).await;
        let made: Vec<_> = outcomes.iter().filter_map(|one| one.as_ref().ok()).collect();
        assert_eq!(made.len(), 20);
        for refused in outcomes.iter().filter(|one| one.is_err()) {
            assert_eq!(code(refused), "rate.resource_exhausted");
            assert_eq!(detail(refused.clone(), "dimension"), "sandboxes");
        }
        assert_eq!(host.launched().len(), 20);
        let usage = world.ask::<GetTenant>(&world.alice, &"demo".to_owned()).await.unwrap().quota;
        assert_eq!((usage.used_sandboxes, usage.used.memory_bytes), (20, 20 * (512 << 20)));
        world.ask::<StopSandbox>(&world.alice, &named("demo", &made[0].id)).await.unwrap();
        assert_eq!(world.used("demo").await, 19);
        world.create("demo").await.unwrap();
    }

    fn a_sum_is_bounded_too(world, _host, []) {
        world.tenant("demo").await;
        let limit = Resources { cpu_milli: 2000, memory_bytes: 1 << 40, disk_bytes: 1 << 50, log_bytes: 1 << 40, pids: 1_000_000 };
        world.configure("demo", Settings { limit: Some(limit), sandboxes: None, policy: None }).await;
        world.create("demo").await.unwrap();
        world.create("demo").await.unwrap();
        assert_eq!(detail(world.create("demo").await, "dimension"), "vcpus");
    }

    fn a_key_makes_one_sandbox_however_often_it_is_sent(world, host, []) {
        world.tenant("demo").await;
        let request = creation("demo");
        let sends = (0..10).map(|_| world.keyed::<CreateSandbox>(&world.alice, "k-1", &request));
        let ids: Vec<_> = futures::future::join_all(sends).await.into_iter().map(|one| one.unwrap().id).collect();
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        assert_eq!((host.launched().len(), world.used("demo").await), (1, 1));
        let mut other = creation("demo");
        other.spec.process.argv = vec!["true".into()];
        let refused = world.keyed::<CreateSandbox>(&world.alice, "k-1", &other).await;
        assert_eq!(code(&refused), "op.conflict");
        assert_eq!(detail(refused, "reason"), "idempotency_key_reused");
        let fresh = world.keyed::<CreateSandbox>(&world.alice, "k-2", &request).await.unwrap();
        assert_ne!(fresh.id, ids[0]);
        assert_eq!(Key::new("k-2").as_str(), "k-2");
    }

    fn what_a_host_refuses_leaves_nothing_and_what_it_fails_is_told(world, host, []) {
        world.tenant("demo").await;
        *host.launching.lock().unwrap() = Launching::Refused(Code::ServiceSandboxBackendUnavailable);
        let refused = world.keyed::<CreateSandbox>(&world.alice, "k", &creation("demo")).await;
        assert_eq!(code(&refused), "service.sandbox_backend_unavailable");
        assert_eq!(world.used("demo").await, 0);
        *host.launching.lock().unwrap() = Launching::Refused(Code::ServiceInternal);
        let failed = world.create("demo").await.unwrap();
        assert_eq!(failed.status.lifecycle, Lifecycle::Failed);
        let said = failed.status.conditions.iter().find(|c| c.reason == "LaunchFailed");
        assert!(said.is_some(), "{:?}", failed.status.conditions);
        assert_eq!(world.used("demo").await, 0);
        *host.launching.lock().unwrap() = Launching::Ready;
        // The key of the one that was taken back is free again.
        world.keyed::<CreateSandbox>(&world.alice, "k", &creation("demo")).await.unwrap();
    }

    fn a_cold_one_is_told_of_by_its_host(world, host, []) {
        world.tenant("demo").await;
        *host.launching.lock().unwrap() = Launching::Starting;
        let made = world.create("demo").await.unwrap();
        assert_eq!(made.status.lifecycle, Lifecycle::Starting);
        let ready = host.set(&made.id, Lifecycle::Ready);
        host.report(vec![ready.clone()], vec![]).await;
        assert_eq!(world.sandbox("demo", &made.id).await.status.lifecycle, Lifecycle::Ready);
        let mut old = host.seen(&made.id, Lifecycle::NotReady);
        old.sequence = ready.sequence;
        host.report(vec![old], vec![]).await;
        assert_eq!(world.sandbox("demo", &made.id).await.status.lifecycle, Lifecycle::Ready, "old news");
        host.report(vec![host.set(&made.id, Lifecycle::Failed)], vec![]).await;
        let failed = world.sandbox("demo", &made.id).await;
        assert_eq!(failed.status.exit.map(|exit| exit.code), Some(1));
        host.report(vec![host.set(&made.id, Lifecycle::Ready)], vec![]).await;
        assert_eq!(world.sandbox("demo", &made.id).await, failed, "nothing revives it");
        assert_eq!(world.used("demo").await, 0);
    }

    fn volumes_keep_sandboxes_at_their_host(world, host, []) {
        world.tenant("demo").await;
        let other = world.host("host-b").await;
        let mut request = creation("demo");
        request.spec.mounts = Some(vec![Mount::Volume { name: "data".into(), target: "/data".into(), read_only: false }]);
        assert_eq!(code(&world.ask::<CreateSandbox>(&world.alice, &request).await), "op.invalid_input");
        world.ask::<EnsureVolume>(&world.alice, &named("demo", "data")).await.unwrap();
        let first = world.ask::<CreateSandbox>(&world.alice, &request).await.unwrap();
        for _ in 0..3 {
            let next = world.ask::<CreateSandbox>(&world.alice, &request).await.unwrap();
            assert_eq!(next.status.host, first.status.host);
        }
        let volume = world.ask::<ListVolumes>(&world.alice, &"demo".to_owned()).await.unwrap().remove(0);
        assert_eq!((volume.host, volume.used_by.len()), (first.status.host.clone(), 4));
        let refused = world.ask::<DeleteVolume>(&world.alice, &named("demo", "data")).await;
        assert_eq!(detail(refused, "reason"), "mounted");
        for id in volume.used_by {
            world.ask::<StopSandbox>(&world.alice, &named("demo", &id)).await.unwrap();
        }
        world.ask::<DeleteVolume>(&world.alice, &named("demo", "data")).await.unwrap();
        let told = [host.volumes_removed.lock().unwrap().clone(), other.volumes_removed.lock().unwrap().clone()].concat();
        assert_eq!(told, ["demo/data"]);
        assert!(world.ask::<ListVolumes>(&world.alice, &"demo".to_owned()).await.unwrap().is_empty());
    }

    fn three_hundred_at_once(world, host, []) {
        world.tenant("demo").await;
        let made = futures::future::join_all((0..300).map(|_| world.create("demo"))).await;
        assert!(made.iter().all(|one| one.as_ref().is_ok_and(|one| one.status.lifecycle == Lifecycle::Ready)));
        assert_eq!(world.used("demo").await, 300);
        assert_eq!(host.launched().len(), 300);
        let beat = host.beat().await;
        assert_eq!(beat, nimbus_proto::workloads::BeatReply::default(), "both agree");
    }

    fn force_deletes_what_runs(world, host, []) {
        world.tenant("demo").await;
        let made = world.create("demo").await.unwrap();
        *host.stops.lock().unwrap() = false;
        let delete = DeleteSandboxRequest { tenant: "demo".into(), id: made.id.clone(), force: true };
        let deleting = world.ask::<DeleteSandbox>(&world.alice, &delete);
        let ending = async {
            world.sandbox_until("demo", &made.id, Lifecycle::Stopping).await;
            host.report(vec![host.set(&made.id, Lifecycle::Stopped)], vec![]).await;
        };
        let (deleted, ()) = tokio::join!(deleting, ending);
        deleted.unwrap();
        eventually(|| world.used("demo"), |used| *used == 0).await;
    }
}
