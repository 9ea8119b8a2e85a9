//! A reader of Quadlet files that knows nothing of the writer but its table: sections, keys, versions, values.

use nimbus_compose::quadlet::directive::{DIRECTIVES, Section};
use nimbus_compose::quadlet::directive::{Kind, Version, find};
use nimbus_compose::quadlet::{Artifact, Options};
use nimbus_units::{Syntax, UnitFile, inspect, unquote};

/// The section of its own that a unit has, by its ending.
fn own(name: &str) -> Option<Section> {
    Some(match name.rsplit_once('.')?.1 {
        "container" => Section::Container,
        "pod" => Section::Pod,
        "kube" => Section::Kube,
        "volume" => Section::Volume,
        "network" => Section::Network,
        _ => return None,
    })
}

/// Reads a file as Podman's generator and the service manager would, and says what they would refuse.
pub(crate) fn check(artifact: &Artifact, options: &Options) -> Result<(), String> {
    let name = &artifact.name;
    let Some(own) = own(name) else {
        return Ok(());
    };
    let header = inspect(&artifact.text).ok_or("it has no header")?;
    if !header.untouched {
        return Err("the hash is not that of the content".to_owned());
    }
    let mode = options.mode.name();
    if header.field("Mode") != Some(mode) {
        return Err(format!("it says another mode than {mode}"));
    }
    let file = UnitFile::parse(&artifact.text).map_err(|error| error.to_string())?;
    let allowed = [Section::Unit, own, Section::Service, Section::Install];
    for section in file.sections() {
        let known = allowed
            .iter()
            .find(|allowed| allowed.name() == section.name())
            .ok_or_else(|| format!("[{}] is no section of it", section.name()))?;
        for (key, value) in section.settings() {
            let row = find(*known, key).ok_or_else(|| format!("{key}= is not in the table"))?;
            let newest = Version::new(u16::MAX, 0);
            if !options.podman.unwrap_or(newest).has(row.since) {
                return Err(format!("{key}= is of {}", row.since));
            }
            if value.is_empty() {
                return Err(format!(
                    "{key}= is empty and would take back what stands above it"
                ));
            }
            match row.kind {
                Kind::Words => {
                    let words =
                        unquote(value, Syntax::Command).map_err(|error| format!("{key}={value}: {error}"))?;
                    if words.is_empty() {
                        return Err(format!("{key}= has no words"));
                    }
                }
                Kind::Line => {
                    escaped(value, "%$").map_err(|sign| format!("{key}={value}: a single {sign}"))?
                }
                Kind::Exact => {
                    let number = value.strip_suffix('%').unwrap_or(value);
                    number
                        .parse::<f64>()
                        .map_err(|error| format!("{key}={value}: {error}"))?;
                }
                Kind::Manager => {
                    escaped(value, "%").map_err(|sign| format!("{key}={value}: a single {sign}"))?
                }
            }
        }
    }
    if own == Section::Container && file.value("Container", "Image").is_none() {
        return Err("it has no image".to_owned());
    }
    Ok(())
}

/// Every sign is there twice, or it would be replaced.
fn escaped(value: &str, signs: &str) -> Result<(), char> {
    let mut letters = value.chars();
    while let Some(letter) = letters.next() {
        if signs.contains(letter) && letters.next() != Some(letter) {
            return Err(letter);
        }
    }
    Ok(())
}

