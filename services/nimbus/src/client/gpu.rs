//! `nimbus gpu`: jobs for GPU boxes, the boxes, and the inference endpoint.

mod boxes;
mod jobs;

use std::process::ExitCode;
use std::time::Duration;

use camino::Utf8PathBuf;

use super::ClientArgs;
use crate::problem::Outcome;

/// Run jobs on GPU boxes, and look after the boxes.
#[derive(Debug, clap::Args)]
pub(crate) struct GpuArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    #[command(subcommand)]
    command: GpuCommand,
}

#[derive(Debug, clap::Subcommand)]
enum GpuCommand {
    /// Put a job at the end of the queue, and print its id.
    Submit(SubmitArgs),
    /// List your jobs: those that wait first, then the newest.
    #[command(visible_alias = "ls")]
    Jobs {
        /// Only those in this state: queued, running, succeeded, failed or cancelled.
        #[arg(long)]
        state: Option<String>,
    },
    /// Show everything about a job.
    #[command(visible_alias = "describe")]
    Job(Which),
    /// Print what a job has printed.
    Logs {
        #[command(flatten)]
        which: Which,
        /// Go on until the job has ended.
        #[arg(long, short)]
        follow: bool,
        /// Begin at this byte.
        #[arg(long, default_value_t = 0)]
        offset: u64,
    },
    /// Cancel a job; a running one is stopped.
    Cancel(Which),
    /// Fetch what a job left in its folder for artifacts, as .tar.gz.
    Artifact {
        #[command(flatten)]
        which: Which,
        /// Where to put it; `-` for stdout [default: JOB.tar.gz].
        #[arg(long, short)]
        file: Option<Utf8PathBuf>,
    },
    /// List the boxes that run jobs.
    Workers,
    /// Print the line that makes a box a worker; paste it there.
    Pair {
        /// Replace the credentials of this box instead.
        #[arg(long, value_name = "BOX")]
        rotate: Option<String>,
    },
    /// Let a box take jobs, pause it, or let it end what it has first.
    Set {
        /// The box.
        #[arg(value_name = "BOX")]
        name: String,
        /// What it shall do.
        standing: Standing,
    },
    /// Forget a box. What it runs is cancelled.
    Unpair {
        /// The box.
        #[arg(value_name = "BOX")]
        name: String,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
    /// Show the inference endpoint and its models.
    Inference,
    /// Show what was used of models, by day.
    Usage {
        /// How many days back.
        #[arg(long, default_value_t = 30)]
        days: u32,
        /// What everybody used; for administrators.
        #[arg(long)]
        all: bool,
    },
}

/// What a box shall do about jobs.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Standing {
    /// Take them.
    Active,
    /// Take none.
    Paused,
    /// End the one it has, and pause then.
    Draining,
}

/// One job.
#[derive(Clone, Debug, clap::Args)]
struct Which {
    /// Its id, `job_…`.
    #[arg(value_name = "JOB")]
    job: String,
}

/// A job to be submitted.
#[derive(Clone, Debug, clap::Args)]
struct SubmitArgs {
    /// Reference of its image.
    image: String,
    /// What to run, exactly these arguments; what the image says when there are none.
    #[arg(last = true, value_name = "ARG")]
    command: Vec<String>,
    /// A line for the image's `sh -c` instead.
    #[arg(long, value_name = "LINE", conflicts_with = "command")]
    shell: Option<String>,
    /// A variable of its environment; may be repeated.
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// A dataset of the box, at /datasets/NAME; `:rw` to write to it. May be repeated.
    #[arg(long, value_name = "NAME[:rw]")]
    dataset: Vec<String>,
    /// Boxes that may run it.
    #[arg(long)]
    pool: Option<String>,
    /// The machine it is for.
    #[arg(long, value_name = "VM")]
    vm: Option<String>,
    /// How long it may run [default: a day].
    #[arg(long, value_parser = nimbus_config::seconds_or_text)]
    time: Option<Duration>,
    /// Memory it may use, such as 8GiB.
    #[arg(long, value_parser = super::sandbox::spec::bytes)]
    memory: Option<u64>,
    /// Higher goes first; for administrators.
    #[arg(long, allow_hyphen_values = true)]
    priority: Option<i32>,
    /// Run it again when its box is lost.
    #[arg(long)]
    rerun: bool,
    /// Print what it prints, and end as it does.
    #[arg(long, short)]
    follow: bool,
}

fn variable(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "expected NAME=VALUE".to_owned())
}

pub(crate) async fn run(args: GpuArgs) -> Outcome<ExitCode> {
    let api = args.client.api()?;
    let format = args.client.output;
    let done = match args.command {
        GpuCommand::Submit(order) => return jobs::submit(&api, order, format).await,
        GpuCommand::Logs {
            which,
            follow: true,
            offset,
        } => {
            jobs::follow(&api, &which.job, offset).await?;
            Ok(())
        }
        GpuCommand::Logs { which, offset, .. } => jobs::log(&api, &which.job, offset).await,
        GpuCommand::Jobs { state } => jobs::list(&api, state.as_deref(), format).await,
        GpuCommand::Job(which) => jobs::get(&api, &which.job, format).await,
        GpuCommand::Cancel(which) => jobs::cancel(&api, &which.job, format).await,
        GpuCommand::Artifact { which, file } => jobs::artifact(&api, &which.job, file).await,
        GpuCommand::Workers => boxes::list(&api, format).await,
        GpuCommand::Pair { rotate } => boxes::pair(&api, rotate.as_deref(), format).await,
        GpuCommand::Set { name, standing } => boxes::set(&api, &name, standing, format).await,
        GpuCommand::Unpair { name, yes } => boxes::unpair(&api, &name, yes, format).await,
        GpuCommand::Inference => boxes::inference(&api, format).await,
        GpuCommand::Usage { days, all } => boxes::usage(&api, days, all, format).await,
    };
    done.map(|()| ExitCode::SUCCESS)
}
