//! The files that make a node: what stands in them, and why.

use camino::{Utf8Path, Utf8PathBuf};
use nimbus_units::{Header, Section, Syntax, UnitFile, exec_line, literal, quote};

use crate::account::ACCOUNT;
use crate::error::NodeError;
use crate::layout::{Layout, Scope, Target};
use crate::request::Install;

pub(crate) const DOCUMENTATION: &str = "https://github.com/nimbus/nimbus";
const NOTICE: &str = "Written by Nimbus. Do not patch it: run the command below again with other flags, or write\n\
                      settings to nimbus.env. Changes are noticed and shown by `nimbus node status`.";
/// The same for a container, which reads no such file.
const CONTAINER_NOTICE: &str = "Written by Nimbus. Do not patch it: run the command below again with other flags, or write\n\
                                settings as Environment= into nimbus.container.d/10-local.conf.";
/// Podman's first release that can wait for a health check before it says that a container is up.
const NOTIFY_HEALTHY: (u32, u32) = (5, 0);

/// A file that installing writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Its name below the folder of units.
    pub name: String,
    /// Where it goes.
    pub path: Utf8PathBuf,
    /// Every byte of it.
    pub text: String,
}

/// What the host has that changes the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The group that may use the socket of the container engine.
    pub(crate) engine_group: Option<String>,
    /// Podman's version.
    pub(crate) podman: Option<(u32, u32)>,
}

/// Every file of an installation, in the order in which they are written.
pub(crate) fn render(install: &Install, layout: &Layout, facts: &Facts) -> Result<Vec<Artifact>, NodeError> {
    let folder = layout.artifacts(install.request.target);
    let is_container = install.request.target == Target::Container;
    let notice = if is_container { CONTAINER_NOTICE } else { NOTICE };
    let artifact = |name: &str, template: &str, unit: &UnitFile| {
        seal_with(notice, folder, name, template, &install.command(), unit)
    };
    if is_container {
        let unit = container(install, facts)?;
        return Ok(vec![artifact(
            "nimbus.container",
            "quadlet-node-service/v1",
            &unit,
        )?]);
    }
    let mut artifacts = vec![artifact(
        "nimbus.service",
        "native-systemd-node-service/v1",
        &service(install, layout)?,
    )?];
    if install.request.socket_activation {
        artifacts.push(artifact(
            "nimbus.socket",
            "native-systemd-node-socket/v1",
            &socket(install)?,
        )?);
    }
    if let (true, Scope::System, Some(group)) = (install.request.engine, layout.scope, &facts.engine_group) {
        let mut unit = UnitFile::new();
        unit.section("Service")?
            .comment("Sandboxes run in the container engine of this host: its socket belongs to this group.")
            .set("SupplementaryGroups", literal(group))?;
        artifacts.push(artifact(ENGINE_DROP_IN, "native-systemd-node-engine/v1", &unit)?);
    }
    Ok(artifacts)
}

/// A file with its header.
pub(crate) fn seal(
    folder: &Utf8Path,
    name: &str,
    template: &str,
    command: &str,
    unit: &UnitFile,
) -> Result<Artifact, NodeError> {
    seal_with(NOTICE, folder, name, template, command, unit)
}

fn seal_with(
    notice: &str,
    folder: &Utf8Path,
    name: &str,
    template: &str,
    command: &str,
    unit: &UnitFile,
) -> Result<Artifact, NodeError> {
    let header = Header::new(notice)
        .field("Template", template)?
        .field("Source-Command", command)?
        .version(env!("CARGO_PKG_VERSION"));
    Ok(Artifact {
        name: name.to_owned(),
        path: folder.join(name),
        text: header.seal(&unit.to_string()),
    })
}

/// What gives the service access to the container engine; apart, so that the unit is the same on every host.
pub(crate) const ENGINE_DROP_IN: &str = "nimbus.service.d/50-engine.conf";

/// Every name that an installation of this target may have written.
pub(crate) fn names(target: Target) -> &'static [&'static str] {
    match target {
        Target::Systemd => &["nimbus.service", "nimbus.socket", ENGINE_DROP_IN],
        Target::Container => &["nimbus.container"],
    }
}

