//! The simulator: a cluster behind a lock, faults, counters, and what tests and demonstrations do to it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::auth::Credentials;
use crate::faults::{Fault, Faults};
use crate::guest::GuestKind;
use crate::seed::{self, NewForeign};
use crate::world::World;

/// A request and its answer, for whoever wants to look over the simulator's shoulder.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Method.
    pub method: &'static str,
    /// Path with names for its variable parts.
    pub template: &'static str,
    /// Path, query and body parameters as texts, lists as lists.
    pub params: Value,
    /// Status of the answer.
    pub status: u16,
    /// `data` of the answer.
    pub data: Value,
}

pub(crate) type Observer = Arc<dyn Fn(&Exchange) + Send + Sync>;

pub(crate) struct Sim {
    world: Mutex<World>,
    faults: Mutex<Faults>,
    requests: Mutex<BTreeMap<String, u64>>,
    pub(crate) credentials: Credentials,
    pub(crate) observer: Option<Observer>,
    clock: Clock,
}

/// Where the time comes from.
pub(crate) enum Clock {
    Real(Instant),
    /// Milliseconds.
    Manual(AtomicU64),
}

impl Clock {
    fn now(&self) -> u64 {
        // From 1 on: 0 is for what was there before the simulator.
        match self {
            Self::Real(started) => u64::try_from(started.elapsed().as_millis())
                .unwrap_or(u64::MAX)
                .saturating_add(1),
            Self::Manual(now) => now.load(Ordering::Relaxed),
        }
    }
}

/// A guest that nobody asked the API for: somebody made it by hand.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForeignGuest {
    /// Its number; the lowest free one if not given.
    #[serde(default)]
    pub vmid: Option<u32>,
    /// Where it is; the first node if not given.
    #[serde(default)]
    pub node: Option<String>,
    /// Machine or container.
    #[serde(default = "machine")]
    pub kind: GuestKind,
    /// Its name.
    #[serde(default = "somebody")]
    pub name: String,
    /// Its address; `/24` is added to one without a prefix.
    #[serde(default)]
    pub address: Option<String>,
    /// Virtual processors.
    #[serde(default = "one")]
    pub cores: u32,
    /// Memory.
    #[serde(default = "half")]
    pub memory_mib: u32,
    /// Disk.
    #[serde(default = "eight")]
    pub disk_gib: u32,
    /// Whether it is on.
    #[serde(default = "yes")]
    pub running: bool,
    /// Its tags, joined by `;`.
    #[serde(default)]
    pub tags: String,
}

fn machine() -> GuestKind {
    GuestKind::Qemu
}
fn somebody() -> String {
    "somebodys-guest".to_owned()
}
fn one() -> u32 {
    1
}
fn half() -> u32 {
    512
}
fn eight() -> u32 {
    8
}
fn yes() -> bool {
    true
}

impl Default for ForeignGuest {
    fn default() -> Self {
        Self {
            vmid: None,
            node: None,
            kind: machine(),
            name: somebody(),
            address: None,
            cores: one(),
            memory_mib: half(),
            disk_gib: eight(),
            running: yes(),
            tags: String::new(),
        }
    }
}

