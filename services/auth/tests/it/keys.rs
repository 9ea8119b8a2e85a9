//! API keys and the admin token.

use std::time::Duration;

use nimbus_bus::{Action, Caller, Grant, Identity, Sandboxes, Scope, Verify};
use nimbus_errors::{Code, Fault};
use nimbus_proto::auth::{
    ApiKey, CreateKey, CreateKeyRequest, CreateToken, CreateTokenRequest, CreatedKey, ExchangeAdmin,
    ExchangeKey, ExchangeRequest, Exchanged, ForgetTenant, ListKeys, Me, RevokeKey, RevokeKeyRequest,
    RotateAdmin, Secret,
};
use nimbus_store::testing::{on_both, sqlite};

use crate::world::{World, caller, refused};

fn grant(tenant: &str, actions: &[Action]) -> Grant {
    Grant {
        tenant: tenant.into(),
        actions: actions.to_vec(),
        services: None,
        sandboxes: Sandboxes::Own,
        channels: None,
    }
}

async fn create(world: &World, by: &Caller, name: &str, grants: Vec<Grant>) -> Result<CreatedKey, Fault> {
    let request = CreateKeyRequest {
        tenant: "demo".into(),
        name: name.into(),
        grants,
        expires_at: Some(world.clock.now().after(Duration::from_secs(3600))),
    };
    world.gateway.call::<CreateKey>(&request).on_behalf_of(by).await
}

async fn list(world: &World, by: &Caller, tenant: &str) -> Result<Vec<ApiKey>, Fault> {
    world
        .gateway
        .call::<ListKeys>(&tenant.to_owned())
        .on_behalf_of(by)
        .await
}

async fn exchange(world: &World, secret: &Secret) -> Result<Exchanged, Fault> {
    let request = ExchangeRequest {
        secret: secret.clone(),
    };
    world.gateway.call::<ExchangeKey>(&request).await
}

