use super::host::{As, Host, PROGRAM};

#[test]
fn a_node_of_an_account_from_nothing_to_nothing() {
    let host = Host::boot("user");
    host.root("loginctl enable-linger user").ok();
    let user = |line: &str| host.sh(As::User, line);
    host.until(As::User, "systemctl --user is-system-running", |said| {
        said.out == "running\n"
    });
    let before = host.files();
    let install = format!("{PROGRAM} node install --systemd --user --enable --now");
    let nimbus = "~/.local/bin/nimbus";

    user(&format!("{install} --dry-run")).ok();
    assert_eq!(host.files(), before, "a dry run touches nothing");
    user(&install).ok();
    host.root("curl -fsS http://127.0.0.1:8080/ready").ok();
    let status = user(&format!("{nimbus} node status --user"));
    assert_eq!(status.code, 0, "{status:?}");
    assert!(
        status
            .err
            .contains("/home/user/.config/systemd/user/nimbus.service: in_sync"),
        "{status:?}"
    );
    host.until(As::User, &format!("{nimbus} node logs --user"), |said| {
        said.out.contains("is ready after")
    });
    user(&format!("{nimbus} node verify --user")).ok();
    user("systemd-analyze --user verify ~/.config/systemd/user/nimbus.service").ok();
    let exposure = host.exposure(As::User);
    assert!(exposure <= 2.0, "the exposure is {exposure}");
    // Commands of the account find the server without being told where it is.
    user(&format!("{nimbus} health")).ok();

    user("sed -i s/RestartSec=2/RestartSec=60/ ~/.config/systemd/user/nimbus.service").ok();
    user(&install).refused(3, "-RestartSec=60\n+RestartSec=2");
    user(&format!("{install} --overwrite")).ok();
    host.ready();

    user("printf '#!/bin/sh\\n[ \"$1\" = version ] && echo nimbus 9.9.9 && exit\\nexit 1\\n' >/tmp/broken && chmod 755 /tmp/broken").ok();
    let failed = user(&format!(
        "{nimbus} node install --systemd --user --upgrade --from /tmp/broken"
    ));
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(failed.err.contains("is back and answers"), "{failed:?}");
    host.root("curl -fsS http://127.0.0.1:8080/ready").ok();

    // The account's manager holds ports too.
    user(&format!("{install} --socket-activation --overwrite")).ok();
    let units = "systemctl --user is-active nimbus.socket nimbus.service";
    assert_eq!(user(units).out, "active\ninactive\n");
    host.root("curl -fsS http://127.0.0.1:8080/ready").ok();
    assert_eq!(user(units).ok(), "active\nactive\n");

    user(&format!("{PROGRAM} node uninstall --user --purge --yes")).ok();
    assert_eq!(host.files(), before, "uninstalling leaves nothing");
}
