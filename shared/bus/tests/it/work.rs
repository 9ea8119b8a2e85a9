//! Work queues.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nimbus_bus::{Bus, Done, Grants, Work};
use nimbus_errors::{Code, Fault};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::world::*;

async fn pusher(world: &World) -> Bus {
    world
        .client("gateway", &Grants::default().pushing::<Numbers>())
        .await
}

async fn puller(world: &World) -> Bus {
    world
        .client("provisioner", &Grants::default().pulling::<Numbers>())
        .await
}

/// Works on numbers by telling them, with how often each was delivered.
fn tells(bus: Bus, stop: &CancellationToken) -> (JoinHandle<()>, mpsc::UnboundedReceiver<(u32, u64)>) {
    let (told, tells) = mpsc::unbounded_channel();
    let stop = stop.clone();
    let working = tokio::spawn(async move {
        bus.work::<Numbers, _, _>(4, stop, move |number, progress| {
            told.send((number, progress.deliveries())).unwrap();
            async { Ok(Done::Ack) }
        })
        .await
        .unwrap();
    });
    (working, tells)
}

/// How many items the queue still holds.
async fn held(world: &World) -> u64 {
    let context = async_nats::jetstream::new(world.plain().await);
    let mut stream = context
        .get_stream(format!("WORK_{}", Numbers::QUEUE))
        .await
        .unwrap();
    stream.info().await.unwrap().state.messages
}

#[tokio::test]
async fn items_are_done_once_and_leave_the_queue() {
    let world = World::start().await;
    let (pusher, puller) = (pusher(&world).await, puller(&world).await);
    for number in 0..10 {
        pusher
            .enqueue::<Numbers>(&number, &format!("n{number}"))
            .await
            .unwrap();
        pusher
            .enqueue::<Numbers>(&number, &format!("n{number}"))
            .await
            .unwrap();
    }
    assert_eq!(held(&world).await, 10, "the same id is the same item");
    let stop = CancellationToken::new();
    let (working, mut tells) = tells(puller, &stop);
    let mut done = Vec::new();
    for _ in 0..10 {
        let (number, deliveries) = within(tells.recv()).await.unwrap();
        assert_eq!(deliveries, 1);
        done.push(number);
    }
    done.sort_unstable();
    assert_eq!(done, (0..10).collect::<Vec<_>>());
    stop.cancel();
    within(working).await.unwrap();
    assert_eq!(held(&world).await, 0);
    assert!(tells.recv().await.is_none(), "an item came twice");
}

