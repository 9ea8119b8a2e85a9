//! From a [`ContainerSpec`] to what the engine is asked.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, ContainerUpdateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum,
    HostConfigLogConfig, Mount, MountBindOptions, MountBindOptionsPropagationEnum, MountType,
    MountVolumeOptions, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};

use crate::{ContainerSpec, Limits, Tmpfs};

/// Docker refuses less: a runtime needs about as much to start a process at all.
const MEMORY_FLOOR: u64 = 6 * 1024 * 1024;

/// `/dev/shm` unless the spec says otherwise; the usual size of container engines.
const SHM_BYTES: u64 = 64 * 1024 * 1024;

/// Sandboxes are killed before anything else when the host runs out of memory.
const OOM_SCORE_ADJ: i64 = 500;

/// Open files of a process, where the engine may set that many: enough for servers, and not so many
/// that programs which close all of them on start take seconds.
const OPEN_FILES: u64 = 65_536;

/// What is memory when the root file system is read-only.
const SCRATCH: [&str; 3] = ["/tmp", "/run", "/var/tmp"];

/// What the driver knows about the engine that containers are made on.
#[derive(Clone, Debug)]
pub(super) struct Ground {
    /// Value of the `seccomp=` security option.
    pub(super) seccomp: String,
    /// Processors of the host.
    pub(super) cpus: u32,
    /// Open files that the engine itself may have, if known.
    pub(super) open_files: Option<u64>,
    /// Processes of one user, where the engine would ask for more than it may have unless told.
    pub(super) user_processes: Option<u64>,
    /// Whether the writable layer can be limited.
    pub(super) disk_quota: bool,
    /// Value of the user namespace mode.
    pub(super) userns: Option<String>,
}

/// The body of the create call.
pub(super) fn body(spec: &ContainerSpec, ground: &Ground) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(spec.image.as_str().to_owned()),
        entrypoint: Some(spec.argv.iter().take(1).cloned().collect()),
        cmd: Some(spec.argv.iter().skip(1).cloned().collect()),
        env: Some(spec.env.clone()),
        working_dir: spec.workdir.clone(),
        user: spec.user.clone(),
        hostname: spec.hostname.clone(),
        labels: Some(spec.labels.clone().into_iter().collect()),
        stop_signal: spec.stop_signal.as_ref().map(|signal| signal.as_str().to_owned()),
        // The engine would run an image's check as an exec of its own every few seconds.
        healthcheck: Some(HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..HealthConfig::default()
        }),
        attach_stdin: Some(false),
        attach_stdout: Some(false),
        attach_stderr: Some(false),
        tty: Some(false),
        open_stdin: Some(false),
        host_config: Some(host(spec, ground)),
        ..ContainerCreateBody::default()
    }
}

fn host(spec: &ContainerSpec, ground: &Ground) -> HostConfig {
    let (memory, nano_cpus, pids) = amounts(&spec.limits, ground.cpus);
    HostConfig {
        memory: Some(memory),
        // The same number: no swap on top.
        memory_swap: Some(memory),
        nano_cpus: Some(nano_cpus),
        pids_limit: Some(pids),
        storage_opt: spec
            .limits
            .disk_bytes
            .filter(|_| ground.disk_quota)
            .map(|bytes| HashMap::from([("size".to_owned(), bytes.to_string())])),
        ulimits: Some(ulimits(ground.open_files, ground.user_processes)),
        oom_score_adj: Some(OOM_SCORE_ADJ),
        network_mode: Some("none".to_owned()),
        ipc_mode: Some("private".to_owned()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        userns_mode: ground.userns.clone(),
        privileged: Some(false),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec![
            "no-new-privileges".to_owned(),
            format!("seccomp={}", ground.seccomp),
        ]),
        readonly_rootfs: Some(spec.read_only_root),
        shm_size: Some(signed(spec.shm_bytes.unwrap_or(SHM_BYTES))),
        mounts: Some(mounts(spec)),
        tmpfs: Some(tmpfs(spec)),
        init: Some(false),
        auto_remove: Some(false),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        // Output goes through the guest's own log; the engine would keep a second copy without a bound.
        log_config: Some(HostConfigLogConfig {
            typ: Some("none".to_owned()),
            config: None,
        }),
        ..HostConfig::default()
    }
}

/// The body of the update call.
pub(super) fn update(limits: &Limits, cpus: u32) -> ContainerUpdateBody {
    let (memory, nano_cpus, pids) = amounts(limits, cpus);
    ContainerUpdateBody {
        memory: Some(memory),
        memory_swap: Some(memory),
        nano_cpus: Some(nano_cpus),
        pids_limit: Some(pids),
        ..ContainerUpdateBody::default()
    }
}

/// Memory in bytes, processor time in billionths of a processor, and processes, as engines accept them.
fn amounts(limits: &Limits, cpus: u32) -> (i64, i64, i64) {
    let all = cpus.max(1).saturating_mul(1000);
    let millicpus = limits.millicpus.clamp(10, all);
    (
        signed(limits.memory_bytes.max(MEMORY_FLOOR)),
        i64::from(millicpus) * 1_000_000,
        // 0 would mean no limit.
        i64::from(limits.pids.max(1)),
    )
}

