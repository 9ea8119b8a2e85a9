//! How a sandbox gets its container and its main process.
//!
//! ```text
//! image known, a slot waits ─▶ claim ─▶ run main                     warm: within the launch's answer
//! else ─▶ pull ─▶ make a slot ─▶ claim ─▶ run main                    cold: in the background
//! ```
//! Either everything comes up or nothing is left.

use std::sync::Arc;
use std::time::Duration;

use nimbus_engine::{EngineError, VolumeMount};
use nimbus_errors::chain;
use nimbus_guest::protocol::{EgressTarget, Since};
use nimbus_guest::{Attachment, GuestError};
use nimbus_model::ImageRef;
use nimbus_proto::agent::LaunchRequest;
use nimbus_proto::workloads::{ConditionKind, Profile, Start, Truth};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::Message;
use super::actor::{Actor, GUEST_LIMIT, own};
use super::collect::collect;
use super::life::Event;
use crate::agent::Agent;
use crate::desktop;
use crate::egress::Proxy;
use crate::error::AgentError;
use crate::plan::{Plan, SIGKILL, main_id};
use crate::probe;
use crate::slot::{Class, Extras, Place, Slot};
use crate::state::KeptPlace;
use crate::volumes;

/// Connections of a sandbox to its proxy that are waited for at a time.
const EGRESS_WAITERS: usize = 4;
const EGRESS_RETRY: Duration = Duration::from_millis(200);

/// Why a slot did not become this sandbox.
enum Failed {
    /// The slot is at fault: another one may do.
    Slot(AgentError),
    /// The request is at fault, or this host.
    Request(AgentError),
}

impl Actor {
    /// Launches: warm at once, cold in the background.
    pub(super) async fn begin(&mut self) {
        let Some(request) = self.kept.request.clone() else {
            return;
        };
        let image: ImageRef = match request.image.parse() {
            Ok(image) => image,
            Err(error) => {
                let why = ("LaunchFailed", format!("{error}"));
                return self.finish(Event::EndsFailed, Some(why)).await;
            }
        };
        if let Some(known) = self.agent.images.known(&image) {
            let plan = match Plan::new(&request, &known) {
                Ok(plan) => Arc::new(plan),
                Err(error) => return self.fail(&error).await,
            };
            if let Err(error) = self.prepare(&plan) {
                return self.fail(&error).await;
            }
            if volumes::can_be_warm(&self.agent, &plan)
                && let Some(done) = self.begin_warm(&request, &plan).await
            {
                return match done {
                    Ok(()) => {}
                    Err(error) => self.fail(&error).await,
                };
            }
        }
        self.begin_cold(request, image).await;
    }

    /// Claims slots until one works; `None` if there is none.
    async fn begin_warm(
        &mut self,
        request: &LaunchRequest,
        plan: &Arc<Plan>,
    ) -> Option<Result<(), AgentError>> {
        while let Some((slot, has)) = self.agent.pool.claim(&plan.class) {
            match self.personalise(slot, &has, plan, true).await {
                Ok(attachment) => {
                    self.agent.pool.learn(&plan.class, &request.image);
                    self.started(Start::Warm, attachment).await;
                    return Some(Ok(()));
                }
                Err(Failed::Request(error)) => return Some(Err(error)),
                Err(Failed::Slot(error)) => {
                    tracing::warn!(sandbox.id = %self.id, cause = %chain(&error), "a warm container could not be used; trying another");
                    self.lose_place();
                    if !volumes::can_be_warm(&self.agent, plan) {
                        return None;
                    }
                }
            }
        }
        None
    }

    /// Makes a container in the background.
    async fn begin_cold(&mut self, request: LaunchRequest, image: ImageRef) {
        let present = self.agent.images.known(&image).is_some();
        let (reason, text) = if present {
            ("Launching", "its container is being made")
        } else {
            ("ImagePulling", "its image is being pulled")
        };
        self.say(ConditionKind::Progressing, Truth::True, reason, text);
        self.say(ConditionKind::Ready, Truth::False, reason, text);
        self.publish();
        self.save().await;
        let (agent, tell) = (Arc::clone(&self.agent), self.own.clone());
        self.making = Some(own(async move {
            let made = make(&agent, &request, &image).await;
            if let Err(mpsc_closed) = tell.send(Message::Made(Box::new(made))).await {
                // The sandbox' task is gone: so is what was made, at the next sweep.
                tracing::debug!(cause = %mpsc_closed, "a container was made for nobody");
            }
        }));
    }

