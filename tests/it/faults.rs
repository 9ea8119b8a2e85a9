//! The fault matrix: every call of the cluster fails, hangs, talks garbage, breaks off, or starts a task
//! that fails. After that there is a machine that works or nothing at all, and whoever asked is told
//! something they can act on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nimbus_tests::api::has_ended;
use nimbus_tests::sim::{fail, garbage, hang, number, reset, task_fail};
use nimbus_tests::{Fault, Opening, World, eventually};
use serde_json::Value;

/// Calls that only read, in the order in which a provision makes them.
const READS: [&str; 9] = [
    "GET /nodes",
    "GET /nodes/{node}/qemu",
    "GET /nodes/{node}/lxc",
    "GET /nodes/{node}/lxc/{vmid}/config",
    "GET /nodes/{node}/qemu/{vmid}/config",
    "GET /cluster/resources",
    "GET /cluster/nextid",
    "GET /nodes/{node}/tasks/{upid}/status",
    "GET /nodes/{node}/qemu/{vmid}/agent/network-get-interfaces",
];
/// Calls that change something, in the order in which a provision makes them.
const CHANGES: [&str; 4] = [
    "POST /nodes/{node}/qemu/{vmid}/clone",
    "POST /nodes/{node}/qemu/{vmid}/config",
    "PUT /nodes/{node}/qemu/{vmid}/resize",
    "POST /nodes/{node}/qemu/{vmid}/status/start",
];
/// Calls of a deletion.
const DELETION: [&str; 4] = [
    "GET /nodes/{node}/qemu/{vmid}/config",
    "POST /nodes/{node}/qemu/{vmid}/status/stop",
    "DELETE /nodes/{node}/qemu/{vmid}",
    "GET /nodes/{node}/tasks/{upid}/status",
];

