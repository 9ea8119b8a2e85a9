//! Jobs, from one's own hands to the container and back.

use nimbus_tests::api::Api;
use nimbus_tests::gpu::{Plane, containers, gone, job, log, reaches, runs, submit, submit_with};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_runs_and_leaves_its_log_and_artifacts() {
    let plane = Plane::start("a_job_runs").await;
    let worker = plane.worker("box").await;
    let bob = plane.member("bob").await;
    let id = submit_with(
        &bob,
        r#"echo "$GREETING"; echo problem >&2; mkdir -p $NIMBUS_ARTIFACTS/deep; head -c 70000 /dev/zero > $NIMBUS_ARTIFACTS/deep/model.bin; exit 0"#,
        |body| body["env"] = json!({ "GREETING": "hello \"world\" 你好" }),
    )
    .await;
    let done = reaches(&bob, &id, "succeeded").await;
    assert_eq!(
        (&done["exit_code"], &done["worker_id"]),
        (&json!(0), &json!(worker.name))
    );
    let text = String::from_utf8(log(&bob, &id).await).unwrap();
    assert!(
        text.contains("hello \"world\" 你好\n") && text.contains("problem\n"),
        "{text}"
    );
    assert_eq!(done["log_end"], text.len(), "what is kept is what was printed");

    let path = format!("/api/gpu/jobs/{id}/artifact");
    let answer = bob.request(http::Method::GET, &path).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let packed = answer.bytes().await.unwrap();
    let file = plane.output.join("artifact.tar.gz");
    std::fs::write(&file, &packed).unwrap();
    let listed = tokio::process::Command::new("tar")
        .args(["-tvzf", file.as_str()])
        .output()
        .await
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(
        listed.contains("70000") && listed.contains("deep/model.bin"),
        "{listed}"
    );
    let part = bob
        .request(http::Method::GET, &path)
        .header("Range", "bytes=10-19")
        .send()
        .await
        .unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(part.bytes().await.unwrap(), packed.slice(10..20));

    // Somebody else's job is not there at all.
    let eve = plane.member("eve").await;
    for path in ["", "/logs", "/artifact"] {
        let _ = eve.get(&format!("/api/gpu/jobs/{id}{path}")).await.is(404);
    }
    let _ = eve
        .post(&format!("/api/gpu/jobs/{id}/cancel"), &json!({}))
        .await
        .is(404);
    plane.end(vec![worker], &[id]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_a_job_ends_is_told() {
    let plane = Plane::start("how_a_job_ends").await;
    let worker = plane.worker("box").await;
    let admin = &plane.admin;
    let fails = submit(admin, "exit 7").await;
    let slow = submit_with(admin, "sleep 3600", |body| body["time_limit_seconds"] = json!(1)).await;
    let greedy = submit_with(admin, "tail /dev/zero", |body| {
        body["memory_bytes"] = json!(16 << 20)
    })
    .await;
    let missing = submit_with(admin, "true", |body| {
        body["image"] = json!("nimbus.test/no-such-image:1")
    })
    .await;
    let mut ended = vec![];
    for id in [&fails, &slow, &greedy, &missing] {
        let done = reaches(admin, id, "failed").await;
        ended.push((done["exit_code"].clone(), done["error_code"].clone()));
    }
    assert_eq!(ended[0], (json!(7), json!(null)));
    assert_eq!(ended[1].1, "gpu.time_limit");
    assert_eq!(ended[2].1, "gpu.out_of_memory");
    assert_eq!(ended[3], (json!(-1), json!("gpu.image_unavailable")));
    plane.end(vec![worker], &[fails, slow, greedy, missing]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_jobs_run_one_after_the_other_in_the_order_they_came() {
    let plane = Plane::with("in_order", true, |settings| settings).await;
    let admin = &plane.admin;
    // A box that is not there yet: all of them wait.
    let mut worker = plane.worker("box").await;
    worker.kill().await;
    let mut ids = vec![];
    for n in 0..20 {
        ids.push(submit(admin, &format!("echo {n}")).await);
    }
    worker.restart();
    let mut began = vec![];
    for id in &ids {
        let done = reaches(admin, id, "succeeded").await;
        began.push(done["started_at"].as_str().unwrap().to_owned());
        let before = done["finished_at"].as_str().unwrap().to_owned();
        began.push(before);
    }
    let mut sorted = began.clone();
    sorted.sort();
    assert_eq!(began, sorted, "each began after the one before had ended");
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(log(admin, id).await, format!("{n}\n").into_bytes());
    }
    plane.end(vec![worker], &ids).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_boxes_share_the_queue_and_run_each_job_once() {
    let plane = Plane::with("two_boxes", true, |settings| settings).await;
    let admin = &plane.admin;
    let workers = vec![plane.worker("one").await, plane.worker("two").await];
    let mut ids = vec![];
    for n in 0..8 {
        ids.push(submit(admin, &format!("echo {n} $HOSTNAME")).await);
    }
    let mut by = vec![];
    for (n, id) in ids.iter().enumerate() {
        let done = reaches(admin, id, "succeeded").await;
        by.push(done["worker_id"].as_str().unwrap().to_owned());
        assert_eq!(done["attempt"], 1);
        let text = String::from_utf8(log(admin, id).await).unwrap();
        assert!(
            text.starts_with(&format!("{n} ")) && text.lines().count() == 1,
            "{text:?}"
        );
    }
    by.sort();
    by.dedup();
    assert_eq!(by.len(), 2, "both worked");
    plane.end(workers, &ids).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_job_is_stopped_and_the_next_one_runs() {
    let plane = Plane::with("cancelled", true, |settings| settings).await;
    let worker = plane.worker("box").await;
    let bob = plane.member("bob").await;
    // One that does not listen to SIGTERM.
    let stubborn = submit(&bob, "trap '' TERM; echo on; while :; do sleep 1; done").await;
    let next = submit(&bob, "echo next").await;
    let waiting = submit(&bob, "echo never").await;
    let _ = runs(&bob, &stubborn).await;
    assert!(!containers(&stubborn).await.is_empty());
    let cancel = async |id: &str| bob.post(&format!("/api/gpu/jobs/{id}/cancel"), &json!({})).await;
    assert_eq!(cancel(&waiting).await.is(200).data()["state"], "cancelled");
    assert_eq!(cancel(&stubborn).await.is(200).data()["state"], "cancelled");
    gone(&stubborn).await;
    let _ = reaches(&bob, &next, "succeeded").await;
    assert_eq!(cancel(&next).await.is(409).code(), "gpu.job_terminal");
    assert_eq!(
        job(&bob, &stubborn).await["state"],
        "cancelled",
        "a late report changes nothing"
    );
    assert!(containers(&waiting).await.is_empty());
    plane.end(vec![worker], &[stubborn, next, waiting]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounds_of_members_and_bad_input() {
    let plane = Plane::start("bounds").await;
    let bob = plane.member("bob").await;
    let refused = bob
        .post("/api/gpu/jobs", &json!({ "image": "x:1" }))
        .await
        .is(503);
    assert_eq!(refused.code(), "gpu.not_configured");
    let worker = plane.worker("box").await;
    let paused = json!({ "standing": "paused" });
    let path = format!("/api/gpu/workers/{}", worker.name);
    let patch = |api: &Api| Api::send(api.request(http::Method::PATCH, &path).json(&paused));
    let _ = patch(&bob).await.is(403);
    let _ = patch(&plane.admin).await.is(200);
    for body in [
        json!({}),
        json!({ "image": "" }),
        json!({ "image": "UPPER/Case" }),
        json!({ "image": "x:1", "command": 5 }),
        json!({ "image": "x:1", "command": [] , "env": { "1BAD": "x" } }),
        json!({ "image": "x:1", "env": { "A": "x".repeat(200_000) } }),
        json!({ "image": "x:1", "time_limit_seconds": 0 }),
        json!({ "image": "x:1", "memory_bytes": 1 }),
        json!({ "image": "x:1", "datasets": [{ "name": "../etc" }] }),
        json!({ "image": "x:1", "unknown": true }),
    ] {
        let refused = bob.post("/api/gpu/jobs", &body).await;
        assert_eq!(
            (refused.status, refused.code()),
            (400, "op.invalid_input"),
            "{body}"
        );
    }
    let important = json!({ "image": "x:1", "priority": 5 });
    assert_eq!(bob.post("/api/gpu/jobs", &important).await.status, 403);
    let mut ids = vec![];
    for _ in 0..5 {
        ids.push(submit(&bob, "true").await);
    }
    let refused = bob
        .post("/api/gpu/jobs", &json!({ "image": "x:1" }))
        .await
        .is(409);
    assert_eq!(refused.code(), "gpu.quota_exceeded");
    // Administrators have no such bound, and may go first.
    let first = submit_with(&plane.admin, "true", |body| body["priority"] = json!(1)).await;
    assert_eq!(job(&plane.admin, &first).await["ahead"], 0);
    assert_eq!(job(&bob, &ids[0]).await["ahead"], 1);
    let _ = Api::send(
        plane
            .admin
            .request(http::Method::PATCH, &path)
            .json(&json!({ "standing": "active" })),
    )
    .await
    .is(200);
    ids.push(first);
    for id in &ids {
        let _ = reaches(&plane.admin, id, "succeeded").await;
    }
    plane.end(vec![worker], &ids).await;
}
