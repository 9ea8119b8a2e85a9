use nimbus_node::{Agent, Kind, Manifest, NodeError, Removal, Request, Target, drift};
use nimbus_units::{State, UnitFile};

use crate::host::TestHost;

/// What a dry run says that it would remove.
fn to_remove(said: &str) -> Vec<&str> {
    said.lines()
        .filter_map(|line| line.strip_prefix("remove: "))
        .collect()
}

fn everything(host: &TestHost) -> Request {
    Request {
        socket_activation: true,
        enable: true,
        now: true,
        ..host.request()
    }
}

#[test]
fn a_dry_run_says_every_byte_and_touches_nothing() {
    let host = TestHost::new();
    let plan = host.plan(everything(&host));
    let said = plan.dry_run();
    assert_eq!(host.tree(), Vec::<String>::new());
    let done = plan.apply(&host).unwrap();
    for path in &done.written {
        let name = path.file_name().unwrap();
        let whole = format!("### {name} -> {path}\n{}", host.text(path));
        assert!(said.contains(&whole), "{path}");
    }
    let commands: Vec<&str> = said
        .lines()
        .filter_map(|line| line.strip_prefix("run: "))
        .collect();
    assert_eq!(commands, host.ran());
    assert_eq!(
        commands,
        [
            "systemctl --user daemon-reload",
            "systemctl --user enable nimbus.socket",
            "systemctl --user start nimbus.socket"
        ]
    );
    assert!(said.starts_with("Nimbus node install dry-run\nmode: native systemd\nscope: user\nenable: true\nnow: true\n\n### nimbus.service -> /"));
}

#[test]
fn what_is_there_is_kept_until_somebody_says_otherwise() {
    let host = TestHost::new();
    host.install(host.request(), false).unwrap();
    let conflict = |request: Request| match host.install(request, false).unwrap_err() {
        NodeError::Exists(found) => found.into_iter().next().unwrap(),
        other => panic!("{other}"),
    };
    assert_eq!(conflict(host.request()).state, State::InSync);
    let moved = || Request {
        listen: ([127, 0, 0, 1], 9000).into(),
        ..host.request()
    };
    let found = conflict(moved());
    assert_eq!(found.state, State::Outdated);
    assert!(
        found.diff.contains("+ExecStart") && found.diff.contains("--port 9000"),
        "{}",
        found.diff
    );

    let patched = host.text(&found.path).replace("RestartSec=2", "RestartSec=60");
    std::fs::write(&found.path, &patched).unwrap();
    let found = conflict(host.request());
    assert_eq!(found.state, State::Modified);
    assert!(
        found.diff.contains("-RestartSec=60\n+RestartSec=2\n"),
        "{}",
        found.diff
    );
    assert_eq!(host.text(&found.path), patched, "refused means untouched");
    let seen = drift(&host.layout(), Target::Systemd, "", &host).unwrap();
    assert_eq!((seen.len(), seen[0].1.state), (1, State::Modified));

    host.install(host.request(), true).unwrap();
    assert_eq!(
        drift(&host.layout(), Target::Systemd, "", &host).unwrap()[0]
            .1
            .state,
        State::InSync
    );
    std::fs::write(&found.path, "[Service]\nExecStart=/bin/other\n").unwrap();
    assert_eq!(conflict(host.request()).state, State::Foreign);
}

#[test]
fn nothing_is_written_unless_everything_can_be() {
    let host = TestHost::new();
    let socket = host.layout().units.join("nimbus.socket");
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    std::fs::write(&socket, "[Socket]\n").unwrap();
    let before = host.tree();
    assert!(matches!(
        host.install(everything(&host), false),
        Err(NodeError::Exists(_))
    ));
    assert_eq!(host.tree(), before);
    assert_eq!(host.ran(), Vec::<String>::new());
}

