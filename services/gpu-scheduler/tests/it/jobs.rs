//! From submit to the end, and who may see what.

use std::time::Duration;

use futures::StreamExt;
use nimbus_bus::{EventFilter, EventStart};
use nimbus_errors::Code;
use nimbus_gpu_wire::{Command, EnvVar, Phase};
use nimbus_proto::event::GpuJobChanged;
use nimbus_proto::gpu::{
    CancelJob, GetJob, JobState, ListJobs, ListJobsRequest, Prioritize, PrioritizeRequest, PutSettings,
    PutSettingsRequest, SetWorker, SetWorkerRequest, Standing, Submit, SubmitRequest, WorkerState,
};
use nimbus_store::testing::{on_both, sqlite};

use crate::gx::{Gx, held, id, outcome};
use crate::world::{World, request, within};

/// A job on this box from the queue to its end.
async fn whole_life(world: &World, gx: &Gx) {
    let wanted = SubmitRequest {
        env: vec![EnvVar {
            name: "HF_TOKEN".into(),
            value: "secret".into(),
        }],
        command: Command::Argv(vec!["python".into(), "a b".into()]),
        ..request()
    };
    let job = world.ask::<Submit>(&world.alice, &wanted).await.unwrap();
    assert_eq!(
        (job.image.as_str(), &job.command),
        ("docker.io/library/busybox:latest", &wanted.command)
    );
    let given = gx.take().await;
    assert_eq!((id(&given), given.attempt), (job.id, 1));
    assert_eq!((&given.command, &given.env), (&wanted.command, &wanted.env));
    assert_eq!((given.limits.time_s, given.limits.log_bytes), (86_400, 16 << 20));

    gx.beat(&[held(&given, Phase::Pulling)]).await.unwrap();
    let seen = world.job(job.id).await;
    assert_eq!(
        (seen.state, seen.phase),
        (JobState::Running, Some(Phase::Pulling))
    );
    assert_eq!((seen.started_at, seen.env), (None, wanted.env.clone()));
    assert_eq!(world.worker(&gx.name).await.job, Some(job.id));
    gx.beat(&[held(&given, Phase::Running)]).await.unwrap();
    assert!(world.job(job.id).await.started_at.is_some());

    let ack = gx.log(&given.job, Some(0), b"epoch 1\n").await.unwrap();
    assert_eq!((ack.end, ack.capped), (8, false));
    assert!(gx.finish(&given, 0).await.unwrap().counted);
    assert!(
        !gx.finish(&given, 1).await.unwrap().counted,
        "a repeat changes nothing"
    );
    let job = world.job(job.id).await;
    assert_eq!(
        (job.state, job.exit_code, job.log_end),
        (JobState::Succeeded, Some(0), 8)
    );
    assert!(job.finished_at >= job.started_at && job.phase.is_none());
    gx.beat(&[]).await.unwrap();
    let worker = world.worker(&gx.name).await;
    assert_eq!((worker.job, worker.state), (None, WorkerState::Online));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_runs_on_a_box_on_the_bus_and_on_one_over_http() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let replica = world.replica(&[]).await;
        let fault = world.ask::<Submit>(&world.alice, &request()).await.unwrap_err();
        assert!(fault.is(Code::GpuNotConfigured), "{fault}");
        let gx = world.gx("gx1").await;
        whole_life(&world, &gx).await;
        let pause = SetWorkerRequest {
            worker: "gx1".parse().unwrap(),
            standing: Some(Standing::Paused),
            pool: None,
        };
        world.ask::<SetWorker>(&world.admin, &pause).await.unwrap();
        let http = world.gx_http("http1").await;
        whole_life(&world, &http).await;
        replica.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_wait_go_in_order_and_priority_goes_first() {
    let db = sqlite().await;
    let world = World::start(&db.db).await;
    let _replica = world.replica(&[]).await;
    let gx = world.gx("gx1").await;
    let mut wanted = Vec::new();
    for _ in 0..20 {
        wanted.push(world.submit(&world.admin).await.id);
    }
    assert_eq!(world.job(wanted[19]).await.ahead, 18, "one runs already");
    let fault = world
        .ask::<Submit>(
            &world.alice,
            &SubmitRequest {
                priority: 1,
                ..request()
            },
        )
        .await
        .unwrap_err();
    assert!(fault.is(Code::AuthForbidden), "{fault}");
    // The last to the front, and one to the back.
    for (job, priority) in [(wanted[19], 5), (wanted[3], -5)] {
        let request = PrioritizeRequest { job, priority };
        world.ask::<Prioritize>(&world.admin, &request).await.unwrap();
    }
    let last = wanted.remove(19);
    wanted.insert(1, last);
    let back = wanted.remove(4);
    wanted.push(back);

    let page = ListJobsRequest {
        state: None,
        limit: 7,
        after: None,
    };
    let mut listed = Vec::new();
    let mut after = None;
    loop {
        let page = ListJobsRequest {
            after: after.clone(),
            ..page.clone()
        };
        let page = world.ask::<ListJobs>(&world.admin, &page).await.unwrap();
        for (index, job) in page.jobs.iter().enumerate() {
            let place = listed.len() + index;
            assert_eq!(
                job.ahead,
                if place < 19 {
                    u64::try_from(place).unwrap()
                } else {
                    0
                }
            );
        }
        listed.extend(page.jobs.iter().map(|job| job.id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let mut shown = wanted[1..].to_vec();
    shown.push(wanted[0]);
    assert_eq!(
        listed, shown,
        "those that wait in their order, then the one that runs"
    );

    let mut ran = Vec::new();
    for _ in 0..20 {
        let job = gx.take().await;
        ran.push(id(&job));
        assert!(gx.finish(&job, 0).await.unwrap().counted);
    }
    assert_eq!(ran, wanted);
    let fault = world
        .ask::<Prioritize>(
            &world.admin,
            &PrioritizeRequest {
                job: wanted[0],
                priority: 1,
            },
        )
        .await
        .unwrap_err();
    assert!(fault.is(Code::OpConflict), "{fault}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_have_a_quota_and_a_repeated_request_is_one_job() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let replica = world.replica(&[]).await;
        let gx = world.gx("gx1").await;
        let first = world
            .keyed::<Submit>(&world.alice, "k1", &request())
            .await
            .unwrap();
        let again = world
            .keyed::<Submit>(&world.alice, "k1", &request())
            .await
            .unwrap();
        assert_eq!(first.id, again.id);
        let others = world.keyed::<Submit>(&world.bob, "k1", &request()).await.unwrap();
        assert_ne!(first.id, others.id, "another's key");
        for _ in 0..4 {
            world.submit(&world.alice).await;
        }
        // Also when many try at once.
        let tries = futures::future::join_all(
            (0..8).map(|_| async { world.ask::<Submit>(&world.bob, &request()).await }),
        )
        .await;
        assert_eq!(tries.iter().filter(|one| one.is_ok()).count(), 4);
        let fault = world.ask::<Submit>(&world.alice, &request()).await.unwrap_err();
        assert!(fault.is(Code::GpuQuotaExceeded), "{fault}");
        for _ in 0..8 {
            world.submit(&world.admin).await;
        }
        let job = gx.take().await;
        gx.finish(&job, 0).await.unwrap();
        world.submit(&world.alice).await;
        let more = PutSettingsRequest {
            enabled: true,
            base_url: String::new(),
            inference_model: String::new(),
            api_key: None,
            job_quota: Some(6),
        };
        let settings = world.ask::<PutSettings>(&world.admin, &more).await.unwrap();
        assert_eq!((settings.job_quota, settings.workers.len()), (6, 1));
        world.submit(&world.alice).await;
        let off = PutSettingsRequest {
            enabled: false,
            ..more
        };
        world.ask::<PutSettings>(&world.admin, &off).await.unwrap();
        let fault = world.ask::<Submit>(&world.admin, &request()).await.unwrap_err();
        assert!(fault.is(Code::GpuNotConfigured), "{fault}");
        replica.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sees_ones_own_and_a_machine_only_what_it_asked_for() {
    let db = sqlite().await;
    let world = World::start(&db.db).await;
    let _replica = world.replica(&[]).await;
    let _gx = world.gx("gx1").await;
    let (machine, inside) = world.machine(&world.alice);
    let (_, admins) = world.machine(&world.admin);
    let mine = world.submit(&world.alice).await;
    let machines = world.submit(&inside).await;
    let bobs = world.submit(&world.bob).await;
    assert_eq!(machines.machine, Some(machine));
    assert_eq!(machines.owner, world.alice.identity.user);

    for (who, sees) in [
        (&world.alice, vec![mine.id, machines.id]),
        (&inside, vec![machines.id]),
        (&world.bob, vec![bobs.id]),
        (&world.admin, vec![mine.id, machines.id, bobs.id]),
        (&admins, vec![]),
    ] {
        let all = ListJobsRequest {
            state: None,
            limit: 200,
            after: None,
        };
        let page = world.ask::<ListJobs>(who, &all).await.unwrap();
        let mut listed: Vec<_> = page.jobs.iter().map(|job| job.id).collect();
        listed.sort();
        assert_eq!(listed, sees);
        for job in [mine.id, machines.id, bobs.id] {
            let got = world.ask::<GetJob>(who, &job).await;
            if sees.contains(&job) {
                assert_eq!(got.unwrap().id, job);
            } else {
                assert!(got.unwrap_err().is(Code::OpNotFound));
                let fault = world.ask::<CancelJob>(who, &job).await.unwrap_err();
                assert!(fault.is(Code::OpNotFound), "{fault}");
            }
        }
    }
    for state in [JobState::Queued, JobState::Running, JobState::Failed] {
        let some = ListJobsRequest {
            state: Some(state),
            limit: 200,
            after: None,
        };
        let page = world.ask::<ListJobs>(&world.admin, &some).await.unwrap();
        let wanted = match state {
            JobState::Queued => 2,
            JobState::Running => 1,
            _ => 0,
        };
        assert_eq!(page.jobs.len(), wanted, "{state}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_is_told_without_the_environment() {
    let db = sqlite().await;
    let world = World::start(&db.db).await;
    let _replica = world.replica(&[]).await;
    let gx = world.gx("gx1").await;
    let filter = EventFilter {
        subjects: vec!["nimbus.v1.event.gpu-job.>".into()],
        start: EventStart::All,
    };
    let mut events = Box::pin(world.gateway.events(filter));
    let wanted = SubmitRequest {
        env: vec![EnvVar {
            name: "KEY".into(),
            value: "secret".into(),
        }],
        ..request()
    };
    let job = world.ask::<Submit>(&world.alice, &wanted).await.unwrap();
    let given = gx.run().await;
    let failed = nimbus_gpu_wire::Outcome {
        code: Some("gpu.out_of_memory".into()),
        error: Some("killed".into()),
        ..outcome(&given, 137)
    };
    gx.finish_with(&given.job, failed).await.unwrap();
    let mut told = Vec::new();
    while told.last().is_none_or(|(state, _)| *state != JobState::Failed) {
        let event = within(events.next()).await.unwrap().unwrap().event;
        let GpuJobChanged { job: changed } = event.read().unwrap().unwrap();
        assert_eq!(changed.id, job.id);
        assert!(changed.env.is_empty());
        told.push((changed.state, changed.phase));
    }
    let wanted = [
        (JobState::Queued, None),
        (JobState::Running, Some(Phase::Assigned)),
        (JobState::Running, Some(Phase::Running)),
        (JobState::Failed, None),
    ];
    assert_eq!(told, wanted);
    let job = world.job(job.id).await;
    assert_eq!(
        (job.code.as_deref(), job.error.as_deref(), job.exit_code),
        (Some("gpu.out_of_memory"), Some("killed"), Some(137))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_box_gets_nothing_and_a_draining_one_ends_what_it_has() {
    let db = sqlite().await;
    let world = World::start(&db.db).await;
    let _replica = world.replica(&[]).await;
    let gx = world.gx("gx1").await;
    let set = |standing| {
        let request = SetWorkerRequest {
            worker: "gx1".parse().unwrap(),
            standing: Some(standing),
            pool: None,
        };
        let world = &world;
        async move { world.ask::<SetWorker>(&world.admin, &request).await.unwrap() }
    };
    world.submit(&world.alice).await;
    let second = world.submit(&world.alice).await;
    let job = gx.run().await;
    assert_eq!(set(Standing::Draining).await.standing, Standing::Draining);
    assert!(gx.beat(&[held(&job, Phase::Running)]).await.unwrap().drain);
    gx.finish(&job, 0).await.unwrap();
    assert_eq!(world.worker("gx1").await.standing, Standing::Paused);
    assert!(gx.next(Duration::from_millis(300)).await.is_none());
    gx.beat(&[]).await.unwrap();
    assert_eq!(world.job(second.id).await.state, JobState::Queued);
    set(Standing::Active).await;
    // What it was given before it was paused again it is still to fetch.
    set(Standing::Paused).await;
    assert_eq!(world.job(second.id).await.state, JobState::Running);
    assert!(!gx.beat(&[]).await.unwrap().drain);
    let job = gx.take().await;
    assert_eq!(id(&job), second.id);
    assert!(gx.beat(&[held(&job, Phase::Running)]).await.unwrap().drain);
    gx.finish(&job, 0).await.unwrap();
    assert_eq!(
        set(Standing::Draining).await.standing,
        Standing::Paused,
        "nothing to wait for"
    );

    // A box in trouble gets nothing either, until it says that it is over.
    set(Standing::Active).await;
    let mut trouble = crate::gx::sign(&[]);
    trouble.trouble = Some("the engine does not answer".into());
    gx.beat_with(trouble).await.unwrap();
    let third = world.submit(&world.alice).await;
    assert_eq!(third.state, JobState::Queued);
    gx.beat(&[]).await.unwrap();
    assert_eq!(id(&gx.take().await), third.id);

    // Pools are apart.
    let elsewhere = SubmitRequest {
        pool: Some("big".into()),
        ..request()
    };
    let fault = world.ask::<Submit>(&world.alice, &elsewhere).await.unwrap_err();
    assert!(fault.is(Code::OpInvalidInput), "{fault}");
    let big = world.gx("gx2").await;
    let request = SetWorkerRequest {
        worker: "gx2".parse().unwrap(),
        standing: None,
        pool: Some("big".into()),
    };
    world.ask::<SetWorker>(&world.admin, &request).await.unwrap();
    assert_eq!(big.beat(&[]).await.unwrap().pool, "big");
    let job = world.ask::<Submit>(&world.alice, &elsewhere).await.unwrap();
    assert_eq!(id(&big.take().await), job.id);
}
