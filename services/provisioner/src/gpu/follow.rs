//! Tells machines of GPUs that were made before there were any, that were off, or that were told something
//! else by now. One look at the tables every few seconds; who is there is told, the others later.
//!
//! ```text
//! running, not told this ─claim─▶ agent answers? ─no──────────────┐
//!                                      │ yes                      ▼
//!                                      └▶ token, script ─failed─▶ later: 30 s, doubled up to half an hour
//!                                              └─done─▶ told ─machine gone─▶ token revoked, row removed
//! ```
//! When nobody gives GPUs any more, nothing is taken back: what a machine was told is answered with "not
//! configured" until there are some again.

use std::time::Duration;

use futures::StreamExt;
use nimbus_model::MachineId;
use nimbus_proto::event::MachineChanged;
use nimbus_proto::machine::MachineStatus;
use nimbus_store::Tx;

use super::store::{self, Known};
use super::{Unprepared, Word, warning};
use crate::error::MachineError;
use crate::hypervisor::Vm;
use crate::machine::{MachineRow, store as machines};
use crate::sagas::placed;
use crate::sagas::stuck::pause;
use crate::service::Provisioner;

/// Machines told at the same time.
const PARALLEL: usize = 4;
/// Machines told in one pass: those that begin to run meanwhile do not wait for all others.
const LIMIT: i64 = 32;
/// How much longer an attempt is left alone than it may take.
const GRACE: Duration = Duration::from_secs(60);
/// Attempts after which the machine's owner is told: a machine that boots does not answer at first.
const PATIENT: i64 = 3;

impl Provisioner {
    /// Tells those that are to be told now.
    pub(crate) async fn follow_gpu(&self) -> Result<(), MachineError> {
        let inner = self.inner();
        self.forget_gone().await?;
        let Some(injection) = self.injection().await? else {
            return Ok(());
        };
        let word = match Word::of(inner.config.public_url.as_ref(), &injection) {
            Ok(word) => word,
            Err(error) => {
                tracing::debug!(cause = %nimbus_errors::chain(&error), "machines cannot be told of GPUs");
                return Ok(());
            }
        };
        let due = store::due(&inner.store, &word.text(), inner.clock.now(), LIMIT).await?;
        futures::stream::iter(due)
            .for_each_concurrent(PARALLEL, |machine| {
                let word = &word;
                async move {
                    if let Err(error) = self.catch_up(machine, word).await {
                        tracing::warn!(machine.id = %machine, cause = %nimbus_errors::chain(&error), "could not tell a machine of GPUs");
                    }
                }
            })
            .await;
        inner.news.outbox.nudge();
        Ok(())
    }

    /// Ends the tokens of machines that went while they were told: a token may have been made after theirs
    /// was revoked.
    async fn forget_gone(&self) -> Result<(), MachineError> {
        let inner = self.inner();
        for machine in store::gone(&inner.store, inner.clock.now(), LIMIT).await? {
            self.forget_gpu(machine).await?;
            inner
                .store
                .write(move |tx| {
                    Box::pin(async move { store::forget(tx, machine).await.map_err(MachineError::from) })
                })
                .await?;
        }
        Ok(())
    }

    async fn catch_up(&self, id: MachineId, word: &Word) -> Result<(), MachineError> {
        let inner = self.inner();
        let Some((row, known)) = self.claim(id, word).await? else {
            return Ok(());
        };
        let (spot, machine) = (placed(&row)?, row.view()?);
        let vm = Vm::new(self.client()?, &inner.config, id);
        let mut keeps = known.told.is_some();
        let told = if vm.agent_answers(&spot).await {
            self.tell(&vm, &spot, &machine, word, &mut keeps).await
        } else {
            Err(Unprepared::Silent)
        };
        let why = told.as_ref().err().map(nimbus_errors::chain);
        match &why {
            None => tracing::info!(machine.id = %id, "told {} of GPUs", row.hostname),
            Some(why) if known.tries == PATIENT => {
                tracing::warn!(machine.id = %id, "could not tell {} of GPUs {PATIENT} times, going on with it: {why}", row.hostname);
            }
            Some(why) => {
                tracing::debug!(machine.id = %id, tries = known.tries, "could not tell {} of GPUs: {why}", row.hostname);
            }
        }
        self.settle(id, word, known, keeps, why).await
    }

