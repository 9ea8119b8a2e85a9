//! `nimbus start` and `nimbus serve`.

use std::net::TcpListener;
use std::sync::Arc;

use nimbus_store::DatabaseUrl;

use super::Service;
use super::args::ServerArgs;
use super::listen;
use super::process::{self, Plan};
use crate::cli::environment;
use crate::problem::{Outcome, Problem};

/// Run Nimbus: every service in this process, with an embedded bus and SQLite unless told otherwise.
///
/// Without the settings of a Proxmox cluster it runs too, and says in the portal what is missing.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct StartArgs {
    /// Take the port from systemd, which holds it while the server restarts; --host and --port do not count then.
    #[arg(long)]
    systemd_socket_activation: bool,

    /// What systemd handed over.
    #[arg(skip)]
    inherited: Option<Arc<TcpListener>>,

    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

impl StartArgs {
    /// Takes the port from systemd, if that is wanted. Must be called before there are threads.
    pub(crate) fn inherit(&mut self) -> Outcome {
        if self.systemd_socket_activation {
            self.inherited = Some(Arc::new(listen::take_inherited()?));
        }
        Ok(())
    }
}

/// Run some of the services; the others run in other processes on the same bus and database.
///
/// Needs --nats-url and --database-url, and --encryption-key for all but gateway and ippool.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// Which services.
    #[arg(value_enum, required = true, value_name = "SERVICE")]
    services: Vec<Service>,

    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

pub(crate) async fn start(args: StartArgs) -> Outcome {
    let mut server = args.server;
    let token = server.auth.admin_token_file.take();
    server.auth.admin_token_file = token.or_else(|| nimbus_auth::admin::default_path(environment));
    let mut plan = Plan::new(server, Service::ALL.to_vec()).discoverable();
    if let Some(listener) = args.inherited.and_then(Arc::into_inner) {
        plan = plan.inherited(listener);
    }
    Box::pin(process::run(plan)).await
}

pub(crate) async fn serve(args: ServeArgs) -> Outcome {
    let mut services = args.services;
    services.sort_unstable();
    services.dedup();
    check(&services, &args.server)?;
    Box::pin(process::run(Plan::new(args.server, services))).await
}

/// What only this process has, the others would miss.
fn check(services: &[Service], args: &ServerArgs) -> Outcome {
    let missing = |what: &str, next: &str| {
        Err(Problem::usage(format!("`nimbus serve` needs {what}")).next(next.to_owned()))
    };
    if args.bus.nats_url.is_none() {
        return missing(
            "a nats-server that the other processes use too",
            "set NATS_URL, or run `nimbus start`",
        );
    }
    let stateful = services.iter().any(|service| service.has_tables());
    if stateful && !matches!(args.data.database_url, Some(DatabaseUrl::Postgres(_))) {
        return missing(
            "a PostgreSQL that the other processes use too",
            "set DATABASE_URL=postgres://…, or run `nimbus start`",
        );
    }
    let sealing = services.iter().any(|service| {
        matches!(
            service,
            Service::Auth
                | Service::Provisioner
                | Service::Workloads
                | Service::GpuScheduler
                | Service::SandboxAgent
        )
    });
    if sealing && args.data.encryption_key.is_none() {
        return missing(
            "the encryption key that every replica uses",
            "set NIMBUS_ENCRYPTION_KEY or NIMBUS_ENCRYPTION_KEY_FILE; `head -c 32 /dev/urandom | base64` makes one",
        );
    }
    Ok(())
}
