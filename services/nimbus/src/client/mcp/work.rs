//! What the tools do: requests to the server, and texts that an agent can read.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use nimbus_errors::Code;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::params::{
    CreateParams, FileParams, Language, ListFilesParams, PreviewParams, RunCodeParams, RunCommandParams,
    StopParams, WriteParams,
};
use crate::client::api::{FaultView, read};
use crate::client::logs::data;
use crate::client::sandbox::{exec, remove, spec, wait};
use crate::client::stdio;
use crate::client::workloads::{Workloads, cell, complaint, text};
use crate::problem::{Outcome, Problem};

/// Keeps a sandbox going that is there for the commands it is given.
const IDLE: &str = "sleep infinity || while :; do sleep 86400; done";
/// What an agent is shown of an output or a file; more would crowd out everything else it knows.
const SHOWN: usize = 64 * 1024;
const TIMEOUT: u32 = 120;
/// Entries of a folder that are shown.
const ENTRIES: usize = 500;

pub(super) async fn create(
    workloads: &Workloads,
    params: &CreateParams,
    image: &str,
    idle: Duration,
) -> Outcome<String> {
    let mut process = Map::from_iter([("argv".to_owned(), json!(["/bin/sh", "-c", IDLE]))]);
    if !params.env.is_empty() {
        let list: Vec<String> = params
            .env
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        process.insert("env".into(), json!(list));
    }
    let mut owner = Map::from_iter([("kind".to_owned(), json!("standalone"))]);
    if let Some(name) = &params.name {
        owner.insert("displayName".into(), json!(name));
    }
    let mut body = json!({
        "profile": "worker",
        "labels": { "made-by": "mcp" },
        "spec": {
            "owner": owner,
            "backend": "container",
            "root": { "kind": "oci_image", "source": { "kind": "reference", "reference": image } },
            "process": process,
            "idleTimeoutMs": u64::try_from(idle.as_millis()).unwrap_or(u64::MAX),
        },
    });
    let rules = params
        .allow
        .iter()
        .map(|url| spec::rule(url).map_err(|why| Problem::usage(format!("{url} cannot be allowed")).why(why)))
        .collect::<Outcome<Vec<_>>>()?;
    if let Some(spec) = body.get_mut("spec").and_then(Value::as_object_mut) {
        if !rules.is_empty() {
            spec.insert("network".into(), json!({ "egress": { "allow": rules } }));
        }
        if !params.ports.is_empty() {
            let ports: Vec<Value> = params
                .ports
                .iter()
                .map(|port| json!({ "guestPort": port, "protocol": "tcp" }))
                .collect();
            spec.insert("ports".into(), json!(ports));
        }
    }
    let what = format!("could not make a sandbox of {image}");
    let made = workloads
        .send(Method::POST, &["sandboxes"], Some(&body), &what)
        .await?;
    let id = text(&made, "/metadata/id")
        .ok_or_else(|| Problem::failed(what.as_str()).why("the server's answer has no id"))?;
    let resource = wait::started(workloads, &id, Some(made)).await?;
    if wait::is_over(&resource) {
        // Of no use to anybody; its reason is told here.
        let _ = remove(workloads, &id, true).await;
        return Err(Problem::failed(what)
            .why(complaint(&resource).unwrap_or_else(|| "its process ended at once".to_owned())));
    }
    Ok(format!(
        "sandbox_id: {id}\nimage: {image}\nstate: {}",
        wait::state(&resource)
    ))
}

pub(super) async fn run_command(workloads: &Workloads, params: &RunCommandParams) -> Outcome<String> {
    let argv = vec!["/bin/sh".to_owned(), "-c".to_owned(), params.command.clone()];
    let request = Command {
        argv,
        cwd: params.cwd.as_deref(),
        env: &params.env,
        stdin: params.stdin.as_deref(),
        timeout_seconds: params.timeout_seconds,
    };
    request.run(workloads, &params.sandbox_id).await
}

