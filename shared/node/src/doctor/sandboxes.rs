//! What sandboxes need of the host: an engine, limits that hold, and for an account's own engine users to map.

use camino::Utf8Path;

use super::{Level, Probes};
use crate::agent::AGENT_UNIT;
use crate::commands::Commands;
use crate::layout::{Layout, Scope, Target};

/// What limits of sandboxes are made of.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// As many users as an image may have.
const IDS: u64 = 65_536;

/// A host to look at.
pub(super) struct Look<'a> {
    pub(super) layout: &'a Layout,
    /// `/`, unless a test says otherwise.
    pub(super) root: &'a Utf8Path,
    /// The account that asks.
    pub(super) uid: u32,
    /// The group that may use the socket of the host's engine.
    pub(super) group: Option<String>,
    pub(super) commands: &'a dyn Commands,
}

impl Look<'_> {
    /// Looks at what a node of this kind needs; `joined`: it is the agent of a deployment elsewhere.
    pub(super) fn probe(&self, probes: &mut Probes, target: Target, joined: bool) {
        // A container of Podman brings no engine into itself.
        let lent = target == Target::Systemd && self.engine(probes, joined);
        self.controllers(probes);
        // Whoever may use the engine of the host needs nothing of its own.
        if self.layout.scope == Scope::User && !lent {
            self.rootless(probes, target);
        }
    }

    fn file(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.root.join(path)).ok()
    }

    /// Whether an engine of the host may be used.
    fn engine(&self, probes: &mut Probes, joined: bool) -> bool {
        let (layout, commands) = (self.layout, self.commands);
        let granted = if joined {
            let unit = std::fs::read_to_string(layout.units.join(AGENT_UNIT)).unwrap_or_default();
            unit.lines().any(|line| line.starts_with("SupplementaryGroups="))
        } else {
            layout.units.join(crate::artifacts::ENGINE_DROP_IN).exists()
        };
        let (ok, detail) = match (&self.group, layout.scope) {
            (Some(group), Scope::System) if granted => (true, format!("the service is in the group {group}")),
            (Some(group), Scope::System) => (false, format!("the service is not in the group {group}")),
            (Some(group), Scope::User) => {
                let member = commands
                    .says(&["id", "-nG"])
                    .is_some_and(|groups| groups.split_whitespace().any(|name| name == group));
                (
                    member,
                    format!(
                        "this account is {}in the group {group}",
                        if member { "" } else { "not " }
                    ),
                )
            }
            (None, _) => (
                false,
                "no container engine that another account than root may use".to_owned(),
            ),
        };
        probes.add(
            "engine",
            Level::Advice,
            ok,
            detail,
            if joined {
                "sandboxes need Docker or Podman: install one, then run join again with another token and --overwrite"
            } else {
                "sandboxes need Docker or Podman: install one, then run install again with --overwrite"
            },
        );
        ok
    }

    /// The controllers that this scope's service manager may hand on.
    fn controllers(&self, probes: &mut Probes) {
        let all = self.file("sys/fs/cgroup/cgroup.controllers");
        probes.add(
            "cgroup_v2",
            Level::Advice,
            all.is_some(),
            if all.is_some() { "cgroup v2" } else { "cgroup v1" },
            "limits of sandboxes are stricter on cgroup v2: boot with systemd.unified_cgroup_hierarchy=1",
        );
        let Some(all) = all else {
            return;
        };
        let (place, found, remedy) = match self.layout.scope {
            Scope::System => (
                "the kernel".to_owned(),
                Some(all),
                "without them sandboxes have no such limits: take cgroup_disable off the kernel's command line, or add cgroup_enable=memory",
            ),
            Scope::User => {
                let unit = format!("user@{}.service", self.uid);
                let asked = ["systemctl", "show", &unit, "--property=ControlGroup", "--value"];
                let group = self.commands.says(&asked).unwrap_or_default();
                let path = format!("sys/fs/cgroup{group}/cgroup.controllers");
                let found = group.starts_with('/').then(|| self.file(&path)).flatten();
                (
                    unit,
                    found,
                    "an account's engine cannot limit sandboxes without them: as root, write [Service] and Delegate=cpu cpuset io memory pids to /etc/systemd/system/user@.service.d/delegate.conf, run systemctl daemon-reload, and sign in again",
                )
            }
        };
        let Some(found) = found else {
            let detail = format!("{place} does not run, or does not say what it may hand on");
            return probes.add("controllers", Level::Advice, false, detail, remedy);
        };
        let missing: Vec<&str> = CONTROLLERS
            .into_iter()
            .filter(|name| !found.split_whitespace().any(|word| word == *name))
            .collect();
        let detail = if missing.is_empty() {
            format!("{place} has {}", CONTROLLERS.join(", "))
        } else {
            format!("{place} lacks {}", missing.join(", "))
        };
        probes.add("controllers", Level::Advice, missing.is_empty(), detail, remedy);
    }

    /// What an engine needs that runs as this account. A container's node is nothing without.
    fn rootless(&self, probes: &mut Probes, target: Target) {
        let level = match target {
            Target::Container => Level::Required,
            Target::Systemd => Level::Advice,
        };
        let name = self.commands.says(&["id", "-un"]).unwrap_or_default();
        for (id, path) in [("subuid", "etc/subuid"), ("subgid", "etc/subgid")] {
            let count = self.file(path).map_or(0, |text| ids(&text, &name, self.uid));
            probes.add(
                id,
                level,
                count >= IDS,
                format!("/{path} gives this account {count} ids"),
                "an account's engine maps the users of images to these: as root, usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ACCOUNT, with ranges that nobody else has; then podman system migrate",
            );
        }
        let missing: Vec<&str> = ["newuidmap", "newgidmap"]
            .into_iter()
            .filter(|program| {
                let places = ["usr/bin", "bin", "usr/local/bin"];
                !places
                    .iter()
                    .any(|place| self.root.join(place).join(program).exists())
            })
            .collect();
        probes.add(
            "uidmap",
            level,
            missing.is_empty(),
            if missing.is_empty() {
                "newuidmap and newgidmap are there".to_owned()
            } else {
                format!("there is no {}", missing.join(" and no "))
            },
            "install uidmap (shadow-utils on some systems)",
        );
        let closed = self.closed();
        probes.add(
            "user_namespaces",
            level,
            closed.is_none(),
            closed.unwrap_or_else(|| "allowed".to_owned()),
            "an account's engine lives in a user namespace: set this with sysctl, and in /etc/sysctl.d to keep it",
        );
    }

    /// The setting that keeps accounts from making user namespaces.
    fn closed(&self) -> Option<String> {
        let value = |path: &str| {
            let text = self.file(&format!("proc/sys/{path}"))?;
            text.trim().parse::<u64>().ok()
        };
        // The second one is Debian's own, and gone from newer kernels.
        [
            ("user/max_user_namespaces", 0),
            ("kernel/unprivileged_userns_clone", 0),
        ]
        .into_iter()
        .find(|(path, closed)| value(path) == Some(*closed))
        .map(|(path, closed)| format!("{} is {closed}", path.replace('/', ".")))
    }
}

