//! Models behind the gateway: what reaches them, what comes back, and what is counted.

use nimbus_proto::event::GpuSettingsChanged;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::model::{KEY, Model};
use crate::peers::Person::{self, Bob, BobsMachine};
use crate::world::{World, answer, within};

const CHAT: &str = "/api/gpu/v1/chat/completions";
const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream; charset=utf-8";

async fn world() -> (World, Model) {
    let (world, model) = (World::start().await, Model::start().await);
    world
        .plane
        .change(|state| state.endpoint = Some(model.endpoint()));
    (world, model)
}

fn ask(world: &World, person: Person) -> RequestBuilder {
    world
        .by(person, Method::POST, CHAT)
        .json(&json!({"model": "small", "messages": []}))
}

/// The status and error of an answer as clients of that API read it.
async fn refused(request: RequestBuilder) -> (u16, Value) {
    let (status, body) = answer(request).await;
    let error = body["error"].clone();
    for field in ["message", "type", "code"] {
        assert!(error[field].is_string(), "{field}: {body}");
    }
    (status.as_u16(), error)
}

#[tokio::test]
async fn a_request_reaches_the_model_without_who_asks_and_with_the_key_of_the_box() {
    let (world, model) = world().await;
    let text = r#"{"id":"c","model":"small-1","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#;
    model.say(200, JSON, text);
    let sent = r#"{ "model":"small",  "messages":[] }"#;
    let response = world
        .by(Bob, Method::POST, CHAT)
        .header("content-type", JSON)
        .header("cookie", "nimbus_sid=bob-session")
        .header("x-forwarded-for", "1.2.3.4")
        .header("openai-organization", "acme")
        .body(sent)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert!(!response.headers().contains_key("set-cookie"));
    assert_eq!(response.headers()["content-type"], JSON);
    assert_eq!(response.text().await.unwrap(), text);
    let seen = model.seen().pop().unwrap();
    assert_eq!(
        (seen.path.as_str(), seen.body.as_ref()),
        ("/v1/chat/completions", sent.as_bytes())
    );
    assert_eq!(seen.headers["authorization"], format!("Bearer {KEY}"));
    let mut names: Vec<&str> = seen.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "accept",
            "authorization",
            "content-length",
            "content-type",
            "host"
        ]
    );

    world.plane.until(|state| !state.usage.is_empty()).await;
    let used = world.plane.look(|state| state.usage[0].clone());
    assert_eq!(
        (
            used.user,
            used.machine,
            used.model.as_str(),
            used.requests,
            used.estimated
        ),
        (world.books.user(Bob), None, "small-1", 1, false)
    );
    assert_eq!((used.prompt_tokens, used.completion_tokens), (3, 4));
}

#[tokio::test]
async fn a_stream_passes_as_it_comes_byte_for_byte() {
    let (world, model) = world().await;
    let pieces = model.speak(200, EVENTS);
    let mut response = ask(&world, BobsMachine).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], EVENTS);
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    let parts = [
        "data: {\"model\":\"m\",\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n",
        "data: {\"model\":\"m\",\"choices\":[{\"delta\":{\"content\":\"\\u20ac\"}}]}\r\n\r\n: comment\nda",
        "ta: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n",
    ];
    for part in parts {
        pieces.send(part.into()).await.unwrap();
        let mut got = Vec::new();
        // Before the next piece exists.
        while got.len() < part.len() {
            got.extend_from_slice(&within(response.chunk()).await.unwrap().unwrap());
        }
        assert_eq!(got, part.as_bytes());
    }
    drop(pieces);
    assert_eq!(within(response.chunk()).await.unwrap(), None);
    world.plane.until(|state| !state.usage.is_empty()).await;
    let used = world.plane.look(|state| state.usage[0].clone());
    assert_eq!(
        (used.prompt_tokens, used.completion_tokens, used.estimated),
        (1, 2, false)
    );
    assert_eq!(used.machine, world.books.identity(BobsMachine).machine);
}

#[tokio::test]
async fn who_leaves_ends_the_work_and_pays_for_what_was_made() {
    let (world, model) = world().await;
    let pieces = model.speak(200, EVENTS);
    let mut response = ask(&world, Bob).send().await.unwrap();
    let piece = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
    pieces.send(piece.into()).await.unwrap();
    within(response.chunk()).await.unwrap().unwrap();
    let mut ended = model.ended.subscribe();
    drop(response);
    within(ended.wait_for(|ended| *ended == 1)).await.unwrap();
    world.plane.until(|state| !state.usage.is_empty()).await;
    let used = world.plane.look(|state| state.usage[0].clone());
    assert_eq!(
        (used.completion_tokens, used.estimated, used.model.as_str()),
        (1, true, "small"),
        "the server told no usage"
    );

    // Also before the answer has begun.
    let asked = tokio::spawn(ask(&world, Bob).send());
    within(model.seen.subscribe().wait_for(|seen| seen.len() == 2))
        .await
        .unwrap();
    asked.abort();
    within(ended.wait_for(|ended| *ended == 2)).await.unwrap();
}

