//! Made, started, ended, removed.

use std::time::Duration;

use nimbus_engine::{
    Bind, ContainerId, Engine, EngineError, EngineEvent, EventKind, Labels, Limits, Remove, Signal,
};

use crate::events::until;
use crate::world::{LIMITS, with_world};

#[tokio::test]
async fn a_container_is_made_runs_ends_and_is_gone() {
    with_world(|world| async move {
        let engine = &world.engine;
        let spec = world.script("trap 'exit 7' TERM; while :; do sleep 0.1; done");
        let id = world.create(&spec).await;
        let made = engine.inspect(&id).await.expect("it is there");
        assert!(
            !made.running && made.pid.is_none() && made.exit_code.is_none(),
            "{made:?}"
        );
        assert_eq!(made.name, spec.name);
        assert_eq!(made.image.as_ref(), Some(&spec.image));

        engine.start(&id).await.expect("it starts");
        engine.start(&id).await.expect("starting twice is starting once");
        let running = engine.inspect(&id).await.expect("it is there");
        assert!(
            running.running && running.pid.is_some() && running.started_at.is_some(),
            "{running:?}"
        );

        engine
            .stop(&id, None, Duration::from_secs(10))
            .await
            .expect("it stops");
        engine
            .stop(&id, None, Duration::ZERO)
            .await
            .expect("stopping twice is stopping once");
        let ended = engine.inspect(&id).await.expect("it is there");
        assert_eq!(
            (ended.running, ended.exit_code, ended.pid),
            (false, Some(7), None)
        );
        assert!(
            ended.finished_at >= ended.started_at && !ended.oom_killed,
            "{ended:?}"
        );

        engine
            .remove(&id, Remove::default())
            .await
            .expect("it is removed");
        engine
            .remove(&id, Remove::default())
            .await
            .expect("removing twice is removing once");
        assert!(engine.inspect(&id).await.expect_err("it is gone").is_not_found());
    })
    .await;
}

#[tokio::test]
async fn a_signal_is_sent_first_and_who_ignores_it_is_killed() {
    with_world(|world| async move {
        let polite = world
            .run(&world.script("trap 'exit 3' USR1; while :; do sleep 0.1; done"))
            .await;
        let stubborn = world
            .run(&world.script("trap '' USR1; while :; do sleep 0.1; done"))
            .await;
        let signal: Signal = "SIGUSR1".parse().expect("a signal");
        // Both traps are set once the shells have come to their first sleep.
        for id in [&polite, &stubborn] {
            until_children(&world, id).await;
        }
        let stop = |id: ContainerId, grace| {
            let (engine, signal) = (world.engine.clone(), signal.clone());
            async move { engine.stop(&id, Some(&signal), grace).await.expect("it stops") }
        };
        stop(polite.clone(), Duration::from_secs(20)).await;
        stop(stubborn.clone(), Duration::from_millis(300)).await;
        stop(stubborn.clone(), Duration::from_millis(300)).await;
        let code = async |id| world.engine.inspect(id).await.expect("it is there").exit_code;
        assert_eq!(code(&polite).await, Some(3));
        assert_eq!(code(&stubborn).await, Some(137));
    })
    .await;
}

/// Waits until the first process has started another one.
async fn until_children(world: &crate::world::World, id: &ContainerId) {
    let waited = tokio::time::timeout(crate::world::PATIENCE, async {
        while world.engine.stats(id).await.expect("it runs").pids < 2 {
            tokio::task::yield_now().await;
        }
    });
    waited.await.expect("the script runs");
}

#[tokio::test]
async fn what_cannot_be_done_says_why() {
    with_world(|world| async move {
        let engine = &world.engine;
        let spec = world.script("exit 0");
        let id = world.create(&spec).await;
        let taken = engine.create(&spec).await.expect_err("the name is taken");
        assert!(matches!(taken, EngineError::Conflict { .. }), "{taken}");

        let idle = engine
            .kill(&id, &Signal::term())
            .await
            .expect_err("it does not run");
        assert!(matches!(idle, EngineError::Conflict { .. }), "{idle}");
        let idle = engine.stats(&id).await.expect_err("it does not run");
        assert!(matches!(idle, EngineError::Conflict { .. }), "{idle}");

        let mut unknown = world.script("exit 0");
        unknown.image = format!("sha256:{}", "0".repeat(64)).parse().expect("a digest");
        let unknown = engine.create(&unknown).await.expect_err("there is no such image");
        assert!(matches!(unknown, EngineError::ImageNotFound { .. }), "{unknown}");

        let mut nowhere = world.script("exit 0");
        nowhere.binds = vec![Bind {
            source: world.dir.path().join("absent").to_string(),
            target: "/x".into(),
        }];
        // Podman makes an empty directory there.
        if !world.podman {
            let nowhere = engine.create(&nowhere).await.expect_err("there is no such path");
            assert!(matches!(nowhere, EngineError::Refused { .. }), "{nowhere}");
        }

        let absent = world.create(&world.command(&["/no/such/program"])).await;
        let absent = engine.start(&absent).await.expect_err("there is no such program");
        assert!(matches!(absent, EngineError::Launch { .. }), "{absent}");

        let running = world.run(&world.script("sleep 600")).await;
        let busy = engine
            .remove(&running, Remove::default())
            .await
            .expect_err("it runs");
        assert!(matches!(busy, EngineError::Conflict { .. }), "{busy}");
        engine
            .remove(&running, Remove::ALL)
            .await
            .expect("force removes it");

        let nobody = ContainerId::new("no-such-container");
        assert!(
            engine
                .start(&nobody)
                .await
                .expect_err("there is none")
                .is_not_found()
        );
        assert!(
            engine
                .kill(&nobody, &Signal::term())
                .await
                .expect_err("there is none")
                .is_not_found()
        );
    })
    .await;
}

