//! Personal access tokens.

use std::time::Duration;

use nimbus_bus::{Caller, Scope, Verify};
use nimbus_errors::{Code, Fault};
use nimbus_proto::auth::{
    CreateToken, CreateTokenRequest, CreatedToken, ListSessions, ListTokens, Logout, LogoutRequest,
    RevokeToken, Secret, Token,
};
use nimbus_store::testing::{on_both, sqlite};

use crate::world::{World, caller, refused};

async fn create(
    world: &World,
    by: &Caller,
    name: &str,
    scopes: &[Scope],
    days: Option<u32>,
) -> Result<CreatedToken, Fault> {
    let request = CreateTokenRequest {
        name: name.into(),
        scopes: scopes.to_vec(),
        expires_in_days: days,
    };
    world.gateway.call::<CreateToken>(&request).on_behalf_of(by).await
}

async fn list(world: &World, by: &Caller) -> Vec<Token> {
    world
        .gateway
        .call::<ListTokens>(&())
        .on_behalf_of(by)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_from_making_to_revoking() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let _replica = world.replica().await;
        let (ada, _) = world.member("ada@example.org").await;
        let (bob, _) = world.member("bob@example.org").await;

        let made = create(&world, &ada, " laptop ", &[], Some(30)).await.unwrap();
        assert_eq!(
            (made.token.name.as_str(), made.token.scopes.as_slice()),
            ("laptop", [Scope::MachinesRead, Scope::MachinesWrite].as_slice())
        );
        assert!(made.secret.reveal().starts_with(&made.token.prefix));
        assert!(
            create(&world, &ada, "laptop", &[], None)
                .await
                .unwrap_err()
                .is(Code::OpAlreadyExists)
        );
        assert!(
            create(&world, &bob, "laptop", &[], None).await.is_ok(),
            "names are unique per user"
        );
        assert_eq!(list(&world, &ada).await, std::slice::from_ref(&made.token));

        let exchanged = world.exchange_token(&made.secret).await.unwrap();
        assert!(
            !exchanged.identity.admin,
            "an administrator's token is not one by itself"
        );
        assert_eq!(
            (exchanged.identity.token, exchanged.identity.session),
            (Some(made.token.id), None)
        );
        assert!(list(&world, &ada).await[0].last_used_at.is_some());
        let script = caller(exchanged);
        let verifier = world.verifier().await;
        assert_eq!(
            verifier.verify(script.token.reveal()).await.unwrap(),
            script.identity
        );

        let revoke = |by| world.gateway.call::<RevokeToken>(&made.token.id).on_behalf_of(by);
        assert!(revoke(&bob).await.unwrap_err().is(Code::OpNotFound));
        revoke(&ada).await.unwrap();
        assert!(revoke(&ada).await.unwrap_err().is(Code::OpNotFound));
        assert!(
            world
                .exchange_token(&made.secret)
                .await
                .unwrap_err()
                .is(Code::AuthUnauthorized)
        );
        assert!(refused(&verifier, &script).await.is(Code::AuthUnauthorized));
        assert!(list(&world, &ada).await.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_token_allows_more_than_its_maker_may() {
    let db = sqlite().await;
    let world = World::start(&db.db).await;
    let _replica = world.replica().await;
    let (admin, _) = world.member("ada@example.org").await;
    let (member, _) = world.member("bob@example.org").await;
    let fault = create(&world, &member, "root", &[Scope::Admin], None)
        .await
        .unwrap_err();
    assert!(fault.is(Code::AuthPermissionDenied), "{fault}");
    assert_eq!(fault.detail_json().unwrap()["scope"], "admin");

    let made = create(&world, &admin, "ops", &[Scope::Admin, Scope::Account], None)
        .await
        .unwrap();
    let ops = caller(world.exchange_token(&made.secret).await.unwrap());
    assert!(ops.identity.admin);
    assert!(
        create(&world, &ops, "more", &[Scope::MachinesWrite], None)
            .await
            .unwrap_err()
            .is(Code::AuthPermissionDenied)
    );
    assert!(create(&world, &ops, "same", &[Scope::Admin], None).await.is_ok());

    // A token without the scope for the account cannot look at it, but can end itself.
    let made = create(&world, &member, "ci", &[Scope::MachinesRead], None)
        .await
        .unwrap();
    let other = create(&world, &member, "other", &[], None).await.unwrap();
    let ci = caller(world.exchange_token(&made.secret).await.unwrap());
    assert!(
        world
            .gateway
            .call::<ListTokens>(&())
            .on_behalf_of(&ci)
            .await
            .unwrap_err()
            .is(Code::AuthPermissionDenied)
    );
    assert!(
        world
            .gateway
            .call::<ListSessions>(&())
            .on_behalf_of(&ci)
            .await
            .unwrap_err()
            .is(Code::AuthPermissionDenied)
    );
    assert!(
        create(&world, &ci, "child", &[Scope::MachinesRead], None)
            .await
            .unwrap_err()
            .is(Code::AuthPermissionDenied)
    );
    assert!(
        world
            .gateway
            .call::<RevokeToken>(&other.token.id)
            .on_behalf_of(&ci)
            .await
            .unwrap_err()
            .is(Code::AuthPermissionDenied)
    );
    world
        .gateway
        .call::<RevokeToken>(&made.token.id)
        .on_behalf_of(&ci)
        .await
        .unwrap();
    assert!(world.exchange_token(&made.secret).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_end_and_bad_ones_are_not_made() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let _replica = world.replica().await;
        let (ada, secret) = world.member("ada@example.org").await;
        for (field, name, days) in [
            ("name", "", None),
            ("name", "a\nb", None),
            ("expires_in_days", "a", Some(0)),
            ("expires_in_days", "a", Some(367)),
        ] {
            let fault = create(&world, &ada, name, &[], days).await.unwrap_err();
            assert_eq!(fault.detail_json().unwrap()["field"], field);
        }
        let day = create(&world, &ada, "day", &[], Some(1)).await.unwrap();
        let ever = create(&world, &ada, "ever", &[], None).await.unwrap();
        world.jump.forward(Duration::from_secs(24 * 3600 + 1));
        assert!(
            world
                .exchange_token(&day.secret)
                .await
                .unwrap_err()
                .is(Code::AuthUnauthorized)
        );
        assert!(world.exchange_token(&ever.secret).await.is_ok());
        for wrong in ["", "nbp_", "nbp_00", &"x".repeat(4000)] {
            assert!(
                world
                    .exchange_token(&Secret::new(wrong))
                    .await
                    .unwrap_err()
                    .is(Code::AuthUnauthorized)
            );
        }
        // The secrets of the two kinds are not mixed up.
        assert!(world.exchange(&ever.secret).await.is_err() && world.exchange_token(&secret).await.is_err());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_has_ended_makes_no_tokens() {
    let db = sqlite().await;
    let world = World::start(&db.db).await;
    let (one, other) = (world.replica().await, world.replica().await);
    let (ada, secret) = world.member("ada@example.org").await;
    world
        .gateway
        .call::<Logout>(&LogoutRequest { secret })
        .await
        .unwrap();
    // Whichever replica answers, and whether or not the event has reached it.
    for _ in 0..8 {
        assert!(
            create(&world, &ada, "late", &[], None)
                .await
                .unwrap_err()
                .is(Code::AuthUnauthorized)
        );
    }
    one.stop().await;
    other.stop().await;
}