pub(super) async fn run_code(workloads: &Workloads, params: &RunCodeParams) -> Outcome<String> {
    let id = params.sandbox_id.as_str();
    let language = match params.language {
        Some(language) => language,
        None => {
            let resource = workloads
                .get(&["sandboxes", id], &format!("could not look at {id}"))
                .await?;
            language_of(&cell(&resource, "/spec/sandbox/root/source/reference"))
        }
    };
    // Code goes in by stdin: an argument may not be that long.
    let argv: &[&str] = match language {
        Language::Python => &[
            "/bin/sh",
            "-c",
            "command -v python3 >/dev/null && exec python3 - || exec python -",
        ],
        Language::Node => &["node", "-"],
        Language::Sh => &["/bin/sh", "-s"],
    };
    let request = Command {
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        cwd: params.cwd.as_deref(),
        env: &BTreeMap::new(),
        stdin: Some(&params.code),
        timeout_seconds: params.timeout_seconds,
    };
    request.run(workloads, id).await
}

/// What an image's own language is, by its name.
fn language_of(image: &str) -> Language {
    let name = image.split('@').next().unwrap_or_default();
    let name = name.rsplit('/').next().unwrap_or_default();
    if name.contains("node") || name.contains("bun") || name.contains("deno") {
        Language::Node
    } else if name.contains("python") || name.contains("jupyter") {
        Language::Python
    } else {
        Language::Sh
    }
}

struct Command<'a> {
    argv: Vec<String>,
    cwd: Option<&'a str>,
    env: &'a BTreeMap<String, String>,
    stdin: Option<&'a str>,
    timeout_seconds: Option<u32>,
}

impl Command<'_> {
    async fn run(&self, workloads: &Workloads, id: &str) -> Outcome<String> {
        let what = format!("could not run it in {id}");
        let seconds = self.timeout_seconds.unwrap_or(TIMEOUT).max(1);
        let mut body = Map::from_iter([
            ("argv".to_owned(), json!(self.argv)),
            ("timeoutMs".to_owned(), json!(u64::from(seconds) * 1000)),
        ]);
        for (name, value) in [("cwd", self.cwd), ("stdin", self.stdin)] {
            if let Some(value) = value {
                body.insert(name.to_owned(), json!(value));
            }
        }
        if !self.env.is_empty() {
            body.insert("env".into(), json!(self.env));
        }
        let mut lines = exec::start(workloads, id, &Value::Object(body), &what).await?;
        let mut collected = Collected::default();
        while let Some(line) = lines.next().await? {
            if collected.take(&line, &what)? {
                return Ok(collected.told(seconds));
            }
        }
        Err(Problem::failed(what).why("the answer broke off"))
    }
}

/// What a command has written, as much of it as is shown.
#[derive(Default)]
struct Collected {
    stdout: Kept,
    stderr: Kept,
    code: u8,
    timed_out: bool,
}

/// The beginning and the end of an output: what went wrong is usually said last.
#[derive(Default)]
struct Kept {
    head: Vec<u8>,
    tail: std::collections::VecDeque<u8>,
    dropped: usize,
}

impl Kept {
    fn add(&mut self, bytes: &[u8]) {
        let free = (SHOWN / 2).saturating_sub(self.head.len()).min(bytes.len());
        let (head, rest) = bytes.split_at(free);
        self.head.extend_from_slice(head);
        self.tail.extend(rest);
        let over = self.tail.len().saturating_sub(SHOWN / 2);
        self.tail.drain(..over);
        self.dropped += over;
    }

    fn told(mut self) -> String {
        let mut text = String::from_utf8_lossy(&self.head).into_owned();
        if self.dropped > 0 {
            let _ = write!(text, "\n[… {} bytes left out …]\n", self.dropped);
        }
        text.push_str(&String::from_utf8_lossy(self.tail.make_contiguous()));
        text
    }
}

