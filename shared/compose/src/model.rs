//! A project as everything above reads it: resolved, typed, every name checked.

use std::time::Duration;

use camino::Utf8PathBuf;
use indexmap::IndexMap;

use crate::canonical::SERVICE;
use crate::discover;
use crate::error::ComposeError;
use crate::notice::Origin;
use crate::yaml::emit::emit;
use crate::yaml::{Map, Node, Value};

/// Texts by name, in the order of the file.
pub type Texts = IndexMap<String, String>;

/// A Compose project.
#[derive(Clone, Debug)]
pub struct Project {
    /// Its name: lower case, letters, digits and dashes.
    pub name: String,
    /// The folder of its first file.
    pub root: Utf8PathBuf,
    /// Its files, the later over the earlier.
    pub files: Vec<Utf8PathBuf>,
    /// Its services whose profiles are on.
    pub services: IndexMap<String, Service>,
    /// Named volumes that are used or declared.
    pub volumes: IndexMap<String, Volume>,
    /// Networks that are used or declared.
    pub networks: IndexMap<String, Network>,
    /// Files for services.
    pub configs: IndexMap<String, Material>,
    /// Files for services that nobody else may read.
    pub secrets: IndexMap<String, Material>,
}

/// One service.
#[derive(Clone, Debug, Default)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// The image, also the one that is to be built.
    pub image: String,
    /// How the image is built, if it is not pulled.
    pub build: Option<Build>,
    /// What is run instead of the image's command.
    pub command: Option<Vec<String>>,
    /// What is run instead of the image's entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// The environment, files of variables among it.
    pub environment: Texts,
    /// Where it is run.
    pub working_dir: Option<String>,
    /// As whom it is run.
    pub user: Option<String>,
    /// A name of the container that the file insists on.
    pub container_name: Option<String>,
    /// The name it knows itself by.
    pub hostname: Option<String>,
    /// Labels.
    pub labels: Texts,
    /// Annotations of the container.
    pub annotations: Texts,
    /// Ports.
    pub ports: Vec<Port>,
    /// Mounts, temporary ones of the long form among them.
    pub mounts: Vec<Mount>,
    /// Temporary file systems, `target[:options]`.
    pub tmpfs: Vec<String>,
    /// Networks it is in.
    pub networks: IndexMap<String, Attachment>,
    /// `network_mode`.
    pub network_mode: Option<String>,
    /// What it waits for.
    pub depends_on: IndexMap<String, Dependency>,
    /// How its health is found out.
    pub health: Option<Health>,
    /// When it is started again.
    pub restart: Restart,
    /// How long it may take to stop.
    pub stop_grace_period: Option<Duration>,
    /// What asks it to stop.
    pub stop_signal: Option<String>,
    /// Whether something reaps its processes.
    pub init: bool,
    /// Whether its root is read-only.
    pub read_only: bool,
    /// Size of `/dev/shm` in bytes.
    pub shm_size: Option<u64>,
    /// Settings of its kernel namespaces.
    pub sysctls: Texts,
    /// Limits, the soft and the hard one.
    pub ulimits: IndexMap<String, (String, String)>,
    /// Capabilities taken away.
    pub cap_drop: Vec<String>,
    /// Name servers.
    pub dns: Vec<String>,
    /// Options of the resolver.
    pub dns_opt: Vec<String>,
    /// Domains of the resolver.
    pub dns_search: Vec<String>,
    /// Further names, `(name, address)`.
    pub extra_hosts: Vec<(String, String)>,
    /// Further groups.
    pub group_add: Vec<String>,
    /// Security options.
    pub security_opt: Vec<String>,
    /// Most processes.
    pub pids_limit: Option<i64>,
    /// Where its log goes.
    pub logging: Option<Logging>,
    /// Most memory in bytes.
    pub memory: Option<u64>,
    /// Most processors, such as `0.5`.
    pub cpus: Option<f64>,
    /// Graphics processors it asks for.
    pub gpus: Vec<Gpu>,
    /// How many of it.
    pub replicas: u64,
    /// Secrets it may read.
    pub secrets: Vec<Grant>,
    /// Files it is given.
    pub configs: Vec<Grant>,
    /// When its image is pulled.
    pub pull_policy: Option<String>,
    /// What only Nimbus reads.
    pub nimbus: NimbusKeys,
    /// The long form, for the keys that are not above and for lines.
    pub(crate) node: Node,
}

