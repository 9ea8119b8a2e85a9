//! Tenants and what is in them over HTTP: shapes, names, refusals.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::peers::Person::{Bob, Eve};
use crate::works::{SANDBOX, TENANT};
use crate::world::{World, answer};

const ROOT: &str = "/api/tenants/demo";

/// The status and the error of an answer in the envelope of these routes.
async fn refused(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let body: Value = response.json().await.unwrap();
    let error = body["error"].clone();
    assert_eq!(error["requestId"], id, "{body}");
    for field in ["code", "message", "timestamp", "severity"] {
        assert!(error[field].is_string(), "{field}: {body}");
    }
    assert!(
        error["retryable"].is_boolean() && error["remediation"]["action"].is_string(),
        "{body}"
    );
    assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
    (status, error)
}

fn sandbox() -> Value {
    json!({
        "profile": "worker",
        "labels": { "team": "search" },
        "spec": {
            "owner": { "kind": "standalone", "displayName": "job" },
            "backend": "container",
            "root": { "kind": "oci_image", "source": { "kind": "reference", "reference": "alpine:3" } },
            "process": { "argv": ["sleep", "60"], "env": ["MODE=a=b"], "secrets": [{ "secret": "t", "variable": "T" }] },
            "resources": { "vcpus": 0.5, "memoryBytes": 1048576 },
            "ports": [{ "guestPort": 80, "protocol": "http" }],
            "network": { "egress": { "allow": [{ "name": "p", "protocol": "https", "host": "pypi.org", "port": 443 }] } },
            "mounts": [{ "kind": "tmpfs", "target": "/x" }],
            "lifecycle": { "restartPolicy": { "kind": "onFailure", "maxRestarts": 2 }, "stopTimeoutMs": 10 },
            "health": { "kind": "http", "path": "/", "expectStatus": 204 },
            "ttlMs": 60000
        }
    })
}

#[tokio::test]
async fn a_sandbox_is_made_as_it_was_asked_for_and_shown_without_its_launch_input() {
    let world = World::start().await;
    let path = format!("{ROOT}/sandboxes");
    let request = world
        .by(Bob, Method::POST, &path)
        .header("idempotency-key", "once")
        .json(&sandbox());
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 201);
    assert_eq!(response.headers()["location"], format!("{path}/{SANDBOX}"));
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["metadata"]["labels"], json!({ "team": "search" }));
    assert_eq!(body["metadata"]["createdAt"], "2026-06-10T17:00:01Z");
    let process = &body["spec"]["sandbox"]["process"];
    assert_eq!(process["argv"], json!({ "redacted": true, "valueCount": 2 }));
    assert_eq!(
        process["environment"],
        json!({ "redacted": true, "valueCount": 1 })
    );
    assert_eq!(body["status"]["lifecycleState"], "ready");
    assert_eq!(
        (&body["status"]["start"], &body["status"]["startedAfterMs"]),
        (&json!("warm"), &json!(3.8))
    );
    assert_eq!(body["status"]["conditions"][0]["type"], "Ready");

    let (key, created) = world.works.created().pop().unwrap();
    assert_eq!((key.as_deref(), created.tenant.as_str()), (Some("once"), TENANT));
    let spec = created.spec;
    assert_eq!(spec.process.argv, ["sleep", "60"]);
    let variable = &spec.process.env[0];
    assert_eq!((variable.name.as_str(), variable.value.reveal()), ("MODE", "a=b"));
    assert_eq!(spec.resources.unwrap().cpu_milli, Some(500));
    assert_eq!(spec.egress.unwrap()[0].host, "pypi.org");
    assert_eq!(spec.ttl_ms, Some(60_000));

    // Without a key of the client, the request itself is one: the bus may send it twice.
    answer(world.by(Bob, Method::POST, &path).json(&sandbox())).await;
    let (key, _) = world.works.created().pop().unwrap();
    assert!(key.unwrap().starts_with("req_"));
}

