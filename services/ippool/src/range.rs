//! The pool's range, and addresses as numbers.

use std::net::Ipv4Addr;

/// Most addresses a pool may have.
pub(crate) const MOST: u32 = 65_536;

/// An inclusive range of addresses. Taken literally: neither gateway nor broadcast is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    first: u32,
    last: u32,
}

/// Why two addresses are not a pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// The end lies before the start.
    #[error("the pool ends at {end}, before it starts at {start}")]
    Backwards {
        /// First address.
        start: Ipv4Addr,
        /// Last address.
        end: Ipv4Addr,
    },
    /// More addresses than a pool may have.
    #[error("a pool has at most {MOST} addresses, {start} to {end} are {count}")]
    TooLarge {
        /// First address.
        start: Ipv4Addr,
        /// Last address.
        end: Ipv4Addr,
        /// How many that is.
        count: u64,
    },
}

impl Range {
    /// The range from `start` to `end`, both included.
    ///
    /// # Errors
    /// When it runs backwards or has more than 65 536 addresses.
    pub fn new(start: Ipv4Addr, end: Ipv4Addr) -> Result<Self, RangeError> {
        let (first, last) = (u32::from(start), u32::from(end));
        let distance = last
            .checked_sub(first)
            .ok_or(RangeError::Backwards { start, end })?;
        if distance >= MOST {
            return Err(RangeError::TooLarge {
                start,
                end,
                count: u64::from(distance) + 1,
            });
        }
        Ok(Self { first, last })
    }

    /// The lowest number.
    pub(crate) fn first(self) -> i64 {
        i64::from(self.first)
    }

    /// The highest number.
    pub(crate) fn last(self) -> i64 {
        i64::from(self.last)
    }

    /// How many addresses it has.
    #[must_use]
    pub fn count(self) -> u32 {
        self.last - self.first + 1
    }

    /// Whether `ip` lies in it.
    #[must_use]
    pub fn contains(self, ip: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&u32::from(ip))
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} to {}",
            Ipv4Addr::from(self.first),
            Ipv4Addr::from(self.last)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_are_inclusive_and_bounded() {
        let range = Range::new(ip("10.0.0.9"), ip("10.0.0.10")).unwrap();
        assert_eq!(range.count(), 2);
        assert!(range.contains(ip("10.0.0.9")) && range.contains(ip("10.0.0.10")));
        assert!(!range.contains(ip("10.0.0.8")) && !range.contains(ip("10.0.0.11")));
        assert_eq!(Range::new(ip("10.0.0.1"), ip("10.0.0.1")).unwrap().count(), 1);
        assert!(matches!(
            Range::new(ip("10.0.0.2"), ip("10.0.0.1")),
            Err(RangeError::Backwards { .. })
        ));
        assert_eq!(
            Range::new(ip("10.0.0.0"), ip("10.0.255.255")).unwrap().count(),
            MOST
        );
        assert!(matches!(
            Range::new(ip("10.0.0.0"), ip("10.1.0.0")),
            Err(RangeError::TooLarge { count: 65_537, .. })
        ));
        assert!(matches!(
            Range::new(ip("0.0.0.0"), ip("255.255.255.255")),
            Err(RangeError::TooLarge { .. })
        ));
    }
}
