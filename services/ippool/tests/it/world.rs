//! What a test needs: a bus, a cluster, a database, replicas of the service, and callers.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use nimbus_bus::{
    AccessToken, Authority, Bus, Caller, ConnectOptions, EmbeddedNats, EmbeddedOptions, Identity, Incoming,
    Scope, Serving, service_user,
};
use nimbus_errors::Fault;
use nimbus_ippool::IppoolConfig;
use nimbus_model::{Clock, Jump, SessionId, TenantId, UserId};
use nimbus_proto::auth::{VerifyingKey, VerifyingKeys};
use nimbus_proto::grants;
use nimbus_proto::ippool::{Address, List, Reconcile, ReconcileReport};
use nimbus_proto::verify::{Claims, LIFETIME};
use nimbus_proxmox::{Client, ProxmoxConfig};
use nimbus_pve_sim::{ForeignGuest, RunningSim, Simulator};
use nimbus_service::{Ctx, Ready, RunError, Tasks};
use nimbus_store::Database;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The longest a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

// RFC 8032, section 7.1, test 1, as PKCS#8 (RFC 8410).
const PRIVATE: &str =
    "302e020100300506032b6570042204209d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

/// Settings that a test may want otherwise.
pub(crate) struct Settings {
    pub(crate) flags: Vec<&'static str>,
    pub(crate) cluster: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let flags = vec![
            "--ip-pool-start",
            "10.77.0.8",
            "--ip-pool-end",
            "10.77.0.40",
            "--gateway-ip",
            "10.77.0.1",
            "--reconcile-interval",
            "0",
        ];
        Self { flags, cluster: true }
    }
}

impl Settings {
    pub(crate) fn with(mut self, flags: &[&'static str]) -> Self {
        self.flags.extend(flags);
        self
    }
}

/// One replica of the service.
pub(crate) struct Replica {
    stop: CancellationToken,
    tasks: Tasks,
    running: JoinHandle<Result<(), RunError>>,
}

impl Replica {
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        within(self.running).await.unwrap().unwrap();
        within(self.tasks.ended()).await;
    }
}

/// A deployment without the service; add replicas.
pub(crate) struct World {
    pub(crate) sim: RunningSim,
    pub(crate) jump: Jump,
    pub(crate) provisioner: Bus,
    pub(crate) gateway: Bus,
    pub(crate) admin: Caller,
    pub(crate) member: Caller,
    clock: Clock,
    db: Database,
    authority: Authority,
    nats: EmbeddedNats,
    _auth: Serving,
    _dir: camino_tempfile::Utf8TempDir,
}

impl World {
    pub(crate) async fn start(db: &Database) -> Self {
        let dir = camino_tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path().join("bus")).unwrap();
        let options = EmbeddedOptions {
            data_dir: dir.path().to_owned(),
            authority: Some(&authority),
            binary: None,
        };
        let nats = EmbeddedNats::start(options).await.unwrap();
        let sim = Simulator::builder()
            .latency_scale(0.0)
            .start("127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        let (clock, jump) = Clock::movable();
        let connect = |service: &'static str| connect(&nats, &authority, service, &clock);
        let (provisioner, gateway, auth) = (
            connect("provisioner").await,
            connect("gateway").await,
            connect("auth").await,
        );
        auth.ensure_streams().await.unwrap();
        let auth = auth
            .serve("auth", "0.1.0", "Keys only")
            .method::<VerifyingKeys, _, _>(|_: Incoming<VerifyingKeys>| async {
                Ok(vec![VerifyingKey {
                    id: "k1".into(),
                    key: hex::decode(PUBLIC).unwrap(),
                }])
            })
            .start()
            .await
            .unwrap();
        let (admin, member) = (caller(true, &clock), caller(false, &clock));
        Self {
            sim,
            jump,
            provisioner,
            gateway,
            admin,
            member,
            clock,
            db: db.clone(),
            authority,
            nats,
            _auth: auth,
            _dir: dir,
        }
    }

    /// A connection with the rights of a service.
    pub(crate) async fn connect(&self, service: &'static str) -> Bus {
        connect(&self.nats, &self.authority, service, &self.clock).await
    }

