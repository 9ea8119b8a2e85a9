//! Slots: started containers whose init waits to be told who it is.
//!
//! ```text
//! make: boot socket ▶ create ▶ start ▶ the init connects and is given its listener ▶ control connection
//! ```
//! A slot is used once. Whatever fails on the way takes the container and its sockets with it.

use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use nimbus_engine::{
    Bind, ContainerId, ContainerSpec, Engine, EngineError, Labels, Limits, Remove, Tmpfs, VolumeMount,
};
use nimbus_errors::chain;
use nimbus_guest::boot::{self, INIT_IN_SANDBOX, Peer, SLOT_IN_SANDBOX};
use nimbus_guest::{Control, Guest};
use nimbus_model::{Digest, Hostname};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, oneshot};

use crate::error::AgentError;

/// Carries the installation's id: what has ours is ours, and nothing else is touched.
pub(crate) const INSTALLATION_LABEL: &str = "io.nimbus.installation";
/// Carries the host's name.
pub(crate) const HOST_LABEL: &str = "io.nimbus.sandbox.host";
/// Carries the slot's id.
pub(crate) const SLOT_LABEL: &str = "io.nimbus.sandbox.slot";
/// Marks volumes, with the tenant's id.
pub(crate) const TENANT_LABEL: &str = "io.nimbus.sandbox.tenant";

/// From the container's creation to an init that answers.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How often it is looked whether a container that does not come up has ended.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Containers that are made at a time; more only slow each other down.
const AT_ONCE: usize = 4;
/// `/dev/shm` of a desktop: browsers keep their frames there.
const DESKTOP_SHM: u64 = 512 << 20;

/// What has to be decided when a container is made; containers of one class are interchangeable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Class {
    /// The image's id on the engine.
    pub(crate) image: Digest,
    /// The user, if it is not the image's.
    pub(crate) user: Option<String>,
    /// Limits.
    pub(crate) limits: Limits,
    /// Whether there is room for a browser.
    pub(crate) desktop: bool,
    /// Whether the root file system is read-only.
    pub(crate) read_only_root: bool,
}

impl Class {
    /// Whether a container of `other` becomes one of this class by changing its limits.
    pub(crate) fn is_near(&self, other: &Self) -> bool {
        let same_disk = self.limits.disk_bytes == other.limits.disk_bytes;
        let mut like = other.clone();
        like.limits = self.limits;
        same_disk && like == *self
    }
}

/// What only a container that is made for one sandbox can have.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extras {
    pub(crate) volumes: Vec<VolumeMount>,
    pub(crate) tmpfs: Vec<Tmpfs>,
}

/// A container whose init waits.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) place: Place,
    /// Open since the start, so that a claim needs no connection.
    pub(crate) control: Control<UnixStream>,
}

/// Where a sandbox is on this host.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The slot's id: name of its directory.
    pub(crate) slot: String,
    pub(crate) container: ContainerId,
    pub(crate) guest: Guest,
    /// The init's process id on the host, if it can be seen from here.
    pub(crate) pid: Option<u32>,
}

/// Makes and removes slots.
#[derive(Clone)]
pub(crate) struct Slots {
    engine: Arc<dyn Engine>,
    host: Hostname,
    installation: String,
    dir: Utf8PathBuf,
    init: Utf8PathBuf,
    permits: Arc<Semaphore>,
}

