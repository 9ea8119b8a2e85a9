//! The exported rounds, on a saga that stands them and on ones that do not.

use async_trait::async_trait;
use nimbus_saga::testing::{
    World, acts_and_undoes_twice, fails_at_each_step, is_cut_at_each_await, stands_everything,
};
use nimbus_saga::{Outputs, Saga, StepError, UndoError};
use serde_json::Value;

use crate::kitchen::{Dinner, Step};

struct Evening(Dinner);

#[async_trait]
impl World for Evening {
    type Saga = Dinner;

    fn saga(&self) -> Dinner {
        self.0.clone()
    }

    async fn assert_done(&self, outputs: &Outputs) {
        assert_eq!(self.0.room.served(), 1);
        assert_eq!(outputs.find::<_, String>(Step::Serve).as_deref(), Some("enjoy"));
    }

    async fn assert_nothing_left(&self) {
        assert!(self.0.room.is_empty(), "{:?}", self.0.room);
    }
}

#[tokio::test]
async fn dinner_stands_everything() {
    stands_everything(|| async { Evening(Dinner::new("ada")) }).await;
}

/// A dinner with one mistake.
struct Sloppy {
    inner: Dinner,
    mistake: Mistake,
}

#[derive(Clone, Copy)]
enum Mistake {
    /// Undo of the failing step is believed to be unnecessary.
    LeavesThePlate,
    /// Takes a second seat when it is asked again.
    SitsTwice,
}

#[async_trait]
impl Saga for Sloppy {
    const NAME: &'static str = "dinner/1";
    type Step = Step;

    async fn act(&self, step: Step, done: &Outputs) -> Result<Value, StepError> {
        match (self.mistake, step) {
            (Mistake::SitsTwice, Step::PickSeat) if self.inner.room.seats(&self.inner.guest) => {
                let again = Dinner {
                    guest: format!("{} again", self.inner.guest),
                    ..self.inner.clone()
                };
                again.act(step, done).await
            }
            _ => self.inner.act(step, done).await,
        }
    }

    async fn undo(&self, step: Step, done: &Outputs) -> Result<(), UndoError> {
        match (self.mistake, step) {
            (Mistake::LeavesThePlate, Step::Cook) => Ok(()),
            _ => self.inner.undo(step, done).await,
        }
    }
}

struct SloppyEvening(Dinner, Mistake);

#[async_trait]
impl World for SloppyEvening {
    type Saga = Sloppy;

    fn saga(&self) -> Sloppy {
        Sloppy {
            inner: self.0.clone(),
            mistake: self.1,
        }
    }

    async fn assert_done(&self, _outputs: &Outputs) {
        assert_eq!(self.0.room.served(), 1);
    }

    async fn assert_nothing_left(&self) {
        assert!(self.0.room.is_empty(), "{:?}", self.0.room);
    }
}

fn sloppy(mistake: Mistake) -> impl Fn() -> std::future::Ready<SloppyEvening> {
    move || std::future::ready(SloppyEvening(Dinner::new("ada"), mistake))
}

#[tokio::test]
async fn mistakes_do_not_show_without_trouble() {
    nimbus_saga::testing::works(sloppy(Mistake::LeavesThePlate)).await;
    nimbus_saga::testing::works(sloppy(Mistake::SitsTwice)).await;
}

#[tokio::test]
#[should_panic(expected = "plates: Mutex { data: {1")]
async fn the_rounds_find_what_an_undo_leaves() {
    fails_at_each_step(sloppy(Mistake::LeavesThePlate)).await;
}

#[tokio::test]
#[should_panic(expected = "assertion")]
async fn the_rounds_find_what_a_repeat_doubles() {
    acts_and_undoes_twice(sloppy(Mistake::SitsTwice)).await;
}

#[tokio::test]
#[should_panic(expected = "assertion")]
async fn the_rounds_find_what_a_takeover_doubles() {
    is_cut_at_each_await(sloppy(Mistake::SitsTwice)).await;
}
