//! What processes inside connect to: addresses of ours, whose connections go to the agent.
//!
//! The agent keeps connections parked here. A process' connection is given the first of them whose
//! other end still lives; with none, it waits, and those after it wait in the kernel's queue.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;

use nimbus_guest::frame;
use nimbus_guest::protocol::{Claim, EgressTarget, GuestFault, HelloReply, Opened, OpenedEgress};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Notify;

use super::fault;
use super::ports::splice;

#[derive(Debug, Default)]
pub(crate) struct Egress {
    parked: RefCell<VecDeque<UnixStream>>,
    arrived: Notify,
    own: RefCell<BTreeSet<(IpAddr, u16)>>,
}

/// An address, and what a connection to it means.
pub(crate) type Listener = (TcpListener, EgressTarget);

/// Binds what the claim asks for.
pub(crate) fn listen(claim: &Claim, proxy_port: u16) -> Result<Vec<Listener>, GuestFault> {
    let mut all = Vec::new();
    let proxy = (Ipv4Addr::LOCALHOST, proxy_port, EgressTarget::Proxy);
    let forwards = claim.forwards.iter().map(|forward| {
        let target = EgressTarget::Forward(forward.name.clone());
        (forward.addr, forward.port, target)
    });
    for (addr, port, target) in claim.proxy.then_some(proxy).into_iter().chain(forwards) {
        if !addr.is_loopback() {
            return Err(fault::invalid("forwards", "an address is not a loopback address").with("addr", addr));
        }
        let listener = bind((addr, port).into())
            .map_err(|error| fault::conflict(format!("could not listen on {addr}:{port}: {error}")))?;
        all.push((listener, target));
    }
    Ok(all)
}

fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(addr)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Adds lines to the file of host names; says whether they are there.
pub(crate) fn write_hosts(file: Option<&Path>, hosts: &[(IpAddr, String)]) -> bool {
    let lines: String = hosts
        .iter()
        .map(|(addr, name)| format!("{addr}\t{name}\n"))
        .collect();
    if lines.is_empty() {
        return true;
    }
    // In place: the engine mounts this very file.
    let open = |file| std::fs::OpenOptions::new().append(true).open(file);
    let Some(Ok(mut file)) = file.map(open) else {
        return false;
    };
    file.write_all(lines.as_bytes()).is_ok()
}

impl Egress {
    /// Keeps a connection of the agent until it is needed.
    pub(crate) fn park(&self, stream: UnixStream) {
        let mut parked = self.parked.borrow_mut();
        // Those of an agent that is gone.
        parked.retain(|other| {
            let quiet = other.try_read(&mut [0]);
            matches!(quiet, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
        });
        parked.push_back(stream);
        self.arrived.notify_one();
    }

    /// Hands out connections from now on.
    pub(crate) fn serve(self: &Rc<Self>, listeners: Vec<Listener>) {
        for (listener, target) in listeners {
            if let Ok(addr) = listener.local_addr() {
                self.own.borrow_mut().insert((addr.ip(), addr.port()));
            }
            tokio::task::spawn_local(Rc::clone(self).hand_out(listener, target));
        }
    }

    /// The addresses on which the init itself listens.
    pub(crate) fn own_ports(&self) -> BTreeSet<(IpAddr, u16)> {
        self.own.borrow().clone()
    }

    async fn hand_out(self: Rc<Self>, listener: TcpListener, to: EgressTarget) {
        loop {
            let Ok((inside, peer)) = listener.accept().await else {
                // One that ended before it was taken is no reason to stop.
                tokio::time::sleep(super::ACCEPT_PAUSE).await;
                continue;
            };
            let opened = OpenedEgress {
                to: to.clone(),
                source_port: peer.port(),
            };
            let outside = self.take(&opened).await;
            tokio::task::spawn_local(carry(inside, outside));
        }
    }

    /// A parked connection that has been told what it is for.
    async fn take(&self, opened: &OpenedEgress) -> UnixStream {
        let reply = HelloReply::Ok(Opened::Egress(opened.clone()));
        loop {
            let parked = self.parked.borrow_mut().pop_front();
            let Some(mut stream) = parked else {
                self.arrived.notified().await;
                continue;
            };
            // Its agent may be gone: then the next one.
            if frame::write(&mut stream, &reply).await.is_ok() {
                return stream;
            }
        }
    }
}

async fn carry(mut inside: TcpStream, mut outside: UnixStream) {
    let _ = inside.set_nodelay(true);
    splice(&mut inside, &mut outside).await;
}
