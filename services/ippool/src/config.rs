//! Settings of the pool.

use std::net::Ipv4Addr;
use std::time::Duration;

use nimbus_config::{address, count, seconds_or_text};

use crate::range::{Range, RangeError};

/// Address pool. Flag over environment over file over default.
#[derive(Clone, Debug, clap::Args)]
pub struct IppoolConfig {
    /// First address that machines may get.
    #[arg(id = "ip_pool_start", long = "ip-pool-start", env = "IP_POOL_START", value_name = "IPV4", value_parser = address)]
    pub pool_start: Option<Ipv4Addr>,

    /// Last address that machines may get. The range has at most 65536 addresses and is taken
    /// literally: nothing in it is left out.
    #[arg(id = "ip_pool_end", long = "ip-pool-end", env = "IP_POOL_END", value_name = "IPV4", value_parser = address)]
    pub pool_end: Option<Ipv4Addr>,

    /// Gateway that machines are given.
    #[arg(id = "gateway_ip", long = "gateway-ip", env = "GATEWAY_IP", value_name = "IPV4", value_parser = address)]
    pub gateway: Option<Ipv4Addr>,

    /// Length of the network's prefix that machines are given.
    #[arg(id = "vm_prefix_len", long = "vm-prefix-len", env = "VM_PREFIX_LEN", value_name = "BITS", default_value_t = 24,
          value_parser = clap::value_parser!(u8).range(1..=32))]
    pub prefix_len: u8,

    /// How often the books are compared with the cluster; 0 turns it off.
    #[arg(id = "ippool_reconcile_interval", long = "reconcile-interval", env = "RECONCILE_INTERVAL_SECONDS", value_name = "TIME",
          default_value = "60", value_parser = seconds_or_text)]
    pub reconcile_interval: Duration,

    /// How long an address stays promised to a machine whose VM does not show up with it. Asking again
    /// starts the time anew, and an address that a guest of the cluster has is never taken back by time.
    #[arg(id = "reservation_ttl", long = "reservation-ttl", env = "RESERVATION_TTL_SECONDS", value_name = "TIME",
          default_value = "600", value_parser = seconds_or_text)]
    pub reservation_ttl: Duration,

    /// How old the picture of the cluster may be that an address is checked against.
    #[arg(id = "verify_cache_ttl", long = "verify-cache-ttl", env = "VERIFY_CACHE_TTL_SECONDS", value_name = "TIME",
          default_value = "5", value_parser = seconds_or_text)]
    pub verify_cache_ttl: Duration,

    /// After how many reconciles in a row without its guest an address in use becomes free.
    #[arg(id = "vacate_miss_threshold", long = "vacate-miss-threshold", env = "VACATE_MISS_THRESHOLD", value_name = "COUNT",
          default_value = "3", value_parser = count)]
    pub vacate_miss_threshold: u32,
}

/// What a guest needs beside its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) range: Range,
    pub(crate) gateway: Ipv4Addr,
    pub(crate) prefix: u8,
}

impl IppoolConfig {
    /// The settings that are missing before addresses can be handed out, by their environment names.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let set = [
            ("IP_POOL_START", self.pool_start.is_some()),
            ("IP_POOL_END", self.pool_end.is_some()),
            ("GATEWAY_IP", self.gateway.is_some()),
        ];
        set.into_iter()
            .filter(|(_, is_set)| !is_set)
            .map(|(name, _)| name)
            .collect()
    }

    /// Checks what can only be checked together.
    ///
    /// # Errors
    /// When the pool's start and end are not a range.
    pub fn validate(&self) -> Result<(), RangeError> {
        self.range().map(|_| ())
    }

    fn range(&self) -> Result<Option<Range>, RangeError> {
        self.pool_start
            .zip(self.pool_end)
            .map(|(start, end)| Range::new(start, end))
            .transpose()
    }

    pub(crate) fn network(&self) -> Result<Option<Network>, RangeError> {
        let range = self.range()?;
        Ok(range.zip(self.gateway).map(|(range, gateway)| Network {
            range,
            gateway,
            prefix: self.prefix_len,
        }))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        ippool: IppoolConfig,
    }

    fn parse(flags: &[&str]) -> Result<IppoolConfig, clap::Error> {
        Line::try_parse_from(std::iter::once("test").chain(flags.iter().copied())).map(|line| line.ippool)
    }

    #[test]
    fn defaults_and_what_is_missing() {
        let config = parse(&["--ip-pool-start", "10.0.0.1"]).unwrap();
        assert_eq!(config.prefix_len, 24);
        assert_eq!(config.reservation_ttl, Duration::from_secs(600));
        assert_eq!(config.missing(), ["IP_POOL_END", "GATEWAY_IP"]);
        assert_eq!(config.network(), Ok(None));
    }

    #[test]
    fn wrong_values_are_refused() {
        for flags in [
            ["--ip-pool-start", "10.0.0.256"],
            ["--vm-prefix-len", "33"],
            ["--vm-prefix-len", "0"],
            ["--vacate-miss-threshold", "0"],
            ["--reconcile-interval", "soon"],
        ] {
            assert!(parse(&flags).is_err(), "{flags:?}");
        }
        let backwards = parse(&["--ip-pool-start", "10.0.0.9", "--ip-pool-end", "10.0.0.1"]).unwrap();
        assert!(backwards.validate().is_err());
    }
}
