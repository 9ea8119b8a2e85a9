//! Jobs as they should be.

use std::io::Read;

use nimbus_gpu_wire::{Command, Dataset, EnvVar, OutcomeState, Phase};

use crate::engine::docker;
use crate::world::{IMAGE, World, container, go};

#[tokio::test]
async fn a_job_over_http_tells_all_and_leaves_nothing() {
    let mut world = World::http().await;
    let mut job = world.job(
        r#"echo out; echo err >&2; printf 'bytes \377\000 end'; echo "$GREETING $NIMBUS_JOB_ID $NIMBUS_GPU_API" > $NIMBUS_ARTIFACTS/said; exit 3"#,
    );
    job.env = vec![EnvVar {
        name: "GREETING".into(),
        value: "good 'day'".into(),
    }];
    let id = world.queue(&job);
    world.start();
    let outcome = world.scheduler.outcome(&id).await;
    assert_eq!(
        (outcome.state, outcome.exit_code, outcome.code.clone()),
        (OutcomeState::Failed, 3, None)
    );
    assert!(
        outcome.started_at.is_some() && outcome.finished_at >= outcome.started_at,
        "{outcome:?}"
    );
    let (log, artifact) = world
        .scheduler
        .with(|book| (book.log(&id).to_vec(), book.artifacts[&id].clone()));
    // The engine reads the two outputs one beside the other, and replaces what is not UTF-8.
    let mut lines: Vec<&[u8]> = log.split_inclusive(|byte| *byte == b'\n').collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [b"bytes \xef\xbf\xbd\0 end".as_slice(), b"err\n", b"out\n"]
    );
    assert_eq!(outcome.log_bytes, log.len() as u64);

    assert_eq!(outcome.artifact_bytes, Some(artifact.len() as u64));
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(artifact.as_slice()));
    let mut said = String::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().ends_with("said") {
            entry.read_to_string(&mut said).unwrap();
        }
    }
    assert!(
        said.starts_with(&format!("good 'day' {id} http://127.0.0.1:")),
        "{said}"
    );
    world.nothing_is_left_of(&id).await;
}

#[tokio::test]
async fn jobs_over_nats_run_in_order_and_once_however_often_they_are_delivered() {
    let mut world = World::nats().await;
    let jobs: Vec<_> = (0..4).map(|n| world.job(&format!("echo {n}"))).collect();
    for job in &jobs {
        world.bus().assign(job).await;
        world.bus().assign(job).await;
    }
    world.start();
    let last = jobs.last().unwrap().job.clone();
    world.scheduler.outcome(&last).await;
    world.nothing_is_left_of(&last).await;
    world.bus().assign(&jobs[0]).await;
    let end = world.job("echo end");
    world.bus().assign(&end).await;
    world.scheduler.outcome(&end.job).await;
    let (order, logs) = world.scheduler.with(|book| {
        let order: Vec<String> = book.outcomes.iter().map(|(job, _)| job.clone()).collect();
        (
            order,
            book.logs
                .values()
                .map(|log| String::from_utf8_lossy(log).into_owned())
                .collect::<Vec<_>>(),
        )
    });
    let wanted: Vec<String> = jobs.iter().map(|job| job.job.clone()).chain([end.job]).collect();
    assert_eq!(order, wanted);
    assert_eq!(logs, ["0\n", "1\n", "2\n", "3\n", "end\n"]);
    let links = world.scheduler.with(|book| {
        book.beats
            .iter()
            .map(|beat| beat.link.clone())
            .collect::<Vec<_>>()
    });
    assert!(links.iter().any(|link| link == "nats"), "{links:?}");
}

#[tokio::test]
async fn a_cancelled_job_is_stopped_even_if_it_does_not_want_to() {
    let mut world = World::both().await;
    let job = world.job("trap '' TERM; echo on; while :; do sleep 1; done");
    world.bus().assign(&job).await;
    world.start();
    world
        .scheduler
        .until("its log", |book| (book.log(&job.job) == b"on\n").then_some(()))
        .await;
    world.scheduler.with(|book| book.cancelled.push(job.job.clone()));
    world.bus().cancel(&job.job).await;
    world.nothing_is_left_of(&job.job).await;
    assert!(
        world
            .scheduler
            .with(|book| book.outcomes.is_empty() && book.finishes == 0)
    );
    // The box is free again.
    let next = world.job("echo next");
    world.bus().assign(&next).await;
    assert_eq!(
        world.scheduler.outcome(&next.job).await.state,
        OutcomeState::Succeeded
    );
}

#[tokio::test]
async fn limits_are_kept_and_named() {
    let mut world = World::http().await;
    let mut slow = world.job("echo on; sleep 600");
    slow.limits.time_s = 1;
    let mut greedy = world.job("tail /dev/zero");
    greedy.limits.memory_bytes = Some(16 << 20);
    let mut heavy = world.job("head -c 3000000 /dev/urandom > $NIMBUS_ARTIFACTS/noise");
    heavy.limits.artifact_bytes = 1 << 20;
    let (slow, greedy, heavy) = (world.queue(&slow), world.queue(&greedy), world.queue(&heavy));
    world.start();
    assert_eq!(
        world.scheduler.outcome(&slow).await.code.as_deref(),
        Some("gpu.time_limit")
    );
    assert_eq!(
        world.scheduler.outcome(&greedy).await.code.as_deref(),
        Some("gpu.out_of_memory")
    );
    let outcome = world.scheduler.outcome(&heavy).await;
    assert_eq!(
        (outcome.state, outcome.artifact_bytes),
        (OutcomeState::Succeeded, None)
    );
    assert!(outcome.artifact_note.unwrap().contains("1 MiB"));
}

