//! Keeps an operation in the trace of the request that asked for it, across queue and restart.

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The current span as a W3C `traceparent`; `None` when nobody records traces.
pub(crate) fn current() -> Option<String> {
    let context = Span::current().context();
    let span = context.span();
    let span = span.span_context();
    span.is_valid().then(|| {
        format!(
            "00-{}-{}-{:02x}",
            span.trace_id(),
            span.span_id(),
            span.trace_flags().to_u8()
        )
    })
}

/// Puts `span` under the span that `parent` names.
pub(crate) fn adopt(span: &Span, parent: Option<&str>) {
    let Some(mut parts) = parent.map(|text| text.split('-').skip(1)) else {
        return;
    };
    let (Some(trace), Some(id)) = (parts.next(), parts.next()) else {
        return;
    };
    if let (Ok(trace), Ok(id)) = (TraceId::from_hex(trace), SpanId::from_hex(id)) {
        let context = SpanContext::new(trace, id, TraceFlags::SAMPLED, true, TraceState::NONE);
        // Fails only for a span that was entered already; then the trace merely splits.
        let _ = span.set_parent(Context::new().with_remote_span_context(context));
    }
}
