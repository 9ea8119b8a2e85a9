//! The deployment itself: instances, streams, leases; and hosts that join it.

use std::collections::BTreeMap;

use nimbus_bus::Survey;
use nimbus_model::Hostname;
use nimbus_proto::auth::{JoinToken, MintedCredential};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::At;

/// Everybody on the bus, and how the bus stands.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct DeploymentView {
    /// Version of the gateway that answers.
    pub version: &'static str,
    /// Whether every service has an instance and all of them run the same version.
    pub healthy: bool,
    /// What is wrong, in sentences.
    pub problems: Vec<String>,
    /// Instances, by service.
    pub instances: Vec<InstanceView>,
    /// Streams of the bus.
    pub streams: Vec<StreamView>,
    /// Leases that are held: who does what only one may do.
    pub leases: Vec<LeaseView>,
}

/// One instance of a service.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct InstanceView {
    /// Its service, as it is called on the bus.
    pub service: String,
    /// Its id, new with each start.
    pub id: String,
    /// Its version.
    pub version: String,
    /// Host it runs on.
    pub host: Option<String>,
    /// Process id there.
    pub pid: Option<u32>,
    /// When it started.
    pub started_at: String,
    /// Requests it answered since.
    pub requests: u64,
    /// How many of them with an error.
    pub errors: u64,
}

/// One stream.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct StreamView {
    /// Its name.
    pub name: String,
    /// Messages in it.
    pub messages: u64,
    /// Bytes in it.
    pub bytes: u64,
    /// Copies it shall have.
    pub replicas: u64,
    /// NATS server that leads it; none where there is one server only.
    pub leader: Option<String>,
    /// NATS servers whose copy is behind or away.
    pub behind: Vec<String>,
    /// Messages that its slowest consumer has not got yet.
    pub lag: u64,
    /// Messages that were given out and not acknowledged yet.
    pub unacknowledged: u64,
}

/// One lease.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct LeaseView {
    /// What it is for.
    pub name: String,
    /// Name on the bus of who holds it.
    pub holder: String,
    /// When it was taken or renewed.
    pub renewed_at: Option<At>,
}

/// Services without which requests fail.
const NEEDED: [&str; 5] = ["auth", "ippool", "provisioner", "workloads", "gpu"];

impl DeploymentView {
    pub(crate) fn of(survey: Survey) -> Self {
        let problems = problems(&survey);
        Self {
            version: env!("CARGO_PKG_VERSION"),
            healthy: problems.is_empty(),
            problems,
            instances: survey
                .instances
                .into_iter()
                .map(|one| InstanceView {
                    service: one.service,
                    id: one.id,
                    version: one.version,
                    host: one.host,
                    pid: one.pid,
                    started_at: one.started,
                    requests: one.requests,
                    errors: one.errors,
                })
                .collect(),
            streams: survey
                .streams
                .into_iter()
                .map(|one| StreamView {
                    lag: one.consumers.iter().map(|c| c.pending).max().unwrap_or_default(),
                    unacknowledged: one.consumers.iter().map(|c| c.unacknowledged).sum(),
                    name: one.name,
                    messages: one.messages,
                    bytes: one.bytes,
                    replicas: one.replicas,
                    leader: one.leader,
                    behind: one.behind,
                })
                .collect(),
            leases: survey
                .leases
                .into_iter()
                .map(|one| LeaseView {
                    name: one.name,
                    holder: one.holder,
                    renewed_at: one.renewed_at.map(Into::into),
                })
                .collect(),
        }
    }
}

fn problems(survey: &Survey) -> Vec<String> {
    let mut problems = Vec::new();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for one in &survey.instances {
        versions
            .entry(one.version.as_str())
            .or_default()
            .push(one.service.as_str());
    }
    for service in NEEDED {
        if !survey.instances.iter().any(|one| one.service == service) {
            problems.push(format!("no instance of {service} answers"));
        }
    }
    if versions.len() > 1 {
        let told: Vec<String> = versions
            .iter_mut()
            .map(|(version, services)| {
                services.sort_unstable();
                services.dedup();
                format!("{version} ({})", services.join(", "))
            })
            .collect();
        problems.push(format!("different versions run: {}", told.join("; ")));
    }
    for stream in &survey.streams {
        if stream.replicas > 1 && stream.leader.is_none() {
            problems.push(format!("the stream {} has no leader", stream.name));
        }
        if !stream.behind.is_empty() {
            problems.push(format!(
                "copies of the stream {} are behind or away: {}",
                stream.name,
                stream.behind.join(", ")
            ));
        }
    }
    problems
}

/// Asks for a token with which a host can join.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JoinTokenBody {
    /// The only host that may use it; any when absent.
    #[serde(default)]
    #[schema(value_type = Option<String>, examples("host-b"))]
    pub host: Option<Hostname>,
}

/// A token with which a host can join.
#[derive(Clone, Serialize, ToSchema)]
pub(crate) struct JoinTokenView {
    /// Good for one host.
    #[schema(examples("nimbus_jt_4f…"))]
    pub token: String,
    /// How long it is good.
    pub expires_in_seconds: u32,
}

impl From<JoinToken> for JoinTokenView {
    fn from(made: JoinToken) -> Self {
        Self {
            token: made.token.reveal().to_owned(),
            expires_in_seconds: made.expires_in_s,
        }
    }
}

/// A host that joins.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JoinBody {
    /// Its name, one DNS label.
    #[schema(value_type = String, examples("host-b"))]
    pub host: Hostname,
}

/// How a host reaches the bus.
#[derive(Clone, Serialize, ToSchema)]
pub(crate) struct JoinedView {
    /// Address of the bus.
    #[schema(examples("tls://nimbus.example.org:4222"))]
    pub bus_url: String,
    /// Certificate authority of the bus, PEM; none when everybody trusts it.
    pub bus_ca_pem: Option<String>,
    /// Text of a NATS credentials file. Whoever has it is this host.
    pub bus_credentials: String,
}

impl From<MintedCredential> for JoinedView {
    fn from(minted: MintedCredential) -> Self {
        Self {
            bus_url: minted.url,
            bus_ca_pem: minted.ca_pem,
            bus_credentials: minted.credentials.reveal().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use nimbus_bus::{Instance, StreamReport};

    use super::*;

    fn instance(service: &str, version: &str) -> Instance {
        Instance {
            service: service.into(),
            id: "1".into(),
            version: version.into(),
            host: None,
            pid: None,
            started: String::new(),
            requests: 0,
            errors: 0,
        }
    }

    #[test]
    fn what_is_missing_or_different_is_said() {
        let all = Survey {
            instances: NEEDED.map(|service| instance(service, "1.0.0")).to_vec(),
            ..Survey::default()
        };
        assert!(DeploymentView::of(all.clone()).healthy);
        let mut mixed = all.clone();
        mixed.instances.retain(|one| one.service != "auth");
        mixed.instances.push(instance("ippool", "1.0.1"));
        mixed.streams.push(StreamReport {
            name: "EVENTS".into(),
            messages: 1,
            bytes: 1,
            replicas: 3,
            leader: None,
            behind: vec!["n2".into()],
            consumers: vec![],
        });
        assert_eq!(
            DeploymentView::of(mixed).problems,
            [
                "no instance of auth answers",
                "different versions run: 1.0.0 (gpu, ippool, provisioner, workloads); 1.0.1 (ippool)",
                "the stream EVENTS has no leader",
                "copies of the stream EVENTS are behind or away: n2",
            ]
        );
    }
}
