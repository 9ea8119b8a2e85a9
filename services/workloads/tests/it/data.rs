//! Commands, questions, streams and links.

use std::time::Duration;

use nimbus_bus::{Action, Grant, Sandboxes, StreamId};
use nimbus_guest::protocol::{CommandSpec, Hello, Request};
use nimbus_proto::Secret;
use nimbus_proto::workloads::{
    Channel, CloseSession, CloseSessionRequest, Control, ControlRequest, CreatePreview, Exec, ExecRequest,
    Open, OpenPreview, OpenRequest, OpenSession, OpenSessionRequest, PreviewRequest, SessionRef,
    StartService, StopSandbox, Target, Through, UpdateService, Wanted,
};

use crate::world::{code, definition, detail, grant, named, on_both, owned};

fn straight(id: &str) -> Through {
    Through::Sandbox {
        tenant: "demo".into(),
        id: id.to_owned(),
    }
}

fn exec(through: Through) -> ExecRequest {
    ExecRequest {
        through,
        command: CommandSpec::new("c1", ["true"]),
        stdin: vec![],
        keep_bytes: u32::MAX,
    }
}

fn open(through: Through, wanted: Wanted) -> OpenRequest {
    OpenRequest {
        stream: StreamId::fresh(),
        word: "stdio".into(),
        through,
        wanted,
    }
}

