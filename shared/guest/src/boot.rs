//! How agent and init meet.
//!
//! ```text
//! agent                                             init
//! Slot::create: listen <slot>/boot.sock and <slot>.guest.sock
//! engine starts the container with <slot> at /.nimbus/run, read-only
//!                                                   connect /.nimbus/run/boot.sock
//! Slot::meet: SCM_RIGHTS the second listener  ────▶ accept on it from now on
//!   remove boot.sock
//! ```
//!
//! So what the init listens on has no name inside of the sandbox, and nothing connectable is left there.
//! The slot's parent directory has to be closed to everybody but the agent, or others on the host could
//! pose as the init or connect to it.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;

use crate::client::Guest;

/// Where the init finds the slot inside of the sandbox.
pub const SLOT_IN_SANDBOX: &str = "/.nimbus/run";

/// Where the init itself is inside of the sandbox.
pub const INIT_IN_SANDBOX: &str = "/.nimbus/init";

/// Name of the socket in the slot.
pub const BOOT_SOCKET: &str = "boot.sock";

/// What the init writes once it listens.
pub const READY: u8 = b'R';

/// A sandbox' place on the host, before its init is there.
#[derive(Debug)]
pub struct Slot {
    boot: UnixListener,
    boot_path: PathBuf,
    guest: StdListener,
    guest_path: PathBuf,
}

/// Who connected, as the kernel says it; ids are those of this side's namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Process; 0 if it cannot be seen from here.
    pub pid: i32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Slot {
    /// Makes the directory `slot` and both sockets; what an earlier sandbox left at these paths is
    /// replaced.
    ///
    /// # Errors
    /// What the file system says; a path longer than a socket's can be (107 bytes) among it.
    pub fn create(slot: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(slot)?;
        // The sandbox' user is anybody: it has to reach the socket, and connecting takes write permission.
        std::fs::set_permissions(slot, PermissionsExt::from_mode(0o755))?;
        let boot_path = slot.join(BOOT_SOCKET);
        let guest_path = guest_path(slot);
        remove_old(&boot_path)?;
        remove_old(&guest_path)?;
        let guest = StdListener::bind(&guest_path)?;
        // Not those of other users on the host: whoever connects rules the sandbox.
        std::fs::set_permissions(&guest_path, PermissionsExt::from_mode(0o600))?;
        guest.set_nonblocking(true)?;
        let boot = UnixListener::bind(&boot_path)?;
        std::fs::set_permissions(&boot_path, PermissionsExt::from_mode(0o666))?;
        Ok(Self {
            boot,
            boot_path,
            guest,
            guest_path,
        })
    }

    /// Waits for the init, hands the listener over, waits until it listens, and removes the boot socket.
    /// `check` says whether the process that connected is the sandbox' first one (its pid is in the
    /// engine's inspect); one that is not is turned away and the next waited for. Needs a time limit
    /// from outside: a container may end before its init is here.
    ///
    /// # Errors
    /// What the sockets say.
    pub async fn meet(self, mut check: impl FnMut(Peer) -> bool) -> io::Result<(Guest, Peer)> {
        loop {
            let (mut stream, _) = self.boot.accept().await?;
            let credentials = stream.peer_cred()?;
            let peer = Peer {
                pid: credentials.pid().unwrap_or_default(),
                uid: credentials.uid(),
                gid: credentials.gid(),
            };
            if !check(peer) {
                continue;
            }
            stream.writable().await?;
            send_listener(&stream, &self.guest)?;
            if stream.read_u8().await? != READY {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the init did not say that it listens",
                ));
            }
            remove_old(&self.boot_path)?;
            return Ok((Guest::at(self.guest_path), peer));
        }
    }
}

/// The path at which the agent reaches the init whose slot this is.
#[must_use]
pub fn guest_path(slot: &Path) -> PathBuf {
    let mut path = slot.as_os_str().to_owned();
    path.push(".guest.sock");
    PathBuf::from(path)
}

/// Removes the slot and the sockets; what is not there is fine.
///
/// # Errors
/// What the file system says.
pub fn remove(slot: &Path) -> io::Result<()> {
    remove_old(&guest_path(slot))?;
    match std::fs::remove_dir_all(slot) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn remove_old(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn send_listener(to: impl AsFd, listener: impl AsFd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [listener.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    rustix::net::sendmsg(to, &[IoSlice::new(b"L")], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The init's side: connects to `socket` and takes the listener. Blocks.
///
/// # Errors
/// What the socket says; [`io::ErrorKind::InvalidData`] if no descriptor came.
pub fn take_listener(socket: &Path) -> io::Result<(std::os::unix::net::UnixStream, StdListener)> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
    let stream = std::os::unix::net::UnixStream::connect(socket)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    rustix::net::recvmsg(
        &stream,
        &mut [io::IoSliceMut::new(&mut byte)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut taken: Option<OwnedFd> = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            for fd in fds {
                taken = Some(fd);
            }
        }
    }
    let listener =
        taken.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the agent sent no listener"))?;
    let listener = StdListener::from(listener);
    listener.set_nonblocking(true)?;
    Ok((stream, listener))
}
