use std::rc::Rc;

use proptest::prelude::*;

use super::*;

const DISK: u64 = 1 << 30;

fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length)
        .map(|at| u8::try_from(at % 251).unwrap() ^ seed)
        .collect()
}

/// Every byte of a log with its stream, from an offset.
fn read_from(log: &ByteLog, offset: u64) -> Result<Vec<(Stream, u8)>, Dropped> {
    let mut cursor = Cursor::at(offset);
    let mut all = Vec::new();
    while let Some(piece) = log.next(&mut cursor)? {
        assert_eq!(piece.offset, offset + u64::try_from(all.len()).unwrap());
        assert!(!piece.bytes.is_empty());
        all.extend(piece.bytes.iter().map(|byte| (piece.stream, *byte)));
    }
    assert_eq!(cursor.offset(), log.end().max(offset));
    Ok(all)
}

#[derive(Clone, Debug)]
enum Step {
    Append {
        err: bool,
        length: usize,
        later_ms: u64,
    },
    /// The reader of this number reads so many pieces.
    Read {
        reader: usize,
        pieces: usize,
    },
    Rest,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<bool>(), prop_oneof![1..40_usize, 1..200_000_usize], 0..100_u64)
            .prop_map(|(err, length, later_ms)| Step::Append { err, length, later_ms }),
        4 => (0..3_usize, 0..20_usize).prop_map(|(reader, pieces)| Step::Read { reader, pieces }),
        1 => Just(Step::Rest),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The model is everything ever written, in one Vec. A reader gets exactly what stands there from
    /// its offset on, or is told that it was dropped; never anything else.
    #[test]
    fn readers_get_what_was_written_or_are_told(
        steps in proptest::collection::vec(step(), 1..60),
        cap in prop_oneof![Just(0_u64), Just(200_000), Just(1_000_000), Just(u64::MAX)],
        disk in prop_oneof![Just(0_u64), Just(131_072), Just(DISK)],
    ) {
        let spill = Rc::new(Spill::new(disk));
        let mut log = ByteLog::new(cap, Rc::clone(&spill));
        let mut model: Vec<(Stream, u8)> = Vec::new();
        let mut readers = [(); 3].map(|()| Cursor::at(0));
        let mut now = 0;
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Append { err, length, later_ms } => {
                    now += later_ms;
                    let stream = if err { Stream::Stderr } else { Stream::Stdout };
                    let bytes = pattern(length, u8::try_from(number % 256).unwrap());
                    log.append(stream, now, &bytes);
                    model.extend(bytes.iter().map(|byte| (stream, *byte)));
                }
                Step::Rest => log.rest(),
                Step::Read { reader, pieces } => {
                    for _ in 0..pieces {
                        let cursor = &mut readers[reader];
                        let before = cursor.offset();
                        match log.next(cursor) {
                            Ok(None) => prop_assert_eq!(before, log.end()),
                            Ok(Some(piece)) => {
                                let from = usize::try_from(before).unwrap();
                                let got: Vec<_> = piece.bytes.iter().map(|byte| (piece.stream, *byte)).collect();
                                prop_assert!(got == model[from..from + got.len()]);
                                prop_assert_eq!(cursor.offset(), before + u64::try_from(got.len()).unwrap());
                            }
                            Err(dropped) => {
                                prop_assert!(before < dropped.start);
                                *cursor = Cursor::at(dropped.start);
                            }
                        }
                    }
                }
            }
            prop_assert_eq!(log.end(), u64::try_from(model.len()).unwrap());
            prop_assert!(log.start() <= log.end());
            let kept = log.end() - log.start();
            prop_assert!(kept <= cap.max(131_072), "{} kept of a cap of {}", kept, cap);
            let enough = disk == DISK && cap == u64::MAX;
            prop_assert!(!enough || log.start() == 0);
            prop_assert!(log.memory() <= 8 * 65_536, "{} bytes in memory", log.memory());
        }
        let from = usize::try_from(log.start()).unwrap();
        prop_assert!(read_from(&log, log.start()).unwrap() == model[from..]);
        if from > 0 {
            prop_assert_eq!(read_from(&log, log.start() - 1), Err(Dropped { start: log.start() }));
        }
        log.clear();
        prop_assert_eq!(log.start(), log.end());
        prop_assert_eq!(spill.used_bytes(), 0);
    }
}

#[test]
fn what_is_needed_can_be_kept_by_stopping_in_time() {
    let mut log = ByteLog::new(200_000, Rc::new(Spill::new(DISK)));
    let mut written = 0;
    loop {
        let room = match log.room_before_drop(0) {
            Some(0) => break,
            Some(room) => room.min(10_000),
            None => 10_000,
        };
        log.append(Stream::Stdout, written, &pattern(room, 1));
        written += u64::try_from(room).unwrap();
    }
    assert_eq!((log.start(), log.end()), (0, written));
    // A reader that is past the oldest segment leaves room for a whole one.
    assert_eq!(log.room_before_drop(70_000), None);
    log.append(Stream::Stdout, 0, &pattern(1000, 1));
    assert!(log.start() > 0);
}

#[test]
fn an_ended_log_needs_little_memory_and_is_complete() {
    let spill = Rc::new(Spill::new(DISK));
    let mut log = ByteLog::new(DISK, Rc::clone(&spill));
    log.append(Stream::Stdout, 0, &pattern(300_000, 3));
    assert!(log.memory() >= 196_608);
    log.rest();
    assert!(log.memory() <= u64::try_from(REST).unwrap());
    assert!(spill.used_bytes() >= 300_000);
    assert_eq!(read_from(&log, 0).unwrap().len(), 300_000);
}

#[test]
fn tiny_records_are_joined_within_their_time_only() {
    let mut log = ByteLog::new(DISK, Rc::new(Spill::new(DISK)));
    log.append(Stream::Stdout, 0, b"a");
    log.append(Stream::Stdout, 10, b"b");
    log.append(Stream::Stderr, 10, b"c");
    log.append(Stream::Stderr, 500, b"d");
    let mut cursor = Cursor::at(0);
    let mut pieces = Vec::new();
    while let Some(piece) = log.next(&mut cursor).unwrap() {
        pieces.push((piece.stream, piece.at_ms, piece.bytes));
    }
    let piece = |stream, at, text: &'static str| (stream, at, Bytes::from_static(text.as_bytes()));
    assert_eq!(
        pieces,
        [
            piece(Stream::Stdout, 0, "ab"),
            piece(Stream::Stderr, 10, "c"),
            piece(Stream::Stderr, 500, "d")
        ]
    );
}
