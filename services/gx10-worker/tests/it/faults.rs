//! What goes on although something is killed, cut or gone.

use nimbus_gpu_wire::OutcomeState;

use crate::engine::docker;
use crate::world::{World, container, go, within};

/// Prints numbers, waits for a file, prints the rest.
const COUNTING: &str = "seq 1 20000; until [ -e /tmp/go ]; do sleep 0.1; done; seq 20001 40000";

fn numbers() -> Vec<u8> {
    (1..=40_000)
        .map(|n| format!("{n}\n"))
        .collect::<String>()
        .into_bytes()
}

#[tokio::test]
async fn a_killed_worker_goes_on_where_it_was_and_no_byte_is_lost_or_doubled() {
    let mut world = World::nats().await;
    let job = world.job(COUNTING);
    world.bus().assign(&job).await;
    world.start();
    let id = &job.job;
    for least in [1, 50_000, 100_000] {
        world
            .scheduler
            .until("some of its log", |book| {
                (book.log(id).len() >= least).then_some(())
            })
            .await;
        world.kill();
        world.start();
    }
    world.kill();
    go(id).await;
    // Ended while nobody looked.
    within("its end", || {
        (docker(&["inspect", "-f", "{{.State.Running}}", &container(id)]) == "false").then_some(())
    })
    .await;
    // As if the acknowledgement had been lost as well.
    world.bus().assign(&job).await;
    world.start();
    let outcome = world.scheduler.outcome(id).await;
    assert_eq!(
        (outcome.state, outcome.log_bytes),
        (OutcomeState::Succeeded, numbers().len() as u64)
    );
    assert!(world.scheduler.with(|book| book.log(id) == numbers()));
    world.nothing_is_left_of(id).await;
    assert_eq!(world.scheduler.with(|book| book.outcomes.len()), 1);
}

#[tokio::test]
async fn a_stopped_worker_leaves_its_job_running() {
    let mut world = World::http().await;
    let job = world.job(COUNTING);
    let id = world.queue(&job);
    world.start();
    world
        .scheduler
        .until("some of its log", |book| {
            (!book.log(&id).is_empty()).then_some(())
        })
        .await;
    world.signal_and_wait("-TERM").await;
    assert_eq!(
        docker(&["inspect", "-f", "{{.State.Running}}", &container(&id)]),
        "true"
    );
    world.start();
    go(&id).await;
    assert_eq!(world.scheduler.outcome(&id).await.state, OutcomeState::Succeeded);
    assert!(world.scheduler.with(|book| book.log(&id) == numbers()));
}

#[tokio::test]
async fn a_server_that_is_away_is_told_everything_later() {
    let mut world = World::http().await;
    let job = world.job(COUNTING);
    let id = world.queue(&job);
    world.start();
    world
        .scheduler
        .until("some of its log", |book| {
            (!book.log(&id).is_empty()).then_some(())
        })
        .await;
    world.scheduler.with(|book| book.down = true);
    go(&id).await;
    within("its end", || {
        (docker(&["inspect", "-f", "{{.State.Running}}", &container(&id)]) == "false").then_some(())
    })
    .await;
    world.scheduler.with(|book| {
        book.down = false;
        book.finishes_to_fail = 2;
    });
    let outcome = world.scheduler.outcome(&id).await;
    assert_eq!(outcome.state, OutcomeState::Succeeded);
    assert!(
        world
            .scheduler
            .with(|book| book.log(&id) == numbers() && book.finishes == 3)
    );
    world.nothing_is_left_of(&id).await;
}

#[tokio::test]
async fn the_bus_away_http_takes_over() {
    let mut world = World::both().await;
    world.start();
    world
        .scheduler
        .until("NATS", |book| (book.beats.last()?.link == "nats").then_some(()))
        .await;
    world.stop_nats();
    world
        .scheduler
        .until("HTTP", |book| (book.beats.last()?.link == "http").then_some(()))
        .await;
    let job = world.job("echo over http");
    let id = world.queue(&job);
    assert_eq!(world.scheduler.outcome(&id).await.state, OutcomeState::Succeeded);
    assert!(world.scheduler.with(|book| book.log(&id) == b"over http\n"));
}

#[tokio::test]
async fn an_engine_that_goes_away_and_comes_back_costs_no_byte() {
    let mut world = World::http().await;
    let proxy = world.behind_proxy();
    let job = world.job(COUNTING);
    let id = world.queue(&job);
    world.start();
    world
        .scheduler
        .until("some of its log", |book| {
            (!book.log(&id).is_empty()).then_some(())
        })
        .await;
    proxy.cut();
    world
        .scheduler
        .until("trouble", |book| book.beats.last()?.trouble.clone())
        .await;
    go(&id).await;
    proxy.mend();
    let outcome = world.scheduler.outcome(&id).await;
    assert_eq!(outcome.state, OutcomeState::Succeeded);
    assert!(world.scheduler.with(|book| book.log(&id) == numbers()));
}

