//! TCP inside of the sandbox.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nimbus_guest::frame::{self, FrameError};
use nimbus_guest::protocol::{GuestFault, HelloReply, ListeningPort, Opened};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use tokio::net::{TcpStream, UnixStream};

use super::world::refuse;

/// Each way of each connection has one of these.
const BUFFER: usize = 16 << 10;

/// Connects to a port inside and carries bytes until both sides have ended.
pub(crate) async fn connect(mut outside: UnixStream, port: u16) -> Result<(), FrameError> {
    let mut inside = match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        Ok(inside) => inside,
        // Some servers bind the other loopback address only.
        Err(first) => match TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await {
            Ok(inside) => inside,
            Err(_) => {
                let why = format!("nothing in the sandbox takes connections on port {port}: {first}");
                return refuse(
                    outside,
                    GuestFault::new("service.unavailable", why).with("port", port),
                )
                .await;
            }
        },
    };
    let _ = inside.set_nodelay(true);
    frame::write(&mut outside, &HelloReply::Ok(Opened::Connected)).await?;
    splice(&mut inside, &mut outside).await;
    Ok(())
}

/// Carries bytes both ways; the end of one way is passed on, an error ends both.
pub(crate) async fn splice<A, B>(inside: &mut A, outside: &mut B)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let _ = copy_bidirectional_with_sizes(inside, outside, BUFFER, BUFFER).await;
}

/// Ports that processes inside listen on, without the init's own.
pub(crate) fn listening(own: &BTreeSet<(IpAddr, u16)>) -> Vec<ListeningPort> {
    let mut found = BTreeSet::new();
    for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
        // IPv6 may be turned off.
        let table = std::fs::read_to_string(file).unwrap_or_default();
        found.extend(table.lines().filter_map(parse));
    }
    found
        .into_iter()
        .filter(|port| !own.contains(&(port.addr, port.port)))
        .collect()
}

/// `sl local_address rem_address st …`: the address in hexadecimal, in words of the machine's order; the
/// state 0A listens.
fn parse(line: &str) -> Option<ListeningPort> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (addr, port) = fields.next()?.split_once(':')?;
    if fields.nth(1)? != "0A" {
        return None;
    }
    let words: Vec<u32> = (0..addr.len() / 8)
        .map(|word| u32::from_str_radix(addr.get(word * 8..word * 8 + 8)?, 16).ok())
        .collect::<Option<_>>()?;
    let addr = match words.as_slice() {
        [word] => IpAddr::from(word.to_ne_bytes()),
        [_, _, _, _] => {
            let mut bytes = [0; 16];
            for (to, word) in bytes.chunks_exact_mut(4).zip(&words) {
                to.copy_from_slice(&word.to_ne_bytes());
            }
            IpAddr::from(bytes)
        }
        _ => return None,
    };
    Some(ListeningPort {
        port: u16::from_str_radix(port, 16).ok()?,
        addr,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn the_kernels_table_is_read() {
        let v4 = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000 0 1 1";
        let v6 = "   1: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0";
        let busy = "   2: 0100007F:1F90 0100007F:C001 01 00000000:00000000";
        let port = |port, addr: &str| {
            let addr = addr.parse().unwrap();
            Some(ListeningPort { port, addr })
        };
        assert_eq!(parse(v4), port(8080, "127.0.0.1"));
        assert_eq!(parse(v6), port(80, "::1"));
        assert_eq!(parse(busy), None);
        assert_eq!(parse("  sl  local_address rem_address   st"), None);
    }
}
