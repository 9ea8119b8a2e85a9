//! The last traces of this process, in memory.
//!
//! A trace is kept while it is among the last [`MAX_TRACES`]. Traces that only read (a `GET` at the
//! edge) make way first, so that a page that polls does not push out the provision one wants to see.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nimbus_model::Timestamp;
use opentelemetry::trace::{SpanId, Status, TraceId};
use opentelemetry::{Array, Value};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanProcessor};
use serde::Serialize;

/// Traces that are kept.
pub(crate) const MAX_TRACES: usize = 500;
/// Of those, traces that only read.
pub(crate) const MAX_READS: usize = 100;
/// Spans that are kept of one trace; the longest stay. A span is at least as long as what it is made
/// of, so that steps outlive the many short calls inside them.
pub(crate) const MAX_SPANS: usize = 512;

/// Attribute that names the service a span belongs to.
const SERVICE: &str = "service.name";
/// Attribute of calls on the bus: who is called.
const RPC_SERVICE: &str = "rpc.service";
/// Attribute that `tracing` spans carry: the crate and module they were made in.
const TARGET: &str = "target";
/// Attribute of requests at the edge.
const METHOD: &str = "http.request.method";

/// How a span ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Without an error.
    Ok,
    /// With one.
    Error,
}

/// Which side of a call a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SpanKind {
    /// Work inside one process.
    Internal,
    /// The answering side of a call.
    Server,
    /// The asking side of a call.
    Client,
    /// The sending side of a message.
    Producer,
    /// The receiving side of a message.
    Consumer,
}

/// A trace in a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TraceSummary {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// Name of its first span.
    pub root: String,
    /// Service of its first span.
    pub service: String,
    /// When its first span began.
    pub started_at: Timestamp,
    /// From the start of the first span to the end of the last.
    pub duration: Duration,
    /// Outcome of its first span.
    pub outcome: Outcome,
    /// How many spans are kept.
    pub spans: usize,
}

/// One span of a trace.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Span {
    /// 16 hexadecimal digits.
    pub span_id: String,
    /// The span it is part of.
    pub parent_id: Option<String>,
    /// What was done.
    pub name: String,
    /// By which service.
    pub service: String,
    /// Which side of a call it is.
    pub kind: SpanKind,
    /// Microseconds from the start of the trace.
    pub start_us: u64,
    /// Microseconds it took.
    pub duration_us: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// What else is known.
    pub attributes: serde_json::Map<String, serde_json::Value>,
}

/// A trace with its spans, in the order of their start.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trace {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// Its spans.
    pub spans: Vec<Span>,
}

/// The store; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Traces {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    traces: HashMap<TraceId, Entry>,
    /// Traces that changed something, or may still turn out to; oldest first.
    others: VecDeque<TraceId>,
    /// Traces that only read; oldest first.
    reads: VecDeque<TraceId>,
}

#[derive(Debug)]
struct Entry {
    spans: Vec<SpanData>,
    process: Arc<str>,
    reads: bool,
}

impl Traces {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest traces, newest first.
    #[must_use]
    pub fn newest(&self, limit: usize) -> Vec<TraceSummary> {
        let kept = self.lock();
        let mut all: Vec<_> = kept
            .traces
            .iter()
            .filter_map(|(id, entry)| entry.summary(*id))
            .collect();
        all.sort_by_key(|summary| std::cmp::Reverse(summary.started_at));
        all.truncate(limit);
        all
    }

    /// The trace with this id; `None` when it is not kept or the text is not an id.
    #[must_use]
    pub fn get(&self, trace_id: &str) -> Option<Trace> {
        let id = TraceId::from_hex(trace_id).ok()?;
        let kept = self.lock();
        kept.traces.get(&id).map(|entry| entry.trace(id))
    }

    fn add(&self, span: SpanData, process: &Arc<str>) {
        let id = span.span_context.trace_id();
        let reads = span
            .attributes
            .iter()
            .any(|a| a.key.as_str() == METHOD && a.value.as_str() == "GET");
        let mut kept = self.lock();
        let kept = &mut *kept;
        let entry = kept.traces.entry(id).or_insert_with(|| {
            kept.others.push_back(id);
            Entry {
                spans: Vec::with_capacity(4),
                process: Arc::clone(process),
                reads: false,
            }
        });
        if entry.spans.len() < MAX_SPANS {
            entry.spans.push(span);
        } else if let Some(shortest) = entry.spans.iter_mut().min_by_key(|s| length(s))
            && length(shortest) < length(&span)
        {
            *shortest = span;
        }
        if reads && !entry.reads {
            entry.reads = true;
            // The span that tells comes last of its trace, and traces are short: it is near the end.
            if let Some(at) = kept.others.iter().rposition(|other| *other == id) {
                kept.others.remove(at);
            }
            kept.reads.push_back(id);
        }
        while kept.reads.len() > MAX_READS || (kept.traces.len() > MAX_TRACES && !kept.reads.is_empty()) {
            if let Some(oldest) = kept.reads.pop_front() {
                kept.traces.remove(&oldest);
            }
        }
        while kept.traces.len() > MAX_TRACES {
            let Some(oldest) = kept.others.pop_front() else {
                break;
            };
            kept.traces.remove(&oldest);
        }
    }
}

