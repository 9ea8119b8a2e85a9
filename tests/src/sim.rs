//! The simulated cluster as a process of its own, so that it outlives a killed server.

use std::collections::BTreeMap;
use std::time::Duration;

use camino::Utf8Path;
use serde_json::{Value, json};

use crate::api::http_client;
use crate::compose::reachable;
use crate::process::{Process, binary, command};
use crate::wait::eventually;

/// Name of the token that the cluster accepts.
pub const TOKEN_ID: &str = "root@pam!test";
/// Its secret.
pub const TOKEN_SECRET: &str = "6b1e0a5c-black-box";

/// A fault to order.
#[derive(Clone, Debug)]
pub struct Fault(Value);

impl Fault {
    /// For every call of `path` (`POST /nodes/{node}/qemu/{vmid}/clone`) from now on.
    #[must_use]
    pub fn always(path: &str, mode: Value) -> Self {
        let mut fault = mode;
        fault["path"] = path.into();
        fault["count"] = 0.into();
        Self(fault)
    }

    /// For the next call.
    #[must_use]
    pub fn once(path: &str, mode: Value) -> Self {
        let mut fault = Self::always(path, mode);
        fault.0["count"] = 1.into();
        fault
    }

    /// The call is carried out, only its answer goes wrong.
    #[must_use]
    pub fn after(mut self) -> Self {
        self.0["after"] = true.into();
        self
    }

    /// Lets so many calls pass first.
    #[must_use]
    pub fn skip(mut self, calls: u32) -> Self {
        self.0["skip"] = calls.into();
        self
    }
}

/// The call is answered with status 500.
#[must_use]
pub fn fail() -> Value {
    json!({"mode": "fail", "status": 500, "message": "the test says no"})
}

/// The call is never answered.
#[must_use]
pub fn hang() -> Value {
    json!({"mode": "hang"})
}

/// The answer is a page of some proxy.
#[must_use]
pub fn garbage() -> Value {
    json!({"mode": "garbage"})
}

/// The connection is cut.
#[must_use]
pub fn reset() -> Value {
    json!({"mode": "reset"})
}

/// The task that the call starts fails.
#[must_use]
pub fn task_fail() -> Value {
    json!({"mode": "task_fail", "exitstatus": "the test says no"})
}

/// The answer takes so long.
#[must_use]
pub fn delay(milliseconds: u64) -> Value {
    json!({"mode": "delay", "ms": milliseconds})
}

/// A running simulator.
#[derive(Debug)]
pub struct PveSim {
    /// Where it is.
    pub url: String,
    http: reqwest::Client,
    _process: Process,
}

impl PveSim {
    /// Starts a cluster of three nodes.
    pub async fn start(output: &Utf8Path, latency_scale: f64, capacity: u32) -> Self {
        let ready = output.join("pve-sim.json");
        let mut command = command(binary());
        command
            .args([
                "pve-sim",
                "--listen",
                &format!("{}:0", reachable()),
                "--nodes",
                "3",
                "--token-id",
                TOKEN_ID,
            ])
            .args(["--latency-scale", &latency_scale.to_string()])
            .args(["--capacity-factor", &capacity.to_string()])
            .args(["--ready-file", ready.as_str()])
            .env("PVE_SIM_TOKEN_SECRET", TOKEN_SECRET);
        let mut process = Process::start("pve-sim", &mut command, &output.join("pve-sim.log"));
        let facts = process.ready(&ready, Duration::from_secs(20)).await;
        Self {
            url: facts["url"].as_str().unwrap().to_owned(),
            http: http_client(),
            _process: process,
        }
    }

    async fn control(&self, method: http::Method, path: &str, body: Option<&Value>) -> Value {
        let mut request = self
            .http
            .request(method, format!("{}/sim/{path}", self.url))
            .header("X-Sim-Token", TOKEN_SECRET);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(
            status.is_success(),
            "the simulator answered {status} to {path}: {text}"
        );
        serde_json::from_str(&text).unwrap()
    }

    /// Everything there is in the cluster.
    pub async fn state(&self) -> Value {
        self.control(http::Method::GET, "state", None).await
    }

    /// Orders a fault.
    pub async fn order(&self, fault: &Fault) {
        self.control(http::Method::POST, "faults", Some(&fault.0)).await;
    }

    /// Forgets all faults.
    pub async fn mend(&self) {
        self.control(http::Method::DELETE, "faults", None).await;
    }

    /// How many of the faults that were ordered for once are still to come.
    pub async fn faults_left(&self) -> usize {
        let faults = self.control(http::Method::GET, "faults", None).await;
        faults
            .as_array()
            .unwrap()
            .iter()
            .filter(|fault| fault["count"] != 0)
            .count()
    }

    /// Waits until a call has met each fault that was ordered for once.
    pub async fn struck(&self) {
        eventually(
            "every fault was met",
            Duration::from_secs(30),
            async || self.faults_left().await,
            |left| *left == 0,
        )
        .await;
    }

    /// Makes a guest that belongs to somebody else.
    pub async fn stranger(&self, guest: Value) -> u32 {
        number(&self.control(http::Method::POST, "vms", Some(&guest)).await["vmid"])
    }

    /// Takes a guest away, behind everybody's back.
    pub async fn remove(&self, vmid: u32) {
        self.control(http::Method::DELETE, &format!("vms/{vmid}"), None)
            .await;
    }

    /// Switches a node on or off.
    pub async fn switch(&self, node: &str, online: bool) {
        self.control(
            http::Method::POST,
            &format!("nodes/{node}"),
            Some(&json!({"online": online})),
        )
        .await;
    }

    /// A guest.
    pub async fn guest(&self, vmid: u32) -> Option<Value> {
        self.state().await["vms"]
            .as_array()
            .unwrap()
            .iter()
            .find(|vm| number(&vm["vmid"]) == vmid)
            .cloned()
    }

    /// What was made through the API: name by number. Templates and guests of others are not in it.
    pub async fn made(&self) -> BTreeMap<u32, Value> {
        let state = self.state().await;
        let guests = state["vms"].as_array().unwrap().iter();
        guests
            .filter(|vm| vm["foreign"] == false)
            .map(|vm| (number(&vm["vmid"]), vm.clone()))
            .collect()
    }

    /// How often a call was made.
    pub async fn requests(&self, call: &str) -> u64 {
        self.state().await["requests"][call].as_u64().unwrap_or(0)
    }
}

/// A VMID.
#[must_use]
pub fn number(value: &Value) -> u32 {
    u32::try_from(
        value
            .as_u64()
            .unwrap_or_else(|| panic!("{value} is not a number")),
    )
    .unwrap()
}
