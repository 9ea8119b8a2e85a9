//! From an assignment to what the engine is asked for.

use std::collections::HashMap;
use std::path::Path;

use bollard::models::{
    ContainerCreateBody, DeviceRequest, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountType,
    MountVolumeOptions, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};
use bytes::Bytes;
use nimbus_gpu_wire::{ARTIFACTS_DIR, Assignment, Command, Dataset};

use crate::config::{Config, Devices};
use crate::engine::Facts;

/// On every container of a job: the job.
pub(crate) const JOB_LABEL: &str = "io.nimbus.gpu.job";
/// Which attempt of it.
pub(crate) const ATTEMPT_LABEL: &str = "io.nimbus.gpu.attempt";
/// The worker that made it.
pub(crate) const WORKER_LABEL: &str = "io.nimbus.gpu.worker";

/// Processes of a job: far more than training needs, and not enough to choke the box.
const PIDS: i64 = 32_768;

/// The engine's own log may take this many times the bytes that are kept. It is not turned over before
/// all of those are read: it stores some 75 bytes beside each line, which for empty lines is everything.
const LOG_ROOM: u64 = 80;

/// And no less than this, so that what is only counted is counted right: an engine that follows a log while
/// it is turned over (Docker 20.10) gives some of it twice.
const LOG_ROOM_LEAST: u64 = 256 << 20;

/// The name of a job's container. The engine makes no second one of a name.
pub(crate) fn container_name(job: &str) -> String {
    format!("nimbus-job-{job}")
}

/// The volume that a dataset lies in.
pub(crate) fn volume_name(dataset: &Dataset) -> String {
    format!("nimbus-dataset-{}", dataset.name)
}

/// What the engine and the box offer to a job.
pub(crate) struct Ground {
    pub(crate) facts: Facts,
    pub(crate) requests: Vec<DeviceRequest>,
    /// Whether its programs run as root, who may write anywhere.
    pub(crate) root: bool,
}

/// The body of the create call.
pub(crate) fn body(job: &Assignment, config: &Config, ground: Ground) -> ContainerCreateBody {
    let labels = HashMap::from([
        (JOB_LABEL.to_owned(), job.job.clone()),
        (ATTEMPT_LABEL.to_owned(), job.attempt.to_string()),
        (WORKER_LABEL.to_owned(), config.worker_id.clone()),
    ]);
    ContainerCreateBody {
        image: Some(job.image.clone()),
        cmd: match &job.command {
            Command::Image => None,
            Command::Shell(line) => Some(vec!["sh".to_owned(), "-c".to_owned(), line.clone()]),
            Command::Argv(argv) => Some(argv.clone()),
        },
        env: Some(env(job, &config.nimbus_url)),
        labels: Some(labels),
        // The image's check would run beside the job every few seconds, and nobody looks at it.
        healthcheck: Some(HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..HealthConfig::default()
        }),
        attach_stdin: Some(false),
        open_stdin: Some(false),
        tty: Some(false),
        host_config: Some(host(job, config, ground)),
        ..ContainerCreateBody::default()
    }
}

fn host(job: &Assignment, config: &Config, ground: Ground) -> HostConfig {
    let Ground {
        facts,
        requests,
        root,
    } = ground;
    let folder = root.then(|| Mount {
        typ: Some(MountType::VOLUME),
        target: Some(ARTIFACTS_DIR.to_owned()),
        // What an image has there is not what the job left, and looking for it takes time.
        volume_options: Some(MountVolumeOptions {
            no_copy: Some(true),
            ..MountVolumeOptions::default()
        }),
        ..Mount::default()
    });
    let memory = job
        .limits
        .memory_bytes
        .and_then(|bytes| i64::try_from(bytes).ok());
    // What NVIDIA asks for in its notes for PyTorch containers: pinned memory without a limit.
    let ulimits = (!requests.is_empty()).then(|| {
        vec![ResourcesUlimits {
            name: Some("memlock".to_owned()),
            soft: Some(-1),
            hard: Some(-1),
        }]
    });
    HostConfig {
        memory,
        // The same number: no swap on top.
        memory_swap: memory,
        pids_limit: Some(PIDS),
        shm_size: i64::try_from(config.shm_bytes).ok(),
        // Ends at a SIGTERM also what does not care for one, and reaps what the job leaves behind.
        init: facts.init.then_some(true),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        auto_remove: Some(false),
        security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
        cap_drop: Some(NOT_FOR_JOBS.map(str::to_owned).into()),
        log_config: Some(log_config(job.limits.log_bytes)),
        mounts: Some(job.datasets.iter().map(mount).chain(folder).collect()),
        device_requests: (!requests.is_empty()).then_some(requests),
        ulimits,
        ..HostConfig::default()
    }
}

