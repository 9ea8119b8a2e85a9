use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use nimbus_model::Timestamp;
use nimbus_store::testing::{World, on_both, sqlite};
use nimbus_store::{both, reading, sqlx};
use proptest::prelude::*;

use super::*;
use crate::MIGRATIONS;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

pub(crate) async fn pool_of(world: &World, first: &str, last: &str) -> Pool {
    let store = world.db.store("ippool", MIGRATIONS).await.unwrap();
    let network = Network {
        range: Range::new(ip(first), ip(last)).unwrap(),
        gateway: GATEWAY,
        prefix: 24,
    };
    let pool = Pool::new(
        store.clone(),
        Outbox::new(store, "ippool_outbox"),
        Clock::system(),
        Some(network),
    );
    pool.seed().await.unwrap();
    pool
}

async fn events(pool: &Pool) -> i64 {
    reading!(&pool.store, |c| sqlx::query_scalar(
        "SELECT COUNT(*) FROM ippool_outbox"
    )
    .fetch_one(c)
    .await)
    .unwrap()
}

fn guest(vmid: u32) -> Guest {
    Guest {
        vmid,
        name: Some("found".into()),
        node: "pve1".into(),
    }
}

#[tokio::test]
async fn the_lowest_free_address_by_number_and_the_same_one_again() {
    on_both(|world| async move {
        let pool = pool_of(&world, "10.0.0.9", "10.0.0.11").await;
        let machines: Vec<MachineId> = (0..4).map(|_| MachineId::fresh()).collect();
        for (machine, wanted) in machines.iter().zip(["10.0.0.9", "10.0.0.10", "10.0.0.11"]) {
            let taken = pool.take(*machine, "web").await.unwrap();
            assert_eq!((taken.row.ip, taken.fresh), (ip(wanted), true));
            let again = pool.take(*machine, "web").await.unwrap();
            assert_eq!((again.row.ip, again.fresh), (ip(wanted), false));
        }
        assert!(matches!(
            pool.take(machines[3], "web").await,
            Err(PoolError::Exhausted { .. })
        ));
        pool.release(machines[1]).await.unwrap();
        pool.release(machines[1]).await.unwrap();
        assert_eq!(
            pool.take(machines[3], "web").await.unwrap().row.ip,
            ip("10.0.0.10")
        );
        let listed: Vec<Ipv4Addr> = pool
            .list()
            .await
            .unwrap()
            .iter()
            .map(|address| address.ip)
            .collect();
        assert_eq!(listed, [ip("10.0.0.9"), ip("10.0.0.10"), ip("10.0.0.11")]);
        assert_eq!(
            pool.status().await.unwrap(),
            PoolStatus {
                total: 3,
                free: 0,
                reserved: 3,
                allocated: 0
            }
        );
    })
    .await;
}

#[tokio::test]
async fn fifty_at_once_get_ten_addresses_between_them() {
    on_both(|world| async move {
        let pool = pool_of(&world, "10.0.0.1", "10.0.0.10").await;
        let takes: Vec<_> = (0..50)
            .map(|_| {
                let pool = pool.clone();
                tokio::spawn(async move { pool.take(MachineId::fresh(), "web").await })
            })
            .collect();
        let (mut won, mut exhausted) = (BTreeSet::new(), 0);
        for take in takes {
            match take.await.unwrap() {
                Ok(taken) => assert!(won.insert(taken.row.ip), "{} was given twice", taken.row.ip),
                Err(PoolError::Exhausted { .. }) => exhausted += 1,
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!((won.len(), exhausted), (10, 40));
    })
    .await;
}

#[tokio::test]
async fn one_machine_that_asks_ten_times_at_once_has_one_address() {
    on_both(|world| async move {
        let pool = pool_of(&world, "10.0.0.1", "10.0.0.10").await;
        let machine = MachineId::fresh();
        let takes = (0..10).map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { pool.take(machine, "web").await })
        });
        let mut given = BTreeSet::new();
        for take in takes.collect::<Vec<_>>() {
            given.insert(take.await.unwrap().unwrap().row.ip);
        }
        assert_eq!(given.len(), 1, "{given:?}");
        assert_eq!(pool.status().await.unwrap().reserved, 1);
    })
    .await;
}

