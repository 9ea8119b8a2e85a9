//! The task of one sandbox. It alone changes the sandbox' state; timers, probes, the log and callers
//! send it messages.

use std::sync::Arc;
use std::time::Duration;

use nimbus_errors::chain;
use nimbus_guest::Guest;
use nimbus_guest::protocol::ExitStatus;
use nimbus_proto::agent::LaunchRequest;
use nimbus_proto::workloads::{ConditionKind, Exit, Health, Lifecycle, Observation, Readiness, Truth};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::conditions::Conditions;
use super::life::{self, Event};
use super::{INBOX, Message, Running, Sandbox, View};
use crate::activity::Activity;
use crate::agent::Agent;
use crate::error::AgentError;
use crate::logs::Log;
use crate::plan::{Plan, SIGKILL};
use crate::ports::Published;
use crate::report::News;
use crate::slot::Place;
use crate::state::Kept;

/// The wall clock may jump; what depends on it is looked at this often.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// What an order to the guest may take.
pub(super) const GUEST_LIMIT: Duration = Duration::from_secs(5);
/// Log kept where the request is gone.
const LOG_BYTES: u64 = 64 << 20;

/// Ends a task when it is dropped.
pub(super) struct Owned(JoinHandle<()>);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A sandbox' task.
pub(crate) struct Actor {
    pub(super) agent: Arc<Agent>,
    pub(super) id: String,
    pub(super) kept: Kept,
    pub(super) inbox: mpsc::Receiver<Message>,
    pub(super) own: mpsc::Sender<Message>,
    pub(super) view: watch::Sender<View>,
    pub(super) activity: Arc<Activity>,
    pub(super) log: Log,
    pub(super) arrived: Instant,
    sequence: u32,
    pub(super) life: Lifecycle,
    pub(super) health: Health,
    pub(super) conditions: Conditions,
    pub(super) exit: Option<Exit>,
    pub(super) plan: Option<Arc<Plan>>,
    pub(super) place: Option<Place>,
    /// Whether the main process runs.
    pub(super) main_runs: bool,
    pub(super) published: Vec<Published>,
    pub(super) target: watch::Sender<Option<Guest>>,
    /// What lives as long as one run of the main process.
    pub(super) run_tasks: Vec<Owned>,
    /// What lives as long as the container.
    pub(super) place_tasks: Vec<Owned>,
    pub(super) making: Option<Owned>,
    saving: Option<JoinHandle<()>>,
    pub(super) removal: Option<JoinHandle<()>>,
    /// When the main process is run again.
    pub(super) again_at: Option<Instant>,
    /// When a stop becomes harder.
    pub(super) harder_at: Option<Instant>,
    pub(super) killed: bool,
    pub(super) ready_since: Option<Instant>,
    /// Restarts since the last long time of being ready.
    pub(super) streak: u32,
    pub(super) oom_seen: bool,
    /// Processes of the container that the kernel had ended for their memory when the last run ended.
    pub(super) memory_kills: u64,
    pub(super) pending_end: Option<(ExitStatus, Instant)>,
    pub(super) engine_losses: u64,
    pub(super) forgotten: bool,
}

impl Actor {
    /// A sandbox that has not begun, and its task.
    pub(super) fn new(
        agent: &Arc<Agent>,
        id: &str,
        mut kept: Kept,
    ) -> Result<(Arc<Sandbox>, Self), AgentError> {
        kept.epoch = kept.epoch.saturating_add(1);
        let limit = kept
            .request
            .as_ref()
            .map_or(LOG_BYTES, |request| request.resources.log_bytes);
        let log = Log::open(agent.keep.log_dir(id), limit).map_err(AgentError::io("open a sandbox' log"))?;
        let activity = Arc::new(Activity::new(agent.clock.clone()));
        let (own, inbox) = mpsc::channel(INBOX);
        let observation = kept.ended.clone().unwrap_or_else(|| Observation {
            sandbox: id.to_owned(),
            sequence: u64::from(kept.epoch) << 32,
            at: agent.clock.now(),
            lifecycle: Lifecycle::Starting,
            readiness: Readiness::NotReady,
            health: Health::Unknown,
            endpoints: vec![],
            exit: None,
            image_digest: None,
            start: kept.start,
            started_after_us: kept.started_after_us,
            restarts: kept.restarts,
            conditions: vec![],
        });
        let actor = Self {
            agent: Arc::clone(agent),
            id: id.to_owned(),
            inbox,
            own: own.clone(),
            activity: Arc::clone(&activity),
            log: log.clone(),
            arrived: Instant::now(),
            sequence: 0,
            life: observation.lifecycle,
            health: observation.health,
            conditions: Conditions::of(observation.conditions.clone()),
            exit: observation.exit,
            plan: None,
            place: None,
            main_runs: false,
            published: Vec::new(),
            target: watch::Sender::new(None),
            run_tasks: Vec::new(),
            place_tasks: Vec::new(),
            making: None,
            saving: None,
            removal: None,
            again_at: None,
            harder_at: None,
            killed: false,
            ready_since: None,
            streak: 0,
            oom_seen: false,
            memory_kills: 0,
            pending_end: None,
            engine_losses: *agent.engine_losses.borrow(),
            forgotten: false,
            view: watch::Sender::new(View {
                observation,
                answered: false,
                running: None,
                slot: kept.place.as_ref().map(|place| place.slot.clone()),
            }),
            kept,
        };
        let sandbox = Sandbox {
            id: id.to_owned(),
            view: actor.view.subscribe(),
            activity,
            log,
            inbox: own,
        };
        Ok((Arc::new(sandbox), actor))
    }

