//! What other people do in the same cluster.

use futures::future::join_all;
use nimbus_tests::sim::{PveSim, number};
use nimbus_tests::world::{differences, first_user};
use nimbus_tests::{Opening, Server, Settings};
use serde_json::json;

#[tokio::test]
async fn a_stranger_with_a_reused_number_is_never_touched() {
    let world = Opening::of("system", "a_stranger").start().await;
    let api = &world.admin;
    for (name, deleted) in [("deleted-by-us", true), ("given-up", false)] {
        let row = world.make(name).await;
        let (id, vmid) = (row["ID"].as_str().unwrap(), number(&row["vmid"]));
        world.sim.remove(vmid).await;
        let stranger = json!({"vmid": vmid, "node": row["node"], "name": name, "address": "10.77.0.240"});
        assert_eq!(world.sim.stranger(stranger).await, vmid);
        let before = world.sim.guest(vmid).await.unwrap();
        if deleted {
            let _ = api.delete(&format!("/api/vms/{id}")).await.is(204);
        } else {
            for action in ["stop", "shutdown", "reboot", "start"] {
                let refused = api.touch(&format!("/api/vms/{id}/{action}")).await.is(409);
                assert_eq!(refused.code(), "machine.not_ours", "{action}");
            }
            for round in 1..=3 {
                let report = api.touch("/api/vms/reconcile").await.data();
                let list = if round < 3 { "missed" } else { "deleted" };
                assert_eq!(report[list][0]["hostname"], name, "round {round}: {report}");
            }
        }
        assert!(api.machine(name).await.is_none());
        assert_eq!(
            world.sim.guest(vmid).await.unwrap(),
            before,
            "the stranger is as it was"
        );
        let ip = row["ip"].as_str().unwrap();
        let address = api
            .addresses()
            .await
            .into_iter()
            .find(|address| address["ip"] == ip)
            .unwrap();
        assert_eq!(address["status"], "free", "{address}");
    }
    let guests = api.get("/api/cluster/vms").await.data();
    assert!(
        guests
            .as_array()
            .unwrap()
            .iter()
            .all(|guest| guest["nimbus_managed"] == false),
        "{guests}"
    );
}

#[tokio::test]
async fn a_machine_that_somebody_removed_is_given_up_after_three_looks() {
    let world = Opening::of("system", "a_removed_machine").start().await;
    let row = world.make("web-1").await;
    let _ = world.make("web-2").await;
    let node = row["node"].as_str().unwrap();
    // While its node is away nobody knows whether it is gone.
    world.sim.switch(node, false).await;
    for _ in 0..4 {
        let report = world.admin.touch("/api/vms/reconcile").await;
        if report.status == 200 {
            assert_eq!(report.body["data"]["missed"], json!([]), "{}", report.text);
        }
    }
    world.sim.switch(node, true).await;
    world.sim.remove(number(&row["vmid"])).await;
    for _ in 0..2 {
        let _ = world.admin.touch("/api/vms/reconcile").await.data();
        assert!(world.admin.machine("web-1").await.is_some());
    }
    let report = world.admin.touch("/api/vms/reconcile").await.data();
    assert_eq!(report["deleted"][0]["hostname"], "web-1", "{report}");
    world.agree().await;
}

#[tokio::test]
async fn addresses_that_guests_use_are_not_given_away() {
    let world = Opening::of("system", "addresses_in_use").start().await;
    let holder = world
        .sim
        .stranger(json!({"address": "10.77.0.50", "name": "byhand"}))
        .await;
    let row = world.make("web-1").await;
    assert_eq!(row["ip"], "10.77.0.51");
    let taken =
        |rows: Vec<serde_json::Value>, ip: &str| rows.into_iter().find(|row| row["ip"] == ip).unwrap();
    let address = taken(world.admin.addresses().await, "10.77.0.50");
    assert_eq!(
        (&address["source"], &address["vmid"]),
        (&json!("adopted"), &json!(holder)),
        "{address}"
    );
    let _ = world
        .sim
        .stranger(json!({"address": "10.77.0.60", "kind": "lxc", "name": "container"}))
        .await;
    let report = world.admin.touch("/api/ips/reconcile").await.data();
    assert_eq!(report["adopted"][0]["ip"], "10.77.0.60", "{report}");
    // Given back once its guest has been gone for as many looks as it takes.
    world.sim.remove(holder).await;
    let mut vacated = false;
    for _ in 0..6 {
        let report = world.admin.touch("/api/ips/reconcile").await.data();
        vacated |= report["vacated"]
            .as_array()
            .unwrap()
            .contains(&json!("10.77.0.50"));
    }
    assert!(vacated, "{}", taken(world.admin.addresses().await, "10.77.0.50"));
    world.agree().await;
}

#[tokio::test]
async fn two_installations_on_one_cluster_share_no_address() {
    let output = nimbus_tests::process::output("system", "two_installations");
    let dir = camino_tempfile::tempdir().unwrap();
    let sim = PveSim::start(&output, 0.0, 10).await;
    let settings = Settings::cluster(&sim);
    let one = Server::start(&output, "one", &dir.path().join("one"), &settings).await;
    let two = Server::start(&output, "two", &dir.path().join("two"), &settings).await;
    let (ada, eve) = (first_user(&one.url()).await, first_user(&two.url()).await);
    // One after the other, then all at once.
    for n in 0..3 {
        for (api, name) in [(&ada, format!("ada-{n}")), (&eve, format!("eve-{n}"))] {
            let operation = api.order(&name).await;
            let _ = api.succeeded(&operation).await;
        }
    }
    let mut operations = Vec::new();
    for n in 3..8 {
        operations.push((&ada, ada.order(&format!("ada-{n}")).await));
        operations.push((&eve, eve.order(&format!("eve-{n}")).await));
    }
    let ended = join_all(operations.iter().map(|(api, id)| api.ended(id))).await;
    let failed: Vec<_> = ended
        .iter()
        .filter(|operation| operation["state"] == "failed")
        .collect();
    for operation in &failed {
        println!("failed: {}", operation["fault"]);
    }
    assert!(failed.is_empty(), "{failed:#?}");
    let made = sim.made().await;
    let mut addresses: Vec<&str> = made
        .values()
        .map(|vm| vm["config"]["ipconfig0"].as_str().unwrap())
        .collect();
    addresses.sort_unstable();
    let count = addresses.len();
    addresses.dedup();
    assert_eq!((count, addresses.len()), (16, 16), "{addresses:?}");
    // Each sees the other's machines as somebody else's, also when it compares.
    for api in [&ada, &eve] {
        for _ in 0..3 {
            let report = api.touch("/api/vms/reconcile").await.data();
            assert_eq!(
                (&report["missed"], &report["deleted"]),
                (&json!([]), &json!([])),
                "{report}"
            );
            let report = api.touch("/api/ips/reconcile").await.data();
            assert_eq!(report["conflicts"], json!([]), "{report}");
        }
        assert_eq!(api.machines().await.len(), 8);
    }
    for api in [&ada, &eve] {
        // Its own half is in order; the other half it knows as addresses of somebody else.
        let wrong = differences(&sim, api, &[api]).await;
        assert!(
            wrong.iter().all(|line| line.contains("belongs to no machine")),
            "{wrong:#?}"
        );
        assert_eq!(wrong.len(), 8, "{wrong:#?}");
    }
}
