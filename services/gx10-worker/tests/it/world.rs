//! A scheduler, a worker's folder, and the worker's process, which comes and goes.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine as _;
use camino_tempfile::Utf8TempDir;
use nimbus_gpu_wire::{Assignment, Limits};

use crate::engine;
use crate::scheduler::{Bus, PATIENCE, Scheduler, TOKEN};

/// Made by `ops/dev/engine.sh images busybox`.
pub(crate) const IMAGE: &str = "nimbus.test/busybox:1";

static COUNT: AtomicU32 = AtomicU32::new(0);

pub(crate) struct World {
    pub(crate) dir: Utf8TempDir,
    pub(crate) scheduler: Scheduler,
    pub(crate) name: String,
    http: String,
    nats: Option<(Nats, Bus)>,
    socket: PathBuf,
    worker: Option<Child>,
    jobs: u32,
    /// Bytes that must be free for the worker to take jobs.
    pub(crate) min_free: u64,
}

struct Nats {
    process: Child,
    url: String,
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

impl World {
    /// Without a worker yet; it will speak HTTP.
    pub(crate) async fn http() -> Self {
        let scheduler = Scheduler::new();
        let http = scheduler.http().await;
        Self::new(scheduler, http)
    }

    /// Without a worker yet; it will speak NATS, and find nobody on HTTP.
    pub(crate) async fn nats() -> Self {
        let mut world = Self::new(Scheduler::new(), "http://127.0.0.1:9".to_owned());
        world.start_nats().await;
        world
    }

    /// Without a worker yet; it will speak NATS or HTTP.
    pub(crate) async fn both() -> Self {
        let mut world = Self::http().await;
        world.start_nats().await;
        world
    }

    fn new(scheduler: Scheduler, http: String) -> Self {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self {
            dir: camino_tempfile::tempdir().unwrap(),
            scheduler,
            name: format!("test-{}-{count}", std::process::id()),
            http,
            nats: None,
            socket: engine::socket(),
            worker: None,
            jobs: 0,
            min_free: 1,
        }
    }

    async fn start_nats(&mut self) {
        let named = ["NIMBUS_TEST_NATS_SERVER", "NIMBUS_NATS_SERVER"];
        let program = named.iter().find_map(std::env::var_os).map_or_else(
            || {
                PathBuf::from(concat!(
                    env!("CARGO_MANIFEST_DIR"),
                    "/../../target/nats/nats-server"
                ))
            },
            PathBuf::from,
        );
        let dir = self.dir.path().join("nats");
        std::fs::create_dir(&dir).unwrap();
        let process = Command::new(&program)
            .args([
                "-a",
                "127.0.0.1",
                "-p",
                "-1",
                "-js",
                "-sd",
                dir.as_str(),
                "--ports_file_dir",
                dir.as_str(),
            ])
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; `make` puts it there", program.display()));
        let ports = dir.join(format!("nats-server_{}.ports", process.id()));
        let url = within("the server's ports", || {
            let text = std::fs::read_to_string(&ports).ok()?;
            let ports: serde_json::Value = serde_json::from_str(&text).ok()?;
            Some(ports["nats"][0].as_str()?.to_owned())
        })
        .await;
        let nats = Nats { process, url };
        let bus = self.scheduler.nats(&nats.url, &self.name).await;
        self.nats = Some((nats, bus));
    }

    pub(crate) fn bus(&self) -> &Bus {
        &self.nats.as_ref().expect("a world with NATS").1
    }

    /// The bus goes away.
    pub(crate) fn stop_nats(&mut self) {
        drop(self.nats.take());
    }

    /// The worker will reach the engine through a proxy.
    pub(crate) fn behind_proxy(&mut self) -> engine::Proxy {
        self.socket = self.dir.path().join("engine.sock").into();
        engine::Proxy::start(&self.socket)
    }

