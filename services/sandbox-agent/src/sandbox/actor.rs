//! The task of one sandbox. It alone changes the sandbox' state; timers, probes, the log and callers
//! send it messages.

use std::sync::Arc;
use std::time::Duration;

use nimbus_errors::chain;
use nimbus_guest::Guest;
use nimbus_guest::protocol::ExitStatus;
use nimbus_proto::agent::LaunchRequest;
use nimbus_proto::workloads::{
    ConditionKind, Exit, Health, Lifecycle, Observation, Readiness, RestartPolicy, Truth,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::collect::find_out;
use super::conditions::Conditions;
use super::life::{self, Event};
use super::restart::{self, Next};
use super::{End, Found, INBOX, Message, Running, Sandbox, View};
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
/// The engine tells of memory that ran out beside, and a little after, the end of the process.
const OOM_MAY_COME: Duration = Duration::from_millis(400);
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
    health: Health,
    pub(super) conditions: Conditions,
    exit: Option<Exit>,
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
    removal: Option<JoinHandle<()>>,
    /// When the main process is run again.
    again_at: Option<Instant>,
    /// When a stop becomes harder.
    harder_at: Option<Instant>,
    killed: bool,
    ready_since: Option<Instant>,
    /// Restarts since the last long time of being ready.
    streak: u32,
    oom_seen: bool,
    pending_end: Option<(ExitStatus, Instant)>,
    pub(super) engine_losses: u64,
    forgotten: bool,
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
            self.conditions.clear(ConditionKind::Progressing);
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

    /// The main process ended, or the guest is gone.
    async fn on_end(&mut self, end: End) {
        match end {
            End::Exited(status) => {
                let maybe_memory =
                    status.signal == Some(SIGKILL) && !status.timed_out && self.life != Lifecycle::Stopping;
                if maybe_memory && !self.oom_seen {
                    self.pending_end = Some((status, Instant::now() + OOM_MAY_COME));
                    return;
                }
                self.main_ended(status.shell_code(), maybe_memory && self.oom_seen)
                    .await;
            }
            End::Lost => {
                let Some(place) = self.place.clone() else { return };
                let (agent, tell, run, losses) = (
                    Arc::clone(&self.agent),
                    self.own.clone(),
                    self.kept.run,
                    self.engine_losses,
                );
                self.run_tasks.push(own(async move {
                    let found = find_out(&agent, &place, losses).await;
                    let _ = tell.send(Message::Found { run, found }).await;
                }));
            }
        }
    }

    async fn on_found(&mut self, found: Found) {
        match found {
            Found::Alive => {
                if !self.attach_again().await {
                    self.on_end(End::Lost).await;
                }
            }
            Found::Dead {
                out_of_memory,
                engine_restarted,
            } => {
                self.lose_place();
                if self.life == Lifecycle::Stopping {
                    self.finish(Event::EndsClean, None).await;
                } else if engine_restarted {
                    self.unobserved_end("EngineRestarted", "the container engine was restarted")
                        .await;
                } else {
                    self.main_ended(128 + SIGKILL, out_of_memory || self.oom_seen)
                        .await;
                }
            }
        }
    }

    /// What follows the end of the main process.
    pub(super) async fn main_ended(&mut self, code: i32, out_of_memory: bool) {
        self.exit = Some(Exit { code, out_of_memory });
        let (reason, text) = if out_of_memory {
            ("OOMKilled", "it used more memory than it may".to_owned())
        } else if code == 0 {
            ("Completed", "its process ended".to_owned())
        } else {
            ("ProcessFailed", format!("its process ended with code {code}"))
        };
        self.after_end(code == 0, reason, text).await;
    }

    /// What follows an end that nobody saw.
    pub(super) async fn unobserved_end(&mut self, reason: &str, text: &str) {
        self.after_end(false, reason, text.to_owned()).await;
    }

    async fn after_end(&mut self, clean: bool, reason: &str, text: String) {
        self.stop_watching();
        if self.life == Lifecycle::Stopping {
            self.finish(Event::EndsClean, None).await;
            return;
        }
        if self
            .ready_since
            .take()
            .is_some_and(|since| since.elapsed() >= restart::FORGIVEN_AFTER)
        {
            self.streak = 0;
        }
        let policy = self
            .request()
            .map_or(RestartPolicy::Never, |request| request.restart);
        match restart::next(policy, self.streak, clean) {
            Next::Again(pause) => {
                self.step(Event::EndsAgain);
                self.again_at = Some(Instant::now() + pause);
                self.say(ConditionKind::Ready, Truth::False, reason, text);
                let text = format!("it is run again in {} s", pause.as_secs());
                self.say(ConditionKind::Progressing, Truth::True, "CrashLoopBackOff", text);
                self.save().await;
                self.publish();
            }
            Next::Rest => {
                let event = if clean {
                    Event::EndsClean
                } else {
                    Event::EndsFailed
                };
                self.finish(event, Some((reason, text))).await;
            }
            Next::LimitReached => {
                let text = format!("{text}, and it was restarted as often as it may be");
                let event = if clean {
                    Event::EndsClean
                } else {
                    Event::EndsFailed
                };
                self.finish(event, Some(("RestartLimitReached", text))).await;
            }
        }
    }

    async fn run_again(&mut self) {
        self.kept.restarts = self.kept.restarts.saturating_add(1);
        self.streak = self.streak.saturating_add(1);
        self.kept.run = self.kept.run.saturating_add(1);
        self.oom_seen = false;
        self.exit = None;
        self.start_anew().await;
    }

    /// Asks it to stop.
    async fn stop(&mut self, reason: String) {
        if self.life.is_final() {
            return;
        }
        let again = self.life == Lifecycle::Stopping;
        self.step(Event::Stop);
        if again {
            return;
        }
        self.again_at = None;
        self.say(
            ConditionKind::Ready,
            Truth::False,
            &reason,
            "it was asked to stop",
        );
        self.conditions.clear(ConditionKind::Progressing);
        self.kept.stopping = Some(reason);
        if self.making.take().is_some() || !self.main_runs {
            self.finish(Event::EndsClean, None).await;
            return;
        }
        let limit = self.request().map_or(Duration::from_secs(5), |request| {
            Duration::from_millis(request.stop_timeout_ms.into())
        });
        let signal = self
            .plan
            .as_ref()
            .map_or(crate::plan::SIGTERM, |plan| plan.stop_signal);
        self.signal(signal);
        self.harder_at = Some(Instant::now() + limit);
        self.target.send_replace(None);
        self.publish();
        self.save().await;
    }

    async fn stop_harder(&mut self) {
        let limit = self.request().map_or(Duration::from_secs(5), |request| {
            Duration::from_millis(request.stop_timeout_ms.into())
        });
        if !self.killed {
            self.killed = true;
            self.signal(SIGKILL);
            self.harder_at = Some(Instant::now() + limit.max(Duration::from_secs(1)));
            return;
        }
        self.harder_at = None;
        let text = "it was killed and does not end".to_owned();
        self.finish(Event::WillNotEnd, Some(("WillNotEnd", text))).await;
    }

    /// Signals the main process, and does not wait for it.
    fn signal(&mut self, signal: i32) {
        let Some(place) = self.place.clone() else { return };
        let (command, sandbox) = (crate::plan::main_id(self.kept.run), self.id.clone());
        self.place_tasks.push(own(async move {
            let asked = async { place.guest.control().await?.signal(&command, signal).await };
            match tokio::time::timeout(GUEST_LIMIT, asked).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(sandbox.id = sandbox, signal, cause = %chain(&error), "a sandbox could not be signalled");
                }
                Err(_) => tracing::warn!(sandbox.id = sandbox, signal, "a sandbox does not take signals"),
            }
        }));
    }

    /// The run is over: nobody looks at it any more, and nobody reaches it.
    fn stop_watching(&mut self) {
        self.main_runs = false;
        self.pending_end = None;
        self.run_tasks.clear();
        self.target.send_replace(None);
        self.health = Health::Unknown;
        self.conditions.clear(ConditionKind::Healthy);
    }

    /// Ends for good: everything is taken down, and only the outcome and the log are kept.
    pub(super) async fn finish(&mut self, event: Event, why: Option<(&str, String)>) {
        self.stop_watching();
        self.step(event);
        if let Some((reason, text)) = why {
            self.say(ConditionKind::Ready, Truth::False, reason, text);
        }
        self.conditions.clear(ConditionKind::Progressing);
        (self.again_at, self.harder_at) = (None, None);
        self.making = None;
        self.published.clear();
        self.log.close();
        self.lose_place();
        self.kept.request = None;
        self.kept.stopping = None;
        // The outcome is on disk before anybody hears of it.
        let outcome = self.observe();
        self.kept.ended = Some(outcome);
        self.save().await;
        self.publish();
        tracing::info!(sandbox.id = %self.id, state = <&str>::from(self.life), "sandbox {} is {}", self.id, <&str>::from(self.life));
    }

    /// Lets go of the container; it is removed in the background.
    pub(super) fn lose_place(&mut self) {
        self.place_tasks.clear();
        self.kept.place = None;
        if let Some(place) = self.place.take() {
            let slots = self.agent.slots.clone();
            self.removal = Some(tokio::spawn(async move {
                slots.discard(&place.slot, Some(&place.container)).await;
            }));
        }
    }

    async fn remove(&mut self, done: oneshot::Sender<()>) {
        if !self.life.is_final() {
            self.step(Event::Stop);
            self.finish(Event::EndsClean, None).await;
        }
        if let Some(removal) = self.removal.take() {
            let _ = removal.await;
        }
        self.saved().await;
        if let Err(error) = self.agent.keep.remove(&self.id) {
            tracing::warn!(sandbox.id = %self.id, cause = %chain(&error), "what was kept of a sandbox is still there");
        }
        self.agent.registry.remove(&self.id);
        self.forgotten = true;
        // Whoever asked may have gone.
        let _ = done.send(());
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

    fn observe(&mut self) -> Observation {
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
