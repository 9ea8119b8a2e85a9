//! Each service its own process, on an external nats-server with one user per service, and PostgreSQL.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::future::join_all;
use nimbus_tests::api::step;
use nimbus_tests::bus::Nats;
use nimbus_tests::database::Postgres;
use nimbus_tests::process::output;
use nimbus_tests::sim::PveSim;
use nimbus_tests::spread::KEY;
use nimbus_tests::world::{differences, first_user, settled};
use nimbus_tests::{Api, Server, Settings, eventually};

/// A deployment of processes.
struct Split {
    sim: PveSim,
    nats: Nats,
    gateway: Server,
    auth: Server,
    pools: Vec<Server>,
    makers: Vec<Server>,
    admin: Api,
    database: Postgres,
    _dir: camino_tempfile::Utf8TempDir,
}

impl Split {
    async fn start(test: &str, latency_scale: f64) -> Option<Self> {
        let Some(database) = Postgres::create(test).await else {
            println!("NIMBUS_TEST_POSTGRES is unset: split suite not run");
            return None;
        };
        let output = output("split", test);
        let dir = camino_tempfile::tempdir().unwrap();
        let sim = PveSim::start(&output, latency_scale, 10).await;
        let nats = Nats::start(&output, &dir.path().join("bus")).await;
        let settings = |name: &str| {
            Settings::cluster(&sim)
                .with("NATS_URL", &nats.url)
                .with("NATS_CREDS", &nats.credentials)
                .with("DATABASE_URL", database.url())
                .with("NIMBUS_ENCRYPTION_KEY", KEY)
                .with("NIMBUS_DATA_DIR", dir.path().join(name))
        };
        let serve =
            |name: &'static str, service: &'static str| Server::serve(&output, name, service, settings(name));
        // Replicas start at the same time, so that they meet in the migrations.
        let (auth, pools, makers) = futures::join!(
            serve("auth", "auth"),
            join_all([serve("ippool-1", "ippool"), serve("ippool-2", "ippool")]),
            join_all([
                serve("provisioner-1", "provisioner"),
                serve("provisioner-2", "provisioner")
            ]),
        );
        let gateway = serve("gateway", "gateway").await;
        let admin = first_user(&gateway.url()).await;
        Some(Self {
            sim,
            nats,
            gateway,
            auth,
            pools,
            makers,
            admin,
            database,
            _dir: dir,
        })
    }

    /// Compares, and checks that nothing was given away twice.
    async fn agree(&self) {
        settled(&self.admin).await;
        let wrong = differences(&self.sim, &self.admin, &[&self.admin]).await;
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    async fn end(mut self) {
        for server in self
            .makers
            .iter_mut()
            .chain(&mut self.pools)
            .chain([&mut self.gateway, &mut self.auth])
        {
            if server.process().ended().is_none() {
                let status = server.terminate().await;
                assert!(status.success(), "{status}");
            }
        }
        self.database.remove().await;
    }
}

#[tokio::test]
async fn thirty_provisions_survive_the_death_of_two_replicas() {
    let Some(mut split) = Split::start("burst", 0.04).await else {
        return;
    };
    let begun = Instant::now();
    let names: Vec<String> = (0..30).map(|n| format!("web-{n:02}")).collect();
    let operations = join_all(names.iter().map(|name| split.admin.order(name))).await;
    // In the middle of the burst: some are cloning.
    let cloning = async || {
        let operations = split.admin.get("/api/operations?limit=100").await.data();
        let rows = operations.as_array().unwrap().iter();
        rows.filter(|operation| step(operation, "clone_template") == "running")
            .count()
    };
    eventually("some are cloning", Duration::from_secs(30), cloning, |count| {
        *count >= 3
    })
    .await;
    futures::join!(split.makers[0].kill(), split.pools[0].kill());
    println!(
        "split: killed provisioner-1 and ippool-1 after {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    let ended = join_all(operations.iter().map(|id| split.admin.succeeded(id))).await;
    println!(
        "split: 30 provisions ended after {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    split.agree().await;
    for key in ["vmid", "ip", "hostname"] {
        let distinct: BTreeSet<String> = ended
            .iter()
            .map(|operation| operation["result"][key].to_string())
            .collect();
        assert_eq!(distinct.len(), 30, "{key}: {distinct:?}");
    }
    assert_eq!(split.sim.made().await.len(), 30);

    // The replicas come back, and everything can be deleted.
    futures::join!(split.makers[0].restart(), split.pools[0].restart());
    let rows = split.admin.machines().await;
    let deletions = join_all(
        rows.iter()
            .map(|row| split.admin.begin_delete(row["ID"].as_str().unwrap())),
    )
    .await;
    join_all(deletions.iter().map(|id| split.admin.succeeded(id))).await;
    split.agree().await;
    assert!(split.sim.made().await.is_empty());
    println!(
        "split: everything deleted after {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    split.end().await;
}

#[tokio::test]
async fn every_process_may_restart_while_machines_are_made() {
    let Some(mut split) = Split::start("restarts", 0.02).await else {
        return;
    };
    let mut operations = Vec::new();
    for n in 0..3 {
        operations.push(split.admin.order(&format!("a-{n}")).await);
    }
    split.nats.crash().await;
    // The bus is back; what was on its way is repeated.
    for n in 0..3 {
        let order = async || Api::send(split.admin.ordering(&format!("b-{n}"))).await;
        let answer = eventually("an order is taken", Duration::from_secs(30), order, |a| {
            a.status == 202 || a.status == 409
        })
        .await;
        if answer.status == 202 {
            operations.push(answer.body["data"]["id"].as_str().unwrap().to_owned());
        }
    }
    for server in [&mut split.auth, &mut split.gateway] {
        server.kill().await;
        server.restart().await;
    }
    for operation in &operations {
        let _ = split.admin.succeeded(operation).await;
    }
    split.agree().await;
    split.end().await;
}
