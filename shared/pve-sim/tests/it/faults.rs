//! Faults to order, and what the client makes of them.

use std::time::Duration;

use nimbus_proxmox::{Client, PowerOp, ProxmoxError as E, TaskOutcome};
use nimbus_pve_sim::{Fault, FaultMode};
use tokio::time::Instant;

use crate::support::*;

const CLONE: &str = "POST /nodes/{node}/qemu/{vmid}/clone";
const STATUS: &str = "GET /nodes/{node}/tasks/{upid}/status";

fn fail(status: u16, message: &str) -> FaultMode {
    FaultMode::Fail {
        status,
        message: message.to_owned(),
    }
}

#[tokio::test]
async fn refusals() {
    let (sim, client) = start(immediate()).await;
    sim.inject(Fault::once(
        "GET /version",
        fail(403, "Permission check failed (/, Sys.Audit)"),
    ));
    let error = client.version().await.unwrap_err();
    assert!(
        matches!(&error, E::Forbidden { message } if message.contains("Sys.Audit")),
        "{error}"
    );
    sim.inject(Fault::once(CLONE, fail(500, "cluster not ready - no quorum?")));
    let error = client
        .clone_vm("pve1", vmid(TEMPLATE), &spec(100, "x"))
        .await
        .unwrap_err();
    assert!(matches!(error, E::Unquorate { .. }), "{error}");
    assert!(client.version().await.is_ok(), "once is once");
}

#[tokio::test]
async fn a_read_survives_a_broken_connection_and_a_change_does_not_run_twice() {
    let (sim, client) = start(immediate()).await;
    sim.inject(Fault::once("GET /nodes", FaultMode::Reset));
    assert_eq!(client.nodes().await.unwrap().len(), 3);
    // Carried out, but the answer is lost.
    sim.inject(Fault {
        after: true,
        ..Fault::once(CLONE, FaultMode::Reset)
    });
    let error = client
        .clone_vm("pve1", vmid(TEMPLATE), &spec(100, "x"))
        .await
        .unwrap_err();
    assert!(matches!(error, E::Unreachable { .. }), "{error}");
    assert_eq!(sim.state()["requests"][CLONE], 1);
    assert!(
        client.vm_config("pve1", vmid(100)).await.is_ok(),
        "the clone is there all the same"
    );
}

#[tokio::test]
async fn inner_connections_of_the_cluster() {
    let (sim, client) = start(immediate()).await;
    sim.inject(Fault::once(
        "GET /nodes/{node}/qemu",
        fail(595, "Connection refused"),
    ));
    assert!(client.qemu_list("pve1").await.is_ok(), "repeated");
    sim.inject(Fault::once(
        "GET /nodes/{node}/qemu",
        fail(596, "Connection timed out"),
    ));
    let error = client.qemu_list("pve1").await.unwrap_err();
    assert!(matches!(error, E::NodeUnreachable { status: 596, .. }), "{error}");
}

#[tokio::test]
async fn a_worker_that_did_not_start_is_started_again() {
    let (sim, client) = start(immediate()).await;
    let vm = cloned(&client, 100).await;
    let resize = "PUT /nodes/{node}/qemu/{vmid}/resize";
    sim.inject(Fault::once(
        resize,
        fail(500, "got no worker upid - start worker failed"),
    ));
    let upid = client
        .resize_disk("pve1", vm, "scsi0", 10)
        .await
        .unwrap()
        .unwrap();
    wait(&client, &upid).await.unwrap();
    assert_eq!(sim.state()["requests"][resize], 2);
}

#[tokio::test]
async fn garbage() {
    let (sim, client) = start(immediate()).await;
    sim.inject(Fault::once("GET /nodes", FaultMode::Garbage));
    let error = client.nodes().await.unwrap_err();
    assert!(matches!(error, E::Garbage { .. }), "{error}");
}

#[tokio::test]
async fn no_answer() {
    let (sim, _) = start(immediate()).await;
    let mut impatient = config(&sim);
    impatient.request_timeout = Duration::from_millis(50);
    let client = Client::new(impatient).unwrap();
    sim.inject(Fault::once("GET /nodes", FaultMode::Hang));
    let error = client.nodes().await.unwrap_err();
    assert!(
        matches!(&error, E::Timeout { call } if call == "GET /nodes"),
        "{error}"
    );
    sim.inject(Fault::once("GET /nodes", FaultMode::Delay { ms: 1 }));
    assert!(client.nodes().await.is_ok());
}

