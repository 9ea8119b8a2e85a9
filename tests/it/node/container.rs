//! Podman's own generator makes the unit. Podman itself is a script: nothing is run here.

use std::process::Command;

use nimbus_tests::process::root;

use super::host::{As, Host, PROGRAM};

const PODMAN: &str = r#"#!/bin/sh
case "$*" in
--version) echo podman version 5.4.2 ;;
"volume exists nimbus-data") test -e /tmp/volume ;;
"volume rm nimbus-data") rm /tmp/volume && echo nimbus-data ;;
*) exit 125 ;;
esac
"#;

/// A host with the generators of Podman 5.4, for the system and for accounts.
fn boot(test: &str) -> Host {
    let output = Command::new(root().join("ops/dev/quadlet.sh")).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let program = String::from_utf8(output.stdout).unwrap();
    let mount = format!("{}:/usr/libexec/podman/quadlet:ro", program.trim());
    let host = Host::with(test, &["-v", &mount]);
    host.root(&format!(
        "cat >/usr/bin/podman <<'END'\n{PODMAN}END\nchmod 755 /usr/bin/podman
         for scope in system user; do
             mkdir -p /usr/lib/systemd/$scope-generators
             ln -s /usr/libexec/podman/quadlet /usr/lib/systemd/$scope-generators/podman-$scope-generator
         done"
    ))
    .ok();
    host
}

fn install() -> String {
    let digest = "0a".repeat(32);
    format!("{PROGRAM} node install --container --image ghcr.io/nimbus/nimbus:1.2.3@sha256:{digest}")
}

#[test]
fn what_the_generator_says_of_the_file_is_a_finding() {
    let host = boot("quadlet");
    let doctor = format!("{PROGRAM} node doctor --container");
    let before = host.root(&doctor);
    assert_eq!(before.code, 0, "{before:?}");
    host.root(&install()).ok();
    let made = host.root("systemctl show --property=FragmentPath --value nimbus.service");
    assert_eq!(made.out, "/run/systemd/generator/nimbus.service\n", "{made:?}");
    // That somebody else's file is wrong is not our node's matter.
    host.root("printf '[Container]\\nFoo=1\\n' >/etc/containers/systemd/other.container")
        .ok();
    let all = host.root(&format!("{doctor} --output json")).ok();
    for id in ["quadlet_dry_run", "quadlet_warnings", "quadlet_generator"] {
        let probe = all.split("},").find(|part| part.contains(&format!("\"{id}\"")));
        assert!(probe.is_some_and(|probe| probe.contains("\"pass\"")), "{all}");
    }

    let drop_in = |line: &str| {
        host.root(&format!(
            "mkdir -p /etc/containers/systemd/nimbus.container.d
             printf '[Container]\\n{line}\\n' >/etc/containers/systemd/nimbus.container.d/own.conf"
        ))
        .ok();
        host.root(&doctor)
    };
    let warned = drop_in("Image=nimbus");
    assert_eq!(warned.code, 0, "{warned:?}");
    assert!(
        warned
            .out
            .contains("advice: quadlet_warnings: Warning: nimbus.container"),
        "{warned:?}"
    );
    let refused = drop_in("Bogus=1");
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.out.contains("required: quadlet_dry_run:") && refused.out.contains("'Bogus'"),
        "{refused:?}"
    );
    assert!(!refused.out.contains("Foo"), "{refused:?}");
    // Nothing was reloaded: what runs is what it was.
    host.root("systemctl cat nimbus.service | grep -q 1.2.3").ok();
}

#[test]
fn an_account_is_told_what_its_own_engine_lacks() {
    let host = boot("rootless");
    host.root("loginctl enable-linger user && : >/etc/subuid && : >/etc/subgid")
        .ok();
    host.until(As::User, "systemctl --user is-system-running", |said| {
        said.out == "running\n"
    });
    let doctor = format!("{PROGRAM} node doctor --container --user");
    host.sh(As::User, &format!("{} --user", install())).ok();
    let told = host.sh(As::User, &doctor);
    assert_eq!(told.code, 1, "{told:?}");
    for part in [
        "required: subuid: /etc/subuid gives this account 0 ids",
        "required: subgid: /etc/subgid gives this account 0 ids",
        "required: uidmap: there is no newuidmap and no newgidmap",
    ] {
        assert!(told.out.contains(part), "{part}: {told:?}");
    }
    assert!(!told.out.contains("linger"), "{told:?}");
    host.root("usermod --add-subuids 100000-165535 --add-subgids 100000-165535 user")
        .ok();
    host.root("ln -s /bin/true /usr/bin/newuidmap; ln -s /bin/true /usr/bin/newgidmap")
        .ok();
    let told = host.sh(As::User, &doctor);
    assert_eq!(told.code, 0, "{told:?}");
    host.root("rm /usr/lib/systemd/user-generators/podman-user-generator")
        .ok();
    let told = host.sh(As::User, &doctor);
    assert_eq!(told.code, 1, "{told:?}");
    assert!(told.out.contains("required: quadlet_generator:"), "{told:?}");
}

#[test]
fn purging_a_container_takes_its_volume_along() {
    let host = boot("volume");
    let before = host.files();
    host.root("touch /tmp/volume").ok();
    host.root(&install()).ok();
    let uninstall = format!("{PROGRAM} node uninstall --container");
    let kept = host.root(&uninstall);
    assert_eq!(kept.code, 0, "{kept:?}");
    assert!(kept.err.contains("kept: the volume nimbus-data"), "{kept:?}");
    host.root("test -e /tmp/volume").ok();

    host.root(&install()).ok();
    host.root(&format!("{uninstall} --purge"))
        .refused(3, "the volume nimbus-data");
    let dry = host.root(&format!("{uninstall} --purge --dry-run")).ok();
    for line in [
        "remove: /etc/containers/systemd/nimbus.container",
        "remove: /etc/containers/systemd",
        "remove: /etc/nimbus",
        "run: podman volume rm nimbus-data",
    ] {
        assert!(dry.lines().any(|said| said == line), "{line}: {dry}");
    }
    host.root("test -e /tmp/volume").ok();
    let gone = host.root(&format!("{uninstall} --purge --yes"));
    assert_eq!(gone.code, 0, "{gone:?}");
    assert!(gone.err.contains("removed: the volume nimbus-data"), "{gone:?}");
    host.root("test ! -e /tmp/volume").ok();
    assert_eq!(host.files(), before);

    // Without Podman the command for it is told.
    host.root(&install()).ok();
    host.root("rm /usr/bin/podman").ok();
    let left = host.root(&format!("{uninstall} --purge --yes"));
    assert_eq!(left.code, 0, "{left:?}");
    assert!(
        left.err.contains("left: the volume nimbus-data if there is one"),
        "{left:?}"
    );
    assert!(left.err.contains("sudo podman volume rm nimbus-data"), "{left:?}");
    assert_eq!(host.files(), before);
}
