//! What a test needs: a bus, a database, replicas of the service, hosts, and callers.

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use nimbus_bus::{
    AccessToken, Action, Authority, Bus, Caller, ConnectOptions, EmbeddedNats, EmbeddedOptions, Grant,
    Grants, Identity, Incoming, Key, KeyIdentity, Method, Sandboxes, Scope, Serving, service_user,
};
use nimbus_errors::Fault;
use nimbus_model::{Clock, Jump, KeyId, SessionId, TenantId, UserId};
use nimbus_proto::auth::{VerifyingKey, VerifyingKeys};
use nimbus_proto::grants;
use nimbus_proto::verify::{Claims, LIFETIME};
use nimbus_proto::workloads::{
    Backend, ConfigureTenant, ConfigureTenantRequest, CreateSandbox, CreateSandboxRequest, CreateService,
    CreateTenant, GetSandbox, GetService, GetTenant, Isolation, Labels, Lifecycle, Named, Owner, Policy,
    Process, Profile, Resources, Root, Sandbox, SandboxSpec, Service, Settings, Tenant, WriteService,
};
use nimbus_service::{Ctx, Ready, RunError, Tasks};
use nimbus_store::{Database, Sealer};
use nimbus_workloads::WorkloadsConfig;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;

/// The longest a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

// RFC 8032, section 7.1, test 1, as PKCS#8 (RFC 8410).
const PRIVATE: &str =
    "302e020100300506032b6570042204209d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

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

/// A deployment without the service; add replicas and hosts.
pub(crate) struct World {
    pub(crate) jump: Jump,
    pub(crate) gateway: Bus,
    pub(crate) admin: Caller,
    pub(crate) alice: Caller,
    pub(crate) bob: Caller,
    clock: Clock,
    db: Database,
    sealer: Sealer,
    authority: Authority,
    nats: EmbeddedNats,
    _auth: Serving,
    _dir: camino_tempfile::Utf8TempDir,
}