impl Collected {
    /// Whether it was the last line.
    fn take(&mut self, line: &Value, what: &str) -> Outcome<bool> {
        match text(line, "/kind").as_deref() {
            Some("stdout") => self.stdout.add(&data(line)),
            Some("stderr") => self.stderr.add(&data(line)),
            Some("exit") => {
                self.code = stdio::exit_code(line);
                self.timed_out = line.get("timedOut").and_then(Value::as_bool) == Some(true);
                return Ok(true);
            }
            Some("error") => {
                let fault: FaultView = read(line.get("error").unwrap_or(&Value::Null), what)?;
                return Err(fault.into_problem(what));
            }
            Some("closed") => {
                return Err(Problem::failed(what).why(text(line, "/reason").unwrap_or_default()));
            }
            _ => {}
        }
        Ok(false)
    }

    fn told(self, seconds: u32) -> String {
        let mut told = if self.timed_out {
            format!("ended after {seconds} seconds, before it was done\n")
        } else {
            format!("exit code: {}\n", self.code)
        };
        for (name, text) in [("stdout", self.stdout.told()), ("stderr", self.stderr.told())] {
            if !text.is_empty() {
                let _ = write!(told, "{name}:\n{text}");
                if !text.ends_with('\n') {
                    told.push('\n');
                }
            }
        }
        told
    }
}

pub(super) async fn read_file(workloads: &Workloads, params: &FileParams) -> Outcome<String> {
    let what = format!("could not read {} of {}", params.path, params.sandbox_id);
    let request = workloads
        .unlimited(
            Method::GET,
            &["sandboxes", &params.sandbox_id, "files", "content"],
        )
        .query(&[("path", &params.path)]);
    let mut body = workloads.api.reach(request, &what).await?.bytes_stream();
    let mut bytes = Vec::new();
    let mut is_whole = true;
    while let Some(part) = body.next().await {
        bytes.extend_from_slice(&part.map_err(|error| workloads.api.unreachable(&what, &error))?);
        if bytes.len() > SHOWN {
            bytes.truncate(SHOWN);
            is_whole = false;
            break;
        }
    }
    let mut told = match String::from_utf8(bytes) {
        Ok(text) => text,
        // A character may have been cut in two.
        Err(error) if !is_whole && error.utf8_error().error_len().is_none() => {
            String::from_utf8_lossy(error.as_bytes()).into_owned()
        }
        Err(error) => format!("base64: {}", STANDARD.encode(error.as_bytes())),
    };
    if !is_whole {
        let _ = write!(
            told,
            "\n[… only the first {SHOWN} bytes are shown; use run_command for the rest …]"
        );
    }
    Ok(told)
}

pub(super) async fn write_file(workloads: &Workloads, params: &WriteParams) -> Outcome<String> {
    let what = format!("could not write {} of {}", params.path, params.sandbox_id);
    let content = if params.base64 {
        STANDARD
            .decode(params.content.trim())
            .map_err(|error| Problem::usage(what.as_str()).because(&error))?
    } else {
        params.content.clone().into_bytes()
    };
    let size = content.len();
    let mut request = workloads
        .request(
            Method::PUT,
            &["sandboxes", &params.sandbox_id, "files", "content"],
        )
        .query(&[("path", params.path.as_str()), ("createParents", "1")])
        .header(reqwest::header::CONTENT_TYPE, "application/octet-stream")
        .body(content);
    if params.executable {
        request = request.query(&[("mode", "0755")]);
    }
    workloads.api.resource(request, &what).await?;
    Ok(format!("wrote {size} bytes to {}", params.path))
}

pub(super) async fn list_files(workloads: &Workloads, params: &ListFilesParams) -> Outcome<String> {
    let path = params.path.as_deref().unwrap_or("/");
    let what = format!("could not list {path} of {}", params.sandbox_id);
    let request = workloads
        .request(Method::GET, &["sandboxes", &params.sandbox_id, "files", "list"])
        .query(&[("path", path)]);
    let answer = workloads.api.resource(request, &what).await?;
    let entries = answer
        .get("entries")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let mut told = String::new();
    for entry in entries.iter().take(ENTRIES) {
        let _ = writeln!(
            told,
            "{:<7} {:>10} {} {}",
            cell(entry, "/type"),
            cell(entry, "/size"),
            cell(entry, "/mode"),
            cell(entry, "/name")
        );
    }
    if entries.len() > ENTRIES || answer.get("nextPageToken").is_some_and(Value::is_string) {
        told.push_str("[… there are more …]\n");
    }
    Ok(if told.is_empty() {
        "the folder is empty".to_owned()
    } else {
        told
    })
}

