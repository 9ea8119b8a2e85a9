//! What a client needs to know about its cluster.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

/// How the certificate of a PVE node is checked.
#[derive(Clone, Debug, Default)]
pub enum TlsPolicy {
    /// The authorities the operating system trusts.
    #[default]
    System,
    /// Only the authorities in this PEM file, for instance a copy of `/etc/pve/pve-root-ca.pem`.
    CaFile(PathBuf),
    /// Only the certificate whose SHA-256 is this: 64 hexadecimal digits, colons allowed, as the PVE
    /// interface shows it. Names and dates of the certificate are not checked.
    Fingerprint(String),
    /// Nothing is checked. Whoever can answer for the host gets the token.
    Insecure,
}

/// Where the cluster is and how to speak to it.
#[derive(Clone, Debug)]
pub struct ProxmoxConfig {
    /// Address of any node of the cluster, for instance `https://pve1.example.org:8006`. A path
    /// `/api2/json` is added when it is not there.
    pub url: Url,
    /// The token's name, `user@realm!name`.
    pub token_id: String,
    /// The token's value.
    pub token_secret: SecretString,
    /// How the certificate is checked.
    pub tls: TlsPolicy,
    /// Longest time for one request. PVE itself gives a request that one node passes on to another
    /// 30 s, so less than that can abandon work which goes on.
    pub request_timeout: Duration,
    /// First pause between two looks at a task; later ones grow up to 2 s.
    pub task_poll: Duration,
}

impl ProxmoxConfig {
    /// A configuration with the defaults: system trust, 30 s per request, tasks first polled after 100 ms.
    #[must_use]
    pub fn new(url: Url, token_id: impl Into<String>, token_secret: SecretString) -> Self {
        Self {
            url,
            token_id: token_id.into(),
            token_secret,
            tls: TlsPolicy::System,
            request_timeout: Duration::from_secs(30),
            task_poll: Duration::from_millis(100),
        }
    }
}
