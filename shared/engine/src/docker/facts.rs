//! What the engine is, and whether it has what sandboxes need.

use std::path::Path;

use bollard::models::{SystemInfo, SystemInfoCgroupVersionEnum};

use super::read;
use crate::Facts;

/// What `/version` told when the engine was found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// `docker` or `podman`.
    pub(super) name: String,
    pub(super) version: String,
    pub(super) api: String,
}

pub(super) fn facts(found: &Found, info: SystemInfo, mountinfo: &str) -> Facts {
    let options = info.security_options.clone().unwrap_or_default();
    // `name=seccomp,profile=default` in Docker, `seccomp` alone in older ones.
    let has = |word: &str| {
        options.iter().any(|option| {
            option
                .split(',')
                .any(|part| part.strip_prefix("name=").unwrap_or(part) == word)
        })
    };
    let rootless = has("rootless");
    let root = info.docker_root_dir.clone().unwrap_or_default();
    let storage_driver = info.driver.clone().unwrap_or_default();
    let backing = info
        .driver_status
        .unwrap_or_default()
        .into_iter()
        .find(|pair| pair.first().is_some_and(|key| key == "Backing Filesystem"))
        .and_then(|pair| pair.into_iter().nth(1))
        .unwrap_or_default();
    let mut runtimes: Vec<String> = info.runtimes.unwrap_or_default().into_keys().collect();
    runtimes.sort();

    let needed = [
        (
            info.os_type.as_deref().is_none_or(|os| os == "linux"),
            "Linux containers",
        ),
        (has("seccomp"), "system call filters (seccomp)"),
        (info.memory_limit != Some(false), "memory limits (cgroup memory)"),
        (
            info.cpu_cfs_quota != Some(false),
            "processor limits (cgroup cpu quota)",
        ),
        (
            info.pids_limit != Some(false),
            "limits of processes (cgroup pids)",
        ),
    ];
    Facts {
        name: found.name.clone(),
        version: found.version.clone(),
        api: found.api.clone(),
        rootless,
        user_namespaces: rootless || has("userns"),
        seccomp: has("seccomp"),
        apparmor: has("apparmor"),
        selinux: has("selinux"),
        cgroup_version: match info.cgroup_version {
            Some(SystemInfoCgroupVersionEnum::_2) => 2,
            _ => 1,
        },
        disk_quota: quota(&storage_driver, &backing, mount_options(mountinfo, &root)),
        storage_driver,
        root,
        cpus: info.ncpu.and_then(|n| u32::try_from(n).ok()).unwrap_or(1),
        memory_bytes: read::unsigned(info.mem_total),
        arch: architecture(info.architecture.as_deref().unwrap_or_default()),
        runtimes,
        missing: needed
            .iter()
            .filter(|(there, _)| !there)
            .map(|(_, what)| (*what).to_owned())
            .collect(),
    }
}

/// The kernel's word to the one of image manifests.
pub(super) fn architecture(kernel: &str) -> String {
    match kernel {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
    .to_owned()
}

/// Whether a container's layer can be limited: the driver's own, or project quotas under overlay.
/// (Docker's documentation of `--storage-opt` lists the conditions.)
fn quota(driver: &str, backing: &str, options: Option<&str>) -> bool {
    match driver {
        "btrfs" | "zfs" | "devicemapper" => true,
        "overlay2" | "overlay" => {
            backing == "xfs"
                && options.is_some_and(|options| options.split(',').any(|o| o == "prjquota" || o == "pquota"))
        }
        _ => false,
    }
}

/// The file system's options of the mount that `path` is on, from `/proc/self/mountinfo` (proc(5)).
fn mount_options<'a>(mountinfo: &'a str, path: &str) -> Option<&'a str> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (mount, source) = line.split_once(" - ")?;
            let point = mount.split(' ').nth(4)?;
            Path::new(path)
                .starts_with(point)
                .then_some((point.len(), source.split(' ').nth(2)?))
        })
        .max_by_key(|(length, _)| *length)
        .map(|(_, options)| options)
}

/// What a process may have at most of `name`, such as `Max open files`, from its `/proc/<pid>/limits`.
pub(super) fn limit(limits: &str, name: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    match line.split_whitespace().nth(1)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Found {
        Found {
            name: "docker".into(),
            version: "1".into(),
            api: "1.41".into(),
        }
    }

    fn info(options: &[&str]) -> SystemInfo {
        SystemInfo {
            security_options: Some(options.iter().map(|o| (*o).to_owned()).collect()),
            architecture: Some("x86_64".to_owned()),
            ..SystemInfo::default()
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let good = facts(
            &found(),
            info(&["name=seccomp,profile=default", "name=userns"]),
            "",
        );
        assert_eq!(good.missing, Vec::<String>::new());
        assert!(good.user_namespaces && !good.rootless && good.arch == "amd64");
        let bad = SystemInfo {
            memory_limit: Some(false),
            pids_limit: Some(false),
            ..info(&["name=apparmor"])
        };
        let bad = facts(&found(), bad, "");
        assert_eq!(
            bad.missing,
            [
                "system call filters (seccomp)",
                "memory limits (cgroup memory)",
                "limits of processes (cgroup pids)"
            ]
        );
    }

    #[test]
    fn quotas_need_the_mount_option_where_the_layers_are() {
        let mounts = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
                      30 22 254:1 / /var/lib/docker rw,relatime - xfs /dev/vdb rw,attr2,prjquota\n";
        assert_eq!(
            mount_options(mounts, "/var/lib/docker"),
            Some("rw,attr2,prjquota")
        );
        assert_eq!(mount_options(mounts, "/var/lib/dockerx"), Some("rw"));
        assert!(quota("overlay2", "xfs", mount_options(mounts, "/var/lib/docker")));
        assert!(!quota("overlay2", "extfs", Some("rw")));
        assert!(quota("btrfs", "", None));
    }

    #[test]
    fn limits_of_a_process_are_read() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max open files            1024                 20000                files     \n";
        assert_eq!(limit(text, "Max open files"), Some(20_000));
        assert_eq!(
            limit("Max processes  1 unlimited x", "Max processes"),
            Some(u64::MAX)
        );
        assert_eq!(limit("", "Max processes"), None);
    }
}
