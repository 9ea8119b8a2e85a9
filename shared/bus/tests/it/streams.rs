//! Byte streams: everything arrives, in order, or both ends learn that it does not.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use nimbus_bus::stream::{StreamOptions, WINDOW, splice};
use nimbus_bus::{Bus, BusError, BusStream, EndReason, Grants, Side, StreamId, Streams};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use crate::world::*;

/// Both ends, on connections of their own that may do nothing else.
async fn ends(world: &World) -> (Bus, Bus) {
    let gateway = world
        .client("gateway", &Grants::default().streaming(Streams::Client))
        .await;
    let agent = world
        .client("agent-a", &Grants::default().streaming(Streams::Server))
        .await;
    (gateway, agent)
}

async fn pair_on(gateway: &Bus, agent: &Bus, options: StreamOptions) -> (BusStream, BusStream) {
    let id = StreamId::fresh();
    let client = gateway
        .stream_with(id, "stdio", Side::Client, options)
        .await
        .unwrap();
    // As the request to open would: it is answered only after the subscription is live.
    settled(gateway).await;
    let server = agent
        .stream_with(id, "stdio", Side::Server, options)
        .await
        .unwrap();
    (client, server)
}

/// Both ends of a stream, and the connections: what is sent last is sent by them.
async fn pair(world: &World) -> (BusStream, BusStream, (Bus, Bus)) {
    let (gateway, agent) = ends(world).await;
    let (client, server) = pair_on(&gateway, &agent, StreamOptions::default()).await;
    (client, server, (gateway, agent))
}

/// Waits until the server has seen everything that `bus` sent.
async fn settled(bus: &Bus) {
    let inbox = bus.client().new_inbox();
    let mut own = bus.client().subscribe(inbox.clone()).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "nothing but a sign that it arrived")]
    bus.client().publish(inbox, Bytes::new()).await.unwrap();
    within(own.next()).await.unwrap();
}

async fn read_all(stream: &mut BusStream) -> Vec<u8> {
    let mut all = Vec::new();
    within(stream.read_to_end(&mut all)).await.unwrap();
    all
}

fn reason_of(error: &std::io::Error) -> EndReason {
    error
        .get_ref()
        .unwrap()
        .downcast_ref::<EndReason>()
        .unwrap()
        .clone()
}

/// Bytes that differ everywhere.
fn block(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..64 * 1024 / 8)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_mebibytes_arrive_as_they_were_sent() {
    let world = World::start().await;
    let (mut client, mut server, _buses) = pair(&world).await;
    let sender = tokio::spawn(async move {
        let mut hash = Sha256::new();
        for round in 0..1600 {
            let bytes = block(round);
            hash.update(&bytes);
            server.write_all(&bytes).await.unwrap();
        }
        server.shutdown().await.unwrap();
        (hash.finalize(), server)
    });
    let (mut hash, mut total) = (Sha256::new(), 0);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = within(client.read(&mut buffer)).await.unwrap();
        if read == 0 {
            break;
        }
        total += read;
        hash.update(&buffer[..read]);
    }
    let (sent, _server) = within(sender).await.unwrap();
    assert_eq!(total, 100 << 20);
    assert_eq!(hash.finalize(), sent);
}

#[tokio::test]
async fn each_direction_ends_by_itself() {
    let world = World::start().await;
    let (mut client, mut server, _buses) = pair(&world).await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut server).await, b"question");
    server.write_all(b"a longer answer").await.unwrap();
    server.shutdown().await.unwrap();
    assert_eq!(read_all(&mut client).await, b"a longer answer");
    let (there, here) = (server.handle(), client.handle());
    drop((client, server));
    assert_eq!(within(there.finished()).await, None);
    assert_eq!(within(here.finished()).await, None);
}

#[tokio::test]
async fn what_is_written_before_the_server_is_there_arrives() {
    let world = World::start().await;
    let (gateway, agent) = ends(&world).await;
    let id = StreamId::fresh();
    let mut client = gateway.stream(id, "stdio", Side::Client).await.unwrap();
    client.write_all(b"early").await.unwrap();
    settled(&gateway).await;
    let mut server = agent.stream(id, "stdio", Side::Server).await.unwrap();
    let mut heard = [0; 5];
    within(server.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"early");
}

