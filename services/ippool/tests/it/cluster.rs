//! Making the books agree with the cluster.

use std::time::Duration;

use nimbus_bus::{CloudEvent, Key};
use nimbus_model::{Clock, MachineId, UserId};
use nimbus_proto::event::UserSignedIn;
use nimbus_proto::ippool::{
    AddressSource, AddressStatus, Allocate, AllocateRequest, Lease, Reserve, ReserveRequest,
};
use nimbus_store::testing::{on_both, sqlite};

use crate::world::{Settings, World, eventually};

async fn reserve(world: &World, machine: MachineId) -> Lease {
    let request = ReserveRequest {
        machine,
        hostname: "web".into(),
    };
    world
        .provisioner
        .call::<Reserve>(&request)
        .key(Key::of(machine))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_guests_are_adopted_and_their_addresses_freed_when_they_are_gone() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let _replica = world.replica(Settings::default()).await;
        let vmid = world.guest("pve2", "10.77.0.30");
        let report = world.reconcile().await.unwrap();
        let mut adopted: Vec<String> = report
            .adopted
            .iter()
            .map(|adopted| adopted.ip.to_string())
            .collect();
        adopted.sort();
        assert_eq!(adopted, ["10.77.0.10", "10.77.0.11", "10.77.0.30"]);
        assert!(
            report
                .adopted
                .iter()
                .all(|adopted| adopted.prior_status == AddressStatus::Free)
        );
        let address = world.address("10.77.0.30").await;
        assert_eq!(
            (address.vmid, address.source, address.hostname.as_deref()),
            (Some(vmid), AddressSource::Adopted, Some("byhand"))
        );

        let report = world.reconcile().await.unwrap();
        assert_eq!((report.adopted.len(), report.no_ops), (0, 3));

        world.sim.remove_guest(vmid).unwrap();
        for missed in 1..3 {
            assert!(world.reconcile().await.unwrap().vacated.is_empty());
            assert_eq!(world.address("10.77.0.30").await.missed_cycles, missed);
        }
        assert_eq!(
            world.reconcile().await.unwrap().vacated,
            ["10.77.0.30".parse::<std::net::Ipv4Addr>().unwrap()]
        );
        let address = world.address("10.77.0.30").await;
        assert_eq!(
            (
                address.status,
                address.source,
                address.vmid,
                address.missed_cycles
            ),
            (AddressStatus::Free, AddressSource::Local, None, 0)
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_away_keeps_the_addresses_of_its_guests() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let _replica = world.replica(Settings::default()).await;
        world.guest("pve3", "10.77.0.30");
        world.reconcile().await.unwrap();
        world.sim.set_online("pve3", false).unwrap();
        for _ in 0..4 {
            let report = world.reconcile().await.unwrap();
            assert!(report.vacated.is_empty(), "{report:?}");
        }
        let address = world.address("10.77.0.30").await;
        assert_eq!(
            (address.status, address.missed_cycles),
            (AddressStatus::Allocated, 0)
        );
        world.sim.set_online("pve3", true).unwrap();
        assert_eq!(world.reconcile().await.unwrap().no_ops, 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promises_run_out_unless_they_are_renewed_or_used() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let _replica = world.replica(Settings::default()).await;
        let (lost, renewed, used) = (MachineId::fresh(), MachineId::fresh(), MachineId::fresh());
        let (lost_ip, renewed_ip) = (reserve(&world, lost).await.ip, reserve(&world, renewed).await.ip);
        let used_ip = reserve(&world, used).await.ip;
        let vmid = world.guest("pve1", &used_ip.to_string());
        world.jump.forward(Duration::from_secs(400));
        reserve(&world, renewed).await;
        world.jump.forward(Duration::from_secs(400));
        let report = world.reconcile().await.unwrap();
        assert_eq!(report.freed, [lost_ip]);
        assert_eq!(
            world.address(&renewed_ip.to_string()).await.status,
            AddressStatus::Reserved
        );
        // Its VM is there, so it is in use although nobody has said so yet; then the machine says so.
        let found = world.address(&used_ip.to_string()).await;
        assert_eq!(
            (found.status, found.machine, found.vmid),
            (AddressStatus::Allocated, Some(used), Some(vmid))
        );
        let request = AllocateRequest {
            machine: used,
            ip: used_ip,
            vmid,
        };
        world.provisioner.call::<Allocate>(&request).await.unwrap();
        assert_eq!(
            world.address(&used_ip.to_string()).await.source,
            AddressSource::Local
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_with_two_owners_is_left_for_a_person() {
    let db = sqlite().await;
    let world = World::start(&db.db).await;
    let _replica = world.replica(Settings::default()).await;
    let machine = MachineId::fresh();
    let lease = reserve(&world, machine).await;
    let request = AllocateRequest {
        machine,
        ip: lease.ip,
        vmid: 4711,
    };
    world.provisioner.call::<Allocate>(&request).await.unwrap();
    let other = world.guest("pve2", &lease.ip.to_string());
    let report = world.reconcile().await.unwrap();
    let conflict = report.conflicts.first().unwrap();
    assert_eq!(
        (
            conflict.ip,
            conflict.local_vmid,
            conflict.proxmox_vmid,
            conflict.node.as_str()
        ),
        (lease.ip, 4711, other, "pve2")
    );
    let address = world.address(&lease.ip.to_string()).await;
    assert_eq!((address.vmid, address.machine), (Some(4711), Some(machine)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sign_in_makes_the_books_true() {
    let db = sqlite().await;
    let world = World::start(&db.db).await;
    let _replicas = (
        world.replica(Settings::default()).await,
        world.replica(Settings::default()).await,
    );
    assert_eq!(world.address("10.77.0.10").await.status, AddressStatus::Free);
    let auth = world.connect("auth").await;
    let publish = || async {
        let event = CloudEvent::of(
            &UserSignedIn {
                user: UserId::fresh(),
            },
            "auth",
            &Clock::system(),
        );
        auth.publish(&event).await.unwrap();
        world.address("10.77.0.10").await.status
    };
    // Said again each time: a follower may not have been there for the first.
    eventually(publish, |status| *status == AddressStatus::Allocated).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconciles_of_replicas_come_one_after_the_other() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let _replicas = (
            world.replica(Settings::default()).await,
            world.replica(Settings::default()).await,
        );
        let reports = futures::future::join_all((0..6).map(|_| world.reconcile())).await;
        let adopted: usize = reports
            .iter()
            .map(|report| report.as_ref().unwrap().adopted.len())
            .sum();
        assert_eq!(adopted, 2, "each guest is adopted once: {reports:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_reconcile_comes_with_the_start() {
    let db = sqlite().await;
    let world = World::start(&db.db).await;
    let flags = vec![
        "--ip-pool-start",
        "10.77.0.8",
        "--ip-pool-end",
        "10.77.0.40",
        "--gateway-ip",
        "10.77.0.1",
        "--reconcile-interval",
        "1h",
    ];
    let _replica = world.replica(Settings { flags, cluster: true }).await;
    eventually(
        || world.address("10.77.0.11"),
        |address| address.status == AddressStatus::Allocated,
    )
    .await;
}
