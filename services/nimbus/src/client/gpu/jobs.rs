//! Jobs: submitting, watching, fetching what they leave.

use std::process::ExitCode;
use std::time::Duration;

use camino::Utf8PathBuf;
use futures::StreamExt;
use reqwest::header::HeaderMap;
use reqwest::{Method, Response};
use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt;

use super::SubmitArgs;
use crate::client::api::Api;
use crate::client::stdio::show;
use crate::client::workloads::{cell, moment, text};
use crate::output::{self, Format};
use crate::problem::{Outcome, Problem};

/// How long the server holds a question for more of a log.
const WAIT_MS: u64 = 20_000;
/// How often in a row a server that does not answer is asked again, once a second.
const TRIES: u32 = 60;

fn body(order: &SubmitArgs) -> Value {
    let mut body = Map::new();
    body.insert("image".into(), json!(order.image));
    if let Some(line) = &order.shell {
        body.insert("command".into(), json!(line));
    } else if !order.command.is_empty() {
        body.insert("command".into(), json!(order.command));
    }
    if !order.env.is_empty() {
        let env: Map<String, Value> = order
            .env
            .iter()
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect();
        body.insert("env".into(), env.into());
    }
    if !order.dataset.is_empty() {
        let datasets = order
            .dataset
            .iter()
            .map(|dataset| match dataset.strip_suffix(":rw") {
                Some(name) => json!({ "name": name, "writable": true }),
                None => json!({ "name": dataset.strip_suffix(":ro").unwrap_or(dataset) }),
            });
        body.insert("datasets".into(), datasets.collect());
    }
    let optional = [
        ("pool", order.pool.as_ref().map(|pool| json!(pool))),
        ("vm_id", order.vm.as_ref().map(|vm| json!(vm))),
        (
            "time_limit_seconds",
            order.time.map(|time| json!(time.as_secs().max(1))),
        ),
        ("memory_bytes", order.memory.map(|bytes| json!(bytes))),
        ("priority", order.priority.map(|priority| json!(priority))),
        ("rerun", order.rerun.then_some(json!(true))),
    ];
    let given = optional
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    body.extend(given);
    body.into()
}

