//! The crash matrix: the server is killed after every step and inside of every step, and started again.
//! After that there is a finished machine or nothing; for a deletion, the machine as it was or nothing.

use std::time::{Duration, Instant};

use nimbus_tests::api::{has_ended, step};
use nimbus_tests::sim::{delay, fail, hang, number};
use nimbus_tests::{Fault, Opening, World, eventually};
use serde_json::Value;

const CLONE: &str = "POST /nodes/{node}/qemu/{vmid}/clone";
const CONFIG: &str = "POST /nodes/{node}/qemu/{vmid}/config";
const RESIZE: &str = "PUT /nodes/{node}/qemu/{vmid}/resize";
const START: &str = "POST /nodes/{node}/qemu/{vmid}/status/start";
const STOP: &str = "POST /nodes/{node}/qemu/{vmid}/status/stop";
const DESTROY: &str = "DELETE /nodes/{node}/qemu/{vmid}";
const AGENT: &str = "GET /nodes/{node}/qemu/{vmid}/agent/network-get-interfaces";
const NEXT_ID: &str = "GET /cluster/nextid";
const TASK: &str = "GET /nodes/{node}/tasks/{upid}/status";
const GUESTS: &str = "GET /nodes/{node}/qemu";

/// How long a call is held up whose answer starts a clock, in milliseconds.
const PAUSE: u64 = 100;

