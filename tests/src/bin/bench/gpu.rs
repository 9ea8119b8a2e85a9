//! GPU jobs beside the engine that runs them: from submit to start, log throughput, a long queue.
//!
//! The peer is the engine itself, in the same run: `docker run`, `docker logs`. There need not be a GPU.
//! What the scheduler alone can do is measured with a box that needs no time for its jobs: it speaks the
//! protocol of boxes over HTTP and reports each job's end as soon as it has it.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use camino::Utf8PathBuf;
use nimbus_model::{Clock, Timestamp};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::report::{Report, ms, percentile};
use crate::server::Process;

const IMAGE: &str = "nimbus.test/busybox:1";
const STARTS: usize = 20;
const LOG: usize = 64 << 20;
const QUEUE: usize = 10_000;
/// How many of the queue's submits and ends are measured with few and with many jobs in it.
const SAMPLE: usize = 200;
const RUNS: usize = 20;

struct World {
    server: Process,
    worker: Child,
    client: reqwest::Client,
    base: String,
    token: String,
    _folder: camino_tempfile::Utf8TempDir,
}

/// The worker that `ops/dev/gx10.sh` built, unless `NIMBUS_GX10_WORKER` names another.
fn worker_binary() -> Utf8PathBuf {
    std::env::var("NIMBUS_GX10_WORKER").map_or_else(
        |_| Utf8PathBuf::from("target/gx10/gx10-worker"),
        Utf8PathBuf::from,
    )
}

