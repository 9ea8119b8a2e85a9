//! Traces: where the time went.

use nimbus_telemetry::{Outcome, Span, SpanKind, Trace, TraceSummary};
use serde::Serialize;
use utoipa::ToSchema;

use super::At;

/// A trace in a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct TraceRowView {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// Name of its first span.
    #[schema(examples("POST /api/vms"))]
    pub root: String,
    /// Service of its first span.
    pub service: String,
    /// When it began.
    pub started_at: At,
    /// From the start of the first span to the end of the last.
    pub duration_ms: f64,
    /// `ok` or `error`.
    pub outcome: &'static str,
    /// How many spans are kept.
    pub spans: usize,
}

impl From<TraceSummary> for TraceRowView {
    fn from(summary: TraceSummary) -> Self {
        Self {
            trace_id: summary.trace_id,
            root: summary.root,
            service: summary.service,
            started_at: summary.started_at.into(),
            duration_ms: summary.duration.as_secs_f64() * 1000.0,
            outcome: outcome(summary.outcome),
            spans: summary.spans,
        }
    }
}

/// A trace with its spans in the order of their start.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct TraceView {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// Its spans.
    pub spans: Vec<SpanView>,
}

/// One span of a trace.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct SpanView {
    /// 16 hexadecimal digits.
    pub span_id: String,
    /// The span it is part of.
    pub parent_id: Option<String>,
    /// What was done.
    pub name: String,
    /// By which service.
    pub service: String,
    /// `internal`, `server`, `client`, `producer` or `consumer`.
    pub kind: &'static str,
    /// Microseconds from the start of the trace.
    pub start_us: u64,
    /// Microseconds it took.
    pub duration_us: u64,
    /// `ok` or `error`.
    pub outcome: &'static str,
    /// What else is known.
    #[schema(value_type = Object)]
    pub attributes: serde_json::Map<String, serde_json::Value>,
}

impl From<Trace> for TraceView {
    fn from(trace: Trace) -> Self {
        Self {
            trace_id: trace.trace_id,
            spans: trace.spans.into_iter().map(SpanView::from).collect(),
        }
    }
}

impl From<Span> for SpanView {
    fn from(span: Span) -> Self {
        Self {
            span_id: span.span_id,
            parent_id: span.parent_id,
            name: span.name,
            service: span.service,
            kind: match span.kind {
                SpanKind::Internal => "internal",
                SpanKind::Server => "server",
                SpanKind::Client => "client",
                SpanKind::Producer => "producer",
                SpanKind::Consumer => "consumer",
            },
            start_us: span.start_us,
            duration_us: span.duration_us,
            outcome: outcome(span.outcome),
            attributes: span.attributes,
        }
    }
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "ok",
        Outcome::Error => "error",
    }
}
