//! Which directives there are, where they belong, and since when Podman knows them.
//!
//! Everything that is written goes through this table, and the tests read every output back against it. The
//! versions are those of podman-systemd.unit(5) and of Podman's release notes; the table was compared with the
//! generators of 5.4 and 5.8, which refuse a key they do not know.

use std::fmt;
use std::str::FromStr;

/// A version of Podman.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Major.
    pub major: u16,
    /// Minor.
    pub minor: u16,
    /// Patch level, if one was said.
    pub patch: Option<u16>,
}

impl Version {
    /// A release.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self {
            major,
            minor,
            patch: None,
        }
    }

    /// Whether this version has what came with `since`.
    pub fn has(self, since: Self) -> bool {
        (self.major, self.minor) >= (since.major, since.minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        self.patch.map_or(Ok(()), |patch| write!(f, ".{patch}"))
    }
}

impl FromStr for Version {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected a version such as 5.4 or 5.4.2";
        let mut parts = text.split('.').map(str::parse);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor)), None, None) => Ok(Self::new(major, minor)),
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None) => Ok(Self {
                patch: Some(patch),
                ..Self::new(major, minor)
            }),
            _ => Err(EXPECTED),
        }
    }
}

/// A section of a unit that this program writes. There are no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Section {
    /// `[Unit]`, the service manager's.
    Unit,
    /// `[Container]`.
    Container,
    /// `[Pod]`.
    Pod,
    /// `[Kube]`.
    Kube,
    /// `[Volume]`.
    Volume,
    /// `[Network]`.
    Network,
    /// `[Service]`, the service manager's.
    Service,
    /// `[Install]`, the service manager's.
    Install,
}

impl Section {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unit => "Unit",
            Self::Container => "Container",
            Self::Pod => "Pod",
            Self::Kube => "Kube",
            Self::Volume => "Volume",
            Self::Network => "Network",
            Self::Service => "Service",
            Self::Install => "Install",
        }
    }
}

/// How a value is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// By the service manager, which replaces `%x`.
    Manager,
    /// By the service manager, which replaces nothing in it: `CPUQuota=50%`.
    Exact,
    /// As words, which may be quoted, and then by the service manager as part of a command.
    Words,
    /// As it stands, and then by the service manager as part of a command.
    Line,
}

/// A directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directive {
    /// The section it belongs to.
    pub section: Section,
    /// Its name.
    pub key: &'static str,
    /// The first version of Podman that knows it.
    pub since: Version,
    /// How its value is read.
    pub kind: Kind,
}

const fn row(section: Section, key: &'static str, since: (u16, u16), kind: Kind) -> Directive {
    Directive {
        section,
        key,
        since: Version::new(since.0, since.1),
        kind,
    }
}

use Kind::{Exact, Line, Manager, Words};
use Section::{Container, Install, Kube, Network, Pod, Service, Unit, Volume};

/// The release that brought Quadlet.
pub const QUADLET: Version = Version::new(4, 4);
/// The release that brought `.pod` units.
pub const PODS: Version = Version::new(5, 0);
/// The release that brought `Notify=healthy`.
pub const HEALTHY: Version = Version::new(5, 0);

