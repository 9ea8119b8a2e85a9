//! What a machine is told about GPUs when a box is paired: where they are, a token of its own, and the
//! helper `gx10`.
//!
//! ```text
//! gpu ── is a box paired? ──▶ auth ── token of this machine ──▶ guest agent ── script on stdin ──▶ files
//! ```
//! A machine without GPUs is still a machine: whatever fails here is a warning of its operation, and is tried
//! again later (`follow.rs`), as are machines that were made before.

mod follow;
mod script;
mod store;

use nimbus_bus::Key;
use nimbus_errors::{Code, Fault, chain};
use nimbus_model::MachineId;
use nimbus_proto::auth::{CreateMachineToken, MachineTokenRequest, RevokeMachineToken, Secret};
use nimbus_proto::gpu::{GetInjection, Injection};
use nimbus_proto::machine::Machine;
use url::Url;

use crate::error::MachineError;
use crate::gpu::store::Known;
use crate::hypervisor::{ScriptEnd, Spot, Vm};
use crate::service::Provisioner;

use script::Word;

/// How a machine's message about GPUs begins.
const WARNING: &str = "GPUs are not set up in it: ";
/// How much of what a script said is told.
const SAID_MOST: usize = 300;

/// Why a machine was not prepared.
#[derive(Debug, thiserror::Error)]
enum Unprepared {
    #[error("the guest did not report in time")]
    NotReady,
    #[error("the guest agent does not answer")]
    Silent,
    #[error("this server was not told where machines reach it (--public-url)")]
    NoAddress,
    #[error("{0} is the machine itself when a machine asks for it (--public-url)")]
    Loopback(Url),
    #[error("{what} cannot be told to a shell")]
    Unsafe { what: &'static str },
    #[error("no token could be made")]
    Token(#[source] Fault),
    #[error(transparent)]
    Guest(MachineError),
    #[error("the script in the guest ended with {}: {said}", code.map_or_else(|| "a signal".to_owned(), |code| code.to_string()))]
    Script { code: Option<i64>, said: String },
    #[error("it took longer than {seconds} s")]
    Late { seconds: u64 },
}

impl Provisioner {
    /// Prepares a machine that is being made, if there are GPUs. `Some` is a warning; then it has no token either.
    pub(crate) async fn prepare_gpu(
        &self,
        vm: &Vm<'_>,
        spot: &Spot,
        machine: &Machine,
        unready: bool,
    ) -> Option<String> {
        let injection = match self.injection().await {
            Ok(injection) => injection?,
            Err(fault) => return Some(warning(&fault.message)),
        };
        let told = match Word::of(self.inner().config.public_url.as_ref(), &injection) {
            Ok(_) if unready => Err(Unprepared::NotReady),
            Ok(word) => self
                .tell(vm, spot, machine, &word, &mut false)
                .await
                .map(|()| word),
            Err(error) => Err(error),
        };
        match told {
            Ok(word) => {
                tracing::info!(machine.id = %machine.id, "prepared {} for GPUs", machine.hostname);
                if let Err(error) = self.note_told(machine.id, &word).await {
                    // It is told once more, then.
                    tracing::warn!(machine.id = %machine.id, cause = %chain(&error), "could not write that {} is prepared", machine.hostname);
                }
                None
            }
            Err(error) => {
                let why = chain(&error);
                tracing::warn!(machine.id = %machine.id, "could not prepare {} for GPUs: {why}", machine.hostname);
                Some(warning(&why))
            }
        }
    }

    /// Ends the token of a machine, if it has one.
    pub(crate) async fn forget_gpu(&self, machine: MachineId) -> Result<(), Fault> {
        let call = self.inner().bus.call::<RevokeMachineToken>(&machine);
        call.key(Key::of(machine)).await
    }

    /// What machines are to be told, if anything.
    async fn injection(&self) -> Result<Option<Injection>, Fault> {
        match self.inner().bus.call::<GetInjection>(&()).await {
            // An installation may run without the scheduler of GPUs.
            Err(fault) if fault.is(Code::ServiceUnavailable) => {
                tracing::debug!("nobody answers for GPUs, machines are told nothing");
                Ok(None)
            }
            asked => asked,
        }
    }

    async fn note_told(&self, machine: MachineId, word: &Word) -> Result<(), MachineError> {
        let known = Known::told(word.text());
        self.inner()
            .store
            .write(move |tx| Box::pin(async move { Ok(store::put(tx, machine, &known).await?) }))
            .await
    }

    /// Tells a machine, within the time there is for that. `keeps` is whether it has a token that is good, before
    /// and after: such a token stays as it is.
    async fn tell(
        &self,
        vm: &Vm<'_>,
        spot: &Spot,
        machine: &Machine,
        word: &Word,
        keeps: &mut bool,
    ) -> Result<(), Unprepared> {
        let limit = self.inner().config.gpu_inject_timeout;
        let telling = self.tell_it(vm, spot, machine, word, keeps);
        let told = tokio::time::timeout(limit, telling).await.unwrap_or_else(|_| {
            Err(Unprepared::Late {
                seconds: limit.as_secs(),
            })
        });
        // What nobody was told opens nothing.
        if told.is_err()
            && !*keeps
            && let Err(fault) = self.forget_gpu(machine.id).await
        {
            tracing::warn!(machine.id = %machine.id, fault.code = %fault.code, "could not revoke the token of {}", machine.hostname);
        }
        told
    }

    async fn tell_it(
        &self,
        vm: &Vm<'_>,
        spot: &Spot,
        machine: &Machine,
        word: &Word,
        keeps: &mut bool,
    ) -> Result<(), Unprepared> {
        if *keeps {
            let script = word.script(&machine.username, None)?;
            let ended = vm.run_script(spot, &script).await.map_err(Unprepared::Guest)?;
            if ended.code != Some(script::LOST_TOKEN) {
                return outcome(&ended, None);
            }
            *keeps = false;
        }
        let request = MachineTokenRequest {
            owner: machine.owner,
            machine: machine.id,
        };
        let token = self
            .inner()
            .bus
            .call::<CreateMachineToken>(&request)
            .await
            .map_err(Unprepared::Token)?;
        let script = word.script(&machine.username, Some(&token))?;
        let ended = vm.run_script(spot, &script).await.map_err(Unprepared::Guest)?;
        outcome(&ended, Some(&token))
    }
}

fn outcome(ended: &ScriptEnd, token: Option<&Secret>) -> Result<(), Unprepared> {
    match ended.code {
        Some(0) => Ok(()),
        code => Err(Unprepared::Script {
            code,
            said: told(&ended.said, token),
        }),
    }
}

fn warning(why: &str) -> String {
    format!("{WARNING}{why}")
}

/// What a script said, on one line and without the token.
fn told(said: &str, token: Option<&Secret>) -> String {
    let words: Vec<&str> = said.split_whitespace().collect();
    let line = words.join(" ");
    let line = token.map_or(line.clone(), |token| line.replace(token.reveal(), "…"));
    let skip = line.chars().count().saturating_sub(SAID_MOST);
    line.chars().skip(skip).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_script_said_is_short_and_without_the_token() {
        let said = format!("{}\nno nbv_1 here\n", "x ".repeat(400));
        let line = told(&said, Some(&Secret::new("nbv_1")));
        assert!(
            line.ends_with("no … here") && line.chars().count() == SAID_MOST,
            "{line}"
        );
    }
}
