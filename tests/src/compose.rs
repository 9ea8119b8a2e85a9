//! The deployment of `compose.yaml` in place of one process, for suites that run with
//! `NIMBUS_TEST_DEPLOYMENT=compose`: a project of its own with its own secrets, networks and volumes, which
//! is gone when it is dropped.
//!
//! A test's settings go where an operator would write them: what `compose.yaml` asks for into the file of
//! settings, the cluster's secret into the folder of secrets, all else into a second Compose file.

use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use camino_tempfile::Utf8TempDir;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Map, Value, json};

use crate::lab::HOST_LABEL;
use crate::process::{self, Process, free_port, root};
use crate::server::Settings;
use crate::wait::{eventually, within};

/// How long a deployment may take to come up on a machine that is busy with other things.
const UP: Duration = Duration::from_secs(300);
/// The label of everything that a deployment makes; its value is `NIMBUS_TEST_RUN`, or the project's name.
const LABEL: &str = "io.nimbus.test";
/// What is set for a test, but is the deployment's own affair here.
const OWN: [&str; 4] = [
    "NIMBUS_DATA_DIR",
    "NIMBUS_ADMIN_TOKEN_FILE",
    "NIMBUS_SANDBOX_ENGINE",
    "PROXMOX_TOKEN_SECRET",
];
/// The services that run the binary.
const NIMBUS: [&str; 8] = [
    "gateway-1",
    "gateway-2",
    "auth",
    "ippool",
    "provisioner",
    "workloads",
    "gpu-scheduler",
    "sandbox-agent",
];
/// The other ones.
const GROUND: [&str; 4] = ["proxy", "nats", "postgres", "volumes"];
/// Images as `ops/dev/images` and `ops/image/build.py` make them for tests.
const IMAGES: [(&str, &str); 4] = [
    ("NIMBUS_IMAGE", "nimbus.test/nimbus:1"),
    ("NATS_IMAGE", "nimbus.test/nats:1"),
    ("POSTGRES_IMAGE", "nimbus.test/postgres:1"),
    ("PROXY_IMAGE", "nimbus.test/haproxy:1"),
];

/// Whether servers of tests are deployments of `compose.yaml`.
///
/// # Panics
/// When `NIMBUS_TEST_DEPLOYMENT` is something else.
#[must_use]
pub fn wanted() -> bool {
    match std::env::var("NIMBUS_TEST_DEPLOYMENT").as_deref() {
        Err(_) | Ok("" | "process") => false,
        Ok("compose") => true,
        Ok(other) => panic!("NIMBUS_TEST_DEPLOYMENT is `process` or `compose`, not `{other}`"),
    }
}

/// Where a test listens when its server has to reach it: loopback, or for containers the engine's bridge.
#[must_use]
pub fn reachable() -> Ipv4Addr {
    static BRIDGE: LazyLock<Ipv4Addr> = LazyLock::new(|| {
        let said = engine(&[
            "network",
            "inspect",
            "bridge",
            "--format",
            "{{json .IPAM.Config}}",
        ]);
        let networks: Value = serde_json::from_str(&said).unwrap();
        let address = networks.as_array().unwrap().iter().find_map(|network| {
            let gateway = network["Gateway"].as_str()?;
            gateway.parse().ok()
        });
        address.unwrap_or_else(|| panic!("the engine's bridge has no address: {said}"))
    });
    if wanted() { *BRIDGE } else { Ipv4Addr::LOCALHOST }
}

/// A project of Compose.
#[derive(Debug)]
pub struct Deployment {
    name: String,
    host: String,
    output: Utf8PathBuf,
    dir: Utf8TempDir,
    port: u16,
    https: u16,
    subnet: String,
    up: Option<Process>,
}