pub(super) async fn preview_url(workloads: &Workloads, params: &PreviewParams) -> Outcome<String> {
    let what = format!(
        "could not make a link to port {} of {}",
        params.port, params.sandbox_id
    );
    let ms = u64::from(params.minutes.unwrap_or(15).max(1)) * 60_000;
    let made = workloads
        .send(
            Method::POST,
            &["sandboxes", &params.sandbox_id, "preview-links"],
            Some(&json!({ "port": params.port, "ttlMs": ms })),
            &what,
        )
        .await?;
    Ok(format!(
        "{}\nworks until {}",
        cell(&made, "/url"),
        cell(&made, "/expiresAt")
    ))
}

pub(super) async fn stop(workloads: &Workloads, params: &StopParams) -> Outcome<String> {
    let id = params.sandbox_id.as_str();
    if params.keep {
        let what = format!("could not stop {id}");
        workloads
            .send(Method::POST, &["sandboxes", id, "stop"], None, &what)
            .await?;
        return Ok(format!("stopped {id}"));
    }
    match remove(workloads, id, true).await {
        Err(problem) if problem.is(Code::OpNotFound) => Ok(format!("{id} is gone already")),
        Err(problem) => Err(problem),
        Ok(()) => Ok(format!("stopped and removed {id}")),
    }
}

pub(super) async fn list(workloads: &Workloads) -> Outcome<String> {
    let items = workloads
        .all(&["sandboxes"], &[], "could not list the sandboxes")
        .await?;
    let mut told = String::new();
    for item in items.iter().filter(|item| !wait::is_over(item)) {
        let _ = writeln!(
            told,
            "{} {} {}",
            cell(item, "/metadata/id"),
            wait::state(item),
            cell(item, "/spec/sandbox/root/source/reference")
        );
    }
    Ok(if told.is_empty() {
        "no sandbox runs".to_owned()
    } else {
        told
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_images_language_is_in_its_name() {
        for (image, language) in [
            ("docker.io/library/python:3.12-slim", Language::Python),
            ("node:22-alpine", Language::Node),
            ("node.example.org/library/alpine:3", Language::Sh),
            ("busybox@sha256:00", Language::Sh),
        ] {
            assert_eq!(language_of(image), language, "{image}");
        }
    }

    #[test]
    fn of_a_long_output_both_ends_are_shown() {
        let mut kept = Kept::default();
        for _ in 0..100 {
            kept.add(&[b'a'; 1024]);
        }
        kept.add(b"the end");
        let dropped = kept.dropped;
        let told = kept.told();
        assert!(told.starts_with("aaa") && told.ends_with("the end"));
        assert_eq!(dropped, 100 * 1024 + 7 - SHOWN);
        assert!(told.contains(&format!("{dropped} bytes left out")));
        let mut short = Kept::default();
        short.add(b"hi\n");
        assert_eq!(short.told(), "hi\n");
    }

    #[test]
    fn a_command_is_told_with_its_code_and_both_outputs() {
        let mut collected = Collected::default();
        let lines = [
            json!({ "kind": "opened" }),
            json!({ "kind": "stdout", "data": "out" }),
            json!({ "kind": "stderr", "data": "ZXJyCg==", "encoding": "base64" }),
            json!({ "kind": "exit", "code": 3 }),
        ];
        let ends: Vec<bool> = lines
            .iter()
            .map(|line| collected.take(line, "x").unwrap())
            .collect();
        assert_eq!(ends, [false, false, false, true]);
        assert_eq!(collected.told(1), "exit code: 3\nstdout:\nout\nstderr:\nerr\n");
        let mut late = Collected::default();
        late.take(
            &json!({ "kind": "exit", "signal": "KILL", "timedOut": true }),
            "x",
        )
        .unwrap();
        assert!(late.told(5).starts_with("ended after 5 seconds"));
    }
}
