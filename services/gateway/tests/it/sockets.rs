//! WebSockets of sessions, and ports of sandboxes.

use futures::{SinkExt, StreamExt};
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::peers::Person::{Bob, Eve};
use crate::works::SANDBOX;
use crate::world::{World, answer, within};

type Socket = WebSocketStream<TcpStream>;

const SESSION: &str = "ses_01jzzzzzzzzzzzzzzzzzzzzzzz";

async fn connect(world: &World, path: &str, headers: &[(&'static str, &str)]) -> Result<Socket, u16> {
    let mut request = format!("ws://{}{path}", world.address)
        .into_client_request()
        .unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let stream = TcpStream::connect(world.address).await.unwrap();
    match within(client_async(request, stream)).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

async fn next(socket: &mut Socket) -> Message {
    loop {
        match within(socket.next()).await.unwrap().unwrap() {
            Message::Ping(_) | Message::Pong(_) => {}
            message => return message,
        }
    }
}

/// The tag and the payload of a binary message.
async fn tagged(socket: &mut Socket) -> (u8, Vec<u8>) {
    match next(socket).await {
        Message::Binary(bytes) => (bytes[0], bytes[1..].to_vec()),
        other => panic!("{other:?}"),
    }
}

async fn control(socket: &mut Socket) -> Value {
    let (tag, payload) = tagged(socket).await;
    assert_eq!(tag, 3);
    serde_json::from_slice(&payload).unwrap()
}

async fn closed(socket: &mut Socket) -> (u16, String) {
    match next(socket).await {
        Message::Close(Some(frame)) => (frame.code.into(), frame.reason.to_string()),
        other => panic!("{other:?}"),
    }
}

fn bearer() -> String {
    format!("Bearer {}", Bob.token())
}

fn stdio(query: &str) -> String {
    format!("/api/sessions/{SESSION}/channels/stdio{query}")
}

fn order(value: &Value) -> Message {
    let mut bytes = vec![3];
    bytes.extend_from_slice(value.to_string().as_bytes());
    Message::binary(bytes)
}

#[tokio::test]
async fn a_terminal_shows_takes_and_ends() {
    let world = World::start().await;
    let path = stdio("?argv=%5B%22sh%22%5D&tty=1&cols=100&rows=30&command=c9&from=0");
    let headers = [
        ("authorization", bearer()),
        ("sec-websocket-protocol", "nimbus.session.v1".to_owned()),
    ];
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let mut socket = connect(&world, &path, &headers).await.unwrap();
    let opened = control(&mut socket).await;
    assert_eq!(
        (&opened["type"], &opened["command"], &opened["targetGeneration"]),
        (&json!("opened"), &json!("c9"), &json!(1))
    );
    assert_eq!(tagged(&mut socket).await, (1, b"hello\n".to_vec()));
    assert_eq!(tagged(&mut socket).await, (2, b"oops\n".to_vec()));
    socket.send(Message::binary(b"\0typed".to_vec())).await.unwrap();
    assert_eq!(tagged(&mut socket).await, (1, b"typed".to_vec()));
    socket
        .send(order(&json!({ "type": "resize", "cols": 42, "rows": 1 })))
        .await
        .unwrap();
    socket
        .send(order(&json!({ "type": "signal", "name": "INT" })))
        .await
        .unwrap();
    socket.send(order(&json!({ "type": "eof" }))).await.unwrap();
    let exit = control(&mut socket).await;
    assert_eq!(
        (&exit["type"], &exit["code"]),
        (&json!("exit"), &json!(42)),
        "{exit}"
    );
    assert_eq!(closed(&mut socket).await.0, 1000);
}

#[tokio::test]
async fn a_terminal_says_why_it_was_taken_away() {
    let world = World::start().await;
    let token = bearer();
    let headers = [("authorization", token.as_str())];
    let mut socket = connect(&world, &stdio("?argv=%5B%22expire%22%5D"), &headers)
        .await
        .unwrap();
    control(&mut socket).await;
    tagged(&mut socket).await;
    tagged(&mut socket).await;
    assert_eq!(closed(&mut socket).await, (4001, "expired".to_owned()));

    // What cannot be understood ends it, with a reason.
    let mut socket = connect(&world, &stdio("?command=main"), &headers).await.unwrap();
    control(&mut socket).await;
    assert_eq!(
        control(&mut socket).await,
        json!({ "type": "replay", "bytes": 11 })
    );
    tagged(&mut socket).await;
    tagged(&mut socket).await;
    socket.send(Message::text("{\"type\":\"dance\"}")).await.unwrap();
    assert_eq!(closed(&mut socket).await.0, 1007);
}

#[tokio::test]
async fn a_websocket_needs_a_credential_or_a_ticket_and_no_foreign_page_gets_one() {
    let world = World::start().await;
    let cookie = format!("nimbus_sid={}", Bob.session());
    let (own, token) = (format!("http://{}", world.address), bearer());
    let strangers = format!("Bearer {}", Eve.token());
    for (headers, query, expected) in [
        (vec![], "", Err(401)),
        (vec![("authorization", strangers.as_str())], "", Err(404)),
        (vec![("authorization", token.as_str())], "", Ok(())),
        (
            vec![("cookie", cookie.as_str()), ("origin", own.as_str())],
            "",
            Ok(()),
        ),
        (
            vec![("cookie", cookie.as_str()), ("origin", "http://evil.example")],
            "",
            Err(403),
        ),
        (vec![], "?ticket=t", Ok(())),
        (vec![], "?ticket=used", Err(401)),
        (vec![("authorization", token.as_str())], "?colour=1", Err(400)),
    ] {
        let outcome = connect(&world, &stdio(query), &headers).await.map(|_| ());
        assert_eq!(outcome, expected, "{headers:?} {query}");
    }
    // A ticket of one session opens no other.
    let other = connect(&world, "/api/sessions/ses_other/channels/stdio?ticket=t", &[]).await;
    assert_eq!(other.map(|_| ()), Err(401));
    let (status, ticket) =
        answer(world.by(Bob, Method::POST, &format!("/api/sessions/{SESSION}/tickets"))).await;
    assert_eq!((status.as_u16(), &ticket["ticket"]), (201, &json!("t")));
    // Without an upgrade it is an address that says what it is.
    let (status, refused) = world.get(Bob, &stdio("")).await;
    assert_eq!(
        (status.as_u16(), &refused["error"]["code"]),
        (400, &json!("op.invalid_input"))
    );
}

#[tokio::test]
async fn a_port_is_reached_without_credentials_going_in_or_cookies_coming_out() {
    let world = World::start().await;
    let proxy = format!("/api/tenants/demo/sandboxes/{SANDBOX}/proxy");
    let (_, link) = answer(
        world
            .by(
                Bob,
                Method::POST,
                &format!("/api/tenants/demo/sandboxes/{SANDBOX}/preview-links"),
            )
            .json(&json!({ "port": 8080, "ttlMs": 1000 })),
    )
    .await;
    let url = link["url"].as_str().unwrap();
    let link = url.strip_prefix(&format!("http://{}", world.address)).unwrap();
    assert_eq!(link, "/p/8080/p/");
    for (request, uri) in [
        (
            world.browser(Bob, Method::POST, &format!("{proxy}/8080/a/b?x=1")),
            "/a/b?x=1",
        ),
        (world.browser(Bob, Method::POST, &format!("{proxy}/8080/")), "/"),
        (world.plain(Method::POST, &format!("{link}c%20d?y")), "/c%20d?y"),
    ] {
        let response = request
            .header("x-nimbus-secret", "1")
            .header("origin", format!("http://{}", world.address))
            .body("content")
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200, "{uri}");
        let headers = response.headers().clone();
        assert!(!headers.contains_key("set-cookie"));
        assert!(
            headers["content-security-policy"]
                .to_str()
                .unwrap()
                .starts_with("sandbox ")
        );
        assert_eq!(headers["referrer-policy"], "no-referrer");
        assert!(headers.contains_key("x-request-id"));
        let told: Value = response.json().await.unwrap();
        assert_eq!((&told["uri"], &told["body"]), (&json!(uri), &json!("content")));
        assert_eq!(told["host"], "localhost:8080");
        let names = told["headers"].to_string();
        assert!(
            !names.contains("cookie") && !names.contains("authorization"),
            "{names}"
        );
    }
    assert_eq!(
        world
            .plain(Method::GET, "/p/8080/forged/")
            .send()
            .await
            .unwrap()
            .status(),
        404
    );
    assert_eq!(world.get(Bob, &format!("{proxy}/9/")).await.0, 503);

    let mut socket = connect(&world, &format!("{link}socket"), &[]).await.unwrap();
    socket.send(Message::text("echo")).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::text("echo"));
}

#[tokio::test]
async fn http_2_is_spoken_on_the_same_port() {
    let world = World::start().await;
    let stream = TcpStream::connect(world.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let request = Request::get(world.url("/api/tenants"))
        .header("authorization", bearer())
        .body(Empty::<bytes::Bytes>::new())
        .unwrap();
    let response = within(sender.send_request(request)).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.version()),
        (200, http::Version::HTTP_2)
    );
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(
        serde_json::from_slice::<Value>(&body).unwrap(),
        json!({ "tenants": ["demo"] })
    );
}
