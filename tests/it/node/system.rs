use super::host::{As, Host, PROGRAM};

#[test]
fn a_node_of_the_system_from_nothing_to_nothing() {
    let host = Host::boot("system");
    let before = host.files();
    let install = format!("{PROGRAM} node install --systemd --system --enable --now");

    let dry = host.root(&format!("{install} --dry-run")).ok();
    assert_eq!(host.files(), before, "a dry run touches nothing");
    assert_eq!(host.root("getent passwd nimbus").code, 2);
    for line in [
        "Nimbus node install dry-run",
        "mode: native systemd",
        "scope: system",
        "### nimbus.service -> /etc/systemd/system/nimbus.service",
        "copy: /opt/nimbus -> /usr/local/bin/nimbus",
        "run: systemctl daemon-reload",
        "run: systemctl enable nimbus.service",
        "run: systemctl start nimbus.service",
    ] {
        assert!(dry.lines().any(|found| found == line), "{line} is not in {dry}");
    }
    host.sh(As::User, &install).refused(3, "sudo");
    assert_eq!(host.files(), before, "refused means untouched");

    let said = host.root(&install).ok();
    assert_eq!(
        said,
        "Installed: native systemd in system scope; it answers on http://127.0.0.1:8080.\n"
    );
    // Started means ready: nothing has to be waited for.
    host.root("curl -fsS http://127.0.0.1:8080/ready").ok();
    let unit = host.root("cat /etc/systemd/system/nimbus.service").ok();
    assert!(dry.contains(&unit), "the dry run has shown every byte");
    let owner = "stat -c %U /proc/$(systemctl show --property MainPID --value nimbus.service)";
    assert_eq!(host.root(owner).ok(), "nimbus\n");
    assert_eq!(
        host.root("stat -c '%U %a' /var/lib/nimbus /etc/nimbus/nimbus.env")
            .ok(),
        "nimbus 700\nroot 600\n"
    );

    let status = host.root("nimbus node status");
    assert_eq!(status.code, 0, "{status:?}");
    assert!(status.out.contains("Active: active (running)"), "{status:?}");
    assert!(
        status.err.contains("/etc/systemd/system/nimbus.service: in_sync"),
        "{status:?}"
    );
    host.until(As::Root, "nimbus node logs", |said| {
        said.out.contains("is ready after")
    });
    host.root("nimbus node verify").ok();
    host.root("systemd-analyze verify /etc/systemd/system/nimbus.service")
        .ok();
    let exposure = host.exposure(As::Root);
    assert!(exposure <= 2.0, "the exposure is {exposure}");
    let doctor = host.root("nimbus node doctor");
    assert_eq!(doctor.code, 0, "{doctor:?}");
    assert!(
        doctor.out.contains("advice: engine:"),
        "there is no container engine: {doctor:?}"
    );

    // Root's token is the node's, and the node can read what root has made.
    let token = "stat -c %U /var/lib/nimbus/.local/share/nimbus/auth/token";
    host.root("nimbus auth rotate-admin").ok();
    assert_eq!(host.root(token).ok(), "nimbus\n");
    let asked = "curl -fsS -H \"Authorization: Bearer $(nimbus auth token)\" http://127.0.0.1:8080/api/hosts";
    host.root(asked).ok();

    // A process that dies comes back.
    let pid = host
        .root("systemctl show --property MainPID --value nimbus.service")
        .ok();
    host.root(&format!("kill -9 {pid}")).ok();
    host.until(
        As::Root,
        "systemctl show --property MainPID --value nimbus.service",
        |said| !["0", pid.trim()].contains(&said.out.trim()),
    );
    host.ready();

    // Somebody patches the unit.
    host.root("sed -i s/RestartSec=2/RestartSec=60/ /etc/systemd/system/nimbus.service")
        .ok();
    let status = host.root("nimbus node status");
    assert!(
        status.err.contains("modified") && status.err.contains("-RestartSec=60\n+RestartSec=2"),
        "{status:?}"
    );
    host.root("nimbus node verify >&2").refused(1, "modified");
    host.root(&install).refused(3, "-RestartSec=60\n+RestartSec=2");
    host.root("grep -q RestartSec=60 /etc/systemd/system/nimbus.service")
        .ok();
    host.root(&format!("{install} --overwrite")).ok();
    assert_eq!(host.root("cat /etc/systemd/system/nimbus.service").ok(), unit);
    host.ready();
    host.root("nimbus node verify").ok();

    // Without its data, then with it.
    let said = host.root("nimbus node uninstall").ok();
    assert!(
        said.starts_with("Uninstalled: native systemd in system scope."),
        "{said}"
    );
    host.root("test -e /var/lib/nimbus/data/nimbus.db && test ! -e /usr/local/bin/nimbus")
        .ok();
    assert_eq!(host.root(&format!("{PROGRAM} node status")).code, 4);
    host.root(&format!("{PROGRAM} node uninstall --purge"))
        .refused(3, "--yes");
    host.root(&format!("{PROGRAM} node uninstall --purge --yes")).ok();
    assert_eq!(host.files(), before, "uninstalling leaves nothing");
    assert_eq!(host.root("getent passwd nimbus; getent group nimbus").code, 2);
}

#[test]
fn a_file_of_somebody_else_stays() {
    let host = Host::boot("foreign");
    host.root("printf '[Service]\\nExecStart=/bin/true\\n' >/etc/systemd/system/nimbus.service")
        .ok();
    let before = host.files();
    host.root(&format!("{PROGRAM} node install --systemd"))
        .refused(3, "foreign");
    host.root(&format!("{PROGRAM} node uninstall"))
        .refused(3, "not written by Nimbus");
    assert_eq!(host.files(), before);

    // A container's file is written and taken away; its service would be made by a generator, which is missing.
    let image = format!("ghcr.io/nimbus/nimbus:1.2.3@sha256:{}", "0a".repeat(32));
    let install = format!("{PROGRAM} node install --container --image {image}");
    let dry = host.root(&format!("{install} --dry-run")).ok();
    host.root(&install).ok();
    let file = host.root("cat /etc/containers/systemd/nimbus.container").ok();
    assert!(
        dry.contains(&file) && file.contains(&format!("Image={image}\n")),
        "{dry}"
    );
    host.root(&format!(
        "{PROGRAM} node install --container --image ghcr.io/nimbus/nimbus:latest"
    ))
    .refused(3, "moves");
    let doctor = host.root(&format!("{PROGRAM} node doctor --container"));
    assert_eq!(doctor.code, 1, "{doctor:?}");
    assert!(doctor.out.contains("required: podman:"), "{doctor:?}");
    host.root(&format!("{PROGRAM} node uninstall --container")).ok();
    assert_eq!(host.files(), before);
}

#[test]
fn what_is_installed_again_is_upgraded() {
    let host = Host::boot("alias");
    let before = host.files();
    host.root(&format!("{PROGRAM} install")).ok();
    host.root("systemctl is-enabled nimbus.service").ok();
    let again = host.root(&format!("{PROGRAM} install")).ok();
    assert!(again.starts_with("Nothing to do: nimbus "), "{again}");
    host.root(&format!("{PROGRAM} uninstall --purge --yes")).ok();
    assert_eq!(host.files(), before);
}
