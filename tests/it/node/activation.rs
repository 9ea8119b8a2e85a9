use std::process::Command;

use nimbus_tests::process::binary;

use super::host::{As, Host, PROGRAM};

#[test]
fn the_first_connection_starts_the_node_and_is_answered() {
    let host = Host::boot("activation");
    let before = host.files();
    host.root(&format!(
        "{PROGRAM} node install --systemd --socket-activation --enable --now"
    ))
    .ok();
    assert_eq!(
        host.root("systemctl is-active nimbus.socket nimbus.service").out,
        "active\ninactive\n"
    );
    host.root("test ! -e /var/lib/nimbus/data").ok();
    let verified = host.root("nimbus node verify").ok();
    assert!(verified.contains("waits for the first connection"), "{verified}");
    host.root("systemd-analyze verify /etc/systemd/system/nimbus.service /etc/systemd/system/nimbus.socket")
        .ok();

    host.root("curl -fsS http://127.0.0.1:8080/ready").ok();
    assert_eq!(host.root("systemctl is-active nimbus.service").ok(), "active\n");
    assert!(host.exposure(As::Root) <= 2.0);
    host.root("nimbus node verify").ok();

    // Nobody is refused while it restarts: what comes in waits.
    let restart = "systemctl restart nimbus.service & for i in $(seq 20); do curl -fsS http://127.0.0.1:8080/ready >/dev/null || exit 1; done; wait";
    host.root(restart).ok();

    // Its children do not hold the port: with the socket gone, the address is free.
    host.root("systemctl stop nimbus.socket nimbus.service").ok();
    host.root("curl -s http://127.0.0.1:8080/ready; test $? -eq 7")
        .ok();

    // The other way round: the service takes the port itself.
    host.root("nimbus node install --systemd --enable --now --overwrite")
        .ok();
    host.root("test ! -e /etc/systemd/system/nimbus.socket").ok();
    host.ready();
    host.root(&format!("{PROGRAM} node uninstall --purge --yes")).ok();
    assert_eq!(host.files(), before);
}

#[test]
fn a_port_that_nobody_handed_over_is_not_taken() {
    let start = |pid: Option<&str>, count: Option<&str>| {
        let mut command = Command::new(binary());
        command.args(["start", "--systemd-socket-activation"]).env_clear();
        for (name, value) in [("LISTEN_PID", pid), ("LISTEN_FDS", count)] {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        let output = command.output().unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    for (pid, count, word) in [
        (None, Some("1"), "LISTEN_PID is not set"),
        (Some("1"), Some("1"), "LISTEN_PID is 1"),
    ] {
        let (code, said) = start(pid, count);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(word), "{said}");
    }
}