impl Deployment {
    /// Makes keys and settings and begins to start it.
    ///
    /// # Panics
    /// When there is no engine, or `ops/compose/init.sh` fails.
    #[must_use]
    pub fn launch(output: &Utf8Path, server: &str, settings: &Settings) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        // Sockets of sandboxes lie below it, and their paths are bounded.
        let dir = camino_tempfile::Builder::new()
            .prefix("nimbus-")
            .tempdir_in("/tmp")
            .unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let name = format!("nimbus-test-{pid}-{count}");
        let mut one = Self {
            host: settings.get("NIMBUS_SANDBOX_HOST").unwrap_or(&name).to_owned(),
            name,
            output: output.join(server),
            dir,
            port: free_port(),
            https: free_port(),
            subnet: format!("198.18.{}.{}/28", pid % 256, count % 16 * 16),
            up: None,
        };
        std::fs::create_dir_all(one.output.as_path()).unwrap();
        one.write(settings);
        let init = process::command(root().join("ops/compose/init.sh"))
            .into_std()
            .env("NIMBUS_ENV_FILE", one.env_file())
            .output();
        let _ = good("ops/compose/init.sh", init);
        one.begin();
        one
    }

    /// Writes the file of settings, the cluster's secret, and the second Compose file.
    fn write(&self, settings: &Settings) {
        let compose = std::fs::read_to_string(root().join("compose.yaml")).unwrap();
        let asks = |name: &str| {
            compose.contains(&format!("${{{name}:"))
                || compose.lines().any(|line| line.trim() == format!("{name}:"))
        };
        let secrets = self.dir.path().join("secrets");
        std::fs::create_dir_all(&secrets).unwrap();
        let socket = "/var/run/docker.sock";
        let group = std::fs::metadata(socket)
            .unwrap_or_else(|error| panic!("{socket}: {error}; run ops/dev/engine.sh start"))
            .gid();
        let mut env: Vec<(String, String)> = IMAGES
            .iter()
            .map(|(name, image)| {
                let other = std::env::var(format!("NIMBUS_TEST_{name}"));
                ((*name).to_owned(), other.unwrap_or_else(|_| (*image).to_owned()))
            })
            .collect();
        let mut add = |name: &str, value: &dyn ToString| env.push((name.to_owned(), value.to_string()));
        add("DOCKER_GID", &group);
        add("NIMBUS_SECRETS", &secrets);
        add("NIMBUS_SANDBOX_DIR", &self.dir.path().join("s"));
        add("NIMBUS_HTTP_PORT", &self.port);
        add("NIMBUS_HTTPS_PORT", &self.https);
        add("NIMBUS_EDGE_SUBNET", &self.subnet);
        // The last one of a name holds.
        add("NIMBUS_SANDBOX_HOST", &self.host);
        add("NIMBUS_SANDBOX_WARM", &0);
        let mut environment = Map::new();
        for (name, value) in settings.iter() {
            if name == "PROXMOX_TOKEN_SECRET" {
                std::fs::write(secrets.join("proxmox-token-secret"), value).unwrap();
                add("PROXMOX_TOKEN_SECRET_FILE", &"/run/secrets/proxmox-token-secret");
            } else if OWN.contains(&name.as_str()) {
            } else if asks(name) {
                add(name, value);
            } else {
                environment.insert(name.clone(), value.clone().into());
            }
        }
        let lines: String = env
            .iter()
            .map(|(name, value)| format!("{name}={value}\n"))
            .collect();
        std::fs::write(self.env_file(), lines).unwrap();

        let run = std::env::var("NIMBUS_TEST_RUN").unwrap_or_else(|_| self.name.clone());
        let labels = json!({ "labels": { LABEL: run } });
        let mut services: Map<String, Value> = GROUND
            .iter()
            .map(|name| ((*name).to_owned(), labels.clone()))
            .collect();
        for name in ["nats", "postgres"] {
            // Everything waits for them.
            services[name]["healthcheck"] = json!({ "interval": "1s" });
        }
        for name in NIMBUS {
            let mut service = labels.clone();
            service["environment"] = environment.clone().into();
            if name.starts_with("gateway") {
                // An unoptimised binary reads portal and documentation where it was built.
                let folders = ["web/portal/dist", "docs", "services/gateway"].map(|path| root().join(path));
                let mounts = folders.map(|path| format!("{path}:{path}:ro"));
                service["volumes"] = mounts.as_slice().into();
            }
            services.insert(name.to_owned(), service);
        }
        let all = |names: &[&str]| -> Value {
            let entries = names.iter().map(|name| ((*name).to_owned(), labels.clone()));
            entries.collect::<Map<_, _>>().into()
        };
        let second = json!({
            "services": services,
            "networks": all(&["edge", "core", "outside"]),
            "volumes": all(&["auth", "nats", "postgres"]),
        });
        std::fs::write(self.second(), second.to_string()).unwrap();
    }

    fn env_file(&self) -> Utf8PathBuf {
        self.dir.path().join("env")
    }

    fn second(&self) -> Utf8PathBuf {
        self.dir.path().join("compose.test.json")
    }

    /// Compose, for this project.
    fn compose(&self, args: &[&str]) -> Command {
        let program = std::env::var("NIMBUS_TEST_COMPOSE")
            .unwrap_or_else(|_| root().join("target/venv/bin/docker-compose").into_string());
        let mut command = process::command(program).into_std();
        command
            .args([
                "--env-file",
                self.env_file().as_str(),
                "--project-name",
                &self.name,
            ])
            .args(["-f", "compose.yaml", "-f", self.second().as_str()])
            .args(args)
            .current_dir(root())
            .stdin(Stdio::null());
        command
    }

    /// The same, waiting for its end; what it printed.
    async fn run(&self, args: &[&str]) -> String {
        let mut command = tokio::process::Command::from(self.compose(args));
        let done = within(&format!("compose {args:?}"), UP, command.output()).await;
        good(&format!("compose {args:?}"), done)
    }

    /// Begins to start whatever does not run.
    fn begin(&mut self) {
        let mut command = tokio::process::Command::from(self.compose(&["up", "--detach", "--quiet-pull"]));
        self.up = Some(Process::start(
            "compose up",
            &mut command,
            &self.output.join("up.log"),
        ));
    }

    /// Waits until every container was started; whether the services answer is asked of the proxy.
    ///
    /// # Panics
    /// When Compose fails; with what it said.
    pub async fn started(&mut self) {
        if let Some(mut up) = self.up.take() {
            let status = eventually("compose up", UP, async || up.ended(), Option::is_some).await;
            if !status.is_some_and(|status| status.success()) {
                self.logs();
                panic!("compose up: {status:?}, see {}\n{}", self.output, up.tail());
            }
        }
    }

    /// The port of its proxy, on loopback.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Kills every container at once, also bus and database.
    pub async fn kill(&self) {
        let _ = self.run(&["kill"]).await;
    }

    /// Stops it as an operator does. A success when everything that runs the binary ended with one.
    pub async fn terminate(&self) -> ExitStatus {
        let _ = self.run(&["stop"]).await;
        let mut worst = 0;
        for container in self.containers() {
            let (service, state) = (service_of(&container), &container["State"]);
            let code = i32::try_from(state["ExitCode"].as_i64().unwrap()).unwrap();
            if code != 0 && NIMBUS.contains(&service) {
                println!("{} ended with {code}: {state}", container["Name"]);
                worst = code;
            }
        }
        ExitStatus::from_raw(worst << 8)
    }

    /// Begins to start it again.
    pub fn restart(&mut self, settings: &Settings) {
        self.write(settings);
        self.begin();
    }

    /// Kills the bus, which the engine then starts again.
    ///
    /// # Panics
    /// When there is none.
    pub fn kill_bus(&self) {
        let containers = self.containers();
        let nats = containers.iter().find(|one| service_of(one) == "nats").unwrap();
        let pid = i32::try_from(nats["State"]["Pid"].as_i64().unwrap()).unwrap();
        match kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL) {
            Ok(()) => {}
            // Without root. The engine does not start again what it was told to kill.
            Err(Errno::PERM) => {
                let id = nats["Id"].as_str().unwrap();
                let _ = engine(&["kill", id]);
                let _ = engine(&["start", id]);
            }
            Err(error) => panic!("the bus, process {pid}: {error}"),
        }
    }

    /// Whether all that runs the binary runs, and has since it was started.
    #[must_use]
    pub fn is_up(&self) -> bool {
        let containers = self.containers();
        let mut ours = containers.iter().filter(|one| NIMBUS.contains(&service_of(one)));
        ours.all(|one| one["State"]["Running"] == true && one["RestartCount"] == 0)
    }

    /// The operator's token, asked for as an operator does.
    pub async fn token(&self) -> String {
        let said = self.run(&["exec", "-T", "auth", "nimbus", "auth", "token"]).await;
        said.trim().to_owned()
    }

    /// What the engine says of each container.
    fn containers(&self) -> Vec<Value> {
        let filter = format!("label=com.docker.compose.project={}", self.name);
        let ids = engine(&["ps", "--all", "--quiet", "--filter", &filter]);
        let mut args = vec!["inspect"];
        args.extend(ids.split_whitespace());
        serde_json::from_str(&engine(&args)).unwrap()
    }

    /// Writes down what the containers have said.
    fn logs(&self) {
        let log = std::fs::File::create(self.output.join("compose.log"));
        if let Ok(log) = log {
            let _ = self
                .compose(&["logs", "--no-color", "--timestamps"])
                .stdout(log)
                .status();
        }
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        // Ends it when it is still at work.
        drop(self.up.take());
        self.logs();
        let down = self
            .compose(&["down", "--volumes", "--remove-orphans", "--timeout", "0"])
            .output();
        match down {
            Ok(done) if done.status.success() => {}
            other => eprintln!("{} may be left: {other:?}", self.name),
        }
        // Sandboxes of a test that failed before their end.
        let label = format!("label={HOST_LABEL}={}", self.host);
        for (list, remove) in [
            (&["ps", "--all"][..], &["rm", "--force", "--volumes"][..]),
            (&["volume", "ls"], &["volume", "rm", "--force"]),
            (&["network", "ls"], &["network", "rm"]),
        ] {
            let listed = Command::new("docker")
                .args(list)
                .args(["--quiet", "--filter", &label])
                .output();
            let listed = listed
                .map(|done| String::from_utf8_lossy(&done.stdout).into_owned())
                .unwrap_or_default();
            if !listed.is_empty() {
                let _ = Command::new("docker")
                    .args(remove)
                    .args(listed.split_whitespace())
                    .output();
            }
        }
        // Files of other accounts. Root may remove them, others ask the engine to.
        if std::fs::remove_dir_all(self.dir.path()).is_err() {
            let mount = format!("{}:/left", self.dir.path());
            let _ = Command::new("docker")
                .args([
                    "run",
                    "--rm",
                    "--network",
                    "none",
                    "--user",
                    "0:0",
                    "--volume",
                    &mount,
                ])
                .args([
                    "--entrypoint",
                    "sh",
                    "nimbus.test/postgres:1",
                    "-c",
                    "rm -rf /left/*",
                ])
                .output();
        }
    }
}

fn service_of(container: &Value) -> &str {
    container["Config"]["Labels"]["com.docker.compose.service"]
        .as_str()
        .unwrap()
}

/// What the engine's command says.
fn engine(args: &[&str]) -> String {
    good(
        &format!("docker {args:?}"),
        Command::new("docker").args(args).stdin(Stdio::null()).output(),
    )
}

/// What a command printed.
fn good(what: &str, done: std::io::Result<Output>) -> String {
    let done = done.unwrap_or_else(|error| panic!("{what}: {error}"));
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{what}: {}: {said}", done.status);
    String::from_utf8(done.stdout).unwrap()
}
