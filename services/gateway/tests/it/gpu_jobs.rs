//! GPU jobs: submitted, followed, fetched, cancelled.

use nimbus_gpu_wire::Command;
use nimbus_proto::gpu::JobState;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::peers::Person::{Ada, Bob, BobsMachine, BobsReader, Eve};
use crate::world::{World, answer, refusal, within};

/// Status and body of the answer for people.
pub(crate) async fn text(request: reqwest::RequestBuilder) -> (u16, String) {
    let response = request.header("accept", "text/plain").send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test]
async fn a_job_is_submitted_looked_at_and_cancelled_in_json_and_in_text() {
    let world = World::start().await;
    let body =
        json!({"image": "busybox", "command": ["sh", "-c", "echo 'a b'"], "env": {"A": "1"}, "vm_id": null});
    let response = world
        .by(Bob, Method::POST, "/api/gpu/jobs")
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 201);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let made: Value = response.json().await.unwrap();
    let job = &made["data"];
    assert_eq!(location, format!("/api/gpu/jobs/{}", job["id"].as_str().unwrap()));
    assert_eq!(
        (job["state"].as_str(), &job["command"], &job["env"]),
        (Some("queued"), &body["command"], &json!({"A": "1"}))
    );
    let (_, list) = world.get(Bob, "/api/gpu/jobs?state=queued&cursor=c1").await;
    assert_eq!(
        (list["data"][0]["id"].as_str(), list["next_cursor"].as_str()),
        (job["id"].as_str(), Some("c1"))
    );
    assert_eq!(
        world.get(Bob, "/api/gpu/jobs?state=failed").await.1["data"],
        json!([])
    );
    // By its other name as well, but not by both.
    let (_, same) = world.get(Bob, "/api/gpu/jobs?status=queued&cursor=c1").await;
    assert_eq!(same["data"], list["data"]);
    for (query, field) in [
        ("status=lost", "status"),
        ("state=lost", "state"),
        ("state=queued&status=queued", "status"),
    ] {
        let (status, refused) = world.get(Bob, &format!("/api/gpu/jobs?{query}")).await;
        assert_eq!(
            (status.as_u16(), refused["fault"]["detail"]["field"].as_str()),
            (400, Some(field)),
            "{refused}"
        );
    }
    assert_eq!(world.get(Eve, "/api/gpu/jobs").await.1["data"], json!([]));
    assert_eq!(world.get(Eve, &location).await.0, 404);

    let (status, table) = text(world.by(Bob, Method::GET, "/api/gpu/jobs")).await;
    assert_eq!((status, table.lines().count()), (200, 2), "{table}");
    assert!(
        table.starts_with("ID ") && table.contains("sh -c 'echo '\\''a b'\\'''"),
        "{table}"
    );
    let (status, facts) = text(world.by(Bob, Method::POST, &format!("{location}/cancel"))).await;
    assert_eq!(status, 200);
    assert!(facts.contains("\nstate      cancelled\n"), "{facts}");
    let again = world.by(Bob, Method::POST, &format!("{location}/cancel"));
    let (status, line) = text(again).await;
    assert_eq!((status, line.as_str()), (409, "the job has ended\n"));
    let (status, id) = text(
        world
            .by(Bob, Method::POST, "/api/gpu/jobs")
            .json(&json!({"image": "i"})),
    )
    .await;
    assert_eq!(
        (status, id.starts_with("job_"), id.ends_with('\n')),
        (201, true, true)
    );
    assert_eq!(
        world.plane.look(|state| state.submitted[1].command.clone()),
        Command::Image
    );
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_name() {
    let world = World::start().await;
    let post = |body: Value| world.by(Bob, Method::POST, "/api/gpu/jobs").json(&body);
    for (body, field) in [
        (json!({"image": "i", "colour": 1}), "colour"),
        (json!({}), "image"),
        (json!({"image": "i", "command": 1}), "command"),
        (json!({"image": "i", "vm_id": "web-1"}), "vm_id"),
        (
            json!({"image": "i", "datasets": [{"name": "x", "host": "/"}]}),
            "datasets[0].host",
        ),
    ] {
        let (status, answer) = answer(post(body)).await;
        assert_eq!(
            (status, &answer["fault"]["detail"]["field"]),
            (StatusCode::BAD_REQUEST, &json!(field)),
            "{answer}"
        );
    }
    assert_eq!(
        refusal(post(json!({"image": "quota"}))).await,
        (409, "gpu.quota_exceeded".to_owned())
    );
    for path in ["?state=lost", "?limit=0", "?limit=201", "?colour=1"] {
        let (status, _) = world.get(Bob, &format!("/api/gpu/jobs{path}")).await;
        assert_eq!(status, 400, "{path}");
    }
    // A script that may only look at machines is not let in.
    assert_eq!(
        refusal(world.by(BobsReader, Method::GET, "/api/gpu/jobs"))
            .await
            .0,
        403
    );
    let id = world.plane.own(world.books.user(Bob), None, |_| ());
    let path = format!("/api/gpu/jobs/{id}");
    let prioritize = |person| {
        world
            .by(person, Method::PATCH, &path)
            .json(&json!({"priority": 7}))
    };
    assert_eq!(refusal(prioritize(Bob)).await.0, 403);
    assert_eq!(answer(prioritize(Ada)).await.1["data"]["priority"], 7);
}

