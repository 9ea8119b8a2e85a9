//! What happens is told, and an engine that comes and goes is noticed.

use futures::StreamExt;
use futures::stream::BoxStream;
use nimbus_engine::{ContainerId, Engine, EngineConfig, EngineEvent, EventKind, Remove, discover};

use crate::relay::Relay;
use crate::world::{PATIENCE, with_world};

/// The next event that is wanted; others are passed over.
pub(crate) async fn until(
    events: &mut BoxStream<'static, EngineEvent>,
    wanted: impl Fn(&EngineEvent) -> bool,
) -> EngineEvent {
    let mut seen = Vec::new();
    let found = tokio::time::timeout(PATIENCE, async {
        while let Some(event) = events.next().await {
            if wanted(&event) {
                return Some(event);
            }
            seen.push(event);
        }
        None
    });
    match found.await {
        Ok(Some(event)) => event,
        _ => panic!("the event did not come; there were {seen:?}"),
    }
}

fn about(id: &ContainerId, kind: EventKind) -> impl Fn(&EngineEvent) -> bool {
    move |event| matches!(event, EngineEvent::Container { id: which, kind: what, .. } if which == id && *what == kind)
}

#[tokio::test]
async fn a_containers_life_is_told_to_who_asked_for_its_label() {
    with_world(|world| async move {
        let mut events = world.engine.events(&world.labels());
        assert_eq!(events.next().await, Some(EngineEvent::Back));
        let mut stranger = world.script("exit 0");
        stranger
            .labels
            .insert(crate::world::LABEL.to_owned(), "somebody else".to_owned());
        let (stranger, _) = world.outcome(&stranger).await;
        world
            .engine
            .remove(&stranger, Remove::ALL)
            .await
            .expect("it is removed");

        let spec = world.script("exit 5");
        let (id, _) = world.outcome(&spec).await;
        world
            .engine
            .remove(&id, Remove::ALL)
            .await
            .expect("it is removed");
        let mut kinds = Vec::new();
        while kinds.last() != Some(&EventKind::Destroyed) {
            match until(&mut events, |_| true).await {
                EngineEvent::Container {
                    id: which,
                    kind,
                    labels,
                    ..
                } => {
                    assert_eq!(
                        (which, labels.get(crate::world::LABEL)),
                        (id.clone(), world.labels().values().next())
                    );
                    kinds.push(kind);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(
            kinds,
            [
                EventKind::Started,
                EventKind::Died { exit_code: Some(5) },
                EventKind::Destroyed
            ]
        );
    })
    .await;
}

#[tokio::test]
async fn an_engine_that_goes_and_comes_back_is_noticed_and_followed_again() {
    with_world(|world| async move {
        let socket = world.dir.path().join("engine.sock").into_std_path_buf();
        let relay = Relay::start(&socket, world.socket());
        let config = EngineConfig {
            url: Some(format!("unix://{}", socket.display())),
            state_dir: Some(world.dir.path().as_std_path().to_owned()),
            ..EngineConfig::default()
        };
        let engine = discover(&config).await.expect("the engine behind the relay");
        let mut events = engine.events(&world.labels());
        assert_eq!(events.next().await, Some(EngineEvent::Back));
        let id = world.run(&world.script("sleep 600")).await;
        until(&mut events, about(&id, EventKind::Started)).await;

        relay.cut();
        until(&mut events, |event| matches!(event, EngineEvent::Gone { .. })).await;
        let error = engine.inspect(&id).await.expect_err("the engine is away");
        assert!(
            matches!(error, nimbus_engine::EngineError::Unavailable { .. }),
            "{error}"
        );

        let _relay = Relay::start(&socket, world.socket());
        until(&mut events, |event| matches!(event, EngineEvent::Back)).await;
        assert!(engine.inspect(&id).await.expect("the engine is back").running);
        world
            .engine
            .remove(&id, Remove::ALL)
            .await
            .expect("it is removed");
        until(&mut events, about(&id, EventKind::Destroyed)).await;
    })
    .await;
}