/// The named thing is not in the cluster, or taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ControlError(pub(crate) String);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A handler that panicked left a cluster that is as good as any other.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sim {
    pub(crate) fn new(
        world: World,
        credentials: Credentials,
        observer: Option<Observer>,
        clock: Clock,
    ) -> Self {
        Self {
            world: Mutex::new(world),
            faults: Mutex::default(),
            requests: Mutex::default(),
            credentials,
            observer,
            clock,
        }
    }

    /// Works on the cluster as it is now. What becomes due at once has happened when this returns.
    pub(crate) fn with_world<T>(&self, work: impl FnOnce(&mut World) -> T) -> T {
        let now = self.clock.now();
        let mut world = lock(&self.world);
        world.advance(now);
        let result = work(&mut world);
        world.advance(now);
        result
    }

    /// Whether time passes only when somebody says so.
    pub(crate) fn is_manual(&self) -> bool {
        matches!(self.clock, Clock::Manual(_))
    }

    /// Lets time pass, if it does not pass by itself.
    pub(crate) fn pass(&self, time: Duration) {
        if let Clock::Manual(now) = &self.clock {
            now.fetch_add(
                u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
                Ordering::Relaxed,
            );
        }
        self.with_world(|_| ());
    }

    pub(crate) fn count(&self, method: &str, template: &str) {
        *lock(&self.requests)
            .entry(format!("{method} {template}"))
            .or_default() += 1;
    }

    pub(crate) fn take_fault(&self, method: &str, template: &str, path: &str) -> Option<Fault> {
        lock(&self.faults).take(method, template, path)
    }

    pub(crate) fn add_fault(&self, fault: Fault) -> u64 {
        lock(&self.faults).add(fault)
    }

    pub(crate) fn clear_faults(&self) {
        lock(&self.faults).clear();
    }

    pub(crate) fn faults(&self) -> Value {
        lock(&self.faults).list()
    }

    pub(crate) fn set_online(&self, node: &str, online: bool) -> Result<(), ControlError> {
        self.with_world(|world| {
            let found = world.nodes.iter_mut().find(|other| other.name == node);
            found
                .ok_or_else(|| ControlError(format!("no node {node:?}")))?
                .online = online;
            world.version += 1;
            Ok(())
        })
    }

    pub(crate) fn add_guest(&self, guest: ForeignGuest) -> Result<(u32, String), ControlError> {
        self.with_world(|world| {
            let first = world
                .nodes
                .first()
                .map(|node| node.name.clone())
                .unwrap_or_default();
            let node = guest.node.unwrap_or(first);
            if world.node(&node).is_none() {
                return Err(ControlError(format!("no node {node:?}")));
            }
            let free = (100u32..)
                .find(|vmid| !world.guests.contains_key(vmid))
                .unwrap_or(100);
            let vmid = guest.vmid.unwrap_or(free);
            if world.guests.contains_key(&vmid) || !(100..=999_999_999).contains(&vmid) {
                return Err(ControlError(format!("vmid {vmid} is taken or out of range")));
            }
            let address = guest.address.map(|address| {
                if address.contains('/') {
                    address
                } else {
                    format!("{address}/24")
                }
            });
            let new = NewForeign {
                vmid,
                kind: guest.kind,
                name: guest.name,
                node: node.clone(),
                cores: guest.cores,
                memory_mib: guest.memory_mib,
                disk_gib: guest.disk_gib,
                address,
                running: guest.running,
                tags: guest.tags,
            };
            seed::foreign(world, new);
            Ok((vmid, node))
        })
    }

    pub(crate) fn remove_guest(&self, vmid: u32) -> Result<(), ControlError> {
        self.with_world(|world| {
            world.version += 1;
            world
                .guests
                .remove(&vmid)
                .map(drop)
                .ok_or_else(|| ControlError(format!("no guest {vmid}")))
        })
    }

    /// Sets or removes the lock of a config, as a backup would.
    pub(crate) fn set_lock(&self, vmid: u32, lock: Option<String>) -> Result<(), ControlError> {
        self.with_world(|world| {
            world.version += 1;
            let guest = world
                .guests
                .get_mut(&vmid)
                .ok_or_else(|| ControlError(format!("no guest {vmid}")))?;
            match lock {
                Some(lock) => guest.config.insert("lock".to_owned(), lock),
                None => guest.config.remove("lock"),
            };
            Ok(())
        })
    }

    /// Everything there is.
    pub(crate) fn state(&self) -> Value {
        let requests = lock(&self.requests).clone();
        let faults = self.faults();
        self.with_world(|world| {
            let nodes: Vec<Value> =
                world.nodes.iter().map(|node| json!({"name": node.name, "online": node.online, "ip": node.ip})).collect();
            let vms: Vec<Value> = world
                .guests
                .values()
                .map(|guest| {
                    json!({
                        "vmid": guest.vmid, "node": guest.node, "kind": guest.kind, "name": guest.name(), "status": guest.status(),
                        "template": guest.is_template(), "foreign": guest.foreign, "lock": guest.lock(),
                        // Without the digest, and with the password's hash masked.
                        "config": guest.config_json(false),
                        // From the end of the start to the first answer with an address.
                        "boot_ms": guest.boot.as_ref().and_then(|boot| Some(boot.address_at.max(boot.agent_at?) - boot.since)),
                    })
                })
                .collect();
            let mut total = 0;
            let tasks: Vec<Value> = world
                .tasks
                .all()
                .map(|task| {
                    let millis = task.ended.unwrap_or(world.now) - task.started;
                    total += millis;
                    json!({
                        "upid": task.upid, "node": task.node, "type": task.kind, "id": task.id, "vmid": task.about,
                        "status": if task.is_running() { "running" } else { "stopped" }, "exitstatus": task.exit,
                        "started_ms": task.started, "task_ms": millis,
                    })
                })
                .collect();
            // Of guests that run: a guest forgets its commands when it stops.
            let commands: Vec<Value> = world
                .execs
                .iter()
                .map(|(pid, exec)| {
                    json!({"pid": pid, "vmid": exec.vmid, "command": exec.command, "input": exec.input, "exitcode": exec.exitcode})
                })
                .collect();
            json!({
                "guest_commands": commands,
                "now_ms": world.now, "nodes": nodes, "vms": vms, "tasks": tasks, "task_ms_total": total,
                "requests": requests, "requests_total": requests.values().sum::<u64>(), "faults": faults,
            })
        })
    }

    /// What is worth keeping, and a number that changes with it.
    pub(crate) fn snapshot(&self) -> (u64, Value) {
        self.with_world(|world| (world.version, crate::state::save(world)))
    }

    pub(crate) fn version(&self) -> u64 {
        self.with_world(|world| world.version)
    }
}