#[tokio::test]
async fn allocating_checks_whose_address_it_is() {
    on_both(|world| async move {
        let pool = pool_of(&world, "10.0.0.1", "10.0.0.3").await;
        let (ours, theirs) = (MachineId::fresh(), MachineId::fresh());
        let address = pool.take(ours, "web").await.unwrap().row.ip;
        assert!(matches!(
            pool.allocate(theirs, address, 101).await,
            Err(PoolError::NotTheirs { .. })
        ));
        assert!(matches!(
            pool.allocate(ours, ip("10.0.0.2"), 101).await,
            Err(PoolError::NotTheirs { .. })
        ));
        assert!(matches!(
            pool.allocate(ours, ip("10.9.9.9"), 101).await,
            Err(PoolError::NotTheirs { .. })
        ));
        pool.allocate(ours, address, 101).await.unwrap();
        let before = events(&pool).await;
        pool.allocate(ours, address, 101).await.unwrap();
        assert_eq!(events(&pool).await, before, "a repeat tells nobody");
        assert!(matches!(
            pool.allocate(ours, address, 102).await,
            Err(PoolError::OtherVm { used_by: 101, .. })
        ));
        // In use: the lease is the same, without a promise.
        assert_eq!(
            pool.take(ours, "web").await.unwrap().row.status,
            AddressStatus::Allocated
        );
        pool.release(ours).await.unwrap();
        let row = &pool.rows().await.unwrap()[0];
        assert_eq!(*row, Row::free(address, row.version));
    })
    .await;
}

