//! `nimbus bus`: keys and credentials of a nats-server that is set up beside Nimbus.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

use camino::{Utf8Path, Utf8PathBuf};
use nimbus_bus::{Authority, Bus, BusError, ConnectOptions, ServerConfigOptions, ServerTls, User};
use nimbus_model::{Clock, Hostname};

use crate::output;
use crate::problem::{Outcome, Problem};
use crate::server::Service;
use crate::server::args::absolute;

/// Set up a nats-server for the split deployment, and make credentials for it.
#[derive(Debug, clap::Args)]
pub(crate) struct BusArgs {
    #[command(subcommand)]
    command: BusCommand,
}

#[derive(Debug, clap::Subcommand)]
enum BusCommand {
    /// Write keys, a nats-server configuration and a credentials file for each service.
    ///
    /// Run it again to write what is missing; keys and credentials that exist are kept.
    Init {
        /// Folder to write to. Whoever reads it is every user of the bus.
        dir: Utf8PathBuf,
        /// Where the nats-server listens.
        #[arg(long, default_value = "127.0.0.1:4222", value_name = "ADDRESS:PORT")]
        listen: String,
        /// Folder of the server's streams [default: jetstream in DIR].
        #[arg(long, value_name = "DIR")]
        store_dir: Option<Utf8PathBuf>,
        /// PEM file with the server's certificate chain; needed as soon as a service is on another host.
        #[arg(long, requires = "tls_key", value_name = "FILE")]
        tls_cert: Option<Utf8PathBuf>,
        /// PEM file with the certificate's key.
        #[arg(long, requires = "tls_cert", value_name = "FILE")]
        tls_key: Option<Utf8PathBuf>,
        /// Have every message reach the disk before it is acknowledged.
        #[arg(long)]
        sync_always: bool,
        #[command(flatten)]
        host: HostArg,
    },
    /// Have a cluster of nats-servers keep every stream this many times.
    ///
    /// Three copies outlive the loss of one server. Run it again after an upgrade: a stream that is new has
    /// one copy.
    Replicas {
        /// How many copies; as many servers are needed.
        #[arg(value_parser = clap::value_parser!(u8).range(1..=5), value_name = "COUNT")]
        count: u8,
        /// The nats-servers, separated by commas.
        #[arg(long, env = "NATS_URL", value_name = "URL")]
        nats_url: String,
        /// PEM file with the authority of the nats-servers' certificates; given, TLS is required.
        #[arg(long, env = "NATS_CA_FILE", value_name = "FILE")]
        nats_ca_file: Option<Utf8PathBuf>,
        /// Folder that `nimbus bus init` wrote.
        #[arg(long, env = "NIMBUS_BUS_AUTHORITY", value_name = "DIR")]
        bus_authority: Utf8PathBuf,
    },
    /// Make credentials.
    Credentials {
        #[command(subcommand)]
        command: CredentialsCommand,
    },
}

#[derive(Debug, clap::Subcommand)]
enum CredentialsCommand {
    /// Make a credentials file for a service, or one that may do everything.
    Mint {
        /// The service.
        #[arg(value_enum, required_unless_present = "unrestricted")]
        service: Option<Service>,
        /// For a person with tools, under this name: all subjects.
        #[arg(long, conflicts_with = "service", value_name = "NAME")]
        unrestricted: Option<String>,
        /// Folder that `nimbus bus init` wrote.
        #[arg(long, value_name = "DIR")]
        dir: Utf8PathBuf,
        /// Where to write it; it must not exist.
        #[arg(long, value_name = "FILE")]
        out: Utf8PathBuf,
        #[command(flatten)]
        host: HostArg,
    },
}

#[derive(Debug, clap::Args)]
struct HostArg {
    /// Host whose sandbox agent the credentials are for [default: this one].
    #[arg(long, value_name = "NAME")]
    sandbox_host: Option<Hostname>,
}

impl HostArg {
    fn name(&self) -> Outcome<Hostname> {
        match &self.sandbox_host {
            Some(host) => Ok(host.clone()),
            None => nimbus_sandbox_agent::machine_name()
                .map_err(|error| Problem::usage("this host has no name for its sandboxes").because(&error)),
        }
    }
}

