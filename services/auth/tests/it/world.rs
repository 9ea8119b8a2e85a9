//! What a test needs: a bus, a database, replicas of the service, and callers.

use std::sync::Arc;
use std::time::Duration;

use camino::Utf8PathBuf;
use clap::Parser;
use nimbus_auth::{AuthConfig, BusMint};
use nimbus_bus::{
    AccessToken, Authority, Bus, Caller, ConnectOptions, EmbeddedNats, EmbeddedOptions, Verify, service_user,
};
use nimbus_errors::Fault;
use nimbus_model::{Clock, Jump};
use nimbus_proto::auth::{
    ExchangeRequest, ExchangeSession, ExchangeToken, Exchanged, Login, LoginReply, LoginRequest, Register,
    RegisterRequest, Secret, User,
};
use nimbus_proto::grants;
use nimbus_proto::verify::JwtVerifier;
use nimbus_service::{Ctx, Ready, RunError, Tasks};
use nimbus_store::{Database, Sealer};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The longest a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const PASSWORD: &str = "correct horse";

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
    pub(crate) gateway: Bus,
    pub(crate) jump: Jump,
    pub(crate) clock: Clock,
    pub(crate) db: Database,
    pub(crate) key_file: Utf8PathBuf,
    pub(crate) admin_file: Utf8PathBuf,
    pub(crate) authority: Arc<Authority>,
    pub(crate) nats: EmbeddedNats,
    _dir: camino_tempfile::Utf8TempDir,
}

impl World {
    pub(crate) async fn start(db: &Database) -> Self {
        let dir = camino_tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::open(dir.path().join("bus")).unwrap());
        let options = EmbeddedOptions {
            data_dir: dir.path().to_owned(),
            authority: Some(&authority),
            binary: None,
        };
        let nats = EmbeddedNats::start(options).await.unwrap();
        let (clock, jump) = Clock::movable();
        let gateway = connect(&nats, &authority, "gateway", &clock).await;
        let key_file = dir.path().join("master.key");
        let admin_file = dir.path().join("home/token");
        Self {
            gateway,
            jump,
            clock,
            db: db.clone(),
            key_file,
            admin_file,
            authority,
            nats,
            _dir: dir,
        }
    }

    /// A connection with the rights of a service.
    pub(crate) async fn connect(&self, service: &'static str) -> Bus {
        connect(&self.nats, &self.authority, service, &self.clock).await
    }

    /// Starts a replica and waits until it answers.
    pub(crate) async fn replica(&self) -> Replica {
        self.replica_with(&["--login-burst", "0"]).await.unwrap()
    }

    pub(crate) async fn replica_with(&self, flags: &[&str]) -> Result<Replica, RunError> {
        self.replica_that_mints(flags, BusMint::default()).await
    }

    pub(crate) async fn replica_that_mints(
        &self,
        flags: &[&str],
        mint: BusMint,
    ) -> Result<Replica, RunError> {
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            auth: AuthConfig,
        }
        let config = Line::parse_from(std::iter::once("test").chain(flags.iter().copied())).auth;
        let stop = CancellationToken::new();
        let tasks = Tasks::new(stop.clone(), CancellationToken::new());
        let ready = Ready::default();
        let ctx = Ctx {
            bus: self.connect("auth").await,
            database: Some(self.db.clone()),
            sealer: Some(Sealer::load(&self.key_file, None).unwrap()),
            clock: self.clock.clone(),
            tasks: tasks.clone(),
            stop: stop.clone(),
            instance: "test".into(),
            ready: ready.clone(),
        };
        let mut running = tokio::spawn(nimbus_auth::run(ctx, config, mint));
        tokio::select! {
            () = within(ready.wait()) => Ok(Replica { stop, tasks, running }),
            ended = &mut running => match ended.unwrap() {
                Err(error) => Err(error),
                Ok(()) => panic!("the service ended before it was ready"),
            },
        }
    }

    pub(crate) async fn register(&self, email: &str) -> Result<User, Fault> {
        self.gateway.call::<Register>(&registration(email)).await
    }

    pub(crate) async fn login(&self, email: &str, password: &str) -> Result<LoginReply, Fault> {
        self.login_from("10.0.0.1", email, password).await
    }

    pub(crate) async fn login_from(
        &self,
        address: &str,
        email: &str,
        password: &str,
    ) -> Result<LoginReply, Fault> {
        let request = LoginRequest {
            email: email.into(),
            password: Secret::new(password),
            address: address.into(),
            user_agent: "curl/8".into(),
        };
        self.gateway.call::<Login>(&request).await
    }

    pub(crate) async fn exchange(&self, secret: &Secret) -> Result<Exchanged, Fault> {
        self.gateway
            .call::<ExchangeSession>(&ExchangeRequest {
                secret: secret.clone(),
            })
            .await
    }

    pub(crate) async fn exchange_token(&self, secret: &Secret) -> Result<Exchanged, Fault> {
        self.gateway
            .call::<ExchangeToken>(&ExchangeRequest {
                secret: secret.clone(),
            })
            .await
    }

    /// Registers and signs in.
    pub(crate) async fn member(&self, email: &str) -> (Caller, Secret) {
        self.register(email).await.unwrap();
        let login = self.login(email, PASSWORD).await.unwrap();
        (caller(self.exchange(&login.secret).await.unwrap()), login.secret)
    }

    /// Another service's verifier, which follows revocations.
    pub(crate) async fn verifier(&self) -> std::sync::Arc<JwtVerifier> {
        let verifier =
            std::sync::Arc::new(JwtVerifier::new(self.connect("ippool").await, self.clock.clone()));
        let following = verifier.clone();
        tokio::spawn(async move { following.follow_revocations().await });
        verifier
    }
}

pub(crate) fn registration(email: &str) -> RegisterRequest {
    RegisterRequest {
        name: "Ada".into(),
        email: email.into(),
        password: Secret::new(PASSWORD),
        address: "10.0.0.1".into(),
        only_first: false,
    }
}

pub(crate) fn caller(exchanged: Exchanged) -> Caller {
    Caller {
        identity: exchanged.identity,
        token: AccessToken::new(exchanged.access_token.reveal().to_owned()),
    }
}

/// Waits until another service refuses the caller.
pub(crate) async fn refused(verifier: &JwtVerifier, caller: &Caller) -> Fault {
    eventually(
        || verifier.verify(caller.token.reveal()),
        |answer| answer.is_err(),
    )
    .await
    .unwrap_err()
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
