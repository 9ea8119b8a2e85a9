//! What to tell, how, and to whom.

use url::Url;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people when standard error is a terminal, JSON otherwise.
    #[default]
    Auto,
    /// Lines for people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Settings of [`Telemetry`](crate::Telemetry).
#[derive(Clone, Debug)]
pub struct TelemetryConfig {
    /// How log lines look.
    pub format: LogFormat,
    /// Which log lines are written: `tracing` directives such as `info,nimbus_bus=debug`.
    pub filter: String,
    /// Base address of an OTLP/HTTP collector; spans stay in the process without one.
    pub otlp_endpoint: Option<Url>,
    /// `service.name` of the process.
    pub service_name: String,
    /// `service.instance.id` of the process.
    pub instance: String,
}

/// Logs and traces. Flag over environment over file over default.
#[derive(Clone, Debug, clap::Args)]
pub struct TelemetryArgs {
    /// How log lines look: for people, JSON, or by whether standard error is a terminal
    #[arg(long, env = "NIMBUS_LOG_FORMAT", value_enum, default_value = "auto")]
    pub log_format: LogFormat,
    /// Which log lines are written, as in `info,nimbus_bus=debug`
    #[arg(long, env = "NIMBUS_LOG", default_value = "info")]
    pub log: String,
    /// Base address of an OTLP/HTTP collector, such as `http://127.0.0.1:4318`; traces stay in memory without one
    #[arg(
        id = "otlp_endpoint",
        long = "otlp-endpoint",
        env = "OTEL_EXPORTER_OTLP_ENDPOINT"
    )]
    pub otlp_endpoint: Option<Url>,
}

impl TelemetryArgs {
    /// The settings of a process of this name.
    #[must_use]
    pub fn into_config(
        self,
        service_name: impl Into<String>,
        instance: impl Into<String>,
    ) -> TelemetryConfig {
        TelemetryConfig {
            format: self.log_format,
            filter: self.log,
            otlp_endpoint: self.otlp_endpoint,
            service_name: service_name.into(),
            instance: instance.into(),
        }
    }
}
