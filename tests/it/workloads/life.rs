//! A sandbox from its creation to its end, as a program sees it.

use http::Method;
use nimbus_tests::compose;
use nimbus_tests::lab::left;
use nimbus_tests::{Api, Lab, Tenant, eventually};
use serde_json::{Value, json};
use std::time::Duration;

const SUITE: &str = "workloads";

#[tokio::test]
async fn a_sandbox_runs_a_program_and_leaves_nothing() {
    let lab = Lab::start(SUITE, "life").await;
    let tenant = lab.tenant("demo").await;
    let mut body = Tenant::body(&["sh", "-c", "echo started $GREETING; sleep 3600"]);
    body["spec"]["process"]["env"] = json!(["GREETING=hello", "PASSWORD=s3cret-value"]);
    body["labels"] = json!({"purpose": "test"});
    let id = tenant.ready(&body).await;
    let sandbox = tenant.sandbox(&id).await;
    assert_eq!(
        sandbox["spec"]["sandbox"]["process"]["argv"],
        json!({"redacted": true, "valueCount": 3})
    );
    assert_eq!(
        sandbox["spec"]["sandbox"]["process"]["environment"],
        json!({"redacted": true, "valueCount": 2})
    );
    assert!(!sandbox.to_string().contains("s3cret-value"), "{sandbox}");
    assert!(!sandbox.to_string().contains("hello"), "{sandbox}");

    let ran = tenant
        .exec(&id, &["sh", "-c", "echo out; echo err >&2; exit 3"])
        .await;
    assert_eq!(
        (&ran["exitCode"], &ran["stdout"], &ran["stderr"]),
        (&json!(3), &json!("out\n"), &json!("err\n"))
    );
    assert_eq!(
        tenant.prints(&id, &["sh", "-c", "echo $GREETING"]).await,
        "hello\n"
    );

    let logs = eventually(
        "the log has the first line",
        Duration::from_secs(10),
        async || {
            tenant
                .api
                .get(&tenant.path(&format!("/sandboxes/{id}/logs")))
                .await
                .is(200)
                .text
        },
        |text| text.contains("started hello"),
    )
    .await;
    let line: Value = serde_json::from_str(logs.lines().next().unwrap()).unwrap();
    assert_eq!(line["stream"], "stdout");

    let listed = tenant
        .api
        .get(&tenant.path("/sandboxes?labelKey=purpose&labelValue=test&status=ready"))
        .await
        .is(200)
        .body;
    assert_eq!(listed["items"][0]["metadata"]["id"], id.as_str());
    assert_eq!(listed["metadata"]["remainingCount"], 0);

    let _ = tenant
        .api
        .touch(&tenant.path(&format!("/sandboxes/{id}/stop")))
        .await
        .is(200);
    let stopped = tenant.reaches(&id, "stopped").await;
    assert_eq!(stopped["status"]["readiness"], "stopped");
    // The log stays until the record goes.
    let _ = tenant
        .api
        .get(&tenant.path(&format!("/sandboxes/{id}/logs")))
        .await
        .is(200);
    let _ = tenant
        .api
        .delete(&tenant.path(&format!("/sandboxes/{id}")))
        .await
        .is(204);
    assert_eq!(
        tenant
            .api
            .get(&tenant.path(&format!("/sandboxes/{id}")))
            .await
            .is(404)
            .code(),
        "op.not_found"
    );
    lab.end().await;
}