    /// Launches, then lives.
    pub(super) async fn launch(mut self) {
        self.begin().await;
        self.live().await;
    }

    /// Goes on where an agent before this one ended, then lives.
    pub(super) async fn adopt(mut self) {
        self.take_over().await;
        self.live().await;
    }

    async fn live(mut self) {
        while !self.forgotten {
            let due = self.next_due();
            tokio::select! {
                message = self.inbox.recv() => match message {
                    Some(message) => self.on_message(message).await,
                    None => return,
                },
                () = tokio::time::sleep_until(due) => self.on_time().await,
            }
        }
    }

    pub(super) fn request(&self) -> Option<&LaunchRequest> {
        self.kept.request.as_ref()
    }

    async fn on_message(&mut self, message: Message) {
        match message {
            Message::Stop { reason } => self.stop(reason).await,
            Message::Extend {
                expires_at,
                idle_timeout_ms,
            } => {
                if let Some(request) = &mut self.kept.request {
                    request.expires_at = expires_at;
                    request.idle_timeout_ms = idle_timeout_ms;
                    self.save().await;
                }
            }
            Message::Remove { done } => self.remove(done).await,
            Message::Made(made) => self.made(*made).await,
            Message::Ended { run, end } if run == self.kept.run => self.on_end(end).await,
            Message::Found { run, found } if run == self.kept.run => self.on_found(found).await,
            Message::Probed { run, passed } if run == self.kept.run && self.main_runs => {
                self.on_probe(passed);
            }
            Message::Health { run, health } if run == self.kept.run && self.main_runs => {
                self.on_health(health).await;
            }
            Message::OutOfMemory => {
                self.oom_seen = true;
                if let Some((status, _)) = self.pending_end.take() {
                    self.main_ended(status.shell_code(), true).await;
                }
            }
            // News of a run that is over.
            Message::Ended { .. }
            | Message::Found { .. }
            | Message::Probed { .. }
            | Message::Health { .. } => {}
        }
    }

    fn next_due(&self) -> Instant {
        let now = Instant::now();
        let wall = self.agent.clock.now();
        let mut due = now + LOOK_AGAIN;
        if let Some(request) = self.request().filter(|_| !self.life.is_final()) {
            if let Some(at) = request.expires_at {
                due = due.min(now + at.since(wall));
            }
            if let Some(idle_ms) = request.idle_timeout_ms {
                let at = self.activity.last().after(Duration::from_millis(idle_ms));
                due = due.min(now + at.since(wall));
            }
        }
        [self.again_at, self.harder_at, self.pending_end.map(|(_, at)| at)]
            .into_iter()
            .flatten()
            .fold(due, Instant::min)
    }

    async fn on_time(&mut self) {
        let (now, wall) = (Instant::now(), self.agent.clock.now());
        if let Some((status, at)) = self.pending_end
            && at <= now
        {
            self.pending_end = None;
            self.main_ended(status.shell_code(), self.oom_seen).await;
        }
        if self.again_at.is_some_and(|at| at <= now) {
            self.again_at = None;
            self.run_again().await;
        }
        if self.harder_at.is_some_and(|at| at <= now) {
            self.stop_harder().await;
        }
        if matches!(
            self.life,
            Lifecycle::Starting | Lifecycle::Ready | Lifecycle::NotReady
        ) && let Some(request) = self.request()
        {
            let expired = request.expires_at.is_some_and(|at| at <= wall);
            let idle = request.idle_timeout_ms.is_some_and(|ms| {
                // Nobody can use what does not run yet.
                self.life != Lifecycle::Starting
                    && wall.since(self.activity.last()) >= Duration::from_millis(ms)
            });
            if expired {
                self.stop("TtlExpired".to_owned()).await;
            } else if idle {
                self.stop("IdleTimeout".to_owned()).await;
            }
        }
    }

    fn on_probe(&mut self, passed: bool) {
        if passed {
            self.passes();
            return;
        }
        if self.step(Event::ProbeFailed) {
            if self.life == Lifecycle::NotReady {
                self.ready_since = None;
            }
            let text = "nothing answers on the port that is looked at";
            self.say(ConditionKind::Ready, Truth::False, "ProbeFailing", text);
            self.publish();
        }
    }

    /// It can be used.
    pub(super) fn passes(&mut self) {
        if self.step(Event::ProbePassed) && self.life == Lifecycle::Ready {
            self.ready_since.get_or_insert_with(Instant::now);
            self.say(
                ConditionKind::Ready,
                Truth::True,
                "BackendState",
                "it runs and can be used",
            );
            self.settle(ConditionKind::Progressing, Truth::False, "nothing is under way");
            self.publish();
        }
    }

