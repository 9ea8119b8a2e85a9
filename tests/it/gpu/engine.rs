//! The engine of a box is restarted under a running job: an engine of the test's own, with a folder of
//! its own, as the one of this machine runs other tests.

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use camino_tempfile::Utf8TempDir;
use nimbus_tests::gpu::{PATIENCE, Plane, job, log, printed, reaches, submit};
use nimbus_tests::lab::IMAGE;
use nimbus_tests::process::{Process, command};
use nimbus_tests::wait::{eventually, within};
use tokio::process::Command;

/// A Docker engine without a network.
struct Engine {
    dir: Utf8TempDir,
    log: Utf8PathBuf,
    live_restore: bool,
    process: Process,
}

impl Engine {
    /// Starts one that has the image of jobs.
    async fn start(log: &Utf8Path, live_restore: bool) -> Self {
        // A socket's path has at most 107 bytes.
        let dir = camino_tempfile::Builder::new()
            .prefix("ne")
            .tempdir_in("/tmp")
            .unwrap();
        let log = log.join("dockerd.log");
        let process = launch(dir.path(), &log, live_restore);
        let engine = Self {
            dir,
            log,
            live_restore,
            process,
        };
        engine.answers().await;
        let load = format!("docker save {IMAGE} | docker -H unix://{} load", engine.socket());
        let loaded = Command::new("sh").args(["-c", &load]).output().await.unwrap();
        assert!(
            loaded.status.success(),
            "{}",
            String::from_utf8_lossy(&loaded.stderr)
        );
        engine
    }

    fn socket(&self) -> Utf8PathBuf {
        self.dir.path().join("d.sock")
    }

    async fn answers(&self) {
        let host = format!("unix://{}", self.socket());
        let _ = eventually(
            "the engine answers",
            PATIENCE,
            async || {
                let asked = Command::new("docker")
                    .args(["-H", &host, "version"])
                    .output()
                    .await;
                asked.unwrap().status.success()
            },
            |answers| *answers,
        )
        .await;
    }

    async fn restart(&mut self) {
        let _ = self.process.terminate(Duration::from_secs(60)).await;
        self.process = launch(self.dir.path(), &self.log, self.live_restore);
        self.answers().await;
    }

    /// Ends it with everything that it runs.
    async fn end(mut self) {
        let host = format!("unix://{}", self.socket());
        let all = format!("docker -H {host} ps -aq | xargs -r docker -H {host} rm -f");
        let _ = Command::new("sh").args(["-c", &all]).output().await.unwrap();
        let _ = within("the engine's end", PATIENCE, self.process.terminate(PATIENCE)).await;
        if self.live_restore {
            // Containers that outlive it would need it, so it leaves its folder mounted.
            let root = self.dir.path().join("root");
            let unmounted = Command::new("umount").arg(&root).output().await.unwrap();
            let why = String::from_utf8_lossy(&unmounted.stderr);
            assert!(unmounted.status.success(), "{root}: {why}");
        }
        self.dir.close().unwrap();
    }
}

fn launch(dir: &Utf8Path, log: &Utf8Path, live_restore: bool) -> Process {
    // In a network of its own: an engine without a bridge takes away the one that it finds.
    let mut dockerd = command("unshare");
    dockerd.args(["--net", "dockerd", "--host", &format!("unix://{}/d.sock", dir)]);
    for (flag, name) in [
        ("--data-root", "root"),
        ("--exec-root", "exec"),
        ("--pidfile", "pid"),
    ] {
        dockerd.args([flag, dir.join(name).as_str()]);
    }
    dockerd.args(["--bridge=none", "--iptables=false", "--ip-forward=false"]);
    if live_restore {
        dockerd.arg("--live-restore");
    }
    Process::start("dockerd", &mut dockerd, log)
}

const LINES: u32 = 60;

fn counting() -> String {
    format!("i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); sleep 0.2; done")
}

fn counted() -> String {
    (0..LINES).map(|n| format!("line {n}\n")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_engine_keeps_the_job_or_ends_it_and_the_next_one_runs() {
    for live_restore in [true, false] {
        let name = if live_restore {
            "engine_restored"
        } else {
            "engine_restarted"
        };
        let plane = Plane::with(name, true, |settings| settings).await;
        let mut engine = Engine::start(&plane.output, live_restore).await;
        let mut worker = plane.worker("box").await;
        worker.terminate().await;
        worker.set("GX10_ENGINE_SOCKET", engine.socket());
        worker.restart();
        plane.hears(&worker).await;

        let id = submit(&plane.admin, &counting()).await;
        let next = submit(&plane.admin, "echo next").await;
        let _ = printed(&plane.admin, &id, 100).await;
        engine.restart().await;
        let state = if live_restore { "succeeded" } else { "failed" };
        let done = reaches(&plane.admin, &id, state).await;
        assert_eq!(done["attempt"], 1, "never twice");
        let kept = String::from_utf8(log(&plane.admin, &id).await).unwrap();
        if live_restore {
            assert_eq!(kept, counted(), "every line once, in order");
        } else {
            assert_eq!(done["error_code"], "gpu.engine_failed");
            assert!(counted().starts_with(&kept) && kept.len() >= 100, "{kept}");
        }
        let _ = reaches(&plane.admin, &next, "succeeded").await;
        assert_eq!(job(&plane.admin, &next).await["attempt"], 1);
        plane.end(vec![worker], &[id, next]).await;
        engine.end().await;
    }
}
