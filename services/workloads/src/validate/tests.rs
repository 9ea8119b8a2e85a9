use nimbus_bus::Method;
use nimbus_proto::Secret;
use nimbus_proto::workloads::{CreateSandbox, EgressRule, Port, Protocol, SecretUse, Variable};

use super::*;

const OPEN: Policy = Policy {
    resources: true,
    ports: true,
    egress: true,
    mounts: true,
};
const CAP: Resources = Resources {
    cpu_milli: 8000,
    memory_bytes: 8 << 30,
    disk_bytes: 40 << 30,
    log_bytes: 512 << 20,
    pids: 4096,
};

fn scene(policy: Policy, service: Option<&'static str>) -> Scene<'static> {
    Scene {
        tenant: "demo",
        service,
        policy,
        cap: CAP,
        at: "spec",
    }
}

fn spec() -> SandboxSpec {
    CreateSandbox::sample_request().spec
}

/// The code and field of the refusal of what `change` makes of a good specification.
fn refusal(change: impl FnOnce(&mut SandboxSpec)) -> Option<(bool, String)> {
    let mut spec = spec();
    change(&mut spec);
    match sandbox(&spec, scene(OPEN, None)) {
        Ok(_) => None,
        Err(WorkError::Invalid { field, .. }) => Some((false, field)),
        Err(WorkError::Sealed { field, .. }) => Some((true, field)),
        Err(other) => panic!("{other}"),
    }
}

fn wrong(field: &str, change: impl FnOnce(&mut SandboxSpec)) {
    assert_eq!(refusal(change), Some((false, format!("spec.{field}"))));
}

fn fine(change: impl FnOnce(&mut SandboxSpec)) {
    assert_eq!(refusal(change), None);
}

fn variable(name: &str, value: &str) -> Variable {
    Variable {
        name: name.into(),
        value: Secret::new(value),
    }
}

fn port(guest: u16) -> Port {
    Port {
        name: None,
        guest_port: guest,
        protocol: Protocol::Tcp,
        host_port: None,
    }
}

fn rule(name: &str, protocol: Protocol, host: &str) -> EgressRule {
    EgressRule {
        name: name.into(),
        protocol,
        host: host.into(),
        port: 443,
        methods: vec![],
        path_prefixes: vec![],
        allow_internal_ips: false,
    }
}

#[test]
fn owners_and_tenants() {
    wrong("tenantId", |s| s.tenant = Some("other".into()));
    fine(|s| s.tenant = Some("demo".into()));
    wrong("owner.kind", |s| s.owner = Owner::Service { name: None });
    for name in ["", &"x".repeat(129), "a\nb"] {
        wrong("owner.displayName", |s| {
            s.owner = Owner::Standalone {
                display_name: Some(name.into()),
            }
        });
    }
    let mut owned = spec();
    let field = |spec: &SandboxSpec| match sandbox(spec, scene(OPEN, Some("worker"))) {
        Err(WorkError::Invalid { field, .. }) => field,
        other => format!("{other:?}"),
    };
    assert_eq!(field(&owned), "spec.owner.kind");
    owned.owner = Owner::Service {
        name: Some("db".into()),
    };
    assert_eq!(field(&owned), "spec.owner.serviceName");
    owned.owner = Owner::Service { name: None };
    assert!(sandbox(&owned, scene(OPEN, Some("worker"))).is_ok());
    owned.process.terminal = true;
    assert_eq!(field(&owned), "spec.process.terminal");
}

#[test]
fn roots() {
    for reference in ["", "Bad Name", "x@sha256:00", "user:pass@host/x"] {
        wrong("root.source.reference", |s| {
            s.root = Root::Image {
                reference: reference.into(),
            }
        });
    }
    for kind in ["rootfs", "build"] {
        wrong("root.kind", |s| s.root = Root::Operator { kind: kind.into() });
    }
}

#[test]
fn processes() {
    wrong("process.argv", |s| s.process.entrypoint = Some(vec![]));
    wrong("process.argv", |s| s.process.argv = vec!["a\0b".into()]);
    fine(|s| {
        s.process.argv.clear();
        s.process.entrypoint = Some(vec!["sh".into()]);
        s.process.command = Some(vec!["-c".into()]);
    });
    for bad in ["", "A B", "A=B", "NIMBUS_SANDBOX_ID"] {
        wrong("process.env[0]", |s| s.process.env = vec![variable(bad, "x")]);
    }
    let many = |n: usize| (0..n).map(|i| variable(&format!("V{i}"), "")).collect::<Vec<_>>();
    wrong("process.env", |s| s.process.env = many(128));
    fine(|s| {
        s.process.env = many(128);
        s.process.secrets.clear();
    });
    wrong("process.env", |s| {
        s.process.env = vec![variable("A", &"x".repeat(33 << 10))]
    });
    wrong("process.secrets[0].secret", |s| {
        s.process.secrets = vec![SecretUse {
            secret: "a/b".into(),
            variable: "A".into(),
        }]
    });
    for cwd in ["relative", "/a/../b", "", "/a//b"] {
        wrong("process.cwd", |s| s.process.cwd = Some(cwd.into()));
    }
    for user in ["", "a b", "1:2:3", "-x", "root;"] {
        wrong("process.user", |s| s.process.user = Some(user.into()));
    }
    for user in ["1000", "1000:1000", "www-data", "_apt"] {
        fine(|s| s.process.user = Some(user.into()));
    }
}

#[test]
fn a_sealed_tenant_is_told_which_field_is_not_allowed() {
    let sealed = Policy {
        resources: false,
        ports: false,
        egress: false,
        mounts: false,
    };
    let field = |spec: &SandboxSpec| match sandbox(spec, scene(sealed, None)) {
        Err(WorkError::Sealed { field, .. }) => field,
        other => format!("{other:?}"),
    };
    let mut asks = spec();
    asks.resources = Some(ResourcesWanted {
        pids: Some(5),
        ..ResourcesWanted::default()
    });
    assert_eq!(field(&asks), "spec.resources");
    asks.resources = None;
    assert_eq!(field(&asks), "spec.ports");
    asks.ports = Some(vec![]);
    assert_eq!(field(&asks), "spec.network.egress");
    asks.egress = Some(vec![]);
    assert_eq!(field(&asks), "spec.mounts");
    asks.mounts = Some(vec![]);
    assert!(
        sandbox(&asks, scene(sealed, None)).is_ok(),
        "asking for nothing is fine"
    );
}

#[test]
fn limits_stay_within_the_tenants() {
    let with = |wanted| refusal(|s| s.resources = Some(wanted));
    let none = ResourcesWanted::default();
    for (wanted, field) in [
        (
            ResourcesWanted {
                cpu_milli: Some(8001),
                ..none
            },
            "vcpus",
        ),
        (
            ResourcesWanted {
                memory_bytes: Some((8 << 30) + 1),
                ..none
            },
            "memoryBytes",
        ),
        (
            ResourcesWanted {
                pids: Some(4097),
                ..none
            },
            "pids",
        ),
    ] {
        assert_eq!(with(wanted), Some((true, format!("spec.resources.{field}"))));
    }
    let little = ResourcesWanted {
        memory_bytes: Some(1000),
        ..none
    };
    assert_eq!(with(little), Some((false, "spec.resources.memoryBytes".into())));
    let all = ResourcesWanted {
        cpu_milli: Some(8000),
        memory_bytes: Some(8 << 30),
        ..none
    };
    assert_eq!(with(all), None);
}

#[test]
fn ports_are_unique() {
    wrong("ports[1].name", |s| s.ports = Some(vec![port(80), port(80)]));
    wrong("ports[0].guestPort", |s| s.ports = Some(vec![port(0)]));
    wrong("ports[1].hostPort", |s| {
        let at = |guest| Port {
            host_port: Some(15001),
            ..port(guest)
        };
        s.ports = Some(vec![at(80), at(81)]);
    });
    wrong("ports[0].name", |s| {
        s.ports = Some(vec![Port {
            name: Some("a/b".into()),
            ..port(80)
        }])
    });
    fine(|s| s.ports = Some(vec![port(80), port(81)]));
}

#[test]
fn allow_lists_are_concrete() {
    let one = |rule| move |s: &mut SandboxSpec| s.egress = Some(vec![rule]);
    for name in ["", "*", "a b"] {
        wrong(
            "network.egress.allow[0].name",
            one(rule(name, Protocol::Https, "pypi.org")),
        );
    }
    for host in [
        "",
        "*.pypi.org",
        "https://pypi.org",
        "pypi.org/x",
        "u@pypi.org",
        "a..b",
        "-a.org",
        "1.2.3",
        "999.1.1.1",
        "pypi.org:443",
    ] {
        wrong(
            "network.egress.allow[0].host",
            one(rule("r", Protocol::Https, host)),
        );
    }
    for host in ["pypi.org", "10.0.0.1", "::1", "localhost", "a_b.example"] {
        fine(one(rule("r", Protocol::Tcp, host)));
    }
    wrong("network.egress.allow[1].name", |s| {
        s.egress = Some(vec![
            rule("r", Protocol::Tcp, "a.org"),
            rule("r", Protocol::Tcp, "b.org"),
        ])
    });
    for protocol in [Protocol::Tcp, Protocol::Https] {
        let mut with = rule("r", protocol, "pypi.org");
        with.methods = vec!["GET".into()];
        wrong("network.egress.allow[0].methods", one(with));
        let mut with = rule("r", protocol, "pypi.org");
        with.path_prefixes = vec!["/simple".into()];
        wrong("network.egress.allow[0].pathPrefixes", one(with));
    }
    let mut http = rule("r", Protocol::Http, "pypi.org");
    (http.methods, http.path_prefixes) = (vec!["GET".into()], vec!["/simple".into()]);
    fine(one(http.clone()));
    http.path_prefixes = vec!["simple".into()];
    wrong("network.egress.allow[0].pathPrefixes", one(http));
}

#[test]
fn mounts_do_not_cover_what_is_not_theirs() {
    let at = |target: &str| {
        let target = target.to_owned();
        move |s: &mut SandboxSpec| {
            s.mounts = Some(vec![Mount::Tmpfs {
                target,
                size_bytes: None,
            }])
        }
    };
    for target in [
        "",
        "/",
        "data",
        "/a/../b",
        "/proc",
        "/proc/x",
        "/sys/fs",
        "/dev",
        "/.nimbus/run",
    ] {
        wrong("mounts[0].target", at(target));
    }
    for target in ["/data", "/process", "/var/tmp/"] {
        fine(at(target));
    }
    wrong("mounts[1].target", |s| {
        let one = Mount::Tmpfs {
            target: "/a".into(),
            size_bytes: None,
        };
        s.mounts = Some(vec![one.clone(), one]);
    });
}

#[test]
fn times_and_checks() {
    for ms in [0, 999, 86_400_001] {
        wrong("ttlMs", |s| s.ttl_ms = Some(ms));
        wrong("idleTimeoutMs", |s| s.idle_timeout_ms = Some(ms));
    }
    wrong("lifecycle.stopTimeoutMs", |s| s.stop_timeout_ms = Some(300_001));
    let check = |change: fn(&mut HealthCheck)| {
        move |s: &mut SandboxSpec| {
            if let Some(health) = &mut s.health {
                change(health);
            }
        }
    };
    wrong("health.retries", check(|h| h.retries = 0));
    wrong("health.intervalMs", check(|h| h.interval_ms = 1));
    wrong(
        "health.path",
        check(|h| {
            h.probe = Probe::Http {
                path: "x".into(),
                port: None,
                expect: (200, 399),
            }
        }),
    );
    wrong("health.argv", check(|h| h.probe = Probe::Exec { argv: vec![] }));
}

#[test]
fn external_endpoints_carry_no_credentials() {
    let external = |url: &str, path: &str| {
        let wanted = Backend::External {
            url: url.into(),
            health_path: path.into(),
        };
        backend(&wanted, scene(OPEN, Some("db"))).is_ok()
    };
    assert!(external("https://db.example.org:8443/base", "/health"));
    for url in [
        "",
        "db.example.org",
        "ftp://db.example.org",
        "http://",
        "http://u:p@db",
        "http://u@db",
        "http://db\n/x",
        "/relative",
    ] {
        assert!(!external(url, "/health"), "{url}");
    }
    for path in ["", "health", "/a b"] {
        assert!(!external("http://db", path), "{path}");
    }
}
