//! From what the engine says to our words.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bollard::models::{
    ContainerInspectResponse, ContainerStatsResponse, ContainerSummary, ContainerSummaryStateEnum,
    HealthConfig, ImageInspect, ImageSummary,
};
use nimbus_model::{Digest, ImageRef, Timestamp};

use crate::{
    ContainerEntry, ContainerId, ContainerState, Healthcheck, Image, ImageConfig, Labels, PresentImage, Stats,
};

/// An id or digest, with or without the `sha256:` that Podman leaves out in places.
pub(super) fn digest(text: &str) -> Option<Digest> {
    text.parse().or_else(|_| format!("sha256:{text}").parse()).ok()
}

/// A time; `None` for the zero time that means "never".
pub(super) fn time(text: Option<&str>) -> Option<Timestamp> {
    text?.parse::<Timestamp>().ok().filter(|at| at.micros() > 0)
}

pub(super) fn labels(map: Option<HashMap<String, String>>) -> Labels {
    map.unwrap_or_default().into_iter().collect()
}

/// The image, as one that was asked for by `reference`; `None` when the engine's answer has no id.
pub(super) fn image(reference: &ImageRef, found: ImageInspect) -> Option<Image> {
    let id = digest(found.id.as_deref()?)?;
    let known = registry_digests(found.repo_digests.unwrap_or_default(), Some(reference));
    let digest = reference
        .digest()
        .cloned()
        .or_else(|| known.into_iter().next())
        .unwrap_or_else(|| id.clone());
    let config = found.config.unwrap_or_default();
    Some(Image {
        reference: reference.clone(),
        digest,
        id,
        size: unsigned(found.size),
        config: ImageConfig {
            entrypoint: config.entrypoint.unwrap_or_default(),
            cmd: config.cmd.unwrap_or_default(),
            env: config.env.unwrap_or_default(),
            workdir: config.working_dir.unwrap_or_default(),
            user: config.user.unwrap_or_default(),
            exposed_ports: config.exposed_ports.unwrap_or_default(),
            labels: labels(config.labels),
            healthcheck: config.healthcheck.and_then(healthcheck),
            // An image may carry any text here; what is no signal is as good as none.
            stop_signal: config.stop_signal.and_then(|signal| signal.parse().ok()),
            volumes: config.volumes.unwrap_or_default(),
        },
    })
}

/// Digests of `repo@sha256:…` texts; with `of`, only those of its repository.
fn registry_digests(texts: Vec<String>, of: Option<&ImageRef>) -> Vec<Digest> {
    texts
        .iter()
        .filter_map(|text| text.parse::<ImageRef>().ok())
        .filter(|found| of.is_none_or(|wanted| found.same_name(wanted)))
        .filter_map(|found| found.digest().cloned())
        .collect()
}

fn healthcheck(config: HealthConfig) -> Option<Healthcheck> {
    let test = config.test.unwrap_or_default();
    let argv = match test.split_first() {
        Some((kind, rest)) if kind == "CMD" && !rest.is_empty() => rest.to_vec(),
        Some((kind, rest)) if kind == "CMD-SHELL" && !rest.is_empty() => {
            let mut argv = vec!["/bin/sh".to_owned(), "-c".to_owned()];
            argv.extend_from_slice(rest);
            argv
        }
        _ => return None,
    };
    // Nanoseconds; 0 means "the default".
    let span = |nanos: Option<i64>| {
        nanos
            .and_then(|n| u64::try_from(n).ok())
            .filter(|n| *n > 0)
            .map(Duration::from_nanos)
    };
    Some(Healthcheck {
        argv,
        interval: span(config.interval),
        timeout: span(config.timeout),
        retries: config
            .retries
            .and_then(|n| u32::try_from(n).ok())
            .filter(|n| *n > 0),
        start_period: span(config.start_period),
    })
}

pub(super) fn present(found: ImageSummary) -> Option<PresentImage> {
    let references: Vec<ImageRef> = found
        .repo_tags
        .iter()
        .chain(&found.repo_digests)
        .filter_map(|text| text.parse().ok())
        .collect();
    Some(PresentImage {
        id: digest(&found.id)?,
        digests: registry_digests(found.repo_digests, None),
        references,
        size: unsigned(Some(found.size)),
    })
}

pub(super) fn state(asked: &ContainerId, found: ContainerInspectResponse) -> ContainerState {
    let state = found.state.unwrap_or_default();
    let running = state.running.unwrap_or(false);
    let finished_at = time(state.finished_at.as_deref());
    ContainerState {
        id: found.id.map_or_else(|| asked.clone(), ContainerId::new),
        name: bare_name(found.name.as_deref().unwrap_or_default()),
        labels: labels(found.config.and_then(|config| config.labels)),
        image: found.image.as_deref().and_then(digest),
        running,
        pid: state
            .pid
            .and_then(|pid| u32::try_from(pid).ok())
            .filter(|pid| running && *pid > 0),
        exit_code: state.exit_code.filter(|_| {
            !running && (finished_at.is_some() || state.error.as_deref().is_some_and(|e| !e.is_empty()))
        }),
        oom_killed: state.oom_killed.unwrap_or(false),
        started_at: time(state.started_at.as_deref()),
        finished_at,
        error: state.error.filter(|error| !error.is_empty()),
    }
}

