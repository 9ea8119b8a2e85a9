//! Sandboxes: one task per sandbox owns what is known of it; everybody else sends it messages and
//! looks at its view.

mod actor;
mod adopt;
mod collect;
mod conditions;
mod ending;
mod life;
mod restart;
mod start;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use nimbus_engine::ContainerId;
use nimbus_guest::Guest;
use nimbus_guest::protocol::ExitStatus;
use nimbus_model::Timestamp;
use nimbus_proto::agent::LaunchRequest;
use nimbus_proto::workloads::{Health, Observation};
use tokio::sync::{mpsc, oneshot, watch};

use crate::activity::Activity;
use crate::agent::Agent;
use crate::error::AgentError;
use crate::logs::Log;
use crate::plan::Plan;
use crate::slot::Slot;
use crate::state::{self, Kept};

pub(crate) use actor::Actor;

/// Messages that wait for one sandbox at most.
const INBOX: usize = 64;

/// What a sandbox' task is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// It shall stop.
    Stop {
        /// Why, a condition's reason.
        reason: String,
    },
    /// It ends by itself at other times.
    Extend {
        expires_at: Option<Timestamp>,
        idle_timeout_ms: Option<u64>,
    },
    /// It shall be forgotten; answered when nothing is left of it.
    Remove { done: oneshot::Sender<()> },
    /// A container was made for it, or could not be.
    Made(Box<Result<(Slot, Arc<Plan>), AgentError>>),
    /// Its main process has ended, or cannot be seen any more.
    Ended { run: u32, end: End },
    /// Why its main process could not be seen any more.
    Found { run: u32, found: Found },
    /// Whether it can be used has changed.
    Probed { run: u32, passed: bool },
    /// Its health has changed.
    Health { run: u32, health: Health },
    /// The kernel ended a process of it for its memory.
    OutOfMemory,
}

/// How the view of a main process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The process ended.
    Exited {
        /// How.
        status: ExitStatus,
        /// How many processes of the sandbox the kernel had ended for their memory by then, this one included;
        /// known only where that may be the reason.
        memory_kills: Option<u64>,
    },
    /// The connection to the guest broke and none can be made.
    Lost,
}

/// What became of a container whose guest is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It answers again.
    Alive,
    /// It ended.
    Dead {
        out_of_memory: bool,
        engine_restarted: bool,
    },
}

/// What others see of a sandbox.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// The newest observation.
    pub(crate) observation: Observation,
    /// Whether a launch can be answered: the outcome is known, or it will take longer.
    pub(crate) answered: bool,
    /// Where its guest is, while its main process runs.
    pub(crate) running: Option<Running>,
    /// Its container's slot, if it has one.
    pub(crate) slot: Option<String>,
}

/// A guest that can be used.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) guest: Guest,
    pub(crate) container: ContainerId,
}

/// One sandbox, as everybody but its own task sees it.
pub(crate) struct Sandbox {
    pub(crate) id: String,
    pub(crate) view: watch::Receiver<View>,
    pub(crate) activity: Arc<Activity>,
    pub(crate) log: Log,
    inbox: mpsc::Sender<Message>,
}

impl Sandbox {
    /// Tells its task something; one that has ended needs to hear nothing.
    pub(crate) async fn tell(&self, message: Message) {
        let _ = self.inbox.send(message).await;
    }

    /// The newest observation.
    pub(crate) fn observation(&self) -> Observation {
        self.view.borrow().observation.clone()
    }

    /// Waits for a view.
    pub(crate) async fn until(&self, good: impl FnMut(&View) -> bool) -> Observation {
        let mut view = self.view.clone();
        let seen = view.wait_for(good).await.map(|view| view.observation.clone());
        // Its task has ended: what was seen last is what there is.
        seen.unwrap_or_else(|_| self.observation())
    }

    /// Its guest, if its main process runs.
    ///
    /// # Errors
    /// [`AgentError::NotRunning`].
    pub(crate) fn running(&self) -> Result<Running, AgentError> {
        let view = self.view.borrow();
        view.running.clone().ok_or_else(|| AgentError::NotRunning {
            sandbox: self.id.clone(),
            lifecycle: view.observation.lifecycle,
        })
    }
}

/// The sandboxes of this host.
#[derive(Default)]
pub(crate) struct Registry {
    sandboxes: Mutex<HashMap<String, Arc<Sandbox>>>,
}

impl Registry {
    /// The sandbox.
    ///
    /// # Errors
    /// [`AgentError::Unknown`].
    pub(crate) fn get(&self, sandbox: &str) -> Result<Arc<Sandbox>, AgentError> {
        self.find(sandbox).ok_or_else(|| AgentError::Unknown {
            sandbox: sandbox.to_owned(),
        })
    }

    pub(crate) fn find(&self, sandbox: &str) -> Option<Arc<Sandbox>> {
        self.lock().get(sandbox).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Sandbox>> {
        self.lock().values().cloned().collect()
    }

    pub(crate) fn remove(&self, sandbox: &str) {
        self.lock().remove(sandbox);
    }

    /// The sandbox, and begins it if there is none.
    ///
    /// # Errors
    /// When its log cannot be opened, or its id is no id.
    pub(crate) fn launch(
        &self,
        agent: &Arc<Agent>,
        request: LaunchRequest,
    ) -> Result<Arc<Sandbox>, AgentError> {
        if !state::is_safe(&request.sandbox) {
            return Err(AgentError::Invalid("this is no sandbox' id".to_owned()));
        }
        let mut sandboxes = self.lock();
        if let Some(known) = sandboxes.get(&request.sandbox) {
            return Ok(Arc::clone(known));
        }
        let kept = Kept::new(request);
        let (sandbox, actor) = Actor::new(agent, &kept.0, kept.1)?;
        sandboxes.insert(sandbox.id.clone(), Arc::clone(&sandbox));
        drop(sandboxes);
        agent.spawn(actor.launch());
        Ok(sandbox)
    }

    /// Goes on with a sandbox of an agent before this one.
    ///
    /// # Errors
    /// When its log cannot be opened.
    pub(crate) fn adopt(&self, agent: &Arc<Agent>, id: &str, kept: Kept) -> Result<Arc<Sandbox>, AgentError> {
        let (sandbox, actor) = Actor::new(agent, id, kept)?;
        self.lock().insert(id.to_owned(), Arc::clone(&sandbox));
        agent.spawn(actor.adopt());
        Ok(sandbox)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Sandbox>>> {
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