#[tokio::test]
async fn a_warm_sandbox_is_as_personal_as_a_cold_one() {
    let lab = Lab::start(SUITE, "warm").await;
    let tenant = lab.tenant("demo").await;
    let secret = json!({"value": "whisper"});
    let _ = tenant
        .api
        .put(&tenant.path("/secrets/token"), &secret)
        .await
        .is(200);
    let _ = tenant.api.put(&tenant.path("/volumes/data"), &json!({})).await;
    let first = tenant.idle().await;
    assert_eq!(tenant.sandbox(&first).await["status"]["start"], "cold");
    let mut body = Tenant::body(&["sleep", "3600"]);
    body["spec"]["process"]["env"] = json!(["NAME=zebra"]);
    body["spec"]["process"]["secrets"] = json!([{"secret": "token", "variable": "TOKEN"}]);
    // An agent in a container has no right to mount into others; starts with volumes are cold there.
    let mounts = json!([{"kind": "volume", "name": "data", "target": "/data"}]);
    if !compose::wanted() {
        body["spec"]["mounts"] = mounts.clone();
    }
    // The pool is filled after the first use of an image.
    let mut warm = None;
    for _ in 0..40 {
        let id = tenant.ready(&body).await;
        let start = tenant.sandbox(&id).await["status"]["start"].clone();
        if start == "warm" {
            warm = Some(id);
            break;
        }
        let _ = tenant
            .api
            .delete(&tenant.path(&format!("/sandboxes/{id}?force=true")))
            .await
            .is(204);
    }
    let id = warm.expect("one of forty was warm");
    let said = tenant
        .prints(&id, &["sh", "-c", "echo $NAME $TOKEN; hostname"])
        .await;
    assert!(said.starts_with("zebra whisper\n"), "{said}");
    // What is in the volume outlives the sandbox.
    body["spec"]["mounts"] = mounts;
    let writer = if compose::wanted() {
        tenant.ready(&body).await
    } else {
        id
    };
    let _ = tenant
        .prints(&writer, &["sh", "-c", "echo kept > /data/file"])
        .await;
    let _ = tenant
        .api
        .delete(&tenant.path(&format!("/sandboxes/{writer}?force=true")))
        .await
        .is(204);
    let again = tenant.ready(&body).await;
    assert_eq!(tenant.prints(&again, &["cat", "/data/file"]).await, "kept\n");
    // Neither the secret nor the variable is known to the engine.
    let known = nimbus_tests::lab::docker(&[
        "ps",
        "-aq",
        "--filter",
        &format!("label=io.nimbus.sandbox.host={}", lab.host),
    ])
    .await;
    for container in known.lines() {
        let inspected = nimbus_tests::lab::docker(&["inspect", container]).await;
        assert!(
            !inspected.contains("whisper") && !inspected.contains("zebra"),
            "{container}"
        );
    }
    lab.end().await;
}

#[tokio::test]
async fn the_same_request_makes_one_sandbox_and_one_command() {
    let lab = Lab::start(SUITE, "once").await;
    let tenant = lab.tenant("demo").await;
    let create = || async {
        let request = tenant
            .api
            .request(Method::POST, &tenant.path("/sandboxes"))
            .header("Idempotency-Key", "the-one")
            .json(&Tenant::body(&["sleep", "3600"]));
        Api::send(request).await.is(201).body["metadata"]["id"].clone()
    };
    let ids = futures::future::join_all((0..8).map(|_| create())).await;
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let id = ids[0].as_str().unwrap();
    tenant.reaches(id, "ready").await;
    let body =
        json!({"argv": ["sh", "-c", "echo once >> /tmp/count; cat /tmp/count"], "commandId": "step-1"});
    for _ in 0..3 {
        let ran = tenant.exec_with(id, &body).await.is(200).body;
        assert_eq!(ran["stdout"], "once\n", "{ran}");
        assert_eq!(ran["commandId"], "step-1");
    }
    assert_eq!(
        tenant.prints(id, &["wc", "-l", "/tmp/count"]).await,
        "1 /tmp/count\n"
    );
    // Another command under the same id is somebody's mistake.
    let other = json!({"argv": ["true"], "commandId": "step-1"});
    assert_eq!(tenant.exec_with(id, &other).await.is(409).code(), "op.conflict");
    lab.end().await;
}

#[tokio::test]
async fn the_quota_is_a_quota_under_a_race() {
    let lab = Lab::start(SUITE, "quota").await;
    let tenant = lab.tenant("demo").await;
    let request = lab
        .operator
        .request(Method::PATCH, "/api/tenants/demo")
        .json(&json!({"sandboxes": 3}));
    let _ = Api::send(request).await.is(200);
    let body = Tenant::body(&["sleep", "3600"]);
    let answers = futures::future::join_all((0..10).map(|_| tenant.create_sandbox(&body))).await;
    let made = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(made, 3);
    for refused in answers.iter().filter(|answer| answer.status != 201) {
        assert_eq!(
            (refused.status, refused.code()),
            (429, "rate.resource_exhausted"),
            "{}",
            refused.text
        );
        assert_eq!(refused.body["error"]["detail"]["limit"], 3);
    }
    lab.end().await;
}

