//! The nats-server inside Nimbus: started, watched, started again when it dies, and ended with us.
//!
//! ```text
//! starting ──"Server is ready"──▶ running ──dies──▶ starting (same port, same files)
//!                                    ├──disk was full, has space again──▶ starting
//!                                    └──stop──▶ stopped
//! ```
//! A thread of its own starts the process and waits for it, because the kernel ties "die with your
//! parent" to the thread that called fork, and a runtime's threads come and go.

use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::process::Signal;
use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use crate::authority::Authority;
use crate::credential::write_private;
use crate::error::BusError;
use crate::exposure::{Exposure, Files};
use crate::process::{self, Program};
use crate::server_config::ServerConfigOptions;
use crate::space;

/// How long the first start may take; it is some 50 ms unless files have to be recovered.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long a stop may take before the process is killed; nothing that was acknowledged is lost by that.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// First and longest pause before a server that died is started again.
const RESTART_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(5));
/// A server that lived this long has not failed to start.
const SETTLED: Duration = Duration::from_secs(10);

/// How to start.
#[derive(Debug)]
pub struct EmbeddedOptions<'a> {
    /// Nimbus' data folder; the server's files go to `nats` in it.
    pub data_dir: Utf8PathBuf,
    /// Whose credentials it accepts; one kept in the data folder, if none is given.
    pub authority: Option<&'a Authority>,
    /// A nats-server to use instead of the embedded one; else the environment's `NIMBUS_NATS_SERVER`.
    pub binary: Option<Utf8PathBuf>,
}

/// A nats-server that lives as long as this.
#[derive(Debug)]
pub struct EmbeddedNats {
    shared: Arc<Shared>,
    exposed: Option<(Exposure, Files)>,
    state: watch::Receiver<State>,
    wake: mpsc::Sender<()>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Starting,
    Running { pid: u32, port: u16 },
    Stopped { reason: String },
}

#[derive(Debug)]
struct Shared {
    stopping: AtomicBool,
    handle: Mutex<Option<OwnedFd>>,
    port: Mutex<Option<u16>>,
}

/// What the thread needs.
struct Supervisor {
    program: Program,
    dir: Utf8PathBuf,
    /// The configuration for a port.
    config: Box<dyn Fn(Option<u16>) -> String + Send>,
    shared: Arc<Shared>,
    state: watch::Sender<State>,
    wake: mpsc::Receiver<()>,
}

impl EmbeddedNats {
    /// Starts the server and waits until it takes clients.
    ///
    /// # Errors
    /// No program, files that cannot be written, a server that ends instead of starting (its last
    /// words are in the error), or one that another process holds the folder of.
    pub async fn start(options: EmbeddedOptions<'_>) -> Result<Self, BusError> {
        Self::launch(options, None).await
    }

    /// Starts the server where other computers reach it. Every client needs TLS then, with the
    /// authority of [`Self::ca_file`]; it is kept in `bus/tls` of the data folder.
    ///
    /// # Errors
    /// As [`Self::start`]; an address that is not this computer's or is taken; names that cannot be in a
    /// certificate.
    pub async fn start_exposed(options: EmbeddedOptions<'_>, exposure: Exposure) -> Result<Self, BusError> {
        let files = exposure.certify(&options.data_dir.join("bus/tls"))?;
        Self::launch(options, Some((exposure, files))).await
    }

