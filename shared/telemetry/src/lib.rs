//! Logs, traces and metrics of one process.
//!
//! [`Telemetry::init`] installs the process' subscriber: logs for people on a terminal and JSON
//! otherwise, and spans that go to the recent-traces store ([`Traces`]) and, when an endpoint is
//! set, over OTLP to a collector. [`Metrics`] is the Prometheus registry.
//!
//! Spans cross processes as W3C trace context; the propagator is installed globally, so that the bus
//! finds it.

mod config;
mod init;
mod metrics;
mod traces;

pub use config::{LogFormat, TelemetryArgs, TelemetryConfig};
pub use init::{Telemetry, TelemetryError, TelemetryGuard};
pub use metrics::{Gauges, Metrics, OpenStream};
pub use traces::{Outcome, Span, SpanKind, Trace, TraceSummary, Traces};
