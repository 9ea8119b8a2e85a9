//! What every request passes.

use nimbus_gateway::GatewayConfig;
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::peers::Person::{Ada, Bob};
use crate::world::{World, answer, config, json as body_of, refusal, within};

fn is(outcome: &(u16, String), status: u16, code: &str) -> bool {
    outcome.0 == status && outcome.1 == code
}

#[tokio::test]
async fn what_is_not_there_is_refused_in_the_envelope() {
    let world = World::start().await;
    let refused = refusal(world.plain(Method::GET, "/api/nothing")).await;
    assert!(is(&refused, 404, "service.route_not_found"), "{refused:?}");
    let refused = refusal(world.plain(Method::POST, "/api/")).await;
    assert!(is(&refused, 404, "service.route_not_found"), "{refused:?}");

    let response = world.by(Ada, Method::PATCH, "/api/vms").send().await.unwrap();
    assert_eq!(response.status(), 405);
    let mut allow: Vec<_> = response.headers()["allow"]
        .to_str()
        .unwrap()
        .split(',')
        .map(str::to_owned)
        .collect();
    allow.sort();
    assert_eq!(allow, ["GET", "HEAD", "POST"]);
    assert_eq!(body_of(response).await["fault"]["code"], "op.method_not_allowed");
    let refused = refusal(world.plain(Method::POST, "/machines")).await;
    assert!(is(&refused, 405, "op.method_not_allowed"), "{refused:?}");
}