impl Entry {
    /// The span that others are part of: the earliest among those whose parent is not kept.
    fn root(&self) -> Option<&SpanData> {
        let is_here = |id: SpanId| self.spans.iter().any(|s| s.span_context.span_id() == id);
        self.spans
            .iter()
            .filter(|s| !is_here(s.parent_span_id))
            .min_by_key(|s| s.start_time)
    }

    fn begin(&self) -> SystemTime {
        self.spans
            .iter()
            .map(|s| s.start_time)
            .min()
            .unwrap_or(UNIX_EPOCH)
    }

    fn summary(&self, id: TraceId) -> Option<TraceSummary> {
        let root = self.root()?;
        let begin = self.begin();
        let end = self.spans.iter().map(|s| s.end_time).max().unwrap_or(begin);
        Some(TraceSummary {
            trace_id: id.to_string(),
            root: root.name.to_string(),
            service: self.service(root),
            started_at: Timestamp::from_micros(i64::try_from(micros(UNIX_EPOCH, begin)).unwrap_or(i64::MAX)),
            duration: end.duration_since(begin).unwrap_or_default(),
            outcome: outcome(root),
            spans: self.spans.len(),
        })
    }

    fn trace(&self, id: TraceId) -> Trace {
        let begin = self.begin();
        let mut spans: Vec<_> = self.spans.iter().collect();
        spans.sort_by_key(|s| s.start_time);
        let spans = spans.into_iter().map(|s| self.span(s, begin)).collect();
        Trace {
            trace_id: id.to_string(),
            spans,
        }
    }

    fn span(&self, data: &SpanData, begin: SystemTime) -> Span {
        let shown = data
            .attributes
            .iter()
            .filter(|a| !matches!(a.key.as_str(), SERVICE | TARGET));
        let mut attributes: serde_json::Map<_, _> =
            shown.map(|a| (a.key.to_string(), json(&a.value))).collect();
        if let Status::Error { description } = &data.status
            && !description.is_empty()
        {
            attributes.insert("error".to_owned(), description.to_string().into());
        }
        Span {
            span_id: data.span_context.span_id().to_string(),
            parent_id: (data.parent_span_id != SpanId::INVALID).then(|| data.parent_span_id.to_string()),
            name: data.name.to_string(),
            service: self.service(data),
            kind: match data.span_kind {
                opentelemetry::trace::SpanKind::Server => SpanKind::Server,
                opentelemetry::trace::SpanKind::Client => SpanKind::Client,
                opentelemetry::trace::SpanKind::Producer => SpanKind::Producer,
                opentelemetry::trace::SpanKind::Consumer => SpanKind::Consumer,
                opentelemetry::trace::SpanKind::Internal => SpanKind::Internal,
            },
            start_us: micros(begin, data.start_time),
            duration_us: micros(data.start_time, data.end_time),
            outcome: outcome(data),
            attributes,
        }
    }

    /// The service that a span names, or that its crate is, or that of the span around it.
    fn service(&self, span: &SpanData) -> String {
        let mut at = span;
        for _ in 0..MAX_SPANS {
            if let Some(name) = own_service(at) {
                return name;
            }
            let Some(parent) = self
                .spans
                .iter()
                .find(|s| s.span_context.span_id() == at.parent_span_id)
            else {
                break;
            };
            at = parent;
        }
        self.process.to_string()
    }
}

fn own_service(span: &SpanData) -> Option<String> {
    let find = |key: &str| {
        span.attributes
            .iter()
            .find(|a| a.key.as_str() == key)
            .map(|a| a.value.as_str().into_owned())
    };
    // The answering side of a call on the bus belongs to the service that is called.
    let called = || {
        matches!(span.span_kind, opentelemetry::trace::SpanKind::Server)
            .then(|| find(RPC_SERVICE))
            .flatten()
    };
    find(SERVICE).or_else(called).or_else(|| {
        let target = find(TARGET)?;
        let krate = target.split("::").next()?.strip_prefix("nimbus_")?;
        matches!(krate, "gateway" | "auth" | "ippool" | "provisioner").then(|| krate.to_owned())
    })
}

fn length(span: &SpanData) -> Duration {
    span.end_time.duration_since(span.start_time).unwrap_or_default()
}

fn outcome(span: &SpanData) -> Outcome {
    if matches!(span.status, Status::Error { .. }) {
        Outcome::Error
    } else {
        Outcome::Ok
    }
}

