//! What a specification comes to: defaults filled in, one form to show and one to launch. Pure.

use std::time::Duration;

use nimbus_model::{ImageRef, Timestamp};
use nimbus_proto::agent::{LaunchProcess, LaunchRequest};
use nimbus_proto::workloads::{
    Backend, Mount, Owner, Process, Profile, Resources, RestartPolicy, Root, SandboxSpec, SecretUse,
    ShownBackend, ShownProcess, ShownSpec,
};

/// How long a polite stop may take when nothing is said.
const STOP_TIMEOUT_MS: u32 = 5000;
/// How often a service's sandbox is started again when nothing is said.
const SERVICE_RESTARTS: u32 = 10;

/// For whom a specification is resolved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct For<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) service: Option<&'a str>,
    pub(crate) profile: Profile,
    pub(crate) defaults: Resources,
}

/// A specification with everything filled in that does not need the database.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    pub(crate) shown: ShownSpec,
    /// Its `sandbox` and `expires_at` are set by [`Resolved::born`]; its variables lack the secrets.
    pub(crate) launch: LaunchRequest,
    pub(crate) secrets: Vec<SecretUse>,
    pub(crate) volumes: Vec<String>,
    pub(crate) ttl: Option<Duration>,
}

/// Fills in `spec`, whose image is `image`.
pub(crate) fn resolve(spec: &SandboxSpec, image: &ImageRef, place: For<'_>) -> Resolved {
    let shown = show(spec, image, place);
    let process = &spec.process;
    let launch = LaunchRequest {
        sandbox: String::new(),
        tenant: place.tenant.to_owned(),
        profile: place.profile,
        image: image.to_string(),
        process: LaunchProcess {
            argv: process.argv.clone(),
            entrypoint: process.entrypoint.clone(),
            command: process.command.clone(),
            env: process.env.clone(),
            cwd: process.cwd.clone(),
            user: process.user.clone(),
            terminal: process.terminal,
        },
        resources: shown.resources,
        ports: spec.ports.clone(),
        egress: shown.egress.clone(),
        mounts: shown.mounts.clone(),
        restart: shown.restart,
        stop_timeout_ms: shown.stop_timeout_ms,
        health: spec.health.clone(),
        expires_at: None,
        idle_timeout_ms: spec.idle_timeout_ms,
        read_only_root: spec.read_only_root,
    };
    let mut volumes: Vec<String> = shown
        .mounts
        .iter()
        .filter_map(|mount| match mount {
            Mount::Volume { name, .. } => Some(name.clone()),
            Mount::Tmpfs { .. } => None,
        })
        .collect();
    // One order for everybody: rows are locked in it.
    volumes.sort();
    volumes.dedup();
    Resolved {
        shown,
        launch,
        secrets: process.secrets.clone(),
        volumes,
        ttl: spec.ttl_ms.map(Duration::from_millis),
    }
}

impl Resolved {
    /// The launch of the sandbox `id` that is made at `now`.
    pub(crate) fn born(&mut self, id: &str, now: Timestamp) {
        id.clone_into(&mut self.launch.sandbox);
        self.launch.expires_at = self.ttl.map(|ttl| now.after(ttl));
    }
}

/// The specification as it may be shown.
pub(crate) fn show(spec: &SandboxSpec, image: &ImageRef, place: For<'_>) -> ShownSpec {
    let wanted = spec.resources.unwrap_or_default();
    let defaults = place.defaults;
    ShownSpec {
        tenant: place.tenant.to_owned(),
        owner: match (&spec.owner, place.service) {
            (_, Some(service)) => Owner::Service {
                name: Some(service.to_owned()),
            },
            (owner, None) => owner.clone(),
        },
        backend: spec.backend,
        root: Root::Image {
            reference: image.to_string(),
        },
        process: show_process(&spec.process),
        resources: Resources {
            cpu_milli: wanted.cpu_milli.unwrap_or(defaults.cpu_milli),
            memory_bytes: wanted.memory_bytes.unwrap_or(defaults.memory_bytes),
            disk_bytes: wanted.disk_bytes.unwrap_or(defaults.disk_bytes),
            log_bytes: wanted.log_bytes.unwrap_or(defaults.log_bytes),
            pids: wanted.pids.unwrap_or(defaults.pids),
        },
        ports: spec.ports.clone(),
        egress: spec.egress.clone().unwrap_or_default(),
        mounts: spec.mounts.clone().unwrap_or_default(),
        restart: spec.restart.unwrap_or(match place.service {
            Some(_) => RestartPolicy::OnFailure {
                max_restarts: SERVICE_RESTARTS,
            },
            None => RestartPolicy::Never,
        }),
        stop_timeout_ms: spec.stop_timeout_ms.unwrap_or(STOP_TIMEOUT_MS),
        health: spec.health.clone(),
        ttl_ms: spec.ttl_ms,
        idle_timeout_ms: spec.idle_timeout_ms,
        read_only_root: spec.read_only_root,
    }
}

