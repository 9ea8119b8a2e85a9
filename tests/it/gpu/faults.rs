//! What goes wrong.
//!
//! Jobs here count: each prints numbered lines and marks the run in a volume's place, its own log. A
//! line that is missing, doubled or out of order fails the test.

use nimbus_tests::gpu::{
    PATIENCE, Plane, containers, gone, job, log, printed, reaches, runs, submit, submit_with,
};
use nimbus_tests::process::kill;
use nimbus_tests::wait::eventually;
use serde_json::{Value, json};

/// A job that prints this many numbered lines, with pauses, so that something can happen meanwhile.
fn counting(lines: u32) -> String {
    format!(
        "i=0; while [ $i -lt {lines} ]; do echo \"line $i of the run\"; i=$((i+1)); [ $((i % 50)) -ne 0 ] || sleep 0.2; done"
    )
}

fn counted(lines: u32) -> Vec<u8> {
    (0..lines)
        .flat_map(|n| format!("line {n} of the run\n").into_bytes())
        .collect()
}

const LINES: u32 = 1500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_goes_on_where_it_was() {
    for bus in [false, true] {
        let name = if bus {
            "worker_killed_nats"
        } else {
            "worker_killed_http"
        };
        let plane = Plane::with(name, bus, |settings| settings).await;
        let mut worker = plane.worker("box").await;
        let id = submit(&plane.admin, &counting(LINES)).await;
        for bytes in [1000, 8000, 16_000] {
            let _ = printed(&plane.admin, &id, bytes).await;
            worker.kill().await;
            worker.restart();
        }
        let done = reaches(&plane.admin, &id, "succeeded").await;
        assert_eq!(done["attempt"], 1);
        assert!(
            log(&plane.admin, &id).await == counted(LINES),
            "every line once, in order"
        );
        plane.end(vec![worker], &[id]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_finds_the_job_still_running() {
    let mut plane = Plane::with("server_killed", true, |settings| settings).await;
    let worker = plane.worker("box").await;
    let id = submit(&plane.admin, &counting(LINES)).await;
    for bytes in [1000, 10_000] {
        let _ = printed(&plane.admin, &id, bytes).await;
        plane.server.kill().await;
        plane.server.restart().await;
    }
    let done = reaches(&plane.admin, &id, "succeeded").await;
    assert_eq!((&done["attempt"], &done["error_code"]), (&json!(1), &Value::Null));
    assert!(
        log(&plane.admin, &id).await == counted(LINES),
        "every line once, in order"
    );
    plane.end(vec![worker], &[id]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_bus_loses_nothing() {
    let mut plane = Plane::with("bus_killed", true, |settings| settings).await;
    let worker = plane.worker("box").await;
    let running = submit(&plane.admin, &counting(LINES)).await;
    let waiting = submit(&plane.admin, "echo after").await;
    for bytes in [1000, 10_000] {
        let _ = printed(&plane.admin, &running, bytes).await;
        for child in plane.server.process().children() {
            let comm = std::fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
            if comm.contains("nats") || comm.contains("-c") {
                kill(child);
            }
        }
        let _ = eventually(
            "the server is ready again",
            PATIENCE,
            async || plane.admin.get("/ready").await.status,
            |status| *status == 200,
        )
        .await;
    }
    for id in [&running, &waiting] {
        let done = reaches(&plane.admin, id, "succeeded").await;
        assert_eq!(done["attempt"], 1);
    }
    assert!(
        log(&plane.admin, &running).await == counted(LINES),
        "every line once, in order"
    );
    assert_eq!(log(&plane.admin, &waiting).await, b"after\n");
    plane.end(vec![worker], &[running, waiting]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_worker_loses_its_job_and_is_told_when_it_is_back() {
    let plane = Plane::with("silent", true, |settings| {
        settings
            .with("GPU_SILENT_AFTER_SECONDS", "3")
            .with("GPU_LOST_AFTER_SECONDS", "6")
    })
    .await;
    let worker = plane.worker("box").await;
    let lost = submit(&plane.admin, "sleep 3600").await;
    let again = submit_with(&plane.admin, "echo once more", |body| body["rerun"] = json!(true)).await;
    let _ = runs(&plane.admin, &lost).await;
    worker.freeze();
    let done = reaches(&plane.admin, &lost, "failed").await;
    assert_eq!(done["error_code"], "gpu.worker_lost");
    assert_eq!(plane.box_of(&worker.name).await["state"], "lost");
    assert_eq!(
        job(&plane.admin, &again).await["state"],
        "queued",
        "a box that is away gets nothing"
    );
    assert!(!containers(&lost).await.is_empty(), "nobody could stop it yet");
    worker.thaw();
    gone(&lost).await;
    let _ = reaches(&plane.admin, &again, "succeeded").await;
    plane.end(vec![worker], &[lost, again]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_workers_job_runs_again_only_if_that_was_asked_for() {
    let plane = Plane::with("rerun", true, |settings| {
        settings
            .with("GPU_SILENT_AFTER_SECONDS", "3")
            .with("GPU_LOST_AFTER_SECONDS", "6")
    })
    .await;
    let first = plane.worker("one").await;
    let id = submit_with(&plane.admin, "sleep 8; echo done", |body| {
        body["rerun"] = json!(true)
    })
    .await;
    let _ = runs(&plane.admin, &id).await;
    first.freeze();
    let second = plane.worker("two").await;
    let done = reaches(&plane.admin, &id, "succeeded").await;
    assert_eq!(
        (&done["attempt"], &done["worker_id"]),
        (&json!(2), &json!(second.name))
    );
    first.thaw();
    plane.hears(&first).await;
    assert_eq!(
        log(&plane.admin, &id).await,
        b"done\n",
        "the first run's output is not in it"
    );
    plane.end(vec![first, second], &[id]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_counted_and_cut_and_the_next_job_runs() {
    let plane = Plane::with("flood", true, |settings| settings).await;
    let worker = plane.worker("box").await;
    // Lines of a KiB: an engine that keeps each line as JSON takes minutes for short ones.
    let flood = submit(&plane.admin, "yes $(printf %01023d 0) | head -c 104857600").await;
    let next = submit(&plane.admin, "echo next").await;
    let done = eventually(
        "the flood has ended",
        PATIENCE * 2,
        async || job(&plane.admin, &flood).await,
        |job| job["state"] == "succeeded",
    )
    .await;
    assert_eq!(done["log_bytes"], 104_857_600_u64);
    assert_eq!(
        (&done["log_end"], &done["log_truncated"]),
        (&json!(16 << 20), &json!(true))
    );
    let kept = log(&plane.admin, &flood).await;
    let line = format!("{:01023}\n", 0).into_bytes();
    assert!(kept.len() == 16 << 20 && kept.chunks(1024).all(|kept| kept == line));
    let _ = reaches(&plane.admin, &next, "succeeded").await;
    plane.end(vec![worker], &[flood, next]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_box_without_room_takes_no_job_until_there_is() {
    let plane = Plane::start("no_room").await;
    let mut worker = plane.worker("box").await;
    worker.terminate().await;
    worker.set("GX10_MIN_FREE_BYTES", u64::MAX / 2);
    worker.restart();
    let _ = eventually(
        "the box says what is wrong",
        PATIENCE,
        async || plane.box_of(&worker.name).await,
        |view| view["trouble"].as_str().is_some_and(|text| text.contains("free")),
    )
    .await;
    let id = submit(&plane.admin, "echo at last").await;
    // After further beats it is still nobody's.
    let seen = async || plane.box_of(&worker.name).await["seen_at"].clone();
    for _ in 0..2 {
        let before = seen().await;
        let _ = eventually("the next beat", PATIENCE, &seen, |now| *now != before).await;
    }
    assert_eq!(job(&plane.admin, &id).await["state"], "queued");
    worker.terminate().await;
    worker.set("GX10_MIN_FREE_BYTES", 1_000_000);
    worker.restart();
    let _ = reaches(&plane.admin, &id, "succeeded").await;
    plane.end(vec![worker], &[id]).await;
}
