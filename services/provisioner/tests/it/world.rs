//! What a test needs: a bus, a cluster, a database, an address pool, the service, and callers.
//!
//! Also part of the crate's own tests, which drive sagas by hand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use nimbus_bus::{
    AccessToken, Authority, Bus, Caller, ConnectOptions, EmbeddedNats, EmbeddedOptions, Identity, Incoming,
    Key, Scope, Serving, service_user,
};
use nimbus_errors::Fault;
use nimbus_ippool::IppoolConfig;
use nimbus_model::{Clock, Jump, MachineId, OperationId, SessionId, TenantId, UserId};
use nimbus_proto::auth::{CreateMachineToken, RevokeMachineToken, Secret, VerifyingKey, VerifyingKeys};
use nimbus_proto::gpu::{GetInjection, Injection};
use nimbus_proto::grants;
use nimbus_proto::ippool::{Address, AddressStatus, List};
use nimbus_proto::machine as m;
use nimbus_proto::verify::{Claims, LIFETIME};
use nimbus_provisioner::{ClusterAccess, ProvisionerConfig};
use nimbus_proxmox::{Client, ConfigPatch, PowerOp, ProxmoxConfig, Vmid};
use nimbus_pve_sim::{ForeignGuest, RunningSim, Simulator};
use nimbus_service::{Ctx, Ready, RunError, Tasks};
use nimbus_store::{Database, Sealer};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The longest a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

// RFC 8032, section 7.1, test 1, as PKCS#8 (RFC 8410).
const PRIVATE: &str =
    "302e020100300506032b6570042204209d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

const POOL: [&str; 8] = [
    "--ip-pool-start",
    "10.77.0.20",
    "--ip-pool-end",
    "10.77.0.220",
    "--gateway-ip",
    "10.77.0.1",
    "--reconcile-interval",
    "0",
];
/// Reconcile, watch and tell of GPUs only when a test asks; no connection leaves this machine.
const QUIET: [&str; 12] = [
    "--gpu-prepare-interval",
    "0",
    "--machine-reconcile-interval",
    "0",
    "--machine-watch-interval",
    "0",
    "--ready-ssh-probe",
    "false",
    "--ready-timeout",
    "20s",
    "--ready-poll",
    "10ms",
];

/// A running service.
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

/// A deployment without the service.
pub(crate) struct World {
    pub(crate) sim: Box<RunningSim>,
    pub(crate) client: Client,
    /// Moves the clock of every service.
    pub(crate) jump: Jump,
    pub(crate) clock: Clock,
    pub(crate) db: Database,
    pub(crate) gateway: Bus,
    pub(crate) admin: Caller,
    sealer: Sealer,
    authority: Authority,
    nats: Box<EmbeddedNats>,
    /// The GPU plane, as far as machines see it.
    pub(crate) gpu: Arc<GpuPlane>,
    _beside: Box<(Replica, Serving, Serving)>,
    _dir: camino_tempfile::Utf8TempDir,
}

/// Where machines would reach the portal.
pub(crate) const PORTAL: &str = "https://nimbus.example.org/";

/// What `auth` and `gpu` answer to the provisioner.
#[derive(Default)]
pub(crate) struct GpuPlane {
    injection: Mutex<Option<Injection>>,
    tokens: Mutex<BTreeMap<MachineId, (UserId, String)>>,
}

impl GpuPlane {
    /// From now on a box is paired.
    pub(crate) fn pair(&self, model: &str) {
        *self.injection.lock().unwrap() = Some(Injection {
            model: Some(model.to_owned()),
        });
    }

    /// From now on none is.
    #[allow(dead_code, reason = "the crate's own tests use it")]
    pub(crate) fn unpair(&self) {
        *self.injection.lock().unwrap() = None;
    }

    /// A token as somebody makes it who does not come to telling it.
    #[allow(dead_code, reason = "the crate's own tests use it")]
    pub(crate) fn remember(&self, machine: MachineId, owner: UserId) {
        let made = (owner, "nbv_untold".to_owned());
        self.tokens.lock().unwrap().insert(machine, made);
    }

