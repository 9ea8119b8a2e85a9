//! What a test needs: a server of its own, clients of it, and a few methods.

use std::sync::Arc;
use std::time::Duration;

use camino_tempfile::Utf8TempDir;
use nimbus_bus::{
    Access, Authority, Bus, ConnectOptions, Credential, EmbeddedNats, EmbeddedOptions, Event, Grants, Method,
    Place, Retry, Streams, User, Work, service_user,
};
use nimbus_model::Clock;
use serde::{Deserialize, Serialize};

/// The longest a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A server with its authority.
pub(crate) struct World {
    pub dir: Utf8TempDir,
    pub authority: Authority,
    pub nats: EmbeddedNats,
}

impl World {
    pub(crate) async fn start() -> Self {
        crate::tracing::record();
        let dir = camino_tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path().join("bus")).unwrap();
        let nats = start(&dir, &authority).await;
        Self { dir, authority, nats }
    }

    /// A client with exactly these rights.
    pub(crate) async fn client(&self, name: &str, grants: &Grants) -> Bus {
        self.connect(name, Some(self.authority.mint(&service_user(name, grants))))
            .await
            .unwrap()
    }

    /// A client with all rights.
    pub(crate) async fn root(&self, name: &str) -> Bus {
        self.connect(name, Some(self.authority.mint(&User::unrestricted(name))))
            .await
            .unwrap()
    }

    pub(crate) async fn connect(
        &self,
        name: &str,
        credential: Option<Credential>,
    ) -> Result<Bus, nimbus_bus::BusError> {
        let url = self.nats.url();
        Bus::connect(ConnectOptions {
            url,
            name: name.into(),
            credential,
            ca_file: None,
            clock: Clock::system(),
        })
        .await
    }

    /// A client of the plain library, which knows nothing of Nimbus.
    pub(crate) async fn plain(&self) -> async_nats::Client {
        let credential = self.authority.mint(&User::unrestricted("plain"));
        plain_options(&credential).connect(self.nats.url()).await.unwrap()
    }

    /// A client with one end of streams, whose connection can be made to fall silent.
    pub(crate) async fn behind_proxy(&self, name: &str, streams: Streams) -> (Bus, Proxy) {
        let server = self.nats.url().trim_start_matches("nats://").to_owned();
        let proxy = Proxy::start(server).await;
        let grants = Grants::default().streaming(streams);
        let bus = Bus::connect(ConnectOptions {
            url: format!("nats://127.0.0.1:{}", proxy.port),
            name: name.into(),
            credential: Some(self.authority.mint(&service_user(name, &grants))),
            ca_file: None,
            clock: Clock::system(),
        })
        .await
        .unwrap();
        (bus, proxy)
    }

    /// Kills the server without warning and waits until it is there again.
    pub(crate) async fn crash(&self) {
        let pid = self.nats.pid().unwrap();
        kill(pid);
        within(self.nats.restarted(pid)).await;
    }
}

/// Hands bytes on until it is cut; then everything stays open and nothing moves, as when a cable is
/// pulled.
pub(crate) struct Proxy {
    port: u16,
    cut: tokio::sync::watch::Sender<bool>,
}

impl Proxy {
    async fn start(server: String) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cut, watched) = tokio::sync::watch::channel(false);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (server, mut watched) = (server.clone(), watched.clone());
                tokio::spawn(async move {
                    let mut far = tokio::net::TcpStream::connect(server).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = watched.changed() => {}
                    }
                    // Held open until the test is over.
                    while watched.changed().await.is_ok() {}
                });
            }
        });
        Self { port, cut }
    }

    pub(crate) fn cut(&self) {
        self.cut.send_replace(true);
    }
}

pub(crate) fn plain_options(credential: &Credential) -> async_nats::ConnectOptions {
    use secrecy::ExposeSecret;
    async_nats::ConnectOptions::with_credentials(credential.text().expose_secret()).unwrap()
}

pub(crate) async fn start(dir: &Utf8TempDir, authority: &Authority) -> EmbeddedNats {
    let options = EmbeddedOptions {
        data_dir: dir.path().to_owned(),
        authority: Some(authority),
        binary: None,
    };
    EmbeddedNats::start(options).await.unwrap()
}