/// What engines give and jobs have no use for: forged packets, devices, the audit log, and files that
/// give rights.
const NOT_FOR_JOBS: [&str; 4] = ["NET_RAW", "MKNOD", "AUDIT_WRITE", "SETFCAP"];

/// `json-file`, which every engine has. `local` would also keep bytes that are not UTF-8, but loses the
/// line feed after each line of more than 16 KiB (Docker 20.10).
fn log_config(kept: u64) -> HostConfigLogConfig {
    let room = kept.saturating_mul(LOG_ROOM).max(LOG_ROOM_LEAST);
    let options = [("max-size", room.to_string()), ("max-file", "2".to_owned())];
    HostConfigLogConfig {
        typ: Some("json-file".to_owned()),
        config: Some(options.map(|(key, value)| (key.to_owned(), value)).into()),
    }
}

fn mount(dataset: &Dataset) -> Mount {
    Mount {
        typ: Some(MountType::VOLUME),
        source: Some(volume_name(dataset)),
        target: Some(format!("/datasets/{}", dataset.name)),
        read_only: Some(!dataset.writable),
        ..Mount::default()
    }
}

/// What every job is told, and then what it brings itself: the later of two wins.
fn env(job: &Assignment, url: &str) -> Vec<String> {
    let ours = [
        ("NIMBUS_URL", url.to_owned()),
        ("NIMBUS_GPU_API", format!("{url}/api/gpu")),
        ("NIMBUS_JOB_ID", job.job.clone()),
        ("NIMBUS_ARTIFACTS", ARTIFACTS_DIR.to_owned()),
    ];
    let theirs = |name: &str| job.env.iter().any(|var| var.name == name);
    ours.into_iter()
        .filter(|(name, _)| !theirs(name))
        .map(|(name, value)| format!("{name}={value}"))
        .chain(job.env.iter().map(|var| format!("{}={}", var.name, var.value)))
        .collect()
}

/// How the job gets the GPU.
pub(crate) fn devices(wanted: &Devices, facts: &Facts, has_gpu: bool) -> Vec<DeviceRequest> {
    let nvidia = || {
        vec![DeviceRequest {
            count: Some(-1),
            capabilities: Some(vec![vec!["gpu".to_owned()]]),
            ..DeviceRequest::default()
        }]
    };
    let cdi = |device: &str| {
        vec![DeviceRequest {
            driver: Some("cdi".to_owned()),
            device_ids: Some(vec![device.to_owned()]),
            ..DeviceRequest::default()
        }]
    };
    match wanted {
        Devices::None => Vec::new(),
        Devices::Nvidia => nvidia(),
        Devices::Cdi(device) => cdi(device),
        Devices::Auto if facts.nvidia_runtime => nvidia(),
        Devices::Auto if facts.cdi_dirs.iter().any(|dir| describes_nvidia(dir)) => cdi("nvidia.com/gpu=all"),
        // A GPU that cannot be handed on: better a job that fails and says so than one without it.
        Devices::Auto if has_gpu => nvidia(),
        Devices::Auto => Vec::new(),
    }
}

fn describes_nvidia(dir: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return false;
    };
    entries
        .filter_map(Result::ok)
        .any(|entry| entry.file_name().to_string_lossy().starts_with("nvidia"))
}

/// Whether an image's user, as it is written there, is root.
pub(crate) fn is_root(user: &str) -> bool {
    matches!(user.split(':').next(), None | Some("" | "0" | "root"))
}

