//! A service of a project as a service of Nimbus: the body of the request that defines it.

mod secrets;

use std::time::Duration;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::model::{Health, MountKind, Project, Restart, Service, Test};
use crate::notice::Notice;

/// The label that says which project a service belongs to.
pub const PROJECT_LABEL: &str = "compose/project";
/// The label that says which definition is in force.
pub const HASH_LABEL: &str = "compose/definition";
/// Most labels of a service, two of them ours.
const MOST_LABELS: usize = 32;
/// Longest value of a label.
const LONGEST_LABEL: usize = 256;
/// Restarts that a policy without a number allows.
const MOST_RESTARTS: u32 = 10;

/// Keys of which a service of Nimbus knows nothing, and what to do without them.
const MISSING: &[(&str, &str)] = &[
    ("annotations", "leave it out"),
    ("cap_add", "leave it out: a sandbox has no capabilities"),
    (
        "configs",
        "build the file into the image, or put it into a volume",
    ),
    ("devices", "leave it out: a sandbox has no devices"),
    ("dns", "leave it out: names are resolved by the egress proxy"),
    ("dns_opt", "leave it out"),
    ("dns_search", "leave it out"),
    ("extra_hosts", "leave it out"),
    ("gpus", "hand the work to the GPU plane as a job"),
    (
        "deploy.resources.reservations.devices",
        "hand the work to the GPU plane as a job",
    ),
    ("group_add", "leave it out"),
    ("hostname", "leave it out"),
    ("ipc", "leave it out: nothing is shared"),
    ("logging", "leave it out: logs are kept by Nimbus"),
    (
        "network_mode",
        "leave it out: a sandbox has no network but what its egress rules allow",
    ),
    ("pid", "leave it out: nothing is shared"),
    ("privileged", "leave it out: a sandbox has no rights"),
    (
        "security_opt",
        "leave it out: the strictest profile is always in force",
    ),
    ("shm_size", "leave it out"),
    ("stop_signal", "leave it out"),
    ("sysctls", "leave it out"),
    ("ulimits", "leave it out"),
    ("userns_mode", "leave it out"),
    ("volumes_from", "name the volumes"),
];

/// What a project needs of its tenant beyond what every tenant has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Limits of its own.
    pub resources: bool,
    /// Ports.
    pub ports: bool,
    /// Volumes or memory.
    pub mounts: bool,
}

/// A definition, and what has to be said about it.
#[derive(Clone, Debug)]
pub struct Defined {
    /// The body of the request: `metadata` and `spec`.
    pub body: Value,
    /// Changes with the definition.
    pub hash: String,
    /// Volumes of the tenant that have to be there.
    pub volumes: Vec<String>,
    /// Secrets of the project that the tenant has to have, as the file calls them.
    pub secrets: Vec<String>,
    /// What the tenant has to allow.
    pub needs: Needs,
    /// What is left out.
    pub notices: Vec<Notice>,
}

/// Turns a service into a definition.
///
/// What is started is the image with its process, environment, secrets in variables, limits, TCP ports, named
/// volumes, health check and restart policy. A sandbox has no network, so services of one project do not see
/// each other by name.
pub fn definition(project: &Project, service: &Service) -> Defined {
    let mut notices = Vec::new();
    let mut needs = Needs::default();
    let mut volumes = Vec::new();
    let mut spec = Map::new();
    spec.insert("owner".into(), json!({ "kind": "service" }));
    let backend = service.nimbus.backend.as_deref().unwrap_or("container");
    spec.insert("backend".into(), json!(backend));
    spec.insert(
        "root".into(),
        json!({ "kind": "oci_image", "source": { "kind": "reference", "reference": service.image } }),
    );
    let used = secrets::used(project, service, &mut notices);
    let process = process(service, &used);
    if !process.is_empty() {
        spec.insert("process".into(), Value::Object(process));
    }
    let resources = resources(service);
    if !resources.is_empty() {
        needs.resources = true;
        spec.insert("resources".into(), Value::Object(resources));
    }
    let ports = ports(service, &mut notices);
    if !ports.is_empty() {
        needs.ports = true;
        spec.insert("ports".into(), Value::Array(ports));
    }
    let mounts = mounts(project, service, &mut volumes, &mut notices);
    if !mounts.is_empty() {
        needs.mounts = true;
        spec.insert("mounts".into(), Value::Array(mounts));
    }
    spec.insert("lifecycle".into(), lifecycle(service));
    if let Some(health) = service.health.as_ref().and_then(health) {
        spec.insert("health".into(), health);
    }
    if let Some(time) = service.nimbus.idle_timeout {
        spec.insert("idleTimeoutMs".into(), json!(ms(time)));
    }
    if service.read_only {
        spec.insert("readOnlyRoot".into(), json!(true));
    }
    for (key, advice) in MISSING {
        if service.has(key) {
            let what = "is not there under Nimbus, it is left out";
            notices.push(Notice::warning(
                &service.at(key),
                name(service, key),
                what,
                *advice,
            ));
        }
    }
    if service.build.is_some() {
        let what = "an image is not built";
        let advice = format!("build it first and push it as {}", service.image);
        notices.push(Notice::warning(
            &service.at("build"),
            name(service, "build"),
            what,
            advice,
        ));
    }
    if service.replicas != 1 {
        let what = format!("asks for {} of it, one is started", service.replicas);
        let at = service.at("deploy.replicas");
        notices.push(Notice::warning(
            &at,
            name(service, "replicas"),
            what,
            "define more services",
        ));
    }
    let spec = json!({ "backend": { "kind": "sandbox", "sandbox": spec } });
    let hash = short_hash(&spec);
    let labels = labels(project, service, &hash, &mut notices);
    Defined {
        body: json!({ "metadata": { "name": service.name, "labels": labels }, "spec": spec }),
        hash,
        volumes,
        secrets: used.needed,
        needs,
        notices,
    }
}

