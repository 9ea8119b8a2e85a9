//! The name of a task.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The name of a task: `UPID:node:pid:pstart:starttime:type:id:user:`, nine fields, the last empty.
///
/// It is kept as it came, so that it compares and prints exactly as PVE wrote it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Upid(String);

/// The text is not a UPID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a task id of nine fields, got {0:?}")]
pub struct ParseUpidError(String);

impl Upid {
    /// The node the task runs on, which is the only one that knows it.
    #[must_use]
    pub fn node(&self) -> &str {
        self.field(1)
    }

    /// The worker's type, for instance `qmclone`.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.field(5)
    }

    /// What the task works on, mostly a VMID; may be empty.
    #[must_use]
    pub fn id(&self) -> &str {
        self.field(6)
    }

    /// Who started it: a user, or `user!token`.
    #[must_use]
    pub fn user(&self) -> &str {
        self.field(7)
    }

    /// When it started, in seconds since 1970.
    #[must_use]
    pub fn started(&self) -> u64 {
        u64::from_str_radix(self.field(4), 16).unwrap_or_default()
    }

    /// The whole text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn field(&self, index: usize) -> &str {
        self.0.split(':').nth(index).unwrap_or_default()
    }
}

impl FromStr for Upid {
    type Err = ParseUpidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if is_upid(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseUpidError(text.chars().take(120).collect()))
        }
    }
}

fn is_upid(text: &str) -> bool {
    // A slash or a blank never occurs and would make a path of it.
    if text
        .chars()
        .any(|c| c == '/' || c.is_whitespace() || c.is_control())
    {
        return false;
    }
    let fields: Vec<&str> = text.split(':').collect();
    let &["UPID", node, pid, pstart, started, kind, _id, user, ""] = fields.as_slice() else {
        return false;
    };
    let hex = |field: &str, len: std::ops::RangeInclusive<usize>| {
        len.contains(&field.len()) && field.bytes().all(|b| b.is_ascii_hexdigit())
    };
    let host = !node.is_empty() && node.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    host && hex(pid, 8..=8)
        && hex(pstart, 8..=9)
        && hex(started, 8..=8)
        && !kind.is_empty()
        && !user.is_empty()
}

impl fmt::Display for Upid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Upid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Upid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Upid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields() {
        let upid: Upid = "UPID:pve1:0001A2B3:0000C4D5:6740A1B2:qmclone:9000:root@pam!nimbus:"
            .parse()
            .unwrap();
        assert_eq!(
            (upid.node(), upid.kind(), upid.id(), upid.user()),
            ("pve1", "qmclone", "9000", "root@pam!nimbus")
        );
        assert_eq!(upid.started(), 0x6740_A1B2);
        assert!(
            "UPID:pve1:0001A2B3:10000C4D5:6740A1B2:srvreload::root@pam:"
                .parse::<Upid>()
                .is_ok()
        );
    }

    #[test]
    fn garbage_is_refused() {
        for bad in [
            "",
            "UPID",
            "UPID:pve1:0001A2B3:0000C4D5:6740A1B2:qmclone:9000:root@pam",
            "UPID:pve1:0001A2B3:0000C4D5:6740A1B2:qmclone:9000:root@pam:x",
            "UPID:pve1:0001A2B3:0000C4D5:6740A1B2:qmclone:9000:root@pam::",
            "UPID:pve1:1A2B3:0000C4D5:6740A1B2:qmclone:9000:root@pam:",
            "UPID:pve1:0001A2BX:0000C4D5:6740A1B2:qmclone:9000:root@pam:",
            "UPID:../etc:0001A2B3:0000C4D5:6740A1B2:qmclone:9000:root@pam:",
            "UPID::0001A2B3:0000C4D5:6740A1B2:qmclone:9000:root@pam:",
            "UPID:pve1:0001A2B3:0000C4D5:6740A1B2::9000:root@pam:",
            "UPID:pve1:0001A2B3:0000C4D5:6740A1B2:qmclone:90 00:root@pam:",
            "UPID:pve1:0001A2B3:0000C4D5:6740A1B2:qmclone:9000:root@pam:\n",
        ] {
            assert!(bad.parse::<Upid>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(
            node in "[a-z][a-z0-9-]{0,10}", pid in any::<u32>(), pstart in 0u64..0x10_0000_0000, start in any::<u32>(),
            kind in "[a-z]{2,12}", id in "[a-z0-9]{0,9}", user in "[a-z]{1,8}@[a-z]{2,4}(![a-z]{1,8})?",
        ) {
            let text = format!("UPID:{node}:{pid:08X}:{pstart:08X}:{start:08X}:{kind}:{id}:{user}:");
            let upid: Upid = text.parse().unwrap();
            prop_assert_eq!(upid.to_string(), text.clone());
            prop_assert_eq!(upid.node(), node);
            let json = serde_json::to_string(&upid).unwrap();
            prop_assert_eq!(serde_json::from_str::<Upid>(&json).unwrap(), upid);
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in ".*") {
            if let Ok(upid) = text.parse::<Upid>() {
                prop_assert_eq!(upid.as_str(), text);
            }
        }
    }
}