    /// Takes a machine to tell it; `None` when it is not to be told, or another replica was faster. What is
    /// returned counts this attempt.
    async fn claim(&self, id: MachineId, word: &Word) -> Result<Option<(MachineRow, Known)>, MachineError> {
        let (this, word) = (self.clone(), word.text());
        self.inner()
            .store
            .write(move |tx| {
                Box::pin(async move {
                    let inner = this.inner();
                    let now = inner.clock.now();
                    let row = machines::lock(tx, id).await?.filter(|row| {
                        row.status == <&str>::from(MachineStatus::Running)
                            && row.operation.is_none()
                            && row.vmid.is_some()
                    });
                    let Some(row) = row else { return Ok(None) };
                    let mut known = store::find(tx, id).await?;
                    if known.due_at > now || known.told.as_deref() == Some(word.as_str()) {
                        return Ok(None);
                    }
                    known.tries += 1;
                    known.due_at = now.after(inner.config.gpu_inject_timeout + GRACE);
                    store::put(tx, id, &known).await?;
                    Ok(Some((row, known)))
                })
            })
            .await
    }

    /// Writes what came of an attempt. `why` it did not succeed; then `keeps` says whether what the machine
    /// was told before is still good.
    async fn settle(
        &self,
        id: MachineId,
        word: &Word,
        mut known: Known,
        keeps: bool,
        why: Option<String>,
    ) -> Result<(), MachineError> {
        let (this, told) = (self.clone(), why.is_none());
        let now = self.inner().clock.now();
        if told {
            known = Known::told(word.text());
        } else {
            known.told = known.told.filter(|_| keeps);
            known.due_at = now.after(pause(known.tries - 1));
        }
        let stays = self
            .inner()
            .store
            .write(move |tx| {
                Box::pin(async move {
                    let row = machines::lock(tx, id).await?;
                    let row = row.filter(|row| row.status != <&str>::from(MachineStatus::Deleting));
                    if row.is_none() {
                        known.told = None;
                    }
                    store::put(tx, id, &known).await?;
                    let Some(row) = row else { return Ok(false) };
                    if told || known.tries >= PATIENT {
                        this.say(tx, &row, why.as_deref()).await?;
                    }
                    Ok::<_, MachineError>(true)
                })
            })
            .await?;
        if told && !stays {
            // Deleted meanwhile: its token may be younger than its end.
            self.forget_gpu(id).await?;
        }
        Ok(())
    }

    /// Brings the machine's message in line.
    async fn say(&self, tx: &mut Tx, row: &MachineRow, why: Option<&str>) -> Result<(), MachineError> {
        let message = message(row.error_msg.as_deref(), why);
        if message == row.error_msg {
            return Ok(());
        }
        let inner = self.inner();
        let changed = machines::set_message(tx, row.id, message.as_deref(), inner.clock.now()).await?;
        let Some(changed) = changed else { return Ok(()) };
        let machine = changed.view()?;
        inner.news.tell(tx, &MachineChanged { machine }).await
    }
}

