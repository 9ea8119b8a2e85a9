//! From a launch request and an image to what is done: pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use nimbus_engine::{Image, Limits, Signal, Tmpfs};
use nimbus_guest::protocol::{Claim, CommandSpec, Forward, PROXY_PORT, TerminalSize};
use nimbus_proto::agent::LaunchRequest;
use nimbus_proto::workloads::{EgressRule, HealthCheck, Mount, Port, Probe, Profile, Protocol};

use crate::error::AgentError;
use crate::ports;
use crate::slot::Class;

/// The main process' command; its restarts are `main.<n>`.
pub(crate) const MAIN: &str = "main";
/// Commands that the agent runs for itself begin with this.
pub(crate) const OWN_COMMANDS: &str = "nimbus.";
/// Images that bring display and browser say so.
pub(crate) const DESKTOP_LABEL: &str = "io.nimbus.desktop";

/// A probe's time limit unless the image's health check has one.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Size of a memory file system that names none.
const TMPFS_BYTES: u64 = 64 << 20;
const TERMINAL: TerminalSize = TerminalSize { cols: 80, rows: 24 };
/// Inside, the names of raw TCP rules mean loopback addresses of this network.
const FORWARD_NETWORK: (u8, u8) = (127, 77);

/// What is done to run a sandbox.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) class: Class,
    pub(crate) claim: Claim,
    pub(crate) main: CommandSpec,
    pub(crate) stop_signal: i32,
    pub(crate) ports: Vec<Port>,
    pub(crate) readiness: Option<Readiness>,
    pub(crate) probe_timeout: Duration,
    pub(crate) health: Option<HealthCheck>,
    pub(crate) volumes: Vec<VolumeWanted>,
    pub(crate) tmpfs: Vec<Tmpfs>,
    pub(crate) image_digest: String,
}

/// What is tried before a sandbox counts as ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Readiness {
    pub(crate) port: u16,
    /// An answer in HTTP is expected, not only a connection.
    pub(crate) http: bool,
}

/// A tenant's volume in a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VolumeWanted {
    pub(crate) name: String,
    pub(crate) target: String,
    pub(crate) read_only: bool,
}

impl Plan {
    /// # Errors
    /// [`AgentError::Invalid`] for what this image cannot be; [`AgentError::Unavailable`] for a desktop
    /// without a browser in its image.
    pub(crate) fn new(request: &LaunchRequest, image: &Image) -> Result<Self, AgentError> {
        let config = &image.config;
        if request.profile == Profile::Desktop
            && config.labels.get(DESKTOP_LABEL).map(String::as_str) != Some("provided")
        {
            return Err(AgentError::Unavailable {
                backend: "container",
                missing: vec!["desktop_helper".to_owned()],
            });
        }
        let ports = published(request, &config.exposed_ports)?;
        let (volumes, tmpfs) = mounts(&request.mounts)?;
        let health = request.health.clone().or_else(|| {
            config.healthcheck.as_ref().map(|check| HealthCheck {
                probe: Probe::Exec {
                    argv: check.argv.clone(),
                },
                interval_ms: millis(check.interval.unwrap_or(Duration::from_secs(30))),
                timeout_ms: millis(check.timeout.unwrap_or(Duration::from_secs(30))),
                retries: check.retries.unwrap_or(3),
                start_period_ms: millis(check.start_period.unwrap_or_default()),
                restart_on_unhealthy: false,
            })
        });
        Ok(Self {
            class: class(request, image),
            claim: claim(request, config.workdir.as_str())?,
            main: main(request, image)?,
            stop_signal: config.stop_signal.as_ref().and_then(number).unwrap_or(SIGTERM),
            readiness: readiness(&ports),
            ports,
            probe_timeout: config
                .healthcheck
                .as_ref()
                .and_then(|check| check.timeout)
                .unwrap_or(PROBE_TIMEOUT),
            health,
            volumes,
            tmpfs,
            image_digest: image.digest.to_string(),
        })
    }

    /// Whether something has to be mounted into the container.
    pub(crate) fn has_mounts(&self) -> bool {
        !self.volumes.is_empty() || !self.tmpfs.is_empty()
    }

    /// The main process as it is run for the `n`th time.
    pub(crate) fn command(&self, run: u32) -> CommandSpec {
        let mut spec = self.main.clone();
        spec.id = main_id(run);
        spec
    }
}

/// The command id of the main process' `n`th run.
pub(crate) fn main_id(run: u32) -> String {
    if run == 0 {
        MAIN.to_owned()
    } else {
        format!("{MAIN}.{run}")
    }
}

/// Whether a caller may not choose this command id.
pub(crate) fn is_own(command: &str) -> bool {
    command == MAIN || command.starts_with("main.") || command.starts_with(OWN_COMMANDS)
}

