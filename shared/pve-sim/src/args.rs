//! The command line of the simulator.

use std::net::SocketAddr;
use std::path::PathBuf;

use secrecy::{ExposeSecret as _, SecretString};
use tokio_util::sync::CancellationToken;

use crate::server::{RunningSim, SimBuilder, SimError, Simulator};

/// Serves the Proxmox VE API of a simulated cluster.
#[derive(Clone, Debug, clap::Args)]
pub struct PveSimArgs {
    /// Address to listen on.
    #[arg(
        id = "pve_sim_listen",
        long = "listen",
        env = "PVE_SIM_LISTEN",
        default_value = "127.0.0.1:8006",
        value_name = "ADDR"
    )]
    pub listen: SocketAddr,
    /// Number of nodes.
    #[arg(
        id = "pve_sim_nodes",
        long = "nodes",
        env = "PVE_SIM_NODES",
        default_value_t = 3,
        value_name = "N"
    )]
    pub nodes: usize,
    /// The API token that is accepted.
    #[arg(
        id = "pve_sim_token_id",
        long = "token-id",
        env = "PVE_SIM_TOKEN_ID",
        default_value = "root@pam!nimbus",
        value_name = "ID"
    )]
    pub token_id: String,
    /// Secret of the token; random, and printed, if not given.
    #[arg(
        id = "pve_sim_token_secret",
        long = "token-secret",
        env = "PVE_SIM_TOKEN_SECRET",
        hide_env_values = true,
        value_name = "SECRET"
    )]
    pub token_secret: Option<SecretString>,
    /// Password of root@pam; without it nobody can log in.
    #[arg(
        id = "pve_sim_root_password",
        long = "root-password",
        env = "PVE_SIM_ROOT_PASSWORD",
        hide_env_values = true,
        value_name = "PASSWORD"
    )]
    pub root_password: Option<SecretString>,
    /// Multiplies every duration; 1 is realistic, 0 immediate.
    #[arg(id = "pve_sim_latency_scale", long = "latency-scale", env = "PVE_SIM_LATENCY_SCALE", default_value_t = 1.0, value_name = "X", value_parser = scale)]
    pub latency_scale: f64,
    /// Multiplies processors, memory and disk of every node.
    #[arg(
        id = "pve_sim_capacity",
        long = "capacity-factor",
        env = "PVE_SIM_CAPACITY_FACTOR",
        default_value_t = 1,
        value_name = "N"
    )]
    pub capacity_factor: u32,
    /// Seed of addresses, uuids and variations of durations.
    #[arg(
        id = "pve_sim_seed",
        long = "seed",
        env = "PVE_SIM_SEED",
        default_value_t = 0,
        value_name = "N"
    )]
    pub seed: u64,
    /// Serve HTTPS with a certificate made now.
    #[arg(id = "pve_sim_tls", long = "tls", env = "PVE_SIM_TLS")]
    pub tls: bool,
    /// File that keeps the cluster across restarts.
    #[arg(
        id = "pve_sim_state",
        long = "state",
        env = "PVE_SIM_STATE",
        value_name = "FILE"
    )]
    pub state: Option<PathBuf>,
}

fn scale(text: &str) -> Result<f64, String> {
    let number = text
        .parse::<f64>()
        .ok()
        .filter(|number| (0.0..=1000.0).contains(number));
    number.ok_or_else(|| format!("expected a number from 0 to 1000, got {text:?}"))
}

impl PveSimArgs {
    /// The simulator these arguments describe.
    #[must_use]
    pub fn builder(&self) -> SimBuilder {
        let mut builder = Simulator::builder()
            .nodes(self.nodes)
            .latency_scale(self.latency_scale)
            .capacity_factor(self.capacity_factor)
            .seed(self.seed)
            .tls(self.tls);
        if let Some(secret) = &self.token_secret {
            builder = builder.token(&self.token_id, secret.clone());
        } else {
            let random: u128 = rand::random();
            builder = builder.token(&self.token_id, format!("{random:032x}").into());
        }
        if let Some(password) = &self.root_password {
            builder = builder.root_password(password.clone());
        }
        if let Some(path) = &self.state {
            builder = builder.state_file(path);
        }
        builder
    }

    /// What to tell the user about the running simulator. The secret is in it only if nobody gave one.
    #[must_use]
    pub fn greeting(&self, sim: &RunningSim) -> String {
        let mut text = format!("Proxmox VE simulator: {}\ntoken id: {}\n", sim.url, sim.token_id);
        if self.token_secret.is_none() {
            text.push_str(&format!("token secret: {}\n", sim.token_secret.expose_secret()));
        }
        if let Some(fingerprint) = &sim.fingerprint {
            text.push_str(&format!("SHA-256 fingerprint: {fingerprint}\n"));
        }
        text
    }
}

/// Serves until `stop` is cancelled; `announce` gets the text for the user once the port is open.
///
/// # Errors
/// [`SimError`] if the simulator cannot be started.
pub async fn run(
    args: PveSimArgs,
    stop: CancellationToken,
    announce: impl FnOnce(&str),
) -> Result<(), SimError> {
    let sim = args.builder().start(args.listen).await?;
    announce(&args.greeting(&sim));
    stop.cancelled().await;
    sim.shutdown().await;
    Ok(())
}
