//! Starting, listening, stopping.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::auth::Credentials;
use crate::faults::Fault;
use crate::http::{self, Peer};
use crate::seed::{self, Plan};
use crate::sim::{Clock, ControlError, Exchange, ForeignGuest, Observer, Sim};
use crate::state;
use crate::timing::Timing;
use crate::world::World;

/// PVE closes a connection that has idled so long.
const IDLE: Duration = Duration::from_secs(5);
/// PVE's limits on headers. Hyper takes no buffer under 8 KiB.
const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: usize = 8 << 10;
/// How often the state file is brought up to date.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// Why the simulator does not run.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// There is no certificate to be made.
    #[error("cannot make a certificate: {reason}")]
    Certificate {
        /// Why not.
        reason: String,
    },
    /// The state file cannot be read or written.
    #[error("cannot use the state file {path}: {reason}")]
    State {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A setting cannot be used.
    #[error("{0}")]
    Setting(String),
}

/// How a simulator is set up.
#[derive(Clone)]
pub struct SimBuilder {
    nodes: usize,
    capacity: u32,
    seed: u64,
    latency_scale: f64,
    token_id: String,
    token_secret: Option<SecretString>,
    password: Option<SecretString>,
    tls: bool,
    stale_resources: bool,
    manual: bool,
    foreign_guests: bool,
    foreign_addresses: Vec<String>,
    state: Option<PathBuf>,
    observer: Option<Observer>,
}

/// The way to a simulated cluster.
#[derive(Clone, Copy, Debug)]
pub struct Simulator;

impl Simulator {
    /// Three nodes at realistic speed, token `root@pam!nimbus` with a random secret, plain HTTP.
    #[must_use]
    pub fn builder() -> SimBuilder {
        SimBuilder {
            nodes: 3,
            capacity: 1,
            seed: 0,
            latency_scale: 1.0,
            token_id: "root@pam!nimbus".to_owned(),
            token_secret: None,
            password: None,
            tls: false,
            stale_resources: true,
            manual: false,
            foreign_guests: true,
            foreign_addresses: vec!["10.77.0.10/24".to_owned(), "10.77.0.11/24".to_owned()],
            state: None,
            observer: None,
        }
    }
}

impl SimBuilder {
    /// Number of nodes, `pve1` and so on; 1 to 100.
    #[must_use]
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    /// Multiplies processors, memory and disk of every node.
    #[must_use]
    pub fn capacity_factor(mut self, factor: u32) -> Self {
        self.capacity = factor;
        self
    }

    /// Of MAC addresses, uuids and variations of task times.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Multiplies every time of the timing table; 0 is immediate.
    #[must_use]
    pub fn latency_scale(mut self, scale: f64) -> Self {
        self.latency_scale = scale;
        self
    }

    /// The token that is accepted, `user@realm!name` and its value.
    #[must_use]
    pub fn token(mut self, id: impl Into<String>, secret: SecretString) -> Self {
        self.token_id = id.into();
        self.token_secret = Some(secret);
        self
    }

    /// Password of `root@pam`; without it nobody can log in.
    #[must_use]
    pub fn root_password(mut self, password: SecretString) -> Self {
        self.password = Some(password);
        self
    }

    /// Serves HTTPS with a certificate made for the occasion.
    #[must_use]
    pub fn tls(mut self, tls: bool) -> Self {
        self.tls = tls;
        self
    }

    /// Whether `/cluster/resources` lags behind as PVE's does; it does by default.
    #[must_use]
    pub fn stale_resources(mut self, stale: bool) -> Self {
        self.stale_resources = stale;
        self
    }

    /// Time stands still until [`RunningSim::pass`]; the API's own waits are left out.
    #[must_use]
    pub fn manual_clock(mut self) -> Self {
        self.manual = true;
        self
    }

    /// Whether there are guests of others from the start; there are by default.
    #[must_use]
    pub fn foreign_guests(mut self, there: bool) -> Self {
        self.foreign_guests = there;
        self
    }

    /// Addresses, with prefix, that a machine on the first and a container on the second node hold.
    #[must_use]
    pub fn foreign_addresses(mut self, addresses: impl IntoIterator<Item = String>) -> Self {
        self.foreign_addresses = addresses.into_iter().collect();
        self
    }

