//! W3C trace context, so that one trace crosses every hop: in message headers, and kept beside work
//! that goes on later.
//!
//! Written out here rather than through the global propagator: it is one header of fixed form, and
//! works before and without any telemetry set-up.

use async_nats::HeaderMap;
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::header;

/// The `traceparent` text of the current span, to be kept with work that goes on later; `None` when
/// nobody records traces.
#[must_use]
pub fn current() -> Option<String> {
    parent_of(&Span::current())
}

/// The `traceparent` text of `span`; `None` when nobody records traces.
pub(crate) fn parent_of(span: &Span) -> Option<String> {
    let context = span.context();
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

/// Puts the context of `span` into the headers.
pub(crate) fn inject(span: &Span, headers: &mut HeaderMap) {
    if let Some(parent) = parent_of(span) {
        headers.insert(header::TRACEPARENT, parent);
    }
}

/// Makes the sender's span the parent of `span`.
pub(crate) fn adopt(span: &Span, headers: Option<&HeaderMap>) {
    resume(span, header::text(headers, header::TRACEPARENT));
}

/// Puts `span` under the span that a `traceparent` names, as a message brought it or as it was kept.
pub fn resume(span: &Span, parent: Option<&str>) {
    if span.is_disabled() {
        return;
    }
    if let Some(parent) = parent.and_then(parse) {
        // It fails only for a span that was already entered, and then the trace merely splits.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
}

/// Links `span` to the sender's: queued work belongs to its creator's story, but is not inside it.
pub(crate) fn link(span: &Span, headers: Option<&HeaderMap>) {
    if let Some(creator) = header::text(headers, header::TRACEPARENT).and_then(parse) {
        span.add_link(creator);
    }
}

/// W3C Trace Context, section 3.2: `version-traceid-parentid-flags`.
fn parse(text: &str) -> Option<SpanContext> {
    let mut parts = text.split('-');
    let version = parts.next()?;
    if version.len() != 2 || version == "ff" {
        return None;
    }
    let trace = TraceId::from_hex(parts.next().filter(|part| part.len() == 32)?).ok()?;
    let span = SpanId::from_hex(parts.next().filter(|part| part.len() == 16)?).ok()?;
    let flags = u8::from_str_radix(parts.next()?, 16).ok()?;
    let context = SpanContext::new(trace, span, TraceFlags::new(flags & 1), true, TraceState::NONE);
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification_parses_and_nonsense_does_not() {
        let context = parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        assert_eq!(context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(context.is_sampled() && context.is_remote());
        for bad in [
            "",
            "00",
            "00-0-0-00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