fn show_process(process: &Process) -> ShownProcess {
    let count = |list: &[String]| u32::try_from(list.len()).unwrap_or(u32::MAX);
    ShownProcess {
        argv: count(&process.argv),
        environment: u32::try_from(process.env.len() + process.secrets.len()).unwrap_or(u32::MAX),
        entrypoint: process.entrypoint.as_deref().map(count),
        command: process.command.as_deref().map(count),
        secrets: process.secrets.clone(),
        cwd: process.cwd.clone().unwrap_or_else(|| "/".to_owned()),
        user: process.user.clone(),
        terminal: process.terminal,
    }
}

/// A backend as it may be shown. `image` is that of a sandbox.
pub(crate) fn show_backend(backend: &Backend, image: Option<&ImageRef>, place: For<'_>) -> ShownBackend {
    match (backend, image) {
        (Backend::Sandbox(spec), Some(image)) => ShownBackend::Sandbox(Box::new(show(spec, image, place))),
        (Backend::Sandbox(_), None) => ShownBackend::Redacted("sandbox".to_owned()),
        (Backend::BuiltIn(provider), _) => ShownBackend::BuiltIn(*provider),
        (Backend::External { url, health_path }, _) => ShownBackend::External {
            url: url.clone(),
            health_path: health_path.clone(),
        },
    }
}

/// The same backend in one spelling, so that two definitions can be compared and a later launch
/// needs nothing but this.
pub(crate) fn normal(backend: Backend, image: Option<&ImageRef>, service: &str) -> Backend {
    match (backend, image) {
        (Backend::Sandbox(mut spec), Some(image)) => {
            spec.tenant = None;
            spec.owner = Owner::Service {
                name: Some(service.to_owned()),
            };
            spec.root = Root::Image {
                reference: image.to_string(),
            };
            Backend::Sandbox(spec)
        }
        (other, _) => other,
    }
}

/// The word for a kind of backend.
pub(crate) fn kind(backend: &Backend) -> &'static str {
    match backend {
        Backend::Sandbox(_) => "sandbox",
        Backend::BuiltIn(_) => "builtIn",
        Backend::External { .. } => "external",
    }
}

#[cfg(test)]
mod tests {
    use nimbus_bus::Method;
    use nimbus_proto::workloads::CreateSandbox;

    use super::*;

    fn place(service: Option<&'static str>) -> For<'static> {
        For {
            tenant: "demo",
            service,
            profile: Profile::Worker,
            defaults: Resources {
                cpu_milli: 1000,
                memory_bytes: 1,
                disk_bytes: 2,
                log_bytes: 3,
                pids: 4,
            },
        }
    }

    #[test]
    fn what_is_shown_has_no_argument_and_no_value() {
        let spec = CreateSandbox::sample_request().spec;
        let image = "python:3.12-slim".parse().unwrap();
        let resolved = resolve(&spec, &image, place(None));
        assert_eq!(
            (resolved.shown.process.argv, resolved.shown.process.environment),
            (2, 2)
        );
        let json = serde_json::to_string(&resolved.shown).unwrap();
        assert!(!json.contains("\"-V\"") && !json.contains("\"b\""), "{json}");
        assert_eq!(resolved.launch.image, "docker.io/library/python:3.12-slim");
        assert_eq!(resolved.volumes, ["data"]);
    }

    #[test]
    fn defaults_depend_on_the_owner() {
        let mut spec = CreateSandbox::sample_request().spec;
        (spec.restart, spec.stop_timeout_ms) = (None, None);
        let image = "x".parse().unwrap();
        let alone = resolve(&spec, &image, place(None));
        assert_eq!(
            (alone.shown.restart, alone.shown.stop_timeout_ms),
            (RestartPolicy::Never, 5000)
        );
        let owned = resolve(&spec, &image, place(Some("worker")));
        assert_eq!(owned.shown.restart, RestartPolicy::OnFailure { max_restarts: 10 });
        assert_eq!(
            owned.shown.owner,
            Owner::Service {
                name: Some("worker".into())
            }
        );
    }

    #[test]
    fn two_spellings_of_one_definition_are_equal() {
        let mut one = CreateSandbox::sample_request().spec;
        let mut other = one.clone();
        one.owner = Owner::Service { name: None };
        one.root = Root::Image {
            reference: "busybox".into(),
        };
        other.owner = Owner::Service {
            name: Some("worker".into()),
        };
        other.tenant = Some("demo".into());
        other.root = Root::Image {
            reference: "docker.io/library/busybox:latest".into(),
        };
        let image = "busybox".parse().unwrap();
        let normal = |spec| normal(Backend::Sandbox(Box::new(spec)), Some(&image), "worker");
        assert_eq!(normal(one), normal(other));
    }
}
