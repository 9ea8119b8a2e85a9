//! One process from start to end: ground, services, ready, signal, end.

use std::fmt::Write;
use std::net::TcpListener;
use std::time::Instant;

use camino::Utf8PathBuf;
use nimbus_auth::BusMint;
use nimbus_model::Clock;
use nimbus_provisioner::ClusterAccess;
use nimbus_service::{Ctx, Ready, RunError, Tasks};
use nimbus_store::Database;
use nimbus_telemetry::{Telemetry, TelemetryGuard};
use sd_notify::NotifyState;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use url::Url;

use super::Service;
use super::args::{ServerArgs, absolute};
use super::boot::{self, Ground};
use super::discovery::Announced;
use super::listen::{self, Listening, Permission};
use super::proxmox::{self, Cluster};
use super::signals::Signals;
use crate::output;
use crate::problem::{Outcome, Problem};

/// What a process runs.
#[derive(Debug)]
pub(crate) struct Plan {
    args: ServerArgs,
    services: Vec<Service>,
    notes: Vec<String>,
    discoverable: bool,
    inherited: Option<TcpListener>,
}

impl Plan {
    /// These services with these settings.
    pub(crate) fn new(args: ServerArgs, services: Vec<Service>) -> Self {
        Self {
            args,
            services,
            notes: Vec::new(),
            discoverable: false,
            inherited: None,
        }
    }

    /// Serves on a port that somebody else holds.
    #[must_use]
    pub(crate) fn inherited(mut self, listener: TcpListener) -> Self {
        self.inherited = Some(listener);
        self
    }

    /// Lets the commands of this computer find it.
    #[must_use]
    pub(crate) fn discoverable(mut self) -> Self {
        self.discoverable = true;
        self
    }

    /// A line for the summary.
    #[must_use]
    pub(crate) fn note(mut self, line: impl Into<String>) -> Self {
        self.notes.push(line.into());
        self
    }
}

/// Runs until a signal, or until a service fails.
pub(crate) async fn run(plan: Plan) -> Outcome {
    let mut signals = Signals::catch()?;
    let running = Box::pin(Running::start(plan, &mut signals)).await?;
    running.wait(&mut signals).await
}

/// A process whose services answer.
pub(crate) struct Running {
    /// Where the portal is; none in a process without the gateway.
    pub(crate) url: Option<Url>,
    args: ServerArgs,
    services: Services,
    ground: Ground,
    database: Option<Database>,
    telemetry: TelemetryGuard,
    announced: Option<Announced>,
    /// The admin token of a server that other computers reach.
    exposed: Option<Utf8PathBuf>,
}

/// The services of a process, with the edge apart: it is stopped first, so that nobody asks what is going away.
struct Services {
    edge: Group,
    rest: Group,
    /// Fired by a task that the process cannot do without.
    process: CancellationToken,
    /// What auth makes credentials for the bus with.
    mint: BusMint,
}

/// Services that are stopped together.
#[derive(Default)]
struct Group {
    running: JoinSet<Ended>,
    tasks: Vec<Tasks>,
    stop: CancellationToken,
}

type Ended = (Service, Result<(), RunError>);

