//! The cluster: nodes, guests, storages, and the clock that moves tasks on.
//!
//! Nothing runs by itself. Every request first lets everything happen that was due until now, in
//! order, so that an idle simulator costs nothing and fifty clones cost fifty entries of a heap.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use crate::guest::{Boot, Guest};
use crate::seed;
use crate::task::{NewTask, Tasks};
use crate::timing::{Step, Timing};

const GIB: u64 = 1 << 30;

/// A node and what it has.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) online: bool,
    pub(crate) ip: String,
    pub(crate) maxcpu: u64,
    /// Load without the guests that are made later, 0 to 1.
    pub(crate) load: f64,
    pub(crate) maxmem: u64,
    /// Bytes the node itself uses.
    pub(crate) own_mem: u64,
    /// Bytes of `local-lvm`.
    pub(crate) disk: u64,
    /// Bytes of it that belong to no simulated guest.
    pub(crate) own_disk: u64,
}

/// A file on the storage `local`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct File {
    pub(crate) node: String,
    pub(crate) volid: String,
    pub(crate) content: String,
    pub(crate) size: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    Begin(u64),
    Finish(u64),
}

pub(crate) struct World {
    pub(crate) nodes: Vec<Node>,
    pub(crate) guests: BTreeMap<u32, Guest>,
    pub(crate) files: Vec<File>,
    pub(crate) tasks: Tasks,
    pub(crate) timing: Timing,
    pub(crate) rng: StdRng,
    pub(crate) now: u64,
    /// Seconds since 1970 at `now` 0.
    pub(crate) epoch: u64,
    /// Whether `/cluster/resources` lags behind.
    pub(crate) stale: bool,
    /// Guests whose next boot gets no agent, by order of boots.
    pub(crate) execs: BTreeMap<u64, Exec>,
    /// Counts changes worth keeping in the state file.
    pub(crate) version: u64,
    due: BinaryHeap<Reverse<(u64, u64, Due)>>,
    order: u64,
    next_pid: u32,
}

/// A command in a guest.
#[derive(Clone, Debug)]
pub(crate) struct Exec {
    pub(crate) vmid: u32,
    pub(crate) done_at: u64,
    pub(crate) exitcode: i64,
    pub(crate) output: String,
    /// What was asked for: the words, and the standard input.
    pub(crate) command: Vec<String>,
    pub(crate) input: String,
}

impl World {
    pub(crate) fn new(seed: u64, timing: Timing, epoch: u64) -> Self {
        Self {
            nodes: Vec::new(),
            guests: BTreeMap::new(),
            files: Vec::new(),
            tasks: Tasks::default(),
            timing,
            rng: StdRng::seed_from_u64(seed),
            now: 0,
            epoch,
            stale: true,
            execs: BTreeMap::new(),
            version: 0,
            due: BinaryHeap::new(),
            order: 0,
            next_pid: 2000,
        }
    }

    /// Lets everything happen that is due until `now`.
    pub(crate) fn advance(&mut self, now: u64) {
        while let Some(Reverse((at, _, due))) = self.due.peek().copied() {
            if at > now {
                break;
            }
            self.due.pop();
            self.now = self.now.max(at);
            match due {
                Due::Begin(task) => self.begin(task),
                Due::Finish(task) => self.finish(task),
            }
        }
        self.now = self.now.max(now);
    }

    pub(crate) fn schedule(&mut self, at: u64, due: Due) {
        self.order += 1;
        self.due.push(Reverse((at, self.order, due)));
    }

    /// Starts a worker; its name is the answer, whatever becomes of it.
    pub(crate) fn spawn(&mut self, new: NewTask) -> String {
        let unix = self.unix();
        let number = self.tasks.add(new, self.now, unix);
        let wait = self.timing.fixed(Step::WorkerStart);
        self.schedule(self.now + wait, Due::Begin(number));
        self.tasks
            .get(number)
            .map(|task| task.upid.clone())
            .unwrap_or_default()
    }

    pub(crate) fn step(&mut self, step: Step) -> u64 {
        self.timing.of(step, &mut self.rng)
    }

    /// Seconds since 1970.
    pub(crate) fn unix(&self) -> u64 {
        self.epoch + self.now / 1000
    }

