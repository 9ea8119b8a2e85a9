//! Definitions, generations, and what runs behind a name.

use nimbus_bus::{Action, Sandboxes};
use nimbus_proto::workloads::{
    Backend, Channel, ConditionKind, CreateService, DeleteService, DeleteServiceRequest, GetSession, Health,
    Lifecycle, OpenSession, OpenSessionRequest, Provider, RestartService, RestartServiceRequest, Service,
    SessionRef, SessionState, ShownBackend, StartService, StopService, Target, UpdateService, WriteService,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{code, definition, detail, eventually, grant, named, on_both, owned};

fn update(name: &str, generation: u64, backend: Backend) -> WriteService {
    WriteService {
        if_generation: Some(generation),
        ..definition("demo", name, backend)
    }
}

fn sandbox() -> Backend {
    Backend::Sandbox(Box::new(owned()))
}

fn deletion(generation: u64, force: bool) -> DeleteServiceRequest {
    DeleteServiceRequest {
        tenant: "demo".into(),
        name: "worker".into(),
        if_generation: generation,
        force,
    }
}

fn running(service: &Service) -> &str {
    service.status.sandbox.as_deref().expect("it runs")
}

on_both! {
    fn the_worked_example_of_generations(world, host, []) {
        world.tenant("demo").await;
        let made = world.define("demo", "worker").await;
        assert_eq!((made.generation, made.status.lifecycle), (1, Lifecycle::Stopped));
        let again = world.ask::<CreateService>(&world.alice, &definition("demo", "worker", sandbox())).await;
        assert_eq!(code(&again), "op.already_exists");

        world.ask::<StartService>(&world.alice, &named("demo", "worker")).await.unwrap();
        let ready = world.service_until("demo", "worker", Lifecycle::Ready).await;
        assert_eq!((ready.generation, ready.status.health), (1, Health::Healthy));
        let sandbox = running(&ready).to_owned();
        let same = world.ask::<StartService>(&world.alice, &named("demo", "worker")).await.unwrap();
        assert_eq!(running(&same), sandbox, "a second start joins the first");

        let open = OpenSessionRequest { tenant: "demo".into(), target: Target::Service("worker".into()), channels: vec![Channel::Stdio], ttl_ms: None };
        let session = world.ask::<OpenSession>(&world.alice, &open).await.unwrap();

        let builtin = update("worker", 1, Backend::BuiltIn(Provider::LoadBalancer));
        let updated = world.ask::<UpdateService>(&world.alice, &builtin).await.unwrap();
        assert_eq!((updated.generation, updated.status.lifecycle), (2, Lifecycle::Declared));
        let closed = world.ask::<GetSession>(&world.alice, &SessionRef { tenant: None, id: session.id.clone() }).await.unwrap();
        assert_eq!((closed.state, closed.close_reason.as_deref()), (SessionState::Closed, Some("target_replaced")));

        let stale = world.ask::<UpdateService>(&world.alice, &builtin).await;
        assert_eq!(code(&stale), "op.precondition_failed");
        assert_eq!((detail(stale.clone(), "expectedGeneration"), detail(stale, "currentGeneration")), (1.into(), 2.into()));
        let stale = world.ask::<DeleteService>(&world.alice, &deletion(1, false)).await;
        assert_eq!(code(&stale), "op.precondition_failed");
        world.ask::<DeleteService>(&world.alice, &deletion(2, false)).await.unwrap();
        world.sandbox_until("demo", &sandbox, Lifecycle::Stopped).await;
        eventually(|| async { host.ended_sessions.lock().unwrap().clone() }, |ended| {
            *ended == [(session.id.clone(), "target_replaced".to_owned())]
        }).await;
        let fresh = world.define("demo", "worker").await;
        assert_eq!(fresh.generation, 1);
        assert_ne!(fresh.uid, made.uid);
    }

    fn a_repeated_update_with_its_key_is_no_stale_one(world, _host, []) {
        world.tenant("demo").await;
        world.define("demo", "worker").await;
        let builtin = update("worker", 1, Backend::BuiltIn(Provider::Browser));
        for _ in 0..2 {
            let done = world.keyed::<UpdateService>(&world.alice, "k", &builtin).await.unwrap();
            assert_eq!(done.generation, 2);
        }
    }

    fn labels_alone_leave_the_instance_alone(world, _host, []) {
        world.tenant("demo").await;
        world.define("demo", "worker").await;
        world.ask::<StartService>(&world.alice, &named("demo", "worker")).await.unwrap();
        let ready = world.service_until("demo", "worker", Lifecycle::Ready).await;
        let mut labels = update("worker", 1, sandbox());
        labels.labels = Some([("team".to_owned(), "search".to_owned())].into());
        let updated = world.ask::<UpdateService>(&world.alice, &labels).await.unwrap();
        assert_eq!((updated.generation, running(&updated)), (2, running(&ready)));
        assert_eq!(updated.status.observed_generation, 2);
        let kept = world.ask::<UpdateService>(&world.alice, &update("worker", 2, sandbox())).await.unwrap();
        assert_eq!(kept.labels, updated.labels, "absent labels are kept");

        let mut changed = owned();
        changed.process.argv = vec!["sleep".into(), "9".into()];
        let mut request = update("worker", 3, Backend::Sandbox(Box::new(changed)));
        request.reject_active = true;
        assert_eq!(code(&world.ask::<UpdateService>(&world.alice, &request).await), "op.conflict");
        request.reject_active = false;
        let replacing = world.ask::<UpdateService>(&world.alice, &request).await.unwrap();
        assert_eq!(replacing.status.lifecycle, Lifecycle::Starting);
        assert!(replacing.status.conditions.iter().any(|c| c.kind == ConditionKind::Progressing));
        let next = eventually(|| world.service("demo", "worker"), |service| {
            service.status.lifecycle == Lifecycle::Ready && service.status.sandbox != ready.status.sandbox
        }).await;
        assert_eq!((next.generation, next.status.observed_generation), (4, 4));
    }

    fn a_restart_makes_a_new_sandbox_once(world, _host, []) {
        world.tenant("demo").await;
        world.define("demo", "worker").await;
        world.ask::<StartService>(&world.alice, &named("demo", "worker")).await.unwrap();
        let first = world.service_until("demo", "worker", Lifecycle::Ready).await;
        let request = |generation, id: &str| RestartServiceRequest {
            tenant: "demo".into(), name: "worker".into(), source_generation: Some(generation), request_id: Some(id.into()),
        };
        assert_eq!(code(&world.ask::<RestartService>(&world.alice, &request(7, "x")).await), "op.precondition_failed");
        world.ask::<RestartService>(&world.alice, &request(1, "r1")).await.unwrap();
        let second = eventually(|| world.service("demo", "worker"), |service| {
            service.status.lifecycle == Lifecycle::Ready && service.status.sandbox != first.status.sandbox
        }).await;
        assert_eq!((second.generation, second.status.restarts), (1, 0));
        let same = world.ask::<RestartService>(&world.alice, &request(1, "r1")).await.unwrap();
        assert_eq!(same.status.sandbox, second.status.sandbox, "a repeat does nothing");
    }

    fn stopping_and_what_collides_with_it(world, host, []) {
        world.tenant("demo").await;
        world.define("demo", "worker").await;
        let of = named("demo", "worker");
        world.ask::<StartService>(&world.alice, &of).await.unwrap();
        let ready = world.service_until("demo", "worker", Lifecycle::Ready).await;
        assert_eq!(detail(world.ask::<DeleteService>(&world.alice, &deletion(1, false)).await, "reason"), "running");
        *host.stops.lock().unwrap() = false;
        let stopping = world.ask::<StopService>(&world.alice, &of).await.unwrap();
        assert_eq!(stopping.status.lifecycle, Lifecycle::Stopping);
        for collision in [
            code(&world.ask::<StartService>(&world.alice, &of).await).to_owned(),
            code(&world.ask::<UpdateService>(&world.alice, &update("worker", 1, sandbox())).await).to_owned(),
        ] {
            assert_eq!(collision, "op.conflict");
        }
        host.report(vec![host.set(running(&ready), Lifecycle::Stopped)], vec![]).await;
        let stopped = world.service_until("demo", "worker", Lifecycle::Stopped).await;
        assert_eq!(stopped.status.sandbox, None);
        world.ask::<StopService>(&world.alice, &of).await.unwrap();
        *host.stops.lock().unwrap() = true;
        world.ask::<StartService>(&world.alice, &of).await.unwrap();
        world.service_until("demo", "worker", Lifecycle::Ready).await;
        world.ask::<DeleteService>(&world.alice, &deletion(1, true)).await.unwrap();
        assert_eq!(world.used("demo").await, 0);
    }

    fn what_is_not_run_here_cannot_be_started(world, _host, []) {
        world.tenant("demo").await;
        let builtin = definition("demo", "lb", Backend::BuiltIn(Provider::LoadBalancer));
        let made = world.ask::<CreateService>(&world.alice, &builtin).await.unwrap();
        assert_eq!(made.status.lifecycle, Lifecycle::Declared);
        let refused = world.ask::<StartService>(&world.alice, &named("demo", "lb")).await;
        assert_eq!(detail(refused, "reason"), "backend_not_launchable");
        assert_eq!(code(&world.ask::<StopService>(&world.alice, &named("demo", "lb")).await), "op.conflict");
        assert_eq!(code(&world.ask::<StartService>(&world.alice, &named("demo", "none")).await), "op.not_found");
    }

    fn keys_see_what_they_may(world, _host, []) {
        world.tenant("demo").await;
        world.define("demo", "worker").await;
        world.define("demo", "db").await;
        let mut only = grant("demo", &[Action::ServicesList, Action::ServicesStart]);
        only.services = Some(vec!["worker".into()]);
        only.sandboxes = Sandboxes::All;
        let key = world.by_key(vec![only]);
        let seen = world.ask::<nimbus_proto::workloads::ListServices>(&key, &nimbus_proto::workloads::ListRequest {
            tenant: "demo".into(), page: nimbus_proto::workloads::Page::default(),
        }).await.unwrap();
        assert_eq!(seen.items.len(), 1);
        assert_eq!(seen.items[0].backend, ShownBackend::Redacted("sandbox".into()));
        assert_eq!(code(&world.ask::<StartService>(&key, &named("demo", "db")).await), "auth.permission_denied");
        world.ask::<StartService>(&key, &named("demo", "worker")).await.unwrap();
        assert_eq!(code(&world.ask::<StopService>(&key, &named("demo", "worker")).await), "auth.permission_denied");
    }

    fn external_services_are_asked_for_their_health(world, _host, ["--external-check-interval", "1"]) {
        world.tenant("demo").await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answering = tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut asked = [0; 1024];
                let read = socket.read(&mut asked).await.unwrap_or(0);
                let good = asked[..read].starts_with(b"GET /base/health ");
                let status = if good { "204 No Content" } else { "404 Not Found" };
                let _ = socket.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").as_bytes()).await;
            }
        });
        let external = Backend::External { url: format!("http://{address}/base"), health_path: "/health".into() };
        world.ask::<CreateService>(&world.alice, &definition("demo", "api", external)).await.unwrap();
        let healthy = eventually(|| world.service("demo", "api"), |s| s.status.health == Health::Healthy).await;
        assert_eq!(healthy.status.lifecycle, Lifecycle::Declared);
        answering.abort();
        eventually(|| world.service("demo", "api"), |s| s.status.health == Health::Unhealthy).await;
    }
}
