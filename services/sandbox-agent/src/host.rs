//! The host as `workloads` knows it: what it has and offers, said every two seconds and whenever it
//! changes; the reply carries orders.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nimbus_engine::{DockerEngine, Engine, EngineConfig, EngineError, Facts, discover};
use nimbus_errors::chain;
use nimbus_model::Clock;
use nimbus_proto::workloads::{
    Beat, BeatReply, BeatRequest, Health, HostFacts, Lifecycle, Observation, Readiness, Truth,
};
use nimbus_proto::workloads::{Condition, ConditionKind};
use nimbus_service::RunError;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::agent::{Agent, Parts};
use crate::error::AgentError;
use crate::methods;
use crate::report::News;
use crate::sandbox::Message;

/// How often the host says that it is there.
const BEAT: Duration = Duration::from_secs(2);
/// Changes that come together are one beat.
const TOGETHER: Duration = Duration::from_millis(100);
/// How often an engine is looked for where there is none.
const LOOK_FIRST: Duration = Duration::from_millis(500);
const LOOK_MOST: Duration = Duration::from_secs(15);
/// How old the list of images may be.
const IMAGES_AGE: Duration = Duration::from_secs(30);

/// This host.
pub(crate) struct Host {
    pub(crate) parts: Parts,
    boot: String,
    agent: OnceLock<Arc<Agent>>,
    /// What the engine said last, or why there is none.
    engine: watch::Sender<Result<Facts, Vec<String>>>,
    /// Something changed that others want to know.
    pub(crate) changed: Notify,
}

impl Host {
    pub(crate) fn new(parts: Parts, boot: String) -> Arc<Self> {
        Arc::new(Self {
            parts,
            boot,
            agent: OnceLock::new(),
            engine: watch::Sender::new(Err(vec!["the container engine was not asked yet".to_owned()])),
            changed: Notify::new(),
        })
    }

    pub(crate) fn boot(&self) -> &str {
        &self.boot
    }

    /// The agent.
    ///
    /// # Errors
    /// [`AgentError::Unavailable`] while there is no engine.
    pub(crate) fn agent(&self) -> Result<Arc<Agent>, AgentError> {
        self.agent.get().cloned().ok_or_else(|| AgentError::Unavailable {
            backend: "container",
            missing: match &*self.engine.borrow() {
                Ok(_) => vec!["what runs here is still being looked for".to_owned()],
                Err(missing) => missing.clone(),
            },
        })
    }

