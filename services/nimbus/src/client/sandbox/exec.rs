//! `nimbus sandbox exec` and `shell`.

use std::process::ExitCode;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nimbus_errors::Code;
use reqwest::Method;
use reqwest::header::ACCEPT;
use serde_json::{Map, Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::{never_began, spec::variable};
use crate::client::api::{FaultView, read};
use crate::client::logs::{Lines, data};
use crate::client::session::Lease;
use crate::client::stdio::{self, End, Mode, Seat};
use crate::client::terminal;
use crate::client::workloads::{WorkloadArgs, Workloads, pairs, text};
use crate::output::Format;
use crate::problem::{Outcome, Problem};
use crate::server::dev::random_hex;

/// Nimbus failed, not the command.
const FAILED: u8 = 125;
/// As `timeout` says that the time was over.
const TIMED_OUT: u8 = 124;
/// The best shell there is.
const SHELL: &str = "for s in bash zsh ash; do command -v $s >/dev/null 2>&1 && exec $s; done; exec sh";

/// Run a command in a sandbox that is there.
///
/// The exit code is that of the command; 125 when Nimbus failed, 124 when the time was over, 126 when the
/// command could not be run, 127 when it was not found.
#[derive(Debug, clap::Args)]
pub(crate) struct ExecArgs {
    /// Pass stdin on to the command.
    #[arg(long, short)]
    interactive: bool,
    /// Give the command a terminal.
    #[arg(long, short)]
    tty: bool,
    /// Variable of the environment; may be repeated. Without a value, that of this shell.
    #[arg(long = "env", short, value_name = "KEY[=VALUE]", value_parser = variable)]
    env: Vec<(String, String)>,
    /// Working directory.
    #[arg(long, short, value_name = "DIR")]
    workdir: Option<String>,
    /// End the command after this time.
    #[arg(long, value_name = "TIME", value_parser = nimbus_config::seconds_or_text)]
    timeout: Option<Duration>,
    /// The sandbox.
    id: String,
    /// What to run.
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    argv: Vec<String>,
}

/// Open a shell in a sandbox.
#[derive(Debug, clap::Args)]
pub(crate) struct ShellArgs {
    /// The sandbox.
    id: String,
    /// Another shell than the best one there is.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    argv: Vec<String>,
}

impl ExecArgs {
    fn mode(&self) -> Mode {
        Mode {
            tty: self.tty,
            input: self.interactive,
        }
    }
}

fn ended(args: &WorkloadArgs, outcome: Outcome<u8>) -> ExitCode {
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(problem) => {
            problem.report(args.client.output == Format::Json);
            ExitCode::from(never_began(&problem.to_string()).unwrap_or(FAILED))
        }
    }
}

pub(crate) async fn exec(args: &WorkloadArgs, exec: ExecArgs) -> ExitCode {
    let outcome = async {
        let workloads = args.open().await?;
        if exec.tty && !terminal::is_interactive() {
            return Err(Problem::usage("-t needs a terminal").why("stdin or stdout is none"));
        }
        let is_plain = exec.env.is_empty() && exec.timeout.is_none();
        if is_plain && (exec.interactive || exec.tty) {
            attached(&workloads, &exec).await
        } else {
            streamed(&workloads, &exec).await
        }
    };
    ended(args, outcome.await)
}

pub(crate) async fn shell(args: &WorkloadArgs, shell: ShellArgs) -> ExitCode {
    let argv = if shell.argv.is_empty() {
        ["/bin/sh", "-c", SHELL].map(str::to_owned).to_vec()
    } else {
        shell.argv
    };
    let outcome = async {
        let workloads = args.open().await?;
        let mode = Mode {
            tty: terminal::is_interactive(),
            input: true,
        };
        take_part(&workloads, &shell.id, &argv, mode).await
    };
    ended(args, outcome.await)
}

