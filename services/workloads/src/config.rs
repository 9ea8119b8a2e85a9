//! Settings of workloads.

use std::time::Duration;

use nimbus_config::{Csv, bytes, count, csv, flag, ratio, seconds_or_text};
use nimbus_proto::workloads::{Policy, Profile, Resources};

/// Sandboxes, services and sessions. Flag over environment over file over default.
#[derive(Clone, Debug, clap::Args)]
pub struct WorkloadsConfig {
    /// After how long without a sign of life a host counts as lost: what it ran has failed, and
    /// services are started elsewhere.
    #[arg(id = "host_lost_after", long = "host-lost-after", env = "HOST_LOST_AFTER_SECONDS", value_name = "TIME",
          default_value = "45", value_parser = seconds_or_text)]
    pub host_lost_after: Duration,

    /// How many vCPUs sandboxes may be promised per CPU of a host.
    #[arg(id = "host_cpu_overcommit", long = "host-cpu-overcommit", env = "HOST_CPU_OVERCOMMIT", value_name = "FACTOR",
          default_value = "32", value_parser = ratio)]
    pub cpu_overcommit: f64,

    /// How many bytes of memory sandboxes may be promised per byte of a host. A limit is not a
    /// reservation: most sandboxes use a small part of theirs.
    #[arg(id = "host_memory_overcommit", long = "host-memory-overcommit", env = "HOST_MEMORY_OVERCOMMIT", value_name = "FACTOR",
          default_value = "4", value_parser = ratio)]
    pub memory_overcommit: f64,

    /// vCPUs of a sandbox that names none.
    #[arg(id = "sandbox_vcpus", long = "sandbox-vcpus", env = "SANDBOX_VCPUS", value_name = "COUNT",
          default_value = "1", value_parser = ratio)]
    pub sandbox_vcpus: f64,

    /// Memory of a sandbox that names none.
    #[arg(id = "sandbox_memory", long = "sandbox-memory", env = "SANDBOX_MEMORY", value_name = "SIZE",
          default_value = "512MiB", value_parser = bytes)]
    pub sandbox_memory: u64,

    /// Writable layer of a sandbox that names none.
    #[arg(id = "sandbox_disk", long = "sandbox-disk", env = "SANDBOX_DISK", value_name = "SIZE",
          default_value = "5GiB", value_parser = bytes)]
    pub sandbox_disk: u64,

    /// Kept log of a sandbox that names none.
    #[arg(id = "sandbox_log", long = "sandbox-log", env = "SANDBOX_LOG", value_name = "SIZE",
          default_value = "64MiB", value_parser = bytes)]
    pub sandbox_log: u64,

    /// Processes and threads of a sandbox that names none.
    #[arg(id = "sandbox_pids", long = "sandbox-pids", env = "SANDBOX_PIDS", value_name = "COUNT",
          default_value = "512", value_parser = count)]
    pub sandbox_pids: u32,

    /// vCPUs that the active sandboxes of a tenant may have together, where its own bound says nothing else.
    #[arg(id = "tenant_vcpus", long = "tenant-vcpus", env = "TENANT_VCPUS", value_name = "COUNT",
          default_value = "8", value_parser = ratio)]
    pub tenant_vcpus: f64,

    /// Memory that the active sandboxes of a tenant may have together.
    #[arg(id = "tenant_memory", long = "tenant-memory", env = "TENANT_MEMORY", value_name = "SIZE",
          default_value = "8GiB", value_parser = bytes)]
    pub tenant_memory: u64,

    /// Writable layers that the active sandboxes of a tenant may have together.
    #[arg(id = "tenant_disk", long = "tenant-disk", env = "TENANT_DISK", value_name = "SIZE",
          default_value = "40GiB", value_parser = bytes)]
    pub tenant_disk: u64,

    /// Logs that the active sandboxes of a tenant may keep together.
    #[arg(id = "tenant_log", long = "tenant-log", env = "TENANT_LOG", value_name = "SIZE",
          default_value = "512MiB", value_parser = bytes)]
    pub tenant_log: u64,

    /// Processes and threads that the active sandboxes of a tenant may have together.
    #[arg(id = "tenant_pids", long = "tenant-pids", env = "TENANT_PIDS", value_name = "COUNT",
          default_value = "4096", value_parser = count)]
    pub tenant_pids: u32,

    /// Active sandboxes that a tenant may have.
    #[arg(id = "tenant_sandboxes", long = "tenant-sandboxes", env = "TENANT_SANDBOXES", value_name = "COUNT",
          default_value = "20", value_parser = count)]
    pub tenant_sandboxes: u32,

    /// Open sessions that a tenant may have.
    #[arg(id = "tenant_sessions", long = "tenant-sessions", env = "TENANT_SESSIONS", value_name = "COUNT",
          default_value = "100", value_parser = count)]
    pub tenant_sessions: u32,

    /// What the sandboxes of a tenant may ask for beyond a sealed one, where its own policy says nothing
    /// else: any of resources, ports, egress, mounts.
    #[arg(id = "tenant_policy", long = "tenant-policy", env = "TENANT_POLICY", value_name = "LIST",
          default_value = "", hide_default_value = true, value_parser = policy)]
    pub tenant_policy: Csv,

    /// How long a session lives that names no time.
    #[arg(id = "session_ttl", long = "session-ttl", env = "SESSION_TTL_SECONDS", value_name = "TIME",
          default_value = "15m", value_parser = seconds_or_text)]
    pub session_ttl: Duration,

    /// The longest a session lives; who asks for more gets this.
    #[arg(id = "session_ttl_max", long = "session-ttl-max", env = "SESSION_TTL_MAX_SECONDS", value_name = "TIME",
          default_value = "1h", value_parser = seconds_or_text)]
    pub session_ttl_max: Duration,

    /// How long the record and the logs of a sandbox that has ended are kept; 0 keeps them until they are deleted.
    #[arg(id = "sandbox_retention", long = "sandbox-retention", env = "SANDBOX_RETENTION_SECONDS", value_name = "TIME",
          default_value = "7d", value_parser = seconds_or_text)]
    pub sandbox_retention: Duration,

    /// How often the health of external services is asked for; 0 turns it off.
    #[arg(id = "external_check_interval", long = "external-check-interval", env = "EXTERNAL_CHECK_INTERVAL_SECONDS",
          value_name = "TIME", default_value = "30", value_parser = seconds_or_text)]
    pub external_check_interval: Duration,

    /// Whether external services on this machine's own loopback addresses are asked for their health.
    /// Link-local addresses, where clouds keep credentials, never are.
    #[arg(id = "external_check_loopback", long = "external-check-loopback", env = "EXTERNAL_CHECK_LOOPBACK",
          value_name = "BOOL", default_value = "true", value_parser = flag, action = clap::ArgAction::Set)]
    pub external_check_loopback: bool,

    /// How long a replica is left alone with a launch it has begun before another takes it over.
    #[arg(id = "launch_lease", long = "launch-lease", env = "LAUNCH_LEASE_SECONDS", value_name = "TIME",
          default_value = "15", value_parser = seconds_or_text)]
    pub launch_lease: Duration,
}