    async fn launch(
        options: EmbeddedOptions<'_>,
        exposed: Option<(Exposure, Files)>,
    ) -> Result<Self, BusError> {
        let dir = options.data_dir.join("nats");
        std::fs::create_dir_all(&dir).map_err(|source| BusError::File {
            what: "create the folder",
            path: dir.clone(),
            source,
        })?;
        let own;
        let authority = match options.authority {
            Some(authority) => authority,
            None => {
                own = Authority::open(&dir)?;
                &own
            }
        };
        // On one host nothing else has a copy, so what is acknowledged is on the disk. Measured on an
        // SSD: publishing an event takes 0.48 ms instead of 0.21 ms.
        let (listen, fixed) = match &exposed {
            Some((exposure, _)) => (exposure.listen_template(), exposure.port()),
            None => ("127.0.0.1:@PORT@".to_owned(), None),
        };
        let wanted = ServerConfigOptions {
            sync_always: true,
            tls: exposed.as_ref().map(|(_, files)| files.server.clone()),
            ..ServerConfigOptions::new(listen, dir.join("store"))
        };
        // Signed once: the same text serves every restart, only the port is filled in.
        let text = authority.server_config(&wanted);
        let config = Box::new(move |port: Option<u16>| {
            text.replace(
                "@PORT@",
                &port
                    .or(fixed)
                    .map_or_else(|| "-1".to_owned(), |port| port.to_string()),
            )
        });
        let binary = options.binary.or_else(|| {
            std::env::var("NIMBUS_NATS_SERVER")
                .ok()
                .filter(|path| !path.is_empty())
                .map(Into::into)
        });
        let program = tokio::task::spawn_blocking(move || Program::find(binary))
            .await
            .map_err(|error| BusError::Server {
                what: "unpack",
                reason: error.to_string(),
            })??;

        let shared = Arc::new(Shared {
            stopping: AtomicBool::new(false),
            handle: Mutex::default(),
            port: Mutex::default(),
        });
        let (state, mut following) = watch::channel(State::Starting);
        let (wake, woken) = mpsc::channel();
        let supervisor = Supervisor {
            program,
            dir,
            config,
            shared: Arc::clone(&shared),
            state,
            wake: woken,
        };
        std::thread::Builder::new()
            .name("nats-server".to_owned())
            .spawn(move || supervisor.run())
            .map_err(|error| BusError::Server {
                what: "supervise",
                reason: error.to_string(),
            })?;
        let embedded = Self {
            shared,
            exposed,
            state: following.clone(),
            wake,
        };
        let settled =
            tokio::time::timeout(START_LIMIT, following.wait_for(|state| *state != State::Starting)).await;
        match settled {
            Ok(Ok(state)) => match &*state {
                State::Stopped { reason } => {
                    return Err(BusError::Server {
                        what: "start",
                        reason: reason.clone(),
                    });
                }
                State::Running { .. } | State::Starting => {}
            },
            Ok(Err(_)) => {
                return Err(BusError::Server {
                    what: "start",
                    reason: "its supervisor is gone".to_owned(),
                });
            }
            Err(_) => {
                return Err(BusError::Server {
                    what: "start",
                    reason: format!("not ready within {START_LIMIT:?}; another process may hold its folder"),
                });
            }
        }
        Ok(embedded)
    }

    /// Where clients on this computer connect. The same over restarts.
    #[must_use]
    pub fn url(&self) -> String {
        let port = self
            .shared
            .port
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .unwrap_or_default();
        match &self.exposed {
            Some((exposure, _)) => format!("tls://{}:{port}", exposure.near()),
            None => format!("nats://127.0.0.1:{port}"),
        }
    }

    /// PEM file with the authority that clients have to believe; none where there is no TLS.
    #[must_use]
    pub fn ca_file(&self) -> Option<&Utf8Path> {
        self.exposed.as_ref().map(|(_, files)| files.authority.as_path())
    }

    /// The process; `None` while it is being started again.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match *self.state.borrow() {
            State::Running { pid, .. } => Some(pid),
            State::Starting | State::Stopped { .. } => None,
        }
    }

    /// Waits until the server runs as another process than `pid`, as after a crash.
    pub async fn restarted(&self, pid: u32) {
        let mut state = self.state.clone();
        // Fails only when the supervisor is gone, and then nothing will be started again.
        let _ = state
            .wait_for(|state| matches!(state, State::Running { pid: now, .. } if *now != pid))
            .await;
    }

    /// Ends the server and waits for it. Call it after the clients have left.
    pub async fn stop(&self) {
        self.end(Signal::TERM);
        let mut state = self.state.clone();
        if tokio::time::timeout(
            STOP_LIMIT,
            state.wait_for(|state| matches!(state, State::Stopped { .. })),
        )
        .await
        .is_err()
        {
            warn!("nats-server did not stop within {STOP_LIMIT:?} and is killed");
            self.end(Signal::KILL);
            let _ = state
                .wait_for(|state| matches!(state, State::Stopped { .. }))
                .await;
        }
    }

    fn end(&self, signal: Signal) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // The thread may be gone, or pausing before a restart.
        let _ = self.wake.send(());
        if let Some(handle) = &*self.shared.handle.lock().unwrap_or_else(PoisonError::into_inner) {
            process::signal(handle, signal);
        }
    }
}

