//! `nimbus sandbox run` and `create`.

use std::process::ExitCode;
use std::time::Duration;

use nimbus_errors::Code;
use reqwest::Method;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use super::spec::SpecArgs;
use super::wait::{self, is_over, started, state};
use super::{complaint, never_began, remove, told};
use crate::client::logs::{self, LogArgs};
use crate::client::session::Lease;
use crate::client::stdio::{End, Mode, Seat};
use crate::client::terminal;
use crate::client::workloads::{WorkloadArgs, Workloads, text};
use crate::output::{self, Format};
use crate::problem::{Outcome, Problem};

/// A sandbox whose creator has died is stopped after this time.
const IDLE: Duration = Duration::from_secs(600);
/// Nimbus failed, not the command.
const FAILED: u8 = 125;
/// A session may be refused this often while a sandbox changes its state.
const TRIES: u32 = 20;

/// Run a command in a new sandbox, and remove it when it ends.
///
/// The exit code is that of the command; 125 when Nimbus failed, 126 when the command could not be run,
/// 127 when it was not found.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Pass stdin on to the command.
    #[arg(long, short)]
    interactive: bool,
    /// Give the command a terminal.
    #[arg(long, short)]
    tty: bool,
    #[command(flatten)]
    spec: SpecArgs,
}

/// Make a sandbox and print its id.
#[derive(Debug, clap::Args)]
pub(crate) struct CreateArgs {
    /// Give the main process a terminal.
    #[arg(long, short)]
    tty: bool,
    /// Do not wait until it runs.
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    spec: SpecArgs,
}

pub(crate) async fn create(workloads: &Workloads, args: CreateArgs, format: Format) -> Outcome {
    let made = make(workloads, &args.spec.body(args.tty), &args.spec.image).await?;
    let id = id_of(&made)?;
    if args.no_wait {
        return told(&id, &made, format);
    }
    let resource = started(workloads, &id, Some(made)).await?;
    told(&id, &resource, format)?;
    if state(&resource) == "failed" {
        return Err(Problem::failed(format!("{id} did not start"))
            .why(complaint(&resource).unwrap_or_else(|| "its process failed".to_owned()))
            .next(format!("nimbus sandbox logs {id}")));
    }
    Ok(())
}

async fn make(workloads: &Workloads, body: &Value, image: &str) -> Outcome<Value> {
    workloads
        .send(
            Method::POST,
            &["sandboxes"],
            Some(body),
            &format!("could not make a sandbox of {image}"),
        )
        .await
}

fn id_of(resource: &Value) -> Outcome<String> {
    text(resource, "/metadata/id")
        .ok_or_else(|| Problem::failed("could not make a sandbox").why("the server's answer has no id"))
}

/// As the command ends, so does this.
pub(crate) async fn run(args: &WorkloadArgs, run: RunArgs) -> ExitCode {
    match whole(args, run).await {
        Ok(code) => ExitCode::from(code),
        Err(problem) => {
            problem.report(args.client.output == Format::Json);
            ExitCode::from(FAILED)
        }
    }
}

async fn whole(args: &WorkloadArgs, mut run: RunArgs) -> Outcome<u8> {
    if run.tty && !terminal::is_interactive() {
        return Err(Problem::usage("-t needs a terminal").why("stdin or stdout is none"));
    }
    run.spec.idle_timeout.get_or_insert(IDLE);
    let workloads = args.open().await?;
    let made = make(&workloads, &run.spec.body(run.tty), &run.spec.image).await?;
    let id = id_of(&made)?;
    let outcome = tokio::select! {
        outcome = to_its_end(&workloads, &id, made, &run) => outcome,
        code = interrupted() => Ok(code),
    };
    if let Err(problem) = remove(&workloads, &id, true).await {
        output::say(format_args!("Warning: the sandbox is still there.\n{problem}"));
    }
    outcome
}

