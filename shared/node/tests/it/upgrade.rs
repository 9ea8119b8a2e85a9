use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use nimbus_node::{Manifest, NodeError, Request, Upgrade, Upgraded};

use crate::host::TestHost;

/// Something that always says it is ready.
fn ready() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 512]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
    });
    address
}

fn upgrade(host: &TestHost, name: &str) -> Upgrade {
    Upgrade {
        layout: host.layout(),
        program: host.path(name),
        ready_within: Duration::from_secs(30),
    }
}

fn installed(host: &TestHost) {
    let request = Request {
        listen: ready(),
        ..host.request()
    };
    host.install(request, false).unwrap();
    host.ran();
}

const ACTIVE: &str = "is-active --quiet nimbus.service";

#[test]
fn a_good_program_takes_the_place() {
    let host = TestHost::answering(|line| line.ends_with(ACTIVE).then_some((0, "")));
    installed(&host);
    assert_eq!(
        upgrade(&host, "new").run(&host, |_| ()).unwrap(),
        Upgraded::Same {
            version: "nimbus 1.0.0".to_owned()
        }
    );
    host.program("newer", "2.0.0");
    let mut said = Vec::new();
    let done = upgrade(&host, "newer")
        .run(&host, |line| said.push(line.to_owned()))
        .unwrap();
    assert_eq!(
        done,
        Upgraded::Serves {
            from: "nimbus 1.0.0".to_owned(),
            to: "nimbus 2.0.0".to_owned()
        }
    );
    assert_eq!(host.ran(), ["systemctl --user restart nimbus.service"]);
    let binary = host.layout().binary;
    assert_eq!(host.text(&binary), host.text(&host.path("newer")));
    assert_eq!(
        binary.parent().unwrap().read_dir_utf8().unwrap().count(),
        1,
        "nothing is left beside it"
    );
    // The manifest knows the new one: uninstalling removes it.
    let copied = Manifest::read(&host.layout()).unwrap().unwrap().binary.unwrap();
    assert_eq!(copied.path, binary);
    host.removal(false).apply(&host).unwrap();
    assert!(!binary.exists());
}

#[test]
fn a_bad_program_gives_the_place_back() {
    let failed = Rc::new(Cell::new(false));
    let seen = Rc::clone(&failed);
    let host = TestHost::answering(move |line| {
        if line.contains(" restart ") && !seen.replace(true) {
            return Some((1, "Job for nimbus.service failed.\nSee the journal."));
        }
        line.ends_with(ACTIVE).then_some((0, ""))
    });
    installed(&host);
    host.program("bad", "2.0.0");
    let error = upgrade(&host, "bad").run(&host, |_| ()).unwrap_err();
    assert!(
        matches!(&error, NodeError::RolledBack { new, old, reason }
            if new == "nimbus 2.0.0" && old == "nimbus 1.0.0" && reason == "Job for nimbus.service failed"),
        "{error:?}"
    );
    assert_eq!(
        host.ran(),
        [
            "systemctl --user restart nimbus.service",
            "systemctl --user reset-failed nimbus.service",
            "systemctl --user restart nimbus.service"
        ]
    );
    assert_eq!(host.text(&host.layout().binary), host.text(&host.path("new")));
    assert_eq!(
        host.layout()
            .binary
            .parent()
            .unwrap()
            .read_dir_utf8()
            .unwrap()
            .count(),
        1
    );
}

#[test]
fn when_the_old_one_fails_too_that_is_said() {
    let host = TestHost::answering(|line| {
        if line.contains(" restart ") {
            return Some((1, "Job failed."));
        }
        line.ends_with(ACTIVE).then_some((0, ""))
    });
    installed(&host);
    host.program("bad", "2.0.0");
    assert!(matches!(
        upgrade(&host, "bad").run(&host, |_| ()),
        Err(NodeError::Down { .. })
    ));
}

#[test]
fn what_does_not_run_here_is_not_even_tried() {
    let host = TestHost::new();
    assert!(matches!(
        upgrade(&host, "new").run(&host, |_| ()),
        Err(NodeError::NotInstalled { .. })
    ));
    installed(&host);
    for (name, text) in [
        ("text", "not a program"),
        ("other", "#!/bin/sh\necho hello\n"),
        ("fails", "#!/bin/sh\nexit 1\n"),
    ] {
        let path = host.program(name, "3");
        std::fs::write(&path, text).unwrap();
        let error = upgrade(&host, name).run(&host, |_| ()).unwrap_err();
        assert!(matches!(error, NodeError::Unusable { .. }), "{name}: {error}");
    }
    assert_eq!(host.ran(), Vec::<String>::new());
    // Nothing runs: the program changes its place, and nothing is started.
    host.program("newer", "2.0.0");
    assert!(matches!(
        upgrade(&host, "newer").run(&host, |_| ()),
        Ok(Upgraded::Placed { .. })
    ));
    assert_eq!(host.ran(), Vec::<String>::new());
}
