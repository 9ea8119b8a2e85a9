//! Making, listing, powering and deleting machines.

use std::time::Duration;

use http::Method;
use nimbus_tests::api::{PUBLIC_KEY, machine, step};
use nimbus_tests::events::Events;
use nimbus_tests::sim::number;
use nimbus_tests::{Api, Opening, eventually};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

/// The steps of a provision, in order.
pub(crate) const STEPS: [&str; 10] = [
    "reserve_ip",
    "pick_node",
    "clone_template",
    "configure_vm",
    "resize_disk",
    "start_vm",
    "wait_guest_agent",
    "commit_ip",
    "prepare_gpu",
    "save_vm",
];

#[tokio::test]
async fn a_machine_is_made_with_a_key_that_fits() {
    let world = Opening::of("system", "a_machine_is_made").start().await;
    let order =
        json!({"hostname": "web-1", "tier": "medium", "os_template": "ubuntu-24.04", "generate_key": true});
    let made = world.admin.post("/api/vms", &order).await.is(200).data();
    assert_eq!(
        (&made["hostname"], &made["tier"], &made["os"], &made["username"]),
        (
            &json!("web-1"),
            &json!("medium"),
            &json!("ubuntu-24.04"),
            &json!("ubuntu")
        )
    );
    assert!(
        made.get("warning").is_none() && made.get("tunnel_error").is_none(),
        "{made}"
    );

    let vm = world.sim.guest(number(&made["vmid"])).await.unwrap();
    let config = &vm["config"];
    assert_eq!(
        (&vm["name"], &vm["node"], &vm["status"]),
        (&json!("web-1"), &made["node"], &json!("running"))
    );
    let ip = made["ip"].as_str().unwrap();
    assert_eq!(config["ipconfig0"], format!("ip={ip}/24,gw=10.77.0.1"));
    assert_eq!(
        (&config["ciuser"], config["cores"].to_string().trim_matches('"')),
        (&json!("ubuntu"), "2")
    );
    assert_eq!(config["memory"].to_string().trim_matches('"'), "2048");
    assert!(config["scsi0"].as_str().unwrap().contains("size=30G"), "{config}");

    // The private half belongs to the public one that the machine got.
    let private = ssh_key::PrivateKey::from_openssh(made["ssh_private_key"].as_str().unwrap()).unwrap();
    let lines = percent_decode_str(config["sshkeys"].as_str().unwrap())
        .decode_utf8()
        .unwrap();
    let public = ssh_key::PublicKey::from_openssh(lines.trim()).unwrap();
    assert_eq!(private.public_key().key_data(), public.key_data());
    assert_eq!(made["key_name"], "nimbus-web-1");

    // It is handed out once.
    let operations = world.admin.get("/api/operations").await.data();
    let path = format!(
        "/api/operations/{}/private-key",
        operations[0]["id"].as_str().unwrap()
    );
    assert_eq!(
        world.admin.touch(&path).await.is(404).code(),
        "machine.key_claimed"
    );
    let text = operations.to_string();
    assert!(!text.contains("PRIVATE KEY"), "{text}");

    let row = world
        .admin
        .get(&format!("/api/vms/{}", made["id"].as_str().unwrap()))
        .await
        .data();
    assert_eq!(
        (&row["status"], &row["ip"], &row["vmid"]),
        (&json!("running"), &made["ip"], &made["vmid"])
    );
    world.agree().await;
}

#[tokio::test]
async fn progress_comes_line_by_line() {
    let world = Opening::of("system", "progress").slow(0.01).start().await;
    let request = world
        .admin
        .request(Method::POST, "/api/vms")
        .header("Accept", "application/x-ndjson")
        .json(&machine("web-1"));
    let answer = request.send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    let mut lines = Events::of(answer);
    let first = lines.json_line().await.unwrap();
    assert_eq!(first["type"], "operation_id");
    let mut steps = Vec::new();
    let last = loop {
        let line = lines.json_line().await.expect("a result before the end");
        if line["type"] != "progress" {
            break line;
        }
        assert!(
            line["duration_ms"].is_u64() && line["label"].is_string(),
            "{line}"
        );
        steps.push(line["step"].as_str().unwrap().to_owned());
    };
    assert_eq!(steps, STEPS);
    assert_eq!(
        (&last["type"], &last["data"]["hostname"]),
        (&json!("result"), &json!("web-1"))
    );
    assert!(lines.json_line().await.is_none());
    let operation = world
        .admin
        .operation(first["operation_id"].as_str().unwrap())
        .await;
    assert_eq!(
        (&operation["state"], &operation["target_id"]),
        (&json!("succeeded"), &last["data"]["id"])
    );

    // Failures come as a line too.
    let again = world
        .admin
        .request(Method::POST, "/api/vms")
        .header("Accept", "application/x-ndjson")
        .json(&machine("web-1"));
    let refused = Api::send(again).await;
    assert!(
        refused.text.contains("machine.hostname_taken"),
        "{}",
        refused.text
    );
}

