//! What the whole init knows, and what a connection is answered.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use nimbus_guest::frame::{self, FrameError};
use nimbus_guest::protocol::{Claim, Claimed, First, GuestFault, Hello, HelloReply, Stats, VERSION};
use tokio::net::UnixStream;
use tokio::sync::Notify;

use super::commands::{Commands, Surroundings};
use super::egress::{self, Egress};
use super::fault::conflict;
use super::{archive, attach, content, control, ports};

/// Where things are; a test has other places.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// The slot in which the agent listens.
    pub(crate) slot: PathBuf,
    /// The file of host names, if it is ours to write.
    pub(crate) hosts: Option<PathBuf>,
    /// Where connections for the proxy are taken.
    pub(crate) proxy_port: u16,
}

/// What the whole init knows.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) commands: Rc<Commands>,
    pub(crate) egress: Rc<Egress>,
    places: Places,
    claim: RefCell<Option<(Claim, Claimed)>>,
    around: RefCell<Surroundings>,
    connections: Cell<u32>,
    /// Everything is to end now.
    pub(crate) shutdown: Notify,
}

impl World {
    pub(crate) fn new(places: Places) -> Rc<Self> {
        let env: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Rc::new(Self {
            commands: Commands::new(),
            egress: Rc::default(),
            places,
            claim: RefCell::new(None),
            around: RefCell::new(Surroundings { env, cwd: None }),
            connections: Cell::new(0),
            shutdown: Notify::new(),
        })
    }

    /// Becomes who the claim says; again the same is fine.
    pub(crate) fn claim(&self, claim: Claim) -> Result<Claimed, GuestFault> {
        if let Some((was, claimed)) = &*self.claim.borrow() {
            return if *was == claim {
                Ok(claimed.clone())
            } else {
                Err(conflict("the sandbox is claimed already"))
            };
        }
        // What can fail comes first; a claim that failed leaves nothing.
        let listeners = egress::listen(&claim, self.places.proxy_port)?;
        let claimed = Claimed {
            hosts_written: egress::write_hosts(self.places.hosts.as_deref(), &claim.hosts),
        };
        self.egress.serve(listeners);
        if let Some(bytes) = claim.log_bytes {
            self.commands.spill.set_limit(bytes);
        }
        {
            let mut around = self.around.borrow_mut();
            around.env.extend(claim.env.iter().cloned());
            around.cwd.clone_from(&claim.cwd);
        }
        *self.claim.borrow_mut() = Some((claim, claimed.clone()));
        Ok(claimed)
    }

    pub(crate) fn stats(&self) -> Stats {
        let commands = self.commands.list();
        let running = commands.iter().filter(|command| command.exit.is_none()).count();
        Stats {
            commands: u32::try_from(commands.len()).unwrap_or(u32::MAX),
            running: u32::try_from(running).unwrap_or(u32::MAX),
            connections: self.connections.get(),
            log_memory: self.commands.log_memory(),
            log_disk: self.commands.spill.used_bytes(),
        }
    }

    /// Serves one connection to its end. What goes wrong on it ends it and concerns nobody else.
    pub(crate) async fn serve(self: Rc<Self>, stream: UnixStream) {
        self.connections.set(self.connections.get() + 1);
        let _ = self.answer(stream).await;
        self.connections.set(self.connections.get().saturating_sub(1));
    }

    async fn answer(self: &Rc<Self>, mut stream: UnixStream) -> Result<(), FrameError> {
        let first = match frame::read::<_, First>(&mut stream).await {
            Ok(Some(first)) if first.version == VERSION => first,
            Ok(None) => return Ok(()),
            Ok(Some(_)) | Err(FrameError::Malformed(_)) => {
                let fault = GuestFault::new(
                    "bus.schema_mismatch",
                    "the sandbox' init speaks another version of the protocol",
                );
                return refuse(stream, fault.with("version", VERSION)).await;
            }
            Err(error) => return Err(error),
        };
        match first.hello {
            Hello::Control => Box::pin(control::serve(stream, self)).await,
            Hello::Run { spec, since, input } => {
                let run = self.commands.run(&spec, &self.around.borrow());
                match run {
                    Ok((command, started)) => {
                        Box::pin(attach::serve(stream, command, since, input, started)).await
                    }
                    Err(fault) => refuse(stream, fault).await,
                }
            }
            Hello::Attach {
                command,
                since,
                input,
            } => match self.commands.get(&command) {
                Ok(command) => Box::pin(attach::serve(stream, command, since, input, false)).await,
                Err(fault) => refuse(stream, fault).await,
            },
            Hello::ReadFile { path, range } => Box::pin(content::send(stream, path, range)).await,
            Hello::WriteFile {
                path,
                mode,
                create_parents,
                must,
            } => {
                let target = content::Target {
                    path,
                    mode,
                    create_parents,
                    must,
                };
                Box::pin(content::receive(stream, target)).await
            }
            Hello::TarOut { path } => Box::pin(archive::send(stream, path)).await,
            Hello::TarIn { path } => Box::pin(archive::receive(stream, path)).await,
            Hello::Connect { port } => Box::pin(ports::connect(stream, port)).await,
            Hello::Egress => {
                self.egress.park(stream);
                Ok(())
            }
        }
    }
}

/// Says why not.
pub(crate) async fn refuse(mut stream: UnixStream, fault: GuestFault) -> Result<(), FrameError> {
    frame::write(&mut stream, &HelloReply::Err(fault)).await
}
