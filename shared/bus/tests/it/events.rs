//! Domain events.

use std::time::Duration;

use futures::StreamExt;
use nimbus_bus::{
    Bus, BusError, CloudEvent, Delivered, EventFilter, EventStart, Events, Grants, StreamSettings,
};
use nimbus_model::Clock;

use crate::world::*;

fn made(number: u32) -> CloudEvent {
    CloudEvent::of(&Made { number }, "provisioner", &Clock::system())
}

fn filter(start: EventStart) -> EventFilter {
    EventFilter {
        subjects: vec!["nimbus.v1.event.machine.>".to_owned()],
        start,
    }
}

async fn publisher(world: &World) -> Bus {
    world
        .client(
            "provisioner",
            &Grants::default().publishing("machine").publishing("address"),
        )
        .await
}

async fn follower(world: &World) -> Bus {
    world
        .client(
            "gateway",
            &Grants::default().following("nimbus.v1.event.machine.>"),
        )
        .await
}

async fn next(events: &mut Events) -> Delivered {
    within(events.next()).await.unwrap().unwrap()
}

fn number(delivered: &Delivered) -> u32 {
    delivered.event.read::<Made>().unwrap().unwrap().number
}

#[tokio::test]
async fn events_come_in_order_filtered_and_from_where_one_left_off() {
    let world = World::start().await;
    let (publisher, follower) = (publisher(&world).await, follower(&world).await);
    publisher.publish(&made(0)).await.unwrap();
    let mut new = follower.follow(filter(EventStart::New)).await.unwrap();
    for number in 1..=3 {
        publisher.publish(&made(number)).await.unwrap();
        publisher
            .publish(&CloudEvent::of(&Freed { number }, "ippool", &Clock::system()))
            .await
            .unwrap();
    }
    let mut place = 0;
    for wanted in 1..=2 {
        let delivered = next(&mut new).await;
        assert_eq!(number(&delivered), wanted);
        assert_eq!(
            delivered.event.read::<Freed>().unwrap(),
            None,
            "an event of one kind is not of another"
        );
        place = delivered.sequence;
    }
    let mut resumed = follower.events(filter(EventStart::After(place)));
    assert_eq!(number(&next(&mut resumed).await), 3);
    let mut all = follower.events(filter(EventStart::All));
    for wanted in 0..=3 {
        assert_eq!(number(&next(&mut all).await), wanted);
    }
}

#[tokio::test]
async fn one_follower_of_several_patterns_sees_them_in_one_order() {
    let world = World::start().await;
    let publisher = publisher(&world).await;
    let patterns = ["nimbus.v1.event.machine.>", "nimbus.v1.event.address.>"];
    let gateway = world
        .client(
            "gateway",
            &Grants::default().following(patterns[0]).following(patterns[1]),
        )
        .await;
    let both = EventFilter {
        subjects: patterns.map(str::to_owned).to_vec(),
        start: EventStart::New,
    };
    let mut events = gateway.follow(both).await.unwrap();
    for number in 0..4 {
        publisher.publish(&made(number)).await.unwrap();
        publisher
            .publish(&CloudEvent::of(&Freed { number }, "ippool", &Clock::system()))
            .await
            .unwrap();
    }
    for number in 0..4 {
        assert_eq!(
            next(&mut events).await.event.read::<Made>().unwrap(),
            Some(Made { number })
        );
        assert_eq!(
            next(&mut events).await.event.read::<Freed>().unwrap(),
            Some(Freed { number })
        );
    }
}

#[tokio::test]
async fn a_plain_subscriber_reads_cloud_events() {
    let world = World::start().await;
    let plain = world.plain().await;
    let mut subscription = plain.subscribe("nimbus.v1.event.>").await.unwrap();
    plain.flush().await.unwrap();
    let event = CloudEvent::of(&Freed { number: 7 }, "ippool", &Clock::system());
    publisher(&world).await.publish(&event).await.unwrap();
    let message = within(subscription.next()).await.unwrap();
    assert_eq!(message.subject.as_str(), "nimbus.v1.event.address.freed.10_0_0_7");
    let json: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
    assert_eq!(json["specversion"], "1.0");
    assert_eq!(json["id"], event.id.to_string());
    assert_eq!(json["data"], serde_json::json!({ "number": 7 }));
}