fn micros(from: SystemTime, to: SystemTime) -> u64 {
    u64::try_from(to.duration_since(from).unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
}

fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Bool(v) => (*v).into(),
        Value::I64(v) => (*v).into(),
        Value::F64(v) => (*v).into(),
        Value::String(v) => v.as_str().into(),
        Value::Array(Array::Bool(v)) => v.clone().into(),
        Value::Array(Array::I64(v)) => v.clone().into(),
        Value::Array(Array::F64(v)) => v.clone().into(),
        Value::Array(Array::String(v)) => v.iter().map(|s| s.as_str()).collect(),
        other => other.to_string().into(),
    }
}

/// Puts ended spans into the store.
#[derive(Debug)]
pub(crate) struct Recorder {
    traces: Traces,
    process: Arc<str>,
}

impl Recorder {
    pub(crate) fn new(traces: Traces, process: String) -> Self {
        Self {
            traces,
            process: process.into(),
        }
    }
}

impl SpanProcessor for Recorder {
    fn on_start(&self, _: &mut opentelemetry_sdk::trace::Span, _: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            self.traces.add(span, &self.process);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::KeyValue;
    use opentelemetry::trace::{SpanContext, TraceFlags, TraceState};

    fn span(trace: u128, id: u64, parent: u64, at_ms: u64, attributes: Vec<KeyValue>) -> SpanData {
        SpanData {
            span_context: SpanContext::new(
                TraceId::from(trace),
                SpanId::from(id),
                TraceFlags::SAMPLED,
                false,
                TraceState::default(),
            ),
            parent_span_id: SpanId::from(parent),
            parent_span_is_remote: false,
            span_kind: opentelemetry::trace::SpanKind::Internal,
            name: format!("span {id}").into(),
            start_time: UNIX_EPOCH + Duration::from_millis(at_ms),
            end_time: UNIX_EPOCH + Duration::from_millis(at_ms + 5),
            attributes,
            dropped_attributes_count: 0,
            events: Default::default(),
            links: Default::default(),
            status: Status::Unset,
            instrumentation_scope: Default::default(),
        }
    }

    fn target(text: &'static str) -> Vec<KeyValue> {
        vec![KeyValue::new("target", text)]
    }

    #[test]
    fn reads_make_way_for_what_changes_something() {
        let (traces, process) = (Traces::default(), Arc::from("nimbus"));
        traces.add(span(1, 1, 0, 0, vec![KeyValue::new(METHOD, "POST")]), &process);
        for id in 2..1000 {
            traces.add(span(id, 1, 0, 1, vec![KeyValue::new(METHOD, "GET")]), &process);
        }
        assert!(traces.get(&TraceId::from(1).to_string()).is_some());
        assert_eq!(traces.newest(1000).len(), MAX_READS + 1);
        for id in 1000..2000 {
            traces.add(span(id, 1, 0, 2, vec![]), &process);
        }
        assert_eq!(traces.newest(5000).len(), MAX_TRACES);
        assert!(
            traces.get(&TraceId::from(1).to_string()).is_none(),
            "the oldest went"
        );
    }

    #[test]
    fn a_trace_keeps_its_longest_spans() {
        let (traces, process) = (Traces::default(), Arc::from("nimbus"));
        for id in 1..2000 {
            traces.add(span(1, id, 2000, id, vec![]), &process);
        }
        let mut step = span(1, 2000, 0, 0, vec![]);
        step.end_time = UNIX_EPOCH + Duration::from_secs(60);
        traces.add(step, &process);
        let trace = traces.get(&TraceId::from(1).to_string()).expect("kept");
        assert_eq!(trace.spans.len(), MAX_SPANS);
        assert_eq!(trace.spans[0].name, "span 2000");
    }

    #[test]
    fn spans_are_told_by_service_and_in_order_from_the_start_of_the_trace() {
        let (traces, process) = (Traces::default(), Arc::from("nimbus"));
        traces.add(span(7, 3, 2, 20, target("nimbus_proxmox::client")), &process);
        traces.add(span(7, 2, 1, 10, target("nimbus_provisioner::saga")), &process);
        traces.add(span(7, 1, 0, 5, target("nimbus_gateway::layers")), &process);
        let trace = traces.get(&TraceId::from(7).to_string()).expect("kept");
        let told: Vec<_> = trace
            .spans
            .iter()
            .map(|s| (s.service.as_str(), s.start_us, s.duration_us))
            .collect();
        assert_eq!(
            told,
            [
                ("gateway", 0, 5000),
                ("provisioner", 5000, 5000),
                ("provisioner", 15000, 5000)
            ]
        );
        assert_eq!(trace.spans[0].parent_id, None);
        let summary = &traces.newest(1)[0];
        assert_eq!(
            (summary.root.as_str(), summary.duration, summary.spans),
            ("span 1", Duration::from_millis(20), 3)
        );
    }

    #[test]
    fn text_that_is_no_id_finds_nothing() {
        assert!(Traces::default().get("../etc").is_none());
    }
}