    /// Looks for an engine once and takes over what an earlier agent left there.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn look(self: &Arc<Self>) -> Result<(), AgentError> {
        let config = EngineConfig {
            url: self.parts.config.engine.clone(),
            state_dir: self
                .parts
                .config
                .state_dir
                .as_ref()
                .map(|dir| dir.clone().into_std_path_buf()),
            ..EngineConfig::from_env()
        };
        let found = self.found(discover(&config).await).await;
        if let Err(error) = &found {
            let missing = match error {
                AgentError::Engine(EngineError::Unavailable { missing, .. })
                | AgentError::Unavailable { missing, .. } => missing.clone(),
                other => vec![chain(other)],
            };
            self.say_engine(Err(missing));
        }
        found
    }

    async fn found(self: &Arc<Self>, engine: Result<DockerEngine, EngineError>) -> Result<(), AgentError> {
        let engine: Arc<dyn Engine> = Arc::new(engine?);
        let facts = engine.facts().await?;
        let agent = Agent::new(self.parts.clone(), engine)?;
        agent.adopt().await?;
        tracing::info!(engine = %facts.name, version = %facts.version, host = %self.parts.host, "sandboxes run on {} {}", facts.name, facts.version);
        // Only this function sets it, and it is not called again once it did.
        let _ = self.agent.set(agent);
        self.say_engine(Ok(facts));
        Ok(())
    }

    fn say_engine(&self, now: Result<Facts, Vec<String>>) {
        self.engine.send_modify(|engine| *engine = now);
        self.changed.notify_one();
    }

    /// Looks for an engine until there is one.
    ///
    /// # Errors
    /// None: the signature is that of a task.
    pub(crate) async fn find_engine(self: Arc<Self>) -> Result<(), RunError> {
        let mut pause = LOOK_FIRST;
        while let Err(error) = self.look().await {
            tracing::debug!(cause = %chain(&error), pause_ms = pause.as_millis(), "sandboxes cannot run here yet");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_MOST);
        }
        Ok(())
    }

    /// Waits until there is an agent.
    pub(crate) async fn has_agent(&self) -> Arc<Agent> {
        let mut engine = self.engine.subscribe();
        loop {
            // It is set before its engine's facts are.
            if let Some(agent) = self.agent.get() {
                return Arc::clone(agent);
            }
            // The sender lives in `self`.
            let _ = engine.changed().await;
        }
    }

    /// The engine went or came back.
    pub(crate) async fn engine_changed(&self, gone: Option<String>) {
        let now = match (gone, self.agent.get()) {
            (Some(reason), _) => Err(vec![format!("container engine: {reason}")]),
            (None, Some(agent)) => agent.engine.facts().await.map_err(|error| vec![chain(&error)]),
            (None, None) => return,
        };
        self.say_engine(now);
    }

    fn facts(&self) -> HostFacts {
        let config = &self.parts.config;
        let mut missing = missing_for_krun();
        if self
            .agent
            .get()
            .is_some_and(|agent| agent.mounts_fail.load(Ordering::Relaxed))
        {
            missing.push(
                "warm starts with volumes: the agent may not mount into containers (CAP_SYS_ADMIN)"
                    .to_owned(),
            );
        }
        match &*self.engine.borrow() {
            Ok(facts) => HostFacts {
                engine: format!("{} {}", facts.name, facts.version),
                arch: match facts.arch.as_str() {
                    "amd64" => "x86_64".to_owned(),
                    "arm64" => "aarch64".to_owned(),
                    other => other.to_owned(),
                },
                // What is there. How often it is given out is for those who place sandboxes.
                cpu_milli: facts.cpus.saturating_mul(1000),
                memory_bytes: facts.memory_bytes.saturating_sub(config.memory_reserve),
                disk_bytes: free_disk(&facts.root),
                backends: vec!["container".to_owned()],
                missing,
            },
            Err(reasons) => {
                missing.splice(0..0, reasons.iter().cloned());
                HostFacts {
                    engine: String::new(),
                    arch: std::env::consts::ARCH.to_owned(),
                    cpu_milli: 0,
                    memory_bytes: 0,
                    disk_bytes: 0,
                    backends: vec![],
                    missing,
                }
            }
        }
    }

    /// Says that the host is there, and does what is asked of it.
    ///
    /// # Errors
    /// None: the signature is that of a task.
    pub(crate) async fn beat(self: Arc<Self>) -> Result<(), RunError> {
        let mut images: Vec<String> = Vec::new();
        let mut unknown = HashSet::new();
        // At once when the engine is there: a host without images is chosen last.
        let mut listed: Option<Instant> = None;
        loop {
            let agent = self.agent.get().cloned();
            if let Some(agent) = &agent
                && listed.is_none_or(|at| at.elapsed() >= IMAGES_AGE)
                && let Ok(present) = agent.engine.images().await
            {
                listed = Some(Instant::now());
                images = present
                    .iter()
                    .flat_map(|image| {
                        let names = image.references.iter().map(ToString::to_string);
                        names.chain(image.digests.iter().map(ToString::to_string))
                    })
                    .collect();
                images.sort_unstable();
                images.dedup();
            }
            let sandboxes = agent.as_ref().map_or_else(Vec::new, |agent| {
                agent.registry.all().iter().map(|one| one.observation()).collect()
            });
            let request = BeatRequest {
                host: self.parts.host.to_string(),
                boot: self.boot.clone(),
                facts: self.facts(),
                images: images.clone(),
                warm: agent.as_ref().map(|agent| agent.pool.warm()).unwrap_or_default(),
                sandboxes,
            };
            match self.parts.bus.call::<Beat>(&request).await {
                Ok(reply) => {
                    if let Some(agent) = &agent {
                        self.obey(agent, reply, &mut unknown).await;
                    }
                }
                Err(fault) => tracing::debug!(cause = %fault, "a sign of life was not heard"),
            }
            let pool_changes = async {
                match &agent {
                    Some(agent) => {
                        // The pool lives as long as the agent.
                        let _ = agent.pool.changes().changed().await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = tokio::time::sleep(BEAT) => {}
                () = self.changed.notified() => tokio::time::sleep(TOGETHER).await,
                () = pool_changes => tokio::time::sleep(TOGETHER).await,
            }
        }
    }

    async fn obey(self: &Arc<Self>, agent: &Arc<Agent>, orders: BeatReply, unknown: &mut HashSet<String>) {
        for id in orders.remove {
            let host = Arc::clone(self);
            agent.spawn(async move {
                if let Err(fault) = methods::remove(&host, &id).await {
                    tracing::warn!(sandbox.id = id, cause = %fault, "a sandbox that is not wanted could not be removed yet");
                }
            });
        }
        for (id, reason) in orders.stop {
            if let Some(sandbox) = agent.registry.find(&id) {
                sandbox.tell(Message::Stop { reason }).await;
            }
        }
        // A launch may be on its way here: only what is missing twice in a row is lost.
        let missing: HashSet<String> = orders
            .expected
            .into_iter()
            .filter(|id| agent.registry.find(id).is_none())
            .collect();
        for id in missing.intersection(unknown) {
            let lost = lost(id, &self.parts.clock);
            agent.reporter.tell(News::Seen(Box::new(lost)));
        }
        *unknown = missing;
    }
}

/// What is said of a sandbox that nobody here knows.
fn lost(sandbox: &str, clock: &Clock) -> Observation {
    Observation {
        sandbox: sandbox.to_owned(),
        // No observation of ours can come after it.
        sequence: u64::MAX,
        at: clock.now(),
        lifecycle: Lifecycle::Failed,
        readiness: Readiness::Failed,
        health: Health::Unhealthy,
        endpoints: vec![],
        exit: None,
        image_digest: None,
        start: None,
        started_after_us: None,
        restarts: 0,
        conditions: vec![Condition {
            kind: ConditionKind::Ready,
            status: Truth::False,
            reason: "LostDuringRestart".to_owned(),
            message: "its host does not know it any more".to_owned(),
            observed_generation: 1,
            last_transition: clock.now(),
        }],
    }
}

/// What microVMs would need. They are not run yet, with or without it; a container never stands in.
fn missing_for_krun() -> Vec<String> {
    let kvm = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok();
    let mut missing = Vec::new();
    if !kvm {
        missing.push("krun: /dev/kvm cannot be opened".to_owned());
    }
    missing.push("krun: this release does not run microVMs; ask for backend container".to_owned());
    missing
}

/// Room where the engine keeps its containers. Zero if that cannot be seen from here.
fn free_disk(root: &str) -> u64 {
    rustix::fs::statvfs(root).map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}