impl World {
    pub(crate) async fn start(db: &Database) -> Arc<Self> {
        let dir = camino_tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path().join("bus")).unwrap();
        let options = EmbeddedOptions {
            data_dir: dir.path().to_owned(),
            authority: Some(&authority),
            binary: None,
        };
        let nats = EmbeddedNats::start(options).await.unwrap();
        let (clock, jump) = Clock::movable();
        let service =
            |name: &'static str| connect(&nats, &authority, name, grants::of(name).unwrap(), &clock);
        let (gateway, auth) = (service("gateway").await, service("auth").await);
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
        let sealer = Sealer::load(&dir.path().join("key"), None).unwrap();
        Arc::new(Self {
            jump,
            gateway,
            admin: signed(person(true), &clock),
            alice: signed(person(false), &clock),
            bob: signed(person(false), &clock),
            clock,
            db: db.clone(),
            sealer,
            authority,
            nats,
            _auth: auth,
            _dir: dir,
        })
    }

    /// Starts a replica and waits until it answers.
    pub(crate) async fn replica(&self, flags: &[&str]) -> Replica {
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            workloads: WorkloadsConfig,
        }
        // Asking is for the tests that are about it.
        let quiet: &[&str] = if flags.contains(&"--external-check-interval") {
            &[]
        } else {
            &["--external-check-interval", "0"]
        };
        let flags = ["test"].iter().chain(quiet).chain(flags).copied();
        let config = Line::parse_from(flags).workloads;
        let stop = CancellationToken::new();
        let tasks = Tasks::new(stop.clone(), CancellationToken::new());
        let ready = Ready::default();
        let rights = grants::of("workloads").unwrap();
        let ctx = Ctx {
            bus: connect(&self.nats, &self.authority, "workloads", rights, &self.clock).await,
            database: Some(self.db.clone()),
            sealer: Some(self.sealer.clone()),
            clock: self.clock.clone(),
            tasks: tasks.clone(),
            stop: stop.clone(),
            instance: "test".into(),
            ready: ready.clone(),
        };
        let mut running = tokio::spawn(nimbus_workloads::run(ctx, config));
        tokio::select! {
            () = within(ready.wait()) => {}
            ended = &mut running => panic!("the service ended: {ended:?}"),
        }
        Replica { stop, tasks, running }
    }

    /// Starts a host; a replica has to be there.
    pub(crate) async fn host(&self, name: &str) -> Arc<Agent> {
        let rights = grants::agent(&name.parse().unwrap());
        let bus = connect(&self.nats, &self.authority, "sandbox-agent", rights, &self.clock).await;
        Agent::start(bus, name).await
    }

    /// Somebody who acts by an API key with these grants.
    pub(crate) fn by_key(&self, grants: Vec<Grant>) -> Caller {
        let key = KeyIdentity {
            id: KeyId::fresh(),
            grants,
        };
        let identity = Identity {
            key: Some(key),
            session: None,
            ..person(false)
        };
        signed(identity, &self.clock)
    }

    pub(crate) async fn ask<M: Method>(&self, who: &Caller, request: &M::Request) -> Result<M::Reply, Fault> {
        self.gateway.call::<M>(request).on_behalf_of(who).await
    }

    pub(crate) async fn keyed<M: Method>(
        &self,
        who: &Caller,
        key: &str,
        request: &M::Request,
    ) -> Result<M::Reply, Fault> {
        let call = self.gateway.call::<M>(request).on_behalf_of(who);
        call.key(Key::new(key)).await
    }

    /// Makes a tenant of alice's with room for much and nothing forbidden.
    pub(crate) async fn tenant(&self, id: &str) -> Tenant {
        self.ask::<CreateTenant>(&self.alice, &id.to_owned())
            .await
            .unwrap();
        let settings = Settings {
            limit: Some(Resources {
                cpu_milli: 1_000_000,
                memory_bytes: 1 << 40,
                disk_bytes: 1 << 50,
                log_bytes: 1 << 40,
                pids: 1_000_000,
            }),
            sandboxes: Some(1000),
            policy: Some(Policy {
                resources: true,
                ports: true,
                egress: true,
                mounts: true,
            }),
        };
        self.configure(id, settings).await
    }

    pub(crate) async fn configure(&self, id: &str, settings: Settings) -> Tenant {
        let request = ConfigureTenantRequest {
            tenant: id.to_owned(),
            settings,
        };
        self.ask::<ConfigureTenant>(&self.admin, &request).await.unwrap()
    }

    pub(crate) async fn used(&self, id: &str) -> u32 {
        let tenant = self.ask::<GetTenant>(&self.alice, &id.to_owned()).await.unwrap();
        tenant.quota.used_sandboxes
    }

    pub(crate) async fn create(&self, tenant: &str) -> Result<Sandbox, Fault> {
        self.ask::<CreateSandbox>(&self.alice, &creation(tenant)).await
    }

    pub(crate) async fn sandbox(&self, tenant: &str, id: &str) -> Sandbox {
        self.ask::<GetSandbox>(&self.alice, &named(tenant, id))
            .await
            .unwrap()
    }

    pub(crate) async fn service(&self, tenant: &str, name: &str) -> Service {
        self.ask::<GetService>(&self.alice, &named(tenant, name))
            .await
            .unwrap()
    }

    pub(crate) async fn define(&self, tenant: &str, name: &str) -> Service {
        let request = definition(tenant, name, Backend::Sandbox(Box::new(owned())));
        self.ask::<CreateService>(&self.alice, &request).await.unwrap()
    }

    /// Waits until a service is in a state.
    pub(crate) async fn service_until(&self, tenant: &str, name: &str, state: Lifecycle) -> Service {
        eventually(
            || self.service(tenant, name),
            |service| service.status.lifecycle == state,
        )
        .await
    }

    pub(crate) async fn sandbox_until(&self, tenant: &str, id: &str, state: Lifecycle) -> Sandbox {
        eventually(
            || self.sandbox(tenant, id),
            |sandbox| sandbox.status.lifecycle == state,
        )
        .await
    }
}

