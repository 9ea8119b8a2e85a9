//! From what clients send to what the bus carries. Proto3 has no absent scalars: zero and empty mean
//! "not given" here, and the meaning of values is checked where it is for HTTP, in `workloads`.

use std::str::FromStr;

use nimbus_proto::Secret;
use nimbus_proto::workloads::{
    Backend, EgressRule, Isolation, Labels, Mount, Owner, Page, Port, Process, Profile, Protocol, Provider,
    ResourcesWanted, RestartPolicy, Root, SandboxSpec, SecretUse, Target, Variable,
};
use tonic::Status;

use super::{invalid, wire};

fn given(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn positive<T: Default + PartialEq>(number: T) -> Option<T> {
    Some(number).filter(|number| *number != T::default())
}

fn word<T: FromStr>(field: &str, text: &str, expected: &str) -> Result<T, Status> {
    text.parse()
        .map_err(|_| invalid(field, format_args!("{text:?} is not one of {expected}")))
}

fn port(field: &str, number: u32) -> Result<u16, Status> {
    u16::try_from(number).map_err(|_| invalid(field, format_args!("{number} is not a port")))
}

pub(super) fn labels(map: std::collections::HashMap<String, String>) -> Labels {
    map.into_iter().collect()
}

pub(super) fn page(page: Option<wire::Page>) -> Page {
    let page = page.unwrap_or_default();
    Page {
        limit: positive(page.limit),
        page_token: given(page.token),
        label_key: given(page.label_key),
        label_value: given(page.label_value),
        state: given(page.state),
    }
}

pub(super) fn profile(profile: i32) -> Result<Profile, Status> {
    match wire::Profile::try_from(profile) {
        Ok(wire::Profile::Worker) => Ok(Profile::Worker),
        Ok(wire::Profile::Desktop) => Ok(Profile::Desktop),
        Ok(wire::Profile::Unspecified) | Err(_) => Err(invalid("profile", "it has to be worker or desktop")),
    }
}

pub(super) fn sandbox_spec(spec: Option<wire::SandboxSpec>, owner: Owner) -> Result<SandboxSpec, Status> {
    let spec = spec.ok_or_else(|| invalid("spec", "it is missing"))?;
    let backend = if spec.backend.is_empty() {
        Isolation::Container
    } else {
        word("spec.backend", &spec.backend, "container, krun")?
    };
    let mut env: Vec<Variable> = spec
        .env
        .into_iter()
        .map(|(name, value)| Variable {
            name,
            value: Secret::new(value),
        })
        .collect();
    // A map has no order; the same request must stay the same request.
    env.sort_by(|a, b| a.name.cmp(&b.name));
    let mut secrets: Vec<SecretUse> = spec
        .secrets
        .into_iter()
        .map(|(variable, secret)| SecretUse { secret, variable })
        .collect();
    secrets.sort_by(|a, b| a.variable.cmp(&b.variable));
    Ok(SandboxSpec {
        tenant: None,
        owner,
        backend,
        root: Root::Image {
            reference: spec.image,
        },
        process: Process {
            argv: spec.argv,
            entrypoint: None,
            command: None,
            env,
            secrets,
            cwd: given(spec.cwd),
            user: given(spec.user),
            terminal: spec.terminal,
        },
        resources: spec.resources.map(|wanted| ResourcesWanted {
            cpu_milli: positive(wanted.cpu_milli),
            memory_bytes: positive(wanted.memory_bytes),
            disk_bytes: positive(wanted.disk_bytes),
            log_bytes: positive(wanted.log_bytes),
            pids: positive(wanted.pids),
        }),
        ports: some(spec.ports, ports)?,
        egress: some(spec.egress, egress)?,
        mounts: some(spec.mounts, mount)?,
        restart: spec.restart.map(restart).transpose()?,
        stop_timeout_ms: positive(spec.stop_timeout_ms),
        health: None,
        ttl_ms: positive(spec.ttl_ms),
        idle_timeout_ms: positive(spec.idle_timeout_ms),
        read_only_root: spec.read_only_root,
    })
}

/// None for an empty list: it was not given.
fn some<A, B>(list: Vec<A>, each: impl Fn(A) -> Result<B, Status>) -> Result<Option<Vec<B>>, Status> {
    if list.is_empty() {
        return Ok(None);
    }
    list.into_iter().map(each).collect::<Result<_, _>>().map(Some)
}

fn ports(wanted: wire::Port) -> Result<Port, Status> {
    Ok(Port {
        name: given(wanted.name),
        guest_port: port("spec.ports.guest_port", wanted.guest_port)?,
        protocol: protocol("spec.ports.protocol", &wanted.protocol)?,
        host_port: positive(port("spec.ports.host_port", wanted.host_port)?),
    })
}

fn protocol(field: &str, text: &str) -> Result<Protocol, Status> {
    if text.is_empty() {
        return Ok(Protocol::Tcp);
    }
    word(field, text, "tcp, http, https")
}

fn egress(rule: wire::EgressRule) -> Result<EgressRule, Status> {
    Ok(EgressRule {
        protocol: word("spec.egress.protocol", &rule.protocol, "tcp, http, https")?,
        port: port("spec.egress.port", rule.port)?,
        name: rule.name,
        host: rule.host,
        methods: rule.methods,
        path_prefixes: rule.path_prefixes,
        allow_internal_ips: rule.allow_internal_ips,
    })
}

fn mount(mount: wire::Mount) -> Result<Mount, Status> {
    match mount.kind {
        Some(wire::mount::Kind::Volume(volume)) => Ok(Mount::Volume {
            name: volume.name,
            target: volume.target,
            read_only: volume.read_only,
        }),
        Some(wire::mount::Kind::Tmpfs(tmpfs)) => Ok(Mount::Tmpfs {
            target: tmpfs.target,
            size_bytes: positive(tmpfs.size_bytes),
        }),
        None => Err(invalid("spec.mounts", "a mount is a volume or a tmpfs")),
    }
}

fn restart(policy: wire::RestartPolicy) -> Result<RestartPolicy, Status> {
    use wire::restart_policy::Kind;
    match policy.kind() {
        Kind::Never => Ok(RestartPolicy::Never),
        Kind::OnFailure => Ok(RestartPolicy::OnFailure {
            max_restarts: policy.max_restarts,
        }),
        Kind::Always => Ok(RestartPolicy::Always {
            max_restarts: positive(policy.max_restarts),
        }),
        Kind::Unspecified => Err(invalid(
            "spec.restart.kind",
            "it has to be never, on_failure or always",
        )),
    }
}

pub(super) fn backend(backend: Option<wire::ServiceBackend>) -> Result<Backend, Status> {
    use wire::service_backend::Kind;
    match backend.and_then(|backend| backend.kind) {
        Some(Kind::Sandbox(spec)) => {
            let spec = sandbox_spec(Some(spec), Owner::Service { name: None })?;
            Ok(Backend::Sandbox(Box::new(spec)))
        }
        Some(Kind::BuiltIn(name)) => {
            let provider: Provider = word(
                "backend.built_in",
                &name,
                "loadBalancer, serviceDiscovery, browser, modelGateway",
            )?;
            Ok(Backend::BuiltIn(provider))
        }
        Some(Kind::External(external)) => Ok(Backend::External {
            url: external.url,
            health_path: external.health_path,
        }),
        None => Err(invalid("backend", "it is missing")),
    }
}

pub(super) fn target(target: Option<wire::open_session_request::Target>) -> Result<Target, Status> {
    use wire::open_session_request::Target as Wire;
    match target {
        Some(Wire::Service(name)) => Ok(Target::Service(name)),
        Some(Wire::Sandbox(id)) => Ok(Target::Sandbox(id)),
        None => Err(invalid("target", "it is a service or a sandbox")),
    }
}

pub(super) fn channels(names: &[String]) -> Result<Vec<nimbus_proto::workloads::Channel>, Status> {
    names
        .iter()
        .map(|name| word("channels", name, "stdio, files, cdp, page"))
        .collect()
}