/// What Podman's generators of 5.4 and 5.8 print as their supported keys, of those that the table has.
#[test]
fn the_table_names_only_what_podman_knows() {
    // podman-systemd.unit(5) of 5.8, the sections that are written here.
    let container = "AddCapability AddDevice AddHost Annotation AppArmor AutoUpdate CgroupsMode ContainerName \
        ContainersConfModule DNS DNSOption DNSSearch DropCapability Entrypoint Environment EnvironmentFile EnvironmentHost \
        Exec ExposeHostPort GIDMap GlobalArgs Group GroupAdd HealthCmd HealthInterval HealthLogDestination HealthMaxLogCount \
        HealthMaxLogSize HealthOnFailure HealthRetries HealthStartPeriod HealthStartupCmd HealthStartupInterval \
        HealthStartupRetries HealthStartupSuccess HealthStartupTimeout HealthTimeout HostName HttpProxy Image IP IP6 Label \
        LogDriver LogOpt Mask Memory Mount Network NetworkAlias NoNewPrivileges Notify PidsLimit Pod PodmanArgs PublishPort Pull \
        ReadOnly ReadOnlyTmpfs ReloadCmd ReloadSignal Retry RetryDelay Rootfs RunInit SeccompProfile Secret SecurityLabelDisable \
        SecurityLabelFileType SecurityLabelLevel SecurityLabelNested SecurityLabelType ShmSize StartWithPod StopSignal \
        StopTimeout SubGIDMap SubUIDMap Sysctl Timezone Tmpfs UIDMap Ulimit Unmask User UserNS Volume WorkingDir";
    let pod = "AddHost ContainersConfModule DNS DNSOption DNSSearch ExitPolicy GIDMap GlobalArgs HostName IP IP6 Label Network \
        NetworkAlias PodmanArgs PodName PublishPort ServiceName ShmSize StopTimeout SubGIDMap SubUIDMap UIDMap UserNS Volume";
    let kube = "AutoUpdate ConfigMap ContainersConfModule ExitCodePropagation GlobalArgs KubeDownForce LogDriver Network \
        PodmanArgs PublishPort SetWorkingDirectory UserNS Yaml";
    let volume = "ContainersConfModule Copy Device Driver GlobalArgs Group Image Label Options PodmanArgs Type User VolumeName";
    let network = "ContainersConfModule DisableDNS DNS Driver Gateway GlobalArgs InterfaceName Internal IPAMDriver IPRange IPv6 \
        Label NetworkDeleteOnStop NetworkName Options PodmanArgs ServiceName Subnet";
    for row in DIRECTIVES {
        let known = match row.section {
            Section::Container => container,
            Section::Pod => pod,
            Section::Kube => kube,
            Section::Volume => volume,
            Section::Network => network,
            Section::Unit | Section::Service | Section::Install => continue,
        };
        assert!(
            known.split_whitespace().any(|key| key == row.key),
            "[{}] has no {}=",
            row.section.name(),
            row.key
        );
    }
}

#[test]
fn the_reader_refuses_what_it_should() {
    let options = Options::default();
    let file = |body: &str| Artifact {
        name: "x.container".to_owned(),
        text: nimbus_units::Header::new("x")
            .field("Mode", "containers")
            .unwrap()
            .seal(body),
    };
    let good = "[Container]\nImage=x\nEnvironment=\"A=b c\"\n";
    assert_eq!(check(&file(good), &options), Ok(()));
    for (body, why) in [
        (
            "[Container]\nImage=x\nPodmanArgs=--privileged\n",
            "not in the table",
        ),
        (
            "[Container]\nImage=x\n[Quadlet]\nDefaultDependencies=false\n",
            "no section",
        ),
        ("[Container]\nImage=%h\n", "a single %"),
        ("[Container]\nImage=x\nExec=$HOME\n", "replaced"),
        ("[Container]\nImage=x\nEnvironment=\n", "empty"),
        ("[Container]\nExec=a\n", "no image"),
    ] {
        let error = check(&file(body), &options).unwrap_err();
        assert!(error.contains(why), "{body}: {error}");
    }
    let mut changed = file(good);
    changed.text.push_str("User=0\n");
    assert!(check(&changed, &options).unwrap_err().contains("hash"));
    let old = Options {
        podman: Some(Version::new(4, 4)),
        ..Options::default()
    };
    assert!(check(&file("[Container]\nImage=x\nMemory=1\n"), &old).is_err());
}