fn service(install: &Install, layout: &Layout) -> Result<UnitFile, NodeError> {
    let request = &install.request;
    let system = layout.scope == Scope::System;
    let mut file = UnitFile::new();

    let unit = file.section("Unit")?;
    unit.set("Description", "Nimbus node service")?
        .set("Documentation", DOCUMENTATION)?;
    let mut after = "network-online.target local-fs.target".to_owned();
    if request.socket_activation {
        unit.set("Requires", "nimbus.socket")?;
        after.insert_str(0, "nimbus.socket ");
    }
    if system {
        unit.set("After", after)?.set("Wants", "network-online.target")?;
    } else if request.socket_activation {
        // The targets of the network are the host's; an account's manager starts when they are reached.
        unit.set("After", "nimbus.socket")?;
    }

    let service = file.section("Service")?;
    begin(service, layout, &layout.env_file())?;
    let mut words = vec![
        install.binary.to_string(),
        "start".to_owned(),
        "--data-dir".to_owned(),
        layout.data().into_string(),
    ];
    if request.socket_activation {
        words.push("--systemd-socket-activation".to_owned());
    } else {
        words.extend([
            "--host".to_owned(),
            request.listen.ip().to_string(),
            "--port".to_owned(),
            request.listen.port().to_string(),
        ]);
    }
    if request.allow_network {
        words.push("--allow-network".to_owned());
    }
    service.set("ExecStart", exec_line(words)?)?;
    end(service, layout)?;

    file.section("Install")?.set(
        "WantedBy",
        if system {
            "multi-user.target"
        } else {
            "default.target"
        },
    )?;
    Ok(file)
}

/// What every process of Nimbus has in common before its command.
pub(crate) fn begin(service: &mut Section, layout: &Layout, env_file: &Utf8Path) -> Result<(), NodeError> {
    service
        .comment("Started once every service answers: `systemctl start` fails if one does not.")
        .set("Type", "notify")?
        .set("NotifyAccess", "main")?;
    let system = layout.scope == Scope::System;
    if system {
        service.set("User", ACCOUNT)?.set("Group", ACCOUNT)?;
    }
    service.set("WorkingDirectory", path(&layout.base))?;
    if system {
        let home = quote(&format!("HOME={}", layout.base), Syntax::Assignment)?;
        service.set("Environment", home)?;
    }
    service.set("EnvironmentFile", format!("-{}", path(env_file)))?;
    Ok(())
}

/// What every process of Nimbus has in common after its command: how it ends, comes back, and is confined.
pub(crate) fn end(service: &mut Section, layout: &Layout) -> Result<(), NodeError> {
    service
        .comment("The embedded bus gets no signal of its own: it ends after everybody has left it.")
        .set("KillMode", "mixed")?
        .set("Restart", "on-failure")?
        .set("RestartSec", "2")?
        .comment(
            "Wrong settings and refusals, such as an admin token that is too old, do not heal by themselves.",
        )
        .set("RestartPreventExitStatus", "2 3")?
        .set("SuccessExitStatus", "143")?
        .set("TimeoutStopSec", "30")?
        .set("LimitNOFILE", "65536")?;
    if layout.scope == Scope::System {
        service
            .set("StateDirectory", "nimbus")?
            .set("StateDirectoryMode", "0700")?;
    } else {
        service.set("RuntimeDirectory", "nimbus")?;
    }
    harden(service, layout)
}

/// Takes from the service what it does not need. The numbers that `systemd-analyze security` makes of it are
/// in the decision about units.
fn harden(service: &mut Section, layout: &Layout) -> Result<(), NodeError> {
    let system = layout.scope == Scope::System;
    let mut writable: Vec<String> = vec![path(&layout.base)];
    writable.extend(layout.writable.iter().map(|folder| path(folder)));
    service
        .comment("It needs its folder, the network and a socket, and gets nothing else.")
        .set("ReadWritePaths", writable.join(" "))?
        .set("ProtectHome", if system { "true" } else { "read-only" })?;
    for (key, value) in [
        ("NoNewPrivileges", "true"),
        ("CapabilityBoundingSet", ""),
        ("AmbientCapabilities", ""),
        ("ProtectSystem", "strict"),
        ("PrivateTmp", "true"),
        ("PrivateDevices", "true"),
        ("DevicePolicy", "closed"),
        ("PrivateUsers", "true"),
        ("ProtectProc", "invisible"),
        ("ProtectClock", "true"),
        ("ProtectHostname", "true"),
        ("ProtectKernelLogs", "true"),
        ("ProtectKernelModules", "true"),
        ("ProtectKernelTunables", "true"),
        ("RemoveIPC", "true"),
        ("KeyringMode", "private"),
        ("UMask", "0077"),
        ("LockPersonality", "true"),
        ("MemoryDenyWriteExecute", "true"),
        ("RestrictNamespaces", "true"),
        ("RestrictRealtime", "true"),
        ("RestrictSUIDSGID", "true"),
        ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6"),
        ("SystemCallArchitectures", "native"),
        ("SystemCallFilter", "@system-service"),
        ("SystemCallFilter", "~@privileged @resources"),
        ("SystemCallErrorNumber", "EPERM"),
    ] {
        service.set(key, value)?;
    }
    // In a user namespace this mount cannot be changed on every kernel, and the service would not start.
    if system {
        service.set("ProtectControlGroups", "true")?;
    }
    Ok(())
}

