//! One trace over every hop.

use std::sync::LazyLock;

use futures::StreamExt;
use nimbus_bus::{CloudEvent, Done, EventFilter, EventStart, Grants};
use nimbus_model::Clock;
use opentelemetry::trace::{SpanKind, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use tracing_subscriber::layer::SubscriberExt;

use crate::world::*;

/// What every test of this binary has traced.
///
/// One subscriber for all: a scoped one races with tests on other threads that come by the same
/// spans without it.
static SPANS: LazyLock<InMemorySpanExporter> = LazyLock::new(|| {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer)).unwrap();
    exporter
});

/// Records from now on.
pub(crate) fn record() {
    LazyLock::force(&SPANS);
}

#[tokio::test]
async fn a_trace_crosses_calls_events_and_work() {
    let world = World::start().await;
    let service = world.client("sums", &Grants::default().serving("sums")).await;
    let grants = Grants::default()
        .calling::<Double>()
        .publishing("machine")
        .pushing::<Numbers>()
        .pulling::<Numbers>();
    let client = world
        .client("gateway", &grants.following("nimbus.v1.event.machine.>"))
        .await;
    let serving = service
        .serve("sums", "1.0.0", "Sums")
        .method::<Double, _, _>(|call| async move { Ok(call.request * 2) })
        .start()
        .await
        .unwrap();
    let filter = EventFilter {
        subjects: vec!["nimbus.v1.event.machine.>".to_owned()],
        start: EventStart::New,
    };
    let mut events = client.follow(filter).await.unwrap();

    async {
        client.call::<Double>(&1).await.unwrap();
        client
            .publish(&CloudEvent::of(&Made { number: 1 }, "gateway", &Clock::system()))
            .await
            .unwrap();
        client.enqueue::<Numbers>(&1, "1").await.unwrap();
    }
    .instrument(tracing::info_span!("root"))
    .await;
    let event = within(events.next()).await.unwrap().unwrap().event;
    let stop = CancellationToken::new();
    let done = stop.clone();
    let work = client.work::<Numbers, _, _>(1, stop, move |_, _| {
        done.cancel();
        async { Ok(Done::Ack) }
    });
    within(work).await.unwrap();
    within(serving.stop()).await;

    let spans = SPANS.get_finished_spans().unwrap();
    let root = spans.iter().find(|span| span.name == "root").unwrap();
    let trace = root.span_context.trace_id();
    let hop = |kind: SpanKind| {
        spans
            .iter()
            .find(|span| {
                span.name == "sums.double" && span.span_kind == kind && span.span_context.trace_id() == trace
            })
            .unwrap()
    };
    let (caller, callee) = (hop(SpanKind::Client), hop(SpanKind::Server));
    assert_eq!(
        (caller.span_context.trace_id(), callee.span_context.trace_id()),
        (trace, trace)
    );
    assert_eq!(caller.parent_span_id, root.span_context.span_id());
    assert_eq!(callee.parent_span_id, caller.span_context.span_id());
    for (key, value) in [
        ("rpc.service", "sums"),
        ("rpc.method", "double"),
        ("outcome", "ok"),
    ] {
        assert!(
            callee
                .attributes
                .iter()
                .any(|one| one.key.as_str() == key && one.value.as_str() == value),
            "{key}"
        );
    }
    assert!(event.trace_parent.unwrap().contains(&trace.to_string()));
    let creators = |span: &SpanData| {
        span.links
            .iter()
            .map(|link| link.span_context.trace_id())
            .collect::<Vec<_>>()
    };
    let work = spans
        .iter()
        .find(|span| span.name == "work numbers" && creators(span) == [trace])
        .unwrap();
    assert_ne!(
        work.span_context.trace_id(),
        trace,
        "queued work is a trace of its own"
    );
}
