//! Many at once: no job twice, none left, first come first served.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use nimbus_gpu_wire::Phase;
use nimbus_model::JobId;
use nimbus_proto::gpu::{CancelJob, JobState, Submit};
use nimbus_store::testing::on_both;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::gx::{Gx, held, id};
use crate::world::{World, request, within};

/// Runs what it is given until it is stopped, and tells what it ran.
async fn works(gx: Gx, ran: mpsc::UnboundedSender<(String, JobId)>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let Some(job) = gx.next(Duration::from_millis(500)).await else {
            gx.beat(&[]).await.unwrap();
            continue;
        };
        // Cancelled ones are not run, as the answer of the first beat says so.
        let reply = gx.beat(&[held(&job, Phase::Running)]).await.unwrap();
        if reply.cancel.is_empty() {
            gx.log(&job.job, Some(0), b"ran\n").await.unwrap();
            gx.finish(&job, 0).await.unwrap();
            ran.send((gx.name.clone(), id(&job))).unwrap();
        }
        gx.beat(&[]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_jobs_on_four_boxes_with_two_replicas_run_once_each_and_in_order() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let replicas = [world.replica(&[]).await, world.replica(&[]).await];
        let (told, mut ran) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let mut boxes = Vec::new();
        for name in ["gx1", "gx2", "gx3"] {
            let gx = world.gx(name).await;
            boxes.push(tokio::spawn(works(gx, told.clone(), stop.clone())));
        }
        let gx = world.gx_http("http1").await;
        boxes.push(tokio::spawn(works(gx, told.clone(), stop.clone())));

        let mut order = Vec::new();
        for _ in 0..200 {
            order.push(world.submit(&world.admin).await.id);
        }
        let place: HashMap<JobId, usize> = order.iter().copied().zip(0..).collect();
        let mut seen: HashMap<JobId, String> = HashMap::new();
        let mut last: HashMap<String, usize> = HashMap::new();
        for _ in 0..200 {
            let (gx, job) = within(ran.recv()).await.unwrap();
            let now = place[&job];
            if let Some(before) = last.insert(gx.clone(), now) {
                assert!(before < now, "{gx} ran job {now} after job {before}");
            }
            assert_eq!(seen.insert(job, gx), None, "{job} ran twice");
        }
        assert!(last.len() > 1, "one box ran them all");
        stop.cancel();
        for one in boxes {
            within(one).await.unwrap();
        }
        assert!(ran.try_recv().is_err(), "something ran twice");
        for job in order {
            let job = world.job(job).await;
            assert_eq!((job.state, job.attempt, job.log_end), (JobState::Succeeded, 1, 4));
        }
        for replica in replicas {
            replica.stop().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn submitting_and_cancelling_at_once_leaves_every_job_ended_once() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let replicas = [world.replica(&[]).await, world.replica(&[]).await];
        let (told, mut ran) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let mut boxes = Vec::new();
        for name in ["gx1", "gx2"] {
            let gx = world.gx(name).await;
            boxes.push(tokio::spawn(works(gx, told.clone(), stop.clone())));
        }
        let submitters = (0..4).map(|_| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                let mut jobs = Vec::new();
                for number in 0..15 {
                    let job = world.ask::<Submit>(&world.admin, &request()).await.unwrap().id;
                    let cancelled =
                        number % 3 == 0 && world.ask::<CancelJob>(&world.admin, &job).await.is_ok();
                    jobs.push((job, cancelled));
                }
                jobs
            })
        });
        let jobs: Vec<(JobId, bool)> = futures::future::join_all(submitters)
            .await
            .into_iter()
            .flat_map(|jobs| jobs.unwrap())
            .collect();
        for (job, cancelled) in &jobs {
            let wanted = if *cancelled {
                JobState::Cancelled
            } else {
                JobState::Succeeded
            };
            world.until(*job, wanted).await;
        }
        stop.cancel();
        for one in boxes {
            within(one).await.unwrap();
        }
        let mut times: HashMap<JobId, u32> = HashMap::new();
        while let Ok((_, job)) = ran.try_recv() {
            *times.entry(job).or_default() += 1;
        }
        for (job, cancelled) in jobs {
            let times = times.get(&job).copied().unwrap_or(0);
            assert!(
                times == 1 || (cancelled && times == 0),
                "{job} ran {times} times, cancelled: {cancelled}"
            );
        }
        for replica in replicas {
            replica.stop().await;
        }
    })
    .await;
}
