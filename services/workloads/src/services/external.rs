//! The health of external services: asked for from here, never further than it may be.
//!
//! The name is resolved once, the address is looked at, and exactly that address is asked, so that
//! a name cannot mean one thing when it is checked and another when it is used. Redirects are not
//! followed.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use nimbus_proto::workloads::ShownBackend;
use url::Url;

use super::row::{self, Probed, ServiceRow};
use crate::error::WorkError;
use crate::works::Works;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Failures in a row until it counts.
const FAILURES: u32 = 3;
/// Services asked at a time.
const TOGETHER: usize = 16;

/// Failures in a row, by service and incarnation.
pub(crate) type Failures = Mutex<HashMap<(String, String, String), u32>>;

impl Works {
    /// Asks every external service once, and writes down what has changed.
    pub(crate) async fn check_external(&self, failures: &Failures) -> Result<(), WorkError> {
        let rows = row::external(&self.store).await?;
        futures::stream::iter(rows)
            .for_each_concurrent(TOGETHER, |row| async move {
                if let Err(error) = self.check_one(Arc::new(row), failures).await {
                    tracing::warn!(cause = %nimbus_errors::chain(&error), "could not write down the health of a service");
                }
            })
            .await;
        Ok(())
    }

    async fn check_one(&self, row: Arc<ServiceRow>, failures: &Failures) -> Result<(), WorkError> {
        let ShownBackend::External { url, health_path } = &row.backend else {
            return Ok(());
        };
        let answer = ask(url, health_path, self.config.external_check_loopback).await;
        let key = (
            row.tenant.clone(),
            row.name.clone(),
            format!("{}/{}", row.uid, row.generation),
        );
        let (healthy, message) = {
            let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
            match answer {
                Ok(()) => {
                    failures.remove(&key);
                    (true, "the endpoint answers".to_owned())
                }
                Err(why) => {
                    let count = failures.entry(key).or_default();
                    *count = count.saturating_add(1);
                    if *count < FAILURES {
                        return Ok(());
                    }
                    (false, why)
                }
            }
        };
        if row.probe.as_ref().is_some_and(|before| before.healthy == healthy) {
            return Ok(());
        }
        let mut new = ServiceRow::clone(&row);
        new.probe = Some(Probed {
            healthy,
            message,
            since: self.now(),
        });
        // Somebody who was faster has changed the definition: the next round asks the new one.
        self.save_service(&row, new).await.map(|_| ())
    }
}

/// Asks once; an error says why it does not count as healthy.
async fn ask(url: &str, health_path: &str, loopback: bool) -> Result<(), String> {
    let base = Url::parse(url).map_err(|error| error.to_string())?;
    let target = target(&base, health_path).ok_or("the health path does not fit the endpoint")?;
    let host = target.host_str().ok_or("the endpoint has no host")?.to_owned();
    let port = target.port_or_known_default().ok_or("the endpoint has no port")?;
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    let found: Vec<SocketAddr> =
        match tokio::time::timeout(TIMEOUT, tokio::net::lookup_host((literal, port))).await {
            Ok(Ok(found)) => found.collect(),
            Ok(Err(_)) => return Err("the name of the endpoint cannot be resolved".to_owned()),
            Err(_) => return Err("the name of the endpoint was not resolved in time".to_owned()),
        };
    let address = found
        .iter()
        .find(|address| !is_refused(address.ip(), loopback))
        .ok_or("the endpoint is at an address that is not asked from here")?;
    let client = reqwest::Client::builder()
        .resolve(&host, *address)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(TIMEOUT)
        .connect_timeout(TIMEOUT)
        .user_agent(concat!("nimbus/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|_| "the client for it could not be made".to_owned())?;
    match client.get(target).send().await {
        Ok(answer) if answer.status().is_success() => Ok(()),
        Ok(answer) => Err(format!("the endpoint answers {}", answer.status().as_u16())),
        Err(error) if error.is_timeout() => Err("the endpoint does not answer in time".to_owned()),
        Err(_) => Err("the endpoint cannot be reached".to_owned()),
    }
}

/// The endpoint's URL with the health path behind it.
fn target(base: &Url, health_path: &str) -> Option<Url> {
    let joined = format!("{}{health_path}", base.as_str().trim_end_matches('/'));
    let url = Url::parse(&joined).ok()?;
    // A path must not turn into another host.
    (url.host_str() == base.host_str() && url.port_or_known_default() == base.port_or_known_default())
        .then_some(url)
}

/// Addresses where clouds keep credentials, and those that are no single host.
fn is_refused(address: IpAddr, loopback: bool) -> bool {
    match address {
        IpAddr::V4(address) => {
            address.is_link_local()
                || address.is_unspecified()
                || address.is_multicast()
                || address.is_broadcast()
                || (address.is_loopback() && !loopback)
                // Alibaba Cloud's metadata.
                || address.octets() == [100, 100, 100, 200]
        }
        IpAddr::V6(address) => match embedded(address) {
            Some(inner) => is_refused(inner, loopback),
            None => {
                address.is_unicast_link_local()
                    || address.is_unspecified()
                    || address.is_multicast()
                    || (address.is_loopback() && !loopback)
                    // Amazon's metadata: fd00:ec2::254.
                    || address.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
            }
        },
    }
}

/// The IPv4 address inside an IPv6 one: mapped, or behind a translator (RFC 6052).
fn embedded(address: Ipv6Addr) -> Option<IpAddr> {
    if let Some(inner) = address.to_ipv4_mapped() {
        return Some(IpAddr::V4(inner));
    }
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let bits = (u32::from(high) << 16) | u32::from(low);
            Some(IpAddr::V4(bits.into()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_and_its_disguises_are_refused() {
        for address in [
            "169.254.169.254",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "100.100.100.200",
            "fe80::1",
            "::",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
        ] {
            assert!(is_refused(address.parse().unwrap(), true), "{address}");
        }
        for address in ["10.0.0.1", "192.168.1.1", "93.184.215.14", "2001:db8::1"] {
            assert!(!is_refused(address.parse().unwrap(), false), "{address}");
        }
        for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(is_refused(address.parse().unwrap(), false), "{address}");
            assert!(!is_refused(address.parse().unwrap(), true), "{address}");
        }
    }

    #[test]
    fn the_path_goes_behind_the_endpoint_and_never_elsewhere() {
        let url = |text: &str| Url::parse(text).unwrap();
        assert_eq!(
            target(&url("http://db.lan:81/base/"), "/health")
                .unwrap()
                .as_str(),
            "http://db.lan:81/base/health"
        );
        assert_eq!(
            target(&url("http://db.lan"), "/x?y=1").unwrap().as_str(),
            "http://db.lan/x?y=1"
        );
        assert_eq!(
            target(&url("http://db.lan"), "/@evil/").unwrap().host_str(),
            Some("db.lan")
        );
    }
}