#[tokio::test]
async fn time_to_live_and_failure_say_why() {
    let lab = Lab::start(SUITE, "ends").await;
    let tenant = lab.tenant("demo").await;
    let mut short = Tenant::body(&["sleep", "3600"]);
    short["spec"]["ttlMs"] = json!(1500);
    let (short, failing, missing) = futures::join!(
        tenant.create_sandbox(&short),
        async {
            let body = Tenant::body(&["sh", "-c", "exit 7"]);
            tenant.create_sandbox(&body).await
        },
        async {
            let mut body = Tenant::body(&["true"]);
            body["spec"]["root"]["source"]["reference"] = json!("127.0.0.1:1/nothing:here");
            tenant.create_sandbox(&body).await
        },
    );
    let id =
        |answer: nimbus_tests::Answer| answer.is(201).body["metadata"]["id"].as_str().unwrap().to_owned();
    let (short, failing, missing) = (id(short), id(failing), id(missing));
    let ended = tenant.reaches(&short, "stopped").await;
    assert!(ended.to_string().contains("TtlExpired"), "{ended}");
    let failed = tenant.reaches(&failing, "failed").await;
    assert_eq!(failed["status"]["exitCode"], 7, "{failed}");
    let failed = tenant.reaches(&missing, "failed").await;
    assert!(failed.to_string().contains("ImagePullFailed"), "{failed}");
    // What has ended is not charged any more.
    let used = lab.operator.get("/api/tenants/demo").await.is(200).body["quota"]["used"]["sandboxes"].clone();
    assert_eq!(used, 0);
    lab.end().await;
}

#[tokio::test]
async fn a_server_that_is_killed_finds_its_sandboxes_again() {
    let mut lab = Lab::start(SUITE, "restart").await;
    let tenant = lab.tenant("demo").await;
    let ids = futures::future::join_all((0..3).map(|_| tenant.idle())).await;
    for id in &ids {
        let _ = tenant.prints(id, &["sh", "-c", "echo here > /tmp/mark"]).await;
    }
    lab.server.kill().await;
    lab.server.restart().await;
    for id in &ids {
        tenant.reaches(id, "ready").await;
        assert_eq!(tenant.prints(id, &["cat", "/tmp/mark"]).await, "here\n");
    }
    lab.end().await;
}

#[tokio::test]
async fn tenants_do_not_exist_for_each_other() {
    let lab = Lab::start(SUITE, "tenants").await;
    let a = lab.tenant("alpha").await;
    let b = lab.tenant("beta").await;
    let id = a.idle().await;
    let grants = json!({"name": "agent", "grants": [{"actions": ["*"], "sandboxes": "all"}]});
    let key = lab
        .operator
        .post("/api/tenants/beta/api-keys", &grants)
        .await
        .is(201)
        .body["key"]
        .clone();
    let stranger = Api::anonymous(lab.operator.base()).with_token(key.as_str().unwrap());
    let other = Tenant {
        api: stranger.clone(),
        id: b.id.clone(),
    };
    // Through its own tenant, and through the foreign one.
    for (path, code) in [
        (format!("/api/tenants/beta/sandboxes/{id}"), "op.not_found"),
        (
            format!("/api/tenants/alpha/sandboxes/{id}"),
            "session.tenant_not_found",
        ),
        (
            "/api/tenants/alpha/sandboxes".to_owned(),
            "session.tenant_not_found",
        ),
        ("/api/tenants/alpha".to_owned(), "session.tenant_not_found"),
    ] {
        assert_eq!(stranger.get(&path).await.is(404).code(), code, "{path}");
    }
    let exec = json!({"argv": ["true"]});
    for tenant in ["alpha", "beta"] {
        let path = format!("/api/tenants/{tenant}/sandboxes/{id}/exec");
        let _ = stranger.post(&path, &exec).await.is(404);
    }
    // In its own tenant it may do what it was granted.
    let own = other.ready(&Tenant::body(&["sleep", "3600"])).await;
    assert_eq!(other.prints(&own, &["echo", "mine"]).await, "mine\n");
    lab.end().await;
}

#[tokio::test]
async fn nothing_is_left_of_a_server_that_died_with_its_sandboxes() {
    let mut lab = Lab::start(SUITE, "orphans").await;
    let tenant = lab.tenant("demo").await;
    let id = tenant.idle().await;
    assert!(!left(&lab.host).await.is_empty());
    lab.server.kill().await;
    lab.server.restart().await;
    tenant.reaches(&id, "ready").await;
    let _ = tenant
        .api
        .delete(&tenant.path(&format!("/sandboxes/{id}?force=true")))
        .await
        .is(204);
    // Deleting answers when the record is gone; the container follows.
    lab.end().await;
}
