//! Leases: opened on what is ready, ended by time, by hand and by their target.

use std::time::Duration;

use nimbus_bus::{Action, Sandboxes};
use nimbus_proto::workloads::{
    Channel, CloseSession, CloseSessionRequest, CreateTicket, GetSession, Lifecycle, ListRequest,
    ListSessions, OpenSession, OpenSessionRequest, Page, Provider, RedeemTicket, SessionRef, SessionState,
    StopSandbox, Target, WorkSession,
};

use crate::agent::Launching;
use crate::world::{code, creation, definition, detail, eventually, grant, named, on_both};

fn opening(target: Target, channels: &[Channel]) -> OpenSessionRequest {
    OpenSessionRequest {
        tenant: "demo".into(),
        target,
        channels: channels.to_vec(),
        ttl_ms: None,
    }
}

fn of(session: &WorkSession) -> SessionRef {
    SessionRef {
        tenant: None,
        id: session.id.clone(),
    }
}

on_both! {
    fn every_check_of_an_opening(world, host, []) {
        use Channel::{Cdp, Files, Stdio};
        world.tenant("demo").await;
        *host.launching.lock().unwrap() = Launching::Starting;
        let made = world.create("demo").await.unwrap();
        let target = || Target::Sandbox(made.id.clone());
        for channels in [&[][..], &[Stdio, Stdio], &[Stdio; 9]] {
            assert_eq!(code(&world.ask::<OpenSession>(&world.alice, &opening(target(), channels)).await), "op.invalid_input");
        }
        let missing = opening(Target::Sandbox("x-01jzzzzzzzzzzzzzzzzzzzzzzz".into()), &[Stdio]);
        assert_eq!(code(&world.ask::<OpenSession>(&world.alice, &missing).await), "op.not_found");
        let browser = world.ask::<OpenSession>(&world.alice, &opening(target(), &[Cdp])).await;
        assert_eq!(detail(browser, "offered"), serde_json::json!(["stdio", "files"]));
        let early = world.ask::<OpenSession>(&world.alice, &opening(target(), &[Stdio])).await;
        assert_eq!((code(&early), detail(early.clone(), "lifecycleState")), ("op.conflict", "starting".into()));
        host.report(vec![host.set(&made.id, Lifecycle::Ready)], vec![]).await;
        let mut zero = opening(target(), &[Stdio]);
        zero.ttl_ms = Some(0);
        assert_eq!(code(&world.ask::<OpenSession>(&world.alice, &zero).await), "op.invalid_input");

        let mut long = opening(target(), &[Stdio, Files]);
        long.ttl_ms = Some(24 * 3_600_000);
        let opened = world.ask::<OpenSession>(&world.alice, &long).await.unwrap();
        assert_eq!(opened.expires_at.since(opened.created_at), Duration::from_secs(3600), "clamped");
        let usual = world.ask::<OpenSession>(&world.alice, &opening(target(), &[Files])).await.unwrap();
        assert_eq!(usual.expires_at.since(usual.created_at), Duration::from_secs(900));

        let builtin = nimbus_proto::workloads::Backend::BuiltIn(Provider::Browser);
        world.ask::<nimbus_proto::workloads::CreateService>(&world.alice, &definition("demo", "web", builtin)).await.unwrap();
        let refused = world.ask::<OpenSession>(&world.alice, &opening(Target::Service("web".into()), &[Cdp])).await;
        assert_eq!(detail(refused, "reason"), "backend_not_launchable");
        world.define("demo", "worker").await;
        let refused = world.ask::<OpenSession>(&world.alice, &opening(Target::Service("worker".into()), &[Stdio])).await;
        assert_eq!(detail(refused, "lifecycleState"), "stopped");

        let files = world.by_key(vec![nimbus_bus::Grant {
            channels: Some(vec!["files".into()]), sandboxes: Sandboxes::All, ..grant("demo", &[Action::SessionsOpen])
        }]);
        assert_eq!(code(&world.ask::<OpenSession>(&files, &opening(target(), &[Stdio])).await), "auth.permission_denied");
        world.ask::<OpenSession>(&files, &opening(target(), &[Files])).await.unwrap();
    }

    fn closing_is_final_and_told(world, host, []) {
        world.tenant("demo").await;
        let made = world.create("demo").await.unwrap();
        let request = opening(Target::Sandbox(made.id.clone()), &[Channel::Stdio]);
        let session = world.keyed::<OpenSession>(&world.alice, "k", &request).await.unwrap();
        let same = world.keyed::<OpenSession>(&world.alice, "k", &request).await.unwrap();
        assert_eq!(same.id, session.id);
        let close = |reason: &str| CloseSessionRequest { session: of(&session), reason: Some(reason.into()) };
        let closed = world.ask::<CloseSession>(&world.alice, &close("  enough  ")).await.unwrap();
        assert_eq!((closed.state, closed.generation, closed.close_reason.as_deref()), (SessionState::Closed, 2, Some("enough")));
        let again = world.ask::<CloseSession>(&world.alice, &close("other")).await.unwrap();
        assert_eq!(again, closed);
        eventually(|| async { host.ended_sessions.lock().unwrap().len() }, |ended| *ended == 1).await;

        let session = world.ask::<OpenSession>(&world.alice, &request).await.unwrap();
        world.ask::<StopSandbox>(&world.alice, &named("demo", &made.id)).await.unwrap();
        let gone = world.ask::<GetSession>(&world.alice, &of(&session)).await.unwrap();
        assert_eq!((gone.close_reason.as_deref(), gone.conditions[0].reason.as_str()), (Some("target_stopped"), "TargetGone"));
    }

    fn time_ends_a_session_though_nobody_looks(world, host, ["--tenant-sessions", "1"]) {
        world.tenant("demo").await;
        let made = world.create("demo").await.unwrap();
        let request = opening(Target::Sandbox(made.id.clone()), &[Channel::Stdio]);
        let session = world.ask::<OpenSession>(&world.alice, &request).await.unwrap();
        assert_eq!(detail(world.ask::<OpenSession>(&world.alice, &request).await, "dimension"), "sessions");
        world.jump.forward(Duration::from_secs(901));
        host.beat().await;
        let shown = world.ask::<GetSession>(&world.alice, &of(&session)).await.unwrap();
        assert_eq!((shown.state, shown.close_reason.as_deref()), (SessionState::Expired, Some("expired")));
        eventually(|| async { host.ended_sessions.lock().unwrap().clone() }, |ended| {
            *ended == [(session.id.clone(), "expired".to_owned())]
        }).await;
        world.ask::<OpenSession>(&world.alice, &request).await.unwrap();
        let list = |state: &str| ListRequest { tenant: "demo".into(), page: Page { state: Some(state.into()), ..Page::default() } };
        for (state, count) in [("open", 1), ("expired", 1), ("closed", 0)] {
            let found = world.ask::<ListSessions>(&world.alice, &list(state)).await.unwrap();
            assert_eq!(found.items.len(), count, "{state}");
        }
        assert_eq!(code(&world.ask::<ListSessions>(&world.alice, &list("x")).await), "op.invalid_input");
    }

    fn a_ticket_works_once(world, host, []) {
        world.tenant("demo").await;
        let made = world.create("demo").await.unwrap();
        let request = opening(Target::Sandbox(made.id.clone()), &[Channel::Stdio]);
        let session = world.ask::<OpenSession>(&world.alice, &request).await.unwrap();
        let ticket = world.ask::<CreateTicket>(&world.alice, &of(&session)).await.unwrap().ticket;
        let redeemed = world.gateway.call::<RedeemTicket>(&ticket).await.unwrap();
        assert_eq!(redeemed.session, session.id);
        assert_eq!(redeemed.access_token.reveal(), world.alice.token.reveal());
        assert_eq!(code(&world.gateway.call::<RedeemTicket>(&ticket).await), "auth.unauthorized");
        let late = world.ask::<CreateTicket>(&world.alice, &of(&session)).await.unwrap().ticket;
        world.jump.forward(Duration::from_secs(61));
        assert_eq!(code(&world.gateway.call::<RedeemTicket>(&late).await), "auth.unauthorized");
        assert_eq!(creation("demo").tenant, "demo");
        drop(host.host.clone());
    }
}
