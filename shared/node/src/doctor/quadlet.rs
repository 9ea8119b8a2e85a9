//! Podman and its Quadlet generator: whether it is there, and what it says of our file.

use std::os::unix::fs::PermissionsExt;

use camino::{Utf8Path, Utf8PathBuf};

use super::{Level, Probes};
use crate::commands::{Commands, Ran};
use crate::layout::{Layout, Scope};
use crate::plan::podman;

/// Podman's first release with Quadlet.
const QUADLET: (u32, u32) = (4, 4);
/// Where systemd looks for generators; the first of a name wins, and one that cannot be run masks the others.
const PLACES: [&str; 4] = [
    "run/systemd",
    "etc/systemd",
    "usr/local/lib/systemd",
    "usr/lib/systemd",
];
const FILE: &str = "nimbus.container";
/// Files that the generator reads, ours or not.
const KINDS: [&str; 8] = [
    ".container",
    ".volume",
    ".network",
    ".kube",
    ".image",
    ".build",
    ".pod",
    ".artifact",
];

/// Looks from `root` on, which is `/` unless a test says otherwise.
pub(super) fn look(probes: &mut Probes, layout: &Layout, root: &Utf8Path, commands: &dyn Commands) {
    let found = podman(commands);
    let detail = found.map_or_else(
        || "missing".to_owned(),
        |(major, minor)| format!("Podman {major}.{minor}"),
    );
    probes.add(
        "podman",
        Level::Required,
        found.is_some(),
        detail.clone(),
        "install Podman 4.4 or later",
    );
    probes.add(
        "podman_version",
        Level::Required,
        found.is_some_and(|version| version >= QUADLET),
        detail,
        "Quadlet needs Podman 4.4; with an older one use --systemd",
    );
    let generator = generator(layout.scope, root);
    probes.add(
        "quadlet_generator",
        Level::Required,
        generator.is_ok(),
        match &generator {
            Ok(path) => path.to_string(),
            Err(reason) => reason.clone(),
        },
        "install Podman with its generators for systemd, the system's and the accounts'",
    );
    if let Ok(generator) = generator {
        dry_run(probes, layout, &generator, commands);
    }
    let volume = commands.yes(&["podman", "volume", "exists", "nimbus-data"]);
    probes.add(
        "volume",
        Level::Advice,
        volume,
        if volume { "nimbus-data is there" } else { "nimbus-data will be made at the first start" },
        "a server that other computers reach needs a rotated admin token: podman run --rm -v nimbus-data:/var/lib/nimbus IMAGE auth rotate-admin",
    );
}

/// The generator of this scope's service manager, or why there is none.
fn generator(scope: Scope, root: &Utf8Path) -> Result<Utf8PathBuf, String> {
    let name = match scope {
        Scope::System => "system-generators/podman-system-generator",
        Scope::User => "user-generators/podman-user-generator",
    };
    for place in PLACES {
        let path = root.join(place).join(name);
        if path.symlink_metadata().is_err() {
            continue;
        }
        let runs = path
            .metadata()
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
        return if runs {
            Ok(path)
        } else {
            Err(format!("{path} is no program: it masks the generator"))
        };
    }
    Err(format!("there is no {name} in the folders of systemd"))
}

/// Lets the generator read our file, without a reload of the service manager.
fn dry_run(probes: &mut Probes, layout: &Layout, generator: &Utf8Path, commands: &dyn Commands) {
    let file = layout.quadlet.join(FILE);
    if !file.exists() {
        return;
    }
    let folders = format!("QUADLET_UNIT_DIRS={}", layout.quadlet);
    let mut words = vec!["env", &folders, generator.as_str(), "-dryrun"];
    words.extend((layout.scope == Scope::User).then_some("-user"));
    let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
    let (made, findings) = match commands.run(&words) {
        Ok(ran) => said(&ran),
        Err(error) => (false, vec![error.to_string()]),
    };
    let text = findings.join("; ");
    probes.add(
        "quadlet_dry_run",
        Level::Required,
        made,
        match (made, text.is_empty()) {
            (true, _) => format!("{file} makes nimbus.service"),
            (false, true) => format!("{file} makes no nimbus.service"),
            (false, false) => text.clone(),
        },
        "Podman's generator refuses the file: run install again with --overwrite, and see drop-ins beside it",
    );
    if made {
        probes.add(
            "quadlet_warnings",
            Level::Advice,
            findings.is_empty(),
            if findings.is_empty() {
                "none".to_owned()
            } else {
                text
            },
            "the service is made all the same; what Podman warns of comes from the flags of install, or from a drop-in",
        );
    }
}

/// Whether our service was made, and what the generator has to say about it. It reads all files of the
/// folder: what it says about others is left out, and so is its exit code, which may be theirs.
fn said(ran: &Ran) -> (bool, Vec<String>) {
    let made = ran.stdout.lines().any(|line| line == "---nimbus.service---");
    let findings = ran
        .stderr
        .lines()
        // Its name and process come first, but not of the second and later lines of one message.
        .map(|line| match line.split_once("]: ") {
            Some((prefix, rest)) if prefix.starts_with("quadlet-generator[") => rest,
            _ => line,
        })
        .filter(|line| !line.is_empty() && !line.starts_with("Loading source "))
        .filter(|line| !about_another(line))
        .map(str::to_owned)
        .collect();
    (made, findings)
}

