//! Taking the port, before anything else.

use std::net::{SocketAddr, TcpListener};

use url::Url;

use super::args::ListenArgs;
use crate::problem::{Outcome, Problem};

/// The port, taken. Must be called inside the runtime.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) listener: tokio::net::TcpListener,
    pub(crate) address: SocketAddr,
}

/// Takes the port.
pub(crate) fn bind(args: &ListenArgs) -> Outcome<Listening> {
    let address = SocketAddr::new(args.host, args.port);
    if !args.host.is_loopback() && !args.allow_network {
        return Err(
            Problem::refused(format!("{} is an address that other computers reach", args.host))
                .why("whoever opens the portal first becomes its administrator")
                .next("add --allow-network, and --tls-cert with --tls-key unless a proxy does TLS"),
        );
    }
    let failed = |error: std::io::Error| {
        let problem = Problem::failed(format!("could not listen on {address}")).because(&error);
        if error.kind() == std::io::ErrorKind::AddrInUse {
            problem.next("choose another --port, or 0 for a free one")
        } else {
            problem
        }
    };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
    Ok(Listening { listener, address })
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
            ready_file: None,
            stop_timeout: std::time::Duration::ZERO,
        };
        for host in ["0.0.0.0", "192.0.2.1", "::"] {
            assert!(
                bind(&args(host, false))
                    .unwrap_err()
                    .to_string()
                    .contains("--allow-network"),
                "{host}"
            );
        }
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