#[tokio::test]
async fn a_job_that_cannot_start_says_why() {
    let mut world = World::http().await;
    let mut unknown = world.job("true");
    unknown.command = Command::Argv(vec!["no-such-program".into()]);
    let mut absent = world.job("true");
    absent.image = "127.0.0.1:1/nobody/nothing:1".into();
    let mut without = world.job("true");
    without.datasets = vec![Dataset {
        name: "never-made".into(),
        writable: false,
    }];
    let (unknown, absent, without) = (world.queue(&unknown), world.queue(&absent), world.queue(&without));
    world.start();
    let outcome = world.scheduler.outcome(&unknown).await;
    assert_eq!((outcome.exit_code, outcome.code), (127, None));
    let log = world
        .scheduler
        .with(|book| String::from_utf8_lossy(book.log(&unknown)).into_owned());
    let said = outcome.error.unwrap() + &log;
    assert!(said.contains("no-such-program"), "{said}");
    let outcome = world.scheduler.outcome(&absent).await;
    assert_eq!(
        (outcome.exit_code, outcome.code.as_deref()),
        (-1, Some("gpu.image_unavailable"))
    );
    let outcome = world.scheduler.outcome(&without).await;
    assert_eq!(outcome.code.as_deref(), Some("gpu.engine_failed"));
    assert!(outcome.error.unwrap().contains("never-made"));
}

#[tokio::test]
async fn a_dataset_that_one_job_fills_is_there_for_the_next() {
    let mut world = World::http().await;
    let name = world.name.clone();
    let dataset = |writable| {
        vec![Dataset {
            name: name.clone(),
            writable,
        }]
    };
    let mut fill = world.job(&format!("echo 42 > /datasets/{name}/answer"));
    fill.datasets = dataset(true);
    let mut read = world.job(&format!(
        "cat /datasets/{name}/answer; touch /datasets/{name}/mine"
    ));
    read.datasets = dataset(false);
    let (fill, read) = (world.queue(&fill), world.queue(&read));
    world.start();
    assert_eq!(
        world.scheduler.outcome(&fill).await.state,
        OutcomeState::Succeeded
    );
    assert_eq!(world.scheduler.outcome(&read).await.exit_code, 1);
    let log = world
        .scheduler
        .with(|book| String::from_utf8_lossy(book.log(&read)).into_owned());
    assert!(log.contains("42\n") && log.contains("Read-only"), "{log}");
    world.nothing_is_left_of(&read).await;
    docker(&["volume", "rm", &format!("nimbus-dataset-{name}")]);
}

#[tokio::test]
async fn a_job_that_is_not_root_may_leave_artifacts() {
    let mut world = World::http().await;
    let image = format!("nimbus.test/{}:1", world.name);
    let source = container(&world.name);
    docker(&["create", "--name", &source, IMAGE, "true"]);
    docker(&["commit", "-c", "USER 1000:1000", &source, &image]);
    docker(&["rm", &source]);
    let mut job = world.job("id -u > $NIMBUS_ARTIFACTS/id");
    job.image = image.clone();
    let id = world.queue(&job);
    world.start();
    let outcome = world.scheduler.outcome(&id).await;
    world.nothing_is_left_of(&id).await;
    docker(&["rmi", &image]);
    assert_eq!(outcome.state, OutcomeState::Succeeded);
    assert!(outcome.artifact_bytes.is_some(), "{outcome:?}");
}

#[tokio::test]
async fn of_a_flood_the_beginning_is_kept_and_the_rest_counted() {
    let mut world = World::http().await;
    let mut job = world.job("head -c 104857600 /dev/zero | tr '\\0' x; echo end");
    job.limits.log_bytes = 1 << 20;
    let id = world.queue(&job);
    world.start();
    let outcome = world.scheduler.outcome(&id).await;
    assert_eq!(
        (outcome.state, outcome.log_bytes),
        (OutcomeState::Succeeded, 104_857_604)
    );
    let log = world.scheduler.with(|book| book.log(&id).to_vec());
    assert_eq!(log.len(), 1 << 20);
    assert!(log.iter().all(|byte| *byte == b'x'));
}

#[tokio::test]
async fn drained_the_worker_ends_after_its_job() {
    let mut world = World::http().await;
    let job = world.job("echo on; until [ -e /tmp/go ]; do sleep 0.1; done; echo off");
    let id = world.queue(&job);
    let other = world.job("true");
    world.start();
    world
        .scheduler
        .until("its log", |book| (book.log(&id) == b"on\n").then_some(()))
        .await;
    world.queue(&other);
    world
        .scheduler
        .until("a running phase", |book| {
            let held = &book.beats.last()?.held;
            (held.first()?.phase == Phase::Running && held.first()?.started_at.is_some()).then_some(())
        })
        .await;
    let container = container(&id);
    tokio::join!(world.signal_and_wait("-USR1"), go(&id));
    assert_eq!(world.scheduler.outcome(&id).await.state, OutcomeState::Succeeded);
    assert_eq!(world.scheduler.with(|book| book.queue.len()), 1);
    assert!(!crate::engine::exists(&container));
}