impl World {
    async fn new() -> Result<Self> {
        let folder = camino_tempfile::tempdir()?;
        let path = folder.path().to_owned();
        let (data, token) = (path.join("data"), path.join("admin-token"));
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))?
            .local_addr()?
            .port();
        let server = Process::start(
            &path,
            "nimbus",
            &["start", "--port", "0", "--data-dir", data.as_str()],
            &[
                ("NIMBUS_ADMIN_TOKEN_FILE", token.as_str()),
                ("NIMBUS_SANDBOX_ENGINE", "unix:///nowhere/engine.sock"),
                ("NIMBUS_BUS_LISTEN", &format!("127.0.0.1:{port}")),
                ("NIMBUS_BUS_PUBLIC_URL", &format!("tls://127.0.0.1:{port}")),
                ("GPU_LOG_LIMIT_BYTES", "128MiB"),
                ("RATE_LIMIT_ADDRESS_PER_SECOND", "0"),
                ("RATE_LIMIT_USER_PER_SECOND", "0"),
            ],
        )
        .await?;
        let file: Value = serde_json::from_slice(&std::fs::read(&token)?)?;
        let token = file.get("token").and_then(Value::as_str).context("a token")?;
        let base = server.url()?;
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(120))
            .tcp_nodelay(true)
            .build()?;
        let registered = register(&client, &base, token, "bench").await?;
        let text = |pointer: &str| {
            let value = registered.pointer(pointer).and_then(Value::as_str);
            value.with_context(|| format!("{pointer} in the answer to a registration"))
        };
        let (creds, ca) = (path.join("bus.creds"), path.join("bus-ca.pem"));
        std::fs::write(&creds, text("/bus/credentials")?)?;
        std::fs::write(&ca, text("/bus/ca_pem")?)?;
        let log = std::fs::File::create(path.join("worker.log"))?;
        let worker = Command::new(worker_binary())
            .arg("run")
            .env("NIMBUS_URL", &base)
            .env("NIMBUS_WORKER_TOKEN", text("/worker_token")?)
            .env("GX10_WORKER_ID", "bench")
            .env("GX10_STATE_DIR", path.join("state"))
            .env("GX10_MIN_FREE_BYTES", "1000000")
            .env("GX10_SHM_BYTES", "67108864")
            .env("GX10_BUS_URL", text("/bus/url")?)
            .env("GX10_BUS_CREDENTIALS", &creds)
            .env("GX10_BUS_CA", &ca)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log))
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{}: run ops/dev/gx10.sh", worker_binary()))?;
        let world = Self {
            server,
            worker,
            client,
            token: token.to_owned(),
            base,
            _folder: folder,
        };
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let boxes = world.get("/api/gpu/workers").await?;
            if boxes.pointer("/0/state").and_then(Value::as_str) == Some("online") {
                return Ok(world);
            }
            ensure!(Instant::now() < end, "the worker is not heard: {boxes}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Value> {
        let answer = request.bearer_auth(&self.token).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        if !status.is_success() {
            bail!("{status}: {text}");
        }
        let mut body: Value = serde_json::from_str(&text).unwrap_or_default();
        Ok(body.get_mut("data").map(Value::take).unwrap_or(body))
    }

    async fn get(&self, path: &str) -> Result<Value> {
        self.send(self.client.get(format!("{}{path}", self.base))).await
    }

    /// Submits a job; its id.
    async fn submit(&self, line: &str) -> Result<String> {
        let body = json!({ "image": IMAGE, "command": ["sh", "-c", line] });
        let made = self
            .send(
                self.client
                    .post(format!("{}/api/gpu/jobs", self.base))
                    .json(&body),
            )
            .await?;
        Ok(made
            .get("id")
            .and_then(Value::as_str)
            .context("an id")?
            .to_owned())
    }

    async fn job(&self, id: &str) -> Result<Value> {
        self.get(&format!("/api/gpu/jobs/{id}")).await
    }

    /// Waits until a job has ended well; the job.
    async fn ended(&self, id: &str) -> Result<Value> {
        let end = Instant::now() + Duration::from_secs(120);
        loop {
            let job = self.job(id).await?;
            match job.get("state").and_then(Value::as_str) {
                Some("succeeded") => return Ok(job),
                Some("queued" | "running") => {}
                _ => bail!("the job has failed: {job}"),
            }
            ensure!(Instant::now() < end, "the job does not end: {job}");
            // When it started is read from the engine's clock; asking all the time would slow it down.
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// Waits until nothing is left of a job on the box.
    async fn released(&self, id: &str) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(30);
        let filter = format!("label=io.nimbus.gpu.job={id}");
        while !docker(&["ps", "-aq", "--filter", &filter]).await?.is_empty() {
            ensure!(Instant::now() < end, "the container of {id} stays");
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        Ok(())
    }

    async fn standing(&self, worker: &str, standing: &str) -> Result<()> {
        let request = self
            .client
            .patch(format!("{}/api/gpu/workers/{worker}", self.base));
        self.send(request.json(&json!({ "standing": standing }))).await?;
        Ok(())
    }

    async fn end(mut self) -> Result<()> {
        if let Some(pid) = self.worker.id() {
            Command::new("kill").arg(pid.to_string()).status().await?;
            self.worker.wait().await?;
        }
        self.server.stop().await
    }
}

/// Pairs a box; what the server answers to its registration.
async fn register(client: &reqwest::Client, base: &str, token: &str, hostname: &str) -> Result<Value> {
    let asked = client
        .post(format!("{base}/api/settings/gpu/pairing"))
        .bearer_auth(token)
        .header("Host", "nimbus.example.org");
    let pairing: Value = asked.send().await?.error_for_status()?.json().await?;
    let pairing = pairing
        .pointer("/data/token")
        .and_then(Value::as_str)
        .context("a token")?;
    let body = json!({ "pairing_token": pairing, "hostname": hostname, "ip": "127.0.0.1", "model": "", "port": 8000 });
    let registered = client.post(format!("{base}/api/gpu/register")).json(&body);
    Ok(registered.send().await?.error_for_status()?.json().await?)
}

/// A box that needs no time for a job.
struct Swift<'a> {
    world: &'a World,
    token: String,
}

