//! Machines: ordered in three ways, watched, and left alone.

use nimbus_errors::{Code, Fault};
use nimbus_model::OperationId;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::peers::Person::{self, Ada, Bob};
use crate::world::{World, answer, json as body_of, refusal, within};

fn order(hostname: &str) -> Value {
    json!({"hostname": hostname, "tier": "small", "os_template": "debian-12", "generate_key": true})
}

fn create(world: &World, person: Person, hostname: &str) -> RequestBuilder {
    world.by(person, Method::POST, "/api/vms").json(&order(hostname))
}

/// Waits until so many operations were ordered, and gives the last.
async fn ordered(world: &World, count: usize) -> OperationId {
    let mut ordered = world.books.ordered.subscribe();
    let all = within(ordered.wait_for(|all| all.len() >= count)).await.unwrap();
    all[count - 1]
}

#[tokio::test]
async fn the_plain_answer_comes_when_the_machine_is_there_with_its_key_once() {
    let world = World::start().await;
    let waiting = tokio::spawn(answer(create(&world, Bob, "web-1")));
    let id = ordered(&world, 1).await;
    world.progress(&world.books.after_steps(id, 1)).await;
    assert!(!waiting.is_finished());
    world.progress(&world.books.succeeded(id)).await;
    let (status, made) = within(waiting).await.unwrap();
    assert_eq!(status, 200, "{made}");
    assert_eq!(
        (made["success"].as_bool(), made["data"]["ip"].as_str()),
        (Some(true), Some("10.0.0.9"))
    );
    assert!(
        made["data"]["ssh_private_key"]
            .as_str()
            .unwrap()
            .starts_with("-----BEGIN OPENSSH")
    );
    assert!(made["data"].get("tunnel_url").is_none(), "{made}");

    let claim = refusal(world.by(Bob, Method::POST, &format!("/api/operations/{id}/private-key"))).await;
    assert_eq!(claim, (404, "machine.key_claimed".to_owned()));
    let (_, operation) = world.get(Bob, &format!("/api/operations/{id}")).await;
    assert_eq!(operation["data"]["type"], "vm.provision");
    assert_eq!(operation["data"]["steps"][0]["duration_ms"], 1234);
    assert!(!operation.to_string().contains("OPENSSH"), "{operation}");
}

#[tokio::test]
async fn a_stream_tells_each_step_when_it_is_done_and_the_result_last() {
    let world = World::start().await;
    let mut stream = create(&world, Bob, "web-1")
        .header("accept", "application/x-ndjson")
        .send()
        .await
        .unwrap();
    assert_eq!(stream.status(), 200);
    assert_eq!(stream.headers()["content-type"], "application/x-ndjson");
    let id = ordered(&world, 1).await;
    let mut lines = Lines::default();
    assert_eq!(
        lines.next(&mut stream).await,
        json!({"type": "operation_id", "operation_id": id.to_string()})
    );
    world.progress(&world.books.after_steps(id, 1)).await;
    let first =
        json!({"type": "progress", "step": "reserve_ip", "label": "Reserve address", "duration_ms": 1234});
    assert_eq!(lines.next(&mut stream).await, first);
    world.progress(&world.books.succeeded(id)).await;
    assert_eq!(lines.next(&mut stream).await["step"], "clone_template");
    assert_eq!(lines.next(&mut stream).await["step"], "start_vm");
    let last = lines.next(&mut stream).await;
    assert_eq!(
        (last["type"].as_str(), last["data"]["hostname"].as_str()),
        (Some("result"), Some("web-1")),
        "{last}"
    );
    assert!(last["data"]["ssh_private_key"].is_string());
    assert!(within(stream.chunk()).await.unwrap().is_none(), "the stream ends");
}

#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    async fn next(&mut self, stream: &mut reqwest::Response) -> Value {
        loop {
            if let Some(end) = self.0.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.0.drain(..=end).collect();
                return serde_json::from_slice(&line).unwrap();
            }
            let chunk = within(stream.chunk())
                .await
                .unwrap()
                .expect("the stream ended early");
            self.0.extend_from_slice(&chunk);
        }
    }
}