impl Running {
    /// Takes the port, opens the ground, starts the services, and waits until all of them answer.
    pub(crate) async fn start(plan: Plan, signals: &mut Signals) -> Outcome<Self> {
        let begun = Instant::now();
        let Plan {
            mut args,
            services,
            notes,
            discoverable,
            inherited,
        } = plan;
        args.data.data_dir = absolute(&args.data.data_dir);
        args.gateway.public_url = args.listen.public_url.clone();
        args.provisioner.public_url = args.listen.public_url.clone();
        let mut listening = match services.contains(&Service::Gateway) {
            true => {
                let permission = Permission {
                    token: args.auth.admin_token_file.as_ref(),
                    now: Clock::system().now(),
                };
                Some(listen::bind(&args.listen, inherited, &permission)?)
            }
            false => None,
        };
        let instance = instance();
        let telemetry = Telemetry::init(
            &args
                .telemetry
                .clone()
                .into_config(process_name(&services), instance.clone()),
        )
        .map_err(|error| Problem::usage("logs and traces cannot be set up").because(&error))?;
        let cluster = proxmox::cluster(&args)?;
        args.ippool
            .validate()
            .map_err(|error| Problem::usage("the address pool cannot be used").because(&error))?;
        let embeds = args.bus.nats_url.is_none();
        let stateful = services.iter().any(|service| *service != Service::Gateway);
        if stateful || embeds {
            boot::data_dir(&args.data.data_dir)?;
        }
        let host = args
            .agent
            .host_name()
            .map_err(|error| Problem::usage("this host has no name for its sandboxes").because(&error))?;
        let database = if services.iter().any(|service| service.has_tables()) {
            Some(boot::database(&args.data).await?)
        } else {
            None
        };
        let sealer = if stateful {
            Some(boot::sealer(&args.data)?)
        } else {
            None
        };
        let ground = Ground::open(&args.bus, &args.data.data_dir).await?;

        let address = listening.as_ref().map(|listening| listening.address);
        let url = match address {
            Some(address) => Some(listen::url(address, args.gateway.tls_cert.is_some())?),
            None => None,
        };
        let mut set = Services {
            edge: Group::default(),
            rest: Group::default(),
            process: CancellationToken::new(),
            mint: if services.contains(&Service::Auth) {
                ground.mint()?
            } else {
                BusMint::default()
            },
        };
        let mut readies = Vec::new();
        for service in &services {
            let ready = Ready::default();
            readies.push(ready.clone());
            let clock = Clock::system();
            let bus = ground.connect(*service, &host, &clock).await?;
            let group = if *service == Service::Gateway {
                &mut set.edge
            } else {
                &mut set.rest
            };
            let tasks = Tasks::new(group.stop.clone(), set.process.clone());
            group.tasks.push(tasks.clone());
            let stop = group.stop.clone();
            let ctx = Ctx {
                bus,
                database: database.clone().filter(|_| service.has_tables()),
                sealer: sealer.clone(),
                clock,
                tasks,
                stop,
                instance: instance.clone(),
                ready,
            };
            set.spawn(
                *service,
                ctx,
                &args,
                &cluster,
                listening.take_if(|_| *service == Service::Gateway),
                &telemetry,
            );
        }

        let exposed = address
            .filter(|address| !address.ip().is_loopback())
            .and_then(|_| args.auth.admin_token_file.clone());
        let running = Self {
            url,
            exposed,
            args,
            services: set,
            ground,
            database,
            telemetry,
            announced: None,
        };
        let mut running = running
            .until_ready(readies, signals)
            .await?
            .announce(&services, &cluster, &notes, begun)?;
        if let (true, Some(url)) = (discoverable, &running.url) {
            // Commands can be told the address: not being found is no reason not to serve.
            running.announced = Announced::new(url, &Clock::system()).unwrap_or_else(|problem| {
                tracing::warn!("{problem}");
                None
            });
        }
        Ok(running)
    }

    async fn until_ready(mut self, readies: Vec<Ready>, signals: &mut Signals) -> Outcome<Self> {
        let all = async {
            for ready in &readies {
                ready.wait().await;
            }
        };
        let process = self.services.process.clone();
        let failed = tokio::select! {
            () = all => return Ok(self),
            ended = self.services.any_ended() => ended_early(ended),
            () = process.cancelled() => Problem::failed("a service failed while starting").why("the log says why"),
            signal = signals.next() => Problem::failed(format!("stopped by {signal} while starting")),
        };
        self.end(signals).await;
        Err(failed)
    }

