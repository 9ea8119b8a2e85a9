//! Sandboxes beside the engine they run on: creating, claiming, running commands, moving files.
//!
//! The peer is the engine itself, in the same run: `docker run`, `docker exec`, `docker cp`. The image
//! is the busybox that `ops/dev/engine.sh images` makes.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::report::{Report, ms, percentile};
use crate::server::Process;

const IMAGE: &str = "nimbus.test/busybox:1";
/// How many containers wait: enough for the burst.
const WARM: usize = 310;
const BURST: usize = 300;
const ONE_BY_ONE: usize = 100;
const COLD: usize = 10;
const EXECS: usize = 500;
const LOAD: Duration = Duration::from_secs(5);
const CONNECTIONS: usize = 16;
const FILE: usize = 64 << 20;

struct World {
    server: Process,
    client: reqwest::Client,
    base: String,
    token: String,
    host: String,
    _folder: camino_tempfile::Utf8TempDir,
}

/// A sandbox that runs, and how it came to.
struct Made {
    id: String,
    start: String,
    took: Duration,
}

impl World {
    async fn new(warm: usize) -> Result<Self> {
        let folder = camino_tempfile::tempdir()?;
        let path = folder.path().to_owned();
        let (data, token) = (path.join("data"), path.join("admin-token"));
        let warm = warm.to_string();
        let host = format!("bench-{}", std::process::id());
        let server = Process::start(
            &path,
            "nimbus",
            &["start", "--port", "0", "--data-dir", data.as_str()],
            &[
                ("NIMBUS_ADMIN_TOKEN_FILE", token.as_str()),
                ("NIMBUS_SANDBOX_HOST", &host),
                ("NIMBUS_SANDBOX_WARM", &warm),
                ("NIMBUS_SANDBOX_WARM_MEMORY", "4GiB"),
                ("HOST_MEMORY_OVERCOMMIT", "64"),
                ("HOST_CPU_OVERCOMMIT", "1000"),
                ("RATE_LIMIT_ADDRESS_PER_SECOND", "0"),
                ("RATE_LIMIT_USER_PER_SECOND", "0"),
            ],
        )
        .await?;
        let file: Value = serde_json::from_slice(&std::fs::read(&token)?)?;
        let world = Self {
            base: server.url()?,
            host,
            server,
            client: reqwest::Client::builder()
                .timeout(Duration::from_secs(120))
                .tcp_nodelay(true)
                .build()?,
            token: file
                .get("token")
                .and_then(Value::as_str)
                .context("a token")?
                .to_owned(),
            _folder: folder,
        };
        world.post("/api/tenants", &json!({ "id": "bench" })).await?;
        let open = json!({ "sandboxes": 2000, "limit": { "vcpus": 1000, "memoryBytes": 1_u64 << 42, "diskBytes": 1_u64 << 44,
            "logBytes": 1_u64 << 42, "pids": 1_000_000 },
            "policy": { "resources": true, "ports": true, "egress": true, "mounts": true } });
        world
            .send(world.client.patch(world.url("/api/tenants/bench")).json(&open))
            .await?;
        world
            .send(
                world
                    .client
                    .put(world.url("/api/tenants/bench/secrets/one"))
                    .json(&json!({ "value": "1" })),
            )
            .await?;
        world
            .send(
                world
                    .client
                    .put(world.url("/api/tenants/bench/secrets/two"))
                    .json(&json!({ "value": "2" })),
            )
            .await?;
        Ok(world)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Value> {
        let answer = request.bearer_auth(&self.token).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        if !status.is_success() {
            bail!("{status}: {text}");
        }
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.send(self.client.post(self.url(path)).json(body)).await
    }

    /// Creates a sandbox and waits until its process runs.
    async fn create(&self, body: &Value) -> Result<Made> {
        let begun = Instant::now();
        let mut sandbox = self.post("/api/tenants/bench/sandboxes", body).await?;
        let text = |value: &Value, pointer: &str| {
            value
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let id = text(&sandbox, "/metadata/id");
        loop {
            match text(&sandbox, "/status/lifecycleState").as_str() {
                "ready" => break,
                "starting" | "not_ready" if begun.elapsed() < Duration::from_secs(60) => {}
                other => bail!("{id} is {other}: {sandbox}"),
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
            sandbox = self
                .send(
                    self.client
                        .get(self.url(&format!("/api/tenants/bench/sandboxes/{id}"))),
                )
                .await?;
        }
        Ok(Made {
            start: text(&sandbox, "/status/start"),
            took: begun.elapsed(),
            id,
        })
    }

    /// Stops the server, and removes what it has no time for: hundreds of containers that waited.
    async fn end(self) -> Result<()> {
        self.server.stop().await?;
        let label = format!("label=io.nimbus.sandbox.host={}", self.host);
        let listed = Command::new("docker")
            .args(["ps", "-aq", "--filter", &label])
            .output()
            .await?;
        let left = String::from_utf8(listed.stdout)?;
        let ids: Vec<&str> = left.split_whitespace().collect();
        for some in ids.chunks(50) {
            docker(&[&["rm", "-f"], some].concat()).await?;
        }
        Ok(())
    }

    async fn delete(&self, id: &str) -> Result<()> {
        let path = self.url(&format!("/api/tenants/bench/sandboxes/{id}?force=true"));
        self.send(self.client.delete(path)).await.map(|_| ())
    }

    /// Waits until so many containers wait.
    async fn warm(&self, wanted: usize) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(300);
        loop {
            let hosts = self.send(self.client.get(self.url("/api/hosts"))).await?;
            let waiting: u64 = hosts
                .pointer("/items")
                .or(Some(&hosts))
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|host| host.get("warm"))
                .flat_map(|warm| match warm {
                    Value::Object(map) => map.values().filter_map(Value::as_u64).collect::<Vec<_>>(),
                    Value::Array(list) => list
                        .iter()
                        .filter_map(|item| {
                            item.get("count")
                                .or_else(|| item.get("waiting"))
                                .or_else(|| item.get(1))
                        })
                        .filter_map(Value::as_u64)
                        .collect(),
                    _ => vec![],
                })
                .sum();
            if usize::try_from(waiting)? >= wanted {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "{waiting} of {wanted} containers wait: {hosts}"
            );
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }
}

fn plain() -> Value {
    json!({ "profile": "worker", "spec": {
        "owner": { "kind": "standalone", "displayName": "bench" }, "backend": "container",
        "root": { "kind": "oci_image", "source": { "kind": "reference", "reference": IMAGE } },
        "process": { "argv": ["sleep", "3600"] } } })
}

/// Ten variables, two secrets, five rules.
fn personal() -> Value {
    let mut body = plain();
    let env: Vec<String> = (0..10).map(|n| format!("NAME_{n}=value-{n}")).collect();
    let rules: Vec<Value> = (0..5)
        .map(|n| json!({ "name": format!("r{n}"), "protocol": "https", "host": format!("h{n}.example.org"), "port": 443 }))
        .collect();
    if let Some(spec) = body.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert(
            "process".to_owned(),
            json!({ "argv": ["sleep", "3600"], "env": env,
                "secrets": [{ "secret": "one", "variable": "ONE" }, { "secret": "two", "variable": "TWO" }] }),
        );
        spec.insert("network".to_owned(), json!({ "egress": { "allow": rules } }));
    }
    body
}

async fn docker(args: &[&str]) -> Result<Duration> {
    let begun = Instant::now();
    let done = Command::new("docker")
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .await?;
    ensure!(
        done.status.success(),
        "docker {args:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(begun.elapsed())
}

async fn docker_run() -> Result<Duration> {
    let name = format!("nimbus-bench-{}", std::process::id());
    let took = docker(&[
        "run",
        "-d",
        "--name",
        &name,
        "--network",
        "none",
        IMAGE,
        "sleep",
        "3600",
    ])
    .await?;
    docker(&["rm", "-f", &name]).await?;
    Ok(took)
}

pub(crate) async fn measure(report: &mut Report) -> Result<()> {
    eprintln!("sandboxes beside the engine");
    cold(report).await?;
    warm(report).await?;
    reach(report).await
}

async fn cold(report: &mut Report) -> Result<()> {
    let world = World::new(0).await?;
    // The first one learns about the image.
    let first = world.create(&plain()).await?;
    world.delete(&first.id).await?;
    let (mut ours, mut peers) = (vec![], vec![]);
    for _ in 0..COLD {
        let made = world.create(&plain()).await?;
        ensure!(made.start == "cold", "{} without a pool", made.start);
        ours.push(made.took);
        world.delete(&made.id).await?;
        peers.push(docker_run().await?);
    }
    let (ours, peer) = (percentile(&mut ours, 50), percentile(&mut peers, 50));
    let ratio = ours.as_secs_f64() / peer.as_secs_f64();
    report.add(
        "sandbox create → running, cold, p50",
        format!("{} ({ratio:.2} ×)", ms(ours)),
        format!("docker run -d {}", ms(peer)),
        "≤ 1.1 ×",
        ratio <= 1.1,
    );
    world.end().await
}

async fn warm(report: &mut Report) -> Result<()> {
    let world = World::new(WARM).await?;
    let first = world.create(&plain()).await?;
    world.delete(&first.id).await?;
    world.warm(ONE_BY_ONE).await?;
    let (mut took, mut made) = (vec![], vec![]);
    for _ in 0..ONE_BY_ONE {
        let sandbox = world.create(&personal()).await?;
        ensure!(
            sandbox.start == "warm",
            "{} although containers wait",
            sandbox.start
        );
        took.push(sandbox.took);
        made.push(sandbox.id);
    }
    let (p50, p99) = (percentile(&mut took, 50), percentile(&mut took, 99));
    report.add(
        "sandbox create → running, warm and personal, p50",
        ms(p50),
        String::new(),
        "≤ 5 ms",
        p50 <= Duration::from_millis(5),
    );
    report.add(
        "the same, p99",
        ms(p99),
        String::new(),
        "≤ 20 ms",
        p99 <= Duration::from_millis(20),
    );
    for id in made.drain(..) {
        world.delete(&id).await?;
    }

    world.warm(BURST).await?;
    let body = personal();
    let begun = Instant::now();
    let burst = try_join_all((0..BURST).map(|_| world.create(&body))).await?;
    let all = begun.elapsed();
    let claimed = burst.iter().filter(|sandbox| sandbox.start == "warm").count();
    report.add(
        "300 claims at once",
        format!("{} ({claimed} warm)", ms(all)),
        String::new(),
        "≤ 1 s",
        all <= Duration::from_secs(1) && claimed == BURST,
    );
    memory(report, &world, BURST).await?;
    for sandbox in burst {
        world.delete(&sandbox.id).await?;
    }
    world.end().await
}

/// Commands and files, while no containers are being made.
async fn reach(report: &mut Report) -> Result<()> {
    let world = World::new(1).await?;
    let kept = world.create(&plain()).await?.id;
    world.warm(1).await?;
    exec(report, &world, &kept).await?;
    files(report, &world, &kept).await?;
    world.delete(&kept).await?;
    world.end().await
}

/// What the server itself holds while so many sandboxes run.
async fn memory(report: &mut Report, world: &World, sandboxes: usize) -> Result<()> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.server.pid()))?;
    let kib: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .context("a resident size")?;
    report.add(
        &format!("resident memory of the server with {sandboxes} sandboxes"),
        format!("{} MiB", kib / 1024),
        String::new(),
        "reported",
        true,
    );
    Ok(())
}

