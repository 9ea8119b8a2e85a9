//! Slowing down those who guess passwords.
//!
//! Two limits. *Per account*, in the database, so that replicas share it and a restart does not
//! forget: after [`FREE`] failures in a row each further attempt has to wait, a second first, doubling
//! up to a minute. A minute at most, because whoever knows a mail address could otherwise lock its
//! owner out for long; it still leaves a guesser no more than 1 440 passwords a day. Accounts that do
//! not exist are counted alike, so nothing tells them apart. *Per address*, in memory: it spares the
//! cores from those who try many accounts, and for that each replica may count for itself.
//!
//! An attempt counts as failed before the password is looked at and is forgiven when it was right.
//! So many attempts at once cannot all see a count that is not yet exhausted.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use nimbus_model::{Clock, UserId};
use nimbus_store::{Store, Tx};
use sha2::{Digest, Sha256};

use crate::config::AuthConfig;
use crate::error::AuthError;
use crate::store;

/// Failures in a row that cost nothing.
pub(crate) const FREE: i64 = 10;
/// The longest wait.
const WAIT_MOST: Duration = Duration::from_secs(60);
/// After this long without an attempt an account has a clean slate.
pub(crate) const FORGET: Duration = Duration::from_secs(15 * 60);

/// What is attacked, as it is stored: a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account(String);

impl Account {
    /// Signing in with this mail address, in its normal form.
    pub(crate) fn email(email: &str) -> Self {
        Self(hex::encode(Sha256::digest(format!("email {email}"))))
    }

    /// Proving the password again while signed in.
    pub(crate) fn user(user: UserId) -> Self {
        Self(hex::encode(Sha256::digest(format!("user {user}"))))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The limits. Clones share.
#[derive(Clone)]
pub(crate) struct Throttle {
    store: Store,
    clock: Clock,
    addresses: Option<Arc<DefaultKeyedRateLimiter<String>>>,
}

impl Throttle {
    pub(crate) fn new(store: Store, clock: Clock, config: &AuthConfig) -> Self {
        let quota = NonZeroU32::new(config.login_burst)
            .zip(Quota::with_period(config.login_refill))
            .map(|(burst, quota)| quota.allow_burst(burst));
        Self {
            store,
            clock,
            addresses: quota.map(|quota| Arc::new(RateLimiter::keyed(quota))),
        }
    }

    /// Takes one attempt from an address.
    pub(crate) fn address(&self, address: &str) -> Result<(), AuthError> {
        let Some(addresses) = &self.addresses else {
            return Ok(());
        };
        addresses
            .check_key(&network(address))
            .map_err(|refused| AuthError::Limited {
                retry_after: refused.wait_time_from(DefaultClock::default().now()),
            })
    }

    /// Forgets addresses that have been quiet.
    pub(crate) fn forget_quiet_addresses(&self) {
        if let Some(addresses) = &self.addresses {
            addresses.retain_recent();
        }
    }

    /// Takes one attempt on an account.
    pub(crate) async fn attempt(&self, account: &Account) -> Result<(), AuthError> {
        let now = self.clock.now();
        let mut tx = self.store.begin().await?;
        match store::count_attempt(&mut tx, account, now, now.before(FORGET)).await? {
            Some(failures) => {
                if let Some(wait) = wait_after(failures) {
                    store::block(&mut tx, account, now.after(wait)).await?;
                }
                tx.commit().await?;
                Ok(())
            }
            None => {
                let until = store::blocked_until(&mut tx, account).await?;
                // At least a moment: the block may end while we look.
                Err(AuthError::Limited {
                    retry_after: until.since(now).max(Duration::from_millis(1)),
                })
            }
        }
    }

    /// Forgives the attempts on an account, in the transaction that what they were for is done in.
    pub(crate) async fn forgive(tx: &mut Tx, account: &Account) -> Result<(), AuthError> {
        Ok(store::forgive(tx, account).await?)
    }
}

/// How long the next attempt has to wait when this was the last of `failures` in a row.
fn wait_after(failures: i64) -> Option<Duration> {
    let over = u32::try_from(failures.saturating_sub(FREE).min(100)).ok()?;
    Some(Duration::from_secs(2_u64.saturating_pow(over)).min(WAIT_MOST))
}

/// What shares a limit: an IPv4 address, or the /64 that one IPv6 subscriber has at least (RFC 6177).
fn network(address: &str) -> String {
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_none() => {
            Ipv6Addr::from(u128::from(ip) & !u128::from(u64::MAX)).to_string()
        }
        Ok(ip) => ip.to_canonical().to_string(),
        Err(_) => address.chars().take(64).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute() {
        assert_eq!(wait_after(1), None);
        assert_eq!(wait_after(FREE - 1), None);
        let seconds: Vec<u64> = (0..8)
            .map(|more| wait_after(FREE + more).unwrap().as_secs())
            .collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(wait_after(i64::MAX), Some(WAIT_MOST));
    }

    #[test]
    fn neighbours_in_one_ipv6_network_share_a_limit() {
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:10.0.0.1"), network("10.0.0.1"));
        assert_ne!(network("10.0.0.1"), network("10.0.0.2"));
    }

    #[test]
    fn accounts_are_stored_as_hashes() {
        let account = Account::email("ada@example.org");
        assert_eq!(account.as_str().len(), 64);
        assert_ne!(account, Account::email("bob@example.org"));
    }
}
