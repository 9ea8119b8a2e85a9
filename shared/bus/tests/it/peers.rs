//! Peers of another make: requests in JSON and bytes, and messages that are pulled one at a time.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use nimbus_bus::{Bus, BusError, Grants, PeerServing};
use nimbus_errors::{Code, Fault};
use tokio::sync::Notify;

use crate::world::*;

const LIMIT: Duration = Duration::from_secs(10);
const STREAM: &str = "BOXES";
const SUBJECTS: &str = "boxes.job.>";

fn service() -> Grants {
    Grants::default()
        .hearing("boxes.beat.*")
        .saying("boxes.control.*")
        .managing(STREAM, SUBJECTS)
}

fn peer(name: &str) -> Grants {
    Grants::default()
        .saying(&format!("boxes.beat.{name}"))
        .hearing(&format!("boxes.control.{name}"))
        .pulling_from(STREAM, name)
}

/// Answers with who asked, what they sent and the header they sent it with.
async fn echo(bus: &Bus) -> PeerServing {
    bus.peers("boxes")
        .answer("boxes.beat.*", 8, |request| async move {
            if request.payload.is_empty() {
                return Err(Fault::new(Code::OpInvalidInput, "an empty beat\r\nof nobody"));
            }
            let from = request.token(2).unwrap().to_owned();
            let offset = request.header("Nimbus-Offset").unwrap_or("none").to_owned();
            let body = String::from_utf8(request.payload.to_vec()).unwrap();
            Ok(Bytes::from(format!("{from} {offset} {body}")))
        })
        .start()
        .await
        .unwrap()
}

#[tokio::test]
async fn a_peer_asks_with_bytes_and_headers_and_gets_an_answer_or_a_fault() {
    let world = World::start().await;
    let bus = world.client("boxes", &service()).await;
    let serving = echo(&bus).await;
    let one = world.client("gx1", &peer("gx1")).await;
    let answer = one
        .ask_peer(
            "boxes.beat.gx1",
            &[("Nimbus-Offset", "7")],
            Bytes::from_static(b"hello"),
            LIMIT,
        )
        .await
        .unwrap();
    assert_eq!(answer, "gx1 7 hello");
    let fault = one
        .ask_peer("boxes.beat.gx1", &[], Bytes::new(), LIMIT)
        .await
        .unwrap_err();
    assert!(fault.is(Code::OpInvalidInput), "{fault}");
    assert_eq!(
        fault.message, "an empty beat\r\nof nobody",
        "the body says it whole"
    );
    let fault = one
        .ask_peer("boxes.beat.gx2", &[], Bytes::from_static(b"x"), LIMIT)
        .await
        .unwrap_err();
    assert!(fault.is(Code::BusPermission), "another's beat: {fault}");
    serving.stop().await;
    let fault = one
        .ask_peer(
            "boxes.beat.gx1",
            &[],
            Bytes::from_static(b"x"),
            Duration::from_millis(300),
        )
        .await
        .unwrap_err();
    assert!(fault.is(Code::ServiceUnavailable), "{fault}");
}

#[tokio::test]
async fn answers_are_shared_by_replicas_and_survive_a_crash_of_the_server() {
    let world = World::start().await;
    let (first, second) = (
        world.client("boxes", &service()).await,
        world.client("boxes", &service()).await,
    );
    let _first = echo(&first).await;
    let second = echo(&second).await;
    let one = world.client("gx1", &peer("gx1")).await;
    let ask = || one.ask_peer("boxes.beat.gx1", &[], Bytes::from_static(b"x"), LIMIT);
    for _ in 0..20 {
        assert_eq!(ask().await.unwrap(), "gx1 none x", "one answer each");
    }
    second.stop().await;
    assert_eq!(ask().await.unwrap(), "gx1 none x");
    world.crash().await;
    assert_eq!(ask().await.unwrap(), "gx1 none x");
}

