//! Volumes outlive containers and are found by their labels.

use nimbus_engine::{Engine, EngineError, Remove, VolumeMount};

use crate::world::with_world;

#[tokio::test]
async fn what_one_container_writes_another_reads() {
    with_world(|world| async move {
        let engine = &world.engine;
        let name = world.fresh("v");
        let made = engine
            .ensure_volume(&name, &world.labels())
            .await
            .expect("a volume");
        let again = engine
            .ensure_volume(&name, &world.labels())
            .await
            .expect("the same volume");
        assert_eq!(made, again);
        assert!(
            made.mountpoint.starts_with('/') && made.labels == world.labels(),
            "{made:?}"
        );

        let mount = |read_only| {
            let mut spec = world.command(&[]);
            spec.volumes = vec![VolumeMount {
                name: name.clone(),
                target: "/data".into(),
                read_only,
            }];
            spec
        };
        let (code, _) = world.says(mount(false), "echo kept >/data/file").await;
        assert_eq!(code, 0);
        let (code, said) = world
            .says(mount(true), "cat /data/file; echo no >/data/file")
            .await;
        assert!(
            code != 0 && said.starts_with("kept\n") && said.contains("Read-only"),
            "{said}"
        );

        let used = engine.remove_volume(&name).await.expect_err("a container has it");
        assert!(matches!(used, EngineError::Conflict { .. }), "{used}");
        for found in engine.list(&world.labels()).await.expect("a list") {
            engine
                .remove(&found.id, Remove::ALL)
                .await
                .expect("it is removed");
        }
        let listed = engine.list_volumes(&world.labels()).await.expect("a list");
        assert_eq!(listed, [made], "a named volume stays when its containers go");
        engine.remove_volume(&name).await.expect("it is removed");
        engine
            .remove_volume(&name)
            .await
            .expect("removing twice is removing once");
        assert!(
            engine
                .list_volumes(&world.labels())
                .await
                .expect("a list")
                .is_empty()
        );
    })
    .await;
}

#[tokio::test]
async fn a_name_that_is_none_is_refused() {
    with_world(|world| async move {
        let error = world
            .engine
            .ensure_volume("../up", &world.labels())
            .await
            .expect_err("a path is no name");
        assert!(
            matches!(error, EngineError::Refused { .. } | EngineError::Failed { .. }),
            "{error}"
        );
    })
    .await;
}
