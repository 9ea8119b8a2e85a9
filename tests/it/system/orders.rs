//! Orders that are refused, repeated, or come at the same time.

use futures::future::join_all;
use http::Method;
use nimbus_tests::api::machine;
use nimbus_tests::{Api, Opening, World};
use serde_json::{Value, json};

#[tokio::test]
async fn a_taken_hostname_is_refused_before_anything_happens() {
    let world = Opening::of("system", "a_taken_hostname").start().await;
    let row = world.make("web-1").await;
    let bob = world.admin.member("bob").await;
    // Stands in for the look that follows a sign-in.
    let _ = world.admin.touch("/api/ips/reconcile").await.data();
    let before = (
        world.sim.state().await["requests"].clone(),
        world.admin.addresses().await,
    );
    for api in [&world.admin, &bob] {
        let refused = api.post("/api/vms", &machine("web-1")).await.is(409);
        assert_eq!(refused.code(), "machine.hostname_taken");
        assert_eq!(refused.body["fault"]["detail"]["field"], "hostname");
    }
    assert_eq!(
        before.0,
        world.sim.state().await["requests"],
        "the cluster was asked"
    );
    assert_eq!(before.1, world.admin.addresses().await, "an address was touched");
    assert_eq!(bob.get("/api/catalog").await.data()["quota"]["used"], 0);

    // Free again once the machine is gone.
    let _ = world
        .admin
        .delete(&format!("/api/vms/{}", row["ID"].as_str().unwrap()))
        .await
        .is(204);
    let _ = world.make("web-1").await;
}

#[tokio::test]
async fn a_repeated_request_is_one_machine() {
    let world = Opening::of("system", "a_repeated_request")
        .slow(0.005)
        .start()
        .await;
    let keyed = |key: &str, body: Value| {
        let request = world
            .admin
            .request(Method::POST, "/api/vms")
            .header("Prefer", "respond-async");
        Api::send(request.header("Idempotency-Key", key).json(&body))
    };
    let at_once = join_all((0..8).map(|_| keyed("k-1", machine("web-1")))).await;
    let ids: Vec<Value> = at_once
        .into_iter()
        .map(|answer| answer.is(202).body["data"]["id"].clone())
        .collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let _ = world.admin.succeeded(ids[0].as_str().unwrap()).await;
    // Also when it is long done.
    let later = keyed("k-1", machine("web-1")).await.is(202);
    assert_eq!(
        (&later.body["data"]["id"], &later.body["data"]["state"]),
        (&ids[0], &json!("succeeded"))
    );
    assert_eq!(keyed("k-1", machine("web-2")).await.is(409).code(), "op.conflict");
    let bob = world.admin.member("bob").await;
    let request = bob
        .request(Method::POST, "/api/vms")
        .header("Prefer", "respond-async")
        .header("Idempotency-Key", "k-1");
    let theirs = Api::send(request.json(&machine("bob-1"))).await.is(202);
    assert_ne!(theirs.body["data"]["id"], ids[0]);
    let _ = bob.succeeded(theirs.body["data"]["id"].as_str().unwrap()).await;
    assert_eq!(world.sim.made().await.len(), 2);
}

#[tokio::test]
async fn the_quota_holds_against_orders_at_the_same_time() {
    let world = Opening::of("system", "the_quota_holds")
        .with("NIMBUS_MEMBER_MAX_VMS", 3)
        .start()
        .await;
    let bob = world.admin.member("bob").await;
    let names: Vec<String> = (0..10).map(|n| format!("bob-{n}")).collect();
    let answers = join_all(names.iter().map(|name| Api::send(bob.ordering(name)))).await;
    let (made, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 202);
    assert_eq!(made.len(), 3);
    for answer in &refused {
        assert_eq!((answer.status, answer.code()), (409, "machine.quota_reached"));
    }
    for answer in &made {
        let _ = bob.succeeded(answer.body["data"]["id"].as_str().unwrap()).await;
    }
    assert_eq!(
        bob.get("/api/catalog").await.data()["quota"],
        json!({"used": 3, "limit": 3})
    );
    // A slot that is given back can be used again.
    let row = bob.machines().await.remove(0);
    let _ = bob
        .delete(&format!("/api/vms/{}", row["ID"].as_str().unwrap()))
        .await
        .is(204);
    let operation = bob.order("bob-again").await;
    let _ = bob.succeeded(&operation).await;
    // Not for members.
    let large = json!({"hostname": "big", "tier": "xl", "os_template": "debian-12", "generate_key": true});
    assert_eq!(
        bob.post("/api/vms", &large).await.is(400).code(),
        "op.invalid_input"
    );
    assert!(
        nimbus_tests::world::differences(&world.sim, &world.admin, &[&world.admin, &bob])
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn provisions_do_not_wait_for_each_other() {
    let world = Opening::of("system", "provisions_do_not_wait")
        .slow(0.04)
        .start()
        .await;
    let names: Vec<String> = (0..6).map(|n| format!("web-{n}")).collect();
    let operations = join_all(names.iter().map(|name| world.admin.order(name))).await;
    let operations = join_all(operations.iter().map(|id| world.admin.succeeded(id))).await;
    let cloning = |operation: &Value| {
        let steps = operation["steps"].as_array().unwrap();
        let step = steps.iter().find(|step| step["key"] == "clone_template").unwrap();
        (
            step["started_at"].as_str().unwrap().to_owned(),
            step["finished_at"].as_str().unwrap().to_owned(),
        )
    };
    let spans: Vec<(String, String)> = operations.iter().map(cloning).collect();
    let last_start = spans.iter().map(|span| &span.0).max().unwrap();
    let first_end = spans.iter().map(|span| &span.1).min().unwrap();
    // Times are RFC 3339 in UTC with the same number of digits, so they compare as texts.
    assert!(last_start < first_end, "one clone waited for another: {spans:?}");
    world.agree().await;
}

#[tokio::test]
async fn an_empty_pool_and_a_full_cluster_say_so() {
    let opening = Opening::of("system", "an_empty_pool").with("IP_POOL_END", "10.77.0.51");
    let world: World = opening.start().await;
    let _ = world.make("a").await;
    let _ = world.make("b").await;
    let refused = world.admin.post("/api/vms", &machine("c")).await.is(409);
    assert_eq!(refused.code(), "ippool.exhausted");
    assert!(refused.body["fault"]["remediation"]["message"].is_string());
    world.agree().await;

    for node in ["pve1", "pve2", "pve3"] {
        world.sim.switch(node, false).await;
    }
    let row = world.admin.machine("a").await.unwrap();
    let stopped = world
        .admin
        .touch(&format!("/api/vms/{}/stop", row["ID"].as_str().unwrap()))
        .await;
    assert!(stopped.status >= 400 && stopped.status != 500, "{}", stopped.text);
    for node in ["pve1", "pve2", "pve3"] {
        world.sim.switch(node, true).await;
    }
}
