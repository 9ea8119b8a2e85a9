//! Sizes, times and command lines as Compose writes them.

use std::time::Duration;

/// Bytes: `512m`, `1.5gb`, `64MiB`, a bare number. All units are powers of 1024, as in Docker.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let end = text
        .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let shift = match unit.trim() {
        "" | "b" => 0_u32,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift);
    }
    // A fraction: exact enough at a thousandth.
    let (whole, part) = number.split_once('.')?;
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: String = part.chars().chain("000".chars()).take(3).collect();
    let thousandths = whole.checked_mul(1000)?.checked_add(part.parse().ok()?)?;
    thousandths.checked_mul(1 << shift).map(|value| value / 1000)
}

/// A time: `1h5m30s`, `1.5s`, `500ms`. A bare number is no time, except nought.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (number, more) = rest.split_at(end);
        let end = more
            .find(|letter: char| letter.is_ascii_digit() || letter == '.')
            .unwrap_or(more.len());
        let (unit, more) = more.split_at(end);
        let nanos: u64 = match unit {
            "ns" => 1,
            "us" | "µs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            _ => return None,
        };
        let part = match number.parse::<u64>() {
            Ok(whole) => Duration::from_nanos(whole.checked_mul(nanos)?),
            Err(_) => {
                let seconds = number.parse::<f64>().ok()? * (Duration::from_nanos(nanos).as_secs_f64());
                Duration::try_from_secs_f64(seconds).ok()?
            }
        };
        total = total.checked_add(part)?;
        rest = more;
    }
    Some(total)
}

/// A time as Go and systemd both read it.
pub(crate) fn shown(time: Duration) -> String {
    if time.subsec_nanos() == 0 {
        return format!("{}s", time.as_secs());
    }
    if time.subsec_nanos().is_multiple_of(1_000_000) {
        return format!("{}ms", time.as_millis());
    }
    format!("{}us", time.as_micros().max(1))
}

/// Splits a command line as a POSIX shell would, without running anything.
pub(crate) fn words(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next() {
                        Some('\'') => break,
                        Some(letter) => word.push(letter),
                        None => return Err("a single quote is not closed"),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next() {
                        Some('"') => break,
                        Some('\\') => match letters.next() {
                            Some(letter @ ('"' | '\\' | '$' | '`')) => word.push(letter),
                            Some('\n') => {}
                            Some(letter) => {
                                word.push('\\');
                                word.push(letter);
                            }
                            None => return Err("a double quote is not closed"),
                        },
                        Some(letter) => word.push(letter),
                        None => return Err("a double quote is not closed"),
                    }
                }
            }
            '\\' => match letters.next() {
                Some('\n') => {}
                Some(letter) => word.get_or_insert_default().push(letter),
                None => return Err("it ends with a backslash"),
            },
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1024", Some(1024)),
            ("64m", Some(64 << 20)),
            ("1.5g", Some(3 << 29)),
            ("2GB", Some(2 << 30)),
            ("16MiB", Some(16 << 20)),
            ("0.5k", Some(512)),
            ("", None),
            ("x", None),
            ("1x", None),
            ("-1", None),
            ("99999999999999t", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }

    #[test]
    fn times() {
        for (text, expected) in [
            ("1h5m30s", Some("3930s")),
            ("1.5s", Some("1500ms")),
            ("250us", Some("250us")),
            ("0", Some("0s")),
            ("2d", Some("172800s")),
            ("", None),
            ("5", None),
            ("5 s", None),
            ("s", None),
        ] {
            assert_eq!(duration(text).map(shown).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn lines_become_words() {
        let told = |line: &str| words(line).map(|words| words.join("|"));
        assert_eq!(
            told("a 'b c' \"d \\\"e\\\" $f\" g\\ h").unwrap(),
            "a|b c|d \"e\" $f|g h"
        );
        assert_eq!(told("a\n  --b \\\n  --c  #d\n").unwrap(), "a|--b|--c|#d");
        assert_eq!(told("'' \"\"").unwrap(), "|");
        assert_eq!(told("x#y").unwrap(), "x#y");
        assert!(told("'a").is_err() && told("\"a").is_err() && told("a\\").is_err());
        assert_eq!(words("  ").unwrap(), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn quoted_words_come_back(list in prop::collection::vec("[^']{0,8}", 0..5)) {
            let line: Vec<String> = list.iter().map(|word| format!("'{word}'")).collect();
            prop_assert_eq!(words(&line.join(" ")).unwrap(), list);
        }

        #[test]
        fn nothing_brings_them_down(text in any::<String>()) {
            let _ = (bytes(&text), duration(&text), words(&text));
        }
    }
}
