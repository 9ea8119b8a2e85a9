use anyhow::{Context, Result};
use bytes::Bytes;
use nimbus_guest::protocol::{CommandSpec, FromCommand, Since, TerminalSize};
use nimbus_guest::{Attachment, Guest};
use tokio::net::UnixStream;

use crate::world::{Init, read_until, sh};

fn terminal(mut spec: CommandSpec) -> CommandSpec {
    spec.terminal = Some(TerminalSize { cols: 81, rows: 25 });
    spec
}

async fn start(guest: &Guest, script: &str) -> Result<Attachment<UnixStream>> {
    Ok(guest
        .run(terminal(sh("tty", script)), Since::Offset(0), true)
        .await?)
}

#[tokio::test]
async fn a_terminal_has_a_size_that_changes_and_echoes() -> Result<()> {
    let init = Init::start().await?;
    // A signal ends a `read` that waits, so it is asked again.
    let script = "tty; stty size; trap 'stty size; echo $TERM' WINCH; echo ready
        line=; while [ -z \"$line\" ]; do read line; done; echo \"<$line>\"";
    let mut attached = start(&init.guest, script).await?;
    let text = read_until(&mut attached, |text| text.contains("ready")).await?;
    assert!(text.contains("/dev/pts/") && text.contains("25 81\r\n"), "{text}");
    let (events, mut input) = attached.split();
    input.resize(TerminalSize { cols: 100, rows: 50 }).await?;
    input.send(Bytes::from_static(b"typed\n")).await?;
    let mut events = events;
    let mut text = String::new();
    while let Some(event) = events.next().await? {
        match event {
            FromCommand::Output { bytes, .. } => text.push_str(&String::from_utf8_lossy(&bytes)),
            FromCommand::Exit(exit) => assert_eq!(exit.code, Some(0)),
            _ => {}
        }
    }
    assert!(text.contains("typed\r\n") && text.contains("<typed>"), "{text}");
    Ok(())
}

#[tokio::test]
async fn a_new_size_is_seen_inside() -> Result<()> {
    let init = Init::start().await?;
    let attached = start(&init.guest, "echo ready; read go; stty size").await?;
    let (mut events, mut input) = attached.split();
    input.resize(TerminalSize { cols: 33, rows: 44 }).await?;
    input.send(Bytes::from_static(b"go\n")).await?;
    let mut text = String::new();
    while let Some(event) = events.next().await? {
        if let FromCommand::Output { bytes, .. } = event {
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
    assert!(text.ends_with("44 33\r\n"), "{text}");
    Ok(())
}

/// Waits until another job than `not` and the shell itself is in the foreground; says which.
async fn foreground(shell: i32, not: i32) -> Result<i32> {
    crate::world::eventually(async || {
        let stat = std::fs::read_to_string(format!("/proc/{shell}/stat"))?;
        let (_, fields) = stat.rsplit_once(')').context("a stat")?;
        let group: i32 = fields.split_whitespace().nth(5).context("a group")?.parse()?;
        // A job that has its terminal, but is still the shell's own program, would do as the shell does.
        let name = std::fs::read_to_string(format!("/proc/{group}/comm")).unwrap_or_default();
        Ok((group != not && name == "sleep\n").then_some(group))
    })
    .await
}

/// As at a real terminal: what was typed reaches the job in the foreground, and so does a signal.
#[tokio::test]
async fn control_c_and_signals_reach_the_foreground() -> Result<()> {
    let init = Init::start().await?;
    let script = "set -m; sleep 1000; echo code $?; sleep 1000; echo code $?";
    let attached = start(&init.guest, &format!("trap : INT; {script}")).await?;
    let pid = attached.opened().pid;
    let (mut events, mut input) = attached.split();
    let first = foreground(pid, 0).await?;
    input.send(Bytes::from_static(&[3])).await?;
    foreground(pid, first).await?;
    input.signal(15).await?;
    let mut text = String::new();
    while let Some(event) = events.next().await? {
        if let FromCommand::Output { bytes, .. } = event {
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
    assert!(text.contains("code 130") && text.contains("code 143"), "{text}");
    Ok(())
}

#[tokio::test]
async fn the_end_of_input_is_typed_and_a_hung_up_shell_ends() -> Result<()> {
    let init = Init::start().await?;
    let attached = init
        .guest
        .run(terminal(CommandSpec::new("cat", ["cat"])), Since::Offset(0), true)
        .await?;
    let done = attached.collect(Some(Bytes::from_static(b"line\n")), 100).await?;
    assert_eq!(done.exit.code, Some(0));
    assert_eq!(String::from_utf8(done.stdout)?, "line\r\nline\r\n");
    Ok(())
}
