//! Looking at the node of this host.

use std::process::ExitCode;

use nimbus_auth::admin;
use nimbus_model::Clock;
use nimbus_node::{Commands, Host, Layout, Level, NodeError, Scope, Target, Verdict, diagnose, drift};
use serde_json::json;

use super::{WhichArgs, mirrors, problem};
use crate::cli::environment;
use crate::output::{self, Format};
use crate::problem::{Outcome, Problem};

/// Show what systemd says of the node, and whether its files are as Nimbus wrote them. Ends as systemctl does:
/// 0 active, 3 not active, 4 unknown.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    which: WhichArgs,
}

/// Show the log of the node.
#[derive(Debug, clap::Args)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    which: WhichArgs,

    /// Wait for more.
    #[arg(long, short)]
    follow: bool,

    /// How many of the last lines.
    #[arg(long, short = 'n', value_name = "COUNT")]
    lines: Option<u32>,
}

/// Find out what on this host keeps a node from running. Exits with 1 if something required is missing.
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    which: WhichArgs,

    /// How results are printed.
    #[arg(long, short, value_enum, default_value_t, env = "NIMBUS_OUTPUT")]
    pub(super) output: Format,
}

/// Check that what is installed is what Nimbus wrote, that systemd accepts it, and that it runs. Exits with 1 if
/// not.
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    which: WhichArgs,

    /// How results are printed.
    #[arg(long, short, value_enum, default_value_t, env = "NIMBUS_OUTPUT")]
    pub(super) output: Format,
}

fn pass(words: &[String]) -> Outcome<ExitCode> {
    let code = Host
        .pass(words)
        .map_err(|error| Problem::failed(format!("could not run {}", words.join(" "))).because(&error))?;
    Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from))
}

pub(super) fn status(args: StatusArgs) -> Outcome<ExitCode> {
    let layout = args.which.layout()?;
    let found = drift(&layout, args.which.target(), &mirrors(), &Host).map_err(|error| problem(&error))?;
    for (path, drift) in &found {
        output::say(format_args!("{path}: {}", drift.state));
        if !drift.diff.is_empty() {
            output::say(drift.diff.trim_end());
        }
    }
    let unit = nimbus_node::unit(&layout, args.which.target()).map_err(|error| problem(&error))?;
    pass(&layout.scope.systemctl(&["status", "--no-pager", unit]))
}

pub(super) fn logs(args: LogsArgs) -> Outcome<ExitCode> {
    let layout = args.which.layout()?;
    let flag = match layout.scope {
        Scope::System => "--unit",
        Scope::User => "--user-unit",
    };
    let unit = nimbus_node::unit(&layout, args.which.target()).map_err(|error| problem(&error))?;
    let mut words = vec!["journalctl", "--no-pager", flag, unit];
    if args.follow {
        words.push("--follow");
    }
    let lines = args.lines.map(|lines| format!("--lines={lines}"));
    words.extend(lines.as_deref());
    let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
    pass(&words)
}

/// What is known of the admin token: whether it opens a node to other computers, in words, what to do.
fn token(layout: &Layout) -> (bool, String, &'static str) {
    const REMEDY: &str = "sudo nimbus auth rotate-admin";
    let path = layout.token();
    let (ok, detail) = match admin::read(&path) {
        Ok(None) => (true, format!("{path} will be made at the first start")),
        Ok(Some(token)) if token.is_fresh(Clock::system().now()) => {
            (true, format!("generation {}, fresh", token.generation))
        }
        Ok(Some(token)) => {
            let generation = token.generation;
            let text = std::fs::read_to_string(layout.units.join("nimbus.service")).unwrap_or_default();
            if text.contains(" --allow-network") {
                let detail =
                    format!("generation {generation}, not fresh: the node does not start again ({path})");
                (false, detail)
            } else {
                let detail = format!("generation {generation}, not fresh: good for loopback only ({path})");
                (true, detail)
            }
        }
        Err(error) => (false, nimbus_errors::chain(&error)),
    };
    (ok, detail, REMEDY)
}

pub(super) fn doctor(args: DoctorArgs) -> Outcome<ExitCode> {
    let layout = args.which.layout()?;
    let target = args.which.target();
    let probes = diagnose(&layout, target, &mirrors(), token(&layout), environment, &Host);
    let failed: Vec<_> = probes
        .iter()
        .filter(|probe| probe.result == Verdict::Fail)
        .collect();
    let fatal = failed.iter().any(|probe| probe.level == Level::Required);
    let code = if fatal {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    };
    if args.output == Format::Json {
        output::json(&json!({
            "mode": target.as_str(),
            "scope": layout.scope.as_str(),
            "artifact_dir": layout.artifacts(target),
            "ok": !fatal,
            "probes": probes,
        }))?;
        return Ok(code);
    }
    let passed = |id: &str| {
        let found = probes.iter().find(|probe| probe.id == id);
        found.is_some_and(|probe| probe.result == Verdict::Pass)
    };
    let available = |id: &str| if passed(id) { "available" } else { "missing" };
    let mut lines = vec![
        "Nimbus node doctor".to_owned(),
        format!("mode: {}", target.as_str()),
        format!("scope: {}", layout.scope.as_str()),
        format!("linux: {}", if cfg!(target_os = "linux") { "yes" } else { "no" }),
        format!("systemctl: {}", available("systemctl")),
        format!("journalctl: {}", available("journalctl")),
    ];
    if target == Target::Container {
        lines.push(format!("podman: {}", available("podman")));
    }
    lines.push(format!("artifact_dir: {}", layout.artifacts(target)));
    let unit = nimbus_node::unit(&layout, target).unwrap_or("nimbus.service");
    lines.push(format!("service: {unit}"));
    if failed.is_empty() {
        lines.push("diagnostics: ok".to_owned());
    } else {
        lines.push("diagnostics:".to_owned());
    }
    for probe in failed {
        let level = match probe.level {
            Level::Required => "required",
            Level::Advice => "advice",
        };
        lines.push(format!("  {level}: {}: {}", probe.id, probe.detail));
        if let Some(remedy) = probe.remedy {
            lines.push(format!("    {remedy}"));
        }
    }
    output::line(&lines.join("\n"))?;
    Ok(code)
}

pub(super) fn verify(args: VerifyArgs) -> Outcome<ExitCode> {
    let layout = args.which.layout()?;
    let checks = nimbus_node::verify(&layout, args.which.target(), &mirrors(), &Host)
        .map_err(|error: NodeError| problem(&error))?;
    let ok = checks.iter().all(|check| check.ok);
    if args.output == Format::Json {
        output::json(&json!({ "ok": ok, "checks": checks }))?;
    } else {
        let rows = checks.iter().map(|check| {
            let word = if check.ok { "ok" } else { "FAILED" };
            [check.name.clone(), word.to_owned(), check.detail.clone()]
        });
        output::table(["CHECK", "RESULT", "FOUND"], rows.collect(), "nothing to check")?;
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