/// SIGKILL.
pub(crate) fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// Waits for what must come, or says that it did not.
pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it did not happen in time")
}

/// Doubles a number; also the shape of all other test methods.
pub(crate) struct Double;
impl Method for Double {
    const SERVICE: &'static str = "sums";
    const NAME: &'static str = "double";
    const TIMEOUT: Duration = Duration::from_secs(10);
    const RETRY: Retry = Retry::Read;
    const ACCESS: Access = Access::Service;
    type Request = u32;
    type Reply = u32;
    fn sample_request() -> u32 {
        21
    }
    fn sample_reply() -> u32 {
        42
    }
}

macro_rules! method {
    ($(#[$doc:meta])* $name:ident, $service:literal, $method:literal, $ms:literal, $retry:ident, $access:ident, $request:ty, $reply:ty) => {
        $(#[$doc])*
        pub(crate) struct $name;
        impl Method for $name {
            const SERVICE: &'static str = $service;
            const NAME: &'static str = $method;
            const TIMEOUT: Duration = Duration::from_millis($ms);
            const RETRY: Retry = Retry::$retry;
            const ACCESS: Access = Access::$access;
            type Request = $request;
            type Reply = $reply;
            fn sample_request() -> $request {
                Default::default()
            }
            fn sample_reply() -> $reply {
                Default::default()
            }
        }
    };
}

method!(/// Does something, at most once per key.
    Pay, "sums", "pay", 10_000, SameKey, Service, u32, u32);
method!(/// Does something that must not be repeated.
    Fire, "sums", "fire", 800, Never, Service, u32, u32);
method!(/// `Double` as a newer caller would send it.
    DoubleLonger, "sums", "double", 5_000, Never, Service, (u32, u32), u32);
method!(/// `Double` as somebody would send it who mixes methods up.
    DoubleWrong, "sums", "double", 5_000, Never, Service, (), u32);
method!(/// `Double` whose caller expects another answer.
    DoubleAnswer, "sums", "double", 5_000, Never, Service, u32, String);
method!(/// Answers with that many bytes.
    Bytes, "sums", "bytes", 5_000, Never, Service, u32, Vec<u8>);
method!(/// Takes bytes.
    Take, "sums", "take", 5_000, Never, Service, Vec<u8>, u32);
method!(/// For signed-in people.
    Mine, "sums", "mine", 5_000, Read, User, u32, String);
method!(/// For administrators.
    Admin, "sums", "admin", 5_000, Read, Admin, u32, u32);
method!(/// What auth serves.
    Login, "auth", "login", 3_000, Never, Service, String, String);

/// What the agent of one host answers.
pub(crate) struct Launch;
impl Method for Launch {
    const SERVICE: &'static str = "agent";
    const NAME: &'static str = "launch";
    const TIMEOUT: Duration = Duration::from_secs(5);
    const RETRY: Retry = Retry::SameKey;
    const ACCESS: Access = Access::Service;
    const PLACE: Place = Place::Host;
    type Request = u32;
    type Reply = String;
    fn sample_request() -> u32 {
        1
    }
    fn sample_reply() -> String {
        String::new()
    }
}

/// An address was freed.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Freed {
    pub number: u32,
}
impl Event for Freed {
    const DOMAIN: &'static str = "address";
    const KIND: &'static str = "freed";
    fn entity(&self) -> String {
        format!("10.0.0.{}", self.number)
    }
}

/// A machine was made.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Made {
    pub number: u32,
}
impl Event for Made {
    const DOMAIN: &'static str = "machine";
    const KIND: &'static str = "made";
    fn entity(&self) -> String {
        self.number.to_string()
    }
}

/// Numbers to be worked on.
pub(crate) struct Numbers;
impl Work for Numbers {
    const QUEUE: &'static str = "numbers";
    const ACK_WAIT: Duration = Duration::from_secs(1);
    type Item = u32;
}

/// What a handler counts or keeps, shared with the test.
pub(crate) type Shared<T> = Arc<std::sync::Mutex<T>>;
