//! A server with GPU boxes: the real worker program on the real container engine of this machine, each
//! box a process with a folder of its own.

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use camino_tempfile::Utf8TempDir;
use http::Method;
use http::header::HOST;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::api::Api;
use crate::lab::{IMAGE, docker};
use crate::process::{Process, command, free_port, output, root, signal};
use crate::server::{Server, Settings};
use crate::wait::eventually;

/// How long a job may take for anything on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// The worker under test: `NIMBUS_GX10_WORKER`, or the one that `make` built.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn worker_binary() -> Utf8PathBuf {
    let named = std::env::var("NIMBUS_GX10_WORKER")
        .ok()
        .filter(|path| !path.is_empty());
    let path = named.map_or_else(|| root().join("target/gx10/gx10-worker"), Utf8PathBuf::from);
    assert!(path.exists(), "there is no worker at {path}: run ops/dev/gx10.sh");
    path
}

/// A server and what signs in to it.
#[derive(Debug)]
pub struct Plane {
    /// The server.
    pub server: Server,
    /// Its administrator.
    pub admin: Api,
    /// Where logs are.
    pub output: Utf8PathBuf,
    /// The bus for boxes, where there is one.
    bus: bool,
    name: String,
    dir: Utf8TempDir,
}

impl Plane {
    /// A server whose boxes use HTTP.
    pub async fn start(test: &str) -> Self {
        Self::with(test, false, |settings| settings).await
    }

    /// A server with other settings; with `bus`, boxes reach the bus over TLS.
    pub async fn with(test: &str, bus: bool, change: impl FnOnce(Settings) -> Settings) -> Self {
        let output = output("gpu", test);
        let dir = camino_tempfile::tempdir().unwrap();
        let mut settings = Settings::bare().with("NIMBUS_ADMIN_TOKEN_FILE", dir.path().join("admin-token"));
        if bus {
            let port = free_port();
            settings = settings
                .with("NIMBUS_BUS_LISTEN", format!("127.0.0.1:{port}"))
                .with("NIMBUS_BUS_PUBLIC_URL", format!("tls://127.0.0.1:{port}"));
        }
        let settings = change(settings);
        let data = settings
            .get("NIMBUS_DATA_DIR")
            .map_or_else(|| dir.path().join("data"), Utf8PathBuf::from);
        let server = Server::start(&output, "nimbus", &data, &settings).await;
        // The first one administers.
        let admin = Api::anonymous(&server.url()).member("ada").await;
        let session = admin.login("ada@example.org", crate::api::PASSWORD).await;
        let scopes = ["gpu", "admin", "account", "machines:write"];
        let admin = session.with_token(&session.token("all", Some(&scopes)).await);
        Self {
            server,
            admin,
            output,
            bus,
            name: format!("{}-{}", test.replace('_', "-"), std::process::id()),
            dir,
        }
    }

    /// A member with a token for jobs.
    pub async fn member(&self, name: &str) -> Api {
        let member = Api::anonymous(&self.server.url()).member(name).await;
        let session = member
            .login(&format!("{name}@example.org"), crate::api::PASSWORD)
            .await;
        session.with_token(&session.token("jobs", Some(&["gpu"])).await)
    }

    /// A token with which a box can register.
    pub async fn pairing(&self) -> Value {
        // Asked for under an address that other computers could use: a box is one.
        let request = self
            .admin
            .request(Method::POST, "/api/settings/gpu/pairing")
            .header(HOST, "nimbus.example.org");
        Api::send(request).await.is(200).data()
    }

    /// Pairs a box and starts its worker; back when the server has heard it.
    pub async fn worker(&self, label: &str) -> Worker {
        let name: String = format!("{label}-{}", self.name).chars().take(63).collect();
        let name = name.trim_end_matches('-').to_owned();
        let token = self.pairing().await["token"].as_str().unwrap().to_owned();
        let body =
            json!({ "pairing_token": token, "hostname": name, "ip": "127.0.0.1", "model": "", "port": 8000 });
        let registered = Api::anonymous(&self.server.url())
            .post("/api/gpu/register", &body)
            .await
            .is(200)
            .body;
        let dir = self.dir.path().join(&name);
        std::fs::create_dir_all(&dir).unwrap();
        let mut settings = vec![
            ("NIMBUS_URL", self.server.url()),
            (
                "NIMBUS_WORKER_TOKEN",
                registered["worker_token"].as_str().unwrap().to_owned(),
            ),
            ("GX10_WORKER_ID", name.clone()),
            ("GX10_STATE_DIR", dir.join("state").to_string()),
            ("GX10_MIN_FREE_BYTES", "1000000".to_owned()),
            ("GX10_SHM_BYTES", (64 << 20).to_string()),
        ];
        assert_eq!(registered["bus"].is_object(), self.bus, "{registered}");
        if let Some(bus) = registered["bus"].as_object() {
            let file = |name: &str, key: &str| {
                let path = dir.join(name);
                std::fs::write(&path, bus[key].as_str().unwrap()).unwrap();
                path.to_string()
            };
            settings.push(("GX10_BUS_URL", bus["url"].as_str().unwrap().to_owned()));
            settings.push(("GX10_BUS_CREDENTIALS", file("bus.creds", "credentials")));
            settings.push(("GX10_BUS_CA", file("bus-ca.pem", "ca_pem")));
        }
        let log = self.output.join(format!("{label}.log"));
        let process = launch(&settings, &log);
        let worker = Worker {
            name,
            settings,
            log,
            process,
        };
        self.hears(&worker).await;
        worker
    }