/// `x-nimbus` of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NimbusKeys {
    /// `container` or `krun`.
    pub backend: Option<String>,
    /// After which time without work it may be stopped.
    pub idle_timeout: Option<Duration>,
    /// Whether it may be resumed from memory.
    pub snapshot: bool,
}

/// How an image is built.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Build {
    /// The folder, or an address.
    pub context: String,
    /// The file in it.
    pub dockerfile: Option<String>,
    /// The stage.
    pub target: Option<String>,
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// In the container.
    pub target: u16,
    /// On the host, or a range of which one is taken.
    pub published: Option<String>,
    /// Address on the host.
    pub address: Option<String>,
    /// `tcp`, `udp`, `sctp`.
    pub protocol: String,
    /// Where it stands.
    pub at: Origin,
}

/// What kind of thing is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// A path of the host.
    Bind,
    /// A named volume, or a nameless one.
    Volume,
    /// Memory.
    Tmpfs,
    /// Something only a cluster or another system has.
    Other,
}

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What kind.
    pub kind: MountKind,
    /// The path or the volume.
    pub source: Option<String>,
    /// Where in the container.
    pub target: String,
    /// Whether nothing may be written.
    pub read_only: bool,
    /// `z` or `Z`.
    pub selinux: Option<String>,
    /// How mounts below it travel.
    pub propagation: Option<String>,
    /// Whether a fresh volume stays empty.
    pub nocopy: bool,
    /// A folder within the volume.
    pub subpath: Option<String>,
    /// Size in bytes of a temporary one.
    pub size: Option<u64>,
    /// Octal mode of a temporary one, such as `0700`.
    pub mode: Option<String>,
    /// Where it stands.
    pub at: Origin,
}

/// A service's place in a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachment {
    /// Further names in it.
    pub aliases: Vec<String>,
    /// A fixed address.
    pub ipv4: Option<String>,
    /// A fixed address.
    pub ipv6: Option<String>,
    /// A fixed hardware address.
    pub mac: Option<String>,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// That it was started.
    Started,
    /// That it is healthy.
    Healthy,
    /// That it has ended well.
    Completed,
}

/// One thing a service waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// What for.
    pub condition: Condition,
    /// Whether it has to be there at all.
    pub required: bool,
}

/// What is run to find out whether a service is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// A program with arguments.
    Command(Vec<String>),
    /// A line for the container's shell.
    Shell(String),
}

/// How the health of a service is found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Nothing is run, not even what the image says.
    pub disable: bool,
    /// What is run.
    pub test: Option<Test>,
    /// How often.
    pub interval: Option<Duration>,
    /// For how long at most.
    pub timeout: Option<Duration>,
    /// How many failures in a row are illness.
    pub retries: Option<u32>,
    /// How long failures do not count after the start.
    pub start_period: Option<Duration>,
}

/// When a service is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    /// Never.
    #[default]
    No,
    /// Whenever it ends.
    Always,
    /// Whenever it ends by itself.
    UnlessStopped,
    /// When it failed, and how often at most.
    OnFailure(Option<u32>),
}

/// Where a log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logging {
    /// The driver; the host's own if none.
    pub driver: Option<String>,
    /// Its options.
    pub options: Texts,
}

/// Graphics processors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gpu {
    /// Whose, such as `nvidia`.
    pub driver: Option<String>,
    /// How many, or `all`.
    pub count: Option<String>,
    /// Which.
    pub ids: Vec<String>,
}

