//! `nimbus sandbox` and `nimbus mcp`, as a person and an agent use them.

use std::process::{Output, Stdio};

use camino::Utf8Path;
use nimbus_tests::lab::IMAGE;
use nimbus_tests::process::{binary, command, signal};
use nimbus_tests::{Lab, Tenant, eventually};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

const SUITE: &str = "workloads";

/// The command line of a program that holds an API key of one tenant.
struct Line {
    url: String,
    tenant: String,
    key: String,
    home: camino_tempfile::Utf8TempDir,
}

impl Line {
    async fn of(lab: &Lab, tenant: &Tenant) -> Self {
        let grants = json!({ "name": "cli", "grants": [{ "actions": ["*"], "sandboxes": "all" }] });
        let made = tenant
            .api
            .post(&tenant.path("/api-keys"), &grants)
            .await
            .is(201)
            .body;
        Self {
            url: lab.server.url(),
            tenant: tenant.id.clone(),
            key: made["key"].as_str().unwrap().to_owned(),
            home: camino_tempfile::tempdir().unwrap(),
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = command(binary());
        command
            .args(args)
            .env("HOME", self.home.path())
            .env("NIMBUS_ENDPOINT", &self.url)
            .env("NIMBUS_TENANT", &self.tenant)
            .env("NIMBUS_API_KEY", &self.key)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().await.unwrap()
    }

    /// What it prints; it must succeed.
    async fn prints(&self, args: &[&str]) -> String {
        let ran = self.run(args).await;
        assert!(ran.status.success(), "{args:?}: {ran:?}");
        String::from_utf8(ran.stdout).unwrap()
    }

    async fn with_input(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writing = tokio::spawn(async move {
            stdin.write_all(&input).await.unwrap();
        });
        let ran = child.wait_with_output().await.unwrap();
        writing.await.unwrap();
        ran
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn run_ends_as_its_command_does_and_leaves_nothing() {
    let lab = Lab::start(SUITE, "cli-run").await;
    let tenant = lab.tenant("demo").await;
    let line = Line::of(&lab, &tenant).await;
    let script = "echo out; echo err >&2; exit 7";
    let ran = line.run(&["sandbox", "run", IMAGE, "sh", "-c", script]).await;
    assert_eq!(ran.status.code(), Some(7), "{ran:?}");
    assert_eq!(
        (text(&ran.stdout), text(&ran.stderr)),
        ("out\n".into(), "err\n".into())
    );

    let input: Vec<u8> = (0..600_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let ran = line
        .with_input(&["sandbox", "run", "-i", IMAGE, "cat"], &input)
        .await;
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    assert!(
        ran.stdout == input,
        "{} of {} bytes came back",
        ran.stdout.len(),
        input.len()
    );

    for (argv, code) in [
        (&["/no/such/program"][..], 127),
        (&["/etc"], 126),
        (&["sh", "-c", "kill -9 $$"], 137),
    ] {
        let ran = line.run(&[&["sandbox", "run", IMAGE][..], argv].concat()).await;
        assert_eq!(ran.status.code(), Some(code), "{argv:?}: {ran:?}");
    }
    let ran = line.run(&["sandbox", "run", "127.0.0.1:1/none:1", "true"]).await;
    assert_eq!(ran.status.code(), Some(125), "{ran:?}");

    // A signal is the command's; how it ends then is its own affair.
    let script = "trap 'echo asked; exit 21' TERM; echo up; while :; do sleep 0.1; done";
    let mut child = line
        .command(&["sandbox", "run", IMAGE, "sh", "-c", script])
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("up"));
    signal(child.id().unwrap(), Signal::TERM);
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("asked"));
    assert_eq!(child.wait().await.unwrap().code(), Some(21));

    let all = line.prints(&["sandbox", "ls", "--all", "-o", "json"]).await;
    assert_eq!(all.trim(), "[]");
    lab.end().await;
}

#[tokio::test]
async fn exec_and_cp_reach_into_a_sandbox() {
    let lab = Lab::start(SUITE, "cli-exec").await;
    let tenant = lab.tenant("demo").await;
    let line = Line::of(&lab, &tenant).await;
    let id = line
        .prints(&[
            "sandbox", "create", IMAGE, "--name", "box", "--label", "k=v", "--", "sleep", "3600",
        ])
        .await;
    let id = id.trim();
    assert!(id.starts_with("box-"), "{id}");
    let list = line.prints(&["sandbox", "ls", "--label", "k=v", "-q"]).await;
    assert_eq!(list.trim(), id);

    let ran = line
        .run(&[
            "sandbox",
            "exec",
            "-e",
            "A=b",
            "-w",
            "/tmp",
            id,
            "sh",
            "-c",
            "echo $A; pwd; exit 3",
        ])
        .await;
    assert_eq!(
        (text(&ran.stdout), ran.status.code()),
        ("b\n/tmp\n".into(), Some(3))
    );
    for flags in [&["-i"][..], &["-i", "-e", "X=y"]] {
        let ran = line
            .with_input(
                &[&["sandbox", "exec"][..], flags, &[id, "wc", "-c"]].concat(),
                &[b'x'; 100_000],
            )
            .await;
        assert_eq!(
            text(&ran.stdout).trim(),
            "100000",
            "{flags:?}: {}",
            text(&ran.stderr)
        );
    }
    for (argv, code) in [
        (&["--timeout", "1", id, "sleep", "60"][..], 124),
        (&[id, "/no/such/program"], 127),
        (&["no-such-sandbox-00000000000000000000000000", "true"], 125),
    ] {
        let ran = line.run(&[&["sandbox", "exec"][..], argv].concat()).await;
        assert_eq!(ran.status.code(), Some(code), "{argv:?}: {ran:?}");
    }

    let here = line.home.path();
    std::fs::create_dir_all(here.join("tree/sub")).unwrap();
    std::fs::write(here.join("tree/sub/file"), "content").unwrap();
    let there = |path: &str| format!("{id}:{path}");
    let copy = async |from: &str, to: &str| {
        let _ = line.prints(&["sandbox", "cp", from, to]).await;
    };
    copy(here.join("tree").as_str(), &there("/tmp")).await;
    assert_eq!(tenant.prints(id, &["cat", "/tmp/tree/sub/file"]).await, "content");
    copy(&there("/tmp/tree"), here.join("back").as_str()).await;
    assert_eq!(
        std::fs::read_to_string(here.join("back/sub/file")).unwrap(),
        "content"
    );
    copy(here.join("tree/sub/file").as_str(), &there("/tmp/one")).await;
    copy(&there("/tmp/one"), here.join("one").as_str()).await;
    assert_eq!(std::fs::read_to_string(here.join("one")).unwrap(), "content");
    let ran = line
        .run(&["sandbox", "cp", &there("/nothing"), here.join("x").as_str()])
        .await;
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    assert!(!Utf8Path::new(&here.join("x")).exists());

    let _ = line.prints(&["sandbox", "rm", "--force", id]).await;
    lab.end().await;
}

#[tokio::test]
async fn services_are_applied_and_started_by_name() {
    let lab = Lab::start(SUITE, "cli-service").await;
    let tenant = lab.tenant("demo").await;
    let line = Line::of(&lab, &tenant).await;
    let file = line.home.path().join("services.yaml");
    std::fs::write(
        &file,
        format!(
            "- metadata: {{ name: web }}\n  spec:\n    backend:\n      kind: sandbox\n      sandbox:\n        \
             owner: {{ kind: service }}\n        backend: container\n        \
             root: {{ kind: oci_image, source: {{ kind: reference, reference: '{IMAGE}' }} }}\n        \
             process: {{ argv: [sh, -c, 'echo serving; sleep 3600'] }}\n\
             - metadata: {{ name: lb }}\n  spec: {{ backend: {{ kind: builtIn, provider: loadBalancer }} }}\n"
        ),
    )
    .unwrap();
    let _ = line.prints(&["service", "apply", "-f", file.as_str()]).await;
    assert_eq!(line.prints(&["service", "start", "web"]).await, "web ready\n");
    assert_eq!(line.prints(&["service", "ls", "-q"]).await, "lb\nweb\n");
    eventually(
        "the log has a line",
        Duration::from_secs(30),
        async || line.prints(&["service", "logs", "web"]).await,
        |log| log == "serving\n",
    )
    .await;
    let session = line.prints(&["session", "open", "--service", "web"]).await;
    let session = session.trim();
    let said = line
        .prints(&["session", "attach", session, "--no-stdin", "--", "echo", "inside"])
        .await;
    assert_eq!(said, "inside\n");
    let _ = line.prints(&["session", "close", session]).await;
    assert_eq!(line.prints(&["service", "stop", "web"]).await, "web stopped\n");
    let ran = line.run(&["service", "start", "lb"]).await;
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    let _ = line.prints(&["service", "rm", "web"]).await;
    lab.end().await;
}

/// A session of the Model Context Protocol with the command as an agent starts it.
struct Agent {
    stdin: tokio::process::ChildStdin,
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
    child: tokio::process::Child,
    next: u64,
}

impl Agent {
    async fn start(line: &Line) -> Self {
        let mut child = line
            .command(&["mcp", "--image", IMAGE])
            .stdin(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut agent = Self {
            stdin: child.stdin.take().unwrap(),
            lines: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
            next: 0,
        };
        let hello = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "test", "version": "1" } });
        let answer = agent.ask("initialize", hello).await;
        assert_eq!(answer["serverInfo"]["name"], "nimbus");
        agent
            .send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }))
            .await;
        agent
    }

    async fn send(&mut self, message: &Value) {
        self.stdin
            .write_all(format!("{message}\n").as_bytes())
            .await
            .unwrap();
    }

    async fn ask(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let id = self.next;
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))
            .await;
        loop {
            let line = self.lines.next_line().await.unwrap().expect("an answer");
            let answer: Value = serde_json::from_str(&line).unwrap();
            if answer["id"] == id {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    /// The text of a tool's answer, and whether it failed.
    async fn call(&mut self, tool: &str, arguments: Value) -> (String, bool) {
        let answer = self
            .ask("tools/call", json!({ "name": tool, "arguments": arguments }))
            .await;
        let text = answer["content"][0]["text"].as_str().unwrap().to_owned();
        (text, answer["isError"] == true)
    }
}

#[tokio::test]
async fn an_agent_works_in_a_sandbox_through_its_tools() {
    let lab = Lab::start(SUITE, "cli-mcp").await;
    let tenant = lab.tenant("demo").await;
    let line = Line::of(&lab, &tenant).await;
    let mut agent = Agent::start(&line).await;
    let tools = agent.ask("tools/list", json!({})).await;
    assert_eq!(tools["tools"].as_array().unwrap().len(), 9, "{tools}");

    let (made, failed) = agent.call("create_sandbox", json!({ "name": "agent" })).await;
    assert!(!failed, "{made}");
    let id = made.split_whitespace().nth(1).unwrap().to_owned();
    assert_eq!(tenant.sandbox(&id).await["status"]["lifecycleState"], "ready");
    let with = |mut arguments: Value| {
        arguments["sandbox_id"] = json!(id);
        arguments
    };
    for (tool, arguments, expected, fails) in [
        (
            "run_command",
            json!({ "command": "echo hi; echo no >&2; exit 3" }),
            "exit code: 3\nstdout:\nhi\nstderr:\nno\n",
            false,
        ),
        (
            "run_command",
            json!({ "command": "cat", "stdin": "given" }),
            "stdout:\ngiven\n",
            false,
        ),
        (
            "run_command",
            json!({ "command": "sleep 60", "timeout_seconds": 1 }),
            "ended after 1 seconds",
            false,
        ),
        (
            "run_code",
            json!({ "code": "echo $((6 * 7))" }),
            "stdout:\n42\n",
            false,
        ),
        (
            "write_file",
            json!({ "path": "/tmp/new/file", "content": "text\n" }),
            "wrote 5 bytes",
            false,
        ),
        ("read_file", json!({ "path": "/tmp/new/file" }), "text\n", false),
        ("list_files", json!({ "path": "/tmp/new" }), "file", false),
        ("read_file", json!({ "path": "/tmp/none" }), "op.not_found", true),
        (
            "run_code",
            json!({ "code": "x", "language": "cobol" }),
            "cobol",
            true,
        ),
        ("preview_url", json!({ "port": 8080 }), "http://", false),
    ] {
        let (text, failed) = agent.call(tool, with(arguments)).await;
        assert!(text.contains(expected) && failed == fails, "{tool}: {text}");
    }
    let (list, _) = agent.call("list_sandboxes", json!({})).await;
    assert!(list.contains(&id), "{list}");
    let (stopped, failed) = agent.call("stop_sandbox", with(json!({}))).await;
    assert!(!failed, "{stopped}");
    let (list, _) = agent.call("list_sandboxes", json!({})).await;
    assert_eq!(list, "no sandbox runs");

    // It ends with the agent.
    let Agent { stdin, mut child, .. } = agent;
    drop(stdin);
    assert!(child.wait().await.unwrap().success());
    lab.end().await;
}