    fn announce(
        self,
        services: &[Service],
        cluster: &Cluster,
        notes: &[String],
        begun: Instant,
    ) -> Outcome<Self> {
        let milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut text = format!(
            "Nimbus {} is ready after {}.\n",
            env!("CARGO_PKG_VERSION"),
            output::span(milliseconds)
        );
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "  {name:<10} {value}");
        };
        match &self.url {
            Some(url) => line("Portal", url.as_str()),
            None => line(
                "Services",
                &services
                    .iter()
                    .map(|service| service.name())
                    .collect::<Vec<_>>()
                    .join(", "),
            ),
        }
        if self.database.is_some() {
            line(
                "Data",
                &format!("{}, {}", self.args.data.data_dir, self.args.data.database()),
            );
        }
        line("Bus", &self.ground.describe());
        let needs_cluster = services
            .iter()
            .any(|service| matches!(service, Service::Ippool | Service::Provisioner));
        if needs_cluster {
            let names: Vec<&str> = cluster
                .missing
                .iter()
                .map(|missing| missing.setting.as_str())
                .collect();
            match &self.args.proxmox.proxmox_host {
                Some(url) if names.is_empty() => line("Cluster", url.as_str()),
                _ => line(
                    "Cluster",
                    &format!("not configured yet: set {}", names.join(", ")),
                ),
            }
        }
        for note in notes {
            line("", note);
        }
        output::say(text.trim_end());
        if let Some(path) = &self.args.listen.ready_file {
            let facts = serde_json::json!({
                "url": self.url.as_ref().map(|url| url.as_str().trim_end_matches('/')),
                "pid": std::process::id(),
                "data_dir": self.args.data.data_dir,
                "nats_url": match &self.ground { Ground::Embedded { nats, .. } => Some(nats.url()), Ground::External(_) => None },
                "nats_ca_file": match &self.ground { Ground::Embedded { nats, .. } => nats.ca_file(), Ground::External(_) => None },
                "start_ms": milliseconds,
            });
            write_whole(path, &facts.to_string())?;
        }
        notify(&[NotifyState::Ready]);
        Ok(self)
    }

    /// Serves until a signal, or until a service ends by itself.
    pub(crate) async fn wait(mut self, signals: &mut Signals) -> Outcome {
        let process = self.services.process.clone();
        let outcome = tokio::select! {
            signal = signals.next() => {
                tracing::info!("{signal}: stopping");
                Ok(())
            }
            () = process.cancelled() => Err(Problem::failed("a task that Nimbus cannot do without has failed").why("the log says why")),
            ended = self.services.any_ended() => Err(ended_early(ended)),
            never = listen::remind(self.exposed.clone()) => match never {},
        };
        self.end(signals).await;
        outcome
    }

    /// Stops: first the edge, then the other services, then what they stand on. A second signal, or the
    /// time limit, cuts it short: what is in the database and the streams survives that.
    pub(crate) async fn end(mut self, signals: &mut Signals) {
        notify(&[NotifyState::Stopping]);
        let limit = self.args.listen.stop_timeout;
        let soft = async {
            self.services.end().await;
            if let Some(database) = &self.database {
                database.close().await;
            }
            self.ground.close().await;
        };
        tokio::select! {
            ended = tokio::time::timeout(limit, soft) => if ended.is_err() {
                tracing::warn!("not everything ended within {limit:?}: ending anyway");
            },
            signal = signals.next() => tracing::warn!("{signal} again: ending at once"),
        }
        self.services.edge.running.abort_all();
        self.services.rest.running.abort_all();
        self.telemetry.shutdown();
    }
}