#[tokio::test]
async fn a_task_that_fails_leaves_nothing_and_tells_why() {
    let (sim, client) = start(immediate()).await;
    sim.inject(Fault::once(
        CLONE,
        FaultMode::TaskFail {
            exitstatus: "clone failed: no space left".to_owned(),
        },
    ));
    let upid = client
        .clone_vm("pve1", vmid(TEMPLATE), &spec(100, "x"))
        .await
        .unwrap();
    let error = wait(&client, &upid).await.unwrap_err();
    let E::TaskFailed { exitstatus, log, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(exitstatus, "clone failed: no space left");
    assert!(
        log.first().unwrap().contains("create full clone of drive scsi0"),
        "{log:?}"
    );
    assert_eq!(log.last().unwrap(), "TASK ERROR: clone failed: no space left");
    assert!(matches!(
        client.vm_config("pve1", vmid(100)).await.unwrap_err(),
        E::NotFound { .. }
    ));
}

#[tokio::test]
async fn warnings_are_success() {
    let (sim, client) = start(immediate()).await;
    sim.inject(Fault::once(
        CLONE,
        FaultMode::TaskFail {
            exitstatus: "WARNINGS: 2".to_owned(),
        },
    ));
    let upid = client
        .clone_vm("pve1", vmid(TEMPLATE), &spec(100, "x"))
        .await
        .unwrap();
    assert_eq!(
        wait(&client, &upid).await.unwrap(),
        TaskOutcome::Warnings("WARNINGS: 2".to_owned())
    );
    assert!(client.vm_config("pve1", vmid(100)).await.is_ok());
}

#[tokio::test]
async fn waiting_goes_on_over_every_kind_of_trouble() {
    let (sim, client) = start(immediate()).await;
    let upid = client
        .clone_vm("pve1", vmid(TEMPLATE), &spec(100, "x"))
        .await
        .unwrap();
    for mode in [
        FaultMode::Reset,
        FaultMode::Garbage,
        fail(596, "Connection timed out"),
        fail(500, "short write"),
        FaultMode::Reset,
    ] {
        sim.inject(Fault::once(STATUS, mode));
    }
    assert_eq!(wait(&client, &upid).await.unwrap(), TaskOutcome::Ok);
    sim.inject(Fault {
        count: 0,
        ..Fault::once(STATUS, fail(403, "Permission check failed"))
    });
    assert!(
        matches!(wait(&client, &upid).await.unwrap_err(), E::Forbidden { .. }),
        "a refusal does not pass"
    );
}

#[tokio::test]
async fn a_task_past_its_deadline() {
    let (_sim, client) = start(immediate().latency_scale(1.0).manual_clock()).await;
    let upid = client
        .clone_vm("pve1", vmid(TEMPLATE), &spec(100, "x"))
        .await
        .unwrap();
    let error = client
        .wait_task(&upid, Instant::now() + Duration::from_millis(30))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, E::TaskTimeout { upid: late } if *late == upid),
        "{error}"
    );
    client.stop_task(&upid).await.unwrap();
    let error = wait(&client, &upid).await.unwrap_err();
    assert!(
        matches!(&error, E::TaskFailed { exitstatus, .. } if exitstatus == "interrupted by signal"),
        "{error}"
    );
}

#[tokio::test]
async fn an_agent_that_never_comes() {
    let (sim, client) = start(immediate()).await;
    let vm = cloned(&client, 100).await;
    sim.inject(Fault::once("*/status/start", FaultMode::AgentNever));
    let upid = client.power("pve1", vm, PowerOp::Start).await.unwrap();
    wait(&client, &upid).await.unwrap();
    let error = client.agent_interfaces("pve1", vm).await.unwrap_err();
    assert!(
        matches!(error, E::AgentNotReady { .. }) && error.is_transient(),
        "{error}"
    );
}

