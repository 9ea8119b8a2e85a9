//! How a box becomes a worker and stops being one.

use std::time::Duration;

use nimbus_errors::Code;
use nimbus_gpu_wire::Phase;
use nimbus_proto::gpu::{
    CheckPairing, CreatePairing, GetEndpoint, GetInjection, GetSettings, JobState, PairingRequest,
    PutSettings, PutSettingsRequest, Register, Unpair, WorkerState,
};
use nimbus_store::testing::{on_both, sqlite};

use crate::gx::{Gx, held};
use crate::world::{World, registration};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_pairs_one_box_once_within_five_minutes() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let replica = world.replica(&[]).await;
        let check = async |token| world.gateway.call::<CheckPairing>(token).await;
        let (older, token) = (world.token().await, world.token().await);
        assert_eq!(token.reveal().len(), 48);
        assert!(check(&older).await.unwrap_err().is(Code::GpuPairingInvalid));
        assert!(
            world
                .register(&older, "gx1")
                .await
                .is_err_and(|fault| fault.is(Code::GpuPairingInvalid))
        );
        check(&token).await.unwrap();
        let fault = world
            .ask::<CreatePairing>(&world.alice, &PairingRequest { worker: None })
            .await
            .unwrap_err();
        assert!(fault.is(Code::AuthPermissionDenied), "{fault}");

        // What is wrong with the box does not use the token up.
        let fault = world.register(&token, "not a name").await.err().unwrap();
        assert!(fault.is(Code::OpInvalidInput), "{fault}");
        let registered = world.register(&token, "GX1.lan").await.unwrap();
        assert_eq!(registered.worker_id, "gx1");
        assert_eq!(registered.worker_token.len(), 64);
        assert!(
            world
                .register(&token, "gx2")
                .await
                .is_err_and(|fault| fault.is(Code::GpuPairingInvalid))
        );
        assert_eq!(world.worker("gx1").await.state, WorkerState::New);

        let late = world.token().await;
        world.jump.forward(Duration::from_secs(301));
        let fault = check(&late).await.unwrap_err();
        assert!(fault.is(Code::GpuPairingInvalid), "{fault}");
        assert!(world.register(&late, "gx2").await.is_err());
        replica.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_box_with_a_model_is_the_endpoint_and_its_key_is_kept_sealed() {
    let db = sqlite().await;
    let world = World::start(&db.db).await;
    let _replica = world.replica(&[]).await;
    assert_eq!(world.gateway.call::<GetEndpoint>(&()).await.unwrap(), None);
    let provisioner = world.connect("provisioner").await;
    assert_eq!(provisioner.call::<GetInjection>(&()).await.unwrap(), None);
    let mut box_ = registration(&world.token().await, "gx1");
    box_.model = "tiny".into();
    box_.port = 8123;
    let registered = world.gateway.call::<Register>(&box_).await.unwrap();
    assert_eq!(registered.base_url, "http://127.0.0.1:8123");
    let endpoint = world.gateway.call::<GetEndpoint>(&()).await.unwrap().unwrap();
    assert_eq!(
        (endpoint.base_url.as_str(), endpoint.model.as_str()),
        ("http://127.0.0.1:8123", "tiny")
    );
    assert_eq!(endpoint.api_key.unwrap().reveal(), registered.inference_api_key);
    let injection = provisioner.call::<GetInjection>(&()).await.unwrap().unwrap();
    assert_eq!(injection.model.as_deref(), Some("tiny"));
    let settings = world.ask::<GetSettings>(&world.admin, &()).await.unwrap();
    assert!(settings.enabled && settings.configured && settings.job_quota == 5);

    // Neither a second box without a model nor one with another replaces it unasked.
    world.gx("gx2").await;
    let mut other = registration(&world.token().await, "gx3");
    other.model = "large".into();
    other.port = 8124;
    let other = world.gateway.call::<Register>(&other).await.unwrap();
    let used = async || {
        let endpoint = world.gateway.call::<GetEndpoint>(&()).await.unwrap();
        endpoint.map(|used| (used.model, used.api_key.map(|key| key.reveal().to_owned())))
    };
    let tiny = Some(("tiny".into(), Some(registered.inference_api_key.clone())));
    assert_eq!(used().await, tiny);

    // Asked for, it is the one that is used, with the key that was made for it. A key stays with its address.
    let put = async |base_url: &str, model: &str| {
        let request = PutSettingsRequest {
            enabled: true,
            base_url: base_url.into(),
            inference_model: model.into(),
            api_key: None,
            job_quota: None,
        };
        world.ask::<PutSettings>(&world.admin, &request).await.unwrap();
    };
    let large = Some(("large".into(), Some(other.inference_api_key)));
    put(&other.base_url, "large").await;
    assert_eq!(used().await, large);
    put("http://127.0.0.1:9", "else").await;
    assert_eq!(used().await, Some(("else".into(), None)));
    put(&registered.base_url, "tiny").await;
    assert_eq!(used().await, tiny);

    // Without it, the other takes its place; without any box that serves there is none.
    let gone = |name: &str| Some(name.parse().unwrap());
    world.ask::<Unpair>(&world.admin, &gone("gx1")).await.unwrap();
    assert_eq!(used().await, large);
    world.ask::<Unpair>(&world.admin, &gone("gx3")).await.unwrap();
    assert_eq!(used().await, None);
    let injection = provisioner.call::<GetInjection>(&()).await.unwrap().unwrap();
    assert_eq!(injection.model, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_credentials_replace_the_old_and_the_job_goes_on() {
    let db = sqlite().await;
    let world = World::start(&db.db).await;
    let _replica = world.replica(&[]).await;
    let old = world.gx_http("http1").await;
    let job = world.submit(&world.alice).await;
    let given = old.run().await;
    let rotate = async |worker: &str| {
        let request = PairingRequest {
            worker: Some(worker.parse().unwrap()),
        };
        world.ask::<CreatePairing>(&world.admin, &request).await
    };
    assert!(rotate("gx7").await.unwrap_err().is(Code::OpNotFound));
    let token = rotate("http1").await.unwrap().token;
    assert!(
        world
            .register(&token, "gx2")
            .await
            .is_err_and(|fault| fault.is(Code::GpuPairingInvalid))
    );
    let registered = world.register(&token, "http1").await.unwrap();
    let fault = old.beat(&[held(&given, Phase::Running)]).await.unwrap_err();
    assert!(fault.is(Code::GpuWorkerUnknown), "{fault}");
    let new = Gx::over_http(world.gateway.clone(), "http1", &registered.worker_token);
    let reply = new.beat(&[held(&given, Phase::Running)]).await.unwrap();
    assert!(reply.cancel.is_empty());
    assert!(new.finish(&given, 0).await.unwrap().counted);
    assert_eq!(world.job(job.id).await.state, JobState::Succeeded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_credential_for_the_bus_speaks_for_nobody() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let replica = world.replica(&[]).await;
        let old = world.gx("gx1").await;
        let again = async || world.register(&world.token().await, "gx1").await.unwrap();
        // What it fetched goes on under the new one; the old one learns nothing and is heard by nobody.
        let job = world.submit(&world.alice).await;
        let given = old.run().await;
        let new = world.gx_of(&again().await).await;
        for fault in [
            old.beat(&[held(&given, Phase::Running)]).await.unwrap_err(),
            old.log(&given.job, Some(0), b"forged").await.unwrap_err(),
            old.finish(&given, 0).await.unwrap_err(),
        ] {
            assert!(fault.is(Code::GpuWorkerUnknown), "{fault}");
        }
        assert!(
            new.beat(&[held(&given, Phase::Running)])
                .await
                .unwrap()
                .cancel
                .is_empty()
        );
        assert!(new.finish(&given, 0).await.unwrap().counted);
        assert_eq!(world.job(job.id).await.state, JobState::Succeeded);

        // What it was given and had not fetched comes to the new one.
        let waiting = world.submit(&world.alice).await;
        world.until(waiting.id, JobState::Running).await;
        let newest = world.gx_of(&again().await).await;
        for _ in 0..5 {
            newest.beat(&[]).await.unwrap();
        }
        assert_eq!(crate::gx::id(&newest.run().await), waiting.id);

        // Nor does unpairing and pairing anew make it good again.
        world.ask::<Unpair>(&world.admin, &None).await.unwrap();
        let last = world.gx("gx1").await;
        for before in [&old, &new, &newest] {
            let fault = before.beat(&[]).await.unwrap_err();
            assert!(fault.is(Code::GpuWorkerUnknown), "{fault}");
        }
        last.beat(&[]).await.unwrap();
        replica.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unpaired_box_is_nobody_and_its_jobs_are_cancelled() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let replica = world.replica(&[]).await;
        let (one, two) = (world.gx("gx1").await, world.gx("gx2").await);
        let (first, second, third) = (
            world.submit(&world.alice).await,
            world.submit(&world.alice).await,
            world.submit(&world.alice).await,
        );
        let job = one.run().await;
        two.run().await;
        let unpaired = world
            .ask::<Unpair>(&world.admin, &Some("gx1".parse().unwrap()))
            .await
            .unwrap();
        assert_eq!((unpaired.cancelled_jobs, unpaired.workers.len()), (1, 1));
        assert_eq!(one.told().await.cancel, std::slice::from_ref(&job.job));
        let cancelled = world.job(first.id).await;
        assert_eq!(
            (cancelled.state, cancelled.error.as_deref()),
            (JobState::Cancelled, Some("cancelled at GX10 unpair"))
        );
        assert_eq!(
            world.job(third.id).await.state,
            JobState::Queued,
            "the other box is there"
        );
        for fault in [
            one.beat(&[held(&job, Phase::Running)]).await.unwrap_err(),
            one.log(&job.job, Some(0), b"x").await.unwrap_err(),
            one.finish(&job, 0).await.unwrap_err(),
        ] {
            assert!(fault.is(Code::GpuWorkerUnknown), "{fault}");
        }
        let unpaired = world.ask::<Unpair>(&world.admin, &None).await.unwrap();
        assert_eq!((unpaired.cancelled_jobs, unpaired.workers.len()), (2, 1));
        for job in [second.id, third.id] {
            assert_eq!(world.job(job).await.state, JobState::Cancelled);
        }
        let settings = world.ask::<GetSettings>(&world.admin, &()).await.unwrap();
        assert!(!settings.enabled && !settings.configured && settings.workers.is_empty());
        let fault = world
            .ask::<Unpair>(&world.admin, &Some("gx1".parse().unwrap()))
            .await
            .unwrap_err();
        assert!(fault.is(Code::OpNotFound), "{fault}");
        replica.stop().await;
    })
    .await;
}
