//! Connections: TLS, and an end in order.

use nimbus_gateway::GatewayConfig;
use reqwest::{Certificate, Client, Method};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::peers::Person::Bob;
use crate::world::{World, answer, config, within};

#[tokio::test]
async fn with_a_certificate_the_port_speaks_tls_and_cookies_are_secure() {
    let dir = camino_tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls = GatewayConfig {
        tls_cert: Some(certificate.into()),
        tls_key: Some(key.into()),
        ..config()
    };
    let world = World::with(tls, true).await;

    let trusting = Client::builder()
        .tls_certs_only([Certificate::from_pem(made.cert.pem().as_bytes()).unwrap()])
        .resolve("localhost", world.address)
        .build()
        .unwrap();
    let url = format!("https://localhost:{}/api/auth/login", world.address.port());
    let login = trusting
        .post(&url)
        .json(&json!({"email": "ada@example.org", "password": "correct horse"}))
        .send()
        .await
        .unwrap();
    assert_eq!(login.status(), 200);
    assert!(
        login.headers()["set-cookie"]
            .to_str()
            .unwrap()
            .contains("; Secure")
    );
    assert!(login.headers().contains_key("strict-transport-security"));

    let mut plain = TcpStream::connect(world.address).await.unwrap();
    plain
        .write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = within(plain.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP/"), "nothing is said in the clear");
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_named() {
    let tls = GatewayConfig {
        tls_cert: Some("/nonexistent/cert.pem".into()),
        tls_key: Some("/nonexistent/key.pem".into()),
        ..config()
    };
    let world = within(Box::pin(World::try_with(tls))).await;
    let Err(error) = world else { panic!("it started") };
    assert!(error.to_string().contains("/nonexistent/cert.pem"), "{error}");
}

#[tokio::test]
async fn a_request_that_is_being_answered_is_answered_before_the_end() {
    let world = World::start().await;
    let machine = world.books.own(Bob, "web-1");
    world.books.may_exchange.send_replace(false);
    let waiting = tokio::spawn(answer(world.by(
        Bob,
        Method::GET,
        &format!("/api/vms/{}", machine.id),
    )));
    within(world.books.exchanges.subscribe().wait_for(|count| *count > 0))
        .await
        .unwrap();
    let mut idle = TcpStream::connect(world.address).await.unwrap();
    idle.write_all(b"GET /api/errors HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();

    world.stop.cancel();
    world.books.may_exchange.send_replace(true);
    let (status, body) = within(waiting).await.unwrap();
    assert_eq!(
        (status.as_u16(), body["data"]["hostname"].as_str()),
        (200, Some("web-1"))
    );
    within(world.running).await.unwrap().unwrap();
    let mut rest = Vec::new();
    within(idle.read_to_end(&mut rest)).await.unwrap();
    assert!(
        TcpStream::connect(world.address).await.is_err(),
        "the port is closed"
    );
}

#[tokio::test]
async fn a_wait_is_ended_with_where_to_look_when_the_server_stops() {
    let world = World::start().await;
    let machine = world.books.own(Bob, "web-1");
    let waiting = tokio::spawn(answer(world.by(
        Bob,
        Method::POST,
        &format!("/api/vms/{}/start", machine.id),
    )));
    let mut ordered = world.books.ordered.subscribe();
    let id = within(ordered.wait_for(|all| !all.is_empty())).await.unwrap()[0];
    world.stop.cancel();
    let (status, body) = within(waiting).await.unwrap();
    assert_eq!(
        (status.as_u16(), body["fault"]["code"].as_str()),
        (503, Some("service.unavailable")),
        "{body}"
    );
    assert_eq!(body["fault"]["detail"]["operation_id"], id.to_string());
    within(world.running).await.unwrap().unwrap();
}
