use anyhow::Result;
use bytes::Bytes;
use nimbus_guest::frame;
use nimbus_guest::protocol::{
    Claim, CommandSpec, ExitStatus, FromCommand, Hello, HelloReply, Opened, Since, Stream, ToCommand,
};
use tokio::io::AsyncWriteExt;

use crate::world::{Init, LONG, alive, eventually, read_until, refusal, sh};

const EXITED: ExitStatus = ExitStatus {
    code: Some(0),
    signal: None,
    timed_out: false,
};

#[tokio::test]
async fn a_command_gets_its_surroundings_and_gives_both_outputs_and_its_code() -> Result<()> {
    let init = Init::start().await?;
    let claim = Claim {
        env: vec![
            ("FROM_CLAIM".into(), "claim".into()),
            ("BOTH".into(), "claim".into()),
        ],
        cwd: Some("/usr".into()),
        ..Claim::default()
    };
    init.control().await?.claim(claim).await?;
    let mut spec = sh(
        "one",
        r#"echo $FROM_INIT $FROM_CLAIM $BOTH $OWN $PWD; cat; echo bad >&2; exit 7"#,
    );
    spec.env = vec![("OWN".into(), "own".into())];
    spec.stdin = true;
    let done = init.run(spec, Some("typed\n")).await?;
    assert_eq!(
        String::from_utf8(done.stdout)?,
        "init claim claim own /usr\ntyped\n"
    );
    assert_eq!(String::from_utf8(done.stderr)?, "bad\n");
    assert_eq!(
        done.exit,
        ExitStatus {
            code: Some(7),
            ..EXITED
        }
    );
    assert!(!done.truncated);

    let mut spec = sh("two", "pwd; cat");
    spec.cwd = Some("/etc/..".into());
    assert_eq!(init.run(spec, None).await?.stdout, b"/\n");
    Ok(())
}

#[tokio::test]
async fn an_id_runs_once_and_is_attached_to_again() -> Result<()> {
    let init = Init::start().await?;
    let count = init.path("count");
    let spec = sh("once", &format!("echo run >> {count}; echo out"));
    let mut started = Vec::new();
    for _ in 0..3 {
        let attached = init.guest.run(spec.clone(), Since::Offset(0), false).await?;
        started.push(attached.opened().started);
        assert_eq!(attached.collect(None, 100).await?.stdout, b"out\n");
    }
    assert_eq!(started, [true, false, false]);
    assert_eq!(std::fs::read_to_string(&count)?, "run\n");

    let other = init
        .guest
        .run(sh("once", "echo other"), Since::Offset(0), false)
        .await;
    assert_eq!(refusal(other), "op.conflict");
    assert_eq!(
        refusal(init.guest.attach("none", Since::Offset(0), false).await),
        "op.not_found"
    );

    // Forgotten, it is unknown again.
    init.control().await?.forget("once").await?;
    assert_eq!(
        refusal(init.guest.attach("once", Since::Offset(0), false).await),
        "op.not_found"
    );
    Ok(())
}

#[tokio::test]
async fn a_client_that_comes_back_gets_exactly_what_it_missed() -> Result<()> {
    let init = Init::start().await?;
    let go = init.path("go");
    let script = format!("printf 0123456789; until [ -e {go} ]; do sleep 0.01; done; printf abcdef");
    let mut first = init.guest.run(sh("c", &script), Since::Offset(0), false).await?;
    assert_eq!(
        read_until(&mut first, |text| text.len() >= 10).await?,
        "0123456789"
    );
    drop(first);
    std::fs::write(&go, "")?;
    let second = init.guest.attach("c", Since::Offset(4), false).await?;
    assert_eq!((second.opened().from, second.opened().started), (4, false));
    assert_eq!(second.collect(None, 100).await?.stdout, b"456789abcdef");
    let tail = init.guest.attach("c", Since::Tail(3), false).await?;
    assert_eq!((tail.opened().from, tail.opened().end), (13, 16));
    assert_eq!(tail.opened().exit, Some(EXITED));
    assert_eq!(tail.collect(None, 100).await?.stdout, b"def");
    assert_eq!(
        refusal(init.guest.attach("c", Since::Offset(17), false).await),
        "op.invalid_input"
    );
    Ok(())
}

