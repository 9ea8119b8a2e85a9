//! Machines that change behind the service's back.

use std::time::Duration;

use nimbus_errors::Code;
use nimbus_proto::machine as m;
use nimbus_proxmox::{ConfigPatch, PowerOp, Vmid};
use nimbus_store::testing::{on_both, on_sqlite};

use crate::world::{World, eventually};

/// Another node than this one.
fn other_than(node: Option<&str>) -> &'static str {
    if node == Some("pve1") { "pve2" } else { "pve1" }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reconcile_follows_moves_and_names_and_gives_up_what_is_gone() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let replica = world.replica("one", &[]).await;
        let member = world.member();
        let (moved, renamed, gone, reused) = (
            world.make(&member, "moved").await,
            world.make(&member, "renamed").await,
            world.make(&member, "gone").await,
            world.make(&member, "reused").await,
        );
        let calm = world.reconcile().await;
        assert_eq!(
            (calm.no_ops, calm.missed.len(), calm.deleted.len()),
            (4, 0, 0),
            "{calm:?}"
        );

        let to = other_than(moved.node.as_deref());
        world.migrate(moved.vmid.unwrap(), to).await;
        let name = ConfigPatch::new().set("name", "new-name");
        configure(
            &world,
            renamed.node.as_deref().unwrap(),
            renamed.vmid.unwrap(),
            name,
        )
        .await;
        world.sim.remove_guest(gone.vmid.unwrap()).unwrap();
        world.sim.remove_guest(reused.vmid.unwrap()).unwrap();
        world.stranger(reused.vmid.unwrap(), reused.node.as_deref().unwrap(), "reused");
        let stranger = || {
            let vms = world.sim.state()["vms"].clone();
            let vms = vms.as_array().unwrap().clone();
            vms.into_iter()
                .find(|vm| vm["vmid"] == reused.vmid.unwrap())
                .unwrap()
        };
        let before = stranger();

        let report = world.reconcile().await;
        assert_eq!(report.migrated.len(), 1, "{report:?}");
        assert_eq!(
            (report.migrated[0].machine, report.migrated[0].to_node.as_str()),
            (moved.id, to)
        );
        assert_eq!(report.renamed.len(), 1, "{report:?}");
        assert_eq!(report.renamed[0].to_name, "new-name");
        assert_eq!((report.missed.len(), report.deleted.len()), (2, 0), "{report:?}");
        assert_eq!(
            world.machine(&member, moved.id).await.unwrap().node.as_deref(),
            Some(to)
        );
        let missing = world.machine(&member, gone.id).await.unwrap();
        assert_eq!(missing.status, m::MachineStatus::Unknown);
        assert_eq!(world.reconcile().await.missed.len(), 2);
        let report = world.reconcile().await;
        let mut given_up: Vec<_> = report.deleted.iter().map(|missed| missed.machine).collect();
        given_up.sort();
        let mut expected = vec![gone.id, reused.id];
        expected.sort();
        assert_eq!(given_up, expected);
        assert!(
            world
                .machine(&member, reused.id)
                .await
                .unwrap_err()
                .is(Code::OpNotFound)
        );
        assert_eq!(stranger(), before);
        assert_eq!(world.addresses().await.len(), 2);
        assert_eq!(world.reconcile().await.no_ops, 2);
        // Both slots are free again.
        for n in 0..3 {
            world.make(&member, &format!("more-{n}")).await;
        }
        replica.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_reconciles_at_once_count_one_miss() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let (one, two) = (world.replica("one", &[]).await, world.replica("two", &[]).await);
        let member = world.member();
        let machine = world.make(&member, "web-1").await;
        world.make(&member, "web-2").await;
        world.sim.remove_guest(machine.vmid.unwrap()).unwrap();
        let reports = futures::future::join_all((0..6).map(|_| world.reconcile())).await;
        let mut counted: Vec<u32> = reports
            .iter()
            .flat_map(|report| &report.missed)
            .map(|missed| missed.missed_cycles)
            .collect();
        counted.sort_unstable();
        assert!(counted == [1] || counted == [1, 2], "{counted:?}");
        one.stop().await;
        two.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_states_are_followed() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let replica = world.replica("one", &["--machine-watch-interval", "100ms"]).await;
        let member = world.member();
        let machine = world.make(&member, "web-1").await;
        let (node, vmid) = (machine.node.clone().unwrap(), machine.vmid.unwrap());
        let status = || async { world.machine(&member, machine.id).await.unwrap().status };
        for (op, want) in [
            (PowerOp::Stop, m::MachineStatus::Stopped),
            (PowerOp::Start, m::MachineStatus::Running),
        ] {
            world.switch(&node, vmid, op).await;
            eventually(status, |status| *status == want).await;
        }
        let stopped = world.power(&member, machine.id, m::PowerAction::Stop).await;
        assert_eq!(stopped.state, m::OperationState::Succeeded, "{stopped:?}");
        assert_eq!(status().await, m::MachineStatus::Stopped);
        let reboot = world.power(&member, machine.id, m::PowerAction::Reboot).await;
        assert_eq!(reboot.state, m::OperationState::Failed);
        assert_eq!(status().await, m::MachineStatus::Stopped);
        replica.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_was_moved_is_powered_and_deleted_where_it_is() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let replica = world.replica("one", &[]).await;
        let member = world.member();
        let machine = world.make(&member, "web-1").await;
        let vmid = machine.vmid.unwrap();
        let first = other_than(machine.node.as_deref());
        world.migrate(vmid, first).await;
        let ended = world.power(&member, machine.id, m::PowerAction::Stop).await;
        assert_eq!(ended.state, m::OperationState::Succeeded, "{ended:?}");
        assert_eq!(world.vm(vmid).unwrap()["status"], "stopped");
        assert_eq!(
            world.machine(&member, machine.id).await.unwrap().node.as_deref(),
            Some(first)
        );
        world.migrate(vmid, other_than(Some(first))).await;
        let ended = world.delete(&member, machine.id).await;
        assert_eq!(ended.state, m::OperationState::Succeeded, "{ended:?}");
        assert!(world.made().is_empty() && world.addresses().await.is_empty());
        replica.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_without_their_vm_are_deleted_and_strangers_left_alone() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let replica = world.replica("one", &[]).await;
        let member = world.member();
        let (gone, reused) = (
            world.make(&member, "gone").await,
            world.make(&member, "reused").await,
        );
        let (number, node) = (reused.vmid.unwrap(), other_than(reused.node.as_deref()));
        world.sim.remove_guest(gone.vmid.unwrap()).unwrap();
        world.sim.remove_guest(number).unwrap();
        world.stranger(number, node, "reused");
        let refused = world.power(&member, reused.id, m::PowerAction::Stop).await;
        assert!(refused.fault.unwrap().is(Code::MachineNotOurs));
        let refused = world.power(&member, gone.id, m::PowerAction::Start).await;
        assert!(refused.fault.unwrap().is(Code::MachineGone));
        for machine in [gone.id, reused.id] {
            let ended = world.delete(&member, machine).await;
            assert_eq!(ended.state, m::OperationState::Succeeded, "{ended:?}");
        }
        assert!(world.addresses().await.is_empty());
        let state = world.sim.state();
        let stranger = state["vms"]
            .as_array()
            .unwrap()
            .iter()
            .find(|vm| vm["vmid"] == number);
        assert_eq!(stranger.unwrap()["status"], "running");
        replica.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_stand_what_operators_do() {
    on_both(|db| async move {
        let world = World::start(&db.db).await;
        let replica = world.replica("one", &[]).await;
        let member = world.member();
        // Our own tag on a template comes with every clone of it.
        let state = world.sim.state();
        for template in state["vms"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|vm| vm["template"] == true)
        {
            let tags = format!("{};nimbus", template["config"]["tags"].as_str().unwrap());
            let number = u32::try_from(template["vmid"].as_u64().unwrap()).unwrap();
            configure(
                &world,
                template["node"].as_str().unwrap(),
                number,
                ConfigPatch::new().set("tags", tags),
            )
            .await;
        }
        let machine = world.make(&member, "web-1").await;
        assert_eq!(world.made().len(), 1);
        // Somebody tidies the notes.
        let (node, vmid) = (machine.node.clone().unwrap(), machine.vmid.unwrap());
        configure(&world, &node, vmid, ConfigPatch::new().delete("description")).await;
        assert_eq!(world.reconcile().await.no_ops, 1);
        let ended = world.delete(&member, machine.id).await;
        assert_eq!(ended.state, m::OperationState::Succeeded, "{ended:?}");
        assert!(world.made().is_empty());
        replica.stop().await;
    })
    .await;
}

async fn configure(world: &World, node: &str, vmid: u32, patch: ConfigPatch) {
    let number = Vmid::new(vmid).unwrap();
    if let Some(task) = world.client.set_config(node, number, &patch).await.unwrap() {
        let soon = tokio::time::Instant::now() + crate::world::PATIENCE;
        world.client.wait_task(&task, soon).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stops_leaves_its_work_to_the_next_at_once() {
    const TTL: Duration = Duration::from_secs(15);
    const NAMES: [&str; 2] = ["provisioner.watch", "provisioner.expire"];
    on_sqlite(|db| async move {
        let world = World::start(&db.db).await;
        let replica = world.replica("one", &["--machine-watch-interval", "5s"]).await;
        let other = world.ctx("two").await.bus;
        for name in NAMES {
            eventually(
                || async {
                    match other.lease(name, TTL).await.unwrap() {
                        // It came before the replica did, which is told when it is free again.
                        Some(lease) => {
                            lease.release().await;
                            false
                        }
                        None => true,
                    }
                },
                |held| *held,
            )
            .await;
        }
        replica.stop().await;
        for name in NAMES {
            assert!(
                other.lease(name, TTL).await.unwrap().is_some(),
                "{name} is still held"
            );
        }
    })
    .await;
}
