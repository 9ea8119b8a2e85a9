//! Guessing passwords.

use std::time::Duration;

use nimbus_errors::{Code, Fault};
use nimbus_proto::auth::{ChangePassword, ChangePasswordRequest, Secret};
use nimbus_store::testing::{on_both, sqlite};

use crate::world::{PASSWORD, World};

/// Attempts that cost nothing, as the service has it.
const FREE: usize = 10;

fn wait_of(fault: &Fault) -> u64 {
    assert!(fault.is(Code::RateLimited), "{fault}");
    fault.detail_json().unwrap()["retryAfterMs"].as_u64().unwrap()
}

/// Guesses wrongly, waiting as told by moving the clock, until the wait is long. How many guesses were
/// looked at before the first refusal, and the waits.
async fn guess_until_slow(world: &World, email: &str) -> (usize, Vec<u64>) {
    let (mut looked_at, mut waits) = (0, Vec::new());
    loop {
        match world.login(email, "wrong guess").await.unwrap_err() {
            fault if fault.is(Code::AuthUnauthorized) => looked_at += usize::from(waits.is_empty()),
            fault => {
                let wait = wait_of(&fault);
                waits.push(wait);
                if wait > 30_000 {
                    return (looked_at, waits);
                }
                world.jump.forward(Duration::from_millis(wait));
            }
        }
        assert!(looked_at + waits.len() < 50, "{looked_at} {waits:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guesses_on_one_account_get_slower_and_its_existence_stays_hidden() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        // Two replicas: the count is shared.
        let _replicas = (world.replica().await, world.replica().await);
        world.register("ada@example.org").await.unwrap();
        for email in ["nobody@example.org", "ada@example.org"] {
            let (looked_at, waits) = guess_until_slow(&world, email).await;
            // A slow machine may let the first short waits pass by themselves.
            assert!((FREE..FREE + 4).contains(&looked_at), "{looked_at}");
            assert!(waits.is_sorted() && waits.len() <= 7, "{waits:?}");
            assert!(waits.iter().all(|wait| *wait <= 60_000), "{waits:?}");
        }
        // The right password is not looked at either.
        wait_of(&world.login("ada@example.org", PASSWORD).await.unwrap_err());
        // Who knows it comes in after the wait, and has a clean slate.
        world.jump.forward(Duration::from_secs(60));
        world.login("ada@example.org", PASSWORD).await.unwrap();
        for _ in 0..FREE {
            let fault = world.login("ada@example.org", "wrong guess").await.unwrap_err();
            assert!(fault.is(Code::AuthUnauthorized), "{fault}");
        }
        // The count is forgotten after a quiet quarter of an hour.
        world.jump.forward(Duration::from_secs(16 * 60));
        for _ in 0..FREE {
            let fault = world.login("ada@example.org", "wrong guess").await.unwrap_err();
            assert!(fault.is(Code::AuthUnauthorized), "{fault}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guesses_at_once_are_counted_before_they_are_looked_at() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let _replicas = (world.replica().await, world.replica().await);
        world.register("ada@example.org").await.unwrap();
        let guesses =
            futures::future::join_all((0..40).map(|_| world.login("ada@example.org", "wrong guess"))).await;
        let looked_at = guesses
            .into_iter()
            .filter(|guess| guess.as_ref().unwrap_err().is(Code::AuthUnauthorized))
            .count();
        // Seconds may pass meanwhile, on a slow machine, and let some more in.
        assert!((FREE..=FREE + 5).contains(&looked_at), "{looked_at}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_tries_many_accounts_is_stopped_and_others_are_not() {
    let db = sqlite().await;
    let world = World::start(&db.db).await;
    let _replica = world
        .replica_with(&["--login-burst", "5", "--login-refill", "1h"])
        .await
        .unwrap();
    for number in 0..5 {
        let fault = world
            .login_from("10.0.0.7", &format!("user{number}@example.org"), "wrong guess")
            .await
            .unwrap_err();
        assert!(fault.is(Code::AuthUnauthorized), "{fault}");
    }
    let wait = wait_of(
        &world
            .login_from("10.0.0.7", "ada@example.org", PASSWORD)
            .await
            .unwrap_err(),
    );
    assert!(wait > 60_000, "{wait}");
    assert!(
        world
            .login_from("10.0.0.8", "ada@example.org", PASSWORD)
            .await
            .unwrap_err()
            .is(Code::AuthUnauthorized)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stolen_session_is_no_place_to_guess_the_password() {
    let db = sqlite().await;
    let world = World::start(&db.db).await;
    let _replica = world.replica().await;
    let (ada, _) = world.member("ada@example.org").await;
    let request = ChangePasswordRequest {
        current: Secret::new("wrong guess"),
        new: Secret::new("battery staple"),
    };
    // A slow machine may let the first short waits pass by themselves.
    let mut guesses = 0;
    let fault = loop {
        let guess = world
            .gateway
            .call::<ChangePassword>(&request)
            .on_behalf_of(&ada)
            .await
            .unwrap_err();
        guesses += 1;
        if !guess.is(Code::AuthUnauthorized) || guesses > FREE + 5 {
            break guess;
        }
    };
    assert!(guesses > FREE, "{guesses}");
    wait_of(&fault);
    // Signing in is another count: the thief does not lock the owner out.
    assert!(world.login("ada@example.org", PASSWORD).await.is_ok());
}