fn socket(install: &Install) -> Result<UnitFile, NodeError> {
    let mut file = UnitFile::new();
    file.section("Unit")?
        .set("Description", "Nimbus node socket")?
        .set("Documentation", DOCUMENTATION)?;
    file.section("Socket")?
        .comment(
            "Held by the service manager: connections wait here while the service starts or is replaced.",
        )
        .set("ListenStream", install.request.listen.to_string())?
        .set("SocketMode", "0600")?
        .set("DirectoryMode", "0755")?
        .set("NoDelay", "true")?
        .set("Backlog", "1024")?;
    file.section("Install")?.set("WantedBy", "sockets.target")?;
    Ok(file)
}

fn container(install: &Install, facts: &Facts) -> Result<UnitFile, NodeError> {
    let request = &install.request;
    let mut file = UnitFile::new();
    file.section("Unit")?
        .set("Description", "Nimbus node container")?
        .set("Documentation", DOCUMENTATION)?
        .set("After", "network-online.target")?
        .set("Wants", "network-online.target")?;
    let container = file.section("Container")?;
    container
        .set("Image", literal(request.image.as_deref().unwrap_or_default()))?
        .set("ContainerName", "nimbus")?
        .set("PublishPort", format!("{}:8080", request.listen))?
        .set("Volume", "nimbus-data:/var/lib/nimbus")?
        .set("NoNewPrivileges", "true")?
        .set("DropCapability", "all")?
        .comment("The program asks itself, without a shell: the image has neither that nor curl.")
        .set("HealthCmd", r#"["nimbus","health"]"#)?
        .set("HealthInterval", "30s")?
        .set("HealthTimeout", "5s")?
        .set("HealthRetries", "3")?
        .set("HealthStartPeriod", "10s")?;
    if facts.podman.is_some_and(|version| version >= NOTIFY_HEALTHY) {
        container.set("Notify", "healthy")?;
    }
    file.section("Service")?
        .set("Restart", "on-failure")?
        .set("RestartSec", "2")?
        .comment(
            "Wrong settings and refusals, such as an admin token that is too old, do not heal by themselves.",
        )
        .set("RestartPreventExitStatus", "2 3")?
        .comment("The first start may have to fetch the image.")
        .set("TimeoutStartSec", "900")?;
    // The generator applies this at every reload: `systemctl enable` refuses units that are generated.
    if request.enable {
        file.section("Install")?.set("WantedBy", "default.target")?;
    }
    Ok(file)
}

pub(crate) fn path(path: &Utf8Path) -> String {
    // A list of paths is split at spaces, and quoting keeps one whole.
    if path.as_str().contains(char::is_whitespace) {
        format!("\"{}\"", literal(path.as_str()))
    } else {
        literal(path.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Request;

    fn artifacts(
        target: Target,
        scope: Scope,
        change: impl FnOnce(&mut Request),
        facts: &Facts,
    ) -> Vec<Artifact> {
        let layout = Layout::new(scope, |name| (name == "HOME").then(|| "/home/a".to_owned())).unwrap();
        let mut request = Request::new(target, scope);
        change(&mut request);
        render(&request.check(&layout, "").unwrap(), &layout, facts).unwrap()
    }

    fn parsed(artifact: &Artifact) -> UnitFile {
        UnitFile::parse(&artifact.text).unwrap()
    }

    #[test]
    fn a_service_of_the_system() {
        let made = artifacts(Target::Systemd, Scope::System, |_| (), &Facts::default());
        let [service] = made.as_slice() else {
            panic!("{made:?}")
        };
        assert_eq!(service.path, "/etc/systemd/system/nimbus.service");
        let unit = parsed(service);
        assert_eq!(
            unit.value("Service", "ExecStart"),
            Some("/usr/local/bin/nimbus start --data-dir /var/lib/nimbus/data --host 127.0.0.1 --port 8080")
        );
        assert_eq!(unit.value("Service", "User"), Some("nimbus"));
        assert_eq!(unit.value("Service", "CapabilityBoundingSet"), Some(""));
        assert_eq!(unit.value("Install", "WantedBy"), Some("multi-user.target"));
        assert_eq!(unit.values("Service", "SystemCallFilter").count(), 2);
        let read = nimbus_units::inspect(&service.text).unwrap();
        assert!(read.untouched);
        assert_eq!(read.field("Template"), Some("native-systemd-node-service/v1"));
    }

    #[test]
    fn the_engine_is_a_file_of_its_own() {
        let facts = Facts {
            engine_group: Some("docker".to_owned()),
            podman: None,
        };
        let made = artifacts(
            Target::Systemd,
            Scope::System,
            |request| request.socket_activation = true,
            &facts,
        );
        let names: Vec<&str> = made.iter().map(|artifact| artifact.name.as_str()).collect();
        assert_eq!(names, ["nimbus.service", "nimbus.socket", ENGINE_DROP_IN]);
        let service = parsed(&made[0]);
        assert!(
            service
                .value("Service", "ExecStart")
                .unwrap()
                .ends_with(" --systemd-socket-activation")
        );
        assert_eq!(service.value("Unit", "Requires"), Some("nimbus.socket"));
        assert_eq!(
            parsed(&made[1]).value("Socket", "ListenStream"),
            Some("127.0.0.1:8080")
        );
        assert_eq!(
            parsed(&made[2]).value("Service", "SupplementaryGroups"),
            Some("docker")
        );
        let without = artifacts(
            Target::Systemd,
            Scope::System,
            |request| request.engine = false,
            &facts,
        );
        assert_eq!(without.len(), 1);
    }

    #[test]
    fn a_service_of_an_account() {
        let made = artifacts(Target::Systemd, Scope::User, |_| (), &Facts::default());
        let unit = parsed(&made[0]);
        assert_eq!(made[0].path, "/home/a/.config/systemd/user/nimbus.service");
        assert_eq!(unit.value("Install", "WantedBy"), Some("default.target"));
        for absent in ["User", "StateDirectory", "Environment", "ProtectControlGroups"] {
            assert_eq!(unit.value("Service", absent), None, "{absent}");
        }
        assert_eq!(
            unit.value("Service", "ReadWritePaths"),
            Some("/home/a/.local/share/nimbus /home/a/.local/state/nimbus")
        );
    }

    #[test]
    fn a_container_is_enabled_in_its_file() {
        let image = |request: &mut Request| request.image = Some("ghcr.io/nimbus/nimbus:1.2.3".to_owned());
        let made = artifacts(Target::Container, Scope::System, image, &Facts::default());
        let unit = parsed(&made[0]);
        assert_eq!(made[0].path, "/etc/containers/systemd/nimbus.container");
        assert_eq!(
            unit.value("Container", "PublishPort"),
            Some("127.0.0.1:8080:8080")
        );
        assert_eq!(
            (
                unit.value("Install", "WantedBy"),
                unit.value("Container", "Notify")
            ),
            (None, None)
        );
        assert_eq!(
            (
                unit.value("Service", "RestartPreventExitStatus"),
                unit.value("Service", "TimeoutStartSec")
            ),
            (Some("2 3"), Some("900"))
        );
        let newer = Facts {
            podman: Some((5, 2)),
            engine_group: None,
        };
        let enabled = |request: &mut Request| {
            image(request);
            request.enable = true;
        };
        let unit = parsed(&artifacts(Target::Container, Scope::System, enabled, &newer)[0]);
        assert_eq!(unit.value("Install", "WantedBy"), Some("default.target"));
        assert_eq!(unit.value("Container", "Notify"), Some("healthy"));
    }
}