#[test]
fn a_service_and_a_container_do_not_stand_beside_each_other() {
    let host = TestHost::new();
    let container = || Request {
        image: Some("ghcr.io/nimbus/nimbus:1.2.3".to_owned()),
        ..Request::new(Target::Container, host.layout().scope)
    };
    host.install(host.request(), false).unwrap();
    let before = host.tree();
    for overwrite in [false, true] {
        let refused = host.install(container(), overwrite).unwrap_err();
        assert!(
            matches!(&refused, NodeError::OtherTarget { path } if path.ends_with("systemd/user/nimbus.service")),
            "{refused}"
        );
        assert_eq!(refused.kind(), Kind::Refused);
    }
    assert_eq!(host.tree(), before, "refused means untouched");
    host.removal(false).apply(&host).unwrap();
    host.install(container(), false).unwrap();
    assert!(matches!(
        host.install(host.request(), true),
        Err(NodeError::OtherTarget { .. })
    ));
}

#[test]
fn a_socket_that_is_not_wanted_any_more_goes() {
    let host = TestHost::new();
    host.install(everything(&host), false).unwrap();
    host.ran();
    let done = host.install(host.request(), true).unwrap();
    assert_eq!(done.removed, [host.layout().units.join("nimbus.socket")]);
    assert_eq!(
        host.ran(),
        [
            "systemctl --user disable --now nimbus.socket",
            "systemctl --user daemon-reload"
        ]
    );
}

#[test]
fn a_running_node_is_restarted_and_gives_the_port_to_its_socket() {
    let host = TestHost::answering(|line| line.ends_with("--quiet nimbus.service").then_some((0, "")));
    let now = Request {
        now: true,
        ..host.request()
    };
    host.install(now, false).unwrap();
    assert_eq!(
        host.ran(),
        [
            "systemctl --user daemon-reload",
            "systemctl --user restart nimbus.service"
        ]
    );
    host.install(everything(&host), true).unwrap();
    assert_eq!(
        host.ran(),
        [
            // Else the next boot would start it without a connection.
            "systemctl --user disable nimbus.service",
            "systemctl --user daemon-reload",
            "systemctl --user enable nimbus.socket",
            "systemctl --user stop nimbus.socket nimbus.service",
            "systemctl --user start nimbus.socket"
        ]
    );
}

#[test]
fn uninstalling_leaves_what_the_node_kept_and_purging_leaves_nothing() {
    let host = TestHost::new();
    host.install(everything(&host), false).unwrap();
    host.ran();
    std::fs::create_dir_all(host.layout().data()).unwrap();
    std::fs::write(host.layout().data().join("nimbus.db"), "rows").unwrap();
    let removal = host.removal(false);
    let said = removal.dry_run().unwrap();
    assert!(
        said.starts_with("Nimbus node uninstall dry-run\nmode: native systemd\nscope: user\n"),
        "{said}"
    );
    removal.check(false).unwrap();
    let done = removal.apply(&host).unwrap();
    assert_eq!(
        host.ran(),
        [
            "systemctl --user disable --now nimbus.socket nimbus.service",
            "systemctl --user daemon-reload",
            "systemctl --user reset-failed nimbus.service"
        ]
    );
    assert_eq!(
        to_remove(&said),
        done.removed,
        "folders and files, in their order"
    );
    assert!(done.removed.contains(&host.layout().units.to_string()));
    assert_eq!(Manifest::read(&host.layout()).unwrap(), None);
    assert!(host.layout().data().join("nimbus.db").exists());
    let config: Vec<String> = host
        .tree()
        .into_iter()
        .filter(|path| path.starts_with(".config"))
        .collect();
    assert_eq!(config, Vec::<String>::new());
    assert_eq!(done.kept.first().unwrap(), &host.layout().base.to_string());

    let again = host.removal(false).apply(&host).unwrap();
    assert_eq!(again.removed, Vec::<String>::new(), "what is not there is fine");
    host.install(everything(&host), false).unwrap();
    let (before, removal) = (host.tree(), host.removal(true));
    let said = removal.dry_run().unwrap();
    assert_eq!(host.tree(), before, "a dry run touches nothing");
    let done = removal.apply(&host).unwrap();
    assert_eq!(to_remove(&said), done.removed);
    assert_eq!(done.kept, Vec::<String>::new());
    assert!(
        host.tree().iter().all(|path| !path.contains("nimbus")),
        "{:?}",
        host.tree()
    );
}