on_both! {
    fn commands_reach_what_is_ready(world, host, []) {
        world.tenant("demo").await;
        let made = world.create("demo").await.unwrap();
        let done = world.ask::<Exec>(&world.alice, &exec(straight(&made.id))).await.unwrap();
        assert_eq!((done.command.as_str(), done.code), ("c1", Some(0)));
        let sent = host.execs.lock().unwrap()[0].clone();
        assert_eq!((sent.keep_bytes, sent.command.timeout_ms, sent.lease), (1 << 20, Some(60_000), None));

        let ask = |request| ControlRequest { through: straight(&made.id), request };
        world.ask::<Control>(&world.alice, &ask(Request::Ping)).await.unwrap();
        assert_eq!(code(&world.ask::<Control>(&world.alice, &ask(Request::Shutdown)).await), "auth.permission_denied");
        for hello in [Hello::Control, Hello::Egress] {
            let refused = world.ask::<Open>(&world.alice, &open(straight(&made.id), Wanted::Guest(hello))).await;
            assert_eq!(code(&refused), "auth.permission_denied");
        }
        let opened = world.ask::<Open>(&world.alice, &open(straight(&made.id), Wanted::Guest(Hello::Connect { port: 80 }))).await.unwrap();
        assert_eq!((opened.sandbox.as_str(), opened.target_generation), (made.id.as_str(), 1));

        host.vanish().await;
        world.jump.forward(Duration::from_secs(11));
        let away = world.ask::<Exec>(&world.alice, &exec(straight(&made.id))).await.unwrap_err();
        assert_eq!((away.code.as_str(), away.retryable), ("service.unavailable", true));
        host.serve().await;
        host.beat().await;
        world.ask::<StopSandbox>(&world.alice, &named("demo", &made.id)).await.unwrap();
        let over = world.ask::<Exec>(&world.alice, &exec(straight(&made.id))).await;
        assert_eq!((code(&over), detail(over.clone(), "lifecycleState")), ("op.conflict", "stopped".into()));
        let logs = Wanted::Logs { tail: None, since: None, follow: false };
        world.ask::<Open>(&world.alice, &open(straight(&made.id), logs)).await.unwrap();
    }

    fn a_session_carries_its_own_channels_while_it_is_open(world, host, []) {
        world.tenant("demo").await;
        world.define("demo", "worker").await;
        world.ask::<StartService>(&world.alice, &named("demo", "worker")).await.unwrap();
        world.service_until("demo", "worker", nimbus_proto::workloads::Lifecycle::Ready).await;
        let request = OpenSessionRequest {
            tenant: "demo".into(), target: Target::Service("worker".into()), channels: vec![Channel::Stdio], ttl_ms: None,
        };
        let session = world.ask::<OpenSession>(&world.alice, &request).await.unwrap();
        let by = |channel| Through::Session { id: session.id.clone(), tenant: None, channel };
        world.ask::<Exec>(&world.alice, &exec(by(Channel::Stdio))).await.unwrap();
        let lease = host.execs.lock().unwrap()[0].lease.clone().unwrap();
        assert_eq!((lease.session, lease.expires_at), (session.id.clone(), session.expires_at));
        assert_eq!(code(&world.ask::<Exec>(&world.alice, &exec(by(Channel::Files))).await), "op.invalid_input");
        let list = ControlRequest {
            through: by(Channel::Stdio),
            request: Request::List { path: "/".into(), after: None, limit: 10 },
        };
        assert_eq!(code(&world.ask::<Control>(&world.alice, &list).await), "op.invalid_input");

        // A new generation of the same definition: the instance stays, the lease has to be taken anew.
        let mut update = definition("demo", "worker", nimbus_proto::workloads::Backend::Sandbox(Box::new(owned())));
        update.if_generation = Some(1);
        world.ask::<UpdateService>(&world.alice, &update).await.unwrap();
        let changed = world.ask::<Exec>(&world.alice, &exec(by(Channel::Stdio))).await;
        assert_eq!(detail(changed, "reason"), "target_changed");
        let session = world.ask::<OpenSession>(&world.alice, &request).await.unwrap();
        let close = CloseSessionRequest { session: SessionRef { tenant: None, id: session.id.clone() }, reason: None };
        world.ask::<CloseSession>(&world.alice, &close).await.unwrap();
        let by = Through::Session { id: session.id, tenant: None, channel: Channel::Stdio };
        assert_eq!(detail(world.ask::<Exec>(&world.alice, &exec(by)).await, "reason"), "session_over");
        let through = Through::Service { tenant: "demo".into(), name: "worker".into() };
        world.ask::<Exec>(&world.alice, &exec(through)).await.unwrap();
    }

    fn a_link_leads_to_one_port_until_it_ends(world, host, []) {
        world.tenant("demo").await;
        let made = world.create("demo").await.unwrap();
        let request = PreviewRequest { tenant: "demo".into(), sandbox: made.id.clone(), port: 8080, ttl_ms: Some(60_000) };
        let link = world.ask::<CreatePreview>(&world.alice, &request).await.unwrap();
        let by = |token: Secret, port| open(Through::Preview { token }, Wanted::Guest(Hello::Connect { port }));
        world.gateway.call::<OpenPreview>(&by(link.token.clone(), 8080)).await.unwrap();
        assert_eq!(host.opens.lock().unwrap().len(), 1);
        assert_eq!(code(&world.gateway.call::<OpenPreview>(&by(link.token.clone(), 22)).await), "auth.permission_denied");
        let forged = Secret::new(format!("{}x", link.token.reveal()));
        assert_eq!(code(&world.gateway.call::<OpenPreview>(&by(forged, 8080)).await), "auth.unauthorized");
        let stranger = PreviewRequest { port: 3128, ..request.clone() };
        assert_eq!(code(&world.ask::<CreatePreview>(&world.alice, &stranger).await), "op.invalid_input");
        world.jump.forward(Duration::from_secs(61));
        assert_eq!(code(&world.gateway.call::<OpenPreview>(&by(link.token, 8080)).await), "auth.unauthorized");
    }

    fn a_key_reaches_its_own_sandboxes_only(world, _host, []) {
        world.tenant("demo").await;
        let actions = [Action::SandboxesCreate, Action::SandboxesExec, Action::SandboxesList];
        let mine = world.by_key(vec![grant("demo", &actions)]);
        let all = world.by_key(vec![Grant { sandboxes: Sandboxes::All, ..grant("demo", &actions) }]);
        let other = world.create("demo").await.unwrap();
        let own = world.ask::<nimbus_proto::workloads::CreateSandbox>(&mine, &crate::world::creation("demo")).await.unwrap();
        world.ask::<Exec>(&mine, &exec(straight(&own.id))).await.unwrap();
        assert_eq!(code(&world.ask::<Exec>(&mine, &exec(straight(&other.id))).await), "op.not_found");
        world.ask::<Exec>(&all, &exec(straight(&other.id))).await.unwrap();
        let list = nimbus_proto::workloads::ListRequest { tenant: "demo".into(), page: nimbus_proto::workloads::Page::default() };
        for (who, count) in [(&mine, 1), (&all, 2)] {
            let seen = world.ask::<nimbus_proto::workloads::ListSandboxes>(who, &list).await.unwrap();
            assert_eq!(seen.items.len(), count);
        }
        assert_eq!(code(&world.ask::<StopSandbox>(&mine, &named("demo", &own.id)).await), "auth.permission_denied");
    }
}