/// The class of containers that a request needs.
pub(crate) fn class(request: &LaunchRequest, image: &Image) -> Class {
    Class {
        image: image.id.clone(),
        user: request
            .process
            .user
            .clone()
            .filter(|user| *user != image.config.user && !user.is_empty()),
        limits: Limits {
            millicpus: request.resources.cpu_milli,
            memory_bytes: request.resources.memory_bytes,
            pids: request.resources.pids,
            disk_bytes: Some(request.resources.disk_bytes),
        },
        desktop: request.profile == Profile::Desktop,
        read_only_root: request.read_only_root,
    }
}

/// The class of an image's containers where no launch has shown another: a tenant's default limits.
pub(crate) fn default_class(image: &Image) -> Class {
    Class {
        image: image.id.clone(),
        user: None,
        limits: Limits {
            millicpus: 1000,
            memory_bytes: 512 << 20,
            pids: 512,
            disk_bytes: Some(5 << 30),
        },
        desktop: false,
        read_only_root: false,
    }
}

fn main(request: &LaunchRequest, image: &Image) -> Result<CommandSpec, AgentError> {
    let (process, config) = (&request.process, &image.config);
    let argv = if !process.argv.is_empty() {
        process.argv.clone()
    } else {
        let entrypoint = process.entrypoint.as_ref().unwrap_or(&config.entrypoint);
        // The image's arguments belong to the image's entrypoint.
        let command = match (&process.command, &process.entrypoint) {
            (Some(command), _) => command.as_slice(),
            (None, Some(_)) => &[],
            (None, None) => &config.cmd,
        };
        [entrypoint.as_slice(), command].concat()
    };
    if argv.is_empty() {
        return Err(AgentError::Invalid(format!(
            "{} says no command to run: give process.argv",
            request.image
        )));
    }
    let mut main = CommandSpec::new(MAIN, argv);
    // A session may give it input at any time.
    main.stdin = true;
    main.terminal = process.terminal.then_some(TERMINAL);
    main.log_bytes = Some(request.resources.log_bytes);
    if process.terminal && !process.env.iter().any(|one| one.name == "TERM") {
        main.env.push(("TERM".to_owned(), "xterm".to_owned()));
    }
    Ok(main)
}

fn claim(request: &LaunchRequest, workdir: &str) -> Result<Claim, AgentError> {
    let mut env = Vec::new();
    let proxy = request
        .egress
        .iter()
        .any(|rule| matches!(rule.protocol, Protocol::Http | Protocol::Https));
    if proxy {
        let address = format!("http://127.0.0.1:{PROXY_PORT}");
        for (name, value) in [
            ("HTTP_PROXY", address.as_str()),
            ("HTTPS_PROXY", address.as_str()),
            ("NO_PROXY", "localhost,127.0.0.1,::1"),
        ] {
            env.push((name.to_owned(), value.to_owned()));
            env.push((name.to_lowercase(), value.to_owned()));
        }
    }
    env.extend(
        request
            .process
            .env
            .iter()
            .map(|one| (one.name.clone(), one.value.reveal().to_owned())),
    );
    env.push(("NIMBUS_SANDBOX_ID".to_owned(), request.sandbox.clone()));
    env.push(("NIMBUS_SANDBOX_TENANT".to_owned(), request.tenant.clone()));
    let cwd = match request.process.cwd.as_deref() {
        Some(cwd) if !cwd.starts_with('/') => {
            return Err(AgentError::Invalid(
                "process.cwd is not an absolute path".to_owned(),
            ));
        }
        Some(cwd) => cwd,
        None if workdir.is_empty() => "/",
        None => workdir,
    };
    let (forwards, hosts) = forwards(&request.egress)?;
    Ok(Claim {
        env,
        cwd: Some(cwd.to_owned()),
        hosts,
        // CONNECT works for raw rules, too.
        proxy: !request.egress.is_empty(),
        forwards,
        log_bytes: None,
    })
}

/// Lines of `/etc/hosts`.
type Hosts = Vec<(IpAddr, String)>;

