use nimbus_bus::Method;
use nimbus_engine::{Healthcheck, ImageConfig};
use nimbus_proto::Secret;
use nimbus_proto::agent::Launch;
use nimbus_proto::workloads::{EgressRule, Variable};

use super::*;

fn image() -> Image {
    let digest = format!("sha256:{}", "a".repeat(64));
    Image {
        reference: "busybox".parse().unwrap(),
        digest: digest.parse().unwrap(),
        id: digest.parse().unwrap(),
        config: ImageConfig {
            entrypoint: vec!["/entry".into()],
            cmd: vec!["arg".into()],
            exposed_ports: vec!["8080/tcp".into()],
            workdir: "/srv".into(),
            user: "1000".into(),
            ..ImageConfig::default()
        },
        size: 1,
    }
}

fn request() -> LaunchRequest {
    let mut request = Launch::sample_request();
    request.process.argv.clear();
    request.process.env.clear();
    request.ports = None;
    request.egress.clear();
    request.mounts.clear();
    request.health = None;
    request
}

fn rule(name: &str, protocol: Protocol, host: &str, port: u16) -> EgressRule {
    EgressRule {
        name: name.into(),
        protocol,
        host: host.into(),
        port,
        methods: vec![],
        path_prefixes: vec![],
        allow_internal_ips: false,
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn what_runs_is_the_images_unless_it_is_replaced() {
    let argv = |change: fn(&mut LaunchRequest)| {
        let mut request = request();
        change(&mut request);
        Plan::new(&request, &image()).unwrap().main.argv
    };
    assert_eq!(argv(|_| {}), words(&["/entry", "arg"]));
    assert_eq!(argv(|r| r.process.argv = words(&["sh"])), words(&["sh"]));
    assert_eq!(
        argv(|r| r.process.command = Some(words(&["other"]))),
        words(&["/entry", "other"])
    );
    assert_eq!(
        argv(|r| r.process.entrypoint = Some(words(&["/own"]))),
        words(&["/own"])
    );
}

#[test]
fn an_image_without_a_command_needs_one() {
    let mut image = image();
    image.config.entrypoint.clear();
    image.config.cmd.clear();
    assert!(matches!(
        Plan::new(&request(), &image),
        Err(AgentError::Invalid(_))
    ));
}

#[test]
fn a_sandbox_knows_who_it_is_and_its_own_variables_win_over_the_proxys() {
    let mut request = request();
    request.egress = vec![rule("web", Protocol::Https, "example.org", 443)];
    request.process.env = vec![Variable {
        name: "HTTP_PROXY".into(),
        value: Secret::new("mine"),
    }];
    let claim = Plan::new(&request, &image()).unwrap().claim;
    let last = |name: &str| {
        claim
            .env
            .iter()
            .rev()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    assert_eq!(last("HTTP_PROXY"), Some("mine"));
    assert_eq!(last("https_proxy"), Some("http://127.0.0.1:3128"));
    assert_eq!(last("NIMBUS_SANDBOX_ID"), Some(request.sandbox.as_str()));
    assert_eq!(last("NIMBUS_SANDBOX_TENANT"), Some("demo"));
    assert_eq!(claim.cwd.as_deref(), Some("/srv"));
}

#[test]
fn without_http_rules_nobody_is_told_of_a_proxy() {
    let mut request = request();
    request.egress = vec![rule("db", Protocol::Tcp, "db.example.org", 5432)];
    let plan = Plan::new(&request, &image()).unwrap();
    assert!(!plan.claim.env.iter().any(|(name, _)| name.ends_with("PROXY")));
    assert_eq!(
        plan.claim.hosts,
        [("127.77.0.1".parse().unwrap(), "db.example.org".to_owned())]
    );
}

#[test]
fn one_name_has_one_address_and_each_of_its_ports_a_way_out() {
    let rules = [
        rule("a", Protocol::Tcp, "DB.example.org", 1),
        rule("b", Protocol::Tcp, "db.example.org.", 2),
        rule("same", Protocol::Tcp, "db.example.org", 2),
        rule("c", Protocol::Tcp, "other.example.org", 1),
        rule("literal", Protocol::Tcp, "192.0.2.1", 1),
        rule("web", Protocol::Http, "example.org", 80),
    ];
    let (forwards, hosts) = forwards(&rules).unwrap();
    let seen: Vec<_> = forwards
        .iter()
        .map(|one| (one.name.as_str(), one.addr.to_string(), one.port))
        .collect();
    assert_eq!(
        seen,
        [
            ("a", "127.77.0.1".to_owned(), 1),
            ("b", "127.77.0.1".to_owned(), 2),
            ("c", "127.77.0.2".to_owned(), 1),
        ]
    );
    assert_eq!(hosts.len(), 2);
}

#[test]
fn readiness_looks_at_an_http_port_first() {
    let port = |guest_port, protocol| Port {
        name: None,
        guest_port,
        protocol,
        host_port: None,
    };
    let mut request = request();
    request.ports = Some(vec![port(1, Protocol::Tcp), port(2, Protocol::Http)]);
    let plan = Plan::new(&request, &image()).unwrap();
    assert_eq!(plan.readiness, Some(Readiness { port: 2, http: true }));
    request.ports = Some(vec![]);
    assert_eq!(Plan::new(&request, &image()).unwrap().readiness, None);
    request.ports = Some(vec![port(1, Protocol::Tcp), port(1, Protocol::Http)]);
    assert!(Plan::new(&request, &image()).is_err(), "both are called tcp-1");
}

#[test]
fn mounts_stay_away_from_what_is_ours() {
    for target in ["tmp", "/", "/proc/x", "/.nimbus/init", "/a/../proc", "/dev"] {
        let mut request = request();
        request.mounts = vec![Mount::Tmpfs {
            target: target.into(),
            size_bytes: None,
        }];
        assert!(Plan::new(&request, &image()).is_err(), "{target}");
    }
}

#[test]
fn a_desktop_needs_an_image_that_is_one() {
    let mut request = request();
    request.profile = Profile::Desktop;
    assert!(matches!(
        Plan::new(&request, &image()),
        Err(AgentError::Unavailable { .. })
    ));
    let mut image = image();
    image
        .config
        .labels
        .insert(DESKTOP_LABEL.into(), "provided".into());
    assert!(Plan::new(&request, &image).unwrap().class.desktop);
}

#[test]
fn the_images_health_check_is_used_where_none_is_given() {
    let mut image = image();
    image.config.healthcheck = Some(Healthcheck {
        argv: words(&["check"]),
        interval: Some(Duration::from_secs(5)),
        timeout: Some(Duration::from_secs(2)),
        retries: None,
        start_period: None,
    });
    let plan = Plan::new(&request(), &image).unwrap();
    let health = plan.health.unwrap();
    assert_eq!(
        (health.interval_ms, health.timeout_ms, health.retries),
        (5000, 2000, 3)
    );
    assert_eq!(plan.probe_timeout, Duration::from_secs(2));
}

#[test]
fn signals_have_numbers() {
    for (text, wanted) in [
        ("SIGTERM", 15),
        ("9", 9),
        ("SIGRTMIN+3", 37),
        ("SIGRTMAX-1", 63),
        ("SIGQUIT", 3),
        ("SIGRTMIN", 34),
    ] {
        assert_eq!(number(&text.parse().unwrap()), Some(wanted), "{text}");
    }
}

#[test]
fn command_ids_of_ours_are_known() {
    assert_eq!((main_id(0).as_str(), main_id(2).as_str()), ("main", "main.2"));
    for own in ["main", "main.2", "nimbus.probe"] {
        assert!(is_own(own), "{own}");
    }
    for other in ["mainly", "c1", "x.nimbus.y"] {
        assert!(!is_own(other), "{other}");
    }
}
