//! Running a server: start, stop, crash of the bus, copies.

use std::time::{Duration, Instant};

use nimbus_tests::api::machine;
use nimbus_tests::compose::reachable;
use nimbus_tests::process::{binary, command, output};
use nimbus_tests::server::portal_bound;
use nimbus_tests::sim::{TOKEN_ID, TOKEN_SECRET};
use nimbus_tests::world::first_user;
use nimbus_tests::{Api, Opening, Server, Settings, eventually};
use serde_json::json;

#[tokio::test]
async fn a_restart_keeps_everything() {
    let mut world = Opening::of("system", "a_restart_keeps_everything").start().await;
    let session = world
        .admin
        .login("ada@example.org", nimbus_tests::api::PASSWORD)
        .await;
    let row = world.make("web-1").await;
    // The look that follows a sign-in has been by then.
    let _ = world.admin.touch("/api/ips/reconcile").await.data();
    let operations = world.admin.get("/api/operations").await.data();
    let addresses = world.admin.addresses().await;
    let status = world.server.terminate().await;
    assert!(status.success(), "{status}");
    world.server.restart().await;
    assert_eq!(world.admin.machine("web-1").await.unwrap(), row);
    assert_eq!(world.admin.get("/api/operations").await.data(), operations);
    assert_eq!(world.admin.addresses().await, addresses);
    assert_eq!(session.get("/api/me").await.data()["name"], "Ada");
    world.agree().await;
    let _ = world.make("web-2").await;
    world.agree().await;
}

#[tokio::test]
async fn a_soft_stop_in_the_middle_is_carried_on() {
    let mut world = Opening::of("system", "a_soft_stop").slow(0.04).start().await;
    let operation = world.admin.order("web-1").await;
    eventually(
        "the template is being cloned",
        Duration::from_secs(20),
        async || world.admin.operation(&operation).await,
        |operation| nimbus_tests::api::step(operation, "clone_template") == "running",
    )
    .await;
    assert!(world.server.terminate().await.success());
    world.server.restart().await;
    let _ = world.admin.succeeded(&operation).await;
    world.agree().await;
}

#[tokio::test]
async fn a_killed_bus_comes_back_and_nothing_is_lost() {
    let mut world = Opening::of("system", "a_killed_bus").slow(0.02).start().await;
    let names: Vec<String> = (0..4).map(|n| format!("web-{n}")).collect();
    let operations = futures::future::join_all(names.iter().map(|name| world.admin.order(name))).await;
    world.server.kill_bus();
    for operation in &operations {
        eventually(
            "the operation has succeeded",
            Duration::from_secs(60),
            async || {
                let request = world
                    .admin
                    .request(http::Method::GET, &format!("/api/operations/{operation}"));
                let answer = Api::send(request).await;
                answer.body["data"]["state"]
                    .as_str()
                    .unwrap_or("no answer")
                    .to_owned()
            },
            |state| state == "succeeded",
        )
        .await;
    }
    assert!(world.server.is_up(), "the server survives");
    let _ = world.make("after").await;
    world.agree().await;
}

#[tokio::test]
async fn a_copy_of_the_running_database_can_be_restored() {
    let mut world = Opening::of("system", "a_copy").start().await;
    let row = world.make("web-1").await;
    let copy = world.dir().join("copy.db");
    let data = world.dir().join("data");
    let run = async |args: &[&str]| {
        let done = command(binary()).args(args).output().await.unwrap();
        (
            done.status.code(),
            String::from_utf8_lossy(&done.stderr).into_owned(),
        )
    };
    let (code, said) = run(&["backup", copy.as_str(), "--data-dir", data.as_str()]).await;
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = run(&["backup", copy.as_str(), "--data-dir", data.as_str()]).await;
    assert_eq!(code, Some(3), "an existing file is kept: {said}");
    let _ = world.make("later").await;
    world.server.kill().await;

    let fresh = world.dir().join("fresh");
    std::fs::create_dir(&fresh).unwrap();
    std::fs::copy(data.join("encryption.key"), fresh.join("encryption.key")).unwrap();
    let (code, said) = run(&["restore", copy.as_str(), "--data-dir", fresh.as_str(), "--yes"]).await;
    assert_eq!(code, Some(0), "{said}");
    let server = Server::start(&world.output, "restored", &fresh, &world.settings).await;
    let admin = world.admin.at(&server.url());
    assert_eq!(admin.machine("web-1").await.unwrap(), row);
    assert!(admin.machine("later").await.is_none());
    let made = admin.post("/api/vms", &machine("new")).await.is(200).data();
    // What the copy does not know of is not given away a second time: the cluster is asked.
    let addresses: Vec<String> = world
        .sim
        .made()
        .await
        .values()
        .map(|vm| vm["config"]["ipconfig0"].to_string())
        .collect();
    let own = addresses
        .iter()
        .filter(|text| text.contains(&format!("ip={}/", made["ip"].as_str().unwrap())))
        .count();
    assert_eq!(own, 1, "{addresses:?}");
}

