use camino_tempfile::{Utf8TempDir, tempdir};
use proptest::prelude::*;

use super::*;

fn log(dir: &Utf8TempDir, limit: u64) -> Log {
    Log::open(dir.path().join("log"), limit).unwrap()
}

fn add(log: &Log, stream: Stream, offset: u64, text: &str) -> u64 {
    log.add(stream, offset, 1, text.as_bytes()).unwrap();
    offset + u64::try_from(text.len()).unwrap()
}

fn shown(reader: &mut Reader) -> Vec<String> {
    let mut lines = Vec::new();
    while let Step::Line(line) = reader.step().unwrap() {
        let json: serde_json::Value = serde_json::from_str(&line.show()).unwrap();
        lines.push(json["data"].as_str().unwrap().to_owned());
    }
    lines
}

fn all(log: &Log) -> Vec<String> {
    shown(&mut Reader::from_start(log.clone()))
}

#[test]
fn a_line_is_shown_as_the_api_says() {
    let dir = tempdir().unwrap();
    let log = log(&dir, 0);
    log.add(Stream::Stderr, 0, 1_781_110_801_004, b"a\"b\n\xff\n")
        .unwrap();
    let mut reader = Reader::from_start(log);
    let mut text = String::new();
    while let Step::Line(line) = reader.step().unwrap() {
        text.push_str(&line.show());
    }
    assert_eq!(
        text,
        "{\"ts\":\"2026-06-10T17:00:01.004Z\",\"stream\":\"stderr\",\"data\":\"a\\\"b\"}\n\
         {\"ts\":\"2026-06-10T17:00:01.004Z\",\"stream\":\"stderr\",\"data\":\"/w==\",\"encoding\":\"base64\"}\n"
    );
}

#[test]
fn a_line_that_comes_in_pieces_is_one_and_streams_do_not_mix() {
    let dir = tempdir().unwrap();
    let log = log(&dir, 0);
    let at = add(&log, Stream::Stdout, 0, "one");
    let at = add(&log, Stream::Stderr, at, "err\n");
    let at = add(&log, Stream::Stdout, at, " line\ntwo");
    assert_eq!(all(&log), ["err", "one line"]);
    add(&log, Stream::Stdout, at, "!");
    log.close();
    assert_eq!(all(&log), ["err", "one line", "two!"]);
}

#[test]
fn files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempdir().unwrap();
    let log = log(&dir, 0);
    add(&log, Stream::Stdout, 0, "x\n");
    let mode = |path: &str| {
        std::fs::metadata(dir.path().join(path))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!((mode("log"), mode("log/00000001")), (0o700, 0o600));
}

#[test]
fn the_oldest_lines_go_and_a_slow_reader_is_told() {
    let dir = tempdir().unwrap();
    let log = log(&dir, 0);
    let mut at = add(&log, Stream::Stdout, 0, "first\n");
    let mut slow = Reader::from_start(log.clone());
    let mut new = Reader::from_start(log.clone());
    assert_eq!(shown(&mut new), ["first"]);
    let long = "x".repeat(8000) + "\n";
    // Each file holds 64 KiB; eight of them are kept.
    for _ in 0..100 {
        at = add(&log, Stream::Stdout, at, &long);
    }
    let kept = all(&log);
    assert!(kept.len() < 80 && kept.len() > 60, "{}", kept.len());
    assert_eq!(slow.step().unwrap(), Step::Dropped);
    // It holds its file open, so it reads that to the end and is told then.
    let rest = shown(&mut new);
    assert!(!rest.is_empty() && rest.len() < 100);
    assert_eq!(new.step().unwrap(), Step::Dropped);
}