impl Swift<'_> {
    const NAME: &'static str = "swift";

    async fn pair(world: &World) -> Result<Swift<'_>> {
        let registered = register(&world.client, &world.base, &world.token, Self::NAME).await?;
        let token = registered.get("worker_token").and_then(Value::as_str);
        Ok(Swift {
            world,
            token: token.context("a worker's token")?.to_owned(),
        })
    }

    fn post(&self, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}/api/gpu/worker/{path}", self.world.base);
        let request = self.world.client.post(url).bearer_auth(&self.token);
        request.header("X-Worker-ID", Self::NAME)
    }

    /// Takes the next job and reports its end; its id.
    async fn run(&self) -> Result<String> {
        let answer = self.post("claim").send().await?.error_for_status()?;
        ensure!(answer.status() == 200, "a job: {}", answer.status());
        let job: Value = answer.json().await?;
        let id = job.get("id").and_then(Value::as_str).context("a job's id")?;
        let told = self
            .post(&format!("jobs/{id}/status"))
            .json(&json!({ "status": "succeeded", "exit_code": 0 }));
        told.send().await?.error_for_status()?;
        Ok(id.to_owned())
    }

    /// Runs the jobs that were submitted in this order: how long each took, the median.
    async fn drain(&self, ids: &[String]) -> Result<Duration> {
        let mut took = vec![];
        for id in ids {
            let begun = Instant::now();
            let ran = self.run().await?;
            ensure!(ran == *id, "{ran} instead of {id}: out of order");
            took.push(begun.elapsed());
        }
        Ok(percentile(&mut took, 50))
    }
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::from_micros(u64::try_from(to.micros() - from.micros()).unwrap_or_default())
}

