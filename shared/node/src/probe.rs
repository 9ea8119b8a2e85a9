//! Asking a node whether it is ready.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// What a node answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Ready,
    NotReady(String),
    /// It listens and does not speak plain HTTP: it has a certificate of its own.
    Tls,
}

/// Asks once.
pub(crate) fn ask(address: SocketAddr) -> Answer {
    let asked = TcpStream::connect_timeout(&address, PATIENCE).and_then(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        // In one piece: a server that answers before the rest has come resets the connection.
        let request = format!("GET /ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut head = [0_u8; 64];
        let mut length = 0;
        while let Some(room) = head.get_mut(length..).filter(|room| !room.is_empty()) {
            let read = stream.read(room)?;
            if read == 0 {
                break;
            }
            length += read;
        }
        Ok(String::from_utf8_lossy(head.get(..length).unwrap_or_default()).into_owned())
    });
    match asked {
        Ok(head) => read(&head),
        Err(error) => Answer::NotReady(format!("{address} does not answer: {error}")),
    }
}

fn read(head: &str) -> Answer {
    let mut words = head.split_whitespace();
    match (words.next(), words.next()) {
        (Some(version), Some("200")) if version.starts_with("HTTP/1.") => Answer::Ready,
        (Some(version), Some(status)) if version.starts_with("HTTP/1.") => {
            Answer::NotReady(format!("/ready answers {status}"))
        }
        _ => Answer::Tls,
    }
}

/// Asks until it is ready, `alive` says that it never will be, or the time is over.
pub(crate) fn wait(
    address: SocketAddr,
    limit: Duration,
    mut alive: impl FnMut() -> Result<(), String>,
) -> Result<(), String> {
    let until = Instant::now() + limit;
    loop {
        let reason = match ask(address) {
            Answer::Ready => return Ok(()),
            // The service manager heard from the server itself that it is ready.
            Answer::Tls => return alive(),
            Answer::NotReady(reason) => reason,
        };
        alive()?;
        if Instant::now() >= until {
            return Err(format!("{reason} after {} s", limit.as_secs()));
        }
        // There is nothing to wait on: the answer is another process'.
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn answers_are_told_apart() {
        assert_eq!(read("HTTP/1.1 200 OK\r\n"), Answer::Ready);
        assert!(matches!(read("HTTP/1.1 503 Service"), Answer::NotReady(_)));
        assert_eq!(read("\u{15}\u{3}\u{3}"), Answer::Tls);
        assert_eq!(read(""), Answer::Tls);
    }

    #[test]
    fn waiting_ends_with_an_answer_or_with_the_one_who_answers() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            for text in ["HTTP/1.1 503 Not yet\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"] {
                let (mut stream, _) = listener.accept().unwrap();
                assert!(stream.read(&mut [0; 512]).unwrap() > 0);
                stream.write_all(text.as_bytes()).unwrap();
            }
        });
        assert_eq!(wait(address, Duration::from_secs(30), || Ok(())), Ok(()));
        server.join().unwrap();
        let dead = wait(
            address,
            Duration::from_secs(30),
            || Err("it has ended".to_owned()),
        );
        assert_eq!(dead, Err("it has ended".to_owned()));
    }
}