    async fn on_health(&mut self, health: Health) {
        self.health = health;
        let (truth, text) = match health {
            Health::Healthy => (Truth::True, "the last check passed"),
            _ => (Truth::False, "too many checks in a row failed"),
        };
        self.say(ConditionKind::Healthy, truth, "HealthCheck", text);
        self.publish();
        let restart = health == Health::Unhealthy
            && self
                .plan
                .as_ref()
                .and_then(|plan| plan.health.as_ref())
                .is_some_and(|check| check.restart_on_unhealthy);
        if restart && self.life != Lifecycle::Stopping {
            // As if it had failed by itself; its end does the rest.
            self.signal(SIGKILL);
        }
    }

    /// Moves on; says whether that is possible.
    pub(super) fn step(&mut self, event: Event) -> bool {
        match life::on(self.life, event) {
            Ok(next) => {
                self.life = next;
                true
            }
            Err(error) => {
                tracing::debug!(sandbox.id = %self.id, cause = %error, "news that came too late");
                false
            }
        }
    }

    pub(super) fn say(&mut self, kind: ConditionKind, status: Truth, reason: &str, text: impl Into<String>) {
        let now = self.agent.clock.now();
        self.conditions.set(kind, status, reason, text, now);
    }

    /// Says that something does not hold any more, if it was said.
    pub(super) fn settle(&mut self, kind: ConditionKind, status: Truth, text: &str) {
        let now = self.agent.clock.now();
        self.conditions.settle(kind, status, text, now);
    }

    pub(super) fn observe(&mut self) -> Observation {
        self.sequence = self.sequence.saturating_add(1);
        let has_check = self.plan.as_ref().is_some_and(|plan| plan.health.is_some());
        let (readiness, health) = match self.life {
            Lifecycle::Ready if has_check => (Readiness::Ready, self.health),
            Lifecycle::Ready => (Readiness::Ready, Health::Healthy),
            Lifecycle::NotReady => (Readiness::NotReady, self.health),
            Lifecycle::Stopped => (Readiness::Stopped, Health::Unknown),
            Lifecycle::Failed => (Readiness::Failed, Health::Unhealthy),
            Lifecycle::Starting | Lifecycle::Stopping | Lifecycle::Declared => {
                (Readiness::NotReady, Health::Unknown)
            }
        };
        Observation {
            sandbox: self.id.clone(),
            sequence: (u64::from(self.kept.epoch) << 32) | u64::from(self.sequence),
            at: self.agent.clock.now(),
            lifecycle: self.life,
            readiness,
            health,
            endpoints: if self.life == Lifecycle::Ready {
                self.kept.endpoints.clone()
            } else {
                vec![]
            },
            exit: self.exit,
            image_digest: self
                .plan
                .as_ref()
                .map(|plan| plan.image_digest.clone())
                .or_else(|| self.view.borrow().observation.image_digest.clone()),
            start: self.kept.start,
            started_after_us: self.kept.started_after_us,
            restarts: self.kept.restarts,
            conditions: self.conditions.to_vec(),
        }
    }

    /// Shows the present state to everybody.
    pub(super) fn publish(&mut self) {
        let observation = self.observe();
        let running = self
            .place
            .as_ref()
            .filter(|_| self.main_runs)
            .map(|place| Running {
                guest: place.guest.clone(),
                container: place.container.clone(),
            });
        let first = !self.view.borrow().answered;
        // The answer to the launch carries the first one, and the next beat if that is lost.
        if !first || self.kept.epoch > 1 {
            let seen = Box::new(observation.clone());
            self.agent.reporter.tell(News::Seen(seen));
        }
        self.view.send_replace(View {
            observation,
            answered: true,
            running,
            slot: self.place.as_ref().map(|place| place.slot.clone()),
        });
    }

    /// Writes down what is known, in the background; writes of one sandbox keep their order.
    pub(super) async fn save(&mut self) {
        self.saved().await;
        let (keep, id, kept) = (self.agent.keep.clone(), self.id.clone(), self.kept.clone());
        self.saving = Some(tokio::task::spawn_blocking(move || {
            if let Err(error) = keep.save(&id, &kept) {
                tracing::error!(sandbox.id = id, cause = %chain(&error), "what is known of a sandbox could not be kept");
            }
        }));
    }

    /// Waits until everything is written down.
    pub(super) async fn saved(&mut self) {
        if let Some(saving) = self.saving.take() {
            let _ = saving.await;
        }
    }

    /// When it was asked to stop before this agent began.
    pub(super) async fn stop_as_before(&mut self) {
        if let Some(reason) = self.kept.stopping.take() {
            self.stop(reason).await;
        }
    }
}

/// A task that ends with its owner.
pub(super) fn own(work: impl Future<Output = ()> + Send + 'static) -> Owned {
    Owned(tokio::spawn(work))
}