/// When the server is killed.
#[derive(Clone, Copy, Debug)]
enum When {
    /// While this call is on its way and nothing of it has happened.
    Asked(&'static str),
    /// When this call has had its effect, and its answer is still on its way.
    Answered(&'static str),
    /// As soon as the operation shows this step done.
    Done(&'static str),
    /// So many milliseconds after this call was answered: inside of steps that do not call the cluster.
    Later(&'static str, u64),
}

impl When {
    fn describe(self) -> String {
        match self {
            Self::Asked(call) => format!("before {call}"),
            Self::Answered(call) => format!("after {call}, before its answer"),
            Self::Done(step) => format!("after step {step}"),
            Self::Later(call, milliseconds) => format!("{milliseconds} ms after {call}"),
        }
    }

    async fn prepare(self, world: &World) {
        match self {
            Self::Asked(call) => world.sim.order(&Fault::once(call, hang())).await,
            Self::Answered(call) => world.sim.order(&Fault::once(call, hang()).after()).await,
            Self::Later(call, _) => world.sim.order(&Fault::once(call, delay(PAUSE)).after()).await,
            // Gives the test time to see the step before the next one has ended.
            Self::Done(step) => {
                let next = match step {
                    "reserve_ip" => NEXT_ID,
                    "pick_node" => CLONE,
                    "clone_template" => CONFIG,
                    "configure_vm" => RESIZE,
                    "resize_disk" => START,
                    "start_vm" => AGENT,
                    "stop_vm" => DESTROY,
                    _ => return,
                };
                world.sim.order(&Fault::once(next, delay(1_000))).await;
            }
        }
    }

    /// Waits for the moment; gives what the operation looked like.
    async fn wait(self, world: &World, operation: &str) -> Value {
        match self {
            Self::Asked(_) | Self::Answered(_) => {
                world.sim.struck().await;
                world.admin.operation(operation).await
            }
            Self::Later(_, milliseconds) => {
                world.sim.struck().await;
                let seen = world.admin.operation(operation).await;
                // The moment itself is the point: any of them has to be survived.
                tokio::time::sleep(Duration::from_millis(PAUSE + milliseconds)).await;
                seen
            }
            Self::Done(key) => {
                eventually(
                    &format!("step {key} is done"),
                    Duration::from_secs(30),
                    async || world.admin.operation(operation).await,
                    |operation| step(operation, key) == "done" || has_ended(operation),
                )
                .await
            }
        }
    }
}

/// Kills, starts again, waits until nothing is under way, compares; says in one line how it went.
async fn cell(world: &mut World, saga: &str, when: When, operation: &str) -> Value {
    let seen = when.wait(world, operation).await;
    world.server.kill().await;
    world.sim.mend().await;
    let begun = Instant::now();
    world.server.restart().await;
    world.settled().await;
    world.agree().await;
    let after = world.admin.operation(operation).await;
    println!(
        "crash {saga:<9} {:<85} {:<28} -> {} after {:.1} s",
        when.describe(),
        seen["message"].as_str().unwrap_or_default(),
        after["state"].as_str().unwrap(),
        begun.elapsed().as_secs_f64()
    );
    after
}

async fn provision(world: &mut World, name: &str, when: When) {
    when.prepare(world).await;
    let operation = world.admin.order(name).await;
    let after = cell(world, "provision", when, &operation).await;
    // Nothing was wrong with the cluster, so the work is carried on rather than taken back.
    assert_eq!(after["state"], "succeeded", "{after:#}");
    let row = world.admin.machine(name).await.expect("a machine");
    assert_eq!(row["status"], "running");
}

#[tokio::test]
async fn a_provision_killed_after_every_step() {
    let mut world = Opening::of("crash", "provision_after").start().await;
    for (n, key) in crate::system::STEPS.iter().enumerate() {
        provision(&mut world, &format!("after-{n}"), When::Done(key)).await;
    }
}

#[tokio::test]
async fn a_provision_killed_inside_of_every_step() {
    let mut world = Opening::of("crash", "provision_inside").start().await;
    for (n, call) in [GUESTS, NEXT_ID, CLONE, TASK, CONFIG, RESIZE, START, AGENT]
        .into_iter()
        .enumerate()
    {
        provision(&mut world, &format!("asked-{n}"), When::Asked(call)).await;
    }
    for (n, call) in [CLONE, CONFIG, RESIZE, START].into_iter().enumerate() {
        provision(&mut world, &format!("answered-{n}"), When::Answered(call)).await;
    }
}

#[tokio::test]
async fn a_provision_killed_inside_of_its_last_steps() {
    let mut world = Opening::of("crash", "provision_last").start().await;
    for milliseconds in (0..60).step_by(5) {
        provision(
            &mut world,
            &format!("later-{milliseconds}"),
            When::Later(AGENT, milliseconds),
        )
        .await;
    }
}

#[tokio::test]
async fn a_rollback_killed_inside_of_every_call() {
    let mut world = Opening::of("crash", "rollback").start().await;
    for (n, when) in [
        When::Asked(STOP),
        When::Answered(STOP),
        When::Asked(DESTROY),
        When::Answered(DESTROY),
        When::Done("clone_template"),
    ]
    .into_iter()
    .enumerate()
    {
        world.sim.order(&Fault::always(START, fail())).await;
        let name = format!("back-{n}");
        if matches!(when, When::Done(_)) {
            // Killed between the failure and the last undo.
            world.sim.order(&Fault::once(DESTROY, delay(1_000))).await;
            let operation = world.admin.order(&name).await;
            eventually(
                "the clone is being taken back",
                Duration::from_secs(30),
                async || world.admin.operation(&operation).await,
                |operation| step(operation, "clone_template") == "undoing",
            )
            .await;
            let after = cell(
                &mut world,
                "rollback",
                When::Asked("nothing in particular"),
                &operation,
            )
            .await;
            assert_eq!(after["state"], "failed", "{after:#}");
        } else {
            when.prepare(&world).await;
            let operation = world.admin.order(&name).await;
            let after = cell(&mut world, "rollback", when, &operation).await;
            assert_eq!(
                (&after["state"], &after["fault"]["code"]),
                (&"failed".into(), &"machine.proxmox_rejected".into())
            );
        }
        assert!(world.admin.machine(&name).await.is_none());
    }
    assert!(world.sim.made().await.is_empty());
    // The names are free again.
    let _ = world.make("back-0").await;
    world.agree().await;
}

#[tokio::test]
async fn a_deletion_killed_after_and_inside_of_every_step() {
    let mut world = Opening::of("crash", "delete").start().await;
    for (n, when) in [
        When::Asked(STOP),
        When::Answered(STOP),
        When::Done("stop_vm"),
        When::Asked(DESTROY),
        When::Answered(DESTROY),
        When::Done("destroy_vm"),
        When::Done("release_ip"),
        When::Done("remove_vm"),
        When::Later(DESTROY, 20),
        When::Later(DESTROY, 30),
        When::Later(DESTROY, 40),
    ]
    .into_iter()
    .enumerate()
    {
        let row = world.make(&format!("gone-{n}")).await;
        when.prepare(&world).await;
        let operation = world.admin.begin_delete(row["ID"].as_str().unwrap()).await;
        let after = cell(&mut world, "delete", when, &operation).await;
        assert_eq!(after["state"], "succeeded", "{after:#}");
        assert!(world.sim.guest(number(&row["vmid"])).await.is_none());
        assert!(world.admin.machines().await.is_empty());
    }
}

/// A cluster that takes its time, killed at moments that no call marks: tasks run on meanwhile.
#[tokio::test]
async fn a_server_killed_again_and_again_gets_there() {
    let mut world = Opening::of("crash", "again_and_again").slow(0.04).start().await;
    let mut operations = Vec::new();
    for n in 0..4 {
        operations.push(world.admin.order(&format!("web-{n}")).await);
    }
    let mut kills = 0;
    // A quarter of a second more each time: from the first step until nothing is left to do.
    for round in 1..=8_u32 {
        tokio::time::sleep(Duration::from_millis(250) * round / 2).await;
        world.crash().await;
        kills += 1;
        let open = world.admin.get("/api/operations").await.data();
        if open.as_array().unwrap().iter().all(has_ended) {
            break;
        }
    }
    world.settled().await;
    for operation in &operations {
        let _ = world.admin.succeeded(operation).await;
    }
    world.agree().await;
    println!("crash again     {kills} kills, {} machines", operations.len());
}
