//! Numbers, flags and texts as PVE sends them: as JSON numbers, strings or booleans, by call and release.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::Error};
use serde_json::Value;

/// The largest integer a double holds exactly.
const EXACT: f64 = 9_007_199_254_740_992.0;

fn as_u64(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64().or_else(|| number.as_f64().and_then(whole)),
        Value::String(text) => {
            let text = text.trim();
            text.parse().ok().or_else(|| text.parse().ok().and_then(whole))
        }
        Value::Bool(flag) => Some(u64::from(*flag)),
        _ => None,
    }
}

/// Integers sometimes come through a floating point number of Perl, as `1.5e+09`.
fn whole(number: f64) -> Option<u64> {
    // Formatting is exact below 2^53, so no cast is needed.
    ((0.0..=EXACT).contains(&number) && number.fract() == 0.0).then(|| format!("{number:.0}").parse().ok())?
}

fn as_f64(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok().filter(|n: &f64| n.is_finite()),
        _ => None,
    }
}

fn as_flag(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) => match text.as_str() {
            "1" | "true" | "yes" | "on" => Some(true),
            "" | "0" | "false" | "no" | "off" => Some(false),
            _ => None,
        },
        other => as_u64(other).map(|n| n != 0),
    }
}

fn as_text(value: Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        Value::Bool(flag) => Some(u8::from(flag).to_string()),
        other => Some(other.to_string()),
    }
}

fn optional<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    what: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Option<T>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    match &value {
        Value::Null => Ok(None),
        Value::String(text) if text.is_empty() => Ok(None),
        other => read(other)
            .map(Some)
            .ok_or_else(|| D::Error::custom(format_args!("expected {what}, got {other}"))),
    }
}

/// A whole number that must be there.
pub(crate) fn u64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    opt_u64(deserializer)?.ok_or_else(|| D::Error::custom("expected a whole number, got nothing"))
}

/// A whole number.
pub(crate) fn opt_u64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    optional(deserializer, "a whole number", as_u64)
}

/// A number.
pub(crate) fn opt_f64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    optional(deserializer, "a number", as_f64)
}

/// A flag; absent is false.
pub(crate) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(opt_flag(deserializer)?.unwrap_or(false))
}

/// A flag.
pub(crate) fn opt_flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    optional(deserializer, "0 or 1", as_flag)
}

/// A text, whatever JSON type it came as.
pub(crate) fn opt_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(as_text(Value::deserialize(deserializer)?))
}

/// Tags, joined by `;` and on old releases by `,` or blanks.
pub(crate) fn tags<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(opt_text(deserializer)?
        .as_deref()
        .map(split_tags)
        .unwrap_or_default())
}

pub(crate) fn split_tags(text: &str) -> Vec<String> {
    text.split([';', ',', ' '])
        .filter(|tag| !tag.is_empty())
        .map(str::to_owned)
        .collect()
}

/// An object of scalars as texts; nulls are left out, nested values keep their JSON text.
pub(crate) fn text_map<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let values = BTreeMap::<String, Value>::deserialize(deserializer)?;
    Ok(values
        .into_iter()
        .filter_map(|(key, value)| Some((key, as_text(value)?)))
        .collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[derive(Deserialize)]
    struct Probe {
        #[serde(default, deserialize_with = "opt_u64")]
        n: Option<u64>,
        #[serde(default, deserialize_with = "flag")]
        f: bool,
    }

    #[test]
    fn strange_numbers() {
        let read = |value: Value| {
            serde_json::from_value::<Probe>(json!({ "n": value }))
                .map(|p| p.n)
                .ok()
        };
        assert_eq!(read(json!(null)), Some(None));
        assert_eq!(read(json!("")), Some(None));
        assert_eq!(read(json!(1.5e9)), Some(Some(1_500_000_000)));
        assert_eq!(read(json!("1.5e+09")), Some(Some(1_500_000_000)));
        assert_eq!(read(json!(" 7 ")), Some(Some(7)));
        for bad in [
            json!(-1),
            json!("x"),
            json!(1.5),
            json!([]),
            json!({}),
            json!("NaN"),
            json!("inf"),
        ] {
            assert_eq!(read(bad.clone()), None, "{bad}");
        }
    }

    #[test]
    fn flags() {
        let read = |value: Value| serde_json::from_value::<Probe>(json!({ "f": value })).unwrap().f;
        assert!(read(json!(1)) && read(json!("1")) && read(json!(true)));
        assert!(!read(json!(0)) && !read(json!("0")) && !read(json!(false)) && !read(json!("")));
    }

    proptest! {
        #[test]
        fn a_number_and_its_text_read_alike(n in any::<u64>()) {
            prop_assert_eq!(as_u64(&json!(n)), Some(n));
            prop_assert_eq!(as_u64(&json!(n.to_string())), Some(n));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            let _ = (as_u64(&json!(text)), as_f64(&json!(text)), as_flag(&json!(text)));
        }
    }
}
