//! The boxes that run GPU jobs, and what they say over HTTP.

use nimbus_bus::Method as _;
use nimbus_errors::Code;
use nimbus_gateway::GatewayConfig;
use nimbus_gpu_wire::Command;
use nimbus_proto::gpu::WorkerClaim;
use reqwest::Method;
use serde_json::{Value, json};

use crate::gpu_jobs::text;
use crate::peers::Person::{Ada, Bob};
use crate::plane::{PAIRING, WORKER};
use crate::world::{World, answer, config, refusal};

#[tokio::test]
async fn a_box_is_paired_with_a_line_that_leads_to_this_server_and_nowhere_else() {
    let world = World::start().await;
    let pair = |host: Option<&str>| {
        let request = world.by(Ada, Method::POST, "/api/settings/gpu/pairing");
        match host {
            Some(host) => request.header("host", host),
            None => request,
        }
    };
    assert_eq!(
        refusal(pair(None)).await,
        (412, "gpu.pairing_unreachable".to_owned()),
        "loopback"
    );
    assert_eq!(refusal(pair(Some("h;reboot"))).await.0, 400);
    let (status, made) = answer(pair(Some("10.0.0.1:8080"))).await;
    assert_eq!(status, 200, "{made}");
    let line = format!("curl -fsSL \"http://10.0.0.1:8080/api/gpu/install.sh?token={PAIRING}\" | sudo bash");
    assert_eq!(
        (&made["data"]["curl"], &made["data"]["expires_in_seconds"]),
        (&json!(line), &json!(300))
    );
    let rotated = world
        .by(Ada, Method::POST, "/api/settings/gpu/workers/gx10/rotate")
        .header("host", "nimbus.lan");
    assert_eq!(answer(rotated).await.1["data"]["token"], format!("{PAIRING}gx10"));

    let install = |token: &str| {
        world
            .plain(Method::GET, &format!("/api/gpu/install.sh?token={token}"))
            .header("host", "10.0.0.1:8080")
    };
    assert_eq!(
        refusal(install("wrong")).await,
        (401, "gpu.pairing_invalid".to_owned())
    );
    let script = install(PAIRING).send().await.unwrap();
    assert_eq!(script.headers()["cache-control"], "no-store");
    let script = script.text().await.unwrap();
    assert!(
        script.starts_with("#!/usr/bin/env bash\n") && script.contains("'http://10.0.0.1:8080'"),
        "{script}"
    );
    let file = world
        .plain(Method::GET, "/api/gpu/scripts/install-worker.sh")
        .send()
        .await
        .unwrap();
    assert_eq!(file.status(), 200);
    assert!(file.text().await.unwrap().starts_with("#!"));
    assert_eq!(
        refusal(world.plain(Method::GET, "/api/gpu/scripts/passwd"))
            .await
            .0,
        404
    );

    let register = |token: &str| {
        let body = json!({"pairing_token": token, "hostname": "gx10", "ip": "10.0.0.9", "model": "m"});
        world.plain(Method::POST, "/api/gpu/register").json(&body)
    };
    let (status, line) = text(register("wrong")).await;
    assert_eq!((status, line.as_str()), (401, "the pairing token is not valid\n"));
    let (_, lines) = text(register(PAIRING)).await;
    assert!(lines.contains("WORKER_ID=gx10\nWORKER_TOKEN=00ff\n"), "{lines}");
    assert_eq!(answer(register(PAIRING)).await.1["worker_id"], "gx10");
    assert_eq!(world.plane.look(|state| state.registered[0].port), 8000);

    let unpaired = world
        .by(Ada, Method::DELETE, "/api/gpu/workers/gx10")
        .header("host", "nimbus.lan");
    let (_, unpaired) = answer(unpaired).await;
    assert_eq!(unpaired["data"]["workers"], json!(["gx10"]));
    assert_eq!(
        unpaired["data"]["cleanup_cmd"],
        "curl -fsSL \"http://nimbus.lan/api/gpu/scripts/uninstall.sh\" | sudo bash"
    );
}

#[tokio::test]
async fn boxes_are_shown_without_what_concerns_administrators() {
    let world = World::start().await;
    let (_, seen) = world.get(Bob, "/api/gpu/workers").await;
    let (_, all) = world.get(Ada, "/api/gpu/workers").await;
    let (seen, all) = (&seen["data"][0], &all["data"][0]);
    assert_eq!(
        (&seen["address"], &seen["job_id"]),
        (&Value::Null, &Value::Null),
        "{seen}"
    );
    assert_eq!(all["address"], "10.0.0.9");
    assert!(seen["busy"] == true && all["job_id"].is_string());
    assert_eq!(all["gpus"][0]["utilisation_percent"], 97.0);
    let change = world
        .by(Ada, Method::PATCH, "/api/gpu/workers/gx10")
        .json(&json!({"standing": "draining"}));
    assert_eq!(answer(change).await.1["data"]["standing"], "draining");
    let (_, inference) = world.get(Bob, "/api/gpu/inference").await;
    assert_eq!(inference["data"]["base_url"], world.url("/api/gpu/v1"));
    assert_eq!(inference["data"]["status"], "up");
    assert_eq!(
        refusal(world.by(Bob, Method::GET, "/api/gpu/usage?all=true"))
            .await
            .0,
        403
    );
    assert_eq!(
        world.get(Ada, "/api/gpu/usage?all=true&days=7").await.1["data"][0]["prompt_tokens"],
        10
    );
}