#[tokio::test]
async fn what_is_not_known_is_refused_by_name_wherever_it_stands() {
    let world = World::start().await;
    let path = format!("{ROOT}/sandboxes");
    let with = |pointer: &str, value: Value| {
        let mut body = sandbox();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        body.pointer_mut(parent).unwrap()[name] = value;
        body
    };
    for (body, field) in [
        (with("/colour", json!(1)), "colour"),
        (with("/spec/colour", json!(1)), "spec.colour"),
        (with("/spec/process/argz", json!([])), "spec.process.argz"),
        (with("/spec/process/env", json!(["NOVALUE"])), "spec.process.env"),
        (with("/spec/resources/vcpus", json!(-1)), "spec.resources.vcpus"),
        (with("/spec/health", json!({ "kind": "tcp" })), "spec.health.port"),
        (
            with("/spec/health", json!({ "kind": "tcp", "port": 1, "path": "/" })),
            "spec.health.path",
        ),
        (with("/profile", json!("huge")), "profile"),
    ] {
        let (status, error) = refused(world.by(Bob, Method::POST, &path).json(&body)).await;
        assert_eq!(
            (status, &error["code"]),
            (400, &json!("op.invalid_input")),
            "{error}"
        );
        assert_eq!(error["detail"]["field"], field, "{error}");
        // What was sent may be secret.
        assert!(!error.to_string().contains("NOVALUE"), "{error}");
    }
    assert!(world.works.created().is_empty());
    for (query, field) in [("colour=1", "colour"), ("limit=x", "limit")] {
        let (status, error) = refused(world.by(Bob, Method::GET, &format!("{path}?{query}"))).await;
        assert_eq!(
            (status, &error["detail"]["field"]),
            (400, &json!(field)),
            "{error}"
        );
    }
    let (status, _) = refused(world.by(Bob, Method::POST, &path).body("{}")).await;
    assert_eq!(status, 415);
    let large = world
        .by(Bob, Method::POST, &path)
        .json(&json!({ "x": "y".repeat(1 << 20) }));
    assert_eq!(refused(large).await.1["code"], "op.payload_too_large");
    let key = world
        .by(Bob, Method::POST, &path)
        .header("idempotency-key", "")
        .json(&sandbox());
    assert_eq!(refused(key).await.1["detail"]["field"], "Idempotency-Key");
}

#[tokio::test]
async fn lists_have_their_envelope_and_clamp_their_limit() {
    let world = World::start().await;
    let (status, list) = world
        .get(
            Bob,
            &format!("{ROOT}/sandboxes?limit=100000&status=ready&labelKey=team&labelValue=a"),
        )
        .await;
    assert_eq!(status, 200);
    assert_eq!(
        list["metadata"],
        json!({ "tenantId": "demo", "resourceVersion": "17", "limit": 100, "nextPageToken": "d29ya2Vy", "remainingCount": 3 })
    );
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let page = world.works.listed().page;
    assert_eq!((page.limit, page.state.as_deref()), (Some(100), Some("ready")));
    world.get(Bob, &format!("{ROOT}/sandboxes?limit=-5")).await;
    assert_eq!(world.works.listed().page.limit, Some(1));
    let (_, sessions) = world.get(Bob, "/api/sessions?tenantId=demo").await;
    assert_eq!(sessions["metadata"]["tenantId"], "demo");
    assert_eq!(refused(world.by(Bob, Method::GET, "/api/sessions")).await.0, 400);
    let (_, tenants) = world.get(Bob, "/api/tenants").await;
    assert_eq!(tenants, json!({ "tenants": ["demo"] }));
}

#[tokio::test]
async fn a_service_is_one_resource_with_its_status_repeated() {
    let world = World::start().await;
    let path = format!("{ROOT}/services");
    let backend = json!({ "kind": "sandbox", "sandbox": {
        "owner": { "kind": "service" }, "backend": "container",
        "root": { "kind": "oci_image", "source": { "kind": "reference", "reference": "alpine:3" } },
    }});
    let body = json!({ "metadata": { "name": "worker", "tenantId": "demo", "labels": {} }, "spec": { "backend": backend } });
    let response = world
        .by(Bob, Method::POST, &path)
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["location"]),
        (201, &format!("{path}/worker").parse().unwrap())
    );
    let (_, service) = world.get(Bob, &format!("{path}/worker")).await;
    assert_eq!(service["metadata"]["source"], "dynamic");
    assert_eq!(
        (&service["status"]["backend"], &service["backend"]),
        (&json!("sandbox"), &json!("container"))
    );
    for (outer, inner) in [
        ("lifecycleState", "lifecycleState"),
        ("readiness", "readiness"),
        ("health", "health"),
        ("sandboxId", "sandboxId"),
        ("endpoints", "endpoints"),
    ] {
        assert_eq!(service[outer], service["status"][inner], "{outer}");
    }

    // The precondition: in the body, the query or the header, and alike.
    let put = |query: &str| world.by(Bob, Method::PUT, &format!("{path}/worker{query}"));
    let of = |generation: Option<u64>| {
        let mut body = json!({ "spec": { "backend": { "kind": "builtIn", "provider": "loadBalancer" } } });
        if let Some(generation) = generation {
            body["metadata"] = json!({ "generation": generation });
        }
        body
    };
    assert_eq!(
        refused(put("").json(&of(None))).await.1["detail"]["field"],
        "ifMatchGeneration"
    );
    let differ = put("?ifMatchGeneration=1").json(&of(Some(2)));
    assert_eq!(refused(differ).await.0, 400);
    for request in [
        put("").json(&of(Some(3))),
        put("?ifMatchGeneration=3&onActive=reject").json(&of(None)),
        put("").header("if-match", "\"3\"").json(&of(Some(3))),
    ] {
        assert_eq!(answer(request).await.0, 200);
    }
    let written = world.works.services();
    assert_eq!(
        written
            .iter()
            .map(|w| (w.if_generation, w.reject_active))
            .collect::<Vec<_>>(),
        [(None, false), (Some(3), false), (Some(3), true), (Some(3), false)]
    );
    // Labels that are left out stay.
    assert_eq!(written[1].labels, None);
    let other = put("")
        .json(&json!({ "metadata": { "name": "other", "generation": 3 }, "spec": { "backend": backend } }));
    assert_eq!(refused(other).await.1["detail"]["field"], "metadata.name");

    for (verb, body) in [
        ("start", None),
        ("stop", Some(json!({}))),
        ("restart", Some(json!({ "sourceGeneration": 1 }))),
    ] {
        let request = world.by(Bob, Method::POST, &format!("{path}/worker/{verb}"));
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        assert_eq!(answer(request).await.0, 200, "{verb}");
    }
    let unknown = world
        .by(Bob, Method::POST, &format!("{path}/worker/start"))
        .json(&json!({ "fast": true }));
    assert_eq!(refused(unknown).await.1["detail"]["field"], "fast");
    let delete = world.by(
        Bob,
        Method::DELETE,
        &format!("{path}/worker?ifMatchGeneration=1&force=true"),
    );
    assert_eq!(delete.send().await.unwrap().status(), 204);
}

