//! `nimbus dev`: everything on one computer, with a simulated cluster. And `nimbus pve-sim`, the cluster alone.

use std::net::Ipv4Addr;

use camino::{Utf8Path, Utf8PathBuf};
use nimbus_pve_sim::{PveSimArgs, RunningSim, Simulator};
use tokio_util::sync::CancellationToken;

use super::Service;
use super::args::{ProxmoxArgs, ServerArgs, absolute};
use super::process::{self, Plan, Running};
use super::signals::Signals;
use super::{boot, demo};
use crate::cli::environment;
use crate::output;
use crate::problem::{Outcome, Problem};

/// Where the data goes, unless told otherwise.
const DATA_DIR: &str = ".nimbus/dev";
/// The addresses that machines get, unless told otherwise.
const POOL: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(10, 77, 0, 50), Ipv4Addr::new(10, 77, 0, 99));
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const TOKEN_ID: &str = "root@pam!nimbus-dev";

/// Run Nimbus with a simulated cluster of three nodes, for a look and for development.
///
/// Machines are simulated too: nothing answers on their addresses.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DevArgs {
    /// Multiplies the times that the simulated cluster takes: 1 is as long as a real one, 0 is at once.
    #[arg(long, env = "PVE_SIM_LATENCY_SCALE", default_value_t = 1.0, value_name = "X", value_parser = scale, help_heading = "Simulated cluster")]
    latency_scale: f64,

    /// How many nodes the simulated cluster has.
    #[arg(long, env = "PVE_SIM_NODES", default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=32), help_heading = "Simulated cluster")]
    nodes: u8,

    /// Multiplies processors, memory and disk of every node.
    #[arg(long, env = "PVE_SIM_CAPACITY_FACTOR", default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000), help_heading = "Simulated cluster")]
    capacity_factor: u32,

    /// Keep nothing: the data goes to a folder that is removed at the end.
    #[arg(long)]
    ephemeral: bool,

    /// Sign up, provision a machine, create sandboxes, and show how it goes; keeps nothing.
    #[arg(long)]
    demo: bool,

    /// Image of the demonstration's sandboxes; it needs `sh` and `sleep`.
    #[arg(
        long,
        env = "NIMBUS_DEMO_IMAGE",
        default_value = "docker.io/library/busybox:latest",
        value_name = "IMAGE"
    )]
    demo_image: String,

    /// End after the demonstration; exit code 0 only if what it shows works.
    #[arg(long, requires = "demo")]
    once: bool,

    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// Serve the Proxmox VE API of a simulated cluster.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SimArgs {
    #[command(flatten)]
    sim: PveSimArgs,

    /// File to write once the simulator is ready: a JSON object with url, pid and fingerprint.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<Utf8PathBuf>,
}

fn scale(text: &str) -> Result<f64, &'static str> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=1000.0).contains(&number) => Ok(number),
        _ => Err("expected a number from 0 to 1000, such as 0.1"),
    }
}

pub(crate) async fn dev(args: DevArgs, defaults: Defaults) -> Outcome {
    let mut signals = Signals::catch()?;
    let scratch = if args.ephemeral || args.demo {
        Some(Scratch::new()?)
    } else {
        None
    };
    let mut server = args.server.clone();
    if let Some(scratch) = &scratch {
        server.data.data_dir = scratch.path.clone();
        server.data.db_path = None;
    } else if defaults.data_dir {
        server.data.data_dir = DATA_DIR.into();
    }
    server.data.data_dir = absolute(&server.data.data_dir);
    let token = server.auth.admin_token_file.take();
    server.auth.admin_token_file = token.or_else(|| match &scratch {
        Some(scratch) => Some(scratch.path.join("admin-token")),
        None => nimbus_auth::admin::default_path(environment),
    });
    server.ippool.pool_start.get_or_insert(POOL.0);
    server.ippool.pool_end.get_or_insert(POOL.1);
    server.ippool.gateway.get_or_insert(GATEWAY);
    // Nobody lives at the addresses of simulated machines, and what does in this network is not ours to dial.
    server.provisioner.ready_ssh_probe = false;
    if args.demo && defaults.log {
        // The log would be written across the progress display.
        "warn".clone_into(&mut server.telemetry.log);
    }
    boot::data_dir(&server.data.data_dir)?;
    let sim = simulator(&args, &server.data.data_dir, scratch.is_none()).await?;
    server.proxmox = ProxmoxArgs {
        proxmox_host: Some(sim.url.parse().map_err(|error: url::ParseError| {
            Problem::failed("the simulator's address is broken").because(&error)
        })?),
        proxmox_token_id: Some(sim.token_id.clone()),
        proxmox_token_secret: Some(sim.token_secret.clone()),
        proxmox_ca_file: None,
        proxmox_fingerprint: None,
        proxmox_insecure: false,
        pve_request_timeout: server.proxmox.pve_request_timeout,
    };
    let mut plan = Plan::new(server, Service::ALL.to_vec()).note(format!(
        "The cluster and its machines are simulated, {} nodes.",
        args.nodes
    ));
    if scratch.is_none() {
        plan = plan.discoverable();
    }
    let outcome = Box::pin(serve(&args, plan, &mut signals, scratch.as_ref())).await;
    sim.shutdown().await;
    outcome
}

