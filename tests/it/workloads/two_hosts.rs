//! Two hosts behind one `workloads`: where sandboxes go, and what becomes of them when a host is lost.

use std::collections::BTreeSet;
use std::time::Duration;

use nimbus_tests::lab::IMAGE;
use nimbus_tests::{Spread, Tenant, eventually};
use serde_json::json;

#[tokio::test]
async fn a_lost_host_gives_its_services_to_the_other() {
    let settings = |settings: nimbus_tests::Settings| settings.with("HOST_LOST_AFTER_SECONDS", "6");
    let Some(mut spread) = Spread::start("workloads", "two_hosts", 2, settings).await else {
        return;
    };
    let tenant = Tenant::create(&spread.operator, "demo").await;
    // Placement uses both; which one is first, and for how long, is its own affair.
    let (mut ids, mut hosts) = (vec![], BTreeSet::new());
    while hosts.len() < 2 {
        assert!(ids.len() < 40, "all forty are on {hosts:?}");
        for id in futures::future::join_all((0..4).map(|_| tenant.idle())).await {
            let sandbox = tenant.sandbox(&id).await;
            hosts.insert(sandbox["status"]["host"].as_str().unwrap().to_owned());
            ids.push(id);
        }
    }
    assert_eq!(hosts, spread.hosts.iter().cloned().collect());

    for n in 0..4 {
        let definition = json!({"metadata": {"name": format!("s{n}")}, "spec": {"backend": {"kind": "sandbox", "sandbox": {
            "owner": {"kind": "service"}, "backend": "container",
            "root": {"kind": "oci_image", "source": {"kind": "reference", "reference": IMAGE}},
            "process": {"argv": ["sleep", "3600"]}}}}});
        let _ = tenant
            .api
            .post(&tenant.path("/services"), &definition)
            .await
            .is(201);
        let _ = tenant
            .api
            .touch(&tenant.path(&format!("/services/s{n}/start")))
            .await
            .is(200);
    }
    let place = async |name: &str| {
        let service = tenant
            .api
            .get(&tenant.path(&format!("/services/{name}")))
            .await
            .is(200)
            .body;
        if service["status"]["lifecycleState"] != "ready" {
            return String::new();
        }
        let id = service["status"]["sandboxId"].as_str().unwrap().to_owned();
        tenant.sandbox(&id).await["status"]["host"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    for n in 0..4 {
        let name = format!("s{n}");
        let _ = eventually(
            "it runs",
            Duration::from_secs(60),
            async || place(&name).await,
            |host| !host.is_empty(),
        )
        .await;
    }

    spread.agents[0].kill().await;
    for n in 0..4 {
        let name = format!("s{n}");
        let _ = eventually(
            &format!("{name} runs on the host that is left"),
            Duration::from_secs(90),
            async || place(&name).await,
            |host| *host == spread.hosts[1],
        )
        .await;
    }
    for id in &ids {
        let sandbox = tenant.sandbox(id).await;
        let lost = sandbox["status"]["host"] == spread.hosts[0].as_str();
        let expected = if lost { "failed" } else { "ready" };
        assert_eq!(sandbox["status"]["lifecycleState"], expected, "{sandbox}");
        assert!(!lost || sandbox.to_string().contains("HostLost"), "{sandbox}");
    }

    // It comes back, and what was given away is removed there.
    spread.agents[0].restart().await;
    let host = spread.hosts[0].clone();
    let _ = eventually(
        "the host that came back holds nothing that is not its own",
        Duration::from_secs(60),
        async || {
            let filter = format!("label=io.nimbus.sandbox.host={host}");
            let running = nimbus_tests::lab::docker(&[
                "ps",
                "-q",
                "--filter",
                &filter,
                "--filter",
                "label=io.nimbus.sandbox.tenant=demo",
            ])
            .await;
            running.lines().count()
        },
        |count| *count == 0,
    )
    .await;
    spread.end(&["demo"]).await;
}
