//! `gx10-worker`: runs the jobs of Nimbus on a GPU box.
//!
//! ```text
//!              ┌ beat ──▶ signs of life; answers bring cancels
//!  link ◀──────┤
//!  NATS, else  └ job: image ─▶ container ─▶ log, end ─▶ artifact ─▶ finish ─▶ nothing left
//!  HTTP                │            │
//!                 state (disk)   engine (Docker)
//! ```
//! Three things outlive this process and are enough to go on from: the record of each job it has taken,
//! the container named after the job, and what the server says it already has. So stopping, crashing and
//! being killed are the same to it, and none of them ends a job.

mod artifact;
mod attend;
mod beat;
mod config;
mod container;
mod create;
mod engine;
mod gpu;
mod host;
mod image;
mod job;
mod link;
mod log;
mod outcome;
mod state;
mod worker;

use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

use crate::config::{Cli, Command, Config};
use crate::state::State;

fn main() -> ExitCode {
    look_names_up_plainly();
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::try_from_env("GX10_LOG").unwrap_or_else(|_| EnvFilter::new("info,async_nats=warn")),
        )
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let result = match cli.command {
        Command::Run(config) => serve(*config),
        Command::Drain { state_dir } => drain(&state_dir),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// Has names looked up in `/etc/hosts` and by DNS, whatever `/etc/nsswitch.conf` says: anything else are
/// libraries of the box, made for another C library than the one in this static program, and loading them
/// may end it. So names of the local network that only multicast knows (`nimbus.local`) are not found.
#[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
#[expect(unsafe_code, reason = "the C library has no other door")]
fn look_names_up_plainly() {
    unsafe extern "C" {
        fn __nss_configure_lookup(
            database: *const std::ffi::c_char,
            services: *const std::ffi::c_char,
        ) -> std::ffi::c_int;
    }
    // SAFETY: a function of glibc with this signature; both texts end with a zero byte and live forever;
    // nothing else runs yet that could look a name up.
    let _kept = unsafe { __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr()) };
}

#[cfg(not(all(target_env = "gnu", target_feature = "crt-static")))]
fn look_names_up_plainly() {}

/// Runs jobs until it is told to stop, or to stop after the present one.
fn serve(config: Config) -> Result<(), String> {
    // One thread: a job's log comes in small pieces through three tasks, and waking another thread for each
    // costs more than all the rest.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    let served = runtime.block_on(async {
        let (stop, drain) = (CancellationToken::new(), CancellationToken::new());
        listen(&stop, &drain).map_err(|error| format!("cannot listen for signals: {error}"))?;
        Box::pin(worker::run(config, stop, drain))
            .await
            .map_err(|error| error.to_string())
    });
    // A call that still hangs somewhere does not hold up the end.
    runtime.shutdown_background();
    served
}

/// SIGTERM and SIGINT stop at once; SIGUSR1 stops after the present job.
fn listen(stop: &CancellationToken, drain: &CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut user = signal(SignalKind::user_defined1())?;
    let (stop, drain) = (stop.clone(), drain.clone());
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = user.recv() => {
                    info!("draining: stopping after the present job");
                    drain.cancel();
                }
            }
        }
        stop.cancel();
    });
    Ok(())
}

/// Lets the running worker finish its job, and waits for that.
fn drain(dir: &std::path::Path) -> Result<(), String> {
    let pid = State::owner(dir).map_err(|error| error.to_string())?;
    let Some(pid) = pid else {
        return Err(format!("no worker runs on {}", dir.display()));
    };
    rustix::process::kill_process(pid, rustix::process::Signal::USR1)
        .map_err(|error| format!("cannot signal the worker: {error}"))?;
    State::wait_released(dir).map_err(|error| error.to_string())
}
