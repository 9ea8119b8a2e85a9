//! Logs and artifacts: every byte once, in order, up to the cap.

use std::time::Duration;

use nimbus_errors::Code;
use nimbus_proto::gpu::{
    Chunk, GetJob, JobState, ReadArtifact, ReadArtifactRequest, ReadLog, ReadLogRequest,
};
use nimbus_store::testing::{on_both, sqlite};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::gx::outcome;
use crate::world::{World, eventually, within};

async fn read(world: &World, job: nimbus_model::JobId, offset: u64, limit: u32, wait_ms: u32) -> Chunk {
    let request = ReadLogRequest {
        job,
        offset,
        limit,
        wait_ms,
    };
    world.ask::<ReadLog>(&world.alice, &request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pieces_that_come_twice_late_or_not_make_one_log() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let replica = world.replica(&["--gpu-log-limit", "1000"]).await;
        let gx = world.gx("gx1").await;
        let job = world.submit(&world.alice).await;
        let given = gx.run().await;
        let printed: Vec<u8> = (0..1500_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        // Pieces of anywhere, some of them again, and from time to time one that fits.
        let strategy = proptest::collection::vec((0_usize..900, 1_usize..120), 30);
        let noise = strategy
            .new_tree(&mut TestRunner::deterministic())
            .unwrap()
            .current();
        let mut end = 0_usize;
        for (offset, length) in noise {
            let upto = (offset + length).min(900);
            let ack = gx
                .log(
                    &given.job,
                    Some(u64::try_from(offset).unwrap()),
                    &printed[offset..upto],
                )
                .await
                .unwrap();
            end = if offset <= end { end.max(upto) } else { end };
            assert_eq!(ack.end, u64::try_from(end).unwrap());
            let upto = (end + 20).min(900);
            let ack = gx
                .log(&given.job, Some(ack.end), &printed[end..upto])
                .await
                .unwrap();
            end = upto;
            assert_eq!((ack.end, ack.capped), (u64::try_from(end).unwrap(), false));
        }
        // Two that send the same piece at the same time.
        let offset = u64::try_from(end).unwrap();
        let (one, two) = tokio::join!(
            gx.log(&given.job, Some(offset), &printed[end..990]),
            gx.log(&given.job, Some(offset), &printed[end..990])
        );
        assert_eq!((one.unwrap().end, two.unwrap().end), (990, 990));
        let ack = gx.log(&given.job, Some(980), &printed[980..1100]).await.unwrap();
        assert_eq!((ack.end, ack.capped), (1000, true));
        let ack = gx.log(&given.job, Some(1000), &printed[1000..]).await.unwrap();
        assert_eq!((ack.end, ack.capped), (1000, true));

        let mut log = Vec::new();
        loop {
            let offset = u64::try_from(log.len()).unwrap();
            let chunk = read(&world, job.id, offset, 77, 0).await;
            assert_eq!((chunk.end, chunk.complete, chunk.truncated), (1000, false, true));
            if chunk.bytes.is_empty() {
                break;
            }
            log.extend(chunk.bytes);
        }
        assert!(log == printed[..1000], "the log is what was printed");
        let mut report = outcome(&given, 0);
        report.log_bytes = 1500;
        gx.finish_with(&given.job, report).await.unwrap();
        let chunk = read(&world, job.id, 999, 10, 60_000).await;
        assert_eq!(
            (chunk.bytes.as_slice(), chunk.complete),
            (&printed[999..1000], true)
        );
        let ended = world.job(job.id).await;
        assert_eq!(
            (ended.log_end, ended.log_bytes, ended.log_truncated),
            (1000, 1500, true)
        );
        let beyond = read(&world, job.id, 5000, 10, 60_000).await;
        assert_eq!((beyond.bytes.len(), beyond.end, beyond.complete), (0, 1000, true));
        replica.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_sees_the_next_byte_and_the_end_whichever_replica_answers() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let (one, two) = (world.replica(&[]).await, world.replica(&[]).await);
        let gx = world.gx("gx1").await;
        let job = world.submit(&world.alice).await;
        let given = gx.run().await;
        let follow = |offset| {
            let world = world.clone();
            tokio::spawn(async move { read(&world, job.id, offset, 100, 30_000).await })
        };
        // Several, so that both replicas have some.
        let waiting: Vec<_> = (0..6).map(|_| follow(0)).collect();
        gx.log(&given.job, Some(0), b"hello\n").await.unwrap();
        for one in waiting {
            let chunk = within(one).await.unwrap();
            assert_eq!(
                (chunk.bytes.as_slice(), chunk.complete),
                (b"hello\n".as_slice(), false)
            );
        }
        let waiting: Vec<_> = (0..6).map(|_| follow(6)).collect();
        gx.finish(&given, 0).await.unwrap();
        for one in waiting {
            let chunk = within(one).await.unwrap();
            assert_eq!((chunk.bytes.len(), chunk.complete), (0, true));
        }
        one.stop().await;
        two.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_artifact_is_there_when_all_of_it_is() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let replica = world.replica(&[]).await;
        let gx = world.gx("gx1").await;
        let packed: Vec<u8> = (0..600_000_u32).map(|n| u8::try_from(n % 249).unwrap()).collect();
        let finish = async |sent: usize| {
            let job = world.submit(&world.alice).await;
            let given = gx.run().await;
            let fault = world
                .ask::<ReadArtifact>(
                    &world.alice,
                    &ReadArtifactRequest {
                        job: job.id,
                        offset: 0,
                        limit: 10,
                    },
                )
                .await
                .unwrap_err();
            assert!(fault.is(Code::OpNotFound), "{fault}");
            for (index, piece) in packed[..sent].chunks(nimbus_gpu_wire::MAX_CHUNK).enumerate() {
                let offset = u64::try_from(index * nimbus_gpu_wire::MAX_CHUNK).unwrap();
                gx.artifact(&given.job, offset, piece).await.unwrap();
            }
            let mut report = outcome(&given, 1);
            report.artifact_bytes = Some(600_000);
            report.artifact_sha256 = Some("00ff".into());
            gx.finish_with(&given.job, report).await.unwrap();
            world.job(job.id).await
        };
        let job = finish(600_000).await;
        assert_eq!(job.state, JobState::Failed);
        let artifact = job.artifact.unwrap();
        assert_eq!((artifact.bytes, artifact.sha256.as_str()), (600_000, "00ff"));
        let request = ReadArtifactRequest {
            job: job.id,
            offset: 250_000,
            limit: 300_000,
        };
        let chunk = world.ask::<ReadArtifact>(&world.alice, &request).await.unwrap();
        assert!(chunk.bytes == packed[250_000..550_000]);
        assert!(!chunk.complete);

        let job = finish(100).await;
        assert_eq!(job.artifact, None);
        assert_eq!(
            job.artifact_note.as_deref(),
            Some("100 of 600000 bytes have arrived")
        );
        replica.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_goes_on_where_it_was_after_a_crash_of_the_bus_and_of_the_service() {
    let db = sqlite().await;
    let world = World::start(&db.db).await;
    let replica = world.replica(&[]).await;
    let gx = world.gx("gx1").await;
    let job = world.submit(&world.alice).await;
    let given = gx.run().await;
    gx.log(&given.job, Some(0), b"before ").await.unwrap();
    world.crash_bus().await;
    gx.log(&given.job, Some(7), b"between ").await.unwrap();
    replica.stop().await;
    let starting = world.replica(&[]);
    // Asked while nobody is there to answer.
    let (ack, _replica) = tokio::join!(gx.log(&given.job, Some(7), b"between after"), starting);
    assert_eq!(ack.unwrap().end, 20);
    gx.finish(&given, 0).await.unwrap();
    assert_eq!(
        read(&world, job.id, 0, 100, 0).await.bytes,
        b"before between after"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ended_long_ago_is_gone_and_the_rest_stays() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let replica = world.replica(&[]).await;
        let gx = world.gx("gx1").await;
        let old = world.submit(&world.alice).await;
        let given = gx.run().await;
        gx.log(&given.job, Some(0), b"long ago").await.unwrap();
        gx.finish(&given, 0).await.unwrap();
        world.jump.forward(Duration::from_secs(31 * 24 * 3600));
        let running = world.submit(&world.alice).await;
        gx.run().await;
        replica.stop().await;
        // Whoever begins to prune looks at once.
        let replica = world.replica(&[]).await;
        let _gone = eventually(
            || world.ask::<GetJob>(&world.alice, &old.id),
            |job| job.as_ref().is_err_and(|fault| fault.is(Code::OpNotFound)),
        )
        .await;
        assert_eq!(world.job(running.id).await.state, JobState::Running);
        replica.stop().await;
    })
    .await;
}