/// A secret or config of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Which.
    pub source: String,
    /// Where; the default of its kind if none.
    pub target: Option<String>,
    /// Whose.
    pub uid: Option<String>,
    /// Whose.
    pub gid: Option<String>,
    /// Who may read it, octal.
    pub mode: Option<String>,
    /// Where it stands.
    pub at: Origin,
}

/// A named volume.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Volume {
    /// Its name on the host.
    pub name: String,
    /// Whether it is there already and belongs to somebody else.
    pub external: bool,
    /// What makes it.
    pub driver: Option<String>,
    /// Options of that.
    pub driver_opts: Texts,
    /// Labels.
    pub labels: Texts,
    pub(crate) node: Node,
}

/// A network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Network {
    /// Its name on the host.
    pub name: String,
    /// Whether it is there already and belongs to somebody else.
    pub external: bool,
    /// What makes it.
    pub driver: Option<String>,
    /// Options of that.
    pub driver_opts: Texts,
    /// Whether it has no way out.
    pub internal: bool,
    /// Whether it has IPv6.
    pub ipv6: bool,
    /// Address ranges.
    pub subnets: Vec<Subnet>,
    /// Labels.
    pub labels: Texts,
    pub(crate) node: Node,
}

/// An address range of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subnet {
    /// The range.
    pub subnet: Option<String>,
    /// Its router.
    pub gateway: Option<String>,
    /// The part of it that is given out.
    pub range: Option<String>,
}

/// Where the content of a secret or config is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In a file.
    File(String),
    /// In a variable of the environment.
    Environment(String),
    /// In the Compose file.
    Content(String),
    /// With the engine, under a name.
    External(String),
}

/// A secret or config of a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Material {
    /// Where its content is.
    pub source: Source,
    /// Where it stands.
    pub at: Origin,
}

impl Project {
    /// What tells it from other projects of its name on this computer.
    pub fn key(&self) -> String {
        let file = self.files.first().unwrap_or(&self.root);
        discover::key(&self.name, file)
    }

    /// The tenant of a project for which none is named.
    pub fn default_tenant(&self) -> String {
        format!("svc-{}", self.key())
    }

    /// A service.
    ///
    /// # Errors
    /// [`ComposeError::UnknownService`].
    pub fn service(&self, name: &str) -> Result<&Service, ComposeError> {
        self.services
            .get(name)
            .ok_or_else(|| ComposeError::UnknownService {
                name: name.to_owned(),
                there: names(self.services.keys().map(String::as_str)),
            })
    }

    /// The services named and all that they depend on, those first that others wait for; all if none is named.
    ///
    /// # Errors
    /// [`ComposeError::UnknownService`] and [`ComposeError::Circle`].
    pub fn order(&self, wanted: &[String]) -> Result<Vec<&Service>, ComposeError> {
        let mut ordered = Vec::new();
        let mut path = Vec::new();
        if wanted.is_empty() {
            for name in self.services.keys() {
                self.visit(name, &mut path, &mut ordered)?;
            }
        } else {
            for name in wanted {
                self.visit(&self.service(name)?.name, &mut path, &mut ordered)?;
            }
        }
        Ok(ordered)
    }

