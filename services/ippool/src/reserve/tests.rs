use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nimbus_errors::{Code, Coded};
use nimbus_model::Clock;
use nimbus_proto::ippool::AddressSource;
use nimbus_service::Outbox;
use nimbus_store::testing::{World, on_both, sqlite};

use super::*;
use crate::MIGRATIONS;
use crate::config::Network;
use crate::pool::Change;
use crate::range::Range;
use crate::snapshot::script::Script;

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

async fn pool(world: &World, network: Option<Network>) -> Pool {
    let store = world.db.store("ippool", MIGRATIONS).await.unwrap();
    let pool = Pool::new(
        store.clone(),
        Outbox::new(store, "ippool_outbox"),
        Clock::system(),
        network,
    );
    pool.seed().await.unwrap();
    pool
}

fn network(first: &str, last: &str) -> Option<Network> {
    Some(Network {
        range: Range::new(ip(first), ip(last)).unwrap(),
        gateway: ip("10.0.0.1"),
        prefix: 16,
    })
}

fn cluster() -> (Arc<Script>, Cluster) {
    let script = Arc::new(Script::default());
    (Arc::clone(&script), Cluster::new(script, Duration::from_secs(5)))
}

#[tokio::test]
async fn the_lease_says_all_a_guest_needs() {
    let world = sqlite().await;
    let (pool, (_, cluster)) = (pool(&world, network("10.0.0.9", "10.0.0.10")).await, cluster());
    let lease = reserve(&pool, Some(&cluster), MachineId::fresh(), "web")
        .await
        .unwrap();
    assert_eq!(
        lease,
        Lease {
            ip: ip("10.0.0.9"),
            prefix: 16,
            gateway: ip("10.0.0.1")
        }
    );
}

#[tokio::test]
async fn addresses_in_use_are_passed_over_and_booked() {
    on_both(|world| async move {
        let (pool, (script, cluster)) = (pool(&world, network("10.0.0.1", "10.0.0.9")).await, cluster());
        script.hold("10.0.0.1", 901, "router");
        script.hold("10.0.0.2", 902, "nas");
        let lease = reserve(&pool, Some(&cluster), MachineId::fresh(), "web")
            .await
            .unwrap();
        assert_eq!(lease.ip, ip("10.0.0.3"));
        let rows = pool.rows().await.unwrap();
        assert_eq!(
            (rows[0].source, rows[0].vmid, rows[0].hostname.as_deref()),
            (AddressSource::Adopted, Some(901), Some("router"))
        );
        assert_eq!((rows[1].vmid, rows[1].machine), (Some(902), None));
    })
    .await;
}

#[tokio::test]
async fn three_contested_addresses_are_enough() {
    on_both(|world| async move {
        let (pool, (script, cluster)) = (pool(&world, network("10.0.0.1", "10.0.0.9")).await, cluster());
        for (last, vmid) in [(1, 901), (2, 902), (3, 903)] {
            script.hold(&format!("10.0.0.{last}"), vmid, "taken");
        }
        let machine = MachineId::fresh();
        let error = reserve(&pool, Some(&cluster), machine, "web").await.unwrap_err();
        assert_eq!(error.code(), Code::IppoolContested);
        assert!(
            error
                .to_string()
                .starts_with("10.0.0.1, 10.0.0.2, 10.0.0.3 are free"),
            "{error}"
        );
        let status = pool.status().await.unwrap();
        assert_eq!((status.reserved, status.allocated), (0, 3));
        // They are in the books now, so the next attempt succeeds.
        assert_eq!(
            reserve(&pool, Some(&cluster), machine, "web").await.unwrap().ip,
            ip("10.0.0.4")
        );
    })
    .await;
}

#[tokio::test]
async fn a_contested_last_address_exhausts_the_pool() {
    let world = sqlite().await;
    let (pool, (script, cluster)) = (pool(&world, network("10.0.0.1", "10.0.0.1")).await, cluster());
    script.hold("10.0.0.1", 901, "router");
    let error = reserve(&pool, Some(&cluster), MachineId::fresh(), "web")
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::IppoolExhausted);
    assert_eq!(pool.status().await.unwrap().reserved, 0);
}

#[tokio::test]
async fn without_a_complete_picture_nothing_is_handed_out_or_left_promised() {
    on_both(|world| async move {
        let (pool, (script, cluster)) = (pool(&world, network("10.0.0.1", "10.0.0.9")).await, cluster());
        *script.broken.lock().unwrap() = true;
        let error = reserve(&pool, Some(&cluster), MachineId::fresh(), "web")
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::IppoolSnapshotPartial);
        assert_eq!(error.detail().unwrap()["node"], "pve2");
        assert_eq!(pool.status().await.unwrap().free, 9);
    })
    .await;
}

