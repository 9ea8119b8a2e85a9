//! Settings of a server process.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use nimbus_config::{seconds_or_text, secret, text};
use nimbus_store::DatabaseUrl;
use secrecy::SecretString;
use url::Url;

/// Every setting of a server.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ServerArgs {
    /// TOML or JSON file with settings, named like the flags.
    #[arg(long, env = "NIMBUS_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<Utf8PathBuf>,

    #[command(flatten, next_help_heading = "Listening")]
    pub(crate) listen: ListenArgs,

    #[command(flatten, next_help_heading = "Data")]
    pub(crate) data: DataArgs,

    #[command(flatten, next_help_heading = "Bus")]
    pub(crate) bus: BusArgs,

    #[command(flatten, next_help_heading = "Proxmox VE")]
    pub(crate) proxmox: ProxmoxArgs,

    #[command(flatten, next_help_heading = "Addresses")]
    pub(crate) ippool: nimbus_ippool::IppoolConfig,

    #[command(flatten, next_help_heading = "Machines")]
    pub(crate) provisioner: nimbus_provisioner::ProvisionerConfig,

    #[command(flatten, next_help_heading = "Sandboxes, services and sessions")]
    pub(crate) workloads: nimbus_workloads::WorkloadsConfig,

    #[command(flatten, next_help_heading = "GPU jobs")]
    pub(crate) gpu: nimbus_gpu_scheduler::GpuConfig,

    #[command(flatten, next_help_heading = "This host's sandboxes")]
    pub(crate) agent: nimbus_sandbox_agent::SandboxAgentConfig,

    #[command(flatten, next_help_heading = "Accounts")]
    pub(crate) auth: nimbus_auth::AuthConfig,

    #[command(flatten, next_help_heading = "HTTP")]
    pub(crate) gateway: nimbus_gateway::GatewayConfig,

    #[command(flatten, next_help_heading = "Logs and traces")]
    pub(crate) telemetry: nimbus_telemetry::TelemetryArgs,
}

/// Where the HTTP edge listens.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ListenArgs {
    /// Address to listen on. One that other computers reach needs --allow-network.
    #[arg(
        long,
        env = "NIMBUS_HOST",
        default_value = "127.0.0.1",
        value_name = "ADDRESS"
    )]
    pub(crate) host: IpAddr,

    /// Port to listen on; 0 takes a free one.
    #[arg(long, env = "PORT", default_value_t = 8080)]
    pub(crate) port: u16,

    /// Listen on an address that other computers reach.
    #[arg(long, env = "NIMBUS_ALLOW_NETWORK", value_parser = nimbus_config::flag)]
    pub(crate) allow_network: bool,

    /// Where people, their machines and GPU boxes reach the portal: https://nimbus.example.org.
    #[arg(long, env = "APP_URL", value_name = "URL", value_parser = public)]
    pub(crate) public_url: Option<Url>,

    /// File to write once the server is ready: a JSON object with url, pid and data_dir.
    #[arg(long, env = "NIMBUS_READY_FILE", value_name = "FILE")]
    pub(crate) ready_file: Option<Utf8PathBuf>,

    /// How long running requests may take to end after the first signal to stop.
    #[arg(long, env = "NIMBUS_STOP_TIMEOUT", default_value = "12s", value_name = "TIME", value_parser = seconds_or_text)]
    pub(crate) stop_timeout: Duration,
}

/// Where the data is.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DataArgs {
    /// Folder of everything that is kept: database, keys, the bus' streams.
    #[arg(long, env = "NIMBUS_DATA_DIR", default_value = "data", value_name = "DIR")]
    pub(crate) data_dir: Utf8PathBuf,

    /// SQLite file [default: nimbus.db in the data folder].
    #[arg(
        long,
        visible_alias = "db",
        env = "DB_PATH",
        value_name = "FILE",
        conflicts_with = "database_url"
    )]
    pub(crate) db_path: Option<Utf8PathBuf>,

    /// PostgreSQL instead of SQLite: postgres://user:password@host/database.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub(crate) database_url: Option<DatabaseUrl>,

    /// Key that seals secrets in the database, 32 bytes in base64 [default: made once and kept in the data
    /// folder]. Losing it loses what it sealed; replicas need the same one.
    #[arg(long, env = "NIMBUS_ENCRYPTION_KEY", hide_env_values = true, value_name = "BASE64", value_parser = secret)]
    pub(crate) encryption_key: Option<SecretString>,
}

