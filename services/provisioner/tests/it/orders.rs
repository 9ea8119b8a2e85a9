//! Orders that come at the same moment.

use std::collections::BTreeSet;

use futures::future::join_all;
use nimbus_errors::Code;
use nimbus_proto::machine as m;
use nimbus_store::testing::on_both;

use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_orders_at_once_make_as_many_machines_as_the_quota_allows() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let (one, two) = (world.replica("one", &[]).await, world.replica("two", &[]).await);
        let member = world.member();
        let names: Vec<String> = (0..50).map(|n| format!("web-{n}")).collect();
        let orders = join_all(names.iter().map(|name| world.order(&member, name, None))).await;
        let mut made = Vec::new();
        for order in orders {
            match order {
                Ok(operation) => made.push(operation),
                Err(fault) => assert!(fault.is(Code::MachineQuotaReached), "{fault}"),
            }
        }
        assert_eq!(made.len(), 5);
        let ended = join_all(made.iter().map(|order| world.ended(&member, order.id))).await;
        let (mut vmids, mut ips) = (BTreeSet::new(), BTreeSet::new());
        for operation in &ended {
            let result = operation.result.as_ref().unwrap();
            assert!(vmids.insert(result.vmid) && ips.insert(result.ip), "{result:?}");
            assert_eq!(result.warning, None);
        }
        assert_eq!(world.made().len(), 5);

        // Somebody else has a quota of their own, and a machine that goes gives its slot back.
        world.make(&world.member(), "other").await;
        let gone = world.delete(&member, ended[0].machine).await;
        assert_eq!(gone.state, m::OperationState::Succeeded);
        world.make(&member, "again").await;
        let fault = world.order(&member, "too-many", None).await.unwrap_err();
        assert!(fault.is(Code::MachineQuotaReached), "{fault}");
        assert_eq!((world.made().len(), world.addresses().await.len()), (6, 6));
        one.stop().await;
        two.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_idempotency_key_makes_one_machine() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let (one, two) = (world.replica("one", &[]).await, world.replica("two", &[]).await);
        let member = world.member();
        let orders = join_all((0..20).map(|_| world.order(&member, "web-1", Some("k")))).await;
        let ids: BTreeSet<_> = orders.into_iter().map(|order| order.unwrap().id).collect();
        assert_eq!(ids.len(), 1);
        let ended = world.ended(&member, *ids.first().unwrap()).await;
        assert_eq!(ended.state, m::OperationState::Succeeded, "{ended:?}");
        assert_eq!(world.made().len(), 1);
        // Also an hour later; and a key belongs to one request and one caller.
        world.jump.forward(std::time::Duration::from_secs(3600));
        assert_eq!(
            world.order(&member, "web-1", Some("k")).await.unwrap().id,
            ended.id
        );
        let fault = world.order(&member, "web-2", Some("k")).await.unwrap_err();
        assert!(fault.is(Code::OpConflict), "{fault}");
        world.order(&world.member(), "web-3", Some("k")).await.unwrap();
        one.stop().await;
        two.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostname_is_given_once_and_again_when_it_is_free() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let (one, two) = (world.replica("one", &[]).await, world.replica("two", &[]).await);
        let callers: Vec<_> = (0..20).map(|_| world.member()).collect();
        let orders = join_all(callers.iter().map(|caller| world.order(caller, "web-1", None))).await;
        let mut winner = None;
        for (caller, order) in callers.iter().zip(orders) {
            match order {
                Ok(operation) => assert!(winner.replace((caller, operation)).is_none(), "given twice"),
                Err(fault) => assert!(fault.is(Code::MachineHostnameTaken), "{fault}"),
            }
        }
        let (caller, operation) = winner.unwrap();
        world.ended(caller, operation.id).await;
        assert_eq!(world.made().len(), 1);
        // Nobody lost a slot by losing the race.
        let loser = callers
            .iter()
            .find(|other| other.identity != caller.identity)
            .unwrap();
        let catalog = world
            .gateway
            .call::<nimbus_proto::node::GetCatalog>(&())
            .on_behalf_of(loser)
            .await
            .unwrap();
        assert_eq!(catalog.quota_used, 0);
        world.delete(caller, operation.machine).await;
        world.make(loser, "web-1").await;
        one.stop().await;
        two.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generated_key_is_handed_out_once() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let replica = world.replica("one", &[]).await;
        let member = world.member();
        let machine = world.make(&member, "web-1").await;
        let operations: Vec<m::Operation> = world
            .gateway
            .call::<m::ListOperations>(&10)
            .on_behalf_of(&member)
            .await
            .unwrap();
        let id = operations[0].id;
        assert!(operations[0].result.as_ref().unwrap().has_private_key);
        let claim = |caller| world.gateway.call::<m::ClaimKey>(&id).on_behalf_of(caller);
        let stranger = world.member();
        assert!(claim(&stranger).await.unwrap_err().is(Code::OpNotFound));
        let claims = join_all((0..10).map(|_| claim(&member).into_future())).await;
        let (handed, refused): (Vec<_>, Vec<_>) = claims.into_iter().partition(Result::is_ok);
        assert_eq!(handed.len(), 1);
        for fault in refused {
            assert!(fault.unwrap_err().is(Code::MachineKeyClaimed));
        }
        let key = handed.into_iter().next().unwrap().unwrap();
        assert_eq!(Some(&key.key_name), machine.key_name.as_ref());
        let pair = ssh_key::PrivateKey::from_openssh(key.private_key.reveal()).unwrap();
        assert_eq!(pair.public_key().to_openssh().unwrap(), machine.ssh_pubkey);
        assert!(!format!("{key:?}").contains("PRIVATE KEY"));
        let operation = world.ended(&member, id).await;
        assert!(!operation.result.unwrap().has_private_key);
        replica.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletions_ordered_at_once_are_one() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let (one, two) = (world.replica("one", &[]).await, world.replica("two", &[]).await);
        let member = world.member();
        let machine = world.make(&member, "web-1").await;
        let orders = join_all((0..10).map(|_| {
            world
                .gateway
                .call::<m::Delete>(&machine.id)
                .on_behalf_of(&member)
                .into_future()
        }))
        .await;
        let mut ids = BTreeSet::new();
        for order in orders {
            match order {
                Ok(operation) => {
                    ids.insert(operation.id);
                }
                // It was gone already.
                Err(fault) => assert!(fault.is(Code::OpNotFound), "{fault}"),
            }
        }
        assert_eq!(ids.len(), 1);
        world.ended(&member, *ids.first().unwrap()).await;
        assert!(world.made().is_empty() && world.addresses().await.is_empty());
        one.stop().await;
        two.stop().await;
    })
    .await;
}
