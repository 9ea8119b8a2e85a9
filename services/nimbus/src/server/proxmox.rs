//! The cluster's client, or the list of what is missing for it.

use nimbus_proto::node::MissingSetting;
use nimbus_proxmox::{Client, ProxmoxConfig, TlsPolicy};

use super::args::{ProxmoxArgs, ServerArgs};
use crate::problem::{Outcome, Problem};

/// The cluster as the settings describe it.
#[derive(Clone)]
pub(crate) struct Cluster {
    /// The client; none while anything is missing for it.
    pub(crate) client: Option<Client>,
    /// What is missing before machines can be made.
    pub(crate) missing: Vec<MissingSetting>,
}

/// Makes the client. It connects when it is first used, so that a dead cluster delays nothing.
pub(crate) fn cluster(args: &ServerArgs) -> Outcome<Cluster> {
    let proxmox = &args.proxmox;
    let client = match (
        &proxmox.proxmox_host,
        &proxmox.proxmox_token_id,
        &proxmox.proxmox_token_secret,
    ) {
        (Some(url), Some(id), Some(secret)) => {
            let mut config = ProxmoxConfig::new(url.clone(), id.clone(), secret.clone());
            config.tls = tls(proxmox);
            config.request_timeout = proxmox.pve_request_timeout;
            let client = Client::new(config).map_err(|error| {
                Problem::usage("the settings of the Proxmox cluster cannot be used").because(&error)
            })?;
            Some(client)
        }
        _ => None,
    };
    Ok(Cluster {
        client,
        missing: missing(args),
    })
}

fn tls(args: &ProxmoxArgs) -> TlsPolicy {
    match (&args.proxmox_ca_file, &args.proxmox_fingerprint) {
        _ if args.proxmox_insecure => TlsPolicy::Insecure,
        (Some(path), _) => TlsPolicy::CaFile(path.clone().into()),
        (None, Some(fingerprint)) => TlsPolicy::Fingerprint(fingerprint.clone()),
        (None, None) => TlsPolicy::System,
    }
}

fn missing(args: &ServerArgs) -> Vec<MissingSetting> {
    let proxmox = &args.proxmox;
    let pool = args.ippool.missing();
    let settings = [
        (
            "PROXMOX_HOST",
            proxmox.proxmox_host.is_none(),
            "address of a node, such as https://pve1.example.org:8006",
        ),
        (
            "PROXMOX_TOKEN_ID",
            proxmox.proxmox_token_id.is_none(),
            "name of an API token, user@realm!name",
        ),
        (
            "PROXMOX_TOKEN_SECRET",
            proxmox.proxmox_token_secret.is_none(),
            "value of that token",
        ),
        (
            "IP_POOL_START",
            pool.contains(&"IP_POOL_START"),
            "first address that machines may get, such as 10.77.0.50",
        ),
        (
            "IP_POOL_END",
            pool.contains(&"IP_POOL_END"),
            "last address that machines may get, such as 10.77.0.99",
        ),
        (
            "GATEWAY_IP",
            pool.contains(&"GATEWAY_IP"),
            "gateway of the machines' network, such as 10.77.0.1",
        ),
    ];
    settings
        .into_iter()
        .filter(|(_, is_missing, _)| *is_missing)
        .map(|(setting, _, expected)| MissingSetting {
            setting: setting.to_owned(),
            expected: expected.to_owned(),
        })
        .collect()
}