fn ulimits(open_files: Option<u64>, user_processes: Option<u64>) -> Vec<ResourcesUlimits> {
    let limit = |name: &str, value: u64| ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: Some(signed(value)),
        hard: Some(signed(value)),
    };
    // A core file would fill the layer with the memory of what crashed.
    let mut limits = vec![limit("core", 0)];
    // More than the engine itself has cannot be set without CAP_SYS_RESOURCE; unknown stays as it is.
    limits.extend(open_files.map(|most| limit("nofile", OPEN_FILES.min(most))));
    limits.extend(user_processes.map(|most| limit("nproc", most)));
    limits
}

fn mounts(spec: &ContainerSpec) -> Vec<Mount> {
    let binds = spec.binds.iter().map(|bind| Mount {
        typ: Some(MountType::BIND),
        source: Some(bind.source.clone()),
        target: Some(bind.target.clone()),
        read_only: Some(true),
        bind_options: Some(MountBindOptions {
            // What is mounted on the host later does not appear inside.
            propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
            ..MountBindOptions::default()
        }),
        ..Mount::default()
    });
    let volumes = spec.volumes.iter().map(|volume| Mount {
        typ: Some(MountType::VOLUME),
        source: Some(volume.name.clone()),
        target: Some(volume.target.clone()),
        read_only: Some(volume.read_only),
        volume_options: Some(MountVolumeOptions {
            // A volume is what was written to it, whichever image mounted it first.
            no_copy: Some(true),
            ..MountVolumeOptions::default()
        }),
        ..Mount::default()
    });
    binds.chain(volumes).collect()
}

/// The runtime gives them the mode of the directory they cover, and this one where there is none.
fn tmpfs(spec: &ContainerSpec) -> HashMap<String, String> {
    let half = spec.limits.memory_bytes.max(MEMORY_FLOOR) / 2;
    let scratch = SCRATCH
        .iter()
        .filter(|_| spec.read_only_root)
        .map(|target| Tmpfs {
            target: (*target).to_owned(),
            size_bytes: None,
        });
    scratch
        // Later wins: what the spec says about /tmp itself holds.
        .chain(spec.tmpfs.iter().cloned())
        .map(|mount| {
            let size = mount.size_bytes.unwrap_or(half);
            (
                mount.target,
                format!("rw,exec,nosuid,nodev,mode=1777,size={size}"),
            )
        })
        .collect()
}

/// Engines count in signed numbers.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        millicpus: 1500,
        memory_bytes: 64 << 20,
        pids: 32,
        disk_bytes: Some(1 << 30),
    };

    fn spec() -> ContainerSpec {
        let image = format!("sha256:{}", "a".repeat(64)).parse().expect("a digest");
        ContainerSpec::new("c", image, vec!["/init".into(), "-x".into()], LIMITS)
    }

    fn ground() -> Ground {
        Ground {
            seccomp: "{}".to_owned(),
            cpus: 2,
            open_files: Some(20_000),
            user_processes: None,
            disk_quota: false,
            userns: None,
        }
    }

    #[test]
    fn limits_are_what_engines_accept() {
        assert_eq!(amounts(&LIMITS, 2), (64 << 20, 1_500_000_000, 32));
        let tiny = Limits {
            millicpus: 0,
            memory_bytes: 1 << 20,
            pids: 0,
            disk_bytes: None,
        };
        assert_eq!(amounts(&tiny, 2), (6 << 20, 10_000_000, 1));
        let huge = Limits {
            millicpus: 64_000,
            memory_bytes: u64::MAX,
            ..LIMITS
        };
        assert_eq!(amounts(&huge, 2), (i64::MAX, 2_000_000_000, 32));
    }

    #[test]
    fn a_quota_is_asked_for_only_where_there_is_one() {
        let quota = |disk_quota| {
            let ground = Ground {
                disk_quota,
                ..ground()
            };
            host(&spec(), &ground).storage_opt
        };
        assert_eq!(quota(false), None);
        assert_eq!(
            quota(true).and_then(|o| o.get("size").cloned()),
            Some((1u64 << 30).to_string())
        );
    }

    #[test]
    fn open_files_stay_within_what_the_engine_may_have() {
        let nofile = |most| {
            ulimits(most, None)
                .into_iter()
                .find(|limit| limit.name.as_deref() == Some("nofile"))
                .and_then(|limit| limit.hard)
        };
        assert_eq!(nofile(Some(20_000)), Some(20_000));
        assert_eq!(nofile(Some(1 << 20)), Some(65_536));
        assert_eq!(nofile(None), None);
    }

    #[test]
    fn a_read_only_root_has_scratch_space_and_the_spec_can_size_it() {
        let mut spec = spec();
        assert!(tmpfs(&spec).is_empty());
        spec.read_only_root = true;
        spec.tmpfs = vec![Tmpfs {
            target: "/tmp".into(),
            size_bytes: Some(4096),
        }];
        let made = tmpfs(&spec);
        assert_eq!(made.len(), 3);
        assert!(made["/tmp"].ends_with("size=4096"), "{made:?}");
        assert!(made["/run"].ends_with(&format!("size={}", 32 << 20)), "{made:?}");
    }
}
