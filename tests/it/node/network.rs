use super::host::{Host, PROGRAM};

#[test]
fn other_computers_need_a_fresh_token() {
    let host = Host::boot("network");
    let install = format!("{PROGRAM} node install --systemd --host 0.0.0.0");
    host.root(&install).refused(2, "--allow-network");
    host.root(&format!("{install} --allow-network")).ok();
    // It is refused once, and not tried again and again.
    assert_ne!(host.root("systemctl start nimbus.service").code, 0);
    let shown = "systemctl show --property NRestarts,ExecMainStatus nimbus.service";
    assert_eq!(host.root(shown).ok(), "NRestarts=0\nExecMainStatus=3\n");
    let log = host.root("nimbus node logs").ok();
    assert!(
        log.contains("rotate-admin") && log.contains("/var/lib/nimbus/.local/share/nimbus/auth/token"),
        "{log}"
    );

    // The volume is empty until then.
    host.root("nimbus auth rotate-admin").ok();
    host.root("systemctl start nimbus.service && curl -fsS http://$(hostname -I | cut -d' ' -f1):8080/ready")
        .ok();
    let log = host.root("nimbus node logs").ok();
    assert!(
        log.contains("Warning: other computers reach this server"),
        "{log}"
    );

    // Thirty days are the limit.
    let token = "/var/lib/nimbus/.local/share/nimbus/auth/token";
    let aged = format!(
        "sed -i -E 's/\"rotatedAt\": \"[0-9]{{4}}/\"rotatedAt\": \"2020/' {token} && grep -q 2020 {token}"
    );
    host.root(&aged).ok();
    assert_ne!(host.root("systemctl restart nimbus.service").code, 0);
    let log = host.root("nimbus node logs").ok();
    assert!(log.contains("days ago, and 30 are the limit"), "{log}");
    // Loopback never asks.
    host.root("nimbus node install --systemd --overwrite --now").ok();
    host.ready();
}
