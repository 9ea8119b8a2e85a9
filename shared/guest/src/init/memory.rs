//! What the kernel did because memory ran out.

use std::path::Path;

/// Where a container sees its own control group, and the file that counts: version 2, then version 1 of
/// control groups (cgroup-v2.rst and cgroup-v1/memory.rst of the kernel's documentation).
const COUNTS: [&str; 2] = [
    "sys/fs/cgroup/memory.events",
    "sys/fs/cgroup/memory/memory.oom_control",
];

/// How many processes the kernel has ended for their memory; `None` where it does not say. It counts before
/// the process is gone, so whoever saw the end finds it counted.
pub(crate) fn kills(root: &Path) -> Option<u64> {
    COUNTS.iter().find_map(|file| {
        let text = std::fs::read_to_string(root.join(file)).ok()?;
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
        count.trim().parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_control_groups_count() {
        let dir = camino_tempfile::tempdir().unwrap();
        let root = dir.path().as_std_path();
        assert_eq!(kills(root), None);
        let old = root.join("sys/fs/cgroup/memory");
        std::fs::create_dir_all(&old).unwrap();
        std::fs::write(
            old.join("memory.oom_control"),
            "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
        )
        .unwrap();
        assert_eq!(kills(root), Some(3));
        std::fs::write(
            root.join("sys/fs/cgroup/memory.events"),
            "low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\noom_group_kill 0\n",
        )
        .unwrap();
        assert_eq!(kills(root), Some(1));
    }
}