async fn docker(args: &[&str]) -> Result<String> {
    let done = Command::new("docker")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .await?;
    ensure!(
        done.status.success(),
        "docker {args:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(String::from_utf8(done.stdout)?.trim().to_owned())
}

pub(crate) async fn measure(report: &mut Report) -> Result<()> {
    eprintln!("GPU jobs beside the engine");
    let world = World::new().await?;
    starts(report, &world).await?;
    output(report, &world).await?;
    queue(report, &world).await?;
    world.end().await
}

/// When the engine started a container, as it says itself. Waits until it has.
async fn started(name: &str) -> Result<Timestamp> {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let said = docker(&["inspect", "-f", "{{.State.StartedAt}}", name]).await;
        // Before the start it is the year 1.
        if let Some(at) = said.ok().filter(|at| !at.starts_with("0001")) {
            return Ok(at.parse()?);
        }
        ensure!(Instant::now() < end, "{name} is not started");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn starts(report: &mut Report, world: &World) -> Result<()> {
    let clock = Clock::system();
    let (mut ours, mut peers) = (vec![], vec![]);
    for _ in 0..STARTS {
        let before = clock.now();
        let id = world.submit("sleep 1").await?;
        // Nobody asks while it is being started.
        tokio::time::sleep(Duration::from_millis(500)).await;
        ours.push(between(before, started(&format!("nimbus-job-{id}")).await?));
        world.ended(&id).await?;
        // Like the peer's, it is removed before the next is started.
        world.released(&id).await?;

        let before = clock.now();
        let id = docker(&["run", "-d", "--init", "--shm-size", "64m", IMAGE, "sleep", "1"]).await?;
        peers.push(between(before, started(&id).await?));
        docker(&["rm", "-f", &id]).await?;
    }
    let (ours, peer) = (percentile(&mut ours, 50), percentile(&mut peers, 50));
    let over = ours.saturating_sub(peer);
    report.add(
        "GPU job: submit → container starts, p50",
        format!("{} ({} over the engine)", ms(ours), ms(over)),
        format!("docker run -d {}", ms(peer)),
        "≤ 50 ms over",
        over <= Duration::from_millis(50),
    );
    Ok(())
}

async fn output(report: &mut Report, world: &World) -> Result<()> {
    let line =
        format!("yes 0123456789012345678901234567890123456789012345678901234567890123 | head -c {LOG}");
    let begun = Instant::now();
    let id = world.submit(&line).await?;
    let job = world.ended(&id).await?;
    let took = begun.elapsed();
    ensure!(
        job.get("log_end").and_then(Value::as_u64) == u64::try_from(LOG).ok(),
        "not every byte is there: {job}"
    );
    let begun = Instant::now();
    let name = format!("nimbus-bench-log-{}", std::process::id());
    docker(&["run", "-d", "--name", &name, IMAGE, "sh", "-c", &line]).await?;
    let status = Command::new("docker")
        .args(["logs", "-f", &name])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .await?;
    ensure!(status.success(), "docker logs: {status}");
    let peer = begun.elapsed();
    docker(&["rm", "-f", &name]).await?;
    let speed = |took: Duration| format!("{:.1} MiB/s", 64.0 / took.as_secs_f64());
    report.add(
        "GPU job: a log of 64 MiB, until it is in the database",
        format!(
            "{} ({:.2} ×)",
            speed(took),
            took.as_secs_f64() / peer.as_secs_f64()
        ),
        format!("docker logs -f {}", speed(peer)),
        "reported",
        true,
    );
    Ok(())
}

async fn queue(report: &mut Report, world: &World) -> Result<()> {
    let few = runs(world).await?;
    let begun = Instant::now();
    for _ in 0..RUNS {
        docker(&["run", "--rm", "--init", "--shm-size", "64m", IMAGE, "true"]).await?;
    }
    let peer = rate(RUNS, begun.elapsed())?;
    report.add(
        "GPU jobs: no-ops one after the other on one box",
        format!("{few:.1}/s ({:.2} ×)", few / peer),
        format!("docker run --rm {peer:.1}/s"),
        "reported",
        true,
    );
    world.standing("bench", "paused").await?;
    let swift = Swift::pair(world).await?;
    let mut ids = vec![];
    for _ in 0..SAMPLE {
        ids.push(world.submit("true").await?);
    }
    let begun = Instant::now();
    let with_few = swift.drain(&ids).await?;
    let scheduled = rate(SAMPLE, begun.elapsed())?;
    report.add(
        "GPU jobs: scheduled in strict order to one box that needs no time",
        format!("{scheduled:.0}/s"),
        String::new(),
        "≥ 10/s",
        scheduled >= 10.0,
    );
    let (mut ids, mut took) = (vec![], vec![]);
    for _ in 0..QUEUE {
        let begun = Instant::now();
        ids.push(world.submit("true").await?);
        took.push(begun.elapsed());
    }
    let mut last = took.split_off(QUEUE - SAMPLE);
    took.truncate(SAMPLE);
    let (first, last) = (percentile(&mut took, 50), percentile(&mut last, 50));
    report.add(
        "GPU job: submit with 10 000 queued, p50",
        format!("{} ({:.2} ×)", ms(last), last.as_secs_f64() / first.as_secs_f64()),
        format!("with none {}", ms(first)),
        "≤ 1.5 ×",
        last.as_secs_f64() <= 1.5 * first.as_secs_f64(),
    );
    let with_many = swift.drain(ids.get(..SAMPLE).unwrap_or_default()).await?;
    let times = with_many.as_secs_f64() / with_few.as_secs_f64();
    report.add(
        "GPU job: given to a box and ended with 10 000 queued, p50",
        format!("{} ({times:.2} ×)", ms(with_many)),
        format!("with {SAMPLE} {}", ms(with_few)),
        "≤ 1.5 ×",
        times <= 1.5,
    );
    let request = world
        .client
        .post(format!("{}/api/settings/gpu/unpair", world.base));
    world
        .send(request.header("Host", "nimbus.example.org").json(&json!({})))
        .await?;
    Ok(())
}

fn rate(count: usize, took: Duration) -> Result<f64> {
    Ok(f64::from(u32::try_from(count)?) / took.as_secs_f64())
}

/// No-op jobs one after the other: how many a second.
async fn runs(world: &World) -> Result<f64> {
    world.standing("bench", "paused").await?;
    let mut ids = vec![];
    for _ in 0..RUNS {
        ids.push(world.submit("true").await?);
    }
    world.standing("bench", "active").await?;
    let begun = Instant::now();
    for id in &ids {
        world.ended(id).await?;
    }
    rate(RUNS, begun.elapsed())
}
