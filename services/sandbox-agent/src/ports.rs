//! Published ports: listeners on the host's loopback that lead to a port inside of a sandbox.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener as StdListener};
use std::sync::{Arc, Mutex, PoisonError};

use nimbus_guest::Guest;
use nimbus_proto::workloads::{Endpoint, Port, Protocol};
use tokio::io::copy_bidirectional;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::activity::Activity;
use crate::config::PortRange;
use crate::error::AgentError;

/// The host's ports for sandboxes. Clones share.
#[derive(Clone)]
pub(crate) struct Ports {
    range: PortRange,
    taken: Arc<Mutex<BTreeSet<u16>>>,
}

/// A published port; withdrawn when it is dropped.
pub(crate) struct Published {
    pub(crate) endpoint: Endpoint,
    ports: Ports,
    task: JoinHandle<()>,
}

/// Where connections to the sandbox go now, if anywhere.
pub(crate) type Target = watch::Receiver<Option<Guest>>;

impl Ports {
    pub(crate) fn new(range: PortRange) -> Self {
        Self {
            range,
            taken: Arc::default(),
        }
    }

    /// Publishes one port: on the host port that it names, else on the lowest free one of the range.
    ///
    /// # Errors
    /// [`AgentError::PortTaken`], [`AgentError::NoPort`].
    pub(crate) fn publish(
        &self,
        port: &Port,
        target: Target,
        activity: Arc<Activity>,
    ) -> Result<Published, AgentError> {
        let (host_port, listener) = match port.host_port {
            Some(wanted) => {
                let taken = |source| AgentError::PortTaken { port: wanted, source };
                if !self.lock().insert(wanted) {
                    return Err(taken(io::ErrorKind::AddrInUse.into()));
                }
                match bind(wanted) {
                    Ok(listener) => (wanted, listener),
                    Err(error) => {
                        self.lock().remove(&wanted);
                        return Err(taken(error));
                    }
                }
            }
            None => self.lowest_free()?,
        };
        let listener =
            TcpListener::from_std(listener).map_err(AgentError::io("listen on a published port"))?;
        let endpoint = Endpoint {
            name: port
                .name
                .clone()
                .unwrap_or_else(|| automatic_name(port.guest_port)),
            protocol: port.protocol,
            host: Ipv4Addr::LOCALHOST.to_string(),
            port: host_port,
        };
        let guest_port = port.guest_port;
        let task = tokio::spawn(accept(listener, guest_port, target, activity));
        Ok(Published {
            endpoint,
            ports: self.clone(),
            task,
        })
    }

    fn lowest_free(&self) -> Result<(u16, StdListener), AgentError> {
        let mut taken = self.lock();
        for port in self.range.first..=self.range.last {
            if taken.contains(&port) {
                continue;
            }
            // Others use this host, too: what cannot be bound is not free.
            if let Ok(listener) = bind(port) {
                taken.insert(port);
                return Ok((port, listener));
            }
        }
        Err(AgentError::NoPort { range: self.range })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<u16>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        self.task.abort();
        self.ports.lock().remove(&self.endpoint.port);
    }
}

/// The name of a port that was given none.
pub(crate) fn automatic_name(guest_port: u16) -> String {
    format!("tcp-{guest_port}")
}

/// The TCP ports that an image declares, as `8080/tcp`.
pub(crate) fn of_image(exposed: &[String]) -> Vec<Port> {
    exposed
        .iter()
        .filter_map(|text| {
            let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
            let guest_port = port.parse().ok().filter(|port| *port != 0)?;
            (protocol == "tcp").then_some(Port {
                name: None,
                guest_port,
                protocol: Protocol::Tcp,
                host_port: None,
            })
        })
        .collect()
}

fn bind(port: u16) -> io::Result<StdListener> {
    let listener = StdListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn accept(listener: TcpListener, guest_port: u16, target: Target, activity: Arc<Activity>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((mut stream, _)) => {
                    let guest = target.borrow().clone();
                    let used = activity.enter();
                    connections.spawn(async move {
                        let _used = used;
                        // Nobody inside: the client sees its connection closed, as it would without us.
                        let Some(guest) = guest else { return };
                        let Ok(mut inside) = guest.connect_port(guest_port).await else { return };
                        let _ = stream.set_nodelay(true);
                        let _ = copy_bidirectional(&mut stream, &mut inside).await;
                    });
                }
                // Out of descriptors, or a client that is gone already: the next one may fare better.
                Err(error) => {
                    tracing::warn!(cause = %error, "a connection to a published port was not taken");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(host_port: Option<u16>) -> Port {
        Port {
            name: None,
            guest_port: 80,
            protocol: Protocol::Http,
            host_port,
        }
    }

    #[tokio::test]
    async fn the_lowest_free_port_is_given_and_comes_back() {
        // Whatever is free around here: a probe of the kernel's choice names the place.
        let held = StdListener::bind("127.0.0.1:0").unwrap();
        let first = held.local_addr().unwrap().port();
        let ports = Ports::new(PortRange {
            first,
            last: first.saturating_add(50),
        });
        let (_keep, target) = watch::channel(None);
        let activity = Arc::new(Activity::new(nimbus_model::Clock::system()));
        let one = ports
            .publish(&port(None), target.clone(), Arc::clone(&activity))
            .unwrap();
        assert_ne!(one.endpoint.port, first, "the first one is held by somebody else");
        assert_eq!(one.endpoint.name, "tcp-80");
        let again = ports.publish(
            &port(Some(one.endpoint.port)),
            target.clone(),
            Arc::clone(&activity),
        );
        assert!(matches!(again, Err(AgentError::PortTaken { .. })));
        let number = one.endpoint.port;
        drop(one);
        tokio::task::yield_now().await;
        let mut free = None;
        for _ in 0..100 {
            if let Ok(two) = ports.publish(&port(Some(number)), target.clone(), Arc::clone(&activity)) {
                free = Some(two);
                break;
            }
            tokio::task::yield_now().await;
        }
        assert!(free.is_some());
    }

    #[test]
    fn an_images_tcp_ports_are_published() {
        let ports = of_image(&["8080/tcp".into(), "53/udp".into(), "90".into(), "x/tcp".into()]);
        let numbers: Vec<_> = ports.iter().map(|port| port.guest_port).collect();
        assert_eq!(numbers, [8080, 90]);
    }
}
