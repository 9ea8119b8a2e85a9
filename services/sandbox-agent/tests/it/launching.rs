//! Launching, running, stopping, and what is left afterwards.

use nimbus_proto::workloads::{Lifecycle, Readiness, Start};

use crate::world::{World, docker, reason, sandbox, variable};

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_sandbox_runs_and_a_warm_one_at_once() {
    let world = World::start().await;
    let first = sandbox("sleep 1000");
    let seen = world.launch(&first).await.unwrap();
    assert_eq!(seen.lifecycle, Lifecycle::Starting);
    let seen = world.ready(&first).await;
    assert_eq!(
        (seen.start, seen.readiness),
        (Some(Start::Cold), Readiness::Ready)
    );
    assert!(seen.image_digest.is_some());
    // The class is known now: slots of it are being made.
    world.prepare(1).await;
    let second = sandbox("echo $GREETING; sleep 1000");
    let seen = world.launch(&second).await.unwrap();
    assert_eq!(
        (seen.lifecycle, seen.start),
        (Lifecycle::Ready, Some(Start::Warm))
    );
    println!("warm after {:?} us", seen.started_after_us);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_that_is_repeated_joins() {
    let world = World::start().await;
    let request = sandbox("echo once; sleep 1000");
    let (one, two) = tokio::join!(world.launch(&request), world.launch(&request));
    assert_eq!(one.unwrap().sandbox, two.unwrap().sandbox);
    world.ready(&request).await;
    assert_eq!(world.launch(&request).await.unwrap().lifecycle, Lifecycle::Ready);
    assert_eq!(world.containers().len(), 1);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_reach_the_process_and_nobody_else() {
    let world = World::start().await;
    let mut request = sandbox("sleep 1000");
    request.process.env = vec![variable("TOKEN", "s3cr3t-value"), variable("EMPTY", "")];
    world.ready(&request).await;
    let env = world.shell(&request.sandbox, "env").await;
    assert!(
        env.contains("TOKEN=s3cr3t-value") && env.contains("EMPTY="),
        "{env}"
    );
    assert!(
        env.contains(&format!("NIMBUS_SANDBOX_ID={}", request.sandbox)),
        "{env}"
    );
    assert!(env.contains("NIMBUS_SANDBOX_TENANT=demo"), "{env}");
    assert!(!env.to_uppercase().contains("PROXY"), "{env}");
    for container in world.containers() {
        let inspected = docker(&["inspect", &container]).unwrap();
        assert!(!inspected.contains("s3cr3t-value") && !inspected.contains("sleep 1000"));
    }
    let mut files = vec![world.dir.path().join("sandboxes")];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(path.read_dir_utf8().unwrap().flatten().map(|e| e.into_path()));
        } else if let Ok(bytes) = std::fs::read(&path) {
            assert!(
                !String::from_utf8_lossy(&bytes).contains("s3cr3t-value"),
                "{path}"
            );
        }
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_once_however_often_it_is_sent() {
    let world = World::start().await;
    let request = sandbox("sleep 1000");
    world.ready(&request).await;
    let argv = ["sh", "-c", "echo x >> /tmp/count; cat /tmp/count; exit 3"];
    for _ in 0..3 {
        let reply = world.exec(&request.sandbox, "job-1", &argv).await.unwrap();
        assert_eq!((reply.code, reply.stdout.as_slice()), (Some(3), &b"x\n"[..]));
    }
    let refused = world.exec(&request.sandbox, "main", &argv).await.unwrap_err();
    assert_eq!(refused.code, "op.invalid_input");
    let unknown = world.exec("t-nobody", "job-1", &argv).await.unwrap_err();
    assert_eq!(unknown.code, "op.not_found");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_asks_first_and_then_kills() {
    let world = World::start().await;
    let polite = sandbox("trap 'exit 0' TERM; while :; do sleep 0.1; done");
    let mut stubborn = sandbox("trap '' TERM; while :; do sleep 0.1; done");
    stubborn.stop_timeout_ms = 300;
    for request in [&polite, &stubborn] {
        world.ready(request).await;
        let seen = world.stop(&request.sandbox).await;
        assert!(matches!(seen.lifecycle, Lifecycle::Stopping | Lifecycle::Stopped));
        let seen = world.until_over(&request.sandbox).await;
        assert_eq!(
            (seen.lifecycle, reason(&seen).as_str()),
            (Lifecycle::Stopped, "StoppedByRequest")
        );
        assert!(world.exec(&request.sandbox, "c", &["true"]).await.is_err());
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_are_told_with_their_code() {
    let world = World::start().await;
    for (line, lifecycle, code, why) in [
        ("exit 0", Lifecycle::Stopped, 0, "Completed"),
        ("exit 7", Lifecycle::Failed, 7, "ProcessFailed"),
        ("kill -TERM $$; sleep 10", Lifecycle::Failed, 143, "ProcessFailed"),
    ] {
        let request = sandbox(line);
        world.launch(&request).await.unwrap();
        let seen = world.until_over(&request.sandbox).await;
        assert_eq!(
            (seen.lifecycle, reason(&seen).as_str()),
            (lifecycle, why),
            "{line}"
        );
        assert_eq!(seen.exit.unwrap().code, code, "{line}");
    }
    let mut unknown = sandbox("x");
    unknown.process.argv = vec!["/no/such/program".into()];
    world.launch(&unknown).await.unwrap();
    let seen = world.until_over(&unknown.sandbox).await;
    assert_eq!(
        (seen.lifecycle, reason(&seen).as_str()),
        (Lifecycle::Failed, "LaunchFailed")
    );
    world.end().await;
}
