//! Servers: processes with their settings, which can be killed and started again. What is asked for as
//! `nimbus start` may be a deployment of `compose.yaml` instead: see [`compose`].

use std::collections::BTreeMap;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::Value;

use crate::api::Api;
use crate::compose::{self, Deployment};
use crate::process::{Process, binary, command, free_port, kill};
use crate::sim::{PveSim, TOKEN_ID, TOKEN_SECRET};
use crate::wait::eventually;

/// How long a server may take to get ready on a machine that is busy with other tests.
const READY: Duration = Duration::from_secs(60);

/// How long the portal of a new server may take to answer, whatever else is not there yet.
#[must_use]
pub fn portal_bound() -> Duration {
    // Twenty containers, and a database that is made first.
    Duration::from_secs(if compose::wanted() { 60 } else { 15 })
}

/// The environment of a server.
#[derive(Clone, Debug, Default)]
pub struct Settings(BTreeMap<String, String>);

impl Settings {
    /// A server that has nothing but a place for its data. Nothing it does leaves loopback, nothing
    /// slows requests down, and nothing happens by itself.
    #[must_use]
    pub fn bare() -> Self {
        Self::default()
            .with("NIMBUS_READY_SSH_PROBE", "false")
            .with("RATE_LIMIT_ADDRESS_PER_SECOND", "0")
            .with("RATE_LIMIT_USER_PER_SECOND", "0")
            .with("NIMBUS_LOGIN_BURST", "0")
            .with("NIMBUS_LOG", "info")
            // Only tests of sandboxes have an engine.
            .with("NIMBUS_SANDBOX_ENGINE", "unix:///nowhere/engine.sock")
            .with("NIMBUS_ADMIN_TOKEN_FILE", "admin-token")
    }

    /// A server with a cluster. Comparisons with the cluster happen only when they are asked for.
    #[must_use]
    pub fn cluster(sim: &PveSim) -> Self {
        Self::bare()
            .with("PROXMOX_HOST", &sim.url)
            .with("PROXMOX_TOKEN_ID", TOKEN_ID)
            .with("PROXMOX_TOKEN_SECRET", TOKEN_SECRET)
            .with("IP_POOL_START", "10.77.0.50")
            .with("IP_POOL_END", "10.77.0.199")
            .with("GATEWAY_IP", "10.77.0.1")
            .with("RECONCILE_INTERVAL_SECONDS", "0")
            .with("NIMBUS_MACHINE_RECONCILE_SECONDS", "0")
            .with("NIMBUS_MACHINE_WATCH_SECONDS", "0")
            .with("NIMBUS_READY_POLL", "50ms")
            .with("NIMBUS_READY_TIMEOUT_SECONDS", "20s")
    }

    /// Sets one.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.0.insert(name.to_owned(), value.to_string());
        self
    }

    /// Removes one.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.0.remove(name);
        self
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &String)> {
        self.0.iter()
    }
}

/// What a server is.
#[derive(Debug)]
enum Running {
    Process(Process),
    Compose(Deployment),
}

/// A server.
#[derive(Debug)]
pub struct Server {
    name: String,
    args: Vec<String>,
    settings: Settings,
    output: Utf8PathBuf,
    port: Option<u16>,
    running: Running,
    /// What it said about itself when it was ready.
    pub facts: Value,
    /// How long it took to get ready.
    pub took: Duration,
}

impl Server {
    /// `nimbus start` with its data in `data`, ready.
    pub async fn start(output: &Utf8Path, name: &str, data: &Utf8Path, settings: &Settings) -> Self {
        let mut server = Self::launch(output, name, data, settings);
        server.wait_ready().await;
        server
    }

    /// `nimbus serve SERVICE`, ready.
    pub async fn serve(output: &Utf8Path, name: &str, service: &str, settings: Settings) -> Self {
        let port = (service == "gateway").then(free_port);
        Self::run(output, name, &["serve", service], port, settings).await
    }

    async fn run(
        output: &Utf8Path,
        name: &str,
        args: &[&str],
        port: Option<u16>,
        settings: Settings,
    ) -> Self {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let running = Running::Process(launch(output, name, &args, port, &settings));
        let mut server = Self {
            name: name.to_owned(),
            args,
            settings,
            output: output.to_owned(),
            port,
            running,
            facts: Value::Null,
            took: Duration::ZERO,
        };
        server.wait_ready().await;
        server
    }