#[tokio::test]
async fn the_agent_comes_up_a_while_after_the_boot() {
    let (sim, client) = start(immediate().latency_scale(1.0).manual_clock()).await;
    let step = async |upid: nimbus_proxmox::Upid| {
        sim.pass(Duration::from_secs(30));
        wait(&client, &upid).await.unwrap();
    };
    let vm = vmid(100);
    step(
        client
            .clone_vm("pve1", vmid(TEMPLATE), &spec(100, "x"))
            .await
            .unwrap(),
    )
    .await;
    let patch = nimbus_proxmox::ConfigPatch::new().set("ipconfig0", "ip=10.77.0.60/24,gw=10.77.0.1");
    step(client.set_config("pve1", vm, &patch).await.unwrap().unwrap()).await;
    let upid = client.power("pve1", vm, PowerOp::Start).await.unwrap();
    sim.pass(Duration::from_secs(4));
    wait(&client, &upid).await.unwrap();
    let addresses = async || {
        let interfaces = client.agent_interfaces("pve1", vm).await?;
        let outside = interfaces
            .iter()
            .filter(|i| !i.is_loopback())
            .flat_map(|i| &i.addresses);
        Ok::<_, E>(
            outside
                .filter(|a| a.ip.is_ipv4())
                .map(|a| a.ip.to_string())
                .collect::<Vec<_>>(),
        )
    };
    let early = addresses().await.unwrap_err();
    assert!(matches!(early, E::AgentNotReady { .. }), "{early}");
    // The agent takes 13.5 to 16.5 s, the address another one.
    sim.pass(Duration::from_secs(11));
    assert!(addresses().await.is_err());
    sim.pass(Duration::from_secs(7));
    assert_eq!(addresses().await.unwrap(), ["10.77.0.60"]);
}

#[tokio::test]
async fn the_control_endpoint() {
    let (sim, client) = start(immediate()).await;
    let http = reqwest::Client::builder()
        .timeout(Duration::from_secs(10))
        .build()
        .unwrap();
    let url = |path: &str| format!("{}/sim/{path}", sim.url);
    let refused = http.get(url("state")).send().await.unwrap();
    assert_eq!(refused.status(), 401);
    let send = |method: reqwest::Method, path: &str, body: &'static str| {
        http.request(method, url(path))
            .header("X-Sim-Token", SECRET)
            .body(body)
            .send()
    };
    use reqwest::Method;
    let order = r#"{"path": "GET /version", "mode": "fail", "status": 500, "message": "out of cheese"}"#;
    assert!(
        send(Method::POST, "faults", order)
            .await
            .unwrap()
            .status()
            .is_success()
    );
    assert!(
        client
            .version()
            .await
            .unwrap_err()
            .to_string()
            .contains("out of cheese")
    );
    assert_eq!(
        send(Method::POST, "faults", r#"{"mode": "explode"}"#)
            .await
            .unwrap()
            .status(),
        400
    );
    let made = send(
        Method::POST,
        "vms",
        r#"{"vmid": 600, "node": "pve2", "address": "10.77.0.77"}"#,
    )
    .await
    .unwrap();
    assert!(made.status().is_success());
    let config = client.vm_config("pve2", vmid(600)).await.unwrap();
    assert_eq!(config.static_ip(), Some("10.77.0.77".parse().unwrap()));
    assert!(
        send(Method::POST, "nodes/pve3", r#"{"online": false}"#)
            .await
            .unwrap()
            .status()
            .is_success()
    );
    assert!(!client.nodes().await.unwrap()[2].is_online());
    assert!(
        send(Method::POST, "vms/600", r#"{"lock": "backup"}"#)
            .await
            .unwrap()
            .status()
            .is_success()
    );
    assert_eq!(
        client.vm_config("pve2", vmid(600)).await.unwrap().lock(),
        Some("backup")
    );
    assert!(
        send(Method::DELETE, "vms/600", "")
            .await
            .unwrap()
            .status()
            .is_success()
    );
    assert!(client.vm_config("pve2", vmid(600)).await.is_err());
    let state: serde_json::Value = serde_json::from_str(
        &send(Method::GET, "state", "")
            .await
            .unwrap()
            .text()
            .await
            .unwrap(),
    )
    .unwrap();
    assert_eq!(state["requests"]["GET /version"], 1);
    assert_eq!(send(Method::GET, "nothing", "").await.unwrap().status(), 404);
}
