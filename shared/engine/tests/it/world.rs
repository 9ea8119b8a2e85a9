//! A test's own corner of the engine: everything it makes carries its label and goes with it.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use nimbus_engine::{
    ContainerId, ContainerSpec, ContainerState, DockerEngine, Engine, EngineConfig, Image, Labels, Limits,
    Pull, PullPolicy, Remove, discover,
};
use serde_json::Value;
use tokio::net::UnixStream;

/// Marks what tests have made.
pub(crate) const LABEL: &str = "io.nimbus.test";

/// The image that most containers here are of.
pub(crate) const BUSYBOX: &str = "nimbus.test/busybox:1";

/// Longest wait for a state of the engine; reached only when something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const LIMITS: Limits = Limits {
    millicpus: 500,
    memory_bytes: 64 << 20,
    pids: 64,
    disk_bytes: None,
};

pub(crate) struct World {
    pub(crate) engine: DockerEngine,
    pub(crate) image: Image,
    /// A few things are different there; each is told where it matters.
    pub(crate) podman: bool,
    pub(crate) dir: camino_tempfile::Utf8TempDir,
    name: String,
    images: std::sync::Mutex<Vec<String>>,
    numbers: std::sync::atomic::AtomicU32,
}

/// Runs a test and removes what it made, also when it fails.
pub(crate) async fn with_world<F: Future<Output = ()>>(test: impl FnOnce(std::sync::Arc<World>) -> F) {
    let world = std::sync::Arc::new(World::new().await);
    let result = AssertUnwindSafe(test(std::sync::Arc::clone(&world)))
        .catch_unwind()
        .await;
    world.clean().await;
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// Where the engine under test is.
pub(crate) fn config(state_dir: &Path) -> EngineConfig {
    EngineConfig {
        url: std::env::var("NIMBUS_TEST_ENGINE").ok(),
        state_dir: Some(state_dir.to_owned()),
        ..EngineConfig::from_env()
    }
}

impl World {
    async fn new() -> Self {
        let dir = camino_tempfile::tempdir().expect("a temporary directory");
        let engine = discover(&config(dir.path().as_std_path()))
            .await
            .unwrap_or_else(|e| panic!("these tests need a container engine (ops/dev/engine.sh start): {e}"));
        let local = Pull {
            policy: PullPolicy::Never,
            ..Pull::default()
        };
        let image = engine
            .ensure_image(&BUSYBOX.parse().expect("a reference"), &local)
            .await
            .unwrap_or_else(|e| panic!("these tests need {BUSYBOX} (ops/dev/engine.sh images): {e}"));
        let podman = engine.facts().await.expect("facts").name == "podman";
        Self {
            engine,
            image,
            podman,
            dir,
            name: format!("nimbus-test-{}", uuid::Uuid::new_v4().simple()),
            images: std::sync::Mutex::default(),
            numbers: std::sync::atomic::AtomicU32::new(0),
        }
    }

    /// A name that nobody else has.
    pub(crate) fn fresh(&self, word: &str) -> String {
        let number = self.numbers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        format!("{}-{word}-{number}", self.name)
    }

    pub(crate) fn labels(&self) -> Labels {
        Labels::from([(LABEL.to_owned(), self.name.clone())])
    }

    /// A container that runs a script of the shell.
    pub(crate) fn script(&self, script: &str) -> ContainerSpec {
        self.command(&["/bin/sh", "-c", script])
    }

    pub(crate) fn command(&self, argv: &[&str]) -> ContainerSpec {
        let argv = argv.iter().map(|word| (*word).to_owned()).collect();
        let mut spec = ContainerSpec::new(self.fresh("c"), self.image.id.clone(), argv, LIMITS);
        spec.labels = self.labels();
        spec
    }

    pub(crate) async fn create(&self, spec: &ContainerSpec) -> ContainerId {
        self.engine.create(spec).await.expect("the container is created")
    }

    pub(crate) async fn run(&self, spec: &ContainerSpec) -> ContainerId {
        let id = self.create(spec).await;
        self.engine.start(&id).await.expect("the container starts");
        id
    }

    /// Runs a container to its end.
    pub(crate) async fn outcome(&self, spec: &ContainerSpec) -> (ContainerId, ContainerState) {
        let id = self.run(spec).await;
        let state = self.ended(&id).await;
        (id, state)
    }

    /// Waits until the container has ended.
    pub(crate) async fn ended(&self, id: &ContainerId) -> ContainerState {
        let path = format!("/containers/{id}/wait");
        let waited = self.send("POST", &path, &[], Bytes::new());
        let (status, body) = tokio::time::timeout(PATIENCE, waited)
            .await
            .expect("the container ends");
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        self.engine.inspect(id).await.expect("the container is there")
    }

    /// What a container wrote to a file, running or not.
    pub(crate) async fn file(&self, id: &ContainerId, path: &str) -> String {
        let (status, body) = self
            .send(
                "GET",
                &format!("/containers/{id}/archive?path={path}"),
                &[],
                Bytes::new(),
            )
            .await;
        assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
        let mut archive = tar::Archive::new(body.as_ref());
        let mut entry = archive
            .entries()
            .expect("a tar")
            .next()
            .expect("one file")
            .expect("a tar entry");
        std::io::read_to_string(&mut entry).expect("text")
    }

    /// Runs a script and gives what it wrote to its output, with its exit code.
    pub(crate) async fn says(&self, mut spec: ContainerSpec, script: &str) -> (i64, String) {
        // The engine keeps no log of it, so it goes to a file.
        spec.argv = ["/bin/sh", "-c", &format!("{{ {script}\n}} >/tmp/said 2>&1")]
            .map(str::to_owned)
            .to_vec();
        let (id, state) = self.outcome(&spec).await;
        let said = self.file(&id, "/tmp/said").await;
        (state.exit_code.expect("it has ended"), said)
    }

    /// The engine's own description of a container.
    pub(crate) async fn raw(&self, id: &ContainerId) -> Value {
        let (status, body) = self
            .send("GET", &format!("/containers/{id}/json"), &[], Bytes::new())
            .await;
        assert_eq!(status, 200);
        serde_json::from_slice(&body).expect("JSON")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        PathBuf::from(self.engine.url().trim_start_matches("unix://"))
    }

    /// A request of the engine's API that the driver has no need for.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> (u16, Bytes) {
        let stream = UnixStream::connect(self.socket())
            .await
            .expect("the engine listens");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .expect("HTTP");
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("/v1.41{path}"))
            .header("host", "engine");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).expect("a request");
        let ask = async move {
            let answer = sender.send_request(request).await.expect("an answer");
            let status = answer.status().as_u16();
            (
                status,
                answer.into_body().collect().await.expect("a body").to_bytes(),
            )
        };
        let (answer, _closed) = tokio::join!(ask, connection);
        answer
    }

    /// Sees to it that an image goes with this test.
    pub(crate) fn owns(&self, image: &str) {
        self.images
            .lock()
            .expect("no test panics with it")
            .push(image.to_owned());
    }

    async fn clean(&self) {
        for found in self.engine.list(&self.labels()).await.unwrap_or_default() {
            if let Err(error) = self.engine.remove(&found.id, Remove::ALL).await {
                eprintln!("could not remove {}: {error}", found.name);
            }
        }
        for volume in self.engine.list_volumes(&self.labels()).await.unwrap_or_default() {
            if let Err(error) = self.engine.remove_volume(&volume.name).await {
                eprintln!("could not remove {}: {error}", volume.name);
            }
        }
        let images = std::mem::take(&mut *self.images.lock().expect("no test panics with it"));
        for image in images {
            let (status, said) = self
                .send("DELETE", &format!("/images/{image}?force=1"), &[], Bytes::new())
                .await;
            if status != 200 && status != 404 {
                eprintln!("could not remove {image}: {}", String::from_utf8_lossy(&said));
            }
        }
    }
}