/// The client died after its input was taken and before it heard of it, and says it all again.
#[tokio::test]
async fn input_that_is_repeated_arrives_once() -> Result<()> {
    let init = Init::start().await?;
    let mut spec = CommandSpec::new("cat", ["cat"]);
    spec.stdin = true;
    let (mut events, mut input) = init.guest.run(spec, Since::Offset(0), true).await?.split();
    input.send(Bytes::from_static(b"hello ")).await?;
    loop {
        if let Some(FromCommand::InputAccepted(6)) = events.next().await? {
            break;
        }
    }
    drop((events, input));

    let hello = Hello::Attach {
        command: "cat".into(),
        since: Since::Offset(0),
        input: true,
    };
    let (opened, mut stream) = init.guest.open(hello).await?;
    let Opened::Command(opened) = opened else {
        panic!("{opened:?}")
    };
    assert_eq!(opened.input, 6);
    let bytes = Bytes::from_static(b"hello world");
    frame::write(&mut stream, &ToCommand::Input { offset: 0, bytes }).await?;
    frame::write(&mut stream, &ToCommand::InputEnd { offset: 11 }).await?;
    let done = nimbus_guest::Attachment::new(stream, opened).collect(None, 100);
    assert_eq!(tokio::time::timeout(LONG, done).await??.stdout, b"hello world");
    Ok(())
}