    /// A container was made.
    pub(super) async fn made(&mut self, made: Result<(Slot, Arc<Plan>), AgentError>) {
        let wanted = self.making.take().is_some();
        let (slot, plan) = match made {
            Ok(made) => made,
            Err(error) if wanted => return self.fail(&error).await,
            Err(_) => return,
        };
        if !wanted {
            self.place = Some(slot.place);
            return self.lose_place();
        }
        if let Err(error) = self.prepare(&plan) {
            self.place = Some(slot.place);
            return self.fail(&error).await;
        }
        match self.personalise(slot, &plan.class, &plan, false).await {
            Ok(attachment) => {
                let image = self.request().map(|request| request.image.clone());
                self.agent.pool.learn(&plan.class, &image.unwrap_or_default());
                self.started(Start::Cold, attachment).await;
            }
            Err(Failed::Slot(error) | Failed::Request(error)) => self.fail(&error).await,
        }
    }

    /// Ends a launch that an agent before this one began.
    pub(super) async fn end_launch(&mut self, slot: Slot, class: &Class, plan: &Arc<Plan>) {
        match self.personalise(slot, class, plan, false).await {
            Ok(attachment) => self.started(Start::Cold, attachment).await,
            Err(Failed::Slot(error) | Failed::Request(error)) => self.fail(&error).await,
        }
    }

    /// Publishes the ports of a sandbox that runs already.
    pub(super) fn publish_ports(&mut self, plan: &Arc<Plan>) -> Result<(), AgentError> {
        self.prepare(plan)
    }

    /// Publishes the ports, unless that was done before.
    fn prepare(&mut self, plan: &Arc<Plan>) -> Result<(), AgentError> {
        self.plan = Some(Arc::clone(plan));
        if !self.published.is_empty() {
            return Ok(());
        }
        for port in &plan.ports {
            let mut port = port.clone();
            // A former agent's choice stays.
            let name = port.name.as_deref();
            if let Some(known) = self
                .kept
                .endpoints
                .iter()
                .find(|known| Some(known.name.as_str()) == name)
            {
                port.host_port = Some(known.port);
            }
            let published =
                self.agent
                    .ports
                    .publish(&port, self.target.subscribe(), Arc::clone(&self.activity))?;
            self.published.push(published);
        }
        self.kept.endpoints = self.published.iter().map(|one| one.endpoint.clone()).collect();
        Ok(())
    }

    /// Tells a slot who it is and runs the main process in it.
    async fn personalise(
        &mut self,
        slot: Slot,
        has: &Class,
        plan: &Arc<Plan>,
        warm: bool,
    ) -> Result<Attachment<UnixStream>, Failed> {
        let Slot { place, mut control } = slot;
        self.engine_losses = *self.agent.engine_losses.borrow();
        self.place = Some(place.clone());
        self.kept.place = Some(KeptPlace {
            slot: place.slot.clone(),
            container: place.container.to_string(),
        });
        self.save().await;
        if *has != plan.class {
            self.agent
                .engine
                .update_limits(&place.container, &plan.class.limits)
                .await
                .map_err(|error| Failed::Slot(error.into()))?;
        }
        let claimed = timeout(GUEST_LIMIT, control.claim(plan.claim.clone()))
            .await
            .map_err(|_| Failed::Slot(slow()))?
            .map_err(|error| Failed::Slot(error.into()))?;
        if !claimed.hosts_written && !plan.claim.hosts.is_empty() {
            write_hosts(&place, plan).map_err(Failed::Slot)?;
        }
        if warm && plan.has_mounts() {
            let request = self.request().ok_or_else(|| Failed::Request(slow()))?;
            volumes::mount(&self.agent, request, &place, plan)
                .await
                .map_err(Failed::Slot)?;
        }
        self.let_out(&place, plan);
        // A new agent has to know of a process that runs.
        self.saved().await;
        self.run_main(&place, plan).await
    }

