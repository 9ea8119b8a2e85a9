//! Putting the subscriber together, and taking it down without losing spans.

use std::io::IsTerminal;
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider};
use tracing::{Dispatch, Level, Metadata};
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use url::Url;

use crate::metrics::Metrics;
use crate::traces::{Recorder, Traces};
use crate::{LogFormat, TelemetryConfig};

/// How long a stopping process waits for its last spans to be taken by the collector.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);
/// How long one delivery to the collector may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often spans are delivered.
const EXPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Why telling did not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter's text is not one.
    #[error("{filter:?} is not a log filter: expected directives such as \"info,nimbus_bus=debug\"")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// The collector's address cannot be used.
    #[error("cannot send traces to {endpoint}")]
    Exporter {
        /// The address.
        endpoint: String,
        /// Why not.
        #[source]
        source: opentelemetry_otlp::ExporterBuildError,
    },
    /// The process has a subscriber already.
    #[error("logs and traces were set up twice in one process")]
    Twice,
}

/// Entry point of this crate.
#[derive(Debug)]
pub struct Telemetry;

impl Telemetry {
    /// Installs the subscriber of this process; logs go to standard error.
    ///
    /// # Errors
    ///
    /// A filter or an endpoint that cannot be used, or a second call in one process.
    pub fn init(config: &TelemetryConfig) -> Result<TelemetryGuard, TelemetryError> {
        let (dispatch, guard) = Self::build(config, std::io::stderr, std::io::stderr().is_terminal())?;
        tracing::dispatcher::set_global_default(dispatch).map_err(|_| TelemetryError::Twice)?;
        Ok(guard)
    }

    /// The same subscriber without installing it, writing logs to `writer`.
    ///
    /// # Errors
    ///
    /// A filter or an endpoint that cannot be used.
    pub fn build<W>(
        config: &TelemetryConfig,
        writer: W,
        terminal: bool,
    ) -> Result<(Dispatch, TelemetryGuard), TelemetryError>
    where
        W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
    {
        let filter = EnvFilter::try_new(&config.filter).map_err(|source| TelemetryError::Filter {
            filter: config.filter.clone(),
            source,
        })?;
        let traces = Traces::default();
        let provider = provider(config, &traces)?;
        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());

        let scope = InstrumentationScope::builder("nimbus")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        let spans = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer_with_scope(scope))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(is_traced));

        let logs = logs(config.format, writer, terminal).with_filter(filter);
        let dispatch = Dispatch::new(Registry::default().with(logs).with(spans));
        Ok((
            dispatch,
            TelemetryGuard {
                provider,
                traces,
                metrics: Metrics::default(),
            },
        ))
    }
}

/// Our own spans, and our errors so that they mark their span.
fn is_traced(metadata: &Metadata<'_>) -> bool {
    let ours = metadata.target().starts_with("nimbus");
    if metadata.is_span() {
        ours && *metadata.level() <= Level::DEBUG
    } else {
        ours && *metadata.level() == Level::ERROR
    }
}

fn logs<W>(format: LogFormat, writer: W, terminal: bool) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let human = match format {
        LogFormat::Auto => terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let writer = BoxMakeWriter::new(writer);
    if human {
        tracing_subscriber::fmt::layer()
            .with_writer(writer)
            .with_ansi(terminal)
            .with_target(false)
            .boxed()
    } else {
        tracing_subscriber::fmt::layer()
            .with_writer(writer)
            .with_ansi(false)
            .json()
            .flatten_event(true)
            .boxed()
    }
}

fn provider(config: &TelemetryConfig, traces: &Traces) -> Result<SdkTracerProvider, TelemetryError> {
    let resource = Resource::builder()
        .with_service_name(config.service_name.clone())
        .with_attribute(KeyValue::new("service.instance.id", config.instance.clone()))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let mut builder = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_span_processor(Recorder::new(traces.clone(), config.service_name.clone()));
    if let Some(endpoint) = &config.otlp_endpoint {
        // The processor has a queue of its own (2048 spans) that drops when it is full, and a thread
        // of its own that talks to the collector: neither a slow nor a dead one holds anybody up.
        let batch = BatchSpanProcessor::builder(exporter(endpoint)?)
            .with_batch_config(
                BatchConfigBuilder::default()
                    .with_scheduled_delay(EXPORT_INTERVAL)
                    .build(),
            )
            .build();
        builder = builder.with_span_processor(batch);
    }
    Ok(builder.build())
}

fn exporter(endpoint: &Url) -> Result<opentelemetry_otlp::SpanExporter, TelemetryError> {
    // OTLP/HTTP: the endpoint is a base address; traces go to v1/traces below it.
    let full = format!("{}/v1/traces", endpoint.as_str().trim_end_matches('/'));
    opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
        .with_endpoint(full)
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .map_err(|source| TelemetryError::Exporter {
            endpoint: endpoint.to_string(),
            source,
        })
}

/// Keeps telemetry running; dropping it delivers what is left.
#[derive(Debug)]
pub struct TelemetryGuard {
    provider: SdkTracerProvider,
    traces: Traces,
    metrics: Metrics,
}

impl TelemetryGuard {
    /// The recent traces of this process.
    #[must_use]
    pub fn traces(&self) -> Traces {
        self.traces.clone()
    }

    /// The metrics of this process.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Delivers what is left, for at most two seconds; blocks the thread.
    pub fn shutdown(&self) {
        // A collector that is away has been reported by the exporter; a second call has nothing to do.
        let _ = self.provider.shutdown_with_timeout(FLUSH_LIMIT);
    }
}

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        self.shutdown();
    }
}
