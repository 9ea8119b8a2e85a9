//! Processes of the real binary.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

/// The binary beside this one, unless `NIMBUS_BIN` names another.
pub(crate) fn binary() -> Result<Utf8PathBuf> {
    if let Ok(path) = std::env::var("NIMBUS_BIN") {
        return Ok(path.into());
    }
    let own = Utf8PathBuf::try_from(std::env::current_exe()?)?;
    Ok(own.parent().context("the bench is in a folder")?.join("nimbus"))
}

/// A process that ends with this value.
pub(crate) struct Process {
    child: Child,
    pub(crate) facts: Value,
}

impl Process {
    /// Starts a command of the binary and waits until it says that it is ready.
    pub(crate) async fn start(
        folder: &Utf8Path,
        name: &str,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> Result<Self> {
        let ready = folder.join(format!("{name}.json"));
        let log = std::fs::File::create(folder.join(format!("{name}.log")))?;
        let mut command = Command::new(binary()?);
        command
            .args(args)
            .args(["--ready-file", ready.as_str()])
            .envs(env.iter().copied());
        command
            .env("NIMBUS_LOG", "warn")
            .env("NIMBUS_READY_SSH_PROBE", "false");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log))
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .with_context(|| format!("starting {}", binary().unwrap_or_default()))?;
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        let patience = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            looks.tick().await;
            if let Some(facts) = std::fs::read(&ready)
                .ok()
                .and_then(|text| serde_json::from_slice(&text).ok())
            {
                return Ok(Self { child, facts });
            }
            if let Some(status) = child.try_wait()? {
                bail!(
                    "{name} ended with {status}: {}",
                    std::fs::read_to_string(folder.join(format!("{name}.log")))?
                );
            }
            if tokio::time::Instant::now() > patience {
                bail!(
                    "{name} was not ready after 30 s: {}",
                    std::fs::read_to_string(folder.join(format!("{name}.log")))?
                );
            }
        }
    }

    pub(crate) fn url(&self) -> Result<String> {
        Ok(self
            .facts
            .get("url")
            .and_then(Value::as_str)
            .context("a server says its URL")?
            .to_owned())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    pub(crate) async fn stop(mut self) -> Result<()> {
        if let Some(pid) = self.child.id() {
            Command::new("kill").arg(pid.to_string()).status().await?;
        }
        self.child.wait().await?;
        Ok(())
    }
}

/// A simulated cluster and an installation on it, with the first user signed in.
pub(crate) struct World {
    pub(crate) sim: Process,
    pub(crate) nimbus: Process,
    pub(crate) client: reqwest::Client,
    pub(crate) token: String,
    pub(crate) base: String,
    pub(crate) sim_url: String,
    pub(crate) folder: camino_tempfile::Utf8TempDir,
}

const SECRET: &str = "00000000-0000-0000-0000-000000000000";
/// Generated for this bench; its private half was never kept.
pub(crate) const PUBLIC_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGkG1uTCEOu4p0EKDDhtQe05ItiCCKBYh+XA6yqeTqGU bench";

impl World {
    pub(crate) async fn new(latency_scale: &str) -> Result<Self> {
        let folder = camino_tempfile::tempdir()?;
        let path = folder.path().to_owned();
        let sim = Process::start(
            &path,
            "pve-sim",
            &[
                "pve-sim",
                "--listen",
                "127.0.0.1:0",
                "--nodes",
                "3",
                "--token-id",
                "root@pam!bench",
                "--latency-scale",
                latency_scale,
                "--capacity-factor",
                "20",
            ],
            &[("PVE_SIM_TOKEN_SECRET", SECRET)],
        )
        .await?;
        let sim_url = sim.url()?;
        let data = path.join("data");
        let nimbus = Process::start(
            &path,
            "nimbus",
            &["start", "--port", "0", "--data-dir", data.as_str()],
            &[
                ("PROXMOX_HOST", &sim_url),
                ("PROXMOX_TOKEN_ID", "root@pam!bench"),
                ("PROXMOX_TOKEN_SECRET", SECRET),
                ("IP_POOL_START", "10.77.1.0"),
                ("IP_POOL_END", "10.77.2.255"),
                ("GATEWAY_IP", "10.77.0.1"),
                ("VM_PREFIX_LEN", "16"),
                ("NIMBUS_READY_POLL", "20ms"),
                ("RATE_LIMIT_ADDRESS_PER_SECOND", "0"),
                ("RATE_LIMIT_USER_PER_SECOND", "0"),
            ],
        )
        .await?;
        let base = nimbus.url()?;
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(600))
            .build()?;
        let mut world = Self {
            sim,
            nimbus,
            client,
            token: String::new(),
            base,
            sim_url,
            folder,
        };
        world.sign_in().await?;
        Ok(world)
    }

    async fn sign_in(&mut self) -> Result<()> {
        let who =
            json!({ "name": "Bench", "email": "bench@example.org", "password": "correct horse battery" });
        self.client
            .post(format!("{}/api/auth/register", self.base))
            .json(&who)
            .send()
            .await?
            .error_for_status()?;
        let login = json!({ "email": "bench@example.org", "password": "correct horse battery" });
        let answer = self
            .client
            .post(format!("{}/api/auth/login", self.base))
            .json(&login)
            .send()
            .await?
            .error_for_status()?;
        let cookie = answer
            .headers()
            .get("set-cookie")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .context("a session cookie")?
            .to_owned();
        let made: Value = self
            .client
            .post(format!("{}/api/tokens", self.base))
            .header("cookie", cookie)
            .header("origin", &self.base)
            .json(&json!({ "name": "bench", "scopes": ["machines:read", "machines:write", "admin"] }))
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        self.token = made
            .pointer("/data/token")
            .and_then(Value::as_str)
            .context("a token")?
            .to_owned();
        Ok(())
    }

    /// Makes a machine and waits for it.
    pub(crate) async fn provision(&self, hostname: &str) -> Result<Value> {
        let order = json!({ "hostname": hostname, "tier": "small", "os_template": "debian-12", "ssh_pubkey": PUBLIC_KEY });
        let answer = self
            .client
            .post(format!("{}/api/vms", self.base))
            .bearer_auth(&self.token)
            .json(&order)
            .send()
            .await?;
        let status = answer.status();
        let body: Value = answer.json().await?;
        if !status.is_success() {
            bail!("{hostname}: {status} {body}");
        }
        body.get("data").cloned().context("a result")
    }

    pub(crate) async fn sim_state(&self) -> Result<Value> {
        Ok(self
            .client
            .get(format!("{}/sim/state", self.sim_url))
            .header("x-sim-token", SECRET)
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?)
    }

    pub(crate) async fn end(self) -> Result<()> {
        self.nimbus.stop().await?;
        self.sim.stop().await?;
        drop(self.folder);
        Ok(())
    }
}
