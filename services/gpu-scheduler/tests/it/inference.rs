//! The inference endpoint: whether it answers, and what was used.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use nimbus_errors::Code;
use nimbus_proto::auth::Secret;
use nimbus_proto::gpu::{
    GetInference, GetUsage, InferenceStatus, PutSettings, PutSettingsRequest, RecordUsage, UsageRecord,
    UsageRequest,
};
use nimbus_store::testing::{on_both, sqlite};

use crate::world::World;

/// A server that lists one model to whoever has the key, and counts how often it was asked.
async fn endpoint() -> (String, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let models = move |headers: HeaderMap| {
        counted.fetch_add(1, Ordering::SeqCst);
        let fine = headers
            .get("authorization")
            .is_some_and(|key| key == "Bearer k3y");
        async move {
            if fine {
                Ok(Json(
                    serde_json::json!({ "object": "list", "data": [{ "id": "tiny", "object": "model" }] }),
                ))
            } else {
                Err(StatusCode::UNAUTHORIZED)
            }
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        axum::serve(listener, Router::new().route("/v1/models", get(models)))
            .await
            .unwrap();
    });
    (url, asked)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_endpoint_is_up_down_or_not_there() {
    let db = sqlite().await;
    let world = World::start(&db.db).await;
    let _replica = world.replica(&[]).await;
    let state = async || world.ask::<GetInference>(&world.alice, &()).await.unwrap();
    assert_eq!(state().await.status, InferenceStatus::Unconfigured);
    let (url, asked) = endpoint().await;
    let put = async |base_url: &str, key: Option<&str>| {
        let request = PutSettingsRequest {
            enabled: true,
            base_url: base_url.into(),
            inference_model: "tiny".into(),
            api_key: key.map(Secret::new),
            job_quota: None,
        };
        world.ask::<PutSettings>(&world.admin, &request).await.unwrap()
    };
    put(&format!("{url}/v1"), Some("wrong")).await;
    assert_eq!(state().await.status, InferenceStatus::Down);
    put(&url, Some("k3y")).await;
    let before = asked.load(Ordering::SeqCst);
    for _ in 0..5 {
        let up = state().await;
        assert_eq!(
            (up.status, up.models.as_slice()),
            (InferenceStatus::Up, ["tiny".to_owned()].as_slice())
        );
        assert!(up.checked_at.is_some() && up.model.as_deref() == Some("tiny"));
    }
    assert_eq!(
        asked.load(Ordering::SeqCst),
        before + 1,
        "one answer for all who ask"
    );
    // Without a key the one before stays.
    put(&url, None).await;
    assert_eq!(state().await.status, InferenceStatus::Up);
    put("http://127.0.0.1:1", None).await;
    assert_eq!(state().await.status, InferenceStatus::Down);
    put("", None).await;
    assert_eq!(state().await.status, InferenceStatus::Unconfigured);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_used_is_counted_once_by_day_user_and_model() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let replica = world.replica(&[]).await;
        let (alice, bob) = (world.alice.identity.user, world.bob.identity.user);
        let record = |id: &str, user, model: &str, estimated| UsageRecord {
            id: id.into(),
            user,
            machine: None,
            model: model.into(),
            requests: 1,
            prompt_tokens: 10,
            completion_tokens: 3,
            estimated,
            at: world.gateway.clock().now(),
        };
        let batch = vec![
            record("a", alice, "tiny", false),
            record("b", alice, "tiny", true),
            record("c", alice, "large", false),
            record("d", bob, "tiny", false),
        ];
        for _ in 0..2 {
            world.gateway.call::<RecordUsage>(&batch).await.unwrap();
        }
        let mut other = batch.clone();
        other.push(record("e", bob, "tiny", false));
        world.gateway.call::<RecordUsage>(&other).await.unwrap();
        let usage = async |who, everybody| {
            let request = UsageRequest { days: 7, everybody };
            world.ask::<GetUsage>(who, &request).await
        };
        let mine = usage(&world.alice, false).await.unwrap();
        let sums: Vec<_> = mine
            .iter()
            .map(|one| {
                (
                    one.model.as_str(),
                    one.requests,
                    one.prompt_tokens,
                    one.completion_tokens,
                    one.estimated,
                )
            })
            .collect();
        assert_eq!(sums, [("large", 1, 10, 3, false), ("tiny", 2, 20, 6, true)]);
        let fault = usage(&world.alice, true).await.unwrap_err();
        assert!(fault.is(Code::AuthForbidden), "{fault}");
        let all = usage(&world.admin, true).await.unwrap();
        assert_eq!(all.iter().map(|one| one.requests).sum::<u64>(), 5);
        replica.stop().await;
    })
    .await;
}