/// With a terminal or stdin: over a session, which is the faster way for keys and much input.
async fn attached(workloads: &Workloads, exec: &ExecArgs) -> Outcome<u8> {
    let argv = match &exec.workdir {
        None => exec.argv.clone(),
        Some(folder) => {
            let mut argv = ["/bin/sh", "-c", "cd \"$0\" && exec \"$@\"", folder]
                .map(str::to_owned)
                .to_vec();
            argv.extend(exec.argv.iter().cloned());
            argv
        }
    };
    take_part(workloads, &exec.id, &argv, exec.mode()).await
}

async fn take_part(workloads: &Workloads, id: &str, argv: &[String], mode: Mode) -> Outcome<u8> {
    let what = format!("could not run a command in {id}");
    let command = random_hex()?;
    let mut query = vec![("command", command.clone()), ("argv", json!(argv).to_string())];
    if mode.tty {
        query.push(("tty", "1".to_owned()));
        if let Some((cols, rows)) = terminal::size() {
            query.extend([("cols", cols.to_string()), ("rows", rows.to_string())]);
        }
    }
    let mut lease = Lease::stdio(&workloads.api, &workloads.tenant, id).await?;
    let mut seat = Seat::take(mode, Some(0))?;
    loop {
        let end = seat.sit(&workloads.api, lease.id(), &query, &what).await;
        if matches!(end, Ok(End::Expired)) {
            // A session lasts an hour; the command waits a minute for the next one.
            lease = Lease::stdio(&workloads.api, &workloads.tenant, id).await?;
            query = vec![("command", command.clone())];
            continue;
        }
        drop(seat);
        lease.close().await;
        return match end? {
            End::Exit(code) => Ok(code),
            End::Forced => Ok(130),
            End::Expired => Err(Problem::failed(what).why("the session's time is over")),
            End::Closed(why) => Err(Problem::failed(format!("the connection to {id} ended")).why(why)),
        };
    }
}

/// Without: one request whose answer is read as it comes. A session has no place for variables and a time
/// limit; with those, input goes in requests of its own.
async fn streamed(workloads: &Workloads, exec: &ExecArgs) -> Outcome<u8> {
    let what = format!("could not run a command in {}", exec.id);
    let mode = exec.mode();
    let _raw = if mode.tty {
        Some(terminal::Raw::enter()?)
    } else {
        None
    };
    let command = random_hex()?;
    let mut body = Map::from_iter([
        ("argv".to_owned(), json!(exec.argv)),
        ("commandId".to_owned(), json!(command)),
    ]);
    if let Some(folder) = &exec.workdir {
        body.insert("cwd".into(), json!(folder));
    }
    if !exec.env.is_empty() {
        body.insert("env".into(), pairs(&exec.env));
    }
    if let Some(timeout) = exec.timeout {
        body.insert(
            "timeoutMs".into(),
            json!(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
        );
    }
    if mode.input {
        body.insert("stdinOpen".into(), json!(true));
    }
    if mode.tty {
        let (cols, rows) = terminal::size().unwrap_or((80, 24));
        body.insert("terminal".into(), json!({ "cols": cols, "rows": rows }));
    }
    let failed = |error: std::io::Error| Problem::failed("could not catch signals").because(&error);
    let mut giving = Giving {
        workloads,
        path: ["sandboxes", &exec.id, "commands", &command, "input"],
        what: &what,
        offset: 0,
        input: mode.input.then(terminal::input),
        resize: signal(SignalKind::window_change()).map_err(failed)?,
        interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        terminate: signal(SignalKind::terminate()).map_err(failed)?,
        urged: 0,
    };
    let mut lines = start(workloads, &exec.id, &Value::Object(body), &what).await?;
    let showing = async {
        loop {
            let Some(line) = lines.next().await? else {
                return Err(Problem::failed(what.as_str()).why("the answer broke off"));
            };
            if let Some(code) = frame(&line, &what)? {
                return Ok(code);
            }
        }
    };
    tokio::select! {
        code = showing => code,
        code = giving.give() => code,
    }
}

/// Starts a command and gives what it writes, line by line.
pub(crate) async fn start<'a>(
    workloads: &'a Workloads,
    id: &str,
    body: &Value,
    what: &'a str,
) -> Outcome<Lines<'a>> {
    let request = workloads
        .unlimited(Method::POST, &["sandboxes", id, "exec"])
        .header(ACCEPT, "application/x-ndjson")
        .json(body);
    let response = workloads.api.reach(request, what).await?;
    Ok(Lines::of(&workloads.api, response, what))
}

