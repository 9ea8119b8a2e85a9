//! Several instances on one database, and what outlives them.

use nimbus_errors::{Code, chain};
use nimbus_proto::auth::{Me, Register, RegisterRequest, VerifyingKeys};
use nimbus_store::testing::{on_both, sqlite};
use nimbus_store::{both, sqlx};

use crate::world::{PASSWORD, World, caller, registration};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_first_users_one_is_administrator() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let _replicas = (world.replica().await, world.replica().await);
        let emails: Vec<String> = (0..10)
            .map(|number| format!("user{number}@example.org"))
            .collect();
        let users = futures::future::join_all(emails.iter().map(|email| world.register(email))).await;
        let admins = users
            .iter()
            .filter(|user| user.as_ref().unwrap().is_admin)
            .count();
        assert_eq!(admins, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_set_up_makes_one_user_however_often_it_is_sent() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let _replicas = (world.replica().await, world.replica().await);
        let requests: Vec<RegisterRequest> = (0..6)
            .map(|number| RegisterRequest {
                only_first: true,
                ..registration(&format!("user{number}@example.org"))
            })
            .collect();
        let answers = futures::future::join_all(
            requests
                .iter()
                .map(|request| world.gateway.call::<Register>(request).into_future()),
        )
        .await;
        let (made, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        assert_eq!(made.len(), 1);
        assert!(
            refused
                .iter()
                .all(|answer| answer.as_ref().unwrap_err().is(Code::OpConflict))
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_share_the_signing_key_and_a_restart_keeps_it() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let (one, other) = tokio::join!(Box::pin(world.replica()), Box::pin(world.replica()));
        let (ada, _) = world.member("ada@example.org").await;
        for _ in 0..8 {
            world.gateway.call::<Me>(&()).on_behalf_of(&ada).await.unwrap();
        }
        let keys = world.gateway.call::<VerifyingKeys>(&()).await.unwrap();
        assert_eq!(keys.len(), 1);
        one.stop().await;
        other.stop().await;
        let _again = world.replica().await;
        assert_eq!(world.gateway.call::<VerifyingKeys>(&()).await.unwrap(), keys);
        world.gateway.call::<Me>(&()).on_behalf_of(&ada).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_encryption_key_is_told_at_the_start() {
    let db = sqlite().await;
    let mut world = World::start(&db.db).await;
    world.replica().await.stop().await;
    world.key_file = world.key_file.with_extension("other");
    let Err(error) = world.replica_with(&[]).await else {
        panic!("it started with another key")
    };
    assert!(
        chain(&error).contains("sealed under the key"),
        "{}",
        chain(&error)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installation_without_administrator_gets_its_oldest_user() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let replica = world.replica().await;
        let first = world.register("ada@example.org").await.unwrap();
        let second = world.register("bob@example.org").await.unwrap();
        world.register("eve@example.org").await.unwrap();
        replica.stop().await;
        let store = world.db.store("auth", &[]).await;
        assert!(store.is_err(), "the tables belong to the service's migrations");
        delete_user(&world, first.id.to_string()).await;
        let _replica = world.replica().await;
        let login = world.login("bob@example.org", PASSWORD).await.unwrap();
        assert!(login.user.is_admin && login.user.id == second.id);
        assert!(
            caller(world.exchange(&login.secret).await.unwrap())
                .identity
                .admin
        );
        assert!(
            !world
                .login("eve@example.org", PASSWORD)
                .await
                .unwrap()
                .user
                .is_admin
        );
    })
    .await;
}

/// As an operator would, with the database's own tools.
async fn delete_user(world: &World, id: String) {
    let tools = world.db.store("tools", &[]).await.expect("the store works");
    let mut tx = tools.begin().await.expect("the store works");
    let sql = match tools.engine() {
        nimbus_store::Engine::Sqlite => "DELETE FROM auth_user WHERE id = $1",
        nimbus_store::Engine::Postgres => "DELETE FROM auth.auth_user WHERE id = $1",
    };
    both!(&mut tx, |c| sqlx::query(sql)
        .bind(id)
        .execute(c)
        .await
        .map(|_| ()))
    .expect("the store works");
    tx.commit().await.expect("the store works");
}