/// All directives that are ever written.
pub const DIRECTIVES: &[Directive] = &[
    row(Unit, "Description", (4, 4), Manager),
    row(Unit, "Wants", (4, 4), Manager),
    row(Unit, "Requires", (4, 4), Manager),
    row(Unit, "After", (4, 4), Manager),
    row(Unit, "StartLimitBurst", (4, 4), Manager),
    row(Service, "Type", (4, 5), Manager),
    row(Service, "RemainAfterExit", (4, 5), Manager),
    row(Service, "Restart", (4, 4), Manager),
    row(Service, "TimeoutStartSec", (4, 4), Manager),
    row(Service, "TimeoutStopSec", (4, 4), Manager),
    row(Service, "CPUQuota", (4, 4), Exact),
    row(Service, "MemoryMax", (4, 4), Manager),
    row(Install, "WantedBy", (4, 4), Manager),
    row(Container, "Annotation", (4, 4), Words),
    row(Container, "ContainerName", (4, 4), Line),
    row(Container, "DropCapability", (4, 4), Words),
    row(Container, "Environment", (4, 4), Words),
    row(Container, "Exec", (4, 4), Words),
    row(Container, "Group", (4, 4), Line),
    row(Container, "Image", (4, 4), Line),
    row(Container, "Label", (4, 4), Words),
    row(Container, "Network", (4, 4), Line),
    row(Container, "NoNewPrivileges", (4, 4), Line),
    row(Container, "PublishPort", (4, 4), Line),
    row(Container, "ReadOnly", (4, 4), Line),
    row(Container, "RunInit", (4, 4), Line),
    row(Container, "User", (4, 4), Line),
    row(Container, "Volume", (4, 4), Line),
    row(Container, "HealthCmd", (4, 5), Line),
    row(Container, "HealthInterval", (4, 5), Line),
    row(Container, "HealthRetries", (4, 5), Line),
    row(Container, "HealthStartPeriod", (4, 5), Line),
    row(Container, "HealthTimeout", (4, 5), Line),
    row(Container, "LogDriver", (4, 5), Line),
    row(Container, "Mount", (4, 5), Line),
    row(Container, "Secret", (4, 5), Words),
    row(Container, "Tmpfs", (4, 5), Line),
    row(Container, "HostName", (4, 6), Line),
    row(Container, "Pull", (4, 6), Line),
    row(Container, "Sysctl", (4, 6), Words),
    row(Container, "WorkingDir", (4, 6), Line),
    row(Container, "DNS", (4, 7), Line),
    row(Container, "DNSOption", (4, 7), Line),
    row(Container, "DNSSearch", (4, 7), Line),
    row(Container, "PidsLimit", (4, 7), Line),
    row(Container, "ShmSize", (4, 7), Line),
    row(Container, "Ulimit", (4, 7), Line),
    row(Container, "Entrypoint", (5, 0), Line),
    row(Container, "Notify", (5, 0), Line),
    row(Container, "Pod", (5, 0), Line),
    row(Container, "StopTimeout", (5, 0), Line),
    row(Container, "GroupAdd", (5, 1), Line),
    row(Container, "LogOpt", (5, 2), Words),
    row(Container, "StopSignal", (5, 2), Line),
    row(Container, "AddHost", (5, 3), Line),
    row(Container, "StartWithPod", (5, 3), Line),
    row(Container, "Memory", (5, 5), Line),
    row(Pod, "Network", (5, 0), Line),
    row(Pod, "PodName", (5, 0), Line),
    row(Pod, "PublishPort", (5, 0), Line),
    row(Pod, "AddHost", (5, 3), Line),
    row(Pod, "DNS", (5, 3), Line),
    row(Pod, "ShmSize", (5, 4), Line),
    row(Kube, "Yaml", (4, 4), Line),
    row(Kube, "SetWorkingDirectory", (4, 7), Line),
    row(Volume, "Device", (4, 4), Line),
    row(Volume, "Label", (4, 4), Words),
    row(Volume, "Options", (4, 4), Line),
    row(Volume, "Type", (4, 4), Line),
    row(Volume, "VolumeName", (4, 7), Line),
    row(Volume, "Driver", (4, 8), Line),
    row(Volume, "Image", (4, 8), Line),
    row(Network, "Driver", (4, 4), Line),
    row(Network, "Gateway", (4, 4), Line),
    row(Network, "IPRange", (4, 4), Line),
    row(Network, "IPv6", (4, 4), Line),
    row(Network, "Internal", (4, 4), Line),
    row(Network, "Label", (4, 4), Words),
    row(Network, "Options", (4, 4), Words),
    row(Network, "Subnet", (4, 4), Line),
    row(Network, "NetworkName", (4, 7), Line),
];

/// A directive by its place.
pub fn find(section: Section, key: &str) -> Option<&'static Directive> {
    DIRECTIVES
        .iter()
        .find(|row| row.section == section && row.key == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directive_is_there_once_and_none_is_forbidden() {
        for (index, row) in DIRECTIVES.iter().enumerate() {
            let again = DIRECTIVES
                .iter()
                .skip(index + 1)
                .any(|other| other.section == row.section && other.key == row.key);
            assert!(!again, "{} is there twice", row.key);
        }
        for key in [
            "PodmanArgs",
            "GlobalArgs",
            "AddCapability",
            "AddDevice",
            "SecurityLabelDisable",
        ] {
            assert!(
                !DIRECTIVES.iter().any(|row| row.key == key),
                "{key} is never written"
            );
        }
    }

    #[test]
    fn versions() {
        let version: Version = "5.4.2".parse().unwrap();
        assert!(version.has(Version::new(5, 4)) && !version.has(Version::new(5, 5)));
        assert_eq!(version.to_string(), "5.4.2");
        assert_eq!("4.9".parse::<Version>().unwrap().to_string(), "4.9");
        for text in ["5", "5.", "5.x", "5.4.2.1", "v5.4", ""] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }
}