#[tokio::test]
async fn no_more_items_are_worked_on_than_asked_for() {
    let world = World::start().await;
    let (pusher, puller) = (pusher(&world).await, puller(&world).await);
    let (gate, busy, most) = (
        Arc::new(Semaphore::new(0)),
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicUsize::new(0)),
    );
    let (entered, mut enters) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let (stopping, held, now, peak) = (
        stop.clone(),
        Arc::clone(&gate),
        Arc::clone(&busy),
        Arc::clone(&most),
    );
    let working = tokio::spawn(async move {
        puller
            .work::<Numbers, _, _>(3, stopping, move |_, _| {
                peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                entered.send(()).unwrap();
                let (held, now) = (Arc::clone(&held), Arc::clone(&now));
                async move {
                    held.acquire().await.unwrap().forget();
                    now.fetch_sub(1, Ordering::SeqCst);
                    Ok(Done::Ack)
                }
            })
            .await
    });
    for number in 0..12 {
        pusher
            .enqueue::<Numbers>(&number, &number.to_string())
            .await
            .unwrap();
    }
    for _ in 0..3 {
        within(enters.recv()).await.unwrap();
    }
    gate.add_permits(12);
    for _ in 3..12 {
        within(enters.recv()).await.unwrap();
    }
    stop.cancel();
    within(working).await.unwrap().unwrap();
    assert_eq!(most.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn an_item_of_a_worker_that_died_goes_to_another() {
    let world = World::start().await;
    let (pusher, first, second) = (pusher(&world).await, puller(&world).await, puller(&world).await);
    pusher.enqueue::<Numbers>(&7, "7").await.unwrap();
    let (entered, mut enters) = mpsc::unbounded_channel();
    let dying = tokio::spawn(async move {
        first
            .work::<Numbers, _, _>(1, CancellationToken::new(), move |number, _| {
                entered.send(number).unwrap();
                std::future::pending()
            })
            .await
    });
    assert_eq!(within(enters.recv()).await.unwrap(), 7);
    let stop = CancellationToken::new();
    let (working, mut tells) = tells(second, &stop);
    dying.abort();
    assert_eq!(within(tells.recv()).await.unwrap(), (7, 2));
    stop.cancel();
    within(working).await.unwrap();
}

#[tokio::test]
async fn a_long_item_stays_with_its_worker() {
    let world = World::start().await;
    let (pusher, first, second) = (pusher(&world).await, puller(&world).await, puller(&world).await);
    let stop = CancellationToken::new();
    let (told, mut hears) = mpsc::unbounded_channel();
    let stopping = stop.clone();
    let long = tokio::spawn(async move {
        first
            .work::<Numbers, _, _>(1, stopping, move |_, progress| {
                let told = told.clone();
                async move {
                    told.send("begun").unwrap();
                    // The time itself is the subject: it has to be longer than ACK_WAIT.
                    tokio::time::sleep(Numbers::ACK_WAIT * 5 / 2).await;
                    assert_eq!(progress.deliveries(), 1);
                    told.send("done").unwrap();
                    Ok(Done::Ack)
                }
            })
            .await
    });
    pusher.enqueue::<Numbers>(&7, "7").await.unwrap();
    assert_eq!(within(hears.recv()).await, Some("begun"));
    let (idle, mut tells) = tells(second, &stop);
    let outcome = tokio::select! {
        word = hears.recv() => word,
        other = tells.recv() => panic!("the item was taken away: {other:?}"),
    };
    assert_eq!(outcome, Some("done"));
    stop.cancel();
    within(long).await.unwrap().unwrap();
    within(idle).await.unwrap();
}

#[tokio::test]
async fn what_fails_or_panics_comes_again() {
    let world = World::start().await;
    let (pusher, puller) = (pusher(&world).await, puller(&world).await);
    for number in 0..3 {
        pusher
            .enqueue::<Numbers>(&number, &number.to_string())
            .await
            .unwrap();
    }
    let (done, mut dones) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let working = tokio::spawn(async move {
        puller
            .work::<Numbers, _, _>(3, stopping, move |number, progress| {
                let done = done.clone();
                async move {
                    match (number, progress.deliveries()) {
                        (0, 1) => Err(Fault::new(Code::ServiceUnavailable, "not now")),
                        (1, 1) => panic!("not now"),
                        (2, 1) => Ok(Done::Again(Duration::from_millis(1))),
                        (number, deliveries) => {
                            done.send((number, deliveries)).unwrap();
                            Ok(Done::Ack)
                        }
                    }
                }
            })
            .await
    });
    let mut seen = HashMap::new();
    for _ in 0..3 {
        let (number, deliveries) = within(dones.recv()).await.unwrap();
        assert!(
            seen.insert(number, deliveries).is_none(),
            "{number} came once too often"
        );
    }
    assert_eq!(seen, HashMap::from([(0, 2), (1, 2), (2, 2)]));
    stop.cancel();
    within(working).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_item_of_another_version_waits_in_the_queue() {
    let world = World::start().await;
    let (pusher, puller) = (pusher(&world).await, puller(&world).await);
    pusher.enqueue::<Numbers>(&1, "1").await.unwrap();
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("x", "y");
    let longer = nimbus_bus::encode(&(1_u32, 2_u32)).unwrap();
    let plain = world.plain().await;
    plain
        .publish_with_headers(Numbers::subject(), headers, longer)
        .await
        .unwrap();
    plain.flush().await.unwrap();
    let stop = CancellationToken::new();
    let (working, mut tells) = tells(puller, &stop);
    assert_eq!(within(tells.recv()).await.unwrap(), (1, 1));
    stop.cancel();
    within(working).await.unwrap();
    assert_eq!(held(&world).await, 1);
    assert!(tells.recv().await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_item_is_lost_when_the_server_crashes_under_load() {
    const ITEMS: u32 = 300;
    let world = World::start().await;
    let (pusher, puller) = (pusher(&world).await, puller(&world).await);
    let stop = CancellationToken::new();
    let (working, mut tells) = tells(puller, &stop);
    let pushing = tokio::spawn(async move {
        for number in 0..ITEMS {
            while pusher
                .enqueue::<Numbers>(&number, &number.to_string())
                .await
                .is_err()
            {}
        }
    });
    let mut deliveries = HashMap::<u32, u32>::new();
    let mut crashes = vec![ITEMS as usize * 2 / 3, ITEMS as usize / 3];
    while deliveries.len() < ITEMS as usize {
        let (number, _) = within(tells.recv()).await.unwrap();
        *deliveries.entry(number).or_default() += 1;
        if crashes.last().is_some_and(|at| deliveries.len() >= *at) {
            crashes.pop();
            world.crash().await;
        }
    }
    within(pushing).await.unwrap();
    stop.cancel();
    within(working).await.unwrap();
    let doubled = deliveries.values().filter(|times| **times > 1).count();
    assert!(
        doubled <= 16,
        "{doubled} of {ITEMS} items came again: more than were under way in two crashes"
    );
}