impl Services {
    fn spawn(
        &mut self,
        service: Service,
        ctx: Ctx,
        args: &ServerArgs,
        cluster: &Cluster,
        listening: Option<Listening>,
        telemetry: &TelemetryGuard,
    ) {
        let span = tracing::info_span!("service", service.name = service.name());
        match service {
            Service::Gateway => {
                let Some(listening) = listening else { return };
                let work = nimbus_gateway::run(
                    ctx,
                    args.gateway.clone(),
                    listening.listener,
                    telemetry.traces(),
                    telemetry.metrics(),
                );
                self.edge
                    .running
                    .spawn(async move { (service, Box::pin(work).await) }.instrument(span));
            }
            Service::Auth => {
                let work = nimbus_auth::run(ctx, args.auth.clone(), self.mint.clone());
                self.rest
                    .running
                    .spawn(async move { (service, Box::pin(work).await) }.instrument(span));
            }
            Service::Ippool => {
                let work = nimbus_ippool::run(ctx, args.ippool.clone(), cluster.client.clone());
                self.rest
                    .running
                    .spawn(async move { (service, Box::pin(work).await) }.instrument(span));
            }
            Service::Provisioner => {
                let access = ClusterAccess {
                    client: cluster.client.clone(),
                    missing: cluster.missing.clone(),
                };
                let work = nimbus_provisioner::run(ctx, args.provisioner.clone(), access);
                self.rest
                    .running
                    .spawn(async move { (service, Box::pin(work).await) }.instrument(span));
            }
            Service::Workloads => {
                let work = nimbus_workloads::run(ctx, args.workloads.clone());
                self.rest
                    .running
                    .spawn(async move { (service, Box::pin(work).await) }.instrument(span));
            }
            Service::GpuScheduler => {
                let work = nimbus_gpu_scheduler::run(ctx, args.gpu.clone());
                self.rest
                    .running
                    .spawn(async move { (service, Box::pin(work).await) }.instrument(span));
            }
            Service::SandboxAgent => {
                let work = nimbus_sandbox_agent::run(ctx, args.agent.clone().under(&args.data.data_dir));
                self.rest
                    .running
                    .spawn(async move { (service, Box::pin(work).await) }.instrument(span));
            }
        }
    }

    /// Waits until a service ends.
    async fn any_ended(&mut self) -> Option<Result<Ended, JoinError>> {
        tokio::select! {
            ended = self.edge.running.join_next(), if !self.edge.running.is_empty() => ended,
            ended = self.rest.running.join_next(), if !self.rest.running.is_empty() => ended,
            else => None,
        }
    }

    async fn end(&mut self) {
        self.edge.end().await;
        self.rest.end().await;
    }
}

impl Group {
    async fn end(&mut self) {
        self.stop.cancel();
        while let Some(ended) = self.running.join_next().await {
            if let Ok((service, Err(error))) = ended {
                tracing::warn!(cause = %nimbus_errors::chain(&error), "{} did not end cleanly", service.name());
            }
        }
        for tasks in &self.tasks {
            tasks.ended().await;
        }
    }
}

fn process_name(services: &[Service]) -> String {
    match services {
        [one] => one.name().to_owned(),
        _ => "nimbus".to_owned(),
    }
}

/// Unique in the deployment: host, process, and the moment, for process ids come again.
fn instance() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!(
        "{}-{}-{:x}",
        host.trim(),
        std::process::id(),
        Clock::system().now().micros()
    )
}

fn ended_early(ended: Option<Result<Ended, JoinError>>) -> Problem {
    match ended {
        Some(Ok((service, Err(error)))) => {
            Problem::failed(format!("{} failed", service.name())).because(&error)
        }
        Some(Ok((service, Ok(())))) => Problem::failed(format!("{} ended by itself", service.name())),
        Some(Err(error)) => Problem::failed("a service failed").because(&error),
        None => Problem::failed("there is no service to run"),
    }
}

/// Writes a file so that a reader sees all of it or nothing.
pub(crate) fn write_whole(path: &Utf8PathBuf, text: &str) -> Outcome {
    let fresh = Utf8PathBuf::from(format!("{path}.new"));
    std::fs::write(&fresh, text)
        .and_then(|()| std::fs::rename(&fresh, path))
        .map_err(|error| Problem::failed(format!("could not write {path}")).because(&error))
}

/// Tells systemd, if it is there; a failure of that is no reason not to serve.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "could not notify systemd");
    }
}
