//! Going on with a sandbox of an agent before this one.
//!
//! ```text
//! ended before                    ─▶ its outcome is told again
//! container runs, main runs       ─▶ attach, its log goes on without a gap
//! container runs, main is unknown ─▶ the launch is ended: claimed and run, both at most once
//! container gone                  ─▶ an end that nobody saw: the restart policy decides
//! ```

use std::sync::Arc;

use nimbus_engine::{ContainerId, ContainerState, EngineError};
use nimbus_errors::chain;
use nimbus_guest::protocol::{CommandInfo, Since};
use nimbus_guest::{Attachment, GuestError};
use nimbus_proto::agent::LaunchRequest;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::actor::{Actor, GUEST_LIMIT};
use super::collect::is_out_of_retention;
use crate::error::AgentError;
use crate::plan::{Plan, main_id};
use crate::slot::{Place, Slot};
use crate::state::KeptPlace;

/// The reason of an end that came while no agent ran.
const LOST: &str = "LostDuringRestart";

impl Actor {
    /// Finds the sandbox as it was left, or what became of it.
    pub(super) async fn take_over(&mut self) {
        if self.kept.ended.is_some() {
            self.save().await;
            return self.publish();
        }
        let Some(request) = self.kept.request.clone() else {
            let text = "what was known of it cannot be read";
            return self.unobserved_end(LOST, text).await;
        };
        let Some(kept) = self.kept.place.clone() else {
            // It was being made, or waited in a back-off.
            self.save().await;
            if self.kept.stopping.is_some() {
                return self.stop_as_before().await;
            }
            return self.begin().await;
        };
        match self.find(&request, &kept).await {
            Ok(true) => {}
            Ok(false) => {
                self.kept.place = None;
                if self.kept.stopping.is_some() {
                    return self.stop_as_before().await;
                }
                let text = "it ended while the agent of its host did not run";
                self.unobserved_end(LOST, text).await;
            }
            Err(error) => {
                tracing::warn!(sandbox.id = %self.id, cause = %chain(&error), "a sandbox could not be taken over");
                let text = format!("it could not be taken over: {error}");
                self.unobserved_end(LOST, &text).await;
            }
        }
    }

    /// Whether its container runs and the sandbox goes on in it.
    async fn find(&mut self, request: &LaunchRequest, kept: &KeptPlace) -> Result<bool, AgentError> {
        let container = ContainerId::new(kept.container.as_str());
        let state: ContainerState = match self.agent.engine.inspect(&container).await {
            Ok(state) => state,
            Err(EngineError::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let place = Place {
            slot: kept.slot.clone(),
            container,
            guest: self.agent.slots.guest(&kept.slot),
            pid: state.pid,
        };
        self.place = Some(place.clone());
        if !state.running {
            self.lose_place();
            return Ok(false);
        }
        let asked = async {
            let mut control = place.guest.control().await?;
            let commands = control.commands().await?;
            Ok::<_, GuestError>((control, commands))
        };
        let (control, commands) = match timeout(GUEST_LIMIT, asked).await {
            Ok(Ok(asked)) => asked,
            Ok(Err(GuestError::Unreachable(_))) | Err(_) => {
                self.lose_place();
                return Ok(false);
            }
            Ok(Err(error)) => return Err(error.into()),
        };
        let image = request
            .image
            .parse()
            .map_err(|error| AgentError::Invalid(format!("{error}")))?;
        let image = match self.agent.images.known(&image) {
            Some(known) => known,
            None => self.agent.images.ensure(&image).await?,
        };
        let plan = Arc::new(Plan::new(request, &image)?);
        self.publish_ports(&plan)?;
        let command = main_id(self.kept.run);
        if knows(&commands, &command) {
            let attachment = self.reattach(&place, &command).await?;
            self.let_out(&place, &plan);
            self.watch(attachment);
            self.save().await;
        } else if self.kept.run == 0 {
            // It was being launched: nothing has run in there, and what was mounted is not known.
            self.lose_place();
            self.begin().await;
        } else {
            // The same claim changes nothing where it was made already.
            let class = plan.class.clone();
            self.end_launch(Slot { place, control }, &class, &plan).await;
        }
        self.stop_as_before().await;
        Ok(true)
    }

    async fn reattach(&self, place: &Place, command: &str) -> Result<Attachment<UnixStream>, AgentError> {
        let from = self.log.resume(self.kept.run);
        match place.guest.attach(command, Since::Offset(from), false).await {
            Err(error) if is_out_of_retention(&error) => {
                tracing::warn!(sandbox.id = %self.id, "output was dropped by the guest while no agent ran");
                Ok(place.guest.attach(command, Since::Tail(u64::MAX), false).await?)
            }
            attached => Ok(attached?),
        }
    }
}

fn knows(commands: &[CommandInfo], command: &str) -> bool {
    commands.iter().any(|known| known.id == command)
}