#[tokio::test]
async fn a_gap_in_the_input_is_refused_and_the_last_writer_has_it() -> Result<()> {
    let init = Init::start().await?;
    let mut spec = CommandSpec::new("cat", ["cat"]);
    spec.stdin = true;
    let mut first = init.guest.run(spec, Since::Offset(0), true).await?;
    let second = init.guest.attach("cat", Since::Offset(0), true).await?;
    assert_eq!(refusal(first.next().await), "op.conflict");

    let hello = Hello::Attach {
        command: "cat".into(),
        since: Since::Offset(0),
        input: true,
    };
    let (opened, mut stream) = init.guest.open(hello).await?;
    let Opened::Command(opened) = opened else {
        panic!("{opened:?}")
    };
    let bytes = Bytes::from_static(b"late");
    frame::write(&mut stream, &ToCommand::Input { offset: 5, bytes }).await?;
    let mut third = nimbus_guest::Attachment::new(stream, opened);
    assert_eq!(refusal(third.next().await), "op.conflict");
    drop(second);

    let fourth = init.guest.attach("cat", Since::Offset(0), true).await?;
    let done = fourth.collect(Some(Bytes::from_static(b"fine")), 100).await?;
    assert_eq!(done.stdout, b"fine");
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_run_is_refused_and_its_id_stays_free() -> Result<()> {
    let init = Init::start().await?;
    let run = async |spec| refusal(init.guest.run(spec, Since::Offset(0), false).await);
    let text = init.path("text");
    std::fs::write(&text, "no program")?;
    assert_eq!(
        run(CommandSpec::new("x", ["no-such-program"])).await,
        "op.invalid_input"
    );
    assert_eq!(run(CommandSpec::new("x", ["/etc"])).await, "op.invalid_input");
    assert_eq!(
        run(CommandSpec::new("x", [text.as_str()])).await,
        "op.invalid_input"
    );
    assert_eq!(
        run(CommandSpec::new("x", Vec::<String>::new())).await,
        "op.invalid_input"
    );
    assert_eq!(run(CommandSpec::new("a b", ["true"])).await, "op.invalid_input");
    let mut lost = CommandSpec::new("x", ["true"]);
    lost.cwd = Some("/no/such/place".into());
    assert_eq!(run(lost).await, "op.invalid_input");
    assert_eq!(init.run(sh("x", "echo now"), None).await?.stdout, b"now\n");
    assert_eq!(init.control().await?.commands().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_time_limit_kills_everything_it_started() -> Result<()> {
    let init = Init::start().await?;
    // A grandchild in the same session, and one that left it.
    let mut spec = sh(
        "slow",
        "sleep 1000 & echo $!; setsid sleep 1001 & echo $!; echo $$; sleep 1002",
    );
    // Longer than a busy machine takes to start all three.
    spec.timeout_ms = Some(2000);
    let done = init.run(spec, None).await?;
    let exit = ExitStatus {
        code: None,
        signal: Some(9),
        timed_out: true,
    };
    assert_eq!(done.exit, exit);
    assert_eq!(done.exit.shell_code(), 137);
    let pids: Vec<i32> = String::from_utf8(done.stdout)?
        .lines()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    assert_eq!(pids.len(), 3);
    eventually(async || Ok((!pids.iter().any(|pid| alive(*pid))).then_some(()))).await
}

#[tokio::test]
async fn a_signal_reaches_the_group_and_what_is_killed_leaves_nothing() -> Result<()> {
    let init = Init::start().await?;
    let script = "trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.02; done";
    let mut trap = init
        .guest
        .run(sh("trap", script), Since::Offset(0), false)
        .await?;
    read_until(&mut trap, |text| text.contains("ready")).await?;
    let mut control = init.control().await?;
    control.signal("trap", 15).await?;
    let done = trap.collect(None, 100).await?;
    assert_eq!(
        (done.stdout.as_slice(), done.exit.code),
        (b"got it\n".as_slice(), Some(3))
    );
    // Ended: nothing to signal, and nobody else is.
    control.signal("trap", 15).await?;
    assert_eq!(refusal(control.signal("none", 15).await), "op.not_found");
    assert_eq!(refusal(control.signal("trap", 4000).await), "op.invalid_input");

    let mut spec = sh("kill", "sleep 1000 & echo $!; wait");
    spec.stdin = true;
    let mut killed = init.guest.run(spec, Since::Offset(0), true).await?;
    let child: i32 = read_until(&mut killed, |text| text.ends_with('\n'))
        .await?
        .trim()
        .parse()?;
    let (mut events, mut input) = killed.split();
    input.signal(9).await?;
    loop {
        if let Some(FromCommand::Exit(exit)) = events.next().await? {
            assert_eq!(exit.signal, Some(9));
            break;
        }
    }
    eventually(async || Ok((!alive(child)).then_some(()))).await
}

/// What an ended command left running lives on, does not hold its end back and is reaped in the end.
#[tokio::test]
async fn a_server_that_was_left_running_lives_on() -> Result<()> {
    let init = Init::start().await?;
    let go = init.path("go");
    let script =
        format!("(until [ -e {go} ]; do echo noise; sleep 0.01; done; echo end > {go}.done) & echo $!");
    let done = init.run(sh("left", &script), None).await?;
    assert_eq!(done.exit, EXITED);
    let text = String::from_utf8(done.stdout)?;
    let left: i32 = text
        .lines()
        .find(|line| *line != "noise")
        .unwrap_or_default()
        .parse()?;
    assert!(alive(left));
    std::fs::write(&go, "")?;
    let done = init.path("go.done");
    eventually(async || Ok(done.exists().then_some(()))).await?;
    let proc = format!("/proc/{left}");
    eventually(async || Ok((!std::path::Path::new(&proc).exists()).then_some(()))).await
}

#[tokio::test]
async fn a_command_that_nobody_is_attached_to_is_hung_up_if_it_asked_for_it() -> Result<()> {
    let init = Init::start().await?;
    let told = init.path("told");
    let mut spec = sh(
        "shell",
        &format!("trap 'echo hup > {told}; exit' HUP; echo ready; while :; do sleep 0.02; done"),
    );
    spec.linger_ms = Some(50);
    let mut attached = init.guest.run(spec, Since::Offset(0), false).await?;
    read_until(&mut attached, |text| text.contains("ready")).await?;
    drop(attached);
    let mut control = init.control().await?;
    eventually(async || Ok(control.commands().await?.remove(0).exit)).await?;
    assert_eq!(std::fs::read_to_string(told)?, "hup\n");
    Ok(())
}

#[tokio::test]
async fn a_thousand_commands_leave_the_newest_and_no_zombie() -> Result<()> {
    let init = Init::start().await?;
    let limit = std::sync::Arc::new(tokio::sync::Semaphore::new(8));
    let mut all = tokio::task::JoinSet::new();
    for number in 0..1000 {
        let (guest, limit) = (init.guest.clone(), limit.clone());
        all.spawn(async move {
            let _permit = limit.acquire().await?;
            let spec = CommandSpec::new(format!("n{number}"), ["echo", &number.to_string()]);
            let done = guest
                .run(spec, Since::Offset(0), false)
                .await?
                .collect(None, 100)
                .await?;
            assert_eq!(String::from_utf8(done.stdout)?, format!("{number}\n"));
            anyhow::Ok(())
        });
    }
    while let Some(done) = all.join_next().await {
        done??;
    }
    let mut control = init.control().await?;
    let stats = control.stats().await?;
    assert_eq!(stats.running, 0);
    assert!((200..=264).contains(&stats.commands), "{stats:?}");
    assert!(stats.log_memory < 1 << 20, "{stats:?}");
    let children = format!("/proc/{0}/task/{0}/children", init.pid());
    eventually(async || Ok(std::fs::read_to_string(&children)?.is_empty().then_some(()))).await
}

#[tokio::test]
async fn a_claim_is_made_once() -> Result<()> {
    let init = Init::start().await?;
    let mut control = init.control().await?;
    let claim = Claim {
        env: vec![("A".into(), "1".into())],
        ..Claim::default()
    };
    control.claim(claim.clone()).await?;
    control.claim(claim).await?;
    assert_eq!(refusal(control.claim(Claim::default()).await), "op.conflict");
    assert!(
        !format!(
            "{:?}",
            Claim {
                env: vec![("K".into(), "secret".into())],
                ..Claim::default()
            }
        )
        .contains("secret")
    );
    Ok(())
}

#[tokio::test]
async fn the_engines_stop_is_passed_on_and_then_the_init_ends() -> Result<()> {
    let mut init = Init::start().await?;
    let told = init.path("told");
    let script = format!("trap 'echo term > {told}; exit' TERM; echo ready; while :; do sleep 0.02; done");
    let mut main = init
        .guest
        .run(sh("main", &script), Since::Offset(0), false)
        .await?;
    read_until(&mut main, |text| text.contains("ready")).await?;
    let pid = rustix::process::Pid::from_raw(i32::try_from(init.pid())?).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    assert_eq!(init.ended().await?, Some(143));
    assert_eq!(std::fs::read_to_string(told)?, "term\n");
    Ok(())
}

#[tokio::test]
async fn an_unknown_version_and_garbage_are_answered() -> Result<()> {
    let init = Init::start().await?;
    let mut old = init.guest.connect().await?;
    let first = nimbus_guest::protocol::First {
        version: 99,
        hello: Hello::Control,
    };
    frame::write(&mut old, &first).await?;
    let reply: Option<HelloReply> = frame::read(&mut old).await?;
    assert_eq!(reply.unwrap().unwrap_err().code, "bus.schema_mismatch");
    let mut garbage = init.guest.connect().await?;
    garbage.write_all(&[3, 0, 0, 0, 1, 77, 77]).await?;
    let reply: Option<HelloReply> = frame::read(&mut garbage).await?;
    assert_eq!(reply.unwrap().unwrap_err().code, "bus.schema_mismatch");
    init.control().await?.ping().await?;
    Ok(())
}

#[tokio::test]
async fn the_two_outputs_are_one_numbered_row() -> Result<()> {
    let init = Init::start().await?;
    let script = "echo a; sleep 0.2; echo b >&2; sleep 0.2; echo c";
    let mut attached = init.guest.run(sh("row", script), Since::Offset(0), false).await?;
    let mut row = Vec::new();
    let mut times = Vec::new();
    while let Some(event) = attached.next().await? {
        if let FromCommand::Output {
            stream,
            offset,
            at_ms,
            bytes,
        } = event
        {
            row.push((stream, offset, bytes));
            times.push(at_ms);
        }
    }
    let line = |stream, offset, text: &'static str| (stream, offset, Bytes::from_static(text.as_bytes()));
    assert_eq!(
        row,
        [
            line(Stream::Stdout, 0, "a\n"),
            line(Stream::Stderr, 2, "b\n"),
            line(Stream::Stdout, 4, "c\n")
        ]
    );
    assert!(times.is_sorted());
    Ok(())
}