#[test]
fn files_of_others_are_not_removed() {
    let host = TestHost::new();
    host.install(host.request(), false).unwrap();
    let unit = host.layout().units.join("nimbus.service");
    std::fs::write(&unit, "[Service]\n").unwrap();
    let settings = host.layout().env_file();
    std::fs::write(&settings, "LOG=debug\n").unwrap();
    let binary = host.layout().binary;
    host.program("other", "9");
    std::fs::rename(host.path("other"), &binary).unwrap();

    let removal = host.removal(false);
    assert!(matches!(removal.check(false), Err(NodeError::Foreign(found)) if found == [unit.clone()]));
    removal.check(true).unwrap();
    let done = removal.apply(&host).unwrap();
    assert!(!unit.exists());
    assert!(
        settings.exists() && binary.exists(),
        "settings and a program of somebody else"
    );
    assert!(done.kept.contains(&settings.to_string()));
    assert!(
        done.left.iter().any(|left| left.starts_with(binary.as_str())),
        "{done:?}"
    );
}

#[test]
fn a_folder_with_something_else_in_it_stays() {
    let host = TestHost::new();
    host.install(host.request(), false).unwrap();
    let units = host.layout().units;
    std::fs::write(units.join("own.service"), "").unwrap();
    let removal = host.removal(true);
    let said = removal.dry_run().unwrap();
    let done = removal.apply(&host).unwrap();
    assert_eq!(to_remove(&said), done.removed);
    assert!(units.exists() && !done.removed.contains(&units.to_string()));
    assert!(!host.layout().config.exists());
}

#[test]
fn node_and_agent_of_different_programs_both_go() {
    let host = TestHost::new();
    let own = host.path("home/opt/agent/nimbus");
    let agent = Agent {
        layout: host.layout(),
        binary: own.clone(),
        command: "nimbus node join https://nimbus.example.org".to_owned(),
    };
    agent.apply(&host.program("agents", "2"), "", &[], &host).unwrap();
    host.install(host.request(), false).unwrap();
    let node = host.layout().binary;
    assert!(own.exists() && node.exists());
    let removal = host.removal(true);
    let said = removal.dry_run().unwrap();
    let done = removal.apply(&host).unwrap();
    assert_eq!(to_remove(&said), done.removed);
    assert!(!own.exists() && !node.exists(), "{done:?}");
    assert_eq!((host.tree(), done.left), (Vec::new(), Vec::new()));
}

#[test]
fn a_program_that_both_share_goes_whoever_upgraded_it() {
    let host = TestHost::new();
    let agent = Agent {
        layout: host.layout(),
        binary: host.layout().binary,
        command: "nimbus node join https://nimbus.example.org".to_owned(),
    };
    agent.apply(&host.path("new"), "", &[], &host).unwrap();
    let record = host.layout().config.join("agent.json");
    let old = host.text(&record);
    // As it is after an upgrade: only one of them knows the new program.
    std::fs::remove_file(host.layout().binary).unwrap();
    host.program("new", "2.0.0");
    host.install(host.request(), false).unwrap();
    assert_eq!(host.text(&record), old);
    let done = host.removal(true).apply(&host).unwrap();
    assert_eq!((host.tree(), done.left), (Vec::new(), Vec::new()));
}