/// How many ids a table gives an account, by name or by number.
fn ids(table: &str, name: &str, uid: u32) -> u64 {
    let number = uid.to_string();
    table
        .lines()
        .filter_map(|line| {
            let mut parts = line.trim().split(':');
            let owner = parts.next()?;
            let count = parts.nth(1)?.parse::<u64>().ok()?;
            ((owner == name && !name.is_empty()) || owner == number).then_some(count)
        })
        .fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Script, found};
    use super::super::{Probe, Verdict};
    use super::*;

    const DELEGATED: &str = "sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/cgroup.controllers";

    fn look(scope: Scope, target: Target, files: &[(&str, &str)], groups: &'static str) -> Vec<Probe> {
        let dir = camino_tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let layout = Layout::new(scope, |_| Some("/nowhere".to_owned())).unwrap();
        let script = Script(Box::new(move |line| match line {
            "id -un" => Some((0, "ann\n", "")),
            "id -nG" => Some((0, groups, "")),
            "systemctl show user@1000.service --property=ControlGroup --value" => {
                Some((0, "/user.slice/user-1000.slice/user@1000.service\n", ""))
            }
            _ => None,
        }));
        let look = Look {
            layout: &layout,
            root: dir.path(),
            uid: 1000,
            group: (!groups.is_empty()).then(|| "docker".to_owned()),
            commands: &script,
        };
        let mut probes = Probes(Vec::new());
        look.probe(&mut probes, target, false);
        probes.0
    }

    #[test]
    fn an_account_may_have_all_that_its_engine_needs() {
        let files = [
            ("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n"),
            (DELEGATED, "cpuset cpu io memory pids\n"),
            ("etc/subuid", "bob:100000:65536\nann:165536:65536\n"),
            ("etc/subgid", "1000:165536:65536\n"),
            ("usr/bin/newuidmap", ""),
            ("usr/bin/newgidmap", ""),
            ("proc/sys/user/max_user_namespaces", "15000\n"),
        ];
        let probes = look(Scope::User, Target::Container, &files, "ann\n");
        let failed: Vec<&Probe> = probes
            .iter()
            .filter(|probe| probe.result == Verdict::Fail)
            .collect();
        assert!(failed.is_empty() && probes.len() == 6, "{probes:?}");
    }

    #[test]
    fn what_an_account_lacks_is_told_with_what_to_do() {
        // As systemd delegates without being told more.
        let files = [
            ("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n"),
            (DELEGATED, "memory pids\n"),
            ("etc/subuid", "ann:100000:1000\nann\nann:1:x\n"),
            ("proc/sys/user/max_user_namespaces", "0\n"),
        ];
        for (target, level) in [
            (Target::Container, Level::Required),
            (Target::Systemd, Level::Advice),
        ] {
            let probes = look(Scope::User, target, &files, "ann\n");
            let probe = found(&probes, "controllers");
            assert_eq!((probe.result, probe.level), (Verdict::Fail, Level::Advice));
            assert_eq!(probe.detail, "user@1000.service lacks cpu");
            for (id, detail) in [
                ("subuid", "/etc/subuid gives this account 1000 ids"),
                ("subgid", "/etc/subgid gives this account 0 ids"),
                ("uidmap", "there is no newuidmap and no newgidmap"),
                ("user_namespaces", "user.max_user_namespaces is 0"),
            ] {
                let probe = found(&probes, id);
                assert_eq!((probe.result, probe.level), (Verdict::Fail, level), "{id}");
                assert_eq!(probe.detail, detail);
                assert!(probe.remedy.is_some());
            }
        }
    }

    #[test]
    fn the_system_is_asked_for_what_the_kernel_has() {
        let missing = [("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io pids\n")];
        let probes = look(Scope::System, Target::Systemd, &missing, "");
        assert_eq!(found(&probes, "controllers").detail, "the kernel lacks memory");
        assert!(!probes.iter().any(|probe| probe.id == "subuid"));
        // Controllers of cgroup v1 are delegated to nobody.
        let probes = look(Scope::User, Target::Container, &[], "");
        assert_eq!(found(&probes, "cgroup_v2").result, Verdict::Fail);
        assert!(!probes.iter().any(|probe| probe.id == "controllers"));
    }

    #[test]
    fn who_may_use_the_engine_of_the_host_needs_none_of_its_own() {
        for (groups, member) in [("ann docker\n", true), ("ann\n", false), ("", false)] {
            let probes = look(Scope::User, Target::Systemd, &[], groups);
            assert_eq!(found(&probes, "engine").result == Verdict::Pass, member);
            assert_eq!(!probes.iter().any(|probe| probe.id == "subuid"), member);
        }
        // A container does not see it.
        let probes = look(Scope::User, Target::Container, &[], "ann docker\n");
        assert!(probes.iter().any(|probe| probe.id == "subuid"));
    }
}
