//! What is there, asked from outside.

use std::time::Duration;

use nimbus_bus::Grants;

use crate::world::*;

const PATIENCE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn instances_streams_and_leases_are_found_with_that_right_alone() {
    let world = World::start().await;
    let service = world
        .client("ippool", &Grants::default().serving("ippool").leasing())
        .await;
    let _first = service
        .serve("ippool", "1.2.3", "addresses")
        .start()
        .await
        .unwrap();
    let other = world
        .client("ippool", &Grants::default().serving("ippool").leasing())
        .await;
    let _second = other.serve("ippool", "1.2.4", "addresses").start().await.unwrap();
    let held = service
        .lease("ippool.scan", Duration::from_secs(30))
        .await
        .unwrap()
        .unwrap();
    let released = service
        .lease("ippool.reconcile", Duration::from_secs(30))
        .await
        .unwrap()
        .unwrap();
    released.release().await;

    let grants = Grants {
        surveys: true,
        ..Grants::default()
    };
    let looker = world.client("looker", &grants).await;
    let survey = looker.survey(PATIENCE).await.unwrap();

    let mut versions: Vec<_> = survey
        .instances
        .iter()
        .map(|one| (one.service.as_str(), one.version.as_str()))
        .collect();
    versions.sort_unstable();
    assert_eq!(versions, [("ippool", "1.2.3"), ("ippool", "1.2.4")]);
    for one in &survey.instances {
        assert_eq!(one.pid, Some(std::process::id()));
        assert!(one.started.contains('T'), "{one:?}");
    }
    let names: Vec<_> = survey.leases.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, [held.name()], "one that was given back is not held");
    assert_eq!(survey.leases[0].holder, "ippool");
    assert!(survey.leases[0].renewed_at.is_some());
    assert!(
        survey
            .streams
            .iter()
            .any(|one| one.name == "KV_leases" && one.replicas == 1)
    );
}

#[tokio::test]
async fn without_the_right_it_is_refused() {
    let world = World::start().await;
    let nobody = world.client("nobody", &Grants::default()).await;
    assert!(nobody.survey(PATIENCE).await.is_err());
}
