//! Much output, slow readers, full logs.

use anyhow::Result;
use bytes::Bytes;
use nimbus_guest::protocol::{CommandSpec, FromCommand, INPUT_WINDOW, Since};

use crate::world::{Init, LONG, eventually, refusal, sh};

const MIB: u64 = 1 << 20;

fn flood(id: &str, mib: u64) -> CommandSpec {
    // Numbered lines, so that a lost or doubled part shows.
    sh(id, &format!("seq -f %015.0f 1 {}", mib * MIB / 16))
}

fn check_line(offset: u64, line: &[u8]) -> Result<()> {
    let number: u64 = std::str::from_utf8(line)?.trim_end().parse()?;
    assert_eq!(number, offset / 16 + 1);
    Ok(())
}

/// Reads to the end; says how much there was.
async fn read_all(init: &Init, id: &str) -> Result<u64> {
    let mut attached = init.guest.attach(id, Since::Offset(0), false).await?;
    let mut at = 0;
    let mut carry = Vec::new();
    while let Some(event) = attached.next().await? {
        if let FromCommand::Output { offset, bytes, .. } = event {
            assert_eq!(offset, at);
            at += u64::try_from(bytes.len())?;
            carry.extend_from_slice(&bytes);
            let whole = carry.len() / 16 * 16;
            let begin = at - u64::try_from(carry.len())?;
            // The first and last of each part are enough: the parts are in one row.
            if whole > 0 {
                check_line(begin, carry.get(..16).unwrap_or_default())?;
                let last = carry.get(whole - 16..whole).unwrap_or_default();
                check_line(begin + u64::try_from(whole)? - 16, last)?;
                carry.drain(..whole);
            }
        }
    }
    Ok(at)
}

#[tokio::test]
async fn sixty_four_mebibytes_at_once_arrive_whole_at_two_readers() -> Result<()> {
    let init = Init::start().await?;
    let mut spec = flood("flood", 64);
    spec.log_bytes = Some(80 * MIB);
    let started = init.guest.run(spec, Since::Offset(0), false).await?;
    let (one, two) = tokio::join!(read_all(&init, "flood"), read_all(&init, "flood"));
    assert_eq!((one?, two?), (64 * MIB, 64 * MIB));
    drop(started);
    // And afterwards once more, from what was kept.
    assert_eq!(read_all(&init, "flood").await?, 64 * MIB);
    let stats = init.control().await?.stats().await?;
    assert!(stats.log_memory < MIB && stats.log_disk >= 64 * MIB, "{stats:?}");
    Ok(())
}

#[tokio::test]
async fn a_reader_that_stands_still_stops_neither_the_command_nor_others() -> Result<()> {
    let init = Init::start().await?;
    let mut spec = flood("flood", 8);
    spec.log_bytes = Some(MIB);
    let mut still = init.guest.run(spec, Since::Offset(0), false).await?;
    let mut control = init.control().await?;
    // Nobody reads, and it ends.
    eventually(async || Ok(control.commands().await?.remove(0).exit)).await?;
    let info = control.commands().await?.remove(0);
    assert_eq!(info.log_end, 8 * MIB);
    assert!(info.log_end - info.log_start <= MIB && info.log_start > 0);
    // What was dropped is refused loudly, at the attach and in the middle.
    let late = init.guest.attach("flood", Since::Offset(0), false).await;
    assert_eq!(refusal(late), "op.out_of_retention");
    let refused = loop {
        match still.next().await {
            Ok(Some(_)) => {}
            other => break refusal(other),
        }
    };
    assert_eq!(refused, "op.out_of_retention");
    // From what is kept on it is whole.
    let tail = init.guest.attach("flood", Since::Tail(u64::MAX), false).await?;
    assert_eq!(tail.opened().from, info.log_start);
    let rest = tail.collect(None, usize::MAX).await?.stdout;
    assert_eq!(u64::try_from(rest.len())?, info.log_end - info.log_start);
    assert!(rest.ends_with(b"000000000524288\n"));
    Ok(())
}

#[tokio::test]
async fn a_lossless_command_waits_for_its_reader() -> Result<()> {
    let init = Init::start().await?;
    let mut spec = flood("flood", 8);
    spec.log_bytes = Some(MIB);
    spec.lossless = true;
    let slow = init.guest.run(spec, Since::Offset(0), false).await?;
    let mut control = init.control().await?;
    eventually(async || Ok((control.commands().await?.remove(0).log_end > 900_000).then_some(()))).await?;
    assert_eq!(control.commands().await?.remove(0).exit, None);
    let done = tokio::time::timeout(LONG, slow.collect(None, usize::MAX)).await??;
    assert_eq!(u64::try_from(done.stdout.len())?, 8 * MIB);
    check_line(8 * MIB - 16, &done.stdout[done.stdout.len() - 16..])?;
    Ok(())
}

#[tokio::test]
async fn a_lossless_command_goes_on_when_its_reader_leaves() -> Result<()> {
    let init = Init::start().await?;
    let mut spec = flood("flood", 8);
    spec.log_bytes = Some(MIB);
    spec.lossless = true;
    let reader = init.guest.run(spec, Since::Offset(0), false).await?;
    let mut control = init.control().await?;
    eventually(async || Ok((control.commands().await?.remove(0).log_end > 900_000).then_some(()))).await?;
    drop(reader);
    eventually(async || Ok(control.commands().await?.remove(0).exit)).await?;
    Ok(())
}

/// Input waits for a process that does not read; a signal does not wait behind it.
#[tokio::test]
async fn input_waits_for_the_process_and_signals_do_not_wait_for_input() -> Result<()> {
    let init = Init::start().await?;
    let mut spec = CommandSpec::new("deaf", ["sleep", "1000"]);
    spec.stdin = true;
    let (mut events, mut input) = init.guest.run(spec, Since::Offset(0), true).await?.split();
    let much = Bytes::from(vec![b'x'; usize::try_from(INPUT_WINDOW)?]);
    input.send(much).await?;
    input.signal(15).await?;
    let exit = async {
        loop {
            if let Some(FromCommand::Exit(exit)) = events.next().await? {
                return anyhow::Ok(exit);
            }
        }
    };
    assert_eq!(tokio::time::timeout(LONG, exit).await??.signal, Some(15));
    assert!(input.accepted() >= 65_536 && input.accepted() <= INPUT_WINDOW);
    Ok(())
}

#[tokio::test]
async fn much_input_arrives_whole() -> Result<()> {
    let init = Init::start().await?;
    let mut spec = sh("sum", "cat | cksum");
    spec.stdin = true;
    let bytes: Vec<u8> = (0..16 * MIB).map(|n| u8::try_from(n % 253).unwrap()).collect();
    let file = init.path("same");
    std::fs::write(&file, &bytes)?;
    let there = init.guest.run(spec, Since::Offset(0), true).await?;
    let there = tokio::time::timeout(LONG, there.collect(Some(bytes.into()), 100)).await??;
    let here = init.run(sh("here", &format!("cksum < {file}")), None).await?;
    assert_eq!(String::from_utf8(there.stdout)?, String::from_utf8(here.stdout)?);
    Ok(())
}