    /// Waits until the server hears a box over the link it was paired for.
    pub async fn hears(&self, worker: &Worker) {
        let link = if self.bus { "nats" } else { "http" };
        let _ = eventually(
            &format!("{} is online over {link}", worker.name),
            PATIENCE,
            async || self.box_of(&worker.name).await,
            |view| view["state"] == "online" && view["link"] == link,
        )
        .await;
    }

    /// What the server knows of a box.
    pub async fn box_of(&self, name: &str) -> Value {
        let boxes = self.admin.get("/api/gpu/workers").await.is(200).data();
        let found = boxes.as_array().unwrap().iter().find(|one| one["id"] == name);
        found.cloned().unwrap_or(Value::Null)
    }

    /// Ends the workers, and checks that the engine has no container of these jobs any more.
    pub async fn end(mut self, workers: Vec<Worker>, jobs: &[String]) {
        for mut worker in workers {
            worker.terminate().await;
        }
        for job in jobs {
            gone(job).await;
        }
        let status = self.server.terminate().await;
        assert!(status.success(), "{status}");
    }
}

fn launch(settings: &[(&str, String)], log: &Utf8Path) -> Process {
    let mut command = command(worker_binary());
    command.arg("run").env("RUST_LOG", "info");
    for (name, value) in settings {
        command.env(name, value);
    }
    Process::start("gx10-worker", &mut command, log)
}

/// A box: the worker's process and its folder.
#[derive(Debug)]
pub struct Worker {
    /// Its name.
    pub name: String,
    settings: Vec<(&'static str, String)>,
    log: Utf8PathBuf,
    process: Process,
}

impl Worker {
    /// Kills it without a warning.
    pub async fn kill(&mut self) {
        self.process.kill().await;
    }

    /// Stops it where it is, as a box does whose cable is pulled.
    pub fn freeze(&self) {
        signal(self.process.pid(), Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        signal(self.process.pid(), Signal::CONT);
    }

    /// Asks it to end.
    pub async fn terminate(&mut self) {
        let status = self.process.terminate(Duration::from_secs(30)).await;
        assert!(status.success(), "{status}");
    }

    /// Starts it again on the same folder.
    pub fn restart(&mut self) {
        assert!(self.process.ended().is_some(), "{} still runs", self.name);
        self.process = launch(&self.settings, &self.log);
    }

    /// Sets a variable for the next start.
    pub fn set(&mut self, name: &'static str, value: impl ToString) {
        self.settings.retain(|(known, _)| *known != name);
        self.settings.push((name, value.to_string()));
    }
}

/// Submits a line of shell; the job's id.
pub async fn submit(api: &Api, line: &str) -> String {
    submit_with(api, line, |_| {}).await
}

/// Submits a line of shell with more to say; the job's id.
pub async fn submit_with(api: &Api, line: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut body = json!({ "image": IMAGE, "command": line });
    change(&mut body);
    let made = api.post("/api/gpu/jobs", &body).await.is(201).data();
    made["id"].as_str().unwrap().to_owned()
}

/// A job as it is.
pub async fn job(api: &Api, id: &str) -> Value {
    api.get(&format!("/api/gpu/jobs/{id}")).await.is(200).data()
}

/// Waits until a job is in a state; the job.
pub async fn reaches(api: &Api, id: &str, state: &str) -> Value {
    eventually(
        &format!("{id} is {state}"),
        PATIENCE,
        async || job(api, id).await,
        |job| job["state"] == state,
    )
    .await
}

/// Waits until a job's container runs; the job.
pub async fn runs(api: &Api, id: &str) -> Value {
    eventually(
        &format!("{id} runs"),
        PATIENCE,
        async || job(api, id).await,
        |job| job["phase"] == "running",
    )
    .await
}

/// Waits until a job has printed this much; the job.
pub async fn printed(api: &Api, id: &str, bytes: u64) -> Value {
    eventually(
        &format!("{id} has printed {bytes} bytes"),
        PATIENCE,
        async || job(api, id).await,
        |job| job["log_end"].as_u64().is_some_and(|end| end >= bytes),
    )
    .await
}

/// Everything that is kept of a job's log.
pub async fn log(api: &Api, id: &str) -> Vec<u8> {
    let mut whole = vec![];
    loop {
        let path = format!("/api/gpu/jobs/{id}/logs?offset={}&limit=1048576", whole.len());
        let answer = api.request(Method::GET, &path).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let piece = answer.bytes().await.unwrap();
        if piece.is_empty() {
            return whole;
        }
        whole.extend_from_slice(&piece);
    }
}

/// Waits until the engine has no container of a job.
pub async fn gone(job: &str) {
    let _ = eventually(
        &format!("no container of {job} is left"),
        PATIENCE,
        async || containers(job).await,
        String::is_empty,
    )
    .await;
}

/// The containers of a job that the engine has.
pub async fn containers(job: &str) -> String {
    docker(&["ps", "-aq", "--filter", &format!("label=io.nimbus.gpu.job={job}")]).await
}