#[test]
fn the_volume_of_a_container_goes_only_when_that_is_asked_for() {
    let container = |host: &TestHost| {
        let request = Request {
            image: Some("ghcr.io/nimbus/nimbus:1.2.3".to_owned()),
            ..Request::new(Target::Container, host.layout().scope)
        };
        host.install(request, false).unwrap();
        host.ran_of("");
    };
    let removal =
        |host: &TestHost, purge| Removal::new(host.layout(), Target::Container, purge, host).unwrap();
    let volume = |code: i32| {
        TestHost::answering(move |line| (line == "podman volume exists nimbus-data").then_some((code, "")))
    };
    const RM: &str = "podman volume rm nimbus-data";

    let host = volume(0);
    container(&host);
    let kept = removal(&host, false);
    assert_eq!(kept.loses(), Vec::<String>::new());
    assert_eq!(kept.apply(&host).unwrap().kept, ["the volume nimbus-data"]);
    assert!(!host.ran_of("podman").contains(&RM.to_owned()));

    container(&host);
    let purge = removal(&host, true);
    assert_eq!(purge.loses(), ["the volume nimbus-data"]);
    assert!(purge.dry_run().unwrap().contains(&format!("\nrun: {RM}\n")));
    assert!(!host.ran_of("podman").contains(&RM.to_owned()));
    let done = purge.apply(&host).unwrap();
    assert!(
        done.removed.contains(&"the volume nimbus-data".to_owned()),
        "{done:?}"
    );
    // Whoever uses it has been stopped before.
    let ran = host.ran_of("");
    let at = |start: &str| ran.iter().position(|line| line.starts_with(start)).unwrap();
    assert!(at("systemctl --user stop nimbus.service") < at(RM), "{ran:?}");

    // There is none; and nobody knows.
    let host = volume(1);
    container(&host);
    let done = removal(&host, true).apply(&host).unwrap();
    assert_eq!((done.kept, done.left), (Vec::new(), Vec::new()));
    let host = volume(127);
    container(&host);
    let purge = removal(&host, true);
    let said = purge.dry_run().unwrap();
    let done = purge.apply(&host).unwrap();
    let [left] = done.left.as_slice() else {
        panic!("{done:?}")
    };
    assert!(
        left.ends_with(&format!(": {RM}")) && said.contains(&format!("left: {left}\n")),
        "{left}"
    );
    assert!(!host.ran_of("podman").contains(&RM.to_owned()));
}

#[test]
fn a_failing_service_manager_is_told_and_the_files_stay() {
    let host = TestHost::answering(|line| line.contains(" start ").then_some((1, "Job failed.")));
    let now = Request {
        now: true,
        ..host.request()
    };
    let error = host.install(now, false).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("systemctl --user start nimbus.service")
            && error.to_string().contains("Job failed."),
        "{error}"
    );
    assert!(host.layout().units.join("nimbus.service").exists());
    assert!(host.removal(false).apply(&host).is_ok(), "and can be taken away");
}

#[test]
fn an_agent_is_a_unit_of_its_own_and_goes_with_the_rest() {
    let host = TestHost::new();
    let agent = Agent {
        layout: host.layout(),
        binary: host.layout().binary,
        command: "nimbus node join https://nimbus.example.org".to_owned(),
    };
    agent.check(false, &host).unwrap();
    agent
        .apply(
            &host.path("new"),
            "NATS_URL=tls://nimbus.example.org\n",
            &[],
            &host,
        )
        .unwrap();
    let unit = agent.artifact(&host).unwrap();
    assert_eq!(host.text(&unit.path), unit.text);
    let parsed = UnitFile::parse(&unit.text).unwrap();
    assert!(
        parsed
            .value("Service", "ExecStart")
            .unwrap()
            .contains(" serve sandbox-agent --data-dir /")
    );
    assert_eq!(
        host.ran(),
        [
            "systemctl --user daemon-reload",
            "systemctl --user enable nimbus-sandbox-agent.service",
            "systemctl --user restart nimbus-sandbox-agent.service"
        ]
    );
    assert!(matches!(agent.check(false, &host), Err(NodeError::Exists(_))));
    agent.check(true, &host).unwrap();
    // A node beside it leaves it alone.
    host.install(host.request(), false).unwrap();
    assert!(unit.path.exists());
    let seen = drift(&host.layout(), Target::Systemd, "", &host).unwrap();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|(_, drift)| drift.state == State::InSync));
    host.removal(true).apply(&host).unwrap();
    assert!(
        host.tree().iter().all(|path| !path.contains("nimbus")),
        "{:?}",
        host.tree()
    );

    agent
        .apply(
            &host.path("new"),
            "NATS_URL=tls://nimbus.example.org\n",
            &[],
            &host,
        )
        .unwrap();
    host.removal(true).apply(&host).unwrap();
    assert!(
        host.tree().iter().all(|path| !path.contains("nimbus")),
        "{:?}",
        host.tree()
    );
}