#[tokio::test]
async fn many_are_made_at_once_and_found_by_their_labels() {
    with_world(|world| async move {
        let specs: Vec<_> = (0..6)
            .map(|n: u32| {
                let mut spec = world.script("sleep 600");
                spec.labels.insert("n".to_owned(), n.to_string());
                spec
            })
            .collect();
        let made = futures::future::join_all(specs.iter().map(|spec| world.run(spec))).await;
        let all = world.engine.list(&world.labels()).await.expect("a list");
        assert_eq!(all.len(), made.len());
        assert!(
            all.iter().all(|found| found.running && made.contains(&found.id)),
            "{all:?}"
        );
        let mut third = world.labels();
        third.insert("n".to_owned(), "3".to_owned());
        let third = world.engine.list(&third).await.expect("a list");
        let names: Vec<&str> = third.iter().map(|found| found.name.as_str()).collect();
        assert_eq!(names, [specs[3].name.as_str()]);
        let none = Labels::from([(crate::world::LABEL.to_owned(), "nobody's".to_owned())]);
        assert!(world.engine.list(&none).await.expect("a list").is_empty());
    })
    .await;
}

#[tokio::test]
async fn who_takes_too_much_memory_is_killed_for_it() {
    with_world(|world| async move {
        let mut events = world.engine.events(&world.labels());
        until(&mut events, |event| matches!(event, EngineEvent::Back)).await;
        // tail keeps all of a file that never ends its line.
        let mut spec = world.command(&["/bin/busybox", "tail", "/dev/zero"]);
        spec.limits.memory_bytes = 16 << 20;
        let (id, state) = world.outcome(&spec).await;
        assert_eq!(state.exit_code, Some(137), "{state:?}");
        if world.podman {
            // It does not always learn of it on cgroup 1.
            return;
        }
        assert_eq!(
            (state.oom_killed, state.exit_code),
            (true, Some(137)),
            "{state:?}"
        );
        let killed = until(&mut events, |event| {
            matches!(
                event,
                EngineEvent::Container {
                    kind: EventKind::OutOfMemory,
                    ..
                }
            )
        })
        .await;
        assert!(matches!(killed, EngineEvent::Container { id: which, .. } if which == id));
    })
    .await;
}

#[tokio::test]
async fn who_makes_too_many_processes_is_refused_more() {
    with_world(|world| async move {
        let mut spec = world.command(&[]);
        spec.limits.pids = 8;
        let (code, said) = world
            .says(
                spec,
                "i=0; while [ $i -lt 20 ]; do sleep 600 & i=$((i + 1)); done",
            )
            .await;
        assert_ne!(code, 0);
        assert!(said.contains("fork"), "{said}");
    })
    .await;
}

#[tokio::test]
async fn limits_change_while_it_runs() {
    with_world(|world| async move {
        let id = world.run(&world.script("sleep 600")).await;
        let before = world.engine.stats(&id).await.expect("it runs");
        assert_eq!(before.memory_limit_bytes, LIMITS.memory_bytes);
        assert!(
            before.memory_bytes > 0 && before.memory_bytes < LIMITS.memory_bytes,
            "{before:?}"
        );
        for memory_bytes in [256 << 20, 32 << 20] {
            let limits = Limits {
                millicpus: 1500,
                memory_bytes,
                pids: 100,
                disk_bytes: None,
            };
            let changed = world.engine.update_limits(&id, &limits).await;
            if world.podman && matches!(changed, Err(EngineError::Unsupported { .. })) {
                // It has the call since version 4.5.
                return;
            }
            changed.expect("the limits change");
            let after = world.engine.stats(&id).await.expect("it runs");
            assert_eq!(after.memory_limit_bytes, memory_bytes);
            let host = &world.raw(&id).await["HostConfig"];
            assert_eq!(host["MemorySwap"], memory_bytes);
            assert_eq!(host["NanoCpus"], 1_500_000_000u64);
            assert_eq!(host["PidsLimit"], 100);
        }
    })
    .await;
}

#[tokio::test]
async fn what_it_writes_is_counted() {
    with_world(|world| async move {
        let (small, _) = world.outcome(&world.script("true")).await;
        let (large, _) = world
            .outcome(&world.script("head -c 3000000 /dev/zero >/tmp/big"))
            .await;
        let size = async |id| world.engine.size(id).await.expect("a size");
        assert!(size(&small).await < 100_000, "{}", size(&small).await);
        let large = size(&large).await;
        assert!((3_000_000..3_100_000).contains(&large), "{large}");
    })
    .await;
}

#[tokio::test]
async fn the_engine_is_known_and_lacks_nothing() {
    with_world(|world| async move {
        let facts = world.engine.facts().await.expect("facts");
        assert_eq!(facts.missing, Vec::<String>::new());
        assert!(
            facts.seccomp && facts.cpus > 0 && facts.memory_bytes > 0,
            "{facts:?}"
        );
        assert!(
            !facts.version.is_empty() && !facts.storage_driver.is_empty(),
            "{facts:?}"
        );
        let images = world.engine.images().await.expect("images");
        let busybox = images
            .iter()
            .find(|image| image.id == world.image.id)
            .expect("it is listed");
        assert!(busybox.references.contains(&world.image.reference), "{busybox:?}");
    })
    .await;
}
