//! Boxes that fall silent, come back, and come back without what they had.

use std::time::Duration;

use nimbus_gpu_wire::Phase;
use nimbus_proto::gpu::{JobState, ReadLog, ReadLogRequest, Submit, SubmitRequest, WorkerState};
use nimbus_store::testing::{on_both, sqlite};

use crate::gx::{Gx, held, id};
use crate::world::{World, eventually, request};

const SOON: [&str; 4] = ["--gpu-silent-after", "1", "--gpu-lost-after", "3"];

fn again() -> SubmitRequest {
    SubmitRequest {
        rerun: true,
        ..request()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_job_of_a_lost_box_fails_and_is_cancelled_when_it_comes_back() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let replica = world.replica(&SOON).await;
        let gx = world.gx("gx1").await;
        let first = world.submit(&world.alice).await;
        let job = gx.run().await;
        gx.log(&job.job, Some(0), b"so far\n").await.unwrap();
        let second = world.submit(&world.alice).await;
        eventually(
            || world.worker("gx1"),
            |worker| worker.state == WorkerState::Silent,
        )
        .await;
        assert_eq!(
            world.job(first.id).await.state,
            JobState::Running,
            "it may be well"
        );
        let failed = world.until(first.id, JobState::Failed).await;
        assert_eq!(
            (failed.code.as_deref(), failed.log_end),
            (Some("gpu.worker_lost"), 7)
        );
        let worker = world.worker("gx1").await;
        assert_eq!((worker.state, worker.job), (WorkerState::Lost, Some(first.id)));
        assert_eq!(world.job(second.id).await.state, JobState::Queued);

        let reply = gx.beat(&[held(&job, Phase::Running)]).await.unwrap();
        assert_eq!(reply.cancel, std::slice::from_ref(&job.job));
        assert_eq!(world.job(first.id).await.state, JobState::Failed);
        assert_eq!(
            world.job(second.id).await.state,
            JobState::Queued,
            "it has not let go yet"
        );
        gx.beat(&[]).await.unwrap();
        assert_eq!(id(&gx.run().await), second.id);
        replica.stop().await;
    })
    .await;
}

/// Beats with what it holds until told to stop.
fn keeps_beating(
    gx: std::sync::Arc<Gx>,
    holds: Vec<nimbus_gpu_wire::HeldJob>,
) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            // A server that is away is asked again.
            let _ = gx.beat(&holds).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_box_that_is_paired_again_and_never_comes_back_loses_its_job() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let replica = world.replica(&SOON).await;
        let first = world.gx("gx1").await;
        let job = world.ask::<Submit>(&world.alice, &again()).await.unwrap();
        let given = first.run().await;
        // The installer ends between the two.
        world.register(&world.token().await, "gx1").await.unwrap();
        let second = std::sync::Arc::new(world.gx("gx2").await);
        let beating = keeps_beating(second.clone(), vec![]);
        let taken = second.take().await;
        beating.abort();
        assert_eq!((id(&taken), taken.attempt), (job.id, given.attempt + 1));
        replica.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_may_run_again_goes_to_another_box_and_its_log_goes_on() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let replica = world.replica(&SOON).await;
        let first = world.gx("gx1").await;
        let job = world.ask::<Submit>(&world.alice, &again()).await.unwrap();
        let given = first.run().await;
        first.log(&given.job, Some(0), b"one\n").await.unwrap();
        first.artifact(&given.job, 0, b"half").await.unwrap();
        let second = std::sync::Arc::new(world.gx("gx2").await);
        let beating = keeps_beating(second.clone(), vec![]);
        let taken = second.take().await;
        beating.abort();
        assert_eq!((id(&taken), taken.attempt), (job.id, 2));
        assert_eq!(taken.limits.log_bytes, given.limits.log_bytes - 4);
        second.beat(&[held(&taken, Phase::Running)]).await.unwrap();
        let ack = second.log(&taken.job, Some(0), b"two\n").await.unwrap();
        assert_eq!(ack.end, 4, "each attempt counts from zero");

        // The first is back: nothing that it says about the job counts.
        let reply = first.beat(&[held(&given, Phase::Running)]).await.unwrap();
        assert_eq!(reply.cancel, std::slice::from_ref(&given.job));
        assert!(first.log(&given.job, Some(4), b"mine\n").await.unwrap().capped);
        assert!(!first.finish(&given, 1).await.unwrap().counted);
        assert_eq!(world.worker("gx1").await.job, None);

        let mut report = crate::gx::outcome(&taken, 0);
        report.log_bytes = 4;
        second.finish_with(&taken.job, report).await.unwrap();
        let ended = world.job(job.id).await;
        assert_eq!(
            (
                ended.state,
                ended.attempt,
                ended.log_end,
                ended.log_bytes,
                ended.log_truncated
            ),
            (JobState::Succeeded, 2, 8, 8, false)
        );
        let all = ReadLogRequest {
            job: job.id,
            offset: 0,
            limit: 100,
            wait_ms: 0,
        };
        let log = world.ask::<ReadLog>(&world.alice, &all).await.unwrap();
        assert_eq!(log.bytes, b"one\ntwo\n");
        replica.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_box_that_comes_back_without_its_job_has_lost_it() {
    let db = sqlite().await;
    let world = World::start(&db.db).await;
    let _replica = world.replica(&[]).await;
    let gx = world.gx("gx1").await;
    let first = world.submit(&world.alice).await;
    let second = world.submit(&world.alice).await;
    let job = gx.run().await;
    // One beat without it may be an older one that came late.
    gx.beat(&[]).await.unwrap();
    gx.beat(&[held(&job, Phase::Running)]).await.unwrap();
    gx.beat(&[]).await.unwrap();
    assert_eq!(world.job(first.id).await.state, JobState::Running);
    gx.beat(&[]).await.unwrap();
    let lost = world.job(first.id).await;
    assert_eq!(
        (lost.state, lost.code.as_deref()),
        (JobState::Failed, Some("gpu.worker_lost"))
    );
    assert_eq!(id(&gx.run().await), second.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_job_outlives_a_jump_of_the_clock_a_restart_and_a_crash_of_the_bus() {
    let db = sqlite().await;
    let world = World::start(&db.db).await;
    let replica = world
        .replica(&["--gpu-silent-after", "5", "--gpu-lost-after", "10"])
        .await;
    let gx = std::sync::Arc::new(world.gx("gx1").await);
    let job = world.submit(&world.alice).await;
    let given = gx.run().await;
    let beating = keeps_beating(gx.clone(), vec![held(&given, Phase::Running)]);
    world.jump.forward(Duration::from_secs(24 * 3600));
    world.crash_bus().await;
    replica.stop().await;
    let _replica = world
        .replica(&["--gpu-silent-after", "5", "--gpu-lost-after", "10"])
        .await;
    let before = world.worker("gx1").await.last_beat_at;
    eventually(|| world.worker("gx1"), |worker| worker.last_beat_at > before).await;
    beating.abort();
    gx.beat(&[held(&given, Phase::Running)]).await.unwrap();
    assert_eq!(world.job(job.id).await.state, JobState::Running);
    assert!(gx.finish(&given, 0).await.unwrap().counted);
    let ended = world.job(job.id).await;
    assert_eq!((ended.state, ended.attempt), (JobState::Succeeded, 1));
}