    /// Whether more than half of the nodes are up; without that nothing can be changed.
    pub(crate) fn has_quorum(&self) -> bool {
        self.nodes.iter().filter(|node| node.online).count() * 2 > self.nodes.len()
    }

    pub(crate) fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// What a storage may hold, if there is one of that name.
    pub(crate) fn storage_content(&self, storage: &str) -> Option<&'static str> {
        match storage {
            "local" => Some("iso,vztmpl,backup,import"),
            "local-lvm" => Some("images,rootdir"),
            _ => None,
        }
    }

    /// Bytes of a file on any node.
    pub(crate) fn volume_size(&self, volid: &str) -> Option<u64> {
        self.files
            .iter()
            .find(|file| file.volid == volid)
            .map(|file| file.size)
    }

    /// Bytes in use on a storage of a node.
    pub(crate) fn storage_used(&self, node: &Node, storage: &str) -> u64 {
        if storage == "local" {
            let files: u64 = self
                .files
                .iter()
                .filter(|file| file.node == node.name)
                .map(|file| file.size)
                .fold(0, u64::saturating_add);
            return 8 * GIB + files;
        }
        let prefix = format!("{storage}:");
        let guests: u64 = self
            .guests
            .values()
            .filter(|guest| guest.node == node.name && !guest.is_template())
            .flat_map(Guest::disks)
            .filter(|(_, volume, _)| volume.starts_with(&prefix))
            .map(|(_, _, size)| size)
            .fold(0, u64::saturating_add);
        node.own_disk.saturating_add(guests)
    }

    /// Bytes of a storage.
    pub(crate) fn storage_total(node: &Node, storage: &str) -> u64 {
        if storage == "local" { 100 * GIB } else { node.disk }
    }

    /// Bytes of memory in use on a node.
    pub(crate) fn memory_used(&self, node: &Node) -> u64 {
        let running = |guest: &&Guest| guest.node == node.name && guest.boot.is_some();
        let guests: u64 = self
            .guests
            .values()
            .filter(running)
            .map(Guest::memory)
            .fold(0, u64::saturating_add);
        node.own_mem.saturating_add(guests).min(node.maxmem)
    }

    /// Load of a node: what it had, and a fiftieth of a processor for each one of the guests made later.
    pub(crate) fn load(&self, node: &Node) -> f64 {
        let ours = |guest: &&Guest| guest.node == node.name && guest.boot.is_some() && !guest.foreign;
        let cpus: u64 = self
            .guests
            .values()
            .filter(ours)
            .map(Guest::cpus)
            .fold(0, u64::saturating_add);
        let cpus = u32::try_from(cpus).unwrap_or(u32::MAX);
        let threads = u32::try_from(node.maxcpu).unwrap_or(1).max(1);
        (node.load + 0.02 * f64::from(cpus) / f64::from(threads)).min(1.0)
    }

    pub(crate) fn new_mac(&mut self) -> String {
        let tail: u32 = self.rng.random_range(0..0x100_0000);
        let [_, a, b, c] = tail.to_be_bytes();
        // The prefix Proxmox has registered.
        format!("BC:24:11:{a:02X}:{b:02X}:{c:02X}")
    }

    pub(crate) fn new_uuid(&mut self) -> String {
        let high: u64 = self.rng.random();
        let low: u64 = self.rng.random();
        let (version, variant) = ((high & 0x0fff) | 0x4000, ((low >> 48) & 0x3fff) | 0x8000);
        format!(
            "{:08x}-{:04x}-{version:04x}-{variant:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            low & 0xffff_ffff_ffff
        )
    }

    /// Switches a guest on; its agent answers after a while, or never.
    pub(crate) fn boot(&mut self, vmid: u32, with_agent: bool) {
        let (agent, address) = (self.step(Step::AgentUp), self.timing.fixed(Step::AddressUp));
        let now = self.now;
        let pid = self.next_pid;
        self.next_pid += 7;
        let Some(guest) = self.guests.get_mut(&vmid) else {
            return;
        };
        guest.apply_pending();
        let has_agent = with_agent && guest.option("agent").is_some_and(crate::formats::agent_enabled);
        guest.boot = Some(Boot {
            since: now,
            pid,
            agent_at: has_agent.then_some(now + agent),
            address_at: now + agent + address,
            addresses: seed::addresses(guest),
            paused: false,
        });
        self.version += 1;
    }
}
