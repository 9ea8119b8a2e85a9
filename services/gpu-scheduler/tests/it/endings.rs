//! Cancelling, and boxes of the older kind.

use std::time::Duration;

use nimbus_errors::Code;
use nimbus_gpu_wire::Phase;
use nimbus_proto::gpu::{CancelJob, JobState, WorkerState};
use nimbus_store::testing::{on_both, sqlite};

use crate::gx::{held, id, outcome};
use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_job_is_told_to_its_box_until_it_holds_it_no_more() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let replica = world.replica(&[]).await;
        let gx = world.gx("gx1").await;
        let first = world.submit(&world.alice).await;
        let second = world.submit(&world.alice).await;
        let third = world.submit(&world.alice).await;
        let job = gx.run().await;

        let cancelled = world.ask::<CancelJob>(&world.alice, &second.id).await.unwrap();
        assert_eq!(cancelled.state, JobState::Cancelled);
        let cancelled = world.ask::<CancelJob>(&world.alice, &first.id).await.unwrap();
        assert_eq!(cancelled.state, JobState::Cancelled);
        assert!(cancelled.finished_at.is_some());
        assert_eq!(gx.told().await.cancel, std::slice::from_ref(&job.job));
        let fault = world.ask::<CancelJob>(&world.alice, &first.id).await.unwrap_err();
        assert!(fault.is(Code::GpuJobTerminal), "{fault}");

        // Until the container is gone the box is busy, and it is told again.
        for _ in 0..2 {
            let reply = gx.beat(&[held(&job, Phase::Running)]).await.unwrap();
            assert_eq!(reply.cancel, std::slice::from_ref(&job.job));
            assert_eq!(world.job(third.id).await.state, JobState::Queued);
        }
        let ack = gx.log(&job.job, Some(0), b"too late").await.unwrap();
        assert_eq!((ack.end, ack.capped), (8, true), "taken and thrown away");
        assert!(gx.beat(&[]).await.unwrap().cancel.is_empty());
        let next = gx.run().await;
        assert_eq!(id(&next), third.id);

        // A late report of the cancelled one neither counts nor ends the other.
        assert!(!gx.finish(&job, 0).await.unwrap().counted);
        assert_eq!(world.job(first.id).await.state, JobState::Cancelled);
        assert_eq!(world.worker("gx1").await.job, Some(third.id));
        assert!(gx.finish(&next, 0).await.unwrap().counted);
        replica.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_cancelled_before_its_box_came_for_it_is_taken_back() {
    let db = sqlite().await;
    let world = World::start(&db.db).await;
    let _replica = world.replica(&[]).await;
    let gx = world.gx("gx1").await;
    let first = world.submit(&world.alice).await;
    assert_eq!(first.state, JobState::Running);
    // Its place in the stream is known a moment after it was stored.
    let stored = async |left: u64| {
        crate::world::eventually(
            || async {
                let context = async_nats::jetstream::new(world.plain().await);
                let mut stream = context.get_stream("GPU_JOBS").await.unwrap();
                stream.info().await.unwrap().state.messages
            },
            |messages| *messages == left,
        )
        .await
    };
    stored(1).await;
    world.ask::<CancelJob>(&world.alice, &first.id).await.unwrap();
    gx.beat(&[]).await.unwrap();
    let second = world.submit(&world.alice).await;
    // Whether or not the first could be taken back in time, the box is told what it holds in vain.
    let mut job = gx.take().await;
    if id(&job) == first.id {
        let reply = gx.beat(&[held(&job, Phase::Assigned)]).await.unwrap();
        assert_eq!(reply.cancel, std::slice::from_ref(&job.job));
        job = gx.take().await;
    }
    assert_eq!(id(&job), second.id);
    gx.beat(&[held(&job, Phase::Running)]).await.unwrap();
    stored(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_waits_gets_the_job_that_comes_and_gets_it_again() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let (one, two) = (world.replica(&[]).await, world.replica(&[]).await);
        let gx = world.gx_http("http1").await;
        let waiting = {
            let world = world.clone();
            tokio::spawn(async move {
                let gx = gx;
                (gx.take().await, gx, world)
            })
        };
        let job = world.submit(&world.alice).await;
        let (given, gx, _) = crate::world::within(waiting).await.unwrap();
        assert_eq!(id(&given), job.id);
        let again = gx.take().await;
        assert_eq!(
            (&again.job, again.attempt),
            (&given.job, given.attempt),
            "the answer may have been lost"
        );
        gx.beat(&[held(&given, Phase::Running)]).await.unwrap();
        assert!(gx.next(Duration::from_millis(100)).await.is_none());
        assert!(gx.finish(&given, 0).await.unwrap().counted);
        one.stop().await;
        two.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_box_of_the_older_kind_that_never_beats_still_works() {
    let db = sqlite().await;
    let world = World::start(&db.db).await;
    let _replica = world
        .replica(&["--gpu-silent-after", "1", "--gpu-lost-after", "2"])
        .await;
    let gx = world.gx_old("http1").await;
    let first = world.submit(&world.alice).await;
    let second = world.submit(&world.alice).await;
    assert_eq!(first.state, JobState::Queued, "nothing is known of the box yet");
    let job = gx.take().await;
    assert_eq!(id(&job), first.id);
    // It does not count bytes, and it is silent for long while a job prints nothing.
    gx.log(&job.job, None, b"one\n").await.unwrap();
    crate::world::eventually(
        || world.worker("http1"),
        |worker| worker.state == WorkerState::Lost,
    )
    .await;
    assert_eq!(world.job(first.id).await.state, JobState::Running);
    let ack = gx.log(&job.job, None, b"two\n").await.unwrap();
    assert_eq!(ack.end, 8);
    assert_eq!(world.worker("http1").await.state, WorkerState::Online);
    // It does not know of attempts either.
    let mut report = outcome(&job, 3);
    report.attempt = 0;
    report.error = Some("exit status 3".into());
    assert!(gx.finish_with(&job.job, report).await.unwrap().counted);
    let ended = world.job(first.id).await;
    assert_eq!(
        (ended.state, ended.exit_code, ended.log_end, ended.log_truncated),
        (JobState::Failed, Some(3), 8, false)
    );
    // Asking again means that it has nothing: what it was given is lost, and does not begin twice.
    let job = gx.take().await;
    assert_eq!(id(&job), second.id);
    assert!(gx.next(Duration::ZERO).await.is_none());
    let lost = world.job(second.id).await;
    assert_eq!(
        (lost.state, lost.code.as_deref()),
        (JobState::Failed, Some("gpu.worker_lost"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_assignment_that_never_reached_the_stream_is_stored_again() {
    let db = sqlite().await;
    let world = World::start(&db.db).await;
    let _replica = world.replica(&[]).await;
    // Given while the box was on HTTP, so nothing lies in the stream; then it comes to the bus.
    let registered = world.register(&world.token().await, "gx1").await.unwrap();
    let http = crate::gx::Gx::over_http(world.gateway.clone(), "gx1", &registered.worker_token);
    http.beat(&[]).await.unwrap();
    let job = world.submit(&world.alice).await;
    let gx = world.gx_of(&registered).await;
    for _ in 0..5 {
        gx.beat(&[]).await.unwrap();
    }
    let given = gx.run().await;
    assert_eq!(id(&given), job.id);
    // What it holds from an attempt that is not its own is to go.
    let mut other = held(&given, Phase::Running);
    other.attempt = 7;
    let reply = gx.beat(&[other]).await.unwrap();
    assert_eq!(reply.cancel, [job.id.to_string()]);
}