async fn exec(report: &mut Report, world: &World, id: &str) -> Result<()> {
    let path = format!("/api/tenants/bench/sandboxes/{id}/exec");
    let body = json!({ "argv": ["true"] });
    let mut took = vec![];
    for _ in 0..EXECS {
        let begun = Instant::now();
        let ran = world.post(&path, &body).await?;
        took.push(begun.elapsed());
        ensure!(ran.get("exitCode").and_then(Value::as_i64) == Some(0), "{ran}");
    }
    let name = format!("nimbus-bench-exec-{}", std::process::id());
    docker(&[
        "run",
        "-d",
        "--name",
        &name,
        "--network",
        "none",
        IMAGE,
        "sleep",
        "3600",
    ])
    .await?;
    let mut peers = vec![];
    for _ in 0..20 {
        peers.push(docker(&["exec", &name, "true"]).await?);
    }
    docker(&["rm", "-f", &name]).await?;
    let (ours, peer) = (percentile(&mut took, 50), percentile(&mut peers, 50));
    let ratio = peer.as_secs_f64() / ours.as_secs_f64();
    report.add(
        "exec over HTTP with a token, p50",
        format!("{} (1/{ratio:.0})", ms(ours)),
        format!("docker exec {}", ms(peer)),
        "≤ 2 ms, ≤ 1/20",
        ours <= Duration::from_millis(2) && ratio >= 20.0,
    );
    let until = Instant::now() + LOAD;
    let counts = try_join_all((0..CONNECTIONS).map(|_| async {
        let mut count = 0_u32;
        while Instant::now() < until {
            world.post(&path, &body).await?;
            count += 1;
        }
        Ok::<_, anyhow::Error>(count)
    }))
    .await?;
    let rate = f64::from(counts.iter().sum::<u32>()) / LOAD.as_secs_f64();
    report.add(
        &format!("exec, {CONNECTIONS} connections"),
        format!("{rate:.0}/s"),
        "the load on the same cores".to_owned(),
        "≥ 1500/s",
        rate >= 1500.0,
    );
    Ok(())
}