#[test]
fn tail_counts_lines_over_files() {
    let dir = tempdir().unwrap();
    let log = log(&dir, 0);
    let mut at = 0;
    for number in 0..30 {
        at = add(
            &log,
            Stream::Stdout,
            at,
            &format!("{number} {}\n", "x".repeat(6000)),
        );
    }
    let tail = |count| {
        let mut reader = Reader::new(log.clone(), Some(count), None).unwrap();
        shown(&mut reader)
            .iter()
            .map(|line| line.split(' ').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(tail(0), Vec::<String>::new());
    assert_eq!(tail(2), ["28", "29"]);
    assert_eq!(tail(25).len(), 25);
    assert_eq!(tail(1000).len(), 30);
}

#[test]
fn since_leaves_out_what_is_older() {
    let dir = tempdir().unwrap();
    let log = log(&dir, 0);
    log.add(Stream::Stdout, 0, 1000, b"old\n").unwrap();
    log.add(Stream::Stdout, 4, 2000, b"new\n").unwrap();
    let since = nimbus_model::Timestamp::from_micros(1_500_000);
    let mut reader = Reader::new(log, None, Some(since)).unwrap();
    assert_eq!(shown(&mut reader), ["new"]);
}

#[tokio::test]
async fn a_follower_gets_every_line_once_and_ends_with_the_log() {
    let dir = tempdir().unwrap();
    let log = log(&dir, 10 << 20);
    let mut reader = Reader::from_start(log.clone());
    let follow = tokio::spawn(async move {
        let mut lines = Vec::new();
        loop {
            match reader.step().unwrap() {
                Step::Line(line) => lines.push(line.show()),
                Step::Wait => reader.changed().await,
                Step::End => return lines,
                Step::Dropped => panic!("dropped"),
            }
        }
    });
    let mut at = 0;
    for number in 0..2000 {
        at = add(&log, Stream::Stdout, at, &format!("{number}\n"));
        if number % 50 == 0 {
            tokio::task::yield_now().await;
        }
    }
    log.close();
    let lines = follow.await.unwrap();
    assert_eq!(lines.len(), 2000);
    assert!(
        lines
            .iter()
            .enumerate()
            .all(|(n, line)| line.contains(&format!("\"{n}\"")))
    );
}

proptest! {
    /// An agent that ends anywhere and comes back stores each line once and in the order of its stream.
    #[test]
    fn resuming_neither_loses_nor_doubles(
        pieces in prop::collection::vec((any::<bool>(), "[a-c]{0,3}\n?"), 1..30),
        cuts in prop::collection::vec(0_usize..30, 0..4),
    ) {
        let dir = tempdir().unwrap();
        let mut offset = 0;
        let mut frames = Vec::new();
        let mut wanted = [String::new(), String::new()];
        for (error, text) in pieces {
            let stream = if error { Stream::Stderr } else { Stream::Stdout };
            wanted[usize::from(error)].push_str(&text);
            let end = offset + u64::try_from(text.len()).unwrap();
            frames.push((stream, offset, text));
            offset = end;
        }
        for cut in cuts.into_iter().map(Some).chain([None]) {
            let log = log(&dir, 0);
            let from = log.resume(0);
            for (number, (stream, at, text)) in frames.iter().enumerate() {
                if cut.is_some_and(|cut| number >= cut) {
                    break;
                }
                // The guest sends exactly what lies behind the offset.
                let skip = usize::try_from(from.saturating_sub(*at)).unwrap().min(text.len());
                log.add(*stream, at + u64::try_from(skip).unwrap(), 1, &text.as_bytes()[skip..]).unwrap();
            }
            if cut.is_none() {
                log.close();
            }
        }
        let log = log(&dir, 0);
        let mut seen = [Vec::new(), Vec::new()];
        let mut reader = Reader::from_start(log);
        while let Step::Line(line) = reader.step().unwrap() {
            let json: serde_json::Value = serde_json::from_str(&line.show()).unwrap();
            seen[usize::from(line.stream == Stream::Stderr)].push(json["data"].as_str().unwrap().to_owned());
        }
        for (seen, wanted) in seen.iter().zip(&wanted) {
            let wanted: Vec<_> = wanted.lines().map(str::to_owned).collect();
            prop_assert_eq!(seen, &wanted);
        }
    }
}
