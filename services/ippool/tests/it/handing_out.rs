//! Handing out addresses.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use futures::StreamExt;
use nimbus_bus::{EventFilter, EventStart, Key};
use nimbus_errors::{Code, Fault};
use nimbus_model::MachineId;
use nimbus_proto::event::AddressChanged;
use nimbus_proto::ippool::{
    AddressSource, AddressStatus, Allocate, AllocateRequest, Lease, List, PoolStatus, Reconcile, Release,
    ReleaseRequest, Reserve, ReserveRequest, Status,
};
use nimbus_pve_sim::{Fault as Trouble, FaultMode};
use nimbus_store::testing::{on_both, sqlite};

use crate::world::{Settings, Shared, World, within};

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

async fn reserve(world: &World, machine: MachineId) -> Result<Lease, Fault> {
    let request = ReserveRequest {
        machine,
        hostname: "web".into(),
    };
    world
        .provisioner
        .call::<Reserve>(&request)
        .key(Key::of(machine))
        .await
}

async fn status(world: &World) -> PoolStatus {
    world.provisioner.call::<Status>(&()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_from_promise_to_return_with_an_event_for_each_step() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let replica = world.replica(Settings::default()).await;
        let filter = EventFilter {
            subjects: vec!["nimbus.v1.event.address.>".into()],
            start: EventStart::All,
        };
        let mut events = Box::pin(world.gateway.events(filter));

        let machine = MachineId::fresh();
        let lease = reserve(&world, machine).await.unwrap();
        assert_eq!(
            lease,
            Lease {
                ip: ip("10.77.0.8"),
                prefix: 24,
                gateway: ip("10.77.0.1")
            }
        );
        assert_eq!(reserve(&world, machine).await.unwrap(), lease);
        let request = AllocateRequest {
            machine,
            ip: lease.ip,
            vmid: 101,
        };
        for _ in 0..2 {
            world.provisioner.call::<Allocate>(&request).await.unwrap();
        }
        assert_eq!(reserve(&world, machine).await.unwrap(), lease);
        let address = world.address("10.77.0.8").await;
        assert_eq!(
            (address.status, address.vmid, address.machine),
            (AddressStatus::Allocated, Some(101), Some(machine))
        );
        assert!(!address.stranded && address.hostname.as_deref() == Some("web"));
        for _ in 0..2 {
            world
                .provisioner
                .call::<Release>(&ReleaseRequest { machine })
                .await
                .unwrap();
        }
        assert_eq!(
            status(&world).await,
            PoolStatus {
                total: 33,
                free: 33,
                reserved: 0,
                allocated: 0
            }
        );

        let mut seen = Vec::new();
        while seen.len() < 4 {
            let event = within(events.next()).await.unwrap().unwrap().event;
            seen.push(event.read::<AddressChanged>().unwrap().unwrap().address.status);
        }
        use AddressStatus::{Allocated, Free, Reserved};
        // The second one is the promise renewed.
        assert_eq!(seen, [Reserved, Reserved, Allocated, Free]);
        replica.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_administrators_see_the_pool() {
    let db = sqlite().await;
    let world = World::start(&db.db).await;
    let _replica = world.replica(Settings::default()).await;
    assert!(
        world
            .gateway
            .call::<List>(&())
            .await
            .unwrap_err()
            .is(Code::AuthUnauthorized)
    );
    for fault in [
        world
            .gateway
            .call::<List>(&())
            .on_behalf_of(&world.member)
            .await
            .unwrap_err(),
        world
            .gateway
            .call::<Reconcile>(&())
            .on_behalf_of(&world.member)
            .await
            .unwrap_err(),
    ] {
        assert!(fault.is(Code::AuthPermissionDenied), "{fault}");
    }
    assert_eq!(world.list().await.len(), 33);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_and_fifty_callers_share_one_pool() {
    on_both(|db| async move {
        let world: Shared = Arc::new(World::start(&db.db).await);
        let pool = [
            "--ip-pool-start",
            "10.77.0.20",
            "--ip-pool-end",
            "10.77.0.29",
            "--gateway-ip",
            "10.77.0.1",
            "--reconcile-interval",
            "0",
        ];
        let settings = || Settings {
            flags: pool.to_vec(),
            cluster: true,
        };
        let (one, other) = (world.replica(settings()).await, world.replica(settings()).await);
        let calls: Vec<_> = (0..50)
            .map(|_| {
                let world = Arc::clone(&world);
                tokio::spawn(async move { reserve(&world, MachineId::fresh()).await })
            })
            .collect();
        let (mut won, mut exhausted) = (BTreeSet::new(), 0);
        for call in calls {
            match call.await.unwrap() {
                Ok(lease) => assert!(won.insert(lease.ip), "{} was given twice", lease.ip),
                Err(fault) if fault.is(Code::IppoolExhausted) => exhausted += 1,
                Err(fault) => panic!("{fault}"),
            }
        }
        assert_eq!((won.len(), exhausted), (10, 40));
        one.stop().await;
        other.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_of_foreign_guests_are_not_handed_out() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let _replica = world.replica(Settings::default()).await;
        // The simulator's own foreign guests, a machine and a container, have .10 and .11.
        let given: Vec<Lease> =
            futures::future::join_all((0..4).map(|_| reserve(&world, MachineId::fresh())))
                .await
                .into_iter()
                .map(Result::unwrap)
                .collect();
        let given: BTreeSet<Ipv4Addr> = given.into_iter().map(|lease| lease.ip).collect();
        assert!(
            !given.contains(&ip("10.77.0.10")) && !given.contains(&ip("10.77.0.11")),
            "{given:?}"
        );
        let adopted = world.address("10.77.0.10").await;
        assert_eq!(
            (adopted.status, adopted.source),
            (AddressStatus::Allocated, AddressSource::Adopted)
        );
        assert!(adopted.vmid.is_some() && adopted.machine.is_none());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_handed_out_while_a_node_does_not_answer() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let _replica = world
            .replica(Settings::default().with(&["--verify-cache-ttl", "0"]))
            .await;
        for (call, mode) in [
            (
                "GET /nodes",
                FaultMode::Fail {
                    status: 500,
                    message: "no way".into(),
                },
            ),
            (
                "GET /nodes/{node}/qemu",
                FaultMode::Fail {
                    status: 595,
                    message: "Connection refused".into(),
                },
            ),
            ("GET /nodes/{node}/lxc", FaultMode::Garbage),
            (
                "GET /nodes/{node}/lxc/{vmid}/config",
                FaultMode::Fail {
                    status: 500,
                    message: "got timeout".into(),
                },
            ),
            ("GET /nodes/{node}/qemu/{vmid}/config", FaultMode::Hang),
        ] {
            let trouble: Trouble = Trouble {
                count: 0,
                ..Trouble::once(call, mode)
            };
            world.sim.inject(trouble);
            let fault = reserve(&world, MachineId::fresh()).await.unwrap_err();
            assert!(fault.is(Code::IppoolSnapshotPartial), "{call}: {fault}");
            assert!(
                world
                    .reconcile()
                    .await
                    .unwrap_err()
                    .is(Code::IppoolSnapshotPartial),
                "{call}"
            );
            world.sim.clear_faults();
        }
        assert_eq!(status(&world).await.free, 33);
        assert_eq!(
            reserve(&world, MachineId::fresh()).await.unwrap().ip,
            ip("10.77.0.8")
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_vanishes_while_it_is_read_does_not_matter() {
    let db = sqlite().await;
    let world = World::start(&db.db).await;
    let _replica = world.replica(Settings::default()).await;
    let gone = "Configuration file 'nodes/pve1/qemu-server/100.conf' does not exist";
    world.sim.inject(Trouble::once(
        "GET /nodes/{node}/qemu/{vmid}/config",
        FaultMode::Fail {
            status: 500,
            message: gone.into(),
        },
    ));
    assert_eq!(
        reserve(&world, MachineId::fresh()).await.unwrap().ip,
        ip("10.77.0.8")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_settings_the_service_runs_and_says_what_is_missing() {
    let db = sqlite().await;
    let world = World::start(&db.db).await;
    let bare = world
        .replica(Settings {
            flags: vec![],
            cluster: false,
        })
        .await;
    assert!(
        reserve(&world, MachineId::fresh())
            .await
            .unwrap_err()
            .is(Code::ServiceNotConfigured)
    );
    assert!(
        world
            .reconcile()
            .await
            .unwrap_err()
            .is(Code::ServiceNotConfigured)
    );
    assert_eq!(status(&world).await.total, 0);
    assert!(world.list().await.is_empty());
    world
        .provisioner
        .call::<Release>(&ReleaseRequest {
            machine: MachineId::fresh(),
        })
        .await
        .unwrap();
    bare.stop().await;

    let _no_cluster = world
        .replica(Settings {
            cluster: false,
            ..Settings::default()
        })
        .await;
    assert!(
        reserve(&world, MachineId::fresh())
            .await
            .unwrap_err()
            .is(Code::ServiceNotConfigured)
    );
    assert_eq!(status(&world).await.free, 33);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_remembers() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let machine = MachineId::fresh();
        let first = world.replica(Settings::default()).await;
        let lease = reserve(&world, machine).await.unwrap();
        first.stop().await;
        let _second = world.replica(Settings::default()).await;
        assert_eq!(reserve(&world, machine).await.unwrap(), lease);
    })
    .await;
}
