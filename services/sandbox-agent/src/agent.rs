//! What everything on this host shares, once there is an engine.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use camino::Utf8Path;
use ipnet::IpNet;
use nimbus_bus::Bus;
use nimbus_engine::{Engine, Remove};
use nimbus_errors::chain;
use nimbus_guest::boot;
use nimbus_model::{Clock, Hostname, ImageRef};
use nimbus_proto::agent::{LaunchRequest, PrepareRequest};
use nimbus_proto::workloads::EgressRule;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::SandboxAgentConfig;
use crate::egress::{Audit, Proxy, Resolve, SystemResolver};
use crate::error::AgentError;
use crate::images::Images;
use crate::plan;
use crate::pool::Pool;
use crate::ports::Ports;
use crate::report::{News, Reporter};
use crate::sandbox::{Registry, Sandbox};
use crate::slot::{SLOT_LABEL, Slots};
use crate::state::{Keep, make_private};
use crate::streams::Sessions;

/// How long the sandboxes of an earlier agent may take to be found before the host says what it has.
const ADOPT_LIMIT: Duration = Duration::from_secs(15);

/// The agent of a host with an engine.
pub(crate) struct Agent {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) images: Images,
    pub(crate) slots: Slots,
    pub(crate) pool: Pool,
    pub(crate) ports: Ports,
    pub(crate) keep: Keep,
    pub(crate) registry: Registry,
    pub(crate) reporter: Reporter,
    pub(crate) sessions: Sessions,
    pub(crate) clock: Clock,
    pub(crate) bus: Bus,
    /// Nothing can be mounted into containers that run: this host does not let us.
    pub(crate) mounts_fail: AtomicBool,
    /// Counts how often the engine went away.
    pub(crate) engine_losses: watch::Sender<u64>,
    resolver: Arc<dyn Resolve>,
    internal: Vec<IpNet>,
    stop: CancellationToken,
}

/// What an agent is made of besides its engine.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) config: SandboxAgentConfig,
    pub(crate) host: Hostname,
    pub(crate) keep: Keep,
    pub(crate) reporter: Reporter,
    pub(crate) clock: Clock,
    pub(crate) bus: Bus,
    /// Fires when the agent ends, also when its future is dropped.
    pub(crate) stop: CancellationToken,
}

impl Agent {
    /// # Errors
    /// When the state directory cannot be used.
    pub(crate) fn new(parts: Parts, engine: Arc<dyn Engine>) -> Result<Arc<Self>, AgentError> {
        let Parts {
            config,
            host,
            keep,
            reporter,
            clock,
            bus,
            stop,
        } = parts;
        let state_dir = config
            .state_dir()
            .map_err(|error| AgentError::Invalid(error.to_string()))?;
        let slots_dir = state_dir.join("slots");
        make_private(&slots_dir).map_err(AgentError::io("make the directory of the slots"))?;
        let init = place_init(&config, state_dir)?;
        let slots = Slots::new(
            Arc::clone(&engine),
            host,
            installation(state_dir)?,
            slots_dir,
            init,
        );
        Ok(Arc::new(Self {
            images: Images::new(Arc::clone(&engine), config.image_mirror, config.registry_auth),
            pool: Pool::new(slots.clone(), config.warm, config.warm_memory),
            slots,
            engine,
            ports: Ports::new(config.ports),
            keep,
            registry: Registry::default(),
            reporter,
            sessions: Sessions::default(),
            clock,
            bus,
            mounts_fail: AtomicBool::new(false),
            engine_losses: watch::Sender::new(0),
            resolver: Arc::new(SystemResolver),
            internal: config.egress_internal,
            stop,
        }))
    }

    /// Starts work that ends with the agent.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// The way out of one sandbox.
    pub(crate) fn proxy(&self, sandbox: &str, rules: Vec<EgressRule>) -> Proxy {
        let reporter = self.reporter.clone();
        let audit: Audit = Arc::new(move |denial| reporter.tell(News::Denied(denial)));
        Proxy::new(
            sandbox.to_owned(),
            rules,
            self.internal.clone(),
            Arc::clone(&self.resolver),
            audit,
            self.clock.clone(),
        )
    }