impl Defined {
    /// Makes a change of a secret a change of the definition; `value` is that of a secret of the project, by its
    /// name in the file.
    pub fn bind<'v>(&mut self, value: impl Fn(&str) -> Option<&'v [u8]>) {
        let used: Vec<(&String, &[u8])> = self
            .secrets
            .iter()
            .filter_map(|secret| Some((secret, value(secret)?)))
            .collect();
        if used.is_empty() {
            return;
        }
        let mut digest = Sha256::new();
        for (secret, value) in used {
            digest.update(secret);
            digest.update([0]);
            digest.update(Sha256::digest(value));
        }
        // Labels are shown: two bytes tell nobody what a weak secret is, and one change in 65,536 is not seen.
        let two: String = hex::encode(digest.finalize()).chars().take(4).collect();
        self.hash = format!("{}-{two}", self.hash);
        if let Some(label) = self.body.pointer_mut("/metadata/labels/compose~1definition") {
            *label = json!(self.hash);
        }
    }
}

fn name(service: &Service, key: &str) -> String {
    format!("services.{}.{key}", service.name)
}

fn short_hash(spec: &Value) -> String {
    hex::encode(Sha256::digest(spec.to_string()))
        .chars()
        .take(16)
        .collect()
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn process(service: &Service, used: &secrets::Used) -> Map<String, Value> {
    let mut process = Map::new();
    if let Some(words) = &service.entrypoint {
        process.insert("entrypoint".into(), json!(words));
        // Another entrypoint takes the image's command with it.
        process.insert(
            "command".into(),
            json!(service.command.clone().unwrap_or_default()),
        );
    } else if let Some(words) = &service.command {
        process.insert("command".into(), json!(words));
    }
    let pairs = service.environment.iter();
    let list: Vec<String> = pairs
        .filter(|(key, _)| !used.dropped.contains(*key))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    if !list.is_empty() {
        process.insert("env".into(), json!(list));
    }
    if !used.variables.is_empty() {
        process.insert("secrets".into(), json!(used.variables));
    }
    for (key, value) in [("cwd", &service.working_dir), ("user", &service.user)] {
        if let Some(value) = value {
            process.insert(key.into(), json!(value));
        }
    }
    process
}

fn resources(service: &Service) -> Map<String, Value> {
    let mut resources = Map::new();
    if let Some(cpus) = service.cpus {
        resources.insert("vcpus".into(), json!(cpus));
    }
    if let Some(bytes) = service.memory {
        resources.insert("memoryBytes".into(), json!(bytes));
    }
    if let Some(pids) = service.pids_limit.and_then(|limit| u32::try_from(limit).ok()) {
        resources.insert("pids".into(), json!(pids));
    }
    resources
}

fn ports(service: &Service, notices: &mut Vec<Notice>) -> Vec<Value> {
    let mut ports = Vec::new();
    for port in &service.ports {
        let key = name(service, "ports");
        if port.protocol != "tcp" {
            let what = format!("port {} is {}, it is left out", port.target, port.protocol);
            notices.push(Notice::warning(&port.at, key, what, "only TCP is published"));
            continue;
        }
        if port
            .address
            .as_deref()
            .is_some_and(|address| !address.starts_with("127."))
        {
            let what = format!("port {} is published to its host alone", port.target);
            let advice = "reach it from elsewhere through the proxy of the API";
            notices.push(Notice::warning(&port.at, &key, what, advice));
        }
        let own = if ports.is_empty() {
            "default".to_owned()
        } else {
            format!("tcp-{}", port.target)
        };
        let mut value = json!({ "name": own, "guestPort": port.target, "protocol": "tcp" });
        let published = port
            .published
            .as_deref()
            .and_then(|text| text.parse::<u16>().ok());
        if let (Some(host), Some(object)) = (published, value.as_object_mut()) {
            object.insert("hostPort".into(), json!(host));
        }
        ports.push(value);
    }
    ports
}

fn mounts(
    project: &Project,
    service: &Service,
    volumes: &mut Vec<String>,
    notices: &mut Vec<Notice>,
) -> Vec<Value> {
    let mut mounts = Vec::new();
    for mount in &service.mounts {
        let key = name(service, "volumes");
        match (mount.kind, &mount.source) {
            (MountKind::Volume, Some(source)) if mount.subpath.is_none() => {
                let known = project.volumes.get(source);
                let volume = known.map_or_else(|| source.clone(), |volume| volume.name.clone());
                mounts.push(json!({
                    "kind": "volume", "name": volume, "target": mount.target, "readOnly": mount.read_only,
                }));
                volumes.push(volume);
            }
            (MountKind::Tmpfs, _) => {
                let mut value = json!({ "kind": "tmpfs", "target": mount.target });
                if let (Some(size), Some(object)) = (mount.size, value.as_object_mut()) {
                    object.insert("sizeBytes".into(), json!(size));
                }
                mounts.push(value);
            }
            (MountKind::Bind, _) => notices.push(Notice::warning(
                &mount.at,
                key,
                "a folder of the host is never mounted into a sandbox",
                "copy it into a volume, or build it into the image",
            )),
            _ => notices.push(Notice::warning(
                &mount.at,
                key,
                format!("what is mounted at {} is left out", mount.target),
                "use a named volume",
            )),
        }
    }
    for entry in &service.tmpfs {
        let (target, options) = entry.split_once(':').unwrap_or((entry, ""));
        let size = options
            .split(',')
            .find_map(|option| option.strip_prefix("size="))
            .and_then(crate::measure::bytes);
        let mut value = json!({ "kind": "tmpfs", "target": target });
        if let (Some(size), Some(object)) = (size, value.as_object_mut()) {
            object.insert("sizeBytes".into(), json!(size));
        }
        mounts.push(value);
    }
    mounts
}

fn lifecycle(service: &Service) -> Value {
    let policy = match service.restart {
        Restart::No => json!({ "kind": "never" }),
        Restart::Always | Restart::UnlessStopped => json!({ "kind": "always" }),
        Restart::OnFailure(most) => {
            json!({ "kind": "onFailure", "maxRestarts": most.unwrap_or(MOST_RESTARTS) })
        }
    };
    let mut lifecycle = Map::from_iter([("restartPolicy".to_owned(), policy)]);
    if let Some(grace) = service.stop_grace_period {
        lifecycle.insert("stopTimeoutMs".into(), json!(ms(grace)));
    }
    Value::Object(lifecycle)
}

fn health(health: &Health) -> Option<Value> {
    if health.disable {
        return None;
    }
    let argv = match health.test.as_ref()? {
        Test::Command(words) => words.clone(),
        Test::Shell(line) => vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()],
    };
    let mut value = Map::from_iter([
        ("kind".to_owned(), json!("exec")),
        ("argv".to_owned(), json!(argv)),
    ]);
    // Compose's own defaults are longer than ours.
    let or = |time: Option<Duration>| json!(ms(time.unwrap_or(Duration::from_secs(30))));
    value.insert("intervalMs".into(), or(health.interval));
    value.insert("timeoutMs".into(), or(health.timeout));
    value.insert("retries".into(), json!(health.retries.unwrap_or(3).max(1)));
    if let Some(time) = health.start_period {
        value.insert("startPeriodMs".into(), json!(ms(time)));
    }
    Some(Value::Object(value))
}