#[tokio::test]
async fn a_promise_from_before_survives_a_picture_that_fails() {
    let world = sqlite().await;
    let (pool, (script, cluster)) = (pool(&world, network("10.0.0.1", "10.0.0.9")).await, cluster());
    let machine = MachineId::fresh();
    reserve(&pool, Some(&cluster), machine, "web").await.unwrap();
    *script.broken.lock().unwrap() = true;
    let (_, blind) = { (Arc::clone(&script), Cluster::new(script, Duration::ZERO)) };
    assert!(reserve(&pool, Some(&blind), machine, "web").await.is_err());
    assert_eq!(pool.status().await.unwrap().reserved, 1);
}

#[tokio::test]
async fn a_repeat_whose_own_vm_has_the_address_gives_the_same_lease() {
    let world = sqlite().await;
    let (pool, (script, cluster)) = (pool(&world, network("10.0.0.1", "10.0.0.9")).await, cluster());
    let machine = MachineId::fresh();
    let first = reserve(&pool, Some(&cluster), machine, "web").await.unwrap();
    script.hold("10.0.0.1", 101, "web");
    let blunt = Cluster::new(script.clone(), Duration::ZERO);
    assert_eq!(reserve(&pool, Some(&blunt), machine, "web").await.unwrap(), first);
    pool.allocate(machine, first.ip, 101).await.unwrap();
    let looks = script.looks.load(Ordering::SeqCst);
    assert_eq!(reserve(&pool, Some(&blunt), machine, "web").await.unwrap(), first);
    assert_eq!(
        script.looks.load(Ordering::SeqCst),
        looks,
        "an address in use needs no look"
    );
    // A stranger who came in between is another matter.
    let other = MachineId::fresh();
    let second = reserve(&pool, Some(&blunt), other, "db").await.unwrap();
    script.hold("10.0.0.2", 900, "stranger");
    assert_eq!(second.ip, ip("10.0.0.2"));
    assert_eq!(
        reserve(&pool, Some(&blunt), other, "db").await.unwrap().ip,
        ip("10.0.0.3")
    );
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let world = sqlite().await;
    let (_, cluster) = cluster();
    let unset = pool(&world, None).await;
    let error = reserve(&unset, Some(&cluster), MachineId::fresh(), "web")
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::ServiceNotConfigured);
    let set = pool(&world, network("10.0.0.1", "10.0.0.9")).await;
    let error = reserve(&set, None, MachineId::fresh(), "web").await.unwrap_err();
    assert_eq!(error.code(), Code::ServiceNotConfigured);
    assert!(error.to_string().contains("PROXMOX_HOST"), "{error}");
    assert_eq!(set.status().await.unwrap().free, 9);
}

fn told(machine: MachineId, address: &str, vmid: u32) -> ConfirmRequest {
    ConfirmRequest {
        machine,
        hostname: "web".into(),
        ip: ip(address),
        vmid,
    }
}

#[tokio::test]
async fn an_address_that_another_guest_was_told_too_is_given_up() {
    on_both(|world| async move {
        let (pool, (script, cluster)) = (pool(&world, network("10.0.0.1", "10.0.0.9")).await, cluster());
        let machine = MachineId::fresh();
        let lease = reserve(&pool, Some(&cluster), machine, "web").await.unwrap();
        assert_eq!(lease.ip, ip("10.0.0.1"));
        // Written at the same moment, with the same name: only the number tells them apart.
        script.hold("10.0.0.1", 101, "web");
        script.hold("10.0.0.1", 102, "web");
        let moved = confirm(&pool, Some(&cluster), told(machine, "10.0.0.1", 102))
            .await
            .unwrap();
        assert_eq!(moved.ip, ip("10.0.0.2"));
        let rows = pool.rows().await.unwrap();
        assert_eq!((rows[0].vmid, rows[0].machine), (Some(101), None));
        assert_eq!(rows[1].machine, Some(machine));
        // Asked again with the old address, as after a restart.
        let again = confirm(&pool, Some(&cluster), told(machine, "10.0.0.1", 102))
            .await
            .unwrap();
        assert_eq!(again, moved);
        // A reconcile at the wrong moment books it for the other one, which then gives way as well.
        let row = pool.rows().await.unwrap().remove(1);
        let guest = Guest {
            vmid: 103,
            name: Some("web".into()),
            node: "pve1".into(),
        };
        let new = row.adopt(&guest, Clock::system().now()).unwrap();
        pool.change_all(vec![Change {
            old: row,
            new,
            loud: false,
        }])
        .await
        .unwrap();
        let third = confirm(&pool, Some(&cluster), told(machine, "10.0.0.2", 102))
            .await
            .unwrap();
        assert_eq!(third.ip, ip("10.0.0.3"));
        let rows = pool.rows().await.unwrap();
        assert_eq!(
            (rows[1].vmid, rows[1].machine, rows[2].machine),
            (Some(103), None, Some(machine))
        );
        script.hold("10.0.0.3", 102, "web");
        let settled = confirm(&pool, Some(&cluster), told(machine, "10.0.0.3", 102))
            .await
            .unwrap();
        assert_eq!(settled, third);
    })
    .await;
}
