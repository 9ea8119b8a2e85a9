//! How many requests one address or one user may send.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};
use nimbus_errors::{Code, Fault};
use nimbus_model::UserId;

use crate::config::GatewayConfig;

/// Requests between two clean-ups of a limiter's table.
const SWEEP: u32 = 16_384;
/// How long a GPU box is known after its credential was good; it says that it lives every few seconds.
const BOX_KNOWN: Duration = Duration::from_secs(120);

/// Limits of all clients of this process.
pub(crate) struct Throttle {
    addresses: Limiter<IpAddr>,
    users: Limiter<UserId>,
    boxes: Limiter<[u8; 32]>,
    /// When the credential of each GPU box was good last, by the digest of the credential.
    known_boxes: Mutex<HashMap<[u8; 32], Instant>>,
}

impl Throttle {
    pub(crate) fn new(config: &GatewayConfig) -> Self {
        Self {
            addresses: Limiter::new(config.rate_address, config.burst_address),
            users: Limiter::new(config.rate_user, config.burst_user),
            boxes: Limiter::new(config.rate_user, config.burst_user),
            known_boxes: Mutex::default(),
        }
    }

    /// Counts a request without a known credential.
    pub(crate) fn address(&self, address: IpAddr) -> Result<(), Fault> {
        self.addresses.check(&network(address))
    }

    /// Counts a request of a GPU box: as its own if its credential was good a moment ago, so that nobody
    /// beside it in its network can silence it.
    pub(crate) fn gpu_box(&self, credential: &[u8; 32], address: IpAddr) -> Result<(), Fault> {
        let known = self.boxes().get(credential).copied();
        if known.is_some_and(|at| at.elapsed() < BOX_KNOWN) {
            self.boxes.check(credential)
        } else {
            self.address(address)
        }
    }

    /// Takes note of whether the credential of a GPU box is good.
    pub(crate) fn judged(&self, credential: &[u8; 32], is_good: bool) {
        let mut boxes = self.boxes();
        if is_good {
            boxes.insert(*credential, Instant::now());
        } else {
            boxes.remove(credential);
        }
        // There are as many as are paired; those that went are not kept.
        boxes.retain(|_, at| at.elapsed() < BOX_KNOWN);
    }

    fn boxes(&self) -> MutexGuard<'_, HashMap<[u8; 32], Instant>> {
        self.known_boxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request of a signed-in user.
    pub(crate) fn user(&self, user: UserId) -> Result<(), Fault> {
        self.users.check(&user)
    }
}

/// Whoever has one IPv6 address has its whole /64 (RFC 6177).
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
    }
}

struct Limiter<K: Hash + Eq + Clone> {
    /// None when there is no limit.
    state: Option<DefaultKeyedRateLimiter<K>>,
    clock: DefaultClock,
    since_sweep: AtomicU32,
}

impl<K: Hash + Eq + Clone> Limiter<K> {
    fn new(per_second: u32, burst: u32) -> Self {
        let quota = NonZeroU32::new(per_second).map(|rate| {
            let burst = NonZeroU32::new(burst).unwrap_or(rate);
            Quota::per_second(rate).allow_burst(burst)
        });
        Self {
            state: quota.map(DefaultKeyedRateLimiter::keyed),
            clock: DefaultClock::default(),
            since_sweep: AtomicU32::new(0),
        }
    }

    fn check(&self, key: &K) -> Result<(), Fault> {
        let Some(state) = &self.state else { return Ok(()) };
        if self.since_sweep.fetch_add(1, Ordering::Relaxed) >= SWEEP {
            self.since_sweep.store(0, Ordering::Relaxed);
            state.retain_recent();
        }
        state.check_key(key).map_err(|refused| {
            let wait = refused.wait_time_from(self.clock.now());
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
            Fault::new(Code::RateLimited, "too many requests")
                .with_detail(&serde_json::json!({ "retryAfterMs": wait_ms }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_let_through_and_then_nothing_and_nobody_else_pays_for_it() {
        let limiter = Limiter::<u8>::new(1, 3);
        for _ in 0..3 {
            assert!(limiter.check(&1).is_ok());
        }
        let fault = limiter.check(&1).unwrap_err();
        assert!(fault.is(Code::RateLimited));
        assert!(fault.detail_json().unwrap()["retryAfterMs"].as_u64().unwrap() > 0);
        assert!(limiter.check(&2).is_ok());
    }

    #[test]
    fn a_box_that_is_known_is_not_silenced_by_its_neighbours() {
        let throttle = Throttle::new(&GatewayConfig {
            rate_address: 1,
            burst_address: 1,
            rate_user: 1,
            burst_user: 2,
            ..GatewayConfig::default()
        });
        let (ours, other, address) = ([1; 32], [2; 32], "10.0.0.9".parse().unwrap());
        assert!(
            throttle.gpu_box(&ours, address).is_ok(),
            "the first is the address'"
        );
        throttle.judged(&ours, true);
        assert!(
            throttle.gpu_box(&other, address).is_err(),
            "there is nothing left for others"
        );
        assert!(throttle.gpu_box(&ours, address).is_ok());
        assert!(throttle.gpu_box(&ours, address).is_ok());
        assert!(
            throttle.gpu_box(&ours, address).is_err(),
            "it has a limit of its own"
        );
        throttle.judged(&ours, false);
        assert!(throttle.gpu_box(&ours, address).is_err());
        assert!(throttle.boxes().is_empty());
    }

    #[test]
    fn zero_is_no_limit() {
        let limiter = Limiter::<u8>::new(0, 0);
        assert!((0..10_000).all(|_| limiter.check(&1).is_ok()));
    }

    #[test]
    fn one_ipv6_customer_is_one_client() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
    }
}