pub(super) fn entry(found: ContainerSummary) -> Option<ContainerEntry> {
    Some(ContainerEntry {
        id: ContainerId::new(found.id?),
        name: bare_name(found.names.unwrap_or_default().first().map_or("", String::as_str)),
        labels: labels(found.labels),
        running: matches!(
            found.state,
            Some(
                ContainerSummaryStateEnum::RUNNING
                    | ContainerSummaryStateEnum::PAUSED
                    | ContainerSummaryStateEnum::RESTARTING
            )
        ),
        created_at: found
            .created
            .map(|seconds| Timestamp::from_micros(seconds.saturating_mul(1_000_000))),
    })
}

/// Docker writes names as paths.
fn bare_name(name: &str) -> String {
    name.trim_start_matches('/').to_owned()
}

/// `None` when the container does not run.
pub(super) fn stats(found: ContainerStatsResponse) -> Option<Stats> {
    let memory = found.memory_stats?;
    let usage = memory.usage.filter(|bytes| *bytes > 0)?;
    let details = memory.stats.unwrap_or_default();
    // Page cache that is given back at once: cgroup 2 and cgroup 1 have different names for it.
    let cache = details
        .get("inactive_file")
        .or_else(|| details.get("total_inactive_file"))
        .copied()
        .unwrap_or(0);
    Some(Stats {
        memory_bytes: usage.saturating_sub(cache),
        memory_limit_bytes: memory.limit.unwrap_or(0),
        cpu_time: Duration::from_nanos(
            found
                .cpu_stats
                .and_then(|cpu| cpu.cpu_usage)
                .and_then(|usage| usage.total_usage)
                .unwrap_or(0),
        ),
        pids: found.pids_stats.and_then(|pids| pids.current).unwrap_or(0),
    })
}

pub(super) fn unsigned(value: Option<i64>) -> u64 {
    value.and_then(|n| u64::try_from(n).ok()).unwrap_or(0)
}

/// Filters of a list: `label` with `key=value`, or `key` where any value will do.
pub(super) fn label_filter(labels: &Labels) -> HashMap<String, Vec<String>> {
    if labels.is_empty() {
        return HashMap::new();
    }
    let wanted = labels
        .iter()
        .map(|(key, value)| {
            if value.is_empty() {
                key.clone()
            } else {
                format!("{key}={value}")
            }
        })
        .collect();
    HashMap::from([("label".to_owned(), wanted)])
}

/// Attributes of an event that are labels: all but those the engine adds.
pub(super) fn event_labels(attributes: &HashMap<String, String>) -> BTreeMap<String, String> {
    const ADDED: [&str; 8] = [
        "image",
        "name",
        "exitCode",
        "execID",
        "signal",
        "containerExitCode",
        "podId",
        "execDuration",
    ];
    attributes
        .iter()
        .filter(|(key, _)| !ADDED.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn the_digest_is_that_of_the_repository_asked_for() {
        let other = "f".repeat(64);
        let found = |tags: &[String]| ImageInspect {
            id: Some(format!("sha256:{}", "1".repeat(64))),
            repo_digests: Some(tags.to_vec()),
            ..ImageInspect::default()
        };
        let reference: ImageRef = "busybox:1".parse().expect("a reference");
        let texts = [
            format!("x.io/busybox@sha256:{other}"),
            format!("busybox@sha256:{HEX}"),
        ];
        let image = image(&reference, found(&texts)).expect("it has an id");
        assert_eq!(image.digest.as_str(), format!("sha256:{HEX}"));
        let local = super::image(&reference, found(&[])).expect("it has an id");
        assert_eq!(local.digest, local.id);
    }

    #[test]
    fn checks_of_images_become_commands() {
        let check = |test: &[&str]| {
            healthcheck(HealthConfig {
                test: Some(test.iter().map(|word| (*word).to_owned()).collect()),
                interval: Some(2_000_000_000),
                timeout: Some(0),
                ..HealthConfig::default()
            })
        };
        let shell = check(&["CMD-SHELL", "exit 0"]).expect("a check");
        assert_eq!(shell.argv, ["/bin/sh", "-c", "exit 0"]);
        assert_eq!(shell.interval, Some(Duration::from_secs(2)));
        assert_eq!(shell.timeout, None);
        assert_eq!(check(&["CMD", "/bin/true"]).expect("a check").argv, ["/bin/true"]);
        assert_eq!(check(&["NONE"]), None);
        assert_eq!(check(&[]), None);
    }

    #[test]
    fn a_stop_signal_that_is_none_is_left_out() {
        let reference: ImageRef = "busybox:1".parse().expect("a reference");
        let said = |signal: &str| {
            let found = ImageInspect {
                id: Some(format!("sha256:{HEX}")),
                config: Some(bollard::models::ImageConfig {
                    stop_signal: Some(signal.to_owned()),
                    ..bollard::models::ImageConfig::default()
                }),
                ..ImageInspect::default()
            };
            let signal = image(&reference, found).expect("it has an id").config.stop_signal;
            signal.map(|signal| signal.to_string())
        };
        assert_eq!(said("SIGQUIT").as_deref(), Some("SIGQUIT"));
        assert_eq!(said("SIGWHATEVER"), None);
    }

    #[test]
    fn the_zero_time_is_no_time() {
        assert_eq!(time(Some("0001-01-01T00:00:00Z")), None);
        assert_eq!(time(Some("")), None);
        assert!(time(Some("2026-01-02T03:04:05.123456789Z")).is_some());
        assert!(time(Some("2026-01-02T03:04:05.123456789+02:00")).is_some());
    }

    #[test]
    fn labels_without_a_value_match_any() {
        let labels = Labels::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())]);
        assert_eq!(label_filter(&labels)["label"], ["a=1", "b"]);
        assert!(label_filter(&Labels::new()).is_empty());
    }
}