#[tokio::test]
async fn a_reader_that_does_not_read_stops_its_sender_at_the_window() {
    let world = World::start().await;
    let (mut client, mut server, _buses) = pair(&world).await;
    let written = Shared::default();
    let count: Shared<u64> = std::sync::Arc::clone(&written);
    let sender = tokio::spawn(async move {
        for round in 0..64 {
            let bytes = block(round);
            server.write_all(&bytes).await.unwrap();
            *count.lock().unwrap() += u64::try_from(bytes.len()).unwrap();
        }
        server.shutdown().await.unwrap();
        server
    });
    // The first byte proves that they flow; then they stop although nothing has been read.
    let mut first = [0; 1];
    within(client.read_exact(&mut first)).await.unwrap();
    let mut before = u64::MAX;
    let stuck = within(async {
        loop {
            let now = *written.lock().unwrap();
            if now > 0 && now == before {
                return now;
            }
            before = now;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
    .await;
    // A window, and what may wait in the sender.
    assert!(stuck <= WINDOW + 6 * 64 * 1024, "{stuck} bytes were taken");
    assert_eq!(read_all(&mut client).await.len(), 64 * 64 * 1024 - 1);
    within(sender).await.unwrap();
}

#[tokio::test]
async fn a_reason_crosses_in_both_directions_after_what_was_written() {
    let world = World::start().await;
    let (mut client, mut server, _buses) = pair(&world).await;
    server.write_all(b"last words").await.unwrap();
    server.end(EndReason::new("expired", "the session is over"));
    let mut heard = Vec::new();
    let error = within(client.read_to_end(&mut heard)).await.unwrap_err();
    assert_eq!(heard, b"last words");
    assert_eq!(
        reason_of(&error),
        EndReason::new("expired", "the session is over")
    );
    assert_eq!(client.ended().unwrap().code, "expired");
    let error = client.write_all(b"too late").await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted);

    let (mut client, mut server, _buses) = pair(&world).await;
    server.write_all(b"x").await.unwrap();
    assert_eq!(within(client.read_u8()).await.unwrap(), b'x');
    let handle = client.handle();
    handle.end(EndReason::new("closed", "enough"));
    let error = within(server.read_u8()).await.unwrap_err();
    assert_eq!(reason_of(&error).code, "closed");
    drop(client);
    assert_eq!(within(handle.finished()).await.unwrap().code, "closed");
}

#[tokio::test]
async fn an_end_that_is_let_go_of_ends_the_other() {
    let world = World::start().await;
    let (mut client, mut server, _buses) = pair(&world).await;
    client.write_all(b"x").await.unwrap();
    assert_eq!(within(server.read_u8()).await.unwrap(), b'x');
    drop(client);
    let error = within(server.read_u8()).await.unwrap_err();
    assert_eq!(reason_of(&error).code, EndReason::DROPPED);
}

#[tokio::test]
async fn silence_breaks_a_stream() {
    let world = World::start().await;
    let (gateway, _agent) = ends(&world).await;
    let quick = StreamOptions {
        alive_every: Duration::from_millis(50),
        silent_after: Duration::from_millis(300),
        open_within: Duration::from_millis(300),
    };
    // Nobody comes.
    let mut alone = gateway
        .stream_with(StreamId::fresh(), "stdio", Side::Client, quick)
        .await
        .unwrap();
    let error = within(alone.read_u8()).await.unwrap_err();
    assert!(reason_of(&error).message.contains("nobody"), "{error}");

    // Somebody comes and dies without a word: their connection is cut, ours is not.
    let (dying, proxy) = world.behind_proxy("agent-a", Streams::Server).await;
    let (mut client, server) = pair_on(&gateway, &dying, quick).await;
    within(async {
        // Signs of life alone keep it.
        tokio::time::sleep(quick.silent_after * 3).await;
    })
    .await;
    assert_eq!(client.ended(), None);
    proxy.cut();
    let error = within(client.read_u8()).await.unwrap_err();
    assert!(reason_of(&error).message.contains("silent"), "{error}");
    let there = server.handle();
    assert!(within(there.finished()).await.unwrap().is_broken());
}

#[tokio::test]
async fn a_killed_server_breaks_both_ends_at_once() {
    let world = World::start().await;
    let (mut client, mut server, _buses) = pair(&world).await;
    client.write_all(b"x").await.unwrap();
    assert_eq!(within(server.read_u8()).await.unwrap(), b'x');
    world.crash().await;
    for stream in [&mut client, &mut server] {
        let error = within(stream.read_u8()).await.unwrap_err();
        assert!(reason_of(&error).message.contains("lost"), "{error}");
    }
    // New ones work on the new connection.
    let (mut client, mut server, _buses) = pair(&world).await;
    client.write_all(b"y").await.unwrap();
    assert_eq!(within(server.read_u8()).await.unwrap(), b'y');
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_streams_share_one_connection() {
    let world = World::start().await;
    let (gateway, agent) = ends(&world).await;
    let mut pairs = Vec::new();
    for _ in 0..500 {
        let id = StreamId::fresh();
        let client = gateway.stream(id, "stdio", Side::Client).await.unwrap();
        pairs.push((id, client));
    }
    settled(&gateway).await;
    let mut tasks = tokio::task::JoinSet::new();
    let total = std::sync::Arc::new(AtomicU64::new(0));
    for (number, (id, mut client)) in pairs.into_iter().enumerate() {
        let mut server = agent.stream(id, "stdio", Side::Server).await.unwrap();
        let total = std::sync::Arc::clone(&total);
        tasks.spawn(async move {
            let text = format!("stream {number}").repeat(number + 1);
            let echo = async {
                let mut all = Vec::new();
                server.read_to_end(&mut all).await.unwrap();
                server.write_all(&all).await.unwrap();
                server.shutdown().await.unwrap();
            };
            let ask = async {
                client.write_all(text.as_bytes()).await.unwrap();
                client.shutdown().await.unwrap();
                let mut back = Vec::new();
                client.read_to_end(&mut back).await.unwrap();
                assert_eq!(back, text.as_bytes());
            };
            tokio::join!(echo, ask);
            total.fetch_add(1, Ordering::Relaxed);
        });
    }
    within(async {
        while let Some(done) = tasks.join_next().await {
            done.unwrap()
        }
    })
    .await;
    assert_eq!(total.load(Ordering::Relaxed), 500);
}

/// A message as a peer of this protocol sends it.
fn message(kind: u8, number: u64, content: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(kind);
    out.put_u64_le(number);
    out.put_slice(content);
    out.freeze()
}

#[tokio::test]
async fn a_message_too_many_or_too_few_breaks_the_stream_after_what_was_good() {
    let world = World::start().await;
    let gateway = world.root("gateway").await;
    let plain = world.plain().await;
    let credit = WINDOW.to_le_bytes();
    for (second, what) in [
        (message(0, 1, b"good"), "message 1 came where 2 was due"),
        (message(0, 3, b"lost one"), "message 3 came where 2 was due"),
        (message(77, 2, b""), "no message of a stream"),
        (Bytes::from_static(b"short"), "no message of a stream"),
    ] {
        let id = StreamId::fresh();
        let mut client = gateway.stream(id, "stdio", Side::Client).await.unwrap();
        settled(&gateway).await;
        let to = format!("nimbus.v1.session.{id}.stdio.out");
        let mut told = plain
            .subscribe(format!("nimbus.v1.session.{id}.stdio.in"))
            .await
            .unwrap();
        for bytes in [message(1, 0, &credit), message(0, 1, b"good"), second] {
            #[expect(clippy::disallowed_methods, reason = "a peer that is not ours")]
            plain.publish(to.clone(), bytes).await.unwrap();
        }
        let mut heard = Vec::new();
        let error = within(client.read_to_end(&mut heard)).await.unwrap_err();
        assert_eq!(heard, b"good", "{what}");
        assert!(
            reason_of(&error).is_broken() && error.to_string().contains(what),
            "{error}"
        );
        // The other end is told.
        let last = within(told.next()).await.unwrap();
        assert_eq!(last.payload[0], 3, "{what}");
    }
}

#[tokio::test]
async fn an_end_without_the_right_to_it_breaks_and_says_so() {
    let world = World::start().await;
    let nobody = world.client("gateway", &Grants::default()).await;
    let stream = nobody
        .stream(StreamId::fresh(), "stdio", Side::Client)
        .await
        .unwrap();
    let reason = within(stream.handle().finished()).await.unwrap();
    assert!(reason.message.contains("does not allow"), "{reason}");
    for bad in ["", "a.b", "*", "Stdio", &"a".repeat(33)] {
        let error = nobody
            .stream(StreamId::fresh(), bad, Side::Client)
            .await
            .unwrap_err();
        assert!(matches!(error, BusError::Invalid { .. }), "{bad}");
    }
}

#[tokio::test]
async fn a_splice_joins_both_directions_and_lets_go_of_both() {
    let world = World::start().await;
    let (mut client, server, _buses) = pair(&world).await;
    let (mut inside, outside) = duplex(1024);
    let splicing = tokio::spawn(splice(server, outside));
    client.write_all(b"in").await.unwrap();
    client.shutdown().await.unwrap();
    let mut heard = Vec::new();
    within(inside.read_to_end(&mut heard)).await.unwrap();
    assert_eq!(heard, b"in");
    inside.write_all(b"out").await.unwrap();
    drop(inside);
    assert_eq!(read_all(&mut client).await, b"out");
    assert_eq!(within(splicing).await.unwrap().ended, None);

    // A stream that ends after its bytes takes the target with it, although that says nothing.
    let (mut client, server, _buses) = pair(&world).await;
    let (mut inside, outside) = duplex(1024);
    let splicing = tokio::spawn(splice(server, outside));
    client.shutdown().await.unwrap();
    assert_eq!(within(inside.read(&mut [0; 8])).await.unwrap(), 0);
    client.end(EndReason::new("expired", "the session is over"));
    assert_eq!(within(splicing).await.unwrap().ended.unwrap().code, "expired");
    assert!(inside.write_all(b"more").await.is_err());
}
