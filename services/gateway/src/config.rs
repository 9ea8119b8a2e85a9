//! Settings of the edge. Where it listens is the binary's affair: the port opens before anything else.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

/// The HTTP edge. Flag over environment over file over default.
#[derive(Clone, Debug, clap::Args)]
pub struct GatewayConfig {
    /// Addresses or networks, separated by commas, of the proxies whose X-Forwarded-For and X-Forwarded-Proto are believed
    #[arg(id = "gateway_trusted_proxies", long = "trusted-proxies", env = "TRUSTED_PROXIES", value_delimiter = ',', value_parser = network)]
    pub trusted_proxies: Vec<IpNet>,
    /// PEM file with the certificate chain; with it the server speaks TLS
    #[arg(
        id = "gateway_tls_cert",
        long = "tls-cert",
        env = "TLS_CERT_FILE",
        requires = "gateway_tls_key"
    )]
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the private key of the certificate
    #[arg(
        id = "gateway_tls_key",
        long = "tls-key",
        env = "TLS_KEY_FILE",
        requires = "gateway_tls_cert"
    )]
    pub tls_key: Option<PathBuf>,
    /// API requests a second from one address without a known credential; 0 for no limit
    #[arg(
        id = "gateway_rate_address",
        long = "rate-limit-address",
        env = "RATE_LIMIT_ADDRESS_PER_SECOND",
        default_value_t = 50
    )]
    pub rate_address: u32,
    /// API requests that such an address may save up
    #[arg(
        id = "gateway_burst_address",
        long = "rate-burst-address",
        env = "RATE_LIMIT_ADDRESS_BURST",
        default_value_t = 200
    )]
    pub burst_address: u32,
    /// API requests a second of one signed-in user; 0 for no limit
    #[arg(
        id = "gateway_rate_user",
        long = "rate-limit-user",
        env = "RATE_LIMIT_USER_PER_SECOND",
        default_value_t = 200
    )]
    pub rate_user: u32,
    /// API requests that a signed-in user may save up
    #[arg(
        id = "gateway_burst_user",
        long = "rate-burst-user",
        env = "RATE_LIMIT_USER_BURST",
        default_value_t = 400
    )]
    pub burst_user: u32,
    /// Open event streams of one user
    #[arg(
        id = "gateway_streams_user",
        long = "event-streams-per-user",
        env = "EVENT_STREAMS_PER_USER",
        default_value_t = 32
    )]
    pub streams_per_user: u32,
    /// Open connections of all clients
    #[arg(
        id = "gateway_connections",
        long = "max-connections",
        env = "MAX_CONNECTIONS",
        default_value_t = 4096
    )]
    pub max_connections: u32,
    /// Address of this server for others; the whole server has one setting for it
    #[arg(skip)]
    pub public_url: Option<Url>,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            trusted_proxies: Vec::new(),
            tls_cert: None,
            tls_key: None,
            rate_address: 50,
            burst_address: 200,
            rate_user: 200,
            burst_user: 400,
            streams_per_user: 32,
            max_connections: 4096,
            public_url: None,
        }
    }
}

impl GatewayConfig {
    /// Whether this address is one of our own proxies.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted_proxies
            .iter()
            .any(|network| network.contains(&address))
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| "expected an address such as 10.0.0.2 or a network such as 10.0.0.0/24".to_owned())
}

/// Every time limit of the edge.
pub(crate) mod limits {
    use super::Duration;

    /// From the start of a connection or the end of an answer to the last header of a request.
    pub(crate) const HEADER_READ: Duration = Duration::from_secs(10);
    /// The TLS handshake.
    pub(crate) const HANDSHAKE: Duration = Duration::from_secs(10);
    /// From the first to the last byte of a body.
    pub(crate) const BODY_READ: Duration = Duration::from_secs(30);
    /// A request that does not wait for an operation; the longest bus method has 60 s.
    pub(crate) const REQUEST: Duration = Duration::from_secs(75);
    /// A request that waits for an operation.
    pub(crate) const OPERATION: Duration = Duration::from_secs(30 * 60);
    /// Longest time without asking how an operation is, should its events be lost.
    pub(crate) const OPERATION_POLL: Duration = Duration::from_secs(10);
    /// Between two signs of life on an event stream.
    pub(crate) const HEARTBEAT: Duration = Duration::from_secs(15);
    /// From the stop signal until open connections are cut.
    pub(crate) const DRAIN: Duration = Duration::from_secs(10);
    /// For telling what was used of models after the last connection has ended.
    pub(crate) const LAST_WORDS: Duration = Duration::from_secs(2);
    /// An access token is exchanged for a new one this long before it ends.
    pub(crate) const TOKEN_MARGIN: Duration = Duration::from_secs(30);
    /// How old an answer of /ready or /health may be.
    pub(crate) const READY_AGE: Duration = Duration::from_secs(1);
    /// How long a service may take to say that it is there.
    pub(crate) const PROBE: Duration = Duration::from_millis(1500);
    /// How long the provisioner may take, which asks Proxmox for up to three seconds.
    pub(crate) const CLUSTER_PROBE: Duration = Duration::from_millis(3500);
    /// How long /health waits for what the services say: less than the second a proxy gives it.
    pub(crate) const HEALTH_WAIT: Duration = Duration::from_millis(500);
    /// Silence after which TCP asks whether the other side is still there.
    pub(crate) const TCP_KEEPALIVE: Duration = Duration::from_secs(30);
    /// The largest body.
    pub(crate) const BODY_BYTES: usize = 1024 * 1024;
    /// All names and values of the headers together.
    pub(crate) const HEADER_BYTES: usize = 16 * 1024;
    /// What is read of a request's head before it is refused unparsed.
    pub(crate) const HEAD_BUFFER: usize = 64 * 1024;
    /// Requests at a time on one HTTP/2 connection.
    pub(crate) const STREAMS: u32 = 256;
    /// All names and values of the headers of an HTTP/2 request, before they are looked at.
    pub(crate) const HEADER_LIST: u32 = 64 * 1024;
    /// Headers of one request.
    pub(crate) const HEADER_COUNT: usize = 100;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_addresses_or_networks() {
        let config = GatewayConfig {
            trusted_proxies: vec![network("10.0.0.2").unwrap(), network("fd00::/8").unwrap()],
            ..GatewayConfig::default()
        };
        assert!(config.trusts("10.0.0.2".parse().unwrap()));
        assert!(config.trusts("::ffff:10.0.0.2".parse().unwrap()));
        assert!(config.trusts("fd00::1".parse().unwrap()));
        assert!(!config.trusts("10.0.0.3".parse().unwrap()));
        assert!(network("proxy.example").unwrap_err().contains("expected"));
    }
}
