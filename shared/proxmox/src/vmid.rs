//! The number of a guest.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::lenient;

/// The number of a virtual machine or container, unique in a cluster: 100 to 999 999 999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Vmid(u32);

/// The text or number is not a VMID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a vmid from 100 to 999999999, got {0:?}")]
pub struct ParseVmidError(String);

impl Vmid {
    /// The lowest number PVE gives to a guest.
    pub const MIN: Self = Self(100);
    /// The highest number PVE accepts.
    pub const MAX: Self = Self(999_999_999);

    /// Takes a number in range.
    ///
    /// # Errors
    /// [`ParseVmidError`] below 100 or above 999 999 999.
    pub fn new(number: u32) -> Result<Self, ParseVmidError> {
        if (Self::MIN.0..=Self::MAX.0).contains(&number) {
            Ok(Self(number))
        } else {
            Err(ParseVmidError(number.to_string()))
        }
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    /// The number after this one, or `None` at the end of the range.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        Self::new(self.0 + 1).ok()
    }
}

impl fmt::Display for Vmid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Vmid {
    type Err = ParseVmidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // `parse` alone would take "+100".
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let number = digits.then(|| text.parse().ok()).flatten();
        number
            .and_then(|n| Self::new(n).ok())
            .ok_or_else(|| ParseVmidError(text.to_owned()))
    }
}

impl TryFrom<u32> for Vmid {
    type Error = ParseVmidError;

    fn try_from(number: u32) -> Result<Self, Self::Error> {
        Self::new(number)
    }
}

impl From<Vmid> for u32 {
    fn from(vmid: Vmid) -> Self {
        vmid.0
    }
}

/// Takes a JSON number or a string: which of the two comes depends on call and release. Binary
/// formats, which cannot tell the two apart, carry the number.
impl<'de> Deserialize<'de> for Vmid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = if deserializer.is_human_readable() {
            lenient::u64(deserializer)?
        } else {
            u32::deserialize(deserializer)?.into()
        };
        u32::try_from(number)
            .ok()
            .and_then(|n| Self::new(n).ok())
            .ok_or_else(|| serde::de::Error::custom(ParseVmidError(number.to_string())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn limits() {
        for good in ["100", "9000", "999999999"] {
            assert_eq!(good.parse::<Vmid>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "99",
            "1000000000",
            "+100",
            "-100",
            "1e3",
            " 100",
            "100 ",
            "abc",
            "99999999999999999999",
        ] {
            assert!(bad.parse::<Vmid>().is_err(), "{bad}");
        }
        assert_eq!(Vmid::MAX.next(), None);
    }

    #[test]
    fn json_number_or_string() {
        assert_eq!(
            serde_json::from_str::<Vmid>("101").unwrap(),
            serde_json::from_str::<Vmid>("\"101\"").unwrap()
        );
        assert_eq!(serde_json::to_string(&Vmid::MIN).unwrap(), "100");
        for bad in ["null", "99", "true", "[]", "\"x\"", "101.5"] {
            assert!(serde_json::from_str::<Vmid>(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trip(number in 100u32..=999_999_999) {
            let vmid = Vmid::new(number).unwrap();
            prop_assert_eq!(vmid.to_string().parse::<Vmid>().unwrap(), vmid);
        }
    }
}
