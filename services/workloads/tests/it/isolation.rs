//! What one tenant has, another neither sees nor reaches.

use nimbus_guest::protocol::{CommandSpec, Request};
use nimbus_proto::Secret;
use nimbus_proto::workloads as api;
use nimbus_proto::workloads::{Channel, Page, SessionRef, Target, Through};

use crate::world::{code, creation, definition, named, on_both, owned};

on_both! {
    fn a_stranger_is_told_that_nothing_is_there(world, _host, []) {
        world.tenant("demo").await;
        let made = world.create("demo").await.unwrap();
        world.define("demo", "worker").await;
        let opening = |tenant: &str| api::OpenSessionRequest {
            tenant: tenant.into(), target: Target::Sandbox(made.id.clone()), channels: vec![Channel::Stdio], ttl_ms: None,
        };
        let session = world.ask::<api::OpenSession>(&world.alice, &opening("demo")).await.unwrap();
        world.ask::<api::CreateTenant>(&world.bob, &"other".to_owned()).await.unwrap();
        let bob = &world.bob;

        // Through the tenant that is not his: as if it did not exist.
        let list = |tenant: &str| api::ListRequest { tenant: tenant.into(), page: Page::default() };
        let write = definition("demo", "worker", api::Backend::Sandbox(Box::new(owned())));
        let by = |tenant: &str| Through::Sandbox { tenant: tenant.into(), id: made.id.clone() };
        let exec = |through| api::ExecRequest { through, command: CommandSpec::new("c", ["true"]), stdin: vec![], keep_bytes: 1 };
        let demo = "demo".to_owned();
        macro_rules! hidden {
            ($($method:ident($request:expr)),* $(,)?) => {
                $(assert_eq!(code(&world.ask::<api::$method>(bob, &$request).await), "session.tenant_not_found", stringify!($method));)*
            };
        }
        hidden![
            GetTenant(demo), DeleteTenant(demo), CreateService(write), GetService(named("demo", "worker")),
            ListServices(list("demo")), UpdateService(write), StartService(named("demo", "worker")),
            StopService(named("demo", "worker")),
            DeleteService(api::DeleteServiceRequest { tenant: "demo".into(), name: "worker".into(), if_generation: 1, force: true }),
            RestartService(api::RestartServiceRequest { tenant: "demo".into(), name: "worker".into(), source_generation: None, request_id: None }),
            CreateSandbox(creation("demo")), GetSandbox(named("demo", &made.id)), ListSandboxes(list("demo")),
            StopSandbox(named("demo", &made.id)),
            DeleteSandbox(api::DeleteSandboxRequest { tenant: "demo".into(), id: made.id.clone(), force: true }),
            ExtendSandbox(api::ExtendSandboxRequest { tenant: "demo".into(), id: made.id.clone(), ttl_ms: Some(5000), idle_timeout_ms: None }),
            OpenSession(opening("demo")), ListSessions(list("demo")),
            PutSecret(api::PutSecretRequest { tenant: "demo".into(), name: "a".into(), value: Secret::new("b") }),
            ListSecrets(demo), DeleteSecret(named("demo", "a")),
            EnsureVolume(named("demo", "a")), ListVolumes(demo), DeleteVolume(named("demo", "a")),
            Exec(exec(by("demo"))),
            Control(api::ControlRequest { through: by("demo"), request: Request::Ping }),
            CreatePreview(api::PreviewRequest { tenant: "demo".into(), sandbox: made.id.clone(), port: 80, ttl_ms: None }),
        ];

        // By id, through his own tenant or none.
        let of = SessionRef { tenant: None, id: session.id.clone() };
        let by_session = Through::Session { id: session.id.clone(), tenant: None, channel: Channel::Stdio };
        macro_rules! missing {
            ($($method:ident($request:expr)),* $(,)?) => {
                $(assert_eq!(code(&world.ask::<api::$method>(bob, &$request).await), "op.not_found", stringify!($method));)*
            };
        }
        missing![
            GetSandbox(named("other", &made.id)), StopSandbox(named("other", &made.id)), OpenSession(opening("other")),
            GetSession(of), CloseSession(api::CloseSessionRequest { session: of.clone(), reason: None }), CreateTicket(of),
            Exec(exec(by("other"))), Exec(exec(by_session)),
        ];
        let hinted = SessionRef { tenant: Some("other".into()), id: session.id.clone() };
        missing![GetSession(hinted)];

        // A key of the one tenant is nobody in the other; what exists there looks like what does not.
        let key = world.by_key(vec![crate::world::grant("other", &[nimbus_bus::Action::Any])]);
        for tenant in ["demo", "nowhere"] {
            let refused = world.ask::<api::GetSandbox>(&key, &named(tenant, &made.id)).await.unwrap_err();
            assert_eq!(refused.code, "session.tenant_not_found");
            assert_eq!(refused.message, format!("there is no tenant {tenant}"));
        }
        let untouched = world.sandbox("demo", &made.id).await;
        assert_eq!(untouched, made);
        let seen = world.ask::<api::ListTenants>(bob, &()).await.unwrap();
        assert!(seen.iter().all(|tenant| tenant.id != "demo"));
        let all = world.ask::<api::ListTenants>(&world.admin, &()).await.unwrap();
        assert!(all.iter().any(|tenant| tenant.id == "demo"));
    }
}