    /// Starts a replica and waits until it answers.
    pub(crate) async fn replica(&self, settings: Settings) -> Replica {
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            ippool: IppoolConfig,
        }
        let config = Line::parse_from(std::iter::once("test").chain(settings.flags)).ippool;
        let proxmox = settings.cluster.then(|| {
            let mut config = ProxmoxConfig::new(
                self.sim.url.parse().unwrap(),
                &self.sim.token_id,
                self.sim.token_secret.clone(),
            );
            config.request_timeout = Duration::from_secs(2);
            Client::new(config).unwrap()
        });
        let stop = CancellationToken::new();
        let tasks = Tasks::new(stop.clone(), CancellationToken::new());
        let ready = Ready::default();
        let ctx = Ctx {
            bus: self.connect("ippool").await,
            database: Some(self.db.clone()),
            sealer: None,
            clock: self.clock.clone(),
            tasks: tasks.clone(),
            stop: stop.clone(),
            instance: "test".into(),
            ready: ready.clone(),
        };
        let mut running = tokio::spawn(nimbus_ippool::run(ctx, config, proxmox));
        tokio::select! {
            () = within(ready.wait()) => {}
            ended = &mut running => panic!("the service ended: {ended:?}"),
        }
        Replica { stop, tasks, running }
    }

    pub(crate) async fn list(&self) -> Vec<Address> {
        self.gateway
            .call::<List>(&())
            .on_behalf_of(&self.admin)
            .await
            .unwrap()
    }

    pub(crate) async fn address(&self, ip: &str) -> Address {
        let ip: Ipv4Addr = ip.parse().unwrap();
        self.list()
            .await
            .into_iter()
            .find(|address| address.ip == ip)
            .unwrap()
    }

    pub(crate) async fn reconcile(&self) -> Result<ReconcileReport, Fault> {
        self.gateway
            .call::<Reconcile>(&())
            .on_behalf_of(&self.admin)
            .await
    }

    /// A guest that somebody made by hand.
    pub(crate) fn guest(&self, node: &str, address: &str) -> u32 {
        let guest = serde_json::json!({ "node": node, "address": address, "name": "byhand" });
        let guest: ForeignGuest = serde_json::from_value(guest).unwrap();
        self.sim.add_guest(guest).unwrap().0
    }
}

async fn connect(nats: &EmbeddedNats, authority: &Authority, service: &'static str, clock: &Clock) -> Bus {
    let credential = authority.mint(&service_user(service, &grants::of(service).unwrap()));
    let options = ConnectOptions {
        url: nats.url(),
        name: service.into(),
        credential: Some(credential),
        ca_file: None,
        clock: clock.clone(),
    };
    Bus::connect(options).await.unwrap()
}

fn caller(admin: bool, clock: &Clock) -> Caller {
    let identity = Identity {
        user: UserId::fresh(),
        tenant: TenantId::fresh(),
        admin,
        scopes: Scope::all().to_vec(),
        session: Some(SessionId::fresh()),
        token: None,
        key: None,
        machine: None,
    };
    let header = Header {
        kid: Some("k1".into()),
        ..Header::new(Algorithm::EdDSA)
    };
    let claims = Claims::new(&identity, clock.now(), clock.now().after(LIFETIME * 100));
    let key = EncodingKey::from_ed_der(&hex::decode(PRIVATE).unwrap());
    let token = jsonwebtoken::encode(&header, &claims, &key).unwrap();
    Caller {
        identity,
        token: AccessToken::new(token),
    }
}

/// Waits for what must come, or says that it did not.
pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it did not happen in time")
}

/// Asks again until the answer is a yes; says the last answer otherwise.
pub(crate) async fn eventually<T: std::fmt::Debug, Fut: Future<Output = T>>(
    ask: impl Fn() -> Fut,
    good: impl Fn(&T) -> bool,
) -> T {
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        let answer = ask().await;
        if good(&answer) {
            return answer;
        }
        assert!(
            tokio::time::Instant::now() < until,
            "the last answer was {answer:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Shared by tasks of a test.
pub(crate) type Shared = Arc<World>;