    /// A file that keeps the cluster across restarts; made if it is not there.
    #[must_use]
    pub fn state_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.state = Some(path.into());
        self
    }

    /// Called after every request that reached a call, with request and answer.
    #[must_use]
    pub fn observer(mut self, observer: impl Fn(&Exchange) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Listens and serves until the answer is dropped or stopped. Port 0 takes a free one.
    ///
    /// # Errors
    /// [`SimError`], each with what is wrong.
    pub async fn start(self, addr: SocketAddr) -> Result<RunningSim, SimError> {
        if !(1..=100).contains(&self.nodes) {
            return Err(SimError::Setting(format!(
                "expected 1 to 100 nodes, got {}",
                self.nodes
            )));
        }
        if !self.token_id.contains('@') || !self.token_id.contains('!') {
            return Err(SimError::Setting(format!(
                "expected a token id like root@pam!name, got {:?}",
                self.token_id
            )));
        }
        let secret = self
            .token_secret
            .clone()
            .unwrap_or_else(|| random_secret().into());
        let acceptor = if self.tls { Some(certificate(addr)?) } else { None };
        let listener = TcpListener::bind(addr)
            .await
            .map_err(|source| SimError::Listen { addr, source })?;
        let addr = listener
            .local_addr()
            .map_err(|source| SimError::Listen { addr, source })?;

        let world = self.world(addr).await?;
        let credentials = Credentials {
            token_id: self.token_id.clone(),
            token_secret: secret.clone(),
            password: self.password.clone(),
            key: rand::random(),
        };
        let clock = if self.manual {
            Clock::Manual(AtomicU64::new(1))
        } else {
            Clock::Real(Instant::now())
        };
        let sim = Arc::new(Sim::new(world, credentials, self.observer.clone(), clock));
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let (tls, fingerprint) = acceptor.unzip();
        tasks.spawn(accept(listener, tls, sim.clone(), stop.clone(), tasks.clone()));
        if let Some(path) = self.state {
            tasks.spawn(keep(path, sim.clone(), stop.clone()));
        }
        let scheme = if fingerprint.is_some() { "https" } else { "http" };
        Ok(RunningSim {
            addr,
            url: format!("{scheme}://{addr}"),
            token_id: self.token_id,
            token_secret: secret,
            fingerprint,
            sim,
            tasks,
            stop: stop.clone(),
            _guard: stop.drop_guard(),
        })
    }

    async fn world(&self, addr: SocketAddr) -> Result<World, SimError> {
        #[expect(
            clippy::disallowed_methods,
            reason = "read once; from then on the simulator counts itself"
        )]
        let epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let mut world = World::new(self.seed, Timing::new(self.latency_scale), epoch);
        world.stale = self.stale_resources;
        let first_ip = match addr {
            SocketAddr::V4(v4) if v4.ip().is_loopback() => *v4.ip(),
            _ => Ipv4Addr::new(10, 77, 0, 2),
        };
        let plan = Plan {
            nodes: self.nodes,
            capacity: self.capacity,
            foreign: &self.foreign_addresses,
            foreign_guests: self.foreign_guests,
            first_ip,
        };
        seed::fill(&mut world, &plan);
        if let Some(path) = &self.state {
            let refuse = |reason: String| SimError::State {
                path: path.clone(),
                reason,
            };
            match tokio::fs::read(path).await {
                Ok(text) => state::load(&mut world, &text).map_err(|e| refuse(e.to_string()))?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    state::write(path, &state::save(&world))
                        .await
                        .map_err(|e| refuse(e.to_string()))?;
                }
                Err(error) => return Err(refuse(error.to_string())),
            }
        }
        Ok(world)
    }
}

/// A simulator at work. It stops when this is dropped.
pub struct RunningSim {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its address for clients, without `/api2/json`.
    pub url: String,
    /// The token's name.
    pub token_id: String,
    /// The token's value, also of the control endpoint.
    pub token_secret: SecretString,
    /// SHA-256 of the certificate, if there is one.
    pub fingerprint: Option<String>,
    sim: Arc<Sim>,
    tasks: TaskTracker,
    stop: CancellationToken,
    _guard: DropGuard,
}