async fn files(report: &mut Report, world: &World, id: &str) -> Result<()> {
    let path = world.url(&format!(
        "/api/tenants/bench/sandboxes/{id}/files/content?path=/tmp/file"
    ));
    let content = vec![0x5a_u8; FILE];
    let begun = Instant::now();
    world.send(world.client.put(&path).body(content)).await?;
    let up = begun.elapsed();
    let begun = Instant::now();
    let back = world
        .client
        .get(&path)
        .bearer_auth(&world.token)
        .send()
        .await?
        .bytes()
        .await?;
    let down = begun.elapsed();
    ensure!(back.len() == FILE, "{} bytes came back", back.len());

    let folder = camino_tempfile::tempdir()?;
    let file = folder.path().join("file");
    std::fs::write(&file, vec![0x5a_u8; FILE])?;
    let name = format!("nimbus-bench-cp-{}", std::process::id());
    docker(&[
        "run",
        "-d",
        "--name",
        &name,
        "--network",
        "none",
        IMAGE,
        "sleep",
        "3600",
    ])
    .await?;
    let peer_up = docker(&["cp", file.as_str(), &format!("{name}:/tmp/file")]).await?;
    let peer_down = docker(&[
        "cp",
        &format!("{name}:/tmp/file"),
        folder.path().join("back").as_str(),
    ])
    .await?;
    docker(&["rm", "-f", &name]).await?;
    for (what, ours, peer) in [("up", up, peer_up), ("down", down, peer_down)] {
        let ratio = ours.as_secs_f64() / peer.as_secs_f64();
        report.add(
            &format!("a file of 64 MiB {what}"),
            format!("{} ({ratio:.2} ×)", ms(ours)),
            format!("docker cp {}", ms(peer)),
            "reported",
            true,
        );
    }
    Ok(())
}
