//! Accounts and groups of the host.

use std::os::unix::fs::MetadataExt;

use camino::Utf8Path;

use crate::commands::{Commands, owned};

/// The account of the service in system scope, and its group.
pub const ACCOUNT: &str = "nimbus";
/// What `useradd` sets for it, by which it is known again as ours.
const SHELL: &str = "/usr/sbin/nologin";
/// Where engines listen that belong to the host.
const SOCKETS: [&str; 2] = ["/var/run/docker.sock", "/run/podman/podman.sock"];

/// Whether this process may change the host.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// An entry of the host's accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    home: String,
    shell: String,
}

impl Account {
    /// The service's account, if the host has it.
    pub(crate) fn find(commands: &dyn Commands) -> Option<Self> {
        parse(&commands.says(&["getent", "passwd", ACCOUNT])?)
    }

    /// Whether it is one that installing made: nobody signs in with it, and its home is the node's.
    pub(crate) fn is_ours(&self, home: &Utf8Path) -> bool {
        self.home == home.as_str() && self.shell == SHELL
    }
}

fn parse(line: &str) -> Option<Account> {
    // name:password:uid:gid:comment:home:shell, passwd(5)
    let mut fields = line.lines().next()?.split(':').skip(2);
    Some(Account {
        uid: fields.next()?.parse().ok()?,
        gid: fields.next()?.parse().ok()?,
        home: fields.nth(1)?.to_owned(),
        shell: fields.next()?.to_owned(),
    })
}

/// What makes the account.
pub(crate) fn creation(home: &Utf8Path) -> Vec<String> {
    owned(&[
        "useradd",
        "--system",
        "--user-group",
        "--no-create-home",
        "--home-dir",
        home.as_str(),
        "--shell",
        SHELL,
        ACCOUNT,
    ])
}

/// The group of the container engine's socket: who is in it may use the engine. None if there is no
/// engine, or only root may use it.
pub(crate) fn engine_group(commands: &dyn Commands) -> Option<String> {
    let gid = SOCKETS
        .iter()
        .find_map(|socket| std::fs::metadata(socket).ok())
        .map(|socket| socket.gid())
        .filter(|gid| *gid != 0)?;
    let line = commands.says(&["getent", "group", &gid.to_string()])?;
    line.split(':').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_account_is_known_again() {
        let account = parse("nimbus:x:998:997::/var/lib/nimbus:/usr/sbin/nologin\n").unwrap();
        assert_eq!((account.uid, account.gid), (998, 997));
        assert!(account.is_ours("/var/lib/nimbus".into()));
        let person = parse("nimbus:x:1000:1000:N:/home/nimbus:/bin/bash").unwrap();
        assert!(!person.is_ours("/var/lib/nimbus".into()));
        assert_eq!(parse("nonsense"), None);
    }
}