/// The service's own labels, as far as Nimbus takes them, and ours.
fn labels(project: &Project, service: &Service, hash: &str, notices: &mut Vec<Notice>) -> Map<String, Value> {
    let mut labels = Map::from_iter([
        (PROJECT_LABEL.to_owned(), json!(project.key())),
        (HASH_LABEL.to_owned(), json!(hash)),
    ]);
    for (key, value) in &service.labels {
        let edge = |letter: Option<char>| letter.is_some_and(|letter| letter.is_ascii_alphanumeric());
        let inside = |letter: char| letter.is_ascii_alphanumeric() || "._/-".contains(letter);
        let fits = key.len() <= 63
            && edge(key.chars().next())
            && edge(key.chars().last())
            && key.chars().all(inside)
            && value.len() <= LONGEST_LABEL
            && !value.chars().any(char::is_control)
            && labels.len() < MOST_LABELS;
        if fits && key != PROJECT_LABEL && key != HASH_LABEL {
            labels.insert(key.clone(), json!(value));
        } else {
            notices.push(Notice::warning(
                &service.at(&format!("labels.{key}")),
                name(service, &format!("labels.{key}")),
                "is no label that Nimbus takes, it is left out",
                "at most 30 labels of letters, digits, `.`, `_`, `/` and `-`, values of at most 256 bytes",
            ));
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Load, load};

    pub(super) fn defined(text: &str) -> Defined {
        let dir = camino_tempfile::tempdir().unwrap();
        let file = dir.path().join("compose.yaml");
        std::fs::write(&file, text).unwrap();
        let wanted = Load {
            files: vec![file],
            name: Some("p".into()),
            ..Load::default()
        };
        let project = load(&wanted).unwrap().project;
        definition(&project, &project.services["a"])
    }

    #[test]
    fn a_service_becomes_a_definition() {
        let made = defined(
            "services:\n  a:\n    image: x:1\n    command: serve --port 80\n    environment: {A: b}\n    user: 1:2\n    \
             ports: [\"8080:80\", \"53:53/udp\"]\n    volumes: [\"d:/d:ro\", \"./x:/x\"]\n    tmpfs: /tmp:size=1m\n    \
             healthcheck: {test: [CMD, ok], interval: 5s}\n    restart: unless-stopped\n    stop_grace_period: 3s\n    \
             mem_limit: 64m\n    cpus: 0.5\n    privileged: true\n    labels: {team: x, \"bad key\": y}\nvolumes: {d: }\n",
        );
        let sandbox = &made.body["spec"]["backend"]["sandbox"];
        assert_eq!(
            sandbox["process"],
            json!({ "command": ["serve", "--port", "80"], "env": ["A=b"], "user": "1:2" })
        );
        assert_eq!(
            sandbox["resources"],
            json!({ "vcpus": 0.5, "memoryBytes": 64 << 20 })
        );
        assert_eq!(
            sandbox["ports"],
            json!([{ "name": "default", "guestPort": 80, "protocol": "tcp", "hostPort": 8080 }])
        );
        assert_eq!(
            sandbox["mounts"],
            json!([
                { "kind": "volume", "name": "p_d", "target": "/d", "readOnly": true },
                { "kind": "tmpfs", "target": "/tmp", "sizeBytes": 1 << 20 },
            ])
        );
        assert_eq!(
            sandbox["lifecycle"],
            json!({ "restartPolicy": { "kind": "always" }, "stopTimeoutMs": 3000 })
        );
        assert_eq!(sandbox["health"]["argv"], json!(["ok"]));
        assert_eq!(made.body["metadata"]["labels"]["team"], "x");
        assert_eq!(made.volumes, ["p_d"]);
        assert_eq!(
            made.needs,
            Needs {
                resources: true,
                ports: true,
                mounts: true
            }
        );
        let told: Vec<&str> = made.notices.iter().map(|notice| notice.key.as_str()).collect();
        assert_eq!(
            told,
            [
                "services.a.ports",
                "services.a.volumes",
                "services.a.privileged",
                "services.a.labels.bad key"
            ]
        );
    }

    #[test]
    fn another_secret_is_another_definition() {
        let text = "services:\n  a: {image: x, secrets: [s], environment: {S_FILE: /run/secrets/s}}\nsecrets: {s: {content: v}}\n";
        let with = |value: &str| {
            let mut made = defined(text);
            made.bind(|name| (name == "s").then_some(value.as_bytes()));
            assert_eq!(made.body["metadata"]["labels"][HASH_LABEL], json!(made.hash));
            made.hash
        };
        assert_eq!(with("one"), with("one"));
        assert_ne!(with("one"), with("two"));
        // Whoever reads the label learns two bytes.
        assert_eq!((with("one").len(), defined(text).hash.len()), (21, 16));
        // Secrets of others change nothing.
        let mut other = defined("services:\n  a: {image: x}\n");
        let before = other.hash.clone();
        other.bind(|_| Some(b"one"));
        assert_eq!(other.hash, before);
    }

    #[test]
    fn the_hash_changes_with_the_definition_alone() {
        let one = defined("services:\n  a: {image: x, labels: {l: a}}\n").hash;
        assert_eq!(one, defined("services:\n  a: {image: x, labels: {l: b}}\n").hash);
        assert_ne!(one, defined("services:\n  a: {image: y}\n").hash);
    }
}
