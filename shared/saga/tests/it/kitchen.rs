//! A saga to try things on: it makes dinner on a table that others use too.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use nimbus_errors::{Code, Fault};
use nimbus_model::Clock;
use nimbus_saga::{Outputs, Policy, Saga, SagaStore, StepError, UndoError};
use nimbus_store::testing::World;
use nimbus_store::{Store, migrations};
use serde_json::Value;
use tokio::sync::Notify;

#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::EnumString, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum Step {
    PickSeat,
    Cook,
    Serve,
}

/// The outside world: seats and plates, each with the guest it is for.
#[derive(Debug, Default)]
pub(crate) struct Room {
    seats: Mutex<BTreeMap<u32, String>>,
    plates: Mutex<BTreeMap<u32, String>>,
    served: Mutex<BTreeMap<u32, String>>,
}

impl Room {
    pub(crate) fn is_empty(&self) -> bool {
        self.seats.lock().unwrap().is_empty()
            && self.plates.lock().unwrap().is_empty()
            && self.served.lock().unwrap().is_empty()
    }

    pub(crate) fn seats(&self, guest: &str) -> bool {
        self.seats.lock().unwrap().values().any(|other| other == guest)
    }

    pub(crate) fn served(&self) -> usize {
        assert_eq!(
            self.seats.lock().unwrap().len(),
            self.served.lock().unwrap().len()
        );
        self.served.lock().unwrap().len()
    }
}

#[derive(Clone)]
pub(crate) struct Dinner {
    pub(crate) guest: String,
    pub(crate) room: Arc<Room>,
    /// How often cooking fails with "try again".
    pub(crate) burnt: Arc<AtomicU32>,
    /// How often clearing a plate fails.
    pub(crate) stuck: Arc<AtomicU32>,
    /// What serving does.
    pub(crate) serving: Serving,
    /// Told when serving begins.
    pub(crate) began: Arc<Notify>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Serving {
    Works,
    Refuses,
    Panics,
    Waits,
    WaitsInterruptibly,
}

impl Dinner {
    pub(crate) fn new(guest: &str) -> Self {
        Self {
            guest: guest.to_owned(),
            room: Arc::default(),
            burnt: Arc::default(),
            stuck: Arc::default(),
            serving: Serving::Works,
            began: Arc::default(),
        }
    }

    pub(crate) fn serving(mut self, serving: Serving) -> Self {
        self.serving = serving;
        self
    }
}

fn once_less(counter: &AtomicU32) -> bool {
    counter
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
        .is_ok()
}

#[async_trait]
impl Saga for Dinner {
    const NAME: &'static str = "dinner/1";
    type Step = Step;

    async fn act(&self, step: Step, done: &Outputs) -> Result<Value, StepError> {
        match step {
            Step::PickSeat => {
                tokio::task::yield_now().await;
                let mut seats = self.room.seats.lock().unwrap();
                if let Some((seat, _)) = seats.iter().find(|(_, guest)| **guest == self.guest) {
                    return Ok((*seat).into());
                }
                let seat = (1..).find(|seat| !seats.contains_key(seat)).unwrap();
                seats.insert(seat, self.guest.clone());
                Ok(seat.into())
            }
            Step::Cook => {
                if once_less(&self.burnt) {
                    return Err(StepError::retry(Fault::new(Code::ServiceUnavailable, "burnt")));
                }
                let seat: u32 = done.get(Step::PickSeat)?;
                self.room.plates.lock().unwrap().insert(seat, self.guest.clone());
                tokio::task::yield_now().await;
                Ok(Value::Null)
            }
            Step::Serve => {
                self.began.notify_one();
                match self.serving {
                    Serving::Works => {}
                    Serving::Refuses => return Err(Fault::new(Code::OpConflict, "the guest left").into()),
                    Serving::Panics => panic!("dropped it"),
                    Serving::Waits | Serving::WaitsInterruptibly => std::future::pending().await,
                }
                let seat: u32 = done.get(Step::PickSeat)?;
                tokio::task::yield_now().await;
                self.room.plates.lock().unwrap().remove(&seat);
                self.room.served.lock().unwrap().insert(seat, self.guest.clone());
                tokio::task::yield_now().await;
                Ok("enjoy".into())
            }
        }
    }

    async fn undo(&self, step: Step, _done: &Outputs) -> Result<(), UndoError> {
        tokio::task::yield_now().await;
        let clear = |table: &Mutex<BTreeMap<u32, String>>| {
            table.lock().unwrap().retain(|_, guest| *guest != self.guest)
        };
        match step {
            Step::PickSeat => clear(&self.room.seats),
            Step::Cook => {
                if once_less(&self.stuck) {
                    return Err(Fault::new(Code::ServiceUnavailable, "the dishwasher is broken").into());
                }
                clear(&self.room.plates);
            }
            Step::Serve => clear(&self.room.served),
        }
        Ok(())
    }

    fn policy(&self) -> Policy {
        Policy {
            act_attempts: 3,
            undo_attempts: 3,
            first_wait: Duration::from_millis(1),
            longest_wait: Duration::from_millis(5),
            ..Policy::default()
        }
    }

    fn interruptible(&self, step: Step) -> bool {
        step == Step::Serve && self.serving == Serving::WaitsInterruptibly
    }
}

pub(crate) async fn tables(world: &World) -> Store {
    let list = migrations![
        "0001_saga" => nimbus_saga::ddl!("inn"),
        "0002_bell" => "CREATE TABLE inn_bell (saga TEXT NOT NULL, seq BIGINT NOT NULL, what TEXT NOT NULL, state TEXT NOT NULL)",
    ];
    world.db.store("inn", list).await.unwrap()
}

pub(crate) async fn sagas(world: &World) -> SagaStore {
    SagaStore::new(tables(world).await, "inn", Clock::system())
}
