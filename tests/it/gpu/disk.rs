//! The disk under the server is full: jobs go on, no byte of them is lost or doubled, people are told, and when
//! there is space again nothing has to be started anew.

use std::fs::File;
use std::io::Write;
use std::process::Command;
use std::time::Duration;

use camino::Utf8PathBuf;
use camino_tempfile::Utf8TempDir;
use http::Method;
use nimbus_tests::events::{Event, Events};
use nimbus_tests::gpu::{PATIENCE, Plane, job, log, printed, reaches, runs, submit};
use nimbus_tests::lab::{IMAGE, docker};
use nimbus_tests::wait::eventually;
use serde_json::json;

/// A disk of its own for one server.
struct Disk {
    path: Utf8PathBuf,
    _dir: Utf8TempDir,
}

impl Disk {
    /// `None` where disks cannot be mounted.
    fn mount(mib: u32) -> Option<Self> {
        let dir = camino_tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::create_dir(&path).unwrap();
        let size = format!("size={mib}m,mode=700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "nimbus-test", path.as_str()])
            .output()
            .unwrap();
        if !mounted.status.success() {
            let why = String::from_utf8_lossy(&mounted.stderr);
            eprintln!("skipped: a small disk can only be mounted by root: {why}");
            return None;
        }
        Some(Self { path, _dir: dir })
    }

    fn ballast(&self) -> Utf8PathBuf {
        self.path.join("ballast")
    }

    /// Leaves not one byte.
    fn fill(&self) {
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(self.ballast())
            .unwrap();
        for size in [1 << 20, 4096, 1] {
            let piece = vec![7; size];
            while file.write_all(&piece).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Also when a test failed and its server still has files open there.
        let _ = Command::new("umount").args(["-l", self.path.as_str()]).status();
    }
}

/// A job that waits for a word, prints the numbers up to this one, and leaves this much behind.
fn work(numbers: u32, artifact: u32) -> String {
    format!(
        "seq 1 9; until [ -e /go ]; do sleep 0.1; done; seq 10 {numbers}; \
         head -c {artifact} /dev/urandom > /artifacts/noise; sha256sum < /artifacts/noise"
    )
}

async fn container(job: &str) -> String {
    let filter = format!("label=io.nimbus.gpu.job={job}");
    docker(&["ps", "-aq", "--filter", &filter])
        .await
        .trim()
        .to_owned()
}

async fn say_go(job: &str) {
    let _ = docker(&["exec", &container(job).await, "touch", "/go"]).await;
}

async fn has_ended(job: &str) {
    let container = container(job).await;
    let _ = eventually(
        &format!("the program of {job} has ended"),
        PATIENCE,
        async || docker(&["inspect", "-f", "{{.State.Running}}", &container]).await,
        |running| running.trim() == "false",
    )
    .await;
}

async fn goes_through_it(bus: bool) {
    let Some(disk) = Disk::mount(256) else { return };
    let name = if bus { "disk_full_nats" } else { "disk_full_http" };
    let plane = Plane::with(name, bus, |settings| {
        settings
            .with("NIMBUS_DATA_DIR", &disk.path)
            .with("GPU_SILENT_AFTER_SECONDS", "3")
            .with("GPU_LOST_AFTER_SECONDS", "6")
    })
    .await;
    let worker = plane.worker("box").await;
    let mut jobs = vec![];
    // First its log finds no space, then its artifacts.
    for (numbers, artifact) in [(1_000_000, 1000), (20, 24 << 20)] {
        let id = submit(&plane.admin, &work(numbers, artifact)).await;
        let _ = runs(&plane.admin, &id).await;
        let _ = printed(&plane.admin, &id, 18).await;
        disk.fill();
        say_go(&id).await;
        has_ended(&id).await;
        let refused = eventually(
            "a job is refused, and why is said",
            PATIENCE,
            async || {
                let body = json!({ "image": IMAGE, "command": "echo no" });
                plane.admin.post("/api/gpu/jobs", &body).await
            },
            |answer| answer.status != 201,
        )
        .await;
        let fault = &refused.body["fault"];
        assert_eq!(fault["code"], "service.storage_io", "{refused:?}");
        assert!(
            fault["remediation"]["message"]
                .as_str()
                .unwrap()
                .contains("disk space"),
            "{fault}"
        );
        // Longer than after what a silent box is a lost one: the silence is not the box'.
        tokio::time::sleep(Duration::from_secs(10)).await;
        let stuck = job(&plane.admin, &id).await;
        assert_eq!(stuck["state"], "running", "{stuck}");

        if numbers > 1000 {
            assert!(stuck["log_end"].as_u64().unwrap() < 6_000_000, "{stuck}");
        }
        disk.free();
        let done = reaches(&plane.admin, &id, "succeeded").await;
        assert_eq!(
            (&done["attempt"], &done["log_truncated"]),
            (&json!(1), &json!(false)),
            "{done}"
        );
        let text = String::from_utf8(log(&plane.admin, &id).await).unwrap();
        let mut lines = text.lines();
        for number in 1..=numbers {
            assert_eq!(
                lines.next(),
                Some(number.to_string().as_str()),
                "each number once, in order"
            );
        }
        let sum = lines.next().unwrap().split(' ').next().unwrap().to_owned();
        let path = format!("/api/gpu/jobs/{id}/artifact");
        let packed = plane.admin.request(Method::GET, &path).send().await.unwrap();
        assert_eq!(packed.status(), 200);
        let file = plane.output.join("artifact.tar.gz");
        std::fs::write(&file, packed.bytes().await.unwrap()).unwrap();
        let unpack = format!("tar -xOzf {file} ./noise | sha256sum");
        let unpacked = Command::new("sh").args(["-c", &unpack]).output().unwrap();
        assert_eq!(
            String::from_utf8(unpacked.stdout).unwrap().split(' ').next(),
            Some(sum.as_str())
        );
        jobs.push(id);
    }
    // Everything goes on: what was refused is taken, by the same box, and who follows events is told of it. A bus that
    // stopped writing has been started anew for that.
    let _ = eventually(
        "the server is ready",
        PATIENCE,
        async || plane.admin.get("/ready").await.status,
        |status| *status == 200,
    )
    .await;
    let answer = plane
        .admin
        .request(Method::GET, "/api/events")
        .send()
        .await
        .unwrap();
    let mut events = Events::of(answer);
    let id = submit(&plane.admin, "echo after").await;
    let about = |event: &Event| event.name == "gpu_job" && event.data.to_string().contains(&id);
    let _ = events.until("an event of the job", about).await;
    let _ = reaches(&plane.admin, &id, "succeeded").await;
    jobs.push(id);
    plane.hears(&worker).await;
    plane.end(vec![worker], &jobs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_under_the_server_holds_up_boxes_on_the_bus() {
    goes_through_it(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_under_the_server_holds_up_boxes_on_http() {
    goes_through_it(false).await;
}
