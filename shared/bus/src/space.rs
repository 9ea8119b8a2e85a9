//! A server whose disk was full. A stream that could not be written does not take anything more, also when there
//! is space again, until its server is started anew (nats-server 2.11 and later: "critical write error"; older ones
//! turn JetStream off).

use std::os::fd::{AsFd, OwnedFd};

use camino::Utf8PathBuf;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use tracing::{error, warn};

use crate::process;

/// What has to be free before it is started anew: some of the blocks that streams are kept in, of 8 MiB at most.
const ENOUGH: u64 = 64 << 20;
/// Pause between two looks at the disk.
const LOOK: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// Whether this complaint of the server says that something of it has stopped writing for good.
pub(crate) fn stopped_writing(complaint: &str) -> bool {
    let complaint = complaint.to_ascii_lowercase();
    complaint.contains("critical write error") || complaint.contains("resources, will be disabled")
}

/// Ends a server, whose supervisor then starts it again, as soon as there is space in its folder. Returns at once.
pub(crate) fn end_when_there_is_some(dir: Utf8PathBuf, server: OwnedFd) {
    error!("nats-server could not write and takes nothing more; it is started anew when {dir} has space");
    let waiting = std::thread::Builder::new()
        .name("nats-space".to_owned())
        .spawn(move || {
            while !has_ended(&server) {
                if free(&dir).is_some_and(|bytes| bytes >= ENOUGH) {
                    warn!("{dir} has space, nats-server is started anew");
                    process::signal(&server, Signal::TERM);
                    return;
                }
            }
        });
    if let Err(error) = waiting {
        error!("could not wait for space, nats-server has to be restarted by hand: {error}");
    }
}

/// Waits a moment for its end; whether that came.
fn has_ended(server: &OwnedFd) -> bool {
    let mut ends = [PollFd::from_borrowed_fd(server.as_fd(), PollFlags::IN)];
    match poll(&mut ends, Some(&LOOK)) {
        Ok(ready) => ready > 0,
        Err(rustix::io::Errno::INTR) => false,
        Err(_) => true,
    }
}

fn free(dir: &Utf8PathBuf) -> Option<u64> {
    let disk = rustix::fs::statvfs(dir.as_std_path()).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_server_that_gave_up_are_known() {
        for text in [
            "Filestore [EVENTS] Critical write error: write /x/1.blk: no space left on device",
            "JetStream stream 'A > EVENTS' critical write error: write /x/1.blk: no space left on device",
            "JetStream out of File resources, will be DISABLED",
        ] {
            assert!(stopped_writing(text), "{text}");
        }
        assert!(!stopped_writing(
            "JetStream failed to store a msg on stream 'A > EVENTS': maximum bytes exceeded"
        ));
    }

    #[test]
    fn a_folder_has_space_and_one_that_is_not_there_has_none() {
        assert!(free(&"/".into()).is_some());
        assert_eq!(free(&"/not/there".into()), None);
    }
}