#[tokio::test]
async fn the_token_of_a_machine_is_for_its_own_jobs_and_for_nothing_else() {
    let world = World::start().await;
    let user = world.books.user(Bob);
    let others = world.plane.own(user, None, |_| ());
    let path = format!("/api/gpu/jobs/{others}");
    assert_eq!(
        world.get(BobsMachine, &path).await.0,
        404,
        "of its owner, not its own"
    );
    let own = json!({"image": "i", "command": "nvidia-smi"});
    let (status, made) = answer(world.by(BobsMachine, Method::POST, "/api/gpu/jobs").json(&own)).await;
    assert_eq!(status, 201, "{made}");
    let machine = world.books.identity(BobsMachine).machine.unwrap();
    assert_eq!(made["data"]["vm_id"], machine.to_string());
    let (_, list) = world.get(BobsMachine, "/api/gpu/jobs").await;
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    assert_eq!(world.get(BobsMachine, "/api/gpu/inference").await.0, 200);
    for path in [
        "/api/me",
        "/api/vms",
        "/api/events",
        "/api/auth/tokens",
        "/api/tenants",
        "/api/operations",
        "/api/settings/gpu",
        "/api/gpu/workers",
        "/api/gpu/usage",
        "/api/gpux",
        "/health",
    ] {
        let status = world
            .by(BobsMachine, Method::GET, path)
            .send()
            .await
            .unwrap()
            .status();
        assert_eq!(status, 403, "{path}");
    }
    for (method, path) in [
        (Method::POST, "/api/settings/gpu/pairing"),
        (Method::POST, "/api/settings/gpu/unpair"),
        (Method::DELETE, "/api/gpu/workers/gx10"),
    ] {
        let status = world.by(BobsMachine, method, path).send().await.unwrap().status();
        assert_eq!(status, 403, "{path}");
    }
    let grpc = world
        .by(BobsMachine, Method::POST, "/nimbus.v1.Sandboxes/List")
        .header("content-type", "application/grpc");
    assert_eq!(grpc.send().await.unwrap().status(), 403);
}

#[tokio::test]
async fn a_log_is_bytes_from_any_place_and_says_how_far_it_goes() {
    let world = World::start().await;
    let id = world.plane.own(world.books.user(Bob), None, |_| ());
    let log: Vec<u8> = (0..3_000_000_u32)
        .map(|n| u8::try_from(n % 251).unwrap())
        .collect();
    world.plane.print(id, &log);
    let path = format!("/api/gpu/jobs/{id}/logs");
    let whole = world.by(Bob, Method::GET, &path).send().await.unwrap();
    let header = |name: &str| whole.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(
        (
            header("nimbus-log-end"),
            header("nimbus-job-state"),
            header("nimbus-log-truncated"),
            header("content-length")
        ),
        (
            "3000000".into(),
            "running".into(),
            "false".into(),
            "3000000".into()
        )
    );
    assert_eq!(whole.bytes().await.unwrap(), log);
    let part = world.by(Bob, Method::GET, &format!("{path}?offset=1000000&limit=1500000"));
    assert_eq!(
        part.send().await.unwrap().bytes().await.unwrap(),
        log[1_000_000..2_500_000]
    );
    let end = world
        .by(Bob, Method::GET, &format!("{path}?offset=3000000"))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (end.status().as_u16(), end.bytes().await.unwrap().len()),
        (200, 0)
    );
    assert_eq!(world.get(Bob, &format!("{path}?offset=3000001")).await.0, 400);
    assert_eq!(world.get(Bob, &format!("{path}?limit=0")).await.0, 400);

    // Who waits is answered when there is more, and told how the job ended when there is no more.
    let waiting = world
        .by(Bob, Method::GET, &format!("{path}?offset=3000000&wait_ms=30000"))
        .send();
    let waiting = tokio::spawn(waiting);
    world.plane.print(id, b"more");
    assert_eq!(
        within(waiting).await.unwrap().unwrap().text().await.unwrap(),
        "more"
    );
    let waiting = tokio::spawn(
        world
            .by(Bob, Method::GET, &format!("{path}?offset=3000004&wait_ms=30000"))
            .send(),
    );
    let ended = |job: &mut nimbus_proto::gpu::Job| (job.state, job.exit_code) = (JobState::Failed, Some(3));
    world.plane.tell(&world.gpu, id, ended).await;
    let last = within(waiting).await.unwrap().unwrap();
    assert_eq!(last.headers()["nimbus-job-exit-code"], "3");
    assert_eq!(last.headers()["nimbus-job-state"], "failed");
}

