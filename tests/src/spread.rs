//! Workloads as an operator spreads them: each service its own process, any number of hosts (agents
//! under different names on the one engine of this machine), an external nats-server, PostgreSQL.

use camino::{Utf8Path, Utf8PathBuf};
use camino_tempfile::Utf8TempDir;

use crate::api::Api;
use crate::bus::Nats;
use crate::database::Postgres;
use crate::lab;
use crate::process::{binary, command, output};
use crate::server::{Server, Settings};

/// The encryption key that replicas share: 32 bytes, for tests.
pub const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// A deployment of processes.
#[derive(Debug)]
pub struct Spread {
    /// The bus.
    pub nats: Nats,
    /// The edge.
    pub gateway: Server,
    /// Accounts.
    pub auth: Server,
    /// Sandboxes and services.
    pub workloads: Server,
    /// Machines and their addresses, without a cluster: the edge is ready when all answer.
    pub machines: [Server; 2],
    /// The agents, by host.
    pub agents: Vec<Server>,
    /// The hosts' names.
    pub hosts: Vec<String>,
    /// The operator.
    pub operator: Api,
    database: Postgres,
    _dir: Utf8TempDir,
}

impl Spread {
    /// Starts it with `agents` hosts; none when there is no PostgreSQL for tests.
    ///
    /// # Panics
    /// When a process does not get ready.
    pub async fn start(
        suite: &str,
        test: &str,
        agents: usize,
        change: impl Fn(Settings) -> Settings,
    ) -> Option<Self> {
        let Some(database) = Postgres::create(test).await else {
            println!("NIMBUS_TEST_POSTGRES is unset: {suite} {test} not run");
            return None;
        };
        let output = output(suite, test);
        let dir = camino_tempfile::tempdir().unwrap();
        let bus = dir.path().join("bus");
        let nats = Nats::start(&output, &bus).await;
        let token = dir.path().join("admin-token");
        let hosts: Vec<String> = (0..agents)
            .map(|n| format!("t-{}-{}-{n}", std::process::id(), test.replace('_', "-")))
            .collect();
        let settings = |name: &str, host: &str, credentials: &Utf8Path| {
            change(
                lab::settings(host, &token)
                    .with("NATS_URL", &nats.url)
                    .with("NATS_CREDS", credentials)
                    .with("DATABASE_URL", database.url())
                    .with("NIMBUS_ENCRYPTION_KEY", KEY)
                    .with("NIMBUS_DATA_DIR", dir.path().join(name)),
            )
        };
        let shared = nats.credentials.clone();
        let first = hosts.first().cloned().unwrap_or_default();
        let serve = |name: &'static str| Server::serve(&output, name, name, settings(name, &first, &shared));
        let (auth, workloads, ippool, provisioner) = futures::join!(
            serve("auth"),
            serve("workloads"),
            serve("ippool"),
            serve("provisioner")
        );
        let mut running = vec![];
        for (n, host) in hosts.iter().enumerate() {
            let credentials = mint(&bus, host, &dir.path().join(format!("creds-{n}"))).await;
            let name = format!("agent-{n}");
            let settings = settings(&name, host, &credentials);
            running.push(Server::serve(&output, &name, "sandbox-agent", settings).await);
        }
        let gateway = serve("gateway").await;
        let operator = lab::operator(&gateway.url(), &token);
        Some(Self {
            nats,
            gateway,
            auth,
            workloads,
            machines: [ippool, provisioner],
            agents: running,
            hosts,
            operator,
            database,
            _dir: dir,
        })
    }

    /// Deletes the tenants, ends the processes, and checks that the engine has nothing of them any more.
    ///
    /// # Panics
    /// When something is left.
    pub async fn end(mut self, tenants: &[&str]) {
        for tenant in tenants {
            let _ = self
                .operator
                .delete(&format!("/api/tenants/{tenant}"))
                .await
                .is(204);
        }
        for host in &self.hosts {
            lab::nobodys(host).await;
        }
        let mut servers: Vec<&mut Server> = self.agents.iter_mut().collect();
        servers.extend([&mut self.gateway, &mut self.workloads]);
        servers.extend(&mut self.machines);
        servers.push(&mut self.auth);
        for server in servers {
            if server.process().ended().is_none() {
                let status = server.terminate().await;
                assert!(status.success(), "{status}");
            }
        }
        for host in &self.hosts {
            assert_eq!(
                lab::left(host).await,
                Vec::<String>::new(),
                "left on the engine by {host}"
            );
        }
        self.database.remove().await;
    }
}

/// Makes the credentials of a host's agent; the folder they are in.
async fn mint(bus: &Utf8Path, host: &str, folder: &Utf8Path) -> Utf8PathBuf {
    std::fs::create_dir_all(folder).unwrap();
    let mut mint = command(binary());
    let file = folder.join("sandbox-agent.creds");
    mint.args([
        "bus",
        "credentials",
        "mint",
        "sandbox-agent",
        "--sandbox-host",
        host,
    ]);
    mint.args(["--dir", bus.as_str(), "--out", file.as_str()]);
    let done = mint.output().await.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    folder.to_owned()
}
