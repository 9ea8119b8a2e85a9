//! The helper in machines, run by the shells and the HTTP programs that machines have.

use std::collections::VecDeque;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Output;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use camino::Utf8PathBuf;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::world::within;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/guest/gx10");
const TOKEN: &str = "nbv_0123456789abcdef";

/// Which shell and tools a machine has.
#[derive(Clone, Copy, Debug)]
enum Guest {
    /// dash and what Debian has, with curl.
    Debian,
    /// The same with GNU wget instead of curl.
    Wget,
    /// Everything from busybox, with curl.
    Busybox,
}

/// What came in.
#[derive(Clone, Debug)]
struct Seen {
    method: String,
    path: String,
    key: String,
    accept: String,
    authorized: bool,
    body: Vec<u8>,
}

#[derive(Clone, Default)]
struct Portal {
    seen: Arc<Mutex<Vec<Seen>>>,
    answers: Arc<Mutex<VecDeque<Response>>>,
}

async fn take(State(portal): State<Portal>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let header = |name: &str| {
        let value = parts.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let body: Bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    portal.seen.lock().unwrap().push(Seen {
        method: parts.method.to_string(),
        path: parts.uri.to_string(),
        key: header("idempotency-key"),
        accept: header("accept"),
        authorized: header("authorization") == format!("Bearer {TOKEN}"),
        body: body.to_vec(),
    });
    let answer = portal.answers.lock().unwrap().pop_front();
    answer.unwrap_or_else(|| (StatusCode::IM_A_TEAPOT, "nobody expected this").into_response())
}

struct World {
    portal: Portal,
    url: String,
    dir: camino_tempfile::Utf8TempDir,
}

fn find(program: &str) -> Utf8PathBuf {
    ["/usr/bin", "/bin", "/usr/local/bin"]
        .iter()
        .map(|folder| Utf8PathBuf::from(folder).join(program))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{program} is not installed"))
}

impl World {
    async fn start() -> Self {
        let portal = Portal::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/api/gpu", listener.local_addr().unwrap());
        let app = Router::new().fallback(take).with_state(portal.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let dir = camino_tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join(".config/nimbus")).unwrap();
        std::fs::write(dir.path().join(".config/nimbus/gpu-token"), format!("{TOKEN}\n")).unwrap();
        Self { portal, url, dir }
    }

    /// A folder with the programs of a guest, and nothing else on the path.
    fn programs(&self, guest: Guest) -> Utf8PathBuf {
        let bin = self.dir.path().join(format!("bin-{guest:?}"));
        if bin.exists() {
            return bin;
        }
        std::fs::create_dir(&bin).unwrap();
        let tools = [
            "awk", "sed", "tr", "od", "wc", "mktemp", "rm", "cat", "head", "tail", "tar", "gzip", "grep",
            "date", "sleep", "mkdir", "cp", "sh",
        ];
        for tool in tools {
            let program = match (guest, tool) {
                (Guest::Busybox, _) => find("busybox"),
                (_, "sh") => find("dash"),
                (_, tool) => find(tool),
            };
            symlink(program, bin.join(tool)).unwrap();
        }
        // What it is started with is what a list of processes shows.
        let client = if matches!(guest, Guest::Wget) {
            "wget"
        } else {
            "curl"
        };
        let real = find(client);
        let shown = self.dir.path().join("shown");
        let text = format!("#!/bin/sh\nprintf '%s\\n' \"$@\" >>'{shown}'\nexec '{real}' \"$@\"\n");
        std::fs::write(bin.join(client), text).unwrap();
        std::fs::set_permissions(bin.join(client), std::fs::Permissions::from_mode(0o755)).unwrap();
        bin
    }

    fn answer(&self, answer: impl IntoResponse) {
        self.portal
            .answers
            .lock()
            .unwrap()
            .push_back(answer.into_response());
    }

    async fn run(&self, guest: Guest, words: &[&str]) -> Output {
        let bin = self.programs(guest);
        let mut command = Command::new(bin.join("sh"));
        command
            .arg(SCRIPT)
            .args(words)
            .env_clear()
            .env("PATH", &bin)
            .env("HOME", self.dir.path())
            .env("TMPDIR", self.dir.path())
            .env("NIMBUS_GPU_API", &self.url)
            .current_dir(self.dir.path());
        within(command.output()).await.unwrap()
    }

    /// What came in since the last look; the credential was right each time.
    fn seen(&self) -> Vec<Seen> {
        let seen = std::mem::take(&mut *self.portal.seen.lock().unwrap());
        assert!(seen.iter().all(|one| one.authorized), "{seen:?}");
        seen
    }
}

fn made(id: &str) -> Response {
    (StatusCode::CREATED, format!("{id}\n")).into_response()
}

fn log(bytes: &[u8], end: usize, state: &str) -> Response {
    let headers = [
        ("nimbus-log-end", end.to_string()),
        ("nimbus-job-state", state.to_owned()),
        ("nimbus-log-truncated", "false".to_owned()),
    ];
    (headers, bytes.to_vec()).into_response()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const GUESTS: [Guest; 3] = [Guest::Debian, Guest::Wget, Guest::Busybox];

#[tokio::test]
async fn the_words_of_a_job_arrive_as_they_were_typed() {
    let world = World::start().await;
    let argument = prop_oneof![
        "[^\\x00]{0,20}",
        "[\\x01-\\x7f]{0,20}",
        "[ \"'\\\\$`\\n\\r\\t{}\\[\\],:]{0,20}",
        Just(String::new()),
        Just("\n".to_owned()),
        Just("a\n\n".to_owned()),
    ];
    let cases = {
        use proptest::strategy::ValueTree;
        let mut runner = TestRunner::new(Config::default());
        let words = prop::collection::vec(argument, 1..40);
        (0..12)
            .map(|_| words.new_tree(&mut runner).unwrap().current())
            .collect::<Vec<_>>()
    };
    for (number, words) in cases.iter().enumerate() {
        let guest = GUESTS[number % GUESTS.len()];
        world.answer(made("job_1"));
        let mut line = vec!["submit", "an/image:tag", "--"];
        line.extend(words.iter().map(String::as_str));
        let output = world.run(guest, &line).await;
        assert_eq!(
            (text(&output.stdout).as_str(), output.status.code()),
            ("job_1\n", Some(0)),
            "{output:?}"
        );
        let seen = world.seen();
        assert_eq!(
            (seen.len(), seen[0].method.as_str(), seen[0].path.as_str()),
            (1, "POST", "/api/gpu/jobs")
        );
        let body: Value = serde_json::from_slice(&seen[0].body).unwrap();
        assert_eq!(body["command"], json!(words), "{guest:?}");
    }
    let shown = std::fs::read_to_string(world.dir.path().join("shown")).unwrap();
    assert!(!shown.contains(TOKEN) && !shown.contains("Bearer"), "{shown}");
    let left: Vec<_> = world
        .dir
        .path()
        .read_dir_utf8()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_owned())
        .collect();
    assert!(!left.iter().any(|name| name.starts_with("gx10.")), "{left:?}");
}

#[tokio::test]
async fn options_are_told_and_nonsense_is_refused_before_anything_is_sent() {
    let world = World::start().await;
    world.answer(made("job_1"));
    let line = [
        "submit",
        "--pool",
        "big",
        "-e",
        "A=1=\"2\"",
        "--env=B=",
        "--time",
        "90m",
        "--memory=2g",
        "--dataset",
        "mnist",
        "--dataset",
        "out:rw",
        "--rerun",
        "img",
    ];
    let output = world.run(Guest::Busybox, &line).await;
    assert!(output.status.success(), "{output:?}");
    let body: Value = serde_json::from_slice(&world.seen()[0].body).unwrap();
    assert_eq!(
        body,
        json!({
            "image": "img", "pool": "big", "env": {"A": "1=\"2\"", "B": ""}, "time_limit_seconds": 5400,
            "memory_bytes": 2_147_483_648_u64, "rerun": true,
            "datasets": [{"name": "mnist", "writable": false}, {"name": "out", "writable": true}],
        })
    );
    for wrong in [
        &["submit"] as &[&str],
        &["submit", "img", "python", "x.py"],
        &["submit", "--time", "1y", "img"],
        &["submit", "--time", "08", "img"],
        &["submit", "--memory", "lots", "img"],
        &["submit", "--env", "=x", "img"],
        &["submit", "--artifact", "out", "img"],
        &["submit", "--what", "img"],
        &["logs"],
        &["cancel", "../jobs"],
        &["explode"],
    ] {
        let output = world.run(Guest::Debian, wrong).await;
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {output:?}");
        assert!(text(&output.stderr).contains("gx10: "), "{output:?}");
    }
    assert!(world.seen().is_empty());
    assert!(text(&world.run(Guest::Debian, &["--help"]).await.stdout).starts_with("usage: gx10"));
}

#[tokio::test]
async fn a_log_is_followed_to_the_byte_and_ends_as_its_job_did() {
    for guest in GUESTS {
        let world = World::start().await;
        let bytes: Vec<u8> = (0..=255).collect();
        world.answer(log(&bytes[..100], 100, "running"));
        // The portal restarts, and a wait ends without anything new.
        world.answer(StatusCode::SERVICE_UNAVAILABLE);
        world.answer(log(b"", 100, "running"));
        world.answer(log(&bytes[100..], 256, "failed"));
        world.answer(
            "id         job_1\nstate      failed (7)\nimage      img\ncommand    echo 'state      succeeded'\n\
             exit code  7\nerror      it said \"no\"\n",
        );
        let output = world.run(guest, &["logs", "-f", "job_1"]).await;
        assert_eq!(
            (&output.stdout, output.status.code()),
            (&bytes, Some(7)),
            "{guest:?}: {output:?}"
        );
        assert!(
            text(&output.stderr).contains("failed with exit code 7: it said \"no\""),
            "{output:?}"
        );
        let seen = world.seen();
        assert_eq!(seen.last().map(|seen| seen.accept.as_str()), Some("text/plain"));
        let asked: Vec<String> = seen.into_iter().map(|seen| seen.path).collect();
        let at = |offset: u32| format!("/api/gpu/jobs/job_1/logs?offset={offset}&limit=262144&wait_ms=20000");
        assert_eq!(
            asked,
            [at(0), at(100), at(100), at(100), "/api/gpu/jobs/job_1".to_owned()]
        );
    }
}

/// In JSON the job's own variables would stand beside what is asked for, under names of their owner's choice.
#[tokio::test]
async fn what_a_job_is_called_is_read_where_its_owner_writes_nothing() {
    let world = World::start().await;
    world.answer(made("job_1"));
    let output = world
        .run(
            Guest::Debian,
            &["submit", "-e", "id=job_2", "-e", "state=x", "img"],
        )
        .await;
    assert_eq!(text(&output.stdout), "job_1\n", "{output:?}");
    assert_eq!(world.seen()[0].accept, "text/plain");
    world.answer((StatusCode::CREATED, "{\"data\":{\"id\":\"job_1\"}}"));
    let output = world.run(Guest::Debian, &["submit", "img"]).await;
    assert_eq!(
        (text(&output.stdout).as_str(), output.status.code()),
        ("", Some(1))
    );
    assert!(text(&output.stderr).contains("is no id"), "{output:?}");
}

#[tokio::test]
async fn a_submission_whose_answer_was_lost_is_sent_again_as_the_same() {
    let world = World::start().await;
    world.answer(StatusCode::BAD_GATEWAY);
    world.answer(made("job_1"));
    let output = world.run(Guest::Debian, &["submit", "img"]).await;
    assert_eq!(text(&output.stdout), "job_1\n", "{output:?}");
    let seen = world.seen();
    assert!(
        seen.len() == 2 && seen[0].key.len() == 37 && seen[0].key == seen[1].key,
        "{seen:?}"
    );
    assert_eq!(seen[0].body, seen[1].body);
}

#[tokio::test]
async fn what_a_job_left_is_unpacked() {
    for guest in GUESTS {
        let world = World::start().await;
        let left = world.dir.path().join("left");
        std::fs::create_dir_all(left.join("deep")).unwrap();
        std::fs::write(left.join("deep/model.bin"), [0, 255, 7]).unwrap();
        let packed = std::process::Command::new("tar")
            .args(["-czf", "-", "-C", left.as_str(), "."])
            .output()
            .unwrap();
        world.answer(packed.stdout);
        let output = world.run(guest, &["cp", "job_1", "here"]).await;
        assert!(output.status.success(), "{guest:?}: {output:?}");
        let got = std::fs::read(world.dir.path().join("here/deep/model.bin")).unwrap();
        assert_eq!(got, [0, 255, 7]);
        assert_eq!(world.seen()[0].path, "/api/gpu/jobs/job_1/artifact");
    }
}

#[tokio::test]
async fn lists_and_refusals_are_shown_as_the_portal_says_them() {
    for guest in GUESTS {
        let world = World::start().await;
        world.answer("ID     STATE\njob_1  queued\n");
        let output = world.run(guest, &["jobs"]).await;
        assert_eq!(
            text(&output.stdout),
            "ID     STATE\njob_1  queued\n",
            "{output:?}"
        );
        world.answer("job_1 cancelled\n");
        let output = world.run(guest, &["cancel", "job_1"]).await;
        assert_eq!(text(&output.stdout), "job_1 cancelled\n", "{output:?}");
        let refusal =
            json!({"error": {"code": "gpu.quota_exceeded", "message": "5 jobs are as many as you may have"}});
        world.answer((StatusCode::CONFLICT, axum::Json(refusal)));
        let output = world.run(guest, &["submit", "img"]).await;
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(text(&output.stderr), "gx10: 5 jobs are as many as you may have\n");
        world.answer((StatusCode::UNAUTHORIZED, "the credential is not valid"));
        let output = world.run(guest, &["jobs"]).await;
        let said = text(&output.stderr);
        // What wget does with the text of this one answer is its own affair.
        let told = matches!(guest, Guest::Wget) || said.contains("the credential is not valid");
        assert!(told && said.contains("gpu-token"), "{said}");
        let methods: Vec<String> = world.seen().into_iter().map(|seen| seen.method).collect();
        assert_eq!(methods, ["GET", "POST", "POST", "GET"]);
    }
}

#[test]
fn the_scripts_are_clean() {
    for script in ["gx10", "prepare.sh"] {
        let path = format!("{}/guest/{script}", env!("CARGO_MANIFEST_DIR"));
        let found = std::process::Command::new(find("shellcheck"))
            .args(["-s", "sh", &path])
            .output()
            .unwrap();
        assert!(found.status.success(), "{}", text(&found.stdout));
    }
}