#[tokio::test]
async fn a_repeated_event_is_stored_once() {
    let world = World::start().await;
    let (publisher, follower) = (publisher(&world).await, follower(&world).await);
    let event = made(1);
    for _ in 0..3 {
        publisher.publish(&event).await.unwrap();
    }
    world.crash().await;
    publisher.publish(&event).await.unwrap();
    publisher.publish(&made(2)).await.unwrap();
    let mut events = follower.events(filter(EventStart::All));
    assert_eq!(number(&next(&mut events).await), 1);
    assert_eq!(number(&next(&mut events).await), 2);
}

#[tokio::test]
async fn events_dropped_before_they_were_read_are_told() {
    let world = World::start().await;
    let (publisher, follower) = (publisher(&world).await, follower(&world).await);
    let small = StreamSettings {
        events_max_bytes: 2_000,
        ..StreamSettings::default()
    };
    world.root("admin").await.configure_streams(&small).await.unwrap();
    for number in 1..=20 {
        publisher.publish(&made(number)).await.unwrap();
    }
    let mut events = follower.follow(filter(EventStart::After(1))).await.unwrap();
    let Err(BusError::EventsDropped { after: 1, first }) = within(events.next()).await.unwrap() else {
        panic!("no gap told")
    };
    for wanted in first..=20 {
        let delivered = next(&mut events).await;
        assert_eq!(
            (delivered.sequence, u64::from(number(&delivered))),
            (wanted, wanted)
        );
    }

    // A place beyond the end belongs to another stream, whose files are gone.
    let mut events = follower.follow(filter(EventStart::After(1_000))).await.unwrap();
    assert!(matches!(
        within(events.next()).await.unwrap(),
        Err(BusError::EventsDropped { after: 1_000, .. })
    ));
    assert_eq!(next(&mut events).await.sequence, first);
}

#[tokio::test]
async fn an_event_that_cannot_be_read_does_not_end_the_stream() {
    let world = World::start().await;
    let (publisher, follower) = (publisher(&world).await, follower(&world).await);
    let mut events = follower.follow(filter(EventStart::New)).await.unwrap();
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("x", "y");
    let plain = world.plain().await;
    plain
        .publish_with_headers("nimbus.v1.event.machine.made.9", headers, "no JSON".into())
        .await
        .unwrap();
    plain.flush().await.unwrap();
    assert!(matches!(
        within(events.next()).await.unwrap(),
        Err(BusError::Decode { .. })
    ));
    publisher.publish(&made(1)).await.unwrap();
    assert_eq!(number(&next(&mut events).await), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_event_is_lost_or_doubled_when_the_server_crashes_under_load() {
    const EVENTS: u32 = 600;
    let world = World::start().await;
    let (publisher, follower) = (publisher(&world).await, follower(&world).await);
    let mut events = follower.follow(filter(EventStart::New)).await.unwrap();
    let (reached, mut reaches) = tokio::sync::mpsc::unbounded_channel();
    let publishing = tokio::spawn(async move {
        for number in 0..EVENTS {
            let event = made(number);
            // As an outbox does: the same event again until it is known to be stored.
            while publisher.publish(&event).await.is_err() {}
            reached.send(number).unwrap();
        }
    });
    let following = tokio::spawn(async move {
        for wanted in 0..EVENTS {
            assert_eq!(number(&next(&mut events).await), wanted);
        }
        // Nothing comes twice at the end either.
        assert!(
            tokio::time::timeout(Duration::from_millis(200), events.next())
                .await
                .is_err()
        );
    });
    for crash_at in [50, 250, 450] {
        while within(reaches.recv()).await.unwrap() < crash_at {}
        world.crash().await;
    }
    within(publishing).await.unwrap();
    within(following).await.unwrap();
}