impl DataArgs {
    /// The database to open.
    pub(crate) fn database(&self) -> DatabaseUrl {
        self.database_url
            .clone()
            .unwrap_or_else(|| DatabaseUrl::Sqlite(self.sqlite()))
    }

    /// The SQLite file.
    pub(crate) fn sqlite(&self) -> Utf8PathBuf {
        match (&self.db_path, &self.database_url) {
            (Some(path), _) | (None, Some(DatabaseUrl::Sqlite(path))) => path.clone(),
            _ => self.data_dir.join("nimbus.db"),
        }
    }

    /// The file of the encryption key.
    pub(crate) fn key_file(&self) -> Utf8PathBuf {
        self.data_dir.join("encryption.key")
    }
}

/// How the services reach each other.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct BusArgs {
    /// nats-server to use; without one, the server inside this program is started.
    #[arg(long, env = "NATS_URL", value_name = "URL", value_parser = text)]
    pub(crate) nats_url: Option<String>,

    /// Folder with a credentials file for each service: gateway.creds, auth.creds and so on.
    #[arg(long, env = "NATS_CREDS", value_name = "DIR")]
    pub(crate) nats_creds: Option<Utf8PathBuf>,

    /// PEM file with the authority of the nats-server's certificate; given, TLS is required.
    #[arg(long, env = "NATS_CA_FILE", value_name = "FILE")]
    pub(crate) nats_ca_file: Option<Utf8PathBuf>,

    /// Have the server inside this program listen here too, with TLS, for GPU boxes and agents of other
    /// hosts: 0.0.0.0:4222. Without it they use HTTP.
    #[arg(
        long,
        env = "NIMBUS_BUS_LISTEN",
        value_name = "ADDRESS:PORT",
        conflicts_with = "nats_url"
    )]
    pub(crate) bus_listen: Option<SocketAddr>,

    /// Where other hosts reach the bus: tls://nimbus.example.org:4222 [default: the address of
    /// --bus-listen, if it is a certain one].
    #[arg(long, env = "NIMBUS_BUS_PUBLIC_URL", value_name = "URL", value_parser = bus_address)]
    pub(crate) bus_public_url: Option<Url>,

    /// Folder that `nimbus bus init` wrote: with a nats-server beside Nimbus, what credentials for other
    /// hosts are made with.
    #[arg(long, env = "NIMBUS_BUS_AUTHORITY", value_name = "DIR", requires = "nats_url")]
    pub(crate) bus_authority: Option<Utf8PathBuf>,
}

/// The cluster that machines are made in.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ProxmoxArgs {
    /// Any node of the cluster: https://pve1.example.org:8006. A bare name gets https and port 8006.
    #[arg(long, env = "PROXMOX_HOST", value_name = "URL", value_parser = host)]
    pub(crate) proxmox_host: Option<Url>,

    /// Name of the API token, user@realm!name.
    #[arg(long, env = "PROXMOX_TOKEN_ID", value_name = "ID", value_parser = token_id)]
    pub(crate) proxmox_token_id: Option<String>,

    /// Value of the API token.
    #[arg(long, env = "PROXMOX_TOKEN_SECRET", hide_env_values = true, value_name = "SECRET", value_parser = secret)]
    pub(crate) proxmox_token_secret: Option<SecretString>,

    /// PEM file with the authority of the cluster's certificates, a copy of /etc/pve/pve-root-ca.pem.
    #[arg(long, env = "PROXMOX_CA_FILE", value_name = "FILE", conflicts_with_all = ["proxmox_fingerprint", "proxmox_insecure"])]
    pub(crate) proxmox_ca_file: Option<Utf8PathBuf>,

    /// SHA-256 of the node's certificate, as the interface of Proxmox VE shows it.
    #[arg(long, env = "PROXMOX_FINGERPRINT", value_name = "SHA256", value_parser = text, conflicts_with = "proxmox_insecure")]
    pub(crate) proxmox_fingerprint: Option<String>,

    /// Do not check the cluster's certificate: whoever answers for the host gets the token.
    #[arg(long, env = "PROXMOX_INSECURE", value_parser = nimbus_config::flag)]
    pub(crate) proxmox_insecure: bool,

    /// Longest time for one request. Proxmox VE gives a request that one node passes on to another 30 s.
    #[arg(long, env = "NIMBUS_PVE_REQUEST_TIMEOUT", default_value = "30s", value_name = "TIME", value_parser = seconds_or_text)]
    pub(crate) pve_request_timeout: Duration,
}

