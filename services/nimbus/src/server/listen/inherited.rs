//! A port that systemd holds and hands over: sd_listen_fds(3).

use std::net::TcpListener;
use std::os::fd::FromRawFd;

use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketType};

use crate::problem::{Outcome, Problem};

/// What systemd sets for the process that it hands descriptors to.
const VARIABLES: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// Takes the one listener that was handed over. Must be called before there are threads, because it changes
/// the environment: children must not take it for theirs.
pub(crate) fn take() -> Outcome<TcpListener> {
    check(std::process::id(), crate::cli::environment)?;
    let failed = |error: std::io::Error| {
        Problem::usage("the descriptor that was handed over cannot be used").because(&error)
    };
    // Sets close-on-exec too.
    let descriptor = sd_notify::listen_fds()
        .map_err(failed)?
        .next()
        .ok_or_else(|| refuse("no descriptor was handed over"))?;
    // SAFETY: the caller is the only thread.
    #[expect(unsafe_code, reason = "the environment is changed while there is one thread")]
    unsafe {
        for name in VARIABLES {
            std::env::remove_var(name);
        }
    }
    // SAFETY: systemd opened the descriptor for this process (LISTEN_PID), and nobody else takes it: the
    // variables that name it are gone.
    #[expect(unsafe_code, reason = "a descriptor is handed over as a number")]
    let listener = unsafe { TcpListener::from_raw_fd(descriptor) };
    let family = sockopt::socket_domain(&listener).map_err(|error| failed(error.into()))?;
    let kind = sockopt::socket_type(&listener).map_err(|error| failed(error.into()))?;
    let listens = sockopt::socket_acceptconn(&listener).map_err(|error| failed(error.into()))?;
    if !matches!(family, AddressFamily::INET | AddressFamily::INET6) || kind != SocketType::STREAM {
        return Err(refuse("what was handed over is no TCP socket"));
    }
    if !listens {
        return Err(refuse(
            "what was handed over does not listen: Accept=yes is not for this server",
        ));
    }
    Ok(listener)
}

fn refuse(why: impl Into<String>) -> Problem {
    Problem::usage("there is no port to take from systemd")
        .why(why)
        .next("start nimbus.socket, which hands it over, or leave --systemd-socket-activation out")
}

/// Whether exactly one descriptor was handed over, and to this process.
fn check(pid: u32, environment: impl Fn(&str) -> Option<String>) -> Outcome {
    match environment("LISTEN_PID") {
        None => return Err(refuse("LISTEN_PID is not set")),
        Some(given) if given.parse() != Ok(pid) => {
            return Err(refuse(format!(
                "LISTEN_PID is {given}, and this is process {pid}"
            )));
        }
        Some(_) => {}
    }
    match environment("LISTEN_FDS").as_deref() {
        Some("1") => Ok(()),
        Some(count) => Err(refuse(format!("LISTEN_FDS is {count}, and one socket is wanted"))),
        None => Err(refuse("LISTEN_FDS is not set")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_socket_for_this_process_is_taken() {
        let told = |pairs: &'static [(&str, &str)]| {
            let environment = |name: &str| {
                let found = pairs.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            check(7, environment).err().map(|problem| problem.to_string())
        };
        assert_eq!(told(&[("LISTEN_PID", "7"), ("LISTEN_FDS", "1")]), None);
        for (pairs, word) in [
            (
                &[("LISTEN_FDS", "1")] as &'static [(&str, &str)],
                "LISTEN_PID is not set",
            ),
            (&[("LISTEN_PID", "8"), ("LISTEN_FDS", "1")], "LISTEN_PID is 8"),
            (&[("LISTEN_PID", "x"), ("LISTEN_FDS", "1")], "LISTEN_PID is x"),
            (&[("LISTEN_PID", "7")], "LISTEN_FDS is not set"),
            (&[("LISTEN_PID", "7"), ("LISTEN_FDS", "0")], "LISTEN_FDS is 0"),
            (&[("LISTEN_PID", "7"), ("LISTEN_FDS", "2")], "LISTEN_FDS is 2"),
        ] {
            assert!(told(pairs).unwrap().contains(word), "{pairs:?}");
        }
    }
}