impl Slots {
    /// Slots below `dir`, which is closed to everybody else: who connects to a socket in it rules a
    /// sandbox.
    pub(crate) fn new(
        engine: Arc<dyn Engine>,
        host: Hostname,
        installation: String,
        dir: Utf8PathBuf,
        init: Utf8PathBuf,
    ) -> Self {
        Self {
            engine,
            host,
            installation,
            dir,
            init,
            permits: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// The labels of everything that this agent makes.
    pub(crate) fn labels(&self) -> Labels {
        Labels::from([
            (INSTALLATION_LABEL.to_owned(), self.installation.clone()),
            (HOST_LABEL.to_owned(), self.host.to_string()),
        ])
    }

    /// The installation's id.
    pub(crate) fn installation(&self) -> &str {
        &self.installation
    }

    /// The directory of a slot.
    pub(crate) fn path(&self, slot: &str) -> Utf8PathBuf {
        self.dir.join(slot)
    }

    /// The guest of a slot that was made earlier.
    pub(crate) fn guest(&self, slot: &str) -> Guest {
        Guest::at(boot::guest_path(self.path(slot).as_std_path()))
    }

    pub(crate) fn dir(&self) -> &Utf8Path {
        &self.dir
    }

    /// Makes a container of `class` and waits until its init answers.
    ///
    /// Goes on when its caller stops waiting, and then removes what came up: a container that is being
    /// made cannot be taken back, only removed once it is there.
    ///
    /// # Errors
    /// The engine's, the guest's; [`AgentError::SlowStart`]. Nothing is left then.
    pub(crate) async fn make(&self, class: &Class, extras: Extras) -> Result<Slot, AgentError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let (send, receive) = oneshot::channel();
        let (slots, class) = (self.clone(), class.clone());
        tokio::spawn(async move {
            let made = slots.make_here(&class, extras).await;
            drop(permit);
            if let Err(Ok(Slot { place, .. })) = send.send(made) {
                slots.discard(&place.slot, Some(&place.container)).await;
            }
        });
        receive.await.unwrap_or(Err(AgentError::SlowStart {
            limit_s: START_LIMIT.as_secs(),
        }))
    }

    async fn make_here(&self, class: &Class, extras: Extras) -> Result<Slot, AgentError> {
        let id: String = uuid::Uuid::new_v4()
            .simple()
            .to_string()
            .chars()
            .take(16)
            .collect();
        let mut container = None;
        let made = self.bring_up(&id, class, extras, &mut container).await;
        if made.is_err() {
            self.discard(&id, container.as_ref()).await;
        }
        made
    }

    async fn bring_up(
        &self,
        id: &str,
        class: &Class,
        extras: Extras,
        made: &mut Option<ContainerId>,
    ) -> Result<Slot, AgentError> {
        let path = self.path(id);
        let slot =
            boot::Slot::create(path.as_std_path()).map_err(AgentError::io("make a sandbox' socket"))?;
        let mut spec = ContainerSpec::new(
            format!("nimbus-{}-{id}", self.installation),
            class.image.clone(),
            vec![INIT_IN_SANDBOX.to_owned()],
            class.limits,
        );
        spec.labels = self.labels();
        spec.labels.insert(SLOT_LABEL.to_owned(), id.to_owned());
        spec.workdir = Some("/".to_owned());
        spec.user = class.user.clone();
        spec.hostname = Some("sandbox".to_owned());
        spec.binds = vec![
            Bind {
                source: self.init.to_string(),
                target: INIT_IN_SANDBOX.to_owned(),
            },
            Bind {
                source: path.to_string(),
                target: SLOT_IN_SANDBOX.to_owned(),
            },
        ];
        spec.volumes = extras.volumes;
        spec.tmpfs = extras.tmpfs;
        spec.read_only_root = class.read_only_root;
        spec.shm_bytes = class.desktop.then_some(DESKTOP_SHM);

        let container = self.engine.create(&spec).await?;
        *made = Some(container.clone());
        let started = async {
            self.engine.start(&container).await?;
            tokio::select! {
                // The directory is closed, so that whoever connects first is the init.
                met = slot.meet(|_| true) => met.map_err(AgentError::io("meet the sandbox' init")),
                ended = self.ended(&container) => Err(ended),
            }
        };
        let (guest, peer): (Guest, Peer) =
            tokio::time::timeout(START_LIMIT, started)
                .await
                .map_err(|_| AgentError::SlowStart {
                    limit_s: START_LIMIT.as_secs(),
                })??;
        let control = guest.control().await?;
        let place = Place {
            slot: id.to_owned(),
            container,
            guest,
            pid: u32::try_from(peer.pid).ok().filter(|pid| *pid != 0),
        };
        Ok(Slot { place, control })
    }

    /// Ends when the container has ended, with the reason.
    async fn ended(&self, container: &ContainerId) -> AgentError {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            match self.engine.inspect(container).await {
                Ok(state) if !state.running => {
                    let message = state.error.unwrap_or_else(|| {
                        format!("its init ended with code {}", state.exit_code.unwrap_or_default())
                    });
                    return AgentError::Engine(EngineError::Launch { message });
                }
                Err(error) if error.is_not_found() => return AgentError::Engine(error),
                _ => {}
            }
        }
    }

    /// Removes a container and its sockets. What fails is logged: the sweep finds it again.
    pub(crate) async fn discard(&self, slot: &str, container: Option<&ContainerId>) {
        if let Some(container) = container
            && let Err(error) = self.engine.remove(container, Remove::ALL).await
        {
            tracing::warn!(container.id = %container, cause = %chain(&error), "a container could not be removed yet");
        }
        if let Err(error) = boot::remove(self.path(slot).as_std_path()) {
            tracing::warn!(slot, cause = %error, "a slot's sockets could not be removed yet");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_limits_that_can_be_changed_make_a_class_near() {
        let class = Class {
            image: format!("sha256:{}", "0".repeat(64)).parse().unwrap(),
            user: None,
            limits: Limits {
                millicpus: 1000,
                memory_bytes: 1 << 29,
                pids: 512,
                disk_bytes: None,
            },
            desktop: false,
            read_only_root: false,
        };
        let mut smaller = class.clone();
        smaller.limits.memory_bytes = 1 << 28;
        assert!(class.is_near(&smaller));
        let mut other_disk = class.clone();
        other_disk.limits.disk_bytes = Some(1 << 30);
        let mut other_user = smaller.clone();
        other_user.user = Some("1000".into());
        assert!(!class.is_near(&other_disk) && !class.is_near(&other_user));
    }
}