/// What goes to a command in requests of its own: input, sizes, signals.
struct Giving<'a> {
    workloads: &'a Workloads,
    path: [&'a str; 5],
    what: &'a str,
    offset: u64,
    input: Option<mpsc::Receiver<Vec<u8>>>,
    resize: Signal,
    interrupt: Signal,
    terminate: Signal,
    urged: u32,
}

impl Giving<'_> {
    /// Ends only when somebody insists, or when a request is refused.
    async fn give(&mut self) -> Outcome<u8> {
        loop {
            let input = async {
                match &mut self.input {
                    Some(input) => input.recv().await,
                    None => std::future::pending().await,
                }
            };
            let body = tokio::select! {
                chunk = input => match chunk {
                    Some(chunk) => {
                        let offset = self.offset;
                        self.offset += u64::try_from(chunk.len()).unwrap_or(0);
                        json!({ "offset": offset, "data": STANDARD.encode(chunk), "encoding": "base64" })
                    }
                    None => {
                        self.input = None;
                        json!({ "offset": self.offset, "eof": true })
                    }
                },
                _ = self.resize.recv() => match terminal::size() {
                    Some((cols, rows)) => json!({ "resize": { "cols": cols, "rows": rows } }),
                    None => continue,
                },
                _ = self.interrupt.recv() => json!({ "signal": "INT" }),
                _ = self.terminate.recv() => json!({ "signal": "TERM" }),
            };
            if body.get("signal").is_some() {
                self.urged += 1;
                if self.urged > 2 {
                    return Ok(130);
                }
            }
            match self
                .workloads
                .send(Method::POST, &self.path, Some(&body), self.what)
                .await
            {
                Ok(_) => {}
                // It has ended meanwhile; its answer says how.
                Err(problem) if problem.is(Code::OpConflict) || problem.is(Code::OpNotFound) => {
                    self.input = None;
                }
                Err(problem) => return Err(problem),
            }
        }
    }
}

/// Shows a frame; the exit code if it was the last.
fn frame(line: &Value, what: &str) -> Outcome<Option<u8>> {
    match text(line, "/kind").as_deref() {
        Some(kind @ ("stdout" | "stderr")) => {
            stdio::show(kind == "stdout", &data(line))?;
            Ok(None)
        }
        Some("exit") if line.get("timedOut").and_then(Value::as_bool) == Some(true) => Ok(Some(TIMED_OUT)),
        Some("exit") => Ok(Some(stdio::exit_code(line))),
        Some("error") => {
            let fault: FaultView = read(line.get("error").unwrap_or(&Value::Null), what)?;
            Err(fault.into_problem(what))
        }
        Some("closed") => Err(Problem::failed(what).why(text(line, "/reason").unwrap_or_default())),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_frame_says_how_it_ended() {
        let code = |line: Value| frame(&line, "x").map_err(|problem| problem.to_string());
        assert_eq!(code(json!({ "kind": "opened", "offset": 0 })), Ok(None));
        assert_eq!(code(json!({ "kind": "exit", "code": 4 })), Ok(Some(4)));
        assert_eq!(
            code(json!({ "kind": "exit", "code": null, "signal": "TERM" })),
            Ok(Some(143))
        );
        assert_eq!(
            code(json!({ "kind": "exit", "signal": "KILL", "timedOut": true })),
            Ok(Some(TIMED_OUT))
        );
        let error = code(json!({ "kind": "error", "error": { "code": "op.conflict", "message": "gone" } }));
        assert!(error.unwrap_err().contains("gone"));
        assert!(code(json!({ "kind": "closed", "reason": "expired" })).is_err());
    }
}