/// Somebody wants to end before the command runs. Afterwards signals are the command's.
async fn interrupted() -> u8 {
    let caught = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = caught else {
        return std::future::pending().await;
    };
    // A seat that is taken passes them on; this one answers only while there is none.
    loop {
        let code = tokio::select! {
            _ = interrupt.recv() => 130,
            _ = terminate.recv() => 143,
        };
        if !SEATED.load(std::sync::atomic::Ordering::SeqCst) {
            return code;
        }
    }
}

/// Whether signals are passed on to a command.
static SEATED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

async fn to_its_end(workloads: &Workloads, id: &str, made: Value, run: &RunArgs) -> Outcome<u8> {
    let path = ["sandboxes", id];
    let mut resource = started(workloads, id, Some(made)).await?;
    let mut seat: Option<Seat> = None;
    let mut refused = 0;
    loop {
        if is_over(&resource) {
            if seat.is_none() {
                // It was faster than we were: what it wrote is in its log.
                let all = LogArgs {
                    follow: true,
                    tail: u32::MAX,
                    since: None,
                    timestamps: false,
                };
                logs::print(workloads, &["sandboxes", id, "logs"], &all, Format::Table).await?;
            }
            return code_of(&resource, &run.spec.image);
        }
        let lease = match Lease::stdio(&workloads.api, &workloads.tenant, id).await {
            Ok(lease) => lease,
            Err(problem) if problem.is(Code::OpConflict) && refused < TRIES => {
                refused += 1;
                resource = wait::until(workloads, &path, None, wait::END, |resource| {
                    is_over(resource) || state(resource) == "ready"
                })
                .await?;
                continue;
            }
            Err(problem) => return Err(problem),
        };
        let taken = match &mut seat {
            Some(seat) => seat,
            None => {
                let mode = Mode {
                    tty: run.tty,
                    input: run.interactive,
                };
                seat.insert(Seat::take(mode, Some(0))?)
            }
        };
        SEATED.store(true, std::sync::atomic::Ordering::SeqCst);
        let end = taken
            .sit(
                &workloads.api,
                lease.id(),
                &[],
                &format!("could not attach to {id}"),
            )
            .await;
        match end? {
            End::Exit(code) => return Ok(code),
            End::Forced => return Ok(130),
            End::Expired => {}
            End::Closed(why) => {
                resource = wait::until(workloads, &path, None, wait::END, is_over)
                    .await
                    .map_err(|_| Problem::failed(format!("the connection to {id} ended")).why(why))?;
                continue;
            }
        }
        resource = workloads.get(&path, &format!("could not look at {id}")).await?;
    }
}

/// The exit code of a sandbox that has ended.
fn code_of(resource: &Value, image: &str) -> Outcome<u8> {
    if let Some(code) = resource.pointer("/status/exitCode").and_then(Value::as_i64) {
        return Ok(u8::try_from(code & 0xff).unwrap_or(FAILED));
    }
    let why = complaint(resource).unwrap_or_else(|| "the server does not say why".to_owned());
    let code = never_began(&why);
    let problem = Problem::failed(format!("the command in {image} did not run")).why(why);
    match code {
        None => Err(problem),
        Some(code) => {
            problem.report(false);
            Ok(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_exit_code_is_that_of_the_command_or_says_who_failed() {
        let ended = |code: Value, message: &str| {
            json!({ "status": { "exitCode": code, "lifecycleState": "failed", "conditions": [
                { "type": "Ready", "status": "False", "reason": "LaunchFailed", "message": message },
            ] } })
        };
        assert_eq!(code_of(&ended(json!(3), "x"), "i").unwrap(), 3);
        for (why, code) in [
            ("there is no such program in the sandbox", 127),
            ("the program may not be executed", 126),
        ] {
            assert_eq!(code_of(&ended(json!(null), why), "i").unwrap(), code, "{why}");
        }
        assert!(code_of(&ended(json!(null), "the image was not found"), "i").is_err());
        assert!(code_of(&ended(json!(null), "no cgroup"), "i").is_err());
    }
}