#[tokio::test]
async fn without_a_cluster_it_says_what_is_missing() {
    let output = output("system", "without_a_cluster");
    let dir = camino_tempfile::tempdir().unwrap();
    let server = Server::start(&output, "nimbus", dir.path(), &Settings::bare()).await;
    let nobody = Api::anonymous(&server.url());
    let status = nobody.get("/api/setup/status").await.data();
    assert_eq!(
        (&status["configured"], &status["needs_admin_setup"]),
        (&json!(false), &json!(true))
    );
    let missing: Vec<&str> = status["missing"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["setting"].as_str().unwrap())
        .collect();
    assert_eq!(
        missing,
        [
            "PROXMOX_HOST",
            "PROXMOX_TOKEN_ID",
            "PROXMOX_TOKEN_SECRET",
            "IP_POOL_START",
            "IP_POOL_END",
            "GATEWAY_IP"
        ]
    );
    let health = nobody.get("/health").await.is(200).body;
    assert_eq!(
        (&health["ok"], &health["status"]),
        (&json!(true), &json!("setup"))
    );
    let admin = first_user(&server.url()).await;
    assert_eq!(
        admin.post("/api/vms", &machine("web-1")).await.is(503).code(),
        "service.not_configured"
    );
    assert!(admin.machines().await.is_empty());
    assert!(admin.addresses().await.is_empty());
    assert_eq!(
        admin.get("/api/catalog").await.data()["cluster"]["reachable"],
        false
    );
    for page in ["/", "/api/docs", "/api/openapi.json", "/api/errors"] {
        assert_eq!(nobody.get(page).await.status, 200, "{page}");
    }
}

#[tokio::test]
async fn a_dead_or_silent_cluster_delays_nothing() {
    let output = output("system", "a_dead_cluster");
    // Takes connections, and never says a word.
    let silent = tokio::net::TcpListener::bind((reachable(), 0)).await.unwrap();
    let closed = nimbus_tests::process::free_port();
    for (name, port) in [("silent", silent.local_addr().unwrap().port()), ("dead", closed)] {
        let dir = camino_tempfile::tempdir().unwrap();
        let settings = Settings::bare()
            .with("PROXMOX_HOST", format!("http://{}:{port}", reachable()))
            .with("PROXMOX_TOKEN_ID", TOKEN_ID)
            .with("PROXMOX_TOKEN_SECRET", TOKEN_SECRET)
            .with("NIMBUS_PVE_REQUEST_TIMEOUT", "1s")
            .with("IP_POOL_START", "10.77.0.50")
            .with("IP_POOL_END", "10.77.0.60")
            .with("GATEWAY_IP", "10.77.0.1");
        let begun = Instant::now();
        let mut server = Server::launch(&output, name, dir.path(), &settings);
        let nobody = Api::anonymous(&server.url());
        eventually(
            "the portal answers",
            portal_bound(),
            async || {
                Api::try_send(nobody.request(http::Method::GET, "/"))
                    .await
                    .map_or(0, |answer| answer.status)
            },
            |status| *status == 200,
        )
        .await;
        let portal = begun.elapsed();
        server.wait_ready().await;
        println!(
            "{name} cluster: portal after {portal:?}, ready after {:?}",
            begun.elapsed()
        );
        let admin = first_user(&server.url()).await;
        assert!(admin.machines().await.is_empty());
        let health = nobody.get("/health").await.is(200).body;
        assert_eq!(
            (&health["ok"], &health["proxmox_ok"]),
            (&json!(true), &json!(false)),
            "{health}"
        );
        let refused = admin.get("/api/nodes").await;
        assert_eq!(
            (refused.status, refused.code()),
            (503, "machine.proxmox_unreachable"),
            "{}",
            refused.text
        );
    }
}

#[tokio::test]
async fn a_second_server_on_the_same_data_is_refused() {
    let world = Opening::of("system", "a_second_server").start().await;
    let settings = world
        .settings
        .clone()
        .with("NIMBUS_DATA_DIR", world.dir().join("data"));
    let mut second = command(binary());
    second.arg("start").env("PORT", "0");
    for (name, value) in settings.iter() {
        second.env(name, value);
    }
    let done = nimbus_tests::wait::within(
        "the end of the second server",
        Duration::from_secs(30),
        second.output(),
    )
    .await
    .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("nimbus.db"), "{said}");
    let _ = world.make("web-1").await;
}