/// The events of a stream up to its end: names, ids and data.
fn events(text: &str) -> Vec<(String, Option<u64>, Value)> {
    let field = |block: &str, name: &str| {
        let found = block.lines().find_map(|line| line.strip_prefix(name));
        found.map(str::to_owned)
    };
    text.split("\n\n")
        .filter_map(|block| {
            Some((
                field(block, "event: ")?,
                field(block, "id: ").map(|id| id.parse().unwrap()),
                serde_json::from_str(&field(block, "data: ")?).unwrap(),
            ))
        })
        .collect()
}

#[tokio::test]
async fn a_log_can_be_followed_to_its_end_without_cutting_characters() {
    let world = World::start().await;
    let id = world.plane.own(world.books.user(Bob), None, |_| ());
    let path = format!("/api/gpu/jobs/{id}/logs?follow=true");
    world.plane.print(id, b"one\n\xe2\x82");
    let mut response = world.browser(Bob, Method::GET, &path).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    let mut until = async |text: &mut String, what: &str| {
        while !text.contains(what) {
            let chunk = within(response.chunk()).await.unwrap().expect(what);
            text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    };
    until(&mut text, "one").await;
    world.plane.print(id, b"\xac");
    until(&mut text, "\u{20ac}").await;
    world.plane.print(id, b"\xff\xfe");
    until(&mut text, "base64").await;
    let ended =
        |job: &mut nimbus_proto::gpu::Job| (job.state, job.exit_code) = (JobState::Succeeded, Some(0));
    world.plane.tell(&world.gpu, id, ended).await;
    until(&mut text, "succeeded").await;
    while let Some(chunk) = within(response.chunk()).await.unwrap() {
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    let events = events(&text);
    let logs: Vec<_> = events.iter().filter(|(name, ..)| name == "log").collect();
    let expected = [
        (Some(4), json!({"offset": 0, "text": "one\n"})),
        (Some(7), json!({"offset": 4, "text": "\u{20ac}"})),
        (Some(9), json!({"offset": 7, "base64": "//4="})),
    ];
    assert_eq!(logs.len(), expected.len(), "{text}");
    for ((_, id, data), expected) in logs.iter().zip(expected) {
        assert_eq!((*id, data.clone()), expected);
    }
    let states: Vec<_> = events.iter().filter(|(name, ..)| name == "state").collect();
    assert_eq!(states.first().unwrap().2["state"], "running");
    assert_eq!(
        (
            &states.last().unwrap().2["state"],
            &states.last().unwrap().2["exit_code"]
        ),
        (&json!("succeeded"), &json!(0))
    );
    // Who comes back begins where they stopped.
    let again = world
        .browser(Bob, Method::GET, &path)
        .header("last-event-id", "4")
        .send()
        .await
        .unwrap();
    let again = again.text().await.unwrap();
    assert!(
        !again.contains("one") && again.contains("\"offset\":4"),
        "{again}"
    );
    assert_eq!(refusal(world.browser(Eve, Method::GET, &path)).await.0, 404);
}

#[tokio::test]
async fn an_artifact_is_there_in_whole_and_in_parts() {
    let world = World::start().await;
    let id = world.plane.own(world.books.user(Bob), None, |job| {
        job.artifact_note = Some("it was too large".into());
    });
    let path = format!("/api/gpu/jobs/{id}/artifact");
    let (status, none) = world.get(Bob, &path).await;
    assert_eq!(status, 404);
    assert!(
        none["error"].as_str().unwrap().contains("it was too large"),
        "{none}"
    );
    let bytes: Vec<u8> = (0..4321_u32).map(|n| u8::try_from(n % 256).unwrap()).collect();
    world.plane.leave(id, &bytes);
    let whole = world.by(Bob, Method::GET, &path).send().await.unwrap();
    assert_eq!(whole.headers()["content-type"], "application/gzip");
    assert_eq!(whole.headers()["content-length"], "4321");
    assert_eq!(
        whole.headers()["content-disposition"],
        format!("attachment; filename=\"{id}.tar.gz\"")
    );
    let tag = whole.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(whole.bytes().await.unwrap(), bytes);
    let part = |range: &str| world.by(Bob, Method::GET, &path).header("range", range).send();
    let middle = part("bytes=1500-2999").await.unwrap();
    assert_eq!(
        (
            middle.status().as_u16(),
            middle.headers()["content-range"].to_str().unwrap()
        ),
        (206, "bytes 1500-2999/4321")
    );
    assert_eq!(middle.bytes().await.unwrap(), bytes[1500..3000]);
    let beyond = part("bytes=4321-").await.unwrap();
    assert_eq!(
        (
            beyond.status().as_u16(),
            beyond.headers()["content-range"].to_str().unwrap()
        ),
        (416, "bytes */4321")
    );
    let known = world
        .by(Bob, Method::GET, &path)
        .header("if-none-match", tag)
        .send()
        .await
        .unwrap();
    assert_eq!(known.status(), 304);
}