impl std::fmt::Debug for RunningSim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunningSim")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl RunningSim {
    /// Lets time pass under a manual clock: everything due until then happens now.
    pub fn pass(&self, time: Duration) {
        self.sim.pass(time);
    }

    /// Orders a fault.
    pub fn inject(&self, fault: Fault) {
        self.sim.add_fault(fault);
    }

    /// Forgets all faults.
    pub fn clear_faults(&self) {
        self.sim.clear_faults();
    }

    /// Everything there is, as `GET /sim/state` shows it.
    #[must_use]
    pub fn state(&self) -> Value {
        self.sim.state()
    }

    /// Puts a guest of somebody else into the cluster; answers its number and node.
    ///
    /// # Errors
    /// [`ControlError`] if the node is not there or the number taken.
    pub fn add_guest(&self, guest: ForeignGuest) -> Result<(u32, String), ControlError> {
        self.sim.add_guest(guest)
    }

    /// Takes a guest away behind everybody's back.
    ///
    /// # Errors
    /// [`ControlError`] if it is not there.
    pub fn remove_guest(&self, vmid: u32) -> Result<(), ControlError> {
        self.sim.remove_guest(vmid)
    }

    /// Locks a config as a backup would, or unlocks it.
    ///
    /// # Errors
    /// [`ControlError`] if there is no such guest.
    pub fn set_lock(&self, vmid: u32, lock: Option<&str>) -> Result<(), ControlError> {
        self.sim.set_lock(vmid, lock.map(str::to_owned))
    }

    /// Switches a node off or on.
    ///
    /// # Errors
    /// [`ControlError`] if there is no such node.
    pub fn set_online(&self, node: &str, online: bool) -> Result<(), ControlError> {
        self.sim.set_online(node, online)
    }

    /// A token that stops the simulator when cancelled, and is cancelled when it stops.
    #[must_use]
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Stops and waits until all is written and closed.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn random_secret() -> String {
    let value: u128 = rand::random();
    format!("{value:032x}")
}

/// A self-signed certificate for the address, and its fingerprint as PVE shows it.
fn certificate(addr: SocketAddr) -> Result<(TlsAcceptor, String), SimError> {
    let refuse = |reason: String| SimError::Certificate { reason };
    let names = vec!["localhost".to_owned(), "pve1".to_owned(), addr.ip().to_string()];
    let made = rcgen::generate_simple_self_signed(names).map_err(|e| refuse(e.to_string()))?;
    let certificate = made.cert.der().clone();
    let fingerprint = Sha256::digest(&certificate)
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect::<Vec<_>>()
        .join(":");
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_no_client_auth()
                .with_single_cert(vec![certificate], key.into())
        })
        .map_err(|e| refuse(e.to_string()))?;
    Ok((TlsAcceptor::from(Arc::new(config)), fingerprint))
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    sim: Arc<Sim>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of files, most likely; the pause lets some close.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let (tls, sim, stop) = (tls.clone(), sim.clone(), stop.clone());
        tasks.spawn(async move {
            stop.run_until_cancelled(async move {
                match tls {
                    None => serve(stream, sim).await,
                    Some(tls) => {
                        if let Ok(Ok(stream)) = tokio::time::timeout(IDLE, tls.accept(stream)).await {
                            serve(stream, sim).await;
                        }
                    }
                }
            })
            .await;
        });
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, sim: Arc<Sim>) {
    let peer = Arc::new(Peer::default());
    let service = service_fn(move |request| http::serve(sim.clone(), peer.clone(), request));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::trace!(%error, "connection ended");
    }
}

/// Writes the state file whenever there is something new, and at the end.
async fn keep(path: PathBuf, sim: Arc<Sim>, stop: CancellationToken) {
    let mut written = sim.version();
    let mut ticks = tokio::time::interval(SAVE_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let going_on = stop.run_until_cancelled(ticks.tick()).await.is_some();
        if sim.version() != written || !going_on {
            let (version, saved) = sim.snapshot();
            match state::write(&path, &saved).await {
                Ok(()) => written = version,
                Err(error) => tracing::warn!(path = %path.display(), %error, "cannot write the state file"),
            }
        }
        if !going_on {
            return;
        }
    }
}

impl std::fmt::Debug for SimBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let secret = self
            .token_secret
            .as_ref()
            .map(|secret| secret.expose_secret().len());
        f.debug_struct("SimBuilder")
            .field("nodes", &self.nodes)
            .field("latency_scale", &self.latency_scale)
            .field("token_secret_len", &secret)
            .finish_non_exhaustive()
    }
}