    /// Starts the worker's process.
    pub(crate) fn start(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gx10-worker"));
        command
            .arg("run")
            .env("NIMBUS_URL", &self.http)
            .env("NIMBUS_WORKER_TOKEN", TOKEN)
            .env("GX10_WORKER_ID", &self.name)
            .env("GX10_STATE_DIR", self.dir.path().join("state"))
            .env("GX10_ENGINE_SOCKET", &self.socket)
            .env("GX10_MIN_FREE_BYTES", self.min_free.to_string())
            .env("GX10_UNPAIRED_AFTER", "2s")
            .env("GX10_DEVICE_REQUEST", "none")
            .env("GX10_SHM_BYTES", "67108864")
            .env("GX10_LOG", "info,gx10_worker=debug");
        if let Some((nats, _)) = &self.nats {
            let credentials = self.dir.path().join("bus.creds");
            std::fs::write(&credentials, credential()).unwrap();
            command
                .env("GX10_BUS_URL", &nats.url)
                .env("GX10_BUS_CREDENTIALS", credentials);
        }
        self.worker = Some(command.spawn().unwrap());
    }

    /// Ends the worker as a crash would.
    pub(crate) fn kill(&mut self) {
        let mut worker = self.worker.take().expect("it was started");
        worker.kill().unwrap();
        worker.wait().unwrap();
    }

    fn pid(&self) -> String {
        self.worker.as_ref().expect("it was started").id().to_string()
    }

    /// Asks the worker to end, and waits for that.
    pub(crate) async fn signal_and_wait(&mut self, signal: &str) {
        assert!(
            Command::new("kill")
                .args([signal, &self.pid()])
                .status()
                .unwrap()
                .success()
        );
        let mut worker = self.worker.take().expect("it was started");
        let status = within("the worker's end", || worker.try_wait().unwrap()).await;
        assert!(status.success(), "{status}");
    }

    /// A job for a shell, to be given to the worker.
    pub(crate) fn job(&mut self, line: &str) -> Assignment {
        self.jobs += 1;
        Assignment {
            protocol: 1,
            job: format!("job_{}-{}", self.name, self.jobs),
            attempt: 1,
            image: IMAGE.to_owned(),
            command: nimbus_gpu_wire::Command::Shell(line.to_owned()),
            env: vec![],
            datasets: vec![],
            limits: Limits {
                time_s: 600,
                memory_bytes: None,
                log_bytes: 16 << 20,
                artifact_bytes: 1 << 20,
            },
        }
    }

    /// Puts a job where a worker on HTTP finds it.
    pub(crate) fn queue(&self, job: &Assignment) -> String {
        self.scheduler.with(|book| {
            book.caps.insert(job.job.clone(), job.limits.log_bytes);
            book.queue.push_back(job.clone());
        });
        job.job.clone()
    }

    pub(crate) async fn nothing_is_left_of(&self, job: &str) {
        let container = container(job);
        within("its container's removal", || {
            (!engine::exists(&container)).then_some(())
        })
        .await;
        self.scheduler
            .until("idleness", |book| book.held().is_empty().then_some(()))
            .await;
        let records = self.dir.path().join("state/jobs");
        within("its record's removal", || {
            (std::fs::read_dir(&records).unwrap().count() == 0).then_some(())
        })
        .await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut worker) = self.worker.take() {
            let _gone = worker.kill();
            let _reaped = worker.wait();
        }
        engine::clean(&self.name);
    }
}

pub(crate) fn container(job: &str) -> String {
    format!("nimbus-job-{job}")
}

/// Lets a job go on that waits for the file.
pub(crate) async fn go(job: &str) {
    let container = container(job);
    let said = |args: &[&str], text: &str| engine::docker(args) == text;
    within("go", || {
        let touched = said(&["exec", &container, "sh", "-c", "touch /tmp/go; echo ok"], "ok");
        // Told to go on, it may have ended before the answer.
        let ended = !said(&["inspect", "-f", "{{.State.Running}}", &container], "true");
        (touched || ended).then_some(())
    })
    .await;
}

/// Asks again and again, of those who cannot be listened to.
pub(crate) async fn within<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(tokio::time::Instant::now() < until, "waited in vain for {what}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// A credential that a server without authentication takes.
fn credential() -> String {
    let seed = nkeys::KeyPair::new_user().seed().unwrap();
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .encode(r#"{"nats":{"sub":{"allow":["_INBOX_test.>"]}}}"#);
    format!(
        "-----BEGIN NATS USER JWT-----\neyJ0eXAiOiJKV1QifQ.{claims}.AA\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
}
