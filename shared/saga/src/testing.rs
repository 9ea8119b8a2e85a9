//! The rounds that every saga has to stand.
//!
//! Implement [`World`] for what the saga works on (a simulator, the service's own tables), then
//! `stands_everything(|| async { MyWorld::fresh().await }).await`. Each round gets a world of its own.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use nimbus_errors::{Code, Fault};
use nimbus_model::Clock;
use nimbus_store::{migrations, testing};
use serde_json::Value;
use strum::VariantArray;
use tokio_util::sync::CancellationToken;

use crate::{
    Claimed, End, History, Next, Outcome, Outputs, Policy, Saga, SagaStore, StepError, UndoError, drive,
};

/// What a saga works on.
#[async_trait]
pub trait World: Send + Sync {
    /// The saga.
    type Saga: Saga;

    /// The saga on this world, as a replica makes it; called again for each takeover.
    fn saga(&self) -> Self::Saga;

    /// Panics unless everything the saga should make is there, once.
    async fn assert_done(&self, outputs: &Outputs);

    /// Panics unless everything is as before the saga.
    async fn assert_nothing_left(&self);
}

/// Where a rigged step fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fail {
    /// Before it did anything.
    Before,
    /// After it did everything; its output is lost.
    After,
}

/// A saga that fails where it is told to, and does things twice.
struct Rigged<S: Saga> {
    inner: S,
    fail: Option<(S::Step, Fail)>,
    twice: bool,
}

#[async_trait]
impl<S: Saga> Saga for Rigged<S> {
    const NAME: &'static str = S::NAME;
    type Step = S::Step;

    async fn act(&self, step: S::Step, done: &Outputs) -> Result<Value, StepError> {
        let broken = || StepError::give_up(Fault::new(Code::OpConflict, "the test lets this step fail"));
        if self.fail == Some((step, Fail::Before)) {
            return Err(broken());
        }
        if self.twice {
            self.inner.act(step, done).await?;
        }
        let output = self.inner.act(step, done).await?;
        // Somewhere to be cut after the effect and before the note of it.
        tokio::task::yield_now().await;
        if self.fail == Some((step, Fail::After)) {
            Err(broken())
        } else {
            Ok(output)
        }
    }

    async fn undo(&self, step: S::Step, done: &Outputs) -> Result<(), UndoError> {
        if self.twice {
            self.inner.undo(step, done).await?;
        }
        self.inner.undo(step, done).await?;
        tokio::task::yield_now().await;
        Ok(())
    }

    fn policy(&self) -> Policy {
        // Many takeovers are the point of the rounds, and waiting is not.
        Policy {
            resumptions: 10_000,
            first_wait: Duration::from_millis(1),
            longest_wait: Duration::from_millis(20),
            ..self.inner.policy()
        }
    }

    fn time_limit(&self, step: S::Step) -> Duration {
        self.inner.time_limit(step)
    }

    fn interruptible(&self, step: S::Step) -> bool {
        self.inner.interruptible(step)
    }
}

/// A store for the rounds.
struct Rig {
    sagas: SagaStore,
    next: std::sync::atomic::AtomicU32,
    _world: testing::World,
}

impl Rig {
    async fn new() -> Self {
        let world = testing::sqlite().await;
        let store = world
            .db
            .store("rig", migrations!["0001_saga" => crate::ddl!("rig")])
            .await
            .expect("a fresh database takes the tables");
        Self {
            sagas: SagaStore::new(store.clone(), "rig", Clock::system()),
            next: 0.into(),
            _world: world,
        }
    }

    async fn create<S: Saga>(&self) -> Claimed {
        let id = format!(
            "saga{}",
            self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
        );
        let mut tx = self
            .sagas_store()
            .begin()
            .await
            .expect("the database is ours alone");
        let claimed = self
            .sagas
            .create_owned::<S>(&mut tx, &id, &(), "first")
            .await
            .expect("the id is new");
        tx.commit().await.expect("the database is ours alone");
        claimed
    }

    fn sagas_store(&self) -> &nimbus_store::Store {
        self.sagas.store()
    }