    /// Runs the main process, or attaches to it if it runs already.
    async fn run_main(&mut self, place: &Place, plan: &Plan) -> Result<Attachment<UnixStream>, Failed> {
        self.log.begin(self.kept.run);
        let command = plan.command(self.kept.run);
        let run = place.guest.run(command, Since::Offset(0), false);
        match timeout(GUEST_LIMIT, run).await {
            Err(_) => Err(Failed::Slot(slow())),
            Ok(Err(error @ GuestError::Fault(_))) => Err(Failed::Request(error.into())),
            Ok(Err(error)) => Err(Failed::Slot(error.into())),
            Ok(Ok(attachment)) => Ok(attachment),
        }
    }

    /// The main process runs for the first time.
    async fn started(&mut self, start: Start, attachment: Attachment<UnixStream>) {
        if self.kept.start.is_none() {
            self.kept.start = Some(start);
            self.kept.started_after_us = u64::try_from(self.arrived.elapsed().as_micros()).ok();
        }
        tracing::debug!(sandbox.id = %self.id, start = <&str>::from(start), duration_us = self.kept.started_after_us, "sandbox {} runs", self.id);
        self.watch(attachment);
        self.save().await;
    }

    /// Looks after a main process that runs.
    pub(super) fn watch(&mut self, attachment: Attachment<UnixStream>) {
        let (Some(place), Some(plan)) = (self.place.clone(), self.plan.clone()) else {
            return;
        };
        self.main_runs = true;
        let run = self.kept.run;
        self.run_tasks.clear();
        self.run_tasks.push(own(collect(
            place.guest.clone(),
            attachment,
            main_id(run),
            run,
            self.log.clone(),
            self.own.clone(),
        )));
        self.target.send_replace(Some(place.guest.clone()));
        if let Some(check) = plan.health.clone() {
            let first = plan.ports.first().map(|port| port.guest_port);
            self.run_tasks.push(own(probe::watch_health(
                place.guest.clone(),
                check,
                first,
                run,
                self.own.clone(),
            )));
        }
        match plan.readiness {
            Some(readiness) => {
                self.run_tasks.push(own(probe::watch_readiness(
                    place.guest,
                    readiness,
                    plan.probe_timeout,
                    run,
                    self.own.clone(),
                )));
                let text = "it runs; nothing answers on its port yet";
                self.say(ConditionKind::Ready, Truth::False, "ProbeFailing", text);
                self.publish();
            }
            None => self.passes(),
        }
    }

    /// Runs the main process again: in its container, or in a new one if that is gone.
    pub(super) async fn start_anew(&mut self) {
        let (Some(place), Some(plan)) = (self.place.clone(), self.plan.clone()) else {
            let Some(request) = self.kept.request.clone() else {
                return;
            };
            return match request.image.parse() {
                Ok(image) => self.begin_cold(request, image).await,
                Err(error) => {
                    let why = ("LaunchFailed", format!("{error}"));
                    self.finish(Event::EndsFailed, Some(why)).await;
                }
            };
        };
        self.save().await;
        self.saved().await;
        // What the last run left behind must not hold its ports.
        if let Some(last) = self.kept.run.checked_sub(1) {
            let command = main_id(last);
            let end = async {
                let mut control = place.guest.control().await?;
                control.signal(&command, SIGKILL).await?;
                control.forget(&command).await
            };
            // Without it the restart still has its chance.
            let _ = timeout(GUEST_LIMIT, end).await;
        }
        match self.run_main(&place, &plan).await {
            Ok(attachment) => self.watch(attachment),
            Err(Failed::Request(error)) => self.fail(&error).await,
            Err(Failed::Slot(error)) => {
                tracing::warn!(sandbox.id = %self.id, cause = %chain(&error), "the container cannot be used any more; making a new one");
                self.lose_place();
                if let Some(request) = self.kept.request.clone()
                    && let Ok(image) = request.image.parse()
                {
                    self.begin_cold(request, image).await;
                }
            }
        }
    }

    /// Sees the main process again after the connection broke.
    pub(super) async fn attach_again(&mut self) -> bool {
        let Some(place) = self.place.clone() else {
            return false;
        };
        let from = self.log.resume(self.kept.run);
        let command = main_id(self.kept.run);
        let attach = place.guest.attach(&command, Since::Offset(from), false);
        match timeout(GUEST_LIMIT, attach).await {
            Ok(Ok(attachment)) => {
                self.watch(attachment);
                true
            }
            _ => false,
        }
    }

