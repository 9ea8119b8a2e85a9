//! How fast sagas of three steps are, with every event on disk: `cargo run --release -p nimbus-saga
//! --features testing --example saga_speed`. Steps do nothing, so this is what the notes cost.
//!
//! One line of JSON per engine and concurrency.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measuring tool")]

use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::future::join_all;
use nimbus_model::Clock;
use nimbus_saga::{Outcome, Outputs, Saga, SagaStore, StepError, UndoError, drive};
use nimbus_store::testing::{World, on_both};
use nimbus_store::{StoreError, migrations};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

#[derive(Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::EnumString, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
enum Step {
    One,
    Two,
    Three,
}

struct Nothing;

#[async_trait]
impl Saga for Nothing {
    const NAME: &'static str = "nothing/1";
    type Step = Step;
    async fn act(&self, _: Step, _: &Outputs) -> Result<Value, StepError> {
        Ok(Value::Null)
    }
    async fn undo(&self, _: Step, _: &Outputs) -> Result<(), UndoError> {
        Ok(())
    }
}

async fn one(sagas: &SagaStore, id: String) -> Duration {
    let begin = Instant::now();
    let claimed = sagas.begin_owned::<Nothing>(&id, &(), "bench").await.unwrap();
    let outcome = drive(&Nothing, sagas, claimed, &CancellationToken::new())
        .await
        .unwrap();
    assert!(matches!(outcome, Outcome::Done(_)));
    begin.elapsed()
}

async fn measure(world: &World, sagas: &SagaStore, concurrency: usize, each: usize) {
    let begin = Instant::now();
    let tasks = (0..concurrency).map(|task| {
        let sagas = sagas.clone();
        tokio::spawn(async move {
            let mut times = Vec::with_capacity(each);
            for n in 0..each {
                times.push(one(&sagas, format!("c{concurrency}-t{task}-n{n}")).await);
            }
            times
        })
    });
    let mut times: Vec<Duration> = join_all(tasks)
        .await
        .into_iter()
        .flat_map(Result::unwrap)
        .collect();
    let total = begin.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).unwrap().as_secs_f64() * 1000.0;
    println!(
        "{{\"what\":\"saga of 3 steps\",\"engine\":\"{:?}\",\"concurrency\":{concurrency},\"p50_ms\":{:.3},\"p99_ms\":{:.3},\"per_second\":{:.0}}}",
        world.engine(),
        at(50),
        at(99),
        f64::from(u32::try_from(times.len()).unwrap()) / total
    );
}

#[tokio::main]
async fn main() -> Result<(), StoreError> {
    on_both(|world| async move {
        let store = world
            .db
            .store("speed", migrations!["0001_saga" => nimbus_saga::ddl!("speed")])
            .await
            .unwrap();
        let sagas = SagaStore::new(store, "speed", Clock::system());
        // The first ones also fill caches and make connections.
        for n in 0..20 {
            one(&sagas, format!("warm-up{n}")).await;
        }
        for (concurrency, each) in [(1, 300), (8, 100), (64, 50)] {
            measure(&world, &sagas, concurrency, each).await;
        }
    })
    .await;
    Ok(())
}
