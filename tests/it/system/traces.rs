//! Where time went: one trace from the request to the cluster, in the portal and in a collector.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use nimbus_tests::api::machine;
use nimbus_tests::compose::reachable;
use nimbus_tests::{Opening, eventually};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde_json::Value;
use tokio::sync::mpsc;

use super::machines::STEPS;

#[tokio::test]
async fn a_provision_is_one_trace_from_the_request_to_the_cluster() {
    let world = Opening::of("system", "one_trace").start().await;
    let made = world.admin.post("/api/vms", &machine("web-1")).await.is(200);
    assert!(
        made.headers["x-request-id"].to_str().unwrap().starts_with("req"),
        "{:?}",
        made.headers
    );
    let operation = world.admin.get("/api/operations").await.data()[0].clone();
    let path = format!("/api/operations/{}/trace", operation["id"].as_str().unwrap());
    let trace = eventually(
        "the request's own span has ended",
        Duration::from_secs(10),
        async || world.admin.get(&path).await.data(),
        |trace| names(trace).contains("POST /api/vms"),
    )
    .await;
    assert_eq!(trace["trace_id"], operation["trace_id"]);
    let names = names(&trace);
    for step in STEPS {
        assert!(names.contains(step), "no span of {step} in {names:?}");
    }
    let spans = trace["spans"].as_array().unwrap();
    let services: BTreeSet<&str> = spans
        .iter()
        .map(|span| span["service"].as_str().unwrap())
        .collect();
    for service in ["gateway", "provisioner", "ippool"] {
        assert!(services.contains(service), "no span of {service} in {services:?}");
    }
    let calls: Vec<&Value> = spans
        .iter()
        .filter(|span| span["attributes"]["path"].is_string())
        .collect();
    assert!(
        calls
            .iter()
            .any(|span| span["attributes"]["path"].as_str().unwrap().ends_with("/clone")),
        "no call of the cluster in {names:?}"
    );
    assert!(
        spans
            .iter()
            .any(|span| span["attributes"]["rpc.method"].is_string()),
        "no call over the bus in {names:?}"
    );
    // Every span hangs on another one of the trace, except for the first.
    let ids: BTreeSet<&str> = spans
        .iter()
        .map(|span| span["span_id"].as_str().unwrap())
        .collect();
    let roots: Vec<&str> = spans
        .iter()
        .filter(|span| {
            span["parent_id"]
                .as_str()
                .is_none_or(|parent| !ids.contains(parent))
        })
        .map(|span| span["name"].as_str().unwrap())
        .collect();
    assert_eq!(roots, ["POST /api/vms"]);
    let listed = world.admin.get("/api/traces?limit=50").await.data();
    let listed = listed
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["trace_id"] == operation["trace_id"])
        .unwrap()
        .clone();
    assert_eq!(listed["root"], "POST /api/vms");
}

fn names(trace: &Value) -> BTreeSet<String> {
    let spans = trace["spans"].as_array().unwrap();
    spans
        .iter()
        .map(|span| span["name"].as_str().unwrap().to_owned())
        .collect()
}

async fn collect(
    State(seen): State<mpsc::UnboundedSender<ExportTraceServiceRequest>>,
    body: Bytes,
) -> StatusCode {
    let Ok(request) = ExportTraceServiceRequest::decode(body) else {
        return StatusCode::BAD_REQUEST;
    };
    let _ = seen.send(request);
    StatusCode::OK
}

#[tokio::test]
async fn a_collector_gets_the_same_trace() {
    let (send, mut seen) = mpsc::unbounded_channel();
    let listener = tokio::net::TcpListener::bind((reachable(), 0)).await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let collector = axum::Router::new()
        .route("/v1/traces", post(collect))
        .with_state(send);
    tokio::spawn(async move { axum::serve(listener, collector).await });
    let mut world = Opening::of("system", "a_collector")
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .start()
        .await;
    let _ = world.admin.post("/api/vms", &machine("web-1")).await.is(200);
    let trace = world.admin.get("/api/operations").await.data()[0]["trace_id"]
        .as_str()
        .unwrap()
        .to_owned();
    // What is not delivered yet is delivered before the end.
    assert!(world.server.terminate().await.success());
    let mut names = BTreeSet::new();
    while let Ok(request) = seen.try_recv() {
        for span in request
            .resource_spans
            .iter()
            .flat_map(|r| &r.scope_spans)
            .flat_map(|s| &s.spans)
        {
            let id: String = span.trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
            if id == trace {
                names.insert(span.name.clone());
            }
        }
    }
    for name in ["POST /api/vms", "clone_template", "wait_guest_agent", "save_vm"] {
        assert!(names.contains(name), "no {name} among {names:?}");
    }
}