#[tokio::test]
async fn a_container_that_ends_with_its_engine_is_the_engines_failure() {
    let mut world = World::http().await;
    let proxy = world.behind_proxy();
    let job = world.job("echo on; while :; do sleep 1; done");
    let id = world.queue(&job);
    world.start();
    world
        .scheduler
        .until("its log", |book| (book.log(&id) == b"on\n").then_some(()))
        .await;
    proxy.cut();
    world
        .scheduler
        .until("trouble", |book| book.beats.last()?.trouble.clone())
        .await;
    docker(&["kill", &container(&id)]);
    proxy.mend();
    let outcome = world.scheduler.outcome(&id).await;
    assert_eq!(
        (outcome.exit_code, outcome.code.as_deref()),
        (137, Some("gpu.engine_failed"))
    );
}

#[tokio::test]
async fn a_container_that_somebody_removed_is_not_started_again() {
    let mut world = World::http().await;
    let job = world.job("echo on; while :; do sleep 1; done");
    let id = world.queue(&job);
    world.start();
    world
        .scheduler
        .until("its log", |book| (book.log(&id) == b"on\n").then_some(()))
        .await;
    world.kill();
    docker(&["rm", "-f", &container(&id)]);
    world.start();
    let outcome = world.scheduler.outcome(&id).await;
    assert_eq!(
        (outcome.exit_code, outcome.code.as_deref()),
        (-1, Some("gpu.engine_failed"))
    );
    assert!(world.scheduler.with(|book| book.log(&id) == b"on\n"));
}

#[tokio::test]
async fn a_box_that_is_full_lets_the_queue_wait() {
    let mut world = World::http().await;
    world.min_free = u64::MAX;
    let job = world.job("echo room");
    let id = world.queue(&job);
    world.start();
    let trouble = world
        .scheduler
        .until("trouble", |book| {
            let trouble = book.beats.last()?.trouble.clone()?;
            trouble.contains("free").then_some(trouble)
        })
        .await;
    assert!(trouble.starts_with("only "), "{trouble}");
    // Several signs of life later it has still not asked for a job.
    let beats = world.scheduler.with(|book| book.beats.len());
    world
        .scheduler
        .until("more beats", |book| (book.beats.len() > beats + 5).then_some(()))
        .await;
    assert_eq!(world.scheduler.with(|book| book.queue.len()), 1);
    world.kill();
    world.min_free = 1;
    world.start();
    assert_eq!(world.scheduler.outcome(&id).await.state, OutcomeState::Succeeded);
}

#[tokio::test]
async fn a_start_that_was_written_down_and_did_not_happen_is_made_up_for() {
    let mut world = World::http().await;
    let job = world.job("echo once");
    let (id, name) = (job.job.clone(), container(&job.job));
    let folder = world.dir.path().join("state/jobs");
    std::fs::create_dir_all(&folder).unwrap();
    let record = serde_json::json!({ "assignment": job, "stage": "starting", "started_ms": 0 });
    std::fs::write(folder.join(format!("{id}.json")), record.to_string()).unwrap();
    let labels = [
        format!("io.nimbus.gpu.job={id}"),
        "io.nimbus.gpu.attempt=1".to_owned(),
        format!("io.nimbus.gpu.worker={}", world.name),
    ];
    let mut create = vec!["create", "--name", &name];
    for label in &labels {
        create.extend(["--label", label]);
    }
    create.extend([crate::world::IMAGE, "echo", "once"]);
    docker(&create);
    world.start();
    let outcome = world.scheduler.outcome(&id).await;
    assert_eq!(outcome.state, OutcomeState::Succeeded, "{outcome:?}");
    assert!(world.scheduler.with(|book| book.log(&id) == b"once\n"));
    world.nothing_is_left_of(&id).await;
}

#[tokio::test]
async fn a_box_that_was_unpaired_does_not_work_on_for_nobody() {
    let mut world = World::http().await;
    let job = world.job("echo on; while :; do sleep 1; done");
    let id = world.queue(&job);
    world.start();
    world
        .scheduler
        .until("its log", |book| (book.log(&id) == b"on\n").then_some(()))
        .await;
    world.scheduler.with(|book| book.unpaired = true);
    let container = container(&id);
    within("its container's removal", || {
        (!crate::engine::exists(&container)).then_some(())
    })
    .await;
}