    /// Drives until the `polls`-th await, then drops everything, as a crash would. `None`: cut.
    async fn cut<S: Saga>(&self, saga: &S, claimed: Claimed, polls: usize) -> Option<Outcome> {
        let stop = CancellationToken::new();
        let mut driving = pin!(drive(saga, &self.sagas, claimed, &stop));
        let mut left = polls;
        let outcome = poll_fn(|context| match driving.as_mut().poll(context) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => {
                left -= 1;
                Poll::Pending
            }
        })
        .await;
        outcome.map(|outcome| outcome.expect("a rigged saga meets no failure of the machinery"))
    }

    async fn finish<S: Saga>(&self, saga: &S, claimed: Claimed) -> Outcome {
        drive(saga, &self.sagas, claimed, &CancellationToken::new())
            .await
            .expect("a rigged saga meets no failure of the machinery")
    }

    /// What the next process does after a crash; or how the saga had ended before it.
    async fn take_over<S: Saga>(&self, id: &str) -> Result<Claimed, Outcome> {
        self.sagas
            .forget_leases()
            .await
            .expect("the database is ours alone");
        if let Some(claimed) = self
            .sagas
            .claim(id, "second")
            .await
            .expect("the database is ours alone")
        {
            return Ok(claimed);
        }
        // The write that ended it was under way when the cut came.
        let events = self.sagas.events(id).await.expect("the database is ours alone");
        let history = History::<S::Step>::of(&events);
        Err(match history.next(&Policy::default()) {
            Next::End(End::Done) => Outcome::Done(history.outputs().clone()),
            Next::End(End::Undone(fault)) => Outcome::Undone(fault),
            // Reads as a failure in every round.
            _ => Outcome::Lost,
        })
    }
}

/// Every round.
///
/// # Panics
/// When the saga does not stand one.
pub async fn stands_everything<W, F, Fut>(make: F)
where
    W: World,
    F: Fn() -> Fut,
    Fut: Future<Output = W>,
{
    works(&make).await;
    fails_at_each_step(&make).await;
    acts_and_undoes_twice(&make).await;
    is_cancelled_before_each_step(&make).await;
    is_cut_at_each_await(&make).await;
}

/// Nothing goes wrong.
///
/// # Panics
/// When the saga does not end well.
pub async fn works<W, F, Fut>(make: F)
where
    W: World,
    F: Fn() -> Fut,
    Fut: Future<Output = W>,
{
    let rig = Rig::new().await;
    let world = make().await;
    let outcome = rig
        .finish(&rigged(&world, None, false), rig.create::<W::Saga>().await)
        .await;
    expect_done(&world, &outcome, "without trouble").await;
}

/// Each step fails, before it did anything and after it did everything.
///
/// # Panics
/// When something is left.
pub async fn fails_at_each_step<W, F, Fut>(make: F)
where
    W: World,
    F: Fn() -> Fut,
    Fut: Future<Output = W>,
{
    let rig = Rig::new().await;
    for step in <W::Saga as Saga>::Step::VARIANTS {
        for fail in [Fail::Before, Fail::After] {
            let world = make().await;
            let outcome = rig
                .finish(
                    &rigged(&world, Some((*step, fail)), false),
                    rig.create::<W::Saga>().await,
                )
                .await;
            expect_undone(&world, &outcome, &format!("{} failed ({fail:?})", name(*step))).await;
        }
    }
}

/// Every act and every undo runs twice.
///
/// # Panics
/// When that makes a difference.
pub async fn acts_and_undoes_twice<W, F, Fut>(make: F)
where
    W: World,
    F: Fn() -> Fut,
    Fut: Future<Output = W>,
{
    let rig = Rig::new().await;
    let world = make().await;
    let outcome = rig
        .finish(&rigged(&world, None, true), rig.create::<W::Saga>().await)
        .await;
    expect_done(&world, &outcome, "with every act twice").await;
    for step in <W::Saga as Saga>::Step::VARIANTS {
        let world = make().await;
        let saga = rigged(&world, Some((*step, Fail::After)), true);
        let outcome = rig.finish(&saga, rig.create::<W::Saga>().await).await;
        expect_undone(
            &world,
            &outcome,
            &format!("{} failed, everything twice", name(*step)),
        )
        .await;
    }
}

