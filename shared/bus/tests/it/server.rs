//! The embedded server's life.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use nimbus_bus::{Authority, CloudEvent, EmbeddedNats, EmbeddedOptions, EventFilter, EventStart, Grants};
use nimbus_model::Clock;
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::world::*;

/// Waits until a process that is not our child has ended.
async fn ended(pid: u32) {
    let Ok(handle) = pidfd_open(
        Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(),
        PidfdFlags::empty(),
    ) else {
        return;
    };
    let wait = move || rustix::event::poll(&mut [PollFd::new(&handle, PollFlags::IN)], None);
    within(tokio::task::spawn_blocking(wait)).await.unwrap().unwrap();
}

#[tokio::test]
async fn it_comes_back_with_the_same_address_and_files() {
    let mut world = World::start().await;
    let grants = Grants::default()
        .publishing("machine")
        .following("nimbus.v1.event.machine.>");
    let bus = world.client("provisioner", &grants).await;
    bus.publish(&CloudEvent::of(
        &Made { number: 1 },
        "provisioner",
        &Clock::system(),
    ))
    .await
    .unwrap();
    let (url, pid) = (world.nats.url(), world.nats.pid().unwrap());
    world.crash().await;
    assert_eq!(world.nats.url(), url);
    assert_ne!(world.nats.pid(), Some(pid));
    bus.publish(&CloudEvent::of(
        &Made { number: 2 },
        "provisioner",
        &Clock::system(),
    ))
    .await
    .unwrap();

    // Stopped in order, and started as another process of Nimbus would.
    let pid = world.nats.pid().unwrap();
    within(world.nats.stop()).await;
    assert_eq!(world.nats.pid(), None);
    ended(pid).await;
    world.nats = start(&world.dir, &world.authority).await;
    let bus = world.client("provisioner", &grants).await;
    let mut events = bus.events(EventFilter {
        subjects: vec!["nimbus.v1.event.machine.>".into()],
        start: EventStart::All,
    });
    for number in 1..=2 {
        let delivered = within(futures::StreamExt::next(&mut events))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(delivered.event.read::<Made>().unwrap(), Some(Made { number }));
    }
}

#[tokio::test]
async fn it_listens_on_loopback_only_and_its_configuration_is_private() {
    let world = World::start().await;
    let port: u16 = world.nats.url().rsplit_once(':').unwrap().1.parse().unwrap();
    let wanted = format!("{:04X}", port);
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let listening: Vec<&str> = table
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .filter(|local| local.ends_with(&format!(":{wanted}")))
        .collect();
    assert!(
        !listening.is_empty() && listening.iter().all(|local| local.starts_with("0100007F:")),
        "{listening:?}"
    );
    let config = std::fs::metadata(world.dir.path().join("nats/nats-server.conf")).unwrap();
    assert_eq!(config.permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn two_never_open_the_same_files() {
    let world = World::start().await;
    let pid = world.nats.pid().unwrap();
    let (dir, authority) = (
        world.dir.path().to_owned(),
        Authority::open(world.dir.path().join("bus")).unwrap(),
    );
    let second = tokio::spawn(async move {
        let options = EmbeddedOptions {
            data_dir: dir,
            authority: Some(&authority),
            binary: None,
        };
        EmbeddedNats::start(options).await.unwrap()
    });
    // The first one still answers while the second waits, and goes on until it is told to stop.
    world.root("admin").await;
    assert_eq!(world.nats.pid(), Some(pid));
    assert!(!second.is_finished());
    world.nats.stop().await;
    let second = within(second).await.unwrap();
    assert!(second.pid().is_some());
}

#[tokio::test]
async fn a_server_that_does_not_start_says_why() {
    let dir = camino_tempfile::tempdir().unwrap();
    let start = |binary: &str| {
        let options = EmbeddedOptions {
            data_dir: dir.path().to_owned(),
            authority: None,
            binary: Some(binary.into()),
        };
        EmbeddedNats::start(options)
    };
    let error = start("/bin/false").await.unwrap_err().to_string();
    assert!(error.contains("exit status: 1"), "{error}");
    let error = start("/no/such/file").await.unwrap_err().to_string();
    assert!(error.contains("/no/such/file"), "{error}");
}

#[tokio::test]
async fn it_dies_with_its_parent() {
    let host = std::env::current_exe().unwrap();
    let mut host = Command::new(host)
        .args([
            "--exact",
            "server::host_for_the_test_above",
            "--ignored",
            "--nocapture",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(host.stdout.take().unwrap()).lines();
    let pid = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("nats-server runs as ")?.parse().ok())
        .unwrap();
    kill(host.id());
    host.wait().unwrap();
    ended(pid).await;
}

#[tokio::test]
#[ignore = "a process to be killed by it_dies_with_its_parent"]
async fn host_for_the_test_above() {
    let world = World::start().await;
    println!("\nnats-server runs as {}", world.nats.pid().unwrap());
    std::future::pending::<()>().await;
}
