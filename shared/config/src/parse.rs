//! Value parsers: what a setting may look like, and what to say when it does not.

use std::net::Ipv4Addr;
use std::time::Duration;

use secrecy::SecretString;

/// A value that is not what the setting takes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {what}")]
pub struct Expected {
    /// What would have been right, with an example.
    pub what: &'static str,
}

const fn expected(what: &'static str) -> Expected {
    Expected { what }
}

/// A list written with commas. A type of its own, because clap reads a bare `Vec` as a repeated flag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Csv(pub Vec<String>);

impl std::ops::Deref for Csv {
    type Target = [String];
    fn deref(&self) -> &[String] {
        &self.0
    }
}

/// A span of time: seconds (`600`), or a number with units (`10m`, `1h 30m`). `0` and `off` are zero.
///
/// # Errors
/// The text is neither.
///
/// ```
/// # use std::time::Duration;
/// assert_eq!(nimbus_config::seconds_or_text("600"), nimbus_config::seconds_or_text("10m"));
/// assert_eq!(nimbus_config::seconds_or_text("off"), Ok(Duration::ZERO));
/// ```
pub fn seconds_or_text(text: &str) -> Result<Duration, Expected> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("off") {
        return Ok(Duration::ZERO);
    }
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text).map_err(|_| {
        expected("a time in seconds or with a unit, such as 600, 90s, 10m or 1h 30m; 0 turns it off")
    })
}

/// A size: bytes (`1048576`), or a number with a unit (`64MiB`, `1 GB`).
///
/// # Errors
/// The text is neither, or more than 2^64 bytes.
pub fn bytes(text: &str) -> Result<u64, Expected> {
    const WRONG: Expected = expected("a size in bytes or with a unit, such as 1048576, 64KiB, 16MiB or 1GiB");
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = text.strip_prefix(digits).unwrap_or_default().trim();
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return Err(WRONG),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .ok_or(WRONG)
}

/// A list written with commas; spaces around the parts do not count. The empty text, which only a
/// default can be, is the empty list.
///
/// # Errors
/// There is an empty part.
pub fn csv(text: &str) -> Result<Csv, Expected> {
    if text.trim().is_empty() {
        return Ok(Csv::default());
    }
    let parts: Vec<String> = text.split(',').map(|part| part.trim().to_owned()).collect();
    if parts.iter().any(String::is_empty) {
        return Err(expected(
            "a list with commas and without empty parts, such as pve1,pve2",
        ));
    }
    Ok(Csv(parts))
}

/// A finite number that is not negative.
///
/// # Errors
/// The text is not such a number.
pub fn ratio(text: &str) -> Result<f64, Expected> {
    match text.trim().parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        _ => Err(expected("a number of at least 0, such as 0.5")),
    }
}

/// A whole number of at least 1.
///
/// # Errors
/// The text is not such a number.
pub fn count(text: &str) -> Result<u32, Expected> {
    match text.trim().parse::<u32>() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(expected("a whole number of at least 1")),
    }
}

/// An IPv4 address.
///
/// # Errors
/// The text is not one.
pub fn address(text: &str) -> Result<Ipv4Addr, Expected> {
    text.trim()
        .parse()
        .map_err(|_| expected("an IPv4 address, such as 10.77.0.50"))
}

/// Text with at least one character that is not a space.
///
/// # Errors
/// There is none.
pub fn text(text: &str) -> Result<String, Expected> {
    let text = text.trim();
    if text.is_empty() {
        Err(expected("some text, or the setting not set at all"))
    } else {
        Ok(text.to_owned())
    }
}

/// A secret. The error never repeats it.
///
/// # Errors
/// It is empty.
pub fn secret(text: &str) -> Result<SecretString, Expected> {
    let text = text.trim();
    if text.is_empty() {
        Err(expected("a secret, or the setting not set at all"))
    } else {
        Ok(text.into())
    }
}

/// A switch: `true`, `yes`, `on`, `1` or `false`, `no`, `off`, `0`.
///
/// # Errors
/// The text is none of these.
pub fn flag(text: &str) -> Result<bool, Expected> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(expected("true or false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(seconds_or_text("600"), Ok(Duration::from_secs(600)));
        assert_eq!(seconds_or_text(" 1h 30m "), Ok(Duration::from_secs(5400)));
        assert_eq!(seconds_or_text("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(seconds_or_text("0"), Ok(Duration::ZERO));
        for wrong in ["", "-1", "ten", "5 parsecs", "1.5"] {
            assert!(seconds_or_text(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes("1048576"), Ok(1 << 20));
        assert_eq!(bytes("64 KiB"), Ok(64 << 10));
        assert_eq!(bytes("1gb"), Ok(1_000_000_000));
        for wrong in ["", "MiB", "1.5GiB", "-1", "99999999999GiB", "5 stones"] {
            assert!(bytes(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn lists_and_numbers() {
        assert_eq!(
            csv("a, b").map(|list| list.to_vec()),
            Ok(vec!["a".to_owned(), "b".to_owned()])
        );
        assert!(csv("a,,b").is_err());
        assert!(csv(" ").unwrap().is_empty());
        assert_eq!(ratio("0.5"), Ok(0.5));
        assert!(ratio("NaN").is_err() && ratio("-1").is_err() && ratio("inf").is_err());
        assert_eq!(count("3"), Ok(3));
        assert!(count("0").is_err());
        assert!(address("10.0.0.256").is_err());
        assert!(text("  ").is_err());
        assert_eq!(flag("Yes"), Ok(true));
        assert!(flag("maybe").is_err());
    }
}