fn host(text: &str) -> Result<Url, String> {
    const WRONG: &str = "expected the address of a Proxmox VE node, such as https://pve1.example.org:8006";
    let text = text.trim();
    let parse = |whole: &str| whole.parse::<Url>().map_err(|_| WRONG.to_owned());
    let mut url = if text.contains("://") {
        parse(text)?
    } else {
        parse(&format!("https://{text}"))?
    };
    if !matches!(url.scheme(), "https" | "http") || url.host().is_none() {
        return Err(WRONG.to_owned());
    }
    // A URL does not tell the default port of its scheme from none; that of another scheme it does.
    let bare =
        !text.contains("://") && url.port().is_none() && parse(&format!("http://{text}"))?.port().is_none();
    if bare {
        url.set_port(Some(8006)).map_err(|()| WRONG.to_owned())?;
    }
    Ok(url)
}

/// An address of ours, as others are told it.
fn public(text: &str) -> Result<Url, &'static str> {
    const WRONG: &str = "expected the address of this portal, such as https://nimbus.example.org";
    let url: Url = text.trim().parse().map_err(|_| WRONG)?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && url.path() == "/";
    if matches!(url.scheme(), "https" | "http") && url.host().is_some() && plain {
        Ok(url)
    } else {
        Err(WRONG)
    }
}

fn bus_address(text: &str) -> Result<Url, &'static str> {
    const WRONG: &str = "expected where other hosts reach the bus, such as tls://nimbus.example.org:4222";
    let url: Url = text.trim().parse().map_err(|_| WRONG)?;
    let named = url.host_str().is_some_and(|host| !host.is_empty()) && url.port().is_some();
    if url.scheme() == "tls" && named && url.username().is_empty() && matches!(url.path(), "" | "/") {
        Ok(url)
    } else {
        Err(WRONG)
    }
}

fn token_id(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    let well_formed = text.split_once('!').is_some_and(|(user, name)| {
        !name.is_empty()
            && user
                .split_once('@')
                .is_some_and(|(user, realm)| !user.is_empty() && !realm.is_empty())
    });
    if well_formed {
        Ok(text.to_owned())
    } else {
        Err("expected user@realm!name, such as root@pam!nimbus")
    }
}

/// A path that does not change its meaning when the process changes its folder.
pub(crate) fn absolute(path: &Utf8Path) -> Utf8PathBuf {
    camino::absolute_utf8(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_token_names() {
        assert_eq!(host("pve1").unwrap().as_str(), "https://pve1:8006/");
        assert_eq!(host("pve1:443").unwrap().as_str(), "https://pve1/");
        assert_eq!(
            host("https://pve1:8006/x").unwrap().as_str(),
            "https://pve1:8006/x"
        );
        assert!(host("ftp://pve1").unwrap_err().contains("expected"));
        assert!(host("").is_err());
        assert!(public("https://nimbus.example.org").is_ok() && public("http://10.0.0.7:8080/").is_ok());
        for wrong in [
            "nimbus",
            "ftp://x",
            "https://a:b@x",
            "https://x/path",
            "https://x/?q",
        ] {
            assert!(public(wrong).is_err(), "{wrong}");
        }
        assert!(bus_address("tls://nimbus.example.org:4222").is_ok());
        for wrong in ["nimbus:4222", "nats://x:4222", "tls://x", "tls://:4222"] {
            assert!(bus_address(wrong).is_err(), "{wrong}");
        }
        assert!(token_id("root@pam!nimbus").is_ok());
        for wrong in ["root!nimbus", "root@pam", "@pam!x", "root@!x", "root@pam!"] {
            assert!(token_id(wrong).is_err(), "{wrong}");
        }
    }
}
