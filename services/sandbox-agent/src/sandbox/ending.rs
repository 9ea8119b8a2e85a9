//! How the main process ends, and what follows: a restart, or the end of the sandbox.

use std::sync::Arc;
use std::time::Duration;

use nimbus_errors::chain;
use nimbus_proto::workloads::{ConditionKind, Exit, Health, Lifecycle, RestartPolicy, Truth};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::actor::{Actor, GUEST_LIMIT, own};
use super::collect::find_out;
use super::life::Event;
use super::restart::{self, Next};
use super::{End, Found, Message};
use crate::plan::{SIGKILL, SIGTERM, main_id};

/// Where the guest cannot say it: the engine tells of memory that ran out beside, and a little after, the end of
/// the process.
const OOM_MAY_COME: Duration = Duration::from_millis(1500);

impl Actor {
    /// The main process ended, or the guest is gone.
    pub(super) async fn on_end(&mut self, end: End) {
        match end {
            End::Exited { status, memory_kills } => {
                let maybe_memory =
                    status.signal == Some(SIGKILL) && !status.timed_out && self.life != Lifecycle::Stopping;
                let known = self.memory_kills;
                self.memory_kills = memory_kills.unwrap_or(known);
                if maybe_memory && !self.oom_seen {
                    match memory_kills {
                        Some(count) => self.oom_seen = count > known,
                        None => {
                            self.pending_end = Some((status, Instant::now() + OOM_MAY_COME));
                            return;
                        }
                    }
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

    pub(super) async fn on_found(&mut self, found: Found) {
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

    pub(super) async fn after_end(&mut self, clean: bool, reason: &str, text: String) {
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

    pub(super) async fn run_again(&mut self) {
        self.kept.restarts = self.kept.restarts.saturating_add(1);
        self.streak = self.streak.saturating_add(1);
        self.kept.run = self.kept.run.saturating_add(1);
        self.oom_seen = false;
        self.exit = None;
        self.start_anew().await;
    }

    /// Asks it to stop.
    pub(super) async fn stop(&mut self, reason: String) {
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
        self.settle(ConditionKind::Progressing, Truth::False, "nothing is under way");
        self.kept.stopping = Some(reason);
        if self.making.take().is_some() || !self.main_runs {
            self.finish(Event::EndsClean, None).await;
            return;
        }
        let limit = self.request().map_or(Duration::from_secs(5), |request| {
            Duration::from_millis(request.stop_timeout_ms.into())
        });
        let signal = self.plan.as_ref().map_or(SIGTERM, |plan| plan.stop_signal);
        self.signal(signal);
        self.harder_at = Some(Instant::now() + limit);
        self.target.send_replace(None);
        self.publish();
        self.save().await;
    }

    pub(super) async fn stop_harder(&mut self) {
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
    pub(super) fn signal(&mut self, signal: i32) {
        let Some(place) = self.place.clone() else { return };
        let (command, sandbox) = (main_id(self.kept.run), self.id.clone());
        self.place_tasks.push(own(async move {
            let asked = async { place.guest.control().await?.signal(&command, signal).await };
            match timeout(GUEST_LIMIT, asked).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(sandbox.id = sandbox, signal, cause = %chain(&error), "a sandbox could not be signalled");
                }
                Err(_) => tracing::warn!(sandbox.id = sandbox, signal, "a sandbox does not take signals"),
            }
        }));
    }

    /// The run is over: nobody looks at it any more, and nobody reaches it.
    pub(super) fn stop_watching(&mut self) {
        self.main_runs = false;
        self.pending_end = None;
        self.run_tasks.clear();
        self.target.send_replace(None);
        self.health = Health::Unknown;
        self.settle(ConditionKind::Healthy, Truth::Unknown, "it does not run");
    }

    /// Ends for good: everything is taken down, and only the outcome and the log are kept.
    pub(super) async fn finish(&mut self, event: Event, why: Option<(&str, String)>) {
        self.stop_watching();
        self.step(event);
        if let Some((reason, text)) = why {
            self.say(ConditionKind::Ready, Truth::False, reason, text);
        }
        self.settle(ConditionKind::Progressing, Truth::False, "nothing is under way");
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
        self.memory_kills = 0;
        self.kept.place = None;
        if let Some(place) = self.place.take() {
            let slots = self.agent.slots.clone();
            self.removal = Some(tokio::spawn(async move {
                slots.discard(&place.slot, Some(&place.container)).await;
            }));
        }
    }

    pub(super) async fn remove(&mut self, done: oneshot::Sender<()>) {
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
}