    /// Goes on with what an earlier agent of this host left, and removes what nobody knows.
    ///
    /// # Errors
    /// When the engine does not say what there is.
    pub(crate) async fn adopt(self: &Arc<Self>) -> Result<(), AgentError> {
        let containers = self.engine.list(&self.slots.labels()).await?;
        let mut adopted: Vec<Arc<Sandbox>> = Vec::new();
        let mut known_slots = Vec::new();
        for (id, kept) in self.keep.all()? {
            let Some(kept) = kept else {
                // Nobody can say what it was; `workloads` learns that it is unknown here.
                if let Err(error) = self.keep.remove(&id) {
                    tracing::warn!(sandbox.id = id, cause = %chain(&error), "what was kept of a sandbox is still there");
                }
                continue;
            };
            known_slots.extend(kept.place.as_ref().map(|place| place.slot.clone()));
            match self.registry.adopt(self, &id, kept) {
                Ok(sandbox) => adopted.push(sandbox),
                Err(error) => {
                    tracing::error!(sandbox.id = id, cause = %chain(&error), "a sandbox could not be taken over");
                }
            }
        }
        for container in containers {
            let slot = container.labels.get(SLOT_LABEL).cloned().unwrap_or_default();
            if !known_slots.contains(&slot) {
                tracing::info!(container.id = %container.id, "removing a container that an earlier agent left");
                let (agent, id) = (Arc::clone(self), container.id);
                self.spawn(async move {
                    if let Err(error) = agent.engine.remove(&id, Remove::ALL).await {
                        tracing::warn!(container.id = %id, cause = %chain(&error), "a container could not be removed yet");
                    }
                });
            }
        }
        self.remove_sockets(&known_slots);
        let all_seen = async {
            for sandbox in &adopted {
                sandbox.until(|view| view.answered).await;
            }
        };
        if tokio::time::timeout(ADOPT_LIMIT, all_seen).await.is_err() {
            tracing::warn!("some sandboxes of the agent before this one take long to be found");
        }
        if !adopted.is_empty() {
            tracing::info!(count = adopted.len(), "took over {} sandboxes", adopted.len());
        }
        Ok(())
    }

    /// Removes the sockets of slots that are none of `known`.
    pub(crate) fn remove_sockets(&self, known: &[String]) {
        let Ok(entries) = self.slots.dir().read_dir_utf8() else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let slot = name.strip_suffix(".guest.sock").unwrap_or(name);
            if !known.iter().any(|known| known == slot)
                && let Err(error) = boot::remove(self.slots.path(slot).as_std_path())
            {
                tracing::warn!(slot, cause = %error, "a slot's sockets could not be removed yet");
            }
        }
    }

    /// Launches a sandbox, or joins its launch, and gives what is known as soon as it can be told.
    ///
    /// # Errors
    /// When it was not begun at all.
    pub(crate) async fn launch(self: &Arc<Self>, request: LaunchRequest) -> Result<Arc<Sandbox>, AgentError> {
        let sandbox = self.registry.launch(self, request)?;
        sandbox.until(|view| view.answered).await;
        Ok(sandbox)
    }

    /// Pulls an image and keeps warm containers of it: of the classes that were used, else of the
    /// default one. Gives the image's digest.
    ///
    /// # Errors
    /// What the engine or the registry says.
    pub(crate) async fn prepare(&self, request: &PrepareRequest) -> Result<String, AgentError> {
        let image: ImageRef = request
            .image
            .parse()
            .map_err(|error| AgentError::Invalid(format!("{error}")))?;
        let found = self.images.ensure(&image).await?;
        if request.warm > 0 {
            let mut classes = self.pool.classes(&found.id);
            if classes.is_empty() {
                classes.push(plan::default_class(&found));
            }
            for class in &classes {
                self.pool.want(class, &request.image, request.warm);
            }
            for class in &classes {
                self.pool.filled(class, request.warm).await;
            }
        }
        Ok(found.digest.to_string())
    }

    /// Whether a slot waits or is some sandbox'.
    pub(crate) fn is_known_slot(&self, slot: &str) -> bool {
        self.pool.slot_ids().iter().any(|known| known == slot)
            || self
                .registry
                .all()
                .iter()
                .any(|sandbox| sandbox.view.borrow().slot.as_deref() == Some(slot))
    }
}

/// The id of this installation: several can share an engine, also under one host name.
fn installation(state_dir: &Utf8Path) -> Result<String, AgentError> {
    let file = state_dir.join("installation");
    match std::fs::read_to_string(&file) {
        Ok(id) if !id.trim().is_empty() => Ok(id.trim().to_owned()),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(AgentError::io("read the installation's id")(error))
        }
        _ => {
            let id: String = uuid::Uuid::new_v4()
                .simple()
                .to_string()
                .chars()
                .take(12)
                .collect();
            std::fs::write(&file, &id).map_err(AgentError::io("keep the installation's id"))?;
            Ok(id)
        }
    }
}

/// Puts the init where containers can be given it; its name changes with its content, as containers of
/// an earlier version still run theirs.
fn place_init(config: &SandboxAgentConfig, state_dir: &Utf8Path) -> Result<camino::Utf8PathBuf, AgentError> {
    use sha2::{Digest, Sha256};
    use std::os::unix::fs::PermissionsExt;

    let what = "put the sandboxes' init in place";
    let init = match &config.guest_init {
        Some(file) => {
            std::fs::read(file).map_err(AgentError::io("read the file that NIMBUS_GUEST_INIT names"))?
        }
        None => nimbus_guest::init_binary().ok_or_else(|| AgentError::Unavailable {
            backend: "container",
            missing: vec!["guest_init: this program was built without it; set NIMBUS_GUEST_INIT".to_owned()],
        })?,
    };
    let hash = data_encoding::HEXLOWER.encode(&Sha256::digest(&init));
    let path = state_dir.join(format!("init-{}", hash.get(..16).unwrap_or(&hash)));
    if path.exists() {
        return Ok(path);
    }
    let fresh = path.with_extension(format!("{}", std::process::id()));
    let write = || {
        std::fs::write(&fresh, &init)?;
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o755))?;
        std::fs::rename(&fresh, &path)
    };
    write().map_err(AgentError::io(what))?;
    Ok(path)
}
