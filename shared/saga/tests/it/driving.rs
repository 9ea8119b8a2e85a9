//! Driving, leases, cancelling, observers; on both engines.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use nimbus_errors::Code;
use nimbus_model::Clock;
use nimbus_saga::{
    Claimed, History, Observer, Outcome, Saga, SagaError, SagaEvent, SagaStore, State, StepState, What, drive,
};
use nimbus_store::testing::{World, on_both};
use nimbus_store::{Engine, StoreError, Tx, execute, reading, sqlx};
use tokio_util::sync::CancellationToken;

use crate::kitchen::{Dinner, Serving, Step, sagas, tables};

async fn create(sagas: &SagaStore, id: &str) -> Claimed {
    let mut tx = sagas.store().begin().await.unwrap();
    let claimed = sagas
        .create_owned::<Dinner>(&mut tx, id, &"ada", "one")
        .await
        .unwrap();
    tx.commit().await.unwrap();
    claimed
}

async fn run(sagas: &SagaStore, dinner: &Dinner, claimed: Claimed) -> Outcome {
    drive(dinner, sagas, claimed, &CancellationToken::new())
        .await
        .unwrap()
}

async fn state(sagas: &SagaStore, id: &str) -> State {
    sagas.find(id).await.unwrap().unwrap().state
}

#[tokio::test]
async fn steps_are_done_in_order_and_written_down() {
    on_both(|world| async move {
        let sagas = sagas(&world).await;
        let dinner = Dinner::new("ada");
        let claimed = create(&sagas, "a").await;
        assert_eq!(claimed.params::<String>().unwrap(), "ada");
        let Outcome::Done(outputs) = run(&sagas, &dinner, claimed).await else {
            panic!("not done")
        };
        assert_eq!(outputs.get::<_, u32>(Step::PickSeat).unwrap(), 1);
        let record = sagas.find("a").await.unwrap().unwrap();
        assert_eq!(
            (record.state, record.owner.as_str(), record.name.as_str()),
            (State::Done, "", "dinner/1")
        );
        let told: Vec<(i64, Option<&str>, What)> = record
            .events
            .iter()
            .map(|e| (e.seq, e.step.as_deref(), e.what))
            .collect();
        assert_eq!(
            told,
            [
                (1, Some("pick_seat"), What::Started),
                (2, Some("pick_seat"), What::Done),
                (3, Some("cook"), What::Started),
                (4, Some("cook"), What::Done),
                (5, Some("serve"), What::Started),
                (6, Some("serve"), What::Done),
            ]
        );
        assert!(
            sagas.claim("a", "two").await.unwrap().is_none(),
            "a finished saga was claimed"
        );
    })
    .await;
}

#[tokio::test]
async fn what_can_be_tried_again_is_tried_a_bounded_number_of_times() {
    on_both(|world| async move {
        let sagas = sagas(&world).await;
        let dinner = Dinner::new("ada");
        dinner.burnt.store(2, Ordering::Relaxed);
        let claimed = create(&sagas, "a").await;
        assert!(matches!(run(&sagas, &dinner, claimed).await, Outcome::Done(_)));
        dinner.burnt.store(3, Ordering::Relaxed);
        let dinner = Dinner {
            guest: "bob".into(),
            ..dinner
        };
        let claimed = create(&sagas, "b").await;
        assert!(
            matches!(run(&sagas, &dinner, claimed).await, Outcome::Undone(fault) if fault.message == "burnt")
        );
        assert_eq!(dinner.room.served(), 1, "only ada sits");
    })
    .await;
}