pub(crate) fn named(tenant: &str, name: &str) -> Named {
    Named {
        tenant: tenant.to_owned(),
        name: name.to_owned(),
    }
}

/// A small specification of a standalone sandbox.
pub(crate) fn spec() -> SandboxSpec {
    SandboxSpec {
        tenant: None,
        owner: Owner::Standalone {
            display_name: Some("Batch Job".into()),
        },
        backend: Isolation::Container,
        root: Root::Image {
            reference: "busybox".into(),
        },
        process: Process {
            argv: vec!["sleep".into(), "60".into()],
            ..Process::default()
        },
        resources: None,
        ports: None,
        egress: None,
        mounts: None,
        restart: None,
        stop_timeout_ms: None,
        health: None,
        ttl_ms: None,
        idle_timeout_ms: None,
        read_only_root: false,
    }
}

/// The same for a service.
pub(crate) fn owned() -> SandboxSpec {
    SandboxSpec {
        owner: Owner::Service { name: None },
        ..spec()
    }
}

pub(crate) fn creation(tenant: &str) -> CreateSandboxRequest {
    CreateSandboxRequest {
        tenant: tenant.to_owned(),
        profile: Profile::Worker,
        spec: spec(),
        labels: Labels::new(),
    }
}

pub(crate) fn definition(tenant: &str, name: &str, backend: Backend) -> WriteService {
    WriteService {
        tenant: tenant.to_owned(),
        name: name.to_owned(),
        labels: None,
        backend,
        if_generation: None,
        reject_active: false,
    }
}

pub(crate) fn grant(tenant: &str, actions: &[Action]) -> Grant {
    Grant {
        tenant: tenant.to_owned(),
        actions: actions.to_vec(),
        services: None,
        sandboxes: Sandboxes::Own,
        channels: None,
    }
}

/// The code of a refusal.
pub(crate) fn code<T: std::fmt::Debug>(outcome: &Result<T, Fault>) -> &str {
    match outcome {
        Ok(_) => "ok",
        Err(fault) => &fault.code,
    }
}

/// A part of the detail of a refusal.
pub(crate) fn detail<T: std::fmt::Debug>(outcome: Result<T, Fault>, name: &str) -> serde_json::Value {
    let detail = outcome.unwrap_err().detail_json().expect("there is a detail");
    detail[name].clone()
}

async fn connect(
    nats: &EmbeddedNats,
    authority: &Authority,
    name: &'static str,
    rights: Grants,
    clock: &Clock,
) -> Bus {
    let options = ConnectOptions {
        url: nats.url(),
        name: name.into(),
        credential: Some(authority.mint(&service_user(name, &rights))),
        ca_file: None,
        clock: clock.clone(),
    };
    Bus::connect(options).await.unwrap()
}

fn person(admin: bool) -> Identity {
    Identity {
        user: UserId::fresh(),
        tenant: TenantId::fresh(),
        admin,
        scopes: Scope::all().to_vec(),
        session: Some(SessionId::fresh()),
        token: None,
        key: None,
        machine: None,
    }
}

fn signed(identity: Identity, clock: &Clock) -> Caller {
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

/// Runs a test on both engines with one replica and one host.
macro_rules! on_both {
    ($($(#[$meta:meta])* fn $name:ident($world:ident, $host:ident, $flags:expr) $body:block)*) => {$(
        $(#[$meta])*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            nimbus_store::testing::on_both(|stored| async move {
                let $world = crate::world::World::start(&stored.db).await;
                let replica = $world.replica(&$flags).await;
                let $host = $world.host("host-a").await;
                $body
                drop($host);
                replica.stop().await;
            })
            .await;
        }
    )*};
}
pub(crate) use on_both;