async fn serve(args: &DevArgs, plan: Plan, signals: &mut Signals, scratch: Option<&Scratch>) -> Outcome {
    let running = Box::pin(Running::start(plan, signals)).await?;
    let (Some(scratch), Some(url), true) = (scratch, running.url.clone(), args.demo) else {
        return running.wait(signals).await;
    };
    let shown = tokio::select! {
        shown = demo::show(url, &scratch.path, &args.demo_image) => shown,
        signal = signals.next() => Err(Problem::failed(format!("stopped by {signal} during the demonstration"))),
    };
    match shown {
        Ok(()) if !args.once => {
            output::say("\nThe server runs on until Ctrl-C.");
            running.wait(signals).await
        }
        shown => {
            running.end(signals).await;
            shown
        }
    }
}

async fn simulator(args: &DevArgs, data: &Utf8Path, keep: bool) -> Outcome<RunningSim> {
    // A new secret each time: whoever can read the environment or the process list learns nothing.
    let secret = random_hex()?;
    let mut builder = Simulator::builder()
        .nodes(usize::from(args.nodes))
        .latency_scale(args.latency_scale)
        .capacity_factor(args.capacity_factor)
        .token(TOKEN_ID, secret.into());
    if keep {
        builder = builder.state_file(data.join("cluster.json"));
    }
    builder
        .start(([127, 0, 0, 1], 0).into())
        .await
        .map_err(|error| Problem::failed("could not start the simulated cluster").because(&error))
}

pub(crate) async fn pve_sim(args: SimArgs) -> Outcome {
    let mut signals = Signals::catch()?;
    let failed =
        |error: nimbus_pve_sim::SimError| Problem::failed("could not start the simulator").because(&error);
    let sim = args.sim.builder().start(args.sim.listen).await.map_err(failed)?;
    output::line(args.sim.greeting(&sim).trim_end())?;
    if let Some(path) = &args.ready_file {
        let facts =
            serde_json::json!({ "url": sim.url, "pid": std::process::id(), "fingerprint": sim.fingerprint });
        process::write_whole(path, &facts.to_string())?;
    }
    signals.next().await;
    let stopped = CancellationToken::new();
    tokio::select! {
        () = async { sim.shutdown().await; stopped.cancel() } => {}
        _ = signals.next() => {}
    }
    Ok(())
}

/// Which settings nobody gave, so that another default may stand in.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Defaults {
    pub(crate) data_dir: bool,
    pub(crate) log: bool,
}

/// A folder that goes away with its owner.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub(crate) path: Utf8PathBuf,
}

impl Scratch {
    fn new() -> Outcome<Self> {
        let base = Utf8PathBuf::from_path_buf(std::env::temp_dir()).map_err(|path| {
            Problem::failed(format!(
                "the folder for temporary files has a strange name: {}",
                path.display()
            ))
        })?;
        let path = base.join(format!("nimbus-{}", random_hex()?));
        boot::data_dir(&path)?;
        Ok(Self { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(%error, "could not remove {}", self.path);
        }
    }
}

/// 128 random bits of the system.
pub(crate) fn random_hex() -> Outcome<String> {
    use std::fmt::Write;
    use std::io::Read;
    let mut bytes = [0_u8; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| Problem::failed("could not get random bytes").because(&error))?;
    let mut text = String::with_capacity(32);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}