    /// Begins what serves the container as long as it lives: the way out, and a desktop's browser.
    pub(super) fn let_out(&mut self, place: &Place, plan: &Plan) {
        self.place_tasks.clear();
        let Some(request) = self.request() else { return };
        let (egress, is_desktop) = (request.egress.clone(), request.profile == Profile::Desktop);
        if plan.claim.proxy {
            let proxy = self.agent.proxy(&self.id, egress);
            for _ in 0..EGRESS_WAITERS {
                self.place_tasks
                    .push(own(carry_egress(place.clone(), proxy.clone())));
            }
        }
        if is_desktop {
            let proxied = plan.claim.proxy;
            self.place_tasks
                .push(own(desktop::keep_browser(place.guest.clone(), proxied)));
        }
    }

    /// It cannot be launched.
    pub(super) async fn fail(&mut self, error: &AgentError) {
        let reason = match error {
            AgentError::Engine(
                EngineError::ImageNotFound { .. }
                | EngineError::PullRefused { .. }
                | EngineError::PullTimeout { .. }
                | EngineError::PullFailed { .. }
                | EngineError::WrongPlatform { .. },
            ) => "ImagePullFailed",
            _ => "LaunchFailed",
        };
        tracing::warn!(sandbox.id = %self.id, cause = %chain(error), "sandbox {} could not be launched", self.id);
        self.finish(Event::EndsFailed, Some((reason, error.to_string())))
            .await;
    }
}

fn slow() -> AgentError {
    AgentError::SlowStart {
        limit_s: GUEST_LIMIT.as_secs(),
    }
}

/// The way to a container of its own.
async fn make(
    agent: &Agent,
    request: &LaunchRequest,
    image: &ImageRef,
) -> Result<(Slot, Arc<Plan>), AgentError> {
    let mut found = match agent.images.known(image) {
        Some(known) => known,
        None => agent.images.ensure(image).await?,
    };
    loop {
        let plan = Arc::new(Plan::new(request, &found)?);
        let mut extras = Extras {
            volumes: Vec::new(),
            tmpfs: plan.tmpfs.clone(),
        };
        for wanted in &plan.volumes {
            let volume = volumes::ensure(agent, &request.tenant, &wanted.name).await?;
            extras.volumes.push(VolumeMount {
                name: volume.name,
                target: wanted.target.clone(),
                read_only: wanted.read_only,
            });
        }
        match agent.slots.make(&plan.class, extras).await {
            // Somebody removed the image since it was looked at.
            Err(AgentError::Engine(EngineError::ImageNotFound { .. }))
                if agent.images.known(image).is_some() =>
            {
                agent.images.forget(image);
                found = agent.images.ensure(image).await?;
                agent.images.forget(image);
            }
            made => return Ok((made?, plan)),
        }
    }
}

/// Hands what processes inside send to the proxy to the proxy, until the container is gone.
async fn carry_egress(place: Place, proxy: Proxy) {
    let mut open = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = place.guest.accept_egress() => match accepted {
                Ok((opened, stream)) => {
                    let proxy = proxy.clone();
                    open.spawn(async move {
                        match opened.to {
                            EgressTarget::Proxy => proxy.serve(stream).await,
                            EgressTarget::Forward(rule) => proxy.tunnel(stream, &rule).await,
                        }
                    });
                }
                // The container is going, or its init is busy; who owns this task knows which.
                Err(_) => tokio::time::sleep(EGRESS_RETRY).await,
            },
            Some(_) = open.join_next() => {}
        }
    }
}

/// Writes the names of raw TCP rules into the container's `/etc/hosts` from outside: an init that runs
/// as the image's user cannot.
fn write_hosts(place: &Place, plan: &Plan) -> Result<(), AgentError> {
    use std::io::Write;
    let what = "write the names of egress rules into the sandbox";
    let pid = place
        .pid
        .ok_or_else(|| AgentError::io(what)(std::io::ErrorKind::Unsupported.into()))?;
    let mut text = String::from("\n");
    for (addr, name) in &plan.claim.hosts {
        text.push_str(&format!("{addr}\t{name}\n"));
    }
    std::fs::OpenOptions::new()
        .append(true)
        .open(format!("/proc/{pid}/root/etc/hosts"))
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(AgentError::io(what))
}
