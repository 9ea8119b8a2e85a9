//! Jobs from inside a machine: what Nimbus told it when it was made, in a system like its own.

use std::process::Stdio;

use nimbus_tests::api::Api;
use nimbus_tests::gpu::{PATIENCE, Plane, job, log};
use nimbus_tests::process::output;
use nimbus_tests::server::Settings;
use nimbus_tests::sim::PveSim;
use nimbus_tests::wait::eventually;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The image of a Debian with curl, as machines have it.
const DEBIAN: &str = "nimbus.test/systemd:1";

/// Runs a script in a system that was told `told`, as its login user; what it printed.
async fn inside(told: &str, script: &str) -> String {
    let prepare = "useradd -m -s /bin/bash debian && sh /told && su - debian -c 'set -e; . /script'";
    let mut child = Command::new("docker")
        .args([
            "run",
            "--rm",
            "-i",
            "--network",
            "host",
            "--add-host",
            "nimbus.example.org:127.0.0.1",
        ])
        .args([
            "--label",
            "io.nimbus.test=machine",
            "--entrypoint",
            "bash",
            DEBIAN,
            "-c",
        ])
        .arg(format!("tar -xf - -C / && chmod 644 /script && {prepare}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let dir = camino_tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("told"), told).unwrap();
    std::fs::write(dir.path().join("script"), script).unwrap();
    let packed = Command::new("tar")
        .args(["-cf", "-", "-C", dir.path().as_str(), "told", "script"])
        .output()
        .await
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&packed.stdout).await.unwrap();
    drop(stdin);
    let done = child.wait_with_output().await.unwrap();
    let errors = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{}: {errors}", done.status);
    String::from_utf8(done.stdout).unwrap()
}

/// A server with a cluster whose machines are told an address that is no loopback one; here it leads to loopback
/// all the same.
async fn plane(test: &str) -> (PveSim, Plane) {
    let sim = PveSim::start(&output("gpu", &format!("{test}-sim")), 0.0, 10).await;
    let mut plane = Plane::with(test, false, |settings| {
        settings
            .iter()
            .fold(Settings::cluster(&sim), |all, (name, value)| {
                all.with(name, value)
            })
            .with("NIMBUS_GPU_PREPARE_SECONDS", "1")
    })
    .await;
    let port = plane.server.url().rsplit(':').next().unwrap().to_owned();
    let _ = plane.server.terminate().await;
    plane
        .server
        .restart_with("APP_URL", &format!("http://nimbus.example.org:{port}"))
        .await;
    (sim, plane)
}

/// The scripts with a token that guests were given.
async fn told(sim: &PveSim) -> Vec<String> {
    let state = sim.state().await;
    let commands = state["guest_commands"].as_array().unwrap().clone();
    commands
        .iter()
        .filter_map(|command| command["input"].as_str())
        .filter(|input| input.contains("nbv_"))
        .map(str::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_made_before_the_first_box_is_told_when_there_is_one() {
    let (sim, plane) = plane("machine-before").await;
    let operation = plane.admin.order("early-vm").await;
    let _ = plane.admin.succeeded(&operation).await;
    let vm = plane.admin.machine("early-vm").await.unwrap()["ID"].clone();
    assert_eq!(told(&sim).await, Vec::<String>::new());

    let worker = plane.worker("box").await;
    let scripts = eventually(
        "the machine is told",
        PATIENCE,
        || told(&sim),
        |scripts| !scripts.is_empty(),
    )
    .await;
    let said = inside(
        &scripts[0],
        r#"
        id=$(gx10 submit nimbus.test/busybox:1 -- echo "from before")
        echo "id=$id"
        gx10 logs -f "$id"
        "#,
    )
    .await;
    let (id, printed) = said.strip_prefix("id=").unwrap().split_once('\n').unwrap();
    assert_eq!(printed, "from before\n");
    assert_eq!(job(&plane.admin, id).await["vm_id"], vm);
    assert_eq!(told(&sim).await.len(), 1, "once");
    plane.end(vec![worker], &[id.to_owned()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_submits_with_what_it_was_told_and_no_more_when_it_is_gone() {
    let (sim, plane) = plane("machine").await;
    let worker = plane.worker("box").await;

    let operation = plane.admin.order("gpu-vm").await;
    let ended = plane.admin.succeeded(&operation).await;
    assert_eq!(ended["warnings"].as_array().map_or(0, Vec::len), 0, "{ended}");
    let scripts = told(&sim).await;
    let told = scripts.first().expect("the machine was told its token");

    // Words arrive as they were written, and what the job left comes back.
    let said = inside(
        told,
        r#"
        test -n "$OPENAI_API_KEY" && test "$OPENAI_BASE_URL" = "$NIMBUS_GPU_API/v1"
        test "$(stat -c %a ~/.config/nimbus/gpu-token)" = 600
        id=$(gx10 submit -e NAME='a "b" $c' nimbus.test/busybox:1 -- sh -c 'echo "$NAME|$1|$2"; echo kept > /artifacts/result; exit 3' sh "it's" 'two  spaces
and a line')
        echo "id=$id"
        code=0; gx10 logs -f "$id" || code=$?
        echo "code=$code"
        gx10 cp "$id" out >/dev/null && cat out/result
        long=$(gx10 submit nimbus.test/busybox:1 -- sleep 3600)
        gx10 cancel "$long" >/dev/null
        gx10 jobs | grep -c job_
        curl -s -o /dev/null -w 'elsewhere=%{http_code}\n' -H "Authorization: Bearer $OPENAI_API_KEY" "${NIMBUS_GPU_API%/gpu}/vms"
        "#,
    )
    .await;
    let id = said
        .lines()
        .find_map(|line| line.strip_prefix("id="))
        .unwrap()
        .to_owned();
    assert_eq!(
        said.split_once('\n').unwrap().1,
        "a \"b\" $c|it's|two  spaces\nand a line\ncode=3\nkept\n2\nelsewhere=403\n",
        "{said}"
    );
    let job = job(&plane.admin, &id).await;
    assert!(job["vm_id"].as_str().unwrap().starts_with("vm_"), "{job}");
    assert_eq!(
        log(&plane.admin, &id).await,
        b"a \"b\" $c|it's|two  spaces\nand a line\n"
    );

    let token = told
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .find(|word| word.starts_with("nbv_"))
        .unwrap()
        .to_owned();
    let machine = Api::anonymous(&plane.server.url()).with_token(&token);
    let _ = machine.get("/api/gpu/jobs").await.is(200);
    let vm = job["vm_id"].as_str().unwrap();
    let operation = plane.admin.begin_delete(vm).await;
    let _ = plane.admin.succeeded(&operation).await;
    let _ = machine.get("/api/gpu/jobs").await.is(401);
    plane.end(vec![worker], &[id]).await;
}