fn policy(text: &str) -> Result<Csv, String> {
    let list = csv(text).map_err(|error| error.to_string())?;
    match list
        .0
        .iter()
        .find(|word| !["resources", "ports", "egress", "mounts"].contains(&word.as_str()))
    {
        None => Ok(list),
        Some(word) => Err(format!(
            "expected resources, ports, egress or mounts, not {word:?}"
        )),
    }
}

/// `vcpus` in thousandths.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the value was clamped into the range of the type"
)]
pub(crate) fn milli(vcpus: f64) -> u32 {
    (vcpus * 1000.0).round().clamp(0.0, f64::from(u32::MAX)) as u32
}

impl WorkloadsConfig {
    /// Limits of a sandbox of `profile` that names none.
    #[must_use]
    pub fn sandbox_defaults(&self, profile: Profile) -> Resources {
        let base = Resources {
            cpu_milli: milli(self.sandbox_vcpus),
            memory_bytes: self.sandbox_memory,
            disk_bytes: self.sandbox_disk,
            log_bytes: self.sandbox_log,
            pids: self.sandbox_pids,
        };
        match profile {
            Profile::Worker => base,
            // A browser does not fit into less.
            Profile::Desktop => Resources {
                cpu_milli: base.cpu_milli.max(2000),
                memory_bytes: base.memory_bytes.max(2 << 30),
                ..base
            },
        }
    }

    /// Bounds of a tenant that has none of its own.
    #[must_use]
    pub fn tenant_defaults(&self) -> Resources {
        Resources {
            cpu_milli: milli(self.tenant_vcpus),
            memory_bytes: self.tenant_memory,
            disk_bytes: self.tenant_disk,
            log_bytes: self.tenant_log,
            pids: self.tenant_pids,
        }
    }

    /// Policy of a tenant that has none of its own.
    #[must_use]
    pub fn default_policy(&self) -> Policy {
        let has = |word: &str| self.tenant_policy.0.iter().any(|one| one == word);
        Policy {
            resources: has("resources"),
            ports: has("ports"),
            egress: has("egress"),
            mounts: has("mounts"),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        workloads: WorkloadsConfig,
    }

    fn parse(flags: &[&str]) -> Result<WorkloadsConfig, clap::Error> {
        Line::try_parse_from(std::iter::once("test").chain(flags.iter().copied())).map(|line| line.workloads)
    }

    #[test]
    fn a_tenant_is_sealed_and_bounded_by_default() {
        let config = parse(&[]).unwrap();
        let policy = config.default_policy();
        assert!(!policy.resources && !policy.ports && !policy.egress && !policy.mounts);
        let cap = config.tenant_defaults();
        assert_eq!((cap.cpu_milli, cap.memory_bytes, cap.pids), (8000, 8 << 30, 4096));
        let desktop = config.sandbox_defaults(Profile::Desktop);
        assert_eq!((desktop.cpu_milli, desktop.memory_bytes), (2000, 2 << 30));
        assert_eq!(config.sandbox_defaults(Profile::Worker).memory_bytes, 512 << 20);
    }

    #[test]
    fn a_policy_names_known_fields() {
        let config = parse(&["--tenant-policy", "ports, egress"]).unwrap();
        let policy = config.default_policy();
        assert!(policy.ports && policy.egress && !policy.mounts);
        assert!(parse(&["--tenant-policy", "root"]).is_err());
    }
}