/// An archive with nothing but the folder for artifacts, which every user may write to. To unpack it takes
/// the engine as long as to make the container (80 ms), so root gets a volume instead.
pub(crate) fn artifacts_folder() -> Bytes {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o1777);
    header.set_size(0);
    let mut builder = tar::Builder::new(Vec::new());
    builder
        .append_data(
            &mut header,
            format!("{}/", ARTIFACTS_DIR.trim_start_matches('/')),
            std::io::empty(),
        )
        .expect("a short name and no content fit");
    builder.into_inner().expect("memory takes everything").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Cli, Command as Sub};
    use crate::state::tests::assignment;
    use clap::Parser;
    use nimbus_gpu_wire::EnvVar;

    fn config() -> Config {
        let cli = Cli::try_parse_from([
            "gx10-worker",
            "run",
            "--nimbus-url",
            "https://n.example",
            "--worker-token",
            "t",
            "--worker-id",
            "b1",
        ]);
        match cli.unwrap().command {
            Sub::Run(config) => *config,
            Sub::Drain { .. } => panic!("not run"),
        }
    }

    #[test]
    fn a_job_gets_what_it_asks_for_and_no_more() {
        let mut job = assignment("job_1");
        job.command = Command::Argv(vec!["python".into(), "a b".into()]);
        job.env = vec![EnvVar {
            name: "NIMBUS_URL".into(),
            value: "mine".into(),
        }];
        job.limits.memory_bytes = Some(1 << 30);
        job.datasets = vec![Dataset {
            name: "mnist".into(),
            writable: false,
        }];
        let ground = Ground {
            facts: Facts {
                init: true,
                ..Facts::default()
            },
            requests: Vec::new(),
            root: true,
        };
        let body = body(&job, &config(), ground);
        assert_eq!(body.cmd, Some(vec!["python".to_owned(), "a b".to_owned()]));
        let env = body.env.unwrap();
        assert!(
            env.contains(&"NIMBUS_URL=mine".to_owned())
                && !env.contains(&"NIMBUS_URL=https://n.example".to_owned())
        );
        assert!(env.contains(&"NIMBUS_GPU_API=https://n.example/api/gpu".to_owned()));
        let host = body.host_config.unwrap();
        assert_eq!((host.memory, host.memory_swap), (Some(1 << 30), Some(1 << 30)));
        let mount = &host.mounts.unwrap()[0];
        assert_eq!(
            (mount.source.as_deref(), mount.read_only),
            (Some("nimbus-dataset-mnist"), Some(true))
        );
        assert_eq!(host.log_config.unwrap().typ.as_deref(), Some("json-file"));
        assert_eq!(
            (host.device_requests, host.privileged, host.auto_remove),
            (None, None, Some(false))
        );
    }

    #[test]
    fn the_gpu_is_found_by_what_is_there() {
        let facts = |nvidia| Facts {
            nvidia_runtime: nvidia,
            ..Facts::default()
        };
        let ids = |requests: Vec<DeviceRequest>| {
            requests
                .into_iter()
                .map(|r| (r.driver, r.count))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            ids(devices(&Devices::Auto, &facts(true), true)),
            [(None, Some(-1))]
        );
        assert_eq!(
            ids(devices(&Devices::Auto, &facts(false), true)),
            [(None, Some(-1))]
        );
        assert!(devices(&Devices::Auto, &facts(false), false).is_empty());
        assert!(devices(&Devices::None, &facts(true), true).is_empty());
        let dir = camino_tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("nvidia.yaml"), "").unwrap();
        let described = Facts {
            cdi_dirs: vec![dir.path().into()],
            ..Facts::default()
        };
        assert_eq!(
            ids(devices(&Devices::Auto, &described, true)),
            [(Some("cdi".to_owned()), None)]
        );
    }

    #[test]
    fn root_is_known_by_every_name() {
        for root in ["", "0", "root", "0:0", "root:wheel", ":5"] {
            assert!(is_root(root), "{root}");
        }
        for other in ["1000", "app", "10:0"] {
            assert!(!is_root(other), "{other}");
        }
    }

    #[test]
    fn the_folder_for_artifacts_is_for_everybody() {
        let archive = artifacts_folder();
        let mut archive = tar::Archive::new(archive.as_ref());
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap().to_str(), Some("artifacts/"));
        assert_eq!(entry.header().mode().unwrap(), 0o1777);
    }
}