/// Whether a line names files of Quadlet, and ours is not among them.
fn about_another(line: &str) -> bool {
    let mut names = line
        .split(|sign: char| sign.is_whitespace() || "\"'/,;:".contains(sign))
        .filter(|word| {
            KINDS
                .iter()
                .any(|kind| word.ends_with(kind) && word.len() > kind.len())
        })
        .peekable();
    names.peek().is_some() && names.all(|name| name != FILE)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::tests::{Script, found};
    use super::super::{Probe, Verdict};
    use super::*;

    /// What Podman 5.4.2 prints of a file with a key that it does not know, beside another such file.
    const REFUSED: &str = "\
quadlet-generator[24784]: Loading source unit file /etc/containers/systemd/nimbus.container
quadlet-generator[24784]: Loading source unit file /etc/containers/systemd/other.container
quadlet-generator[24784]: converting \"nimbus.container\": unsupported key 'Bogus' in group 'Container' in /etc/containers/systemd/nimbus.container
converting \"other.container\": unsupported key 'Foo' in group 'Container' in /etc/containers/systemd/other.container
";
    /// What it prints of a file that it takes, beside one that it does not.
    const WARNED: &str = "\
quadlet-generator[24790]: Loading source unit file /etc/containers/systemd/nimbus.container
quadlet-generator[24790]: Loading source unit file /etc/containers/systemd/other.container
quadlet-generator[24790]: Loading source drop-in file /etc/containers/systemd/nimbus.container.d/own.conf
quadlet-generator[24790]: Warning: nimbus.container specifies the image \"nimbus\" which not a fully qualified image name. This is not ideal for performance and security reasons. See the podman-pull manpage discussion of short-name-aliases.conf for details.
quadlet-generator[24790]: converting \"other.container\": unsupported key 'Foo' in group 'Container' in /etc/containers/systemd/other.container
";
    const MADE: &str = "---nimbus.service---\n[Unit]\nDescription=Nimbus node container\n";

    fn host(scope: Scope, dry_run: (i32, &'static str, &'static str), installed: bool) -> Vec<Probe> {
        let dir = camino_tempfile::tempdir().unwrap();
        let root = dir.path();
        let mut layout = Layout::new(scope, |_| Some("/home/a".to_owned())).unwrap();
        layout.quadlet = root.join("quadlet");
        std::fs::create_dir(&layout.quadlet).unwrap();
        if installed {
            std::fs::write(layout.quadlet.join(FILE), "").unwrap();
        }
        let folder = root.join(format!("usr/lib/systemd/{}-generators", scope.as_str()));
        std::fs::create_dir_all(&folder).unwrap();
        let program = folder.join(format!("podman-{}-generator", scope.as_str()));
        std::fs::write(&program, "").unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        let script = Script(Box::new(move |line| {
            if line == "podman --version" {
                return Some((0, "podman version 5.4.2\n", ""));
            }
            let user = line.ends_with(" -dryrun -user");
            let ours = line.starts_with("env QUADLET_UNIT_DIRS=") && line.contains("-generator -dryrun");
            (ours && user == (scope == Scope::User)).then_some(dry_run)
        }));
        let mut probes = Probes(Vec::new());
        look(&mut probes, &layout, root, &script);
        probes.0
    }

    #[test]
    fn the_generator_reads_the_file() {
        for scope in [Scope::System, Scope::User] {
            let probes = host(scope, (0, MADE, ""), true);
            assert_eq!(found(&probes, "quadlet_generator").result, Verdict::Pass);
            assert_eq!(found(&probes, "quadlet_dry_run").result, Verdict::Pass);
            assert_eq!(found(&probes, "quadlet_warnings").result, Verdict::Pass);
        }
        let probes = host(Scope::System, (0, "", ""), false);
        assert!(!probes.iter().any(|probe| probe.id == "quadlet_dry_run"));
    }

    #[test]
    fn a_file_that_is_refused_is_told_with_its_reason_alone() {
        let probes = host(Scope::System, (1, "", REFUSED), true);
        let probe = found(&probes, "quadlet_dry_run");
        assert_eq!((probe.result, probe.level), (Verdict::Fail, Level::Required));
        assert!(
            probe.detail.contains("unsupported key 'Bogus'") && !probe.detail.contains("Foo"),
            "{probe:?}"
        );
        assert!(probe.remedy.is_some());
        assert!(!probes.iter().any(|probe| probe.id == "quadlet_warnings"));
    }

    #[test]
    fn a_warning_is_a_finding_and_the_error_of_another_file_is_not() {
        let probes = host(Scope::User, (1, MADE, WARNED), true);
        assert_eq!(found(&probes, "quadlet_dry_run").result, Verdict::Pass);
        let probe = found(&probes, "quadlet_warnings");
        assert_eq!((probe.result, probe.level), (Verdict::Fail, Level::Advice));
        assert!(
            probe.detail.starts_with("Warning: nimbus.container") && !probe.detail.contains("Foo"),
            "{probe:?}"
        );
    }

    #[test]
    fn each_service_manager_has_a_generator_of_its_own() {
        let dir = camino_tempfile::tempdir().unwrap();
        let root = dir.path();
        let system = root.join("usr/lib/systemd/system-generators");
        std::fs::create_dir_all(&system).unwrap();
        let program = system.join("podman-system-generator");
        std::fs::write(&program, "").unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(generator(Scope::System, root).unwrap(), program);
        assert!(
            generator(Scope::User, root)
                .unwrap_err()
                .contains("user-generators")
        );
        // Masked, as systemd has it.
        let masks = root.join("etc/systemd/system-generators");
        std::fs::create_dir_all(&masks).unwrap();
        symlink("/dev/null", masks.join("podman-system-generator")).unwrap();
        assert!(generator(Scope::System, root).unwrap_err().contains("masks"));
    }
}