#[tokio::test]
async fn failures_say_what_went_wrong_in_all_three_ways() {
    let world = World::start().await;
    let fault = || Fault::new(Code::IppoolExhausted, "every address of the pool is in use");
    let waiting = tokio::spawn(answer(create(&world, Bob, "web-1")));
    let id = ordered(&world, 1).await;
    world.progress(&world.books.failed(id, fault())).await;
    let (status, body) = within(waiting).await.unwrap();
    assert_eq!(
        (status.as_u16(), body["fault"]["code"].as_str()),
        (409, Some("ippool.exhausted")),
        "{body}"
    );

    let mut stream = create(&world, Bob, "web-2")
        .header("accept", "application/x-ndjson")
        .send()
        .await
        .unwrap();
    let id = ordered(&world, 2).await;
    world.progress(&world.books.failed(id, fault())).await;
    let mut lines = Lines::default();
    lines.next(&mut stream).await;
    let last = lines.next(&mut stream).await;
    assert_eq!(
        (last["type"].as_str(), last["code"].as_str()),
        (Some("error"), Some("conflict")),
        "{last}"
    );
    assert_eq!(last["fault"]["code"], "ippool.exhausted");

    let (_, operation) = world.get(Bob, &format!("/api/operations/{id}")).await;
    assert_eq!(operation["data"]["state"], "failed");
    assert_eq!(
        operation["data"]["fault"]["remediation"]["action"],
        "wait_and_retry"
    );
    // Before anything was begun there is nothing to stream.
    let refused = refusal(create(&world, Bob, "taken").header("accept", "application/x-ndjson")).await;
    assert_eq!(refused, (409, "machine.hostname_taken".to_owned()));
}

#[tokio::test]
async fn who_does_not_wait_gets_the_operation_and_fetches_the_key_later() {
    let world = World::start().await;
    let accepted = create(&world, Bob, "web-1")
        .header("prefer", "wait=5, respond-async")
        .send()
        .await
        .unwrap();
    assert_eq!(accepted.status(), 202);
    let location = accepted.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(accepted.headers()["preference-applied"], "respond-async");
    let operation = body_of(accepted).await;
    assert_eq!(
        location,
        format!("/api/operations/{}", operation["data"]["id"].as_str().unwrap())
    );
    assert_eq!(operation["data"]["target_label"], "web-1");

    let id = ordered(&world, 1).await;
    world.progress(&world.books.succeeded(id)).await;
    let (_, done) = world.get(Bob, &location).await;
    assert_eq!(done["data"]["result"]["has_private_key"], true);
    let (status, key) = answer(world.by(Bob, Method::POST, &format!("{location}/private-key"))).await;
    assert_eq!(
        (status.as_u16(), key["data"]["key_name"].as_str()),
        (200, Some("nimbus-web-1"))
    );
    assert_eq!(
        refusal(world.by(Ada, Method::POST, &format!("{location}/private-key")))
            .await
            .0,
        404
    );
}

#[tokio::test]
async fn a_repeat_with_its_key_is_the_same_order_and_nobody_elses() {
    let world = World::start().await;
    let send = |person, key: &str| {
        let request = create(&world, person, "web-1")
            .header("prefer", "respond-async")
            .header("idempotency-key", key);
        async { answer(request).await.1["data"]["id"].as_str().unwrap().to_owned() }
    };
    let first = send(Bob, "k1").await;
    assert_eq!(send(Bob, "k1").await, first);
    assert_ne!(send(Bob, "k2").await, first);
    assert_ne!(send(Ada, "k1").await, first);
    let without = create(&world, Bob, "web-1").header("prefer", "respond-async");
    assert_ne!(answer(without).await.1["data"]["id"].as_str().unwrap(), first);
    for bad in ["", "two words", &"x".repeat(300)] {
        let request = create(&world, Bob, "web-1").header("idempotency-key", bad);
        assert_eq!(
            refusal(request).await,
            (400, "op.invalid_input".to_owned()),
            "{bad:?}"
        );
    }
}