impl Drop for EmbeddedNats {
    fn drop(&mut self) {
        self.end(Signal::TERM);
    }
}

impl Supervisor {
    fn run(self) {
        let reason = match process::lock(&self.dir.join("lock")) {
            Ok(lock) => self.supervise(&lock),
            Err(error) => format!("could not lock {}: {error}", self.dir),
        };
        self.state.send_replace(State::Stopped { reason });
    }

    /// Keeps a server running; gives back why it does so no more.
    fn supervise(&self, lock: &OwnedFd) -> String {
        let mut pause = RESTART_PAUSE.0;
        while !self.stopping() {
            let began = Instant::now();
            let ended = match self.live_once(lock) {
                Ok(ended) => ended,
                Err(error) => error.to_string(),
            };
            let first = self
                .shared
                .port
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_none();
            if self.stopping() || first {
                return ended;
            }
            self.state.send_replace(State::Starting);
            if began.elapsed() > SETTLED {
                pause = RESTART_PAUSE.0;
            }
            error!("nats-server ended ({ended}) and is started again in {pause:?}");
            match self.wake.recv_timeout(pause) {
                Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            pause = (pause * 2).min(RESTART_PAUSE.1);
        }
        "stopped".to_owned()
    }

    fn stopping(&self) -> bool {
        self.shared.stopping.load(Ordering::SeqCst)
    }

    /// Starts the server and follows its log until it ends.
    fn live_once(&self, lock: &OwnedFd) -> Result<String, Box<dyn std::error::Error>> {
        let known = *self.shared.port.lock().unwrap_or_else(PoisonError::into_inner);
        let config = self.dir.join("nats-server.conf");
        write_private(&config, &(self.config)(known))?;
        let mut child = process::spawn(&self.program, &config, lock)?;
        *self.shared.handle.lock().unwrap_or_else(PoisonError::into_inner) = Some(process::handle(&child)?);
        if self.stopping() {
            child.kill()?;
        }
        let last = self.follow_log(&mut child);
        let status = child.wait();
        *self.shared.handle.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let status = status?;
        Ok(match last {
            Some(last) => format!("{status}; its last complaint: {last}"),
            None => status.to_string(),
        })
    }

    /// Passes the log on and learns from it where the server listens; gives back its last complaint.
    fn follow_log(&self, child: &mut Child) -> Option<String> {
        let pid = child.id();
        let log = BufReader::new(child.stderr.take()?);
        let (mut port, mut complaint, mut full) = (None, None, false);
        for line in log.lines().map_while(Result::ok) {
            // "[PID] [LVL] text"
            let text = line.split_once("] [").map_or(line.as_str(), |(_, rest)| rest);
            let (level, text) = text.split_once("] ").unwrap_or(("INF", text));
            match level {
                "FTL" | "ERR" => {
                    complaint = Some(text.to_owned());
                    error!(nats.pid = pid, "nats-server: {text}");
                    if !full
                        && space::stopped_writing(text)
                        && let Ok(handle) = process::handle(child)
                    {
                        full = true;
                        space::end_when_there_is_some(self.dir.clone(), handle);
                    }
                }
                "WRN" => warn!(nats.pid = pid, "nats-server: {text}"),
                _ => debug!(nats.pid = pid, "nats-server: {text}"),
            }
            if let Some(address) = text.strip_prefix("Listening for client connections on ") {
                port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
            }
            if let (Some(port), "Server is ready") = (port, text) {
                *self.shared.port.lock().unwrap_or_else(PoisonError::into_inner) = Some(port);
                info!(
                    nats.pid = pid,
                    nats.port = port,
                    "nats-server is ready on port {port}"
                );
                self.state.send_replace(State::Running { pid, port });
            }
        }
        complaint
    }
}