pub(super) async fn submit(api: &Api, order: SubmitArgs, format: Format) -> Outcome<ExitCode> {
    let what = format!("could not submit a job with {}", order.image);
    let job = api
        .send(Method::POST, &["gpu", "jobs"], Some(&body(&order)), &what)
        .await?;
    let id = text(&job, "/id").unwrap_or_default();
    if !order.follow {
        match format {
            Format::Json => output::json(&job)?,
            Format::Table => output::line(&id)?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    output::say(format_args!("{id}: submitted"));
    let end = follow(api, &id, 0).await?;
    if end.state == "succeeded" {
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(code) = end.exit_code.and_then(|code| u8::try_from(code).ok())
        && code != 0
    {
        return Ok(ExitCode::from(code));
    }
    let job = one(api, &id).await?;
    let why = text(&job, "/error_msg").unwrap_or_else(|| format!("it is {}", end.state));
    Err(Problem::failed(format!("{id} did not succeed"))
        .why(why)
        .next(format!("nimbus gpu job {id}")))
}

async fn one(api: &Api, job: &str) -> Outcome<Value> {
    api.get(&["gpu", "jobs", job], &format!("could not show {job}"))
        .await
}

/// State of a job with what belongs to it.
fn standing(job: &Value) -> String {
    let state = cell(job, "/state");
    match (state.as_str(), text(job, "/phase"), job.pointer("/exit_code")) {
        ("running", Some(phase), _) if phase != "running" => format!("running ({phase})"),
        ("failed", _, Some(Value::Number(code))) => format!("failed ({code})"),
        _ => state,
    }
}

/// An argument as a shell takes it for one word.
fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,@%+".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

/// What runs, as one would type it.
fn command(job: &Value) -> String {
    match job.pointer("/command") {
        Some(Value::String(line)) => line.clone(),
        Some(Value::Array(arguments)) => {
            let words: Vec<String> = arguments.iter().filter_map(Value::as_str).map(quoted).collect();
            words.join(" ")
        }
        _ => "-".to_owned(),
    }
}

pub(super) async fn list(api: &Api, state: Option<&str>, format: Format) -> Outcome {
    let what = "could not list the jobs";
    let mut rows = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut query = vec![("limit", "200".to_owned())];
        query.extend(state.map(|state| ("state", state.to_owned())));
        query.extend(cursor.clone().map(|cursor| ("cursor", cursor)));
        let request = api.request(Method::GET, &["gpu", "jobs"]).query(&query);
        let (page, _) = api.answer(request, what).await?;
        if let Value::Array(more) = page.data {
            rows.extend(more);
        }
        match page.next_cursor {
            Some(next) if cursor.as_ref() != Some(&next) => cursor = Some(next),
            _ => break,
        }
    }
    if format == Format::Json {
        return output::json(&rows);
    }
    let rows = rows.iter().map(|job| {
        [
            cell(job, "/id"),
            standing(job),
            moment(job, "/queued_at"),
            cell(job, "/worker_id"),
            cell(job, "/image"),
            command(job).chars().take(60).collect(),
        ]
    });
    output::table(
        ["ID", "STATE", "QUEUED", "BOX", "IMAGE", "COMMAND"],
        rows.collect(),
        "There are no jobs. Submit one with `nimbus gpu submit IMAGE -- COMMAND`.",
    )
}

pub(super) async fn get(api: &Api, job: &str, format: Format) -> Outcome {
    print(&one(api, job).await?, format)
}

pub(super) async fn cancel(api: &Api, job: &str, format: Format) -> Outcome {
    let what = format!("could not cancel {job}");
    let cancelled = api
        .send(Method::POST, &["gpu", "jobs", job, "cancel"], None, &what)
        .await?;
    match format {
        Format::Json => output::json(&cancelled),
        Format::Table => output::line(&format!("{job} {}", cell(&cancelled, "/state"))),
    }
}

fn print(job: &Value, format: Format) -> Outcome {
    if format == Format::Json {
        return output::json(job);
    }
    let mut facts = vec![
        ("Job", cell(job, "/id")),
        ("State", standing(job)),
        ("Note", cell(job, "/phase_note")),
        ("Ahead", cell(job, "/ahead")),
        ("Image", cell(job, "/image")),
        ("Command", command(job)),
        ("Pool", cell(job, "/pool")),
        ("Box", cell(job, "/worker_id")),
        ("Machine", cell(job, "/vm_id")),
        ("Attempt", cell(job, "/attempt")),
        ("Queued", moment(job, "/queued_at")),
        ("Started", moment(job, "/started_at")),
        ("Finished", moment(job, "/finished_at")),
        ("Exit code", cell(job, "/exit_code")),
        ("Why", cell(job, "/error_msg")),
        ("Printed", format!("{} bytes", cell(job, "/log_bytes"))),
        ("Left", cell(job, "/artifact_bytes")),
        ("Left note", cell(job, "/artifact_note")),
    ];
    let is_queued = text(job, "/state").as_deref() == Some("queued");
    facts.retain(|(name, value)| value != "-" && (is_queued || *name != "Ahead"));
    output::facts(&facts)
}

/// How a job ended.
pub(super) struct End {
    state: String,
    exit_code: Option<i32>,
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// Prints pieces of a body as they come; answers with how many bytes there were.
/// Prints an answer and counts its bytes, also when it breaks off.
async fn pour(api: &Api, response: Response, what: &str, printed: &mut u64) -> Outcome {
    let mut pieces = response.bytes_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| api.unreachable(what, &error))?;
        show(true, &piece)?;
        *printed = printed.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
    }
    Ok(())
}

pub(super) async fn log(api: &Api, job: &str, offset: u64) -> Outcome {
    let what = format!("could not read the log of {job}");
    let request = api
        .unlimited(Method::GET, &["gpu", "jobs", job, "logs"])
        .query(&[("offset", offset)]);
    let response = api.reach(request, &what).await?;
    let is_cut = header(response.headers(), "nimbus-log-truncated").as_deref() == Some("true");
    pour(api, response, &what, &mut 0).await?;
    if is_cut {
        output::say("The job printed more than is kept.");
    }
    Ok(())
}

/// Prints a log until its job has ended.
pub(super) async fn follow(api: &Api, job: &str, mut offset: u64) -> Outcome<End> {
    let what = format!("could not follow the log of {job}");
    let mut failed = 0;
    loop {
        let request = api.request(Method::GET, &["gpu", "jobs", job, "logs"]).query(&[
            ("offset", offset),
            ("limit", 1 << 20),
            ("wait_ms", WAIT_MS),
        ]);
        let read = async {
            let response = api.reach(request, &what).await?;
            let headers = response.headers().clone();
            pour(api, response, &what, &mut offset).await?;
            Outcome::Ok(headers)
        };
        let headers = match read.await {
            Ok(headers) => headers,
            Err(problem) if problem.is_passing() && failed < TRIES => {
                // The server restarts: the job goes on, and the log begins where we are.
                failed += 1;
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
            Err(problem) => return Err(problem),
        };
        failed = 0;
        let end = header(&headers, "nimbus-log-end").and_then(|text| text.parse::<u64>().ok());
        let state = header(&headers, "nimbus-job-state").unwrap_or_default();
        let is_over = matches!(state.as_str(), "succeeded" | "failed" | "cancelled");
        if is_over && end.is_none_or(|end| offset >= end) {
            let exit_code = header(&headers, "nimbus-job-exit-code").and_then(|text| text.parse().ok());
            return Ok(End { state, exit_code });
        }
    }
}

pub(super) async fn artifact(api: &Api, job: &str, file: Option<Utf8PathBuf>) -> Outcome {
    let what = format!("could not fetch what {job} left");
    let request = api.unlimited(Method::GET, &["gpu", "jobs", job, "artifact"]);
    let response = api.reach(request, &what).await?;
    let path = file.unwrap_or_else(|| format!("{job}.tar.gz").into());
    if path == "-" {
        pour(api, response, &what, &mut 0).await?;
        return Ok(());
    }
    let unwritten =
        |error: std::io::Error| Problem::failed(format!("could not write {path}")).because(&error);
    // Beside its place: what is there under its name is whole.
    let part = Utf8PathBuf::from(format!("{path}.part"));
    let mut out = tokio::fs::File::create(&part).await.map_err(unwritten)?;
    let mut pieces = response.bytes_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| api.unreachable(&what, &error))?;
        out.write_all(&piece).await.map_err(unwritten)?;
    }
    out.sync_all().await.map_err(unwritten)?;
    tokio::fs::rename(&part, &path).await.map_err(unwritten)?;
    output::line(path.as_str())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        order: SubmitArgs,
    }

    fn read(line: &[&str]) -> Value {
        body(
            &Line::try_parse_from(std::iter::once(&"submit").chain(line))
                .unwrap()
                .order,
        )
    }

    #[test]
    fn a_job_is_submitted_as_it_was_typed() {
        assert_eq!(read(&["busybox"]), json!({ "image": "busybox" }));
        let all = [
            "img",
            "-e",
            "A=b=c",
            "--dataset",
            "mnist",
            "--dataset",
            "out:rw",
            "--time",
            "2h",
            "--memory",
            "8GiB",
            "--priority",
            "-3",
            "--rerun",
            "--pool",
            "big",
            "--vm",
            "vm_1",
            "--",
            "sh",
            "-c",
            "echo 'a b'",
        ];
        assert_eq!(
            read(&all),
            json!({ "image": "img", "command": ["sh", "-c", "echo 'a b'"], "env": { "A": "b=c" },
                "datasets": [{ "name": "mnist" }, { "name": "out", "writable": true }], "pool": "big", "vm_id": "vm_1",
                "time_limit_seconds": 7200, "memory_bytes": 8_u64 << 30, "priority": -3, "rerun": true })
        );
        assert_eq!(read(&["img", "--shell", "a | b"])["command"], "a | b");
        assert!(Line::try_parse_from(["submit", "img", "-e", "=x"]).is_err());
    }

    #[test]
    fn rows_say_how_far_a_job_is() {
        assert_eq!(
            standing(&json!({ "state": "running", "phase": "pulling" })),
            "running (pulling)"
        );
        assert_eq!(
            standing(&json!({ "state": "running", "phase": "running" })),
            "running"
        );
        assert_eq!(
            standing(&json!({ "state": "failed", "phase": null, "exit_code": 3 })),
            "failed (3)"
        );
        assert_eq!(
            command(&json!({ "command": ["a", "b c", "it's"] })),
            r"a 'b c' 'it'\''s'"
        );
        assert_eq!(command(&json!({ "command": null })), "-");
    }
}
