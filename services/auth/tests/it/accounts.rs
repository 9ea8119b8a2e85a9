//! Registration, signing in and out, passwords.

use std::time::Duration;

use futures::StreamExt;
use nimbus_bus::{EventFilter, EventStart, Scope, Verify};
use nimbus_errors::Code;
use nimbus_proto::auth::{
    ChangePassword, ChangePasswordRequest, ListSessions, Logout, LogoutRequest, Me, Register,
    RegisterRequest, RevokeSession, Secret, Setup,
};
use nimbus_proto::event::CredentialRevoked;
use nimbus_store::testing::{on_both, sqlite};

use crate::world::{PASSWORD, World, caller, refused, registration, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_registration_to_signing_out() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let replica = world.replica().await;
        assert!(!world.gateway.call::<Setup>(&()).await.unwrap().has_users);

        let ada = world.register(" Ada@Example.ORG ").await.unwrap();
        assert!(ada.is_admin && ada.email == "ada@example.org" && ada.name == "Ada");
        assert!(world.gateway.call::<Setup>(&()).await.unwrap().has_users);
        let bob = world.register("bob@example.org").await.unwrap();
        assert!(!bob.is_admin && bob.tenant != ada.tenant);
        let taken = world.register("ADA@example.org").await.unwrap_err();
        assert!(taken.is(Code::OpAlreadyExists), "{taken}");
        let first = RegisterRequest {
            only_first: true,
            ..registration("eve@example.org")
        };
        assert!(
            world
                .gateway
                .call::<Register>(&first)
                .await
                .unwrap_err()
                .is(Code::OpConflict)
        );

        let login = world.login("Ada@example.org ", PASSWORD).await.unwrap();
        assert_eq!(login.user, ada);
        let exchanged = world.exchange(&login.secret).await.unwrap();
        assert_eq!(
            (
                exchanged.identity.user,
                exchanged.identity.tenant,
                exchanged.identity.admin
            ),
            (ada.id, ada.tenant, true)
        );
        assert_eq!(exchanged.identity.scopes, Scope::all());
        let me = caller(exchanged);
        assert_eq!(
            world.gateway.call::<Me>(&()).on_behalf_of(&me).await.unwrap(),
            ada
        );
        assert!(
            world
                .gateway
                .call::<Me>(&())
                .await
                .unwrap_err()
                .is(Code::AuthUnauthorized)
        );

        let verifier = world.verifier().await;
        assert_eq!(verifier.verify(me.token.reveal()).await.unwrap(), me.identity);
        for _ in 0..2 {
            world
                .gateway
                .call::<Logout>(&LogoutRequest {
                    secret: login.secret.clone(),
                })
                .await
                .unwrap();
        }
        assert!(
            world
                .exchange(&login.secret)
                .await
                .unwrap_err()
                .is(Code::AuthUnauthorized)
        );
        // The token made before is refused here at once and elsewhere when the event arrives.
        assert!(
            world
                .gateway
                .call::<Me>(&())
                .on_behalf_of(&me)
                .await
                .unwrap_err()
                .is(Code::AuthUnauthorized)
        );
        assert!(refused(&verifier, &me).await.is(Code::AuthUnauthorized));
        replica.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_input_names_its_field() {
    let db = sqlite().await;
    let world = World::start(&db.db).await;
    let _replica = world.replica().await;
    let good = registration("ada@example.org");
    for (field, request) in [
        (
            "name",
            RegisterRequest {
                name: " ".into(),
                ..good.clone()
            },
        ),
        (
            "email",
            RegisterRequest {
                email: "ada".into(),
                ..good.clone()
            },
        ),
        (
            "password",
            RegisterRequest {
                password: Secret::new("1234567"),
                ..good.clone()
            },
        ),
        (
            "password",
            RegisterRequest {
                password: Secret::new("x".repeat(257)),
                ..good.clone()
            },
        ),
    ] {
        let fault = world.gateway.call::<Register>(&request).await.unwrap_err();
        assert!(fault.is(Code::OpInvalidInput), "{fault}");
        assert_eq!(fault.detail_json().unwrap()["field"], field);
    }
    assert!(!world.gateway.call::<Setup>(&()).await.unwrap().has_users);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_and_an_unknown_address_are_told_alike() {
    let db = sqlite().await;
    let world = World::start(&db.db).await;
    let _replica = world.replica().await;
    world.register("ada@example.org").await.unwrap();
    let wrong = world
        .login("ada@example.org", "incorrect horse")
        .await
        .unwrap_err();
    let unknown = world.login("eve@example.org", PASSWORD).await.unwrap_err();
    let longer = world
        .login("ada@example.org", &format!("{PASSWORD}{}", "x".repeat(300)))
        .await
        .unwrap_err();
    assert!(wrong.is(Code::AuthUnauthorized) && wrong.message == "Invalid email or password");
    assert_eq!(wrong, unknown);
    assert_eq!(wrong, longer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_end_by_time_and_by_hand() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let _replica = world.replica().await;
        let (ada, _) = world.member("ada@example.org").await;
        let (bob, _) = world.member("bob@example.org").await;
        let other = world.login("ada@example.org", PASSWORD).await.unwrap();
        let sessions = world
            .gateway
            .call::<ListSessions>(&())
            .on_behalf_of(&ada)
            .await
            .unwrap();
        assert_eq!(
            sessions.iter().map(|session| session.current).collect::<Vec<_>>(),
            [false, true]
        );
        assert_eq!(
            (sessions[0].address.as_str(), sessions[0].user_agent.as_str()),
            ("10.0.0.1", "curl/8")
        );

        let revoke = |by| {
            world
                .gateway
                .call::<RevokeSession>(&sessions[0].id)
                .on_behalf_of(by)
        };
        assert!(revoke(&bob).await.unwrap_err().is(Code::OpNotFound));
        assert!(world.exchange(&other.secret).await.is_ok());
        revoke(&ada).await.unwrap();
        assert!(revoke(&ada).await.unwrap_err().is(Code::OpNotFound));
        assert!(world.exchange(&other.secret).await.is_err());

        let login = world.login("ada@example.org", PASSWORD).await.unwrap();
        world.jump.forward(Duration::from_secs(7 * 24 * 3600 - 60));
        let last = world.exchange(&login.secret).await.unwrap();
        assert!(
            last.expires_at <= login.expires_at,
            "no access token outlives its session"
        );
        world.jump.forward(Duration::from_secs(61));
        assert!(world.exchange(&login.secret).await.is_err());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_password_ends_the_other_sessions() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let _replica = world.replica().await;
        let (ada, secret) = world.member("ada@example.org").await;
        let other = world.login("ada@example.org", PASSWORD).await.unwrap();
        let elsewhere = caller(world.exchange(&other.secret).await.unwrap());
        let filter = EventFilter {
            subjects: vec!["nimbus.v1.event.credential.revoked.>".into()],
            start: EventStart::All,
        };
        let mut events = Box::pin(world.gateway.events(filter));
        let change = |current: &str, new: &str| {
            let request = ChangePasswordRequest {
                current: Secret::new(current),
                new: Secret::new(new),
            };
            world.gateway.call::<ChangePassword>(&request).on_behalf_of(&ada)
        };
        let wrong = change("incorrect horse", "battery staple").await.unwrap_err();
        assert!(wrong.is(Code::AuthUnauthorized), "{wrong}");
        assert_eq!(
            change(PASSWORD, "short")
                .await
                .unwrap_err()
                .detail_json()
                .unwrap()["field"],
            "new_password"
        );
        assert_eq!(
            change(PASSWORD, PASSWORD)
                .await
                .unwrap_err()
                .detail_json()
                .unwrap()["field"],
            "new_password"
        );
        assert!(world.exchange(&other.secret).await.is_ok());

        change(PASSWORD, "battery staple").await.unwrap();
        assert!(world.exchange(&secret).await.is_ok());
        assert!(
            world
                .exchange(&other.secret)
                .await
                .unwrap_err()
                .is(Code::AuthUnauthorized)
        );
        assert!(
            world
                .gateway
                .call::<Me>(&())
                .on_behalf_of(&elsewhere)
                .await
                .is_err()
        );
        let event = within(events.next())
            .await
            .unwrap()
            .unwrap()
            .event
            .read::<CredentialRevoked>()
            .unwrap()
            .unwrap();
        assert_eq!(
            (event.user, event.session),
            (ada.identity.user, elsewhere.identity.session)
        );

        assert!(world.login("ada@example.org", PASSWORD).await.is_err());
        assert!(world.login("ada@example.org", "battery staple").await.is_ok());
    })
    .await;
}