/// Loopback addresses for the names of raw TCP rules, one per name.
fn forwards(rules: &[EgressRule]) -> Result<(Vec<Forward>, Hosts), AgentError> {
    let mut of_host: BTreeMap<String, Ipv4Addr> = BTreeMap::new();
    let mut forwards: Vec<Forward> = Vec::new();
    let raw = rules
        .iter()
        .filter(|rule| rule.protocol == Protocol::Tcp && rule.host.parse::<IpAddr>().is_err());
    for rule in raw {
        let name = rule.host.trim_end_matches('.').to_lowercase();
        let next = u16::try_from(of_host.len() + 1)
            .map_err(|_| AgentError::Invalid("there are too many egress rules".to_owned()))?;
        let [high, low] = next.to_be_bytes();
        let addr =
            *of_host
                .entry(name)
                .or_insert(Ipv4Addr::new(FORWARD_NETWORK.0, FORWARD_NETWORK.1, high, low));
        // Two rules for one target: the policy tries them in order, one way in is enough.
        if !forwards
            .iter()
            .any(|one| one.addr == addr && one.port == rule.port)
        {
            forwards.push(Forward {
                name: rule.name.clone(),
                addr,
                port: rule.port,
            });
        }
    }
    let hosts = of_host
        .into_iter()
        .map(|(name, addr)| (IpAddr::V4(addr), name))
        .collect();
    Ok((forwards, hosts))
}

fn published(request: &LaunchRequest, exposed: &[String]) -> Result<Vec<Port>, AgentError> {
    let mut ports = request.ports.clone().unwrap_or_else(|| ports::of_image(exposed));
    for port in &mut ports {
        port.name
            .get_or_insert_with(|| ports::automatic_name(port.guest_port));
    }
    let mut names: Vec<_> = ports.iter().map(|port| port.name.as_deref()).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair.first() == pair.last()) {
        return Err(AgentError::Invalid("two ports have the same name".to_owned()));
    }
    Ok(ports)
}

fn readiness(ports: &[Port]) -> Option<Readiness> {
    let http = ports.iter().find(|port| port.protocol == Protocol::Http);
    http.or_else(|| ports.first()).map(|port| Readiness {
        port: port.guest_port,
        http: port.protocol == Protocol::Http,
    })
}

fn mounts(wanted: &[Mount]) -> Result<(Vec<VolumeWanted>, Vec<Tmpfs>), AgentError> {
    let (mut volumes, mut tmpfs) = (Vec::new(), Vec::new());
    let mut targets = Vec::new();
    for mount in wanted {
        let target = match mount {
            Mount::Volume {
                name,
                target,
                read_only,
            } => {
                volumes.push(VolumeWanted {
                    name: name.clone(),
                    target: target.clone(),
                    read_only: *read_only,
                });
                target
            }
            Mount::Tmpfs { target, size_bytes } => {
                tmpfs.push(Tmpfs {
                    target: target.clone(),
                    size_bytes: Some(size_bytes.unwrap_or(TMPFS_BYTES)),
                });
                target
            }
        };
        let allowed = target.starts_with('/')
            && target != "/"
            && !target.split('/').any(|part| part == "..")
            && !["/.nimbus", "/proc", "/sys", "/dev"]
                .iter()
                .any(|own| target == own || target.starts_with(&format!("{own}/")));
        if !allowed || targets.contains(&target) {
            return Err(AgentError::Invalid(format!(
                "{target:?} cannot be a mount's target"
            )));
        }
        targets.push(target);
    }
    Ok((volumes, tmpfs))
}

fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

/// Asks to end.
pub(crate) const SIGTERM: i32 = 15;
/// Ends.
pub(crate) const SIGKILL: i32 = 9;

/// A signal's number on Linux: signal(7); the real-time ones as the C library counts them.
fn number(signal: &Signal) -> Option<i32> {
    let text = signal.as_str();
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let name = text.strip_prefix("SIG")?;
    let offset = |rest: &str| {
        if rest.is_empty() {
            Some(0)
        } else {
            rest.get(1..)?.parse::<i32>().ok()
        }
    };
    Some(match name {
        "HUP" => 1,
        "INT" => 2,
        "QUIT" => 3,
        "ILL" => 4,
        "TRAP" => 5,
        "ABRT" | "IOT" => 6,
        "BUS" => 7,
        "FPE" => 8,
        "KILL" => SIGKILL,
        "USR1" => 10,
        "SEGV" => 11,
        "USR2" => 12,
        "PIPE" => 13,
        "ALRM" => 14,
        "TERM" => SIGTERM,
        "STKFLT" => 16,
        "CHLD" | "CLD" => 17,
        "CONT" => 18,
        "STOP" => 19,
        "TSTP" => 20,
        "TTIN" => 21,
        "TTOU" => 22,
        "URG" => 23,
        "XCPU" => 24,
        "XFSZ" => 25,
        "VTALRM" => 26,
        "PROF" => 27,
        "WINCH" => 28,
        "IO" | "POLL" => 29,
        "PWR" => 30,
        "SYS" => 31,
        _ => {
            if let Some(rest) = name.strip_prefix("RTMIN") {
                34 + offset(rest)?
            } else {
                64 - offset(name.strip_prefix("RTMAX")?)?
            }
        }
    })
}

#[cfg(test)]
mod tests;
