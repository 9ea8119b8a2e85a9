//! Images come from a registry, or it is said why not.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use nimbus_engine::{
    Engine, EngineConfig, EngineError, Image, Pull, PullPolicy, PullProgress, RegistryAuth, discover,
};
use nimbus_model::ImageRef;
use serde_json::json;

use crate::registry::{Options, Registry, load};
use crate::relay::Relay;
use crate::world::{World, with_world};

async fn pull(world: &World, text: &str, pull: &Pull) -> Result<Image, EngineError> {
    world.owns(text);
    world
        .engine
        .ensure_image(&text.parse().expect("a reference"), pull)
        .await
}

#[tokio::test]
async fn by_tag_and_by_digest() {
    with_world(|world| async move {
        let registry = Registry::start(Options::default()).await;
        let digest = registry.publish(&world, "acme/web", "v1").await;
        let tagged = format!("{}/acme/web:v1", registry.address);
        let never = Pull {
            policy: PullPolicy::Never,
            ..Pull::default()
        };
        let absent = pull(&world, &tagged, &never)
            .await
            .expect_err("it is not present");
        assert!(matches!(absent, EngineError::ImageNotFound { .. }), "{absent}");

        let seen = Arc::new(Mutex::new(Vec::<PullProgress>::new()));
        let told = Arc::clone(&seen);
        let watched = Pull {
            progress: Some(Arc::new(move |progress| {
                told.lock().expect("no panic").push(progress)
            })),
            ..Pull::default()
        };
        let image = pull(&world, &tagged, &watched).await.expect("it is pulled");
        assert_eq!(image.digest.as_str(), digest);
        assert_eq!(image.config.cmd, ["/hello"]);
        assert_ne!(image.digest, image.id, "the manifest is not the configuration");
        let last = seen.lock().expect("no panic").last().copied().expect("progress");
        assert_eq!((last.layers, last.layers_done), (1, 1), "{last:?}");

        let again = pull(&world, &tagged, &never).await.expect("it is present");
        assert_eq!(again, image);
        let pinned = format!("{}/acme/web@{digest}", registry.address);
        let by_digest = pull(&world, &pinned, &never)
            .await
            .expect("it is present under its digest");
        assert_eq!((by_digest.id, by_digest.digest), (image.id.clone(), image.digest));

        let listed = world.engine.images().await.expect("images");
        let listed = listed
            .iter()
            .find(|found| found.id == image.id)
            .expect("it is listed");
        assert!(
            listed.digests.iter().any(|found| found.as_str() == digest),
            "{listed:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_digest_is_pulled_without_a_tag() {
    with_world(|world| async move {
        let registry = Registry::start(Options::default()).await;
        let digest = registry.publish(&world, "web", "v1").await;
        let pinned = format!("{}/web@{digest}", registry.address);
        let image = pull(&world, &pinned, &Pull::default())
            .await
            .expect("it is pulled");
        assert_eq!(image.digest.as_str(), digest);
        assert_eq!(image.reference, pinned.parse::<ImageRef>().expect("a reference"));
    })
    .await;
}

#[tokio::test]
async fn what_the_registry_does_not_have_is_not_found() {
    with_world(|world| async move {
        let registry = Registry::start(Options::default()).await;
        registry.publish(&world, "web", "v1").await;
        for name in [
            "web:v2".to_owned(),
            "other:v1".to_owned(),
            format!("web@sha256:{}", "0".repeat(64)),
        ] {
            let error = pull(&world, &format!("{}/{name}", registry.address), &Pull::default())
                .await
                .expect_err("it is not there");
            assert!(matches!(error, EngineError::ImageNotFound { .. }), "{error}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_registry_that_wants_credentials_gets_them() {
    with_world(|world| async move {
        let registry = Registry::start(Options {
            auth: true,
            ..Options::default()
        })
        .await;
        registry.publish(&world, "private", "v1").await;
        let name = format!("{}/private:v1", registry.address);
        let with = |auth| Pull {
            auth,
            ..Pull::default()
        };
        let wrong = RegistryAuth {
            username: "pull".into(),
            password: "guess".into(),
        };
        for auth in [None, Some(wrong)] {
            let error = pull(&world, &name, &with(auth)).await.expect_err("it is private");
            assert!(matches!(error, EngineError::PullRefused { .. }), "{error}");
            assert!(!format!("{error} {error:?}").contains("guess"));
        }
        pull(&world, &name, &with(Some(registry.auth())))
            .await
            .expect("it is pulled");
        let always = Pull {
            policy: PullPolicy::Always,
            ..Pull::default()
        };
        let error = pull(&world, &name, &always)
            .await
            .expect_err("the registry is asked again");
        assert!(matches!(error, EngineError::PullRefused { .. }), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_registry_with_tls() {
    with_world(|world| async move {
        let registry = Registry::start(Options {
            tls: true,
            auth: true,
        })
        .await;
        let digest = registry.publish(&world, "web", "v1").await;
        let with = Pull {
            auth: Some(registry.auth()),
            ..Pull::default()
        };
        let image = pull(&world, &format!("{}/web:v1", registry.address), &with)
            .await
            .expect("it is pulled");
        assert_eq!(image.digest.as_str(), digest);
    })
    .await;
}

#[tokio::test]
async fn a_registry_that_hangs_or_is_away() {
    with_world(|world| async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("bound");
        let hung = tokio::spawn(async move {
            let mut kept = Vec::new();
            loop {
                kept.push(listener.accept().await);
            }
        });
        let quick = Pull {
            timeout: Some(Duration::from_millis(500)),
            ..Pull::default()
        };
        let error = pull(&world, &format!("{address}/web:v1"), &quick)
            .await
            .expect_err("nobody answers");
        assert!(matches!(error, EngineError::PullTimeout { .. }), "{error}");
        hung.abort();
        let _ = hung.await;
        let error = pull(&world, &format!("{address}/web:v2"), &Pull::default())
            .await
            .expect_err("nobody listens");
        assert!(matches!(error, EngineError::PullFailed { .. }), "{error}");
    })
    .await;
}

#[tokio::test]
async fn pulls_of_one_image_at_once_are_one() {
    with_world(|world| async move {
        let registry = Registry::start(Options::default()).await;
        let digest = registry.publish(&world, "web", "v1").await;
        let name = format!("{}/web:v1", registry.address);
        world.owns(&name);
        let socket = world.dir.path().join("engine.sock").into_std_path_buf();
        let relay = Relay::start(&socket, world.socket());
        let engine = discover(&EngineConfig {
            url: Some(format!("unix://{}", socket.display())),
            state_dir: Some(world.dir.path().as_std_path().to_owned()),
            ..EngineConfig::default()
        })
        .await
        .expect("the engine behind the relay");
        let reference: ImageRef = name.parse().expect("a reference");
        let always = Pull {
            policy: PullPolicy::Always,
            ..Pull::default()
        };
        // One that stops waiting takes nothing away from the others.
        let impatient = engine.ensure_image(&reference, &always);
        drop(futures::poll!(Box::pin(impatient)));
        let pulled =
            futures::future::join_all((0..8).map(|_| engine.ensure_image(&reference, &always))).await;
        for image in pulled {
            assert_eq!(image.expect("it is pulled").digest.as_str(), digest);
        }
        assert_eq!(relay.pulls(), 1);
    })
    .await;
}

#[tokio::test]
async fn what_an_image_says_is_read_and_another_platform_is_refused() {
    with_world(|world| async move {
        let never = Pull {
            policy: PullPolicy::Never,
            ..Pull::default()
        };
        let name = format!("nimbus.test/{}", world.fresh("i"));
        let says = json!({
            "Entrypoint": ["/e"],
            "Cmd": ["a", "b"],
            "Env": ["K=v w"],
            "WorkingDir": "/w",
            "User": "5:6",
            "ExposedPorts": {"80/tcp": {}},
            "Labels": {"io.nimbus.desktop": "provided"},
            "StopSignal": "SIGINT",
            "Volumes": {"/data": {}},
            "Healthcheck": {"Test": ["CMD-SHELL", "exit 0"], "Interval": 3_000_000_000u64, "Retries": 2},
        });
        let ours = world.engine.facts().await.expect("facts").arch;
        load(&world, &format!("{name}:1"), &ours, says).await;
        let image = pull(&world, &format!("{name}:1"), &never)
            .await
            .expect("it is present");
        let config = image.config;
        assert_eq!(config.entrypoint, ["/e"]);
        assert_eq!(config.cmd, ["a", "b"]);
        assert!(config.env.contains(&"K=v w".to_owned()), "{:?}", config.env);
        assert_eq!((config.workdir.as_str(), config.user.as_str()), ("/w", "5:6"));
        assert_eq!(config.exposed_ports, ["80/tcp"]);
        assert_eq!(config.volumes, ["/data"]);
        assert_eq!(
            config.labels.get("io.nimbus.desktop").map(String::as_str),
            Some("provided")
        );
        assert_eq!(
            config.stop_signal.map(|signal| signal.to_string()).as_deref(),
            Some("SIGINT")
        );
        let check = config.healthcheck.expect("a check");
        assert_eq!(check.argv, ["/bin/sh", "-c", "exit 0"]);
        assert_eq!(
            (check.interval, check.retries),
            (Some(Duration::from_secs(3)), Some(2))
        );

        load(&world, &format!("{name}:2"), "s390x", json!({})).await;
        let error = pull(&world, &format!("{name}:2"), &never)
            .await
            .expect_err("it is of another platform");
        assert!(matches!(error, EngineError::WrongPlatform { .. }), "{error}");
        assert!(error.to_string().contains("linux/s390x"), "{error}");
    })
    .await;
}