#[tokio::test]
async fn a_client_that_leaves_aborts_nothing_and_can_fetch_the_key_later() {
    let world = World::start().await;
    let stream = create(&world, Bob, "web-1")
        .header("accept", "application/x-ndjson")
        .send()
        .await
        .unwrap();
    let first = ordered(&world, 1).await;
    drop(stream);
    let waiting = tokio::spawn(create(&world, Bob, "web-2").send());
    let second = ordered(&world, 2).await;
    waiting.abort();
    let _ = waiting.await;
    // A gateway that serves on after both have left.
    assert_eq!(
        world.get(Bob, "/api/vms").await.1["data"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    for id in [first, second] {
        world.progress(&world.books.succeeded(id)).await;
        let (status, key) =
            answer(world.by(Bob, Method::POST, &format!("/api/operations/{id}/private-key"))).await;
        assert_eq!(
            (status.as_u16(), key["data"]["key_name"].as_str()),
            (200, Some("nimbus-web-1")),
            "{id}"
        );
    }
}

#[tokio::test]
async fn deleting_and_powering_answer_when_done_or_at_once() {
    let world = World::start().await;
    let machine = world.books.own(Bob, "web-1");
    let mut count = 0;
    for (method, path) in [
        (Method::POST, format!("/api/vms/{}/start", machine.id)),
        (Method::POST, format!("/api/vms/{}/shutdown", machine.id)),
        (Method::POST, format!("/api/vms/{}/stop", machine.id)),
        (Method::POST, format!("/api/vms/{}/reboot", machine.id)),
        (Method::DELETE, format!("/api/vms/{}", machine.id)),
    ] {
        let (status, operation) = answer(
            world
                .by(Bob, method.clone(), &path)
                .header("prefer", "respond-async"),
        )
        .await;
        assert_eq!(status, 202, "{path}");
        let kind = path
            .rsplit('/')
            .next()
            .filter(|verb| !verb.starts_with("vm_"))
            .unwrap_or("delete");
        assert_eq!(operation["data"]["type"], format!("vm.{kind}"));
        let waiting = tokio::spawn(world.by(Bob, method.clone(), &path).send());
        count += 2;
        let id = ordered(&world, count).await;
        world.progress(&world.books.succeeded(id)).await;
        assert_eq!(within(waiting).await.unwrap().unwrap().status(), 204, "{path}");
    }
    let path = format!("/api/vms/{}/reboot", machine.id);
    let waiting = tokio::spawn(refusal(world.by(Bob, Method::POST, &path)));
    let id = ordered(&world, count + 1).await;
    world
        .progress(
            &world
                .books
                .failed(id, Fault::new(Code::OpConflict, "web-1 is off")),
        )
        .await;
    assert_eq!(within(waiting).await.unwrap(), (409, "op.conflict".to_owned()));
}

#[tokio::test]
async fn lists_come_in_pages_that_meet_without_gap_or_overlap() {
    let world = World::start().await;
    let mut all: Vec<_> = (0..5)
        .map(|n| world.books.own(Bob, &format!("web-{n}")).id.to_string())
        .collect();
    world.books.own(Ada, "not-bobs");
    all.reverse();
    let mut seen = Vec::new();
    let mut path = "/api/vms?limit=2".to_owned();
    loop {
        let (status, page) = world.get(Bob, &path).await;
        assert_eq!(status, 200, "{page}");
        seen.extend(
            page["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|vm| vm["ID"].as_str().unwrap().to_owned()),
        );
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/api/vms?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, all);
    let (_, machine) = world.get(Bob, &format!("/api/vms/{}", all[0])).await;
    assert_eq!(machine["data"]["status"], "running");
    assert!(machine["data"]["DeletedAt"].is_null() && machine["data"]["CreatedAt"].is_string());
}
