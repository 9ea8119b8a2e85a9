//! Commands and files inside sandboxes over HTTP.

use futures::StreamExt;
use nimbus_guest::protocol::{Hello, Precondition, Since};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::peers::Person::Bob;
use crate::works::SANDBOX;
use crate::world::{World, answer, within};

fn root() -> String {
    format!("/api/tenants/demo/sandboxes/{SANDBOX}")
}

async fn lines(response: Response) -> Vec<Value> {
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let text = within(response.text()).await.unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn a_short_command_is_one_call_and_a_long_one_is_collected_from_its_stream() {
    let world = World::start().await;
    let exec = |body: Value| {
        world
            .by(Bob, Method::POST, &format!("{}/exec", root()))
            .json(&body)
    };
    let (status, done) = answer(exec(
        json!({ "argv": ["uname"], "env": { "A": "b" }, "stdin": "in", "commandId": "c1", "cwd": "/tmp" }),
    ))
    .await;
    assert_eq!(status, 200);
    assert_eq!(
        done,
        json!({ "commandId": "c1", "exitCode": 0, "stdout": "hi\n", "stderr": "", "truncated": false })
    );
    let asked = world.works.execs().pop().unwrap();
    assert_eq!(
        (asked.stdin.as_slice(), asked.command.timeout_ms),
        (&b"in"[..], Some(60_000))
    );
    assert_eq!(asked.command.env, [("A".to_owned(), "b".to_owned())]);
    assert!(asked.command.stdin);

    let (_, done) = answer(exec(json!({ "argv": ["make"], "timeoutMs": 600000 }))).await;
    assert_eq!(
        (&done["exitCode"], &done["stdout"], &done["stderr"]),
        (&json!(3), &json!("hello\n"), &json!("oops\n"))
    );
    for (body, field) in [
        (json!({ "argv": [] }), "argv"),
        (json!({ "argv": ["a"], "stdinOpen": true }), "stdinOpen"),
        (json!({ "argv": ["a"], "shell": true }), "shell"),
    ] {
        let (status, refused) = answer(exec(body)).await;
        assert_eq!(
            (status.as_u16(), &refused["error"]["detail"]["field"]),
            (400, &json!(field))
        );
    }
}

#[tokio::test]
async fn a_streamed_command_tells_offsets_and_can_be_read_again_from_any() {
    let world = World::start().await;
    let streamed = world
        .by(Bob, Method::POST, &format!("{}/exec", root()))
        .header("accept", "application/x-ndjson")
        .json(&json!({ "argv": ["cat"], "stdin": "typed", "commandId": "c2" }));
    let frames = lines(streamed.send().await.unwrap()).await;
    assert_eq!(
        frames,
        [
            json!({ "kind": "opened", "targetGeneration": 1, "commandId": "c2", "started": true, "offset": 0, "end": 0, "input": 0 }),
            json!({ "kind": "stdout", "offset": 0, "data": "hello\n" }),
            json!({ "kind": "stderr", "offset": 6, "data": "oops\n" }),
            json!({ "kind": "stdout", "offset": 11, "data": "typed" }),
            json!({ "kind": "exit", "code": 3 }),
        ]
    );
    let again = |from: u64| world.by(Bob, Method::GET, &format!("{}/commands/c2?from={from}", root()));
    let frames = lines(again(8).send().await.unwrap()).await;
    assert_eq!(
        frames[1],
        json!({ "kind": "stderr", "offset": 8, "data": "ps\n" })
    );
    let (status, refused) = answer(again(99)).await;
    assert_eq!(
        (status.as_u16(), &refused["error"]["code"]),
        (409, &json!("op.out_of_retention"))
    );
    assert!(matches!(
        world.works.hellos().pop(),
        Some(Hello::Attach {
            since: Since::Offset(99),
            input: false,
            ..
        })
    ));

    // A lease that ends says so in the last line.
    let expiring = world
        .by(Bob, Method::POST, &format!("{}/exec", root()))
        .header("accept", "application/x-ndjson")
        .json(&json!({ "argv": ["expire"] }));
    let frames = lines(expiring.send().await.unwrap()).await;
    assert_eq!(
        frames.last().unwrap(),
        &json!({ "kind": "closed", "reason": "expired", "offset": 11 })
    );
}

#[tokio::test]
async fn commands_are_listed_signalled_and_fed() {
    let world = World::start().await;
    let (_, list) = world.get(Bob, &format!("{}/commands", root())).await;
    let main = &list["items"][0];
    assert_eq!(
        (&main["id"], &main["state"], &main["logEnd"]),
        (&json!("main"), &json!("running"), &json!(11))
    );
    let signal = |name: &str| {
        world
            .by(Bob, Method::POST, &format!("{}/commands/c1/signal", root()))
            .json(&json!({ "signal": name }))
    };
    assert_eq!(signal("TERM").send().await.unwrap().status(), 204);
    assert_eq!(answer(signal("LOUD")).await.0, 400);
    assert_eq!(world.works.signals(), [("c1".to_owned(), 15)]);

    let give = |body: Value| {
        world
            .by(Bob, Method::POST, &format!("{}/commands/c1/input", root()))
            .json(&body)
    };
    let (status, taken) = answer(give(
        json!({ "data": "aGk=", "encoding": "base64", "offset": 0, "eof": true }),
    ))
    .await;
    assert_eq!((status.as_u16(), taken), (202, json!({ "accepted": 2 })));
    assert_eq!(
        answer(give(json!({ "data": "?", "encoding": "base64" }))).await.0,
        400
    );
}

#[tokio::test]
async fn logs_come_as_lines() {
    let world = World::start().await;
    let log = |query: &str| world.by(Bob, Method::GET, &format!("{}/logs{query}", root()));
    let all = lines(log("?tail=5").send().await.unwrap()).await;
    assert_eq!(
        all,
        [json!({ "ts": "2026-06-10T17:03:21Z", "stream": "stdout", "data": "one" })]
    );
    let response = log("?follow=true&since=2026-06-10T17:00:00Z")
        .send()
        .await
        .unwrap();
    let mut body = response.bytes_stream();
    let first = within(body.next()).await.unwrap().unwrap();
    assert!(first.starts_with(b"{\"ts\""));
}

#[tokio::test]
async fn files_are_written_read_in_parts_and_guarded() {
    let world = World::start().await;
    let at = |method: Method, path: &str| world.by(Bob, method, &format!("{}/files/{path}", root()));
    let put =
        |body: &'static str| at(Method::PUT, "content?path=/data/a.txt&mode=0600&createParents=1").body(body);
    let (status, entry) = answer(put("0123456789")).await;
    assert_eq!(status, 201);
    assert_eq!(
        (&entry["path"], &entry["type"], &entry["size"], &entry["mode"]),
        (&json!("/data/a.txt"), &json!("file"), &json!(10), &json!("0644"))
    );
    assert_eq!(answer(put("0123456789abc")).await.0, 200);
    assert!(matches!(
        world.works.hellos().pop(),
        Some(Hello::WriteFile {
            mode: Some(0o600),
            create_parents: true,
            must: Precondition::None,
            ..
        })
    ));
    let guarded = put("x").header("if-none-match", "*");
    assert_eq!(answer(guarded).await.0, 412);

    let get = || at(Method::GET, "content?path=/data/a.txt");
    let whole = get().send().await.unwrap();
    assert_eq!(whole.headers()["etag"], "\"e13\"");
    assert_eq!(whole.headers()["content-disposition"], "attachment");
    assert_eq!(whole.headers()["content-length"], "13");
    assert_eq!(whole.text().await.unwrap(), "0123456789abc");
    let part = get().header("range", "bytes=2-4").send().await.unwrap();
    assert_eq!(
        (part.status().as_u16(), &part.headers()["content-range"]),
        (206, &"bytes 2-4/13".parse().unwrap())
    );
    assert_eq!(part.text().await.unwrap(), "234");
    let known = get().header("if-none-match", "\"e13\"").send().await.unwrap();
    assert_eq!(known.status(), 304);
    assert_eq!(answer(at(Method::GET, "content?path=/nothing")).await.0, 404);

    answer(at(Method::PUT, "content?path=/data/b.txt").body("b")).await;
    let (_, page) = answer(at(Method::GET, "list?path=/data&limit=1")).await;
    assert_eq!(page["entries"][0]["path"], "/data/a.txt");
    let token = page["nextPageToken"].as_str().unwrap();
    let (_, page) = answer(at(
        Method::GET,
        &format!("list?path=/data&limit=1&pageToken={token}"),
    ))
    .await;
    assert_eq!(
        (&page["entries"][0]["name"], &page["nextPageToken"]),
        (&json!("b.txt"), &Value::Null)
    );
    let (status, made) =
        answer(at(Method::POST, "mkdir").json(&json!({ "path": "/data/d", "mode": "0700" }))).await;
    assert_eq!((status.as_u16(), &made["type"]), (201, &json!("dir")));
    assert_eq!(
        at(Method::DELETE, "content?path=/data/b.txt")
            .send()
            .await
            .unwrap()
            .status(),
        204
    );
    assert_eq!(answer(at(Method::GET, "stat?path=/data/b.txt")).await.0, 404);
    let archive = at(Method::GET, "archive?path=/data").send().await.unwrap();
    assert_eq!(archive.text().await.unwrap(), "a tar archive");
    assert_eq!(
        answer(at(Method::PUT, "archive?path=/data").body("a tar archive"))
            .await
            .0,
        200
    );

    // The same by a session.
    let (_, entry) = world
        .get(Bob, "/api/sessions/ses_1/channels/files/stat?path=/data/a.txt")
        .await;
    assert_eq!(entry["size"], 13);
    for (path, field) in [
        ("content?path=/x&mode=9", "mode"),
        ("content?path=/x&createParents=maybe", "createParents"),
        ("content?path=/x&colour=1", "colour"),
    ] {
        let (status, refused) = answer(at(Method::PUT, path).body("x")).await;
        assert_eq!(
            (status.as_u16(), &refused["error"]["detail"]["field"]),
            (400, &json!(field))
        );
    }
}
