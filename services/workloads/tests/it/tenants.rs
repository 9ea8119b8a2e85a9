//! Tenants from the first use to the last.

use nimbus_bus::Action;
use nimbus_proto::workloads::{
    CreateTenant, DeleteTenant, EnsureVolume, GetSandbox, GetTenant, Lifecycle, ListTenants, StartService,
};

use crate::world::{code, detail, grant, named, on_both};

on_both! {
    fn a_personal_tenant_is_there_when_it_is_first_used(world, _host, []) {
        let personal = world.alice.identity.personal_tenant();
        let made = world.create(&personal).await.unwrap();
        assert_eq!((made.tenant.as_str(), made.status.lifecycle), (personal.as_str(), Lifecycle::Ready));
        assert_eq!(code(&world.ask::<GetTenant>(&world.bob, &personal).await), "session.tenant_not_found");
        assert_eq!(world.ask::<ListTenants>(&world.alice, &()).await.unwrap().len(), 1);
        let bobs = world.ask::<ListTenants>(&world.bob, &()).await.unwrap();
        assert_eq!(bobs[0].id, world.bob.identity.personal_tenant());
    }

    fn ids_are_checked_and_taken_once(world, _host, []) {
        for bad in ["", "a b", "a/b", "_system", &world.bob.identity.personal_tenant()] {
            assert_eq!(code(&world.ask::<CreateTenant>(&world.alice, &bad.to_owned()).await), "op.invalid_input", "{bad}");
        }
        world.keyed::<CreateTenant>(&world.alice, "k", &"demo".to_owned()).await.unwrap();
        world.keyed::<CreateTenant>(&world.alice, "k", &"demo".to_owned()).await.unwrap();
        assert_eq!(code(&world.ask::<CreateTenant>(&world.alice, &"demo".to_owned()).await), "op.already_exists");
        assert_eq!(code(&world.ask::<CreateTenant>(&world.bob, &"demo".to_owned()).await), "op.already_exists");
        let key = world.by_key(vec![grant("demo", &[Action::Any])]);
        assert_eq!(code(&world.ask::<CreateTenant>(&key, &"more".to_owned()).await), "auth.permission_denied");
        assert_eq!(code(&world.ask::<DeleteTenant>(&key, &"demo".to_owned()).await), "auth.permission_denied");
    }

    fn deleting_ends_everything_in_it(world, host, []) {
        world.tenant("demo").await;
        let made = world.create("demo").await.unwrap();
        world.define("demo", "worker").await;
        world.ask::<StartService>(&world.alice, &named("demo", "worker")).await.unwrap();
        world.service_until("demo", "worker", Lifecycle::Ready).await;
        world.ask::<EnsureVolume>(&world.alice, &named("demo", "data")).await.unwrap();
        // A host that is away makes it fail, and nothing new begins meanwhile.
        host.vanish().await;
        let failing = world.gateway.call::<DeleteTenant>(&"demo".to_owned()).on_behalf_of(&world.alice)
            .timeout(std::time::Duration::from_secs(2)).await;
        assert!(failing.is_err());
        assert_eq!(detail(world.create("demo").await, "reason"), "tenant_deleting");
        host.serve().await;
        let demo = "demo".to_owned();
        let deleting = world.ask::<DeleteTenant>(&world.alice, &demo);
        let ending = async {
            let orders = host.beat().await;
            for (id, reason) in orders.stop {
                assert_eq!(reason, "TenantDeleted");
                host.report(vec![host.set(&id, Lifecycle::Stopped)], vec![]).await;
            }
        };
        let (deleted, ()) = tokio::join!(deleting, ending);
        deleted.unwrap();
        assert_eq!(code(&world.ask::<GetTenant>(&world.alice, &"demo".to_owned()).await), "session.tenant_not_found");
        assert_eq!(code(&world.ask::<DeleteTenant>(&world.alice, &"demo".to_owned()).await), "session.tenant_not_found");
        assert_eq!(host.removed.lock().unwrap().len(), 2);
        world.tenant("demo").await;
        assert_eq!(code(&world.ask::<GetSandbox>(&world.alice, &named("demo", &made.id)).await), "op.not_found");
    }
}
