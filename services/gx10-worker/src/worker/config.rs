//! What the worker is told: flags over environment over defaults. The installer writes the environment.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

/// Runs the GPU jobs of Nimbus on this box.
#[derive(Debug, clap::Parser)]
#[command(name = "gx10-worker", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Takes jobs and runs them, one at a time. SIGTERM ends the worker and leaves its job running, for
    /// the next start to go on with; SIGUSR1 ends it after the job.
    Run(Box<Config>),
    /// Lets the running worker finish its job and end; returns when it has.
    Drain {
        /// As it was given to `run`.
        #[arg(long, env = "GX10_STATE_DIR", default_value = STATE_DIR)]
        state_dir: PathBuf,
    },
}

const STATE_DIR: &str = "/var/lib/nimbus-gpu-worker";

/// What `run` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Config {
    /// Address of Nimbus, such as `https://nimbus.example.org`.
    #[arg(long, env = "NIMBUS_URL", value_parser = url)]
    pub(crate) nimbus_url: String,

    /// What the worker shows to Nimbus over HTTP. Better in the environment: arguments can be seen.
    #[arg(long, env = "NIMBUS_WORKER_TOKEN", hide_env_values = true, value_parser = secret)]
    pub(crate) worker_token: SecretString,

    /// The worker's name, as it was paired.
    #[arg(long, env = "GX10_WORKER_ID")]
    pub(crate) worker_id: String,

    /// Where the worker keeps what it holds.
    #[arg(long, env = "GX10_STATE_DIR", default_value = STATE_DIR)]
    pub(crate) state_dir: PathBuf,

    /// The bus of Nimbus, such as `tls://nimbus.example.org:4222`; without it HTTP does everything.
    #[arg(long, env = "GX10_BUS_URL", requires = "bus_credentials")]
    pub(crate) bus_url: Option<String>,

    /// Credentials file for the bus.
    #[arg(long, env = "GX10_BUS_CREDENTIALS")]
    pub(crate) bus_credentials: Option<PathBuf>,

    /// Certificate authority of the bus, PEM, where it is not one that everybody trusts.
    #[arg(long, env = "GX10_BUS_CA")]
    pub(crate) bus_ca: Option<PathBuf>,

    /// Certificate authority of Nimbus' address, PEM, where it is not one that everybody trusts.
    #[arg(long, env = "GX10_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,

    /// Socket of the container engine.
    #[arg(long, env = "GX10_ENGINE_SOCKET", default_value = "/var/run/docker.sock")]
    pub(crate) engine_socket: PathBuf,

    /// How jobs get the GPU: `auto`, `none`, `nvidia` (as `docker run --gpus all`), or `cdi=<device>` such
    /// as `cdi=nvidia.com/gpu=all`.
    #[arg(long = "device-request", env = "GX10_DEVICE_REQUEST", default_value = "auto")]
    pub(crate) devices: Devices,

    /// Bytes of shared memory (`/dev/shm`) of a job; PyTorch's data loaders want a lot.
    #[arg(long, env = "GX10_SHM_BYTES", default_value_t = 8 << 30)]
    pub(crate) shm_bytes: u64,

    /// Bytes that must be free where the engine keeps its data, or no job is taken.
    #[arg(long, env = "GX10_MIN_FREE_BYTES", default_value_t = 1 << 30)]
    pub(crate) min_free_bytes: u64,

    /// How long printed bytes may wait for more before they are sent.
    #[arg(long, env = "GX10_LOG_FLUSH_DELAY", default_value = "200ms", value_parser = humantime::parse_duration)]
    pub(crate) log_flush_delay: Duration,

    /// Bytes after which they wait no longer.
    #[arg(long, env = "GX10_LOG_FLUSH_BYTES", default_value_t = 64 * 1024)]
    pub(crate) log_flush_bytes: usize,

    /// How long Nimbus may refuse this worker until its job is stopped: nobody could be told of its end.
    #[arg(long, env = "GX10_UNPAIRED_AFTER", default_value = "2m", value_parser = humantime::parse_duration)]
    pub(crate) unpaired_after: Duration,

    /// Program that tells about the GPU.
    #[arg(long, env = "GX10_NVIDIA_SMI", default_value = "nvidia-smi")]
    pub(crate) nvidia_smi: PathBuf,
}

/// How jobs get the GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Devices {
    /// By what the engine and the box have.
    Auto,
    /// Not at all.
    None,
    /// All, through the NVIDIA container runtime.
    Nvidia,
    /// These, by the container device interface.
    Cdi(String),
}

impl std::str::FromStr for Devices {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "auto" => Ok(Self::Auto),
            None if text == "none" => Ok(Self::None),
            None if text == "nvidia" => Ok(Self::Nvidia),
            Some(("cdi", device)) if !device.is_empty() => Ok(Self::Cdi(device.to_owned())),
            _ => Err("expected auto, none, nvidia or cdi=<device>".to_owned()),
        }
    }
}

fn url(text: &str) -> Result<String, String> {
    let text = text.trim_end_matches('/');
    match reqwest::Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(text.to_owned()),
        _ => Err("expected an http or https address".to_owned()),
    }
}

fn secret(text: &str) -> Result<SecretString, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    Ok(text.to_owned().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn ways_to_the_gpu_are_read_and_others_refused() {
        assert_eq!("auto".parse(), Ok(Devices::Auto));
        assert_eq!(
            "cdi=nvidia.com/gpu=all".parse(),
            Ok(Devices::Cdi("nvidia.com/gpu=all".into()))
        );
        for bad in ["", "cdi=", "all", "cdi"] {
            assert!(bad.parse::<Devices>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        let cli = Cli::try_parse_from([
            "gx10-worker",
            "run",
            "--nimbus-url",
            "http://10.0.0.1:8080/",
            "--worker-token",
            "verysecret",
            "--worker-id",
            "gx10",
        ])
        .unwrap();
        assert!(!format!("{cli:?}").contains("verysecret"));
        let Command::Run(config) = cli.command else {
            panic!("not run")
        };
        assert_eq!(config.nimbus_url, "http://10.0.0.1:8080");
    }
}