#[tokio::test]
async fn a_service_without_the_right_says_so_and_a_panic_is_an_answer() {
    let world = World::start().await;
    let stranger = world.client("stranger", &Grants::default()).await;
    let refused = stranger
        .peers("boxes")
        .answer("boxes.beat.*", 1, |_| async { Ok(Bytes::new()) })
        .start()
        .await;
    assert!(matches!(refused, Err(BusError::Permission { .. })));
    assert!(matches!(
        stranger.hear("boxes.control.gx1").await,
        Err(BusError::Permission { .. })
    ));

    let bus = world.client("boxes", &service()).await;
    let _serving = bus
        .peers("boxes")
        .answer("boxes.beat.*", 1, |_| async { panic!("a bug") })
        .start()
        .await
        .unwrap();
    let one = world.client("gx1", &peer("gx1")).await;
    let fault = one
        .ask_peer("boxes.beat.gx1", &[], Bytes::from_static(b"x"), LIMIT)
        .await
        .unwrap_err();
    assert!(fault.is(Code::ServiceInternal), "{fault}");
}

#[tokio::test]
async fn more_than_can_be_done_at_once_is_refused() {
    let world = World::start().await;
    let bus = world.client("boxes", &service()).await;
    let (busy, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (told, held) = (Arc::clone(&busy), Arc::clone(&gate));
    let _serving = bus
        .peers("boxes")
        .answer("boxes.beat.*", 1, move |_| {
            let (told, held) = (Arc::clone(&told), Arc::clone(&held));
            async move {
                told.notify_one();
                held.notified().await;
                Ok(Bytes::from_static(b"done"))
            }
        })
        .start()
        .await
        .unwrap();
    let one = world.client("gx1", &peer("gx1")).await;
    let first = {
        let one = one.clone();
        tokio::spawn(async move {
            one.ask_peer("boxes.beat.gx1", &[], Bytes::from_static(b"x"), LIMIT)
                .await
        })
    };
    within(busy.notified()).await;
    let fault = one
        .ask_peer("boxes.beat.gx1", &[], Bytes::from_static(b"x"), LIMIT)
        .await
        .unwrap_err();
    assert!(fault.is(Code::RateOverloaded), "{fault}");
    gate.notify_one();
    assert_eq!(within(first).await.unwrap().unwrap(), "done");
}

#[tokio::test]
async fn what_is_said_is_heard_by_whom_it_is_for() {
    let world = World::start().await;
    let bus = world.client("boxes", &service()).await;
    let one = world.client("gx1", &peer("gx1")).await;
    let mut hears = one.hear("boxes.control.gx1").await.unwrap();
    bus.say("boxes.control.gx2", Bytes::from_static(b"not yours"))
        .await
        .unwrap();
    bus.say("boxes.control.gx1", Bytes::from_static(b"cancel"))
        .await
        .unwrap();
    assert_eq!(within(hears.next()).await.unwrap().payload, "cancel");
}

/// One message of a consumer, as a plain client pulls it; none when none comes in half a second.
async fn pull(client: &Client, inbox: &mut Subscriber, name: &str, to: &str) -> Option<Message> {
    let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{name}");
    let request = Bytes::from_static(br#"{"batch":1,"expires":500000000}"#);
    client
        .publish_with_reply(subject, to.to_owned(), request)
        .await
        .unwrap();
    let message = within(inbox.next()).await.unwrap();
    match message.status {
        None => Some(message),
        Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => None,
        Some(other) => panic!("pulling answered {other}"),
    }
}

#[tokio::test]
async fn each_peer_pulls_its_own_one_at_a_time_and_an_id_is_stored_once() {
    let world = World::start().await;
    let bus = world.client("boxes", &service()).await;
    bus.ensure_work_stream(STREAM, &[SUBJECTS]).await.unwrap();
    for name in ["gx1", "gx2"] {
        // Twice, as after a restart.
        for _ in 0..2 {
            bus.ensure_pull_consumer(STREAM, name, &format!("boxes.job.default.{name}"))
                .await
                .unwrap();
        }
    }
    let store = |name: &'static str, id: &'static str| {
        let bus = bus.clone();
        async move {
            bus.store_once(
                &format!("boxes.job.default.{name}"),
                id,
                Bytes::from_static(id.as_bytes()),
            )
            .await
        }
    };
    let first = store("gx1", "a:1").await.unwrap();
    assert!(!first.duplicate);
    let again = store("gx1", "a:1").await.unwrap();
    assert!(again.duplicate && again.sequence == first.sequence);
    store("gx1", "b:1").await.unwrap();
    let third = store("gx2", "c:1").await.unwrap();

    let one = world.client("gx1", &peer("gx1")).await;
    let to = one.client().new_inbox();
    let mut inbox = one.client().subscribe(to.clone()).await.unwrap();
    let message = pull(one.client(), &mut inbox, "gx1", &to).await.unwrap();
    assert_eq!(message.payload, "a:1");
    assert!(
        pull(one.client(), &mut inbox, "gx1", &to).await.is_none(),
        "the first is not acknowledged"
    );
    one.ask_peer(
        message.reply.as_ref().unwrap(),
        &[],
        Bytes::from_static(b"+ACK"),
        LIMIT,
    )
    .await
    .unwrap();
    let message = pull(one.client(), &mut inbox, "gx1", &to).await.unwrap();
    assert_eq!(message.payload, "b:1");
    one.ask_peer(
        message.reply.as_ref().unwrap(),
        &[],
        Bytes::from_static(b"+ACK"),
        LIMIT,
    )
    .await
    .unwrap();

    // Taken back before the peer came for it; once it is gone that is no error.
    assert!(bus.delete_stored(STREAM, third.sequence).await.unwrap());
    assert!(!bus.delete_stored(STREAM, third.sequence).await.unwrap());
    assert!(!bus.delete_stored(STREAM, first.sequence).await.unwrap());
    let two = world.client("gx2", &peer("gx2")).await;
    let to = two.client().new_inbox();
    let mut inbox = two.client().subscribe(to.clone()).await.unwrap();
    assert!(pull(two.client(), &mut inbox, "gx2", &to).await.is_none());

    // Moved to another pool, then removed.
    bus.ensure_pull_consumer(STREAM, "gx2", "boxes.job.big.gx2")
        .await
        .unwrap();
    bus.store_once("boxes.job.big.gx2", "d:1", Bytes::from_static(b"d:1"))
        .await
        .unwrap();
    assert_eq!(
        pull(two.client(), &mut inbox, "gx2", &to).await.unwrap().payload,
        "d:1"
    );
    assert!(bus.delete_consumer(STREAM, "gx2").await.unwrap());
    assert!(!bus.delete_consumer(STREAM, "gx2").await.unwrap());
}

#[tokio::test]
async fn a_peer_may_neither_fill_nor_change_the_stream() {
    let world = World::start().await;
    let bus = world.client("boxes", &service()).await;
    bus.ensure_work_stream(STREAM, &[SUBJECTS]).await.unwrap();
    let one = world.client("gx1", &peer("gx1")).await;
    for refused in [
        one.store_once("boxes.job.default.gx1", "x:1", Bytes::new())
            .await
            .err(),
        one.ensure_work_stream(STREAM, &[SUBJECTS]).await.err(),
        one.delete_stored(STREAM, 1).await.err(),
        one.delete_consumer(STREAM, "gx2").await.err(),
        one.say("boxes.control.gx2", Bytes::new()).await.err(),
    ] {
        // Saying is not answered; the others are.
        assert!(
            matches!(refused, None | Some(BusError::Permission { .. })),
            "{refused:?}"
        );
    }
    assert!(matches!(
        one.store_once("boxes.job.default.gx1", "x:1", Bytes::new()).await,
        Err(BusError::Permission { .. })
    ));
}