    /// Starts it without waiting until it is ready.
    #[must_use]
    pub fn launch(output: &Utf8Path, name: &str, data: &Utf8Path, settings: &Settings) -> Self {
        let settings = settings.clone().with("NIMBUS_DATA_DIR", data);
        let args = vec!["start".to_owned()];
        let (running, port) = if compose::wanted() {
            let deployment = Deployment::launch(output, name, &settings);
            let port = deployment.port();
            (Running::Compose(deployment), port)
        } else {
            let port = free_port();
            let process = launch(output, name, &args, Some(port), &settings);
            (Running::Process(process), port)
        };
        Self {
            name: name.to_owned(),
            args,
            settings,
            output: output.to_owned(),
            port: Some(port),
            running,
            facts: Value::Null,
            took: Duration::ZERO,
        }
    }

    /// Waits until it says that it is ready, and its port too.
    pub async fn wait_ready(&mut self) {
        let begun = Instant::now();
        match &mut self.running {
            Running::Process(process) => {
                let file = self.output.join(format!("{}.json", self.name));
                self.facts = process.ready(&file, READY).await;
            }
            Running::Compose(deployment) => deployment.started().await,
        }
        self.took = begun.elapsed();
        if self.port.is_some() {
            let api = Api::anonymous(&self.url());
            eventually(
                "/ready",
                READY,
                async || match Api::try_send(api.request(http::Method::GET, "/ready")).await {
                    Ok(answer) => (answer.status, answer.text),
                    Err(error) => (0, error.to_string()),
                },
                |(status, _)| *status == 200,
            )
            .await;
        }
    }

    /// Where its API is.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.expect("a gateway"))
    }

    /// Its process.
    ///
    /// # Panics
    /// When it is a deployment.
    #[track_caller]
    pub fn process(&mut self) -> &mut Process {
        match &mut self.running {
            Running::Process(process) => process,
            Running::Compose(deployment) => panic!("there is no single process of {deployment:?}"),
        }
    }

    /// Kills it without a warning; of a deployment all, also bus and database.
    pub async fn kill(&mut self) {
        match &mut self.running {
            Running::Process(process) => process.kill().await,
            Running::Compose(deployment) => deployment.kill().await,
        }
    }

    /// Kills its bus only.
    ///
    /// # Panics
    /// When there is none.
    pub fn kill_bus(&self) {
        match &self.running {
            Running::Process(process) => {
                let children = process.children();
                let is_nats = |pid: &u32| {
                    std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
                        .is_ok_and(|line| line.contains("nats"))
                };
                let nats = children.iter().copied().find(is_nats);
                kill(nats.unwrap_or_else(|| panic!("no nats-server among {children:?}")));
            }
            Running::Compose(deployment) => deployment.kill_bus(),
        }
    }

    /// The operator's token of a deployment; that of a process is in its file.
    pub async fn operator_token(&self) -> Option<String> {
        match &self.running {
            Running::Process(_) => None,
            Running::Compose(deployment) => Some(deployment.token().await),
        }
    }

    /// Whether nothing of it has ended since it was started.
    pub fn is_up(&mut self) -> bool {
        match &mut self.running {
            Running::Process(process) => process.ended().is_none(),
            Running::Compose(deployment) => deployment.is_up(),
        }
    }

    /// Asks it to end.
    pub async fn terminate(&mut self) -> ExitStatus {
        match &mut self.running {
            Running::Process(process) => process.terminate(Duration::from_secs(30)).await,
            Running::Compose(deployment) => deployment.terminate().await,
        }
    }

    /// Starts it again, with the same data under the same port.
    pub async fn restart(&mut self) {
        match &mut self.running {
            Running::Process(process) => {
                assert!(process.ended().is_some(), "{} still runs", self.name);
                *process = launch(&self.output, &self.name, &self.args, self.port, &self.settings);
            }
            Running::Compose(deployment) => deployment.restart(&self.settings),
        }
        self.wait_ready().await;
    }

    /// Starts it again with other settings.
    pub async fn restart_with(&mut self, name: &str, value: &str) {
        self.settings = self.settings.clone().with(name, value);
        self.restart().await;
    }
}

fn launch(output: &Utf8Path, name: &str, args: &[String], port: Option<u16>, settings: &Settings) -> Process {
    let ready = output.join(format!("{name}.json"));
    let _ = std::fs::remove_file(&ready);
    let mut command = command(binary());
    command
        .args(args)
        .current_dir(output)
        .env("NIMBUS_READY_FILE", &ready)
        .env("NIMBUS_HOST", "127.0.0.1");
    if let Some(port) = port {
        command.env("PORT", port.to_string());
    }
    for (name, value) in settings.iter() {
        command.env(name, value);
    }
    Process::start(name, &mut command, &output.join(format!("{name}.log")))
}