#[tokio::test]
async fn sessions_are_opened_on_exactly_one_target() {
    let world = World::start().await;
    let open = |target: Value, ttl: i64| {
        world.by(Bob, Method::POST, "/api/sessions").json(&json!({
            "tenantId": "demo", "target": target, "channels": ["stdio", "files"], "requestedTtlMs": ttl,
        }))
    };
    let one = json!({ "sandbox": { "id": SANDBOX } });
    let (status, session) = answer(open(one.clone(), 1000)).await;
    assert_eq!(status, 201);
    assert_eq!(
        session["spec"]["target"],
        json!({ "service": { "name": "worker" } })
    );
    assert_eq!(
        session["spec"]["targetSnapshot"]["sandbox"]["backend"],
        "container"
    );
    assert_eq!(session["status"]["lifecycleState"], "open");
    for (target, ttl, field) in [
        (json!({}), 1000, "target"),
        (
            json!({ "sandbox": { "id": "a" }, "service": { "name": "b" } }),
            1000,
            "target",
        ),
        (one.clone(), 0, "requestedTtlMs"),
        (one, -1, "requestedTtlMs"),
    ] {
        let (status, error) = refused(open(target, ttl)).await;
        assert_eq!(
            (status, &error["detail"]["field"]),
            (400, &json!(field)),
            "{error}"
        );
    }
    let id = session["metadata"]["id"].as_str().unwrap();
    let close = world.by(Bob, Method::POST, &format!("/api/sessions/{id}/close"));
    assert_eq!(answer(close).await.0, 200);
}

#[tokio::test]
async fn somebody_elses_tenant_is_not_there() {
    let world = World::start().await;
    for path in [
        ROOT.to_owned(),
        format!("{ROOT}/sandboxes"),
        format!("{ROOT}/sandboxes/{SANDBOX}"),
        format!("{ROOT}/sandboxes/{SANDBOX}/logs"),
        format!("{ROOT}/sandboxes/{SANDBOX}/commands"),
        format!("{ROOT}/sandboxes/{SANDBOX}/files/stat?path=/x"),
        format!("{ROOT}/sandboxes/{SANDBOX}/proxy/8080/"),
        format!("{ROOT}/services/worker"),
        "/api/sessions/ses_1".to_owned(),
    ] {
        let (status, error) = refused(world.by(Eve, Method::GET, &path)).await;
        assert_eq!(
            (status, &error["code"]),
            (404, &json!("session.tenant_not_found")),
            "{path}"
        );
    }
    let (_, tenants) = world.get(Eve, "/api/tenants").await;
    assert_eq!(tenants, json!({ "tenants": [] }));
    // The envelope is theirs also where there is no such route at all.
    let nowhere = refused(world.by(Bob, Method::GET, &format!("{ROOT}/nothing"))).await;
    assert_eq!(
        (nowhere.0, &nowhere.1["code"]),
        (404, &json!("service.route_not_found"))
    );
}
