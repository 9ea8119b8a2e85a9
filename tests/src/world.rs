//! A deployment of one server and one cluster, and what must be true of them.

use std::collections::BTreeMap;

use camino::{Utf8Path, Utf8PathBuf};
use camino_tempfile::Utf8TempDir;
use serde_json::{Value, json};

use crate::api::{Api, PASSWORD, PATIENCE, cookie_of};
use crate::process::output;
use crate::server::{Server, Settings};
use crate::sim::{PveSim, number};
use crate::wait::eventually;

/// How a world begins.
#[derive(Clone, Debug)]
pub struct Opening {
    suite: &'static str,
    test: String,
    latency_scale: f64,
    capacity: u32,
    settings: Vec<(String, String)>,
}

impl Opening {
    /// A cluster that takes no time and has room.
    #[must_use]
    pub fn of(suite: &'static str, test: &str) -> Self {
        Self {
            suite,
            test: test.to_owned(),
            latency_scale: 0.0,
            capacity: 10,
            settings: vec![],
        }
    }

    /// A cluster that takes its time: 1 is as long as a real one.
    #[must_use]
    pub const fn slow(mut self, latency_scale: f64) -> Self {
        self.latency_scale = latency_scale;
        self
    }

    /// A setting of the server.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }

    /// Starts cluster and server and registers the first user.
    pub async fn start(self) -> World {
        let output = output(self.suite, &self.test);
        let dir = camino_tempfile::tempdir().unwrap();
        let sim = PveSim::start(&output, self.latency_scale, self.capacity).await;
        let mut settings = Settings::cluster(&sim);
        for (name, value) in &self.settings {
            settings = settings.with(name, value);
        }
        let server = Server::start(&output, "nimbus", &dir.path().join("data"), &settings).await;
        let admin = first_user(&server.url()).await;
        World {
            sim,
            server,
            admin,
            output,
            settings,
            dir,
        }
    }
}

/// Registers the administrator of a fresh installation and gives them a token for everything.
pub async fn first_user(url: &str) -> Api {
    let nobody = Api::anonymous(url);
    let person = json!({"name": "Ada", "email": "ada@example.org", "password": PASSWORD});
    let answer = nobody.post("/api/setup/admin", &person).await;
    assert!((200..300).contains(&answer.status), "{}", answer.text);
    let session = nobody.with_cookie(&cookie_of(&answer));
    let token = session
        .token("tests", Some(&["machines:read", "machines:write", "admin"]))
        .await;
    nobody.with_token(&token)
}

/// A running deployment.
#[derive(Debug)]
pub struct World {
    /// The cluster.
    pub sim: PveSim,
    /// The server.
    pub server: Server,
    /// The administrator.
    pub admin: Api,
    /// Where logs go.
    pub output: Utf8PathBuf,
    /// The settings of the server.
    pub settings: Settings,
    dir: Utf8TempDir,
}

impl World {
    /// A folder for data that goes away with the world.
    #[must_use]
    pub fn dir(&self) -> &Utf8Path {
        self.dir.path()
    }

    /// Kills the server without a warning and starts it again.
    pub async fn crash(&mut self) {
        self.server.kill().await;
        self.server.restart().await;
    }

    /// Makes a machine and gives its row.
    pub async fn make(&self, hostname: &str) -> Value {
        let operation = self.admin.order(hostname).await;
        self.admin.succeeded(&operation).await;
        self.admin.machine(hostname).await.unwrap()
    }

    /// Waits until nothing is under way.
    pub async fn settled(&self) {
        settled(&self.admin).await;
    }

    /// Checks that server and cluster agree on what there is.
    ///
    /// # Panics
    /// When they do not; the message says in what.
    #[track_caller]
    pub fn agree(&self) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let differences = differences(&self.sim, &self.admin, &[&self.admin]).await;
            assert!(differences.is_empty(), "at {caller}: {differences:#?}");
        }
    }
}

/// Waits until no operation of a caller is under way.
pub async fn settled(api: &Api) {
    eventually(
        "every operation has ended",
        PATIENCE,
        async || {
            let operations = api.get("/api/operations?limit=200").await.data();
            let open = operations
                .as_array()
                .unwrap()
                .iter()
                .filter(|operation| !crate::api::has_ended(operation));
            open.map(|operation| {
                format!(
                    "{} {} {}",
                    operation["id"], operation["type"], operation["message"]
                )
            })
            .collect::<Vec<_>>()
        },
        Vec::is_empty,
    )
    .await;
}

/// In what the machines of these owners, the addresses and the cluster do not agree. Nothing may be
/// under way.
pub async fn differences(sim: &PveSim, admin: &Api, owners: &[&Api]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut rows = Vec::new();
    for owner in owners {
        rows.extend(owner.machines().await);
    }
    let made = sim.made().await;
    let mut expected = BTreeMap::new();
    for row in &rows {
        let (name, status) = (row["hostname"].as_str().unwrap(), row["status"].as_str().unwrap());
        if !matches!(status, "running" | "stopped") || !row["operation_id"].is_null() {
            wrong.push(format!(
                "{name} is {status} with operation {}",
                row["operation_id"]
            ));
        }
        if row["vmid"].is_null() || row["ip"].is_null() || row["node"].is_null() {
            wrong.push(format!("{name} lacks its number, address or node: {row}"));
            continue;
        }
        let vmid = number(&row["vmid"]);
        if let Some(other) = expected.insert(vmid, name) {
            wrong.push(format!("{name} and {other} have the number {vmid}"));
        }
        match made.get(&vmid) {
            None => wrong.push(format!("{name} has no VM {vmid} in the cluster")),
            Some(vm) => {
                let ip = row["ip"].as_str().unwrap();
                let network = vm["config"]["ipconfig0"].as_str().unwrap_or_default();
                if vm["name"] != name
                    || vm["node"] != row["node"]
                    || vm["status"] != status
                    || !network.contains(&format!("ip={ip}/"))
                    || !vm["lock"].is_null()
                {
                    wrong.push(format!("{row} does not fit {vm}"));
                }
            }
        }
    }
    for (vmid, vm) in &made {
        if !expected.contains_key(vmid) {
            wrong.push(format!("VM {vmid} in the cluster belongs to no machine: {vm}"));
        }
    }
    let mut taken = BTreeMap::new();
    for address in admin.addresses().await {
        if address["status"] != "free" && address["source"] == "local" {
            taken.insert(address["ip"].as_str().unwrap().to_owned(), address);
        }
    }
    for row in &rows {
        let ip = row["ip"].as_str().unwrap_or_default();
        match taken.remove(ip) {
            Some(address) if address["status"] == "allocated" && address["vmid"] == row["vmid"] => {}
            other => wrong.push(format!("{ip} of {} is booked as {other:?}", row["hostname"])),
        }
    }
    wrong.extend(taken.values().map(|address| format!("leaked address: {address}")));
    wrong
}