#[tokio::test]
async fn machines_are_listed_powered_and_deleted() {
    let world = Opening::of("system", "machines_are_powered").start().await;
    let api = &world.admin;
    for name in ["a", "b", "c"] {
        let _ = world.make(name).await;
    }
    let first = api.get("/api/vms?limit=2").await.is(200).body;
    let names = |page: &Value| {
        let rows = page["data"].as_array().unwrap();
        rows.iter()
            .map(|row| row["hostname"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&first), ["c", "b"]);
    let second = api
        .get(&format!(
            "/api/vms?limit=2&cursor={}",
            first["next_cursor"].as_str().unwrap()
        ))
        .await
        .is(200)
        .body;
    assert_eq!(names(&second), ["a"]);
    assert!(second["next_cursor"].is_null());

    let row = api.machine("a").await.unwrap();
    let (id, vmid) = (row["ID"].as_str().unwrap(), number(&row["vmid"]));
    assert_eq!(
        (&row["ssh_pubkey"], &row["username"]),
        (&json!(PUBLIC_KEY), &json!("debian"))
    );
    for (action, status) in [
        ("stop", "stopped"),
        ("stop", "stopped"),
        ("start", "running"),
        ("start", "running"),
        ("reboot", "running"),
        ("shutdown", "stopped"),
    ] {
        let _ = api.touch(&format!("/api/vms/{id}/{action}")).await.is(204);
        assert_eq!(
            api.machine("a").await.unwrap()["status"],
            status,
            "after {action}"
        );
        assert_eq!(
            world.sim.guest(vmid).await.unwrap()["status"],
            status,
            "after {action}"
        );
    }
    let operation = api
        .request(Method::POST, &format!("/api/vms/{id}/start"))
        .header("Prefer", "respond-async");
    let operation = Api::send(operation).await.is(202);
    let location = operation.headers["location"].to_str().unwrap().to_owned();
    assert_eq!(
        location,
        format!(
            "/api/operations/{}",
            operation.body["data"]["id"].as_str().unwrap()
        )
    );
    let _ = api
        .succeeded(operation.body["data"]["id"].as_str().unwrap())
        .await;
    world.agree().await;

    // Somebody else's machines cannot be seen.
    let bob = api.member("bob").await;
    assert!(bob.machines().await.is_empty());
    for request in [
        bob.request(Method::GET, &format!("/api/vms/{id}")),
        bob.request(Method::DELETE, &format!("/api/vms/{id}")),
        bob.request(Method::POST, &format!("/api/vms/{id}/stop")),
        bob.request(Method::GET, &location),
        bob.request(Method::GET, &format!("{location}/trace")),
        bob.request(Method::POST, &format!("{location}/private-key")),
    ] {
        assert_eq!(Api::send(request).await.is(404).code(), "op.not_found");
    }

    let _ = api.delete(&format!("/api/vms/{id}")).await.is(204);
    assert!(world.sim.guest(vmid).await.is_none());
    assert_eq!(
        api.get(&format!("/api/vms/{id}")).await.is(404).code(),
        "op.not_found"
    );
    world.agree().await;
    // The address is the lowest free one again.
    let next = world.make("d").await;
    assert_eq!(next["ip"], row["ip"]);
}

#[tokio::test]
async fn events_tell_a_browser_what_happens() {
    let world = Opening::of("system", "events").slow(0.005).start().await;
    let bob = world.admin.member("bob").await;
    let mut own = world.admin.events(None).await;
    let mut others = bob.events(None).await;
    assert_eq!((own.status, others.status), (200, 200));
    let operation = world.admin.order("web-1").await;
    let ended =
        |event: &nimbus_tests::events::Event| event.name == "operation" && event.data["state"] == "succeeded";
    let seen = own.until("the end of the operation", ended).await;
    let created = seen.iter().find(|event| event.name == "machine").unwrap();
    assert_eq!(
        (&created.data["kind"], &created.data["vm"]["hostname"]),
        (&json!("created"), &json!("web-1"))
    );
    for key in STEPS {
        let running = seen
            .iter()
            .any(|event| event.name == "operation" && step(&event.data, key) == "running");
        assert!(running, "{key} was never seen running");
    }
    assert!(
        seen.iter().any(|event| event.name == "address"),
        "an administrator hears of addresses"
    );
    assert!(
        seen.iter()
            .filter(|event| event.name == "operation")
            .all(|event| event.data["id"] == operation.as_str())
    );

    // A browser that comes back gets what it has missed.
    let middle = seen
        .iter()
        .find(|event| event.name == "operation" && step(&event.data, "clone_template") == "done")
        .unwrap();
    let mut back = world.admin.events(middle.id).await;
    let again = back.until("the end of the operation", ended).await;
    assert!(
        again
            .iter()
            .all(|event| event.name != "reset" && event.id > middle.id),
        "{again:#?}"
    );

    // Nothing of it reached the other user.
    let _ = bob.order("bob-1").await;
    let seen = others.until("the end of one's own operation", ended).await;
    assert!(seen.iter().all(|event| event.name != "address"), "{seen:#?}");
    let text = format!("{seen:?}");
    assert!(!text.contains("web-1") && text.contains("bob-1"), "{text}");
}

#[tokio::test]
async fn a_client_that_leaves_aborts_nothing() {
    use tokio::io::AsyncWriteExt;
    let world = Opening::of("system", "a_client_that_leaves")
        .slow(0.02)
        .start()
        .await;
    let session = world
        .admin
        .login("ada@example.org", nimbus_tests::api::PASSWORD)
        .await;
    let token = session.token("raw", None).await;
    for (name, accept) in [
        ("waits", "application/json"),
        ("reads-lines", "application/x-ndjson"),
    ] {
        let body = machine(name).to_string();
        let head = format!(
            "POST /api/vms HTTP/1.1\r\nHost: nimbus\r\nAuthorization: Bearer {token}\r\nAccept: {accept}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let address = world.server.url();
        let mut stream = tokio::net::TcpStream::connect(address.strip_prefix("http://").unwrap())
            .await
            .unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let row = eventually(
            "the machine is being made",
            Duration::from_secs(20),
            async || world.admin.machine(name).await,
            Option::is_some,
        )
        .await
        .unwrap();
        drop(stream);
        let operation = world.admin.succeeded(row["operation_id"].as_str().unwrap()).await;
        assert_eq!(operation["target_label"], name);
    }
    world.agree().await;
}