/// A cancel is asked for at each await; whatever it meets, the saga is done or gone.
///
/// # Panics
/// When it is neither.
pub async fn is_cancelled_before_each_step<W, F, Fut>(make: F)
where
    W: World,
    F: Fn() -> Fut,
    Fut: Future<Output = W>,
{
    let rig = Rig::new().await;
    for polls in 0.. {
        let world = make().await;
        let saga = rigged(&world, None, false);
        let claimed = rig.create::<W::Saga>().await;
        let id = claimed.id().to_owned();
        let cut = rig.cut(&saga, claimed, polls).await;
        let (asked, outcome) = match cut {
            Some(outcome) => (false, outcome),
            None => {
                let asked = rig
                    .sagas
                    .request_cancel(&id)
                    .await
                    .expect("the database is ours alone");
                match rig.take_over::<W::Saga>(&id).await {
                    Ok(claimed) => (asked, rig.finish(&saga, claimed).await),
                    Err(outcome) => (asked, outcome),
                }
            }
        };
        let whole = !asked;
        let round = format!("cancelled at await {polls}");
        if matches!(outcome, Outcome::Done(_)) {
            expect_done(&world, &outcome, &round).await;
        } else {
            expect_undone(&world, &outcome, &round).await;
        }
        if whole {
            break;
        }
    }
}

/// The process dies at each await, on the way forward and on the way back, and another goes on; and
/// dies at the same place again.
///
/// # Panics
/// When a takeover does not end as an undisturbed run does.
pub async fn is_cut_at_each_await<W, F, Fut>(make: F)
where
    W: World,
    F: Fn() -> Fut,
    Fut: Future<Output = W>,
{
    let rig = Rig::new().await;
    let last = <W::Saga as Saga>::Step::VARIANTS
        .last()
        .map(|step| (*step, Fail::After));
    for fail in [None, last] {
        for polls in 0.. {
            let world = make().await;
            let saga = rigged(&world, fail, false);
            let claimed = rig.create::<W::Saga>().await;
            let id = claimed.id().to_owned();
            let mut outcome = rig.cut(&saga, claimed, polls).await;
            let whole = outcome.is_some();
            // Twice at the same distance, then undisturbed.
            for again in [Some(polls), None] {
                if outcome.is_some() {
                    break;
                }
                outcome = match (rig.take_over::<W::Saga>(&id).await, again) {
                    (Ok(claimed), Some(polls)) => rig.cut(&saga, claimed, polls).await,
                    (Ok(claimed), None) => Some(rig.finish(&saga, claimed).await),
                    (Err(outcome), _) => Some(outcome),
                };
            }
            let round = format!(
                "cut at await {polls}, {}",
                if fail.is_some() {
                    "last step fails"
                } else {
                    "no failure"
                }
            );
            let outcome = outcome.unwrap_or(Outcome::Lost);
            match fail {
                None => expect_done(&world, &outcome, &round).await,
                Some(_) => expect_undone(&world, &outcome, &round).await,
            }
            if whole {
                break;
            }
        }
    }
}

fn rigged<W: World>(
    world: &W,
    fail: Option<(<W::Saga as Saga>::Step, Fail)>,
    twice: bool,
) -> Rigged<W::Saga> {
    Rigged {
        inner: world.saga(),
        fail,
        twice,
    }
}

fn name<S: crate::Step>(step: S) -> &'static str {
    step.into()
}

async fn expect_done<W: World>(world: &W, outcome: &Outcome, round: &str) {
    assert!(matches!(outcome, Outcome::Done(_)), "{round}: {outcome:?}");
    if let Outcome::Done(outputs) = outcome {
        world.assert_done(outputs).await;
    }
}

async fn expect_undone<W: World>(world: &W, outcome: &Outcome, round: &str) {
    assert!(matches!(outcome, Outcome::Undone(_)), "{round}: {outcome:?}");
    world.assert_nothing_left().await;
}