async fn operator(world: &World, secret: &Secret) -> Result<Exchanged, Fault> {
    let request = ExchangeRequest {
        secret: secret.clone(),
    };
    world.gateway.call::<ExchangeAdmin>(&request).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_from_making_to_revoking() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let _replica = world.replica().await;
        let (ada, _) = world.member("ada@example.org").await;
        let grants = vec![grant("demo", &[Action::SandboxesCreate, Action::SandboxesExec])];
        let made = create(&world, &ada, " agent ", grants.clone()).await.unwrap();
        assert_eq!((made.key.name.as_str(), &made.key.grants), ("agent", &grants));
        assert!(
            made.secret.reveal().starts_with("nimbus_ak_")
                && made.secret.reveal().starts_with(&made.key.prefix)
        );
        assert!(
            create(&world, &ada, "agent", grants.clone())
                .await
                .unwrap_err()
                .is(Code::OpAlreadyExists)
        );
        assert_eq!(
            list(&world, &ada, "demo").await.unwrap(),
            std::slice::from_ref(&made.key)
        );
        assert!(list(&world, &ada, "other").await.unwrap().is_empty());

        let exchanged = exchange(&world, &made.secret).await.unwrap();
        let identity = &exchanged.identity;
        let key = identity.key.as_ref().unwrap();
        assert_eq!((key.id, &key.grants), (made.key.id, &grants));
        assert!(!identity.admin && !identity.may(Scope::Account) && !identity.may(Scope::MachinesRead));
        assert!(
            list(&world, &ada, "demo").await.unwrap()[0]
                .last_used_at
                .is_some()
        );
        let program = caller(exchanged);
        let verifier = world.verifier().await;
        assert_eq!(
            verifier.verify(program.token.reveal()).await.unwrap(),
            program.identity
        );

        // It is not its maker, and makes or ends no keys.
        let me = world.gateway.call::<Me>(&()).on_behalf_of(&program).await;
        assert!(me.unwrap_err().is(Code::AuthPermissionDenied));
        assert!(
            list(&world, &program, "demo")
                .await
                .unwrap_err()
                .is(Code::AuthPermissionDenied)
        );
        assert!(
            create(&world, &program, "child", grants.clone())
                .await
                .unwrap_err()
                .is(Code::AuthPermissionDenied)
        );
        let revoke = |by, tenant: &str| {
            let request = RevokeKeyRequest {
                tenant: tenant.into(),
                key: made.key.id,
            };
            let gateway = world.gateway.clone();
            async move { gateway.call::<RevokeKey>(&request).on_behalf_of(by).await }
        };
        assert!(
            revoke(&program, "demo")
                .await
                .unwrap_err()
                .is(Code::AuthPermissionDenied)
        );
        assert!(revoke(&ada, "other").await.unwrap_err().is(Code::OpNotFound));
        revoke(&ada, "demo").await.unwrap();
        assert!(revoke(&ada, "demo").await.unwrap_err().is(Code::OpNotFound));
        assert!(
            exchange(&world, &made.secret)
                .await
                .unwrap_err()
                .is(Code::AuthUnauthorized)
        );
        assert!(refused(&verifier, &program).await.is(Code::AuthUnauthorized));

        let made = create(&world, &ada, "agent", grants).await.unwrap();
        world
            .gateway
            .call::<ForgetTenant>(&"demo".to_owned())
            .on_behalf_of(&ada)
            .await
            .unwrap();
        assert!(exchange(&world, &made.secret).await.is_err());
        assert!(list(&world, &ada, "demo").await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_end_and_bad_ones_are_not_made() {
    let db = sqlite().await;
    let world = World::start(&db.db).await;
    let _replica = world.replica().await;
    let (ada, session) = world.member("ada@example.org").await;
    let any = vec![grant("demo", &[Action::Any])];
    for (field, name, grants) in [
        ("name", "", any.clone()),
        ("grants", "a", vec![]),
        ("grants", "a", vec![grant("other", &[Action::Any])]),
        ("grants.actions", "a", vec![grant("demo", &[])]),
    ] {
        let fault = create(&world, &ada, name, grants).await.unwrap_err();
        assert_eq!(fault.detail_json().unwrap()["field"], field);
    }
    let made = create(&world, &ada, "hour", any).await.unwrap();
    assert!(exchange(&world, &session).await.is_err(), "a cookie is no key");
    assert!(
        world.exchange_token(&made.secret).await.is_err(),
        "a key is no token"
    );
    // A token that is not for workloads makes no keys.
    let request = CreateTokenRequest {
        name: "machines".into(),
        scopes: vec![Scope::MachinesWrite],
        expires_in_days: None,
    };
    let token = world
        .gateway
        .call::<CreateToken>(&request)
        .on_behalf_of(&ada)
        .await
        .unwrap();
    let script = caller(world.exchange_token(&token.secret).await.unwrap());
    let fault = create(&world, &script, "more", vec![grant("demo", &[Action::Any])])
        .await
        .unwrap_err();
    assert!(fault.is(Code::AuthPermissionDenied), "{fault}");

    world.jump.forward(Duration::from_secs(3601));
    assert!(
        exchange(&world, &made.secret)
            .await
            .unwrap_err()
            .is(Code::AuthUnauthorized)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_token_is_the_operator_until_it_is_rotated() {
    let db = sqlite().await;
    let world = World::start(&db.db).await;
    let path = world.admin_file.clone();
    let flags = ["--login-burst", "0", "--admin-token-file", path.as_str()];
    let one = world.replica_with(&flags).await.unwrap();
    let other = world.replica_with(&flags).await.unwrap();
    let first = nimbus_auth::admin::read(&path).unwrap().unwrap();
    let exchanged = operator(&world, &first.token).await.unwrap();
    assert_eq!(exchanged.identity, Identity::operator());
    let person = caller(exchanged);
    assert!(
        world.gateway.call::<Me>(&()).on_behalf_of(&person).await.is_err(),
        "nobody registered"
    );
    let made = create(&world, &person, "agent", vec![grant("demo", &[Action::Any])])
        .await
        .unwrap();
    let identity = exchange(&world, &made.secret).await.unwrap().identity;
    assert!(!identity.admin && !identity.is_operator(), "its keys are keys");

    for wrong in ["", "nimbus_at_", "nimbus_at_wrong"] {
        assert!(
            operator(&world, &Secret::new(wrong))
                .await
                .unwrap_err()
                .is(Code::AuthUnauthorized),
            "{wrong}"
        );
    }
    let rotated = world
        .gateway
        .call::<RotateAdmin>(&())
        .on_behalf_of(&person)
        .await
        .unwrap();
    assert_eq!(rotated.generation, 2);
    let second = nimbus_auth::admin::read(&path).unwrap().unwrap();
    // Whichever replica answers.
    for _ in 0..4 {
        assert!(operator(&world, &first.token).await.is_err());
        assert!(operator(&world, &second.token).await.is_ok());
    }
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_file_nobody_is_the_operator() {
    let db = sqlite().await;
    let world = World::start(&db.db).await;
    let _replica = world.replica().await;
    assert!(
        operator(&world, &Secret::new("nimbus_at_x"))
            .await
            .unwrap_err()
            .is(Code::AuthUnauthorized)
    );
    let (ada, _) = world.member("ada@example.org").await;
    let fault = world
        .gateway
        .call::<RotateAdmin>(&())
        .on_behalf_of(&ada)
        .await
        .unwrap_err();
    assert!(fault.is(Code::OpConflict), "{fault}");
}
