//! Telemetry against a real collector, a dead one, and a writer that keeps the lines.

use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use nimbus_telemetry::{LogFormat, Outcome, Telemetry, TelemetryConfig};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no panic in between").clone()).expect("UTF-8")
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0
            .lock()
            .expect("no panic in between")
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn config(endpoint: Option<String>) -> TelemetryConfig {
    TelemetryConfig {
        format: LogFormat::Auto,
        filter: "info".into(),
        otlp_endpoint: endpoint.map(|e| e.parse().expect("a URL")),
        service_name: "nimbus".into(),
        instance: "test-1".into(),
    }
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_reach_a_collector_with_their_parents_and_their_process() {
    let (send, mut seen) = mpsc::unbounded_channel();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("loopback");
    let address = listener.local_addr().expect("bound");
    let app = Router::new().route("/v1/traces", post(collect)).with_state(send);
    tokio::spawn(async move { axum::serve(listener, app).await });

    let (dispatch, guard) =
        Telemetry::build(&config(Some(format!("http://{address}"))), std::io::sink, false)
            .expect("a good config");
    tracing::dispatcher::with_default(&dispatch, || {
        let outer = tracing::info_span!(target: "nimbus_gateway", "request", otel.name = "GET /api/vms", otel.kind = "server");
        outer.in_scope(|| tracing::info_span!(target: "nimbus_bus", "call").in_scope(|| {}));
        tracing::info_span!(target: "hyper", "not ours").in_scope(|| {});
    });
    tokio::task::spawn_blocking(move || drop(guard))
        .await
        .expect("no panic");

    let request = seen.recv().await.expect("a delivery");
    let resource = request.resource_spans.first().expect("one process");
    let attributes = format!("{:?}", resource.resource);
    assert!(
        attributes.contains("nimbus") && attributes.contains("test-1"),
        "{attributes}"
    );
    let spans: Vec<_> = resource.scope_spans.iter().flat_map(|s| &s.spans).collect();
    let outer = spans
        .iter()
        .find(|s| s.name == "GET /api/vms")
        .expect("the outer span");
    let inner = spans.iter().find(|s| s.name == "call").expect("the inner span");
    assert_eq!(inner.parent_span_id, outer.span_id);
    assert_eq!(inner.trace_id, outer.trace_id);
    assert!(spans.iter().all(|s| s.name != "not ours"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_never_answers_holds_nobody_up() {
    // Bound, so that connections succeed, but nobody ever accepts or answers.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("loopback");
    let address = listener.local_addr().expect("bound");
    let (dispatch, guard) =
        Telemetry::build(&config(Some(format!("http://{address}/"))), std::io::sink, false)
            .expect("a good config");
    tracing::dispatcher::with_default(&dispatch, || {
        for _ in 0..5_000 {
            tracing::info_span!(target: "nimbus_x", "work").in_scope(|| {});
        }
    });
    assert_eq!(guard.traces().newest(5_000).len(), 500, "memory keeps its own");
    // Comes back although nothing was delivered; the test would hang otherwise.
    tokio::task::spawn_blocking(move || drop(guard))
        .await
        .expect("no panic");
}

#[test]
fn logs_are_json_unless_a_person_reads_them_and_spans_stay_in_memory() {
    let lines = Lines::default();
    let writer = lines.clone();
    let (dispatch, guard) =
        Telemetry::build(&config(None), move || writer.clone(), false).expect("a good config");
    tracing::dispatcher::with_default(&dispatch, || {
        let span = tracing::info_span!(target: "nimbus_auth::login", "login", otel.name = "sign in");
        span.in_scope(|| {
            tracing::info!(target: "nimbus_auth", { user.id = "usr_1" }, "signed in");
            tracing::error!(target: "nimbus_auth", "disk full");
        });
    });
    let text = lines.text();
    let first: serde_json::Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
    assert_eq!(
        (first["message"].as_str(), first["user.id"].as_str()),
        (Some("signed in"), Some("usr_1"))
    );
    let newest = guard.traces().newest(10);
    let summary = newest.first().expect("one trace");
    assert_eq!(
        (summary.root.as_str(), summary.service.as_str(), summary.outcome),
        ("sign in", "auth", Outcome::Error)
    );

    let people = Lines::default();
    let writer = people.clone();
    let (dispatch, _guard) =
        Telemetry::build(&config(None), move || writer.clone(), true).expect("a good config");
    tracing::dispatcher::with_default(&dispatch, || tracing::info!("ready"));
    assert!(
        people.text().contains("ready") && !people.text().starts_with('{'),
        "{}",
        people.text()
    );
}

#[test]
fn a_filter_that_is_none_is_refused_with_what_was_expected() {
    let mut wrong = config(None);
    wrong.filter = "info=loud=x".into();
    let error = Telemetry::build(&wrong, std::io::sink, false)
        .expect_err("refused")
        .to_string();
    assert!(
        error.contains("info=loud=x") && error.contains("expected"),
        "{error}"
    );
}