#[tokio::test]
async fn failures_are_told_in_the_words_of_that_api() {
    let (world, model) = world().await;
    let (status, error) = refused(world.plain(Method::POST, CHAT)).await;
    assert_eq!(
        (status, error["type"].as_str()),
        (401, Some("authentication_error"))
    );
    for (method, path) in [
        (Method::POST, "/api/gpu/v1/audio/speech"),
        (Method::GET, "/api/gpu/v1/chat/completions"),
        (Method::POST, "/api/gpu/v1/models"),
        (Method::GET, "/api/gpu/v1/metrics"),
    ] {
        let (status, error) = refused(world.by(Bob, method, path)).await;
        assert_eq!(
            (status, error["type"].as_str()),
            (404, Some("invalid_request_error")),
            "{path}"
        );
    }
    assert!(model.seen().is_empty());

    // What the endpoint says about the request is the caller's to read, what it says about Nimbus is not.
    let theirs = r#"{"error":{"message":"no such model","type":"NotFoundError","code":404}}"#;
    model.say(404, JSON, theirs);
    let (status, error) = answer(ask(&world, Bob)).await;
    assert_eq!(
        (status, &error["error"]["message"]),
        (StatusCode::NOT_FOUND, &json!("no such model"))
    );
    model.say(401, JSON, "{}");
    let (status, error) = refused(ask(&world, Bob)).await;
    assert_eq!(
        (status, error["code"].as_str()),
        (502, Some("gpu.inference_down"))
    );
    model.say(502, "text/html", "<html>");
    assert_eq!(refused(ask(&world, Bob)).await.0, 502);
    model.say(302, JSON, "");
    assert_eq!(refused(ask(&world, Bob)).await.0, 502);

    let large = world.by(Bob, Method::POST, CHAT).body(vec![b' '; (32 << 20) + 1]);
    let (status, error) = refused(large).await;
    assert_eq!(
        (status, error["code"].as_str()),
        (413, Some("op.payload_too_large"))
    );
    // None of it was used.
    assert!(world.plane.look(|state| state.usage.is_empty()));
}

#[tokio::test]
async fn where_models_are_is_remembered_until_it_changes() {
    let (world, model) = world().await;
    for _ in 0..3 {
        model.say(200, JSON, r#"{"object":"list","data":[{"id":"org/small"}]}"#);
        let (status, models) = world.get(Bob, "/api/gpu/v1/models").await;
        assert_eq!(
            (status.as_u16(), &models["data"][0]["id"]),
            (200, &json!("org/small"))
        );
    }
    assert_eq!(world.plane.look(|state| state.endpoint_asked), 1);
    model.say(200, JSON, "{}");
    assert_eq!(world.get(Bob, "/api/gpu/v1/models/org/small").await.0, 200);
    assert_eq!(model.seen().pop().unwrap().path, "/v1/models/org/small");

    // It is gone, and an event says so.
    world.plane.change(|state| state.endpoint = None);
    let mut events = world
        .browser(Bob, Method::GET, "/api/events")
        .send()
        .await
        .unwrap();
    World::publish(
        &world.gpu,
        "gpu-scheduler",
        &GpuSettingsChanged { enabled: false },
    )
    .await;
    let mut text = String::new();
    while !text.contains("event: gpu_settings\ndata: {\"enabled\":false}") {
        text.push_str(std::str::from_utf8(&within(events.chunk()).await.unwrap().unwrap()).unwrap());
    }
    let (status, error) = refused(ask(&world, Bob)).await;
    assert_eq!(
        (status, error["code"].as_str()),
        (503, Some("gpu.not_configured"))
    );

    // There is one again, and nobody listens there.
    let mut endpoint = model.endpoint();
    endpoint.base_url = "http://127.0.0.1:1".into();
    world.plane.change(|state| state.endpoint = Some(endpoint));
    World::publish(&world.gpu, "gpu-scheduler", &GpuSettingsChanged { enabled: true }).await;
    while !text.contains("event: gpu_settings\ndata: {\"enabled\":true}") {
        text.push_str(std::str::from_utf8(&within(events.chunk()).await.unwrap().unwrap()).unwrap());
    }
    let (status, error) = refused(ask(&world, Bob)).await;
    assert_eq!(
        (status, error["code"].as_str()),
        (502, Some("gpu.inference_down"))
    );
    assert!(
        !error.to_string().contains("127.0.0.1"),
        "where it is concerns nobody: {error}"
    );
}
