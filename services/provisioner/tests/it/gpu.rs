//! What machines are told about GPUs.

use nimbus_proto::machine as m;
use nimbus_pve_sim::{Fault, FaultMode};
use nimbus_store::testing::{on_both, sqlite};

use crate::world::{World, config};

fn refusal() -> Fault {
    let mut fault = Fault::once(
        "POST /nodes/{node}/qemu/{vmid}/agent/exec",
        FaultMode::Fail {
            status: 500,
            message: "Agent error: Command guest-exec has been disabled".into(),
        },
    );
    fault.count = 0;
    fault
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_has_a_token_of_its_own_from_making_to_deleting() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let replica = world.replica("one", &[]).await;
        let member = world.member();
        // Nothing is paired: nothing is told.
        let before = world.make(&member, "before").await;
        assert_eq!(world.gpu.token(before.id), None);
        assert_eq!(world.told(before.vmid.unwrap()), Vec::<String>::new());

        world.gpu.pair("org/model");
        let (one, two) = (world.make(&member, "one").await, world.make(&member, "two").await);
        assert_eq!((one.error_msg, two.error_msg), (None, None));
        let (owner, token) = world.gpu.token(one.id).unwrap();
        assert_eq!(owner, member.identity.user);
        assert_ne!(world.gpu.token(two.id).unwrap().1, token);
        let told = world.told(one.vmid.unwrap());
        assert_eq!(told.len(), 1);
        assert!(
            told[0].starts_with(&format!(
                "user='debian'\napi='https://nimbus.example.org/api/gpu'\nmodel='org/model'\ntoken='{token}'\n"
            )),
            "{:.200}",
            told[0]
        );
        assert!(told[0].contains("usage: gx10 submit"));

        world.delete(&member, one.id).await;
        assert_eq!(world.gpu.token(one.id), None);
        assert!(world.gpu.token(two.id).is_some());
        replica.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_cannot_be_told_is_a_machine_with_a_warning() {
    let db = sqlite().await;
    let world = World::start(&db.db).await;
    world.gpu.pair("a-model");
    let replica = world.replica("one", &[]).await;
    let member = world.member();
    world.sim.inject(refusal());
    let ordered = world.order(&member, "deaf", None).await.unwrap();
    let ended = world.ended(&member, ordered.id).await;
    assert_eq!(ended.state, m::OperationState::Succeeded, "{ended:?}");
    let warning = ended.result.unwrap().warning.unwrap();
    assert!(
        warning.contains("GPUs are not set up") && warning.contains("has been disabled"),
        "{warning}"
    );
    let machine = world.machine(&member, ordered.machine).await.unwrap();
    assert_eq!(machine.status, m::MachineStatus::Running);
    assert_eq!(machine.error_msg, Some(warning));
    assert_eq!(
        world.gpu.token(machine.id),
        None,
        "what nobody was told opens nothing"
    );
    world.sim.clear_faults();
    replica.stop().await;

    // Where the portal is only its own computer's, a machine would ask itself.
    for (name, url, reason) in [
        ("lost", None, "--public-url"),
        ("loop", Some("http://127.0.0.1:8080/"), "the machine itself"),
    ] {
        let mut config = config(&[]);
        config.public_url = url.map(|url| url.parse().unwrap());
        let replica = world.replica_with(name, config).await;
        let machine = world.make(&member, name).await;
        let warning = machine.error_msg.unwrap_or_default();
        assert!(warning.contains(reason), "{warning}");
        assert_eq!(world.gpu.token(machine.id), None);
        assert_eq!(world.told(machine.vmid.unwrap()), Vec::<String>::new());
        replica.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_is_gone_from_the_cluster_loses_its_token() {
    let db = sqlite().await;
    let world = World::start(&db.db).await;
    world.gpu.pair("a-model");
    let replica = world.replica("one", &[]).await;
    let member = world.member();
    let machine = world.make(&member, "web-1").await;
    assert!(world.gpu.token(machine.id).is_some());
    world.sim.remove_guest(machine.vmid.unwrap()).unwrap();
    for _ in 0..3 {
        assert!(world.gpu.token(machine.id).is_some());
        world.reconcile().await;
    }
    assert!(world.machine(&member, machine.id).await.is_err());
    assert_eq!(world.gpu.token(machine.id), None);
    replica.stop().await;
}
