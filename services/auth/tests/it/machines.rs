//! The tokens inside machines, and credentials for the bus.

use std::sync::Arc;

use nimbus_auth::BusMint;
use nimbus_bus::{Bus, BusError, ConnectOptions, Credential, Identity, Scope, Verify};
use nimbus_errors::{Code, Fault};
use nimbus_model::{MachineId, UserId};
use nimbus_proto::auth::{
    BusUser, CreateMachineToken, CreateToken, CreateTokenRequest, ListTokens, MachineTokenRequest, Me,
    MintBus, RevokeMachineToken, RevokeToken, Secret,
};
use nimbus_store::testing::{on_both, sqlite};

use crate::world::{World, caller, refused};

async fn make(provisioner: &Bus, owner: UserId, machine: MachineId) -> Result<Secret, Fault> {
    let request = MachineTokenRequest { owner, machine };
    provisioner.call::<CreateMachineToken>(&request).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_has_one_token_until_it_is_gone() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let _replica = world.replica().await;
        let provisioner = world.connect("provisioner").await;
        let (ada, _) = world.member("ada@example.org").await;
        let (machine, other) = (MachineId::fresh(), MachineId::fresh());

        let first = make(&provisioner, ada.identity.user, machine).await.unwrap();
        let beside = make(&provisioner, ada.identity.user, other).await.unwrap();
        assert!(first.reveal().starts_with("nbv_") && first.reveal().len() == 68);
        let exchanged = world.exchange_token(&first).await.unwrap();
        let identity = &exchanged.identity;
        assert_eq!(
            (identity.user, identity.tenant),
            (ada.identity.user, ada.identity.tenant)
        );
        assert_eq!((identity.machine, identity.admin), (Some(machine), false));
        assert_eq!(identity.scopes, [Scope::Gpu]);
        let verifier = world.verifier().await;
        let inside = caller(exchanged);
        assert_eq!(
            verifier.verify(inside.token.reveal()).await.unwrap(),
            inside.identity
        );

        // Another one replaces it; what was made from the first one is refused, the second one is good.
        let second = make(&provisioner, ada.identity.user, machine).await.unwrap();
        assert_ne!(second.reveal(), first.reveal());
        assert!(
            world
                .exchange_token(&first)
                .await
                .unwrap_err()
                .is(Code::AuthUnauthorized)
        );
        assert!(refused(&verifier, &inside).await.is(Code::AuthUnauthorized));
        let inside = caller(world.exchange_token(&second).await.unwrap());
        assert!(verifier.verify(inside.token.reveal()).await.is_ok());

        // Gone with the machine, and that of the other one is not.
        provisioner.call::<RevokeMachineToken>(&machine).await.unwrap();
        provisioner.call::<RevokeMachineToken>(&machine).await.unwrap();
        assert!(world.exchange_token(&second).await.is_err());
        assert!(refused(&verifier, &inside).await.is(Code::AuthUnauthorized));
        let inside = caller(world.exchange_token(&beside).await.unwrap());
        assert_eq!(inside.identity.machine, Some(other));
        assert!(verifier.verify(inside.token.reveal()).await.is_ok());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_is_not_its_owner() {
    let db = sqlite().await;
    let world = World::start(&db.db).await;
    let _replica = world.replica().await;
    let provisioner = world.connect("provisioner").await;
    let (ada, _) = world.member("ada@example.org").await;
    assert!(ada.identity.admin, "the first one is");
    let secret = make(&provisioner, ada.identity.user, MachineId::fresh())
        .await
        .unwrap();
    let inside = caller(world.exchange_token(&secret).await.unwrap());
    assert!(!inside.identity.may(Scope::Admin) && !inside.identity.may(Scope::MachinesRead));

    let gateway = &world.gateway;
    let me = gateway.call::<Me>(&()).on_behalf_of(&inside).await;
    assert!(me.unwrap_err().is(Code::AuthPermissionDenied));
    let list = gateway.call::<ListTokens>(&()).on_behalf_of(&inside).await;
    assert!(list.unwrap_err().is(Code::AuthPermissionDenied));
    let request = CreateTokenRequest {
        name: "more".into(),
        scopes: vec![Scope::Gpu],
        expires_in_days: None,
    };
    let more = gateway.call::<CreateToken>(&request).on_behalf_of(&inside).await;
    assert!(more.unwrap_err().is(Code::AuthPermissionDenied));
    // Not even its own: the machine would lose what only its owner's order gives back.
    let itself = inside.identity.token.unwrap();
    let end = gateway.call::<RevokeToken>(&itself).on_behalf_of(&inside).await;
    assert!(end.unwrap_err().is(Code::OpNotFound));
    assert!(world.exchange_token(&secret).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_for_owners_that_exist_and_only_by_the_provisioner() {
    let db = sqlite().await;
    let world = World::start(&db.db).await;
    let _replica = world.replica().await;
    let provisioner = world.connect("provisioner").await;
    let nobody = make(&provisioner, UserId::fresh(), MachineId::fresh()).await;
    assert!(nobody.unwrap_err().is(Code::OpNotFound));
    // The operator has machines and no account.
    let operator = Identity::operator();
    let secret = make(&provisioner, operator.user, MachineId::fresh())
        .await
        .unwrap();
    let identity = world.exchange_token(&secret).await.unwrap().identity;
    assert_eq!((identity.user, identity.tenant), (operator.user, operator.tenant));
    assert!(!identity.is_operator() && !identity.admin);

    let gateway = world.gateway.call::<CreateMachineToken>(&MachineTokenRequest {
        owner: operator.user,
        machine: MachineId::fresh(),
    });
    assert!(gateway.await.is_err(), "the bus lets nobody else ask");
    for wrong in ["nbv_", "nbv_wrong", "nbp_wrong"] {
        let answer = world.exchange_token(&Secret::new(wrong)).await;
        assert!(answer.unwrap_err().is(Code::AuthUnauthorized), "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_box_gets_a_credential_for_its_own_subjects() {
    let db = sqlite().await;
    let world = World::start(&db.db).await;
    let mint = BusMint {
        authority: Some(Arc::clone(&world.authority)),
        public_url: Some(world.nats.url()),
        ca_pem: Some("PEM".into()),
    };
    let replica = world
        .replica_that_mints(&["--login-burst", "0"], mint)
        .await
        .unwrap();
    let scheduler = world.connect("gpu-scheduler").await;
    let user = BusUser::GpuWorker("gx10".parse().unwrap());
    let minted = scheduler.call::<MintBus>(&user).await.unwrap().unwrap();
    assert_eq!(
        (minted.url.as_str(), minted.ca_pem.as_deref()),
        (world.nats.url().as_str(), Some("PEM"))
    );
    assert!(!format!("{minted:?}").contains("SEED"));
    let file = world.key_file.with_file_name("gx10.creds");
    std::fs::write(&file, minted.credentials.reveal()).unwrap();
    let connect = |name: &str| ConnectOptions {
        url: minted.url.clone(),
        name: name.into(),
        credential: Some(Credential::from_creds_file(&file).unwrap()),
        ca_file: None,
        clock: world.clock.clone(),
    };
    let worker = Bus::connect(connect("gpu-worker-gx10")).await.unwrap();
    assert!(worker.is_connected());
    // It is nobody else: another inbox, another service's methods.
    let error = Bus::connect(connect("gateway")).await.unwrap_err();
    assert!(matches!(error, BusError::Permission { .. }), "{error}");
    assert!(worker.call::<MintBus>(&user).await.is_err());
    let agent = BusUser::SandboxAgent("host-b".parse().unwrap());
    assert!(scheduler.call::<MintBus>(&agent).await.unwrap().is_some());
    replica.stop().await;

    let _without = world.replica().await;
    assert_eq!(scheduler.call::<MintBus>(&user).await.unwrap(), None);
}
