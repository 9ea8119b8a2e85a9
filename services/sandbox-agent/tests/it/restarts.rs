//! Restarts of processes and of the agent; orders of `workloads`.

use nimbus_bus::{Side, StreamId};
use nimbus_guest::Attachment;
use nimbus_guest::protocol::{FromCommand, Hello, Opened, Since};
use nimbus_proto::agent::{self, AgentOpen};
use nimbus_proto::workloads::{BeatReply, Lifecycle, RestartPolicy, Wanted};

use crate::world::{World, docker, eventually, reason, sandbox};

#[tokio::test(flavor = "multi_thread")]
async fn a_process_is_run_again_as_its_policy_says() {
    let world = World::start().await;
    let mut request = sandbox("echo run >> /tmp/runs; exit 1");
    request.restart = RestartPolicy::OnFailure { max_restarts: 1 };
    world.launch(&request).await.unwrap();
    let seen = world.until_over(&request.sandbox).await;
    assert_eq!(
        (seen.restarts, reason(&seen).as_str()),
        (1, "RestartLimitReached")
    );
    assert_eq!(seen.lifecycle, Lifecycle::Failed);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_killed_finds_its_sandboxes_again() {
    let mut world = World::start().await;
    let request =
        sandbox("i=0; while [ $i -lt 40 ]; do echo line $i; i=$((i+1)); sleep 0.1; done; sleep 1000");
    let started = world.ready(&request).await;
    let before = world.containers();
    world.shell(&request.sandbox, "echo mine > /tmp/mine").await;
    world.kill_agent().await;
    world.start_agent().await;
    assert_eq!(world.containers(), before);
    let now = world.launch(&request).await.unwrap();
    assert_eq!(now.lifecycle, Lifecycle::Ready, "{now:?}");
    assert!(now.sequence > started.sequence);
    assert_eq!(
        (now.start, now.started_after_us),
        (started.start, started.started_after_us)
    );
    assert_eq!(world.shell(&request.sandbox, "cat /tmp/mine").await, "mine\n");
    let lines = world.log(&request.sandbox, "line 39").await;
    let wanted: Vec<String> = (0..40).map(|n| format!("line {n}")).collect();
    assert_eq!(lines, wanted, "no line is lost or doubled");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn output_goes_on_at_the_offset_that_is_named_after_the_agent_was_killed() {
    let mut world = World::start().await;
    let request = sandbox("sleep 1000");
    world.ready(&request).await;
    let line = "i=0; while [ $i -lt 30 ]; do echo $i; i=$((i+1)); sleep 0.05; done";
    let spec = nimbus_guest::protocol::CommandSpec::new("job", ["sh", "-c", line]);
    let mut seen = Vec::new();
    let mut attached = attach(
        &world,
        &request.sandbox,
        Hello::Run {
            spec,
            since: Since::Offset(0),
            input: false,
        },
    )
    .await;
    while seen.len() < 12 {
        if let Some(FromCommand::Output { bytes, .. }) = attached.next().await.unwrap() {
            seen.extend_from_slice(&bytes);
        }
    }
    world.kill_agent().await;
    drop(attached);
    world.start_agent().await;
    let offset = u64::try_from(seen.len()).unwrap();
    let mut attached = attach(
        &world,
        &request.sandbox,
        Hello::Attach {
            command: "job".into(),
            since: Since::Offset(offset),
            input: false,
        },
    )
    .await;
    while let Some(event) = attached.next().await.unwrap() {
        if let FromCommand::Output { bytes, .. } = event {
            seen.extend_from_slice(&bytes);
        }
    }
    let wanted: String = (0..30).map(|n| format!("{n}\n")).collect();
    assert_eq!(String::from_utf8(seen).unwrap(), wanted);
    world.end().await;
}

async fn attach(world: &World, sandbox: &str, hello: Hello) -> Attachment<nimbus_bus::BusStream> {
    let id = StreamId::fresh();
    let stream = world.gateway.stream(id, "stdio", Side::Client).await.unwrap();
    let open = AgentOpen {
        stream: id,
        word: "stdio".into(),
        sandbox: sandbox.to_owned(),
        lease: None,
        wanted: Wanted::Guest(hello),
    };
    let reply = world
        .workloads
        .call::<agent::Open>(&open)
        .at(&world.host)
        .await
        .unwrap();
    match nimbus_bus::decode::<Opened>(&reply.hello).unwrap() {
        Opened::Command(opened) => Attachment::new(stream, opened),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_was_taken_away_is_an_end_that_the_policy_judges() {
    let world = World::start().await;
    let alone = sandbox("sleep 1000");
    let mut service = sandbox("sleep 1000");
    service.restart = RestartPolicy::Always { max_restarts: None };
    world.ready(&alone).await;
    world.ready(&service).await;
    for container in world.containers() {
        docker(&["rm", "-f", &container]).unwrap();
    }
    let seen = world.until_over(&alone.sandbox).await;
    assert_eq!(seen.lifecycle, Lifecycle::Failed);
    let seen = world
        .until(&service.sandbox, |seen| {
            seen.restarts == 1 && seen.lifecycle == Lifecycle::Ready
        })
        .await;
    assert_eq!(seen.exit, None);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_while_no_agent_ran_is_told_and_only_ours_is_touched() {
    let mut world = World::start().await;
    let request = sandbox("sleep 1000");
    world.ready(&request).await;
    let ours = world.containers();
    world.kill_agent().await;
    docker(&["rm", "-f", &ours[0]]).unwrap();
    let name = format!("foreign-{}", world.host);
    let foreign = docker(&[
        "run",
        "-d",
        "--name",
        &name,
        "--label",
        "io.nimbus.test=foreign",
        "--network",
        "none",
        crate::world::IMAGE,
        "sleep",
        "1000",
    ])
    .unwrap();
    world.start_agent().await;
    let seen = world.until_over(&request.sandbox).await;
    assert_eq!(
        (seen.lifecycle, reason(&seen).as_str()),
        (Lifecycle::Failed, "LostDuringRestart")
    );
    let running = docker(&["inspect", "--format", "{{.State.Running}}", foreign.trim()]).unwrap();
    assert_eq!(running.trim(), "true");
    docker(&["rm", "-f", foreign.trim()]).unwrap();
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_in_the_reply_to_a_beat_are_obeyed() {
    let world = World::start().await;
    let (one, two) = (sandbox("sleep 1000"), sandbox("sleep 1000"));
    world.ready(&one).await;
    world.ready(&two).await;
    let beat = eventually(
        async || world.beat(),
        |beat| beat.as_ref().is_some_and(|beat| beat.sandboxes.len() == 2),
    )
    .await
    .unwrap();
    assert_eq!(
        (beat.facts.backends.as_slice(), beat.host.as_str()),
        (&["container".to_owned()][..], world.host.as_str())
    );
    assert!(beat.facts.cpu_milli > 0 && beat.facts.memory_bytes > 0);
    // What the host has: those who place sandboxes know how often it may be given out.
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let processors = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    assert!(
        u64::from(beat.facts.cpu_milli) <= 1000 * processors as u64,
        "{} of {processors}",
        beat.facts.cpu_milli
    );
    assert!(
        beat.images
            .iter()
            .any(|image| image.contains("nimbus.test/busybox"))
    );
    world.order(BeatReply {
        remove: vec![one.sandbox.clone()],
        stop: vec![(two.sandbox.clone(), "TtlExpired".into())],
        expected: vec![],
    });
    let seen = world.until_over(&two.sandbox).await;
    assert_eq!(
        (seen.lifecycle, reason(&seen).as_str()),
        (Lifecycle::Stopped, "TtlExpired")
    );
    eventually(
        async || world.beat(),
        |beat| beat.as_ref().is_some_and(|beat| beat.sandboxes.len() == 1),
    )
    .await;
    let lost = sandbox("x").sandbox;
    for _ in 0..2 {
        world.order(BeatReply {
            expected: vec![lost.clone()],
            ..BeatReply::default()
        });
        eventually(async || world.orders_taken(), |taken| *taken).await;
    }
    assert_eq!(reason(&world.until_over(&lost).await), "LostDuringRestart");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn time_and_idleness_end_a_sandbox() {
    let world = World::start().await;
    let mut short = sandbox("sleep 1000");
    short.expires_at = Some(
        nimbus_model::Clock::system()
            .now()
            .after(std::time::Duration::from_secs(3)),
    );
    let mut idle = sandbox("sleep 1000");
    idle.idle_timeout_ms = Some(800);
    world.ready(&short).await;
    world.ready(&idle).await;
    assert_eq!(reason(&world.until_over(&idle.sandbox).await), "IdleTimeout");
    assert_eq!(reason(&world.until_over(&short.sandbox).await), "TtlExpired");
    world.end().await;
}