/// How a call goes wrong, with a name for the table.
type Wrong = (&'static str, fn(&str) -> Fault);

const ONCE: [Wrong; 4] = [
    ("fails once", |call| Fault::once(call, fail())),
    ("hangs once", |call| Fault::once(call, hang())),
    ("garbage once", |call| Fault::once(call, garbage())),
    ("reset once", |call| Fault::once(call, reset())),
];
const ALWAYS: [Wrong; 4] = [
    ("always fails", |call| Fault::always(call, fail())),
    ("always hangs", |call| Fault::always(call, hang())),
    ("always garbage", |call| Fault::always(call, garbage())),
    ("always reset", |call| Fault::always(call, reset())),
];
/// The call has its effect, only the answer is lost.
const LOST: [Wrong; 3] = [
    ("answer lost", |call| Fault::once(call, reset()).after()),
    ("answer late", |call| Fault::once(call, hang()).after()),
    ("answer garbled", |call| Fault::once(call, garbage()).after()),
];
const TASK: [Wrong; 2] = [
    ("task fails once", |call| Fault::once(call, task_fail())),
    ("task always fails", |call| Fault::always(call, task_fail())),
];

struct Matrix {
    world: World,
    catalogue: BTreeMap<String, Value>,
    cells: usize,
    /// Cells that did not end as they should, with everything known about them.
    wrong: Vec<String>,
}

impl Matrix {
    async fn start(test: &str) -> Self {
        let world = Opening::of("faults", test)
            .with("NIMBUS_PVE_REQUEST_TIMEOUT", "300ms")
            .with("NIMBUS_TASK_TIMEOUT_SECONDS", "4s")
            .with("NIMBUS_READY_TIMEOUT_SECONDS", "2s")
            .with("VERIFY_CACHE_TTL_SECONDS", "0")
            .start()
            .await;
        // The look that follows a sign-in is behind us: it would meet the first fault.
        let _ = world.admin.touch("/api/ips/reconcile").await.data();
        let errors = world.admin.get("/api/errors").await.is(200).data();
        let rows = errors["errors"].as_array().unwrap().iter();
        let catalogue = rows
            .map(|row| (row["code"].as_str().unwrap().to_owned(), row.clone()))
            .collect();
        Self {
            world,
            catalogue,
            cells: 0,
            wrong: vec![],
        }
    }

    /// One provision with one thing going wrong.
    async fn provision(&mut self, call: &str, wrong: Wrong) {
        let name = format!("m-{}", self.cells);
        self.cells += 1;
        // What the last provision learned about the cluster is kept for a second.
        tokio::time::sleep(Duration::from_millis(1_050)).await;
        self.world.sim.order(&wrong.1(call)).await;
        let begun = Instant::now();
        let operation = self.world.admin.order(&name).await;
        let after = self.follow(&operation).await;
        let outcome = self.judge("provision", call, wrong.0, &after, begun).await;
        let row = self.world.admin.machine(&name).await;
        if row.is_some() != (outcome == "made") {
            self.wrong.push(format!(
                "provision, {call} {}: {outcome}, and the row is {row:?}",
                wrong.0
            ));
        }
    }

    /// One deletion with one thing going wrong; if it fails, another without.
    async fn delete(&mut self, call: &str, wrong: Wrong) {
        let name = format!("m-{}", self.cells);
        self.cells += 1;
        let row = self.world.make(&name).await;
        let id = row["ID"].as_str().unwrap();
        self.world.sim.order(&wrong.1(call)).await;
        let begun = Instant::now();
        let operation = self.world.admin.begin_delete(id).await;
        let after = self.follow(&operation).await;
        if after["state"] == "failed" {
            let kept = self
                .world
                .admin
                .machine(&name)
                .await
                .expect("a machine that could not be deleted stays");
            assert_eq!(kept["status"], "failed", "{kept}");
            assert!(kept["error_msg"].is_string(), "{kept}");
            let again = self.world.admin.begin_delete(id).await;
            let _ = self.world.admin.succeeded(&again).await;
        }
        let _ = self.judge("delete", call, wrong.0, &after, begun).await;
        if self.world.sim.guest(number(&row["vmid"])).await.is_some() {
            self.wrong
                .push(format!("delete, {call} {}: the VM is still there", wrong.0));
        }
    }

    /// Waits for the end. A fault that lasts is mended as soon as the step has failed: without its
    /// cluster nobody can clean up.
    async fn follow(&self, operation: &str) -> Value {
        let failed = |operation: &Value| {
            let steps = operation["steps"].as_array().unwrap();
            has_ended(operation)
                || steps
                    .iter()
                    .any(|step| matches!(step["state"].as_str(), Some("failed" | "undoing" | "undone")))
        };
        let api = &self.world.admin;
        let bound = Duration::from_secs(90);
        eventually(
            "success or failure",
            bound,
            async || api.operation(operation).await,
            failed,
        )
        .await;
        self.world.sim.mend().await;
        api.ended(operation).await
    }

    /// Compares, and looks at what the user is told; gives the outcome in a word.
    async fn judge(&mut self, saga: &str, call: &str, how: &str, after: &Value, begun: Instant) -> String {
        let took = begun.elapsed().as_secs_f64();
        let differences =
            nimbus_tests::world::differences(&self.world.sim, &self.world.admin, &[&self.world.admin]).await;
        let mut complaints = differences;
        let outcome = if after["state"] == "succeeded" {
            if saga == "delete" { "deleted" } else { "made" }.to_owned()
        } else {
            let fault = &after["fault"];
            let code = fault["code"].as_str().unwrap_or("no code").to_owned();
            let Some(entry) = self.catalogue.get(&code) else {
                self.wrong
                    .push(format!("{saga}, {call} {how}: {code} is not in the catalogue"));
                return code;
            };
            if entry["remediation"]["message"] != fault["remediation"]["message"]
                || fault["remediation"]["message"].as_str().is_none_or(str::is_empty)
                || fault["message"].as_str().is_none_or(|message| message.len() < 10)
            {
                complaints.push(format!("nobody can act on {fault}"));
            }
            if matches!(
                code.as_str(),
                "service.internal" | "machine.stuck" | "service.storage_corruption"
            ) {
                complaints.push(format!("this is no answer: {fault}"));
            }
            code
        };
        println!("fault {saga:<9} {call:<62} {how:<18} -> {outcome:<34} {took:>5.1} s");
        if how.ends_with("once")
            && how.starts_with("reset")
            && call.starts_with("GET")
            && after["state"] != "succeeded"
        {
            complaints.push(format!(
                "one broken connection of a call that only reads was not forgiven: {}",
                after["fault"]
            ));
        }
        if !complaints.is_empty() {
            self.wrong.push(format!("{saga}, {call} {how}: {complaints:#?}"));
            // One leftover would be counted in every cell from here on.
            for vmid in self.world.sim.made().await.keys() {
                println!("  left: VM {vmid}");
            }
        }
        outcome
    }

    fn verdict(self) {
        println!("fault matrix: {} cells, {} wrong", self.cells, self.wrong.len());
        assert!(self.wrong.is_empty(), "{:#?}", self.wrong);
    }
}

/// What all of this rests on: the comparison sees what is wrong.
#[tokio::test]
async fn the_comparison_sees_what_is_wrong() {
    let matrix = Matrix::start("comparison").await;
    let (sim, admin) = (&matrix.world.sim, &matrix.world.admin);
    let row = matrix.world.make("web-1").await;
    let other = matrix.world.make("web-2").await;
    matrix.world.agree().await;
    sim.remove(number(&row["vmid"])).await;
    let seen = nimbus_tests::world::differences(sim, admin, &[admin]).await;
    assert!(
        matches!(&seen[..], [line] if line.contains("web-1 has no VM")),
        "{seen:#?}"
    );
    // Seen by somebody who does not own them, both are leftovers: VM and address.
    let stranger = admin.member("bob").await;
    let anybody = nimbus_tests::world::differences(sim, admin, &[&stranger]).await;
    assert!(
        anybody.iter().any(|line| line.contains("belongs to no machine")),
        "{anybody:#?}"
    );
    assert!(
        anybody.iter().any(|line| line.contains("leaked address")),
        "{anybody:#?}"
    );
    assert_eq!(other["hostname"], "web-2");
}

#[tokio::test]
async fn reads_of_a_provision_that_go_wrong_once() {
    let mut matrix = Matrix::start("reads_once").await;
    for call in READS {
        for wrong in ONCE {
            matrix.provision(call, wrong).await;
        }
    }
    matrix.verdict();
}

#[tokio::test]
async fn reads_of_a_provision_that_always_go_wrong() {
    let mut matrix = Matrix::start("reads_always").await;
    for call in READS {
        for wrong in ALWAYS {
            matrix.provision(call, wrong).await;
        }
    }
    matrix.verdict();
}

#[tokio::test]
async fn changes_of_a_provision_that_go_wrong() {
    let mut matrix = Matrix::start("changes").await;
    for call in CHANGES {
        for wrong in ONCE.into_iter().chain(ALWAYS).chain(LOST).chain(TASK) {
            matrix.provision(call, wrong).await;
        }
    }
    matrix.verdict();
}

#[tokio::test]
async fn calls_of_a_deletion_that_go_wrong() {
    let mut matrix = Matrix::start("deletion").await;
    for call in DELETION {
        let reads = call.starts_with("GET");
        for wrong in ONCE.into_iter().chain(ALWAYS) {
            matrix.delete(call, wrong).await;
        }
        for wrong in LOST.into_iter().chain(TASK).filter(|_| !reads) {
            matrix.delete(call, wrong).await;
        }
    }
    matrix.verdict();
}
