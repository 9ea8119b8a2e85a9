//! Which host gets a sandbox. Pure.

use std::cmp::Reverse;
use std::time::Duration;

use nimbus_model::{Hostname, Timestamp};
use nimbus_proto::workloads::{Isolation, Profile, Resources};

use super::row::{HostRow, Room};
use crate::config::WorkloadsConfig;
use crate::error::WorkError;

/// What has to be placed.
#[derive(Clone, Debug)]
pub(crate) struct Need<'a> {
    pub(crate) backend: Isolation,
    pub(crate) profile: Profile,
    /// In full form.
    pub(crate) image: &'a str,
    pub(crate) resources: Resources,
    /// The host that its volumes are on, if they are on one.
    pub(crate) pinned: Option<&'a str>,
    /// Hosts that were tried.
    pub(crate) not: &'a [String],
}

/// When.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) now: Timestamp,
    pub(crate) lost_after: Duration,
}

/// The chosen host and what may be given out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) host: Hostname,
    pub(crate) room: Room,
}

/// What a missing image weighs beside memory in use, in thousandths of the host's: a pull is worth
/// avoiding, but a host that has just joined would get nothing before the others are full.
const PULL: u64 = 250;

/// The best host: one with a warm container of the image, else the one that is used least, where the
/// image counts as a quarter of the memory.
pub(crate) fn choose(
    hosts: &mut dyn Iterator<Item = &HostRow>,
    need: &Need<'_>,
    moment: Moment,
    config: &WorkloadsConfig,
) -> Result<Chosen, WorkError> {
    let backend: &'static str = need.backend.into();
    let mut missing: Vec<String> = Vec::new();
    let mut note = |text: String| {
        if !missing.contains(&text) {
            missing.push(text);
        }
    };
    let mut best: Option<(_, Chosen)> = None;
    for row in hosts {
        let Ok(host) = row.name.parse::<Hostname>() else {
            continue;
        };
        if row.lost || moment.now.since(row.seen_at) > moment.lost_after {
            continue;
        }
        if !row.facts.backends.iter().any(|one| one == backend) {
            let reasons: Vec<&String> = row
                .facts
                .missing
                .iter()
                .filter(|line| line.starts_with(backend))
                .collect();
            match reasons.as_slice() {
                [] => note(backend.to_owned()),
                lines => lines.iter().for_each(|line| note((*line).clone())),
            }
            continue;
        }
        if need.pinned.is_some_and(|pinned| pinned != row.name) {
            note(format!(
                "the host of its volumes, {}",
                need.pinned.unwrap_or_default()
            ));
            continue;
        }
        let room = row.room(config);
        let fits = row.used_cpu + u64::from(need.resources.cpu_milli) <= room.cpu
            && row.used_memory + need.resources.memory_bytes <= room.memory;
        if !fits {
            note("room".to_owned());
            continue;
        }
        if need.not.contains(&row.name) {
            note("a host that answers".to_owned());
            continue;
        }
        let warm = row
            .warm
            .iter()
            .any(|(image, waiting)| image == need.image && *waiting > 0);
        let image = row.images.iter().any(|image| image == need.image);
        // The desktop may also be in the image, so a host without the helper is only the second choice.
        let desktop =
            need.profile == Profile::Desktop && row.facts.backends.iter().any(|one| one == "desktop");
        let used = row.used_memory.saturating_mul(1000) / room.memory.max(1);
        let score = (
            desktop,
            warm,
            Reverse(used + if image { 0 } else { PULL }),
            Reverse(!image),
            Reverse(row.sandboxes),
            Reverse(row.name.clone()),
        );
        if best.as_ref().is_none_or(|(than, _)| score > *than) {
            best = Some((score, Chosen { host, room }));
        }
    }
    match best {
        Some((_, chosen)) => Ok(chosen),
        None if missing.is_empty() => Err(WorkError::NoBackend {
            backend,
            missing: vec!["a host".to_owned()],
        }),
        None => Err(WorkError::NoBackend { backend, missing }),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use nimbus_bus::Method;
    use nimbus_proto::workloads::Beat;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        workloads: WorkloadsConfig,
    }

    fn host(name: &str) -> HostRow {
        let beat = Beat::sample_request();
        HostRow {
            name: name.into(),
            boot: "b".into(),
            facts: beat.facts,
            images: vec![],
            warm: vec![],
            seen_at: Timestamp::from_micros(0),
            lost: false,
            used_cpu: 0,
            used_memory: 0,
            used_disk: 0,
            sandboxes: 0,
        }
    }

    fn need() -> Need<'static> {
        Need {
            backend: Isolation::Container,
            profile: Profile::Worker,
            image: "docker.io/library/busybox:latest",
            resources: Resources {
                cpu_milli: 1000,
                memory_bytes: 512 << 20,
                disk_bytes: 0,
                log_bytes: 0,
                pids: 1,
            },
            pinned: None,
            not: &[],
        }
    }

    fn pick(hosts: &[HostRow], need: &Need<'_>) -> Result<String, Vec<String>> {
        let config = Line::parse_from(["test"]).workloads;
        let moment = Moment {
            now: Timestamp::from_micros(1_000_000),
            lost_after: Duration::from_secs(45),
        };
        match choose(&mut hosts.iter(), need, moment, &config) {
            Ok(chosen) => Ok(chosen.host.to_string()),
            Err(WorkError::NoBackend { missing, .. }) => Err(missing),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn warm_before_least_used_and_an_image_is_worth_a_quarter() {
        let image = need().image.to_owned();
        let mut hosts = vec![host("a"), host("b"), host("c")];
        hosts[0].used_memory = 1 << 30;
        assert_eq!(pick(&hosts, &need()).unwrap(), "b");
        hosts[2].images = vec![image.clone()];
        hosts[2].used_memory = 2 << 30;
        assert_eq!(pick(&hosts, &need()).unwrap(), "c");
        hosts[0].warm = vec![(image.clone(), 1)];
        assert_eq!(pick(&hosts, &need()).unwrap(), "a");
        hosts[0].warm = vec![(image, 0)];
        assert_eq!(pick(&hosts, &need()).unwrap(), "c");
        let room = hosts[2].room(&Line::parse_from(["test"]).workloads).memory;
        hosts[2].used_memory = room / 4;
        assert_eq!(pick(&hosts, &need()).unwrap(), "c");
        hosts[2].used_memory = room / 2;
        assert_eq!(pick(&hosts, &need()).unwrap(), "b");
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(pick(&[], &need()).unwrap_err(), ["a host"]);
        let mut full = host("a");
        full.used_memory = 64 << 30;
        assert_eq!(pick(std::slice::from_ref(&full), &need()).unwrap_err(), ["room"]);
        let krun = Need {
            backend: Isolation::Krun,
            ..need()
        };
        assert_eq!(pick(&[full], &krun).unwrap_err(), ["krun: /dev/kvm is missing"]);
        let mut lost = host("a");
        lost.lost = true;
        assert_eq!(pick(&[lost], &need()).unwrap_err(), ["a host"]);
    }

    #[test]
    fn volumes_hold_a_sandbox_at_their_host() {
        let hosts = [host("a"), host("b")];
        let pinned = |at| Need {
            pinned: Some(at),
            ..need()
        };
        assert_eq!(pick(&hosts, &pinned("b")).unwrap(), "b");
        assert!(pick(&hosts, &pinned("gone")).unwrap_err()[0].contains("gone"));
        let not = ["b".to_owned()];
        let tried = Need { not: &not, ..need() };
        assert_eq!(pick(&hosts, &tried).unwrap(), "a");
    }
}