    /// Whose machine it is and the token it has.
    pub(crate) fn token(&self, machine: MachineId) -> Option<(UserId, String)> {
        self.tokens.lock().unwrap().get(&machine).cloned()
    }
}

/// The service's settings.
pub(crate) fn config(flags: &[&'static str]) -> ProvisionerConfig {
    #[derive(Parser)]
    #[command(args_override_self = true)]
    struct Line {
        #[command(flatten)]
        provisioner: ProvisionerConfig,
    }
    let mut config =
        Line::parse_from(std::iter::once("test").chain(QUIET).chain(flags.iter().copied())).provisioner;
    config.public_url = Some(PORTAL.parse().unwrap());
    config
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
        let nats = Box::new(EmbeddedNats::start(options).await.unwrap());
        let sim = Simulator::builder()
            .latency_scale(0.0)
            .capacity_factor(20)
            .start("127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        let mut settings =
            ProxmoxConfig::new(sim.url.parse().unwrap(), &sim.token_id, sim.token_secret.clone());
        // A loaded machine must not look like a cluster that is away.
        settings.request_timeout = Duration::from_secs(20);
        let client = Client::new(settings).unwrap();
        let (clock, jump) = Clock::movable();
        let (gateway, auth) = (
            connect(&nats, &authority, "gateway", &clock).await,
            connect(&nats, &authority, "auth", &clock).await,
        );
        auth.ensure_streams().await.unwrap();
        let gpu = Arc::new(GpuPlane::default());
        let (creating, revoking, telling) = (gpu.clone(), gpu.clone(), gpu.clone());
        let scheduler = connect(&nats, &authority, "gpu-scheduler", &clock)
            .await
            .serve("gpu", "0.1.0", "What machines are told")
            .method::<GetInjection, _, _>(move |_: Incoming<GetInjection>| {
                let injection = telling.injection.lock().unwrap().clone();
                async move { Ok(injection) }
            })
            .start()
            .await
            .unwrap();
        let auth = auth
            .serve("auth", "0.1.0", "Keys and machines")
            .method::<CreateMachineToken, _, _>(move |call: Incoming<CreateMachineToken>| {
                let token = format!("nbv_{}", MachineId::fresh().uuid().simple());
                let made = (call.request.owner, token.clone());
                creating.tokens.lock().unwrap().insert(call.request.machine, made);
                async move { Ok(Secret::new(token)) }
            })
            .method::<RevokeMachineToken, _, _>(move |call: Incoming<RevokeMachineToken>| {
                revoking.tokens.lock().unwrap().remove(&call.request);
                async move { Ok(()) }
            })
            .method::<VerifyingKeys, _, _>(|_: Incoming<VerifyingKeys>| async {
                Ok(vec![VerifyingKey {
                    id: "k1".into(),
                    key: hex::decode(PUBLIC).unwrap(),
                }])
            })
            .start()
            .await
            .unwrap();

        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            ippool: IppoolConfig,
        }
        let pool = Line::parse_from(std::iter::once("test").chain(POOL)).ippool;
        let bus = connect(&nats, &authority, "ippool", &clock).await;
        let cluster = client.clone();
        let ippool = serve(context(bus, db, &clock, None, "ippool"), |ctx| {
            nimbus_ippool::run(ctx, pool, Some(cluster))
        })
        .await;
        Self {
            sim: Box::new(sim),
            client,
            jump,
            db: db.clone(),
            gateway,
            admin: caller(true, &clock),
            sealer: Sealer::load(&dir.path().join("key"), None).unwrap(),
            clock,
            authority,
            nats,
            gpu,
            _beside: Box::new((ippool, auth, scheduler)),
            _dir: dir,
        }
    }

    /// What a replica of the service is given.
    pub(crate) async fn ctx(&self, instance: &str) -> Ctx {
        let bus = connect(&self.nats, &self.authority, "provisioner", &self.clock).await;
        context(bus, &self.db, &self.clock, Some(self.sealer.clone()), instance)
    }

    pub(crate) fn access(&self) -> ClusterAccess {
        ClusterAccess {
            client: Some(self.client.clone()),
            missing: vec![],
        }
    }

    /// Starts a replica and waits until it answers.
    pub(crate) async fn replica(&self, instance: &str, flags: &[&'static str]) -> Replica {
        self.replica_with(instance, config(flags)).await
    }

    pub(crate) async fn replica_with(&self, instance: &str, config: ProvisionerConfig) -> Replica {
        let access = self.access();
        serve(self.ctx(instance).await, |ctx| {
            nimbus_provisioner::run(ctx, config, access)
        })
        .await
    }

    pub(crate) fn member(&self) -> Caller {
        caller(false, &self.clock)
    }

    /// Orders a machine.
    pub(crate) async fn order(
        &self,
        caller: &Caller,
        hostname: &str,
        key: Option<&str>,
    ) -> Result<m::Operation, Fault> {
        let request = create_request(hostname);
        let call = self.gateway.call::<m::Create>(&request).on_behalf_of(caller);
        match key {
            Some(key) => call.key(Key::of(key)).await,
            None => call.await,
        }
    }

    /// Waits for the end of an operation.
    pub(crate) async fn ended(&self, caller: &Caller, id: OperationId) -> m::Operation {
        eventually(
            || async {
                self.gateway
                    .call::<m::GetOperation>(&id)
                    .on_behalf_of(caller)
                    .await
                    .unwrap()
            },
            |operation| operation.finished_at.is_some(),
        )
        .await
    }

    /// Makes a machine.
    pub(crate) async fn make(&self, caller: &Caller, hostname: &str) -> m::Machine {
        let ordered = self.order(caller, hostname, None).await.unwrap();
        let ended = self.ended(caller, ordered.id).await;
        assert_eq!(ended.state, m::OperationState::Succeeded, "{ended:?}");
        self.machine(caller, ended.machine).await.unwrap()
    }

    pub(crate) async fn machine(&self, caller: &Caller, id: MachineId) -> Result<m::Machine, Fault> {
        self.gateway.call::<m::Get>(&id).on_behalf_of(caller).await
    }

    pub(crate) async fn power(
        &self,
        caller: &Caller,
        machine: MachineId,
        action: m::PowerAction,
    ) -> m::Operation {
        let request = m::PowerRequest { machine, action };
        let ordered = self
            .gateway
            .call::<m::Power>(&request)
            .on_behalf_of(caller)
            .await
            .unwrap();
        self.ended(caller, ordered.id).await
    }

    pub(crate) async fn delete(&self, caller: &Caller, id: MachineId) -> m::Operation {
        let ordered = self
            .gateway
            .call::<m::Delete>(&id)
            .on_behalf_of(caller)
            .await
            .unwrap();
        self.ended(caller, ordered.id).await
    }

    pub(crate) async fn reconcile(&self) -> m::ReconcileReport {
        self.gateway
            .call::<m::Reconcile>(&())
            .on_behalf_of(&self.admin)
            .await
            .unwrap()
    }

    /// Addresses of machines.
    pub(crate) async fn addresses(&self) -> Vec<Address> {
        let all: Vec<Address> = self
            .gateway
            .call::<List>(&())
            .on_behalf_of(&self.admin)
            .await
            .unwrap();
        all.into_iter()
            .filter(|address| address.status != AddressStatus::Free && address.machine.is_some())
            .collect()
    }

    /// The VMs that were made through the API.
    pub(crate) fn made(&self) -> Vec<Value> {
        let state = self.sim.state();
        let vms = state["vms"].as_array().unwrap();
        vms.iter()
            .filter(|vm| vm["foreign"] == false && vm["template"] != true)
            .cloned()
            .collect()
    }

    /// What the guest was told to run: the standard input of each command.
    pub(crate) fn told(&self, vmid: u32) -> Vec<String> {
        let state = self.sim.state();
        let commands = state["guest_commands"].as_array().unwrap();
        commands
            .iter()
            .filter(|command| command["vmid"] == vmid)
            .map(|command| command["input"].as_str().unwrap().to_owned())
            .collect()
    }

    pub(crate) fn vm(&self, vmid: u32) -> Option<Value> {
        self.made().into_iter().find(|vm| vm["vmid"] == vmid)
    }

    /// A guest that somebody made by hand.
    pub(crate) fn stranger(&self, vmid: u32, node: &str, name: &str) {
        let guest = serde_json::json!({ "vmid": vmid, "node": node, "name": name });
        let guest: ForeignGuest = serde_json::from_value(guest).unwrap();
        self.sim.add_guest(guest).unwrap();
    }

    /// Moves a VM to another node as a migration does: number, name and marks stay.
    pub(crate) async fn migrate(&self, vmid: u32, to: &str) {
        let vm = self.vm(vmid).unwrap();
        let text = |key: &str| vm["config"][key].as_str().unwrap_or_default().to_owned();
        let mut options = ConfigPatch::new().set("scsi0", "local-lvm:8");
        for key in ["name", "description", "smbios1", "tags", "ipconfig0", "agent"] {
            options = options.set(key, text(key));
        }
        self.sim.remove_guest(vmid).unwrap();
        let number = Vmid::new(vmid).unwrap();
        let made = self.client.create_vm(to, number, &options).await.unwrap();
        self.client.wait_task(&made, soon()).await.unwrap();
        if vm["status"] == "running" {
            self.switch(to, vmid, PowerOp::Start).await;
        }
    }

    /// Powers a VM behind the service's back.
    pub(crate) async fn switch(&self, node: &str, vmid: u32, op: PowerOp) {
        let task = self
            .client
            .power(node, Vmid::new(vmid).unwrap(), op)
            .await
            .unwrap();
        self.client.wait_task(&task, soon()).await.unwrap();
    }
}

pub(crate) fn create_request(hostname: &str) -> m::CreateRequest {
    m::CreateRequest {
        hostname: hostname.parse().unwrap(),
        tier: "small".parse().unwrap(),
        os: "debian-12".parse().unwrap(),
        key: m::KeyChoice::Generate,
        public_tunnel: false,
    }
}

fn soon() -> tokio::time::Instant {
    tokio::time::Instant::now() + PATIENCE
}

fn context(bus: Bus, db: &Database, clock: &Clock, sealer: Option<Sealer>, instance: &str) -> Ctx {
    let stop = CancellationToken::new();
    Ctx {
        bus,
        database: Some(db.clone()),
        sealer,
        clock: clock.clone(),
        tasks: Tasks::new(stop.clone(), CancellationToken::new()),
        stop,
        instance: instance.to_owned(),
        ready: Ready::default(),
    }
}

async fn serve<F, Fut>(ctx: Ctx, run: F) -> Replica
where
    F: FnOnce(Ctx) -> Fut,
    Fut: Future<Output = Result<(), RunError>> + Send + 'static,
{
    let (stop, tasks, ready) = (ctx.stop.clone(), ctx.tasks.clone(), ctx.ready.clone());
    let mut running = tokio::spawn(run(ctx));
    tokio::select! {
        () = within(ready.wait()) => {}
        ended = &mut running => panic!("the service ended: {ended:?}"),
    }
    Replica { stop, tasks, running }
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
    let claims = Claims::new(&identity, clock.now(), clock.now().after(LIFETIME * 1000));
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
    let until = soon();
    loop {
        let answer = ask().await;
        if good(&answer) {
            return answer;
        }
        assert!(
            tokio::time::Instant::now() < until,
            "the last answer was {answer:?}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
