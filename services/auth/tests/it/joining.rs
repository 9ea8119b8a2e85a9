//! Hosts that join.

use std::sync::Arc;
use std::time::Duration;

use nimbus_auth::BusMint;
use nimbus_errors::Code;
use nimbus_proto::auth::{CreateJoinToken, JoinHost, JoinHostRequest, JoinTokenRequest, Secret};
use nimbus_store::testing::on_both;

use crate::world::World;

fn mint(world: &World) -> BusMint {
    BusMint {
        authority: Some(Arc::clone(&world.authority)),
        public_url: Some("tls://nimbus.example.org:4222".into()),
        ca_pem: None,
    }
}

fn joining(token: &Secret, host: &str) -> JoinHostRequest {
    JoinHostRequest {
        token: token.clone(),
        host: host.parse().unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_lets_one_host_in_once() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let _replica = world
            .replica_that_mints(&["--login-burst", "0"], mint(&world))
            .await
            .unwrap();
        // The first user administers.
        let (ada, _) = world.member("ada@example.org").await;
        let (bob, _) = world.member("bob@example.org").await;
        let ask = |who, host: Option<&str>| {
            let request = JoinTokenRequest {
                host: host.map(|host| host.parse().unwrap()),
            };
            let call = world.gateway.call::<CreateJoinToken>(&request);
            async move { call.on_behalf_of(who).await }
        };
        assert!(ask(&bob, None).await.unwrap_err().is(Code::AuthPermissionDenied));

        let any = ask(&ada, None).await.unwrap();
        assert!(any.token.reveal().starts_with("nimbus_jt_") && any.expires_in_s == 900);
        let join = async |token: &Secret, host| world.gateway.call::<JoinHost>(&joining(token, host)).await;
        let minted = join(&any.token, "host-a").await.unwrap();
        assert_eq!(minted.url, "tls://nimbus.example.org:4222");
        assert!(minted.credentials.reveal().contains("BEGIN NATS USER JWT"));
        let again = join(&any.token, "host-a").await.unwrap_err();
        assert!(again.is(Code::AuthUnauthorized), "used up: {again:?}");

        // One for a certain host is no other's, and is still good after the wrong one tried.
        let bound = ask(&ada, Some("host-b")).await.unwrap();
        assert!(join(&bound.token, "host-c").await.is_err());
        assert!(join(&bound.token, "host-b").await.is_ok());

        let old = ask(&ada, None).await.unwrap();
        world.jump.forward(Duration::from_secs(901));
        assert!(
            join(&old.token, "host-d")
                .await
                .unwrap_err()
                .is(Code::AuthUnauthorized)
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_joins_where_the_bus_is_not_reached_from_outside() {
    let db = nimbus_store::testing::sqlite().await;
    let world = World::start(&db.db).await;
    let _replica = world.replica().await;
    let (ada, _) = world.member("ada@example.org").await;
    let request = JoinTokenRequest { host: None };
    let refused = world
        .gateway
        .call::<CreateJoinToken>(&request)
        .on_behalf_of(&ada)
        .await
        .unwrap_err();
    assert!(refused.is(Code::OpConflict), "{refused:?}");
    let stranger = joining(&Secret::new("nimbus_jt_00ff"), "host-a");
    assert!(
        world
            .gateway
            .call::<JoinHost>(&stranger)
            .await
            .unwrap_err()
            .is(Code::OpConflict)
    );
}