#[tokio::test]
async fn a_vm_that_a_reconcile_found_first_can_still_be_booked_by_its_machine() {
    on_both(|world| async move {
        let pool = pool_of(&world, "10.0.0.1", "10.0.0.3").await;
        let machine = MachineId::fresh();
        let row = pool.take(machine, "web").await.unwrap().row;
        let adopt = |row: &Row| Change {
            old: row.clone(),
            new: row.adopt(&guest(101), Timestamp::from_micros(1)).unwrap(),
            loud: true,
        };
        assert_eq!(pool.change_all(vec![adopt(&row)]).await.unwrap(), [true]);
        // The same again is based on an old version.
        assert_eq!(pool.change_all(vec![adopt(&row)]).await.unwrap(), [false]);
        assert!(matches!(
            pool.allocate(machine, row.ip, 102).await,
            Err(PoolError::OtherVm { .. })
        ));
        pool.allocate(machine, row.ip, 101).await.unwrap();
        assert_eq!(pool.rows().await.unwrap()[0].source, AddressSource::Local);

        // After the promise ran out the machine's own VM was found: still its machine's.
        let late = MachineId::fresh();
        let free = pool
            .rows()
            .await
            .unwrap()
            .into_iter()
            .find(|row| row.status == AddressStatus::Free)
            .unwrap();
        pool.change_all(vec![Change {
            new: free.adopt(&guest(103), Timestamp::from_micros(1)).unwrap(),
            old: free.clone(),
            loud: true,
        }])
        .await
        .unwrap();
        pool.allocate(late, free.ip, 103).await.unwrap();
        pool.release(late).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_range_that_moves_keeps_what_is_in_use() {
    on_both(|world| async move {
        let pool = pool_of(&world, "10.0.0.1", "10.0.0.4").await;
        let (low, next) = (MachineId::fresh(), MachineId::fresh());
        pool.take(low, "low").await.unwrap();
        pool.take(next, "next").await.unwrap();
        let moved = pool_of(&world, "10.0.0.3", "10.0.0.6").await;
        let shown: BTreeMap<Ipv4Addr, bool> = moved
            .list()
            .await
            .unwrap()
            .into_iter()
            .map(|address| (address.ip, address.stranded))
            .collect();
        let wanted = [
            ("10.0.0.1", true),
            ("10.0.0.2", true),
            ("10.0.0.3", false),
            ("10.0.0.4", false),
            ("10.0.0.5", false),
            ("10.0.0.6", false),
        ];
        assert_eq!(shown, wanted.map(|(text, stranded)| (ip(text), stranded)).into());
        assert_eq!(
            moved.status().await.unwrap(),
            PoolStatus {
                total: 4,
                free: 4,
                reserved: 0,
                allocated: 0
            }
        );
        // A stranded address stays with its machine, and goes when it is given back.
        assert_eq!(moved.take(low, "low").await.unwrap().row.ip, ip("10.0.0.1"));
        moved.release(low).await.unwrap();
        assert!(
            !moved
                .list()
                .await
                .unwrap()
                .iter()
                .any(|address| address.ip == ip("10.0.0.1"))
        );
        assert_eq!(
            moved.take(MachineId::fresh(), "new").await.unwrap().row.ip,
            ip("10.0.0.3")
        );
        // Back again: nothing is lost, nothing twice.
        let back = pool_of(&world, "10.0.0.1", "10.0.0.4").await;
        assert_eq!(
            back.status().await.unwrap(),
            PoolStatus {
                total: 4,
                free: 2,
                reserved: 2,
                allocated: 0
            }
        );
        assert_eq!(back.take(next, "next").await.unwrap().row.ip, ip("10.0.0.2"));
    })
    .await;
}

#[tokio::test]
async fn the_largest_pool_is_filled_and_filled_again() {
    on_both(|world| async move {
        for _ in 0..2 {
            let pool = pool_of(&world, "10.0.0.0", "10.0.255.255").await;
            assert_eq!(pool.status().await.unwrap().total, 65_536);
        }
    })
    .await;
}

#[tokio::test]
async fn a_contested_address_goes_to_its_guest_and_the_machine_gets_the_next() {
    on_both(|world| async move {
        let pool = pool_of(&world, "10.0.0.1", "10.0.0.2").await;
        let machine = MachineId::fresh();
        let first = pool.take(machine, "web").await.unwrap().row;
        let PassedOver::Next(next) = pool
            .pass_over(&first, &guest(900), Some((machine, "web")))
            .await
            .unwrap()
        else {
            panic!("there is another address");
        };
        assert_eq!((next.row.ip, next.fresh), (ip("10.0.0.2"), true));
        assert_eq!(
            pool.pass_over(&first, &guest(900), None).await.unwrap(),
            PassedOver::Raced
        );
        assert_eq!(
            pool.pass_over(&next.row, &guest(901), Some((machine, "web")))
                .await
                .unwrap(),
            PassedOver::Nothing
        );
        let rows = pool.rows().await.unwrap();
        assert!(
            rows.iter()
                .all(|row| row.source == AddressSource::Adopted && row.machine.is_none())
        );
        assert_eq!(
            rows.iter().map(|row| row.vmid).collect::<Vec<_>>(),
            [Some(900), Some(901)]
        );
    })
    .await;
}

#[tokio::test]
async fn a_promise_is_only_taken_back_as_it_was_made() {
    on_both(|world| async move {
        let pool = pool_of(&world, "10.0.0.1", "10.0.0.2").await;
        let machine = MachineId::fresh();
        let made = pool.take(machine, "web").await.unwrap().row;
        // Another request for the machine has renewed it meanwhile, and told its caller.
        let renewed = pool.take(machine, "web").await.unwrap().row;
        pool.take_back(&made).await.unwrap();
        assert_eq!(pool.rows().await.unwrap()[0].machine, Some(machine));
        pool.take_back(&renewed).await.unwrap();
        assert_eq!(pool.rows().await.unwrap()[0].machine, None);
    })
    .await;
}

#[tokio::test]
async fn periodic_work_is_done_by_one_of_many() {
    on_both(|world| async move {
        let pool = pool_of(&world, "10.0.0.1", "10.0.0.2").await;
        let minute = Duration::from_secs(60);
        assert!(pool.claim_reconcile(minute).await.unwrap());
        assert!(!pool.claim_reconcile(minute).await.unwrap());
        assert!(pool.claim_reconcile(Duration::ZERO).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn the_table_refuses_what_the_rules_do_not_have() {
    on_both(|world| async move {
        let pool = pool_of(&world, "10.0.0.1", "10.0.0.2").await;
        for wrong in [
            "UPDATE ippool_address SET status = 'lost'",
            "UPDATE ippool_address SET status = 'reserved'",
            "UPDATE ippool_address SET vmid = 101",
            "UPDATE ippool_address SET ord = 4294967296",
        ] {
            let mut tx = pool.store.begin().await.unwrap();
            assert!(
                both!(&mut tx, |c| sqlx::query(wrong).execute(c).await.map(|_| ())).is_err(),
                "{wrong}"
            );
        }
    })
    .await;
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Take(usize),
    Allocate(usize),
    Release(usize),
}

fn step() -> impl Strategy<Value = Step> {
    (0..3_u8, 0..12_usize).prop_map(|(kind, machine)| match kind {
        0 => Step::Take(machine),
        1 => Step::Allocate(machine),
        _ => Step::Release(machine),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// The pool against a set of free addresses and a map of who has which.
    #[test]
    fn allocation_is_what_a_simple_set_says(steps in proptest::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = sqlite().await;
            let pool = pool_of(&world, "10.0.0.254", "10.0.1.5").await;
            let machines: Vec<MachineId> = (0..12).map(|_| MachineId::fresh()).collect();
            let mut free: BTreeSet<u32> = (u32::from(ip("10.0.0.254"))..=u32::from(ip("10.0.1.5"))).collect();
            let mut held: BTreeMap<usize, u32> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Take(machine) => {
                        let wanted = held.get(&machine).copied().or_else(|| free.pop_first());
                        let taken = pool.take(machines[machine], "web").await.ok().map(|taken| u32::from(taken.row.ip));
                        prop_assert_eq!(taken, wanted);
                        if let Some(ord) = wanted {
                            held.insert(machine, ord);
                        }
                    }
                    Step::Allocate(machine) => {
                        let vmid = u32::try_from(machine).unwrap() + 100;
                        let ord = held.get(&machine).copied().unwrap_or(u32::from(ip("10.0.0.254")));
                        let done = pool.allocate(machines[machine], Ipv4Addr::from(ord), vmid).await.is_ok();
                        prop_assert_eq!(done, held.contains_key(&machine));
                    }
                    Step::Release(machine) => {
                        pool.release(machines[machine]).await.unwrap();
                        free.extend(held.remove(&machine));
                    }
                }
            }
            let status = pool.status().await.unwrap();
            prop_assert_eq!((status.total, usize::try_from(status.free).unwrap()), (8, free.len()));
            Ok(())
        })?;
    }
}