#[tokio::test]
async fn a_box_is_heard_however_loud_its_neighbours_are() {
    let tight = GatewayConfig {
        rate_address: 1,
        burst_address: 3,
        rate_user: 100,
        burst_user: 100,
        ..config()
    };
    let world = World::with(tight, true).await;
    let beat = serde_json::to_value(nimbus_proto::gpu::WorkerBeat::sample_request().beat).unwrap();
    let say = |token: &'static str| {
        world
            .plain(Method::POST, "/api/gpu/worker/beat")
            .bearer_auth(token)
            .json(&beat)
    };
    assert_eq!(answer(say(WORKER)).await.0, 200);
    // Somebody guesses tokens until the address has nothing left.
    while refusal(say("0f")).await.0 != 429 {}
    for _ in 0..10 {
        assert_eq!(answer(say(WORKER)).await.0, 200);
    }
    assert_eq!(refusal(say("0f")).await.0, 429);
}

#[tokio::test]
async fn workers_speak_http_also_those_that_know_less() {
    let world = World::start().await;
    let post = |path: &str| {
        world
            .plain(Method::POST, &format!("/api/gpu/worker/{path}"))
            .bearer_auth(WORKER)
            .header("x-worker-id", "gx10")
    };
    for path in ["claim", "beat", "jobs/job_1/status"] {
        let bare = world.plain(Method::POST, &format!("/api/gpu/worker/{path}"));
        let (status, answer) = answer(bare).await;
        assert_eq!(
            (status.as_u16(), answer["error"].as_str()),
            (401, Some("missing bearer token")),
            "{path}"
        );
    }
    let stranger = world
        .plain(Method::POST, "/api/gpu/worker/claim")
        .bearer_auth("0f");
    assert_eq!(
        refusal(stranger).await,
        (401, Code::GpuWorkerUnknown.as_str().to_owned())
    );

    let beat = serde_json::to_value(nimbus_proto::gpu::WorkerBeat::sample_request().beat).unwrap();
    assert_eq!(
        answer(post("beat").json(&beat)).await.1,
        json!({"cancel": ["job_x"], "drain": false, "beat_ms": 500, "pool": "default"})
    );
    assert_eq!(post("claim").send().await.unwrap().status(), 204);
    let mut assignment = WorkerClaim::sample_reply().unwrap();
    assignment.command = Command::Argv(vec!["echo".into(), "a b".into()]);
    let job = assignment.job.clone();
    world
        .plane
        .change(|state| state.claimable = Some(assignment.clone()));
    let current = answer(post("claim?wait_ms=5").header("nimbus-protocol", "1"))
        .await
        .1;
    assert_eq!(current, serde_json::to_value(&assignment).unwrap());
    let older = answer(post("claim")).await.1;
    assert_eq!(
        older,
        json!({"id": job, "image": "i", "command": "echo 'a b'", "env": {}})
    );

    let log = format!("jobs/{job}/logs");
    let (status, ack) = answer(post(&log).header("nimbus-offset", "7").body("abc")).await;
    assert_eq!((status.as_u16(), ack), (200, json!({"end": 10, "capped": false})));
    assert_eq!(post(&log).body("old").send().await.unwrap().status(), 204);
    assert_eq!(
        refusal(post(&log).header("nimbus-offset", "x").body("abc"))
            .await
            .0,
        400
    );
    assert_eq!(refusal(post(&log).body(vec![0; (1 << 20) + 1])).await.0, 413);
    let chunks = world.plane.look(|state| {
        let chunks = state.chunks.iter();
        chunks
            .map(|chunk| (chunk.offset, chunk.bytes.clone()))
            .collect::<Vec<_>>()
    });
    assert_eq!(chunks, [(Some(7), b"abc".to_vec()), (None, b"old".to_vec())]);

    let status = format!("jobs/{job}/status");
    let old = json!({"status": "failed", "exit_code": 3, "artifact_path": "", "error_msg": "no"});
    assert_eq!(post(&status).json(&old).send().await.unwrap().status(), 204);
    let outcome = nimbus_proto::gpu::WorkerFinish::sample_request().outcome;
    let full = json!({"status": "succeeded", "outcome": outcome});
    assert_eq!(
        answer(post(&status).json(&full)).await.1,
        json!({"counted": true})
    );
    let told = world.plane.look(|state| {
        let told = state.finished.iter();
        told.map(|told| {
            (
                told.outcome.attempt,
                told.outcome.exit_code,
                told.outcome.error.clone(),
            )
        })
        .collect::<Vec<_>>()
    });
    assert_eq!(told, [(0, 3, Some("no".to_owned())), (1, 0, None)]);
}
