//! Services: a stable name, a generation, and something that is kept running.

use http::Method;
use nimbus_tests::lab::{IMAGE, STARTS};
use nimbus_tests::{Api, Lab, Tenant, eventually};
use serde_json::{Value, json};

const SUITE: &str = "workloads";

fn definition(name: &str, argv: &[&str]) -> Value {
    json!({"metadata": {"name": name}, "spec": {"backend": {"kind": "sandbox", "sandbox": {
        "owner": {"kind": "service"}, "backend": "container",
        "root": {"kind": "oci_image", "source": {"kind": "reference", "reference": IMAGE}},
        "process": {"argv": argv}}}}})
}

async fn reaches(tenant: &Tenant, name: &str, state: &str) -> Value {
    eventually(
        &format!("{name} is {state}"),
        STARTS,
        async || {
            tenant
                .api
                .get(&tenant.path(&format!("/services/{name}")))
                .await
                .is(200)
                .body
        },
        |service| service["status"]["lifecycleState"] == state,
    )
    .await
}

#[tokio::test]
async fn the_worked_example_of_generations() {
    let lab = Lab::start(SUITE, "generations").await;
    let tenant = lab.tenant("demo").await;
    let path = tenant.path("/services/worker");
    let made = tenant
        .api
        .post(
            &tenant.path("/services"),
            &definition("worker", &["sleep", "3600"]),
        )
        .await
        .is(201)
        .body;
    assert_eq!(
        (&made["metadata"]["generation"], &made["status"]["lifecycleState"]),
        (&json!(1), &json!("stopped"))
    );
    let _ = tenant.api.touch(&format!("{path}/start")).await.is(200);
    let ready = reaches(&tenant, "worker", "ready").await;
    assert_eq!(ready["metadata"]["generation"], 1);
    let sandbox = ready["status"]["sandboxId"].as_str().unwrap().to_owned();
    assert_eq!(tenant.prints(&sandbox, &["echo", "inside"]).await, "inside\n");

    let declared = json!({"metadata": {"generation": 1}, "spec": {"backend": {"kind": "builtIn", "provider": "loadBalancer"}}});
    let second = tenant.api.put(&path, &declared).await.is(200).body;
    assert_eq!(
        (
            &second["metadata"]["generation"],
            &second["status"]["lifecycleState"]
        ),
        (&json!(2), &json!("declared"))
    );
    let stale = tenant.api.put(&path, &declared).await.is(412);
    assert_eq!(stale.code(), "op.precondition_failed");
    assert_eq!(
        stale.body["error"]["detail"],
        json!({"expectedGeneration": 1, "currentGeneration": 2})
    );
    tenant.reaches(&sandbox, "stopped").await;
    let _ = tenant
        .api
        .delete(&format!("{path}?ifMatchGeneration=2"))
        .await
        .is(204);
    let _ = tenant.api.get(&path).await.is(404);
    lab.end().await;
}

#[tokio::test]
async fn a_process_that_fails_is_started_again_and_a_restart_brings_a_new_sandbox() {
    let lab = Lab::start(SUITE, "supervision").await;
    let tenant = lab.tenant("demo").await;
    // Fails twice, then stays.
    let argv = [
        "sh",
        "-c",
        "echo x >> /tmp/runs; [ $(wc -l < /tmp/runs) -ge 3 ] || exit 1; sleep 3600",
    ];
    let _ = tenant
        .api
        .post(&tenant.path("/services"), &definition("flaky", &argv))
        .await
        .is(201);
    let path = tenant.path("/services/flaky");
    let _ = tenant.api.touch(&format!("{path}/start")).await.is(200);
    let ready = eventually(
        "it has been restarted twice",
        STARTS,
        async || tenant.api.get(&path).await.is(200).body,
        |service| service["status"]["restartCount"] == 2 && service["status"]["lifecycleState"] == "ready",
    )
    .await;
    let first = ready["status"]["sandboxId"].clone();
    let _ = tenant.api.touch(&format!("{path}/restart")).await.is(200);
    let again = eventually(
        "another sandbox is behind it",
        STARTS,
        async || tenant.api.get(&path).await.is(200).body,
        |service| service["status"]["lifecycleState"] == "ready" && service["status"]["sandboxId"] != first,
    )
    .await;
    assert_eq!(again["metadata"]["generation"], 1);
    // Running, it is deleted only by force.
    let refused = tenant
        .api
        .delete(&format!("{path}?ifMatchGeneration=1"))
        .await
        .is(409);
    assert_eq!(refused.body["error"]["detail"]["reason"], "running");
    let request = tenant
        .api
        .request(Method::DELETE, &format!("{path}?ifMatchGeneration=1&force=true"));
    let _ = Api::send(request).await.is(204);
    lab.end().await;
}