pub(crate) async fn run(args: BusArgs) -> Outcome {
    match args.command {
        BusCommand::Replicas {
            count,
            nats_url,
            nats_ca_file,
            bus_authority,
        } => replicas(count, nats_url, nats_ca_file, &bus_authority).await,
        BusCommand::Init {
            dir,
            listen,
            store_dir,
            tls_cert,
            tls_key,
            sync_always,
            host,
        } => {
            let dir = absolute(&dir);
            let mut options = ServerConfigOptions::new(
                listen,
                store_dir.map_or_else(|| dir.join("jetstream"), |path| absolute(&path)),
            );
            options.tls = tls_cert.zip(tls_key).map(|(cert, key)| ServerTls {
                cert_file: absolute(&cert),
                key_file: absolute(&key),
            });
            options.sync_always = sync_always;
            init(&dir, &host.name()?, &options)
        }
        BusCommand::Credentials {
            command:
                CredentialsCommand::Mint {
                    service,
                    unrestricted,
                    dir,
                    out,
                    host,
                },
        } => {
            let user = match (service, unrestricted) {
                (Some(service), _) => service.user(&host.name()?)?,
                (None, Some(name)) => User::unrestricted(name),
                (None, None) => return Err(Problem::usage("neither a service nor --unrestricted was given")),
            };
            write_new(&out, &existing(&dir)?, &user)
        }
    }
}

/// The keys in a folder, which are not made here.
fn existing(dir: &Utf8Path) -> Outcome<Authority> {
    if !dir.join("authority.json").exists() {
        return Err(Problem::usage(format!("{dir} has no keys")).next(format!("nimbus bus init {dir}")));
    }
    Authority::open(dir).map_err(failed)
}

async fn replicas(count: u8, url: String, ca_file: Option<Utf8PathBuf>, authority: &Utf8Path) -> Outcome {
    let could_not = |error: BusError| {
        Problem::failed("the streams could not be changed")
            .because(&error)
            .next("a cluster of as many servers is needed")
    };
    let user = User::unrestricted("administration");
    let bus = Bus::connect(ConnectOptions {
        url,
        name: user.name.clone(),
        credential: Some(existing(authority)?.mint(&user)),
        ca_file,
        clock: Clock::system(),
    })
    .await
    .map_err(|error| Problem::failed("could not connect to the bus").because(&error))?;
    let changed = bus.set_replicas(count).await.map_err(could_not)?;
    bus.close().await;
    output::say(format_args!(
        "Every stream is kept {count} times; {} were changed.",
        changed.len()
    ));
    for name in changed {
        output::line(&name)?;
    }
    Ok(())
}

fn init(dir: &Utf8Path, host: &Hostname, options: &ServerConfigOptions) -> Outcome {
    let creds = dir.join("creds");
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&creds)
        .map_err(|error| Problem::failed(format!("could not make {creds}")).because(&error))?;
    let authority = Authority::open(dir).map_err(failed)?;
    for service in Service::ALL {
        let path = creds.join(format!("{}.creds", service.name()));
        if !path.exists() {
            write_new(&path, &authority, &service.user(host)?)?;
        }
    }
    let config = dir.join("nats-server.conf");
    private(&config, false, &authority.server_config(options))?;
    output::say(format_args!(
        "Start the server with `nats-server -c {config}`, and the services with\n  \
         NATS_URL=nats://{} NATS_CREDS={creds}",
        options.listen
    ));
    output::line(config.as_str())
}

fn write_new(path: &Utf8Path, authority: &Authority, user: &User) -> Outcome {
    use secrecy::ExposeSecret;
    private(path, true, authority.mint(user).text().expose_secret())?;
    output::say(format_args!("Wrote {path} for {}.", user.name));
    Ok(())
}

fn private(path: &Utf8Path, must_be_new: bool, text: &str) -> Outcome {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).mode(0o600);
    if must_be_new {
        options.create_new(true);
    } else {
        options.create(true).truncate(true);
    }
    options
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| {
            let problem = Problem::failed(format!("could not write {path}")).because(&error);
            if error.kind() == std::io::ErrorKind::AlreadyExists {
                problem.next("name another --out")
            } else {
                problem
            }
        })
}

fn failed(error: BusError) -> Problem {
    Problem::failed("the bus keys cannot be used").because(&error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_init_keeps_the_keys_and_credentials() {
        let dir = camino_tempfile::tempdir().unwrap();
        let dir = dir.path().join("bus");
        let options = ServerConfigOptions::new("127.0.0.1:4222", dir.join("jetstream"));
        let host: Hostname = "host-a".parse().unwrap();
        init(&dir, &host, &options).unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
        let (keys, creds) = (read("authority.json"), read("creds/ippool.creds"));
        init(&dir, &host, &options).unwrap();
        assert_eq!(keys, read("authority.json"));
        assert_eq!(creds, read("creds/ippool.creds"));
        for service in Service::ALL {
            assert!(dir.join(format!("creds/{}.creds", service.name())).exists());
        }
    }
}