#[tokio::test]
async fn a_refusal_and_a_panic_take_everything_back() {
    on_both(|world| async move {
        let sagas = sagas(&world).await;
        for (id, serving, code) in [
            ("a", Serving::Refuses, Code::OpConflict),
            ("b", Serving::Panics, Code::ServiceInternal),
        ] {
            let dinner = Dinner::new("ada").serving(serving);
            let claimed = create(&sagas, id).await;
            let outcome = run(&sagas, &dinner, claimed).await;
            assert!(
                matches!(&outcome, Outcome::Undone(fault) if fault.is(code)),
                "{outcome:?}"
            );
            assert!(dinner.room.is_empty());
            assert_eq!(state(&sagas, id).await, State::Undone);
            let events = sagas.events(id).await.unwrap();
            let steps = History::<Step>::of(&events).steps();
            assert!(
                steps.iter().all(|step| step.state == StepState::Undone),
                "{steps:?}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn an_undo_that_keeps_failing_is_stuck_until_an_operator_reopens_it() {
    on_both(|world| async move {
        let sagas = sagas(&world).await;
        let dinner = Dinner::new("ada").serving(Serving::Refuses);
        dinner.stuck.store(4, Ordering::Relaxed);
        let claimed = create(&sagas, "a").await;
        let outcome = run(&sagas, &dinner, claimed).await;
        assert!(matches!(&outcome, Outcome::Stuck { step, fault } if step == "cook" && fault.message.contains("dishwasher")), "{outcome:?}");
        assert_eq!(state(&sagas, "a").await, State::Stuck);
        assert!(sagas.claim("a", "two").await.unwrap().is_none());
        assert!(sagas.reopen("a").await.unwrap());
        assert!(!sagas.reopen("a").await.unwrap(), "reopened twice");
        let claimed = sagas.claim_abandoned("two", 10).await.unwrap().pop().unwrap();
        assert!(matches!(run(&sagas, &dinner, claimed).await, Outcome::Undone(fault) if fault.is(Code::OpConflict)));
        assert!(dinner.room.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_replica_that_lost_its_lease_cannot_write() {
    on_both(|world| async move {
        let store = tables(&world).await;
        let (clock, jump) = Clock::movable();
        let one = SagaStore::new(store.clone(), "inn", clock.clone());
        let two = SagaStore::new(store, "inn", clock);
        let dinner = Dinner::new("ada");
        let slow = create(&one, "a").await;
        assert!(
            two.claim("a", "two").await.unwrap().is_none(),
            "claimed although the lease runs"
        );
        assert!(two.claim_abandoned("two", 10).await.unwrap().is_empty());
        jump.forward(Duration::from_secs(60));
        let claimed = two.claim_abandoned("two", 10).await.unwrap().pop().unwrap();
        assert_eq!(run(&one, &dinner, slow).await, Outcome::Lost);
        assert_eq!(one.events("a").await.unwrap().len(), 1, "the loser wrote");
        assert!(matches!(run(&two, &dinner, claimed).await, Outcome::Done(_)));
        assert_eq!(dinner.room.served(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_lease_is_kept_alive_during_a_long_step_and_its_loss_ends_the_step() {
    on_both(|world| async move {
        let store = tables(&world).await;
        let (clock, jump) = Clock::movable();
        let lease = Duration::from_millis(60);
        let one = SagaStore::new(store.clone(), "inn", clock.clone()).with_lease(lease);
        let two = SagaStore::new(store, "inn", clock).with_lease(lease);
        let dinner = Dinner::new("ada").serving(Serving::Waits);
        let began = Arc::clone(&dinner.began);
        let claimed = create(&one, "a").await;
        let slow = tokio::spawn({
            let (one, dinner) = (one.clone(), dinner.clone());
            async move { run(&one, &dinner, claimed).await }
        });
        began.notified().await;
        let first = one.find("a").await.unwrap().unwrap().owner_until;
        while one.find("a").await.unwrap().unwrap().owner_until == first {
            tokio::task::yield_now().await;
        }
        // Far enough that the lease is over, whatever was renewed a moment ago; then somebody claims it first.
        let claimed = loop {
            jump.forward(Duration::from_secs(3600));
            if let Some(claimed) = two.claim("a", "two").await.unwrap() {
                break claimed;
            }
        };
        assert_eq!(slow.await.unwrap(), Outcome::Lost);
        assert!(matches!(
            run(&two, &dinner.clone().serving(Serving::Works), claimed).await,
            Outcome::Done(_)
        ));
    })
    .await;
}

#[tokio::test]
async fn a_cancel_interrupts_only_what_allows_it() {
    on_both(|world| async move {
        let sagas = sagas(&world).await;
        let dinner = Dinner::new("ada").serving(Serving::WaitsInterruptibly);
        let claimed = create(&sagas, "a").await;
        let driving = tokio::spawn({
            let (sagas, dinner) = (sagas.clone(), dinner.clone());
            async move { run(&sagas, &dinner, claimed).await }
        });
        dinner.began.notified().await;
        assert!(sagas.request_cancel("a").await.unwrap());
        assert!(matches!(driving.await.unwrap(), Outcome::Undone(fault) if fault.is(Code::OpCancelled)));
        assert!(dinner.room.is_empty());
        assert!(
            !sagas.request_cancel("a").await.unwrap(),
            "cancelled what had ended"
        );

        // Asked for before it runs: the flag is in the row, and the next claim sees it.
        let dinner = Dinner::new("bob");
        drop(create(&sagas, "b").await);
        assert!(sagas.request_cancel("b").await.unwrap());
        let claimed = sagas.claim("b", "one").await.unwrap().unwrap();
        assert!(matches!(run(&sagas, &dinner, claimed).await, Outcome::Undone(_)));
        assert!(dinner.room.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_process_that_stops_hands_over_at_once() {
    on_both(|world| async move {
        let store = tables(&world).await;
        let one = SagaStore::new(store.clone(), "inn", Clock::system());
        let two = SagaStore::new(store, "inn", Clock::system());
        let dinner = Dinner::new("ada").serving(Serving::Waits);
        let claimed = create(&one, "a").await;
        let stop = CancellationToken::new();
        let (outcome, ()) = tokio::join!(drive(&dinner, &one, claimed, &stop), async {
            dinner.began.notified().await;
            stop.cancel();
        });
        assert_eq!(outcome.unwrap(), Outcome::Stopped);
        let claimed = two
            .claim("a", "two")
            .await
            .unwrap()
            .expect("the lease was given back");
        let outcome = run(&two, &dinner.clone().serving(Serving::Works), claimed).await;
        assert!(matches!(outcome, Outcome::Done(_)));
        let resumed = two
            .events("a")
            .await
            .unwrap()
            .into_iter()
            .filter(|e| e.what == What::Resumed)
            .count();
        assert_eq!(resumed, 1);
    })
    .await;
}

#[tokio::test]
async fn after_a_crash_only_sqlite_need_not_wait_for_the_lease() {
    on_both(|world| async move {
        drop(create(&sagas(&world).await, "a").await);
        let next = sagas(&world).await;
        let forgotten = next.forget_leases().await.unwrap();
        let claimed = next.claim("a", "two").await.unwrap();
        assert_eq!(
            (forgotten == 1, claimed.is_some()),
            (world.engine() == Engine::Sqlite, world.engine() == Engine::Sqlite)
        );
        // A replica that comes back under its name may go on at once on both.
        drop(claimed);
        let owner = if world.engine() == Engine::Sqlite {
            "two"
        } else {
            "one"
        };
        assert!(next.claim("a", owner).await.unwrap().is_some());
    })
    .await;
}

#[tokio::test]
async fn one_process_does_not_claim_twice_what_it_drives() {
    on_both(|world| async move {
        let sagas = sagas(&world).await;
        let claimed = create(&sagas, "a").await;
        assert!(sagas.claim("a", "one").await.unwrap().is_none());
        drop(claimed);
        assert!(sagas.claim("a", "one").await.unwrap().is_some());
    })
    .await;
}

#[tokio::test]
async fn a_saga_and_the_callers_row_are_one_transaction() {
    on_both(|world| async move {
        let sagas = sagas(&world).await;
        let mut tx = sagas.store().begin().await.unwrap();
        sagas.create::<Dinner>(&mut tx, "a", &"ada").await.unwrap();
        execute!(
            &mut tx,
            sqlx::query("INSERT INTO inn_bell (saga, seq, what, state) VALUES ('a', 0, 'mine', 'x')")
        )
        .unwrap();
        tx.rollback().await.unwrap();
        assert!(sagas.find("a").await.unwrap().is_none());
        assert!(sagas.abandoned(10).await.unwrap().is_empty());
        let mut tx = sagas.store().begin().await.unwrap();
        sagas.create::<Dinner>(&mut tx, "a", &"ada").await.unwrap();
        tx.commit().await.unwrap();
        let claimed = sagas.claim_abandoned("one", 10).await.unwrap().pop().unwrap();
        assert!(matches!(
            run(&sagas, &Dinner::new("ada"), claimed).await,
            Outcome::Done(_)
        ));
        assert!(
            !sagas
                .events("a")
                .await
                .unwrap()
                .iter()
                .any(|e| e.what == What::Resumed),
            "a first claim is no takeover"
        );
    })
    .await;
}

/// Writes each event into a table in the same transaction, and remembers what it was told after the commit.
#[derive(Default)]
struct Bell {
    heard: Mutex<Vec<(i64, State)>>,
    broken: std::sync::atomic::AtomicBool,
}

const RING: &str = "INSERT INTO inn_bell (saga, seq, what, state) VALUES ($1, $2, $3, $4)";

#[async_trait]
impl Observer for Bell {
    async fn on_event(&self, tx: &mut Tx, event: &SagaEvent) -> Result<(), StoreError> {
        let table_is_gone = self.broken.load(Ordering::Relaxed);
        let (what, state): (&'static str, &'static str) = (event.event.what.into(), event.state.into());
        execute!(
            tx,
            sqlx::query(RING)
                .bind(&event.saga)
                .bind(event.event.seq)
                .bind(what)
                .bind(state)
        )?;
        if table_is_gone {
            Err(StoreError::Interrupted)
        } else {
            Ok(())
        }
    }

    fn committed(&self, event: &SagaEvent) {
        self.heard.lock().unwrap().push((event.event.seq, event.state));
    }
}

async fn rung(world: &World) -> Vec<(i64, String)> {
    let store = tables(world).await;
    reading!(&store, |c| sqlx::query_as(
        "SELECT seq, state FROM inn_bell ORDER BY seq"
    )
    .fetch_all(c)
    .await)
    .unwrap()
}

#[tokio::test]
async fn an_observers_row_is_there_exactly_when_the_event_is() {
    on_both(|world| async move {
        let bell = Arc::new(Bell::default());
        let observer: Arc<dyn Observer> = Arc::<Bell>::clone(&bell);
        let sagas = sagas(&world).await.with_observer(observer);
        let claimed = create(&sagas, "a").await;
        assert!(matches!(
            run(&sagas, &Dinner::new("ada"), claimed).await,
            Outcome::Done(_)
        ));
        let rows = rung(&world).await;
        assert_eq!(
            rows.iter().map(|row| row.0).collect::<Vec<_>>(),
            [1, 2, 3, 4, 5, 6]
        );
        assert_eq!(rows.last().unwrap().1, "done");
        let heard = bell.heard.lock().unwrap().clone();
        assert_eq!(heard.iter().map(|h| h.0).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
        assert_eq!((heard[4].1, heard[5].1), (State::Running, State::Done));

        let claimed = create(&sagas, "b").await;
        bell.broken.store(true, Ordering::Relaxed);
        let failed = drive(&Dinner::new("bob"), &sagas, claimed, &CancellationToken::new()).await;
        assert!(
            matches!(
                failed,
                Err(SagaError::Store {
                    source: StoreError::Interrupted
                })
            ),
            "{failed:?}"
        );
        assert_eq!(
            (rung(&world).await.len(), sagas.events("b").await.unwrap().len()),
            (7, 1)
        );
    })
    .await;
}

#[tokio::test]
async fn the_wrong_code_does_not_drive_a_saga() {
    struct Lunch;
    #[async_trait]
    impl Saga for Lunch {
        const NAME: &'static str = "lunch/1";
        type Step = Step;
        async fn act(
            &self,
            _: Step,
            _: &nimbus_saga::Outputs,
        ) -> Result<serde_json::Value, nimbus_saga::StepError> {
            unreachable!("lunch is not driven")
        }
        async fn undo(&self, _: Step, _: &nimbus_saga::Outputs) -> Result<(), nimbus_saga::UndoError> {
            unreachable!("lunch is not driven")
        }
    }
    on_both(|world| async move {
        let sagas = sagas(&world).await;
        let claimed = create(&sagas, "a").await;
        let wrong = drive(&Lunch, &sagas, claimed, &CancellationToken::new()).await;
        assert!(matches!(wrong, Err(SagaError::WrongName { found, .. }) if found == "dinner/1"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_compete_drive_each_saga_once() {
    on_both(|world| async move {
        let store = tables(&world).await;
        let dinner = Dinner::new("");
        let replicas: Vec<SagaStore> = (0..3)
            .map(|_| SagaStore::new(store.clone(), "inn", Clock::system()))
            .collect();
        let mut tx = store.begin().await.unwrap();
        for n in 0..40 {
            replicas[0]
                .create::<Dinner>(&mut tx, &format!("s{n:02}"), &format!("guest{n}"))
                .await
                .unwrap();
        }
        tx.commit().await.unwrap();
        let work = replicas.iter().enumerate().map(|(n, sagas)| {
            let dinner = &dinner;
            async move {
                let mut done = 0;
                loop {
                    let claimed = sagas.claim_abandoned(&format!("replica{n}"), 5).await.unwrap();
                    if claimed.is_empty() && sagas.abandoned(1).await.unwrap().is_empty() {
                        return done;
                    }
                    for one in claimed {
                        let guest = one.params::<String>().unwrap();
                        let mine = Dinner {
                            guest,
                            ..dinner.clone()
                        };
                        assert!(matches!(run(sagas, &mine, one).await, Outcome::Done(_)));
                        done += 1;
                    }
                }
            }
        });
        let done: usize = join_all(work).await.into_iter().sum();
        assert_eq!((done, dinner.room.served()), (40, 40));
    })
    .await;
}

#[tokio::test]
async fn old_ends_are_pruned_and_stuck_ones_stay() {
    on_both(|world| async move {
        let sagas = sagas(&world).await;
        let claimed = create(&sagas, "good").await;
        run(&sagas, &Dinner::new("ada"), claimed).await;
        let dinner = Dinner::new("bob").serving(Serving::Refuses);
        dinner.stuck.store(99, Ordering::Relaxed);
        let claimed = create(&sagas, "bad").await;
        run(&sagas, &dinner, claimed).await;
        drop(create(&sagas, "running").await);
        let later = Clock::system().now().after(Duration::from_secs(1));
        assert_eq!(sagas.prune(later).await.unwrap(), 1);
        assert!(sagas.find("good").await.unwrap().is_none());
        assert!(sagas.find("bad").await.unwrap().is_some() && sagas.find("running").await.unwrap().is_some());
    })
    .await;
}
