//! Settings of the GPU plane.

use std::time::Duration;

use nimbus_config::{bytes, seconds_or_text};

/// GPU jobs. Flag over environment over file over default.
#[derive(Clone, Debug, clap::Args)]
pub struct GpuConfig {
    /// After how long without a sign of life a GPU box is shown as silent and gets no more jobs.
    #[arg(id = "gpu_silent_after", long = "gpu-silent-after", env = "GPU_SILENT_AFTER_SECONDS", value_name = "TIME",
          default_value = "10s", value_parser = seconds_or_text)]
    pub silent_after: Duration,

    /// After how long without a sign of life a GPU box is lost and the job it ran has failed.
    #[arg(id = "gpu_lost_after", long = "gpu-lost-after", env = "GPU_LOST_AFTER_SECONDS", value_name = "TIME",
          default_value = "120s", value_parser = seconds_or_text)]
    pub lost_after: Duration,

    /// How long a GPU job may run that names no limit; 7 days is the most a job may name.
    #[arg(id = "gpu_time_limit", long = "gpu-time-limit", env = "GPU_TIME_LIMIT_SECONDS", value_name = "TIME",
          default_value = "24h", value_parser = seconds_or_text)]
    pub time_limit: Duration,

    /// How much is kept of the log of one GPU job.
    #[arg(id = "gpu_log_limit", long = "gpu-log-limit", env = "GPU_LOG_LIMIT_BYTES", value_name = "SIZE",
          default_value = "16MiB", value_parser = bytes)]
    pub log_limit: u64,

    /// How large the packed artifacts of one GPU job may be.
    #[arg(id = "gpu_artifact_limit", long = "gpu-artifact-limit", env = "GPU_ARTIFACT_LIMIT_BYTES", value_name = "SIZE",
          default_value = "256MiB", value_parser = bytes)]
    pub artifact_limit: u64,

    /// How long GPU jobs that have ended are kept, with their logs and artifacts; 0 keeps them for ever.
    #[arg(id = "gpu_retention", long = "gpu-retention", env = "GPU_RETENTION_SECONDS", value_name = "TIME",
          default_value = "30d", value_parser = seconds_or_text)]
    pub retention: Duration,
}
