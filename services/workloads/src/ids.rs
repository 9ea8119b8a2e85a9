//! Ids that the caller sees: ULIDs in Crockford's base 32, with a slug or a prefix before them.

use nimbus_model::Timestamp;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// The longest slug.
const SLUG: usize = 64;

/// A ULID in lower case: 48 bits of milliseconds and 80 random ones, so later ones sort later.
pub(crate) fn ulid(now: Timestamp) -> String {
    let millis = u128::from(u64::try_from(now.micros() / 1000).unwrap_or(0)) & ((1 << 48) - 1);
    let value = (millis << 80) | (rand::random::<u128>() >> 48);
    (0..26)
        .rev()
        .filter_map(|place| {
            let digit = usize::try_from((value >> (place * 5)) & 31).ok()?;
            ALPHABET.get(digit).copied().map(char::from)
        })
        .collect()
}

/// The id of a sandbox called `name`.
pub(crate) fn sandbox(name: Option<&str>, now: Timestamp) -> String {
    format!("{}-{}", slug(name.unwrap_or_default()), ulid(now))
}

/// The id of a session.
pub(crate) fn session(now: Timestamp) -> String {
    format!("ses_{}", ulid(now))
}

/// Lower-case letters, digits and single `-` between them.
fn slug(name: &str) -> String {
    let mut out = String::with_capacity(name.len().min(SLUG));
    for c in name.chars() {
        if out.len() >= SLUG {
            break;
        }
        if c.is_ascii_alphanumeric() {
            out.push(c.to_ascii_lowercase());
        } else if !out.is_empty() && !out.ends_with('-') {
            out.push('-');
        }
    }
    let out = out.trim_end_matches('-');
    if out.is_empty() {
        "sandbox".to_owned()
    } else {
        out.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_ulid_is_its_time_and_chance() {
        // The specification's own example: 01ARZ3NDEKTSV4RRFFQ69G5FAV is 1469922850259 ms.
        let at = Timestamp::from_micros(1_469_922_850_259_000);
        let (one, other) = (ulid(at), ulid(at));
        assert_eq!(&one[..10], "01arz3ndek");
        assert_eq!(one.len(), 26);
        assert_ne!(one, other);
        assert!(ulid(Timestamp::from_micros(1_469_922_850_260_000)) > one);
    }

    proptest! {
        #[test]
        fn any_name_makes_an_id_of_the_right_form(name in "\\PC{0,128}") {
            let id = sandbox(Some(&name), Timestamp::from_micros(1));
            let (slug, ulid) = id.rsplit_once('-').unwrap();
            prop_assert!((1..=64).contains(&slug.len()));
            prop_assert!(slug.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
            prop_assert!(ulid.len() == 26 && ulid.bytes().all(|b| ALPHABET.contains(&b)));
        }
    }
}
