//! Files on a disk become a project.

use std::collections::BTreeMap;

use camino::Utf8PathBuf;
use camino_tempfile::Utf8TempDir;
use nimbus_compose::{ComposeError, Condition, Level, Load, Loaded, MountKind, load};

/// A folder with files.
pub(crate) struct Folder {
    dir: Utf8TempDir,
}

impl Folder {
    #[expect(clippy::unwrap_used, reason = "a disk that fails is a test that fails")]
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let folder = Self {
            dir: camino_tempfile::tempdir().unwrap(),
        };
        for (name, text) in files {
            let path = folder.path(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    pub(crate) fn path(&self, name: &str) -> Utf8PathBuf {
        self.dir.path().join("app").join(name)
    }

    pub(crate) fn wanted(&self) -> Load {
        Load {
            files: vec![self.path("compose.yaml")],
            environment: BTreeMap::from([("HOME".to_owned(), "/home/ann".to_owned())]),
            ..Load::default()
        }
    }

    pub(crate) fn load(&self) -> Result<Loaded, ComposeError> {
        load(&self.wanted())
    }
}

#[test]
fn everything_at_once() {
    let folder = Folder::new(&[
        (
            "compose.yaml",
            "name: My App\n\
             include: [parts/db.yaml]\n\
             x-common: &common\n  restart: unless-stopped\n  environment: &env\n    TZ: ${TZ:-Europe/Berlin}\n\
             services:\n\
             \x20 web:\n    <<: *common\n    extends: {file: base/web.yaml, service: web}\n    image: example.org/web:${TAG}\n    \
             environment:\n      <<: *env\n      MODE: prod\n      FROM_SHELL:\n    depends_on:\n      db: {condition: service_healthy}\n    \
             env_file: [web.env, {path: missing.env, required: false}]\n\
             \x20 tools:\n    image: busybox\n    profiles: [debug]\n",
        ),
        (
            "compose.override.yaml",
            "services:\n  web:\n    ports: [\"8443:443\"]\n    environment: {MODE: test}\n",
        ),
        (".env", "TAG=1.2\nFROM_SHELL=yes\n"),
        ("web.env", "MODE=file\nONLY=file # said\n"),
        (
            "base/web.yaml",
            "services:\n  web:\n    image: base\n    volumes: [\"./conf:/conf:ro\", \"data:/data\"]\n    ports: [\"8080:80\"]\n",
        ),
        (
            "parts/db.yaml",
            "services:\n  db:\n    image: postgres:17\n    volumes: [\"./init:/init\", \"data:/var/lib/postgresql\"]\n    \
             healthcheck: {test: [CMD-SHELL, pg_isready], interval: 5s}\nvolumes:\n  data: {}\n",
        ),
    ]);
    let mut wanted = folder.wanted();
    wanted.files.push(folder.path("compose.override.yaml"));
    let Loaded { project, notices, .. } = load(&wanted).unwrap();
    assert_eq!(notices, []);
    assert_eq!(project.name, "my-app");
    assert!(project.key().starts_with("my-app-") && project.default_tenant().starts_with("svc-my-app-"));
    let order: Vec<_> = project
        .order(&[])
        .unwrap()
        .iter()
        .map(|service| service.name.as_str())
        .collect();
    assert_eq!(order, ["db", "web"]);
    let web = &project.services["web"];
    assert_eq!(web.image, "example.org/web:1.2");
    let environment: Vec<_> = web
        .environment
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    assert_eq!(
        environment,
        ["MODE=test", "ONLY=file", "FROM_SHELL=yes", "TZ=Europe/Berlin"]
    );
    assert_eq!(web.depends_on["db"].condition, Condition::Healthy);
    let ports: Vec<_> = web.ports.iter().map(|port| port.target).collect();
    assert_eq!(ports, [80, 443]);
    // Relative paths start from the file that says them.
    let conf = folder.path("base/conf");
    assert_eq!(web.mounts[0].source.as_deref(), Some(conf.as_str()));
    assert_eq!(web.mounts[1].kind, MountKind::Volume);
    let init = folder.path("parts/init");
    assert_eq!(
        project.services["db"].mounts[0].source.as_deref(),
        Some(init.as_str())
    );
    assert_eq!(project.volumes["data"].name, "my-app_data");
    // The profile is off unless it, or the service, is asked for.
    wanted.profiles = vec!["debug".to_owned()];
    assert_eq!(load(&wanted).unwrap().project.services.len(), 3);
    wanted.profiles.clear();
    wanted.services = vec!["tools".to_owned()];
    assert_eq!(load(&wanted).unwrap().project.services.len(), 3);
}

#[test]
fn the_resolved_file_means_the_same() {
    let folder = Folder::new(&[(
        "compose.yaml",
        "services:\n  a:\n    image: x\n    command: sh -c 'echo $$HOME \"a b\"'\n    labels: [\"k=Host(`x`) && $$y\"]\n    \
         ports: [\"53:53/udp\", \"127.0.0.1:80:80\"]\n    tmpfs: /tmp:size=1m\n    secrets: [s]\n    ulimits: {nofile: 10}\n    \
         deploy: {resources: {limits: {memory: 64M, cpus: '0.5'}}}\nsecrets:\n  s: {environment: S}\n",
    )]);
    let first = folder.load().unwrap().project;
    let text = first.to_yaml();
    std::fs::write(folder.path("compose.yaml"), &text).unwrap();
    let second = folder.load().unwrap().project;
    assert_eq!(text, second.to_yaml());
    let (one, two) = (&first.services["a"], &second.services["a"]);
    assert_eq!(one.command.as_ref().unwrap(), &["sh", "-c", "echo $HOME \"a b\""]);
    assert_eq!(
        (
            &one.command,
            &one.labels,
            one.memory,
            one.cpus,
            &one.tmpfs,
            &one.ulimits
        ),
        (
            &two.command,
            &two.labels,
            two.memory,
            two.cpus,
            &two.tmpfs,
            &two.ulimits
        )
    );
}

#[test]
fn what_is_wrong_is_said_with_file_line_and_key() {
    for (text, expected) in [
        ("services: {}\n", "has no services"),
        ("services:\n  a: {}\n", "services.a: expected an image"),
        (
            "services:\n  a:\n    image: ${X:?say which}\n",
            "services.a.image: X is not set: say which",
        ),
        ("services:\n  a:\n    image: $(x)\n", "written $$"),
        (
            "services:\n  a: {image: x, restart: often}\n",
            "`often` is none of",
        ),
        (
            "services:\n  a: {image: x, depends_on: [b]}\n",
            "there is no service b",
        ),
        ("services:\n  a: {image: x, depends_on: [a]}\n", "a → a"),
        (
            "services:\n  a: {image: x, volumes: [\"d:/d\"]}\n",
            "write ./d for a folder",
        ),
        (
            "services:\n  a: {image: x, networks: [n]}\n",
            "n is not among the networks",
        ),
        (
            "services:\n  a: {image: x, secrets: [n]}\n",
            "n is not among the secrets",
        ),
        (
            "services:\n  a: {image: x, healthcheck: {tests: x}}\n",
            "healthcheck.tests",
        ),
        (
            "services:\n  a: {image: x, stop_grace_period: soon}\n",
            "expected a time",
        ),
        ("services:\n  a: {image: x, mem_limit: lots}\n", "expected a size"),
        ("services:\n  a: {image: x, ports: [\"99999:1\"]}\n", "is no port"),
        ("services:\n  a: {image: x, command: []}\n", "is empty"),
        (
            "services:\n  a: {image: x, extends: b}\n  b: {image: x, extends: a}\n",
            "circle",
        ),
        (
            "services:\n  a: {image: x, env_file: gone.env}\n",
            "could not read",
        ),
        (
            "include: [compose.yaml]\nservices:\n  a: {image: x}\n",
            "includes itself",
        ),
        ("services: [a]\n", "expected a map of services"),
        ("a: [\n", "compose.yaml:"),
        (
            "services:\n  a: {image: x, x-nimbus: {backend: vmware}}\n",
            "container or krun",
        ),
    ] {
        let folder = Folder::new(&[("compose.yaml", text)]);
        let error = folder.load().unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn what_is_left_out_is_told() {
    let folder = Folder::new(&[(
        "compose.yaml",
        "version: '3'\nservcies: {}\nservices:\n  a:\n    image: x:${TAG}\n    imagee: y\n    environment: [UNSET]\n    \
         depends_on: [b]\n    x-mine: 1\n    x_nimbus: {backend: krun}\n  b: {image: x, profiles: [p]}\n",
    )]);
    let loaded = folder.load().unwrap();
    let told: Vec<String> = loaded
        .notices
        .iter()
        .map(|notice| format!("{} {}", notice.key, notice.at))
        .collect();
    assert_eq!(
        told,
        [
            "services.a.image compose.yaml:5",
            "servcies compose.yaml:2",
            "services.a.imagee compose.yaml:6",
            "services.a.environment.UNSET compose.yaml:7",
            "services.a.x_nimbus compose.yaml:10",
            "services.a.depends_on compose.yaml:8",
        ]
    );
    assert!(loaded.notices.iter().all(|notice| notice.level == Level::Warning));
    assert_eq!(
        loaded.project.services["a"].nimbus.backend.as_deref(),
        Some("krun")
    );
}