    fn visit<'a>(
        &'a self,
        name: &'a str,
        path: &mut Vec<&'a str>,
        ordered: &mut Vec<&'a Service>,
    ) -> Result<(), ComposeError> {
        if ordered.iter().any(|service| service.name == name) {
            return Ok(());
        }
        if let Some(begin) = path.iter().position(|open| *open == name) {
            let circle: Vec<&str> = path.iter().skip(begin).copied().chain([name]).collect();
            return Err(ComposeError::Circle {
                circle: circle.join(" → "),
            });
        }
        let service = self.service(name)?;
        path.push(name);
        for dependency in service.depends_on.keys() {
            self.visit(dependency, path, ordered)?;
        }
        path.pop();
        ordered.push(service);
        Ok(())
    }

    /// The project as one Compose file: everything resolved, nothing short, ready to be read again.
    pub fn to_yaml(&self) -> String {
        let none = Origin::default();
        let mut root = Map::new();
        root.insert("name".to_owned(), Node::text(&self.name, &none));
        let services: Map = self
            .services
            .iter()
            .map(|(name, service)| (name.clone(), service.resolved()))
            .collect();
        root.insert("services".to_owned(), Node::map(services, &none));
        let mut put = |kind: &str, map: Map| {
            if !map.is_empty() {
                root.insert(kind.to_owned(), Node::map(map, &none));
            }
        };
        let named = |node: &Node, name: &str| {
            let mut map = node.as_map().cloned().unwrap_or_default();
            map.insert("name".to_owned(), Node::text(name, &none));
            Node::map(map, &none)
        };
        put(
            "networks",
            self.networks
                .iter()
                .map(|(key, network)| (key.clone(), named(&network.node, &network.name)))
                .collect(),
        );
        put(
            "volumes",
            self.volumes
                .iter()
                .map(|(key, volume)| (key.clone(), named(&volume.node, &volume.name)))
                .collect(),
        );
        for (kind, materials) in [("configs", &self.configs), ("secrets", &self.secrets)] {
            let map = materials
                .iter()
                .map(|(key, material)| (key.clone(), material.node()));
            put(kind, map.collect());
        }
        let mut root = Node::map(root, &none);
        escape(&mut root);
        emit(&root)
    }
}

impl Service {
    /// Where a key stands, or the nearest one above it that is there.
    pub(crate) fn at(&self, path: &str) -> Origin {
        let mut at = &self.node.at;
        let mut node = &self.node;
        for key in path.split('.') {
            match node.get(key) {
                Some(inner) => {
                    node = inner;
                    at = &inner.at;
                }
                None => break,
            }
        }
        at.clone()
    }

    /// Whether a key is there and holds something.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.node.at_path(path).is_some_and(|node| match &node.value {
            Value::Null => false,
            Value::Scalar(scalar) => !(scalar.plain && scalar.text == "false"),
            Value::Seq(items) => !items.is_empty(),
            Value::Map(map) => !map.is_empty(),
        })
    }

    fn resolved(&self) -> Node {
        let none = Origin::default();
        let mut map = Map::new();
        for (key, _) in SERVICE {
            match (*key, self.node.at_path(key)) {
                ("environment", _) if !self.environment.is_empty() => {
                    let pairs = self.environment.iter();
                    let texts = pairs.map(|(key, value)| (key.clone(), Node::text(value, &none)));
                    map.insert("environment".to_owned(), Node::map(texts.collect(), &none));
                }
                // They are in the environment now.
                ("env_file" | "extends", _) | (_, None) => {}
                (key, Some(node)) => {
                    map.insert(key.to_owned(), node.clone());
                }
            }
        }
        if let Some(node) = self.node.get("x-nimbus") {
            map.insert("x-nimbus".to_owned(), node.clone());
        }
        Node::map(map, &none)
    }
}

impl Material {
    fn node(&self) -> Node {
        let none = Origin::default();
        let one = |key: &str, text: &str| Map::from_iter([(key.to_owned(), Node::text(text, &none))]);
        let map = match &self.source {
            Source::File(path) => one("file", path),
            Source::Environment(variable) => one("environment", variable),
            Source::Content(content) => one("content", content),
            Source::External(name) => {
                let mut map = one("name", name);
                map.insert("external".to_owned(), Node::plain("true", &none));
                map
            }
        };
        Node::map(map, &none)
    }
}

/// Names for a message.
pub(crate) fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

/// Doubles every `$`, so that reading it again changes nothing.
fn escape(node: &mut Node) {
    match &mut node.value {
        Value::Null => {}
        Value::Scalar(scalar) => scalar.text = scalar.text.replace('$', "$$"),
        Value::Seq(items) => items.iter_mut().for_each(escape),
        Value::Map(map) => map.values_mut().for_each(escape),
    }
}
