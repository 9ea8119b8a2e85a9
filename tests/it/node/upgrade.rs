use super::host::{Host, PROGRAM};

const BROKEN: &str = "printf '#!/bin/sh\\n[ \"$1\" = version ] && echo nimbus 9.9.9 && exit\\necho out of order >&2\\nexit 1\\n' >/tmp/broken && chmod 755 /tmp/broken";

#[test]
fn a_broken_program_gives_its_place_back() {
    let host = Host::boot("upgrade");
    host.root(&format!("{PROGRAM} node install --systemd --enable --now"))
        .ok();
    let digest = host.root("sha256sum /usr/local/bin/nimbus").ok();
    host.root(BROKEN).ok();
    let failed = host.root("nimbus node install --systemd --upgrade --from /tmp/broken");
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(
        failed.err.contains("nimbus 9.9.9 did not get ready") && failed.err.contains("is back and answers"),
        "{failed:?}"
    );
    host.root("curl -fsS http://127.0.0.1:8080/ready").ok();
    assert_eq!(host.root("sha256sum /usr/local/bin/nimbus").ok(), digest);
    assert_eq!(
        host.root("ls /usr/local/bin").ok(),
        "nimbus\n",
        "nothing is left beside it"
    );

    // What is no program at all is not even tried.
    let pid = host
        .root("systemctl show --property MainPID --value nimbus.service")
        .ok();
    host.root("echo nonsense >/tmp/nonsense").ok();
    host.root("nimbus node install --systemd --upgrade --from /tmp/nonsense")
        .refused(1, "does not run here");
    assert_eq!(
        host.root("systemctl show --property MainPID --value nimbus.service")
            .ok(),
        pid
    );

    // A good one, which differs from the first in a byte that nobody reads.
    host.root("cp /opt/nimbus /tmp/good && echo >>/tmp/good").ok();
    let done = host.root("/tmp/good install --upgrade").ok();
    assert!(
        done.starts_with("Upgraded: nimbus ") && done.contains(" serves instead of "),
        "{done}"
    );
    host.root("curl -fsS http://127.0.0.1:8080/ready && cmp /tmp/good /usr/local/bin/nimbus")
        .ok();
    host.root("nimbus node verify").ok();
}

#[test]
fn a_node_whose_port_systemd_holds_is_upgraded_too() {
    let host = Host::boot("upgrade-socket");
    host.root(&format!(
        "{PROGRAM} node install --systemd --socket-activation --now"
    ))
    .ok();
    host.root(BROKEN).ok();
    let failed = host.root("nimbus node install --systemd --upgrade --from /tmp/broken");
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(failed.err.contains("is back and answers"), "{failed:?}");
    host.root("curl -fsS http://127.0.0.1:8080/ready").ok();
    // Stopped for good, it is replaced and stays stopped.
    host.root("systemctl stop nimbus.socket nimbus.service && cp /opt/nimbus /tmp/good && echo >>/tmp/good")
        .ok();
    let done = host.root("/tmp/good node install --systemd --upgrade").ok();
    assert!(done.contains("was not running"), "{done}");
    assert_eq!(host.root("systemctl is-active nimbus.service").out, "inactive\n");
}