/// A machine's message with this about GPUs in it and nothing else about them. Theirs is always the last part.
fn message(before: Option<&str>, why: Option<&str>) -> Option<String> {
    let other = before.map(|text| {
        text.split_once(super::WARNING)
            .map_or(text, |(other, _)| other.trim_end_matches("; "))
    });
    let parts: Vec<String> = other
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
        .into_iter()
        .chain(why.map(warning))
        .collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

#[cfg(test)]
mod tests {
    use futures::future::BoxFuture;
    use nimbus_bus::Caller;
    use nimbus_proto::machine::{Machine, PowerAction};
    use nimbus_pve_sim::{Fault, FaultMode};
    use nimbus_store::testing::{on_both, sqlite};

    use super::*;
    use crate::world::{World, config};

    /// A provisioner that does nothing unasked.
    async fn quiet(world: &World, name: &str) -> Provisioner {
        let ctx = world.ctx(name).await;
        crate::assemble(&ctx, config(&[]), world.access()).await.unwrap()
    }

    fn pass(this: &Provisioner) -> BoxFuture<'_, ()> {
        Box::pin(async { this.follow_gpu().await.unwrap() })
    }

    /// What the machine's guest was told, by its lines of settings.
    fn told(world: &World, machine: &Machine) -> Vec<String> {
        let told = world.told(machine.vmid.unwrap());
        told.iter()
            .map(|script| script.lines().skip(1).take(3).collect::<Vec<_>>().join(" "))
            .collect()
    }

    fn token(world: &World, machine: &Machine) -> Option<String> {
        world.gpu.token(machine.id).map(|(_, token)| token)
    }

    fn fault(call: &str, message: &str) -> Fault {
        let mode = FaultMode::Fail {
            status: 500,
            message: message.into(),
        };
        Fault {
            count: 0,
            ..Fault::once(call, mode)
        }
    }

    async fn error_msg(world: &World, member: &Caller, machine: &Machine) -> Option<String> {
        world.machine(member, machine.id).await.unwrap().error_msg
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn machines_made_before_are_told_once_and_again_when_it_changes() {
        on_both(|db| {
            Box::pin(async move {
                let world = World::start(&db.db).await;
                let replica = world.replica("one", &[]).await;
                let (a, b) = tokio::join!(quiet(&world, "a"), quiet(&world, "b"));
                let member = world.member();
                let machine = world.make(&member, "before").await;
                let off = world.make(&member, "off").await;
                let _ = world.power(&member, off.id, PowerAction::Stop).await;
                pass(&a).await;
                assert_eq!((told(&world, &machine), token(&world, &machine)), (vec![], None));

                // Two replicas at once, and again: told once. One that is made now knows it from the start.
                world.gpu.pair("one");
                let made = world.make(&member, "after").await;
                tokio::join!(pass(&a), pass(&b));
                pass(&a).await;
                let good = token(&world, &machine).unwrap();
                let api = "api='https://nimbus.example.org/api/gpu'";
                let all = format!("{api} model='one' token='{good}'");
                assert_eq!(told(&world, &machine), [all.as_str()]);
                assert_eq!(told(&world, &made).len(), 1);
                assert_eq!(told(&world, &off), Vec::<String>::new());

                // On again, told.
                let _ = world.power(&member, off.id, PowerAction::Start).await;
                pass(&a).await;
                assert_eq!(told(&world, &off).len(), 1);

                // Another model: the machine keeps its token, so nothing that runs in it is refused.
                world.gpu.pair("two");
                pass(&b).await;
                let other = format!("{api} model='two' token=''");
                assert_eq!(told(&world, &machine), [all.as_str(), other.as_str()]);
                assert_eq!(token(&world, &machine), Some(good.clone()));

                // Nothing is taken back, and the same again is nothing new.
                world.gpu.unpair();
                pass(&a).await;
                world.gpu.pair("two");
                pass(&a).await;
                assert_eq!(told(&world, &machine).len(), 2);
                assert_eq!(token(&world, &machine), Some(good));

                // A machine that goes takes what is known of it along.
                let _ = world.delete(&member, machine.id).await;
                pass(&a).await;
                let mut tx = a.inner().store.begin().await.unwrap();
                assert_eq!(store::find(&mut tx, machine.id).await.unwrap(), Known::default());
                assert!(store::find(&mut tx, off.id).await.unwrap().told.is_some());
                drop(tx);
                replica.stop().await;
            })
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_machine_that_cannot_be_told_is_asked_ever_less_often_and_says_so() {
        on_both(|db| async move {
            let world = World::start(&db.db).await;
            let replica = world.replica("one", &[]).await;
            let this = quiet(&world, "a").await;
            let member = world.member();
            let machine = world.make(&member, "deaf").await;
            world.gpu.pair("one");
            let interfaces = "GET /nodes/{node}/qemu/{vmid}/agent/network-get-interfaces";
            world
                .sim
                .inject(fault(interfaces, "QEMU guest agent is not running"));
            let asked = || world.sim.state()["requests"][interfaces].as_u64().unwrap_or(0);

            let (before, again) = (asked(), Duration::from_secs(30));
            pass(&this).await;
            pass(&this).await;
            assert_eq!(asked() - before, 1);
            world.jump.forward(again);
            pass(&this).await;
            world.jump.forward(again);
            pass(&this).await;
            assert_eq!(asked() - before, 2, "the pause has doubled");
            assert_eq!(error_msg(&world, &member, &machine).await, None);
            world.jump.forward(again);
            pass(&this).await;
            let said = error_msg(&world, &member, &machine).await.unwrap();
            assert!(said.contains("the guest agent does not answer"), "{said}");
            assert_eq!((told(&world, &machine), token(&world, &machine)), (vec![], None));

            // It answers, and refuses: what nobody was told opens nothing.
            world.sim.clear_faults();
            let exec = "POST /nodes/{node}/qemu/{vmid}/agent/exec";
            world
                .sim
                .inject(fault(exec, "Agent error: Command guest-exec has been disabled"));
            world.jump.forward(again * 8);
            pass(&this).await;
            let said = error_msg(&world, &member, &machine).await.unwrap();
            assert!(
                said.contains("has been disabled") && !said.contains("answer"),
                "{said}"
            );
            assert_eq!(token(&world, &machine), None);

            world.sim.clear_faults();
            world.jump.forward(again * 16);
            pass(&this).await;
            assert_eq!(told(&world, &machine).len(), 1);
            assert!(token(&world, &machine).is_some());
            assert_eq!(error_msg(&world, &member, &machine).await, None);
            replica.stop().await;
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_that_its_owner_deletes_meanwhile_is_left_without_a_token() {
        let db = sqlite().await;
        let world = World::start(&db.db).await;
        let replica = world.replica("one", &[]).await;
        let this = quiet(&world, "a").await;
        let member = world.member();
        let machine = world.make(&member, "gone").await;
        world.gpu.pair("one");
        let injection = this.injection().await.unwrap().unwrap();
        let word = Word::of(this.inner().config.public_url.as_ref(), &injection).unwrap();
        let (row, known) = this.claim(machine.id, &word).await.unwrap().unwrap();
        assert!(
            this.claim(machine.id, &word).await.unwrap().is_none(),
            "it is taken"
        );
        let _ = world.delete(&member, machine.id).await;
        let (spot, vm) = (
            placed(&row).unwrap(),
            Vm::new(this.client().unwrap(), &this.inner().config, machine.id),
        );
        let ended = this.tell(&vm, &spot, &machine, &word, &mut false).await;
        assert!(
            matches!(ended, Err(Unprepared::Guest(MachineError::Gone { .. }))),
            "{ended:?}"
        );
        assert_eq!(token(&world, &machine), None);

        // One that ended here, between the token and its end: the token ends later.
        world.gpu.remember(machine.id, member.identity.user);
        pass(&this).await;
        assert!(
            token(&world, &machine).is_some(),
            "somebody may be telling it yet"
        );
        world.jump.forward(this.inner().config.gpu_inject_timeout + GRACE);
        pass(&this).await;
        assert_eq!(token(&world, &machine), None);

        // One that came to its end after the machine did.
        world.gpu.remember(machine.id, member.identity.user);
        this.settle(machine.id, &word, known, true, None).await.unwrap();
        assert_eq!(token(&world, &machine), None);
        replica.stop().await;
    }

    #[test]
    fn what_is_said_of_gpus_is_said_once() {
        let gpu = |text: &str| format!("{}{text}", super::super::WARNING);
        for (before, why, after) in [
            (None, None, None),
            (None, Some("a"), Some(gpu("a"))),
            (Some(gpu("a; b")), Some("c"), Some(gpu("c"))),
            (Some(gpu("a")), None, None),
            (Some("x".to_owned()), None, Some("x".to_owned())),
            (Some(format!("x; {}", gpu("a"))), None, Some("x".to_owned())),
            (Some("x".to_owned()), Some("a"), Some(format!("x; {}", gpu("a")))),
        ] {
            assert_eq!(message(before.as_deref(), why), after);
        }
    }
}
