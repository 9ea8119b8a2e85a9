//! Taking the port, before anything else: from the system, or from the service manager that holds it.

mod inherited;

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use camino::Utf8PathBuf;
use nimbus_auth::admin;
use nimbus_model::{Clock, Timestamp};
use url::Url;

pub(crate) use inherited::take as take_inherited;

use super::args::ListenArgs;
use crate::problem::{Outcome, Problem};

/// How often a server is reminded of its old admin token.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The port, taken. Must be called inside the runtime.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) listener: tokio::net::TcpListener,
    pub(crate) address: SocketAddr,
}

/// Who may open the port to other computers.
#[derive(Debug)]
pub(crate) struct Permission<'a> {
    /// The admin token of this process; none in one that has no use for it.
    pub(crate) token: Option<&'a Utf8PathBuf>,
    /// What time it is.
    pub(crate) now: Timestamp,
}

/// Takes the port, or the one that was `inherited`.
pub(crate) fn bind(
    args: &ListenArgs,
    inherited: Option<TcpListener>,
    permission: &Permission<'_>,
) -> Outcome<Listening> {
    let mut address = SocketAddr::new(args.host, args.port);
    let failed = |error: std::io::Error| {
        let problem = Problem::failed(format!("could not listen on {address}")).because(&error);
        if error.kind() == std::io::ErrorKind::AddrInUse {
            problem.next("choose another --port, or 0 for a free one")
        } else {
            problem
        }
    };
    let listener = match inherited {
        Some(listener) => {
            let address = listener.local_addr().map_err(failed)?;
            permit(address, args.allow_network, permission)?;
            listener
        }
        None => {
            permit(address, args.allow_network, permission)?;
            TcpListener::bind(address).map_err(failed)?
        }
    };
    listener.set_nonblocking(true).map_err(failed)?;
    address = listener.local_addr().map_err(failed)?;
    let listener = tokio::net::TcpListener::from_std(listener)
        .map_err(|error| Problem::failed(format!("could not listen on {address}")).because(&error))?;
    Ok(Listening { listener, address })
}

/// An address that other computers reach needs a word, and an admin token that somebody has rotated lately.
fn permit(address: SocketAddr, allow_network: bool, permission: &Permission<'_>) -> Outcome {
    if address.ip().is_loopback() {
        return Ok(());
    }
    if !allow_network {
        return Err(Problem::refused(format!(
            "{} is an address that other computers reach",
            address.ip()
        ))
        .why("whoever opens the portal first becomes its administrator")
        .next("add --allow-network, and --tls-cert with --tls-key unless a proxy does TLS"));
    }
    if let Some(path) = permission.token {
        let token = admin::read(path)
            .map_err(|error| Problem::failed("could not read the admin token").because(&error))?;
        if let Some(why) = stale(token.as_ref(), permission.now) {
            return Err(
                Problem::refused(format!("the admin token is too old for {address}"))
                    .why(format!(
                        "{path} {why}; who holds it reaches every tenant from any computer"
                    ))
                    .next(format!("nimbus auth rotate-admin --admin-token-file {path}")),
            );
        }
    }
    crate::output::say(format_args!(
        "Warning: other computers reach this server on {address}."
    ));
    Ok(())
}

/// Says in the log, once a day, that the admin token of a server that other computers reach has become too
/// old. The server goes on; its next start is refused.
pub(crate) async fn remind(token: Option<Utf8PathBuf>) -> Infallible {
    let Some(path) = token else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(DAY).await;
        let why = match admin::read(&path) {
            Ok(token) => stale(token.as_ref(), Clock::system().now()),
            Err(error) => Some(nimbus_errors::chain(&error)),
        };
        if let Some(why) = why {
            tracing::warn!(
                "the admin token is too old for a server that other computers reach: {path} {why}; the next start is refused until `nimbus auth rotate-admin`"
            );
        }
    }
}

/// Why a token is not fresh; none if it is.
fn stale(token: Option<&admin::AdminToken>, now: Timestamp) -> Option<String> {
    let limit = admin::FRESH.as_secs() / 86_400;
    match token {
        Some(token) if token.is_fresh(now) => None,
        Some(token) => Some(match token.rotated_at {
            Some(at) => format!(
                "was rotated {} days ago, and {limit} are the limit",
                now.since(at).as_secs() / 86_400
            ),
            None => "was made at the first start and never rotated".to_owned(),
        }),
        None => Some("does not exist yet, and the first token is never a rotated one".to_owned()),
    }
}

/// Where people find it. An address that stands for all of them is shown as loopback.
pub(crate) fn url(address: SocketAddr, tls: bool) -> Outcome<Url> {
    let scheme = if tls { "https" } else { "http" };
    let mut shown = address;
    if shown.ip().is_unspecified() {
        shown.set_ip(if shown.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    format!("{scheme}://{shown}")
        .parse()
        .map_err(|error: url::ParseError| Problem::failed("the address is broken").because(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_others_reach_need_a_word() {
        let args = |host: &str, allow_network| ListenArgs {
            host: host.parse().unwrap(),
            port: 0,
            allow_network,
            public_url: None,
            ready_file: None,
            stop_timeout: std::time::Duration::ZERO,
        };
        let permission = Permission {
            token: None,
            now: Timestamp::from_micros(0),
        };
        for host in ["0.0.0.0", "192.0.2.1", "::"] {
            let refused = bind(&args(host, false), None, &permission)
                .unwrap_err()
                .to_string();
            assert!(refused.contains("--allow-network"), "{host}");
        }
        // One that the service manager holds is asked for its own address.
        let held = TcpListener::bind(("0.0.0.0", 0)).unwrap();
        let refused = bind(&args("127.0.0.1", false), Some(held), &permission).unwrap_err();
        assert!(refused.to_string().contains("0.0.0.0"), "{refused}");
    }

    #[test]
    fn only_a_token_that_was_rotated_lately_opens_a_port_to_others() {
        let dir = camino_tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let (clock, jump) = nimbus_model::Clock::movable();
        let address: SocketAddr = "192.0.2.1:80".parse().unwrap();
        let refused = || {
            let permission = Permission {
                token: Some(&path),
                now: clock.now(),
            };
            permit(address, true, &permission)
                .err()
                .map(|problem| problem.to_string())
        };
        assert!(refused().unwrap().contains("does not exist"));
        admin::ensure(&path, clock.now()).unwrap();
        assert!(refused().unwrap().contains("never rotated"));
        admin::rotate(&path, clock.now()).unwrap();
        assert_eq!(refused(), None);
        jump.forward(admin::FRESH + std::time::Duration::from_secs(86_400));
        let told = refused().unwrap();
        assert!(
            told.contains("31 days ago") && told.contains("rotate-admin") && told.contains(path.as_str()),
            "{told}"
        );
        let loopback = Permission {
            token: Some(&path),
            now: clock.now(),
        };
        assert!(permit("127.0.0.1:80".parse().unwrap(), false, &loopback).is_ok());
    }

    #[test]
    fn urls_can_be_opened() {
        assert_eq!(
            url("0.0.0.0:80".parse().unwrap(), false).unwrap().as_str(),
            "http://127.0.0.1/"
        );
        assert_eq!(
            url("[::1]:8443".parse().unwrap(), true).unwrap().as_str(),
            "https://[::1]:8443/"
        );
    }
}