#[tokio::test]
async fn bodies_and_parameters_are_refused_by_the_name_of_what_is_wrong() {
    let world = World::start().await;
    let good =
        json!({"hostname": "web-1", "tier": "small", "os_template": "debian-12", "generate_key": true});
    for (change, field) in [
        (json!({"colour": "red"}), "colour"),
        (json!({"hostname": "Web_1"}), "hostname"),
        (json!({"tier": "huge"}), "tier"),
        (json!({"os_template": null}), "os_template"),
        (json!({"ssh_pubkey": "ssh-ed25519 AAAA"}), "generate_key"),
        (json!({"generate_key": false}), "ssh_pubkey"),
        (json!({"enable_gpu": true}), "enable_gpu"),
    ] {
        let mut body = good.clone();
        body.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        let (status, answer) = answer(world.by(Ada, Method::POST, "/api/vms").json(&body)).await;
        assert_eq!(
            (status.as_u16(), answer["fault"]["code"].as_str()),
            (400, Some("op.invalid_input")),
            "{change}: {answer}"
        );
        assert_eq!(answer["fault"]["detail"]["field"], field, "{change}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(field), "{answer}");
    }
    for (path, field) in [
        ("/api/vms?colour=red", "colour"),
        ("/api/me?x=1", "x"),
        ("/api/vms?limit=0", "limit"),
        ("/api/vms?limit=many", "limit"),
        ("/api/vms?cursor=nonsense", "cursor"),
        ("/api/vms?limit=1&limit=2", "limit"),
        ("/api/vms/usr_1", "id"),
        ("/api/placement?tier=small", "os_template"),
        ("/api/nodes?preview_tier=huge", "preview_tier"),
    ] {
        let (status, answer) = world.get(Ada, path).await;
        assert_eq!(
            (status.as_u16(), answer["fault"]["detail"]["field"].as_str()),
            (400, Some(field)),
            "{path}: {answer}"
        );
    }
    let post = || world.by(Ada, Method::POST, "/api/tokens");
    let refused = refusal(post().body("{\"name\":\"x\"}")).await;
    assert!(is(&refused, 415, "op.unsupported_media_type"), "{refused:?}");
    let refused = refusal(
        post()
            .header("content-type", "application/json")
            .body("{\"name\":"),
    )
    .await;
    assert!(is(&refused, 400, "op.invalid_input"), "{refused:?}");
    let refused = refusal(
        post()
            .header("content-type", "application/json")
            .body("{\"name\":\"x\"} trailing"),
    )
    .await;
    assert!(is(&refused, 400, "op.invalid_input"), "{refused:?}");
}

#[tokio::test]
async fn large_bodies_and_heads_are_refused() {
    let world = World::start().await;
    let large = json!({"name": "x".repeat(2 * 1024 * 1024)});
    let refused = refusal(world.by(Ada, Method::POST, "/api/tokens").json(&large)).await;
    assert!(is(&refused, 413, "op.payload_too_large"), "{refused:?}");

    let refused = refusal(
        world
            .plain(Method::GET, "/health")
            .header("x-long", "y".repeat(20_000)),
    )
    .await;
    assert!(is(&refused, 431, "op.headers_too_large"), "{refused:?}");
    let refused = refusal(world.plain(Method::GET, &format!("/{}", "a".repeat(20_000)))).await;
    assert!(is(&refused, 431, "op.headers_too_large"), "{refused:?}");

    // Beyond what is read at all, the connection is answered without an envelope and closed.
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let head = format!(
        "GET /health HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n",
        "y".repeat(200_000)
    );
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    // The rest of the head was never read, so the other side may reset the connection after its answer.
    let _ = within(stream.read_to_end(&mut answer)).await;
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    let many: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream
        .write_all(format!("GET /health HTTP/1.1\r\nhost: x\r\n{many}\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = within(stream.read_to_end(&mut answer)).await;
    assert!(
        answer.starts_with(b"HTTP/1.1 431"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

#[tokio::test]
async fn every_answer_has_an_id_of_ours_and_headers_that_keep_pages_in_their_place() {
    let world = World::start().await;
    let mut ids = std::collections::HashSet::new();
    for path in ["/", "/health", "/api/errors", "/api/nothing", "/metrics"] {
        let response = world
            .plain(Method::GET, path)
            .header("x-request-id", "req_mine")
            .send()
            .await
            .unwrap();
        let headers = response.headers();
        let id = headers["x-request-id"].to_str().unwrap();
        assert!(
            id.starts_with("req_") && id.len() == 36 && ids.insert(id.to_owned()),
            "{path}: {id}"
        );
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.contains("default-src 'self'")
                && policy.contains("frame-ancestors 'none'")
                && !policy.contains("unsafe")
        );
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["referrer-policy"], "no-referrer");
        assert!(!headers.contains_key("strict-transport-security"), "{path}");
        assert!(!headers.contains_key("access-control-allow-origin"), "{path}");
    }
    let secret = world.get_headers("/api/me").await;
    assert_eq!(secret["cache-control"], "no-store");
}

impl World {
    async fn get_headers(&self, path: &str) -> reqwest::header::HeaderMap {
        self.by(Ada, Method::GET, path)
            .send()
            .await
            .unwrap()
            .headers()
            .clone()
    }
}

#[tokio::test]
async fn the_portals_page_answers_every_address_and_is_not_sent_twice() {
    let world = World::start().await;
    let first = world.plain(Method::GET, "/").send().await.unwrap();
    assert_eq!(first.status(), 200);
    assert_eq!(first.headers()["cache-control"], "no-cache");
    let tag = first.headers()["etag"].clone();
    let page = first.text().await.unwrap();
    assert!(page.contains("Nimbus"), "{page}");
    let deep = world.plain(Method::GET, "/machines/vm_1").send().await.unwrap();
    assert_eq!((deep.status().as_u16(), deep.text().await.unwrap()), (200, page));
    let again = world
        .plain(Method::GET, "/")
        .header("if-none-match", tag)
        .send()
        .await
        .unwrap();
    assert_eq!(again.status(), 304);
    let packed = world
        .plain(Method::GET, "/")
        .header("accept-encoding", "gzip")
        .send()
        .await
        .unwrap();
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    let missing = world
        .plain(Method::GET, "/assets/none-0123abcd.js")
        .send()
        .await
        .unwrap();
    assert_eq!(missing.status(), 404);
}

#[tokio::test]
async fn each_address_and_each_user_has_a_limit_of_their_own() {
    let tight = GatewayConfig {
        rate_address: 1,
        burst_address: 2,
        rate_user: 1,
        burst_user: 3,
        ..config()
    };
    let world = World::with(tight, true).await;
    // The first request of a credential is still its address'.
    assert_eq!(world.get(Ada, "/api/me").await.0, 200);
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(world.get(Ada, "/api/me").await.0.as_u16());
    }
    assert_eq!(statuses.iter().filter(|s| **s == 200).count(), 3, "{statuses:?}");
    let refused = world.by(Ada, Method::GET, "/api/me").send().await.unwrap();
    assert_eq!(refused.status(), 429);
    assert!(
        refused.headers()["retry-after"]
            .to_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
            >= 1
    );
    assert_eq!(body_of(refused).await["fault"]["code"], "rate.limited");
    assert_eq!(
        world.get(Bob, "/api/me").await.0,
        200,
        "another user pays for themselves"
    );
    let refused = refusal(world.plain(Method::GET, "/api/errors")).await;
    assert!(is(&refused, 429, "rate.limited"), "{refused:?}");
    let health = world.plain(Method::GET, "/health").send().await.unwrap();
    assert_eq!(health.status(), 200, "probes are not counted");
}
