//! Leases and what runs once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nimbus_bus::{Bus, Grants};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::world::*;

const TTL: Duration = Duration::from_secs(2);

async fn replica(world: &World) -> Bus {
    world.client("ippool", &Grants::default().leasing()).await
}

#[tokio::test]
async fn a_lease_has_one_holder_and_a_growing_fence() {
    let world = World::start().await;
    let (first, second) = (replica(&world).await, replica(&world).await);
    let held = first.lease("ippool.scan", TTL).await.unwrap().unwrap();
    assert!(second.lease("ippool.scan", TTL).await.unwrap().is_none());
    assert!(
        second.lease("ippool.reconcile", TTL).await.unwrap().is_some(),
        "another lease is free"
    );
    let taken = held.fence();
    held.renew().await.unwrap();
    let renewed = held.fence();
    assert!(renewed > taken);
    let lost = held.lost();
    assert!(!lost.is_cancelled());
    held.release().await;
    assert!(lost.is_cancelled());
    let next = second
        .lease("ippool.scan", TTL)
        .await
        .unwrap()
        .expect("a released lease is free at once");
    assert!(next.fence() > renewed);
}

#[tokio::test]
async fn of_many_that_try_at_once_one_gets_it() {
    let world = World::start().await;
    let mut tries = Vec::new();
    for _ in 0..8 {
        let replica = replica(&world).await;
        tries.push(tokio::spawn(async move {
            replica.lease("ippool.scan", TTL).await.unwrap()
        }));
    }
    let mut held = Vec::new();
    for one in tries {
        held.extend(within(one).await.unwrap());
    }
    assert_eq!(held.len(), 1);
}

#[tokio::test]
async fn the_lease_of_a_holder_that_died_runs_out_also_over_a_crash_of_the_server() {
    let world = World::start().await;
    let (first, second) = (replica(&world).await, replica(&world).await);
    let held = first.lease("ippool.scan", TTL).await.unwrap().unwrap();
    let lost = held.lost();
    world.crash().await;
    assert!(
        second.lease("ippool.scan", TTL).await.unwrap().is_none(),
        "the server forgot the lease"
    );
    // The holder is not renewing, as if it hung; it is told before somebody else can have it.
    let taken = within(async {
        loop {
            if let Some(lease) = second.lease("ippool.scan", TTL).await.unwrap() {
                return lease;
            }
        }
    })
    .await;
    assert!(lost.is_cancelled(), "two hold it");
    assert!(held.renew().await.is_err());
    drop(taken);
}

#[tokio::test]
async fn a_holder_cut_off_from_the_server_stops_by_itself() {
    let world = World::start().await;
    let replica = replica(&world).await;
    let held = replica.lease("ippool.scan", TTL).await.unwrap().unwrap();
    world.nats.stop().await;
    within(held.lost().cancelled()).await;
}

#[tokio::test]
async fn a_lease_that_was_taken_over_is_noticed_at_the_renewal() {
    let world = World::start().await;
    let replica = replica(&world).await;
    let held = replica.lease("ippool.scan", TTL).await.unwrap().unwrap();
    // An operator's hand, which the holder does not see.
    let bucket = async_nats::jetstream::new(world.plain().await)
        .get_key_value("leases")
        .await
        .unwrap();
    bucket.put("ippool.scan", "{}".into()).await.unwrap();
    assert!(held.renew().await.is_err());
    assert!(held.lost().is_cancelled());
}

/// A replica that does the single thing: counts up while it runs, down when it is stopped.
fn run(
    bus: Bus,
    stop: &CancellationToken,
    running: &Arc<AtomicU32>,
    began: mpsc::UnboundedSender<u32>,
    name: u32,
) -> JoinHandle<()> {
    struct Running(Arc<AtomicU32>);
    impl Drop for Running {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let (stop, running) = (stop.clone(), Arc::clone(running));
    tokio::spawn(async move {
        bus.singleton("ippool.scan", TTL, stop, || {
            let before = running.fetch_add(1, Ordering::SeqCst);
            let guard = Running(Arc::clone(&running));
            let began = began.clone();
            async move {
                let _guard = guard;
                assert_eq!(before, 0, "two run at once");
                began.send(name).unwrap();
                std::future::pending().await
            }
        })
        .await;
    })
}

#[tokio::test]
async fn one_replica_does_it_and_another_takes_over() {
    let world = World::start().await;
    let running = Arc::new(AtomicU32::new(0));
    let (began, mut begins) = mpsc::unbounded_channel();
    let (stops, mut replicas): (Vec<_>, Vec<_>) = (0..3).map(|_| (CancellationToken::new(), None)).unzip();
    for name in 0..3_u32 {
        let bus = replica(&world).await;
        replicas[name as usize] = Some(run(bus, &stops[name as usize], &running, began.clone(), name));
    }
    let first = within(begins.recv()).await.unwrap();

    // One that stops hands over at once: sooner than its time could have run out.
    let before = tokio::time::Instant::now();
    stops[first as usize].cancel();
    let second = within(begins.recv()).await.unwrap();
    assert_ne!(first, second);
    assert!(
        before.elapsed() < TTL,
        "the next one waited for the lease to run out"
    );

    // A crash of the server is no reason to hand over.
    world.crash().await;
    // One that dies is replaced.
    replicas[second as usize].take().unwrap().abort();
    let third = within(begins.recv()).await.unwrap();
    assert!(third != first && third != second);
    stops[third as usize].cancel();
    within(replicas[third as usize].take().unwrap()).await.unwrap();
    assert_eq!(running.load(Ordering::SeqCst), 0);
}
