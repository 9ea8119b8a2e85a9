//! Copies of streams.

use std::time::Duration;

use nimbus_bus::{BusError, Grants};

use crate::world::*;

#[tokio::test]
async fn one_server_keeps_one_copy_and_says_so_when_asked_for_more() {
    let world = World::start().await;
    let root = world.root("admin").await;
    root.ensure_streams().await.unwrap();
    assert_eq!(root.set_replicas(1).await.unwrap(), Vec::<String>::new());
    let error = root.set_replicas(3).await.unwrap_err();
    assert!(matches!(error, BusError::Storage { .. }), "{error}");

    // A service has no say in it.
    let service = world.client("ippool", &Grants::default().leasing()).await;
    service.lease("ippool.x", Duration::from_secs(5)).await.unwrap();
    let error = service.set_replicas(1).await.unwrap_err();
    assert!(matches!(error, BusError::Permission { .. }), "{error}");
}
