//! What a test needs: a bus, a database, replicas of the service, boxes, and callers.

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use nimbus_bus::{
    AccessToken, Authority, Bus, Caller, ConnectOptions, EmbeddedNats, EmbeddedOptions, Identity, Incoming,
    Key, Method, Scope, Serving, service_user,
};
use nimbus_errors::Fault;
use nimbus_gpu_scheduler::GpuConfig;
use nimbus_gpu_wire::{Command, Registered, Registration};
use nimbus_model::{Clock, JobId, Jump, MachineId, SessionId, TenantId, UserId};
use nimbus_proto::auth::{BusUser, MintBus, MintedCredential, Secret, VerifyingKey, VerifyingKeys};
use nimbus_proto::gpu::{
    CreatePairing, GetJob, Job, JobState, ListWorkers, PairingRequest, Register, Submit, SubmitRequest,
    Worker,
};
use nimbus_proto::grants;
use nimbus_proto::verify::{Claims, LIFETIME};
use nimbus_service::{Ctx, Ready, RunError, Tasks};
use nimbus_store::{Database, Sealer};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::gx::Gx;

/// The longest a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

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

/// A deployment without the service; add replicas and boxes.
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
        let url = nats.url();
        let auth = auth
            .serve("auth", "0.1.0", "Keys and boxes only")
            .method::<VerifyingKeys, _, _>(|_: Incoming<VerifyingKeys>| async {
                Ok(vec![VerifyingKey {
                    id: "k1".into(),
                    key: hex::decode(PUBLIC).unwrap(),
                }])
            })
            .method::<MintBus, _, _>(move |call: Incoming<MintBus>| {
                let url = url.clone();
                async move {
                    // One box stands for those that cannot reach the bus.
                    let BusUser::GpuWorker(name) = call.request else {
                        return Ok(None);
                    };
                    Ok((!name.as_str().starts_with("http")).then(|| MintedCredential {
                        url,
                        ca_pem: None,
                        credentials: Secret::new(name.as_str()),
                    }))
                }
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
            gpu: GpuConfig,
        }
        // Under load a box of a test may be slow; only the tests of losses are about that.
        let patient: &[&str] = if flags.contains(&"--gpu-silent-after") {
            &[]
        } else {
            &["--gpu-silent-after", "600", "--gpu-lost-after", "600"]
        };
        let flags = ["test"].iter().chain(patient).chain(flags).copied();
        let config = Line::parse_from(flags).gpu;
        let stop = CancellationToken::new();
        let tasks = Tasks::new(stop.clone(), CancellationToken::new());
        let ready = Ready::default();
        let ctx = Ctx {
            bus: self.connect("gpu-scheduler").await,
            database: Some(self.db.clone()),
            sealer: Some(self.sealer.clone()),
            clock: self.clock.clone(),
            tasks: tasks.clone(),
            stop: stop.clone(),
            instance: "test".into(),
            ready: ready.clone(),
        };
        let mut running = tokio::spawn(nimbus_gpu_scheduler::run(ctx, config));
        tokio::select! {
            () = within(ready.wait()) => {}
            ended = &mut running => panic!("the service ended: {ended:?}"),
        }
        Replica { stop, tasks, running }
    }

    /// A connection with the rights of a service.
    pub(crate) async fn connect(&self, name: &'static str) -> Bus {
        let rights = grants::of(name).unwrap();
        connect(&self.nats, &self.authority, name, rights, &self.clock).await
    }

    /// A connection with the rights of a box.
    pub(crate) async fn connect_box(&self, name: &str) -> Bus {
        let rights = grants::worker(&name.parse().unwrap());
        let name = format!("gpu-worker-{name}");
        connect(&self.nats, &self.authority, &name, rights, &self.clock).await
    }

    /// A client of the plain library, with all rights.
    pub(crate) async fn plain(&self) -> async_nats::Client {
        use secrecy::ExposeSecret;
        let credential = self.authority.mint(&nimbus_bus::User::unrestricted("plain"));
        async_nats::ConnectOptions::with_credentials(credential.text().expose_secret())
            .unwrap()
            .connect(self.nats.url())
            .await
            .unwrap()
    }

    /// Kills the server of the bus without warning and waits until it is there again.
    pub(crate) async fn crash_bus(&self) {
        let pid = self.nats.pid().unwrap();
        let process = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
        within(self.nats.restarted(pid)).await;
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

    /// Somebody who acts by the token inside a machine of theirs.
    pub(crate) fn machine(&self, owner: &Caller) -> (MachineId, Caller) {
        let machine = MachineId::fresh();
        let identity = Identity {
            machine: Some(machine),
            session: None,
            scopes: vec![Scope::Gpu],
            ..owner.identity.clone()
        };
        (machine, signed(identity, &self.clock))
    }

    pub(crate) async fn token(&self) -> Secret {
        let request = PairingRequest { worker: None };
        let pairing = self.ask::<CreatePairing>(&self.admin, &request).await.unwrap();
        assert_eq!(pairing.expires_in_s, 300);
        pairing.token
    }

    pub(crate) async fn register(&self, token: &Secret, name: &str) -> Result<Registered, Fault> {
        let registration = registration(token, name);
        self.gateway.call::<Register>(&registration).await
    }

    /// Pairs a box that is on the bus, and lets it beat once.
    pub(crate) async fn gx(self: &Arc<Self>, name: &str) -> Gx {
        let registered = self.register(&self.token().await, name).await.unwrap();
        let gx = self.gx_of(&registered).await;
        gx.beat(&[]).await.unwrap();
        gx
    }

    /// The box with what its pairing gave it, on the bus.
    pub(crate) async fn gx_of(&self, registered: &Registered) -> Gx {
        // The name on the bus is what this world mints for a credential.
        let bus_name = &registered.bus.as_ref().unwrap().credentials;
        Gx::on_the_bus(self.connect_box(bus_name).await, &registered.worker_id, bus_name).await
    }

    /// Pairs a box that reaches only HTTP, and lets it beat once.
    pub(crate) async fn gx_http(self: &Arc<Self>, name: &str) -> Gx {
        let gx = self.gx_old(name).await;
        gx.beat(&[]).await.unwrap();
        gx
    }

    /// Pairs a box that has not beaten.
    pub(crate) async fn gx_old(self: &Arc<Self>, name: &str) -> Gx {
        let registered = self.register(&self.token().await, name).await.unwrap();
        Gx::over_http(self.gateway.clone(), name, &registered.worker_token)
    }

    pub(crate) async fn submit(&self, who: &Caller) -> Job {
        self.ask::<Submit>(who, &request()).await.unwrap()
    }

    pub(crate) async fn job(&self, job: JobId) -> Job {
        self.ask::<GetJob>(&self.admin, &job).await.unwrap()
    }

    pub(crate) async fn worker(&self, name: &str) -> Worker {
        let workers = self.ask::<ListWorkers>(&self.alice, &()).await.unwrap();
        workers
            .into_iter()
            .find(|worker| worker.name.as_str() == name)
            .unwrap()
    }

    /// Waits until a job is in a state.
    pub(crate) async fn until(&self, job: JobId, state: JobState) -> Job {
        eventually(|| self.job(job), |job| job.state == state).await
    }
}

pub(crate) fn registration(token: &Secret, name: &str) -> Registration {
    Registration {
        pairing_token: token.reveal().to_owned(),
        hostname: name.into(),
        ip: "127.0.0.1".into(),
        model: String::new(),
        port: 8000,
    }
}

pub(crate) fn request() -> SubmitRequest {
    SubmitRequest {
        image: "busybox".into(),
        command: Command::Shell("true".into()),
        env: vec![],
        pool: None,
        machine: None,
        datasets: vec![],
        time_s: None,
        memory_bytes: None,
        priority: 0,
        rerun: false,
    }
}

async fn connect(
    nats: &EmbeddedNats,
    authority: &Authority,
    name: &str,
    rights: nimbus_bus::Grants,
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
    let claims = Claims::new(&identity, clock.now(), clock.now().after(LIFETIME * 10_000));
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
